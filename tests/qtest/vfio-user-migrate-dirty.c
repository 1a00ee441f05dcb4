/*
 * vfio-user qtest: pages that the device wrote reach the destination
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The source is held in pre-copy until all of its RAM was sent. What the
 * device writes then is at the destination only if the client got to know.
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "vfio-user-migrate.h"

#define REPORTS     VMT_LOG(REPORT)
/* What a QEMU whose guest does nothing makes dirty by itself, and some more */
#define FEW_PAGES   4000

static const VMTOptions plain = {
    .mig = { .flags = VMT_STOP_COPY, .size = 10000, .data_size = true,
             .logging = true },
};

static bool is_logged(const TsWindow *w)
{
    return w->has_fd && w->flags & VFIO_USER_DMA_WRITEABLE;
}

/* START, REPORT, STOP ------------------------------------------------------ */

static void test_start(void)
{
    VMTest *t = vmt_start_held(&plain);
    uint64_t mapped = 0, logged = 0;
    TsMigStats stats;
    TsWindow w;

    ts_mig_stats(t->src->s, &stats);
    g_assert(stats.logging);
    g_assert_cmpuint(stats.nr_starts, ==, 1);
    g_assert_cmpuint(stats.log_page_size, ==, 4096);
    for (unsigned i = 0; ts_dma_window(t->src->s, i, &w); i++) {
        mapped += is_logged(&w) ? w.size : 0;
    }
    for (unsigned i = 0; i < stats.nr_ranges; i++) {
        logged += stats.ranges[i].length;
    }
    g_assert_cmpuint(mapped, ==, logged);
    g_assert_cmpuint(mapped, >=, VMT_RAM_SIZE - VMT_MIB);
    for (unsigned i = 0; ts_dma_window(t->src->s, i, &w); i++) {
        bool in_range = false;

        for (unsigned j = 0; j < stats.nr_ranges; j++) {
            in_range |= w.addr >= stats.ranges[j].iova &&
                        w.addr + w.size <= stats.ranges[j].iova +
                                           stats.ranges[j].length;
        }
        g_assert_cmpint(in_range, ==, is_logged(&w));
    }
    vmt_finish(t);
    /* Nobody logs at a destination. */
    g_assert_cmpuint(ts_log_count(t->dst->s, VMT_LOG(STOP)), ==, 0);
    g_assert_cmpuint(ts_log_count(t->dst->s, REPORTS), ==, 0);

    /* QEMU ends logging when the VM, which has moved out, runs again. */
    g_assert_cmpuint(ts_log_count(t->src->s, VMT_LOG(STOP)), ==, 0);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert(ts_log_wait(t->src->s, VMT_LOG(STOP), 1));
    ts_mig_stats(t->src->s, &stats);
    g_assert(!stats.logging);
    g_assert_cmpuint(ts_mig_state(t->src->s), ==, VFIO_USER_MIG_RUNNING);
    vmt_free(t);
}

/* Every report is about one window with a descriptor; each has been asked. */
static void assert_reports_fit(VMTest *t)
{
    unsigned logged = 0, others = 0, asked = 0;
    uint64_t range[3];
    TsRecord r;
    TsWindow w;

    for (unsigned i = 0; ts_log_get(t->src->s, REPORTS, i, &r); i++) {
        g_assert_cmpint(r.error, ==, 0);
        g_assert_cmpuint(r.len, ==, sizeof(range));
        memcpy(range, r.data, sizeof(range));
        g_assert(ts_dma_find(t->src->s, range[0], &w));
        g_assert_cmphex(range[0], ==, w.addr);
        g_assert_cmphex(range[1], ==, w.size);
        g_assert_cmpuint(range[2], ==, 4096);
        g_assert(is_logged(&w));
    }
    for (unsigned i = 0; ts_dma_window(t->src->s, i, &w); i++) {
        bool found = false;

        logged += is_logged(&w);
        others += !is_logged(&w);
        for (unsigned j = 0; !found && ts_log_get(t->src->s, REPORTS, j, &r);
             j++) {
            found = !memcmp(r.data, &w.addr, sizeof(w.addr));
        }
        asked += found;
    }
    g_assert_cmpuint(asked, ==, logged);
    g_assert_cmpuint(logged, >=, 2);
    g_assert_cmpuint(others, >=, 1);
}

