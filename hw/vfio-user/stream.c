/*
 * vfio-user: the stream of device state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Stands in for the descriptor that the kernel gives hw/vfio for the data of a
 * migration: MIG_DATA_READ while the state is saved, MIG_DATA_WRITE while it is
 * loaded. The states themselves are in migration.c.
 *
 * A message at a time would leave the server idle while we send,
 * and us while it works, so a few are on their way: reads ahead of what hw/vfio
 * asks for, writes behind what it was told is done. That is bounded by
 * VFIO_USER_MIG_MAX_AHEAD, so a slow migration channel holds the server back.
 * What was read ahead survives PRE_COPY -> STOP_COPY, as the stream does. A
 * write that fails is found by the next one, or in the end by the change of
 * state, which waits for all of them.
 *
 * How much is left. hw/vfio decides by that when to stop the VM, and the
 * protocol has no message for it, only "less than asked: no more is there now".
 * There may be servers that never give as much as they are asked for: as long as
 * an answer is not less than the one before, it is taken for one of these, and no
 * sign of the end. But not for ever: others have a little at any time.
 * So:
 * - Until the device has run out of data once, nobody knows: it is said to be
 *   as much as hw/vfio assumes for the unknown. A device that always has more
 *   than the channel takes does not converge, which is the truth.
 * - hw/vfio asks again only when it believes that little is left, and it takes
 *   the above for known. So each time that the device has run out of data the
 *   next read says so (-ENOMSG), also where there is more by then: a device that
 *   always makes a little would else have to give as much as was assumed.
 * - From then on a device makes about as much between two times that it runs
 *   out as it did the time before; what is buffered is known exactly.
 * - What only STOP_COPY will give counts as nothing: with the 100 GiB that
 *   hw/vfio assumes, no device would ever be migrated; and any made-up size
 *   keeps the migration of an idle VM from ending, since QEMU compares it with
 *   the bandwidth of the moment, which is that of sending nothing.
 * - A server that answers the kernel's feature MIG_DATA_SIZE is believed.
 *
 * Whose it is. The thread that reads or writes has the stream for itself
 * (@busy) and waits for the server without any lock. Whoever ends the stream
 * meanwhile, since the VM is stopped or the migration given up, does not wait for
 * that thread: it takes the stream from the device (@gone), and the thread frees
 * it when it is done. Whoever makes the stream worthless leaves a word (@lost).
 * Rejected: a lock held over the read, for which "stop" would wait as long as the
 * server takes, with the BQL.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "device.h"
#include "trace.h"

/* What hw/vfio takes for the size of a state that it knows nothing about. */
#define VFIO_USER_MIG_UNKNOWN       (100 * GiB)
/*
 * Less than hw/vfio's buffer: all messages on their way should fit into a cache
 * together. Smaller ones cost the server more than that is worth.
 */
#define VFIO_USER_MIG_MAX_CHUNK     (512 * KiB)
/* Answers in a row that may be short, one like the other, before it is the end. */
#define VFIO_USER_MIG_MAX_ALIKE     16384
/* Longest wait for an estimate, which is made with the BQL held at times. */
#define VFIO_USER_MIG_ESTIMATE_MS   20

/**
 * VFIOUserStream: what was read ahead, or is written behind
 *
 * Of the thread that has it, between vfio_user_stream_get() and _put(), but for
 * the first group.
 *
 * @busy: a thread has it; under VFIOUserMigration.lock
 * @gone: it is no longer the device's; likewise, read as an atomic
 * @lost: why it is worthless, or NULL; an atomic
 *
 * @chunks: a ring; @nr of them from @head on are on their way or hold data
 * @size: bytes of data in one message; @depth: messages at once
 * @state: of the device when that was last looked at
 * @more: the server has not yet said that there is no more for now
 * @ended: nothing follows
 * @error: it failed: -errno
 *
 * For estimates; see "How much is left":
 * @was_dry: pre-copy ran out of data at least once
 * @tell_dry: it did after what was read last, which the next read says
 * @last_have: bytes in the answer before; @nr_alike: short ones in a row that
 *     were not less than that
 * @cycle: bytes since the server last ran out of data; @last_cycle: the same
 *     of the time before
 * @total: bytes so far; @acked: of these taken by the server
 */
