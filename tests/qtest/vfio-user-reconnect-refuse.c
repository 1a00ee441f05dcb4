/*
 * vfio-user qtest: another device comes in place of the one that went
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest's driver has learnt what the device is. One that differs in that is
 * refused with a text that names the difference; it may be as good as new in
 * everything else.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "../server/server-migration.h"
#include "vfio-user-reconnect.h"

#define SERIAL          0x1122334455667788ull
#define EXT_DSN         3
#define EXT_VENDOR      0x0b
/* Attempts, after which a reason that is told each time would have shown. */
#define ATTEMPTS        4

/**
 * Difference: between the device that went and the one that comes
 * @base: the one that went, and the right one, beside the standard device
 * @other: in addition, the one that comes
 * @says: what VFIO_USER_REFUSED's reason must match
 * @device: more properties
 * @machine, @args: as in VUTOptions
 */
typedef struct Difference {
    const char *name;
    void (*other)(TestServer *s);
    const char *says;
    void (*base)(TestServer *s);
    const char *device;
    const char *machine;
    const char *args;
} Difference;

static uint8_t *config_of(TestServer *s)
{
    return ts_region_mem(s, VFIO_USER_REGION_CONFIG);
}

/* Of the standard device: PM, MSI, MSI-X, vendor specific */
static uint8_t find_cap(TestServer *s, uint8_t id)
{
    uint8_t *config = config_of(s);
    uint8_t at = config[PCI_CAPABILITY_LIST];

    while (at && config[at] != id) {
        at = config[at + PCI_CAP_LIST_NEXT];
    }
    g_assert(at);
    return at;
}

/* Identity ---------------------------------------------------------------- */

static void other_vendor(TestServer *s)
{
    stw_le_p(config_of(s) + PCI_VENDOR_ID, 0x1235);
}

static void other_device(TestServer *s)
{
    stw_le_p(config_of(s) + PCI_DEVICE_ID, 0x5679);
}

static void other_class(TestServer *s)
{
    stw_le_p(config_of(s) + PCI_CLASS_DEVICE, 0x0200);
}

static void other_prog(TestServer *s)
{
    config_of(s)[PCI_CLASS_PROG] = 2;
}

static void other_revision(TestServer *s)
{
    config_of(s)[PCI_REVISION_ID] = 2;
}

static void other_subvendor(TestServer *s)
{
    stw_le_p(config_of(s) + PCI_SUBSYSTEM_VENDOR_ID, 0x4321);
}

static void other_subsystem(TestServer *s)
{
    stw_le_p(config_of(s) + PCI_SUBSYSTEM_ID, 0x4321);
}

static void other_header(TestServer *s)
{
    config_of(s)[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_MFD;
}

static void other_pin(TestServer *s)
{
    config_of(s)[PCI_INTERRUPT_PIN] = 2;
}

static void add_serial(TestServer *s)
{
    uint64_t serial = cpu_to_le64(SERIAL);

    ts_add_pcie(s, 0);
    ts_add_ext_cap(s, EXT_DSN, 1, &serial, sizeof(serial));
}

static void other_serial(TestServer *s)
{
    stq_le_p(config_of(s) + PCI_CFG_SPACE_SIZE + 4, SERIAL + 1);
}

/* Capabilities ------------------------------------------------------------ */

static void one_cap_more(TestServer *s)
{
    ts_add_pcie(s, 0);
}

static void one_cap_less(TestServer *s)
{
    config_of(s)[find_cap(s, PCI_CAP_ID_MSIX) + PCI_CAP_LIST_NEXT] = 0;
}

static void no_caps(TestServer *s)
{
    config_of(s)[PCI_STATUS] &= ~PCI_STATUS_CAP_LIST;
}

static void caps_in_other_order(TestServer *s)
{
    uint8_t pm = find_cap(s, PCI_CAP_ID_PM);
    uint8_t vendor = find_cap(s, PCI_CAP_ID_VNDR);
    uint8_t *config = config_of(s);

    /* The last one becomes the first. */
    config[find_cap(s, PCI_CAP_ID_MSIX) + PCI_CAP_LIST_NEXT] = 0;
    config[vendor + PCI_CAP_LIST_NEXT] = pm;
    config[PCI_CAPABILITY_LIST] = vendor;
}

static void other_cap(TestServer *s)
{
    config_of(s)[find_cap(s, PCI_CAP_ID_VNDR)] = PCI_CAP_ID_SSVID;
}

static void one_ext_cap_more(TestServer *s)
{
    uint32_t vendor[2] = { 0x1234, 0 };

    ts_add_ext_cap(s, EXT_VENDOR, 1, vendor, sizeof(vendor));
}

static void msi_without_64_bits(TestServer *s)
{
    uint8_t *flags = config_of(s) + find_cap(s, PCI_CAP_ID_MSI) +
                     PCI_MSI_FLAGS;

    *flags &= ~PCI_MSI_FLAGS_64BIT;
}

static void other_msix_table(TestServer *s)
{
    stl_le_p(config_of(s) + find_cap(s, PCI_CAP_ID_MSIX) + PCI_MSIX_TABLE,
             0x400 | 5);
}

static void other_msix_bar(TestServer *s)
{
    stl_le_p(config_of(s) + find_cap(s, PCI_CAP_ID_MSIX) + PCI_MSIX_TABLE,
             0);
}

static void other_msix_pba(TestServer *s)
{
    stl_le_p(config_of(s) + find_cap(s, PCI_CAP_ID_MSIX) + PCI_MSIX_PBA,
             0x1800 | 5);
}

static void fewer_msix_vectors(TestServer *s)
{
    stw_le_p(config_of(s) + find_cap(s, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS,
             TS_STANDARD_MSIX / 2 - 1);
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, TS_STANDARD_MSIX / 2,
                VFIO_USER_IRQ_EVENTFD, TS_MASK_ACCEPT);
}

/* Interrupts -------------------------------------------------------------- */

static void more_irqs(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, TS_STANDARD_MSIX * 2,
                VFIO_USER_IRQ_EVENTFD, TS_MASK_ACCEPT);
}