static void test_reports(void)
{
    VMTest *t = vmt_start_held(&plain);

    assert_reports_fit(t);
    vmt_finish(t);
    vmt_free(t);
}

typedef struct Flight {
    uint64_t first;         /* the window that is asked first */
    unsigned rounds, alone;
} Flight;

static Flight flight;

static int count_flight(TestServer *s, TsMessage *request, TsMessage *reply,
                        void *opaque)
{
    uint32_t words[2];
    uint64_t iova;

    if (request->payload->len < 16) {
        return -1;
    }
    memcpy(words, request->payload->data, sizeof(words));
    memcpy(&iova, request->payload->data + 8, sizeof(iova));
    if ((words[1] & VFIO_USER_FEATURE_MASK) ==
        VFIO_USER_FEATURE_DMA_LOGGING_REPORT && iova == flight.first &&
        !flight.rounds++ && !ts_message_pending(s, TS_DEADLINE_MS)) {
        flight.alone++;
    }
    return -1;
}

static void setup_flight(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_FEATURE, count_flight, NULL);
}

/* The second window is asked about before the answer for the first one. */
static void test_in_flight(void)
{
    VMTOptions o = plain;
    VMTest *t;

    flight = (Flight) { };
    o.src_setup = setup_flight;
    t = vmt_start_held(&o);
    vmt_finish(t);
    g_assert_cmpuint(flight.rounds, >=, 2);
    g_assert_cmpuint(flight.alone, ==, 0);
    vmt_free(t);
}

/* Pages -------------------------------------------------------------------- */

static const uint64_t page_sizes[] = {
    512, 1024, 2048, 4096, 8192, 16384, 65536, 2 * VMT_MIB,
};

static void test_page_size(const void *data)
{
    uint64_t page = *(const uint64_t *)data;
    VMTOptions o = plain;
    VMTest *t;
    int64_t sent;

    o.mig.log_page_size = page;
    t = vmt_start_held(&o);
    sent = vmt_pages_sent(t);
    vmt_device_writes(t, 0x2000, 1, TS_DMA_MAPPED);
    vmt_device_writes(t, 5 * VMT_MIB + 123, 10000, TS_DMA_MAPPED);
    vmt_device_writes(t, 64 * VMT_MIB - 1, 2, TS_DMA_MAPPED);
    vmt_device_writes(t, 100 * VMT_MIB + 512, 512, TS_DMA_MAPPED);
    vmt_device_writes(t, VMT_RAM_SIZE - 1, 1, TS_DMA_MAPPED);
    vmt_finish(t);
    vmt_assert_at_dst(t, 0x2000, 1);
    vmt_assert_at_dst(t, 5 * VMT_MIB + 123, 10000);
    vmt_assert_at_dst(t, 64 * VMT_MIB - 1, 2);
    vmt_assert_at_dst(t, 100 * VMT_MIB + 512, 512);
    vmt_assert_at_dst(t, VMT_RAM_SIZE - 1, 1);
    if (page <= 16384) {
        /* Only that, not everything. */
        g_assert_cmpint(vmt_pages_sent(t) - sent, <, FEW_PAGES);
    }
    vmt_free(t);
}

/* The device writes again and again, until it is stopped. */
static void test_rounds(void)
{
    VMTest *t = vmt_start_held(&plain);

    for (unsigned i = 0; i < 20; i++) {
        int64_t count = vmt_number(t->src, "ram", "dirty-sync-count");

        vmt_device_writes(t, (10 + i) * VMT_MIB, 5000, TS_DMA_MAPPED);
        VUT_WAIT(vmt_number(t->src, "ram", "dirty-sync-count") > count);
    }
    vmt_finish(t);
    for (unsigned i = 0; i < 20; i++) {
        vmt_assert_at_dst(t, (10 + i) * VMT_MIB, 5000);
    }
    vmt_free(t);
}

/*
 * Its last write comes when it is told to stop. The destination's server, which
 * goes from RESUMING to STOP, must not make it.
 */
