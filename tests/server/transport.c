/*
 * vfio-user test server: whole messages on a socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Descriptors travel with the first byte of their message, so they are taken
 * from whichever recvmsg() brings the header. A message that has begun must
 * be whole before the deadline; a client that stops in its middle is at fault.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <fcntl.h>
#include "internal.h"

/* Above every legal message: 1 MiB of data is the usual limit. */
#define TS_MAX_MESSAGE  (64u * 1024 * 1024)

void ts_message_init(TsMessage *msg)
{
    memset(msg, 0, sizeof(*msg));
    msg->payload = g_byte_array_new();
}

void ts_message_clear(TsMessage *msg)
{
    for (unsigned i = 0; i < msg->nr_fds; i++) {
        if (msg->fds[i] >= 0) {
            close(msg->fds[i]);
        }
    }
    msg->nr_fds = 0;
    if (msg->payload) {
        g_byte_array_unref(msg->payload);
        msg->payload = NULL;
    }
}

int ts_message_take_fd(TsMessage *msg, unsigned i)
{
    int fd = -1;

    if (i < msg->nr_fds) {
        fd = msg->fds[i];
        msg->fds[i] = -1;
    }
    return fd;
}

void ts_message_add_fd(TsMessage *msg, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    g_assert(copy >= 0 && msg->nr_fds < TS_MAX_FDS);
    msg->fds[msg->nr_fds++] = copy;
}

static int transport_wait(int fd, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd pfd = { .fd = fd, .events = events };
        int64_t left = (deadline - g_get_monotonic_time() + 999) / 1000;
        int ret = poll(&pfd, 1, left > 0 ? left : 0);

        if (ret > 0) {
            return 0;
        }
        if (ret == 0) {
            return ETIMEDOUT;
        }
        if (errno != EINTR) {
            return errno;
        }
    }
}

bool ts_message_pending(TestServer *s, int ms)
{
    return transport_wait(s->conn_fd, POLLIN, ts_deadline(ms)) == 0;
}

/* Puts @fds into @mh, whose control data goes to @control. */
static void transport_add_fds(struct msghdr *mh, void *control,
                              const int *fds, unsigned nr_fds)
{
    struct cmsghdr *cmsg;

    mh->msg_control = control;
    mh->msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
    memset(control, 0, mh->msg_controllen);
    cmsg = CMSG_FIRSTHDR(mh);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
}

/* Both parts, the second of which may be empty; @fds on the first byte. */
static int transport_send_parts(int fd, struct iovec iov[2], const int *fds,
                                unsigned nr_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * TS_MAX_FDS)];
    } control;
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool first = true;

    while (iov[0].iov_len || iov[1].iov_len) {
        struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
        ssize_t ret;

        if (first && nr_fds > 0) {
            transport_add_fds(&mh, &control, fds, nr_fds);
        }
        ret = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (ret >= 0) {
            for (unsigned i = 0; i < 2; i++) {
                size_t n = MIN((size_t)ret, iov[i].iov_len);

                iov[i].iov_base = (char *)iov[i].iov_base + n;
                iov[i].iov_len -= n;
                ret -= n;
            }
            first = false;
        } else if (errno == EAGAIN) {
            int err = transport_wait(fd, POLLOUT, deadline);

            if (err) {
                return err;
            }
        } else if (errno != EINTR) {
            return ENOTCONN;
        }
    }
    return 0;
}

int ts_transport_send_raw(TestServer *s, int fd, const void *buf, size_t len,
                          const int *fds, unsigned nr_fds)
{
    struct iovec iov[2] = { { (void *)buf, len }, { NULL, 0 } };

    (void)s;
    return transport_send_parts(fd, iov, fds, nr_fds);
}

GByteArray *ts_transport_flatten(TsMessage *msg)
{
    GByteArray *bytes = g_byte_array_new();

    g_byte_array_append(bytes, (const guint8 *)&msg->hdr, sizeof(msg->hdr));
    if (msg->payload->len) {
        g_byte_array_append(bytes, msg->payload->data, msg->payload->len);
    }
    return bytes;
}

int ts_transport_send(TestServer *s, int fd, TsMessage *msg)
{
    struct iovec iov[2] = {
        { &msg->hdr, sizeof(msg->hdr) },
        { msg->payload->data, msg->payload->len },
    };

    (void)s;
    msg->hdr.size = sizeof(msg->hdr) + msg->payload->len;
    return transport_send_parts(fd, iov, msg->fds, msg->nr_fds);
}

static int transport_take_fds(struct msghdr *mh, TsMessage *msg)
{
    struct cmsghdr *cmsg;

    for (cmsg = CMSG_FIRSTHDR(mh); cmsg; cmsg = CMSG_NXTHDR(mh, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET &&
            cmsg->cmsg_type == SCM_RIGHTS) {
            unsigned nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            int fds[TS_MAX_FDS];

            memcpy(fds, CMSG_DATA(cmsg), nr * sizeof(int));
            for (unsigned i = 0; i < nr; i++) {
                if (msg->nr_fds < TS_MAX_FDS) {
                    msg->fds[msg->nr_fds++] = fds[i];
                } else {
                    close(fds[i]);
                }
            }
        }
    }
    return mh->msg_flags & MSG_CTRUNC ? EPROTO : 0;
}

/* Reads @len bytes; the end of the stream is ENOTCONN. */
static int transport_receive_bytes(int fd, void *buf, size_t len,
                                   TsMessage *msg, int64_t deadline)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * TS_MAX_FDS)];
    } control;
    size_t got = 0;

    while (got < len) {
        struct iovec iov = { (char *)buf + got, len - got };
        struct msghdr mh = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = &control, .msg_controllen = sizeof(control),
        };
        ssize_t ret = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        int err = 0;

        if (ret > 0) {
            got += ret;
            err = transport_take_fds(&mh, msg);
        } else if (ret == 0) {
            err = ENOTCONN;
        } else if (errno == EAGAIN) {
            err = transport_wait(fd, POLLIN, deadline);
        } else if (errno != EINTR) {
            err = ENOTCONN;
        }
        if (err) {
            return err;
        }
    }
    return 0;
}

int ts_transport_receive(TestServer *s, int fd, TsMessage *msg)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    uint32_t len;
    int err;

    (void)s;
    ts_message_init(msg);
    err = transport_receive_bytes(fd, &msg->hdr, sizeof(msg->hdr), msg,
                                  deadline);
    if (!err) {
        len = msg->hdr.size - sizeof(msg->hdr);
        if (msg->hdr.size < sizeof(msg->hdr) ||
            msg->hdr.size > TS_MAX_MESSAGE) {
            err = EPROTO;
        } else {
            g_byte_array_set_size(msg->payload, len);
            err = transport_receive_bytes(fd, msg->payload->data, len, msg,
                                          deadline);
        }
    }
    if (err) {
        ts_message_clear(msg);
    }
    return err;
}
