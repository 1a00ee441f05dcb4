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

/* Both ways -------------------------------------------------------------------- */

static VFIOUserMigChunk *vfio_user_stream_chunk(VFIOUserMigration *m,
                                                unsigned i)
{
    return &m->chunks[(m->head + i) % m->depth];
}

static void vfio_user_stream_drop_head(VFIOUserMigration *m)
{
    m->head = (m->head + 1) % m->depth;
    m->nr--;
}

/* All of the chunk at the head was read. */
static void vfio_user_stream_took_head(VFIOUserMigration *m)
{
    m->tell_dry = vfio_user_stream_chunk(m, 0)->dry;
    vfio_user_stream_drop_head(m);
}

void vfio_user_stream_clear(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    for (unsigned i = 0; i < m->nr; i++) {
        VFIOUserMigChunk *chunk = vfio_user_stream_chunk(m, i);

        if (!chunk->arrived) {
            vfio_user_conn_abandon(udev->conn, &chunk->req);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(m->chunks); i++) {
        g_free(m->chunks[i].data);
        m->chunks[i].data = NULL;
    }
    m->head = m->nr = 0;
}

void vfio_user_stream_begin(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    vfio_user_stream_clear(udev);
    m->size = MIN(udev->caps.max_data_xfer_size, VFIO_USER_MIG_MAX_CHUNK);
    m->depth = MIN(MAX(VFIO_USER_MIG_MAX_AHEAD / m->size, 2),
                   VFIO_USER_MIG_MAX_CHUNKS);
    m->more = true;
    m->ended = false;
    m->error = 0;
    m->was_dry = m->tell_dry = false;
    m->last_have = m->nr_alike = 0;
    m->cycle = m->last_cycle = 0;
    m->total = m->acked = 0;
    m->lost = false;
}

/* To be read ------------------------------------------------------------------- */

static void vfio_user_stream_ask(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk = vfio_user_stream_chunk(m, m->nr++);

    if (!chunk->data) {
        chunk->data = g_malloc(m->size);
    }
    chunk->arrived = chunk->direct = chunk->dry = false;
    chunk->stopped = m->state == VFIO_USER_MIG_STOP_COPY;
    chunk->have = chunk->pos = 0;
    chunk->out = (struct vfio_user_mig_data) {
        .argsz = sizeof(chunk->reply) + m->size, .size = m->size,
    };
    chunk->out_iov[0] = (struct iovec) { &chunk->out, sizeof(chunk->out) };
    chunk->in_iov[0] = (struct iovec) { &chunk->reply, sizeof(chunk->reply) };
    chunk->in_iov[1] = (struct iovec) { chunk->data, m->size };
    chunk->req = (VFIOUserRequest) {
        .command = VFIO_USER_MIG_DATA_READ,
        .out = chunk->out_iov, .nr_out = 1,
        .in = chunk->in_iov, .nr_in = 2,
    };
    vfio_user_conn_submit(udev->conn, &chunk->req);
}

/* Ask ahead while there is more; @once: ask even when there was none before. */
static void vfio_user_stream_ask_ahead(VFIOUserDevice *udev, bool once)
{
    VFIOUserMigration *m = &udev->mig;

    if (once && !m->nr && !m->ended) {
        vfio_user_stream_ask(udev);
    }
    while (m->more && !m->ended && m->nr < m->depth) {
        vfio_user_stream_ask(udev);
    }
}

/* Whether pre-copy has no more for now after an answer of @have bytes. */
static bool vfio_user_stream_is_dry(VFIOUserMigration *m, uint32_t have)
{
    bool full = have == m->size;
    bool alike = have && have >= m->last_have &&
                 m->nr_alike < VFIO_USER_MIG_MAX_ALIKE;

    m->last_have = have;
    m->nr_alike = alike && !full ? m->nr_alike + 1 : 0;
    return !alike && !full;
}

static void vfio_user_stream_dry(VFIOUserMigration *m)
{
    m->was_dry = true;
    if (m->cycle) {
        m->last_cycle = m->cycle;
    }
    m->cycle = 0;
}

/* What an answer tells about how much there is. */
static void vfio_user_stream_account(VFIOUserMigration *m,
                                     VFIOUserMigChunk *chunk)
{
    m->total += chunk->have;
    m->cycle += chunk->have;
    if (chunk->stopped) {
        m->ended = !chunk->have;
        m->more = !m->ended;
    } else if (m->state != VFIO_USER_MIG_STOP_COPY) {
        chunk->dry = vfio_user_stream_is_dry(m, chunk->have);
        m->more = !chunk->dry;
        if (chunk->dry) {
            vfio_user_stream_dry(m);
        }
    }
}

/* The stream has lost its meaning, or will once the server gets to it. */
static bool vfio_user_stream_was_reset(VFIOUserMigration *m)
{
    return m->lost || qatomic_load_acquire(&m->resetting) ||
           qatomic_read(&m->was_reset);
}

/* The outcome of a chunk that was answered: 0 or -errno, which is reported. */
static int vfio_user_stream_arrive(VFIOUserDevice *udev,
                                   VFIOUserMigChunk *chunk)
{
    VFIOUserMigration *m = &udev->mig;
    Error *err = NULL;
    int ret = chunk->req.ret;

    chunk->arrived = true;
    if (ret == -ETIMEDOUT) {
        error_setg(&err, "the server did not answer in time");
    } else if (ret) {
        error_setg(&err, "%s", vfio_user_stream_was_reset(m) ?
                   "the device was reset meanwhile" : strerror(-ret));
    } else if (!vfio_user_wire_check_mig_data(&chunk->reply, chunk->req.in_len,
                                              m->size, &err)) {
        error_prepend(&err, "MIG_DATA_READ: ");
        vfio_user_device_broke_protocol(udev, error_copy(err));
        ret = -EPROTO;
    } else {
        chunk->have = chunk->reply.size;
        vfio_user_stream_account(m, chunk);
        return 0;
    }
    error_reportf_err(err, "vfio-user-pci %s: reading device state failed "
                      "after %" PRIu64 " bytes: ", udev->name, m->total);
    m->error = ret;
    trace_vfio_user_stream_failed(udev->name, "reading", ret);
    return ret;
}

/*
 * Wait until the chunk at the head holds data. As vfio_user_stream_read; when
 * there is room in @buf for all that was asked for, its data may be there
 * already (@direct), which saves a copy.
 */
static int vfio_user_stream_fetch(VFIOUserDevice *udev, void *buf, size_t len)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk;
    int ret;

    if (!m->tell_dry) {
        vfio_user_stream_ask_ahead(udev, true);
    }
    for (;;) {
        if (m->state == VFIO_USER_MIG_STOP_COPY) {
            vfio_user_stream_ask_ahead(udev, true);
        } else if (m->tell_dry) {
            m->tell_dry = false;
            return -ENOMSG;
        }
        if (!m->nr) {
            return 0;
        }
        chunk = vfio_user_stream_chunk(m, 0);
        if (!chunk->arrived) {
            chunk->direct = len >= m->size &&
                            vfio_user_conn_redirect(udev->conn, &chunk->req,
                                                    &chunk->in_iov[1], buf);
            vfio_user_conn_wait(udev->conn, &chunk->req);
            ret = vfio_user_stream_arrive(udev, chunk);
            if (ret) {
                return ret;
            }
        }
        if (chunk->have) {
            return 1;
        }
        vfio_user_stream_took_head(m);
    }
}

