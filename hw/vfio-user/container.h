/*
 * vfio-user: the DMA windows of one device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CONTAINER_H
#define HW_VFIO_USER_CONTAINER_H

#include "qemu/interval-tree.h"
#include "hw/vfio-user/compat.h"
#include "device.h"

#ifndef TYPE_VFIO_IOMMU_USER
#define TYPE_VFIO_IOMMU_USER TYPE_VFIO_IOMMU "-user"
#endif
OBJECT_DECLARE_SIMPLE_TYPE(VFIOUserContainer, VFIO_IOMMU_USER)

typedef struct VFIOUserReport VFIOUserReport;
typedef struct VFIOUserLogStart VFIOUserLogStart;

/**
 * VFIOUserEntry: what takes a place in the server's table of windows
 * @refs: the container's, and one for each message about it; atomic
 * @refused: vfio_user_conn_life() of the server that refused to map it; atomic
 * @node: where, in IOVAs
 * @window: which it is; NULL: addresses at which the server asks by message,
 *     see iommu.c
 * @listed: in VFIOUserContainer.entries
 * @tried: the server has refused the window before, for want of room
 * @nr_freed: VFIOUserContainer's when it was sent
 * @next: in VFIOUserContainer.stale
 */
typedef struct VFIOUserEntry {
    int refs;
    unsigned refused;
    IntervalTreeNode node;
    struct VFIOUserWindow *window;
    bool listed;
    bool tried;
    unsigned nr_freed;
    QTAILQ_ENTRY(VFIOUserEntry) next;
} VFIOUserEntry;

/**
 * VFIOUserUntold: why the server was not told of a window
 * @VFIO_USER_UNTOLD_RAM: not yet, or its table is full
 * @VFIO_USER_UNTOLD_FULL: it refused the window, as it had no room
 * @VFIO_USER_UNTOLD_DEVICE: as RAM, of another device's memory
 *
 * In the order in which they are told.
 */
typedef enum VFIOUserUntold {
    VFIO_USER_UNTOLD_RAM,
    VFIO_USER_UNTOLD_FULL,
    VFIO_USER_UNTOLD_DEVICE,
    VFIO_USER_NR_UNTOLD,
} VFIOUserUntold;

/**
 * VFIOUserWindow: a piece of guest memory that the device may access
 * @node: where, in IOVAs
 * @vaddr: its memory, which stays as long as the window
 * @flags: VFIO_USER_DMA_*
 * @mapped: the server writes to it behind our back, through its descriptor
 * @has_fd: the server got its descriptor
 * @ram_addr: of its first byte, where @mapped
 * @report: a question for its dirty pages on its way; see dirty.c
 * @reported: the round of the last report that was taken
 * @logged: DMA_LOGGING_START named it
 * @device: another device's memory
 * @entry: the server's, for it alone; NULL: it has none
 * @is_untold: it is in VFIOUserContainer.untold[@untold], as @next
 */
typedef struct VFIOUserWindow {
    IntervalTreeNode node;
    void *vaddr;
    uint32_t flags;
    bool mapped;
    bool has_fd;
    ram_addr_t ram_addr;
    VFIOUserReport *report;
    uint64_t reported;
    bool logged;
    bool device;
    VFIOUserEntry *entry;
    bool is_untold;
    VFIOUserUntold untold;
    QTAILQ_ENTRY(VFIOUserWindow) next;
} VFIOUserWindow;

/**
 * VFIOUserWindowSum: windows of one kind
 * @nr: how many
 * @bytes: in all of them
 */
typedef struct VFIOUserWindowSum {
    uint64_t nr;
    uint64_t bytes;
} VFIOUserWindowSum;

static inline uint64_t vfio_user_window_size(const VFIOUserWindow *w)
{
    return w->node.last - w->node.start + 1;
}

/* Most ranges that DMA_LOGGING_START names: what the kernel guarantees, too. */
#define VFIO_USER_LOG_MAX_RANGES    256
/* Reports at the server at once, and bytes of bitmap in all of them. */
#define VFIO_USER_LOG_MAX_REPORTS   64
#define VFIO_USER_LOG_MAX_BYTES     (16u * 1024 * 1024)

