/*
 * vfio-user: a device behind a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_DEVICE_H
#define HW_VFIO_USER_DEVICE_H

#include "qemu/interval-tree.h"
#include "hw/vfio/vfio-device-file.h"
#include "hw/vfio-user/wire.h"
#include "caps.h"
#include "conn.h"
#include "gate.h"
#include "held.h"
#include "irqs.h"
#include "migration.h"
#include "ratelimit.h"
#include "wire-check.h"

/*
 * A reset, or a change of state for migration, may take a device long: it has
 * to stop its DMA and perhaps wait for media. Such a command has so many times
 * x-msg-timeout-ms.
 */
#define VFIO_USER_SLOW_FACTOR       6

typedef struct VFIOUserRegion {
    VFIOUserRegionInfo info;
    int fd;                     /* for mmap(), or -1 */
    bool posted;                /* writes need no reply */
} VFIOUserRegion;

/**
 * VFIOUserLoad: what load.c puts around hw/vfio's handling of config space
 * @parent, @ops: hw/vfio's functions, and what it calls instead
 * @kick: a state was loaded: fire the interrupts when the VM starts. BQL.
 */
typedef struct VFIOUserLoad {
    VFIODeviceOps *parent;
    VFIODeviceOps ops;
    struct VMChangeStateEntry *vm_state;
    bool kick;
} VFIOUserLoad;

/**
 * VFIOUserLink: whether there is a server
 * @VFIO_USER_LINK_UP: it is in use
 * @VFIO_USER_LINK_DOWN: it has gone, and is waited for
 * @VFIO_USER_LINK_REPLAY: it is back, and is being told what it must know;
 *     accesses have to wait until that is over
 * @VFIO_USER_LINK_GONE: there is none any more
 */
typedef enum VFIOUserLink {
    VFIO_USER_LINK_UP,
    VFIO_USER_LINK_DOWN,
    VFIO_USER_LINK_REPLAY,
    VFIO_USER_LINK_GONE,
} VFIOUserLink;

typedef struct VFIOUserReconnect VFIOUserReconnect;
typedef struct VFIOUserIoEvents VFIOUserIoEvents;
typedef struct VFIOPCIDevice VFIOPCIDevice;
typedef struct VFIOUserWindowMsg VFIOUserWindowMsg;

/**
 * VFIOUserDevice: one server's device
 *
 * Reference counted, since the container outlives the unplugged device.
 * Everything is set once while negotiating but for the last group.
 *
 * @name: how messages call the device
 * @config: config space as it was at the beginning: what realize works with,
 *     so that it cannot change between check and use
 * @as: what the server's DMA addresses; NULL at first
 * @share_memory: windows come with a descriptor where guest memory has one; set
 *     before the container is attached
 * @peer_dma: so do those on other devices' mapped areas; likewise
 *
 * @dma_lock: protects the next three and, behind an IOMMU, the tree of windows
 *     against dma.c, which reads it; taken last
 * @windows: the container's, while there is one
 * @nr_dma, @dma_epoch: commands on guest memory behind an IOMMU; the one that
 *     begins now counts in @dma_epoch
 * @dma_idle: one of @nr_dma became 0
 * @window_outcomes: messages about windows that container-msg.c is to look at, the
 *     last one first; atomic
 *
 * @ready: realize is over; from now on a failure is reported here, where
 *     before it became an Error
 * @link: changed by reconnect.c, under its lock; atomic
 * @reconnect: what reconnect.c keeps; from realize on
 * @vbasedev: hw/vfio's, while it is plugged; under the BQL
 * @missed_config: counts what was not told a server that is away
 * @missed_reset: a reset was among it
 * @gate: whether mapped areas and ioeventfds may be used
 * @reset_until: g_get_monotonic_time() by which all messages of the reset that goes
 *     on must be answered, or 0; under the BQL
 * @held: accesses that take long
 * @reads_config: the guest is reading config space; under the BQL
 * @io_events: what ioeventfd.c keeps, or NULL; changed under the BQL, read under
 *     RCU
 * @io_events_before: of the server that was there before, until the next one is
 *     in use
 * @irq_state: what irqs.c and irqs-sync.c keep
 * @irqs_told: see vfio_user_irqs_is_told(); NULL, or set while negotiating
 * @access_said, @irqs_said, @reset_said, @state_said, @dirty_said, @map_said,
 *     @offer_said: lines about accesses that failed; about refused interrupts, resets,
 *     changes of device state and logging of dirty pages; about files that cannot be
 *     mapped, and what cannot be used of what the server offers
 * @resample_fd: duplicate of what KVM signals at EOI; under the BQL
 */
