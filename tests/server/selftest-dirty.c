/*
 * vfio-user test server: self test of dirty page logging
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
#include "selftest.h"
#include "server-migration.h"

#define GET     (1u << 16)
#define SET     (1u << 17)
#define WINDOW  0x100000        /* 256 pages at 1 MiB */
#define LATER   0x200000
#define SIZE    0x100000

static TsMigOptions *add_logging(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY);

    o->logging = true;
    return o;
}

static void setup_logging(TestServer *s)
{
    add_logging(s);
}

static void setup_64k(TestServer *s)
{
    add_logging(s)->log_page_size = 0x10000;
}

static void setup_ranges(TestServer *s)
{
    add_logging(s)->honour_ranges = true;
}

static void setup_clean(TestServer *s)
{
    TsMigOptions *o = add_logging(s);

    o->honour_ranges = o->clean_elsewhere = true;
}

static void setup_not_later(TestServer *s)
{
    add_logging(s)->not_later = true;
}

static void setup_any(TestServer *s)
{
    TsMigOptions *o = add_logging(s);

    o->any_range = true;
    o->max_bitmap = 64;
}

static void map_file(Fixture *f, uint64_t addr)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);

    g_assert(fd >= 0 && ftruncate(fd, SIZE) == 0);
    g_assert_cmpint(rc_map(f->c, addr, SIZE, fd, 0), ==, 0);
    close(fd);
}

static Fixture *logged(void (*setup)(TestServer *s))
{
    Fixture *f = fixture_negotiated(setup, false);

    map_file(f, WINDOW);
    g_assert_cmpint(rc_map(f->c, 0, 0x10000, -1, 0), ==, 0);
    return f;
}

static void device_writes(Fixture *f, uint64_t addr, size_t len)
{
    g_autofree uint8_t *buf = g_malloc0(len);

    g_assert_cmpint(ts_dma_write(f->s, addr, buf, len, TS_DMA_MAPPED), ==, 0);
}

/* Bit @i of the last report's bitmap, 64-bit words at offset 32. */
static bool reported(Fixture *f, unsigned i)
{
    uint64_t word;

    memcpy(&word, f->c->payload + 32 + i / 64 * 8, 8);
    return word >> (i % 64) & 1;
}

static unsigned nr_reported(Fixture *f)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < (f->c->len - 32) * 8; i++) {
        nr += reported(f, i);
    }
    return nr;
}

void test_dirty_bits(void)
{
    Fixture *f = logged(setup_logging);
    uint8_t buf[8];
    TsMigStats st;

    device_writes(f, WINDOW + 0x3000, 8);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, EINVAL);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 0);

    device_writes(f, WINDOW, 1);
    device_writes(f, WINDOW + 0x3fff, 2);
    device_writes(f, WINDOW + 70 * 4096, 3 * 4096);
    device_writes(f, WINDOW + SIZE - 1, 1);
    g_assert_cmpint(ts_dma_read(f->s, WINDOW + 0x50000, buf, 8, TS_DMA_ANY),
                    ==, 0);
    g_assert_cmpint(ts_mig_nr_dirty(f->s), ==, 7);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 7);
    g_assert(reported(f, 0) && reported(f, 3) && reported(f, 4));
    g_assert(reported(f, 70) && reported(f, 71) && reported(f, 72));
    g_assert(reported(f, 255));
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 0);

    /* Other page sizes than the log's */
    device_writes(f, WINDOW + 0x21000, 1);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 0x10000), ==, 0);
    g_assert_cmpint(f->c->len, ==, 32 + 8);
    g_assert(nr_reported(f) == 1 && reported(f, 2));
    device_writes(f, WINDOW + 0x21000, 1);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 1024), ==, 0);
    g_assert(nr_reported(f) == 4 && reported(f, 132) && reported(f, 135));

    ts_mig_stats(f->s, &st);
    g_assert_cmpint(st.nr_reports, ==, 5);
    g_assert(st.logging);
    g_assert_cmpint(rc_log_stop(f->c), ==, 0);
    ts_mig_stats(f->s, &st);
    g_assert(!st.logging);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, EINVAL);
    fixture_free(f);
}

void test_dirty_requests(void)
{
    Fixture *f = logged(setup_logging);
    uint64_t report[3] = { WINDOW, SIZE, 4096 };
    uint64_t start[6] = { 4096, 2, WINDOW, SIZE, LATER, SIZE };
    TsMigStats st;

    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 32, 0), ==, EINVAL);
    start[4] = WINDOW + SIZE - 4096;    /* overlaps */
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, EINVAL);
    start[4] = LATER + 1;
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, EINVAL);
    start[4] = LATER;
    start[5] = UINT64_MAX & ~4095ull;
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, EINVAL);
    start[5] = SIZE;
    start[0] = 5000;
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, EINVAL);
    start[0] = 0;
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, EINVAL);
    start[0] = 4096;
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, 0);
    g_assert(!memcmp(f->c->payload + 8, start, 48));
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 48, 0), ==, EBUSY);
    g_assert_cmpint(rc_feature(f->c, 6 | GET, NULL, 0, 64), ==, EINVAL);
    ts_mig_stats(f->s, &st);
    g_assert_cmpint(st.nr_starts, ==, 1);
    g_assert_cmpint(st.log_page_size, ==, 4096);
    g_assert_cmpint(st.nr_ranges, ==, 2);
    g_assert_cmphex(st.ranges[1].iova, ==, LATER);

    /* Exactly one window, one that is mapped, and room for the answer */
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE / 2, 4096), ==, EINVAL);
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE, 4096), ==, EINVAL);
    g_assert_cmpint(rc_log_report(f->c, 0, 0x10000, 4096), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 8 | GET, report, 24, 63), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 8 | GET, report, 16, 64), ==, EINVAL);
    report[2] = 0;
    g_assert_cmpint(rc_feature(f->c, 8 | GET, report, 24, 64), ==, EINVAL);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, 0);
    fixture_free(f);
}

