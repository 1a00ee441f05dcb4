/*
 * KVM test guest: the device on its bus
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The firmware is qboot, which leaves BARs, interrupt routing and the power
 * management ports to the system: placing them is done here, for pc and q35.
 */

#include "guest.h"
#include "regs.h"

#define CONFIG_ADDRESS      0xcf8
#define CONFIG_DATA         0xcfc
#define CONFIG_ENABLE       0x80000000u

#define PCI_ID              0x00
#define PCI_COMMAND         0x04
#define COMMAND_ON          0x0007  /* I/O, memory, bus master */
#define PCI_BAR             0x10
#define BAR_IO              0x1
#define PCI_CAPABILITIES    0x34

/* Between the RAM and the local APIC; more room than any BAR needs. */
#define MEMORY_BASE         0xe1000000u
#define MEMORY_STEP         0x00100000u
#define PORT_BASE           0xc000u
#define PORT_STEP           0x100u

#define MSI_CONTROL         2
#define MSI_ADDRESS         4
#define MSI_DATA_64         12
#define MSIX_CONTROL        2
#define MSIX_ENABLE         0x8000

#define DEVFN(slot, fn)     (CONFIG_ENABLE | (slot) << 11 | (fn) << 8)
#define PM_PORTS            0x600
#define PIRQ_OFF            0x80
#define PIRQ_A              0x60

/* q35: the LPC bridge has it all. */
#define ICH9_LPC            DEVFN(31u, 0)
#define ICH9_LPC_ID         0x29188086u
#define ICH9_PM_BASE        0x40
#define ICH9_PM_CONTROL     0x44
#define ICH9_PM_ENABLE      0x80
#define ICH9_PIRQ_E         0x68
/* pc: interrupts at the ISA bridge, power management beside it */
#define PIIX_ISA            DEVFN(1u, 0)
#define PIIX_PM             DEVFN(1u, 3u)
#define PIIX_PM_BASE        0x40
#define PIIX_PM_CONTROL     0x80
#define PIIX_PM_ENABLE      0x01

static uint16_t pci_port(const PCIDevice *dev, uint8_t off)
{
    out32(CONFIG_ADDRESS, dev->address | (off & ~3));
    return CONFIG_DATA + (off & 3);
}

uint8_t pci_read8(const PCIDevice *dev, uint8_t off)
{
    return in8(pci_port(dev, off));
}

uint16_t pci_read16(const PCIDevice *dev, uint8_t off)
{
    return in16(pci_port(dev, off));
}

uint32_t pci_read32(const PCIDevice *dev, uint8_t off)
{
    return in32(pci_port(dev, off));
}

void pci_write8(const PCIDevice *dev, uint8_t off, uint8_t value)
{
    out8(pci_port(dev, off), value);
}

void pci_write16(const PCIDevice *dev, uint8_t off, uint16_t value)
{
    out16(pci_port(dev, off), value);
}

void pci_write32(const PCIDevice *dev, uint8_t off, uint32_t value)
{
    out32(pci_port(dev, off), value);
}

static void pci_place_bars(PCIDevice *dev)
{
    for (unsigned i = 0; i < 6; i++) {
        uint8_t off = PCI_BAR + 4 * i;

        if (pci_read32(dev, off) & BAR_IO) {
            dev->bar[i] = PORT_BASE + i * PORT_STEP;
        } else {
            dev->bar[i] = MEMORY_BASE + i * MEMORY_STEP;
        }
        pci_write32(dev, off, dev->bar[i]);
    }
}

bool pci_find(uint16_t vendor, uint16_t device, PCIDevice *dev)
{
    for (uint32_t slot = 0; slot < 32; slot++) {
        dev->address = DEVFN(slot, 0);
        if (pci_read32(dev, PCI_ID) == ((uint32_t)device << 16 | vendor)) {
            pci_place_bars(dev);
            pci_write16(dev, PCI_COMMAND, COMMAND_ON);
            return true;
        }
    }
    return false;
}

uint8_t pci_capability(const PCIDevice *dev, uint8_t id)
{
    uint8_t at = pci_read8(dev, PCI_CAPABILITIES);

    for (unsigned left = 48; at && left; left--) {
        if (pci_read8(dev, at) == id) {
            return at;
        }
        at = pci_read8(dev, at + 1);
    }
    return 0;
}

