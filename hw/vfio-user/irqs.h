/*
 * vfio-user: interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_IRQS_H
#define HW_VFIO_USER_IRQS_H

#include "hw/vfio-user/wire.h"

typedef struct VFIOUserDevice VFIOUserDevice;
struct vfio_irq_set;
typedef struct VFIOUserIrqState VFIOUserIrqState;

/**
 * VFIOUserIrqs: one interrupt index, as the server describes it
 */
typedef struct VFIOUserIrqs {
    struct vfio_user_irq_info info;
} VFIOUserIrqs;

/* While nobody else knows of the device; and when nobody does any more. */
void vfio_user_irqs_init(VFIOUserDevice *udev);
void vfio_user_irqs_free(VFIOUserDevice *udev);

/**
 * vfio_user_irqs_set: VFIO_DEVICE_SET_IRQS
 *
 * Returns 0 or -errno. Waits for the server only while the device realizes;
 * afterwards what the server says to it is reported when it comes. BQL.
 */
int vfio_user_irqs_set(VFIOUserDevice *udev, const struct vfio_irq_set *set);

/* Nothing is wanted any more, and the server is not told. BQL. */
void vfio_user_irqs_cleanup(VFIOUserDevice *udev);

/* The guest may have written the command register: see "INTx". BQL. */
void vfio_user_irqs_command_written(VFIOUserDevice *udev);

/* Vectors of an index that have an eventfd and were not refused one. BQL. */
unsigned vfio_user_irqs_nr_assigned(VFIOUserDevice *udev, unsigned index);

/* irqs-sync.c. None of these waits, or takes the BQL. Any thread. */

/*
 * The state of the device has changed: after a change to RUNNING was sent, after
 * a reset, after a state was loaded. What was refused is told again.
 */
void vfio_user_irqs_sync(VFIOUserDevice *udev);

/**
 * vfio_user_irqs_set_runs: whether the device is known to run
 * @runs: false before a change of state is sent; true when the server has
 *     acknowledged one in which a device works
 *
 * A refusal means that the server cannot do it at all only while it runs. True
 * implies vfio_user_irqs_sync(). It is true at first.
 */
void vfio_user_irqs_set_runs(VFIOUserDevice *udev, bool runs);

/* The device was reset: its mask bits are not known. Implies sync. */
void vfio_user_irqs_was_reset(VFIOUserDevice *udev);

/* The connection has a new server, which was told nothing. Then sync. */
void vfio_user_irqs_forget(VFIOUserDevice *udev);

/**
 * vfio_user_irqs_wanted: all that is wanted by now, as a number that grows
 *
 * vfio_user_irqs_is_told: whether that need not be waited for any longer
 * @gen: what vfio_user_irqs_wanted() returned
 *
 * True when the server has answered all messages that it took (a refusal is an
 * answer), or when the connection is lost. Then, or when more is told, the hook
 * VFIOUserDevice.irqs_told is called, in any thread, with no lock of this file
 * or of the connection held.
 */
uint64_t vfio_user_irqs_wanted(VFIOUserDevice *udev);
bool vfio_user_irqs_is_told(VFIOUserDevice *udev, uint64_t gen);

/*
 * How many messages about interrupts the server has answered. Who waits for
 * is_told() finds out by it that there is progress.
 */
uint64_t vfio_user_irqs_nr_answered(VFIOUserDevice *udev);

#endif /* HW_VFIO_USER_IRQS_H */
