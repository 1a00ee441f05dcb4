/*
 * vfio-user: which pages of guest memory the server has written
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A server writes to guest memory in two ways. By messages, which pass dma.c,
 * where every page becomes dirty like under a write of the CPU; nothing is to
 * be asked. And through the descriptor of a window, which only the server can
 * tell: feature DMA_LOGGING.
 *
 * hw/vfio would ask section by section, waiting for each. Here all windows are
 * asked together, VFIO_USER_LOG_MAX_REPORTS at a time, each by exactly the
 * range that was mapped, as servers need it. So that the bitmap of a window
 * fits into a message of the negotiated size, larger windows are split when
 * they are mapped (vfio_user_dirty_max_window()). Rejected: asking for parts of
 * a window, which known servers refuse; and leaving it to hw/vfio's own device
 * logging, which knows ranges and no windows, so that each question would have
 * to be cut up anyway.
 *
 * While the VM runs, it is not to stand still for a server: this is called with
 * the BQL held, for which a vCPU may be waiting. So a round waits
 * VFIO_USER_LOG_SYNC_MS at most, and what has not come until then is taken by
 * the next round, which goes on with the window at which this one ended: a
 * server that is slow is asked about all of them in turn.
 *
 * In the last stage everything stands still, and everything is waited for. What
 * is on its way from before may be older than the device's last write. So a
 * window is known only if its report was asked for in this round
 * (VFIOUserWindow.reported), and all others count as dirty, whatever the reason.
 *
 * Whenever something is not known, it counts as dirty: a report that failed, a
 * window that went away while it was logged, one that START did not name, every
 * window of a server that does not log. dirty-log.c starts and stops logging.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "system/tcg.h"
#include "dirty-int.h"
#include "queued.h"
#include "trace.h"

#define VFIO_USER_LOG_SYNC_MS       20
/* No window is made smaller than that for the sake of its bitmap. */
#define VFIO_USER_LOG_MIN_BITMAP    4096

/**
 * VFIOUserReport: DMA_LOGGING_REPORT on its way
 * @window: about which
 * @next: in VFIOUserLog.reports
 * @round: in which it was asked for
 * @len: of @bitmap, in bytes
 */
struct VFIOUserReport {
    VFIOUserQueued q;
    VFIOUserWindow *window;
    QTAILQ_ENTRY(VFIOUserReport) next;
    struct {
        struct vfio_user_feature feature;
        struct vfio_user_feature_dma_report report;
    } out, reply;
    struct iovec out_iov;
    struct iovec in_iov[2];
    uint64_t round;
    size_t len;
    uint64_t bitmap[];
};

uint64_t vfio_user_dirty_max_window(VFIOUserDevice *udev)
{
    uint64_t bitmap = udev->caps.max_data_xfer_size;

    if (!udev->mig.can_log) {
        return UINT64_MAX;
    }
    if (udev->caps.migration_max_bitmap_size) {
        bitmap = MIN(bitmap, udev->caps.migration_max_bitmap_size);
    }
    return pow2floor(MAX(bitmap, VFIO_USER_LOG_MIN_BITMAP)) * BITS_PER_BYTE *
           qemu_real_host_page_size();
}

/* Marking ---------------------------------------------------------------------- */

static void vfio_user_dirty_mark_all(const VFIOUserWindow *w)
{
    cpu_physical_memory_set_dirty_range(w->ram_addr, vfio_user_window_size(w),
                                        tcg_enabled() ? DIRTY_CLIENTS_ALL :
                                        DIRTY_CLIENTS_NOCODE);
}

void vfio_user_dirty_mark_windows(VFIOUserContainer *c)
{
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        if (w->mapped) {
            vfio_user_dirty_mark_all(w);
        }
    }
}

/* The same in pages of the host. Returns memory for g_free(). */
static unsigned long *vfio_user_dirty_convert(const unsigned long *from,
                                              uint64_t from_page,
                                              uint64_t size, uint64_t pages)
{
    uint64_t to_page = qemu_real_host_page_size();
    uint64_t nr = DIV_ROUND_UP(size, from_page);
    unsigned long *to = bitmap_new(pages);
    uint64_t i;

    for (i = find_first_bit(from, nr); i < nr;
         i = find_next_bit(from, nr, i + 1)) {
        uint64_t first = i * from_page / to_page;
        uint64_t last = MIN((i + 1) * from_page, size) - 1;

        bitmap_set(to, first, last / to_page - first + 1);
    }
    return to;
}

/* Returns the number of pages. */
static uint64_t vfio_user_dirty_mark(const VFIOUserWindow *w,
                                     uint64_t *bitmap, uint64_t page_size)
{
    g_autofree unsigned long *converted = NULL;
    uint64_t size = vfio_user_window_size(w);
    uint64_t pages = size / qemu_real_host_page_size();
    unsigned long *map = (unsigned long *)bitmap;

    QEMU_BUILD_BUG_ON(sizeof(*map) != sizeof(*bitmap));
    if (page_size != qemu_real_host_page_size()) {
        map = converted = vfio_user_dirty_convert(map, page_size, size, pages);
    } else if (pages % BITS_PER_LONG) {
        /* What is behind the window is not the server's to say. */
        map[pages / BITS_PER_LONG] &= BITMAP_LAST_WORD_MASK(pages);
    }
    return cpu_physical_memory_set_dirty_lebitmap(map, w->ram_addr, pages);
}

