/*
 * vfio-user: requests and their replies on a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where it can, a test plays both ends in one thread: submit, let the peer
 * answer, wait. Nothing is left to chance then.
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

/* Short, for requests that are meant to time out. */
#define SHORT_MS    30

/* Request and reply -------------------------------------------------------- */

static void test_call(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 0x1122334455, 8, &msg);
    g_assert_cmpint(msg.size, ==, 32);
    call_peer_answer(&call, &msg);
    peer_drop(&msg);
    call_wait_good(&call);
    call_free(&call);
    rig_free(rig);
}

static void test_out_pieces(void)
{
    Rig *rig = rig_new(peer_pair);
    struct iovec out[VFIO_USER_CONN_MAX_IOV];
    VFIOUserRequest req = {
        .command = CMD_DEVICE_RESET, .out = out, .nr_out = ARRAY_SIZE(out),
    };
    uint8_t buf[8 * ARRAY_SIZE(out)];
    PeerMessage msg;

    peer_pattern(buf, sizeof(buf), 4);
    for (int i = 0; i < ARRAY_SIZE(out); i++) {
        out[i] = (struct iovec) { buf + 8 * i, 8 };
    }
    vfio_user_conn_submit(rig->conn, &req);
    peer_get(rig->peer, &msg);
    g_assert_cmpmem(msg.payload, msg.len, buf, sizeof(buf));
    peer_reply(rig->peer, &msg, NULL, 0);
    peer_drop(&msg);
    g_assert_cmpint(vfio_user_conn_wait(rig->conn, &req), ==, 0);
    g_assert_cmpint(req.in_len, ==, 0);
    rig_free(rig);
}

static void test_request_fds(void)
{
    Rig *rig = rig_new(peer_pair);
    int fds[3];
    VFIOUserRequest req = {
        .command = CMD_DMA_MAP, .fds = fds, .nr_fds = ARRAY_SIZE(fds),
    };
    PeerMessage msg;

    peer_open_fds(fds, ARRAY_SIZE(fds));
    vfio_user_conn_submit(rig->conn, &req);
    peer_get(rig->peer, &msg);
    g_assert_cmpint(msg.nr_fds, ==, 3);
    peer_reply(rig->peer, &msg, NULL, 0);
    peer_drop(&msg);
    g_assert_cmpint(vfio_user_conn_wait(rig->conn, &req), ==, 0);
    /* They stayed the caller's. */
    peer_close_fds(fds, ARRAY_SIZE(fds));
    rig_free(rig);
}

static void answer_with_fds(Rig *rig, Call *call, unsigned nr)
{
    g_autofree uint8_t *m = NULL;
    PeerMessage msg;
    int fds[PEER_MAX_FDS];
    size_t len;

    call_peer_get(call, &msg);
    m = call_peer_make(call, &msg, &len);
    peer_open_fds(fds, nr);
    peer_send_fds(rig->peer, m, len, fds, nr);
    peer_close_fds(fds, nr);
    peer_drop(&msg);
}

static void test_reply_fds(void)
{
    Rig *rig = rig_new(peer_pair);
    Call call;
    int fds[4] = { -1, -1, -1, -1 };

    call_init(&call, rig, 1, 4);
    call.req.in_fds = fds;
    call.req.max_in_fds = 4;
    call_submit(&call);
    answer_with_fds(rig, &call, 2);
    call_wait_ret(&call, 0);
    g_assert_cmpint(call.req.nr_in_fds, ==, 2);
    peer_close_fds(fds, 2);
    g_assert_cmpint(fds[2], ==, -1);
    rig_check_alive(rig);
    call_free(&call);
    rig_free(rig);
}

static void test_reply_fds_surplus(void)
{
    Rig *rig = rig_new(peer_pair);
    unsigned before = peer_count_fds();
    Call call;
    int fd;

    call_init(&call, rig, 1, 4);
    call.req.in_fds = &fd;
    call.req.max_in_fds = 1;
    call_submit(&call);
    answer_with_fds(rig, &call, 16);
    call_wait_ret(&call, 0);
    g_assert_cmpint(call.req.nr_in_fds, ==, 16);
    g_assert_cmpint(peer_count_fds(), ==, before + 1);
    close(fd);

    /* Nobody asked for any. */
    call_free(&call);
    call_init(&call, rig, 2, 4);
    call_submit(&call);
    answer_with_fds(rig, &call, 3);
    call_wait_ret(&call, 0);
    g_assert_cmpint(peer_count_fds(), ==, before);
    call_free(&call);
    rig_free(rig);
}

