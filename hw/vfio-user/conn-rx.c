/*
 * vfio-user: the receiving half of a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Runs in the driver: the one thread that may read the socket at a time. The
 * stream is taken apart by a small state machine that can stop at any byte
 * and be continued by another thread. Payload goes where it belongs without a
 * detour: a reply's into the requester's memory, a DMA_WRITE's into guest
 * memory. The buffer of the channel only saves the receive between header and
 * payload.
 *
 * The requester may give up at any time. It may take its memory away as soon
 * as @rx_busy is false, which is never for long, since nothing here waits.
 *
 * A message that breaks the protocol ends the connection: after it, no byte of
 * the stream means anything certain. An error that the server reports, or a
 * reply that comes too late, concerns one request only.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "conn-int.h"
#include "trace.h"

static int G_GNUC_PRINTF(2, 3)
vfio_user_conn_rx_bad(VFIOUserConn *conn, const char *fmt, ...)
{
    Error *err = NULL;
    va_list ap;
    g_autofree char *text = NULL;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_setg(&err, "the server broke the protocol: %s", text);
    vfio_user_conn_fail(conn, err);
    return -EPIPE;
}

/* Server's errno as ours: 1..4095, 0 becomes EIO. */
static int vfio_user_conn_rx_errno(const struct vfio_user_header *hdr)
{
    if (!(hdr->flags & VFIO_USER_ERROR)) {
        return 0;
    }
    if (!hdr->error) {
        return -EIO;
    }
    return -(int)MIN(hdr->error, 4095u);
}

/* Replies ---------------------------------------------------------------- */

/* Hand the outcome to whoever asked. Returns the number of @fds it took. */
static unsigned vfio_user_conn_rx_deliver_locked(VFIOUserConn *conn,
                                                 const int *fds,
                                                 unsigned nr_fds,
                                                 int64_t now_ns,
                                                 VFIOUserRequest **nobodys)
{
    VFIOUserConnSlot *slot = conn->rx.slot;
    VFIOUserRequest *req = conn->rx.req;
    unsigned kept = 0;

    conn->rx.req = NULL;
    conn->rx.slot = NULL;
    conn->answered = now_ns / SCALE_US;
    vfio_user_stats_count(conn->stats.received, &conn->rx.header);
    /*
     * A reply that nobody waits for is read when there is time, which says
     * nothing about the server.
     */
    if (slot->timed) {
        vfio_user_stats_replied(&conn->stats.latency[slot->kind], now_ns,
                                now_ns - slot->since_ns);
    }
    if (slot->sending) {
        slot->replied = true;
    } else {
        vfio_user_conn_put_slot_locked(conn, slot);
    }
    if (!req) {
        return 0;
    }

    req->ret = vfio_user_conn_rx_errno(&conn->rx.header);
    req->in_len = conn->rx.got;
    /* With an error nobody looks for descriptors. */
    req->nr_in_fds = req->ret ? 0 : nr_fds;
    kept = MIN(req->nr_in_fds, req->max_in_fds);
    if (kept) {
        memcpy(req->in_fds, fds, kept * sizeof(int));
    }
    req->state = VFIO_USER_REQUEST_DONE;
    if (req->done && !slot->replied) {
        *nobodys = req;
    }
    vfio_user_conn_wake_locked(conn, req);
    return kept;
}

static void vfio_user_conn_rx_reply_done(VFIOUserConn *conn)
{
    int fds[VFIO_USER_MAX_MSG_FDS];
    unsigned nr_fds = vfio_user_chan_take_fds(&conn->chan, fds,
                                              VFIO_USER_MAX_MSG_FDS);
    VFIOUserRequest *nobodys = NULL;
    int64_t now_ns = get_clock();
    unsigned kept;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        kept = vfio_user_conn_rx_deliver_locked(conn, fds, nr_fds, now_ns,
                                                &nobodys);
    }
    for (unsigned i = kept; i < MIN(nr_fds, VFIO_USER_MAX_MSG_FDS); i++) {
        close(fds[i]);
    }
    trace_vfio_user_conn_reply(conn->name, conn->rx.header.id,
                               conn->rx.header.command, conn->rx.header.size,
                               conn->rx.header.error, nr_fds);
    conn->rx.state = VFIO_USER_RX_HEADER;
    if (nobodys) {
        nobodys->done(nobodys);
    }
}

