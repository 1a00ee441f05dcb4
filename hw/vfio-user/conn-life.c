/*
 * vfio-user: beginning, end and new beginning of a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A connection that has failed can go on with a new socket: another one that
 * was set up and negotiated by itself hands it over (adopt). The object stays,
 * so that whoever holds a pointer to it need not know. What belongs to the old
 * socket ends first: every request has its outcome, nobody reads any more,
 * nothing is left to be sent. Threads that are still on their way out of a call
 * find that in memory of their own (request, message) or in their slot, and not
 * in @failed, which may be false again by then. They may even be waiting for
 * a lock of the owner's (its tick), so none of this waits for them.
 *
 * Rejected: a new object for each socket, with references counted. Every
 * request would have to remember its own, and each access count up and down.
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "conn-int.h"
#include "trace.h"

VFIOUserConn *vfio_user_conn_new(int fd, const char *name,
                                 const VFIOUserConnOps *ops, void *opaque,
                                 unsigned timeout_ms)
{
    VFIOUserConn *conn = g_new0(VFIOUserConn, 1);

    conn->name = g_strdup(name);
    conn->ops = ops;
    conn->opaque = opaque;
    conn->timeout_ms = timeout_ms;
    conn->life = 1;
    conn->until = INT64_MAX;
    conn->tick_ms = VFIO_USER_CONN_TICK_MS;
    conn->max_xfer = VFIO_USER_DEFAULT_MAX_DATA_XFER;
    vfio_user_chan_init(&conn->chan, fd);
    event_notifier_init(&conn->kick, false);
    qemu_mutex_init(&conn->send_lock);
    qemu_mutex_init(&conn->lock);
    qemu_cond_init(&conn->rx_idle);
    QSIMPLEQ_INIT(&conn->tx_queue);
    QSIMPLEQ_INIT(&conn->pending);
    QTAILQ_INIT(&conn->waiters);

    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        conn->slots[i].id = i;
        conn->free_slots[i] = VFIO_USER_CONN_MAX_REQUESTS - 1 - i;
    }
    conn->nr_free = VFIO_USER_CONN_MAX_REQUESTS;
    vfio_user_stats_reset(&conn->stats, get_clock());
    return conn;
}

void vfio_user_conn_set_record(VFIOUserConn *conn,
                               VFIOUserRecordSocket *record)
{
    conn->chan.record = record;
}

void vfio_user_conn_set_limits(VFIOUserConn *conn, uint64_t max_xfer)
{
    conn->max_xfer = max_xfer;
}

void vfio_user_conn_set_patient(VFIOUserConn *conn, bool patient)
{
    conn->patient = patient;
}

void vfio_user_conn_set_until(VFIOUserConn *conn, int64_t until)
{
    conn->until = until;
}

unsigned vfio_user_conn_half_ms(VFIOUserConn *conn)
{
    int64_t us = conn->until - g_get_monotonic_time();

    return conn->until == INT64_MAX ? 0 : MAX(us / 2000, 1);
}

void vfio_user_conn_set_no_fds(VFIOUserConn *conn)
{
    conn->chan.no_fds = true;
}

void vfio_user_conn_set_no_commands(VFIOUserConn *conn)
{
    qatomic_set(&conn->no_commands, true);
}

void vfio_user_conn_set_lockstep(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->lock);
    qatomic_set(&conn->lockstep, true);
}

bool vfio_user_conn_lockstep(VFIOUserConn *conn)
{
    return qatomic_read(&conn->lockstep);
}

/*
 * Every request has failed. One that is being sent is left to its sender, one
 * whose reply is being received to the driver. Returns those that nobody waits
 * for.
 */
