/*
 * vfio-user: fuzzing what is understood of a message
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Input: which function, its arguments, then the payload. What a function said
 * yes to is held to what wire-check.h promises about it.
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include "qapi/error.h"
#include "hw/vfio-user/wire-check.h"
#include "fuzz.h"

/* Alignment of areas; the host's page size in real life */
#define PAGE    4096u

/* Region info -------------------------------------------------------------- */

static void check_areas(const VFIOUserRegionInfo *info)
{
    uint64_t end = 0;

    g_assert_cmpint(info->nr_areas, <=, VFIO_USER_MAX_SPARSE_AREAS);
    g_assert_true(info->has_sparse || !info->nr_areas);
    for (uint32_t i = 0; i < info->nr_areas; i++) {
        const struct vfio_user_sparse_area *a = &info->areas[i];

        g_assert_cmpint(a->size, >, 0);
        g_assert_cmpint((a->offset | a->size) % PAGE, ==, 0);
        g_assert_cmpint(a->offset, >=, end);
        g_assert_cmpint(a->offset, <=, info->size);
        g_assert_cmpint(a->size, <=, info->size - a->offset);
        end = a->offset + a->size;
    }
}

static void check_region_size(const VFIOUserRegionInfo *info)
{
    if (info->index <= 5) {
        g_assert_cmpint(info->size, <=, VFIO_USER_MAX_REGION_SIZE);
        g_assert_cmpint(info->guest_size & (info->guest_size - 1), ==, 0);
        g_assert_cmpint(info->guest_size, >=, info->size);
    } else {
        g_assert_cmpint(info->guest_size, ==, info->size);
        g_assert_cmpint(info->size, <=, info->index == 6 ?
                        VFIO_USER_MAX_ROM_SIZE : VFIO_USER_MAX_OTHER_SIZE);
    }
    if (info->index == 7) {
        g_assert_true(info->size == 256 || info->size == 4096);
    }
}

static void check_mapping(const VFIOUserRegionInfo *info, unsigned nr_fds)
{
    g_assert_cmpint(info->flags & ~7u, ==, 0);
    if (!(info->flags & VFIO_USER_REGION_MMAP)) {
        g_assert_cmpint(info->nr_areas, ==, 0);
        return;
    }
    g_assert_cmpint(nr_fds, >, 0);
    g_assert_cmpint(info->flags, ==, 7);
    g_assert_cmpint(info->offset, <=, INT64_MAX);
    g_assert_cmpint(info->size, <=, INT64_MAX - info->offset);
    if (!info->has_sparse) {
        g_assert_cmpint(info->offset % PAGE, ==, 0);
        g_assert_cmpint(info->size, ==, info->guest_size);
    }
}

/* The chain that hw/vfio follows: every link inside @argsz, no loop. */
static void check_chain(const struct vfio_region_info *dst)
{
    uint32_t low = sizeof(*dst);

    for (uint32_t off = dst->cap_offset; off;) {
        const struct vfio_info_cap_header *cap = (const void *)dst + off;

        g_assert_cmpint(off, >=, low);
        g_assert_cmpint(off + sizeof(*cap), <=, dst->argsz);
        low = off + sizeof(*cap);
        off = cap->next;
    }
}

static void check_to_vfio(const VFIOUserRegionInfo *info, size_t room)
{
    const uint8_t guard = 0xa5;
    g_autofree uint8_t *mem = g_malloc(room + 64);
    struct vfio_region_info *dst = (void *)mem;

    memset(mem, guard, room + 64);
    dst->argsz = room;
    vfio_user_wire_region_info_to_vfio(info, 0, dst);
    for (unsigned i = 0; i < 64; i++) {
        g_assert_cmphex(mem[room + i], ==, guard);
    }
    g_assert_cmpint(dst->argsz, >=, room);
    if (dst->argsz > room) {
        g_assert_cmpint(dst->cap_offset, ==, 0);
        g_assert_cmpint(dst->argsz, <=, VFIO_USER_MAX_REGION_INFO);
    } else {
        check_chain(dst);
    }
}

