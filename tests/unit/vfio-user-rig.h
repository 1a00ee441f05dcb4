/*
 * vfio-user: a connection under test, its owner and its peer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_VFIO_USER_RIG_H
#define TEST_VFIO_USER_RIG_H

#include "qemu/thread.h"
#include "hw/vfio-user/conn.h"
#include "iothread.h"
#include "vfio-user-peer.h"

/* Guest memory of the owner: where the server sees it, and how much. */
#define RIG_RAM         0x40000000ull
#define RIG_RAM_SIZE    (4 * 1024 * 1024)
#define RIG_MAX_XFER    (1024 * 1024)

/* Of a request, unless its test says otherwise: past the deadline of a test */
#define RIG_TIMEOUT_MS  (2 * PEER_DEADLINE_MS)

/* Commands, from the protocol's table */
#define CMD_DMA_MAP         2
#define CMD_REGION_READ     9
#define CMD_REGION_WRITE    10
#define CMD_DMA_READ        11
#define CMD_DMA_WRITE       12
#define CMD_DEVICE_RESET    13

/**
 * Rig: one connection with all that belongs to it
 * @piece: largest piece in which memory is handed to the connection
 * @begin_ret: what dma_begin returns, when not 0
 * @fails: how often the owner must have been told of a failure in the end
 * The rest under @lock: how often each function of the owner was called.
 */
typedef struct Rig {
    VFIOUserConn *conn;
    VFIOUserConnOps ops;
    int peer;
    IOThread *iothread;
    uint8_t *ram;
    size_t piece;
    int begin_ret;
    unsigned fails;

    QemuMutex lock;
    QemuCond cond;
    unsigned nr_failed;
    unsigned nr_begin;
    unsigned nr_end;
    unsigned nr_ticks;
    unsigned nr_done;
    unsigned max_mapped;
    uint64_t last_done;
} Rig;

/*
 * Before the first test: have timers work, and have open what is opened once
 * and stays, so that it does not look like a leak of the test that comes first.
 */
void rig_warm_up(void);

/*
 * A connection hardly ever ticks in tests: what somebody should have been
 * woken for is a hang then, not a delay.
 */
Rig *rig_new(void (*make)(int fd[2]));
/* With an AioContext of its own that looks after the connection. */
Rig *rig_new_started(void (*make)(int fd[2]));
void rig_start(Rig *rig);
void rig_free(Rig *rig);

/* Tick as often as in real life. */
void rig_set_ticks(Rig *rig);

/* The peer goes away. */
void rig_close_peer(Rig *rig);

/* Wait until *@counter, one of those above, is at least @n. */
void rig_wait_count(Rig *rig, const unsigned *counter, unsigned n);
unsigned rig_count(Rig *rig, const unsigned *counter);

unsigned rig_count_queued(Rig *rig);

/* Wait until @n messages wait for room, or @n threads for the driver. */
void rig_wait_queued(Rig *rig, unsigned n);
void rig_wait_waiters(Rig *rig, unsigned n);

/* Wait for the one call of @failed and look for @text in the reason. */
void rig_wait_failed(Rig *rig, const char *text);

/* The DMA commands below RIG_RAM_SIZE, as the peer sends them. */
void rig_send_dma(Rig *rig, uint16_t id, uint16_t command, uint64_t off,
                  size_t count, unsigned seed);
/* and their replies */
void rig_expect_dma(Rig *rig, uint16_t id, uint16_t command, uint64_t off,
                    size_t count, unsigned seed);

/**
 * Call: a REGION_READ of @count bytes at @off of region 0
 * The peer answers with bytes that depend on @off.
 */
typedef struct Call {
    VFIOUserRequest req;
    Rig *rig;
    uint64_t off;
    uint32_t count;
    uint8_t args[16];
    uint8_t head[16];
    uint8_t *data;
    struct iovec out;
    struct iovec in[2];
    PeerThread thread;
    int ret;
} Call;

void call_init(Call *call, Rig *rig, uint64_t off, uint32_t count);
void call_free(Call *call);
void call_submit(Call *call);
/* Wait; it must succeed with the right data. */
void call_wait_good(Call *call);
void call_check_good(Call *call);
/* Wait; it must end with @ret. */
void call_wait_ret(Call *call, int ret);
/* vfio_user_conn_call() in a thread of its own; @call->ret after the join. */
void call_thread_start(Call *call);
void call_thread_join(Call *call);

/* Take the REGION_READ off the socket and check that it is @call's. */
void call_peer_get(Call *call, PeerMessage *msg);
/* Answer it. */
void call_peer_answer(Call *call, const PeerMessage *msg);
/* Or with @error, an errno. */
void call_peer_refuse(Call *call, const PeerMessage *msg, uint32_t error);
/* Both. */
void call_peer_serve(Call *call);
/* The bytes of the answer. */
uint8_t *call_peer_make(Call *call, const PeerMessage *msg, size_t *len);

/* One that the peer has got, and its end. */
void call_begin(Call *call, Rig *rig, uint64_t off, uint32_t count,
                PeerMessage *msg);
void call_end(Call *call, PeerMessage *msg);
/*
 * The end of @nr that the peer has got and nobody waits for, which is as many
 * as there can be: nothing more is sent before an answer comes to one of them.
 */
void call_end_late(Call *call, PeerMessage *msg, unsigned nr);

/* One more read that goes well: the connection is still in step. */
void rig_check_alive(Rig *rig);

/* A REGION_WRITE of @len bytes at @off without reply; as vfio_user_conn_post */
int rig_post(Rig *rig, uint64_t off, size_t len, unsigned timeout_ms);
/* The peer gets it. */
void rig_expect_post(Rig *rig, uint64_t off, size_t len);
void rig_check_post(const PeerMessage *msg, uint64_t off, size_t len);

#endif /* TEST_VFIO_USER_RIG_H */
