/*
 * vfio-user qtest: what a device asks for by ERR and REQ
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ERR is an uncorrectable error: the root port tells a guest that listens, and
 * option on-error says what becomes of the others. REQ asks for the device
 * back, which the guest may ignore.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "vfio-user-util.h"

#define ECAM            0xb0000000ull
#define PORT_SLOT       3
/* The device's place: bus 1, function 0. */
#define DEVICE_ID       0x100
#define AER             0x100
#define DEVCTL_ERRORS   (PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE)
#define ROOT_ERRORS     (PCI_ERR_ROOT_CMD_NONFATAL_EN | \
                         PCI_ERR_ROOT_CMD_FATAL_EN)

static uint32_t severity(void)
{
    return PCI_ERR_UNC_DLP | PCI_ERR_UNC_MALF_TLP;
}

/* Malformed packets are fatal here, completion timeouts are not. */
static void setup_aer(TestServer *s)
{
    uint32_t body[17] = { [2] = cpu_to_le32(severity()) };

    vut_setup_unmapped(s);
    ts_add_pcie(s, PCI_EXP_TYPE_ENDPOINT);
    g_assert_cmphex(ts_add_ext_cap(s, PCI_EXT_CAP_ID_ERR, 2, body,
                                   sizeof(body)), ==, AER);
}

static void setup_express(TestServer *s)
{
    vut_setup_unmapped(s);
    ts_add_pcie(s, PCI_EXP_TYPE_ENDPOINT);
}

typedef struct Rig {
    VUTest *t;
    QPCIDevice *port;
    QPCIBar bar;
    uint64_t root;      /* the port's AER capability */
} Rig;

static Rig rig_new(void (*setup)(TestServer *s), const char *options)
{
    g_autofree char *args = g_strdup_printf(
        "-device pcie-root-port,id=rp,addr=%x "
        "-device vfio-user-pci,id=" VUT_ID ",bus=rp,socket=%%s/sock%s",
        PORT_SLOT, options);
    Rig r = {
        .t = vut_new(&(VUTOptions) {
            .machine = "q35", .no_device = true, .setup = setup,
            .args = args, .stderr_file = true, .shared_ram = true,
        }),
        .root = ECAM + (QPCI_DEVFN(PORT_SLOT, 0) << 12) + 0x100,
    };
    QPCIDevice *host = qpci_device_find(r.t->bus, QPCI_DEVFN(0, 0));

    qpci_config_writel(host, 0x64, 0);
    qpci_config_writel(host, 0x60, ECAM | 1);
    g_free(host);

    r.port = qpci_device_find(r.t->bus, QPCI_DEVFN(PORT_SLOT, 0));
    qpci_config_writeb(r.port, PCI_SECONDARY_BUS, 1);
    qpci_config_writeb(r.port, PCI_SUBORDINATE_BUS, 1);
    qpci_config_writew(r.port, PCI_MEMORY_BASE, 0xe000);
    qpci_config_writew(r.port, PCI_MEMORY_LIMIT, 0xefff);
    qpci_device_enable(r.port);
    vut_find(r.t, 32);
    r.bar = qpci_iomap(r.t->dev, 0, NULL);
    qpci_device_enable(r.t->dev);
    g_assert(ts_irq_wait_fd(r.t->s, VFIO_USER_IRQ_ERR, 0, true));
    g_assert_cmphex(qtest_readl(r.t->qts, r.root) & 0xffff, ==,
                    PCI_EXT_CAP_ID_ERR);
    return r;
}

static void rig_free(Rig *r)
{
    g_free(r->port);
    vut_free(r->t);
}

static void enable_reporting(QPCIDevice *dev)
{
    uint8_t cap = qpci_find_capability(dev, PCI_CAP_ID_EXP, 0);

    qpci_config_writew(dev, cap + PCI_EXP_DEVCTL, DEVCTL_ERRORS);
}

/* As a guest does that handles errors. */
static void rig_listen(Rig *r)
{
    qpci_config_writew(r->port, PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_SERR);
    enable_reporting(r->port);
    enable_reporting(r->t->dev);
    qtest_writel(r->t->qts, r->root + PCI_ERR_ROOT_COMMAND, ROOT_ERRORS);
}

