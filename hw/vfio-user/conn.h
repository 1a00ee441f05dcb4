/*
 * vfio-user: requests, replies and the server's commands on a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CONN_H
#define HW_VFIO_USER_CONN_H

#include "qemu/queue.h"
#include "qemu/thread.h"
#include "block/aio.h"
#include "hw/vfio-user/wire.h"
#include "record.h"
#include "stats.h"

typedef struct VFIOUserConn VFIOUserConn;

/* Requests that may wait for their replies at once. */
#define VFIO_USER_CONN_MAX_REQUESTS     256
#define VFIO_USER_CONN_TICK_MS          20
/* Posted writes that wait for room in the socket, and in one message. */
#define VFIO_USER_CONN_MAX_BACKLOG      1024
#define VFIO_USER_CONN_MAX_MULTI        128
/* Pieces of memory in one request, and in one reply. */
#define VFIO_USER_CONN_MAX_IOV          8
/* Pieces of guest memory that one DMA command may touch. */
#define VFIO_USER_CONN_MAX_DMA_IOV      64

/*
 * QEMU is compiled so that variables on the stack are cleared first. Too dear
 * for the large ones on the path of a register access.
 */
#if __has_attribute(uninitialized)
#define VFIO_USER_UNINITIALIZED __attribute__((uninitialized))
#else
#define VFIO_USER_UNINITIALIZED
#endif

/* Whether what @key stands for has come about. Quick, and takes no lock. */
typedef bool VFIOUserReady(VFIOUserConn *conn, const void *key);

/**
 * VFIOUserDMA: guest memory that a server's command is reading or writing
 * @iov, @nr_iov: where it is; valid from begin to end
 * @opaque: for the two functions below
 */
typedef struct VFIOUserDMA {
    struct iovec iov[VFIO_USER_CONN_MAX_DMA_IOV];
    unsigned nr_iov;
    void *opaque;
} VFIOUserDMA;

/**
 * VFIOUserConnOps: what a connection needs from its owner
 *
 * Each is called from whatever thread reads, with or without the BQL, and
 * must neither take the BQL nor wait.
 *
 * @dma_begin: pin [@addr, @addr + @count) for the server and fill @dma.
 *     @is_write: the server writes. Returns 0 or -errno. (DMA_READ, DMA_WRITE)
 * @dma_end: done with it. @done bytes from its beginning were written.
 * @failed: the connection is lost; called once for each socket. The reason is
 *     in vfio_user_conn_error().
 * @tick: a thread has been waiting for another VFIO_USER_CONN_TICK_MS; called
 *     in that thread, which holds nothing of the connection meanwhile, so this
 *     one may take the BQL. May be NULL.
 */
typedef struct VFIOUserConnOps {
    int (*dma_begin)(void *opaque, uint64_t addr, uint64_t count,
                     bool is_write, VFIOUserDMA *dma);
    void (*dma_end)(void *opaque, VFIOUserDMA *dma, bool is_write,
                    uint64_t done);
    void (*failed)(void *opaque);
    void (*tick)(void *opaque);
} VFIOUserConnOps;

typedef enum VFIOUserRequestState {
    VFIO_USER_REQUEST_IDLE,
    VFIO_USER_REQUEST_PENDING,
    VFIO_USER_REQUEST_DONE,
} VFIOUserRequestState;

