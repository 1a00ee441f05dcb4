/*
 * vfio-user test server: self test of the device that is served as SPDK's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "script.h"
#include "selftest.h"
#include "spdk.h"

#define VECTOR      3
#define ADDR        0x100000
#define WORD        0x40

static uint32_t reg(Fixture *f, uint32_t off)
{
    uint32_t value = 0;

    g_assert_cmpint(rc_read(f->c, 0, off, &value, sizeof(value)), ==, 0);
    return value;
}

static void setup(TestServer *s)
{
    g_autofree char *error = script_line(s, "spdk-like");

    g_assert_cmpstr(error, ==, NULL);
}

/* The page of doorbells, as a client maps it. */
static uint8_t *map_bells(Fixture *f)
{
    struct vfio_user_region_info info = { .argsz = 4096, .index = 0 };
    uint8_t *mem;

    rc_close_fds(f->c);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_REGION_INFO, &info,
                            sizeof(info)), ==, 0);
    g_assert_cmpuint(f->c->nr_fds, ==, 1);
    mem = mmap(NULL, SPDK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
               f->c->fds[0], 0);
    g_assert(mem != MAP_FAILED);
    return mem;
}

/* Rings with a value of its own, and waits until that was seen. */
static void ring(Fixture *f, uint8_t *mem, uint64_t addr)
{
    uint32_t before = reg(f, SPDK_RINGS);
    int64_t end = g_get_monotonic_time() + TS_DEADLINE_MS * 1000;

    memcpy(mem + SPDK_BELL(VECTOR) + SPDK_BELL_ADDR, &addr, sizeof(addr));
    __atomic_store_n((uint32_t *)(mem + SPDK_BELL(VECTOR)), before + 1,
                     __ATOMIC_RELEASE);
    while (reg(f, SPDK_RINGS) == before) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

static void check_faults(Fixture *f, uint32_t no_eventfd, uint32_t no_window)
{
    g_assert_cmpuint(reg(f, SPDK_NO_EVENTFD), ==, no_eventfd);
    g_assert_cmpuint(reg(f, SPDK_NO_WINDOW), ==, no_window);
    g_assert_cmpuint(reg(f, SPDK_STATUS), ==, SPDK_READY |
                     (no_eventfd || no_window ? SPDK_FAILED : 0));
}

void test_spdk(void)
{
    Fixture *f = fixture_bare(setup, false);
    uint32_t clear = 0, word = 7;
    uint8_t *mem = map_bells(f);
    int irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int ram = memfd_create("ram", MFD_CLOEXEC);
    uint64_t count = 0;

    check_faults(f, 0, 0);
    ring(f, mem, 0);
    check_faults(f, 1, 0);
    g_assert_cmpint(rc_set_irqs(f->c, VFIO_USER_IRQ_DATA_EVENTFD |
                                VFIO_USER_IRQ_TRIGGER, VFIO_USER_IRQ_MSIX,
                                VECTOR, 1, &irq, 1), ==, 0);
    ring(f, mem, 0);
    g_assert(read(irq, &count, sizeof(count)) == sizeof(count));
    g_assert_cmpuint(count, ==, 1);
    check_faults(f, 1, 0);

    ring(f, mem, ADDR + WORD);
    check_faults(f, 1, 1);
    g_assert_cmpint(rc_write(f->c, 0, SPDK_STATUS, &clear, sizeof(clear)),
                    ==, 0);
    check_faults(f, 0, 0);
    g_assert(ftruncate(ram, 0x1000) == 0);
    g_assert(pwrite(ram, &word, sizeof(word), WORD) == sizeof(word));
    g_assert_cmpint(rc_map(f->c, ADDR, 0x1000, ram, 0), ==, 0);
    ring(f, mem, ADDR + WORD);
    check_faults(f, 0, 0);
    g_assert(pread(ram, &word, sizeof(word), WORD) == sizeof(word));
    g_assert_cmpuint(word, ==, 8);

    munmap(mem, SPDK_SIZE);
    close(irq);
    close(ram);
    fixture_free(f);
}

/* A doorbell overtakes the message that was sent before it, sooner or later. */
void test_spdk_overtakes(void)
{
    Fixture *f = fixture_bare(setup, false);
    int64_t end = g_get_monotonic_time() + TS_DEADLINE_MS * 1000;
    struct vfio_user_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_TRIGGER,
        .index = VFIO_USER_IRQ_MSIX, .start = VECTOR, .count = 1,
    };
    uint8_t *mem = map_bells(f);
    int irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    while (!reg(f, SPDK_NO_EVENTFD)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        rc_send(f->c, VFIO_USER_DEVICE_SET_IRQS, 0, &set, sizeof(set), &irq,
                1);
        __atomic_add_fetch((uint32_t *)(mem + SPDK_BELL(VECTOR)), 1,
                           __ATOMIC_SEQ_CST);
        g_assert(rc_receive(f->c));
        g_assert_cmpint(rc_set_irqs(f->c, VFIO_USER_IRQ_DATA_NONE |
                                    VFIO_USER_IRQ_TRIGGER,
                                    VFIO_USER_IRQ_MSIX, 0, 0, NULL, 0), ==, 0);
    }
    g_assert_cmpuint(reg(f, SPDK_STATUS), ==, SPDK_READY | SPDK_FAILED);
    munmap(mem, SPDK_SIZE);
    close(irq);
    fixture_free(f);
}
