/*
 * vfio-user: what the process may have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A vector that the guest uses takes an eventfd, with KVM a second one. They
 * are made when the guest's driver enables the vector, and nothing can fail
 * there: hw/vfio reports that it got no eventfd and goes on with descriptor 0,
 * whatever that is. So a device whose vectors cannot all have theirs is
 * refused while it realizes, where somebody is told and can do something.
 *
 * Devices that are there already may use more of their vectors later, so all
 * of those count, too.
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qapi/error.h"
#include "hw/pci/pci_regs.h"
#include "hw/vfio/pci.h"
#include "system/kvm.h"
#include "limits.h"

/* For all that the VM opens later: monitors, disks, guest memory. */
#define VFIO_USER_LIMITS_SPARE  64

static unsigned vfio_user_limits_per_vector(void)
{
    return kvm_msi_via_irqfd_enabled() ? 2 : 1;
}

/* Of a capability list that was checked, so it ends. */
static unsigned vfio_user_limits_vectors(const uint8_t *config)
{
    unsigned most = 0;
    uint8_t pos;

    if (!(config[PCI_STATUS] & PCI_STATUS_CAP_LIST)) {
        return 0;
    }
    for (pos = config[PCI_CAPABILITY_LIST] & ~3; pos;
         pos = config[pos + PCI_CAP_LIST_NEXT] & ~3) {
        uint16_t flags = pci_get_word(config + pos + PCI_CAP_FLAGS);

        if (config[pos] == PCI_CAP_ID_MSIX) {
            most = MAX(most, (flags & PCI_MSIX_FLAGS_QSIZE) + 1);
        } else if (config[pos] == PCI_CAP_ID_MSI) {
            most = MAX(most, 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1));
        }
    }
    return most;
}

/* What the other vfio-user devices may use besides what they use now. */
static unsigned vfio_user_limits_promised(void)
{
    unsigned nr = 0;
    VFIODevice *vbasedev;

    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        if (vbasedev->file_ops == &vfio_user_device_file_ops) {
            VFIOPCIDevice *vdev = container_of(vbasedev, VFIOPCIDevice,
                                               vbasedev);
            unsigned all = vfio_user_limits_vectors(
                vfio_user_device_of(vbasedev)->config);

            nr += all - MIN(all, vdev->nr_vectors);
        }
    }
    return nr * vfio_user_limits_per_vector();
}

/* Without /proc there is nothing but a guess; the check is for users' sake. */
static unsigned vfio_user_limits_open(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned nr = 0;

    if (!dir) {
        return 0;
    }
    while (g_dir_read_name(dir)) {
        nr++;
    }
    g_dir_close(dir);
    return nr;
}

bool vfio_user_limits_check_fds(VFIOUserDevice *udev, Error **errp)
{
    ERRP_GUARD();
    unsigned vectors = vfio_user_limits_vectors(udev->config);
    uint64_t need = vectors * vfio_user_limits_per_vector();
    unsigned in_use = vfio_user_limits_open();
    unsigned promised = vfio_user_limits_promised();
    uint64_t all = need + in_use + promised + VFIO_USER_LIMITS_SPARE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) ||
        limit.rlim_cur == RLIM_INFINITY || all <= limit.rlim_cur) {
        return true;
    }
    error_setg(errp, "the %u interrupt vectors of the device take %" PRIu64
               " descriptors, and this process may have %" PRIu64 " in all "
               "(RLIMIT_NOFILE): %u are open, %u are kept for the vectors of "
               "other devices", vectors, need, (uint64_t)limit.rlim_cur,
               in_use, promised);
    error_append_hint(errp, "Raise the limit: \"ulimit -n %" PRIu64 "\" before "
                      "QEMU starts, LimitNOFILE= in a systemd unit, max_files "
                      "in libvirt's qemu.conf.\n", pow2ceil(all));
    return false;
}
