/*
 * vfio-user qtest: migrations that do not get to their end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whatever goes wrong: QEMU lives, the source runs on with its device, unless
 * its server is lost, and the next try is as good as a first one. A source
 * learns of a destination's failure by the return path only.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qobject/qdict.h"
#include "vfio-user-migrate.h"

#define ALL             (VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P)
#define STATE_SIZE      (2 * VMT_MIB)
#define PRECOPY_SIZE    VMT_MIB
/* Changes of state get six times that. */
#define IMPATIENT       ",x-msg-timeout-ms=1000"

#define STOP            VFIO_USER_MIG_STOP
#define RUN             VFIO_USER_MIG_RUNNING
#define SAVE            VFIO_USER_MIG_STOP_COPY
#define LOAD            VFIO_USER_MIG_RESUMING
#define RUNP            VFIO_USER_MIG_RUNNING_P2P
#define PRE             VFIO_USER_MIG_PRE_COPY
#define PREP            VFIO_USER_MIG_PRE_COPY_P2P

static VMTest *new_test(uint64_t flags, const char *device)
{
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = { .flags = flags, .size = STATE_SIZE, .data_size = true,
                 .precopy = PRECOPY_SIZE, .logging = true },
        .device = device,
    });

    qtest_qmp_assert_success(t->src->qts,
        "{'execute': 'migrate-set-capabilities', 'arguments': "
        "{'capabilities': [{'capability': 'return-path', 'state': true}]}}");
    vmt_release(t);
    return t;
}

/* The destination has nothing to wait for any more. */
static void wait_dst_exit(VMTest *t)
{
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
}

static void assert_device_works(VUTest *side, uint32_t value)
{
    QPCIBar bar = qpci_iomap(side->dev, 0, NULL);

    qpci_device_enable(side->dev);
    qpci_io_writel(side->dev, bar, 0x10, value);
    g_assert_cmphex(qpci_io_readl(side->dev, bar, 0x10), ==, value);
}

/* What failed or was cancelled goes well the next time. */
static void try_again(VMTest *t)
{
    TsMigStats before, after;

    assert_device_works(t->src, 0xa9a10);
    ts_mig_stats(t->src->s, &before);
    vmt_replace_dst(t);
    vmt_release(t);
    vmt_migrate(t);
    ts_mig_stats(t->src->s, &after);
    g_assert_cmpuint(after.nr_saved, ==, before.nr_saved + 1);
    ts_mig_stats(t->dst->s, &after);
    g_assert_cmpuint(after.nr_loaded, ==, 1);
}

/* The source's server is gone: the device is dead, and all else is well. */
static void assert_device_lost(VUTest *side)
{
    QPCIBar bar = qpci_iomap(side->dev, 0, NULL);

    qpci_device_enable(side->dev);
    g_assert_cmphex(qpci_io_readl(side->dev, bar, 0x10), ==, UINT32_MAX);
    vut_wait_stderr(side, "device lost");
    g_assert(vmt_is_running(side));
    vut_del(side, VUT_ID, VUT_SLOT);
}

/* Failures at the source --------------------------------------------------- */

typedef struct Failure {
    const char *name;
    uint64_t flags;
    TsMigFail fail;
    const char *text;       /* on stderr of the side that fails */
} Failure;

#define ARC(from_, to_) .point = TS_AT_ARC, .from = from_, .to = to_
#define READ(byte_)     .point = TS_AT_READ, .byte = byte_
#define WRITE(byte_)    .point = TS_AT_WRITE, .byte = byte_

static const Failure src_failures[] = {
    { "pre-copy", ALL, { ARC(RUN, PRE) }, "to PRE_COPY failed" },
    { "p2p", VMT_STOP_COPY | VMT_P2P, { ARC(RUN, RUNP) },
      "to RUNNING_P2P failed" },
    { "stop", VMT_STOP_COPY, { ARC(RUN, STOP) },
      "to STOP failed" },
    { "p2p-stop", VMT_STOP_COPY | VMT_P2P, { ARC(RUNP, STOP) },
      "to STOP failed" },
    { "stop-copy", VMT_STOP_COPY, { ARC(STOP, SAVE) },
      "to STOP_COPY failed" },
    { "pre-copy-stop-copy", VMT_STOP_COPY | VMT_PRE_COPY, { ARC(PRE, SAVE) },
      "to STOP_COPY failed" },
    { "pre-copy-p2p", ALL, { ARC(PRE, PREP) },
      "to PRE_COPY_P2P failed" },
    { "pre-copy-p2p-stop-copy", ALL, { ARC(PREP, SAVE) },
      "to STOP_COPY failed" },
    { "read-first", VMT_STOP_COPY, { READ(0) },
      "reading device state failed after 0 bytes" },
    { "read", VMT_STOP_COPY, { READ(STATE_SIZE / 2 + 1) },
      "reading device state failed after" },
    { "read-last", VMT_STOP_COPY, { READ(STATE_SIZE - 1) },
      "reading device state failed after" },
    { "read-pre-copy", ALL, { READ(5000) },
      "reading device state failed after" },
    { "read-after-pre-copy", ALL, { READ(PRECOPY_SIZE + 5000) },
      "reading device state failed after" },
};

