/*
 * vfio-user qtest: interrupts of a server that came back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * As in vfio-user-irq.c a message signalled interrupt is a word in guest RAM.
 * After a return each vector in use fires once, since nobody knows which
 * interrupts got lost; what the test waits for comes after that.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-reconnect.h"

#define MSI_ADDRESS     0x40000
#define MSIX_ADDRESS    0x50000
#define MSIX_WORD(v)    (MSIX_ADDRESS + (v) * 16)
#define MSIX_DATA(v)    (0xd000 + (v))
#define MASKED          5
/* On a q35 slot 4's pin is at this input of the I/O APIC. */
#define INTX_GSI        20

static void mask_vector(RTest *r, unsigned v, bool mask)
{
    qpci_io_writel(r->t->dev, r->t->dev->msix_table_bar,
                   r->t->dev->msix_table_off + v * 16 + 12, mask);
}

static void enable_msix(RTest *r, uint64_t unmasked)
{
    QPCIDevice *dev = r->t->dev;

    qpci_msix_enable(dev);
    r->bars[5] = dev->msix_table_bar;
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        uint64_t entry = dev->msix_table_off + v * 16;

        qpci_io_writel(dev, dev->msix_table_bar, entry, MSIX_WORD(v));
        qpci_io_writel(dev, dev->msix_table_bar, entry + 4, 0);
        qpci_io_writel(dev, dev->msix_table_bar, entry + 8, MSIX_DATA(v));
        mask_vector(r, v, !(unmasked >> v & 1));
        qtest_writel(r->t->qts, MSIX_WORD(v), 0);
    }
}

static bool take_word(RTest *r, uint64_t addr, uint32_t value)
{
    if (qtest_readl(r->t->qts, addr) != value) {
        return false;
    }
    qtest_writel(r->t->qts, addr, 0);
    return true;
}

static void raise_vector(RTest *r, unsigned index, unsigned v)
{
    int err;

    g_assert(ts_irq_wait_fd(r->t->s, index, v, true));
    err = ts_irq_trigger(r->t->s, index, v);
    g_assert(err == 0 || err == EAGAIN);
}

static void expect_vector(RTest *r, unsigned v)
{
    raise_vector(r, VFIO_USER_IRQ_MSIX, v);
    VUT_WAIT(take_word(r, MSIX_WORD(v), MSIX_DATA(v)));
}

/* The guest is told to look, once for each vector in use. */
static void expect_kicks(RTest *r, uint64_t vectors)
{
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        if (vectors >> v & 1) {
            VUT_WAIT(take_word(r, MSIX_WORD(v), MSIX_DATA(v)));
        }
    }
}

static void lose_and_return(RTest *r, bool kept, void (*setup)(TestServer *s))
{
    rt_lose(r);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        g_assert_cmphex(qtest_readl(r->t->qts, MSIX_WORD(v)), ==, 0);
    }
    if (kept) {
        rt_return_kept(r);
    } else {
        rt_return_fresh(r, setup);
    }
    rt_expect_return(r, kept);
}

typedef struct IrqCase {
    const char *name;
    bool kept;
    void (*setup)(TestServer *s);
} IrqCase;

static void setup_keep_masks(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, TS_STANDARD_MSIX,
                VFIO_USER_IRQ_EVENTFD, TS_MASK_KEEP);
    ts_add_irqs(s, VFIO_USER_IRQ_MSI, TS_STANDARD_MSI, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_KEEP);
}

static void setup_refuse_masks(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, TS_STANDARD_MSIX,
                VFIO_USER_IRQ_EVENTFD, TS_MASK_REFUSE);
    ts_add_irqs(s, VFIO_USER_IRQ_MSI, TS_STANDARD_MSI, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_REFUSE);
}

static void setup_one_fd(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 1;
}

static const IrqCase cases[] = {
    { "kept", true }, { "fresh", false },
    { "keeps-masks", true, setup_keep_masks },
    { "keeps-masks-fresh", false, setup_keep_masks },
    { "refuses-masks", true, setup_refuse_masks },
    { "one-fd", false, setup_one_fd },
};

/* All vectors but one, which stays silent until the guest unmasks it. */
static void test_msix(const void *data)
{
    const IrqCase *c = data;
    RTest *r = rt_new(&(VUTOptions) { .setup = c->setup });
    uint64_t in_use = 0xffff & ~(1u << MASKED);

    enable_msix(r, 0xffff);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        expect_vector(r, v);
    }
    mask_vector(r, MASKED, true);
    for (unsigned round = 0; round < 3; round++) {
        lose_and_return(r, c->kept, c->setup);
        expect_kicks(r, in_use);
        for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
            if (v != MASKED) {
                expect_vector(r, v);
            }
        }
        g_assert_cmphex(qtest_readl(r->t->qts, MSIX_WORD(MASKED)), ==, 0);
    }
    mask_vector(r, MASKED, false);
    VUT_WAIT(ts_irq_has_fd(r->t->s, VFIO_USER_IRQ_MSIX, MASKED));
    qtest_writel(r->t->qts, MSIX_WORD(MASKED), 0);
    expect_vector(r, MASKED);
    rt_free(r);
}

