/*
 * vfio-user test server: a device whose behaviour the test decides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One TestServer is one device on one socket, served by one thread of its
 * own. Describe the device with the ts_add_*, ts_config_* and option calls,
 * then ts_start(); after that look on with ts_log_*, act with ts_irq_* and
 * ts_dma_*, and end with ts_free(). A client that goes away leaves the device
 * as it is, and the next one is accepted.
 *
 * Nothing here is shared with the client but the wire header, so that a
 * mistake on one side is not hidden by the same mistake on the other.
 *
 * Threads: every function may be called from any thread unless it says
 * "before ts_start". Callbacks run on the server's thread with no lock held
 * and may call everything except ts_free(). Every wait has a deadline and
 * returns false, or an errno, when it passes.
 *
 * Errors: functions that return int return 0 or a positive errno.
 */

#ifndef TESTS_SERVER_H
#define TESTS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>
#include "hw/vfio-user/wire.h"

#define TS_NR_REGIONS       16
#define TS_NR_IRQS          8
#define TS_MAX_FDS          64
#define TS_MAX_AREAS        64
#define TS_MAX_IO_FDS       32
#define TS_LOG_DATA         64
#define TS_DEADLINE_MS      10000

typedef struct TestServer TestServer;

/* --- Messages, as handlers and moves see them --- */

typedef struct TsMessage {
    struct vfio_user_header hdr;    /* size is set when it is sent */
    GByteArray *payload;
    int fds[TS_MAX_FDS];            /* the message's own; -1 once taken */
    unsigned nr_fds;
} TsMessage;

void ts_message_init(TsMessage *msg);
void ts_message_clear(TsMessage *msg);          /* closes the fds left */
int ts_message_take_fd(TsMessage *msg, unsigned i);
/* Adds a duplicate of @fd, which stays the caller's. */
void ts_message_add_fd(TsMessage *msg, int fd);

/* --- Life --- */

/* A vfio-user PCI device without regions but a 4096-byte config space. */
TestServer *ts_new(void);
/*
 * Listens on @path and starts the thread. The socket of a server that was
 * killed may be there.
 */
int ts_start(TestServer *s, const char *path);
/* Serves the connected socket @fd, which becomes the server's. */
int ts_start_fd(TestServer *s, int fd);
/* Serves connections taken from the listening socket @fd, likewise. */
int ts_start_listen_fd(TestServer *s, int fd);
void ts_free(TestServer *s);
/* Ends the thread, and whoever is in ts_wait_finished(). From one thread. */
void ts_stop(TestServer *s);

/* Closes the connection at once, as a server does that dies. */
void ts_disconnect(TestServer *s);
/* No client after the present one; the socket's file is removed. */
void ts_stop_listening(TestServer *s);
/* After that: the device as it is, for another client. */
int ts_listen_again(TestServer *s, const char *path);
/* The thread stops before its next message, like a process with SIGSTOP. */
void ts_hold(TestServer *s);
void ts_release(TestServer *s);
bool ts_connected(TestServer *s);
/* Clients accepted so far. */
unsigned ts_nr_clients(TestServer *s);
bool ts_wait_connected(TestServer *s, bool connected);
/* Ends with false when @timeout_ms passes (standalone program: -1). */
bool ts_wait_finished(TestServer *s, int timeout_ms);

/* Runs @fn on the server's thread between two messages; waits for its end. */
bool ts_run(TestServer *s, void (*fn)(TestServer *s, void *opaque),
            void *opaque);

/*
 * Waits until @cond is true; it is evaluated with the server's lock held
 * after everything that the server does, and must not call ts_*.
 */
bool ts_wait(TestServer *s, bool (*cond)(void *opaque), void *opaque);

/* --- Options, before ts_start --- */

