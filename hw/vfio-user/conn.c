/*
 * vfio-user: requests on a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request has a slot, whose number is in the id of its message, from before
 * it is sent until its reply has come. So VFIO_USER_CONN_MAX_REQUESTS can be on
 * their way, and who finds no slot free waits for one. In lockstep it is one
 * request, and none while a command of the server is served. How callers wait,
 * and who reads the socket meanwhile, is in conn-wait.c.
 *
 * Invariants:
 * - A request's memory is touched only by the driver while @rx_busy. A
 *   request that gives up waits for that to end, which takes no waiting of
 *   its own. Its slot stays taken until the late reply has been dropped.
 * - @failed is set once, wakes everybody and gives every request its outcome;
 *   nothing is sent or received afterwards, unless the connection is given a
 *   new socket, a new life (conn-life.c).
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "conn-int.h"
#include "trace.h"

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

/* Sending ------------------------------------------------------------------ */

static bool vfio_user_conn_is_sent(VFIOUserConn *conn, const void *key)
{
    const VFIOUserConnTx *tx = key;

    return tx->sent || tx->lost;
}

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

/* Outcomes ----------------------------------------------------------------- */

static bool vfio_user_conn_is_done(VFIOUserConn *conn, const void *key)
{
    const VFIOUserRequest *req = key;

    return req->state == VFIO_USER_REQUEST_DONE;
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

/* Posted writes ------------------------------------------------------------ */

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
