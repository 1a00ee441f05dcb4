/*
 * vfio-user: messages put together byte by byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets are typed in from the protocol's description where these functions
 * are called, not taken from the structures of the wire header, so that a
 * mistake there shows in a test.
 */

#ifndef TEST_VFIO_USER_MESSAGE_H
#define TEST_VFIO_USER_MESSAGE_H

#include "qapi/error.h"

#define ROOM    0x1000

typedef struct Message {
    union {
        uint8_t bytes[ROOM];
        uint64_t align;
    };
} Message;

static inline void put16(Message *m, size_t off, uint16_t v)
{
    memcpy(m->bytes + off, &v, sizeof(v));
}

static inline void put32(Message *m, size_t off, uint32_t v)
{
    memcpy(m->bytes + off, &v, sizeof(v));
}

static inline void put64(Message *m, size_t off, uint64_t v)
{
    memcpy(m->bytes + off, &v, sizeof(v));
}

/* @text: part of the message expected, NULL when @ok is to be true */
static inline void expect(bool ok, Error *err, const char *text)
{
    if (!text) {
        if (!ok) {
            g_test_message("refused: %s", error_get_pretty(err));
        }
        g_assert_true(ok);
        g_assert_null(err);
        return;
    }
    g_assert_false(ok);
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), text)) {
        g_test_message("'%s' not in '%s'", text, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

#endif /* TEST_VFIO_USER_MESSAGE_H */
