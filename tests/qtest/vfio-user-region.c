/*
 * vfio-user qtest: config space, BARs and ROM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

#define READ(region, off)   ((TsMatch) { VFIO_USER_REGION_READ, region, off })
#define WRITE(region, off)  ((TsMatch) { VFIO_USER_REGION_WRITE, region, off })
#define PATTERN             0x8877665544332211ull

static uint64_t bar_read(VUTest *t, QPCIBar bar, uint64_t off, unsigned size)
{
    switch (size) {
    case 1:
        return qpci_io_readb(t->dev, bar, off);
    case 2:
        return qpci_io_readw(t->dev, bar, off);
    case 4:
        return qpci_io_readl(t->dev, bar, off);
    default:
        return qtest_readq(t->qts, bar.addr + off);
    }
}

static uint64_t low_bytes(uint64_t value, unsigned size)
{
    return size == 8 ? value : value & ((1ull << size * 8) - 1);
}

/*
 * Each access is one message of its own size, and a read sees the write that
 * was posted before it.
 */
static void check_access(VUTest *t, QPCIBar bar, unsigned region,
                         unsigned size)
{
    uint64_t off = 0x40 + size * 8;
    bool posted = !bar.is_io;
    TsRecord r;

    ts_log_clear(t->s);
    vut_bar_write(t, bar, off, size, PATTERN);
    g_assert_cmphex(bar_read(t, bar, off, size), ==,
                    low_bytes(PATTERN, size));
    g_assert_cmpuint(ts_log_count(t->s, WRITE(region, -1)), ==, 1);
    g_assert_cmpuint(ts_log_count(t->s, READ(region, -1)), ==, 1);
    g_assert(ts_log_get(t->s, WRITE(region, off), 0, &r));
    g_assert_cmpuint(r.count, ==, size);
    g_assert_cmpuint(r.len, ==, size);
    g_assert(!memcmp(r.data, &(uint64_t) { PATTERN }, size));
    g_assert_cmpint(!!(r.flags & VFIO_USER_NO_REPLY), ==, posted);
    g_assert(ts_log_get(t->s, READ(region, off), 0, &r));
    g_assert_cmpuint(r.count, ==, size);
    g_assert(!(r.flags & VFIO_USER_NO_REPLY));
}

typedef struct AccessCase {
    const char *name;
    unsigned bar;
    unsigned max_size;
} AccessCase;

static void test_access(const void *data)
{
    const AccessCase *c = data;
    VUTest *t = vut_new(&(VUTOptions) { .setup = vut_setup_unmapped });
    QPCIBar bar = vut_map_bar(t, c->bar);

    for (unsigned size = 1; size <= c->max_size; size *= 2) {
        check_access(t, bar, c->bar, size);
    }
    vut_free(t);
}

static void test_bar_kinds(void)
{
    static const struct { unsigned bar, bits; uint64_t size; } want[] = {
        { 0, 0x0, 0x1000 }, { 1, 0x0, 0x8000 }, { 2, 0xc, 0x10000 },
        { 4, 0x1, 0x100 }, { 5, 0x0, 0x2000 },
    };
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        unsigned reg = PCI_BASE_ADDRESS_0 + 4 * want[i].bar;
        unsigned mask = want[i].bits & 1 ? 3 : 15;
        uint32_t value;

        g_assert_cmphex(qpci_config_readl(t->dev, reg) & mask, ==,
                        want[i].bits);
        qpci_config_writel(t->dev, reg, UINT32_MAX);
        value = qpci_config_readl(t->dev, reg) & ~mask;
        g_assert_cmphex((uint32_t)-value, ==, want[i].size);
    }
    vut_free(t);
}

/* A 64-bit BAR above 4 GiB. */
static void test_high_bar(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = vut_setup_unmapped });
    QPCIBar bar = { .addr = 0x1200000000 };

    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_2, (uint32_t)bar.addr);
    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_3, bar.addr >> 32);
    qpci_device_enable(t->dev);
    ts_log_clear(t->s);
    qtest_writel(t->qts, bar.addr + 0xf00c, 0xfeedbeef);
    g_assert_cmphex(qtest_readl(t->qts, bar.addr + 0xf00c), ==, 0xfeedbeef);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(2, 0xf00c)), ==, 1);
    vut_free(t);
}