struct VFIOUserStream {
    bool busy;
    bool gone;
    const char *lost;

    VFIOUserMigChunk chunks[VFIO_USER_MIG_MAX_CHUNKS];
    unsigned head, nr, depth;
    uint32_t size;
    int state;
    bool more;
    bool ended;
    int error;

    bool was_dry;
    bool tell_dry;
    uint32_t last_have;
    uint32_t nr_alike;
    uint64_t cycle;
    uint64_t last_cycle;
    uint64_t total;
    uint64_t acked;
};

/* Both ways -------------------------------------------------------------------- */

static VFIOUserMigChunk *vfio_user_stream_chunk(VFIOUserStream *st, unsigned i)
{
    return &st->chunks[(st->head + i) % st->depth];
}

static void vfio_user_stream_drop_head(VFIOUserStream *st)
{
    st->head = (st->head + 1) % st->depth;
    st->nr--;
}

/* All of the chunk at the head was read. */
static void vfio_user_stream_took_head(VFIOUserStream *st)
{
    st->tell_dry = vfio_user_stream_chunk(st, 0)->dry;
    vfio_user_stream_drop_head(st);
}

static void vfio_user_stream_free(VFIOUserDevice *udev, VFIOUserStream *st)
{
    for (unsigned i = 0; i < st->nr; i++) {
        VFIOUserMigChunk *chunk = vfio_user_stream_chunk(st, i);

        if (!chunk->arrived) {
            vfio_user_conn_abandon(udev->conn, &chunk->req);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(st->chunks); i++) {
        g_free(st->chunks[i].data);
    }
    g_free(st);
}

void vfio_user_stream_end(VFIOUserDevice *udev)
{
    VFIOUserStream *st = g_steal_pointer(&udev->mig.stream);

    if (st && st->busy) {
        qatomic_set(&st->gone, true);
    } else if (st) {
        vfio_user_stream_free(udev, st);
    }
}

void vfio_user_stream_begin(VFIOUserDevice *udev)
{
    VFIOUserStream *st = g_new0(VFIOUserStream, 1);

    vfio_user_stream_end(udev);
    st->size = MIN(udev->caps.max_data_xfer_size, VFIO_USER_MIG_MAX_CHUNK);
    st->depth = MIN(MAX(VFIO_USER_MIG_MAX_AHEAD / st->size, 2),
                    VFIO_USER_MIG_MAX_CHUNKS);
    st->state = udev->mig.state;
    st->more = true;
    udev->mig.stream = st;
}

void vfio_user_stream_lose(VFIOUserDevice *udev, const char *why)
{
    if (udev->mig.stream) {
        qatomic_set(&udev->mig.stream->lost, why);
    }
}

/* The stream, for the calling thread alone; NULL: there is none. */
static VFIOUserStream *vfio_user_stream_get(VFIOUserDevice *udev)
{
    VFIOUserStream *st;

    QEMU_LOCK_GUARD(&udev->mig.lock);
    st = udev->mig.stream;
    if (!st || st->busy) {
        return NULL;
    }
    st->busy = true;
    return st;
}

static void vfio_user_stream_put(VFIOUserDevice *udev, VFIOUserStream *st)
{
    QEMU_LOCK_GUARD(&udev->mig.lock);
    st->busy = false;
    if (st->gone) {
        vfio_user_stream_free(udev, st);
    }
}

/* To be read ------------------------------------------------------------------- */

static void vfio_user_stream_ask(VFIOUserDevice *udev, VFIOUserStream *st)
{
    VFIOUserMigChunk *chunk = vfio_user_stream_chunk(st, st->nr++);

    if (!chunk->data) {
        chunk->data = g_malloc(st->size);
    }
    chunk->arrived = chunk->direct = chunk->dry = false;
    chunk->stopped = st->state == VFIO_USER_MIG_STOP_COPY;
    chunk->have = chunk->pos = 0;
    chunk->out = (struct vfio_user_mig_data) {
        .argsz = sizeof(chunk->reply) + st->size, .size = st->size,
    };
    chunk->out_iov[0] = (struct iovec) { &chunk->out, sizeof(chunk->out) };
    chunk->in_iov[0] = (struct iovec) { &chunk->reply, sizeof(chunk->reply) };
    chunk->in_iov[1] = (struct iovec) { chunk->data, st->size };
    chunk->req = (VFIOUserRequest) {
        .command = VFIO_USER_MIG_DATA_READ,
        .out = chunk->out_iov, .nr_out = 1,
        .in = chunk->in_iov, .nr_in = 2,
    };
    vfio_user_conn_submit(udev->conn, &chunk->req);
}

/*
 * Whether the VM has stopped meanwhile. The server was told before we get to
 * know, so what is asked from now on is answered in that state; then there is
 * more.
 */
static bool vfio_user_stream_has_stopped(VFIOUserDevice *udev,
                                         VFIOUserStream *st)
{
    int state = qatomic_load_acquire(&udev->mig.state);

    if (state != st->state && vfio_user_migration_is_saving(state)) {
        st->state = state;
        st->more = !st->ended;
    }
    return st->state == VFIO_USER_MIG_STOP_COPY;
}

/* Ask ahead while there is more; @once: ask even when there was none before. */
static void vfio_user_stream_ask_ahead(VFIOUserDevice *udev,
                                       VFIOUserStream *st, bool once)
{
    if (qatomic_read(&st->gone)) {
        return;
    }
    vfio_user_stream_has_stopped(udev, st);
    if (once && !st->nr && !st->ended) {
        vfio_user_stream_ask(udev, st);
    }
    while (st->more && !st->ended && st->nr < st->depth) {
        vfio_user_stream_ask(udev, st);
    }
}

/* Whether pre-copy has no more for now after an answer of @have bytes. */
static bool vfio_user_stream_is_dry(VFIOUserStream *st, uint32_t have)
{
    bool full = have == st->size;
    bool alike = have && have >= st->last_have &&
                 st->nr_alike < VFIO_USER_MIG_MAX_ALIKE;

    st->last_have = have;
    st->nr_alike = alike && !full ? st->nr_alike + 1 : 0;
    return !alike && !full;
}

static void vfio_user_stream_dry(VFIOUserStream *st)
{
    st->was_dry = true;
    if (st->cycle) {
        st->last_cycle = st->cycle;
    }
    st->cycle = 0;
}

/* What an answer tells about how much there is. */
static void vfio_user_stream_account(VFIOUserStream *st,
                                     VFIOUserMigChunk *chunk)
{
    st->total += chunk->have;
    st->cycle += chunk->have;
    if (chunk->stopped) {
        st->ended = !chunk->have;
        st->more = !st->ended;
    } else if (st->state != VFIO_USER_MIG_STOP_COPY) {
        /* Else there was more to come anyway. */
        chunk->dry = vfio_user_stream_is_dry(st, chunk->have);
        st->more = !chunk->dry;
        if (chunk->dry) {
            vfio_user_stream_dry(st);
        }
    }
}

/* Why it has lost its meaning, or will once the server gets to it; or NULL. */
static const char *vfio_user_stream_lost(VFIOUserDevice *udev,
                                         VFIOUserStream *st)
{
    if (qatomic_load_acquire(&udev->mig.resetting)) {
        return VFIO_USER_STREAM_RESET;
    }
    return qatomic_read(&st->lost);
}

/*
 * The outcome of a chunk that was answered: 0 or -errno, which is reported. That
 * the stream was ended meanwhile is no failure: then there is no data.
 */
static int vfio_user_stream_arrive(VFIOUserDevice *udev, VFIOUserStream *st,
                                   VFIOUserMigChunk *chunk)
{
    Error *err = NULL;
    int ret = chunk->req.ret;

    chunk->arrived = true;
    if (ret && qatomic_read(&st->gone)) {
        return 0;
    }
    if (ret == -ETIMEDOUT) {
        error_setg(&err, "the server did not answer in time");
    } else if (ret) {
        error_setg(&err, "%s", vfio_user_stream_lost(udev, st) ?:
                   strerror(-ret));
    } else if (!vfio_user_wire_check_mig_data(&chunk->reply, chunk->req.in_len,
                                              st->size, &err)) {
        error_prepend(&err, "MIG_DATA_READ: ");
        vfio_user_device_broke_protocol(udev, error_copy(err));
        ret = -EPROTO;
    } else {
        chunk->have = chunk->reply.size;
        vfio_user_stream_account(st, chunk);
        return 0;
    }
    error_reportf_err(err, "vfio-user-pci %s: reading device state failed "
                      "after %" PRIu64 " bytes: ", udev->name, st->total);
    st->error = ret;
    trace_vfio_user_stream_failed(udev->name, "reading", ret);
    return ret;
}

/*
 * Wait until the chunk at the head holds data. As vfio_user_stream_read; when
 * there is room in @buf for all that was asked for, its data may be there
 * already (@direct), which saves a copy.
 */
static int vfio_user_stream_fetch(VFIOUserDevice *udev, VFIOUserStream *st,
                                  void *buf, size_t len)
{
    VFIOUserMigChunk *chunk;
    int ret;

    if (!st->tell_dry) {
        vfio_user_stream_ask_ahead(udev, st, true);
    }
    for (;;) {
        if (vfio_user_stream_has_stopped(udev, st)) {
            vfio_user_stream_ask_ahead(udev, st, true);
        } else if (st->tell_dry) {
            st->tell_dry = false;
            return -ENOMSG;
        }
        if (!st->nr) {
            return 0;
        }
        chunk = vfio_user_stream_chunk(st, 0);
        if (!chunk->arrived) {
            chunk->direct = len >= st->size &&
                            vfio_user_conn_redirect(udev->conn, &chunk->req,
                                                    &chunk->in_iov[1], buf);
            vfio_user_conn_wait(udev->conn, &chunk->req);
            ret = vfio_user_stream_arrive(udev, st, chunk);
            if (ret) {
                return ret;
            }
        }
        if (chunk->have) {
            return 1;
        }
        vfio_user_stream_took_head(st);
    }
}

/* 0, or -errno for a stream that failed before or lost its meaning. */
static int vfio_user_stream_usable(VFIOUserDevice *udev, VFIOUserStream *st,
                                   const char *what)
{
    const char *lost = vfio_user_stream_lost(udev, st);

    if (!st->error && lost) {
        error_report("vfio-user-pci %s: %s device state failed: %s", udev->name,
                     what, lost);
        st->error = -ENODEV;
        trace_vfio_user_stream_failed(udev->name, what, st->error);
    }
    return st->error;
}

/* As vfio_user_stream_read(), up to the end of one message. */
static ssize_t vfio_user_stream_read_chunk(VFIOUserDevice *udev,
                                           VFIOUserStream *st, void *buf,
                                           size_t len)
{
    VFIOUserMigChunk *chunk;
    int ret = vfio_user_stream_fetch(udev, st, buf, len);

    if (ret <= 0) {
        return ret;
    }
    chunk = vfio_user_stream_chunk(st, 0);
    len = MIN(len, chunk->have - chunk->pos);
    if (!chunk->direct) {
        memcpy(buf, chunk->data + chunk->pos, len);
    }
    chunk->pos += len;
    if (chunk->pos == chunk->have) {
        vfio_user_stream_took_head(st);
        vfio_user_stream_ask_ahead(udev, st, false);
    }
    return len;
}

/*
 * Several messages fill one buffer: hw/vfio reads one buffer between two lots
 * of RAM, and a device must not make state faster than it is read.
 */
static ssize_t vfio_user_stream_read_chunks(VFIOUserDevice *udev,
                                            VFIOUserStream *st, void *buf,
                                            size_t len)
{
    size_t done = 0;
    ssize_t ret = vfio_user_stream_usable(udev, st, "reading");

    if (ret) {
        return ret;
    }
    do {
        /* It may have to do much for a change of state, so first things first. */
        vfio_user_migration_settle(udev, true);
        if (!vfio_user_migration_is_saving(qatomic_read(&udev->mig.state))) {
            ret = qatomic_read(&st->gone) ? 0 : -EINVAL;
            break;
        }
        ret = vfio_user_stream_read_chunk(udev, st, buf + done, len - done);
        done += MAX(ret, 0);
    } while (ret > 0 && done < len && st->more && !st->tell_dry);
    return done ? done : ret;
}

ssize_t vfio_user_stream_read(VFIOUserDevice *udev, void *buf, size_t len)
{
    VFIOUserStream *st = vfio_user_stream_get(udev);
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_SAVE);
    ssize_t ret;

    if (!st) {
        return -EINVAL;
    }
    ret = vfio_user_stream_read_chunks(udev, st, buf, len);
    vfio_user_stream_put(udev, st);
    return ret;
}

