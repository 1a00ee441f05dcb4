/*
 * vfio-user: requests, replies and the server's commands on a connection
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
 * Invariants:
 * - The driver leaves no complete message in the channel's buffer, so
 *   whatever is to be done shows as readability of the socket.
 * - A request's memory is touched only by the driver while @rx_busy. A
 *   request that gives up waits for that to end, which takes no waiting of
 *   its own. Its slot stays taken until the late reply has been dropped.
 * - @failed is set once, wakes everybody and gives every request its outcome;
 *   nothing is sent or received afterwards, unless the connection is given a
 *   new socket, a new life (conn-life.c).
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "conn-int.h"
#include "trace.h"

typedef bool VFIOUserReady(VFIOUserConn *conn, const void *key);

/* Slots -------------------------------------------------------------------- */

static bool vfio_user_conn_has_slot(VFIOUserConn *conn, const void *key)
{
    if (conn->lockstep) {
        return conn->nr_free == VFIO_USER_CONN_MAX_REQUESTS &&
               !conn->nr_commands;
    }
    return conn->nr_free > 0;
}

/* Of those that nobody waits for the reply is taken when there is time. */
static VFIOUserLatencyKind vfio_user_conn_kind(const VFIOUserRequest *req)
{
    return !req->done && (req->command == VFIO_USER_REGION_READ ||
                          req->command == VFIO_USER_REGION_WRITE) ?
           VFIO_USER_LATENCY_ACCESS : VFIO_USER_LATENCY_OTHER;
}

static VFIOUserConnSlot *vfio_user_conn_get_slot_locked(VFIOUserConn *conn,
                                                        VFIOUserRequest *req,
                                                        int64_t now_ns)
{
    VFIOUserConnSlot *slot;

    if (!vfio_user_conn_has_slot(conn, conn)) {
        return NULL;
    }
    slot = &conn->slots[conn->free_slots[--conn->nr_free]];
    slot->used = true;
    slot->sending = true;
    slot->req = req;
    slot->life = conn->life;
    slot->command = req->command;
    slot->room = iov_size(req->in, req->nr_in);
    slot->since_ns = now_ns;
    slot->kind = vfio_user_conn_kind(req);
    return slot;
}

void vfio_user_conn_put_slot_locked(VFIOUserConn *conn,
                                    VFIOUserConnSlot *slot)
{
    slot->used = false;
    slot->sending = false;
    slot->replied = false;
    slot->req = NULL;
    slot->id += VFIO_USER_CONN_MAX_REQUESTS;
    conn->free_slots[conn->nr_free++] = slot - conn->slots;
    vfio_user_conn_wake_locked(conn, conn);
}

/* Waiting ------------------------------------------------------------------ */

