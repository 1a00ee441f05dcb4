/*
 * vfio-user benchmark: the registers of the device that is measured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shared by server, clients and guest program. No region can be mapped, so
 * that memory writes are posted, but for those of the device with doorbells.
 */

#ifndef TESTS_BENCH_DEVICE_H
#define TESTS_BENCH_DEVICE_H

#define BENCH_VENDOR        0x1234
#define BENCH_DEVICE        0xbe4c
/* Another one, whose BAR 0 has doorbells: writes that are signals */
#define BENCH_BELLS_DEVICE  0xbe4d

/* BAR 0: memory that does nothing */
#define BENCH_BAR_SIZE      0x1000

#define BENCH_BELL          0x100   /* 4 bytes */
#define BENCH_BELL_SHADOW   0x104   /* 4 bytes, whose value is stored */

/* BAR 1: 32-bit registers */
#define BENCH_IRQ           0x00    /* a write raises MSI vector 0 */
#define BENCH_DMA_ADDR      0x04
#define BENCH_DMA_LEN       0x08    /* bytes in one message */
#define BENCH_DMA_COUNT     0x0c    /* messages */
#define BENCH_DMA_GO        0x10    /* a write starts it: */
#define BENCH_DMA_READ      1
#define BENCH_DMA_WRITE     2
#define BENCH_DMA_NS        0x14    /* time that it took; 0: it failed */
#define BENCH_NR_REGS       6

#define BENCH_DMA_MAX       (1024 * 1024)
#define BENCH_POST_BURST    32
#define BENCH_NR_PARALLEL   4
#define BENCH_FAR_US        1000    /* what a message takes to a far server */

#endif /* TESTS_BENCH_DEVICE_H */
