/*
 * Nasty test guest: vCPUs that do what the test outside tells them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A test of who waits for whom needs a few accesses of several vCPUs in a
 * certain order, and another one needs others. So the guest knows no test: it
 * is an interpreter. CPU 0 takes lines from the serial port and answers each
 * with one line:
 *
 *   s                  sample TURNS, then for each other CPU
 *                      STATE TURNS GOOD ONES WRONG LAST
 *   x OP...            does that itself, then: done LAST GOOD ONES WRONG
 *   p CPU TIMES OP...  that CPU does it so many times (0: without end), then
 *                      is idle; ok, or busy if it has not ended what it does
 *   h CPU              it stops after the turn that it is in; ok
 *   c CPU              forget what it has counted; ok
 *
 * An OP is a word, its numbers are hexadecimal and separated by colons; N is 1,
 * 2 or 4 bytes:
 *
 *   rN:ADDR            LAST = read of memory
 *   wN:ADDR:VALUE      write of memory
 *   iN:PORT  oN:PORT:VALUE
 *   e:VALUE            count LAST: GOOD if it is that, ONES if it has all the
 *                      bits of the access that read it, else WRONG
 *   n:ADDR:VALUE       write VALUE + the number of the turn, 4 bytes
 *   y:ADDR             likewise, the number of the turn alone, 1 byte
 *   u:ADDR:VALUE:MOST  look at the word in memory until it is VALUE, at most
 *                      MOST times (0: for ever); else count WRONG
 *   t:ADDR             wait until the word there is the number of the turn
 *   T:ADDR             write it there, 4 bytes
 *   d:MASK             do nothing for a random number of loops, at most MASK
 *   m:VECTOR           remember how often that interrupt has come
 *   q:VECTOR:MOST      wait for one more, looking at most MOST times; count
 *                      GOOD or WRONG
 *   v:PORT:MASK:MOST   look at the port, a byte, until one of these bits is set,
 *                      at most MOST times; else count WRONG
 *   x:ADDR             locked addition to two words across a page: TCG does it
 *                      while all other CPUs stand still
 *
 * TURNS of CPU 0 are of its loop, those of the others of their program. Which
 * turn it is begins with 1 in each program. Random numbers depend on the CPU
 * and on what it has drawn before, and on nothing else.
 *
 * Entry, CPUs and printing are those of ../kvm-guest. The number of CPUs is
 * the whole command line.
 */

#include "guest.h"

#define SERIAL_DATA         0x3f8
#define SERIAL_STATUS       0x3fd
#define SERIAL_HAS_DATA     1
#define MAX_OPS             96
#define MAX_LINE            4096

enum { IDLE, BUSY, STOPPING };

/* What PVH boot leaves in memory */
typedef struct StartInfo {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules;
    uint64_t command_line;
} StartInfo;

typedef struct Op {
    char code;
    uint8_t width;
    uint32_t arg[3];
} Op;

typedef struct CPU {
    Op ops[MAX_OPS];
    unsigned nr_ops;
    uint32_t times;             /* 0: without end */
    volatile uint32_t state;
    volatile uint32_t turns, good, ones, wrong, last;
    uint32_t all_ones;          /* of the last read */
    uint32_t before;            /* interrupts, as "m" has seen */
    uint32_t turn;              /* of this program */
    uint32_t random;
} CPU;

void guest_main(const StartInfo *info);

static CPU cpus[MAX_CPUS];
static uint32_t nr_cpus;
static char line[MAX_LINE];

/* --- Doing it --- */

static uint32_t cpu_random(CPU *cpu)
{
    cpu->random ^= cpu->random << 13;
    cpu->random ^= cpu->random >> 17;
    cpu->random ^= cpu->random << 5;
    return cpu->random;
}

