/*
 * vfio-user: whether mapped areas and ioeventfds may be used
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The problem: the guest's accesses of a mapped area, and ioeventfds, pass the socket
 * by. A doorbell there overtakes messages that were sent before it and that the server
 * has not handled: a window on memory that has just come, an interrupt's eventfd. What
 * an access of the guest makes us send, its vCPU waits for before its next instruction
 * (held.c). What is sent from elsewhere, no vCPU waits for: memory that the monitor
 * plugs in, all that a VM is resumed with. So there is one gate for all shortcuts of a
 * device. While it is closed, accesses trap and become messages, which overtake
 * nothing.
 *
 * Who sends from outside asks the server a question after that. Servers answer in the
 * order in which they were asked, so the answer says that all of it was handled; only of
 * interrupts some may be sent later, and irqs-sync.c knows of those. The answer is waited
 * for as long as a vCPU waits in its access, which is enough for a server that is well:
 * nothing else happens then, and nothing was closed. Otherwise the gate is closed, and
 * opened by the answer. What a vCPU gives up to wait for is treated alike.
 *
 * Closing changes memory regions, which a callback of a MemoryListener must not do. And
 * it has to come before the guest learns of what was sent, which may be as soon as the
 * BQL is free: for a bottom half that is too late. So all vCPUs get it as work, and the
 * first of them does it. Each does its work before it executes anything of the guest, so
 * no vCPU that needs the BQL to learn of it rings first.
 *
 * Under TCG another vCPU may have the area in its TLB, and make an access until the
 * block that it executes is over.
 *
 * Windows on other devices' mapped areas do not count: two devices that look at each
 * other's would close their gates by turns, since closing one takes such a window from
 * the other. Nor do windows behind an IOMMU of the guest, which are always waited for.
 *
 * hw/vfio switches areas itself for the time of an INTx. It goes on to do so, and both
 * must agree (VFIODevice.mmaps_closed).
 *
 * Rejected: to close whenever something is sent (each time costs a FlatView, and other
 * devices their windows on the areas); to wait for as long as the server takes (the
 * monitor and all vCPUs wait along).
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/main-loop.h"
#include "hw/core/cpu.h"
#include "hw/vfio/pci.h"
#include "system/runstate.h"
#include "device-int.h"
#include "ioeventfd.h"
#include "trace.h"

/* Questions on their way; some in case that an answer is lost */
#define VFIO_USER_GATE_MAX_ASKED    4
/* After all others, when the VM begins to run */
#define VFIO_USER_GATE_PRIORITY     INT_MAX

/* The areas ------------------------------------------------------------------------ */

static VFIOPCIDevice *vfio_user_gate_pci(VFIOUserDevice *udev)
{
    return container_of(udev->vbasedev, VFIOPCIDevice, vbasedev);
}

/* Is there anything that passes the socket by? */
static bool vfio_user_gate_is_needed(VFIOUserDevice *udev)
{
    VFIOPCIDevice *vdev = vfio_user_gate_pci(udev);

    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        if (vdev->bars[i].region.nr_mmaps) {
            return true;
        }
    }
    return udev->io_events;
}

static void vfio_user_gate_set(VFIOUserDevice *udev, unsigned causes)
{
    VFIOPCIDevice *vdev = vfio_user_gate_pci(udev);

    if (causes != udev->gate.causes) {
        trace_vfio_user_gate(udev->name, causes);
    }
    qatomic_set(&udev->gate.causes, causes);
    memory_region_transaction_begin();
    udev->vbasedev->mmaps_closed = causes;
    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        VFIORegion *region = &vdev->bars[i].region;

        vfio_region_mmaps_set_enabled(region, !region->mmaps_disabled);
    }
    vfio_user_ioeventfd_set_active(udev->vbasedev, !causes);
    memory_region_transaction_commit();
}

/* Questions ------------------------------------------------------------------------ */

static bool vfio_user_gate_is_told(VFIOUserConn *conn, const void *key)
{
    VFIOUserDevice *udev = (VFIOUserDevice *)key;
    VFIOUserGate *g = &udev->gate;

    return !g->again && qatomic_load_acquire(&g->heard) == g->asked &&
           vfio_user_irqs_is_told(udev, g->irqs);
}

static void vfio_user_gate_heard(VFIOUserDevice *udev, unsigned nr, int ret)
{
    if (ret != -EPIPE && ret != -ETIMEDOUT) {
        qatomic_store_release(&udev->gate.heard, nr);
    }
    vfio_user_conn_wake(udev->conn, udev);
    vfio_user_gate_look(udev);
}

