/*
 * vfio-user: the server's commands on a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * DMA_READ and DMA_WRITE: u64 address, u64 count, data; their replies repeat
 * address and count.
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

#define CMD_UNKNOWN     99

/* Ways to have a command served ------------------------------------------- */

/*
 * Each command is tried on a connection whose background serves it, and in the
 * middle of a wait.
 */
typedef struct Served {
    Rig *rig;
    Call call;
    PeerMessage msg;
    bool waiting;
} Served;

static void served_begin(Served *s, bool waiting)
{
    *s = (Served) { .waiting = waiting };
    s->rig = waiting ? rig_new(peer_pair) : rig_new_started(peer_pair);
    if (waiting) {
        call_init(&s->call, s->rig, 77, 4);
        call_thread_start(&s->call);
        call_peer_get(&s->call, &s->msg);
    }
}

static void served_end(Served *s)
{
    if (s->waiting) {
        call_peer_answer(&s->call, &s->msg);
        call_thread_join(&s->call);
        call_check_good(&s->call);
        call_end(&s->call, &s->msg);
    }
    rig_check_alive(s->rig);
    rig_free(s->rig);
}

static void in_both(void (*func)(Rig *rig))
{
    for (int i = 0; i < 2; i++) {
        Served s;

        served_begin(&s, i);
        func(s.rig);
        served_end(&s);
    }
}

/* Reads and writes --------------------------------------------------------- */

static void dma_read(Rig *rig)
{
    static const size_t count[] = { 1, 8, 4096, 65536, RIG_MAX_XFER };

    peer_pattern(rig->ram + 0x1000, RIG_MAX_XFER, 3);
    for (int i = 0; i < ARRAY_SIZE(count); i++) {
        rig_send_dma(rig, i, CMD_DMA_READ, 0x1000, count[i], 0);
        rig_expect_dma(rig, i, CMD_DMA_READ, 0x1000, count[i], 3);
    }
    g_assert_cmpint(rig_count(rig, &rig->nr_begin), ==, ARRAY_SIZE(count));
}

static void test_read(void)
{
    in_both(dma_read);
}

static void dma_write(Rig *rig)
{
    static const size_t count[] = { 1, 8, 4096, 65536, RIG_MAX_XFER };

    for (int i = 0; i < ARRAY_SIZE(count); i++) {
        rig_send_dma(rig, i, CMD_DMA_WRITE, 0x2000, count[i], i);
        rig_expect_dma(rig, i, CMD_DMA_WRITE, 0x2000, count[i], i);
        /* When the reply comes the memory is written and let go of. */
        g_assert_cmpint(rig_count(rig, &rig->nr_end), ==, i + 1);
        g_assert_cmpint(rig->last_done, ==, count[i]);
        peer_check_pattern(rig->ram + 0x2000, count[i], i);
        g_assert_cmpint(rig->ram[0x2000 + count[i]], ==, 0);
        g_assert_cmpint(rig->ram[0x1fff], ==, 0);
    }
}

static void test_write(void)
{
    in_both(dma_write);
}

/* Memory in pieces, the last of which is shorter */
static void test_pieces(void)
{
    static const struct {
        size_t piece, count;
    } t[] = {
        { 1, 64 }, { 7, 7 * 63 + 3 }, { 4096, 64 * 4096 },
        { 16384, 64 * 16384 }, { 1000, 3001 },
    };
    Rig *rig = rig_new_started(peer_pair);

    for (int i = 0; i < ARRAY_SIZE(t); i++) {
        rig->piece = t[i].piece;
        rig_send_dma(rig, i, CMD_DMA_WRITE, 0x333, t[i].count, i);
        rig_expect_dma(rig, i, CMD_DMA_WRITE, 0x333, t[i].count, i);
        peer_check_pattern(rig->ram + 0x333, t[i].count, i);
        rig_send_dma(rig, i, CMD_DMA_READ, 0x333, t[i].count, i);
        rig_expect_dma(rig, i, CMD_DMA_READ, 0x333, t[i].count, i);
    }
    rig_free(rig);
}

