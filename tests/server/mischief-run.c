/*
 * vfio-user test server: the list of misbehaviours of a device in use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The client made the standard device work and shares guest RAM of 128 MiB.
 * Then a reply to it goes wrong once, or the server acts by itself. Indices and
 * offsets are as in mischief-list.c.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "mischief.h"

#define RAM_END         (128u << 20)
#define HOLE            0x100000000000ull
#define ROM             0xfffc0000u
#define FLOOD           20000
#define CONFIG          VFIO_USER_REGION_CONFIG
#define LATE            "did not answer in time"
#define CLOSED          "device lost: *server closed the connection"
#define BROKE           "device lost: *broke the protocol: "

/* --- What the server does of its own accord --- */

/* A message with @len zero bytes of payload, whose reply nobody awaits. */
static int act_send(TestServer *s, int fd, uint16_t command, uint32_t flags,
                    size_t len, unsigned nr_fds)
{
    TsMessage msg;
    int err;

    ts_message_init(&msg);
    msg.hdr.id = s->next_id++;
    msg.hdr.command = command;
    msg.hdr.flags = flags;
    if (len) {
        g_byte_array_set_size(msg.payload, len);
        memset(msg.payload->data, 0, len);
    }
    while (nr_fds--) {
        ts_message_add_fd(&msg, s->wake_fd);
    }
    err = ts_transport_send(s, fd, &msg);
    ts_message_clear(&msg);
    return err;
}

/* The same, and the errno of the reply. */
static int act_ask(TestServer *s, int fd, uint16_t command, size_t len,
                   unsigned nr_fds)
{
    int err = act_send(s, fd, command, VFIO_USER_TYPE_COMMAND, len, nr_fds);
    TsMessage reply;

    if (!err) {
        err = ts_transport_receive(s, fd, &reply);
    }
    if (!err) {
        err = reply.hdr.command != command ? EPROTO :
              reply.hdr.flags & VFIO_USER_ERROR ? (int)reply.hdr.error : 0;
        ts_message_clear(&reply);
    }
    return err;
}

static int act_reply_unasked(TestServer *s)
{
    return act_send(s, s->conn_fd, VFIO_USER_REGION_READ,
                    VFIO_USER_TYPE_REPLY, 20, 0);
}

static int act_reply_on_twin(TestServer *s)
{
    return act_send(s, s->twin_fd, VFIO_USER_REGION_READ,
                    VFIO_USER_TYPE_REPLY, 20, 0);
}

static int act_zeroes(TestServer *s)
{
    static const uint8_t zeroes[16];

    return ts_transport_send_raw(s, s->conn_fd, zeroes, sizeof(zeroes), NULL,
                                 0);
}

static int act_text(TestServer *s)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\n\r\n";

    return ts_transport_send_raw(s, s->conn_fd, text, strlen(text), NULL, 0);
}

/* What is read next completes it. */
static int act_half_header(TestServer *s)
{
    static const uint8_t half[8] = { 1, 0, 9, 0, 36 };

    return ts_transport_send_raw(s, s->conn_fd, half, sizeof(half), NULL, 0);
}

static int act_half_command(TestServer *s)
{
    static const struct vfio_user_header header = {
        .command = VFIO_USER_DMA_READ, .size = sizeof(header) + 16,
        .flags = VFIO_USER_TYPE_COMMAND,
    };
    int err = ts_transport_send_raw(s, s->twin_fd, &header, sizeof(header),
                                    NULL, 0);

    shutdown(s->twin_fd, SHUT_WR);
    return err;
}

static int act_shut_write(TestServer *s)
{
    return shutdown(s->conn_fd, SHUT_WR) ? errno : 0;
}

static int act_shut_read(TestServer *s)
{
    return shutdown(s->conn_fd, SHUT_RD) ? errno : 0;
}

static int act_shut_twin(TestServer *s)
{
    return shutdown(s->twin_fd, SHUT_WR) ? errno : 0;
}

static int act_shut_twin_read(TestServer *s)
{
    shutdown(s->twin_fd, SHUT_RD);
    return act_send(s, s->twin_fd, VFIO_USER_DMA_READ,
                    VFIO_USER_TYPE_COMMAND, 16, 0);
}

/* Commands that are not a server's, or on the other socket. */

static int act_command_zero(TestServer *s)
{
    return act_ask(s, s->twin_fd, 0, 0, 0);
}

static int act_command_max(TestServer *s)
{
    return act_ask(s, s->twin_fd, 0xffff, 64, 0);
}

