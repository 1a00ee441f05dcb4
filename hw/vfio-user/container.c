/*
 * vfio-user: the DMA windows of one device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The third IOMMU backend of hw/vfio. A window that the kernel would pin and
 * map becomes a DMA_MAP message: with the descriptor of the memory when guest
 * RAM is shared, so that the server maps it, too; without one when it is
 * private, and then the server asks for each access with DMA_READ and
 * DMA_WRITE (dma.c).
 *
 * A guest's memory is many windows, and one round trip for each would show at
 * start. So within a transaction of the memory listener messages are sent
 * and not waited for. During realize commit collects all replies, and errors
 * go where hw/vfio expects them. Later nobody waits: transactions come from
 * vCPUs that hold the BQL (firmware that shadows itself), and whatever the
 * guest does to the device next reaches the server after the windows. Memory
 * that goes away stays mapped at the server a little longer by its own
 * reference to the file; DMA by message finds what is there now. Outside of a
 * transaction (vIOMMU, virtio-mem) each call waits, since its caller relies on
 * the result. So does commit behind an IOMMU of the guest; see iommu.c.
 *
 * hw/vfio stops the VM when a map fails at run time. A server that refuses a
 * window is no reason for that: the device goes offline instead, and every
 * call succeeds from then on.
 *
 * What the guest lets the device access is one thing (windows), what the server
 * has in its table another (entries). They are the same but for iommu.c.
 *
 * Memory that belongs to another device (a BAR mapped through) gets a window
 * only if peer.c has a descriptor for it; otherwise dma.c refuses it, too.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "system/hostmem.h"
#include "container.h"
#include "peer.h"
#include "trace.h"

/* DMA_MAP or DMA_UNMAP on its way */
typedef struct VFIOUserWindowMsg {
    VFIOUserRequest req;
    VFIOUserDevice *udev;
    union {
        struct vfio_user_dma_map map;
        struct vfio_user_dma_unmap unmap;
    } out;
    struct vfio_user_dma_unmap reply;
    struct iovec out_iov;
    struct iovec in_iov;
    int fd;
    QSIMPLEQ_ENTRY(VFIOUserWindowMsg) next;
} VFIOUserWindowMsg;

static VFIOUserContainer *vfio_user_container(const VFIOContainerBase *base)
{
    return VFIO_IOMMU_USER((Object *)base);
}

/* Messages ------------------------------------------------------------------ */

/* Returns 0 or -errno with @errp set. Any thread. */
static int vfio_user_container_result(VFIOUserWindowMsg *msg, int ret,
                                      Error **errp)
{
    bool map = msg->req.command == VFIO_USER_DMA_MAP;
    uint64_t iova = map ? msg->out.map.addr : msg->out.unmap.addr;
    uint64_t size = map ? msg->out.map.size : msg->out.unmap.size;

    if (ret) {
        Error *err = vfio_user_conn_error(msg->udev->conn);

        if (!err) {
            error_setg(&err, "%s", ret == -ETIMEDOUT ?
                       "the server did not answer in time" : strerror(-ret));
        }
        trace_vfio_user_container_failed(msg->udev->name, map, iova, size, ret);
        error_prepend(&err, "%s of 0x%" PRIx64 " bytes at 0x%" PRIx64
                      " failed: ", map ? "DMA_MAP" : "DMA_UNMAP", size, iova);
        error_propagate(errp, err);
        return ret;
    }
    if (!map && !vfio_user_wire_check_dma_unmap(&msg->reply, msg->req.in_len,
                                                &msg->out.unmap, errp)) {
        error_prepend(errp, "DMA_UNMAP: ");
        return -EIO;
    }
    return 0;
}

/* The outcome of a message that nobody waits for. Any thread. */
static void vfio_user_container_done(VFIOUserRequest *req)
{
    VFIOUserWindowMsg *msg = container_of(req, VFIOUserWindowMsg, req);
    Error *err = NULL;

    if (vfio_user_container_result(msg, req->ret, &err)) {
        vfio_user_device_offline(msg->udev, err);
    }
    g_free(msg);
}

static void vfio_user_container_send(VFIOUserContainer *c,
                                     VFIOUserWindowMsg *msg)
{
    msg->udev = c->udev;
    msg->out_iov.iov_base = &msg->out;
    msg->req.out = &msg->out_iov;
    msg->req.nr_out = 1;
    if (c->in_transaction && c->bcontainer.initialized &&
        (c->replaying || !vfio_user_dma_behind_iommu(c->udev))) {
        msg->req.done = vfio_user_container_done;
    } else {
        QSIMPLEQ_INSERT_TAIL(&c->pending, msg, next);
    }
    vfio_user_conn_submit(c->udev->conn, &msg->req);
}

