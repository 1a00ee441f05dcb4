/*
 * vfio-user: memory of other vfio-user devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_PEER_H
#define HW_VFIO_USER_PEER_H

#include "hw/vfio-user/compat.h"
#include "device.h"

/**
 * vfio_user_peer_find: the file behind a mapped area of another device
 * @udev: who wants to do DMA there
 * @mr, @off: a place in guest memory that belongs to a device
 * @fd: set to the other server's descriptor, which stays its own
 * @fd_off: set to the place in it
 *
 * Returns false where there is none for @udev: it does not take part, or the
 * place is not in a mapped area of another vfio-user device. BQL.
 */
bool vfio_user_peer_find(const VFIOUserDevice *udev, MemoryRegion *mr,
                         ram_addr_t off, int *fd, uint64_t *fd_off);

#endif /* HW_VFIO_USER_PEER_H */
