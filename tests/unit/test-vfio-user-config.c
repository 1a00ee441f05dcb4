/*
 * vfio-user: validation of configuration space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each test starts from a device that passes and spoils one thing. Offsets
 * are those of the PCI specification.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/config-check.h"

typedef struct Device {
    uint8_t config[4096];
    size_t size;
    uint64_t bar_size[6];
} Device;

static void put16(Device *d, size_t off, uint16_t v)
{
    d->config[off] = v;
    d->config[off + 1] = v >> 8;
}

static void put32(Device *d, size_t off, uint32_t v)
{
    put16(d, off, v);
    put16(d, off + 2, v >> 16);
}

/*
 * An endpoint with a 64-bit BAR 0, an I/O BAR 2, and PM at 0x40, MSI at
 * 0x50, MSI-X at 0x70, PCIe at 0x80; AER at 0x100, serial number at 0x148.
 */
static void good_device(Device *d)
{
    memset(d, 0, sizeof(*d));
    d->size = 4096;
    put32(d, 0x00, 0x12341af4);
    put16(d, 0x06, 0x0010);
    put32(d, 0x10, 0x4);
    put32(d, 0x18, 0x1);
    d->bar_size[0] = 0x4000;
    d->bar_size[2] = 0x100;
    d->config[0x34] = 0x40;
    put16(d, 0x40, 0x5001);
    put16(d, 0x50, 0x7005);
    put16(d, 0x52, 0x018a);         /* 64 bits, maskable, 32 vectors */
    put16(d, 0x70, 0x8011);
    put16(d, 0x72, 0x007f);         /* 128 vectors */
    put32(d, 0x74, 0x2000);         /* table: BAR 0 */
    put32(d, 0x78, 0x3000);         /* PBA: BAR 0 */
    put16(d, 0x80, 0x0010);
    put16(d, 0x82, 0x0002);
    put32(d, 0x100, 0x14820001);
    put32(d, 0x148, 0x00010003);
}

