/*
 * vfio-user qtest: interrupts and servers that take commands only while they run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * libvfio-user refuses DEVICE_SET_IRQS in STOP, and the like, with EINVAL. What it
 * refused is told again when the device runs, and costs nothing but that.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-migrate.h"

#define WORD(v)         (0x50000 + (v) * 16)
#define VALUE(v)        (0xd000 + (v))
#define SET_MSIX        ((TsMatch) { VFIO_USER_DEVICE_SET_IRQS, \
                                     VFIO_USER_IRQ_MSIX, -1 })

static int refuse_unless_running(TestServer *s, TsMessage *request,
                                 TsMessage *reply, void *opaque)
{
    switch (ts_mig_state(s)) {
    case VFIO_USER_MIG_RUNNING:
    case VFIO_USER_MIG_RUNNING_P2P:
    case VFIO_USER_MIG_PRE_COPY:
    case VFIO_USER_MIG_PRE_COPY_P2P:
        return -1;
    default:
        return EINVAL;
    }
}

static void setup_refuse(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_SET_IRQS, refuse_unless_running, NULL);
}

static const VMTOptions options = {
    .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
             .size = 100000, .precopy = 50000, .logging = true },
    .setup = setup_refuse,
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
    }
}

static void raise_vector(VUTest *side, unsigned v)
{
    g_assert(ts_irq_wait_fd(side->s, VFIO_USER_IRQ_MSIX, v, true));
    g_assert_cmpint(ts_irq_trigger(side->s, VFIO_USER_IRQ_MSIX, v), ==, 0);
    VUT_WAIT(qtest_readl(side->qts, WORD(v)) == VALUE(v));
    qtest_writel(side->qts, WORD(v), 0);
}

/* A vector comes and another one goes while the VM is stopped. */
static void test_stopped(void)
{
    VMTest *t = vmt_new_src(&options);

    enable_msix(t->src, 0x0003);
    raise_vector(t->src, 0);
    raise_vector(t->src, 1);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    vut_flush(t->src);
    ts_log_clear(t->src->s);
    for (unsigned i = 0; i < 100; i++) {
        mask_vector(t->src, 5, i & 1);
        mask_vector(t->src, 0, i & 1);
    }
    mask_vector(t->src, 5, false);
    mask_vector(t->src, 0, false);
    g_assert(ts_log_wait(t->src->s, SET_MSIX, 1));
    vut_flush(t->src);
    g_assert(!ts_irq_has_fd(t->src->s, VFIO_USER_IRQ_MSIX, 5));
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    raise_vector(t->src, 5);
    raise_vector(t->src, 0);
    raise_vector(t->src, 1);
    vmt_free(t);
}

/* MSI-X is switched off, and INTx comes in its place. */
static void test_stopped_disable(void)
{
    VMTest *t = vmt_new_src(&options);

    enable_msix(t->src, 0x0003);
    raise_vector(t->src, 1);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    qpci_msix_disable(t->src->dev);
    vut_flush(t->src);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert(ts_irq_wait_nr_fds(t->src->s, VFIO_USER_IRQ_MSIX, 0));
    g_assert(ts_irq_wait_fd(t->src->s, VFIO_USER_IRQ_INTX, 0, true));
    vmt_free(t);
}

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

/* A state that is loaded brings its interrupts when the server is in STOP. */
static void test_loaded(void)
{
    VMTest *t = vmt_new(&options);

    enable_msix(t->src, 0x8005);
    raise_vector(t->src, 15);
    vmt_migrate(t);
    find_dst(t);
    g_assert(ts_irq_wait_nr_fds(t->dst->s, VFIO_USER_IRQ_MSIX, 3));
    /* Each is fired once after the load. */
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        if (0x8005 >> v & 1) {
            VUT_WAIT(qtest_readl(t->dst->qts, WORD(v)) == VALUE(v));
            qtest_writel(t->dst->qts, WORD(v), 0);
            raise_vector(t->dst, v);
        }
    }
    vmt_free(t);
}

void vut_register_migrate_irq(void)
{
#define T(name, func) vut_add_test("vfio-user/migrate/irq/" name, func)
    T("stopped", test_stopped);
    T("stopped-disable", test_stopped_disable);
    T("loaded", test_loaded);
#undef T
}
