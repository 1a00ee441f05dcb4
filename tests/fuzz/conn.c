/*
 * vfio-user: fuzzing a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is a program of what both ends of a connection do, in one thread:
 * first a byte of flags, then operations. Our end submits, waits, abandons and
 * posts requests, and the AioContext has its turns. The peer sends whole
 * messages that fit, messages with a field changed, raw bytes and descriptors;
 * reads or does not; closes. With a twin socket, commands and replies to them
 * go there, or to where they do not belong.
 *
 * Whatever comes to pass, every request has an outcome in the end, memory that
 * was pinned for the server is let go of, and what we send is a sequence of
 * whole and valid messages.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "hw/vfio-user/conn.h"
#include "fuzz.h"

#define RAM             0x1000
#define RAM_SIZE        0x4000
#define MAX_XFER        0x3000
#define NR_CALLS        8
#define MAX_OPS         200
/* Of a request; one that nobody answers costs as much, so few are allowed. */
#define TIMEOUT_MS      1
#define MAX_TIMEOUTS    4

/* Flags in the first byte */
#define FLAG_TWIN       (1 << 0)
#define FLAG_LOCKSTEP   (1 << 1)
#define FLAG_NO_FDS     (1 << 2)
#define FLAG_SMALL      (1 << 3)    /* small socket buffers */
#define FLAG_SPIN       (1 << 4)
#define FLAG_PIECES     (1 << 5)    /* guest memory in many pieces */
#define FLAG_NOT_BEGUN  (1 << 6)    /* no AioContext */

/* A request of ours that a reply can still be made for */
typedef struct Asked {
    uint16_t id;
    uint16_t command;
} Asked;

typedef struct FuzzEnd {
    int fd;             /* the peer's, or -1 */
    GByteArray *got;    /* bytes read, not yet taken apart */
} FuzzEnd;

typedef struct FuzzCall {
    VFIOUserRequest req;
    bool busy;
    struct iovec out[2];
    struct iovec in[2];
    int fds[4];
    uint8_t *out_mem;
    uint8_t *in_mem;
} FuzzCall;

typedef struct FuzzConn {
    FuzzInput *in;
    uint8_t flags;
    VFIOUserConn *conn;
    VFIOUserConn *twin;
    FuzzEnd end[2];     /* main socket, twin */
    FuzzCall calls[NR_CALLS];
    GArray *asked;
    uint8_t *ram;
    unsigned nr_mapped;
    unsigned nr_failed;
    unsigned nr_detached;
    unsigned nr_timeouts;
} FuzzConn;

/* The owner ---------------------------------------------------------------- */

static int owner_dma_begin(void *opaque, uint64_t addr, uint64_t count,
                           bool is_write, VFIOUserDMA *dma)
{
    FuzzConn *f = opaque;
    uint64_t piece = f->flags & FLAG_PIECES ?
                     RAM_SIZE / VFIO_USER_CONN_MAX_DMA_IOV : RAM_SIZE;

    g_assert_cmpint(count, >, 0);
    g_assert_cmpint(count, <=, MAX_XFER);
    if (addr < RAM || addr - RAM > RAM_SIZE ||
        count > RAM_SIZE - (addr - RAM)) {
        return -EFAULT;
    }
    dma->nr_iov = 0;
    dma->opaque = f;
    for (uint64_t off = addr - RAM; count;) {
        uint64_t part = MIN(count, piece);

        dma->iov[dma->nr_iov++] = (struct iovec) { f->ram + off, part };
        off += part;
        count -= part;
    }
    f->nr_mapped++;
    return 0;
}

static void owner_dma_end(void *opaque, VFIOUserDMA *dma, bool is_write,
                          uint64_t done)
{
    FuzzConn *f = opaque;

    g_assert_true(dma->opaque == f);
    g_assert_cmpint(done, <=, MAX_XFER);
    f->nr_mapped--;
}

static void owner_failed(void *opaque)
{
    FuzzConn *f = opaque;

    f->nr_failed++;
}

static const VFIOUserConnOps owner_ops = {
    .dma_begin = owner_dma_begin,
    .dma_end = owner_dma_end,
    .failed = owner_failed,
};

/* Our requests ------------------------------------------------------------- */

