/*
 * vfio-user qtest: much of everything
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Devices, vectors, BARs and memory as large and as many as PCI and the
 * protocol allow. None of it costs memory that is not touched.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/resource.h>
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "../server/server-migration.h"
#include "vfio-user-util.h"

#define MIB             (1024 * 1024ull)
#define GIB             (1024 * MIB)
#define TIB             (1024 * GIB)

/* Devices ----------------------------------------------------------------- */

#define NR_DEVICES      32
#define NR_FUNCTIONS    8
#define FIRST_SLOT      5
#define MULTI_FUNCTION  0x80    /* in the header type */

typedef struct Crowd {
    VUTest *t;
    char *dir;
    TestServer *servers[NR_DEVICES];
    QPCIDevice *devs[NR_DEVICES];
    QPCIBar bars[NR_DEVICES];
} Crowd;

static unsigned crowd_devfn(unsigned i)
{
    return QPCI_DEVFN(FIRST_SLOT + i / NR_FUNCTIONS, i % NR_FUNCTIONS);
}

static Crowd crowd_new(void)
{
    Crowd c = { .dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL) };
    GString *args = g_string_new(NULL);

    for (unsigned i = 0; i < NR_DEVICES; i++) {
        g_autofree char *name = g_strdup_printf("sock%u", i);

        c.servers[i] = vut_server(c.dir, name, vut_setup_unmapped);
        g_string_append_printf(args, " -device vfio-user-pci,id=many%u,"
                               "addr=%x.%u,multifunction=on,socket=%s/%s",
                               i, FIRST_SLOT + i / NR_FUNCTIONS,
                               i % NR_FUNCTIONS, c.dir, name);
    }
    c.t = vut_new(&(VUTOptions) { .shared_ram = true, .args = args->str });
    g_string_free(args, TRUE);
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        c.devs[i] = qpci_device_find(c.t->bus, crowd_devfn(i));
        g_assert(c.devs[i]);
        c.bars[i] = qpci_iomap(c.devs[i], 0, NULL);
        qpci_device_enable(c.devs[i]);
    }
    return c;
}

static void crowd_free(Crowd *c)
{
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        g_free(c->devs[i]);
    }
    vut_free(c->t);
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        ts_free(c->servers[i]);
    }
    g_assert_cmpint(g_rmdir(c->dir), ==, 0);
    g_free(c->dir);
}

/*
 * 32 functions in four slots: each is found, its registers, its vectors and
 * its view of memory are its own.
 */
static void test_functions(void)
{
    Crowd c = crowd_new();

    for (unsigned i = 0; i < NR_DEVICES; i++) {
        uint8_t type = qpci_config_readb(c.devs[i], PCI_HEADER_TYPE);

        g_assert_cmphex(type & MULTI_FUNCTION, ==,
                        MULTI_FUNCTION);
        qpci_io_writel(c.devs[i], c.bars[i], 0x10, 0xabc000 + i);
        qtest_writel(c.t->qts, 0x100000 + 4 * i, i);
    }
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        const uint32_t *mem = ts_region_mem(c.servers[i], 0);
        uint32_t value;

        g_assert_cmphex(qpci_io_readl(c.devs[i], c.bars[i], 0x10), ==,
                        0xabc000 + i);
        g_assert_cmphex(mem[0x10 / 4], ==, 0xabc000 + i);
        g_assert_cmpint(ts_dma_read(c.servers[i], 0x100000 + 4 * i, &value, 4,
                                    TS_DMA_MAPPED), ==, 0);
        g_assert_cmphex(value, ==, i);
    }
    crowd_free(&c);
}

/* One of them dies: the others in its slot do not notice. */
static void test_functions_one_dies(void)
{
    const unsigned dead = 11;
    Crowd c = crowd_new();

    ts_stop_listening(c.servers[dead]);
    ts_disconnect(c.servers[dead]);
    VUT_WAIT(qpci_io_readl(c.devs[dead], c.bars[dead], 0) == UINT32_MAX);
    for (unsigned i = 0; i < NR_DEVICES; i++) {
        if (i != dead) {
            qpci_io_writel(c.devs[i], c.bars[i], 0x10, i);
            g_assert_cmphex(qpci_io_readl(c.devs[i], c.bars[i], 0x10), ==, i);
        }
    }
    crowd_free(&c);
}

/* Vectors ----------------------------------------------------------------- */

#define NR_VECTORS      2048
#define WORDS           0x400000ull
#define WORD(v)         (WORDS + 4 * (v))
#define DATA(v)         (0x10000 + (v))
#define PBA             0x8000

