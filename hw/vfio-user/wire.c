/*
 * vfio-user: is what the peer sent acceptable?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio was written for a kernel on the other side: it follows capability
 * chains without a bound, maps the areas it is told to map, and allocates
 * what a region says it holds. So a message is not handed on once it was
 * checked; what was understood of it is taken over into a structure of ours,
 * and hw/vfio gets to see what is written anew from that. A byte of the
 * payload that no rule below covers therefore cannot reach anything.
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include "qemu/host-utils.h"
#include "qapi/error.h"
#include "wire-check.h"

#define HEADER_LEN      sizeof(struct vfio_user_header)

static bool payload_holds(size_t len, size_t need, Error **errp)
{
    if (len < need) {
        error_setg(errp, "payload of %zu bytes is too short, %zu expected",
                   len, need);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_header(const struct vfio_user_header *hdr,
                                 size_t max_payload, Error **errp)
{
    uint32_t type = hdr->flags & VFIO_USER_TYPE_MASK;

    if (type != VFIO_USER_TYPE_COMMAND && type != VFIO_USER_TYPE_REPLY) {
        error_setg(errp, "message type %u is neither command nor reply", type);
        return false;
    }
    if (hdr->size < HEADER_LEN || hdr->size - HEADER_LEN > max_payload) {
        error_setg(errp, "message size %u is not within %zu to %zu bytes",
                   hdr->size, HEADER_LEN, HEADER_LEN + max_payload);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_reply(const struct vfio_user_header *hdr,
                                uint16_t command, size_t min, size_t max,
                                Error **errp)
{
    if (!vfio_user_wire_check_header(hdr, max, errp)) {
        return false;
    }
    if ((hdr->flags & VFIO_USER_TYPE_MASK) != VFIO_USER_TYPE_REPLY) {
        error_setg(errp, "a command came where a reply was expected");
        return false;
    }
    if (hdr->command != command) {
        error_setg(errp, "reply is to command %u, not to %u",
                   hdr->command, command);
        return false;
    }
    return (hdr->flags & VFIO_USER_ERROR) ||
           payload_holds(hdr->size - HEADER_LEN, min, errp);
}

int vfio_user_wire_reply_error(const struct vfio_user_header *hdr)
{
    if (!(hdr->flags & VFIO_USER_ERROR)) {
        return 0;
    }
    return hdr->error >= 1 && hdr->error <= 4095 ? -(int)hdr->error : -EIO;
}

bool vfio_user_wire_check_version(const struct vfio_user_version *rep,
                                  size_t len, Error **errp)
{
    if (!payload_holds(len, sizeof(*rep), errp)) {
        return false;
    }
    if (rep->major != VFIO_USER_MAJOR) {
        error_setg(errp, "server speaks version %u.%u: use one that speaks "
                   "version %u", rep->major, rep->minor, VFIO_USER_MAJOR);
        return false;
    }
    if (rep->minor > VFIO_USER_MINOR) {
        error_setg(errp, "server answers version %u.%u, which is above the "
                   "%u.%u that was proposed: it does not negotiate as the "
                   "protocol asks", rep->major, rep->minor, VFIO_USER_MAJOR,
                   VFIO_USER_MINOR);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_device_info(const struct vfio_user_device_info *rep,
                                      size_t len,
                                      struct vfio_user_device_info *out,
                                      Error **errp)
{
    if (!payload_holds(len, sizeof(*rep), errp)) {
        return false;
    }
    if (!(rep->flags & VFIO_USER_DEVICE_PCI)) {
        error_setg(errp, "not a PCI device (flags 0x%x)", rep->flags);
        return false;
    }
    if (rep->num_regions <= VFIO_USER_REGION_CONFIG ||
        rep->num_regions > VFIO_USER_MAX_REGIONS) {
        error_setg(errp, "number of regions %u is not within %u to %u",
                   rep->num_regions, VFIO_USER_REGION_CONFIG + 1,
                   VFIO_USER_MAX_REGIONS);
        return false;
    }
    if (rep->num_irqs <= VFIO_USER_IRQ_MSIX ||
        rep->num_irqs > VFIO_USER_MAX_IRQS) {
        error_setg(errp, "number of interrupt indices %u is not within %u to "
                   "%u", rep->num_irqs, VFIO_USER_IRQ_MSIX + 1,
                   VFIO_USER_MAX_IRQS);
        return false;
    }
    *out = (struct vfio_user_device_info) {
        .argsz = sizeof(*out),
        .flags = rep->flags & (VFIO_USER_DEVICE_RESETTABLE |
                               VFIO_USER_DEVICE_PCI),
        .num_regions = rep->num_regions,
        .num_irqs = rep->num_irqs,
    };
    return true;
}

static bool region_size_ok(uint32_t index, uint64_t size, Error **errp)
{
    uint64_t max = VFIO_USER_MAX_OTHER_SIZE;

    if (index == VFIO_USER_REGION_CONFIG) {
        if (size != 256 && size != 4096) {
            error_setg(errp, "config space of 0x%" PRIx64 " bytes is neither "
                       "0x100 nor 0x1000", size);
            return false;
        }
        return true;
    }
    if (index <= VFIO_USER_REGION_BAR5) {
        max = VFIO_USER_MAX_REGION_SIZE;
    } else if (index == VFIO_USER_REGION_ROM) {
        max = VFIO_USER_MAX_ROM_SIZE;
    }
    if (size > max) {
        error_setg(errp, "size 0x%" PRIx64 " is above 0x%" PRIx64, size, max);
        return false;
    }
    return true;
}

static uint64_t region_guest_size(uint32_t index, uint64_t size)
{
    /* Four bytes is the smallest BAR: the bits below hold its type. */
    return size && index <= VFIO_USER_REGION_BAR5 ?
           pow2ceil(MAX(size, 4)) : size;
}

