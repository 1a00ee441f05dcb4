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

/* device-ops.c */

/**
 * vfio_user_device_vm_has_run: whether somebody notices how long a thing takes
 *
 * If so it has x-msg-timeout-ms in all. In a VM that starts, or whose state is being
 * loaded, each message has that. BQL.
 */
bool vfio_user_device_vm_has_run(void);

/* device-access.c */

/**
 * vfio_user_device_post: a posted write
 * @life, @timeout_ms: as in VFIOUserRequest
 *
 * Returns 0 or -errno, -ETIMEDOUT when there was no room for it. Any thread.
 */
int vfio_user_device_post(VFIOUserDevice *udev, unsigned region, uint64_t off,
                          const void *buf, size_t len, unsigned life,
                          unsigned timeout_ms);

/**
 * vfio_user_device_call_once: a command whose caller holds the BQL
 *
 * Waits for x-msg-timeout-ms, or for what is left of it in a reset, unless a server
 * that let such a wait expire has said nothing since. One that has lost this reply only answers a probe behind it, for which
 * it has half of the time. Returns 0 or -errno as VFIOUserRequest.ret. BQL.
 */
int vfio_user_device_call_once(VFIOUserDevice *udev, VFIOUserRequest *req);

/* Never waits. Up to 8 bytes; their order is that of the calls. BQL. */
void vfio_user_device_write_later(VFIOUserDevice *udev, unsigned region,
                                  uint64_t off, const void *buf, size_t len);

/* The outcome of question @nr, as VFIOUserRequest.ret. Any thread. */
typedef void VFIOUserProbed(VFIOUserDevice *udev, unsigned nr, int ret);

/* Ask the server for anything. Never waits. @probed may be NULL. */
void vfio_user_device_probe(VFIOUserDevice *udev, VFIOUserProbed *probed,
                            unsigned nr);

/**
 * vfio_user_device_begin_reset, _end_reset: all that is asked between them
 * @until: of what it is part of, or a time that has passed
 *
 * In a VM that has run it has x-msg-timeout-ms in all. BQL.
 */
void vfio_user_device_begin_reset(VFIOUserDevice *udev, int64_t until);
void vfio_user_device_end_reset(VFIOUserDevice *udev);

/* The server has not answered in time; ask it for anything. Never waits. */
void vfio_user_device_stuck(VFIOUserDevice *udev);

/* Whether writes to a region are posted. Any thread. */
bool vfio_user_device_is_posted(VFIOUserDevice *udev, unsigned region);

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
 * VFIODeviceFileOps.pread and .pwrite, on whose rules see there. Once the device is
 * ready they do not fail: a read without an answer is all-ones. So is one that the
 * guest's vCPU is to make again. Config space under the BQL.
 */
ssize_t vfio_user_device_pread(VFIODevice *vbasedev, void *buf, size_t len,
                               off_t off);
ssize_t vfio_user_device_pwrite(VFIODevice *vbasedev, const void *buf,
                                size_t len, off_t off);

/* guest-access.c */

/**
 * vfio_user_guest_access: an access that vfio_user_held_is_direct()
 *
 * Returns 0 or -errno; VFIO_USER_HELD_AGAIN when the vCPU is to make it again, and
 * what was read means nothing.
 */
int vfio_user_guest_access(VFIOUserDevice *udev, const VFIOUserAccess *a);

/**
 * vfio_user_guest_waits_for_link: whether the vCPU is to make it again
 *
 * For a write to config space, before anything was done of it: when there is no
 * server and the user wants to wait for one. Direct accesses only; BQL.
 */
bool vfio_user_guest_waits_for_link(VFIOUserDevice *udev,
                                    const VFIOUserAccess *a);

#endif /* HW_VFIO_USER_DEVICE_INT_H */