static uint16_t command_of(FuzzInput *in)
{
    return VFIO_USER_VERSION + fuzz_u8(in) %
           (VFIO_USER_COMMAND_MAX - VFIO_USER_VERSION);
}

static size_t size_of(FuzzInput *in)
{
    uint8_t v = fuzz_u8(in);

    /* Mostly small; at times more than the channel's buffer holds. */
    return v < 0xf0 ? v : (v - 0xefu) * 1024;
}

/* Memory of exact size, so that what is received beyond it shows. */
static void call_fill(FuzzConn *f, VFIOUserRequest *req, struct iovec *out,
                      struct iovec *in, uint8_t **out_mem, uint8_t **in_mem)
{
    size_t out_len = size_of(f->in);
    size_t in_len = size_of(f->in);

    *out_mem = g_malloc0(out_len + 1);
    *in_mem = g_malloc(in_len + 1);
    out[0] = (struct iovec) { *out_mem, out_len };
    in[0] = (struct iovec) { *in_mem, in_len / 2 };
    in[1] = (struct iovec) { *in_mem + in_len / 2, in_len - in_len / 2 };
    *req = (VFIOUserRequest) {
        .command = command_of(f->in),
        .out = out, .nr_out = 1,
        .in = in, .nr_in = 2,
        .timeout_ms = TIMEOUT_MS,
    };
}

static void call_free(FuzzCall *call)
{
    g_clear_pointer(&call->out_mem, g_free);
    g_clear_pointer(&call->in_mem, g_free);
    call->busy = false;
}

/* It has its outcome, and no other than one that the header allows. */
static void call_ended(FuzzConn *f, FuzzCall *call)
{
    const VFIOUserRequest *req = &call->req;
    unsigned nr = MIN(req->nr_in_fds, req->max_in_fds);

    g_assert_cmpint(req->state, ==, VFIO_USER_REQUEST_IDLE);
    g_assert_cmpint(req->ret, <=, 0);
    g_assert_cmpint(req->ret, >=, -4095);
    g_assert_cmpint(req->in_len, <=, iov_size(req->in, req->nr_in));
    f->nr_timeouts += req->ret == -ETIMEDOUT;
    g_assert_true(!req->nr_in_fds || (!req->ret && !(f->flags & FLAG_NO_FDS)));
    for (unsigned i = 0; i < nr; i++) {
        g_assert_cmpint(close(call->fds[i]), ==, 0);
    }
    call_free(call);
}

static void op_submit(FuzzConn *f, FuzzCall *call)
{
    if (call->busy) {
        return;
    }
    call_fill(f, &call->req, call->out, call->in, &call->out_mem,
              &call->in_mem);
    if (!(f->flags & FLAG_NO_FDS)) {
        call->req.in_fds = call->fds;
        call->req.max_in_fds = fuzz_u8(f->in) % (ARRAY_SIZE(call->fds) + 1);
    }
    call->busy = true;
    vfio_user_conn_submit(f->conn, &call->req);
}

static void op_wait(FuzzConn *f, FuzzCall *call)
{
    if (call->busy) {
        int ret = vfio_user_conn_wait(f->conn, &call->req);

        g_assert_cmpint(ret, ==, call->req.ret);
        call_ended(f, call);
    }
}

static void op_wait_until(FuzzConn *f, FuzzCall *call)
{
    int64_t until = fuzz_u8(f->in) & 1 ? g_get_monotonic_time() + 200 : 0;

    if (!call->busy) {
        return;
    }
    if (vfio_user_conn_wait_until(f->conn, &call->req, until)) {
        call_ended(f, call);
    } else {
        f->nr_timeouts += until != 0;
    }
}

static void op_abandon(FuzzConn *f, FuzzCall *call)
{
    if (call->busy) {
        vfio_user_conn_abandon(f->conn, &call->req);
        call_ended(f, call);
    }
}

/* A request that nobody waits for */
typedef struct Detached {
    VFIOUserRequest req;
    FuzzConn *f;
    struct iovec out[2];
    struct iovec in[2];
    uint8_t *out_mem;
    uint8_t *in_mem;
} Detached;

