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
 * It has no entry yet, and the server is not told. Owned by the container.
 */
VFIOUserWindow *vfio_user_container_add(VFIOUserContainer *c, uint64_t iova,
                                        uint64_t size, uint32_t flags,
                                        const VFIOUserBacking *b, void *vaddr,
                                        uint64_t at);

/* Take a window away, with its entry; the server is told by the caller. */
void vfio_user_container_del(VFIOUserContainer *c, VFIOUserWindow *w);

/* container-msg.c */

/**
 * vfio_user_container_finish: wait until what was sent has an outcome
 *
 * Of memory that was taken away nobody makes use any more then. Returns what
 * hw/vfio is to be told: 0, or while the device realizes -errno, with the
 * reason in the container's @error. Later a refusal takes the device offline.
 */
int vfio_user_container_finish(VFIOUserContainer *c);

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