static bool pci_is_q35(void)
{
    PCIDevice lpc = { .address = ICH9_LPC };

    return pci_read32(&lpc, PCI_ID) == ICH9_LPC_ID;
}

/*
 * A board routes to one of the ISA interrupts. q35 can leave that to an input
 * of the I/O APIC: the second way there, another ISA interrupt on pc.
 */
uint32_t pci_intx_route(const PCIDevice *dev, unsigned way)
{
    bool q35 = pci_is_q35();
    PCIDevice bridge = { .address = q35 ? ICH9_LPC : PIIX_ISA };
    uint8_t isa = way ? 11 : 10;
    uint32_t slot = (dev->address >> 11) & 31;

    for (unsigned i = 0; i < 4; i++) {
        pci_write8(&bridge, (q35 ? ICH9_PIRQ_E : PIRQ_A) + i,
                   q35 && way ? PIRQ_OFF : isa);
    }
    /* INTA of q35's slots below 25 takes the lines E to H in turn. */
    return q35 && way ? 20 + slot % 4 : isa;
}

void pci_place_power_control(void)
{
    PCIDevice q35 = { .address = ICH9_LPC };
    PCIDevice pc = { .address = PIIX_PM };

    if (pci_is_q35()) {
        pci_write32(&q35, ICH9_PM_BASE, PM_PORTS | 1);
        pci_write8(&q35, ICH9_PM_CONTROL, ICH9_PM_ENABLE);
    } else {
        pci_write32(&pc, PIIX_PM_BASE, PM_PORTS | 1);
        pci_write8(&pc, PIIX_PM_CONTROL, PIIX_PM_ENABLE);
    }
}

static uint32_t msix_entry(const PCIDevice *dev, unsigned nr)
{
    return dev->bar[KT_MSIX_BAR] + KT_MSIX_TABLE + 16 * nr;
}

void msix_enable(const PCIDevice *dev, bool enable)
{
    pci_write16(dev, pci_capability(dev, 0x11) + MSIX_CONTROL,
                enable ? MSIX_ENABLE : 0);
}

void msix_set(const PCIDevice *dev, unsigned nr, uint8_t vector, bool masked)
{
    uint32_t entry = msix_entry(dev, nr);

    write32(entry, LAPIC_BASE | cpu_number() << 12);
    write32(entry + 4, 0);
    write32(entry + 8, vector);
    write32(entry + 12, masked);
}

void msix_mask(const PCIDevice *dev, unsigned nr, bool masked)
{
    write32(msix_entry(dev, nr) + 12, masked);
}

void msix_send_to(const PCIDevice *dev, unsigned nr, uint32_t cpu)
{
    msix_mask(dev, nr, true);
    write32(msix_entry(dev, nr), LAPIC_BASE | cpu << 12);
    msix_mask(dev, nr, false);
}

bool msix_pending(const PCIDevice *dev, unsigned nr)
{
    uint32_t word = read32(dev->bar[KT_MSIX_BAR] + KT_MSIX_PBA + nr / 32 * 4);

    return word >> nr % 32 & 1;
}

void msi_set_vector(const PCIDevice *dev, uint8_t vector)
{
    uint8_t cap = pci_capability(dev, 0x05);

    if (pci_read16(dev, cap + MSI_CONTROL) & 0x80) {
        pci_write32(dev, cap + MSI_ADDRESS + 4, 0);
        pci_write16(dev, cap + MSI_DATA_64, vector);
    } else {
        pci_write16(dev, cap + MSI_ADDRESS + 4, vector);
    }
}

void msi_enable(const PCIDevice *dev, unsigned nr, uint8_t vector)
{
    uint8_t cap = pci_capability(dev, 0x05);
    uint16_t order = 0;

    while (1u << order < nr) {
        order++;
    }
    pci_write32(dev, cap + MSI_ADDRESS, LAPIC_BASE | cpu_number() << 12);
    msi_set_vector(dev, vector);
    pci_write16(dev, cap + MSI_CONTROL, order << 4 | 1);
}

void msi_disable(const PCIDevice *dev)
{
    pci_write16(dev, pci_capability(dev, 0x05) + MSI_CONTROL, 0);
}
