/*
 * KVM test guest: the cases, one of which is named on the command line
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A case prints what it checked and returns; the test outside looks at that,
 * at QEMU's trace and at the messages that the server got. Each interrupt is
 * waited for before the next is raised, so counts are exact.
 */

#include "guest.h"
#include "regs.h"

#define IRQ_MSI                 (1u << 16)
#define IRQ_MSIX                (2u << 16)
#define MANY                    1000
#define NR_BOOTS                4

/* What PVH boot leaves in memory */
typedef struct StartInfo {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules;
    uint64_t command_line;
} StartInfo;

static PCIDevice dev;

void guest_main(const StartInfo *info);

static uint32_t reg(uint32_t off)
{
    return read32(dev.bar[KT_REGS_BAR] + off);
}

static void set_reg(uint32_t off, uint32_t value)
{
    write32(dev.bar[KT_REGS_BAR] + off, value);
}

/* Raises an interrupt and waits until @vector has been taken once more. */
static void check_raise(const char *name, uint32_t raise, unsigned vector)
{
    uint32_t before = interrupts[vector];

    set_reg(KT_RAISE, raise);
    check_wait(name, &interrupts[vector], before + 1);
}

/* But INTx, which may be taken once more than there is a cause. */
static uint32_t interrupts_all(void)
{
    uint32_t nr = 0;

    for (unsigned i = 32; i < NR_VECTORS; i++) {
        nr += i == VECTOR_INTX ? 0 : interrupts[i];
    }
    return nr;
}

/* --- Registers --- */

static void check_memory(uint32_t base)
{
    write32(base, 0x44332211);
    check("read of 4 bytes", read32(base), 0x44332211);
    check("read of 2 bytes", read16(base + 2), 0x4433);
    check("read of 1 byte", read8(base + 1), 0x22);
    write16(base + 2, 0xbbaa);
    write8(base, 0xcc);
    check("after write of 2 and 1", read32(base), 0xbbaa22cc);
}

static void case_regs(void)
{
    uint32_t ports = dev.bar[KT_PORTS_BAR];

    check("magic", reg(KT_MAGIC), KT_MAGIC_VALUE);
    check_memory(dev.bar[KT_REGS_BAR] + KT_SCRATCH);
    out32(ports, 0x44332211);
    check("port of 4 bytes", in32(ports), 0x44332211);
    out8(ports + 1, 0xaa);
    check("port of 2 bytes", in16(ports), 0xaa11);
    check("port of 1 byte", in8(ports + 3), 0x44);
    check_memory(dev.bar[KT_MEMORY_BAR] + KT_MEMORY_SIZE - 4);
    check_memory(dev.bar[KT_MEMORY_BAR]);
}

/* --- Doorbells --- */

static void check_rings(const char *name, unsigned bell, uint32_t wanted)
{
    check(name, reg(KT_RINGS + 4 * bell), wanted);
}

/* Each of them @times: a signal only for the right width and value. */
static void ring_bells(uint32_t times)
{
    uint32_t regs = dev.bar[KT_REGS_BAR], ports = dev.bar[KT_PORTS_BAR];

    for (uint32_t i = 0; i < times; i++) {
        write32(regs + KT_BELL_4, i);
        write16(regs + KT_BELL_MATCH, KT_BELL_VALUE);
        write32(regs + KT_BELL_ANY, i);
        write32(regs + KT_BELL_SHADOW, ~i);
        out16(ports + KT_PORT_BELL, i);
        out32(ports + KT_PORT_BELL_MATCH, KT_PORT_BELL_VALUE);
    }
}

/* Since the beginning @rounds of MANY. */
static void check_bells(uint32_t rounds)
{
    ring_bells(MANY);
    check_rings("4 bytes", 0, rounds * MANY);
    check_rings("2 bytes of one value", 1, rounds * MANY);
    check_rings("any size", 2, rounds * MANY);
    check_rings("with shadow", 3, rounds * MANY);
    check("shadow", reg(KT_SHADOW), ~(MANY - 1));
    check_rings("ports", 4, rounds * MANY);
    check_rings("ports of one value", 5, rounds * MANY);
}

