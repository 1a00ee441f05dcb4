/*
 * vfio-user test server: lies about contents during a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Like the list of misbehaviours during realize: offsets count from the start
 * of the payload and are the protocol's, indices are features.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "internal.h"
#include "server-migration.h"

#define MAX_READ    (1 << 20)

/* More than anybody asked for, and the header agrees. */
static void call_read_too_much(TestServer *s, TsMessage *reply, void *opaque)
{
    GByteArray *payload = reply->payload;
    uint32_t head[2];
    guint old = payload->len;

    (void)s;
    (void)opaque;
    if (old < sizeof(head)) {
        return;     /* an error reply */
    }
    g_byte_array_set_size(payload, old + MAX_READ);
    memset(payload->data + old, 0xa5, MAX_READ);
    head[0] = payload->len;
    head[1] = payload->len - sizeof(head);
    memcpy(payload->data, head, sizeof(head));
}

static void call_read_miscounted(TestServer *s, TsMessage *reply,
                                 void *opaque)
{
    uint32_t size;

    (void)s;
    (void)opaque;
    if (reply->payload->len > 8) {
        size = reply->payload->len - 8 - 1;
        memcpy(reply->payload->data + 4, &size, sizeof(size));
    }
}

static void call_cut_a_word(TestServer *s, TsMessage *reply, void *opaque)
{
    (void)s;
    (void)opaque;
    if (reply->payload->len >= 8) {
        g_byte_array_set_size(reply->payload, reply->payload->len - 8);
    }
}

#define LIE(name_, expect_, cmd, idx, what, ...) \
    { .name = name_, .expect = TS_EXPECT_##expect_, .nr_moves = 1, \
      .moves = { { .kind = TS_MOVE_##what, .command = VFIO_USER_##cmd, \
                   .index = (idx), __VA_ARGS__ } } }
#define STATE(name, expect, ...) \
    LIE(name, expect, DEVICE_FEATURE, 2, __VA_ARGS__)
#define START(name, expect, ...) \
    LIE(name, expect, DEVICE_FEATURE, 6, __VA_ARGS__)
#define REPORT(name, expect, ...) \
    LIE(name, expect, DEVICE_FEATURE, 8, __VA_ARGS__)
#define READ(name, expect, ...) \
    LIE(name, expect, MIG_DATA_READ, -1, __VA_ARGS__)
#define WRITE(name, expect, ...) \
    LIE(name, expect, MIG_DATA_WRITE, -1, __VA_ARGS__)

#define PUT(at, value, bytes)   .a = (at), .b = (value), .width = (bytes)

const TsMischief ts_mig_lies[] = {
    STATE("state-other", REFUSED, PATCH, PUT(8, VFIO_USER_MIG_ERROR, 4)),
    STATE("state-unknown", REFUSED, PATCH, PUT(8, 77, 4)),
    STATE("state-short", REFUSED, CUT, .a = 8),
    STATE("state-empty", REFUSED, CUT, .a = 0),
    STATE("state-long", EITHER, PAD, .a = 8),
    STATE("state-feature", REFUSED, PATCH, PUT(4, 1 | 1 << 17, 4)),

    START("start-page-zero", EITHER, PATCH, PUT(8, 0, 8)),
    START("start-page-odd", EITHER, PATCH, PUT(8, 5000, 8)),
    START("start-page-huge", EITHER, PATCH, PUT(8, 1ull << 63, 8)),
    START("start-short", EITHER, CUT, .a = 8),
    START("start-long", EITHER, PAD, .a = 4096),

    REPORT("report-short", EITHER, CALL, .call = call_cut_a_word),
    REPORT("report-long", EITHER, PAD, .a = 8),
    REPORT("report-empty", EITHER, CUT, .a = 0),
    REPORT("report-elsewhere", EITHER, PATCH, PUT(8, 0x1234000, 8)),
    REPORT("report-length", EITHER, PATCH, PUT(16, UINT64_MAX, 8)),
    REPORT("report-page", EITHER, PATCH, PUT(24, 1, 8)),

    READ("read-too-much", REFUSED, CALL, .call = call_read_too_much),
    READ("read-size-larger", REFUSED, PATCH, PUT(4, 0x7fffffff, 4)),
    /* The rest may be padding. Data is missing then, which a device may see. */
    READ("read-size-smaller", EITHER, CALL, .call = call_read_miscounted),
    READ("read-size-zero", EITHER, PATCH, PUT(4, 0, 4)),
    READ("read-short", REFUSED, CUT, .a = 4),
    READ("read-empty", REFUSED, CUT, .a = 0),
    READ("read-error-zero", REFUSED, ERROR, .a = 0),
    READ("read-with-fds", EITHER, EXTRA_FDS, .a = 3),

    WRITE("write-long", EITHER, PAD, .a = 8),
};

const unsigned ts_nr_mig_lies = G_N_ELEMENTS(ts_mig_lies);

const TsMischief *ts_mig_lie_find(const char *name)
{
    for (unsigned i = 0; i < ts_nr_mig_lies; i++) {
        if (!strcmp(ts_mig_lies[i].name, name)) {
            return &ts_mig_lies[i];
        }
    }
    return NULL;
}

void ts_mig_lie(TestServer *s, const TsMischief *lie, unsigned skip,
                unsigned times)
{
    for (unsigned i = 0; i < lie->nr_moves; i++) {
        TsMove move = lie->moves[i];

        move.skip = skip;
        move.times = times;
        ts_add_move(s, &move);
    }
}
