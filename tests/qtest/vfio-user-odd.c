/*
 * vfio-user qtest: odd servers, devices and machines
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All of it is within the protocol, and no server that we know does it:
 * limits at their ends, devices without the usual parts, memory in pieces.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

#define MIB             (1024 * 1024ull)
#define PAGE            4096u
#define DIMM_BASE       (4096 * MIB)
/* Pieces that one command of the server's may touch */
#define MAX_PIECES      64
#define MAP             ((TsMatch) { VFIO_USER_DMA_MAP, -1, -1 })

static void check_works(VUTest *t, QPCIBar bar, uint32_t value)
{
    qpci_io_writel(t->dev, bar, 8, value);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 8), ==, value);
}

static void check_lost(VUTest *t, QPCIBar bar, const char *text)
{
    vut_wait_stderr(t, text);
    vut_wait_stderr(t, "device lost");
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 8), ==, UINT32_MAX);
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
}

/* Interrupts --------------------------------------------------------------- */

static void setup_no_fds(TestServer *s)
{
    ts_limits(s)->twin_socket = false;
    ts_limits(s)->json = "{\"capabilities\": {\"max_msg_fds\": 0}}";
}

/* How is it to interrupt? It says so, and is no device. */
static void test_no_fds_refused(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_no_fds, .stderr_file = true,
    });
    g_autofree char *error = vut_add(t, VUT_ID, t->path, VUT_TIMEOUT_MS);

    g_assert_nonnull(error);
    vut_wait_stderr(t, "max_msg_fds is 0");
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

static void setup_no_fds_no_irqs(TestServer *s)
{
    setup_no_fds(s);
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0);
}

/* Without interrupts it is one, and asks for memory by messages. */
static void test_no_fds_memory(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .bare = true, .setup = setup_no_fds_no_irqs, .shared_ram = true,
    });
    uint32_t value = 0x600df00d;
    TsRecord r;

    check_works(t, vut_map_bar(t, 0), 1);
    g_assert_cmpuint(ts_log_count(t->s, MAP), >, 0);
    for (unsigned i = 0; ts_log_get(t->s, TS_ANY, i, &r); i++) {
        g_assert_cmpuint(r.nr_fds, ==, 0);
    }
    g_assert_cmpint(ts_dma_write(t->s, 1 * MIB, &value, sizeof(value),
                                 TS_DMA_ANY), ==, 0);
    g_assert_cmphex(qtest_readl(t->qts, 1 * MIB), ==, value);
    vut_free(t);
}

static void setup_only_req(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0);
    ts_add_irqs(s, VFIO_USER_IRQ_REQ, 1, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_REFUSE);
}

/* A device that never interrupts its driver can be asked back all the same. */
static void test_only_req(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .bare = true, .setup = setup_only_req,
    });

    check_works(t, vut_map_bar(t, 0), 1);
    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_REQ, 0, true));
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_REQ, 0), ==, 0);
    VUT_WAIT(qtest_inl(t->qts, 0xae04) & 1u << VUT_SLOT);
    vut_free(t);
}

/* After INTx the client looks whether the line is still up; this is no answer */
static void test_bad_status(void)
{
    static const TsMove bad = {
        .kind = TS_MOVE_PATCH, .command = VFIO_USER_REGION_READ,
        .index = VFIO_USER_REGION_CONFIG, .times = 1, .a = 12, .b = 1,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .machine = "q35", .stderr_file = true,
    });
    QPCIBar bar = vut_map_bar(t, 0);

    g_assert(ts_irq_wait_fd(t->s, VFIO_USER_IRQ_INTX, 0, true));
    ts_add_move(t->s, &bad);
    g_assert_cmpint(ts_irq_trigger(t->s, VFIO_USER_IRQ_INTX, 0), ==, 0);
    /* The guest's access ends the interrupt, once that has come. */
    while (!ts_nr_moves_made(t->s)) {
        qpci_io_readl(t->dev, bar, 0);
    }
    check_lost(t, bar, "answer is about region 7");
    vut_free(t);
}

/* Windows ------------------------------------------------------------------ */

static unsigned window_limit;

static void setup_window_limit(TestServer *s)
{
    ts_limits(s)->max_dma_maps = window_limit;
}

/* Two reasons not to realize: the first is the one that is told. */
static void test_windows_refused_and_few(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DMA_MAP, .index = -1,
        .a = ENOMEM,
    };
    VUTest *t;
    g_autofree char *error = NULL;

    window_limit = 1;
    t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_window_limit,
    });
    ts_add_move(t->s, &refuse);
    error = vut_add(t, VUT_ID, t->path, VUT_TIMEOUT_MS);
    g_assert_nonnull(error);
    g_assert(strstr(error, "max_dma_maps"));
    g_assert_cmpuint(ts_nr_moves_made(t->s), ==, 1);
    g_assert(ts_wait_connected(t->s, false));
    vut_free(t);
}

/* So many DIMMs of a page each, side by side */
static char *page_dimms(unsigned nr)
{
    GString *args = g_string_new("-m 128M,slots=256,maxmem=2G");

    for (unsigned i = 0; i < nr; i++) {
        g_string_append_printf(args, " -object memory-backend-memfd,id=m%u,"
                               "size=%u,share=on -device pc-dimm,memdev=m%u,"
                               "addr=0x%llx", i, PAGE, i, DIMM_BASE + i * PAGE);
    }
    return g_string_free(args, FALSE);
}

/* A command of the server's that touches many pieces of memory, or too many */
static void test_pieces(void)
{
    g_autofree char *args = page_dimms(MAX_PIECES + 1);
    g_autofree uint8_t *data = g_malloc((MAX_PIECES + 1) * PAGE);
    g_autofree uint8_t *there = g_malloc((MAX_PIECES + 1) * PAGE);
    VUTest *t = vut_new(&(VUTOptions) { .args = args });
    uint64_t len = MAX_PIECES * PAGE;

    for (unsigned i = 0; i < len + PAGE; i++) {
        data[i] = i * 7 + i / PAGE;
    }
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_WRITE, DIMM_BASE,
                                   len + PAGE, data, len + PAGE), ==, E2BIG);
    g_assert_cmphex(qtest_readl(t->qts, DIMM_BASE + 4), ==, 0);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_WRITE, DIMM_BASE,
                                   len, data, len), ==, 0);
    qtest_memread(t->qts, DIMM_BASE, there, len);
    g_assert_cmpmem(there, len, data, len);
    memset(there, 0, len);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_READ, DIMM_BASE,
                                   len, there, len), ==, 0);
    g_assert_cmpmem(there, len, data, len);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_READ, DIMM_BASE,
                                   len + PAGE, there, len + PAGE), ==, E2BIG);
    check_works(t, vut_map_bar(t, 0), 1);
    vut_free(t);
}

void vut_register_odd(void)
{
    vut_add_test("vfio-user/odd/no-descriptors/refused", test_no_fds_refused);
    vut_add_test("vfio-user/odd/no-descriptors/memory", test_no_fds_memory);
    vut_add_test("vfio-user/odd/only-req", test_only_req);
    vut_add_test("vfio-user/odd/bad-status", test_bad_status);
    vut_add_test("vfio-user/odd/windows-refused-and-few",
                 test_windows_refused_and_few);
    vut_add_test("vfio-user/odd/pieces", test_pieces);
}
