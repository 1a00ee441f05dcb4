/*
 * vfio-user qtest: a server that does what libvfio-user does
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * While the device is stopped it refuses nearly everything, resets among it, and
 * a reset does not make it run. ts_like_libvfio_user() says what else.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "hw/pci/pci_regs.h"
#include "vfio-user-migrate.h"

#define STATE_SIZE      100000
#define WORD(v)         (0x50000 + (v) * 16)
#define VALUE(v)        (0xd000 + (v))
#define RESETS          ((TsMatch) { VFIO_USER_DEVICE_RESET, -1, -1 })

static VMTOptions libvfio_user(void)
{
    return (VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY, .size = STATE_SIZE,
                 .precopy = 50000, .logging = true },
        .setup = ts_like_libvfio_user,
    };
}

static void assert_works(VUTest *side, uint32_t value)
{
    QPCIBar bar = qpci_iomap(side->dev, 0, NULL);
    g_autofree char *log = vut_stderr(side);

    qpci_device_enable(side->dev);
    qpci_io_writel(side->dev, bar, 0x10, value);
    g_assert_cmphex(qpci_io_readl(side->dev, bar, 0x10), ==, value);
    g_assert(ts_connected(side->s));
    g_assert_cmpuint(ts_mig_state(side->s), ==, VFIO_USER_MIG_RUNNING);
    g_assert(!strstr(log, "lost"));
}

static void enable_vector(VUTest *side, unsigned v)
{
    uint64_t entry;

    qpci_device_enable(side->dev);
    qpci_msix_enable(side->dev);
    entry = side->dev->msix_table_off + v * 16;
    qpci_io_writel(side->dev, side->dev->msix_table_bar, entry, WORD(v));
    qpci_io_writel(side->dev, side->dev->msix_table_bar, entry + 4, 0);
    qpci_io_writel(side->dev, side->dev->msix_table_bar, entry + 8, VALUE(v));
    qpci_io_writel(side->dev, side->dev->msix_table_bar, entry + 12, 0);
    qtest_writel(side->qts, WORD(v), 0);
    g_assert(ts_irq_wait_fd(side->s, VFIO_USER_IRQ_MSIX, v, true));
}

static void assert_vector(VUTest *side, unsigned v)
{
    qtest_writel(side->qts, WORD(v), 0);
    g_assert_cmpint(ts_irq_trigger(side->s, VFIO_USER_IRQ_MSIX, v), ==, 0);
    VUT_WAIT(qtest_readl(side->qts, WORD(v)) == VALUE(v));
}

/* Its state comes in padded replies, its interrupts are there at the end. */
static void test_migrate(void)
{
    VMTOptions o = libvfio_user();
    VMTest *t = vmt_new(&o);
    TsMigStats stats;

    enable_vector(t->src, 3);
    vmt_migrate(t);
    ts_mig_stats(t->dst->s, &stats);
    g_assert_cmpuint(stats.nr_loaded, ==, 1);
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    assert_vector(t->dst, 3);
    vut_find(t->dst, VUT_SLOT);
    assert_works(t->dst, 1);
    vmt_free(t);
}

/* What the device writes until it is stopped, and is asked for after that */
static void test_dirty(void)
{
    VMTOptions o = libvfio_user();
    VMTest *t;

    o.mig.flags = VMT_STOP_COPY;
    o.mig.data_size = true;
    t = vmt_start_held(&o);
    vmt_device_writes(t, 52 * VMT_MIB, 10000, TS_DMA_MAPPED);
    vmt_finish(t);
    vmt_assert_at_dst(t, 52 * VMT_MIB, 10000);
    vmt_free(t);
}

/* Snapshots -------------------------------------------------------------------- */

typedef struct Snapshot {
    VMTest *t;
    char *dir;
    char *disk;
} Snapshot;

static void run_hmp(VUTest *side, const char *command)
{
    g_autofree char *said = qtest_hmp(side->qts, "%s", command);

    if (strstr(said, "Error:")) {
        g_error("%s: %s", command, said);
    }
}

/* A VM with a snapshot of it; false where there is no program to make a disk. */
static bool snapshot_new(Snapshot *s)
{
    const char *program = getenv("QTEST_QEMU_IMG");
    g_autofree char *command = NULL, *args = NULL;
    VMTOptions o = libvfio_user();

    if (!program) {
        g_test_skip("QTEST_QEMU_IMG names no qemu-img to make a disk with");
        return false;
    }
    s->dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL);
    s->disk = g_build_filename(s->dir, "disk", NULL);
    command = g_strdup_printf("%s create -q -f qcow2 %s 1M", program, s->disk);
    g_assert(g_spawn_command_line_sync(command, NULL, NULL, NULL, NULL));
    args = g_strdup_printf("-drive if=none,id=disk,format=qcow2,file=%s",
                           s->disk);
    o.args = args;
    s->t = vmt_new_src(&o);
    enable_vector(s->t->src, 3);
    run_hmp(s->t->src, "savevm one");
    return true;
}

static void snapshot_free(Snapshot *s)
{
    vmt_free(s->t);
    g_assert_cmpint(g_unlink(s->disk), ==, 0);
    g_assert_cmpint(g_rmdir(s->dir), ==, 0);
    g_free(s->disk);
    g_free(s->dir);
}

