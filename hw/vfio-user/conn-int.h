/*
 * vfio-user: what the files of the connection share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Locks, outermost first: @send_lock, @lock. Under @lock no system call is made
 * but a wake-up, under @send_lock only that and the non-blocking send.
 */

#ifndef HW_VFIO_USER_CONN_INT_H
#define HW_VFIO_USER_CONN_INT_H

#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "qemu/event_notifier.h"
#include "qapi/error.h"
#include "conn.h"
#include "chan.h"
#include "stats.h"

/* In lockstep a reply may be so many times the deadline of a request late. */
#define VFIO_USER_CONN_OVERDUE          6

/* How long to leave a kernel alone that is short of something, see conn-tx.c. */
#define VFIO_USER_CONN_RETRY_MS         10

/* Replies to the server's commands that may wait for room in the socket. */
#define VFIO_USER_CONN_MAX_REPLIES      64

/**
 * VFIOUserConnTx: a message that is being sent
 * @header: the first piece of @msg
 * @msg:    what is left of it
 * @life:   the socket that it is for; it is not sent on another
 * @started: part of it is out, the rest must follow. Under send_lock.
 * @sent:   all of it is out. Under lock.
 * @lost:   it never will be: the connection has ended, and perhaps begun anew.
 *          Under lock.
 * @free:   called when it is out or the connection ends; NULL when the sender
 *          waits for @sent
 */
typedef struct VFIOUserConnTx {
    struct vfio_user_header header;
    VFIOUserTx msg;
    unsigned life;
    bool queued;
    bool started;
    bool sent;
    bool lost;
    void (*free)(VFIOUserConn *conn, struct VFIOUserConnTx *tx);
    QSIMPLEQ_ENTRY(VFIOUserConnTx) next;
} VFIOUserConnTx;

/**
 * VFIOUserConnCommand: a command of the server while we serve it
 * @header, @rw: as received
 * @is_write: DMA_WRITE
 * @ret: 0 or the -errno that the server gets
 * @dma: valid when @mapped
 * @tx, @reply: the reply; @tx must be first
 */
typedef struct VFIOUserConnCommand {
    VFIOUserConnTx tx;
    struct vfio_user_header header;
    struct vfio_user_dma_rw rw;
    bool is_write;
    bool mapped;
    int ret;
    uint64_t done;
    VFIOUserDMA dma;
} VFIOUserConnCommand;

typedef struct VFIOUserConnSlot {
    VFIOUserRequest *req;   /* NULL: the owner gave up, drop the reply */
    unsigned life;          /* the socket that it is for */
    uint16_t id;
    uint16_t command;
    size_t room;            /* payload bytes the reply may have */
    int64_t since_ns;       /* get_clock() when it was submitted */
    VFIOUserLatencyKind kind;
    bool timed;             /* somebody waits, so it is read when it comes */
    bool used;
    bool sending;           /* its sender still needs slot and request */
    bool replied;           /* the reply came meanwhile */
} VFIOUserConnSlot;

typedef enum VFIOUserRxState {
    VFIO_USER_RX_HEADER,
    VFIO_USER_RX_REPLY,
    VFIO_USER_RX_DMA_ARGS,
    VFIO_USER_RX_DMA_DATA,
    VFIO_USER_RX_DRAIN,
} VFIOUserRxState;

/* A thread in vfio_user_conn_wait_locked(). */
typedef struct VFIOUserWaiter {
    QemuCond cond;
    const void *key;
    QTAILQ_ENTRY(VFIOUserWaiter) next;
} VFIOUserWaiter;

/**
 * VFIOUserConnBg: the handlers of one connection in an AioContext
 * @ctx, @timer, @look_bh: set once
 * @lock: what follows. Taken before any lock of the connection's
 * @idle: @busy has become false
 * @conn: NULL once it was stopped
 * @busy: a handler is at work on @conn
 *
 * The last group is the AioContext's thread's.
 */
typedef struct VFIOUserConnBg {
    AioContext *ctx;
    QEMUTimer *timer;
    QEMUBH *look_bh;

    QemuMutex lock;
    QemuCond idle;
    VFIOUserConn *conn;
    bool busy;

    uint64_t drives_seen;
    bool parked;
    unsigned park_ms;
    bool wants_write;
} VFIOUserConnBg;

