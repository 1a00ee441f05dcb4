/*
 * vfio-user test server: self test with a raw client
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shows that the server does what the tests of the client rely on. Every case
 * runs under a guard that counts descriptors.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "selftest.h"

static unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned nr = 0;

    g_assert(dir);
    while (readdir(dir)) {
        nr++;
    }
    closedir(dir);
    return nr;
}

static Fixture *fixture_make(void (*setup)(TestServer *s), bool standard)
{
    Fixture *f = g_new0(Fixture, 1);

    f->dir = g_dir_make_tmp("ts-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "sock", NULL);
    f->s = ts_new();
    if (standard) {
        ts_standard_device(f->s);
    }
    if (setup) {
        setup(f->s);
    }
    g_assert_cmpint(ts_start(f->s, f->path), ==, 0);
    f->c = rc_connect(f->path);
    return f;
}

Fixture *fixture_new(void (*setup)(TestServer *s))
{
    return fixture_make(setup, true);
}

Fixture *fixture_bare(void (*setup)(TestServer *s), bool twin)
{
    Fixture *f = fixture_make(setup, false);

    g_assert_cmpint(rc_negotiate(f->c, NULL, twin), ==, 0);
    return f;
}

Fixture *fixture_negotiated(void (*setup)(TestServer *s), bool twin)
{
    Fixture *f = fixture_new(setup);

    g_assert_cmpint(rc_negotiate(f->c, NULL, twin), ==, 0);
    return f;
}

void fixture_free(Fixture *f)
{
    if (f->c) {
        rc_free(f->c);
    }
    ts_free(f->s);
    g_assert(access(f->path, F_OK) != 0);
    g_assert_cmpint(rmdir(f->dir), ==, 0);
    g_free(f->dir);
    g_free(f->path);
    g_free(f);
}

static void test_version(void)
{
    Fixture *f = fixture_new(NULL);
    struct vfio_user_version v;

    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==,
                    EINVAL);
    g_assert_cmpint(rc_negotiate(f->c, NULL, true), ==, 0);
    memcpy(&v, f->c->payload, sizeof(v));
    g_assert_cmpint(v.major, ==, 0);
    g_assert_cmpint(v.minor, ==, 2);
    g_assert(strstr((char *)f->c->payload + 4, "\"fd_index\": 0"));
    g_assert_cmpint(f->c->payload[f->c->len - 1], ==, 0);
    g_assert(f->c->twin_fd >= 0);
    g_assert_cmpint(ts_client_limit(f->s, "max_msg_fds", 1), ==, 8);
    g_assert_cmpint(ts_client_limit(f->s, "pgsizes", 7), ==, 7);
    g_assert_cmpint(rc_negotiate(f->c, NULL, true), ==, EINVAL);
    fixture_free(f);
}

static void test_info(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    struct vfio_user_device_info info = { .argsz = sizeof(info) };
    struct vfio_user_irq_info irq = { .argsz = sizeof(irq), .index = 2 };

    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_INFO, &info,
                            sizeof(info)), ==, 0);
    memcpy(&info, f->c->payload, sizeof(info));
    g_assert_cmpint(info.num_regions, ==, 9);
    g_assert_cmpint(info.num_irqs, ==, 5);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_IRQ_INFO, &irq,
                            sizeof(irq)), ==, 0);
    memcpy(&irq, f->c->payload, sizeof(irq));
    g_assert_cmpint(irq.count, ==, TS_STANDARD_MSIX);
    irq.index = 9;
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_IRQ_INFO, &irq,
                            sizeof(irq)), ==, EINVAL);
    fixture_free(f);
}

static void test_sparse_info(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    struct vfio_user_region_info info = { .argsz = 32, .index = 1 };
    uint32_t word;
    uint64_t area;
    uint8_t *map;

    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_REGION_INFO, &info,
                            sizeof(info)), ==, 0);
    memcpy(&info, f->c->payload, sizeof(info));
    g_assert_cmpint(f->c->len, ==, 32);
    g_assert_cmpint(info.argsz, ==, 32 + 16 + 2 * 16);
    g_assert_cmpint(info.flags, ==, 15);
    g_assert_cmpint(info.cap_offset, ==, 0);

    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_REGION_INFO, &info,
                            sizeof(info)), ==, 0);
    g_assert_cmpint(f->c->len, ==, 80);
    memcpy(&word, f->c->payload + 12, 4);
    g_assert_cmpint(word, ==, 32);
    memcpy(&word, f->c->payload + 40, 4);
    g_assert_cmpint(word, ==, 2);
    memcpy(&area, f->c->payload + 64, 8);
    g_assert_cmpint(area, ==, 0x4000);
    g_assert_cmpint(f->c->nr_fds, ==, 1);

    map = mmap(NULL, 0x8000, PROT_READ | PROT_WRITE, MAP_SHARED,
               f->c->fds[0], 0);
    g_assert(map != MAP_FAILED);
    map[0x1004] = 0x5a;
    g_assert_cmpint(((uint8_t *)ts_region_mem(f->s, 1))[0x1004], ==, 0x5a);
    munmap(map, 0x8000);
    fixture_free(f);
}

static int access_record(TestServer *s, unsigned region, uint64_t offset,
                         void *data, uint32_t len, bool write, void *opaque)
{
    (void)s;
    (void)region;
    (void)opaque;
    if (offset == 0x80) {
        return EIO;
    }
    if (!write) {
        memset(data, 0x11 * len, len);
    }
    return 0;
}

static void setup_callback(TestServer *s)
{
    ts_region(s, 0, 0x1000, 3)->access = access_record;
}

static void test_access(void)
{
    Fixture *f = fixture_negotiated(setup_callback, false);
    const uint32_t value = 0x12345678;
    uint32_t got = 0;
    TsRecord r;

    g_assert_cmpint(rc_write(f->c, 4, 0x10, &value, 4), ==, 0);
    g_assert_cmpint(rc_read(f->c, 4, 0x10, &got, 4), ==, 0);
    g_assert_cmphex(got, ==, value);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 2), ==, 0);
    g_assert_cmphex(got & 0xffff, ==, 0x2222);
    g_assert_cmpint(rc_read(f->c, 0, 0x80, &got, 4), ==, EIO);
    g_assert_cmpint(rc_read(f->c, 0, 0xffe, &got, 4), ==, EINVAL);
    g_assert_cmpint(rc_write(f->c, 6, 0, &value, 4), ==, EINVAL);
    g_assert_cmpint(rc_read(f->c, 8, 0, &got, 4), ==, EINVAL);

    g_assert(ts_log_get(f->s, (TsMatch){ VFIO_USER_REGION_WRITE, 4, 0x10 },
                        0, &r));
    g_assert_cmpint(r.len, ==, 4);
    g_assert(!memcmp(r.data, &value, 4));
    g_assert(ts_log_get(f->s, (TsMatch){ VFIO_USER_REGION_READ, 0, 0x80 },
                        0, &r));
    g_assert_cmpint(r.error, ==, EIO);
    fixture_free(f);
}

static void test_config(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    uint32_t ones = UINT32_MAX, got;
    uint8_t ptr, id;

    g_assert_cmpint(rc_read(f->c, 7, 0, &got, 4), ==, 0);
    g_assert_cmphex(got, ==, 0x56781234);
    g_assert_cmpint(rc_write(f->c, 7, 0x10, &ones, 4), ==, 0);
    g_assert_cmpint(rc_read(f->c, 7, 0x10, &got, 4), ==, 0);
    g_assert_cmphex(got, ==, 0xfffff000);
    g_assert_cmpint(rc_write(f->c, 7, 0x20, &ones, 4), ==, 0);
    g_assert_cmpint(rc_read(f->c, 7, 0x20, &got, 4), ==, 0);
    g_assert_cmphex(got, ==, 0xffffff01);
    g_assert_cmpint(rc_write(f->c, 7, 0x30, &ones, 4), ==, 0);
    g_assert_cmpint(rc_read(f->c, 7, 0x30, &got, 4), ==, 0);
    g_assert_cmphex(got, ==, 0xfffff001);

    g_assert_cmpint(rc_read(f->c, 7, 0x34, &ptr, 1), ==, 0);
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t ids[] = { 0x01, 0x05, 0x11, 0x09 };

        g_assert_cmpint(rc_read(f->c, 7, ptr, &id, 1), ==, 0);
        g_assert_cmpint(id, ==, ids[i]);
        g_assert_cmpint(rc_read(f->c, 7, ptr + 1, &ptr, 1), ==, 0);
    }
    g_assert_cmpint(ptr, ==, 0);
    fixture_free(f);
}

static void test_posted(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    struct { struct vfio_user_region_rw rw; uint32_t data; } w = {
        { 0x20, 0, 4 }, 0xcafe,
    };
    uint32_t got;

    for (unsigned i = 0; i < 50; i++) {
        w.data = i;
        rc_send(f->c, VFIO_USER_REGION_WRITE, VFIO_USER_NO_REPLY, &w,
                sizeof(w.rw) + 4, NULL, 0);
    }
    g_assert_cmpint(rc_read(f->c, 0, 0x20, &got, 4), ==, 0);
    g_assert_cmpint(got, ==, 49);
    g_assert_cmpint(ts_log_count(f->s, (TsMatch){ VFIO_USER_REGION_WRITE,
                                                  0, 0x20 }), ==, 50);
    fixture_free(f);
}

static void test_dma_mapped(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    int fd = memfd_create("guest", MFD_CLOEXEC);
    char buf[16];
    struct stat st;
    TsWindow w;

    g_assert(fd >= 0 && ftruncate(fd, 0x10000) == 0);
    g_assert_cmpint(rc_map(f->c, 0x100000, 0x4000, fd, 0x2000), ==, 0);
    g_assert_cmpint(rc_map(f->c, 0x103000, 0x2000, fd, 0), ==, EEXIST);
    g_assert_cmpint(rc_map(f->c, 0x0ff000, 0x2000, fd, 0), ==, EEXIST);
    g_assert_cmpint(rc_map(f->c, 0x104000, 0x1000, fd, 0), ==, 0);
    g_assert_cmpint(rc_map(f->c, 0x0ff000, 0x1000, fd, 0x1000), ==, 0);
    g_assert_cmpint(rc_map(f->c, 0x200800, 0x1000, fd, 0), ==, EINVAL);
    g_assert_cmpint(ts_dma_nr_windows(f->s), ==, 3);
    g_assert(ts_dma_window(f->s, 1, &w));
    g_assert_cmphex(w.addr, ==, 0x100000);
    g_assert_cmphex(w.offset, ==, 0x2000);
    g_assert(fstat(fd, &st) == 0);
    g_assert(w.dev == st.st_dev && w.ino == st.st_ino);

    g_assert_cmpint(pwrite(fd, "from the guest", 15, 0x2100), ==, 15);
    g_assert_cmpint(ts_dma_read(f->s, 0x100100, buf, 15, TS_DMA_MAPPED), ==,
                    0);
    g_assert_cmpstr(buf, ==, "from the guest");
    g_assert_cmpint(ts_dma_write(f->s, 0x104010, "to it", 6, TS_DMA_ANY),
                    ==, 0);
    g_assert_cmpint(pread(fd, buf, 6, 0x10), ==, 6);
    g_assert_cmpstr(buf, ==, "to it");
    g_assert_cmpint(ts_dma_read(f->s, 0x103ff8, buf, 16, TS_DMA_ANY), ==,
                    EFAULT);

    g_assert_cmpint(rc_unmap(f->c, 0x100000, 0x1000), ==, ENOENT);
    g_assert_cmpint(rc_unmap(f->c, 0x100000, 0x4000), ==, 0);
    g_assert_cmpint(f->c->len, ==, 24);
    g_assert(!ts_dma_find(f->s, 0x100000, NULL));
    close(fd);
    fixture_free(f);
}

static int access_dma(TestServer *s, unsigned region, uint64_t offset,
                      void *data, uint32_t len, bool write, void *opaque)
{
    (void)region;
    (void)offset;
    (void)opaque;
    return write ? ts_dma_write(s, 0x1000, data, len, TS_DMA_MESSAGE)
                 : ts_dma_read(s, 0x1000, data, len, TS_DMA_MESSAGE);
}

static void setup_dma_callback(TestServer *s)
{
    ts_region(s, 0, 0x1000, 3)->access = access_dma;
}

/* DMA from inside an access: the client answers before it has its reply. */
static void test_dma_inside_access(void)
{
    Fixture *f = fixture_negotiated(setup_dma_callback, false);
    uint8_t mem[0x1000] = { 1, 2, 3, 4 };
    uint32_t value = 0xa5a5a5a5, got;

    f->c->mem = mem;
    f->c->mem_addr = 0x1000;
    f->c->mem_len = sizeof(mem);
    g_assert_cmpint(rc_map(f->c, 0x1000, 0x1000, -1, 0), ==, 0);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    g_assert_cmphex(got, ==, 0x04030201);
    g_assert_cmpint(rc_write(f->c, 0, 0, &value, 4), ==, 0);
    g_assert_cmphex(mem[0], ==, 0xa5);
    g_assert_cmpint(f->c->nr_dma, ==, 2);
    fixture_free(f);
}

