/*
 * vfio-user test server: state that outlives the process, and the disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SERVER_DISK_SERVER_H
#define TESTS_SERVER_DISK_SERVER_H

#include "disk.h"
#include "server.h"

/*
 * Before ts_start: config space and what is in the regions are kept in @file,
 * which is made if it is not there, and shared with the next server that is
 * told of it: also after SIGKILL. ts_start() fails with ESTALE if the file
 * belongs to a device of another description. Not kept are options, migration
 * and engine, and what ends with the connection.
 */
void ts_keep_state(TestServer *s, const char *file);
/* How many servers have been started with this state; 1 without. */
unsigned ts_nr_starts(TestServer *s);

/* Where the process may kill itself, between two stores. */
typedef enum TsDiskPoint {
    TS_DISK_NOWHERE,
    TS_DISK_BUSY,           /* a slot is busy, TAKEN does not say so */
    TS_DISK_TAKEN,
    TS_DISK_EXECUTED,
    TS_DISK_PUBLISHING,     /* PUBLISHING is set */
    TS_DISK_ENTRY,          /* the entry is there but for its number */
    TS_DISK_PUBLISHED,      /* the entry counts */
    TS_DISK_FREED,          /* the slot is free, USED does not say so */
    TS_DISK_USED,           /* USED is up, PUBLISHING is still set */
    TS_DISK_COMMITTED,      /* no interrupt was raised */
    TS_DISK_POINTS,
} TsDiskPoint;

typedef struct TsDiskOptions {
    const char *file;       /* the content, made if need be; NULL: in memory */
    uint32_t blocks;        /* 256 */
    uint32_t latency_us;    /* 100: between two completions */
    bool mapped_doorbell;
    TsDiskPoint die_at;     /* for the program, not for a test's thread */
    unsigned die_after;     /* coming there so many times */
} TsDiskOptions;

/* Before ts_start: describes the whole device (disk.h). */
void ts_add_disk(TestServer *s, const TsDiskOptions *options);
/* A register as the guest would read it; any time after ts_start. */
uint32_t ts_disk_reg(TestServer *s, unsigned offset);
bool ts_disk_wait(TestServer *s, unsigned offset, uint32_t value);

#endif /* TESTS_SERVER_DISK_SERVER_H */
