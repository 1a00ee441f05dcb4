/*
 * vfio-user: what the files of the operations table share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_DEVICE_INT_H
#define HW_VFIO_USER_DEVICE_INT_H

#include "device.h"

/*
 * Return a result as a system call does: what is not an error stays, -errno
 * becomes -1 with errno set.
 */
static inline int vfio_user_device_errno(int ret)
{
    if (ret >= 0) {
        return ret;
    }
    errno = -ret;
    return -1;
}

/* device-access.c */

/**
 * vfio_user_device_range: what an access of hw/vfio is to
 * @off: in the device file, VFIO_FILE_OFFSET() of the region included
 * @len: in bytes
 * @flag: VFIO_USER_REGION_*: what the region must allow. Config space, of which
 *     servers do not say it, allows everything
 *
 * Returns the region, or NULL with errno set: EINVAL when not all of the range
 * is in one, EPERM when it does not allow that. Any thread.
 */
VFIOUserRegion *vfio_user_device_range(VFIOUserDevice *udev, off_t off,
                                       size_t len, uint32_t flag);

/**
 * vfio_user_device_pread, vfio_user_device_pwrite: access a region
 *
 * VFIODeviceFileOps.pread and .pwrite, on whose rules see there. A vCPU waits
 * without the BQL, see bql.c. Once the device is ready they do not fail: a read
 * without an answer is all-ones.
 */
ssize_t vfio_user_device_pread(VFIODevice *vbasedev, void *buf, size_t len,
                               off_t off);
ssize_t vfio_user_device_pwrite(VFIODevice *vbasedev, const void *buf,
                                size_t len, off_t off);

#endif /* HW_VFIO_USER_DEVICE_INT_H */
