/*
 * vfio-user: who waits on a connection, and who reads it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A register read is one small message out and one back. What makes it slow
 * is waking a second thread to receive the reply, so the thread that waits
 * receives it itself. At any time at most one thread is the driver: it reads
 * the socket (conn-rx.c), completes whoever's request was answered, serves
 * the server's commands and sends what could not be sent at once (conn-tx.c).
 * Others that wait sleep until their own request is done or the driver
 * leaves, when one of them takes over. While nobody waits the AioContext is
 * the driver (conn-bg.c).
 *
 * Rejected: a reader thread of its own (two wake-ups a read instead of one);
 * one lock around send and receive (no pipelining, and a stopped server would
 * hold up even those who only want to give up).
 *
 * The driver leaves no complete message in the channel's buffer, so whatever is
 * to be done shows as readability of the socket.
 *
 * Whoever waits for the server waits here, so here it is counted when a thread does
 * so with the BQL (bql-wait.c).
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "conn-int.h"

void vfio_user_conn_wake_locked(VFIOUserConn *conn, const void *key)
{
    VFIOUserWaiter *w;

    QTAILQ_FOREACH(w, &conn->waiters, next) {
        if (w->key == key) {
            qemu_cond_signal(&w->cond);
        }
    }
}

static int vfio_user_conn_ms_left(int64_t deadline)
{
    int64_t us = deadline - g_get_monotonic_time();

    return us <= 0 ? 0 : MIN(DIV_ROUND_UP(us, 1000), INT_MAX);
}

/*
 * Look for something to be received until @until_ns, or until something is to
 * be sent.
 */
static bool vfio_user_conn_spin(VFIOUserConn *conn, int64_t until_ns)
{
    while (get_clock() < until_ns && !qatomic_read(&conn->tx_pending)) {
        if (vfio_user_conn_rx_step(conn) != -EAGAIN) {
            return true;
        }
    }
    return false;
}

/* One turn as the driver: sleep until something can be done, and do it. */
static void vfio_user_conn_drive(VFIOUserConn *conn, int64_t deadline)
{
    bool sent, more = vfio_user_conn_tx_flush(conn, &sent);
    bool again = more && qatomic_read(&conn->tx_short);
    struct pollfd pfd[2] = {
        { .fd = conn->chan.fd,
          .events = POLLIN | (more && !again ? POLLOUT : 0) },
        { .fd = event_notifier_get_fd(&conn->kick), .events = POLLIN },
    };
    int ms = vfio_user_conn_ms_left(deadline);

    /* What was sent may be all that the driver waits for. */
    if (sent || poll(pfd, ARRAY_SIZE(pfd),
                     again ? MIN(ms, VFIO_USER_CONN_RETRY_MS) : ms) <= 0) {
        return;
    }
    if (pfd[1].revents) {
        event_notifier_test_and_clear(&conn->kick);
    }
    if (pfd[0].revents & ~POLLOUT) {
        vfio_user_conn_rx_step(conn);
    }
}

void vfio_user_conn_undrive_locked(VFIOUserConn *conn)
{
    conn->driver = NULL;
    if (conn->failed) {
        qemu_cond_broadcast(&conn->rx_idle);
    }
}

static void vfio_user_conn_drive_until_locked(VFIOUserConn *conn,
                                              VFIOUserWaiter *w,
                                              VFIOUserReady *ready,
                                              int64_t deadline)
{
    int64_t limit_ns = vfio_user_conn_poll_begin_locked(conn);
    int64_t begin_ns = get_clock();

    conn->driver = w;
    conn->driver_polls = true;
    conn->nr_drives++;
    do {
        qemu_mutex_unlock(&conn->lock);
        if (!limit_ns || !vfio_user_conn_spin(conn, begin_ns + limit_ns)) {
            vfio_user_conn_drive(conn, deadline);
        }
        qemu_mutex_lock(&conn->lock);
    } while (!conn->failed && !ready(conn, w->key) &&
             g_get_monotonic_time() < deadline);
    vfio_user_conn_undrive_locked(conn);
    conn->driver_polls = false;
    if (ready(conn, w->key)) {
        vfio_user_conn_poll_end_locked(conn, limit_ns, get_clock() - begin_ns);
    }
}