/* What the guest does to vectors while nobody is told. */
static void test_msix_changes(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    enable_msix(r, 0x00f0);
    rt_lose(r);
    mask_vector(r, 4, true);
    mask_vector(r, 9, false);
    qtest_writel(r->t->qts, MSIX_WORD(9), 0);
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    expect_kicks(r, 0x02e0);
    expect_vector(r, 9);
    expect_vector(r, 5);
    g_assert_cmphex(qtest_readl(r->t->qts, MSIX_WORD(4)), ==, 0);
    /* Switched off and on again */
    rt_lose(r);
    qpci_msix_disable(r->t->dev);
    rt_return_kept(r);
    rt_expect(r, "RECONNECTED");
    g_assert(ts_irq_wait_nr_fds(r->t->s, VFIO_USER_IRQ_MSIX, 0));
    g_assert(ts_irq_wait_fd(r->t->s, VFIO_USER_IRQ_INTX, 0, true));
    rt_lose(r);
    enable_msix(r, 0x8001);
    rt_return_kept(r);
    rt_expect(r, "RECONNECTED");
    g_assert(ts_irq_wait_fd(r->t->s, VFIO_USER_IRQ_INTX, 0, false));
    expect_vector(r, 15);
    expect_vector(r, 0);
    rt_free(r);
}

/* An interrupt that the old server raised and QEMU has not taken yet stays. */
static void test_raised_before(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    enable_msix(r, 0xffff);
    expect_vector(r, 0);
    raise_vector(r, VFIO_USER_IRQ_MSIX, 3);
    ts_stop_listening(r->t->s);
    ts_disconnect(r->t->s);
    VUT_WAIT(take_word(r, MSIX_WORD(3), MSIX_DATA(3)));
    rt_expect(r, "DISCONNECTED");
    rt_return_kept(r);
    rt_expect_return(r, true);
    rt_free(r);
}

static void enable_msi(RTest *r, unsigned log2)
{
    QPCIDevice *dev = r->t->dev;
    uint8_t cap = qpci_find_capability(dev, PCI_CAP_ID_MSI, 0);
    uint16_t control = qpci_config_readw(dev, cap + PCI_MSI_FLAGS);

    qtest_writel(r->t->qts, MSI_ADDRESS, 0);
    qpci_config_writel(dev, cap + PCI_MSI_ADDRESS_LO, MSI_ADDRESS);
    qpci_config_writel(dev, cap + PCI_MSI_ADDRESS_HI, 0);
    qpci_config_writew(dev, cap + PCI_MSI_DATA_64, 0xa000);
    control &= ~PCI_MSI_FLAGS_QSIZE;
    qpci_config_writew(dev, cap + PCI_MSI_FLAGS,
                       control | log2 << 4 | PCI_MSI_FLAGS_ENABLE);
}

/* All have one address, so another one's kick may hide it: again, then. */
static bool raise_and_take(RTest *r, unsigned v)
{
    raise_vector(r, VFIO_USER_IRQ_MSI, v);
    return take_word(r, MSI_ADDRESS, 0xa000 + v);
}

static void expect_msi(RTest *r, unsigned v)
{
    VUT_WAIT(raise_and_take(r, v));
}

static void test_msi(const void *data)
{
    const IrqCase *c = data;
    RTest *r = rt_new(&(VUTOptions) { .setup = c->setup });

    enable_msi(r, 2);
    expect_msi(r, 1);
    for (unsigned round = 0; round < 3; round++) {
        rt_lose(r);
        qtest_writel(r->t->qts, MSI_ADDRESS, 0);
        if (c->kept) {
            rt_return_kept(r);
        } else {
            rt_return_fresh(r, c->setup);
        }
        rt_expect_return(r, c->kept);
        VUT_WAIT(qtest_readl(r->t->qts, MSI_ADDRESS));
        for (unsigned v = 0; v < 4; v++) {
            expect_msi(r, v);
        }
    }
    rt_free(r);
}

static bool intx_level(RTest *r)
{
    /* The level arrives with the answer to any request. */
    qtest_readb(r->t->qts, 0);
    return qtest_get_irq(r->t->qts, INTX_GSI);
}

