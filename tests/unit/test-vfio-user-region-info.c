/*
 * vfio-user: validation of DEVICE_GET_REGION_INFO replies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include "qemu/bswap.h"
#include "hw/vfio-user/wire-check.h"
#include "vfio-user-message.h"

#define PAGE    0x1000

/*
 * DEVICE_GET_REGION_INFO: argsz 0, flags 4, index 8, cap_offset 12, size 16,
 * offset 24; 32 bytes. Flags: 1 read, 2 write, 4 mmap, 8 capabilities.
 */

static void put_region(Message *m, uint32_t argsz, uint32_t flags,
                       uint32_t index, uint64_t size, uint64_t offset)
{
    memset(m, 0, sizeof(*m));
    put32(m, 0, argsz);
    put32(m, 4, flags);
    put32(m, 8, index);
    put32(m, 12, flags & 8 ? 32 : 0);
    put64(m, 16, size);
    put64(m, 24, offset);
}

static bool check_region(Message *m, size_t len, uint32_t index,
                         unsigned nr_fds, VFIOUserRegionInfo *out, Error **errp)
{
    return vfio_user_wire_check_region_info(m, len, index, ROOM, nr_fds, PAGE,
                                            out, errp);
}

static void test_region_fixed(void)
{
    static const struct {
        uint32_t argsz, index, asked;
        uint64_t size, offset;
        size_t len;
        uint64_t guest_size;
        const char *text;
    } t[] = {
        /* BARs: anything up to 1 TiB, seen as a power of two */
        { 32, 0, 0, 0, 0, 32, 0, NULL },
        { 32, 0, 0, 0x1000, 0, 32, 0x1000, NULL },
        { 32, 5, 5, 0x3000, 0, 32, 0x4000, NULL },
        { 32, 2, 2, 1, 0, 32, 4, NULL },
        { 32, 0, 0, 1ULL << 40, 0, 32, 1ULL << 40, NULL },
        { 32, 0, 0, (1ULL << 40) + 1, 0, 32, 0, "size 0x10000000001" },
        { 32, 0, 0, UINT64_MAX, 0, 32, 0, "size 0xffffffffffffffff" },
        /* ROM */
        { 32, 6, 6, 0x1800, 0, 32, 0x1800, NULL },
        { 32, 6, 6, 0x1000001, 0, 32, 0, "size 0x1000001" },
        /* config space */
        { 32, 7, 7, 256, 0, 32, 256, NULL },
        { 32, 7, 7, 4096, 0, 32, 4096, NULL },
        { 32, 7, 7, 0, 0, 32, 0, "config space" },
        { 32, 7, 7, 255, 0, 32, 0, "config space" },
        { 32, 7, 7, 300, 0, 32, 0, "config space" },
        { 32, 7, 7, 8192, 0, 32, 0, "config space" },
        /* whatever else there is */
        { 32, 9, 9, 0x4000000, 0, 32, 0x4000000, NULL },
        { 32, 9, 9, 0x4000001, 0, 32, 0, "size 0x4000001" },
        /* the answer itself */
        { 32, 1, 0, 0x1000, 0, 32, 0, "about region 1, not 0" },
        { 31, 0, 0, 0x1000, 0, 32, 0, "argsz 31" },
        { 0x10001, 0, 0, 0x1000, 0, 32, 0, "argsz 65537" },
        { 0xffffffff, 0, 0, 0x1000, 0, 32, 0, "argsz 4294967295" },
        { 32, 0, 0, 0x1000, 0, 31, 0, "too short" },
        { 64, 0, 0, 0x1000, 0, 63, 0, "too short" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserRegionInfo out;
        Message m;
        Error *err = NULL;
        bool ok;

        put_region(&m, t[i].argsz, 3, t[i].index, t[i].size, t[i].offset);
        ok = check_region(&m, t[i].len, t[i].asked, 0, &out, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_cmphex(out.size, ==, t[i].size);
            g_assert_cmphex(out.guest_size, ==, t[i].guest_size);
            g_assert_cmpuint(out.flags, ==, 3);
            g_assert_cmpuint(out.needed, ==, t[i].argsz);
        }
        vfio_user_wire_region_info_cleanup(&out);
    }
}

static void test_region_grow(void)
{
    VFIOUserRegionInfo out;
    Message m;

    put_region(&m, ROOM + 1, 3, 0, UINT64_MAX, 0);
    g_assert_true(check_region(&m, 32, 0, 0, &out, &error_abort));
    g_assert_cmpuint(out.needed, ==, ROOM + 1);
    g_assert_cmpuint(out.flags, ==, 0);
    g_assert_cmpuint(out.size, ==, 0);
}

static void test_region_mapping(void)
{
    static const struct {
        uint32_t flags;
        unsigned nr_fds;
        uint64_t size, offset;
        bool map;
        unsigned nr_dropped;
        int64_t whole; /* -1: all of it, else the one area's size or 0 */
        const char *text;
    } t[] = {
        { 7, 1, 0x2000, 0x5000, true, 0, -1, NULL },
        { 7, 3, 0x2000, 0, true, 0, -1, NULL },
        { 7, 1, 0x100, 0, true, 0, -1, NULL },
        { 0xfffffff7, 1, 0x2000, 0, true, 0, -1, NULL },
        /* nothing to map, or not for both directions */
        { 7, 0, 0x2000, 0, false, 0, -1, NULL },
        { 3, 1, 0x2000, 0, false, 0, -1, NULL },
        { 5, 1, 0x2000, 0, false, 0, -1, NULL },
        { 6, 1, 0x2000, 0, false, 0, -1, NULL },
        { 7, 1, 0, 0, false, 0, -1, NULL },
        /* no power of two: only what is there */
        { 7, 1, 0x3000, 0, true, 0, 0x3000, NULL },
        { 7, 1, 0x3008, 0, true, 0, 0x3000, NULL },
        { 7, 1, 0x18, 0, true, 0, 0, NULL },
        /* offsets */
        { 7, 1, 0x2000, 0x800, false, 1, -1, NULL },
        { 7, 1, 0x2000, INT64_MAX - 0x2fff, true, 0, -1, NULL },
        { 7, 1, 0x2000, INT64_MAX - 0x1fff, false, 0, 0, "file offset" },
        { 7, 1, 0x2000, INT64_MAX - 0xfff, false, 0, 0, "file offset" },
        { 7, 1, 0x2000, UINT64_MAX - 0xfff, false, 0, 0, "file offset" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserRegionInfo out;
        Message m;
        Error *err = NULL;
        bool ok;

        put_region(&m, 32, t[i].flags & ~8u, 0, t[i].size, t[i].offset);
        ok = check_region(&m, 32, 0, t[i].nr_fds, &out, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_cmpuint(!!(out.flags & 4), ==, t[i].map);
            g_assert_cmpuint(out.flags & ~7u, ==, 0);
            g_assert_cmpuint(out.nr_dropped, ==, t[i].nr_dropped);
            g_assert_cmpuint(out.has_sparse, ==, t[i].whole >= 0);
            g_assert_cmpuint(out.nr_areas, ==, t[i].whole > 0);
            if (t[i].whole > 0) {
                g_assert_cmphex(out.areas[0].offset, ==, 0);
                g_assert_cmphex(out.areas[0].size, ==, t[i].whole);
            }
        }
        vfio_user_wire_region_info_cleanup(&out);
    }
}

/*
 * Capability header: u16 id, u16 version, u32 next. Sparse mmap (id 1): u32
 * nr_areas at 8, reserved at 12, pairs of u64 from 16 on. Type (id 2): u32
 * type at 8, u32 subtype at 12.
 */

static void put_cap(Message *m, size_t off, uint16_t id, uint32_t next,
                    uint32_t a, uint32_t b)
{
    put16(m, off, id);
    put16(m, off + 2, 1);
    put32(m, off + 4, next);
    put32(m, off + 8, a);
    put32(m, off + 12, b);
}

typedef struct Area {
    uint64_t off, len;
} Area;

static void test_region_sparse(void)
{
    static const struct {
        uint32_t claimed, nr;
        Area in[4];
        uint32_t nr_out, nr_dropped;
        Area out[4];
        const char *text;
    } t[] = {
        { 0, 0, {}, 0, 0, {}, NULL },
        { 1, 1, { { 0, 0x8000 } }, 1, 0, { { 0, 0x8000 } }, NULL },
        { 2, 2, { { 0x1000, 0x1000 }, { 0x4000, 0x1000 } },
          2, 0, { { 0x1000, 0x1000 }, { 0x4000, 0x1000 } }, NULL },
        /* out of order, touching, and an empty one */
        { 3, 3, { { 0x4000, 0x1000 }, { 0x3000, 0x1000 }, { 0, 0 } },
          2, 0, { { 0x3000, 0x1000 }, { 0x4000, 0x1000 } }, NULL },
        /* not page aligned: left out */
        { 3, 3, { { 0x800, 0x1000 }, { 0x2000, 0x1000 }, { 0x4000, 0x10 } },
          1, 2, { { 0x2000, 0x1000 } }, NULL },
        { 1, 1, { { 0x8000, 0x1000 } }, 0, 0, {}, "outside" },
        { 1, 1, { { 0x7000, 0x2000 } }, 0, 0, {}, "outside" },
        { 1, 1, { { 0x9000, 0 } }, 0, 0, {}, "outside" },
        { 1, 1, { { UINT64_MAX - 0xfff, 0x2000 } }, 0, 0, {}, "outside" },
        { 1, 1, { { 0x1000, UINT64_MAX - 0xfff } }, 0, 0, {}, "outside" },
        { 2, 2, { { 0x1000, 0x2000 }, { 0x2000, 0x1000 } }, 0, 0, {},
          "overlap" },
        { 2, 2, { { 0x2000, 0x1000 }, { 0x2000, 0x1000 } }, 0, 0, {},
          "overlap" },
        /* more than came */
        { 2, 1, { { 0, 0x1000 } }, 0, 0, {}, "claims 2 areas" },
        { 0x10000000, 1, { { 0, 0x1000 } }, 0, 0, {}, "claims 268435456" },
        { 0xffffffff, 1, { { 0, 0x1000 } }, 0, 0, {}, "claims 4294967295" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        size_t len = 32 + 16 + 16 * t[i].nr;
        VFIOUserRegionInfo out;
        Message m;
        Error *err = NULL;
        bool ok;

        put_region(&m, len, 0xf, 1, 0x8000, 0x10000);
        put_cap(&m, 32, 1, 0, t[i].claimed, 0);
        for (uint32_t j = 0; j < t[i].nr; j++) {
            put64(&m, 48 + 16 * j, t[i].in[j].off);
            put64(&m, 56 + 16 * j, t[i].in[j].len);
        }
        ok = check_region(&m, len, 1, 1, &out, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_true(out.has_sparse);
            g_assert_cmpuint(out.nr_areas, ==, t[i].nr_out);
            g_assert_cmpuint(out.nr_dropped, ==, t[i].nr_dropped);
            for (uint32_t j = 0; j < out.nr_areas; j++) {
                g_assert_cmphex(out.areas[j].offset, ==, t[i].out[j].off);
                g_assert_cmphex(out.areas[j].size, ==, t[i].out[j].len);
            }
        }
        vfio_user_wire_region_info_cleanup(&out);
    }
}

static void test_region_sparse_many(void)
{
    VFIOUserRegionInfo out;
    Message m;
    Error *err = NULL;

    for (uint32_t nr = 128; nr <= 129; nr++) {
        size_t len = 48 + 16 * nr;
        bool ok;

        put_region(&m, len, 0xf, 0, 0x1000000, 0);
        put_cap(&m, 32, 1, 0, nr, 0);
        for (uint32_t j = 0; j < nr; j++) {
            put64(&m, 48 + 16 * j, j * 0x2000);
            put64(&m, 56 + 16 * j, 0x1000);
        }
        ok = check_region(&m, len, 0, 1, &out, &err);
        expect(ok, err, nr > 128 ? "claims 129 areas" : NULL);
        vfio_user_wire_region_info_cleanup(&out);
    }
}

static void test_region_chain(void)
{
    static const struct {
        uint32_t first;
        struct {
            uint32_t off, id, next, a;
        } cap[3];
        size_t len;
        bool type, sparse;
        const char *text;
    } t[] = {
        { 0, {}, 32, false, false, NULL },
        { 32, { { 32, 2, 0, 7 } }, 48, true, false, NULL },
        { 32, { { 32, 2, 48, 7 }, { 48, 1, 0, 0 } }, 64, true, true, NULL },
        { 40, { { 40, 1, 56, 0 }, { 56, 2, 0, 7 } }, 72, true, true, NULL },
        { 32, { { 32, 77, 48, 0 }, { 48, 2, 0, 7 } }, 64, true, false, NULL },
        /* not at a multiple of anything */
        { 33, { { 33, 2, 0, 7 } }, 49, true, false, NULL },
        /* outside the payload */
        { 4, { { 32, 2, 0, 7 } }, 48, false, false, "at offset 4 " },
        { 31, { { 32, 2, 0, 7 } }, 48, false, false, "at offset 31 " },
        { 48, { { 32, 2, 0, 7 } }, 48, false, false, "at offset 48 " },
        { 41, { { 32, 2, 0, 7 } }, 48, false, false, "at offset 41 " },
        { 0xfffffffe, { { 32, 2, 0, 7 } }, 48, false, false,
          "at offset 4294967294 " },
        { 32, { { 32, 2, 0x1000, 7 } }, 48, false, false, "at offset 4096 " },
        /* back into itself */
        { 32, { { 32, 2, 32, 7 } }, 48, false, false, "at offset 32 " },
        { 32, { { 32, 2, 48, 7 }, { 48, 77, 32, 0 } }, 64, false, false,
          "at offset 32 " },
        { 32, { { 32, 77, 36, 7 } }, 48, false, false, "at offset 36 " },
        /* cut off */
        { 32, { { 32, 2, 0, 7 } }, 47, false, false, "type capability" },
        { 32, { { 32, 1, 0, 0 } }, 47, false, false, "sparse mmap cap" },
        { 32, { { 32, 1, 48, 0 }, { 48, 1, 0, 0 } }, 64, false, false,
          "two sparse" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserRegionInfo out;
        Message m;
        Error *err = NULL;
        bool ok;

        put_region(&m, t[i].len, 0xf, 0, 0x2000, 0);
        put32(&m, 12, t[i].first);
        for (size_t j = 0; j < 3 && t[i].cap[j].off; j++) {
            put_cap(&m, t[i].cap[j].off, t[i].cap[j].id, t[i].cap[j].next,
                    t[i].cap[j].a, 9);
        }
        ok = check_region(&m, t[i].len, 0, 1, &out, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_cmpuint(out.has_type, ==, t[i].type);
            g_assert_cmpuint(out.has_sparse, ==, t[i].sparse);
            g_assert_cmpuint(out.type, ==, t[i].type ? 7 : 0);
        } else {
            g_assert_null(out.areas);
        }
        vfio_user_wire_region_info_cleanup(&out);
    }
}

/* Without the flag nobody may follow cap_offset. */
static void test_region_no_caps(void)
{
    VFIOUserRegionInfo out;
    Message m;

    put_region(&m, 48, 7, 0, 0x2000, 0);
    put32(&m, 12, 32);
    put_cap(&m, 32, 2, 32, 7, 9);
    g_assert_true(check_region(&m, 48, 0, 1, &out, &error_abort));
    g_assert_false(out.has_type);
    vfio_user_wire_region_info_cleanup(&out);
}

/* What hw/vfio reads: struct vfio_region_info has the offsets given above. */
static void test_region_to_vfio(void)
{
    struct vfio_user_sparse_area areas[2] = { { 0, 0x1000 }, { 0x2000, 0x1000 } };
    VFIOUserRegionInfo info = {
        .flags = 7,
        .index = 4,
        .size = 0x3000,
        .guest_size = 0x4000,
        .has_sparse = true,
        .nr_areas = 2,
        .areas = areas,
        .has_type = true,
        .type = 0x11,
        .subtype = 0x22,
    };
    const size_t full = 32 + 16 + 16 + 2 * 16;
    g_autofree struct vfio_region_info *v = g_malloc0(full);
    const uint8_t *b = (const uint8_t *)v;

    v->argsz = 32;
    vfio_user_wire_region_info_to_vfio(&info, 4ULL << 40, v);
    g_assert_cmpuint(v->argsz, ==, full);
    g_assert_cmpuint(v->flags, ==, 0xf);
    g_assert_cmpuint(v->cap_offset, ==, 0);
    g_assert_cmphex(v->size, ==, 0x4000);
    g_assert_cmphex(v->offset, ==, 4ULL << 40);

    v->argsz = full;
    vfio_user_wire_region_info_to_vfio(&info, 4ULL << 40, v);
    g_assert_cmpuint(v->argsz, ==, full);
    g_assert_cmpuint(v->index, ==, 4);
    g_assert_cmpuint(v->cap_offset, ==, 32);
    g_assert_cmpuint(ldl_he_p(b + 32), ==, 0x00010002);
    g_assert_cmpuint(ldl_he_p(b + 36), ==, 48);
    g_assert_cmpuint(ldl_he_p(b + 40), ==, 0x11);
    g_assert_cmpuint(ldl_he_p(b + 44), ==, 0x22);
    g_assert_cmpuint(ldl_he_p(b + 48), ==, 0x00010001);
    g_assert_cmpuint(ldl_he_p(b + 52), ==, 0);
    g_assert_cmpuint(ldl_he_p(b + 56), ==, 2);
    g_assert_cmphex(ldq_he_p(b + 80), ==, 0x2000);
    g_assert_cmphex(ldq_he_p(b + 88), ==, 0x1000);

    info.has_sparse = info.has_type = false;
    info.flags = 1;
    v->argsz = 32;
    vfio_user_wire_region_info_to_vfio(&info, 0, v);
    g_assert_cmpuint(v->argsz, ==, 32);
    g_assert_cmpuint(v->flags, ==, 1);
    g_assert_cmpuint(v->cap_offset, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/region-info/fixed", test_region_fixed);
    g_test_add_func("/vfio-user/region-info/grow", test_region_grow);
    g_test_add_func("/vfio-user/region-info/mapping", test_region_mapping);
    g_test_add_func("/vfio-user/region-info/sparse", test_region_sparse);
    g_test_add_func("/vfio-user/region-info/sparse-many",
                    test_region_sparse_many);
    g_test_add_func("/vfio-user/region-info/chain", test_region_chain);
    g_test_add_func("/vfio-user/region-info/no-caps", test_region_no_caps);
    g_test_add_func("/vfio-user/region-info/to-vfio", test_region_to_vfio);
    return g_test_run();
}
