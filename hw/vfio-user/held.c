/*
 * vfio-user: accesses of the guest that take long
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The problem: a vCPU that waits for the server is in the middle of an instruction,
 * and of QEMU's code for it. Whoever takes away what it stands on must wait for it
 * (RCU), so must whoever wants to stop it, to have work done by it, or to execute
 * alone (TCG). The server may take a second, or be away for an hour.
 *
 * So it does not wait there. It looks for 20 ms whether the answer comes, which it
 * nearly always does. Then it leaves: the accelerator goes back to before the access
 * (CPUAccess in hw/core/cpu.h), and the vCPU is idle in its loop, as a halted one
 * is, where nothing is held and QEMU does with it what it likes. What was asked
 * stays here, in the list of its device. When there is an answer, a deadline has
 * passed, or a server is back, the vCPU is woken and makes the same access again,
 * and that one finds what is here. Whether it may read the answer, ask again, or wait
 * on, is decided then and there (guest-access.c), in one place.
 *
 * Only an access that the guest itself makes can be made again: its vCPU has done
 * nothing else for it. That of another device, which the guest's access to that one
 * led to (DMA), cannot; nor can QEMU's own. They keep what they hold, and wait.
 *
 * Interrupts. None comes before the access that is made again: also with TCG the vCPU
 * is in the middle of its instruction, as on a bus, or the guest could move the thread
 * to another vCPU meanwhile, and find the answer here much later. Only a guest that
 * changes the instruction under its own vCPU keeps that from coming back. So what a
 * vCPU that runs does not come back to within x-msg-timeout-ms is forgotten, and what
 * it does then is a new access.
 *
 * Migration. What was asked, the server has perhaps done; elsewhere the vCPU would
 * ask once more. So a vCPU that is stopped to be saved first ends such an access
 * (busy). While the VM is stopped with one by somebody else, migration and snapshots
 * are blocked, and a migration that goes on fails. An access that waits for a server
 * was not made, and may be left for good.
 *
 * A reset of the machine ends all of it. What the vCPU was in the middle of, it does
 * not finish.
 *
 * Rejected: to wait in place and to count as stopped meanwhile (other devices are
 * not unplugged, registers cannot be read or reset, TCG's exclusive sections hang);
 * to end the access with all-ones (the guest's driver takes its device for dead).
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "hw/core/cpu.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "system/cpus.h"
#include "system/kvm.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "device-int.h"
#include "owed.h"
#include "reconnect.h"
#include "trace.h"

/* Devices in use; under the BQL. */
static QLIST_HEAD(, VFIOUserDevice) vfio_user_held_devices =
    QLIST_HEAD_INITIALIZER(vfio_user_held_devices);
static bool vfio_user_held_registered;

/* What this vCPU is about to leave. */
static __thread VFIOUserHeld *vfio_user_held_now;
/* Nobody says when an unplug is asked for, so a vCPU that waits for a server looks. */
#define VFIO_USER_HELD_LOOK_US  (1000 * 1000)

/* Those of one vCPU and one device: an instruction makes a few accesses at most. */
#define VFIO_USER_HELD_MAX  16

bool vfio_user_held_is_direct(void)
{
    return current_cpu && current_cpu->access.depth == 2;
}

bool vfio_user_held_in_access(void)
{
    return current_cpu && current_cpu->access.depth >= 2;
}

bool vfio_user_held_is_again(void)
{
    return current_cpu->access.again;
}

/* One access ------------------------------------------------------------------- */

static VFIOUserHeld *vfio_user_held_new(VFIOUserDevice *udev,
                                        const VFIOUserAccess *a)
{
    VFIOUserHeld *h = g_new0(VFIOUserHeld, 1);

    h->refs = 1;
    h->udev = vfio_user_device_ref(udev);
    h->cpu = current_cpu;
    h->a = *a;
    h->a.buf = &h->data;
    h->listed = true;
    /* No deadline before it waits for an answer or for room. */
    h->state = VFIO_USER_HELD_LINK;
    memcpy(&h->data, a->buf, a->len);
    return h;
}

static VFIOUserHeld *vfio_user_held_ref(VFIOUserHeld *h)
{
    qatomic_inc(&h->refs);
    return h;
}

