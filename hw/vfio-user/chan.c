/*
 * vfio-user: messages and descriptors on one socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Why not QIOChannelSocket's own readv and writev? It makes every received
 * descriptor blocking, which changes the open file that the server shares
 * with us (an eventfd it polls); it does not tell when the kernel had to drop
 * descriptors; and a region access would pay for an allocation. So QEMU's
 * code connects and this file moves the bytes.
 *
 * A receive takes what is there, up to the buffer, so that a register read
 * costs one receive for header and data together. Where the kernel delivers
 * descriptors, it ends the receive with the piece of stream that they were
 * sent with; the last byte of such a receive therefore belongs to their
 * message, whatever came before it.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "chan.h"

/*
 * Who sent a message, told with each: a socket that somebody else opened may be
 * set so. It would take the descriptors' room, or even be one more.
 */
static void vfio_user_chan_no_senders(int fd)
{
    static const int options[] = {
        SO_PASSCRED, SO_PASSSEC,
#ifdef SO_PASSPIDFD
        SO_PASSPIDFD,
#endif
    };
    const int off = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        /* Older kernels do not know them all. */
        setsockopt(fd, SOL_SOCKET, options[i], &off, sizeof(off));
    }
}

void vfio_user_chan_init(VFIOUserChan *chan, int fd)
{
    memset(chan, 0, offsetof(VFIOUserChan, buf));
    chan->fd = fd;
    vfio_user_chan_no_senders(fd);
    g_unix_set_fd_nonblocking(fd, true, NULL);
}

static void vfio_user_chan_drop_fds(VFIOUserChan *chan)
{
    for (unsigned i = 0; i < chan->nr_fds; i++) {
        close(chan->fds[i]);
    }
    chan->nr_fds = 0;
}

void vfio_user_chan_cleanup(VFIOUserChan *chan)
{
    vfio_user_chan_drop_fds(chan);
    vfio_user_record_socket_free(chan->record);
    chan->record = NULL;
    if (chan->fd >= 0) {
        close(chan->fd);
        chan->fd = -1;
    }
}

/* Keep the descriptors of one receive; close those that there is no room for */
static void vfio_user_chan_keep_fds(VFIOUserChan *chan, struct msghdr *msg)
{
    struct cmsghdr *cmsg;

    for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        size_t nr, i;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < nr; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
            if (chan->nr_fds < ARRAY_SIZE(chan->fds)) {
                chan->fd_pos[chan->nr_fds] = chan->pos;
                chan->fds[chan->nr_fds++] = fd;
            } else {
                chan->lost_fds = true;
                close(fd);
            }
        }
    }
    if (msg->msg_flags & MSG_CTRUNC) {
        chan->lost_fds = true;
    }
}

