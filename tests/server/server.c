/*
 * vfio-user test server: life, the thread and its loop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One thread does everything that touches the sockets: it accepts a client,
 * takes one message at a time, runs the command, answers. Others hand it jobs
 * (ts_run) and look at state under the lock. Two things interrupt it: a byte
 * in the wake eventfd while it polls, and shutdown() of the connection while
 * it waits for a reply of the client or for room to write; so ts_free() and
 * ts_disconnect() never hang on a client that does not answer.
 *
 * An engine (engine.c) works on this thread too, in slices between messages:
 * so it stands still by itself while the state of migration changes.
 *
 * While the thread waits for the reply to a DMA command on a connection
 * without twin socket, the client's own commands may come first. They are put
 * aside (deferred) and handled afterwards in their order.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "internal.h"

void ts_lock(TestServer *s)
{
    pthread_mutex_lock(&s->lock);
}

void ts_unlock(TestServer *s)
{
    pthread_mutex_unlock(&s->lock);
}

void ts_changed_locked(TestServer *s)
{
    pthread_cond_broadcast(&s->cond);
}

int64_t ts_deadline(int64_t ms)
{
    return g_get_monotonic_time() + ms * 1000;
}

bool ts_wait_change_locked(TestServer *s, int64_t deadline)
{
    struct timespec ts = {
        .tv_sec = deadline / 1000000,
        .tv_nsec = deadline % 1000000 * 1000,
    };

    return pthread_cond_timedwait(&s->cond, &s->lock, &ts) == 0;
}

bool ts_on_thread(TestServer *s)
{
    return s->started && pthread_equal(pthread_self(), s->thread);
}

void ts_wake(TestServer *s)
{
    uint64_t one = 1;
    ssize_t ret = write(s->wake_fd, &one, sizeof(one));

    g_assert(ret == sizeof(one) || errno == EAGAIN);
}

TestServer *ts_new(void)
{
    TestServer *s = g_new0(TestServer, 1);
    pthread_condattr_t attr;

    s->limits = (TsLimits) {
        .major = VFIO_USER_MAJOR,
        .minor = VFIO_USER_MINOR,
        .max_msg_fds = 8,
        .max_data_xfer_size = VFIO_USER_DEFAULT_MAX_DATA_XFER,
        .max_dma_maps = VFIO_USER_DEFAULT_MAX_DMA_MAPS,
        .pgsizes = VFIO_USER_DEFAULT_PGSIZES,
        .twin_socket = true,
        .enforce = true,
    };
    s->info = (TsInfo) {
        .flags = VFIO_USER_DEVICE_RESETTABLE | VFIO_USER_DEVICE_PCI,
        .num_regions = VFIO_USER_REGION_VGA + 1,
        .num_irqs = VFIO_USER_IRQ_MAX,
    };
    for (unsigned i = 0; i < TS_NR_REGIONS; i++) {
        s->regions[i].fd = -1;
    }
    ts_config_init(s);

    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->cond, &attr);
    pthread_condattr_destroy(&attr);
    s->listen_fd = s->conn_fd = s->twin_fd = -1;
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(s->wake_fd >= 0);
    g_queue_init(&s->jobs);
    g_queue_init(&s->deferred);
    s->windows = g_array_new(FALSE, TRUE, sizeof(TsWindow));
    s->log = g_array_new(FALSE, TRUE, sizeof(TsRecord));
    s->moves = g_array_new(FALSE, TRUE, sizeof(TsMoveState));
    s->log_on = true;
    return s;
}

TsLimits *ts_limits(TestServer *s)
{
    return &s->limits;
}

void ts_like_libvfio_user(TestServer *s)
{
    s->like_libvfio_user = true;
}

TsInfo *ts_info(TestServer *s)
{
    return &s->info;
}

void ts_fail_connection(TestServer *s)
{
    ts_lock(s);
    s->dead = true;
    if (s->conn_fd >= 0) {
        shutdown(s->conn_fd, SHUT_RDWR);
    }
    if (s->twin_fd >= 0) {
        shutdown(s->twin_fd, SHUT_RDWR);
    }
    ts_unlock(s);
}

/* What a real server does when its client has gone: state stays. */
static void server_close_connection(TestServer *s)
{
    TsMessage *msg;

    ts_dma_client_gone(s);
    ts_irq_client_gone(s);
    while ((msg = g_queue_pop_head(&s->deferred))) {
        ts_message_clear(msg);
        g_free(msg);
    }
    ts_lock(s);
    if (s->conn_fd >= 0) {
        close(s->conn_fd);
    }
    if (s->twin_fd >= 0) {
        close(s->twin_fd);
    }
    s->conn_fd = s->twin_fd = -1;
    s->negotiated = s->dead = false;
    ts_changed_locked(s);
    ts_unlock(s);
}

