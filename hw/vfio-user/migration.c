/*
 * vfio-user: device states and the stream of device state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio drives migration: it knows the states, their order and what to do
 * when one is refused. Here its VFIO_DEVICE_FEATURE calls become messages, and
 * the descriptor that the kernel gives it for the data becomes MIG_DATA_READ
 * and MIG_DATA_WRITE.
 *
 * The stream. A message at a time would leave the server idle while we send,
 * and us while it works, so a few are on their way: reads ahead of what hw/vfio
 * asks for, writes behind what it was told is done. That is bounded by
 * VFIO_USER_MIG_MAX_AHEAD, so a slow migration channel holds the server back.
 * What was read ahead survives PRE_COPY -> STOP_COPY, as the stream does. A
 * write that fails is found by the next one, or in the end by the change of
 * state, which waits for all of them.
 *
 * How much is left. hw/vfio decides by that when to stop the VM, and the
 * protocol has no message for it, only "less than asked: no more is there now".
 * So:
 * - Until the device has run out of data once, nobody knows: it is said to be
 *   as much as hw/vfio assumes for the unknown. A device that always has more
 *   than the channel takes does not converge, which is the truth.
 * - From then on a device makes about as much between two times that it runs
 *   out as it did the time before; what is buffered is known exactly.
 * - What only STOP_COPY will give counts as nothing: with the 100 GiB that
 *   hw/vfio assumes, no device would ever be migrated; and any made-up size
 *   keeps the migration of an idle VM from ending, since QEMU compares it with
 *   the bandwidth of the moment, which is that of sending nothing.
 * - A server that answers the kernel's feature MIG_DATA_SIZE is believed.
 *
 * P2P. hw/vfio wants every device to stop talking to its peers before any stops
 * altogether, and refuses to migrate several devices unless all can do that.
 * A vfio-user device has no DMA window on another device's memory, so it never
 * talks to peers: to a server without P2P states, RUNNING_P2P is RUNNING.
 *
 * Locks: @lock is held while waiting for the server, by one thread at a time:
 * the migration thread, a multifd thread, or the thread that stops or starts
 * the VM. A reset comes from a vCPU in between and must not wait for that, so
 * it only leaves a mark (@was_reset).
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "device.h"
#include "trace.h"

/* What hw/vfio takes for the size of a state that it knows nothing about. */
#define VFIO_USER_MIG_UNKNOWN       (100 * GiB)
/* As large as hw/vfio's buffer. */
#define VFIO_USER_MIG_MAX_CHUNK     (1 * MiB)
/* Longest wait for an estimate, which is made with the BQL held at times. */
#define VFIO_USER_MIG_ESTIMATE_MS   20

