/*
 * vfio-user qtest: what a destination does before and when its device runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A message signalled interrupt is a write to memory, as in vfio-user-irq.c:
 * vector v writes VALUE(v) to WORD(v), which the test looks at.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-migrate.h"

#define WORD(v)         (0x50000 + (v) * 16)
#define VALUE(v)        (0xd000 + (v))
#define MSI_WORD        0x40000
#define MSI_VALUE       0xa000
#define INTERRUPT_LINE  11
#define CONFIG(off)     ((TsMatch) { VFIO_USER_REGION_WRITE, \
                                     VFIO_USER_REGION_CONFIG, off })
#define SET_MSIX        ((TsMatch) { VFIO_USER_DEVICE_SET_IRQS, \
                                     VFIO_USER_IRQ_MSIX, -1 })

static const VMTOptions both = {
    .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
             .size = 100000, .precopy = 50000, .logging = true },
};

static void mask_vector(VUTest *side, unsigned v, bool mask)
{
    qpci_io_writel(side->dev, side->dev->msix_table_bar,
                   side->dev->msix_table_off + v * 16 + 12, mask);
}

static void enable_msix(VUTest *side, unsigned unmasked)
{
    qpci_device_enable(side->dev);
    qpci_msix_enable(side->dev);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        uint64_t entry = side->dev->msix_table_off + v * 16;

        qpci_io_writel(side->dev, side->dev->msix_table_bar, entry, WORD(v));
        qpci_io_writel(side->dev, side->dev->msix_table_bar, entry + 4, 0);
        qpci_io_writel(side->dev, side->dev->msix_table_bar, entry + 8,
                       VALUE(v));
        mask_vector(side, v, !(unmasked >> v & 1));
        qtest_writel(side->qts, WORD(v), 0);
        if (unmasked >> v & 1) {
            g_assert(ts_irq_wait_fd(side->s, VFIO_USER_IRQ_MSIX, v, true));
        }
    }
}

/* The destination's device is what the source's was; libqos does not know. */
static void find_dst(VMTest *t)
{
    QPCIDevice *src = t->src->dev, *dst;

    vut_find(t->dst, VUT_SLOT);
    dst = t->dst->dev;
    dst->msix_enabled = src->msix_enabled;
    dst->msix_table_bar = src->msix_table_bar;
    dst->msix_pba_bar = src->msix_pba_bar;
    dst->msix_table_off = src->msix_table_off;
    dst->msix_pba_off = src->msix_pba_off;
}

static void expect_vector(VUTest *side, unsigned v)
{
    VUT_WAIT(qtest_readl(side->qts, WORD(v)) == VALUE(v));
    qtest_writel(side->qts, WORD(v), 0);
}

static void raise_vector(VUTest *side, unsigned v)
{
    int err = ts_irq_trigger(side->s, VFIO_USER_IRQ_MSIX, v);

    g_assert(err == 0 || err == EAGAIN);
    expect_vector(side, v);
}

/* Config space ------------------------------------------------------------- */

/* The last write to @off came between the seq of STOP and that of RUNNING. */
static void assert_written(VMTest *t, unsigned off, unsigned len)
{
    uint64_t stop = vmt_state_seq(t->dst->s, VFIO_USER_MIG_STOP, 0);
    uint64_t run = vmt_state_seq(t->dst->s, VFIO_USER_MIG_RUNNING_P2P, 0);
    unsigned nr = ts_log_count(t->dst->s, CONFIG(off));
    uint32_t expected = len == 4 ? qpci_config_readl(t->src->dev, off) :
                        len == 2 ? qpci_config_readw(t->src->dev, off) :
                        qpci_config_readb(t->src->dev, off);
    uint32_t value = 0;
    TsRecord r;

    if (!nr) {
        g_autofree char *log = ts_log_text(t->dst->s);

        g_error("no write of config space at 0x%x:\n%s", off, log);
    }
    g_assert(ts_log_get(t->dst->s, CONFIG(off), nr - 1, &r));
    g_assert_cmpuint(r.seq, >, stop);
    g_assert_cmpuint(r.seq, <, run);
    g_assert_cmpuint(r.len, ==, len);
    g_assert_cmpint(r.error, ==, 0);
    memcpy(&value, r.data, len);
    g_assert_cmphex(value, ==, expected);
}

