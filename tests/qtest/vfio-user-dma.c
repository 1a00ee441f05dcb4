/*
 * vfio-user qtest: guest memory as the server sees it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "vfio-user-util.h"

#define MIB             (1024 * 1024ull)
#define GIB             (1024 * MIB)
/* Under a pc's firmware: memory that is read-only to devices, too. */
#define FIRMWARE        0xfffff000ull
#define HOLE            0xd0000000ull

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = seed + i * 13 + i / 251;
    }
}

/* What one side writes at @addr the other reads, both ways. */
static void check_both_ways(VUTest *t, uint64_t addr, TsDmaWay way)
{
    uint8_t out[5000], in[5000];

    fill(out, sizeof(out), addr >> 12);
    qtest_memwrite(t->qts, addr, out, sizeof(out));
    g_assert_cmpint(ts_dma_read(t->s, addr, in, sizeof(in), way), ==, 0);
    g_assert(!memcmp(in, out, sizeof(in)));

    fill(out, sizeof(out), 0x55 + (addr >> 12));
    g_assert_cmpint(ts_dma_write(t->s, addr, out, sizeof(out), way), ==, 0);
    qtest_memread(t->qts, addr, in, sizeof(in));
    g_assert(!memcmp(in, out, sizeof(in)));
}

static void test_mapped(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });

    check_both_ways(t, 0x1000, TS_DMA_MAPPED);
    check_both_ways(t, 1 * MIB, TS_DMA_MAPPED);
    check_both_ways(t, 128 * MIB - 5000, TS_DMA_MAPPED);
    vut_free(t);
}

/* Windows name the very file that QEMU was given, at the right offset. */
static void test_file_identity(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-m 128M -object memory-backend-file,id=ram,size=128M,"
                "share=on,mem-path=%s/ram -machine memory-backend=ram",
    });
    g_autofree char *path = g_build_filename(t->dir, "ram", NULL);
    unsigned matching = 0;
    struct stat st;
    TsWindow w;

    g_assert(stat(path, &st) == 0);
    for (unsigned i = 0; ts_dma_window(t->s, i, &w); i++) {
        if (w.has_fd && w.dev == st.st_dev && w.ino == st.st_ino) {
            g_assert_cmphex(w.offset, ==, w.addr);
            g_assert_cmphex(w.addr + w.size, <=, 128 * MIB);
            matching++;
        }
    }
    g_assert_cmpuint(matching, >, 0);
    g_assert(ts_dma_find(t->s, 64 * MIB, &w));
    g_assert(w.dev == st.st_dev && w.ino == st.st_ino);
    g_assert_cmphex(w.flags, ==, 3);
    check_both_ways(t, 64 * MIB, TS_DMA_MAPPED);
    g_unlink(path);
    vut_free(t);
}

/* RAM on both sides of the hole below 4 GiB is one file at two offsets. */
static void test_above_4g(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-m 5G -object memory-backend-memfd,id=ram,size=5G,share=on,"
                "reserve=off -machine memory-backend=ram",
    });
    TsWindow low, high;

    g_assert(ts_dma_find(t->s, 16 * MIB, &low));
    g_assert(ts_dma_find(t->s, 4 * GIB, &high));
    g_assert(low.dev == high.dev && low.ino == high.ino);
    g_assert_cmphex(low.offset, ==, low.addr);
    g_assert_cmphex(high.addr, ==, 4 * GIB);
    g_assert_cmphex(high.offset, ==, low.addr + low.size);
    g_assert_cmphex(high.offset + high.size, ==, 5 * GIB);
    check_both_ways(t, 4 * GIB + 3 * MIB, TS_DMA_MAPPED);
    vut_free(t);
}

static void assert_none_refused(VUTest *t, int command)
{
    TsRecord r;

    for (unsigned i = 0; ts_log_get(t->s, (TsMatch) { command, -1, -1 }, i,
                                    &r); i++) {
        g_assert_cmpint(r.error, ==, 0);
    }
}

/* Every window is whole pages, none overlaps: the server refuses others. */
static void test_all_accepted(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    TsMatch maps = { VFIO_USER_DMA_MAP, -1, -1 };

    g_assert_cmpuint(ts_log_count(t->s, maps), >, 0);
    assert_none_refused(t, VFIO_USER_DMA_MAP);
    vut_free(t);
}

static void setup_no_twin(TestServer *s)
{
    ts_limits(s)->twin_socket = false;
}