/**
 * VFIOUserRequest: one command of ours
 *
 * The caller sets the first group, keeps the memory alive and untouched from
 * vfio_user_conn_submit() until vfio_user_conn_wait() returns, and finds the
 * outcome in the second. The third is the engine's.
 *
 * @command: enum vfio_user_command
 * @out, @nr_out: payload to send
 * @fds, @nr_fds: descriptors to send; they stay the caller's
 * @in, @nr_in: room for the reply's payload
 * @in_fds, @max_in_fds: room for descriptors of the reply; the caller owns
 *     those stored, surplus ones are closed
 * @timeout_ms: from submission to reply; 0: the connection's default
 * @done: NULL, or called when there is an outcome, for a request that nobody
 *     waits for: from any thread, as VFIOUserConnOps' functions. It has no
 *     deadline once it has a slot, and @out is copied where the socket is full. @done
 *     may free the request.
 * @life: vfio_user_conn_life(), if the request is for that socket only: it fails
 *     with -EPIPE on another one. 0: whatever is there
 *
 * @ret: 0; -errno of the server (clamped to 1..4095, 0 becomes EIO);
 *     -ETIMEDOUT when the deadline passed (the reply is dropped should it
 *     still come); -EPIPE when the connection is lost; -ECANCELED after
 *     vfio_user_conn_abandon()
 * @in_len: bytes of payload received
 * @nr_in_fds: descriptors that came, stored or not; 0 unless @ret is 0
 */
typedef struct VFIOUserRequest {
    uint16_t command;
    const struct iovec *out;
    unsigned nr_out;
    const int *fds;
    unsigned nr_fds;
    struct iovec *in;
    unsigned nr_in;
    int *in_fds;
    unsigned max_in_fds;
    unsigned timeout_ms;
    void (*done)(struct VFIOUserRequest *req);
    unsigned life;

    int ret;
    size_t in_len;
    unsigned nr_in_fds;

    VFIOUserRequestState state;
    uint16_t id;
    int64_t deadline;
    struct VFIOUserRequest *next;
    int *dups;
    QSIMPLEQ_ENTRY(VFIOUserRequest) pending;
} VFIOUserRequest;

/**
 * vfio_user_conn_new: take over a connected socket
 * @fd:   a connected UNIX stream socket; owned from now on
 * @name: for messages and trace events; copied
 * @ops, @opaque: see above; both outlive the connection
 * @timeout_ms: default deadline of a request
 *
 * Nothing is read in the background before vfio_user_conn_start().
 */
VFIOUserConn *vfio_user_conn_new(int fd, const char *name,
                                 const VFIOUserConnOps *ops, void *opaque,
                                 unsigned timeout_ms);

/**
 * vfio_user_conn_set_record: note down what goes over the socket
 * @record: owned from now on
 *
 * At once after vfio_user_conn_new(). Moves with the socket.
 */
void vfio_user_conn_set_record(VFIOUserConn *conn,
                               VFIOUserRecordSocket *record);

/**
 * vfio_user_conn_set_limits: apply what was negotiated
 * @max_xfer: bytes that one DMA command of the server may carry
 *
 * Before vfio_user_conn_start(), without requests in flight.
 */
void vfio_user_conn_set_limits(VFIOUserConn *conn, uint64_t max_xfer);

/**
 * vfio_user_conn_set_poll: how long a waiting thread may spin before it sleeps
 * @max_us: microseconds; 0: never (the default)
 *
 * Whether it spins is found out by measuring; see conn-poll.c. Without requests
 * in flight.
 */
void vfio_user_conn_set_poll(VFIOUserConn *conn, unsigned max_us);

/**
 * vfio_user_conn_set_patient: a server that goes on answering is never late
 * @patient: each reply gives those that are waited for their whole time anew, so
 *     that many may be asked for at once of a server that is slow with each
 *
 * For vfio_user_conn_wait(). Off at first. Without requests in flight.
 */
void vfio_user_conn_set_patient(VFIOUserConn *conn, bool patient);

/**
 * vfio_user_conn_set_until: one deadline for all requests
 * @until: g_get_monotonic_time() that none may wait beyond, whatever its own is;
 *     INT64_MAX: none (at first)
 *
 * While only one thread uses the connection. Without requests in flight.
 */
void vfio_user_conn_set_until(VFIOUserConn *conn, int64_t until);

/**
 * vfio_user_conn_half_ms: VFIOUserRequest.timeout_ms where no answer is an answer
 *
 * With one deadline for all it leaves half of the time to what comes after. Else 0.
 */
unsigned vfio_user_conn_half_ms(VFIOUserConn *conn);

