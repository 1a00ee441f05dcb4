/*
 * vfio-user: ioeventfds of a device that is in use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What KVM can signal by itself is given to the memory core, which tells KVM
 * whenever the BAR comes to lie somewhere else, or nowhere. It ends QEMU where
 * KVM refuses; so all that KVM could object to has been checked (wire-io-fds.c,
 * and that it is an eventfd, in ioeventfd.c), or is not given to it.
 *
 * While the gate is closed (gate.c) none is used, and what the guest writes goes by
 * message.
 *
 * Two sets of ioeventfds for the same addresses never change places in one
 * transaction: the memory core might add the new one first, which KVM refuses.
 *
 * A server that has gone may leave signals in its eventfds that it did not
 * take. KVM goes on to signal until we notice, too. We hold the same eventfds,
 * so we can see which; a server that comes back and goes on where the other
 * one was gets them again. A doorbell that the old server took before it died
 * is lost to us, and the new one has to find out by itself.
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "hw/vfio/pci.h"
#include "system/kvm.h"
#include "ioeventfd.h"
#include "sigbus.h"
#include "trace.h"

static VFIOBAR *vfio_user_ioeventfd_bar(VFIODevice *vbasedev,
                                        const VFIOUserIoEvent *e)
{
    return &container_of(vbasedev, VFIOPCIDevice, vbasedev)->bars[e->region];
}

/*
 * Can KVM tell this write? QEMU hands it values of 32 bits, of 16 for ports,
 * and no port is 8 bytes wide.
 */
static bool vfio_user_ioeventfd_kvm_can(const VFIOBAR *bar,
                                        const VFIOUserSubRegion *sub)
{
    if (!kvm_enabled() || sub->shadow || (bar->ioport && sub->size == 8)) {
        return false;
    }
    return !sub->match || sub->data <= (bar->ioport ? UINT16_MAX : UINT32_MAX);
}

/* Does any of it lie in an area that the guest has mapped? */
static bool vfio_user_ioeventfd_is_mapped(const VFIORegion *region,
                                          const VFIOUserSubRegion *sub)
{
    uint64_t end = sub->offset + MAX(sub->size, 1);

    for (uint32_t i = 0; i < region->nr_mmaps; i++) {
        const VFIOMmap *area = &region->mmaps[i];

        if (area->mmap && sub->offset < area->offset + area->size &&
            end > area->offset) {
            return true;
        }
    }
    return false;
}

static void vfio_user_ioeventfd_apply_one(VFIODevice *vbasedev,
                                          VFIOUserIoEvent *e)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOBAR *bar = vfio_user_ioeventfd_bar(vbasedev, e);
    const VFIOUserSubRegion *sub = &e->sub;

    e->mapped = vfio_user_ioeventfd_is_mapped(&bar->region, sub);
    e->in_kvm = !e->mapped && bar->region.mem &&
                vfio_user_ioeventfd_kvm_can(bar, sub);
    if (e->in_kvm) {
        memory_region_add_eventfd(bar->region.mem, sub->offset, sub->size,
                                  sub->match, sub->data, &e->e);
    }
    if (e->map && !e->mapped && !e->guarded) {
        vfio_user_sigbus_add(udev, e->map, e->map_len);
        e->guarded = true;
    }
    trace_vfio_user_ioeventfd_apply(udev->name, e->region, sub->offset,
                                    sub->size, sub->match, sub->data,
                                    e->shadow, e->in_kvm, e->mapped);
}

static void vfio_user_ioeventfd_apply(VFIODevice *vbasedev,
                                      VFIOUserIoEvents *t)
{
    memory_region_transaction_begin();
    for (unsigned i = 0; i < t->nr; i++) {
        vfio_user_ioeventfd_apply_one(vbasedev, &t->event[i]);
    }
    memory_region_transaction_commit();
    t->used = true;
    qatomic_set(&t->active, true);
}

