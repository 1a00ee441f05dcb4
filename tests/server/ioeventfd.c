/*
 * vfio-user test server: writes that are signals
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server keeps its end of each eventfd and counts the signals when it is
 * asked for them: nothing polls. All shadows are in one file.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

/* Of type 2: the fixed part, then the value to compare with. */
#define LONG_ENTRY  (sizeof(struct vfio_user_io_fd) + sizeof(uint64_t))

TsIoFd *ts_add_io_fd(TestServer *s, unsigned region, uint64_t offset,
                     uint64_t size)
{
    TsIoFd *io = &s->io_fds[region][s->nr_io_fds[region]++];

    g_assert(s->nr_io_fds[region] <= TS_MAX_IO_FDS && !s->started);
    io->entry = (struct vfio_user_io_fd) {
        .offset = offset,
        .size = size,
        .type = VFIO_USER_IO_FD_IOEVENTFD,
    };
    io->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(io->fd >= 0);
    return io;
}

void ts_io_fd_match(TsIoFd *io, uint64_t value)
{
    io->entry.flags |= VFIO_USER_IO_FD_DATAMATCH;
    io->match = value;
}

void *ts_io_fd_shadow(TestServer *s, TsIoFd *io, uint64_t offset)
{
    g_assert(offset < TS_IO_SHADOW_SIZE && !s->started);
    if (!s->io_shadow) {
        s->io_shadow_fd = memfd_create("ts-shadow", MFD_CLOEXEC);
        g_assert(s->io_shadow_fd >= 0 &&
                 !ftruncate(s->io_shadow_fd, TS_IO_SHADOW_SIZE));
        s->io_shadow = mmap(NULL, TS_IO_SHADOW_SIZE, PROT_READ | PROT_WRITE,
                            MAP_SHARED, s->io_shadow_fd, 0);
        g_assert(s->io_shadow != MAP_FAILED);
    }
    io->entry.type = VFIO_USER_IO_FD_SHADOW;
    io->shadow_offset = offset;
    return s->io_shadow + offset;
}

void ts_io_shadow_cut(TestServer *s)
{
    g_assert(ftruncate(s->io_shadow_fd, 0) == 0);
}

uint64_t ts_io_fd_count(TestServer *s, TsIoFd *io)
{
    uint64_t more, count;

    ts_lock(s);
    if (read(io->fd, &more, sizeof(more)) == sizeof(more)) {
        io->count += more;
    }
    count = io->count;
    ts_unlock(s);
    return count;
}

/* The position of @fd among the reply's, added if it is not there. */
static unsigned io_fd_index(TsMessage *reply, int *sent, int fd)
{
    for (unsigned i = 0; i < reply->nr_fds; i++) {
        if (sent[i] == fd) {
            return i;
        }
    }
    sent[reply->nr_fds] = fd;
    ts_message_add_fd(reply, fd);
    return reply->nr_fds - 1;
}

static void io_fd_put(TestServer *s, TsIoFd *io, TsMessage *reply, int *sent,
                      unsigned stride)
{
    const TsIoFd *whose = io->shares ? io->shares : io;
    uint8_t bytes[LONG_ENTRY] = { 0 };
    struct vfio_user_io_fd e = io->entry;

    e.fd_index = io_fd_index(reply, sent, whose->fd);
    e.data = io->match;
    if (e.type == VFIO_USER_IO_FD_SHADOW) {
        e.shadow_fd_index = io_fd_index(reply, sent, s->io_shadow_fd);
        e.data = io->shadow_offset;
        memcpy(bytes + sizeof(e), &io->match, sizeof(io->match));
    }
    memcpy(bytes, &e, sizeof(e));
    g_byte_array_append(reply->payload, bytes, stride);
}

static unsigned io_fd_stride(TestServer *s, unsigned region)
{
    for (unsigned i = 0; i < s->nr_io_fds[region]; i++) {
        if (s->io_fds[region][i].entry.type == VFIO_USER_IO_FD_SHADOW) {
            return LONG_ENTRY;
        }
    }
    return sizeof(struct vfio_user_io_fd);
}

int ts_get_io_fds(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_io_fds info;
    int sent[TS_MAX_FDS];
    uint32_t room;
    unsigned stride;

    if (request->payload->len != sizeof(info)) {
        return EINVAL;
    }
    memcpy(&info, request->payload->data, sizeof(info));
    room = info.argsz;
    if (room < sizeof(info) || info.flags || info.count ||
        info.index >= s->info.num_regions || info.index >= TS_NR_REGIONS) {
        return EINVAL;
    }
    stride = io_fd_stride(s, info.index);
    info.count = s->nr_io_fds[info.index];
    info.argsz = sizeof(info) + info.count * stride;
    g_byte_array_append(reply->payload, (guint8 *)&info, sizeof(info));
    if (room < info.argsz) {
        return 0;
    }
    for (unsigned i = 0; i < info.count; i++) {
        io_fd_put(s, &s->io_fds[info.index][i], reply, sent, stride);
    }
    return 0;
}

void ts_io_fds_free(TestServer *s)
{
    for (unsigned i = 0; i < TS_NR_REGIONS; i++) {
        for (unsigned j = 0; j < s->nr_io_fds[i]; j++) {
            close(s->io_fds[i][j].fd);
        }
    }
    if (s->io_shadow) {
        munmap(s->io_shadow, TS_IO_SHADOW_SIZE);
        close(s->io_shadow_fd);
    }
}
