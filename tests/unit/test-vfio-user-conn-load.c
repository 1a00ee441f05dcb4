/*
 * vfio-user: full sockets and many threads on a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

/* Posted writes ------------------------------------------------------------ */

static void test_post_order(void)
{
    Rig *rig = rig_new(peer_pair);
    Call call;

    for (int i = 0; i < 10; i++) {
        g_assert_cmpint(rig_post(rig, i, 4 + i, 0), ==, 0);
    }
    call_init(&call, rig, 1, 4);
    call_submit(&call);
    for (int i = 0; i < 10; i++) {
        rig_expect_post(rig, i, 4 + i);
    }
    call_peer_serve(&call);
    call_wait_good(&call);
    call_free(&call);
    rig_free(rig);
}

/*
 * A server that does not read: what was taken is there once, in order and
 * whole; what was refused never was.
 */
static void post_full(size_t len, bool started)
{
    Rig *rig = started ? rig_new_started(peer_small_pair)
                       : rig_new(peer_small_pair);
    unsigned posts = 0, refused = 0;

    while (refused < 3) {
        int ret = rig_post(rig, posts, len, 1);

        if (ret) {
            g_assert_cmpint(ret, ==, -ETIMEDOUT);
            refused++;
        } else {
            g_assert_cmpint(refused, ==, 0);
            posts++;
        }
    }
    g_assert_cmpint(posts, >, 0);
    if (!started) {
        /* Somebody has to send what was begun. */
        Call call;

        call_init(&call, rig, 1, 4);
        call_thread_start(&call);
        for (unsigned i = 0; i < posts; i++) {
            rig_expect_post(rig, i, len);
        }
        call_peer_serve(&call);
        call_thread_join(&call);
        call_check_good(&call);
        call_free(&call);
    } else {
        for (unsigned i = 0; i < posts; i++) {
            rig_expect_post(rig, i, len);
        }
        g_assert_false(peer_readable(rig->peer));
        rig_check_alive(rig);
    }
    g_assert_cmpint(rig_post(rig, 5, len % 100, 0), ==, 0);
    rig_expect_post(rig, 5, len % 100);
    g_assert_false(qatomic_read(&rig->conn->tx_pending));
    rig_free(rig);
}

static void test_post_full(void)
{
    static const size_t len[] = { 4, 100, 5000, 100000, 1024 * 1024 };

    for (int i = 0; i < ARRAY_SIZE(len); i++) {
        post_full(len[i], false);
        post_full(len[i], true);
    }
}

/* A post that waits for room goes out when there is some. */
static void post_thread(void *opaque)
{
    Rig *rig = opaque;

    for (int i = 0; i < 50; i++) {
        g_assert_cmpint(rig_post(rig, i, 10000 + i, 0), ==, 0);
    }
}

static void test_post_waits(void)
{
    Rig *rig = rig_new(peer_small_pair);
    PeerThread thread;

    peer_thread_start(&thread, post_thread, rig);
    rig_wait_queued(rig, 1);
    for (int i = 0; i < 50; i++) {
        rig_expect_post(rig, i, 10000 + i);
    }
    peer_thread_join(&thread);
    rig_check_alive(rig);
    rig_free(rig);
}

/* Others that wait for replies let a sender get on. */
static void test_post_beside_wait(void)
{
    Rig *rig = rig_new_started(peer_small_pair);
    PeerThread thread;
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 1, 4);
    call_thread_start(&call);
    call_peer_get(&call, &msg);
    peer_thread_start(&thread, post_thread, rig);
    rig_wait_queued(rig, 1);
    for (int i = 0; i < 50; i++) {
        rig_expect_post(rig, i, 10000 + i);
    }
    peer_thread_join(&thread);
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    call_end(&call, &msg);
    rig_free(rig);
}

/* A sender whose message is out goes, whatever else waits for room. */
typedef struct Post {
    Rig *rig;
    uint64_t off;
    size_t len;
    PeerThread thread;
} Post;

static void one_post_thread(void *opaque)
{
    Post *post = opaque;

    g_assert_cmpint(rig_post(post->rig, post->off, post->len, 0), ==, 0);
}

static void test_post_before_others(void)
{
    Rig *rig = rig_new(peer_small_pair);
    unsigned posts = 0;
    Post small = { .rig = rig, .off = 1, .len = 100 };
    Post large = { .rig = rig, .off = 2, .len = 1024 * 1024 };

    while (!rig_post(rig, posts, 100, 1)) {
        posts++;
    }
    peer_thread_start(&small.thread, one_post_thread, &small);
    rig_wait_queued(rig, 1);
    peer_thread_start(&large.thread, one_post_thread, &large);
    rig_wait_queued(rig, 2);
    for (unsigned i = 0; i < posts; i++) {
        rig_expect_post(rig, i, 100);
    }
    rig_expect_post(rig, small.off, small.len);
    /* The large one is begun and stuck. */
    peer_wait_readable(rig->peer);
    peer_thread_join(&small.thread);
    rig_expect_post(rig, large.off, large.len);
    peer_thread_join(&large.thread);
    rig_check_alive(rig);
    rig_free(rig);
}

