/*
 * vfio-user qtest: writes that are signals
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A write that signals leaves no message, so each check looks at both: what the
 * eventfd has counted, and what the server was told.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

#define WRITE(region, off)  ((TsMatch) { VFIO_USER_REGION_WRITE, region, off })
#define ASKED               ((TsMatch) { \
                                 VFIO_USER_DEVICE_GET_REGION_IO_FDS, -1, -1 })
#define VALUE               0x8877665544332211ull

/* Made by the setup functions of a test, used by the test. */
static TsIoFd *io[4];
static void *shadow[4];

/* One write: does it signal @e, and is a message sent? Both cannot be. */
static void check_write(VUTest *t, unsigned region, QPCIBar bar, uint64_t off,
                        unsigned size, uint64_t value, TsIoFd *e, bool signals)
{
    uint64_t before = ts_io_fd_count(t->s, e);
    unsigned messages = ts_log_count(t->s, WRITE(region, off));

    vut_bar_write(t, bar, off, size, value);
    vut_flush(t);
    g_assert_cmpuint(ts_io_fd_count(t->s, e), ==, before + signals);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(region, off)), ==,
                     messages + !signals);
}

/* Sizes ------------------------------------------------------------------- */

static unsigned sizes_bar, sizes_size;

static void setup_size(TestServer *s)
{
    io[0] = ts_add_io_fd(s, sizes_bar, 0x40, sizes_size);
}

typedef struct SizeCase {
    const char *name;
    unsigned bar, size, max;
} SizeCase;

/* Only a write of the sub-region's size at its very offset is a signal. */
static void test_size(const void *data)
{
    const SizeCase *c = data;
    QPCIBar bar;
    VUTest *t;

    sizes_bar = c->bar;
    sizes_size = c->size;
    t = vut_new(&(VUTOptions) { .setup = setup_size });
    bar = vut_map_bar(t, c->bar);
    for (unsigned size = 1; size <= c->max; size *= 2) {
        bool takes = !c->size || c->size == size;

        check_write(t, c->bar, bar, 0x40, size, VALUE, io[0], takes);
        check_write(t, c->bar, bar, 0x40, size, 0, io[0], takes);
        check_write(t, c->bar, bar, 0x38, size, VALUE, io[0], false);
        check_write(t, c->bar, bar, 0x48, size, VALUE, io[0], false);
    }
    vut_free(t);
}

static void setup_wide(TestServer *s)
{
    io[0] = ts_add_io_fd(s, 0, 0x40, 4);
    io[1] = ts_add_io_fd(s, 0, 0x40, 8);
    io[2] = ts_add_io_fd(s, 0, 0x40, 2);
}

/* Several at one offset: the size decides. */
static void test_size_at_same_offset(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_wide });
    QPCIBar bar = vut_map_bar(t, 0);

    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);
    check_write(t, 0, bar, 0x40, 8, 1, io[1], true);
    check_write(t, 0, bar, 0x40, 2, 1, io[2], true);
    check_write(t, 0, bar, 0x40, 1, 1, io[2], false);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, 1);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[1]), ==, 1);
    vut_free(t);
}

/* Values ------------------------------------------------------------------ */

static void setup_match(TestServer *s)
{
    io[0] = ts_add_io_fd(s, 0, 0x40, 4);
    ts_io_fd_match(io[0], 0x80000001);
    io[1] = ts_add_io_fd(s, 0, 0x40, 4);
    ts_io_fd_match(io[1], 2);
    io[2] = ts_add_io_fd(s, 0, 0x48, 8);
    ts_io_fd_match(io[2], VALUE);
    io[3] = ts_add_io_fd(s, 4, 0x10, 4);
    ts_io_fd_match(io[3], 0x12345678);
    io[3]->entry.flags |= VFIO_USER_IO_FD_PIO;
}

