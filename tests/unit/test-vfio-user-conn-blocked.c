/*
 * vfio-user: ending a connection whose IOThread is busy with something else
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An IOThread may be shared with other devices, one of which waits there for a lock
 * (the BQL) that belongs to whoever ends the connection, or gives it another socket.
 * So none of this waits for the IOThread, and what that does when it goes on is not
 * for a connection that is gone.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-lives.h"

#define COUNT   64

/* The other device: its handler waits for what the test has. */
typedef struct Blocker {
    QemuSemaphore entered;
    QemuSemaphore lock;
} Blocker;

static void blocker_handler(void *opaque)
{
    Blocker *b = opaque;

    qemu_sem_post(&b->entered);
    qemu_sem_wait(&b->lock);
    qemu_sem_post(&b->entered);
}

static void blocker_wait(Blocker *b)
{
    g_assert_cmpint(qemu_sem_timedwait(&b->entered, PEER_DEADLINE_MS), ==, 0);
}

static void blocker_block(Blocker *b, Rig *rig)
{
    qemu_sem_init(&b->entered, 0);
    qemu_sem_init(&b->lock, 0);
    aio_bh_schedule_oneshot(iothread_get_aio_context(rig->iothread),
                            blocker_handler, b);
    blocker_wait(b);
}

static void blocker_release(Blocker *b)
{
    qemu_sem_post(&b->lock);
    blocker_wait(b);
    qemu_sem_destroy(&b->lock);
    qemu_sem_destroy(&b->entered);
}

/* In a thread that is joined within the deadline, with the IOThread blocked */
static void while_blocked(void (*func)(void *opaque), void *opaque)
{
    PeerThread t;

    peer_thread_start(&t, func, opaque);
    peer_thread_join(&t);
}

static void stop(void *opaque)
{
    Rig *rig = opaque;

    vfio_user_conn_stop(rig->conn);
}

static void test_stop(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Blocker b;

    blocker_block(&b, rig);
    while_blocked(stop, rig);
    /* The server sees that at once. */
    peer_wait_eof(rig->peer);
    blocker_release(&b);
    rig_free(rig);
}

static void free_conn(void *opaque)
{
    Rig *rig = opaque;

    vfio_user_conn_free(rig->conn);
    rig->conn = NULL;
}

/* The socket is readable, and the handler is about to be called. */
static void test_free(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Blocker b;

    rig_check_alive(rig);
    blocker_block(&b, rig);
    rig_send_dma(rig, 1, CMD_DMA_READ, 0, COUNT, 0);
    while_blocked(free_conn, rig);
    peer_wait_eof(rig->peer);
    blocker_release(&b);
    g_assert_cmpint(rig_count(rig, &rig->nr_begin), ==, 0);
    rig_free(rig);
}

/* A command of the server is served, though nobody waits. */
static void check_served(Rig *rig)
{
    rig_send_dma(rig, 7, CMD_DMA_WRITE, 4096, COUNT, 3);
    rig_expect_dma(rig, 7, CMD_DMA_WRITE, 4096, COUNT, 3);
    rig_check_alive(rig);
}

typedef struct Adoption {
    Rig *rig;
    Next next;
} Adoption;

static void adopt(void *opaque)
{
    Adoption *a = opaque;

    next_take(&a->next, a->rig);
}

static void test_adopt(void)
{
    Adoption a = { .rig = rig_new_started(peer_pair) };
    Blocker b;

    lives_lose(a.rig);
    next_init(&a.next, a.rig, peer_pair);
    blocker_block(&b, a.rig);
    while_blocked(adopt, &a);
    blocker_release(&b);
    check_served(a.rig);
    rig_free(a.rig);
}

static void rebind(void *opaque)
{
    Rig *rig = opaque;

    vfio_user_conn_rebind(rig->conn, rig);
}

static void test_rebind(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Blocker b;

    blocker_block(&b, rig);
    while_blocked(rebind, rig);
    blocker_release(&b);
    check_served(rig);
    rig_free(rig);
}

/* Whoever knows that the IOThread may be blocked does its work. */
static void test_serve(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Blocker b;

    blocker_block(&b, rig);
    rig_send_dma(rig, 7, CMD_DMA_WRITE, 4096, COUNT, 3);
    vfio_user_conn_serve(rig->conn);
    rig_expect_dma(rig, 7, CMD_DMA_WRITE, 4096, COUNT, 3);
    /* Nothing is there: nothing is waited for. */
    vfio_user_conn_serve(rig->conn);
    blocker_release(&b);
    check_served(rig);
    rig_free(rig);
}

/*
 * But a handler that is at work on the connection is waited for: after stop the owner
 * is not called any more.
 */
typedef struct InHandler {
    Rig *rig;
    Blocker b;
    int (*begin)(void *opaque, uint64_t addr, uint64_t count, bool is_write,
                 VFIOUserDMA *dma);
} InHandler;

static InHandler in_handler;

static int slow_begin(void *opaque, uint64_t addr, uint64_t count,
                      bool is_write, VFIOUserDMA *dma)
{
    blocker_handler(&in_handler.b);
    return in_handler.begin(opaque, addr, count, is_write, dma);
}

static void test_handler_at_work(void)
{
    Rig *rig = rig_new_started(peer_pair);
    Blocker *b = &in_handler.b;
    PeerThread t;

    qemu_sem_init(&b->entered, 0);
    qemu_sem_init(&b->lock, 0);
    in_handler.begin = rig->ops.dma_begin;
    rig->ops.dma_begin = slow_begin;
    rig_send_dma(rig, 1, CMD_DMA_READ, 0, COUNT, 0);
    blocker_wait(b);
    peer_thread_start(&t, free_conn, rig);
    peer_wait_eof(rig->peer);
    g_assert_nonnull(qatomic_read(&rig->conn));
    blocker_release(b);
    peer_thread_join(&t);
    g_assert_cmpint(rig_count(rig, &rig->nr_begin), ==, 1);
    g_assert_cmpint(rig_count(rig, &rig->nr_end), ==, 1);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/conn/blocked/" name, func)
    T("stop", test_stop);
    T("free", test_free);
    T("adopt", test_adopt);
    T("rebind", test_rebind);
    T("serve", test_serve);
    T("handler-at-work", test_handler_at_work);

    return g_test_run();
}