/* 0, or -errno for a stream that failed before or lost its meaning. */
static int vfio_user_stream_usable(VFIOUserDevice *udev, const char *what)
{
    VFIOUserMigration *m = &udev->mig;

    if (!m->error && vfio_user_stream_was_reset(m)) {
        error_report("vfio-user-pci %s: %s device state failed: the device was "
                     "reset meanwhile", udev->name, what);
        m->error = -ENODEV;
        trace_vfio_user_stream_failed(udev->name, what, m->error);
    }
    return m->error;
}

/* As vfio_user_stream_read(), up to the end of one message. */
static ssize_t vfio_user_stream_read_chunk(VFIOUserDevice *udev, void *buf,
                                           size_t len)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk;
    int ret = vfio_user_stream_fetch(udev, buf, len);

    if (ret <= 0) {
        return ret;
    }
    chunk = vfio_user_stream_chunk(m, 0);
    len = MIN(len, chunk->have - chunk->pos);
    if (!chunk->direct) {
        memcpy(buf, chunk->data + chunk->pos, len);
    }
    chunk->pos += len;
    if (chunk->pos == chunk->have) {
        vfio_user_stream_took_head(m);
        vfio_user_stream_ask_ahead(udev, false);
    }
    return len;
}

/*
 * Several messages fill one buffer: hw/vfio reads one buffer between two lots
 * of RAM, and a device must not make state faster than it is read.
 */
ssize_t vfio_user_stream_read(VFIOUserDevice *udev, void *buf, size_t len)
{
    VFIOUserMigration *m = &udev->mig;
    size_t done = 0;
    ssize_t ret;

    QEMU_LOCK_GUARD(&m->lock);
    ret = vfio_user_stream_usable(udev, "reading");
    if (ret) {
        return ret;
    }
    vfio_user_migration_settle(udev, INT64_MAX);
    if (!vfio_user_migration_is_saving(m->state)) {
        return -EINVAL;
    }
    do {
        ret = vfio_user_stream_read_chunk(udev, buf + done, len - done);
        done += MAX(ret, 0);
    } while (ret > 0 && done < len && m->more && !m->tell_dry);
    return done ? done : ret;
}

