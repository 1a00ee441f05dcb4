/*
 * vfio-user benchmark: the floor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   vfio-user-bench-raw block|spin SOCKET [SOCKET x 3]
 *   vfio-user-bench-raw block|spin --reads REGION SOCKET
 *   vfio-user-bench-raw block|spin --bells SOCKET
 *
 * The least that a client can do for each figure: constant messages, one
 * system call out, one in, one thread where one will do. It checks nothing,
 * pairs nothing, and keeps no state. "block" sleeps in recvmsg(), "spin"
 * calls it until there is something.
 *
 * The second form measures reads only, of a server that is not ours; the third
 * the ways to ring a doorbell.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "hw/vfio-user/wire.h"
#include "measure.h"

typedef struct Raw {
    int fd, twin;
} Raw;

typedef struct RawAccess {
    struct vfio_user_header header;
    struct vfio_user_region_rw rw;
    uint64_t data;
} RawAccess;

#define ACCESS_LEN  offsetof(RawAccess, data)

static bool spin;
static uint8_t memory[BENCH_DMA_MAX];
static uint64_t samples[BENCH_IRQS];

static void raw_send(int fd, const void *buf, size_t len)
{
    if (send(fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len) {
        bench_die("send");
    }
}

static void raw_receive(int fd, void *buf, size_t len)
{
    size_t got = 0;

    while (got < len) {
        ssize_t ret = recv(fd, (char *)buf + got, len - got,
                           spin ? MSG_DONTWAIT : MSG_WAITALL);

        if (ret > 0) {
            got += ret;
        } else if (ret == 0 || (errno != EAGAIN && errno != EINTR)) {
            bench_die("receive");
        }
    }
}

static RawAccess raw_access(bool write, uint32_t region, uint64_t offset,
                            uint32_t count, uint64_t data)
{
    return (RawAccess) {
        .header = {
            .command = write ? VFIO_USER_REGION_WRITE : VFIO_USER_REGION_READ,
            .size = ACCESS_LEN + (write ? count : 0),
            .flags = write ? VFIO_USER_NO_REPLY : 0,
        },
        .rw = { .offset = offset, .region = region, .count = count },
        .data = data,
    };
}

static uint64_t raw_read(void *c, uint32_t region, uint64_t offset,
                         uint32_t count)
{
    Raw *r = c;
    RawAccess out = raw_access(false, region, offset, count, 0), in;

    raw_send(r->fd, &out, ACCESS_LEN);
    in.data = 0;
    raw_receive(r->fd, &in, ACCESS_LEN + count);
    return in.data;
}

static void raw_post(void *c, uint32_t region, uint64_t offset, uint32_t data)
{
    Raw *r = c;
    RawAccess out = raw_access(true, region, offset, sizeof(data), data);

    raw_send(r->fd, &out, ACCESS_LEN + sizeof(data));
}

static void raw_open(Raw *r, const char *path)
{
    r->fd = bench_connect(path);
    r->twin = bench_negotiate(r->fd);
}

static void raw_close(Raw *r)
{
    close(r->fd);
    if (r->twin >= 0) {
        close(r->twin);
    }
}

/* One thread with as many reads under way as four vCPUs can have. */
static void bench_pipeline(Raw *r)
{
    RawAccess out = raw_access(false, 0, 0, 4, 0), in;
    unsigned nr = BENCH_READS * BENCH_NR_PARALLEL;
    uint64_t start = bench_now();

    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        raw_send(r->fd, &out, ACCESS_LEN);
    }
    for (unsigned i = 0; i < nr; i++) {
        raw_receive(r->fd, &in, ACCESS_LEN + 4);
        if (i + BENCH_NR_PARALLEL < nr) {
            raw_send(r->fd, &out, ACCESS_LEN);
        }
    }
    bench_print("4-pipelined", "ns", (double)(bench_now() - start) / nr);
}

static void *read_thread(void *opaque)
{
    for (unsigned i = 0; i < BENCH_READS; i++) {
        raw_read(opaque, 0, 0, 4);
    }
    return NULL;
}

/* Thread @i reads from @r[@i * @step]. */
static void bench_parallel(Raw *r, unsigned step, const char *name)
{
    pthread_t thread[BENCH_NR_PARALLEL];
    uint64_t start = bench_now();

    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        if (pthread_create(&thread[i], NULL, read_thread, &r[i * step])) {
            bench_die("pthread_create");
        }
    }
    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        pthread_join(thread[i], NULL);
    }
    bench_print(name, "ns", (double)(bench_now() - start) /
                (BENCH_READS * BENCH_NR_PARALLEL));
}

