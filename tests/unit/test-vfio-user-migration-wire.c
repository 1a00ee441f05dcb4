/*
 * vfio-user: validation of messages for migration and dirty logging
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/vfio-user/wire-check.h"
#include "vfio-user-message.h"

/*
 * DEVICE_FEATURE: u32 argsz at 0, u32 flags at 4 (bits 0-15 index, 16 get,
 * 17 set, 18 probe), data at 8
 */

static void test_feature_flags(void)
{
    static const struct {
        uint32_t asked, answered;
        const char *text;
    } t[] = {
        { 0x10001, 0x10001, NULL },
        { 0x20002, 0x20002, NULL },
        { 0x60006, 0x60006, NULL },
        { 0x10008, 0x10008, NULL },
        { 0x1ffff, 0x1ffff, NULL },
        { 0x10000, 0x10000, NULL },
        /* Bits that nobody knows are nobody's business. */
        { 0x10001, 0x90001, NULL },
        { 0x10001, 0xfff90001, NULL },
        { 0x10001, 0xfff80001, "flags 0xfff80001, not 0x10001" },
        { 0x10001, 0x10000, "flags 0x10000, not 0x10001" },
        { 0x10001, 0x10002, "flags 0x10002, not 0x10001" },
        { 0x10001, 0x18001, "flags 0x18001, not 0x10001" },
        { 0x10001, 0x00001, "flags 0x1, not 0x10001" },
        { 0x10001, 0x20001, "flags 0x20001, not 0x10001" },
        { 0x10001, 0x30001, "flags 0x30001, not 0x10001" },
        { 0x10001, 0x50001, "flags 0x50001, not 0x10001" },
        { 0x60006, 0x20006, "flags 0x20006, not 0x60006" },
        { 0x60006, 0x40006, "flags 0x40006, not 0x60006" },
        { 0x20002, 0, "flags 0x0, not 0x20002" },
        { 0x20002, 0xffffffff, "flags 0xffffffff, not 0x20002" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 0, 16);
        put32(&m, 4, t[i].answered);
        ok = vfio_user_wire_check_feature((void *)&m, 8, t[i].asked, 0, 0,
                                          &err);
        expect(ok, err, t[i].text);
    }
}

static void test_feature_len(void)
{
    static const struct {
        size_t len, min, max;
        const char *text;
    } t[] = {
        { 8, 0, 0, NULL },
        { 7, 0, 0, "too short" },
        { 4, 0, 8, "too short" },
        { 0, 0, 0, "too short" },
        { 9, 0, 0, "9 bytes, at most 8 expected" },
        { 8, 0, 8, NULL },
        { 12, 0, 8, NULL },
        { 16, 8, 8, NULL },
        { 15, 8, 8, "too short" },
        { 8, 8, 8, "too short" },
        { 17, 8, 8, "17 bytes, at most 16 expected" },
        { 23, 16, 32, "too short" },
        { 24, 16, 32, NULL },
        { 40, 16, 32, NULL },
        { 41, 16, 32, "41 bytes, at most 40 expected" },
        { 0xffffffff, 16, 32, "at most 40 expected" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 4, 0x10001);
        ok = vfio_user_wire_check_feature((void *)&m, t[i].len, 0x10001,
                                          t[i].min, t[i].max, &err);
        expect(ok, err, t[i].text);
    }
}

/* What a reply puts into argsz tells nothing that its size does not. */
static void test_feature_argsz(void)
{
    static const uint32_t argsz[] = { 0, 1, 7, 8, 15, 16, 17, 0xffffffff };

    for (size_t i = 0; i < ARRAY_SIZE(argsz); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 0, argsz[i]);
        put32(&m, 4, 0x10001);
        ok = vfio_user_wire_check_feature((void *)&m, 16, 0x10001, 8, 8, &err);
        expect(ok, err, NULL);
    }
}

/* Feature MIGRATION: u64 flags; bit 0 stop-copy, 1 p2p, 2 pre-copy */

