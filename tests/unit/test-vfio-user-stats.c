/*
 * vfio-user: counters and histograms
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Time is a number here, so that minutes pass at once.
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/stats.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

#define US          INT64_C(1000)
#define MS          (1000 * US)
#define SECOND      (1000 * MS)
#define BEGIN       (77 * SECOND)

/* Flags of a header, from the protocol */
#define REPLY       0x1
#define NO_REPLY    0x10
#define ERROR_BIT   0x20

#define CMD_REGION_WRITE_MULTI  15

/* Buckets ------------------------------------------------------------------ */

static void test_bucket_order(void)
{
    unsigned last = 0;
    int64_t ns;

    for (ns = 0; ns < 200 * SECOND; ns += ns / 100 + 1) {
        unsigned b = vfio_user_stats_bucket(ns);

        g_assert_cmpuint(b, <, VFIO_USER_STATS_BUCKETS);
        /* None is left out. */
        g_assert_cmpuint(b - last, <=, 1);
        last = b;
    }
    g_assert_cmpuint(last, ==, VFIO_USER_STATS_BUCKETS - 1);
    g_assert_cmpuint(vfio_user_stats_bucket(INT64_MAX), ==, last);
    /* A clock that goes back is no reason to write elsewhere. */
    g_assert_cmpuint(vfio_user_stats_bucket(-1), ==, 0);
}

/* What stands for a bucket is at most a sixteenth off what it counts. */
static void test_bucket_precision(void)
{
    for (int64_t ns = 0; ns < 100 * SECOND; ns += ns / 1000 + 1) {
        int64_t is = vfio_user_stats_bucket_ns(vfio_user_stats_bucket(ns));

        g_assert_cmpint(ABS(is - ns), <=, MAX(ns / 16, 64));
    }
}

static void test_bucket_of_itself(void)
{
    for (unsigned b = 0; b < VFIO_USER_STATS_BUCKETS; b++) {
        g_assert_cmpuint(vfio_user_stats_bucket(vfio_user_stats_bucket_ns(b)),
                         ==, b);
    }
    /* Typed, so that both directions cannot be wrong together. */
    g_assert_cmpuint(vfio_user_stats_bucket(127), ==, 0);
    g_assert_cmpuint(vfio_user_stats_bucket(128), ==, 1);
    g_assert_cmpuint(vfio_user_stats_bucket(1023), ==, 7);
    g_assert_cmpuint(vfio_user_stats_bucket(1024), ==, 8);
    g_assert_cmpuint(vfio_user_stats_bucket(2047), ==, 15);
    g_assert_cmpuint(vfio_user_stats_bucket(2048), ==, 16);
    g_assert_cmpuint(vfio_user_stats_bucket(INT64_C(1) << 36), ==, 216);
    g_assert_cmpint(vfio_user_stats_bucket_ns(8), ==, 1088);
    g_assert_cmpint(vfio_user_stats_bucket_ns(16), ==, 2176);
}

/* Percentiles -------------------------------------------------------------- */

static VFIOUserStats *stats_new(void)
{
    VFIOUserStats *s = g_new(VFIOUserStats, 1);

    vfio_user_stats_reset(s, BEGIN);
    return s;
}

static VFIOUserLatency *latency(VFIOUserStats *s)
{
    return &s->latency[VFIO_USER_LATENCY_ACCESS];
}

static void add(VFIOUserStats *s, int64_t at, int64_t ns, unsigned nr)
{
    while (nr--) {
        vfio_user_stats_replied(latency(s), at, ns);
    }
}

static void check_near(int64_t is, int64_t want)
{
    g_assert_cmpint(is, >=, want - want / 16);
    g_assert_cmpint(is, <=, want + want / 16);
}

static void check(const VFIOUserHistogram *h, uint64_t nr, int64_t p50,
                  int64_t p99, int64_t max)
{
    g_assert_cmpuint(h->nr, ==, nr);
    check_near(vfio_user_stats_percentile(h, 50), p50);
    check_near(vfio_user_stats_percentile(h, 99), p99);
    g_assert_cmpint(h->max_ns, ==, max);
}

static void check_recent(VFIOUserStats *s, int64_t at, uint64_t nr,
                         int64_t p50, int64_t p99, int64_t max)
{
    g_autofree VFIOUserHistogram *h = g_new(VFIOUserHistogram, 1);

    vfio_user_stats_recent(latency(s), at, h);
    check(h, nr, p50, p99, max);
}