typedef struct TsLimits {
    uint16_t major, minor;          /* 0, 2 */
    uint32_t max_msg_fds;           /* 8; 0: say nothing */
    uint64_t max_data_xfer_size;    /* 1 MiB; 0: say nothing */
    uint64_t max_dma_maps;          /* 65535; 0: say nothing */
    uint64_t pgsizes;               /* 4096; 0: say nothing */
    bool twin_socket;               /* false: not answered */
    bool write_multiple;
    const char *json;               /* replaces everything above but version */
    bool enforce;                   /* true: a client beyond them is refused */
    /*
     * As libvfio-user without twin socket: what comes after our own command
     * must be the reply to it, or the connection ends.
     */
    bool no_crossing;
} TsLimits;

TsLimits *ts_limits(TestServer *s);

/*
 * Does what the newest libvfio-user does, where servers differ. In STOP and
 * STOP_COPY only accesses of regions, DEVICE_FEATURE and MIG_DATA_READ are
 * allowed, all else gets EINVAL. A reset keeps the state of migration; so does
 * the end of a connection, as everywhere, and logging of dirty pages goes on
 * then, too. START while logging is well if the page size is the same, and
 * takes no notice of ranges. Replies to MIG_DATA_READ are padded to what was
 * asked for, those to DMA_UNMAP are a header. Before ts_start.
 */
void ts_like_libvfio_user(TestServer *s);
/* What the client proposed: its JSON text, or NULL. Freed by the caller. */
char *ts_client_json(TestServer *s);
uint64_t ts_client_limit(TestServer *s, const char *key, uint64_t none);

typedef struct TsInfo {
    uint32_t flags;                 /* resettable, PCI */
    uint32_t num_regions;           /* 9 */
    uint32_t num_irqs;              /* 5 */
} TsInfo;

TsInfo *ts_info(TestServer *s);

/* --- Regions --- */

typedef struct TsArea {
    uint64_t offset, size;
} TsArea;

/*
 * A guest access. For a write @data holds it; for a read fill it in. Return 0,
 * or an errno for an error reply.
 */
typedef int TsAccess(TestServer *s, unsigned region, uint64_t offset,
                     void *data, uint32_t len, bool write, void *opaque);

typedef struct TsRegion {
    uint64_t size;
    uint32_t flags;                 /* read, write, mmap; caps is added */
    uint64_t fd_offset;             /* of byte 0 in the fd */
    unsigned nr_areas;              /* 0 with mmap: the whole region */
    TsArea areas[TS_MAX_AREAS];
    bool has_type;
    uint32_t type, subtype;
    TsAccess *access;               /* NULL: plain memory */
    void *opaque;
    uint8_t *mem;                   /* set by ts_start; the region's content */
    int fd;                         /* set by ts_start; -1 without mmap */
} TsRegion;

/* Before ts_start. The caller may then fill in the rest of the struct. */
TsRegion *ts_region(TestServer *s, unsigned index, uint64_t size,
                    uint32_t flags);
/* Gives a region its content before ts_start makes room for it. */
void ts_region_content(TestServer *s, unsigned index, const void *data,
                       size_t len);
/* The memory of a region, valid from ts_start() to ts_free(). */
void *ts_region_mem(TestServer *s, unsigned index);

/* --- Writes that are signals (ioeventfd.c) --- */

#define TS_IO_SHADOW_SIZE   0x2000

/* A sub-region; before ts_start the caller may fill in the rest of it. */
typedef struct TsIoFd {
    struct vfio_user_io_fd entry;   /* descriptors and data are put in later */
    uint64_t match;
    uint64_t shadow_offset;
    struct TsIoFd *shares;          /* whose eventfd it uses; NULL: its own */
    int fd;                         /* eventfd of its own */
    uint64_t count;
} TsIoFd;

/* Before ts_start; valid until ts_free(). */
TsIoFd *ts_add_io_fd(TestServer *s, unsigned region, uint64_t offset,
                     uint64_t size);
/* Only writes of @value count. */
void ts_io_fd_match(TsIoFd *io, uint64_t value);
/* Their value is stored at @offset of the shadow file; returns where that is. */
void *ts_io_fd_shadow(TestServer *s, TsIoFd *io, uint64_t offset);
/* The file gets empty. */
void ts_io_shadow_cut(TestServer *s);
/* Signals on its own eventfd so far. */
uint64_t ts_io_fd_count(TestServer *s, TsIoFd *io);

