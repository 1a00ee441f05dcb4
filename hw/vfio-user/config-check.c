/*
 * vfio-user: may hw/vfio be shown this configuration space?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio reads a device's configuration space once and believes it: it
 * recurses along the capability list and loops along the extended one until
 * a link of 0, indexes its six BARs with three bits of the MSI-X capability,
 * and calls into QEMU's PCI core, which holds what it is told against
 * assertions. Each rule here stands for one such place; what merely is odd
 * passes.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci.h"
#include "config-check.h"

#define HEADER_END      PCI_CONFIG_HEADER_SIZE

typedef struct ConfigView {
    const uint8_t *config;
    size_t size;
    const uint64_t *bar_size;
} ConfigView;

static uint32_t bar_word(const ConfigView *v, unsigned nr)
{
    return pci_get_long(v->config + PCI_BASE_ADDRESS_0 + 4 * nr);
}

static bool bar_is_io(const ConfigView *v, unsigned nr)
{
    return bar_word(v, nr) & PCI_BASE_ADDRESS_SPACE_IO;
}

static bool check_header(const ConfigView *v, Error **errp)
{
    uint8_t type = v->config[PCI_HEADER_TYPE] & ~PCI_HEADER_TYPE_MULTI_FUNCTION;

    if (type != PCI_HEADER_TYPE_NORMAL) {
        error_setg(errp, "header type %u is not that of an endpoint", type);
        return false;
    }
    return true;
}

/* The upper half of a 64-bit BAR lies where the next BAR would. */
/* hw/vfio indexes the pins of the bus with it; not all versions look. */
static bool check_pin(const ConfigView *v, Error **errp)
{
    uint8_t pin = v->config[PCI_INTERRUPT_PIN];

    if (pin > 4) {
        error_setg(errp, "invalid PCI interrupt pin %u", pin);
        return false;
    }
    return true;
}

static bool check_bars(const ConfigView *v, Error **errp)
{
    for (unsigned i = 0; i < VFIO_USER_NR_BARS; i++) {
        if (!v->bar_size[i] || bar_is_io(v, i) ||
            !(bar_word(v, i) & PCI_BASE_ADDRESS_MEM_TYPE_64)) {
            continue;
        }
        if (i + 1 == VFIO_USER_NR_BARS || v->bar_size[i + 1]) {
            error_setg(errp, "BAR %u is 64 bits wide, but there is no room "
                       "for its upper half", i);
            return false;
        }
    }
    return true;
}

/* Devices that hw/vfio has a quirk for, in a BAR that it takes for granted. */
static bool check_quirk_bars(const ConfigView *v, Error **errp)
{
    static const struct {
        uint16_t vendor;
        int device;
        bool vga;
        uint8_t bar;
    } quirks[] = {
        { PCI_VENDOR_ID_NVIDIA, -1, true, 0 },
        { PCI_VENDOR_ID_INTEL, -1, true, 0 },
        { PCI_VENDOR_ID_REALTEK, 0x8168, false, 2 },
    };
    uint16_t vendor = pci_get_word(v->config + PCI_VENDOR_ID);
    uint16_t device = pci_get_word(v->config + PCI_DEVICE_ID);
    uint16_t class = pci_get_word(v->config + PCI_CLASS_DEVICE);

    for (size_t i = 0; i < ARRAY_SIZE(quirks); i++) {
        if (quirks[i].vendor == vendor &&
            (quirks[i].device < 0 || quirks[i].device == device) &&
            (!quirks[i].vga || class == PCI_CLASS_DISPLAY_VGA) &&
            !v->bar_size[quirks[i].bar]) {
            error_setg(errp, "device %04x:%04x has no BAR %u, which every "
                       "such device has", vendor, device, quirks[i].bar);
            return false;
        }
    }
    return true;
}

static bool check_msi(const uint8_t *cap, Error **errp)
{
    unsigned log2 = (pci_get_word(cap + PCI_MSI_FLAGS) &
                     PCI_MSI_FLAGS_QMASK) >> 1;

    if (log2 > 5) {
        error_setg(errp, "MSI capability claims %u vectors, 32 are possible",
                   1u << log2);
        return false;
    }
    return true;
}

