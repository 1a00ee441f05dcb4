/*
 * KVM test guest: what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_KVM_GUEST_H
#define TESTS_KVM_GUEST_H

#include <stdbool.h>
#include <stdint.h>

/* Interrupt vectors: one for each of the device's, in order. */
#define VECTOR_DEVICE       0x30
#define VECTOR_SPARE        0x48    /* where a vector is moved to */
#define VECTOR_INTX         0x4a
#define VECTOR_SPURIOUS     0x4f
#define NR_VECTORS          0x50

#define LAPIC_BASE          0xfee00000u
#define MAX_CPUS            8

/* --- Ports and memory --- */

static inline void out8(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;

    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint16_t in16(uint16_t port)
{
    uint16_t value;

    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t value;

    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* One plain move each, which every KVM can emulate. */
static inline uint8_t read8(uint32_t addr)
{
    uint8_t value;

    asm volatile("movb (%1), %0" : "=q"(value) : "r"(addr) : "memory");
    return value;
}

static inline uint16_t read16(uint32_t addr)
{
    uint16_t value;

    asm volatile("movw (%1), %0" : "=r"(value) : "r"(addr) : "memory");
    return value;
}

static inline uint32_t read32(uint32_t addr)
{
    uint32_t value;

    asm volatile("movl (%1), %0" : "=r"(value) : "r"(addr) : "memory");
    return value;
}

static inline void write8(uint32_t addr, uint8_t value)
{
    asm volatile("movb %0, (%1)" : : "q"(value), "r"(addr) : "memory");
}

static inline void write16(uint32_t addr, uint16_t value)
{
    asm volatile("movw %0, (%1)" : : "r"(value), "r"(addr) : "memory");
}

static inline void write32(uint32_t addr, uint32_t value)
{
    asm volatile("movl %0, (%1)" : : "r"(value), "r"(addr) : "memory");
}

/* --- report.c: what the test outside reads --- */

void print(const char *text);
void print_number(uint32_t value);
/* One line "ok NAME" or "not ok NAME: GOT, not WANTED". */
void check(const char *name, uint32_t got, uint32_t wanted);
/* Polls until @done or until some seconds have passed: then false. */
bool poll_until(bool (*done)(const void *opaque), const void *opaque);
bool wait_until(volatile uint32_t *value, uint32_t wanted);
/* wait_until() and check() */
void check_wait(const char *name, volatile uint32_t *value, uint32_t wanted);
void power_off(void) __attribute__((noreturn));
void reboot(void) __attribute__((noreturn));
bool text_equal(const char *a, const char *b);

/* --- platform.c: interrupts and CPUs --- */

extern volatile uint32_t interrupts[NR_VECTORS];
extern volatile uint32_t interrupt_cpu[NR_VECTORS];     /* of the last one */
extern volatile uint32_t interrupt_eip[NR_VECTORS];     /* before what it came */
extern void (*volatile intx_handler)(void);
extern void (*volatile spare_handler)(void);            /* after its EOI */

void platform_init(void);
uint32_t cpu_number(void);
/* @vector on this CPU for level-triggered interrupts of @gsi. */
void ioapic_route(uint32_t gsi, uint8_t vector);
void ioapic_mask(uint32_t gsi);
/* Runs @fn on the @others CPUs, interrupts on; checks that they have come. */
void cpus_start(void (*fn)(uint32_t cpu), uint32_t others);

/* --- pci.c --- */

typedef struct PCIDevice {
    uint32_t address;               /* as config mechanism 1 wants it */
    uint32_t bar[6];
} PCIDevice;

uint8_t pci_read8(const PCIDevice *dev, uint8_t off);
uint16_t pci_read16(const PCIDevice *dev, uint8_t off);
uint32_t pci_read32(const PCIDevice *dev, uint8_t off);
void pci_write8(const PCIDevice *dev, uint8_t off, uint8_t value);
void pci_write16(const PCIDevice *dev, uint8_t off, uint16_t value);
void pci_write32(const PCIDevice *dev, uint8_t off, uint32_t value);
/* Finds the device on bus 0, places its BARs and switches it on. */
bool pci_find(uint16_t vendor, uint16_t device, PCIDevice *dev);
uint8_t pci_capability(const PCIDevice *dev, uint8_t id);
/* Routes INTA by way @way, 0 or 1; returns the I/O APIC's input. */
uint32_t pci_intx_route(const PCIDevice *dev, unsigned way);
/* Where power_off() expects the board's register. */
void pci_place_power_control(void);

void msix_enable(const PCIDevice *dev, bool enable);
void msix_set(const PCIDevice *dev, unsigned nr, uint8_t vector, bool masked);
void msix_mask(const PCIDevice *dev, unsigned nr, bool masked);
/* Leaves it unmasked. */
void msix_send_to(const PCIDevice *dev, unsigned nr, uint32_t cpu);
bool msix_pending(const PCIDevice *dev, unsigned nr);
/* @nr vectors, a power of two, from @vector on. */
void msi_enable(const PCIDevice *dev, unsigned nr, uint8_t vector);
/* The first of them; MSI may be on. */
void msi_set_vector(const PCIDevice *dev, uint8_t vector);
void msi_disable(const PCIDevice *dev);

#endif /* TESTS_KVM_GUEST_H */
