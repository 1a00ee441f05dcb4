/*
 * Torture guest: the machine, and config space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * On pc the device is in a slot of bus 0 that ACPI's hotplug ejects; on q35 it
 * is behind a root port, with slot control and a bus that can be reset. Two
 * devices that QEMU emulates are there to access ours by DMA.
 *
 * pc has one address register for config space. A CPU that finds it in use
 * for long, because QEMU holds the other CPU in its access, takes it as it is
 * and writes to what the other one has addressed.
 */

#include "torture.h"

#define CONFIG_ADDRESS      0xcf8
#define CONFIG_DATA         0xcfc
#define DEVFN(bus, slot)    (0x80000000u | (bus) << 16 | (slot) << 11)
#define PATIENCE            2000

#define PCI_COMMAND         0x04
#define PCI_BAR             0x10
#define BRIDGE_BUSES        0x18
#define BRIDGE_IO           0x1c
#define BRIDGE_MEMORY       0x20
#define BRIDGE_PREFETCH     0x24
#define BRIDGE_CONTROL      0x3e
#define BRIDGE_RESET        0x40
#define COMMAND_ON          0x0007

#define HOT_SLOT            5u      /* pc */
#define PORT_SLOT           0x10u   /* q35 */
#define EDU_SLOT            6u
#define E1000_SLOT          7u
#define LPC_SLOT            31u
#define ISA_SLOT            1u
#define FIRST_PIRQ      0x60
#define PIRQ_OFF            0x80

#define PCIEXBAR            0x60
#define ECAM                0xb0000000u

#define SLOT_CONTROL        0x18
#define SLOT_OFF            0x0700
#define SLOT_ON             0x0100
#define EJECT_SELECT        0xae10
#define EJECT               0xae08

#define EDU_BAR             0xe9000000u
#define EDU_ID              0x11e81234u
#define EDU_SRC             0x80
#define EDU_DST             0x88
#define EDU_COUNT           0x90
#define EDU_COMMAND         0x98
#define EDU_BUFFER          0x40000
#define E1000_BAR           0xea000000u
#define E1000_ID            0x100e8086u
#define E1000_TCTL          0x0400
#define E1000_TDBAL         0x3800
#define E1000_TDBAH         0x3804
#define E1000_TDLEN         0x3808
#define E1000_TDH           0x3810
#define E1000_TDT           0x3818

/* Inputs of the I/O APIC that INTA may come to */
#define FIRST_ISA           10
#define LAST_ISA            11
#define FIRST_PCI           16
#define NR_INPUTS           24

Machine machine;

static volatile uint8_t address_taken;
static bool has_edu, has_e1000;

static void take_caps(void)
{
    machine.pm = pci_capability(&machine.hot, 0x01);
    machine.express = pci_capability(&machine.hot, 0x10);
    machine.msix = pci_capability(&machine.hot, 0x11);
    machine.msi = pci_capability(&machine.hot, 0x05);
}

bool machine_has_device(void)
{
    return pci_read32(&machine.hot, 0) == (TT_DEVICE << 16 | TT_VENDOR);
}

static void port_open(void)
{
    const PCIDevice *port = &machine.port;

    pci_write32(port, BRIDGE_BUSES, 0x00010100);
    pci_write16(port, BRIDGE_IO, 0xc0c0);
    pci_write32(port, BRIDGE_MEMORY, 0xe8f0e100);
    pci_write32(port, BRIDGE_PREFETCH, 0x0000fff0);
    pci_write16(port, BRIDGE_CONTROL, 0);
    pci_write16(port, PCI_COMMAND, COMMAND_ON);
}

void machine_mend(void)
{
    if (machine.q35) {
        port_open();
    }
    if (!machine.msi && machine_has_device()) {
        take_caps();
    }
    for (unsigned i = 0; i < TT_NR_BARS; i++) {
        machine.base[i] = i == TT_PORTS_BAR ? 0xc000 :
                          0xe1000000u + i * 0x100000;
        pci_write32(&machine.hot, PCI_BAR + 4 * i, machine.base[i]);
    }
    pci_write16(&machine.hot, PCI_COMMAND, COMMAND_ON);
}

static bool place_other(unsigned slot, uint32_t id, uint32_t bar)
{
    PCIDevice dev = { .address = DEVFN(0, slot) };

    if (pci_read32(&dev, 0) != id) {
        return false;
    }
    pci_write32(&dev, PCI_BAR, bar);
    pci_write16(&dev, PCI_COMMAND, COMMAND_ON);
    return true;
}

void machine_init(void)
{
    PCIDevice host = { .address = DEVFN(0, 0u) };

    machine.q35 = pci_read32(&host, 0) == 0x29c08086;
    machine.hot.address = machine.q35 ? DEVFN(1u, 0u) : DEVFN(0, HOT_SLOT);
    machine.port.address = DEVFN(0, PORT_SLOT);
    if (machine.q35) {
        pci_write32(&host, PCIEXBAR + 4, 0);
        pci_write32(&host, PCIEXBAR, ECAM | 1);
    }
    has_edu = place_other(EDU_SLOT, EDU_ID, EDU_BAR);
    has_e1000 = place_other(E1000_SLOT, E1000_ID, E1000_BAR);
    machine_mend();
}

/* --- Config space --- */