static int vfio_user_conn_rx_reply(VFIOUserConn *conn)
{
    const struct vfio_user_header *hdr = &conn->rx.header;
    VFIOUserConnSlot *slot =
        &conn->slots[hdr->id % VFIO_USER_CONN_MAX_REQUESTS];
    const char *bad = NULL;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        if (!slot->used || slot->id != hdr->id || slot->replied ||
            slot->life != conn->life) {
            bad = "a reply to nothing that was asked";
        } else if (slot->command != hdr->command) {
            bad = "a reply with another command than the request's";
        } else if (conn->rx.left > slot->room) {
            bad = "a reply larger than the request allows";
        } else {
            conn->rx.req = slot->req;
            conn->rx.slot = slot;
        }
    }
    if (bad) {
        return vfio_user_conn_rx_bad(conn, "%s (id %u, command %u, %u bytes)",
                                     bad, hdr->id, hdr->command, hdr->size);
    }
    conn->rx.state = VFIO_USER_RX_REPLY;
    return 0;
}

/* Commands of the server -------------------------------------------------- */

static void vfio_user_conn_cmd_unmap(VFIOUserConn *conn,
                                     VFIOUserConnCommand *cmd)
{
    if (cmd->mapped) {
        conn->ops->dma_end(conn->opaque, &cmd->dma, cmd->is_write, cmd->done);
        cmd->mapped = false;
    }
}

/* The reply is out, or never will be. */
static void vfio_user_conn_cmd_free(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    VFIOUserConnCommand *cmd = container_of(tx, VFIOUserConnCommand, tx);

    vfio_user_conn_cmd_unmap(conn, cmd);
    g_free(cmd);
    QEMU_LOCK_GUARD(&conn->lock);
    conn->nr_commands--;
    vfio_user_conn_wake_locked(conn, conn);
}

static void vfio_user_conn_cmd_set_reply(VFIOUserConnCommand *cmd)
{
    VFIOUserTx *msg = &cmd->tx.msg;
    unsigned i;

    cmd->tx.header = (struct vfio_user_header) {
        .id = cmd->header.id,
        .command = cmd->header.command,
        .size = sizeof(cmd->header),
        .flags = VFIO_USER_TYPE_REPLY,
    };
    msg->iov[0].iov_base = &cmd->tx.header;
    msg->iov[0].iov_len = sizeof(cmd->tx.header);
    msg->nr_iov = 1;
    msg->nr_fds = 0;

    if (cmd->ret) {
        cmd->tx.header.flags |= VFIO_USER_ERROR;
        cmd->tx.header.error = -cmd->ret;
        return;
    }
    msg->iov[1].iov_base = &cmd->rw;
    msg->iov[1].iov_len = sizeof(cmd->rw);
    msg->nr_iov = 2;
    if (!cmd->is_write) {
        for (i = 0; i < cmd->dma.nr_iov; i++) {
            msg->iov[msg->nr_iov++] = cmd->dma.iov[i];
        }
    }
    cmd->tx.header.size = iov_size(msg->iov, msg->nr_iov);
}

