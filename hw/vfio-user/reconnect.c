/*
 * vfio-user: a server that goes and comes back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The connection fails in any thread. From then on accesses find the link down,
 * and read ones or wait, as the user wants. A bottom half takes the mapped areas
 * from the guest, tells management, stops the VM if asked to, and starts a
 * thread. That one tries to connect until a server is there, negotiates with it
 * as if it were for a new device, and compares. Only then does the device take
 * over the new connection. It is told what it must know (replay.c), and the
 * link is up again.
 *
 * A thread, since all of this waits, and nobody may wait with the BQL. It looks
 * at what hw/vfio owns with the BQL only, and finds out there whether the device
 * is still plugged. It is never waited for: a device that is unplugged leaves
 * it behind, and it ends when it notices.
 *
 * Kept or reset. The protocol has no word for whether a server still has the
 * device's state. But every server keeps what the guest has written to the
 * command register and the BARs, so one that has lost that has lost the rest.
 * It gets a DEVICE_RESET all the same, for what it may have half restored, and
 * the guest's driver must recover. A reset that the server missed is made up
 * for in any case: it must not go on with DMA into a guest that has rebooted.
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-events-vfio-user.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "hw/vfio/pci.h"
#include "system/runstate.h"
#include "connect.h"
#include "config-same.h"
#include "container.h"
#include "ioeventfd.h"
#include "reconnect.h"
#include "trace.h"

/* The longest time between two attempts is that many times the shortest. */
#define VFIO_USER_RECONNECT_BACKOFF     16
/* A server that stays for less is one that crashes again and again. */
#define VFIO_USER_RECONNECT_STEADY_US   (10 * G_USEC_PER_SEC)

/**
 * VFIOUserReconnect: @opts, @dev and names are set once
 *
 * @dev: only for who is in an access of it, or has the BQL while it is plugged
 *
 * @lock: what follows, and VFIOUserDevice.link
 * @cond: it has changed
 * @life: times that the server came back; atomic
 * @reset_life: @life when one last began anew
 * @stopped: the device was unplugged
 * @fresh: what is being negotiated with
 *
 * Under the BQL:
 * @running: there is a thread
 * @tries: attempts since the server was last there for some time; the thread's
 *     while it runs, atomic
 * @since: when it last came back, as g_get_monotonic_time()
 * @holds_vm: the VM is stopped on behalf of this device
 * @refusal: what was last said of a server that is another device; BQL
 *
 * @said_lost, @said_refused, @said_back: lines in the log
 */
struct VFIOUserReconnect {
    VFIOUserReconnectOptions opts;
    DeviceState *dev;
    char *id;
    char *path;

    QemuMutex lock;
    QemuCond cond;
    unsigned life;
    unsigned reset_life;
    bool stopped;
    VFIOUserDevice *fresh;

    bool running;
    unsigned tries;
    int64_t since;
    bool holds_vm;
    char *refusal;

    VFIOUserLimit said_lost;
    VFIOUserLimit said_refused;
    VFIOUserLimit said_back;
};

/* Devices that hold the VM stopped; under the BQL. */
static unsigned vfio_user_reconnect_nr_holding;

/* The link -------------------------------------------------------------------- */

/* Returns false when that is not to be, since the device was unplugged. */
static bool vfio_user_reconnect_set_link(VFIOUserDevice *udev,
                                         VFIOUserLink link)
{
    VFIOUserReconnect *rc = udev->reconnect;

    QEMU_LOCK_GUARD(&rc->lock);
    if (rc->stopped) {
        return false;
    }
    qatomic_store_release(&udev->link, link);
    qemu_cond_broadcast(&rc->cond);
    trace_vfio_user_reconnect_link(udev->name, link);
    vfio_user_held_look(udev);
    return true;
}

unsigned vfio_user_reconnect_life(VFIOUserDevice *udev)
{
    return udev->reconnect ? qatomic_load_acquire(&udev->reconnect->life) : 0;
}