static void check_src_failure(const Failure *f, TsFailKind kind,
                              const char *device)
{
    VMTest *t = new_test(f->flags, device);
    TsMigFail fail = f->fail;

    fail.kind = kind;
    fail.times = 1;
    ts_mig_fail(t->src->s, &fail);
    vmt_start(t);
    vmt_expect_source_goes_on(t, "failed");
    g_assert_cmpuint(ts_mig_nr_failed(t->src->s), ==, 1);
    vut_wait_stderr(t->src, f->text);
    vut_wait_stderr(t->src, VUT_ID);
    wait_dst_exit(t);
    try_again(t);
    vmt_free(t);
}

static void test_src_refuses(const void *data)
{
    check_src_failure(data, TS_FAIL_REFUSE, NULL);
}

static void test_src_breaks(const void *data)
{
    check_src_failure(data, TS_FAIL_ERROR, NULL);
}

static void test_src_hangs(const void *data)
{
    check_src_failure(data, TS_FAIL_HANG, IMPATIENT);
}

static void test_src_closes(const void *data)
{
    const Failure *f = data;
    VMTest *t = new_test(f->flags, NULL);
    TsMigFail fail = f->fail;

    fail.kind = TS_FAIL_CLOSE;
    ts_mig_fail(t->src->s, &fail);
    vmt_start(t);
    vmt_wait_status(t->src, "failed");
    vmt_wait_running(t->src);
    wait_dst_exit(t);
    assert_device_lost(t->src);
    vmt_free(t);
}

/* Everything has been sent: the destination runs whatever comes now. */
static void check_src_too_late(TsFailKind kind)
{
    VMTest *t = new_test(VMT_STOP_COPY, IMPATIENT);

    ts_mig_fail(t->src->s, &(TsMigFail) {
        .kind = kind, ARC(SAVE, STOP), .times = 1,
    });
    vmt_migrate(t);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    assert_device_works(t->dst, 5);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'query-status'}");
    vmt_free(t);
}

static void test_src_too_late_refused(void)
{
    check_src_too_late(TS_FAIL_REFUSE);
}

static void test_src_too_late_hung(void)
{
    check_src_too_late(TS_FAIL_HANG);
}

static void test_src_too_late_closed(void)
{
    check_src_too_late(TS_FAIL_CLOSE);
}

/* Failures at the destination ---------------------------------------------- */

static const Failure dst_failures[] = {
    { "resuming", ALL, { ARC(TS_ANY_STATE, LOAD) },
      "to RESUMING failed" },
    { "resuming-plain", VMT_STOP_COPY, { ARC(TS_ANY_STATE, LOAD) },
      "to RESUMING failed" },
    { "write-first", VMT_STOP_COPY, { WRITE(0) },
      "the device state was not taken after 0 bytes" },
    { "write", ALL, { WRITE(STATE_SIZE / 2 + 1) },
      "the device state was not taken after" },
    { "write-last", VMT_STOP_COPY, { WRITE(STATE_SIZE - 1) },
      "the device state was not taken after" },
    { "stop", ALL, { ARC(LOAD, STOP) },
      "is not complete or does not fit this server" },
};

static void check_dst_failure(const Failure *f, TsFailKind kind,
                              const char *device, const char *text)
{
    VMTest *t = new_test(f->flags, device);
    TsMigFail fail = f->fail;

    fail.kind = kind;
    ts_mig_fail(t->dst->s, &fail);
    vmt_start(t);
    vmt_expect_failed_load(t, text);
    try_again(t);
    vmt_free(t);
}