/* A command in two pieces, of which the driver has one at a time */
static void split_command(uint16_t command, size_t count, size_t at)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *data = g_malloc(count);
    g_autofree uint8_t *payload = NULL;
    g_autofree uint8_t *m = NULL;
    size_t len = command == CMD_DMA_WRITE ? count : 0;

    rig->piece = count / 2 + 1;
    peer_pattern(data, count, 8);
    if (!len) {
        memcpy(rig->ram, data, count);
    }
    payload = peer_make_dma(RIG_RAM, count, data, len);
    m = peer_make(0xffff, command, PEER_COMMAND, 0, payload, 16 + len);
    peer_send_bytes(rig->peer, m, at);
    g_assert_cmpint(vfio_user_conn_rx_step(rig->conn), ==, 0);
    g_assert_false(peer_readable(rig->peer));
    peer_send_bytes(rig->peer, m + at, 32 + len - at);
    while (!peer_readable(rig->peer)) {
        g_assert_cmpint(vfio_user_conn_rx_step(rig->conn), ==, 0);
    }
    rig_expect_dma(rig, 0xffff, command, 0, count, 8);
    g_assert_cmpmem(rig->ram, count, data, count);
    rig_free(rig);
}

static void test_split(void)
{
    for (size_t at = 1; at < 32; at++) {
        split_command(CMD_DMA_READ, 20, at);
    }
    for (size_t at = 1; at < 32 + 20; at++) {
        split_command(CMD_DMA_WRITE, 20, at);
    }
    for (size_t at = 1; at < 10000; at += 487) {
        split_command(CMD_DMA_WRITE, 10000, at);
    }
}

static void dma_count_0(Rig *rig)
{
    /* At an address where there is no memory: it does not matter. */
    uint8_t args[16] = { 1, 2, 3 };

    peer_send(rig->peer, 5, CMD_DMA_READ, PEER_COMMAND, 0, args, 16);
    peer_expect(rig->peer, 5, CMD_DMA_READ, PEER_REPLY, 0, args, 16);
    peer_send(rig->peer, 6, CMD_DMA_WRITE, PEER_COMMAND, 0, args, 16);
    peer_expect(rig->peer, 6, CMD_DMA_WRITE, PEER_REPLY, 0, args, 16);
    g_assert_cmpint(rig_count(rig, &rig->nr_begin), ==, 0);
}

static void test_count_0(void)
{
    in_both(dma_count_0);
}

static void dma_refused(Rig *rig)
{
    /* Beyond the memory */
    rig_send_dma(rig, 1, CMD_DMA_READ, RIG_RAM_SIZE - 4, 8, 0);
    peer_expect(rig->peer, 1, CMD_DMA_READ, PEER_REPLY | PEER_ERROR, EFAULT,
                NULL, 0);
    rig_send_dma(rig, 2, CMD_DMA_WRITE, RIG_RAM_SIZE - 4, 8, 1);
    peer_expect(rig->peer, 2, CMD_DMA_WRITE, PEER_REPLY | PEER_ERROR, EFAULT,
                NULL, 0);
    g_assert_cmpint(ldl_he_p(rig->ram + RIG_RAM_SIZE - 4), ==, 0);

    /* The data of a refused write is dropped, however much it is. */
    rig->begin_ret = -EACCES;
    for (int i = 0; i < 4; i++) {
        rig_send_dma(rig, i, CMD_DMA_WRITE, 0, RIG_MAX_XFER >> i, 1);
        peer_expect(rig->peer, i, CMD_DMA_WRITE, PEER_REPLY | PEER_ERROR,
                    EACCES, NULL, 0);
    }
    rig->begin_ret = 0;
    g_assert_cmpint(rig->ram[0], ==, 0);
    rig_send_dma(rig, 9, CMD_DMA_WRITE, 0, 100, 9);
    rig_expect_dma(rig, 9, CMD_DMA_WRITE, 0, 100, 9);
}

static void test_refused(void)
{
    in_both(dma_refused);
}

static void dma_too_much(Rig *rig)
{
    static const uint64_t count[] = {
        RIG_MAX_XFER + 1, 1ull << 32, UINT64_MAX,
    };

    for (int i = 0; i < ARRAY_SIZE(count); i++) {
        peer_send_dma(rig->peer, i, CMD_DMA_READ, PEER_COMMAND, RIG_RAM,
                      count[i], NULL, 0);
        peer_expect(rig->peer, i, CMD_DMA_READ, PEER_REPLY | PEER_ERROR,
                    EINVAL, NULL, 0);
    }
    g_assert_cmpint(rig_count(rig, &rig->nr_begin), ==, 0);
}

static void test_too_much(void)
{
    in_both(dma_too_much);
}

