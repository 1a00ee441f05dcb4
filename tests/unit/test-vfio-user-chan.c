/*
 * vfio-user: bytes and descriptors on one socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "hw/vfio-user/chan.h"
#include "vfio-user-peer.h"

typedef struct Pair {
    VFIOUserChan chan;
    int peer;
} Pair;

static Pair *pair_new(void (*make)(int fd[2]))
{
    Pair *p = g_new(Pair, 1);
    int fd[2];

    make(fd);
    vfio_user_chan_init(&p->chan, fd[0]);
    p->peer = fd[1];
    return p;
}

static void pair_free(Pair *p)
{
    vfio_user_chan_cleanup(&p->chan);
    close(p->peer);
    g_free(p);
}

/* Receive into the buffer until @len bytes are there. */
static void fill_to(VFIOUserChan *chan, size_t len)
{
    while (vfio_user_chan_buffered(chan) < len) {
        g_assert_cmpint(vfio_user_chan_fill(chan), >, 0);
    }
}

/* The next @len bytes are those of peer_pattern(). */
static void take_pattern(VFIOUserChan *chan, size_t len, unsigned seed)
{
    g_autofree uint8_t *buf = g_malloc(len);

    fill_to(chan, len);
    vfio_user_chan_peek(chan, buf, len);
    peer_check_pattern(buf, len, seed);
    vfio_user_chan_consume(chan, len);
}

static void send_pattern(Pair *p, size_t len, unsigned seed, unsigned nr_fds)
{
    g_autofree uint8_t *buf = g_malloc(len);
    int fds[PEER_MAX_FDS];

    peer_pattern(buf, len, seed);
    peer_open_fds(fds, nr_fds);
    peer_send_fds(p->peer, buf, len, fds, nr_fds);
    peer_close_fds(fds, nr_fds);
}

static void check_fds(VFIOUserChan *chan, unsigned nr)
{
    int fds[VFIO_USER_MAX_MSG_FDS];

    g_assert_cmpint(vfio_user_chan_take_fds(chan, fds, ARRAY_SIZE(fds)), ==,
                    nr);
    peer_close_fds(fds, nr);
}

/* Receiving ---------------------------------------------------------------- */

static void test_recv_whole(void)
{
    Pair *p = pair_new(peer_pair);

    g_assert_cmpint(vfio_user_chan_fill(&p->chan), ==, -EAGAIN);
    send_pattern(p, 48, 1, 2);
    g_assert_cmpint(vfio_user_chan_fill(&p->chan), ==, 48);
    take_pattern(&p->chan, 48, 1);
    check_fds(&p->chan, 2);
    check_fds(&p->chan, 0);
    g_assert_cmpint(vfio_user_chan_fill(&p->chan), ==, -EAGAIN);
    pair_free(p);
}

static void test_recv_cloexec_nonblocking(void)
{
    Pair *p = pair_new(peer_pair);
    int fd, flags;

    g_assert_true(fcntl(p->chan.fd, F_GETFL) & O_NONBLOCK);
    send_pattern(p, 16, 1, 1);
    take_pattern(&p->chan, 16, 1);
    g_assert_cmpint(vfio_user_chan_take_fds(&p->chan, &fd, 1), ==, 1);
    g_assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);

    /* The open file is the server's as well: it stays as it was. */
    fd = open("/dev/null", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    peer_send_fds(p->peer, "x", 1, &fd, 1);
    fill_to(&p->chan, 1);
    vfio_user_chan_consume(&p->chan, 1);
    close(fd);
    g_assert_cmpint(vfio_user_chan_take_fds(&p->chan, &fd, 1), ==, 1);
    flags = fcntl(fd, F_GETFL);
    g_assert_true(flags & O_NONBLOCK);
    close(fd);
    pair_free(p);
}

/* A message in two pieces, descriptors on the first or on the second */
static void split_at(size_t at, bool late)
{
    Pair *p = pair_new(peer_pair);
    uint8_t buf[40];
    int fds[3];

    peer_pattern(buf, sizeof(buf), 5);
    peer_open_fds(fds, 3);
    peer_send_fds(p->peer, buf, at, fds, late ? 0 : 3);
    fill_to(&p->chan, at);
    peer_send_fds(p->peer, buf + at, sizeof(buf) - at, fds, late ? 3 : 0);
    peer_close_fds(fds, 3);
    take_pattern(&p->chan, sizeof(buf), 5);
    check_fds(&p->chan, 3);
    pair_free(p);
}

