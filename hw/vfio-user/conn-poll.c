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
 * average is used, and now and then the other kind is tried: a few times in a
 * row, to see past a single odd one, and their mean replaces what was known of
 * it. Soon at first and after each change of mind, then seldom, so that the
 * tries stay out of the slowest percent.
 *
 * Spinning must win clearly, since it costs a core, and once it is in use it
 * stays until it does not win at all, so that the choice does not flip with
 * every breath of the machine. A spin that has not found its reply after twice
 * the time that spins usually take will not find it: the server has no core to
 * run on, perhaps because it waits for ours. Then the thread sleeps after all,
 * and the average says what that cost. Tries have the whole limit: what spins
 * took long ago says nothing.
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "conn-int.h"

/* Waits from one series of tries to the next, and how many it has */
#define VFIO_USER_POLL_PERIOD_MIN   16
#define VFIO_USER_POLL_PERIOD_MAX   1024
#define VFIO_USER_POLL_TRIES        4
#define VFIO_USER_POLL_WEIGHT       8       /* of the past in the average */

void vfio_user_conn_set_poll(VFIOUserConn *conn, unsigned max_us)
{
    QEMU_LOCK_GUARD(&conn->lock);
    conn->poll.max_ns = max_us * (int64_t)SCALE_US;
    conn->poll.period = VFIO_USER_POLL_PERIOD_MIN;
}

int64_t vfio_user_conn_poll_begin_locked(VFIOUserConn *conn)
{
    if (!conn->poll.max_ns) {
        return 0;
    }
    if (!conn->poll.tries && ++conn->poll.nr_waits >= conn->poll.period) {
        conn->poll.nr_waits = 0;
        conn->poll.period = MIN(conn->poll.period * 2,
                                VFIO_USER_POLL_PERIOD_MAX);
        conn->poll.tries = VFIO_USER_POLL_TRIES;
        conn->poll.tried_ns = 0;
    }
    if (conn->poll.tries) {
        return conn->poll.spin ? 0 : conn->poll.max_ns;
    }
    if (!conn->poll.spin) {
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

/* Which of the two from now on? */
static void vfio_user_conn_poll_choose(VFIOUserConn *conn)
{
    int64_t sleeping = conn->poll.avg_ns[0], spinning = conn->poll.avg_ns[1];
    bool spin = sleeping && spinning &&
                spinning < (conn->poll.spin ? sleeping : sleeping * 7 / 8);

    if (spin != conn->poll.spin) {
        conn->poll.spin = spin;
        conn->poll.nr_waits = 0;
        conn->poll.period = VFIO_USER_POLL_PERIOD_MIN;
    }
}

void vfio_user_conn_poll_end_locked(VFIOUserConn *conn, int64_t limit_ns,
                                    int64_t ns)
{
    bool spun = limit_ns > 0;

    if (!conn->poll.max_ns) {
        return;
    }
    if (spun && ns < limit_ns) {
        vfio_user_conn_poll_average(&conn->poll.found_ns, ns);
    }
    /* One very long wait says something about the server only. */
    ns = MIN(ns, 4 * conn->poll.max_ns);
    if (!conn->poll.tries) {
        vfio_user_conn_poll_average(&conn->poll.avg_ns[spun], ns);
    } else {
        conn->poll.tried_ns += ns;
        if (--conn->poll.tries) {
            return;
        }
        conn->poll.avg_ns[spun] = conn->poll.tried_ns / VFIO_USER_POLL_TRIES;
    }
    vfio_user_conn_poll_choose(conn);
}
