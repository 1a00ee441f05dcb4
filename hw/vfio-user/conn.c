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

static bool vfio_user_conn_has_slot(const VFIOUserConn *conn)
{
    if (conn->lockstep) {
        return conn->nr_free == VFIO_USER_CONN_MAX_REQUESTS &&
               !conn->nr_commands;
    }
    return conn->nr_free > 0;
}

/* Those that nobody waits for go first: they have no say in when they are sent. */
static bool vfio_user_conn_may_claim(VFIOUserConn *conn, const void *key)
{
    return QSIMPLEQ_EMPTY(&conn->pending) && vfio_user_conn_has_slot(conn);
}

/*
 * In lockstep a reply that never comes stops all that would be asked after it. Returns
 * for how long the server has owed one to somebody who no longer waits for it, in ms.
 */
static int64_t vfio_user_conn_overdue_ms(VFIOUserConn *conn)
{
    int64_t since_ns = INT64_MAX;

    QEMU_LOCK_GUARD(&conn->lock);
    for (unsigned i = 0; conn->lockstep && i < VFIO_USER_CONN_MAX_REQUESTS;
         i++) {
        const VFIOUserConnSlot *slot = &conn->slots[i];

        if (slot->used && !slot->req && !slot->sending) {
            since_ns = MIN(since_ns, slot->since_ns);
        }
    }
    return since_ns == INT64_MAX ? 0 : (get_clock() - since_ns) / SCALE_MS;
}

/* A server that is only slow has had its time. */
static void vfio_user_conn_check_overdue(VFIOUserConn *conn)
{
    int64_t ms = vfio_user_conn_overdue_ms(conn);
    Error *err = NULL;

    if (ms > VFIO_USER_CONN_OVERDUE * (int64_t)conn->timeout_ms) {
        error_setg(&err, "the server has not answered a command for %" PRId64
                   " ms, and having no second socket it can be asked nothing "
                   "else", ms);
        vfio_user_conn_fail(conn, err);
    }
}

bool vfio_user_conn_can_submit_locked(VFIOUserConn *conn)
{
    return !QSIMPLEQ_EMPTY(&conn->pending) && !conn->failed &&
           vfio_user_conn_has_slot(conn);
}

static VFIOUserLatencyKind vfio_user_conn_kind(const VFIOUserRequest *req)
{
    return req->command == VFIO_USER_REGION_READ ||
           req->command == VFIO_USER_REGION_WRITE ?
           VFIO_USER_LATENCY_ACCESS : VFIO_USER_LATENCY_OTHER;
}

static VFIOUserConnSlot *vfio_user_conn_get_slot_locked(VFIOUserConn *conn,
                                                        VFIOUserRequest *req,
                                                        int64_t now_ns)
{
    VFIOUserConnSlot *slot;

    if (!vfio_user_conn_has_slot(conn)) {
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
    slot->timed = !req->done;
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
    if (!conn->driver && vfio_user_conn_can_submit_locked(conn)) {
        vfio_user_conn_bg_kick_locked(conn);
    }
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
    } else if (ret != -EAGAIN) {
        u->given_up++;
    }
    req->ret = ret;
    req->in_len = 0;
    req->nr_in_fds = 0;
    req->state = ret == -EAGAIN ? VFIO_USER_REQUEST_IDLE :
                                  VFIO_USER_REQUEST_DONE;
}

static int64_t vfio_user_conn_timeout_us(VFIOUserConn *conn,
                                         const VFIOUserRequest *req)
{
    return (req->timeout_ms ? req->timeout_ms : conn->timeout_ms) *
           (int64_t)1000;
}

/* As g_get_monotonic_time(), which is the same clock. */
static int64_t vfio_user_conn_deadline(VFIOUserConn *conn,
                                       const VFIOUserRequest *req,
                                       int64_t now_ns)
{
    return MIN(now_ns / SCALE_US + vfio_user_conn_timeout_us(conn, req),
               conn->until);
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
                                              int64_t now_ns, int64_t until)
{
    VFIOUserConnSlot *slot = NULL;
    bool lost;

    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_wait_locked(conn, vfio_user_conn_may_claim, conn, until);
    lost = conn->failed || (req->life && req->life != conn->life);
    if (!lost && QSIMPLEQ_EMPTY(&conn->pending)) {
        slot = vfio_user_conn_get_slot_locked(conn, req, now_ns);
    }
    if (slot) {
        req->id = slot->id;
    } else {
        vfio_user_conn_finish_locked(conn, req, lost ? -EPIPE :
                                     until < req->deadline ? -EAGAIN :
                                     -ETIMEDOUT);
    }
    return slot;
}