/**
 * vfio_user_conn_set_no_fds: no reply carries descriptors any more
 *
 * Any that come are dropped. Without requests in flight; later ones have no
 * @max_in_fds.
 */
void vfio_user_conn_set_no_fds(VFIOUserConn *conn);

/**
 * vfio_user_conn_set_no_commands: the server's commands come elsewhere
 *
 * It has a twin socket, so there is less to look after here while requests go
 * on. Any thread.
 */
void vfio_user_conn_set_no_commands(VFIOUserConn *conn);

/**
 * vfio_user_conn_start: look after the socket in @ctx while nobody waits
 * @ctx: serves the server's commands and notices that the server has gone;
 *     runs one more bottom half after vfio_user_conn_stop()
 */
void vfio_user_conn_start(VFIOUserConn *conn, AioContext *ctx);

/**
 * vfio_user_conn_close: fail the connection on purpose
 *
 * Every waiter returns -EPIPE at once; the owner's @failed is not called.
 * Any thread.
 */
void vfio_user_conn_close(VFIOUserConn *conn);

/**
 * vfio_user_conn_stop: close, and leave the AioContext for good
 *
 * Does not wait for the AioContext, which may be blocked in something that the caller
 * holds. From there no callback in VFIOUserConnOps is called after that. Not from such a
 * callback.
 */
void vfio_user_conn_stop(VFIOUserConn *conn);

/* Stop and free. No thread may be in a call on @conn. */
void vfio_user_conn_free(VFIOUserConn *conn);

/**
 * vfio_user_conn_submit: send a request, do not wait for the reply
 *
 * Returns at once unless too many are in flight or the socket is full; then
 * it waits, serving the connection, up to the request's deadline. The outcome
 * of any failure is in @req as if the reply had told it. What @out points to is
 * no longer needed; what @in points to is, until there is an outcome. Any thread.
 *
 * With @done it never waits: the request takes its turn when there is room, and
 * must not be touched any more. @out is needed until there is an outcome; of @fds
 * duplicates are made.
 */
void vfio_user_conn_submit(VFIOUserConn *conn, VFIOUserRequest *req);

/**
 * vfio_user_conn_submit_until: as vfio_user_conn_submit(), but not for long
 * @until: g_get_monotonic_time() up to which it may wait
 *
 * Returns false when the server was sent nothing, and @req has no outcome. Without
 * @done. Any thread.
 */
bool vfio_user_conn_submit_until(VFIOUserConn *conn, VFIOUserRequest *req,
                                 int64_t until);

/**
 * vfio_user_conn_wait: wait for the reply of a submitted request
 *
 * The waiting thread reads the socket itself when nobody else does, and then
 * completes others' requests and serves the server's commands as they come.
 * Returns @req->ret. Any thread.
 */
int vfio_user_conn_wait(VFIOUserConn *conn, VFIOUserRequest *req);

/**
 * vfio_user_conn_redirect: have the reply's payload stored somewhere else
 * @in: one of the request's own @in
 * @buf: replaces its memory, with as many bytes
 *
 * Returns false, and nothing has changed, when the reply has begun to arrive or
 * is there. Any thread.
 */
bool vfio_user_conn_redirect(VFIOUserConn *conn, VFIOUserRequest *req,
                             struct iovec *in, void *buf);

/**
 * vfio_user_conn_wait_until: wait for a reply, but not for ever
 * @until: g_get_monotonic_time() to wait up to; one that has passed only looks
 *
 * Returns true when @req has its outcome, as after vfio_user_conn_wait();
 * false when there is none yet and the request's own deadline has not passed
 * either. Any thread.
 */
bool vfio_user_conn_wait_until(VFIOUserConn *conn, VFIOUserRequest *req,
                               int64_t until);

/**
 * vfio_user_conn_abandon: no longer wait for a submitted request
 *
 * Its memory is the caller's again; a reply that still comes is dropped. Does
 * not wait. Any thread, but not while another one waits for @req.
 */
void vfio_user_conn_abandon(VFIOUserConn *conn, VFIOUserRequest *req);

