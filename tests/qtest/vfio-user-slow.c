/*
 * vfio-user qtest: a server that takes its time with each answer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What one answer may take is x-msg-timeout-ms. Where QEMU needs many of them and
 * holds the BQL meanwhile, that is what all of them may take together, but for a VM
 * that has never run.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-monitor.h"

#define PIECE           128
/* Each answer is quick enough, and there are several times ten of them. */
#define EACH_MS         60
#define ALL_MS          1000

static const TsMove each_late = {
    .kind = TS_MOVE_DELAY, .command = -1, .index = -1, .a = EACH_MS,
};

static void setup_slow(TestServer *s)
{
    ts_limits(s)->max_data_xfer_size = PIECE;
    ts_add_move(s, &each_late);
}

/* All of them together are too slow for a VM that runs, and it is told so. */
static void test_hotplug(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_slow,
    });
    g_autofree char *error = vut_add(t, VUT_ID, t->path, ALL_MS), *again = NULL;

    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error, "x-msg-timeout-ms=1000"));
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    g_assert(ts_wait_connected(t->s, false));

    /* The error says what to do. */
    again = vut_add(t, VUT_ID, t->path, 600 * 1000);
    g_assert_cmpstr(again, ==, NULL);
    vut_free(t);
}

/* Before it has run nobody notices: there is no sum. */
static void check_never_run(VUTest *t)
{
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_DEVICE_ID), ==,
                    TS_STANDARD_DEVICE);
    g_assert_cmpint(vum_count_now(t, "region-read", "timeouts"), ==, 0);
    vut_free(t);
}

static void test_command_line(void)
{
    check_never_run(vut_new(&(VUTOptions) {
        .setup = setup_slow, .device = ",x-msg-timeout-ms=1000",
    }));
}

static void test_plug_before_run(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_slow, .args = "-S",
    });

    qtest_qmp_device_add(t->qts, "vfio-user-pci", VUT_ID, "{'addr': '4', "
                         "'socket': %s, 'x-msg-timeout-ms': 1000}", t->path);
    vut_find(t, VUT_SLOT);
    check_never_run(t);
}

static void count_if_more_comes(TestServer *s, TsMessage *reply, void *opaque)
{
    unsigned *ahead = opaque;

    *ahead += ts_message_pending(s, TS_DEADLINE_MS);
}

/* It has the next question before it has answered this one. */
static void test_pieces_ahead(void)
{
    unsigned ahead = 0;
    TsMove look = {
        .kind = TS_MOVE_CALL, .command = VFIO_USER_REGION_READ,
        .index = VFIO_USER_REGION_CONFIG, .times = 1,
        .call = count_if_more_comes, .opaque = &ahead,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_slow,
    });
    g_autofree char *error = NULL;

    ts_clear_moves(t->s);
    ts_add_move(t->s, &look);
    error = vut_add(t, VUT_ID, t->path, 600 * 1000);
    g_assert_cmpstr(error, ==, NULL);
    g_assert_cmpuint(ahead, ==, 1);
    vut_free(t);
}

/*
 * The guest, or the user, resets the device: what it is asked of the command register
 * and power management, and to reset itself, has the time of one answer. Before each
 * of the two registers comes something that nobody waits for, so each is late by
 * two answers, which is not too late by itself.
 */
static void test_reset(void)
{
    static const TsMove late = {
        .kind = TS_MOVE_DELAY, .command = -1, .index = -1, .a = ALL_MS * 3 / 10,
    };
    VUTest *t = vut_new(&(VUTOptions) { .device = ",x-msg-timeout-ms=1000" });
    unsigned resets = ts_nr_resets(t->s);

    ts_add_move(t->s, &late);
    qtest_system_reset(t->qts);
    g_assert_cmpint(vum_count_now(t, "region-read", "timeouts") +
                    vum_count_now(t, "device-reset", "timeouts"), >, 0);
    ts_clear_moves(t->s);
    /* It gets to know of it all the same. */
    VUT_WAIT(ts_nr_resets(t->s) == resets + 1);
    vut_free(t);
}

void vut_register_slow(void)
{
    vut_add_test("vfio-user/slow/hotplug", test_hotplug);
    vut_add_test("vfio-user/slow/command-line", test_command_line);
    vut_add_test("vfio-user/slow/plug-before-run", test_plug_before_run);
    vut_add_test("vfio-user/slow/pieces-ahead", test_pieces_ahead);
    vut_add_test("vfio-user/slow/reset", test_reset);
}