/* --- Config space, before ts_start --- */

#define TS_BAR_IO           (1u << 0)
#define TS_BAR_64           (1u << 1)
#define TS_BAR_PREFETCH     (1u << 2)

void ts_config_id(TestServer *s, uint16_t vendor, uint16_t device,
                  uint32_t class_code, uint8_t revision);
void ts_config_subsystem(TestServer *s, uint16_t vendor, uint16_t device);
void ts_config_intx(TestServer *s, unsigned pin);
/* Declares the BAR and its region (read, write); @size is a power of two. */
TsRegion *ts_add_bar(TestServer *s, unsigned bar, uint64_t size,
                     unsigned flags);
/* ROM BAR with @len bytes of content. */
void ts_add_rom(TestServer *s, const void *data, size_t len, uint64_t size);
/* These return the capability's offset. */
unsigned ts_add_cap(TestServer *s, uint8_t id, const void *body, size_t len);
unsigned ts_add_ext_cap(TestServer *s, uint16_t id, unsigned version,
                        const void *body, size_t len);
unsigned ts_add_pm(TestServer *s);
unsigned ts_add_pcie(TestServer *s, unsigned type);
unsigned ts_add_vendor(TestServer *s, const void *data, size_t len);
/* @nr is a power of two; also declares the irq index. */
unsigned ts_add_msi(TestServer *s, unsigned nr, bool maskable);
unsigned ts_add_msix(TestServer *s, unsigned nr, unsigned table_bar,
                     uint32_t table_off, unsigned pba_bar, uint32_t pba_off);

/* --- Interrupts --- */

typedef enum TsMaskMode {
    TS_MASK_ACCEPT,     /* mask and unmask are obeyed; unmasked at first */
    TS_MASK_REFUSE,     /* they are answered with EINVAL */
    TS_MASK_KEEP,       /*
                         * as QEMU's own server: masked until unmasked, and
                         * count is taken for the end of the range
                         */
} TsMaskMode;

/* Before ts_start. */
void ts_add_irqs(TestServer *s, unsigned index, unsigned count,
                 uint32_t flags, TsMaskMode mode);
/* Raises a vector. ENOENT: no eventfd; EAGAIN: masked, and now pending. */
int ts_irq_trigger(TestServer *s, unsigned index, unsigned vector);
bool ts_irq_has_fd(TestServer *s, unsigned index, unsigned vector);
bool ts_irq_masked(TestServer *s, unsigned index, unsigned vector);
unsigned ts_irq_nr_fds(TestServer *s, unsigned index);
/* Wait until vector's eventfd is there, or is gone. */
bool ts_irq_wait_fd(TestServer *s, unsigned index, unsigned vector,
                    bool there);
bool ts_irq_wait_nr_fds(TestServer *s, unsigned index, unsigned nr);

/* --- DMA --- */

/*
 * From a callback: whether the client's next message comes within @ms, which
 * stays to be handled.
 */
bool ts_message_pending(TestServer *s, int ms);

typedef struct TsWindow {
    uint64_t addr, size;
    uint64_t offset;                /* in the file */
    uint32_t flags;
    bool has_fd;
    dev_t dev;                      /* identity of the file, with an fd */
    ino_t ino;
    uint8_t *ptr;                   /* NULL: by message only */
    size_t map_len;                 /* of the mapping behind @ptr */
    uint8_t *map_base;
    uint64_t *dirty;                /* bits, while writes are logged */
    uint64_t dirty_shift;           /* log2 of a bit's page */
} TsWindow;

typedef enum TsDmaWay {
    TS_DMA_ANY,         /* mapped where it can be */
    TS_DMA_MAPPED,
    TS_DMA_MESSAGE,
} TsDmaWay;

/* Before ts_start: take no notice of the fds, use messages for everything. */
void ts_dma_by_message_only(TestServer *s);

