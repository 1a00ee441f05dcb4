/*
 * vfio-user benchmark: floors of migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   vfio-user-bench-migration-raw pair BYTES
 *       device state between two processes, as messages of one direction
 *   vfio-user-bench-migration-raw state SOCKET BYTES
 *       the same through a server, waiting for each reply; and how long the
 *       changes of state and the stream take together
 *   vfio-user-bench-migration-raw dirty SOCKET NR BYTES
 *       NR windows of BYTES, asked for dirty pages one after the other, and
 *       without waiting for the answers in between
 *
 * Constant messages and blocking system calls; nothing is checked but errors.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "hw/vfio-user/wire.h"
#include "measure.h"
#include "migration.h"

#define MIN(a, b)   ((a) < (b) ? (a) : (b))

/* How often the dirty pages are collected, and first without counting */
#define DIRTY_ROUNDS    20
#define DIRTY_WARM_UP   3
/* As many under way as the device has */
#define DIRTY_DEPTH     64

typedef struct DataMessage {
    struct vfio_user_header header;
    struct vfio_user_mig_data data;
} DataMessage;

typedef struct FeatureMessage {
    struct vfio_user_header header;
    struct vfio_user_feature feature;
    union {
        struct vfio_user_feature_mig_state state;
        struct vfio_user_feature_dma_logging logging;
        struct vfio_user_feature_dma_report report;
    };
} FeatureMessage;

#define REPORT_LEN      (offsetof(FeatureMessage, report) + \
                         sizeof(struct vfio_user_feature_dma_report))

static uint8_t state[BENCH_STATE_MESSAGE];

static void send_message(int fd, const void *head, size_t head_len,
                         size_t data_len)
{
    struct iovec iov[] = { { (void *)head, head_len }, { state, data_len } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

    if (sendmsg(fd, &msg, MSG_NOSIGNAL) != (ssize_t)(head_len + data_len)) {
        bench_die("send");
    }
}

static void receive(int fd, void *buf, size_t len)
{
    if (len && recv(fd, buf, len, MSG_WAITALL) != (ssize_t)len) {
        bench_die("receive");
    }
}

static void check_reply(const struct vfio_user_header *header,
                        const char *what)
{
    if (header->flags & VFIO_USER_ERROR) {
        errno = header->error;
        bench_die(what);
    }
}

/* A reply of @len bytes goes to @in, what follows them to @state. */
static void receive_reply(int fd, void *in, size_t len, const char *what)
{
    struct vfio_user_header *header = in;

    receive(fd, header, sizeof(*header));
    check_reply(header, what);
    receive(fd, header + 1, len - sizeof(*header));
    receive(fd, state, MIN(header->size - len, sizeof(state)));
}

static double rate(uint64_t size, uint64_t since)
{
    return size * 1000.0 / (bench_now() - since);
}

/* --- Device state --- */

static DataMessage data_message(uint16_t command, uint32_t size, uint32_t len)
{
    return (DataMessage) {
        .header = { .command = command, .size = sizeof(DataMessage) + len },
        .data = {
            .argsz = sizeof(struct vfio_user_mig_data) + size, .size = size,
        },
    };
}

static void pair_receive(int fd, uint64_t size)
{
    DataMessage in;

    for (uint64_t got = 0; got < size; got += in.data.size) {
        receive(fd, &in, sizeof(in));
        receive(fd, state, in.data.size);
    }
    send_message(fd, &in, 1, 0);
}

static void pair_send(int fd, uint64_t size)
{
    uint64_t start = bench_now();
    char done;

    for (uint64_t at = 0; at < size; at += sizeof(state)) {
        uint32_t len = MIN(size - at, sizeof(state));
        DataMessage out = data_message(VFIO_USER_MIG_DATA_WRITE, len, len);

        send_message(fd, &out, sizeof(out), len);
    }
    receive(fd, &done, 1);
    bench_print("pair", "MB/s", rate(size, start));
}

static void bench_pair(uint64_t size)
{
    int fds[2];
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) {
        bench_die("socketpair");
    }
    child = fork();
    if (child < 0) {
        bench_die("fork");
    }
    if (child == 0) {
        close(fds[0]);
        pair_receive(fds[1], size);
        exit(0);
    }
    close(fds[1]);
    pair_send(fds[0], size);
    waitpid(child, NULL, 0);
}

static void set_state(int fd, uint32_t to)
{
    size_t len = offsetof(FeatureMessage, state) +
                 sizeof(struct vfio_user_feature_mig_state);
    FeatureMessage msg = {
        .header = { .command = VFIO_USER_DEVICE_FEATURE, .size = len },
        .feature = {
            .argsz = len - sizeof(struct vfio_user_header),
            .flags = VFIO_USER_FEATURE_SET |
                     VFIO_USER_FEATURE_MIG_DEVICE_STATE,
        },
        .state = { .state = to },
    };

    send_message(fd, &msg, len, 0);
    receive_reply(fd, &msg, len, "changing the state");
}

static void read_state(int fd)
{
    DataMessage out = data_message(VFIO_USER_MIG_DATA_READ, sizeof(state), 0);
    DataMessage in;

    do {
        send_message(fd, &out, sizeof(out), 0);
        receive_reply(fd, &in, sizeof(in), "MIG_DATA_READ");
    } while (in.data.size);
}

static void write_state(int fd, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += sizeof(state)) {
        uint32_t len = MIN(size - at, sizeof(state));
        DataMessage out = data_message(VFIO_USER_MIG_DATA_WRITE, len, len);
        struct vfio_user_header in;

        send_message(fd, &out, sizeof(out), len);
        receive_reply(fd, &in, sizeof(in), "MIG_DATA_WRITE");
    }
}