static void test_nothing(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    check(&latency(s)->total, 0, 0, 0, 0);
    check_recent(s, BEGIN, 0, 0, 0, 0);
    check_recent(s, BEGIN + 1000 * SECOND, 0, 0, 0, 0);
}

static void test_one(void)
{
    static const int64_t took[] = {
        0, 1, 500, 15 * US, 15001, 700 * MS, 99 * SECOND, 3600 * SECOND,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(took); i++) {
        g_autofree VFIOUserStats *s = stats_new();
        const VFIOUserHistogram *h = &latency(s)->total;

        add(s, BEGIN, took[i], 1);
        g_assert_cmpint(vfio_user_stats_percentile(h, 50), <=, took[i]);
        g_assert_cmpint(vfio_user_stats_percentile(h, 50), ==,
                        vfio_user_stats_percentile(h, 99));
        if (took[i] > US) {
            check(h, 1, took[i], took[i], took[i]);
        }
    }
}

static void test_percentiles(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    /* One of a hundred may be longer, two may not. */
    add(s, BEGIN, 10 * US, 99);
    add(s, BEGIN, 5 * MS, 1);
    check(&latency(s)->total, 100, 10 * US, 10 * US, 5 * MS);
    add(s, BEGIN, 5 * MS, 1);
    check(&latency(s)->total, 101, 10 * US, 5 * MS, 5 * MS);
    add(s, BEGIN, 1 * SECOND, 102);
    check(&latency(s)->total, 203, 1 * SECOND, 1 * SECOND, 1 * SECOND);
}

/* The middle of many different ones */
static void test_spread(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    for (int i = 1; i <= 1000; i++) {
        add(s, BEGIN, i * US, 1);
    }
    check(&latency(s)->total, 1000, 500 * US, 990 * US, 1000 * US);
}

/* Recent ------------------------------------------------------------------- */

static void test_recent(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    add(s, BEGIN + 1 * SECOND, 1 * MS, 10);
    add(s, BEGIN + 59 * SECOND, 2 * MS, 20);
    check_recent(s, BEGIN + 59 * SECOND, 30, 2 * MS, 2 * MS, 2 * MS);
    /* The minute before is still there, */
    add(s, BEGIN + 61 * SECOND, 4 * MS, 1);
    check_recent(s, BEGIN + 119 * SECOND, 31, 2 * MS, 4 * MS, 4 * MS);
    /* then only the last. */
    check_recent(s, BEGIN + 120 * SECOND, 1, 4 * MS, 4 * MS, 4 * MS);
    check_recent(s, BEGIN + 180 * SECOND, 0, 0, 0, 0);
    check(&latency(s)->total, 31, 2 * MS, 4 * MS, 4 * MS);
}

/* Nothing happened for long: the next reply is the only recent one. */
static void test_recent_after_pause(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    add(s, BEGIN, 1 * MS, 10);
    add(s, BEGIN + 7200 * SECOND, 3 * MS, 1);
    check_recent(s, BEGIN + 7200 * SECOND, 1, 3 * MS, 3 * MS, 3 * MS);
    check_recent(s, BEGIN + 7259 * SECOND, 1, 3 * MS, 3 * MS, 3 * MS);
    check_recent(s, BEGIN + 7320 * SECOND, 0, 0, 0, 0);
}

/* Counters ----------------------------------------------------------------- */

static void count(VFIOUserCount *table, uint16_t command, uint32_t flags,
                  uint32_t size)
{
    struct vfio_user_header hdr = {
        .command = command, .size = size, .flags = flags,
    };

    vfio_user_stats_count(table, &hdr);
}

static void check_count(const VFIOUserCount *c, uint64_t commands,
                        uint64_t no_reply, uint64_t replies, uint64_t errors,
                        uint64_t bytes)
{
    g_assert_cmpuint(c->commands, ==, commands);
    g_assert_cmpuint(c->no_reply, ==, no_reply);
    g_assert_cmpuint(c->replies, ==, replies);
    g_assert_cmpuint(c->errors, ==, errors);
    g_assert_cmpuint(c->bytes, ==, bytes);
}

