/*
 * vfio-user qtest: interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Without an interrupt controller that takes them, a message signalled
 * interrupt is a write to memory: each vector gets a word of guest RAM as its
 * address and is looked for there. The client does not wait for the replies
 * to SET_IRQS, so what the server should know is waited for.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "vfio-user-util.h"

#define SET_IRQS(index) ((TsMatch) { VFIO_USER_DEVICE_SET_IRQS, index, -1 })
#define MSI_ADDRESS     0x40000
#define MSIX_ADDRESS    0x50000
#define MSIX_WORD(v)    (MSIX_ADDRESS + (v) * 16)
#define MSIX_DATA(v)    (0xd000 + (v))

static void enable_msix(VUTest *t, uint64_t unmasked)
{
    qpci_device_enable(t->dev);
    qpci_msix_enable(t->dev);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        uint64_t entry = t->dev->msix_table_off + v * 16;

        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry, MSIX_WORD(v));
        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry + 4, 0);
        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry + 8,
                       MSIX_DATA(v));
        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry + 12,
                       !(unmasked >> v & 1));
        qtest_writel(t->qts, MSIX_WORD(v), 0);
    }
}

static void mask_vector(VUTest *t, unsigned v, bool mask)
{
    qpci_io_writel(t->dev, t->dev->msix_table_bar,
                   t->dev->msix_table_off + v * 16 + 12, mask);
}

/* A vector that is still masked at the server fires when that changes. */
static void raise_vector(VUTest *t, unsigned index, unsigned v)
{
    int err;

    g_assert(ts_irq_wait_fd(t->s, index, v, true));
    err = ts_irq_trigger(t->s, index, v);
    g_assert(err == 0 || err == EAGAIN);
}

static void expect_vector(VUTest *t, unsigned v)
{
    raise_vector(t, VFIO_USER_IRQ_MSIX, v);
    VUT_WAIT(qtest_readl(t->qts, MSIX_WORD(v)) == MSIX_DATA(v));
    qtest_writel(t->qts, MSIX_WORD(v), 0);
}

static void test_msix(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    g_assert_cmpuint(ts_irq_nr_fds(t->s, VFIO_USER_IRQ_MSIX), ==, 0);
    enable_msix(t, 0xffff);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
            expect_vector(t, v);
        }
    }
    qpci_msix_disable(t->dev);
    g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSIX, 0));
    enable_msix(t, 0x8001);
    expect_vector(t, 15);
    expect_vector(t, 0);
    vut_free(t);
}

/* Only the vector that was raised arrives. */
static void test_msix_no_other(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    enable_msix(t, 0xffff);
    expect_vector(t, 7);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        g_assert_cmphex(qtest_readl(t->qts, MSIX_WORD(v)), ==, 0);
    }
    vut_free(t);
}

/* A vector that the guest masked pends, and fires when it is unmasked. */
static void check_msix_mask(void (*setup)(TestServer *s))
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup });
    int err;

    enable_msix(t, 0xffff);
    expect_vector(t, 3);
    mask_vector(t, 3, true);
    vut_flush(t);
    err = ts_irq_trigger(t->s, VFIO_USER_IRQ_MSIX, 3);
    if (err == 0) {
        VUT_WAIT(qpci_msix_pending(t->dev, 3));
        g_assert_cmphex(qtest_readl(t->qts, MSIX_WORD(3)), ==, 0);
        mask_vector(t, 3, false);
        VUT_WAIT(qtest_readl(t->qts, MSIX_WORD(3)) == MSIX_DATA(3));
        g_assert(!qpci_msix_pending(t->dev, 3));
    } else {
        /* The server knows of the mask: it keeps the interrupt itself. */
        mask_vector(t, 3, false);
    }
    qtest_writel(t->qts, MSIX_WORD(3), 0);
    expect_vector(t, 3);
    vut_free(t);
}

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

static void test_msix_mask_accept(void)
{
    check_msix_mask(NULL);
}

static void test_msix_mask_keep(void)
{
    check_msix_mask(setup_keep_masks);
}

