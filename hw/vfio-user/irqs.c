/*
 * vfio-user: interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio hands over VFIO_DEVICE_SET_IRQS as for the kernel; DEVICE_SET_IRQS
 * says nearly the same. The differences are what this file is about:
 *
 * - A message carries so many descriptors, all of them valid, so a range of
 *   eventfds becomes several messages. A vector without one is skipped unless
 *   it has one at the server: there is nothing to take away.
 * - QEMU's own server keeps MSI and MSI-X mask bits, all set in the beginning,
 *   and never sees the guest clear them, since the table that the guest writes
 *   to is ours. So vectors that get an eventfd are unmasked. Always from
 *   vector 0, because that server takes the count for the end of the range. A
 *   masked vector loses nothing by it: its interrupt ends up in our own
 *   pending bits. A server that refuses keeps no masks, and is not asked again.
 * - INTx is a level, and an eventfd tells no level. The kernel masks the line
 *   when it fires and looks again at unmask. Servers only signal when the
 *   level rises, so a second cause that comes while the first is handled would
 *   never be seen. Hence the look again is ours: after unmask, config space's
 *   interrupt status bit tells whether the line is still up; then the eventfd
 *   is signalled from here.
 * - With KVM, end of interrupt comes as an eventfd (UNMASK with a descriptor).
 *   libvfio-user accepts one and drops it, so it stays here and becomes an
 *   unmask message.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "hw/pci/pci_regs.h"
#include "device.h"
#include "trace.h"

/* Without data, or with eventfds @fds. */
static int vfio_user_irqs_send(VFIOUserDevice *udev, uint32_t flags,
                               uint32_t index, uint32_t start, uint32_t count,
                               const int *fds, unsigned nr_fds)
{
    struct vfio_user_irq_set set = {
        .argsz = sizeof(set),
        .flags = flags,
        .index = index,
        .start = start,
        .count = count,
    };
    struct iovec out = { .iov_base = &set, .iov_len = sizeof(set) };
    VFIOUserRequest req = {
        .command = VFIO_USER_DEVICE_SET_IRQS,
        .out = &out, .nr_out = 1,
        .fds = fds, .nr_fds = nr_fds,
    };
    int ret = vfio_user_conn_call(udev->conn, &req);

    trace_vfio_user_irqs_set(udev->name, index, start, count, flags, nr_fds,
                             ret);
    return ret;
}

static unsigned vfio_user_irqs_max_fds(VFIOUserDevice *udev)
{
    return MIN(udev->caps.max_msg_fds, VFIO_USER_MAX_MSG_FDS);
}

/* Mask or unmask; a server that does not know how does not need it. */
static int vfio_user_irqs_mask(VFIOUserDevice *udev, uint32_t action,
                               uint32_t index, uint32_t start, uint32_t count)
{
    VFIOUserIrqs *irqs = &udev->irqs[index];
    int ret;

    if (irqs->no_mask) {
        return 0;
    }
    ret = vfio_user_irqs_send(udev, VFIO_USER_IRQ_DATA_NONE | action, index,
                              start, count, NULL, 0);
    if (ret && ret != -EPIPE && ret != -ETIMEDOUT) {
        irqs->no_mask = true;
        ret = 0;
    }
    return ret;
}

/* INTx ----------------------------------------------------------------------- */

static bool vfio_user_irqs_intx_is_up(VFIOUserDevice *udev)
{
    uint8_t status[2];

    if (vfio_user_device_read(udev, VFIO_USER_REGION_CONFIG, PCI_STATUS,
                              status, sizeof(status))) {
        return false;
    }
    return status[0] & PCI_STATUS_INTERRUPT;
}

static int vfio_user_irqs_intx_unmask(VFIOUserDevice *udev)
{
    int ret = vfio_user_irqs_mask(udev, VFIO_USER_IRQ_UNMASK,
                                  VFIO_USER_IRQ_INTX, 0, 1);

    if (!ret && udev->intx_fd >= 0 && vfio_user_irqs_intx_is_up(udev)) {
        uint64_t one = 1;

        trace_vfio_user_irqs_intx_again(udev->name);
        if (write(udev->intx_fd, &one, sizeof(one)) != sizeof(one)) {
            /* The counter is full: it is signalled as it is. */
            return 0;
        }
    }
    return ret;
}

