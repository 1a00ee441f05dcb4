/*
 * vfio-user qtest: a device behind the guest's IOMMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test is the driver of intel-iommu: it writes the tables, and tells of
 * changes by the invalidation queue. When that says "done", the server must
 * have been told; no test here waits for it.
 *
 * IOVAs below 1 GiB have page tables, one for each 2 MiB, all there from the
 * start. The device is in domain 1, whose tables are these.
 */

#include "qemu/osdep.h"
#include "hw/i386/intel_iommu_internal.h"
#include "../server/server-migration.h"
#include "vfio-user-util.h"

#define MIB             (1024 * 1024ull)
#define PAGE            4096ull
#define LARGE           (2 * MIB)

#define ROOT            (1 * MIB)
#define CONTEXT         (ROOT + 1 * PAGE)
#define LEVEL3          (ROOT + 2 * PAGE)
#define LEVEL2          (ROOT + 3 * PAGE)
#define LEVEL3_OTHER    (ROOT + 4 * PAGE)
#define QUEUE           (ROOT + 5 * PAGE)
#define STATUS          (ROOT + 6 * PAGE)
#define LEVEL1          (2 * MIB)       /* tables of NR_TABLES * 2 MiB */
#define NR_TABLES       4
/* Memory for DMA, and addresses for it */
#define MEMORY          (16 * MIB)
#define IOVA            (2 * MIB)
#define NR_PAGES        1024

#define QUEUE_ENTRIES   256
#define DOMAIN          1ull
#define WIDTH_39        1
#define TABLE           3ull            /* read, write */
#define READ            1
#define WRITE           2
#define IS_LARGE        (1ull << 7)

typedef struct Iommu {
    VUTest *t;
    QTestState *qts;
    unsigned tail;
    unsigned status;
} Iommu;

/* --- The driver --- */

static uint64_t get(const Iommu *m, unsigned reg)
{
    return qtest_readq(m->qts, Q35_HOST_BRIDGE_IOMMU_ADDR + reg);
}

static void put(const Iommu *m, unsigned reg, uint64_t value)
{
    qtest_writeq(m->qts, Q35_HOST_BRIDGE_IOMMU_ADDR + reg, value);
}

static void command(const Iommu *m, uint32_t bits)
{
    qtest_writel(m->qts, Q35_HOST_BRIDGE_IOMMU_ADDR + DMAR_GCMD_REG, bits);
}

static void enqueue(Iommu *m, uint64_t low, uint64_t high)
{
    qtest_writeq(m->qts, QUEUE + 16 * m->tail, low);
    qtest_writeq(m->qts, QUEUE + 16 * m->tail + 8, high);
    m->tail = (m->tail + 1) % QUEUE_ENTRIES;
}

/* Has it done: it must be over when the write is. */
static void invalidate(Iommu *m, uint64_t low, uint64_t high)
{
    enqueue(m, low, high);
    m->status++;
    enqueue(m, VTD_INV_DESC_WAIT | VTD_INV_DESC_WAIT_SW |
            (uint64_t)m->status << VTD_INV_DESC_WAIT_DATA_SHIFT, STATUS);
    put(m, DMAR_IQT_REG, m->tail << 4);
    g_assert_cmphex(get(m, DMAR_FSTS_REG) & VTD_FSTS_IQE, ==, 0);
    g_assert_cmpuint(qtest_readl(m->qts, STATUS), ==, m->status);
}

static void invalidate_pages(Iommu *m, uint64_t iova, unsigned nr)
{
    invalidate(m, VTD_INV_DESC_IOTLB | VTD_INV_DESC_IOTLB_PAGE | DOMAIN << 16,
               iova | ctz32(pow2ceil(nr)));
}

static void invalidate_device(Iommu *m)
{
    invalidate(m, VTD_INV_DESC_CC | VTD_INV_DESC_CC_DEVICE | DOMAIN << 16 |
               (uint64_t)(VUT_SLOT << 3) << 32, 0);
}

