/*
 * vfio-user test server: moves, the ways in which a reply goes wrong
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every reply passes here. The moves that apply to it change the payload and
 * the descriptors first, then the bytes of the header as they would be sent,
 * and last the way of sending; within each step in the order in which they
 * were added. A move never touches the server's own state, so a device that
 * lied goes on working.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

/* What the moves decided about sending. */
typedef struct SendPlan {
    bool drop, close, twice;
    bool truncate, split;
    uint64_t truncate_at, split_at;
    int64_t delay_ms, split_ms;
} SendPlan;

void ts_add_move(TestServer *s, const TsMove *move)
{
    TsMoveState state = { .move = *move };

    ts_lock(s);
    g_array_append_val(s->moves, state);
    ts_unlock(s);
}

void ts_clear_moves(TestServer *s)
{
    ts_lock(s);
    g_array_set_size(s->moves, 0);
    ts_unlock(s);
}

unsigned ts_nr_moves_made(TestServer *s)
{
    unsigned nr;

    ts_lock(s);
    nr = s->nr_moves_made;
    ts_unlock(s);
    return nr;
}

/* Collects the moves that are due for this reply. */
static GArray *mischief_due(TestServer *s, unsigned command, int index)
{
    GArray *due = g_array_new(FALSE, FALSE, sizeof(TsMove));

    ts_lock(s);
    for (unsigned i = 0; i < s->moves->len; i++) {
        TsMoveState *st = &g_array_index(s->moves, TsMoveState, i);

        if ((st->move.command >= 0 && st->move.command != (int)command) ||
            (st->move.index >= 0 && st->move.index != index)) {
            continue;
        }
        if (st->seen++ < st->move.skip ||
            (st->move.times && st->made >= st->move.times)) {
            continue;
        }
        st->made++;
        s->nr_moves_made++;
        ts_changed_locked(s);
        g_array_append_val(due, st->move);
    }
    ts_unlock(s);
    return due;
}

static void mischief_patch(GByteArray *bytes, const TsMove *move)
{
    unsigned width = move->width ? move->width : 4;

    if (move->a + width > bytes->len) {
        return;     /* an error reply, say, has no such place */
    }
    memcpy(bytes->data + move->a, &move->b, width);
}

static void mischief_drop_fds(TsMessage *reply)
{
    for (unsigned i = 0; i < reply->nr_fds; i++) {
        close(reply->fds[i]);
    }
    reply->nr_fds = 0;
}

static void mischief_add_fds(TsMessage *reply, uint64_t nr)
{
    int fd = memfd_create("ts-extra", MFD_CLOEXEC);

    g_assert(fd >= 0);
    while (nr--) {
        ts_message_add_fd(reply, fd);
    }
    close(fd);
}

static void mischief_pad(GByteArray *payload, uint64_t nr)
{
    while (nr--) {
        g_byte_array_append(payload, (const guint8 *)"\xa5", 1);
    }
}

static void mischief_change(TestServer *s, TsMessage *reply,
                            const TsMove *move)
{
    switch (move->kind) {
    case TS_MOVE_ERROR:
        reply->hdr.flags |= VFIO_USER_ERROR;
        reply->hdr.error = move->a;
        g_byte_array_set_size(reply->payload, 0);
        mischief_drop_fds(reply);
        break;
    case TS_MOVE_PATCH:
        mischief_patch(reply->payload, move);
        break;
    case TS_MOVE_CUT:
        g_byte_array_set_size(reply->payload,
                              MIN(move->a, reply->payload->len));
        break;
    case TS_MOVE_PAD:
        mischief_pad(reply->payload, move->a);
        break;
    case TS_MOVE_REPLACE:
        g_byte_array_set_size(reply->payload, 0);
        g_byte_array_append(reply->payload, (const guint8 *)move->text,
                            strlen(move->text) + 1);
        break;
    case TS_MOVE_EXTRA_FDS:
        mischief_add_fds(reply, move->a);
        break;
    case TS_MOVE_NO_FDS:
        mischief_drop_fds(reply);
        break;
    case TS_MOVE_CALL:
        move->call(s, reply, move->opaque);
        break;
    default:
        break;
    }
}

