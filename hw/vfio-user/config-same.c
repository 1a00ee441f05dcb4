/*
 * vfio-user: is this the configuration space of the same device?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A driver learns a device once. When its server was replaced, what it has
 * learnt must still hold: which device it is, where its capabilities are, how
 * many vectors there are and where their table is.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci.h"
#include "config-same.h"

typedef struct ConfigField {
    unsigned offset;
    unsigned len;
    uint32_t mask;
    const char *name;
} ConfigField;

static const ConfigField header_fields[] = {
    { PCI_VENDOR_ID, 2, 0xffff, "vendor ID" },
    { PCI_DEVICE_ID, 2, 0xffff, "device ID" },
    { PCI_STATUS, 2, PCI_STATUS_CAP_LIST, "presence of capabilities" },
    { PCI_CLASS_REVISION, 1, 0xff, "revision" },
    { PCI_CLASS_PROG, 1, 0xff, "programming interface" },
    { PCI_CLASS_DEVICE, 2, 0xffff, "class" },
    { PCI_HEADER_TYPE, 1, 0xff, "header type" },
    { PCI_SUBSYSTEM_VENDOR_ID, 2, 0xffff, "subsystem vendor ID" },
    { PCI_SUBSYSTEM_ID, 2, 0xffff, "subsystem ID" },
    { PCI_INTERRUPT_PIN, 1, 0xff, "interrupt pin" },
};

/* Fixed properties of capabilities, by their offset in each. */
static const struct {
    uint8_t cap;
    ConfigField field;
} cap_fields[] = {
    { PCI_CAP_ID_PM, { PCI_PM_PMC, 2, 0xffff, "power management" } },
    { PCI_CAP_ID_MSI, { PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_QMASK |
                        PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT,
                        "kind of MSI" } },
    { PCI_CAP_ID_EXP, { PCI_EXP_FLAGS, 2, PCI_EXP_FLAGS_VERS |
                        PCI_EXP_FLAGS_TYPE, "PCI Express type" } },
    { PCI_CAP_ID_EXP, { PCI_EXP_DEVCAP, 4, PCI_EXP_DEVCAP_FLR,
                        "function level reset" } },
    { PCI_CAP_ID_MSIX, { PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_QSIZE,
                         "number of MSI-X vectors" } },
    { PCI_CAP_ID_MSIX, { PCI_MSIX_TABLE, 4, UINT32_MAX, "MSI-X table" } },
    { PCI_CAP_ID_MSIX, { PCI_MSIX_PBA, 4, UINT32_MAX, "MSI-X PBA" } },
};

static uint32_t get_field(const uint8_t *config, unsigned at,
                          const ConfigField *f)
{
    uint32_t value = f->len == 1 ? config[at] :
                     f->len == 2 ? pci_get_word(config + at) :
                                   pci_get_long(config + at);

    return value & f->mask;
}

static bool same_field(const uint8_t *was, const uint8_t *is, unsigned base,
                       const ConfigField *f, Error **errp)
{
    uint32_t a = get_field(was, base + f->offset, f);
    uint32_t b = get_field(is, base + f->offset, f);

    if (a != b) {
        error_setg(errp, "%s is 0x%x, was 0x%x (config space, offset 0x%x)",
                   f->name, b, a, base + f->offset);
    }
    return a == b;
}

static uint32_t bar_kind_mask(uint32_t bar)
{
    return bar & PCI_BASE_ADDRESS_SPACE_IO ?
           PCI_BASE_ADDRESS_SPACE_IO : (uint32_t)~PCI_BASE_ADDRESS_MEM_MASK;
}

/* The upper half of a 64-bit BAR is all address. */
static bool bar_is_upper(const uint8_t *config, unsigned nr)
{
    uint32_t below;

    if (!nr || bar_is_upper(config, nr - 1)) {
        return false;
    }
    below = pci_get_long(config + PCI_BASE_ADDRESS_0 + 4 * (nr - 1));
    return !(below & PCI_BASE_ADDRESS_SPACE_IO) &&
           below & PCI_BASE_ADDRESS_MEM_TYPE_64;
}