#define LAST_AT     (77 * VMT_MIB)
#define LAST_LEN    9000

static int write_at_stop(TestServer *s, TsMessage *request, TsMessage *reply,
                         void *opaque)
{
    uint32_t words[3] = { };
    uint8_t data[LAST_LEN];

    memcpy(words, request->payload->data,
           MIN(request->payload->len, sizeof(words)));
    if (words[1] == (VFIO_USER_FEATURE_SET |
                     VFIO_USER_FEATURE_MIG_DEVICE_STATE) &&
        words[2] == VFIO_USER_MIG_STOP) {
        vmt_fill(data, sizeof(data), LAST_AT);
        ts_dma_write(s, LAST_AT, data, sizeof(data), TS_DMA_MAPPED);
    }
    return -1;
}

static void setup_write_at_stop(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_FEATURE, write_at_stop, NULL);
}

static void test_last_write(void)
{
    VMTOptions o = plain;
    VMTest *t;

    o.src_setup = setup_write_at_stop;
    t = vmt_start_held(&o);
    vmt_finish(t);
    vmt_assert_at_dst(t, LAST_AT, LAST_LEN);
    vmt_free(t);
}

/* Writes by message need nobody's report. */
static void check_messages(bool private_ram, bool logging)
{
    VMTOptions o = plain;
    VMTest *t;

    o.private_ram = private_ram;
    o.mig.logging = logging;
    t = vmt_start_held(&o);
    vmt_device_writes(t, 33 * VMT_MIB + 7, 20000, TS_DMA_MESSAGE);
    if (private_ram) {
        g_assert_cmpuint(ts_log_count(t->src->s, REPORTS), ==, 0);
    }
    vmt_finish(t);
    vmt_assert_at_dst(t, 33 * VMT_MIB + 7, 20000);
    vmt_free(t);
}

static void test_messages_shared(void)
{
    check_messages(false, true);
}

static void test_messages_private(void)
{
    check_messages(true, true);
}

static void test_messages_private_no_logging(void)
{
    check_messages(true, false);
}

/* A window that goes away takes its report with it, and its memory stays. */
#define PAM_C0000       0x5a
#define PAM_RAM         0x33

static void test_window_goes(void)
{
    VMTest *t = vmt_start_held(&plain);
    QPCIDevice *host = qpci_device_find(t->src->bus, QPCI_DEVFN(0, 0));
    QPCIDevice *there = qpci_device_find(t->dst->bus, QPCI_DEVFN(0, 0));

    /* So slow that hardly a collection comes in between */
    vmt_set_parameter(t->src, "max-bandwidth", 1000);
    qpci_config_writeb(host, PAM_C0000, PAM_RAM);
    vut_flush(t->src);
    vmt_device_writes(t, 0xc0100, 3000, TS_DMA_MAPPED);
    qpci_config_writeb(host, PAM_C0000, 0);
    vmt_finish(t);
    qpci_config_writeb(there, PAM_C0000, PAM_RAM);
    vmt_assert_at_dst(t, 0xc0100, 3000);
    g_free(host);
    g_free(there);
    vmt_free(t);
}

/* Sizes -------------------------------------------------------------------- */

#define BIG_RAM         (256 * VMT_MIB)
#define SMALL_BITMAP    4096
/* A bit for each 4 KiB */
#define SMALL_WINDOW    (SMALL_BITMAP * 8 * 4096ull)

static void setup_max_bitmap(TestServer *s)
{
    ts_limits(s)->json = "{\"capabilities\": {\"max_msg_fds\": 8, "
        "\"max_data_xfer_size\": 1048576, "
        "\"migration\": {\"pgsize\": 4096, \"max_bitmap_size\": 4096}}}";
}