void vfio_user_container_send_map(VFIOUserContainer *c, uint64_t iova,
                                  uint64_t size, uint32_t flags, int fd,
                                  uint64_t offset)
{
    VFIOUserWindowMsg *msg = g_new0(VFIOUserWindowMsg, 1);

    msg->out.map = (struct vfio_user_dma_map) {
        .argsz = sizeof(msg->out.map),
        .flags = flags,
        .offset = fd < 0 ? 0 : offset,
        .addr = iova,
        .size = size,
    };
    msg->out_iov.iov_len = sizeof(msg->out.map);
    msg->fd = fd;
    msg->req.command = VFIO_USER_DMA_MAP;
    msg->req.fds = &msg->fd;
    msg->req.nr_fds = fd < 0 ? 0 : 1;
    vfio_user_container_send(c, msg);
}

void vfio_user_container_send_unmap(VFIOUserContainer *c, uint64_t iova,
                                    uint64_t size)
{
    VFIOUserWindowMsg *msg = g_new0(VFIOUserWindowMsg, 1);

    msg->out.unmap = (struct vfio_user_dma_unmap) {
        .argsz = sizeof(msg->out.unmap),
        .addr = iova,
        .size = size,
    };
    msg->out_iov.iov_len = sizeof(msg->out.unmap);
    msg->in_iov.iov_base = &msg->reply;
    msg->in_iov.iov_len = sizeof(msg->reply);
    msg->req.command = VFIO_USER_DMA_UNMAP;
    msg->req.in = &msg->in_iov;
    msg->req.nr_in = 1;
    vfio_user_container_send(c, msg);
}

/* Behind an IOMMU, what the server refuses may go another way. */
static bool vfio_user_container_may_refuse(VFIOUserContainer *c,
                                           VFIOUserWindowMsg *msg, int ret)
{
    return ret && ret != -ETIMEDOUT && c->bcontainer.initialized &&
           msg->req.command == VFIO_USER_DMA_MAP &&
           vfio_user_dma_behind_iommu(c->udev) &&
           !vfio_user_conn_broken(c->udev->conn);
}

/* Collect every reply; all of them, also after one has failed. */
static int vfio_user_container_collect(VFIOUserContainer *c, Error **errp)
{
    int first = 0;

    while (!QSIMPLEQ_EMPTY(&c->pending)) {
        VFIOUserWindowMsg *msg = QSIMPLEQ_FIRST(&c->pending);
        bool may_refuse;
        Error *err = NULL;
        int ret;

        QSIMPLEQ_REMOVE_HEAD(&c->pending, next);
        ret = vfio_user_conn_wait(c->udev->conn, &msg->req);
        may_refuse = vfio_user_container_may_refuse(c, msg, ret);
        ret = vfio_user_container_result(msg, ret, &err);
        if (may_refuse &&
            vfio_user_iommu_refused(c, msg->out.map.addr,
                                    msg->out.map.addr +
                                    (msg->out.map.size - 1), &err)) {
            ret = 0;
        }
        if (first) {
            error_free(err);
        } else {
            first = ret;
            error_propagate(errp, err);
        }
        g_free(msg);
    }
    return first;
}

/*
 * Whatever was sent has an outcome now: what hw/vfio is told of it. Of memory
 * that was taken away nobody makes use any more.
 */
static int vfio_user_container_finish(VFIOUserContainer *c)
{
    VFIOContainerBase *base = &c->bcontainer;
    Error *err = NULL;
    int ret;

    ret = vfio_user_container_collect(c, &err);
    if (c->unmapped) {
        c->unmapped = false;
        vfio_user_dma_drain(c->udev);
    }
    if (!ret) {
        return 0;
    }
    if (base->initialized) {
        vfio_user_device_offline(c->udev, err);
        return 0;
    }
    if (!base->error) {
        base->error = err;
    } else {
        error_free(err);
    }
    return ret;
}

static void vfio_user_container_begin(VFIOContainerBase *base)
{
    vfio_user_container(base)->in_transaction = true;
}

static void vfio_user_container_commit(VFIOContainerBase *base)
{
    VFIOUserContainer *c = vfio_user_container(base);

    c->in_transaction = false;
    vfio_user_container_finish(c);
}

/* Windows -------------------------------------------------------------------- */

