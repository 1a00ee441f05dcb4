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
 * The stream itself is in stream.c.
 *
 * P2P. hw/vfio wants every device to stop talking to its peers before any stops
 * altogether, and refuses to migrate several devices unless all can do that.
 * Unless peer-dma is on, a vfio-user device has no DMA window on another
 * device's memory, so it never talks to peers: to a server without P2P states,
 * RUNNING_P2P is RUNNING.
 *
 * A server that does not answer. The end of a migration has to know that a
 * change of state was made, and waits for that, with a deadline of several
 * messages. But stop, cont, and a migration that begins or is cancelled change
 * the state while the VM runs or is to run on, and must go on without the server:
 * they wait VFIO_USER_MIG_PLAIN_MS and leave the answer for later. The server
 * finds the change before anything else that is sent afterwards.
 *
 * What the server was told is one thing (@state), what hw/vfio believes another
 * (@wanted). They part when a change fails, when the device is reset and when
 * another server takes over. Then @state is none of the protocol's, so that the
 * next change is sent, whatever it is.
 *
 * A reset that is refused. libvfio-user refuses it in STOP. It is made up for
 * when the device is told to run, behind that message and before the guest does
 * anything; not when a state was loaded, which it would destroy.
 *
 * Locks: whoever changes the state waits for the server with @changing held,
 * whoever learns of an answer with @settling. Both are for threads that may wait
 * anyway. Nobody waits for the server with @lock held; the stream is a thread's
 * own (stream.c). So a vCPU that resets the device, and "stop" with the BQL, wait
 * for nobody who reads the stream.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "system/runstate.h"
#include "container.h"
#include "queued.h"
#include "trace.h"

#define VFIO_USER_MIG_PLAIN_MS      200

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

bool vfio_user_migration_is_saving(int state)
{
    return state == VFIO_USER_MIG_PRE_COPY ||
           state == VFIO_USER_MIG_PRE_COPY_P2P ||
           state == VFIO_USER_MIG_STOP_COPY;
}

/* The device may do DMA. */
static bool vfio_user_migration_is_running(int state)
{
    return state == VFIO_USER_MIG_RUNNING ||
           state == VFIO_USER_MIG_RUNNING_P2P ||
           state == VFIO_USER_MIG_PRE_COPY ||
           state == VFIO_USER_MIG_PRE_COPY_P2P;
}

/* No stream in either direction. */
static bool vfio_user_migration_is_still(int state)
{
    return state == VFIO_USER_MIG_STOP || state == VFIO_USER_MIG_RUNNING ||
           state == VFIO_USER_MIG_RUNNING_P2P;
}

static void vfio_user_migration_report(VFIOUserDevice *udev, int from, int to,
                                       Error *err)
{
    vfio_user_error_limited(&udev->state_said, "vfio-user-pci %s: going from "
                            "state %s to %s failed: %s", udev->name,
                            vfio_user_migration_state_name(from),
                            vfio_user_migration_state_name(to),
                            error_get_pretty(err));
    error_free(err);
}

/* Features -------------------------------------------------------------------- */

/* A feature with at most one u64 of data */
typedef struct VFIOUserFeatureMsg {
    struct vfio_user_feature feature;
    uint64_t data;
} VFIOUserFeatureMsg;

/*
 * What became of a message, of which @len bytes came back: 0, or -errno with
 * @errp set. @get: bytes of data that must be in the answer. -EPROTO means that
 * the connection was given up for it.
 */
static int vfio_user_migration_result(VFIOUserDevice *udev,
                                      const VFIOUserFeatureMsg *msg,
                                      const VFIOUserRequest *req,
                                      uint32_t flags, size_t get, Error **errp)
{
    Error *err = NULL;

    if (req->ret == -ETIMEDOUT) {
        error_setg(errp, "the server did not answer in time");
    } else if (req->ret == -EPIPE) {
        error_setg(errp, "the device is lost");
    } else if (req->ret) {
        error_setg(errp, "%s", strerror(-req->ret));
    } else if (!vfio_user_wire_check_feature(&msg->feature, req->in_len, flags,
                                             get, sizeof(msg->data), &err)) {
        error_prepend(&err, "DEVICE_FEATURE: ");
        error_setg(errp, "%s", error_get_pretty(err));
        vfio_user_device_broke_protocol(udev, err);
        return -EPROTO;
    }
    return req->ret;
}