static void check_message_dma(void (*setup)(TestServer *s))
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup });
    g_autofree uint8_t *big = g_malloc(3 * MIB);
    g_autofree uint8_t *back = g_malloc(3 * MIB);
    TsWindow w;

    g_assert(ts_dma_find(t->s, 1 * MIB, &w));
    g_assert(!w.has_fd);
    check_both_ways(t, 0x3003, TS_DMA_MESSAGE);
    check_both_ways(t, 1 * MIB, TS_DMA_MESSAGE);

    fill(big, 3 * MIB, 9);
    g_assert_cmpint(ts_dma_write(t->s, 8 * MIB + 1, big, 3 * MIB,
                                 TS_DMA_MESSAGE), ==, 0);
    g_assert_cmpint(ts_dma_read(t->s, 8 * MIB + 1, back, 3 * MIB,
                                TS_DMA_MESSAGE), ==, 0);
    g_assert(!memcmp(big, back, 3 * MIB));
    vut_free(t);
}

static void test_message_twin(void)
{
    check_message_dma(NULL);
}

static void test_message_one_socket(void)
{
    check_message_dma(setup_no_twin);
}

/* Also with shared RAM a server may prefer messages. */
static void test_message_shared_ram(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .shared_ram = true, .setup = ts_dma_by_message_only,
    });

    check_both_ways(t, 2 * MIB, TS_DMA_MESSAGE);
    vut_free(t);
}

static void assert_dma_refused(VUTest *t, uint16_t command, uint64_t addr,
                               uint64_t count, size_t len)
{
    g_autofree uint8_t *buf = g_malloc0(len + 1);
    int err = ts_dma_command(t->s, command, addr, count, buf, len);

    /* An error reply: the connection is as good as before. */
    g_assert_cmpint(err, !=, 0);
    g_assert_cmpint(err, !=, ENOTCONN);
    g_assert_cmpint(err, !=, ETIMEDOUT);
    g_assert_cmpint(err, !=, EPROTO);
}

/* What is not guest RAM is not reached, and nothing breaks. */
static void check_refusals(void (*setup)(TestServer *s))
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);

    qpci_device_enable(t->dev);
    assert_dma_refused(t, VFIO_USER_DMA_READ, HOLE, 64, 64);
    assert_dma_refused(t, VFIO_USER_DMA_WRITE, HOLE, 64, 64);
    assert_dma_refused(t, VFIO_USER_DMA_READ, 128 * MIB - 32, 64, 64);
    assert_dma_refused(t, VFIO_USER_DMA_WRITE, 128 * MIB - 32, 64, 64);
    assert_dma_refused(t, VFIO_USER_DMA_READ, UINT64_MAX - 7, 16, 16);
    assert_dma_refused(t, VFIO_USER_DMA_READ, 0x1000, UINT64_MAX, 0);
    assert_dma_refused(t, VFIO_USER_DMA_READ, 0x1000, 64 * MIB, 0);
    /* The device's own BAR, which is by message as well. */
    assert_dma_refused(t, VFIO_USER_DMA_READ, bar.addr, 4, 4);
    assert_dma_refused(t, VFIO_USER_DMA_WRITE, bar.addr, 4, 4);
    check_both_ways(t, 1 * MIB, TS_DMA_MESSAGE);
    qpci_io_writel(t->dev, bar, 4, 0x44);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 4), ==, 0x44);
    vut_free(t);
}

static void test_refusals_twin(void)
{
    check_refusals(NULL);
}

static void test_refusals_one_socket(void)
{
    check_refusals(setup_no_twin);
}

/* A command that contradicts itself ends the connection, not QEMU. */
static void check_malformed(void (*setup)(TestServer *s))
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup,
                                        .stderr_file = true });
    uint8_t before[64], after[64] = { 0 };

    fill(before, sizeof(before), 1);
    qtest_memwrite(t->qts, 0x1000, before, sizeof(before));
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_WRITE, 0x1000, 64,
                                   after, 32), !=, 0);
    qtest_memread(t->qts, 0x1000, after, sizeof(after));
    g_assert(!memcmp(before, after, sizeof(after)));
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    vut_del(t, VUT_ID, VUT_SLOT);
    vut_free(t);
}

static void test_malformed_twin(void)
{
    check_malformed(NULL);
}

static void test_malformed_one_socket(void)
{
    check_malformed(setup_no_twin);
}

/* The part of a transfer that was refused leaves no trace. */
static void test_refused_write_is_whole(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    uint8_t before[32], after[32];

    fill(before, sizeof(before), 3);
    qtest_memwrite(t->qts, 128 * MIB - 32, before, sizeof(before));
    assert_dma_refused(t, VFIO_USER_DMA_WRITE, 128 * MIB - 32, 64, 64);
    qtest_memread(t->qts, 128 * MIB - 32, after, sizeof(after));
    g_assert(!memcmp(before, after, sizeof(after)));
    vut_free(t);
}

