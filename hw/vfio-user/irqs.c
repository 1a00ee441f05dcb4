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
 *
 * Realize waits for the first replies, since a server that cannot interrupt is no
 * use. For ERR and REQ, and for what repeats, it does not: realize looks once, at
 * its end, whether the server has handled everything. Afterwards nobody waits: these calls come from vCPUs in the middle of
 * hw/vfio's interrupt code, which holds the BQL and must not be interleaved
 * with anything. The server handles messages in their order, so whatever the
 * guest does to the device next finds the change made. A reply that reports
 * failure is reported when it comes.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "hw/pci/pci_regs.h"
#include "device.h"
#include "reconnect.h"
#include "trace.h"

/* A request that nobody waits for */
typedef struct VFIOUserIrqsMsg {
    VFIOUserRequest req;
    VFIOUserDevice *udev;
    VFIOUserOwed *owed;
    union {
        struct vfio_user_irq_set set;
        struct vfio_user_region_rw read;
    } out;
    struct {
        struct vfio_user_region_rw read;
        uint8_t status[2];
    } in;
    struct iovec out_iov;
    struct iovec in_iov;
} VFIOUserIrqsMsg;

/*
 * Whether the server is told of changes when they happen. One that is away is
 * told what holds when it comes back (reconnect.c).
 */
static bool vfio_user_irqs_is_told(VFIOUserDevice *udev)
{
    return udev->replaying ||
           vfio_user_device_link(udev) == VFIO_USER_LINK_UP;
}

static void vfio_user_irqs_submit(VFIOUserDevice *udev, VFIOUserIrqsMsg *msg,
                                  uint16_t command, size_t out_len)
{
    msg->udev = udev;
    msg->out_iov.iov_base = &msg->out;
    msg->out_iov.iov_len = out_len;
    msg->req.command = command;
    msg->req.out = &msg->out_iov;
    msg->req.nr_out = 1;
    vfio_user_conn_submit(udev->conn, &msg->req);
}

static bool vfio_user_irqs_is_mask(const struct vfio_user_irq_set *set)
{
    return set->flags & (VFIO_USER_IRQ_MASK | VFIO_USER_IRQ_UNMASK);
}

/* Any thread */
static int vfio_user_irqs_result(VFIOUserDevice *udev,
                                 const struct vfio_user_irq_set *set, int ret)
{
    trace_vfio_user_irqs_set(udev->name, set->index, set->start, set->count,
                             set->flags, ret);
    if (ret && ret != -EPIPE && ret != -ETIMEDOUT &&
        vfio_user_irqs_is_mask(set)) {
        /* It does not know how: it keeps no masks. */
        qatomic_set(&udev->irqs[set->index].no_mask, true);
        return 0;
    }
    return ret;
}

static void vfio_user_irqs_done(VFIOUserRequest *req)
{
    VFIOUserIrqsMsg *msg = container_of(req, VFIOUserIrqsMsg, req);
    const struct vfio_user_irq_set *set = &msg->out.set;
    int ret = vfio_user_irqs_result(msg->udev, set, req->ret);

    if (ret && ret != -EPIPE) {
        warn_report("vfio-user-pci %s: the server refused interrupts %u to %u "
                    "of index %u (flags 0x%x): %s", msg->udev->name,
                    set->start, set->start + set->count, set->index,
                    set->flags, strerror(-ret));
    }
    vfio_user_owed_put(msg->owed);
    g_free(msg);
}

static bool vfio_user_irqs_must_wait(VFIOUserDevice *udev,
                                     const struct vfio_user_irq_set *set)
{
    return !udev->ready && set->index < VFIO_USER_IRQ_ERR &&
           !vfio_user_irqs_is_mask(set) && udev->intx_fd < 0;
}

/* Without data, or with eventfds @fds. */
static int vfio_user_irqs_send(VFIOUserDevice *udev, uint32_t flags,
                               uint32_t index, uint32_t start, uint32_t count,
                               const int *fds, unsigned nr_fds)
{
    VFIOUserIrqsMsg *msg;
    int ret;

    if (!vfio_user_irqs_is_told(udev)) {
        return 0;
    }
    msg = g_new0(VFIOUserIrqsMsg, 1);
    msg->out.set = (struct vfio_user_irq_set) {
        .argsz = sizeof(msg->out.set),
        .flags = flags,
        .index = index,
        .start = start,
        .count = count,
    };
    msg->req.fds = fds;
    msg->req.nr_fds = nr_fds;
    if (!vfio_user_irqs_must_wait(udev, &msg->out.set)) {
        msg->req.done = vfio_user_irqs_done;
        msg->owed = vfio_user_owed_get(udev);
        vfio_user_irqs_submit(udev, msg, VFIO_USER_DEVICE_SET_IRQS,
                              sizeof(msg->out.set));
        return 0;
    }
    vfio_user_irqs_submit(udev, msg, VFIO_USER_DEVICE_SET_IRQS,
                          sizeof(msg->out.set));
    ret = vfio_user_conn_wait(udev->conn, &msg->req);
    ret = vfio_user_irqs_result(udev, &msg->out.set, ret);
    g_free(msg);
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
    if (qatomic_read(&udev->irqs[index].no_mask)) {
        return 0;
    }
    return vfio_user_irqs_send(udev, VFIO_USER_IRQ_DATA_NONE | action, index,
                               start, count, NULL, 0);
}