static void vfio_user_ioeventfd_withdraw(VFIODevice *vbasedev,
                                         VFIOUserIoEvents *t)
{
    qatomic_set(&t->active, false);
    memory_region_transaction_begin();
    for (unsigned i = 0; i < t->nr; i++) {
        VFIOUserIoEvent *e = &t->event[i];

        if (e->in_kvm) {
            memory_region_del_eventfd(
                vfio_user_ioeventfd_bar(vbasedev, e)->region.mem,
                e->sub.offset, e->sub.size, e->sub.match, e->sub.data, &e->e);
            e->in_kvm = false;
        }
    }
    memory_region_transaction_commit();
}

void vfio_user_ioeventfd_init(VFIODevice *vbasedev)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);

    if (udev->io_events) {
        vfio_user_ioeventfd_apply(vbasedev, udev->io_events);
    }
}

void vfio_user_ioeventfd_exit(VFIODevice *vbasedev)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserIoEvents *t = udev->io_events;

    if (t) {
        vfio_user_ioeventfd_withdraw(vbasedev, t);
        qatomic_rcu_set(&udev->io_events, NULL);
        vfio_user_ioeventfd_free(t);
    }
}

void vfio_user_ioeventfd_set_active(VFIODevice *vbasedev, bool active)
{
    VFIOUserIoEvents *t = vfio_user_device_of(vbasedev)->io_events;

    if (t && active && !t->active) {
        vfio_user_ioeventfd_apply(vbasedev, t);
    } else if (t && !active && t->active) {
        vfio_user_ioeventfd_withdraw(vbasedev, t);
    }
}

static bool vfio_user_ioeventfd_same(const VFIOUserIoEvent *a,
                                     const VFIOUserIoEvent *b)
{
    return a->region == b->region && a->sub.offset == b->sub.offset &&
           a->sub.size == b->sub.size && a->sub.match == b->sub.match &&
           a->sub.data == b->sub.data && !a->shadow == !b->shadow;
}

/* Was it signalled, and nobody took that? */
static bool vfio_user_ioeventfd_is_set(const VFIOUserIoEvent *e)
{
    struct pollfd pfd = {
        .fd = event_notifier_get_fd(&e->e), .events = POLLIN,
    };

    return poll(&pfd, 1, 0) > 0 && pfd.revents & POLLIN;
}

static VFIOUserIoEvent *vfio_user_ioeventfd_twin(VFIOUserIoEvents *t,
                                                 const VFIOUserIoEvent *of)
{
    for (unsigned i = 0; i < t->nr; i++) {
        if (!t->event[i].mapped &&
            vfio_user_ioeventfd_same(&t->event[i], of)) {
            return &t->event[i];
        }
    }
    return NULL;
}

/*
 * What one server left goes to the next. Which of the events that share an
 * eventfd it was is not known, and does not matter to a reader of that eventfd.
 */
static void vfio_user_ioeventfd_pass_on(VFIOUserDevice *udev,
                                        VFIOUserIoEvents *from,
                                        VFIOUserIoEvents *to)
{
    for (unsigned i = 0; i < from->nr; i++) {
        VFIOUserIoEvent *old = &from->event[i], *e;

        if (old->mapped || !vfio_user_ioeventfd_is_set(old)) {
            continue;
        }
        e = vfio_user_ioeventfd_twin(to, old);
        trace_vfio_user_ioeventfd_pass_on(udev->name, old->region,
                                          old->sub.offset, e != NULL);
        if (e) {
            if (e->shadow) {
                memcpy(e->shadow, old->shadow, e->sub.size ?: 8);
            }
            vfio_user_ioeventfd_signal(e);
        }
    }
}

void vfio_user_ioeventfd_returned(VFIODevice *vbasedev, bool kept)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserIoEvents *before = g_steal_pointer(&udev->io_events_before);

    if (udev->io_events && before && kept) {
        vfio_user_ioeventfd_pass_on(udev, before, udev->io_events);
    }
    vfio_user_ioeventfd_free(before);
}
