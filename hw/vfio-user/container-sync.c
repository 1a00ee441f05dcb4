/*
 * vfio-user: telling the server of the windows that there are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A window that the guest has is wanted. The server was told of it if it has an
 * entry, alone or with others (iommu.c). Otherwise it is untold, and in one of
 * three lists. Whenever something changes, vfio_user_container_sync() tells of as
 * many as there is room for: at the end of a transaction, when an answer comes that
 * makes a difference, when the device runs, and when a server that came back knows
 * all entries. There is no other place from which DMA_MAP of a new window is sent.
 *
 * Three things keep a window untold.
 *
 * - The server's table is full (max_dma_maps). It is told when another window goes.
 *   Memory of other devices gets half of the table at most: a guest that moves BARs
 *   about must not use up what RAM needs.
 * - The server refused it as it had no room (ENOSPC, ENOMEM), though by what it says
 *   it has. It is told again when another window goes; one such window at a time,
 *   since there may be many of them, and the next refusal is likely.
 * - The device is stopped, and the server refuses windows then (libvfio-user). It is
 *   told when the device runs. An entry that the server refused to give up is stale,
 *   and is taken away before any window is told: they may overlap. As a stopped
 *   device does no DMA, nobody has to wait for that. The outcomes of what was sent to
 *   the stopped device must be known before anything is told to one that runs.
 *
 * The device goes on without an untold window. A DMA command for it works all the
 * same, since dma.c looks memory up by its address, but servers send none for what
 * they have no window for: they fail the device's request. Rejected: a window
 * without descriptor instead, for which a table has no more room; to do that for
 * other refusals, too. QEMU's server and libvfio-user say EINVAL for all that is
 * wrong, and the former takes DMA outside of its windows for done. Such a device is
 * given up.
 *
 * An entry whose DMA_MAP was refused may have been taken away meanwhile. Then its
 * DMA_UNMAP is refused as well, which means nothing (VFIOUserEntry.refused).
 *
 * A server that comes back was told nothing, and has what room it says.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qapi/qapi-events-vfio-user.h"
#include "system/runstate.h"
#include "container-int.h"
#include "reconnect.h"
#include "trace.h"

/* Reports ------------------------------------------------------------------ */

static void vfio_user_container_report(VFIOUserContainer *c)
{
    VFIOUserDevice *udev = c->udev;
    VFIOUserWindows windows = {
        .count = c->untold_sum.nr, .bytes = c->untold_sum.bytes,
    };
    g_autofree char *size = size_to_str(windows.bytes);
    g_autofree char *why = g_strdup_printf("the server has no room for %" PRIu64
        " of the guest's DMA windows (%s, %u windows in use, max_dma_maps is %"
        PRIu64 ")", windows.count, size, c->nr_entries,
        udev->caps.max_dma_maps);
    VFIOUserReconnectView view;

    vfio_user_warn_limited(&c->said, "vfio-user-pci %s: %s: the device cannot "
                           "access that memory until others are taken away",
                           udev->name, why);
    vfio_user_reconnect_view(udev, &view);
    qapi_event_send_vfio_user_refused(view.id, view.path, why, &windows);
}

/* Report when there are more. A window that is tried again does not count. */
static void vfio_user_container_say(VFIOUserContainer *c)
{
    if (c->untold_sum.nr > c->nr_said && c->bcontainer.initialized) {
        vfio_user_container_report(c);
        c->nr_said = c->untold_sum.nr;
    } else if (!c->full) {
        c->nr_said = c->untold_sum.nr;
    }
}

/* Telling ------------------------------------------------------------------ */

static bool vfio_user_container_has_room(const VFIOUserContainer *c,
                                         const VFIOUserWindow *w)
{
    uint64_t max = c->udev->caps.max_dma_maps;
    unsigned nr = c->nr_entries + c->nr_stale;

    if (w->device && nr >= max / 2) {
        return false;
    }
    return nr < max || vfio_user_dma_behind_iommu(c->udev);
}

