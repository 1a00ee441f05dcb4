/*
 * vfio-user qtest: DMA from device to device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first device's server does DMA to BARs of the second one: where that has
 * mapped areas and peer-dma is on it has windows there, and nowhere else.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "../server/server-migration.h"
#include "vfio-user-util.h"

#define OTHER_SLOT      6
/* Of the standard device: mapped as a whole, in parts, and not at all */
#define WHOLE_BAR       2
#define WHOLE_SIZE      0x10000
#define SPARSE_BAR      1
#define UNMAPPED_BAR    0
#define WHOLE_AT        0xe0000000u
#define SPARSE_AT       0xe0100000u
#define UNMAPPED_AT     0xe0200000u
#define MOVED_AT        0xe0400000u

typedef struct Pair {
    VUTest *t;
    char *dir;
    TestServer *other;
    QPCIDevice *dev;
    unsigned windows;   /* before the guest has placed the BARs */
} Pair;

static void place(Pair *p, unsigned bar, uint32_t at)
{
    qpci_config_writel(p->dev, PCI_BASE_ADDRESS_0 + 4 * bar, at);
}

static void set_memory(Pair *p, bool on)
{
    qpci_config_writew(p->dev, PCI_COMMAND, on ? PCI_COMMAND_MEMORY : 0);
}

static Pair pair_new(const char *options, void (*setup)(TestServer *s))
{
    Pair p = { .dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL) };
    g_autofree char *args = NULL;

    p.other = vut_server(p.dir, "other", setup);
    args = g_strdup_printf("-device vfio-user-pci,id=other,addr=%x,"
                           "reconnect-ms=10,socket=%s/other", OTHER_SLOT,
                           p.dir);
    p.t = vut_new(&(VUTOptions) {
        .shared_ram = true, .args = args, .device = options, .setup = setup,
    });
    p.dev = qpci_device_find(p.t->bus, QPCI_DEVFN(OTHER_SLOT, 0));
    p.windows = ts_dma_nr_windows(p.t->s);
    place(&p, WHOLE_BAR, WHOLE_AT);
    place(&p, WHOLE_BAR + 1, 0);
    place(&p, SPARSE_BAR, SPARSE_AT);
    place(&p, UNMAPPED_BAR, UNMAPPED_AT);
    set_memory(&p, true);
    return p;
}

static void pair_free(Pair *p)
{
    g_free(p->dev);
    vut_free(p->t);
    ts_free(p->other);
    g_assert_cmpint(g_rmdir(p->dir), ==, 0);
    g_free(p->dir);
}

static void assert_window(Pair *p, uint64_t addr, uint64_t size)
{
    TsWindow w;

    g_assert(ts_dma_wait_window(p->t->s, addr, true));
    g_assert(ts_dma_find(p->t->s, addr, &w));
    g_assert_cmphex(w.addr, ==, addr);
    g_assert_cmphex(w.size, ==, size);
    g_assert(w.has_fd);
}

/* What one server writes is in the other's BAR, and in the guest's. */
static void check_reaches(Pair *p, uint64_t addr, unsigned bar, uint64_t off)
{
    const uint8_t *mem = ts_region_mem(p->other, bar);
    uint32_t value = cpu_to_le32(0xd0d00000 + off), back = 0;

    g_assert_cmpint(ts_dma_write(p->t->s, addr, &value, 4, TS_DMA_MAPPED), ==,
                    0);
    g_assert_cmphex((uint32_t)ldl_le_p(mem + off), ==, le32_to_cpu(value));
    g_assert_cmphex(qtest_readl(p->t->qts, addr), ==, le32_to_cpu(value));
    qtest_writel(p->t->qts, addr, ~le32_to_cpu(value));
    g_assert_cmpint(ts_dma_read(p->t->s, addr, &back, 4, TS_DMA_MAPPED), ==,
                    0);
    g_assert_cmphex(le32_to_cpu(back), ==, ~le32_to_cpu(value));
}

static void test_mapped(void)
{
    Pair p = pair_new(",peer-dma=on", NULL);
    TsWindow w;

    assert_window(&p, WHOLE_AT, WHOLE_SIZE);
    assert_window(&p, SPARSE_AT + 0x1000, 0x1000);
    assert_window(&p, SPARSE_AT + 0x4000, 0x2000);
    check_reaches(&p, WHOLE_AT + 0x3210, WHOLE_BAR, 0x3210);
    check_reaches(&p, SPARSE_AT + 0x1004, SPARSE_BAR, 0x1004);
    check_reaches(&p, SPARSE_AT + 0x5ffc, SPARSE_BAR, 0x5ffc);
    g_assert_cmpuint(ts_dma_nr_windows(p.t->s), ==, p.windows + 3);
    /* Nothing of what is not mapped, and nothing the other way. */
    g_assert(!ts_dma_find(p.t->s, SPARSE_AT, &w));
    g_assert(!ts_dma_find(p.t->s, UNMAPPED_AT, &w));
    g_assert_cmpuint(ts_dma_nr_windows(p.other), ==, p.windows);
    pair_free(&p);
}

/* Registers by message would have to wait for the other server: refused. */
static void test_unmapped_refused(void)
{
    Pair p = pair_new(",peer-dma=on", NULL);
    uint32_t value = 0;

    g_assert_cmpint(ts_dma_command(p.t->s, VFIO_USER_DMA_READ, UNMAPPED_AT, 4,
                                   &value, 4), ==, EFAULT);
    g_assert_cmpint(ts_dma_command(p.t->s, VFIO_USER_DMA_WRITE, UNMAPPED_AT, 4,
                                   &value, 4), ==, EFAULT);
    g_assert(ts_connected(p.t->s));
    pair_free(&p);
}