/* Does not tell the IOMMU. */
static void set_page(const Iommu *m, uint64_t iova, uint64_t addr, unsigned how)
{
    qtest_writeq(m->qts, LEVEL1 + iova / PAGE * 8, how ? addr | how : 0);
}

static void map_page(Iommu *m, uint64_t iova, uint64_t addr, unsigned how)
{
    set_page(m, iova, addr, how);
    invalidate_pages(m, iova, 1);
}

static void set_context(const Iommu *m, uint64_t tables)
{
    uint64_t at = CONTEXT + (VUT_SLOT << 3) * 16;

    qtest_writeq(m->qts, at + 8, WIDTH_39 | DOMAIN << 8);
    qtest_writeq(m->qts, at, tables | VTD_CONTEXT_ENTRY_P);
}

static void start(Iommu *m)
{
    qtest_memset(m->qts, ROOT, 0, 8 * PAGE);
    qtest_memset(m->qts, LEVEL1, 0, NR_TABLES * PAGE);
    qtest_writeq(m->qts, ROOT, CONTEXT | VTD_ROOT_ENTRY_P);
    qtest_writeq(m->qts, LEVEL3, LEVEL2 | TABLE);
    for (unsigned i = 0; i < NR_TABLES; i++) {
        qtest_writeq(m->qts, LEVEL2 + 8 * i, (LEVEL1 + i * PAGE) | TABLE);
    }
    set_context(m, LEVEL3);
    m->tail = 0;
    put(m, DMAR_IQA_REG, QUEUE);
    put(m, DMAR_RTADDR_REG, ROOT);
    command(m, VTD_GCMD_SRTP);
    command(m, VTD_GCMD_QIE);
    command(m, VTD_GCMD_QIE | VTD_GCMD_TE);
}

static Iommu *iommu_new(VUTOptions o)
{
    Iommu *m = g_new0(Iommu, 1);

    o.machine = "q35";
    o.shared_ram = true;
    o.args = "-device intel-iommu,caching-mode=on";
    m->t = vut_new(&o);
    m->qts = m->t->qts;
    start(m);
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    return m;
}

static void iommu_free(Iommu *m)
{
    vut_free(m->t);
    g_free(m);
}

/* --- What the device can do --- */

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = seed + i * 13 + i / 251;
    }
}

static int dma_command(const Iommu *m, bool write, uint64_t iova, void *buf,
                       size_t len)
{
    return ts_dma_command(m->t->s, write ? VFIO_USER_DMA_WRITE :
                          VFIO_USER_DMA_READ, iova, len, buf, len);
}

/* The device writes a page, and reads what the guest writes. */
static void check_page(const Iommu *m, uint64_t iova, uint64_t addr,
                       TsDmaWay way)
{
    unsigned seed = iova / PAGE * 7 + addr / PAGE;
    uint8_t out[PAGE], in[PAGE];

    fill(out, PAGE, seed);
    qtest_memwrite(m->qts, addr, out, PAGE);
    g_assert_cmpint(ts_dma_read(m->t->s, iova, in, PAGE, way), ==, 0);
    g_assert(!memcmp(in, out, PAGE));

    fill(out, PAGE, ~seed);
    g_assert_cmpint(ts_dma_write(m->t->s, iova, out, PAGE, way), ==, 0);
    qtest_memread(m->qts, addr, in, PAGE);
    g_assert(!memcmp(in, out, PAGE));
}

/* Neither in a file nor by message. */
static void check_nothing(const Iommu *m, uint64_t iova)
{
    uint8_t buf[16] = { 0 };
    TsWindow w;

    g_assert(!ts_dma_find(m->t->s, iova, &w) || !w.has_fd);
    g_assert_cmpint(dma_command(m, false, iova, buf, sizeof(buf)), ==, EFAULT);
    g_assert_cmpint(dma_command(m, true, iova, buf, sizeof(buf)), ==, EFAULT);
}

static void check_alive(const Iommu *m)
{
    QPCIBar bar = qpci_iomap(m->t->dev, 0, NULL);

    qpci_device_enable(m->t->dev);
    qpci_io_writel(m->t->dev, bar, 0x40, 0x12345678);
    g_assert_cmphex(qpci_io_readl(m->t->dev, bar, 0x40), ==, 0x12345678);
}