/* Posted writes come in their order, all of them, before the read. */
static void test_posted_order(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = vut_setup_unmapped });
    QPCIBar bar = vut_map_bar(t, 0);
    TsRecord r;

    ts_log_clear(t->s);
    for (unsigned i = 0; i < 300; i++) {
        qpci_io_writel(t->dev, bar, 0x10, i);
    }
    g_assert_cmpuint(qpci_io_readl(t->dev, bar, 0x10), ==, 299);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(0, 0x10)), ==, 300);
    for (unsigned i = 0; i < 300; i++) {
        uint32_t value;

        g_assert(ts_log_get(t->s, WRITE(0, 0x10), i, &r));
        g_assert(r.flags & VFIO_USER_NO_REPLY);
        memcpy(&value, r.data, sizeof(value));
        g_assert_cmpuint(value, ==, i);
    }
    vut_free(t);
}

static void read_rom(VUTest *t)
{
    const uint32_t where = 0xec000000;
    uint8_t rom[4096];
    uint32_t size;

    qpci_config_writel(t->dev, PCI_ROM_ADDRESS, 0xfffff800);
    size = qpci_config_readl(t->dev, PCI_ROM_ADDRESS) & 0xfffff800;
    g_assert_cmphex(-size, ==, sizeof(rom));
    qpci_config_writel(t->dev, PCI_ROM_ADDRESS,
                       where | PCI_ROM_ADDRESS_ENABLE);
    qpci_device_enable(t->dev);
    qtest_memread(t->qts, where, rom, sizeof(rom));
    g_assert(!memcmp(rom, ts_region_mem(t->s, VFIO_USER_REGION_ROM),
                     sizeof(rom)));
    g_assert_cmphex(rom[0x800], ==, TS_ROM_BYTE(0x800));
}

static void test_rom(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    read_rom(t);
    vut_free(t);
}

/* More than a socket takes while the server does not read. */
#define STOPPED_WRITES  500

typedef struct Recorder {
    unsigned nr;
    uint32_t values[STOPPED_WRITES];
} Recorder;

static Recorder recorder;

/* Runs on the server's thread; the test looks after a read has come back. */
static int access_record(TestServer *s, unsigned region, uint64_t offset,
                         void *data, uint32_t len, bool write, void *opaque)
{
    if (write && recorder.nr < ARRAY_SIZE(recorder.values)) {
        memcpy(&recorder.values[recorder.nr++], data, sizeof(uint32_t));
    }
    return 0;
}

static void setup_write_multiple(TestServer *s)
{
    vut_setup_unmapped(s);
    ts_limits(s)->write_multiple = true;
    ts_region(s, 0, 0x1000, 3)->access = access_record;
}

/* Writes that may travel together arrive as they were made. */
static void test_write_multiple(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_write_multiple });
    QPCIBar bar = vut_map_bar(t, 0);

    for (unsigned round = 0; round < 5; round++) {
        unsigned nr = 1 + round * 90;

        recorder.nr = 0;
        for (unsigned i = 0; i < nr; i++) {
            qpci_io_writel(t->dev, bar, 0x10, i);
        }
        qpci_io_readl(t->dev, bar, 0x10);
        g_assert_cmpuint(recorder.nr, ==, nr);
        for (unsigned i = 0; i < nr; i++) {
            g_assert_cmpuint(recorder.values[i], ==, i);
        }
    }
    vut_free(t);
}

