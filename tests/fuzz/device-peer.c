/*
 * vfio-user: the server behind a device that is fuzzed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A server that answers everything as it should, except where the input says
 * otherwise: a byte of it for each command, whose low bits choose what becomes
 * of the reply and whose high bits add to that. So the empty input gets through
 * the whole of realize, and each change of a byte spoils one message.
 *
 * Its first byte chooses the capabilities.
 */

#include "qemu/osdep.h"
#include <sys/eventfd.h>
#include "qemu/memfd.h"
#include "qemu/thread.h"
#include "device-peer.h"

#define MAX_PAYLOAD     (64 * 1024)
#define MAX_REPLY_FDS   20

/* Bits of the first byte */
#define CAP_TWIN        (1 << 0)
#define CAP_MULTI       (1 << 1)
#define CAP_SMALL       (1 << 2)    /* 64 bytes at a time */
#define CAP_ONE_FD      (1 << 3)

/* Bits of the byte for a command */
#define DO_MASK         7
#define DO_SPOIL        4   /* change bytes of the payload */
#define DO_REPLACE      5   /* another payload */
#define DO_ERROR        6   /* errno */
#define DO_SILENT       7   /* no reply: other bytes, or close */
#define DO_FDS          (1 << 3)
#define DO_HEADER       (1 << 4)    /* change a word of the header */
#define DO_TWICE        (1 << 5)
#define DO_DMA          (1 << 6)    /* a command of the server's comes first */
#define DO_SPLIT        (1 << 7)

struct FuzzPeer {
    QemuThread thread;
    int fd;
    int twin;               /* ours, or -1 */
    int file;               /* what region 0 is mapped from */
    FuzzInput in;
    uint8_t *input;
    uint8_t caps;
    bool gone;
    uint8_t payload[MAX_PAYLOAD];
};

/* The good reply, without its header */
typedef struct FuzzReply {
    uint8_t data[MAX_PAYLOAD];
    size_t len;
    int fd;                 /* -1: none */
} FuzzReply;

static void reply_add(FuzzReply *r, const void *data, size_t len)
{
    if (len <= sizeof(r->data) - r->len) {
        memcpy(r->data + r->len, data, len);
        r->len += len;
    }
}

/* What a good server says -------------------------------------------------- */

/* Memory BAR, MSI-X with 4 vectors in BAR 2 */
static uint8_t config_byte(uint64_t off)
{
    static const uint8_t config[0x50] = {
        0x34, 0x12, 0x78, 0x56, [0x06] = 0x10, [0x0b] = 0xff, [0x34] = 0x40,
        [0x3d] = 1, [0x40] = 0x11, 0, 3, 0, 2, 0, 0, 0, 2, 8, 0, 0,
    };

    return off < sizeof(config) ? config[off] : 0;
}

static void good_version(FuzzPeer *peer, FuzzReply *r)
{
    const struct vfio_user_version version = { 0, 2 };
    g_autofree char *json = g_strdup_printf(
        "{\"capabilities\":{\"max_msg_fds\":%d,\"max_data_xfer_size\":%d,"
        "\"write_multiple\":%s%s}}", peer->caps & CAP_ONE_FD ? 1 : 8,
        peer->caps & CAP_SMALL ? 64 : 1048576,
        peer->caps & CAP_MULTI ? "true" : "false",
        peer->caps & CAP_TWIN ?
            ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}" : "");
    int fd[2];

    reply_add(r, &version, sizeof(version));
    reply_add(r, json, strlen(json) + 1);
    if ((peer->caps & CAP_TWIN) && peer->twin < 0 &&
        !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) {
        peer->twin = fd[0];
        r->fd = fd[1];
    }
}