static int vfio_user_conn_rx_command_done(VFIOUserConn *conn)
{
    VFIOUserConnCommand *cmd = conn->rx.cmd;
    unsigned nr_commands;
    int ret;

    conn->rx.cmd = NULL;
    conn->rx.state = VFIO_USER_RX_HEADER;
    vfio_user_chan_take_fds(&conn->chan, NULL, 0);
    trace_vfio_user_conn_command(conn->name, cmd->header.id,
                                 cmd->header.command, cmd->rw.addr,
                                 cmd->rw.count, cmd->ret);

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        nr_commands = conn->nr_commands;
        vfio_user_stats_count(conn->stats.received, &cmd->header);
    }
    if (cmd->is_write) {
        vfio_user_conn_cmd_unmap(conn, cmd);
    }
    if (cmd->header.flags & VFIO_USER_NO_REPLY) {
        vfio_user_conn_cmd_free(conn, &cmd->tx);
        return 0;
    }

    vfio_user_conn_cmd_set_reply(cmd);
    cmd->tx.free = vfio_user_conn_cmd_free;
    cmd->tx.life = conn->life;
    ret = vfio_user_conn_tx_send(conn, &cmd->tx);
    if (ret != -EAGAIN) {
        vfio_user_conn_cmd_free(conn, &cmd->tx);
        return ret;
    }
    if (nr_commands > VFIO_USER_CONN_MAX_REPLIES) {
        return vfio_user_conn_rx_bad(conn, "%u commands, none of whose replies "
                                     "it reads", nr_commands);
    }
    return 0;
}

static int vfio_user_conn_rx_command(VFIOUserConn *conn)
{
    const struct vfio_user_header *hdr = &conn->rx.header;
    VFIOUserConnCommand *cmd;
    bool is_dma = hdr->command == VFIO_USER_DMA_READ ||
                  hdr->command == VFIO_USER_DMA_WRITE;

    if (conn->rx.left > sizeof(cmd->rw) + conn->max_xfer) {
        return vfio_user_conn_rx_bad(conn, "a command larger than agreed "
                                     "(command %u, %u bytes)",
                                     hdr->command, hdr->size);
    }
    if (is_dma && conn->rx.left < sizeof(cmd->rw)) {
        return vfio_user_conn_rx_bad(conn, "a DMA command without address and "
                                     "count (%u bytes)", hdr->size);
    }

    cmd = conn->rx.cmd = g_new(VFIOUserConnCommand, 1);
    cmd->header = *hdr;
    cmd->rw = (struct vfio_user_dma_rw) { };
    cmd->is_write = hdr->command == VFIO_USER_DMA_WRITE;
    cmd->mapped = false;
    cmd->ret = is_dma ? 0 : -ENOTSUP;
    cmd->done = 0;
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        conn->nr_commands++;
    }
    conn->rx.state = is_dma ? VFIO_USER_RX_DMA_ARGS : VFIO_USER_RX_DRAIN;
    return 0;
}

/* Address and count are known: find the memory. */
static int vfio_user_conn_rx_dma_args(VFIOUserConn *conn)
{
    VFIOUserConnCommand *cmd = conn->rx.cmd;
    uint64_t data = cmd->is_write ? cmd->rw.count : 0;

    if (conn->rx.left != data) {
        return vfio_user_conn_rx_bad(conn, "a DMA command of %u bytes for "
                                     "%" PRIu64 " bytes of memory",
                                     cmd->header.size, cmd->rw.count);
    }
    if (cmd->rw.count > conn->max_xfer) {
        cmd->ret = -EINVAL;
    } else if (cmd->rw.count) {
        cmd->ret = conn->ops->dma_begin(conn->opaque, cmd->rw.addr,
                                        cmd->rw.count, cmd->is_write,
                                        &cmd->dma);
        cmd->mapped = !cmd->ret;
    } else {
        cmd->dma.nr_iov = 0;
    }
    conn->rx.got = 0;
    conn->rx.state = cmd->mapped ? VFIO_USER_RX_DMA_DATA : VFIO_USER_RX_DRAIN;
    return 0;
}

/* The stream --------------------------------------------------------------- */

