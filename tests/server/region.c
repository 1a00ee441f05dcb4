/*
 * vfio-user test server: regions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every region has memory behind it: a memfd where the client may map it,
 * anonymous pages otherwise, so that even a huge BAR costs only what is
 * touched. The default access reads and writes that memory, so a test that
 * only looks at data needs no callback.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

TsRegion *ts_region(TestServer *s, unsigned index, uint64_t size,
                    uint32_t flags)
{
    TsRegion *r;

    g_assert(index < TS_NR_REGIONS && !s->started);
    r = &s->regions[index];
    r->size = size;
    r->flags = flags;
    return r;
}

void ts_region_content(TestServer *s, unsigned index, const void *data,
                       size_t len)
{
    g_assert(index < TS_NR_REGIONS && !s->content[index]);
    s->content[index] = g_byte_array_new();
    g_byte_array_append(s->content[index], data, len);
}

void *ts_region_mem(TestServer *s, unsigned index)
{
    return s->regions[index].mem;
}

static int region_start_one(TsRegion *r, GByteArray *content)
{
    void *mem;

    if (r->flags & VFIO_USER_REGION_MMAP) {
        r->fd = memfd_create("ts-region", MFD_CLOEXEC);
        if (r->fd < 0 || ftruncate(r->fd, r->fd_offset + r->size)) {
            return errno;
        }
        mem = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED,
                   r->fd, r->fd_offset);
    } else {
        mem = mmap(NULL, r->size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (mem == MAP_FAILED) {
        return errno;
    }
    r->mem = mem;
    if (content) {
        memcpy(mem, content->data, MIN(content->len, r->size));
    }
    return 0;
}

int ts_region_start(TestServer *s)
{
    if (s->state) {
        return ts_state_start(s);
    }
    for (unsigned i = 0; i < TS_NR_REGIONS; i++) {
        if (s->regions[i].size && i != VFIO_USER_REGION_CONFIG) {
            int err = region_start_one(&s->regions[i], s->content[i]);

            if (err) {
                return err;
            }
        }
    }
    return 0;
}

void ts_region_free(TestServer *s)
{
    for (unsigned i = 0; i < TS_NR_REGIONS; i++) {
        TsRegion *r = &s->regions[i];

        if (r->mem && i != VFIO_USER_REGION_CONFIG &&
            !ts_state_has(s, r->mem)) {
            munmap(r->mem, r->size);
        }
        if (r->fd >= 0) {
            close(r->fd);
        }
        if (s->content[i]) {
            g_byte_array_unref(s->content[i]);
        }
    }
}

static void region_append_sparse(GByteArray *caps, const TsRegion *r)
{
    struct vfio_user_cap_sparse cap = {
        .header = { VFIO_USER_CAP_SPARSE_MMAP, 1, 0 },
        .nr_areas = r->nr_areas,
    };

    g_byte_array_append(caps, (guint8 *)&cap, sizeof(cap));
    for (unsigned i = 0; i < r->nr_areas; i++) {
        struct vfio_user_sparse_area area = {
            r->areas[i].offset, r->areas[i].size,
        };

        g_byte_array_append(caps, (guint8 *)&area, sizeof(area));
    }
}

/* The capability chain, as it follows a region info. */
static GByteArray *region_caps(const TsRegion *r)
{
    GByteArray *caps = g_byte_array_new();

    if (r->nr_areas) {
        region_append_sparse(caps, r);
    }
    if (r->has_type) {
        struct vfio_user_cap_type cap = {
            .header = { VFIO_USER_CAP_TYPE, 1, 0 },
            .type = r->type,
            .subtype = r->subtype,
        };

        if (caps->len) {
            ((struct vfio_user_cap_header *)(void *)caps->data)->next =
                sizeof(struct vfio_user_region_info) + caps->len;
        }
        g_byte_array_append(caps, (guint8 *)&cap, sizeof(cap));
    }
    return caps;
}

