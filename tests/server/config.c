/*
 * vfio-user test server: PCI config space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Numbers below are the PCI specification's, typed here rather than taken
 * from QEMU's headers. A mask says which bits a client may write; BARs keep
 * their low bits and size themselves as hardware does. Interrupt enables and
 * table contents are stored and otherwise ignored: in vfio the client's side
 * emulates them and assigns eventfds.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "internal.h"

#define CONFIG_SIZE         4096
#define CONFIG_COMMAND      0x04
#define CONFIG_STATUS       0x06
#define CONFIG_BAR0         0x10
#define CONFIG_SUBSYSTEM    0x2c
#define CONFIG_ROM          0x30
#define CONFIG_CAP_PTR      0x34
#define CONFIG_INT_LINE     0x3c
#define CONFIG_INT_PIN      0x3d
#define CONFIG_FIRST_CAP    0x40
#define CONFIG_EXT          0x100
#define STATUS_CAP_LIST     0x10

static void config_put(uint8_t *p, unsigned off, uint64_t value, unsigned len)
{
    memcpy(p + off, &value, len);
}

void ts_config_init(TestServer *s)
{
    TsRegion *r = &s->regions[VFIO_USER_REGION_CONFIG];

    s->config = g_malloc0(CONFIG_SIZE);
    s->config_wmask = g_malloc0(CONFIG_SIZE);
    s->next_cap = CONFIG_FIRST_CAP;
    s->next_ext_cap = CONFIG_EXT;
    r->size = CONFIG_SIZE;
    r->flags = VFIO_USER_REGION_READABLE | VFIO_USER_REGION_WRITEABLE;
    r->access = ts_config_access;
    r->mem = s->config;
    config_put(s->config_wmask, CONFIG_COMMAND, 0x0547, 2);
    config_put(s->config_wmask, 0x0c, 0xffff, 2);
    config_put(s->config_wmask, CONFIG_INT_LINE, 0xff, 1);
    ts_config_id(s, 0x1234, 0x5678, 0xff0000, 1);
    ts_config_subsystem(s, 0x1234, 0x0001);
}

void ts_config_free(TestServer *s)
{
    if (!ts_state_has(s, s->config)) {
        g_free(s->config);
    }
    g_free(s->config_wmask);
}

int ts_config_access(TestServer *s, unsigned region, uint64_t offset,
                     void *data, uint32_t len, bool write, void *opaque)
{
    uint8_t *bytes = data;

    (void)region;
    (void)opaque;
    if (!write) {
        memcpy(data, s->config + offset, len);
        return 0;
    }
    ts_lock(s);
    for (uint32_t i = 0; i < len; i++) {
        uint8_t mask = s->config_wmask[offset + i];
        uint8_t *byte = &s->config[offset + i];

        *byte = (*byte & ~mask) | (bytes[i] & mask);
    }
    ts_unlock(s);
    return 0;
}

void ts_config_id(TestServer *s, uint16_t vendor, uint16_t device,
                  uint32_t class_code, uint8_t revision)
{
    config_put(s->config, 0x00, vendor, 2);
    config_put(s->config, 0x02, device, 2);
    config_put(s->config, 0x08, revision, 1);
    config_put(s->config, 0x09, class_code, 3);
}

void ts_config_subsystem(TestServer *s, uint16_t vendor, uint16_t device)
{
    config_put(s->config, CONFIG_SUBSYSTEM, vendor, 2);
    config_put(s->config, CONFIG_SUBSYSTEM + 2, device, 2);
}

void ts_config_intx(TestServer *s, unsigned pin)
{
    s->config[CONFIG_INT_PIN] = pin;
    ts_add_irqs(s, VFIO_USER_IRQ_INTX, 1,
                VFIO_USER_IRQ_EVENTFD | VFIO_USER_IRQ_MASKABLE |
                VFIO_USER_IRQ_AUTOMASKED, TS_MASK_ACCEPT);
}

TsRegion *ts_add_bar(TestServer *s, unsigned bar, uint64_t size,
                     unsigned flags)
{
    unsigned off = CONFIG_BAR0 + 4 * bar;
    uint64_t mask = ~(size - 1);

    g_assert(bar < 6 && size >= 4 && !(size & (size - 1)));
    if (flags & TS_BAR_IO) {
        config_put(s->config, off, 1, 4);
        config_put(s->config_wmask, off, mask & ~3u, 4);
    } else {
        config_put(s->config, off, (flags & TS_BAR_64 ? 4 : 0) |
                   (flags & TS_BAR_PREFETCH ? 8 : 0), 4);
        config_put(s->config_wmask, off, mask & ~0xfull,
                   flags & TS_BAR_64 ? 8 : 4);
    }
    return ts_region(s, bar, size, VFIO_USER_REGION_READABLE |
                                   VFIO_USER_REGION_WRITEABLE);
}

void ts_add_rom(TestServer *s, const void *data, size_t len, uint64_t size)
{
    g_assert(size >= 2048 && !(size & (size - 1)) && len <= size);
    config_put(s->config_wmask, CONFIG_ROM, (~(size - 1) & 0xfffff800u) | 1,
               4);
    ts_region(s, VFIO_USER_REGION_ROM, size, VFIO_USER_REGION_READABLE);
    ts_region_content(s, VFIO_USER_REGION_ROM, data, len);
}

unsigned ts_add_cap(TestServer *s, uint8_t id, const void *body, size_t len)
{
    unsigned off = s->next_cap;

    g_assert(off + 2 + len <= CONFIG_EXT);
    s->config[s->last_cap ? s->last_cap + 1 : CONFIG_CAP_PTR] = off;
    s->config[CONFIG_STATUS] |= STATUS_CAP_LIST;
    s->config[off] = id;
    memcpy(s->config + off + 2, body, len);
    s->last_cap = off;
    s->next_cap = (off + 2 + len + 3) & ~3u;
    return off;
}

unsigned ts_add_ext_cap(TestServer *s, uint16_t id, unsigned version,
                        const void *body, size_t len)
{
    unsigned off = s->next_ext_cap;

    g_assert(off + 4 + len <= CONFIG_SIZE);
    if (s->last_ext_cap) {
        uint32_t header;

        memcpy(&header, s->config + s->last_ext_cap, 4);
        config_put(s->config, s->last_ext_cap, header | off << 20, 4);
    }
    config_put(s->config, off, id | version << 16, 4);
    memcpy(s->config + off + 4, body, len);
    s->last_ext_cap = off;
    s->next_ext_cap = (off + 4 + len + 3) & ~3u;
    return off;
}

unsigned ts_add_pm(TestServer *s)
{
    uint8_t body[6] = { 0x03, 0x00, 0x08 };     /* version 3, no soft reset */
    unsigned off = ts_add_cap(s, 0x01, body, sizeof(body));

    config_put(s->config_wmask, off + 4, 0x0003, 2);
    return off;
}