/* Look at what has come, without waiting beyond @until for the first. */
static uint64_t vfio_user_stream_buffered(VFIOUserDevice *udev,
                                          VFIOUserStream *st, int64_t until)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < st->nr; i++) {
        VFIOUserMigChunk *chunk = vfio_user_stream_chunk(st, i);

        if (!chunk->arrived) {
            if (st->error ||
                !vfio_user_conn_wait_until(udev->conn, &chunk->req,
                                           i ? 0 : until) ||
                vfio_user_stream_arrive(udev, st, chunk)) {
                break;
            }
        }
        sum += chunk->have - chunk->pos;
    }
    return sum;
}

/* Pre-copy's data that the server has beyond what is buffered here. */
static uint64_t vfio_user_stream_beyond(const VFIOUserStream *st)
{
    if (!st->more || st->ended) {
        return 0;
    }
    if (!st->was_dry) {
        return VFIO_USER_MIG_UNKNOWN;
    }
    return MAX(st->cycle < st->last_cycle ? st->last_cycle - st->cycle : st->cycle,
               st->last_have);
}

static void vfio_user_stream_estimate(VFIOUserDevice *udev, VFIOUserStream *st,
                                      struct vfio_precopy_info *info)
{
    uint64_t buffered, beyond;
    bool initial;