static VFIOUserRequest *vfio_user_conn_end_requests_locked(VFIOUserConn *conn)
{
    VFIOUserRequest *orphans = NULL;

    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        VFIOUserRequest *req = conn->slots[i].req;

        if (!req || conn->slots[i].sending ||
            (conn->rx_busy && conn->rx.req == req)) {
            continue;
        }
        conn->slots[i].req = NULL;
        if (conn->rx.req == req) {
            conn->rx.req = NULL;
        }
        vfio_user_conn_finish_locked(conn, req, -EPIPE);
        if (req->done) {
            req->next = orphans;
            orphans = req;
        } else {
            vfio_user_conn_wake_locked(conn, req);
        }
    }
    return vfio_user_conn_lose_pending_locked(conn, orphans);
}

static void vfio_user_conn_finish_orphans(VFIOUserRequest *list)
{
    while (list) {
        VFIOUserRequest *req = list;

        list = req->next;
        vfio_user_conn_drop_dups(req);
        req->done(req);
    }
}

/* The first reason counts. Returns false when there was one. */
static bool vfio_user_conn_end_locked(VFIOUserConn *conn, Error *err,
                                      VFIOUserRequest **orphans)
{
    VFIOUserWaiter *w;

    if (conn->failed) {
        return false;
    }
    qatomic_set(&conn->failed, true);
    conn->error = err;
    conn->nr_failing++;
    QTAILQ_FOREACH(w, &conn->waiters, next) {
        qemu_cond_signal(&w->cond);
    }
    *orphans = vfio_user_conn_end_requests_locked(conn);
    return true;
}

static void vfio_user_conn_end(VFIOUserConn *conn, const unsigned *life,
                               Error *err)
{
    VFIOUserRequest *orphans = NULL;
    bool ended, tell;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        ended = (!life || *life == conn->life) &&
                vfio_user_conn_end_locked(conn, err, &orphans);
        tell = !conn->closing;
    }
    if (!ended) {
        error_free(err);
        return;
    }
    trace_vfio_user_conn_failed(conn->name, error_get_pretty(err));
    /* First: a server that sees this socket closed may close its other one. */
    if (tell) {
        conn->ops->failed(conn->opaque);
    }
    /* Wakes a driver in poll(). The descriptor lives until all have left. */
    shutdown(conn->chan.fd, SHUT_RDWR);
    vfio_user_conn_finish_orphans(orphans);
    QEMU_LOCK_GUARD(&conn->lock);
    conn->nr_failing--;
    qemu_cond_broadcast(&conn->rx_idle);
}

void vfio_user_conn_fail(VFIOUserConn *conn, Error *err)
{
    vfio_user_conn_end(conn, NULL, err);
}

void vfio_user_conn_fail_life(VFIOUserConn *conn, unsigned life, Error *err)
{
    vfio_user_conn_end(conn, &life, err);
}

void vfio_user_conn_close(VFIOUserConn *conn)
{
    Error *err = NULL;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        conn->closing = true;
    }
    error_setg(&err, "closed");
    vfio_user_conn_fail(conn, err);
}

void vfio_user_conn_stop(VFIOUserConn *conn)
{
    vfio_user_conn_close(conn);
    vfio_user_conn_bg_stop(conn);
}

void vfio_user_conn_free(VFIOUserConn *conn)
{
    vfio_user_conn_stop(conn);
    vfio_user_conn_rx_cleanup(conn);
    vfio_user_conn_tx_lose(conn);
    vfio_user_chan_cleanup(&conn->chan);
    event_notifier_cleanup(&conn->kick);
    qemu_cond_destroy(&conn->rx_idle);
    qemu_mutex_destroy(&conn->lock);
    qemu_mutex_destroy(&conn->send_lock);
    error_free(conn->error);
    g_free(conn->name);
    g_free(conn);
}

/* A new life -------------------------------------------------------------- */

/*
 * Nobody uses the old socket any more. Whoever does is about to find out that
 * it has failed, and takes no lock of the caller's on the way.
 */
static void vfio_user_conn_quiesce(VFIOUserConn *conn)
{
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        while (conn->driver || conn->rx_busy || conn->nr_failing) {
            qemu_cond_wait(&conn->rx_idle, &conn->lock);
        }
    }
    vfio_user_conn_tx_lose(conn);
    vfio_user_conn_rx_cleanup(conn);
}

