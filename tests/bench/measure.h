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
#define BENCH_PAGES         10000
#define BENCH_PAGE          4096

/**
 * BenchClient: how one of the clients reaches the device
 * @read, @post: access @region, and wait for the reply or not
 * @serve: answer @nr of the device's DMA commands; NULL: others do
 */
typedef struct BenchClient {
    uint64_t (*read)(void *c, uint32_t region, uint64_t offset,
                     uint32_t count);
    void (*post)(void *c, uint32_t region, uint64_t offset, uint32_t data);
    void (*serve)(void *c, unsigned nr);
} BenchClient;

void bench_die(const char *what) __attribute__((noreturn));

/* Nanoseconds of the monotonic clock. */
uint64_t bench_now(void);

void bench_print(const char *name, const char *unit, double value);
/* "NAME-p50" and "NAME-p99" of @nr times, each of @per accesses; sorts. */
void bench_samples(const char *name, uint64_t *ns, unsigned nr, unsigned per);

/* The figures that every client measures in the same way; @c is @client's. */
void bench_reads(const BenchClient *client, void *c, uint32_t region,
                 uint32_t count, const char *name);
void bench_posts(const BenchClient *client, void *c);
void bench_dmas(const BenchClient *client, void *c);

int bench_connect(const char *path);
/* VERSION; returns the twin socket's fd. On a blocking socket. */
int bench_negotiate(int fd);

#endif /* TESTS_BENCH_MEASURE_H */