static int act_command_version(TestServer *s)
{
    return act_ask(s, s->twin_fd, VFIO_USER_VERSION, 4, 0);
}

static int act_command_of_ours(TestServer *s)
{
    return act_ask(s, s->twin_fd, VFIO_USER_REGION_READ, 16, 0);
}

static int act_command_large(TestServer *s)
{
    return act_send(s, s->twin_fd, 0xffff, VFIO_USER_TYPE_COMMAND,
                    (1 << 20) + 17, 0);
}

static int act_command_on_first(TestServer *s)
{
    return act_ask(s, s->conn_fd, VFIO_USER_DMA_READ, 16, 0);
}

static int act_command_fds(TestServer *s)
{
    return act_ask(s, s->twin_fd, VFIO_USER_DMA_READ, 16,
                   VFIO_USER_MAX_MSG_FDS);
}

static int act_command_too_many_fds(TestServer *s)
{
    return act_send(s, s->twin_fd, VFIO_USER_DMA_READ,
                    VFIO_USER_TYPE_COMMAND, 16, VFIO_USER_MAX_MSG_FDS + 1);
}

/* DMA. What is read is looked at by the tests of DMA itself. */

static int act_dma(TestServer *s, uint16_t command, uint64_t addr,
                   uint64_t count, size_t len)
{
    g_autofree uint8_t *buf = g_malloc0(len + 1);

    return ts_dma_command(s, command, addr, count, buf, len);
}

static int act_dma_read_hole(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, HOLE, 64, 64);
}

static int act_dma_write_hole(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, HOLE, 64, 64);
}

static int act_dma_read_across(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, RAM_END - 32, 64, 64);
}

static int act_dma_write_across(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, RAM_END - 32, 64, 64);
}

/* One window ends here and the next one begins. */
static int act_dma_two_windows(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, 0x100000 - 64, 128, 128);
}

static int act_dma_rom(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, ROM, 64, 64);
}

static int act_dma_last_byte(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, UINT64_MAX, 1, 1);
}

static int act_dma_wraps(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, UINT64_MAX - 7, 16, 16);
}

static int act_dma_read_nothing(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, 0x1000, 0, 0);
}

static int act_dma_write_nothing(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, HOLE, 0, 0);
}

static int act_dma_most(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, 1 << 20, 1 << 20, 1 << 20);
}

static int act_dma_above_most(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, 1 << 20, (1 << 20) + 1,
                   (1 << 20) + 1);
}

static int act_dma_count_max(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_READ, 0x1000, UINT64_MAX, 0);
}

static int act_dma_write_above_most(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, 1 << 20, (1 << 20) + 1,
                   (1 << 20) + 1);
}

static int act_dma_write_short(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, 0x1000, 64, 63);
}

static int act_dma_write_long(TestServer *s)
{
    return act_dma(s, VFIO_USER_DMA_WRITE, 0x1000, 64, 65);
}

static int act_dma_read_with_data(TestServer *s)
{
    return act_send(s, s->twin_fd, VFIO_USER_DMA_READ,
                    VFIO_USER_TYPE_COMMAND, 16 + 8, 0);
}

static int act_dma_without_args(TestServer *s)
{
    return act_send(s, s->twin_fd, VFIO_USER_DMA_READ,
                    VFIO_USER_TYPE_COMMAND, 15, 0);
}

/* Floods. One that ends early ends with the connection. */

static int act_flood(TestServer *s, uint16_t command, uint32_t flags,
                     size_t len)
{
    int err = 0;

    for (unsigned i = 0; i < FLOOD && !err; i++) {
        err = act_send(s, s->twin_fd, command, flags, len, 0);
    }
    return err;
}

static int act_flood_posted(TestServer *s)
{
    return act_flood(s, VFIO_USER_DMA_WRITE,
                     VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY, 16);
}

static int act_flood_unknown_posted(TestServer *s)
{
    return act_flood(s, 0xffff, VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY,
                     256);
}

static int act_flood_unread(TestServer *s)
{
    return act_flood(s, VFIO_USER_DMA_READ, VFIO_USER_TYPE_COMMAND, 16);
}

static int act_flood_unknown_unread(TestServer *s)
{
    return act_flood(s, 0xffff, VFIO_USER_TYPE_COMMAND, 0);
}

