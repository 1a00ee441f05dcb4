/*
 * vfio-user: a connection under test, its owner and its peer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

/* A wait that is meant to be in vain */
#define IN_VAIN_MS  30

/* As compat.h, which is for what knows hw/vfio. */
#if QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 2
#define init_clocks qemu_init_clocks
#endif

/* The owner ---------------------------------------------------------------- */

static void rig_counted(Rig *rig, unsigned *counter)
{
    QEMU_LOCK_GUARD(&rig->lock);
    ++*counter;
    qemu_cond_broadcast(&rig->cond);
}

static int rig_dma_begin(void *opaque, uint64_t addr, uint64_t count,
                         bool is_write, VFIOUserDMA *dma)
{
    Rig *rig = opaque;
    uint64_t off = addr - RIG_RAM;

    g_assert_cmpint(count, >, 0);
    if (rig->begin_ret) {
        return rig->begin_ret;
    }
    if (addr < RIG_RAM || off > RIG_RAM_SIZE || count > RIG_RAM_SIZE - off) {
        return -EFAULT;
    }
    dma->nr_iov = 0;
    dma->opaque = rig;
    while (count) {
        size_t part = MIN(count, rig->piece);

        g_assert_cmpint(dma->nr_iov, <, VFIO_USER_CONN_MAX_DMA_IOV);
        dma->iov[dma->nr_iov].iov_base = rig->ram + off;
        dma->iov[dma->nr_iov++].iov_len = part;
        off += part;
        count -= part;
    }
    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->nr_begin++;
        rig->max_mapped = MAX(rig->max_mapped, rig->nr_begin - rig->nr_end);
        qemu_cond_broadcast(&rig->cond);
    }
    return 0;
}

static void rig_dma_end(void *opaque, VFIOUserDMA *dma, bool is_write,
                        uint64_t done)
{
    Rig *rig = opaque;

    g_assert_true(dma->opaque == rig);
    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->last_done = done;
    }
    rig_counted(rig, &rig->nr_end);
}

static void rig_failed(void *opaque)
{
    Rig *rig = opaque;

    rig_counted(rig, &rig->nr_failed);
}

static void rig_tick(void *opaque)
{
    Rig *rig = opaque;

    rig_counted(rig, &rig->nr_ticks);
}

static const VFIOUserConnOps rig_ops = {
    .dma_begin = rig_dma_begin,
    .dma_end = rig_dma_end,
    .failed = rig_failed,
    .tick = rig_tick,
};

void rig_warm_up(void)
{
    init_clocks(NULL);
    iothread_join(iothread_new());
}

Rig *rig_new(void (*make)(int fd[2]))
{
    Rig *rig = g_new0(Rig, 1);
    int fd[2];

    make(fd);
    rig->peer = fd[1];
    rig->ram = g_malloc0(RIG_RAM_SIZE);
    rig->piece = RIG_RAM_SIZE;
    qemu_mutex_init(&rig->lock);
    qemu_cond_init(&rig->cond);
    rig->ops = rig_ops;
    rig->conn = vfio_user_conn_new(fd[0], "test", &rig->ops, rig,
                                   RIG_TIMEOUT_MS);
    vfio_user_conn_set_limits(rig->conn, RIG_MAX_XFER);
    rig->conn->tick_ms = 1000 * 1000;
    return rig;
}

void rig_start(Rig *rig)
{
    rig->iothread = iothread_new();
    vfio_user_conn_start(rig->conn, iothread_get_aio_context(rig->iothread));
}

Rig *rig_new_started(void (*make)(int fd[2]))
{
    Rig *rig = rig_new(make);

    rig_start(rig);
    return rig;
}

void rig_set_ticks(Rig *rig)
{
    rig->conn->tick_ms = VFIO_USER_CONN_TICK_MS;
}

void rig_close_peer(Rig *rig)
{
    g_assert_cmpint(close(rig->peer), ==, 0);
    rig->peer = -1;
}

void rig_free(Rig *rig)
{
    if (rig->conn) {
        vfio_user_conn_free(rig->conn);
    }
    if (rig->iothread) {
        iothread_join(rig->iothread);
    }
    if (rig->peer >= 0) {
        rig_close_peer(rig);
    }
    g_assert_cmpint(rig->nr_end, ==, rig->nr_begin);
    g_assert_cmpint(rig->nr_failed, ==, rig->fails);
    qemu_cond_destroy(&rig->cond);
    qemu_mutex_destroy(&rig->lock);
    g_free(rig->ram);
    g_free(rig);
}

void rig_wait_count(Rig *rig, const unsigned *counter, unsigned n)
{
    int64_t deadline = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;

    QEMU_LOCK_GUARD(&rig->lock);
    while (*counter < n) {
        int64_t left = (deadline - g_get_monotonic_time()) / 1000;

        g_assert_cmpint(left, >, 0);
        qemu_cond_timedwait(&rig->cond, &rig->lock, left);
    }
}