static void dma_no_reply(Rig *rig)
{
    uint8_t data[64];

    peer_pattern(data, sizeof(data), 2);
    peer_send_dma(rig->peer, 1, CMD_DMA_WRITE, PEER_NO_REPLY, RIG_RAM,
                  sizeof(data), data, sizeof(data));
    peer_send_dma(rig->peer, 2, CMD_DMA_READ, PEER_NO_REPLY, RIG_RAM, 8,
                  NULL, 0);
    peer_send(rig->peer, 3, CMD_UNKNOWN, PEER_NO_REPLY, 0, data, 10);
    /* The next answer is that to the next command. */
    rig_send_dma(rig, 4, CMD_DMA_READ, 0, 64, 2);
    rig_expect_dma(rig, 4, CMD_DMA_READ, 0, 64, 2);
}

static void test_no_reply(void)
{
    in_both(dma_no_reply);
}

static void unknown(Rig *rig)
{
    g_autofree uint8_t *data = g_malloc0(100000);

    peer_send(rig->peer, 1, CMD_UNKNOWN, PEER_COMMAND, 0, NULL, 0);
    peer_expect(rig->peer, 1, CMD_UNKNOWN, PEER_REPLY | PEER_ERROR, ENOTSUP,
                NULL, 0);
    peer_send(rig->peer, 2, CMD_REGION_WRITE, PEER_COMMAND, 0, data, 100000);
    peer_expect(rig->peer, 2, CMD_REGION_WRITE, PEER_REPLY | PEER_ERROR,
                ENOTSUP, NULL, 0);
    peer_send(rig->peer, 3, 0, PEER_COMMAND, 0, data, 1);
    peer_expect(rig->peer, 3, 0, PEER_REPLY | PEER_ERROR, ENOTSUP, NULL, 0);
}

static void test_unknown(void)
{
    in_both(unknown);
}

/* Ids of the two directions have nothing to do with each other. */
static void test_same_id(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 1, 8);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    rig_send_dma(rig, msg.id, CMD_DMA_WRITE, 0, 16, 4);
    rig_expect_dma(rig, msg.id, CMD_DMA_WRITE, 0, 16, 4);
    peer_send(rig->peer, msg.id, CMD_REGION_READ, PEER_COMMAND, 0, NULL, 0);
    peer_expect(rig->peer, msg.id, CMD_REGION_READ, PEER_REPLY | PEER_ERROR,
                ENOTSUP, NULL, 0);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_fds_closed(void)
{
    Rig *rig = rig_new_started(peer_pair);
    unsigned before = peer_count_fds();
    g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, 8, "abcdefgh", 8);
    g_autofree uint8_t *m = peer_make(1, CMD_DMA_WRITE, PEER_COMMAND, 0,
                                      payload, 24);
    int fds[5];

    peer_open_fds(fds, 5);
    peer_send_fds(rig->peer, m, 40, fds, 5);
    peer_close_fds(fds, 5);
    peer_expect(rig->peer, 1, CMD_DMA_WRITE, PEER_REPLY, 0, payload, 16);
    g_assert_cmpint(peer_count_fds(), ==, before);
    g_assert_cmpmem(rig->ram, 8, "abcdefgh", 8);
    rig_free(rig);
}

/* While one request is at the server, no other is, but its commands are. */
static void test_lockstep_served(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    vfio_user_conn_set_lockstep(rig->conn);
    call_init(&call, rig, 1, 8);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    for (int i = 0; i < 10; i++) {
        rig_send_dma(rig, i, CMD_DMA_WRITE, 64 * i, 64, i);
        rig_expect_dma(rig, i, CMD_DMA_WRITE, 64 * i, 64, i);
        rig_send_dma(rig, i, CMD_DMA_READ, 64 * i, 64, i);
        rig_expect_dma(rig, i, CMD_DMA_READ, 64 * i, 64, i);
    }
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    call_end(&call, &msg);
    rig_free(rig);
}

/*
 * Two sockets: the server answers a request only when its own command on the
 * other one, at which nobody waits, was served.
 */
static void test_twin(void)
{
    Rig *rig = rig_new(peer_pair), *twin = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call;

    peer_pattern(twin->ram, 4096, 1);
    call_init(&call, rig, 1, 8);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    rig_send_dma(twin, 1, CMD_DMA_READ, 0, 4096, 0);
    rig_expect_dma(twin, 1, CMD_DMA_READ, 0, 4096, 1);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    call_end(&call, &msg);
    rig_free(twin);
    rig_free(rig);
}