static void test_count(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    count(s->sent, 10, 0, 40);
    count(s->sent, 10, NO_REPLY, 36);
    count(s->received, 10, REPLY, 32);
    count(s->received, 10, REPLY | ERROR_BIT, 16);
    check_count(&s->sent[10], 2, 1, 0, 0, 76);
    check_count(&s->received[10], 0, 0, 2, 1, 48);
    check_count(&s->sent[9], 0, 0, 0, 0, 0);
    check_count(&s->received[11], 0, 0, 0, 0, 0);
}

/* Commands come from the peer. */
static void test_count_unknown(void)
{
    static const uint16_t unknown[] = { 0, 19, 20, 0x7fff, 0xffff };
    g_autofree VFIOUserStats *s = stats_new();

    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        count(s->received, unknown[i], 0, 16);
    }
    count(s->received, 18, 0, 16);
    check_count(&s->received[0], ARRAY_SIZE(unknown), 0, 0, 0,
                16 * ARRAY_SIZE(unknown));
    check_count(&s->received[18], 1, 0, 0, 0, 16);
}

static void test_add(void)
{
    g_autofree VFIOUserStats *a = stats_new();
    g_autofree VFIOUserStats *b = stats_new();

    count(a->sent, 9, 0, 32);
    count(b->sent, 9, 0, 32);
    count(b->received, 9, REPLY | ERROR_BIT, 16);
    a->unanswered[9].timeouts = 2;
    b->unanswered[9].timeouts = 3;
    b->unanswered[2].given_up = 4;
    add(a, BEGIN, 1 * MS, 2);
    add(b, BEGIN + 70 * SECOND, 2 * MS, 5);
    b->since_ns = BEGIN + 69 * SECOND;

    vfio_user_stats_add(a, b, BEGIN + 80 * SECOND);
    check_count(&a->sent[9], 2, 0, 0, 0, 64);
    check_count(&a->received[9], 0, 0, 1, 1, 16);
    g_assert_cmpuint(a->unanswered[9].timeouts, ==, 5);
    g_assert_cmpuint(a->unanswered[2].given_up, ==, 4);
    g_assert_cmpint(a->since_ns, ==, BEGIN);
    check(&latency(a)->total, 7, 2 * MS, 2 * MS, 2 * MS);
    check_recent(a, BEGIN + 80 * SECOND, 7, 2 * MS, 2 * MS, 2 * MS);
    check_recent(a, BEGIN + 130 * SECOND, 5, 2 * MS, 2 * MS, 2 * MS);
}

static void test_reset(void)
{
    g_autofree VFIOUserStats *s = stats_new();

    count(s->sent, 9, 0, 32);
    s->unanswered[9].timeouts = 1;
    add(s, BEGIN, 1 * MS, 2);
    vfio_user_stats_reset(s, BEGIN + 90 * SECOND);
    check_count(&s->sent[9], 0, 0, 0, 0, 0);
    g_assert_cmpuint(s->unanswered[9].timeouts, ==, 0);
    check(&latency(s)->total, 0, 0, 0, 0);
    check_recent(s, BEGIN + 90 * SECOND, 0, 0, 0, 0);
    g_assert_cmpint(s->since_ns, ==, BEGIN + 90 * SECOND);
    /* A minute begins with it. */
    add(s, BEGIN + 149 * SECOND, 1 * MS, 1);
    check_recent(s, BEGIN + 209 * SECOND, 1, 1 * MS, 1 * MS, 1 * MS);
    check_recent(s, BEGIN + 210 * SECOND, 0, 0, 0, 0);
}

/* A connection that counts ------------------------------------------------- */

static void conn_stats(Rig *rig, VFIOUserStats *s, VFIOUserConnPending *p)
{
    vfio_user_stats_reset(s, get_clock());
    *p = (VFIOUserConnPending) { };
    vfio_user_conn_add_stats(rig->conn, s, p);
}