VFIOUserReturn vfio_user_reconnect_fate(VFIOUserDevice *udev, unsigned life)
{
    VFIOUserReconnect *rc = udev->reconnect;

    if (!rc || !rc->opts.delay_ms ||
        rc->opts.policy == VFIO_USER_ON_DISCONNECT_OFFLINE) {
        return VFIO_USER_RETURN_NONE;
    }
    QEMU_LOCK_GUARD(&rc->lock);
    if (udev->link == VFIO_USER_LINK_GONE) {
        return VFIO_USER_RETURN_NONE;
    }
    if (rc->life == life) {
        /* The guest has to let go of it first, and its driver may access it. */
        return qatomic_read(&rc->dev->pending_deleted_event) ?
               VFIO_USER_RETURN_NONE : VFIO_USER_RETURN_WAIT;
    }
    return rc->reset_life > life ? VFIO_USER_RETURN_RESET :
                                   VFIO_USER_RETURN_KEPT;
}

/* The VM ------------------------------------------------------------------------ */

static void vfio_user_reconnect_hold_vm(VFIOUserReconnect *rc)
{
    if (rc->opts.policy == VFIO_USER_ON_DISCONNECT_STOP && !rc->holds_vm &&
        runstate_is_running()) {
        rc->holds_vm = true;
        trace_vfio_user_reconnect_hold_vm(rc->path);
        vfio_user_reconnect_nr_holding++;
        qemu_system_vmstop_request_prepare();
        qemu_system_vmstop_request(RUN_STATE_IO_ERROR);
    }
}

static void vfio_user_reconnect_resume(void *opaque)
{
    if (!vfio_user_reconnect_nr_holding) {
        vfio_user_resume_vm();
    }
}

static void vfio_user_reconnect_release_vm(VFIOUserReconnect *rc, bool resume)
{
    if (!rc->holds_vm) {
        return;
    }
    rc->holds_vm = false;
    trace_vfio_user_reconnect_release_vm(rc->path, resume);
    vfio_user_reconnect_nr_holding--;
    if (resume) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                vfio_user_reconnect_resume, NULL);
    }
}

/* Loss -------------------------------------------------------------------------- */

static const char *vfio_user_reconnect_outlook(const VFIOUserReconnect *rc)
{
    if (!rc->opts.delay_ms) {
        return "It reads all-ones and ignores writes from now on; unplug it "
               "(device_del) and plug it anew when the server is back";
    }
    switch (rc->opts.policy) {
    case VFIO_USER_ON_DISCONNECT_HOLD:
        return "vCPUs that access it wait for the server to come back";
    case VFIO_USER_ON_DISCONNECT_STOP:
        return "The VM is stopped until the server is back";
    default:
        return "It reads all-ones and ignores writes until the server is back";
    }
}

/* A bottom half that outlives the device. */
static void vfio_user_reconnect_schedule(VFIOUserDevice *udev, QEMUBHFunc *cb)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), cb,
                            vfio_user_device_ref(udev));
}

static void *vfio_user_reconnect_thread(void *opaque);

static void vfio_user_reconnect_begin(VFIOUserDevice *udev)
{
    VFIOUserReconnect *rc = udev->reconnect;
    QemuThread thread;

    if (rc->running || vfio_user_device_link(udev) != VFIO_USER_LINK_DOWN) {
        return;
    }
    rc->running = true;
    if (g_get_monotonic_time() - rc->since > VFIO_USER_RECONNECT_STEADY_US) {
        rc->tries = 0;
    }
    object_ref(OBJECT(rc->opts.iothread));
    qemu_thread_create(&thread, "vfio-user/back", vfio_user_reconnect_thread,
                       vfio_user_device_ref(udev), QEMU_THREAD_DETACHED);
}

static void vfio_user_reconnect_lost_bh(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    VFIOUserReconnect *rc = udev->reconnect;

    if (udev->vbasedev) {
        Error *err = vfio_user_conn_error(udev->conn);

        if (udev->twin) {
            vfio_user_conn_close(udev->twin);
        }
        vfio_user_gate_lost(udev);
        qapi_event_send_vfio_user_disconnected(rc->id, rc->path,
            err ? error_get_pretty(err) : "unknown", rc->opts.delay_ms > 0);
        error_free(err);
        if (rc->opts.delay_ms) {
            vfio_user_reconnect_hold_vm(rc);
            vfio_user_reconnect_begin(udev);
        }
    }
    vfio_user_device_unref(udev);
}