struct VFIOUserConn {
    /* Set once */
    char *name;
    const VFIOUserConnOps *ops;
    void *opaque;
    unsigned timeout_ms;
    unsigned tick_ms;       /* VFIO_USER_CONN_TICK_MS but in tests */
    uint64_t max_xfer;
    bool patient;           /* see vfio_user_conn_set_patient() */
    int64_t until;          /* see vfio_user_conn_set_until() */
    EventNotifier kick;     /* tells a driver in poll() to look at @tx_queue */

    VFIOUserChan chan;      /* receive side: the driver; send: send_lock */

    QemuMutex send_lock;
    QSIMPLEQ_HEAD(, VFIOUserConnTx) tx_queue;
    unsigned nr_backlog;    /* writes in @tx_queue's REGION_WRITE_MULTIs */
    bool tx_pending;        /* @tx_queue is not empty; read without the lock */
    bool tx_short;          /* the kernel is short of something; likewise */
    unsigned life;          /* which socket it is, from 1; under @lock, too */

    QemuMutex lock;
    /* Under @lock */
    VFIOUserConnBg *bg;     /* from start to stop */
    const void *driver;     /* who reads: a VFIOUserWaiter, @bg's, or NULL */
    bool driver_polls;      /* the driver may be in poll() */
    uint64_t nr_drives;     /* times that a waiter became the driver */
    QTAILQ_HEAD(, VFIOUserWaiter) waiters;
    VFIOUserConnSlot slots[VFIO_USER_CONN_MAX_REQUESTS];
    uint16_t free_slots[VFIO_USER_CONN_MAX_REQUESTS];
    unsigned nr_free;
    QSIMPLEQ_HEAD(, VFIOUserRequest) pending;   /* with @done, without a slot */
    int64_t answered;       /* g_get_monotonic_time() of the last reply */
    bool lockstep;
    bool no_commands;       /* the server's come elsewhere */
    bool stuck;             /* atomic: see vfio_user_conn_set_stuck() */
    bool left;              /* atomic: the server has closed its end */
    unsigned nr_commands;   /* the server's: being received or answered */
    bool closing;
    bool failed;
    unsigned nr_failing;    /* threads in the middle of telling of a failure */
    Error *error;
    bool rx_busy;           /* the driver may be touching @rx.req's memory */
    QemuCond rx_idle;       /* not any more; see adopt */

    /* Under @lock; see conn-poll.c */
    struct {
        int64_t max_ns;
        unsigned nr_waits;  /* since the last series of tries */
        unsigned period;    /* after how many comes the next */
        unsigned tries;     /* left of this series */
        int64_t tried_ns;   /* sum of its waits */
        bool spin;          /* the better of the two, as far as we know */
        int64_t avg_ns[2];  /* by sleeping, by spinning; 0: not known yet */
        int64_t found_ns;   /* spins that found their reply; 0: none yet */
    } poll;

    /* The driver's; @req changes only under @lock */
    struct {
        VFIOUserRxState state;
        struct vfio_user_header header;
        size_t left;        /* payload bytes still to come */
        size_t got;         /* payload bytes stored so far */
        VFIOUserRequest *req;
        VFIOUserConnSlot *slot;
        VFIOUserConnCommand *cmd;
    } rx;

    VFIOUserStats stats;    /* @sent: send_lock; the rest: lock */
};

/* conn.c */

/* Send requests that had to wait for a slot. Driver only. */
void vfio_user_conn_submit_pending(VFIOUserConn *conn);

/* Whether that would send one. */
bool vfio_user_conn_can_submit_locked(VFIOUserConn *conn);

/* Those that still have none have their outcome: adds them to @orphans. */
VFIOUserRequest *vfio_user_conn_lose_pending_locked(VFIOUserConn *conn,
                                                    VFIOUserRequest *orphans);

/* Close the duplicates of its descriptors. */
void vfio_user_conn_drop_dups(VFIOUserRequest *req);

/* Fill in an outcome without a reply. -EAGAIN: none, and nothing was sent. */
void vfio_user_conn_finish_locked(VFIOUserConn *conn, VFIOUserRequest *req,
                                  int ret);
void vfio_user_conn_put_slot_locked(VFIOUserConn *conn,
                                    VFIOUserConnSlot *slot);

/* conn-wait.c */

/**
 * vfio_user_conn_wait_locked: wait, as the driver or for it, until @ready is
 * @key: what is waited for: handed to @ready, and what
 *     vfio_user_conn_wake_locked() names
 * @deadline: in us, as g_get_monotonic_time() counts
 *
 * Called and left with @lock held, which is let go meanwhile. Any thread; the
 * owner's tick is called now and then. Returns true when @ready is, false when
 * the deadline passed or the connection failed first.
 */