static void server_answer(TestServer *s, TsMessage *request,
                          TsMessage *reply, int error)
{
    reply->hdr.id = request->hdr.id;
    reply->hdr.command = request->hdr.command;
    reply->hdr.flags = VFIO_USER_TYPE_REPLY;
    if (error) {
        reply->hdr.flags |= VFIO_USER_ERROR;
        reply->hdr.error = error;
        g_byte_array_set_size(reply->payload, 0);
        for (unsigned i = 0; i < reply->nr_fds; i++) {
            close(reply->fds[i]);
        }
        reply->nr_fds = 0;
    }
    if (!(request->hdr.flags & VFIO_USER_NO_REPLY) &&
        ts_mischief_send(s, ts_request_index(request), reply)) {
        ts_fail_connection(s);
    }
}

static void server_handle(TestServer *s, TsMessage *request)
{
    TsMessage reply;
    int error;

    if ((request->hdr.flags & VFIO_USER_TYPE_MASK) !=
        VFIO_USER_TYPE_COMMAND) {
        ts_log_request(s, request, EPROTO);
        ts_fail_connection(s);
        return;
    }
    ts_message_init(&reply);
    if (request->hdr.command == VFIO_USER_VERSION) {
        error = s->negotiated ? EINVAL : ts_negotiate(s, request, &reply);
        s->negotiated = s->negotiated || !error;
    } else if (!s->negotiated) {
        error = EINVAL;
    } else {
        error = ts_device_dispatch(s, request, &reply);
    }
    ts_log_request(s, request, MAX(error, 0));
    if (error != TS_NO_REPLY) {
        server_answer(s, request, &reply, error);
    }
    ts_message_clear(&reply);
}

static void server_receive(TestServer *s)
{
    TsMessage msg;

    if (ts_transport_receive(s, s->conn_fd, &msg)) {
        ts_fail_connection(s);
        return;
    }
    server_handle(s, &msg);
    ts_message_clear(&msg);
}

static void server_handle_deferred(TestServer *s)
{
    TsMessage *msg = g_queue_pop_head(&s->deferred);

    server_handle(s, msg);
    ts_message_clear(msg);
    g_free(msg);
}

static void server_accept(TestServer *s)
{
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        ts_lock(s);
        s->conn_fd = fd;
        s->nr_clients++;
        ts_changed_locked(s);
        ts_unlock(s);
    }
}

/* Runs one job; false when there is none. Called and returns locked. */
static bool server_run_job_locked(TestServer *s)
{
    TsJob *job = g_queue_pop_head(&s->jobs);

    if (!job) {
        return false;
    }
    job->running = true;
    ts_unlock(s);
    job->fn(s, job->opaque);
    ts_lock(s);
    job->done = true;
    ts_changed_locked(s);
    return true;
}

static void server_take_wake(TestServer *s)
{
    uint64_t count;
    ssize_t ret = read(s->wake_fd, &count, sizeof(count));

    g_assert(ret == sizeof(count) || errno == EAGAIN);
}

void ts_stand_still(TestServer *s, bool (*cond)(TestServer *s))
{
    struct pollfd pfd[2] = {
        { .fd = s->wake_fd, .events = POLLIN },
        { .fd = s->conn_fd, .events = POLLRDHUP },
    };
    bool more = true;

    while (more) {
        ts_lock(s);
        more = cond(s) && !s->stopping && !s->dead;
        ts_unlock(s);
        if (more && poll(pfd, 2, -1) > 0) {
            if (pfd[0].revents) {
                server_take_wake(s);
            }
            if (pfd[1].revents) {
                ts_fail_connection(s);
            }
        }
    }
    /* Jobs may have come meanwhile. */
    ts_wake(s);
}