static void no_err(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_ERR, 0, 0, TS_MASK_REFUSE);
}

static void fewer_indices(TestServer *s)
{
    ts_info(s)->num_irqs = VFIO_USER_IRQ_REQ;
}

static void unmaskable_intx(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_INTX, 1, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_ACCEPT);
}

/* Regions ----------------------------------------------------------------- */

static void larger_bar(TestServer *s)
{
    ts_add_bar(s, 0, 0x2000, 0);
}

static void smaller_bar(TestServer *s)
{
    ts_add_bar(s, 5, 0x1000, 0);
}

static void low_pba(TestServer *s)
{
    stl_le_p(config_of(s) + find_cap(s, PCI_CAP_ID_MSIX) + PCI_MSIX_PBA,
             0x800 | 5);
}

static void no_bar(TestServer *s)
{
    ts_region(s, 0, 0, 0);
}

static void no_io(TestServer *s)
{
    ts_region(s, 4, 0, 0);
}

static void one_bar_more(TestServer *s)
{
    ts_add_bar(s, 4, 256, TS_BAR_IO);
}

static void prefetchable_bar(TestServer *s)
{
    ts_add_bar(s, 0, 0x1000, TS_BAR_PREFETCH);
}

static void memory_for_io(TestServer *s)
{
    ts_add_bar(s, 4, 256, 0);
}

static void io_for_memory(TestServer *s)
{
    ts_add_bar(s, 0, 0x1000, TS_BAR_IO);
}

static void narrow_bar(TestServer *s)
{
    ts_add_bar(s, 2, 0x10000, TS_BAR_PREFETCH)->flags |=
        VFIO_USER_REGION_MMAP;
}

static void read_only_bar(TestServer *s)
{
    ts_region(s, 0, 0x1000, VFIO_USER_REGION_READABLE);
}

static void unmapped_bar(TestServer *s)
{
    ts_add_bar(s, 2, 0x10000, TS_BAR_64 | TS_BAR_PREFETCH);
}

static void mapped_bar(TestServer *s)
{
    ts_add_bar(s, 0, 0x1000, 0)->flags |= VFIO_USER_REGION_MMAP;
}

static TsRegion *bar1(TestServer *s)
{
    TsRegion *r = ts_add_bar(s, 1, 0x8000, 0);

    r->flags |= VFIO_USER_REGION_MMAP;
    return r;
}

static void other_area(TestServer *s)
{
    bar1(s)->areas[1].offset = 0x5000;
}

static void longer_area(TestServer *s)
{
    bar1(s)->areas[1].size = 0x3000;
}

static void one_area_less(TestServer *s)
{
    bar1(s)->nr_areas = 1;
}

static void other_rom(TestServer *s)
{
    ts_region(s, VFIO_USER_REGION_ROM, 0x2000, VFIO_USER_REGION_READABLE);
}

static void fewer_regions(TestServer *s)
{
    ts_info(s)->num_regions = VFIO_USER_REGION_VGA;
}

static void more_regions(TestServer *s)
{
    ts_info(s)->num_regions = VFIO_USER_REGION_VGA + 2;
}

/* Options ----------------------------------------------------------------- */

static void not_resettable(TestServer *s)
{
    ts_info(s)->flags &= ~VFIO_USER_DEVICE_RESETTABLE;
}

static void fewer_fds(TestServer *s)
{
    ts_limits(s)->max_msg_fds = 1;
}

