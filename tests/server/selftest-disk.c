/*
 * vfio-user test server: self test of the disk and of kept state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest is a raw client. What happens to a server that is killed can only
 * be shown with a process: the program, if TEST_SERVER_PROGRAM names it.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "disk-driver.h"
#include "selftest.h"
#include "server-disk.h"

#define RAM         0x100000
#define RAM_SIZE    0x40000
#define KILLS       60

typedef struct Guest {
    char *dir, *path, *state, *disk;
    RawClient *c;
    DiskDriver *d;
    uint8_t *mem;
    int fd, irq;
    bool mapped_doorbell;
    uint32_t *doorbell;         /* mapped */
    /* One of these two */
    TestServer *s;
    GPid pid;
} Guest;

/* --- The driver's view --- */

static void guest_read(void *opaque, uint64_t addr, void *buf, size_t len)
{
    Guest *g = opaque;

    memcpy(buf, g->mem + (addr - RAM), len);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static void guest_write(void *opaque, uint64_t addr, const void *buf,
                        size_t len)
{
    Guest *g = opaque;

    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(g->mem + (addr - RAM), buf, len);
}

static uint32_t guest_reg(void *opaque, unsigned offset)
{
    Guest *g = opaque;
    uint32_t value;

    return rc_read(g->c, 0, offset, &value, 4) ? UINT32_MAX : value;
}

static void guest_set_reg(void *opaque, unsigned offset, uint32_t value)
{
    Guest *g = opaque;

    rc_write(g->c, 0, offset, &value, 4);
}

static void guest_ring(void *opaque, uint32_t value)
{
    Guest *g = opaque;

    if (g->mapped_doorbell) {
        __atomic_store_n(g->doorbell, value, __ATOMIC_RELEASE);
    } else {
        guest_set_reg(g, DISK_DOORBELL, value);
    }
}

static const DiskDriverOps ops = {
    guest_read, guest_write, guest_reg, guest_set_reg, guest_ring,
};

/* --- The guest --- */

static void guest_map_doorbell(Guest *g)
{
    struct vfio_user_region_info info = { .argsz = sizeof(info), .index = 2 };

    g_assert_cmpint(rc_call(g->c, VFIO_USER_DEVICE_GET_REGION_INFO, &info,
                            sizeof(info)), ==, 0);
    memcpy(&info, g->c->payload, sizeof(info));
    g_assert_cmpint(g->c->nr_fds, ==, 1);
    if (g->doorbell) {
        munmap(g->doorbell, 4096);
    }
    g->doorbell = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
                       g->c->fds[0], info.offset);
    g_assert(g->doorbell != MAP_FAILED);
}

/*
 * What a client does that comes back; the driver does not know. The memory
 * comes last: with it the disk goes on, and may be at its end at once.
 */
static void guest_connect(Guest *g)
{
    uint16_t command = 6;

    g->c = rc_connect(g->path);
    g->c->may_end = true;
    g_assert_cmpint(rc_negotiate(g->c, NULL, false), ==, 0);
    g_assert_cmpint(rc_set_irqs(g->c, 4 | 32, 2, 0, 1, &g->irq, 1), ==, 0);
    if (g->mapped_doorbell) {
        guest_map_doorbell(g);
    }
    g_assert_cmpint(rc_write(g->c, 7, 4, &command, 2), ==, 0);
    g_assert_cmpint(rc_map(g->c, RAM, RAM_SIZE, g->fd, 0), ==, 0);
}

static TestServer *guest_server(Guest *g, bool kept)
{
    TestServer *s = ts_new();

    ts_add_disk(s, &(TsDiskOptions) {
        .file = g->disk, .mapped_doorbell = g->mapped_doorbell,
    });
    if (kept) {
        ts_keep_state(s, g->state);
    }
    return s;
}