static void test_dst_refuses(const void *data)
{
    const Failure *f = data;

    check_dst_failure(f, TS_FAIL_REFUSE, NULL, f->text);
}

static void test_dst_breaks(const void *data)
{
    const Failure *f = data;

    check_dst_failure(f, TS_FAIL_ERROR, NULL, f->text);
}

static void test_dst_hangs(const void *data)
{
    const Failure *f = data;

    check_dst_failure(f, TS_FAIL_HANG, IMPATIENT, f->text);
}

static void test_dst_closes(const void *data)
{
    check_dst_failure(data, TS_FAIL_CLOSE, NULL, "device lost");
}

/* Its server is lost before anything comes. */
static void test_dst_lost_before(void)
{
    VMTest *t = new_test(ALL, NULL);

    ts_disconnect(t->dst->s);
    vut_wait_stderr(t->dst, "device lost");
    vmt_start(t);
    vmt_expect_failed_load(t, VUT_ID);
    try_again(t);
    vmt_free(t);
}

/* The VM has moved: a device that does not start is reset, and QEMU lives. */
static void test_dst_does_not_start(void)
{
    VMTest *t = new_test(VMT_STOP_COPY, NULL);

    ts_mig_fail(t->dst->s, &(TsMigFail) {
        .kind = TS_FAIL_REFUSE, ARC(STOP, RUN), .times = 1,
    });
    vmt_migrate(t);
    vut_wait_stderr(t->dst, "to RUNNING failed");
    g_assert(ts_mig_wait_state(t->dst->s, RUN));
    assert_device_works(t->dst, 6);
    vmt_free(t);
}

/* Streams that do not fit -------------------------------------------------- */

/* Streams that short have a length that both servers must know. */
static void check_length(uint64_t given, uint64_t wanted)
{
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY, .size = given, .logging = true },
        .dst_mig = { .flags = VMT_STOP_COPY, .size = wanted },
    });
    g_autofree char *reason = NULL;

    qtest_qmp_assert_success(t->src->qts,
        "{'execute': 'migrate-set-capabilities', 'arguments': "
        "{'capabilities': [{'capability': 'return-path', 'state': true}]}}");
    vmt_start(t);
    vmt_expect_failed_load(t, "is not complete or does not fit this server");
    reason = ts_mig_load_error(t->dst->s);
    g_assert_nonnull(reason);
    vmt_free(t);
}

static void test_too_short(void)
{
    check_length(16, 20);
}

static void test_too_long(void)
{
    check_length(20, 16);
}

static void test_nothing_came(void)
{
    check_length(0, 16);
}

/* A file that ends early, somewhere. */
static void test_cut_file(void)
{
    VMTest *t = vmt_new_src(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY, .size = STATE_SIZE,
                 .logging = true },
    });
    g_autofree char *path = g_build_filename(t->src->dir, "state", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    GStatBuf st;

    t->uri = g_strdup(uri);
    vmt_start(t);
    vmt_wait_status(t->src, "completed");
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    /* In the middle of the device's state, which is at the end */
    g_assert_cmpint(truncate(path, st.st_size - STATE_SIZE / 2), ==, 0);
    vmt_add_dst(t, "defer");
    qtest_qmp_send(t->dst->qts, "{'execute': 'migrate-incoming', "
                   "'arguments': {'uri': %s}}", uri);
    wait_dst_exit(t);
    vut_wait_stderr(t->dst, "load of migration failed");
    g_assert_cmpuint(ts_log_count(t->dst->s, (TsMatch) {
        VFIO_USER_MIG_DATA_WRITE, -1, -1 }), >, 0);
    g_assert_cmpint(g_unlink(path), ==, 0);
    vmt_free(t);
}

/* Answers that break the protocol ------------------------------------------ */

static const TsMove bad_answers[] = {
    /* Longer than what was asked for */
    { .kind = TS_MOVE_PAD, .command = VFIO_USER_MIG_DATA_READ, .index = -1,
      .a = VMT_MIB },
    { .kind = TS_MOVE_CUT, .command = VFIO_USER_MIG_DATA_READ, .index = -1,
      .a = 4 },
    { .kind = TS_MOVE_CUT, .command = VFIO_USER_MIG_DATA_READ, .index = -1,
      .a = 1000 },
    { .kind = TS_MOVE_PATCH, .command = VFIO_USER_MIG_DATA_READ, .index = -1,
      .a = 4, .b = UINT32_MAX },
    { .kind = TS_MOVE_CUT, .command = VFIO_USER_DEVICE_FEATURE,
      .index = VFIO_USER_FEATURE_MIG_DEVICE_STATE, .a = 15 },
    { .kind = TS_MOVE_PAD, .command = VFIO_USER_DEVICE_FEATURE,
      .index = VFIO_USER_FEATURE_MIG_DEVICE_STATE, .a = 1 },
    { .kind = TS_MOVE_TWICE, .command = VFIO_USER_DEVICE_FEATURE,
      .index = VFIO_USER_FEATURE_MIG_DEVICE_STATE },
};