/*
 * Four threads on one socket. All replies are alike, so that each takes the
 * next one that comes: a client that pairs them cannot be quicker.
 */
static void bench_threads(Raw *r)
{
    bench_parallel(r, 0, "4-vcpus");
}

static void bench_devices(char **paths)
{
    Raw r[BENCH_NR_PARALLEL];

    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        raw_open(&r[i], paths[i]);
    }
    bench_parallel(r, 1, "4-devices");
    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        raw_close(&r[i]);
    }
}

/* Answer one DMA command from, or into, @memory. */
static void raw_serve_one(Raw *r)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_rw rw;
    } cmd;
    struct iovec iov[] = { { &cmd, sizeof(cmd) }, { memory, 0 } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

    raw_receive(r->twin, &cmd, sizeof(cmd));
    if (cmd.header.command == VFIO_USER_DMA_WRITE) {
        raw_receive(r->twin, memory, cmd.rw.count);
    } else {
        iov[1].iov_len = cmd.rw.count;
    }
    cmd.header.flags = VFIO_USER_TYPE_REPLY;
    cmd.header.size = sizeof(cmd) + iov[1].iov_len;
    if (sendmsg(r->twin, &msg, MSG_NOSIGNAL) != (ssize_t)cmd.header.size) {
        bench_die("DMA reply");
    }
}

static void raw_serve(void *c, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        raw_serve_one(c);
    }
}

static const BenchClient raw_client = {
    .read = raw_read,
    .post = raw_post,
    .serve = raw_serve,
};

/* As many under way as the engine allows. */
static void bench_windows(Raw *r)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_map map;
    } out = {
        .header = { .command = VFIO_USER_DMA_MAP, .size = sizeof(out) },
        .map = {
            .argsz = sizeof(out.map), .size = BENCH_WINDOW_SIZE,
            .flags = VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
        },
    };
    struct vfio_user_header in;
    uint64_t start = bench_now();
    unsigned sent = 0, done = 0;

    while (done < BENCH_WINDOWS) {
        while (sent < BENCH_WINDOWS && sent < done + 128) {
            out.map.addr = BENCH_WINDOW_BASE +
                           (uint64_t)sent++ * 2 * BENCH_WINDOW_SIZE;
            raw_send(r->fd, &out, sizeof(out));
        }
        raw_receive(r->fd, &in, sizeof(in));
        done++;
    }
    bench_print("windows", "1/s", BENCH_WINDOWS * 1e9 / (bench_now() - start));
}

static void raw_send_fd(int to, void *buf, size_t len, int fd)
{
    struct iovec iov = { buf, len };
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

    memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
    if (sendmsg(to, &msg, MSG_NOSIGNAL) != (ssize_t)len) {
        bench_die("sending a descriptor");
    }
}

/* One page at a time, as the guest's IOMMU lets them be known. */
static void bench_iommu(Raw *r)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_map map;
    } map = {
        .header = { .command = VFIO_USER_DMA_MAP, .size = sizeof(map) },
        .map = {
            .argsz = sizeof(map.map), .size = BENCH_PAGE,
            .flags = VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
        },
    };
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_unmap unmap;
    } unmap = {
        .header = { .command = VFIO_USER_DMA_UNMAP, .size = sizeof(unmap) },
        .unmap = { .argsz = sizeof(unmap.unmap), .size = BENCH_PAGE },
    };
    int memory = memfd_create("bench", MFD_CLOEXEC);
    uint64_t start = bench_now();

    if (memory < 0 || ftruncate(memory, 2ull * BENCH_PAGES * BENCH_PAGE)) {
        bench_die("memfd");
    }
    for (unsigned i = 0; i < BENCH_PAGES; i++) {
        map.map.addr = BENCH_WINDOW_BASE + (uint64_t)i * BENCH_PAGE;
        map.map.offset = 2ull * i * BENCH_PAGE;
        raw_send_fd(r->fd, &map, sizeof(map), memory);
        raw_receive(r->fd, &map.header, sizeof(map.header));
        map.header = (struct vfio_user_header) {
            .command = VFIO_USER_DMA_MAP, .size = sizeof(map),
        };
    }
    bench_print("iommu-map", "1/s", BENCH_PAGES * 1e9 / (bench_now() - start));
    start = bench_now();
    for (unsigned i = 0; i < BENCH_PAGES; i++) {
        unmap.unmap.addr = BENCH_WINDOW_BASE + (uint64_t)i * BENCH_PAGE;
        unmap.header = (struct vfio_user_header) {
            .command = VFIO_USER_DMA_UNMAP, .size = sizeof(unmap),
        };
        raw_send(r->fd, &unmap, sizeof(unmap));
        raw_receive(r->fd, &unmap, sizeof(unmap));
    }
    bench_print("iommu-unmap", "1/s",
                BENCH_PAGES * 1e9 / (bench_now() - start));
    close(memory);
}