static void assert_none_refused(const Iommu *m)
{
    TsRecord r;

    for (unsigned i = 0; ts_log_get(m->t->s, TS_ANY, i, &r); i++) {
        if (r.command == VFIO_USER_DMA_MAP ||
            r.command == VFIO_USER_DMA_UNMAP) {
            g_assert_cmpint(r.error, ==, 0);
        }
    }
}

/* --- Windows --- */

static void test_map_unmap(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });
    TsWindow w;

    for (unsigned i = 0; i < 20; i++) {
        uint64_t iova = IOVA + i * 3 * PAGE, addr = MEMORY + i * 5 * PAGE;

        map_page(m, iova, addr, READ | WRITE);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 1);
        g_assert(ts_dma_find(m->t->s, iova, &w));
        g_assert(w.has_fd && w.addr == iova && w.size == PAGE);
        check_page(m, iova, addr, TS_DMA_MAPPED);
        check_page(m, iova, addr, TS_DMA_MESSAGE);
        check_nothing(m, iova + PAGE);

        map_page(m, iova, 0, 0);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
        check_nothing(m, iova);
    }
    assert_none_refused(m);
    iommu_free(m);
}

/* What is true of the IOMMU's entry is true of the window and of messages. */
static void test_read_only(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });
    uint8_t out[64], in[64];
    TsWindow w;

    map_page(m, IOVA, MEMORY, READ);
    g_assert(ts_dma_find(m->t->s, IOVA, &w));
    g_assert_cmphex(w.flags, ==, VFIO_USER_DMA_READABLE);
    fill(out, sizeof(out), 1);
    qtest_memwrite(m->qts, MEMORY, out, sizeof(out));
    g_assert_cmpint(dma_command(m, false, IOVA, in, sizeof(in)), ==, 0);
    g_assert(!memcmp(in, out, sizeof(in)));
    memset(in, 0xee, sizeof(in));
    g_assert_cmpint(dma_command(m, true, IOVA, in, sizeof(in)), ==, EFAULT);
    qtest_memread(m->qts, MEMORY, in, sizeof(in));
    g_assert(!memcmp(in, out, sizeof(in)));

    /* And the other way round, once the guest has changed its mind. */
    map_page(m, IOVA, MEMORY, READ | WRITE);
    check_page(m, IOVA, MEMORY, TS_DMA_MAPPED);
    iommu_free(m);
}

/* The page that an address means may change. */
static void test_remap(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });

    for (unsigned i = 0; i < 20; i++) {
        map_page(m, IOVA, MEMORY + i * PAGE, READ | WRITE);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 1);
        check_page(m, IOVA, MEMORY + i * PAGE, TS_DMA_MAPPED);
        check_page(m, IOVA, MEMORY + i * PAGE, TS_DMA_MESSAGE);
    }
    assert_none_refused(m);
    iommu_free(m);
}

/* One message over pages that lie apart, and over such that do not. */
static void test_message_over_pages(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });
    enum { NR = 40 };
    g_autofree uint8_t *out = g_malloc(NR * PAGE), *in = g_malloc(NR * PAGE);

    for (unsigned i = 0; i < NR; i++) {
        uint64_t at = i < NR / 2 ? 3 * (NR - i) : 200 + i;

        set_page(m, IOVA + i * PAGE, MEMORY + at * PAGE, READ | WRITE);
    }
    invalidate_pages(m, IOVA, NR);
    fill(out, NR * PAGE, 3);
    g_assert_cmpint(dma_command(m, true, IOVA + 100, out, NR * PAGE - 200), ==,
                    0);
    g_assert_cmpint(dma_command(m, false, IOVA + 100, in, NR * PAGE - 200), ==,
                    0);
    g_assert(!memcmp(in, out, NR * PAGE - 200));
    qtest_memread(m->qts, MEMORY + 3 * (NR - 1) * PAGE, in, PAGE);
    g_assert(!memcmp(in, out + PAGE - 100, PAGE));

    /* One page is missing: all or nothing. */
    map_page(m, IOVA + 7 * PAGE, 0, 0);
    fill(in, NR * PAGE, 4);
    g_assert_cmpint(dma_command(m, true, IOVA + 100, in, NR * PAGE - 200), ==,
                    EFAULT);
    qtest_memread(m->qts, MEMORY + 3 * (NR - 1) * PAGE, in, PAGE);
    g_assert(!memcmp(in, out + PAGE - 100, PAGE));
    iommu_free(m);
}

