/*
 * vfio-user: what the monitor shows of a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything is read where it is: under the BQL, which these commands have,
 * and for the counters under the connection's locks, which nobody holds for
 * longer than a system call that does not block. So a query works with a server
 * that is stopped or gone, and there is nothing to keep up to date but the
 * counters (stats.c).
 *
 * A device is shown while it is plugged: from the end of realize to the begin
 * of unplugging, which is when management believes that it is there.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-commands-vfio-user.h"
#include "qapi/qapi-visit-sockets.h"
#include "hw/pci/msix.h"
#include "hw/vfio/pci.h"
#include "container.h"
#include "ioeventfd.h"
#include "reconnect.h"

/* QAPI's names are in the order of the protocol's numbers. */
QEMU_BUILD_BUG_ON((int)VFIO_USER_COMMAND_VERSION != VFIO_USER_VERSION);
QEMU_BUILD_BUG_ON((int)VFIO_USER_COMMAND_MIG_DATA_WRITE !=
                  VFIO_USER_MIG_DATA_WRITE);
QEMU_BUILD_BUG_ON((int)VFIO_USER_COMMAND__MAX != VFIO_USER_COMMAND_MAX);
QEMU_BUILD_BUG_ON((int)VFIO_USER_INTERRUPT_TYPE_INTX != VFIO_USER_IRQ_INTX);
QEMU_BUILD_BUG_ON((int)VFIO_USER_INTERRUPT_TYPE__MAX != VFIO_USER_IRQ_MAX);
QEMU_BUILD_BUG_ON((int)VFIO_USER_LOCK_WAIT_ENTRY_LOAD != VFIO_USER_BQL_LOAD);
QEMU_BUILD_BUG_ON((int)VFIO_USER_LOCK_WAIT_ENTRY__MAX != VFIO_USER_BQL_MAX);

/* Counters ----------------------------------------------------------------- */

static VFIOUserLatencyValues *
vfio_user_monitor_values(const VFIOUserHistogram *h)
{
    VFIOUserLatencyValues *v = g_new0(VFIOUserLatencyValues, 1);

    v->count = h->nr;
    v->p50 = vfio_user_stats_percentile(h, 50);
    v->p99 = vfio_user_stats_percentile(h, 99);
    v->max = h->max_ns;
    return v;
}

static VFIOUserLatencyStats *vfio_user_monitor_latency(VFIOUserLatency *l,
                                                       int64_t now_ns)
{
    VFIOUserLatencyStats *s = g_new0(VFIOUserLatencyStats, 1);
    g_autofree VFIOUserHistogram *recent = g_new(VFIOUserHistogram, 1);

    vfio_user_stats_recent(l, now_ns, recent);
    s->total = vfio_user_monitor_values(&l->total);
    s->recent = vfio_user_monitor_values(recent);
    return s;
}

/* NULL: there was none of these. */
static VFIOUserCommandStats *vfio_user_monitor_command(const VFIOUserStats *s,
                                                       VFIOUserCommand command)
{
    const VFIOUserCount *out = &s->sent[command], *in = &s->received[command];
    const VFIOUserUnanswered *u = &s->unanswered[command];
    VFIOUserCommandStats *c;

    if (!out->bytes && !in->bytes && !u->timeouts && !u->given_up) {
        return NULL;
    }
    c = g_new0(VFIOUserCommandStats, 1);
    c->command = command;
    c->messages = out->commands + in->commands;
    c->no_reply = out->no_reply + in->no_reply;
    c->replies = out->replies + in->replies;
    c->errors = out->errors + in->errors;
    c->timeouts = u->timeouts;
    c->given_up = u->given_up;
    c->bytes_sent = out->bytes;
    c->bytes_received = in->bytes;
    return c;
}

static VFIOUserCommandStatsList *
vfio_user_monitor_commands(const VFIOUserStats *s)
{
    VFIOUserCommandStatsList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < VFIO_USER_COMMAND__MAX; i++) {
        VFIOUserCommandStats *c = vfio_user_monitor_command(s, i);

        if (c) {
            QAPI_LIST_APPEND(tail, c);
        }
    }
    return list;
}

