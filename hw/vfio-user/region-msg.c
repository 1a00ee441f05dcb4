/*
 * vfio-user: one REGION_READ or REGION_WRITE
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "device.h"
#include "region-msg.h"

void vfio_user_region_msg_init(VFIOUserRegionMsg *msg, bool is_write,
                               unsigned region, uint64_t off, void *buf,
                               size_t len)
{
    msg->out = (struct vfio_user_region_rw) {
        .offset = off, .region = region, .count = len,
    };
    msg->out_iov[0] = (struct iovec) { &msg->out, sizeof(msg->out) };
    msg->out_iov[1] = (struct iovec) { buf, len };
    msg->in_iov[0] = (struct iovec) { &msg->in, sizeof(msg->in) };
    msg->in_iov[1] = (struct iovec) { buf, len };
    msg->req = (VFIOUserRequest) {
        .command = is_write ? VFIO_USER_REGION_WRITE : VFIO_USER_REGION_READ,
        .out = msg->out_iov, .nr_out = is_write ? 2 : 1,
        .in = msg->in_iov, .nr_in = is_write ? 1 : 2,
    };
}

int vfio_user_region_msg_result(VFIOUserDevice *udev, VFIOUserRegionMsg *msg)
{
    bool is_write = msg->req.command == VFIO_USER_REGION_WRITE;
    Error *err = NULL;

    if (!msg->req.ret &&
        !vfio_user_wire_check_region_rw(&msg->in, msg->req.in_len, &msg->out,
                                        is_write, &err)) {
        vfio_user_device_broke_protocol(udev, err);
        return -EPIPE;
    }
    return msg->req.ret;
}
