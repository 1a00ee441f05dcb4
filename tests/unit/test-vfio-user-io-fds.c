/*
 * vfio-user: validation of DEVICE_GET_REGION_IO_FDS
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/wire-check.h"
#include "vfio-user-message.h"

/*
 * Reply: u32 argsz 0, flags 4, index 8, count 12; then entries: u64 offset 0,
 * u64 size 8, u32 fd_index 16, u32 type 20, u32 flags 24, u32 shadow fd 28,
 * u64 datamatch or shadow offset 32, and for type 2 u64 datamatch 40.
 */
#define INDEX       2
#define REGION      0x1000
#define NR_FDS      3

typedef struct Entry {
    uint64_t offset, size;
    uint32_t fd, type, flags, shadow_fd;
    uint64_t data, more;
} Entry;

/* Returns the length of the payload. */
static size_t put_reply(Message *m, const Entry *e, unsigned nr, size_t stride)
{
    memset(m, 0, sizeof(*m));
    put32(m, 0, 16 + nr * stride);
    put32(m, 8, INDEX);
    put32(m, 12, nr);
    for (unsigned i = 0; i < nr; i++) {
        size_t at = 16 + i * stride;

        put64(m, at, e[i].offset);
        put64(m, at + 8, e[i].size);
        put32(m, at + 16, e[i].fd);
        put32(m, at + 20, e[i].type);
        put32(m, at + 24, e[i].flags);
        put32(m, at + 28, e[i].shadow_fd);
        put64(m, at + 32, e[i].data);
        if (stride >= 48) {
            put64(m, at + 40, e[i].more);
        }
    }
    return 16 + nr * stride;
}

static bool check(const Message *m, size_t len, VFIOUserIoFds *out,
                  Error **errp)
{
    return vfio_user_wire_check_io_fds(m, len, INDEX, REGION, ROOM, NR_FDS,
                                       out, errp);
}

