/*
 * vfio-user test server: a device that is served as SPDK serves its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * BAR0 is 8 KiB: registers of 32 bits, for which there are messages, and a
 * page of doorbells that the client may map. BAR4 has the MSI-X table.
 */

#ifndef TESTS_SERVER_SPDK_H
#define TESTS_SERVER_SPDK_H

#include "server.h"

#define SPDK_VENDOR         0x1234
#define SPDK_DEVICE         0x7370
#define SPDK_NR_VECTORS     16
#define SPDK_SIZE           0x2000

#define SPDK_STATUS         0x00    /* write: forget faults and rings */
#define SPDK_READY          1
#define SPDK_FAILED         2       /* there was a fault; stays */
#define SPDK_NO_EVENTFD     0x04    /* faults: the vector had none */
#define SPDK_NO_WINDOW      0x08    /* faults: nothing known at the address */
#define SPDK_RINGS          0x0c    /* doorbells that were seen */

/* One doorbell for each vector: rung by any value that it did not have. */
#define SPDK_BELL(vector)   (0x1000 + 16 * (vector))
/* 64 bits. If not 0 a word of memory there is incremented first. */
#define SPDK_BELL_ADDR      8

/* Before ts_start: describes the whole device. */
void ts_add_spdk(TestServer *s);

#endif /* TESTS_SERVER_SPDK_H */
