/*
 * vfio-user: is what the peer sent acceptable?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every decision about trust in a message is taken here, and nowhere else.
 * The functions look at the bytes they are given and at nothing else: no
 * state, no allocation except where an out parameter says so, any thread, no
 * lock. Where a function returns bool, false comes with @errp set to a text
 * that names what was wrong, with its numbers; the caller prepends device and
 * command.
 *
 * "Payload" is what follows the 16-byte header; @len counts bytes of it. A
 * structure passed in is only looked at as far as @len says that it came.
 *
 * The file is not called wire.h since QEMU's include path looks into the
 * source root first, where that name would hide include/hw/vfio-user/wire.h.
 */

#ifndef HW_VFIO_USER_WIRE_CHECK_H
#define HW_VFIO_USER_WIRE_CHECK_H

#include "hw/vfio-user/wire.h"

struct vfio_region_info;

/*
 * What we are willing to take from a server. hw/vfio makes objects or loops
 * out of each of these.
 *
 * A region fits below the region index in an offset of the device file. What
 * is no BAR is read into memory as a whole (ROM, OpRegion, EDID), so it is
 * held to what such a thing can be.
 */
#define VFIO_USER_MAX_REGIONS           64
#define VFIO_USER_MAX_IRQS              64
#define VFIO_USER_MAX_REGION_SIZE       (1ULL << 40)
#define VFIO_USER_MAX_ROM_SIZE          (16ULL * 1024 * 1024)
#define VFIO_USER_MAX_OTHER_SIZE        (64ULL * 1024 * 1024)
#define VFIO_USER_MAX_REGION_INFO       (64u * 1024)
#define VFIO_USER_MAX_SPARSE_AREAS      128
#define VFIO_USER_MAX_IO_FDS            256
#define VFIO_USER_MAX_IO_FDS_INFO       (64u * 1024)
#define VFIO_USER_MAX_MSI_VECTORS       32
#define VFIO_USER_MAX_MSIX_VECTORS      2048
#define VFIO_USER_MIN_LOG_PAGE          512u
#define VFIO_USER_MAX_LOG_PAGE          (1ULL << 30)

/**
 * vfio_user_wire_check_header: can the stream be followed past this message?
 * @max_payload: most bytes of payload that may come with this command or reply
 *
 * Size and type only. False means that the stream is out of sync.
 */
bool vfio_user_wire_check_header(const struct vfio_user_header *hdr,
                                 size_t max_payload, Error **errp);

/**
 * vfio_user_wire_check_reply: is it a reply to @command of an expected size?
 * @min, @max: bounds of the payload, in bytes; an error reply may have any
 *     payload up to @max
 *
 * vfio_user_wire_check_header() included. Whether it reports success is
 * vfio_user_wire_reply_error()'s business.
 */
bool vfio_user_wire_check_reply(const struct vfio_user_header *hdr,
                                uint16_t command, size_t min, size_t max,
                                Error **errp);

/**
 * vfio_user_wire_reply_error: what a reply says about success
 *
 * Returns 0, or the server's error as -errno within -4095..-1; a flagged
 * error of 0 or beyond 4095 becomes -EIO.
 */
int vfio_user_wire_reply_error(const struct vfio_user_header *hdr);

/**
 * vfio_user_wire_check_version: major and minor of a VERSION reply
 * @len: payload length
 */
bool vfio_user_wire_check_version(const struct vfio_user_version *rep,
                                  size_t len, Error **errp);

/**
 * vfio_user_wire_check_device_info: DEVICE_GET_INFO reply
 * @out: filled with the known flags, and the counts: a PCI device with at
 *     least config space and MSI-X index, at most VFIO_USER_MAX_REGIONS and
 *     VFIO_USER_MAX_IRQS
 */
bool vfio_user_wire_check_device_info(const struct vfio_user_device_info *rep,
                                      size_t len,
                                      struct vfio_user_device_info *out,
                                      Error **errp);

