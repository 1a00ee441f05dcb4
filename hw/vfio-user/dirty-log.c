/*
 * vfio-user: logging of dirty pages by the server: when and of what
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio says when a migration needs it. DMA_LOGGING_START names the windows
 * that there are then. The answer is waited for VFIO_USER_LOG_START_MS, with the
 * BQL held; what was written before it is in nobody's log, so if it comes later,
 * everything is dirty once.
 *
 * A server that was lost and came back logs nothing. It is told to start again,
 * and everything is dirty once. Rejected: counting everything as dirty in each
 * pass from then on, with which no migration ends.
 *
 * A window that comes later may lie where START named nothing. Servers differ:
 * libvfio-user takes no notice of ranges, and logs it; the kernel's drivers log
 * what was named. The report of one that was not named says nothing, so nobody
 * asks for it, and the window counts as dirty in each round. Such windows are
 * small (RAM that firmware puts in the place of a ROM). Rejected: STOP, and START
 * with other ranges, as servers refuse a second START: everything would be dirty
 * each time that the guest moves a window.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "dirty-int.h"
#include "queued.h"
#include "trace.h"

#define VFIO_USER_LOG_START_MS      200

VFIODevice *vfio_user_dirty_device(const VFIOUserContainer *c)
{
    return QLIST_FIRST(&c->bcontainer.device_list);
}

/* The option switches the server's logging off, as it does a device's. */
static bool vfio_user_dirty_wanted(const VFIOUserContainer *c,
                                   const VFIODevice *vbasedev)
{
    return c->udev->mig.can_log && vbasedev &&
           vbasedev->device_dirty_page_tracking != ON_OFF_AUTO_OFF;
}

bool vfio_user_dirty_is_known(VFIOUserContainer *c, const VFIODevice *vbasedev)
{
    if (vfio_user_dirty_wanted(c, vbasedev)) {
        return true;
    }
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        if (w->mapped) {
            return false;
        }
    }
    return true;
}

/* Start ------------------------------------------------------------------------ */

/*
 * The ranges to log: the windows, neighbours in one. When these are too many,
 * what is below 4 GiB and what is above it, holes included.
 */
static unsigned vfio_user_dirty_ranges(VFIOUserContainer *c,
                                       struct vfio_user_dma_range *ranges)
{
    struct vfio_user_dma_range *last = NULL;
    unsigned max = VFIO_USER_LOG_MAX_RANGES, nr;

again:
    nr = 0;
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        uint64_t start = w->node.start, size = vfio_user_window_size(w);

        if (!w->mapped) {
            continue;
        }
        last = nr ? &ranges[nr - 1] : NULL;
        if (last && (last->iova + last->length == start ||
                     (max == 2 && (nr == 2 || start <= UINT32_MAX)))) {
            last->length = start + size - last->iova;
        } else if (nr < max) {
            ranges[nr++] = (struct vfio_user_dma_range) { start, size };
        } else {
            max = 2;
            goto again;
        }
    }
    return nr;
}

bool vfio_user_dirty_is_logged(VFIOUserContainer *c, VFIOUserWindow *w)
{
    for (unsigned i = 0; i < c->log.nr_ranges && !w->logged; i++) {
        const struct vfio_user_dma_range *r = &c->log.ranges[i];

        w->logged = w->node.start >= r->iova &&
                    w->node.last <= r->iova + (r->length - 1);
    }
    return w->logged;
}

/* What START names from now on. */
static void vfio_user_dirty_name_ranges(VFIOUserContainer *c)
{
    c->log.nr_ranges = vfio_user_dirty_ranges(c, c->log.ranges);
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        w->logged = w->mapped;
    }
}

/* DMA_LOGGING_START on its way */
struct VFIOUserLogStart {
    VFIOUserQueued q;
    struct {
        struct vfio_user_feature feature;
        struct vfio_user_feature_dma_logging logging;
        struct vfio_user_dma_range ranges[VFIO_USER_LOG_MAX_RANGES];
    } msg;
    struct iovec out;
    struct iovec in;
};

#define VFIO_USER_START_LOG                                                 \
    (VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_DMA_LOGGING_START)

static VFIOUserLogStart *vfio_user_dirty_submit_start(VFIOUserContainer *c)
{
    VFIOUserLogStart *start = g_new0(VFIOUserLogStart, 1);
    unsigned nr;
    size_t size;

    vfio_user_dirty_name_ranges(c);
    nr = c->log.nr_ranges;
    size = offsetof(typeof(start->msg), ranges) +
           nr * sizeof(start->msg.ranges[0]);
    memcpy(start->msg.ranges, c->log.ranges, nr * sizeof(c->log.ranges[0]));
    start->msg.feature = (struct vfio_user_feature) {
        .argsz = size, .flags = VFIO_USER_START_LOG,
    };
    start->msg.logging = (struct vfio_user_feature_dma_logging) {
        .page_size = qemu_real_host_page_size(), .num_ranges = nr,
    };
    start->out = (struct iovec) { &start->msg, size };
    start->in = (struct iovec) { &start->msg, sizeof(start->msg) };
    start->q.req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &start->out, .nr_out = 1,
        .in = &start->in, .nr_in = 1,
    };
    trace_vfio_user_dirty_start(c->udev->name, nr);
    vfio_user_queued_submit(c->udev->conn, &start->q);
    return start;
}

