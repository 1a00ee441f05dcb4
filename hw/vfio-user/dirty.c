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
 * the next round. The start of logging has VFIO_USER_LOG_START_MS; if its answer
 * comes later, everything is dirty once. In the last stage everything stands still, and everything is
 * waited for, including one fresh report of each window.
 *
 * Whenever something is not known, it counts as dirty: a report that failed, a
 * window that went away while it was logged, every window of a server that does
 * not log.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "system/tcg.h"
#include "container.h"
#include "trace.h"

#define VFIO_USER_LOG_SYNC_MS       20
#define VFIO_USER_LOG_START_MS      200
/* No window is made smaller than that for the sake of its bitmap. */
#define VFIO_USER_LOG_MIN_BITMAP    4096

/* DMA_LOGGING_REPORT on its way */
struct VFIOUserReport {
    VFIOUserRequest req;
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

static VFIOUserContainer *vfio_user_dirty_container(const VFIOContainerBase *b)
{
    return VFIO_IOMMU_USER((Object *)b);
}

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

static void vfio_user_dirty_mark_windows(VFIOUserContainer *c)
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
    r->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &r->out_iov, .nr_out = 1,
        .in = r->in_iov, .nr_in = 2,
    };
    w->report = r;
    log->nr_reports++;
    log->report_bytes += len;
    vfio_user_conn_submit(c->udev->conn, &r->req);
}

static void vfio_user_dirty_free_report(VFIOUserContainer *c,
                                        VFIOUserWindow *w)
{
    c->log.nr_reports--;
    c->log.report_bytes -= w->report->len;
    g_free(w->report);
    w->report = NULL;
}