/* Wake those who wait for @key. */
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
    struct pollfd pfd[2] = {
        { .fd = conn->chan.fd, .events = POLLIN | (more ? POLLOUT : 0) },
        { .fd = event_notifier_get_fd(&conn->kick), .events = POLLIN },
    };

    /* What was sent may be all that the driver waits for. */
    if (sent ||
        poll(pfd, ARRAY_SIZE(pfd), vfio_user_conn_ms_left(deadline)) <= 0) {
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
    } else if (qatomic_read(&conn->tx_pending)) {
        vfio_user_conn_bg_kick_locked(conn);
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

/*
 * Called and left with @lock held. Returns true when @ready is, false when the
 * deadline passed or the connection failed first.
 */
static bool vfio_user_conn_wait_locked(VFIOUserConn *conn,
                                       VFIOUserReady *ready, const void *key,
                                       int64_t deadline)
{
    VFIOUserWaiter w = { .key = key };
    int64_t tick, now;

    if (ready(conn, key)) {
        return true;
    }
    qemu_cond_init(&w.cond);
    now = g_get_monotonic_time();
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
    /* Whoever was woken to drive and leaves passes that on. */
    vfio_user_conn_hand_over_locked(conn);
    return ready(conn, key);
}

static bool vfio_user_conn_is_done(VFIOUserConn *conn, const void *key)
{
    const VFIOUserRequest *req = key;

    return req->state == VFIO_USER_REQUEST_DONE;
}

static bool vfio_user_conn_is_sent(VFIOUserConn *conn, const void *key)
{
    const VFIOUserConnTx *tx = key;

    return tx->sent || tx->lost;
}

/* Sending ------------------------------------------------------------------ */

void vfio_user_conn_finish_locked(VFIOUserConn *conn, VFIOUserRequest *req,
                                  int ret)
{
    VFIOUserUnanswered *u =
        &conn->stats.unanswered[vfio_user_stats_index(req->command)];

    if (ret == -ETIMEDOUT) {
        u->timeouts++;
    } else {
        u->given_up++;
    }
    req->ret = ret;
    req->in_len = 0;
    req->nr_in_fds = 0;
    req->state = VFIO_USER_REQUEST_DONE;
}

/* As g_get_monotonic_time(), which is the same clock. */
static int64_t vfio_user_conn_deadline(VFIOUserConn *conn,
                                       const VFIOUserRequest *req,
                                       int64_t now_ns)
{
    return now_ns / SCALE_US +
           (req->timeout_ms ? req->timeout_ms : conn->timeout_ms) *
           (int64_t)1000;
}

static void vfio_user_conn_set_tx(VFIOUserConnTx *tx, unsigned life,
                                  const VFIOUserRequest *req, uint32_t flags)
{
    size_t size = sizeof(tx->header);

    assert(req->nr_out <= VFIO_USER_CONN_MAX_IOV);
    tx->msg.iov[0].iov_base = &tx->header;
    tx->msg.iov[0].iov_len = sizeof(tx->header);
    for (unsigned i = 0; i < req->nr_out; i++) {
        tx->msg.iov[1 + i] = req->out[i];
        size += req->out[i].iov_len;
    }
    tx->header = (struct vfio_user_header) {
        .id = req->id,
        .command = req->command,
        .size = size,
        .flags = VFIO_USER_TYPE_COMMAND | flags,
    };
    tx->msg.nr_iov = 1 + req->nr_out;
    tx->msg.fds = req->fds;
    tx->msg.nr_fds = req->nr_fds;
    tx->life = life;
    tx->free = NULL;
}

/*
 * Send and, where the socket is full, wait for room. Returns 0 when the
 * message is out or will be; -ETIMEDOUT or -EPIPE when the server never gets
 * it; -EINPROGRESS when the deadline passed with part of it out.
 */
static int vfio_user_conn_send(VFIOUserConn *conn, VFIOUserConnTx *tx,
                               int64_t deadline)
{
    int ret = vfio_user_conn_tx_send(conn, tx);
    bool over, failed;

    if (ret != -EAGAIN) {
        return ret;
    }
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        over = vfio_user_conn_wait_locked(conn, vfio_user_conn_is_sent, tx,
                                          deadline);
        failed = conn->failed;
    }
    if (over) {
        return tx->lost ? -EPIPE : 0;
    }
    if (vfio_user_conn_tx_cancel(conn, tx)) {
        return failed || vfio_user_conn_broken(conn) ? -EPIPE : -ETIMEDOUT;
    }
    vfio_user_conn_bg_kick(conn);
    if (tx->lost || failed || vfio_user_conn_broken(conn)) {
        return -EPIPE;
    }
    return tx->started ? -EINPROGRESS : 0;
}

/* A slot, or NULL with the outcome in @req. */
static VFIOUserConnSlot *vfio_user_conn_claim(VFIOUserConn *conn,
                                              VFIOUserRequest *req,
                                              int64_t now_ns)
{
    VFIOUserConnSlot *slot = NULL;

    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_wait_locked(conn, vfio_user_conn_has_slot, conn,
                               req->deadline);
    if (!conn->failed) {
        slot = vfio_user_conn_get_slot_locked(conn, req, now_ns);
    }
    if (slot) {
        req->id = slot->id;
    } else {
        vfio_user_conn_finish_locked(conn, req,
                                     conn->failed ? -EPIPE : -ETIMEDOUT);
    }
    return slot;
}

/* The driver is not in @req's memory, and will not come back to it. */
static void vfio_user_conn_detach_locked(VFIOUserConn *conn,
                                         VFIOUserRequest *req)
{
    while (conn->rx_busy && conn->rx.req == req) {
        qemu_cond_wait(&conn->rx_idle, &conn->lock);
    }
    if (conn->rx.req == req) {
        conn->rx.req = NULL;
    }
}

/* Returns true when the driver may be waiting for this very slot, in poll(). */
static bool vfio_user_conn_put_sent_slot_locked(VFIOUserConn *conn,
                                                VFIOUserConnSlot *slot)
{
    vfio_user_conn_put_slot_locked(conn, slot);
    return conn->driver_polls && (conn->lockstep || conn->nr_free == 1);
}