/* INTx ----------------------------------------------------------------------- */

/* Any thread */
static void vfio_user_irqs_fire_intx(VFIOUserDevice *udev)
{
    const uint64_t one = 1;

    QEMU_LOCK_GUARD(&udev->intx_lock);
    if (udev->intx_fd < 0) {
        return;
    }
    trace_vfio_user_irqs_intx_again(udev->name);
    /* It fails when the counter is full: then it is signalled as it is. */
    if (write(udev->intx_fd, &one, sizeof(one)) < 0) {
        return;
    }
}

static void vfio_user_irqs_status_done(VFIOUserRequest *req)
{
    VFIOUserIrqsMsg *msg = container_of(req, VFIOUserIrqsMsg, req);
    VFIOUserDevice *udev = msg->udev;
    Error *err = NULL;

    if (!req->ret &&
        !vfio_user_wire_check_region_rw(&msg->in.read, req->in_len,
                                        &msg->out.read, false, &err)) {
        vfio_user_device_offline(udev, err);
    } else if (!req->ret && (msg->in.status[0] & PCI_STATUS_INTERRUPT)) {
        vfio_user_irqs_fire_intx(udev);
    }
    g_free(msg);
}

/* Is the line still up? The answer comes to vfio_user_irqs_status_done(). */
static void vfio_user_irqs_ask_status(VFIOUserDevice *udev)
{
    VFIOUserIrqsMsg *msg;

    if (!vfio_user_irqs_is_told(udev)) {
        return;
    }
    msg = g_new0(VFIOUserIrqsMsg, 1);
    msg->out.read = (struct vfio_user_region_rw) {
        .offset = PCI_STATUS,
        .region = VFIO_USER_REGION_CONFIG,
        .count = sizeof(msg->in.status),
    };
    msg->in_iov.iov_base = &msg->in;
    msg->in_iov.iov_len = sizeof(msg->in.read) + sizeof(msg->in.status);
    msg->req.in = &msg->in_iov;
    msg->req.nr_in = 1;
    msg->req.done = vfio_user_irqs_status_done;
    vfio_user_irqs_submit(udev, msg, VFIO_USER_REGION_READ,
                          sizeof(msg->out.read));
}

static int vfio_user_irqs_intx_unmask(VFIOUserDevice *udev)
{
    int ret = vfio_user_irqs_mask(udev, VFIO_USER_IRQ_UNMASK,
                                  VFIO_USER_IRQ_INTX, 0, 1);

    if (!ret && udev->intx_fd >= 0) {
        vfio_user_irqs_ask_status(udev);
    }
    return ret;
}

/* Remember the eventfd, so that it can be signalled from here. */
static void vfio_user_irqs_keep_intx(VFIOUserDevice *udev, int fd)
{
    QEMU_LOCK_GUARD(&udev->intx_lock);
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
        trace_vfio_user_irqs_resample(udev->name, count);
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

/*
 * libvfio-user keeps the eventfds of all indices in one table, by vector: what
 * is assigned to ERR or REQ replaces INTx's or vector 0's, and its interrupt
 * would then unplug the device. Put back what was there. Servers that keep
 * them apart are told what they know.
 */
static int vfio_user_irqs_restore_first(VFIOUserDevice *udev)
{
    uint32_t flags = VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_TRIGGER;
    uint32_t index;

    if (udev->intx_fd >= 0) {
        return vfio_user_irqs_send(udev, flags, VFIO_USER_IRQ_INTX, 0, 1,
                                   &udev->intx_fd, 1);
    }
    for (index = VFIO_USER_IRQ_MSIX; index > 0; index--) {
        if (udev->irqs[index].info.count) {
            return vfio_user_irqs_send(udev, flags, index, 0, 1, NULL, 0);
        }
    }
    return 0;
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
    } else if (any && index >= VFIO_USER_IRQ_ERR) {
        return vfio_user_irqs_restore_first(udev);
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
    if (!vfio_user_irqs_is_told(udev)) {
        udev->missed_irqs++;
        vfio_user_reconnect_mind_mappings(udev);
    }
    /* A device that is gone was reported; no need for hw/vfio to say so. */
    return ret == -EPIPE && udev->ready ? 0 : ret;
}

void vfio_user_irqs_forget(VFIOUserDevice *udev)
{
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        VFIOUserIrqs *irqs = &udev->irqs[i];

        if (irqs->assigned) {
            bitmap_zero(irqs->assigned, irqs->info.count);
        }
        qatomic_set(&irqs->no_mask, false);
    }
}

void vfio_user_irqs_cleanup(VFIOUserDevice *udev)
{
    vfio_user_irqs_keep_intx(udev, -1);
    vfio_user_irqs_keep_resample(udev, -1);
}
