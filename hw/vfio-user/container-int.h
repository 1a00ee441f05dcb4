/*
 * vfio-user: what the files of the container share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All of it is called with the BQL held.
 */

#ifndef HW_VFIO_USER_CONTAINER_INT_H
#define HW_VFIO_USER_CONTAINER_INT_H

#include "container.h"

/**
 * VFIOUserBacking: what is behind a piece of our memory
 * @fd, @offset: the file, when the memory is shared; else -1
 * @ram_addr: where it is in guest RAM, unless @device
 * @device: a device's, not RAM
 * @backend: guest RAM proper, where a descriptor is to be expected
 */
typedef struct VFIOUserBacking {
    int fd;
    uint64_t offset;
    ram_addr_t ram_addr;
    bool device;
    bool backend;
} VFIOUserBacking;

/* container-window.c */

/**
 * vfio_user_container_backing: what the server may have of a piece of memory
 * @vaddr: where we have it; the piece is all in one block of RAM
 * @readonly: the device may only read it
 * @b: filled in. Its @fd is the memory's own, good as long as that stays mapped
 *
 * Prepares the connection for commands of the server where there is no
 * descriptor.
 */
void vfio_user_container_backing(VFIOUserContainer *c, void *vaddr,
                                 bool readonly, VFIOUserBacking *b);

/**
 * vfio_user_container_add: a new window
 * @iova, @size: in bytes; overlaps with no other window
 * @flags: VFIO_USER_DMA_*
 * @b, @vaddr: the memory of which it is a piece, and where we have that
 * @at: where in it the window begins, in bytes
 *
 * It has no entry yet, and is untold. Owned by the container.
 */
VFIOUserWindow *vfio_user_container_add(VFIOUserContainer *c, uint64_t iova,
                                        uint64_t size, uint32_t flags,
                                        const VFIOUserBacking *b, void *vaddr,
                                        uint64_t at);

/* Take a window away, with its entry; the server is told by the caller. */
void vfio_user_container_del(VFIOUserContainer *c, VFIOUserWindow *w);

/* Wants or no longer wants the server to be told of it. */
void vfio_user_container_put_untold(VFIOUserContainer *c, VFIOUserWindow *w,
                                    bool full);
void vfio_user_container_take_untold(VFIOUserContainer *c, VFIOUserWindow *w);

/* Any thread */
void vfio_user_container_unref_entry(VFIOUserEntry *e);

/* container-msg.c */

/**
 * VFIOUserRefusal: what the answer to such a message means
 * @VFIO_USER_REFUSAL_NONE: that it was done, or that the device is lost
 * @VFIO_USER_REFUSAL_GONE: nothing: what is to be unmapped was never mapped
 * @VFIO_USER_REFUSAL_STOPPED: say it again when the device runs
 * @VFIO_USER_REFUSAL_FULL: say it again when there is room
 */
typedef enum VFIOUserRefusal {
    VFIO_USER_REFUSAL_NONE,
    VFIO_USER_REFUSAL_GONE,
    VFIO_USER_REFUSAL_STOPPED,
    VFIO_USER_REFUSAL_FULL,
} VFIOUserRefusal;

/* As vfio_user_container_send_map(). */
void vfio_user_container_send_unmap(VFIOUserContainer *c, VFIOUserEntry *e);

/* Handle the outcomes of messages that nobody waits for; not if @c is NULL. */
void vfio_user_container_take_outcomes(VFIOUserDevice *udev,
                                       VFIOUserContainer *c);

/**
 * vfio_user_container_finish: wait until what was sent has an outcome
 *
 * Of memory that was taken away nobody makes use any more then. Returns what
 * hw/vfio is to be told: 0, or while the device realizes -errno, with the
 * reason in the container's @error. Later a refusal takes the device offline.
 */
int vfio_user_container_finish(VFIOUserContainer *c);

/* container-sync.c */

/**
 * vfio_user_container_sync: tell the server what it can be told
 *
 * Windows that are untold, as far as there is room; before them what is stale.
 */
void vfio_user_container_sync(VFIOUserContainer *c);

/**
 * vfio_user_container_refused: the server was told of an entry, and refused
 * @map: of DMA_MAP
 */
void vfio_user_container_refused(VFIOUserContainer *c, VFIOUserEntry *e,
                                 bool map, VFIOUserRefusal refusal);

/* vfio_user_container_look() from the main loop. Any thread. */
void vfio_user_container_look_soon(VFIOUserDevice *udev);

/* container.c */

/*
 * VFIOIOMMUClass.dma_map and .dma_unmap, as QEMU 10.0 has them; see
 * compat-10.2.c. Sizes are in bytes. Return 0 or -errno.
 */
int vfio_user_container_dma_map(const VFIOContainerBase *base, hwaddr iova,
                                ram_addr_t size, void *vaddr, bool readonly);
int vfio_user_container_dma_unmap(const VFIOContainerBase *base, hwaddr iova,
                                  ram_addr_t size, IOMMUTLBEntry *iotlb);

#endif /* HW_VFIO_USER_CONTAINER_INT_H */