static ssize_t vfio_user_chan_recvmsg(VFIOUserChan *chan, struct iovec *iov,
                                      unsigned nr_iov)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VFIO_USER_MAX_MSG_FDS)];
    } control;
    struct msghdr msg = {
        .msg_iov = iov,
        .msg_iovlen = nr_iov,
        .msg_control = chan->no_fds ? NULL : &control,
        .msg_controllen = chan->no_fds ? 0 : sizeof(control),
    };
    unsigned had = chan->nr_fds;
    ssize_t ret;

    ret = RETRY_ON_EINTR(recvmsg(chan->fd, &msg,
                                 MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    if (ret < 0) {
        return -errno;
    }
    chan->pos += ret;
    if (!chan->no_fds &&
        (msg.msg_controllen || (msg.msg_flags & MSG_CTRUNC))) {
        vfio_user_chan_keep_fds(chan, &msg);
    }
    if (unlikely(chan->record)) {
        vfio_user_record_received(chan->record, iov, nr_iov, ret,
                                  chan->nr_fds - had);
    }
    return ret;
}

/* Without room for descriptors, which the kernel drops then. */
static ssize_t vfio_user_chan_recv_plain(VFIOUserChan *chan,
                                         const struct iovec *iov)
{
    ssize_t ret = RETRY_ON_EINTR(recv(chan->fd, iov->iov_base, iov->iov_len,
                                      MSG_DONTWAIT));

    if (ret < 0) {
        return -errno;
    }
    chan->pos += ret;
    if (unlikely(chan->record)) {
        vfio_user_record_received(chan->record, iov, 1, ret, 0);
    }
    return ret;
}

ssize_t vfio_user_chan_fill(VFIOUserChan *chan)
{
    struct iovec iov;
    ssize_t ret;

    if (chan->head) {
        memmove(chan->buf, chan->buf + chan->head,
                vfio_user_chan_buffered(chan));
        chan->tail -= chan->head;
        chan->head = 0;
    }
    iov.iov_base = chan->buf + chan->tail;
    iov.iov_len = sizeof(chan->buf) - chan->tail;
    assert(iov.iov_len);

    ret = chan->no_fds ? vfio_user_chan_recv_plain(chan, &iov)
                       : vfio_user_chan_recvmsg(chan, &iov, 1);
    if (ret > 0) {
        chan->tail += ret;
    }
    return ret;
}

ssize_t vfio_user_chan_recv(VFIOUserChan *chan, struct iovec *iov,
                            unsigned nr_iov)
{
    assert(!vfio_user_chan_buffered(chan));
    return vfio_user_chan_recvmsg(chan, iov, nr_iov);
}

void vfio_user_chan_peek(const VFIOUserChan *chan, void *to, size_t len)
{
    assert(len <= vfio_user_chan_buffered(chan));
    memcpy(to, chan->buf + chan->head, len);
}

void vfio_user_chan_consume(VFIOUserChan *chan, size_t len)
{
    assert(len <= vfio_user_chan_buffered(chan));
    chan->head += len;
    if (chan->head == chan->tail) {
        chan->head = chan->tail = 0;
    }
}

unsigned vfio_user_chan_take_fds(VFIOUserChan *chan, int *to, unsigned max)
{
    uint64_t consumed = chan->pos - vfio_user_chan_buffered(chan);
    unsigned nr = 0;

    while (nr < chan->nr_fds && chan->fd_pos[nr] <= consumed) {
        if (nr < max) {
            to[nr] = chan->fds[nr];
        } else {
            close(chan->fds[nr]);
        }
        nr++;
    }
    if (nr) {
        chan->nr_fds -= nr;
        memmove(chan->fds, chan->fds + nr, chan->nr_fds * sizeof(*chan->fds));
        memmove(chan->fd_pos, chan->fd_pos + nr,
                chan->nr_fds * sizeof(*chan->fd_pos));
    }
    return nr;
}

static void vfio_user_chan_put_fds(struct msghdr *msg, void *control,
                                   const int *fds, unsigned nr_fds)
{
    struct cmsghdr *cmsg;

    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
    cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
}

/* Drop @len bytes from the front of what is left to be sent. */
static void vfio_user_chan_advance(VFIOUserTx *tx, size_t len)
{
    struct iovec *iov = tx->iov;
    unsigned nr = tx->nr_iov;

    iov_discard_front(&iov, &nr, len);
    memmove(tx->iov, iov, nr * sizeof(*iov));
    tx->nr_iov = nr;
}

/* Copy a small message together. Returns its length, 0 if it is not small. */
static size_t vfio_user_chan_gather(const VFIOUserTx *tx, char *buf)
{
    size_t len = 0;

    for (unsigned i = 0; i < tx->nr_iov; i++) {
        if (tx->iov[i].iov_len > VFIO_USER_CHAN_SMALL - len) {
            return 0;
        }
        /* An empty piece may have no memory at all. */
        if (tx->iov[i].iov_len) {
            memcpy(buf + len, tx->iov[i].iov_base, tx->iov[i].iov_len);
        }
        len += tx->iov[i].iov_len;
    }
    return len;
}

static ssize_t vfio_user_chan_sendmsg(VFIOUserChan *chan, VFIOUserTx *tx)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * VFIO_USER_MAX_MSG_FDS)];
    } control;
    struct msghdr msg = {
        .msg_iov = tx->iov,
        .msg_iovlen = tx->nr_iov,
    };

    if (tx->nr_fds) {
        memset(&control, 0, sizeof(control));
        vfio_user_chan_put_fds(&msg, &control, tx->fds, tx->nr_fds);
    }
    return RETRY_ON_EINTR(sendmsg(chan->fd, &msg,
                                  MSG_DONTWAIT | MSG_NOSIGNAL));
}

/* As much as the socket takes at once. Returns the bytes, or -errno. */
static ssize_t vfio_user_chan_send_part(VFIOUserChan *chan, VFIOUserTx *tx)
{
    char small[VFIO_USER_CHAN_SMALL];
    size_t len = tx->nr_fds ? 0 : vfio_user_chan_gather(tx, small);
    ssize_t ret = len ? RETRY_ON_EINTR(send(chan->fd, small, len,
                                            MSG_DONTWAIT | MSG_NOSIGNAL))
                      : vfio_user_chan_sendmsg(chan, tx);

    if (ret < 0) {
        return -errno;
    }
    if (ret == len) {
        tx->nr_iov = 0;
    }
    return ret;
}

/*
 * What lies in guest memory is looked at once more for the recording, and the
 * guest may have changed it since it was sent.
 */
static ssize_t vfio_user_chan_send_recorded(VFIOUserChan *chan, VFIOUserTx *tx)
{
    unsigned nr_iov = tx->nr_iov;
    ssize_t ret;

    vfio_user_record_send_begin(chan->record);
    ret = vfio_user_chan_send_part(chan, tx);
    vfio_user_record_send_end(chan->record, tx->iov, nr_iov, ret, tx->nr_fds);
    return ret;
}

int vfio_user_chan_send(VFIOUserChan *chan, VFIOUserTx *tx)
{
    while (tx->nr_iov) {
        ssize_t ret = unlikely(chan->record)
                      ? vfio_user_chan_send_recorded(chan, tx)
                      : vfio_user_chan_send_part(chan, tx);

        if (ret < 0) {
            return ret;
        }
        tx->nr_fds = 0;
        if (tx->nr_iov) {
            vfio_user_chan_advance(tx, ret);
        }
    }
    return 0;
}