/**
 * VFIOUserBacking: what is behind a piece of our memory
 * @fd, @offset: the file, when the memory is shared; else -1
 * @ram_addr: where it is in guest RAM, unless @device
 * @device: a device's, not RAM
 * @backend: guest RAM proper, where a descriptor is to be expected
 */
typedef struct VFIOUserBacking {
    int fd;
    uint64_t offset;
    ram_addr_t ram_addr;
    bool device;
    bool backend;
} VFIOUserBacking;

static void vfio_user_container_find(VFIOUserContainer *c, void *vaddr,
                                     VFIOUserBacking *b)
{
    ram_addr_t offset;
    MemoryRegion *mr;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    *b = (VFIOUserBacking) { .fd = -1 };
    rb = qemu_ram_block_from_host(vaddr, false, &offset);
    if (!rb) {
        b->device = true;
        return;
    }
    mr = rb->mr;
    b->ram_addr = rb->offset + offset;
    b->device = memory_region_is_ram_device(mr);
    if (b->device) {
        vfio_user_peer_find(c->udev, mr, offset, &b->fd, &b->offset);
        return;
    }
    b->backend = mr->owner &&
                 object_dynamic_cast(mr->owner, TYPE_MEMORY_BACKEND);
    if (qemu_ram_is_shared(rb) && qemu_ram_get_fd(rb) >= 0) {
        b->fd = qemu_ram_get_fd(rb);
        b->offset = rb->fd_offset + offset;
    }
}

void vfio_user_container_by_message(VFIOUserContainer *c)
{
    if (!c->udev->twin) {
        vfio_user_conn_set_lockstep(c->udev->conn);
    }
}

static void vfio_user_container_private_ram(VFIOUserContainer *c)
{
    warn_report_once("vfio-user-pci %s: guest RAM is private: the server must "
                     "use messages for DMA, which is slow, and some servers "
                     "cannot; share it with -object memory-backend-memfd,"
                     "id=mem,size=...,share=on -machine memory-backend=mem",
                     c->udev->name);
    vfio_user_container_by_message(c);
}

/* What the server may have of a piece of memory. */
static void vfio_user_container_backing(VFIOUserContainer *c, void *vaddr,
                                        bool readonly, VFIOUserBacking *b)
{
    vfio_user_container_find(c, vaddr, b);
    if (b->device) {
        return;
    }
    if (!c->udev->share_memory || !c->udev->caps.max_msg_fds) {
        b->fd = -1;
        vfio_user_container_by_message(c);
    } else if (b->fd < 0 && b->backend && !readonly) {
        vfio_user_container_private_ram(c);
    }
}

VFIOUserWindow *vfio_user_container_first(VFIOUserContainer *c)
{
    IntervalTreeNode *node = interval_tree_iter_first(&c->windows, 0,
                                                      UINT64_MAX);

    return node ? container_of(node, VFIOUserWindow, node) : NULL;
}

VFIOUserWindow *vfio_user_container_next(VFIOUserWindow *w)
{
    IntervalTreeNode *node = interval_tree_iter_next(&w->node, 0, UINT64_MAX);

    return node ? container_of(node, VFIOUserWindow, node) : NULL;
}

void vfio_user_container_add_entry(VFIOUserContainer *c, uint64_t start,
                                   uint64_t last, VFIOUserWindow *w)
{
    VFIOUserEntry *e = g_new0(VFIOUserEntry, 1);

    e->node.start = start;
    e->node.last = last;
    e->window = w;
    interval_tree_insert(&e->node, &c->entries);
    c->nr_entries++;
    if (w) {
        w->entry = e;
    } else {
        c->nr_by_message++;
    }
}

void vfio_user_container_del_entry(VFIOUserContainer *c, VFIOUserEntry *e)
{
    interval_tree_remove(&e->node, &c->entries);
    c->nr_entries--;
    if (e->window) {
        e->window->entry = NULL;
        e->window->mapped = e->window->has_fd = false;
    } else {
        c->nr_by_message--;
    }
    g_free(e);
}

void vfio_user_container_sum(VFIOUserContainer *c, VFIOUserWindowSum *with_fd,
                             VFIOUserWindowSum *by_message)
{
    IntervalTreeNode *node = interval_tree_iter_first(&c->entries, 0,
                                                      UINT64_MAX);

    *with_fd = *by_message = (VFIOUserWindowSum) { };
    while (node) {
        VFIOUserEntry *e = container_of(node, VFIOUserEntry, node);
        VFIOUserWindowSum *sum = e->window && e->window->has_fd ? with_fd :
                                                                  by_message;

        sum->nr++;
        sum->bytes += node->last - node->start + 1;
        node = interval_tree_iter_next(node, 0, UINT64_MAX);
    }
}

