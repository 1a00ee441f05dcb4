/*
 * vfio-user: is what the server offers as ioeventfds acceptable?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A part of wire.c's job that is long enough for a file of its own. Two kinds
 * of objection are kept apart. An answer that contradicts the region or itself
 * is refused, as any other. A sub-region that is well described but that we
 * have no means for is left out: its writes go by messages, as they would for
 * a client that never asked.
 *
 * What KVM refuses must be found here, since QEMU ends where KVM refuses an
 * ioeventfd: a width that no access has, a value to compare with a write of any
 * width, and two sub-regions that the same write would signal.
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qapi/error.h"
#include "wire-check.h"

#define IO_FDS_FLAGS    (VFIO_USER_IO_FD_DATAMATCH | VFIO_USER_IO_FD_PIO)

/* An entry is a struct vfio_user_io_fd; type 2 has the value behind it. */
typedef struct WireEntry {
    struct vfio_user_io_fd fixed;
    uint64_t shadow_data;
} WireEntry;
QEMU_BUILD_BUG_ON(sizeof(WireEntry) != 48);

static uint64_t wire_value(const WireEntry *e)
{
    return e->fixed.type == VFIO_USER_IO_FD_SHADOW ? e->shadow_data
                                                   : e->fixed.data;
}

/* Does it contradict the region, itself, or the descriptors that came? */
static bool entry_consistent(const WireEntry *e, uint64_t region_size,
                             size_t stride, unsigned nr_fds, Error **errp)
{
    const struct vfio_user_io_fd *f = &e->fixed;

    if (f->offset >= region_size || f->size > region_size - f->offset) {
        error_setg(errp, "sub-region 0x%" PRIx64 "+0x%" PRIx64 " is outside "
                   "the region of 0x%" PRIx64 " bytes", f->offset, f->size,
                   region_size);
        return false;
    }
    if (f->type != VFIO_USER_IO_FD_IOEVENTFD &&
        f->type != VFIO_USER_IO_FD_SHADOW) {
        return true;    /* What its other fields mean is not known. */
    }
    if (f->fd_index >= nr_fds) {
        error_setg(errp, "sub-region 0x%" PRIx64 " names descriptor %u, %u "
                   "came", f->offset, f->fd_index, nr_fds);
        return false;
    }
    if (f->type == VFIO_USER_IO_FD_SHADOW && f->shadow_fd_index >= nr_fds) {
        error_setg(errp, "sub-region 0x%" PRIx64 " names descriptor %u for "
                   "its shadow, %u came", f->offset, f->shadow_fd_index,
                   nr_fds);
        return false;
    }
    if (!(f->flags & VFIO_USER_IO_FD_DATAMATCH)) {
        return true;
    }
    if (!f->size) {
        error_setg(errp, "sub-region 0x%" PRIx64 " compares a value with "
                   "writes of any size", f->offset);
        return false;
    }
    if (f->type == VFIO_USER_IO_FD_SHADOW && stride < sizeof(WireEntry)) {
        error_setg(errp, "sub-region 0x%" PRIx64 " compares a value that its "
                   "%zu bytes do not hold", f->offset, stride);
        return false;
    }
    return true;
}

/* Is it one that we can serve? */
static bool entry_usable(const WireEntry *e)
{
    const struct vfio_user_io_fd *f = &e->fixed;
    uint64_t width = f->size ?: 8;

    if ((f->type != VFIO_USER_IO_FD_IOEVENTFD &&
         f->type != VFIO_USER_IO_FD_SHADOW) || f->flags & ~IO_FDS_FLAGS) {
        return false;
    }
    if (width > 8 || !is_power_of_2(width) ||
        (f->size && f->offset % f->size)) {
        return false;
    }
    if (f->type == VFIO_USER_IO_FD_SHADOW &&
        (f->data % width || f->data > INT64_MAX - width)) {
        return false;
    }
    /* No write of this width has the value. */
    return !(f->flags & VFIO_USER_IO_FD_DATAMATCH) || width == 8 ||
           !(wire_value(e) >> 8 * width);
}

static void take_entry(VFIOUserIoFds *out, const WireEntry *e)
{
    const struct vfio_user_io_fd *f = &e->fixed;
    VFIOUserSubRegion *sub = &out->subs[out->nr++];

    *sub = (VFIOUserSubRegion) {
        .offset = f->offset,
        .size = f->size,
        .fd_index = f->fd_index,
        .match = f->flags & VFIO_USER_IO_FD_DATAMATCH,
        .shadow = f->type == VFIO_USER_IO_FD_SHADOW,
    };
    if (sub->match) {
        sub->data = wire_value(e);
    }
    if (sub->shadow) {
        sub->shadow_index = f->shadow_fd_index;
        sub->shadow_offset = f->data;
    }
}

