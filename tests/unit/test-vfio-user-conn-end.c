/*
 * vfio-user: how a connection begins and ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

#define NR_WAITERS  3

/* The server breaks the protocol ------------------------------------------- */

/* What the peer does about the first of the requests in flight */
typedef void Breach(Rig *rig, Call *call, const PeerMessage *msg);

static void breach_too_large(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *payload = g_malloc0(16 + call->count + 1);

    peer_reply(rig->peer, msg, payload, 16 + call->count + 1);
}

static void breach_huge(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *m = peer_make(msg->id, msg->command, PEER_REPLY, 0,
                                      NULL, 0);

    memset(m + 4, 0xff, 4);
    peer_send_bytes(rig->peer, m, 16);
}

static void breach_unknown_id(Rig *rig, Call *call, const PeerMessage *msg)
{
    peer_send(rig->peer, msg->id + NR_WAITERS + 1, msg->command, PEER_REPLY,
              0, NULL, 0);
}

/* The same slot as the request's, another round */
static void breach_old_id(Rig *rig, Call *call, const PeerMessage *msg)
{
    peer_send(rig->peer, msg->id + 256, msg->command, PEER_REPLY, 0, NULL, 0);
}

static void breach_twice(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *m = peer_make(msg->id, msg->command,
                                      PEER_REPLY | PEER_ERROR, 22, NULL, 0);
    uint8_t both[32];

    memcpy(both, m, 16);
    memcpy(both + 16, m, 16);
    peer_send_bytes(rig->peer, both, sizeof(both));
}

static void breach_command(Rig *rig, Call *call, const PeerMessage *msg)
{
    peer_send(rig->peer, msg->id, CMD_REGION_WRITE, PEER_REPLY, 0, NULL, 0);
}

static void breach_small(Rig *rig, Call *call, const PeerMessage *msg)
{
    uint32_t size = 15;
    g_autofree uint8_t *m = peer_make(msg->id, msg->command, PEER_REPLY, 0,
                                      NULL, 0);

    memcpy(m + 4, &size, 4);
    peer_send_bytes(rig->peer, m, 16);
}

static void breach_size_0(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *m = peer_make(msg->id, msg->command, PEER_REPLY, 0,
                                      NULL, 0);

    memset(m + 4, 0, 4);
    peer_send_bytes(rig->peer, m, 16);
}

static void breach_type(Rig *rig, Call *call, const PeerMessage *msg)
{
    peer_send(rig->peer, msg->id, msg->command, 2, 0, NULL, 0);
}

static void breach_fds(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *m = peer_make(msg->id, msg->command, PEER_REPLY, 0,
                                      NULL, 0);
    int fds[17];

    peer_open_fds(fds, 17);
    peer_send_fds(rig->peer, m, 16, fds, 17);
    peer_close_fds(fds, 17);
}

static void breach_fds_in_parts(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *m = peer_make(msg->id, msg->command, PEER_REPLY, 0,
                                      NULL, 0);
    int fds[10];

    peer_open_fds(fds, 10);
    peer_send_fds(rig->peer, m, 8, fds, 10);
    peer_send_fds(rig->peer, m + 8, 8, fds, 10);
    peer_close_fds(fds, 10);
}

static void breach_eof(Rig *rig, Call *call, const PeerMessage *msg)
{
    rig_close_peer(rig);
}

static void breach_eof_in_header(Rig *rig, Call *call, const PeerMessage *msg)
{
    g_autofree uint8_t *m = peer_make(msg->id, msg->command, PEER_REPLY, 0,
                                      NULL, 0);

    peer_send_bytes(rig->peer, m, 9);
    rig_close_peer(rig);
}

static void breach_eof_in_data(Rig *rig, Call *call, const PeerMessage *msg)
{
    size_t len;
    g_autofree uint8_t *m = call_peer_make(call, msg, &len);

    peer_send_bytes(rig->peer, m, len - 1);
    rig_close_peer(rig);
}

/* Fails once, for good, and everybody who waits comes back at once. */
static void breach(Breach *func, const char *text, bool started)
{
    Rig *rig = started ? rig_new_started(peer_pair) : rig_new(peer_pair);
    PeerMessage msg[NR_WAITERS];
    Call call[NR_WAITERS], late;

    for (int i = 0; i < NR_WAITERS; i++) {
        call_init(&call[i], rig, i, 64);
        call_thread_start(&call[i]);
        call_peer_get(&call[i], &msg[i]);
    }
    func(rig, &call[0], &msg[0]);
    for (int i = 0; i < NR_WAITERS; i++) {
        call_thread_join(&call[i]);
        /* One of two equal replies was right. */
        g_assert_cmpint(call[i].ret, ==,
                        func == breach_twice && !i ? -22 : -EPIPE);
        call_end(&call[i], &msg[i]);
    }
    rig_wait_failed(rig, text);
    if (rig->peer >= 0) {
        peer_wait_eof(rig->peer);
    }

    /* Sticky */
    call_init(&late, rig, 1, 4);
    call_submit(&late);
    call_wait_ret(&late, -EPIPE);
    call_free(&late);
    g_assert_cmpint(rig_post(rig, 1, 4, 0), ==, -EPIPE);
    vfio_user_conn_close(rig->conn);
    rig_free(rig);
}

