/*
 * vfio-user: what QEMU 10.2 asks of a container in other words
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Its VFIOIOMMUClass has functions with one more argument each. A window's
 * memory region need not be known: container-window.c looks up what is behind
 * an address anyway, for servers that come back.
 */

#include "qemu/osdep.h"
#include "container-int.h"

int vfio_user_compat_dma_map(const VFIOContainerBase *base, hwaddr iova,
                             uint64_t size, void *vaddr, bool readonly,
                             MemoryRegion *mr)
{
    return vfio_user_container_dma_map(base, iova, size, vaddr, readonly);
}

/* All of the address space has a size that no number says. */
int vfio_user_compat_dma_unmap(const VFIOContainerBase *base, hwaddr iova,
                               uint64_t size, IOMMUTLBEntry *iotlb, bool all)
{
    const uint64_t half = 1ULL << 63;
    int ret;

    if (!all) {
        return vfio_user_container_dma_unmap(base, iova, size, iotlb);
    }
    ret = vfio_user_container_dma_unmap(base, 0, half, iotlb);
    return vfio_user_container_dma_unmap(base, half, half, iotlb) ?: ret;
}