/**
 * vfio_user_conn_leave: somebody who waited for a request does so no longer
 * @req: submitted without @done
 * @to: takes its place, with @done, and @in of the same sizes
 *
 * Returns false, and nothing has changed, when the reply is there, all of it, or the
 * connection has failed. Any thread, but not while another one waits for @req.
 */
bool vfio_user_conn_leave(VFIOUserConn *conn, VFIOUserRequest *req,
                          VFIOUserRequest *to);

/**
 * vfio_user_conn_cancel: a request with @done is not wanted any more
 * @ret: its outcome
 *
 * Returns false when it has one, and @done was or is being called. After true it
 * never is; a reply that still comes is dropped. Any thread.
 */
bool vfio_user_conn_cancel(VFIOUserConn *conn, VFIOUserRequest *req, int ret);

/**
 * vfio_user_conn_wait_for: wait for something that replies bring about
 * @ready, @key: what; the latter is what vfio_user_conn_wake() names
 * @until: as for vfio_user_conn_wait_until()
 *
 * Returns what @ready says in the end; it may be false before @until if the
 * connection fails. Any thread.
 */
bool vfio_user_conn_wait_for(VFIOUserConn *conn, VFIOUserReady *ready,
                             const void *key, int64_t until);

/**
 * vfio_user_conn_serve: read what is there, and send what there is room for
 *
 * Unless somebody does so already. For a thread that holds what the AioContext may be
 * waiting for. Never waits. Any thread, but not from a callback.
 */
void vfio_user_conn_serve(VFIOUserConn *conn);

/*
 * This thread has waited for the server outside of the connection, since @since and up
 * to @until at most, as g_get_monotonic_time(): count that if it holds the BQL.
 */
void vfio_user_conn_count_bql(VFIOUserConn *conn, int64_t since, int64_t until);

/* What @key stands for has come about. Any thread, @done included. */
void vfio_user_conn_wake(VFIOUserConn *conn, const void *key);

/* Which socket it is: never 0, another one after each adoption. Any thread. */
unsigned vfio_user_conn_life(VFIOUserConn *conn);

/* Submit and wait. */
int vfio_user_conn_call(VFIOUserConn *conn, VFIOUserRequest *req);

/**
 * vfio_user_conn_post: send a command that gets no reply (no_reply)
 *
 * Uses @command, @out, @fds, @life and @timeout_ms of @req. Returns when the socket
 * has taken the message: 0, -ETIMEDOUT when it did not in time (nothing was
 * sent), -EPIPE. Commands are handled in the order in which they were sent,
 * so any later reply tells that this one was handled. Any thread.
 */
int vfio_user_conn_post(VFIOUserConn *conn, VFIOUserRequest *req);

/**
 * vfio_user_conn_try_post: as vfio_user_conn_post(), but never wait
 *
 * Returns -EAGAIN, too: nothing was sent, since the socket is full. What is
 * left of a message that was begun is sent by whoever drives next, so the
 * connection must have been started.
 */
int vfio_user_conn_try_post(VFIOUserConn *conn, VFIOUserRequest *req);

/* Largest write that vfio_user_conn_post_write() takes, in bytes. */
#define VFIO_USER_CONN_SMALL_WRITE  8

/**
 * vfio_user_conn_post_write: post a small write that may be coalesced
 * @region, @off, @data, @len: as in REGION_WRITE; @len is at most
 *     VFIO_USER_CONN_SMALL_WRITE
 * @life, @timeout_ms: as in VFIOUserRequest
 *
 * For a server that negotiated write_multiple. As vfio_user_conn_post() while
 * the socket has room. When it has none the write is remembered, those that
 * follow join it, and they leave together as REGION_WRITE_MULTI, in their
 * place among all other messages. Waits, up to its deadline, only when
 * VFIO_USER_CONN_MAX_BACKLOG writes are remembered.
 */
