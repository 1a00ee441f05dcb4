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
 * @in_transaction: between begin and commit of the memory listener
 * @pending: requests whose replies commit collects
 */
struct VFIOUserContainer {
    VFIOContainerBase bcontainer;
    VFIOUserDevice *udev;
    VFIOAddressSpace space;
    IntervalTreeRoot windows;
    unsigned nr_windows;
    bool in_transaction;
    QSIMPLEQ_HEAD(, VFIOUserWindowMsg) pending;
};

#endif /* HW_VFIO_USER_CONTAINER_H */