/* While the server is stopped they gather, and then go in few messages. */
static void test_write_multiple_gathered(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_write_multiple });
    TsMatch multiple = { VFIO_USER_REGION_WRITE_MULTI, -1, -1 };
    QPCIBar bar = vut_map_bar(t, 0);

    recorder.nr = 0;
    ts_hold(t->s);
    for (unsigned i = 0; i < STOPPED_WRITES; i++) {
        qpci_io_writel(t->dev, bar, 0x10, i);
    }
    ts_release(t->s);
    qpci_io_readl(t->dev, bar, 0x10);
    g_assert_cmpuint(recorder.nr, ==, STOPPED_WRITES);
    for (unsigned i = 0; i < STOPPED_WRITES; i++) {
        g_assert_cmpuint(recorder.values[i], ==, i);
    }
    g_assert_cmpuint(ts_log_count(t->s, multiple), >, 0);
    vut_free(t);
}

/* Nobody reads afterwards: the writes go out all the same. */
static void test_write_multiple_alone(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_write_multiple });
    QPCIBar bar = vut_map_bar(t, 0);
    TsMatch single = WRITE(0, 0x10);
    TsMatch multiple = { VFIO_USER_REGION_WRITE_MULTI, -1, -1 };

    ts_log_clear(t->s);
    qpci_io_writel(t->dev, bar, 0x10, 1);
    VUT_WAIT(ts_log_count(t->s, single) + ts_log_count(t->s, multiple) > 0);
    vut_free(t);
}

static void setup_small_transfers(TestServer *s)
{
    ts_limits(s)->max_data_xfer_size = 256;
}

/* What is larger than the server takes at once goes in pieces. */
static void test_small_transfers(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_small_transfers });
    TsMatch reads = { VFIO_USER_REGION_READ, -1, -1 };
    TsRecord r;

    read_rom(t);
    for (unsigned i = 0; ts_log_get(t->s, reads, i, &r); i++) {
        g_assert_cmpuint(r.count, <=, 256);
        g_assert_cmpint(r.error, ==, 0);
    }
    vut_free(t);
}

static int access_error(TestServer *s, unsigned region, uint64_t offset,
                        void *data, uint32_t len, bool write, void *opaque)
{
    return EIO;
}

static void setup_error(TestServer *s)
{
    ts_region(s, 0, 0x1000, 3)->access = access_error;
}

/* A refused read is all-ones, a refused write is dropped; no more than that. */
static void test_refused_access(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_error });
    QPCIBar bar = vut_map_bar(t, 0), other = vut_map_bar(t, 5);

    qpci_io_writel(t->dev, bar, 0, 1);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0), ==, UINT32_MAX);
    g_assert_cmphex(qpci_io_readb(t->dev, bar, 0), ==, 0xff);
    qpci_io_writel(t->dev, other, 0x1800, 0x77);
    g_assert_cmphex(qpci_io_readl(t->dev, other, 0x1800), ==, 0x77);
    vut_free(t);
}

/* What is not emulated on our side is read and written at the server. */
static void test_config(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_VNDR, 0);
    uint8_t *config = ts_region_mem(t->s, VFIO_USER_REGION_CONFIG);
    TsRecord r;

    g_assert_cmphex(cap, >=, 0x40);
    g_assert_cmphex(qpci_config_readb(t->dev, cap + 2), ==, 11);
    g_assert_cmphex(qpci_config_readb(t->dev, cap + 3), ==, 1);
    config[cap + 5] = 0xd5;
    g_assert_cmphex(qpci_config_readb(t->dev, cap + 5), ==, 0xd5);

    ts_log_clear(t->s);
    qpci_config_writew(t->dev, cap + 6, 0xbead);
    /* Nobody but a vCPU waits for a write; what comes after it finds it made. */
    g_assert_cmphex(qpci_config_readw(t->dev, cap + 6), ==, 0xbead);
    g_assert(ts_log_get(t->s, WRITE(VFIO_USER_REGION_CONFIG, cap + 6), 0,
                        &r));
    g_assert_cmpuint(r.count, ==, 2);
    g_assert(!(r.flags & VFIO_USER_NO_REPLY));

    qpci_config_writew(t->dev, PCI_COMMAND, PCI_COMMAND_MASTER);
    qpci_config_readw(t->dev, cap + 6);
    g_assert_cmphex(lduw_le_p(config + PCI_COMMAND) & PCI_COMMAND_MASTER, ==,
                    PCI_COMMAND_MASTER);
    vut_free(t);
}