static Guest *guest_new(bool mapped_doorbell)
{
    Guest *g = g_new0(Guest, 1);

    g->mapped_doorbell = mapped_doorbell;
    g->dir = g_dir_make_tmp("ts-XXXXXX", NULL);
    g->path = g_build_filename(g->dir, "sock", NULL);
    g->state = g_build_filename(g->dir, "state", NULL);
    g->disk = g_build_filename(g->dir, "disk", NULL);
    g->fd = memfd_create("guest", MFD_CLOEXEC);
    g_assert(g->fd >= 0 && ftruncate(g->fd, RAM_SIZE) == 0);
    g->mem = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd,
                  0);
    g_assert(g->mem != MAP_FAILED);
    g->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->d = disk_driver_new(&ops, g, RAM);
    return g;
}

static void guest_free(Guest *g)
{
    if (g->c) {
        rc_free(g->c);
    }
    ts_free(g->s);
    disk_driver_free(g->d);
    if (g->doorbell) {
        munmap(g->doorbell, 4096);
    }
    munmap(g->mem, RAM_SIZE);
    close(g->fd);
    close(g->irq);
    g_unlink(g->path);
    g_unlink(g->state);
    g_unlink(g->disk);
    g_assert_cmpint(g_rmdir(g->dir), ==, 0);
    g_free(g->dir);
    g_free(g->path);
    g_free(g->state);
    g_free(g->disk);
    g_free(g);
}

/* Waits for a completion. */
static void guest_wait(Guest *g)
{
    int64_t end = g_get_monotonic_time() + 1000 * TS_DEADLINE_MS;

    while (!disk_driver_poll(g->d)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(50);
    }
}

/* Nothing is open any more, and every block is right. */
static void guest_finish(Guest *g)
{
    g_autofree char *content = NULL;
    gsize len;

    while (disk_driver_nr_open(g->d)) {
        guest_wait(g);
    }
    while (disk_driver_read_on(g->d)) {
        guest_wait(g);
    }
    g_assert(g_file_get_contents(g->disk, &content, &len, NULL));
    g_assert_cmpuint(len, >=, DISK_DRIVER_BLOCKS * DISK_BLOCK);
    disk_driver_check(g->d, content);
}

/* --- Tests --- */