static void test_migration(void)
{
    static const struct {
        uint64_t answered, flags;
        const char *text;
    } t[] = {
        { 0, 0, NULL },
        { 1, 1, NULL },
        { 3, 3, NULL },
        { 5, 5, NULL },
        { 7, 7, NULL },
        { 2, 0, "0x2 lack stop-copy" },
        { 4, 0, "0x4 lack stop-copy" },
        { 6, 0, "0x6 lack stop-copy" },
        { 8, 0, NULL },
        { 9, 1, NULL },
        { 0x8000000000000000, 0, NULL },
        { 0xfffffffffffffff8, 0, NULL },
        { 0xfffffffffffffffe, 0, "0xfffffffffffffffe lack stop-copy" },
        { 0xffffffffffffffff, 7, NULL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        uint64_t flags = UINT64_MAX;
        bool ok;

        put64(&m, 0, t[i].answered);
        ok = vfio_user_wire_check_migration((void *)&m, &flags, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_cmphex(flags, ==, t[i].flags);
        }
    }
}

/* Feature DMA_LOGGING_START: the answered page size */

static void test_log_page(void)
{
    static const struct {
        uint64_t size;
        bool ok;
    } t[] = {
        { 0, false },
        { 1, false },
        { 256, false },
        { 511, false },
        { 512, true },
        { 513, false },
        { 1024, true },
        { 4095, false },
        { 4096, true },
        { 4097, false },
        { 6144, false },
        { 65536, true },
        { 2097152, true },
        { 0x3fffffff, false },
        { 0x40000000, true },
        { 0x40000001, false },
        { 0x80000000, false },
        { 0x100000000, false },
        { 0x100001000, false },
        { 0x8000000000000000, false },
        { 0xffffffffffffffff, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        g_autofree char *text = g_strdup_printf("page size %" PRIu64 " is not",
                                                t[i].size);
        Error *err = NULL;
        bool ok = vfio_user_wire_check_log_page(t[i].size, &err);

        expect(ok, err, t[i].ok ? NULL : text);
    }
}

/* A bit for each page, in u64 words: 8 bytes for 64 pages */

static void test_report_len(void)
{
    static const struct {
        uint64_t length, page_size;
        size_t len;
    } t[] = {
        { 1, 4096, 8 },
        { 4095, 4096, 8 },
        { 4096, 4096, 8 },
        { 4097, 4096, 8 },
        { 63 * 4096, 4096, 8 },
        { 64 * 4096 - 1, 4096, 8 },
        { 64 * 4096, 4096, 8 },
        { 64 * 4096 + 1, 4096, 16 },
        { 65 * 4096, 4096, 16 },
        { 128 * 4096, 4096, 16 },
        { 512, 512, 8 },
        { 32768, 512, 8 },
        { 32769, 512, 16 },
        { 4096, 2097152, 8 },
        { 128 * 2097152, 2097152, 16 },
        { 128 * 2097152 + 4096, 2097152, 24 },
        { 64 * GiB, 4096, 2097152 },
        { 64 * GiB, 512, 16777216 },
        { 1ull << 63, 4096, 1ull << 48 },
        { 0xffffffffffffffff, 4096, 1ull << 49 },
        { 0xffffffffffffffff, 0x40000000, 1ull << 31 },
        { 0xffffffffffffffff, 512, 1ull << 52 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        g_assert_cmpuint(vfio_user_wire_report_len(t[i].length,
                                                   t[i].page_size), ==,
                         t[i].len);
    }
}

/* Feature DMA_LOGGING_REPORT: u64 iova at 0, u64 length 8, u64 page_size 16 */

static void test_report(void)
{
    static const struct {
        uint64_t iova, length, page_size;
        const char *text;
    } t[] = {
        { 0x100000000, 0x40000000, 4096, NULL },
        { 0, 0x40000000, 4096, "answer is about 0x0+0x40000000" },
        { 0x100000001, 0x40000000, 4096, "answer is about 0x100000001+" },
        { 0xffffffff, 0x40000000, 4096, "answer is about 0xffffffff+" },
        { 0xffffffffffffffff, 0x40000000, 4096, "answer is about" },
        { 0x100000000, 0, 4096, "answer is about 0x100000000+0x0 " },
        { 0x100000000, 0x3fffffff, 4096, "answer is about" },
        { 0x100000000, 0x40000001, 4096, "answer is about" },
        { 0x100000000, 0x40001000, 4096, "answer is about" },
        { 0x100000000, 0xffffffffffffffff, 4096, "answer is about" },
        { 0x100000000, 0x40000000, 0, "in pages of 0, not" },
        { 0x100000000, 0x40000000, 1, "in pages of 1, not" },
        { 0x100000000, 0x40000000, 4095, "in pages of 4095, not" },
        { 0x100000000, 0x40000000, 4097, "in pages of 4097, not" },
        { 0x100000000, 0x40000000, 8192, "in pages of 8192, not" },
        { 0x100000000, 0x40000000, 0xffffffffffffffff, "answer is about" },
    };
    Message req = {};

    put64(&req, 0, 0x100000000);
    put64(&req, 8, 0x40000000);
    put64(&req, 16, 4096);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put64(&m, 0, t[i].iova);
        put64(&m, 8, t[i].length);
        put64(&m, 16, t[i].page_size);
        ok = vfio_user_wire_check_report((void *)&m, (void *)&req, &err);
        expect(ok, err, t[i].text);
    }
}

/* MIG_DATA_READ's reply: u32 argsz at 0, u32 size at 4, data at 8 */

static void test_mig_data(void)
{
    static const struct {
        uint32_t size;
        size_t len;
        uint32_t room;
        const char *text;
    } t[] = {
        { 0, 8, 4096, NULL },
        { 0, 8, 0, NULL },
        { 1, 9, 1, NULL },
        { 1, 9, 4096, NULL },
        { 4095, 4103, 4096, NULL },
        { 4096, 4104, 4096, NULL },
        { 0xffffffff, 0x100000007, 0xffffffff, NULL },
        /* Followed by padding, as libvfio-user does */
        { 0, 9, 4096, NULL },
        { 0, 4104, 4096, NULL },
        { 1, 4104, 4096, NULL },
        { 4095, 4104, 4096, NULL },
        { 0, 7, 4096, "too short" },
        { 0, 0, 4096, "too short" },
        { 0, 4, 4096, "too short" },
        { 1, 8, 4096, "0 bytes of device state, 1 announced" },
        { 4096, 4103, 4096, "4095 bytes of device state, 4096 announced" },
        { 4097, 4105, 4096, "4097 bytes of device state where 4096 were" },
        { 1, 9, 0, "1 bytes of device state where 0 were" },
        { 0xffffffff, 8, 4096, "4294967295 bytes of device state where" },
        { 0xffffffff, 7, 4096, "too short" },
        { 0xffffffff, 8, 0xffffffff, "0 bytes of device state, 4294967295" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 0, t[i].len);
        put32(&m, 4, t[i].size);
        ok = vfio_user_wire_check_mig_data((void *)&m, t[i].len, t[i].room,
                                           &err);
        expect(ok, err, t[i].text);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

#define T(name, func) g_test_add_func("/vfio-user/migration-wire/" name, func)
    T("feature/flags", test_feature_flags);
    T("feature/len", test_feature_len);
    T("feature/argsz", test_feature_argsz);
    T("migration", test_migration);
    T("log-page", test_log_page);
    T("report-len", test_report_len);
    T("report", test_report);
    T("mig-data", test_mig_data);

    return g_test_run();
}