const char *vfio_user_migration_state_name(int state)
{
    static const char *const names[] = {
        [VFIO_USER_MIG_ERROR] = "ERROR",
        [VFIO_USER_MIG_STOP] = "STOP",
        [VFIO_USER_MIG_RUNNING] = "RUNNING",
        [VFIO_USER_MIG_STOP_COPY] = "STOP_COPY",
        [VFIO_USER_MIG_RESUMING] = "RESUMING",
        [VFIO_USER_MIG_RUNNING_P2P] = "RUNNING_P2P",
        [VFIO_USER_MIG_PRE_COPY] = "PRE_COPY",
        [VFIO_USER_MIG_PRE_COPY_P2P] = "PRE_COPY_P2P",
    };

    return state >= 0 && state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

/* Features -------------------------------------------------------------------- */

/* A feature with at most one u64 of data */
typedef struct VFIOUserFeatureMsg {
    struct vfio_user_feature feature;
    uint64_t data;
} VFIOUserFeatureMsg;

/*
 * @msg: to send, and the reply; @send, @get: bytes of its data that go out, and
 * that must come back. Returns 0, or -errno with @errp set; -EPROTO when the
 * connection was given up for the answer.
 */
static int vfio_user_migration_call(VFIOUserDevice *udev,
                                    VFIOUserFeatureMsg *msg, uint32_t flags,
                                    size_t send, size_t get,
                                    unsigned timeout_ms, Error **errp)
{
    struct iovec out = {
        .iov_base = msg, .iov_len = sizeof(msg->feature) + send,
    };
    struct iovec in = { .iov_base = msg, .iov_len = sizeof(*msg) };
    VFIOUserRequest req = {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &out, .nr_out = 1,
        .in = &in, .nr_in = 1,
        .timeout_ms = timeout_ms,
    };
    Error *err = NULL;
    int ret;

    msg->feature = (struct vfio_user_feature) {
        .argsz = sizeof(*msg), .flags = flags,
    };
    ret = vfio_user_conn_call(udev->conn, &req);
    if (ret == -ETIMEDOUT) {
        error_setg(errp, "the server did not answer in time");
    } else if (ret) {
        error_setg(errp, "%s", strerror(-ret));
    } else if (!vfio_user_wire_check_feature(&msg->feature, req.in_len, flags,
                                             get, sizeof(msg->data), &err)) {
        error_prepend(&err, "DEVICE_FEATURE: ");
        error_setg(errp, "%s", error_get_pretty(err));
        vfio_user_device_broke_protocol(udev, err);
        ret = -EPROTO;
    }
    return ret;
}

static bool vfio_user_migration_has(VFIOUserDevice *udev, uint32_t flags)
{
    VFIOUserFeatureMsg msg = { .data = 0 };

    return !vfio_user_migration_call(udev, &msg,
                                     VFIO_USER_FEATURE_PROBE | flags, 0, 0, 0,
                                     NULL);
}

bool vfio_user_migration_probe(VFIOUserDevice *udev, Error **errp)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserFeatureMsg msg = { .data = 0 };
    struct vfio_user_feature_migration answer;
    int ret = vfio_user_migration_call(udev, &msg, VFIO_USER_FEATURE_GET |
                                       VFIO_USER_FEATURE_MIGRATION, 0,
                                       sizeof(answer), 0, NULL);

    if (!ret) {
        answer.flags = msg.data;
        if (!vfio_user_wire_check_migration(&answer, &m->flags, errp)) {
            error_prepend(errp, "DEVICE_FEATURE: ");
            return false;
        }
    }
    if (m->flags) {
        m->can_log = vfio_user_migration_has(udev, VFIO_USER_FEATURE_SET |
                                        VFIO_USER_FEATURE_DMA_LOGGING_START);
        m->knows_size = vfio_user_migration_has(udev, VFIO_USER_FEATURE_GET |
                                            VFIO_USER_FEATURE_MIG_DATA_SIZE);
    }
    if (vfio_user_conn_broken(udev->conn)) {
        error_propagate(errp, vfio_user_conn_error(udev->conn));
        error_prepend(errp, "asking for migration (DEVICE_FEATURE) failed: ");
        error_append_hint(errp, "A server that does not survive the question "
                          "can be used with enable-migration=off.\n");
        return false;
    }
    trace_vfio_user_migration_probe(udev->name, m->flags, m->can_log,
                                    m->knows_size);
    return true;
}

/* The stream, to be read ------------------------------------------------------ */

static VFIOUserMigChunk *vfio_user_migration_chunk(VFIOUserMigration *m,
                                                   unsigned i)
{
    return &m->chunks[(m->head + i) % m->depth];
}

static void vfio_user_migration_drop_head(VFIOUserMigration *m)
{
    m->head = (m->head + 1) % m->depth;
    m->nr--;
}