void test_dirty_page_size(void)
{
    Fixture *f = logged(setup_64k);
    uint64_t page;
    int fd;

    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    memcpy(&page, f->c->payload + 8, 8);
    g_assert_cmpint(page, ==, 0x10000);
    device_writes(f, WINDOW + 0x25000, 1);
    g_assert_cmpint(ts_mig_nr_dirty(f->s), ==, 1);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 16);
    g_assert(reported(f, 0x20) && reported(f, 0x2f));
    device_writes(f, WINDOW + 0x25000, 1);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 0x10000), ==, 0);
    g_assert(nr_reported(f) == 1 && reported(f, 2));

    /* A window need not be a multiple of the page nor begin at one. */
    fd = memfd_create("guest", MFD_CLOEXEC);
    g_assert(fd >= 0 && ftruncate(fd, 0x11000) == 0);
    g_assert_cmpint(rc_map(f->c, LATER + 0x3000, 0x11000, fd, 0), ==, 0);
    close(fd);
    device_writes(f, LATER + 0x13fff, 1);
    g_assert_cmpint(rc_log_report(f->c, LATER + 0x3000, 0x11000, 0x10000),
                    ==, 0);
    g_assert_cmpint(f->c->len, ==, 32 + 8);
    g_assert(nr_reported(f) == 1 && reported(f, 1));
    fixture_free(f);
}

/* What is mapped after START is logged, or not; what is unmapped is not. */
void test_dirty_later(void)
{
    Fixture *f = logged(setup_logging);

    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    map_file(f, LATER);
    device_writes(f, LATER + 0x5000, 1);
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE, 4096), ==, 0);
    g_assert(nr_reported(f) == 1 && reported(f, 5));
    device_writes(f, LATER, 1);
    g_assert_cmpint(rc_unmap(f->c, LATER, SIZE), ==, 0);
    map_file(f, LATER);
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 0);
    fixture_free(f);

    f = logged(setup_not_later);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    map_file(f, LATER);
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE, 4096), ==, EINVAL);
    fixture_free(f);
}

void test_dirty_ranges(void)
{
    Fixture *f = logged(setup_ranges);
    uint64_t start[4] = { 4096, 1, WINDOW, SIZE / 2 };

    map_file(f, LATER);
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 32, 0), ==, 0);
    device_writes(f, WINDOW + SIZE / 2 - 1, 1);
    device_writes(f, WINDOW + SIZE / 2, 1);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, SIZE, 4096), ==, 0);
    g_assert(nr_reported(f) == 1 && reported(f, 127));
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE, 4096), ==, EINVAL);
    fixture_free(f);

    f = logged(setup_clean);
    map_file(f, LATER);
    g_assert_cmpint(rc_feature(f->c, 6 | SET, start, 32, 0), ==, 0);
    device_writes(f, LATER, 1);
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 0);
    fixture_free(f);
}

/* Parts, ranges across windows, and a limit for the bitmap */
void test_dirty_any_range(void)
{
    Fixture *f = logged(setup_any);

    map_file(f, LATER);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    device_writes(f, WINDOW + SIZE - 1, 1);
    device_writes(f, LATER, 1);
    device_writes(f, LATER + 0x81000, 1);
    g_assert_cmpint(rc_log_report(f->c, WINDOW, 2 * SIZE, 8192), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 3);
    g_assert(reported(f, 127) && reported(f, 128) && reported(f, 192));
    device_writes(f, LATER + 0x81000, 1);
    g_assert_cmpint(rc_log_report(f->c, LATER, SIZE / 2, 4096), ==, 0);
    g_assert_cmpint(nr_reported(f), ==, 0);
    g_assert_cmpint(rc_log_report(f->c, LATER + SIZE / 2, SIZE / 2, 4096), ==,
                    0);
    g_assert(nr_reported(f) == 1 && reported(f, 1));
    g_assert_cmpint(rc_log_report(f->c, WINDOW, 2 * SIZE + 4096, 4096), ==,
                    EINVAL);
    fixture_free(f);
}

void test_dirty_client_gone(void)
{
    Fixture *f = logged(setup_logging);
    TsMigStats st;

    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    rc_free(f->c);
    g_assert(ts_wait_connected(f->s, false));
    ts_mig_stats(f->s, &st);
    g_assert(!st.logging);
    f->c = rc_connect(f->path);
    g_assert_cmpint(rc_negotiate(f->c, NULL, false), ==, 0);
    map_file(f, WINDOW);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    fixture_free(f);
}
