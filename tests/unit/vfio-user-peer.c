/*
 * vfio-user: the other end of a connection under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <dirent.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include "vfio-user-peer.h"

/* A test that needs longer than this hangs. */
#define TEST_DEADLINE_S     60

/* Sockets ------------------------------------------------------------------ */

void peer_pair(int fd[2])
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd),
                    ==, 0);
    g_unix_set_fd_nonblocking(fd[1], true, NULL);
}

void peer_small_pair(int fd[2])
{
    int size = 1;

    peer_pair(fd);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &size,
                                   sizeof(size)), ==, 0);
    }
}

static void peer_wait(int fd, short events, int64_t deadline)
{
    int64_t left = deadline - g_get_monotonic_time() / 1000;
    struct pollfd pfd = { .fd = fd, .events = events };
    int ret = RETRY_ON_EINTR(poll(&pfd, 1, MAX(left, 0)));

    g_assert_cmpint(ret, ==, 1);
}

static int64_t peer_deadline(void)
{
    return g_get_monotonic_time() / 1000 + PEER_DEADLINE_MS;
}

void peer_send_fds(int fd, const void *buf, size_t len, const int *fds,
                   unsigned nr_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * PEER_MAX_FDS)];
    } control = { };
    int64_t deadline = peer_deadline();
    size_t done = 0;

    while (done < len) {
        struct iovec iov = { (uint8_t *)buf + done, len - done };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t ret;

        if (nr_fds) {
            struct cmsghdr *cmsg;

            msg.msg_control = &control;
            msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
            cmsg = CMSG_FIRSTHDR(&msg);
            cmsg->cmsg_level = SOL_SOCKET;
            cmsg->cmsg_type = SCM_RIGHTS;
            cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
            memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
        }
        ret = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (ret < 0 && (errno == EAGAIN || errno == EINTR)) {
            peer_wait(fd, POLLOUT, deadline);
            continue;
        }
        g_assert_cmpint(ret, >, 0);
        done += ret;
        nr_fds = 0;
    }
}

void peer_send_bytes(int fd, const void *buf, size_t len)
{
    peer_send_fds(fd, buf, len, NULL, 0);
}

/* Receive exactly @len bytes and whatever descriptors come along. */
static void peer_recv(int fd, void *buf, size_t len, PeerMessage *m)
{
    int64_t deadline = peer_deadline();
    size_t done = 0;

    while (done < len) {
        union {
            struct cmsghdr align;
            char space[CMSG_SPACE(sizeof(int) * PEER_MAX_FDS)];
        } control;
        struct iovec iov = { (uint8_t *)buf + done, len - done };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = &control, .msg_controllen = sizeof(control),
        };
        struct cmsghdr *cmsg;
        ssize_t ret = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

        if (ret < 0 && (errno == EAGAIN || errno == EINTR)) {
            peer_wait(fd, POLLIN, deadline);
            continue;
        }
        g_assert_cmpint(ret, >, 0);
        done += ret;
        for (cmsg = CMSG_FIRSTHDR(&msg); cmsg;
             cmsg = CMSG_NXTHDR(&msg, cmsg)) {
            size_t nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            g_assert_cmpint(cmsg->cmsg_type, ==, SCM_RIGHTS);
            g_assert_cmpint(m->nr_fds + nr, <=, PEER_MAX_FDS);
            memcpy(m->fds + m->nr_fds, CMSG_DATA(cmsg), nr * sizeof(int));
            m->nr_fds += nr;
        }
    }
}

void peer_recv_bytes(int fd, void *buf, size_t len)
{
    PeerMessage none = { };

    peer_recv(fd, buf, len, &none);
    g_assert_cmpint(none.nr_fds, ==, 0);
}

bool peer_readable(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return RETRY_ON_EINTR(poll(&pfd, 1, 0)) == 1;
}

void peer_wait_readable(int fd)
{
    peer_wait(fd, POLLIN, peer_deadline());
}

void peer_wait_taken(int fd)
{
    int64_t deadline = peer_deadline();
    int left;

    for (;;) {
        g_assert_cmpint(ioctl(fd, SIOCOUTQ, &left), ==, 0);
        if (!left) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time() / 1000, <, deadline);
        poll(NULL, 0, 1);
    }
}

void peer_wait_eof(int fd)
{
    uint8_t byte;

    peer_wait(fd, POLLIN, peer_deadline());
    g_assert_cmpint(recv(fd, &byte, 1, 0), <=, 0);
}

/* Messages: id 0, command 2, size 4, flags 8, error 12; 16 bytes ----------- */

uint8_t *peer_make(uint16_t id, uint16_t command, uint32_t flags,
                   uint32_t error, const void *payload, size_t len)
{
    uint8_t *m = g_malloc(16 + len);
    uint32_t size = 16 + len;

    memcpy(m, &id, 2);
    memcpy(m + 2, &command, 2);
    memcpy(m + 4, &size, 4);
    memcpy(m + 8, &flags, 4);
    memcpy(m + 12, &error, 4);
    if (len) {
        memcpy(m + 16, payload, len);
    }
    return m;
}