/* Remember the eventfd, so that it can be signalled from here. */
static void vfio_user_irqs_keep_intx(VFIOUserDevice *udev, int fd)
{
    if (udev->intx_fd >= 0) {
        close(udev->intx_fd);
    }
    udev->intx_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void vfio_user_irqs_resample(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    uint64_t count;

    if (read(udev->resample_fd, &count, sizeof(count)) == sizeof(count)) {
        vfio_user_irqs_intx_unmask(udev);
    }
}

static int vfio_user_irqs_keep_resample(VFIOUserDevice *udev, int fd)
{
    if (udev->resample_fd >= 0) {
        qemu_set_fd_handler(udev->resample_fd, NULL, NULL, NULL);
        close(udev->resample_fd);
        udev->resample_fd = -1;
    }
    if (fd < 0) {
        return 0;
    }
    udev->resample_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (udev->resample_fd < 0) {
        return -errno;
    }
    qemu_set_fd_handler(udev->resample_fd, vfio_user_irqs_resample, NULL, udev);
    return 0;
}

/* Eventfds ---------------------------------------------------------------------- */

/* How many vectors from @first on can share a message: all with, or all
 * without an eventfd. */
static unsigned vfio_user_irqs_run(const int *fds, unsigned count, unsigned max)
{
    bool has_fd = fds[0] >= 0;
    unsigned n = 1;

    while (n < count && n < max && (fds[n] >= 0) == has_fd) {
        n++;
    }
    return n;
}

static int vfio_user_irqs_assign(VFIOUserDevice *udev, uint32_t index,
                                 uint32_t start, uint32_t count,
                                 const int *fds)
{
    VFIOUserIrqs *irqs = &udev->irqs[index];
    unsigned max = vfio_user_irqs_max_fds(udev);
    uint32_t flags = VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_TRIGGER;
    bool any = false;
    uint32_t done, n;
    int ret;

    if (!max) {
        error_report_once("vfio-user-pci %s: the server takes no descriptors "
                          "(max_msg_fds is 0), so it cannot interrupt",
                          udev->name);
        return -EOPNOTSUPP;
    }
    for (done = 0; done < count; done += n) {
        uint32_t at = start + done;
        bool has_fd = fds[done] >= 0;

        n = vfio_user_irqs_run(fds + done, count - done,
                               has_fd ? max : count);
        if (!has_fd &&
            find_next_bit(irqs->assigned, at + n, at) >= at + n) {
            continue;
        }
        ret = vfio_user_irqs_send(udev, flags, index, at, n, fds + done,
                                  has_fd ? n : 0);
        if (ret) {
            return ret;
        }
        if (has_fd) {
            bitmap_set(irqs->assigned, at, n);
        } else {
            bitmap_clear(irqs->assigned, at, n);
        }
        any |= has_fd;
    }

    if (index == VFIO_USER_IRQ_INTX) {
        vfio_user_irqs_keep_intx(udev, fds[0]);
    } else if (any && (index == VFIO_USER_IRQ_MSI ||
                       index == VFIO_USER_IRQ_MSIX)) {
        return vfio_user_irqs_mask(udev, VFIO_USER_IRQ_UNMASK, index, 0,
                                   start + count);
    }
    return 0;
}

static int vfio_user_irqs_disable(VFIOUserDevice *udev, uint32_t index)
{
    VFIOUserIrqs *irqs = &udev->irqs[index];

    bitmap_zero(irqs->assigned, irqs->info.count);
    if (index == VFIO_USER_IRQ_INTX) {
        vfio_user_irqs_keep_intx(udev, -1);
        vfio_user_irqs_keep_resample(udev, -1);
    }
    return vfio_user_irqs_send(udev, VFIO_USER_IRQ_DATA_NONE |
                               VFIO_USER_IRQ_TRIGGER, index, 0, 0, NULL, 0);
}

static int vfio_user_irqs_apply(VFIOUserDevice *udev,
                                const struct vfio_irq_set *set)
{
    const int *fds = (const int *)set->data;

    switch (set->flags) {
    case VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER:
        return vfio_user_irqs_assign(udev, set->index, set->start, set->count,
                                     fds);
    case VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK:
        if (set->index != VFIO_USER_IRQ_INTX) {
            return -EINVAL;
        }
        return vfio_user_irqs_keep_resample(udev, fds[0]);
    case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER:
        if (!set->count) {
            return vfio_user_irqs_disable(udev, set->index);
        }
        return vfio_user_irqs_send(udev, set->flags, set->index, set->start,
                                   set->count, NULL, 0);
    case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK:
        if (set->index == VFIO_USER_IRQ_INTX) {
            return vfio_user_irqs_intx_unmask(udev);
        }
        return vfio_user_irqs_mask(udev, VFIO_USER_IRQ_UNMASK, set->index, 0,
                                   set->start + set->count);
    case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK:
        return vfio_user_irqs_mask(udev, VFIO_USER_IRQ_MASK, set->index,
                                   set->start, set->count);
    default:
        return -EINVAL;
    }
}

int vfio_user_irqs_set(VFIOUserDevice *udev, const struct vfio_irq_set *set)
{
    uint32_t known;
    int ret;

    if (set->index >= VFIO_USER_IRQ_MAX) {
        return -EINVAL;
    }
    known = udev->irqs[set->index].info.count;
    /* There is nothing to be disabled on an index without interrupts. */
    if (!known && !set->count) {
        return 0;
    }
    if (set->start >= known || set->count > known - set->start) {
        return -EINVAL;
    }
    ret = vfio_user_irqs_apply(udev, set);
    /* A device that is gone was reported; no need for hw/vfio to say so. */
    return ret == -EPIPE && udev->ready ? 0 : ret;
}

void vfio_user_irqs_cleanup(VFIOUserDevice *udev)
{
    vfio_user_irqs_keep_intx(udev, -1);
    vfio_user_irqs_keep_resample(udev, -1);
}
