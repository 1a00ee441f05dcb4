/*
 * vfio-user: writes that are signals
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_IOEVENTFD_H
#define HW_VFIO_USER_IOEVENTFD_H

#include "qemu/event_notifier.h"
#include "qemu/rcu.h"
#include "device.h"

/**
 * VFIOUserIoEvent: a sub-region and its eventfd
 * @region: a BAR
 * @e: the eventfd; belongs to the table
 * @shadow: where the value goes before the signal, or NULL
 * @map, @map_len: the mapping that @shadow is in, or NULL
 * @guarded: a file that is cut short behind @map is survived
 * @mapped: is inside an area that the guest has mapped: never served
 * @in_kvm: the memory core has it, so that KVM signals
 */
typedef struct VFIOUserIoEvent {
    unsigned region;
    VFIOUserSubRegion sub;
    EventNotifier e;
    void *shadow;
    void *map;
    size_t map_len;
    bool guarded;
    bool mapped;
    bool in_kvm;
} VFIOUserIoEvent;

/**
 * VFIOUserIoEvents: those of one server
 *
 * Set once by the thread that negotiates, then under the BQL. A vCPU that signals is
 * in an RCU critical section.
 *
 * @active: writes are signals: the device is in use, and its server there; atomic
 * @used: it ever was
 * @event: ascending by region and offset
 * @fds: all eventfds, each once
 */
struct VFIOUserIoEvents {
    struct rcu_head rcu;
    bool active;
    bool used;
    unsigned nr;
    VFIOUserIoEvent *event;
    unsigned nr_fds;
    int *fds;
};

/* What was asked and not answered yet */
typedef struct VFIOUserIoQuery VFIOUserIoQuery;

/**
 * vfio_user_ioeventfd_ask: ask about all BARs at once (GET_REGION_IO_FDS)
 *
 * Their sizes are known. Sends and does not wait for answers. NULL: there is
 * nothing to ask. Any thread.
 */
VFIOUserIoQuery *vfio_user_ioeventfd_ask(VFIOUserDevice *udev);

/**
 * vfio_user_ioeventfd_answered: wait for the answers
 * @q: what vfio_user_ioeventfd_ask() returned; freed
 *
 * Sets @udev->io_events, to NULL where nothing can be used. A server that does
 * not know the command has none; false with @errp set is for one whose answer
 * is bad, or that is gone. Any thread.
 */
bool vfio_user_ioeventfd_answered(VFIOUserDevice *udev, VFIOUserIoQuery *q,
                                  Error **errp);

/**
 * vfio_user_ioeventfd_write: signal, if that is what a write is to do
 *
 * Returns false when it has to go by message. Any thread.
 */
bool vfio_user_ioeventfd_write(VFIODevice *vbasedev, unsigned region,
                               uint64_t off, const void *buf, size_t len);

/* The event that a write of @len bytes at @off signals, or NULL. */
VFIOUserIoEvent *vfio_user_ioeventfd_find(VFIOUserIoEvents *t, unsigned region,
                                          uint64_t off, const void *buf,
                                          size_t len);
void vfio_user_ioeventfd_signal(VFIOUserIoEvent *e);

/**
 * vfio_user_ioeventfd_adopt: take another server's, which are not used yet
 * @udev: ioeventfd-apply.c was told that its server has gone
 * @fresh: negotiated; has none afterwards
 *
 * BQL.
 */
void vfio_user_ioeventfd_adopt(VFIOUserDevice *udev, VFIOUserDevice *fresh);

/* NULL is fine. BQL, unless it was never applied. */
void vfio_user_ioeventfd_free(VFIOUserIoEvents *t);

/* ioeventfd-apply.c; all under the BQL, none of them waits */

/* The device is in use from now on: hw/vfio has made its BARs. */
void vfio_user_ioeventfd_init(VFIODevice *vbasedev);

/* It is about to be unplugged. */
void vfio_user_ioeventfd_exit(VFIODevice *vbasedev);

/* Whether writes are signals for now. */
void vfio_user_ioeventfd_set_active(VFIODevice *vbasedev, bool active);

/**
 * vfio_user_ioeventfd_returned: the server that was adopted is in use
 * @kept: it goes on where the one before was: what that one left is its to do
 *
 * After vfio_user_ioeventfd_set_active(), and before an access reaches the server.
 */
void vfio_user_ioeventfd_returned(VFIODevice *vbasedev, bool kept);

#endif /* HW_VFIO_USER_IOEVENTFD_H */