/* Two commands sent at once: the second waits for the first one's DMA. */
static void test_dma_crossing(void)
{
    Fixture *f = fixture_negotiated(setup_dma_callback, false);
    struct vfio_user_region_rw first = { 0, 0, 4 }, second = { 0x10, 4, 4 };
    uint8_t mem[0x1000] = { 9 };
    uint16_t id1, id2;

    f->c->mem = mem;
    f->c->mem_addr = 0x1000;
    f->c->mem_len = sizeof(mem);
    g_assert_cmpint(rc_map(f->c, 0x1000, 0x1000, -1, 0), ==, 0);
    id1 = rc_send(f->c, VFIO_USER_REGION_READ, 0, &first, 16, NULL, 0);
    id2 = rc_send(f->c, VFIO_USER_REGION_READ, 0, &second, 16, NULL, 0);
    g_assert(rc_receive(f->c));
    g_assert_cmpint(f->c->hdr.id, ==, id1);
    g_assert_cmpint(f->c->payload[16], ==, 9);
    g_assert(rc_receive(f->c));
    g_assert_cmpint(f->c->hdr.id, ==, id2);
    fixture_free(f);
}

static void setup_no_crossing(TestServer *s)
{
    setup_dma_callback(s);
    ts_limits(s)->no_crossing = true;
}