static void setup_vectors(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0);
    ts_add_bar(s, 4, 0x10000, 0);
    ts_add_msix(s, NR_VECTORS, 4, 0, 4, PBA);
}

static void enable_vectors(VUTest *t)
{
    qpci_device_enable(t->dev);
    qpci_msix_enable(t->dev);
    for (unsigned v = 0; v < NR_VECTORS; v++) {
        uint64_t entry = t->dev->msix_table_off + 16 * v;

        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry, WORD(v));
        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry + 4, 0);
        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry + 8, DATA(v));
        qpci_io_writel(t->dev, t->dev->msix_table_bar, entry + 12, 0);
    }
}

/* Our fds and QEMU's: the test has the server's end of each. */
static rlim_t raise_limit(void)
{
    struct rlimit limit;
    rlim_t before;

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    before = limit.rlim_cur;
    if (limit.rlim_max < 4 * NR_VECTORS) {
        g_test_skip("RLIMIT_NOFILE cannot be raised to 8192");
        return 0;
    }
    limit.rlim_cur = limit.rlim_max;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    return before;
}

static void set_limit(pid_t pid, rlim_t nr)
{
    struct rlimit limit;

    g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, NULL, &limit), ==, 0);
    limit.rlim_cur = nr;
    g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), ==, 0);
}

/* As many as PCI has: each arrives, alone, and its descriptor goes again. */
static void test_vectors(void)
{
    rlim_t limit = raise_limit();
    g_autofree uint32_t *words = g_new0(uint32_t, NR_VECTORS);
    unsigned fds;
    VUTest *t;

    if (!limit) {
        return;
    }
    t = vut_new(&(VUTOptions) { .bare = true, .setup = setup_vectors });
    fds = vut_nr_fds(qtest_pid(t->qts));
    enable_vectors(t);
    g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSIX, NR_VECTORS));
    for (unsigned v = 0; v < NR_VECTORS; v++) {
        g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_MSIX, v), ==, 0);
        VUT_WAIT(qtest_readl(t->qts, WORD(v)) == DATA(v));
        qtest_writel(t->qts, WORD(v), 0);
    }
    qtest_memread(t->qts, WORDS, words, 4 * NR_VECTORS);
    for (unsigned v = 0; v < NR_VECTORS; v++) {
        g_assert_cmphex(words[v], ==, 0);
    }
    qpci_msix_disable(t->dev);
    g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSIX, 0));
    vut_wait_nr_fds(t, fds);
    vut_free(t);
    set_limit(getpid(), limit);
}

static void assert_refused_for(char *error, const char *what)
{
    if (!error || !strstr(error, "RLIMIT_NOFILE") || !strstr(error, what)) {
        g_error("'%s' does not say '%s'", error ?: "(success)", what);
    }
    g_free(error);
}

/*
 * A process that may not have a descriptor for each vector is told so, with
 * figures, and takes the device once it may.
 */
static void test_vectors_limit(void)
{
    rlim_t limit = raise_limit();
    VUTest *t;

    if (!limit) {
        return;
    }
    t = vut_new(&(VUTOptions) { .bare = true, .setup = setup_vectors,
                                .no_device = true });
    set_limit(qtest_pid(t->qts), 1024);
    assert_refused_for(vut_add(t, "vu0", t->path, 5000),
                       "2048 interrupt vectors");
    g_assert(ts_wait_connected(t->s, false));
    set_limit(qtest_pid(t->qts), 4096);
    g_assert_cmpstr(vut_add(t, "vu0", t->path, 5000), ==, NULL);
    vut_free(t);
    set_limit(getpid(), limit);
}

/* Vectors that another device may come to use are not to be had. */
static void test_vectors_promised(void)
{
    rlim_t limit = raise_limit();
    TestServer *second;
    VUTest *t;
    char *dir;

    if (!limit) {
        return;
    }
    t = vut_new(&(VUTOptions) { .bare = true, .setup = setup_vectors });
    dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL);
    second = vut_server(dir, "second", vut_setup_unmapped);
    {
        g_autofree char *path = g_build_filename(dir, "second", NULL);

        set_limit(qtest_pid(t->qts), 2048 + 64);
        assert_refused_for(vut_add(t, "vu1", path, 5000), "2048 are kept");
        /* In use they are open, and so are not counted twice. */
        set_limit(qtest_pid(t->qts), 2048 + 512);
        enable_vectors(t);
        g_assert(ts_irq_wait_nr_fds(t->s, VFIO_USER_IRQ_MSIX, NR_VECTORS));
        g_assert_cmpstr(vut_add(t, "vu1", path, 5000), ==, NULL);
    }
    vut_free(t);
    ts_free(second);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    g_free(dir);
    set_limit(getpid(), limit);
}