/* How long the engine lets us sleep, in ms; -1: for ever. */
static int server_timeout(TestServer *s)
{
    int64_t now = g_get_monotonic_time();
    int64_t due = MIN(ts_engine_due(s, now), ts_disk_due(s, now));

    if (due == INT64_MAX) {
        return -1;
    }
    return due > now ? MIN((due - now + 999) / 1000, 10000) : 0;
}

static void server_poll(TestServer *s, int fd, int timeout)
{
    struct pollfd pfd[2] = {
        { .fd = s->wake_fd, .events = POLLIN },
        { .fd = fd, .events = POLLIN },
    };

    if (poll(pfd, fd >= 0 ? 2 : 1, timeout) <= 0) {
        return;
    }
    if (pfd[0].revents) {
        server_take_wake(s);
    } else if (fd == s->conn_fd) {
        ts_spdk_pace(s);
        server_receive(s);
    } else {
        server_accept(s);
    }
}

/* One turn of the loop; false at the end. */
static bool server_turn(TestServer *s)
{
    bool dead, held;
    int fd;

    ts_lock(s);
    if (s->stopping || (s->one_shot && s->conn_fd < 0)) {
        ts_unlock(s);
        return false;
    }
    dead = s->dead;
    held = s->held;
    fd = s->conn_fd >= 0 ? s->conn_fd : s->listen_fd;
    if (!dead && !held && server_run_job_locked(s)) {
        ts_unlock(s);
        return true;
    }
    ts_unlock(s);

    if (dead) {
        server_close_connection(s);
    } else if (!held && !g_queue_is_empty(&s->deferred)) {
        server_handle_deferred(s);
    } else {
        server_poll(s, held ? -1 : fd, held ? -1 : server_timeout(s));
    }
    if (!held) {
        ts_engine_work(s);
        ts_disk_work(s);
    }
    return true;
}

static void *server_thread(void *opaque)
{
    TestServer *s = opaque;

    /* ts_on_thread() needs what pthread_create() stores after we run. */
    ts_lock(s);
    ts_unlock(s);
    while (server_turn(s)) {
        continue;
    }
    server_close_connection(s);
    ts_lock(s);
    s->finished = true;
    ts_changed_locked(s);
    ts_unlock(s);
    return NULL;
}

static int server_start(TestServer *s)
{
    int err = ts_device_start(s);

    if (err) {
        return err;
    }
    ts_lock(s);
    err = pthread_create(&s->thread, NULL, server_thread, s);
    s->started = !err;
    ts_unlock(s);
    return err;
}

/* The socket of a server that was killed, and could not remove it. */
static bool server_remove_stale(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool stale;

    if (fd < 0) {
        return false;
    }
    stale = connect(fd, (const struct sockaddr *)un, sizeof(*un)) &&
            errno == ECONNREFUSED;
    close(fd);
    return stale && unlink(un->sun_path) == 0;
}

static int server_bind(int fd, const struct sockaddr_un *un)
{
    return bind(fd, (const struct sockaddr *)un, sizeof(*un)) ? errno : 0;
}

static int server_listen(const char *path, int *fd)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int err;

    if (strlen(path) >= sizeof(un.sun_path)) {
        return ENAMETOOLONG;
    }
    strcpy(un.sun_path, path);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return errno;
    }
    err = server_bind(*fd, &un);
    if (err == EADDRINUSE && server_remove_stale(&un)) {
        err = server_bind(*fd, &un);
    }
    if (!err && listen(*fd, 16)) {
        err = errno;
    }
    if (err) {
        close(*fd);
    }
    return err;
}

int ts_start(TestServer *s, const char *path)
{
    int fd, err = server_listen(path, &fd);

    if (err) {
        return err;
    }
    s->path = g_strdup(path);
    return ts_start_listen_fd(s, fd);
}

int ts_start_listen_fd(TestServer *s, int fd)
{
    s->listen_fd = fd;
    return server_start(s);
}

int ts_start_fd(TestServer *s, int fd)
{
    s->conn_fd = fd;
    s->nr_clients = 1;
    s->one_shot = true;
    return server_start(s);
}

