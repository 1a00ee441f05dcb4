/*
 * vfio-user: mapped regions whose file is cut short
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_SIGBUS_H
#define HW_VFIO_USER_SIGBUS_H

#include "device.h"

/**
 * vfio_user_sigbus_add: survive accesses behind the end of a mapped file
 * @addr, @len: a mapping of a file that the server of @udev provided
 *
 * An access that the file does not back any more reads all-ones, and the device
 * is given up. BQL.
 */
void vfio_user_sigbus_add(VFIOUserDevice *udev, void *addr, size_t len);

/* No more for the mapping at @addr; call it before that is undone. BQL. */
void vfio_user_sigbus_forget(void *addr);

/* No more for @udev's mappings; call it before they are undone. BQL. */
void vfio_user_sigbus_remove(VFIOUserDevice *udev);

#endif /* HW_VFIO_USER_SIGBUS_H */
