/*
 * vfio-user qtest: reset, hotplug, several devices, servers that die
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

#define RESETS      ((TsMatch) { VFIO_USER_DEVICE_RESET, -1, -1 })
#define NR_DEVICES  4
#define CYCLES      200
#define WARM_UP     50
/* Malloc's own wavering; a leak of 2 KiB a cycle would be beyond it. */
#define GROWTH_KIB  256

static const VUTOptions no_device = { .no_device = true };

static void check_works(VUTest *t, QPCIBar bar, uint32_t value)
{
    qpci_io_writel(t->dev, bar, 0x30, value);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x30), ==, value);
}

static void assert_monitor_answers(VUTest *t)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
}

static void test_reset(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    unsigned before = ts_nr_resets(t->s), windows = ts_dma_nr_windows(t->s);

    for (unsigned i = 1; i <= 10; i++) {
        QPCIBar bar;

        qtest_system_reset(t->qts);
        g_assert_cmpuint(ts_nr_resets(t->s), ==, before + i);
        g_assert_cmphex(qpci_config_readw(t->dev, PCI_COMMAND) &
                        PCI_COMMAND_MEMORY, ==, 0);
        g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, true));
        bar = vut_map_bar(t, 0);
        check_works(t, bar, i);
    }
    g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, windows);
    vut_free(t);
}

static void setup_not_resettable(TestServer *s)
{
    ts_info(s)->flags &= ~VFIO_USER_DEVICE_RESETTABLE;
}

static void test_reset_unsupported(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_not_resettable });

    qtest_system_reset(t->qts);
    g_assert_cmpuint(ts_log_count(t->s, RESETS), ==, 0);
    check_works(t, vut_map_bar(t, 0), 5);
    vut_free(t);
}

/* MSI-X in use when the guest reboots: the vectors are taken back. */
static void test_reset_with_msix(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    for (unsigned i = 0; i < 5; i++) {
        qpci_device_enable(t->dev);
        qpci_msix_enable(t->dev);
        for (unsigned v = 0; v < TS_STANDARD_MSIX; v++) {
            qpci_io_writel(t->dev, t->dev->msix_table_bar,
                           t->dev->msix_table_off + v * 16 + 12, 0);
        }
        g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSIX,
                                    TS_STANDARD_MSIX));
        qtest_system_reset(t->qts);
        g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSIX, 0));
    }
    vut_free(t);
}

static char *add_at(VUTest *t, const char *id, const char *bus,
                    const char *slot, const char *socket)
{
    QDict *response, *error;
    char *text = NULL;

    response = qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': "
                         "{'driver': 'vfio-user-pci', 'id': %s, 'bus': %s, "
                         "'addr': %s, 'socket': %s}}", id, bus, slot, socket);
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    return text;
}

static void test_hotplug_pc(void)
{
    VUTest *t = vut_new(&no_device);

    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpstr(add_at(t, VUT_ID, "pci.0", "6", t->path), ==, NULL);
        g_assert_cmpuint(ts_nr_clients(t->s), ==, i + 1);
        vut_find(t, 6);
        check_works(t, vut_map_bar(t, 0), 0x100 + i);
        vut_del(t, VUT_ID, 6);
        g_assert(ts_wait_connected(t->s, false));
        g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, 0);
        g_assert_null(qpci_device_find(t->bus, QPCI_DEVFN(6, 0)));
    }
    vut_free(t);
}

/* The device behind a root port at slot 3, which becomes bus 1. */
static void find_behind_port(VUTest *t)
{
    QPCIDevice *port = qpci_device_find(t->bus, QPCI_DEVFN(3, 0));

    g_assert(port);
    qpci_config_writeb(port, PCI_SECONDARY_BUS, 1);
    qpci_config_writeb(port, PCI_SUBORDINATE_BUS, 1);
    qpci_config_writew(port, PCI_MEMORY_BASE, 0xe000);
    qpci_config_writew(port, PCI_MEMORY_LIMIT, 0xefff);
    qpci_device_enable(port);
    g_free(port);
    vut_find(t, 32);
}