static void vfio_user_container_tell(VFIOUserContainer *c, VFIOUserWindow *w)
{
    uint64_t start = w->node.start, last = w->node.last;
    bool tried = w->untold == VFIO_USER_UNTOLD_FULL;
    VFIOUserBacking b;
    VFIOUserEntry *e;

    vfio_user_container_take_untold(c, w);
    vfio_user_container_backing(c, w->vaddr,
                                !(w->flags & VFIO_USER_DMA_WRITEABLE), &b);
    trace_vfio_user_container_map(c->udev->name, start, last - start + 1, b.fd,
                                  b.offset, w->flags);
    if (vfio_user_dma_behind_iommu(c->udev) && !vfio_user_iommu_room(c)) {
        vfio_user_iommu_cover(c, start, last);
        return;
    }
    e = vfio_user_container_add_entry(c, start, last, w);
    e->tried = tried;
    e->nr_freed = c->nr_freed;
    c->full |= tried;
    w->has_fd = b.fd >= 0;
    w->mapped = w->has_fd && !b.device && w->flags & VFIO_USER_DMA_WRITEABLE;
    if (vfio_user_container_is_told(c, start)) {
        c->told_outside |= !b.device && !vfio_user_held_in_access() &&
                           c->in_transaction && runstate_is_running();
        vfio_user_container_send_map(c, e, w->flags, b.fd, b.offset);
    }
}

/* The window that is told next, or NULL. */
static VFIOUserWindow *vfio_user_container_next_untold(VFIOUserContainer *c)
{
    for (unsigned i = 0; i < VFIO_USER_NR_UNTOLD; i++) {
        VFIOUserWindow *w = QTAILQ_FIRST(&c->untold[i]);

        if (w && vfio_user_container_has_room(c, w) &&
            !(i == VFIO_USER_UNTOLD_FULL && c->full)) {
            return w;
        }
    }
    return NULL;
}

/* Whether the server would refuse a window, or may not know what was before it. */
static bool vfio_user_container_must_wait(VFIOUserContainer *c)
{
    if (vfio_user_migration_is_stopped(c->udev)) {
        return c->refuses_stopped;
    }
    c->refuses_stopped = false;
    return c->in_doubt;
}

void vfio_user_container_sync(VFIOUserContainer *c)
{
    VFIOUserEntry *e;
    VFIOUserWindow *w;

    if (vfio_user_container_must_wait(c)) {
        return;
    }
    while ((e = QTAILQ_FIRST(&c->stale)) &&
           vfio_user_container_is_told(c, e->node.start)) {
        QTAILQ_REMOVE(&c->stale, e, next);
        c->nr_stale--;
        vfio_user_container_send_unmap(c, e);
        vfio_user_container_unref_entry(e);
    }
    while ((w = vfio_user_container_next_untold(c))) {
        vfio_user_container_tell(c, w);
    }
    vfio_user_container_say(c);
}

/* Taking away -------------------------------------------------------------- */

static void vfio_user_container_add_stale(VFIOUserContainer *c,
                                          VFIOUserEntry *e)
{
    qatomic_inc(&e->refs);
    QTAILQ_INSERT_TAIL(&c->stale, e, next);
    c->nr_stale++;
}

void vfio_user_container_untell(VFIOUserContainer *c, VFIOUserEntry *e)
{
    if (vfio_user_container_is_told(c, e->node.start)) {
        if (vfio_user_migration_is_stopped(c->udev) && c->refuses_stopped) {
            vfio_user_container_add_stale(c, e);
        } else {
            vfio_user_container_send_unmap(c, e);
        }
        c->full = false;
        c->nr_freed++;
    }
    vfio_user_container_del_entry(c, e);
}

/* Its windows have lost their place. */
static void vfio_user_container_drop_entry(VFIOUserContainer *c,
                                           VFIOUserEntry *e, bool full)
{
    uint64_t start = e->node.start, last = e->node.last;
    VFIOUserWindow *w = e->window;
    IntervalTreeNode *node;

    if (w) {
        vfio_user_dirty_forget(c, w);
        vfio_user_container_del_entry(c, e);
        vfio_user_container_put_untold(c, w, full);
        return;
    }
    vfio_user_container_del_entry(c, e);
    for (node = interval_tree_iter_first(&c->windows, start, last); node;
         node = interval_tree_iter_next(node, start, last)) {
        w = container_of(node, VFIOUserWindow, node);
        if (!w->entry && !w->is_untold) {
            vfio_user_container_put_untold(c, w, full);
        }
    }
}

