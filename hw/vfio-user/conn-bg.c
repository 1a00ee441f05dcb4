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
 *
 * The AioContext may be a user's IOThread that other devices use, too, and one of them
 * may be waiting there for the BQL, which whoever stops us may hold. So stopping does
 * not wait for the IOThread. It cuts the handlers off from the connection, and waits
 * for one only while that is at work on it: it takes no BQL and does not wait
 * (VFIOUserConnOps). What the IOThread itself still refers to stays until a bottom
 * half there frees it, whenever that has its turn.
 *
 * Rejected: to run the AioContext's handlers by whoever waits; they are not ours. To
 * drop the BQL while waiting: that lets go of what is on the stack above.
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

/* A handler begins. Returns the connection, or NULL when it was stopped. */
static VFIOUserConn *vfio_user_conn_bg_enter(VFIOUserConnBg *bg)
{
    QEMU_LOCK_GUARD(&bg->lock);
    bg->busy = bg->conn;
    return bg->conn;
}

static void vfio_user_conn_bg_exit(VFIOUserConnBg *bg)
{
    QEMU_LOCK_GUARD(&bg->lock);
    bg->busy = false;
    qemu_cond_broadcast(&bg->idle);
}

static void vfio_user_conn_bg_watch(VFIOUserConnBg *bg, VFIOUserConn *conn)
{
    aio_set_fd_handler(bg->ctx, conn->chan.fd,
                       bg->parked ? NULL : vfio_user_conn_bg_readable,
                       bg->wants_write ? vfio_user_conn_bg_writable : NULL,
                       NULL, NULL, bg);
}

static void vfio_user_conn_bg_park(VFIOUserConnBg *bg, VFIOUserConn *conn,
                                   uint64_t drives)
{
    if (!bg->parked) {
        bg->parked = true;
        bg->park_ms = VFIO_USER_CONN_PARK_MS_MIN;
        vfio_user_conn_bg_watch(bg, conn);
    } else {
        bg->park_ms = MIN(bg->park_ms * 2,
                          qatomic_read(&conn->no_commands) ?
                          VFIO_USER_CONN_PARK_MS_TWIN :
                          VFIO_USER_CONN_PARK_MS_MAX);
    }
    bg->drives_seen = drives;
    timer_mod(bg->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + bg->park_ms);
}

static void vfio_user_conn_bg_unpark(VFIOUserConnBg *bg, VFIOUserConn *conn)
{
    uint64_t drives;
    bool busy;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        busy = conn->driver;
        drives = conn->nr_drives;
        if (conn->failed) {
            return;
        }
    }
    if (busy || drives != bg->drives_seen) {
        vfio_user_conn_bg_park(bg, conn, drives);
    } else {
        bg->parked = false;
        bg->wants_write = qatomic_read(&conn->tx_pending);
        vfio_user_conn_bg_watch(bg, conn);
    }
}

/* A turn as the driver; @readable: there may be something to read. */
static void vfio_user_conn_bg_turn(VFIOUserConnBg *bg, VFIOUserConn *conn,
                                   bool readable)
{
    uint64_t drives;
    bool busy, failed, wants_write, sent;
    int ret = 0;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        drives = conn->nr_drives;
        failed = conn->failed;
        busy = conn->driver;
        if (!busy && !failed) {
            conn->driver = bg;
        }
    }
    if (failed) {
        /* The descriptor stays readable for ever. */
        bg->parked = true;
        bg->wants_write = false;
        vfio_user_conn_bg_watch(bg, conn);
        return;
    }
    if (busy) {
        bg->wants_write = false;
        vfio_user_conn_bg_park(bg, conn, drives);
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
    if (wants_write && qatomic_read(&conn->tx_short)) {
        /* Room in the socket is not what is missing. */
        wants_write = false;
        timer_mod(bg->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                             VFIO_USER_CONN_RETRY_MS);
    }
    if (wants_write != bg->wants_write) {
        bg->wants_write = wants_write;
        vfio_user_conn_bg_watch(bg, conn);
    }
}