unsigned ts_dma_nr_windows(TestServer *s);
/* Copies window @i in the order of addresses. */
bool ts_dma_window(TestServer *s, unsigned i, TsWindow *window);
bool ts_dma_find(TestServer *s, uint64_t addr, TsWindow *window);
bool ts_dma_wait_window(TestServer *s, uint64_t addr, bool there);
bool ts_dma_wait_nr_windows(TestServer *s, unsigned nr);

/*
 * Moves data, within one window and in as many messages as the client's limit
 * asks for. EFAULT: no such window; else the client's errno, ETIMEDOUT or
 * ENOTCONN.
 */
int ts_dma_read(TestServer *s, uint64_t addr, void *buf, size_t len,
                TsDmaWay way);
int ts_dma_write(TestServer *s, uint64_t addr, const void *buf, size_t len,
                 TsDmaWay way);
/*
 * One DMA_READ or DMA_WRITE command as it stands, whatever the windows say.
 * @count goes into the message, @len is the data that is sent or expected.
 */
int ts_dma_command(TestServer *s, uint16_t command, uint64_t addr,
                   uint64_t count, void *buf, size_t len);
/* The same with flags for the header; with no_reply none is waited for. */
int ts_dma_command_flags(TestServer *s, uint16_t command, uint32_t flags,
                         uint64_t addr, uint64_t count, void *buf, size_t len);

/* --- The standard device, before ts_start --- */

/*
 * What most tests use, and what the list of misbehaviours is written for:
 *   BAR0  4 KiB memory, never mapped
 *   BAR1  32 KiB memory, mapped at 0x1000 + 0x1000 and 0x4000 + 0x2000
 *   BAR2  64 KiB memory, 64-bit, prefetchable, mapped as a whole
 *   BAR4  256 bytes I/O
 *   BAR5  8 KiB memory: MSI-X table at 0, pending bits at 0x1000
 *   ROM   4 KiB whose byte i is TS_ROM_BYTE(i) after a valid header
 * INTA, 4 MSI and 16 MSI-X vectors, ERR, REQ; power management and a vendor
 * capability of 8 bytes.
 */
#define TS_STANDARD_VENDOR  0x1234
#define TS_STANDARD_DEVICE  0x5678
#define TS_STANDARD_MSI     4
#define TS_STANDARD_MSIX    16
#define TS_ROM_BYTE(i)      ((uint8_t)((i) * 7 + (i) / 256))

void ts_standard_device(TestServer *s);

/* --- Other hooks, before ts_start --- */

/*
 * Called for @command instead of the built-in handling. Fill in @reply's
 * payload and fds; return 0 or the errno of an error reply, -1 to let the
 * built-in handling go on, or TS_NO_REPLY (internal.h).
 */
typedef int TsHandler(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque);
void ts_set_handler(TestServer *s, uint16_t command, TsHandler *handler,
                    void *opaque);
void ts_on_reset(TestServer *s, void (*fn)(TestServer *s, void *opaque),
                 void *opaque);
unsigned ts_nr_resets(TestServer *s);

/* --- The log of what came --- */

typedef struct TsRecord {
    uint64_t seq;
    unsigned client;        /* 1: the first one */
    uint16_t id;
    uint16_t command;
    uint32_t flags;         /* of the header */
    unsigned nr_fds;
    uint32_t index;         /* region or irq index, feature */
    uint64_t offset;        /* region offset, IOVA, first vector */
    uint64_t count;         /* bytes, vectors */
    uint32_t set_flags;     /* SET_IRQS', DMA_MAP's or DEVICE_FEATURE's */
    int error;              /* what was answered */
    size_t len;             /* of the payload's data part */
    uint8_t data[TS_LOG_DATA];
} TsRecord;

/* -1 stands for any. Posted writes are seen like the others. */
typedef struct TsMatch {
    int command;
    int index;
    int64_t offset;
} TsMatch;

#define TS_ANY      ((TsMatch){ -1, -1, -1 })

