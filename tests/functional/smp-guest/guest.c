/*
 * SMP test guest: who waits for a stopped device, and who does not
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * CPUs 1 and 3 read device A, CPU 2 reads device B, for ever; CPU 0 answers
 * each byte that comes on the serial port with a line. For "s" it is:
 *
 *   sample TURNS GOOD1 ONES1 WRONG1 GOOD2 ONES2 WRONG2 GOOD3 ONES3 WRONG3
 *
 * and for "c", which is for q35, "ok config": from now on they read the IDs
 * of the devices in config space and nothing else.
 *
 * TURNS are of CPU 0's own loop, GOOD are reads with the value that belongs to
 * that register, ONES read all-ones, which is what a failed access gives, and
 * everything else is WRONG. No two registers have the same value, so an answer
 * that reaches another request than its own is seen. Every second read is of
 * a register that the server fetches from guest memory.
 *
 * Entry, CPUs, PCI and printing are those of ../kvm-guest.
 */

#include "guest.h"
#include "regs.h"

#define NR_CPUS         4
#define PCI_BAR0        0x10
#define BAR_A           0xe2000000u     /* where pci_find() places nothing */
#define SERIAL_DATA     0x3f8
#define SERIAL_STATUS   0x3fd
#define SERIAL_HAS_DATA 1
#define ALL_ONES        0xffffffffu

/* The host bridge of q35 and where it shall put config space, on all buses */
#define HOST_BRIDGE     0x80000000u
#define PCIEXBAR        0x60
#define PCIEXBAR_ON     1
#define ECAM            0xb0000000u

typedef struct Count {
    volatile uint32_t good, ones, wrong;
} Count;

void guest_main(const void *info);

static uint32_t table[NR_CPUS][SG_CPU_WORDS]
    __attribute__((aligned(4096)));
static uint32_t bar[NR_CPUS];
static uint32_t config[NR_CPUS];
static volatile bool config_only;
static Count counts[NR_CPUS];

static uint32_t plain_value(uint32_t cpu, uint32_t word)
{
    return 0x5a000000 | cpu << 16 | word << 8 | word;
}

static uint32_t fetched_value(uint32_t cpu, uint32_t word)
{
    return 0x35000000 | cpu << 16 | word << 8 | word;
}

static void count(Count *c, uint32_t got, uint32_t wanted)
{
    if (got == wanted) {
        c->good++;
    } else if (got == ALL_ONES) {
        c->ones++;
    } else {
        c->wrong++;
    }
}

static uint32_t config_value(uint32_t cpu)
{
    return (bar[cpu] == BAR_A ? SG_DEVICE_A : SG_DEVICE_B) << 16 | SG_VENDOR;
}

static void reader(uint32_t cpu)
{
    uint32_t base = bar[cpu] + cpu * SG_CPU_SIZE;

    for (uint32_t i = 0;; i = (i + 1) % SG_CPU_WORDS) {
        if (config_only) {
            count(&counts[cpu], read32(config[cpu]), config_value(cpu));
            continue;
        }
        count(&counts[cpu], read32(base + SG_PLAIN + 4 * i),
              plain_value(cpu, i));
        count(&counts[cpu], read32(base + SG_FETCHED + 4 * i),
              fetched_value(cpu, i));
    }
}

static void fill(uint32_t cpu)
{
    uint32_t at = bar[cpu] + SG_PLAIN + cpu * SG_CPU_SIZE;

    for (uint32_t i = 0; i < SG_CPU_WORDS; i++) {
        table[cpu][i] = fetched_value(cpu, i);
        write32(at + 4 * i, plain_value(cpu, i));
    }
    write32(bar[cpu] + SG_DMA_ADDR, (uint32_t)table);
}

/* Bus, slot and function of config mechanism 1 are there, four bits lower. */
static uint32_t config_address(const PCIDevice *dev)
{
    return ECAM + ((dev->address & 0xffff00) << 4);
}

/* Mechanism 1 has one address register, for which all CPUs would queue. */
static void read_config_only(void)
{
    PCIDevice host = { .address = HOST_BRIDGE };

    pci_write32(&host, PCIEXBAR + 4, 0);
    pci_write32(&host, PCIEXBAR, ECAM | PCIEXBAR_ON);
    config_only = true;
    print("ok config\n");
}

static bool place_devices(void)
{
    PCIDevice a, b;

    if (!pci_find(SG_VENDOR, SG_DEVICE_A, &a)) {
        return false;
    }
    pci_write32(&a, PCI_BAR0, BAR_A);
    bar[1] = bar[3] = BAR_A;
    config[1] = config[3] = config_address(&a);
    if (!pci_find(SG_VENDOR, SG_DEVICE_B, &b)) {
        return false;
    }
    bar[2] = b.bar[0];
    config[2] = config_address(&b);
    return true;
}

static void print_sample(uint32_t turns)
{
    print("sample ");
    print_number(turns);
    for (unsigned cpu = 1; cpu < NR_CPUS; cpu++) {
        print(" ");
        print_number(counts[cpu].good);
        print(" ");
        print_number(counts[cpu].ones);
        print(" ");
        print_number(counts[cpu].wrong);
    }
    print("\n");
}

void guest_main(const void *info)
{
    (void)info;
    platform_init();
    if (!place_devices()) {
        print("no devices\n");
        power_off();
    }
    for (uint32_t cpu = 1; cpu < NR_CPUS; cpu++) {
        fill(cpu);
    }
    cpus_start(reader, NR_CPUS - 1);
    for (uint32_t turns = 1;; turns++) {
        if (in8(SERIAL_STATUS) & SERIAL_HAS_DATA) {
            if (in8(SERIAL_DATA) == 'c') {
                read_config_only();
            } else {
                print_sample(turns);
            }
        }
        asm volatile("pause");
    }
}