static void setup_express(TestServer *s)
{
    static const uint8_t serial[8] = { 8, 7, 6, 5, 4, 3, 2, 1 };

    ts_add_pcie(s, 0);
    ts_add_ext_cap(s, 3, 1, serial, sizeof(serial));
}

/* The MMCONFIG window of a q35 reaches beyond byte 255. */
static void test_extended_config(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .setup = setup_express,
    });
    const uint64_t base = 0xb0000000;
    QPCIDevice *host = qpci_device_find(t->bus, QPCI_DEVFN(0, 0));
    uint64_t at = base + (QPCI_DEVFN(VUT_SLOT, 0) << 12);

    qpci_config_writel(host, 0x64, 0);
    qpci_config_writel(host, 0x60, base | 1);
    g_assert_cmphex(qtest_readw(t->qts, at), ==, TS_STANDARD_VENDOR);
    g_assert_cmphex(qtest_readl(t->qts, at + 0x100) & 0xfffff, ==, 0x10003);
    g_assert_cmphex(qtest_readl(t->qts, at + 0x104), ==, 0x05060708);
    g_free(host);
    vut_free(t);
}

static void setup_no_rom(TestServer *s)
{
    ts_region(s, VFIO_USER_REGION_ROM, 0, 0);
}

static void test_no_rom(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_no_rom });

    qpci_config_writel(t->dev, PCI_ROM_ADDRESS, 0xfffff800);
    g_assert_cmphex(qpci_config_readl(t->dev, PCI_ROM_ADDRESS), ==, 0);
    vut_free(t);
}

/* Data goes both ways through a mapping, and no message goes at all. */
static void check_mapped(VUTest *t, QPCIBar bar, unsigned region,
                         uint64_t off)
{
    uint8_t *mem = ts_region_mem(t->s, region);

    ts_log_clear(t->s);
    qpci_io_writel(t->dev, bar, off, 0x5ca1ab1e);
    g_assert_cmphex(ldl_le_p(mem + off), ==, 0x5ca1ab1e);
    stl_le_p(mem + off, 0x0badcafe);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, off), ==, 0x0badcafe);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(region, -1)), ==, 0);
    g_assert_cmpuint(ts_log_count(t->s, READ(region, -1)), ==, 0);
}

/*
 * The holes are by message. Such a write is not posted: an access to the
 * mapped part that follows it must not arrive before it.
 */
static void check_not_mapped(VUTest *t, QPCIBar bar, unsigned region,
                             uint64_t off)
{
    TsRecord r;

    ts_log_clear(t->s);
    qpci_io_writel(t->dev, bar, off, 0x10ca1);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, off), ==, 0x10ca1);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(region, off)), ==, 1);
    g_assert_cmpuint(ts_log_count(t->s, READ(region, off)), ==, 1);
    g_assert(ts_log_get(t->s, WRITE(region, off), 0, &r));
    g_assert(!(r.flags & VFIO_USER_NO_REPLY));
}

static void test_mapped_whole(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QPCIBar bar;

    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_3, 0);
    bar = vut_map_bar(t, 2);
    check_mapped(t, bar, 2, 0);
    check_mapped(t, bar, 2, 0x8004);
    check_mapped(t, bar, 2, 0xfffc);
    vut_free(t);
}

static void check_sparse(VUTest *t, QPCIBar bar)
{
    check_not_mapped(t, bar, 1, 0);
    check_not_mapped(t, bar, 1, 0x0ffc);
    check_mapped(t, bar, 1, 0x1000);
    check_mapped(t, bar, 1, 0x1ffc);
    check_not_mapped(t, bar, 1, 0x2000);
    check_not_mapped(t, bar, 1, 0x3ffc);
    check_mapped(t, bar, 1, 0x4000);
    check_mapped(t, bar, 1, 0x5ffc);
    check_not_mapped(t, bar, 1, 0x6000);
    check_not_mapped(t, bar, 1, 0x7ffc);
}

static void test_mapped_sparse(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    check_sparse(t, vut_map_bar(t, 1));
    vut_free(t);
}

