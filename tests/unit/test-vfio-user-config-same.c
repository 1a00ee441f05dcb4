/*
 * vfio-user: is it the same device?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each test starts from two equal devices and changes one thing in one of
 * them. Offsets are those of the PCI specification.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/config-same.h"

typedef struct Device {
    uint8_t config[4096];
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

static void put(Device *d, size_t off, unsigned len, uint32_t v)
{
    if (len == 1) {
        d->config[off] = v;
    } else if (len == 2) {
        put16(d, off, v);
    } else {
        put32(d, off, v);
    }
}

static uint32_t get(const Device *d, size_t off, unsigned len)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < len; i++) {
        v |= (uint32_t)d->config[off + i] << (8 * i);
    }
    return v;
}

/*
 * An endpoint with a 64-bit prefetchable BAR 0, an I/O BAR 2, a memory BAR 3,
 * and PM at 0x40, MSI at 0x50, vendor specific at 0x64, MSI-X at 0x70, PCIe at
 * 0x80; AER at 0x100, serial number at 0x148.
 */
static void good_device(Device *d)
{
    memset(d, 0, sizeof(*d));
    put32(d, 0x00, 0x12341af4);
    put16(d, 0x04, 0x0407);
    put16(d, 0x06, 0x0010);
    put32(d, 0x08, 0x01080203);     /* class 0108, interface 02, revision 03 */
    d->config[0x0e] = 0x80;
    put32(d, 0x10, 0xe000000c);
    put32(d, 0x14, 0x00000001);
    put32(d, 0x18, 0x0000c001);
    put32(d, 0x1c, 0xfe000000);
    put32(d, 0x2c, 0x11001af4);
    d->config[0x34] = 0x40;
    d->config[0x3d] = 0x01;
    put16(d, 0x40, 0x5001);
    put16(d, 0x42, 0x0003);
    put16(d, 0x50, 0x6405);
    put16(d, 0x52, 0x018a);         /* 64 bits, maskable, 32 vectors */
    put16(d, 0x64, 0x7009);
    put16(d, 0x66, 0x010c);
    put16(d, 0x70, 0x8011);
    put16(d, 0x72, 0x007f);         /* 128 vectors */
    put32(d, 0x74, 0x2000);         /* table: BAR 0 */
    put32(d, 0x78, 0x3000);         /* PBA: BAR 0 */
    put16(d, 0x80, 0x0010);
    put16(d, 0x82, 0x0002);
    put32(d, 0x84, 0x10008000);     /* function level reset */
    put32(d, 0x100, 0x14820001);
    put32(d, 0x148, 0x00010003);
    put32(d, 0x14c, 0x89abcdef);
    put32(d, 0x150, 0x01234567);
}