/* A question on its way; its memory stays until the answer was taken. */
typedef struct VFIOUserFeatureAsk {
    VFIOUserRequest req;
    VFIOUserFeatureMsg msg;
    struct iovec out;
    struct iovec in;
    uint32_t flags;
} VFIOUserFeatureAsk;

static void vfio_user_migration_ask(VFIOUserDevice *udev,
                                    VFIOUserFeatureAsk *ask, uint32_t flags)
{
    ask->flags = flags;
    ask->msg = (VFIOUserFeatureMsg) {
        .feature = { .argsz = sizeof(ask->msg), .flags = flags },
    };
    ask->out = (struct iovec) { &ask->msg, sizeof(ask->msg.feature) };
    ask->in = (struct iovec) { &ask->msg, sizeof(ask->msg) };
    ask->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &ask->out, .nr_out = 1,
        .in = &ask->in, .nr_in = 1,
        .timeout_ms = vfio_user_conn_half_ms(udev->conn),
    };
    vfio_user_conn_submit(udev->conn, &ask->req);
}

/* As vfio_user_migration_result(). */
static int vfio_user_migration_answer(VFIOUserDevice *udev,
                                      VFIOUserFeatureAsk *ask, size_t get,
                                      Error **errp)
{
    vfio_user_conn_wait(udev->conn, &ask->req);
    return vfio_user_migration_result(udev, &ask->msg, &ask->req, ask->flags,
                                      get, errp);
}

/* What goes with migration, where there is any */
static void vfio_user_migration_probe_rest(VFIOUserDevice *udev)
{
    VFIOUserFeatureAsk log, size;

    vfio_user_migration_ask(udev, &log, VFIO_USER_FEATURE_PROBE |
                            VFIO_USER_FEATURE_SET |
                            VFIO_USER_FEATURE_DMA_LOGGING_START);
    vfio_user_migration_ask(udev, &size, VFIO_USER_FEATURE_PROBE |
                            VFIO_USER_FEATURE_GET |
                            VFIO_USER_FEATURE_MIG_DATA_SIZE);
    udev->mig.can_log = !vfio_user_migration_answer(udev, &log, 0, NULL);
    udev->mig.knows_size = !vfio_user_migration_answer(udev, &size, 0, NULL);
}

bool vfio_user_migration_probe(VFIOUserDevice *udev, Error **errp)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserFeatureAsk ask;
    struct vfio_user_feature_migration answer;

    vfio_user_migration_ask(udev, &ask, VFIO_USER_FEATURE_GET |
                            VFIO_USER_FEATURE_MIGRATION);
    if (!vfio_user_migration_answer(udev, &ask, sizeof(answer), NULL)) {
        answer.flags = ask.msg.data;
        if (!vfio_user_wire_check_migration(&answer, &m->flags, errp)) {
            error_prepend(errp, "DEVICE_FEATURE: ");
            return false;
        }
    }
    if (m->flags) {
        vfio_user_migration_probe_rest(udev);
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

bool vfio_user_migration_is_stopped(VFIOUserDevice *udev)
{
    int state = qatomic_read(&udev->mig.state);

    return udev->mig.flags && state != VFIO_USER_MIG_RESUMING &&
           !vfio_user_migration_is_running(state);
}

/* SET of MIG_DEVICE_STATE on its way; or DEVICE_RESET, without @state */
struct VFIOUserStateMsg {
    VFIOUserQueued q;
    VFIOUserFeatureMsg msg;
    struct iovec out;
    struct iovec in;
    int state;
    QSIMPLEQ_ENTRY(VFIOUserStateMsg) next;
};

#define VFIO_USER_SET_STATE                                                 \
    (VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_MIG_DEVICE_STATE)

static VFIOUserStateMsg *vfio_user_migration_submit_state(VFIOUserDevice *udev,
                                                          int state)
{
    struct vfio_user_feature_mig_state want = {
        .state = state, .data_fd = UINT32_MAX,
    };
    VFIOUserStateMsg *sm = g_new0(VFIOUserStateMsg, 1);

    sm->state = state;
    sm->msg.feature = (struct vfio_user_feature) {
        .argsz = sizeof(sm->msg), .flags = VFIO_USER_SET_STATE,
    };
    memcpy(&sm->msg.data, &want, sizeof(want));
    sm->out = sm->in = (struct iovec) { &sm->msg, sizeof(sm->msg) };
    sm->q.req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_FEATURE,
        .out = &sm->out, .nr_out = 1,
        .in = &sm->in, .nr_in = 1,
        .timeout_ms = vfio_user_migration_timeout(udev),
    };
    vfio_user_queued_submit(udev->conn, &sm->q);
    return sm;
}

