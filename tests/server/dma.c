/*
 * vfio-user test server: the client's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Windows are kept in the order of their addresses and never overlap. A
 * window that came with an fd is mapped at once and the fd closed, after its
 * identity (device, inode, offset) has been noted for the tests. Everything
 * that touches a mapping runs on the server's thread, which also does the
 * unmapping, so no access can meet a window that goes away.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <unistd.h>
#include "internal.h"

void ts_dma_by_message_only(TestServer *s)
{
    s->message_only = true;
}

static TsWindow *dma_at(TestServer *s, unsigned i)
{
    return &g_array_index(s->windows, TsWindow, i);
}

/* The first window that ends after @addr; s->windows->len without one. */
static unsigned dma_position(TestServer *s, uint64_t addr)
{
    unsigned i = 0;

    while (i < s->windows->len && dma_at(s, i)->size - 1 <
           addr - dma_at(s, i)->addr && dma_at(s, i)->addr <= addr) {
        i++;
    }
    return i;
}

static TsWindow *dma_covering(TestServer *s, uint64_t addr, uint64_t len)
{
    unsigned i = dma_position(s, addr);
    TsWindow *w;

    if (i == s->windows->len) {
        return NULL;
    }
    w = dma_at(s, i);
    if (addr < w->addr || len > w->size || addr - w->addr > w->size - len) {
        return NULL;
    }
    return w;
}

/* What mmap() and munmap() of the file want to be multiples. */
static uint64_t dma_page_size(int fd)
{
    struct statfs fs;

    return !fstatfs(fd, &fs) && fs.f_type == HUGETLBFS_MAGIC ?
           fs.f_bsize : sysconf(_SC_PAGESIZE);
}

static int dma_map_fd(TsWindow *w, int fd)
{
    uint64_t page = dma_page_size(fd);
    uint64_t skip = w->offset % page;
    int prot = (w->flags & VFIO_USER_DMA_READABLE ? PROT_READ : 0) |
               (w->flags & VFIO_USER_DMA_WRITEABLE ? PROT_WRITE : 0);
    struct stat st;
    uint64_t len;
    void *base;

    if (fstat(fd, &st)) {
        return errno;
    }
    len = (w->size + skip + page - 1) / page * page;
    base = mmap(NULL, len, prot, MAP_SHARED, fd, w->offset - skip);
    if (base == MAP_FAILED) {
        return errno;
    }
    w->dev = st.st_dev;
    w->ino = st.st_ino;
    w->map_base = base;
    w->map_len = len;
    w->ptr = w->map_base + skip;
    return 0;
}

static int dma_check_map(TestServer *s, const struct vfio_user_dma_map *map,
                         const TsMessage *request)
{
    uint64_t page = s->limits.pgsizes ? s->limits.pgsizes & -s->limits.pgsizes
                                      : VFIO_USER_DEFAULT_PGSIZES;
    unsigned i;

    if (map->argsz != sizeof(*map) || request->nr_fds > 1 ||
        map->flags & ~(VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE) ||
        !map->flags || map->size == 0 || map->addr + (map->size - 1) <
        map->addr || (map->addr | map->size) & (page - 1) ||
        (!request->nr_fds && map->offset)) {
        return EINVAL;
    }
    i = dma_position(s, map->addr);
    if (i < s->windows->len &&
        dma_at(s, i)->addr <= map->addr + (map->size - 1)) {
        return EEXIST;
    }
    if (s->limits.max_dma_maps && s->windows->len >= s->limits.max_dma_maps) {
        return ENOSPC;
    }
    return 0;
}

int ts_dma_map(TestServer *s, TsMessage *request)
{
    struct vfio_user_dma_map map;
    TsWindow w = { 0 };
    int err;

    if (request->payload->len != sizeof(map)) {
        return EINVAL;
    }
    memcpy(&map, request->payload->data, sizeof(map));
    err = dma_check_map(s, &map, request);
    if (err) {
        return err;
    }
    w.addr = map.addr;
    w.size = map.size;
    w.offset = map.offset;
    w.flags = map.flags;
    w.has_fd = request->nr_fds == 1;
    if (w.has_fd && !s->message_only) {
        err = dma_map_fd(&w, request->fds[0]);
        if (err) {
            return err;
        }
    }
    ts_lock(s);
    ts_dirty_window_added_locked(s, &w);
    g_array_insert_val(s->windows, dma_position(s, map.addr), w);
    ts_changed_locked(s);
    ts_unlock(s);
    return 0;
}

