/*
 * vfio-user: requests that are waited for, but not until they are sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_QUEUED_H
#define HW_VFIO_USER_QUEUED_H

#include "conn.h"

/**
 * VFIOUserQueued: first member of what is sent, which comes from g_malloc()
 * @req: its @done is taken; @timeout_ms counts from submission
 * @refs: the sender's, and the connection's until there is an outcome
 */
typedef struct VFIOUserQueued {
    VFIOUserRequest req;
    VFIOUserConn *conn;
    int refs;
} VFIOUserQueued;

/**
 * vfio_user_queued_submit: send it when there is a slot and room
 *
 * Never waits: vfio_user_conn_submit() without @done does, in lockstep for the answer
 * to what was sent before. What @req points to is part of the same memory. The caller
 * gives it back by vfio_user_queued_put(). Any thread.
 */
void vfio_user_queued_submit(VFIOUserConn *conn, VFIOUserQueued *q);

/**
 * vfio_user_queued_wait: wait for its outcome
 * @until: as for vfio_user_conn_wait_until()
 *
 * Returns true when the outcome is in @q->req, which may be -ETIMEDOUT; false when
 * there is none and its deadline has not passed. One thread at a time.
 */
bool vfio_user_queued_wait(VFIOUserQueued *q, int64_t until);

/* It is not needed any more, whether there is an outcome or not. */
void vfio_user_queued_put(VFIOUserQueued *q);

#endif /* HW_VFIO_USER_QUEUED_H */