static void setup_express(TestServer *s)
{
    ts_add_pcie(s, 0);
}

static void test_hotplug_root_port(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .no_device = true, .setup = setup_express,
        .args = "-device pcie-root-port,id=rp,addr=3",
    });

    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpstr(add_at(t, VUT_ID, "rp", "0", t->path), ==, NULL);
        find_behind_port(t);
        g_assert_cmphex(qpci_config_readw(t->dev, PCI_VENDOR_ID), ==,
                        TS_STANDARD_VENDOR);
        check_works(t, vut_map_bar(t, 0), 0x200 + i);
        vut_del_by_reset(t, VUT_ID);
        g_assert(ts_wait_connected(t->s, false));
    }
    vut_free(t);
}

static void test_cold_root_port(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .no_device = true, .setup = setup_express,
        .args = "-device pcie-root-port,id=rp,addr=3 "
                "-device vfio-user-pci,bus=rp,socket=%s/sock",
    });

    find_behind_port(t);
    check_works(t, vut_map_bar(t, 0), 0x300);
    vut_free(t);
}

/* Unplugging with everything in use: mappings, MSI-X, memory windows. */
static void test_unplug_in_use(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    QPCIBar mapped = vut_map_bar(t, 1);

    qpci_msix_enable(t->dev);
    qpci_io_writel(t->dev, t->dev->msix_table_bar, 12, 0);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_MSIX, 0, true));
    qpci_io_writel(t->dev, mapped, 0x1000, 3);
    vut_del(t, VUT_ID, VUT_SLOT);
    g_assert(ts_wait_connected(t->s, false));
    g_assert_cmpuint(ts_irq_nr_fds(t->s, VFIO_USER_IRQ_MSIX), ==, 0);
    g_assert_cmphex(qtest_readl(t->qts, mapped.addr + 0x1000), !=, 3);
    assert_monitor_answers(t);
    vut_free(t);
}

static void cycle(VUTest *t)
{
    g_autofree char *error = add_at(t, VUT_ID, "pci.0", "4", t->path);

    g_assert_cmpstr(error, ==, NULL);
    vut_del(t, VUT_ID, VUT_SLOT);
    g_assert(ts_wait_connected(t->s, false));
    ts_log_clear(t->s);
}

static void test_cycles(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .shared_ram = true,
    });
    pid_t pid = qtest_pid(t->qts);
    unsigned qemu_fds, our_fds;
    unsigned long kib;

    for (unsigned i = 0; i < WARM_UP; i++) {
        cycle(t);
    }
    qemu_fds = vut_nr_fds(pid);
    our_fds = vut_nr_fds(getpid());
    kib = vut_private_kib(pid);
    for (unsigned i = WARM_UP; i < CYCLES; i++) {
        cycle(t);
    }
    vut_wait_max_fds(t, qemu_fds);
    g_assert_cmpuint(vut_nr_fds(getpid()), ==, our_fds);
    vut_check_growth(kib, vut_private_kib(pid), GROWTH_KIB);
    g_assert_cmpuint(ts_nr_clients(t->s), ==, CYCLES);
    vut_free(t);
}

/* The same with a server that refuses late, when most is built up. */
static void test_failing_cycles(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DMA_MAP, .index = -1,
        .skip = 1, .a = ENOMEM,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .shared_ram = true,
    });
    pid_t pid = qtest_pid(t->qts);
    unsigned fds = 0;
    unsigned long kib = 0;

    ts_add_move(t->s, &refuse);
    for (unsigned i = 0; i < CYCLES; i++) {
        g_autofree char *error = vut_add(t, VUT_ID, t->path, 5000);

        g_assert_nonnull(error);
        g_assert(ts_wait_connected(t->s, false));
        if (i == WARM_UP) {
            fds = vut_nr_fds(pid);
            kib = vut_private_kib(pid);
        }
    }
    vut_wait_max_fds(t, fds);
    vut_check_growth(kib, vut_private_kib(pid), GROWTH_KIB);
    vut_free(t);
}