static VFIOUserLockWaitsList *
vfio_user_monitor_lock_waits(const VFIOUserBqlWaits *table)
{
    VFIOUserLockWaitsList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < VFIO_USER_BQL_MAX; i++) {
        VFIOUserLockWaits *w;

        if (!table[i].nr) {
            continue;
        }
        w = g_new0(VFIOUserLockWaits, 1);
        w->entry = i;
        w->count = table[i].nr;
        w->total = table[i].total_ns;
        w->longest = table[i].max_ns;
        w->limit = table[i].limit_ns;
        QAPI_LIST_APPEND(tail, w);
    }
    return list;
}

static VFIOUserDeviceStats *vfio_user_monitor_stats(VFIOUserDevice *udev)
{
    VFIOUserDeviceStats *s = g_new0(VFIOUserDeviceStats, 1);
    g_autofree VFIOUserStats *sum = g_new0(VFIOUserStats, 1);
    VFIOUserConnPending pending = { };
    int64_t now_ns = get_clock();

    vfio_user_stats_reset(sum, now_ns);
    vfio_user_conn_add_stats(udev->conn, sum, &pending);
    if (udev->twin) {
        vfio_user_conn_add_stats(udev->twin, sum, &pending);
    }
    s->period = (now_ns - vfio_user_conn_stats_since(udev->conn)) / SCALE_MS;
    s->pending = pending.nr;
    s->oldest_pending = pending.oldest_ns;
    s->commands = vfio_user_monitor_commands(sum);
    s->access = vfio_user_monitor_latency(
        &sum->latency[VFIO_USER_LATENCY_ACCESS], now_ns);
    s->other = vfio_user_monitor_latency(
        &sum->latency[VFIO_USER_LATENCY_OTHER], now_ns);
    s->lock_waits = vfio_user_monitor_lock_waits(sum->bql);
    return s;
}

/* The connection ----------------------------------------------------------- */

static VFIOUserLimits *vfio_user_monitor_limits(const VFIOUserDevice *udev)
{
    const VFIOUserCaps *caps = &udev->caps;
    VFIOUserLimits *l = g_new0(VFIOUserLimits, 1);

    l->major = caps->major;
    l->minor = caps->minor;
    l->max_msg_fds = caps->max_msg_fds;
    l->max_data_xfer_size = caps->max_data_xfer_size;
    l->max_dma_maps = caps->max_dma_maps;
    l->pgsizes = caps->pgsizes;
    l->timeout = udev->timeout_ms;
    return l;
}

static VFIOUserCapabilityList *
vfio_user_monitor_capabilities(const VFIOUserDevice *udev)
{
    const bool can[VFIO_USER_CAPABILITY__MAX] = {
        [VFIO_USER_CAPABILITY_RESET] =
            udev->info.flags & VFIO_USER_DEVICE_RESETTABLE,
        [VFIO_USER_CAPABILITY_TWIN_SOCKET] = udev->caps.twin_socket,
        [VFIO_USER_CAPABILITY_WRITE_MULTIPLE] = udev->caps.write_multiple,
        [VFIO_USER_CAPABILITY_IOEVENTFD] = udev->io_events,
        [VFIO_USER_CAPABILITY_STOP_COPY] =
            udev->mig.flags & VFIO_USER_MIGRATION_STOP_COPY,
        [VFIO_USER_CAPABILITY_P2P] =
            udev->mig.flags & VFIO_USER_MIGRATION_P2P,
        [VFIO_USER_CAPABILITY_PRE_COPY] =
            udev->mig.flags & VFIO_USER_MIGRATION_PRE_COPY,
        [VFIO_USER_CAPABILITY_DMA_LOGGING] = udev->mig.can_log,
        [VFIO_USER_CAPABILITY_MIG_DATA_SIZE] = udev->mig.knows_size,
    };
    VFIOUserCapabilityList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < VFIO_USER_CAPABILITY__MAX; i++) {
        if (can[i]) {
            QAPI_LIST_APPEND(tail, i);
        }
    }
    return list;
}

static VFIOUserConnectionState vfio_user_monitor_state(VFIOUserLink link)
{
    switch (link) {
    case VFIO_USER_LINK_UP:
        return VFIO_USER_CONNECTION_STATE_CONNECTED;
    case VFIO_USER_LINK_DOWN:
        return VFIO_USER_CONNECTION_STATE_DISCONNECTED;
    case VFIO_USER_LINK_REPLAY:
        return VFIO_USER_CONNECTION_STATE_RETURNING;
    default:
        return VFIO_USER_CONNECTION_STATE_GONE;
    }
}

