/*
 * vfio-user: requests that are waited for now and then, or no longer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

/* Short, for waits that are meant to be in vain. */
#define SHORT_MS    30
#define LATE_LEN    100000

static int64_t in_ms(int64_t ms)
{
    return g_get_monotonic_time() + ms * 1000;
}

static bool wait_until(Call *call, int64_t until)
{
    return vfio_user_conn_wait_until(call->rig->conn, &call->req, until);
}

static void abandon(Call *call)
{
    vfio_user_conn_abandon(call->rig->conn, &call->req);
}

/* All that was asked was answered: no slot is lost. */
static void check_slots(Rig *rig)
{
    rig_check_alive(rig);
    g_assert_cmpint(rig->conn->nr_free, ==, VFIO_USER_CONN_MAX_REQUESTS);
}

/* Waiting up to a time ----------------------------------------------------- */

static void test_in_time(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    call_peer_answer(&call, &msg);
    g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
    call_check_good(&call);
    call_end(&call, &msg);
    check_slots(rig);
    rig_free(rig);
}

static void test_later(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    for (int i = 0; i < 3; i++) {
        g_assert_false(wait_until(&call, in_ms(SHORT_MS)));
    }
    call_peer_answer(&call, &msg);
    g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
    call_check_good(&call);
    call_end(&call, &msg);

    /* Or the common way in the end. */
    call_begin(&call, rig, 2, 64, &msg);
    g_assert_false(wait_until(&call, in_ms(SHORT_MS)));
    call_peer_answer(&call, &msg);
    call_wait_good(&call);
    call_end(&call, &msg);
    check_slots(rig);
    rig_free(rig);
}

/* The server's refusal is an outcome as well. */
static void test_refused(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    call_peer_refuse(&call, &msg, 95);
    g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
    g_assert_cmpint(call.req.ret, ==, -95);
    call_end(&call, &msg);
    check_slots(rig);
    rig_free(rig);
}

/* A time that has passed: what is there counts, and nothing is read. */
static void test_only_looks(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    call_begin(&call[0], rig, 1, 64, &msg[0]);
    call_begin(&call[1], rig, 2, 64, &msg[1]);
    call_peer_answer(&call[0], &msg[0]);
    g_assert_false(wait_until(&call[0], 0));
    g_assert_false(wait_until(&call[0], g_get_monotonic_time()));
    call_peer_answer(&call[1], &msg[1]);
    /* Whoever waits reads for the others, too. */
    call_wait_good(&call[1]);
    g_assert_true(wait_until(&call[0], 0));
    call_check_good(&call[0]);
    call_end(&call[0], &msg[0]);
    call_end(&call[1], &msg[1]);
    check_slots(rig);
    rig_free(rig);
}

/* Nobody waits, but somebody looks after the socket. */
static void test_only_looks_started(void)
{
    Rig *rig = rig_new_started(peer_pair);
    int64_t end = in_ms(PEER_DEADLINE_MS);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    g_assert_false(wait_until(&call, 0));
    call_peer_answer(&call, &msg);
    peer_wait_taken(rig->peer);
    while (!wait_until(&call, 0)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
    call_check_good(&call);
    call_end(&call, &msg);
    rig_free(rig);
}

/* A part of the reply is there when the time is over. */
static void test_half(void)
{
    static const size_t at[] = { 1, 15, 16, 17, 32, 33, 5000, 65536 };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        Rig *rig = rig_new(peer_pair);
        g_autofree uint8_t *m = NULL;
        PeerMessage msg;
        Call call;
        size_t len;

        call_begin(&call, rig, 6, LATE_LEN, &msg);
        m = call_peer_make(&call, &msg, &len);
        peer_send_bytes(rig->peer, m, at[i]);
        g_assert_false(wait_until(&call, in_ms(SHORT_MS)));
        peer_send_bytes(rig->peer, m + at[i], len - at[i]);
        g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
        call_check_good(&call);
        call_end(&call, &msg);
        check_slots(rig);
        rig_free(rig);
    }
}

/* Another thread drives meanwhile; both get what is theirs. */
static void test_not_driver(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    call_init(&call[1], rig, 2, 64);
    call_thread_start(&call[1]);
    call_peer_get(&call[1], &msg[1]);
    call_begin(&call[0], rig, 1, 64, &msg[0]);
    g_assert_false(wait_until(&call[0], in_ms(SHORT_MS)));
    call_peer_answer(&call[0], &msg[0]);
    g_assert_true(wait_until(&call[0], in_ms(PEER_DEADLINE_MS)));
    call_check_good(&call[0]);
    call_peer_answer(&call[1], &msg[1]);
    call_thread_join(&call[1]);
    call_check_good(&call[1]);
    call_end(&call[0], &msg[0]);
    call_end(&call[1], &msg[1]);
    check_slots(rig);
    rig_free(rig);
}