void vfio_user_held_unref(VFIOUserHeld *h)
{
    if (qatomic_fetch_dec(&h->refs) == 1) {
        vfio_user_device_unref(h->udev);
        g_free(h);
    }
}

static bool vfio_user_held_is(const VFIOUserHeld *h, const VFIOUserAccess *a)
{
    return h->cpu == current_cpu && h->a.region == a->region &&
           h->a.off == a->off && h->a.len == a->len &&
           h->a.is_write == a->is_write &&
           (!a->is_write || !memcmp(&h->data, a->buf, a->len));
}

/* KVM's vCPU is in the middle of the instruction, and always comes back. */
static bool vfio_user_held_is_forsaken(const VFIOUserHeld *h)
{
    return h->cpu == current_cpu && h->woken && !kvm_enabled() &&
           qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) - h->woken >
           h->udev->timeout_ms * (int64_t)SCALE_MS;
}

/* One of this vCPU's that it will not come back to, or NULL: too old, or too many. */
static VFIOUserHeld *vfio_user_held_forsaken(VFIOUserDevice *udev)
{
    VFIOUserHeld *h, *first = NULL;
    unsigned nr = 0;

    QEMU_LOCK_GUARD(&udev->held.lock);
    QTAILQ_FOREACH(h, &udev->held.list, next) {
        if (vfio_user_held_is_forsaken(h)) {
            return vfio_user_held_ref(h);
        }
        if (h->cpu == current_cpu) {
            first = first ?: h;
            nr++;
        }
    }
    return nr > VFIO_USER_HELD_MAX ? vfio_user_held_ref(first) : NULL;
}

static void vfio_user_held_forget(VFIOUserDevice *udev)
{
    VFIOUserHeld *h;

    while ((h = vfio_user_held_forsaken(udev))) {
        trace_vfio_user_held_forget(udev->name, h->a.region, h->a.off);
        if (qatomic_read(&h->state) == VFIO_USER_HELD_ASKED) {
            vfio_user_held_cancel(h);
        }
        vfio_user_held_end(h);
        vfio_user_held_unref(h);
    }
}

VFIOUserHeld *vfio_user_held_find(VFIOUserDevice *udev,
                                  const VFIOUserAccess *a)
{
    VFIOUserHeld *h;

    if (likely(!qatomic_read(&udev->held.nr))) {
        return NULL;
    }
    vfio_user_held_forget(udev);
    QEMU_LOCK_GUARD(&udev->held.lock);
    QTAILQ_FOREACH(h, &udev->held.list, next) {
        if (vfio_user_held_is(h, a)) {
            h->woken = 0;
            return vfio_user_held_ref(h);
        }
    }
    return NULL;
}

static void vfio_user_held_set_state(VFIOUserHeld *h, VFIOUserHeldState state)
{
    QEMU_LOCK_GUARD(&h->udev->held.lock);
    qatomic_set(&h->state, state);
}

int vfio_user_held_still(VFIOUserHeld *h)
{
    current_cpu->access.again = true;
    current_cpu->access.settle = vfio_user_held_settle;
    vfio_user_held_now = vfio_user_held_ref(h);
    return VFIO_USER_HELD_AGAIN;
}

VFIOUserHeld *vfio_user_held_hold(VFIOUserDevice *udev, VFIOUserHeld *h,
                                  const VFIOUserAccess *a,
                                  VFIOUserHeldState state, unsigned life)
{
    VFIOUserHeldList *list = &udev->held;
    bool fresh = !h;

    if (fresh) {
        h = vfio_user_held_new(udev, a);
    }
    h->life = life;
    if (h->state == VFIO_USER_HELD_LINK && state != VFIO_USER_HELD_LINK) {
        h->deadline = g_get_monotonic_time() +
                      udev->timeout_ms * (int64_t)1000;
    }
    WITH_QEMU_LOCK_GUARD(&list->lock) {
        qatomic_set(&h->state, state);
        if (fresh) {
            QTAILQ_INSERT_TAIL(&list->list, h, next);
            qatomic_set(&list->nr, list->nr + 1);
        }
    }
    trace_vfio_user_held_hold(udev->name, a->region, a->off, a->len,
                              a->is_write, state);
    vfio_user_held_still(h);
    return h;
}