static void vfio_user_monitor_connection(VFIOUserDevice *udev, VFIOUserInfo *i)
{
    Error *err = vfio_user_conn_error(udev->conn);
    VFIOUserReconnectView view;

    vfio_user_reconnect_view(udev, &view);
    i->id = g_strdup(view.id);
    i->qom_path = g_strdup(view.path);
    i->socket = QAPI_CLONE(SocketAddress, view.socket);
    i->state = vfio_user_monitor_state(view.link);
    i->reason = err ? g_strdup(error_get_pretty(err)) : NULL;
    i->reconnects = view.reconnects;
    i->attempts = view.tries;
    i->refusal = g_strdup(view.refusal);
    i->limits = vfio_user_monitor_limits(udev);
    i->capabilities = vfio_user_monitor_capabilities(udev);
    i->lockstep = vfio_user_conn_lockstep(udev->conn);
    error_free(err);
}

/* The device --------------------------------------------------------------- */

static VFIOUserWindows *vfio_user_monitor_sum(VFIOUserWindowSum sum)
{
    VFIOUserWindows *w = g_new0(VFIOUserWindows, 1);

    w->count = sum.nr;
    w->bytes = sum.bytes;
    return w;
}

static void vfio_user_monitor_windows(VFIODevice *vbasedev, VFIOUserInfo *i)
{
    VFIOUserContainer *c = VFIO_IOMMU_USER((Object *)vbasedev->bcontainer);
    VFIOUserWindowSum with_fd, by_message;

    vfio_user_container_sum(c, &with_fd, &by_message);
    i->windows_with_fd = vfio_user_monitor_sum(with_fd);
    i->windows_by_message = vfio_user_monitor_sum(by_message);
    i->windows_refused = vfio_user_monitor_sum(c->untold_sum);
}

/* Bytes of a BAR that the guest reaches without us, while it may. */
static uint64_t vfio_user_monitor_mapped(const VFIORegion *region)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < region->nr_mmaps; i++) {
        const VFIOMmap *m = &region->mmaps[i];

        if (m->mmap && m->mem.enabled) {
            bytes += m->size;
        }
    }
    return bytes;
}

static void vfio_user_monitor_ioeventfds(const VFIOUserIoEvents *t,
                                         VFIOUserRegionState *r)
{
    for (unsigned i = 0; t && t->active && i < t->nr; i++) {
        const VFIOUserIoEvent *e = &t->event[i];

        if (e->region == r->index && !e->mapped) {
            r->ioeventfds++;
            r->kvm_ioeventfds += e->in_kvm;
        }
    }
}

static void vfio_user_monitor_modes(VFIOUserRegionState *r)
{
    VFIOUserAccessModeList **tail = &r->modes;

    if (r->mapped < r->size) {
        QAPI_LIST_APPEND(tail, VFIO_USER_ACCESS_MODE_MESSAGE);
    }
    if (r->mapped) {
        QAPI_LIST_APPEND(tail, VFIO_USER_ACCESS_MODE_MAPPED);
    }
    if (r->ioeventfds) {
        QAPI_LIST_APPEND(tail, VFIO_USER_ACCESS_MODE_IOEVENTFD);
    }
}

static VFIOUserRegionState *vfio_user_monitor_region(VFIOUserDevice *udev,
                                                     unsigned index)
{
    const VFIOPCIDevice *vdev = container_of(udev->vbasedev, VFIOPCIDevice,
                                             vbasedev);
    const VFIOUserRegion *region = &udev->regions[index];
    VFIOUserRegionState *r = g_new0(VFIOUserRegionState, 1);

    r->index = index;
    r->size = region->info.size;
    r->posted = region->posted && !vfio_user_conn_lockstep(udev->conn);
    if (index <= VFIO_USER_REGION_BAR5) {
        r->mapped = vfio_user_monitor_mapped(&vdev->bars[index].region);
    }
    vfio_user_monitor_ioeventfds(udev->io_events, r);
    vfio_user_monitor_modes(r);
    return r;
}

static VFIOUserRegionStateList *vfio_user_monitor_regions(VFIOUserDevice *udev)
{
    VFIOUserRegionStateList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < udev->info.num_regions; i++) {
        if (udev->regions[i].info.size) {
            QAPI_LIST_APPEND(tail, vfio_user_monitor_region(udev, i));
        }
    }
    return list;
}

