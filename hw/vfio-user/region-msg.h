/*
 * vfio-user: one REGION_READ or REGION_WRITE
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_REGION_MSG_H
#define HW_VFIO_USER_REGION_MSG_H

#include "conn.h"

typedef struct VFIOUserDevice VFIOUserDevice;

/* A request with its payload both ways. It does not move while it is in use. */
typedef struct VFIOUserRegionMsg {
    VFIOUserRequest req;
    struct vfio_user_region_rw out, in;
    struct iovec out_iov[2], in_iov[2];
} VFIOUserRegionMsg;

/**
 * vfio_user_region_msg_init: prepare a request (REGION_READ, REGION_WRITE)
 * @buf, @len: what is written, or where what is read goes; at most
 *     max_data_xfer_size bytes, the caller's until there is an outcome
 */
void vfio_user_region_msg_init(VFIOUserRegionMsg *msg, bool is_write,
                               unsigned region, uint64_t off, void *buf,
                               size_t len);

/* A request's outcome, its reply checked: 0 or -errno. Any thread. */
int vfio_user_region_msg_result(VFIOUserDevice *udev, VFIOUserRegionMsg *msg);

#endif /* HW_VFIO_USER_REGION_MSG_H */