/* @what lies at @where, as the MSI-X capability writes it, and is @len long. */
static bool check_msix_part(const ConfigView *v, const char *what,
                            uint32_t where, uint64_t len, Error **errp)
{
    unsigned bir = where & PCI_MSIX_FLAGS_BIRMASK;
    uint64_t off = where & ~PCI_MSIX_FLAGS_BIRMASK;

    if (bir >= VFIO_USER_NR_BARS || !v->bar_size[bir] || bar_is_io(v, bir)) {
        error_setg(errp, "MSI-X %s is in BAR %u, which is no memory BAR of "
                   "this device", what, bir);
        return false;
    }
    if (off + len > v->bar_size[bir]) {
        error_setg(errp, "MSI-X %s at 0x%" PRIx64 "+0x%" PRIx64 " is outside "
                   "BAR %u of 0x%" PRIx64 " bytes", what, off, len, bir,
                   v->bar_size[bir]);
        return false;
    }
    return true;
}

static bool check_msix(const ConfigView *v, const uint8_t *cap, Error **errp)
{
    uint64_t nr = (pci_get_word(cap + PCI_MSIX_FLAGS) &
                   PCI_MSIX_FLAGS_QSIZE) + 1;

    return check_msix_part(v, "table", pci_get_long(cap + PCI_MSIX_TABLE),
                           nr * PCI_MSIX_ENTRY_SIZE, errp) &&
           check_msix_part(v, "PBA", pci_get_long(cap + PCI_MSIX_PBA),
                           DIV_ROUND_UP(nr, 64) * 8, errp);
}

/* Bytes that hw/vfio touches from the capability's beginning on. */
static unsigned cap_len(const uint8_t *cap)
{
    uint16_t flags;

    switch (cap[PCI_CAP_LIST_ID]) {
    case PCI_CAP_ID_PM:
        return PCI_PM_SIZEOF;
    case PCI_CAP_ID_MSI:
        flags = pci_get_word(cap + PCI_MSI_FLAGS);
        return 0xa + (flags & PCI_MSI_FLAGS_64BIT ? 4 : 0) +
               (flags & PCI_MSI_FLAGS_MASKBIT ? 0xa : 0);
    case PCI_CAP_ID_MSIX:
        return MSIX_CAP_LENGTH;
    case PCI_CAP_ID_EXP:
        return PCI_EXP_LNKSTA + 2;
    case PCI_CAP_ID_AF:
        return PCI_CAP_AF_SIZEOF;
    default:
        return PCI_CAP_SIZEOF;
    }
}

static bool check_cap(const ConfigView *v, uint8_t pos, Error **errp)
{
    const uint8_t *cap = v->config + pos;

    if (pos + cap_len(cap) > PCI_CONFIG_SPACE_SIZE) {
        error_setg(errp, "capability 0x%02x at 0x%02x is cut off by the end "
                   "of configuration space", cap[PCI_CAP_LIST_ID], pos);
        return false;
    }
    switch (cap[PCI_CAP_LIST_ID]) {
    case PCI_CAP_ID_MSI:
        return check_msi(cap, errp);
    case PCI_CAP_ID_MSIX:
        return check_msix(v, cap, errp);
    default:
        return true;
    }
}

/* Capabilities that QEMU sets up state for, which it does only once. */
static bool cap_is_single(uint8_t id)
{
    return id == PCI_CAP_ID_PM || id == PCI_CAP_ID_MSI ||
           id == PCI_CAP_ID_MSIX || id == PCI_CAP_ID_EXP;
}

