/*
 * Torture guest: what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_TORTURE_H
#define TESTS_TORTURE_H

#include "guest.h"
#include "regs.h"

#define ARRAY_SIZE(a)       (sizeof(a) / sizeof((a)[0]))

/* What a CPU has for itself. */
typedef struct Torturer {
    uint32_t random;
    volatile uint32_t steps;
    volatile bool calm;         /* it does nothing any more */
} Torturer;

/* --- main.c --- */

/* 0 to @n - 1. */
uint32_t roll(Torturer *t, uint32_t n);

/* --- config.c: the machine, and config space --- */

typedef struct Machine {
    bool q35;
    PCIDevice hot;              /* the device, whether it is there or not */
    PCIDevice port;             /* the root port above it, on q35 */
    bool ejects;                /* the guest may eject it */
    volatile uint32_t base[TT_NR_BARS];     /* where BARs were put last */
    volatile uint8_t msi, msix, pm, express;
} Machine;

extern Machine machine;

void machine_init(void);
/* BARs to where they belong, switched on. */
void machine_mend(void);
/* Is it there? */
bool machine_has_device(void);
void bus_reset(void);
void eject(void);
void slot_power_on(void);
/* All ways of INTA lead to VECTOR_INTX on this CPU, or nowhere. */
void intx_route(bool on);
void pirq_reset(void);
void pirq_shuffle(Torturer *t);
/* DMA of another device, which is not ours, to or from @addr. */
void edu_dma(uint32_t addr, uint32_t len, bool to_memory);
void e1000_ring(uint32_t addr, uint32_t nr);

/*
 * @size is 1, 2 or 4. Where all CPUs share one address register the write may
 * go to what another CPU has addressed.
 */
void config_write(Torturer *t, uint32_t off, uint32_t value, unsigned size);
uint32_t config_read(Torturer *t, uint32_t off, unsigned size);

/* --- steps.c --- */

void step(Torturer *t);

#endif /* TESTS_TORTURE_H */
