/*
 * vfio-user: device states and the stream of device state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_MIGRATION_H
#define HW_VFIO_USER_MIGRATION_H

#include <linux/vfio.h>
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "hw/vfio-user/wire.h"
#include "conn.h"

typedef struct VFIOUserDevice VFIOUserDevice;

/* Messages of device state at the server at once, and bytes in all of them. */
#define VFIO_USER_MIG_MAX_CHUNKS    16u
#define VFIO_USER_MIG_MAX_AHEAD     (2u * 1024 * 1024)

typedef struct VFIOUserStateMsg VFIOUserStateMsg;
typedef struct VFIOUserStream VFIOUserStream;

/**
 * VFIOUserMigChunk: one MIG_DATA_READ or MIG_DATA_WRITE
 * @data: room for what a READ brings; NULL for a WRITE
 * @have, @pos: bytes that came, and of these the next one to hand out
 * @arrived: @have is valid
 * @direct: the data is not in @data but in the reader's memory
 * @stopped: asked for in STOP_COPY
 * @dry: pre-copy had no more for now after it
 */
typedef struct VFIOUserMigChunk {
    VFIOUserRequest req;
    struct vfio_user_mig_data out;
    struct vfio_user_mig_data reply;
    struct iovec out_iov[2];
    struct iovec in_iov[2];
    uint8_t *data;
    uint32_t have;
    uint32_t pos;
    bool arrived;
    bool direct;
    bool stopped;
    bool dry;
} VFIOUserMigChunk;

/* What VFIOUserMigration.state is besides enum vfio_user_mig_state */
#define VFIO_USER_MIG_FAILED    (-1)    /* a change of state failed */
#define VFIO_USER_MIG_UNTOLD    (-2)    /* a reset, or another server */

/**
 * VFIOUserMigration: what there is to know of one device's migration
 *
 * @flags, @can_log, @knows_size: what the server offers, set once by
 *     vfio_user_migration_probe(): VFIO_USER_MIGRATION_*; DMA logging; feature
 *     MIG_DATA_SIZE
 *
 * @changing: one change of state at a time
 * @settling: one thread learns of answers that nobody waited for. Both are held
 *     while waiting for the server
 *
 * @lock: what follows, for moments only
 * @state: what the server was told; also read as an atomic
 * @wanted: what hw/vfio believes it is in
 * @stream: of device state, while @wanted has one
 * @unanswered: messages that nobody waits for
 * @reset_owed: the server refused to be reset, as it was not running
 * @resetting: a reset is on its way; an atomic
 * @hung: the last change of state was not answered in time; an atomic
 */
typedef struct VFIOUserMigration {
    uint64_t flags;
    bool can_log;
    bool knows_size;

    QemuMutex changing;
    QemuMutex settling;

    QemuMutex lock;
    int state;
    int wanted;
    VFIOUserStream *stream;
    QSIMPLEQ_HEAD(, VFIOUserStateMsg) unanswered;
    bool reset_owed;
    bool resetting;
    bool hung;
} VFIOUserMigration;

/**
 * vfio_user_migration_probe: ask what the server can do for a migration
 *
 * A server that cannot do it says so by an error, which is none of ours; false
 * with @errp means that it broke the protocol or that the connection is lost.
 * While the device is set up.
 */
bool vfio_user_migration_probe(VFIOUserDevice *udev, Error **errp);

void vfio_user_migration_init(VFIOUserDevice *udev);
void vfio_user_migration_cleanup(VFIOUserDevice *udev);

/* Deadline of a change of state, in ms: the server may have much to do. */
unsigned vfio_user_migration_timeout(VFIOUserDevice *udev);

/**
 * vfio_user_migration_feature: VFIO_DEVICE_FEATURE
 * @arg: as in the kernel's interface
 *
 * Returns 0 or -errno; -ENOTTY for a feature that is not here. Any thread. A
 * change of state waits for the server with a deadline of its own
 * (vfio_user_migration_timeout()).
 */
int vfio_user_migration_feature(VFIOUserDevice *udev,
                                struct vfio_device_feature *arg);

/*
 * stream.c, for migration.c: a stream begins; it ends, and what is on its way or
 * buffered is let go of; it has become worthless, for which @why is a literal.
 * With @lock held.
 */
void vfio_user_stream_begin(VFIOUserDevice *udev);
void vfio_user_stream_end(VFIOUserDevice *udev);
void vfio_user_stream_lose(VFIOUserDevice *udev, const char *why);

#define VFIO_USER_STREAM_RESET  "the device was reset meanwhile"

/* Wait until every write has its outcome: 0 or -errno. Without @lock. */
int vfio_user_stream_flush_writes(VFIOUserDevice *udev);

/**
 * vfio_user_migration_settle: learn of changes of state that nobody waited for
 * @wait: wait for them; else take what is there
 *
 * One that failed is reported, and @state is VFIO_USER_MIG_FAILED. Returns true
 * when none is left. Without @lock; any thread.
 */
bool vfio_user_migration_settle(VFIOUserDevice *udev, bool wait);

/* VFIO_MIG_GET_PRECOPY_INFO: 0 or -errno. Any thread. */
int vfio_user_stream_precopy_info(VFIOUserDevice *udev,
                                  struct vfio_precopy_info *info);

/**
 * vfio_user_stream_read, vfio_user_stream_write: the stream
 *
 * As read() and write() on the kernel's data descriptor: bytes done, 0 at the
 * end, -ENOMSG when a device in pre-copy has no more for now, or -errno. A
 * failure has been reported when they return it. Any thread, one at a time.
 */
ssize_t vfio_user_stream_read(VFIOUserDevice *udev, void *buf, size_t len);
ssize_t vfio_user_stream_write(VFIOUserDevice *udev, const void *buf,
                               size_t len);

/**
 * vfio_user_migration_resetting, vfio_user_migration_reset: around DEVICE_RESET
 * @ret: its outcome, 0 or -errno
 *
 * A stream has lost its meaning, and what state the server is in has to be said
 * anew: some are running after a reset, libvfio-user's state is what it was. One
 * that refuses it while it is not running is reset as soon as it runs, unless a
 * state is loaded before. Returns true if that will be so. BQL.
 */
void vfio_user_migration_resetting(VFIOUserDevice *udev);
bool vfio_user_migration_reset(VFIOUserDevice *udev, int ret);

/**
 * vfio_user_migration_returned: another server is there, or the same once more
 *
 * Tell it what state hw/vfio believes it to be in; a stream with the old one is
 * over. Does not wait. Before it is told anything else; BQL.
 */
void vfio_user_migration_returned(VFIOUserDevice *udev);

/* The server was told to stop, or nothing that is known. Any thread. */
bool vfio_user_migration_is_stopped(VFIOUserDevice *udev);

/* The last change of state got no answer: nothing else will for now. */
bool vfio_user_migration_hung(VFIOUserDevice *udev);

const char *vfio_user_migration_state_name(int state);
bool vfio_user_migration_is_saving(int state);

#endif /* HW_VFIO_USER_MIGRATION_H */