/* It was answered: 0, or -errno with @errp set. Frees it. */
static int vfio_user_dirty_started(VFIOUserContainer *c,
                                   VFIOUserLogStart *start, Error **errp)
{
    uint64_t page_size = start->msg.logging.page_size;
    int ret = start->q.req.ret;
    Error *err = NULL;

    if (ret) {
        error_setg(errp, "vfio-user-pci %s: the server refused to log dirty "
                   "pages (DMA_LOGGING_START): %s", c->udev->name,
                   ret == -ETIMEDOUT ? "it did not answer in time"
                                     : strerror(-ret));
    } else if (!vfio_user_wire_check_feature(&start->msg.feature,
                                             start->q.req.in_len,
                                             VFIO_USER_START_LOG,
                                             sizeof(start->msg.logging),
                                             sizeof(start->msg), &err) ||
               !vfio_user_wire_check_log_page(page_size, &err)) {
        error_prepend(&err, "DMA_LOGGING_START: ");
        error_setg(errp, "vfio-user-pci %s: %s", c->udev->name,
                   error_get_pretty(err));
        vfio_user_device_broke_protocol(c->udev, err);
        ret = -EPROTO;
    } else {
        c->log.on = true;
        c->log.page_size = page_size;
        trace_vfio_user_dirty_started(c->udev->name, page_size);
    }
    vfio_user_queued_put(&start->q);
    return ret;
}

/*
 * Wait a little; an answer that takes longer is seen to when pages are. A server
 * that is away is told when it is back.
 */
static int vfio_user_dirty_start(VFIOUserContainer *c, Error **errp)
{
    int64_t until = g_get_monotonic_time() + VFIO_USER_LOG_START_MS * 1000;
    VFIOUserLink link = vfio_user_device_link(c->udev);
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_LOG_START);
    VFIOUserLogStart *start;

    c->log.warned = false;
    if (link == VFIO_USER_LINK_DOWN || link == VFIO_USER_LINK_REPLAY) {
        return 0;
    }
    start = vfio_user_dirty_submit_start(c);
    if (!vfio_user_queued_wait(&start->q, until)) {
        c->log.start = start;
        return 0;
    }
    return vfio_user_dirty_started(c, start, errp);
}

/* What was written before the server had understood is nowhere noted. */
void vfio_user_dirty_late_start(VFIOUserContainer *c, int64_t until)
{
    VFIOUserLogStart *start = c->log.start;
    Error *err = NULL;
    int ret;

    if (!vfio_user_queued_wait(&start->q, until)) {
        return;
    }
    c->log.start = NULL;
    ret = vfio_user_dirty_started(c, start, &err);
    if (ret == -EPIPE) {
        /* The server was lost. It may come back, or the migration fails. */
        error_free(err);
    } else if (ret) {
        migration_file_set_error(ret, err);
    }
    vfio_user_dirty_mark_windows(c);
}

/* Stop ------------------------------------------------------------------------- */

typedef struct VFIOUserLogStop {
    VFIOUserRequest req;
    VFIOUserDevice *udev;
    struct vfio_user_feature out;
    struct vfio_user_feature reply;
    struct iovec out_iov;
    struct iovec in_iov;
} VFIOUserLogStop;

static void vfio_user_dirty_stopped(VFIOUserRequest *req)
{
    VFIOUserLogStop *stop = container_of(req, VFIOUserLogStop, req);

    if (req->ret && req->ret != -EPIPE) {
        vfio_user_warn_limited(&stop->udev->dirty_said, "vfio-user-pci %s: the "
                               "server refused to stop logging dirty pages "
                               "(DMA_LOGGING_STOP): %s", stop->udev->name,
                               strerror(-req->ret));
    }
    g_free(stop);
}

void vfio_user_dirty_lost(VFIOUserContainer *c)
{
    c->log.on = false;
    vfio_user_dirty_drop_reports(c);
    if (c->log.start) {
        vfio_user_queued_put(&c->log.start->q);
        c->log.start = NULL;
    }
}

void vfio_user_dirty_returned(VFIOUserContainer *c)
{
    if (c->bcontainer.dirty_pages_started &&
        vfio_user_dirty_wanted(c, vfio_user_dirty_device(c))) {
        c->log.warned = false;
        c->log.start = vfio_user_dirty_submit_start(c);
    }
}

/* Nobody waits for that: the migration is over, and the VM may be running. */
static void vfio_user_dirty_stop(VFIOUserContainer *c)
{
    VFIOUserLogStop *stop;

    vfio_user_dirty_lost(c);
    trace_vfio_user_dirty_stop(c->udev->name);
    if (vfio_user_conn_broken(c->udev->conn)) {
        return;
    }
    stop = g_new0(VFIOUserLogStop, 1);
    stop->udev = c->udev;
    stop->out = (struct vfio_user_feature) {
        .argsz = sizeof(stop->out),
        .flags = VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_DMA_LOGGING_STOP,
    };
    stop->out_iov = (struct iovec) { &stop->out, sizeof(stop->out) };
    stop->in_iov = (struct iovec) { &stop->reply, sizeof(stop->reply) };
    stop->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &stop->out_iov, .nr_out = 1,
        .in = &stop->in_iov, .nr_in = 1,
        .done = vfio_user_dirty_stopped,
    };
    vfio_user_conn_submit(c->udev->conn, &stop->req);
}

int vfio_user_dirty_set_tracking(const VFIOContainerBase *base, bool start,
                                 Error **errp)
{
    VFIOUserContainer *c = VFIO_IOMMU_USER((Object *)base);

    if (start) {
        return vfio_user_dirty_wanted(c, vfio_user_dirty_device(c)) ?
               vfio_user_dirty_start(c, errp) : 0;
    }
    if (c->log.on || c->log.start) {
        vfio_user_dirty_stop(c);
    }
    return 0;
}
