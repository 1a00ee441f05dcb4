/*
 * vfio-user test server: what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * State falls into three: the description (written before the thread starts,
 * constant afterwards), what only the server's thread touches, and what other
 * threads look at, which is written by the server's thread alone and under
 * the lock. The thread may read the last kind without the lock.
 */

#ifndef TESTS_SERVER_INTERNAL_H
#define TESTS_SERVER_INTERNAL_H

#include <pthread.h>
#include "server.h"

typedef struct TsIrqIndex {
    unsigned count;         /* description */
    uint32_t flags;
    TsMaskMode mode;
    int *fds;               /* under the lock; -1 without one */
    bool *masked;
    bool *pending;
} TsIrqIndex;

typedef struct TsMoveState {
    TsMove move;
    unsigned seen, made;
} TsMoveState;

typedef struct TsJob {
    void (*fn)(TestServer *s, void *opaque);
    void *opaque;
    bool running, done;
} TsJob;

struct TestServer {
    /* Description */
    TsLimits limits;
    TsInfo info;
    TsRegion regions[TS_NR_REGIONS];
    GByteArray *content[TS_NR_REGIONS];
    TsIrqIndex irqs[TS_NR_IRQS];
    TsIoFd io_fds[TS_NR_REGIONS][TS_MAX_IO_FDS];
    unsigned nr_io_fds[TS_NR_REGIONS];
    uint8_t *io_shadow;             /* NULL: no shadows */
    int io_shadow_fd;
    struct {
        TsHandler *fn;
        void *opaque;
    } handlers[VFIO_USER_COMMAND_MAX];
    void (*on_reset)(TestServer *s, void *opaque);
    void *on_reset_opaque;
    bool message_only;
    bool like_libvfio_user;
    struct TsMigration *mig;        /* NULL: cannot be migrated */
    struct TsEngine *engine;        /* NULL: another device */
    struct TsDisk *disk;            /* likewise */
    struct TsSpdk *spdk;            /* likewise */
    struct TsState *state;          /* NULL: not kept */
    int no_features;        /* errno or TS_CLOSE, without mig */
    uint8_t *config;        /* 4096 bytes; also region 7's content */
    uint8_t *config_wmask;
    unsigned next_cap, next_ext_cap, last_cap, last_ext_cap;

    /* Thread only */
    bool negotiated;
    uint16_t next_id;
    GQueue deferred;        /* TsMessage: came while we waited for a reply */

    /* Under the lock */
    pthread_mutex_t lock;
    pthread_cond_t cond;    /* broadcast on every change */
    pthread_t thread;
    bool started, stopping, finished, held, dead;
    bool one_shot;          /* serves one connection, does not listen */
    int listen_fd, conn_fd, wake_fd;
    int twin_fd;            /* our end, -1 without */
    char *path;
    unsigned nr_clients, nr_resets, nr_moves_made;
    GQueue jobs;            /* TsJob, owned by who waits */
    GArray *windows;        /* TsWindow, by address */
    GArray *log;            /* TsRecord */
    bool log_on;
    uint64_t log_seq;
    GArray *moves;          /* TsMoveState */
    char *client_json;
};

/* In place of an errno: the command gets no reply. */
#define TS_NO_REPLY     (-2)

void ts_lock(TestServer *s);
void ts_unlock(TestServer *s);
/* Wakes everybody who waits for a change; the lock is held. */
void ts_changed_locked(TestServer *s);
/* The thread looks at its state anew. */
void ts_wake(TestServer *s);
/*
 * From the thread: waits until @cond is false or the connection ends; others
 * wake it with ts_wake(). @cond is evaluated under the lock.
 */
void ts_stand_still(TestServer *s, bool (*cond)(TestServer *s));
/* Waits for one change until the deadline (monotonic us). Lock is held. */
bool ts_wait_change_locked(TestServer *s, int64_t deadline);
int64_t ts_deadline(int64_t ms);
bool ts_on_thread(TestServer *s);
/* The connection is at its end; the thread closes it in its loop. */
void ts_fail_connection(TestServer *s);

/* transport.c: whole messages. 0, or errno: ENOTCONN, ETIMEDOUT, EPROTO. */
int ts_transport_send(TestServer *s, int fd, TsMessage *msg);
/* Sends @len bytes as they are, with @fds on the first. */
int ts_transport_send_raw(TestServer *s, int fd, const void *buf, size_t len,
                          const int *fds, unsigned nr_fds);
