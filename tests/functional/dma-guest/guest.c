/*
 * DMA test guest: code that a device overwrites
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A function of two instructions, "mov $VALUE, %eax; ret", lies alone in its
 * pages. It is called many times, so that the emulator has translated it and
 * found it by every short cut, and then the device stores another VALUE by
 * DMA. The CPU never writes to those pages after the first time: it would
 * make the emulator forget its translation by itself.
 *
 * For each store there is a line
 *
 *   NAME SAME BESIDE AFTER
 *
 * SAME is how many of the calls before agree, BESIDE what the function returns
 * after the device has stored to another page, AFTER what it returns then.
 *
 * Entry, PCI and printing are those of ../kvm-guest, the device is
 * ../smp-guest's.
 */

#include "guest.h"
#include "../smp-guest/regs.h"

#define PAGE            4096
#define CALLS           1000
#define ROUNDS          16
#define MOV_EAX         0xb8
#define RET             0xc3
#define CODE_SIZE       6

typedef uint32_t Function(void);

void guest_main(const void *info);

static uint8_t inside[PAGE] __attribute__((aligned(PAGE)));
static uint8_t crossing[2 * PAGE] __attribute__((aligned(PAGE)));
static uint8_t beside[PAGE] __attribute__((aligned(PAGE)));

static void put_function(uint8_t *at)
{
    static const uint8_t code[CODE_SIZE] = { MOV_EAX, 0, 0, 0, 0, RET };

    for (unsigned i = 0; i < CODE_SIZE; i++) {
        at[i] = code[i];
    }
}

static uint32_t call(uint8_t *at)
{
    Function *volatile function = (Function *)at;

    return function();
}

static void store(const PCIDevice *dev, uint8_t *at, uint32_t len,
                  uint32_t seed)
{
    write32(dev->bar[0] + SG_DMA_ADDR, (uint32_t)at);
    write32(dev->bar[0] + SG_DMA_LEN, len);
    write32(dev->bar[0] + SG_DMA_FILL, seed);
    /* Also waits for the store, which may have been posted. */
    if (read32(dev->bar[0] + SG_DMA_ERROR)) {
        print("DMA failed\n");
        power_off();
    }
}

/* Stores the last @len bytes of the value of the function at @at. */
static void change(const PCIDevice *dev, const char *name, uint8_t *at,
                   uint32_t len, uint32_t seed)
{
    uint32_t first = call(at), same = 0;

    for (unsigned i = 0; i < CALLS; i++) {
        same += call(at) == first;
    }
    print(name);
    print(" ");
    print_number(same);
    store(dev, beside, len, seed);
    print(" ");
    print_number(call(at));
    store(dev, at + CODE_SIZE - 1 - len, len, seed);
    print(" ");
    print_number(call(at));
    print("\n");
}

void guest_main(const void *info)
{
    uint8_t *at_end = crossing + PAGE - CODE_SIZE / 2;
    PCIDevice dev;

    (void)info;
    platform_init();
    pci_place_power_control();
    if (!pci_find(SG_VENDOR, SG_DEVICE_A, &dev)) {
        print("no device\n");
        power_off();
    }
    put_function(inside);
    put_function(at_end);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        change(&dev, "inside", inside, 4, round);
        /* Two bytes, both in the second page */
        change(&dev, "crossing", at_end, 2, round);
    }
    power_off();
}
