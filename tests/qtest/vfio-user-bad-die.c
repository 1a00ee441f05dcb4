/*
 * vfio-user qtest: servers that die between any two messages, stop, or dribble
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What cannot be a list: each place in a sequence of messages, each byte of a
 * reply. Unplugging is no such sequence: it only closes the connection.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-bad.h"

#define READ_LEN        (16 + 16 + 4)
#define REG             0x30
/* Far more than a socket's buffers take. */
#define NR_WRITES       100000
/* More than a socket's buffers take, less than the queue takes besides. */
#define NR_QUEUED       900
#define MAX_STEPS       400

/* The connection ends in place of reply @nth (from 0) from now on. */
static void die_at(BadTest *b, unsigned nth)
{
    TsMove move = {
        .kind = TS_MOVE_CLOSE, .command = -1, .index = -1, .skip = nth,
    };

    ts_add_move(b->s, &move);
}

static void begin_plugged(BadTest *b, unsigned timeout_ms)
{
    g_autofree char *error = NULL;

    bad_begin(b);
    error = bad_add(b, timeout_ms);
    g_assert_cmpstr(error, ==, NULL);
    bad_map(b);
}

/* Whether there was such a reply; dies at the end of start-up otherwise. */
static bool die_in_start_up(unsigned nth)
{
    g_autofree char *error = NULL;
    BadTest b;
    bool made;

    bad_begin(&b);
    die_at(&b, nth);
    error = bad_add(&b, BAD_PATIENT_MS);
    made = ts_nr_moves_made(b.s);
    g_test_message("%u: %s", nth, error ?: "accepted");
    if (error) {
        g_assert(made);
        /* hw/vfio has an errno for it where it sets up interrupts. */
        g_assert(bad_matches(error, "the server closed the connection") ||
                 bad_matches(error, "_SET_IRQS failure: Broken pipe"));
        g_assert(ts_wait_connected(b.s, false));
    } else {
        /* The last replies are not waited for; nothing else may pass. */
        ts_clear_moves(b.s);
        if (made) {
            bad_wait_log(&b, "device lost: *closed the connection");
        }
        bad_del(&b);
    }
    bad_end(&b);
    return made;
}

static void test_start_up(const void *data)
{
    unsigned n = 0;

    while (die_in_start_up(n)) {
        n++;
        g_assert_cmpuint(n, <, MAX_STEPS);
    }
    g_test_message("%u places to die", n);
    /* VERSION, GET_INFO, 9 regions, 5 irqs, config space, DMA windows */
    g_assert_cmpuint(n, >, 20);
}

static bool die_in_reset(unsigned nth)
{
    BadTest b;
    bool made;

    begin_plugged(&b, BAD_PATIENT_MS);
    die_at(&b, nth);
    qtest_system_reset(b.t->qts);
    made = ts_nr_moves_made(b.s);
    ts_clear_moves(b.s);
    bad_map(&b);
    if (made) {
        bad_check_lost(&b, "device lost: *the server closed the connection");
    } else {
        bad_check_works(&b, nth);
    }
    bad_del(&b);
    bad_end(&b);
    return made;
}

static void test_reset(const void *data)
{
    unsigned n = 0;

    while (die_in_reset(n)) {
        n++;
        g_assert_cmpuint(n, <, MAX_STEPS);
    }
    g_test_message("%u places to die", n);
    g_assert_cmpuint(n, >, 3);
}

/* Every reply of start-up in two pieces, for each place of the cut. */
static void test_split_start_up(const void *data)
{
    for (unsigned at = 1; at <= 16 + 80; at++) {
        TsMove move = {
            .kind = TS_MOVE_SPLIT, .command = -1, .index = -1, .a = at,
        };
        g_autofree char *error = NULL;
        BadTest b;

        bad_begin(&b);
        ts_add_move(b.s, &move);
        error = bad_add(&b, BAD_PATIENT_MS);
        g_assert_cmpstr(error, ==, NULL);
        g_assert_cmpuint(ts_nr_moves_made(b.s), >, 20);
        bad_del(&b);
        bad_end(&b);
    }
}