static void detached_done(VFIOUserRequest *req)
{
    Detached *d = container_of(req, Detached, req);

    g_assert_cmpint(req->ret, <=, 0);
    d->f->nr_timeouts += req->ret == -ETIMEDOUT;
    d->f->nr_detached--;
    g_free(d->out_mem);
    g_free(d->in_mem);
    g_free(d);
}

static void op_detached(FuzzConn *f)
{
    Detached *d = g_new0(Detached, 1);

    d->f = f;
    call_fill(f, &d->req, d->out, d->in, &d->out_mem, &d->in_mem);
    d->req.done = detached_done;
    f->nr_detached++;
    vfio_user_conn_submit(f->conn, &d->req);
}

static void op_post(FuzzConn *f, bool try)
{
    static uint8_t data[32 * 1024];
    struct iovec out = { data, size_of(f->in) };
    VFIOUserRequest req = {
        .command = VFIO_USER_REGION_WRITE,
        .out = &out, .nr_out = 1,
        .timeout_ms = TIMEOUT_MS,
    };

    if (vfio_user_conn_lockstep(f->conn) ||
        (try && (f->flags & FLAG_NOT_BEGUN))) {
        return;
    }
    if (try) {
        vfio_user_conn_try_post(f->conn, &req);
    } else {
        f->nr_timeouts += vfio_user_conn_post(f->conn, &req) == -ETIMEDOUT;
    }
}

static void op_post_writes(FuzzConn *f)
{
    unsigned nr = fuzz_u8(f->in) + 1;
    uint64_t value = 0;

    for (unsigned i = 0; i < nr && !vfio_user_conn_lockstep(f->conn) &&
                         f->nr_timeouts < MAX_TIMEOUTS; i++) {
        f->nr_timeouts += vfio_user_conn_post_write(f->conn, i % 9, i, &value,
                                                    i % 9, 0, 0) == -ETIMEDOUT;
    }
}

/* What the peer receives --------------------------------------------------- */

static void peer_take_message(FuzzConn *f, const uint8_t *msg, bool twin)
{
    struct vfio_user_header hdr;

    memcpy(&hdr, msg, sizeof(hdr));
    if ((hdr.flags & 0xf) == VFIO_USER_TYPE_COMMAND) {
        Asked asked = { .id = hdr.id, .command = hdr.command };

        g_assert_false(twin);
        g_assert_cmpint(hdr.command, >=, VFIO_USER_VERSION);
        g_assert_cmpint(hdr.command, <, VFIO_USER_COMMAND_MAX);
        if (!(hdr.flags & VFIO_USER_NO_REPLY)) {
            g_array_append_val(f->asked, asked);
        }
    } else {
        g_assert_cmpint(hdr.flags & ~(uint32_t)VFIO_USER_ERROR, ==,
                        VFIO_USER_TYPE_REPLY);
        g_assert_true(!(hdr.flags & VFIO_USER_ERROR) ||
                      (hdr.size == sizeof(hdr) && hdr.error));
    }
}

/* Whatever was sent is a sequence of whole messages. */
static void peer_take_apart(FuzzConn *f, FuzzEnd *end)
{
    GByteArray *got = end->got;

    while (got->len >= 16) {
        uint32_t size = ldl_he_p(got->data + 4);

        g_assert_cmpint(size, >=, 16);
        g_assert_cmpint(size, <=, 64 * 1024);
        if (got->len < size) {
            break;
        }
        peer_take_message(f, got->data, end == &f->end[1]);
        g_byte_array_remove_range(got, 0, size);
    }
}

