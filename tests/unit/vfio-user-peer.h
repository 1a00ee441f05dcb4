/*
 * vfio-user: the other end of a connection under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A peer that does what the test says, byte by byte. Offsets of header and
 * payload are typed in from the protocol's description, not taken from the
 * wire header, so that a mistake there shows. Every wait here has a deadline
 * and fails the test when it passes.
 *
 * Also what tests of this kind have in common: a guard around each test that
 * counts open files and ends a test that hangs, and threads that are joined
 * with a deadline.
 */

#ifndef TEST_VFIO_USER_PEER_H
#define TEST_VFIO_USER_PEER_H

#include "qemu/thread.h"

#define PEER_DEADLINE_MS    15000
#define PEER_MAX_FDS        32

/* Flags of the header */
#define PEER_COMMAND        0x00
#define PEER_REPLY          0x01
#define PEER_NO_REPLY       0x10
#define PEER_ERROR          0x20

/**
 * PeerMessage: a message as it came
 * @payload: @len bytes, allocated
 * @fds: the descriptors that came with it
 */
typedef struct PeerMessage {
    uint16_t id;
    uint16_t command;
    uint32_t size;
    uint32_t flags;
    uint32_t error;
    uint8_t *payload;
    size_t len;
    int fds[PEER_MAX_FDS];
    unsigned nr_fds;
} PeerMessage;

/* Connected sockets: [0] for the code under test, [1] for the peer. */
void peer_pair(int fd[2]);

/* The same with the smallest of buffers, soon full. */
void peer_small_pair(int fd[2]);

/* A whole message in allocated memory; 16 + @len bytes. */
uint8_t *peer_make(uint16_t id, uint16_t command, uint32_t flags,
                   uint32_t error, const void *payload, size_t len);

/* The payload of DMA_READ and DMA_WRITE; 16 + @len bytes. */
uint8_t *peer_make_dma(uint64_t addr, uint64_t count, const void *data,
                       size_t len);

/* Send all of it; descriptors go with the first byte. */
void peer_send_bytes(int fd, const void *buf, size_t len);
void peer_send_fds(int fd, const void *buf, size_t len, const int *fds,
                   unsigned nr_fds);

void peer_send(int fd, uint16_t id, uint16_t command, uint32_t flags,
               uint32_t error, const void *payload, size_t len);
void peer_send_dma(int fd, uint16_t id, uint16_t command, uint32_t flags,
                   uint64_t addr, uint64_t count, const void *data,
                   size_t len);

/* Answer @to without error. */
void peer_reply(int fd, const PeerMessage *to, const void *payload,
                size_t len);

/* Receive one message; the caller drops it. */
void peer_get(int fd, PeerMessage *msg);
void peer_drop(PeerMessage *msg);

/* Receive exactly @len bytes, no descriptors. */
void peer_recv_bytes(int fd, void *buf, size_t len);

/* Receive one message that must be this one. */
void peer_expect(int fd, uint16_t id, uint16_t command, uint32_t flags,
                 uint32_t error, const void *payload, size_t len);

/* Is something there now? */
bool peer_readable(int fd);

/* Wait until something is. */
void peer_wait_readable(int fd);

/* Wait until the other end has received all that was sent. */
void peer_wait_taken(int fd);

/* Wait for the other end to close or shut down, with nothing left to read. */
void peer_wait_eof(int fd);

/* @len bytes that look different at each position and for each @seed. */
void peer_pattern(void *buf, size_t len, unsigned seed);
void peer_check_pattern(const void *buf, size_t len, unsigned seed);

/* Descriptors of an empty file, to be sent. */
void peer_open_fds(int *fds, unsigned nr);
void peer_close_fds(const int *fds, unsigned nr);

unsigned peer_count_fds(void);

/* A thread that is joined within the deadline. */
typedef struct PeerThread {
    QemuThread thread;
    QemuSemaphore done;
    void (*func)(void *opaque);
    void *opaque;
} PeerThread;

void peer_thread_start(PeerThread *t, void (*func)(void *), void *opaque);
void peer_thread_join(PeerThread *t);

/* Add a test that runs under the guard. */
void peer_add_test(const char *path, void (*func)(void));

#endif /* TEST_VFIO_USER_PEER_H */