static int vfio_user_conn_rx_header(VFIOUserConn *conn)
{
    struct vfio_user_header *hdr = &conn->rx.header;

    vfio_user_chan_peek(&conn->chan, hdr, sizeof(*hdr));
    vfio_user_chan_consume(&conn->chan, sizeof(*hdr));
    if (hdr->size < sizeof(*hdr)) {
        return vfio_user_conn_rx_bad(conn, "a message of %u bytes", hdr->size);
    }
    conn->rx.left = hdr->size - sizeof(*hdr);
    conn->rx.got = 0;

    switch (hdr->flags & VFIO_USER_TYPE_MASK) {
    case VFIO_USER_TYPE_REPLY:
        return vfio_user_conn_rx_reply(conn);
    case VFIO_USER_TYPE_COMMAND:
        return vfio_user_conn_rx_command(conn);
    default:
        return vfio_user_conn_rx_bad(conn, "neither command nor reply "
                                     "(flags 0x%x)", hdr->flags);
    }
}

/* Where payload goes now; none: it is dropped. */
static unsigned vfio_user_conn_rx_target(VFIOUserConn *conn,
                                         struct iovec *iov, unsigned max)
{
    const struct iovec *to = NULL;
    unsigned nr = 0;

    switch (conn->rx.state) {
    case VFIO_USER_RX_REPLY:
        WITH_QEMU_LOCK_GUARD(&conn->lock) {
            if (conn->rx.req) {
                to = conn->rx.req->in;
                nr = conn->rx.req->nr_in;
            }
        }
        break;
    case VFIO_USER_RX_DMA_DATA:
        to = conn->rx.cmd->dma.iov;
        nr = conn->rx.cmd->dma.nr_iov;
        break;
    default:
        break;
    }
    return nr ? iov_copy(iov, max, to, nr, conn->rx.got, conn->rx.left) : 0;
}

static void vfio_user_conn_rx_advance(VFIOUserConn *conn, size_t len)
{
    conn->rx.left -= len;
    conn->rx.got += len;
    if (conn->rx.state == VFIO_USER_RX_DMA_DATA) {
        conn->rx.cmd->done = conn->rx.got;
    }
}

/* Move payload from the buffer to where it goes. */
static void vfio_user_conn_rx_from_buf(VFIOUserConn *conn)
{
    VFIO_USER_UNINITIALIZED struct iovec iov[VFIO_USER_CONN_MAX_DMA_IOV];
    size_t len = MIN(conn->rx.left, vfio_user_chan_buffered(&conn->chan));
    unsigned nr, i;
    size_t done = 0;

    if (!len) {
        return;
    }
    nr = vfio_user_conn_rx_target(conn, iov, ARRAY_SIZE(iov));
    for (i = 0; i < nr && done < len; i++) {
        size_t part = MIN(iov[i].iov_len, len - done);

        vfio_user_chan_peek(&conn->chan, iov[i].iov_base, part);
        vfio_user_chan_consume(&conn->chan, part);
        done += part;
    }
    vfio_user_chan_consume(&conn->chan, len - done);
    vfio_user_conn_rx_advance(conn, len);
}

/*
 * Take one step with what is buffered. Returns 1 when there may be more to do,
 * 0 when more bytes are needed, -EPIPE.
 */
static int vfio_user_conn_rx_parse(VFIOUserConn *conn)
{
    size_t buffered = vfio_user_chan_buffered(&conn->chan);
    VFIOUserConnCommand *cmd = conn->rx.cmd;
    int ret;

    switch (conn->rx.state) {
    case VFIO_USER_RX_HEADER:
        if (buffered < sizeof(struct vfio_user_header)) {
            return 0;
        }
        ret = vfio_user_conn_rx_header(conn);
        return ret ? ret : 1;

    case VFIO_USER_RX_DMA_ARGS:
        if (buffered < sizeof(cmd->rw)) {
            return 0;
        }
        vfio_user_chan_peek(&conn->chan, &cmd->rw, sizeof(cmd->rw));
        vfio_user_chan_consume(&conn->chan, sizeof(cmd->rw));
        conn->rx.left -= sizeof(cmd->rw);
        ret = vfio_user_conn_rx_dma_args(conn);
        return ret ? ret : 1;

    case VFIO_USER_RX_REPLY:
        vfio_user_conn_rx_from_buf(conn);
        if (conn->rx.left) {
            return 0;
        }
        vfio_user_conn_rx_reply_done(conn);
        return 1;

    case VFIO_USER_RX_DMA_DATA:
        if (cmd->is_write) {
            vfio_user_conn_rx_from_buf(conn);
        }
        break;

    case VFIO_USER_RX_DRAIN:
        vfio_user_conn_rx_from_buf(conn);
        break;
    }

    if (conn->rx.left) {
        return 0;
    }
    ret = vfio_user_conn_rx_command_done(conn);
    return ret ? ret : 1;
}