static void test_match(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_match });
    QPCIBar bar = vut_map_bar(t, 0), ports = vut_map_bar(t, 4);

    check_write(t, 0, bar, 0x40, 4, 0x80000001, io[0], true);
    check_write(t, 0, bar, 0x40, 4, 2, io[1], true);
    check_write(t, 0, bar, 0x40, 4, 3, io[0], false);
    check_write(t, 0, bar, 0x40, 4, 1, io[0], false);
    check_write(t, 0, bar, 0x40, 2, 2, io[1], false);
    check_write(t, 0, bar, 0x48, 8, VALUE, io[2], true);
    check_write(t, 0, bar, 0x48, 8, (uint32_t)VALUE, io[2], false);
    check_write(t, 4, ports, 0x10, 4, 0x12345678, io[3], true);
    check_write(t, 4, ports, 0x10, 4, 0x5678, io[3], false);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, 1);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[1]), ==, 1);
    vut_free(t);
}

static void setup_shadow(TestServer *s)
{
    io[0] = ts_add_io_fd(s, 0, 0x40, 4);
    shadow[0] = ts_io_fd_shadow(s, io[0], 0x1008);
    io[1] = ts_add_io_fd(s, 0, 0x48, 0);
    shadow[1] = ts_io_fd_shadow(s, io[1], 0x10);
    io[2] = ts_add_io_fd(s, 0, 0x50, 2);
    shadow[2] = ts_io_fd_shadow(s, io[2], 0xffe);
    ts_io_fd_match(io[2], 0x1234);
    io[3] = ts_add_io_fd(s, 4, 0x10, 1);
    shadow[3] = ts_io_fd_shadow(s, io[3], 0x1ffc);
}

/* The value is in the server's memory when its signal comes. */
static void test_shadow(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_shadow });
    QPCIBar bar = vut_map_bar(t, 0), ports = vut_map_bar(t, 4);
    uint64_t *any = shadow[1];

    check_write(t, 0, bar, 0x40, 4, 0xcafe0001, io[0], true);
    g_assert_cmphex(*(uint32_t *)shadow[0], ==, 0xcafe0001);
    check_write(t, 0, bar, 0x40, 4, 0xcafe0002, io[0], true);
    g_assert_cmphex(*(uint32_t *)shadow[0], ==, 0xcafe0002);
    check_write(t, 0, bar, 0x40, 2, 0xdead, io[0], false);
    g_assert_cmphex(*(uint64_t *)shadow[0], ==, 0xcafe0002);

    check_write(t, 0, bar, 0x48, 8, VALUE, io[1], true);
    g_assert_cmphex(*any, ==, VALUE);
    check_write(t, 0, bar, 0x48, 2, 0, io[1], true);
    g_assert_cmphex(*any, ==, VALUE & ~0xffffull);
    check_write(t, 0, bar, 0x48, 1, 0xff, io[1], true);
    g_assert_cmphex(*any, ==, (VALUE & ~0xffffull) | 0xff);

    check_write(t, 0, bar, 0x50, 2, 0x1235, io[2], false);
    g_assert_cmphex(*(uint16_t *)shadow[2], ==, 0);
    check_write(t, 0, bar, 0x50, 2, 0x1234, io[2], true);
    g_assert_cmphex(*(uint16_t *)shadow[2], ==, 0x1234);

    check_write(t, 4, ports, 0x10, 1, 0x5a, io[3], true);
    g_assert_cmphex(*(uint32_t *)shadow[3], ==, 0x5a);
    vut_free(t);
}

/* A shadow that is cut short takes the device offline, and nothing else. */
static void test_shadow_cut(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_shadow,
                                        .stderr_file = true });
    QPCIBar bar = vut_map_bar(t, 0);

    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);
    ts_io_shadow_cut(t->s);
    vut_bar_write(t, bar, 0x40, 4, 2);
    vut_wait_stderr(t, "has cut short the file");
    g_assert(ts_wait_connected(t->s, false));
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x40), ==, 0xffffffff);
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    vut_free(t);
}

/* Descriptors ------------------------------------------------------------- */

static void setup_shared(TestServer *s)
{
    io[0] = ts_add_io_fd(s, 0, 0x40, 4);
    for (unsigned i = 1; i < TS_MAX_IO_FDS; i++) {
        ts_add_io_fd(s, 0, 0x40 + 4 * i, 4)->shares = io[0];
    }
}

/* More of them than a reply has room for at first, and one eventfd for all. */
static void test_shared(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_shared });
    QPCIBar bar = vut_map_bar(t, 0);

    for (unsigned i = 0; i < TS_MAX_IO_FDS; i++) {
        check_write(t, 0, bar, 0x40 + 4 * i, 4, i, io[0], true);
    }
    check_write(t, 0, bar, 0x40 + 4 * TS_MAX_IO_FDS, 4, 0, io[0], false);
    vut_free(t);
}