static void cpu_read(CPU *cpu, const Op *op)
{
    bool port = op->code == 'i';

    switch (op->width) {
    case 1:
        cpu->all_ones = 0xff;
        cpu->last = port ? in8(op->arg[0]) : read8(op->arg[0]);
        break;
    case 2:
        cpu->all_ones = 0xffff;
        cpu->last = port ? in16(op->arg[0]) : read16(op->arg[0]);
        break;
    default:
        cpu->all_ones = 0xffffffff;
        cpu->last = port ? in32(op->arg[0]) : read32(op->arg[0]);
        break;
    }
}

static void cpu_write(const Op *op)
{
    bool port = op->code == 'o';
    uint32_t at = op->arg[0], value = op->arg[1];

    switch (op->width) {
    case 1:
        port ? out8(at, value) : write8(at, value);
        break;
    case 2:
        port ? out16(at, value) : write16(at, value);
        break;
    default:
        port ? out32(at, value) : write32(at, value);
        break;
    }
}

static void cpu_expect(CPU *cpu, uint32_t wanted)
{
    if (cpu->last == wanted) {
        cpu->good++;
    } else if (cpu->last == cpu->all_ones) {
        cpu->ones++;
    } else {
        cpu->wrong++;
    }
}

/* @most: how often; 0: until it is there, or a counter is past it. */
static bool cpu_look(const volatile uint32_t *at, uint32_t value, uint32_t most)
{
    for (uint32_t i = 0; !most || i < most; i++) {
        if (*at == value || (!most && (int32_t)(*at - value) > 0)) {
            return true;
        }
        asm volatile("pause");
    }
    return false;
}

static bool cpu_look_port(uint16_t port, uint8_t mask, uint32_t most)
{
    for (uint32_t i = 0; i < most; i++) {
        if (in8(port) & mask) {
            return true;
        }
    }
    return false;
}

static bool cpu_wait_interrupt(const CPU *cpu, uint32_t vector, uint32_t most)
{
    for (uint32_t i = 0; i < most; i++) {
        if (interrupts[vector] != cpu->before) {
            return true;
        }
        asm volatile("pause");
    }
    return false;
}

static void cpu_do(CPU *cpu, const Op *op)
{
    volatile uint32_t *at = (volatile uint32_t *)op->arg[0];

    switch (op->code) {
    case 'r':
    case 'i':
        cpu_read(cpu, op);
        break;
    case 'w':
    case 'o':
        cpu_write(op);
        break;
    case 'e':
        cpu_expect(cpu, op->arg[0]);
        break;
    case 'n':
        write32(op->arg[0], op->arg[1] + cpu->turn);
        break;
    case 'y':
        write8(op->arg[0], cpu->turn);
        break;
    case 'u':
        cpu->wrong += !cpu_look(at, op->arg[1], op->arg[2]);
        break;
    case 't':
        cpu_look(at, cpu->turn, 0);
        break;
    case 'T':
        write32(op->arg[0], cpu->turn);
        break;
    case 'd':
        for (uint32_t left = cpu_random(cpu) & op->arg[0]; left; left--) {
            asm volatile("");
        }
        break;
    case 'm':
        cpu->before = interrupts[op->arg[0]];
        break;
    case 'q':
        if (cpu_wait_interrupt(cpu, op->arg[0], op->arg[1])) {
            cpu->good++;
        } else {
            cpu->wrong++;
        }
        break;
    case 'v':
        cpu->wrong += !cpu_look_port(op->arg[0], op->arg[1], op->arg[2]);
        break;
    case 'x':
        asm volatile("lock addl $1, (%0)" : : "r"(at) : "memory");
        break;
    }
}

static void cpu_turn(CPU *cpu)
{
    cpu->turn++;
    for (unsigned i = 0; i < cpu->nr_ops; i++) {
        cpu_do(cpu, &cpu->ops[i]);
    }
    cpu->turns++;
    /* Like an interrupt: TCG's CPU leaves its loop, and RCU may go on. */
    asm volatile("pause");
}

static void worker(uint32_t number)
{
    CPU *cpu = &cpus[number];

    for (;;) {
        while (cpu->state != BUSY) {
            cpu->state = IDLE;
            while (cpu->state == IDLE) {
                asm volatile("pause");
            }
        }
        cpu_turn(cpu);
        if (cpu->times && cpu->turn == cpu->times) {
            cpu->state = STOPPING;
        }
    }
}