/* Look at what has come, without waiting beyond @until for the first. */
static uint64_t vfio_user_stream_buffered(VFIOUserDevice *udev,
                                          int64_t until)
{
    VFIOUserMigration *m = &udev->mig;
    uint64_t sum = 0;

    for (unsigned i = 0; i < m->nr; i++) {
        VFIOUserMigChunk *chunk = vfio_user_stream_chunk(m, i);

        if (!chunk->arrived) {
            if (m->error ||
                !vfio_user_conn_wait_until(udev->conn, &chunk->req,
                                           i ? 0 : until) ||
                vfio_user_stream_arrive(udev, chunk)) {
                break;
            }
        }
        sum += chunk->have - chunk->pos;
    }
    return sum;
}

/* Pre-copy's data that the server has beyond what is buffered here. */
static uint64_t vfio_user_stream_beyond(const VFIOUserMigration *m)
{
    if (!m->more || m->ended) {
        return 0;
    }
    if (!m->was_dry) {
        return VFIO_USER_MIG_UNKNOWN;
    }
    return MAX(m->cycle < m->last_cycle ? m->last_cycle - m->cycle : m->cycle,
               m->last_have);
}

int vfio_user_stream_precopy_info(VFIOUserDevice *udev,
                                  struct vfio_precopy_info *info)
{
    VFIOUserMigration *m = &udev->mig;
    uint64_t buffered, beyond;
    bool initial;

    QEMU_LOCK_GUARD(&m->lock);
    if (!vfio_user_migration_settle(udev, 0)) {
        /* Not known to be in pre-copy yet: the first read waits for that. */
        info->initial_bytes = VFIO_USER_MIG_UNKNOWN;
        info->dirty_bytes = 0;
        return 0;
    }
    if (m->state != VFIO_USER_MIG_PRE_COPY &&
        m->state != VFIO_USER_MIG_PRE_COPY_P2P) {
        return -EINVAL;
    }
    vfio_user_stream_ask_ahead(udev, true);
    buffered = vfio_user_stream_buffered(udev, g_get_monotonic_time() +
                                         VFIO_USER_MIG_ESTIMATE_MS * 1000);
    initial = !m->was_dry;
    beyond = vfio_user_stream_beyond(m);
    info->initial_bytes = initial ? buffered + beyond : 0;
    info->dirty_bytes = initial ? 0 : buffered + beyond;
    trace_vfio_user_stream_precopy_info(udev->name, info->initial_bytes,
                                           info->dirty_bytes);
    return 0;
}

/* To be written ------------------------------------------------------------------ */

/* Learn what became of the oldest write, or return false after @until. */
static bool vfio_user_stream_collect_write(VFIOUserDevice *udev, int64_t until)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk = vfio_user_stream_chunk(m, 0);
    int ret;

    if (!vfio_user_conn_wait_until(udev->conn, &chunk->req, until)) {
        return false;
    }
    ret = chunk->req.ret;
    chunk->arrived = true;
    if (ret && !m->error) {
        error_report("vfio-user-pci %s: the device state was not taken after "
                     "%" PRIu64 " bytes: %s", udev->name, m->acked,
                     ret == -ETIMEDOUT ? "the server did not answer in time"
                                       : strerror(-ret));
        m->error = ret;
        trace_vfio_user_stream_failed(udev->name, "loading", ret);
    }
    m->acked += chunk->out.size;
    vfio_user_stream_drop_head(m);
    return true;
}

int vfio_user_stream_flush_writes(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    while (m->nr) {
        vfio_user_stream_collect_write(udev, INT64_MAX);
    }
    return m->error;
}

static void vfio_user_stream_send_write(VFIOUserDevice *udev,
                                        const void *buf, uint32_t len)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk = vfio_user_stream_chunk(m, m->nr++);

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

ssize_t vfio_user_stream_write(VFIOUserDevice *udev, const void *buf,
                               size_t len)
{
    VFIOUserMigration *m = &udev->mig;
    int ret;

    QEMU_LOCK_GUARD(&m->lock);
    if (m->state != VFIO_USER_MIG_RESUMING) {
        return -EINVAL;
    }
    while (m->nr == m->depth && !m->error) {
        vfio_user_stream_collect_write(udev, INT64_MAX);
    }
    ret = vfio_user_stream_usable(udev, "loading");
    if (ret) {
        return ret;
    }
    len = MIN(len, m->size);
    vfio_user_stream_send_write(udev, buf, len);
    m->total += len;
    /* Into a socket that nobody reads, sending took all the time there is. */
    while (m->nr && vfio_user_stream_collect_write(udev, 0)) {
        if (m->error) {
            return m->error;
        }
    }
    return len;
}