/*
 * Nobody drives: let one of those who wait do it, or, when nobody waits and
 * something is still to be sent, the AioContext.
 */
static void vfio_user_conn_hand_over_locked(VFIOUserConn *conn)
{
    if (conn->driver) {
        return;
    }
    if (!QTAILQ_EMPTY(&conn->waiters)) {
        qemu_cond_signal(&QTAILQ_FIRST(&conn->waiters)->cond);
    } else if (qatomic_read(&conn->tx_pending) ||
               vfio_user_conn_can_submit_locked(conn)) {
        vfio_user_conn_bg_kick_locked(conn);
    }
}

/* Messages in a row, for a server that sends without end */
#define VFIO_USER_CONN_SERVE_STEPS  16

void vfio_user_conn_serve(VFIOUserConn *conn)
{
    VFIOUserWaiter w = { };
    bool sent;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        if (conn->driver || conn->failed) {
            return;
        }
        conn->driver = &w;
    }
    for (unsigned i = 0; i < VFIO_USER_CONN_SERVE_STEPS; i++) {
        if (vfio_user_conn_rx_step(conn)) {
            break;
        }
    }
    vfio_user_conn_tx_flush(conn, &sent);
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        vfio_user_conn_undrive_locked(conn);
        vfio_user_conn_hand_over_locked(conn);
    }
}

static void vfio_user_conn_tick_locked(VFIOUserConn *conn)
{
    if (conn->ops->tick) {
        qemu_mutex_unlock(&conn->lock);
        conn->ops->tick(conn->opaque);
        qemu_mutex_lock(&conn->lock);
    }
}

/* Wait, as the driver or for the driver, up to @until. */
static void vfio_user_conn_wait_slice_locked(VFIOUserConn *conn,
                                             VFIOUserWaiter *w,
                                             VFIOUserReady *ready,
                                             int64_t until)
{
    if (!conn->driver) {
        vfio_user_conn_drive_until_locked(conn, w, ready, until);
        vfio_user_conn_hand_over_locked(conn);
        return;
    }
    QTAILQ_INSERT_TAIL(&conn->waiters, w, next);
    qemu_cond_timedwait(&w->cond, &conn->lock, vfio_user_conn_ms_left(until));
    QTAILQ_REMOVE(&conn->waiters, w, next);
}

/* This thread has waited since @since, and would have up to @deadline. */
static void vfio_user_conn_count_bql_locked(VFIOUserConn *conn, int64_t since,
                                            int64_t deadline)
{
    if (since < deadline && bql_locked()) {
        int64_t us = g_get_monotonic_time() - since;
        int64_t limit_us = MIN(deadline - since, INT64_MAX / SCALE_US);

        vfio_user_bql_waited(conn->stats.bql, us * SCALE_US,
                             limit_us * SCALE_US);
    }
}

void vfio_user_conn_count_bql(VFIOUserConn *conn, int64_t since, int64_t until)
{
    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_count_bql_locked(conn, since, until);
}

bool vfio_user_conn_wait_locked(VFIOUserConn *conn,
                                VFIOUserReady *ready, const void *key,
                                int64_t deadline)
{
    VFIOUserWaiter w = { .key = key };
    int64_t since, tick, now;

    if (ready(conn, key)) {
        return true;
    }
    if (conn->failed) {
        /* There is nothing to wait for. */
        deadline = 0;
    }
    qemu_cond_init(&w.cond);
    since = now = g_get_monotonic_time();
    tick = now + conn->tick_ms * (int64_t)1000;
    while (!ready(conn, key) && !conn->failed && now < deadline) {
        vfio_user_conn_wait_slice_locked(conn, &w, ready, MIN(tick, deadline));
        if (ready(conn, key)) {
            break;
        }
        now = g_get_monotonic_time();
        if (now >= tick) {
            vfio_user_conn_tick_locked(conn);
            now = g_get_monotonic_time();
            tick = now + conn->tick_ms * (int64_t)1000;
        }
    }
    qemu_cond_destroy(&w.cond);
    vfio_user_conn_count_bql_locked(conn, since, deadline);
    /* Whoever was woken to drive and leaves passes that on. */
    vfio_user_conn_hand_over_locked(conn);
    return ready(conn, key);
}