static int area_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct vfio_user_sparse_area *)a)->offset;
    uint64_t y = ((const struct vfio_user_sparse_area *)b)->offset;

    return x < y ? -1 : x > y;
}

/* Sorts the areas, which are inside the region, and looks for overlaps. */
static bool areas_apart(VFIOUserRegionInfo *out, Error **errp)
{
    if (out->nr_areas > 1) {
        qsort(out->areas, out->nr_areas, sizeof(*out->areas), area_compare);
    }
    for (uint32_t i = 1; i < out->nr_areas; i++) {
        uint64_t end = out->areas[i - 1].offset + out->areas[i - 1].size;

        if (out->areas[i].offset < end) {
            error_setg(errp, "sparse areas at 0x%" PRIx64 " and 0x%" PRIx64
                       " overlap", out->areas[i - 1].offset,
                       out->areas[i].offset);
            return false;
        }
    }
    return true;
}

/* @from: nr areas in the payload, not necessarily aligned in memory */
static bool take_areas(VFIOUserRegionInfo *out, const uint8_t *from,
                       uint32_t nr, size_t page, Error **errp)
{
    out->has_sparse = true;
    out->areas = g_new(struct vfio_user_sparse_area, nr);

    for (uint32_t i = 0; i < nr; i++) {
        struct vfio_user_sparse_area area;

        memcpy(&area, from + i * sizeof(area), sizeof(area));
        if (area.offset > out->size || area.size > out->size - area.offset) {
            error_setg(errp, "sparse area 0x%" PRIx64 "+0x%" PRIx64
                       " is outside the region of 0x%" PRIx64 " bytes",
                       area.offset, area.size, out->size);
            return false;
        }
        if (!area.size) {
            continue;
        }
        if ((area.offset | area.size | out->offset) & (page - 1)) {
            out->nr_dropped++;
            continue;
        }
        out->areas[out->nr_areas++] = area;
    }
    return areas_apart(out, errp);
}