static void peer_read(FuzzConn *f, FuzzEnd *end)
{
    static uint8_t buf[16 * 1024];
    ssize_t len;

    if (end->fd < 0) {
        return;
    }
    len = recv(end->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (len > 0) {
        g_byte_array_append(end->got, buf, len);
        peer_take_apart(f, end);
    }
}

/* What the peer sends ------------------------------------------------------ */

/*
 * @split: bytes that the first of two sendmsg()s takes, 0: one. What the socket
 * has no room for is lost.
 */
static void peer_send(FuzzEnd *end, const uint8_t *bytes, size_t len,
                      unsigned nr_fds, size_t split)
{
    int fds[32];
    char control[CMSG_SPACE(sizeof(fds))] = { };
    size_t first = split && split < len ? split : len;
    struct iovec iov = { (void *)bytes, first };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (end->fd < 0) {
        return;
    }
    nr_fds %= ARRAY_SIZE(fds) + 1;
    if (nr_fds) {
        struct cmsghdr *cmsg;

        for (unsigned i = 0; i < nr_fds; i++) {
            fds[i] = end->fd;
        }
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
    }
    if (sendmsg(end->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == first &&
        first < len) {
        /* Ours sees the first part alone before the second comes. */
        aio_poll(qemu_get_aio_context(), false);
        send(end->fd, bytes + first, len - first, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void peer_send_message(FuzzConn *f, FuzzEnd *end,
                              struct vfio_user_header *hdr,
                              const void *args, size_t args_len,
                              size_t data_len)
{
    g_autofree uint8_t *msg = NULL;
    uint8_t how = fuzz_u8(f->in);
    size_t split = how & 1 ? fuzz_u8(f->in) : 0;
    unsigned nr_fds = how & 2 ? fuzz_u8(f->in) : 0;

    hdr->size = sizeof(*hdr) + args_len + data_len;
    msg = g_malloc0(hdr->size);
    if (args_len) {
        memcpy(msg + sizeof(*hdr), args, args_len);
    }
    data_len = hdr->size;
    /* One word of the header that does not fit. */
    if (how & 4) {
        unsigned word = fuzz_u8(f->in) % 4;

        ((uint32_t *)hdr)[word] ^= fuzz_u32(f->in);
    }
    memcpy(msg, hdr, sizeof(*hdr));
    peer_send(end, msg, data_len, nr_fds, split);
}

static void op_reply(FuzzConn *f, FuzzEnd *end)
{
    struct vfio_user_header hdr = { .flags = VFIO_USER_TYPE_REPLY };
    unsigned which = fuzz_u8(f->in);
    Asked *asked;

    peer_read(f, &f->end[0]);
    if (!f->asked->len) {
        return;
    }
    which %= f->asked->len;
    asked = &g_array_index(f->asked, Asked, which);
    hdr.id = asked->id;
    hdr.command = asked->command;
    g_array_remove_index(f->asked, which);
    if (fuzz_u8(f->in) & 1) {
        hdr.flags |= VFIO_USER_ERROR;
        hdr.error = fuzz_u16(f->in);
    }
    peer_send_message(f, end, &hdr, NULL, 0, size_of(f->in));
}

static void op_command(FuzzConn *f, FuzzEnd *end)
{
    struct vfio_user_header hdr = { };
    struct vfio_user_dma_rw rw;
    uint8_t kind = fuzz_u8(f->in);

    hdr.command = kind & 1 ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ;
    hdr.flags = kind & 2 ? VFIO_USER_NO_REPLY : 0;
    hdr.id = fuzz_u16(f->in);
    if (kind & 4) {
        hdr.command = fuzz_u16(f->in);
    }
    rw.addr = RAM + fuzz_u16(f->in) % (RAM_SIZE + 64) - 32;
    rw.count = kind & 8 ? fuzz_u64(f->in) : size_of(f->in);
    peer_send_message(f, end, &hdr, &rw, sizeof(rw),
                      kind & 1 ? MIN(rw.count, MAX_XFER) : 0);
}

static void op_raw(FuzzConn *f, FuzzEnd *end)
{
    uint8_t nr_fds = fuzz_u8(f->in);
    size_t len = fuzz_u8(f->in);
    g_autofree uint8_t *bytes = fuzz_bytes(f->in, &len);

    if (len) {
        peer_send(end, bytes, len, nr_fds & 0x80 ? nr_fds & 0x3f : 0, 0);
    }
}

/* Many commands whose replies are not read */
static void op_flood(FuzzConn *f, FuzzEnd *end)
{
    unsigned nr = fuzz_u8(f->in);
    struct {
        struct vfio_user_header hdr;
        struct vfio_user_dma_rw rw;
    } msg = {
        .hdr = { .command = VFIO_USER_DMA_READ, .size = 32 },
        .rw = { .addr = RAM },
    };

    QEMU_BUILD_BUG_ON(sizeof(msg) != 32);
    msg.rw.count = size_of(f->in);
    for (unsigned i = 0; i < nr; i++) {
        peer_send(end, (uint8_t *)&msg, sizeof(msg), 0, 0);
        aio_poll(qemu_get_aio_context(), false);
    }
}

static void op_close(FuzzEnd *end, bool half)
{
    if (end->fd < 0) {
        return;
    }
    if (half) {
        shutdown(end->fd, SHUT_WR);
    } else {
        close(end->fd);
        end->fd = -1;
    }
}

/* ------------------------------------------------------------------------- */

static void conn_op(FuzzConn *f)
{
    uint8_t op = fuzz_u8(f->in);
    FuzzEnd *end = &f->end[op >> 7];
    FuzzCall *call = &f->calls[(op >> 4) % NR_CALLS];

    switch (op % 16) {
    case 0:
    case 1:
        return op_submit(f, call);
    case 2:
        return op_wait(f, call);
    case 3:
        return op_wait_until(f, call);
    case 4:
        return op_abandon(f, call);
    case 5:
        return op_detached(f);
    case 6:
        return op_post(f, op & 0x10);
    case 7:
        return op_post_writes(f);
    case 8:
    case 9:
        return op_reply(f, end);
    case 10:
        return op_command(f, end);
    case 11:
        return op_raw(f, end);
    case 12:
        return op_flood(f, end);
    case 13:
        return peer_read(f, end);
    case 14:
        aio_poll(qemu_get_aio_context(), false);
        return;
    default:
        if (op & 0x10) {
            op_close(end, op & 0x20);
        } else if (op & 0x20) {
            vfio_user_conn_set_lockstep(f->conn);
        } else if (op & 0x40) {
            vfio_user_conn_close(f->conn);
        }
    }
}

static VFIOUserConn *conn_open(FuzzConn *f, FuzzEnd *end)
{
    VFIOUserConn *conn;
    int small = 1, fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), ==,
                    0);
    if (f->flags & FLAG_SMALL) {
        setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    }
    end->fd = fd[1];
    end->got = g_byte_array_new();
    conn = vfio_user_conn_new(fd[0], "fuzz", &owner_ops, f, TIMEOUT_MS);
    vfio_user_conn_set_limits(conn, MAX_XFER);
    if (!(f->flags & FLAG_NOT_BEGUN)) {
        vfio_user_conn_start(conn, qemu_get_aio_context());
    }
    return conn;
}

static void conn_set_up(FuzzConn *f)
{
    f->asked = g_array_new(false, false, sizeof(Asked));
    f->ram = g_malloc0(RAM_SIZE);
    f->end[1].fd = -1;
    f->conn = conn_open(f, &f->end[0]);
    if (f->flags & FLAG_TWIN) {
        f->twin = conn_open(f, &f->end[1]);
        vfio_user_conn_set_no_commands(f->conn);
    }
    if (f->flags & FLAG_NO_FDS) {
        vfio_user_conn_set_no_fds(f->conn);
    }
    if (f->flags & FLAG_LOCKSTEP) {
        vfio_user_conn_set_lockstep(f->conn);
    }
    if (f->flags & FLAG_SPIN) {
        vfio_user_conn_set_poll(f->conn, 20);
    }
}

static void conn_tear_down(FuzzConn *f)
{
    for (unsigned i = 0; i < NR_CALLS; i++) {
        op_wait(f, &f->calls[i]);
    }
    vfio_user_conn_free(f->conn);
    if (f->twin) {
        vfio_user_conn_free(f->twin);
    }
    g_assert_cmpint(f->nr_mapped, ==, 0);
    g_assert_cmpint(f->nr_detached, ==, 0);
    g_assert_cmpint(f->nr_failed, <=, f->twin ? 2 : 1);
    for (unsigned i = 0; i < ARRAY_SIZE(f->end); i++) {
        op_close(&f->end[i], false);
        if (f->end[i].got) {
            g_byte_array_free(f->end[i].got, true);
        }
    }
    g_array_free(f->asked, true);
    g_free(f->ram);
}

void fuzz_conn(FuzzInput *in)
{
    g_autofree FuzzConn *f = g_new0(FuzzConn, 1);

    f->in = in;
    f->flags = fuzz_u8(in);
    conn_set_up(f);
    for (unsigned i = 0; i < MAX_OPS && in->len &&
                         f->nr_timeouts < MAX_TIMEOUTS; i++) {
        conn_op(f);
    }
    conn_tear_down(f);
}