static void test_split_read(const void *data)
{
    BadTest b;

    begin_plugged(&b, BAD_PATIENT_MS);
    bad_check_works(&b, 0x12345678);
    for (unsigned at = 1; at < READ_LEN; at++) {
        /* Time enough for us to read the first piece by itself. */
        TsMove move = {
            .kind = TS_MOVE_SPLIT, .command = VFIO_USER_REGION_READ,
            .index = 0, .times = 1, .a = at, .b = 2,
        };

        ts_add_move(b.s, &move);
        g_assert_cmphex(qpci_io_readl(b.dev, b.bar, REG), ==, 0x12345678);
        g_assert_cmpuint(ts_nr_moves_made(b.s), ==, at);
    }
    bad_del(&b);
    bad_end(&b);
}

static void test_cut_read(const void *data)
{
    for (unsigned at = 0; at < READ_LEN; at++) {
        TsMove move = {
            .kind = TS_MOVE_TRUNCATE, .command = VFIO_USER_REGION_READ,
            .index = 0, .a = at,
        };
        BadTest b;

        begin_plugged(&b, BAD_PATIENT_MS);
        ts_add_move(b.s, &move);
        g_assert_cmphex(qpci_io_readl(b.dev, b.bar, REG), ==, UINT32_MAX);
        bad_check_lost(&b, "device lost: *the server closed the connection");
        bad_del(&b);
        bad_end(&b);
    }
}

/* The same in the first message of all. */
static void test_cut_version(const void *data)
{
    for (unsigned at = 0; at < 16 + 40; at++) {
        TsMove move = {
            .kind = TS_MOVE_TRUNCATE, .command = VFIO_USER_VERSION,
            .index = -1, .a = at,
        };
        g_autofree char *error = NULL;
        BadTest b;

        bad_begin(&b);
        ts_add_move(b.s, &move);
        error = bad_add(&b, BAD_PATIENT_MS);
        g_assert_nonnull(error);
        g_assert(bad_matches(error, "VERSION failed: *closed the connection"));
        g_assert(ts_wait_connected(b.s, false));
        bad_end(&b);
    }
}

/*
 * A server that reads no more: posted writes fill the socket, then the queue,
 * then they are dropped after a wait; when it reads again the device is as good
 * as before.
 */
static void check_not_reading(bool multiple)
{
    g_autofree char *error = NULL;
    bool full = false;
    BadTest b;

    bad_begin(&b);
    vut_setup_unmapped(b.s);
    ts_limits(b.s)->write_multiple = multiple;
    error = bad_add(&b, BAD_IMPATIENT_MS);
    g_assert_cmpstr(error, ==, NULL);
    bad_map(&b);
    ts_log_enable(b.s, false);
    ts_hold(b.s);
    for (unsigned i = 0; i < NR_WRITES && !full; i++) {
        g_autofree char *log = NULL;

        qpci_io_writel(b.dev, b.bar, REG, i);
        log = bad_log(&b);
        full = bad_matches(log, "write of 4 bytes*did not answer in time");
    }
    g_assert(full);
    bad_check_other(&b);
    ts_release(b.s);
    /* It is not waited for again before it has said something. */
    VUT_WAIT(qpci_io_readl(b.dev, b.bar, REG) != UINT32_MAX);
    bad_check_works(&b, 0x600d);
    bad_del(&b);
    bad_end(&b);
}

static void test_not_reading(const void *data)
{
    check_not_reading(false);
}

static void test_not_reading_multiple(const void *data)
{
    check_not_reading(true);
}