static void test_msix_mask_refuse(void)
{
    check_msix_mask(setup_refuse_masks);
}

/* A server that keeps the mask bits, as QEMU's, is told to clear them. */
static void test_msix_server_masks(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_keep_masks });

    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        g_assert(ts_irq_masked(t->s, VFIO_USER_IRQ_MSIX, v));
    }
    enable_msix(t, 0xffff);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        expect_vector(t, v);
        g_assert(!ts_irq_masked(t->s, VFIO_USER_IRQ_MSIX, v));
    }
    vut_free(t);
}

/* One vector in the middle, all others masked by the guest. */
static void test_msix_server_masks_one(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_keep_masks });

    enable_msix(t, 1 << 9);
    expect_vector(t, 9);
    mask_vector(t, 2, false);
    expect_vector(t, 2);
    expect_vector(t, 9);
    vut_free(t);
}

typedef struct RunCase {
    const char *name;
    unsigned max_msg_fds;
    void (*setup)(TestServer *s);
} RunCase;

static void setup_fds_1(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 1;
}

static void setup_fds_2(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 2;
}

static void setup_fds_8(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 8;
}

static void setup_fds_unsaid(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 0;
}

static void setup_fds_many(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 1000;
}

/* The vectors are unmasked first, so that they are enabled in one go. */
static void enable_msix_at_once(VUTest *t, uint64_t unmasked)
{
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_MSIX, 0);
    uint16_t control = qpci_config_readw(t->dev, cap + PCI_MSIX_FLAGS);

    enable_msix(t, 0);
    qpci_config_writew(t->dev, cap + PCI_MSIX_FLAGS,
                       control | PCI_MSIX_FLAGS_ENABLE |
                       PCI_MSIX_FLAGS_MASKALL);
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        mask_vector(t, v, !(unmasked >> v & 1));
    }
    qpci_config_writew(t->dev, cap + PCI_MSIX_FLAGS, control);
    ts_log_clear(t->s);
    qpci_config_writew(t->dev, cap + PCI_MSIX_FLAGS,
                       control | PCI_MSIX_FLAGS_ENABLE);
}

/*
 * A range of vectors with holes becomes runs: each message's fds stand for
 * consecutive vectors and are no more than the server takes.
 */
static void test_msix_runs(const void *data)
{
    const RunCase *c = data;
    const uint64_t unmasked = 0xebf7;
    VUTest *t = vut_new(&(VUTOptions) { .setup = c->setup });
    TsRecord r;

    enable_msix_at_once(t, unmasked);
    vut_flush(t);
    for (unsigned i = 0;
         ts_log_get(t->s, SET_IRQS(VFIO_USER_IRQ_MSIX), i, &r); i++) {
        g_assert_cmpuint(r.nr_fds, <=, c->max_msg_fds);
        g_assert_cmpint(r.error, ==, 0);
        if (r.nr_fds) {
            g_assert_cmpuint(r.nr_fds, ==, r.count);
            g_assert_cmphex(r.set_flags, ==, VFIO_USER_IRQ_DATA_EVENTFD |
                                             VFIO_USER_IRQ_TRIGGER);
        }
    }
    for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
        if (unmasked >> v & 1) {
            expect_vector(t, v);
        }
    }
    vut_free(t);
}

static void enable_msi(VUTest *t, unsigned log2)
{
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_MSI, 0);
    uint16_t control = qpci_config_readw(t->dev, cap + PCI_MSI_FLAGS);

    g_assert(control & PCI_MSI_FLAGS_64BIT);
    qpci_device_enable(t->dev);
    qtest_writel(t->qts, MSI_ADDRESS, 0);
    qpci_config_writel(t->dev, cap + PCI_MSI_ADDRESS_LO, MSI_ADDRESS);
    qpci_config_writel(t->dev, cap + PCI_MSI_ADDRESS_HI, 0);
    qpci_config_writew(t->dev, cap + PCI_MSI_DATA_64, 0xa000);
    control &= ~PCI_MSI_FLAGS_QSIZE;
    qpci_config_writew(t->dev, cap + PCI_MSI_FLAGS,
                       control | log2 << 4 | PCI_MSI_FLAGS_ENABLE);
}

