/*
 * vfio-user: the sending half of a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A sender tries the socket itself. When the socket is full the message is
 * queued, and the driver - whichever thread reads the socket - sends it once
 * there is room. So nobody ever blocks in a send: a server that is itself
 * blocked in one is read from all the while, and both get on.
 *
 * Messages leave in the order in which vfio_user_conn_tx_send() was called,
 * and always whole. A queued message lives on its sender's stack; the sender
 * waits for it. When the sender gives up after part of it is out, the rest is
 * copied, because the stream needs it. So is a message whose sender does not wait
 * at all (vfio_user_conn_tx_later()).
 *
 * What the kernel is short of for a moment (ENOBUFS, ENOMEM, or ETOOMANYREFS: too many
 * descriptors of this user are on their way, in whatever sockets) is no fault of the
 * server's. It counts as a full socket, but poll() does not tell when it is over. So
 * the driver tries again by the clock, and each message has its own deadline as ever.
 *
 * Small posted writes need no sender that waits: they are copied into a
 * message that leaves when there is room, and as long as it is the last one in
 * the queue more of them join it.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "conn-int.h"
#include "trace.h"

static bool vfio_user_conn_tx_is_short(int ret)
{
    return ret == -ENOBUFS || ret == -ENOMEM || ret == -ETOOMANYREFS;
}

/*
 * Send the head of the queue or a message of one's own. Whatever is sent
 * comes through here, once.
 */
static int vfio_user_conn_tx_try_locked(VFIOUserConn *conn,
                                        VFIOUserConnTx *tx)
{
    const void *before = tx->msg.iov[0].iov_base;
    int ret = vfio_user_chan_send(&conn->chan, &tx->msg);
    bool is_short = vfio_user_conn_tx_is_short(ret);

    if (is_short != conn->tx_short) {
        qatomic_set(&conn->tx_short, is_short);
    }
    if (is_short) {
        trace_vfio_user_conn_tx_short(conn->name, tx->header.command, -ret);
        ret = -EAGAIN;
    }
    if (!ret) {
        vfio_user_stats_count(conn->stats.sent, &tx->header);
    } else if (ret == -EAGAIN && tx->msg.iov[0].iov_base != before) {
        tx->started = true;
    }
    return ret;
}

static void vfio_user_conn_tx_failed(VFIOUserConn *conn, unsigned life, int ret)
{
    Error *err = NULL;

    if (ret == -EPIPE || ret == -ECONNRESET) {
        vfio_user_conn_set_left(conn);
        error_setg(&err, "the server closed the connection");
    } else {
        error_setg_errno(&err, -ret, "cannot send to the server");
    }
    vfio_user_conn_fail_life(conn, life, err);
}

/*
 * The queue is no longer empty: see to it that somebody sends it. For what
 * joins the queue after that this has been done. Whoever drives takes an
 * interest in the socket's room until the queue is empty, and hands that on
 * when it leaves.
 */
static void vfio_user_conn_tx_alert(VFIOUserConn *conn)
{
    bool polls;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        polls = conn->driver_polls;
        if (!conn->driver) {
            vfio_user_conn_bg_kick_locked(conn);
        }
    }
    if (polls) {
        event_notifier_set(&conn->kick);
    }
}

int vfio_user_conn_tx_send(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    int ret = -EAGAIN;
    unsigned life = tx->life;
    bool first;

    tx->queued = tx->started = tx->sent = tx->lost = false;
    WITH_QEMU_LOCK_GUARD(&conn->send_lock) {
        if (life != conn->life) {
            return -EPIPE;
        }
        first = QSIMPLEQ_EMPTY(&conn->tx_queue);
        if (first) {
            ret = vfio_user_conn_tx_try_locked(conn, tx);
        }
        if (ret == -EAGAIN) {
            tx->queued = true;
            qatomic_set(&conn->tx_pending, true);
            QSIMPLEQ_INSERT_TAIL(&conn->tx_queue, tx, next);
        }
    }

    if (ret == -EAGAIN) {
        trace_vfio_user_conn_tx_full(conn->name, tx->header.command);
        if (first) {
            vfio_user_conn_tx_alert(conn);
        }
    } else if (ret) {
        vfio_user_conn_tx_failed(conn, life, ret);
        ret = -EPIPE;
    }
    return ret;
}

/**
 * VFIOUserConnCopy: a message, or what is left of one, in memory of its own
 * @fds, @nr_fds: duplicates, since the sender's may be gone by then
 */