/* Requests refused for lack of room leave nothing behind. */
static void test_request_full(void)
{
    Rig *rig = rig_new(peer_small_pair);
    unsigned posts = 0;

    while (!rig_post(rig, posts, 100, 1)) {
        posts++;
    }
    for (int i = 0; i < VFIO_USER_CONN_MAX_REQUESTS + 10; i++) {
        Call call;

        call_init(&call, rig, i, 4);
        call.req.timeout_ms = 1;
        call_submit(&call);
        call_wait_ret(&call, -ETIMEDOUT);
        call_free(&call);
    }
    for (unsigned i = 0; i < posts; i++) {
        rig_expect_post(rig, i, 100);
    }
    g_assert_false(peer_readable(rig->peer));
    rig_check_alive(rig);
    rig_free(rig);
}

/* Both ends send at once --------------------------------------------------- */

/* The server reads nothing before all of its commands are sent. */
static void two_way_full(bool started, unsigned nr)
{
    Rig *rig = started ? rig_new_started(peer_small_pair)
                       : rig_new(peer_small_pair);
    unsigned replies = 0, posts = 0;
    bool answered = false;
    PeerThread thread;
    Call call;

    call_init(&call, rig, 1, 4);
    peer_thread_start(&thread, post_thread, rig);
    call_thread_start(&call);
    for (unsigned i = 0; i < nr; i++) {
        rig_send_dma(rig, i, CMD_DMA_WRITE, 65536 * i, 65536, i);
    }
    while (replies < nr || posts < 50 || !answered) {
        PeerMessage msg;

        peer_get(rig->peer, &msg);
        if (msg.command == CMD_DMA_WRITE) {
            g_assert_cmpint(msg.id, ==, replies);
            g_assert_cmphex(msg.flags, ==, PEER_REPLY);
            replies++;
        } else if (msg.command == CMD_REGION_WRITE) {
            rig_check_post(&msg, posts, 10000 + posts);
            posts++;
        } else {
            g_assert_cmpint(msg.command, ==, CMD_REGION_READ);
            call_peer_answer(&call, &msg);
            answered = true;
        }
        peer_drop(&msg);
    }
    peer_thread_join(&thread);
    call_thread_join(&call);
    call_check_good(&call);
    for (unsigned i = 0; i < nr; i++) {
        peer_check_pattern(rig->ram + 65536 * i, 65536, i);
    }
    call_free(&call);
    rig_check_alive(rig);
    rig_free(rig);
}

static void test_two_way_full(void)
{
    two_way_full(false, 50);
    two_way_full(true, 50);
}

/* Both directions full of large messages, a server that reads late */
static void big_post_thread(void *opaque)
{
    Rig *rig = opaque;

    for (int i = 0; i < 5; i++) {
        g_assert_cmpint(rig_post(rig, i, 1024 * 1024, 0), ==, 0);
    }
}

static void test_two_way_large(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerThread thread;
    unsigned replies = 0, posts = 0;

    peer_thread_start(&thread, big_post_thread, rig);
    for (int i = 0; i < 8; i++) {
        rig_send_dma(rig, i, CMD_DMA_WRITE, 0, RIG_MAX_XFER, i);
        rig_send_dma(rig, i, CMD_DMA_READ, 0, RIG_MAX_XFER, i);
    }
    while (replies < 16 || posts < 5) {
        PeerMessage msg;

        peer_get(rig->peer, &msg);
        if (msg.command == CMD_REGION_WRITE) {
            rig_check_post(&msg, posts++, 1024 * 1024);
        } else {
            g_assert_cmpint(msg.command, ==,
                            replies % 2 ? CMD_DMA_READ : CMD_DMA_WRITE);
            g_assert_cmpint(msg.id, ==, replies / 2);
            replies++;
        }
        peer_drop(&msg);
    }
    peer_thread_join(&thread);
    rig_check_alive(rig);
    rig_free(rig);
}

/* Many threads ------------------------------------------------------------- */

#define NR_THREADS  8
#define NR_ROUNDS   150

typedef struct Hammer {
    Rig *rig;
    unsigned index;
    unsigned timeout_ms;
    unsigned nr_timeouts;
    PeerThread thread;
} Hammer;