static void setup_as_many_as_fds(TestServer *s)
{
    for (unsigned i = 0; i < VFIO_USER_MAX_MSG_FDS; i++) {
        TsIoFd *e = ts_add_io_fd(s, 0, 0x40 + 4 * i, 4);

        if (i == VFIO_USER_MAX_MSG_FDS - 1) {
            io[0] = e;
        }
    }
}

static void test_as_many_as_fds(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_as_many_as_fds });
    QPCIBar bar = vut_map_bar(t, 0);
    uint64_t last = 0x40 + 4 * (VFIO_USER_MAX_MSG_FDS - 1);

    check_write(t, 0, bar, last, 4, 7, io[0], true);
    vut_free(t);
}

/* QEMU has one descriptor for each eventfd, and none after unplugging. */
static void test_unplug(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_shadow,
                                        .no_device = true });
    unsigned before = vut_nr_fds(qtest_pid(t->qts));

    for (unsigned i = 0; i < 2; i++) {
        QPCIBar bar;

        g_assert_null(vut_add(t, "vu1", t->path, VUT_TIMEOUT_MS));
        vut_find(t, 2);
        bar = vut_map_bar(t, 0);
        check_write(t, 0, bar, 0x40, 4, i, io[0], true);
        g_clear_pointer(&t->dev, g_free);
        vut_del(t, "vu1", 2);
        g_assert(ts_wait_connected(t->s, false));
        vut_wait_nr_fds(t, before);
    }
    vut_free(t);
}

/* Mapped areas ------------------------------------------------------------ */

static void setup_mapped(TestServer *s)
{
    /* BAR1 is mapped from 0x1000 to 0x2000, BAR2 as a whole. */
    io[0] = ts_add_io_fd(s, 1, 0x1010, 4);
    io[1] = ts_add_io_fd(s, 1, 0xff8, 8);
    io[2] = ts_add_io_fd(s, 1, 0x2000, 4);
    io[3] = ts_add_io_fd(s, 2, 0x40, 4);
}

/* Where the guest has the device's memory, a write goes there. */
static void test_mapped(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_mapped });
    QPCIBar bar = vut_map_bar(t, 1), whole = vut_map_bar(t, 2);
    uint32_t *mem = ts_region_mem(t->s, 1);

    vut_bar_write(t, bar, 0x1010, 4, 0x1234);
    vut_flush(t);
    g_assert_cmphex(mem[0x1010 / 4], ==, 0x1234);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, 0);
    vut_bar_write(t, whole, 0x40, 4, 0x1234);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[3]), ==, 0);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(-1, 0x1010)), ==, 0);
    check_write(t, 1, bar, 0xff8, 8, VALUE, io[1], true);
    check_write(t, 1, bar, 0x2000, 4, 1, io[2], true);
    vut_free(t);
}

/* Without mapping they are served everywhere that was asked about. */
static void test_not_mapped(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_mapped,
                                        .device = ",x-no-mmap=on" });
    QPCIBar bar = vut_map_bar(t, 1);

    check_write(t, 1, bar, 0x1010, 4, 1, io[0], true);
    check_write(t, 1, bar, 0x2000, 4, 1, io[2], true);
    vut_free(t);
}

/* Asking ------------------------------------------------------------------ */

static void setup_one(TestServer *s)
{
    vut_setup_unmapped(s);
    io[0] = ts_add_io_fd(s, 0, 0x40, 4);
}

static void check_posted(VUTest *t, QPCIBar bar, bool posted)
{
    TsRecord r;

    ts_log_clear(t->s);
    vut_bar_write(t, bar, 0x80, 4, 1);
    vut_flush(t);
    g_assert(ts_log_get(t->s, WRITE(0, 0x80), 0, &r));
    g_assert_cmpint(!!(r.flags & VFIO_USER_NO_REPLY), ==, posted);
}

/*
 * A signal must not overtake the writes before it: with sub-regions, every
 * write by message is waited for.
 */