/* The answer, or that there is none. Any thread. */
static void vfio_user_held_done(VFIOUserRequest *req)
{
    VFIOUserRegionMsg *msg = container_of(req, VFIOUserRegionMsg, req);
    VFIOUserHeld *h = container_of(msg, VFIOUserHeld, msg);
    bool waiting;

    h->ret = vfio_user_region_msg_result(h->udev, msg);
    WITH_QEMU_LOCK_GUARD(&h->udev->held.lock) {
        qatomic_store_release(&h->state, VFIO_USER_HELD_ANSWERED);
        waiting = h->waiting;
    }
    if (waiting) {
        vfio_user_held_look(h->udev);
    } else {
        vfio_user_conn_wake(h->udev->conn, h);
    }
    vfio_user_held_unref(h);
}

bool vfio_user_held_ask(VFIOUserDevice *udev, VFIOUserHeld *h,
                        const VFIOUserAccess *a, VFIOUserRegionMsg *msg,
                        unsigned life)
{
    bool fresh = !h;

    h = vfio_user_held_hold(udev, h, a, VFIO_USER_HELD_ASKED, life);
    h->deadline = msg->req.deadline;
    h->since = g_get_monotonic_time();
    vfio_user_region_msg_init(&h->msg, a->is_write, a->region, a->off, &h->data,
                              a->len);
    h->msg.req.done = vfio_user_held_done;
    vfio_user_held_ref(h);
    if (vfio_user_conn_leave(udev->conn, &msg->req, &h->msg.req)) {
        return true;
    }
    vfio_user_held_unref(h);
    vfio_user_held_unref(g_steal_pointer(&vfio_user_held_now));
    current_cpu->access.again = false;
    if (fresh) {
        vfio_user_held_end(h);
    } else {
        vfio_user_held_set_state(h, VFIO_USER_HELD_ROOM);
    }
    return false;
}

bool vfio_user_held_cancel(VFIOUserHeld *h)
{
    if (!vfio_user_conn_cancel(h->udev->conn, &h->msg.req, -ETIMEDOUT)) {
        return false;
    }
    vfio_user_held_set_state(h, VFIO_USER_HELD_ROOM);
    vfio_user_held_unref(h);
    return true;
}

/* Migration -------------------------------------------------------------------- */

static void vfio_user_held_unblock(VFIOUserHeld *h)
{
    VFIOUserHeldList *list = &h->udev->held;

    if (h->blocks && !--list->nr_blocking) {
        migrate_del_blocker(&list->blocker);
    }
    h->blocks = false;
}

/*
 * The VM is stopped with the vCPU in the middle of the access, which it will not end
 * before it runs again. A migration that goes on already fails. BQL.
 */
static void vfio_user_held_block(VFIOUserHeld *h)
{
    VFIOUserHeldList *list = &h->udev->held;
    Error *err = NULL;

    if (h->blocks || !h->busy) {
        return;
    }
    if (!list->nr_blocking) {
        error_setg(&list->blocker, "vfio-user-pci %s: a vCPU is waiting for the "
                   "server in the middle of an access; continue the VM and let "
                   "the server answer first", h->udev->name);
        if (migrate_add_blocker_internal(&list->blocker, &err)) {
            migration_file_set_error(-EBUSY, err);
            return;
        }
    }
    list->nr_blocking++;
    h->blocks = true;
    trace_vfio_user_held_block(h->udev->name);
}

/* When QEMU ends, migration is gone before the vCPUs are. */
static bool vfio_user_held_may_block(void)
{
    return !runstate_is_running() && !runstate_check(RUN_STATE_SHUTDOWN) &&
           !runstate_check(RUN_STATE_FINISH_MIGRATE) &&
           !runstate_check(RUN_STATE_SAVE_VM);
}

/*
 * What the server was asked must not be asked again elsewhere: see the head of this
 * file. An access that waits for a server was not made. BQL; the vCPU.
 */