void ts_stop(TestServer *s)
{
    if (!s->started) {
        return;
    }
    ts_lock(s);
    s->stopping = true;
    ts_changed_locked(s);
    ts_unlock(s);
    ts_fail_connection(s);
    ts_wake(s);
    pthread_join(s->thread, NULL);
    s->started = false;

    ts_lock(s);
    s->finished = true;
    ts_changed_locked(s);
    ts_unlock(s);
}

void ts_free(TestServer *s)
{
    if (!s) {
        return;
    }
    ts_stop(s);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
    }
    if (s->conn_fd >= 0) {
        close(s->conn_fd);
    }
    if (s->path) {
        unlink(s->path);
        g_free(s->path);
    }
    close(s->wake_fd);
    ts_device_free(s);
    g_array_free(s->windows, TRUE);
    g_array_free(s->log, TRUE);
    g_array_free(s->moves, TRUE);
    g_free(s->client_json);
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->lock);
    g_free(s);
}

void ts_disconnect(TestServer *s)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    unsigned client = ts_nr_clients(s);
    bool ok = true;

    ts_fail_connection(s);
    ts_wake(s);
    if (ts_on_thread(s)) {
        return;
    }
    /* A client may be so quick to return that no gap is seen. */
    ts_lock(s);
    while (ok && s->conn_fd >= 0 && s->nr_clients == client) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    g_assert(ok);
}

static void server_stop_listening(TestServer *s, void *opaque)
{
    (void)opaque;
    ts_lock(s);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
    }
    s->listen_fd = -1;
    if (s->path) {
        unlink(s->path);
        g_free(s->path);
        s->path = NULL;
    }
    ts_unlock(s);
}

void ts_stop_listening(TestServer *s)
{
    g_assert(ts_run(s, server_stop_listening, NULL));
}

int ts_listen_again(TestServer *s, const char *path)
{
    int fd, err = server_listen(path, &fd);

    if (err) {
        return err;
    }
    ts_lock(s);
    g_assert(s->listen_fd < 0 && !s->path);
    s->listen_fd = fd;
    s->path = g_strdup(path);
    ts_unlock(s);
    ts_wake(s);
    return 0;
}

static void server_set_held(TestServer *s, bool held)
{
    ts_lock(s);
    s->held = held;
    ts_changed_locked(s);
    ts_unlock(s);
    ts_wake(s);
}

void ts_hold(TestServer *s)
{
    server_set_held(s, true);
}

void ts_release(TestServer *s)
{
    server_set_held(s, false);
}

bool ts_connected(TestServer *s)
{
    bool connected;

    ts_lock(s);
    connected = s->conn_fd >= 0;
    ts_unlock(s);
    return connected;
}

unsigned ts_nr_clients(TestServer *s)
{
    unsigned nr;

    ts_lock(s);
    nr = s->nr_clients;
    ts_unlock(s);
    return nr;
}

bool ts_wait_connected(TestServer *s, bool connected)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && (s->conn_fd >= 0) != connected) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

bool ts_wait_finished(TestServer *s, int timeout_ms)
{
    int64_t deadline = ts_deadline(timeout_ms < 0 ? 1000LL * 86400 * 365
                                                  : timeout_ms);
    bool ok = true;

    ts_lock(s);
    while (ok && !s->finished) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

bool ts_wait(TestServer *s, bool (*cond)(void *opaque), void *opaque)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && !cond(opaque)) {
        ok = !s->stopping && ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

bool ts_run(TestServer *s, void (*fn)(TestServer *s, void *opaque),
            void *opaque)
{
    TsJob job = { .fn = fn, .opaque = opaque };
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);

    if (ts_on_thread(s)) {
        fn(s, opaque);
        return true;
    }
    ts_lock(s);
    g_queue_push_tail(&s->jobs, &job);
    ts_wake(s);
    /* A job that runs has deadlines of its own and uses our stack. */
    while (!job.done) {
        if (!ts_wait_change_locked(s, deadline) && !job.running) {
            g_queue_remove(&s->jobs, &job);
            break;
        }
    }
    ts_unlock(s);
    return job.done;
}
