/*
 * vfio-user: SIGBUS, in mapped regions and elsewhere
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test is QEMU: it blocks SIGBUS in its threads and has a handler for memory
 * errors that must run in the main loop. A process may send itself a signal that
 * looks like the kernel's.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/core/cpu.h"
#include "hw/qdev-core.h"
#include "hw/vfio-user/sigbus.h"
#include "vfio-user-peer.h"

#define PAGE    4096

static unsigned nr_offline;
static unsigned nr_before;
static bool in_main_loop;
static DeviceListener *the_listener;
static CPUState the_cpu;
static unsigned nr_cpu_work;
static VFIOUserDevice the_udev = { .name = (char *)"test" };

/* What sigbus.c needs of QEMU ---------------------------------------------- */

CPUTailQ cpus_queue = QTAILQ_HEAD_INITIALIZER(cpus_queue);
__thread CPUState *current_cpu;

void vfio_user_device_offline(VFIOUserDevice *udev, Error *err)
{
    g_assert_true(udev == &the_udev);
    g_assert_nonnull(strstr(error_get_pretty(err), "cut short"));
    error_free(err);
    nr_offline++;
}

void async_run_on_cpu(CPUState *cpu, run_on_cpu_func func, run_on_cpu_data data)
{
    g_assert_true(cpu == &the_cpu);
    nr_cpu_work++;
}

void device_listener_register(DeviceListener *listener)
{
    g_assert_null(the_listener);
    the_listener = listener;
}

void device_listener_unregister(DeviceListener *listener)
{
    g_assert_true(the_listener == listener);
    the_listener = NULL;
}

/* -------------------------------------------------------------------------- */

static void before(int sig, siginfo_t *info, void *context)
{
    g_assert_cmpint(info->si_code, ==, BUS_MCEERR_AO);
    g_assert_true(info->si_addr == (void *)0x1000);
    /* With a lock of the main loop's, this would be the end. */
    g_assert_true(in_main_loop);
    nr_before++;
}

static void send_error(int code)
{
    siginfo_t info = {
        .si_signo = SIGBUS, .si_code = code, .si_addr = (void *)0x1000,
    };

    g_assert_cmpint(syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGBUS,
                            &info), ==, 0);
}

static bool is_blocked(void)
{
    sigset_t set;

    pthread_sigmask(SIG_BLOCK, NULL, &set);
    return sigismember(&set, SIGBUS);
}

static void block(void)
{
    struct sigaction action = {
        .sa_sigaction = before, .sa_flags = SA_SIGINFO,
    };
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    g_assert_cmpint(sigaction(SIGBUS, &action, NULL), ==, 0);
    nr_before = nr_offline = nr_cpu_work = 0;
}

static void run_main_loop(void)
{
    in_main_loop = true;
    while (aio_poll(iohandler_get_aio_context(), false) ||
           aio_poll(qemu_get_aio_context(), false)) {
        continue;
    }
    in_main_loop = false;
}

static uint8_t *map_file(int *fd)
{
    uint8_t *mem;

    *fd = memfd_create("test", MFD_CLOEXEC);
    g_assert_cmpint(*fd, >=, 0);
    g_assert_cmpint(ftruncate(*fd, 2 * PAGE), ==, 0);
    mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    g_assert_true(mem != MAP_FAILED);
    return mem;
}

static void unmap_file(uint8_t *mem, int fd)
{
    vfio_user_sigbus_forget(mem);
    g_assert_cmpint(munmap(mem, 2 * PAGE), ==, 0);
    close(fd);
}

/* A page that is missing reads all-ones, and the device is given up. */
static void test_cut(void)
{
    volatile uint8_t *mem;
    int fd;

    block();
    mem = map_file(&fd);
    vfio_user_sigbus_add(&the_udev, (uint8_t *)mem, 2 * PAGE);
    mem[0] = 5;
    g_assert_cmpint(ftruncate(fd, PAGE), ==, 0);
    g_assert_cmphex(mem[PAGE + 8], ==, 0xff);
    g_assert_cmphex(mem[0], ==, 5);
    run_main_loop();
    g_assert_cmpint(nr_offline, ==, 1);
    g_assert_cmpint(nr_before, ==, 0);
    unmap_file((uint8_t *)mem, fd);
}