static bool vfio_user_dirty_check(VFIOUserReport *r, Error **errp)
{
    return vfio_user_wire_check_feature(&r->reply.feature, r->req.in_len,
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
    warn_report("vfio-user-pci %s: no report of dirty pages for the window at "
                "0x%" PRIx64 " (0x%" PRIx64 " bytes): %s. All of it counts as "
                "dirty, which may keep the migration from ending",
                c->udev->name, w->node.start, vfio_user_window_size(w),
                ret == -ETIMEDOUT ? "the server did not answer in time"
                                  : strerror(-ret));
}

/* The outcome of a report is there: use it and free it. Returns 0 or -errno. */
static int vfio_user_dirty_take(VFIOUserContainer *c, VFIOUserWindow *w)
{
    VFIOUserReport *r = w->report;
    int ret = r->req.ret;
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
    trace_vfio_user_dirty_report(c->udev->name, w->node.start,
                                 vfio_user_window_size(w), pages, ret);
    vfio_user_dirty_free_report(c, w);
    return ret;
}

static bool vfio_user_dirty_room(const VFIOUserLog *log)
{
    return log->nr_reports < VFIO_USER_LOG_MAX_REPORTS &&
           (!log->nr_reports || log->report_bytes < VFIO_USER_LOG_MAX_BYTES);
}

/* Ask about windows from @w on while there is room; returns where to go on. */
static VFIOUserWindow *vfio_user_dirty_ask_more(VFIOUserContainer *c,
                                                VFIOUserWindow *w)
{
    while (w && vfio_user_dirty_room(&c->log)) {
        if (w->mapped && !w->report) {
            vfio_user_dirty_ask(c, w);
        }
        w = vfio_user_container_next(w);
    }
    return w;
}

/*
 * A collection while the VM runs. @ask runs ahead of @w, which waits; what is
 * still on its way from an earlier round is not asked for again.
 */
static void vfio_user_dirty_ask_all(VFIOUserContainer *c, int64_t until)
{
    VFIOUserWindow *w, *ask = vfio_user_container_first(c);

    for (w = ask; w; w = vfio_user_container_next(w)) {
        if (g_get_monotonic_time() < until) {
            ask = vfio_user_dirty_ask_more(c, ask);
        }
        if (w->report && vfio_user_conn_wait_until(c->udev->conn,
                                                   &w->report->req, until)) {
            vfio_user_dirty_take(c, w);
        }
    }
}

/* Wait for a report that is no older than this round. Returns 0 or -errno. */
static int vfio_user_dirty_last_report(VFIOUserContainer *c, VFIOUserWindow *w)
{
    bool fresh;
    int ret;

    do {
        fresh = w->report->round == c->log.round;
        vfio_user_conn_wait(c->udev->conn, &w->report->req);
        ret = vfio_user_dirty_take(c, w);
        if (!fresh && !ret) {
            vfio_user_dirty_ask(c, w);
        }
    } while (!fresh && !ret);
    return ret;
}

/*
 * The last collection, for which everything stands still. A server that does
 * not answer is waited for once, not once for each window.
 */
static void vfio_user_dirty_ask_last(VFIOUserContainer *c)
{
    VFIOUserWindow *w, *ask = vfio_user_container_first(c);
    bool silent = false;

    for (w = ask; w; w = vfio_user_container_next(w)) {
        if (!silent) {
            ask = vfio_user_dirty_ask_more(c, ask);
        }
        if (silent) {
            vfio_user_dirty_forget(c, w);
        } else if (w->report) {
            silent = vfio_user_dirty_last_report(c, w) == -ETIMEDOUT;
        }
    }
}

/* Logging ---------------------------------------------------------------------- */

static VFIODevice *vfio_user_dirty_device(const VFIOUserContainer *c)
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

/* x-pre-copy-dirty-page-tracking=off: not before the device has stopped. */
static bool vfio_user_dirty_too_early(const VFIOUserContainer *c)
{
    VFIODevice *vbasedev = vfio_user_dirty_device(c);

    return vbasedev && vbasedev->migration &&
           vbasedev->pre_copy_dirty_page_tracking == ON_OFF_AUTO_OFF &&
           (vfio_device_state_is_running(vbasedev) ||
            vfio_device_state_is_precopy(vbasedev));
}

void vfio_user_dirty_forget(VFIOUserContainer *c, VFIOUserWindow *w)
{
    if (w->report) {
        vfio_user_conn_abandon(c->udev->conn, &w->report->req);
        vfio_user_dirty_free_report(c, w);
    }
    if (w->mapped && c->bcontainer.dirty_pages_started) {
        vfio_user_dirty_mark_all(w);
    }
}

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

/* DMA_LOGGING_START on its way */
struct VFIOUserLogStart {
    VFIOUserRequest req;
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
    unsigned nr = vfio_user_dirty_ranges(c, start->msg.ranges);
    size_t size = offsetof(typeof(start->msg), ranges) +
                  nr * sizeof(start->msg.ranges[0]);

    start->msg.feature = (struct vfio_user_feature) {
        .argsz = size, .flags = VFIO_USER_START_LOG,
    };
    start->msg.logging = (struct vfio_user_feature_dma_logging) {
        .page_size = qemu_real_host_page_size(), .num_ranges = nr,
    };
    start->out = (struct iovec) { &start->msg, size };
    start->in = (struct iovec) { &start->msg, sizeof(start->msg) };
    start->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &start->out, .nr_out = 1,
        .in = &start->in, .nr_in = 1,
    };
    trace_vfio_user_dirty_start(c->udev->name, nr);
    vfio_user_conn_submit(c->udev->conn, &start->req);
    return start;
}

