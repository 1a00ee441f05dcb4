/*
 * vfio-user: requests that are waited for, but not until they are sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A thread that holds the BQL may wait a little for an answer, and leave it for later.
 * It must not wait for a slot instead, which takes as long as the server likes: in
 * lockstep the only one is taken by whatever was asked before. So such a request is
 * one that nobody waits for, as the connection sees it, and takes its turn; who wants
 * to know looks whether it has its outcome. Both may be the last to look at it.
 */

#include "qemu/osdep.h"
#include "queued.h"

/* For a request that is on its way into the socket, or being answered. */
#define VFIO_USER_QUEUED_MOMENT_US  1000

static void vfio_user_queued_unref(VFIOUserQueued *q)
{
    if (qatomic_fetch_dec(&q->refs) == 1) {
        g_free(q);
    }
}

static bool vfio_user_queued_is_done(VFIOUserConn *conn, const void *key)
{
    const VFIOUserQueued *q = key;

    return q->req.state == VFIO_USER_REQUEST_DONE;
}

static void vfio_user_queued_done(VFIOUserRequest *req)
{
    VFIOUserQueued *q = container_of(req, VFIOUserQueued, req);

    vfio_user_conn_wake(q->conn, q);
    vfio_user_queued_unref(q);
}

void vfio_user_queued_submit(VFIOUserConn *conn, VFIOUserQueued *q)
{
    q->conn = conn;
    q->refs = 2;
    q->req.done = vfio_user_queued_done;
    vfio_user_conn_submit(conn, &q->req);
}

/* Returns false when it has its outcome, or that is just coming. */
static bool vfio_user_queued_give_up(VFIOUserQueued *q, int ret)
{
    if (!vfio_user_conn_cancel(q->conn, &q->req, ret)) {
        return false;
    }
    /* The connection's reference */
    vfio_user_queued_unref(q);
    return true;
}

bool vfio_user_queued_wait(VFIOUserQueued *q, int64_t until)
{
    int64_t now;
    bool broken;

    until = MIN(until, q->req.deadline);
    while (!vfio_user_conn_wait_for(q->conn, vfio_user_queued_is_done, q,
                                    until)) {
        now = g_get_monotonic_time();
        broken = vfio_user_conn_broken(q->conn);
        if (!broken && now < q->req.deadline) {
            return false;
        }
        if (vfio_user_queued_give_up(q, broken ? -EPIPE : -ETIMEDOUT)) {
            break;
        }
        until = now + VFIO_USER_QUEUED_MOMENT_US;
        g_thread_yield();
    }
    return true;
}

void vfio_user_queued_put(VFIOUserQueued *q)
{
    vfio_user_queued_give_up(q, -ECANCELED);
    vfio_user_queued_unref(q);
}
