/*
 * vfio-user: is this the configuration space of the same device?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CONFIG_SAME_H
#define HW_VFIO_USER_CONFIG_SAME_H

/**
 * vfio_user_config_same: would a guest take one device for the other?
 * @was, @is: two configuration spaces that vfio_user_config_check() passed
 * @size: of both, 256 or 4096 bytes
 *
 * Compares what a guest relies on once it has found a device: identity,
 * interrupt pin, kinds of BARs, and which capabilities there are, where and
 * with which fixed properties. Not what the guest writes, nor status. Any
 * thread, no side effects. Returns false with @errp set to what differs.
 */
bool vfio_user_config_same(const uint8_t *was, const uint8_t *is, size_t size,
                           Error **errp);

/**
 * vfio_user_config_kept: does a device still have what the guest has set up?
 * @guest: configuration space as the guest sees it
 * @is: the device's own
 * @bars: those that the device has, bit i for BAR i
 *
 * Compares the decode and bus master bits of the command register and the
 * addresses of BARs: a device that was reset has lost them. One that the guest
 * has not enabled has nothing to lose.
 */
bool vfio_user_config_kept(const uint8_t *guest, const uint8_t *is,
                           unsigned bars);

#endif /* HW_VFIO_USER_CONFIG_SAME_H */
