/*
 * vfio-user: a recording under test, what is said and what is in the file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_VFIO_USER_RECORDING_H
#define TEST_VFIO_USER_RECORDING_H

#include "qemu/bswap.h"
#include "hw/vfio-user/record.h"
#include "vfio-user-rig.h"

/* Block types */
#define REC_SECTION     0x0a0d0d0a
#define REC_INTERFACE   1
#define REC_STATISTICS  5
#define REC_PACKET      6

/* In front of each message: 16 bytes name the dissector, 4 end that, 4 more */
#define REC_PREFIX      24

/**
 * RecFile: a recording, and the file when it is read back
 * @sock: of rec_new_socket(), until rec_begin_socket()
 * @data, @len: the file; @at: how far it was looked at
 */
typedef struct RecFile {
    VFIOUserRecord *rec;
    VFIOUserRecordSocket *sock;
    char *dir;
    char *path;
    uint8_t *data;
    gsize len;
    gsize at;
} RecFile;

/**
 * RecPacket: one message in the file
 * @head: what our dissector is told of it; @options: where they are in @block
 */
typedef struct RecPacket {
    uint32_t interface;
    uint64_t time;
    uint32_t captured;
    uint32_t original;
    const uint8_t *head;
    const uint8_t *message;
    const uint8_t *block;
    size_t options;
} RecPacket;

/* A recording of the device @name to a new file; and its end. */
RecFile *rec_new(const char *name);
void rec_free(RecFile *f);

/* --- Saying something --- */

void rec_say(VFIOUserRecordSocket *sock, const void *msg, size_t len,
             unsigned nr_fds);
void rec_hear(VFIOUserRecordSocket *sock, const void *msg, size_t len,
              unsigned nr_fds);
/* A message of @len bytes, header included, that looks like no other. */
uint8_t *rec_make(uint16_t id, size_t len);

/* --- Looking at the file --- */

static inline uint32_t rec_u32(const void *p)
{
    return ldl_he_p(p);
}

void rec_load(RecFile *f);
/* Everything is written: read it, up to behind the section's block. */
void rec_begin(RecFile *f);
/* There is no more in it. */
void rec_end(RecFile *f);
/* The next block; it must be of @type. */
const uint8_t *rec_next(RecFile *f, uint32_t type);
/* It is a socket's, a packet, and so on. */
void rec_interface(RecFile *f, const char *name);
RecPacket rec_packet(RecFile *f);
/* The next packet is all of @msg, with @flags of the head. */
RecPacket rec_expect(RecFile *f, unsigned flags, unsigned nr_fds,
                     const void *msg, size_t len);
void rec_statistics(RecFile *f, unsigned interface, uint64_t received,
                    uint64_t dropped);
/* The option @code among those at @off of @block: its value, or NULL. */
const uint8_t *rec_option(const uint8_t *block, size_t off, uint16_t code,
                          uint16_t *len);
void rec_check_text(const uint8_t *block, size_t off, uint16_t code,
                    const char *text);

/* --- What most tests are about: "dev" with one socket --- */

RecFile *rec_new_socket(void);
/* rec_begin(), and behind the socket's block. It ends before that. */
void rec_begin_socket(RecFile *f);
/* rec_end() behind its statistics: @nr packets, none dropped */
void rec_end_socket(RecFile *f, uint64_t nr);

#endif /* TEST_VFIO_USER_RECORDING_H */
