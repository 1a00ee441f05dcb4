/*
 * vfio-user: validation of messages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/vfio-user/wire-check.h"
#include "vfio-user-message.h"

/* Header: id 0, command 2, size 4, flags 8, error 12; 16 bytes */

static void put_header(Message *m, uint16_t command, uint32_t size,
                       uint32_t flags, uint32_t error)
{
    memset(m, 0, sizeof(*m));
    put16(m, 0, 0x1234);
    put16(m, 2, command);
    put32(m, 4, size);
    put32(m, 8, flags);
    put32(m, 12, error);
}

static void test_header(void)
{
    static const struct {
        uint32_t size, flags;
        size_t max;
        const char *text;
    } t[] = {
        { 16, 0, 0, NULL },
        { 16, 1, 0, NULL },
        { 16, 0x11, 0, NULL },
        { 48, 1, 32, NULL },
        { 49, 1, 32, "size 49" },
        { 15, 1, 32, "size 15" },
        { 0, 1, 32, "size 0" },
        { 0xffffffff, 1, 32, "size 4294967295" },
        { 16, 2, 0, "type 2" },
        { 16, 0xf, 0, "type 15" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m;
        Error *err = NULL;
        bool ok;

        put_header(&m, 9, t[i].size, t[i].flags, 0);
        ok = vfio_user_wire_check_header((void *)&m, t[i].max, &err);
        expect(ok, err, t[i].text);
    }
}

static void test_reply(void)
{
    static const struct {
        uint16_t command;
        uint32_t size, flags;
        const char *text;
    } t[] = {
        { 4, 32, 0x1, NULL },
        { 4, 48, 0x1, NULL },
        { 4, 31, 0x1, "too short" },
        { 4, 49, 0x1, "size 49" },
        { 4, 32, 0x0, "a command came" },
        { 5, 32, 0x1, "to command 5, not to 4" },
        { 4, 16, 0x21, NULL },
        { 4, 48, 0x21, NULL },
        { 4, 49, 0x21, "size 49" },
        { 5, 16, 0x21, "to command 5, not to 4" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m;
        Error *err = NULL;
        bool ok;

        put_header(&m, t[i].command, t[i].size, t[i].flags, 0);
        ok = vfio_user_wire_check_reply((void *)&m, 4, 16, 32, &err);
        expect(ok, err, t[i].text);
    }
}

static void test_reply_error(void)
{
    static const struct {
        uint32_t flags, error;
        int ret;
    } t[] = {
        { 0x01, 0, 0 },
        { 0x01, 5, 0 },
        { 0x21, 0, -EIO },
        { 0x21, 1, -1 },
        { 0x21, 22, -22 },
        { 0x21, 4095, -4095 },
        { 0x21, 4096, -EIO },
        { 0x21, 0x80000000, -EIO },
        { 0x21, 0xffffffff, -EIO },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m;

        put_header(&m, 4, 16, t[i].flags, t[i].error);
        g_assert_cmpint(vfio_user_wire_reply_error((void *)&m), ==, t[i].ret);
    }
}

/* VERSION: u16 major, u16 minor */

static void test_version(void)
{
    static const struct {
        uint16_t major, minor;
        size_t len;
        const char *text;
    } t[] = {
        { 0, 2, 4, NULL },
        { 0, 1, 100, NULL },
        { 0, 0, 4, NULL },
        { 0, 3, 4, "version 0.3" },
        { 1, 0, 4, "version 1.0" },
        { 0, 2, 3, "too short" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put16(&m, 0, t[i].major);
        put16(&m, 2, t[i].minor);
        ok = vfio_user_wire_check_version((void *)&m, t[i].len, &err);
        expect(ok, err, t[i].text);
    }
}

/* DEVICE_GET_INFO: argsz 0, flags 4, num_regions 8, num_irqs 12 */

static void test_device_info(void)
{
    static const struct {
        uint32_t flags, regions, irqs;
        size_t len;
        const char *text;
    } t[] = {
        { 3, 9, 5, 16, NULL },
        { 2, 8, 3, 16, NULL },
        { 2, 64, 64, 16, NULL },
        { 0xfffffff3, 10, 5, 16, NULL },
        { 1, 9, 5, 16, "not a PCI device" },
        { 2, 7, 5, 16, "regions 7 " },
        { 2, 65, 5, 16, "regions 65 " },
        { 2, 0xffffffff, 5, 16, "regions 4294967295 " },
        { 2, 9, 2, 16, "indices 2 " },
        { 2, 9, 65, 16, "indices 65 " },
        { 2, 9, 0xffffffff, 16, "indices 4294967295 " },
        { 2, 9, 5, 15, "too short" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct vfio_user_device_info out;
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 0, 16);
        put32(&m, 4, t[i].flags);
        put32(&m, 8, t[i].regions);
        put32(&m, 12, t[i].irqs);
        ok = vfio_user_wire_check_device_info((void *)&m, t[i].len, &out, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_cmpuint(out.flags, ==, t[i].flags & 3);
            g_assert_cmpuint(out.num_regions, ==, t[i].regions);
            g_assert_cmpuint(out.num_irqs, ==, t[i].irqs);
        }
    }
}

/* DEVICE_GET_IRQ_INFO: argsz 0, flags 4, index 8, count 12 */

static void test_irq_info(void)
{
    static const struct {
        uint32_t index, asked, count;
        size_t len;
        const char *text;
    } t[] = {
        { 0, 0, 1, 16, NULL },
        { 0, 0, 2, 16, "2 interrupts at index 0" },
        { 1, 1, 32, 16, NULL },
        { 1, 1, 33, 16, "33 interrupts" },
        { 2, 2, 2048, 16, NULL },
        { 2, 2, 2049, 16, "2049 interrupts" },
        { 2, 2, 0xffffffff, 16, "4294967295 interrupts" },
        { 3, 3, 1, 16, NULL },
        { 4, 4, 2, 16, "2 interrupts at index 4" },
        { 9, 9, 2048, 16, NULL },
        { 9, 9, 2049, 16, "2049 interrupts" },
        { 1, 2, 1, 16, "index 1, not 2" },
        { 2, 2, 1, 15, "too short" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct vfio_user_irq_info out;
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 0, 16);
        put32(&m, 4, 0xffffffff);
        put32(&m, 8, t[i].index);
        put32(&m, 12, t[i].count);
        ok = vfio_user_wire_check_irq_info((void *)&m, t[i].len, t[i].asked,
                                           &out, &err);
        expect(ok, err, t[i].text);
        if (!t[i].text) {
            g_assert_cmpuint(out.flags, ==, 0xf);
            g_assert_cmpuint(out.count, ==, t[i].count);
        }
    }
}

/* REGION_READ, REGION_WRITE: u64 offset, u32 region at 8, u32 count at 12 */

static void test_region_rw(void)
{
    const struct vfio_user_region_rw req = {
        .offset = 0x123456789ab, .region = 3, .count = 4,
    };
    static const struct {
        uint64_t off;
        uint32_t region, count;
        size_t len;
        bool is_write;
        const char *text;
    } t[] = {
        { 0x123456789ab, 3, 4, 20, false, NULL },
        { 0x123456789ab, 3, 4, 16, true, NULL },
        { 0x123456789ab, 3, 4, 16, false, "16 bytes, 20 expected" },
        { 0x123456789ab, 3, 4, 21, false, "21 bytes, 20 expected" },
        { 0x123456789ab, 3, 4, 20, true, "20 bytes, 16 expected" },
        { 0x123456789ab, 3, 4, 0, true, "0 bytes, 16 expected" },
        { 0x123456789ac, 3, 4, 20, false, "answer is about" },
        { 0x123456789ab, 2, 4, 20, false, "answer is about" },
        { 0x123456789ab, 3, 3, 20, false, "answer is about" },
        { 0x123456789ab, 3, 5, 16, true, "answer is about" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put64(&m, 0, t[i].off);
        put32(&m, 8, t[i].region);
        put32(&m, 12, t[i].count);
        ok = vfio_user_wire_check_region_rw((void *)&m, t[i].len, &req,
                                            t[i].is_write, &err);
        expect(ok, err, t[i].text);
    }
}

/* DMA_UNMAP: argsz 0, flags 4, u64 address at 8, u64 size at 16 */

static void test_dma_unmap(void)
{
    const struct vfio_user_dma_unmap req = {
        .argsz = 24, .addr = 0x100000000, .size = 0x40000000,
    };
    static const struct {
        uint64_t addr, size;
        size_t len;
        const char *text;
    } t[] = {
        { 0x100000000, 0x40000000, 24, NULL },
        { 0x100000000, 0x3ffff000, 24, "answer is about" },
        { 0x000000000, 0x40000000, 24, "answer is about" },
        { 0x100000000, 0x40000000, 23, "too short" },
        { 0x100000000, 0x40000000, 1, "too short" },
        { 0, 0, 0, NULL },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m = {};
        Error *err = NULL;
        bool ok;

        put32(&m, 0, 24);
        put64(&m, 8, t[i].addr);
        put64(&m, 16, t[i].size);
        ok = vfio_user_wire_check_dma_unmap((void *)&m, t[i].len, &req, &err);
        expect(ok, err, t[i].text);
    }
}

/* DMA_READ 11, DMA_WRITE 12: header, u64 address, u64 count, data */

static void test_dma(void)
{
    static const struct {
        uint16_t command;
        uint64_t addr, count;
        uint32_t size;
        const char *text;
    } t[] = {
        { 11, 0x1000, 0x1000, 32, NULL },
        { 11, 0x1000, 0, 32, NULL },
        { 11, 0x1000, 0x1000, 33, "1 bytes of data, 0 expected" },
        { 11, 0x1000, 0x1001, 32, "more than the 0x1000" },
        { 11, 0x1000, UINT64_MAX, 32, "more than the 0x1000" },
        { 11, UINT64_MAX - 15, 16, 32, "beyond the end" },
        { 11, UINT64_MAX - 16, 16, 32, NULL },
        { 11, 0x1000, 16, 31, "too short" },
        { 11, 0x1000, 16, 16, "too short" },
        { 12, 0x1000, 0x1000, 32 + 0x1000, NULL },
        { 12, 0x1000, 16, 32, "0 bytes of data, 16 expected" },
        { 12, 0x1000, 16, 47, "15 bytes of data, 16 expected" },
        { 12, 0x1000, 16, 49, "17 bytes of data, 16 expected" },
        { 12, 0x1000, 0x1001, 32 + 0x1001, "more than the 0x1000" },
        { 12, UINT64_MAX - 3, 8, 40, "beyond the end" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Message m;
        Error *err = NULL;
        bool ok;

        put_header(&m, t[i].command, t[i].size, 0, 0);
        put64(&m, 16, t[i].addr);
        put64(&m, 24, t[i].count);
        ok = vfio_user_wire_check_dma((void *)m.bytes, (void *)(m.bytes + 16),
                                      0x1000, &err);
        expect(ok, err, t[i].text);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/wire/header", test_header);
    g_test_add_func("/vfio-user/wire/reply", test_reply);
    g_test_add_func("/vfio-user/wire/reply-error", test_reply_error);
    g_test_add_func("/vfio-user/wire/version", test_version);
    g_test_add_func("/vfio-user/wire/device-info", test_device_info);
    g_test_add_func("/vfio-user/wire/irq-info", test_irq_info);
    g_test_add_func("/vfio-user/wire/region-rw", test_region_rw);
    g_test_add_func("/vfio-user/wire/dma-unmap", test_dma_unmap);
    g_test_add_func("/vfio-user/wire/dma", test_dma);
    return g_test_run();
}