static void expect_msi(VUTest *t, unsigned v)
{
    raise_vector(t, VFIO_USER_IRQ_MSI, v);
    VUT_WAIT(qtest_readl(t->qts, MSI_ADDRESS) == 0xa000 + v);
    qtest_writel(t->qts, MSI_ADDRESS, 0);
}

static void check_msi(void (*setup)(TestServer *s), unsigned log2)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup });
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_MSI, 0);

    enable_msi(t, log2);
    g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSI, 1u << log2));
    for (unsigned v = 0; v < 1u << log2; v++) {
        expect_msi(t, v);
    }
    qpci_config_writew(t->dev, cap + PCI_MSI_FLAGS, 0);
    g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSI, 0));
    enable_msi(t, 0);
    expect_msi(t, 0);
    vut_free(t);
}

static void test_msi_one(void)
{
    check_msi(NULL, 0);
}

static void test_msi_four(void)
{
    check_msi(NULL, 2);
}

static void test_msi_server_masks(void)
{
    check_msi(setup_keep_masks, 2);
}

static void test_msi_server_refuses_masks(void)
{
    check_msi(setup_refuse_masks, 2);
}

/* On a q35 each pin has its own input of the I/O APIC: slot 4's is E. */
#define INTX_GSI    20

static bool intx_level(VUTest *t)
{
    /* The level arrives with the answer to any request. */
    qtest_readb(t->qts, 0);
    return qtest_get_irq(t->qts, INTX_GSI);
}

static void test_intx(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .machine = "q35" });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);

    qtest_irq_intercept_in(t->qts, "ioapic");
    qpci_device_enable(t->dev);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, true));
    for (unsigned i = 0; i < 3; i++) {
        g_assert(!intx_level(t));
        ts_log_clear(t->s);
        g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_INTX, 0), ==, 0);
        VUT_WAIT(intx_level(t));
        /* The guest's access to the device is taken for the end of it. */
        qpci_io_readl(t->dev, bar, 0);
        VUT_WAIT(!intx_level(t));
        g_assert(ts_log_wait(t->s, SET_IRQS(VFIO_USER_IRQ_INTX), 1));
    }
    vut_free(t);
}

/* A level that stays raised at the device is seen again after each end. */
static void test_intx_level(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .machine = "q35" });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);
    uint8_t *config = ts_region_mem(t->s, VFIO_USER_REGION_CONFIG);

    qtest_irq_intercept_in(t->qts, "ioapic");
    qpci_device_enable(t->dev);
    config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    raise_vector(t, VFIO_USER_IRQ_INTX, 0);
    for (unsigned i = 0; i < 3; i++) {
        VUT_WAIT(intx_level(t));
        qpci_io_readl(t->dev, bar, 0);
    }
    VUT_WAIT(intx_level(t));
    config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
    qpci_io_readl(t->dev, bar, 0);
    VUT_WAIT(!intx_level(t));
    vut_free(t);
}

#define LOOK        ((TsMatch) { VFIO_USER_REGION_READ, \
                                 VFIO_USER_REGION_CONFIG, PCI_STATUS })

/* The device keeps its line up, and the guest does not want to hear of it. */
static void test_intx_disabled(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .machine = "q35" });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);
    uint8_t *config = ts_region_mem(t->s, VFIO_USER_REGION_CONFIG);
    uint16_t command;

    qtest_irq_intercept_in(t->qts, "ioapic");
    qpci_device_enable(t->dev);
    command = qpci_config_readw(t->dev, PCI_COMMAND);
    config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    raise_vector(t, VFIO_USER_IRQ_INTX, 0);
    VUT_WAIT(intx_level(t));
    qpci_config_writew(t->dev, PCI_COMMAND,
                       command | PCI_COMMAND_INTX_DISABLE);
    ts_log_clear(t->s);
    for (unsigned i = 0; i < 100; i++) {
        qpci_io_readl(t->dev, bar, 0);
        vut_flush(t);
    }
    g_assert_cmpuint(ts_log_count(t->s, LOOK), ==, 0);
    VUT_WAIT(!intx_level(t));
    qpci_config_writew(t->dev, PCI_COMMAND, command);
    VUT_WAIT(intx_level(t));
    g_assert_cmpuint(ts_log_count(t->s, LOOK), ==, 1);
    config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
    qpci_io_readl(t->dev, bar, 0);
    VUT_WAIT(!intx_level(t));
    vut_free(t);
}