static bool same_bars(const uint8_t *was, const uint8_t *is, Error **errp)
{
    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        unsigned at = PCI_BASE_ADDRESS_0 + 4 * i;
        g_autofree char *name = g_strdup_printf("type of BAR %u", i);
        ConfigField f = { .len = 4, .name = name };

        if (bar_is_upper(was, i)) {
            continue;
        }
        f.mask = bar_kind_mask(pci_get_long(was + at)) |
                 bar_kind_mask(pci_get_long(is + at));
        if (!same_field(was, is, at, &f, errp)) {
            return false;
        }
    }
    return true;
}

static bool same_cap(const uint8_t *was, const uint8_t *is, unsigned at,
                     Error **errp)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cap_fields); i++) {
        if (was[at] == cap_fields[i].cap &&
            !same_field(was, is, at, &cap_fields[i].field, errp)) {
            return false;
        }
    }
    return true;
}

/* Both lists end: vfio_user_config_check() saw to it. */
static bool same_caps(const uint8_t *was, const uint8_t *is, Error **errp)
{
    unsigned at = was[PCI_CAPABILITY_LIST] & ~3;
    unsigned there = is[PCI_CAPABILITY_LIST] & ~3;

    if (!(pci_get_word(was + PCI_STATUS) & PCI_STATUS_CAP_LIST)) {
        return true;
    }
    while (at && at == there && was[at] == is[at]) {
        if (!same_cap(was, is, at, errp)) {
            return false;
        }
        there = is[at + PCI_CAP_LIST_NEXT] & ~3;
        at = was[at + PCI_CAP_LIST_NEXT] & ~3;
    }
    if (!at && !there) {
        return true;
    }
    error_setg(errp, "capabilities: 0x%x at offset 0x%x, was 0x%x at 0x%x "
               "(offset 0: none)", there ? is[there] : 0, there,
               at ? was[at] : 0, at);
    return false;
}

/* One that the end of the space cuts off is none. */
static bool same_serial(const uint8_t *was, const uint8_t *is, size_t size,
                        unsigned at, Error **errp)
{
    if (at + PCI_EXT_CAP_DSN_SIZEOF > size ||
        !memcmp(was + at + 4, is + at + 4, 8)) {
        return true;
    }
    error_setg(errp, "serial number is %016" PRIx64 ", was %016" PRIx64,
               pci_get_quad(is + at + 4), pci_get_quad(was + at + 4));
    return false;
}

static bool same_ext_caps(const uint8_t *was, const uint8_t *is, size_t size,
                          Error **errp)
{
    unsigned at = PCI_CONFIG_SPACE_SIZE;

    while (at) {
        uint32_t a = pci_get_long(was + at), b = pci_get_long(is + at);

        if (a != b) {
            error_setg(errp, "extended capability 0x%x at offset 0x%x (next: "
                       "0x%x), was 0x%x (next: 0x%x)", PCI_EXT_CAP_ID(b), at,
                       PCI_EXT_CAP_NEXT(b), PCI_EXT_CAP_ID(a),
                       PCI_EXT_CAP_NEXT(a));
            return false;
        }
        if (PCI_EXT_CAP_ID(a) == PCI_EXT_CAP_ID_DSN &&
            !same_serial(was, is, size, at, errp)) {
            return false;
        }
        at = PCI_EXT_CAP_NEXT(a);
    }
    return true;
}

bool vfio_user_config_same(const uint8_t *was, const uint8_t *is, size_t size,
                           Error **errp)
{
    for (unsigned i = 0; i < ARRAY_SIZE(header_fields); i++) {
        if (!same_field(was, is, 0, &header_fields[i], errp)) {
            return false;
        }
    }
    return same_bars(was, is, errp) && same_caps(was, is, errp) &&
           (size <= PCI_CONFIG_SPACE_SIZE ||
            same_ext_caps(was, is, size, errp));
}

bool vfio_user_config_kept(const uint8_t *guest, const uint8_t *is,
                           unsigned bars)
{
    uint16_t mask = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    uint16_t command = pci_get_word(guest + PCI_COMMAND) & mask;

    if (command != (pci_get_word(is + PCI_COMMAND) & mask)) {
        return false;
    }
    for (unsigned i = 0; command && i < PCI_ROM_SLOT; i++) {
        unsigned at = PCI_BASE_ADDRESS_0 + 4 * i;

        if ((bars & 1u << i || bar_is_upper(guest, i)) &&
            pci_get_long(guest + at) != pci_get_long(is + at)) {
            return false;
        }
    }
    return true;
}
