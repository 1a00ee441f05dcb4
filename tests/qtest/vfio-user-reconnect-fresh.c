/*
 * vfio-user qtest: the same device again, with or without its state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-reconnect.h"

#define CONFIG_WRITES   ((TsMatch) { VFIO_USER_REGION_WRITE, \
                                     VFIO_USER_REGION_CONFIG, -1 })
#define BAR0_WRITES     ((TsMatch) { VFIO_USER_REGION_WRITE, 0, -1 })

/* A server that has kept all: the guest cannot tell, nor can the server. */
static void check_kept(const char *device)
{
    RTest *r = rt_new(&(VUTOptions) { .device = device });

    rt_check_works(r, 0x1234);
    for (unsigned i = 0; i < 3; i++) {
        rt_lose(r);
        rt_return_kept(r);
        rt_expect_return(r, true);
        g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], RT_REG), ==,
                        0x1234 + i);
        rt_check_works(r, 0x1235 + i);
        g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, 0);
    }
    rt_expect_no_more(r);
    rt_free(r);
}

static void test_kept(void)
{
    check_kept(NULL);
}

static void test_kept_off(void)
{
    check_kept(",reconnect-reset=off");
}

/* reconnect-reset=on: nothing is believed. */
static void test_kept_on(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",reconnect-reset=on" });

    rt_lose(r);
    rt_return_kept(r);
    rt_expect_return(r, false);
    g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, 1);
    rt_check_works(r, 7);
    rt_free(r);
}

/* What the guest has set up, other than in device-specific registers. */
static void check_config(const uint8_t *was, const uint8_t *is,
                         QPCIDevice *dev)
{
    uint8_t msix = qpci_find_capability(dev, PCI_CAP_ID_MSIX, 0);

    g_assert_cmphex(lduw_le_p(is + PCI_COMMAND), ==,
                    lduw_le_p(was + PCI_COMMAND));
    g_assert(lduw_le_p(is + PCI_COMMAND) & PCI_COMMAND_MASTER);
    for (unsigned i = 0; i < 6; i++) {
        unsigned bar = PCI_BASE_ADDRESS_0 + 4 * i;

        g_assert_cmphex(ldl_le_p(is + bar), ==, ldl_le_p(was + bar));
    }
    g_assert_cmphex(is[PCI_INTERRUPT_LINE], ==, was[PCI_INTERRUPT_LINE]);
    g_assert_cmphex(is[PCI_INTERRUPT_LINE], ==, 0x2b);
    g_assert_cmphex(lduw_le_p(is + msix + PCI_MSIX_FLAGS), ==,
                    lduw_le_p(was + msix + PCI_MSIX_FLAGS));
    g_assert(lduw_le_p(is + msix + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_ENABLE);
}

/* When the first of @match came. */
static uint64_t seq_of(TestServer *s, TsMatch match)
{
    TsRecord rec;

    g_assert(ts_log_get(s, match, 0, &rec));
    return rec.seq;
}

static void check_fresh(const char *device, unsigned resets, bool kept)
{
    RTest *r = rt_new(&(VUTOptions) { .device = device });
    uint8_t was[256];

    qpci_config_writeb(r->t->dev, PCI_INTERRUPT_LINE, 0x2b);
    qpci_msix_enable(r->t->dev);
    rt_check_works(r, 0x1234);
    memcpy(was, ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG), sizeof(was));
    rt_lose(r);
    rt_return_fresh(r, NULL);
    rt_expect_return(r, kept);
    g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, resets);
    if (resets) {
        g_assert_cmpuint(seq_of(r->t->s, RT_RESETS), <,
                         seq_of(r->t->s, CONFIG_WRITES));
    }
    check_config(was, ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG),
                 r->t->dev);
    /* The device's own registers are the driver's business. */
    g_assert_cmpuint(ts_log_count(r->t->s, BAR0_WRITES), ==, 0);
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], RT_REG), ==, 0);
    rt_check_works(r, 0x4321);
    rt_expect_no_more(r);
    rt_free(r);
}

static void test_fresh(void)
{
    check_fresh(NULL, 1, false);
}

static void test_fresh_on(void)
{
    check_fresh(",reconnect-reset=on", 1, false);
}

static void test_fresh_off(void)
{
    check_fresh(",reconnect-reset=off", 0, true);
}

/* One register that is not as the guest left it is enough. */
static void check_lost_register(unsigned offset, uint32_t value)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });
    uint8_t *config = ts_region_mem(r->t->s, VFIO_USER_REGION_CONFIG);

    rt_lose(r);
    stl_le_p(config + offset, value);
    rt_return_kept(r);
    rt_expect_return(r, false);
    g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, 1);
    g_assert_cmphex(ldl_le_p(config + offset), !=, value);
    rt_check_works(r, 3);
    rt_free(r);
}

static void test_lost_command(void)
{
    check_lost_register(PCI_COMMAND, 0x00100000);
}

static void test_lost_bar(void)
{
    check_lost_register(PCI_BASE_ADDRESS_1, 0);
}

static void test_lost_upper_bar(void)
{
    check_lost_register(PCI_BASE_ADDRESS_3, 0x7);
}

