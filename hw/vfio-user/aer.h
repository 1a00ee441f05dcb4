/*
 * vfio-user: errors of the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_AER_H
#define HW_VFIO_USER_AER_H

#include "hw/vfio/pci.h"
#include "ratelimit.h"

/**
 * VFIOUserAER: what ERR leads to. Embedded in the device; BQL.
 * @vdev: while it is realized
 * @policy: VFIOUserOnError, for an error that the guest cannot be told
 * @busy: the server is being asked what it was
 * @again: ERR came meanwhile
 * @said: lines about errors, of which the server decides how many there are
 */
typedef struct VFIOUserAER {
    VFIOPCIDevice *vdev;
    int policy;
    bool busy;
    bool again;
    VFIOUserLimit said;
} VFIOUserAER;

/* After hw/vfio has realized the device: ERR is ours from now on. BQL. */
void vfio_user_aer_init(VFIOUserAER *aer, VFIOPCIDevice *vdev);

/* Before hw/vfio's exit, which gives ERR back. BQL. */
void vfio_user_aer_exit(VFIOUserAER *aer);

#endif /* HW_VFIO_USER_AER_H */