/* Whatever is done to it: all-ones, dropped, one report, unplugged. */
static void check_dead_device(VUTest *t, QPCIBar bar)
{
    for (unsigned i = 0; i < 5; i++) {
        qpci_io_writel(t->dev, bar, 0, i);
        g_assert_cmphex(qpci_io_readl(t->dev, bar, 0), ==, UINT32_MAX);
        g_assert_cmphex(qpci_io_readb(t->dev, bar, 1), ==, 0xff);
    }
    assert_monitor_answers(t);
    vut_wait_stderr(t, VUT_ID);
    qtest_system_reset(t->qts);
    qpci_config_writew(t->dev, PCI_COMMAND, PCI_COMMAND_MEMORY);
    qpci_config_readl(t->dev, PCI_VENDOR_ID);
    assert_monitor_answers(t);
    vut_del(t, VUT_ID, VUT_SLOT);
    assert_monitor_answers(t);
}

static void check_dying(bool unnoticed)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .stderr_file = true, .shared_ram = true,
    });
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    QPCIBar bar = vut_map_bar(t, 0);

    check_works(t, bar, 7);
    ts_stop_listening(t->s);
    ts_disconnect(t->s);
    if (unnoticed) {
        /* The next thing is the removal: nobody has noticed yet. */
        vut_del(t, VUT_ID, VUT_SLOT);
        assert_monitor_answers(t);
    } else {
        check_dead_device(t, bar);
    }
    g_assert_cmpuint(vut_nr_fds(qtest_pid(t->qts)), <, fds);
    vut_free(t);
}

static void test_server_dies(void)
{
    check_dying(false);
}

static void test_server_dies_then_unplug(void)
{
    check_dying(true);
}

/* One report, not one per access. */
static void test_says_so_once(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .stderr_file = true, .shared_ram = true,
    });
    QPCIBar bar = vut_map_bar(t, 0);
    g_autofree char *text = NULL;

    ts_disconnect(t->s);
    for (unsigned i = 0; i < 20; i++) {
        qpci_io_writel(t->dev, bar, 0, i);
        g_assert_cmphex(qpci_io_readl(t->dev, bar, 0), ==, UINT32_MAX);
    }
    vut_wait_stderr(t, VUT_ID);
    text = vut_stderr(t);
    g_assert_cmpuint(vut_occurrences(text, "\n"), ==, 1);
    vut_free(t);
}

static int access_die(TestServer *s, unsigned region, uint64_t offset,
                      void *data, uint32_t len, bool write, void *opaque)
{
    ts_disconnect(s);
    return 0;
}

static void setup_die_on_access(TestServer *s)
{
    ts_region(s, 0, 0x1000, 3)->access = access_die;
}

static void test_dies_in_access(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .stderr_file = true, .shared_ram = true,
        .setup = setup_die_on_access,
    });
    QPCIBar bar = vut_map_bar(t, 0);

    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0), ==, UINT32_MAX);
    check_dead_device(t, bar);
    vut_free(t);
}

/* A reply that does not come fails its access and nothing after it. */
static void test_late_reply(void)
{
    static const TsMove drop = {
        .kind = TS_MOVE_DROP, .command = VFIO_USER_REGION_READ, .index = 0,
        .times = 1,
    };
    VUTest *t = vut_new(&(VUTOptions) { .device = ",x-msg-timeout-ms=2000" });
    QPCIBar bar = vut_map_bar(t, 0);

    check_works(t, bar, 8);
    ts_add_move(t->s, &drop);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x30), ==, UINT32_MAX);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x30), ==, 8);
    check_works(t, bar, 9);
    vut_free(t);
}