static bool take_address(void)
{
    for (unsigned i = 0; i < PATIENCE; i++) {
        if (!__sync_lock_test_and_set(&address_taken, 1)) {
            return true;
        }
        asm volatile("pause");
    }
    return false;
}

static uint32_t ecam(uint32_t off)
{
    return ECAM + ((machine.hot.address & 0xffff00) << 4) + off;
}

void config_write(Torturer *t, uint32_t off, uint32_t value, unsigned size)
{
    uint32_t at = machine.q35 && roll(t, 4) ? ecam(off) : 0;
    bool mine = at || take_address();

    if (!at && mine) {
        out32(CONFIG_ADDRESS, machine.hot.address | (off & ~3));
    }
    switch (size) {
    case 1:
        at ? write8(at, value) : out8(CONFIG_DATA + (off & 3), value);
        break;
    case 2:
        at ? write16(at, value) : out16(CONFIG_DATA + (off & 2), value);
        break;
    default:
        at ? write32(at, value) : out32(CONFIG_DATA, value);
        break;
    }
    if (!at && mine) {
        __sync_lock_release(&address_taken);
    }
}

uint32_t config_read(Torturer *t, uint32_t off, unsigned size)
{
    uint32_t at = machine.q35 && roll(t, 4) ? ecam(off) : 0;
    bool mine = at || take_address();
    uint32_t value;

    if (!at && mine) {
        out32(CONFIG_ADDRESS, machine.hot.address | (off & ~3));
    }
    switch (size) {
    case 1:
        value = at ? read8(at) : in8(CONFIG_DATA + (off & 3));
        break;
    case 2:
        value = at ? read16(at) : in16(CONFIG_DATA + (off & 2));
        break;
    default:
        value = at ? read32(at) : in32(CONFIG_DATA);
        break;
    }
    if (!at && mine) {
        __sync_lock_release(&address_taken);
    }
    return value;
}

/* --- Board --- */

static void port_write16(uint32_t off, uint16_t value)
{
    if (machine.q35) {
        write16(ECAM + ((machine.port.address & 0xffff00) << 4) + off, value);
    }
}

void bus_reset(void)
{
    port_write16(BRIDGE_CONTROL, BRIDGE_RESET);
    port_write16(BRIDGE_CONTROL, 0);
}

static uint8_t port_express(void)
{
    static uint8_t at;

    if (!at) {
        at = pci_capability(&machine.port, 0x10);
    }
    return at;
}

void eject(void)
{
    if (machine.q35) {
        port_write16(port_express() + SLOT_CONTROL, SLOT_OFF);
    } else {
        out32(EJECT_SELECT, 0);
        out32(EJECT, 1u << HOT_SLOT);
    }
}

void slot_power_on(void)
{
    if (machine.q35) {
        port_write16(port_express() + SLOT_CONTROL, SLOT_ON);
    }
}

void intx_route(bool on)
{
    for (uint8_t gsi = FIRST_ISA; gsi < NR_INPUTS; gsi++) {
        if (gsi > LAST_ISA && gsi < FIRST_PCI) {
            continue;
        }
        if (on) {
            ioapic_route(gsi, VECTOR_INTX);
        } else {
            ioapic_mask(gsi);
        }
    }
}

static void pirq_write(unsigned nr, uint8_t value)
{
    PCIDevice bridge = { .address = DEVFN(0, machine.q35 ? LPC_SLOT
                                                         : ISA_SLOT) };

    /* q35 has four more of them. */
    pci_write8(&bridge, FIRST_PIRQ + nr % 4 + (nr < 4 ? 0 : 8), value);
}

void pirq_reset(void)
{
    for (unsigned nr = 0; nr < (machine.q35 ? 8 : 4); nr++) {
        pirq_write(nr, FIRST_ISA);
    }
}

void pirq_shuffle(Torturer *t)
{
    static const uint8_t ways[] = { PIRQ_OFF, FIRST_ISA, LAST_ISA };
    unsigned nr = roll(t, machine.q35 ? 8 : 4);

    if (take_address()) {
        pirq_write(nr, ways[roll(t, ARRAY_SIZE(ways))]);
        __sync_lock_release(&address_taken);
    }
}

/* --- DMA of others --- */

void edu_dma(uint32_t addr, uint32_t len, bool to_memory)
{
    if (!has_edu) {
        return;
    }
    write32(EDU_BAR + EDU_SRC, to_memory ? EDU_BUFFER : addr);
    write32(EDU_BAR + EDU_DST, to_memory ? addr : EDU_BUFFER);
    write32(EDU_BAR + EDU_COUNT, len);
    write32(EDU_BAR + EDU_COMMAND, to_memory ? 3 : 1);
}

/* It takes its descriptors from there, while the write is being done. */
void e1000_ring(uint32_t addr, uint32_t nr)
{
    if (!has_e1000) {
        return;
    }
    write32(E1000_BAR + E1000_TDBAL, addr & ~15u);
    write32(E1000_BAR + E1000_TDBAH, 0);
    write32(E1000_BAR + E1000_TDLEN, 0x80);
    write32(E1000_BAR + E1000_TDH, 0);
    write32(E1000_BAR + E1000_TCTL, 2);
    write32(E1000_BAR + E1000_TDT, nr);
}
