/*
 * vfio-user qtest: doorbells of a device that migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vfio-user-migrate.h"

#define BELL    0x40
#define SHADOW  0x48
#define WRITES  ((TsMatch) { VFIO_USER_REGION_WRITE, 0, -1 })

/* Of both servers, in the order in which they were set up */
static struct {
    TsIoFd *bell, *shadow;
    uint32_t *value;
} side[2];
static unsigned nr_sides;

static void setup_bells(TestServer *s)
{
    g_assert(nr_sides < ARRAY_SIZE(side));
    side[nr_sides].bell = ts_add_io_fd(s, 0, BELL, 4);
    side[nr_sides].shadow = ts_add_io_fd(s, 0, SHADOW, 4);
    side[nr_sides].value = ts_io_fd_shadow(s, side[nr_sides].shadow, 0);
    nr_sides++;
}

/* After the migration the same writes reach the destination's server. */
static void test_bells(void)
{
    VMTest *t;
    QPCIBar bar;

    nr_sides = 0;
    t = vmt_new(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY, .size = VMT_MIB, .logging = true },
        .device = ",enable-migration=on",
        .setup = setup_bells,
    });
    g_assert_cmpuint(nr_sides, ==, 2);
    bar = qpci_iomap(t->src->dev, 0, NULL);
    qpci_device_enable(t->src->dev);
    qpci_io_writel(t->src->dev, bar, BELL, 1);
    qpci_io_writel(t->src->dev, bar, SHADOW, 0x1234);
    g_assert_cmpuint(ts_io_fd_count(t->src->s, side[0].bell), ==, 1);
    g_assert_cmphex(*side[0].value, ==, 0x1234);
    vmt_migrate(t);

    qtest_writel(t->dst->qts, bar.addr + BELL, 1);
    qtest_writel(t->dst->qts, bar.addr + BELL, 1);
    qtest_writel(t->dst->qts, bar.addr + SHADOW, 0x5678);
    g_assert_cmpuint(ts_io_fd_count(t->dst->s, side[1].bell), ==, 2);
    g_assert_cmpuint(ts_io_fd_count(t->dst->s, side[1].shadow), ==, 1);
    g_assert_cmphex(*side[1].value, ==, 0x5678);
    g_assert_cmpuint(ts_log_count(t->dst->s, WRITES), ==, 0);
    g_assert_cmpuint(ts_io_fd_count(t->src->s, side[0].bell), ==, 1);
    g_assert_cmphex(*side[0].value, ==, 0x1234);
    vmt_free(t);
}

void vut_register_migrate_ioeventfd(void)
{
    vut_add_test("vfio-user/migrate/ioeventfd", test_bells);
}