/* Firmware can be read and not be written. */
static void test_read_only(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    uint8_t guest[64], server[64], again[64];

    qtest_memread(t->qts, FIRMWARE, guest, sizeof(guest));
    if (ts_dma_command(t->s, VFIO_USER_DMA_READ, FIRMWARE, 64, server,
                       64) == 0) {
        g_assert(!memcmp(guest, server, sizeof(guest)));
    }
    memset(server, 0x5a, sizeof(server));
    assert_dma_refused(t, VFIO_USER_DMA_WRITE, FIRMWARE, 64, 64);
    qtest_memread(t->qts, FIRMWARE, again, sizeof(again));
    g_assert(!memcmp(guest, again, sizeof(guest)));
    vut_free(t);
}

/* A command with no_reply is carried out and gets none. */
static void test_unanswered_write(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    uint32_t value = 0x1ee7c0de, got;

    g_assert_cmpint(ts_dma_command_flags(t->s, VFIO_USER_DMA_WRITE,
                                         VFIO_USER_NO_REPLY, 0x5000, 4,
                                         &value, 4), ==, 0);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_READ, 0x5000, 4, &got,
                                   4), ==, 0);
    g_assert_cmphex(got, ==, value);
    g_assert_cmphex(qtest_readl(t->qts, 0x5000), ==, value);
    vut_free(t);
}

/* Commands that a server does not send are refused, not obeyed. */
static void test_strange_command(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    assert_dma_refused(t, VFIO_USER_DEVICE_RESET, 0, 0, 0);
    assert_dma_refused(t, 77, 0, 0, 0);
    check_both_ways(t, 1 * MIB, TS_DMA_MESSAGE);
    vut_free(t);
}

#define DMA_AT      0x20000ull
#define CROSSING_MS 20

/* A register whose value lies in guest memory. */
static int access_dma(TestServer *s, unsigned region, uint64_t offset,
                      void *data, uint32_t len, bool write, void *opaque)
{
    return write ? ts_dma_write(s, DMA_AT + offset, data, len,
                                TS_DMA_MESSAGE)
                 : ts_dma_read(s, DMA_AT + offset, data, len, TS_DMA_MESSAGE);
}

static void setup_dma_register(TestServer *s)
{
    vut_setup_unmapped(s);
    ts_region(s, 0, 0x1000, 3)->access = access_dma;
}

static void setup_dma_register_one_socket(TestServer *s)
{
    setup_dma_register(s);
    setup_no_twin(s);
}

/* It gives the client's next message the time to come first. */
static int access_slow_dma(TestServer *s, unsigned region, uint64_t offset,
                           void *data, uint32_t len, bool write, void *opaque)
{
    if (ts_message_pending(s, CROSSING_MS)) {
        return EBUSY;
    }
    return access_dma(s, region, offset, data, len, write, opaque);
}

static void setup_dma_register_no_crossing(TestServer *s)
{
    setup_dma_register_one_socket(s);
    ts_region(s, 0, 0x1000, 3)->access = access_slow_dma;
    ts_limits(s)->no_crossing = true;
}

/* The server does DMA before it answers the access that we wait for. */
static void check_inside_access(void (*setup)(TestServer *s), unsigned rounds)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);

    qpci_device_enable(t->dev);
    for (unsigned i = 0; i < rounds; i++) {
        qtest_writel(t->qts, DMA_AT + 0x10, 0xaa000000 + i);
        g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x10), ==,
                        0xaa000000 + i);
        qpci_io_writel(t->dev, bar, 0x20, 0xbb000000 + i);
        qpci_io_readb(t->dev, bar, 0);
        g_assert_cmphex(qtest_readl(t->qts, DMA_AT + 0x20), ==,
                        0xbb000000 + i);
    }
    vut_free(t);
}

static void test_inside_access_twin(void)
{
    check_inside_access(setup_dma_register, 100);
}

static void test_inside_access_one_socket(void)
{
    check_inside_access(setup_dma_register_one_socket, 100);
}

/* libvfio-user of QEMU's own tree: nothing of ours may cross its command. */
static void test_inside_access_no_crossing(void)
{
    check_inside_access(setup_dma_register_no_crossing, 5);
}

/* Private RAM costs speed; the user is told once, and what to do. */
static void test_private_ram_warning(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .stderr_file = true });
    g_autofree char *text = NULL;

    vut_wait_stderr(t, "share=on");
    text = vut_stderr(t);
    g_assert_cmpuint(vut_occurrences(text, "share=on"), ==, 1);
    vut_free(t);
}

