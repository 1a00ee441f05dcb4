/*
 * vfio-user: what irqs.c and irqs-sync.c share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_IRQS_INT_H
#define HW_VFIO_USER_IRQS_INT_H

#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "device.h"
#include "irqs.h"

/*
 * An eventfd that is wanted has a generation. No two have the same, though their
 * numbers may be the same, since hw/vfio closes and reopens them. In place of
 * one: no eventfd; not known; none
 */
#define VFIO_USER_IRQ_NOTHING       0
#define VFIO_USER_IRQ_UNKNOWN       (UINT64_MAX - 1)
#define VFIO_USER_IRQ_NEVER         UINT64_MAX

typedef enum VFIOUserIrqMask {
    VFIO_USER_IRQ_MASK_ANY,     /* wanted: do not care; told: not known */
    VFIO_USER_IRQ_MASK_OFF,
    VFIO_USER_IRQ_MASK_ON,
} VFIOUserIrqMask;

/**
 * VFIOUserVector: one interrupt
 * @want: generation of its eventfd
 * @fd: hw/vfio's number for it, or -1
 * @dup: our duplicate, until it is sent, or -1
 * @told: generation that the server has
 * @sent, @seq: generation that message @seq is on its way with; 0: none is
 * @refused: generation that the server did not take
 * @want_mask, @told_mask: whether it is masked; told when the message is sent
 */
typedef struct VFIOUserVector {
    uint64_t want;
    int fd;
    int dup;
    uint64_t told;
    uint64_t sent;
    uint64_t seq;
    uint64_t refused;
    uint8_t want_mask;
    uint8_t told_mask;
} VFIOUserVector;

/**
 * VFIOUserIrqIndex: one interrupt index
 * @dirty: something that is wanted may not have been sent
 * @disable: it has to be disabled before anything else is said
 * @disable_busy, @mask_busy: such a message is on its way
 * @disable_refused, @mask_refused: until the device's state changes
 * @no_mask: the server knows no masks
 */
typedef struct VFIOUserIrqIndex {
    VFIOUserVector *v;
    uint32_t count;
    bool dirty;
    bool disable;
    bool disable_busy;
    bool disable_refused;
    bool mask_busy;
    bool mask_refused;
    bool no_mask;
} VFIOUserIrqIndex;

typedef struct VFIOUserIrqsMsg VFIOUserIrqsMsg;

/**
 * VFIOUserIrqState: what is wanted, and what the server was told
 *
 * @lock: protects all of it; taken last, and no system call is made under it
 *     that can block
 * @runs: see vfio_user_irqs_set_runs()
 * @sending, @again: a thread is sending; it has to look once more
 * @on_way: messages in the order in which they were sent
 * @nr_on_way, @nr_lost: of these; of those whose answers do not come
 * @last_gen, @last_seq: of the youngest eventfd and message; the first is 0
 *     while @index is empty
 * @wanted: counts what hw/vfio asked for
 * @told: of that, how much the server has answered
 * @answered: counts answers
 *
 * INTx:
 * @eoi: an unmask has to be sent
 * @look: the level has to be asked for
 * @look_busy: that is on its way
 * @intx_fd: duplicate of its eventfd, to fire it again; or -1
 * @intx_off: the guest has set Command.INTxDisable
 */
struct VFIOUserIrqState {
    QemuMutex lock;
    VFIOUserIrqIndex index[VFIO_USER_IRQ_MAX];
    bool runs;
    bool sending;
    bool again;
    QTAILQ_HEAD(, VFIOUserIrqsMsg) on_way;
    unsigned nr_on_way;
    unsigned nr_lost;
    uint64_t last_gen;
    uint64_t last_seq;
    uint64_t wanted;
    uint64_t told;
    uint64_t answered;

    bool eoi;
    bool look;
    bool look_busy;
    int intx_fd;
    bool intx_off;
};

/**
 * vfio_user_irqs_reconcile: send what is wanted and was not told
 * @wait: for the answers to what is sent now
 *
 * Without @lock. Returns 0; with @wait the first error, as VFIOUserRequest.ret.
 */
int vfio_user_irqs_reconcile(VFIOUserDevice *udev, bool wait);

/* Ask for the level of INTx. Without @lock. */
void vfio_user_irqs_ask_status(VFIOUserDevice *udev);

#endif /* HW_VFIO_USER_IRQS_INT_H */