/* Unplugged while the queue is full: nobody waits for the server. */
static void test_not_reading_unplug(const void *data)
{
    g_autofree char *error = NULL;
    BadTest b;

    bad_begin(&b);
    vut_setup_unmapped(b.s);
    ts_limits(b.s)->write_multiple = true;
    error = bad_add(&b, BAD_IMPATIENT_MS);
    g_assert_cmpstr(error, ==, NULL);
    bad_map(&b);
    ts_hold(b.s);
    for (unsigned i = 0; i < NR_QUEUED; i++) {
        qpci_io_writel(b.dev, b.bar, REG, i);
    }
    vut_del(b.t, BAD_ID, BAD_SLOT);
    ts_release(b.s);
    g_assert(ts_wait_connected(b.s, false));
    bad_end(&b);
}

/* As many descriptors as a message may have: one for each region is kept. */
static void test_descriptors(const void *data)
{
    static const TsMove many = {
        .kind = TS_MOVE_EXTRA_FDS, .command = VFIO_USER_DEVICE_GET_REGION_INFO,
        .index = -1, .a = VFIO_USER_MAX_MSG_FDS - 1,
    };
    unsigned fds, most;
    BadTest b;

    begin_plugged(&b, BAD_PATIENT_MS);
    fds = vut_nr_fds(qtest_pid(b.t->qts));
    bad_del(&b);
    bad_end(&b);

    bad_begin(&b);
    ts_add_move(b.s, &many);
    g_assert_cmpstr(bad_add(&b, BAD_PATIENT_MS), ==, NULL);
    bad_map(&b);
    bad_check_works(&b, 1);
    most = fds + ts_info(b.s)->num_regions;
    g_assert_cmpuint(vut_nr_fds(qtest_pid(b.t->qts)), <=, most);
    bad_del(&b);
    bad_end(&b);
}

/* What RCU has not freed yet is not counted: a plug that fails waits for that. */
static bool is_lost_by_memory(BadTest *b)
{
    g_autofree char *log = NULL;

    bad_switch_memory(b);
    qobject_unref(qtest_qmp(b->t->qts, "{'execute': 'device_add',"
                            "'arguments': {'driver': 'none'}}"));
    log = bad_log(b);
    return strstr(log, "device lost");
}

/*
 * Changes of memory are not waited for at run time, but only so many can be
 * open: a server that answers none of them loses its device.
 */
static void test_requests(const void *data)
{
    static const TsMove drop[] = {
        { .kind = TS_MOVE_DROP, .command = VFIO_USER_DMA_MAP, .index = -1 },
        { .kind = TS_MOVE_DROP, .command = VFIO_USER_DMA_UNMAP, .index = -1 },
    };
    BadTest b;

    begin_plugged(&b, BAD_IMPATIENT_MS);
    ts_add_move(b.s, &drop[0]);
    ts_add_move(b.s, &drop[1]);
    VUT_WAIT(is_lost_by_memory(&b));
    bad_check_lost(&b, "device lost: DMA_*MAP *did not answer in time");
    bad_del(&b);
    bad_end(&b);
}

void bad_register_die(void)
{
    bad_add_test("vfio-user/bad/dies/start-up", NULL, test_start_up);
    bad_add_test("vfio-user/bad/dies/reset", NULL, test_reset);
    bad_add_test("vfio-user/bad/split/start-up", NULL, test_split_start_up);
    bad_add_test("vfio-user/bad/split/read", NULL, test_split_read);
    bad_add_test("vfio-user/bad/cut/version", NULL, test_cut_version);
    bad_add_test("vfio-user/bad/cut/read", NULL, test_cut_read);
    bad_add_test("vfio-user/bad/stops/posted", NULL, test_not_reading);
    bad_add_test("vfio-user/bad/stops/write-multiple", NULL,
                 test_not_reading_multiple);
    bad_add_test("vfio-user/bad/stops/then-unplug", NULL,
                 test_not_reading_unplug);
    bad_add_test("vfio-user/bad/bounds/descriptors", NULL, test_descriptors);
    bad_add_test("vfio-user/bad/bounds/requests", NULL, test_requests);
}
