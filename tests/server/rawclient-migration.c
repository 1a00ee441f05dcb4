/*
 * vfio-user raw client: migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Numbers and offsets are typed from the protocol.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "rawclient.h"

#define FEATURE_GET     (1u << 16)
#define FEATURE_SET     (1u << 17)

int rc_feature(RawClient *c, uint32_t flags, const void *data, size_t len,
               uint32_t room)
{
    uint32_t head[2] = { room ? room : 8 + len, flags };
    g_autoptr(GByteArray) msg = g_byte_array_new();

    g_byte_array_append(msg, (guint8 *)head, sizeof(head));
    if (len) {
        g_byte_array_append(msg, data, len);
    }
    return rc_call(c, 16, msg->data, msg->len);
}

int rc_set_state(RawClient *c, uint32_t state)
{
    uint32_t data[2] = { state, 0 };
    int err = rc_feature(c, 2 | FEATURE_SET, data, sizeof(data), 0);

    /* A reply to set repeats the request. */
    if (!err && (c->len != 16 || memcmp(c->payload + 8, data, 8))) {
        return -1;
    }
    return err;
}

int rc_get_state(RawClient *c)
{
    uint32_t words[4];

    if (rc_feature(c, 2 | FEATURE_GET, NULL, 0, 16) || c->len != 16) {
        return -1;
    }
    memcpy(words, c->payload, sizeof(words));
    return words[0] == 16 && words[1] == (2 | FEATURE_GET) ? (int)words[2]
                                                            : -1;
}

int rc_mig_read(RawClient *c, uint32_t size)
{
    uint32_t head[2] = { 8, size };
    int err = rc_call(c, 17, head, sizeof(head));

    if (err) {
        return err < 0 ? -EPROTO : -err;
    }
    if (c->len < 8) {
        return -EPROTO;
    }
    memcpy(head, c->payload, sizeof(head));
    return head[0] == c->len && head[1] == c->len - 8 && head[1] <= size
           ? (int)head[1] : -EPROTO;
}

int rc_mig_write(RawClient *c, const void *data, uint32_t size)
{
    uint32_t head[2] = { 8 + size, size };
    g_autoptr(GByteArray) msg = g_byte_array_new();
    int err;

    g_byte_array_append(msg, (guint8 *)head, sizeof(head));
    g_byte_array_append(msg, data, size);
    err = rc_call(c, 18, msg->data, msg->len);
    return !err && c->len ? -1 : err;
}

int64_t rc_mig_save(RawClient *c, GByteArray *into, uint32_t chunk)
{
    int64_t total = 0;
    int got;

    while ((got = rc_mig_read(c, chunk)) > 0) {
        if (into) {
            g_byte_array_append(into, c->payload + 8, got);
        }
        total += got;
    }
    return got < 0 ? got : total;
}

int rc_mig_load(RawClient *c, const void *data, size_t len, uint32_t chunk)
{
    int err = 0;

    for (size_t at = 0; at < len && !err; at += chunk) {
        err = rc_mig_write(c, (const uint8_t *)data + at,
                           MIN(chunk, len - at));
    }
    return err;
}

int rc_log_start(RawClient *c, uint64_t page)
{
    uint64_t data[2] = { page, 0 };

    return rc_feature(c, 6 | FEATURE_SET, data, sizeof(data), 0);
}

int rc_log_stop(RawClient *c)
{
    return rc_feature(c, 7 | FEATURE_SET, NULL, 0, 0);
}

int rc_log_report(RawClient *c, uint64_t iova, uint64_t len, uint64_t page)
{
    uint64_t data[3] = { iova, len, page };
    size_t bitmap = ((len + page - 1) / page + 63) / 64 * 8;
    int err = rc_feature(c, 8 | FEATURE_GET, data, sizeof(data),
                         32 + bitmap);

    if (!err && (c->len != 32 + bitmap || memcmp(c->payload + 8, data, 24))) {
        return -1;
    }
    return err;
}