struct VFIOUserDevice {
    int refcnt;
    char *name;
    unsigned timeout_ms;
    VFIOUserConn *conn;
    VFIOUserConn *twin;         /* where the server's commands come, or NULL */
    VFIOUserRecord *record;     /* what all messages are noted down in, or NULL */
    VFIOUserCaps caps;
    struct vfio_user_device_info info;
    VFIOUserRegion *regions;
    uint8_t *config;
    AddressSpace *as;
    bool share_memory;
    bool peer_dma;

    QemuMutex dma_lock;
    IntervalTreeRoot *windows;
    unsigned nr_dma[2];
    unsigned dma_epoch;
    QemuCond dma_idle;
    QSLIST_HEAD(, VFIOUserWindowMsg) window_outcomes;

    bool ready;
    int link;
    VFIOUserReconnect *reconnect;
    VFIODevice *vbasedev;
    unsigned missed_config;
    bool missed_reset;
    VFIOUserGate gate;
    int64_t reset_until;
    VFIOUserHeldList held;
    bool reads_config;
    VFIOUserIoEvents *io_events;
    VFIOUserIoEvents *io_events_before;
    VFIOUserIrqs irqs[VFIO_USER_IRQ_MAX];
    VFIOUserIrqState *irq_state;
    void (*irqs_told)(VFIOUserDevice *udev);
    VFIOUserLimit access_said;
    VFIOUserLimit irqs_said;
    VFIOUserLimit reset_said;
    VFIOUserLimit state_said;
    VFIOUserLimit dirty_said;
    VFIOUserLimit map_said;
    VFIOUserLimit offer_said;
    int resample_fd;
    VFIOUserMigration mig;
    VFIOUserLoad load;
};

/**
 * vfio_user_device_new: a device of which nothing is known yet
 * @fd: connected UNIX stream socket; owned from now on
 * @name: for messages; copied
 * @ctx: looks after the sockets while nobody waits; outlives
 *     vfio_user_device_close()
 * @timeout_ms: deadline of a message
 * @record: where all messages are noted down, or NULL
 *
 * Returns the device with one reference. Any thread.
 */
VFIOUserDevice *vfio_user_device_new(int fd, const char *name,
                                     AioContext *ctx, unsigned timeout_ms,
                                     VFIOUserRecord *record);

/**
 * vfio_user_device_negotiate: learn what server and device offer
 * @ctx: as above
 * @poll_max_us: how long a thread may spin for a reply, 0: not at all
 * @ioeventfd: ask for ioeventfds, too
 *
 * Once. Waits; any thread. Returns false with @errp set, and then @udev is only
 * good for vfio_user_device_close() and _unref().
 */
bool vfio_user_device_negotiate(VFIOUserDevice *udev, AioContext *ctx,
                                unsigned poll_max_us, bool ioeventfd,
                                Error **errp);

/* From now on the server's DMA addresses @as; before that it fails. */
void vfio_user_device_set_memory(VFIOUserDevice *udev, AddressSpace *as);

/* Let the connection go; accesses from now on read all-ones. BQL. */
void vfio_user_device_close(VFIOUserDevice *udev);

/* Any thread */
VFIOUserDevice *vfio_user_device_ref(VFIOUserDevice *udev);

/* Any thread; of one that was plugged the last one is let go of with the BQL. */
void vfio_user_device_unref(VFIOUserDevice *udev);

static inline VFIOUserLink vfio_user_device_link(const VFIOUserDevice *udev)
{
    return qatomic_load_acquire(&udev->link);
}

/**
 * vfio_user_device_settle: whether the server has handled what was sent
 *
 * Waits. Returns false with @errp set when the connection is lost or the server
 * does not answer. While the device realizes.
 */
bool vfio_user_device_settle(VFIOUserDevice *udev, Error **errp);

/**
 * vfio_user_device_set_ready: realize is over
 *
 * From now on a failure is reported; so is one that nobody took note of while
 * the device realized.
 */
void vfio_user_device_set_ready(VFIOUserDevice *udev);

/**
 * vfio_user_device_adopt: go on with another server
 * @udev: its connection has failed
 * @fresh: was negotiated, is the same device, and nothing was done to it yet;
 *     only good for vfio_user_device_unref() afterwards
 *
 * Takes the connection and the descriptors of regions. Returns false when
 * @fresh is lost already. BQL.
 */
bool vfio_user_device_adopt(VFIOUserDevice *udev, VFIOUserDevice *fresh);

/**
 * vfio_user_device_remap: the server's file in place of what is mapped
 * @addr, @len: a mapping that the mmap operation made of the same range
 *
 * Returns 0 or -errno. BQL.
 */
