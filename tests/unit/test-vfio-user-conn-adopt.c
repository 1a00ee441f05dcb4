/*
 * vfio-user: what a connection takes over with another socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-lives.h"

#define CMD_REGION_WRITE_MULTI  15
#define ERR_INVAL               22

#define DMA_LEN     100000

/* What came on the new socket already ------------------------------------- */

/* A command of which @at bytes have come, with @nr_fds descriptors */
static void command_half(size_t at, unsigned nr_fds)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree uint8_t *data = g_malloc(DMA_LEN);
    g_autofree uint8_t *payload = NULL;
    g_autofree uint8_t *m = NULL;
    size_t len = 32 + DMA_LEN;
    int fds[2];
    Next next;

    peer_pattern(data, DMA_LEN, at);
    payload = peer_make_dma(RIG_RAM, DMA_LEN, data, DMA_LEN);
    m = peer_make(3, CMD_DMA_WRITE, PEER_COMMAND, 0, payload, 16 + DMA_LEN);
    next_init(&next, rig, peer_pair);
    peer_open_fds(fds, nr_fds);
    peer_send_fds(next.peer, m, at, fds, nr_fds);
    peer_close_fds(fds, nr_fds);
    peer_wait_taken(next.peer);

    lives_lose(rig);
    next_take(&next, rig);
    peer_send_bytes(rig->peer, m + at, len - at);
    rig_expect_dma(rig, 3, CMD_DMA_WRITE, 0, DMA_LEN, at);
    peer_check_pattern(rig->ram, DMA_LEN, at);
    lives_check_slots(rig);
    rig_free(rig);
}

static void test_command_half(void)
{
    static const size_t at[] = {
        1, 15, 16, 17, 31, 32, 33, 9000, 50000, 32 + DMA_LEN - 1,
    };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        command_half(at[i], 0);
        command_half(at[i], 2);
    }
}

/* Two commands, and a piece of the second: both are answered, in order. */
static void test_command_and_half(void)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, 8, "01234567", 8);
    g_autofree uint8_t *m = peer_make(6, CMD_DMA_WRITE, PEER_COMMAND, 0,
                                      payload, 24);
    Next next;

    next_init(&next, rig, peer_pair);
    peer_send_bytes(next.peer, m, 40);
    m[0] = 7;
    peer_send_bytes(next.peer, m, 20);
    peer_wait_taken(next.peer);
    lives_lose(rig);
    next_take(&next, rig);
    peer_send_bytes(rig->peer, m + 20, 20);
    for (int id = 6; id <= 7; id++) {
        peer_expect(rig->peer, id, CMD_DMA_WRITE, PEER_REPLY, 0, payload, 16);
    }
    g_assert_cmpmem(rig->ram, 8, "01234567", 8);
    lives_check_slots(rig);
    rig_free(rig);
}

/* The end comes before the rest does: nothing stays mapped or open. */
static void test_command_half_lost(void)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, DMA_LEN, NULL, 0);
    g_autofree uint8_t *m = peer_make(1, CMD_DMA_WRITE, PEER_COMMAND, 0,
                                      payload, 16);
    uint32_t size = 32 + DMA_LEN;
    Next next;

    memcpy(m + 4, &size, sizeof(size));
    for (int i = 0; i < 3; i++) {
        int fds[2];

        next_init(&next, rig, peer_pair);
        peer_open_fds(fds, 2);
        peer_send_fds(next.peer, m, 32, fds, 2);
        peer_close_fds(fds, 2);
        rig_wait_count(rig, &rig->nr_begin, i + 1);
        lives_lose(rig);
        next_take(&next, rig);
        g_assert_cmpint(rig_count(rig, &rig->nr_end), ==, i);
    }
    rig_free(rig);
}

/* Replies that the server does not read yet. Nothing is asked before. */
static void test_replies(void)
{
    enum { NR = 10, LEN = 60000 };
    Rig *rig = rig_new_started(peer_pair);
    Next next;
    Call call;

    peer_pattern(rig->ram, LEN, 5);
    next_init(&next, rig, peer_small_pair);
    vfio_user_conn_set_lockstep(next.conn);
    for (int i = 0; i < NR; i++) {
        peer_send_dma(next.peer, i, CMD_DMA_READ, PEER_COMMAND, RIG_RAM, LEN,
                      NULL, 0);
    }
    rig_wait_count(rig, &rig->nr_begin, NR);
    lives_lose(rig);
    next_take(&next, rig);
    call_init(&call, rig, 1, 4);
    call_thread_start(&call);
    for (int i = 0; i < NR; i++) {
        rig_expect_dma(rig, i, CMD_DMA_READ, 0, LEN, 5);
    }
    call_peer_serve(&call);
    call_thread_join(&call);
    call_check_good(&call);
    call_free(&call);
    lives_check_slots(rig);
    rig_free(rig);
}

