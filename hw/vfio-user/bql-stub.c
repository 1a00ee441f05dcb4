/*
 * vfio-user: vCPUs that wait for a server, where there is no such device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/vcpu.h"

bool vfio_user_vcpu_is_held(void)
{
    return false;
}
