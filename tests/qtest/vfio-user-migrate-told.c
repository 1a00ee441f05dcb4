/*
 * vfio-user qtest: windows of a server that refuses them while it is stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * libvfio-user refuses both DMA_MAP and DMA_UNMAP in STOP. It is told when the
 * device runs, what goes first: what comes may overlap. The guest's windows are the
 * memory of two ivshmem devices, and RAM in the place of a ROM.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "hw/pci/pci_regs.h"
#include "vfio-user-migrate.h"

#define SHM_SIZE        0x100000
#define NR_SHMS         2
#define WALK_STEPS      60
#define PAM_C0000       0x5a
#define PAM_RAM         0x33
#define AT(i)           vut_shm_address(i)
#define ABOUT(cmd, i)   ((TsMatch) { VFIO_USER_DMA_##cmd, -1, AT(i) })

/**
 * Told: a VM
 * @base: windows that are always there
 */
typedef struct Told {
    VMTest *t;
    TestServer *s;
    unsigned base;
    QPCIDevice *host;
    QPCIDevice *shms[NR_SHMS];
} Told;

static void told_new(Told *m, void (*setup)(TestServer *s), const char *device,
                     const char *args)
{
    g_autofree char *all = g_strconcat(
        "-object memory-backend-memfd,id=shm0,size=1M,share=on "
        "-object memory-backend-memfd,id=shm1,size=1M,share=on "
        "-device ivshmem-plain,addr=6,memdev=shm0,master=on "
        "-device ivshmem-plain,addr=7,memdev=shm1,master=on ", args, NULL);
    VMTOptions o = {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY, .size = 1000,
                 .logging = true },
        .setup = setup, .args = all, .device = device,
    };

    m->t = vmt_new_src(&o);
    m->s = m->t->src->s;
    m->base = ts_dma_nr_windows(m->s);
    m->host = qpci_device_find(m->t->src->bus, QPCI_DEVFN(0, 0));
    for (unsigned i = 0; i < NR_SHMS; i++) {
        m->shms[i] = qpci_device_find(m->t->src->bus, QPCI_DEVFN(6 + i, 0));
        qpci_config_writel(m->shms[i], PCI_BASE_ADDRESS_2, AT(i));
    }
}

static void told_free(Told *m)
{
    for (unsigned i = 0; i < NR_SHMS; i++) {
        g_free(m->shms[i]);
    }
    g_free(m->host);
    vmt_free(m->t);
}

static void told_switch(Told *m, unsigned i, bool on)
{
    qpci_config_writew(m->shms[i], PCI_COMMAND, on ? PCI_COMMAND_MEMORY : 0);
}

static void told_stop(Told *m)
{
    qtest_qmp_assert_success(m->t->src->qts, "{'execute': 'stop'}");
    g_assert(ts_mig_wait_state(m->s, VFIO_USER_MIG_STOP));
}

static void told_cont(Told *m)
{
    qtest_qmp_assert_success(m->t->src->qts, "{'execute': 'cont'}");
    g_assert(ts_mig_wait_state(m->s, VFIO_USER_MIG_RUNNING));
}

/* Everything that was sent has been handled; and it works. */
static void check_works(Told *m)
{
    QPCIBar bar = qpci_iomap(m->t->src->dev, 0, NULL);
    g_autofree char *log = NULL;
    uint64_t bytes;

    VUT_WAIT(!vut_nr_refused(m->t->src, &bytes));
    qpci_device_enable(m->t->src->dev);
    qpci_io_writel(m->t->src->dev, bar, 0x10, 7);
    g_assert_cmphex(qpci_io_readl(m->t->src->dev, bar, 0x10), ==, 7);
    log = vut_stderr(m->t->src);
    g_assert(!strstr(log, "device lost"));
}

/* The server has @i where it is, and it is the right memory. */
static void check_there(Told *m, unsigned i, uint64_t addr)
{
    uint32_t value = 0x7a110000 + i;

    g_assert(ts_dma_wait_window(m->s, addr, true));
    g_assert_cmpint(ts_dma_write(m->s, addr + 0x40, &value, sizeof(value),
                                 TS_DMA_MAPPED), ==, 0);
    g_assert_cmphex(qtest_readl(m->t->src->qts, addr + 0x40), ==, value);
}

/* One that comes while the device is stopped */
static void test_map(void)
{
    uint64_t bytes;
    Told m;

    told_new(&m, ts_like_libvfio_user, NULL, "");
    told_stop(&m);
    told_switch(&m, 0, true);
    g_assert(ts_log_wait(m.s, ABOUT(MAP, 0), 1));
    VUT_WAIT(vut_nr_refused(m.t->src, &bytes) == 1);
    g_assert_cmpuint(bytes, ==, SHM_SIZE);
    told_cont(&m);
    check_there(&m, 0, AT(0));
    check_works(&m);
    told_switch(&m, 0, false);
    g_assert(ts_dma_wait_window(m.s, AT(0), false));
    told_free(&m);
}