/* The request has a deadline of its own, which is an outcome. */
static void test_own_deadline(void)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *before = NULL;
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 1, 64);
    call.req.timeout_ms = SHORT_MS;
    call_submit(&call);
    call_peer_get(&call, &msg);
    g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
    g_assert_cmpint(call.req.ret, ==, -ETIMEDOUT);
    g_assert_cmpint(call.req.in_len, ==, 0);

    memset(call.data, 0x55, 64);
    before = g_memdup2(call.data, 64);
    call_peer_answer(&call, &msg);
    check_slots(rig);
    g_assert_cmpmem(call.data, 64, before, 64);
    call_end(&call, &msg);
    rig_free(rig);
}

/* Also when it is only looked at. */
static void test_own_deadline_passed(void)
{
    Rig *rig = rig_new(peer_pair);
    int64_t end = in_ms(PEER_DEADLINE_MS);
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 1, 64);
    call.req.timeout_ms = SHORT_MS;
    call_submit(&call);
    call_peer_get(&call, &msg);
    while (!wait_until(&call, 0)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
    g_assert_cmpint(call.req.ret, ==, -ETIMEDOUT);
    call_peer_answer(&call, &msg);
    check_slots(rig);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_lost_waiting(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    g_assert_false(wait_until(&call, in_ms(SHORT_MS)));
    rig_close_peer(rig);
    g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
    g_assert_cmpint(call.req.ret, ==, -EPIPE);
    rig_wait_failed(rig, "");
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_lost_before(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    call_begin(&call[0], rig, 1, 64, &msg[0]);
    call_begin(&call[1], rig, 2, 64, &msg[1]);
    call_peer_answer(&call[0], &msg[0]);
    rig_close_peer(rig);
    rig_wait_failed(rig, "");
    /* What came before that is as good as ever. */
    g_assert_true(wait_until(&call[0], 0));
    call_check_good(&call[0]);
    g_assert_true(wait_until(&call[1], 0));
    g_assert_cmpint(call[1].req.ret, ==, -EPIPE);
    call_end(&call[0], &msg[0]);
    call_end(&call[1], &msg[1]);
    rig_free(rig);
}

/* No longer waiting -------------------------------------------------------- */

static void check_late_reply(bool error)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;
    uint8_t pattern[64];

    call_begin(&call, rig, 1, 64, &msg);
    abandon(&call);
    g_assert_cmpint(rig->conn->nr_free, ==, VFIO_USER_CONN_MAX_REQUESTS - 1);
    peer_pattern(call.data, 64, 99);
    memcpy(pattern, call.data, 64);
    if (error) {
        call_peer_refuse(&call, &msg, 5);
    } else {
        call_peer_answer(&call, &msg);
    }
    check_slots(rig);
    g_assert_cmpmem(call.data, 64, pattern, 64);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_abandon_late(void)
{
    check_late_reply(false);
}

static void test_abandon_late_error(void)
{
    check_late_reply(true);
}

/* A slot is free when the late reply has come, and not before. */
static void test_abandon_slots(void)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree Call *call = g_new(Call, VFIO_USER_CONN_MAX_REQUESTS);
    g_autofree PeerMessage *msg = g_new(PeerMessage,
                                        VFIO_USER_CONN_MAX_REQUESTS);

    for (int i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        call_begin(&call[i], rig, i, 4, &msg[i]);
        abandon(&call[i]);
    }
    call_end_late(call, msg, VFIO_USER_CONN_MAX_REQUESTS);
    check_slots(rig);
    rig_free(rig);
}

/* The same memory asks again: the old answer is not the new one's. */
static void test_abandon_again(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage old, new;
    Call call, first;

    call_begin(&call, rig, 1, 64, &old);
    first = call;
    abandon(&call);
    first.data = call.data;
    call_begin(&call, rig, 2, 64, &new);
    g_assert_cmpint(old.id, !=, new.id);
    call_peer_answer(&first, &old);
    g_assert_false(wait_until(&call, in_ms(SHORT_MS)));
    call_peer_answer(&call, &new);
    g_assert_true(wait_until(&call, in_ms(PEER_DEADLINE_MS)));
    call_check_good(&call);
    check_slots(rig);
    peer_drop(&old);
    g_free(first.data);
    call_end(&call, &new);
    rig_free(rig);
}

/* The answer was there already. */
static void test_abandon_done(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    call_begin(&call[0], rig, 1, 64, &msg[0]);
    call_begin(&call[1], rig, 2, 64, &msg[1]);
    call_peer_answer(&call[0], &msg[0]);
    call_peer_answer(&call[1], &msg[1]);
    call_wait_good(&call[1]);
    abandon(&call[0]);
    call_check_good(&call[0]);
    check_slots(rig);
    call_end(&call[0], &msg[0]);
    call_end(&call[1], &msg[1]);
    rig_free(rig);
}

/* It never was sent, which is why it is done. */
static void test_abandon_unsent(void)
{
    Rig *rig = rig_new(peer_small_pair);
    unsigned posts = 0;
    Call call;

    while (!rig_post(rig, posts, 100, 1)) {
        posts++;
    }
    call_init(&call, rig, 1, 64);
    call.req.timeout_ms = SHORT_MS;
    call_submit(&call);
    abandon(&call);
    g_assert_cmpint(call.req.ret, ==, -ETIMEDOUT);
    for (unsigned i = 0; i < posts; i++) {
        rig_expect_post(rig, i, 100);
    }
    check_slots(rig);
    call_free(&call);
    rig_free(rig);
}

/* @at bytes of the reply are there. */
static void check_abandon_half(size_t at)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    g_autofree uint8_t *pattern = NULL;
    PeerMessage msg;
    Call call;
    size_t len;

    call_begin(&call, rig, 6, LATE_LEN, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_send_bytes(rig->peer, m, at);
    g_assert_false(wait_until(&call, in_ms(SHORT_MS)));
    abandon(&call);
    peer_pattern(call.data, LATE_LEN, 77);
    pattern = g_memdup2(call.data, LATE_LEN);
    memset(call.head, 0x77, sizeof(call.head));
    peer_send_bytes(rig->peer, m + at, len - at);
    check_slots(rig);
    g_assert_cmpmem(call.data, LATE_LEN, pattern, LATE_LEN);
    for (int i = 0; i < sizeof(call.head); i++) {
        g_assert_cmphex(call.head[i], ==, 0x77);
    }
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_abandon_half(void)
{
    static const size_t at[] = { 1, 15, 16, 17, 32, 33, 5000, 65536 };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        check_abandon_half(at[i]);
    }
}

/* Another thread is receiving the reply, and goes on to receive its own. */
static void check_abandon_receiving(size_t at)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    g_autofree uint8_t *pattern = NULL;
    PeerMessage msg, other_msg;
    Call call, other;
    size_t len;

    call_init(&other, rig, 2, 64);
    call_thread_start(&other);
    call_peer_get(&other, &other_msg);
    call_begin(&call, rig, 6, LATE_LEN, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_send_bytes(rig->peer, m, at);
    peer_wait_taken(rig->peer);
    abandon(&call);
    peer_pattern(call.data, LATE_LEN, 78);
    pattern = g_memdup2(call.data, LATE_LEN);
    peer_send_bytes(rig->peer, m + at, len - at);
    call_peer_answer(&other, &other_msg);
    call_thread_join(&other);
    call_check_good(&other);
    g_assert_cmpmem(call.data, LATE_LEN, pattern, LATE_LEN);
    check_slots(rig);
    call_end(&call, &msg);
    call_end(&other, &other_msg);
    rig_free(rig);
}

static void test_abandon_receiving(void)
{
    static const size_t at[] = { 1, 16, 20, 32, 33, 50000, 32 + LATE_LEN - 1 };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        check_abandon_receiving(at[i]);
    }
}