static void test_config(void)
{
    VMTest *t = vmt_new(&both);
    static const unsigned bars[] = { 0, 1, 2, 4, 5 };
    uint8_t msix = qpci_find_capability(t->src->dev, PCI_CAP_ID_MSIX, 0);

    for (unsigned i = 0; i < ARRAY_SIZE(bars); i++) {
        if (bars[i] != 5) {
            qpci_iomap(t->src->dev, bars[i], NULL);
        }
    }
    enable_msix(t->src, 0x8005);
    qpci_config_writeb(t->src->dev, PCI_INTERRUPT_LINE, INTERRUPT_LINE);
    qpci_config_writeb(t->src->dev, PCI_CACHE_LINE_SIZE, 16);
    vmt_migrate(t);

    for (unsigned i = 0; i < ARRAY_SIZE(bars); i++) {
        g_assert_cmphex(qpci_config_readl(t->src->dev, PCI_BASE_ADDRESS_0 +
                                          4 * bars[i]) & ~0xfu, !=, 0);
        assert_written(t, PCI_BASE_ADDRESS_0 + 4 * bars[i], 4);
    }
    assert_written(t, PCI_COMMAND, 2);
    assert_written(t, PCI_INTERRUPT_LINE, 1);
    assert_written(t, PCI_CACHE_LINE_SIZE, 1);
    assert_written(t, msix + PCI_MSIX_FLAGS, 2);

    find_dst(t);
    for (unsigned off = 0; off < 0x100; off += 4) {
        g_assert_cmphex(qpci_config_readl(t->dst->dev, off), ==,
                        qpci_config_readl(t->src->dev, off));
    }
    vmt_free(t);
}

static void test_config_msi(void)
{
    VMTest *t = vmt_new(&both);
    uint8_t msi = qpci_find_capability(t->src->dev, PCI_CAP_ID_MSI, 0);
    uint16_t control = qpci_config_readw(t->src->dev, msi + PCI_MSI_FLAGS);

    qpci_device_enable(t->src->dev);
    qtest_writel(t->src->qts, MSI_WORD, 0);
    qpci_config_writel(t->src->dev, msi + PCI_MSI_ADDRESS_LO, MSI_WORD);
    qpci_config_writel(t->src->dev, msi + PCI_MSI_ADDRESS_HI, 0);
    qpci_config_writew(t->src->dev, msi + PCI_MSI_DATA_64, MSI_VALUE);
    qpci_config_writew(t->src->dev, msi + PCI_MSI_FLAGS,
                       control | PCI_MSI_FLAGS_ENABLE);
    g_assert(ts_irq_wait_fd(t->src->s, VFIO_USER_IRQ_MSI, 0, true));
    vmt_migrate(t);

    assert_written(t, msi + PCI_MSI_ADDRESS_LO, 4);
    assert_written(t, msi + PCI_MSI_ADDRESS_HI, 4);
    assert_written(t, msi + PCI_MSI_DATA_64, 2);
    assert_written(t, msi + PCI_MSI_FLAGS, 2);
    /* And the one interrupt that may have been lost */
    VUT_WAIT(qtest_readl(t->dst->qts, MSI_WORD) == MSI_VALUE);
    qtest_writel(t->dst->qts, MSI_WORD, 0);
    g_assert_cmpint(ts_irq_trigger(t->dst->s, VFIO_USER_IRQ_MSI, 0), ==, 0);
    VUT_WAIT(qtest_readl(t->dst->qts, MSI_WORD) == MSI_VALUE);
    vmt_free(t);
}

/* Registers behind BARs are reached where the guest put them. */
static void test_bars(void)
{
    /* By message, and two by a mapping */
    static const unsigned off[] = { 0x10, 0x1010, 0x1010 };
    VMTest *t = vmt_new(&both);
    QPCIBar bar[3];

    for (unsigned i = 0; i < ARRAY_SIZE(bar); i++) {
        bar[i] = qpci_iomap(t->src->dev, i, NULL);
    }
    qpci_device_enable(t->src->dev);
    vmt_migrate(t);
    for (unsigned i = 0; i < ARRAY_SIZE(bar); i++) {
        uint32_t *mem = ts_region_mem(t->dst->s, i);

        mem[off[i] / 4] = 0xba50 + i;
        g_assert_cmphex(qtest_readl(t->dst->qts, bar[i].addr + off[i]), ==,
                        0xba50 + i);
    }
    vmt_free(t);
}