int ts_region_get_info(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_region_info info;
    g_autoptr(GByteArray) caps = NULL;
    const TsRegion *r;
    uint32_t room;

    if (request->payload->len < sizeof(info)) {
        return EINVAL;
    }
    memcpy(&info, request->payload->data, sizeof(info));
    room = info.argsz;
    if (room < sizeof(info) || info.index >= s->info.num_regions ||
        info.index >= TS_NR_REGIONS) {
        return EINVAL;
    }
    r = &s->regions[info.index];
    caps = region_caps(r);
    info.argsz = sizeof(info) + caps->len;
    info.flags = r->flags;
    info.cap_offset = 0;
    info.size = r->size;
    info.offset = r->fd_offset;
    if (caps->len) {
        info.flags |= VFIO_USER_REGION_CAPS;
        info.cap_offset = room >= info.argsz ? sizeof(info) : 0;
    }
    g_byte_array_append(reply->payload, (guint8 *)&info, sizeof(info));
    if (info.cap_offset) {
        g_byte_array_append(reply->payload, caps->data, caps->len);
    }
    if (r->fd >= 0) {
        ts_message_add_fd(reply, r->fd);
    }
    return 0;
}

static int region_memory_access(TsRegion *r, uint64_t offset, void *data,
                                uint32_t len, bool write)
{
    if (write) {
        memcpy(r->mem + offset, data, len);
    } else {
        memcpy(data, r->mem + offset, len);
    }
    return 0;
}

static int region_access(TestServer *s, uint32_t index, uint64_t offset,
                         void *data, uint32_t len, bool write)
{
    uint32_t need = write ? VFIO_USER_REGION_WRITEABLE
                          : VFIO_USER_REGION_READABLE;
    uint64_t limit = s->limits.max_data_xfer_size;
    TsRegion *r;

    if (index >= TS_NR_REGIONS || index >= s->info.num_regions) {
        return EINVAL;
    }
    r = &s->regions[index];
    if (!(r->flags & need) || offset > r->size || len > r->size - offset) {
        return EINVAL;
    }
    if (s->limits.enforce && limit && len > limit) {
        return E2BIG;
    }
    if (r->access) {
        return r->access(s, index, offset, data, len, write, r->opaque);
    }
    return region_memory_access(r, offset, data, len, write);
}

int ts_region_read(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_region_rw rw;

    if (request->payload->len != sizeof(rw)) {
        return EINVAL;
    }
    memcpy(&rw, request->payload->data, sizeof(rw));
    if (rw.count > VFIO_USER_DEFAULT_MAX_DATA_XFER) {
        return E2BIG;
    }
    g_byte_array_append(reply->payload, (guint8 *)&rw, sizeof(rw));
    g_byte_array_set_size(reply->payload, sizeof(rw) + rw.count);
    memset(reply->payload->data + sizeof(rw), 0, rw.count);
    return region_access(s, rw.region, rw.offset,
                         reply->payload->data + sizeof(rw), rw.count, false);
}

int ts_region_write(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_region_rw rw;

    if (request->payload->len < sizeof(rw)) {
        return EINVAL;
    }
    memcpy(&rw, request->payload->data, sizeof(rw));
    if (request->payload->len - sizeof(rw) != rw.count) {
        return EINVAL;
    }
    g_byte_array_append(reply->payload, (guint8 *)&rw, sizeof(rw));
    return region_access(s, rw.region, rw.offset,
                         request->payload->data + sizeof(rw), rw.count, true);
}

int ts_region_write_multi(TestServer *s, TsMessage *request,
                          TsMessage *reply)
{
    struct vfio_user_write_multi_entry e;
    struct vfio_user_write_multi multi, done = { 0 };
    const uint8_t *at = request->payload->data + sizeof(multi);

    if (!s->limits.write_multiple) {
        return ENOTSUP;
    }
    if (request->payload->len < sizeof(multi)) {
        return EINVAL;
    }
    memcpy(&multi, request->payload->data, sizeof(multi));
    if (multi.wr_cnt != (request->payload->len - sizeof(multi)) / sizeof(e) ||
        (request->payload->len - sizeof(multi)) % sizeof(e)) {
        return EINVAL;
    }
    for (uint64_t i = 0; i < multi.wr_cnt; i++, at += sizeof(e)) {
        memcpy(&e, at, sizeof(e));
        if (e.count < 1 || e.count > sizeof(e.data) ||
            region_access(s, e.region, e.offset, e.data, e.count, true)) {
            break;
        }
        done.wr_cnt++;
    }
    g_byte_array_append(reply->payload, (guint8 *)&done, sizeof(done));
    return 0;
}