/* The guest moves a BAR, and switches it off and on. */
static void test_moves(void)
{
    Pair p = pair_new(",peer-dma=on", NULL);

    assert_window(&p, WHOLE_AT, WHOLE_SIZE);
    for (unsigned i = 0; i < 3; i++) {
        place(&p, WHOLE_BAR, MOVED_AT);
        g_assert(ts_dma_wait_window(p.t->s, WHOLE_AT, false));
        assert_window(&p, MOVED_AT, WHOLE_SIZE);
        check_reaches(&p, MOVED_AT + 0x10, WHOLE_BAR, 0x10);
        set_memory(&p, false);
        g_assert(ts_dma_wait_nr_windows(p.t->s, p.windows));
        set_memory(&p, true);
        assert_window(&p, MOVED_AT, WHOLE_SIZE);
        place(&p, WHOLE_BAR, WHOLE_AT);
        g_assert(ts_dma_wait_window(p.t->s, MOVED_AT, false));
        assert_window(&p, WHOLE_AT, WHOLE_SIZE);
    }
    check_reaches(&p, WHOLE_AT, WHOLE_BAR, 0);
    pair_free(&p);
}

/* The other device is unplugged: its memory goes with it. */
static void test_unplug(void)
{
    Pair p = pair_new(",peer-dma=on", NULL);
    unsigned fds = vut_nr_fds(qtest_pid(p.t->qts));

    assert_window(&p, WHOLE_AT, WHOLE_SIZE);
    vut_del(p.t, "other", OTHER_SLOT);
    g_assert(ts_dma_wait_nr_windows(p.t->s, p.windows));
    VUT_WAIT(vut_nr_fds(qtest_pid(p.t->qts)) < fds);
    pair_free(&p);
}

/* An interrupt's end is noticed by accesses, for which areas are unmapped. */
static void setup_no_intx(TestServer *s)
{
    ts_config_intx(s, 0);
    ts_add_irqs(s, VFIO_USER_IRQ_INTX, 0, 0, TS_MASK_ACCEPT);
}

/* While the other server is away nobody is let into what it had mapped. */
static void test_returns(void)
{
    Pair p = pair_new(",peer-dma=on", setup_no_intx);
    TsMatch map = { VFIO_USER_DMA_MAP, -1, WHOLE_AT };
    TsMatch unmap = { VFIO_USER_DMA_UNMAP, -1, WHOLE_AT };

    assert_window(&p, WHOLE_AT, WHOLE_SIZE);
    ts_log_clear(p.t->s);
    ts_disconnect(p.other);
    vut_wait_event(p.t, "VFIO_USER_RECONNECTED");
    g_assert(ts_log_wait(p.t->s, unmap, 1));
    g_assert(ts_log_wait(p.t->s, map, 1));
    assert_window(&p, WHOLE_AT, WHOLE_SIZE);
    check_reaches(&p, WHOLE_AT + 0x40, WHOLE_BAR, 0x40);
    pair_free(&p);
}

/* Unless asked for, there is no such window; and none without descriptors. */
static void check_none(const char *options)
{
    Pair p = pair_new(options, NULL);
    TsWindow w;

    vut_flush(p.t);
    g_assert(!ts_dma_find(p.t->s, WHOLE_AT, &w));
    g_assert(!ts_dma_find(p.t->s, SPARSE_AT + 0x1000, &w));
    g_assert_cmpuint(ts_dma_nr_windows(p.t->s), ==, p.windows);
    pair_free(&p);
}

static void test_off(void)
{
    check_none(NULL);
}

static void test_share_off(void)
{
    check_none(",peer-dma=on,dma-share=off");
}

/* BARs get what is left of a server's windows when RAM has its share. */
static void setup_few_windows(TestServer *s)
{
    ts_limits(s)->max_dma_maps = 12;
}

static void test_few_windows(void)
{
    Pair p = pair_new(",peer-dma=on", setup_few_windows);
    uint64_t bytes;

    vut_flush(p.t);
    g_assert_cmpuint(vut_nr_refused(p.t, &bytes), >, 0);
    g_assert_cmpuint(bytes, >, 0);
    g_assert_cmpuint(p.windows, >, 0);
    g_assert_cmpuint(ts_dma_nr_windows(p.t->s), <=, MAX(p.windows, 6));
    g_assert(ts_connected(p.t->s));
    pair_free(&p);
}

static void setup_migration(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY)->logging = true;
}

/*
 * A device that talks to others has to be able to stop that before they stop:
 * without the P2P state it is not migrated together with them.
 */
static bool migration_blocked(Pair *p)
{
    QDict *info = qtest_qmp_assert_success_ref(
        p->t->qts, "{'execute': 'query-migrate'}");
    bool blocked = qdict_haskey(info, "blocked-reasons");

    qobject_unref(info);
    return blocked;
}

static void test_migration(void)
{
    Pair p = pair_new(",peer-dma=on", setup_migration);

    g_assert(migration_blocked(&p));
    pair_free(&p);

    p = pair_new(NULL, setup_migration);
    g_assert(!migration_blocked(&p));
    pair_free(&p);
}

void vut_register_peer(void)
{
    vut_add_test("vfio-user/peer/mapped", test_mapped);
    vut_add_test("vfio-user/peer/unmapped-refused", test_unmapped_refused);
    vut_add_test("vfio-user/peer/moves", test_moves);
    vut_add_test("vfio-user/peer/unplug", test_unplug);
    vut_add_test("vfio-user/peer/returns", test_returns);
    vut_add_test("vfio-user/peer/off", test_off);
    vut_add_test("vfio-user/peer/share-off", test_share_off);
    vut_add_test("vfio-user/peer/few-windows", test_few_windows);
    vut_add_test("vfio-user/peer/migration", test_migration);
}