/* BARs -------------------------------------------------------------------- */

#define HUGE_BAR        (64 * GIB)
#define HUGE_AT         (128 * GIB)
#define AREA            (2 * MIB)

/* Two areas and the last page of 64 GiB are mapped, the rest is not. */
static void setup_huge_bar(TestServer *s)
{
    TsRegion *r;

    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    r = ts_add_bar(s, 2, HUGE_BAR, TS_BAR_64 | TS_BAR_PREFETCH);
    r->flags |= VFIO_USER_REGION_MMAP;
    r->areas[r->nr_areas++] = (TsArea) { 0x1000, AREA };
    r->areas[r->nr_areas++] = (TsArea) { 33 * GIB, AREA };
    r->areas[r->nr_areas++] = (TsArea) { HUGE_BAR - 0x1000, 0x1000 };
}

static void check_huge(VUTest *t, uint64_t off, bool mapped)
{
    const uint8_t *mem = ts_region_mem(t->s, 2);
    TsMatch any_write = { VFIO_USER_REGION_WRITE, 2, -1 };
    unsigned before = ts_log_count(t->s, any_write);
    uint32_t value = off >> 12 ^ 0x5a5a5a5a;

    qtest_writel(t->qts, HUGE_AT + off, value);
    g_assert_cmphex(qtest_readl(t->qts, HUGE_AT + off), ==, value);
    g_assert_cmphex((uint32_t)ldl_le_p(mem + off), ==, value);
    g_assert_cmpuint(ts_log_count(t->s, any_write), ==, before + !mapped);
}

static void test_huge_bar(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .bare = true, .setup = setup_huge_bar,
    });

    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_2, UINT32_MAX);
    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_3, UINT32_MAX);
    g_assert_cmphex(qpci_config_readl(t->dev, PCI_BASE_ADDRESS_2), ==,
                    PCI_BASE_ADDRESS_MEM_TYPE_64 |
                    PCI_BASE_ADDRESS_MEM_PREFETCH);
    g_assert_cmphex(qpci_config_readl(t->dev, PCI_BASE_ADDRESS_3), ==,
                    -HUGE_BAR >> 32);
    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_2, (uint32_t)HUGE_AT);
    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_3, HUGE_AT >> 32);
    qpci_device_enable(t->dev);

    check_huge(t, 0, false);
    check_huge(t, 0x1000, true);
    check_huge(t, 0x1000 + AREA - 4, true);
    check_huge(t, 0x1000 + AREA, false);
    check_huge(t, 32 * GIB, false);
    check_huge(t, 33 * GIB, true);
    check_huge(t, 33 * GIB + AREA, false);
    check_huge(t, HUGE_BAR - 0x1004, false);
    check_huge(t, HUGE_BAR - 0x1000, true);
    check_huge(t, HUGE_BAR - 4, true);
    vut_free(t);
}

#define ECAM            0xb0000000ull

/* q35's memory-mapped config space; returns the device's. */
static uint64_t enable_ecam(VUTest *t)
{
    QPCIDevice *host = qpci_device_find(t->bus, QPCI_DEVFN(0, 0));

    qpci_config_writel(host, 0x64, 0);
    qpci_config_writel(host, 0x60, ECAM | 1);
    g_free(host);
    return ECAM + (QPCI_DEVFN(VUT_SLOT, 0) << 12);
}

/* BAR0 is 1 MiB now and could be up to 512 MiB, BAR2 is 16 MiB or 64 GiB. */
static void setup_rebar(TestServer *s)
{
    uint32_t body[4] = {
        cpu_to_le32(0x3ff << 4), cpu_to_le32(2 << 5 | 0 << 8),
        cpu_to_le32(1u << 20 | 1u << 8), cpu_to_le32(2 | 4 << 8),
    };

    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, MIB, 0);
    ts_add_bar(s, 2, 16 * MIB, TS_BAR_64 | TS_BAR_PREFETCH);
    ts_add_pcie(s, PCI_EXP_TYPE_ENDPOINT);
    ts_add_ext_cap(s, PCI_EXT_CAP_ID_REBAR, 1, body, sizeof(body));
}

/*
 * Of all sizes the guest sees the present one only, and what it writes reaches
 * nobody: a region of the protocol has one size.
 */
