/*
 * vfio-user benchmark: the guest program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Accesses devices in loops and prints how many ticks of the time stamp
 * counter it took, on QEMU's debug console, as lines "NAME VALUE". No
 * operating system adds noise. A register of pci-testdev, a device model
 * inside QEMU, tells what an access costs the guest anyway.
 *
 * The command line may say: smp (four processors are there), or loop (nothing
 * but many reads of BAR 0, for looking at QEMU meanwhile).
 */

#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>
#include "../device.h"

#define WARM_UP     500
#define READS       2000
#define BURSTS      200
#define IRQS        500
#define LOOPS       20000

#define TRAMPOLINE  0x8000
#define APIC        0xfee00000u
#define APIC_SVR    0xf0
#define APIC_ICR    0x300
#define IRQ_VECTOR  0x40
#define DMA_BUFFER  0x1000000

typedef struct Device {
    uint8_t devfn;
    volatile void *bar[6];      /* also for ports */
} Device;

typedef struct Gate {
    uint16_t low, selector, type, high;
} Gate;

extern const char trampoline[], trampoline_end[];
extern void irq_entry(void);
extern volatile uint32_t ap_count;
void main(const uint32_t *info);
void ap_main(unsigned cpu);

Gate idt[256];
volatile uint32_t irq_time, irq_count;
static uint32_t samples[READS];
static volatile uint32_t nr_ready, nr_done, go;
static Device *volatile job[BENCH_NR_PARALLEL];

/* The machine ------------------------------------------------------------- */