/* The server gets no descriptor, though there are some, and does its DMA. */
static void test_share_off(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .stderr_file = true, .shared_ram = true, .device = ",dma-share=off",
    });
    g_autofree char *text = NULL;
    TsRecord r;
    TsWindow w;

    for (unsigned i = 0; ts_log_get(t->s, (TsMatch) { VFIO_USER_DMA_MAP, -1,
                                                      -1 }, i, &r); i++) {
        g_assert_cmpuint(r.nr_fds, ==, 0);
    }
    g_assert(ts_dma_find(t->s, 64 * MIB, &w));
    g_assert(!w.has_fd);
    check_both_ways(t, 64 * MIB, TS_DMA_MESSAGE);
    text = vut_stderr(t);
    g_assert_cmpstr(text, ==, "");
    vut_free(t);
}

/* A server that has the descriptor of guest memory cannot shrink it. */
static void test_sealed(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            (int)qtest_pid(t->qts));
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned sealed = 0;
    const char *name;
    TsWindow w;

    g_assert(ts_dma_find(t->s, 64 * MIB, &w));
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        struct stat st;
        int fd;

        if (stat(link, &st) || st.st_dev != w.dev || st.st_ino != w.ino) {
            continue;
        }
        fd = open(link, O_RDWR | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(ftruncate(fd, 0), ==, -1);
        g_assert_cmpint(errno, ==, EPERM);
        close(fd);
        sealed++;
    }
    g_assert_cmpuint(sealed, >, 0);
    g_dir_close(dir);
    vut_free(t);
}

/* Messages go through the guest's IOMMU. This one lets nothing pass. */
static void test_behind_iommu(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .shared_ram = true,
        .args = "-device virtio-iommu-pci,boot-bypass=off",
    });
    uint8_t data[16] = { 0 };

    g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, 0);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_READ, 64 * MIB,
                                   sizeof(data), data, sizeof(data)), ==,
                    EFAULT);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_WRITE, 64 * MIB,
                                   sizeof(data), data, sizeof(data)), ==,
                    EFAULT);
    vut_free(t);
}

static void test_no_warning_for_shared_ram(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .stderr_file = true, .shared_ram = true,
    });
    g_autofree char *text = vut_stderr(t);

    g_assert_cmpstr(text, ==, "");
    vut_free(t);
}

#define DIMM_SIZE           (64 * MIB)
#define MEMHP_SELECT        0xa00
#define MEMHP_CONTROL       0xa14
#define MEMHP_CONTROL_EJECT 8

static void plug_dimm(VUTest *t)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'object-add', 'arguments': "
        "{'qom-type': 'memory-backend-memfd', 'id': 'more', "
        "'size': 67108864, 'share': true}}");
    qtest_qmp_device_add(t->qts, "pc-dimm", "dimm0", "{'memdev': 'more'}");
}

static uint64_t dimm_address(VUTest *t)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'qom-get', 'arguments': "
        "{'path': '/machine/peripheral/dimm0', 'property': 'addr'}}");
    uint64_t addr = qdict_get_int(response, "return");

    qobject_unref(response);
    return addr;
}

static void unplug_dimm(VUTest *t)
{
    qtest_qmp_device_del_send(t->qts, "dimm0");
    qtest_outl(t->qts, MEMHP_SELECT, 0);
    qtest_outb(t->qts, MEMHP_CONTROL, MEMHP_CONTROL_EJECT);
    qtest_qmp_eventwait(t->qts, "DEVICE_DELETED");
    qtest_qmp_assert_success(t->qts, "{'execute': 'object-del', "
                             "'arguments': {'id': 'more'}}");
}

static void test_hotplugged_memory(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-m 128M,slots=2,maxmem=1G "
                "-object memory-backend-memfd,id=ram,size=128M,share=on "
                "-machine memory-backend=ram",
    });
    unsigned windows = ts_dma_nr_windows(t->s);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    uint64_t addr;
    TsWindow w, ram;

    for (unsigned i = 0; i < 3; i++) {
        plug_dimm(t);
        addr = dimm_address(t);
        g_assert(ts_dma_wait_window(t->s, addr, true));
        g_assert(ts_dma_find(t->s, addr, &w));
        g_assert(ts_dma_find(t->s, 1 * MIB, &ram));
        g_assert_cmphex(w.size, ==, DIMM_SIZE);
        g_assert_cmphex(w.offset, ==, 0);
        g_assert(w.has_fd && w.ino != ram.ino);
        check_both_ways(t, addr + 7, TS_DMA_MAPPED);
        unplug_dimm(t);
        g_assert(ts_dma_wait_window(t->s, addr, false));
        g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, windows);
    }
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