static void test_rebar(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .bare = true, .setup = setup_rebar,
    });
    uint64_t cap = enable_ecam(t) + 0x100;

    g_assert_cmphex(qtest_readl(t->qts, cap) & 0xffff, ==,
                    PCI_EXT_CAP_ID_REBAR);
    g_assert_cmphex(qtest_readl(t->qts, cap + 4), ==, 1 << 4);
    g_assert_cmphex(qtest_readl(t->qts, cap + 8), ==, 2 << 5);
    g_assert_cmphex(qtest_readl(t->qts, cap + 12), ==, 1 << 8);
    g_assert_cmphex(qtest_readl(t->qts, cap + 16) & 0x3f1f, ==, 4 << 8 | 2);
    qtest_writel(t->qts, cap + 16, 16 << 8 | 2);
    g_assert_cmphex(qtest_readl(t->qts, cap + 16) & 0x3f1f, ==, 4 << 8 | 2);
    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_2, UINT32_MAX);
    g_assert_cmphex(qpci_config_readl(t->dev, PCI_BASE_ADDRESS_2), ==,
                    (uint32_t)-(16 * MIB) | 0xc);
    vut_free(t);
}

/* Memory ------------------------------------------------------------------ */

/* Such a server logs: a report's bitmap has to fit a message. */
static void setup_logging(TestServer *s)
{
    ts_standard_device(s);
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY)->logging = true;
}

/* 128 MiB a window, 8192 of them */
static void setup_small_windows(TestServer *s)
{
    setup_logging(s);
    ts_limits(s)->max_data_xfer_size = 4096;
}

static void check_tib(void (*setup)(TestServer *s), unsigned least,
                      unsigned most)
{
    static const uint64_t at[] = {
        0x100000, 2 * GIB - 0x1000, 5 * GIB, 333 * GIB + 12345, TIB - 4096,
        TIB + GIB - 12,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .bare = true, .setup = setup,
        .args = "-cpu Nehalem,phys-bits=46 -m 1T -object memory-backend-memfd,"
                "id=ram,size=1T,share=on,reserve=off "
                "-machine memory-backend=ram",
    });
    uint64_t total = 0;
    TsWindow w;

    g_assert_cmpuint(ts_dma_nr_windows(t->s), >=, least);
    g_assert_cmpuint(ts_dma_nr_windows(t->s), <=, most);
    for (unsigned i = 0; ts_dma_window(t->s, i, &w); i++) {
        total += w.has_fd ? w.size : 0;
    }
    g_assert_cmphex(total, >=, TIB - 64 * MIB);
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        uint64_t there = 0x1234567890abcdef ^ at[i], back = 0;

        qtest_writeq(t->qts, at[i], there);
        g_assert_cmpint(ts_dma_read(t->s, at[i], &back, 8, TS_DMA_MAPPED), ==,
                        0);
        g_assert_cmphex(le64_to_cpu(back), ==, there);
        back = ~back;
        g_assert_cmpint(ts_dma_write(t->s, at[i], &back, 8, TS_DMA_MAPPED), ==,
                        0);
        g_assert_cmphex(qtest_readq(t->qts, at[i]), ==, ~there);
    }
    vut_free(t);
}

static void test_tib(void)
{
    check_tib(ts_standard_device, 2, 16);
}

static void test_tib_logged(void)
{
    check_tib(setup_logging, 32, 64);
}

static void test_tib_many_windows(void)
{
    check_tib(setup_small_windows, 8192, 8400);
}

#define NR_DIMMS        240
#define DIMM_SIZE       (16 * MIB)

/* A guest of many pieces: each is a file of its own. */
static void test_dimms(void)
{
    GString *args = g_string_new("-m 128M,slots=256,maxmem=64G ");
    VUTest *t;

    for (unsigned i = 0; i < NR_DIMMS; i++) {
        g_string_append_printf(args, "-object memory-backend-memfd,id=m%u,"
                               "size=16M,share=on -device pc-dimm,memdev=m%u,"
                               "addr=%llu ", i, i, 4 * GIB + i * DIMM_SIZE);
    }
    t = vut_new(&(VUTOptions) { .shared_ram = true, .args = args->str });
    for (unsigned i = 0; i < NR_DIMMS; i++) {
        uint64_t at = 4 * GIB + i * DIMM_SIZE;
        uint32_t value = 0;
        TsWindow w, next;

        g_assert(ts_dma_find(t->s, at, &w));
        g_assert_cmphex(w.size, ==, DIMM_SIZE);
        if (ts_dma_find(t->s, at + DIMM_SIZE, &next)) {
            g_assert(w.ino != next.ino);
        }
        qtest_writel(t->qts, at + 16, 0xd1000000 + i);
        g_assert_cmpint(ts_dma_read(t->s, at + 16, &value, 4, TS_DMA_MAPPED),
                        ==, 0);
        g_assert_cmphex(le32_to_cpu(value), ==, 0xd1000000 + i);
    }
    vut_free(t);
    g_string_free(args, TRUE);
}