void vfio_user_reconnect_lost(VFIOUserDevice *udev)
{
    VFIOUserReconnect *rc = udev->reconnect;
    Error *err;

    WITH_QEMU_LOCK_GUARD(&rc->lock) {
        if (rc->stopped || udev->link != VFIO_USER_LINK_UP) {
            return;
        }
        qatomic_store_release(&udev->link, rc->opts.delay_ms ?
                              VFIO_USER_LINK_DOWN : VFIO_USER_LINK_GONE);
        qemu_cond_broadcast(&rc->cond);
        trace_vfio_user_reconnect_link(udev->name, udev->link);
    }
    vfio_user_held_look(udev);
    err = vfio_user_conn_error(udev->conn);
    vfio_user_error_limited(&rc->said_lost,
                            "vfio-user-pci %s: %s lost: %s. %s", udev->name,
                            rc->opts.delay_ms ? "connection" : "device",
                            err ? error_get_pretty(err) : "unknown reason",
                            vfio_user_reconnect_outlook(rc));
    error_free(err);
    vfio_user_reconnect_schedule(udev, vfio_user_reconnect_lost_bh);
}

/* Return ------------------------------------------------------------------------ */

/* Another device, or one that cannot be used. BQL. */
static void vfio_user_reconnect_refuse(VFIOUserDevice *udev, Error *err)
{
    VFIOUserReconnect *rc = udev->reconnect;
    const char *why = error_get_pretty(err);

    trace_vfio_user_reconnect_refused(udev->name, why);
    if (!rc->stopped && g_strcmp0(rc->refusal, why)) {
        vfio_user_error_limited(&rc->said_refused, "vfio-user-pci %s: the "
                                "server that is there now was refused: %s",
                                udev->name, why);
        qapi_event_send_vfio_user_refused(rc->id, rc->path, why, NULL);
        g_free(rc->refusal);
        rc->refusal = g_strdup(why);
    }
    error_free(err);
}

/*
 * Whose connection ends at once when the device is unplugged. Returns false when
 * it was already.
 */
static bool vfio_user_reconnect_set_fresh(VFIOUserReconnect *rc,
                                          VFIOUserDevice *fresh)
{
    QEMU_LOCK_GUARD(&rc->lock);
    rc->fresh = fresh;
    return !rc->stopped;
}

static bool vfio_user_reconnect_negotiate(VFIOUserDevice *udev,
                                          VFIOUserDevice *fresh, Error **errp)
{
    const VFIOUserReconnectOptions *opts = &udev->reconnect->opts;
    bool ok;

    /* What is said of an offer counts for the device, whichever server made it. */
    fresh->offer_said = udev->offer_said;
    ok = vfio_user_device_negotiate(fresh,
                                    iothread_get_aio_context(opts->iothread),
                                    opts->poll_max_us, opts->ioeventfd, errp) &&
         (!udev->mig.flags || vfio_user_migration_probe(fresh, errp)) &&
         vfio_user_identity_same(udev, fresh, errp);
    udev->offer_said = fresh->offer_said;
    return ok;
}

static void vfio_user_reconnect_close(VFIOUserDevice *udev,
                                      VFIOUserDevice *fresh)
{
    vfio_user_reconnect_set_fresh(udev->reconnect, NULL);
    vfio_user_device_close(fresh);
    vfio_user_device_unref(fresh);
}

/*
 * Is there a server? Then what it offers. That there is none, or that it leaves
 * while it is asked, is no news. One that cannot be used is.
 */
static VFIOUserDevice *vfio_user_reconnect_open(VFIOUserDevice *udev)
{
    VFIOUserReconnect *rc = udev->reconnect;
    VFIOUserDevice *fresh;
    Error *err = NULL;
    int fd = vfio_user_connect(rc->opts.socket, udev->timeout_ms, &err);

    if (fd < 0) {
        trace_vfio_user_reconnect_failed(udev->name, error_get_pretty(err));
        error_free(err);
        return NULL;
    }
    fresh = vfio_user_device_new(fd, udev->name,
                                 iothread_get_aio_context(rc->opts.iothread),
                                 udev->timeout_ms, udev->record);
    if (vfio_user_reconnect_set_fresh(rc, fresh) &&
        vfio_user_reconnect_negotiate(udev, fresh, &err)) {
        return fresh;
    }
    if (err && !vfio_user_conn_left(fresh->conn)) {
        bql_lock();
        vfio_user_reconnect_refuse(udev, err);
        bql_unlock();
    } else if (err) {
        trace_vfio_user_reconnect_failed(udev->name, error_get_pretty(err));
        error_free(err);
    }
    vfio_user_reconnect_close(udev, fresh);
    return NULL;
}