static void mischief_plan(SendPlan *plan, const TsMove *move)
{
    switch (move->kind) {
    case TS_MOVE_DROP:
        plan->drop = true;
        break;
    case TS_MOVE_CLOSE:
        plan->close = true;
        break;
    case TS_MOVE_DELAY:
        plan->delay_ms = move->a;
        break;
    case TS_MOVE_TWICE:
        plan->twice = true;
        break;
    case TS_MOVE_TRUNCATE:
        plan->truncate = true;
        plan->truncate_at = move->a;
        break;
    case TS_MOVE_SPLIT:
        plan->split = true;
        plan->split_at = move->a;
        plan->split_ms = move->b;
        break;
    default:
        break;
    }
}

/* Lets time pass, unless the connection ends first. */
static void mischief_pause(TestServer *s, int64_t ms)
{
    int64_t deadline = ts_deadline(ms);
    bool more = ms > 0;

    ts_lock(s);
    while (more && !s->stopping && !s->dead) {
        more = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
}

static int mischief_transmit(TestServer *s, const SendPlan *plan,
                             GByteArray *bytes, TsMessage *reply)
{
    size_t len = bytes->len, first = len;
    int err;

    mischief_pause(s, plan->delay_ms);
    if (plan->truncate) {
        len = first = MIN(len, plan->truncate_at);
    } else if (plan->split) {
        first = MIN(len, plan->split_at);
    }
    err = ts_transport_send_raw(s, s->conn_fd, bytes->data, first,
                                reply->fds, reply->nr_fds);
    if (!err && first < len) {
        mischief_pause(s, plan->split_ms);
        err = ts_transport_send_raw(s, s->conn_fd, bytes->data + first,
                                    len - first, NULL, 0);
    }
    return err ? err : plan->truncate ? ENOTCONN : 0;
}

int ts_mischief_send(TestServer *s, int index, TsMessage *reply)
{
    g_autoptr(GArray) due = mischief_due(s, reply->hdr.command, index);
    g_autoptr(GByteArray) bytes = NULL;
    SendPlan plan = { 0 };
    unsigned copies;
    int err = 0;

    if (!due->len) {
        return ts_transport_send(s, s->conn_fd, reply);
    }
    for (unsigned i = 0; i < due->len; i++) {
        mischief_change(s, reply, &g_array_index(due, TsMove, i));
        mischief_plan(&plan, &g_array_index(due, TsMove, i));
    }
    reply->hdr.size = sizeof(reply->hdr) + reply->payload->len;
    bytes = ts_transport_flatten(reply);
    for (unsigned i = 0; i < due->len; i++) {
        if (g_array_index(due, TsMove, i).kind == TS_MOVE_HEADER) {
            mischief_patch(bytes, &g_array_index(due, TsMove, i));
        }
    }
    if (plan.close) {
        return ENOTCONN;
    }
    copies = plan.drop ? 0 : plan.twice ? 2 : 1;
    while (copies-- && !err) {
        err = mischief_transmit(s, &plan, bytes, reply);
    }
    return err;
}

const TsMischief *ts_mischief_find(const char *name)
{
    for (unsigned i = 0; i < ts_nr_mischiefs; i++) {
        if (!strcmp(ts_mischiefs[i].name, name)) {
            return &ts_mischiefs[i];
        }
    }
    return NULL;
}

void ts_mischief_apply(TestServer *s, const TsMischief *mischief)
{
    for (unsigned i = 0; i < TS_MISCHIEF_MOVES; i++) {
        if (i < mischief->nr_moves) {
            ts_add_move(s, &mischief->moves[i]);
        }
    }
    if (mischief->setup) {
        mischief->setup(s);
    }
}
