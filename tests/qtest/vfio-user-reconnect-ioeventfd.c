/*
 * vfio-user qtest: doorbells of a server that came back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vfio-user-reconnect.h"

#define BELL        0x40
#define SILENT      0x44
#define SHADOW      0x48
#define WRITE(off)  ((TsMatch) { VFIO_USER_REGION_WRITE, 0, off })

/* Of the server that was set up last. */
static TsIoFd *bell, *silent, *shadow;
static uint32_t *shadow_value;

static void setup_bells(TestServer *s)
{
    bell = ts_add_io_fd(s, 0, BELL, 4);
    silent = ts_add_io_fd(s, 0, SILENT, 4);
    shadow = ts_add_io_fd(s, 0, SHADOW, 4);
    shadow_value = ts_io_fd_shadow(s, shadow, 0x10);
}

static void setup_unmapped_bells(TestServer *s)
{
    vut_setup_unmapped(s);
    setup_bells(s);
}

static void ring(RTest *r, uint64_t off, uint32_t value)
{
    qpci_io_writel(r->t->dev, r->bars[0], off, value);
}

/* The present server hears its bells, and gets no message. */
static void check_bells(RTest *r)
{
    uint64_t before = ts_io_fd_count(r->t->s, bell);

    ts_log_clear(r->t->s);
    ring(r, BELL, 1);
    ring(r, SHADOW, 0x1234);
    vut_flush(r->t);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, before + 1);
    g_assert_cmphex(*shadow_value, ==, 0x1234);
    g_assert_cmpuint(ts_log_count(r->t->s, WRITE(-1)), ==, 0);
}

/*
 * What the server before did not take is the next one's to do, if that goes on
 * where the other one was.
 */
static void test_left(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_bells,
                                      .device = ",reconnect-reset=off" });

    ring(r, BELL, 1);
    ring(r, SHADOW, 0xcafe);
    rt_lose(r);
    rt_return_fresh(r, setup_bells);
    rt_expect_return(r, true);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, 1);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, silent), ==, 0);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, shadow), ==, 1);
    g_assert_cmphex(*shadow_value, ==, 0xcafe);
    check_bells(r);
    rt_free(r);
}

/* What it did take is not done again. */
static void test_taken(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_bells,
                                      .device = ",reconnect-reset=off" });

    ring(r, BELL, 1);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, 1);
    rt_lose(r);
    rt_return_fresh(r, setup_bells);
    rt_expect_return(r, true);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, 0);
    check_bells(r);
    rt_free(r);
}

/* A server that begins anew hears nothing of before. */
static void test_fresh(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_bells });

    ring(r, BELL, 1);
    ring(r, SHADOW, 0xcafe);
    rt_lose(r);
    rt_return_fresh(r, setup_bells);
    rt_expect_return(r, false);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, 0);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, shadow), ==, 0);
    g_assert_cmphex(*shadow_value, ==, 0);
    check_bells(r);
    rt_free(r);
}

/* While nobody is there, a bell is not rung. */
static void test_away(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_bells });

    check_bells(r);
    rt_lose(r);
    ring(r, BELL, 1);
    ring(r, SHADOW, 0xcafe);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, 1);
    g_assert_cmphex(*shadow_value, ==, 0x1234);
    rt_return_kept(r);
    rt_expect_return(r, true);
    g_assert_cmpuint(ts_io_fd_count(r->t->s, bell), ==, 1);
    check_bells(r);
    rt_free(r);
}

static bool is_posted(RTest *r)
{
    TsRecord record;

    ts_log_clear(r->t->s);
    ring(r, RT_REG, 1);
    vut_flush(r->t);
    g_assert(ts_log_get(r->t->s, WRITE(RT_REG), 0, &record));
    return record.flags & VFIO_USER_NO_REPLY;
}

/* With them or without them, it is the same device. */
static void test_comes_and_goes(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = vut_setup_unmapped });

    g_assert(is_posted(r));
    rt_lose(r);
    rt_return_fresh(r, setup_unmapped_bells);
    rt_expect_return(r, false);
    /* A bell must not overtake a write before it. */
    g_assert(!is_posted(r));
    check_bells(r);

    rt_lose(r);
    rt_return_fresh(r, vut_setup_unmapped);
    rt_expect_return(r, false);
    ring(r, BELL, 1);
    vut_flush(r->t);
    g_assert_cmpuint(ts_log_count(r->t->s, WRITE(BELL)), ==, 1);
    rt_free(r);
}

/* Nothing is left behind, however often. */
static void test_many_times(void)
{
    RTest *r = rt_new(&(VUTOptions) { .setup = setup_bells });
    unsigned fds = 0;

    for (unsigned i = 0; i < 20; i++) {
        check_bells(r);
        rt_lose(r);
        rt_return_fresh(r, setup_bells);
        rt_expect_return(r, false);
        if (!i) {
            check_bells(r);
            fds = vut_nr_fds(qtest_pid(r->t->qts));
        }
    }
    check_bells(r);
    vut_wait_nr_fds(r->t, fds);
    rt_free(r);
}

void rt_register_ioeventfd(void)
{
    vut_add_test("vfio-user/reconnect/ioeventfd/left", test_left);
    vut_add_test("vfio-user/reconnect/ioeventfd/taken", test_taken);
    vut_add_test("vfio-user/reconnect/ioeventfd/fresh", test_fresh);
    vut_add_test("vfio-user/reconnect/ioeventfd/away", test_away);
    vut_add_test("vfio-user/reconnect/ioeventfd/comes-and-goes",
                 test_comes_and_goes);
    vut_add_test("vfio-user/reconnect/ioeventfd/many-times", test_many_times);
}