static void test_conn_requests(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    VFIOUserConnPending p;
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    conn_stats(rig, s, &p);
    check_count(&s->sent[CMD_REGION_READ], 1, 0, 0, 0, 32);
    check_count(&s->received[CMD_REGION_READ], 0, 0, 0, 0, 0);
    g_assert_cmpuint(p.nr, ==, 1);
    g_assert_cmpint(p.oldest_ns, >, 0);

    call_peer_answer(&call, &msg);
    call_wait_good(&call);
    conn_stats(rig, s, &p);
    check_count(&s->received[CMD_REGION_READ], 0, 0, 1, 0, 32 + 64);
    g_assert_cmpuint(p.nr, ==, 0);
    g_assert_cmpint(p.oldest_ns, ==, 0);
    g_assert_cmpuint(latency(s)->total.nr, ==, 1);
    g_assert_cmpint(latency(s)->total.max_ns, >, 0);
    call_end(&call, &msg);
    rig_free(rig);
}

static void test_conn_refused(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    VFIOUserConnPending p;
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    call_peer_refuse(&call, &msg, 22);
    call_wait_ret(&call, -22);
    conn_stats(rig, s, &p);
    check_count(&s->received[CMD_REGION_READ], 0, 0, 1, 1, 16);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].timeouts, ==, 0);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].given_up, ==, 0);
    call_end(&call, &msg);
    rig_free(rig);
}

/* A late reply is a reply, too. */
static void test_conn_timeout(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    VFIOUserConnPending p;
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 1, 64);
    call.req.timeout_ms = 1;
    call_submit(&call);
    call_peer_get(&call, &msg);
    call_wait_ret(&call, -ETIMEDOUT);
    conn_stats(rig, s, &p);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].timeouts, ==, 1);
    g_assert_cmpuint(p.nr, ==, 0);

    call_peer_answer(&call, &msg);
    rig_check_alive(rig);
    conn_stats(rig, s, &p);
    check_count(&s->sent[CMD_REGION_READ], 2, 0, 0, 0, 64);
    g_assert_cmpuint(s->received[CMD_REGION_READ].replies, ==, 2);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].timeouts, ==, 1);
    g_assert_cmpint(latency(s)->total.max_ns, >=, 1 * MS);
    call_end(&call, &msg);
    rig_free(rig);
}

/* Not wanted any more, and lost with the connection */
static void test_conn_given_up(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    VFIOUserConnPending p;
    PeerMessage msg[2];
    Call call[2];

    for (int i = 0; i < 2; i++) {
        call_begin(&call[i], rig, i, 64, &msg[i]);
    }
    vfio_user_conn_abandon(rig->conn, &call[0].req);
    g_assert_cmpint(call[0].req.ret, ==, -ECANCELED);
    conn_stats(rig, s, &p);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].given_up, ==, 1);
    g_assert_cmpuint(p.nr, ==, 1);

    rig_close_peer(rig);
    call_wait_ret(&call[1], -EPIPE);
    conn_stats(rig, s, &p);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].given_up, ==, 2);
    g_assert_cmpuint(s->unanswered[CMD_REGION_READ].timeouts, ==, 0);
    g_assert_cmpuint(p.nr, ==, 0);
    for (int i = 0; i < 2; i++) {
        call_end(&call[i], &msg[i]);
    }
    rig_wait_failed(rig, "closed");
    rig_free(rig);
}

static void test_conn_posted(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    VFIOUserConnPending p;

    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(rig_post(rig, i, 8, 0), ==, 0);
        rig_expect_post(rig, i, 8);
    }
    conn_stats(rig, s, &p);
    check_count(&s->sent[CMD_REGION_WRITE], 3, 3, 0, 0, 3 * (16 + 16 + 8));
    g_assert_cmpuint(latency(s)->total.nr, ==, 0);
    g_assert_cmpuint(p.nr, ==, 0);
    rig_free(rig);
}

/* Writes that found the socket full count as the message that they become. */
static void test_conn_coalesced(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_small_pair);
    unsigned singles = 0, multis = 0, writes = 0;
    VFIOUserConnPending p;

    for (uint32_t data = 0; rig->conn->nr_backlog < 10; data++) {
        g_assert_cmpint(vfio_user_conn_post_write(rig->conn, 0, 0, &data,
                                                  sizeof(data), 0, 0), ==, 0);
        writes++;
    }
    for (unsigned got = 0; got < writes;) {
        PeerMessage msg;
        bool sent;

        vfio_user_conn_tx_flush(rig->conn, &sent);
        peer_get(rig->peer, &msg);
        if (msg.command == CMD_REGION_WRITE) {
            singles++;
            got++;
        } else {
            g_assert_cmpint(msg.command, ==, CMD_REGION_WRITE_MULTI);
            multis++;
            got += msg.payload[0];
        }
        peer_drop(&msg);
    }
    conn_stats(rig, s, &p);
    check_count(&s->sent[CMD_REGION_WRITE], singles, singles, 0, 0,
                singles * (16 + 16 + 4));
    check_count(&s->sent[CMD_REGION_WRITE_MULTI], multis, multis, 0, 0,
                multis * (16 + 8) + (writes - singles) * 24);
    g_assert_cmpuint(multis, >, 0);
    rig_free(rig);
}

