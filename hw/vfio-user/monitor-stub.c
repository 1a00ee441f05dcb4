/*
 * vfio-user: the monitor's commands where there is no such device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vfio-user.h"

static void vfio_user_monitor_not_found(const char *id, Error **errp)
{
    if (id) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                  "There is no vfio-user device '%s'", id);
    }
}

VFIOUserInfoList *qmp_query_vfio_user(const char *id, Error **errp)
{
    vfio_user_monitor_not_found(id, errp);
    return NULL;
}

void qmp_x_vfio_user_stats_reset(const char *id, Error **errp)
{
    vfio_user_monitor_not_found(id, errp);
}