/* Off by default is wrong for tests and right for benchmarks. */
void ts_log_enable(TestServer *s, bool on);
void ts_log_clear(TestServer *s);
unsigned ts_log_count(TestServer *s, TsMatch match);
/* Copies the @nth (from 0) record that matches. */
bool ts_log_get(TestServer *s, TsMatch match, unsigned nth, TsRecord *record);
/* Waits until at least @nr match. */
bool ts_log_wait(TestServer *s, TsMatch match, unsigned nr);
/* The log as text for a failure's message. Freed by the caller. */
char *ts_log_text(TestServer *s);
const char *ts_command_name(unsigned command);

/* --- Moves of a bad server --- */

typedef enum TsMoveKind {
    TS_MOVE_DROP,           /* no reply */
    TS_MOVE_DELAY,          /* @a ms late */
    TS_MOVE_ERROR,          /* error reply with errno @a */
    TS_MOVE_CLOSE,          /* connection closed instead */
    TS_MOVE_TRUNCATE,       /* @a bytes of the message, then closed */
    TS_MOVE_SPLIT,          /* @a bytes, then after @b ms the rest */
    TS_MOVE_TWICE,          /* the reply is sent two times */
    TS_MOVE_HEADER,         /* header's bytes at @a become @b, @width wide */
    TS_MOVE_PATCH,          /* payload's bytes at @a become @b, @width wide */
    TS_MOVE_CUT,            /* payload is @a bytes long; header agrees */
    TS_MOVE_PAD,            /* payload is @a bytes longer; header agrees */
    TS_MOVE_REPLACE,        /* payload is the string @text with its NUL */
    TS_MOVE_EXTRA_FDS,      /* @a fds more */
    TS_MOVE_NO_FDS,
    TS_MOVE_CALL,           /* @call does what it likes */
} TsMoveKind;

typedef struct TsMove {
    TsMoveKind kind;
    int command;            /* whose reply; -1: any */
    int index;              /* region or irq index, feature; -1: any */
    unsigned skip;          /* this many replies first as they should be */
    unsigned times;         /* 0: every one from then on */
    uint64_t a, b;
    unsigned width;         /* 1, 2, 4 or 8; 0 is 4 */
    const char *text;
    void (*call)(TestServer *s, TsMessage *reply, void *opaque);
    void *opaque;
} TsMove;

/* May be called at any time; moves apply in the order they were added. */
void ts_add_move(TestServer *s, const TsMove *move);
void ts_clear_moves(TestServer *s);
/* How often moves were made. */
unsigned ts_nr_moves_made(TestServer *s);

#define TS_MISCHIEF_MOVES   3

typedef enum TsExpect {
    TS_EXPECT_REFUSED,      /* realize must fail; later: the device is lost */
    TS_EXPECT_HARMLESS,     /* realize, or the access, succeeds all the same */
    TS_EXPECT_EITHER,       /* both are right; dying, hanging, leaking not */
    TS_EXPECT_DENIED,       /* later: the access has no effect, others have */
} TsExpect;

/*
 * A named misbehaviour of the standard device, and what a client must make of
 * it: while it realizes (ts_mischiefs) or later (ts_run_mischiefs).
 *
 * @says is what the client's report must match, with * for anything; NULL for
 * one that need not say anything. @act is done instead of a reply to a command
 * of the client's, and must return @act_error: 0 or an errno.
 */
typedef struct TsMischief {
    const char *name;
    TsExpect expect;
    const char *says;
    TsMove moves[TS_MISCHIEF_MOVES];
    unsigned nr_moves;
    void (*setup)(TestServer *s);       /* before ts_start; may be NULL */
    int (*act)(TestServer *s);          /* on the thread; may be NULL */
    int act_error;
} TsMischief;

extern const TsMischief ts_mischiefs[];
extern const unsigned ts_nr_mischiefs;
extern const TsMischief ts_run_mischiefs[];
extern const unsigned ts_nr_run_mischiefs;

const TsMischief *ts_mischief_find(const char *name);
/* Before ts_start. */
void ts_mischief_apply(TestServer *s, const TsMischief *mischief);

#endif /* TESTS_SERVER_H */