/* Writes that are not the ones: messages, that the device stores. */
static void check_wrong_rings(uint32_t rounds)
{
    uint32_t regs = dev.bar[KT_REGS_BAR], ports = dev.bar[KT_PORTS_BAR];

    write16(regs + KT_BELL_4, 0x1111);
    check_rings("2 bytes, not 4", 0, rounds * MANY);
    check("stored", read16(regs + KT_BELL_4), 0x1111);
    write16(regs + KT_BELL_MATCH, KT_BELL_VALUE + 1);
    write32(regs + KT_BELL_MATCH, KT_BELL_VALUE);
    check_rings("not the value, nor the width", 1, rounds * MANY);
    out32(ports + KT_PORT_BELL_MATCH, KT_PORT_BELL_VALUE & 0xffff);
    out32(ports + KT_PORT_BELL_MATCH, KT_PORT_BELL_VALUE ^ 1);
    check_rings("not the port's value", 5, rounds * MANY);
    check("stored at the port", in32(ports + KT_PORT_BELL_MATCH),
          KT_PORT_BELL_VALUE ^ 1);
}

static void case_bells(void)
{
    uint32_t *bar = &dev.bar[KT_REGS_BAR];
    uint8_t command = pci_read8(&dev, 4);

    check_bells(1);
    check_wrong_rings(1);

    /* The bells go with the BAR. */
    *bar += 0x100000;
    pci_write32(&dev, 0x10 + 4 * KT_REGS_BAR, *bar);
    check_bells(2);
    *bar -= 0x100000;
    write32(*bar + KT_BELL_4, 0);
    pci_write32(&dev, 0x10 + 4 * KT_REGS_BAR, *bar);
    check_rings("nobody is there", 0, 2 * MANY);

    pci_write8(&dev, 4, 0);
    ring_bells(1);
    pci_write8(&dev, 4, command);
    check_rings("switched off", 0, 2 * MANY);
    check_rings("ports switched off", 4, 2 * MANY);
    check_bells(3);
}

/* --- MSI and MSI-X --- */

static void msix_set_all(bool masked)
{
    for (unsigned i = 0; i < KT_NR_MSIX; i++) {
        msix_set(&dev, i, VECTOR_DEVICE + i, masked);
    }
}

static void case_msix(void)
{
    msix_set_all(false);
    msix_enable(&dev, true);
    for (unsigned i = 0; i < KT_NR_MSIX; i++) {
        check_raise("vector", IRQ_MSIX | i, VECTOR_DEVICE + i);
    }
    check("no other interrupt", interrupts_all(), KT_NR_MSIX);
}

static void case_msix_many(void)
{
    volatile uint32_t *count = &interrupts[VECTOR_DEVICE + 3];
    bool in_time = true;

    msix_set_all(false);
    msix_enable(&dev, true);
    for (unsigned i = 0; i < MANY && in_time; i++) {
        set_reg(KT_RAISE, IRQ_MSIX | 3);
        in_time = wait_until(count, i + 1);
    }
    check("all in time", in_time, true);
    check("taken", *count, MANY);
}

static bool is_pending(const void *opaque)
{
    return msix_pending(&dev, *(const unsigned *)opaque);
}

static void check_masked_vector(unsigned nr)
{
    uint32_t before = interrupts[VECTOR_DEVICE + nr];

    msix_mask(&dev, nr, true);
    set_reg(KT_RAISE, IRQ_MSIX | nr);
    check("raised while masked", reg(KT_RAISED), 0);
    check("pending", poll_until(is_pending, &nr), true);
    check("not taken while masked", interrupts[VECTOR_DEVICE + nr], before);
    msix_mask(&dev, nr, false);
    check_wait("taken at unmask", &interrupts[VECTOR_DEVICE + nr], before + 1);
    check("pending no more", msix_pending(&dev, nr), false);
    check_raise("taken after unmask", IRQ_MSIX | nr, VECTOR_DEVICE + nr);
}