/**
 * VFIOUserLog: dirty page logging of one device; under the BQL
 * @on: the server logs
 * @page_size: in the pages that it answered
 * @start: it has not yet answered
 * @ranges, @nr_ranges: what START named
 * @round: counts the collections
 * @turn: the IOVA from which on windows are asked about next
 * @reports: on their way, in the order in which they were asked for
 * @nr_reports, @report_bytes: how many, and bytes of bitmap in them
 * @warned: that a report failed was said
 */
typedef struct VFIOUserLog {
    bool on;
    uint64_t page_size;
    VFIOUserLogStart *start;
    struct vfio_user_dma_range ranges[VFIO_USER_LOG_MAX_RANGES];
    unsigned nr_ranges;
    uint64_t round;
    uint64_t turn;
    QTAILQ_HEAD(, VFIOUserReport) reports;
    unsigned nr_reports;
    size_t report_bytes;
    bool warned;
} VFIOUserLog;

/**
 * VFIOUserContainer: where one device's DMA can reach
 *
 * Not shared between devices: each server has its own windows, limits and
 * connection. All fields under the BQL.
 *
 * @udev: holds a reference
 * @space: its own, in no list. hw/vfio's shared ones hold containers of the
 *     kernel's, which it goes through by a cast; and the last to leave takes
 *     back a reset handler, which must not happen while a reset unplugs us.
 * @windows: VFIOUserWindow by IOVA: what the guest lets the device access.
 *     Changed under udev->dma_lock, too
 * @entries: VFIOUserEntry by IOVA: what the server has, or will once it handles
 *     what was sent. They do not overlap
 * @nr_by_message: those without a window
 * @untold: windows that the server is to be told of; see container-sync.c
 * @untold_sum: all of these
 * @stale, @nr_stale: entries that the server refused to give up
 * @full: the server had no room for a window, and none has become free since; or
 *     one of those that it refused is told again
 * @nr_freed: entries that were given back
 * @refuses_stopped: the server refuses windows while the device is stopped
 * @in_doubt: messages to a stopped device whose outcome is not known
 * @nr_said: how many untold windows were reported last
 * @said: lines about that
 * @warned_full, @warned_refused: that not all fits, or was accepted, was said
 * @max_window: largest window, in bytes, so that a report of it fits
 * @replayed: a server that came back has been told of the windows below this
 * @in_transaction: between begin and commit of the memory listener
 * @told_outside: of guest RAM, from outside of any access of the guest, in this
 *     transaction
 * @nobody_waits: for the messages that are sent now
 * @unmapped: behind an IOMMU, since replies were collected last
 * @pending: requests whose replies commit collects
 */
struct VFIOUserContainer {
    VFIOContainerBase bcontainer;
    VFIOUserDevice *udev;
    VFIOAddressSpace space;
    IntervalTreeRoot windows;
    unsigned nr_windows;
    IntervalTreeRoot entries;
    unsigned nr_entries;
    unsigned nr_by_message;
    QTAILQ_HEAD(, VFIOUserWindow) untold[VFIO_USER_NR_UNTOLD];
    VFIOUserWindowSum untold_sum;
    QTAILQ_HEAD(, VFIOUserEntry) stale;
    unsigned nr_stale;
    bool full;
    unsigned nr_freed;
    bool refuses_stopped;
    unsigned in_doubt;
    uint64_t nr_said;
    VFIOUserLimit said;
    bool warned_full;
    bool warned_refused;
    uint64_t max_window;
    VFIOUserLog log;
    uint64_t replayed;
    bool in_transaction;
    bool told_outside;
    bool nobody_waits;
    bool unmapped;
    QSIMPLEQ_HEAD(, VFIOUserWindowMsg) pending;
};

/**
 * vfio_user_container_replay: tell a server that came back of some windows
 * @max: of how many
 *
 * Begins with those above @replayed. Returns true when there are no more. Sends
 * and does not wait, where the socket has room. While VFIO_USER_LINK_REPLAY; BQL.
 */
bool vfio_user_container_replay(VFIOUserContainer *c, unsigned max);

/* Whether the server is there and learns of changes at @iova. BQL. */
bool vfio_user_container_is_told(VFIOUserContainer *c, uint64_t iova);

