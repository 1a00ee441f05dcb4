/*
 * vfio-user: fuzzing the payload of a VERSION reply
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Input: number of descriptors that came along, then the payload.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/caps.h"
#include "fuzz.h"

static void check_caps(const VFIOUserCaps *caps, size_t nr_fds)
{
    g_assert_cmpint(caps->major, ==, VFIO_USER_MAJOR);
    g_assert_cmpint(caps->minor, <=, VFIO_USER_MINOR);
    g_assert_cmpint(caps->max_msg_fds, <=, VFIO_USER_MAX_MSG_FDS);
    g_assert_cmpint(caps->max_data_xfer_size, >=, 8);
    g_assert_cmpint(caps->max_data_xfer_size, <=,
                    VFIO_USER_CAPS_MAX_DATA_XFER);
    g_assert_cmpint(caps->max_dma_maps, >=, 1);
    g_assert_cmpint(caps->max_dma_maps, <=, VFIO_USER_CAPS_MAX_DMA_MAPS);
    g_assert_cmpint(caps->pgsizes, !=, 0);
    if (caps->twin_socket) {
        g_assert_cmpint(caps->twin_fd_index, <, nr_fds);
    }
}

void fuzz_caps(FuzzInput *in)
{
    size_t nr_fds = fuzz_u8(in) % (VFIO_USER_MAX_MSG_FDS + 1);
    size_t len = VFIO_USER_CAPS_MAX_REPLY;
    g_autofree uint8_t *payload = fuzz_bytes(in, &len);
    VFIOUserCaps caps;
    Error *err = NULL;
    bool ok = vfio_user_caps_parse(payload, len, nr_fds, &caps, &err);

    fuzz_check_error(ok, err);
    if (ok) {
        check_caps(&caps, nr_fds);
    }
}
