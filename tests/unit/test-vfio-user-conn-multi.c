/*
 * vfio-user: small posted writes that may be coalesced
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * REGION_WRITE: u64 offset, u32 region, u32 count, data.
 * REGION_WRITE_MULTI: u64 number, then as many entries of 24 bytes: u64
 * offset, u32 region, u32 count, 8 bytes of data.
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

#define CMD_REGION_WRITE_MULTI  15
#define MOST_IN_ONE             128
#define MOST_REMEMBERED         1024

#define SHORT_MS    30

/* The i-th write of a test */
static uint64_t nth_data(unsigned i)
{
    return i * 0x0102030405060709ull + 1;
}

static unsigned nth_len(unsigned i)
{
    return 1 + i % 8;
}

static int write_nth(Rig *rig, unsigned i)
{
    uint64_t data = nth_data(i);

    return vfio_user_conn_post_write(rig->conn, i % 9, i, &data, nth_len(i),
                                     0, 0);
}

static void check_nth(unsigned i, const uint8_t *args, const uint8_t *data)
{
    uint64_t off, want = nth_data(i);
    uint32_t region, count;

    memcpy(&off, args, 8);
    memcpy(&region, args + 8, 4);
    memcpy(&count, args + 12, 4);
    g_assert_cmpint(off, ==, i);
    g_assert_cmpint(region, ==, i % 9);
    g_assert_cmpint(count, ==, nth_len(i));
    g_assert_cmpmem(data, count, &want, count);
}

/* What the peer has got so far */
typedef struct Got {
    unsigned nr;
    unsigned nr_multi;
    unsigned largest;
} Got;

/* Returns false when @msg is no write; otherwise it is the next. */
static bool got_write(Got *got, const PeerMessage *msg)
{
    uint64_t nr;

    if (msg->command == CMD_REGION_WRITE) {
        g_assert_cmphex(msg->flags, ==, PEER_NO_REPLY);
        g_assert_cmpint(msg->len, ==, 16 + nth_len(got->nr));
        check_nth(got->nr++, msg->payload, msg->payload + 16);
        return true;
    }
    if (msg->command != CMD_REGION_WRITE_MULTI) {
        return false;
    }
    g_assert_cmphex(msg->flags, ==, PEER_NO_REPLY);
    memcpy(&nr, msg->payload, 8);
    g_assert_cmpint(nr, >, 0);
    g_assert_cmpint(nr, <=, MOST_IN_ONE);
    g_assert_cmpint(msg->len, ==, 8 + 24 * nr);
    for (unsigned i = 0; i < nr; i++) {
        const uint8_t *entry = msg->payload + 8 + 24 * i;

        check_nth(got->nr++, entry, entry + 16);
    }
    got->nr_multi++;
    got->largest = MAX(got->largest, nr);
    return true;
}

/* At least @nr in all: the last message may hold more. */
static void get_writes(Rig *rig, Got *got, unsigned nr)
{
    while (got->nr < nr) {
        PeerMessage msg;

        peer_get(rig->peer, &msg);
        g_assert_true(got_write(got, &msg));
        peer_drop(&msg);
    }
}

/* While there is room each goes by itself. */
static void test_room(void)
{
    Rig *rig = rig_new(peer_pair);
    Got got = { };

    for (unsigned i = 0; i < 16; i++) {
        g_assert_cmpint(write_nth(rig, i), ==, 0);
        get_writes(rig, &got, i + 1);
    }
    g_assert_cmpint(got.nr_multi, ==, 0);
    rig_check_alive(rig);
    rig_free(rig);
}

/* Write until the backlog holds @backlog. Returns how many were written. */
static unsigned fill_backlog(Rig *rig, unsigned backlog)
{
    unsigned nr = 0;

    while (qatomic_read(&rig->conn->nr_backlog) < backlog) {
        g_assert_cmpint(write_nth(rig, nr++), ==, 0);
    }
    return nr;
}

static void test_coalesced(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    unsigned nr = fill_backlog(rig, 3 * MOST_IN_ONE + 10);
    Got got = { };

    get_writes(rig, &got, nr);
    g_assert_cmpint(got.nr, ==, nr);
    g_assert_cmpint(got.nr_multi, >=, 4);
    g_assert_cmpint(got.largest, ==, MOST_IN_ONE);

    /* All is as before. */
    g_assert_cmpint(write_nth(rig, nr), ==, 0);
    get_writes(rig, &got, nr + 1);
    rig_check_alive(rig);
    rig_free(rig);
}

/* With nobody in the background the next that waits sends it. */
static void test_sent_by_waiter(void)
{
    Rig *rig = rig_new(peer_small_pair);
    unsigned nr = fill_backlog(rig, 200);
    Got got = { };
    Call call;

    call_init(&call, rig, 1, 8);
    call_thread_start(&call);
    get_writes(rig, &got, nr);
    call_peer_serve(&call);
    call_thread_join(&call);
    call_check_good(&call);
    call_free(&call);
    rig_free(rig);
}

/* Each in its place among the other messages */
static void post_between(void *opaque)
{
    Rig *rig = opaque;

    g_assert_cmpint(rig_post(rig, 77, 100, 0), ==, 0);
}