static void test_breach(void)
{
    static const struct {
        Breach *func;
        const char *text;
    } t[] = {
        { breach_too_large, "larger than the request allows" },
        { breach_huge, "larger than the request allows" },
        { breach_unknown_id, "nothing that was asked" },
        { breach_old_id, "nothing that was asked" },
        { breach_twice, "nothing that was asked" },
        { breach_command, "another command" },
        { breach_small, "a message of 15 bytes" },
        { breach_size_0, "a message of 0 bytes" },
        { breach_type, "flags 0x2" },
        { breach_fds, "descriptors" },
        { breach_fds_in_parts, "descriptors" },
        { breach_eof, "closed the connection" },
        { breach_eof_in_header, "closed the connection" },
        { breach_eof_in_data, "closed the connection" },
    };

    for (int i = 0; i < ARRAY_SIZE(t); i++) {
        breach(t[i].func, t[i].text, false);
        breach(t[i].func, t[i].text, true);
    }
}

/* A second reply to the last request is not one to the next. */
static void test_stale_reply(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage first, second;
    Call call[2];

    call_begin(&call[0], rig, 0, 4, &first);
    call_peer_answer(&call[0], &first);
    call_wait_good(&call[0]);

    call_begin(&call[1], rig, 1, 4, &second);
    call_peer_answer(&call[0], &first);
    call_wait_ret(&call[1], -EPIPE);
    rig_wait_failed(rig, "nothing that was asked");
    for (int i = 0; i < 2; i++) {
        call_free(&call[i]);
    }
    peer_drop(&first);
    peer_drop(&second);
    rig_free(rig);
}

/* Out of file descriptors: the kernel cuts control data short. */
static void test_out_of_fds(void)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage msg;
    struct rlimit old, none;
    Call call;
    int fds[2], got[2];
    size_t len;

    call_init(&call, rig, 1, 4);
    call.req.in_fds = got;
    call.req.max_in_fds = 2;
    call_submit(&call);
    call_peer_get(&call, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_open_fds(fds, 2);
    peer_send_fds(rig->peer, m, len, fds, 2);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    none = old;
    none.rlim_cur = 3;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    call_wait_ret(&call, -EPIPE);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
    rig_wait_failed(rig, "too many open files");
    peer_close_fds(fds, 2);
    call_end(&call, &msg);
    rig_free(rig);
}

/* What was answered before the server went is still good. */
static void test_answer_then_eof(void)
{
    Rig *rig = rig_new(peer_pair);
    Call call[2];

    for (int i = 0; i < 2; i++) {
        call_init(&call[i], rig, i, 100);
        call_submit(&call[i]);
        call_peer_serve(&call[i]);
    }
    rig_close_peer(rig);
    call_wait_good(&call[0]);
    call_wait_good(&call[1]);
    call_free(&call[0]);
    call_free(&call[1]);
    rig->fails = rig->nr_failed;
    rig_free(rig);
}

/* Nobody waits ------------------------------------------------------------- */

static void test_idle_eof(void)
{
    Rig *rig = rig_new_started(peer_pair);

    rig_close_peer(rig);
    rig_wait_failed(rig, "closed the connection");
    rig_free(rig);
}

static void test_idle_breach(void)
{
    Rig *rig = rig_new_started(peer_pair);

    peer_send(rig->peer, 0, CMD_REGION_READ, PEER_REPLY, 0, NULL, 0);
    rig_wait_failed(rig, "nothing that was asked");
    peer_wait_eof(rig->peer);
    rig_free(rig);
}

static void test_idle_eof_after_wait(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (int i = 0; i < 10; i++) {
        rig_check_alive(rig);
    }
    rig_close_peer(rig);
    rig_wait_failed(rig, "closed the connection");
    rig_free(rig);
}

/* One that sends its commands elsewhere is looked after less often. */
static void test_idle_eof_twin(void)
{
    Rig *rig = rig_new_started(peer_pair);

    vfio_user_conn_set_no_commands(rig->conn);
    for (int i = 0; i < 10; i++) {
        rig_check_alive(rig);
    }
    rig_send_dma(rig, 1, CMD_DMA_WRITE, 0, 8, 1);
    rig_expect_dma(rig, 1, CMD_DMA_WRITE, 0, 8, 1);
    rig_check_alive(rig);
    rig_close_peer(rig);
    rig_wait_failed(rig, "closed the connection");
    rig_free(rig);
}