static void smaller_messages(TestServer *s)
{
    ts_limits(s)->max_data_xfer_size = 4096;
}

static void fewer_windows(TestServer *s)
{
    ts_limits(s)->max_dma_maps = 100;
}

static void larger_pages(TestServer *s)
{
    ts_limits(s)->pgsizes = 65536;
}

static void multi(TestServer *s)
{
    ts_limits(s)->write_multiple = true;
}

static void no_multi(TestServer *s)
{
    ts_limits(s)->write_multiple = false;
}

static void migratable(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY |
                        VFIO_USER_MIGRATION_PRE_COPY)->logging = true;
}

static void half_migratable(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY)->logging = true;
}

static const Difference differences[] = {
    { "vendor", other_vendor, "vendor ID is 0x1235, was 0x1234" },
    { "device", other_device, "device ID is 0x5679, was 0x5678" },
    { "class", other_class, "class is 0x200, was 0xff00" },
    { "programming-interface", other_prog, "programming interface" },
    { "revision", other_revision, "revision is 0x2, was 0x1" },
    { "subsystem-vendor", other_subvendor, "subsystem vendor ID" },
    { "subsystem", other_subsystem, "subsystem ID is 0x4321" },
    { "header-type", other_header, "header type" },
    { "interrupt-pin", other_pin, "interrupt pin is 0x2, was 0x1" },
    { "serial-number", other_serial, "serial number is 1122334455667789",
      add_serial },
    { "caps/more", one_cap_more, "capabilities*0x10" },
    { "caps/less", one_cap_less, "capabilities*was 0x9" },
    { "caps/none", no_caps, "capabilities" },
    { "caps/order", caps_in_other_order, "capabilities" },
    { "caps/other", other_cap, "capabilities*0xd*was 0x9" },
    { "caps/extended", one_ext_cap_more, "extended capability", add_serial },
    { "msi/64-bit", msi_without_64_bits, "MSI" },
    { "msix/table", other_msix_table, "MSI-X table" },
    { "msix/bar", other_msix_bar, "MSI-X table" },
    { "msix/pba", other_msix_pba, "MSI-X PBA" },
    { "msix/vectors", fewer_msix_vectors, "*" },
    { "irqs/more", more_irqs, "interrupt index 2: number of interrupts" },
    { "irqs/no-err", no_err, "*interrupt*3*" },
    { "irqs/indices", fewer_indices, "*interrupt*" },
    { "irqs/flags", unmaskable_intx, "*interrupt*0*" },
    { "bar/larger", larger_bar, "region 0*0x2000*0x1000" },
    { "bar/smaller", smaller_bar, "region 5*0x1000*0x2000", low_pba },
    { "bar/none", no_bar, "region 0*" },
    { "bar/more", one_bar_more, "region 4*0x100*0x0", no_io },
    { "bar/prefetchable", prefetchable_bar, "type of BAR 0" },
    { "bar/memory-for-io", memory_for_io, "type of BAR 4" },
    { "bar/io-for-memory", io_for_memory, "type of BAR 0" },
    { "bar/narrow", narrow_bar, "type of BAR 2" },
    { "bar/read-only", read_only_bar, "region 0*" },
    { "bar/unmapped", unmapped_bar, "region 2*" },
    { "bar/mapped", mapped_bar, "region 0*" },
    { "area/moved", other_area, "region 1*" },
    { "area/longer", longer_area, "region 1*" },
    { "area/less", one_area_less, "region 1*" },
    { "rom", other_rom, "region 6*" },
    { "regions/fewer", fewer_regions, "*regions*" },
    { "regions/more", more_regions, "*regions*" },
    { "no-reset", not_resettable, "*" },
    { "limits/max-msg-fds", fewer_fds, "max_msg_fds*" },
    { "limits/max-data-xfer-size", smaller_messages, "max_data_xfer_size*" },
    /* Without an IOMMU it is taken, see below. */
    { "limits/max-dma-maps", fewer_windows, "max_dma_maps*",
      .machine = "q35", .args = "-device virtio-iommu-pci" },
    { "limits/pgsizes", larger_pages, "pgsizes*" },
    { "limits/write-multiple", no_multi, "write_multiple*", multi },
    { "migration/none", no_multi, "migration*", migratable },
    { "migration/less", half_migratable, "migration*", migratable },
};

/* Setup functions have no argument of their own. */
static const Difference *present;

static void setup_base(TestServer *s)
{
    if (present->base) {
        present->base(s);
    }
}

/* Of what takes something away that the standard device has not. */
static void setup_other(TestServer *s)
{
    bool instead = present->base == migratable;

    if (!instead) {
        setup_base(s);
    }
    present->other(s);
}