/* The driver is not in @req's memory. */
static void vfio_user_conn_wait_idle_locked(VFIOUserConn *conn,
                                            const VFIOUserRequest *req)
{
    while (conn->rx_busy && conn->rx.req == req) {
        qemu_cond_wait(&conn->rx_idle, &conn->lock);
    }
}

/* Nor will it come back to it. */
static void vfio_user_conn_detach_locked(VFIOUserConn *conn,
                                         VFIOUserRequest *req)
{
    vfio_user_conn_wait_idle_locked(conn, req);
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
 * The message is out (@ret is 0, -EINPROGRESS or -EPIPE) or never will be. Until now
 * the slot stayed ours, whatever the server may have answered meanwhile. Returns
 * true when @req has its outcome; sets @kick when the driver must be told of the
 * slot.
 */
static bool vfio_user_conn_sent_locked(VFIOUserConn *conn,
                                       VFIOUserConnSlot *slot,
                                       VFIOUserRequest *req, int ret,
                                       bool *kick)
{
    bool unsent = ret && ret != -EINPROGRESS && ret != -EPIPE;
    bool receiving;

    if (unsent || conn->failed) {
        vfio_user_conn_wait_idle_locked(conn, req);
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
    if (!unsent && !(conn->failed && req->done)) {
        return false;
    }
    receiving = conn->rx.slot == slot;
    vfio_user_conn_detach_locked(conn, req);
    if (unsent && !receiving) {
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

bool vfio_user_conn_submit_until(VFIOUserConn *conn, VFIOUserRequest *req,
                                 int64_t until)
{
    int64_t now_ns = get_clock();
    VFIO_USER_UNINITIALIZED VFIOUserConnTx tx;
    VFIOUserConnSlot *slot;
    int ret;

    req->deadline = vfio_user_conn_deadline(conn, req, now_ns);
    until = MIN(until, req->deadline);
    req->state = VFIO_USER_REQUEST_PENDING;
    slot = vfio_user_conn_claim(conn, req, now_ns, until);
    if (slot) {
        vfio_user_conn_set_tx(&tx, slot->life, req, 0);
        trace_vfio_user_conn_request(conn->name, req->id, req->command,
                                     tx.header.size, req->nr_fds);
        ret = vfio_user_conn_send(conn, &tx, until);
        vfio_user_conn_sent(conn, slot, req,
                            ret == -ETIMEDOUT && until < req->deadline ?
                            -EAGAIN : ret);
    } else if (qatomic_read(&conn->lockstep)) {
        vfio_user_conn_check_overdue(conn);
    }
    return req->state != VFIO_USER_REQUEST_IDLE;
}

/* Requests that nobody waits for --------------------------------------------- */

static void vfio_user_conn_close_dups(int *dups, unsigned nr)
{
    for (unsigned i = 0; dups && i < nr; i++) {
        close(dups[i]);
    }
    g_free(dups);
}

void vfio_user_conn_drop_dups(VFIOUserRequest *req)
{
    vfio_user_conn_close_dups(g_steal_pointer(&req->dups), req->nr_fds);
}

/*
 * It has a slot, and room in the socket is made for it if there is none. @req may
 * be gone when it is out.
 */
static void vfio_user_conn_send_later(VFIOUserConn *conn,
                                      VFIOUserConnSlot *slot,
                                      VFIOUserRequest *req)
{
    int *dups = g_steal_pointer(&req->dups);
    unsigned nr_dups = req->nr_fds;
    VFIO_USER_UNINITIALIZED VFIOUserConnTx tx;

    vfio_user_conn_set_tx(&tx, slot->life, req, 0);
    trace_vfio_user_conn_request(conn->name, req->id, req->command,
                                 tx.header.size, req->nr_fds);
    if (vfio_user_conn_sent(conn, slot, req,
                            vfio_user_conn_tx_later(conn, &tx))) {
        req->done(req);
    }
    vfio_user_conn_close_dups(dups, nr_dups);
}

/* Its descriptors are the caller's, who goes on. Returns 0 or -errno. */
static int vfio_user_conn_dup_fds(VFIOUserRequest *req)
{
    int *dups = g_new(int, req->nr_fds);

    for (unsigned i = 0; i < req->nr_fds; i++) {
        dups[i] = fcntl(req->fds[i], F_DUPFD_CLOEXEC, 0);
        if (dups[i] < 0) {
            int ret = -errno;

            vfio_user_conn_close_dups(dups, i);
            return ret;
        }
    }
    req->fds = req->dups = dups;
    return 0;
}

void vfio_user_conn_submit_pending(VFIOUserConn *conn)
{
    while (!QSIMPLEQ_EMPTY_ATOMIC(&conn->pending)) {
        VFIOUserConnSlot *slot;
        VFIOUserRequest *req;

        WITH_QEMU_LOCK_GUARD(&conn->lock) {
            req = QSIMPLEQ_FIRST(&conn->pending);
            slot = req && !conn->failed ?
                   vfio_user_conn_get_slot_locked(conn, req, get_clock()) : NULL;
            if (slot) {
                QSIMPLEQ_REMOVE_HEAD(&conn->pending, pending);
                req->id = slot->id;
                if (QSIMPLEQ_EMPTY(&conn->pending)) {
                    vfio_user_conn_wake_locked(conn, conn);
                }
            }
        }
        if (!slot) {
            return;
        }
        vfio_user_conn_send_later(conn, slot, req);
    }
}

VFIOUserRequest *vfio_user_conn_lose_pending_locked(VFIOUserConn *conn,
                                                    VFIOUserRequest *orphans)
{
    VFIOUserRequest *req;

    while ((req = QSIMPLEQ_FIRST(&conn->pending))) {
        QSIMPLEQ_REMOVE_HEAD(&conn->pending, pending);
        vfio_user_conn_finish_locked(conn, req, -EPIPE);
        req->next = orphans;
        orphans = req;
    }
    return orphans;
}

/*
 * Those that found no slot for the time of a message: the server answers nothing. Noticed
 * when another one comes, so that they do not become more and more.
 */
static void vfio_user_conn_expire_pending(VFIOUserConn *conn)
{
    VFIOUserRequest *late = NULL, *req;

    if (QSIMPLEQ_EMPTY_ATOMIC(&conn->pending)) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&conn->lock) {
        while ((req = QSIMPLEQ_FIRST(&conn->pending)) &&
               req->deadline <= g_get_monotonic_time()) {
            QSIMPLEQ_REMOVE_HEAD(&conn->pending, pending);
            vfio_user_conn_finish_locked(conn, req, -ETIMEDOUT);
            req->next = late;
            late = req;
        }
    }
    while ((req = late)) {
        late = req->next;
        vfio_user_conn_drop_dups(req);
        req->done(req);
    }
}

/*
 * Take a slot or, if there is none, let whoever drives do it when there is one.
 * @slot is NULL then. Returns 0 or -EPIPE; -EAGAIN when its descriptors have to be
 * duplicated first.
 */
static int vfio_user_conn_enqueue(VFIOUserConn *conn, VFIOUserRequest *req,
                                  VFIOUserConnSlot **slot)
{
    QEMU_LOCK_GUARD(&conn->lock);
    *slot = NULL;
    if (conn->failed || (req->life && req->life != conn->life)) {
        return -EPIPE;
    }
    if (QSIMPLEQ_EMPTY(&conn->pending)) {
        *slot = vfio_user_conn_get_slot_locked(conn, req, get_clock());
    }
    if (*slot) {
        req->id = (*slot)->id;
    } else if (req->nr_fds && !req->dups) {
        return -EAGAIN;
    } else {
        QSIMPLEQ_INSERT_TAIL(&conn->pending, req, pending);
    }
    return 0;
}

static void vfio_user_conn_submit_done(VFIOUserConn *conn,
                                       VFIOUserRequest *req)
{
    VFIOUserConnSlot *slot;
    int ret;

    vfio_user_conn_expire_pending(conn);
    req->state = VFIO_USER_REQUEST_PENDING;
    req->deadline = vfio_user_conn_deadline(conn, req, get_clock());
    req->dups = NULL;
    ret = vfio_user_conn_enqueue(conn, req, &slot);
    if (ret == -EAGAIN) {
        ret = vfio_user_conn_dup_fds(req);
        if (!ret) {
            ret = vfio_user_conn_enqueue(conn, req, &slot);
        }
    }
    if (slot) {
        vfio_user_conn_send_later(conn, slot, req);
    } else if (ret) {
        WITH_QEMU_LOCK_GUARD(&conn->lock) {
            vfio_user_conn_finish_locked(conn, req, ret);
        }
        vfio_user_conn_drop_dups(req);
        req->done(req);
    }
}

void vfio_user_conn_submit(VFIOUserConn *conn, VFIOUserRequest *req)
{
    if (req->done) {
        vfio_user_conn_submit_done(conn, req);
    } else {
        vfio_user_conn_submit_until(conn, req, INT64_MAX);
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

/* Until when it may be waited for, as far as is known now. */
static int64_t vfio_user_conn_due_locked(VFIOUserConn *conn,
                                         const VFIOUserRequest *req)
{
    int64_t anew = conn->answered + vfio_user_conn_timeout_us(conn, req);

    return conn->patient ? MIN(MAX(req->deadline, anew), conn->until) :
                           req->deadline;
}

int vfio_user_conn_wait(VFIOUserConn *conn, VFIOUserRequest *req)
{
    int64_t due;
    bool done;

    QEMU_LOCK_GUARD(&conn->lock);
    do {
        due = vfio_user_conn_due_locked(conn, req);
        done = vfio_user_conn_wait_locked(conn, vfio_user_conn_is_done, req,
                                          due);
    } while (!done && !conn->failed &&
             due < vfio_user_conn_due_locked(conn, req));
    if (!done || conn->failed) {
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

bool vfio_user_conn_leave(VFIOUserConn *conn, VFIOUserRequest *req,
                          VFIOUserRequest *to)
{
    VFIOUserConnSlot *slot =
        &conn->slots[req->id % VFIO_USER_CONN_MAX_REQUESTS];

    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_wait_idle_locked(conn, req);
    if (req->state == VFIO_USER_REQUEST_DONE || conn->failed) {
        return false;
    }
    assert(slot->req == req && !slot->sending);
    if (conn->rx.req == req) {
        /* A part of the reply is there; the server may leave it at that. */
        for (unsigned i = 0; i < req->nr_in; i++) {
            memcpy(to->in[i].iov_base, req->in[i].iov_base, req->in[i].iov_len);
        }
        conn->rx.req = to;
    }
    slot->req = to;
    to->id = req->id;
    to->state = VFIO_USER_REQUEST_PENDING;
    req->state = VFIO_USER_REQUEST_IDLE;
    return true;
}

bool vfio_user_conn_cancel(VFIOUserConn *conn, VFIOUserRequest *req, int ret)
{
    VFIOUserConnSlot *slot =
        &conn->slots[req->id % VFIO_USER_CONN_MAX_REQUESTS];
    VFIOUserRequest *r;

    QEMU_LOCK_GUARD(&conn->lock);
    if (req->state == VFIO_USER_REQUEST_DONE) {
        return false;
    }
    QSIMPLEQ_FOREACH(r, &conn->pending, pending) {
        if (r == req) {
            QSIMPLEQ_REMOVE(&conn->pending, req, VFIOUserRequest, pending);
            vfio_user_conn_drop_dups(req);
            vfio_user_conn_finish_locked(conn, req, ret);
            return true;
        }
    }
    if (slot->req != req || slot->sending) {
        return false;
    }
    vfio_user_conn_abandon_locked(conn, req, ret);
    return true;
}

bool vfio_user_conn_wait_for(VFIOUserConn *conn, VFIOUserReady *ready,
                             const void *key, int64_t until)
{
    QEMU_LOCK_GUARD(&conn->lock);
    return vfio_user_conn_wait_locked(conn, ready, key, until);
}

void vfio_user_conn_wake(VFIOUserConn *conn, const void *key)
{
    QEMU_LOCK_GUARD(&conn->lock);
    vfio_user_conn_wake_locked(conn, key);
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
    vfio_user_conn_set_tx(&tx, req->life ?: vfio_user_conn_life(conn), req,
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
    vfio_user_conn_set_tx(&tx, req->life ?: vfio_user_conn_life(conn), req,
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
                              uint64_t off, const void *data, unsigned len,
                              unsigned life, unsigned timeout_ms)
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
    while ((ret = vfio_user_conn_tx_write(conn, &entry, life)) == -EAGAIN) {
        bool room;

        if (!deadline) {
            deadline = g_get_monotonic_time() +
                       (timeout_ms ?: conn->timeout_ms) * (int64_t)1000;
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