static void test_error_reply(void)
{
    static const struct {
        uint32_t error;
        int ret;
    } t[] = {
        { 0, -5 }, { 1, -1 }, { 22, -22 }, { 4095, -4095 },
        { 4096, -4095 }, { 0x80000000, -4095 }, { 0xffffffff, -4095 },
    };
    Rig *rig = rig_new(peer_pair);

    for (int i = 0; i < ARRAY_SIZE(t); i++) {
        PeerMessage msg;
        Call call;

        call_begin(&call, rig, i, 8, &msg);
        peer_send(rig->peer, msg.id, msg.command, PEER_REPLY | PEER_ERROR,
                  t[i].error, NULL, 0);
        peer_drop(&msg);
        call_wait_ret(&call, t[i].ret);
        g_assert_cmpint(call.req.in_len, ==, 0);
        call_free(&call);
    }
    /* Without the flag the field means nothing. */
    rig_check_alive(rig);
    rig_free(rig);
}

static void test_short_reply(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 3, 64, &msg);
    peer_reply(rig->peer, &msg, msg.payload, 16);
    peer_drop(&msg);
    call_wait_ret(&call, 0);
    g_assert_cmpint(call.req.in_len, ==, 16);
    rig_check_alive(rig);
    call_free(&call);
    rig_free(rig);
}

static void test_large_reply(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 5, 1024 * 1024);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    call_peer_answer(&call, &msg);
    peer_drop(&msg);
    call_thread_join(&call);
    call_check_good(&call);
    call_free(&call);
    rig_free(rig);
}

/* Several at once ---------------------------------------------------------- */

static void test_out_of_order(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[5];
    Call call[5];

    for (int i = 0; i < 5; i++) {
        call_begin(&call[i], rig, i, 4 + i, &msg[i]);
    }
    for (int i = 4; i >= 0; i--) {
        call_peer_answer(&call[i], &msg[i]);
        peer_drop(&msg[i]);
    }
    for (int i = 0; i < 5; i++) {
        call_wait_good(&call[i]);
        call_free(&call[i]);
    }
    rig_free(rig);
}

static void test_two_in_one_receive(void)
{
    Rig *rig = rig_new(peer_pair);
    Call call[2];
    g_autoptr(GByteArray) both = g_byte_array_new();

    for (int i = 0; i < 2; i++) {
        g_autofree uint8_t *m = NULL;
        PeerMessage msg;
        size_t len;

        call_begin(&call[i], rig, i, 8, &msg);
        m = call_peer_make(&call[i], &msg, &len);
        g_byte_array_append(both, m, len);
        peer_drop(&msg);
    }
    peer_send_bytes(rig->peer, both->data, both->len);
    for (int i = 0; i < 2; i++) {
        call_wait_good(&call[i]);
        call_free(&call[i]);
    }
    rig_free(rig);
}

/* One thread reads what another waits for, whichever of them reads. */
static void test_others_reply(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    for (int i = 0; i < 2; i++) {
        call_init(&call[i], rig, i, 4);
        call_thread_start(&call[i]);
        call_peer_get(&call[i], &msg[i]);
    }
    for (int i = 1; i >= 0; i--) {
        call_peer_answer(&call[i], &msg[i]);
        call_thread_join(&call[i]);
        call_check_good(&call[i]);
        call_end(&call[i], &msg[i]);
    }
    rig_free(rig);
}