/* A memory error of the host is QEMU's, and waits for its main loop. */
static void test_error(void)
{
    uint8_t *mem;
    int fd;

    block();
    mem = map_file(&fd);
    vfio_user_sigbus_add(&the_udev, mem, 2 * PAGE);
    for (unsigned i = 1; i < 4; i++) {
        send_error(BUS_MCEERR_AO);
        g_assert_cmpint(nr_before, ==, i - 1);
        run_main_loop();
        g_assert_cmpint(nr_before, ==, i);
    }
    /* More than are of interest */
    for (unsigned i = 0; i < 100; i++) {
        send_error(BUS_MCEERR_AO);
    }
    run_main_loop();
    g_assert_cmpint(nr_before, >, 3);
    g_assert_cmpint(nr_before, <, 100);
    g_assert_cmpint(nr_offline, ==, 0);
    unmap_file(mem, fd);
}

/* After the last mapping all is as it was. */
static void test_closed_again(void)
{
    struct sigaction now;
    uint8_t *mem, *other;
    int fd, other_fd;

    block();
    mem = map_file(&fd);
    other = map_file(&other_fd);
    vfio_user_sigbus_add(&the_udev, mem, 2 * PAGE);
    vfio_user_sigbus_add(&the_udev, other, 2 * PAGE);
    g_assert_false(is_blocked());
    unmap_file(mem, fd);
    g_assert_false(is_blocked());
    unmap_file(other, other_fd);
    g_assert_true(is_blocked());
    g_assert_null(the_listener);
    sigaction(SIGBUS, NULL, &now);
    g_assert_true(now.sa_sigaction == before);
}

/* What was open before stays open. */
static void test_stays_open(void)
{
    sigset_t set;
    uint8_t *mem;
    int fd;

    block();
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    mem = map_file(&fd);
    vfio_user_sigbus_add(&the_udev, mem, 2 * PAGE);
    unmap_file(mem, fd);
    g_assert_false(is_blocked());
}

/* A vCPU that is plugged later is told, too. */
static void test_plugged(void)
{
    uint8_t *mem;
    int fd;

    block();
    mem = map_file(&fd);
    vfio_user_sigbus_add(&the_udev, mem, 2 * PAGE);
    g_assert_cmpint(nr_cpu_work, ==, 0);
    QTAILQ_INSERT_TAIL(&cpus_queue, &the_cpu, node);
    the_listener->realize(the_listener, NULL);
    run_main_loop();
    g_assert_cmpint(nr_cpu_work, ==, 1);
    unmap_file(mem, fd);
    g_assert_cmpint(nr_cpu_work, ==, 2);
    QTAILQ_REMOVE(&cpus_queue, &the_cpu, node);
}

static void forget_in_thread(void *opaque)
{
    vfio_user_sigbus_forget(opaque);
}

/* The last mapping may go in a vCPU's thread, or in RCU's. */
static void test_other_thread(void)
{
    PeerThread thread;
    uint8_t *mem;
    int fd;

    block();
    mem = map_file(&fd);
    vfio_user_sigbus_add(&the_udev, mem, 2 * PAGE);
    peer_thread_start(&thread, forget_in_thread, mem);
    peer_thread_join(&thread);
    g_assert_false(is_blocked());
    /* Until then what comes is still put off. */
    send_error(BUS_MCEERR_AO);
    g_assert_cmpint(nr_before, ==, 0);
    run_main_loop();
    g_assert_true(is_blocked());
    g_assert_cmpint(nr_before, ==, 1);
    unmap_file(mem, fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);

#define T(name, func) g_test_add_func("/vfio-user/sigbus/" name, func)
    T("cut", test_cut);
    T("error", test_error);
    T("closed-again", test_closed_again);
    T("stays-open", test_stays_open);
    T("plugged", test_plugged);
    T("other-thread", test_other_thread);

    return g_test_run();
}