/* Let go of everything that is on its way or buffered. */
static void vfio_user_migration_clear(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    for (unsigned i = 0; i < m->nr; i++) {
        VFIOUserMigChunk *chunk = vfio_user_migration_chunk(m, i);

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

/* A stream begins: nothing of an earlier one is left. */
static void vfio_user_migration_begin(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    vfio_user_migration_clear(udev);
    m->size = MIN(udev->caps.max_data_xfer_size, VFIO_USER_MIG_MAX_CHUNK);
    m->depth = MIN(MAX(VFIO_USER_MIG_MAX_AHEAD / m->size, 2),
                   VFIO_USER_MIG_MAX_CHUNKS);
    m->more = true;
    m->ended = false;
    m->error = 0;
    m->was_dry = false;
    m->cycle = m->last_cycle = 0;
    m->total = m->acked = 0;
    m->lost = false;
}

static void vfio_user_migration_ask(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk = vfio_user_migration_chunk(m, m->nr++);

    if (!chunk->data) {
        chunk->data = g_malloc(m->size);
    }
    chunk->arrived = false;
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
static void vfio_user_migration_ask_ahead(VFIOUserDevice *udev, bool once)
{
    VFIOUserMigration *m = &udev->mig;

    if (once && !m->nr && !m->ended) {
        vfio_user_migration_ask(udev);
    }
    while (m->more && !m->ended && m->nr < m->depth) {
        vfio_user_migration_ask(udev);
    }
}

/* Pre-copy has no more for now. */
static void vfio_user_migration_dry(VFIOUserMigration *m)
{
    m->was_dry = true;
    if (m->cycle) {
        m->last_cycle = m->cycle;
    }
    m->cycle = 0;
}

/* What an answer tells about how much there is. */
static void vfio_user_migration_account(VFIOUserMigration *m,
                                        const VFIOUserMigChunk *chunk)
{
    m->total += chunk->have;
    m->cycle += chunk->have;
    if (chunk->stopped) {
        m->ended = !chunk->have;
        m->more = !m->ended;
    } else if (m->state != VFIO_USER_MIG_STOP_COPY) {
        m->more = chunk->have == m->size;
        if (!m->more) {
            vfio_user_migration_dry(m);
        }
    }
}

/* The outcome of a chunk that was answered: 0 or -errno, which is reported. */
static int vfio_user_migration_arrive(VFIOUserDevice *udev,
                                      VFIOUserMigChunk *chunk)
{
    VFIOUserMigration *m = &udev->mig;
    Error *err = NULL;
    int ret = chunk->req.ret;

    chunk->arrived = true;
    if (ret == -ETIMEDOUT) {
        error_setg(&err, "the server did not answer in time");
    } else if (ret) {
        error_setg(&err, "%s", strerror(-ret));
    } else if (!vfio_user_wire_check_mig_data(&chunk->reply, chunk->req.in_len,
                                              m->size, &err)) {
        error_prepend(&err, "MIG_DATA_READ: ");
        vfio_user_device_broke_protocol(udev, error_copy(err));
        ret = -EPROTO;
    } else {
        chunk->have = chunk->reply.size;
        vfio_user_migration_account(m, chunk);
        return 0;
    }
    error_reportf_err(err, "vfio-user-pci %s: reading device state failed "
                      "after %" PRIu64 " bytes: ", udev->name, m->total);
    m->error = ret;
    return ret;
}

static bool vfio_user_migration_is_saving(int state)
{
    return state == VFIO_USER_MIG_PRE_COPY ||
           state == VFIO_USER_MIG_PRE_COPY_P2P ||
           state == VFIO_USER_MIG_STOP_COPY;
}

/* Wait until the chunk at the head holds data. As vfio_user_migration_read. */
static int vfio_user_migration_fetch(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk;
    int ret;

    vfio_user_migration_ask_ahead(udev, true);
    for (;;) {
        if (!m->nr && !m->ended && m->state == VFIO_USER_MIG_STOP_COPY) {
            vfio_user_migration_ask_ahead(udev, true);
        }
        if (!m->nr) {
            return m->ended ? 0 : -ENOMSG;
        }
        chunk = vfio_user_migration_chunk(m, 0);
        if (!chunk->arrived) {
            vfio_user_conn_wait(udev->conn, &chunk->req);
            ret = vfio_user_migration_arrive(udev, chunk);
            if (ret) {
                return ret;
            }
        }
        if (chunk->have) {
            return 1;
        }
        vfio_user_migration_drop_head(m);
    }
}

/* 0, or -errno for a stream that failed before or lost its meaning. */
static int vfio_user_migration_usable(VFIOUserDevice *udev, const char *what)
{
    VFIOUserMigration *m = &udev->mig;

    if (!m->error && (m->lost || qatomic_read(&m->was_reset))) {
        error_report("vfio-user-pci %s: %s device state failed: the device was "
                     "reset meanwhile", udev->name, what);
        m->error = -ENODEV;
    }
    return m->error;
}

ssize_t vfio_user_migration_read(VFIOUserDevice *udev, void *buf, size_t len)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk;
    int ret;

    QEMU_LOCK_GUARD(&m->lock);
    ret = vfio_user_migration_usable(udev, "reading");
    if (ret) {
        return ret;
    }
    if (!vfio_user_migration_is_saving(m->state)) {
        return -EINVAL;
    }
    ret = vfio_user_migration_fetch(udev);
    if (ret <= 0) {
        return ret;
    }
    chunk = vfio_user_migration_chunk(m, 0);
    len = MIN(len, chunk->have - chunk->pos);
    memcpy(buf, chunk->data + chunk->pos, len);
    chunk->pos += len;
    if (chunk->pos == chunk->have) {
        vfio_user_migration_drop_head(m);
        vfio_user_migration_ask_ahead(udev, false);
    }
    return len;
}

/* Look at what has come, without waiting beyond @until for the first. */
static uint64_t vfio_user_migration_buffered(VFIOUserDevice *udev,
                                             int64_t until)
{
    VFIOUserMigration *m = &udev->mig;
    uint64_t sum = 0;

    for (unsigned i = 0; i < m->nr; i++) {
        VFIOUserMigChunk *chunk = vfio_user_migration_chunk(m, i);

        if (!chunk->arrived) {
            if (m->error ||
                !vfio_user_conn_wait_until(udev->conn, &chunk->req,
                                           i ? 0 : until) ||
                vfio_user_migration_arrive(udev, chunk)) {
                break;
            }
        }
        sum += chunk->have - chunk->pos;
    }
    return sum;
}

static uint64_t vfio_user_migration_ask_size(VFIOUserDevice *udev)
{
    VFIOUserFeatureMsg msg = { .data = 0 };

    if (!udev->mig.knows_size ||
        vfio_user_migration_call(udev, &msg, VFIO_USER_FEATURE_GET |
                                 VFIO_USER_FEATURE_MIG_DATA_SIZE, 0,
                                 sizeof(msg.data), 0, NULL)) {
        return 0;
    }
    return msg.data;
}

/* Pre-copy's data that the server has beyond what is buffered here. */
static uint64_t vfio_user_migration_beyond(const VFIOUserMigration *m)
{
    if (!m->more || m->ended) {
        return 0;
    }
    if (!m->was_dry) {
        return VFIO_USER_MIG_UNKNOWN;
    }
    return MAX(m->cycle < m->last_cycle ? m->last_cycle - m->cycle : m->cycle,
               m->size);
}

int vfio_user_migration_precopy_info(VFIOUserDevice *udev,
                                     struct vfio_precopy_info *info)
{
    VFIOUserMigration *m = &udev->mig;
    uint64_t buffered, beyond;
    bool initial;

    QEMU_LOCK_GUARD(&m->lock);
    if (m->state != VFIO_USER_MIG_PRE_COPY &&
        m->state != VFIO_USER_MIG_PRE_COPY_P2P) {
        return -EINVAL;
    }
    vfio_user_migration_ask_ahead(udev, true);
    buffered = vfio_user_migration_buffered(udev, g_get_monotonic_time() +
                                            VFIO_USER_MIG_ESTIMATE_MS * 1000);
    initial = !m->was_dry;
    beyond = vfio_user_migration_beyond(m);
    info->initial_bytes = initial ? buffered + beyond : 0;
    info->dirty_bytes = initial ? 0 : buffered + beyond;
    trace_vfio_user_migration_precopy_info(udev->name, info->initial_bytes,
                                           info->dirty_bytes);
    return 0;
}

/* The stream, to be written ---------------------------------------------------- */

/* Learn what became of the oldest write. */
static void vfio_user_migration_collect_write(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk = vfio_user_migration_chunk(m, 0);
    int ret = vfio_user_conn_wait(udev->conn, &chunk->req);

    chunk->arrived = true;
    if (ret && !m->error) {
        error_report("vfio-user-pci %s: the device state was not taken after "
                     "%" PRIu64 " bytes: %s", udev->name, m->acked,
                     ret == -ETIMEDOUT ? "the server did not answer in time"
                                       : strerror(-ret));
        m->error = ret;
    }
    m->acked += chunk->out.size;
    vfio_user_migration_drop_head(m);
}

static int vfio_user_migration_flush_writes(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    while (m->nr) {
        vfio_user_migration_collect_write(udev);
    }
    return m->error;
}

static void vfio_user_migration_send_write(VFIOUserDevice *udev,
                                           const void *buf, uint32_t len)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserMigChunk *chunk = vfio_user_migration_chunk(m, m->nr++);

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

ssize_t vfio_user_migration_write(VFIOUserDevice *udev, const void *buf,
                                  size_t len)
{
    VFIOUserMigration *m = &udev->mig;
    int ret;

    QEMU_LOCK_GUARD(&m->lock);
    if (m->state != VFIO_USER_MIG_RESUMING) {
        return -EINVAL;
    }
    while (m->nr == m->depth && !m->error) {
        vfio_user_migration_collect_write(udev);
    }
    ret = vfio_user_migration_usable(udev, "loading");
    if (ret) {
        return ret;
    }
    len = MIN(len, m->size);
    vfio_user_migration_send_write(udev, buf, len);
    m->total += len;
    return len;
}

/* States ------------------------------------------------------------------------ */

/* The state that the server is to be in for hw/vfio's @state; see "P2P". */
static int vfio_user_migration_target(VFIOUserDevice *udev, int state)
{
    if (udev->mig.flags & VFIO_USER_MIGRATION_P2P) {
        return state;
    }
    return state == VFIO_USER_MIG_RUNNING_P2P ? VFIO_USER_MIG_RUNNING :
           state == VFIO_USER_MIG_PRE_COPY_P2P ? VFIO_USER_MIG_PRE_COPY : state;
}

unsigned vfio_user_migration_timeout(VFIOUserDevice *udev)
{
    return MIN(udev->timeout_ms * (uint64_t)VFIO_USER_SLOW_FACTOR, UINT_MAX);
}

bool vfio_user_migration_hung(VFIOUserDevice *udev)
{
    return qatomic_read(&udev->mig.hung);
}

static int vfio_user_migration_send_state(VFIOUserDevice *udev, int state,
                                          Error **errp)
{
    struct vfio_user_feature_mig_state want = {
        .state = state, .data_fd = UINT32_MAX,
    }, got;
    VFIOUserFeatureMsg msg;
    int ret;

    memcpy(&msg.data, &want, sizeof(want));
    ret = vfio_user_migration_call(udev, &msg, VFIO_USER_FEATURE_SET |
                                   VFIO_USER_FEATURE_MIG_DEVICE_STATE,
                                   sizeof(want), sizeof(got),
                                   vfio_user_migration_timeout(udev), errp);
    qatomic_set(&udev->mig.hung, ret == -ETIMEDOUT);
    if (ret) {
        return ret;
    }
    memcpy(&got, &msg.data, sizeof(got));
    if (got.state != state) {
        error_setg(errp, "the server answered with state %s",
                   vfio_user_migration_state_name(got.state));
        return -EIO;
    }
    return 0;
}

/* The server is in @m->state: what that means for the stream. */
static void vfio_user_migration_entered(VFIOUserDevice *udev, int wanted)
{
    VFIOUserMigration *m = &udev->mig;
    bool goes_on = vfio_user_migration_is_saving(m->wanted);

    m->wanted = wanted;
    if (vfio_user_migration_is_saving(wanted) && goes_on) {
        m->more = !m->ended;
    } else if (vfio_user_migration_is_saving(wanted) ||
               wanted == VFIO_USER_MIG_RESUMING) {
        vfio_user_migration_begin(udev);
    } else {
        vfio_user_migration_clear(udev);
    }
}

static int vfio_user_migration_change(VFIOUserDevice *udev, int target,
                                      Error **errp)
{
    VFIOUserMigration *m = &udev->mig;
    int ret;

    if (m->state == VFIO_USER_MIG_RESUMING) {
        ret = vfio_user_migration_flush_writes(udev);
        if (ret) {
            error_setg(errp, "the device state was not taken: %s",
                       strerror(-ret));
            m->state = -1;
            return ret;
        }
    }
    if (target == m->state) {
        return 0;
    }
    ret = vfio_user_migration_send_state(udev, target, errp);
    m->state = ret ? -1 : target;
    return ret;
}

/*
 * A reset put the device into RUNNING, whatever hw/vfio believes. If that was
 * in the middle of a stream, hw/vfio learns it when it asks for more; unless it
 * was itself who did it, after a change of state that failed.
 */
static void vfio_user_migration_take_reset(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;

    if (qatomic_xchg(&m->was_reset, false)) {
        vfio_user_migration_clear(udev);
        m->lost = m->state != -1;
        if (!m->lost) {
            m->wanted = VFIO_USER_MIG_RUNNING;
        }
        m->state = VFIO_USER_MIG_RUNNING;
    }
}

static int vfio_user_migration_set_state(VFIOUserDevice *udev,
                                         struct vfio_device_feature_mig_state
                                         *arg)
{
    VFIOUserMigration *m = &udev->mig;
    int wanted = arg->device_state;
    int target = vfio_user_migration_target(udev, wanted);
    Error *err = NULL;
    int before, ret;

    QEMU_LOCK_GUARD(&m->lock);
    arg->data_fd = -1;
    vfio_user_migration_take_reset(udev);
    before = m->state;
    ret = vfio_user_migration_change(udev, target, &err);
    trace_vfio_user_migration_set_state(udev->name,
        vfio_user_migration_state_name(before),
        vfio_user_migration_state_name(target), ret);
    if (ret) {
        error_reportf_err(err, "vfio-user-pci %s: going from state %s to %s "
                          "failed: ", udev->name,
                          vfio_user_migration_state_name(before),
                          vfio_user_migration_state_name(target));
        return ret;
    }
    vfio_user_migration_entered(udev, wanted);
    return 0;
}

void vfio_user_migration_was_reset(VFIOUserDevice *udev)
{
    qatomic_set(&udev->mig.was_reset, true);
}

/* VFIO_DEVICE_FEATURE ------------------------------------------------------------ */

/*
 * hw/vfio asks twice: when it sets up, with the BQL held, for the size of its
 * buffer; and later for what is left.
 */
static int vfio_user_migration_get_size(VFIOUserDevice *udev,
                                        struct vfio_device_feature_mig_data_size
                                        *arg)
{
    if (bql_locked()) {
        return -ENOTTY;
    }
    arg->stop_copy_length = vfio_user_migration_ask_size(udev);
    return 0;
}

int vfio_user_migration_feature(VFIOUserDevice *udev,
                                struct vfio_device_feature *arg)
{
    size_t room = arg->argsz - MIN(arg->argsz, sizeof(*arg));

    if (!udev->mig.flags) {
        return -ENOTTY;
    }
    if (room < sizeof(uint64_t) && !(arg->flags & VFIO_DEVICE_FEATURE_PROBE)) {
        return -EINVAL;
    }
    switch (arg->flags) {
    case VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION:
        ((struct vfio_device_feature_migration *)arg->data)->flags =
            udev->mig.flags | VFIO_MIGRATION_P2P;
        return 0;
    case VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        return vfio_user_migration_set_state(udev, (void *)arg->data);
    case VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE:
        return vfio_user_migration_get_size(udev, (void *)arg->data);
    default:
        /* DMA logging, too: the container does it (dirty.c). */
        return -ENOTTY;
    }
}

/* Life ------------------------------------------------------------------------------ */

void vfio_user_migration_init(VFIOUserDevice *udev)
{
    qemu_mutex_init(&udev->mig.lock);
    udev->mig.state = udev->mig.wanted = VFIO_USER_MIG_RUNNING;
    udev->mig.depth = 1;
}

void vfio_user_migration_cleanup(VFIOUserDevice *udev)
{
    vfio_user_migration_clear(udev);
    qemu_mutex_destroy(&udev->mig.lock);
}