static void assert_loaded(Snapshot *s, unsigned nr_resets)
{
    TsMigStats stats;

    ts_mig_stats(s->t->src->s, &stats);
    g_assert_cmpuint(stats.nr_saved, ==, 1);
    g_assert_cmpuint(stats.nr_loaded, ==, 1);
    /* It would have lost what was loaded. */
    g_assert_cmpuint(ts_nr_resets(s->t->src->s), ==, nr_resets);
    assert_vector(s->t->src, 3);
    assert_works(s->t->src, 2);
}

static void test_snapshot(void)
{
    unsigned nr_resets;
    Snapshot s;

    if (!snapshot_new(&s)) {
        return;
    }
    assert_works(s.t->src, 1);
    nr_resets = ts_nr_resets(s.t->src->s);
    run_hmp(s.t->src, "loadvm one");
    assert_loaded(&s, nr_resets);
    snapshot_free(&s);
}

/* The reset was refused, and the state that is loaded then takes its place. */
static void test_snapshot_after_reset(void)
{
    unsigned nr_resets, nr;
    Snapshot s;

    if (!snapshot_new(&s)) {
        return;
    }
    qtest_qmp_assert_success(s.t->src->qts, "{'execute': 'stop'}");
    nr_resets = ts_nr_resets(s.t->src->s);
    nr = ts_log_count(s.t->src->s, RESETS);
    qtest_system_reset_nowait(s.t->src->qts);
    g_assert(ts_log_wait(s.t->src->s, RESETS, nr + 1));
    run_hmp(s.t->src, "loadvm one");
    qtest_qmp_assert_success(s.t->src->qts, "{'execute': 'cont'}");
    assert_loaded(&s, nr_resets);
    snapshot_free(&s);
}

/* Resets ----------------------------------------------------------------------- */

/* Refused while the VM is stopped; made up for before the guest does anything. */
static void test_reset(void)
{
    VMTOptions o = libvfio_user();
    VMTest *t = vmt_new_src(&o);
    unsigned nr_resets, nr;
    g_autofree char *log = NULL;
    TsRecord r;

    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    nr_resets = ts_nr_resets(t->src->s);
    nr = ts_log_count(t->src->s, RESETS);
    qtest_system_reset_nowait(t->src->qts);
    g_assert(ts_log_wait(t->src->s, RESETS, nr + 1));
    g_assert_cmpuint(ts_nr_resets(t->src->s), ==, nr_resets);
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert_cmpuint(ts_nr_resets(t->src->s), ==, nr_resets + 1);
    g_assert(ts_log_get(t->src->s, RESETS, nr + 1, &r));
    g_assert_cmpint(r.error, ==, 0);
    assert_works(t->src, 3);

    /* Once is enough. */
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    g_assert_cmpuint(ts_nr_resets(t->src->s), ==, nr_resets + 1);
    assert_works(t->src, 4);
    log = vut_stderr(t->src);
    g_assert(!strstr(log, "reset failed"));
    vmt_free(t);
}

/* It cannot be reset in STOP_COPY, where a migration that failed left it. */
static void test_reset_after_failure(void)
{
    VMTOptions o = libvfio_user();
    VMTest *t = vmt_new(&o);
    unsigned nr_resets = ts_nr_resets(t->src->s);

    ts_mig_fail(t->src->s, &(TsMigFail) {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_ARC,
        .from = VFIO_USER_MIG_STOP_COPY, .to = VFIO_USER_MIG_STOP, .times = 1,
    });
    ts_mig_fail(t->src->s, &(TsMigFail) {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_READ, .byte = 60000, .times = 1,
    });
    vmt_start(t);
    vmt_expect_source_goes_on(t, "failed");
    g_assert_cmpuint(ts_nr_resets(t->src->s), ==, nr_resets + 1);
    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    assert_works(t->src, 5);
    vmt_replace_dst(t);
    vmt_migrate(t);
    vmt_free(t);
}

/* Windows ---------------------------------------------------------------------- */

#define SHM_SLOT    6
#define SHM_BAR     2
#define SHM_ADDR    0xf0000000

/* A window that goes away while the device is stopped does not cost the device. */
static void test_unmap(void)
{
    VMTOptions o = libvfio_user();
    TsMatch unmaps = { VFIO_USER_DMA_UNMAP, -1, SHM_ADDR };
    QPCIDevice *shm;
    VMTest *t;

    o.args = "-object memory-backend-memfd,id=shm,size=1M,share=on "
             "-device ivshmem-plain,addr=6,memdev=shm";
    t = vmt_new_src(&o);
    shm = qpci_device_find(t->src->bus, QPCI_DEVFN(SHM_SLOT, 0));
    qpci_config_writel(shm, PCI_BASE_ADDRESS_0 + 4 * SHM_BAR, SHM_ADDR);
    qpci_config_writew(shm, PCI_COMMAND, PCI_COMMAND_MEMORY);
    g_assert(ts_dma_wait_window(t->src->s, SHM_ADDR, true));
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'stop'}");
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    qpci_config_writew(shm, PCI_COMMAND, 0);
    g_assert(ts_log_wait(t->src->s, unmaps, 1));
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'cont'}");
    assert_works(t->src, 6);
    g_free(shm);
    vmt_free(t);
}

void vut_register_migrate_lvu(void)
{
#define T(name, func) \
    vut_add_test("vfio-user/migrate/like-libvfio-user/" name, func)
    T("migrate", test_migrate);
    T("dirty", test_dirty);
    T("snapshot", test_snapshot);
    T("snapshot-after-reset", test_snapshot_after_reset);
    T("reset", test_reset);
    T("reset-after-failure", test_reset_after_failure);
    T("unmap", test_unmap);
#undef T
}