typedef struct Fleet {
    VUTest *t;
    TestServer *servers[NR_DEVICES];
} Fleet;

static Fleet fleet_new(void)
{
    Fleet f = { .t = vut_new(&(VUTOptions) {
        .no_device = true, .shared_ram = true,
    }) };

    for (unsigned i = 0; i < NR_DEVICES; i++) {
        g_autofree char *name = g_strdup_printf("s%u", i);
        g_autofree char *id = g_strdup_printf("vu%u", i);
        g_autofree char *slot = g_strdup_printf("%x", 5 + i);
        g_autofree char *path = g_build_filename(f.t->dir, name, NULL);

        f.servers[i] = vut_server(f.t->dir, name, NULL);
        g_assert_cmpstr(add_at(f.t, id, "pci.0", slot, path), ==, NULL);
    }
    return f;
}

static void fleet_free(Fleet *f)
{
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        ts_free(f->servers[i]);
    }
    vut_free(f->t);
}

/* Each device talks to its own server and takes its own interrupts. */
static void test_several(void)
{
    Fleet f = fleet_new();
    QPCIBar bars[NR_DEVICES];
    char buf[8];

    for (unsigned i = 0; i < NR_DEVICES; i++) {
        vut_find(f.t, 5 + i);
        bars[i] = vut_map_bar(f.t, 0);
        vut_map_bar(f.t, 1);
        check_works(f.t, bars[i], 0x1000 + i);
    }
    qtest_memwrite(f.t->qts, 0x100000, "for all", 8);
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        uint32_t *mem = ts_region_mem(f.servers[i], 0);

        g_assert_cmphex(mem[0x30 / 4], ==, 0x1000 + i);
        g_assert_cmpint(ts_dma_read(f.servers[i], 0x100000, buf, 8,
                                    TS_DMA_MAPPED), ==, 0);
        g_assert_cmpstr(buf, ==, "for all");
    }
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        g_autofree char *id = g_strdup_printf("vu%u", i);

        vut_del(f.t, id, 5 + i);
        g_assert(ts_wait_connected(f.servers[i], false));
        for (unsigned j = i + 1; j < NR_DEVICES; j++) {
            g_assert(ts_connected(f.servers[j]));
        }
    }
    fleet_free(&f);
}

/* One server dies or stops: the others' devices do not notice. */
static void test_several_one_dies(void)
{
    Fleet f = fleet_new();
    QPCIBar bar;

    vut_find(f.t, 6);
    bar = vut_map_bar(f.t, 0);
    ts_disconnect(f.servers[1]);
    g_assert_cmphex(qpci_io_readl(f.t->dev, bar, 0), ==, UINT32_MAX);
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        if (i != 1) {
            vut_find(f.t, 5 + i);
            check_works(f.t, vut_map_bar(f.t, 0), 0x2000 + i);
        }
    }
    qtest_system_reset(f.t->qts);
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        if (i != 1) {
            g_assert_cmpuint(ts_nr_resets(f.servers[i]), >, 0);
        }
    }
    fleet_free(&f);
}

/* The server stops: what needs no device goes on, and device_del works. */
static void test_stopped_server(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .device = ",x-msg-timeout-ms=300" });

    ts_hold(t->s);
    assert_monitor_answers(t);
    g_assert_cmphex(qtest_readb(t->qts, 0x1000), ==, 0);
    vut_del(t, VUT_ID, VUT_SLOT);
    assert_monitor_answers(t);
    ts_release(t->s);
    vut_free(t);
}

/* Until there is migration, it is refused with a reason. */
static void test_migration_blocked(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QDict *response, *error;

    response = qtest_qmp(t->qts, "{'execute': 'migrate', 'arguments': "
                         "{'uri': 'exec:cat >/dev/null'}}");
    error = qdict_get_qdict(response, "error");
    g_assert(error);
    g_assert(strstr(qdict_get_str(error, "desc"), "vfio-user"));
    qobject_unref(response);
    vut_free(t);
}