/* Reads of its own part of the region, now and then after a posted write */
static void hammer_thread(void *opaque)
{
    Hammer *h = opaque;

    for (unsigned i = 0; i < NR_ROUNDS; i++) {
        uint64_t off = h->index * 100000 + i;
        Call call;

        if (i % 5 == 0) {
            g_assert_cmpint(rig_post(h->rig, off, 8, 0), ==, 0);
        }
        call_init(&call, h->rig, off, 1 + (off * 37) % 9000);
        call.req.timeout_ms = h->timeout_ms;
        call.ret = vfio_user_conn_call(h->rig->conn, &call.req);
        if (call.ret == -ETIMEDOUT) {
            g_assert_cmpint(h->timeout_ms, >, 0);
            h->nr_timeouts++;
        } else {
            g_assert_cmpint(call.ret, ==, 0);
            call_check_good(&call);
        }
        call_free(&call);
    }
}

/* The peer's notes about what it got from each thread */
typedef struct HammerPeer {
    Rig *rig;
    uint64_t last_post[NR_THREADS];
    unsigned reads, posts, dma_sent, dma_replies;
    PeerMessage held[3];
    unsigned nr_held;
} HammerPeer;

static void hammer_answer(HammerPeer *p, const PeerMessage *msg)
{
    g_autofree uint8_t *payload = NULL;
    uint64_t off;
    uint32_t count;

    memcpy(&off, msg->payload, 8);
    memcpy(&count, msg->payload + 12, 4);
    payload = g_malloc(16 + count);
    memcpy(payload, msg->payload, 16);
    peer_pattern(payload + 16, count, off);
    peer_reply(p->rig->peer, msg, payload, 16 + count);
}

static void hammer_release(HammerPeer *p)
{
    while (p->nr_held) {
        PeerMessage *msg = &p->held[--p->nr_held];

        hammer_answer(p, msg);
        peer_drop(msg);
    }
}

static void hammer_message(HammerPeer *p, PeerMessage *msg)
{
    uint64_t off;

    switch (msg->command) {
    case CMD_REGION_WRITE:
        memcpy(&off, msg->payload, 8);
        rig_check_post(msg, off, 8);
        /* A thread's own posts come in its order. */
        g_assert_cmpint(off, >=, p->last_post[off / 100000]);
        p->last_post[off / 100000] = off;
        p->posts++;
        break;
    case CMD_REGION_READ:
        p->reads++;
        p->held[p->nr_held++] = *msg;
        if (p->reads % 4 == 0) {
            rig_send_dma(p->rig, p->dma_sent, CMD_DMA_WRITE,
                         65536 * (p->dma_sent % 8), 3000, p->dma_sent);
            p->dma_sent++;
        }
        return;
    default:
        g_assert_cmpint(msg->command, ==, CMD_DMA_WRITE);
        g_assert_cmpint(msg->id, ==, p->dma_replies);
        p->dma_replies++;
        break;
    }
    peer_drop(msg);
}

/* Serve until @nr reads came; up to three are held and answered backwards. */
static void hammer_serve(HammerPeer *p, unsigned nr)
{
    while (p->reads < nr || p->dma_replies < p->dma_sent) {
        PeerMessage msg;

        if (p->nr_held == 3 || !peer_readable(p->rig->peer)) {
            hammer_release(p);
        }
        peer_get(p->rig->peer, &msg);
        hammer_message(p, &msg);
    }
    hammer_release(p);
}

static void hammer(bool started, void (*make)(int fd[2]))
{
    Rig *rig = started ? rig_new_started(make) : rig_new(make);
    g_autofree Hammer *h = g_new0(Hammer, NR_THREADS);
    HammerPeer p = { .rig = rig };

    for (int i = 0; i < NR_THREADS; i++) {
        h[i].rig = rig;
        h[i].index = i;
        peer_thread_start(&h[i].thread, hammer_thread, &h[i]);
    }
    hammer_serve(&p, NR_THREADS * NR_ROUNDS);
    for (int i = 0; i < NR_THREADS; i++) {
        peer_thread_join(&h[i].thread);
    }
    g_assert_cmpint(p.posts, ==, NR_THREADS * NR_ROUNDS / 5);
    rig_check_alive(rig);
    rig_free(rig);
}

static void test_hammer(void)
{
    hammer(true, peer_pair);
    hammer(false, peer_pair);
}

static void test_hammer_small(void)
{
    hammer(true, peer_small_pair);
    hammer(false, peer_small_pair);
}

