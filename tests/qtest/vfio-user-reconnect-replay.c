/*
 * vfio-user qtest: memory and registers of a server that came back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-reconnect.h"

#define DMA(command)    ((TsMatch) { VFIO_USER_DMA_##command, -1, -1 })
#define WRITES(region)  ((TsMatch) { VFIO_USER_REGION_WRITE, region, -1 })
#define RAM             0x100000
#define PAM_C0000       0x5a
#define PAM_RAM         0x33

/* DMA windows ------------------------------------------------------------- */

static GArray *get_windows(TestServer *s)
{
    GArray *windows = g_array_new(FALSE, FALSE, sizeof(TsWindow));
    TsWindow w;

    for (unsigned i = 0; ts_dma_window(s, i, &w); i++) {
        g_array_append_val(windows, w);
    }
    return windows;
}

static void assert_same_windows(GArray *was, TestServer *s)
{
    TsWindow is;

    g_assert(ts_dma_wait_nr_windows(s, was->len));
    for (unsigned i = 0; i < was->len; i++) {
        const TsWindow *w = &g_array_index(was, TsWindow, i);

        g_assert(ts_dma_window(s, i, &is));
        g_assert_cmphex(is.addr, ==, w->addr);
        g_assert_cmphex(is.size, ==, w->size);
        g_assert_cmphex(is.offset, ==, w->offset);
        g_assert_cmphex(is.flags, ==, w->flags);
        g_assert_cmpint(is.has_fd, ==, w->has_fd);
        g_assert(is.dev == w->dev && is.ino == w->ino);
    }
}

static void check_dma(RTest *r, TsDmaWay way, const char *text)
{
    char buf[16] = "";

    g_assert_cmpint(ts_dma_write(r->t->s, RAM, text, strlen(text) + 1, way),
                    ==, 0);
    qtest_memread(r->t->qts, RAM, buf, sizeof(buf));
    g_assert_cmpstr(buf, ==, text);
    qtest_memwrite(r->t->qts, RAM + 64, "back", 5);
    g_assert_cmpint(ts_dma_read(r->t->s, RAM + 64, buf, 5, way), ==, 0);
    g_assert_cmpstr(buf, ==, "back");
}

typedef struct WindowCase {
    const char *name;
    const VUTOptions options;
    TsDmaWay way;
} WindowCase;

static void no_twin(TestServer *s)
{
    ts_limits(s)->twin_socket = false;
}

static void one_fd(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 1;
}

/* As old libvfio-user: our messages must not cross its own. */
static void no_crossing(TestServer *s)
{
    no_twin(s);
    ts_limits(s)->no_crossing = true;
}

static const WindowCase window_cases[] = {
    { "shared", { .shared_ram = true }, TS_DMA_MAPPED },
    { "shared-by-message", { .shared_ram = true }, TS_DMA_MESSAGE },
    { "shared-no-twin", { .shared_ram = true, .setup = no_twin },
      TS_DMA_MAPPED },
    { "shared-one-fd", { .shared_ram = true, .setup = one_fd },
      TS_DMA_MAPPED },
    { "private", { }, TS_DMA_MESSAGE },
    { "private-lockstep", { .setup = no_crossing }, TS_DMA_MESSAGE },
    { "not-shared", { .shared_ram = true, .device = ",dma-share=off" },
      TS_DMA_MESSAGE },
    { "q35", { .shared_ram = true, .machine = "q35" }, TS_DMA_MAPPED },
};

static void test_windows(const void *data)
{
    const WindowCase *c = data;
    RTest *r = rt_new(&c->options);
    g_autoptr(GArray) was = get_windows(r->t->s);

    g_assert_cmpuint(was->len, >, 2);
    for (unsigned i = 0; i < 3; i++) {
        check_dma(r, c->way, "before");
        rt_lose(r);
        g_assert_cmpuint(ts_dma_nr_windows(r->t->s), ==, 0);
        rt_return_fresh(r, c->options.setup);
        rt_expect_return(r, false);
        assert_same_windows(was, r->t->s);
        check_dma(r, c->way, "after");
        rt_check_works(r, i);
    }
    rt_expect_no_more(r);
    rt_free(r);
}

/* Each access of the server's crosses one of ours: the lock-step must hold. */
static int access_with_dma(TestServer *s, unsigned region, uint64_t offset,
                           void *data, uint32_t len, bool write, void *opaque)
{
    uint32_t word;
    int err = ts_dma_read(s, RAM, &word, sizeof(word), TS_DMA_MESSAGE);

    if (!write) {
        memset(data, 0, len);
        memcpy(data, &word, MIN(len, sizeof(word)));
    }
    return err;
}