static void vfio_user_gate_ask(VFIOUserDevice *udev)
{
    VFIOUserGate *g = &udev->gate;

    g->irqs = vfio_user_irqs_wanted(udev);
    g->again = g->asked - qatomic_read(&g->heard) >= VFIO_USER_GATE_MAX_ASKED;
    if (!g->again) {
        vfio_user_device_probe(udev, vfio_user_gate_heard, ++g->asked);
    }
}

/* Opening and closing -------------------------------------------------------------- */

/* What was asked last has not been answered. */
static void vfio_user_gate_close(VFIOUserDevice *udev)
{
    vfio_user_gate_set(udev, udev->gate.causes | VFIO_USER_GATE_UNTOLD);
    /* It may have been answered meanwhile. */
    vfio_user_gate_look(udev);
}

static void vfio_user_gate_look_bh(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    VFIOUserGate *g = &udev->gate;

    if (udev->vbasedev && g->causes == VFIO_USER_GATE_UNTOLD &&
        !vfio_user_conn_broken(udev->conn)) {
        if (g->again) {
            vfio_user_gate_ask(udev);
        } else if (vfio_user_gate_is_told(udev->conn, udev)) {
            vfio_user_gate_set(udev, 0);
        }
    }
    vfio_user_device_unref(udev);
}

void vfio_user_gate_look(VFIOUserDevice *udev)
{
    if (qatomic_read(&udev->gate.causes) & VFIO_USER_GATE_UNTOLD) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), vfio_user_gate_look_bh,
                                vfio_user_device_ref(udev));
    }
}

static void vfio_user_gate_close_work(CPUState *cpu, run_on_cpu_data data)
{
    VFIOUserDevice *udev = data.host_ptr;

    if (udev->vbasedev && !vfio_user_gate_is_told(udev->conn, udev)) {
        vfio_user_gate_close(udev);
    }
    vfio_user_device_unref(udev);
}

static void vfio_user_gate_close_soon(VFIOUserDevice *udev)
{
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        async_run_on_cpu(cpu, vfio_user_gate_close_work,
                         RUN_ON_CPU_HOST_PTR(vfio_user_device_ref(udev)));
    }
}

void vfio_user_gate_sent(VFIOUserDevice *udev, bool in_listener)
{
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_GATE);

    if (!udev->vbasedev || vfio_user_conn_broken(udev->conn) ||
        !vfio_user_gate_is_needed(udev)) {
        return;
    }
    vfio_user_gate_ask(udev);
    if (udev->gate.causes & VFIO_USER_GATE_UNTOLD) {
        return;
    }
    if (!vfio_user_conn_stuck(udev->conn) &&
        vfio_user_conn_wait_for(udev->conn, vfio_user_gate_is_told, udev,
                                g_get_monotonic_time() +
                                VFIO_USER_HELD_SHORT_US)) {
        return;
    }
    if (in_listener) {
        vfio_user_gate_close_soon(udev);
    } else {
        vfio_user_gate_close(udev);
    }
}

void vfio_user_gate_unpaid(VFIOUserDevice *udev)
{
    BQL_LOCK_GUARD();
    if (udev->vbasedev && !vfio_user_conn_broken(udev->conn) &&
        vfio_user_gate_is_needed(udev)) {
        vfio_user_gate_ask(udev);
        vfio_user_gate_close(udev);
    }
}

void vfio_user_gate_lost(VFIOUserDevice *udev)
{
    vfio_user_gate_set(udev, udev->gate.causes | VFIO_USER_GATE_AWAY);
}

void vfio_user_gate_returned(VFIOUserDevice *udev)
{
    unsigned causes = udev->gate.causes & ~VFIO_USER_GATE_AWAY;

    if (!vfio_user_irqs_is_told(udev, vfio_user_irqs_wanted(udev))) {
        causes |= VFIO_USER_GATE_UNTOLD;
    }
    /* What the server before was asked, it does not answer any more. */
    qatomic_set(&udev->gate.heard, udev->gate.asked);
    if (causes) {
        vfio_user_gate_ask(udev);
    }
    vfio_user_gate_set(udev, causes);
    vfio_user_gate_look(udev);
}

/* Life ----------------------------------------------------------------------------- */

static void vfio_user_gate_vm_state(void *opaque, bool running, RunState state)
{
    if (running) {
        vfio_user_gate_sent(opaque, false);
    }
}

void vfio_user_gate_init(VFIOUserDevice *udev)
{
    udev->gate.vm_state =
        qemu_add_vm_change_state_handler_prio(vfio_user_gate_vm_state, udev,
                                              VFIO_USER_GATE_PRIORITY);
}

void vfio_user_gate_exit(VFIOUserDevice *udev)
{
    if (udev->gate.vm_state) {
        qemu_del_vm_change_state_handler(udev->gate.vm_state);
        udev->gate.vm_state = NULL;
    }
}