/* Reply, in two pieces, of which the driver has one at a time */
static void split_reply(size_t at, size_t count, unsigned nr_fds)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage msg;
    Call call;
    size_t len;
    int fds[2], got[2];

    call_init(&call, rig, 3, count);
    call.req.in_fds = got;
    call.req.max_in_fds = 2;
    call_submit(&call);
    call_peer_get(&call, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_open_fds(fds, nr_fds);
    peer_send_bytes(rig->peer, m, at);
    g_assert_cmpint(vfio_user_conn_rx_step(rig->conn), ==, 0);
    g_assert_cmpint(call.req.state, ==, VFIO_USER_REQUEST_PENDING);
    peer_send_fds(rig->peer, m + at, len - at, fds, nr_fds);
    peer_close_fds(fds, nr_fds);
    call_wait_ret(&call, 0);
    g_assert_cmpint(call.req.in_len, ==, 16 + count);
    peer_check_pattern(call.data, count, call.off);
    g_assert_cmpint(call.req.nr_in_fds, ==, nr_fds);
    peer_close_fds(got, nr_fds);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_reply_split(void)
{
    for (size_t at = 1; at < 32 + 8; at++) {
        split_reply(at, 8, 0);
        split_reply(at, 8, 2);
    }
    for (size_t at = 1; at < 8192; at += 511) {
        split_reply(at, 20000, 1);
    }
}

/* Deadlines ---------------------------------------------------------------- */

static void test_deadline_one_only(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    for (int i = 0; i < 2; i++) {
        call_init(&call[i], rig, i, 4);
        call[i].req.timeout_ms = i ? 0 : SHORT_MS;
        call_submit(&call[i]);
        call_peer_get(&call[i], &msg[i]);
    }
    call_wait_ret(&call[0], -ETIMEDOUT);
    g_assert_cmpint(call[0].req.in_len, ==, 0);
    call_peer_answer(&call[1], &msg[1]);
    call_wait_good(&call[1]);

    /* The late one is for nobody. */
    memset(call[0].data, 0x55, 4);
    call_peer_answer(&call[0], &msg[0]);
    rig_check_alive(rig);
    g_assert_cmphex(ldl_he_p(call[0].data), ==, 0x55555555);
    for (int i = 0; i < 2; i++) {
        call_end(&call[i], &msg[i]);
    }
    rig_free(rig);
}

static void test_late_fds(void)
{
    Rig *rig = rig_new(peer_pair);
    unsigned before;
    g_autofree uint8_t *m = NULL;
    PeerMessage msg;
    Call call;
    int fds[3], got[3] = { -1, -1, -1 };
    size_t len;

    call_init(&call, rig, 1, 4);
    call.req.timeout_ms = SHORT_MS;
    call.req.in_fds = got;
    call.req.max_in_fds = 3;
    before = peer_count_fds();
    call_submit(&call);
    call_peer_get(&call, &msg);
    call_wait_ret(&call, -ETIMEDOUT);

    m = call_peer_make(&call, &msg, &len);
    peer_open_fds(fds, 3);
    peer_send_fds(rig->peer, m, len, fds, 3);
    peer_close_fds(fds, 3);
    rig_check_alive(rig);
    g_assert_cmpint(got[0], ==, -1);
    g_assert_cmpint(peer_count_fds(), ==, before);
    call_end(&call, &msg);
    rig_free(rig);
}

/* The deadline passes when part of the reply is there. */
static void late_half(size_t at, size_t count)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    g_autofree uint8_t *before = NULL;
    PeerMessage msg;
    Call call;
    size_t len;

    call_init(&call, rig, 6, count);
    call.req.timeout_ms = SHORT_MS;
    call_submit(&call);
    call_peer_get(&call, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_send_bytes(rig->peer, m, at);
    call_wait_ret(&call, -ETIMEDOUT);
    g_assert_cmpint(call.req.in_len, ==, 0);

    /* Our memory again: what comes now must not go there. */
    memset(call.data, 0x55, count);
    before = g_memdup2(call.data, count);
    peer_send_bytes(rig->peer, m + at, len - at);
    rig_check_alive(rig);
    g_assert_cmpmem(call.data, count, before, count);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_late_half(void)
{
    static const size_t at[] = { 1, 15, 16, 17, 32, 33, 5000, 65536 };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        late_half(at[i], 100000);
    }
}

/* A server that never answers: no request hangs, and none is forgotten. */
static void test_slots_exhausted(void)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree Call *call = g_new(Call, VFIO_USER_CONN_MAX_REQUESTS);
    g_autofree PeerMessage *msg = g_new(PeerMessage,
                                        VFIO_USER_CONN_MAX_REQUESTS);

    for (int i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        call_init(&call[i], rig, i, 4);
        call[i].req.timeout_ms = 1;
        call_submit(&call[i]);
        call_peer_get(&call[i], &msg[i]);
        call_wait_ret(&call[i], -ETIMEDOUT);
    }
    call_end_late(call, msg, VFIO_USER_CONN_MAX_REQUESTS);
    rig_check_alive(rig);
    rig_free(rig);
}

/* One that waits for a slot gets it while others go on waiting. */
static void test_slot_freed(void)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree PeerMessage *msg = g_new(PeerMessage,
                                        VFIO_USER_CONN_MAX_REQUESTS);
    Call late, call, more;

    for (int i = 1; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        call_init(&late, rig, 0, 4);
        late.req.timeout_ms = 1;
        call_submit(&late);
        call_peer_get(&late, &msg[i]);
        call_wait_ret(&late, -ETIMEDOUT);
        call_free(&late);
    }
    call_init(&call, rig, 1, 4);
    call_thread_start(&call);
    call_peer_get(&call, &msg[0]);
    call_init(&more, rig, 2, 4);
    call_thread_start(&more);
    rig_wait_waiters(rig, 1);

    call_init(&late, rig, 0, 4);
    call_peer_answer(&late, &msg[9]);
    call_peer_serve(&more);
    call_thread_join(&more);
    call_check_good(&more);
    call_peer_answer(&call, &msg[0]);
    call_thread_join(&call);
    call_check_good(&call);

    for (int i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        peer_drop(&msg[i]);
    }
    call_free(&late);
    call_free(&call);
    call_free(&more);
    rig_free(rig);
}