#define PAM_C0000       0x5a
#define PAM_RAM         0x33

/* The chipset switches RAM and ROM at 0xc0000, and windows follow. */
static void test_shadow_ram(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    QPCIDevice *host = qpci_device_find(t->bus, QPCI_DEVFN(0, 0));
    unsigned windows = ts_dma_nr_windows(t->s);
    TsWindow ram, w;

    g_assert(ts_dma_find(t->s, 1 * MIB, &ram));
    for (unsigned i = 0; i < 20; i++) {
        qpci_config_writeb(host, PAM_C0000, PAM_RAM);
        vut_flush(t);
        g_assert(ts_dma_find(t->s, 0xc0000, &w));
        g_assert(w.has_fd && w.ino == ram.ino);
        check_both_ways(t, 0xc0100, TS_DMA_MAPPED);

        qpci_config_writeb(host, PAM_C0000, 0);
        vut_flush(t);
        if (ts_dma_find(t->s, 0xc0000, &w)) {
            g_assert(w.ino != ram.ino);
            g_assert(!(w.flags & VFIO_USER_DMA_WRITEABLE));
        }
        g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, windows);
        check_both_ways(t, 1 * MIB, TS_DMA_MAPPED);
    }
    assert_none_refused(t, VFIO_USER_DMA_MAP);
    assert_none_refused(t, VFIO_USER_DMA_UNMAP);
    g_free(host);
    vut_free(t);
}

/*
 * A server that refuses memory at run time takes the device off, not QEMU; unless it
 * is for want of room (vfio-user-room.c).
 */
static void test_late_refusal(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DMA_MAP, .index = -1,
        .a = EINVAL,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-m 128M,slots=2,maxmem=1G", .stderr_file = true,
    });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);

    qpci_device_enable(t->dev);
    ts_add_move(t->s, &refuse);
    plug_dimm(t);
    vut_wait_stderr(t, "DMA_MAP");
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0), ==, UINT32_MAX);
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    vut_del(t, VUT_ID, VUT_SLOT);
    vut_free(t);
}

void vut_register_dma(void)
{
    vut_add_test("vfio-user/dma/mapped", test_mapped);
    vut_add_test("vfio-user/dma/file-identity", test_file_identity);
    vut_add_test("vfio-user/dma/above-4g", test_above_4g);
    vut_add_test("vfio-user/dma/all-accepted", test_all_accepted);
    vut_add_test("vfio-user/dma/message/twin", test_message_twin);
    vut_add_test("vfio-user/dma/message/one-socket", test_message_one_socket);
    vut_add_test("vfio-user/dma/message/shared-ram", test_message_shared_ram);
    vut_add_test("vfio-user/dma/refusals/twin", test_refusals_twin);
    vut_add_test("vfio-user/dma/refusals/one-socket",
                 test_refusals_one_socket);
    vut_add_test("vfio-user/dma/malformed/twin", test_malformed_twin);
    vut_add_test("vfio-user/dma/malformed/one-socket",
                 test_malformed_one_socket);
    vut_add_test("vfio-user/dma/refusals/write-is-whole",
                 test_refused_write_is_whole);
    vut_add_test("vfio-user/dma/read-only", test_read_only);
    vut_add_test("vfio-user/dma/unanswered-write", test_unanswered_write);
    vut_add_test("vfio-user/dma/strange-command", test_strange_command);
    vut_add_test("vfio-user/dma/inside-access/twin", test_inside_access_twin);
    vut_add_test("vfio-user/dma/inside-access/one-socket",
                 test_inside_access_one_socket);
    vut_add_test("vfio-user/dma/inside-access/no-crossing",
                 test_inside_access_no_crossing);
    vut_add_test("vfio-user/dma/share-off", test_share_off);
    vut_add_test("vfio-user/dma/sealed", test_sealed);
    vut_add_test("vfio-user/dma/behind-iommu", test_behind_iommu);
    vut_add_test("vfio-user/dma/private-ram-warning",
                 test_private_ram_warning);
    vut_add_test("vfio-user/dma/no-warning-for-shared-ram",
                 test_no_warning_for_shared_ram);
    vut_add_test("vfio-user/dma/hotplugged-memory", test_hotplugged_memory);
    vut_add_test("vfio-user/dma/shadow-ram", test_shadow_ram);
    vut_add_test("vfio-user/dma/late-refusal", test_late_refusal);
}
