/*
 * vfio-user: requests that nobody waits for, and odd moments for a reply
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

/* Short, for requests that are meant to time out. */
#define SHORT_MS    30

/* Requests that nobody waits for ------------------------------------------- */

/* Lives in allocated memory that @done gives back. */
typedef struct Orphan {
    VFIOUserRequest req;
    Rig *rig;
    int *ret;
    struct iovec out;
    uint8_t *payload;
} Orphan;

static void orphan_done(VFIOUserRequest *req)
{
    Orphan *o = container_of(req, Orphan, req);
    Rig *rig = o->rig;

    *o->ret = req->ret;
    /* Whoever still looks at it does not go unnoticed. */
    memset(o->payload, 0xee, o->out.iov_len);
    g_free(o->payload);
    g_free(o);
    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->nr_done++;
        qemu_cond_broadcast(&rig->cond);
    }
}

static Orphan *orphan_new(Rig *rig, size_t len, int *ret)
{
    Orphan *o = g_new0(Orphan, 1);

    *ret = 1;
    o->rig = rig;
    o->ret = ret;
    o->payload = g_malloc0(len + 1);
    o->out = (struct iovec) { o->payload, len };
    o->req.command = CMD_DEVICE_RESET;
    o->req.out = &o->out;
    o->req.nr_out = 1;
    o->req.done = orphan_done;
    return o;
}

static void test_done_by_background(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    int ret;

    vfio_user_conn_submit(rig->conn, &orphan_new(rig, 8, &ret)->req);
    peer_get(rig->peer, &msg);
    peer_send(rig->peer, msg.id, msg.command, PEER_REPLY | PEER_ERROR, 16,
              NULL, 0);
    rig_wait_count(rig, &rig->nr_done, 1);
    g_assert_cmpint(ret, ==, -16);
    peer_drop(&msg);
    rig_check_alive(rig);
    g_assert_cmpint(rig->nr_done, ==, 1);
    rig_free(rig);
}

static void test_done_by_waiter(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    int ret;

    vfio_user_conn_submit(rig->conn, &orphan_new(rig, 8, &ret)->req);
    peer_get(rig->peer, &msg);
    peer_reply(rig->peer, &msg, NULL, 0);
    peer_drop(&msg);
    rig_check_alive(rig);
    g_assert_cmpint(rig->nr_done, ==, 1);
    g_assert_cmpint(ret, ==, 0);
    rig_free(rig);
}

static void test_done_on_failure(void)
{
    Rig *rig = rig_new_started(peer_pair);
    int ret[3];

    for (int i = 0; i < 3; i++) {
        vfio_user_conn_submit(rig->conn, &orphan_new(rig, 8, &ret[i])->req);
    }
    rig_close_peer(rig);
    rig_wait_failed(rig, "");
    rig_wait_count(rig, &rig->nr_done, 3);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(ret[i], ==, -EPIPE);
    }
    /* Refused at once now. */
    vfio_user_conn_submit(rig->conn, &orphan_new(rig, 8, &ret[0])->req);
    g_assert_cmpint(rig_count(rig, &rig->nr_done), ==, 4);
    g_assert_cmpint(ret[0], ==, -EPIPE);
    rig_free(rig);
}

/* Its reply is half there when the connection goes. */
static void test_done_on_failure_half(void)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree uint8_t *m = NULL;
    uint8_t room[64], zero[64] = { };
    struct iovec in = { room, sizeof(room) };
    Orphan *o;
    PeerMessage msg;
    int ret;

    o = orphan_new(rig, 8, &ret);
    o->req.in = &in;
    o->req.nr_in = 1;
    vfio_user_conn_submit(rig->conn, &o->req);
    peer_get(rig->peer, &msg);
    m = peer_make(msg.id, msg.command, PEER_REPLY, 0, zero, sizeof(zero));
    peer_send_bytes(rig->peer, m, 40);
    peer_wait_taken(rig->peer);
    rig_close_peer(rig);
    rig_wait_failed(rig, "closed");
    rig_wait_count(rig, &rig->nr_done, 1);
    g_assert_cmpint(ret, ==, -EPIPE);
    peer_drop(&msg);
    rig_free(rig);
}