static void set_irq(Raw *r, int fd)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_irq_set set;
    } out = {
        .header = {
            .command = VFIO_USER_DEVICE_SET_IRQS,
            .size = sizeof(out.header) + sizeof(out.set),
        },
        .set = {
            .argsz = sizeof(out.set),
            .flags = VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_TRIGGER,
            .index = VFIO_USER_IRQ_MSI, .count = 1,
        },
    };
    struct vfio_user_header in;

    raw_send_fd(r->fd, &out, out.header.size, fd);
    raw_receive(r->fd, &in, sizeof(in));
    if (in.flags & VFIO_USER_ERROR) {
        errno = in.error;
        bench_die("SET_IRQS");
    }
}

/* From the write that asks for it to the return from waiting. */
static void bench_irqs(Raw *r)
{
    int fd = eventfd(0, EFD_CLOEXEC | (spin ? EFD_NONBLOCK : 0));
    uint64_t value;

    set_irq(r, fd);
    for (int i = -BENCH_WARM_UP; i < BENCH_IRQS; i++) {
        uint64_t start = bench_now();

        raw_post(r, 1, BENCH_IRQ, 1);
        while (read(fd, &value, sizeof(value)) != sizeof(value)) {
            if (errno != EAGAIN && errno != EINTR) {
                bench_die("eventfd");
            }
        }
        if (i >= 0) {
            samples[i] = bench_now() - start;
        }
    }
    close(fd);
    bench_samples("irq", samples, BENCH_IRQS, 1);
}

static void raw_ask(Raw *r, uint16_t command, const void *payload, size_t len)
{
    struct {
        struct vfio_user_header header;
        uint8_t payload[256];
    } out = { .header = { .command = command, .size = 16 + len } };

    memcpy(out.payload, payload, len);
    raw_send(r->fd, &out, out.header.size);
}

static void raw_reply(Raw *r)
{
    char in[8192];
    struct vfio_user_header header;

    raw_receive(r->fd, &header, sizeof(header));
    if (header.size - sizeof(header) > sizeof(in)) {
        errno = EMSGSIZE;
        bench_die("reply");
    }
    raw_receive(r->fd, in, header.size - sizeof(header));
}

static void raw_replies(Raw *r, unsigned nr)
{
    while (nr--) {
        raw_reply(r);
    }
}

/* Everything about regions and interrupts, and config space. */
static unsigned raw_ask_all(Raw *r)
{
    struct vfio_user_region_rw config = {
        .region = VFIO_USER_REGION_CONFIG, .count = 256,
    };
    unsigned nr = 0;

    for (unsigned i = 0; i <= VFIO_USER_REGION_VGA; i++, nr++) {
        struct vfio_user_region_info ask = { .argsz = 4096, .index = i };

        raw_ask(r, VFIO_USER_DEVICE_GET_REGION_INFO, &ask, sizeof(ask));
    }
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++, nr++) {
        struct vfio_user_irq_info ask = { .argsz = sizeof(ask), .index = i };

        raw_ask(r, VFIO_USER_DEVICE_GET_IRQ_INFO, &ask, sizeof(ask));
    }
    raw_ask(r, VFIO_USER_REGION_READ, &config, sizeof(config));
    return nr + 1;
}

/* What no client can do without: one question for each thing, one read. */
static void bench_startup(const char *path)
{
    struct vfio_user_device_info info = { .argsz = sizeof(info) };
    uint64_t start = bench_now();
    unsigned nr;
    Raw r;

    raw_open(&r, path);
    raw_ask(&r, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info));
    raw_reply(&r);
    nr = raw_ask_all(&r);
    raw_replies(&r, nr);
    bench_print("startup-time", "us", (bench_now() - start) / 1000.0);
    /* And the version and the device */
    bench_print("startup-messages", "messages", 2 + nr);
    raw_close(&r);
}

/*
 * A device from its socket to a guest that may use it, by as few waits as can
 * be: for the version (which is free), the device, all about it, and what is
 * set up in it.
 */