static void setup_no_intx(TestServer *s)
{
    ts_config_intx(s, 0);
    ts_add_irqs(s, VFIO_USER_IRQ_INTX, 0, 0, TS_MASK_ACCEPT);
}

static void test_no_intx(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_no_intx });

    g_assert_cmphex(qpci_config_readb(t->dev, PCI_INTERRUPT_PIN), ==, 0);
    g_assert_cmpuint(ts_log_count(t->s, SET_IRQS(VFIO_USER_IRQ_INTX)), ==,
                     0);
    vut_free(t);
}

/* INTx gives way to MSI-X and comes back after it. */
static void test_modes(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, true));
    enable_msix(t, 1);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, false));
    expect_vector(t, 0);
    qpci_msix_disable(t->dev);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, true));
    enable_msi(t, 1);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, false));
    expect_msi(t, 1);
    vut_free(t);
}

static void setup_only_intx(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0);
    ts_config_intx(s, 1);
}

/* A device that has no capabilities, no ERR and no REQ. */
static void test_bare_device(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .bare = true,
                                        .setup = setup_only_intx });

    g_assert_cmphex(qpci_config_readw(t->dev, PCI_STATUS) &
                    PCI_STATUS_CAP_LIST, ==, 0);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, true));
    vut_free(t);
}

/* ERR stops the guest, as with a device of the kernel. */
static void test_err(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .stderr_file = true });
    QDict *status;

    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_ERR, 0, true));
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_ERR, 0), ==, 0);
    vut_wait_stderr(t, VUT_ID);
    status = qtest_qmp_assert_success_ref(t->qts,
                                          "{'execute': 'query-status'}");
    g_assert_cmpstr(qdict_get_str(status, "status"), ==, "internal-error");
    qobject_unref(status);
    vut_free(t);
}

/* REQ asks for the device back: the guest is asked to let it go. */
static void test_req(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_REQ, 0, true));
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_REQ, 0), ==, 0);
    VUT_WAIT(qtest_inl(t->qts, 0xae04) & 1u << VUT_SLOT);
    qtest_outl(t->qts, 0xae08, 1u << VUT_SLOT);
    qtest_qmp_eventwait(t->qts, "DEVICE_DELETED");
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

/* A server that is stopped in the middle of a SET_IRQS */
typedef struct Stopped {
    GMutex lock;
    GCond cond;
    bool stop;
    bool is_stopped;
} Stopped;

static Stopped stopped;

static int stop_here(TestServer *s, TsMessage *request, TsMessage *reply,
                     void *opaque)
{
    int64_t end = g_get_monotonic_time() + VUT_TIMEOUT_MS * 1000;

    g_mutex_lock(&stopped.lock);
    while (stopped.stop) {
        stopped.is_stopped = true;
        if (!g_cond_wait_until(&stopped.cond, &stopped.lock, end)) {
            g_error("stopped for ever");
        }
    }
    stopped.is_stopped = false;
    g_mutex_unlock(&stopped.lock);
    return -1;
}

static void set_stopped(bool stop)
{
    g_mutex_lock(&stopped.lock);
    stopped.stop = stop;
    g_cond_broadcast(&stopped.cond);
    g_mutex_unlock(&stopped.lock);
}

static bool is_stopped(void)
{
    bool is;

    g_mutex_lock(&stopped.lock);
    is = stopped.is_stopped;
    g_mutex_unlock(&stopped.lock);
    return is;
}

static void setup_stopped(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_SET_IRQS, stop_here, NULL);
}

/*
 * Nobody waits, and when the server goes on it is told what holds in the end: a
 * thousand times as many messages would not fit into the socket, either.
 */