static void case_msix_mask(void)
{
    msix_set_all(false);
    msix_enable(&dev, true);
    check_raise("before", IRQ_MSIX | 2, VECTOR_DEVICE + 2);
    check_masked_vector(2);
    check_masked_vector(0);
    check_masked_vector(KT_NR_MSIX - 1);
}

/* Enabled with every other vector masked, as drivers do that come late. */
static void case_msix_holes(void)
{
    msix_set_all(true);
    for (unsigned i = 1; i < KT_NR_MSIX; i += 2) {
        msix_mask(&dev, i, false);
    }
    msix_enable(&dev, true);
    for (unsigned i = 1; i < KT_NR_MSIX; i += 2) {
        check_raise("unmasked before", IRQ_MSIX | i, VECTOR_DEVICE + i);
    }
    for (unsigned i = 0; i < KT_NR_MSIX; i += 2) {
        msix_mask(&dev, i, false);
        check_raise("unmasked since", IRQ_MSIX | i, VECTOR_DEVICE + i);
    }
    check("no other interrupt", interrupts_all(), KT_NR_MSIX);
}

/* Left as it is: nine vectors were used, and one of them is masked. */
static void case_msix_some(void)
{
    unsigned masked = 3;

    msix_set_all(true);
    for (unsigned i = 1; i < KT_NR_MSIX; i += 2) {
        msix_mask(&dev, i, false);
    }
    msix_enable(&dev, true);
    msix_mask(&dev, 0, false);
    check_raise("unmasked since", IRQ_MSIX | 0, VECTOR_DEVICE + 0);
    msix_mask(&dev, masked, true);
    set_reg(KT_RAISE, IRQ_MSIX | masked);
    check("pending", poll_until(is_pending, &masked), true);
}

/* A table entry may be changed while it is masked, or while MSI-X is off. */
static void case_msix_move(void)
{
    unsigned nr = 5;

    msix_set_all(false);
    msix_enable(&dev, true);
    check_raise("before", IRQ_MSIX | nr, VECTOR_DEVICE + nr);
    msix_mask(&dev, nr, true);
    msix_set(&dev, nr, VECTOR_SPARE, true);
    msix_mask(&dev, nr, false);
    check_raise("moved while masked", IRQ_MSIX | nr, VECTOR_SPARE);
    msix_mask(&dev, nr, true);
    set_reg(KT_RAISE, IRQ_MSIX | nr);
    check("pending", poll_until(is_pending, &nr), true);
    msix_set(&dev, nr, VECTOR_SPARE + 1, true);
    msix_mask(&dev, nr, false);
    check_wait("moved while pending", &interrupts[VECTOR_SPARE + 1], 1);
    msix_enable(&dev, false);
    msix_set(&dev, nr, VECTOR_DEVICE + nr, false);
    msix_enable(&dev, true);
    check_raise("moved while disabled", IRQ_MSIX | nr, VECTOR_DEVICE + nr);
    check("no other interrupt", interrupts_all(), 4);
}

static void check_msi(unsigned nr, uint8_t vector)
{
    msi_enable(&dev, nr, vector);
    for (unsigned i = 0; i < nr; i++) {
        check_raise("vector", IRQ_MSI | i, vector + i);
    }
}

static void case_msi(void)
{
    check_msi(1, VECTOR_SPARE);
    msi_disable(&dev);
    set_reg(KT_RAISE, IRQ_MSI);
    check("raised while disabled fails", !!reg(KT_RAISED), true);
    check_msi(KT_NR_MSI, VECTOR_DEVICE);
    check("no other interrupt", interrupts_all(), 1 + KT_NR_MSI);
}

static void case_dma(void)
{
    static volatile uint32_t target;

    msix_set_all(false);
    msix_enable(&dev, true);
    for (uint32_t i = 1; i <= 16; i++) {
        set_reg(KT_DMA_ADDR, (uint32_t)&target);
        set_reg(KT_DMA_STORE, i);
        check_raise("interrupt", IRQ_MSIX, VECTOR_DEVICE);
        check("data before interrupt", target, i);
    }
}