static bool take_sparse(VFIOUserRegionInfo *out, const uint8_t *cap,
                        size_t room, size_t page, Error **errp)
{
    struct vfio_user_cap_sparse sparse;

    if (out->has_sparse) {
        error_setg(errp, "two sparse mmap capabilities");
        return false;
    }
    if (room < sizeof(sparse)) {
        error_setg(errp, "sparse mmap capability is cut off");
        return false;
    }
    memcpy(&sparse, cap, sizeof(sparse));
    if (sparse.nr_areas > VFIO_USER_MAX_SPARSE_AREAS ||
        sparse.nr_areas * sizeof(sparse.areas[0]) > room - sizeof(sparse)) {
        error_setg(errp, "sparse mmap capability claims %u areas in %zu bytes, "
                   "at most %u are accepted", sparse.nr_areas,
                   room - sizeof(sparse), VFIO_USER_MAX_SPARSE_AREAS);
        return false;
    }
    return take_areas(out, cap + sizeof(sparse), sparse.nr_areas, page, errp);
}

static bool take_type(VFIOUserRegionInfo *out, const uint8_t *cap,
                      size_t room, Error **errp)
{
    struct vfio_user_cap_type type;

    if (room < sizeof(type)) {
        error_setg(errp, "type capability is cut off");
        return false;
    }
    memcpy(&type, cap, sizeof(type));
    out->has_type = true;
    out->type = type.type;
    out->subtype = type.subtype;
    return true;
}

/*
 * Capabilities lie one behind the other and point forward; holding them to
 * that is what ends a chain that leads back into itself.
 */
static bool take_caps(VFIOUserRegionInfo *out, const uint8_t *payload,
                      size_t len, uint32_t first, size_t page, Error **errp)
{
    size_t low = sizeof(struct vfio_user_region_info);
    uint32_t off = first;

    while (off) {
        struct vfio_user_cap_header cap;

        if (off < low || off > len || len - off < sizeof(cap)) {
            error_setg(errp, "capability at offset %u is not within %zu to "
                       "%zu", off, low, len);
            return false;
        }
        memcpy(&cap, payload + off, sizeof(cap));
        if (cap.id == VFIO_USER_CAP_SPARSE_MMAP &&
            !take_sparse(out, payload + off, len - off, page, errp)) {
            return false;
        }
        if (cap.id == VFIO_USER_CAP_TYPE &&
            !take_type(out, payload + off, len - off, errp)) {
            return false;
        }
        low = off + sizeof(cap);
        off = cap.next;
    }
    return true;
}

static void forget_mapping(VFIOUserRegionInfo *out)
{
    g_clear_pointer(&out->areas, g_free);
    out->has_sparse = false;
    out->nr_areas = 0;
    out->flags &= ~VFIO_USER_REGION_MMAP;
}

/* Reconcile MMAP with what else is known; @out is otherwise complete. */
static bool settle_mapping(VFIOUserRegionInfo *out, unsigned nr_fds,
                           size_t page, Error **errp)
{
    const uint32_t needed = VFIO_USER_REGION_READABLE |
                            VFIO_USER_REGION_WRITEABLE |
                            VFIO_USER_REGION_MMAP;

    if ((out->flags & needed) != needed || !nr_fds || !out->size) {
        forget_mapping(out);
        return true;
    }
    if (out->offset > INT64_MAX || out->size > INT64_MAX - out->offset) {
        error_setg(errp, "file offset 0x%" PRIx64 " with size 0x%" PRIx64
                   " is more than a file can hold", out->offset, out->size);
        return false;
    }
    if (!out->has_sparse) {
        if (out->offset & (page - 1)) {
            out->nr_dropped++;
            forget_mapping(out);
        } else if (out->size != out->guest_size) {
            out->has_sparse = true;
            out->areas = g_new(struct vfio_user_sparse_area, 1);
            out->areas[0].offset = 0;
            out->areas[0].size = QEMU_ALIGN_DOWN(out->size, page);
            out->nr_areas = out->areas[0].size ? 1 : 0;
        }
    }
    return true;
}