/* A reset that the server was not there for. */
static void check_reset_away(const char *device)
{
    RTest *r = rt_new(&(VUTOptions) { .device = device });

    rt_check_works(r, 4);
    rt_lose(r);
    rt_system_reset(r);
    rt_return_kept(r);
    rt_expect_return(r, false);
    g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, 1);
    g_assert_cmphex(qpci_config_readw(r->t->dev, PCI_COMMAND) &
                    PCI_COMMAND_MEMORY, ==, 0);
    rt_map(r);
    rt_check_works(r, 5);
    rt_free(r);
}

static void test_reset_away(void)
{
    check_reset_away(NULL);
}

static void test_reset_away_off(void)
{
    check_reset_away(",reconnect-reset=off");
}

static void setup_not_resettable(TestServer *s)
{
    ts_info(s)->flags &= ~VFIO_USER_DEVICE_RESETTABLE;
}

/* A device that cannot be reset is not. */
static void test_not_resettable(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_not_resettable });

    rt_lose(r);
    rt_return_fresh(r, setup_not_resettable);
    rt_expect(r, "RECONNECTED");
    g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, 0);
    rt_check_works(r, 6);
    rt_free(r);
}

/* A guest that has not looked at the device has nothing to lose. */
static void test_not_enabled(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    qpci_config_writew(r->t->dev, PCI_COMMAND, 0);
    rt_lose(r);
    rt_return_fresh(r, NULL);
    rt_expect(r, "RECONNECTED");
    qpci_device_enable(r->t->dev);
    rt_check_works(r, 8);
    rt_free(r);
}

/* Again and again, as it comes. */
static void test_alternating(void)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });

    for (unsigned i = 0; i < 20; i++) {
        rt_check_works(r, i);
        rt_lose(r);
        rt_check_offline(r);
        if (i % 3) {
            rt_return_kept(r);
        } else {
            rt_return_fresh(r, NULL);
        }
        rt_expect_return(r, i % 3);
    }
    rt_check_works(r, 100);
    rt_expect_no_more(r);
    rt_free(r);
}

/* Lines of one kind in ten seconds */
#define MAX_LINES       4
#define OF_NO_USE       "sub-regions of region 0 cannot be signalled"
#define RETURNS         (2 * MAX_LINES)

/* A doorbell that no write rings */
static void setup_odd_doorbell(TestServer *s)
{
    ts_add_io_fd(s, 0, 0x100, 3);
}

/*
 * What is to be said of a server while it is negotiated with is not said anew each time
 * that one comes, for those that crash again and again.
 */
static void test_says_it_seldom(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_odd_doorbell });
    g_autofree char *log = NULL;

    for (unsigned i = 0; i < RETURNS; i++) {
        rt_lose(r);
        rt_return_kept(r);
        rt_expect_return(r, true);
    }
    log = vut_stderr(r->t);
    g_assert_cmpuint(vut_occurrences(log, OF_NO_USE), >, 0);
    g_assert_cmpuint(vut_occurrences(log, OF_NO_USE), <=, MAX_LINES);
    rt_free(r);
}

/*
 * A server that leaves questions unanswered which it may leave so. Their answers may
 * still come when the device has gone over to it.
 */
static void test_unanswered(void)
{
    static const TsMove drop = {
        .kind = TS_MOVE_DROP, .command = VFIO_USER_DEVICE_GET_REGION_IO_FDS,
        .index = -1,
    };
    RTest *r = rt_new(&(VUTOptions) { .device = ",x-msg-timeout-ms=500" });

    ts_add_move(r->t->s, &drop);
    for (unsigned i = 0; i < 2; i++) {
        rt_lose(r);
        rt_return_kept(r);
        rt_expect_return(r, true);
        rt_check_works(r, i);
    }
    rt_free(r);
}

void rt_register_fresh(void)
{
    vut_add_test("vfio-user/reconnect/unanswered", test_unanswered);
    vut_add_test("vfio-user/reconnect/says-it-seldom", test_says_it_seldom);
    vut_add_test("vfio-user/reconnect/kept/auto", test_kept);
    vut_add_test("vfio-user/reconnect/kept/off", test_kept_off);
    vut_add_test("vfio-user/reconnect/kept/on", test_kept_on);
    vut_add_test("vfio-user/reconnect/fresh/auto", test_fresh);
    vut_add_test("vfio-user/reconnect/fresh/on", test_fresh_on);
    vut_add_test("vfio-user/reconnect/fresh/off", test_fresh_off);
    vut_add_test("vfio-user/reconnect/fresh/command", test_lost_command);
    vut_add_test("vfio-user/reconnect/fresh/bar", test_lost_bar);
    vut_add_test("vfio-user/reconnect/fresh/upper-bar", test_lost_upper_bar);
    vut_add_test("vfio-user/reconnect/fresh/not-resettable",
                 test_not_resettable);
    vut_add_test("vfio-user/reconnect/fresh/not-enabled", test_not_enabled);
    vut_add_test("vfio-user/reconnect/fresh/alternating", test_alternating);
    vut_add_test("vfio-user/reconnect/reset-away/auto", test_reset_away);
    vut_add_test("vfio-user/reconnect/reset-away/off", test_reset_away_off);
}