/* --- INTx --- */

static volatile uint32_t served;        /* causes that were acknowledged */
static volatile uint32_t handler_adds;  /* causes, the next time */
static volatile uint32_t handler_bad;   /* what was wrong with the memory BAR */

/*
 * One cause is acknowledged, the lowest: the line stays up for the others. An
 * interrupt without a cause is nothing special for a level: the line was up
 * when it was looked at.
 */
static void handle_intx(void)
{
    uint32_t memory = dev.bar[KT_MEMORY_BAR];
    uint32_t causes = reg(KT_CAUSES);

    write32(memory, causes);
    handler_bad |= read32(memory) != causes;
    if (causes) {
        set_reg(KT_SET_CAUSES, handler_adds);
        handler_adds = 0;
        set_reg(KT_ACK_CAUSES, causes & -causes);
        served++;
    }
}

static void check_causes(const char *name, uint32_t causes, uint32_t adds,
                         uint32_t nr)
{
    uint32_t before = served;
    uint32_t signals = reg(KT_SIGNALS);

    handler_adds = adds;
    set_reg(KT_SET_CAUSES, causes);
    check_wait(name, &served, before + nr);
    check("causes left", reg(KT_CAUSES), 0);
    check("signalled by the server", reg(KT_SIGNALS) - signals, 1);
}

static void check_intx(uint32_t gsi)
{
    intx_handler = handle_intx;
    ioapic_route(gsi, VECTOR_INTX);
    check_causes("one cause", 1, 0, 1);
    check_causes("one more", 2, 0, 1);
    check_causes("two at once", 6, 0, 2);
    check_causes("another in the handler", 1, 2, 2);
    check_causes("many", 0xff, 0x100, 9);
    check("memory BAR in the handler", handler_bad, 0);
    check("no other interrupt", interrupts_all(), 0);
}

static void case_intx(void)
{
    check_intx(pci_intx_route(&dev, 0));
}

/* Down while nobody looks, and moved while it is up. */
static void case_intx_move(void)
{
    uint32_t gsi = pci_intx_route(&dev, 0);
    uint32_t before;

    check_intx(gsi);
    ioapic_mask(gsi);
    gsi = pci_intx_route(&dev, 1);
    check_intx(gsi);
    ioapic_mask(gsi);
    gsi = pci_intx_route(&dev, 0);
    check_intx(gsi);
    ioapic_mask(gsi);
    before = served;
    set_reg(KT_SET_CAUSES, 1);
    check("up", reg(KT_CAUSES), 1);
    gsi = pci_intx_route(&dev, 1);
    ioapic_route(gsi, VECTOR_INTX);
    check_wait("moved while it was up", &served, before + 1);
}

static volatile uint32_t disabled;

/* As uio_pci_generic: somebody else looks after the device. */
static void handle_disable(void)
{
    disabled++;
    pci_write16(&dev, 4, pci_read16(&dev, 4) | 0x400);
}

static bool is_disabled(const void *opaque)
{
    (void)opaque;
    return disabled;
}

/* The line stays up. While INTx is disabled there is at most one more. */
static void case_intx_disable(void)
{
    uint32_t gsi = pci_intx_route(&dev, 0);
    uint32_t before;

    intx_handler = handle_disable;
    ioapic_route(gsi, VECTOR_INTX);
    set_reg(KT_SET_CAUSES, 1);
    check("one", poll_until(is_disabled, 0), true);
    for (unsigned i = 0; i < 2000; i++) {
        check("up", reg(KT_CAUSES), 1);
    }
    check("many while disabled", disabled > 2, 0);
    before = served;
    intx_handler = handle_intx;
    pci_write16(&dev, 4, pci_read16(&dev, 4) & ~0x400);
    check_wait("taken when enabled", &served, before + 1);
    check_causes("another one", 1, 0, 1);
}

