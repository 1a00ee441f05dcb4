/*
 * KVM test guest: interrupt controllers and CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Local APIC and I/O APIC by their registers in memory; the old controllers
 * are masked. Interrupts are counted by vector. The count is all that most
 * tests look at; INTx, which must be acknowledged at the device, has a handler.
 */

#include "guest.h"

#define LAPIC_ID            0x020
#define LAPIC_EOI           0x0b0
#define LAPIC_SPURIOUS      0x0f0
#define LAPIC_ICR           0x300
#define LAPIC_ICR_DEST      0x310
#define ICR_PENDING         (1u << 12)
#define ICR_INIT_OTHERS     0x000c4500u
#define ICR_START_OTHERS    0x000c4600u

#define IOAPIC_SELECT       0xfec00000u
#define IOAPIC_DATA         0xfec00010u
#define IOAPIC_ENTRY        0x10
#define ENTRY_LEVEL         (1u << 15)
#define ENTRY_MASKED        (1u << 16)

#define PIC1_DATA           0x21
#define PIC2_DATA           0xa1

#define ENTRY_SIZE          16      /* of the code in start.S */
#define TRAMPOLINE          0x8000u

extern uint8_t interrupt_entries[];
extern uint8_t trampoline[], trampoline_end[];
extern uint64_t idt[NR_VECTORS];

volatile uint32_t interrupts[NR_VECTORS];
volatile uint32_t interrupt_cpu[NR_VECTORS];
volatile uint32_t interrupt_eip[NR_VECTORS];
void (*volatile intx_handler)(void);
void (*volatile spare_handler)(void);

static void (*volatile cpu_fn)(uint32_t cpu);
static volatile uint32_t nr_cpus_up;

void guest_interrupt(uint32_t vector, uint32_t eip);
void guest_cpu_main(uint32_t cpu);

uint32_t cpu_number(void)
{
    return read32(LAPIC_BASE + LAPIC_ID) >> 24;
}

void guest_interrupt(uint32_t vector, uint32_t eip)
{
    if (vector < 32) {
        print("not ok exception ");
        print_number(vector);
        print(" at ");
        print_number(eip);
        print("\n");
        power_off();
    }
    interrupt_cpu[vector] = cpu_number();
    interrupt_eip[vector] = eip;
    interrupts[vector]++;
    if (vector == VECTOR_INTX && intx_handler) {
        intx_handler();
    }
    if (vector != VECTOR_SPURIOUS) {
        write32(LAPIC_BASE + LAPIC_EOI, 0);
    }
    if (vector == VECTOR_SPARE && spare_handler) {
        spare_handler();
    }
}

static void lapic_enable(void)
{
    write32(LAPIC_BASE + LAPIC_SPURIOUS, 0x100 | VECTOR_SPURIOUS);
}

void platform_init(void)
{
    for (unsigned i = 0; i < NR_VECTORS; i++) {
        uint32_t at = (uint32_t)interrupt_entries + i * ENTRY_SIZE;

        /* Interrupt gate to selector 8 */
        idt[i] = (at & 0xffff) | 0x80000ull | 0x8e0000000000ull |
                 (uint64_t)(at >> 16) << 48;
    }
    out8(PIC1_DATA, 0xff);
    out8(PIC2_DATA, 0xff);
    lapic_enable();
    asm volatile("sti");
}

static void ioapic_write(uint32_t reg, uint32_t value)
{
    write32(IOAPIC_SELECT, reg);
    write32(IOAPIC_DATA, value);
}

void ioapic_route(uint32_t gsi, uint8_t vector)
{
    ioapic_write(IOAPIC_ENTRY + 2 * gsi + 1, cpu_number() << 24);
    ioapic_write(IOAPIC_ENTRY + 2 * gsi, ENTRY_LEVEL | vector);
}

void ioapic_mask(uint32_t gsi)
{
    ioapic_write(IOAPIC_ENTRY + 2 * gsi,
                 ENTRY_MASKED | ENTRY_LEVEL | VECTOR_INTX);
}

void guest_cpu_main(uint32_t cpu)
{
    lapic_enable();
    asm volatile("sti");
    __atomic_add_fetch(&nr_cpus_up, 1, __ATOMIC_SEQ_CST);
    cpu_fn(cpu);
}

static void lapic_command(uint32_t command)
{
    write32(LAPIC_BASE + LAPIC_ICR_DEST, 0);
    write32(LAPIC_BASE + LAPIC_ICR, command);
    while (read32(LAPIC_BASE + LAPIC_ICR) & ICR_PENDING) {
        asm volatile("pause");
    }
}

void cpus_start(void (*fn)(uint32_t cpu), uint32_t others)
{
    uint8_t *at = (uint8_t *)TRAMPOLINE;

    for (uint8_t *from = trampoline; from < trampoline_end; from++) {
        *at++ = *from;
    }
    cpu_fn = fn;
    lapic_command(ICR_INIT_OTHERS);
    lapic_command(ICR_START_OTHERS | TRAMPOLINE >> 12);
    check_wait("cpus", &nr_cpus_up, others);
}
