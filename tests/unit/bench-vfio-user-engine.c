/*
 * vfio-user benchmark: the message engine alone
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   bench-vfio-user-engine POLL-MAX-US SOCKET [SOCKET x 3]
 *   bench-vfio-user-engine POLL-MAX-US --reads REGION SOCKET
 *
 * The figures of tests/bench/raw.c by the same names, measured through
 * VFIOUserConn as QEMU uses it: twin socket, an AioContext in the background,
 * requests put together as device.c and container.c do.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "hw/vfio-user/conn.h"
#include "iothread.h"
#include "../bench/measure.h"

#define TIMEOUT_MS  10000
/* Reads in a burst of which only the counting is done */
#define BENCH_COUNTED   1000

/* One device as a client sees it. */
typedef struct Engine {
    VFIOUserConn *conn;
    VFIOUserConn *twin;
    IOThread *iothread;
    uint8_t *ram;
    QemuThread thread;
} Engine;

static unsigned poll_max_us;

/* Guest memory: BENCH_DMA_MAX bytes at address 0. */
static int engine_dma_begin(void *opaque, uint64_t addr, uint64_t count,
                            bool is_write, VFIOUserDMA *dma)
{
    Engine *e = opaque;

    if (addr > BENCH_DMA_MAX || count > BENCH_DMA_MAX - addr) {
        return -EFAULT;
    }
    dma->iov[0].iov_base = e->ram + addr;
    dma->iov[0].iov_len = count;
    dma->nr_iov = 1;
    return 0;
}

static void engine_dma_end(void *opaque, VFIOUserDMA *dma, bool is_write,
                           uint64_t done)
{
}

static void engine_failed(void *opaque)
{
    bench_die("connection");
}

static const VFIOUserConnOps engine_ops = {
    .dma_begin = engine_dma_begin,
    .dma_end = engine_dma_end,
    .failed = engine_failed,
};

static void engine_open(Engine *e, const char *path)
{
    int fd = bench_connect(path);
    int twin = bench_negotiate(fd);

    e->ram = g_malloc(BENCH_DMA_MAX);
    /* Untouched pages would all be the same one. */
    memset(e->ram, 1, BENCH_DMA_MAX);
    e->iothread = iothread_new();
    e->conn = vfio_user_conn_new(fd, "bench", &engine_ops, e, TIMEOUT_MS);
    vfio_user_conn_set_poll(e->conn, poll_max_us);
    vfio_user_conn_set_no_fds(e->conn);
    vfio_user_conn_start(e->conn, iothread_get_aio_context(e->iothread));
    e->twin = NULL;
    if (twin < 0) {
        vfio_user_conn_set_lockstep(e->conn);
    } else {
        e->twin = vfio_user_conn_new(twin, "bench", &engine_ops, e,
                                     TIMEOUT_MS);
        vfio_user_conn_start(e->twin, iothread_get_aio_context(e->iothread));
    }
}

static void engine_close(Engine *e)
{
    if (e->twin) {
        vfio_user_conn_free(e->twin);
    }
    vfio_user_conn_free(e->conn);
    iothread_join(e->iothread);
    g_free(e->ram);
}

/* A read that is under way */
typedef struct EngineRead {
    VFIOUserRequest req;
    struct vfio_user_region_rw rw, rep;
    uint64_t data;
    struct iovec out, in[2];
} EngineRead;

static void engine_submit(Engine *e, EngineRead *r, uint32_t region,
                          uint64_t offset, uint32_t count)
{
    *r = (EngineRead) {
        .req = {
            .command = VFIO_USER_REGION_READ,
            .out = &r->out, .nr_out = 1,
            .in = r->in, .nr_in = ARRAY_SIZE(r->in),
        },
        .rw = { .offset = offset, .region = region, .count = count },
        .out = { .iov_base = &r->rw, .iov_len = sizeof(r->rw) },
        .in = {
            { .iov_base = &r->rep, .iov_len = sizeof(r->rep) },
            { .iov_base = &r->data, .iov_len = count },
        },
    };
    vfio_user_conn_submit(e->conn, &r->req);
}

static uint64_t engine_wait(Engine *e, EngineRead *r)
{
    int ret = vfio_user_conn_wait(e->conn, &r->req);

    if (ret) {
        errno = -ret;
        bench_die("read");
    }
    return r->data;
}

static uint64_t engine_read(void *c, uint32_t region, uint64_t offset,
                            uint32_t count)
{
    EngineRead r;

    engine_submit(c, &r, region, offset, count);
    return engine_wait(c, &r);
}

static void engine_post(void *c, uint32_t region, uint64_t offset,
                        uint32_t data)
{
    Engine *e = c;
    struct vfio_user_region_rw rw = {
        .offset = offset, .region = region, .count = sizeof(data),
    };
    struct iovec out[] = {
        { .iov_base = &rw, .iov_len = sizeof(rw) },
        { .iov_base = &data, .iov_len = sizeof(data) },
    };
    VFIOUserRequest req = {
        .command = VFIO_USER_REGION_WRITE,
        .out = out, .nr_out = ARRAY_SIZE(out),
    };
    int ret = vfio_user_conn_try_post(e->conn, &req);

    if (ret == -EAGAIN) {
        ret = vfio_user_conn_post(e->conn, &req);
    }
    if (ret) {
        errno = -ret;
        bench_die("write");
    }
}

static const BenchClient engine_client = {
    .read = engine_read,
    .post = engine_post,
};