static void case_intx_mask(void)
{
    uint32_t gsi = pci_intx_route(&dev, 0);
    uint32_t before;

    check_intx(gsi);
    before = served;
    ioapic_mask(gsi);
    set_reg(KT_SET_CAUSES, 3);
    check("up", reg(KT_CAUSES), 3);
    check("not taken while masked", served, before);
    ioapic_route(gsi, VECTOR_INTX);
    check_wait("taken at unmask", &served, before + 2);
}

/* The same device changes from one kind to the next and back. */
static void case_kinds(void)
{
    intx_handler = handle_intx;
    ioapic_route(pci_intx_route(&dev, 0), VECTOR_INTX);
    for (unsigned i = 0; i < 5; i++) {
        check_causes("INTx", 3, 0, 2);
        check_msi(KT_NR_MSI, VECTOR_DEVICE);
        msi_disable(&dev);
        check_causes("INTx after MSI", 3, 0, 2);
        msix_set_all(false);
        msix_enable(&dev, true);
        check_raise("MSI-X", IRQ_MSIX | 9, VECTOR_DEVICE + 9);
        msix_enable(&dev, false);
    }
}

/* --- MSI and MSI-X at once, and their numbers --- */

#define NR_TOGGLES              5

/* As devices do it that have both: MSI-X where both are on. */
static void check_chosen(bool msi, bool msix)
{
    if (msix) {
        check_raise("MSI-X", IRQ_MSIX | 9, VECTOR_DEVICE + 9);
        set_reg(KT_RAISE, IRQ_MSI);
        check("no MSI then", !!reg(KT_RAISED), true);
    } else if (msi) {
        check_raise("MSI", IRQ_MSI | 1, VECTOR_DEVICE + 1);
        set_reg(KT_RAISE, IRQ_MSIX | 9);
        check("no MSI-X then", !!reg(KT_RAISED), true);
    } else {
        check_causes("INTx", 3, 0, 2);
    }
}

static void msi_switch(unsigned nr)
{
    uint8_t order = 0;

    while (1u << order < nr) {
        order++;
    }
    pci_write16(&dev, pci_capability(&dev, 0x05) + 2,
                nr ? order << 4 | 1 : 0);
}

/* Each order in which a guest can switch them on and off, five times. */
static void case_both(void)
{
    bool msi = false, msix = false;

    intx_handler = handle_intx;
    ioapic_route(pci_intx_route(&dev, 0), VECTOR_INTX);
    msix_set_all(false);
    msi_enable(&dev, KT_NR_MSI, VECTOR_DEVICE);
    msi_disable(&dev);
    for (unsigned order = 0; order < 1u << NR_TOGGLES; order++) {
        for (unsigned i = 0; i < NR_TOGGLES; i++) {
            if (order >> i & 1) {
                msix = !msix;
                msix_enable(&dev, msix);
            } else {
                msi = !msi;
                msi_switch(msi ? KT_NR_MSI : 0);
            }
            check_chosen(msi, msix);
        }
    }
}

/* MSI is on all the time. */
static void case_msi_number(void)
{
    static const uint8_t numbers[] = { 1, 4, 2, 1, 2, 4, 1 };

    msi_enable(&dev, KT_NR_MSI, VECTOR_DEVICE);
    for (unsigned i = 0; i < sizeof(numbers); i++) {
        msi_switch(numbers[i]);
        for (unsigned nr = 0; nr < KT_NR_MSI; nr++) {
            if (nr < numbers[i]) {
                check_raise("vector", IRQ_MSI | nr, VECTOR_DEVICE + nr);
            } else {
                set_reg(KT_RAISE, IRQ_MSI | nr);
                check("beyond the number", !!reg(KT_RAISED), true);
            }
        }
        /* With another message, in as many vectors as there are now. */
        msi_set_vector(&dev, VECTOR_DEVICE + 8);
        check_raise("moved", IRQ_MSI | (numbers[i] - 1),
                    VECTOR_DEVICE + 8 + numbers[i] - 1);
        msi_set_vector(&dev, VECTOR_DEVICE);
    }
}

/* --- Several CPUs --- */