/* Source and destination after each other, as far as the device goes. */
static void bench_state(int fd, uint64_t size)
{
    uint64_t start = bench_now(), from;

    set_state(fd, VFIO_USER_MIG_STOP);
    set_state(fd, VFIO_USER_MIG_STOP_COPY);
    from = bench_now();
    read_state(fd);
    bench_print("save", "MB/s", rate(size, from));
    set_state(fd, VFIO_USER_MIG_STOP);
    set_state(fd, VFIO_USER_MIG_RESUMING);
    from = bench_now();
    write_state(fd, size);
    bench_print("load", "MB/s", rate(size, from));
    set_state(fd, VFIO_USER_MIG_STOP);
    set_state(fd, VFIO_USER_MIG_RUNNING);
    bench_print("downtime", "us", (bench_now() - start) / 1000.0);
}

/* --- Dirty pages --- */

static void map_window(int fd, int memory, uint64_t addr, uint64_t size)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_map map;
    } out = {
        .header = { .command = VFIO_USER_DMA_MAP, .size = sizeof(out) },
        .map = {
            .argsz = sizeof(out.map), .addr = addr, .size = size,
            .offset = addr,
            .flags = VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
        },
    };
    struct iovec iov = { &out, sizeof(out) };
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { .align = {
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
        .cmsg_len = CMSG_LEN(sizeof(int)),
    } };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = sizeof(control),
    };

    memcpy(CMSG_DATA(&control.align), &memory, sizeof(memory));
    if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0) {
        bench_die("DMA_MAP");
    }
    receive_reply(fd, &out.header, sizeof(out.header), "DMA_MAP");
}

static void map_windows(int fd, unsigned nr, uint64_t size)
{
    int memory = memfd_create("bench", MFD_CLOEXEC);

    if (memory < 0 || ftruncate(memory, nr * size)) {
        bench_die("memfd");
    }
    for (unsigned i = 0; i < nr; i++) {
        map_window(fd, memory, i * size, size);
    }
    close(memory);
}

/* START without ranges: everything */
static void set_logging(int fd, bool on)
{
    size_t len = on ? offsetof(FeatureMessage, logging) +
                      sizeof(struct vfio_user_feature_dma_logging)
                    : offsetof(FeatureMessage, state);
    FeatureMessage msg = {
        .header = { .command = VFIO_USER_DEVICE_FEATURE, .size = len },
        .feature = {
            .argsz = len - sizeof(struct vfio_user_header),
            .flags = VFIO_USER_FEATURE_SET |
                     (on ? VFIO_USER_FEATURE_DMA_LOGGING_START
                         : VFIO_USER_FEATURE_DMA_LOGGING_STOP),
        },
        .logging = { .page_size = 4096 },
    };

    send_message(fd, &msg, len, 0);
    receive_reply(fd, &msg, len, "dirty page logging");
}

static void ask_report(int fd, uint64_t addr, uint64_t size)
{
    FeatureMessage msg = {
        .header = {
            .command = VFIO_USER_DEVICE_FEATURE, .size = REPORT_LEN,
        },
        .feature = {
            .argsz = REPORT_LEN - sizeof(struct vfio_user_header) +
                     size / 4096 / 8,
            .flags = VFIO_USER_FEATURE_GET |
                     VFIO_USER_FEATURE_DMA_LOGGING_REPORT,
        },
        .report = { .iova = addr, .length = size, .page_size = 4096 },
    };

    send_message(fd, &msg, REPORT_LEN, 0);
}

/* All windows once, with up to @depth questions on their way. */
static void collect(int fd, unsigned nr, uint64_t size, unsigned depth)
{
    FeatureMessage in;
    unsigned asked = 0;

    for (unsigned i = 0; i < nr; i++) {
        while (asked < nr && asked < i + depth) {
            ask_report(fd, asked++ * size, size);
        }
        receive_reply(fd, &in, REPORT_LEN, "DMA_LOGGING_REPORT");
    }
}

static void bench_reports(int fd, unsigned nr, uint64_t size, unsigned depth,
                          const char *name)
{
    uint64_t ns[DIRTY_ROUNDS];

    for (int i = -DIRTY_WARM_UP; i < DIRTY_ROUNDS; i++) {
        uint64_t start = bench_now();

        collect(fd, nr, size, depth);
        if (i >= 0) {
            ns[i] = bench_now() - start;
        }
    }
    bench_samples(name, ns, DIRTY_ROUNDS, 1);
}

static void bench_dirty(int fd, unsigned nr, uint64_t size)
{
    map_windows(fd, nr, size);
    set_logging(fd, true);
    bench_reports(fd, nr, size, 1, "naive");
    bench_reports(fd, nr, size, DIRTY_DEPTH, "pipelined");
    set_logging(fd, false);
}

static int open_device(const char *path)
{
    int fd = bench_connect(path);

    bench_negotiate(fd);
    return fd;
}

int main(int argc, char **argv)
{
    memset(state, 1, sizeof(state));
    if (argc == 3 && !strcmp(argv[1], "pair")) {
        bench_pair(strtoull(argv[2], NULL, 0));
    } else if (argc == 4 && !strcmp(argv[1], "state")) {
        bench_state(open_device(argv[2]), strtoull(argv[3], NULL, 0));
    } else if (argc == 5 && !strcmp(argv[1], "dirty")) {
        bench_dirty(open_device(argv[2]), atoi(argv[3]),
                    strtoull(argv[4], NULL, 0));
    } else {
        fprintf(stderr, "usage: vfio-user-bench-migration-raw pair BYTES\n"
                "       vfio-user-bench-migration-raw state SOCKET BYTES\n"
                "       vfio-user-bench-migration-raw dirty SOCKET NR "
                "BYTES\n");
        return 2;
    }
    return 0;
}