/* One thread with several reads under way */
static void bench_pipeline(Engine *e)
{
    EngineRead reads[BENCH_NR_PARALLEL];
    unsigned nr = BENCH_READS * BENCH_NR_PARALLEL;
    uint64_t start = bench_now();

    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        engine_submit(e, &reads[i], 0, 0, 4);
    }
    for (unsigned i = 0; i < nr; i++) {
        EngineRead *r = &reads[i % BENCH_NR_PARALLEL];

        engine_wait(e, r);
        if (i + BENCH_NR_PARALLEL < nr) {
            engine_submit(e, r, 0, 0, 4);
        }
    }
    bench_print("4-pipelined", "ns", (double)(bench_now() - start) / nr);
}

static void *reader_thread(void *opaque)
{
    for (int i = 0; i < BENCH_READS; i++) {
        engine_read(opaque, 0, 0, 4);
    }
    return NULL;
}

/* Thread @i reads from @e[@i * @step]. */
static void bench_parallel(Engine *e, unsigned step, const char *name)
{
    QemuThread thread[BENCH_NR_PARALLEL];
    uint64_t start = bench_now();

    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        qemu_thread_create(&thread[i], "reader", reader_thread, &e[i * step],
                           QEMU_THREAD_JOINABLE);
    }
    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        qemu_thread_join(&thread[i]);
    }
    bench_print(name, "ns", (double)(bench_now() - start) /
                (BENCH_READS * BENCH_NR_PARALLEL));
}

typedef struct Window {
    VFIOUserRequest req;
    struct vfio_user_dma_map map;
    struct iovec out;
} Window;

/* Those of one memory transaction: all sent, then all waited for. */
static void bench_windows(Engine *e)
{
    uint64_t start = bench_now();
    Window **windows = g_new(Window *, BENCH_WINDOWS);

    for (unsigned i = 0; i < BENCH_WINDOWS; i++) {
        Window *w = windows[i] = g_new0(Window, 1);

        w->map = (struct vfio_user_dma_map) {
            .argsz = sizeof(w->map),
            .flags = VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
            .addr = BENCH_WINDOW_BASE + (uint64_t)i * 2 * BENCH_WINDOW_SIZE,
            .size = BENCH_WINDOW_SIZE,
        };
        w->out = (struct iovec) { &w->map, sizeof(w->map) };
        w->req.command = VFIO_USER_DMA_MAP;
        w->req.out = &w->out;
        w->req.nr_out = 1;
        vfio_user_conn_submit(e->conn, &w->req);
    }
    for (unsigned i = 0; i < BENCH_WINDOWS; i++) {
        int ret = vfio_user_conn_wait(e->conn, &windows[i]->req);

        if (ret) {
            errno = -ret;
            bench_die("DMA_MAP");
        }
        g_free(windows[i]);
    }
    g_free(windows);
    bench_print("windows", "1/s", BENCH_WINDOWS * 1e9 / (bench_now() - start));
}

/*
 * What the engine's counting takes of a read: the request, the reply, the clock
 * and the histograms. For query-vfio-user it goes on all the time.
 */
static void count_reads(VFIOUserStats *stats)
{
    static const struct vfio_user_header request = {
        .command = VFIO_USER_REGION_READ, .size = 32,
    };
    static const struct vfio_user_header reply = {
        .command = VFIO_USER_REGION_READ, .size = 36,
        .flags = VFIO_USER_TYPE_REPLY,
    };

    for (unsigned i = 0; i < BENCH_COUNTED; i++) {
        vfio_user_stats_count(stats->sent, &request);
        /* As if something happened in between */
        barrier();
        vfio_user_stats_count(stats->received, &reply);
        vfio_user_stats_replied(&stats->latency[VFIO_USER_LATENCY_ACCESS],
                                get_clock(), 10000 + i % 8192);
        barrier();
    }
}

static void bench_counting(void)
{
    g_autofree VFIOUserStats *stats = g_new(VFIOUserStats, 1);
    uint64_t ns[BENCH_BURSTS];

    vfio_user_stats_reset(stats, get_clock());
    for (unsigned i = 0; i < BENCH_BURSTS; i++) {
        uint64_t start = bench_now();

        count_reads(stats);
        ns[i] = bench_now() - start;
    }
    bench_samples("counting", ns, BENCH_BURSTS, BENCH_COUNTED);
}

static void bench_all(char **paths)
{
    Engine e[BENCH_NR_PARALLEL];

    bench_counting();
    engine_open(&e[0], paths[0]);
    bench_reads(&engine_client, e, 0, 1, "read-1");
    bench_reads(&engine_client, e, 0, 4, "read-4");
    bench_reads(&engine_client, e, 0, 8, "read-8");
    bench_posts(&engine_client, e);
    bench_pipeline(e);
    bench_parallel(e, 0, "4-vcpus");
    bench_dmas(&engine_client, e);
    bench_windows(e);
    for (unsigned i = 1; i < BENCH_NR_PARALLEL; i++) {
        engine_open(&e[i], paths[i]);
    }
    bench_parallel(e, 1, "4-devices");
    for (unsigned i = 0; i < BENCH_NR_PARALLEL; i++) {
        engine_close(&e[i]);
    }
}

int main(int argc, char **argv)
{
    poll_max_us = argc > 1 ? atoi(argv[1]) : 0;
    if (argc == 5 && !strcmp(argv[2], "--reads")) {
        Engine e;

        engine_open(&e, argv[4]);
        bench_reads(&engine_client, &e, atoi(argv[3]), 1, "read-1");
        engine_close(&e);
    } else if (argc == 2 + BENCH_NR_PARALLEL) {
        bench_all(argv + 2);
    } else {
        fprintf(stderr, "usage: bench-vfio-user-engine POLL-MAX-US SOCKET...\n"
                "       bench-vfio-user-engine POLL-MAX-US --reads REGION "
                "SOCKET\n");
        return 2;
    }
    return 0;
}