static void vfio_user_held_set_busy(VFIOUserHeld *h)
{
    h->busy = h->state == VFIO_USER_HELD_ASKED;
    h->cpu->access.busy = h->busy;
    if (!h->busy) {
        vfio_user_held_unblock(h);
    } else if (vfio_user_held_may_block()) {
        vfio_user_held_block(h);
    }
}

static void vfio_user_held_vm_state(void *opaque, bool running, RunState state)
{
    VFIOUserDevice *udev;
    VFIOUserHeld *h;
    bool block = vfio_user_held_may_block();

    QLIST_FOREACH(udev, &vfio_user_held_devices, held.next) {
        QEMU_LOCK_GUARD(&udev->held.lock);
        QTAILQ_FOREACH(h, &udev->held.list, next) {
            if (block) {
                vfio_user_held_block(h);
            } else if (running) {
                vfio_user_held_unblock(h);
            }
        }
    }
}

/* The list --------------------------------------------------------------------- */

static CPUState *vfio_user_held_cpu(const VFIOUserHeld *h)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (cpu == h->cpu) {
            return cpu;
        }
    }
    return NULL;
}

/* BQL and the list's lock. */
static void vfio_user_held_wake_locked(VFIOUserHeld *h)
{
    CPUState *cpu = h->waiting ? vfio_user_held_cpu(h) : NULL;

    h->waiting = false;
    if (cpu) {
        h->woken = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
        cpu->access.wait = false;
        qemu_cpu_kick(cpu);
    }
}

static void vfio_user_held_wake(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    VFIOUserHeld *h;

    QEMU_LOCK_GUARD(&udev->held.lock);
    QTAILQ_FOREACH(h, &udev->held.list, next) {
        vfio_user_held_wake_locked(h);
    }
}

static void vfio_user_held_look_bh(void *opaque)
{
    vfio_user_held_wake(opaque);
    vfio_user_device_unref(opaque);
}

void vfio_user_held_look(VFIOUserDevice *udev)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), vfio_user_held_look_bh,
                            vfio_user_device_ref(udev));
}

static bool vfio_user_held_unlist(VFIOUserHeld *h)
{
    VFIOUserHeldList *list = &h->udev->held;

    QEMU_LOCK_GUARD(&list->lock);
    if (!h->listed) {
        return false;
    }
    h->listed = false;
    QTAILQ_REMOVE(&list->list, h, next);
    qatomic_set(&list->nr, list->nr - 1);
    return true;
}

void vfio_user_held_end(VFIOUserHeld *h)
{
    if (h->blocks || h->busy) {
        BQL_LOCK_GUARD();
        if (h->busy) {
            h->busy = h->cpu->access.busy = false;
            cpu_exit(h->cpu);
        }
        vfio_user_held_unblock(h);
    }
    if (vfio_user_held_unlist(h)) {
        trace_vfio_user_held_end(h->udev->name, h->a.region, h->a.off);
        vfio_user_held_unref(h);
    }
}

static VFIOUserHeld *vfio_user_held_first(VFIOUserDevice *udev)
{
    VFIOUserHeld *h;

    QEMU_LOCK_GUARD(&udev->held.lock);
    h = QTAILQ_FIRST(&udev->held.list);
    return h ? vfio_user_held_ref(h) : NULL;
}

/* Forget all of it: their vCPUs make other accesses, or none. BQL. */
static void vfio_user_held_drop(VFIOUserDevice *udev)
{
    VFIOUserHeld *h;

    vfio_user_held_wake(udev);
    while ((h = vfio_user_held_first(udev))) {
        CPUState *cpu = h->busy ? vfio_user_held_cpu(h) : NULL;

        if (cpu) {
            cpu->access.busy = false;
        }
        if (qatomic_read(&h->state) == VFIO_USER_HELD_ASKED) {
            vfio_user_held_cancel(h);
        }
        vfio_user_held_unblock(h);
        if (vfio_user_held_unlist(h)) {
            vfio_user_held_unref(h);
        }
        vfio_user_held_unref(h);
    }
}

/* Leaving ---------------------------------------------------------------------- */

