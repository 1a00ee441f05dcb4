/*
 * KVM test guest: lines on the serial port, and the ways to end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define SERIAL_DATA         0x3f8
#define PM1A_CONTROL        0x604   /* see pci_place_power_control() */
#define PM1_SLEEP_ENABLE    0x2000
#define RESET_CONTROL       0xcf9
#define RESET_HARD          0x06

/* More than any host needs, in cycles; reached by failures only. */
#define DEADLINE            (20ull << 30)

static uint64_t cycles(void)
{
    uint64_t value;

    asm volatile("rdtsc" : "=A"(value));
    return value;
}

void print(const char *text)
{
    while (*text) {
        out8(SERIAL_DATA, *text++);
    }
}

void print_number(uint32_t value)
{
    print("0x");
    for (int shift = 28; shift >= 0; shift -= 4) {
        out8(SERIAL_DATA, "0123456789abcdef"[(value >> shift) & 15]);
    }
}

void check(const char *name, uint32_t got, uint32_t wanted)
{
    print(got == wanted ? "ok " : "not ok ");
    print(name);
    if (got != wanted) {
        print(": ");
        print_number(got);
        print(", not ");
        print_number(wanted);
    }
    print("\n");
}

bool poll_until(bool (*done)(const void *opaque), const void *opaque)
{
    uint64_t end = cycles() + DEADLINE;

    while (!done(opaque)) {
        if (cycles() > end) {
            return false;
        }
        asm volatile("pause");
    }
    return true;
}

typedef struct Word {
    volatile uint32_t *value;
    uint32_t wanted;
} Word;

static bool word_is(const void *opaque)
{
    const Word *word = opaque;

    return *word->value == word->wanted;
}

bool wait_until(volatile uint32_t *value, uint32_t wanted)
{
    Word word = { value, wanted };

    return poll_until(word_is, &word);
}

void check_wait(const char *name, volatile uint32_t *value, uint32_t wanted)
{
    wait_until(value, wanted);
    check(name, *value, wanted);
}

void power_off(void)
{
    print("end\n");
    out16(PM1A_CONTROL, PM1_SLEEP_ENABLE);
    for (;;) {
        asm volatile("hlt");
    }
}

void reboot(void)
{
    print("reboot\n");
    out8(RESET_CONTROL, RESET_HARD);
    for (;;) {
        asm volatile("hlt");
    }
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}
