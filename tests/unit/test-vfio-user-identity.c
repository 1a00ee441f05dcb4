/*
 * vfio-user: can one server take the place of another?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two equal devices, and one field of one of them changes: first of the server
 * that comes, then of the one that was there. What config space may be is
 * test-vfio-user-config-same.c's.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/reconnect.h"

/* The guest's IOMMU says what the device's DMA addresses mean. */
static bool behind_iommu = true;

bool vfio_user_dma_behind_iommu(const VFIOUserDevice *udev)
{
    return behind_iommu;
}

#define NR_REGIONS      9
#define NR_IRQS         5
#define CONFIG_SIZE     256
#define CONFIG          7
#define MSIX            2
/* A BAR with two areas */
#define BAR             2
#define LAST            8

typedef struct Device {
    VFIOUserDevice udev;
    VFIOUserRegion regions[NR_REGIONS];
    struct vfio_user_sparse_area areas[2];
    uint8_t config[CONFIG_SIZE];
} Device;

static Device *new_device(void)
{
    static const VFIOUserCaps caps = {
        .major = 0, .minor = 1, .max_msg_fds = 8,
        .max_data_xfer_size = 0x100000, .max_dma_maps = 65535,
        .pgsizes = 0x1000, .has_migration = true, .migration_pgsize = 0x1000,
        .migration_max_bitmap_size = 256,
    };
    Device *d = g_new0(Device, 1);

    d->udev.caps = caps;
    d->udev.info = (struct vfio_user_device_info) {
        .flags = 0x2, .num_regions = NR_REGIONS, .num_irqs = NR_IRQS,
    };
    d->udev.regions = d->regions;
    d->udev.config = d->config;
    d->udev.mig.flags = 0x1;
    d->udev.irqs[MSIX].info.count = 32;
    d->udev.irqs[MSIX].info.flags = 0x9;
    d->regions[CONFIG].info.size = CONFIG_SIZE;
    d->regions[CONFIG].info.flags = 0x3;
    for (unsigned i = 0; i < NR_REGIONS; i++) {
        d->regions[i].fd = -1;
    }
    d->areas[0] = (struct vfio_user_sparse_area) { 0x1000, 0x2000 };
    d->areas[1] = (struct vfio_user_sparse_area) { 0x8000, 0x1000 };
    d->regions[BAR].info.size = 0x10000;
    d->regions[BAR].info.guest_size = 0x10000;
    d->regions[BAR].info.flags = 0x7;
    d->regions[BAR].info.has_sparse = true;
    d->regions[BAR].info.nr_areas = ARRAY_SIZE(d->areas);
    d->regions[BAR].info.areas = d->areas;
    return d;
}

/**
 * Change: a field of a Device, and what is said when it has another value
 * @later: the server that comes has it; NULL: it is taken nevertheless
 * @before: the one that was there had it
 */
typedef struct Change {
    size_t off, len;
    uint64_t value;
    const char *later;
    const char *before;
} Change;

#define FIELD(field)    offsetof(Device, field), sizeof_field(Device, field)

