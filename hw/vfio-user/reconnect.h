/*
 * vfio-user: a server that goes and comes back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_RECONNECT_H
#define HW_VFIO_USER_RECONNECT_H

#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-sockets.h"
#include "qapi/qapi-types-vfio-user.h"
#include "system/iothread.h"
#include "device.h"

/**
 * VFIOUserReconnectOptions: what the user wants when the server goes
 * @socket: where it comes back
 * @delay_ms: before the first attempt; later ones wait longer. 0: never
 * @timeout_ms: when to give up, 0: never
 * @policy: what happens to accesses meanwhile
 * @reset: whether the device is reset then; auto: unless it kept its state
 * @poll_max_us, @ioeventfd: for the new connection
 * @iothread: looks after it
 */
typedef struct VFIOUserReconnectOptions {
    SocketAddress *socket;
    unsigned delay_ms;
    unsigned timeout_ms;
    VFIOUserOnDisconnect policy;
    OnOffAuto reset;
    unsigned poll_max_us;
    bool ioeventfd;
    IOThread *iothread;
} VFIOUserReconnectOptions;

/**
 * VFIOUserReconnectView: for the monitor; valid as long as the BQL is held
 * @id: the device's, or NULL; @path: QOM's
 * @socket: where the server is
 * @link: whether it is
 * @reconnects: how often it has come back
 * @tries: attempts since it was last there for some time
 * @refusal: why the last one that was found was refused, or NULL
 */
typedef struct VFIOUserReconnectView {
    const char *id;
    const char *path;
    SocketAddress *socket;
    VFIOUserLink link;
    unsigned reconnects;
    unsigned tries;
    const char *refusal;
} VFIOUserReconnectView;

/* What has come of the server that an access was for. */
typedef enum VFIOUserReturn {
    VFIO_USER_RETURN_NONE,      /* no server */
    VFIO_USER_RETURN_WAIT,      /* none now, and the user wants to wait for it */
    VFIO_USER_RETURN_KEPT,      /* one that knows all that it was told */
    VFIO_USER_RETURN_RESET,     /* one that begins anew */
} VFIOUserReturn;

/**
 * vfio_user_reconnect_init: the device is in use from now on
 * @opts: copied
 *
 * Before vfio_user_device_set_ready(). BQL.
 */
void vfio_user_reconnect_init(VFIOUserDevice *udev, VFIODevice *vbasedev,
                              const VFIOUserReconnectOptions *opts);

/* The device is unplugged: whoever waits goes on without a server. BQL. */
void vfio_user_reconnect_stop(VFIOUserDevice *udev);

/* As vfio_user_device_unref(). */
void vfio_user_reconnect_free(VFIOUserDevice *udev);

/* How things are, of a device that is plugged. BQL. */
void vfio_user_reconnect_view(VFIOUserDevice *udev,
                              VFIOUserReconnectView *view);

/* The connection has failed. Any thread; takes no lock but its own. */
void vfio_user_reconnect_lost(VFIOUserDevice *udev);

/* How often the server has come back. Any thread. */
unsigned vfio_user_reconnect_life(VFIOUserDevice *udev);

/**
 * vfio_user_reconnect_fate: what to do with an access that found no server
 * @life: vfio_user_reconnect_life() before it
 *
 * After WAIT, vfio_user_held_look() is called when that may have changed. Any
 * thread.
 */
VFIOUserReturn vfio_user_reconnect_fate(VFIOUserDevice *udev, unsigned life);

/* resume.c: no device holds the VM stopped any more: let it go on. BQL. */
void vfio_user_resume_vm(void);

/* identity.c */

/**
 * vfio_user_identity_same: can one server take the place of another?
 * @was: the device as the guest knows it
 * @is: negotiated, with vfio_user_migration_probe() where @was can migrate
 *
 * Any thread. Returns false with @errp set to what differs.
 */
bool vfio_user_identity_same(const VFIOUserDevice *was,
                             const VFIOUserDevice *is, Error **errp);

/* replay.c */

/**
 * vfio_user_replay: tell a server that came back what it must know
 *
 * Interrupts, windows, config space. While VFIO_USER_LINK_REPLAY; waits, takes
 * the BQL in between. Returns false when the server is lost again or the device
 * was unplugged. True: with the BQL held, since nothing must change any more.
 */
bool vfio_user_replay(VFIOUserDevice *udev);

/*
 * The new server's files in place of the old one's. Returns false when they do
 * not fit, with @errp set. BQL.
 */
bool vfio_user_replay_map(VFIOUserDevice *udev, Error **errp);

#endif /* HW_VFIO_USER_RECONNECT_H */