/* Background --------------------------------------------------------------- */

/* A background that gave way to threads that wait comes back. */
static void test_background_returns(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (int round = 0; round < 20; round++) {
        Call call[2];
        PeerMessage msg[2];

        for (int i = 0; i < 2; i++) {
            call_init(&call[i], rig, i, 4);
            call_thread_start(&call[i]);
            call_peer_get(&call[i], &msg[i]);
        }
        for (int i = 0; i < 2; i++) {
            call_peer_answer(&call[i], &msg[i]);
            call_thread_join(&call[i]);
            call_check_good(&call[i]);
            call_end(&call[i], &msg[i]);
        }
        rig_send_dma(rig, round, CMD_DMA_WRITE, 0, 8, round);
        rig_expect_dma(rig, round, CMD_DMA_WRITE, 0, 8, round);
    }
    rig_free(rig);
}

/* After a wait so long that the background looked again several times */
static void test_background_after_long_wait(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call;

    rig_set_ticks(rig);
    call_init(&call, rig, 1, 4);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    rig_send_dma(rig, 1, CMD_DMA_WRITE, 0, 8, 1);
    rig_expect_dma(rig, 1, CMD_DMA_WRITE, 0, 8, 1);
    rig_wait_count(rig, &rig->nr_ticks, 5);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    rig_send_dma(rig, 2, CMD_DMA_WRITE, 0, 8, 2);
    rig_expect_dma(rig, 2, CMD_DMA_WRITE, 0, 8, 2);
    call_end(&call, &msg);
    rig_free(rig);
}

/*
 * The reply to a server's command is larger than the socket takes. Before it
 * is out, the thread that served it has what it waited for and leaves.
 */
static void reply_outlives_wait(bool waits_long)
{
    Rig *rig = rig_new_started(peer_small_pair);
    size_t count = 256 * 1024;
    PeerMessage msg;
    Call call;

    peer_pattern(rig->ram, count, 5);
    call_init(&call, rig, 1, 4);
    if (waits_long) {
        rig_set_ticks(rig);
    }
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    if (waits_long) {
        rig_wait_count(rig, &rig->nr_ticks, 2);
    }
    rig_send_dma(rig, 1, CMD_DMA_READ, 0, count, 0);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    rig_expect_dma(rig, 1, CMD_DMA_READ, 0, count, 5);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_reply_outlives_wait(void)
{
    for (int i = 0; i < 10; i++) {
        reply_outlives_wait(i == 0);
    }
}

/* The same when the AioContext, busy elsewhere, has seen nothing of it */
typedef struct Busy {
    QemuSemaphore begun, go;
} Busy;

static void be_busy(void *opaque)
{
    Busy *busy = opaque;

    qemu_sem_post(&busy->begun);
    g_assert_cmpint(qemu_sem_timedwait(&busy->go, PEER_DEADLINE_MS), ==, 0);
}

static void test_reply_outlives_busy(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    size_t count = 256 * 1024;
    PeerMessage msg;
    Busy busy;
    Call call;

    qemu_sem_init(&busy.begun, 0);
    qemu_sem_init(&busy.go, 0);
    aio_bh_schedule_oneshot(iothread_get_aio_context(rig->iothread), be_busy,
                            &busy);
    g_assert_cmpint(qemu_sem_timedwait(&busy.begun, PEER_DEADLINE_MS), ==, 0);
    peer_pattern(rig->ram, count, 5);
    call_init(&call, rig, 1, 4);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    rig_send_dma(rig, 1, CMD_DMA_READ, 0, count, 0);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    qemu_sem_post(&busy.go);
    rig_expect_dma(rig, 1, CMD_DMA_READ, 0, count, 5);
    qemu_sem_destroy(&busy.begun);
    qemu_sem_destroy(&busy.go);
    call_end(&call, &msg);
    rig_free(rig);
}

/* Many at once: their replies wait for room, in order. */
static void test_background_full(void)
{
    Rig *rig = rig_new_started(peer_small_pair);

    peer_pattern(rig->ram, 65536, 1);
    for (int i = 0; i < 40; i++) {
        rig_send_dma(rig, i, CMD_DMA_READ, 0, 65536, 0);
    }
    for (int i = 0; i < 40; i++) {
        rig_expect_dma(rig, i, CMD_DMA_READ, 0, 65536, 1);
    }
    rig_check_alive(rig);
    rig_free(rig);
}

/* One whose replies nobody reads gets no more than so much memory pinned. */
static void test_flood(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, 65536, NULL, 0);
    g_autofree uint8_t *m = peer_make(1, CMD_DMA_READ, PEER_COMMAND, 0,
                                      payload, 16);

    rig->fails = 1;
    for (int i = 0; i < 10000; i++) {
        struct pollfd pfd = { .fd = rig->peer, .events = POLLOUT };
        ssize_t n = send(rig->peer, m, 32, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            g_assert_cmpint(poll(&pfd, 1, PEER_DEADLINE_MS), ==, 1);
            continue;
        }
        if (n < 0) {
            g_assert_cmpint(errno, ==, EPIPE);
            break;
        }
        g_assert_cmpint(n, ==, 32);
    }
    rig_wait_failed(rig, "replies");
    g_assert_cmpint(rig->max_mapped, <=, VFIO_USER_CONN_MAX_REPLIES + 2);
    rig_free(rig);
}

