/*
 * vfio-user: interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio hands over VFIO_DEVICE_SET_IRQS as for the kernel; DEVICE_SET_IRQS
 * says nearly the same. But hw/vfio calls in the middle of its interrupt code,
 * with the BQL, which must not be interleaved with anything, so the server is not
 * waited for. What hw/vfio wants is written down here; irqs-sync.c tells the
 * server. The differences to the kernel:
 *
 * - A message carries so many descriptors, all of them valid, so a range of
 *   eventfds becomes several messages. A vector without one is skipped unless
 *   it has one at the server: there is nothing to take away.
 * - hw/vfio closes and reopens its eventfds, and what it hands over now may be
 *   told later. So each is duplicated, and compared by a number of our own. The
 *   duplicate goes with the message; a guest may have thousands of vectors.
 * - QEMU's own server keeps MSI and MSI-X mask bits, all set in the beginning,
 *   and never sees the guest clear them, since the table that the guest writes
 *   to is ours. So vectors that get an eventfd are unmasked. A masked vector
 *   loses nothing by it: its interrupt ends up in our own pending bits.
 * - INTx is a level, and an eventfd tells no level. The kernel masks the line
 *   when it fires and looks again at unmask. Servers only signal when the
 *   level rises, so a second cause that comes while the first is handled would
 *   never be seen. Hence the look again is ours: after unmask, config space's
 *   interrupt status bit tells whether the line is still up; then the eventfd
 *   is signalled from here. That bit is set even while the guest has disabled
 *   INTx in the command register. Then neither is done, and when it enables INTx
 *   the level is looked at once.
 * - With KVM, end of interrupt comes as an eventfd (UNMASK with a descriptor).
 *   libvfio-user accepts one and drops it, so it stays here and becomes an
 *   unmask message.
 *
 * Realize waits for the first replies, since a server that cannot interrupt is no
 * use. For ERR and REQ, and for what repeats, it does not: realize looks once, at
 * its end, whether the server has handled everything.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "hw/pci/pci_regs.h"
#include "hw/vfio/pci.h"
#include "irqs-int.h"
#include "owed.h"
#include "reconnect.h"
#include "region-msg.h"
#include "trace.h"

/* What is wanted ----------------------------------------------------------- */

static VFIOUserIrqIndex *vfio_user_irqs_index_locked(VFIOUserDevice *udev,
                                                     uint32_t index)
{
    VFIOUserIrqState *st = udev->irq_state;

    /* How many there are is known after negotiating. */
    for (unsigned i = 0; !st->last_gen && i < VFIO_USER_IRQ_MAX; i++) {
        VFIOUserIrqIndex *idx = &st->index[i];

        idx->count = udev->irqs[i].info.count;
        idx->v = g_new0(VFIOUserVector, idx->count);
        for (uint32_t j = 0; j < idx->count; j++) {
            idx->v[j].refused = VFIO_USER_IRQ_NEVER;
            idx->v[j].fd = idx->v[j].dup = -1;
        }
    }
    st->last_gen = MAX(st->last_gen, VFIO_USER_IRQ_NOTHING + 1);
    return &st->index[index];
}

/* Returns a duplicate of what was wanted before, to be closed, or -1. */
static int vfio_user_irqs_want_locked(VFIOUserDevice *udev, uint32_t index,
                                      uint32_t nr, int fd, int dup)
{
    VFIOUserIrqState *st = udev->irq_state;
    VFIOUserIrqIndex *idx = vfio_user_irqs_index_locked(udev, index);
    VFIOUserVector *v = &idx->v[nr];
    int was = v->dup;

    v->fd = fd;
    v->dup = dup;
    v->want = fd < 0 ? VFIO_USER_IRQ_NOTHING : ++st->last_gen;
    if (fd < 0) {
        v->want_mask = VFIO_USER_IRQ_MASK_ANY;
    } else if (index != VFIO_USER_IRQ_INTX && index < VFIO_USER_IRQ_ERR &&
               v->want_mask == VFIO_USER_IRQ_MASK_ANY) {
        v->want_mask = VFIO_USER_IRQ_MASK_OFF;
    }
    idx->dirty = true;
    st->wanted++;
    return was;
}

static void vfio_user_irqs_want(VFIOUserDevice *udev, uint32_t index,
                                uint32_t nr, int fd)
{
    /* Should there be none left: one is made when it is needed. */
    int dup = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int was;

    WITH_QEMU_LOCK_GUARD(&udev->irq_state->lock) {
        was = vfio_user_irqs_want_locked(udev, index, nr, fd, dup);
    }
    if (was >= 0) {
        close(was);
    }
}