static void test_dma_no_crossing(void)
{
    Fixture *f = fixture_negotiated(setup_no_crossing, false);
    struct vfio_user_region_rw rw = { 0, 0, 4 };
    uint8_t mem[0x1000] = { 9 };

    f->c->mem = mem;
    f->c->mem_addr = 0x1000;
    f->c->mem_len = sizeof(mem);
    g_assert_cmpint(rc_map(f->c, 0x1000, 0x1000, -1, 0), ==, 0);
    rc_send(f->c, VFIO_USER_REGION_READ, 0, &rw, sizeof(rw), NULL, 0);
    g_assert(rc_receive(f->c));
    f->c->may_end = true;
    rc_send(f->c, VFIO_USER_REGION_READ, 0, &rw, sizeof(rw), NULL, 0);
    rc_send(f->c, VFIO_USER_REGION_READ, 0, &rw, sizeof(rw), NULL, 0);
    while (rc_receive(f->c)) {
        g_assert(f->c->hdr.flags & VFIO_USER_ERROR);
    }
    g_assert(ts_wait_connected(f->s, false));
    fixture_free(f);
}

static void *twin_thread(void *opaque)
{
    return GINT_TO_POINTER(rc_serve_twin(opaque));
}

static void test_dma_twin(void)
{
    Fixture *f = fixture_negotiated(NULL, true);
    uint8_t mem[0x1000] = { 0 }, buf[4] = { 7, 7, 7, 7 };
    GThread *thread;

    f->c->mem = mem;
    f->c->mem_addr = 0x1000;
    f->c->mem_len = sizeof(mem);
    g_assert_cmpint(rc_map(f->c, 0x1000, 0x1000, -1, 0), ==, 0);
    thread = g_thread_new("twin", twin_thread, f->c);
    g_assert_cmpint(ts_dma_write(f->s, 0x1004, buf, 4, TS_DMA_ANY), ==, 0);
    g_assert(g_thread_join(thread));
    g_assert_cmpint(mem[4], ==, 7);
    thread = g_thread_new("twin", twin_thread, f->c);
    g_assert_cmpint(ts_dma_command(f->s, VFIO_USER_DMA_READ, 0x9000, 4, buf,
                                   4), ==, EFAULT);
    g_assert(g_thread_join(thread));
    fixture_free(f);
}