static void raise_error(Rig *r, uint32_t status)
{
    uint8_t *config = ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG);

    stl_le_p(config + AER + PCI_ERR_UNCOR_STATUS, status);
    g_assert_cmpint(ts_irq_trigger(r->t->s, VFIO_USER_IRQ_ERR, 0), ==, 0);
}

static uint32_t root_status(Rig *r)
{
    return qtest_readl(r->t->qts, r->root + PCI_ERR_ROOT_STATUS);
}

static void assert_run_state(Rig *r, const char *expected)
{
    QDict *status = qtest_qmp_assert_success_ref(
        r->t->qts, "{'execute': 'query-status'}");

    g_assert_cmpstr(qdict_get_str(status, "status"), ==, expected);
    qobject_unref(status);
}

static void assert_works(Rig *r)
{
    qpci_io_writel(r->t->dev, r->bar, 0x20, 0x600df00d);
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bar, 0x20), ==, 0x600df00d);
}

/* The guest reads from the port who it was, and from the device what. */
static void check_told(uint32_t status, uint32_t expected)
{
    Rig r = rig_new(setup_aer, "");

    rig_listen(&r);
    raise_error(&r, status);
    VUT_WAIT(root_status(&r) & PCI_ERR_ROOT_UNCOR_RCV);
    g_assert_cmphex(root_status(&r) & 0x7f, ==,
                    expected | PCI_ERR_ROOT_UNCOR_RCV);
    g_assert_cmphex(qtest_readw(r.t->qts, r.root + PCI_ERR_ROOT_ERR_SRC + 2),
                    ==, DEVICE_ID);
    g_assert_cmphex(qtest_readl(r.t->qts, ECAM + (DEVICE_ID << 12) + AER +
                                PCI_ERR_UNCOR_STATUS), ==, status);
    assert_run_state(&r, "running");
    assert_works(&r);
    rig_free(&r);
}

static void test_told_fatal(void)
{
    check_told(PCI_ERR_UNC_MALF_TLP,
               PCI_ERR_ROOT_FATAL_RCV | PCI_ERR_ROOT_FIRST_FATAL);
}

static void test_told_nonfatal(void)
{
    check_told(PCI_ERR_UNC_COMP_TIME, PCI_ERR_ROOT_NONFATAL_RCV);
}

/* Several bits: one message, and the worst one decides. */
static void test_told_worst(void)
{
    check_told(PCI_ERR_UNC_COMP_TIME | PCI_ERR_UNC_MALF_TLP,
               PCI_ERR_ROOT_FATAL_RCV | PCI_ERR_ROOT_FIRST_FATAL);
}

/* More of them than the guest has looked at. */
static void test_told_several(void)
{
    Rig r = rig_new(setup_aer, "");

    rig_listen(&r);
    raise_error(&r, PCI_ERR_UNC_COMP_TIME);
    VUT_WAIT(root_status(&r) & PCI_ERR_ROOT_UNCOR_RCV);
    raise_error(&r, PCI_ERR_UNC_COMP_TIME);
    VUT_WAIT(root_status(&r) & PCI_ERR_ROOT_MULTI_UNCOR_RCV);
    qtest_writel(r.t->qts, r.root + PCI_ERR_ROOT_STATUS, UINT32_MAX);
    g_assert_cmphex(root_status(&r) & 0x7f, ==, 0);
    raise_error(&r, PCI_ERR_UNC_COMP_TIME);
    VUT_WAIT(root_status(&r) & PCI_ERR_ROOT_UNCOR_RCV);
    assert_run_state(&r, "running");
    rig_free(&r);
}

static void mute_root(Rig *r)
{
    qtest_writel(r->t->qts, r->root + PCI_ERR_ROOT_COMMAND, 0);
}

static void mute_device(Rig *r)
{
    uint8_t cap = qpci_find_capability(r->t->dev, PCI_CAP_ID_EXP, 0);

    qpci_config_writew(r->t->dev, cap + PCI_EXP_DEVCTL, 0);
}

static void mute_bridge(Rig *r)
{
    qpci_config_writew(r->port, PCI_BRIDGE_CONTROL, 0);
}

static void mask_error(Rig *r)
{
    qtest_writel(r->t->qts, ECAM + (DEVICE_ID << 12) + AER +
                 PCI_ERR_UNCOR_MASK, UINT32_MAX);
    stl_le_p((uint8_t *)ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG) + AER +
             PCI_ERR_UNCOR_MASK, UINT32_MAX);
}

