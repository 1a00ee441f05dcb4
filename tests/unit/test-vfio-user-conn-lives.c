/*
 * vfio-user: requests of a connection that has many sockets one after another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each has its own answer or -EPIPE, once. Nothing is lost, and nothing
 * mistaken for an answer to something else, also where threads ask without a
 * pause while the server comes and goes.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-lives.h"

#define NR_THREADS  4
#define HALF_LEN    100000
#define NR_LIVES    1000
#define CMD_REGION_WRITE_MULTI  15
/* A read of so many bytes is answered with a descriptor. */
#define FD_COUNT    5

/* Requests that nobody is waiting for at that moment ---------------------- */

static void count_done(VFIOUserRequest *req)
{
    Call *call = container_of(req, Call, req);

    QEMU_LOCK_GUARD(&call->rig->lock);
    call->rig->nr_done++;
    qemu_cond_broadcast(&call->rig->cond);
}

enum { PENDING, LOOKED_AT, ABANDONED, TIMED_OUT, ANSWERED, HALF, NR_KINDS };

static void check_outcomes(Call *call)
{
    VFIOUserConn *conn = call->rig->conn;

    call_wait_ret(&call[PENDING], -EPIPE);
    g_assert_true(vfio_user_conn_wait_until(conn, &call[LOOKED_AT].req, 0));
    g_assert_cmpint(call[LOOKED_AT].req.ret, ==, -EPIPE);
    call_wait_good(&call[ANSWERED]);
    call_wait_ret(&call[HALF], -EPIPE);
    g_assert_cmpint(call[HALF].req.in_len, ==, 0);
}

/* @at bytes of the last reply are there; @late: looked at in the new life */
static void outcomes(size_t at, bool late)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage msg[NR_KINDS];
    Call call[NR_KINDS];
    size_t len;

    for (int i = 0; i < NR_KINDS; i++) {
        call_init(&call[i], rig, i, HALF_LEN);
        call[i].req.timeout_ms = i == TIMED_OUT ? 1 : 0;
        call_submit(&call[i]);
        call_peer_get(&call[i], &msg[i]);
    }
    g_assert_false(vfio_user_conn_wait_until(rig->conn, &call[LOOKED_AT].req,
                                             0));
    vfio_user_conn_abandon(rig->conn, &call[ABANDONED].req);
    call_wait_ret(&call[TIMED_OUT], -ETIMEDOUT);
    call_peer_answer(&call[ANSWERED], &msg[ANSWERED]);
    m = call_peer_make(&call[HALF], &msg[HALF], &len);
    peer_send_bytes(rig->peer, m, at);
    lives_lose(rig);
    if (!late) {
        check_outcomes(call);
    }
    lives_begin(rig);
    if (late) {
        check_outcomes(call);
    }
    lives_check_slots(rig);
    for (int i = 0; i < NR_KINDS; i++) {
        call_end(&call[i], &msg[i]);
    }
    rig_free(rig);
}

static void test_outcomes(void)
{
    static const size_t at[] = { 0, 1, 16, 20, 32, 33, 50000,
                                 32 + HALF_LEN - 1 };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        outcomes(at[i], false);
        outcomes(at[i], true);
    }
}

/* Given up in the new life */
static void test_abandoned_late(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    lives_lose(rig);
    lives_begin(rig);
    vfio_user_conn_abandon(rig->conn, &call.req);
    g_assert_cmpint(call.req.ret, ==, -EPIPE);
    lives_check_slots(rig);
    call_end(&call, &msg);
    rig_free(rig);
}

/* Told once, and never again */
static void test_done(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call[2];

    for (int i = 0; i < 2; i++) {
        call_init(&call[i], rig, i, 64);
        call[i].req.done = count_done;
        call_submit(&call[i]);
        call_peer_get(&call[i], &msg);
        if (i) {
            /* Half a reply */
            size_t len;
            g_autofree uint8_t *m = call_peer_make(&call[i], &msg, &len);

            peer_send_bytes(rig->peer, m, len - 1);
        }
        peer_drop(&msg);
    }
    lives_lose(rig);
    lives_begin(rig);
    g_assert_cmpint(rig_count(rig, &rig->nr_done), ==, 2);
    lives_check_slots(rig);
    lives_lose(rig);
    lives_begin(rig);
    g_assert_cmpint(rig_count(rig, &rig->nr_done), ==, 2);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(call[i].req.ret, ==, -EPIPE);
        call_free(&call[i]);
    }
    rig_free(rig);
}

/* Load --------------------------------------------------------------------- */

/**
 * Load: what one of the threads does
 * @next: each of its requests has an offset of its own, see load_off()
 * @good, @lost: its outcomes; @nr_async: requests that nobody waits for and
 *     that have none yet. Atomic: some are told by other threads.
 */
