/*
 * vfio-user test server: the disk, a device that outlives its server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Needs no header but stdint.h, for guest programs. The device is
 * 0x1234:0x567a: BAR0 has the registers below, BAR2 (only with a mapped
 * doorbell) one page that the client maps, BAR4 an MSI-X table with one
 * vector.
 *
 * The driver puts requests into a ring in guest memory and tells the doorbell
 * how many there are. The disk takes some of them at once, finishes those in
 * any order, and writes an entry to a second ring for each. Both indices run
 * freely, entry i of a ring lies at i modulo DISK_ENTRIES. An entry of the
 * completion ring counts as soon as its sequence number is right: that of
 * entry i is i + 1. So the driver clears that ring before it enables the disk,
 * and never has more requests open than the ring has entries.
 *
 * A server that keeps its state (ts_keep_state()) may be killed at any moment.
 * The next one goes on with what was taken and not completed. Such a request
 * may be executed twice, but it is completed once, and never touches its
 * buffer after that. An interrupt may get lost in between, and so may the
 * doorbell's last value: ringing it again does no harm.
 */

#ifndef TESTS_SERVER_DISK_H
#define TESTS_SERVER_DISK_H

#include <stdint.h>

#define DISK_VENDOR         0x1234
#define DISK_DEVICE         0x567a
#define DISK_BLOCK          4096u
#define DISK_MAX_BLOCKS     65536u
#define DISK_MAX_ENTRIES    256u

/* Registers, little-endian, 4 aligned bytes; 64 bit ones as two halves, too. */
#define DISK_ID             0x00    /* ro, DISK_MAGIC */
#define DISK_CONTROL        0x04    /* rw; clearing ENABLE forgets requests */
#define DISK_STATUS         0x08    /* ro, bits below */
#define DISK_BLOCKS         0x0c    /* ro */
/* Written while ENABLE is clear. */
#define DISK_REQUESTS       0x10    /* rw, 64 bits, guest address */
#define DISK_COMPLETIONS    0x18    /* rw, 64 bits, guest address */
#define DISK_ENTRIES        0x20    /* rw, a power of two, of both rings */
#define DISK_DOORBELL       0x24    /* rw, requests in the ring so far */
#define DISK_TAKEN          0x28    /* ro, requests taken so far */
#define DISK_USED           0x2c    /* ro, completions so far */
#define DISK_STARTS         0x30    /* ro, servers that had this state */
#define DISK_RAISED         0x34    /* ro, interrupts */
#define DISK_LOST           0x38    /* ro, of them without eventfd */
#define DISK_RESUMED        0x3c    /* ro, requests found open at a start */
#define DISK_SCRATCH        0x40    /* rw */

/* At the beginning of BAR2, in place of the register. */
#define DISK_MAPPED_DOORBELL 0x00

#define DISK_MAGIC          0x314b5344u     /* "DSK1" */
#define DISK_CONTROL_ENABLE (1u << 0)
#define DISK_STATUS_WAIT_MEM    (1u << 0)   /* no window for what it needs */
#define DISK_STATUS_NO_MASTER   (1u << 1)   /* bus mastering is off */

enum { DISK_READ = 1, DISK_WRITE = 2 };

typedef struct DiskRequest {
    uint32_t op;
    uint32_t tag;           /* comes back */
    uint64_t block;
    uint64_t addr;          /* DISK_BLOCK bytes of guest memory */
    uint64_t reserved;
} DiskRequest;

typedef struct DiskCompletion {
    uint32_t tag;
    uint32_t status;        /* 0 or an errno */
    uint32_t request;       /* its index */
    uint32_t seq;           /* written last */
} DiskCompletion;

#endif /* TESTS_SERVER_DISK_H */