static void dma_remove(TestServer *s, unsigned i)
{
    TsWindow *w = dma_at(s, i);

    if (w->ptr) {
        munmap(w->map_base, w->map_len);
    }
    ts_lock(s);
    g_free(w->dirty);
    g_array_remove_index(s->windows, i);
    ts_changed_locked(s);
    ts_unlock(s);
}

int ts_dma_unmap(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_dma_unmap unmap;
    unsigned i;

    if (request->payload->len != sizeof(unmap)) {
        return EINVAL;
    }
    memcpy(&unmap, request->payload->data, sizeof(unmap));
    if (unmap.argsz != sizeof(unmap) || unmap.flags || request->nr_fds) {
        return EINVAL;
    }
    i = dma_position(s, unmap.addr);
    if (i == s->windows->len || dma_at(s, i)->addr != unmap.addr ||
        dma_at(s, i)->size != unmap.size) {
        return ENOENT;
    }
    dma_remove(s, i);
    if (!s->like_libvfio_user) {
        g_byte_array_append(reply->payload, (guint8 *)&unmap, sizeof(unmap));
    }
    return 0;
}

void ts_dma_client_gone(TestServer *s)
{
    ts_dirty_client_gone(s);
    while (s->windows->len) {
        dma_remove(s, s->windows->len - 1);
    }
}

unsigned ts_dma_nr_windows(TestServer *s)
{
    unsigned nr;

    ts_lock(s);
    nr = s->windows->len;
    ts_unlock(s);
    return nr;
}

bool ts_dma_window(TestServer *s, unsigned i, TsWindow *window)
{
    bool ok;

    ts_lock(s);
    ok = i < s->windows->len;
    if (ok) {
        *window = *dma_at(s, i);
    }
    ts_unlock(s);
    return ok;
}

bool ts_dma_find(TestServer *s, uint64_t addr, TsWindow *window)
{
    TsWindow *w;

    ts_lock(s);
    w = dma_covering(s, addr, 1);
    if (w && window) {
        *window = *w;
    }
    ts_unlock(s);
    return w != NULL;
}

bool ts_dma_wait_window(TestServer *s, uint64_t addr, bool there)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && (dma_covering(s, addr, 1) != NULL) != there) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

bool ts_dma_wait_nr_windows(TestServer *s, unsigned nr)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && s->windows->len != nr) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

/*
 * Takes the reply to command @id off the connection; commands of the client
 * that come first are put aside unless they arrive on a twin socket, where
 * they are a mistake, or the server is one that cannot do that.
 */
static int dma_receive_reply(TestServer *s, int fd, uint16_t id,
                             TsMessage *reply)
{
    for (;;) {
        int err = ts_transport_receive(s, fd, reply);
        bool is_reply;

        if (err) {
            ts_fail_connection(s);
            return err;
        }
        is_reply = (reply->hdr.flags & VFIO_USER_TYPE_MASK) ==
                   VFIO_USER_TYPE_REPLY;
        if (is_reply && reply->hdr.id == id) {
            return 0;
        }
        if (is_reply || fd == s->twin_fd || s->limits.no_crossing) {
            ts_message_clear(reply);
            ts_fail_connection(s);
            return EPROTO;
        }
        g_queue_push_tail(&s->deferred, g_memdup2(reply, sizeof(*reply)));
    }
}

static int dma_check_reply(TsMessage *reply, uint16_t command,
                           const struct vfio_user_dma_rw *rw, void *buf,
                           size_t len)
{
    size_t want = sizeof(*rw) + (command == VFIO_USER_DMA_READ ? len : 0);

    if (reply->hdr.command != command) {
        return EPROTO;
    }
    if (reply->hdr.flags & VFIO_USER_ERROR) {
        return reply->payload->len ? EPROTO
                                   : (int)reply->hdr.error ?: EIO;
    }
    if (reply->payload->len != want ||
        memcmp(reply->payload->data, rw, sizeof(*rw))) {
        return EPROTO;
    }
    if (command == VFIO_USER_DMA_READ) {
        memcpy(buf, reply->payload->data + sizeof(*rw), len);
    }
    return 0;
}

