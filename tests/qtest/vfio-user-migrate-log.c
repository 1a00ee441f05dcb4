/*
 * vfio-user qtest: a server that is slow to log, or refuses, and odd memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Beside vfio-user-migrate-dirty.c, where the server logs as it should. While
 * nobody knows what the device writes, everything has to be sent again.
 */

#include "qemu/osdep.h"
#include "vfio-user-migrate.h"

#define RAM_PAGES       (VMT_RAM_SIZE / 4096)

static const VMTOptions plain = {
    .mig = { .flags = VMT_STOP_COPY, .size = 10000, .data_size = true,
             .logging = true },
};

static void wait_dst_exit(VMTest *t)
{
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
}

static void assert_failed_with(VMTest *t, const char *text)
{
    g_autofree char *error = NULL;

    vmt_wait_status(t->src, "failed");
    error = vmt_error(t->src);
    if (!strstr(error, text) || !strstr(error, VUT_ID)) {
        g_error("'%s' and '" VUT_ID "' are not in: %s", text, error);
    }
    vmt_wait_running(t->src);
}

/* The next try is a new one. */
static void try_again(VMTest *t)
{
    wait_dst_exit(t);
    vmt_replace_dst(t);
    vmt_release(t);
    vmt_migrate(t);
}

static void cancel(VMTest *t)
{
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'migrate_cancel'}");
}

/* START -------------------------------------------------------------------- */

static void test_start_refused(void)
{
    static const TsMigFail refuse = {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_LOG_START, .times = 1,
        .error = ENOMEM,
    };
    VMTest *t = vmt_new(&plain);

    ts_mig_fail(t->src->s, &refuse);
    vmt_start(t);
    assert_failed_with(t, "Cannot allocate memory");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_RUNNING));
    g_assert_cmpuint(ts_log_count(t->src->s, VMT_LOG(STOP)), ==, 0);
    try_again(t);
    vmt_free(t);
}

static void test_start_bad_page(void)
{
    static const TsMove bad = {
        .kind = TS_MOVE_PATCH, .command = VFIO_USER_DEVICE_FEATURE,
        .index = VFIO_USER_FEATURE_DMA_LOGGING_START, .a = 8, .b = 3000,
        .width = 8,
    };
    VMTest *t = vmt_new(&plain);

    ts_add_move(t->src->s, &bad);
    vmt_start(t);
    assert_failed_with(t, "page size 3000");
    vut_wait_stderr(t->src, "device lost");
    wait_dst_exit(t);
    vmt_free(t);
}

/* The migration runs, and START is not answered before ts_unstall(). */
static VMTest *start_stalled(void)
{
    static const TsMigFail stall = {
        .kind = TS_FAIL_STALL, .point = TS_AT_LOG_START, .times = 1,
    };
    VMTest *t = vmt_new(&plain);

    ts_mig_fail(t->src->s, &stall);
    vmt_hold(t);
    vmt_start(t);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    return t;
}

/* The device writes although its server is busy with a message. */
static void write_behind(VMTest *t, uint64_t addr, size_t len)
{
    TsWindow w;

    g_assert(ts_dma_find(t->src->s, addr, &w));
    g_assert(w.ptr && addr + len <= w.addr + w.size);
    vmt_fill(w.ptr + (addr - w.addr), len, addr);
}

/*
 * Guest RAM does not wait for START's answer. What was written before the
 * server had understood is in nobody's log.
 */
static void test_start_late(void)
{
    VMTest *t = start_stalled();
    TsMigStats stats;
    int64_t sent;

    VUT_WAIT(vmt_pages_sent(t) >= RAM_PAGES);
    sent = vmt_pages_sent(t);
    write_behind(t, 45 * VMT_MIB, 10000);
    ts_mig_stats(t->src->s, &stats);
    g_assert(!stats.logging);
    ts_unstall(t->src->s);
    VUT_WAIT(ts_log_count(t->src->s, VMT_LOG(REPORT)));
    vmt_finish(t);
    vmt_assert_at_dst(t, 45 * VMT_MIB, 10000);
    vmt_assert_all_sent_again(t, sent);
    vmt_free(t);
}

static void test_start_refused_late(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DEVICE_FEATURE,
        .index = VFIO_USER_FEATURE_DMA_LOGGING_START, .times = 1, .a = ENOMEM,
    };
    VMTest *t = start_stalled();

    VUT_WAIT(vmt_pages_sent(t) >= RAM_PAGES);
    ts_add_move(t->src->s, &refuse);
    ts_unstall(t->src->s);
    assert_failed_with(t, "Cannot allocate memory");
    wait_dst_exit(t);
    vmt_free(t);
}

/* Nobody waits for it any more: QEMU goes on, and the server is told. */
static void test_start_cancelled(void)
{
    VMTest *t = start_stalled();
    TsMigStats stats;

    cancel(t);
    vmt_wait_status(t->src, "cancelled");
    vmt_wait_running(t->src);
    ts_unstall(t->src->s);
    g_assert(ts_log_wait(t->src->s, VMT_LOG(STOP), 1));
    vut_flush(t->src);
    ts_mig_stats(t->src->s, &stats);
    g_assert(!stats.logging);
    try_again(t);
    vmt_free(t);
}

/* REPORT and STOP ---------------------------------------------------------- */