/* DMA_READ, DMA_WRITE: u64 address, u64 count, data */
uint8_t *peer_make_dma(uint64_t addr, uint64_t count, const void *data,
                       size_t len)
{
    uint8_t *p = g_malloc(16 + len);

    memcpy(p, &addr, 8);
    memcpy(p + 8, &count, 8);
    if (len) {
        memcpy(p + 16, data, len);
    }
    return p;
}

void peer_send(int fd, uint16_t id, uint16_t command, uint32_t flags,
               uint32_t error, const void *payload, size_t len)
{
    g_autofree uint8_t *m = peer_make(id, command, flags, error, payload, len);

    peer_send_bytes(fd, m, 16 + len);
}

void peer_send_dma(int fd, uint16_t id, uint16_t command, uint32_t flags,
                   uint64_t addr, uint64_t count, const void *data,
                   size_t len)
{
    g_autofree uint8_t *p = peer_make_dma(addr, count, data, len);

    peer_send(fd, id, command, flags, 0, p, 16 + len);
}

void peer_reply(int fd, const PeerMessage *to, const void *payload, size_t len)
{
    peer_send(fd, to->id, to->command, PEER_REPLY, 0, payload, len);
}

void peer_get(int fd, PeerMessage *msg)
{
    uint8_t h[16];

    *msg = (PeerMessage) { };
    peer_recv(fd, h, sizeof(h), msg);
    memcpy(&msg->id, h, 2);
    memcpy(&msg->command, h + 2, 2);
    memcpy(&msg->size, h + 4, 4);
    memcpy(&msg->flags, h + 8, 4);
    memcpy(&msg->error, h + 12, 4);
    g_assert_cmpint(msg->size, >=, 16);
    msg->len = msg->size - 16;
    msg->payload = g_malloc(msg->len + 1);
    peer_recv(fd, msg->payload, msg->len, msg);
}

void peer_drop(PeerMessage *msg)
{
    peer_close_fds(msg->fds, msg->nr_fds);
    g_clear_pointer(&msg->payload, g_free);
    msg->nr_fds = 0;
}

void peer_expect(int fd, uint16_t id, uint16_t command, uint32_t flags,
                 uint32_t error, const void *payload, size_t len)
{
    PeerMessage m;

    peer_get(fd, &m);
    g_assert_cmpint(m.id, ==, id);
    g_assert_cmpint(m.command, ==, command);
    g_assert_cmphex(m.flags, ==, flags);
    g_assert_cmpint(m.error, ==, error);
    g_assert_cmpmem(m.payload, m.len, payload, len);
    g_assert_cmpint(m.nr_fds, ==, 0);
    peer_drop(&m);
}

void peer_pattern(void *buf, size_t len, unsigned seed)
{
    uint8_t *p = buf;

    for (size_t i = 0; i < len; i++) {
        p[i] = (i * 7 + (i >> 8) + seed * 31 + 1) & 0xff;
    }
}

void peer_check_pattern(const void *buf, size_t len, unsigned seed)
{
    g_autofree uint8_t *want = g_malloc(len + 1);

    peer_pattern(want, len, seed);
    g_assert_cmpmem(buf, len, want, len);
}

/* Descriptors -------------------------------------------------------------- */

void peer_open_fds(int *fds, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
        g_assert_cmpint(fds[i], >=, 0);
    }
}

void peer_close_fds(const int *fds, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        g_assert_cmpint(close(fds[i]), ==, 0);
    }
}

unsigned peer_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned nr = 0;

    g_assert_nonnull(dir);
    while (readdir(dir)) {
        nr++;
    }
    closedir(dir);
    return nr;
}

/* Threads and the guard ---------------------------------------------------- */

static void *peer_thread_run(void *opaque)
{
    PeerThread *t = opaque;

    t->func(t->opaque);
    qemu_sem_post(&t->done);
    return NULL;
}

void peer_thread_start(PeerThread *t, void (*func)(void *), void *opaque)
{
    t->func = func;
    t->opaque = opaque;
    qemu_sem_init(&t->done, 0);
    qemu_thread_create(&t->thread, "peer", peer_thread_run, t,
                       QEMU_THREAD_JOINABLE);
}

void peer_thread_join(PeerThread *t)
{
    g_assert_cmpint(qemu_sem_timedwait(&t->done, PEER_DEADLINE_MS), ==, 0);
    qemu_thread_join(&t->thread);
    qemu_sem_destroy(&t->done);
}

static void peer_hangs(int sig)
{
    static const char text[] = "Bail out! a test hangs\n";

    /* Async-signal-safe; the return value changes nothing any more. */
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0) {
        _exit(2);
    }
    abort();
}

static void peer_guard(const void *data)
{
    void (*func)(void) = *(void (*const *)(void))data;
    unsigned before = peer_count_fds();

    signal(SIGALRM, peer_hangs);
    alarm(TEST_DEADLINE_S);
    func();
    alarm(0);
    g_assert_cmpint(peer_count_fds(), ==, before);
}

void peer_add_test(const char *path, void (*func)(void))
{
    void (**data)(void) = g_new(typeof(func), 1);

    *data = func;
    g_test_add_data_func_full(path, data, peer_guard, g_free);
}