/* Either parked, or something is to be sent again. */
static void vfio_user_conn_bg_timer(void *opaque)
{
    VFIOUserConnBg *bg = opaque;
    VFIOUserConn *conn = vfio_user_conn_bg_enter(bg);

    if (!conn) {
        return;
    }
    if (bg->parked) {
        vfio_user_conn_bg_unpark(bg, conn);
    } else {
        vfio_user_conn_bg_turn(bg, conn, false);
    }
    vfio_user_conn_bg_exit(bg);
}

static void vfio_user_conn_bg_handle(VFIOUserConnBg *bg, bool readable)
{
    VFIOUserConn *conn = vfio_user_conn_bg_enter(bg);

    if (conn) {
        vfio_user_conn_bg_turn(bg, conn, readable);
        vfio_user_conn_bg_exit(bg);
    }
}

static void vfio_user_conn_bg_readable(void *opaque)
{
    vfio_user_conn_bg_handle(opaque, true);
}

static void vfio_user_conn_bg_writable(void *opaque)
{
    vfio_user_conn_bg_handle(opaque, false);
}

/* Whatever came to pass, the next turn finds out. */
static void vfio_user_conn_bg_look(void *opaque)
{
    VFIOUserConnBg *bg = opaque;
    VFIOUserConn *conn = vfio_user_conn_bg_enter(bg);

    if (conn) {
        bg->parked = false;
        bg->wants_write = true;
        vfio_user_conn_bg_watch(bg, conn);
        vfio_user_conn_bg_exit(bg);
    }
}

void vfio_user_conn_start(VFIOUserConn *conn, AioContext *ctx)
{
    VFIOUserConnBg *bg = g_new0(VFIOUserConnBg, 1);

    bg->ctx = ctx;
    bg->timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_MS,
                              vfio_user_conn_bg_timer, bg);
    bg->look_bh = aio_bh_new(ctx, vfio_user_conn_bg_look, bg);
    qemu_mutex_init(&bg->lock);
    qemu_cond_init(&bg->idle);
    bg->conn = conn;
    QEMU_LOCK_GUARD(&conn->lock);
    conn->bg = bg;
    qemu_bh_schedule(bg->look_bh);
}

/* Once @failed is set there is nothing to look after. */
void vfio_user_conn_bg_kick_locked(VFIOUserConn *conn)
{
    if (conn->bg && !conn->failed) {
        qemu_bh_schedule(conn->bg->look_bh);
    }
}

void vfio_user_conn_bg_kick(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_bg_kick_locked(conn);
}

static void vfio_user_conn_bg_free(void *opaque)
{
    VFIOUserConnBg *bg = opaque;

    qemu_bh_delete(bg->look_bh);
    timer_free(bg->timer);
    qemu_cond_destroy(&bg->idle);
    qemu_mutex_destroy(&bg->lock);
    g_free(bg);
}

AioContext *vfio_user_conn_bg_stop(VFIOUserConn *conn)
{
    AioContext *ctx;
    VFIOUserConnBg *bg;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        bg = conn->bg;
        conn->bg = NULL;
    }
    if (!bg) {
        return NULL;
    }
    ctx = bg->ctx;
    WITH_QEMU_LOCK_GUARD(&bg->lock) {
        bg->conn = NULL;
        while (bg->busy) {
            qemu_cond_wait(&bg->idle, &bg->lock);
        }
    }
    /* Now: the descriptor may be closed, or looked after by another one. */
    aio_set_fd_handler(ctx, conn->chan.fd, NULL, NULL, NULL, NULL, NULL);
    if (qemu_get_current_aio_context() == ctx) {
        vfio_user_conn_bg_free(bg);
    } else {
        /* The IOThread may be about to call a handler, which finds no connection. */
        aio_bh_schedule_oneshot(ctx, vfio_user_conn_bg_free, bg);
    }
    return ctx;
}
