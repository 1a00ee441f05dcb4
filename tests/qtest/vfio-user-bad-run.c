/*
 * vfio-user qtest: bad servers of a device in use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device that works, then tests/server/mischief-run.c: either the access has
 * no effect and the next one has, or the device is lost, with one report.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-bad.h"

#define VALUE           0x7a5a7a5a
#define REG             0x30
#define VENDOR_CAP      0x64

typedef struct Act {
    int (*fn)(TestServer *s);
    int err;
} Act;

static void run_act(TestServer *s, void *opaque)
{
    Act *act = opaque;

    act->err = act->fn(s);
}

static void enable_msix(BadTest *b)
{
    qpci_msix_enable(b->dev);
    qpci_io_writel(b->dev, b->dev->msix_table_bar,
                   b->dev->msix_table_off + 12, 0);
}

/* A byte of config space that the server answers for. */
static uint8_t read_config(BadTest *b)
{
    return qpci_config_readb(b->dev, VENDOR_CAP + 4);
}

/*
 * Makes the client send the command whose reply goes wrong. Returns what a read
 * gave, all-ones if it is to be denied.
 */
static uint32_t provoke(BadTest *b, const TsMove *move)
{
    switch (move->command) {
    case VFIO_USER_REGION_WRITE:
        qpci_io_writel(b->dev, b->bar, REG, VALUE);
        return UINT32_MAX;
    case VFIO_USER_DEVICE_RESET:
        qtest_system_reset(b->t->qts);
        bad_map(b);
        return UINT32_MAX;
    case VFIO_USER_DEVICE_SET_IRQS:
        enable_msix(b);
        return UINT32_MAX;
    case VFIO_USER_DMA_MAP:
    case VFIO_USER_DMA_UNMAP:
        bad_switch_memory(b);
        return UINT32_MAX;
    default:
        return move->index == VFIO_USER_REGION_CONFIG ?
               read_config(b) | 0xffffff00 :
               qpci_io_readl(b->dev, b->bar, REG);
    }
}

static void check_denied(BadTest *b, const TsMischief *m, uint32_t got)
{
    g_assert_cmphex(got, ==, UINT32_MAX);
    bad_wait_log(b, m->says);
    /* One that is late is not waited for twice, but soon answers. */
    VUT_WAIT(read_config(b) == 2);
}

static void check_outcome(BadTest *b, const TsMischief *m, uint32_t got)
{
    g_autofree char *log = NULL;

    if (m->expect == TS_EXPECT_REFUSED) {
        bad_check_lost(b, m->says);
        return;
    }
    if (m->expect == TS_EXPECT_DENIED) {
        check_denied(b, m, got);
    } else if (m->says) {
        bad_wait_log(b, m->says);
    }
    bad_check_works(b, VALUE + 1);
    log = bad_log(b);
    g_test_message("%s", log);
    g_assert_cmpuint(vut_occurrences(log, "device lost"), ==, 0);
}

static uint32_t misbehave(BadTest *b, const TsMischief *m)
{
    TsMove move = m->moves[0];
    Act act = { .fn = m->act };
    uint32_t got;

    if (m->act) {
        g_assert(ts_run(b->s, run_act, &act));
        if (m->expect != TS_EXPECT_REFUSED) {
            g_assert_cmpint(act.err, ==, m->act_error);
        }
        return qpci_io_readl(b->dev, b->bar, REG);
    }
    move.times = 1;
    ts_add_move(b->s, &move);
    got = provoke(b, &move);
    /* Not every reply is waited for. */
    VUT_WAIT(ts_nr_moves_made(b->s) == 1);
    if (m->expect == TS_EXPECT_HARMLESS &&
        move.command == VFIO_USER_REGION_READ) {
        g_assert_cmphex(got, ==, VALUE);
    }
    return got;
}

/* Whether a reply does not come, or late, for which an access waits. */
static bool is_waited_for(const TsMischief *m)
{
    const TsMove *move = &m->moves[0];

    return m->nr_moves &&
           (move->kind == TS_MOVE_DROP || move->kind == TS_MOVE_DELAY) &&
           move->command != VFIO_USER_DMA_MAP &&
           move->command != VFIO_USER_DMA_UNMAP;
}

static void test_run(const void *data)
{
    const TsMischief *m = data;
    g_autofree char *error = NULL;
    BadTest b;

    bad_begin(&b);
    error = bad_add(&b, is_waited_for(m) ? BAD_IMPATIENT_MS : BAD_PATIENT_MS);
    g_assert_cmpstr(error, ==, NULL);
    bad_map(&b);
    bad_check_works(&b, VALUE);
    g_assert_cmphex(qpci_find_capability(b.dev, PCI_CAP_ID_VNDR, 0), ==,
                    VENDOR_CAP);
    check_outcome(&b, m, misbehave(&b, m));
    bad_del(&b);
    bad_end(&b);
}

void bad_register_run(void)
{
    for (unsigned i = 0; i < ts_nr_run_mischiefs; i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/bad/run/%s",
                                                ts_run_mischiefs[i].name);

        bad_add_test(path, &ts_run_mischiefs[i], test_run);
    }
}
