/*
 * Torture guest: what a CPU does in a step
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything is chosen by the CPU's own dice. What is written may reach a BAR
 * that has moved, a message address, or the register that another CPU has
 * addressed. So that the guest does not end itself, most values are harmless
 * wherever they come to lie: as the address of a message, as its data, as a
 * descriptor. A message has its data before it has its address.
 */

#include "torture.h"

#define PCI_COMMAND         0x04
#define PCI_BAR             0x10
#define PCI_ROM             0x30
#define COMMAND_BITS        0x0547
#define NR_CONFIG_BYTES     0x100

#define CONTROL             2       /* of MSI and MSI-X */
#define MSI_ADDRESS         4
#define MSI_HIGH            8
#define MSI_DATA            12
#define MSI_END             16
#define PM_CONTROL          4
#define EXPRESS_CONTROL     8
#define EXPRESS_FLR         0x8000

#define WINDOW              0xe1000000u
#define WINDOW_MASK         0x07ffff00u

static uint32_t any32(Torturer *t)
{
    return roll(t, 0x10000) << 16 | roll(t, 0x10000);
}

static uint32_t message_address(Torturer *t)
{
    return LAPIC_BASE | roll(t, 4) << 12;
}

/*
 * A message address with a vector of ours in its low byte, where an address
 * has bits that do not matter. As data it is that vector, plainly delivered;
 * eight vectors of MSI that begin there end before the spurious one.
 */
static uint32_t harmless(Torturer *t)
{
    return message_address(t) | (VECTOR_DEVICE + roll(t, 16));
}

static uint32_t bar_value(Torturer *t, unsigned bar)
{
    switch (roll(t, 8)) {
    case 0:
        return 0xffffffff;
    case 1:
        return 0;
    case 2:     /* on top of another one, or in its page */
        return machine.base[roll(t, TT_PORTS_BAR)] + roll(t, 2) * 0x100;
    default:
        return bar == TT_PORTS_BAR ? 0xc000 + roll(t, 0x80) * 0x20 :
               WINDOW + (any32(t) & WINDOW_MASK);
    }
}

static void bar_move(Torturer *t)
{
    unsigned bar = roll(t, TT_NR_BARS);
    uint32_t value = bar_value(t, bar);

    if (bar == TT_PORTS_BAR && value != 0xffffffff) {
        value = 0xc000 + (value & 0xfe0);
    }
    if (!roll(t, 4)) {
        config_write(t, PCI_COMMAND, 0, 2);
    }
    config_write(t, PCI_BAR + 4 * bar, value, 4);
    if (roll(t, 4)) {
        config_write(t, PCI_COMMAND, 7, 2);
    }
    machine.base[bar] = value;
}

static bool is_message(uint32_t off)
{
    return (machine.msi && off - machine.msi - MSI_ADDRESS <
                           MSI_END - MSI_ADDRESS);
}

static void config_any(Torturer *t)
{
    unsigned size = 1u << roll(t, 3);
    uint32_t off = roll(t, NR_CONFIG_BYTES) & ~(size - 1);
    uint32_t value = roll(t, 2) ? any32(t) : harmless(t);

    if (is_message(off)) {
        config_write(t, machine.msi + MSI_DATA, harmless(t), 4);
        config_write(t, off & ~3, harmless(t), 4);
    } else if ((off & ~3) == PCI_COMMAND && size < 4) {
        config_write(t, off, value & (off == PCI_COMMAND ? COMMAND_BITS : ~0),
                     size);
    } else if (off >= PCI_BAR && off < PCI_BAR + 4 * TT_NR_BARS) {
        bar_move(t);
    } else {
        config_write(t, off, value, size);
    }
}

static void config_look(Torturer *t)
{
    unsigned size = 1u << roll(t, 3);

    config_read(t, roll(t, NR_CONFIG_BYTES) & ~(size - 1), size);
}

/* --- Interrupts --- */

static void msi_step(Torturer *t)
{
    uint32_t cap = machine.msi;

    if (!cap) {
        return;
    }
    switch (roll(t, 5)) {
    case 0:
        config_write(t, cap + MSI_DATA, VECTOR_DEVICE, 4);
        config_write(t, cap + MSI_HIGH, 0, 4);
        config_write(t, cap + MSI_ADDRESS, message_address(t), 4);
        break;
    case 1:
        config_write(t, cap + CONTROL, 0, 2);
        break;
    case 2:
        config_write(t, cap + MSI_END, any32(t), 4);
        break;
    default:
        config_write(t, cap + CONTROL, roll(t, 8) << 4 | 1, 2);
        break;
    }
}

