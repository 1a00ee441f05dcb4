/*
 * vfio-user test server: the standard device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "internal.h"

#define ROM_SIZE    4096
#define ROM_HEADER  0x40

/* A header and data structure as firmware looks for them, then a pattern. */
static void standard_rom(TestServer *s)
{
    static const uint8_t pcir[] = {
        'P', 'C', 'I', 'R',
        TS_STANDARD_VENDOR & 0xff, TS_STANDARD_VENDOR >> 8,
        TS_STANDARD_DEVICE & 0xff, TS_STANDARD_DEVICE >> 8,
        0, 0, 0x18, 0, 0, 0, 0, 0xff, ROM_SIZE / 512, 0, 0, 0, 0xff, 0x80,
        0, 0,
    };
    uint8_t rom[ROM_SIZE];
    uint8_t sum = 0;

    for (unsigned i = 0; i < sizeof(rom); i++) {
        rom[i] = TS_ROM_BYTE(i);
    }
    memset(rom, 0, ROM_HEADER);
    rom[0] = 0x55;
    rom[1] = 0xaa;
    rom[2] = ROM_SIZE / 512;
    rom[3] = 0xcb;      /* a far return is all of its initialization */
    rom[0x18] = 0x1c;
    memcpy(rom + 0x1c, pcir, sizeof(pcir));
    for (unsigned i = 0; i < sizeof(rom); i++) {
        sum += rom[i];
    }
    rom[6] = -sum;
    ts_add_rom(s, rom, sizeof(rom), ROM_SIZE);
}

void ts_standard_device(TestServer *s)
{
    static const uint8_t vendor[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    TsRegion *r;

    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0);
    r = ts_add_bar(s, 1, 0x8000, 0);
    r->flags |= VFIO_USER_REGION_MMAP;
    r->nr_areas = 2;
    r->areas[0] = (TsArea) { 0x1000, 0x1000 };
    r->areas[1] = (TsArea) { 0x4000, 0x2000 };
    r = ts_add_bar(s, 2, 0x10000, TS_BAR_64 | TS_BAR_PREFETCH);
    r->flags |= VFIO_USER_REGION_MMAP;
    ts_add_bar(s, 4, 256, TS_BAR_IO);
    ts_add_bar(s, 5, 0x2000, 0);
    standard_rom(s);
    ts_config_intx(s, 1);
    ts_add_pm(s);
    ts_add_msi(s, TS_STANDARD_MSI, false);
    ts_add_msix(s, TS_STANDARD_MSIX, 5, 0, 5, 0x1000);
    ts_add_vendor(s, vendor, sizeof(vendor));
    ts_add_irqs(s, VFIO_USER_IRQ_ERR, 1, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_REFUSE);
    ts_add_irqs(s, VFIO_USER_IRQ_REQ, 1, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_REFUSE);
}