/* A large page is one window. */
static void test_large_page(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });
    uint64_t addr = 32 * MIB;
    TsWindow w;

    qtest_writeq(m->qts, LEVEL2 + 8, addr | IS_LARGE | READ | WRITE);
    invalidate_pages(m, LARGE, 512);
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 1);
    g_assert(ts_dma_find(m->t->s, LARGE, &w));
    g_assert_cmphex(w.size, ==, LARGE);
    for (uint64_t off = 0; off < LARGE; off += LARGE / 8) {
        check_page(m, LARGE + off, addr + off, TS_DMA_MAPPED);
        check_page(m, LARGE + off, addr + off, TS_DMA_MESSAGE);
    }
    qtest_writeq(m->qts, LEVEL2 + 8, 0);
    invalidate_pages(m, LARGE, 512);
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    iommu_free(m);
}

/* The device gets other tables, and then none. */
static void test_other_domain(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });

    map_page(m, IOVA, MEMORY, READ | WRITE);
    set_context(m, LEVEL3_OTHER);
    invalidate_device(m);
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    check_nothing(m, IOVA);

    set_context(m, LEVEL3);
    invalidate_device(m);
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 1);
    check_page(m, IOVA, MEMORY, TS_DMA_MAPPED);
    assert_none_refused(m);
    iommu_free(m);
}

/* Without translation it is as without an IOMMU, and after a reset. */
static void test_on_and_off(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });

    for (unsigned i = 0; i < 3; i++) {
        map_page(m, IOVA, MEMORY, READ | WRITE);
        check_page(m, IOVA, MEMORY, TS_DMA_MAPPED);

        command(m, VTD_GCMD_QIE);
        check_page(m, MEMORY, MEMORY, TS_DMA_MAPPED);
        check_page(m, MEMORY, MEMORY, TS_DMA_MESSAGE);
        check_page(m, IOVA, IOVA, TS_DMA_MAPPED);

        command(m, VTD_GCMD_QIE | VTD_GCMD_TE);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 1);
        check_page(m, IOVA, MEMORY, TS_DMA_MAPPED);

        qtest_system_reset(m->qts);
        check_page(m, MEMORY, MEMORY, TS_DMA_MAPPED);
        start(m);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    }
    assert_none_refused(m);
    iommu_free(m);
}

typedef struct Early {
    unsigned nr, early;
    uint32_t status;
} Early;

/* The guest must not yet have been told that it may use the page. */
static void look_at_status(TestServer *s, TsMessage *reply, void *opaque)
{
    Early *e = opaque;

    for (unsigned i = 0; i < 2000; i++) {
        uint32_t status;

        if (ts_dma_read(s, IOVA, &status, sizeof(status), TS_DMA_MAPPED) ||
            status != e->status) {
            e->early++;
        }
    }
    e->nr++;
}

/* The guest goes on when the server has let go, and when it has the window. */
static void test_guest_waits(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });
    Early e = { 0 };
    TsMove move = {
        .kind = TS_MOVE_CALL, .command = -1, .index = -1,
        .call = look_at_status, .opaque = &e,
    };

    map_page(m, IOVA, STATUS, READ);
    ts_add_move(m->t->s, &move);
    for (unsigned i = 0; i < 20; i++) {
        e.status = m->status;
        map_page(m, IOVA + PAGE, i & 1 ? 0 : MEMORY, i & 1 ? 0 : READ);
        g_assert_cmpuint(e.nr, ==, i + 1);
    }
    ts_clear_moves(m->t->s);
    g_assert_cmpuint(e.early, ==, 0);
    iommu_free(m);
}

