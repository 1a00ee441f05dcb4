/*
 * vfio-user: acknowledgements that a vCPU owes its guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The problem: within an access of the guest messages are sent that nobody can
 * wait for there, with the BQL held by somebody else's code: interrupts, windows,
 * config space. The vCPU owes it to the guest to wait for the server's reply before
 * the next instruction, which may ring a doorbell in memory that it shares with the
 * server. It does so when the access is over, without any lock, unless somebody else
 * wants the vCPU; then such memory is taken from the guest until there is a reply
 * (gate.c). No other vCPU can know of the change before.
 */

#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "hw/core/cpu.h"
#include "system/cpus.h"
#include "device-int.h"
#include "owed.h"
#include "trace.h"

/**
 * VFIOUserOwed: messages of one access to one server
 * @refs: its vCPU's, and one for each of them
 * @pending: those without a reply; atomic
 * @irqs: vfio_user_irqs_wanted() when something was wanted last; irqs-sync.c knows
 *     its messages
 */
struct VFIOUserOwed {
    int refs;
    unsigned pending;
    uint64_t irqs;
    VFIOUserDevice *udev;
    VFIOUserOwed *next;
};

/* What this vCPU owes. */
static __thread VFIOUserOwed *vfio_user_owed_list;
/* What it waits for. */
static __thread VFIOUserOwed *vfio_user_owed_now;

static void vfio_user_owed_unref(VFIOUserOwed *owed)
{
    if (qatomic_fetch_dec(&owed->refs) == 1) {
        vfio_user_device_unref(owed->udev);
        g_free(owed);
    }
}

/* Of this access and this server, or NULL: it is no access of a guest. */
static VFIOUserOwed *vfio_user_owed_find(VFIOUserDevice *udev)
{
    VFIOUserOwed *owed = vfio_user_owed_list;

    if (!vfio_user_held_in_access() || !udev->ready) {
        return NULL;
    }
    while (owed && owed->udev != udev) {
        owed = owed->next;
    }
    if (!owed) {
        owed = g_new0(VFIOUserOwed, 1);
        owed->refs = 1;
        owed->udev = vfio_user_device_ref(udev);
        owed->next = vfio_user_owed_list;
        vfio_user_owed_list = owed;
        current_cpu->access.settle = vfio_user_held_settle;
    }
    return owed;
}

VFIOUserOwed *vfio_user_owed_get(VFIOUserDevice *udev)
{
    VFIOUserOwed *owed = vfio_user_owed_find(udev);

    if (owed) {
        qatomic_inc(&owed->refs);
        qatomic_inc(&owed->pending);
    }
    return owed;
}

void vfio_user_owed_irqs(VFIOUserDevice *udev)
{
    VFIOUserOwed *owed = vfio_user_owed_find(udev);

    if (owed) {
        owed->irqs = vfio_user_irqs_wanted(udev);
    }
}

/* VFIOUserDevice.irqs_told */
static void vfio_user_owed_irqs_told(VFIOUserDevice *udev)
{
    vfio_user_conn_wake(udev->conn, udev);
    vfio_user_gate_look(udev);
}

void vfio_user_owed_put(VFIOUserOwed *owed)
{
    if (!owed) {
        return;
    }
    if (qatomic_fetch_dec(&owed->pending) == 1) {
        vfio_user_conn_wake(owed->udev->conn, owed->udev);
    }
    vfio_user_owed_unref(owed);
}

static bool vfio_user_owed_is_paid(VFIOUserConn *conn, const void *key)
{
    const VFIOUserOwed *owed = vfio_user_owed_now;

    return !qatomic_read(&owed->pending) &&
           vfio_user_irqs_is_told(owed->udev, owed->irqs);
}

/* Somebody waits for this thread to come out of its vCPUs' code. */
static bool vfio_user_owed_is_wanted(CPUState *self)
{
    CPUState *cpu;

    RCU_READ_LOCK_GUARD();
    CPU_FOREACH(cpu) {
        if (cpu->thread == self->thread &&
            (qatomic_read(&cpu->stop) || qatomic_read(&cpu->has_waiter) ||
             !cpu_work_list_empty(cpu))) {
            return true;
        }
    }
    return false;
}

/*
 * A server that let a vCPU run into its deadline is not waited for again before it has
 * said something: the guest goes on, without shortcuts, in which it could overtake what
 * it did not wait for (gate.c).
 */
static void vfio_user_owed_wait(CPUState *cpu, VFIOUserOwed *owed)
{
    VFIOUserDevice *udev = owed->udev;
    VFIOUserConn *conn = udev->conn;
    int64_t now = g_get_monotonic_time();
    int64_t deadline = now + udev->timeout_ms * (int64_t)1000;
    bool paid = false;

    vfio_user_owed_now = owed;
    while (!paid && now < deadline && !vfio_user_conn_stuck(conn) &&
           !vfio_user_conn_broken(conn)) {
        paid = vfio_user_conn_wait_for(conn, vfio_user_owed_is_paid, udev,
                                       MIN(now + VFIO_USER_HELD_SHORT_US,
                                           deadline));
        if (!paid && vfio_user_owed_is_wanted(cpu)) {
            break;
        }
        now = g_get_monotonic_time();
    }
    if (!paid && now >= deadline) {
        vfio_user_device_stuck(udev);
        /* What is lost is said again. */
        vfio_user_irqs_sync(udev);
    }
    trace_vfio_user_owed(udev->name, paid);
    if (!paid) {
        vfio_user_gate_unpaid(udev);
    }
}

void vfio_user_owed_settle(CPUState *cpu)
{
    VFIOUserOwed *owed;

    while ((owed = vfio_user_owed_list)) {
        vfio_user_owed_list = owed->next;
        vfio_user_owed_wait(cpu, owed);
        vfio_user_owed_unref(owed);
    }
}

void vfio_user_owed_init(VFIOUserDevice *udev)
{
    udev->irqs_told = vfio_user_owed_irqs_told;
}