/* Reports ---------------------------------------------------------------------- */

static void vfio_user_dirty_ask(VFIOUserContainer *c, VFIOUserWindow *w)
{
    VFIOUserLog *log = &c->log;
    uint64_t size = vfio_user_window_size(w);
    size_t len = vfio_user_wire_report_len(size, log->page_size);
    VFIOUserReport *r = g_malloc(sizeof(*r) + len);

    r->window = w;
    r->round = log->round;
    r->len = len;
    r->out.feature = (struct vfio_user_feature) {
        .argsz = sizeof(r->out) + len,
        .flags = VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_DMA_LOGGING_REPORT,
    };
    r->out.report = (struct vfio_user_feature_dma_report) {
        .iova = w->node.start, .length = size, .page_size = log->page_size,
    };
    r->out_iov = (struct iovec) { &r->out, sizeof(r->out) };
    r->in_iov[0] = (struct iovec) { &r->reply, sizeof(r->reply) };
    r->in_iov[1] = (struct iovec) { r->bitmap, len };
    r->q.req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &r->out_iov, .nr_out = 1,
        .in = r->in_iov, .nr_in = 2,
    };
    w->report = r;
    QTAILQ_INSERT_TAIL(&log->reports, r, next);
    log->nr_reports++;
    log->report_bytes += len;
    vfio_user_queued_submit(c->udev->conn, &r->q);
}

static void vfio_user_dirty_free_report(VFIOUserContainer *c,
                                        VFIOUserReport *r)
{
    QTAILQ_REMOVE(&c->log.reports, r, next);
    c->log.nr_reports--;
    c->log.report_bytes -= r->len;
    r->window->report = NULL;
    vfio_user_queued_put(&r->q);
}

void vfio_user_dirty_drop_reports(VFIOUserContainer *c)
{
    while (!QTAILQ_EMPTY(&c->log.reports)) {
        vfio_user_dirty_free_report(c, QTAILQ_FIRST(&c->log.reports));
    }
}

static bool vfio_user_dirty_check(VFIOUserReport *r, Error **errp)
{
    return vfio_user_wire_check_feature(&r->reply.feature, r->q.req.in_len,
                                        r->out.feature.flags,
                                        sizeof(r->reply.report) + r->len,
                                        sizeof(r->reply.report) + r->len,
                                        errp) &&
           vfio_user_wire_check_report(&r->reply.report, &r->out.report, errp);
}

static void vfio_user_dirty_report_failed(VFIOUserContainer *c,
                                          const VFIOUserWindow *w, int ret)
{
    vfio_user_dirty_mark_all(w);
    if (c->log.warned || vfio_user_conn_broken(c->udev->conn)) {
        return;
    }
    c->log.warned = true;
    vfio_user_warn_limited(&c->udev->dirty_said, "vfio-user-pci %s: no report "
                           "of dirty pages for the window at 0x%" PRIx64 " (0x%"
                           PRIx64 " bytes): %s. All of it counts as dirty, "
                           "which may keep the migration from ending",
                           c->udev->name, w->node.start,
                           vfio_user_window_size(w), ret == -ETIMEDOUT ?
                           "the server did not answer in time" :
                           strerror(-ret));
}

/* The outcome of a report is there: use it and free it. Returns 0 or -errno. */
static int vfio_user_dirty_take(VFIOUserContainer *c, VFIOUserReport *r)
{
    VFIOUserWindow *w = r->window;
    int ret = r->q.req.ret;
    Error *err = NULL;
    uint64_t pages = 0;

    if (ret) {
        vfio_user_dirty_report_failed(c, w, ret);
    } else if (!vfio_user_dirty_check(r, &err)) {
        vfio_user_dirty_mark_all(w);
        error_prepend(&err, "DMA_LOGGING_REPORT: ");
        vfio_user_device_broke_protocol(c->udev, err);
    } else if (!buffer_is_zero(r->bitmap, r->len)) {
        pages = vfio_user_dirty_mark(w, r->bitmap, c->log.page_size);
    }
    w->reported = r->round;
    trace_vfio_user_dirty_report(c->udev->name, w->node.start,
                                 vfio_user_window_size(w), pages, ret);
    vfio_user_dirty_free_report(c, r);
    return ret;
}

void vfio_user_dirty_forget(VFIOUserContainer *c, VFIOUserWindow *w)
{
    if (w->report) {
        vfio_user_dirty_free_report(c, w->report);
    }
    if (w->mapped && c->bcontainer.dirty_pages_started) {
        vfio_user_dirty_mark_all(w);
    }
}

/* Rounds ----------------------------------------------------------------------- */