static void setup_dma_in_access(TestServer *s)
{
    no_crossing(s);
    ts_region(s, 0, 0x1000, VFIO_USER_REGION_READABLE |
                            VFIO_USER_REGION_WRITEABLE)->access =
        access_with_dma;
}

static void test_dma_in_access(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_dma_in_access });

    for (unsigned i = 0; i < 5; i++) {
        qtest_writel(r->t->qts, RAM, 0x11111111 * i);
        qpci_io_writel(r->t->dev, r->bars[0], 0, 1);
        g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], 0), ==,
                        0x11111111 * i);
        rt_lose(r);
        rt_return_fresh(r, setup_dma_in_access);
        rt_expect_return(r, false);
    }
    rt_free(r);
}

static void switch_memory(RTest *r, uint8_t value)
{
    QPCIDevice *host = qpci_device_find(r->t->bus, QPCI_DEVFN(0, 0));

    g_assert(host);
    qpci_config_writeb(host, PAM_C0000, value);
    g_free(host);
}

/* Memory changes while nobody is told: what counts is what there is then. */
static void test_memory_changes(void)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });
    unsigned before = ts_dma_nr_windows(r->t->s);
    TestServer *witness;

    rt_lose(r);
    switch_memory(r, PAM_RAM);
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    witness = rt_add_witness(r);
    rt_check_same_windows(r->t->s, witness);
    rt_del_witness(r, witness);

    /* Both know of later changes, and one that comes back of those, too. */
    switch_memory(r, 0);
    g_assert(ts_dma_wait_nr_windows(r->t->s, before));
    rt_lose(r);
    switch_memory(r, PAM_RAM);
    switch_memory(r, 0);
    rt_return_kept(r);
    rt_expect_return(r, true);
    g_assert(ts_dma_wait_nr_windows(r->t->s, before));
    rt_check_works(r, 1);
    rt_free(r);
}

static void test_memory_plugged(void)
{
    RTest *r = rt_new(&(VUTOptions) {
        .machine = "pc,memory-backend=mem",
        .args = "-m 128M,slots=2,maxmem=1G -object memory-backend-memfd,"
                "id=mem,size=128M,share=on",
    });
    unsigned before = ts_dma_nr_windows(r->t->s);
    TestServer *witness;

    rt_lose(r);
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'object-add', "
                             "'arguments': {'qom-type': "
                             "'memory-backend-memfd', 'id': 'more', 'size': "
                             "134217728, 'share': true}}");
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'device_add', "
                             "'arguments': {'driver': 'pc-dimm', 'id': "
                             "'dimm', 'memdev': 'more'}}");
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    g_assert(ts_dma_wait_nr_windows(r->t->s, before + 1));
    witness = rt_add_witness(r);
    rt_check_same_windows(r->t->s, witness);
    rt_del_witness(r, witness);
    rt_free(r);
}

/* Mapped areas ------------------------------------------------------------ */

/* BAR2 as a whole, both areas of BAR1 */
static const struct {
    unsigned bar, offset;
} mapped[] = {
    { 2, 0 }, { 2, 0x8000 }, { 1, 0x1000 }, { 1, 0x4000 }, { 1, 0x5000 },
};

static uint32_t *server_word(RTest *r, unsigned i)
{
    uint8_t *mem = ts_region_mem(r->t->s, mapped[i].bar);

    return (void *)(mem + mapped[i].offset);
}

static uint32_t guest_word(RTest *r, unsigned i)
{
    return qpci_io_readl(r->t->dev, r->bars[mapped[i].bar],
                         mapped[i].offset);
}

static void set_guest_word(RTest *r, unsigned i, uint32_t value)
{
    qpci_io_writel(r->t->dev, r->bars[mapped[i].bar], mapped[i].offset,
                   value);
}

/*
 * With INTx an interrupt, also the one after a return, keeps the guest from
 * mapped areas for a second, so that it is seen to access the device.
 */
static void leave_intx(RTest *r)
{
    qpci_msix_enable(r->t->dev);
    r->bars[5] = r->t->dev->msix_table_bar;
}

/* What either side stores the other one sees, and no message is sent. */
static void check_mapped(RTest *r, uint32_t value)
{
    ts_log_clear(r->t->s);
    for (unsigned i = 0; i < ARRAY_SIZE(mapped); i++) {
        *server_word(r, i) = value + i;
        g_assert_cmphex(guest_word(r, i), ==, value + i);
        set_guest_word(r, i, ~value - i);
        g_assert_cmphex(*server_word(r, i), ==, ~value - i);
    }
    for (unsigned bar = 1; bar <= 2; bar++) {
        g_assert_cmpuint(ts_log_count(r->t->s, WRITES(bar)), ==, 0);
    }
}