typedef struct Sender {
    Rig *rig;
    uint8_t *m;
    size_t len;
} Sender;

static void sender_thread(void *opaque)
{
    Sender *s = opaque;

    peer_send_bytes(s->rig->peer, s->m, s->len);
}

/* The moment is chance: the memory is ours from then on all the same. */
static void test_abandon_race(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (int i = 0; i < 200; i++) {
        g_autofree uint8_t *m = NULL;
        g_autofree uint8_t *pattern = NULL;
        PeerThread thread;
        PeerMessage msg;
        Sender s = { .rig = rig };
        bool done = false;
        Call call;

        call_begin(&call, rig, i, LATE_LEN, &msg);
        s.m = m = call_peer_make(&call, &msg, &s.len);
        peer_thread_start(&thread, sender_thread, &s);
        for (int j = 0; j < i * 10 && !done; j++) {
            done = wait_until(&call, 0);
            g_thread_yield();
        }
        if (!done) {
            abandon(&call);
        }
        peer_pattern(call.data, LATE_LEN, i);
        pattern = g_memdup2(call.data, LATE_LEN);
        peer_thread_join(&thread);
        rig_check_alive(rig);
        g_assert_cmpmem(call.data, LATE_LEN, pattern, LATE_LEN);
        call_end(&call, &msg);
    }
    check_slots(rig);
    rig_free(rig);
}