typedef struct VFIOUserConnCopy {
    VFIOUserConnTx tx;
    unsigned nr_fds;
    int fds[VFIO_USER_MAX_MSG_FDS];
    char data[];
} VFIOUserConnCopy;

static void vfio_user_conn_copy_free(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    VFIOUserConnCopy *copy = container_of(tx, VFIOUserConnCopy, tx);

    for (unsigned i = 0; i < copy->nr_fds; i++) {
        close(copy->fds[i]);
    }
    g_free(copy);
}

/* Without descriptors: they go with the first byte. */
static VFIOUserConnCopy *vfio_user_conn_copy_new(const VFIOUserConnTx *tx)
{
    size_t len = iov_size(tx->msg.iov, tx->msg.nr_iov);
    VFIOUserConnCopy *copy = g_malloc(sizeof(*copy) + len);

    copy->nr_fds = 0;
    copy->tx.header = tx->header;
    copy->tx.life = tx->life;
    copy->tx.queued = true;
    copy->tx.started = tx->started;
    copy->tx.sent = copy->tx.lost = false;
    copy->tx.free = vfio_user_conn_copy_free;
    iov_to_buf(tx->msg.iov, tx->msg.nr_iov, 0, copy->data, len);
    copy->tx.msg.iov[0].iov_base = copy->data;
    copy->tx.msg.iov[0].iov_len = len;
    copy->tx.msg.nr_iov = 1;
    copy->tx.msg.fds = copy->fds;
    copy->tx.msg.nr_fds = 0;
    return copy;
}

/* Returns 0 or -errno. */
static int vfio_user_conn_copy_fds(VFIOUserConnCopy *copy,
                                   const VFIOUserConnTx *tx)
{
    assert(tx->msg.nr_fds <= ARRAY_SIZE(copy->fds));
    for (unsigned i = 0; i < tx->msg.nr_fds; i++) {
        copy->fds[i] = fcntl(tx->msg.fds[i], F_DUPFD_CLOEXEC, 0);
        if (copy->fds[i] < 0) {
            return -errno;
        }
        copy->nr_fds++;
    }
    copy->tx.msg.nr_fds = copy->nr_fds;
    return 0;
}

/* Posted writes ------------------------------------------------------------ */

/* Writes that found the socket full */
typedef struct VFIOUserConnMulti {
    VFIOUserConnTx tx;
    struct vfio_user_write_multi head;
    struct vfio_user_write_multi_entry entries[VFIO_USER_CONN_MAX_MULTI];
} VFIOUserConnMulti;

/* Called with send_lock held. */
static void vfio_user_conn_multi_free(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    VFIOUserConnMulti *multi = container_of(tx, VFIOUserConnMulti, tx);

    qatomic_set(&conn->nr_backlog, conn->nr_backlog - multi->head.wr_cnt);
    trace_vfio_user_conn_multi(conn->name, multi->head.wr_cnt);
    g_free(multi);
    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_wake_locked(conn, &conn->nr_backlog);
}

static VFIOUserConnMulti *vfio_user_conn_multi_new_locked(VFIOUserConn *conn)
{
    VFIOUserConnMulti *multi = g_new(VFIOUserConnMulti, 1);
    VFIOUserConnTx *tx = &multi->tx;

    tx->header = (struct vfio_user_header) {
        .command = VFIO_USER_REGION_WRITE_MULTI,
        .flags = VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY,
    };
    tx->free = vfio_user_conn_multi_free;
    tx->started = tx->sent = tx->lost = false;
    tx->queued = true;
    tx->msg.iov[0].iov_base = &tx->header;
    tx->msg.iov[0].iov_len = sizeof(tx->header);
    tx->msg.iov[1].iov_base = &multi->head;
    tx->msg.iov[1].iov_len = sizeof(multi->head);
    tx->msg.iov[2].iov_base = multi->entries;
    tx->msg.nr_iov = 3;
    tx->msg.fds = NULL;
    tx->msg.nr_fds = 0;
    multi->head.wr_cnt = 0;
    QSIMPLEQ_INSERT_TAIL(&conn->tx_queue, tx, next);
    qatomic_set(&conn->tx_pending, true);
    return multi;
}

/* The youngest message, if another write can join it. */
static VFIOUserConnMulti *vfio_user_conn_multi_last_locked(VFIOUserConn *conn)
{
    VFIOUserConnTx *tx = QSIMPLEQ_LAST(&conn->tx_queue, VFIOUserConnTx, next);
    VFIOUserConnMulti *multi;

    if (!tx || tx->free != vfio_user_conn_multi_free || tx->started) {
        return NULL;
    }
    multi = container_of(tx, VFIOUserConnMulti, tx);
    return multi->head.wr_cnt < VFIO_USER_CONN_MAX_MULTI ? multi : NULL;
}