static void check_mapped_offline(RTest *r)
{
    for (unsigned i = 0; i < ARRAY_SIZE(mapped); i++) {
        uint32_t was = *server_word(r, i);

        set_guest_word(r, i, 0x0bad0bad);
        g_assert_cmphex(guest_word(r, i), ==, UINT32_MAX);
        g_assert_cmphex(*server_word(r, i), ==, was);
    }
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[1], 0x3000), ==,
                    UINT32_MAX);
}

static void test_mapped(void)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });

    leave_intx(r);
    check_mapped(r, 0x1000);
    for (unsigned i = 0; i < 5; i++) {
        rt_lose(r);
        check_mapped_offline(r);
        if (i % 2) {
            rt_return_fresh(r, NULL);
        } else {
            rt_return_kept(r);
        }
        rt_expect_return(r, !(i % 2));
        check_mapped(r, 0x2000 + i);
    }
    rt_free(r);
}

/* The new server's memory, also where the guest has not been before. */
static void setup_content(TestServer *s)
{
    uint32_t words[0x10000 / 4];

    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        words[i] = 0x5a000000 + i;
    }
    ts_region_content(s, 2, words, sizeof(words));
}

static void test_mapped_content(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    rt_lose(r);
    rt_return_fresh(r, setup_content);
    rt_expect_return(r, false);
    for (unsigned off = 0; off < 0x10000; off += 0xffc) {
        g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[2], off), ==,
                        0x5a000000 + off / 4);
    }
    rt_free(r);
}

/* The guest moves its BARs while nobody is told. */
static void check_moved(bool kept)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });
    QPCIBar was[6];
    uint8_t *config;

    leave_intx(r);
    check_mapped(r, 0x3000);
    memcpy(was, r->bars, sizeof(was));
    rt_lose(r);
    rt_map(r);
    rt_check_offline(r);
    if (kept) {
        rt_return_kept(r);
    } else {
        rt_return_fresh(r, NULL);
    }
    rt_expect(r, "RECONNECTED");
    config = ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG);
    for (unsigned i = 0; i < ARRAY_SIZE(was); i++) {
        if (was[i].addr) {
            g_assert_cmphex(was[i].addr, !=, r->bars[i].addr);
            g_assert_cmphex(ldl_le_p(config + PCI_BASE_ADDRESS_0 + 4 * i) &
                            ~0xfu, ==, r->bars[i].addr);
        }
    }
    check_mapped(r, 0x4000);
    rt_check_works(r, 0x5000);
    rt_free(r);
}

static void test_moved_kept(void)
{
    check_moved(true);
}

static void test_moved_fresh(void)
{
    check_moved(false);
}

/* Decoding is switched off and on again. */
static void test_disabled(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    leave_intx(r);
    rt_lose(r);
    qpci_config_writew(r->t->dev, PCI_COMMAND, 0);
    rt_return_fresh(r, NULL);
    rt_expect(r, "RECONNECTED");
    g_assert_cmphex(qpci_config_readw(r->t->dev, PCI_COMMAND) &
                    (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER), ==, 0);
    qpci_device_enable(r->t->dev);
    check_mapped(r, 0x6000);
    rt_check_works(r, 1);
    rt_free(r);
}

/* Each answer takes so long that there are some writes between any two. */
static void setup_slow_config(TestServer *s)
{
    static const TsMove late = {
        .kind = TS_MOVE_DELAY, .command = VFIO_USER_REGION_READ,
        .index = VFIO_USER_REGION_CONFIG, .a = 20,
    };

    ts_add_move(s, &late);
}

static unsigned nr_replays(RTest *r)
{
    g_autofree char *log = vut_stderr(r->t);

    return vut_occurrences(log, "vfio_user_replay ");
}

/* The guest goes on writing for longer than it is waited for to stop. */
static void test_busy(void)
{
    static const uint8_t regs[] = { PCI_CACHE_LINE_SIZE, PCI_INTERRUPT_LINE };
    RTest *r = rt_new(&(VUTOptions) { .args = "-trace vfio_user_replay" });
    uint8_t *config, written[ARRAY_SIZE(regs)] = { };

    rt_lose(r);
    rt_return_fresh(r, setup_slow_config);
    for (unsigned i = 0; nr_replays(r) < 8; i++) {
        written[i % 2] = i;
        qpci_config_writeb(r->t->dev, regs[i % 2], i);
    }
    rt_expect_return(r, false);
    config = ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG);
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        VUT_WAIT(config[regs[i]] == written[i]);
    }
    rt_free(r);
}

/* Posted writes ----------------------------------------------------------- */

static void setup_posted(TestServer *s)
{
    vut_setup_unmapped(s);
}

static void setup_posted_multi(TestServer *s)
{
    vut_setup_unmapped(s);
    ts_limits(s)->write_multiple = true;
}