void test_disk_registers(void)
{
    Guest *g = guest_new(false);
    uint64_t wide;

    g->s = guest_server(g, false);
    g_assert_cmpint(ts_start(g->s, g->path), ==, 0);
    guest_connect(g);
    g_assert_cmphex(guest_reg(g, DISK_ID), ==, 0x314b5344);
    g_assert_cmpuint(guest_reg(g, DISK_BLOCKS), ==, 256);
    g_assert_cmpuint(guest_reg(g, DISK_STARTS), ==, 1);
    guest_set_reg(g, DISK_CONTROL, 1);
    g_assert_cmpuint(guest_reg(g, DISK_CONTROL), ==, 0);    /* no ring */
    guest_set_reg(g, DISK_ENTRIES, 48);
    g_assert_cmpuint(guest_reg(g, DISK_ENTRIES), ==, 0);
    guest_set_reg(g, DISK_ENTRIES, 32);
    wide = 0x1122334455667788ull;
    g_assert_cmpint(rc_write(g->c, 0, DISK_REQUESTS, &wide, 8), ==, 0);
    guest_set_reg(g, DISK_CONTROL, 1);
    guest_set_reg(g, DISK_REQUESTS, 5);                     /* too late */
    g_assert_cmpint(rc_read(g->c, 0, DISK_REQUESTS, &wide, 8), ==, 0);
    g_assert_cmphex(wide, ==, 0x1122334455667788ull);
    guest_set_reg(g, DISK_DOORBELL, 1);
    g_assert(ts_disk_wait(g->s, DISK_STATUS, DISK_STATUS_WAIT_MEM));
    guest_set_reg(g, DISK_CONTROL, 0);
    g_assert_cmphex(guest_reg(g, DISK_STATUS), ==, 0);
    g_assert_cmpuint(guest_reg(g, DISK_DOORBELL), ==, 0);
    g_assert_cmphex(guest_reg(g, DISK_REQUESTS), ==, 0x55667788);
    g_assert_cmpint(rc_call(g->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmphex(guest_reg(g, DISK_REQUESTS), ==, 0);
    g_assert_cmphex(guest_reg(g, DISK_ID), ==, DISK_MAGIC);
    guest_free(g);
}

static void check_io(bool mapped_doorbell)
{
    Guest *g = guest_new(mapped_doorbell);
    struct pollfd pfd = { .events = POLLIN };

    g->s = guest_server(g, false);
    g_assert_cmpint(ts_start(g->s, g->path), ==, 0);
    guest_connect(g);
    disk_driver_start(g->d);
    while (disk_driver_nr_done(g->d) < 500) {
        disk_driver_fill(g->d);
        guest_wait(g);
    }
    guest_finish(g);
    pfd.fd = g->irq;
    g_assert_cmpint(poll(&pfd, 1, TS_DEADLINE_MS), ==, 1);
    g_assert_cmpuint(guest_reg(g, DISK_USED), ==, disk_driver_nr_done(g->d));
    g_assert_cmpuint(guest_reg(g, DISK_LOST), ==, 0);

    /* After a reset the driver's requests begin anew. */
    disk_driver_fill(g->d);
    g_assert_cmpint(rc_call(g->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    disk_driver_start(g->d);
    guest_finish(g);
    guest_free(g);
}

void test_disk_io(void)
{
    check_io(false);
}

void test_disk_doorbell(void)
{
    check_io(true);
}

/* A request that makes no sense is completed all the same. */
void test_disk_bad_request(void)
{
    Guest *g = guest_new(false);
    DiskRequest q[2] = {
        { .op = DISK_READ, .tag = 7, .block = 256, .addr = RAM + 0x10000 },
        { .op = 3, .tag = 8, .addr = RAM + 0x10000 },
    };
    DiskCompletion c[2];

    g->s = guest_server(g, false);
    g_assert_cmpint(ts_start(g->s, g->path), ==, 0);
    guest_connect(g);
    disk_driver_start(g->d);
    guest_write(g, RAM, q, sizeof(q));
    guest_ring(g, 2);
    g_assert(ts_disk_wait(g->s, DISK_USED, 2));
    guest_read(g, RAM + 0x4000, c, sizeof(c));
    g_assert_cmpuint(c[0].tag + c[1].tag, ==, 15);
    g_assert_cmpuint(c[0].status, ==, EINVAL);
    g_assert_cmpuint(c[1].status, ==, EINVAL);
    g_assert_cmpuint(c[0].seq, ==, 1);
    g_assert_cmpuint(c[1].seq, ==, 2);
    guest_free(g);
}

/* State goes from server to server, but not to another device. */
void test_state(void)
{
    Guest *g = guest_new(true);
    TestServer *other = ts_new();
    g_autofree char *path = g_strconcat(g->path, "2", NULL);
    uint32_t bar = 0xe0001000, value;

    g->s = guest_server(g, true);
    g_assert_cmpint(ts_start(g->s, g->path), ==, 0);
    guest_connect(g);
    guest_set_reg(g, DISK_SCRATCH, 0x1234);
    guest_ring(g, 0x77);
    g_assert_cmpint(rc_write(g->c, 7, 0x10, &bar, 4), ==, 0);
    for (unsigned i = 2; i < 5; i++) {
        rc_free(g->c);
        ts_free(g->s);
        g->s = guest_server(g, true);
        g_assert_cmpint(ts_start(g->s, g->path), ==, 0);
        guest_connect(g);
        g_assert_cmpuint(guest_reg(g, DISK_STARTS), ==, i);
        g_assert_cmphex(guest_reg(g, DISK_SCRATCH), ==, 0x1234);
        g_assert_cmphex(*g->doorbell, ==, 0x77);
        g_assert_cmpint(rc_read(g->c, 7, 0x10, &value, 4), ==, 0);
        g_assert_cmphex(value, ==, bar);
    }
    ts_add_disk(other, &(TsDiskOptions) { .mapped_doorbell = false });
    ts_keep_state(other, g->state);
    g_assert_cmpint(ts_start(other, path), ==, ESTALE);
    ts_free(other);
    guest_free(g);
}

/* --- A process --- */

/* @die: nothing, or a word of the disk's line */
static bool guest_spawn(Guest *g, const char *die)
{
    const char *program = g_getenv("TEST_SERVER_PROGRAM");
    g_autofree char *line =
        g_strdup_printf("disk file=%s%s %s", g->disk,
                        g->mapped_doorbell ? " mapped-doorbell" : "", die);
    const char *const argv[] = {
        program, "--socket-path", g->path, "--state", g->state, "--set",
        line, NULL,
    };
    char said[8];
    int out;

    if (!program) {
        g_test_skip("TEST_SERVER_PROGRAM names no program");
        return false;
    }
    g_assert(g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                      G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                                      &g->pid, NULL, &out, NULL, NULL));
    g_assert_cmpint(read(out, said, sizeof(said)), ==, 8);
    close(out);
    return true;
}

static void guest_kill(Guest *g)
{
    g_assert_cmpint(kill(g->pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(g->pid, NULL, 0), ==, g->pid);
    rc_free(g->c);
    g->c = NULL;
}

/* Killed in the middle of its work, again and again. */
static void check_killed(bool mapped_doorbell)
{
    Guest *g = guest_new(mapped_doorbell);

    if (!guest_spawn(g, "")) {
        guest_free(g);
        return;
    }
    guest_connect(g);
    disk_driver_start(g->d);
    for (unsigned i = 1; i <= KILLS; i++) {
        uint64_t target = disk_driver_nr_done(g->d) +
                          g_test_rand_int_range(1, 40);

        while (disk_driver_nr_done(g->d) < target) {
            disk_driver_fill(g->d);
            guest_wait(g);
        }
        disk_driver_fill(g->d);
        guest_kill(g);
        g_assert(guest_spawn(g, ""));
        guest_connect(g);
        g_assert_cmpuint(guest_reg(g, DISK_STARTS), ==, i + 1);
        disk_driver_ring(g->d);
    }
    guest_finish(g);
    g_assert_cmpuint(guest_reg(g, DISK_RESUMED), >, KILLS);
    guest_kill(g);
    guest_free(g);
}

static bool guest_server_ended(Guest *g)
{
    return waitpid(g->pid, NULL, WNOHANG) == g->pid;
}

/* Killed between each two stores whose order matters. */
void test_disk_dies(void)
{
    int64_t end = g_get_monotonic_time() + 3 * 1000 * TS_DEADLINE_MS;
    Guest *g = guest_new(false);

    for (unsigned i = 0; i < 4 * (TS_DISK_POINTS - 1); i++) {
        g_autofree char *die =
            g_strdup_printf("die=%u:%u", TS_DISK_BUSY +
                            i % (TS_DISK_POINTS - 1),
                            g_test_rand_int_range(0, 150));

        if (!guest_spawn(g, die)) {
            guest_free(g);
            return;
        }
        guest_connect(g);
        if (i) {
            disk_driver_ring(g->d);
        } else {
            disk_driver_start(g->d);
        }
        while (!guest_server_ended(g)) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            disk_driver_poll(g->d);
            disk_driver_fill(g->d);
        }
        rc_free(g->c);
    }
    g_assert(guest_spawn(g, ""));
    guest_connect(g);
    disk_driver_ring(g->d);
    guest_finish(g);
    guest_kill(g);
    guest_free(g);
}

void test_disk_killed(void)
{
    check_killed(false);
}

void test_disk_killed_doorbell(void)
{
    check_killed(true);
}