static void done(VFIOUserRequest *req)
{
    g_assert_cmpint(req->ret, ==, 0);
}

/* Such a reply is taken when there is time: when that was says nothing. */
static void test_conn_nobody_waits(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    VFIOUserConnPending p;
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 1, 64);
    call.req.done = done;
    call_submit(&call);
    call_peer_get(&call, &msg);
    call_peer_answer(&call, &msg);
    rig_check_alive(rig);
    conn_stats(rig, s, &p);
    g_assert_cmpuint(s->latency[VFIO_USER_LATENCY_OTHER].total.nr, ==, 0);
    g_assert_cmpuint(latency(s)->total.nr, ==, 1);
    g_assert_cmpuint(s->received[CMD_REGION_READ].replies, ==, 2);
    call_end(&call, &msg);
    rig_free(rig);
}

/* What the server asks for */
static void test_conn_commands(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new_started(peer_pair);
    VFIOUserConnPending p;

    rig_send_dma(rig, 7, CMD_DMA_WRITE, 0x100, 48, 1);
    rig_expect_dma(rig, 7, CMD_DMA_WRITE, 0x100, 48, 1);
    rig_send_dma(rig, 8, CMD_DMA_READ, 0x100, 32, 0);
    rig_expect_dma(rig, 8, CMD_DMA_READ, 0x100, 32, 1);
    conn_stats(rig, s, &p);
    check_count(&s->received[CMD_DMA_READ], 1, 0, 0, 0, 32);
    check_count(&s->sent[CMD_DMA_READ], 0, 0, 1, 0, 32 + 32);
    check_count(&s->received[CMD_DMA_WRITE], 1, 0, 0, 0, 32 + 48);
    check_count(&s->sent[CMD_DMA_WRITE], 0, 0, 1, 0, 32);
    rig_free(rig);
}

static void test_conn_reset(void)
{
    g_autofree VFIOUserStats *s = stats_new();
    Rig *rig = rig_new(peer_pair);
    int64_t before = vfio_user_conn_stats_since(rig->conn);
    VFIOUserConnPending p;

    rig_check_alive(rig);
    vfio_user_conn_reset_stats(rig->conn);
    conn_stats(rig, s, &p);
    check_count(&s->sent[CMD_REGION_READ], 0, 0, 0, 0, 0);
    check_count(&s->received[CMD_REGION_READ], 0, 0, 0, 0, 0);
    g_assert_cmpuint(latency(s)->total.nr, ==, 0);
    g_assert_cmpint(vfio_user_conn_stats_since(rig->conn), >, before);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();
#define T(name, func) peer_add_test("/vfio-user/stats/" name, func)
    T("bucket/order", test_bucket_order);
    T("bucket/precision", test_bucket_precision);
    T("bucket/of-itself", test_bucket_of_itself);
    T("percentile/nothing", test_nothing);
    T("percentile/one", test_one);
    T("percentile/few", test_percentiles);
    T("percentile/spread", test_spread);
    T("recent/turns", test_recent);
    T("recent/after-pause", test_recent_after_pause);
    T("count/kinds", test_count);
    T("count/unknown", test_count_unknown);
    T("add", test_add);
    T("reset", test_reset);
    T("conn/requests", test_conn_requests);
    T("conn/refused", test_conn_refused);
    T("conn/timeout", test_conn_timeout);
    T("conn/given-up", test_conn_given_up);
    T("conn/posted", test_conn_posted);
    T("conn/coalesced", test_conn_coalesced);
    T("conn/commands", test_conn_commands);
    T("conn/nobody-waits", test_conn_nobody_waits);
    T("conn/reset", test_conn_reset);
#undef T
    return g_test_run();
}