static void test_bad_answer(const void *data)
{
    VMTest *t = new_test(ALL, NULL);

    ts_add_move(t->src->s, data);
    vmt_start(t);
    vmt_wait_status(t->src, "failed");
    vmt_wait_running(t->src);
    wait_dst_exit(t);
    assert_device_lost(t->src);
    vmt_free(t);
}

/* It says that it went elsewhere: that is a failure of the device alone. */
static void test_other_state(void)
{
    static const TsMove other = {
        .kind = TS_MOVE_PATCH, .command = VFIO_USER_DEVICE_FEATURE,
        .index = VFIO_USER_FEATURE_MIG_DEVICE_STATE, .times = 1,
        .a = 8, .b = STOP,
    };
    VMTest *t = new_test(ALL, NULL);

    ts_add_move(t->src->s, &other);
    vmt_start(t);
    vmt_expect_source_goes_on(t, "failed");
    vut_wait_stderr(t->src, "the server answered with state STOP");
    wait_dst_exit(t);
    try_again(t);
    vmt_free(t);
}

/* Lines of one kind in ten seconds */
#define MAX_LINES       4

/* It refuses each change, and the VM is stopped and goes on again and again. */
static void test_refuses_all(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DEVICE_FEATURE,
        .index = VFIO_USER_FEATURE_MIG_DEVICE_STATE, .a = EBUSY,
    };
    VMTest *t = new_test(ALL, NULL);
    g_autofree char *log = NULL;

    ts_add_move(t->src->s, &refuse);
    for (unsigned i = 0; i < 10; i++) {
        qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
        qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    }
    log = vut_stderr(t->src);
    g_assert_cmpuint(vut_occurrences(log, "going from state"), >, 0);
    g_assert_cmpuint(vut_occurrences(log, "going from state"), <=, MAX_LINES);
    vmt_free(t);
}

/* Cancelled, reset, lost, unplugged ---------------------------------------- */

static VMTest *start_held(uint64_t flags)
{
    VMTest *t = new_test(flags, NULL);

    vmt_hold(t);
    vmt_start(t);
    vmt_wait_first_pass(t);
    return t;
}

static void cancel(VMTest *t)
{
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'migrate_cancel'}");
}

static const uint64_t all_flags[] = {
    VMT_STOP_COPY, VMT_STOP_COPY | VMT_PRE_COPY, ALL,
};

static void test_cancel(const void *data)
{
    VMTest *t = start_held(*(const uint64_t *)data);
    TsMigStats stats;

    cancel(t);
    vmt_expect_source_goes_on(t, "cancelled");
    g_assert(ts_log_wait(t->src->s, VMT_LOG(STOP), 1));
    ts_mig_stats(t->src->s, &stats);
    g_assert(!stats.logging);
    wait_dst_exit(t);
    try_again(t);
    vmt_free(t);
}

/* The server is silent in the middle of pre-copy: nobody else minds. */
static void test_cancel_stalled(void)
{
    VMTest *t = new_test(ALL, NULL);

    ts_mig_fail(t->src->s, &(TsMigFail) {
        .kind = TS_FAIL_STALL, READ(5000), .times = 1,
    });
    vmt_hold(t);
    vmt_start(t);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    g_assert(vmt_is_running(t->src));
    cancel(t);
    g_assert(vmt_is_running(t->src));
    ts_unstall(t->src->s);
    vmt_expect_source_goes_on(t, "cancelled");
    wait_dst_exit(t);
    try_again(t);
    vmt_free(t);
}

/* A guest that reboots in pre-copy loses the stream, and that is said. */
static void test_reset(const void *data)
{
    VMTest *t = start_held(*(const uint64_t *)data);

    qtest_system_reset(t->src->qts);
    vmt_expect_source_goes_on(t, "failed");
    vut_wait_stderr(t->src, "the device was reset meanwhile");
    wait_dst_exit(t);
    try_again(t);
    vmt_free(t);
}