static void test_stopped_server(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_stopped });

    enable_msix(t, 0xffff);
    expect_vector(t, 3);
    vut_flush(t);
    ts_log_clear(t->s);
    set_stopped(true);
    for (unsigned i = 0; i < 5000; i++) {
        mask_vector(t, 3, true);
        mask_vector(t, 3, false);
        mask_vector(t, 4, i & 1);
    }
    VUT_WAIT(is_stopped());
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    g_assert(is_stopped());
    set_stopped(false);
    expect_vector(t, 3);
    vut_flush(t);
    g_assert_cmpuint(ts_log_count(t->s, SET_IRQS(VFIO_USER_IRQ_MSIX)), <=, 32);
    vut_free(t);
}

static int refuse_msi(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque)
{
    struct vfio_user_irq_set set;

    memcpy(&set, request->payload->data, sizeof(set));
    return set.index == VFIO_USER_IRQ_MSI && set.count ? ENOSPC : -1;
}

static void setup_refuse_msi(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DEVICE_SET_IRQS, refuse_msi, NULL);
}

/* What the server refuses ever so often does not fill the log. */
static void test_refused_often(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_refuse_msi,
                                        .stderr_file = true });
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_MSI, 0);
    int64_t begin = g_get_monotonic_time();
    g_autofree char *text = NULL;
    unsigned periods;

    for (unsigned i = 0; i < 100; i++) {
        enable_msi(t, 2);
        vut_flush(t);
        qpci_config_writew(t->dev, cap + PCI_MSI_FLAGS, 0);
    }
    vut_wait_stderr(t, "the server refused interrupts 0 to 3 of index 1");
    periods = 1 + (g_get_monotonic_time() - begin) / (10 * G_USEC_PER_SEC);
    text = vut_stderr(t);
    g_assert_cmpuint(vut_occurrences(text, "the server refused interrupts"),
                     <=, 4 * (1 + periods));
    vut_free(t);
}

void vut_register_irq(void)
{
    static const RunCase runs[] = {
        { "1", 1, setup_fds_1 }, { "2", 2, setup_fds_2 },
        { "8", 8, setup_fds_8 }, { "unsaid", 1, setup_fds_unsaid },
        { "1000", 16, setup_fds_many },
    };

    vut_add_test("vfio-user/irq/msix/all", test_msix);
    vut_add_test("vfio-user/irq/msix/no-other", test_msix_no_other);
    vut_add_test("vfio-user/irq/msix/mask/accept", test_msix_mask_accept);
    vut_add_test("vfio-user/irq/msix/mask/keep", test_msix_mask_keep);
    vut_add_test("vfio-user/irq/msix/mask/refuse", test_msix_mask_refuse);
    vut_add_test("vfio-user/irq/msix/server-masks", test_msix_server_masks);
    vut_add_test("vfio-user/irq/msix/server-masks-one",
                 test_msix_server_masks_one);
    for (unsigned i = 0; i < ARRAY_SIZE(runs); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/irq/msix/runs/%s",
                                                runs[i].name);

        vut_add_data_test(path, &runs[i], test_msix_runs);
    }
    vut_add_test("vfio-user/irq/msi/one", test_msi_one);
    vut_add_test("vfio-user/irq/msi/four", test_msi_four);
    vut_add_test("vfio-user/irq/msi/server-masks", test_msi_server_masks);
    vut_add_test("vfio-user/irq/msi/server-refuses-masks",
                 test_msi_server_refuses_masks);
    vut_add_test("vfio-user/irq/intx", test_intx);
    vut_add_test("vfio-user/irq/intx-level", test_intx_level);
    vut_add_test("vfio-user/irq/intx-disabled", test_intx_disabled);
    vut_add_test("vfio-user/irq/stopped-server", test_stopped_server);
    vut_add_test("vfio-user/irq/refused-often", test_refused_often);
    vut_add_test("vfio-user/irq/no-intx", test_no_intx);
    vut_add_test("vfio-user/irq/modes", test_modes);
    vut_add_test("vfio-user/irq/bare-device", test_bare_device);
    vut_add_test("vfio-user/irq/err", test_err);
    vut_add_test("vfio-user/irq/req", test_req);
}