/*
 * The message is out, or never will be (@ret). Until now the slot stayed
 * ours, whatever the server may have answered meanwhile. Returns true when @req
 * has its outcome; sets @kick when the driver must be told of the slot.
 */
static bool vfio_user_conn_sent_locked(VFIOUserConn *conn,
                                       VFIOUserConnSlot *slot,
                                       VFIOUserRequest *req, int ret,
                                       bool *kick)
{
    bool receiving;

    if (ret == -ETIMEDOUT || conn->failed) {
        while (conn->rx_busy && conn->rx.req == req) {
            qemu_cond_wait(&conn->rx_idle, &conn->lock);
        }
    }
    slot->sending = false;
    if (slot->replied) {
        *kick = vfio_user_conn_put_sent_slot_locked(conn, slot);
        return true;
    }
    if (slot->life != conn->life) {
        *kick = vfio_user_conn_put_sent_slot_locked(conn, slot);
        vfio_user_conn_finish_locked(conn, req, -EPIPE);
        return true;
    }
    if (ret != -ETIMEDOUT && !(conn->failed && req->done)) {
        return false;
    }
    receiving = conn->rx.slot == slot;
    vfio_user_conn_detach_locked(conn, req);
    if (ret == -ETIMEDOUT && !receiving) {
        /* The server never saw it: there will be no reply to drop. */
        *kick = vfio_user_conn_put_sent_slot_locked(conn, slot);
    } else {
        slot->req = NULL;
    }
    vfio_user_conn_finish_locked(conn, req, conn->failed ? -EPIPE : ret);
    return true;
}

static bool vfio_user_conn_sent(VFIOUserConn *conn, VFIOUserConnSlot *slot,
                                VFIOUserRequest *req, int ret)
{
    bool finished, kick = false;

    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        finished = vfio_user_conn_sent_locked(conn, slot, req, ret, &kick);
    }
    if (kick) {
        event_notifier_set(&conn->kick);
    }
    return finished;
}

void vfio_user_conn_submit(VFIOUserConn *conn, VFIOUserRequest *req)
{
    void (*done)(VFIOUserRequest *req) = req->done;
    int64_t now_ns = get_clock();
    int64_t deadline = vfio_user_conn_deadline(conn, req, now_ns);
    VFIO_USER_UNINITIALIZED VFIOUserConnTx tx;
    VFIOUserConnSlot *slot;
    bool finished = true;

    req->deadline = deadline;
    req->state = VFIO_USER_REQUEST_PENDING;
    slot = vfio_user_conn_claim(conn, req, now_ns);
    if (slot) {
        int ret;

        vfio_user_conn_set_tx(&tx, slot->life, req, 0);
        trace_vfio_user_conn_request(conn->name, req->id, req->command,
                                     tx.header.size, req->nr_fds);
        ret = vfio_user_conn_send(conn, &tx, deadline);
        finished = vfio_user_conn_sent(conn, slot, req, ret);
    }
    if (finished && done) {
        done(req);
    }
}

/*
 * The request gives up, or its connection did: take its memory back. @ret is
 * why, while there is a connection.
 */
static void vfio_user_conn_abandon_locked(VFIOUserConn *conn,
                                          VFIOUserRequest *req, int ret)
{
    VFIOUserConnSlot *slot =
        &conn->slots[req->id % VFIO_USER_CONN_MAX_REQUESTS];

    vfio_user_conn_detach_locked(conn, req);
    if (req->state == VFIO_USER_REQUEST_DONE) {
        return;
    }
    if (slot->req == req) {
        slot->req = NULL;
    }
    vfio_user_conn_finish_locked(conn, req, conn->failed ? -EPIPE : ret);
    trace_vfio_user_conn_give_up(conn->name, req->id, req->command, req->ret);
}

/*
 * Bytes of the reply that are in the channel's buffer have not begun to arrive:
 * the driver looks at @in when it moves them.
 */
bool vfio_user_conn_redirect(VFIOUserConn *conn, VFIOUserRequest *req,
                             struct iovec *in, void *buf)
{
    QEMU_LOCK_GUARD(&conn->lock);

    if (req->state == VFIO_USER_REQUEST_DONE || conn->rx.req == req) {
        return false;
    }
    in->iov_base = buf;
    return true;
}

