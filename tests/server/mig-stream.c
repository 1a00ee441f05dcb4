/*
 * vfio-user test server: the stream of device state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nothing of a stream is kept but where it is: its bytes are made when they
 * are read and checked when they come, so that 1 GiB costs no memory here.
 * What a record says about itself (its position, its length, a checksum) and
 * the pattern of its payload together tell bytes that are missing, doubled,
 * changed or in the wrong order.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "mig-internal.h"

#define BARE_SEED   0x62617265u

/* --- Pattern and checksum --- */

static void pattern_fill(uint8_t *to, uint64_t seed, uint64_t off, size_t len)
{
    while (len) {
        uint64_t word = engine_mix(seed + off / 8);
        unsigned skip = off % 8;
        size_t n = MIN(len, 8 - skip);

        memcpy(to, (uint8_t *)&word + skip, n);
        to += n;
        off += n;
        len -= n;
    }
}

/* How many bytes are as they should be. */
static size_t pattern_check(const uint8_t *at, uint64_t seed, uint64_t off,
                            size_t len)
{
    size_t done = 0;

    while (done < len) {
        uint64_t word = engine_mix(seed + (off + done) / 8);
        unsigned skip = (off + done) % 8;
        size_t n = MIN(len - done, 8 - skip);

        if (memcmp(at + done, (uint8_t *)&word + skip, n)) {
            break;
        }
        done += n;
    }
    return done;
}

static uint32_t sum_bytes(uint32_t sum, const void *data, size_t len)
{
    for (const uint8_t *p = data; len--; p++) {
        sum = (sum ^ *p) * 0x01000193u;
    }
    return sum;
}

static uint32_t record_sum(const MigRecord *record, const GByteArray *blob)
{
    uint32_t sum = sum_bytes(0x811c9dc5u, record, offsetof(MigRecord, sum));

    return blob ? sum_bytes(sum, blob->data, blob->len) : sum;
}

/* --- Giving --- */

void ts_mig_out_begin(TestServer *s, bool precopy)
{
    MigOut *out = &s->mig->out;

    ts_mig_out_end(s);
    out->since = g_get_monotonic_time();
    if (precopy && s->mig->opt.precopy) {
        out->owed = MAX(s->mig->opt.precopy, sizeof(MigRecord));
    }
}

void ts_mig_out_stop(TestServer *s)
{
    s->mig->out.final = true;
}

void ts_mig_out_end(TestServer *s)
{
    if (s->mig->out.blob) {
        g_byte_array_unref(s->mig->out.blob);
    }
    memset(&s->mig->out, 0, sizeof(s->mig->out));
}

/* Bytes of what STATE will take. */
static uint64_t out_state_len(TestServer *s)
{
    size_t least = sizeof(MigRecord) + ts_engine_state_len(s);
    bool bare = !s->mig->out.position && !s->engine &&
                s->mig->opt.size < least;

    return bare ? s->mig->opt.size : MAX(s->mig->opt.size, least);
}

uint64_t ts_mig_out_size(TestServer *s)
{
    MigOut *out = &s->mig->out;

    return out->left + (out->owed >= sizeof(MigRecord) ? out->owed : 0) +
           (out->done ? 0 : out_state_len(s));
}

static void out_begin_record(TestServer *s, uint32_t kind, uint64_t total)
{
    MigOut *out = &s->mig->out;

    out->left = total;
    out->bare = total < sizeof(MigRecord);
    if (out->blob) {
        g_byte_array_unref(out->blob);
    }
    out->blob = g_byte_array_new();
    if (kind == MIG_RECORD_STATE && s->engine) {
        ts_engine_save(s, out->blob);
    }
    out->record = (MigRecord) {
        .magic = MIG_RECORD_MAGIC,
        .kind = kind,
        .position = out->position,
        .len = total - sizeof(MigRecord),
        .seed = engine_mix(++s->mig->next_seed),
        .blob_len = out->blob->len,
    };
    out->record.sum = record_sum(&out->record, out->blob);
}

/* Whether there is a record to take bytes from. */
static bool out_has_record(TestServer *s)
{
    MigOut *out = &s->mig->out;

    if (out->left) {
        return true;
    }
    if (out->owed >= sizeof(MigRecord)) {
        out_begin_record(s, MIG_RECORD_PRECOPY, out->owed);
        out->owed = 0;
    } else if (out->final && !out->done) {
        out_begin_record(s, MIG_RECORD_STATE, out_state_len(s));
        out->done = true;
    }
    return out->left;
}

/* Up to @len bytes of the record, from one of its three parts. */
static size_t out_give(MigOut *out, uint8_t *to, size_t len)
{
    uint64_t at = sizeof(MigRecord) + out->record.len - out->left;
    uint64_t body = sizeof(MigRecord) + out->blob->len;
    size_t n = MIN(len, out->left);

    if (out->bare) {
        pattern_fill(to, BARE_SEED, out->position, n);
    } else if (at < sizeof(MigRecord)) {
        n = MIN(n, sizeof(MigRecord) - at);
        memcpy(to, (uint8_t *)&out->record + at, n);
    } else if (at < body) {
        n = MIN(n, body - at);
        memcpy(to, out->blob->data + at - sizeof(MigRecord), n);
    } else {
        pattern_fill(to, out->record.seed, at - body, n);
    }
    out->left -= n;
    out->position += n;
    return n;
}