static void
vfio_user_conn_multi_add_locked(VFIOUserConn *conn,
                                const struct vfio_user_write_multi_entry *entry)
{
    VFIOUserConnMulti *multi = vfio_user_conn_multi_last_locked(conn);
    size_t len;

    if (!multi) {
        multi = vfio_user_conn_multi_new_locked(conn);
    }
    multi->entries[multi->head.wr_cnt++] = *entry;
    len = multi->head.wr_cnt * sizeof(*entry);
    multi->tx.msg.iov[2].iov_len = len;
    multi->tx.header.size = sizeof(multi->tx.header) + sizeof(multi->head) +
                            len;
    qatomic_set(&conn->nr_backlog, conn->nr_backlog + 1);
}

/* As vfio_user_conn_tx_try(), but -EINPROGRESS when a rest is queued. */
static int vfio_user_conn_tx_now_locked(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    VFIOUserConnCopy *rest;
    int ret;

    if (!QSIMPLEQ_EMPTY(&conn->tx_queue)) {
        return -EAGAIN;
    }
    tx->started = false;
    ret = vfio_user_conn_tx_try_locked(conn, tx);
    if (ret == -EAGAIN && tx->started) {
        rest = vfio_user_conn_copy_new(tx);
        QSIMPLEQ_INSERT_HEAD(&conn->tx_queue, &rest->tx, next);
        qatomic_set(&conn->tx_pending, true);
        ret = -EINPROGRESS;
    }
    return ret;
}

/* What became of a message that nobody waits for. */
static int vfio_user_conn_tx_outcome(VFIOUserConn *conn, unsigned life,
                                     int ret)
{
    if (ret == -EINPROGRESS) {
        vfio_user_conn_tx_alert(conn);
        return 0;
    }
    if (ret && ret != -EAGAIN) {
        vfio_user_conn_tx_failed(conn, life, ret);
        return -EPIPE;
    }
    return ret;
}

int vfio_user_conn_tx_try(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    unsigned life;
    int ret;

    WITH_QEMU_LOCK_GUARD(&conn->send_lock) {
        life = conn->life;
        if (tx->life != life) {
            return -EPIPE;
        }
        ret = vfio_user_conn_tx_now_locked(conn, tx);
    }
    return vfio_user_conn_tx_outcome(conn, life, ret);
}

/* Behind what is queued. Returns -EINPROGRESS when it is the first. */
static int vfio_user_conn_tx_queue_locked(VFIOUserConn *conn,
                                          VFIOUserConnTx *tx)
{
    bool first = QSIMPLEQ_EMPTY(&conn->tx_queue);
    VFIOUserConnCopy *copy = vfio_user_conn_copy_new(tx);
    int ret = vfio_user_conn_copy_fds(copy, tx);

    if (ret) {
        vfio_user_conn_copy_free(conn, &copy->tx);
        return ret;
    }
    QSIMPLEQ_INSERT_TAIL(&conn->tx_queue, &copy->tx, next);
    qatomic_set(&conn->tx_pending, true);
    trace_vfio_user_conn_tx_full(conn->name, tx->header.command);
    return first ? -EINPROGRESS : 0;
}

int vfio_user_conn_tx_later(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    bool queue;
    int ret;

    WITH_QEMU_LOCK_GUARD(&conn->send_lock) {
        if (tx->life != conn->life) {
            return -EPIPE;
        }
        ret = vfio_user_conn_tx_now_locked(conn, tx);
        queue = ret == -EAGAIN;
        if (queue) {
            ret = vfio_user_conn_tx_queue_locked(conn, tx);
        }
    }
    if (queue && ret && ret != -EINPROGRESS) {
        return ret;
    }
    return vfio_user_conn_tx_outcome(conn, tx->life, ret);
}