/* Failure in the middle ---------------------------------------------------- */

static void test_write_cut_off(void)
{
    Rig *rig = rig_new_started(peer_pair);
    uint8_t data[100];
    g_autofree uint8_t *payload = NULL;
    g_autofree uint8_t *m = NULL;

    peer_pattern(data, sizeof(data), 6);
    payload = peer_make_dma(RIG_RAM, sizeof(data), data, sizeof(data));
    m = peer_make(1, CMD_DMA_WRITE, PEER_COMMAND, 0, payload,
                  16 + sizeof(data));
    peer_send_bytes(rig->peer, m, 32 + 60);
    peer_wait_taken(rig->peer);
    rig_close_peer(rig);
    rig_wait_failed(rig, "closed");
    vfio_user_conn_stop(rig->conn);
    peer_check_pattern(rig->ram, 60, 6);
    g_assert_cmpint(rig->ram[60], ==, 0);
    rig_free(rig);
}

typedef struct Bad {
    uint16_t command;
    uint32_t count;
    uint32_t len;
    const char *text;
} Bad;

/* What the header or the arguments say does not go together. */
static void test_malformed(void)
{
    static const Bad bad[] = {
        { CMD_DMA_READ, 8, 16 + 8, "DMA command" },
        { CMD_DMA_READ, 8, 15, "without address" },
        { CMD_DMA_READ, 8, 0, "without address" },
        { CMD_DMA_WRITE, 8, 15, "without address" },
        { CMD_DMA_WRITE, 8, 16 + 7, "DMA command" },
        { CMD_DMA_WRITE, 8, 16 + 9, "DMA command" },
        { CMD_DMA_WRITE, 0, 16 + 1, "DMA command" },
        { CMD_DMA_WRITE, RIG_MAX_XFER + 1, 16 + RIG_MAX_XFER + 1,
          "larger than agreed" },
        { CMD_UNKNOWN, 0, 16 + RIG_MAX_XFER + 1, "larger than agreed" },
    };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        Rig *rig = rig_new_started(peer_pair);
        g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, bad[i].count,
                                                    NULL, 0);
        uint32_t size = 16 + bad[i].len;
        g_autofree uint8_t *m = peer_make(1, bad[i].command, PEER_COMMAND, 0,
                                          payload, 16);

        memcpy(m + 4, &size, 4);
        peer_send_bytes(rig->peer, m, 32);
        rig_wait_failed(rig, bad[i].text);
        g_assert_cmpint(rig->nr_begin, ==, 0);
        rig_free(rig);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/commands/" name, func)
    T("read", test_read);
    T("write", test_write);
    T("pieces", test_pieces);
    T("split", test_split);
    T("count-0", test_count_0);
    T("refused", test_refused);
    T("too-much", test_too_much);
    T("no-reply", test_no_reply);
    T("unknown", test_unknown);
    T("same-id", test_same_id);
    T("fds-closed", test_fds_closed);
    T("lockstep", test_lockstep_served);
    T("twin", test_twin);
    T("background/returns", test_background_returns);
    T("background/after-long-wait", test_background_after_long_wait);
    T("background/reply-outlives-wait", test_reply_outlives_wait);
    T("background/reply-outlives-busy", test_reply_outlives_busy);
    T("background/full", test_background_full);
    T("flood", test_flood);
    T("write-cut-off", test_write_cut_off);
    T("malformed", test_malformed);

    return g_test_run();
}