int vfio_user_device_remap(VFIOUserDevice *udev, void *addr, size_t len,
                           int prot, off_t off);

/**
 * vfio_user_device_offline: give the server up at run time
 * @err: the reason, owned from now on
 *
 * Reported once; then the device reads all-ones and drops writes, unless it is
 * connected again. Any thread.
 */
void vfio_user_device_offline(VFIOUserDevice *udev, Error *err);

/**
 * vfio_user_device_broke_protocol: an answer that does not fit its request
 * @err: what is wrong with it; owned from now on
 *
 * Nothing from there can be trusted: the device is given up. Any thread.
 */
void vfio_user_device_broke_protocol(VFIOUserDevice *udev, Error *err);

/* Do the IOThread's work once, which may be waiting for the BQL. Never waits. BQL. */
void vfio_user_device_serve(VFIOUserDevice *udev);

/**
 * vfio_user_device_call: a command with a fixed layout both ways
 * @in_len: set to the reply's payload length; may be NULL
 *
 * Returns 0 or -errno as VFIOUserRequest.ret.
 */
int vfio_user_device_call(VFIOUserDevice *udev, uint16_t command,
                          void *out, size_t out_len, void *in, size_t in_room,
                          size_t *in_len);

/* What the server's region @index says; NULL when there is none. */
VFIOUserRegion *vfio_user_device_region(VFIOUserDevice *udev, unsigned index);

/**
 * vfio_user_device_read, vfio_user_device_write: access a region
 *
 * Split by the negotiated size; pieces are asked for ahead. Return 0 or -errno. Any
 * thread.
 */
int vfio_user_device_read(VFIOUserDevice *udev, unsigned index, uint64_t off,
                          void *buf, size_t len);
int vfio_user_device_write(VFIOUserDevice *udev, unsigned index, uint64_t off,
                           const void *buf, size_t len);

/* Is all of the range in the file, or is it none that has a size? */
bool vfio_user_device_fd_covers(int fd, uint64_t off, uint64_t len);

/* dma.c: the memory that a server's command names; see VFIOUserConnOps */
int vfio_user_dma_begin(VFIOUserDevice *udev, uint64_t addr, uint64_t count,
                        bool is_write, VFIOUserDMA *dma);
void vfio_user_dma_end(VFIOUserDevice *udev, VFIOUserDMA *dma, bool is_write,
                       uint64_t done);

/* Whether an IOMMU of the guest says what the device's DMA addresses mean. */
bool vfio_user_dma_behind_iommu(const VFIOUserDevice *udev);

/*
 * Wait until the commands are over that work on memory now. What began before
 * a window was taken away no longer writes to it then. BQL.
 */
void vfio_user_dma_drain(VFIOUserDevice *udev);

/*
 * load.c: config space and interrupts of a device that can be migrated; init
 * after hw/vfio has realized the device, exit before it is gone. BQL.
 */
void vfio_user_load_init(VFIODevice *vbasedev);
void vfio_user_load_exit(VFIODevice *vbasedev);

/* Registers that vfio_user_load_list_config() finds at most. */
#define VFIO_USER_MAX_CONFIG_WRITES     18

/* What the guest has written to a register of config space */
typedef struct VFIOUserConfigWrite {
    uint16_t reg;
    uint8_t len;
    uint8_t data[4];
} VFIOUserConfigWrite;

/**
 * vfio_user_load_list_config: registers that the client owns
 * @list: room for VFIO_USER_MAX_CONFIG_WRITES
 *
 * For a server that has not seen the guest's writes, the command register last.
 * Returns how many. BQL.
 */
unsigned vfio_user_load_list_config(VFIODevice *vbasedev,
                                    VFIOUserConfigWrite *list);

/* Write them. Waits; what the server says to it is its own. Any thread. */
void vfio_user_load_write_list(VFIOUserDevice *udev,
                               const VFIOUserConfigWrite *list, unsigned nr);

/* Fire each vector in use once; returns how many. BQL. */
unsigned vfio_user_load_kick(VFIOPCIDevice *vdev);

/* device.c: what the connections call back */
extern const VFIOUserConnOps vfio_user_device_conn_ops;
extern const VFIOUserConnOps vfio_user_device_twin_ops;

/* device-ops.c: the operations table that hw/vfio calls */
extern const VFIODeviceFileOps vfio_user_device_file_ops;

/* pci.c: the device of a VFIODevice that has this table */
VFIOUserDevice *vfio_user_device_of(VFIODevice *vbasedev);

#endif /* HW_VFIO_USER_DEVICE_H */
