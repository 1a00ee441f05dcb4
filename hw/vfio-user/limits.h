/*
 * vfio-user: what the process may have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_LIMITS_H
#define HW_VFIO_USER_LIMITS_H

#include "device.h"

/**
 * vfio_user_limits_check_fds: descriptors for every vector of the device?
 * @udev: negotiated, not yet realized
 *
 * Counts what is open now, the vectors of @udev, and those of the vfio-user
 * devices that are there already. Returns false with @errp set when all of
 * that is more than RLIMIT_NOFILE. BQL.
 */
bool vfio_user_limits_check_fds(VFIOUserDevice *udev, Error **errp);

#endif /* HW_VFIO_USER_LIMITS_H */
