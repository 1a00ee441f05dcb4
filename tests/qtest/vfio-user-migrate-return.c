/*
 * vfio-user qtest: a server that goes and comes back during a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vfio-user-migrate.h"

/* What a QEMU whose guest does nothing makes dirty by itself, and some more */
#define FEW_PAGES   4000
#define REPORTS     VMT_LOG(REPORT)

static const VMTOptions plain = {
    .mig = { .flags = VMT_STOP_COPY, .size = 10000, .data_size = true,
             .logging = true },
    .device = ",reconnect-ms=5",
};

static int64_t nr_passes(VMTest *t)
{
    return vmt_number(t->src, "ram", "dirty-sync-count");
}

static void wait_passes(VMTest *t, unsigned nr)
{
    int64_t before = nr_passes(t);

    VUT_WAIT(nr_passes(t) >= before + nr);
}

/*
 * A server that came back has to be told to log, or all of memory is sent in
 * each pass. What the old one wrote last is in nobody's log.
 */
static void check_logs_again(void (*come_back)(VMTest *t))
{
    VMTest *t = vmt_start_held(&plain);
    unsigned before;
    int64_t sent;

    vmt_device_writes(t, 50 * VMT_MIB, 10000, TS_DMA_MAPPED);
    before = ts_log_count(t->src->s, VMT_LOG(START));
    vmt_lose(t);
    come_back(t);
    vmt_wait_returned(t);
    VUT_WAIT(ts_log_count(t->src->s, VMT_LOG(START)) > 0);
    if (come_back == vmt_return_kept) {
        g_assert(ts_log_wait(t->src->s, VMT_LOG(START), before + 1));
    }
    before = ts_log_count(t->src->s, REPORTS);
    g_assert(ts_log_wait(t->src->s, REPORTS, before + 1));
    wait_passes(t, 3);
    sent = vmt_pages_sent(t);
    vmt_device_writes(t, 51 * VMT_MIB, 10000, TS_DMA_MAPPED);
    wait_passes(t, 3);
    g_assert_cmpint(vmt_pages_sent(t) - sent, <, FEW_PAGES);
    vmt_finish(t);
    vmt_assert_at_dst(t, 50 * VMT_MIB, 10000);
    vmt_assert_at_dst(t, 51 * VMT_MIB, 10000);
    vmt_free(t);
}

static void test_logs_again_kept(void)
{
    check_logs_again(vmt_return_kept);
}

static void test_logs_again_fresh(void)
{
    check_logs_again(vmt_return_fresh);
}

/* States ----------------------------------------------------------------------- */

/* A migration that stops before the devices' state is saved, with the VM stopped */
static VMTest *start_paused(const VMTOptions *o)
{
    VMTest *t = vmt_new(o);

    qtest_qmp_assert_success(t->src->qts,
        "{'execute': 'migrate-set-capabilities', 'arguments': {'capabilities': "
        "[{'capability': 'pause-before-switchover', 'state': true}]}}");
    return t;
}

static void go_on(VMTest *t)
{
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'migrate-continue', "
                             "'arguments': {'state': 'pre-switchover'}}");
}

/* A server begins in RUNNING, and the VM is about to run elsewhere. */
static void check_stopped(void (*come_back)(VMTest *t))
{
    VMTest *t = start_paused(&plain);

    vmt_start(t);
    vmt_wait_status(t->src, "pre-switchover");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    vmt_lose(t);
    come_back(t);
    vmt_wait_returned(t);
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    go_on(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
    g_assert(ts_mig_wait_state(t->dst->s, VFIO_USER_MIG_RUNNING));
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    vmt_free(t);
}

static void test_stopped_kept(void)
{
    check_stopped(vmt_return_kept);
}

static void test_stopped_fresh(void)
{
    check_stopped(vmt_return_fresh);
}

/* The VM was stopped when the server went, and runs when it is back. */
static void test_running(void)
{
    VMTest *t = vmt_new_src(&plain);

    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    vmt_lose(t);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    vmt_return_kept(t);
    vmt_wait_returned(t);
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_RUNNING));
    vmt_free(t);
}

/* A stream that was begun with the old one is over, and so is the migration. */
static void check_pre_copy(void (*come_back)(VMTest *t))
{
    VMTOptions o = plain;
    VMTest *t;

    o.mig.flags |= VMT_PRE_COPY;
    o.mig.per_read = 5000;
    t = vmt_start_held(&o);
    vmt_lose(t);
    come_back(t);
    vmt_wait_returned(t);
    vmt_expect_source_goes_on(t, "failed");
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    vmt_replace_dst(t);
    vmt_release(t);
    vmt_migrate(t);
    vmt_free(t);
}

static void test_pre_copy_kept(void)
{
    check_pre_copy(vmt_return_kept);
}

static void test_pre_copy_fresh(void)
{
    check_pre_copy(vmt_return_fresh);
}

/* on-disconnect=stop ------------------------------------------------------------- */

static VMTest *start_held_vm(void)
{
    VMTOptions o = plain;
    VMTest *t;

    o.device = ",reconnect-ms=5,on-disconnect=stop";
    t = start_paused(&o);
    vmt_lose(t);
    VUT_WAIT(!vmt_is_running(t->src));
    vmt_start(t);
    vmt_release(t);
    vmt_wait_status(t->src, "pre-switchover");
    return t;
}

/*
 * The VM is stopped since its server is away, and so it would arrive. When the
 * server is back in time there is no reason for that any more.
 */
static void test_held_vm(void)
{
    VMTest *t = start_held_vm();

    vmt_return_fresh(t);
    vmt_wait_returned(t);
    go_on(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
    vmt_free(t);
}

/* The migration is given up: the VM runs here. */
static void test_held_vm_cancelled(void)
{
    VMTest *t = start_held_vm();

    vmt_return_fresh(t);
    vmt_wait_returned(t);
    g_assert(!vmt_is_running(t->src));
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'migrate_cancel'}");
    vmt_expect_source_goes_on(t, "cancelled");
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    vmt_free(t);
}


void vut_register_migrate_return(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/return/" name, func)
    T("logs-again/kept", test_logs_again_kept);
    T("logs-again/fresh", test_logs_again_fresh);
    T("stopped/kept", test_stopped_kept);
    T("stopped/fresh", test_stopped_fresh);
    T("running", test_running);
    T("pre-copy/kept", test_pre_copy_kept);
    T("pre-copy/fresh", test_pre_copy_fresh);
    T("held-vm/runs", test_held_vm);
    T("held-vm/cancelled", test_held_vm_cancelled);
#undef T
}
