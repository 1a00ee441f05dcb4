/*
 * vfio-user: windows of a container, and the memory behind them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the guest lets the device access is one thing (windows), what the server
 * has in its table another (entries). They are the same but for iommu.c, where
 * a window may have no entry and an entry no window.
 *
 * The server may have a descriptor of guest RAM that is shared. It is good for
 * all of the file, so dma-share=off keeps it back. What is behind a window is
 * looked up by its address, when the window comes and once more for a server
 * that comes back, so that no descriptor has to be kept meanwhile.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "system/hostmem.h"
#include "container-int.h"
#include "peer.h"

/* Memory ------------------------------------------------------------------- */

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

void vfio_user_container_backing(VFIOUserContainer *c, void *vaddr,
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

/* Windows ------------------------------------------------------------------ */

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

VFIOUserWindow *vfio_user_container_add(VFIOUserContainer *c,
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
    w->device = b->device;
    WITH_QEMU_LOCK_GUARD(&c->udev->dma_lock) {
        interval_tree_insert(&w->node, &c->windows);
    }
    c->nr_windows++;
    vfio_user_container_put_untold(c, w, false);
    return w;
}

void vfio_user_container_del(VFIOUserContainer *c, VFIOUserWindow *w)
{
    vfio_user_dirty_forget(c, w);
    if (w->entry) {
        vfio_user_container_del_entry(c, w->entry);
    }
    vfio_user_container_take_untold(c, w);
    WITH_QEMU_LOCK_GUARD(&c->udev->dma_lock) {
        interval_tree_remove(&w->node, &c->windows);
    }
    c->nr_windows--;
    g_free(w);
}

void vfio_user_container_put_untold(VFIOUserContainer *c, VFIOUserWindow *w,
                                    bool full)
{
    vfio_user_container_take_untold(c, w);
    w->is_untold = true;
    w->untold = full ? VFIO_USER_UNTOLD_FULL :
                w->device ? VFIO_USER_UNTOLD_DEVICE : VFIO_USER_UNTOLD_RAM;
    QTAILQ_INSERT_TAIL(&c->untold[w->untold], w, next);
    c->untold_sum.nr++;
    c->untold_sum.bytes += vfio_user_window_size(w);
}

void vfio_user_container_take_untold(VFIOUserContainer *c, VFIOUserWindow *w)
{
    if (w->is_untold) {
        w->is_untold = false;
        QTAILQ_REMOVE(&c->untold[w->untold], w, next);
        c->untold_sum.nr--;
        c->untold_sum.bytes -= vfio_user_window_size(w);
    }
}

/* Entries ------------------------------------------------------------------ */

VFIOUserEntry *vfio_user_container_add_entry(VFIOUserContainer *c,
                                             uint64_t start, uint64_t last,
                                             VFIOUserWindow *w)
{
    VFIOUserEntry *e = g_new0(VFIOUserEntry, 1);

    e->refs = 1;
    e->listed = true;
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
    return e;
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
    e->listed = false;
    e->window = NULL;
    vfio_user_container_unref_entry(e);
}

void vfio_user_container_unref_entry(VFIOUserEntry *e)
{
    if (qatomic_fetch_dec(&e->refs) == 1) {
        g_free(e);
    }
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
