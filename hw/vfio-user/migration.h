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

/**
 * VFIOUserMigration: what there is to know of one device's migration
 *
 * @flags, @can_log, @knows_size: what the server offers, set once by
 *     vfio_user_migration_probe(): VFIO_USER_MIGRATION_*; DMA logging; feature
 *     MIG_DATA_SIZE
 *
 * @lock: what follows, but for @resetting, @was_reset and @hung, which are
 *     atomic
 * @state: of the device at the server; -1 when a transition failed
 * @wanted: what hw/vfio believes it is in
 * @chunks: a ring; @nr of them from @head on are on their way or hold data
 * @size: bytes of data in one message; @depth: messages at once
 * @more: the server has not yet said that there is no more for now
 * @ended: nothing follows
 * @unanswered: changes of state that nobody waits for
 * @resetting: a reset is on its way
 * @was_reset: the device is in RUNNING since, which nobody has looked at yet
 * @lost: that was in the middle of the stream, which is worthless
 * @error: the stream failed: -errno
 * @hung: the last change of state was not answered in time
 *
 * For estimates; see "How much is left" in stream.c:
 * @was_dry: pre-copy ran out of data at least once
 * @tell_dry: it did after what was read last, which the next read says
 * @last_have: bytes in the answer before; @nr_alike: short ones in a row that
 *     were not less than that
 * @cycle: bytes since the server last ran out of data; @last_cycle: the same
 *     of the time before
 * @total: bytes of the present stream; @acked: of these taken by the server
 */
typedef struct VFIOUserMigration {
    uint64_t flags;
    bool can_log;
    bool knows_size;

    QemuMutex lock;
    int state;
    int wanted;
    VFIOUserMigChunk chunks[VFIO_USER_MIG_MAX_CHUNKS];
    unsigned head, nr, depth;
    uint32_t size;
    bool more;
    bool ended;
    QSIMPLEQ_HEAD(, VFIOUserStateMsg) unanswered;
    bool resetting;
    bool was_reset;
    bool lost;
    int error;
    bool hung;

    bool was_dry;
    bool tell_dry;
    uint32_t last_have;
    uint32_t nr_alike;
    uint64_t cycle;
    uint64_t last_cycle;
    uint64_t total;
    uint64_t acked;
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
 * stream.c, for migration.c: a stream begins; everything that is on its way or
 * buffered is let go of; every write has its outcome, 0 or -errno. All with
 * @lock held.
 */
void vfio_user_stream_begin(VFIOUserDevice *udev);
void vfio_user_stream_clear(VFIOUserDevice *udev);
int vfio_user_stream_flush_writes(VFIOUserDevice *udev);

/**
 * vfio_user_migration_settle: learn of changes of state that nobody waited for
 * @until: g_get_monotonic_time() to wait up to
 *
 * One that failed is reported, and @state is -1. Returns true when none is left.
 * With @lock held.
 */
bool vfio_user_migration_settle(VFIOUserDevice *udev, int64_t until);

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

/*
 * The device is about to be reset, and was reset: it is running, and a stream
 * has lost its meaning.
 */
void vfio_user_migration_resetting(VFIOUserDevice *udev);
void vfio_user_migration_was_reset(VFIOUserDevice *udev);

/* The last change of state got no answer: nothing else will for now. */
bool vfio_user_migration_hung(VFIOUserDevice *udev);

const char *vfio_user_migration_state_name(int state);
bool vfio_user_migration_is_saving(int state);

#endif /* HW_VFIO_USER_MIGRATION_H */