/* 100,000 and more, 1024 at a time, never the same page behind an address. */
static void test_many(void)
{
    Iommu *m = iommu_new((VUTOptions) { 0 });
    g_autofree uint64_t *table = g_new(uint64_t, NR_PAGES);

    ts_log_enable(m->t->s, false);
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < NR_PAGES; i++) {
            unsigned at = (i * 5 + round * 7) % NR_PAGES;

            table[i] = cpu_to_le64((MEMORY + at * PAGE) | READ | WRITE);
        }
        qtest_memwrite(m->qts, LEVEL1 + IOVA / PAGE * 8, table, NR_PAGES * 8);
        invalidate_pages(m, IOVA, NR_PAGES);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, NR_PAGES);
        for (unsigned i = round % 97; i < NR_PAGES; i += 97) {
            check_page(m, IOVA + i * PAGE,
                       le64_to_cpu(table[i]) & ~(PAGE - 1), TS_DMA_MAPPED);
        }
        qtest_memset(m->qts, LEVEL1 + IOVA / PAGE * 8, 0, NR_PAGES * 8);
        invalidate_pages(m, IOVA, NR_PAGES);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    }
    check_alive(m);
    iommu_free(m);
}

/* --- Limits of the server --- */

static unsigned full_limit;

static void setup_limit(TestServer *s)
{
    ts_limits(s)->max_dma_maps = full_limit;
}

/* What the guest has mapped at which address, at random */
static void check_full(const void *data)
{
    uint16_t page[64] = { 0 };
    GRand *rand = g_rand_new_with_seed(1);
    Iommu *m;

    full_limit = GPOINTER_TO_UINT(data);
    m = iommu_new((VUTOptions) { .setup = setup_limit, .stderr_file = true });
    for (unsigned step = 0; step < 600; step++) {
        unsigned i = g_rand_int_range(rand, 0, ARRAY_SIZE(page));

        page[i] = page[i] ? 0 : g_rand_int_range(rand, 1, 1000);
        map_page(m, IOVA + i * PAGE, MEMORY + page[i] * PAGE,
                 page[i] ? READ | WRITE : 0);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), <=, full_limit);
        i = g_rand_int_range(rand, 0, ARRAY_SIZE(page));
        if (page[i]) {
            check_page(m, IOVA + i * PAGE, MEMORY + page[i] * PAGE,
                       TS_DMA_ANY);
        } else {
            check_nothing(m, IOVA + i * PAGE);
        }
    }
    g_rand_free(rand);
    assert_none_refused(m);

    /* With nothing mapped all is as in the beginning. */
    qtest_memset(m->qts, LEVEL1 + IOVA / PAGE * 8, 0, ARRAY_SIZE(page) * 8);
    invalidate_pages(m, IOVA, ARRAY_SIZE(page));
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    map_page(m, IOVA, MEMORY, READ | WRITE);
    check_page(m, IOVA, MEMORY, full_limit < 3 ? TS_DMA_MESSAGE :
                                                 TS_DMA_MAPPED);
    vut_wait_stderr(m->t, "max_dma_maps");
    check_alive(m);
    iommu_free(m);
}

static bool refuse_fds, refuse_all;

static int refuse_map(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque)
{
    return refuse_all || (refuse_fds && request->nr_fds) ? EINVAL : -1;
}

static void setup_refuse(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DMA_MAP, refuse_map, NULL);
}

/*
 * A server that takes no more, by message neither, must not be left to do DMA
 * that it has no window for: some take that for done. The device is lost, the
 * guest goes on.
 */