static void test_order(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_one });
    QPCIBar bar = vut_map_bar(t, 0);

    g_assert_cmpuint(ts_log_count(t->s, ASKED), ==, 5);
    check_posted(t, bar, false);
    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);
    vut_free(t);
}

/* Where nothing was offered, writes are posted as before. */
static void test_none(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = vut_setup_unmapped });
    QPCIBar bar = vut_map_bar(t, 0);

    g_assert_cmpuint(ts_log_count(t->s, ASKED), ==, 5);
    check_posted(t, bar, true);
    vut_free(t);
}

static void test_off(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_one,
                                        .device = ",ioeventfd=off" });
    QPCIBar bar = vut_map_bar(t, 0);

    g_assert_cmpuint(ts_log_count(t->s, ASKED), ==, 0);
    check_posted(t, bar, true);
    check_write(t, 0, bar, 0x40, 4, 1, io[0], false);
    vut_free(t);
}

/* A region that is mapped as a whole, or is not there, is not asked about. */
static void test_asked(void)
{
    static const int want[] = { 0, 1, 4, 5 };
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    TsRecord r;

    g_assert_cmpuint(ts_log_count(t->s, ASKED), ==, ARRAY_SIZE(want));
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        g_assert(ts_log_get(t->s, ASKED, i, &r));
        g_assert_cmpint(r.index, ==, want[i]);
        g_assert_cmpint(r.error, ==, 0);
    }
    vut_free(t);
}

/* Life -------------------------------------------------------------------- */

static void test_move(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_wide });
    QPCIBar bar = vut_map_bar(t, 0);
    uint32_t where = qpci_config_readl(t->dev, PCI_BASE_ADDRESS_0);
    uint16_t command;

    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);
    qpci_config_writel(t->dev, PCI_BASE_ADDRESS_0, where + 0x100000);
    bar.addr += 0x100000;
    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);

    command = qpci_config_readw(t->dev, PCI_COMMAND);
    qpci_config_writew(t->dev, PCI_COMMAND, command & ~PCI_COMMAND_MEMORY);
    vut_bar_write(t, bar, 0x40, 4, 1);
    vut_flush(t);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, 2);
    qpci_config_writew(t->dev, PCI_COMMAND, command);
    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);
    vut_free(t);
}

static void test_reset(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_shadow });
    QPCIBar bar;

    for (unsigned i = 0; i < 3; i++) {
        bar = vut_map_bar(t, 0);
        check_write(t, 0, bar, 0x40, 4, 0x100 + i, io[0], true);
        g_assert_cmphex(*(uint32_t *)shadow[0], ==, 0x100 + i);
        qtest_system_reset(t->qts);
    }
    g_assert_cmpuint(ts_log_count(t->s, ASKED), ==, 4);
    vut_free(t);
}

/* A read is a message as ever. */
static void test_read(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_wide });
    QPCIBar bar = vut_map_bar(t, 0);
    uint32_t *mem = ts_region_mem(t->s, 0);

    mem[0x40 / 4] = 0x1234;
    check_write(t, 0, bar, 0x40, 4, 0x5678, io[0], true);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 0x40), ==, 0x1234);
    vut_free(t);
}

/* A counter that the server has filled does not stop anyone. */
static void test_full(void)
{
    uint64_t most = UINT64_MAX - 1;
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_wide });
    QPCIBar bar = vut_map_bar(t, 0);

    /* A reader that blocks, as most are. */
    g_assert(fcntl(io[0]->fd, F_SETFL, 0) == 0);
    g_assert(write(io[0]->fd, &most, sizeof(most)) == sizeof(most));
    vut_bar_write(t, bar, 0x40, 4, 1);
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, most);
    check_write(t, 0, bar, 0x40, 2, 1, io[2], true);
    vut_free(t);
}

/* Nobody is there to take it. */
static void test_gone(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_shadow,
                                        .stderr_file = true });
    QPCIBar bar = vut_map_bar(t, 0);

    check_write(t, 0, bar, 0x40, 4, 5, io[0], true);
    ts_disconnect(t->s);
    VUT_WAIT(qpci_io_readl(t->dev, bar, 0x80) == 0xffffffff);
    vut_bar_write(t, bar, 0x40, 4, 6);
    g_assert_cmphex(*(uint32_t *)shadow[0], ==, 5);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, 1);
    vut_free(t);
}

