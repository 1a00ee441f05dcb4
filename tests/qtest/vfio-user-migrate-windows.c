/*
 * vfio-user qtest: dirty pages in more windows than are asked about at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory in 256 DIMMs with gaps between them. A round of questions holds the
 * BQL, so it ends before a slow server has answered for all of them, and the
 * next one goes on from there. In the last round nothing may be left out.
 */

#include "qemu/osdep.h"
#include "vfio-user-migrate.h"

#define DIMM_BASE       (4096 * VMT_MIB)
#define DIMM_SIZE       (64 * VMT_KIB)
#define NR_DIMMS        256
#define DIMM(i)         (DIMM_BASE + (i) * VMT_MIB)
/* Reports that the client has at the server at once */
#define MAX_REPORTS     64

/* One server that takes its time: 1 ms for each report */
static const TsMove slow = {
    .kind = TS_MOVE_DELAY, .command = VFIO_USER_DEVICE_FEATURE,
    .index = VFIO_USER_FEATURE_DMA_LOGGING_REPORT, .a = 1,
};

static VMTOptions dimm_options(void)
{
    GString *args = g_string_new("-m 128M,slots=256,maxmem=2G "
                                 "-trace vfio_migration_set_state "
                                 "-trace vfio_user_dirty_synced");

    for (unsigned i = 0; i < NR_DIMMS; i++) {
        g_string_append_printf(args, " -object memory-backend-memfd,id=m%u,"
                               "size=%llu,share=on -device pc-dimm,memdev=m%u,"
                               "addr=0x%llx", i, DIMM_SIZE, i, DIMM(i));
    }
    return (VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY, .size = 10000, .data_size = true,
                 .logging = true },
        .args = g_string_free(args, FALSE),
    };
}

static void free_test(VMTest *t)
{
    g_autofree const char *args = t->o.args;

    vmt_free(t);
}

/* More islands of memory than START has room for: then with what is between. */
static void test_ranges(void)
{
    static const unsigned at[] = { 0, 100, NR_DIMMS - 1 };
    VMTOptions o = dimm_options();
    VMTest *t = vmt_start_held(&o);
    TsMigStats stats;

    ts_mig_stats(t->src->s, &stats);
    g_assert_cmpuint(stats.nr_ranges, ==, 2);
    g_assert_cmphex(stats.ranges[0].iova, ==, 0);
    g_assert_cmphex(stats.ranges[0].length, ==, VMT_RAM_SIZE);
    g_assert_cmphex(stats.ranges[1].iova, ==, DIMM(0));
    g_assert_cmphex(stats.ranges[1].length, ==,
                    DIMM(NR_DIMMS - 1) + DIMM_SIZE - DIMM(0));
    vmt_device_writes(t, 47 * VMT_MIB, 10000, TS_DMA_MAPPED);
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        vmt_device_writes(t, DIMM(at[i]) + 5000, 10000, TS_DMA_MAPPED);
    }
    vmt_finish(t);
    vmt_assert_at_dst(t, 47 * VMT_MIB, 10000);
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        vmt_assert_at_dst(t, DIMM(at[i]) + 5000, 10000);
    }
    free_test(t);
}

/* The last write --------------------------------------------------------------- */

/* A page of each window, when the device is told to stop */
static int write_all_at_stop(TestServer *s, TsMessage *request,
                             TsMessage *reply, void *opaque)
{
    uint32_t words[3] = { };
    uint8_t data[100];

    memcpy(words, request->payload->data,
           MIN(request->payload->len, sizeof(words)));
    for (unsigned i = 0; i < NR_DIMMS &&
         words[1] == (VFIO_USER_FEATURE_SET |
                      VFIO_USER_FEATURE_MIG_DEVICE_STATE) &&
         words[2] == VFIO_USER_MIG_STOP; i++) {
        vmt_fill(data, sizeof(data), DIMM(i) + 8192);
        ts_dma_write(s, DIMM(i) + 8192, data, sizeof(data), TS_DMA_MAPPED);
    }
    return -1;
}

static void setup_write_all(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_FEATURE, write_all_at_stop, NULL);
}

static void assert_all_at_dst(VMTest *t)
{
    unsigned nr_lost = 0;

    for (unsigned i = 0; i < NR_DIMMS; i++) {
        uint8_t data[100], there[100];

        vmt_fill(data, sizeof(data), DIMM(i) + 8192);
        qtest_memread(t->dst->qts, DIMM(i) + 8192, there, sizeof(there));
        nr_lost += memcmp(data, there, sizeof(data)) != 0;
    }
    g_assert_cmpuint(nr_lost, ==, 0);
}

/*
 * As many reports as are asked for at once are left over when the VM stops: each
 * tells of a time before the last write.
 */
static void test_last_write(void)
{
    VMTOptions o = dimm_options();
    VMTest *t;

    o.src_setup = setup_write_all;
    t = vmt_start_held(&o);
    ts_add_move(t->src->s, &slow);
    vut_wait_stderr(t->src, "reports left for the next round 64");
    vmt_finish(t);
    assert_all_at_dst(t);
    free_test(t);
}

/* No report comes in time once the VM has stopped: then all of it is dirty. */
static void test_last_report_hangs(void)
{
    static const TsMigFail hang = {
        .kind = TS_FAIL_HANG, .point = TS_AT_LOG_REPORT,
    };
    VMTOptions o = dimm_options();
    VMTest *t;

    o.device = ",x-msg-timeout-ms=1000";
    o.src_setup = setup_write_all;
    t = vmt_start_held(&o);
    ts_mig_fail(t->src->s, &hang);
    g_assert(ts_mig_wait_failed(t->src->s, MAX_REPORTS));
    vmt_finish(t);
    assert_all_at_dst(t);
    free_test(t);
}

/* In turn ---------------------------------------------------------------------- */

static bool was_asked(TestServer *s, uint64_t addr)
{
    TsRecord r;

    for (unsigned i = 0; ts_log_get(s, VMT_LOG(REPORT), i, &r); i++) {
        if (!memcmp(r.data, &addr, sizeof(addr))) {
            return true;
        }
    }
    return false;
}

/* A round has no time for all windows, so that the next one asks others. */
static void test_in_turn(void)
{
    VMTOptions o = dimm_options();
    VMTest *t = vmt_new(&o);

    ts_add_move(t->src->s, &slow);
    vmt_hold(t);
    vmt_start(t);
    VUT_WAIT(ts_log_count(t->src->s, VMT_LOG(REPORT)) >= 2 * MAX_REPORTS);
    VUT_WAIT(was_asked(t->src->s, DIMM(NR_DIMMS - 1)));
    vmt_finish(t);
    free_test(t);
}

void vut_register_migrate_windows(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/windows/" name, func)
    T("ranges", test_ranges);
    T("last-write", test_last_write);
    T("last-report-hangs", test_last_report_hangs);
    T("in-turn", test_in_turn);
#undef T
}
