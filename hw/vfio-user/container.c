/*
 * vfio-user: the container of one device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The third IOMMU backend of hw/vfio. A window that the kernel would pin and
 * map becomes a DMA_MAP message (container-msg.c): with the descriptor of the
 * memory when guest RAM is shared, so that the server maps it, too; without one
 * when it is private, and then the server asks for each access with DMA_READ
 * and DMA_WRITE (dma.c). Which of the two it is, container-window.c finds out.
 *
 * hw/vfio stops the VM when a map fails at run time. A server that refuses a
 * window is no reason for that: the device goes offline instead, or on without
 * the window (container-sync.c), and every call succeeds.
 *
 * Memory that belongs to another device (a BAR mapped through) gets a window
 * only if peer.c has a descriptor for it; otherwise dma.c refuses it, too.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qapi/error.h"
#include "container-int.h"
#include "trace.h"

static VFIOUserContainer *vfio_user_container(const VFIOContainerBase *base)
{
    return VFIO_IOMMU_USER((Object *)base);
}

/* Map and unmap ------------------------------------------------------------ */

/* The server is told in the end. Returns as vfio_user_container_finish(). */
static int vfio_user_container_changed(VFIOUserContainer *c)
{
    if (c->in_transaction) {
        return 0;
    }
    vfio_user_container_sync(c);
    return vfio_user_container_finish(c);
}

int vfio_user_container_dma_map(const VFIOContainerBase *base,
                                hwaddr iova, ram_addr_t size,
                                void *vaddr, bool readonly)
{
    VFIOUserContainer *c = vfio_user_container(base);
    VFIOUserBacking b;
    uint32_t flags = VFIO_USER_DMA_READABLE |
                     (readonly ? 0 : VFIO_USER_DMA_WRITEABLE);
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_MAP);
    uint64_t at, len;

    /* What is wrong was reported, or is in @error by the time of commit. */
    if (vfio_user_device_link(c->udev) == VFIO_USER_LINK_GONE) {
        return 0;
    }
    vfio_user_container_backing(c, vaddr, readonly, &b);
    if (b.device && b.fd < 0) {
        trace_vfio_user_container_skip(c->udev->name, iova, size);
        return 0;
    }
    for (at = 0; at < size; at += len) {
        len = MIN(size - at,
                  c->max_window - ((iova + at) & (c->max_window - 1)));
        vfio_user_container_add(c, iova + at, len, flags, &b, vaddr, at);
    }
    return vfio_user_container_changed(c);
}

static void vfio_user_container_unmap_one(VFIOUserContainer *c,
                                          VFIOUserWindow *w)
{
    uint64_t start = w->node.start, last = w->node.last;

    trace_vfio_user_container_unmap(c->udev->name, start, last - start + 1);
    vfio_user_dirty_forget(c, w);
    if (w->entry) {
        vfio_user_container_untell(c, w->entry);
        vfio_user_container_del(c, w);
    } else {
        vfio_user_container_del(c, w);
        vfio_user_iommu_uncover(c, start, last);
    }
    c->unmapped = vfio_user_dma_behind_iommu(c->udev);
}

int vfio_user_container_dma_unmap(const VFIOContainerBase *base,
                                  hwaddr iova, ram_addr_t size,
                                  IOMMUTLBEntry *iotlb)
{
    VFIOUserContainer *c = vfio_user_container(base);
    uint64_t last = iova + size - 1;
    IntervalTreeNode *node, *next;
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_UNMAP);

    /* One unmap of hw/vfio may cover many windows, and parts without any. */
    for (node = interval_tree_iter_first(&c->windows, iova, last); node;
         node = next) {
        next = interval_tree_iter_next(node, iova, last);
        if (node->start < iova || node->last > last) {
            error_report_once("vfio-user-pci %s: unmapping [0x%" PRIx64 ", 0x%"
                              PRIx64 "] would cut the window [0x%" PRIx64
                              ", 0x%" PRIx64 "]: all of it is taken away",
                              c->udev->name, iova, last, node->start,
                              node->last);
        }
        vfio_user_container_unmap_one(c, container_of(node, VFIOUserWindow,
                                                      node));
    }
    return vfio_user_container_changed(c);
}

static void vfio_user_container_begin(VFIOContainerBase *base)
{
    vfio_user_container(base)->in_transaction = true;
}

/* While the device realizes: with part of the guest's memory it must not run. */
static void vfio_user_container_check_room(VFIOUserContainer *c)
{
    unsigned nr = 0;

    if (c->bcontainer.initialized || c->bcontainer.error ||
        QTAILQ_EMPTY(&c->untold[VFIO_USER_UNTOLD_RAM])) {
        return;
    }
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        nr += !w->device;
    }
    error_setg(&c->bcontainer.error, "guest memory needs %u DMA windows, more "
               "than the %" PRIu64 " that the server allows (max_dma_maps): use "
               "a server that allows more, or give the guest its memory in "
               "fewer pieces (-m instead of many DIMMs)", nr,
               c->udev->caps.max_dma_maps);
}

static void vfio_user_container_tell_all(VFIOUserContainer *c)
{
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_COMMIT);

    vfio_user_container_sync(c);
    vfio_user_container_check_room(c);
    c->in_transaction = false;
    vfio_user_container_finish(c);
}

