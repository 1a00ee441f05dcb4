/*
 * Torture guest: a walk of one CPU, or torture by three
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The command line says which, and the seed:
 *
 *   hello               says "ok hello" and ends
 *   walk SEED STEPS     takes the steps, then puts everything in order and
 *                       checks that each kind of interrupt arrives; ends
 *   torture SEED        goes on until "q" comes on the serial port; says
 *                       "calm STEPS0 STEPS1 STEPS2" once no CPU does anything,
 *                       and ejects the device on "e", with the line "ejected"
 *
 * Each boot has another seed, made of the one given and the number of boots:
 * a guest that ended itself, or was reset, does not do the same again.
 */

#include "torture.h"

#define NR_CPUS             3
#define SERIAL_DATA         0x3f8
#define SERIAL_STATUS       0x3fd
#define SERIAL_HAS_DATA     1
#define SERIAL_STEPS        64

/* Memory that a reset leaves alone: the program is loaded again, this not. */
#define BOOTS               ((volatile uint32_t *)0x02000000)
#define BOOTS_MAGIC         0x626f6f74

#define PCI_COMMAND         0x04
#define STORM               100

/* What PVH boot leaves in memory */
typedef struct StartInfo {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules;
    uint64_t command_line;
} StartInfo;

static Torturer torturers[NR_CPUS];
static volatile bool be_calm;
static uint32_t nr_intx;

void guest_main(const StartInfo *info);

uint32_t roll(Torturer *t, uint32_t n)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 17;
    t->random ^= t->random << 5;
    return (t->random >> 8) % n;
}

static void seed(uint32_t value, uint32_t boots)
{
    for (unsigned i = 0; i < NR_CPUS; i++) {
        Torturer *t = &torturers[i];

        t->random = (value * 2654435761u) ^ (boots * 40503u + i * 7919u + 1);
        t->random |= !t->random;
        for (unsigned k = 0; k < 16; k++) {
            roll(t, 1);
        }
    }
}

static uint32_t count_boot(void)
{
    if (BOOTS[0] != BOOTS_MAGIC) {
        BOOTS[0] = BOOTS_MAGIC;
        BOOTS[1] = 0;
    }
    return BOOTS[1]++;
}

/* The line may be up for ever: then nobody listens to it any more. */
static void acknowledge(void)
{
    write32(machine.base[TT_REGS_BAR] + TT_ACK_CAUSES, 0xff);
    if (++nr_intx % STORM == 0) {
        intx_route(false);
    }
}

/* --- The walk --- */

static void raise(uint32_t index, uint32_t nr)
{
    write32(machine.base[TT_REGS_BAR] + TT_RAISE, index << 16 | nr);
}

static void check_arrives(const char *name, uint32_t index, uint32_t nr,
                          unsigned vector)
{
    uint32_t before = interrupts[vector];

    raise(index, nr);
    check_wait(name, &interrupts[vector], before + 1);
}

static void tidy(void)
{
    const PCIDevice *dev = &machine.hot;

    pci_write16(dev, machine.pm + 4, 0);
    pci_write16(dev, PCI_COMMAND, 0);
    pci_write16(dev, machine.msi + 2, 0);
    pci_write16(dev, machine.msix + 2, 0);
    pci_write32(dev, machine.msi + 16, 0);
    intx_route(false);
    pirq_reset();
    machine_mend();
    write32(machine.base[TT_REGS_BAR] + TT_ACK_CAUSES, 0xff);
}

static bool has_arrived(const void *opaque)
{
    return interrupts[VECTOR_INTX] != *(const uint32_t *)opaque;
}

static void check_intx(void)
{
    uint32_t before;

    nr_intx = 0;
    intx_route(true);
    before = interrupts[VECTOR_INTX];
    write32(machine.base[TT_REGS_BAR] + TT_SET_CAUSES, 1);
    check("INTx", poll_until(has_arrived, &before), true);
    intx_route(false);
}

static void check_device(void)
{
    const PCIDevice *dev = &machine.hot;

    tidy();
    check("magic", read32(machine.base[TT_REGS_BAR] + TT_MAGIC),
          TT_MAGIC_VALUE);
    check_intx();
    msi_enable(dev, TT_NR_MSI, VECTOR_DEVICE);
    check_arrives("MSI", 1, 5, VECTOR_DEVICE + 5);
    msi_disable(dev);
    for (unsigned i = 0; i < TT_NR_MSIX; i++) {
        uint32_t entry = machine.base[TT_MSIX_BAR] + 16 * i;

        write32(entry, LAPIC_BASE);
        write32(entry + 4, 0);
        write32(entry + 8, VECTOR_DEVICE + i);
        write32(entry + 12, 0);
    }
    msix_enable(dev, true);
    check_arrives("MSI-X", 2, 9, VECTOR_DEVICE + 9);
    msix_enable(dev, false);
    check_intx();
}

static void walk(uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        step(&torturers[0]);
    }
    check("steps", torturers[0].steps, steps);
    check_device();
}

/* --- The torture --- */

static void torture(uint32_t cpu)
{
    Torturer *t = &torturers[cpu];

    while (!be_calm) {
        step(t);
    }
    t->calm = true;
    for (;;) {
        asm volatile("pause");
    }
}

static uint8_t serial(void)
{
    return in8(SERIAL_STATUS) & SERIAL_HAS_DATA ? in8(SERIAL_DATA) : 0;
}

static void say_calm(void)
{
    be_calm = true;
    for (unsigned i = 1; i < NR_CPUS; i++) {
        while (!torturers[i].calm) {
            asm volatile("pause");
        }
    }
    print("calm");
    for (unsigned i = 0; i < NR_CPUS; i++) {
        print(" ");
        print_number(torturers[i].steps);
    }
    print("\n");
}

static void torture_all(void)
{
    machine.ejects = true;
    cpus_start(torture, NR_CPUS - 1);
    for (;;) {
        uint8_t byte = serial();

        if (byte == 'q') {
            say_calm();
        } else if (byte == 'e') {
            eject();
            print("ejected\n");
        }
        for (unsigned i = 0; i < SERIAL_STEPS && !be_calm; i++) {
            step(&torturers[0]);
        }
        /* TCG never lets go of RCU in a loop that no interrupt ends. */
        asm volatile("pause");
    }
}

/* --- Which one --- */

static const char *word(const char **text)
{
    const char *start;

    while (**text == ' ') {
        ++*text;
    }
    start = *text;
    while (**text && **text != ' ') {
        ++*text;
    }
    return start;
}

static uint32_t number(const char **text)
{
    uint32_t value = 0;

    for (const char *at = word(text); *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + (*at - '0');
    }
    return value;
}

void guest_main(const StartInfo *info)
{
    const char *text = (const char *)(uint32_t)info->command_line;
    char mode = *word(&text);
    bool is_walk = mode == 'w';

    seed(number(&text), is_walk ? 0 : count_boot());
    platform_init();
    pci_place_power_control();
    if (mode == 'h') {
        print("ok hello\n");
        power_off();
    }
    machine_init();
    intx_handler = acknowledge;
    if (!is_walk) {
        torture_all();
    }
    walk(number(&text));
    power_off();
}