/* A failed connection costs its AioContext nothing more. */
static void count_turn(void *opaque)
{
    Rig *rig = opaque;

    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->nr_done++;
        qemu_cond_broadcast(&rig->cond);
    }
}

static void test_failed_rests(void)
{
    Rig *rig = rig_new_started(peer_pair);
    AioContext *ctx = iothread_get_aio_context(rig->iothread);

    rig_close_peer(rig);
    rig_wait_failed(rig, "closed");
    /* Two rounds of the event loop later the descriptor is not watched. */
    for (int i = 0; i < 3; i++) {
        aio_bh_schedule_oneshot(ctx, count_turn, rig);
        rig_wait_count(rig, &rig->nr_done, i + 1);
    }
    g_assert_true(rig->conn->bg->parked);
    g_assert_false(rig->conn->bg->wants_write);
    rig_free(rig);
}

/* The owner ends it -------------------------------------------------------- */

static void test_close_wakes(void)
{
    for (int started = 0; started < 2; started++) {
        Rig *rig = started ? rig_new_started(peer_pair) : rig_new(peer_pair);
        PeerMessage msg[NR_WAITERS];
        Call call[NR_WAITERS];

        for (int i = 0; i < NR_WAITERS; i++) {
            call_init(&call[i], rig, i, 64);
            call_thread_start(&call[i]);
            call_peer_get(&call[i], &msg[i]);
        }
        vfio_user_conn_close(rig->conn);
        for (int i = 0; i < NR_WAITERS; i++) {
            call_thread_join(&call[i]);
            g_assert_cmpint(call[i].ret, ==, -EPIPE);
            call_end(&call[i], &msg[i]);
        }
        peer_wait_eof(rig->peer);
        g_assert_true(vfio_user_conn_broken(rig->conn));
        vfio_user_conn_close(rig->conn);
        /* rig_free() checks that @failed was not called. */
        rig_free(rig);
    }
}

/* Waiters that have no room to send come back as well. */
static void blocked_post(void *opaque)
{
    Rig *rig = opaque;
    int ret;

    do {
        ret = rig_post(rig, 0, 100000, 0);
    } while (!ret);
    g_assert_cmpint(ret, ==, -EPIPE);
}

static void test_close_wakes_sender(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    PeerThread thread[NR_WAITERS];

    for (int i = 0; i < NR_WAITERS; i++) {
        peer_thread_start(&thread[i], blocked_post, rig);
    }
    rig_wait_queued(rig, NR_WAITERS);
    vfio_user_conn_close(rig->conn);
    for (int i = 0; i < NR_WAITERS; i++) {
        peer_thread_join(&thread[i]);
    }
    rig_free(rig);
}

/* And those for whom there is no slot. */
static void blocked_call(void *opaque)
{
    Rig *rig = opaque;
    Call call;

    call_init(&call, rig, 1, 4);
    call_submit(&call);
    call_wait_ret(&call, -EPIPE);
    call_free(&call);
}

static void test_close_wakes_lockstep(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerThread thread[NR_WAITERS];

    vfio_user_conn_set_lockstep(rig->conn);
    for (int i = 0; i < NR_WAITERS; i++) {
        peer_thread_start(&thread[i], blocked_call, rig);
    }
    /* All but the one that waits for its reply, the driver */
    rig_wait_waiters(rig, NR_WAITERS - 1);
    vfio_user_conn_close(rig->conn);
    for (int i = 0; i < NR_WAITERS; i++) {
        peer_thread_join(&thread[i]);
    }
    rig_free(rig);
}

static void test_fail_by_owner(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Error *err = NULL;

    g_assert_null(vfio_user_conn_error(rig->conn));
    g_assert_false(vfio_user_conn_broken(rig->conn));
    error_setg(&err, "the first reason");
    vfio_user_conn_fail(rig->conn, err);
    err = NULL;
    error_setg(&err, "the second reason");
    vfio_user_conn_fail(rig->conn, err);
    rig_wait_failed(rig, "the first reason");
    peer_wait_eof(rig->peer);
    rig_free(rig);
}

/* Beginning and end -------------------------------------------------------- */

static void test_free_unused(void)
{
    rig_free(rig_new(peer_pair));
    rig_free(rig_new_started(peer_pair));
}

static void test_start_failed(void)
{
    Rig *rig = rig_new(peer_pair);
    Call call;

    rig_close_peer(rig);
    call_init(&call, rig, 1, 4);
    call_submit(&call);
    call_wait_ret(&call, -EPIPE);
    call_free(&call);
    rig_wait_failed(rig, "");
    rig_start(rig);
    rig_free(rig);
}