static void fuzz_region_info(FuzzInput *in)
{
    uint32_t index = fuzz_u8(in) % VFIO_USER_MAX_REGIONS;
    unsigned nr_fds = fuzz_u8(in) % (VFIO_USER_MAX_MSG_FDS + 1);
    size_t room = 32 + fuzz_u16(in), len = room;
    g_autofree uint8_t *payload = fuzz_bytes(in, &len);
    VFIOUserRegionInfo info;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_region_info(payload, len, index, room,
                                               nr_fds, PAGE, &info, &err);

    fuzz_check_error(ok, err);
    if (!ok) {
        g_assert_null(info.areas);
        return;
    }
    g_assert_cmpint(info.needed, <=, VFIO_USER_MAX_REGION_INFO);
    if (info.needed <= room) {
        g_assert_cmpint(info.index, ==, index);
        check_areas(&info);
        check_region_size(&info);
        check_mapping(&info, nr_fds);
        check_to_vfio(&info, sizeof(struct vfio_region_info));
        check_to_vfio(&info, sizeof(struct vfio_region_info) + 24);
        check_to_vfio(&info, 4096);
    }
    vfio_user_wire_region_info_cleanup(&info);
}

static void check_subs(const VFIOUserIoFds *io, uint64_t size,
                       unsigned nr_fds)
{
    g_assert_cmpint(io->nr + io->nr_dropped, <=, VFIO_USER_MAX_IO_FDS);
    for (uint32_t i = 0; i < io->nr; i++) {
        const VFIOUserSubRegion *sub = &io->subs[i];
        uint64_t width = sub->size ? sub->size : 8;

        g_assert_cmpint(width, <=, 8);
        g_assert_cmpint(sub->offset, <, size);
        g_assert_cmpint(sub->size, <=, size - sub->offset);
        g_assert(!sub->size || sub->offset % sub->size == 0);
        g_assert_cmpint(sub->fd_index, <, nr_fds);
        g_assert(!sub->match || sub->size);
        if (sub->shadow) {
            g_assert_cmpint(sub->shadow_index, <, nr_fds);
            g_assert_cmpint(sub->shadow_offset % width, ==, 0);
            g_assert_cmpint(sub->shadow_offset, <=, INT64_MAX - width);
        }
        if (i) {
            g_assert_cmpint(sub[-1].offset, <=, sub->offset);
        }
        /* KVM would refuse a second one, and end QEMU. */
        for (uint32_t j = 0; j < i; j++) {
            const VFIOUserSubRegion *other = &io->subs[j];

            g_assert(other->offset != sub->offset ||
                     (other->size && sub->size &&
                      (other->size != sub->size ||
                       (other->match && sub->match &&
                        other->data != sub->data))));
        }
    }
}

static void fuzz_io_fds(FuzzInput *in)
{
    uint32_t index = fuzz_u8(in) % VFIO_USER_MAX_REGIONS;
    unsigned nr_fds = fuzz_u8(in) % (VFIO_USER_MAX_MSG_FDS + 1);
    uint64_t size = fuzz_u32(in);
    size_t room = 16 + fuzz_u16(in), len = room;
    g_autofree uint8_t *payload = fuzz_bytes(in, &len);
    VFIOUserIoFds io;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_io_fds(payload, len, index, size, room,
                                          nr_fds, &io, &err);

    fuzz_check_error(ok, err);
    if (!ok) {
        g_assert_null(io.subs);
        return;
    }
    g_assert_cmpint(io.needed, <=, VFIO_USER_MAX_IO_FDS_INFO);
    check_subs(&io, size, nr_fds);
    vfio_user_wire_io_fds_cleanup(&io);
}

/* The others --------------------------------------------------------------- */