/*
 * No reply comes to what was asked before. A sender finds that out by itself,
 * and lets go of its slot then. Returns the requests that nobody waits for.
 */
static VFIOUserRequest *vfio_user_conn_renew_slots_locked(VFIOUserConn *conn)
{
    VFIOUserRequest *orphans = vfio_user_conn_end_requests_locked(conn);

    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        VFIOUserConnSlot *slot = &conn->slots[i];

        if (slot->used && !slot->sending) {
            vfio_user_conn_put_slot_locked(conn, slot);
        }
    }
    return orphans;
}

/* Nobody waits for a reply, though one may come that somebody gave up. */
static bool vfio_user_conn_is_idle(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->lock);

    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        if (conn->slots[i].req || conn->slots[i].sending) {
            return false;
        }
    }
    return QSIMPLEQ_EMPTY(&conn->pending) && !conn->failed;
}

/* Nobody who is still sending on the old socket has a slot that is needed. */
static bool vfio_user_conn_can_take_locked(const VFIOUserConn *conn,
                                           const VFIOUserConn *from)
{
    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        if (from->slots[i].used && conn->slots[i].sending) {
            return false;
        }
    }
    return true;
}

/* Those of replies that may still come. All others are free, or being sent from. */
static void vfio_user_conn_take_slots_locked(VFIOUserConn *conn,
                                             VFIOUserConn *from)
{
    conn->nr_free = 0;
    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        VFIOUserConnSlot *slot = &conn->slots[i];

        if (from->slots[i].used) {
            *slot = from->slots[i];
            slot->life = conn->life + 1;
            from->slots[i].used = false;
        } else if (!slot->used) {
            conn->free_slots[conn->nr_free++] = i;
        }
    }
    if (conn->rx.slot) {
        conn->rx.slot = &conn->slots[conn->rx.slot - from->slots];
    }
}

/*
 * The socket, and what has been received of it already. Locks of @conn held.
 * Returns requests of the old one that nobody waits for.
 */
static VFIOUserRequest *vfio_user_conn_move_locked(VFIOUserConn *conn,
                                                   VFIOUserConn *from)
{
    VFIOUserRequest *orphans = vfio_user_conn_renew_slots_locked(conn);
    VFIOUserConnTx *tx;

    vfio_user_chan_cleanup(&conn->chan);
    conn->chan = from->chan;
    vfio_user_chan_init(&from->chan, -1);
    conn->rx = from->rx;
    memset(&from->rx, 0, sizeof(from->rx));
    vfio_user_conn_take_slots_locked(conn, from);
    while ((tx = QSIMPLEQ_FIRST(&from->tx_queue))) {
        QSIMPLEQ_REMOVE_HEAD(&from->tx_queue, next);
        QSIMPLEQ_INSERT_TAIL(&conn->tx_queue, tx, next);
    }
    qatomic_set(&conn->tx_pending, !QSIMPLEQ_EMPTY(&conn->tx_queue));
    qatomic_set(&from->tx_pending, false);
    qatomic_set(&conn->nr_backlog, from->nr_backlog);
    qatomic_set(&from->nr_backlog, 0);
    conn->nr_commands = from->nr_commands;
    from->nr_commands = 0;
    conn->max_xfer = from->max_xfer;
    qatomic_set(&conn->lockstep, from->lockstep);
    qatomic_set(&conn->no_commands, from->no_commands);
    qatomic_set(&conn->left, false);
    qatomic_set(&conn->stuck, false);
    conn->poll = from->poll;
    vfio_user_stats_add(&conn->stats, &from->stats, get_clock());
    error_free(conn->error);
    conn->error = NULL;
    qatomic_set(&conn->life, conn->life + 1);
    qatomic_set(&conn->failed, false);
    return orphans;
}