static bool take_region_info(const uint8_t *payload, size_t len,
                             uint32_t index, size_t room, unsigned nr_fds,
                             size_t page, VFIOUserRegionInfo *out,
                             Error **errp)
{
    struct vfio_user_region_info info;

    if (!payload_holds(len, sizeof(info), errp)) {
        return false;
    }
    memcpy(&info, payload, sizeof(info));
    if (info.index != index) {
        error_setg(errp, "answer is about region %u, not %u", info.index,
                   index);
        return false;
    }
    if (info.argsz < sizeof(info) || info.argsz > VFIO_USER_MAX_REGION_INFO) {
        error_setg(errp, "argsz %u is not within %zu to %u", info.argsz,
                   sizeof(info), VFIO_USER_MAX_REGION_INFO);
        return false;
    }
    out->needed = info.argsz;
    if (out->needed > room) {
        return true;
    }
    if (!payload_holds(len, info.argsz, errp) ||
        !region_size_ok(index, info.size, errp)) {
        return false;
    }

    out->index = index;
    out->flags = info.flags & (VFIO_USER_REGION_READABLE |
                               VFIO_USER_REGION_WRITEABLE |
                               VFIO_USER_REGION_MMAP);
    out->size = info.size;
    out->guest_size = region_guest_size(index, info.size);
    out->offset = info.offset;
    if ((info.flags & VFIO_USER_REGION_CAPS) &&
        !take_caps(out, payload, info.argsz, info.cap_offset, page, errp)) {
        return false;
    }
    return settle_mapping(out, nr_fds, page, errp);
}

bool vfio_user_wire_check_region_info(const void *payload, size_t len,
                                      uint32_t index, size_t room,
                                      unsigned nr_fds, size_t page,
                                      VFIOUserRegionInfo *out, Error **errp)
{
    memset(out, 0, sizeof(*out));
    if (!take_region_info(payload, len, index, room, nr_fds, page, out,
                          errp)) {
        vfio_user_wire_region_info_cleanup(out);
        return false;
    }
    return true;
}

void vfio_user_wire_region_info_cleanup(VFIOUserRegionInfo *info)
{
    if (info) {
        g_clear_pointer(&info->areas, g_free);
        info->nr_areas = 0;
    }
}

static uint8_t *put_type(uint8_t *to, const VFIOUserRegionInfo *info,
                         uint32_t next)
{
    struct vfio_region_info_cap_type cap = {
        .header.id = VFIO_REGION_INFO_CAP_TYPE,
        .header.version = 1,
        .header.next = next,
        .type = info->type,
        .subtype = info->subtype,
    };

    memcpy(to, &cap, sizeof(cap));
    return to + sizeof(cap);
}

static void put_sparse(uint8_t *to, const VFIOUserRegionInfo *info)
{
    struct vfio_region_info_cap_sparse_mmap cap = {
        .header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP,
        .header.version = 1,
        .nr_areas = info->nr_areas,
    };

    memcpy(to, &cap, sizeof(cap));
    to += sizeof(cap);
    for (uint32_t i = 0; i < info->nr_areas; i++) {
        struct vfio_region_sparse_mmap_area area = {
            .offset = info->areas[i].offset,
            .size = info->areas[i].size,
        };

        memcpy(to, &area, sizeof(area));
        to += sizeof(area);
    }
}

void vfio_user_wire_region_info_to_vfio(const VFIOUserRegionInfo *info,
                                        uint64_t file_offset,
                                        struct vfio_region_info *dst)
{
    size_t type = info->has_type ?
        sizeof(struct vfio_region_info_cap_type) : 0;
    size_t sparse = info->has_sparse ?
        sizeof(struct vfio_region_info_cap_sparse_mmap) +
        info->nr_areas * sizeof(struct vfio_region_sparse_mmap_area) : 0;
    size_t needed = sizeof(*dst) + type + sparse;
    uint8_t *to = (uint8_t *)(dst + 1);