static void test_fixed(void)
{
    static const struct {
        size_t len;
        uint32_t argsz, index, count;
        const char *text;
    } t[] = {
        { 16, 16, 2, 0, NULL },
        { 17, 16, 2, 0, NULL },
        { 15, 16, 2, 0, "15 bytes is too short" },
        { 0, 16, 2, 0, "0 bytes is too short" },
        { 16, 15, 2, 0, "argsz 15" },
        { 16, 0, 2, 0, "argsz 0" },
        { 16, 0x10000, 2, 0, NULL },
        { 16, 0x10001, 2, 0, "argsz 65537" },
        { 16, 0xffffffff, 2, 0, "argsz 4294967295" },
        { 16, 16, 1, 0, "about region 1, not 2" },
        { 56, 56, 2, 1, NULL },
        { 55, 56, 2, 1, "55 bytes is too short, 56" },
        { 56, 55, 2, 1, "argsz 55 does not fit 1" },
        { 96, 97, 2, 2, "argsz 97 does not fit 2" },
        { 96, 16, 2, 1, "argsz 16 does not fit 1" },
        { 56, 56, 2, 256, "argsz 56 does not fit 256" },
        { 56, 56, 2, 257, "257 sub-regions" },
        { 56, 56, 2, 0xffffffff, "4294967295 sub-regions" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserIoFds out;
        Error *err = NULL;
        Message m;
        bool ok;

        memset(&m, 0, sizeof(m));
        put32(&m, 0, t[i].argsz);
        put32(&m, 8, t[i].index);
        put32(&m, 12, t[i].count);
        ok = check(&m, t[i].len, &out, &err);
        expect(ok, err, t[i].text);
        g_assert_cmpuint(out.nr, ==, ok ? t[i].count : 0);
        vfio_user_wire_io_fds_cleanup(&out);
    }
}

/* More is needed than there was room for: nothing else is looked at. */
static void test_grow(void)
{
    VFIOUserIoFds out;
    Message m;

    memset(&m, 0, sizeof(m));
    put32(&m, 0, 16 + 8 * 40);
    put32(&m, 8, INDEX);
    put32(&m, 12, 8);
    g_assert_true(vfio_user_wire_check_io_fds(&m, 16, INDEX, REGION, 100, 0,
                                              &out, &error_abort));
    g_assert_cmpuint(out.needed, ==, 336);
    g_assert_cmpuint(out.nr, ==, 0);
    g_assert_null(out.subs);
}

/* One entry at a time: taken, left out, or a reason to refuse the answer. */
static void test_entry(void)
{
    enum { TAKEN, DROPPED, REFUSED };
    static const struct {
        Entry e;
        unsigned stride;
        int what;
        const char *text;
    } t[] = {
        { { 0, 4 }, 40, TAKEN },
        { { 0xffc, 4, 2 }, 40, TAKEN },
        { { 0xfff, 1, 2 }, 40, TAKEN },
        { { 0xffe, 2 }, 40, TAKEN },
        { { 0xff8, 8 }, 40, TAKEN },
        { { 0xfff, 0 }, 40, TAKEN },
        { { 0, 4, .flags = 2 }, 40, TAKEN },
        { { 0, 4, .flags = 1, .data = 0xffffffff }, 40, TAKEN },
        { { 0, 8, .flags = 3, .data = UINT64_MAX }, 40, TAKEN },
        { { 0, 4 }, 48, TAKEN },
        { { 0, 4 }, 64, TAKEN },
        { { 0, 4, 0, 2, 0, 1, 0x1004 }, 40, TAKEN },
        { { 0, 4, 0, 2, 0, 2, 0x1004 }, 48, TAKEN },
        { { 0, 0, 0, 2, 0, 1, 0x1008 }, 48, TAKEN },
        { { 0, 4, 0, 2, 1, 1, 0x1004, 7 }, 48, TAKEN },

        /* ioregionfd: neither its descriptor nor its value is looked at */
        { { 0, 4, 0, 1 }, 40, DROPPED },
        { { 0, 4, 9, 1 }, 40, DROPPED },
        { { 0, 0x1000, 0, 1 }, 40, DROPPED },
        { { 0, 4, 9, 3 }, 40, DROPPED },
        { { 0, 4, 9, 0xffffffff }, 40, DROPPED },
        { { 0, 4, .flags = 4 }, 40, DROPPED },
        { { 0, 4, .flags = 0x80000000 }, 40, DROPPED },
        { { 0, 3 }, 40, DROPPED },
        { { 0, 5 }, 40, DROPPED },
        { { 0, 16 }, 40, DROPPED },
        { { 0, 0x1000 }, 40, DROPPED },
        { { 2, 4 }, 40, DROPPED },
        { { 1, 2 }, 40, DROPPED },
        { { 4, 8 }, 40, DROPPED },
        { { 0, 1, .flags = 1, .data = 0x100 }, 40, DROPPED },
        { { 0, 4, .flags = 1, .data = 1ull << 32 }, 40, DROPPED },
        { { 0, 4, 0, 2, 0, 1, 0x1002 }, 48, DROPPED },
        { { 0, 0, 0, 2, 0, 1, 0x1004 }, 48, DROPPED },
        { { 0, 4, 0, 2, 0, 1, 0x8000000000000000 }, 48, DROPPED },
        { { 0, 4, 0, 2, 0, 1, 0x7ffffffffffffffc }, 48, DROPPED },
        { { 0, 4, 0, 2, 1, 1, 0, 1ull << 32 }, 48, DROPPED },

        { { 0x1000, 0 }, 40, REFUSED, "0x1000+0x0 is outside" },
        { { 0x1000, 4 }, 40, REFUSED, "0x1000+0x4 is outside" },
        { { 0xffd, 4 }, 40, REFUSED, "0xffd+0x4 is outside" },
        { { UINT64_MAX, 1 }, 40, REFUSED, "0xffffffffffffffff+0x1 is out" },
        { { 4, UINT64_MAX }, 40, REFUSED, "0x4+0xffffffffffffffff is out" },
        { { 0, 0x1001, 0, 1 }, 40, REFUSED, "0x0+0x1001 is outside" },
        { { 0, 4, 3 }, 40, REFUSED, "descriptor 3, 3 came" },
        { { 0, 4, 0xffffffff }, 40, REFUSED, "descriptor 4294967295, 3" },
        { { 0, 4, 3, 2 }, 48, REFUSED, "descriptor 3, 3 came" },
        { { 0, 4, 0, 2, 0, 3 }, 48, REFUSED, "descriptor 3 for its shadow" },
        { { 0, 0, .flags = 1 }, 40, REFUSED, "writes of any size" },
        { { 0, 0, 0, 2, 1, 1, 0 }, 48, REFUSED, "writes of any size" },
        { { 0, 4, 0, 2, 1, 1, 0 }, 40, REFUSED, "its 40 bytes do not hold" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserIoFds out;
        Error *err = NULL;
        Message m;
        size_t len = put_reply(&m, &t[i].e, 1, t[i].stride);
        bool ok = check(&m, len, &out, &err);

        g_test_message("entry %zu", i);
        expect(ok, err, t[i].text);
        g_assert_cmpint(ok, ==, t[i].what != REFUSED);
        g_assert_cmpuint(out.nr, ==, t[i].what == TAKEN);
        g_assert_cmpuint(out.nr_dropped, ==, t[i].what == DROPPED);
        vfio_user_wire_io_fds_cleanup(&out);
    }
}

/* What is taken comes back as it was described, in order. */
static void test_fields(void)
{
    static const Entry e[] = {
        { 0x80, 4, 2, 2, 1, 1, 0x3000, 0x55 },
        { 0x40, 8, 1, 0, 1, 0, 0x1122334455667788 },
        { 0x40, 4, 0, 0, 0, 0, 0x99 },
        { 0x10, 0, 2, 0, 2 },
    };
    VFIOUserIoFds out;
    Message m;
    size_t len = put_reply(&m, e, ARRAY_SIZE(e), 48);

    g_assert_true(check(&m, len, &out, &error_abort));
    g_assert_cmpuint(out.nr, ==, 4);
    g_assert_cmphex(out.subs[0].offset, ==, 0x10);
    g_assert_cmpuint(out.subs[0].size, ==, 0);
    g_assert_cmpuint(out.subs[0].fd_index, ==, 2);
    g_assert_false(out.subs[0].match);
    g_assert_cmphex(out.subs[1].offset, ==, 0x40);
    g_assert_cmphex(out.subs[2].offset, ==, 0x40);
    for (unsigned i = 1; i <= 2; i++) {
        bool eight = out.subs[i].size == 8;

        g_assert_cmpuint(out.subs[i].fd_index, ==, eight);
        g_assert_cmpint(out.subs[i].match, ==, eight);
        g_assert_cmphex(out.subs[i].data, ==,
                        eight ? 0x1122334455667788 : 0);
        g_assert_false(out.subs[i].shadow);
    }
    g_assert_cmphex(out.subs[3].offset, ==, 0x80);
    g_assert_true(out.subs[3].shadow);
    g_assert_true(out.subs[3].match);
    g_assert_cmphex(out.subs[3].data, ==, 0x55);
    g_assert_cmpuint(out.subs[3].fd_index, ==, 2);
    g_assert_cmpuint(out.subs[3].shadow_index, ==, 1);
    g_assert_cmphex(out.subs[3].shadow_offset, ==, 0x3000);
    vfio_user_wire_io_fds_cleanup(&out);
}

/* Two of them: what one write would signal both of is refused. */
static void test_collision(void)
{
    static const struct {
        Entry e[2];
        bool ok;
    } t[] = {
        { { { 8, 4 }, { 12, 4 } }, true },
        { { { 8, 4 }, { 8, 8 } }, true },
        { { { 8, 4 }, { 10, 2 } }, true },
        { { { 8, 4, .flags = 1, .data = 1 }, { 8, 4, .flags = 1 } }, true },
        { { { 8, 4, .flags = 1 }, { 8, 2, .flags = 1 } }, true },
        { { { 8, 4, .type = 1 }, { 8, 4 } }, true },
        { { { 8, 4 }, { 8, 4 } }, false },
        { { { 8, 4, 0 }, { 8, 4, 1 } }, false },
        { { { 8, 4 }, { 8, 4, .flags = 2 } }, false },
        { { { 8, 0 }, { 8, 4 } }, false },
        { { { 8, 4 }, { 8, 0 } }, false },
        { { { 8, 0 }, { 8, 0 } }, false },
        { { { 8, 4, .flags = 1 }, { 8, 4 } }, false },
        { { { 8, 4, .flags = 1 }, { 8, 4, .flags = 1 } }, false },
        { { { 8, 4 }, { 8, 4, .type = 2 } }, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        VFIOUserIoFds out;
        Error *err = NULL;
        Message m;
        size_t len = put_reply(&m, t[i].e, 2, 48);
        bool ok = check(&m, len, &out, &err);

        g_test_message("pair %zu", i);
        expect(ok, err, t[i].ok ? NULL : "at 0x8 take the same writes");
        vfio_user_wire_io_fds_cleanup(&out);
    }
}

/* As many as are taken; the room of the message is not enough for 256. */
static void test_many(void)
{
    g_autofree Entry *e = g_new0(Entry, 100);
    VFIOUserIoFds out;
    Message m;

    for (unsigned i = 0; i < 100; i++) {
        e[i] = (Entry) { (99 - i) * 8, 8, i % NR_FDS };
    }
    g_assert_true(check(&m, put_reply(&m, e, 100, 40), &out, &error_abort));
    g_assert_cmpuint(out.nr, ==, 100);
    for (unsigned i = 0; i < 100; i++) {
        g_assert_cmphex(out.subs[i].offset, ==, i * 8);
        g_assert_cmpuint(out.subs[i].fd_index, ==, (99 - i) % NR_FDS);
    }
    vfio_user_wire_io_fds_cleanup(&out);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/io-fds/fixed", test_fixed);
    g_test_add_func("/vfio-user/io-fds/grow", test_grow);
    g_test_add_func("/vfio-user/io-fds/entry", test_entry);
    g_test_add_func("/vfio-user/io-fds/fields", test_fields);
    g_test_add_func("/vfio-user/io-fds/collision", test_collision);
    g_test_add_func("/vfio-user/io-fds/many", test_many);
    return g_test_run();
}