/* One that goes: the server has it no longer when the device runs. */
static void test_unmap(void)
{
    Told m;

    told_new(&m, ts_like_libvfio_user, NULL, "");
    told_switch(&m, 0, true);
    check_there(&m, 0, AT(0));
    told_stop(&m);
    told_switch(&m, 0, false);
    g_assert(ts_log_wait(m.s, ABOUT(UNMAP, 0), 1));
    told_cont(&m);
    g_assert(ts_dma_wait_window(m.s, AT(0), false));
    g_assert_cmpuint(ts_dma_nr_windows(m.s), ==, m.base);
    check_works(&m);
    told_free(&m);
}

/* Other memory takes its place: the old window goes before the new one comes. */
static void test_overlap(void)
{
    unsigned unmaps, maps;
    TsRecord unmap, map;
    Told m;

    told_new(&m, ts_like_libvfio_user, NULL, "");
    told_switch(&m, 0, true);
    check_there(&m, 0, AT(0));
    told_stop(&m);
    told_switch(&m, 0, false);
    qpci_config_writel(m.shms[1], PCI_BASE_ADDRESS_2, AT(0));
    told_switch(&m, 1, true);
    told_cont(&m);
    check_works(&m);
    check_there(&m, 1, AT(0));
    unmaps = ts_log_count(m.s, ABOUT(UNMAP, 0));
    maps = ts_log_count(m.s, ABOUT(MAP, 0));
    g_assert(ts_log_get(m.s, ABOUT(UNMAP, 0), unmaps - 1, &unmap));
    g_assert(ts_log_get(m.s, ABOUT(MAP, 0), maps - 1, &map));
    g_assert_cmpint(unmap.error, ==, 0);
    g_assert_cmpint(map.error, ==, 0);
    g_assert_cmpuint(unmap.seq, <, map.seq);
    told_free(&m);
}

/* One that comes and goes again: there is nothing to tell. */
static void test_neither(void)
{
    unsigned maps;
    Told m;

    told_new(&m, ts_like_libvfio_user, NULL, "");
    told_stop(&m);
    told_switch(&m, 0, true);
    told_switch(&m, 0, false);
    g_assert(ts_log_wait(m.s, ABOUT(MAP, 0), 1));
    maps = ts_log_count(m.s, ABOUT(MAP, 0));
    told_cont(&m);
    check_works(&m);
    g_assert_cmpuint(ts_log_count(m.s, ABOUT(MAP, 0)), ==, maps);
    g_assert_cmpuint(ts_dma_nr_windows(m.s), ==, m.base);
    told_free(&m);
}

/* At random, stopped and running, at once and when the server has answered */
static void test_walk(void)
{
    bool on[NR_SHMS] = { false }, stopped = false;
    GRand *rand = g_rand_new_with_seed(21);
    Told m;

    told_new(&m, ts_like_libvfio_user, NULL, "");
    for (unsigned step = 0; step < WALK_STEPS; step++) {
        unsigned i = g_rand_int_range(rand, 0, NR_SHMS + 1);

        if (i < NR_SHMS) {
            on[i] = !on[i];
            told_switch(&m, i, on[i]);
            continue;
        }
        if (stopped) {
            told_cont(&m);
            VUT_WAIT(ts_dma_nr_windows(m.s) == m.base + on[0] + on[1]);
            for (i = 0; i < NR_SHMS; i++) {
                g_assert_cmpint(ts_dma_find(m.s, AT(i), NULL), ==, on[i]);
            }
            check_works(&m);
        } else {
            told_stop(&m);
        }
        stopped = !stopped;
    }
    if (stopped) {
        told_cont(&m);
    }
    check_works(&m);
    g_rand_free(rand);
    told_free(&m);
}

/* The ROM is back in its place. */
static void check_rom(Told *m)
{
    TsWindow w, ram;

    g_assert(ts_dma_find(m->s, VMT_MIB, &ram));
    VUT_WAIT(!ts_dma_find(m->s, 0xc0000, &w) || w.ino != ram.ino);
    check_works(m);
}

static void switch_to_ram(Told *m)
{
    TsWindow w, ram;

    qpci_config_writeb(m->host, PAM_C0000, PAM_RAM);
    g_assert(ts_dma_find(m->s, VMT_MIB, &ram));
    VUT_WAIT(ts_dma_find(m->s, 0xc0000, &w) && w.ino == ram.ino);
}