static VFIOUserWindow *vfio_user_container_add(VFIOUserContainer *c,
                                               uint64_t iova, uint64_t size,
                                               uint32_t flags,
                                               const VFIOUserBacking *b,
                                               void *vaddr, uint64_t at)
{
    VFIOUserWindow *w = g_new0(VFIOUserWindow, 1);

    w->node.start = iova;
    w->node.last = iova + size - 1;
    w->vaddr = vaddr + at;
    w->flags = flags;
    w->ram_addr = b->ram_addr + at;
    WITH_QEMU_LOCK_GUARD(&c->udev->dma_lock) {
        interval_tree_insert(&w->node, &c->windows);
    }
    c->nr_windows++;
    return w;
}

static void vfio_user_container_del(VFIOUserContainer *c, VFIOUserWindow *w)
{
    vfio_user_dirty_forget(c, w);
    if (w->entry) {
        vfio_user_container_del_entry(c, w->entry);
    }
    WITH_QEMU_LOCK_GUARD(&c->udev->dma_lock) {
        interval_tree_remove(&w->node, &c->windows);
    }
    c->nr_windows--;
    g_free(w);
}

static int vfio_user_container_refuse(VFIOUserContainer *c, int ret,
                                      Error *err)
{
    if (c->bcontainer.initialized) {
        vfio_user_device_offline(c->udev, err);
        return 0;
    }
    if (!c->bcontainer.error) {
        c->bcontainer.error = err;
    } else {
        error_free(err);
    }
    return ret;
}

/* One that is away learns of what there is when it comes back. */
bool vfio_user_container_is_told(VFIOUserContainer *c, uint64_t iova)
{
    if (vfio_user_conn_broken(c->udev->conn)) {
        return false;
    }
    return vfio_user_device_link(c->udev) == VFIO_USER_LINK_UP ||
           (vfio_user_device_link(c->udev) == VFIO_USER_LINK_REPLAY &&
            iova < c->replayed);
}

/* One window. Returns 0 or -errno, with the reason where hw/vfio looks. */
static int vfio_user_container_map_one(VFIOUserContainer *c, uint64_t iova,
                                       uint64_t size, uint32_t flags,
                                       const VFIOUserBacking *b, void *vaddr,
                                       uint64_t at)
{
    bool behind_iommu = vfio_user_dma_behind_iommu(c->udev);
    VFIOUserWindow *w;

    if (!behind_iommu && c->nr_entries >= c->udev->caps.max_dma_maps) {
        Error *err = NULL;

        error_setg(&err, "guest memory needs more DMA windows than the %" PRIu64
                   " that the server allows (max_dma_maps)",
                   c->udev->caps.max_dma_maps);
        return vfio_user_container_refuse(c, -ENOSPC, err);
    }
    trace_vfio_user_container_map(c->udev->name, iova, size, b->fd,
                                  b->offset + at, flags);
    w = vfio_user_container_add(c, iova, size, flags, b, vaddr, at);
    if (behind_iommu && !vfio_user_iommu_room(c)) {
        vfio_user_iommu_cover(c, iova, iova + size - 1);
        return 0;
    }
    vfio_user_container_add_entry(c, iova, iova + size - 1, w);
    w->has_fd = b->fd >= 0;
    w->mapped = w->has_fd && !b->device && flags & VFIO_USER_DMA_WRITEABLE;
    if (vfio_user_container_is_told(c, iova)) {
        vfio_user_container_send_map(c, iova, size, flags, b->fd,
                                     b->offset + at);
    }
    return 0;
}

static int vfio_user_container_dma_map(const VFIOContainerBase *base,
                                       hwaddr iova, ram_addr_t size,
                                       void *vaddr, bool readonly)
{
    VFIOUserContainer *c = vfio_user_container(base);
    VFIOUserBacking b;
    uint32_t flags = VFIO_USER_DMA_READABLE |
                     (readonly ? 0 : VFIO_USER_DMA_WRITEABLE);
    uint64_t at, len;
    int ret = 0;

    /* What is wrong was reported, or is in @error by the time of commit. */
    if (vfio_user_device_link(c->udev) == VFIO_USER_LINK_GONE) {
        return 0;
    }
    vfio_user_container_backing(c, vaddr, readonly, &b);
    /* A guest that moves BARs about must not use up what RAM needs. */
    if (b.device && (b.fd < 0 || c->nr_entries >=
                     c->udev->caps.max_dma_maps / 2)) {
        trace_vfio_user_container_skip(c->udev->name, iova, size);
        return 0;
    }
    for (at = 0; at < size && !ret; at += len) {
        len = MIN(size - at,
                  c->max_window - ((iova + at) & (c->max_window - 1)));
        ret = vfio_user_container_map_one(c, iova + at, len, flags, &b, vaddr,
                                          at);
    }
    if (ret) {
        return ret;
    }
    return c->in_transaction ? 0 : vfio_user_container_finish(c);
}