void vfio_user_container_refused(VFIOUserContainer *c, VFIOUserEntry *e,
                                 bool map, VFIOUserRefusal refusal)
{
    if (refusal == VFIO_USER_REFUSAL_FULL) {
        c->full |= e->nr_freed == c->nr_freed;
    } else if (refusal == VFIO_USER_REFUSAL_STOPPED) {
        c->refuses_stopped = true;
    } else {
        return;
    }
    if (!map) {
        vfio_user_container_add_stale(c, e);
    } else if (e->listed) {
        vfio_user_container_drop_entry(c, e,
                                       refusal == VFIO_USER_REFUSAL_FULL);
    }
}

/* Events ------------------------------------------------------------------- */

static void vfio_user_container_look_locked(VFIOUserDevice *udev)
{
    VFIODevice *vbasedev = udev->vbasedev;
    VFIOUserContainer *c = NULL;
    bool was;

    if (vbasedev && vbasedev->bcontainer) {
        c = VFIO_IOMMU_USER((Object *)vbasedev->bcontainer);
    }
    vfio_user_container_take_outcomes(udev, c);
    if (c) {
        was = c->nobody_waits;
        c->nobody_waits = true;
        vfio_user_container_sync(c);
        c->nobody_waits = was;
    }
}

static void vfio_user_container_look_bh(void *opaque)
{
    VFIOUserDevice *udev = opaque;

    vfio_user_container_look_locked(udev);
    vfio_user_device_unref(udev);
}

void vfio_user_container_look_soon(VFIOUserDevice *udev)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), vfio_user_container_look_bh,
                            vfio_user_device_ref(udev));
}

void vfio_user_container_look(VFIOUserDevice *udev)
{
    if (bql_locked()) {
        vfio_user_container_look_locked(udev);
    } else {
        vfio_user_container_look_soon(udev);
    }
}

/* Other servers ------------------------------------------------------------ */

/* The order in which entries lose their place: devices' memory, small windows. */
static gint vfio_user_container_compare(gconstpointer a, gconstpointer b)
{
    const VFIOUserWindow *wa = (*(VFIOUserEntry *const *)a)->window;
    const VFIOUserWindow *wb = (*(VFIOUserEntry *const *)b)->window;
    uint64_t size_a = vfio_user_window_size(wa);
    uint64_t size_b = vfio_user_window_size(wb);

    return wa->device != wb->device ? (wa->device ? -1 : 1) :
           size_a != size_b ? (size_a < size_b ? -1 : 1) : 0;
}

static void vfio_user_container_shrink(VFIOUserContainer *c, uint64_t max)
{
    g_autoptr(GPtrArray) entries = NULL;
    IntervalTreeNode *node;

    if (c->nr_entries <= max) {
        return;
    }
    entries = g_ptr_array_sized_new(c->nr_entries);
    for (node = interval_tree_iter_first(&c->entries, 0, UINT64_MAX); node;
         node = interval_tree_iter_next(node, 0, UINT64_MAX)) {
        g_ptr_array_add(entries, container_of(node, VFIOUserEntry, node));
    }
    g_ptr_array_sort(entries, vfio_user_container_compare);
    for (unsigned i = 0; i < entries->len && c->nr_entries > max; i++) {
        vfio_user_container_drop_entry(c, g_ptr_array_index(entries, i), false);
    }
}

void vfio_user_container_forget(VFIOUserContainer *c)
{
    VFIOUserEntry *e;
    VFIOUserWindow *w;

    while ((e = QTAILQ_FIRST(&c->stale))) {
        QTAILQ_REMOVE(&c->stale, e, next);
        vfio_user_container_unref_entry(e);
    }
    while ((w = QTAILQ_FIRST(&c->untold[VFIO_USER_UNTOLD_FULL]))) {
        vfio_user_container_put_untold(c, w, false);
    }
    c->nr_stale = c->in_doubt = c->nr_said = 0;
    c->full = c->refuses_stopped = false;
    c->replayed = 0;
    /* iommu.c's windows share places: it does not take a server with fewer. */
    if (!vfio_user_dma_behind_iommu(c->udev)) {
        vfio_user_container_shrink(c, c->udev->caps.max_dma_maps);
    }
}