static void expect_intx(RTest *r)
{
    VUT_WAIT(intx_level(r));
    /* The guest's access to the device is taken for the end of it. */
    qpci_io_readl(r->t->dev, r->bars[0], 0);
    VUT_WAIT(!intx_level(r));
}

static void test_intx(const void *data)
{
    const IrqCase *c = data;
    RTest *r = rt_new(&(VUTOptions) { .machine = "q35" });

    qtest_irq_intercept_in(r->t->qts, "ioapic");
    raise_vector(r, VFIO_USER_IRQ_INTX, 0);
    expect_intx(r);
    for (unsigned round = 0; round < 3; round++) {
        rt_lose(r);
        if (c->kept) {
            rt_return_kept(r);
        } else {
            rt_return_fresh(r, NULL);
        }
        rt_expect_return(r, c->kept);
        expect_intx(r);
        raise_vector(r, VFIO_USER_IRQ_INTX, 0);
        expect_intx(r);
    }
    rt_free(r);
}

/* The level was up when the server went: it must not stay so for ever. */
static void test_intx_raised(void)
{
    RTest *r = rt_new(&(VUTOptions) { .machine = "q35" });

    qtest_irq_intercept_in(r->t->qts, "ioapic");
    raise_vector(r, VFIO_USER_IRQ_INTX, 0);
    VUT_WAIT(intx_level(r));
    rt_lose(r);
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    qpci_io_readl(r->t->dev, r->bars[0], 0);
    VUT_WAIT(!intx_level(r));
    raise_vector(r, VFIO_USER_IRQ_INTX, 0);
    expect_intx(r);
    rt_free(r);
}

/* Has the guest the device's memory? */
static bool is_mapped(RTest *r)
{
    g_autofree char *tree = qtest_hmp(r->t->qts, "info mtree");

    return strstr(tree, "mmaps[0]");
}

/*
 * hw/vfio keeps the device's memory from the guest for the time of an INTx, and gives it
 * back by a timer. Neither that nor a server that comes back opens it for the other.
 */
static void test_intx_mapped(void)
{
    RTest *r = rt_new(&(VUTOptions) { .machine = "q35" });

    qtest_irq_intercept_in(r->t->qts, "ioapic");
    g_assert(is_mapped(r));
    rt_lose(r);
    VUT_WAIT(!is_mapped(r));
    rt_return_kept(r);
    rt_expect_return(r, true);
    expect_intx(r);
    raise_vector(r, VFIO_USER_IRQ_INTX, 0);
    VUT_WAIT(intx_level(r));
    g_assert(!is_mapped(r));
    rt_lose(r);
    rt_return_kept(r);
    rt_expect_return(r, true);
    g_assert(intx_level(r) && !is_mapped(r));
    rt_lose(r);
    expect_intx(r);
    /* The timer comes, and finds no server. */
    rt_let_events_out(r);
    rt_let_events_out(r);
    g_assert(!is_mapped(r));
    rt_return_kept(r);
    rt_expect_return(r, true);
    expect_intx(r);
    VUT_WAIT((rt_let_events_out(r), is_mapped(r)));
    rt_free(r);
}

static void test_err_req(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });
    g_autofree char *status = NULL;

    rt_lose(r);
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    raise_vector(r, VFIO_USER_IRQ_REQ, 0);
    VUT_WAIT(qtest_inl(r->t->qts, 0xae04) & 1u << VUT_SLOT);
    raise_vector(r, VFIO_USER_IRQ_ERR, 0);
    rt_wait_event(r, "STOP");
    status = rt_status(r);
    g_assert_cmpstr(status, ==, "internal-error");
    rt_free(r);
}

void rt_register_irq(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/irq/msix/%s", cases[i].name);

        vut_add_data_test(path, &cases[i], test_msix);
    }
    for (unsigned i = 0; i < 4; i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/irq/msi/%s", cases[i].name);

        vut_add_data_test(path, &cases[i], test_msi);
    }
    vut_add_data_test("vfio-user/reconnect/irq/intx/kept", &cases[0],
                      test_intx);
    vut_add_data_test("vfio-user/reconnect/irq/intx/fresh", &cases[1],
                      test_intx);
    vut_add_test("vfio-user/reconnect/irq/intx/mapped", test_intx_mapped);
    vut_add_test("vfio-user/reconnect/irq/intx/raised", test_intx_raised);
    vut_add_test("vfio-user/reconnect/irq/msix/changes", test_msix_changes);
    vut_add_test("vfio-user/reconnect/irq/msix/raised-before",
                 test_raised_before);
    vut_add_test("vfio-user/reconnect/irq/err-req", test_err_req);
}
