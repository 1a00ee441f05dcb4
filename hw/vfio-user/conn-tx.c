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
 * copied, because the stream needs it.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "conn-int.h"
#include "trace.h"

/* Send the head of the queue or a message of one's own. */
static int vfio_user_conn_tx_try_locked(VFIOUserConn *conn,
                                        VFIOUserConnTx *tx)
{
    size_t before = iov_size(tx->msg.iov, tx->msg.nr_iov);
    int ret = vfio_user_chan_send(&conn->chan, &tx->msg);

    if (ret == -EAGAIN &&
        iov_size(tx->msg.iov, tx->msg.nr_iov) != before) {
        tx->started = true;
    }
    return ret;
}

static void vfio_user_conn_tx_failed(VFIOUserConn *conn, int ret)
{
    Error *err = NULL;

    error_setg_errno(&err, -ret, "cannot send to the server");
    vfio_user_conn_fail(conn, err);
}

int vfio_user_conn_tx_send(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    int ret = -EAGAIN;

    tx->queued = tx->started = tx->sent = false;
    WITH_QEMU_LOCK_GUARD(&conn->send_lock) {
        if (QSIMPLEQ_EMPTY(&conn->tx_queue)) {
            ret = vfio_user_conn_tx_try_locked(conn, tx);
        }
        if (ret == -EAGAIN) {
            tx->queued = true;
            qatomic_set(&conn->tx_pending, true);
            QSIMPLEQ_INSERT_TAIL(&conn->tx_queue, tx, next);
        }
    }

    if (ret == -EAGAIN) {
        bool polls;

        trace_vfio_user_conn_tx_full(conn->name, tx->header.command);
        WITH_QEMU_LOCK_GUARD(&conn->lock) {
            polls = conn->driver_polls;
        }
        if (polls) {
            event_notifier_set(&conn->kick);
        }
    } else if (ret) {
        vfio_user_conn_tx_failed(conn, ret);
        ret = -EPIPE;
    }
    return ret;
}

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

bool vfio_user_conn_tx_flush(VFIOUserConn *conn)
{
    int ret = 0;

    if (!qatomic_read(&conn->tx_pending)) {
        return false;
    }
    qemu_mutex_lock(&conn->send_lock);
    while (!QSIMPLEQ_EMPTY(&conn->tx_queue)) {
        VFIOUserConnTx *tx = QSIMPLEQ_FIRST(&conn->tx_queue);

        ret = vfio_user_conn_tx_try_locked(conn, tx);
        if (ret) {
            break;
        }
        QSIMPLEQ_REMOVE_HEAD(&conn->tx_queue, next);
        tx->queued = false;
        vfio_user_conn_tx_done(conn, tx);
    }
    qatomic_set(&conn->tx_pending, !QSIMPLEQ_EMPTY(&conn->tx_queue));
    qemu_mutex_unlock(&conn->send_lock);

    if (ret && ret != -EAGAIN) {
        vfio_user_conn_tx_failed(conn, ret);
        return false;
    }
    return ret == -EAGAIN;
}

static void vfio_user_conn_tx_free_rest(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    g_free(tx);
}

/* The rest of @tx in memory of its own, descriptors already being out. */
static VFIOUserConnTx *vfio_user_conn_tx_copy_rest(VFIOUserConnTx *tx)
{
    size_t len = iov_size(tx->msg.iov, tx->msg.nr_iov);
    VFIOUserConnTx *rest = g_malloc(sizeof(*rest) + len);

    rest->header = tx->header;
    rest->queued = rest->started = true;
    rest->sent = false;
    rest->free = vfio_user_conn_tx_free_rest;
    iov_to_buf(tx->msg.iov, tx->msg.nr_iov, 0, rest + 1, len);
    rest->msg.iov[0].iov_base = rest + 1;
    rest->msg.iov[0].iov_len = len;
    rest->msg.nr_iov = 1;
    rest->msg.nr_fds = 0;
    return rest;
}

bool vfio_user_conn_tx_cancel(VFIOUserConn *conn, VFIOUserConnTx *tx)
{
    QEMU_LOCK_GUARD(&conn->send_lock);

    if (!tx->queued) {
        return false;
    }
    if (tx->started) {
        /* What was begun is at the head. */
        VFIOUserConnTx *rest = vfio_user_conn_tx_copy_rest(tx);

        assert(QSIMPLEQ_FIRST(&conn->tx_queue) == tx);
        QSIMPLEQ_REMOVE_HEAD(&conn->tx_queue, next);
        QSIMPLEQ_INSERT_HEAD(&conn->tx_queue, rest, next);
    } else {
        QSIMPLEQ_REMOVE(&conn->tx_queue, tx, VFIOUserConnTx, next);
    }
    qatomic_set(&conn->tx_pending, !QSIMPLEQ_EMPTY(&conn->tx_queue));
    tx->queued = false;
    return !tx->started;
}

void vfio_user_conn_tx_cleanup(VFIOUserConn *conn)
{
    while (!QSIMPLEQ_EMPTY(&conn->tx_queue)) {
        VFIOUserConnTx *tx = QSIMPLEQ_FIRST(&conn->tx_queue);

        /* Senders take theirs back before they return. */
        assert(tx->free);
        QSIMPLEQ_REMOVE_HEAD(&conn->tx_queue, next);
        tx->free(conn, tx);
    }
}