static const Change must_be_equal[] = {
    { FIELD(udev.info.flags), 0x3,
      "device flags is 0x3, was 0x2", "device flags is 0x2, was 0x3" },
    { FIELD(udev.info.num_regions), 8,
      "number of regions is 0x8, was 0x9",
      "number of regions is 0x9, was 0x8" },
    { FIELD(udev.info.num_irqs), 4,
      "number of interrupt indices is 0x4, was 0x5",
      "number of interrupt indices is 0x5, was 0x4" },
    { FIELD(regions[CONFIG].info.size), 64,
      "size of config space is 0x40, was 0x100",
      "size of config space is 0x100, was 0x40" },
    { FIELD(config[0]), 0x86,
      "vendor ID is 0x86, was 0x0 (config space, offset 0x0)",
      "vendor ID is 0x0, was 0x86 (config space, offset 0x0)" },
    { FIELD(regions[BAR].info.size), 0x8000,
      "region 2: size is 0x8000, was 0x10000",
      "region 2: size is 0x10000, was 0x8000" },
    { FIELD(regions[BAR].info.flags), 0x3,
      "region 2: flags is 0x3, was 0x7", "region 2: flags is 0x7, was 0x3" },
    { FIELD(regions[BAR].info.has_sparse), false,
      "region 2: whether there are sparse areas is 0x0, was 0x1",
      "region 2: whether there are sparse areas is 0x1, was 0x0" },
    { FIELD(regions[BAR].info.nr_areas), 1,
      "region 2: number of areas is 0x1, was 0x2",
      "region 2: number of areas is 0x2, was 0x1" },
    { FIELD(areas[0].offset), 0,
      "region 2: offset of an area is 0x0, was 0x1000",
      "region 2: offset of an area is 0x1000, was 0x0" },
    { FIELD(areas[1].size), 0x3000,
      "region 2: size of an area is 0x3000, was 0x1000",
      "region 2: size of an area is 0x1000, was 0x3000" },
    { FIELD(regions[0].info.size), 0x1000,
      "region 0: size is 0x1000, was 0x0",
      "region 0: size is 0x0, was 0x1000" },
    { FIELD(regions[LAST].info.type), 0x80008086,
      "region 8: type is 0x80008086, was 0x0",
      "region 8: type is 0x0, was 0x80008086" },
    { FIELD(regions[LAST].info.subtype), 1,
      "region 8: subtype is 0x1, was 0x0",
      "region 8: subtype is 0x0, was 0x1" },
    { FIELD(udev.irqs[MSIX].info.count), 16,
      "interrupt index 2: number of interrupts is 0x10, was 0x20",
      "interrupt index 2: number of interrupts is 0x20, was 0x10" },
    { FIELD(udev.irqs[0].info.flags), 0x7,
      "interrupt index 0: flags is 0x7, was 0x0",
      "interrupt index 0: flags is 0x0, was 0x7" },
    { FIELD(udev.irqs[4].info.count), 1,
      "interrupt index 4: number of interrupts is 0x1, was 0x0",
      "interrupt index 4: number of interrupts is 0x0, was 0x1" },
};

/* What was negotiated is used on: more is of no use, less will not do. */
static const Change must_be_enough[] = {
    { FIELD(udev.caps.max_msg_fds), 9, NULL, "max_msg_fds is 8, was 9" },
    { FIELD(udev.caps.max_data_xfer_size), 0x200000,
      NULL, "max_data_xfer_size is 1048576, was 2097152" },
    { FIELD(udev.caps.max_dma_maps), 65536,
      NULL, "max_dma_maps is 65535, was 65536" },
    { FIELD(udev.caps.pgsizes), 0x201000,
      NULL, "pgsizes is 0x1000, was 0x201000" },
    { FIELD(udev.caps.pgsizes), 0x200000,
      "pgsizes is 0x0, was 0x1000", "pgsizes is 0x0, was 0x200000" },
    { FIELD(udev.caps.write_multiple), true,
      NULL, "write_multiple is 0, was 1" },
    { FIELD(udev.caps.migration_max_bitmap_size), 512,
      NULL, "max_bitmap_size is 256, was 512" },
    { FIELD(udev.mig.can_log), true, NULL, "DMA logging is 0, was 1" },
};

static const Change migration[] = {
    { FIELD(udev.mig.flags), 0x3,
      "migration flags is 0x3, was 0x1", "migration flags is 0x1, was 0x3" },
    /* A device that could not be migrated need not begin with it. */
    { FIELD(udev.mig.flags), 0, "migration flags is 0x0, was 0x1", NULL },
    { FIELD(udev.caps.migration_pgsize), 0x4000,
      "page size of migration is 0x4000, was 0x1000",
      "page size of migration is 0x1000, was 0x4000" },
};

/* What is no concern of the guest's, or stays as it was found out first */
static const Change may_differ[] = {
    { FIELD(udev.caps.minor), 2 },
    { FIELD(udev.caps.major), 1 },
    { FIELD(udev.caps.twin_socket), true },
    { FIELD(udev.caps.twin_fd_index), 1 },
    { FIELD(udev.mig.knows_size), true },
    { FIELD(regions[BAR].info.offset), 0x20000 },
    { FIELD(regions[BAR].fd), 77 },
    { FIELD(regions[BAR].posted), true },
    { FIELD(regions[BAR].info.nr_dropped), 3 },
};