    dst->index = info->index;
    dst->size = info->guest_size;
    dst->offset = file_offset;
    dst->cap_offset = 0;
    dst->flags = 0;
    if (info->flags & VFIO_USER_REGION_READABLE) {
        dst->flags |= VFIO_REGION_INFO_FLAG_READ;
    }
    if (info->flags & VFIO_USER_REGION_WRITEABLE) {
        dst->flags |= VFIO_REGION_INFO_FLAG_WRITE;
    }
    if (info->flags & VFIO_USER_REGION_MMAP) {
        dst->flags |= VFIO_REGION_INFO_FLAG_MMAP;
    }
    if (needed == sizeof(*dst)) {
        return;
    }

    dst->flags |= VFIO_REGION_INFO_FLAG_CAPS;
    if (dst->argsz < needed) {
        dst->argsz = needed;
        return;
    }
    dst->cap_offset = sizeof(*dst);
    if (type) {
        to = put_type(to, info, sparse ? sizeof(*dst) + type : 0);
    }
    if (sparse) {
        put_sparse(to, info);
    }
}

static uint32_t irq_max_count(uint32_t index)
{
    switch (index) {
    case VFIO_USER_IRQ_MSI:
        return VFIO_USER_MAX_MSI_VECTORS;
    case VFIO_USER_IRQ_INTX:
    case VFIO_USER_IRQ_ERR:
    case VFIO_USER_IRQ_REQ:
        return 1;
    default:
        return VFIO_USER_MAX_MSIX_VECTORS;
    }
}

bool vfio_user_wire_check_irq_info(const struct vfio_user_irq_info *rep,
                                   size_t len, uint32_t index,
                                   struct vfio_user_irq_info *out,
                                   Error **errp)
{
    if (!payload_holds(len, sizeof(*rep), errp)) {
        return false;
    }
    if (rep->index != index) {
        error_setg(errp, "answer is about interrupt index %u, not %u",
                   rep->index, index);
        return false;
    }
    if (rep->count > irq_max_count(index)) {
        error_setg(errp, "%u interrupts at index %u, at most %u are possible",
                   rep->count, index, irq_max_count(index));
        return false;
    }
    *out = (struct vfio_user_irq_info) {
        .argsz = sizeof(*out),
        .flags = rep->flags & (VFIO_USER_IRQ_EVENTFD | VFIO_USER_IRQ_MASKABLE |
                               VFIO_USER_IRQ_AUTOMASKED |
                               VFIO_USER_IRQ_NORESIZE),
        .index = index,
        .count = rep->count,
    };
    return true;
}