static void vfio_user_container_commit(VFIOContainerBase *base)
{
    VFIOUserContainer *c = vfio_user_container(base);

    vfio_user_container_tell_all(c);
    if (c->told_outside) {
        c->told_outside = false;
        vfio_user_gate_sent(c->udev, true);
    }
}

/* Life --------------------------------------------------------------------- */

static bool vfio_user_container_setup(VFIOContainerBase *base, Error **errp)
{
    VFIOUserDevice *udev = vfio_user_container(base)->udev;

    base->pgsizes = udev->caps.pgsizes;
    base->dma_max_mappings = udev->caps.max_dma_maps;
    base->dirty_pages_supported = true;
    return true;
}

static bool vfio_user_container_attach(const char *name, VFIODevice *vbasedev,
                                       AddressSpace *as, Error **errp)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserContainer *c = VFIO_IOMMU_USER(object_new(TYPE_VFIO_IOMMU_USER));
    VFIOContainerBase *base = &c->bcontainer;
    struct vfio_device_info info = {
        .flags = udev->info.flags,
        .num_regions = udev->info.num_regions,
        .num_irqs = udev->info.num_irqs,
    };

    c->udev = vfio_user_device_ref(udev);
    vfio_user_container_setup(base, errp);
    c->space.as = as;
    QLIST_INIT(&c->space.containers);
    vfio_address_space_insert(&c->space, base);
    c->max_window = vfio_user_dirty_max_window(udev);
    WITH_QEMU_LOCK_GUARD(&udev->dma_lock) {
        udev->windows = &c->windows;
    }
    base->listener = vfio_memory_listener;
    /* All windows at once instead of section by section: see dirty.c. */
    base->listener.log_sync = NULL;
    base->listener.log_sync_global = vfio_user_dirty_sync;
    memory_listener_register(&base->listener, as);
    if (base->error) {
        error_propagate(errp, base->error);
        base->error = NULL;
        memory_listener_unregister(&base->listener);
        object_unref(c);
        return false;
    }
    base->initialized = true;
    /* All that the server writes will be known: hw/vfio need not mind. */
    vbasedev->iommu_dirty_tracking = vfio_user_dirty_is_known(c, vbasedev);

    vfio_user_compat_prepare(vbasedev, base, &info);
    return true;
}

static void vfio_user_container_detach(VFIODevice *vbasedev)
{
    VFIOContainerBase *base = vbasedev->bcontainer;

    vfio_user_compat_unprepare(vbasedev);
    memory_listener_unregister(&base->listener);
    object_unref(base);
}

/* DEVICE_RESET is the only way to reset a vfio-user device. */
static int vfio_user_container_hot_reset(VFIODevice *vbasedev, bool single)
{
    return -ENOTTY;
}

static void vfio_user_container_init(Object *obj)
{
    VFIOUserContainer *c = VFIO_IOMMU_USER(obj);

    QSIMPLEQ_INIT(&c->pending);
    QTAILQ_INIT(&c->stale);
    for (unsigned i = 0; i < VFIO_USER_NR_UNTOLD; i++) {
        QTAILQ_INIT(&c->untold[i]);
    }
    QTAILQ_INIT(&c->log.reports);
}

static void vfio_user_container_finalize(Object *obj)
{
    VFIOUserContainer *c = VFIO_IOMMU_USER(obj);
    IntervalTreeNode *node;

    if (!c->udev) {
        return;
    }
    while ((node = interval_tree_iter_first(&c->windows, 0, UINT64_MAX))) {
        vfio_user_container_del(c, container_of(node, VFIOUserWindow, node));
    }
    while ((node = interval_tree_iter_first(&c->entries, 0, UINT64_MAX))) {
        vfio_user_container_del_entry(c, container_of(node, VFIOUserEntry,
                                                      node));
    }
    vfio_user_container_forget(c);
    WITH_QEMU_LOCK_GUARD(&c->udev->dma_lock) {
        c->udev->windows = NULL;
    }
    vfio_user_device_unref(c->udev);
}

static void vfio_user_container_class_init(ObjectClass *klass,
                                           VFIOUserClassData *data)
{
    VFIOIOMMUClass *vioc = VFIO_IOMMU_CLASS(klass);

    vioc->setup = vfio_user_container_setup;
    vioc->dma_map = vfio_user_compat_dma_map;
    vioc->dma_unmap = vfio_user_compat_dma_unmap;
    vioc->set_dirty_page_tracking = vfio_user_dirty_set_tracking;
    vioc->listener_begin = vfio_user_container_begin;
    vioc->listener_commit = vfio_user_container_commit;
    vioc->attach_device = vfio_user_container_attach;
    vioc->detach_device = vfio_user_container_detach;
    vioc->pci_hot_reset = vfio_user_container_hot_reset;
}

static const TypeInfo vfio_user_container_types[] = {
    {
        .name = TYPE_VFIO_IOMMU_USER,
        .parent = TYPE_VFIO_IOMMU,
        .instance_size = sizeof(VFIOUserContainer),
        .instance_init = vfio_user_container_init,
        .instance_finalize = vfio_user_container_finalize,
        .class_init = vfio_user_container_class_init,
    },
};

DEFINE_TYPES(vfio_user_container_types)
