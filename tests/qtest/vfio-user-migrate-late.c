/*
 * vfio-user qtest: servers of a migration that fail late
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * After what vfio-user-migrate-fail.c goes through: many messages were sent on
 * credit, or everything is over but for the last writes to config space.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-migrate.h"

/* All that is sent without an answer, and as much again */
#define LONG_STATE      (4 * VMT_MIB)

static const VMTOptions plain = {
    .mig = { .flags = VMT_STOP_COPY, .size = 100000, .logging = true },
};

/* Writes go out ahead of their answers, but not without an end. */
static void test_no_answer_to_many(void)
{
    static const TsMigFail hang = {
        .kind = TS_FAIL_HANG, .point = TS_AT_WRITE, .byte = 0, .times = 1,
    };
    VMTOptions o = plain;
    VMTest *t;

    o.mig.size = LONG_STATE;
    o.device = ",x-msg-timeout-ms=1000";
    t = vmt_new(&o);
    ts_mig_fail(t->dst->s, &hang);
    vmt_start(t);
    vmt_expect_failed_load(t, "the device state was not taken after 0 bytes: "
                           "the server did not answer in time");
    vmt_free(t);
}

/*
 * The device state came, and the server goes before it is told its BARs. The
 * source may have sent everything by then; a return path is not the default.
 */
static void test_lost_at_config(void)
{
    static const TsMove close = {
        .kind = TS_MOVE_CLOSE, .command = VFIO_USER_REGION_WRITE,
        .index = VFIO_USER_REGION_CONFIG, .times = 1,
    };
    VMTest *t = vmt_new(&plain);

    ts_add_move(t->dst->s, &close);
    vmt_start(t);
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    vut_wait_stderr(t->dst, "device lost");
    g_assert_cmpuint(ts_nr_moves_made(t->dst->s), ==, 1);
    vmt_free(t);
}

/* MSI with a mask for each vector, which is the client's to tell, too */
static void setup_maskable(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0);
    ts_add_msi(s, TS_STANDARD_MSI, true);
}

static void test_msi_masks(void)
{
    const uint32_t mask = 0x6;
    VMTOptions o = plain;
    uint32_t value;
    TsRecord r;
    TsMatch write;
    uint8_t msi;
    VMTest *t;

    o.bare = true;
    o.setup = setup_maskable;
    t = vmt_new(&o);
    msi = qpci_find_capability(t->src->dev, PCI_CAP_ID_MSI, 0);
    g_assert_cmphex(qpci_config_readw(t->src->dev, msi + PCI_MSI_FLAGS) &
                    (PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT), ==,
                    PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
    qpci_config_writel(t->src->dev, msi + PCI_MSI_MASK_64, mask);
    vmt_migrate(t);

    write = (TsMatch) { VFIO_USER_REGION_WRITE, VFIO_USER_REGION_CONFIG,
                        msi + PCI_MSI_MASK_64 };
    g_assert_cmpuint(ts_log_count(t->dst->s, write), >, 0);
    g_assert(ts_log_get(t->dst->s, write,
                        ts_log_count(t->dst->s, write) - 1, &r));
    g_assert_cmpuint(r.len, ==, sizeof(value));
    memcpy(&value, r.data, sizeof(value));
    g_assert_cmphex(value, ==, mask);
    vut_find(t->dst, VUT_SLOT);
    g_assert_cmphex(qpci_config_readl(t->dst->dev, msi + PCI_MSI_MASK_64), ==,
                    mask);
    vmt_free(t);
}

/* The VM was stopped, which the server never answered, and now it is unplugged. */
static void test_unplug_unanswered(void)
{
    static const TsMigFail stall = {
        .kind = TS_FAIL_STALL, .point = TS_AT_ARC,
        .from = VFIO_USER_MIG_RUNNING, .to = VFIO_USER_MIG_STOP, .times = 1,
    };
    VMTest *t = vmt_new_src(&plain);
    unsigned fds = vut_nr_fds(qtest_pid(t->src->qts));

    ts_mig_fail(t->src->s, &stall);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    g_assert(ts_mig_wait_failed(t->src->s, 1));
    vut_del(t->src, VUT_ID, VUT_SLOT);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert_cmpuint(vut_nr_fds(qtest_pid(t->src->qts)), <, fds);
    ts_unstall(t->src->s);
    vmt_free(t);
}

void vut_register_migrate_late(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/late/" name, func)
    T("no-answer-to-many", test_no_answer_to_many);
    T("lost-at-config", test_lost_at_config);
    T("msi-masks", test_msi_masks);
    T("unplug-unanswered", test_unplug_unanswered);
#undef T
}