static void set(Device *d, const Change *c)
{
    void *at = (uint8_t *)d + c->off;
    uint8_t v8 = c->value;
    uint16_t v16 = c->value;
    uint32_t v32 = c->value;
    const void *value = c->len == 1 ? (void *)&v8 :
                        c->len == 2 ? (void *)&v16 :
                        c->len == 4 ? (void *)&v32 : (void *)&c->value;

    g_assert(memcmp(at, value, c->len));
    memcpy(at, value, c->len);
}

static void expect(const Device *was, const Device *is, const char *text)
{
    g_autofree char *said = NULL;
    Error *err = NULL;
    bool same = vfio_user_identity_same(&was->udev, &is->udev, &err);

    g_assert_cmpint(same, ==, !err);
    if (err) {
        said = g_strdup(error_get_pretty(err));
        error_free(err);
    }
    g_assert_cmpstr(said, ==, text);
}

static void check(const Change *c)
{
    g_autofree Device *was = new_device();
    g_autofree Device *changed = new_device();

    set(changed, c);
    expect(was, changed, c->later);
    expect(changed, was, c->before);
}

static void test_equal(void)
{
    g_autofree Device *was = new_device();
    g_autofree Device *is = new_device();

    expect(was, is, NULL);
}

#define TEST_TABLE(name)                                                \
static void test_##name(void)                                           \
{                                                                       \
    for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {                   \
        check(&name[i]);                                                \
    }                                                                   \
}

TEST_TABLE(must_be_equal)
TEST_TABLE(must_be_enough)
TEST_TABLE(migration)
TEST_TABLE(may_differ)

/* A page size that was never asked for does not bind. */
static void test_page_size_unused(void)
{
    g_autofree Device *was = new_device();
    g_autofree Device *is = new_device();

    was->udev.caps.has_migration = false;
    was->udev.caps.migration_pgsize = 0;
    expect(was, is, NULL);
}

/* Without an IOMMU the device can do with a smaller table. */
static void test_fewer_windows(void)
{
    g_autofree Device *was = new_device();
    g_autofree Device *is = new_device();

    is->udev.caps.max_dma_maps = 1;
    expect(was, is, "max_dma_maps is 1, was 65535");
    behind_iommu = false;
    expect(was, is, NULL);
    behind_iommu = true;
}

/* Only regions that there are count; there is room for more. */
static void test_beyond(void)
{
    g_autofree Device *was = new_device();
    g_autofree Device *is = new_device();

    was->udev.info.num_regions = is->udev.info.num_regions = LAST;
    is->regions[LAST].info.size = 0x1000;
    expect(was, is, NULL);
}

/* Several differences: what kind of device it is comes first. */
static void test_order(void)
{
    g_autofree Device *was = new_device();
    g_autofree Device *is = new_device();

    is->udev.mig.flags = 0;
    expect(was, is, "migration flags is 0x0, was 0x1");
    is->udev.caps.max_msg_fds = 1;
    expect(was, is, "max_msg_fds is 1, was 8");
    is->udev.irqs[MSIX].info.count = 1;
    expect(was, is, "interrupt index 2: number of interrupts is 0x1, was 0x20");
    is->regions[BAR].info.size = 0x1000;
    expect(was, is, "region 2: size is 0x1000, was 0x10000");
    is->udev.info.flags = 0x3;
    expect(was, is, "device flags is 0x3, was 0x2");
    is->config[0] = 0x86;
    expect(was, is, "vendor ID is 0x86, was 0x0 (config space, offset 0x0)");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-user/identity/equal", test_equal);
    g_test_add_func("/vfio-user/identity/must-be-equal", test_must_be_equal);
    g_test_add_func("/vfio-user/identity/must-be-enough", test_must_be_enough);
    g_test_add_func("/vfio-user/identity/migration", test_migration);
    g_test_add_func("/vfio-user/identity/may-differ", test_may_differ);
    g_test_add_func("/vfio-user/identity/page-size-unused",
                    test_page_size_unused);
    g_test_add_func("/vfio-user/identity/fewer-windows", test_fewer_windows);
    g_test_add_func("/vfio-user/identity/beyond", test_beyond);
    g_test_add_func("/vfio-user/identity/order", test_order);
    return g_test_run();
}