static void good_region_info(FuzzPeer *peer, FuzzReply *r, uint32_t index)
{
    static const uint64_t size[] = { 0x3000, 0x100, 0x1000, 0, 0, 0, 0, 0x100 };
    struct vfio_user_region_info info = {
        .argsz = sizeof(info), .index = index, .flags = 3,
        .size = index < ARRAY_SIZE(size) ? size[index] : 0,
    };
    struct {
        struct vfio_user_cap_sparse cap;
        struct vfio_user_sparse_area area;
    } sparse = {
        .cap.header.id = VFIO_USER_CAP_SPARSE_MMAP, .cap.header.version = 1,
        .cap.nr_areas = 1, .area = { 0x1000, 0x1000 },
    };

    if (!index) {
        info.flags = 15;
        info.cap_offset = sizeof(info);
        info.argsz += sizeof(sparse);
        r->fd = fcntl(peer->file, F_DUPFD_CLOEXEC, 0);
    }
    reply_add(r, &info, sizeof(info));
    if (!index) {
        reply_add(r, &sparse, sizeof(sparse));
    }
}

/* One doorbell in BAR 0, and its neighbour, whose value would be stored */
static void good_io_fds(FuzzReply *r, uint32_t index)
{
    static const struct {
        struct vfio_user_io_fd fixed;
        uint64_t match;
    } entries[] = {
        { { .offset = 0x10, .size = 4 } },
        { { .offset = 0x14, .size = 4, .type = VFIO_USER_IO_FD_SHADOW } },
    };
    struct vfio_user_io_fds info = { .argsz = sizeof(info), .index = index };

    if (!index) {
        info.argsz += sizeof(entries);
        info.count = ARRAY_SIZE(entries);
        r->fd = eventfd(0, EFD_CLOEXEC);
    }
    reply_add(r, &info, sizeof(info));
    if (!index) {
        reply_add(r, entries, sizeof(entries));
    }
}

static void good_irq_info(FuzzReply *r, uint32_t index)
{
    static const uint32_t count[] = { 1, 0, 4, 1, 1 };
    struct vfio_user_irq_info info = {
        .argsz = sizeof(info), .flags = 1, .index = index,
        .count = index < ARRAY_SIZE(count) ? count[index] : 0,
    };

    reply_add(r, &info, sizeof(info));
}

static void good_read(FuzzReply *r, const struct vfio_user_region_rw *rw)
{
    reply_add(r, rw, sizeof(*rw));
    for (uint32_t i = 0; i < MIN(rw->count, MAX_PAYLOAD); i++) {
        uint8_t byte = rw->region == VFIO_USER_REGION_CONFIG ?
                       config_byte(rw->offset + i) : i;

        reply_add(r, &byte, 1);
    }
}

static void good_feature(FuzzReply *r, const uint8_t *payload, size_t len)
{
    struct vfio_user_feature feature;
    uint64_t value = 7;

    memcpy(&feature, payload, sizeof(feature));
    if (feature.flags & VFIO_USER_FEATURE_GET &&
        !(feature.flags & VFIO_USER_FEATURE_PROBE)) {
        reply_add(r, &feature, sizeof(feature));
        reply_add(r, &value, sizeof(value));
    } else {
        reply_add(r, payload, len);
    }
}

/* Little by little, so that the stream often has no more for now */
static void good_mig_read(FuzzReply *r, const struct vfio_user_mig_data *ask)
{
    static const uint8_t state[48];
    uint32_t len = MIN(ask->size, sizeof(state));
    struct vfio_user_mig_data data = { sizeof(data) + len, len };

    reply_add(r, &data, sizeof(data));
    reply_add(r, state, len);
}

static void good_reply(FuzzPeer *peer, FuzzReply *r, uint16_t command,
                       const uint8_t *payload, size_t len)
{
    const struct vfio_user_device_info info = { 16, 3, 9, 5 };
    uint32_t word[5] = { };

    memcpy(word, payload, MIN(len, sizeof(word)));
    r->len = 0;
    r->fd = -1;
    switch (command) {
    case VFIO_USER_VERSION:
        good_version(peer, r);
        break;
    case VFIO_USER_DEVICE_GET_INFO:
        reply_add(r, &info, sizeof(info));
        break;
    case VFIO_USER_DEVICE_GET_REGION_INFO:
        good_region_info(peer, r, word[2]);
        break;
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        good_io_fds(r, word[2]);
        break;
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
        good_irq_info(r, word[2]);
        break;
    case VFIO_USER_REGION_READ:
        good_read(r, (void *)word);
        break;
    case VFIO_USER_REGION_WRITE:
        reply_add(r, payload, 16);
        break;
    case VFIO_USER_DEVICE_FEATURE:
        good_feature(r, payload, len);
        break;
    case VFIO_USER_MIG_DATA_READ:
        good_mig_read(r, (void *)word);
        break;
    default:
        break;
    }
}