static void test_refused(void)
{
    Iommu *m = iommu_new((VUTOptions) {
        .setup = setup_refuse, .stderr_file = true,
    });
    QPCIBar bar = qpci_iomap(m->t->dev, 0, NULL);

    qpci_device_enable(m->t->dev);
    map_page(m, IOVA, MEMORY, READ | WRITE);
    check_page(m, IOVA, MEMORY, TS_DMA_MAPPED);
    refuse_all = true;
    for (unsigned i = 1; i < 10; i++) {
        map_page(m, IOVA + i * PAGE, MEMORY + i * PAGE, READ | WRITE);
    }
    refuse_all = false;
    vut_wait_stderr(m->t, "iommu.passthrough=1");
    g_assert(ts_wait_connected(m->t->s, false));
    g_assert_cmphex(qpci_io_readl(m->t->dev, bar, 0x40), ==, UINT32_MAX);
    for (unsigned i = 0; i < 10; i++) {
        map_page(m, IOVA + i * PAGE, 0, 0);
    }
    qtest_qmp_assert_success(m->qts, "{'execute': 'query-status'}");
    iommu_free(m);
}

/* One that does not take a descriptor may go by message. */
static void test_refused_descriptor(void)
{
    Iommu *m = iommu_new((VUTOptions) {
        .setup = setup_refuse, .stderr_file = true,
    });

    refuse_fds = true;
    for (unsigned i = 0; i < 10; i++) {
        map_page(m, IOVA + i * PAGE, MEMORY + i * PAGE, READ | WRITE);
        check_page(m, IOVA + i * PAGE, MEMORY + i * PAGE, TS_DMA_MESSAGE);
    }
    check_alive(m);
    for (unsigned i = 0; i < 10; i++) {
        map_page(m, IOVA + i * PAGE, 0, 0);
    }
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    refuse_fds = false;
    map_page(m, IOVA, MEMORY, READ | WRITE);
    check_page(m, IOVA, MEMORY, TS_DMA_MAPPED);
    iommu_free(m);
}

/* --- A server that refuses while it is stopped --- */

static void setup_stopped(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY);
    ts_like_libvfio_user(s);
    setup_limit(s);
}

static void set_running(Iommu *m, bool running)
{
    uint64_t bytes;

    if (!running) {
        qtest_qmp_assert_success(m->qts, "{'execute': 'stop'}");
        g_assert(ts_mig_wait_state(m->t->s, VFIO_USER_MIG_STOP));
        return;
    }
    qtest_qmp_assert_success(m->qts, "{'execute': 'cont'}");
    g_assert(ts_mig_wait_state(m->t->s, VFIO_USER_MIG_RUNNING));
    VUT_WAIT(!vut_nr_refused(m->t, &bytes));
    vut_flush(m->t);
}

/* What the guest maps at random, also while the VM is stopped: when it runs */
static void check_stopped(const void *data)
{
    uint16_t page[32] = { 0 };
    GRand *rand = g_rand_new_with_seed(2);
    Iommu *m;

    full_limit = GPOINTER_TO_UINT(data);
    m = iommu_new((VUTOptions) {
        .setup = setup_stopped, .stderr_file = true,
    });
    for (unsigned round = 0; round < 20; round++) {
        set_running(m, false);
        for (unsigned step = 0; step < 20; step++) {
            unsigned i = g_rand_int_range(rand, 0, ARRAY_SIZE(page));

            page[i] = page[i] ? 0 : g_rand_int_range(rand, 1, 1000);
            map_page(m, IOVA + i * PAGE, MEMORY + page[i] * PAGE,
                     page[i] ? READ | WRITE : 0);
        }
        set_running(m, true);
        for (unsigned i = 0; i < ARRAY_SIZE(page); i++) {
            if (page[i]) {
                check_page(m, IOVA + i * PAGE, MEMORY + page[i] * PAGE,
                           TS_DMA_ANY);
            } else {
                check_nothing(m, IOVA + i * PAGE);
            }
        }
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), <=, full_limit);
        check_alive(m);
    }
    g_rand_free(rand);
    iommu_free(m);
}

/* --- Servers that go --- */

static void test_server_gone(void)
{
    Iommu *m = iommu_new((VUTOptions) { .stderr_file = true });

    map_page(m, IOVA, MEMORY, READ | WRITE);
    ts_stop_listening(m->t->s);
    ts_disconnect(m->t->s);
    for (unsigned i = 0; i < 100; i++) {
        map_page(m, IOVA + i * PAGE, MEMORY + i * PAGE, READ | WRITE);
    }
    for (unsigned i = 0; i < 100; i++) {
        map_page(m, IOVA + i * PAGE, 0, 0);
    }
    qtest_system_reset(m->qts);
    start(m);
    map_page(m, IOVA, MEMORY, READ | WRITE);
    iommu_free(m);
}