static void msix_step(Torturer *t)
{
    if (machine.msix) {
        config_write(t, machine.msix + CONTROL, roll(t, 4) << 14, 2);
    }
}

static void table_step(Torturer *t)
{
    uint32_t entry = machine.base[TT_MSIX_BAR] + TT_MSIX_TABLE +
                     16 * roll(t, TT_NR_MSIX);

    switch (roll(t, 4)) {
    case 0:
        write32(entry + 8, VECTOR_DEVICE + roll(t, 16));
        write32(entry + 4, 0);
        write32(entry, message_address(t));
        write32(entry + 12, 0);
        break;
    case 1:
        read32(entry + 4 * roll(t, 4));
        read32(machine.base[TT_MSIX_BAR] + TT_MSIX_PBA);
        break;
    case 2:
        write32(entry + 8, harmless(t));
        write32(entry + 4 * roll(t, 3), harmless(t));
        break;
    default:
        write32(entry + 12, roll(t, 2));
        break;
    }
}

static void raise_step(Torturer *t)
{
    uint32_t regs = machine.base[TT_REGS_BAR];

    switch (roll(t, 4)) {
    case 0:
        write32(regs + TT_SET_CAUSES, 1u << roll(t, 8));
        break;
    case 1:
        write32(regs + TT_RAISE, 1u << 16 | roll(t, TT_NR_MSI));
        break;
    case 2:
        write32(regs + TT_RAISE, 2u << 16 | roll(t, TT_NR_MSIX));
        break;
    default:
        write32(regs + TT_ACK_CAUSES, 0xff);
        break;
    }
}

/* --- Memory --- */

static void access(Torturer *t, uint32_t addr)
{
    unsigned what = roll(t, 6);

    switch (what) {
    case 0:
        read8(addr);
        break;
    case 1:
        read16(addr & ~1);
        break;
    case 2:
        read32(addr & ~3);
        break;
    case 3:
        write8(addr, harmless(t));
        break;
    case 4:
        write16(addr & ~1, harmless(t));
        break;
    default:
        write32(addr & ~3, harmless(t));
        break;
    }
}

static void bar_access(Torturer *t)
{
    static const uint32_t sizes[] = {
        TT_REGS_SIZE, TT_SMALL_SIZE, TT_MEMORY_SIZE, TT_MSIX_SIZE,
    };
    unsigned bar = roll(t, TT_PORTS_BAR);

    access(t, machine.base[bar] + roll(t, sizes[bar]));
}

static void port_access(Torturer *t)
{
    uint16_t port = 0xc000 | (machine.base[TT_PORTS_BAR] & 0xfe0) |
                    roll(t, TT_PORTS_SIZE);

    if (roll(t, 2)) {
        in8(port);
    } else {
        out32(port & ~3, any32(t));
    }
}

/* --- What is rare --- */

static void power_step(Torturer *t)
{
    if (machine.pm) {
        config_write(t, machine.pm + PM_CONTROL, 3, 2);
        config_look(t);
        config_write(t, machine.pm + PM_CONTROL, 0, 2);
    }
}

static void function_reset(Torturer *t)
{
    if (machine.express) {
        config_write(t, machine.express + EXPRESS_CONTROL, EXPRESS_FLR, 2);
    }
}

static void others_dma(Torturer *t)
{
    uint32_t addr = machine.base[roll(t, TT_PORTS_BAR)];

    if (roll(t, 2)) {
        e1000_ring(addr, 1 + roll(t, 7));
    } else {
        edu_dma(addr, 1 + roll(t, 0x1000), roll(t, 2));
    }
}

static void rare(Torturer *t)
{
    switch (roll(t, 8)) {
    case 0:
        function_reset(t);
        break;
    case 1:
        power_step(t);
        break;
    case 2:
        bus_reset();
        machine_mend();
        break;
    case 3:
        if (machine.ejects && !roll(t, 4)) {
            eject();
        }
        break;
    case 4:
        slot_power_on();
        break;
    case 5:
        pirq_shuffle(t);
        break;
    case 6:
        intx_route(roll(t, 2));
        break;
    default:
        others_dma(t);
        break;
    }
}

void step(Torturer *t)
{
    static void (*const often[])(Torturer *t) = {
        config_any, config_any, config_any, config_look, msi_step, msi_step,
        msix_step, msix_step, table_step, table_step, raise_step, raise_step,
        bar_access, bar_access, bar_access, bar_access, bar_access,
        port_access, bar_move,
    };

    if (!roll(t, 50)) {
        machine_mend();
    } else if (!roll(t, 50)) {
        rare(t);
    } else {
        often[roll(t, ARRAY_SIZE(often))](t);
    }
    t->steps++;
}