/* Nodes of all kinds: each is reached in the way that it allows. */
static void test_numa(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-m 192M -smp 3 "
                "-object memory-backend-memfd,id=m0,size=64M,share=on "
                "-object memory-backend-file,id=m1,size=64M,share=on,"
                "mem-path=%s/node1 "
                "-object memory-backend-ram,id=m2,size=64M "
                "-numa node,memdev=m0 -numa node,memdev=m1 "
                "-numa node,memdev=m2",
    });
    g_autofree char *file = g_build_filename(t->dir, "node1", NULL);
    const TsDmaWay way[] = { TS_DMA_MAPPED, TS_DMA_MAPPED, TS_DMA_MESSAGE };
    GStatBuf status;
    TsWindow w[3];

    g_assert_cmpint(g_stat(file, &status), ==, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
        uint64_t at = 64 * MIB * i + 2 * MIB;
        uint32_t value = 0;

        g_assert(ts_dma_find(t->s, at, &w[i]));
        g_assert_cmpint(w[i].has_fd, ==, i < 2);
        qtest_writel(t->qts, at, 0xa0de0000 + i);
        g_assert_cmpint(ts_dma_read(t->s, at, &value, 4, way[i]), ==, 0);
        g_assert_cmphex(le32_to_cpu(value), ==, 0xa0de0000 + i);
    }
    g_assert(w[1].ino == status.st_ino && w[1].dev == status.st_dev);
    g_assert(w[0].ino != status.st_ino);
    g_assert_cmphex(w[1].offset, ==, 0);
    g_assert_cmpint(g_unlink(file), ==, 0);
    vut_free(t);
}

static unsigned free_huge_pages(void)
{
    g_autofree char *text = NULL;
    const char *line;

    g_assert(g_file_get_contents("/proc/meminfo", &text, NULL, NULL));
    line = strstr(text, "HugePages_Free:");
    if (!line || !strstr(text, "Hugepagesize:       2048 kB")) {
        return 0;
    }
    return strtoul(line + strlen("HugePages_Free:"), NULL, 10);
}

/* Huge pages: the server maps them as such, all of them. */
static void test_huge_pages(void)
{
    VUTest *t;
    TsWindow w;

    if (free_huge_pages() < 64) {
        g_test_skip("fewer than 64 free huge pages of 2 MiB: "
                    "sysctl vm.nr_hugepages=64");
        return;
    }
    t = vut_new(&(VUTOptions) {
        .args = "-m 128M -object memory-backend-memfd,id=ram,size=128M,"
                "share=on,hugetlb=on,hugetlbsize=2M "
                "-machine memory-backend=ram",
    });
    for (unsigned i = 1; i < 63; i++) {
        uint64_t at = i * 2 * MIB + i;
        uint32_t value = 0;

        g_assert(ts_dma_find(t->s, at, &w));
        g_assert(w.has_fd);
        qtest_writel(t->qts, at, i);
        g_assert_cmpint(ts_dma_read(t->s, at, &value, 4, TS_DMA_MAPPED), ==,
                        0);
        g_assert_cmphex(le32_to_cpu(value), ==, i);
    }
    vut_free(t);
}

void vut_register_many(void)
{
    vut_add_test("vfio-user/many/functions", test_functions);
    vut_add_test("vfio-user/many/functions-one-dies",
                 test_functions_one_dies);
    vut_add_test("vfio-user/many/vectors/all", test_vectors);
    vut_add_test("vfio-user/many/vectors/limit", test_vectors_limit);
    vut_add_test("vfio-user/many/vectors/promised", test_vectors_promised);
    vut_add_test("vfio-user/many/bar/64g", test_huge_bar);
    vut_add_test("vfio-user/many/bar/resizable", test_rebar);
    vut_add_test("vfio-user/many/memory/1t", test_tib);
    vut_add_test("vfio-user/many/memory/1t-logged", test_tib_logged);
    vut_add_test("vfio-user/many/memory/1t-many-windows",
                 test_tib_many_windows);
    vut_add_test("vfio-user/many/memory/dimms", test_dimms);
    vut_add_test("vfio-user/many/memory/numa", test_numa);
    vut_add_test("vfio-user/many/memory/huge-pages", test_huge_pages);
}