bool vfio_user_wire_check_region_rw(const struct vfio_user_region_rw *rep,
                                    size_t len,
                                    const struct vfio_user_region_rw *req,
                                    bool is_write, Error **errp)
{
    size_t expected = sizeof(*rep) + (is_write ? 0 : (size_t)req->count);

    if (len != expected) {
        error_setg(errp, "payload has %zu bytes, %zu expected", len, expected);
        return false;
    }
    if (rep->offset != req->offset || rep->region != req->region ||
        rep->count != req->count) {
        error_setg(errp, "answer is about region %u 0x%" PRIx64 "+%u, not "
                   "region %u 0x%" PRIx64 "+%u", rep->region, rep->offset,
                   rep->count, req->region, req->offset, req->count);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_dma_unmap(const struct vfio_user_dma_unmap *rep,
                                    size_t len,
                                    const struct vfio_user_dma_unmap *req,
                                    Error **errp)
{
    if (!len) {
        return true;
    }
    if (!payload_holds(len, sizeof(*rep), errp)) {
        return false;
    }
    if (rep->addr != req->addr || rep->size != req->size) {
        error_setg(errp, "answer is about window 0x%" PRIx64 "+0x%" PRIx64
                   ", not 0x%" PRIx64 "+0x%" PRIx64, rep->addr, rep->size,
                   req->addr, req->size);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_dma(const struct vfio_user_header *hdr,
                              const struct vfio_user_dma_rw *req,
                              uint64_t max_xfer, Error **errp)
{
    size_t len = hdr->size - HEADER_LEN;
    uint64_t data = hdr->command == VFIO_USER_DMA_WRITE ? req->count : 0;

    if (!payload_holds(len, sizeof(*req), errp)) {
        return false;
    }
    if (req->count > max_xfer) {
        error_setg(errp, "0x%" PRIx64 " bytes is more than the 0x%" PRIx64
                   " negotiated", req->count, max_xfer);
        return false;
    }
    if (len - sizeof(*req) != data) {
        error_setg(errp, "message carries %zu bytes of data, %" PRIu64
                   " expected", len - sizeof(*req), data);
        return false;
    }
    if (req->count > UINT64_MAX - req->addr) {
        error_setg(errp, "0x%" PRIx64 "+0x%" PRIx64 " is beyond the end of "
                   "the address space", req->addr, req->count);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_feature(const struct vfio_user_feature *rep,
                                  size_t len, uint32_t flags, size_t min,
                                  size_t max, Error **errp)
{
    uint32_t known = VFIO_USER_FEATURE_MASK | VFIO_USER_FEATURE_GET |
                     VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_PROBE;

    if (!payload_holds(len, sizeof(*rep) + min, errp)) {
        return false;
    }
    if (len > sizeof(*rep) + max) {
        error_setg(errp, "payload has %zu bytes, at most %zu expected", len,
                   sizeof(*rep) + max);
        return false;
    }
    if ((rep->flags ^ flags) & known) {
        error_setg(errp, "answer is about feature flags 0x%x, not 0x%x",
                   rep->flags, flags);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_migration(
    const struct vfio_user_feature_migration *rep, uint64_t *flags,
    Error **errp)
{
    *flags = rep->flags & (VFIO_USER_MIGRATION_STOP_COPY |
                           VFIO_USER_MIGRATION_P2P |
                           VFIO_USER_MIGRATION_PRE_COPY);
    if (*flags && !(*flags & VFIO_USER_MIGRATION_STOP_COPY)) {
        error_setg(errp, "migration flags 0x%" PRIx64 " lack stop-copy",
                   rep->flags);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_log_page(uint64_t page_size, Error **errp)
{
    if (!is_power_of_2(page_size) ||
        page_size < VFIO_USER_MIN_LOG_PAGE ||
        page_size > VFIO_USER_MAX_LOG_PAGE) {
        error_setg(errp, "page size %" PRIu64 " is not a power of two from %u "
                   "to %llu", page_size, VFIO_USER_MIN_LOG_PAGE,
                   VFIO_USER_MAX_LOG_PAGE);
        return false;
    }
    return true;
}

size_t vfio_user_wire_report_len(uint64_t length, uint64_t page_size)
{
    uint64_t pages = length / page_size + !!(length % page_size);

    return DIV_ROUND_UP(pages, 64) * sizeof(uint64_t);
}

bool vfio_user_wire_check_report(
    const struct vfio_user_feature_dma_report *rep,
    const struct vfio_user_feature_dma_report *req, Error **errp)
{
    if (rep->iova != req->iova || rep->length != req->length ||
        rep->page_size != req->page_size) {
        error_setg(errp, "answer is about 0x%" PRIx64 "+0x%" PRIx64 " in pages "
                   "of %" PRIu64 ", not 0x%" PRIx64 "+0x%" PRIx64 " in pages "
                   "of %" PRIu64, rep->iova, rep->length, rep->page_size,
                   req->iova, req->length, req->page_size);
        return false;
    }
    return true;
}

bool vfio_user_wire_check_mig_data(const struct vfio_user_mig_data *rep,
                                   size_t len, uint32_t room, Error **errp)
{
    if (!payload_holds(len, sizeof(*rep), errp)) {
        return false;
    }
    if (rep->size > room) {
        error_setg(errp, "%u bytes of device state where %u were asked for",
                   rep->size, room);
        return false;
    }
    /* libvfio-user fills the rest of what was asked for with zeros. */
    if (len - sizeof(*rep) < rep->size) {
        error_setg(errp, "payload carries %zu bytes of device state, %u "
                   "announced", len - sizeof(*rep), rep->size);
        return false;
    }
    return true;
}
