/*
 * vfio-user: the DMA windows of one device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CONTAINER_H
#define HW_VFIO_USER_CONTAINER_H

#include "qemu/interval-tree.h"
#include "hw/vfio/vfio-container-base.h"
#include "device.h"

#define TYPE_VFIO_IOMMU_USER TYPE_VFIO_IOMMU "-user"
OBJECT_DECLARE_SIMPLE_TYPE(VFIOUserContainer, VFIO_IOMMU_USER)

typedef struct VFIOUserReport VFIOUserReport;
typedef struct VFIOUserLogStart VFIOUserLogStart;

/**
 * VFIOUserWindow: a piece of guest memory that the server was told of
 * @node: where, in IOVAs
 * @vaddr: its memory, which stays as long as the window
 * @flags: VFIO_USER_DMA_*
 * @mapped: the server writes to it behind our back, through its descriptor
 * @ram_addr: of its first byte, where @mapped
 * @report: a question for its dirty pages on its way; see dirty.c
 */
typedef struct VFIOUserWindow {
    IntervalTreeNode node;
    void *vaddr;
    uint32_t flags;
    bool mapped;
    ram_addr_t ram_addr;
    VFIOUserReport *report;
} VFIOUserWindow;

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
 * @round: counts the collections
 * @nr_reports, @report_bytes: on their way
 * @warned: that a report failed was said
 */
typedef struct VFIOUserLog {
    bool on;
    uint64_t page_size;
    VFIOUserLogStart *start;
    uint64_t round;
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
 * @windows: VFIOUserWindow by IOVA: what the server has, or will once it
 *     handles what was sent
 * @max_window: largest window, in bytes, so that a report of it fits
 * @replayed: a server that came back has been told of the windows below this
 * @in_transaction: between begin and commit of the memory listener
 * @pending: requests whose replies commit collects
 */
struct VFIOUserContainer {
    VFIOContainerBase bcontainer;
    VFIOUserDevice *udev;
    VFIOAddressSpace space;
    IntervalTreeRoot windows;
    unsigned nr_windows;
    uint64_t max_window;
    VFIOUserLog log;
    uint64_t replayed;
    bool in_transaction;
    QSIMPLEQ_HEAD(, VFIOUserWindowMsg) pending;
};

/**
 * vfio_user_container_replay: tell a server that came back of some windows
 * @max: of how many
 *
 * Begins with those above @replayed. Returns true when there are no more. Sends
 * and does not wait, where the socket has room; a refusal takes the device
 * offline. While VFIO_USER_LINK_REPLAY; BQL.
 */
bool vfio_user_container_replay(VFIOUserContainer *c, unsigned max);

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

/* The window goes away: what is not known of it counts as dirty. */
void vfio_user_dirty_forget(VFIOUserContainer *c, VFIOUserWindow *w);

#endif /* HW_VFIO_USER_CONTAINER_H */