/* A report that is on its way when the migration is given up */
static void test_report_cancelled(void)
{
    static const TsMigFail stall = {
        .kind = TS_FAIL_STALL, .point = TS_AT_LOG_REPORT, .times = 1,
    };
    VMTest *t = vmt_start_held(&plain);

    ts_mig_fail(t->src->s, &stall);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    cancel(t);
    vmt_wait_status(t->src, "cancelled");
    vmt_wait_running(t->src);
    ts_unstall(t->src->s);
    g_assert(ts_log_wait(t->src->s, VMT_LOG(STOP), 1));
    vut_flush(t->src);
    try_again(t);
    vmt_free(t);
}

/* The migration is over by then, so it is told and nothing else. */
static void test_stop_refused(void)
{
    static const TsMigFail refuse = {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_LOG_STOP, .times = 1,
        .error = EBUSY,
    };
    VMTest *t = vmt_start_held(&plain);
    g_autofree char *log = NULL;

    ts_mig_fail(t->src->s, &refuse);
    cancel(t);
    vmt_expect_source_goes_on(t, "cancelled");
    vut_wait_stderr(t->src, "refused to stop logging");
    log = vut_stderr(t->src);
    g_assert(strstr(log, VUT_ID));
    g_assert(strstr(log, "Device or resource busy"));
    g_assert(!strstr(log, "device lost"));
    wait_dst_exit(t);
    vmt_free(t);
}

/* x-pre-copy-dirty-page-tracking=off: asked for once the device stands. */
static void test_not_in_pre_copy(void)
{
    VMTOptions o = plain;
    TsRecord r;
    VMTest *t;

    o.device = ",x-pre-copy-dirty-page-tracking=off";
    t = vmt_start_held(&o);
    vmt_device_writes(t, 46 * VMT_MIB, 10000, TS_DMA_MAPPED);
    g_assert_cmpuint(ts_log_count(t->src->s, VMT_LOG(REPORT)), ==, 0);
    vmt_finish(t);
    vmt_assert_at_dst(t, 46 * VMT_MIB, 10000);
    g_assert(ts_log_get(t->src->s, VMT_LOG(REPORT), 0, &r));
    g_assert_cmpuint(r.seq, >,
                     vmt_state_seq(t->src->s, VFIO_USER_MIG_STOP, 0));
    vmt_free(t);
}

/* Odd memory --------------------------------------------------------------- */

#define PAM_C0000       0x5a
#define PAM_RAM         0x33
/* Where the RAM at 0xc0000 ends then, and with it the window */
#define SHADOW_END      0xc8000
#define PAGES_PER_WORD  64

/* The last word of a window's bitmap is not all the window's. */
static void test_uneven_window(void)
{
    VMTest *t = vmt_new(&plain);
    QPCIDevice *host = qpci_device_find(t->src->bus, QPCI_DEVFN(0, 0));
    TsWindow w;

    qpci_config_writeb(host, PAM_C0000, PAM_RAM);
    vut_flush(t->src);
    g_assert(ts_dma_find(t->src->s, SHADOW_END - 1, &w));
    g_assert_cmphex(w.addr + w.size, ==, SHADOW_END);
    g_assert_cmpuint(w.size / 4096 % PAGES_PER_WORD, !=, 0);
    vmt_hold(t);
    vmt_start(t);
    vmt_wait_first_pass(t);
    vmt_device_writes(t, w.addr, 10, TS_DMA_MAPPED);
    vmt_device_writes(t, SHADOW_END - 10, 10, TS_DMA_MAPPED);
    vmt_finish(t);
    vmt_assert_at_dst(t, w.addr, 10);
    vmt_assert_at_dst(t, SHADOW_END - 10, 10);
    g_free(host);
    vmt_free(t);
}

/*
 * A window that comes after START, where START named nothing. The server logs
 * the ranges that it was told, and knows of no write elsewhere.
 */
static void test_later_window(void)
{
    VMTOptions o = plain;
    QPCIDevice *host, *there;
    int64_t count;
    TsWindow w;
    VMTest *t;

    o.mig.honour_ranges = o.mig.clean_elsewhere = true;
    t = vmt_start_held(&o);
    host = qpci_device_find(t->src->bus, QPCI_DEVFN(0, 0));
    there = qpci_device_find(t->dst->bus, QPCI_DEVFN(0, 0));
    qpci_config_writeb(host, PAM_C0000, PAM_RAM);
    vut_flush(t->src);
    g_assert(ts_dma_find(t->src->s, SHADOW_END - 1, &w));
    count = vmt_number(t->src, "ram", "dirty-sync-count");
    VUT_WAIT(vmt_number(t->src, "ram", "dirty-sync-count") >= count + 2);
    vmt_device_writes(t, SHADOW_END - 5000, 5000, TS_DMA_MAPPED);
    vmt_finish(t);
    qpci_config_writeb(there, PAM_C0000, PAM_RAM);
    vmt_assert_at_dst(t, SHADOW_END - 5000, 5000);
    g_free(host);
    g_free(there);
    vmt_free(t);
}

void vut_register_migrate_log(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/log/" name, func)
    T("start/refused", test_start_refused);
    T("start/bad-page", test_start_bad_page);
    T("start/late", test_start_late);
    T("start/refused-late", test_start_refused_late);
    T("start/cancelled", test_start_cancelled);
    T("report/cancelled", test_report_cancelled);
    T("report/not-in-pre-copy", test_not_in_pre_copy);
    T("stop/refused", test_stop_refused);
    T("uneven-window", test_uneven_window);
    T("later-window", test_later_window);
#undef T
}