/* A reset of the guest takes the windows away while the device is stopped. */
static void test_reset(void)
{
    TsMatch resets = { VFIO_USER_DEVICE_RESET, -1, -1 };
    unsigned nr;
    Told m;

    told_new(&m, ts_like_libvfio_user, NULL, "");
    told_switch(&m, 0, true);
    check_there(&m, 0, AT(0));
    told_stop(&m);
    nr = ts_log_count(m.s, resets);
    qtest_system_reset_nowait(m.t->src->qts);
    g_assert(ts_log_wait(m.s, resets, nr + 1));
    g_assert(ts_log_wait(m.s, ABOUT(UNMAP, 0), 1));
    told_cont(&m);
    g_assert(ts_dma_wait_window(m.s, AT(0), false));
    g_assert_cmpuint(ts_dma_nr_windows(m.s), ==, m.base);
    check_works(&m);
    told_free(&m);
}

static void run_hmp(Told *m, const char *command)
{
    g_autofree char *said = qtest_hmp(m->t->src->qts, "%s", command);

    if (strstr(said, "Error:")) {
        g_error("%s: %s", command, said);
    }
}

/* Memory changes while a snapshot is loaded; and again when it runs. */
static void check_loadvm(bool stopped)
{
    const char *program = getenv("QTEST_QEMU_IMG");
    g_autofree char *dir = NULL, *disk = NULL, *command = NULL, *args = NULL;
    Told m;

    if (!program) {
        g_test_skip("QTEST_QEMU_IMG names no qemu-img to make a disk with");
        return;
    }
    dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL);
    disk = g_build_filename(dir, "disk", NULL);
    command = g_strdup_printf("%s create -q -f qcow2 %s 1M", program, disk);
    g_assert(g_spawn_command_line_sync(command, NULL, NULL, NULL, NULL));
    args = g_strdup_printf("-drive if=none,id=disk,format=qcow2,file=%s", disk);
    told_new(&m, ts_like_libvfio_user, NULL, args);
    told_switch(&m, 0, true);
    check_there(&m, 0, AT(0));
    run_hmp(&m, "savevm one");
    told_switch(&m, 0, false);
    qpci_config_writel(m.shms[1], PCI_BASE_ADDRESS_2, AT(0));
    told_switch(&m, 1, true);
    check_there(&m, 1, AT(0));
    switch_to_ram(&m);
    if (stopped) {
        told_stop(&m);
    }
    run_hmp(&m, "loadvm one");
    if (stopped) {
        told_cont(&m);
    }
    check_rom(&m);
    VUT_WAIT(ts_dma_nr_windows(m.s) == m.base + 1);
    check_there(&m, 0, AT(0));
    check_works(&m);
    told_free(&m);
    g_assert_cmpint(g_unlink(disk), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static void test_loadvm(void)
{
    check_loadvm(false);
}

static void test_loadvm_stopped(void)
{
    check_loadvm(true);
}

/* A server that comes back while the VM is stopped is told when that runs. */
static void test_returns(void)
{
    Told m;

    told_new(&m, ts_like_libvfio_user, ",reconnect-ms=5", "");
    told_switch(&m, 0, true);
    check_there(&m, 0, AT(0));
    told_stop(&m);
    vmt_lose(m.t);
    vmt_return_fresh(m.t);
    m.s = m.t->src->s;
    vmt_wait_returned(m.t);
    told_switch(&m, 1, true);
    told_cont(&m);
    VUT_WAIT(ts_dma_nr_windows(m.s) == m.base + 2);
    check_there(&m, 0, AT(0));
    check_there(&m, 1, AT(1));
    check_works(&m);
    told_free(&m);
}

/* A server that takes windows in STOP has them at once. */
static void test_plain(void)
{
    Told m;

    told_new(&m, NULL, NULL, "");
    told_stop(&m);
    told_switch(&m, 0, true);
    check_there(&m, 0, AT(0));
    told_switch(&m, 0, false);
    g_assert(ts_dma_wait_window(m.s, AT(0), false));
    told_cont(&m);
    check_works(&m);
    told_free(&m);
}

void vut_register_migrate_told(void)
{
#define T(name, func) \
    vut_add_test("vfio-user/migrate/told/" name, func)
    T("map", test_map);
    T("unmap", test_unmap);
    T("overlap", test_overlap);
    T("neither", test_neither);
    T("walk", test_walk);
    T("reset", test_reset);
    T("loadvm", test_loadvm);
    T("loadvm-stopped", test_loadvm_stopped);
    T("returns", test_returns);
    T("plain", test_plain);
#undef T
}