static uint64_t take_event(int fd)
{
    struct pollfd pfd = { fd, POLLIN, 0 };
    uint64_t n = 0;

    if (poll(&pfd, 1, 0) == 1) {
        g_assert_cmpint(read(fd, &n, sizeof(n)), ==, sizeof(n));
    }
    return n;
}

static void setup_keep_masks(TestServer *s)
{
    ts_add_irqs(s, 2, 16, 1, TS_MASK_KEEP);
    ts_add_irqs(s, 1, 4, 1, TS_MASK_REFUSE);
}

static void test_irqs(void)
{
    Fixture *f = fixture_negotiated(setup_keep_masks, false);
    int fds[3];

    for (unsigned i = 0; i < 3; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC);
    }
    g_assert_cmpint(rc_set_irqs(f->c, 4 | 32, 1, 1, 3, fds, 3), ==, 0);
    g_assert_cmpint(ts_irq_trigger(f->s, 1, 2), ==, 0);
    g_assert_cmpint(take_event(fds[1]), ==, 1);
    g_assert_cmpint(ts_irq_trigger(f->s, 1, 0), ==, ENOENT);
    g_assert_cmpint(rc_set_irqs(f->c, 1 | 16, 1, 0, 1, NULL, 0), ==, EINVAL);
    g_assert_cmpint(rc_set_irqs(f->c, 1 | 32, 1, 0, 0, NULL, 0), ==, 0);
    g_assert_cmpint(ts_irq_nr_fds(f->s, 1), ==, 0);

    g_assert_cmpint(rc_set_irqs(f->c, 4 | 32, 2, 4, 2, fds, 2), ==, 0);
    g_assert(ts_irq_masked(f->s, 2, 4));
    g_assert_cmpint(ts_irq_trigger(f->s, 2, 4), ==, EAGAIN);
    g_assert_cmpint(take_event(fds[0]), ==, 0);
    /* As in QEMU's server, a range that does not begin at 0 is missed. */
    g_assert_cmpint(rc_set_irqs(f->c, 1 | 16, 2, 4, 2, NULL, 0), ==, 0);
    g_assert(ts_irq_masked(f->s, 2, 4));
    g_assert_cmpint(rc_set_irqs(f->c, 1 | 16, 2, 0, 6, NULL, 0), ==, 0);
    g_assert_cmpint(take_event(fds[0]), ==, 1);
    g_assert_cmpint(rc_set_irqs(f->c, 4 | 32, 2, 4, 1, NULL, 0), ==, 0);
    g_assert(!ts_irq_has_fd(f->s, 2, 4));
    g_assert(ts_irq_has_fd(f->s, 2, 5));
    g_assert_cmpint(rc_set_irqs(f->c, 4 | 32, 2, 15, 2, fds, 2), ==, EINVAL);
    for (unsigned i = 0; i < 3; i++) {
        close(fds[i]);
    }
    fixture_free(f);
}

