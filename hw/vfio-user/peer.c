/*
 * vfio-user: memory of other vfio-user devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A BAR can be the target of another device's DMA: a controller's memory
 * buffer, a network card's doorbell. What the server of the BAR lets QEMU map
 * is in a file, and with peer-dma=on another device's server gets that file as
 * it gets those of guest memory: for windows where the guest has put the BAR,
 * which come and go as it moves it.
 *
 * That is off unless asked for. The file is one server's and given to QEMU; the
 * other server could map all of it, beyond the BAR. And every BAR that moves
 * is a message to every device.
 *
 * Only files can be handed on. An area that is not mapped would have to be
 * accessed through QEMU, by the thread that reads the asking server's socket,
 * and would wait there for the other server: two that wait for each other
 * would never come back. So there is no window, and a message that names such
 * an address is refused (dma.c). The same goes for the memory of a device of
 * the kernel.
 *
 * When the other server goes away, hw/vfio's areas are taken out of guest
 * memory while it is waited for, and with them the windows.
 */

#include "qemu/osdep.h"
#include "hw/vfio/pci.h"
#include "peer.h"

/* The region's mapped area that is @mr; NULL: none. */
static const VFIOMmap *vfio_user_peer_area(const VFIORegion *region,
                                           const MemoryRegion *mr)
{
    for (unsigned i = 0; i < region->nr_mmaps; i++) {
        if (&region->mmaps[i].mem == mr) {
            return &region->mmaps[i];
        }
    }
    return NULL;
}

/* The vfio-user device that has @mr, among those that are plugged. */
static VFIODevice *vfio_user_peer_owner(const MemoryRegion *mr)
{
    Object *owner = memory_region_owner((MemoryRegion *)mr);
    VFIODevice *vbasedev;

    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        if (OBJECT(vbasedev->dev) == owner &&
            vbasedev->file_ops == &vfio_user_device_file_ops) {
            return vbasedev;
        }
    }
    return NULL;
}

bool vfio_user_peer_find(const VFIOUserDevice *udev, MemoryRegion *mr,
                         ram_addr_t off, int *fd, uint64_t *fd_off)
{
    VFIODevice *vbasedev = vfio_user_peer_owner(mr);
    VFIOPCIDevice *vdev;
    VFIOUserDevice *other;

    if (!udev->peer_dma || !udev->share_memory || !udev->caps.max_msg_fds ||
        !vbasedev) {
        return false;
    }
    other = vfio_user_device_of(vbasedev);
    if (other == udev) {
        return false;
    }
    vdev = container_of(vbasedev, VFIOPCIDevice, vbasedev);
    for (unsigned i = 0; i < ARRAY_SIZE(vdev->bars); i++) {
        const VFIOMmap *area = vfio_user_peer_area(&vdev->bars[i].region, mr);
        const VFIOUserRegion *region = vfio_user_device_region(other, i);

        if (area && region && region->fd >= 0) {
            *fd = region->fd;
            *fd_off = region->info.offset + area->offset + off;
            return true;
        }
    }
    return false;
}