/**
 * VFIOUserRegionInfo: a region as we believe it
 *
 * @needed: bytes of payload of a full answer. When it is larger than what
 *     was asked for, nothing else is valid: ask once more with that much
 *     room, and refuse a server whose answer grows again.
 * @flags: READABLE, WRITEABLE, MMAP. MMAP only with a descriptor to map and
 *     where reads and writes are both allowed: a store to a mapping that is
 *     read-only would be a signal, not an error.
 * @size: bytes that the server answers for, 0 for an absent region. Config
 *     space has 256 or 4096.
 * @guest_size: the same, for a BAR rounded up to a power of two, which is
 *     the only size a BAR can have. Nothing is there beyond @size: reads
 *     give ones, writes are dropped.
 * @offset: for mmap() of the descriptor; @offset + @size is a valid off_t
 * @has_sparse: only @areas (perhaps none) may be mapped, else all of it
 * @areas: ascending, not empty, page aligned, apart and inside @size.
 *     g_malloc()ed, freed by vfio_user_wire_region_info_cleanup().
 * @nr_dropped: areas left out because they were not page aligned; accesses
 *     to them go by messages, which is worth a warning
 * @has_type: @type and @subtype are valid
 */
typedef struct VFIOUserRegionInfo {
    uint32_t needed;
    uint32_t flags;
    uint32_t index;
    uint64_t size;
    uint64_t guest_size;
    uint64_t offset;
    bool has_sparse;
    uint32_t nr_areas;
    uint32_t nr_dropped;
    struct vfio_user_sparse_area *areas;
    bool has_type;
    uint32_t type;
    uint32_t subtype;
} VFIOUserRegionInfo;

/**
 * vfio_user_wire_check_region_info: DEVICE_GET_REGION_INFO reply
 * @payload, @len: the reply
 * @index: the region that was asked for
 * @room: argsz of the request; @len never exceeds it
 * @nr_fds: descriptors that came; the first is the region's. (libvfio-user
 *     sends one for each area, all of the same file.)
 * @page: alignment that a mapping needs (the host's page size)
 * @out: cleared, then filled; on success call
 *     vfio_user_wire_region_info_cleanup() in the end
 */
bool vfio_user_wire_check_region_info(const void *payload, size_t len,
                                      uint32_t index, size_t room,
                                      unsigned nr_fds, size_t page,
                                      VFIOUserRegionInfo *out, Error **errp);

/* Free what vfio_user_wire_check_region_info() allocated; NULL is fine. */
void vfio_user_wire_region_info_cleanup(VFIOUserRegionInfo *info);

/**
 * vfio_user_wire_region_info_to_vfio: write it as hw/vfio wants to read it
 * @file_offset: what hw/vfio is to use as the region's offset in the device
 *     file
 * @dst: VFIO_DEVICE_GET_REGION_INFO's argument; its argsz is the room. As
 *     the kernel does, all but the fixed part is left out when the room is
 *     too small, and argsz tells how much is needed.
 *
 * The capability chain is made anew; no byte of the server's passes.
 */
void vfio_user_wire_region_info_to_vfio(const VFIOUserRegionInfo *info,
                                        uint64_t file_offset,
                                        struct vfio_region_info *dst);

/**
 * VFIOUserSubRegion: where a write of the guest is a signal to the server
 * @size: bytes that such a write has: 1, 2, 4, 8, or 0 for any. @offset is a
 *     multiple of it.
 * @match: only a write of @data is one
 * @fd_index: of the eventfd among the reply's descriptors
 * @shadow: the value is stored before the signal, at @shadow_offset (a multiple
 *     of @size, or of 8) in the file that descriptor @shadow_index is
 */
typedef struct VFIOUserSubRegion {
    uint64_t offset;
    uint32_t size;
    uint32_t fd_index;
    bool match;
    bool shadow;
    uint64_t data;
    uint32_t shadow_index;
    uint64_t shadow_offset;
} VFIOUserSubRegion;

/**
 * VFIOUserIoFds: sub-regions of one region
 *
 * @needed: bytes of payload of a full answer; larger than what was asked for:
 *     nothing else is valid, as in VFIOUserRegionInfo
 * @nr, @subs: ascending by offset; no write fits two of them. g_malloc()ed,
 *     freed by vfio_user_wire_io_fds_cleanup().
 * @nr_dropped: sub-regions left out because we have no means for them
 *     (ioregionfd, sizes that no access has, offsets that are not aligned,
 *     values that no write has, flags and types that are not known)
 */
typedef struct VFIOUserIoFds {
    uint32_t needed;
    uint32_t nr;
    uint32_t nr_dropped;
    VFIOUserSubRegion *subs;
} VFIOUserIoFds;