/* Each for 1 MiB of guest memory, which is pinned until the reply is out. */
static int act_flood_large_unread(TestServer *s)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_rw rw;
    } msg = {
        .header = { .command = VFIO_USER_DMA_READ, .size = sizeof(msg),
                    .flags = VFIO_USER_TYPE_COMMAND },
        .rw = { 1 << 20, 1 << 20 },
    };
    int err = 0;

    for (unsigned i = 0; i < FLOOD && !err; i++) {
        msg.header.id = i;
        err = ts_transport_send_raw(s, s->twin_fd, &msg, sizeof(msg), NULL, 0);
    }
    return err;
}

/* --- The list --- */

#define R(what, ...)    REPLY(REGION_READ, 0, what, __VA_ARGS__)
#define W(what, ...)    REPLY(REGION_WRITE, 0, what, __VA_ARGS__)
#define C(what, ...)    REPLY(REGION_READ, CONFIG, what, __VA_ARGS__)
#define CALL_N(fn, n)   CALL, .call = fn, .opaque = (void *)(intptr_t)(n)

#define LOST(name, says, ...) \
    ROW(name, REFUSED, says, WITH(__VA_ARGS__))
#define FINE(name, ...) \
    ROW(name, HARMLESS, NULL, WITH(__VA_ARGS__))
#define WARNS(name, says, ...) \
    ROW(name, HARMLESS, says, WITH(__VA_ARGS__))
#define DENIED(name, says, ...) \
    ROW(name, DENIED, says, WITH(__VA_ARGS__))
#define LOST_BY(name, says, fn)     ROW(name, REFUSED, says, .act = fn)
#define ACT(name, fn, error)        ROW(name, HARMLESS, NULL, .act = fn, \
                                        .act_error = error)