static void test_come_back(void)
{
    Fixture *f = fixture_negotiated(NULL, true);
    uint32_t value = 77, got;

    g_assert_cmpint(rc_map(f->c, 0x1000, 0x1000, -1, 0), ==, 0);
    g_assert_cmpint(rc_write(f->c, 0, 0, &value, 4), ==, 0);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmpint(ts_nr_resets(f->s), ==, 1);
    rc_free(f->c);
    g_assert(ts_wait_connected(f->s, false));
    g_assert_cmpint(ts_dma_nr_windows(f->s), ==, 0);

    f->c = rc_connect(f->path);
    g_assert_cmpint(rc_negotiate(f->c, NULL, false), ==, 0);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    g_assert_cmpint(got, ==, 77);
    g_assert_cmpint(ts_nr_clients(f->s), ==, 2);

    ts_disconnect(f->s);
    g_assert(!rc_receive(f->c));
    fixture_free(f);
}

static void test_hold(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    struct vfio_user_region_rw rw = { 0, 0, 4 };
    struct pollfd pfd = { f->c->fd, POLLIN, 0 };

    ts_hold(f->s);
    rc_send(f->c, VFIO_USER_REGION_READ, 0, &rw, sizeof(rw), NULL, 0);
    g_assert_cmpint(poll(&pfd, 1, 20), ==, 0);
    ts_release(f->s);
    g_assert(rc_receive(f->c));
    ts_hold(f->s);
    fixture_free(f);
}

/* One connected socket, and a bad message ends the connection. */
static void test_socket_fd(void)
{
    struct vfio_user_header bad = { .size = 3, .command = 1 };
    TestServer *s = ts_new();
    RawClient *c;
    int fds[2];

    g_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    ts_standard_device(s);
    g_assert_cmpint(ts_start_fd(s, fds[0]), ==, 0);
    c = rc_new(fds[1]);
    g_assert_cmpint(rc_negotiate(c, NULL, false), ==, 0);
    g_assert_cmpint(write(c->fd, &bad, sizeof(bad)), ==, sizeof(bad));
    g_assert(!rc_receive(c));
    g_assert(ts_wait_finished(s, TS_DEADLINE_MS));
    rc_free(c);
    ts_free(s);
}