    vfio_user_stream_ask_ahead(udev, st, true);
    buffered = vfio_user_stream_buffered(udev, st, g_get_monotonic_time() +
                                         VFIO_USER_MIG_ESTIMATE_MS * 1000);
    initial = !st->was_dry;
    beyond = vfio_user_stream_beyond(st);
    info->initial_bytes = initial ? buffered + beyond : 0;
    info->dirty_bytes = initial ? 0 : buffered + beyond;
    trace_vfio_user_stream_precopy_info(udev->name, info->initial_bytes,
                                        info->dirty_bytes);
}

int vfio_user_stream_precopy_info(VFIOUserDevice *udev,
                                  struct vfio_precopy_info *info)
{
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_SAVE);
    VFIOUserStream *st;
    int state;

    if (!vfio_user_migration_settle(udev, false)) {
        /* Not known to be in pre-copy yet: the first read waits for that. */
        info->initial_bytes = VFIO_USER_MIG_UNKNOWN;
        info->dirty_bytes = 0;
        return 0;
    }
    state = qatomic_read(&udev->mig.state);
    if (state != VFIO_USER_MIG_PRE_COPY &&
        state != VFIO_USER_MIG_PRE_COPY_P2P) {
        return -EINVAL;
    }
    st = vfio_user_stream_get(udev);
    if (!st) {
        return -EINVAL;
    }
    vfio_user_stream_estimate(udev, st, info);
    vfio_user_stream_put(udev, st);
    return 0;
}

