/*
 * vfio-user: a device behind the guest's IOMMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio learns from the IOMMU what the guest maps and unmaps, entry by entry
 * of its table, and each becomes a window at the server. The guest goes on when
 * the server has answered: what it does next may reach the server without a
 * message, by a mapped doorbell; and memory that it takes away is used for
 * something else at once.
 *
 * One entry is one window. What the guest maps as a large page stays one, and a
 * request to virtio-iommu is as few as powers of two allow. Entries that are
 * neighbours in memory are not put together. The guest may take one of them
 * away, a window can only be taken away as a whole, and to map the rest anew
 * would leave the device without memory that it is using.
 *
 * So there can be very many windows, and a server's table may be too small
 * (max_dma_maps). Then a part of the table is used for windows without a
 * descriptor, for which the server has to ask by message. Such an entry covers
 * everything up to the next ones on either side, mapped by the guest or not:
 * dma.c knows the pages, and refuses what is between them. Nothing that the
 * server has is taken away for that.
 *
 * It fits. The entries with windows, at most N of them, leave N + 1 gaps at
 * most, and N is chosen so that 2N + 1 places are enough. While there are
 * entries by message no window gets a place of its own; so the pieces of the
 * address space (entries with and without window, and gaps without entry) never
 * become more. When the guest has unmapped all that an entry covers it is given
 * back, and with the last one of them windows get places again. (A gap takes
 * one place for each TiB that is in use. Guests use one, from 4 GiB downwards.)
 *
 * A server may refuse a window all the same, for instance one that does not say
 * how many it can have (libvfio-user of QEMU 10.0: 16). Then that goes by
 * message, too; and if it is refused as well, the device goes offline.
 * Rejected: to leave the device without that window. QEMU's server takes DMA
 * outside of its windows for done, and the guest would have read other data.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "container.h"
#include "trace.h"

/* No entry by message crosses its multiples: servers limit what one may be. */
#define VFIO_USER_IOMMU_SPAN        (1 * TiB)

bool vfio_user_iommu_room(const VFIOUserContainer *c)
{
    return !c->nr_by_message &&
           c->nr_entries < (c->udev->caps.max_dma_maps - 1) / 2;
}

static VFIOUserEntry *vfio_user_iommu_entry(VFIOUserContainer *c,
                                            uint64_t start, uint64_t last)
{
    IntervalTreeNode *node = interval_tree_iter_first(&c->entries, start, last);

    return node ? container_of(node, VFIOUserEntry, node) : NULL;
}

/* The lowest address from which on there is nothing up to @at. */
static uint64_t vfio_user_iommu_gap_start(VFIOUserContainer *c, uint64_t at)
{
    uint64_t low = at & ~(VFIO_USER_IOMMU_SPAN - 1), high = at;

    while (low < high) {
        uint64_t mid = low + (high - low) / 2;

        if (vfio_user_iommu_entry(c, mid, at)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* The highest address up to which there is nothing from @at on. */
static uint64_t vfio_user_iommu_gap_last(VFIOUserContainer *c, uint64_t at)
{
    uint64_t last = at | (VFIO_USER_IOMMU_SPAN - 1);
    VFIOUserEntry *next = vfio_user_iommu_entry(c, at, last);

    return next ? next->node.start - 1 : last;
}

static void vfio_user_iommu_warn(VFIOUserContainer *c)
{
    if (!c->warned_full) {
        c->warned_full = true;
        warn_report("vfio-user-pci %s: the guest's IOMMU has mapped more than "
                    "the %" PRIu64 " windows that the server allows "
                    "(max_dma_maps) can hold: from now on DMA goes by message, "
                    "which is slow", c->udev->name, c->udev->caps.max_dma_maps);
    }
}

static void vfio_user_iommu_by_message(VFIOUserContainer *c, uint64_t start,
                                       uint64_t last)
{
    VFIOUserEntry *e;

    trace_vfio_user_iommu_by_message(c->udev->name, start, last);
    vfio_user_container_by_message(c);
    e = vfio_user_container_add_entry(c, start, last, NULL);
    if (vfio_user_container_is_told(c, start)) {
        vfio_user_container_send_map(c, e, VFIO_USER_DMA_READABLE |
                                     VFIO_USER_DMA_WRITEABLE, -1, 0);
    }
}

/* Addresses all over the place. */
static void vfio_user_iommu_full(VFIOUserContainer *c, uint64_t iova)
{
    Error *err = NULL;

    error_setg(&err, "no room at 0x%" PRIx64 ": the guest's IOMMU maps memory "
               "in more places than the %" PRIu64 " windows that the server "
               "allows (max_dma_maps) can hold", iova,
               c->udev->caps.max_dma_maps);
    vfio_user_device_offline(c->udev, err);
}

static void vfio_user_iommu_cover_part(VFIOUserContainer *c, uint64_t start,
                                       uint64_t last)
{
    while (start <= last) {
        VFIOUserEntry *e = vfio_user_iommu_entry(c, start, start);

        if (!e) {
            if (c->nr_entries >= c->udev->caps.max_dma_maps) {
                vfio_user_iommu_full(c, start);
                return;
            }
            vfio_user_iommu_by_message(c, vfio_user_iommu_gap_start(c, start),
                                       vfio_user_iommu_gap_last(c, start));
            e = vfio_user_iommu_entry(c, start, start);
        }
        if (e->node.last >= last) {
            return;
        }
        start = e->node.last + 1;
    }
}

void vfio_user_iommu_cover(VFIOUserContainer *c, uint64_t start, uint64_t last)
{
    vfio_user_iommu_warn(c);
    vfio_user_iommu_cover_part(c, start, last);
}

void vfio_user_iommu_uncover(VFIOUserContainer *c, uint64_t start,
                             uint64_t last)
{
    IntervalTreeNode *node, *next;

    for (node = interval_tree_iter_first(&c->entries, start, last); node;
         node = next) {
        VFIOUserEntry *e = container_of(node, VFIOUserEntry, node);

        next = interval_tree_iter_next(node, start, last);
        if (e->window || interval_tree_iter_first(&c->windows, node->start,
                                                  node->last)) {
            continue;
        }
        trace_vfio_user_iommu_give_back(c->udev->name, node->start, node->last);
        vfio_user_container_untell(c, e);
    }
}

bool vfio_user_iommu_refused(VFIOUserContainer *c, uint64_t start,
                             uint64_t last, Error **errp)
{
    VFIOUserEntry *e = vfio_user_iommu_entry(c, start, last);

    if (!e || !e->window || e->node.start != start || e->node.last != last) {
        error_prepend(errp, "the server takes no more windows (fewer than the "
                      "%" PRIu64 " that it allows with max_dma_maps), and the "
                      "guest's IOMMU maps many; with iommu.passthrough=1 on "
                      "its command line, Linux needs few: ",
                      c->udev->caps.max_dma_maps);
        return false;
    }
    if (!c->warned_refused) {
        c->warned_refused = true;
        warn_report("vfio-user-pci %s: %s. It goes by message, which is slow",
                    c->udev->name, error_get_pretty(*errp));
    }
    error_free(*errp);
    *errp = NULL;
    vfio_user_container_del_entry(c, e);
    vfio_user_iommu_cover_part(c, start, last);
    return true;
}
