/*
 * vfio-user: may hw/vfio be shown this configuration space?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CONFIG_CHECK_H
#define HW_VFIO_USER_CONFIG_CHECK_H

/* Number of BARs of a PCI device. */
#define VFIO_USER_NR_BARS       6

/**
 * vfio_user_config_check: refuse what hw/vfio would follow to its ruin
 * @config: a copy of the device's configuration space
 * @size: 256 or 4096 bytes
 * @bar_size: size of each BAR's region, 0 where there is none
 *
 * Looks at the copy only, so hw/vfio must be given that copy, not what a
 * second look at the server would find. Any thread, no side effects. Returns
 * false with @errp set to what is wrong and where.
 */
bool vfio_user_config_check(const uint8_t *config, size_t size,
                            const uint64_t bar_size[VFIO_USER_NR_BARS],
                            Error **errp);

#endif /* HW_VFIO_USER_CONFIG_CHECK_H */