int vfio_user_conn_post_write(VFIOUserConn *conn, uint32_t region,
                              uint64_t off, const void *data, unsigned len,
                              unsigned life, unsigned timeout_ms);

/**
 * vfio_user_conn_set_lockstep: never have two requests at the server at once
 *
 * Without a twin socket some servers (libvfio-user) take whatever follows
 * their own command for its reply, so a request of ours must not cross it.
 * While one request is at the server, it can only send commands that we serve
 * in between. Any thread; cannot be undone. Callers of vfio_user_conn_post()
 * have to use vfio_user_conn_call() then.
 */
void vfio_user_conn_set_lockstep(VFIOUserConn *conn);
bool vfio_user_conn_lockstep(VFIOUserConn *conn);

/**
 * vfio_user_conn_fail: give the connection up
 * @err: the reason; owned from now on, dropped when there was one before
 *
 * Every waiter returns -EPIPE at once; @failed of the owner is called unless
 * the connection had failed or was closed before. Any thread.
 */
void vfio_user_conn_fail(VFIOUserConn *conn, Error *err);

/**
 * vfio_user_conn_adopt: go on with another connection's socket
 * @conn: has failed, and was not closed
 * @from: its socket, limits and modes are taken; only good for
 *     vfio_user_conn_free() afterwards
 *
 * Requests of the old socket that had no reply have failed with -EPIPE, all of
 * them. A reply to @from may still come that somebody gave up; it is dropped. Returns
 * false when @from has failed or has requests that are waited for, or a thread still
 * sends on the old socket; nobody looks after @from any more then. @from was started,
 * and no other thread uses it. One thread at a time, not from a callback in
 * VFIOUserConnOps; waits only for threads that are leaving.
 */
bool vfio_user_conn_adopt(VFIOUserConn *conn, VFIOUserConn *from);

/**
 * vfio_user_conn_rebind: call back another owner
 *
 * For a connection that only its AioContext uses, between commands. The new
 * owner is told of a failure that the old one has been told of. Threads as in
 * adopt.
 */
void vfio_user_conn_rebind(VFIOUserConn *conn, void *opaque);

/*
 * Somebody has waited with the BQL for a server that does not answer, up to the
 * deadline; until it has sent anything, nobody does so again. Any thread.
 */
void vfio_user_conn_set_stuck(VFIOUserConn *conn);
bool vfio_user_conn_stuck(VFIOUserConn *conn);

/* True once the connection has failed or was closed. Any thread. */
bool vfio_user_conn_broken(VFIOUserConn *conn);

/**
 * vfio_user_conn_left: whether it failed because the server closed its end
 *
 * And not because of what the server sent. Any thread; true once
 * vfio_user_conn_set_left() was called, by whoever learns it elsewhere.
 */
bool vfio_user_conn_left(VFIOUserConn *conn);
void vfio_user_conn_set_left(VFIOUserConn *conn);

/* Why it failed: a copy, or NULL. The caller frees it. Any thread. */
Error *vfio_user_conn_error(VFIOUserConn *conn);

/**
 * VFIOUserConnPending: requests whose outcome is still to come
 * @nr: how many
 * @oldest_ns: how long ago the first of them was submitted
 */
typedef struct VFIOUserConnPending {
    unsigned nr;
    int64_t oldest_ns;
} VFIOUserConnPending;

/**
 * vfio_user_conn_add_stats: what was counted since the last reset
 * @stats, @pending: that of @conn is added
 *
 * Never waits for the server. Any thread, as the next three.
 */
void vfio_user_conn_add_stats(VFIOUserConn *conn, VFIOUserStats *stats,
                              VFIOUserConnPending *pending);

/* When that was, or the connection began: get_clock(). */
int64_t vfio_user_conn_stats_since(VFIOUserConn *conn);

/* Count on for @from, too, which is about to be freed and no longer used. */
void vfio_user_conn_take_stats(VFIOUserConn *conn, VFIOUserConn *from);

void vfio_user_conn_reset_stats(VFIOUserConn *conn);

#endif /* HW_VFIO_USER_CONN_H */