/* Has the guest the device's memory? */
static bool is_mapped(VUTest *t)
{
    g_autofree char *tree = qtest_hmp(t->qts, "info mtree");

    return strstr(tree, "mmaps[0]");
}

/*
 * A signal would overtake what the server was told by somebody else than the guest, and
 * has not answered. So would an access to a mapped area.
 */
static void test_untold(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .setup = setup_wide, .device = ",x-msg-timeout-ms=200",
        .args = "-m 128M,slots=2,maxmem=1G "
                "-object memory-backend-memfd,id=more,size=2M,share=on "
                "-object memory-backend-memfd,id=most,size=2M,share=on",
        .stderr_file = true,
    });
    QPCIBar bar = vut_map_bar(t, 0);

    vut_map_bar(t, 2);
    check_write(t, 0, bar, 0x40, 4, 1, io[0], true);
    g_assert(is_mapped(t));
    ts_hold(t->s);
    qtest_qmp_device_add(t->qts, "pc-dimm", "dimm0", "{'memdev': 'more'}");
    VUT_WAIT(!is_mapped(t));
    /* Nobody answers this one in time. */
    vut_bar_write(t, bar, 0x40, 4, 2);
    ts_release(t->s);
    VUT_WAIT(is_mapped(t));
    vut_flush(t);
    g_assert_cmpuint(ts_log_count(t->s, WRITE(0, 0x40)), ==, 1);
    g_assert_cmpuint(ts_io_fd_count(t->s, io[0]), ==, 1);
    check_write(t, 0, bar, 0x40, 4, 3, io[0], true);

    /* An INTx keeps the guest from the memory, whatever was told. */
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_INTX, 0), ==, 0);
    VUT_WAIT(!is_mapped(t));
    ts_hold(t->s);
    qtest_qmp_device_add(t->qts, "pc-dimm", "dimm1", "{'memdev': 'most'}");
    ts_release(t->s);
    VUT_WAIT((vut_bar_write(t, bar, 0x40, 4, 4),
              ts_io_fd_count(t->s, io[0]) > 2));
    g_assert(!is_mapped(t));
    vut_free(t);
}

void vut_register_ioeventfd(void)
{
    static const SizeCase sizes[] = {
        { "memory-1", 0, 1, 8 }, { "memory-2", 0, 2, 8 },
        { "memory-4", 0, 4, 8 }, { "memory-8", 0, 8, 8 },
        { "memory-any", 0, 0, 8 }, { "ports-1", 4, 1, 4 },
        { "ports-2", 4, 2, 4 }, { "ports-4", 4, 4, 4 },
        { "ports-any", 4, 0, 4 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/ioeventfd/%s",
                                                sizes[i].name);

        vut_add_data_test(path, &sizes[i], test_size);
    }
    vut_add_test("vfio-user/ioeventfd/same-offset", test_size_at_same_offset);
    vut_add_test("vfio-user/ioeventfd/match", test_match);
    vut_add_test("vfio-user/ioeventfd/shadow", test_shadow);
    vut_add_test("vfio-user/ioeventfd/shadow-cut", test_shadow_cut);
    vut_add_test("vfio-user/ioeventfd/shared", test_shared);
    vut_add_test("vfio-user/ioeventfd/as-many-as-fds", test_as_many_as_fds);
    vut_add_test("vfio-user/ioeventfd/unplug", test_unplug);
    vut_add_test("vfio-user/ioeventfd/mapped", test_mapped);
    vut_add_test("vfio-user/ioeventfd/not-mapped", test_not_mapped);
    vut_add_test("vfio-user/ioeventfd/order", test_order);
    vut_add_test("vfio-user/ioeventfd/none", test_none);
    vut_add_test("vfio-user/ioeventfd/off", test_off);
    vut_add_test("vfio-user/ioeventfd/asked", test_asked);
    vut_add_test("vfio-user/ioeventfd/move", test_move);
    vut_add_test("vfio-user/ioeventfd/reset", test_reset);
    vut_add_test("vfio-user/ioeventfd/read", test_read);
    vut_add_test("vfio-user/ioeventfd/full", test_full);
    vut_add_test("vfio-user/ioeventfd/gone", test_gone);
    vut_add_test("vfio-user/ioeventfd/untold", test_untold);
}