/* Does it still have the device's state? BQL. */
static bool vfio_user_reconnect_is_kept(VFIOUserDevice *udev,
                                        const VFIOUserDevice *fresh)
{
    const PCIDevice *pdev = PCI_DEVICE(udev->vbasedev->dev);
    unsigned bars = 0;

    if (udev->missed_reset ||
        udev->reconnect->opts.reset == ON_OFF_AUTO_ON) {
        return false;
    }
    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        bars |= udev->regions[i].info.guest_size ? 1u << i : 0;
    }
    return udev->reconnect->opts.reset == ON_OFF_AUTO_OFF ||
           vfio_user_config_kept(pdev->config, fresh->config, bars);
}

/* Decides, and resets the device where that is needed. */
static bool vfio_user_reconnect_prepare(VFIOUserDevice *udev,
                                        VFIOUserDevice *fresh, bool *kept)
{
    bool stopped;
    int ret;

    bql_lock();
    stopped = !udev->vbasedev;
    if (!stopped) {
        *kept = vfio_user_reconnect_is_kept(udev, fresh);
        udev->missed_reset = false;
    }
    bql_unlock();
    if (stopped || *kept ||
        !(fresh->info.flags & VFIO_USER_DEVICE_RESETTABLE)) {
        return !stopped;
    }
    ret = vfio_user_device_call(fresh, VFIO_USER_DEVICE_RESET, NULL, 0, NULL,
                                0, NULL);
    trace_vfio_user_device_reset(udev->name, ret);
    if (ret == -EPIPE || ret == -ETIMEDOUT) {
        /* Once more with the next server. */
        bql_lock();
        udev->missed_reset = true;
        bql_unlock();
        return false;
    }
    return true;
}

/* From here on what the server sends is for the device. */
static bool vfio_user_reconnect_adopt(VFIOUserDevice *udev,
                                      VFIOUserDevice *fresh)
{
    bool ok = false;

    bql_lock();
    if (udev->vbasedev && !udev->missed_reset &&
        vfio_user_device_adopt(udev, fresh)) {
        VFIOUserContainer *c =
            VFIO_IOMMU_USER((Object *)udev->vbasedev->bcontainer);

        vfio_user_dirty_lost(c);
        vfio_user_container_forget(c);
        ok = vfio_user_reconnect_set_link(udev, VFIO_USER_LINK_REPLAY);
    }
    bql_unlock();
    return ok;
}

/* A server that came back for a moment. BQL. */
static void vfio_user_reconnect_drop(VFIOUserDevice *udev, const char *why)
{
    Error *err = NULL;

    error_setg(&err, "%s", why);
    vfio_user_conn_fail(udev->conn, err);
    vfio_user_reconnect_set_link(udev, VFIO_USER_LINK_DOWN);
}