/* What this one does ------------------------------------------------------- */

static void peer_send(FuzzPeer *peer, const uint8_t *bytes, size_t len,
                      const int *fds, unsigned nr_fds, size_t split)
{
    char control[CMSG_SPACE(MAX_REPLY_FDS * sizeof(int))] = { };
    struct iovec iov = { (void *)bytes, split && split < len ? split : len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (nr_fds) {
        struct cmsghdr *cmsg;

        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
    }
    /* What there is no room for is lost: one more way to be cut off. */
    if (sendmsg(peer->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == iov.iov_len &&
        iov.iov_len < len) {
        send(peer->fd, bytes + iov.iov_len, len - iov.iov_len,
             MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* Descriptors that the input adds or takes away */
static unsigned peer_pick_fds(FuzzPeer *peer, uint8_t how, int own, int *fds)
{
    unsigned nr = own >= 0 ? 1 : 0;
    uint8_t v;

    fds[0] = own;
    if (how & DO_FDS) {
        v = fuzz_u8(&peer->in);
        nr = (v & 0x1f) % (MAX_REPLY_FDS + 1);
        for (unsigned i = own >= 0 && !(v & 0x20) ? 1 : 0; i < nr; i++) {
            fds[i] = v & 0x40 ? peer->fd : peer->file;
        }
    }
    return nr;
}

static void peer_spoil(FuzzPeer *peer, uint8_t how, FuzzReply *r)
{
    if ((how & DO_MASK) == DO_SPOIL) {
        unsigned nr = 1 + fuzz_u8(&peer->in) % 8;

        while (nr-- && r->len) {
            uint16_t at = fuzz_u16(&peer->in) % r->len;

            r->data[at] ^= fuzz_u8(&peer->in);
        }
    } else if ((how & DO_MASK) == DO_REPLACE) {
        r->len = MIN(fuzz_u16(&peer->in), MIN(4096, peer->in.len));
        fuzz_take(&peer->in, r->data, r->len);
    }
}

static void peer_reply(FuzzPeer *peer, uint8_t how,
                       const struct vfio_user_header *to, FuzzReply *r)
{
    struct vfio_user_header hdr = {
        .id = to->id, .command = to->command, .flags = VFIO_USER_TYPE_REPLY,
    };
    g_autofree uint8_t *msg = NULL;
    int fds[MAX_REPLY_FDS + 1];
    unsigned nr_fds = peer_pick_fds(peer, how, r->fd, fds);
    size_t split = how & DO_SPLIT ? fuzz_u8(&peer->in) : 0;

    peer_spoil(peer, how, r);
    if ((how & DO_MASK) == DO_ERROR) {
        hdr.flags |= VFIO_USER_ERROR;
        hdr.error = fuzz_u16(&peer->in);
        r->len = 0;
    }
    hdr.size = sizeof(hdr) + r->len;
    if (how & DO_HEADER) {
        unsigned word = fuzz_u8(&peer->in) % 4;

        ((uint32_t *)&hdr)[word] ^= fuzz_u32(&peer->in);
    }
    msg = g_malloc(sizeof(hdr) + r->len);
    memcpy(msg, &hdr, sizeof(hdr));
    memcpy(msg + sizeof(hdr), r->data, r->len);
    for (unsigned i = 0; i < (how & DO_TWICE ? 2 : 1); i++) {
        peer_send(peer, msg, sizeof(hdr) + r->len, fds, nr_fds, split);
    }
}

static void peer_dma(FuzzPeer *peer)
{
    struct {
        struct vfio_user_header hdr;
        struct vfio_user_dma_rw rw;
    } msg = {
        .hdr = { .size = sizeof(msg), .command = VFIO_USER_DMA_READ },
    };

    msg.rw.addr = fuzz_u8(&peer->in);
    msg.rw.count = fuzz_u8(&peer->in);
    send(peer->twin >= 0 ? peer->twin : peer->fd, &msg, sizeof(msg),
         MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void peer_silent(FuzzPeer *peer)
{
    size_t len = fuzz_u8(&peer->in);
    g_autofree uint8_t *bytes = fuzz_bytes(&peer->in, &len);

    if (len == 1 && bytes[0] == 1) {
        peer->gone = true;
    } else if (len == 1 && bytes[0] == 2 && peer->twin >= 0) {
        shutdown(peer->twin, SHUT_RDWR);
    } else if (len) {
        send(peer->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void peer_answer(FuzzPeer *peer, const struct vfio_user_header *hdr,
                        size_t len)
{
    g_autofree FuzzReply *r = g_new(FuzzReply, 1);
    uint8_t how = fuzz_u8(&peer->in);

    good_reply(peer, r, hdr->command, peer->payload, len);
    if (how & DO_DMA) {
        peer_dma(peer);
    }
    if ((how & DO_MASK) == DO_SILENT) {
        peer_silent(peer);
    } else {
        peer_reply(peer, how, hdr, r);
    }
    if (r->fd >= 0) {
        close(r->fd);
    }
}

/* Receiving ---------------------------------------------------------------- */

static void peer_close_fds(struct msghdr *msg)
{
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
    unsigned nr;

    if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS) {
        return;
    }
    nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (unsigned i = 0; i < nr; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
        close(fd);
    }
}

static bool peer_receive(FuzzPeer *peer, void *to, size_t len)
{
    while (len) {
        char control[CMSG_SPACE(VFIO_USER_MAX_MSG_FDS * sizeof(int))];
        struct iovec iov = { to, len };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = control, .msg_controllen = sizeof(control),
        };
        ssize_t got = recvmsg(peer->fd, &msg, MSG_CMSG_CLOEXEC);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        peer_close_fds(&msg);
        to += got;
        len -= got;
    }
    return true;
}

static void *peer_thread(void *opaque)
{
    FuzzPeer *peer = opaque;
    struct vfio_user_header hdr;

    while (!peer->gone && peer_receive(peer, &hdr, sizeof(hdr))) {
        size_t len = hdr.size - sizeof(hdr);

        /* What the client sends is valid, whatever it was sent. */
        g_assert_cmpint(hdr.size, >=, sizeof(hdr));
        g_assert_cmpint(len, <=, MAX_PAYLOAD);
        if (!peer_receive(peer, peer->payload, len)) {
            break;
        }
        if (!(hdr.flags & (VFIO_USER_TYPE_MASK | VFIO_USER_NO_REPLY))) {
            peer_answer(peer, &hdr, len);
        }
    }
    close(peer->fd);
    if (peer->twin >= 0) {
        close(peer->twin);
    }
    close(peer->file);
    return NULL;
}

FuzzPeer *fuzz_peer_start(int fd, FuzzInput *in)
{
    FuzzPeer *peer = g_new0(FuzzPeer, 1);

    peer->fd = fd;
    peer->twin = -1;
    peer->file = qemu_memfd_create("fuzz", 0x3000, false, 0, 0, NULL);
    g_assert_cmpint(peer->file, >=, 0);
    peer->input = fuzz_rest(in, &peer->in.len);
    peer->in.data = peer->input;
    peer->caps = fuzz_u8(&peer->in);
    qemu_thread_create(&peer->thread, "fuzz-peer", peer_thread, peer,
                       QEMU_THREAD_JOINABLE);
    return peer;
}

void fuzz_peer_join(FuzzPeer *peer)
{
    qemu_thread_join(&peer->thread);
    g_free(peer->input);
    g_free(peer);
}