typedef struct DmaCommand {
    uint16_t command;
    uint32_t flags;
    struct vfio_user_dma_rw rw;
    void *buf;
    size_t len;
    int err;
} DmaCommand;

static void dma_run_command(TestServer *s, void *opaque)
{
    DmaCommand *c = opaque;
    int fd = s->twin_fd >= 0 ? s->twin_fd : s->conn_fd;
    TsMessage msg, reply;
    uint16_t id = s->next_id++;

    if (fd < 0 || !s->negotiated) {
        c->err = ENOTCONN;
        return;
    }
    ts_message_init(&msg);
    msg.hdr.id = id;
    msg.hdr.command = c->command;
    msg.hdr.flags = VFIO_USER_TYPE_COMMAND | c->flags;
    g_byte_array_append(msg.payload, (guint8 *)&c->rw, sizeof(c->rw));
    if (c->command == VFIO_USER_DMA_WRITE) {
        g_byte_array_append(msg.payload, c->buf, c->len);
    }
    c->err = ts_transport_send(s, fd, &msg);
    ts_message_clear(&msg);
    if (c->err || c->flags & VFIO_USER_NO_REPLY) {
        return;
    }
    c->err = dma_receive_reply(s, fd, id, &reply);
    if (!c->err) {
        c->err = dma_check_reply(&reply, c->command, &c->rw, c->buf, c->len);
        ts_message_clear(&reply);
    }
}

int ts_dma_command_flags(TestServer *s, uint16_t command, uint32_t flags,
                         uint64_t addr, uint64_t count, void *buf, size_t len)
{
    DmaCommand c = {
        .command = command,
        .flags = flags,
        .rw = { addr, count },
        .buf = buf,
        .len = len,
    };

    return ts_run(s, dma_run_command, &c) ? c.err : ETIMEDOUT;
}

int ts_dma_command(TestServer *s, uint16_t command, uint64_t addr,
                   uint64_t count, void *buf, size_t len)
{
    return ts_dma_command_flags(s, command, 0, addr, count, buf, len);
}

typedef struct DmaTransfer {
    bool write;
    uint64_t addr;
    uint8_t *buf;
    size_t len;
    TsDmaWay way;
    int err;
} DmaTransfer;

static void dma_by_message(TestServer *s, DmaTransfer *t)
{
    uint64_t limit = ts_client_limit(s, "max_data_xfer_size",
                                     VFIO_USER_DEFAULT_MAX_DATA_XFER);
    size_t done = 0;

    while (done < t->len && !t->err) {
        size_t len = MIN(t->len - done, limit);

        t->err = ts_dma_command(s, t->write ? VFIO_USER_DMA_WRITE
                                            : VFIO_USER_DMA_READ,
                                t->addr + done, len, t->buf + done, len);
        done += len;
    }
}

static void dma_run_transfer(TestServer *s, void *opaque)
{
    DmaTransfer *t = opaque;
    TsWindow *w = dma_covering(s, t->addr, t->len);
    uint32_t need = t->write ? VFIO_USER_DMA_WRITEABLE
                             : VFIO_USER_DMA_READABLE;

    if (!w || !(w->flags & need) || (t->way == TS_DMA_MAPPED && !w->ptr)) {
        t->err = EFAULT;
    } else if (t->way == TS_DMA_MESSAGE || !w->ptr) {
        dma_by_message(s, t);
    } else if (t->write) {
        memcpy(w->ptr + (t->addr - w->addr), t->buf, t->len);
        ts_dirty_mark(s, w, t->addr, t->len);
    } else {
        memcpy(t->buf, w->ptr + (t->addr - w->addr), t->len);
    }
}

static int dma_transfer(TestServer *s, DmaTransfer *t)
{
    return ts_run(s, dma_run_transfer, t) ? t->err : ETIMEDOUT;
}

int ts_dma_read(TestServer *s, uint64_t addr, void *buf, size_t len,
                TsDmaWay way)
{
    DmaTransfer t = { false, addr, buf, len, way, 0 };

    return dma_transfer(s, &t);
}

int ts_dma_write(TestServer *s, uint64_t addr, const void *buf, size_t len,
                 TsDmaWay way)
{
    DmaTransfer t = { true, addr, (uint8_t *)buf, len, way, 0 };

    return dma_transfer(s, &t);
}
