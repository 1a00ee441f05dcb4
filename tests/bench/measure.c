/*
 * vfio-user benchmark: samples, and getting to the point of measuring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "hw/vfio-user/wire.h"
#include "measure.h"

typedef struct BenchDma {
    uint32_t len, count;
    const char *name;
} BenchDma;

static const BenchDma bench_dma[] = {
    { 4096, 256, "4k" },
    { 65536, 128, "64k" },
    { 1024 * 1024, 32, "1m" },
};

static uint64_t samples[BENCH_READS];

void bench_die(const char *what)
{
    fprintf(stderr, "bench: %s failed: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t bench_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

void bench_print(const char *name, const char *unit, double value)
{
    printf("%s %s %.1f\n", name, unit, value);
    fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void bench_samples(const char *name, uint64_t *ns, unsigned nr, unsigned per)
{
    char text[64];

    qsort(ns, nr, sizeof(*ns), compare);
    snprintf(text, sizeof(text), "%s-p50", name);
    bench_print(text, "ns", (double)ns[nr / 2] / per);
    snprintf(text, sizeof(text), "%s-p99", name);
    bench_print(text, "ns", (double)ns[nr * 99 / 100] / per);
}

void bench_reads(const BenchClient *client, void *c, uint32_t region,
                 uint32_t count, const char *name)
{
    for (int i = -BENCH_WARM_UP; i < BENCH_READS; i++) {
        uint64_t start = bench_now();

        client->read(c, region, 0, count);
        if (i >= 0) {
            samples[i] = bench_now() - start;
        }
    }
    bench_samples(name, samples, BENCH_READS, 1);
}

void bench_posts(const BenchClient *client, void *c)
{
    for (int i = -BENCH_BURSTS / 4; i < BENCH_BURSTS; i++) {
        uint64_t start = bench_now();

        for (int j = 0; j < BENCH_POST_BURST; j++) {
            client->post(c, 0, 0, j);
        }
        if (i >= 0) {
            samples[i] = bench_now() - start;
        }
        client->read(c, 0, 0, 4);
    }
    bench_samples("write", samples, BENCH_BURSTS, BENCH_POST_BURST);
}

/* MB/s: the device takes the time. */
static double bench_dma_run(const BenchClient *client, void *c,
                            const BenchDma *dma, uint32_t how)
{
    uint64_t ns;

    client->post(c, 1, BENCH_DMA_ADDR, 0);
    client->post(c, 1, BENCH_DMA_LEN, dma->len);
    client->post(c, 1, BENCH_DMA_COUNT, dma->count);
    client->post(c, 1, BENCH_DMA_GO, how);
    if (client->serve) {
        client->serve(c, dma->count);
    }
    ns = client->read(c, 1, BENCH_DMA_NS, 4);
    if (!ns) {
        bench_die("DMA");
    }
    return (double)dma->len * dma->count * 1000 / ns;
}

void bench_dmas(const BenchClient *client, void *c)
{
    char name[64];

    for (unsigned i = 0; i < sizeof(bench_dma) / sizeof(*bench_dma); i++) {
        for (uint32_t how = BENCH_DMA_READ; how <= BENCH_DMA_WRITE; how++) {
            snprintf(name, sizeof(name), "dma-%s-%s",
                     how == BENCH_DMA_READ ? "read" : "write",
                     bench_dma[i].name);
            bench_dma_run(client, c, &bench_dma[i], how);
            bench_print(name, "MB/s",
                        bench_dma_run(client, c, &bench_dma[i], how));
        }
    }
}

int bench_connect(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof(un.sun_path)) {
        bench_die("socket");
    }
    strcpy(un.sun_path, path);
    if (connect(fd, (struct sockaddr *)&un, sizeof(un))) {
        bench_die(path);
    }
    return fd;
}

int bench_negotiate(int fd)
{
    static const char caps[] = "{\"capabilities\":{\"max_msg_fds\":8,"
        "\"max_data_xfer_size\":1048576,"
        "\"twin_socket\":{\"supported\":true}}}";
    struct {
        struct vfio_user_header header;
        struct vfio_user_version version;
        char caps[sizeof(caps)];
    } out = {
        .header = { .command = VFIO_USER_VERSION },
        .version = { .minor = 2 },
    };
    size_t len = sizeof(out.header) + sizeof(out.version) + sizeof(caps);
    char in[4096];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = { in, sizeof(in) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = sizeof(control),
    };
    struct cmsghdr *cmsg;
    int twin = -1;

    out.header.size = len;
    memcpy(out.caps, caps, sizeof(caps));
    if (send(fd, &out, len, MSG_NOSIGNAL) != (ssize_t)len ||
        recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) <= 0) {
        bench_die("VERSION");
    }
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
        memcpy(&twin, CMSG_DATA(cmsg), sizeof(twin));
    }
    return twin;
}