/* To be written ------------------------------------------------------------------ */

/* Learn what became of the oldest write, or return false after @until. */
static bool vfio_user_stream_collect_write(VFIOUserDevice *udev,
                                           VFIOUserStream *st, int64_t until)
{
    VFIOUserMigChunk *chunk = vfio_user_stream_chunk(st, 0);
    int ret;

    if (!vfio_user_conn_wait_until(udev->conn, &chunk->req, until)) {
        return false;
    }
    ret = chunk->req.ret;
    chunk->arrived = true;
    if (ret && !st->error) {
        error_report("vfio-user-pci %s: the device state was not taken after "
                     "%" PRIu64 " bytes: %s", udev->name, st->acked,
                     ret == -ETIMEDOUT ? "the server did not answer in time"
                                       : strerror(-ret));
        st->error = ret;
        trace_vfio_user_stream_failed(udev->name, "loading", ret);
    }
    st->acked += chunk->out.size;
    vfio_user_stream_drop_head(st);
    return true;
}

int vfio_user_stream_flush_writes(VFIOUserDevice *udev)
{
    VFIOUserStream *st = vfio_user_stream_get(udev);
    int ret;

    if (!st) {
        return 0;
    }
    while (st->nr) {
        vfio_user_stream_collect_write(udev, st, INT64_MAX);
    }
    ret = st->error;
    vfio_user_stream_put(udev, st);
    return ret;
}