/* Wherever on the way the message is not let through, the policy decides. */
static void check_untold(void (*setup)(TestServer *s), void (*mute)(Rig *r))
{
    Rig r = rig_new(setup, "");

    rig_listen(&r);
    if (mute) {
        mute(&r);
    }
    raise_error(&r, PCI_ERR_UNC_COMP_TIME);
    vut_wait_stderr(r.t, "the guest cannot be told: the VM is stopped");
    assert_run_state(&r, "internal-error");
    g_assert_cmphex(root_status(&r) & 0x7f, ==, 0);
    rig_free(&r);
}

static void test_untold_root(void)
{
    check_untold(setup_aer, mute_root);
}

static void test_untold_device(void)
{
    check_untold(setup_aer, mute_device);
}

static void test_untold_bridge(void)
{
    check_untold(setup_aer, mute_bridge);
}

static void test_untold_mask(void)
{
    check_untold(setup_aer, mask_error);
}

static void test_untold_no_capability(void)
{
    check_untold(setup_express, NULL);
}

static void test_offline(void)
{
    Rig r = rig_new(setup_express, ",on-error=offline");

    raise_error(&r, 0);
    vut_wait_stderr(r.t, "device lost: the device has an uncorrectable error");
    g_assert_cmphex(qpci_io_readl(r.t->dev, r.bar, 0x20), ==, UINT32_MAX);
    assert_run_state(&r, "running");
    rig_free(&r);
}

static void test_report(void)
{
    Rig r = rig_new(setup_express, ",on-error=report");

    raise_error(&r, 0);
    vut_wait_stderr(r.t, "warning: vfio-user-pci " VUT_ID ": the device has an "
                    "uncorrectable error");
    assert_run_state(&r, "running");
    assert_works(&r);
    rig_free(&r);
}

#define FLOOD           50
/* Lines of one kind in ten seconds */
#define MAX_LINES       4

/* A server has as many errors as it likes. */
static void test_flood(void)
{
    Rig r = rig_new(setup_express, ",on-error=report");
    g_autofree char *log = NULL;

    for (unsigned i = 0; i < FLOOD; i++) {
        raise_error(&r, 0);
        assert_run_state(&r, "running");
    }
    assert_works(&r);
    log = vut_stderr(r.t);
    g_assert_cmpuint(vut_occurrences(log, "uncorrectable error"), >, 0);
    g_assert_cmpuint(vut_occurrences(log, "uncorrectable error"), <=,
                     MAX_LINES);
    rig_free(&r);
}

/* The policy may be changed on a device in use. */
static void test_change_policy(void)
{
    Rig r = rig_new(setup_express, ",on-error=stop");

    qtest_qmp_assert_success(r.t->qts, "{'execute': 'qom-set', 'arguments': "
                             "{'path': '" VUT_ID "', 'property': 'on-error', "
                             "'value': 'report'}}");
    raise_error(&r, 0);
    vut_wait_stderr(r.t, "the device has an uncorrectable error");
    assert_run_state(&r, "running");
    assert_works(&r);
    rig_free(&r);
}

/*
 * A server that raises ERR and then stands still: the monitor answers, and
 * when the deadline has passed the policy decides.
 */
static void test_hung_server(void)
{
    Rig r = rig_new(setup_aer, ",x-msg-timeout-ms=500,on-error=report");

    rig_listen(&r);
    ts_hold(r.t->s);
    raise_error(&r, PCI_ERR_UNC_COMP_TIME);
    assert_run_state(&r, "running");
    vut_wait_stderr(r.t, "the guest cannot be told");
    ts_release(r.t->s);
    assert_run_state(&r, "running");
    g_assert_cmphex(root_status(&r) & 0x7f, ==, 0);
    rig_free(&r);
}

/* It is unplugged while the server is being asked. */
static void test_unplugged_meanwhile(void)
{
    Rig r = rig_new(setup_aer, ",x-msg-timeout-ms=600000");

    rig_listen(&r);
    ts_hold(r.t->s);
    raise_error(&r, PCI_ERR_UNC_COMP_TIME);
    vut_del_by_reset(r.t, VUT_ID);
    ts_release(r.t->s);
    g_assert(ts_wait_connected(r.t->s, false));
    assert_run_state(&r, "running");
    rig_free(&r);
}

