/*
 * What differs between the versions of QEMU that this is built in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The code is written for QEMU 10.0 and finds here what later ones call
 * otherwise. Where a function of hw/vfio's class got another argument, there is
 * an adapter in a file that only that version compiles.
 */

#ifndef HW_VFIO_USER_COMPAT_H
#define HW_VFIO_USER_COMPAT_H

/* Whether this QEMU is of that version or later. */
#define VFIO_USER_QEMU(major, minor)                                        \
    (QEMU_VERSION_MAJOR > (major) ||                                        \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#include "system/runstate.h"

#if VFIO_USER_QEMU(10, 2)

#include "system/address-spaces.h"
#include "system/memory.h"
#include "system/physmem.h"
#include "system/ramblock.h"
#include "hw/vfio/vfio-container.h"
#include "hw/vfio/vfio-device.h"
#include "hw/vfio/vfio-helpers.h"
#include "hw/vfio/vfio-listener.h"
#include "hw/vfio/vfio-migration-internal.h"

typedef VFIOContainer VFIOContainerBase;
typedef const void VFIOUserClassData;

#define VFIO_PCI VFIO_PCI_DEVICE
#define cpu_physical_memory_set_dirty_lebitmap                              \
    physical_memory_set_dirty_lebitmap
#define cpu_physical_memory_set_dirty_range physical_memory_set_dirty_range

static inline VMChangeStateEntry *
vfio_user_compat_add_vm_state(DeviceState *dev, VMChangeStateHandler *cb,
                              void *opaque)
{
    return qdev_add_vm_change_state_handler(dev, cb, NULL, opaque);
}

#define vfio_user_compat_prepare vfio_device_prepare
#define vfio_user_compat_unprepare vfio_device_unprepare

/* VFIOIOMMUClass.dma_map and .dma_unmap: compat-10.2.c */
int vfio_user_compat_dma_map(const VFIOContainerBase *base, hwaddr iova,
                             uint64_t size, void *vaddr, bool readonly,
                             MemoryRegion *mr);
int vfio_user_compat_dma_unmap(const VFIOContainerBase *base, hwaddr iova,
                               uint64_t size, IOMMUTLBEntry *iotlb, bool all);

#else

#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "hw/vfio/vfio-common.h"
#include "hw/vfio/vfio-container-base.h"
/* Marking pages dirty takes knowing their size, which a target has. */
#ifdef COMPILING_PER_TARGET
#include "exec/ram_addr.h"
#endif

typedef void VFIOUserClassData;

static inline VMChangeStateEntry *
vfio_user_compat_add_vm_state(DeviceState *dev, VMChangeStateHandler *cb,
                              void *opaque)
{
    return qdev_add_vm_change_state_handler(dev, cb, opaque);
}

/* A device and its container come to know each other. */
static inline void vfio_user_compat_prepare(VFIODevice *vbasedev,
                                            VFIOContainerBase *bcontainer,
                                            struct vfio_device_info *info)
{
    vbasedev->flags = info->flags;
    vbasedev->num_regions = info->num_regions;
    vbasedev->num_irqs = info->num_irqs;
    vbasedev->reset_works = info->flags & VFIO_DEVICE_FLAGS_RESET;
    vbasedev->bcontainer = bcontainer;
    QLIST_INSERT_HEAD(&bcontainer->device_list, vbasedev, container_next);
    QLIST_INSERT_HEAD(&vfio_device_list, vbasedev, global_next);
}

static inline void vfio_user_compat_unprepare(VFIODevice *vbasedev)
{
    QLIST_REMOVE(vbasedev, global_next);
    QLIST_REMOVE(vbasedev, container_next);
    vbasedev->bcontainer = NULL;
}

#define vfio_user_compat_dma_map vfio_user_container_dma_map
#define vfio_user_compat_dma_unmap vfio_user_container_dma_unmap

#endif

#endif /* HW_VFIO_USER_COMPAT_H */