static void vfio_user_stream_send_write(VFIOUserDevice *udev, VFIOUserStream *st,
                                        const void *buf, uint32_t len)
{
    VFIOUserMigChunk *chunk = vfio_user_stream_chunk(st, st->nr++);

    chunk->arrived = false;
    chunk->out = (struct vfio_user_mig_data) {
        .argsz = sizeof(chunk->out) + len, .size = len,
    };
    chunk->out_iov[0] = (struct iovec) { &chunk->out, sizeof(chunk->out) };
    chunk->out_iov[1] = (struct iovec) { (void *)buf, len };
    chunk->req = (VFIOUserRequest) {
        .command = VFIO_USER_MIG_DATA_WRITE,
        .out = chunk->out_iov, .nr_out = 2,
    };
    vfio_user_conn_submit(udev->conn, &chunk->req);
}

static ssize_t vfio_user_stream_write_chunk(VFIOUserDevice *udev,
                                            VFIOUserStream *st, const void *buf,
                                            size_t len)
{
    int ret;

    while (st->nr == st->depth && !st->error) {
        vfio_user_stream_collect_write(udev, st, INT64_MAX);
    }
    ret = vfio_user_stream_usable(udev, st, "loading");
    if (ret) {
        return ret;
    }
    len = MIN(len, st->size);
    vfio_user_stream_send_write(udev, st, buf, len);
    st->total += len;
    /* Into a socket that nobody reads, sending took all the time there is. */
    while (st->nr && vfio_user_stream_collect_write(udev, st, 0)) {
        if (st->error) {
            return st->error;
        }
    }
    return len;
}

ssize_t vfio_user_stream_write(VFIOUserDevice *udev, const void *buf,
                               size_t len)
{
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_LOAD);
    VFIOUserStream *st;
    ssize_t ret;

    if (qatomic_read(&udev->mig.state) != VFIO_USER_MIG_RESUMING) {
        return -EINVAL;
    }
    st = vfio_user_stream_get(udev);
    if (!st) {
        return -EINVAL;
    }
    ret = vfio_user_stream_write_chunk(udev, st, buf, len);
    vfio_user_stream_put(udev, st);
    return ret;
}