static void run_guarded(const void *opaque)
{
    unsigned before = count_fds();
    void (*const *fn)(void) = opaque;

    (*fn)();
    g_assert_cmpint(count_fds(), ==, before);
}

static const struct { const char *name; void (*fn)(void); } cases[] = {
    { "version", test_version },
    { "info", test_info },
    { "sparse-info", test_sparse_info },
    { "access", test_access },
    { "config", test_config },
    { "posted", test_posted },
    { "dma/mapped", test_dma_mapped },
    { "dma/inside-access", test_dma_inside_access },
    { "dma/crossing", test_dma_crossing },
    { "dma/no-crossing", test_dma_no_crossing },
    { "dma/twin", test_dma_twin },
    { "irqs", test_irqs },
    { "come-back", test_come_back },
    { "hold", test_hold },
    { "socket-fd", test_socket_fd },
    { "moves", test_moves },
    { "mischief-names", test_mischief_names },
    { "io-fds", test_io_fds },
    { "io-fds/shadow", test_io_fds_shadow },
    { "io-fds/requests", test_io_fds_requests },
    { "io-fds/script", test_io_fds_script },
    { "script", test_script },
    { "script-errors", test_script_errors },
    { "script-migration", test_script_migration },
    { "script-like-libvfio-user", test_script_like_libvfio_user },
    { "program", test_program },
    { "program-exits", test_program_exits },
    { "migration/absent", test_mig_absent },
    { "migration/feature", test_mig_feature },
    { "migration/arcs", test_mig_arcs },
    { "migration/paths", test_mig_paths },
    { "migration/stream", test_mig_stream },
    { "migration/large", test_mig_large },
    { "migration/bad-stream", test_mig_bad_stream },
    { "migration/bad-requests", test_mig_bad_requests },
    { "migration/precopy", test_mig_precopy },
    { "migration/per-second", test_mig_per_second },
    { "migration/every-read", test_mig_every_read },
    { "migration/come-back", test_mig_come_back },
    { "migration/like-libvfio-user", test_mig_like_libvfio_user },
    { "dirty/bits", test_dirty_bits },
    { "dirty/requests", test_dirty_requests },
    { "dirty/page-size", test_dirty_page_size },
    { "dirty/later", test_dirty_later },
    { "dirty/ranges", test_dirty_ranges },
    { "dirty/any-range", test_dirty_any_range },
    { "dirty/client-gone", test_dirty_client_gone },
    { "fail/refuse", test_fail_refuse },
    { "fail/error", test_fail_error },
    { "fail/read", test_fail_read },
    { "fail/write", test_fail_write },
    { "fail/logging", test_fail_logging },
    { "fail/hang", test_fail_hang },
    { "fail/stall", test_fail_stall },
    { "fail/close", test_fail_close },
    { "fail/lies", test_fail_lies },
    { "fail/moves", test_fail_moves },
    { "engine/registers", test_engine_registers },
    { "engine/ack", test_engine_ack },
    { "engine/pages", test_engine_pages },
    { "engine/messages", test_engine_messages },
    { "engine/memory", test_engine_memory },
    { "engine/timer", test_engine_timer },
    { "engine/states", test_engine_states },
    { "engine/dirty", test_engine_dirty },
    { "engine/migrates", test_engine_migrates },
    { "engine/lost", test_engine_lost },
    { "spdk/faults", test_spdk },
    { "spdk/overtakes", test_spdk_overtakes },
    { "disk/registers", test_disk_registers },
    { "disk/io", test_disk_io },
    { "disk/doorbell", test_disk_doorbell },
    { "disk/bad-request", test_disk_bad_request },
    { "disk/state", test_state },
    { "disk/dies", test_disk_dies },
    { "disk/killed", test_disk_killed },
    { "disk/killed-doorbell", test_disk_killed_doorbell },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strdup_printf("/test-server/%s",
                                                cases[i].name);

        g_test_add_data_func(path, &cases[i].fn, run_guarded);
    }
    return g_test_run();
}
