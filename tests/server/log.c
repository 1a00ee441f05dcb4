/*
 * vfio-user test server: what came, in order
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A record is written after its command was carried out and before it is
 * answered: a test that waits for one finds the command's effect, and a
 * client that has its reply finds the record.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "internal.h"

static const char *const command_names[VFIO_USER_COMMAND_MAX] = {
    [VFIO_USER_VERSION] = "VERSION",
    [VFIO_USER_DMA_MAP] = "DMA_MAP",
    [VFIO_USER_DMA_UNMAP] = "DMA_UNMAP",
    [VFIO_USER_DEVICE_GET_INFO] = "DEVICE_GET_INFO",
    [VFIO_USER_DEVICE_GET_REGION_INFO] = "DEVICE_GET_REGION_INFO",
    [VFIO_USER_DEVICE_GET_REGION_IO_FDS] = "DEVICE_GET_REGION_IO_FDS",
    [VFIO_USER_DEVICE_GET_IRQ_INFO] = "DEVICE_GET_IRQ_INFO",
    [VFIO_USER_DEVICE_SET_IRQS] = "DEVICE_SET_IRQS",
    [VFIO_USER_REGION_READ] = "REGION_READ",
    [VFIO_USER_REGION_WRITE] = "REGION_WRITE",
    [VFIO_USER_DMA_READ] = "DMA_READ",
    [VFIO_USER_DMA_WRITE] = "DMA_WRITE",
    [VFIO_USER_DEVICE_RESET] = "DEVICE_RESET",
    [VFIO_USER_DIRTY_PAGES] = "DIRTY_PAGES",
    [VFIO_USER_REGION_WRITE_MULTI] = "REGION_WRITE_MULTI",
    [VFIO_USER_DEVICE_FEATURE] = "DEVICE_FEATURE",
    [VFIO_USER_MIG_DATA_READ] = "MIG_DATA_READ",
    [VFIO_USER_MIG_DATA_WRITE] = "MIG_DATA_WRITE",
};

const char *ts_command_name(unsigned command)
{
    if (command < VFIO_USER_COMMAND_MAX && command_names[command]) {
        return command_names[command];
    }
    return "?";
}

static bool log_payload(const TsMessage *request, void *into, size_t len)
{
    if (request->payload->len < len) {
        return false;
    }
    memcpy(into, request->payload->data, len);
    return true;
}

static size_t log_region_rw(TsRecord *r, const TsMessage *request)
{
    struct vfio_user_region_rw rw;

    if (!log_payload(request, &rw, sizeof(rw))) {
        return 0;
    }
    r->index = rw.region;
    r->offset = rw.offset;
    r->count = rw.count;
    return sizeof(rw);
}

static size_t log_set_irqs(TsRecord *r, const TsMessage *request)
{
    struct vfio_user_irq_set set;

    if (!log_payload(request, &set, sizeof(set))) {
        return 0;
    }
    r->index = set.index;
    r->offset = set.start;
    r->count = set.count;
    r->set_flags = set.flags;
    return sizeof(set);
}

static size_t log_map(TsRecord *r, const TsMessage *request)
{
    struct vfio_user_dma_map map;

    if (!log_payload(request, &map, sizeof(map))) {
        return 0;
    }
    r->offset = map.addr;
    r->count = map.size;
    r->set_flags = map.flags;
    return sizeof(map);
}

static size_t log_unmap(TsRecord *r, const TsMessage *request)
{
    struct vfio_user_dma_unmap unmap;

    if (!log_payload(request, &unmap, sizeof(unmap))) {
        return 0;
    }
    r->offset = unmap.addr;
    r->count = unmap.size;
    r->set_flags = unmap.flags;
    return sizeof(unmap);
}

static size_t log_feature(TsRecord *r, const TsMessage *request)
{
    struct vfio_user_feature f;

    if (!log_payload(request, &f, sizeof(f))) {
        return 0;
    }
    r->index = f.flags & VFIO_USER_FEATURE_MASK;
    r->set_flags = f.flags;
    r->count = f.argsz;
    return sizeof(f);
}

static size_t log_mig_data(TsRecord *r, const TsMessage *request)
{
    struct vfio_user_mig_data data;

    if (!log_payload(request, &data, sizeof(data))) {
        return 0;
    }
    r->count = data.size;
    return sizeof(data);
}

/* REGION_INFO and IO_FDS, IRQ_INFO: all have the index as third word. */
static size_t log_index(TsRecord *r, const TsMessage *request)
{
    uint32_t words[3];

    if (log_payload(request, words, sizeof(words))) {
        r->index = words[2];
    }
    return request->payload->len;
}