/* No window is larger than what one report can tell about. */
static void check_split(uint32_t max_xfer, void (*setup)(TestServer *s))
{
    VMTest *t = vmt_start_held(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY, .size = 10000, .data_size = true,
                 .logging = true, .max_bitmap = SMALL_BITMAP },
        .max_xfer = max_xfer, .setup = setup, .private_ram = true,
        .args = "-m 256M -machine memory-backend=ram -object "
                "memory-backend-memfd,id=ram,size=256M,share=on",
    });
    TsWindow w;

    g_assert(ts_dma_find(t->src->s, BIG_RAM - 1, &w));
    g_assert_cmphex(w.addr, ==, SMALL_WINDOW);
    g_assert_cmphex(w.size, ==, SMALL_WINDOW);
    assert_reports_fit(t);
    vmt_device_writes(t, SMALL_WINDOW - 5000, 5000, TS_DMA_MAPPED);
    vmt_device_writes(t, SMALL_WINDOW, 5000, TS_DMA_MAPPED);
    vmt_device_writes(t, BIG_RAM - 5000, 5000, TS_DMA_MAPPED);
    vmt_finish(t);
    vmt_assert_at_dst(t, SMALL_WINDOW - 5000, 5000);
    vmt_assert_at_dst(t, SMALL_WINDOW, 5000);
    vmt_assert_at_dst(t, BIG_RAM - 5000, 5000);
    vmt_free(t);
}

static void test_split_by_max_xfer(void)
{
    check_split(SMALL_BITMAP, NULL);
}

static void test_split_by_max_bitmap(void)
{
    check_split(0, setup_max_bitmap);
}

/* What is not known -------------------------------------------------------- */

static void test_report_refused(void)
{
    static const TsMigFail refuse = {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_LOG_REPORT, .error = EINVAL,
    };
    VMTest *t = vmt_start_held(&plain);
    g_autofree char *log = NULL;
    int64_t sent = vmt_pages_sent(t);

    ts_mig_fail(t->src->s, &refuse);
    vmt_device_writes(t, 40 * VMT_MIB, 10000, TS_DMA_MAPPED);
    g_assert(ts_mig_wait_failed(t->src->s, 10));
    vmt_finish(t);
    vmt_assert_at_dst(t, 40 * VMT_MIB, 10000);
    vmt_assert_all_sent_again(t, sent);
    log = vut_stderr(t->src);
    g_assert_cmpuint(vut_occurrences(log, "no report of dirty pages"), ==, 1);
    g_assert(strstr(log, VUT_ID) && strstr(log, "Invalid argument"));
    vmt_free(t);
}

/* Once is no reason to give up on reports. */
static void test_report_refused_once(void)
{
    static const TsMigFail refuse = {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_LOG_REPORT, .times = 1,
    };
    VMTest *t = vmt_start_held(&plain);
    TsMigStats before, after;

    ts_mig_fail(t->src->s, &refuse);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    ts_mig_stats(t->src->s, &before);
    vmt_device_writes(t, 41 * VMT_MIB, 10000, TS_DMA_MAPPED);
    vmt_finish(t);
    ts_mig_stats(t->src->s, &after);
    g_assert_cmpuint(after.nr_reports, >, before.nr_reports);
    vmt_assert_at_dst(t, 41 * VMT_MIB, 10000);
    vmt_free(t);
}

/* A server that answers no report: the migration goes on without. */
static void test_report_hangs(void)
{
    static const TsMigFail hang = {
        .kind = TS_FAIL_HANG, .point = TS_AT_LOG_REPORT,
    };
    VMTOptions o = plain;
    VMTest *t;

    o.device = ",x-msg-timeout-ms=1000";
    t = vmt_start_held(&o);
    ts_mig_fail(t->src->s, &hang);
    vmt_device_writes(t, 42 * VMT_MIB, 10000, TS_DMA_MAPPED);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    vmt_finish(t);
    vmt_assert_at_dst(t, 42 * VMT_MIB, 10000);
    vut_wait_stderr(t->src, "no report of dirty pages");
    vmt_free(t);
}

/* Without logging all memory that it could write is dirty all the time. */
static void test_no_logging(void)
{
    VMTOptions o = plain;
    VMTest *t;
    int64_t sent;

    o.mig.logging = false;
    o.device = ",enable-migration=on";
    t = vmt_start_held(&o);
    sent = vmt_pages_sent(t);
    vmt_device_writes(t, 43 * VMT_MIB, 10000, TS_DMA_MAPPED);
    vmt_finish(t);
    vmt_assert_at_dst(t, 43 * VMT_MIB, 10000);
    vmt_assert_all_sent_again(t, sent);
    g_assert_cmpuint(ts_log_count(t->src->s, REPORTS), ==, 0);
    g_assert_cmpuint(ts_log_count(t->src->s, VMT_LOG(STOP)), ==, 0);
    vmt_free(t);
}