/* --- Being told --- */

static uint32_t parse_number(const char **at)
{
    uint32_t value = 0;

    for (;; (*at)++) {
        char c = **at;

        if (c >= '0' && c <= '9') {
            value = value << 4 | (c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value << 4 | (c - 'a' + 10);
        } else {
            return value;
        }
    }
}

static void parse_ops(CPU *cpu, const char *at)
{
    cpu->nr_ops = 0;
    while (*at && cpu->nr_ops < MAX_OPS) {
        Op *op = &cpu->ops[cpu->nr_ops++];

        op->code = *at++;
        op->width = parse_number(&at);
        for (unsigned i = 0; i < 3; i++) {
            op->arg[i] = 0;
            if (*at == ':') {
                at++;
                op->arg[i] = parse_number(&at);
            }
        }
        while (*at == ' ') {
            at++;
        }
    }
}

static const char *parse_skip(const char *at)
{
    while (*at == ' ') {
        at++;
    }
    return at;
}

static void print_numbers(const uint32_t *numbers, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        print(" ");
        print_number(numbers[i]);
    }
}

static void tell_sample(uint32_t turns)
{
    print("sample");
    print_numbers(&turns, 1);
    for (unsigned i = 1; i < nr_cpus; i++) {
        const CPU *cpu = &cpus[i];

        print_numbers((uint32_t[]) { cpu->state, cpu->turns, cpu->good,
                                     cpu->ones, cpu->wrong, cpu->last }, 6);
    }
    print("\n");
}

static void do_here(const char *at)
{
    CPU *cpu = &cpus[0];

    cpu->good = cpu->ones = cpu->wrong = cpu->turn = 0;
    parse_ops(cpu, at);
    cpu_turn(cpu);
    print("done");
    print_numbers((uint32_t[]) { cpu->last, cpu->good, cpu->ones,
                                 cpu->wrong }, 4);
    print("\n");
}

static void do_program(CPU *cpu, const char *at)
{
    if (cpu->state != IDLE) {
        print("busy\n");
        return;
    }
    cpu->times = parse_number(&at);
    cpu->turn = 0;
    parse_ops(cpu, parse_skip(at));
    asm volatile("" : : : "memory");
    cpu->state = BUSY;
    print("ok\n");
}

static void obey(uint32_t turns)
{
    const char *at = line + 1;
    CPU *cpu;

    at = parse_skip(at);
    if (line[0] == 's') {
        tell_sample(turns);
        return;
    } else if (line[0] == 'x') {
        do_here(at);
        return;
    }
    cpu = &cpus[parse_number(&at) % MAX_CPUS];
    at = parse_skip(at);
    if (line[0] == 'p') {
        do_program(cpu, at);
    } else if (line[0] == 'h') {
        __sync_bool_compare_and_swap(&cpu->state, BUSY, STOPPING);
        print("ok\n");
    } else {
        cpu->turns = cpu->good = cpu->ones = cpu->wrong = 0;
        print("ok\n");
    }
}

void guest_main(const StartInfo *info)
{
    const char *arg = (const char *)(uint32_t)info->command_line;
    unsigned len = 0;

    platform_init();
    nr_cpus = parse_number(&arg);
    for (unsigned i = 0; i < nr_cpus; i++) {
        cpus[i].random = 0x9e3779b9 * (i + 1);
    }
    if (nr_cpus > 1) {
        cpus_start(worker, nr_cpus - 1);
    }
    print("ready\n");
    for (uint32_t turns = 1;; turns++) {
        char c;

        if (!(in8(SERIAL_STATUS) & SERIAL_HAS_DATA)) {
            asm volatile("pause");
            continue;
        }
        c = in8(SERIAL_DATA);
        if (c == '\n') {
            line[len] = 0;
            len = 0;
            obey(turns);
        } else if (len < MAX_LINE - 1) {
            line[len++] = c;
        }
    }
}