static void check_reason(const QDict *data, const char *says)
{
    const char *reason = qdict_get_str(data, "reason");

    g_test_message("%s", reason);
    if (!rt_matches(reason, says)) {
        g_error("'%s' does not say '%s'", reason, says);
    }
}

static void test_refused(const void *opaque)
{
    RTest *r;

    present = opaque;
    r = rt_new(&(VUTOptions) {
        .setup = setup_base, .device = present->device,
        .machine = present->machine, .args = present->args,
    });
    rt_check_works(r, 1);
    rt_lose(r);
    rt_return_fresh(r, setup_other);
    check_reason(rt_expect(r, "REFUSED"), present->says);
    rt_check_offline(r);
    /* It is not told again, and nothing is done to the wrong device. */
    VUT_WAIT(ts_nr_clients(r->t->s) >= ATTEMPTS);
    rt_expect_no_more(r);
    g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), ==, 0);
    g_assert_cmpuint(ts_log_count(r->t->s, (TsMatch) {
        VFIO_USER_DMA_MAP, -1, -1 }), ==, 0);
    g_assert_cmpuint(ts_log_count(r->t->s, (TsMatch) {
        VFIO_USER_REGION_WRITE, -1, -1 }), ==, 0);
    rt_return_fresh(r, setup_base);
    rt_expect_return(r, false);
    rt_check_works(r, 2);
    rt_expect_no_more(r);
    rt_free(r);
}

/* Each reason is told. */
static void test_reasons(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    rt_lose(r);
    rt_return_fresh(r, other_vendor);
    check_reason(rt_expect(r, "REFUSED"), "vendor ID");
    rt_return_fresh(r, other_device);
    check_reason(rt_expect(r, "REFUSED"), "device ID");
    rt_return_fresh(r, other_vendor);
    check_reason(rt_expect(r, "REFUSED"), "vendor ID");
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    rt_check_works(r, 3);
    /* And anew when it has been there meanwhile. */
    rt_lose(r);
    rt_return_fresh(r, other_vendor);
    check_reason(rt_expect(r, "REFUSED"), "vendor ID");
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    rt_free(r);
}

/* Such a server could not be a device at all. */
static void setup_broken(TestServer *s)
{
    static const TsMove lie = {
        .kind = TS_MOVE_PATCH, .command = VFIO_USER_DEVICE_GET_REGION_INFO,
        .index = 0, .a = 8, .b = 77,
    };

    ts_add_move(s, &lie);
}

static void test_broken(void)
{
    RTest *r = rt_new(&(VUTOptions) { 0 });

    rt_lose(r);
    rt_return_fresh(r, setup_broken);
    check_reason(rt_expect(r, "REFUSED"), "region");
    VUT_WAIT(ts_nr_clients(r->t->s) >= ATTEMPTS);
    rt_check_offline(r);
    rt_return_fresh(r, NULL);
    rt_expect_return(r, false);
    rt_check_works(r, 4);
    rt_free(r);
}

/* Differences that no driver can have noticed ----------------------------- */

static void more_of_all(TestServer *s)
{
    TsLimits *l = ts_limits(s);

    l->max_msg_fds = 16;
    l->max_data_xfer_size *= 2;
    l->write_multiple = true;
}

static void other_content(TestServer *s)
{
    static const uint8_t rom[64] = { 0x55, 0xaa, 8 };
    uint8_t vendor = find_cap(s, PCI_CAP_ID_VNDR);

    memset(config_of(s) + vendor + 3, 0xcc, 8);
    config_of(s)[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    ts_region_content(s, 0, rom, sizeof(rom));
}

static void older_minor(TestServer *s)
{
    ts_limits(s)->minor = 1;
}

static void lax_masks(TestServer *s)
{
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, TS_STANDARD_MSIX,
                VFIO_USER_IRQ_EVENTFD, TS_MASK_KEEP);
}

static const Difference harmless[] = {
    { "limits", more_of_all },
    { "windows", fewer_windows },
    { "content", other_content },
    { "minor", older_minor },
    { "masks", lax_masks },
};

static void test_accepted(const void *opaque)
{
    const Difference *d = opaque;
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });

    rt_lose(r);
    rt_return_fresh(r, d->other);
    rt_expect_return(r, false);
    rt_check_works(r, 5);
    rt_free(r);
}

void rt_register_refuse(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(differences); i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/refused/%s",
                            differences[i].name);

        vut_add_data_test(path, &differences[i], test_refused);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(harmless); i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/accepted/%s",
                            harmless[i].name);

        vut_add_data_test(path, &harmless[i], test_accepted);
    }
    vut_add_test("vfio-user/reconnect/refused/reasons", test_reasons);
    vut_add_test("vfio-user/reconnect/refused/broken", test_broken);
}