/* Remember INTx's eventfd, so that it can be signalled from here. */
static void vfio_user_irqs_keep_intx(VFIOUserDevice *udev, int fd)
{
    int dup = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int was;

    WITH_QEMU_LOCK_GUARD(&udev->irq_state->lock) {
        was = udev->irq_state->intx_fd;
        udev->irq_state->intx_fd = dup;
    }
    if (was >= 0) {
        close(was);
    }
}

static int vfio_user_irqs_assign(VFIOUserDevice *udev, uint32_t index,
                                 uint32_t start, uint32_t count,
                                 const int *fds)
{
    if (!udev->caps.max_msg_fds) {
        error_report_once("vfio-user-pci %s: the server takes no descriptors "
                          "(max_msg_fds is 0), so it cannot interrupt",
                          udev->name);
        return -EOPNOTSUPP;
    }
    for (uint32_t i = 0; i < count; i++) {
        vfio_user_irqs_want(udev, index, start + i, fds[i]);
    }
    if (index == VFIO_USER_IRQ_INTX) {
        vfio_user_irqs_keep_intx(udev, fds[0]);
    }
    return 0;
}

static void vfio_user_irqs_want_mask(VFIOUserDevice *udev, uint32_t index,
                                     uint32_t start, uint32_t count,
                                     VFIOUserIrqMask mask)
{
    VFIOUserIrqState *st = udev->irq_state;
    VFIOUserIrqIndex *idx;

    QEMU_LOCK_GUARD(&st->lock);
    idx = vfio_user_irqs_index_locked(udev, index);
    for (uint32_t i = start; i < start + count; i++) {
        idx->v[i].want_mask = mask;
    }
    if (index == VFIO_USER_IRQ_INTX && mask == VFIO_USER_IRQ_MASK_OFF) {
        st->eoi = st->look = true;
    }
    idx->dirty = true;
    st->wanted++;
}

unsigned vfio_user_irqs_nr_assigned(VFIOUserDevice *udev, unsigned index)
{
    const VFIOUserIrqIndex *idx = &udev->irq_state->index[index];
    unsigned nr = 0;

    QEMU_LOCK_GUARD(&udev->irq_state->lock);
    for (uint32_t i = 0; i < idx->count; i++) {
        nr += idx->v[i].want && idx->v[i].refused != idx->v[i].want;
    }
    return nr;
}

/* INTx --------------------------------------------------------------------- */

/* Any thread */
static void vfio_user_irqs_fire_intx(VFIOUserDevice *udev)
{
    VFIOUserIrqState *st = udev->irq_state;
    const uint64_t one = 1;

    QEMU_LOCK_GUARD(&st->lock);
    if (st->intx_fd < 0 || st->intx_off) {
        return;
    }
    trace_vfio_user_irqs_intx_again(udev->name);
    /* It fails when the counter is full: then it is signalled as it is. */
    if (write(st->intx_fd, &one, sizeof(one)) < 0) {
        return;
    }
}

typedef struct VFIOUserStatusMsg {
    VFIOUserRegionMsg msg;
    VFIOUserDevice *udev;
    uint8_t status[2];
} VFIOUserStatusMsg;

static void vfio_user_irqs_status_done(VFIOUserRequest *req)
{
    VFIOUserRegionMsg *msg = container_of(req, VFIOUserRegionMsg, req);
    VFIOUserStatusMsg *sm = container_of(msg, VFIOUserStatusMsg, msg);
    VFIOUserDevice *udev = sm->udev;

    WITH_QEMU_LOCK_GUARD(&udev->irq_state->lock) {
        udev->irq_state->look_busy = false;
    }
    if (!vfio_user_region_msg_result(udev, msg) &&
        (sm->status[0] & PCI_STATUS_INTERRUPT)) {
        vfio_user_irqs_fire_intx(udev);
    }
    g_free(sm);
    vfio_user_irqs_reconcile(udev, false);
}

void vfio_user_irqs_ask_status(VFIOUserDevice *udev)
{
    VFIOUserStatusMsg *sm = g_new0(VFIOUserStatusMsg, 1);

    sm->udev = udev;
    vfio_user_region_msg_init(&sm->msg, false, VFIO_USER_REGION_CONFIG,
                              PCI_STATUS, sm->status, sizeof(sm->status));
    sm->msg.req.done = vfio_user_irqs_status_done;
    vfio_user_conn_submit(udev->conn, &sm->msg.req);
}

/* What the guest has written to the command register, if it had an occasion */
static void vfio_user_irqs_look_at_command(VFIOUserDevice *udev)
{
    VFIOUserIrqState *st = udev->irq_state;
    bool off = false;

    if (udev->vbasedev) {
        VFIOPCIDevice *vdev = container_of(udev->vbasedev, VFIOPCIDevice,
                                           vbasedev);
        /* The parent comes first; a checked cast wants a whole object. */
        const PCIDevice *pdev = (PCIDevice *)vdev;

        off = pci_get_word(pdev->config + PCI_COMMAND) &
              PCI_COMMAND_INTX_DISABLE;
    }
    QEMU_LOCK_GUARD(&st->lock);
    st->look |= st->intx_off && !off;
    st->intx_off = off;
}