/* As long as a late reply may come its id stands for nothing else. */
static void test_late_id_not_reused(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage late, msg;
    Call call;

    call_init(&call, rig, 1, 4);
    call.req.timeout_ms = 1;
    call_submit(&call);
    call_peer_get(&call, &late);
    call_wait_ret(&call, -ETIMEDOUT);
    call_free(&call);

    for (int i = 0; i < 5000; i++) {
        call_begin(&call, rig, i, 1, &msg);
        g_assert_cmpint(msg.id, !=, late.id);
        call_peer_answer(&call, &msg);
        call_wait_good(&call);
        call_end(&call, &msg);
    }
    peer_drop(&late);
    rig_free(rig);
}

static void test_tick(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    rig_set_ticks(rig);
    call_init(&call, rig, 1, 4);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    rig_wait_count(rig, &rig->nr_ticks, 3);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    call_end(&call, &msg);
    rig_free(rig);
}

/*
 * A wait sleeps. How often it wakes up is bounded by its length, with an
 * owner that has a tick and with one that has none.
 */
static void wait_sleeps(bool with_tick)
{
    Rig *rig = rig_new(peer_pair);
    uint64_t drives = rig->conn->nr_drives;
    unsigned ms = 10 * VFIO_USER_CONN_TICK_MS;
    PeerMessage msg;
    Call call;

    rig_set_ticks(rig);
    if (!with_tick) {
        rig->ops.tick = NULL;
    }
    call_init(&call, rig, 1, 4);
    call.req.timeout_ms = ms;
    call_submit(&call);
    call_peer_get(&call, &msg);
    call_wait_ret(&call, -ETIMEDOUT);
    g_assert_cmpint(rig->conn->nr_drives - drives, <=,
                    ms / VFIO_USER_CONN_TICK_MS + 2);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_wait_sleeps(void)
{
    wait_sleeps(true);
    wait_sleeps(false);
}

/* Lockstep ----------------------------------------------------------------- */

static void test_lockstep(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call first, second;

    g_assert_false(vfio_user_conn_lockstep(rig->conn));
    vfio_user_conn_set_lockstep(rig->conn);
    g_assert_true(vfio_user_conn_lockstep(rig->conn));
    call_init(&first, rig, 1, 4);
    call_init(&second, rig, 2, 4);
    call_submit(&first);
    call_peer_get(&first, &msg);

    /* Not sent while the first is at the server, */
    second.req.timeout_ms = SHORT_MS;
    call_submit(&second);
    call_wait_ret(&second, -ETIMEDOUT);
    g_assert_false(peer_readable(rig->peer));

    /* but once the reply is there. */
    second.req.timeout_ms = 0;
    call_thread_start(&second);
    call_peer_answer(&first, &msg);
    call_peer_serve(&second);
    call_thread_join(&second);
    call_check_good(&second);
    call_wait_good(&first);
    call_end(&first, &msg);
    call_free(&second);
    rig_free(rig);
}

static void test_lockstep_threads(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Call call[4];
    bool served[4] = { };

    vfio_user_conn_set_lockstep(rig->conn);
    for (int i = 0; i < 4; i++) {
        call_init(&call[i], rig, i, 4);
        call_thread_start(&call[i]);
    }
    for (int n = 0; n < 4; n++) {
        PeerMessage msg;
        uint64_t off;

        peer_get(rig->peer, &msg);
        memcpy(&off, msg.payload, 8);
        g_assert_cmpint(off, <, 4);
        g_assert_false(served[off]);
        served[off] = true;
        g_assert_false(peer_readable(rig->peer));
        call_peer_answer(&call[off], &msg);
        peer_drop(&msg);
    }
    for (int i = 0; i < 4; i++) {
        call_thread_join(&call[i]);
        call_check_good(&call[i]);
        call_free(&call[i]);
    }
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/" name, func)
    T("call", test_call);
    T("out-pieces", test_out_pieces);
    T("request-fds", test_request_fds);
    T("reply-fds", test_reply_fds);
    T("reply-fds-surplus", test_reply_fds_surplus);
    T("error-reply", test_error_reply);
    T("short-reply", test_short_reply);
    T("large-reply", test_large_reply);
    T("out-of-order", test_out_of_order);
    T("two-in-one-receive", test_two_in_one_receive);
    T("others-reply", test_others_reply);
    T("reply-split", test_reply_split);
    T("deadline/one-only", test_deadline_one_only);
    T("deadline/late-fds", test_late_fds);
    T("deadline/late-half", test_late_half);
    T("deadline/slots-exhausted", test_slots_exhausted);
    T("deadline/slot-freed", test_slot_freed);
    T("deadline/late-id", test_late_id_not_reused);
    T("deadline/tick", test_tick);
    T("deadline/wait-sleeps", test_wait_sleeps);
    T("lockstep/one-at-a-time", test_lockstep);
    T("lockstep/threads", test_lockstep_threads);

    return g_test_run();
}