static void test_recv_split(void)
{
    for (size_t at = 1; at < 40; at++) {
        split_at(at, false);
        split_at(at, true);
    }
}

static void test_recv_two_fds_second(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 24, 1, 0);
    send_pattern(p, 32, 2, 2);
    fill_to(&p->chan, 24 + 32);
    take_pattern(&p->chan, 24, 1);
    check_fds(&p->chan, 0);
    take_pattern(&p->chan, 32, 2);
    check_fds(&p->chan, 2);
    pair_free(p);
}

static void test_recv_two_fds_first(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 24, 1, 2);
    send_pattern(p, 32, 2, 0);
    fill_to(&p->chan, 24 + 32);
    take_pattern(&p->chan, 24, 1);
    check_fds(&p->chan, 2);
    take_pattern(&p->chan, 32, 2);
    check_fds(&p->chan, 0);
    pair_free(p);
}

static void test_recv_two_fds_both(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 24, 1, 3);
    send_pattern(p, 32, 2, 5);
    fill_to(&p->chan, 24 + 32);
    take_pattern(&p->chan, 24, 1);
    check_fds(&p->chan, 3);
    take_pattern(&p->chan, 32, 2);
    check_fds(&p->chan, 5);
    pair_free(p);
}

static void test_recv_straight(void)
{
    Pair *p = pair_new(peer_pair);
    uint8_t a[10], b[30], whole[40];
    struct iovec iov[2] = { { a, sizeof(a) }, { b, sizeof(b) } };

    /* No more than asked for, the next message stays in the socket. */
    send_pattern(p, 40, 3, 1);
    send_pattern(p, 16, 4, 0);
    g_assert_cmpint(vfio_user_chan_recv(&p->chan, iov, 2), ==, 40);
    memcpy(whole, a, sizeof(a));
    memcpy(whole + sizeof(a), b, sizeof(b));
    peer_check_pattern(whole, sizeof(whole), 3);
    check_fds(&p->chan, 1);
    take_pattern(&p->chan, 16, 4);
    pair_free(p);
}

static void test_recv_larger_than_buffer(void)
{
    Pair *p = pair_new(peer_pair);
    size_t len = VFIO_USER_CHAN_BUF + 100;
    g_autofree uint8_t *buf = g_malloc(len);
    size_t got = 0;

    send_pattern(p, len, 6, 2);
    while (got < len) {
        size_t part;

        g_assert_cmpint(vfio_user_chan_fill(&p->chan), >, 0);
        part = vfio_user_chan_buffered(&p->chan);
        vfio_user_chan_peek(&p->chan, buf + got, part);
        vfio_user_chan_consume(&p->chan, part);
        got += part;
    }
    g_assert_cmpint(got, ==, len);
    peer_check_pattern(buf, len, 6);
    check_fds(&p->chan, 2);
    pair_free(p);
}

static void test_recv_surplus_closed(void)
{
    Pair *p = pair_new(peer_pair);
    unsigned before;
    int fd;

    send_pattern(p, 16, 1, 4);
    before = peer_count_fds();
    take_pattern(&p->chan, 16, 1);
    g_assert_cmpint(peer_count_fds(), ==, before + 4);
    g_assert_cmpint(vfio_user_chan_take_fds(&p->chan, &fd, 1), ==, 4);
    g_assert_cmpint(peer_count_fds(), ==, before + 1);
    g_assert_false(p->chan.lost_fds);
    close(fd);
    pair_free(p);
}

static void test_recv_most_fds(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 16, 1, 16);
    take_pattern(&p->chan, 16, 1);
    g_assert_false(p->chan.lost_fds);
    check_fds(&p->chan, 16);
    pair_free(p);
}

/*
 * A socket that somebody else opened may be one that tells with each message
 * who sent it. Nobody asks here, and it would take the descriptors' room.
 */
static void pair_with_credentials(int fd[2])
{
    const int on = 1;

    peer_pair(fd);
    g_assert_cmpint(setsockopt(fd[0], SOL_SOCKET, SO_PASSCRED, &on,
                               sizeof(on)), ==, 0);
}

