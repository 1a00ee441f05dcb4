/*
 * vfio-user: a kernel that is short of something when a message is to be sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ENOBUFS, ENOMEM and ETOOMANYREFS pass, and the server is not to blame. The message
 * is sent again until its deadline, and not without a pause. The kernel's part is
 * played here: send() and sendmsg() are ours, since nothing else brings these errors
 * about at will.
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-lives.h"

#define SOON_MS     100
#define COUNT       64

/*
 * @fd: where it fails, @error: with what, @times: how often still; @tries: messages
 * that were to be sent there. Atomic but for @error.
 */
static struct {
    int fd;
    int error;
    int times;
    unsigned tries;
} kernel = { .fd = -1 };

static bool kernel_is_short(int fd)
{
    if (fd != qatomic_read(&kernel.fd)) {
        return false;
    }
    qatomic_inc(&kernel.tries);
    if (qatomic_read(&kernel.times) <= 0) {
        return false;
    }
    qatomic_dec(&kernel.times);
    errno = kernel.error;
    return true;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return kernel_is_short(fd) ? -1 : syscall(SYS_sendmsg, fd, msg, flags);
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    return kernel_is_short(fd) ? -1 :
           syscall(SYS_sendto, fd, buf, len, flags, NULL, 0);
}

/* The connection's next @times messages, or attempts to send one, fail. */
static void kernel_set(Rig *rig, int error, int times)
{
    kernel.error = error;
    qatomic_set(&kernel.tries, 0);
    qatomic_set(&kernel.times, times);
    qatomic_set(&kernel.fd, rig->conn->chan.fd);
}

static bool kernel_was_short(Rig *rig)
{
    return qatomic_read(&kernel.tries) > 0;
}

static void kernel_end(Rig *rig)
{
    qatomic_set(&kernel.fd, -1);
    rig_check_alive(rig);
    rig_free(rig);
}

static const int errors[] = { ENOBUFS, ENOMEM, ETOOMANYREFS };

/* Who waits notices nothing. */
static void test_wait(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        Rig *rig = rig_new(peer_pair);
        Call call;

        call_init(&call, rig, 0x1000, COUNT);
        kernel_set(rig, errors[i], 3);
        call_thread_start(&call);
        call_peer_serve(&call);
        call_thread_join(&call);
        call_check_good(&call);
        g_assert_cmpint(qatomic_read(&kernel.tries), ==, 4);
        call_free(&call);
        kernel_end(rig);
    }
}

/* Descriptors go along, once. */
static void test_fds(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;
    int fds[2];

    peer_open_fds(fds, ARRAY_SIZE(fds));
    call_init(&call, rig, 0x1000, COUNT);
    call.req.fds = fds;
    call.req.nr_fds = ARRAY_SIZE(fds);
    kernel_set(rig, ETOOMANYREFS, 2);
    call_thread_start(&call);
    peer_get(rig->peer, &msg);
    g_assert_cmpuint(msg.nr_fds, ==, ARRAY_SIZE(fds));
    call_peer_answer(&call, &msg);
    call_thread_join(&call);
    call_check_good(&call);
    peer_close_fds(fds, ARRAY_SIZE(fds));
    call_end(&call, &msg);
    kernel_end(rig);
}

/* It may last: the deadline passes, nothing was sent, and it was not tried madly. */
static void test_deadline(void)
{
    Rig *rig = rig_new(peer_pair);
    int64_t begin_ms = g_get_monotonic_time() / 1000, ms;
    Call call;

    call_init(&call, rig, 0x1000, COUNT);
    call.req.timeout_ms = SOON_MS;
    kernel_set(rig, ENOBUFS, INT_MAX);
    call_submit(&call);
    call_wait_ret(&call, -ETIMEDOUT);
    ms = g_get_monotonic_time() / 1000 - begin_ms;
    g_assert_cmpint(qatomic_read(&kernel.tries), >, 1);
    g_assert_cmpint(qatomic_read(&kernel.tries), <=,
                    ms / VFIO_USER_CONN_RETRY_MS + 3);
    g_assert_false(peer_readable(rig->peer));
    call_free(&call);
    kernel_end(rig);
}

static void count_done(VFIOUserRequest *req)
{
    Call *call = container_of(req, Call, req);

    QEMU_LOCK_GUARD(&call->rig->lock);
    call->rig->nr_done++;
    qemu_cond_broadcast(&call->rig->cond);
}

/* Nobody waits: the AioContext tries again. */
static void test_background(void)
{
    Rig *rig = rig_new_started(peer_pair);
    PeerMessage msg;
    Call call;

    call_init(&call, rig, 0x1000, COUNT);
    call.req.done = count_done;
    kernel_set(rig, ENOBUFS, 5);
    call_submit(&call);
    call_peer_get(&call, &msg);
    g_assert_cmpint(qatomic_read(&kernel.tries), ==, 6);
    call_peer_answer(&call, &msg);
    rig_wait_count(rig, &rig->nr_done, 1);
    call_check_good(&call);
    call_end(&call, &msg);
    kernel_end(rig);
}

/* The reply to a command of the server, and a posted write behind it */
static void test_reply(void)
{
    Rig *rig = rig_new_started(peer_pair);

    peer_pattern(rig->ram, COUNT, 3);
    kernel_set(rig, ENOMEM, 3);
    rig_send_dma(rig, 7, CMD_DMA_READ, 0, COUNT, 3);
    lives_wait(rig, kernel_was_short);
    g_assert_cmpint(rig_post(rig, 0x30, 4, 0), ==, 0);
    rig_expect_dma(rig, 7, CMD_DMA_READ, 0, COUNT, 3);
    rig_expect_post(rig, 0x30, 4);
    g_assert_cmpint(qatomic_read(&kernel.tries), >, 3);
    kernel_end(rig);
}

/* What does not pass ends it, as ever. */
static void test_for_ever(void)
{
    Rig *rig = rig_new(peer_pair);
    Call call;

    call_init(&call, rig, 0x1000, COUNT);
    kernel_set(rig, EPERM, 1);
    call_submit(&call);
    call_wait_ret(&call, -EPIPE);
    rig_wait_failed(rig, "cannot send to the server");
    qatomic_set(&kernel.fd, -1);
    call_free(&call);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/short/" name, func)
    T("wait", test_wait);
    T("descriptors", test_fds);
    T("deadline", test_deadline);
    T("background", test_background);
    T("reply", test_reply);
    T("for-ever", test_for_ever);

    return g_test_run();
}
