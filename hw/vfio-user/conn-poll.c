/*
 * vfio-user: to sleep or to spin
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A register read takes the server a few microseconds. Where the machine is
 * idle, being woken costs several times that, and a thread that looks at the
 * socket again and again has its reply sooner. Where the cores are busy, the
 * reply needs the very core that spins, and sleeping is quicker. Which of the
 * two it is depends on the machine, the load and the server, and changes; so
 * it is measured. Each wait counts into the average of its kind, the better
 * average is used, and now and then the other kind is tried: few times in a
 * row, to see past a single odd one, and seldom, so that the tries stay out of
 * the slowest percent.
 *
 * Spinning must win clearly, since it costs a core; when it does not find its
 * reply within the limit, the thread sleeps after all, and the average says
 * that there was nothing to be won.
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "conn-int.h"

#define VFIO_USER_POLL_PERIOD   1024    /* waits from one series of tries */
#define VFIO_USER_POLL_TRIES    4       /* to the next, and how many it has */
#define VFIO_USER_POLL_WEIGHT   8       /* of the past in the average */

void vfio_user_conn_set_poll(VFIOUserConn *conn, unsigned max_us)
{
    QEMU_LOCK_GUARD(&conn->lock);
    conn->poll.max_us = max_us;
}

bool vfio_user_conn_poll_begin_locked(VFIOUserConn *conn)
{
    unsigned n;

    if (!conn->poll.max_us) {
        return false;
    }
    n = conn->poll.nr_waits++ % VFIO_USER_POLL_PERIOD;
    return n < VFIO_USER_POLL_TRIES ? !conn->poll.spin : conn->poll.spin;
}

void vfio_user_conn_poll_end_locked(VFIOUserConn *conn, bool spun, int64_t ns)
{
    int64_t *avg = &conn->poll.avg_ns[spun];

    if (!conn->poll.max_us) {
        return;
    }
    /* One very long wait says something about the server only. */
    ns = MIN(ns, 4 * (int64_t)conn->poll.max_us * SCALE_US);
    *avg = *avg ? (*avg * (VFIO_USER_POLL_WEIGHT - 1) + ns) /
                  VFIO_USER_POLL_WEIGHT : ns;
    if (conn->poll.avg_ns[0] && conn->poll.avg_ns[1]) {
        conn->poll.spin = conn->poll.avg_ns[1] <
                          conn->poll.avg_ns[0] - conn->poll.avg_ns[0] / 8;
    }
}