/* Interrupts that KVM takes from the eventfd; while masked, they are ours. */
static unsigned vfio_user_monitor_irqfds(VFIOPCIDevice *vdev, unsigned index)
{
    PCIDevice *pdev = PCI_DEVICE(vdev);
    unsigned nr = 0;

    if (index == VFIO_USER_IRQ_INTX) {
        return vdev->interrupt == VFIO_INT_INTx && vdev->intx.kvm_accel;
    }
    if (!(index == VFIO_USER_IRQ_MSI && vdev->interrupt == VFIO_INT_MSI) &&
        !(index == VFIO_USER_IRQ_MSIX && vdev->interrupt == VFIO_INT_MSIX)) {
        return 0;
    }
    for (int i = 0; i < vdev->nr_vectors; i++) {
        const VFIOMSIVector *v = &vdev->msi_vectors[i];

        nr += v->use && v->virq >= 0 &&
              !(index == VFIO_USER_IRQ_MSIX && msix_is_masked(pdev, i));
    }
    return nr;
}

static VFIOUserInterruptStateList *
vfio_user_monitor_interrupts(VFIOUserDevice *udev)
{
    VFIOPCIDevice *vdev = container_of(udev->vbasedev, VFIOPCIDevice,
                                       vbasedev);
    VFIOUserInterruptStateList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        const VFIOUserIrqs *irqs = &udev->irqs[i];
        VFIOUserInterruptState *s;

        if (!irqs->info.count) {
            continue;
        }
        s = g_new0(VFIOUserInterruptState, 1);
        s->type = i;
        s->vectors = irqs->info.count;
        s->assigned = vfio_user_irqs_nr_assigned(udev, i);
        s->irqfds = vfio_user_monitor_irqfds(vdev, i);
        QAPI_LIST_APPEND(tail, s);
    }
    return list;
}

static VFIOUserInfo *vfio_user_monitor_info(VFIOUserDevice *udev)
{
    VFIOUserInfo *i = g_new0(VFIOUserInfo, 1);

    vfio_user_monitor_connection(udev, i);
    vfio_user_monitor_windows(udev->vbasedev, i);
    i->regions = vfio_user_monitor_regions(udev);
    i->interrupts = vfio_user_monitor_interrupts(udev);
    i->stats = vfio_user_monitor_stats(udev);
    return i;
}

/* Commands ----------------------------------------------------------------- */

static bool vfio_user_monitor_is_named(VFIOUserDevice *udev, const char *id)
{
    VFIOUserReconnectView view;

    vfio_user_reconnect_view(udev, &view);
    return !g_strcmp0(id, view.id) || !g_strcmp0(id, view.path);
}

/*
 * Plugged devices in the order in which they came, or the one called @id; an
 * error if that is not there.
 */
static GSList *vfio_user_monitor_find(const char *id, Error **errp)
{
    VFIODevice *vbasedev;
    GSList *list = NULL;

    /* The youngest is the first. */
    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        VFIOUserDevice *udev;

        if (vbasedev->file_ops != &vfio_user_device_file_ops) {
            continue;
        }
        udev = vfio_user_device_of(vbasedev);
        if (udev && udev->vbasedev &&
            (!id || vfio_user_monitor_is_named(udev, id))) {
            list = g_slist_prepend(list, udev);
        }
    }
    if (id && !list) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                  "There is no vfio-user device '%s'", id);
    }
    return list;
}

VFIOUserInfoList *qmp_query_vfio_user(const char *id, Error **errp)
{
    g_autoptr(GSList) devices = vfio_user_monitor_find(id, errp);
    VFIOUserInfoList *list = NULL, **tail = &list;

    for (GSList *d = devices; d; d = d->next) {
        QAPI_LIST_APPEND(tail, vfio_user_monitor_info(d->data));
    }
    return list;
}

void qmp_x_vfio_user_stats_reset(const char *id, Error **errp)
{
    g_autoptr(GSList) devices = vfio_user_monitor_find(id, errp);

    for (GSList *d = devices; d; d = d->next) {
        VFIOUserDevice *udev = d->data;

        vfio_user_conn_reset_stats(udev->conn);
        if (udev->twin) {
            vfio_user_conn_reset_stats(udev->twin);
        }
    }
}
