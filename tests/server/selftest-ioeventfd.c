/*
 * vfio-user test server: self test of writes that are signals
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "script.h"
#include "selftest.h"

static TsIoFd *plain, *match, *twin, *shadow;
static uint32_t *shadow_at;

static void setup_io_fds(TestServer *s)
{
    plain = ts_add_io_fd(s, 0, 0x10, 4);
    match = ts_add_io_fd(s, 0, 0x14, 2);
    ts_io_fd_match(match, 0x1234);
    twin = ts_add_io_fd(s, 0, 0x18, 0);
    twin->shares = plain;
    shadow = ts_add_io_fd(s, 4, 0x8, 4);
    ts_io_fd_match(shadow, 0x55);
    shadow_at = ts_io_fd_shadow(s, shadow, 0x1010);
}

static int ask(Fixture *f, uint32_t index, uint32_t room)
{
    struct vfio_user_io_fds info = { .argsz = room, .index = index };

    rc_close_fds(f->c);
    return rc_call(f->c, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &info,
                   sizeof(info));
}

/* The word of the reply's payload at @off, which the protocol names. */
static uint32_t word(Fixture *f, size_t off)
{
    uint32_t value;

    g_assert_cmpuint(off + sizeof(value), <=, f->c->len);
    memcpy(&value, f->c->payload + off, sizeof(value));
    return value;
}

static void ring(Fixture *f, unsigned fd)
{
    uint64_t one = 1;

    g_assert_cmpuint(fd, <, f->c->nr_fds);
    g_assert(write(f->c->fds[fd], &one, sizeof(one)) == sizeof(one));
}

void test_io_fds(void)
{
    Fixture *f = fixture_negotiated(setup_io_fds, false);

    g_assert_cmpint(ask(f, 0, 4096), ==, 0);
    g_assert_cmpuint(f->c->len, ==, 16 + 3 * 40);
    g_assert_cmpuint(word(f, 0), ==, 16 + 3 * 40);
    g_assert_cmpuint(word(f, 12), ==, 3);
    g_assert_cmphex(word(f, 16), ==, 0x10);
    g_assert_cmpuint(word(f, 16 + 8), ==, 4);
    g_assert_cmphex(word(f, 56), ==, 0x14);
    g_assert_cmpuint(word(f, 56 + 24), ==, VFIO_USER_IO_FD_DATAMATCH);
    g_assert_cmphex(word(f, 56 + 32), ==, 0x1234);
    g_assert_cmpuint(word(f, 96 + 16), ==, word(f, 16 + 16));
    g_assert_cmpuint(f->c->nr_fds, ==, 2);
    ring(f, word(f, 16 + 16));
    ring(f, word(f, 96 + 16));
    ring(f, word(f, 56 + 16));
    g_assert_cmpuint(ts_io_fd_count(f->s, plain), ==, 2);
    g_assert_cmpuint(ts_io_fd_count(f->s, match), ==, 1);
    g_assert_cmpuint(ts_io_fd_count(f->s, match), ==, 1);
    fixture_free(f);
}

void test_io_fds_shadow(void)
{
    Fixture *f = fixture_negotiated(setup_io_fds, false);
    uint32_t *mem;

    g_assert_cmpint(ask(f, 4, 4096), ==, 0);
    g_assert_cmpuint(word(f, 0), ==, 16 + 48);
    g_assert_cmpuint(word(f, 16 + 20), ==, VFIO_USER_IO_FD_SHADOW);
    g_assert_cmphex(word(f, 16 + 32), ==, 0x1010);
    g_assert_cmphex(word(f, 16 + 40), ==, 0x55);
    g_assert_cmpuint(f->c->nr_fds, ==, 2);
    mem = mmap(NULL, TS_IO_SHADOW_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
               f->c->fds[word(f, 16 + 28)], 0);
    g_assert(mem != MAP_FAILED);
    mem[0x1010 / 4] = 0xcafe;
    g_assert_cmphex(*shadow_at, ==, 0xcafe);
    munmap(mem, TS_IO_SHADOW_SIZE);
    fixture_free(f);
}

void test_io_fds_requests(void)
{
    Fixture *f = fixture_negotiated(setup_io_fds, false);

    /* Too little room: how much it takes, and nothing else. */
    g_assert_cmpint(ask(f, 0, 16 + 3 * 40 - 1), ==, 0);
    g_assert_cmpuint(f->c->len, ==, 16);
    g_assert_cmpuint(word(f, 0), ==, 16 + 3 * 40);
    g_assert_cmpuint(f->c->nr_fds, ==, 0);
    g_assert_cmpint(ask(f, 1, 4096), ==, 0);
    g_assert_cmpuint(word(f, 12), ==, 0);
    g_assert_cmpint(ask(f, 0, 15), ==, EINVAL);
    g_assert_cmpint(ask(f, 99, 4096), ==, EINVAL);
    fixture_free(f);
}

static void setup_script(TestServer *s)
{
    static const char *const lines[] = {
        "ioeventfd 0 offset=0x20 size=4 match=7",
        "ioeventfd 0 offset=0x28 shadow=0x40",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *error = script_line(s, lines[i]);

        g_assert_cmpstr(error, ==, NULL);
    }
}

void test_io_fds_script(void)
{
    Fixture *f = fixture_negotiated(setup_script, false);

    g_assert_cmpint(ask(f, 0, 4096), ==, 0);
    g_assert_cmpuint(word(f, 12), ==, 2);
    g_assert_cmphex(word(f, 16), ==, 0x20);
    g_assert_cmpuint(word(f, 16 + 24), ==, VFIO_USER_IO_FD_DATAMATCH);
    g_assert_cmphex(word(f, 64), ==, 0x28);
    g_assert_cmphex(word(f, 64 + 32), ==, 0x40);
    fixture_free(f);
}