static void test_order(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    unsigned first = fill_backlog(rig, 20), nr = first;
    unsigned queued = rig_count_queued(rig);
    PeerThread thread;
    PeerMessage msg;
    Got got = { };
    Call call;

    peer_thread_start(&thread, post_between, rig);
    rig_wait_queued(rig, queued + 1);
    while (nr < first + 20) {
        g_assert_cmpint(write_nth(rig, nr++), ==, 0);
    }
    g_assert_cmpint(rig_count_queued(rig), ==, queued + 2);
    call_init(&call, rig, 1, 8);
    call_thread_start(&call);
    rig_wait_queued(rig, queued + 3);

    get_writes(rig, &got, first);
    g_assert_cmpint(got.nr, ==, first);
    rig_expect_post(rig, 77, 100);
    get_writes(rig, &got, nr);
    peer_get(rig->peer, &msg);
    g_assert_cmpint(msg.command, ==, CMD_REGION_READ);
    call_peer_answer(&call, &msg);
    peer_drop(&msg);
    peer_thread_join(&thread);
    call_thread_join(&call);
    call_check_good(&call);
    call_free(&call);
    rig_free(rig);
}

/* A server that reads nothing is not remembered for without bound. */
static void test_bound(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    unsigned nr = fill_backlog(rig, MOST_REMEMBERED);
    Got got = { };

    rig->conn->timeout_ms = SHORT_MS;
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(write_nth(rig, 999999), ==, -ETIMEDOUT);
    }
    g_assert_cmpint(qatomic_read(&rig->conn->nr_backlog), ==, MOST_REMEMBERED);
    rig->conn->timeout_ms = RIG_TIMEOUT_MS;
    get_writes(rig, &got, nr);
    g_assert_cmpint(got.nr, ==, nr);
    g_assert_false(peer_readable(rig->peer));
    rig_check_alive(rig);
    g_assert_cmpint(qatomic_read(&rig->conn->nr_backlog), ==, 0);
    rig_free(rig);
}

typedef struct Writer {
    Rig *rig;
    unsigned first, nr;
    int ret;
    PeerThread thread;
} Writer;

static void writer_thread(void *opaque)
{
    Writer *w = opaque;

    for (unsigned i = 0; i < w->nr && !w->ret; i++) {
        w->ret = write_nth(w->rig, w->first + i);
    }
}

/* One that waits goes on when there is room again. */
static void test_room_again(void)
{
    for (int started = 0; started < 2; started++) {
        Rig *rig = started ? rig_new_started(peer_small_pair)
                           : rig_new(peer_small_pair);
        Writer w = { .rig = rig, .nr = 3 * MOST_REMEMBERED };
        Got got = { };

        w.first = fill_backlog(rig, MOST_REMEMBERED);
        peer_thread_start(&w.thread, writer_thread, &w);
        get_writes(rig, &got, w.first + MOST_REMEMBERED);
        if (!started) {
            /* What the writer need not wait for is left to others. */
            rig_start(rig);
        }
        get_writes(rig, &got, w.first + w.nr);
        g_assert_cmpint(got.nr, ==, w.first + w.nr);
        peer_thread_join(&w.thread);
        g_assert_cmpint(w.ret, ==, 0);
        rig_check_alive(rig);
        rig_free(rig);
    }
}

/* While the background is busy with the server's commands */
static void test_beside_commands(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    unsigned nr = 0, commands = 0, replies = 0;
    Got got = { };

    for (int round = 0; round < 300; round++) {
        Writer w = { .rig = rig, .first = nr, .nr = 60 };

        nr += w.nr;
        peer_thread_start(&w.thread, writer_thread, &w);
        for (int i = 0; i < 4; i++) {
            rig_send_dma(rig, commands, CMD_DMA_WRITE, 0, 8, commands);
            commands++;
        }
        while (got.nr < nr || replies < commands) {
            PeerMessage msg;

            peer_get(rig->peer, &msg);
            if (!got_write(&got, &msg)) {
                g_assert_cmpint(msg.command, ==, CMD_DMA_WRITE);
                g_assert_cmpint(msg.id, ==, replies++);
            }
            peer_drop(&msg);
        }
        peer_thread_join(&w.thread);
        g_assert_cmpint(w.ret, ==, 0);
    }
    rig_free(rig);
}

static void test_failed(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    Writer w = { .rig = rig, .nr = 10 * MOST_REMEMBERED };

    w.first = fill_backlog(rig, MOST_REMEMBERED);
    peer_thread_start(&w.thread, writer_thread, &w);
    rig_close_peer(rig);
    rig_wait_failed(rig, "");
    peer_thread_join(&w.thread);
    g_assert_cmpint(w.ret, ==, -EPIPE);
    g_assert_cmpint(write_nth(rig, 0), ==, -EPIPE);
    rig_free(rig);
}

static void test_closed(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    Writer w = { .rig = rig, .nr = 10 * MOST_REMEMBERED };

    w.first = fill_backlog(rig, MOST_REMEMBERED);
    peer_thread_start(&w.thread, writer_thread, &w);
    vfio_user_conn_close(rig->conn);
    peer_thread_join(&w.thread);
    g_assert_cmpint(w.ret, ==, -EPIPE);
    /* rig_free() has something left to throw away. */
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/multi/" name, func)
    T("room", test_room);
    T("coalesced", test_coalesced);
    T("sent-by-waiter", test_sent_by_waiter);
    T("order", test_order);
    T("bound", test_bound);
    T("room-again", test_room_again);
    T("beside-commands", test_beside_commands);
    T("failed", test_failed);
    T("closed", test_closed);

    return g_test_run();
}
