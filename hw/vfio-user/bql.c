/*
 * vfio-user: a vCPU that waits for the server without the BQL
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Accesses come with the BQL held. A vCPU lets go of it while it waits for the
 * server, so that nobody else waits. What holds meanwhile: the memory regions
 * and their owner, because the vCPU is in an RCU critical section; for config
 * accesses the device, because of the reference taken here. What may have
 * changed: everything else, the device may even be unplugged. Callers in
 * hw/vfio look at nothing but the device's own state after the access.
 *
 * Other threads keep the BQL: they are in the middle of realize, reset or
 * unplug, which must not be interleaved with anything.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "hw/core/cpu.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/vfio-user/vcpu.h"
#include "migration/blocker.h"
#include "system/cpus.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "device.h"
#include "trace.h"

/* Who has been waiting ------------------------------------------------------- */

/* vCPUs that have been waiting for a tick or longer; atomic */
static unsigned vfio_user_bql_nr_held;
static __thread bool vfio_user_bql_held;
/* Resets of the machine are counted: there is a device. Under the BQL. */
static bool vfio_user_bql_used;

static void vfio_user_bql_set_held(bool held)
{
    if (held != vfio_user_bql_held) {
        vfio_user_bql_held = held;
        if (held) {
            qatomic_inc(&vfio_user_bql_nr_held);
        } else {
            qatomic_dec(&vfio_user_bql_nr_held);
        }
    }
}

bool vfio_user_vcpu_is_held(void)
{
    if (!vfio_user_bql_used) {
        return false;
    }
    bql_unlock();
    g_usleep(3 * VFIO_USER_CONN_TICK_MS * 1000);
    bql_lock();
    return qatomic_read(&vfio_user_bql_nr_held);
}

/* Counting as stopped ---------------------------------------------------------- */

/*
 * This vCPU counts as stopped, or did, since its access began. @work_end is where
 * the list of its queued work ended then, and @nr_resets how often the machine had
 * been reset; @force_rcu would queue more work.
 */
static __thread struct {
    bool parked;
    const void *work_end;
    unsigned nr_resets;
    Notifier *force_rcu;
} vfio_user_bql_cpu;

/* Resets of the machine so far; written under the BQL. */
static unsigned vfio_user_bql_nr_resets;

/*
 * TCG's threads are asked to leave their critical section when somebody waits
 * for RCU, by work that does nothing. This one cannot, and must not take that
 * for something that it is needed for. It is asked once more afterwards.
 */
static void vfio_user_bql_mute_rcu(void)
{
    Notifier *n = (Notifier *)QLIST_FIRST(
        &get_ptr_rcu_reader()->force_rcu.notifiers);

    if (n) {
        rcu_remove_force_rcu_notifier(n);
        vfio_user_bql_cpu.force_rcu = n;
    }
}

static void vfio_user_bql_unmute_rcu(void)
{
    Notifier *n = g_steal_pointer(&vfio_user_bql_cpu.force_rcu);

    if (n) {
        rcu_add_force_rcu_notifier(n);
        if (qatomic_read(&get_ptr_rcu_reader()->waiting)) {
            n->notify(n, NULL);
        }
    }
}

static const void *vfio_user_bql_work_end(void)
{
    QEMU_LOCK_GUARD(&current_cpu->work_mutex);
    return current_cpu->work_list.sqh_last;
}

/* Work was queued since it counts as stopped. */
static bool vfio_user_bql_has_work(void)
{
    return vfio_user_bql_work_end() != vfio_user_bql_cpu.work_end;
}

/*
 * A vCPU in the middle of an instruction must not be saved: elsewhere it would
 * begin the instruction anew. Returns false when that is going on already: then
 * the VM stops when the access ends. A guest that has shut down can only be
 * reset, and when QEMU itself ends, migration is gone before the vCPUs are.
 */
static bool vfio_user_bql_park(VFIOUserDevice *udev)
{
    if (vfio_user_bql_cpu.parked) {
        return true;
    }
    if (!udev->parked_blocker && !runstate_check(RUN_STATE_SHUTDOWN)) {
        error_setg(&udev->parked_blocker, "vfio-user-pci %s: a vCPU is waiting "
                   "for the server in the middle of an access; continue the VM "
                   "and let the server answer first", udev->name);
        if (migrate_add_blocker_internal(&udev->parked_blocker, NULL)) {
            return false;
        }
    }
    udev->nr_parked++;
    vfio_user_bql_cpu.parked = true;
    vfio_user_bql_mute_rcu();
    trace_vfio_user_bql_park(udev->name, udev->nr_parked,
                             udev->parked_blocker != NULL);
    return true;
}

static void vfio_user_bql_unpark(VFIOUserDevice *udev)
{
    if (vfio_user_bql_cpu.parked) {
        vfio_user_bql_cpu.parked = false;
        vfio_user_bql_unmute_rcu();
        trace_vfio_user_bql_unpark(udev->name, udev->nr_parked - 1);
        if (!--udev->nr_parked) {
            migrate_del_blocker(&udev->parked_blocker);
        }
    }
}