/* Without pre-copy there is none yet. */
static void test_reset_harmless(void)
{
    VMTest *t = start_held(VMT_STOP_COPY);

    qtest_system_reset(t->src->qts);
    vmt_release(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
    assert_device_works(t->dst, 7);
    vmt_free(t);
}

static void test_lost(const void *data)
{
    VMTest *t = start_held(*(const uint64_t *)data);

    ts_stop_listening(t->src->s);
    ts_disconnect(t->src->s);
    vut_wait_stderr(t->src, "device lost");
    vmt_release(t);
    vmt_wait_status(t->src, "failed");
    vmt_wait_running(t->src);
    wait_dst_exit(t);
    assert_device_lost(t->src);
    vmt_free(t);
}

/* It breaks down by itself: the next change of state finds out. */
static void test_breaks_down(const void *data)
{
    VMTest *t = start_held(*(const uint64_t *)data);

    ts_mig_break(t->src->s);
    vmt_release(t);
    vmt_expect_source_goes_on(t, "failed");
    wait_dst_exit(t);
    try_again(t);
    vmt_free(t);
}

static void test_unplug(void)
{
    VMTest *t = start_held(ALL);
    QDict *response = qtest_qmp_assert_failure_ref(t->src->qts,
        "{'execute': 'device_del', 'arguments': {'id': %s}}", VUT_ID);

    qobject_unref(response);
    vmt_release(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
    vmt_free(t);
}

/* -------------------------------------------------------------------------- */

static void add_failures(const char *side, const char *kind,
                         const Failure *failures, size_t nr,
                         void (*fn)(const void *data))
{
    for (size_t i = 0; i < nr; i++) {
        g_autofree char *path = g_strdup_printf(
            "vfio-user/migrate/fail/%s/%s/%s", side, kind, failures[i].name);

        vut_add_data_test(path, &failures[i], fn);
    }
}

static void add_flags(const char *name, unsigned first,
                      void (*fn)(const void *data))
{
    static const char *const names[] = { "stop-copy", "pre-copy", "p2p" };

    for (unsigned i = first; i < ARRAY_SIZE(all_flags); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/migrate/%s/%s",
                                                name, names[i]);

        vut_add_data_test(path, &all_flags[i], fn);
    }
}

void vut_register_migrate_fail(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/" name, func)
#define FAILURES(side, kind, func) \
    add_failures(#side, kind, side##_failures, ARRAY_SIZE(side##_failures), \
                 func)
    FAILURES(src, "refuse", test_src_refuses);
    FAILURES(src, "break", test_src_breaks);
    FAILURES(src, "hang", test_src_hangs);
    FAILURES(src, "close", test_src_closes);
    T("fail/src/too-late/refuse", test_src_too_late_refused);
    T("fail/src/too-late/hang", test_src_too_late_hung);
    T("fail/src/too-late/close", test_src_too_late_closed);
    FAILURES(dst, "refuse", test_dst_refuses);
    FAILURES(dst, "break", test_dst_breaks);
    FAILURES(dst, "hang", test_dst_hangs);
    FAILURES(dst, "close", test_dst_closes);
    T("fail/dst/lost-before", test_dst_lost_before);
    T("fail/dst/does-not-start", test_dst_does_not_start);
    T("fail/stream/too-short", test_too_short);
    T("fail/stream/too-long", test_too_long);
    T("fail/stream/nothing", test_nothing_came);
    T("fail/stream/cut-file", test_cut_file);
    for (size_t i = 0; i < ARRAY_SIZE(bad_answers); i++) {
        g_autofree char *path = g_strdup_printf(
            "vfio-user/migrate/fail/protocol/%zu", i);

        vut_add_data_test(path, &bad_answers[i], test_bad_answer);
    }
    T("fail/other-state", test_other_state);
    T("fail/refuses-all", test_refuses_all);
    add_flags("cancel", 0, test_cancel);
    T("cancel/stalled", test_cancel_stalled);
    add_flags("reset", 1, test_reset);
    T("reset/harmless", test_reset_harmless);
    add_flags("lost", 0, test_lost);
    add_flags("breaks-down", 0, test_breaks_down);
    T("unplug", test_unplug);
#undef FAILURES
#undef T
}