static ssize_t vfio_user_conn_rx_receive(VFIOUserConn *conn)
{
    VFIO_USER_UNINITIALIZED struct iovec iov[VFIO_USER_CONN_MAX_DMA_IOV];
    unsigned nr = 0;
    ssize_t ret;

    if (!vfio_user_chan_buffered(&conn->chan) &&
        conn->rx.left > VFIO_USER_CHAN_BUF) {
        nr = vfio_user_conn_rx_target(conn, iov, ARRAY_SIZE(iov));
    }
    if (!nr) {
        return vfio_user_chan_fill(&conn->chan);
    }
    ret = vfio_user_chan_recv(&conn->chan, iov, nr);
    if (ret > 0) {
        vfio_user_conn_rx_advance(conn, ret);
    }
    return ret;
}

static int vfio_user_conn_rx_work(VFIOUserConn *conn)
{
    Error *err = NULL;
    ssize_t len = vfio_user_conn_rx_receive(conn);
    int ret;

    if (len == -EAGAIN) {
        return -EAGAIN;
    }
    /* Reset: it had not read everything. */
    if (len == 0 || len == -ECONNRESET) {
        vfio_user_conn_set_left(conn);
        error_setg(&err, "the server closed the connection");
    } else if (len < 0) {
        error_setg_errno(&err, -len, "cannot receive from the server");
    } else if (conn->chan.lost_fds) {
        error_setg(&err, "the server sent more descriptors than the %d that "
                   "were agreed, or this process has too many open files",
                   VFIO_USER_MAX_MSG_FDS);
    }
    if (err) {
        vfio_user_conn_fail(conn, err);
        return -EPIPE;
    }

    if (unlikely(qatomic_read(&conn->stuck))) {
        qatomic_set(&conn->stuck, false);
    }
    do {
        ret = vfio_user_conn_rx_parse(conn);
    } while (ret > 0);
    return ret;
}

int vfio_user_conn_rx_step(VFIOUserConn *conn)
{
    VFIOUserRequest *orphan = NULL;
    int ret;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        conn->rx_busy = true;
        if (conn->failed) {
            conn->rx_busy = false;
            return -EPIPE;
        }
    }
    ret = vfio_user_conn_rx_work(conn);
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        conn->rx_busy = false;
        qemu_cond_broadcast(&conn->rx_idle);
        if (conn->failed && conn->rx.req && !conn->rx.slot->sending) {
            orphan = conn->rx.req;
            conn->rx.req = NULL;
            conn->rx.slot->req = NULL;
            vfio_user_conn_finish_locked(conn, orphan, -EPIPE);
            vfio_user_conn_wake_locked(conn, orphan);
            orphan = orphan->done ? orphan : NULL;
        }
    }
    if (orphan) {
        orphan->done(orphan);
    }
    return ret;
}

void vfio_user_conn_rx_cleanup(VFIOUserConn *conn)
{
    VFIOUserConnCommand *cmd = conn->rx.cmd;

    if (cmd) {
        vfio_user_conn_cmd_unmap(conn, cmd);
        g_free(cmd);
        conn->rx.cmd = NULL;
    }
}