/* What the running device has made since the last time, and with this one. */
static void out_make(TestServer *s)
{
    MigOut *out = &s->mig->out;
    int64_t now = g_get_monotonic_time();
    uint64_t made = out->fraction +
                    (uint64_t)(now - out->since) * s->mig->opt.per_second;

    out->owed += made / 1000000 + s->mig->opt.every_read;
    out->fraction = made % 1000000;
    out->since = now;
}

static void out_read_nothing(TestServer *s)
{
    MigOut *out = &s->mig->out;

    if (!out->final) {
        out->owed += s->mig->opt.per_read;
    } else if (!out->ended) {
        out->ended = true;
        ts_lock(s);
        s->mig->stats.nr_saved++;
        ts_changed_locked(s);
        ts_unlock(s);
    }
}

static size_t out_read(TestServer *s, uint8_t *to, size_t len)
{
    MigOut *out = &s->mig->out;
    size_t done = 0;

    if (!out->final) {
        out_make(s);
    }
    while (done < len && out_has_record(s)) {
        done += out_give(out, to + done, len - done);
    }
    if (!done) {
        out_read_nothing(s);
    }
    return done;
}

static bool stream_may_read(unsigned state)
{
    return state == VFIO_USER_MIG_STOP_COPY ||
           state == VFIO_USER_MIG_PRE_COPY ||
           state == VFIO_USER_MIG_PRE_COPY_P2P;
}

/* @size is what the message carries, both ways. */
static int stream_check_size(TestServer *s, uint32_t size)
{
    uint64_t limit = s->limits.max_data_xfer_size;

    return !size ? EINVAL :
           s->limits.enforce && limit && size > limit ? E2BIG : 0;
}

int ts_mig_data_read(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_mig_data head;
    uint64_t position, len, asked;
    int err;

    if (!s->mig || request->payload->len != sizeof(head) ||
        !stream_may_read(s->mig->state)) {
        return EINVAL;
    }
    memcpy(&head, request->payload->data, sizeof(head));
    asked = head.size;
    err = stream_check_size(s, asked);
    position = s->mig->out.position;
    if (!err) {
        err = ts_mig_meet(s, &(MigFailWhere) {
            .point = TS_AT_READ, .at = position, .end = position + 1,
        });
    }
    if (err) {
        return err;
    }
    len = MIN(head.size, ts_mig_read_limit(s, position) - position);
    if (s->mig->opt.max_read) {
        len = MIN(len, s->mig->opt.max_read);
    }
    g_byte_array_set_size(reply->payload, sizeof(head) + len);
    len = out_read(s, reply->payload->data + sizeof(head), len);
    head.size = len;
    head.argsz = sizeof(head) + len;
    memcpy(reply->payload->data, &head, sizeof(head));
    g_byte_array_set_size(reply->payload, head.argsz);
    if (s->like_libvfio_user) {
        g_byte_array_set_size(reply->payload, sizeof(head) + asked);
        memset(reply->payload->data + head.argsz, 0, asked - len);
    }

    ts_lock(s);
    s->mig->stats.bytes_read += len;
    ts_changed_locked(s);
    ts_unlock(s);
    return 0;
}

/* --- Taking --- */

char *ts_mig_load_error(TestServer *s)
{
    char *text;

    ts_lock(s);
    text = g_strdup(s->mig->load_error);
    ts_unlock(s);
    return text;
}

/* Notes what is wrong, the first time in a stream; returns EINVAL. */
static int in_fail(TestServer *s, const char *what, uint64_t position)
{
    ts_lock(s);
    if (!s->mig->load_error) {
        s->mig->load_error = g_strdup_printf("%s at byte %" PRIu64, what,
                                             position);
    }
    ts_unlock(s);
    return EINVAL;
}

void ts_mig_in_begin(TestServer *s)
{
    ts_mig_in_end(s);
    s->mig->in.blob = g_byte_array_new();
    ts_lock(s);
    g_free(s->mig->load_error);
    s->mig->load_error = NULL;
    ts_unlock(s);
}

void ts_mig_in_end(TestServer *s)
{
    if (s->mig->in.blob) {
        g_byte_array_unref(s->mig->in.blob);
    }
    memset(&s->mig->in, 0, sizeof(s->mig->in));
}