void vfio_user_irqs_command_written(VFIOUserDevice *udev)
{
    vfio_user_irqs_look_at_command(udev);
    vfio_user_irqs_reconcile(udev, false);
}

static void vfio_user_irqs_intx_unmask(VFIOUserDevice *udev)
{
    vfio_user_irqs_want_mask(udev, VFIO_USER_IRQ_INTX, 0, 1,
                             VFIO_USER_IRQ_MASK_OFF);
}

static void vfio_user_irqs_resample(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    uint64_t count;

    if (read(udev->resample_fd, &count, sizeof(count)) == sizeof(count)) {
        trace_vfio_user_irqs_resample(udev->name, count);
        vfio_user_irqs_look_at_command(udev);
        vfio_user_irqs_intx_unmask(udev);
        vfio_user_irqs_reconcile(udev, false);
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

/* VFIO_DEVICE_SET_IRQS ----------------------------------------------------- */

static void vfio_user_irqs_want_nothing(VFIOUserDevice *udev, uint32_t index)
{
    for (uint32_t i = 0; i < udev->irqs[index].info.count; i++) {
        vfio_user_irqs_want(udev, index, i, -1);
    }
    if (index == VFIO_USER_IRQ_INTX) {
        vfio_user_irqs_keep_intx(udev, -1);
        vfio_user_irqs_keep_resample(udev, -1);
    }
}

static void vfio_user_irqs_disable(VFIOUserDevice *udev, uint32_t index)
{
    VFIOUserIrqState *st = udev->irq_state;

    vfio_user_irqs_want_nothing(udev, index);
    QEMU_LOCK_GUARD(&st->lock);
    st->index[index].disable = true;
    if (index == VFIO_USER_IRQ_INTX) {
        st->eoi = st->look = false;
    }
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
        return set->index == VFIO_USER_IRQ_INTX ?
               vfio_user_irqs_keep_resample(udev, fds[0]) : -EINVAL;
    case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER:
        /* To fire interrupts is nothing that hw/vfio asks for. */
        if (set->count) {
            return -EINVAL;
        }
        vfio_user_irqs_disable(udev, set->index);
        return 0;
    case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK:
        vfio_user_irqs_want_mask(udev, set->index, set->start, set->count,
                                 VFIO_USER_IRQ_MASK_OFF);
        return 0;
    case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK:
        vfio_user_irqs_want_mask(udev, set->index, set->start, set->count,
                                 VFIO_USER_IRQ_MASK_ON);
        return 0;
    default:
        return -EINVAL;
    }
}

/* Before @set is wanted. */
static bool vfio_user_irqs_must_wait(VFIOUserDevice *udev,
                                     const struct vfio_irq_set *set)
{
    return !udev->ready && set->index < VFIO_USER_IRQ_ERR &&
           !(set->flags & (VFIO_IRQ_SET_ACTION_MASK |
                           VFIO_IRQ_SET_ACTION_UNMASK)) &&
           udev->irq_state->intx_fd < 0;
}

int vfio_user_irqs_set(VFIOUserDevice *udev, const struct vfio_irq_set *set)
{
    uint32_t known;
    bool wait;
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
    wait = vfio_user_irqs_must_wait(udev, set);
    vfio_user_irqs_look_at_command(udev);
    ret = vfio_user_irqs_apply(udev, set);
    if (ret) {
        return ret;
    }
    ret = vfio_user_irqs_reconcile(udev, wait);
    vfio_user_owed_irqs(udev);
    return ret;
}

/* Life --------------------------------------------------------------------- */

void vfio_user_irqs_init(VFIOUserDevice *udev)
{
    VFIOUserIrqState *st = g_new0(VFIOUserIrqState, 1);

    qemu_mutex_init(&st->lock);
    QTAILQ_INIT(&st->on_way);
    st->runs = true;
    st->intx_fd = -1;
    udev->irq_state = st;
    udev->resample_fd = -1;
}

void vfio_user_irqs_cleanup(VFIOUserDevice *udev)
{
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        vfio_user_irqs_want_nothing(udev, i);
    }
}

void vfio_user_irqs_free(VFIOUserDevice *udev)
{
    VFIOUserIrqState *st = udev->irq_state;

    assert(QTAILQ_EMPTY(&st->on_way));
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        g_free(st->index[i].v);
    }
    qemu_mutex_destroy(&st->lock);
    g_free(st);
}