/**
 * vfio_user_wire_check_io_fds: DEVICE_GET_REGION_IO_FDS reply
 * @payload, @len: the reply
 * @index, @region_size: the region that was asked about
 * @room: argsz of the request; @len never exceeds it
 * @nr_fds: descriptors that came. That they are eventfds is not known yet.
 * @out: cleared, then filled; on success call
 *     vfio_user_wire_io_fds_cleanup() in the end
 */
bool vfio_user_wire_check_io_fds(const void *payload, size_t len,
                                 uint32_t index, uint64_t region_size,
                                 size_t room, unsigned nr_fds,
                                 VFIOUserIoFds *out, Error **errp);

void vfio_user_wire_io_fds_cleanup(VFIOUserIoFds *io);

/**
 * vfio_user_wire_check_irq_info: DEVICE_GET_IRQ_INFO reply
 * @index: the interrupt index that was asked for
 * @out: filled; known flags only, count within what PCI allows for @index
 */
bool vfio_user_wire_check_irq_info(const struct vfio_user_irq_info *rep,
                                   size_t len, uint32_t index,
                                   struct vfio_user_irq_info *out,
                                   Error **errp);

/**
 * vfio_user_wire_check_region_rw: REGION_READ or REGION_WRITE reply
 * @len: payload length
 * @req: the request that it answers; offset, region and count must come back
 * @is_write: then no data follows, otherwise @req->count bytes
 */
bool vfio_user_wire_check_region_rw(const struct vfio_user_region_rw *rep,
                                    size_t len,
                                    const struct vfio_user_region_rw *req,
                                    bool is_write, Error **errp);

/**
 * vfio_user_wire_check_dma_unmap: DMA_UNMAP reply
 * @req: the request that it answers; address and size must come back
 *
 * A header alone is accepted: so answers a libvfio-user server that does no
 * DMA.
 */
bool vfio_user_wire_check_dma_unmap(const struct vfio_user_dma_unmap *rep,
                                    size_t len,
                                    const struct vfio_user_dma_unmap *req,
                                    Error **errp);

/**
 * vfio_user_wire_check_dma: a server's DMA_READ or DMA_WRITE
 * @hdr: a command for which vfio_user_wire_check_header() said yes
 * @req: the first 16 bytes of its payload, valid when that much came
 * @max_xfer: limit of count
 *
 * Returns true when the sizes agree and [addr, addr + count) does not wrap.
 * False is no reason to give up the connection: drain the payload, answer
 * EINVAL.
 */
bool vfio_user_wire_check_dma(const struct vfio_user_header *hdr,
                              const struct vfio_user_dma_rw *req,
                              uint64_t max_xfer, Error **errp);

/**
 * vfio_user_wire_check_feature: DEVICE_FEATURE reply
 * @len: payload length
 * @flags: of the request; index and operation must come back
 * @min, @max: bytes of data that may follow the 8 bytes of the feature
 */
bool vfio_user_wire_check_feature(const struct vfio_user_feature *rep,
                                  size_t len, uint32_t flags, size_t min,
                                  size_t max, Error **errp);

/**
 * vfio_user_wire_check_migration: what a server offers in feature MIGRATION
 * @flags: known flags only. A device whose state cannot be read when it has
 *     stopped (STOP_COPY) has no use for the others.
 */
bool vfio_user_wire_check_migration(
    const struct vfio_user_feature_migration *rep, uint64_t *flags,
    Error **errp);

/* A page size that DMA_LOGGING_START answered: a power of two that we use. */
bool vfio_user_wire_check_log_page(uint64_t page_size, Error **errp);

/**
 * vfio_user_wire_report_len: bytes of bitmap for @length bytes of memory
 *
 * In whole u64 words. @page_size is a power of two.
 */
size_t vfio_user_wire_report_len(uint64_t length, uint64_t page_size);

/**
 * vfio_user_wire_check_report: range that a DMA_LOGGING_REPORT repeats
 * @req: as asked; the length of the bitmap is vfio_user_wire_check_feature()'s
 */
bool vfio_user_wire_check_report(
    const struct vfio_user_feature_dma_report *rep,
    const struct vfio_user_feature_dma_report *req, Error **errp);

/**
 * vfio_user_wire_check_mig_data: MIG_DATA_READ reply
 * @len: payload length
 * @room: bytes of data that were asked for
 *
 * Less than @room is no error: there is no more at the moment.
 */
bool vfio_user_wire_check_mig_data(const struct vfio_user_mig_data *rep,
                                   size_t len, uint32_t room, Error **errp);

#endif /* HW_VFIO_USER_WIRE_CHECK_H */