static volatile uint32_t cpu_bad[MAX_CPUS];
static volatile uint32_t nr_cpus_done;

static void cpu_access(uint32_t cpu)
{
    uint32_t off = KT_PER_CPU + 4 * cpu;

    for (uint32_t i = 0; i < MANY; i++) {
        set_reg(off, cpu << 24 | i);
        cpu_bad[cpu] += reg(off) != (cpu << 24 | i);
        cpu_bad[cpu] += reg(KT_MAGIC) != KT_MAGIC_VALUE;
    }
    __atomic_add_fetch(&nr_cpus_done, 1, __ATOMIC_SEQ_CST);
}

static void case_cpus(void)
{
    cpus_start(cpu_access, 3);
    cpu_access(cpu_number());
    check_wait("done", &nr_cpus_done, 4);
    for (unsigned i = 0; i < 4; i++) {
        check("wrong answers", cpu_bad[i], 0);
    }
}

static volatile bool cpus_stop;

static void cpu_wait(uint32_t cpu)
{
    (void)cpu;
    while (!cpus_stop) {
        asm volatile("pause");
    }
}

/* A vector follows its entry from CPU to CPU. */
static void case_msix_cpus(void)
{
    unsigned nr = 7;

    cpus_start(cpu_wait, 3);
    msix_set_all(false);
    msix_enable(&dev, true);
    for (uint32_t i = 0; i < 12; i++) {
        msix_send_to(&dev, nr, i % 4);
        check_raise("sent", IRQ_MSIX | nr, VECTOR_DEVICE + nr);
        check("taken by", interrupt_cpu[VECTOR_DEVICE + nr], i % 4);
    }
    cpus_stop = true;
    check("no other interrupt", interrupts_all(), 12);
}

/* --- Unplug --- */

#define EJECT_PORT              0xae08      /* of pc */
#define NR_EJECTS               30

static volatile uint32_t cpu_turns[MAX_CPUS];

static bool device_found(const void *opaque)
{
    (void)opaque;
    return pci_find(KT_VENDOR, KT_DEVICE, &dev);
}

static void cpu_use_table(uint32_t cpu)
{
    for (;;) {
        uint32_t table = dev.bar[KT_MSIX_BAR] + KT_MSIX_TABLE;
        uint32_t pending = dev.bar[KT_MSIX_BAR] + KT_MSIX_PBA;

        read32(table);
        read32(pending);
        write32(table + 8, VECTOR_DEVICE);
        cpu_turns[cpu]++;
        asm volatile("pause");
    }
}

static bool cpus_go_on(const void *opaque)
{
    const uint32_t *since = opaque;

    return cpu_turns[1] > since[0] + MANY && cpu_turns[2] > since[1] + MANY;
}

static void check_cpus_go_on(const char *name)
{
    uint32_t since[] = { cpu_turns[1], cpu_turns[2] };

    check(name, poll_until(cpus_go_on, since), true);
}

/*
 * Two CPUs use the MSI-X table without end while the device is ejected: who is
 * about to access it then does so when it has gone. The test plugs it again.
 */
static void case_msix_eject(void)
{
    cpus_start(cpu_use_table, 2);
    for (unsigned i = 0; i < NR_EJECTS; i++) {
        check("plugged", poll_until(device_found, &dev), true);
        check_cpus_go_on("with the device");
        out32(EJECT_PORT, 1u << ((dev.address >> 11) & 31));
        check_cpus_go_on("ejected");
    }
}

/* --- An access that nobody comes back to --- */

static void *way_out[5];

static void leave(void)
{
    spare_handler = 0;
    __builtin_longjmp(way_out, 1);
}

extern uint8_t slow_write[];

static __attribute__((noinline)) void write_slow(uint32_t raise)
{
    asm volatile(".globl slow_write\nslow_write: movl %0, (%1)" : :
                 "r"(raise), "r"(dev.bar[KT_REGS_BAR] + KT_SLOW) : "memory");
}

/*
 * An interrupt comes in the middle of @raise's access, and does not return to it. To
 * the CPU that is one instruction, after which it is taken.
 */