/* It was answered, or never will be: 0, or -errno with @errp set. Frees it. */
static int vfio_user_migration_state_result(VFIOUserDevice *udev,
                                            VFIOUserStateMsg *sm, Error **errp)
{
    struct vfio_user_feature_mig_state got;
    int ret = vfio_user_migration_result(udev, &sm->msg, &sm->q.req,
                                         VFIO_USER_SET_STATE, sizeof(got),
                                         errp);

    qatomic_set(&udev->mig.hung, ret == -ETIMEDOUT);
    vfio_user_irqs_set_runs(udev, !ret &&
                            vfio_user_migration_is_running(sm->state));
    memcpy(&got, &sm->msg.data, sizeof(got));
    if (!ret && got.state != sm->state) {
        error_setg(errp, "the server answered with state %s",
                   vfio_user_migration_state_name(got.state));
        ret = -EIO;
    }
    vfio_user_queued_put(&sm->q);
    return ret;
}

static VFIOUserStateMsg *vfio_user_migration_submit_reset(VFIOUserDevice *udev)
{
    VFIOUserStateMsg *sm = g_new0(VFIOUserStateMsg, 1);

    sm->state = VFIO_USER_MIG_UNTOLD;
    sm->q.req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_RESET,
        .timeout_ms = vfio_user_migration_timeout(udev),
    };
    vfio_user_queued_submit(udev->conn, &sm->q);
    return sm;
}

/* The outcome of a reset that was owed. Frees it. */
static void vfio_user_migration_reset_result(VFIOUserDevice *udev,
                                             VFIOUserStateMsg *sm)
{
    int ret = sm->q.req.ret;

    trace_vfio_user_device_reset(udev->name, ret);
    if (ret && ret != -EPIPE) {
        vfio_user_warn_limited(&udev->reset_said, "vfio-user-pci %s: reset "
                               "failed: %s", udev->name, ret == -ETIMEDOUT ?
                               "the server did not answer in time" :
                               strerror(-ret));
    }
    vfio_user_queued_put(&sm->q);
}

/* The answer is for vfio_user_migration_settle(). */
static void vfio_user_migration_leave(VFIOUserMigration *m,
                                      VFIOUserStateMsg *sm)
{
    QEMU_LOCK_GUARD(&m->lock);
    QSIMPLEQ_INSERT_TAIL(&m->unanswered, sm, next);
}

static VFIOUserStateMsg *vfio_user_migration_left(VFIOUserMigration *m)
{
    QEMU_LOCK_GUARD(&m->lock);
    return QSIMPLEQ_FIRST(&m->unanswered);
}

/* The first of those that were left has its outcome. Under @settling. */
static void vfio_user_migration_settle_one(VFIOUserDevice *udev,
                                           VFIOUserStateMsg *sm)
{
    VFIOUserMigration *m = &udev->mig;
    int state = sm->state;
    Error *err = NULL;
    bool last;

    WITH_QEMU_LOCK_GUARD(&m->lock) {
        QSIMPLEQ_REMOVE_HEAD(&m->unanswered, next);
        last = QSIMPLEQ_EMPTY(&m->unanswered);
    }
    if (state == VFIO_USER_MIG_UNTOLD) {
        vfio_user_migration_reset_result(udev, sm);
    } else if (vfio_user_migration_state_result(udev, sm, &err)) {
        vfio_user_migration_report(udev, -1, state, err);
        if (last) {
            qatomic_set(&m->state, VFIO_USER_MIG_FAILED);
        }
    }
}