/* Writes that wait for room, and one that is partly out */
static void test_writes(void)
{
    Rig *rig = rig_new_started(peer_pair);
    unsigned posts = 0, multi = 0;
    Next next;

    next_init(&next, rig, peer_small_pair);
    while (!qatomic_read(&next.conn->nr_backlog)) {
        g_assert_cmpint(vfio_user_conn_post_write(next.conn, 0, 1, "x", 1, 0, 0),
                        ==, 0);
        posts++;
    }
    for (int i = 0; i < 300; i++, posts++) {
        g_assert_cmpint(vfio_user_conn_post_write(next.conn, 0, 1, "x", 1, 0, 0),
                        ==, 0);
    }
    lives_lose(rig);
    next_take(&next, rig);
    while (posts) {
        PeerMessage msg;
        uint64_t nr = 1;

        peer_get(rig->peer, &msg);
        if (msg.command == CMD_REGION_WRITE_MULTI) {
            memcpy(&nr, msg.payload, sizeof(nr));
            multi++;
        } else {
            g_assert_cmpint(msg.command, ==, CMD_REGION_WRITE);
        }
        g_assert_cmpint(nr, <=, posts);
        posts -= nr;
        peer_drop(&msg);
    }
    g_assert_cmpint(multi, >, 0);
    lives_check_slots(rig);
    g_assert_cmpint(qatomic_read(&rig->conn->nr_backlog), ==, 0);
    rig_free(rig);
}

/* What was negotiated ----------------------------------------------------- */

static void set_lockstep(VFIOUserConn *conn, bool on)
{
    if (on) {
        vfio_user_conn_set_lockstep(conn);
    }
}

/* Each life has its own, not that of the one before. */
static void test_modes(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (unsigned i = 0; i < 16; i++) {
        Next next;

        next_init(&next, rig, peer_pair);
        set_lockstep(next.conn, i & 1);
        if (i & 2) {
            vfio_user_conn_set_no_commands(next.conn);
        }
        vfio_user_conn_set_poll(next.conn, i & 4 ? i : 0);
        vfio_user_conn_set_limits(next.conn, 4096 << (i & 3));
        if (i & 8) {
            vfio_user_conn_set_no_fds(next.conn);
        }
        lives_lose(rig);
        next_take(&next, rig);
        g_assert_cmpint(vfio_user_conn_lockstep(rig->conn), ==, i & 1);
        g_assert_cmpint(qatomic_read(&rig->conn->no_commands), ==,
                        !!(i & 2));
        g_assert_cmpint(rig->conn->poll.max_ns, ==, i & 4 ? i * 1000 : 0);
        g_assert_cmpint(rig->conn->chan.no_fds, ==, !!(i & 8));
        lives_check_slots(rig);
    }
    rig_free(rig);
}

static void test_limits(void)
{
    static const size_t limit[] = { 8192, 4096, 8192 };
    Rig *rig = rig_new_started(peer_pair);

    for (int i = 0; i < ARRAY_SIZE(limit); i++) {
        Next next;

        next_init(&next, rig, peer_pair);
        vfio_user_conn_set_limits(next.conn, limit[i]);
        lives_lose(rig);
        next_take(&next, rig);
        peer_send_dma(rig->peer, i, CMD_DMA_READ, PEER_COMMAND, RIG_RAM, 8192,
                      NULL, 0);
        if (limit[i] < 8192) {
            peer_expect(rig->peer, i, CMD_DMA_READ, PEER_REPLY | PEER_ERROR,
                        ERR_INVAL, NULL, 0);
        } else {
            PeerMessage msg;

            peer_get(rig->peer, &msg);
            g_assert_cmphex(msg.flags, ==, PEER_REPLY);
            g_assert_cmpint(msg.len, ==, 16 + 8192);
            peer_drop(&msg);
        }
    }
    rig_free(rig);
}

/* Replies that are late ---------------------------------------------------- */

#define LATE_LEN    100000

/*
 * A question that the server may leave unanswered was given up before. Its answer may
 * come all the same: @early bytes of it before, the rest after.
 */