static void expect(Device *d, const char *text)
{
    Error *err = NULL;
    bool ok = vfio_user_config_check(d->config, d->size, d->bar_size, &err);

    if (!text) {
        if (!ok) {
            g_test_message("refused: %s", error_get_pretty(err));
        }
        g_assert_true(ok);
        return;
    }
    g_assert_false(ok);
    if (!strstr(error_get_pretty(err), text)) {
        g_test_message("'%s' not in '%s'", text, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

typedef struct Spoil {
    uint16_t off;
    uint8_t len;
    uint32_t value;
    const char *text;
} Spoil;

static void run(const Spoil *t, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        Device d;

        good_device(&d);
        if (t[i].len == 1) {
            d.config[t[i].off] = t[i].value;
        } else if (t[i].len == 2) {
            put16(&d, t[i].off, t[i].value);
        } else {
            put32(&d, t[i].off, t[i].value);
        }
        expect(&d, t[i].text);
    }
}

static void test_good(void)
{
    Device d;

    good_device(&d);
    expect(&d, NULL);

    /* the null sample of libvfio-user: nothing at all */
    memset(&d, 0, sizeof(d));
    d.size = 256;
    expect(&d, NULL);
}

static void test_header(void)
{
    static const Spoil t[] = {
        { 0x0e, 1, 0x80, NULL },
        { 0x0e, 1, 0x01, "header type 1" },
        { 0x0e, 1, 0x81, "header type 1" },
        { 0x0e, 1, 0x02, "header type 2" },
        { 0x0e, 1, 0x7f, "header type 127" },
    };

    run(t, ARRAY_SIZE(t));
}

static void test_bars(void)
{
    Device d;

    good_device(&d);
    d.bar_size[1] = 0x1000;
    expect(&d, "BAR 0 is 64 bits");

    good_device(&d);
    put32(&d, 0x24, 0x4);
    d.bar_size[5] = 0x1000;
    expect(&d, "BAR 5 is 64 bits");

    /* bit 2 is part of the address in an I/O BAR */
    good_device(&d);
    put32(&d, 0x18, 0x5);
    d.bar_size[3] = 0x1000;
    expect(&d, NULL);
}

static void test_list(void)
{
    static const Spoil t[] = {
        { 0x34, 1, 0x00, NULL },
        { 0x81, 1, 0xfc, NULL },
        { 0x34, 1, 0x3c, "leads to 0x3c" },
        { 0x34, 1, 0x42, "leads to 0x42" },
        { 0x81, 1, 0x01, "leads to 0x01" },
        { 0x81, 1, 0xff, "leads to 0xff" },
        { 0x81, 1, 0x80, "back to 0x80" },
        { 0x81, 1, 0x40, "back to 0x40" },
        { 0x40, 1, 0x05, "0x05 is there twice" },
        { 0x50, 1, 0x11, "0x11 is there twice" },
        { 0x40, 1, 0x10, "0x10 is there twice" },
        { 0x80, 1, 0x01, "0x01 is there twice" },
        { 0x50, 1, 0x09, NULL },
    };

    run(t, ARRAY_SIZE(t));
}

/* The list is not there without its bit in the status register. */
static void test_no_list(void)
{
    Device d;

    good_device(&d);
    put16(&d, 0x06, 0);
    d.config[0x34] = 0xff;
    expect(&d, NULL);
}

static void test_cut_off(void)
{
    static const struct {
        uint8_t id, pos;
        uint16_t flags;
        bool ok;
    } t[] = {
        { 0x01, 0xf8, 0, true }, { 0x01, 0xfc, 0, false },
        { 0x05, 0xf4, 0, true }, { 0x05, 0xf8, 0, false },
        { 0x05, 0xf0, 0x80, true }, { 0x05, 0xf4, 0x80, false },
        { 0x05, 0xe8, 0x180, true }, { 0x05, 0xec, 0x180, false },
        { 0x11, 0xf8, 0, false },
        { 0x10, 0xec, 0, true }, { 0x10, 0xf0, 0, false },
        { 0x13, 0xf8, 0, true }, { 0x13, 0xfc, 0, false },
        { 0x09, 0xfc, 0, true },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Device d;

        good_device(&d);
        d.config[0x34] = t[i].pos;
        d.config[t[i].pos] = t[i].id;
        put16(&d, t[i].pos + 2, t[i].flags);
        expect(&d, t[i].ok ? NULL : "cut off");
    }
}

static void test_msi(void)
{
    static const Spoil t[] = {
        { 0x52, 2, 0x0180, NULL },
        { 0x52, 2, 0x018c, "64 vectors" },
        { 0x52, 2, 0x018e, "128 vectors" },
    };

    run(t, ARRAY_SIZE(t));
}

static void test_msix(void)
{
    static const Spoil t[] = {
        { 0x72, 2, 0x00ff, NULL },
        { 0x72, 2, 0x01ff, NULL },
        { 0x72, 2, 0x07ff, "table at 0x2000+0x8000" },
        { 0x74, 4, 0x3800, NULL },
        { 0x74, 4, 0x3808, "table at 0x3808+0x800" },
        { 0x74, 4, 0x4000, "table at 0x4000+0x800" },
        { 0x74, 4, 0xfffffff8, "table at 0xfffffff8" },
        { 0x74, 4, 0x2001, "table is in BAR 1" },
        { 0x74, 4, 0x0002, "table is in BAR 2" },
        { 0x74, 4, 0x2003, "table is in BAR 3" },
        { 0x74, 4, 0x2006, "table is in BAR 6" },
        { 0x74, 4, 0x2007, "table is in BAR 7" },
        { 0x78, 4, 0x3ff0, NULL },
        { 0x78, 4, 0x3ff8, "PBA at 0x3ff8+0x10" },
        { 0x78, 4, 0xfffffff8, "PBA at 0xfffffff8" },
        { 0x78, 4, 0x3005, "PBA is in BAR 5" },
        { 0x78, 4, 0x3006, "PBA is in BAR 6" },
    };

    run(t, ARRAY_SIZE(t));
}

/* Extended header: bits 0-15 id, 16-19 version, 20-31 next */
static void test_ext_list(void)
{
    static const Spoil t[] = {
        { 0x100, 4, 0x00000000, NULL },
        { 0x148, 4, 0xff810003, NULL },
        { 0x148, 4, 0x14810003, "back to 0x148" },
        { 0x148, 4, 0x10010003, "back to 0x100" },
        { 0x148, 4, 0x0fc10003, "leads to 0x0fc" },
        { 0x148, 4, 0x04010003, "leads to 0x040" },
        /* too close to the next; what is not handed on may be */
        { 0x100, 4, 0x10410001, "0x0001 at 0x100 has 4 bytes" },
        { 0x100, 4, 0x10410000, NULL },
        { 0x100, 4, 0x10410010, NULL },
        { 0x100, 4, 0x1040000e, NULL },
    };
    Device d;

    run(t, ARRAY_SIZE(t));

    /* one at the very end has no room */
    good_device(&d);
    put32(&d, 0x148, 0xffc10003);
    put32(&d, 0xffc, 0x00010001);
    expect(&d, "0x0001 at 0xffc has 4 bytes");

    /* nobody there */
    good_device(&d);
    memset(d.config + 0x100, 0xff, 0xf00);
    expect(&d, "leads back to 0xffc");

    /* conventional devices have none of that */
    good_device(&d);
    memset(d.config + 0x100, 0xff, 0xf00);
    d.size = 256;
    expect(&d, NULL);
}

static void test_rebar(void)
{
    static const struct {
        uint16_t pos;
        uint32_t nbar;
        bool ok;
    } t[] = {
        { 0xff4, 1, true }, { 0xff8, 1, false }, { 0xff4, 0, true },
        { 0xff4, 2, false }, { 0xfec, 2, true }, { 0xfc4, 7, true },
        { 0xfc8, 7, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Device d;

        good_device(&d);
        put32(&d, 0x148, ((uint32_t)t[i].pos << 20) | 0x10003);
        put32(&d, t[i].pos, 0x00010015);
        if (t[i].pos + 12 <= 4096) {
            put32(&d, t[i].pos + 8, t[i].nbar << 5);
        }
        expect(&d, t[i].ok ? NULL : "capability 0x0015");
    }
}

static void test_quirks(void)
{
    static const struct {
        uint32_t id;
        uint16_t class;
        int bar;
    } t[] = {
        { 0x816810ec, 0x0200, 2 },
        { 0x1b8010de, 0x0300, 0 },
        { 0x59168086, 0x0300, 0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        for (int present = 0; present < 2; present++) {
            Device d;

            memset(&d, 0, sizeof(d));
            d.size = 256;
            put32(&d, 0x00, t[i].id);
            put16(&d, 0x0a, t[i].class);
            d.bar_size[t[i].bar] = present ? 0x1000 : 0;
            expect(&d, present ? NULL : "which every such device has");
            put16(&d, 0x02, 0x0001);
            put16(&d, 0x0a, 0x0100);
            expect(&d, NULL);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/config/good", test_good);
    g_test_add_func("/vfio-user/config/header", test_header);
    g_test_add_func("/vfio-user/config/bars", test_bars);
    g_test_add_func("/vfio-user/config/list", test_list);
    g_test_add_func("/vfio-user/config/no-list", test_no_list);
    g_test_add_func("/vfio-user/config/cut-off", test_cut_off);
    g_test_add_func("/vfio-user/config/msi", test_msi);
    g_test_add_func("/vfio-user/config/msix", test_msix);
    g_test_add_func("/vfio-user/config/ext-list", test_ext_list);
    g_test_add_func("/vfio-user/config/rebar", test_rebar);
    g_test_add_func("/vfio-user/config/quirks", test_quirks);
    return g_test_run();
}