static void test_abandon_lost(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    call_begin(&call[0], rig, 1, 64, &msg[0]);
    call_begin(&call[1], rig, 2, 64, &msg[1]);
    abandon(&call[0]);
    rig_close_peer(rig);
    rig_wait_failed(rig, "");
    abandon(&call[1]);
    g_assert_cmpint(call[1].req.ret, ==, -EPIPE);
    call_end(&call[0], &msg[0]);
    call_end(&call[1], &msg[1]);
    rig_free(rig);
}

/* Leaving: another request takes the place of one that was waited for --------- */

/* Its place is taken by one that nobody waits for. */
typedef struct Heir {
    Call call;
    unsigned nr_done;
} Heir;

static void heir_done(VFIOUserRequest *req)
{
    qatomic_inc(&container_of(req, Heir, call.req)->nr_done);
}

/* Also when @at bytes of the answer have come. */
static void check_leave(size_t at)
{
    Rig *rig = rig_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage msg, other_msg;
    Call call, other;
    Heir heir = { 0 };
    size_t len;

    call_init(&heir.call, rig, 6, LATE_LEN);
    heir.call.req.done = heir_done;
    call_init(&other, rig, 2, 64);
    call_thread_start(&other);
    call_peer_get(&other, &other_msg);
    call_begin(&call, rig, 6, LATE_LEN, &msg);
    m = call_peer_make(&call, &msg, &len);
    peer_send_bytes(rig->peer, m, at);
    peer_wait_taken(rig->peer);
    g_assert_true(vfio_user_conn_leave(rig->conn, &call.req, &heir.call.req));
    memset(call.data, 0, LATE_LEN);
    peer_send_bytes(rig->peer, m + at, len - at);
    call_peer_answer(&other, &other_msg);
    call_thread_join(&other);
    call_check_good(&other);
    g_assert_cmpuint(heir.nr_done, ==, 1);
    call_check_good(&heir.call);
    g_assert_true(buffer_is_zero(call.data, LATE_LEN));
    check_slots(rig);
    call_end(&call, &msg);
    call_end(&other, &other_msg);
    call_free(&heir.call);
    rig_free(rig);
}

static void test_leave(void)
{
    static const size_t at[] = { 0, 1, 16, 20, 32, 33, 50000, 32 + LATE_LEN - 1 };

    for (int i = 0; i < ARRAY_SIZE(at); i++) {
        check_leave(at[i]);
    }
}

/* Not when it has been answered. */
static void test_leave_answered(void)
{
    Rig *rig = rig_new(peer_pair);
    Heir heir = { 0 };
    PeerMessage msg[2];
    Call call[2];

    call_init(&heir.call, rig, 1, 64);
    heir.call.req.done = heir_done;
    call_begin(&call[0], rig, 1, 64, &msg[0]);
    call_begin(&call[1], rig, 2, 64, &msg[1]);
    for (int i = 0; i < 2; i++) {
        call_peer_answer(&call[i], &msg[i]);
    }
    call_wait_good(&call[1]);
    g_assert_false(vfio_user_conn_leave(rig->conn, &call[0].req,
                                        &heir.call.req));
    call_wait_good(&call[0]);
    g_assert_cmpuint(heir.nr_done, ==, 0);
    for (int i = 0; i < 2; i++) {
        call_end(&call[i], &msg[i]);
    }
    call_free(&heir.call);
    check_slots(rig);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/until/" name, func)
    T("in-time", test_in_time);
    T("later", test_later);
    T("refused", test_refused);
    T("only-looks", test_only_looks);
    T("only-looks-started", test_only_looks_started);
    T("half", test_half);
    T("not-driver", test_not_driver);
    T("own-deadline", test_own_deadline);
    T("own-deadline-passed", test_own_deadline_passed);
    T("lost/waiting", test_lost_waiting);
    T("lost/before", test_lost_before);
    peer_add_test("/vfio-user/conn/leave", test_leave);
    peer_add_test("/vfio-user/conn/leave-answered", test_leave_answered);
#undef T
#define T(name, func) peer_add_test("/vfio-user/conn/abandon/" name, func)
    T("late", test_abandon_late);
    T("late-error", test_abandon_late_error);
    T("slots", test_abandon_slots);
    T("again", test_abandon_again);
    T("done", test_abandon_done);
    T("unsent", test_abandon_unsent);
    T("half", test_abandon_half);
    T("receiving", test_abandon_receiving);
    T("race", test_abandon_race);
    T("lost", test_abandon_lost);

    return g_test_run();
}