bool vfio_user_conn_wait_locked(VFIOUserConn *conn, VFIOUserReady *ready,
                                const void *key, int64_t deadline);

/* Wake those who wait for @key. */
void vfio_user_conn_wake_locked(VFIOUserConn *conn, const void *key);

/* Nobody drives any more. */
void vfio_user_conn_undrive_locked(VFIOUserConn *conn);

/* conn-life.c */

/**
 * vfio_user_conn_fail_life: as vfio_user_conn_fail(), for one socket
 * @life: what vfio_user_conn.life was when it failed; nothing happens when the
 *     connection has another one by now
 */
void vfio_user_conn_fail_life(VFIOUserConn *conn, unsigned life, Error *err);

/* conn-rx.c */

/**
 * vfio_user_conn_rx_step: receive once and handle all that is complete
 *
 * Driver only. Returns 0, -EAGAIN when nothing was there, -EPIPE when the
 * connection failed.
 */
int vfio_user_conn_rx_step(VFIOUserConn *conn);
void vfio_user_conn_rx_cleanup(VFIOUserConn *conn);

/* conn-tx.c */

/**
 * vfio_user_conn_tx_send: send @tx now or queue it
 *
 * Returns 0 when it is out, -EAGAIN when it was queued, -EPIPE.
 */
int vfio_user_conn_tx_send(VFIOUserConn *conn, VFIOUserConnTx *tx);

/**
 * vfio_user_conn_tx_try: send @tx now or not at all
 *
 * Of a message that was begun the rest is remembered. Returns 0, -EAGAIN when
 * nothing was sent, -EPIPE.
 */
int vfio_user_conn_tx_try(VFIOUserConn *conn, VFIOUserConnTx *tx);

/**
 * vfio_user_conn_tx_later: send @tx now or, from a copy, when there is room
 *
 * Returns 0 or -errno: -EPIPE, or why its descriptors cannot be kept.
 */
int vfio_user_conn_tx_later(VFIOUserConn *conn, VFIOUserConnTx *tx);

/**
 * vfio_user_conn_tx_write: send a small posted write, or remember it
 * @life: as in VFIOUserRequest
 *
 * Returns 0, -EAGAIN when VFIO_USER_CONN_MAX_BACKLOG are remembered already
 * (wait for the key &conn->nr_backlog), -EPIPE.
 */
int vfio_user_conn_tx_write(VFIOUserConn *conn,
                            const struct vfio_user_write_multi_entry *entry,
                            unsigned life);

/**
 * vfio_user_conn_tx_flush: send what is queued. Driver only.
 * @sent: set to whether a message is out now that was not before: somebody,
 *     perhaps the driver itself, waited for that
 *
 * Returns true when something is left, which goes when there is room in the socket or,
 * with @tx_short, is to be tried again in VFIO_USER_CONN_RETRY_MS.
 */
bool vfio_user_conn_tx_flush(VFIOUserConn *conn, bool *sent);

/**
 * vfio_user_conn_tx_cancel: take back a message that was queued
 *
 * Returns true when nothing of it was or will be sent. What is left of a
 * message that was begun moves to memory of its own, so that @tx may go.
 */
bool vfio_user_conn_tx_cancel(VFIOUserConn *conn, VFIOUserConnTx *tx);

/* Nothing that is queued will be sent: tell the senders. */
void vfio_user_conn_tx_lose(VFIOUserConn *conn);

/* conn-poll.c */

/* How many ns the wait that begins now is to spin; 0: not at all. */
int64_t vfio_user_conn_poll_begin_locked(VFIOUserConn *conn);

/* It got what it waited for after @ns; @limit_ns is what begin returned. */
void vfio_user_conn_poll_end_locked(VFIOUserConn *conn, int64_t limit_ns,
                                    int64_t ns);

/* conn-bg.c */

/**
 * vfio_user_conn_bg_stop: nobody looks after the connection any more
 *
 * Waits for a handler that is at work on it, but not for the AioContext. One thread
 * at a time, not from a callback in VFIOUserConnOps. Returns the AioContext, or NULL.
 */
AioContext *vfio_user_conn_bg_stop(VFIOUserConn *conn);

/* Have the AioContext look at the socket and @tx_queue again. Any thread. */
void vfio_user_conn_bg_kick(VFIOUserConn *conn);
void vfio_user_conn_bg_kick_locked(VFIOUserConn *conn);

#endif /* HW_VFIO_USER_CONN_INT_H */