/* Threads of QEMU's in which SIGBUS is not blocked; sets @main for the first. */
static unsigned nr_open(VUTest *t, bool *main)
{
    pid_t pid = qtest_pid(t->qts);
    g_autofree char *path = g_strdup_printf("/proc/%d/task", pid);
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned nr = 0;

    g_assert_nonnull(dir);
    *main = false;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *status = g_build_filename(path, name, "status", NULL);
        g_autofree char *text = NULL;
        const char *mask;

        /* The thread may have ended. */
        if (g_file_get_contents(status, &text, NULL, NULL)) {
            mask = strstr(text, "SigBlk:");
            g_assert_nonnull(mask);
            if (!(strtoull(mask + 7, NULL, 16) & 1ull << (SIGBUS - 1))) {
                nr++;
                *main |= atoi(name) == pid;
            }
        }
    }
    g_dir_close(dir);
    return nr;
}

/* The main thread, the vCPU, and three IOThreads: io1, the monitor's, our own */
#define NR_OPEN     5

/*
 * Where mapped regions are touched SIGBUS must be open, which is what a file that is
 * cut short brings; and only as long as there are mapped regions, since QEMU wants
 * it blocked.
 */
static void test_sigbus_threads(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .no_device = true,
                                        .args = "-object iothread,id=io1" });
    bool main;

    g_assert_cmpuint(nr_open(t, &main), ==, 0);
    for (unsigned i = 0; i < 2; i++) {
        qtest_qmp_device_add(t->qts, "vfio-user-pci", VUT_ID,
                             "{'addr': '4', 'socket': %s}", t->path);
        VUT_WAIT(nr_open(t, &main) == NR_OPEN + i && main);
        /* One that comes later, and a device that might use it */
        if (!i) {
            qtest_qmp_assert_success(t->qts, "{'execute': 'object-add', "
                "'arguments': {'qom-type': 'iothread', 'id': 'io2'}}");
            qtest_qmp_assert_success(t->qts, "{'execute': 'device_add', "
                "'arguments': {'driver': 'pci-testdev', 'id': 'other'}}");
            VUT_WAIT(nr_open(t, &main) == NR_OPEN + 1);
        }
        vut_del(t, VUT_ID, VUT_SLOT);
        VUT_WAIT(nr_open(t, &main) == 0);
    }
    vut_free(t);
}

void vut_register_plug(void)
{
    vut_add_test("vfio-user/plug/sigbus-threads", test_sigbus_threads);
    vut_add_test("vfio-user/reset/again-and-again", test_reset);
    vut_add_test("vfio-user/reset/unsupported", test_reset_unsupported);
    vut_add_test("vfio-user/reset/with-msix", test_reset_with_msix);
    vut_add_test("vfio-user/plug/pc", test_hotplug_pc);
    vut_add_test("vfio-user/plug/root-port", test_hotplug_root_port);
    vut_add_test("vfio-user/plug/root-port-cold", test_cold_root_port);
    vut_add_test("vfio-user/plug/in-use", test_unplug_in_use);
    vut_add_test("vfio-user/plug/200-cycles", test_cycles);
    vut_add_test("vfio-user/plug/200-failing-cycles", test_failing_cycles);
    vut_add_test("vfio-user/plug/migration-blocked", test_migration_blocked);
    vut_add_test("vfio-user/dead/server-dies", test_server_dies);
    vut_add_test("vfio-user/dead/then-unplug", test_server_dies_then_unplug);
    vut_add_test("vfio-user/dead/says-so-once", test_says_so_once);
    vut_add_test("vfio-user/dead/in-access", test_dies_in_access);
    vut_add_test("vfio-user/dead/late-reply", test_late_reply);
    vut_add_test("vfio-user/dead/stopped-server", test_stopped_server);
    vut_add_test("vfio-user/several/independent", test_several);
    vut_add_test("vfio-user/several/one-dies", test_several_one_dies);
}