static void test_done_on_free(void)
{
    Rig *rig = rig_new(peer_pair);
    int ret;

    vfio_user_conn_submit(rig->conn, &orphan_new(rig, 8, &ret)->req);
    vfio_user_conn_close(rig->conn);
    g_assert_cmpint(rig->nr_done, ==, 1);
    g_assert_cmpint(ret, ==, -EPIPE);
    rig_free(rig);
}

/* Replies to what the server has not got yet ------------------------------- */

typedef struct Submit {
    Rig *rig;
    VFIOUserRequest *req;
} Submit;

static void submit_thread(void *opaque)
{
    Submit *s = opaque;

    vfio_user_conn_submit(s->rig->conn, s->req);
}

/* The server has a part of the request and answers it. */
static void test_early_reply_done(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    size_t len = 512 * 1024;
    PeerThread thread;
    Submit s = { .rig = rig };
    uint8_t h[16];
    uint16_t id;
    g_autofree uint8_t *rest = g_malloc(len);
    int ret;

    s.req = &orphan_new(rig, len, &ret)->req;
    peer_thread_start(&thread, submit_thread, &s);
    peer_recv_bytes(rig->peer, h, sizeof(h));
    memcpy(&id, h, 2);
    peer_send(rig->peer, id, CMD_DEVICE_RESET, PEER_REPLY, 0, NULL, 0);
    peer_wait_taken(rig->peer);

    /* What is sent after that is still what was submitted. */
    peer_recv_bytes(rig->peer, rest, len);
    for (size_t i = 0; i < len; i++) {
        g_assert_cmpint(rest[i], ==, 0);
    }
    peer_thread_join(&thread);
    rig_wait_count(rig, &rig->nr_done, 1);
    g_assert_cmpint(ret, ==, 0);
    rig_check_alive(rig);
    g_assert_cmpint(rig->nr_done, ==, 1);
    rig_free(rig);
}

/* It answers that part twice. */
static void test_early_reply_twice(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    PeerThread thread;
    Submit s = { .rig = rig };
    g_autofree uint8_t *m = NULL;
    uint8_t h[16], both[32];
    uint16_t id;
    int ret;

    s.req = &orphan_new(rig, 512 * 1024, &ret)->req;
    peer_thread_start(&thread, submit_thread, &s);
    peer_recv_bytes(rig->peer, h, sizeof(h));
    memcpy(&id, h, 2);
    m = peer_make(id, CMD_DEVICE_RESET, PEER_REPLY, 0, NULL, 0);
    memcpy(both, m, 16);
    memcpy(both + 16, m, 16);
    peer_send_bytes(rig->peer, both, sizeof(both));
    peer_thread_join(&thread);
    rig_wait_failed(rig, "nothing that was asked");
    g_assert_cmpint(rig_count(rig, &rig->nr_done), ==, 1);
    /* The first answer was right. */
    g_assert_cmpint(ret, ==, 0);
    rig_free(rig);
}

/* A request that could not be sent, to which half a reply has come */
static void test_early_reply_unsent(void)
{
    Rig *rig = rig_new(peer_small_pair);
    g_autofree uint8_t *m = NULL;
    g_autofree uint8_t *before = NULL;
    uint16_t id = rig->conn->slots[rig->conn->free_slots[
                                   rig->conn->nr_free - 1]].id;
    uint8_t zero[16 + 64] = { };
    unsigned posts = 0;
    Call call;

    while (!rig_post(rig, posts, 100, 1)) {
        posts++;
    }
    m = peer_make(id, CMD_REGION_READ, PEER_REPLY, 0, zero, sizeof(zero));
    peer_send_bytes(rig->peer, m, 40);
    call_init(&call, rig, 1, 64);
    call.req.timeout_ms = SHORT_MS;
    call_submit(&call);
    call_wait_ret(&call, -ETIMEDOUT);

    /* Its memory is its owner's, whatever else comes. */
    memset(call.data, 0x55, 64);
    before = g_memdup2(call.data, 64);
    peer_send_bytes(rig->peer, m + 40, sizeof(zero) + 16 - 40);
    for (unsigned i = 0; i < posts; i++) {
        rig_expect_post(rig, i, 100);
    }
    rig->fails = vfio_user_conn_broken(rig->conn);
    if (!rig->fails) {
        rig_check_alive(rig);
    }
    g_assert_cmpmem(call.data, 64, before, 64);
    g_assert_cmpint(rig->conn->nr_free, ==, VFIO_USER_CONN_MAX_REQUESTS);
    call_free(&call);
    rig_free(rig);
}