/* In lockstep what waits for its turn would keep others from theirs. */
static bool vfio_user_dirty_room(VFIOUserContainer *c)
{
    const VFIOUserLog *log = &c->log;
    unsigned most = vfio_user_conn_lockstep(c->udev->conn) ?
                    1 : VFIO_USER_LOG_MAX_REPORTS;

    return log->nr_reports < most &&
           (!log->nr_reports || log->report_bytes < VFIO_USER_LOG_MAX_BYTES);
}

/* The window whose turn it is. There is one. */
static VFIOUserWindow *vfio_user_dirty_turn(VFIOUserContainer *c)
{
    IntervalTreeNode *node = interval_tree_iter_first(&c->windows, c->log.turn,
                                                      UINT64_MAX);

    if (!node) {
        node = interval_tree_iter_first(&c->windows, 0, UINT64_MAX);
    }
    /* Past the last address this is 0, where it begins again. */
    c->log.turn = node->last + 1;
    return container_of(node, VFIOUserWindow, node);
}

/*
 * Ask about as many windows as there is room for, those whose turn it is, @left
 * at most. What is still on its way from an earlier round is not asked for
 * again. Returns how many of @left remain.
 */
static unsigned vfio_user_dirty_ask_more(VFIOUserContainer *c, unsigned left)
{
    while (left && vfio_user_dirty_room(c)) {
        VFIOUserWindow *w = vfio_user_dirty_turn(c);

        left--;
        if (!w->mapped || w->report) {
            continue;
        }
        if (vfio_user_dirty_is_logged(c, w)) {
            vfio_user_dirty_ask(c, w);
        } else {
            vfio_user_dirty_mark_all(w);
            w->reported = c->log.round;
        }
    }
    return left;
}

/*
 * Take reports in the order in which they were asked for, up to @until, and
 * meanwhile ask about @left windows. Returns false if the server does not
 * answer at all: that is not waited for once for each window.
 */
static bool vfio_user_dirty_round(VFIOUserContainer *c, unsigned left,
                                  int64_t until)
{
    VFIOUserReport *r;
    int ret = 0;

    do {
        if (g_get_monotonic_time() < until) {
            left = vfio_user_dirty_ask_more(c, left);
        }
        r = QTAILQ_FIRST(&c->log.reports);
        if (!r || !vfio_user_queued_wait(&r->q, until)) {
            break;
        }
        ret = vfio_user_dirty_take(c, r);
    } while (ret != -ETIMEDOUT);
    return ret != -ETIMEDOUT;
}

/* The last collection, for which everything stands still */
static void vfio_user_dirty_last_round(VFIOUserContainer *c)
{
    /* First what is on its way: a window is asked about once at a time. */
    if (vfio_user_dirty_round(c, 0, INT64_MAX)) {
        vfio_user_dirty_round(c, c->nr_windows, INT64_MAX);
    }
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        if (w->reported != c->log.round) {
            vfio_user_dirty_forget(c, w);
        }
    }
}

/* When ------------------------------------------------------------------------- */

/* x-pre-copy-dirty-page-tracking=off: not before the device has stopped. */
static bool vfio_user_dirty_too_early(const VFIOUserContainer *c)
{
    VFIODevice *vbasedev = vfio_user_dirty_device(c);

    return vbasedev && vbasedev->migration &&
           vbasedev->pre_copy_dirty_page_tracking == ON_OFF_AUTO_OFF &&
           (vfio_device_state_is_running(vbasedev) ||
            vfio_device_state_is_precopy(vbasedev));
}

static void vfio_user_dirty_collect(VFIOUserContainer *c, bool last_stage)
{
    VFIO_USER_BQL_SCOPE(last_stage ? VFIO_USER_BQL_SAVE :
                                     VFIO_USER_BQL_LOG_ROUND);
    int64_t until = last_stage ? INT64_MAX :
                    g_get_monotonic_time() + VFIO_USER_LOG_SYNC_MS * 1000;

    if (c->log.start) {
        vfio_user_dirty_late_start(c, until);
    }
    c->log.round++;
    if (!c->log.on) {
        /* Not yet; then everything will be dirty. Or never. */
    } else if (last_stage) {
        vfio_user_dirty_last_round(c);
    } else {
        vfio_user_dirty_round(c, c->nr_windows, until);
    }
    trace_vfio_user_dirty_synced(c->udev->name, c->log.nr_reports);
}

void vfio_user_dirty_sync(MemoryListener *listener, bool last_stage)
{
    VFIOContainerBase *base = container_of(listener, VFIOContainerBase,
                                           listener);
    VFIOUserContainer *c = VFIO_IOMMU_USER((Object *)base);

    if (!base->dirty_pages_started || vfio_user_dirty_too_early(c)) {
        return;
    }
    trace_vfio_user_dirty_sync(c->udev->name, c->log.on, last_stage,
                               c->nr_windows);
    if (c->log.on || c->log.start) {
        vfio_user_dirty_collect(c, last_stage);
    } else {
        vfio_user_dirty_mark_windows(c);
    }
}
