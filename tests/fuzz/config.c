/*
 * vfio-user: fuzzing configuration space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Input: flags (bit 0: 4096 bytes), for each BAR the exponent of its size (0:
 * none), then the bytes of configuration space, zeros at the end; then where the
 * one of a server that came back differs: offset (2 bytes) and what is changed.
 *
 * What was accepted is walked once more, as hw/vfio would do it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/pci/pci.h"
#include "hw/vfio-user/config-check.h"
#include "hw/vfio-user/config-same.h"
#include "fuzz.h"

/* Capabilities that a list without loops can have */
#define MAX_CAPS        ((PCI_CONFIG_SPACE_SIZE - PCI_CONFIG_HEADER_SIZE) / 4)
#define MAX_EXT_CAPS    ((PCIE_CONFIG_SPACE_SIZE - PCI_CONFIG_SPACE_SIZE) / 4)

/* Bytes in which a second configuration space differs */
#define CHANGES         4

static void walk_msix(const uint8_t *cap, const uint64_t *bar_size)
{
    uint64_t nr = (pci_get_word(cap + PCI_MSIX_FLAGS) &
                   PCI_MSIX_FLAGS_QSIZE) + 1;
    uint32_t table = pci_get_long(cap + PCI_MSIX_TABLE);
    uint32_t pba = pci_get_long(cap + PCI_MSIX_PBA);

    g_assert_cmpint(table & 7, <, VFIO_USER_NR_BARS);
    g_assert_cmpint(pba & 7, <, VFIO_USER_NR_BARS);
    g_assert_cmpint((table & ~7u) + nr * 16, <=, bar_size[table & 7]);
    g_assert_cmpint((pba & ~7u) + DIV_ROUND_UP(nr, 64) * 8, <=,
                    bar_size[pba & 7]);
}

static void walk_caps(const uint8_t *config, const uint64_t *bar_size)
{
    unsigned nr = 0;

    if (!(config[PCI_STATUS] & PCI_STATUS_CAP_LIST)) {
        return;
    }
    for (uint8_t pos = config[PCI_CAPABILITY_LIST]; pos;
         pos = config[pos + 1]) {
        g_assert_cmpint(pos, >=, PCI_CONFIG_HEADER_SIZE);
        g_assert_cmpint(++nr, <=, MAX_CAPS);
        if (config[pos] == PCI_CAP_ID_MSIX) {
            g_assert_cmpint(pos + 12, <=, PCI_CONFIG_SPACE_SIZE);
            walk_msix(config + pos, bar_size);
        }
    }
}

static void walk_ext_caps(const uint8_t *config)
{
    unsigned nr = 0;
    unsigned pos = PCI_CONFIG_SPACE_SIZE;

    if (!pci_get_long(config + pos)) {
        return;
    }
    while (pos) {
        g_assert_cmpint(pos, >=, PCI_CONFIG_SPACE_SIZE);
        g_assert_cmpint(pos, <=, PCIE_CONFIG_SPACE_SIZE - 4);
        g_assert_cmpint(++nr, <=, MAX_EXT_CAPS);
        pos = PCI_EXT_CAP_NEXT(pci_get_long(config + pos));
    }
}

static void compare(FuzzInput *in, const uint8_t *was, size_t size,
                    const uint64_t *bar_size)
{
    g_autofree uint8_t *is = g_memdup2(was, size);
    Error *err = NULL;
    bool ok;

    for (unsigned i = 0; i < CHANGES; i++) {
        unsigned at = fuzz_u16(in) % size;

        is[at] ^= fuzz_u8(in);
    }
    if (!vfio_user_config_check(is, size, bar_size, NULL)) {
        return;
    }
    ok = vfio_user_config_same(was, is, size, &err);
    fuzz_check_error(ok, err);
    if (ok) {
        g_assert_cmpmem(was, 4, is, 4);
        g_assert_cmpmem(was + PCI_SUBSYSTEM_VENDOR_ID, 4,
                        is + PCI_SUBSYSTEM_VENDOR_ID, 4);
        walk_caps(is, bar_size);
    }
    g_assert_true(vfio_user_config_same(was, was, size, NULL));
    g_assert_true(vfio_user_config_kept(was, was, 0x3f));
    vfio_user_config_kept(was, is, 0x3f);
}

void fuzz_config(FuzzInput *in)
{
    size_t size = fuzz_u8(in) & 1 ? PCIE_CONFIG_SPACE_SIZE :
                                    PCI_CONFIG_SPACE_SIZE;
    g_autofree uint8_t *config = g_malloc(size);
    uint64_t bar_size[VFIO_USER_NR_BARS];
    Error *err = NULL;
    bool ok;

    for (unsigned i = 0; i < VFIO_USER_NR_BARS; i++) {
        uint8_t log2 = fuzz_u8(in) % 41;

        bar_size[i] = log2 ? 1ull << log2 : 0;
    }
    fuzz_take(in, config, size);
    ok = vfio_user_config_check(config, size, bar_size, &err);
    fuzz_check_error(ok, err);
    if (ok) {
        walk_caps(config, bar_size);
        if (size == PCIE_CONFIG_SPACE_SIZE) {
            walk_ext_caps(config);
        }
        compare(in, config, size, bar_size);
    }
}