static bool vfio_user_held_is_answered(VFIOUserConn *conn, const void *key)
{
    const VFIOUserHeld *h = key;

    return qatomic_load_acquire(&h->state) == VFIO_USER_HELD_ANSWERED;
}

/* Is there anything that will wake the vCPU? BQL. */
static bool vfio_user_held_must_wait(VFIOUserHeld *h)
{
    VFIOUserHeldState state = qatomic_read(&h->state);

    return state != VFIO_USER_HELD_ANSWERED &&
           (state != VFIO_USER_HELD_LINK ||
            vfio_user_reconnect_fate(h->udev, h->life) ==
            VFIO_USER_RETURN_WAIT);
}

static void vfio_user_held_set_timer(VFIOUserHeld *h)
{
    int64_t at = h->deadline;

    if (h->state == VFIO_USER_HELD_ROOM) {
        at = g_get_monotonic_time() + VFIO_USER_HELD_SHORT_US;
    } else if (h->state == VFIO_USER_HELD_LINK) {
        at = g_get_monotonic_time() + VFIO_USER_HELD_LOOK_US;
    }
    /* The same clock; nothing is early by the milliseconds' rounding. */
    timer_mod_anticipate(h->udev->held.timer, at / 1000 + 1);
}

static void vfio_user_held_leave(VFIOUserHeld *h)
{
    bool wait;

    BQL_LOCK_GUARD();
    if (!h->udev->held.timer) {
        /* Unplugged meanwhile: this access may not come again. */
        vfio_user_held_end(h);
        return;
    }
    wait = vfio_user_held_must_wait(h);
    WITH_QEMU_LOCK_GUARD(&h->udev->held.lock) {
        wait = wait && h->listed && h->state != VFIO_USER_HELD_ANSWERED;
        h->waiting = wait;
        h->woken = wait ? 0 : qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    }
    if (wait) {
        current_cpu->access.wait = true;
        vfio_user_held_set_busy(h);
        vfio_user_held_set_timer(h);
    }
}

void vfio_user_held_settle(CPUState *cpu)
{
    VFIOUserHeld *h = g_steal_pointer(&vfio_user_held_now);

    vfio_user_owed_settle(cpu);
    if (!h) {
        return;
    }
    /* Config space is asked with the BQL, and could not wait till now. */
    if (qatomic_read(&h->state) == VFIO_USER_HELD_ASKED) {
        vfio_user_conn_wait_for(h->udev->conn, vfio_user_held_is_answered, h,
                                h->since + VFIO_USER_HELD_SHORT_US);
    }
    if (qatomic_read(&h->state) != VFIO_USER_HELD_ANSWERED) {
        vfio_user_held_leave(h);
    } else {
        WITH_QEMU_LOCK_GUARD(&h->udev->held.lock) {
            h->woken = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
        }
    }
    vfio_user_held_unref(h);
}

/* Life ------------------------------------------------------------------------- */

/* The machine is reset: no vCPU goes on where it was. BQL. */
static void vfio_user_held_reset(void *opaque)
{
    VFIOUserDevice *udev;

    QLIST_FOREACH(udev, &vfio_user_held_devices, held.next) {
        vfio_user_held_drop(udev);
    }
}

void vfio_user_held_init(VFIOUserDevice *udev)
{
    if (!vfio_user_held_registered) {
        vfio_user_held_registered = true;
        qemu_register_reset(vfio_user_held_reset, NULL);
        qemu_add_vm_change_state_handler(vfio_user_held_vm_state, NULL);
    }
    vfio_user_owed_init(udev);
    udev->held.timer = timer_new_ms(QEMU_CLOCK_REALTIME, vfio_user_held_wake,
                                    udev);
    QLIST_INSERT_HEAD(&vfio_user_held_devices, udev, held.next);
}

void vfio_user_held_exit(VFIOUserDevice *udev)
{
    if (udev->held.timer) {
        vfio_user_held_drop(udev);
        timer_free(g_steal_pointer(&udev->held.timer));
        QLIST_REMOVE(udev, held.next);
    }
}

void vfio_user_held_free(VFIOUserDevice *udev)
{
    assert(QTAILQ_EMPTY(&udev->held.list));
    qemu_mutex_destroy(&udev->held.lock);
}
