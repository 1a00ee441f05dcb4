/*
 * vfio-user raw client: one message out, one message in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <glib.h>
#include "rawclient.h"

RawClient *rc_new(int fd)
{
    RawClient *c = g_new0(RawClient, 1);
    struct timeval tv = { .tv_sec = 5 };

    c->fd = fd;
    c->twin_fd = -1;
    g_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
    return c;
}

RawClient *rc_connect(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert(fd >= 0 && strlen(path) < sizeof(un.sun_path));
    strcpy(un.sun_path, path);
    g_assert(connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0);
    return rc_new(fd);
}

void rc_close_fds(RawClient *c)
{
    for (unsigned i = 0; i < c->nr_fds; i++) {
        if (c->fds[i] >= 0) {
            close(c->fds[i]);
        }
    }
    c->nr_fds = 0;
}

void rc_free(RawClient *c)
{
    rc_close_fds(c);
    close(c->fd);
    if (c->twin_fd >= 0) {
        close(c->twin_fd);
    }
    g_free(c->payload);
    g_free(c);
}

static void raw_send(RawClient *c, int fd, const struct vfio_user_header *hdr,
                     const void *payload, size_t len, const int *fds,
                     unsigned nr_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * RC_MAX_FDS)];
    } control = { { 0 } };
    struct iovec iov[2] = {
        { (void *)hdr, sizeof(*hdr) }, { (void *)payload, len },
    };
    struct msghdr mh = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };

    if (nr_fds) {
        struct cmsghdr *cmsg;

        mh.msg_control = &control;
        mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
        cmsg = CMSG_FIRSTHDR(&mh);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
    }
    if (sendmsg(fd, &mh, MSG_NOSIGNAL) != (ssize_t)hdr->size) {
        g_assert(c->may_end && errno == EPIPE);
    }
}

uint16_t rc_send(RawClient *c, uint16_t command, uint32_t flags,
                 const void *payload, size_t len, const int *fds,
                 unsigned nr_fds)
{
    struct vfio_user_header hdr = {
        .id = c->next_id++,
        .command = command,
        .size = sizeof(hdr) + len,
        .flags = VFIO_USER_TYPE_COMMAND | flags,
    };

    raw_send(c, c->fd, &hdr, payload, len, fds, nr_fds);
    return hdr.id;
}

static bool raw_read(RawClient *c, int fd, void *buf, size_t len)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * RC_MAX_FDS)];
    } control;
    size_t got = 0;

    while (got < len) {
        struct iovec iov = { (char *)buf + got, len - got };
        struct msghdr mh = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = &control, .msg_controllen = sizeof(control),
        };
        ssize_t ret = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
        struct cmsghdr *cmsg;

        if (ret <= 0) {
            return false;
        }
        got += ret;
        cmsg = CMSG_FIRSTHDR(&mh);
        if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
            unsigned nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            g_assert(c->nr_fds + nr <= RC_MAX_FDS);
            memcpy(c->fds + c->nr_fds, CMSG_DATA(cmsg), nr * sizeof(int));
            c->nr_fds += nr;
        }
    }
    return true;
}

static bool raw_receive(RawClient *c, int fd)
{
    rc_close_fds(c);
    if (!raw_read(c, fd, &c->hdr, sizeof(c->hdr)) ||
        c->hdr.size < sizeof(c->hdr)) {
        return false;
    }
    c->len = c->hdr.size - sizeof(c->hdr);
    c->payload = g_realloc(c->payload, c->len);
    return raw_read(c, fd, c->payload, c->len);
}

static void raw_answer_dma(RawClient *c, int fd)
{
    struct vfio_user_header hdr = c->hdr;
    struct vfio_user_dma_rw rw;
    g_autofree uint8_t *out = NULL;
    size_t len = sizeof(rw);

    g_assert(c->len >= sizeof(rw));
    memcpy(&rw, c->payload, sizeof(rw));
    hdr.flags = VFIO_USER_TYPE_REPLY;
    if (!c->mem || rw.addr < c->mem_addr || rw.count > c->mem_len ||
        rw.addr - c->mem_addr > c->mem_len - rw.count) {
        hdr.flags |= VFIO_USER_ERROR;
        hdr.error = EFAULT;
        len = 0;
    } else if (hdr.command == VFIO_USER_DMA_WRITE) {
        memcpy(c->mem + (rw.addr - c->mem_addr), c->payload + sizeof(rw),
               rw.count);
    } else {
        len += rw.count;
    }
    out = g_malloc0(len + 1);
    if (len) {
        memcpy(out, &rw, sizeof(rw));
        if (hdr.command == VFIO_USER_DMA_READ) {
            memcpy(out + sizeof(rw), c->mem + (rw.addr - c->mem_addr),
                   rw.count);
        }
    }
    hdr.size = sizeof(hdr) + len;
    raw_send(c, fd, &hdr, out, len, NULL, 0);
    c->nr_dma++;
}

bool rc_receive(RawClient *c)
{
    while (raw_receive(c, c->fd)) {
        if ((c->hdr.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY) {
            return true;
        }
        raw_answer_dma(c, c->fd);
    }
    return false;
}

bool rc_serve_twin(RawClient *c)
{
    if (!raw_receive(c, c->twin_fd)) {
        return false;
    }
    raw_answer_dma(c, c->twin_fd);
    return true;
}

int rc_call_fds(RawClient *c, uint16_t command, const void *payload,
                size_t len, const int *fds, unsigned nr_fds)
{
    uint16_t id = rc_send(c, command, 0, payload, len, fds, nr_fds);

    if (!rc_receive(c) || c->hdr.id != id || c->hdr.command != command) {
        return -1;
    }
    return c->hdr.flags & VFIO_USER_ERROR ? (int)c->hdr.error : 0;
}

int rc_call(RawClient *c, uint16_t command, const void *payload, size_t len)
{
    return rc_call_fds(c, command, payload, len, NULL, 0);
}

int rc_negotiate(RawClient *c, const char *json, bool twin)
{
    g_autoptr(GByteArray) msg = g_byte_array_new();
    struct vfio_user_version version = { VFIO_USER_MAJOR, VFIO_USER_MINOR };
    int err;

    if (!json) {
        json = twin ? "{\"capabilities\": {\"max_msg_fds\": 8, "
                      "\"twin_socket\": {\"supported\": true}}}"
                    : "{\"capabilities\": {\"max_msg_fds\": 8}}";
    }
    g_byte_array_append(msg, (guint8 *)&version, sizeof(version));
    g_byte_array_append(msg, (const guint8 *)json, strlen(json) + 1);
    err = rc_call(c, VFIO_USER_VERSION, msg->data, msg->len);
    if (!err && c->nr_fds) {
        struct timeval tv = { .tv_sec = 5 };

        c->twin_fd = c->fds[0];
        c->fds[0] = -1;
        g_assert(setsockopt(c->twin_fd, SOL_SOCKET, SO_RCVTIMEO, &tv,
                            sizeof(tv)) == 0);
    }
    return err;
}

int rc_read(RawClient *c, uint32_t region, uint64_t offset, void *data,
            uint32_t len)
{
    struct vfio_user_region_rw rw = { offset, region, len };
    int err = rc_call(c, VFIO_USER_REGION_READ, &rw, sizeof(rw));

    if (!err) {
        if (c->len != sizeof(rw) + len || memcmp(c->payload, &rw,
                                                 sizeof(rw))) {
            return -1;
        }
        memcpy(data, c->payload + sizeof(rw), len);
    }
    return err;
}

int rc_write(RawClient *c, uint32_t region, uint64_t offset,
             const void *data, uint32_t len)
{
    struct vfio_user_region_rw rw = { offset, region, len };
    g_autoptr(GByteArray) msg = g_byte_array_new();
    int err;

    g_byte_array_append(msg, (guint8 *)&rw, sizeof(rw));
    g_byte_array_append(msg, data, len);
    err = rc_call(c, VFIO_USER_REGION_WRITE, msg->data, msg->len);
    return err ? err : c->len == sizeof(rw) ? 0 : -1;
}

int rc_map(RawClient *c, uint64_t addr, uint64_t size, int fd,
           uint64_t offset)
{
    struct vfio_user_dma_map map = {
        sizeof(map), VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
        offset, addr, size,
    };

    return rc_call_fds(c, VFIO_USER_DMA_MAP, &map, sizeof(map), &fd, fd >= 0);
}

int rc_unmap(RawClient *c, uint64_t addr, uint64_t size)
{
    struct vfio_user_dma_unmap unmap = { sizeof(unmap), 0, addr, size };

    return rc_call(c, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap));
}

int rc_set_irqs(RawClient *c, uint32_t flags, uint32_t index, uint32_t start,
                uint32_t count, const int *fds, unsigned nr_fds)
{
    struct vfio_user_irq_set set = {
        sizeof(set), flags, index, start, count,
    };

    return rc_call_fds(c, VFIO_USER_DEVICE_SET_IRQS, &set, sizeof(set), fds,
                       nr_fds);
}