static void fuzz_header(FuzzInput *in)
{
    uint16_t command = fuzz_u16(in);
    size_t min = fuzz_u16(in), max = fuzz_u32(in);
    struct vfio_user_header hdr;
    Error *err = NULL;
    bool ok;
    int ret;

    fuzz_take(in, &hdr, sizeof(hdr));
    ok = vfio_user_wire_check_header(&hdr, max, &err);
    fuzz_check_error(ok, err);
    if (ok) {
        g_assert_cmpint(hdr.size, >=, 16);
        g_assert_cmpint(hdr.size - 16, <=, max);
    }
    err = NULL;
    if (vfio_user_wire_check_reply(&hdr, command, min, max, &err)) {
        g_assert_true(ok);
        g_assert_cmpint(hdr.command, ==, command);
        g_assert_true((hdr.flags & 0x20) || hdr.size - 16 >= min);
    }
    error_free(err);
    ret = vfio_user_wire_reply_error(&hdr);
    g_assert_cmpint(ret, >=, -4095);
    g_assert_true((hdr.flags & 0x20) ? ret < 0 : !ret);
}

static void fuzz_version(FuzzInput *in)
{
    size_t len;
    g_autofree uint8_t *payload = fuzz_rest(in, &len);
    Error *err = NULL;
    bool ok = vfio_user_wire_check_version((void *)payload, len, &err);

    fuzz_check_error(ok, err);
}

static void fuzz_device_info(FuzzInput *in)
{
    size_t len;
    g_autofree uint8_t *payload = fuzz_rest(in, &len);
    struct vfio_user_device_info out;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_device_info((void *)payload, len, &out,
                                               &err);

    fuzz_check_error(ok, err);
    if (ok) {
        g_assert_cmpint(out.flags & ~1u, ==, 2);
        g_assert_cmpint(out.num_regions, >, 7);
        g_assert_cmpint(out.num_regions, <=, VFIO_USER_MAX_REGIONS);
        g_assert_cmpint(out.num_irqs, >, 2);
        g_assert_cmpint(out.num_irqs, <=, VFIO_USER_MAX_IRQS);
    }
}

static void fuzz_irq_info(FuzzInput *in)
{
    uint32_t index = fuzz_u8(in);
    size_t len;
    g_autofree uint8_t *payload = fuzz_rest(in, &len);
    struct vfio_user_irq_info out;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_irq_info((void *)payload, len, index, &out,
                                            &err);

    fuzz_check_error(ok, err);
    if (ok) {
        g_assert_cmpint(out.index, ==, index);
        g_assert_cmpint(out.flags & ~15u, ==, 0);
        g_assert_cmpint(out.count, <=, index == 1 ? 32 :
                        index == 2 || index > 4 ? 2048 : 1);
    }
}

static void fuzz_region_rw(FuzzInput *in)
{
    bool is_write = fuzz_u8(in) & 1;
    struct vfio_user_region_rw req;
    g_autofree uint8_t *payload = NULL;
    Error *err = NULL;
    size_t len;
    bool ok;

    fuzz_take(in, &req, sizeof(req));
    payload = fuzz_rest(in, &len);
    ok = vfio_user_wire_check_region_rw((void *)payload, len, &req, is_write,
                                        &err);
    fuzz_check_error(ok, err);
    if (ok) {
        g_assert_cmpint(len, ==, 16 + (is_write ? 0 : (size_t)req.count));
        g_assert_cmpmem(payload, 16, &req, 16);
    }
}

static void fuzz_dma_unmap(FuzzInput *in)
{
    struct vfio_user_dma_unmap req;
    g_autofree uint8_t *payload = NULL;
    Error *err = NULL;
    size_t len;
    bool ok;

    fuzz_take(in, &req, sizeof(req));
    payload = fuzz_rest(in, &len);
    ok = vfio_user_wire_check_dma_unmap((void *)payload, len, &req, &err);
    fuzz_check_error(ok, err);
    if (ok && len) {
        g_assert_cmpmem(payload + 8, 16, &req.addr, 16);
    }
}