/* That is nothing that anybody should get without having asked for it. */
static void test_no_logging_auto(void)
{
    VMTOptions o = plain;
    VMTest *t;
    QDict *response;

    o.mig.logging = false;
    t = vmt_new_src(&o);
    response = qtest_qmp_assert_failure_ref(t->src->qts,
        "{'execute': 'migrate', 'arguments': {'uri': 'exec:cat >/dev/null'}}");
    g_assert(strstr(qdict_get_str(response, "desc"), "dirty"));
    qobject_unref(response);
    vmt_free(t);
}

/* The user's choice: the server is not asked although it could tell. */
static void test_tracking_off(void)
{
    VMTOptions o = plain;
    VMTest *t;
    int64_t sent;

    o.device = ",enable-migration=on,x-device-dirty-page-tracking=off";
    t = vmt_start_held(&o);
    sent = vmt_pages_sent(t);
    vmt_device_writes(t, 44 * VMT_MIB, 10000, TS_DMA_MAPPED);
    vmt_finish(t);
    vmt_assert_at_dst(t, 44 * VMT_MIB, 10000);
    vmt_assert_all_sent_again(t, sent);
    g_assert_cmpuint(ts_log_count(t->src->s, REPORTS), ==, 0);
    vmt_free(t);
}

/* Reports that do not fit the question: nothing of that device is trusted. */
static const TsMove bad_reports[] = {
    { .kind = TS_MOVE_CUT, .a = 31 },
    { .kind = TS_MOVE_CUT, .a = 32 },
    { .kind = TS_MOVE_PAD, .a = 8 },
    { .kind = TS_MOVE_PATCH, .a = 8, .b = 0x5000, .width = 8 },
    { .kind = TS_MOVE_PATCH, .a = 16, .b = 0x5000, .width = 8 },
    { .kind = TS_MOVE_PATCH, .a = 24, .b = 8192, .width = 8 },
};

static void test_bad_report(const void *data)
{
    TsMove bad = *(const TsMove *)data;
    VMTest *t = vmt_start_held(&plain);

    bad.command = VFIO_USER_DEVICE_FEATURE;
    bad.index = VFIO_USER_FEATURE_DMA_LOGGING_REPORT;
    ts_add_move(t->src->s, &bad);
    vut_wait_stderr(t->src, "device lost");
    vmt_release(t);
    vmt_wait_status(t->src, "failed");
    vmt_wait_running(t->src);
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    vmt_free(t);
}

void vut_register_migrate_dirty(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/dirty/" name, func)
    T("start", test_start);
    T("reports", test_reports);
    T("in-flight", test_in_flight);
    for (unsigned i = 0; i < ARRAY_SIZE(page_sizes); i++) {
        g_autofree char *path = g_strdup_printf(
            "vfio-user/migrate/dirty/page-size/%" PRIu64, page_sizes[i]);

        vut_add_data_test(path, &page_sizes[i], test_page_size);
    }
    T("rounds", test_rounds);
    T("last-write", test_last_write);
    T("messages/shared", test_messages_shared);
    T("messages/private", test_messages_private);
    T("messages/private-no-logging", test_messages_private_no_logging);
    T("window-goes", test_window_goes);
    T("split/max-xfer", test_split_by_max_xfer);
    T("split/max-bitmap", test_split_by_max_bitmap);
    T("report-refused", test_report_refused);
    T("report-refused-once", test_report_refused_once);
    T("report-hangs", test_report_hangs);
    T("no-logging/on", test_no_logging);
    T("no-logging/auto", test_no_logging_auto);
    T("tracking-off", test_tracking_off);
    for (unsigned i = 0; i < ARRAY_SIZE(bad_reports); i++) {
        g_autofree char *path = g_strdup_printf(
            "vfio-user/migrate/dirty/bad-report/%u", i);

        vut_add_data_test(path, &bad_reports[i], test_bad_report);
    }
#undef T
}
