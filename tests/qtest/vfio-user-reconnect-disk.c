/*
 * vfio-user qtest: a disk whose server is killed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server is a process, so that it can be killed at any moment, and keeps
 * its state as SPDK does. The driver (tests/server/disk-driver.c) checks every
 * block. qtest does not wait for a device that is away, so the driver here
 * does what a vCPU that is held does not have to: it rings the doorbell again.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <glib/gstdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "hw/pci/pci_regs.h"
#include "../server/disk-driver.h"
#include "../server/server-disk.h"
#include "vfio-user-reconnect.h"

#define GUEST_MEM       0x200000
#define MSIX_WORD       0x180000
#define MSIX_DATA       0xd15c
/* Kills in the first and in the last part, whose least use is compared. */
#define PART            10
/* Malloc's own wavering; a leak of 4 KiB a return would be beyond it. */
#define GROWTH_KIB      300

typedef struct DiskCase {
    const char *name;
    VUTOptions options;
    bool mapped_doorbell;
    bool kept;
    unsigned kills;
} DiskCase;

typedef struct Disk {
    const DiskCase *c;
    RTest *r;
    DiskDriver *d;
    char *path, *state, *file;
    GPid pid;
    QPCIBar regs, doorbell;
} Disk;

/* The server -------------------------------------------------------------- */