bool vfio_user_migration_settle(VFIOUserDevice *udev, bool wait)
{
    VFIOUserMigration *m = &udev->mig;
    int64_t until = wait ? INT64_MAX : 0;
    VFIOUserStateMsg *sm;

    if (wait) {
        qemu_mutex_lock(&m->settling);
    } else if (qemu_mutex_trylock(&m->settling)) {
        /* Somebody waits for an answer, so there is none yet. */
        return false;
    }
    while ((sm = vfio_user_migration_left(m)) &&
           vfio_user_queued_wait(&sm->q, until)) {
        vfio_user_migration_settle_one(udev, sm);
    }
    qemu_mutex_unlock(&m->settling);
    return !sm;
}

/*
 * Nothing depends on the device's answer: the VM is stopped or goes on, a
 * migration begins, was given up or is over. Where there is a stream, the next
 * read of it will tell.
 */
static bool vfio_user_migration_is_plain(VFIOUserMigration *m, int target)
{
    return m->wanted != VFIO_USER_MIG_RESUMING &&
           target != VFIO_USER_MIG_RESUMING &&
           !runstate_check(RUN_STATE_FINISH_MIGRATE) &&
           !runstate_check(RUN_STATE_SAVE_VM);
}

/*
 * Tell the server, and wait up to @until; 0: not at all. A reset that is owed
 * goes with the first state in which the device runs. Returns 0, or -errno with
 * @errp set.
 */
static int vfio_user_migration_send_state(VFIOUserDevice *udev, int target,
                                          int64_t until, Error **errp)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserStateMsg *sm, *reset = NULL;
    int ret;

    vfio_user_irqs_set_runs(udev, false);
    sm = vfio_user_migration_submit_state(udev, target);

    WITH_QEMU_LOCK_GUARD(&m->lock) {
        if (m->reset_owed && vfio_user_migration_is_running(target)) {
            m->reset_owed = false;
            reset = vfio_user_migration_submit_reset(udev);
        }
    }
    if (reset) {
        vfio_user_irqs_was_reset(udev);
    } else if (vfio_user_migration_is_running(target)) {
        /* What the server refused before it finds behind the change of state. */
        vfio_user_irqs_sync(udev);
    }
    if (vfio_user_queued_wait(&sm->q, until)) {
        ret = vfio_user_migration_state_result(udev, sm, errp);
    } else {
        vfio_user_migration_leave(m, sm);
        ret = 0;
    }
    if (!reset) {
        return ret;
    }
    if (vfio_user_queued_wait(&reset->q, until)) {
        vfio_user_migration_reset_result(udev, reset);
    } else {
        vfio_user_migration_leave(m, reset);
    }
    return ret;
}

static int64_t vfio_user_migration_until(VFIOUserDevice *udev, bool plain)
{
    if (!vfio_user_migration_settle(udev, !plain)) {
        /* It does not answer the one before either. */
        return 0;
    }
    return !plain ? INT64_MAX :
           runstate_check(RUN_STATE_SHUTDOWN) ? 0 :
           g_get_monotonic_time() + VFIO_USER_MIG_PLAIN_MS * 1000;
}

/* The server was told hw/vfio's @wanted: what that means for the stream. */
static void vfio_user_migration_entered(VFIOUserDevice *udev, int wanted)
{
    VFIOUserMigration *m = &udev->mig;
    bool is_saving = vfio_user_migration_is_saving(wanted);

    QEMU_LOCK_GUARD(&m->lock);
    if (is_saving && vfio_user_migration_is_saving(m->wanted)) {
        /* It goes on. */
    } else if (is_saving || wanted == VFIO_USER_MIG_RESUMING) {
        vfio_user_stream_begin(udev);
    } else {
        vfio_user_stream_end(udev);
    }
    m->wanted = wanted;
    if (wanted == VFIO_USER_MIG_RESUMING) {
        m->reset_owed = false;
    }
}

