/*
 * vfio-user test server: a driver of the disk that checks every block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For the server's self test and the qtests alike; how memory and registers
 * are reached is the caller's. Whatever is not as it must be ends the test:
 * a block that does not hold what was written last, a request that is
 * completed twice or with an error, a buffer that changes after its request's
 * completion.
 */

#ifndef TESTS_SERVER_DISK_DRIVER_H
#define TESTS_SERVER_DISK_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <glib.h>
#include "disk.h"

#define DISK_DRIVER_TAGS    32
#define DISK_DRIVER_BLOCKS  128
/* Guest memory that a driver uses. */
#define DISK_DRIVER_MEM     (0x10000 + DISK_DRIVER_TAGS * DISK_BLOCK)

typedef struct DiskDriverOps {
    void (*mem_read)(void *opaque, uint64_t addr, void *buf, size_t len);
    void (*mem_write)(void *opaque, uint64_t addr, const void *buf,
                      size_t len);
    uint32_t (*reg_read)(void *opaque, unsigned offset);
    void (*reg_write)(void *opaque, unsigned offset, uint32_t value);
    void (*ring)(void *opaque, uint32_t value);
} DiskDriverOps;

typedef struct DiskDriver DiskDriver;

/* The device has at least DISK_DRIVER_BLOCKS, all 0, and is bus master. */
DiskDriver *disk_driver_new(const DiskDriverOps *ops, void *opaque,
                            uint64_t mem);
void disk_driver_free(DiskDriver *d);
/* Sets the device up; what was open is submitted anew. */
void disk_driver_start(DiskDriver *d);
/* Submits, at random, as much as there is room for. */
void disk_driver_fill(DiskDriver *d);
/* Tells the doorbell again. */
void disk_driver_ring(DiskDriver *d);
/* Looks for completions, and how many there were. */
unsigned disk_driver_poll(DiskDriver *d);
unsigned disk_driver_nr_open(DiskDriver *d);
uint64_t disk_driver_nr_done(DiskDriver *d);
/* Submits a read of each block in turn; false after the last. */
bool disk_driver_read_on(DiskDriver *d);
/* Checks a disk's content as a whole, when nothing is open. */
void disk_driver_check(DiskDriver *d, const void *content);

#endif /* TESTS_SERVER_DISK_DRIVER_H */