/* Fills in what the command says; returns where its data begins. */
static size_t log_describe(TsRecord *r, const TsMessage *request)
{
    switch (request->hdr.command) {
    case VFIO_USER_REGION_READ:
    case VFIO_USER_REGION_WRITE:
        return log_region_rw(r, request);
    case VFIO_USER_DEVICE_SET_IRQS:
        return log_set_irqs(r, request);
    case VFIO_USER_DMA_MAP:
        return log_map(r, request);
    case VFIO_USER_DMA_UNMAP:
        return log_unmap(r, request);
    case VFIO_USER_DEVICE_GET_REGION_INFO:
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
        return log_index(r, request);
    case VFIO_USER_DEVICE_FEATURE:
        return log_feature(r, request);
    case VFIO_USER_MIG_DATA_READ:
    case VFIO_USER_MIG_DATA_WRITE:
        return log_mig_data(r, request);
    default:
        return 0;
    }
}

int ts_request_index(const TsMessage *request)
{
    TsRecord r = { .index = UINT32_MAX };

    log_describe(&r, request);
    return r.index;
}

void ts_log_request(TestServer *s, const TsMessage *request, int error)
{
    TsRecord r = {
        .id = request->hdr.id,
        .command = request->hdr.command,
        .flags = request->hdr.flags,
        .nr_fds = request->nr_fds,
        .index = UINT32_MAX,
        .error = error,
    };
    size_t skip = log_describe(&r, request);

    r.len = request->payload->len - skip;
    if (r.len) {
        memcpy(r.data, request->payload->data + skip,
               MIN(r.len, sizeof(r.data)));
    }
    ts_lock(s);
    if (s->log_on) {
        r.seq = s->log_seq++;
        r.client = s->nr_clients;
        g_array_append_val(s->log, r);
        ts_changed_locked(s);
    }
    ts_unlock(s);
}

void ts_log_enable(TestServer *s, bool on)
{
    ts_lock(s);
    s->log_on = on;
    ts_unlock(s);
}

void ts_log_clear(TestServer *s)
{
    ts_lock(s);
    g_array_set_size(s->log, 0);
    ts_unlock(s);
}

static bool log_matches(const TsRecord *r, TsMatch match)
{
    return (match.command < 0 || r->command == match.command) &&
           (match.index < 0 || r->index == (uint32_t)match.index) &&
           (match.offset < 0 || r->offset == (uint64_t)match.offset);
}

static unsigned log_count_locked(TestServer *s, TsMatch match)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < s->log->len; i++) {
        nr += log_matches(&g_array_index(s->log, TsRecord, i), match);
    }
    return nr;
}

unsigned ts_log_count(TestServer *s, TsMatch match)
{
    unsigned nr;

    ts_lock(s);
    nr = log_count_locked(s, match);
    ts_unlock(s);
    return nr;
}

bool ts_log_get(TestServer *s, TsMatch match, unsigned nth, TsRecord *record)
{
    bool found = false;

    ts_lock(s);
    for (unsigned i = 0; i < s->log->len && !found; i++) {
        const TsRecord *r = &g_array_index(s->log, TsRecord, i);

        if (log_matches(r, match) && nth-- == 0) {
            *record = *r;
            found = true;
        }
    }
    ts_unlock(s);
    return found;
}

bool ts_log_wait(TestServer *s, TsMatch match, unsigned nr)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && log_count_locked(s, match) < nr) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

static void log_append_text(GString *text, const TsRecord *r)
{
    g_string_append_printf(text, "%" PRIu64 " %s", r->seq,
                           ts_command_name(r->command));
    if (r->index != UINT32_MAX) {
        g_string_append_printf(text, " index %u", r->index);
    }
    g_string_append_printf(text, " at 0x%" PRIx64 " count 0x%" PRIx64
                           " flags 0x%x fds %u", r->offset, r->count,
                           r->set_flags, r->nr_fds);
    for (size_t i = 0; i < MIN(r->len, 8); i++) {
        g_string_append_printf(text, "%s%02x", i ? "" : " data ", r->data[i]);
    }
    if (r->error) {
        g_string_append_printf(text, " -> %s", g_strerror(r->error));
    }
    g_string_append_c(text, '\n');
}

char *ts_log_text(TestServer *s)
{
    GString *text = g_string_new(NULL);

    ts_lock(s);
    for (unsigned i = 0; i < s->log->len; i++) {
        log_append_text(text, &g_array_index(s->log, TsRecord, i));
    }
    ts_unlock(s);
    return g_string_free(text, FALSE);
}