int rt_serve_disk(int argc, char **argv)
{
    TestServer *s = ts_new();
    sigset_t none;

    g_assert_cmpint(argc, ==, 6);
    /* Not to outlive a test that failed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    ts_add_disk(s, &(TsDiskOptions) {
        .file = argv[3], .mapped_doorbell = !strcmp(argv[5], "mapped"),
    });
    if (*argv[4]) {
        ts_keep_state(s, argv[4]);
    }
    g_assert_cmpint(ts_start(s, argv[2]), ==, 0);
    printf("serving\n");
    fflush(stdout);
    ts_wait_finished(s, -1);
    return 0;
}

static void spawn(Disk *k)
{
    const char *const argv[] = {
        "/proc/self/exe", RT_SERVE, k->path, k->file,
        k->c->kept ? k->state : "",
        k->c->mapped_doorbell ? "mapped" : "message", NULL,
    };
    char said[8];
    int out;

    g_assert(g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                      G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                                      &k->pid, NULL, &out, NULL, NULL));
    g_assert_cmpint(read(out, said, sizeof(said)), ==, 8);
    close(out);
}

static void kill_server(Disk *k)
{
    g_assert_cmpint(kill(k->pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(k->pid, NULL, 0), ==, k->pid);
    k->pid = 0;
}

/* The driver's view ------------------------------------------------------- */

static void mem_read(void *opaque, uint64_t addr, void *buf, size_t len)
{
    Disk *k = opaque;

    qtest_bufread(k->r->t->qts, addr, buf, len);
}

static void mem_write(void *opaque, uint64_t addr, const void *buf,
                      size_t len)
{
    Disk *k = opaque;

    qtest_bufwrite(k->r->t->qts, addr, buf, len);
}

static uint32_t reg_read(void *opaque, unsigned offset)
{
    Disk *k = opaque;

    return qpci_io_readl(k->r->t->dev, k->regs, offset);
}

static void reg_write(void *opaque, unsigned offset, uint32_t value)
{
    Disk *k = opaque;

    qpci_io_writel(k->r->t->dev, k->regs, offset, value);
}

static void ring(void *opaque, uint32_t value)
{
    Disk *k = opaque;

    if (k->c->mapped_doorbell) {
        qpci_io_writel(k->r->t->dev, k->doorbell, DISK_MAPPED_DOORBELL,
                       value);
    } else {
        reg_write(k, DISK_DOORBELL, value);
    }
}

static const DiskDriverOps ops = {
    mem_read, mem_write, reg_read, reg_write, ring,
};

/* The VM ------------------------------------------------------------------ */

static void enable_msix(Disk *k)
{
    QPCIDevice *dev = k->r->t->dev;

    qpci_msix_enable(dev);
    qpci_io_writel(dev, dev->msix_table_bar, 0, MSIX_WORD);
    qpci_io_writel(dev, dev->msix_table_bar, 4, 0);
    qpci_io_writel(dev, dev->msix_table_bar, 8, MSIX_DATA);
    qpci_io_writel(dev, dev->msix_table_bar, 12, 0);
}

static Disk *disk_new(const DiskCase *c)
{
    Disk *k = g_new0(Disk, 1);
    g_autofree char *props = NULL;
    g_autofree char *error = NULL;

    k->c = c;
    k->r = rt_new(&c->options);
    k->path = g_build_filename(k->r->t->dir, "disk.sock", NULL);
    k->state = g_build_filename(k->r->t->dir, "disk.state", NULL);
    k->file = g_build_filename(k->r->t->dir, "disk.img", NULL);
    spawn(k);
    error = rt_add(k->r, VUT_ID, k->path, VUT_SLOT,
                   ",reconnect-ms=5,on-disconnect=hold");
    g_assert_cmpstr(error, ==, NULL);
    vut_find(k->r->t, VUT_SLOT);
    k->regs = qpci_iomap(k->r->t->dev, 0, NULL);
    if (c->mapped_doorbell) {
        k->doorbell = qpci_iomap(k->r->t->dev, 2, NULL);
    }
    qpci_device_enable(k->r->t->dev);
    enable_msix(k);
    k->d = disk_driver_new(&ops, k, GUEST_MEM);
    disk_driver_start(k->d);
    return k;
}

static void disk_free(Disk *k)
{
    rt_del(k->r, VUT_ID, VUT_SLOT);
    kill_server(k);
    disk_driver_free(k->d);
    g_unlink(k->path);
    g_unlink(k->state);
    g_unlink(k->file);
    g_free(k->path);
    g_free(k->state);
    g_free(k->file);
    rt_free(k->r);
    g_free(k);
}

static void wait_completion(Disk *k)
{
    VUT_WAIT(disk_driver_poll(k->d));
}

static void work(Disk *k, unsigned nr)
{
    uint64_t target = disk_driver_nr_done(k->d) + nr;

    while (disk_driver_nr_done(k->d) < target) {
        disk_driver_fill(k->d);
        wait_completion(k);
    }
    disk_driver_fill(k->d);
}

/* Nothing is open any more, and every block is right. */
static void finish(Disk *k)
{
    g_autofree char *content = NULL;
    gsize len;

    while (disk_driver_nr_open(k->d)) {
        wait_completion(k);
    }
    while (disk_driver_read_on(k->d)) {
        wait_completion(k);
    }
    g_assert(g_file_get_contents(k->file, &content, &len, NULL));
    g_assert_cmpuint(len, >=, DISK_DRIVER_BLOCKS * DISK_BLOCK);
    disk_driver_check(k->d, content);
}

static void test_killed(const void *data)
{
    const DiskCase *c = data;
    Disk *k = disk_new(c);
    pid_t pid = qtest_pid(k->r->t->qts);
    unsigned long first = ULONG_MAX, last = ULONG_MAX;
    unsigned fds = 0;

    for (unsigned i = 1; i <= c->kills; i++) {
        work(k, g_test_rand_int_range(1, 30));
        qtest_writel(k->r->t->qts, MSIX_WORD, 0);
        kill_server(k);
        rt_expect(k->r, "DISCONNECTED");
        spawn(k);
        rt_expect_return(k->r, c->kept);
        VUT_WAIT(qtest_readl(k->r->t->qts, MSIX_WORD) == MSIX_DATA);
        g_assert_cmphex(reg_read(k, DISK_ID), ==, DISK_MAGIC);
        if (c->kept) {
            g_assert_cmpuint(reg_read(k, DISK_STARTS), ==, i + 1);
            disk_driver_ring(k->d);
        } else {
            disk_driver_start(k->d);
        }
        if (i == 1) {
            fds = vut_nr_fds(pid);
        }
        if (i > PART && i <= 2 * PART) {
            first = MIN(first, vut_private_kib(pid));
        } else if (i > c->kills - PART) {
            last = MIN(last, vut_private_kib(pid));
        }
    }
    finish(k);
    vut_wait_nr_fds(k->r->t, fds);
    g_test_message("%" PRIu64 " requests", disk_driver_nr_done(k->d));
    vut_check_growth(first, last, GROWTH_KIB);
    rt_expect_no_more(k->r);
    disk_free(k);
}

static const DiskCase cases[] = {
    { "100-kills", { .no_device = true, .shared_ram = true }, false, true,
      100 },
    { "mapped-doorbell", { .no_device = true, .shared_ram = true }, true,
      true, 30 },
    { "private-memory", { .no_device = true }, false, true, 30 },
    /* It loses the state; the driver sets it up again. */
    { "fresh", { .no_device = true, .shared_ram = true }, false, false, 30 },
};

void rt_register_disk(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/disk/%s", cases[i].name);

        vut_add_data_test(path, &cases[i], test_killed);
    }
}