static void late_reply(size_t early)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage msg;
    Rig view;
    Call call;
    Next next;
    size_t len;

    next_init(&next, rig, peer_pair);
    view = (Rig) { .conn = next.conn, .peer = next.peer };
    call_init(&call, &view, 1, LATE_LEN);
    call_submit(&call);
    call_peer_get(&call, &msg);
    m = call_peer_make(&call, &msg, &len);
    vfio_user_conn_abandon(next.conn, &call.req);
    peer_send_bytes(next.peer, m, early);
    peer_wait_taken(next.peer);
    lives_lose(rig);
    next_take(&next, rig);
    g_assert_cmpint(lives_free_slots(rig), ==,
                    VFIO_USER_CONN_MAX_REQUESTS - 1);
    if (!early) {
        rig_check_alive(rig);
    }
    peer_send_bytes(rig->peer, m + early, len - early);
    peer_wait_taken(rig->peer);
    lives_check_slots(rig);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_late_reply(void)
{
    late_reply(0);
}

static void test_late_reply_split(void)
{
    static const size_t early[] = { 1, 16, 20, 32, 50000, 32 + LATE_LEN - 1 };

    for (int i = 0; i < ARRAY_SIZE(early); i++) {
        late_reply(early[i]);
    }
}

/* Refused ----------------------------------------------------------------- */

static void check_refused(Rig *rig, Next *next)
{
    Error *err;

    g_assert_false(vfio_user_conn_adopt(rig->conn, next->conn));
    g_assert_true(vfio_user_conn_broken(rig->conn));
    err = vfio_user_conn_error(rig->conn);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "the server closed the connection");
    error_free(err);
    g_assert_cmpint(rig_post(rig, 1, 4, 0), ==, -EPIPE);
}

/* With a request that is waited for */
static void test_refuse_busy(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Rig view;
    Call call;
    Next next;

    next_init(&next, rig, peer_pair);
    view = (Rig) { .conn = next.conn, .peer = next.peer };
    call_init(&call, &view, 1, 4);
    call_submit(&call);
    lives_lose(rig);
    check_refused(rig, &next);
    vfio_user_conn_close(next.conn);
    call_wait_ret(&call, -EPIPE);
    next_free(&next);
    call_free(&call);
    lives_begin(rig);
    lives_check_slots(rig);
    rig_free(rig);
}

static void test_refuse_broken(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Next next;

    for (int closed = 0; closed < 2; closed++) {
        next_init(&next, rig, peer_pair);
        if (closed) {
            vfio_user_conn_close(next.conn);
        } else {
            close(next.peer);
            next.peer = -1;
            rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
        }
        lives_lose(rig);
        check_refused(rig, &next);
        next_free(&next);
        lives_begin(rig);
        lives_check_slots(rig);
    }
    rig_free(rig);
}

/* Failures ---------------------------------------------------------------- */

/* Each socket has its reason, and the owner is told of each. */
static void test_reasons(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (int i = 0; i < 4; i++) {
        const char *text = i & 1 ? "nothing that was asked" :
                                   "closed the connection";
        Error *err;

        g_assert_null(vfio_user_conn_error(rig->conn));
        if (i & 1) {
            peer_send(rig->peer, 1, CMD_REGION_READ, PEER_REPLY, 0, NULL, 0);
            rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
            peer_wait_eof(rig->peer);
        } else {
            lives_lose(rig);
        }
        err = vfio_user_conn_error(rig->conn);
        g_assert_nonnull(strstr(error_get_pretty(err), text));
        error_free(err);
        lives_begin(rig);
        g_assert_cmpint(rig_count(rig, &rig->nr_failed), ==, i + 1);
    }
    lives_check_slots(rig);
    rig_free(rig);
}

static void fail_life(Rig *rig, unsigned life)
{
    Error *err = NULL;

    error_setg(&err, "life %u", life);
    vfio_user_conn_fail_life(rig->conn, life, err);
}

/* A thread finds out late that the socket it has sent to was lost. */
static void test_late_failure(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (unsigned life = 1; life < 4; life++) {
        lives_lose(rig);
        lives_begin(rig);
        fail_life(rig, life);
        lives_check_slots(rig);
        g_assert_null(vfio_user_conn_error(rig->conn));
        g_assert_cmpint(rig_count(rig, &rig->nr_failed), ==, life);
    }
    fail_life(rig, 4);
    g_assert_true(vfio_user_conn_broken(rig->conn));
    rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
    rig_free(rig);
}

/* Somebody is still telling of the failure when the next socket is there. */
static void failed_slowly(void *opaque)
{
    Rig *rig = opaque;

    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->nr_failed++;
        qemu_cond_broadcast(&rig->cond);
    }
    rig_wait_count(rig, &rig->nr_done, 1);
    /* Now the other thread has its chance, and must not take it. */
    for (int i = 0; i < 1000; i++) {
        g_assert_true(vfio_user_conn_broken(rig->conn));
        g_thread_yield();
    }
}