static void test_stop_twice(void)
{
    Rig *rig = rig_new_started(peer_pair);

    rig_check_alive(rig);
    vfio_user_conn_stop(rig->conn);
    vfio_user_conn_stop(rig->conn);
    g_assert_cmpint(rig_post(rig, 1, 4, 0), ==, -EPIPE);
    rig_free(rig);
}

/* From a bottom half in the very AioContext */
static void stop_bh(void *opaque)
{
    Rig *rig = opaque;

    vfio_user_conn_stop(rig->conn);
    count_turn(rig);
}

static void test_stop_inside(void)
{
    Rig *rig = rig_new_started(peer_pair);

    rig_check_alive(rig);
    aio_bh_schedule_oneshot(iothread_get_aio_context(rig->iothread), stop_bh,
                            rig);
    rig_wait_count(rig, &rig->nr_done, 1);
    rig_free(rig);
}

static void test_stop_at_once(void)
{
    for (int i = 0; i < 200; i++) {
        Rig *rig = rig_new_started(peer_pair);

        if (i % 2) {
            rig_send_dma(rig, 1, CMD_DMA_READ, 0, 4096, 0);
        }
        rig_free(rig);
    }
}

/* The rest of a post, replies to commands, half a command, half a reply */
static void test_free_leftovers(void)
{
    for (int started = 0; started < 2; started++) {
        Rig *rig = rig_new(peer_small_pair);
        g_autofree uint8_t *payload = peer_make_dma(RIG_RAM, 100, NULL, 0);
        g_autofree uint8_t *m = peer_make(1, CMD_DMA_WRITE, PEER_COMMAND, 0,
                                          payload, 16);
        uint32_t size = 32 + 100;

        memcpy(m + 4, &size, 4);
        for (int i = 0; i < 3; i++) {
            rig_send_dma(rig, 1, CMD_DMA_READ, 0, 65536, 0);
        }
        peer_send_bytes(rig->peer, m, 32);
        if (started) {
            rig_start(rig);
            rig_wait_count(rig, &rig->nr_begin, 4);
        } else {
            while (rig->nr_begin < 4) {
                g_assert_cmpint(vfio_user_conn_rx_step(rig->conn), ==, 0);
            }
        }
        while (!rig_post(rig, 0, 100000, 1)) {
            /* The socket takes no more. */
        }
        rig_free(rig);
    }
}

static void test_free_reply_half(void)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage msg;
    Call call;
    size_t len;
    int fds[2];

    call_init(&call, rig, 1, 4);
    call.req.timeout_ms = 1;
    call_submit(&call);
    call_peer_get(&call, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_open_fds(fds, 2);
    peer_send_fds(rig->peer, m, len - 1, fds, 2);
    peer_close_fds(fds, 2);
    call_wait_ret(&call, -ETIMEDOUT);
    call_end(&call, &msg);
    rig_free(rig);
}

/* A descriptor that is no connection: what the kernel says to it is told. */
static void pair_unconnected(int fd[2])
{
    for (unsigned i = 0; i < 2; i++) {
        fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        g_assert_cmpint(fd[i], >=, 0);
    }
}

static void test_unconnected_receive(void)
{
    Rig *rig = rig_new_started(pair_unconnected);

    rig_wait_failed(rig, "cannot receive from the server: ");
    rig_free(rig);
}

static void test_unconnected_send(void)
{
    Rig *rig = rig_new(pair_unconnected);
    Call call;

    call_init(&call, rig, 1, 4);
    call_submit(&call);
    call_wait_ret(&call, -EPIPE);
    call_free(&call);
    rig_wait_failed(rig, "cannot send to the server: ");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/end/" name, func)
    T("breach", test_breach);
    T("stale-reply", test_stale_reply);
    T("out-of-fds", test_out_of_fds);
    T("answer-then-eof", test_answer_then_eof);
    T("idle/eof", test_idle_eof);
    T("idle/breach", test_idle_breach);
    T("idle/eof-after-wait", test_idle_eof_after_wait);
    T("idle/eof-twin", test_idle_eof_twin);
    T("idle/failed-rests", test_failed_rests);
    T("close/waiters", test_close_wakes);
    T("close/senders", test_close_wakes_sender);
    T("close/lockstep", test_close_wakes_lockstep);
    T("fail-by-owner", test_fail_by_owner);
    T("free/unused", test_free_unused);
    T("free/leftovers", test_free_leftovers);
    T("free/reply-half", test_free_reply_half);
    T("unconnected/receive", test_unconnected_receive);
    T("unconnected/send", test_unconnected_send);
    T("start-failed", test_start_failed);
    T("stop/twice", test_stop_twice);
    T("stop/inside", test_stop_inside);
    T("stop/at-once", test_stop_at_once);

    return g_test_run();
}