static void outb(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static void outl(uint16_t port, uint32_t v)
{
    asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t v;

    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static uint32_t inl(uint16_t port)
{
    uint32_t v;

    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static uint32_t ticks(void)
{
    uint32_t low;

    asm volatile("rdtsc" : "=a"(low) : : "edx", "memory");
    return low;
}

static void apic_write(uint32_t reg, uint32_t v)
{
    *(volatile uint32_t *)(APIC + reg) = v;
}

/* The compiler may turn loops into calls of it. */
void *memcpy(void *to, const void *from, size_t len);
void *memcpy(void *to, const void *from, size_t len)
{
    asm volatile("rep movsb" : : "D"(to), "S"(from), "c"(len) : "memory");
    return to;
}

/* Output ------------------------------------------------------------------ */

static void put(const char *s)
{
    while (*s) {
        outb(0xe9, *s++);
    }
}

static void put_number(uint32_t v)
{
    char text[11];
    int i = sizeof(text) - 1;

    text[i] = 0;
    do {
        text[--i] = '0' + v % 10;
        v /= 10;
    } while (v);
    put(text + i);
}

static void report(const char *name, const char *suffix, uint32_t v)
{
    put(name);
    put(suffix);
    put(" ");
    put_number(v);
    put("\n");
}

static void report_samples(const char *name, uint32_t nr)
{
    for (uint32_t gap = nr / 2; gap; gap /= 2) {
        for (uint32_t i = gap; i < nr; i++) {
            uint32_t v = samples[i], j = i;

            for (; j >= gap && samples[j - gap] > v; j -= gap) {
                samples[j] = samples[j - gap];
            }
            samples[j] = v;
        }
    }
    report(name, "-p50", samples[nr / 2]);
    report(name, "-p99", samples[nr * 99 / 100]);
}

/* PCI --------------------------------------------------------------------- */

static uint32_t pci_read(uint8_t devfn, uint8_t reg)
{
    outl(0xcf8, 0x80000000u | devfn << 8 | (reg & ~3));
    return inl(0xcfc);
}

static void pci_write(uint8_t devfn, uint8_t reg, uint32_t v)
{
    outl(0xcf8, 0x80000000u | devfn << 8 | reg);
    outl(0xcfc, v);
}

/* Fills in the @nth device of this kind. */
static bool find(Device *d, uint16_t vendor, uint16_t device, unsigned nth)
{
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        if (pci_read(devfn, 0) != (vendor | (uint32_t)device << 16) ||
            nth--) {
            continue;
        }
        d->devfn = devfn;
        for (unsigned i = 0; i < 6; i++) {
            uint32_t bar = pci_read(devfn, 0x10 + 4 * i);

            d->bar[i] = (void *)(bar & (bar & 1 ? ~3u : ~15u));
        }
        pci_write(devfn, 4, (pci_read(devfn, 4) & 0xffff) | 7);
        return true;
    }
    return false;
}

static void enable_msi(Device *d)
{
    uint8_t cap = pci_read(d->devfn, 0x34);
    uint32_t head;

    while (cap && ((head = pci_read(d->devfn, cap)) & 0xff) != 5) {
        cap = head >> 8;
    }
    if (!cap) {
        return;
    }
    pci_write(d->devfn, cap + 4, APIC);
    if (head & 1u << 23) {
        pci_write(d->devfn, cap + 8, 0);
        pci_write(d->devfn, cap + 12, IRQ_VECTOR);
    } else {
        pci_write(d->devfn, cap + 8, IRQ_VECTOR);
    }
    pci_write(d->devfn, cap, head | 1u << 16);
}

/* Figures ----------------------------------------------------------------- */

static void access_1(volatile void *p)
{
    (void)*(volatile uint8_t *)p;
}

static void access_4(volatile void *p)
{
    (void)*(volatile uint32_t *)p;
}

static void access_8(volatile void *p)
{
    asm volatile("movq (%0), %%mm0" : : "r"(p) : "memory");
}

static void access_port(volatile void *p)
{
    inb((uintptr_t)p);
}

static void bench_reads(const char *name, volatile void *p,
                        void (*access)(volatile void *p))
{
    for (int i = -WARM_UP; i < READS; i++) {
        uint32_t start = ticks();

        access(p);
        if (i >= 0) {
            samples[i] = ticks() - start;
        }
    }
    report_samples(name, READS);
}

static void bench_writes(const char *name, volatile uint8_t *p)
{
    for (int i = -BURSTS / 4; i < BURSTS; i++) {
        uint32_t start = ticks();

        for (unsigned j = 0; j < BENCH_POST_BURST; j++) {
            *p = j;
        }
        if (i >= 0) {
            samples[i] = (ticks() - start) / BENCH_POST_BURST;
        }
        (void)*p;
    }
    report_samples(name, BURSTS);
}

/* The whole of what a doorbell costs the guest, in one of several ways. */
static void bench_bell(const char *name, volatile uint8_t *bar, uint32_t off)
{
    volatile uint32_t *p = (volatile uint32_t *)(bar + off);

    for (int i = -BURSTS / 4; i < BURSTS; i++) {
        uint32_t start = ticks();

        for (unsigned j = 0; j < BENCH_POST_BURST; j++) {
            *p = j;
        }
        if (i >= 0) {
            samples[i] = (ticks() - start) / BENCH_POST_BURST;
        }
        (void)*bar;
    }
    report_samples(name, BURSTS);
}

static void bench_irqs(Device *d)
{
    volatile uint32_t *reg = d->bar[1];
    uint32_t entry = (uintptr_t)irq_entry;

    idt[IRQ_VECTOR] = (Gate) { entry, 8, 0x8e00, entry >> 16 };
    apic_write(APIC_SVR, 0x1ff);
    enable_msi(d);
    for (int i = -WARM_UP / 2; i < IRQS; i++) {
        uint32_t seen = irq_count, start = ticks();

        reg[BENCH_IRQ / 4] = 1;
        while (irq_count == seen) {
            asm volatile("sti\n\thlt\n\tcli" : : : "memory");
        }
        if (i >= 0) {
            samples[i] = irq_time - start;
        }
    }
    report_samples("irq", IRQS);
}

/* Megabytes per second, as the server sees it */
static void bench_dma(Device *d, const char *name, uint32_t len,
                      uint32_t count, uint32_t how)
{
    volatile uint32_t *reg = d->bar[1];
    uint32_t ns = 0;

    reg[BENCH_DMA_ADDR / 4] = DMA_BUFFER;
    reg[BENCH_DMA_LEN / 4] = len;
    reg[BENCH_DMA_COUNT / 4] = count;
    for (unsigned i = 0; i < 2; i++) {
        reg[BENCH_DMA_GO / 4] = how;
        ns = reg[BENCH_DMA_NS / 4];
    }
    report(name, "", ns < 1000 ? 0 : len * count / (ns / 1000));
}

static void read_many(Device *d)
{
    for (unsigned i = 0; i < READS; i++) {
        access_4(d->bar[0]);
    }
}

void ap_main(unsigned cpu)
{
    __atomic_fetch_add(&nr_ready, 1, __ATOMIC_SEQ_CST);
    while (!go) {
        asm volatile("pause");
    }
    read_many(job[cpu]);
    __atomic_fetch_add(&nr_done, 1, __ATOMIC_SEQ_CST);
}

static void wait_ticks(uint32_t n)
{
    for (uint32_t start = ticks(); ticks() - start < n; ) {
        asm volatile("pause");
    }
}

/* The others sleep, costing nothing, until they are started for this. */
static void bench_parallel(const char *name, Device *devices, unsigned step)
{
    uint32_t start;

    memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        job[i] = &devices[i * step];
    }
    ap_count = nr_ready = nr_done = go = 0;
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_ICR, 0xc4500);
    wait_ticks(20 * 1000 * 1000);
    apic_write(APIC_ICR, 0xc4600 | TRAMPOLINE >> 12);
    while (nr_ready < BENCH_NR_PARALLEL - 1) {
        asm volatile("pause");
    }
    start = ticks();
    go = 1;
    read_many(job[0]);
    while (nr_done < BENCH_NR_PARALLEL - 1) {
        asm volatile("pause");
    }
    report(name, "", (ticks() - start) / (READS * BENCH_NR_PARALLEL));
}