/* Would one write signal both? They begin at the same offset. */
static bool subs_collide(const VFIOUserSubRegion *a,
                         const VFIOUserSubRegion *b)
{
    if (!a->size || !b->size) {
        return true;
    }
    return a->size == b->size &&
           (!a->match || !b->match || a->data == b->data);
}

static int sub_compare(const void *a, const void *b)
{
    uint64_t x = ((const VFIOUserSubRegion *)a)->offset;
    uint64_t y = ((const VFIOUserSubRegion *)b)->offset;

    return x < y ? -1 : x > y;
}

/* Sorts them by offset and looks for writes that two of them claim. */
static bool subs_apart(VFIOUserIoFds *out, Error **errp)
{
    if (out->nr > 1) {
        qsort(out->subs, out->nr, sizeof(*out->subs), sub_compare);
    }
    for (uint32_t i = 0; i < out->nr; i++) {
        const VFIOUserSubRegion *sub = &out->subs[i];

        for (uint32_t j = i + 1; j < out->nr &&
                                 out->subs[j].offset == sub->offset; j++) {
            if (subs_collide(sub, &out->subs[j])) {
                error_setg(errp, "two sub-regions at 0x%" PRIx64 " take the "
                           "same writes", sub->offset);
                return false;
            }
        }
    }
    return true;
}

static bool take_entries(const uint8_t *from, uint32_t count, size_t stride,
                         uint64_t region_size, unsigned nr_fds,
                         VFIOUserIoFds *out, Error **errp)
{
    out->subs = g_new(VFIOUserSubRegion, count);
    for (uint32_t i = 0; i < count; i++) {
        WireEntry e = { 0 };

        memcpy(&e, from + i * stride, MIN(stride, sizeof(e)));
        if (!entry_consistent(&e, region_size, stride, nr_fds, errp)) {
            return false;
        }
        if (entry_usable(&e)) {
            take_entry(out, &e);
        } else {
            out->nr_dropped++;
        }
    }
    return subs_apart(out, errp);
}

static bool take_io_fds(const uint8_t *payload, size_t len, uint32_t index,
                        uint64_t region_size, size_t room, unsigned nr_fds,
                        VFIOUserIoFds *out, Error **errp)
{
    struct vfio_user_io_fds info;
    size_t stride;

    if (len < sizeof(info)) {
        error_setg(errp, "payload of %zu bytes is too short, %zu expected",
                   len, sizeof(info));
        return false;
    }
    memcpy(&info, payload, sizeof(info));
    if (info.index != index) {
        error_setg(errp, "answer is about region %u, not %u", info.index,
                   index);
        return false;
    }
    if (info.argsz < sizeof(info) ||
        info.argsz > VFIO_USER_MAX_IO_FDS_INFO ||
        info.count > VFIO_USER_MAX_IO_FDS) {
        error_setg(errp, "%u sub-regions in argsz %u, at most %u in %u are "
                   "accepted", info.count, info.argsz, VFIO_USER_MAX_IO_FDS,
                   VFIO_USER_MAX_IO_FDS_INFO);
        return false;
    }
    out->needed = info.argsz;
    if (!info.count || out->needed > room) {
        return true;
    }
    stride = (info.argsz - sizeof(info)) / info.count;
    if (stride < sizeof(struct vfio_user_io_fd) ||
        stride * info.count != info.argsz - sizeof(info)) {
        error_setg(errp, "argsz %u does not fit %u sub-regions of at least "
                   "%zu bytes", info.argsz, info.count,
                   sizeof(struct vfio_user_io_fd));
        return false;
    }
    if (len < info.argsz) {
        error_setg(errp, "payload of %zu bytes is too short, %u expected",
                   len, info.argsz);
        return false;
    }
    return take_entries(payload + sizeof(info), info.count, stride,
                        region_size, nr_fds, out, errp);
}

bool vfio_user_wire_check_io_fds(const void *payload, size_t len,
                                 uint32_t index, uint64_t region_size,
                                 size_t room, unsigned nr_fds,
                                 VFIOUserIoFds *out, Error **errp)
{
    memset(out, 0, sizeof(*out));
    if (!take_io_fds(payload, len, index, region_size, room, nr_fds, out,
                     errp)) {
        vfio_user_wire_io_fds_cleanup(out);
        return false;
    }
    return true;
}

void vfio_user_wire_io_fds_cleanup(VFIOUserIoFds *io)
{
    g_clear_pointer(&io->subs, g_free);
    io->nr = 0;
}