static void setup_fd_offset(TestServer *s)
{
    ts_region(s, 1, 0x8000, 7)->fd_offset = 0x3000;
}

/* The region does not begin where its file begins. */
static void test_mapped_at_offset(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_fd_offset });

    check_sparse(t, vut_map_bar(t, 1));
    vut_free(t);
}

/* Mapped areas follow the BAR when it moves, and go when it is disabled. */
static TsRegion *cut_region;

static void setup_cut(TestServer *s)
{
    cut_region = ts_region(s, 2, 0x10000, VFIO_USER_REGION_READABLE |
                           VFIO_USER_REGION_WRITEABLE | VFIO_USER_REGION_MMAP);
}

/*
 * The file behind a mapped region is cut short while QEMU uses it: what is
 * missing reads as ones, the device is lost, QEMU goes on.
 */
static void test_mapped_cut(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .setup = setup_cut, .stderr_file = true,
    });
    QPCIBar bar2 = vut_map_bar(t, 2), bar0 = vut_map_bar(t, 0);

    vut_bar_write(t, bar2, 0x2000, 4, 0x12345678);
    g_assert_cmphex(bar_read(t, bar2, 0x2000, 4), ==, 0x12345678);
    g_assert_cmpint(ftruncate(cut_region->fd, 0x1000), ==, 0);
    g_assert_cmphex(bar_read(t, bar2, 0x2000, 4), ==, 0xffffffff);
    vut_wait_stderr(t, "cut short the file behind a mapped region");
    vut_bar_write(t, bar2, 0x3000, 4, 1);
    g_assert_cmphex(bar_read(t, bar2, 0x8ffc, 4), ==, 0xffffffff);
    g_assert_cmphex(bar_read(t, bar0, 0, 4), ==, 0xffffffff);
    vut_free(t);
}

static void test_mapped_moves(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QPCIBar bar = vut_map_bar(t, 1);
    uint16_t command = qpci_config_readw(t->dev, PCI_COMMAND);

    for (unsigned i = 0; i < 5; i++) {
        bar.addr = 0xe8000000 + i * 0x100000;
        qpci_config_writel(t->dev, PCI_BASE_ADDRESS_1, bar.addr);
        qpci_config_writew(t->dev, PCI_COMMAND, command);
        check_mapped(t, bar, 1, 0x1010);
        check_not_mapped(t, bar, 1, 0x2010);
        /* A device's memory is not offered for DMA. */
        g_assert(!ts_dma_find(t->s, bar.addr + 0x1010, NULL));
        qpci_config_writew(t->dev, PCI_COMMAND,
                           command & ~PCI_COMMAND_MEMORY);
        g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x1010), !=, 0x0badcafe);
    }
    vut_free(t);
}

static void setup_pcie(TestServer *s)
{
    vut_setup_unmapped(s);
    ts_add_pcie(s, 0);
}

static unsigned bar_writes(VUTest *t)
{
    unsigned nr = 0;

    /* Config writes by QEMU itself are not waited for. */
    vut_flush(t);
    for (unsigned i = 0; i < 6; i++) {
        nr += ts_log_count(t->s, WRITE(VFIO_USER_REGION_CONFIG,
                                       PCI_BASE_ADDRESS_0 + 4 * i));
    }
    return nr;
}

/*
 * The server may have forgotten its BARs, and the guest goes on to see those
 * that it wrote: the server gets them back. By a write of any size.
 */
