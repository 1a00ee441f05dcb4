/*
 * vfio-user: whether mapped areas and ioeventfds may be used
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_GATE_H
#define HW_VFIO_USER_GATE_H

typedef struct VFIOUserDevice VFIOUserDevice;
typedef struct VMChangeStateEntry VMChangeStateEntry;

/**
 * VFIOUserGateCause: why shortcuts are closed
 * @VFIO_USER_GATE_AWAY: there is no server in use
 * @VFIO_USER_GATE_UNTOLD: it has not handled what it was sent, and nobody waits for that
 */
typedef enum VFIOUserGateCause {
    VFIO_USER_GATE_AWAY = 1,
    VFIO_USER_GATE_UNTOLD = 2,
} VFIOUserGateCause;

/**
 * VFIOUserGate: under the BQL but for atomics
 * @causes: VFIO_USER_GATE_*, none: open; read without the BQL, too
 * @asked, @heard: the number of the last question, and of the last one that was
 *     answered; the second is atomic
 * @again: another question has to be sent, when one is answered
 * @irqs: vfio_user_irqs_wanted() when it was asked last
 */
typedef struct VFIOUserGate {
    unsigned causes;
    unsigned asked;
    unsigned heard;
    bool again;
    uint64_t irqs;
    VMChangeStateEntry *vm_state;
} VFIOUserGate;

/* While the device is in use. BQL. */
void vfio_user_gate_init(VFIOUserDevice *udev);
void vfio_user_gate_exit(VFIOUserDevice *udev);

/**
 * vfio_user_gate_sent: something was sent from outside of any access of the guest
 * @in_listener: the caller is a callback of a MemoryListener
 *
 * Waits a little for the server; one that takes longer finds shortcuts closed
 * before the guest goes on. BQL.
 */
void vfio_user_gate_sent(VFIOUserDevice *udev, bool in_listener);

/* A vCPU gave up to wait for what its access has sent. In its thread, without the BQL. */
void vfio_user_gate_unpaid(VFIOUserDevice *udev);

/* Messages were answered: can it be opened? Any thread; never waits. */
void vfio_user_gate_look(VFIOUserDevice *udev);

/* The server has gone. BQL, not in a callback of a MemoryListener. */
void vfio_user_gate_lost(VFIOUserDevice *udev);

/* It is back, and was told what it must know; likewise. */
void vfio_user_gate_returned(VFIOUserDevice *udev);

#endif /* HW_VFIO_USER_GATE_H */