/* Interrupts --------------------------------------------------------------- */

/* The eventfds are there before the device runs. */
static void test_eventfds(void)
{
    VMTest *t = vmt_new(&both);
    uint64_t run;
    unsigned fds = 0;
    TsRecord r;

    enable_msix(t->src, 0x8005);
    vmt_migrate(t);
    run = vmt_state_seq(t->dst->s, VFIO_USER_MIG_RUNNING_P2P, 0);
    for (unsigned i = 0; ts_log_get(t->dst->s, SET_MSIX, i, &r); i++) {
        g_assert_cmpint(r.error, ==, 0);
        g_assert_cmpuint(r.seq, <, run);
        fds += r.nr_fds;
    }
    g_assert_cmpuint(fds, >=, 3);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        g_assert_cmpint(ts_irq_has_fd(t->dst->s, VFIO_USER_IRQ_MSIX, v), ==,
                        0x8005 >> v & 1);
    }
    find_dst(t);
    expect_vector(t->dst, 0);
    expect_vector(t->dst, 2);
    expect_vector(t->dst, 15);
    for (unsigned i = 0; i < 3; i++) {
        raise_vector(t->dst, 0);
        raise_vector(t->dst, 2);
        raise_vector(t->dst, 15);
    }
    /* A vector that is new at the destination */
    mask_vector(t->dst, 7, false);
    g_assert(ts_irq_wait_fd(t->dst->s, VFIO_USER_IRQ_MSIX, 7, true));
    raise_vector(t->dst, 7);
    vmt_free(t);
}

/* Each vector in use is fired once, and no other. */
static void test_kick(void)
{
    VMTest *t = vmt_new(&both);

    enable_msix(t->src, 0x8005);
    vmt_migrate(t);
    find_dst(t);
    expect_vector(t->dst, 0);
    expect_vector(t->dst, 2);
    expect_vector(t->dst, 15);
    raise_vector(t->dst, 2);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        g_assert_cmphex(qtest_readl(t->dst->qts, WORD(v)), ==, 0);
        g_assert(!qpci_msix_pending(t->dst->dev, v));
    }
    /* The VM stops and goes on: that is no reason to fire again. */
    qtest_qmp_assert_success(t->dst->qts, "{'execute': 'stop'}");
    qtest_qmp_assert_success(t->dst->qts, "{'execute': 'cont'}");
    raise_vector(t->dst, 2);
    g_assert_cmphex(qtest_readl(t->dst->qts, WORD(0)), ==, 0);
    g_assert_cmphex(qtest_readl(t->dst->qts, WORD(15)), ==, 0);
    vmt_free(t);
}

/* A VM that was stopped is stopped on arrival; the kick waits as well. */
static void test_kick_paused(void)
{
    VMTest *t = vmt_new(&both);

    enable_msix(t->src, 1);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    vmt_start(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_status(t->dst, "completed");
    g_assert(!vmt_is_running(t->dst));
    g_assert_cmpuint(ts_mig_state(t->dst->s), ==, VFIO_USER_MIG_STOP);
    g_assert_cmphex(qtest_readl(t->dst->qts, WORD(0)), ==, 0);
    qtest_qmp_assert_success(t->dst->qts, "{'execute': 'cont'}");
    g_assert(ts_mig_wait_state(t->dst->s, VFIO_USER_MIG_RUNNING));
    expect_vector(t->dst, 0);
    vmt_free(t);
}

/* On a q35 slot 4's pin is an input of its own, see vfio-user-irq.c. */
#define INTX_GSI    20

static bool intx_level(VUTest *side)
{
    qtest_readb(side->qts, 0);
    return qtest_get_irq(side->qts, INTX_GSI);
}

static void test_kick_intx(void)
{
    VMTOptions o = both;
    VMTest *t;
    QPCIBar bar;

    o.machine = "q35";
    t = vmt_new(&o);
    bar = qpci_iomap(t->src->dev, 0, NULL);
    qpci_device_enable(t->src->dev);
    g_assert(ts_irq_wait_fd(t->src->s, VFIO_USER_IRQ_INTX, 0, true));
    qtest_irq_intercept_in(t->dst->qts, "ioapic");
    vmt_migrate(t);
    VUT_WAIT(intx_level(t->dst));
    /* The guest finds nothing to do. */
    find_dst(t);
    qpci_io_readl(t->dst->dev, bar, 0);
    VUT_WAIT(!intx_level(t->dst));
    g_assert_cmpint(ts_irq_trigger(t->dst->s, VFIO_USER_IRQ_INTX, 0), ==, 0);
    VUT_WAIT(intx_level(t->dst));
    vmt_free(t);
}

static void setup_refuse_masks(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, TS_STANDARD_MSIX,
                VFIO_USER_IRQ_EVENTFD, TS_MASK_REFUSE);
}