static bool check_caps(const ConfigView *v, Error **errp)
{
    DECLARE_BITMAP(seen, PCI_CONFIG_SPACE_SIZE) = {};
    DECLARE_BITMAP(ids, 256) = {};
    uint8_t pos, id;

    if (!(v->config[PCI_STATUS] & PCI_STATUS_CAP_LIST)) {
        return true;
    }
    for (pos = v->config[PCI_CAPABILITY_LIST]; pos;
         pos = v->config[pos + PCI_CAP_LIST_NEXT]) {
        if (pos < HEADER_END || pos % 4) {
            error_setg(errp, "capability list leads to 0x%02x, which is no "
                       "place for a capability", pos);
            return false;
        }
        if (test_and_set_bit(pos, seen)) {
            error_setg(errp, "capability list leads back to 0x%02x", pos);
            return false;
        }
        id = v->config[pos + PCI_CAP_LIST_ID];
        if (test_and_set_bit(id, ids) && cap_is_single(id)) {
            error_setg(errp, "capability 0x%02x is there twice", id);
            return false;
        }
        if (!check_cap(v, pos, errp)) {
            return false;
        }
    }
    return true;
}

/* hw/vfio does not hand these on, so their room does not matter. */
static bool ext_cap_is_dropped(uint16_t id)
{
    return id == 0 || id == PCI_EXT_CAP_ID_SRIOV || id == PCI_EXT_CAP_ID_ARI;
}

static bool check_ext_cap(const ConfigView *v, uint16_t pos,
                          const unsigned long *seen, Error **errp)
{
    uint32_t header = pci_get_long(v->config + pos);
    uint16_t id = PCI_EXT_CAP_ID(header);
    size_t next = find_next_bit(seen, PCIE_CONFIG_SPACE_SIZE, pos + 1);
    size_t need = ext_cap_is_dropped(id) ? 4 : 8;

    if (id == PCI_EXT_CAP_ID_REBAR && next - pos >= 12) {
        uint32_t ctrl = pci_get_long(v->config + pos + PCI_REBAR_CTRL);

        need = 4 + 8 * ((ctrl & PCI_REBAR_CTRL_NBAR_MASK) >>
                        PCI_REBAR_CTRL_NBAR_SHIFT);
        need = MAX(need, 12);
    } else if (id == PCI_EXT_CAP_ID_REBAR) {
        need = 12;
    }
    if (next - pos < need) {
        error_setg(errp, "extended capability 0x%04x at 0x%03x has %zu bytes, "
                   "%zu are needed", id, pos, next - pos, need);
        return false;
    }
    return true;
}

static bool check_ext_caps(const ConfigView *v, Error **errp)
{
    DECLARE_BITMAP(seen, PCIE_CONFIG_SPACE_SIZE) = {};
    size_t pos = PCI_CONFIG_SPACE_SIZE;

    if (v->size < PCIE_CONFIG_SPACE_SIZE || !pci_get_long(v->config + pos)) {
        return true;
    }
    while (pos) {
        if (pos < PCI_CONFIG_SPACE_SIZE) {
            error_setg(errp, "extended capability list leads to 0x%03zx, which "
                       "is no place for one", pos);
            return false;
        }
        if (test_and_set_bit(pos, seen)) {
            error_setg(errp, "extended capability list leads back to 0x%03zx",
                       pos);
            return false;
        }
        pos = PCI_EXT_CAP_NEXT(pci_get_long(v->config + pos));
    }
    for (pos = PCI_CONFIG_SPACE_SIZE; pos < PCIE_CONFIG_SPACE_SIZE;
         pos = find_next_bit(seen, PCIE_CONFIG_SPACE_SIZE, pos + 1)) {
        if (!check_ext_cap(v, pos, seen, errp)) {
            return false;
        }
    }
    return true;
}

bool vfio_user_config_check(const uint8_t *config, size_t size,
                            const uint64_t bar_size[VFIO_USER_NR_BARS],
                            Error **errp)
{
    const ConfigView view = {
        .config = config,
        .size = size,
        .bar_size = bar_size,
    };

    return check_header(&view, errp) && check_pin(&view, errp) &&
           check_bars(&view, errp) && check_quirk_bars(&view, errp) &&
           check_caps(&view, errp) && check_ext_caps(&view, errp);
}