static int vfio_user_migration_change(VFIOUserDevice *udev, int target,
                                      Error **errp)
{
    VFIOUserMigration *m = &udev->mig;
    int ret = 0;

    if (m->state == VFIO_USER_MIG_RESUMING) {
        ret = vfio_user_stream_flush_writes(udev);
        if (ret) {
            error_setg(errp, "the device state was not taken: %s",
                       strerror(-ret));
            qatomic_set(&m->state, VFIO_USER_MIG_FAILED);
            return ret;
        }
    }
    if (target == m->state) {
        return 0;
    }
    if (vfio_user_conn_broken(udev->conn) && m->wanted != VFIO_USER_MIG_RESUMING
        && vfio_user_migration_is_still(target)) {
        /* That the device is lost was reported; the VM stops and goes on. */
    } else {
        bool plain = vfio_user_migration_is_plain(m, target);
        int64_t until = vfio_user_migration_until(udev, plain);

        ret = vfio_user_migration_send_state(udev, target, until, errp);
    }
    qatomic_store_release(&m->state, ret ? VFIO_USER_MIG_FAILED : target);
    vfio_user_container_look(udev);
    return ret;
}

static VFIOUserBqlWhy vfio_user_migration_why(VFIOUserMigration *m, int target)
{
    return vfio_user_migration_is_plain(m, target) ? VFIO_USER_BQL_STATE :
           m->wanted == VFIO_USER_MIG_RESUMING ||
           target == VFIO_USER_MIG_RESUMING ? VFIO_USER_BQL_LOAD :
                                              VFIO_USER_BQL_SAVE;
}

static int vfio_user_migration_set_state(VFIOUserDevice *udev,
                                         struct vfio_device_feature_mig_state
                                         *arg)
{
    VFIOUserMigration *m = &udev->mig;
    int wanted = arg->device_state;
    int target = vfio_user_migration_target(udev, wanted);
    VFIO_USER_BQL_SCOPE(vfio_user_migration_why(m, target));
    Error *err = NULL;
    int before, ret;

    QEMU_LOCK_GUARD(&m->changing);
    arg->data_fd = -1;
    before = qatomic_read(&m->state);
    ret = vfio_user_migration_change(udev, target, &err);
    trace_vfio_user_migration_set_state(udev->name,
        vfio_user_migration_state_name(before),
        vfio_user_migration_state_name(target), ret);
    if (ret) {
        vfio_user_migration_report(udev, before, target, err);
        /*
         * QEMU ends; migration is shut down already, and hw/vfio would tell it
         * of the error.
         */
        return runstate_check(RUN_STATE_SHUTDOWN) ? 0 : ret;
    }
    vfio_user_migration_entered(udev, wanted);
    return 0;
}

/* Resets, and other servers -------------------------------------------------------- */

void vfio_user_migration_resetting(VFIOUserDevice *udev)
{
    qatomic_set(&udev->mig.resetting, true);
}

/* What a reset that ended with @ret has changed. Returns whether it is owed. */
static bool vfio_user_migration_take_reset(VFIOUserDevice *udev, int ret)
{
    VFIOUserMigration *m = &udev->mig;
    bool refused = ret && ret != -EPIPE && ret != -ETIMEDOUT;

    QEMU_LOCK_GUARD(&m->lock);
    m->reset_owed = refused && m->flags &&
                    !vfio_user_migration_is_running(m->state);
    if (!refused) {
        vfio_user_stream_lose(udev, VFIO_USER_STREAM_RESET);
        /* One that was running is, whatever a reset does. */
        if (m->state != VFIO_USER_MIG_RUNNING) {
            qatomic_set(&m->state, VFIO_USER_MIG_UNTOLD);
        }
    }
    return m->reset_owed;
}

/*
 * hw/vfio resets a device that failed to change its state, and takes it for
 * running from then on.
 */
static void vfio_user_migration_recover(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    Error *err = NULL;

    QEMU_LOCK_GUARD(&m->changing);
    vfio_user_migration_entered(udev, VFIO_USER_MIG_RUNNING);
    if (vfio_user_conn_broken(udev->conn)) {
        return;
    }
    if (vfio_user_migration_send_state(udev, VFIO_USER_MIG_RUNNING,
                                       vfio_user_migration_until(udev, true),
                                       &err)) {
        vfio_user_migration_report(udev, -1, VFIO_USER_MIG_RUNNING, err);
        qatomic_set(&m->state, VFIO_USER_MIG_FAILED);
    } else {
        qatomic_set(&m->state, VFIO_USER_MIG_RUNNING);
        vfio_user_container_look(udev);
    }
}