/* What pends at the source pends at the destination. */
static void test_pending(void)
{
    VMTOptions o = both;
    VMTest *t;

    o.setup = setup_refuse_masks;
    t = vmt_new(&o);
    enable_msix(t->src, 0xf);
    mask_vector(t->src, 3, true);
    vut_flush(t->src);
    g_assert_cmpint(ts_irq_trigger(t->src->s, VFIO_USER_IRQ_MSIX, 3), ==, 0);
    VUT_WAIT(qpci_msix_pending(t->src->dev, 3));
    vmt_migrate(t);
    find_dst(t);
    expect_vector(t->dst, 0);
    g_assert(qpci_msix_pending(t->dst->dev, 3));
    g_assert_cmphex(qtest_readl(t->dst->qts, WORD(3)), ==, 0);
    mask_vector(t->dst, 3, false);
    expect_vector(t->dst, 3);
    g_assert(!qpci_msix_pending(t->dst->dev, 3));
    vmt_free(t);
}

/*
 * The source's device raises vectors when its VM has stopped and most of the
 * state is on its way: one that the guest masked, and one that it did not.
 */
static int raise_late(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque)
{
    bool *raised = opaque;

    if (ts_mig_state(s) == VFIO_USER_MIG_STOP_COPY && !*raised) {
        *raised = true;
        ts_irq_trigger(s, VFIO_USER_IRQ_MSIX, 1);
        ts_irq_trigger(s, VFIO_USER_IRQ_MSIX, 3);
    }
    return -1;
}

static bool raised;

static void setup_raise_late(TestServer *s)
{
    setup_refuse_masks(s);
    ts_set_handler(s, VFIO_USER_MIG_DATA_READ, raise_late, &raised);
}

static void test_raised_in_switchover(void)
{
    VMTOptions o = both;
    VMTest *t;

    raised = false;
    o.setup = setup_raise_late;
    t = vmt_new(&o);
    enable_msix(t->src, 0xf);
    mask_vector(t->src, 3, true);
    vut_flush(t->src);
    vmt_migrate(t);
    g_assert(raised);
    find_dst(t);
    expect_vector(t->dst, 1);
    g_assert(qpci_msix_pending(t->dst->dev, 3));
    g_assert(!qpci_msix_pending(t->dst->dev, 4));
    mask_vector(t->dst, 3, false);
    expect_vector(t->dst, 3);
    vmt_free(t);
}

void vut_register_migrate_load(void)
{
    vut_add_test("vfio-user/migrate/load/config", test_config);
    vut_add_test("vfio-user/migrate/load/config-msi", test_config_msi);
    vut_add_test("vfio-user/migrate/load/bars", test_bars);
    vut_add_test("vfio-user/migrate/load/eventfds", test_eventfds);
    vut_add_test("vfio-user/migrate/load/kick", test_kick);
    vut_add_test("vfio-user/migrate/load/kick-paused", test_kick_paused);
    vut_add_test("vfio-user/migrate/load/kick-intx", test_kick_intx);
    vut_add_test("vfio-user/migrate/load/pending", test_pending);
    vut_add_test("vfio-user/migrate/load/raised-in-switchover",
                 test_raised_in_switchover);
}