static void test_recv_credentials(void)
{
    Pair *p = pair_new(pair_with_credentials);

    send_pattern(p, 16, 1, 16);
    take_pattern(&p->chan, 16, 1);
    g_assert_false(p->chan.lost_fds);
    check_fds(&p->chan, 16);
    pair_free(p);
}

/* More in one receive than the room for control data: MSG_CTRUNC */
static void test_recv_truncated(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 16, 1, 17);
    fill_to(&p->chan, 16);
    g_assert_true(p->chan.lost_fds);
    pair_free(p);
}

/* More for one message than there is room for, in several receives */
static void test_recv_too_many(void)
{
    Pair *p = pair_new(peer_pair);
    unsigned before = peer_count_fds();

    send_pattern(p, 8, 1, 10);
    send_pattern(p, 8, 1, 10);
    fill_to(&p->chan, 16);
    g_assert_true(p->chan.lost_fds);
    g_assert_cmpint(peer_count_fds(), ==, before + 16);
    pair_free(p);
}

static void test_recv_eof(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 10, 1, 1);
    shutdown(p->peer, SHUT_WR);
    take_pattern(&p->chan, 10, 1);
    g_assert_cmpint(vfio_user_chan_fill(&p->chan), ==, 0);
    pair_free(p);
}

static void test_recv_reset(void)
{
    Pair *p = pair_new(peer_pair);
    VFIOUserTx tx = { .nr_iov = 1 };
    uint8_t byte = 0;

    tx.iov[0] = (struct iovec) { &byte, 1 };
    g_assert_cmpint(vfio_user_chan_send(&p->chan, &tx), ==, 0);
    /* What it did not read makes its close() an error for us. */
    close(p->peer);
    g_assert_cmpint(vfio_user_chan_fill(&p->chan), ==, -ECONNRESET);
    p->peer = -1;
    vfio_user_chan_cleanup(&p->chan);
    g_free(p);
}

/* The guard counts what cleanup forgets. */
static void test_cleanup_closes(void)
{
    Pair *p = pair_new(peer_pair);

    send_pattern(p, 16, 1, 3);
    send_pattern(p, 16, 2, 4);
    fill_to(&p->chan, 32);
    pair_free(p);
}

/* Sending ------------------------------------------------------------------ */

static void test_send_fds(void)
{
    Pair *p = pair_new(peer_pair);
    g_autofree uint8_t *m = NULL;
    PeerMessage got;
    VFIOUserTx tx = { .nr_iov = 2, .nr_fds = 2 };
    uint8_t payload[20];
    int fds[2];

    peer_pattern(payload, sizeof(payload), 9);
    m = peer_make(0x1234, 2, PEER_COMMAND, 0, payload, sizeof(payload));
    peer_open_fds(fds, 2);
    tx.iov[0] = (struct iovec) { m, 16 };
    tx.iov[1] = (struct iovec) { m + 16, sizeof(payload) };
    tx.fds = fds;
    g_assert_cmpint(vfio_user_chan_send(&p->chan, &tx), ==, 0);
    peer_close_fds(fds, 2);

    peer_get(p->peer, &got);
    g_assert_cmpint(got.id, ==, 0x1234);
    g_assert_cmpint(got.size, ==, 36);
    g_assert_cmpmem(got.payload, got.len, payload, sizeof(payload));
    g_assert_cmpint(got.nr_fds, ==, 2);
    peer_drop(&got);
    pair_free(p);
}