static void fail_thread(void *opaque)
{
    fail_life(opaque, 1);
}

static void test_while_failing(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerThread thread;
    Next next;

    rig->ops.failed = failed_slowly;
    peer_thread_start(&thread, fail_thread, rig);
    rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
    next_init(&next, rig, peer_pair);
    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->nr_done++;
        qemu_cond_broadcast(&rig->cond);
    }
    next_take(&next, rig);
    peer_thread_join(&thread);
    lives_check_slots(rig);
    rig_free(rig);
}

/* An old reply, of a server that is the same process */
static void test_old_reply(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    lives_lose(rig);
    lives_begin(rig);
    call_peer_answer(&call, &msg);
    rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
    call_wait_ret(&call, -EPIPE);
    call_end(&call, &msg);
    lives_begin(rig);
    lives_check_slots(rig);
    rig_free(rig);
}

/* Never started before, and stopped for good after */
static void test_not_started(void)
{
    Rig *rig = rig_new(peer_pair);
    Error *err = NULL;

    rig->iothread = iothread_new();
    error_setg(&err, "whatever");
    vfio_user_conn_fail(rig->conn, err);
    rig->fails++;
    lives_begin(rig);
    /* It is looked after now. */
    rig_send_dma(rig, 1, CMD_DMA_WRITE, 0, 64, 1);
    rig_expect_dma(rig, 1, CMD_DMA_WRITE, 0, 64, 1);
    lives_check_slots(rig);
    vfio_user_conn_stop(rig->conn);
    g_assert_cmpint(rig_post(rig, 1, 4, 0), ==, -EPIPE);
    rig_free(rig);
}

/* Another owner ----------------------------------------------------------- */

static void test_rebind(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Rig *other = rig_new(peer_pair);

    rig_send_dma(rig, 1, CMD_DMA_WRITE, 0, 64, 1);
    rig_expect_dma(rig, 1, CMD_DMA_WRITE, 0, 64, 1);
    vfio_user_conn_rebind(rig->conn, other);
    rig_send_dma(rig, 2, CMD_DMA_WRITE, 0, 64, 2);
    rig_expect_dma(rig, 2, CMD_DMA_WRITE, 0, 64, 2);
    peer_check_pattern(rig->ram, 64, 1);
    peer_check_pattern(other->ram, 64, 2);
    rig_close_peer(rig);
    rig_wait_count(other, &other->nr_failed, ++other->fails);
    rig_free(rig);
    rig_free(other);
}

/* Half a command is not lost, and has memory of the new owner. */
static void test_rebind_half(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Rig *other = rig_new(peer_pair);
    g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, 8, "01234567", 8);
    g_autofree uint8_t *m = peer_make(6, CMD_DMA_WRITE, PEER_COMMAND, 0,
                                      payload, 24);

    peer_send_bytes(rig->peer, m, 20);
    peer_wait_taken(rig->peer);
    vfio_user_conn_rebind(rig->conn, other);
    peer_send_bytes(rig->peer, m + 20, 20);
    peer_expect(rig->peer, 6, CMD_DMA_WRITE, PEER_REPLY, 0, payload, 16);
    g_assert_cmpmem(other->ram, 8, "01234567", 8);
    rig_free(rig);
    rig_free(other);
}

/* It failed before, so the new owner has to be told as well. */
static void test_rebind_broken(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Rig *other = rig_new(peer_pair);

    lives_lose(rig);
    vfio_user_conn_rebind(rig->conn, other);
    rig_wait_count(other, &other->nr_failed, ++other->fails);
    rig_free(rig);
    rig_free(other);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/adopt/" name, func)
    T("command/half", test_command_half);
    T("command/and-half", test_command_and_half);
    T("command/half-lost", test_command_half_lost);
    T("replies", test_replies);
    T("writes", test_writes);
    T("modes", test_modes);
    T("limits", test_limits);
    T("late-reply/whole", test_late_reply);
    T("late-reply/split", test_late_reply_split);
    T("refuse/busy", test_refuse_busy);
    T("refuse/broken", test_refuse_broken);
    T("reasons", test_reasons);
    T("late-failure", test_late_failure);
    T("while-failing", test_while_failing);
    T("old-reply", test_old_reply);
    T("not-started", test_not_started);
#undef T
#define T(name, func) peer_add_test("/vfio-user/conn/rebind/" name, func)
    T("normal", test_rebind);
    T("half", test_rebind_half);
    T("broken", test_rebind_broken);

    return g_test_run();
}