static void bench_far(const char *path)
{
    struct vfio_user_device_info info = { .argsz = sizeof(info) };
    struct vfio_user_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
        .size = BENCH_DMA_MAX,
    };
    uint64_t start = bench_now();
    Raw r;

    raw_open(&r, path);
    raw_ask(&r, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info));
    raw_reply(&r);
    raw_replies(&r, raw_ask_all(&r));
    raw_ask(&r, VFIO_USER_DMA_MAP, &map, sizeof(map));
    raw_ask(&r, VFIO_USER_DEVICE_RESET, "", 0);
    raw_replies(&r, 2);
    bench_print("startup-far", "us", (bench_now() - start) / 1000.0);
    raw_close(&r);
}

static void bench_all(char **paths)
{
    Raw r;

    /* Untouched pages would all be the same one. */
    memset(memory, 1, sizeof(memory));
    bench_startup(paths[0]);
    raw_open(&r, paths[0]);
    bench_reads(&raw_client, &r, 0, 1, "read-1");
    bench_reads(&raw_client, &r, 0, 4, "read-4");
    bench_reads(&raw_client, &r, 0, 8, "read-8");
    bench_posts(&raw_client, &r);
    bench_pipeline(&r);
    bench_threads(&r);
    bench_dmas(&raw_client, &r);
    bench_irqs(&r);
    bench_iommu(&r);
    bench_windows(&r);
    raw_close(&r);
    bench_devices(paths);
}

/* Each way once; @r's device may be any. */
static void ring_message(Raw *r, uint32_t i)
{
    RawAccess out = raw_access(true, 0, 0, sizeof(i), i), in;

    out.header.flags = 0;
    raw_send(r->fd, &out, ACCESS_LEN + sizeof(i));
    raw_receive(r->fd, &in, ACCESS_LEN);
}

static void ring_posted(Raw *r, uint32_t i)
{
    raw_post(r, 0, 0, i);
}

static void ring_eventfd(Raw *r, uint32_t i)
{
    uint64_t one = 1;

    (void)i;
    if (write(r->twin, &one, sizeof(one)) != sizeof(one)) {
        bench_die("eventfd");
    }
}

static void ring_shadow(Raw *r, uint32_t i)
{
    *(volatile uint32_t *)memory = i;
    ring_eventfd(r, i);
}

static void bench_bell(const char *name, Raw *r,
                       void (*ring)(Raw *r, uint32_t i))
{
    for (int i = -BENCH_BURSTS / 4; i < BENCH_BURSTS; i++) {
        uint64_t start = bench_now();

        for (unsigned j = 0; j < BENCH_POST_BURST; j++) {
            ring(r, j);
        }
        if (i >= 0) {
            samples[i] = bench_now() - start;
        }
        raw_read(r, 0, 0, 4);
    }
    bench_samples(name, samples, BENCH_BURSTS, BENCH_POST_BURST);
}

/* No command comes here, so the eventfd may have the twin socket's place. */
static void bench_bells(const char *path)
{
    Raw r;

    raw_open(&r, path);
    if (r.twin >= 0) {
        close(r.twin);
    }
    r.twin = eventfd(0, EFD_CLOEXEC);
    bench_bell("bell-message", &r, ring_message);
    bench_bell("bell-posted", &r, ring_posted);
    bench_bell("bell", &r, ring_eventfd);
    bench_bell("bell-shadow", &r, ring_shadow);
    raw_close(&r);
}

/* What a guest's time stamps are worth. */
static void bench_ticks(void)
{
    uint64_t start = bench_now(), ticks = __builtin_ia32_rdtsc(), now;

    do {
        now = bench_now();
    } while (now - start < 50 * 1000 * 1000);
    ticks = __builtin_ia32_rdtsc() - ticks;
    bench_print("ticks", "1/us", ticks * 1000.0 / (now - start));
}

static int usage(void)
{
    fprintf(stderr, "usage: vfio-user-bench-raw block|spin SOCKET...\n"
            "       vfio-user-bench-raw block|spin --reads REGION SOCKET\n"
            "       vfio-user-bench-raw block|spin --bells SOCKET\n"
            "       vfio-user-bench-raw block|spin --far SOCKET\n");
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        return usage();
    }
    spin = !strcmp(argv[1], "spin");
    if (!strcmp(argv[2], "--reads") && argc == 5) {
        Raw r;

        raw_open(&r, argv[4]);
        bench_reads(&raw_client, &r, atoi(argv[3]), 1, "read-1");
        raw_close(&r);
    } else if (!strcmp(argv[2], "--bells") && argc == 4) {
        bench_bells(argv[3]);
    } else if (!strcmp(argv[2], "--far") && argc == 4) {
        bench_far(argv[3]);
    } else if (argc == 2 + BENCH_NR_PARALLEL) {
        bench_ticks();
        bench_all(argv + 2);
    } else {
        return usage();
    }
    return 0;
}
