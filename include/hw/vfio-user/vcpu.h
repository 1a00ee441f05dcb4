/*
 * vfio-user: what the rest of QEMU is told of vCPUs that wait for a server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_VCPU_H
#define HW_VFIO_USER_VCPU_H

/**
 * vfio_user_vcpu_is_held: whether a vCPU has been waiting for a server
 *
 * It is in an RCU critical section, for as long as the server likes, so nobody
 * who is to answer should wait for RCU. Called with the BQL, which is let go for
 * some ticks, so that a wait that has just begun counts. At once false where
 * there has been no vfio-user device.
 */
bool vfio_user_vcpu_is_held(void);

#endif /* HW_VFIO_USER_VCPU_H */