/* The same while requests give up and their replies come late. */
static void late_thread(void *opaque)
{
    Hammer *h = opaque;

    hammer_thread(h);
    /* Tells the peer that this thread is done. */
    g_assert_cmpint(rig_post(h->rig, h->index * 100000 + 99999, 8, 0), ==, 0);
}

static void test_hammer_late(void)
{
    Rig *rig = rig_new_started(peer_pair);
    g_autofree Hammer *h = g_new0(Hammer, NR_THREADS);
    g_autofree PeerMessage *held = g_new0(PeerMessage, 128);
    unsigned nr_held = 0, threads = NR_THREADS, nr = 0;
    HammerPeer p = { .rig = rig };

    for (int i = 0; i < NR_THREADS; i++) {
        h[i].rig = rig;
        h[i].index = i;
        h[i].timeout_ms = i % 2 ? 1 : 0;
        peer_thread_start(&h[i].thread, late_thread, &h[i]);
    }
    while (threads) {
        PeerMessage msg;
        uint64_t off;

        peer_get(rig->peer, &msg);
        memcpy(&off, msg.payload, 8);
        if (msg.command == CMD_REGION_WRITE) {
            threads -= off % 100000 == 99999;
            peer_drop(&msg);
        } else if (off / 100000 % 2 && ++nr % 3) {
            /* One that gives up soon: answered later */
            held[nr_held++] = msg;
        } else {
            hammer_answer(&p, &msg);
            peer_drop(&msg);
        }
        if (nr_held == 20 || (!threads && nr_held)) {
            while (nr_held) {
                nr_held--;
                hammer_answer(&p, &held[nr_held]);
                peer_drop(&held[nr_held]);
            }
        }
    }
    for (int i = 0; i < NR_THREADS; i++) {
        peer_thread_join(&h[i].thread);
        g_assert_true(i % 2 || !h[i].nr_timeouts);
    }
    rig_check_alive(rig);
    rig_free(rig);
}

/* The server goes in the middle of it: every thread comes back. */
static void lost_thread(void *opaque)
{
    Hammer *h = opaque;
    int ret;

    do {
        Call call;

        call_init(&call, h->rig, h->index, 100);
        ret = vfio_user_conn_call(h->rig->conn, &call.req);
        if (!ret) {
            call_check_good(&call);
        }
        call_free(&call);
    } while (!ret);
    g_assert_cmpint(ret, ==, -EPIPE);
    g_assert_cmpint(rig_post(h->rig, 1, 8, 0), ==, -EPIPE);
}

static void test_hammer_lost(void)
{
    for (int round = 0; round < 20; round++) {
        Rig *rig = round % 2 ? rig_new(peer_pair) : rig_new_started(peer_pair);
        g_autofree Hammer *h = g_new0(Hammer, NR_THREADS);
        HammerPeer p = { .rig = rig };

        for (int i = 0; i < NR_THREADS; i++) {
            h[i].rig = rig;
            h[i].index = i;
            peer_thread_start(&h[i].thread, lost_thread, &h[i]);
        }
        hammer_serve(&p, 20 + round);
        rig_close_peer(rig);
        for (int i = 0; i < NR_THREADS; i++) {
            peer_thread_join(&h[i].thread);
        }
        rig_wait_failed(rig, "");
        rig_free(rig);
    }
}

/* Closed by its owner instead */
static void test_hammer_closed(void)
{
    for (int round = 0; round < 20; round++) {
        Rig *rig = round % 2 ? rig_new(peer_pair) : rig_new_started(peer_pair);
        g_autofree Hammer *h = g_new0(Hammer, NR_THREADS);
        HammerPeer p = { .rig = rig };

        for (int i = 0; i < NR_THREADS; i++) {
            h[i].rig = rig;
            h[i].index = i;
            peer_thread_start(&h[i].thread, lost_thread, &h[i]);
        }
        hammer_serve(&p, 20 + round);
        if (round % 4 < 2) {
            vfio_user_conn_close(rig->conn);
        } else {
            vfio_user_conn_stop(rig->conn);
        }
        for (int i = 0; i < NR_THREADS; i++) {
            peer_thread_join(&h[i].thread);
        }
        rig_free(rig);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/load/" name, func)
    T("post/order", test_post_order);
    T("post/full", test_post_full);
    T("post/waits", test_post_waits);
    T("post/beside-wait", test_post_beside_wait);
    T("post/before-others", test_post_before_others);
    T("request-full", test_request_full);
    T("two-way/full", test_two_way_full);
    T("two-way/large", test_two_way_large);
    T("hammer/normal", test_hammer);
    T("hammer/small", test_hammer_small);
    T("hammer/late", test_hammer_late);
    T("hammer/lost", test_hammer_lost);
    T("hammer/closed", test_hammer_closed);

    return g_test_run();
}
