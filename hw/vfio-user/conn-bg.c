/*
 * vfio-user: looking after a connection while nobody waits on it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Between accesses somebody must serve the server's commands, send what is
 * queued, and notice that the server has gone: a handler in an AioContext.
 *
 * The kernel wakes everybody who polls a socket, so during accesses this
 * handler would be woken for every reply along with the thread that waits
 * for it, a high price on a small machine. Hence parking: a handler that finds
 * a driver at work takes itself off the socket and looks again by timer, and
 * comes back when nobody has driven since the last look. Nothing is lost
 * meanwhile: whoever drives serves everything, and what comes just after is
 * late by a few milliseconds.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "conn-int.h"
#include "trace.h"

/*
 * How long parked: doubles as long as drivers are at work, since each look
 * takes a core from them. The bound is what a command of the server may have to
 * wait after the last access, unless its commands come on a socket of their
 * own.
 */
#define VFIO_USER_CONN_PARK_MS_MIN  1
#define VFIO_USER_CONN_PARK_MS_MAX  4
#define VFIO_USER_CONN_PARK_MS_TWIN 128
/* Messages in a row before others in the AioContext have their turn. */
#define VFIO_USER_CONN_BG_STEPS 16

static void vfio_user_conn_bg_readable(void *opaque);
static void vfio_user_conn_bg_writable(void *opaque);

static void vfio_user_conn_bg_watch(VFIOUserConn *conn)
{
    aio_set_fd_handler(conn->ctx, conn->chan.fd,
                       conn->parked ? NULL : vfio_user_conn_bg_readable,
                       conn->wants_write ? vfio_user_conn_bg_writable : NULL,
                       NULL, NULL, conn);
}

static void vfio_user_conn_bg_park(VFIOUserConn *conn, uint64_t drives)
{
    if (!conn->parked) {
        conn->parked = true;
        conn->park_ms = VFIO_USER_CONN_PARK_MS_MIN;
        vfio_user_conn_bg_watch(conn);
    } else {
        conn->park_ms = MIN(conn->park_ms * 2,
                            qatomic_read(&conn->no_commands) ?
                            VFIO_USER_CONN_PARK_MS_TWIN :
                            VFIO_USER_CONN_PARK_MS_MAX);
    }
    conn->drives_seen = drives;
    timer_mod(conn->park_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                conn->park_ms);
}

static void vfio_user_conn_bg_unpark(void *opaque)
{
    VFIOUserConn *conn = opaque;
    uint64_t drives;
    bool busy;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        busy = conn->driver;
        drives = conn->nr_drives;
        if (conn->failed) {
            return;
        }
    }
    if (busy || drives != conn->drives_seen) {
        vfio_user_conn_bg_park(conn, drives);
    } else {
        conn->parked = false;
        conn->wants_write = qatomic_read(&conn->tx_pending);
        vfio_user_conn_bg_watch(conn);
    }
}

/* A turn as the driver; @readable: there may be something to read. */
static void vfio_user_conn_bg_turn(VFIOUserConn *conn, bool readable)
{
    uint64_t drives;
    bool busy, failed, wants_write, sent;
    int ret = 0;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        drives = conn->nr_drives;
        failed = conn->failed;
        busy = conn->driver;
        if (!busy && !failed) {
            conn->driver = &conn->ctx;
        }
    }
    if (failed) {
        /* The descriptor stays readable for ever. */
        conn->parked = true;
        conn->wants_write = false;
        vfio_user_conn_bg_watch(conn);
        return;
    }
    if (busy) {
        conn->wants_write = false;
        vfio_user_conn_bg_park(conn, drives);
        return;
    }

    for (int i = 0; readable && !ret && i < VFIO_USER_CONN_BG_STEPS; i++) {
        ret = vfio_user_conn_rx_step(conn);
    }
    wants_write = vfio_user_conn_tx_flush(conn, &sent);

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        vfio_user_conn_undrive_locked(conn);
        /* Queued after the flush, by someone who saw that we drive */
        wants_write = wants_write || qatomic_read(&conn->tx_pending);
        if (!QTAILQ_EMPTY(&conn->waiters)) {
            qemu_cond_signal(&QTAILQ_FIRST(&conn->waiters)->cond);
        } else if (vfio_user_conn_can_submit_locked(conn)) {
            vfio_user_conn_bg_kick_locked(conn);
        }
    }
    if (wants_write != conn->wants_write) {
        conn->wants_write = wants_write;
        vfio_user_conn_bg_watch(conn);
    }
}

static void vfio_user_conn_bg_readable(void *opaque)
{
    vfio_user_conn_bg_turn(opaque, true);
}

static void vfio_user_conn_bg_writable(void *opaque)
{
    vfio_user_conn_bg_turn(opaque, false);
}

/* Whatever came to pass, the next turn finds out. */
static void vfio_user_conn_bg_look(void *opaque)
{
    VFIOUserConn *conn = opaque;

    conn->parked = false;
    conn->wants_write = true;
    vfio_user_conn_bg_watch(conn);
}

void vfio_user_conn_start(VFIOUserConn *conn, AioContext *ctx)
{
    QEMU_LOCK_GUARD(&conn->lock);
    conn->park_timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_MS,
                                     vfio_user_conn_bg_unpark, conn);
    conn->look_bh = aio_bh_new(ctx, vfio_user_conn_bg_look, conn);
    conn->ctx = ctx;
    qemu_bh_schedule(conn->look_bh);
}

/* Once @failed is set the bottom half may go away. */
void vfio_user_conn_bg_kick_locked(VFIOUserConn *conn)
{
    if (conn->ctx && !conn->failed) {
        qemu_bh_schedule(conn->look_bh);
    }
}

void vfio_user_conn_bg_kick(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_bg_kick_locked(conn);
}

static void vfio_user_conn_bg_leave(void *opaque)
{
    VFIOUserConn *conn = opaque;

    qemu_bh_delete(conn->look_bh);
    timer_free(conn->park_timer);
    aio_set_fd_handler(conn->ctx, conn->chan.fd, NULL, NULL, NULL, NULL, NULL);
    QEMU_LOCK_GUARD(&conn->lock);
    conn->ctx = NULL;
    qemu_cond_broadcast(&conn->rx_idle);
}

void vfio_user_conn_bg_stop(VFIOUserConn *conn)
{
    AioContext *ctx = conn->ctx;

    if (!ctx) {
        return;
    }
    if (qemu_get_current_aio_context() == ctx) {
        vfio_user_conn_bg_leave(conn);
        return;
    }
    aio_bh_schedule_oneshot(ctx, vfio_user_conn_bg_leave, conn);
    QEMU_LOCK_GUARD(&conn->lock);
    while (conn->ctx) {
        qemu_cond_wait(&conn->rx_idle, &conn->lock);
    }
}