static bool said(const uint32_t *info, const char *word)
{
    const char *s = info[0] & 4 ? (const char *)info[4] : "";

    for (; *s; s++) {
        unsigned i = 0;

        while (word[i] && s[i] == word[i]) {
            i++;
        }
        if (!word[i]) {
            return true;
        }
    }
    return false;
}

static void bench_device(Device *d)
{
    bench_reads("read-1", d->bar[0], access_1);
    bench_reads("read-4", d->bar[0], access_4);
    bench_reads("read-8", d->bar[0], access_8);
    bench_writes("write", d->bar[0]);
    bench_irqs(d);
    bench_dma(d, "dma-read-4k", 4096, 256, BENCH_DMA_READ);
    bench_dma(d, "dma-write-4k", 4096, 256, BENCH_DMA_WRITE);
    bench_dma(d, "dma-read-64k", 65536, 128, BENCH_DMA_READ);
    bench_dma(d, "dma-write-64k", 65536, 128, BENCH_DMA_WRITE);
    bench_dma(d, "dma-read-1m", 1 << 20, 32, BENCH_DMA_READ);
    bench_dma(d, "dma-write-1m", 1 << 20, 32, BENCH_DMA_WRITE);
}

void main(const uint32_t *info)
{
    static Device devices[BENCH_NR_PARALLEL], local, gpio, bells;
    unsigned nr = 0;

    /* The firmware leaves a timer ticking. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    while (nr < BENCH_NR_PARALLEL &&
           find(&devices[nr], BENCH_VENDOR, BENCH_DEVICE, nr)) {
        nr++;
    }
    if (nr && said(info, "loop")) {
        for (unsigned i = 0; i < LOOPS; i++) {
            access_4(devices[0].bar[0]);
        }
        outl(0xf4, 0);
    }
    if (find(&local, 0x1b36, 0x0005, 0)) {
        bench_reads("local-read", local.bar[0] + 1, access_1);
        bench_reads("local-port", local.bar[1] + 1, access_port);
        bench_writes("local-write", local.bar[0] + 1);
    }
    if (find(&gpio, 0x494f, 0x0dc8, 0)) {
        bench_reads("gpio-read-1", gpio.bar[2], access_port);
    }
    if (nr && find(&bells, BENCH_VENDOR, BENCH_BELLS_DEVICE, 0)) {
        bench_bell("bell-message", bells.bar[0], 0);
        bench_bell("bell-posted", devices[0].bar[0], 0);
        bench_bell("bell", bells.bar[0], BENCH_BELL);
        bench_bell("bell-shadow", bells.bar[0], BENCH_BELL_SHADOW);
    }
    if (nr) {
        bench_device(&devices[0]);
    }
    if (nr == BENCH_NR_PARALLEL && said(info, "smp")) {
        bench_parallel("4-vcpus", devices, 0);
        bench_parallel("4-devices", devices, 1);
    }
    put("end\n");
    outl(0xf4, 0);
}
