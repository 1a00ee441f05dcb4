/*
 * vfio-user benchmark: samples, and getting to the point of measuring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Results are lines "NAME UNIT VALUE" on stdout; run.py puts them together.
 * A benchmark whose server misbehaves ends with a message.
 */

#ifndef TESTS_BENCH_MEASURE_H
#define TESTS_BENCH_MEASURE_H

#include <stdint.h>
#include "device.h"

/* How much of each kind */
#define BENCH_WARM_UP       500
#define BENCH_READS         2000
#define BENCH_BURSTS        200
#define BENCH_IRQS          1000
#define BENCH_WINDOWS       10000
#define BENCH_WINDOW_SIZE   4096
#define BENCH_WINDOW_BASE   (1ull << 40)

typedef struct BenchDma {
    uint32_t len, count;
    const char *name;
} BenchDma;

#define BENCH_NR_DMA        3
extern const BenchDma bench_dma[BENCH_NR_DMA];

void bench_die(const char *what) __attribute__((noreturn));

/* Nanoseconds of the monotonic clock. */
uint64_t bench_now(void);

void bench_print(const char *name, const char *unit, double value);
/* "NAME-p50" and "NAME-p99" of @nr times, each of @per accesses; sorts. */
void bench_samples(const char *name, uint64_t *ns, unsigned nr, unsigned per);

int bench_connect(const char *path);
/* VERSION; returns the twin socket's fd. On a blocking socket. */
int bench_negotiate(int fd);

#endif /* TESTS_BENCH_MEASURE_H */