/* It was answered: 0, or -errno with @errp set. Frees it. */
static int vfio_user_dirty_started(VFIOUserContainer *c,
                                   VFIOUserLogStart *start, Error **errp)
{
    uint64_t page_size = start->msg.logging.page_size;
    int ret = start->req.ret;
    Error *err = NULL;

    if (ret) {
        error_setg(errp, "vfio-user-pci %s: the server refused to log dirty "
                   "pages (DMA_LOGGING_START): %s", c->udev->name,
                   ret == -ETIMEDOUT ? "it did not answer in time"
                                     : strerror(-ret));
    } else if (!vfio_user_wire_check_feature(&start->msg.feature,
                                             start->req.in_len,
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
    g_free(start);
    return ret;
}

/* Wait a little; an answer that takes longer is seen to when pages are. */
static int vfio_user_dirty_start(VFIOUserContainer *c, Error **errp)
{
    VFIOUserLogStart *start = vfio_user_dirty_submit_start(c);
    int64_t until = g_get_monotonic_time() + VFIO_USER_LOG_START_MS * 1000;

    c->log.warned = false;
    if (!vfio_user_conn_wait_until(c->udev->conn, &start->req, until)) {
        c->log.start = start;
        return 0;
    }
    return vfio_user_dirty_started(c, start, errp);
}

/*
 * The answer to a START that took long, for which this waits up to @until. What
 * was written before the server had understood is nowhere noted.
 */
static void vfio_user_dirty_late_start(VFIOUserContainer *c, int64_t until)
{
    VFIOUserLogStart *start = c->log.start;
    Error *err = NULL;
    int ret;

    if (!vfio_user_conn_wait_until(c->udev->conn, &start->req, until)) {
        return;
    }
    c->log.start = NULL;
    ret = vfio_user_dirty_started(c, start, &err);
    if (ret) {
        migration_file_set_error(ret, err);
    }
    vfio_user_dirty_mark_windows(c);
}

static void vfio_user_dirty_collect(VFIOUserContainer *c, bool last_stage)
{
    int64_t until = last_stage ? INT64_MAX :
                    g_get_monotonic_time() + VFIO_USER_LOG_SYNC_MS * 1000;

    if (c->log.start) {
        vfio_user_dirty_late_start(c, until);
    }
    c->log.round++;
    if (!c->log.on) {
        /* Not yet; then everything will be dirty. Or never. */
    } else if (last_stage) {
        vfio_user_dirty_ask_last(c);
    } else {
        vfio_user_dirty_ask_all(c, until);
    }
    trace_vfio_user_dirty_synced(c->udev->name, c->log.nr_reports);
}

void vfio_user_dirty_sync(MemoryListener *listener, bool last_stage)
{
    VFIOContainerBase *base = container_of(listener, VFIOContainerBase,
                                           listener);
    VFIOUserContainer *c = vfio_user_dirty_container(base);

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

typedef struct VFIOUserLogStop {
    VFIOUserRequest req;
    char *name;
    struct vfio_user_feature out;
    struct vfio_user_feature reply;
    struct iovec out_iov;
    struct iovec in_iov;
} VFIOUserLogStop;

static void vfio_user_dirty_stopped(VFIOUserRequest *req)
{
    VFIOUserLogStop *stop = container_of(req, VFIOUserLogStop, req);

    if (req->ret && req->ret != -EPIPE) {
        warn_report("vfio-user-pci %s: the server refused to stop logging "
                    "dirty pages (DMA_LOGGING_STOP): %s", stop->name,
                    strerror(-req->ret));
    }
    g_free(stop->name);
    g_free(stop);
}

void vfio_user_dirty_lost(VFIOUserContainer *c)
{
    c->log.on = false;
    if (c->log.start) {
        vfio_user_conn_abandon(c->udev->conn, &c->log.start->req);
        g_free(c->log.start);
        c->log.start = NULL;
    }
}

/* Nobody waits for that: the migration is over, and the VM may be running. */
static void vfio_user_dirty_stop(VFIOUserContainer *c)
{
    VFIOUserLogStop *stop;

    vfio_user_dirty_lost(c);
    for (VFIOUserWindow *w = vfio_user_container_first(c); w;
         w = vfio_user_container_next(w)) {
        if (w->report) {
            vfio_user_conn_abandon(c->udev->conn, &w->report->req);
            vfio_user_dirty_free_report(c, w);
        }
    }
    trace_vfio_user_dirty_stop(c->udev->name);
    if (vfio_user_conn_broken(c->udev->conn)) {
        return;
    }
    stop = g_new0(VFIOUserLogStop, 1);
    stop->name = g_strdup(c->udev->name);
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
    VFIOUserContainer *c = vfio_user_dirty_container(base);

    if (start) {
        return vfio_user_dirty_wanted(c, vfio_user_dirty_device(c)) ?
               vfio_user_dirty_start(c, errp) : 0;
    }
    if (c->log.on || c->log.start) {
        vfio_user_dirty_stop(c);
    }
    return 0;
}