/* They reach the server that is there, in order, and no later one. */
static void check_posted(void (*setup)(TestServer *s))
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup });

    for (unsigned round = 0; round < 5; round++) {
        uint32_t *mem = ts_region_mem(r->t->s, 1);

        for (unsigned i = 0; i < 100; i++) {
            qpci_io_writel(r->t->dev, r->bars[1], 4 * i, round * 1000 + i);
        }
        g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[1], 4 * 99), ==,
                        round * 1000 + 99);
        for (unsigned i = 0; i < 100; i++) {
            g_assert_cmphex(mem[i], ==, round * 1000 + i);
        }
        rt_lose(r);
        for (unsigned i = 0; i < 100; i++) {
            qpci_io_writel(r->t->dev, r->bars[1], 4 * i, 0x0bad0bad);
        }
        rt_return_fresh(r, setup);
        rt_expect_return(r, false);
        mem = ts_region_mem(r->t->s, 1);
        for (unsigned i = 0; i < 100; i++) {
            g_assert_cmphex(mem[i], ==, 0);
        }
    }
    rt_free(r);
}

static void test_posted(void)
{
    check_posted(setup_posted);
}

static void test_posted_multi(void)
{
    check_posted(setup_posted_multi);
}

/* A server that did not read them any more: a fresh one never gets them. */
static void test_posted_lost(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_posted });

    ts_hold(r->t->s);
    for (unsigned i = 0; i < 200; i++) {
        qpci_io_writel(r->t->dev, r->bars[1], 4 * i, 0x0bad0bad);
    }
    ts_stop(r->t->s);
    rt_expect(r, "DISCONNECTED");
    rt_return_fresh(r, setup_posted);
    rt_expect_return(r, false);
    for (unsigned i = 0; i < 200; i++) {
        g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[1], 4 * i), ==, 0);
    }
    rt_free(r);
}

/*
 * A server that kept its state must not have lost a write that is done for the
 * guest. So where a vCPU would wait and do it again, none is posted.
 */
static void check_acknowledged(const char *device, bool acknowledged)
{
    RTest *r = rt_new(&(VUTOptions) {
        .setup = setup_posted, .device = device,
    });
    TsRecord rec;

    for (unsigned i = 0; i < 2; i++) {
        for (unsigned bar = 0; bar <= 2; bar++) {
            ts_log_clear(r->t->s);
            qpci_io_writel(r->t->dev, r->bars[bar], 0x10, 5);
            g_assert(ts_log_wait(r->t->s, WRITES(bar), 1));
            g_assert(ts_log_get(r->t->s, WRITES(bar), 0, &rec));
            g_assert_cmpint(!(rec.flags & VFIO_USER_NO_REPLY), ==,
                            acknowledged);
        }
        rt_lose(r);
        rt_return_kept(r);
        rt_expect_return(r, true);
    }
    rt_free(r);
}

static void test_acknowledged_offline(void)
{
    check_acknowledged(",on-disconnect=offline", false);
}

static void test_acknowledged_hold(void)
{
    check_acknowledged(",on-disconnect=hold", true);
}

static void test_acknowledged_stop(void)
{
    check_acknowledged(",on-disconnect=stop", true);
}

void rt_register_replay(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(window_cases); i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/windows/%s",
                            window_cases[i].name);

        vut_add_data_test(path, &window_cases[i], test_windows);
    }
    vut_add_test("vfio-user/reconnect/windows/in-access", test_dma_in_access);
    vut_add_test("vfio-user/reconnect/memory/changes", test_memory_changes);
    vut_add_test("vfio-user/reconnect/memory/plugged", test_memory_plugged);
    vut_add_test("vfio-user/reconnect/mapped/areas", test_mapped);
    vut_add_test("vfio-user/reconnect/mapped/content", test_mapped_content);
    vut_add_test("vfio-user/reconnect/moved/kept", test_moved_kept);
    vut_add_test("vfio-user/reconnect/moved/fresh", test_moved_fresh);
    vut_add_test("vfio-user/reconnect/moved/disabled", test_disabled);
    vut_add_test("vfio-user/reconnect/config/busy", test_busy);
    vut_add_test("vfio-user/reconnect/posted/plain", test_posted);
    vut_add_test("vfio-user/reconnect/posted/multiple", test_posted_multi);
    vut_add_test("vfio-user/reconnect/posted/lost", test_posted_lost);
    vut_add_test("vfio-user/reconnect/posted/offline",
                 test_acknowledged_offline);
    vut_add_test("vfio-user/reconnect/posted/hold", test_acknowledged_hold);
    vut_add_test("vfio-user/reconnect/posted/stop", test_acknowledged_stop);
}