static int
vfio_user_conn_write_now_locked(VFIOUserConn *conn,
                                const struct vfio_user_write_multi_entry *entry)
{
    struct vfio_user_region_rw rw = {
        .offset = entry->offset,
        .region = entry->region,
        .count = entry->count,
    };
    VFIO_USER_UNINITIALIZED VFIOUserConnTx tx;

    tx.header = (struct vfio_user_header) {
        .command = VFIO_USER_REGION_WRITE,
        .size = sizeof(tx.header) + sizeof(rw) + entry->count,
        .flags = VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY,
    };
    tx.msg.iov[0].iov_base = &tx.header;
    tx.msg.iov[0].iov_len = sizeof(tx.header);
    tx.msg.iov[1].iov_base = &rw;
    tx.msg.iov[1].iov_len = sizeof(rw);
    tx.msg.iov[2].iov_base = (void *)entry->data;
    tx.msg.iov[2].iov_len = entry->count;
    tx.msg.nr_iov = 3;
    tx.msg.nr_fds = 0;
    return vfio_user_conn_tx_now_locked(conn, &tx);
}

int vfio_user_conn_tx_write(VFIOUserConn *conn,
                            const struct vfio_user_write_multi_entry *entry,
                            unsigned life)
{
    int ret;

    WITH_QEMU_LOCK_GUARD(&conn->send_lock) {
        bool first = QSIMPLEQ_EMPTY(&conn->tx_queue);

        if (life && life != conn->life) {
            return -EPIPE;
        }
        life = conn->life;
        ret = vfio_user_conn_write_now_locked(conn, entry);
        if (ret == -EAGAIN && conn->nr_backlog < VFIO_USER_CONN_MAX_BACKLOG) {
            vfio_user_conn_multi_add_locked(conn, entry);
            ret = first ? -EINPROGRESS : 0;
        }
    }
    return vfio_user_conn_tx_outcome(conn, life, ret);
}

/* The queue ------------------------------------------------------------------ */

/* @tx is out: tell its sender, or let go of it. */
static void vfio_user_conn_tx_done(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    if (tx->free) {
        tx->free(conn, tx);
        return;
    }
    QEMU_LOCK_GUARD(&conn->lock);
    tx->sent = true;
    vfio_user_conn_wake_locked(conn, tx);
}

bool vfio_user_conn_tx_flush(VFIOUserConn *conn, bool *sent)
{
    unsigned life;
    int ret = 0;

    *sent = false;
    vfio_user_conn_submit_pending(conn);
    if (!qatomic_read(&conn->tx_pending)) {
        return false;
    }
    qemu_mutex_lock(&conn->send_lock);
    life = conn->life;
    while (!QSIMPLEQ_EMPTY(&conn->tx_queue)) {
        VFIOUserConnTx *tx = QSIMPLEQ_FIRST(&conn->tx_queue);

        ret = vfio_user_conn_tx_try_locked(conn, tx);
        if (ret) {
            break;
        }
        QSIMPLEQ_REMOVE_HEAD(&conn->tx_queue, next);
        tx->queued = false;
        *sent = true;
        vfio_user_conn_tx_done(conn, tx);
    }
    qatomic_set(&conn->tx_pending, !QSIMPLEQ_EMPTY(&conn->tx_queue));
    qemu_mutex_unlock(&conn->send_lock);

    if (ret && ret != -EAGAIN) {
        vfio_user_conn_tx_failed(conn, life, ret);
        return false;
    }
    return ret == -EAGAIN;
}

bool vfio_user_conn_tx_cancel(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    QEMU_LOCK_GUARD(&conn->send_lock);

    if (!tx->queued) {
        return false;
    }
    if (tx->started) {
        /* What was begun is at the head. */
        VFIOUserConnCopy *rest = vfio_user_conn_copy_new(tx);

        assert(QSIMPLEQ_FIRST(&conn->tx_queue) == tx);
        QSIMPLEQ_REMOVE_HEAD(&conn->tx_queue, next);
        QSIMPLEQ_INSERT_HEAD(&conn->tx_queue, &rest->tx, next);
    } else {
        QSIMPLEQ_REMOVE(&conn->tx_queue, tx, VFIOUserConnTx, next);
    }
    qatomic_set(&conn->tx_pending, !QSIMPLEQ_EMPTY(&conn->tx_queue));
    tx->queued = false;
    return !tx->started;
}

void vfio_user_conn_tx_lose(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->send_lock);

    while (!QSIMPLEQ_EMPTY(&conn->tx_queue)) {
        VFIOUserConnTx *tx = QSIMPLEQ_FIRST(&conn->tx_queue);

        QSIMPLEQ_REMOVE_HEAD(&conn->tx_queue, next);
        tx->queued = false;
        if (tx->free) {
            tx->free(conn, tx);
            continue;
        }
        QEMU_LOCK_GUARD(&conn->lock);
        tx->lost = true;
        vfio_user_conn_wake_locked(conn, tx);
    }
    qatomic_set(&conn->tx_pending, false);
}