/* What the socket does not take is resumed, its descriptors go once. */
static void test_send_resumed(void)
{
    Pair *p = pair_new(peer_small_pair);
    size_t len = 100000;
    g_autofree uint8_t *payload = g_malloc(len);
    g_autofree uint8_t *m = NULL;
    g_autofree uint8_t *got = g_malloc(16 + len);
    VFIOUserTx tx = { .nr_iov = 0, .nr_fds = 1 };
    size_t at = 0, received = 0;
    unsigned stops = 0;
    PeerMessage none = { };
    int fd, ret;

    peer_pattern(payload, len, 2);
    m = peer_make(7, 10, PEER_COMMAND, 0, payload, len);
    while (at < 16 + len) {
        size_t part = MIN(16 + len - at, 3333);

        tx.iov[tx.nr_iov++] = (struct iovec) { m + at, part };
        at += part;
    }
    peer_open_fds(&fd, 1);
    tx.fds = &fd;

    do {
        ret = vfio_user_chan_send(&p->chan, &tx);
        g_assert_true(ret == 0 || ret == -EAGAIN);
        stops += ret == -EAGAIN;
        g_assert_cmpint(tx.nr_fds, ==, 0);
        for (;;) {
            struct iovec iov = { got + received, 16 + len - received };
            union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * 4)];
            } control;
            struct msghdr msg = {
                .msg_iov = &iov, .msg_iovlen = 1,
                .msg_control = &control, .msg_controllen = sizeof(control),
            };
            ssize_t n = recvmsg(p->peer, &msg, MSG_CMSG_CLOEXEC);

            if (n <= 0) {
                break;
            }
            if (msg.msg_controllen) {
                g_assert_cmpint(received, ==, 0);
                memcpy(none.fds + none.nr_fds++,
                       CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
            }
            received += n;
        }
    } while (ret);

    g_assert_cmpint(stops, >, 0);
    g_assert_cmpmem(got, received, m, 16 + len);
    g_assert_cmpint(none.nr_fds, ==, 1);
    peer_drop(&none);
    close(fd);
    pair_free(p);
}

static void test_send_full(void)
{
    Pair *p = pair_new(peer_small_pair);
    uint8_t buf[512];
    unsigned sent = 0;
    VFIOUserTx tx;
    int ret;

    peer_pattern(buf, sizeof(buf), 1);
    do {
        tx.nr_iov = 1;
        tx.nr_fds = 0;
        tx.iov[0] = (struct iovec) { buf, sizeof(buf) };
        ret = vfio_user_chan_send(&p->chan, &tx);
        sent += !ret;
    } while (!ret);
    g_assert_cmpint(ret, ==, -EAGAIN);
    g_assert_cmpint(sent, >, 0);
    pair_free(p);
}

static void test_send_closed(void)
{
    Pair *p = pair_new(peer_pair);
    VFIOUserTx tx = { .nr_iov = 1 };
    uint8_t byte = 0;

    /* No SIGPIPE either, it would end the test. */
    shutdown(p->peer, SHUT_RDWR);
    tx.iov[0] = (struct iovec) { &byte, 1 };
    g_assert_cmpint(vfio_user_chan_send(&p->chan, &tx), ==, -EPIPE);
    pair_free(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    peer_add_test("/vfio-user/chan/recv/whole", test_recv_whole);
    peer_add_test("/vfio-user/chan/recv/fd-flags",
                  test_recv_cloexec_nonblocking);
    peer_add_test("/vfio-user/chan/recv/split", test_recv_split);
    peer_add_test("/vfio-user/chan/recv/two-fds-second",
                  test_recv_two_fds_second);
    peer_add_test("/vfio-user/chan/recv/two-fds-first",
                  test_recv_two_fds_first);
    peer_add_test("/vfio-user/chan/recv/two-fds-both",
                  test_recv_two_fds_both);
    peer_add_test("/vfio-user/chan/recv/straight", test_recv_straight);
    peer_add_test("/vfio-user/chan/recv/larger-than-buffer",
                  test_recv_larger_than_buffer);
    peer_add_test("/vfio-user/chan/recv/surplus-closed",
                  test_recv_surplus_closed);
    peer_add_test("/vfio-user/chan/recv/most-fds", test_recv_most_fds);
    peer_add_test("/vfio-user/chan/recv/credentials", test_recv_credentials);
    peer_add_test("/vfio-user/chan/recv/truncated", test_recv_truncated);
    peer_add_test("/vfio-user/chan/recv/too-many", test_recv_too_many);
    peer_add_test("/vfio-user/chan/recv/eof", test_recv_eof);
    peer_add_test("/vfio-user/chan/recv/reset", test_recv_reset);
    peer_add_test("/vfio-user/chan/cleanup-closes", test_cleanup_closes);
    peer_add_test("/vfio-user/chan/send/fds", test_send_fds);
    peer_add_test("/vfio-user/chan/send/resumed", test_send_resumed);
    peer_add_test("/vfio-user/chan/send/full", test_send_full);
    peer_add_test("/vfio-user/chan/send/closed", test_send_closed);

    return g_test_run();
}