/*
 * A vCPU has been waiting for a while. If the VM is to stop meanwhile, it need
 * not wait for this vCPU, which executes nothing: let it count as stopped.
 * vfio_user_bql_enter() keeps it from going on before the VM does. A VM that
 * stops is no longer running by then; one that is, is about to be reset, and that
 * needs the vCPU where it can be reset.
 *
 * Queued work has to wait, as it does during any access. What is queued by now,
 * nobody waits for who stops the VM (a flush of the TLB since memory has moved,
 * the throttle of a migration). What comes later may be waited for. A reset of a
 * VM that is stopped needs the vCPU as well.
 */
void vfio_user_bql_tick(void *opaque)
{
    if (!current_cpu || bql_locked()) {
        return;
    }
    vfio_user_bql_set_held(true);
    if (!qatomic_read(&current_cpu->stop)) {
        return;
    }
    bql_lock();
    if (current_cpu->stop && !runstate_is_running() &&
        vfio_user_bql_park(opaque)) {
        if (!current_cpu->stopped) {
            vfio_user_bql_cpu.work_end = vfio_user_bql_work_end();
            vfio_user_bql_cpu.nr_resets = vfio_user_bql_nr_resets;
        }
        cpu_pause(current_cpu);
    }
    bql_unlock();
}

bool vfio_user_bql_is_wanted(void)
{
    if (!vfio_user_bql_cpu.parked) {
        return qatomic_read(&current_cpu->stop) && runstate_is_running();
    }
    return vfio_user_bql_has_work() ||
           qatomic_read(&vfio_user_bql_nr_resets) !=
           vfio_user_bql_cpu.nr_resets;
}

/* Resets --------------------------------------------------------------------- */

static void vfio_user_bql_count_reset(void *opaque)
{
    qatomic_set(&vfio_user_bql_nr_resets, vfio_user_bql_nr_resets + 1);
}

void vfio_user_bql_init(void)
{
    if (!vfio_user_bql_used) {
        vfio_user_bql_used = true;
        qemu_register_reset(vfio_user_bql_count_reset, NULL);
    }
}

static void vfio_user_bql_reset_cpu(CPUState *cpu, run_on_cpu_data data)
{
    cpu_reset(cpu);
}

/*
 * The vCPU counted as stopped when the machine was reset. With KVM it was asked
 * for its registers first, and has left the access for that. TCG only writes its
 * registers, and on top of these the access would now finish the instructions
 * that were translated with it. So once they are over it is reset again.
 */
static void vfio_user_bql_was_reset(void)
{
    if (tcg_enabled()) {
        async_run_on_cpu(current_cpu, vfio_user_bql_reset_cpu, RUN_ON_CPU_NULL);
    }
}

/* Letting go of the BQL -------------------------------------------------------- */

/*
 * A config access has come through the host bridge, whose guard against
 * re-entrance would refuse all others until it is over, whatever device they
 * are for. So the guard goes with the BQL, and comes back with it: whoever has
 * the BQL is stopped from re-entering, and nobody else. The bridge is the one
 * of the topmost bus, also for a bus of an expander.
 */
static MemReentrancyGuard *vfio_user_bql_host_guard(VFIODevice *vbasedev)
{
    PCIBus *bus = pci_get_bus(PCI_DEVICE(vbasedev->dev));

    while (bus->parent_dev) {
        bus = pci_get_bus(bus->parent_dev);
    }
    return &BUS(bus)->parent->mem_reentrancy_guard;
}

VFIOUserLeft vfio_user_bql_leave(VFIOUserDevice *udev, VFIODevice *vbasedev)
{
    VFIOUserLeft l = { 0 };

    /* Not on a bus any more: the vCPU was on its way while it was unplugged. */
    if (!udev->ready || !current_cpu || !bql_locked() ||
        !qdev_get_parent_bus(vbasedev->dev)) {
        return l;
    }
    l.left = true;
    l.nr_resets = vfio_user_bql_nr_resets;
    l.guard = vfio_user_bql_host_guard(vbasedev);
    l.engaged = l.guard->engaged_in_io;
    l.guard->engaged_in_io = false;
    object_ref(OBJECT(vbasedev->dev));
    bql_unlock();
    return l;
}

static void vfio_user_bql_unref_owner(void *opaque)
{
    object_unref(OBJECT(opaque));
}

void vfio_user_bql_enter(VFIODevice *vbasedev, VFIOUserLeft l)
{
    if (!l.left) {
        return;
    }
    vfio_user_bql_set_held(false);
    bql_lock();
    /* Somebody may need the vCPU while it is stopped, but not in an access. */
    while (current_cpu->stopped && !current_cpu->unplug &&
           !vfio_user_bql_has_work()) {
        qemu_cond_wait_bql(current_cpu->halt_cond);
    }
    if (current_cpu->stopped) {
        cpu_exit(current_cpu);
    }
    if (l.nr_resets != vfio_user_bql_nr_resets) {
        vfio_user_bql_was_reset();
    }
    l.guard->engaged_in_io = l.engaged;
    vfio_user_bql_unpark(vfio_user_device_of(vbasedev));
    if (vbasedev->dev->realized) {
        object_unref(OBJECT(vbasedev->dev));
    } else {
        /* Unplugged meanwhile: our caller still needs it. */
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                vfio_user_bql_unref_owner, vbasedev->dev);
    }
}
