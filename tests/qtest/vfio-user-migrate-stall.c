/*
 * vfio-user qtest: a server that stands still while its state is read
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The migration thread waits for the stream then, without the BQL. Whoever
 * stops the VM has the BQL, and must not wait for that.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-migrate.h"

#define PRECOPY     (3 * VMT_MIB)
#define STALL_AT    5000

/* Longer than any wait of a test: who waits for the server fails the test. */
#define PATIENT     ",x-msg-timeout-ms=600000"

static const uint64_t all_flags[] = {
    VMT_STOP_COPY | VMT_PRE_COPY, VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
};

/* The migration thread waits for the stream, and gets nothing. */
static VMTest *start_stalled(uint64_t flags)
{
    static const TsMigFail stall = {
        .kind = TS_FAIL_STALL, .point = TS_AT_READ, .byte = STALL_AT,
        .times = 1,
    };
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = { .flags = flags, .size = 100000, .precopy = PRECOPY,
                 .data_size = true, .logging = true },
        .device = PATIENT,
        .args = "-trace vm_stop_flush_all",
    });

    ts_mig_fail(t->src->s, &stall);
    vmt_hold(t);
    vmt_start(t);
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    return t;
}

/* The VM stops without the server, and arrives with all of its state. */
static void test_stop(const void *data)
{
    VMTest *t = start_stalled(*(const uint64_t *)data);

    qtest_qmp_send(t->src->qts, "{'execute': 'stop'}");
    vut_wait_stderr(t->src, "vm_stop_flush_all");
    qobject_unref(qtest_qmp_receive(t->src->qts));
    g_assert(!vmt_is_running(t->src));
    ts_unstall(t->src->s);
    vmt_release(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_status(t->dst, "completed");
    g_assert(!vmt_is_running(t->dst));
    g_assert_cmpuint(ts_mig_state(t->dst->s), ==, VFIO_USER_MIG_STOP);
    vmt_free(t);
}

/* Nobody asks for the rest once the server says that it could not do it. */
static void test_stop_refused(const void *data)
{
    VMTest *t = start_stalled(*(const uint64_t *)data);

    ts_mig_fail(t->src->s, &(TsMigFail) {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_ARC, .to = VFIO_USER_MIG_STOP_COPY,
        .times = 1,
    });
    qtest_qmp_send(t->src->qts, "{'execute': 'stop'}");
    vut_wait_stderr(t->src, "vm_stop_flush_all");
    qobject_unref(qtest_qmp_receive(t->src->qts));
    ts_unstall(t->src->s);
    vmt_release(t);
    vmt_wait_status(t->src, "failed");
    vut_wait_stderr(t->src, "to STOP_COPY failed");
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_RUNNING));
    vmt_free(t);
}

/* QEMU ends as well. */
static void test_quit(const void *data)
{
    VMTest *t = start_stalled(*(const uint64_t *)data);

    qtest_qmp_assert_success(t->src->qts, "{'execute': 'quit'}");
    qtest_wait_qemu(t->src->qts);
    ts_unstall(t->src->s);
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    vmt_free(t);
}

/*
 * One message at a time, and the server does not answer that one: "stop" and "cont"
 * have nothing that they could send, and do not wait for that.
 */
static void one_at_a_time(TestServer *s)
{
    ts_limits(s)->twin_socket = false;
    ts_limits(s)->no_crossing = true;
}

static void test_lockstep(void)
{
    VMTest *t = vmt_new_src(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY }, .private_ram = true,
        .setup = one_at_a_time, .device = ",x-msg-timeout-ms=3000",
    });
    uint8_t cap = qpci_find_capability(t->src->dev, PCI_CAP_ID_VNDR, 0);

    ts_hold(t->src->s);
    qpci_config_writew(t->src->dev, cap + 6, 0xbead);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    vut_check_lock_waits(t->src);
    ts_release(t->src->s);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_RUNNING));
    vmt_free(t);
}

static void add(const char *name, void (*fn)(const void *data))
{
    static const char *const names[] = { "pre-copy", "p2p" };

    for (unsigned i = 0; i < ARRAY_SIZE(all_flags); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/migrate/stall/%s/%s",
                                                name, names[i]);

        vut_add_data_test(path, &all_flags[i], fn);
    }
}

void vut_register_migrate_stall(void)
{
    add("stop", test_stop);
    add("stop-refused", test_stop_refused);
    add("quit", test_quit);
    vut_add_test("vfio-user/migrate/stall/lockstep", test_lockstep);
}