/* @text: part of the message expected, NULL when it is the same device */
static void expect_size(const Device *was, const Device *is, size_t size,
                        const char *text)
{
    Error *err = NULL;
    bool same = vfio_user_config_same(was->config, is->config, size, &err);

    if (!text) {
        if (!same) {
            g_test_message("refused: %s", error_get_pretty(err));
        }
        g_assert_true(same);
        g_assert_null(err);
        return;
    }
    g_assert_false(same);
    if (!strstr(error_get_pretty(err), text)) {
        g_test_message("'%s' not in '%s'", text, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

static void expect(const Device *was, const Device *is, const char *text)
{
    expect_size(was, is, sizeof(was->config), text);
}

typedef struct Change {
    uint16_t off;
    uint8_t len;
    uint32_t value;
    const char *text;
} Change;

/* Each way round: what differs from one also differs from the other. */
static void run(const Change *t, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        Device was, is;

        good_device(&was);
        good_device(&is);
        put(&is, t[i].off, t[i].len, t[i].value);
        g_assert_cmphex(get(&was, t[i].off, t[i].len), !=, t[i].value);
        expect(&was, &is, t[i].text);
        expect(&is, &was, t[i].text);
    }
}

static void test_equal(void)
{
    Device was, is;

    good_device(&was);
    good_device(&is);
    expect(&was, &is, NULL);
    expect_size(&was, &is, 256, NULL);

    /* nothing at all */
    memset(&was, 0, sizeof(was));
    is = was;
    expect(&was, &is, NULL);
}

static void test_header(void)
{
    static const Change t[] = {
        { 0x00, 2, 0x1af5, "vendor ID is 0x1a" },
        { 0x01, 1, 0x9a, "vendor ID is 0x" },
        { 0x02, 2, 0x1235, "device ID is 0x123" },
        { 0x03, 1, 0x92, "device ID is 0x" },
        { 0x06, 2, 0x0000, "presence of capabilities" },
        { 0x08, 1, 0x04, "revision is 0x" },
        { 0x09, 1, 0x03, "programming interface is 0x" },
        { 0x0a, 2, 0x0109, "class is 0x10" },
        { 0x0a, 2, 0x0208, "class is 0x" },
        { 0x0e, 1, 0x00, "header type is 0x" },
        { 0x2c, 2, 0x1af5, "subsystem vendor ID is 0x" },
        { 0x2e, 2, 0x1101, "subsystem ID is 0x" },
        { 0x3d, 1, 0x02, "interrupt pin is 0x" },
        { 0x3d, 1, 0x00, "interrupt pin is 0x" },
    };

    run(t, ARRAY_SIZE(t));
}

/* Both values and the place are in the message. */
static void test_message(void)
{
    Device was, is;

    good_device(&was);
    good_device(&is);
    put16(&is, 0x02, 0x5678);
    expect(&was, &is,
           "device ID is 0x5678, was 0x1234 (config space, offset 0x2)");
    put16(&is, 0x02, 0x1234);
    put16(&is, 0x72, 0x0003);
    expect(&was, &is, "number of MSI-X vectors is 0x3, was 0x7f (config "
           "space, offset 0x72)");
}

/* What the guest writes, or the device changes by itself */
static void test_written(void)
{
    static const Change t[] = {
        { 0x04, 2, 0x0000, NULL },          /* command */
        { 0x06, 2, 0xf910, NULL },          /* status: errors */
        { 0x06, 2, 0x0018, NULL },          /* interrupt status */
        { 0x0c, 1, 0x40, NULL },            /* cache line size */
        { 0x0d, 1, 0x20, NULL },            /* latency */
        { 0x0f, 1, 0x40, NULL },            /* BIST */
        { 0x10, 4, 0x0000000c, NULL },
        { 0x14, 4, 0x00000000, NULL },
        { 0x14, 4, 0xffffffff, NULL },
        { 0x18, 4, 0x00000001, NULL },
        { 0x1c, 4, 0x00000000, NULL },
        { 0x30, 4, 0xfff00001, NULL },      /* ROM */
        { 0x3c, 1, 0x0b, NULL },            /* interrupt line */
        { 0x44, 2, 0x0103, NULL },          /* power state */
        { 0x52, 2, 0x01bb, NULL },          /* MSI: on, vectors in use */
        { 0x54, 4, 0xfee00000, NULL },
        { 0x58, 4, 0x00000001, NULL },
        { 0x5c, 2, 0x4021, NULL },
        { 0x60, 4, 0xffffffff, NULL },
        { 0x68, 4, 0x12345678, NULL },      /* vendor specific: its own */
        { 0x72, 2, 0xc07f, NULL },          /* MSI-X: on, masked */
        { 0x82, 2, 0x0202, NULL },          /* interrupt message number */
        { 0x88, 2, 0x2810, NULL },          /* device control */
        { 0x8a, 2, 0x000f, NULL },          /* device status */
        { 0x90, 2, 0x0040, NULL },          /* link control */
        { 0x92, 2, 0x1011, NULL },          /* link status */
        { 0x104, 4, 0x00100000, NULL },     /* AER: status, mask */
        { 0x108, 4, 0x00100000, NULL },
    };

    run(t, ARRAY_SIZE(t));
}

static void test_bars(void)
{
    static const Change t[] = {
        { 0x10, 4, 0xe0000004, "type of BAR 0" },   /* prefetchable */
        { 0x10, 4, 0xe0000008, "type of BAR 0" },   /* 64 bits */
        { 0x10, 4, 0x0000e001, "type of BAR 0" },   /* I/O */
        { 0x18, 4, 0x0000c000, "type of BAR 2" },
        { 0x1c, 4, 0xfe000001, "type of BAR 3" },
        { 0x1c, 4, 0xfe000002, "type of BAR 3" },   /* below 1 MiB */
        { 0x1c, 4, 0xfe000004, "type of BAR 3" },
        { 0x1c, 4, 0xfe000008, "type of BAR 3" },
        { 0x20, 4, 0x00000001, "type of BAR 4" },
        { 0x24, 4, 0x00000008, "type of BAR 5" },
        /* Bits 2 and 3 are address in an I/O BAR. */
        { 0x18, 4, 0x0000c00d, NULL },
    };

    run(t, ARRAY_SIZE(t));
}

/* An upper half that looks like a BAR of its own kind, next to another pair */
static void test_bar_halves(void)
{
    static const uint32_t upper[] = { 0x0, 0x1, 0x4, 0xc, 0xffffffff };
    Device was, is;

    for (size_t i = 0; i < ARRAY_SIZE(upper); i++) {
        good_device(&was);
        put32(&was, 0x18, 0x4);
        put32(&was, 0x20, 0x4);
        is = was;
        put32(&is, 0x14, upper[i]);
        put32(&is, 0x1c, upper[i]);
        put32(&is, 0x24, upper[i]);
        expect(&was, &is, NULL);
        expect(&is, &was, NULL);

        /* The next pair is still looked at. */
        put32(&is, 0x18, 0xc);
        expect(&was, &is, "type of BAR 2");
        expect(&is, &was, "type of BAR 2");
        put32(&is, 0x18, 0x4);
        put32(&is, 0x20, 0x0);
        expect(&was, &is, "type of BAR 4");
        expect(&is, &was, "type of BAR 4");
    }
}

static void test_caps(void)
{
    static const Change t[] = {
        { 0x34, 1, 0x50, "capabilities: 0x" },      /* without the first */
        { 0x34, 1, 0x00, "capabilities: 0x" },      /* without any */
        { 0x41, 1, 0x64, "capabilities: 0x" },      /* without the second */
        { 0x51, 1, 0x70, "capabilities: 0x" },
        { 0x71, 1, 0x00, "capabilities: 0x" },      /* without the last */
        { 0x81, 1, 0xa0, "capabilities: 0x" },      /* one more */
        { 0x40, 1, 0x03, "capabilities: 0x" },      /* another kind */
        { 0x50, 1, 0x09, "capabilities: 0x" },
        { 0x64, 1, 0x0a, "capabilities: 0x" },
        { 0x70, 1, 0x09, "capabilities: 0x" },
        { 0x80, 1, 0x09, "capabilities: 0x" },
        { 0x42, 2, 0x0002, "power management is 0x" },
        { 0x43, 1, 0xc8, "power management is 0x" },
        { 0x52, 2, 0x0188, "kind of MSI is 0x" },
        { 0x52, 2, 0x010a, "kind of MSI is 0x" },
        { 0x52, 2, 0x008a, "kind of MSI is 0x" },
        { 0x72, 2, 0x007e, "number of MSI-X vectors is 0x" },
        { 0x72, 2, 0x047f, "number of MSI-X vectors is 0x" },
        { 0x74, 4, 0x2003, "MSI-X table is 0x" },
        { 0x74, 4, 0x2800, "MSI-X table is 0x" },
        { 0x78, 4, 0x3003, "MSI-X PBA is 0x" },
        { 0x78, 4, 0x3800, "MSI-X PBA is 0x" },
        { 0x82, 2, 0x0012, "PCI Express type is 0x" },
        { 0x82, 2, 0x0001, "PCI Express type is 0x" },
        { 0x84, 4, 0x00008000, "function level reset is 0x" },
        { 0x84, 4, 0x10008fc7, NULL },              /* payload, latency */
    };

    run(t, ARRAY_SIZE(t));
}

/* The same capabilities, but the last one has moved. */
static void test_cap_moved(void)
{
    Device was, is;

    good_device(&was);
    good_device(&is);
    memcpy(is.config + 0xa0, is.config + 0x80, 0x14);
    is.config[0x71] = 0xa0;
    expect(&was, &is, "capabilities: 0x10 at offset 0xa0, was 0x10 at 0x80");
    expect(&is, &was, "capabilities: 0x10 at offset 0x80, was 0x10 at 0xa0");
}

/* Without its bit in the status register there is no list. */
static void test_no_caps(void)
{
    Device was, is;

    good_device(&was);
    put16(&was, 0x06, 0);
    is = was;
    is.config[0x34] = 0xff;
    memset(is.config + 0x40, 0xff, 0xc0);
    expect(&was, &is, NULL);
    expect(&is, &was, NULL);
}

static void test_ext_caps(void)
{
    static const Change t[] = {
        { 0x100, 4, 0x14820002, "extended capability 0x" },
        { 0x100, 4, 0x14810001, "extended capability 0x" }, /* version */
        { 0x100, 4, 0x00020001, "extended capability 0x" }, /* without one */
        { 0x100, 4, 0x00000000, "extended capability 0x" }, /* any */
        { 0x148, 4, 0x20010003, "extended capability 0x" }, /* one more */
        { 0x148, 4, 0x00010004, "extended capability 0x" },
        { 0x14c, 4, 0x89abcdee, "serial number is 0123456789abcde" },
        { 0x150, 4, 0x81234567, "serial number is " },
    };
    Device was, is;

    run(t, ARRAY_SIZE(t));

    good_device(&was);
    good_device(&is);
    is.config[0x14c] = 0xee;
    expect(&was, &is, "is 0123456789abcdee, was 0123456789abcdef");

    /* A conventional device has none of that. */
    put32(&is, 0x100, 0);
    expect_size(&was, &is, 256, NULL);
}

static void test_ext_cap_moved(void)
{
    Device was, is;

    good_device(&was);
    good_device(&is);
    memcpy(is.config + 0x160, is.config + 0x148, 12);
    put32(&is, 0x100, 0x16020001);
    expect(&was, &is, "extended capability 0x1 at offset 0x100 (next: 0x160), "
           "was 0x1 (next: 0x148)");
}

/*
 * A serial number with no room for it at the end, as a bad server may have it:
 * nothing beyond is looked at. The copy ends where the allocation does, so that
 * ASan would tell.
 */
static void test_serial_cut_off(void)
{
    Device d;

    for (unsigned at = 0xff4; at <= 0xff8; at += 4) {
        g_autofree uint8_t *was = NULL;
        g_autofree uint8_t *is = NULL;

        good_device(&d);
        put32(&d, 0x100, ((uint32_t)at << 20) | 0x20001);
        put32(&d, at, 0x00010003);
        was = g_memdup2(d.config, sizeof(d.config));
        is = g_memdup2(d.config, sizeof(d.config));
        is[0xfff] = 0x77;
        if (at == 0xff4) {
            Error *err = NULL;

            g_assert_false(vfio_user_config_same(was, is, 4096, &err));
            g_assert_nonnull(strstr(error_get_pretty(err), "serial number"));
            error_free(err);
        } else {
            g_assert_true(vfio_user_config_same(was, is, 4096, &error_abort));
        }
    }
}

/* Kept -------------------------------------------------------------------- */

/* The BARs that good_device() has */
#define BARS    (1u << 0 | 1u << 2 | 1u << 3)

static bool kept(const Device *guest, const Device *is, unsigned bars)
{
    return vfio_user_config_kept(guest->config, is->config, bars);
}

static void test_kept(void)
{
    static const struct {
        uint16_t off;
        uint8_t len;
        uint32_t value;
        bool kept;
    } t[] = {
        { 0x04, 2, 0x0000, false },
        { 0x04, 2, 0x0003, false },
        { 0x04, 2, 0x0005, false },
        { 0x04, 2, 0x0006, false },
        { 0x04, 2, 0x0007, true },      /* interrupt disable: not asked */
        { 0x06, 2, 0x0000, true },
        { 0x10, 4, 0x0000000c, false },
        { 0x10, 4, 0xe100000c, false },
        { 0x14, 4, 0x00000000, false },
        { 0x14, 4, 0x00000002, false },
        { 0x18, 4, 0x00000001, false },
        { 0x1c, 4, 0x00000000, false },
        { 0x20, 4, 0xfe100000, true },  /* no such BAR */
        { 0x24, 4, 0xfe100000, true },
        { 0x3c, 1, 0x0b, true },
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        Device guest, is;

        good_device(&guest);
        good_device(&is);
        put(&is, t[i].off, t[i].len, t[i].value);
        g_assert_cmpint(kept(&guest, &is, BARS), ==, t[i].kept);
        g_assert_cmpint(kept(&is, &guest, BARS), ==, t[i].kept);
    }
}

/* Not enabled by the guest: whatever the BARs say, there is nothing to lose. */
static void test_kept_disabled(void)
{
    Device guest, is;

    good_device(&guest);
    put16(&guest, 0x04, 0x0400);
    is = guest;
    memset(is.config + 0x10, 0, 0x18);
    g_assert_true(kept(&guest, &is, BARS));
    /* But the server thinks that it is enabled. */
    for (unsigned bit = 0; bit < 3; bit++) {
        put16(&is, 0x04, 1u << bit);
        g_assert_false(kept(&guest, &is, BARS));
    }
}

/* What is where the device has no BAR does not matter. */
static void test_kept_bars(void)
{
    for (unsigned i = 0; i < 6; i++) {
        Device guest, is;

        good_device(&guest);
        put32(&guest, 0x10, 0);
        is = guest;
        put32(&is, 0x10 + 4 * i, 0x12340000 | get(&is, 0x10 + 4 * i, 1));
        g_assert_false(kept(&guest, &is, 1u << i));
        g_assert_true(kept(&guest, &is, 0x3f & ~(1u << i)));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define T(name, func) g_test_add_func("/vfio-user/config-same/" name, func)
    T("equal", test_equal);
    T("header", test_header);
    T("message", test_message);
    T("written", test_written);
    T("bars", test_bars);
    T("bar-halves", test_bar_halves);
    T("caps", test_caps);
    T("cap-moved", test_cap_moved);
    T("no-caps", test_no_caps);
    T("ext-caps", test_ext_caps);
    T("ext-cap-moved", test_ext_cap_moved);
    T("serial-cut-off", test_serial_cut_off);
    T("kept/normal", test_kept);
    T("kept/disabled", test_kept_disabled);
    T("kept/bars", test_kept_bars);
    return g_test_run();
}