/*
 * Tell the server of an entry. Without an fd (-1) it asks by message. The reply is
 * waited for later, see vfio_user_container_finish(). BQL.
 */
void vfio_user_container_send_map(VFIOUserContainer *c, VFIOUserEntry *e,
                                  uint32_t flags, int fd, uint64_t offset);

/* The server will send commands of its own. */
void vfio_user_container_by_message(VFIOUserContainer *c);

/*
 * Takes a place in the server's table, or gives it back; the server is told by
 * the caller. @w is NULL for addresses that go by message.
 */
VFIOUserEntry *vfio_user_container_add_entry(VFIOUserContainer *c,
                                             uint64_t start, uint64_t last,
                                             VFIOUserWindow *w);
void vfio_user_container_del_entry(VFIOUserContainer *c, VFIOUserEntry *e);

/* container-sync.c */

/* Give an entry back, and tell the server if it knows of it. BQL. */
void vfio_user_container_untell(VFIOUserContainer *c, VFIOUserEntry *e);

/**
 * vfio_user_container_look: tell the server what it can be told by now
 *
 * The device runs, or the server has answered. Does not wait. Any thread.
 */
void vfio_user_container_look(VFIOUserDevice *udev);

/**
 * vfio_user_container_forget: another server was told nothing
 *
 * What it has no room for loses its place. Before it is told what there is. BQL.
 */
void vfio_user_container_forget(VFIOUserContainer *c);

/**
 * vfio_user_container_sum: what the server has in its table of windows
 * @with_fd, @by_message: with and without a descriptor
 *
 * Or will have, when it is back; the others are in VFIOUserContainer.untold_sum. BQL.
 */
void vfio_user_container_sum(VFIOUserContainer *c, VFIOUserWindowSum *with_fd,
                             VFIOUserWindowSum *by_message);

/* The windows in the order of their addresses; NULL: there is none. */
VFIOUserWindow *vfio_user_container_first(VFIOUserContainer *c);
VFIOUserWindow *vfio_user_container_next(VFIOUserWindow *w);

/**
 * vfio_user_dirty_max_window: largest window that can be reported on
 *
 * In bytes, a power of two; UINT64_MAX where nothing is ever reported.
 */
uint64_t vfio_user_dirty_max_window(VFIOUserDevice *udev);

/* Whether every page that the server writes can be told from the others. */
bool vfio_user_dirty_is_known(VFIOUserContainer *c, const VFIODevice *vbasedev);

/* VFIOIOMMUClass.set_dirty_page_tracking: 0 or -errno with @errp set. */
int vfio_user_dirty_set_tracking(const VFIOContainerBase *base, bool start,
                                 Error **errp);

/**
 * vfio_user_dirty_sync: MemoryListener.log_sync_global
 * @last_stage: everything stands still, and what is not found now is lost
 */
void vfio_user_dirty_sync(MemoryListener *listener, bool last_stage);

/* The server has lost what it logged, and does not log any more. */
void vfio_user_dirty_lost(VFIOUserContainer *c);

/* A server that came back knows all windows: let it log if that is needed. */
void vfio_user_dirty_returned(VFIOUserContainer *c);

/* The window goes away: what is not known of it counts as dirty. */
void vfio_user_dirty_forget(VFIOUserContainer *c, VFIOUserWindow *w);

/* iommu.c: behind an IOMMU of the guest. BQL. */

/* Whether a further window may have a place of its own. */
bool vfio_user_iommu_room(const VFIOUserContainer *c);

/* It has none: let the server ask by message for all of it. */
void vfio_user_iommu_cover(VFIOUserContainer *c, uint64_t start, uint64_t last);

/* Windows there are gone: give back what is of use to no other. */
void vfio_user_iommu_uncover(VFIOUserContainer *c, uint64_t start,
                             uint64_t last);

/**
 * vfio_user_iommu_refused: the server refused to map [@start, @last]
 * @errp: set to why
 *
 * Returns true, with @errp free, if message will do, which is on its way.
 */
bool vfio_user_iommu_refused(VFIOUserContainer *c, uint64_t start,
                             uint64_t last, Error **errp);

#endif /* HW_VFIO_USER_CONTAINER_H */