bool vfio_user_conn_adopt(VFIOUserConn *conn, VFIOUserConn *from)
{
    VFIOUserRequest *orphans = NULL;
    AioContext *ctx;
    bool ok;

    assert(vfio_user_conn_broken(conn));
    vfio_user_conn_bg_stop(conn);
    ctx = vfio_user_conn_bg_stop(from);
    if (!vfio_user_conn_is_idle(from)) {
        return false;
    }
    vfio_user_conn_quiesce(conn);
    WITH_QEMU_LOCK_GUARD(&conn->send_lock) {
        QEMU_LOCK_GUARD(&conn->lock);
        ok = vfio_user_conn_can_take_locked(conn, from);
        if (ok) {
            orphans = vfio_user_conn_move_locked(conn, from);
        }
    }
    if (!ok) {
        return false;
    }
    trace_vfio_user_conn_adopt(conn->name, conn->life);
    vfio_user_conn_finish_orphans(orphans);
    vfio_user_conn_start(conn, ctx);
    return true;
}

void vfio_user_conn_rebind(VFIOUserConn *conn, void *opaque)
{
    AioContext *ctx = vfio_user_conn_bg_stop(conn);

    conn->opaque = opaque;
    /* The other one was told, and this one would never be. */
    if (vfio_user_conn_broken(conn)) {
        conn->ops->failed(opaque);
    }
    vfio_user_conn_start(conn, ctx);
}

/* State ------------------------------------------------------------------- */

unsigned vfio_user_conn_life(VFIOUserConn *conn)
{
    return qatomic_read(&conn->life);
}

void vfio_user_conn_set_stuck(VFIOUserConn *conn)
{
    qatomic_set(&conn->stuck, true);
}

bool vfio_user_conn_stuck(VFIOUserConn *conn)
{
    return qatomic_read(&conn->stuck);
}

bool vfio_user_conn_left(VFIOUserConn *conn)
{
    return qatomic_read(&conn->left);
}

void vfio_user_conn_set_left(VFIOUserConn *conn)
{
    qatomic_set(&conn->left, true);
}

bool vfio_user_conn_broken(VFIOUserConn *conn)
{
    return qatomic_read(&conn->failed);
}

Error *vfio_user_conn_error(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->lock);
    return conn->error ? error_copy(conn->error) : NULL;
}

/* Counters ---------------------------------------------------------------- */

/* How many wait for replies, and for how long the first of them has. */
static void vfio_user_conn_count_pending_locked(VFIOUserConn *conn,
                                                int64_t now_ns,
                                                VFIOUserConnPending *pending)
{
    for (unsigned i = 0; i < VFIO_USER_CONN_MAX_REQUESTS; i++) {
        const VFIOUserConnSlot *slot = &conn->slots[i];

        if (slot->req && !slot->replied) {
            pending->nr++;
            pending->oldest_ns = MAX(pending->oldest_ns,
                                     now_ns - slot->since_ns);
        }
    }
}

void vfio_user_conn_add_stats(VFIOUserConn *conn, VFIOUserStats *stats,
                              VFIOUserConnPending *pending)
{
    QEMU_LOCK_GUARD(&conn->send_lock);
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        int64_t now_ns = get_clock();

        vfio_user_stats_add(stats, &conn->stats, now_ns);
        vfio_user_conn_count_pending_locked(conn, now_ns, pending);
    }
}

void vfio_user_conn_take_stats(VFIOUserConn *conn, VFIOUserConn *from)
{
    QEMU_LOCK_GUARD(&conn->send_lock);
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        vfio_user_stats_add(&conn->stats, &from->stats, get_clock());
    }
}

int64_t vfio_user_conn_stats_since(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->lock);
    return conn->stats.since_ns;
}

void vfio_user_conn_reset_stats(VFIOUserConn *conn)
{
    QEMU_LOCK_GUARD(&conn->send_lock);
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        vfio_user_stats_reset(&conn->stats, get_clock());
    }
}