const TsMischief ts_run_mischiefs[] = {
    LOST("read-id", BROKE "a reply to nothing", R(HEADER,
                                                  PUT(0, 0xdead, 2))),
    LOST("read-id-next", BROKE "a reply to nothing",
         R(CALL_N(ts_call_add_id, 1))),
    LOST("read-command", BROKE "*another command",
         R(HEADER, PUT(2, VFIO_USER_REGION_WRITE, 2))),
    LOST("read-command-max", BROKE "*another command",
         R(HEADER, PUT(2, 0xffff, 2))),
    LOST("read-type", BROKE "neither command nor reply",
         R(HEADER, PUT(8, 3, 4))),
    LOST("read-size-zero", BROKE "a message of 0 bytes",
         R(HEADER, PUT(4, 0, 4))),
    LOST("read-size-one-less", BROKE "*payload has 19 bytes, 20 expected",
         R(HEADER, PUT(4, 35, 4))),
    LOST("read-size-one-more", BROKE "*larger than the request allows",
         R(HEADER, PUT(4, 37, 4))),
    LOST("read-size-max", BROKE "*larger than the request allows",
         R(HEADER, PUT(4, UINT32_MAX, 4))),
    LOST("read-empty", BROKE "*payload has 0 bytes", R(CUT, .a = 0)),
    LOST("read-without-data", BROKE "*payload has 16 bytes", R(CUT, .a = 16)),
    LOST("read-short", BROKE "*payload has 19 bytes", R(CUT, .a = 19)),
    LOST("read-long", BROKE "*larger than the request", R(PAD, .a = 1)),
    LOST("read-huge", BROKE "*larger than the request", R(PAD, .a = 1 << 20)),
    LOST("read-offset-zero", BROKE "*answer is about region 0 0x0+4",
         R(PATCH, PUT(0, 0, 8))),
    LOST("read-offset-one-more", BROKE "*answer is about region 0 0x31+4",
         R(PATCH, PUT(0, 0x31, 8))),
    LOST("read-offset-max", BROKE "*answer is about region 0 0xffffffffffff",
         R(PATCH, PUT(0, UINT64_MAX, 8))),
    LOST("read-region", BROKE "*answer is about region 1 0x30+4",
         R(PATCH, PUT(8, 1, 4))),
    LOST("read-region-max", BROKE "*answer is about region 4294967295",
         R(PATCH, PUT(8, UINT32_MAX, 4))),
    LOST("read-count-zero", BROKE "*answer is about region 0 0x30+0",
         R(PATCH, PUT(12, 0, 4))),
    LOST("read-count-one-less", BROKE "*answer is about region 0 0x30+3",
         R(PATCH, PUT(12, 3, 4))),
    LOST("read-count-max", BROKE "*answer is about region 0 0x30+4294967295",
         R(PATCH, PUT(12, UINT32_MAX, 4))),
    LOST("read-twice", BROKE "a reply to nothing", R(TWICE)),
    LOST("read-closed", CLOSED, R(CLOSE)),
    LOST("read-truncated", CLOSED, R(TRUNCATE, .a = 20)),
    DENIED("read-refused", "read of 4 bytes*failed: Input/output error",
           R(ERROR, .a = EIO)),
    DENIED("read-error-zero", "read of 4 bytes*failed: Input/output error",
           R(ERROR, .a = 0)),
    DENIED("read-error-max", "read of 4 bytes*failed: Unknown error 4095",
           R(ERROR, .a = UINT32_MAX)),
    DENIED("read-error-payload", "read of 4 bytes*failed: Input/output",
           R(HEADER, PUT(8, 0x21, 4))),
    DENIED("read-unanswered", "read of 4 bytes*" LATE, R(DROP)),
    DENIED("read-late", "read of 4 bytes*" LATE, R(DELAY, .a = 1500)),
    FINE("read-fd", R(EXTRA_FDS, .a = 1)),
    FINE("read-many-fds", R(EXTRA_FDS, .a = TS_MAX_FDS)),
    FINE("read-flags-unknown", R(HEADER, PUT(8, 0xffffffc1, 4))),

    LOST("write-offset", BROKE "*answer is about region 0 0x31+4",
         W(PATCH, PUT(0, 0x31, 8))),
    LOST("write-region", BROKE "*answer is about region 7",
         W(PATCH, PUT(8, 7, 4))),
    LOST("write-count", BROKE "*answer is about region 0 0x30+5",
         W(PATCH, PUT(12, 5, 4))),
    LOST("write-with-data", BROKE "*larger than the request", W(PAD, .a = 4)),
    LOST("write-short", BROKE "*payload has 12 bytes", W(CUT, .a = 12)),
    LOST("write-empty", BROKE "*payload has 0 bytes", W(CUT, .a = 0)),
    LOST("write-twice", BROKE "a reply to nothing", W(TWICE)),
    LOST("write-closed", CLOSED, W(CLOSE)),
    DENIED("write-refused", "write of 4 bytes*failed: Invalid argument",
           W(ERROR, .a = EINVAL)),
    DENIED("write-unanswered", "write of 4 bytes*" LATE, W(DROP)),
    FINE("write-fds", W(EXTRA_FDS, .a = 8)),

    LOST("config-short", BROKE "*payload has 16 bytes, 17", C(CUT, .a = 16)),
    LOST("config-offset", BROKE "*answer is about region 7 0x0+1",
         C(PATCH, PUT(0, 0, 8))),
    LOST("config-closed", CLOSED, C(CLOSE)),
    DENIED("config-refused", "read of 1 bytes*failed: Operation not permit",
           C(ERROR, .a = EPERM)),
    DENIED("config-unanswered", "read of 1 bytes*" LATE, C(DROP)),

    LOST("reset-closed", CLOSED, REPLY(DEVICE_RESET, -1, CLOSE)),
    LOST("reset-long", BROKE "*larger than the request",
         REPLY(DEVICE_RESET, -1, PAD, .a = 1)),
    LOST("reset-twice", BROKE "a reply to nothing",
         REPLY(DEVICE_RESET, -1, TWICE)),
    WARNS("reset-refused", "reset failed: Device or resource busy",
          REPLY(DEVICE_RESET, -1, ERROR, .a = EBUSY)),
    WARNS("reset-unanswered", "reset failed: Connection timed out",
          REPLY(DEVICE_RESET, -1, DROP)),

    LOST("irqs-closed", CLOSED, REPLY(DEVICE_SET_IRQS, 2, CLOSE)),
    LOST("irqs-long", BROKE "*larger than the request",
         REPLY(DEVICE_SET_IRQS, 2, PAD, .a = 20)),
    LOST("irqs-twice", BROKE "a reply to nothing",
         REPLY(DEVICE_SET_IRQS, 2, TWICE)),
    FINE("irqs-refused", REPLY(DEVICE_SET_IRQS, 2, ERROR, .a = EINVAL)),
    FINE("irqs-unanswered", REPLY(DEVICE_SET_IRQS, 2, DROP)),

    LOST("map-refused", "device lost: *DMA_MAP*Operation not permitted",
         REPLY(DMA_MAP, -1, ERROR, .a = EPERM)),
    /* Nobody waits for it; how many may be open is bounded. */
    FINE("map-unanswered", REPLY(DMA_MAP, -1, DROP)),
    LOST("map-long", BROKE "*larger than the request",
         REPLY(DMA_MAP, -1, PAD, .a = 32)),
    LOST("unmap-address", "device lost: *DMA_UNMAP*answer is about window",
         REPLY(DMA_UNMAP, -1, PATCH, PUT(8, 0x1000, 8))),
    LOST("unmap-size", "device lost: *DMA_UNMAP*answer is about window",
         REPLY(DMA_UNMAP, -1, PATCH, PUT(16, UINT64_MAX, 8))),
    LOST("unmap-short", "device lost: *DMA_UNMAP*payload of 8 bytes",
         REPLY(DMA_UNMAP, -1, CUT, .a = 8)),
    FINE("unmap-empty", REPLY(DMA_UNMAP, -1, CUT, .a = 0)),
    LOST("unmap-refused", "device lost: *DMA_UNMAP*No such file",
         REPLY(DMA_UNMAP, -1, ERROR, .a = ENOENT)),
    FINE("unmap-unanswered", REPLY(DMA_UNMAP, -1, DROP)),
    LOST("unmap-closed", CLOSED, REPLY(DMA_UNMAP, -1, CLOSE)),

    LOST_BY("reply-unasked", BROKE "a reply to nothing", act_reply_unasked),
    LOST_BY("reply-on-twin", "device lost: second socket: *broke the "
            "protocol: a reply to nothing", act_reply_on_twin),
    LOST_BY("zeroes", BROKE "a message of 0 bytes", act_zeroes),
    LOST_BY("text", BROKE, act_text),
    LOST_BY("half-header", BROKE, act_half_header),
    LOST_BY("half-command", "device lost: second socket: *closed the conn",
            act_half_command),
    LOST_BY("half-open-write", CLOSED, act_shut_write),
    LOST_BY("half-open-read", CLOSED, act_shut_read),
    LOST_BY("half-open-twin", "device lost: second socket: *closed the conn",
            act_shut_twin),
    LOST_BY("half-open-twin-read", "device lost: second socket: *closed the",
            act_shut_twin_read),

    ACT("command-zero", act_command_zero, ENOTSUP),
    ACT("command-max", act_command_max, ENOTSUP),
    ACT("command-version", act_command_version, ENOTSUP),
    ACT("command-of-ours", act_command_of_ours, ENOTSUP),
    ACT("command-on-first-socket", act_command_on_first, 0),
    ACT("command-fds", act_command_fds, 0),
    LOST_BY("command-too-many-fds", "device lost: second socket: *more desc",
            act_command_too_many_fds),
    LOST_BY("command-large", "device lost: second socket: *larger than agr",
            act_command_large),

    ACT("dma-read-hole", act_dma_read_hole, EFAULT),
    ACT("dma-write-hole", act_dma_write_hole, EFAULT),
    ACT("dma-read-across-end", act_dma_read_across, EFAULT),
    ACT("dma-write-across-end", act_dma_write_across, EFAULT),
    ACT("dma-across-windows", act_dma_two_windows, 0),
    ACT("dma-write-rom", act_dma_rom, EFAULT),
    ACT("dma-last-byte", act_dma_last_byte, EINVAL),
    ACT("dma-wraps", act_dma_wraps, EINVAL),
    ACT("dma-read-nothing", act_dma_read_nothing, 0),
    ACT("dma-write-nothing", act_dma_write_nothing, 0),
    ACT("dma-most", act_dma_most, 0),
    ACT("dma-above-most", act_dma_above_most, EINVAL),
    ACT("dma-count-max", act_dma_count_max, EINVAL),
    LOST_BY("dma-write-above-most", "device lost: *larger than agreed",
            act_dma_write_above_most),
    LOST_BY("dma-write-short", "device lost: *a DMA command of 95 bytes",
            act_dma_write_short),
    LOST_BY("dma-write-long", "device lost: *a DMA command of 97 bytes",
            act_dma_write_long),
    LOST_BY("dma-read-with-data", "device lost: *a DMA command of 40 bytes",
            act_dma_read_with_data),
    LOST_BY("dma-without-args", "device lost: *without address and count",
            act_dma_without_args),

    ACT("flood-posted", act_flood_posted, 0),
    ACT("flood-unknown-posted", act_flood_unknown_posted, 0),
    LOST_BY("flood-unread", "device lost: *none of whose replies it reads",
            act_flood_unread),
    LOST_BY("flood-unknown-unread", "device lost: *none of whose replies it",
            act_flood_unknown_unread),
    LOST_BY("flood-large-unread", "device lost: *none of whose replies it",
            act_flood_large_unread),
};

const unsigned ts_nr_run_mischiefs = G_N_ELEMENTS(ts_run_mischiefs);