static void fuzz_dma(FuzzInput *in)
{
    uint64_t max_xfer = fuzz_u32(in);
    struct vfio_user_header hdr;
    struct vfio_user_dma_rw req;
    Error *err = NULL;
    bool ok;

    fuzz_take(in, &hdr, sizeof(hdr));
    fuzz_take(in, &req, sizeof(req));
    if (!vfio_user_wire_check_header(&hdr, UINT32_MAX, NULL)) {
        return;
    }
    ok = vfio_user_wire_check_dma(&hdr, &req, max_xfer, &err);
    fuzz_check_error(ok, err);
    if (ok) {
        g_assert_cmpint(req.count, <=, max_xfer);
        g_assert_true(req.addr + req.count >= req.addr);
        g_assert_cmpint(hdr.size, ==, 32 + (hdr.command == 12 ? req.count
                                                               : 0));
    }
}

/* Migration ---------------------------------------------------------------- */

static void fuzz_feature(FuzzInput *in)
{
    uint32_t flags = fuzz_u32(in);
    size_t min = fuzz_u8(in), max = min + fuzz_u16(in), len;
    g_autofree uint8_t *payload = fuzz_rest(in, &len);
    struct vfio_user_feature rep;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_feature((void *)payload, len, flags, min,
                                           max, &err);

    fuzz_check_error(ok, err);
    if (ok) {
        memcpy(&rep, payload, sizeof(rep));
        g_assert_cmphex(rep.flags & 0x7ffff, ==, flags & 0x7ffff);
        g_assert_cmpint(len, >=, 8 + min);
        g_assert_cmpint(len, <=, 8 + max);
    }
}

static void fuzz_migration(FuzzInput *in)
{
    struct vfio_user_feature_migration rep = { .flags = fuzz_u64(in) };
    uint64_t page = fuzz_u64(in), length = fuzz_u64(in), flags;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_migration(&rep, &flags, &err);

    fuzz_check_error(ok, err);
    g_assert_true(!ok || !flags || (flags & 1));
    g_assert_cmphex(flags & ~7ull, ==, 0);

    err = NULL;
    ok = vfio_user_wire_check_log_page(page, &err);
    fuzz_check_error(ok, err);
    if (ok) {
        size_t bytes = vfio_user_wire_report_len(length, page);
        uint64_t bits = (uint64_t)bytes * 8;

        g_assert_cmpint(page & (page - 1), ==, 0);
        g_assert_cmpint(bytes % 8, ==, 0);
        /* One bit for each page begun, and less than a word to spare. */
        g_assert_cmpint(bits, >=, length / page + !!(length % page));
        g_assert_cmpint(bits, <, length / page + 1 + 64);
    }
}

static void fuzz_report(FuzzInput *in)
{
    struct vfio_user_feature_dma_report rep, req;
    Error *err = NULL;
    bool ok;

    fuzz_take(in, &req, sizeof(req));
    fuzz_take(in, &rep, sizeof(rep));
    ok = vfio_user_wire_check_report(&rep, &req, &err);
    fuzz_check_error(ok, err);
    g_assert_true(ok == !memcmp(&rep, &req, sizeof(rep)));
}

static void fuzz_mig_data(FuzzInput *in)
{
    uint32_t room = fuzz_u32(in);
    size_t len;
    g_autofree uint8_t *payload = fuzz_rest(in, &len);
    struct vfio_user_mig_data rep;
    Error *err = NULL;
    bool ok = vfio_user_wire_check_mig_data((void *)payload, len, room, &err);

    fuzz_check_error(ok, err);
    if (ok) {
        memcpy(&rep, payload, sizeof(rep));
        g_assert_cmpint(rep.size, <=, room);
        g_assert_cmpint(8 + (size_t)rep.size, <=, len);
    }
}

void fuzz_wire(FuzzInput *in)
{
    static void (*const functions[])(FuzzInput *in) = {
        fuzz_region_info, fuzz_header, fuzz_version, fuzz_device_info,
        fuzz_irq_info, fuzz_region_rw, fuzz_dma_unmap, fuzz_dma, fuzz_feature,
        fuzz_migration, fuzz_report, fuzz_mig_data, fuzz_io_fds,
    };

    functions[fuzz_u8(in) % ARRAY_SIZE(functions)](in);
}