#if VFIO_USER_QEMU(10, 2)
static int vfio_user_container_dma_map_mr(const VFIOContainerBase *base,
                                          hwaddr iova, uint64_t size,
                                          void *vaddr, bool readonly,
                                          MemoryRegion *mr)
{
    return vfio_user_container_dma_map(base, iova, size, vaddr, readonly);
}
#endif

static void vfio_user_container_unmap_one(VFIOUserContainer *c,
                                          VFIOUserWindow *w)
{
    uint64_t start = w->node.start, last = w->node.last;
    bool own = w->entry;

    trace_vfio_user_container_unmap(c->udev->name, start, last - start + 1);
    if (own && vfio_user_container_is_told(c, start)) {
        vfio_user_container_send_unmap(c, start, last - start + 1);
    }
    vfio_user_container_del(c, w);
    if (!own) {
        vfio_user_iommu_uncover(c, start, last);
    }
    c->unmapped = vfio_user_dma_behind_iommu(c->udev);
}

static int vfio_user_container_dma_unmap(const VFIOContainerBase *base,
                                         hwaddr iova, ram_addr_t size,
                                         IOMMUTLBEntry *iotlb)
{
    VFIOUserContainer *c = vfio_user_container(base);
    uint64_t last = iova + size - 1;
    IntervalTreeNode *node, *next;

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
    return c->in_transaction ? 0 : vfio_user_container_finish(c);
}

#if VFIO_USER_QEMU(10, 2)
/* All of the address space has a size that no number says. */
static int vfio_user_container_dma_unmap_all(const VFIOContainerBase *base,
                                             hwaddr iova, uint64_t size,
                                             IOMMUTLBEntry *iotlb, bool all)
{
    const uint64_t half = 1ULL << 63;
    int ret;

    if (!all) {
        return vfio_user_container_dma_unmap(base, iova, size, iotlb);
    }
    ret = vfio_user_container_dma_unmap(base, 0, half, iotlb);
    return vfio_user_container_dma_unmap(base, half, half, iotlb) ?: ret;
}
#endif

/* A server that came back ---------------------------------------------------------- */

static void vfio_user_container_replay_one(VFIOUserContainer *c,
                                           VFIOUserEntry *e)
{
    uint32_t flags = e->window ? e->window->flags :
                     VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE;
    uint64_t size = e->node.last - e->node.start + 1;
    VFIOUserBacking b = { .fd = -1 };

    if (e->window) {
        vfio_user_container_backing(c, e->window->vaddr,
                                    !(flags & VFIO_USER_DMA_WRITEABLE), &b);
    } else {
        vfio_user_container_by_message(c);
    }
    trace_vfio_user_container_map(c->udev->name, e->node.start, size, b.fd,
                                  b.offset, flags);
    vfio_user_container_send_map(c, e->node.start, size, flags, b.fd, b.offset);
}

bool vfio_user_container_replay(VFIOUserContainer *c, unsigned max)
{
    bool was = c->in_transaction;
    IntervalTreeNode *node;

    /* Nobody waits for replies here. */
    c->in_transaction = c->replaying = true;
    while (max && (node = interval_tree_iter_first(&c->entries, c->replayed,
                                                   UINT64_MAX))) {
        /* One that begins below came meanwhile, and was told then. */
        if (node->start >= c->replayed) {
            vfio_user_container_replay_one(c, container_of(node, VFIOUserEntry,
                                                           node));
            max--;
        }
        c->replayed = MAX(node->last, node->last + 1);
        if (c->replayed == UINT64_MAX) {
            break;
        }
    }
    c->in_transaction = was;
    c->replaying = false;
    if (max) {
        c->replayed = UINT64_MAX;
    }
    return c->replayed == UINT64_MAX;
}

/* Life ------------------------------------------------------------------------ */

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
#if VFIO_USER_QEMU(10, 2)
    vioc->dma_map = vfio_user_container_dma_map_mr;
    vioc->dma_unmap = vfio_user_container_dma_unmap_all;
#else
    vioc->dma_map = vfio_user_container_dma_map;
    vioc->dma_unmap = vfio_user_container_dma_unmap;
#endif
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
