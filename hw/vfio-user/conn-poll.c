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
 * Spinning must win clearly, since it costs a core, and once it is in use it
 * stays until it does not win at all, so that the choice does not flip with
 * every breath of the machine. A spin that has not found its reply after twice
 * the time that spins usually take will not find it: the server has no core to
 * run on, perhaps because it waits for ours. Then the thread sleeps after all,
 * and the average says what that cost.
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
    conn->poll.max_ns = max_us * (int64_t)SCALE_US;
}

int64_t vfio_user_conn_poll_begin_locked(VFIOUserConn *conn)
{
    bool spin = conn->poll.spin;

    if (!conn->poll.max_ns) {
        return 0;
    }
    if (conn->poll.nr_waits++ % VFIO_USER_POLL_PERIOD < VFIO_USER_POLL_TRIES) {
        spin = !spin;
    }
    if (!spin) {
        return 0;
    }
    return conn->poll.found_ns ? MIN(conn->poll.max_ns,
                                     2 * conn->poll.found_ns + SCALE_US)
                               : conn->poll.max_ns;
}

static void vfio_user_conn_poll_average(int64_t *avg, int64_t ns)
{
    *avg = *avg ? (*avg * (VFIO_USER_POLL_WEIGHT - 1) + ns) /
                  VFIO_USER_POLL_WEIGHT : ns;
}

void vfio_user_conn_poll_end_locked(VFIOUserConn *conn, int64_t limit_ns,
                                    int64_t ns)
{
    int64_t sleeping, spinning;

    if (!conn->poll.max_ns) {
        return;
    }
    if (limit_ns && ns < limit_ns) {
        vfio_user_conn_poll_average(&conn->poll.found_ns, ns);
    }
    /* One very long wait says something about the server only. */
    vfio_user_conn_poll_average(&conn->poll.avg_ns[limit_ns > 0],
                                MIN(ns, 4 * conn->poll.max_ns));
    sleeping = conn->poll.avg_ns[0];
    spinning = conn->poll.avg_ns[1];
    if (sleeping && spinning) {
        conn->poll.spin = spinning < (conn->poll.spin ? sleeping
                                                      : sleeping * 7 / 8);
    }
}
