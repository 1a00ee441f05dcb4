/*
 * vfio-user: can one server take the place of another?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio and the guest have learnt the device at realize and do not look
 * again, and what was negotiated then is used without a lock. So all of it must
 * hold for the next server, too; limits may be wider, but then they are not
 * used.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "reconnect.h"
#include "config-same.h"

static bool same(const char *what, uint64_t was, uint64_t is, Error **errp)
{
    if (was != is) {
        error_setg(errp, "%s is 0x%" PRIx64 ", was 0x%" PRIx64, what, is, was);
    }
    return was == is;
}

static bool at_least(const char *what, uint64_t was, uint64_t is, Error **errp)
{
    if (is < was) {
        error_setg(errp, "%s is %" PRIu64 ", was %" PRIu64, what, is, was);
    }
    return is >= was;
}

static bool same_caps(const VFIOUserCaps *was, const VFIOUserCaps *is,
                      Error **errp)
{
    return at_least("max_msg_fds", was->max_msg_fds, is->max_msg_fds, errp) &&
           at_least("max_data_xfer_size", was->max_data_xfer_size,
                    is->max_data_xfer_size, errp) &&
           same("pgsizes", was->pgsizes, was->pgsizes & is->pgsizes, errp) &&
           at_least("write_multiple", was->write_multiple, is->write_multiple,
                    errp) &&
           (!was->has_migration ||
            same("page size of migration", was->migration_pgsize,
                 is->migration_pgsize, errp)) &&
           at_least("max_bitmap_size", was->migration_max_bitmap_size,
                    is->migration_max_bitmap_size, errp);
}

static bool same_areas(const VFIOUserRegionInfo *was,
                       const VFIOUserRegionInfo *is, Error **errp)
{
    /* Without the capability all of it may be mapped, with no areas nothing. */
    if (!same("whether there are sparse areas", was->has_sparse,
              is->has_sparse, errp) ||
        !same("number of areas", was->nr_areas, is->nr_areas, errp)) {
        return false;
    }
    for (unsigned i = 0; i < was->nr_areas; i++) {
        if (!same("offset of an area", was->areas[i].offset,
                  is->areas[i].offset, errp) ||
            !same("size of an area", was->areas[i].size, is->areas[i].size,
                  errp)) {
            return false;
        }
    }
    return true;
}

static bool same_region(const VFIOUserRegion *was, const VFIOUserRegion *is,
                        Error **errp)
{
    return same("size", was->info.size, is->info.size, errp) &&
           same("flags", was->info.flags, is->info.flags, errp) &&
           same("type", was->info.type, is->info.type, errp) &&
           same("subtype", was->info.subtype, is->info.subtype, errp) &&
           same_areas(&was->info, &is->info, errp);
}

static bool same_irq(const struct vfio_user_irq_info *was,
                     const struct vfio_user_irq_info *is, Error **errp)
{
    return same("number of interrupts", was->count, is->count, errp) &&
           same("flags", was->flags, is->flags, errp);
}

static bool same_migration(const VFIOUserMigration *was,
                           const VFIOUserMigration *is, Error **errp)
{
    return !was->flags ||
           (same("migration flags", was->flags, is->flags, errp) &&
            at_least("DMA logging", was->can_log, is->can_log, errp));
}

static bool same_parts(const VFIOUserDevice *was, const VFIOUserDevice *is,
                       Error **errp)
{
    for (unsigned i = 0; i < was->info.num_regions; i++) {
        if (!same_region(&was->regions[i], &is->regions[i], errp)) {
            error_prepend(errp, "region %u: ", i);
            return false;
        }
    }
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        if (!same_irq(&was->irqs[i].info, &is->irqs[i].info, errp)) {
            error_prepend(errp, "interrupt index %u: ", i);
            return false;
        }
    }
    return true;
}

bool vfio_user_identity_same(const VFIOUserDevice *was,
                             const VFIOUserDevice *is, Error **errp)
{
    ERRP_GUARD();

    /* Config space first: it says best what kind of device it is. */
    return same("size of config space",
                was->regions[VFIO_USER_REGION_CONFIG].info.size,
                is->regions[VFIO_USER_REGION_CONFIG].info.size, errp) &&
           vfio_user_config_same(was->config, is->config,
                                 was->regions[VFIO_USER_REGION_CONFIG].info.size,
                                 errp) &&
           same("device flags", was->info.flags, is->info.flags, errp) &&
           same("number of regions", was->info.num_regions,
                is->info.num_regions, errp) &&
           same("number of interrupt indices", was->info.num_irqs,
                is->info.num_irqs, errp) &&
           same_parts(was, is, errp) &&
           same_caps(&was->caps, &is->caps, errp) &&
           /* Else what there is no room for is not told (container-sync.c). */
           (!vfio_user_dma_behind_iommu(was) ||
            at_least("max_dma_maps", was->caps.max_dma_maps,
                     is->caps.max_dma_maps, errp)) &&
           same_migration(&was->mig, &is->mig, errp);
}
