/*
 * vfio-user: accesses of the guest that take long
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_HELD_H
#define HW_VFIO_USER_HELD_H

#include "qemu/queue.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "region-msg.h"

/* Instead of 0 or -errno: the vCPU is to make its access again. */
#define VFIO_USER_HELD_AGAIN        1

/* A vCPU waits so long in its access before it leaves it. */
#define VFIO_USER_HELD_SHORT_US     (20 * 1000)

typedef struct VFIOUserDevice VFIOUserDevice;
typedef struct CPUState CPUState;

/**
 * VFIOUserAccess: an access to a region
 * @region, @off: where
 * @buf, @len: what is written, or where what is read goes; up to 8 bytes
 */
typedef struct VFIOUserAccess {
    unsigned region;
    uint64_t off;
    void *buf;
    unsigned len;
    bool is_write;
} VFIOUserAccess;

/**
 * VFIOUserHeldState: what a held access waits for
 * @VFIO_USER_HELD_LINK: a server; nothing was sent
 * @VFIO_USER_HELD_ROOM: a slot or room in the socket; nothing was sent
 * @VFIO_USER_HELD_ASKED: the server's answer
 * @VFIO_USER_HELD_ANSWERED: its vCPU, which has only to make it again
 */
typedef enum VFIOUserHeldState {
    VFIO_USER_HELD_LINK = 1,
    VFIO_USER_HELD_ROOM,
    VFIO_USER_HELD_ASKED,
    VFIO_USER_HELD_ANSWERED,
} VFIOUserHeldState;

/**
 * VFIOUserHeld: an access that its vCPU has left and will make again
 * @refs: the list's, the vCPU's while it looks at it, and the request's
 * @cpu: whose access it is; only compared, it may be gone
 * @a, @data: the access, with what it writes
 * @since, @deadline: when it was asked, and must be answered; as
 *     g_get_monotonic_time()
 * @msg: its request, while @state is ASKED, and the answer then
 * @ret: outcome, once ANSWERED: 0 or -errno
 * @life: vfio_user_reconnect_life() when it was tried last
 *
 * Under the list's lock:
 * @state: may be read without the lock
 * @listed: it is in the list
 * @waiting: its vCPU is idle until it is woken
 * @woken: since when its vCPU can make it again, as QEMU_CLOCK_VIRTUAL; or 0
 *
 * Under the BQL:
 * @busy: the server was asked: the vCPU must finish it before its state is saved
 * @blocks: the VM is stopped, and migration has to wait
 */
typedef struct VFIOUserHeld {
    int refs;
    VFIOUserDevice *udev;
    CPUState *cpu;
    VFIOUserAccess a;
    uint64_t data;
    int64_t since;
    int64_t deadline;
    VFIOUserRegionMsg msg;
    int ret;
    unsigned life;
    VFIOUserHeldState state;
    bool listed;
    bool waiting;
    int64_t woken;
    bool blocks;
    bool busy;
    QTAILQ_ENTRY(VFIOUserHeld) next;
} VFIOUserHeld;

/**
 * VFIOUserHeldList: those of a device
 * @lock: taken last
 * @list, @nr: under @lock; @nr may be read without
 * @timer, @nr_blocking, @blocker: under the BQL
 */
typedef struct VFIOUserHeldList {
    QemuMutex lock;
    QTAILQ_HEAD(, VFIOUserHeld) list;
    unsigned nr;
    QEMUTimer *timer;
    unsigned nr_blocking;
    Error *blocker;
    QLIST_ENTRY(VFIOUserDevice) next;
} VFIOUserHeldList;

/* Before the device is in use, and when it is unplugged. BQL. */
void vfio_user_held_init(VFIOUserDevice *udev);
void vfio_user_held_exit(VFIOUserDevice *udev);

/* When the device goes. */
void vfio_user_held_free(VFIOUserDevice *udev);

/**
 * vfio_user_held_is_direct: is this an access of the guest to this device?
 *
 * One that its vCPU can leave and make again. False for one of another device (DMA),
 * which may be made by a vCPU, too, and for QEMU's own.
 */
bool vfio_user_held_is_direct(void);

/* Whether this is a vCPU in an access, at the end of which it waits for what it owes. */
bool vfio_user_held_in_access(void);

/* Whether this access is one that will be made again anyway. Direct ones only. */
bool vfio_user_held_is_again(void);

/* What is held for this vCPU and this access, or NULL. The caller unrefs it. */
VFIOUserHeld *vfio_user_held_find(VFIOUserDevice *udev,
                                  const VFIOUserAccess *a);
void vfio_user_held_unref(VFIOUserHeld *h);

/**
 * vfio_user_held_hold: the vCPU is to leave this access, and to make it again
 * @h: what vfio_user_held_find() returned, or NULL
 * @state: what it waits for; not ANSWERED
 * @life: see VFIOUserHeld
 *
 * Returns @h or a new one, referenced by its list only. Direct accesses only.
 */
VFIOUserHeld *vfio_user_held_hold(VFIOUserDevice *udev, VFIOUserHeld *h,
                                  const VFIOUserAccess *a,
                                  VFIOUserHeldState state, unsigned life);

/**
 * vfio_user_held_ask: hold an access whose request is at the server
 * @msg: that request, submitted and not answered
 *
 * Returns false when the answer comes just now. Otherwise as
 * vfio_user_held_hold().
 */
bool vfio_user_held_ask(VFIOUserDevice *udev, VFIOUserHeld *h,
                        const VFIOUserAccess *a, VFIOUserRegionMsg *msg,
                        unsigned life);

/* As before. Returns VFIO_USER_HELD_AGAIN. */
int vfio_user_held_still(VFIOUserHeld *h);

/* Not any more: returns false when it is ANSWERED. */
bool vfio_user_held_cancel(VFIOUserHeld *h);

/* The access is over. Its vCPU. */
void vfio_user_held_end(VFIOUserHeld *h);

/* CPUAccess.settle: the access is over or left; nothing is locked. */
void vfio_user_held_settle(CPUState *cpu);

/* There is or is no server any more: let all vCPUs look. Any thread. */
void vfio_user_held_look(VFIOUserDevice *udev);

#endif /* HW_VFIO_USER_HELD_H */