static void write_and_leave(uint32_t raise)
{
    spare_handler = leave;
    if (!__builtin_setjmp(way_out)) {
        write_slow(raise);
        check_wait("interrupt", &interrupts[VECTOR_SPARE], 1);
    }
    asm volatile("sti");
    check("left", interrupts[VECTOR_SPARE], 1);
    check("before the access", interrupt_eip[VECTOR_SPARE] ==
          (uint32_t)slow_write, false);
}

/* Later the same write is a new one: the device sees each. */
static void case_left(void)
{
    msix_set(&dev, 1, VECTOR_SPARE, false);
    msix_enable(&dev, true);
    write_and_leave(IRQ_MSIX | 1);
    for (unsigned i = 0; i < 10; i++) {
        set_reg(KT_SLOW, IRQ_MSIX | 2);
    }
    set_reg(KT_SLOW, IRQ_MSIX | 1);
    check("writes", reg(KT_SLOW_WRITES), 12);
    check_wait("second interrupt", &interrupts[VECTOR_SPARE], 2);
}

/* --- Reset --- */

/* The memory BAR is not cleared by a reset: it counts boots and resets. */
static void case_reboot(void)
{
    uint32_t memory = dev.bar[KT_MEMORY_BAR];
    uint32_t boots = read32(memory);
    uint8_t msix = pci_capability(&dev, 0x11);

    check("register is reset", reg(KT_SCRATCH), 0);
    check("line is down", reg(KT_CAUSES), 0);
    check("MSI-X is off", pci_read16(&dev, msix + 2) & 0x8000, 0);
    check("reset was seen", reg(KT_RESETS) > read32(memory + 4), true);
    msix_set_all(false);
    msix_enable(&dev, true);
    check_raise("MSI-X", IRQ_MSIX | 1, VECTOR_DEVICE + 1);
    write32(memory, boots + 1);
    write32(memory + 4, reg(KT_RESETS));
    set_reg(KT_SCRATCH, 1);
    if (boots % 2) {
        /* Not every guest is tidy: this one leaves the line up. */
        msix_enable(&dev, false);
        set_reg(KT_SET_CAUSES, 1);
    }
    if (boots + 1 < NR_BOOTS) {
        reboot();
    }
    check("boots", boots + 1, NR_BOOTS);
}

/* --- Which one --- */

static void case_hello(void)
{
    check("interrupts are counted", interrupts_all(), 0);
}

static const struct {
    const char *name;
    void (*fn)(void);
    bool no_device;
} cases[] = {
    { "hello", case_hello, true },
    { "regs", case_regs, false },
    { "bells", case_bells, false },
    { "msix", case_msix, false },
    { "msix-many", case_msix_many, false },
    { "msix-mask", case_msix_mask, false },
    { "msix-holes", case_msix_holes, false },
    { "msix-some", case_msix_some, false },
    { "msix-move", case_msix_move, false },
    { "msi", case_msi, false },
    { "dma", case_dma, false },
    { "intx", case_intx, false },
    { "intx-mask", case_intx_mask, false },
    { "intx-disable", case_intx_disable, false },
    { "intx-move", case_intx_move, false },
    { "kinds", case_kinds, false },
    { "both", case_both, false },
    { "msi-number", case_msi_number, false },
    { "cpus", case_cpus, false },
    { "msix-cpus", case_msix_cpus, false },
    { "msix-eject", case_msix_eject, true },
    { "left", case_left, false },
    { "reboot", case_reboot, false },
};

void guest_main(const StartInfo *info)
{
    const char *name = (const char *)(uint32_t)info->command_line;

    platform_init();
    pci_place_power_control();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!text_equal(cases[i].name, name)) {
            continue;
        }
        if (cases[i].no_device || pci_find(KT_VENDOR, KT_DEVICE, &dev)) {
            cases[i].fn();
        } else {
            print("not ok no device on bus 0\n");
        }
        power_off();
    }
    print("not ok no case ");
    print(name);
    print("\n");
    power_off();
}
