/*
 * vfio-user benchmark: the device that is measured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   vfio-user-bench-server SOCKET [bells|far]
 *
 * The test server, extended by registers that make it raise an interrupt or
 * move data by messages. DMA runs inside the write that asks for it, on the
 * twin socket, with as little overhead as can be: what is measured is the
 * client.
 *
 * SIGUSR1 prints how many messages the present client has sent and how long
 * it took from the second one (the first is VERSION) to the last that was no
 * access: a machine resets its devices some time after it has built them.
 *
 * "far" is the same device with messages that take a millisecond to get there.
 * Those that are under way together share it, so a client that asks for one
 * thing after the other pays for each, and one that does not pays once. Only
 * VERSION takes no time.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "../server/internal.h"
#include "device.h"
#include "measure.h"

typedef struct BenchServer {
    uint32_t regs[BENCH_NR_REGS];
    uint8_t data[BENCH_DMA_MAX];
    unsigned nr_messages;   /* atomic */
    uint64_t first, last;   /* atomic */
    bool far;
    int near;               /* bytes that came while we waited for others */
} BenchServer;

static BenchServer bench;

/* An error reply is shorter and would leave us waiting: look first. */
static bool dma_receive(int fd, struct iovec *iov, unsigned nr, size_t len)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
    struct vfio_user_header *header = iov->iov_base;
    ssize_t got = recvmsg(fd, &msg, 0);

    if (got < (ssize_t)sizeof(*header) || header->flags & VFIO_USER_ERROR) {
        return false;
    }
    while (got < (ssize_t)len) {
        ssize_t part = recv(fd, bench.data + (got - iov->iov_len),
                            len - got, MSG_WAITALL);

        if (part <= 0) {
            return false;
        }
        got += part;
    }
    return true;
}

/* The kernel takes all of a message or we wait for the rest. */
static bool dma_send(int fd, struct iovec *iov, unsigned nr, size_t len)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };

    return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool dma_one(int fd, uint16_t id, bool write, uint64_t addr,
                    uint32_t len)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_rw rw;
    } out = {
        .header = {
            .id = id,
            .command = write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ,
            .size = sizeof(out) + (write ? len : 0),
        },
        .rw = { .addr = addr, .count = len },
    }, in;
    struct iovec out_iov[] = { { &out, sizeof(out) }, { bench.data, len } };
    struct iovec in_iov[] = { { &in, sizeof(in) }, { bench.data, len } };
    size_t in_len = sizeof(in) + (write ? 0 : len);

    return dma_send(fd, out_iov, write ? 2 : 1, out.header.size) &&
           dma_receive(fd, in_iov, write ? 1 : 2, in_len) &&
           in.header.id == id && in.header.size == in_len;
}

static uint32_t dma_run(TestServer *s, bool write)
{
    uint64_t start = bench_now();
    uint32_t len = bench.regs[BENCH_DMA_LEN / 4];

    if (s->twin_fd < 0 || len > BENCH_DMA_MAX) {
        return 0;
    }
    for (uint32_t i = 0; i < bench.regs[BENCH_DMA_COUNT / 4]; i++) {
        if (!dma_one(s->twin_fd, i, write, bench.regs[BENCH_DMA_ADDR / 4],
                     len)) {
            return 0;
        }
    }
    return bench_now() - start;
}

static int access_control(TestServer *s, unsigned region, uint64_t offset,
                          void *data, uint32_t len, bool write, void *opaque)
{
    uint32_t *reg = &bench.regs[offset / 4];

    (void)region;
    (void)opaque;
    if (len != 4 || offset % 4 || offset / 4 >= BENCH_NR_REGS) {
        return EINVAL;
    }
    if (!write) {
        memcpy(data, reg, len);
        return 0;
    }
    memcpy(reg, data, len);
    if (offset == BENCH_IRQ) {
        ts_irq_trigger(s, VFIO_USER_IRQ_MSI, 0);
    } else if (offset == BENCH_DMA_GO) {
        bench.regs[BENCH_DMA_NS / 4] = dma_run(s, *reg == BENCH_DMA_WRITE);
    }
    return 0;
}

static void far_wait(TestServer *s, int size)
{
    if (bench.near < size) {
        usleep(BENCH_FAR_US);
        if (ioctl(s->conn_fd, FIONREAD, &bench.near)) {
            bench.near = 0;
        }
    } else {
        bench.near -= size;
    }
}

static int count_message(TestServer *s, TsMessage *request, TsMessage *reply,
                         void *opaque)
{
    uint64_t now = bench_now();

    (void)reply;
    (void)opaque;
    if (bench.far) {
        far_wait(s, request->hdr.size);
    }
    if (request->hdr.command == VFIO_USER_DEVICE_GET_INFO) {
        __atomic_store_n(&bench.nr_messages, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&bench.first, now, __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(&bench.nr_messages, 1, __ATOMIC_RELAXED);
    if (request->hdr.command != VFIO_USER_REGION_READ &&
        request->hdr.command != VFIO_USER_REGION_WRITE &&
        request->hdr.command != VFIO_USER_DEVICE_RESET) {
        __atomic_store_n(&bench.last, now, __ATOMIC_RELAXED);
    }
    return -1;
}

static TestServer *make_device(const char *kind)
{
    TestServer *s = ts_new();
    bool bells = !strcmp(kind, "bells");

    ts_config_id(s, BENCH_VENDOR, bells ? BENCH_BELLS_DEVICE : BENCH_DEVICE,
                 0xff0000, 1);
    ts_add_bar(s, 0, BENCH_BAR_SIZE, 0);
    if (bells) {
        /* Nobody takes the signals: what they cost the guest is measured. */
        ts_add_io_fd(s, 0, BENCH_BELL, 4);
        ts_io_fd_shadow(s, ts_add_io_fd(s, 0, BENCH_BELL_SHADOW, 4), 0);
    }
    ts_add_bar(s, 1, BENCH_BAR_SIZE, 0)->access = access_control;
    ts_add_msi(s, 1, false);
    for (unsigned i = 0; i < VFIO_USER_COMMAND_MAX; i++) {
        ts_set_handler(s, i, count_message, NULL);
    }
    return s;
}

int main(int argc, char **argv)
{
    const char *kind = argc == 3 ? argv[2] : "";
    TestServer *s;
    sigset_t set;
    int sig, err;

    bench.far = !strcmp(kind, "far");
    if (argc != 2 && (argc != 3 || (!bench.far && strcmp(kind, "bells")))) {
        fprintf(stderr,
                "usage: vfio-user-bench-server SOCKET [bells|far]\n");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);

    s = make_device(kind);
    ts_log_enable(s, false);
    err = ts_start(s, argv[1]);
    if (err) {
        fprintf(stderr, "vfio-user-bench-server: cannot serve %s: %s\n",
                argv[1], strerror(err));
        return 1;
    }
    printf("serving\n");
    fflush(stdout);
    while (!sigwait(&set, &sig) && sig == SIGUSR1) {
        printf("messages %u %llu\n",
               __atomic_load_n(&bench.nr_messages, __ATOMIC_RELAXED),
               (unsigned long long)(
                   __atomic_load_n(&bench.last, __ATOMIC_RELAXED) -
                   __atomic_load_n(&bench.first, __ATOMIC_RELAXED)));
        fflush(stdout);
    }
    ts_free(s);
    return 0;
}