typedef struct Load {
    Rig *rig;
    unsigned index;
    unsigned next;
    bool stop;
    unsigned good;
    unsigned lost;
    unsigned nr_async;
    PeerThread thread;
} Load;

/* A request that nobody waits for */
typedef struct Async {
    Call call;
    Load *load;
} Async;

static uint64_t load_off(Load *load)
{
    return ((uint64_t)load->index << 32) + load->next++;
}

static void load_count(Load *load, int ret)
{
    if (ret) {
        g_assert_cmpint(ret, ==, -EPIPE);
        qatomic_inc(&load->lost);
    } else {
        qatomic_inc(&load->good);
    }
}

static void load_check(Load *load, Call *call)
{
    if (!call->req.ret) {
        call_check_good(call);
    }
    load_count(load, call->req.ret);
}

/* Waited for to the end */
static void load_wait(Load *load, uint32_t count)
{
    Call call;

    call_init(&call, load->rig, load_off(load), count);
    vfio_user_conn_call(load->rig->conn, &call.req);
    load_check(load, &call);
    call_free(&call);
}

static void load_fd(Load *load)
{
    Call call;
    int fd = -1;

    call_init(&call, load->rig, load_off(load), FD_COUNT);
    call.req.in_fds = &fd;
    call.req.max_in_fds = 1;
    vfio_user_conn_call(load->rig->conn, &call.req);
    g_assert_cmpint(call.req.nr_in_fds, ==, call.req.ret ? 0 : 1);
    if (!call.req.ret) {
        peer_close_fds(&fd, 1);
        call.req.nr_in_fds = 0;
    }
    load_check(load, &call);
    call_free(&call);
}

/* Several at once, some given up */
static void load_several(Load *load)
{
    VFIOUserConn *conn = load->rig->conn;
    Call call[3];

    for (int i = 0; i < ARRAY_SIZE(call); i++) {
        call_init(&call[i], load->rig, load_off(load), 64);
        call_submit(&call[i]);
    }
    vfio_user_conn_abandon(conn, &call[0].req);
    if (vfio_user_conn_wait_until(conn, &call[1].req, 0)) {
        load_check(load, &call[1]);
    } else {
        vfio_user_conn_abandon(conn, &call[1].req);
    }
    vfio_user_conn_wait(conn, &call[2].req);
    load_check(load, &call[2]);
    for (int i = 0; i < ARRAY_SIZE(call); i++) {
        call_free(&call[i]);
    }
}

static void async_done(VFIOUserRequest *req)
{
    Async *async = container_of(req, Async, call.req);
    Load *load = async->load;

    load_check(load, &async->call);
    qatomic_dec(&load->nr_async);
    call_free(&async->call);
    g_free(async);
}

static void load_async(Load *load)
{
    Async *async = g_new0(Async, 1);

    async->load = load;
    call_init(&async->call, load->rig, load_off(load), 64);
    async->call.req.done = async_done;
    qatomic_inc(&load->nr_async);
    call_submit(&async->call);
}

static void load_post(Load *load, size_t len)
{
    int ret = rig_post(load->rig, load_off(load), len, 0);

    if (ret) {
        g_assert_cmpint(ret, ==, -EPIPE);
    }
}

static void load_post_write(Load *load)
{
    int ret = vfio_user_conn_post_write(load->rig->conn, 0, load_off(load),
                                        "x", 1, 0, 0);

    if (ret) {
        g_assert_cmpint(ret, ==, -EPIPE);
    }
}

static void load_thread(void *opaque)
{
    Load *load = opaque;

    for (unsigned i = load->index; !qatomic_read(&load->stop); i++) {
        switch (i % 8) {
        case 0:
            load_several(load);
            break;
        case 1:
            load_fd(load);
            break;
        case 2:
            load_post(load, 8);
            break;
        case 3:
            load_async(load);
            break;
        case 4:
            load_wait(load, 9000);
            break;
        case 5:
            load_post_write(load);
            break;
        case 6:
            load_post(load, 20000);
            break;
        default:
            load_wait(load, 4);
            break;
        }
        if (vfio_user_conn_broken(load->rig->conn)) {
            g_thread_yield();
        }
    }
}

/* The server -------------------------------------------------------------- */

static void answer(Rig *rig, const PeerMessage *msg, size_t cut)
{
    g_autofree uint8_t *payload = NULL;
    g_autofree uint8_t *m = NULL;
    uint64_t off;
    uint32_t count;
    int fd;

    memcpy(&off, msg->payload, 8);
    memcpy(&count, msg->payload + 12, 4);
    payload = g_malloc(16 + count);
    memcpy(payload, msg->payload, 16);
    peer_pattern(payload + 16, count, off);
    m = peer_make(msg->id, CMD_REGION_READ, PEER_REPLY, 0, payload, 16 + count);
    if (count == FD_COUNT) {
        peer_open_fds(&fd, 1);
        peer_send_fds(rig->peer, m, MIN(cut, 32 + count), &fd, 1);
        peer_close_fds(&fd, 1);
    } else {
        peer_send_bytes(rig->peer, m, MIN(cut, 32 + count));
    }
}