int vfio_user_conn_wait(VFIOUserConn *conn, VFIOUserRequest *req)
{
    QEMU_LOCK_GUARD(&conn->lock);

    if (!vfio_user_conn_wait_locked(conn, vfio_user_conn_is_done, req,
                                    req->deadline) || conn->failed) {
        vfio_user_conn_abandon_locked(conn, req, -ETIMEDOUT);
    }
    req->state = VFIO_USER_REQUEST_IDLE;
    return req->ret;
}

bool vfio_user_conn_wait_until(VFIOUserConn *conn, VFIOUserRequest *req,
                               int64_t until)
{
    bool done;

    QEMU_LOCK_GUARD(&conn->lock);
    done = vfio_user_conn_wait_locked(conn, vfio_user_conn_is_done, req,
                                      MIN(until, req->deadline));
    if (!done && !conn->failed && g_get_monotonic_time() < req->deadline) {
        return false;
    }
    if (!done || conn->failed) {
        vfio_user_conn_abandon_locked(conn, req, -ETIMEDOUT);
    }
    req->state = VFIO_USER_REQUEST_IDLE;
    return true;
}

void vfio_user_conn_abandon(VFIOUserConn *conn, VFIOUserRequest *req)
{
    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_abandon_locked(conn, req, -ECANCELED);
    req->state = VFIO_USER_REQUEST_IDLE;
}

int vfio_user_conn_call(VFIOUserConn *conn, VFIOUserRequest *req)
{
    vfio_user_conn_submit(conn, req);
    return vfio_user_conn_wait(conn, req);
}

int vfio_user_conn_try_post(VFIOUserConn *conn, VFIOUserRequest *req)
{
    VFIO_USER_UNINITIALIZED VFIOUserConnTx tx;
    int ret;

    if (vfio_user_conn_broken(conn)) {
        return -EPIPE;
    }
    req->id = 0;
    vfio_user_conn_set_tx(&tx, qatomic_read(&conn->life), req,
                          VFIO_USER_NO_REPLY);
    ret = vfio_user_conn_tx_try(conn, &tx);
    if (ret != -EAGAIN) {
        trace_vfio_user_conn_post(conn->name, req->command, tx.header.size);
    }
    return ret;
}

int vfio_user_conn_post(VFIOUserConn *conn, VFIOUserRequest *req)
{
    VFIO_USER_UNINITIALIZED VFIOUserConnTx tx;
    int ret;

    if (vfio_user_conn_broken(conn)) {
        return -EPIPE;
    }
    req->id = 0;
    vfio_user_conn_set_tx(&tx, qatomic_read(&conn->life), req,
                          VFIO_USER_NO_REPLY);
    trace_vfio_user_conn_post(conn->name, req->command, tx.header.size);
    ret = vfio_user_conn_send(conn, &tx,
                              vfio_user_conn_deadline(conn, req, get_clock()));
    return ret == -EINPROGRESS ? 0 : ret;
}

static bool vfio_user_conn_has_backlog_room(VFIOUserConn *conn,
                                            const void *key)
{
    return qatomic_read(&conn->nr_backlog) < VFIO_USER_CONN_MAX_BACKLOG;
}

int vfio_user_conn_post_write(VFIOUserConn *conn, uint32_t region,
                              uint64_t off, const void *data, unsigned len)
{
    struct vfio_user_write_multi_entry entry = {
        .offset = off,
        .region = region,
        .count = len,
    };
    int64_t deadline = 0;
    int ret;

    assert(len <= VFIO_USER_CONN_SMALL_WRITE);
    memcpy(entry.data, data, len);
    if (vfio_user_conn_broken(conn)) {
        return -EPIPE;
    }
    trace_vfio_user_conn_post(conn->name, VFIO_USER_REGION_WRITE, len);
    while ((ret = vfio_user_conn_tx_write(conn, &entry)) == -EAGAIN) {
        bool room;

        if (!deadline) {
            deadline = g_get_monotonic_time() +
                       conn->timeout_ms * (int64_t)1000;
        }
        WITH_QEMU_LOCK_GUARD(&conn->lock) {
            room = vfio_user_conn_wait_locked(conn,
                                              vfio_user_conn_has_backlog_room,
                                              &conn->nr_backlog, deadline);
        }
        if (!room) {
            return vfio_user_conn_broken(conn) ? -EPIPE : -ETIMEDOUT;
        }
    }
    return ret;
}