/* In this order: who reads the stream meanwhile sees one of the two. */
bool vfio_user_migration_reset(VFIOUserDevice *udev, int ret)
{
    VFIOUserMigration *m = &udev->mig;
    bool failed = qatomic_read(&m->state) == VFIO_USER_MIG_FAILED;
    bool owed = vfio_user_migration_take_reset(udev, ret);

    qatomic_store_release(&m->resetting, false);
    if (failed && m->flags) {
        vfio_user_migration_recover(udev);
    }
    return owed;
}

/* Answers of a server that has gone. */
static void vfio_user_migration_forget(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    VFIOUserStateMsg *sm;

    while ((sm = vfio_user_migration_left(m))) {
        WITH_QEMU_LOCK_GUARD(&m->lock) {
            QSIMPLEQ_REMOVE_HEAD(&m->unanswered, next);
        }
        vfio_user_queued_put(&sm->q);
    }
}

void vfio_user_migration_returned(VFIOUserDevice *udev)
{
    VFIOUserMigration *m = &udev->mig;
    Error *err = NULL;
    int target, ret;

    if (!m->flags) {
        return;
    }
    QEMU_LOCK_GUARD(&m->changing);
    WITH_QEMU_LOCK_GUARD(&m->settling) {
        vfio_user_migration_forget(udev);
    }
    qatomic_set(&m->hung, false);
    WITH_QEMU_LOCK_GUARD(&m->lock) {
        vfio_user_stream_lose(udev, "the server was lost meanwhile");
        target = vfio_user_migration_is_running(m->wanted) ?
                 VFIO_USER_MIG_RUNNING : VFIO_USER_MIG_STOP;
    }
    ret = vfio_user_migration_send_state(udev, target, 0, &err);
    if (ret) {
        vfio_user_migration_report(udev, VFIO_USER_MIG_UNTOLD, target, err);
    }
    qatomic_set(&m->state, ret ? VFIO_USER_MIG_FAILED : target);
}

/* VFIO_DEVICE_FEATURE ------------------------------------------------------------ */

/*
 * What is left: 0, or -errno if nobody knows. That counts for very much, so the
 * VM is not stopped to find out that the server is away, or does not answer.
 */
static int vfio_user_migration_ask_size(VFIOUserDevice *udev, uint64_t *size)
{
    VFIOUserLink link = vfio_user_device_link(udev);
    VFIOUserFeatureAsk ask;
    int ret;

    *size = 0;
    if (link == VFIO_USER_LINK_DOWN || link == VFIO_USER_LINK_REPLAY) {
        return -EAGAIN;
    }
    if (!udev->mig.knows_size || link == VFIO_USER_LINK_GONE) {
        return 0;
    }
    vfio_user_migration_ask(udev, &ask, VFIO_USER_FEATURE_GET |
                            VFIO_USER_FEATURE_MIG_DATA_SIZE);
    ret = vfio_user_migration_answer(udev, &ask, sizeof(ask.msg.data), NULL);
    if (ret == -EPIPE || ret == -ETIMEDOUT) {
        return ret;
    }
    *size = ret ? 0 : ask.msg.data;
    return 0;
}

/*
 * hw/vfio asks twice: when it sets up, with the BQL held, for the size of its
 * buffer; and later for what is left.
 */
static int vfio_user_migration_get_size(VFIOUserDevice *udev,
                                        struct vfio_device_feature_mig_data_size
                                        *arg)
{
    uint64_t size;
    int ret;

    if (bql_locked()) {
        return -ENOTTY;
    }
    ret = vfio_user_migration_ask_size(udev, &size);
    arg->stop_copy_length = size;
    return ret;
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
            udev->mig.flags | (udev->peer_dma ? 0 : VFIO_MIGRATION_P2P);
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
    qemu_mutex_init(&udev->mig.changing);
    qemu_mutex_init(&udev->mig.settling);
    qemu_mutex_init(&udev->mig.lock);
    udev->mig.state = udev->mig.wanted = VFIO_USER_MIG_RUNNING;
    QSIMPLEQ_INIT(&udev->mig.unanswered);
}

void vfio_user_migration_cleanup(VFIOUserDevice *udev)
{
    vfio_user_migration_forget(udev);
    vfio_user_stream_end(udev);
    qemu_mutex_destroy(&udev->mig.lock);
    qemu_mutex_destroy(&udev->mig.settling);
    qemu_mutex_destroy(&udev->mig.changing);
}