static int in_check_header(TestServer *s)
{
    const MigRecord *r = &s->mig->in.record;
    uint64_t start = s->mig->in.position - sizeof(*r);

    if (r->magic != MIG_RECORD_MAGIC ||
        (r->kind != MIG_RECORD_PRECOPY && r->kind != MIG_RECORD_STATE)) {
        return in_fail(s, "no record", start);
    }
    if (r->position != start) {
        return in_fail(s, "a record of another place", start);
    }
    if (r->blob_len > r->len || r->blob_len !=
        (r->kind == MIG_RECORD_STATE ? ts_engine_state_len(s) : 0)) {
        return in_fail(s, "the state of another device", start);
    }
    return 0;
}

static int in_check_sum(TestServer *s)
{
    MigIn *in = &s->mig->in;

    if (in->record.sum != record_sum(&in->record, in->blob)) {
        return in_fail(s, "a wrong checksum", in->position);
    }
    return 0;
}

static int in_take_header(TestServer *s, const uint8_t *data, size_t len)
{
    MigIn *in = &s->mig->in;
    int err = 0;

    memcpy((uint8_t *)&in->record + in->header_len, data, len);
    in->header_len += len;
    in->position += len;
    if (in->header_len == sizeof(MigRecord)) {
        g_byte_array_set_size(in->blob, 0);
        in->payload = 0;
        err = in_check_header(s);
        if (!err && !in->record.blob_len) {
            err = in_check_sum(s);
        }
    }
    return err;
}

static int in_take_payload(TestServer *s, const uint8_t *data, size_t len)
{
    MigIn *in = &s->mig->in;
    int err = 0;

    if (in->payload < in->record.blob_len) {
        g_byte_array_append(in->blob, data, len);
        in->position += len;
        if (in->blob->len == in->record.blob_len) {
            err = in_check_sum(s);
        }
    } else {
        size_t good = pattern_check(data, in->record.seed, in->payload -
                                    in->record.blob_len, len);

        in->position += good;
        err = good < len ? in_fail(s, "a wrong byte", in->position) : 0;
    }
    in->payload += len;
    return err;
}

static void in_end_record(MigIn *in)
{
    if (in->header_len == sizeof(MigRecord) &&
        in->payload == in->record.len) {
        in->done = in->record.kind == MIG_RECORD_STATE;
        in->header_len = 0;
    }
}

static int in_take(TestServer *s, const uint8_t *data, size_t len)
{
    MigIn *in = &s->mig->in;
    int err = 0;

    while (len && !err && !in->done) {
        uint64_t room;
        size_t n;

        if (in->header_len < sizeof(MigRecord)) {
            n = MIN(len, sizeof(MigRecord) - in->header_len);
            err = in_take_header(s, data, n);
        } else {
            room = in->payload < in->record.blob_len
                   ? in->record.blob_len - in->payload
                   : in->record.len - in->payload;
            n = MIN(len, room);
            err = in_take_payload(s, data, n);
        }
        in_end_record(in);
        data += n;
        len -= n;
    }
    in->beyond += err ? 0 : len;
    return err;
}

int ts_mig_data_write(TestServer *s, TsMessage *request)
{
    GByteArray *payload = request->payload;
    struct vfio_user_mig_data head;
    int err;

    if (!s->mig || s->mig->state != VFIO_USER_MIG_RESUMING ||
        payload->len < sizeof(head)) {
        return EINVAL;
    }
    memcpy(&head, payload->data, sizeof(head));
    if (head.argsz != payload->len ||
        head.size != payload->len - sizeof(head)) {
        return EINVAL;
    }
    err = stream_check_size(s, head.size);
    if (!err) {
        err = ts_mig_meet(s, &(MigFailWhere) {
            .point = TS_AT_WRITE, .at = s->mig->in.position,
            .end = s->mig->in.position + head.size,
        });
    }
    if (!err) {
        err = in_take(s, payload->data + sizeof(head), head.size);
    }
    if (!err) {
        ts_lock(s);
        s->mig->stats.bytes_written += head.size;
        ts_changed_locked(s);
        ts_unlock(s);
    }
    return err;
}

/* A stream without a header: all that came, and it must be pattern. */
static bool in_is_bare(TestServer *s)
{
    MigIn *in = &s->mig->in;

    return !s->engine && s->mig->opt.size < sizeof(MigRecord) &&
           in->position == in->header_len &&
           in->position == s->mig->opt.size &&
           pattern_check((uint8_t *)&in->record, BARE_SEED, 0,
                         in->header_len) == in->header_len;
}

int ts_mig_in_finish(TestServer *s)
{
    MigIn *in = &s->mig->in;

    if (s->mig->load_error) {
        return EINVAL;
    }
    if (in->beyond) {
        return in_fail(s, "more than the state", in->position);
    }
    if (!in->done && !in_is_bare(s)) {
        return in_fail(s, "the end", in->position);
    }
    if (s->engine && !ts_engine_load(s, in->blob)) {
        return in_fail(s, "registers that cannot be", in->position);
    }
    ts_mig_in_end(s);
    ts_lock(s);
    s->mig->stats.nr_loaded++;
    ts_changed_locked(s);
    ts_unlock(s);
    return 0;
}