/* The next read; whatever else comes is right by itself. */
static void next_read(Rig *rig, PeerMessage *msg)
{
    for (;;) {
        uint64_t off;

        peer_get(rig->peer, msg);
        switch (msg->command) {
        case CMD_REGION_READ:
            g_assert_cmpint(msg->len, ==, 16);
            return;
        case CMD_REGION_WRITE:
            memcpy(&off, msg->payload, 8);
            if (msg->len > 17) {
                rig_check_post(msg, off, msg->len - 16);
            }
            break;
        case CMD_DMA_WRITE:
            g_assert_cmphex(msg->flags, ==, PEER_REPLY);
            break;
        default:
            g_assert_cmpint(msg->command, ==, CMD_REGION_WRITE_MULTI);
            break;
        }
        peer_drop(msg);
    }
}

/* How it ends: of some of its messages only a part is out. */
static void end_life(Rig *rig, unsigned how)
{
    g_autofree uint8_t *m = NULL;
    Error *err = NULL;
    PeerMessage msg;

    switch (how % 6) {
    case 0:
        break;
    case 1:
        next_read(rig, &msg);
        answer(rig, &msg, 1 + how % 40);
        peer_drop(&msg);
        break;
    case 2:
        peer_send(rig->peer, 0, CMD_DEVICE_RESET, PEER_REPLY, 0, NULL, 0);
        rig_wait_count(rig, &rig->nr_failed, rig->fails + 1);
        break;
    case 3:
        m = peer_make_dma(RIG_RAM, 64, NULL, 0);
        peer_send(rig->peer, 1, CMD_DMA_READ, PEER_COMMAND, 0, m, 16);
        break;
    case 4:
        g_assert_cmpint(shutdown(rig->peer, SHUT_RDWR), ==, 0);
        break;
    default:
        error_setg(&err, "life %u", how);
        vfio_user_conn_fail(rig->conn, err);
        break;
    }
    lives_lose(rig);
}

static void live(Rig *rig, unsigned life)
{
    for (unsigned i = 0; i < life % 13; i++) {
        PeerMessage msg;

        if (i % 4 == 3) {
            rig_send_dma(rig, i, CMD_DMA_WRITE, 64 * i, 64, i);
        }
        next_read(rig, &msg);
        answer(rig, &msg, SIZE_MAX);
        peer_drop(&msg);
    }
    end_life(rig, life);
}

/* @make: the sockets; @lockstep: in every other life */
static void lives(void (*make)(int fd[2]), bool lockstep)
{
    Rig *rig = rig_new_started(make);
    g_autofree Load *load = g_new0(Load, NR_THREADS);
    unsigned good = 0, lost = 0;

    rig_set_ticks(rig);
    for (int i = 0; i < NR_THREADS; i++) {
        load[i].rig = rig;
        load[i].index = i;
        peer_thread_start(&load[i].thread, load_thread, &load[i]);
    }
    for (unsigned life = 0; life < NR_LIVES; life++) {
        Next next;

        live(rig, life);
        next_init(&next, rig, make);
        if (lockstep && (life & 1)) {
            vfio_user_conn_set_lockstep(next.conn);
        }
        next_take(&next, rig);
    }
    for (int i = 0; i < NR_THREADS; i++) {
        qatomic_set(&load[i].stop, true);
    }
    lives_lose(rig);
    for (int i = 0; i < NR_THREADS; i++) {
        peer_thread_join(&load[i].thread);
        good += load[i].good;
        lost += load[i].lost;
        g_assert_cmpint(load[i].nr_async, ==, 0);
    }
    g_assert_cmpint(good, >, 0);
    g_assert_cmpint(lost, >, 0);
    g_test_message("%u answered, %u lost", good, lost);
    lives_begin(rig);
    lives_check_slots(rig);
    rig_free(rig);
}

static void test_normal(void)
{
    lives(peer_pair, false);
}

static void test_small(void)
{
    lives(peer_small_pair, false);
}

static void test_lockstep(void)
{
    lives(peer_pair, true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/lives/" name, func)
    T("outcomes", test_outcomes);
    T("abandoned-late", test_abandoned_late);
    T("done", test_done);
    T("load/normal", test_normal);
    T("load/small", test_small);
    T("load/lockstep", test_lockstep);

    return g_test_run();
}
