/*
 * vfio-user: several sockets for one connection under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_VFIO_USER_LIVES_H
#define TEST_VFIO_USER_LIVES_H

#include "qemu/lockable.h"
#include "vfio-user-rig.h"

/* A connection that @rig's is going to adopt, and its peer */
typedef struct Next {
    VFIOUserConn *conn;
    int peer;
} Next;

/* Of the same owner, looked after in the same AioContext. */
static inline void next_init(Next *next, Rig *rig, void (*make)(int fd[2]))
{
    int fd[2];

    make(fd);
    next->peer = fd[1];
    next->conn = vfio_user_conn_new(fd[0], "next", &rig->ops, rig,
                                    RIG_TIMEOUT_MS);
    vfio_user_conn_set_limits(next->conn, RIG_MAX_XFER);
    vfio_user_conn_start(next->conn, iothread_get_aio_context(rig->iothread));
}

static inline void next_free(Next *next)
{
    vfio_user_conn_free(next->conn);
    if (next->peer >= 0) {
        close(next->peer);
    }
}

static inline void next_take(Next *next, Rig *rig)
{
    g_assert_true(vfio_user_conn_adopt(rig->conn, next->conn));
    g_assert_false(vfio_user_conn_broken(rig->conn));
    if (rig->peer >= 0) {
        close(rig->peer);
    }
    rig->peer = next->peer;
    next->peer = -1;
    next_free(next);
}

/* The socket is lost, and the owner has been told. */
static inline void lives_lose(Rig *rig)
{
    rig_close_peer(rig);
    rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
}

static inline void lives_begin_with(Rig *rig, void (*make)(int fd[2]))
{
    Next next;

    next_init(&next, rig, make);
    next_take(&next, rig);
}

static inline void lives_begin(Rig *rig)
{
    lives_begin_with(rig, peer_pair);
}

static inline unsigned lives_free_slots(Rig *rig)
{
    QEMU_LOCK_GUARD(&rig->conn->lock);
    return rig->conn->nr_free;
}

static inline void lives_wait(Rig *rig, bool (*ready)(Rig *rig))
{
    int64_t deadline = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;

    while (!ready(rig)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_thread_yield();
    }
}

/* In step, and nothing of a former life holds a slot. */
static inline void lives_check_slots(Rig *rig)
{
    rig_check_alive(rig);
    g_assert_cmpint(lives_free_slots(rig), ==, VFIO_USER_CONN_MAX_REQUESTS);
}

#endif /* TEST_VFIO_USER_LIVES_H */