int ts_transport_receive(TestServer *s, int fd, TsMessage *msg);
/* Bytes of the message as it would be sent. Freed by the caller. */
GByteArray *ts_transport_flatten(TsMessage *msg);

/* negotiate.c */
int ts_negotiate(TestServer *s, TsMessage *request, TsMessage *reply);

/* device.c: commands; each returns 0, an errno or TS_NO_REPLY. */
int ts_device_dispatch(TestServer *s, TsMessage *request, TsMessage *reply);
int ts_device_start(TestServer *s);
void ts_device_free(TestServer *s);

/* region.c */
int ts_region_start(TestServer *s);
void ts_region_free(TestServer *s);
int ts_region_get_info(TestServer *s, TsMessage *request, TsMessage *reply);
int ts_region_read(TestServer *s, TsMessage *request, TsMessage *reply);
int ts_region_write(TestServer *s, TsMessage *request, TsMessage *reply);
int ts_region_write_multi(TestServer *s, TsMessage *request,
                          TsMessage *reply);

/* config.c */
void ts_config_init(TestServer *s);
void ts_config_free(TestServer *s);
int ts_config_access(TestServer *s, unsigned region, uint64_t offset,
                     void *data, uint32_t len, bool write, void *opaque);

/* irq.c */
int ts_irq_get_info(TestServer *s, TsMessage *request, TsMessage *reply);
int ts_irq_set(TestServer *s, TsMessage *request);
void ts_irq_client_gone(TestServer *s);
void ts_irq_free(TestServer *s);

/* dma.c */
int ts_dma_map(TestServer *s, TsMessage *request);
int ts_dma_unmap(TestServer *s, TsMessage *request, TsMessage *reply);
void ts_dma_client_gone(TestServer *s);

/* log.c */
void ts_log_request(TestServer *s, const TsMessage *request, int error);
/* The region, irq index or feature that a request is about, or -1. */
int ts_request_index(const TsMessage *request);

/* migration.c; the first four without migration, too */
int ts_mig_feature(TestServer *s, TsMessage *request, TsMessage *reply);
bool ts_mig_running(TestServer *s);     /* the device may work */
unsigned ts_mig_state_now(TestServer *s);       /* on the thread */
void ts_mig_reset(TestServer *s);
void ts_mig_free(TestServer *s);

/* mig-stream.c */
int ts_mig_data_read(TestServer *s, TsMessage *request, TsMessage *reply);
int ts_mig_data_write(TestServer *s, TsMessage *request);

/* dirty.c: windows while the device's writes are logged */
void ts_dirty_window_added_locked(TestServer *s, TsWindow *w);
void ts_dirty_mark(TestServer *s, TsWindow *w, uint64_t addr, size_t len);
void ts_dirty_client_gone(TestServer *s);

/* ioeventfd.c */
int ts_get_io_fds(TestServer *s, TsMessage *request, TsMessage *reply);
void ts_io_fds_free(TestServer *s);

/* engine.c */
/* When the engine wants to work (monotonic us); INT64_MAX: never. */
int64_t ts_engine_due(TestServer *s, int64_t now);
void ts_engine_work(TestServer *s);
void ts_engine_reset(TestServer *s);
void ts_engine_free(TestServer *s);
void ts_engine_save(TestServer *s, GByteArray *blob);
/* Whether the state fits; nothing is changed if not. */
bool ts_engine_load(TestServer *s, const GByteArray *blob);
size_t ts_engine_state_len(TestServer *s);

/* state.c: with ts_keep_state() only, but the last two */
int ts_state_start(TestServer *s);
bool ts_state_has(TestServer *s, const void *p);
void ts_state_free(TestServer *s);

/* disk.c, as engine.c */
int ts_disk_start(TestServer *s);
int64_t ts_disk_due(TestServer *s, int64_t now);
void ts_disk_work(TestServer *s);
void ts_disk_reset(TestServer *s);
void ts_disk_free(TestServer *s);

/* spdk.c */
int ts_spdk_start(TestServer *s);
/* Before a message is handled that has come. */
void ts_spdk_pace(TestServer *s);
void ts_spdk_free(TestServer *s);

/* mischief.c: sends the reply, or what the moves make of it. */
int ts_mischief_send(TestServer *s, int index, TsMessage *reply);

#define TS_PAYLOAD(msg, type) ((type *)(void *)(msg)->payload->data)

#endif /* TESTS_SERVER_INTERNAL_H */
