/*
 * vfio-user test server: a device that can be migrated
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Off unless asked for with ts_add_migration(); without it DEVICE_FEATURE is
 * answered with an errno of choice. With it the device has the state machine
 * of the protocol, a stream of device state whose every byte the loading side
 * checks, and dirty page logging. What goes wrong, and when, is said with
 * ts_mig_fail(); lies about contents are moves (server.h), which take the
 * feature's number for their index.
 *
 * Threads and errors: as in server.h.
 */

#ifndef TESTS_SERVER_MIGRATION_H
#define TESTS_SERVER_MIGRATION_H

#include "engine.h"
#include "server.h"

#define TS_MAX_RANGES   64

/* --- Options, before ts_start --- */

typedef struct TsMigOptions {
    uint64_t flags;                 /* feature MIGRATION's, as answered */
    /*
     * Bytes that STOP_COPY gives, 1 MiB. Streams of less than a record's
     * header (40 bytes) are plain pattern, and the loading side must have the
     * same size here; an engine's state makes them longer.
     */
    uint64_t size;
    /* PRE_COPY gives so many bytes at once, as far as it is offered. */
    uint64_t precopy;
    /* Each read that finds nothing makes so many bytes for the next one. */
    uint64_t per_read;
    uint64_t every_read;            /* each read makes so many for itself */
    uint64_t per_second;            /* and time makes so many */
    uint32_t max_read;              /* no read gives more; 0: as asked */
    bool data_size;                 /* feature 9 is answered */
    bool logging;                   /* features 6 to 8 are */
    uint64_t log_page_size;         /* START answers it; 0: the client's */
    bool honour_ranges;             /* START's; otherwise all is logged */
    bool not_later;                 /* windows mapped after START: no */
    bool clean_elsewhere;           /* reports of what is not logged: no bits */
    bool any_range;                 /* reports of parts, or across windows */
    uint64_t max_bitmap;            /* longer ones get EINVAL; 0: no limit */
} TsMigOptions;

/* @flags: VFIO_USER_MIGRATION_*. The caller may then change the options. */
TsMigOptions *ts_add_migration(TestServer *s, uint64_t flags);

bool ts_has_migration(TestServer *s);

/*
 * What DEVICE_FEATURE gets when there is no migration: an errno, ENOTTY at
 * first, or TS_CLOSE for the end of the connection.
 */
#define TS_CLOSE        (-1)
void ts_no_features(TestServer *s, int error);

/* --- Failures, at any time --- */

typedef enum TsFailKind {
    TS_FAIL_REFUSE,     /* errno; nothing else happens */
    TS_FAIL_ERROR,      /* errno, and the device is in state ERROR */
    TS_FAIL_HANG,       /* no reply; later commands are served */
    TS_FAIL_STALL,      /*
                         * the server stands still until ts_unstall() or the
                         * end of the connection, and then does what was asked
                         */
    TS_FAIL_CLOSE,      /* the connection is closed */
    TS_FAIL_EXIT,       /* _exit(1): for the program, not for a test's thread */
} TsFailKind;

typedef enum TsFailPoint {
    TS_AT_ARC,          /* one arc, also of a composed one; from, to */
    TS_AT_READ,         /* byte @byte of the stream is due; read gives less */
    TS_AT_WRITE,        /* the write that has byte @byte */
    TS_AT_LOG_START,
    TS_AT_LOG_STOP,
    TS_AT_LOG_REPORT,
    TS_AT_STATE,        /* SET of state @to went well and was answered */
} TsFailPoint;

/* No arc begins or ends in ERROR, so that nothing said means any. */
#define TS_ANY_STATE    VFIO_USER_MIG_ERROR

typedef struct TsMigFail {
    TsFailKind kind;
    TsFailPoint point;
    unsigned from, to;  /* enum vfio_user_mig_state, or TS_ANY_STATE */
    uint64_t byte;
    int error;          /* 0: EIO */
    unsigned skip;      /* so many times first it goes well */
    unsigned times;     /* 0: for ever */
} TsMigFail;

/* The first one that applies is made. At AT_STATE every kind is ERROR. */
void ts_mig_fail(TestServer *s, const TsMigFail *fail);
void ts_mig_clear_fails(TestServer *s);
/* How many failures were made. */
unsigned ts_mig_nr_failed(TestServer *s);
bool ts_mig_wait_failed(TestServer *s, unsigned nr);
/* Lets a server go on that TS_FAIL_STALL holds. */
void ts_unstall(TestServer *s);
/* The device breaks down between two messages. */
void ts_mig_break(TestServer *s);

/*
 * Named lies about contents, for a device that can be migrated; REFUSED says
 * that the migration must fail, EITHER that it may.
 */
extern const TsMischief ts_mig_lies[];
extern const unsigned ts_nr_mig_lies;

const TsMischief *ts_mig_lie_find(const char *name);
/* At any time; after @skip good replies, @times times (0: for ever). */
void ts_mig_lie(TestServer *s, const TsMischief *lie, unsigned skip,
                unsigned times);

/* --- Looking on --- */

const char *ts_mig_state_name(unsigned state);
/* enum vfio_user_mig_state; RUNNING without migration */
unsigned ts_mig_state(TestServer *s);
bool ts_mig_wait_state(TestServer *s, unsigned state);

typedef struct TsMigStats {
    uint64_t bytes_read, bytes_written;     /* of all streams */
    unsigned nr_saved;          /* streams read to their end */
    unsigned nr_loaded;         /* states accepted at RESUMING -> STOP */
    unsigned nr_reports;        /* answered well */
    unsigned nr_starts;         /* likewise */
    bool logging;
    uint64_t log_page_size;     /* asked for in the last START */
    unsigned nr_ranges;         /* the last START's, all of them */
    struct vfio_user_dma_range ranges[TS_MAX_RANGES];
} TsMigStats;

void ts_mig_stats(TestServer *s, TsMigStats *stats);
/* What was wrong with the last stream that came, or NULL. To be freed. */
char *ts_mig_load_error(TestServer *s);
/* Pages of the device's writes not reported yet, in the log's page size. */
uint64_t ts_mig_nr_dirty(TestServer *s);

/* --- The engine (engine.h), before ts_start --- */

/* Describes the whole device. Reset values of BATCH and RATE. */
void ts_add_engine(TestServer *s, uint32_t batch, uint32_t rate);

/* The registers, as the guest would read them; any time. */
uint64_t ts_engine_reg(TestServer *s, unsigned offset, unsigned width);
/* Waits until a register's value is at least @value. */
bool ts_engine_wait(TestServer *s, unsigned offset, unsigned width,
                    uint64_t value);
/*
 * How many pages of the buffer are not what the registers say; pages of
 * generation 0 are not looked at. -1: could not be read.
 */
int ts_engine_check(TestServer *s);

#endif /* TESTS_SERVER_MIGRATION_H */