/* It knows everything: let accesses go on. BQL. */
static void vfio_user_reconnect_finish(VFIOUserDevice *udev, bool kept)
{
    VFIOUserReconnect *rc = udev->reconnect;
    VFIOPCIDevice *vdev = container_of(udev->vbasedev, VFIOPCIDevice, vbasedev);
    unsigned nr;

    vfio_user_gate_returned(udev);
    vfio_user_ioeventfd_returned(udev->vbasedev, kept);
    WITH_QEMU_LOCK_GUARD(&rc->lock) {
        qatomic_store_release(&rc->life, rc->life + 1);
        if (!kept) {
            rc->reset_life = rc->life;
        }
        qatomic_store_release(&udev->link, VFIO_USER_LINK_UP);
        qemu_cond_broadcast(&rc->cond);
        trace_vfio_user_reconnect_link(udev->name, VFIO_USER_LINK_UP);
    }
    vfio_user_held_look(udev);
    vfio_user_dirty_returned(VFIO_IOMMU_USER(
        (Object *)udev->vbasedev->bcontainer));
    rc->running = false;
    rc->since = g_get_monotonic_time();
    g_free(g_steal_pointer(&rc->refusal));
    /* What the old server signalled last, or the new one before it could. */
    nr = vfio_user_load_kick(vdev);
    trace_vfio_user_reconnected(udev->name, kept, nr);
    vfio_user_info_limited(&rc->said_back,
                           "vfio-user-pci %s: the server is back%s",
                           udev->name, kept ? "" : "; its device begins anew, "
                           "and the guest's driver has to set it up again");
    qapi_event_send_vfio_user_reconnected(rc->id, rc->path, kept);
    vfio_user_reconnect_release_vm(rc, true);
    /* What failed before the link was up was not taken note of. */
    if (vfio_user_conn_broken(udev->conn)) {
        vfio_user_reconnect_lost(udev);
    }
}

static bool vfio_user_reconnect_replay(VFIOUserDevice *udev, bool kept)
{
    Error *err = NULL;
    bool ok = vfio_user_replay(udev);

    if (!ok) {
        bql_lock();
        vfio_user_reconnect_drop(udev, "the server did not take what it must "
                                 "know");
    } else if (udev->missed_reset) {
        vfio_user_reconnect_drop(udev, "the guest was reset meanwhile");
        ok = false;
    } else if (!vfio_user_replay_map(udev, &err)) {
        vfio_user_reconnect_drop(udev, error_get_pretty(err));
        vfio_user_reconnect_refuse(udev, err);
        ok = false;
    } else {
        vfio_user_reconnect_finish(udev, kept);
    }
    bql_unlock();
    return ok;
}

static bool vfio_user_reconnect_attempt(VFIOUserDevice *udev)
{
    VFIOUserDevice *fresh = vfio_user_reconnect_open(udev);
    bool ok, kept = false;

    if (!fresh) {
        return false;
    }
    ok = vfio_user_reconnect_prepare(udev, fresh, &kept) &&
         vfio_user_reconnect_adopt(udev, fresh);
    vfio_user_reconnect_close(udev, fresh);
    return ok && vfio_user_reconnect_replay(udev, kept);
}

/* The thread ----------------------------------------------------------------------- */

/*
 * Longer each time, and never the same for two devices of one server. Returns
 * false when there is no next attempt.
 */
static bool vfio_user_reconnect_pause(VFIOUserReconnect *rc, unsigned tries,
                                      int64_t deadline)
{
    uint64_t ms = rc->opts.delay_ms *
                  (uint64_t)MIN(1u << MIN(tries, 16),
                                VFIO_USER_RECONNECT_BACKOFF);
    int64_t until;

    ms = MAX(ms * g_random_int_range(75, 126) / 100, 1);
    until = MIN(g_get_monotonic_time() + (int64_t)ms * 1000, deadline);
    QEMU_LOCK_GUARD(&rc->lock);
    while (!rc->stopped && g_get_monotonic_time() < until) {
        int64_t left = until - g_get_monotonic_time();

        qemu_cond_timedwait(&rc->cond, &rc->lock,
                            MIN(DIV_ROUND_UP(MAX(left, 0), 1000), INT_MAX));
    }
    return !rc->stopped && until < deadline;
}

/* BQL */
static void vfio_user_reconnect_give_up(VFIOUserDevice *udev)
{
    VFIOUserReconnect *rc = udev->reconnect;

    rc->running = false;
    if (!udev->vbasedev) {
        return;
    }
    vfio_user_reconnect_set_link(udev, VFIO_USER_LINK_GONE);
    vfio_user_reconnect_release_vm(rc, false);
    error_report("vfio-user-pci %s: the server did not come back within %u ms. "
                 "The device reads all-ones and ignores writes from now on; "
                 "unplug it (device_del) and plug it anew when the server is "
                 "back", udev->name, rc->opts.timeout_ms);
    qapi_event_send_vfio_user_gave_up(rc->id, rc->path);
}