static void test_function_reset(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_pcie });
    unsigned control = qpci_find_capability(t->dev, PCI_CAP_ID_EXP, 0) + 8;
    uint16_t value = qpci_config_readw(t->dev, control);
    TsRecord r;

    vut_map_bar(t, 0);
    vut_map_bar(t, 2);
    ts_log_clear(t->s);
    qpci_config_writew(t->dev, control, value ^ PCI_EXP_DEVCTL_CERE);
    g_assert_cmpuint(bar_writes(t), ==, 0);
    qpci_config_writeb(t->dev, control + 1, 0x80);
    g_assert_cmpuint(bar_writes(t), ==, 6);
    ts_log_clear(t->s);
    qpci_config_writew(t->dev, control, value | 0x8000);
    g_assert_cmpuint(bar_writes(t), ==, 6);
    for (unsigned i = 0; i < 6; i++) {
        unsigned bar = PCI_BASE_ADDRESS_0 + 4 * i;

        g_assert(ts_log_get(t->s, WRITE(VFIO_USER_REGION_CONFIG, bar), 0,
                            &r));
        g_assert_cmpuint(r.len, ==, 4);
        g_assert_cmphex((uint32_t)ldl_le_p(r.data), ==,
                        qpci_config_readl(t->dev, bar));
    }
    vut_free(t);
}

/* Advanced features: function level reset, and no PCI Express */
static void setup_af(TestServer *s)
{
    const uint8_t body[4] = { 6, PCI_AF_CAP_TP | PCI_AF_CAP_FLR };

    ts_add_cap(s, PCI_CAP_ID_AF, body, sizeof(body));
}

#define BAR_WRITES  ((TsMatch) { VFIO_USER_REGION_WRITE, \
                                 VFIO_USER_REGION_CONFIG, PCI_BASE_ADDRESS_0 })

/* A function level reset may cost the server its BARs: it gets them back. */
static void test_af_flr(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_af });
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_AF, 0);
    QPCIBar bar = vut_map_bar(t, 0);
    uint32_t addr = qpci_config_readl(t->dev, PCI_BASE_ADDRESS_0);
    TsRecord r;

    g_assert_cmphex(cap, !=, 0);
    vut_bar_write(t, bar, 0, 4, 1);
    vut_flush(t);
    ts_log_clear(t->s);
    qpci_config_writeb(t->dev, cap + PCI_AF_CTRL, 0);
    vut_flush(t);
    g_assert_cmpuint(ts_log_count(t->s, BAR_WRITES), ==, 0);
    qpci_config_writeb(t->dev, cap + PCI_AF_CTRL, PCI_AF_CTRL_FLR);
    vut_flush(t);
    g_assert(ts_log_get(t->s, BAR_WRITES, 0, &r));
    g_assert_cmphex((uint32_t)ldl_le_p(r.data), ==, addr);
    vut_free(t);
}

void vut_register_region(void)
{
    static const AccessCase cases[] = {
        { "memory32", 0, 8 }, { "prefetchable", 1, 8 }, { "memory64", 2, 8 },
        { "io", 4, 4 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/region/access/%s",
                                                cases[i].name);

        vut_add_data_test(path, &cases[i], test_access);
    }
    vut_add_test("vfio-user/region/bar-kinds", test_bar_kinds);
    vut_add_test("vfio-user/region/high-bar", test_high_bar);
    vut_add_test("vfio-user/region/posted-order", test_posted_order);
    vut_add_test("vfio-user/region/write-multiple", test_write_multiple);
    vut_add_test("vfio-user/region/write-multiple-gathered",
                 test_write_multiple_gathered);
    vut_add_test("vfio-user/region/write-multiple-alone",
                 test_write_multiple_alone);
    vut_add_test("vfio-user/region/small-transfers", test_small_transfers);
    vut_add_test("vfio-user/region/refused-access", test_refused_access);
    vut_add_test("vfio-user/region/config", test_config);
    vut_add_test("vfio-user/region/extended-config", test_extended_config);
    vut_add_test("vfio-user/region/function-reset", test_function_reset);
    vut_add_test("vfio-user/region/rom", test_rom);
    vut_add_test("vfio-user/region/no-rom", test_no_rom);
    vut_add_test("vfio-user/region/mapped/whole", test_mapped_whole);
    vut_add_test("vfio-user/region/mapped/sparse", test_mapped_sparse);
    vut_add_test("vfio-user/region/mapped/at-offset", test_mapped_at_offset);
    vut_add_test("vfio-user/region/mapped/moves", test_mapped_moves);
    vut_add_test("vfio-user/region/mapped/cut", test_mapped_cut);
    vut_add_test("vfio-user/region/config-af-flr", test_af_flr);
}
