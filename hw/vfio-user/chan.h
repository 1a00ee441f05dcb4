/*
 * vfio-user: messages and descriptors on one socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CHAN_H
#define HW_VFIO_USER_CHAN_H

#include "hw/vfio-user/wire.h"
#include "record.h"

/*
 * Bytes that one receive may take in ahead of need. Big enough for a burst of
 * register replies and for a DMA command with a page of data; whatever is
 * larger is received straight into its target.
 */
#define VFIO_USER_CHAN_BUF      8192

/* Messages up to this size are copied together: cheaper than many pieces. */
#define VFIO_USER_CHAN_SMALL    64

/* Most pieces of memory that one message is put together from. */
#define VFIO_USER_CHAN_MAX_IOV  72

/**
 * VFIOUserChan: one connected UNIX stream socket.
 * @fd:      the socket, non-blocking, owned; set once
 * @buf:     bytes received and not yet consumed: [@head, @tail). Reader only.
 * @pos:     bytes received since the beginning of the stream. Reader only.
 * @fds:     descriptors received, in their order; owned until taken or
 *           dropped. Reader only.
 * @fd_pos:  for each of them, @pos at the end of the receive that brought it:
 *           it belongs to the message that holds the byte before
 * @nr_fds:  how many of them
 * @no_fds:  the kernel is to drop descriptors that come: none are expected, and
 *           a receive that asks for none is quicker
 * @lost_fds: descriptors had to be dropped (too many, MSG_CTRUNC). Reader only.
 * @record: where all of it is noted down, owned; NULL, as a rule. Set once.
 *
 * "Reader" and "writer" below mean: at most one thread at a time in each of
 * these roles; conn-wait.c and conn-tx.c see to that. A reader and a writer do
 * not disturb each other. Nothing here blocks.
 */
typedef struct VFIOUserChan {
    int fd;
    size_t head;
    size_t tail;
    uint64_t pos;
    int fds[VFIO_USER_MAX_MSG_FDS];
    uint64_t fd_pos[VFIO_USER_MAX_MSG_FDS];
    unsigned nr_fds;
    bool no_fds;
    bool lost_fds;
    VFIOUserRecordSocket *record;
    uint8_t buf[VFIO_USER_CHAN_BUF];
} VFIOUserChan;

/**
 * VFIOUserTx: a message on its way out, or what is left of one.
 * @iov, @nr_iov: what is still to be sent; advanced as it goes
 * @fds, @nr_fds: travel with the first byte; @nr_fds is 0 once they are sent.
 *                The descriptors stay the caller's.
 */
typedef struct VFIOUserTx {
    struct iovec iov[VFIO_USER_CHAN_MAX_IOV];
    unsigned nr_iov;
    const int *fds;
    unsigned nr_fds;
} VFIOUserTx;

/**
 * vfio_user_chan_init: take over a connected socket
 * @fd: owned from now on; becomes non-blocking
 */
void vfio_user_chan_init(VFIOUserChan *chan, int fd);

/* Close the socket and every descriptor that nobody took. */
void vfio_user_chan_cleanup(VFIOUserChan *chan);

/* Bytes received and not yet consumed. Reader. */
static inline size_t vfio_user_chan_buffered(const VFIOUserChan *chan)
{
    return chan->tail - chan->head;
}

/**
 * vfio_user_chan_fill: receive whatever is there into the buffer. Reader.
 *
 * Returns the number of bytes, 0 at the end of the stream, -EAGAIN when
 * nothing is there, or another -errno.
 */
ssize_t vfio_user_chan_fill(VFIOUserChan *chan);

/**
 * vfio_user_chan_recv: receive straight into @iov, never more. Reader; the
 * buffer must be empty. Returns as vfio_user_chan_fill().
 */
ssize_t vfio_user_chan_recv(VFIOUserChan *chan, struct iovec *iov,
                            unsigned nr_iov);

/* Look at or consume buffered bytes; @len must not exceed them. Reader. */
void vfio_user_chan_peek(const VFIOUserChan *chan, void *to, size_t len);
void vfio_user_chan_consume(VFIOUserChan *chan, size_t len);

/**
 * vfio_user_chan_take_fds: hand out the descriptors of a message. Reader.
 * @to: room for @max; the caller owns what is stored. What does not fit is
 *      closed.
 *
 * Call it when the whole message has been consumed: its descriptors are those
 * that came with bytes consumed so far. Returns how many had come.
 */
unsigned vfio_user_chan_take_fds(VFIOUserChan *chan, int *to, unsigned max);

/**
 * vfio_user_chan_send: send as much of @tx as the socket takes. Writer.
 *
 * Returns 0 when all of it is gone, -EAGAIN when the socket is full, or another
 * -errno. In the last two cases @tx says what is left.
 */
int vfio_user_chan_send(VFIOUserChan *chan, VFIOUserTx *tx);

#endif /* HW_VFIO_USER_CHAN_H */