/* The last reference may be this one. */
static void vfio_user_reconnect_over(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    IOThread *iothread = udev->reconnect->opts.iothread;

    vfio_user_device_unref(udev);
    vfio_user_device_unref(udev);
    object_unref(OBJECT(iothread));
}

static void *vfio_user_reconnect_thread(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    VFIOUserReconnect *rc = udev->reconnect;
    int64_t deadline = !rc->opts.timeout_ms ? INT64_MAX :
        g_get_monotonic_time() + rc->opts.timeout_ms * (int64_t)1000;
    bool back = false;

    /* @tries is this thread's while it runs. */
    rcu_register_thread();
    while (!back && vfio_user_reconnect_pause(rc, rc->tries, deadline)) {
        qatomic_inc(&rc->tries);
        trace_vfio_user_reconnect_try(udev->name, rc->tries);
        back = vfio_user_reconnect_attempt(udev);
    }
    if (!back) {
        bql_lock();
        vfio_user_reconnect_give_up(udev);
        bql_unlock();
    }
    vfio_user_reconnect_schedule(udev, vfio_user_reconnect_over);
    rcu_unregister_thread();
    return NULL;
}

/* Life ----------------------------------------------------------------------------- */

/*
 * A posted write that the socket took is over for the vCPU, and lost if the
 * server goes before it reads it. Where no access is to be lost none is posted.
 */
static void vfio_user_reconnect_acknowledge_writes(VFIOUserDevice *udev)
{
    for (unsigned i = 0; i < udev->info.num_regions; i++) {
        udev->regions[i].posted = false;
    }
}

void vfio_user_reconnect_init(VFIOUserDevice *udev, VFIODevice *vbasedev,
                              const VFIOUserReconnectOptions *opts)
{
    VFIOUserReconnect *rc = g_new0(VFIOUserReconnect, 1);

    rc->opts = *opts;
    rc->opts.socket = QAPI_CLONE(SocketAddress, opts->socket);
    rc->dev = vbasedev->dev;
    rc->id = g_strdup(vbasedev->dev->id);
    rc->path = object_get_canonical_path(OBJECT(vbasedev->dev));
    qemu_mutex_init(&rc->lock);
    qemu_cond_init(&rc->cond);
    if (opts->delay_ms && opts->policy != VFIO_USER_ON_DISCONNECT_OFFLINE) {
        vfio_user_reconnect_acknowledge_writes(udev);
    }
    vfio_user_held_init(udev);
    vfio_user_gate_init(udev);
    udev->vbasedev = vbasedev;
    udev->reconnect = rc;
}

void vfio_user_reconnect_stop(VFIOUserDevice *udev)
{
    VFIOUserReconnect *rc = udev->reconnect;

    if (!rc) {
        return;
    }
    vfio_user_reconnect_set_link(udev, VFIO_USER_LINK_GONE);
    WITH_QEMU_LOCK_GUARD(&rc->lock) {
        rc->stopped = true;
        if (rc->fresh) {
            vfio_user_conn_close(rc->fresh->conn);
        }
        qemu_cond_broadcast(&rc->cond);
    }
    vfio_user_reconnect_release_vm(rc, true);
    udev->vbasedev = NULL;
}

void vfio_user_reconnect_view(VFIOUserDevice *udev,
                              VFIOUserReconnectView *view)
{
    const VFIOUserReconnect *rc = udev->reconnect;

    *view = (VFIOUserReconnectView) {
        .id = rc->id,
        .path = rc->path,
        .socket = rc->opts.socket,
        .link = vfio_user_device_link(udev),
        .reconnects = vfio_user_reconnect_life(udev),
        .tries = qatomic_read(&rc->tries),
        .refusal = rc->refusal,
    };
}

void vfio_user_reconnect_free(VFIOUserDevice *udev)
{
    VFIOUserReconnect *rc = udev->reconnect;

    if (!rc) {
        return;
    }
    qapi_free_SocketAddress(rc->opts.socket);
    qemu_cond_destroy(&rc->cond);
    qemu_mutex_destroy(&rc->lock);
    g_free(rc->refusal);
    g_free(rc->path);
    g_free(rc->id);
    g_free(rc);
}
