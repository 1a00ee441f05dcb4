/*
 * vfio-user test server: what the files about migration share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SERVER_MIG_INTERNAL_H
#define TESTS_SERVER_MIG_INTERNAL_H

#include "internal.h"
#include "server-migration.h"

/*
 * The stream is a row of records. The payload begins with the engine's state
 * (STATE records only, and only with an engine), the rest is
 * engine_mix(seed + i) for its 64-bit word i.
 */
#define MIG_RECORD_MAGIC    0x524d5354u     /* "TSMR" */
#define MIG_RECORD_PRECOPY  1
#define MIG_RECORD_STATE    2               /* once, and the last one */

typedef struct MigRecord {
    uint32_t magic;
    uint32_t kind;
    uint64_t position;      /* of this record in the stream */
    uint64_t len;           /* of the payload */
    uint64_t seed;
    uint32_t blob_len;      /* of the engine's state */
    uint32_t sum;           /* over the header without it, and the state */
} MigRecord;
_Static_assert(sizeof(MigRecord) == 40, "MigRecord is not 40 bytes");

/* A stream that is given away. */
typedef struct MigOut {
    uint64_t position;
    uint64_t owed;          /* pre-copy bytes that no record holds yet */
    uint64_t fraction;      /* of such a byte, in 1/1000000 */
    int64_t since;          /* us; per_second has been reckoned up to here */
    bool final;             /* the device has stopped: STATE is due */
    bool done;              /* STATE was begun */
    bool ended;             /* and a read found nothing after it */
    bool bare;              /* a short stream: no header */
    MigRecord record;
    uint64_t left;          /* bytes of the record not given */
    GByteArray *blob;
} MigOut;

/* A stream that comes. */
typedef struct MigIn {
    uint64_t position;
    MigRecord record;
    unsigned header_len;    /* bytes of the record's header that came */
    uint64_t payload;       /* bytes of its payload that came */
    GByteArray *blob;
    bool done;              /* STATE is complete */
    uint64_t beyond;        /* bytes that came after it */
} MigIn;

typedef struct MigFailState {
    TsMigFail fail;
    unsigned seen, made;
} MigFailState;

struct TsMigration {
    TsMigOptions opt;       /* description */
    /* Thread only */
    MigOut out;
    MigIn in;
    uint64_t next_seed;
    uint64_t log_page;      /* in use */
    /* Under the lock */
    unsigned state;
    TsMigStats stats;
    char *load_error;
    GArray *fails;          /* MigFailState */
    unsigned nr_failed;
    bool stalled;
};

/* migration.c */
void ts_mig_set_state(TestServer *s, unsigned state);

/* mig-fail.c */
typedef struct MigFailWhere {
    TsFailPoint point;
    unsigned from, to;      /* AT_ARC, AT_STATE */
    uint64_t at, end;       /* AT_READ, AT_WRITE: bytes of the stream */
} MigFailWhere;

/* 0: go on. An errno, or TS_NO_REPLY. */
int ts_mig_meet(TestServer *s, const MigFailWhere *where);
/* How far a read may go before the next failure that waits for it. */
uint64_t ts_mig_read_limit(TestServer *s, uint64_t position);

/* mig-stream.c */
void ts_mig_out_begin(TestServer *s, bool precopy);
void ts_mig_out_stop(TestServer *s);        /* STATE may follow now */
void ts_mig_out_end(TestServer *s);
/* What MIG_DATA_SIZE answers. */
uint64_t ts_mig_out_size(TestServer *s);
void ts_mig_in_begin(TestServer *s);
/* RESUMING -> STOP: takes the state over if it is whole. 0 or EINVAL. */
int ts_mig_in_finish(TestServer *s);
void ts_mig_in_end(TestServer *s);

/* dirty.c: bodies of the features; @data is what follows struct feature. */
int ts_dirty_start(TestServer *s, uint8_t *data, size_t len);
int ts_dirty_stop(TestServer *s);
int ts_dirty_report(TestServer *s, const uint8_t *data, size_t len,
                    uint32_t room, GByteArray *reply);

#endif /* TESTS_SERVER_MIG_INTERNAL_H */