static unsigned times_back(const Iommu *m)
{
    g_autofree char *text = vut_stderr(m->t);

    return vut_occurrences(text, ": the server is back");
}

/* One that is back has what is mapped then, and no more than it can have. */
static void check_server_back(const void *data)
{
    Iommu *m;

    full_limit = GPOINTER_TO_UINT(data);
    m = iommu_new((VUTOptions) {
        .setup = setup_limit, .stderr_file = true,
        .device = ",reconnect-ms=1",
    });
    for (unsigned i = 0; i < 20; i++) {
        map_page(m, IOVA + 2 * i * PAGE, MEMORY + i * PAGE, READ | WRITE);
    }
    for (unsigned life = 0; life < 3; life++) {
        unsigned nr = ts_dma_nr_windows(m->t->s);

        ts_disconnect(m->t->s);
        VUT_WAIT(times_back(m) == life + 1);
        g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, nr);
        check_alive(m);
        for (unsigned i = 0; i < 20; i++) {
            check_page(m, IOVA + 2 * i * PAGE, MEMORY + i * PAGE, TS_DMA_ANY);
            check_nothing(m, IOVA + (2 * i + 1) * PAGE);
        }
    }
    map_page(m, IOVA + PAGE, MEMORY + 100 * PAGE, READ | WRITE);
    check_page(m, IOVA + PAGE, MEMORY + 100 * PAGE, TS_DMA_ANY);
    qtest_memset(m->qts, LEVEL1 + IOVA / PAGE * 8, 0, 64 * 8);
    invalidate_pages(m, IOVA, 64);
    g_assert_cmpuint(ts_dma_nr_windows(m->t->s), ==, 0);
    iommu_free(m);
}

void vut_register_iommu(void)
{
    if (!qtest_has_device("intel-iommu")) {
        return;
    }
    vut_add_test("vfio-user/iommu/map-unmap", test_map_unmap);
    vut_add_test("vfio-user/iommu/read-only", test_read_only);
    vut_add_test("vfio-user/iommu/remap", test_remap);
    vut_add_test("vfio-user/iommu/message-over-pages",
                 test_message_over_pages);
    vut_add_test("vfio-user/iommu/large-page", test_large_page);
    vut_add_test("vfio-user/iommu/other-domain", test_other_domain);
    vut_add_test("vfio-user/iommu/on-and-off", test_on_and_off);
    vut_add_test("vfio-user/iommu/guest-waits", test_guest_waits);
    vut_add_test("vfio-user/iommu/many", test_many);
    vut_add_data_test("vfio-user/iommu/full/1", GUINT_TO_POINTER(1),
                      check_full);
    vut_add_data_test("vfio-user/iommu/full/2", GUINT_TO_POINTER(2),
                      check_full);
    vut_add_data_test("vfio-user/iommu/full/12", GUINT_TO_POINTER(12),
                      check_full);
    vut_add_data_test("vfio-user/iommu/full/31", GUINT_TO_POINTER(31),
                      check_full);
    vut_add_test("vfio-user/iommu/refused", test_refused);
    vut_add_test("vfio-user/iommu/refused-descriptor",
                 test_refused_descriptor);
    vut_add_data_test("vfio-user/iommu/stopped/roomy",
                      GUINT_TO_POINTER(1000), check_stopped);
    vut_add_data_test("vfio-user/iommu/stopped/full", GUINT_TO_POINTER(12),
                      check_stopped);
    vut_add_test("vfio-user/iommu/server-gone", test_server_gone);
    vut_add_data_test("vfio-user/iommu/server-back/roomy",
                      GUINT_TO_POINTER(1000), check_server_back);
    vut_add_data_test("vfio-user/iommu/server-back/full",
                      GUINT_TO_POINTER(12), check_server_back);
}
