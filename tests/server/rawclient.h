/*
 * vfio-user raw client: one message out, one message in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For the server's self test. It shares the wire header with the server and
 * nothing else, and answers the server's DMA commands from a buffer.
 */

#ifndef TESTS_RAWCLIENT_H
#define TESTS_RAWCLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include "hw/vfio-user/wire.h"

#define RC_MAX_FDS  64

typedef struct RawClient {
    int fd, twin_fd;
    uint16_t next_id;
    uint64_t mem_addr;      /* guest memory for DMA by message */
    uint8_t *mem;
    uint64_t mem_len;
    unsigned nr_dma;        /* commands of the server answered */
    bool may_end;           /* the server may have gone when we send */
    /* The last reply */
    struct vfio_user_header hdr;
    uint8_t *payload;
    size_t len;
    int fds[RC_MAX_FDS];
    unsigned nr_fds;
} RawClient;

/* Connects and aborts when it cannot. */
RawClient *rc_connect(const char *path);
/* Uses the connected socket @fd, which becomes the client's. */
RawClient *rc_new(int fd);
void rc_free(RawClient *c);

/* Sends a command; returns its id. */
uint16_t rc_send(RawClient *c, uint16_t command, uint32_t flags,
                 const void *payload, size_t len, const int *fds,
                 unsigned nr_fds);
/*
 * Takes one reply, answering DMA commands that come first. Returns false at
 * the end of the stream or after 5 s.
 */
bool rc_receive(RawClient *c);
/* Waits for one DMA command on the twin socket and answers it. */
bool rc_serve_twin(RawClient *c);
/*
 * A command and its reply: 0, the errno of an error reply, or -1 when there
 * was no reply with this id and command.
 */
int rc_call(RawClient *c, uint16_t command, const void *payload, size_t len);
int rc_call_fds(RawClient *c, uint16_t command, const void *payload,
                size_t len, const int *fds, unsigned nr_fds);
/* VERSION with @json (NULL: 8 fds and twin socket if @twin). */
int rc_negotiate(RawClient *c, const char *json, bool twin);

int rc_read(RawClient *c, uint32_t region, uint64_t offset, void *data,
            uint32_t len);
int rc_write(RawClient *c, uint32_t region, uint64_t offset,
             const void *data, uint32_t len);
int rc_map(RawClient *c, uint64_t addr, uint64_t size, int fd,
           uint64_t offset);
int rc_unmap(RawClient *c, uint64_t addr, uint64_t size);
int rc_set_irqs(RawClient *c, uint32_t flags, uint32_t index, uint32_t start,
                uint32_t count, const int *fds, unsigned nr_fds);
void rc_close_fds(RawClient *c);

/*
 * DEVICE_FEATURE with @flags (index and get, set, probe) and @len bytes of
 * data. @room is the request's argsz; 0: what request and data need.
 */
int rc_feature(RawClient *c, uint32_t flags, const void *data, size_t len,
               uint32_t room);
/* The migration state; get returns -1 when it fails. */
int rc_set_state(RawClient *c, uint32_t state);
int rc_get_state(RawClient *c);
/* MIG_DATA_READ: the data is at c->payload + 8; its length or -errno. */
int rc_mig_read(RawClient *c, uint32_t size);
int rc_mig_write(RawClient *c, const void *data, uint32_t size);
/* Reads until nothing comes; -errno or the number of bytes appended. */
int64_t rc_mig_save(RawClient *c, GByteArray *into, uint32_t chunk);
int rc_mig_load(RawClient *c, const void *data, size_t len, uint32_t chunk);
/* LOGGING_START without ranges, STOP; REPORT's bitmap at c->payload + 32 */
int rc_log_start(RawClient *c, uint64_t page);
int rc_log_stop(RawClient *c);
int rc_log_report(RawClient *c, uint64_t iova, uint64_t len, uint64_t page);

#endif /* TESTS_RAWCLIENT_H */