/* To sleep or to spin ------------------------------------------------------ */

#define NR_WAITS    3000

/* What it decides for waits of these lengths; returns how many spin. */
static unsigned count_spins(VFIOUserConn *conn, int64_t sleep_us,
                            int64_t spin_us)
{
    unsigned nr = 0;

    QEMU_LOCK_GUARD(&conn->lock);
    for (int i = 0; i < NR_WAITS; i++) {
        bool spin = vfio_user_conn_poll_begin_locked(conn);

        vfio_user_conn_poll_end_locked(conn, spin, SCALE_US *
                                       (spin ? spin_us : sleep_us));
        nr += spin;
    }
    return nr;
}

static void test_poll_off(void)
{
    Rig *rig = rig_new(peer_pair);

    g_assert_cmpint(count_spins(rig->conn, 50, 1), ==, 0);
    vfio_user_conn_set_poll(rig->conn, 50);
    g_assert_cmpint(count_spins(rig->conn, 50, 1), >, 0);
    vfio_user_conn_set_poll(rig->conn, 0);
    g_assert_cmpint(count_spins(rig->conn, 50, 1), ==, 0);
    rig_free(rig);
}

/* Takes what is quicker, and notices when that changes. */
static void test_poll_learns(void)
{
    Rig *rig = rig_new(peer_pair);

    vfio_user_conn_set_poll(rig->conn, 50);
    for (int i = 0; i < 3; i++) {
        count_spins(rig->conn, 40, 10);
        g_assert_cmpint(count_spins(rig->conn, 40, 10), >, NR_WAITS * 98 / 100);
        count_spins(rig->conn, 12, 60);
        g_assert_cmpint(count_spins(rig->conn, 12, 60), <, NR_WAITS * 2 / 100);
    }
    /* A core is not spent on a draw. */
    count_spins(rig->conn, 40, 39);
    g_assert_cmpint(count_spins(rig->conn, 40, 39), <, NR_WAITS * 2 / 100);
    rig_free(rig);
}

/* A thread that spins serves, gives up and fails as one that sleeps. */
static void test_poll_works(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call;

    vfio_user_conn_set_poll(rig->conn, 1000);
    for (int i = 0; i < 50; i++) {
        call_init(&call, rig, i, 8);
        call_thread_start(&call);
        call_peer_get(&call, &msg);
        rig_send_dma(rig, i, CMD_DMA_WRITE, 0, 64, i);
        rig_expect_dma(rig, i, CMD_DMA_WRITE, 0, 64, i);
        call_peer_answer(&call, &msg);
        call_thread_join(&call);
        call_check_good(&call);
        call_end(&call, &msg);
    }
    call_init(&call, rig, 1, 8);
    call.req.timeout_ms = SHORT_MS;
    call_submit(&call);
    call_peer_get(&call, &msg);
    call_wait_ret(&call, -ETIMEDOUT);
    call_peer_answer(&call, &msg);
    call_end(&call, &msg);
    rig_check_alive(rig);

    call_init(&call, rig, 1, 8);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    peer_drop(&msg);
    rig_close_peer(rig);
    call_thread_join(&call);
    g_assert_cmpint(call.ret, ==, -EPIPE);
    call_free(&call);
    rig_wait_failed(rig, "");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/async/" name, func)
    T("done/background", test_done_by_background);
    T("done/waiter", test_done_by_waiter);
    T("done/failure", test_done_on_failure);
    T("done/failure-half", test_done_on_failure_half);
    T("done/close", test_done_on_free);
    T("early/done", test_early_reply_done);
    T("early/twice", test_early_reply_twice);
    T("early/unsent", test_early_reply_unsent);
    T("poll/off", test_poll_off);
    T("poll/learns", test_poll_learns);
    T("poll/works", test_poll_works);

    return g_test_run();
}
