/*
 * vfio-user: what a server that came back must be told
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It knows the state of migration by now (vfio_user_migration_returned()).
 * Interrupts first, so that what a server resumes can be signalled; then the
 * windows, so that it can be done; then config space, whose command register
 * says that it may. What holds of all that is known elsewhere: interrupts to
 * irqs.c, windows to the container, config space to QEMU's PCI device. Windows and
 * config space can only be looked at with the BQL, and the server must not be
 * waited for with it. So little is sent at a time, what the socket has room for,
 * and waited for without the BQL. If something changed meanwhile that the server
 * was not told of, config space is told again; interrupts and windows keep count
 * themselves.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "hw/vfio/pci.h"
#include "container.h"
#include "device-int.h"
#include "reconnect.h"
#include "trace.h"

/* Messages between two waits: few enough for any socket's buffer. */
#define VFIO_USER_REPLAY_BATCH      64
/* After so many times what still changes is told without a wait. */
#define VFIO_USER_REPLAY_ROUNDS     8

static VFIOPCIDevice *vfio_user_replay_pci(VFIODevice *vbasedev)
{
    return container_of(vbasedev, VFIOPCIDevice, vbasedev);
}

/* Steps ---------------------------------------------------------------------------- */

/* All that was sent was handled: any answer tells. */
static bool vfio_user_replay_barrier(VFIOUserDevice *udev)
{
    uint32_t ids;

    return !vfio_user_device_read(udev, VFIO_USER_REGION_CONFIG, 0, &ids,
                                  sizeof(ids)) &&
           !vfio_user_conn_broken(udev->conn);
}

/*
 * A server that was told nothing: its eventfds. Each answer to the barrier comes
 * after some about interrupts, so that without any of these there is no point in
 * asking on.
 */
static bool vfio_user_replay_irqs(VFIOUserDevice *udev)
{
    uint64_t gen = vfio_user_irqs_wanted(udev);
    uint64_t answered;

    vfio_user_irqs_sync(udev);
    do {
        answered = vfio_user_irqs_nr_answered(udev);
        if (!vfio_user_replay_barrier(udev)) {
            return false;
        }
    } while (!vfio_user_irqs_is_told(udev, gen) &&
             vfio_user_irqs_nr_answered(udev) != answered);
    return true;
}

/* Take the BQL if there still is something to be told. */
static bool vfio_user_replay_enter(VFIOUserDevice *udev)
{
    bql_lock();
    if (udev->vbasedev && !vfio_user_conn_broken(udev->conn)) {
        return true;
    }
    bql_unlock();
    return false;
}

static bool vfio_user_replay_windows(VFIOUserDevice *udev)
{
    bool all;

    do {
        VFIOUserContainer *c;
        unsigned max = vfio_user_conn_lockstep(udev->conn) ?
                       1 : VFIO_USER_REPLAY_BATCH;

        if (!vfio_user_replay_enter(udev)) {
            return false;
        }
        c = VFIO_IOMMU_USER((Object *)udev->vbasedev->bcontainer);
        all = vfio_user_container_replay(c, max);
        bql_unlock();
        if (!vfio_user_replay_barrier(udev)) {
            return false;
        }
    } while (!all);
    return true;
}

static bool vfio_user_replay_irqs_and_config(VFIOUserDevice *udev)
{
    VFIOUserConfigWrite writes[VFIO_USER_MAX_CONFIG_WRITES];
    unsigned nr;

    if (!vfio_user_replay_enter(udev)) {
        return false;
    }
    udev->missed_config = 0;
    nr = vfio_user_load_list_config(udev->vbasedev, writes);
    bql_unlock();

    if (!vfio_user_replay_irqs(udev) || !vfio_user_replay_windows(udev)) {
        return false;
    }
    vfio_user_load_write_list(udev, writes, nr);
    return vfio_user_replay_barrier(udev);
}

/* What was missed, without a wait. Then the server is told of what comes. BQL. */
static void vfio_user_replay_config_later(VFIOUserDevice *udev)
{
    VFIOUserConfigWrite list[VFIO_USER_MAX_CONFIG_WRITES];
    unsigned nr = vfio_user_load_list_config(udev->vbasedev, list);

    for (unsigned i = 0; i < nr; i++) {
        vfio_user_device_write_later(udev, VFIO_USER_REGION_CONFIG, list[i].reg,
                                     list[i].data, list[i].len);
    }
}

bool vfio_user_replay(VFIOUserDevice *udev)
{
    for (unsigned i = 1; true; i++) {
        bool told;

        if (!vfio_user_replay_irqs_and_config(udev) ||
            !vfio_user_replay_enter(udev)) {
            return false;
        }
        told = vfio_user_irqs_is_told(udev, vfio_user_irqs_wanted(udev));
        trace_vfio_user_replay(udev->name, told, udev->missed_config);
        if (told && !udev->missed_config) {
            return true;
        }
        if (i == VFIO_USER_REPLAY_ROUNDS) {
            /* The guest does not stop changing them. */
            vfio_user_replay_config_later(udev);
            return true;
        }
        bql_unlock();
    }
}

/* Mapped areas --------------------------------------------------------------------- */

static bool vfio_user_replay_map_region(VFIOUserDevice *udev,
                                        VFIORegion *region, Error **errp)
{
    int prot = (region->flags & VFIO_REGION_INFO_FLAG_READ ? PROT_READ : 0) |
               (region->flags & VFIO_REGION_INFO_FLAG_WRITE ? PROT_WRITE : 0);

    for (unsigned i = 0; i < region->nr_mmaps; i++) {
        VFIOMmap *m = &region->mmaps[i];
        int ret;

        if (!m->mmap) {
            continue;
        }
        ret = vfio_user_device_remap(udev, m->mmap, m->size, prot,
                                     region->fd_offset + m->offset);
        if (ret) {
            error_setg_errno(errp, -ret, "region %u cannot be mapped as before",
                             region->nr);
            return false;
        }
    }
    return true;
}

bool vfio_user_replay_map(VFIOUserDevice *udev, Error **errp)
{
    VFIOPCIDevice *vdev = vfio_user_replay_pci(udev->vbasedev);

    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        if (!vfio_user_replay_map_region(udev, &vdev->bars[i].region, errp)) {
            return false;
        }
    }
    return true;
}