/* Unplugging, which the guest may ignore ---------------------------------- */

#define PCIHP_DOWN      0xae04
#define PCIHP_EJECT     0xae08

static char *del_error(VUTest *t)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'device_del', "
                                "'arguments': {'id': '" VUT_ID "'}}");
    QDict *error = qdict_get_qdict(response, "error");
    char *text = error ? g_strdup(qdict_get_str(error, "desc")) : NULL;

    qobject_unref(response);
    return text;
}

static void assert_at_work(VUTest *t, uint32_t value)
{
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);

    qpci_device_enable(t->dev);
    qpci_io_writel(t->dev, bar, 0x20, value);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x20), ==, value);
}

/* A guest that does not react keeps the device; asking again says so. */
static void test_ignored_del(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    g_autofree char *again = NULL;

    g_assert_cmpstr(del_error(t), ==, NULL);
    g_assert_cmphex(qtest_inl(t->qts, PCIHP_DOWN) & 1u << VUT_SLOT, !=, 0);
    assert_at_work(t, 0x11111111);
    again = del_error(t);
    g_assert(again && strstr(again, "already in the process of unplug"));
    assert_at_work(t, 0x22222222);
    g_assert(ts_connected(t->s));
    /* At last. */
    qtest_outl(t->qts, PCIHP_EJECT, 1u << VUT_SLOT);
    qtest_qmp_eventwait(t->qts, "DEVICE_DELETED");
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

/* The same for a request of the server, which may repeat it. */
static void test_ignored_req(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_REQ, 0, true));
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_REQ, 0), ==, 0);
    VUT_WAIT(qtest_inl(t->qts, PCIHP_DOWN) & 1u << VUT_SLOT);
    assert_at_work(t, 0x33333333);
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_REQ, 0), ==, 0);
    assert_at_work(t, 0x44444444);
    g_assert(ts_connected(t->s));
    qtest_outl(t->qts, PCIHP_EJECT, 1u << VUT_SLOT);
    qtest_qmp_eventwait(t->qts, "DEVICE_DELETED");
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

/* A reset of the machine ends what the guest has ignored. */
static void test_ignored_then_reset(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    g_assert_cmpstr(del_error(t), ==, NULL);
    assert_at_work(t, 0x55555555);
    qtest_system_reset_nowait(t->qts);
    qtest_qmp_eventwait(t->qts, "DEVICE_DELETED");
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

/* A bus that cannot unplug: the request is refused, with a line, no more. */
static void test_req_without_hotplug(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .stderr_file = true,
    });

    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_REQ, 0, true));
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_REQ, 0), ==, 0);
    vut_wait_stderr(t, "does not support hotplugging");
    assert_at_work(t, 0x66666666);
    vut_free(t);
}

void vut_register_errors(void)
{
    vut_add_test("vfio-user/errors/told/fatal", test_told_fatal);
    vut_add_test("vfio-user/errors/told/nonfatal", test_told_nonfatal);
    vut_add_test("vfio-user/errors/told/worst", test_told_worst);
    vut_add_test("vfio-user/errors/told/several", test_told_several);
    vut_add_test("vfio-user/errors/untold/root-port", test_untold_root);
    vut_add_test("vfio-user/errors/untold/device", test_untold_device);
    vut_add_test("vfio-user/errors/untold/bridge", test_untold_bridge);
    vut_add_test("vfio-user/errors/untold/mask", test_untold_mask);
    vut_add_test("vfio-user/errors/untold/no-capability",
                 test_untold_no_capability);
    vut_add_test("vfio-user/errors/policy/offline", test_offline);
    vut_add_test("vfio-user/errors/policy/report", test_report);
    vut_add_test("vfio-user/errors/policy/flood", test_flood);
    vut_add_test("vfio-user/errors/policy/change", test_change_policy);
    vut_add_test("vfio-user/errors/asked/hung-server", test_hung_server);
    vut_add_test("vfio-user/errors/asked/unplugged",
                 test_unplugged_meanwhile);
    vut_add_test("vfio-user/unplug/ignored", test_ignored_del);
    vut_add_test("vfio-user/unplug/ignored-request", test_ignored_req);
    vut_add_test("vfio-user/unplug/ignored-then-reset",
                 test_ignored_then_reset);
    vut_add_test("vfio-user/unplug/no-hotplug", test_req_without_hotplug);
}