unsigned ts_add_pcie(TestServer *s, unsigned type)
{
    uint8_t body[58] = { 0 };
    unsigned off;

    config_put(body, 0, 2 | type << 4, 2);      /* version 2 */
    config_put(body, 2, 0x10008000, 4);         /* role-based errors, FLR */
    config_put(body, 10, 0x11, 4);              /* 2.5 GT/s, x1 */
    config_put(body, 16, 0x11, 2);
    off = ts_add_cap(s, 0x10, body, sizeof(body));
    config_put(s->config_wmask, off + 8, 0xffff, 2);
    return off;
}

unsigned ts_add_vendor(TestServer *s, const void *data, size_t len)
{
    uint8_t body[254] = { len + 3 };
    unsigned off;

    g_assert(len < sizeof(body) - 1);
    memcpy(body + 1, data, len);
    off = ts_add_cap(s, 0x09, body, len + 1);
    memset(s->config_wmask + off + 3, 0xff, len);
    return off;
}

unsigned ts_add_msi(TestServer *s, unsigned nr, bool maskable)
{
    uint8_t body[22] = { 0 };
    unsigned log2 = 0, off;

    while ((1u << log2) < nr) {
        log2++;
    }
    g_assert(nr == 1u << log2 && nr <= 32);
    config_put(body, 0, 0x80 | log2 << 1 | (maskable ? 0x100 : 0), 2);
    off = ts_add_cap(s, 0x05, body, maskable ? 22 : 12);
    config_put(s->config_wmask, off + 2, 0x0071, 2);
    memset(s->config_wmask + off + 4, 0xff, 10);
    if (maskable) {
        memset(s->config_wmask + off + 16, 0xff, 4);
    }
    ts_add_irqs(s, VFIO_USER_IRQ_MSI, nr, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_ACCEPT);
    return off;
}

unsigned ts_add_msix(TestServer *s, unsigned nr, unsigned table_bar,
                     uint32_t table_off, unsigned pba_bar, uint32_t pba_off)
{
    uint8_t body[10];
    unsigned off;

    config_put(body, 0, nr - 1, 2);
    config_put(body, 2, table_off | table_bar, 4);
    config_put(body, 6, pba_off | pba_bar, 4);
    off = ts_add_cap(s, 0x11, body, sizeof(body));
    config_put(s->config_wmask, off + 2, 0xc000, 2);
    ts_add_irqs(s, VFIO_USER_IRQ_MSIX, nr, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_ACCEPT);
    return off;
}