unsigned rig_count(Rig *rig, const unsigned *counter)
{
    QEMU_LOCK_GUARD(&rig->lock);
    return *counter;
}

void rig_wait_failed(Rig *rig, const char *text)
{
    Error *err;

    rig->fails = 1;
    rig_wait_count(rig, &rig->nr_failed, 1);
    g_assert_true(vfio_user_conn_broken(rig->conn));
    err = vfio_user_conn_error(rig->conn);
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), text)) {
        g_test_message("'%s' not in '%s'", text, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

unsigned rig_count_queued(Rig *rig)
{
    VFIOUserConnTx *tx;
    unsigned nr = 0;

    QEMU_LOCK_GUARD(&rig->conn->send_lock);
    QSIMPLEQ_FOREACH(tx, &rig->conn->tx_queue, next) {
        nr++;
    }
    return nr;
}

static unsigned rig_count_waiters(Rig *rig)
{
    VFIOUserWaiter *w;
    unsigned nr = 0;

    QEMU_LOCK_GUARD(&rig->conn->lock);
    QTAILQ_FOREACH(w, &rig->conn->waiters, next) {
        nr++;
    }
    return nr;
}

static void rig_wait_until(Rig *rig, unsigned (*count)(Rig *rig), unsigned n)
{
    int64_t deadline = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;

    while (count(rig) < n) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        poll(NULL, 0, 1);
    }
}

void rig_wait_queued(Rig *rig, unsigned n)
{
    rig_wait_until(rig, rig_count_queued, n);
}

void rig_wait_waiters(Rig *rig, unsigned n)
{
    rig_wait_until(rig, rig_count_waiters, n);
}

/* DMA ---------------------------------------------------------------------- */

void rig_send_dma(Rig *rig, uint16_t id, uint16_t command, uint64_t off,
                  size_t count, unsigned seed)
{
    bool is_write = command == CMD_DMA_WRITE;
    g_autofree uint8_t *data = g_malloc(count + 1);

    peer_pattern(data, count, seed);
    peer_send_dma(rig->peer, id, command, PEER_COMMAND, RIG_RAM + off, count,
                  data, is_write ? count : 0);
}

void rig_expect_dma(Rig *rig, uint16_t id, uint16_t command, uint64_t off,
                    size_t count, unsigned seed)
{
    bool is_write = command == CMD_DMA_WRITE;
    g_autofree uint8_t *data = g_malloc(count + 1);
    g_autofree uint8_t *payload = NULL;
    size_t len = is_write ? 0 : count;

    peer_pattern(data, count, seed);
    payload = peer_make_dma(RIG_RAM + off, count, data, len);
    peer_expect(rig->peer, id, command, PEER_REPLY, 0, payload, 16 + len);
}

/* Reads: u64 offset, u32 region, u32 count, data in the reply -------------- */

void call_init(Call *call, Rig *rig, uint64_t off, uint32_t count)
{
    *call = (Call) { .rig = rig, .off = off, .count = count };
    memcpy(call->args, &off, 8);
    memcpy(call->args + 12, &count, 4);
    call->data = g_malloc0(count + 1);
    call->out = (struct iovec) { call->args, 16 };
    call->in[0] = (struct iovec) { call->head, 16 };
    call->in[1] = (struct iovec) { call->data, count };
    call->req.command = CMD_REGION_READ;
    call->req.out = &call->out;
    call->req.nr_out = 1;
    call->req.in = call->in;
    call->req.nr_in = 2;
}

void call_free(Call *call)
{
    g_clear_pointer(&call->data, g_free);
}

void call_submit(Call *call)
{
    vfio_user_conn_submit(call->rig->conn, &call->req);
}

void call_check_good(Call *call)
{
    g_assert_cmpint(call->req.ret, ==, 0);
    g_assert_cmpint(call->req.in_len, ==, 16 + call->count);
    g_assert_cmpint(call->req.nr_in_fds, ==, 0);
    g_assert_cmpmem(call->head, 16, call->args, 16);
    peer_check_pattern(call->data, call->count, call->off);
}

void call_wait_good(Call *call)
{
    call->ret = vfio_user_conn_wait(call->rig->conn, &call->req);
    g_assert_cmpint(call->ret, ==, 0);
    call_check_good(call);
}

void call_wait_ret(Call *call, int ret)
{
    call->ret = vfio_user_conn_wait(call->rig->conn, &call->req);
    g_assert_cmpint(call->ret, ==, ret);
    g_assert_cmpint(call->req.ret, ==, ret);
}

static void call_thread(void *opaque)
{
    Call *call = opaque;

    call->ret = vfio_user_conn_call(call->rig->conn, &call->req);
}

void call_thread_start(Call *call)
{
    peer_thread_start(&call->thread, call_thread, call);
}

void call_thread_join(Call *call)
{
    peer_thread_join(&call->thread);
}

void call_peer_get(Call *call, PeerMessage *msg)
{
    peer_get(call->rig->peer, msg);
    g_assert_cmpint(msg->command, ==, CMD_REGION_READ);
    g_assert_cmphex(msg->flags, ==, PEER_COMMAND);
    g_assert_cmpint(msg->error, ==, 0);
    g_assert_cmpmem(msg->payload, msg->len, call->args, 16);
    g_assert_cmpint(msg->nr_fds, ==, 0);
}

uint8_t *call_peer_make(Call *call, const PeerMessage *msg, size_t *len)
{
    g_autofree uint8_t *payload = g_malloc(16 + call->count);

    memcpy(payload, msg->payload, 16);
    peer_pattern(payload + 16, call->count, call->off);
    *len = 32 + call->count;
    return peer_make(msg->id, CMD_REGION_READ, PEER_REPLY, 0, payload,
                     16 + call->count);
}

void call_peer_answer(Call *call, const PeerMessage *msg)
{
    size_t len;
    g_autofree uint8_t *m = call_peer_make(call, msg, &len);

    peer_send_bytes(call->rig->peer, m, len);
}

void call_peer_refuse(Call *call, const PeerMessage *msg, uint32_t error)
{
    peer_send(call->rig->peer, msg->id, msg->command, PEER_REPLY | PEER_ERROR,
              error, NULL, 0);
}

void call_peer_serve(Call *call)
{
    PeerMessage msg;

    call_peer_get(call, &msg);
    call_peer_answer(call, &msg);
    peer_drop(&msg);
}

void call_begin(Call *call, Rig *rig, uint64_t off, uint32_t count,
                PeerMessage *msg)
{
    call_init(call, rig, off, count);
    call_submit(call);
    call_peer_get(call, msg);
}

void call_end(Call *call, PeerMessage *msg)
{
    peer_drop(msg);
    call_free(call);
}

void rig_check_alive(Rig *rig)
{
    Call call;

    call_init(&call, rig, 0xa11fe, 4);
    call_submit(&call);
    call_peer_serve(&call);
    call_wait_good(&call);
    call_free(&call);
}

void call_end_late(Call *call, PeerMessage *msg, unsigned nr)
{
    Rig *rig = call[0].rig;
    unsigned first = 7;
    Call more;

    call_init(&more, rig, 999, 4);
    more.req.timeout_ms = IN_VAIN_MS;
    call_submit(&more);
    call_wait_ret(&more, -ETIMEDOUT);
    call_free(&more);
    g_assert_false(peer_readable(rig->peer));

    /* Once one late reply comes there is room for one request. */
    call_peer_answer(&call[first], &msg[first]);
    rig_check_alive(rig);
    for (unsigned i = 0; i < nr; i++) {
        if (i != first) {
            call_peer_answer(&call[i], &msg[i]);
        }
        call_end(&call[i], &msg[i]);
    }
}

/* Posted writes: u64 offset, u32 region, u32 count, data ------------------- */

int rig_post(Rig *rig, uint64_t off, size_t len, unsigned timeout_ms)
{
    g_autofree uint8_t *data = g_malloc(len);
    uint8_t args[16] = { };
    uint32_t count = len;
    struct iovec out[2] = { { args, 16 }, { data, len } };
    VFIOUserRequest req = {
        .command = CMD_REGION_WRITE,
        .out = out, .nr_out = 2,
        .timeout_ms = timeout_ms,
    };

    memcpy(args, &off, 8);
    memcpy(args + 12, &count, 4);
    peer_pattern(data, len, off);
    return vfio_user_conn_post(rig->conn, &req);
}

void rig_check_post(const PeerMessage *msg, uint64_t off, size_t len)
{
    uint8_t args[16] = { };
    uint32_t count = len;

    memcpy(args, &off, 8);
    memcpy(args + 12, &count, 4);
    g_assert_cmpint(msg->command, ==, CMD_REGION_WRITE);
    g_assert_cmphex(msg->flags, ==, PEER_NO_REPLY);
    g_assert_cmpint(msg->len, ==, 16 + len);
    g_assert_cmpmem(msg->payload, 16, args, 16);
    peer_check_pattern(msg->payload + 16, len, off);
}

void rig_expect_post(Rig *rig, uint64_t off, size_t len)
{
    PeerMessage msg;

    peer_get(rig->peer, &msg);
    rig_check_post(&msg, off, len);
    peer_drop(&msg);
}
