/*
 * vfio-user: acknowledgements that a vCPU owes its guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_OWED_H
#define HW_VFIO_USER_OWED_H

typedef struct VFIOUserDevice VFIOUserDevice;
typedef struct CPUState CPUState;

/* What a vCPU owes the server's acknowledgement of, see vfio_user_owed_get(). */
typedef struct VFIOUserOwed VFIOUserOwed;

/* Before the device is in use. BQL. */
void vfio_user_owed_init(VFIOUserDevice *udev);

/**
 * vfio_user_owed_get: a message is about to be sent in the middle of an access
 *
 * The vCPU lets go of all locks when the access is over, and then waits for the
 * acknowledgement, before the guest goes on: nobody can know of the change earlier,
 * so nothing that passes the socket by overtakes it. Returns NULL where that is
 * not so. Otherwise the message is acknowledged by vfio_user_owed_put(). BQL.
 */
VFIOUserOwed *vfio_user_owed_get(VFIOUserDevice *udev);

/* Likewise for what was just wanted of interrupts. BQL. */
void vfio_user_owed_irqs(VFIOUserDevice *udev);

/* Any thread; NULL is fine. */
void vfio_user_owed_put(VFIOUserOwed *owed);

/* The access is over: wait for what it owes. Nothing is locked. */
void vfio_user_owed_settle(CPUState *cpu);

#endif /* HW_VFIO_USER_OWED_H */
