/*
 * vfio-user test server: self test of states and of the stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "selftest.h"
#include "server-migration.h"

#define STOP_COPY   1
#define P2P         2
#define PRE_COPY    4

/* States, as the protocol numbers them */
enum { ERR, STOP, RUN, SAVE, LOAD, RUNP, PRE, PREP, NR_STATES };

static void setup_full(TestServer *s)
{
    ts_add_migration(s, STOP_COPY | P2P | PRE_COPY);
}

static void setup_no_p2p(TestServer *s)
{
    ts_add_migration(s, STOP_COPY | PRE_COPY);
}

static void setup_plain(TestServer *s)
{
    ts_add_migration(s, STOP_COPY);
}

static void setup_refused(TestServer *s)
{
    ts_no_features(s, EOPNOTSUPP);
}

static void setup_closed(TestServer *s)
{
    ts_no_features(s, TS_CLOSE);
}

void test_mig_absent(void)
{
    Fixture *f = fixture_negotiated(NULL, false);

    g_assert_cmpint(rc_feature(f->c, 1 | 1 << 16, NULL, 0, 16), ==, ENOTTY);
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, ENOTTY);
    g_assert_cmpint(rc_mig_read(f->c, 4), ==, -EINVAL);
    g_assert_cmpint(rc_mig_write(f->c, "x", 1), ==, EINVAL);
    g_assert_cmpint(ts_mig_state(f->s), ==, RUN);
    fixture_free(f);

    f = fixture_negotiated(setup_refused, false);
    g_assert_cmpint(rc_feature(f->c, 1 | 1 << 16, NULL, 0, 16), ==,
                    EOPNOTSUPP);
    fixture_free(f);

    f = fixture_negotiated(setup_closed, false);
    g_assert_cmpint(rc_feature(f->c, 1 | 1 << 16, NULL, 0, 16), ==, -1);
    fixture_free(f);
}

static void setup_data_size(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, STOP_COPY | P2P);

    o->data_size = true;
    o->size = 12345;
}

void test_mig_feature(void)
{
    Fixture *f = fixture_negotiated(setup_data_size, false);
    const uint32_t get = 1 << 16, set = 1 << 17, probe = 1 << 18;
    uint32_t words[2], state[3] = { STOP, 0, 0 };
    uint64_t value;
    TsRecord r;

    g_assert_cmpint(rc_feature(f->c, 1 | get, NULL, 0, 16), ==, 0);
    g_assert_cmpint(f->c->len, ==, 16);
    memcpy(words, f->c->payload, 8);
    g_assert_cmpint(words[0], ==, 16);
    g_assert_cmphex(words[1], ==, 0x10001);
    memcpy(&value, f->c->payload + 8, 8);
    g_assert_cmpint(value, ==, STOP_COPY | P2P);
    g_assert_cmpint(rc_feature(f->c, 9 | get, NULL, 0, 16), ==, 0);
    memcpy(&value, f->c->payload + 8, 8);
    g_assert_cmpint(value, ==, 12345);

    g_assert_cmpint(rc_feature(f->c, 1 | get, NULL, 0, 8), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 1 | set, state, 8, 0), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 1 | get | set, NULL, 0, 16), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 1, NULL, 0, 16), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 1 | get | 1 << 19, NULL, 0, 16), ==,
                    EINVAL);
    g_assert_cmpint(rc_feature(f->c, 2 | set, state, 4, 0), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 2 | set, state, 8, 20), ==, EINVAL);
    g_assert_cmpint(rc_feature(f->c, 3 | get, NULL, 0, 16), ==, ENOTTY);
    g_assert_cmpint(rc_feature(f->c, 999 | get, NULL, 0, 16), ==, ENOTTY);
    g_assert_cmpint(rc_feature(f->c, 6 | probe, NULL, 0, 0), ==, ENOTTY);

    g_assert_cmpint(rc_feature(f->c, 1 | get | probe, NULL, 0, 0), ==, 0);
    g_assert_cmpint(f->c->len, ==, 8);
    g_assert_cmpint(rc_feature(f->c, 2 | get | set | probe, NULL, 0, 0), ==,
                    0);
    g_assert_cmpint(rc_feature(f->c, 1 | set | probe, NULL, 0, 0), ==,
                    EINVAL);
    g_assert_cmpint(rc_get_state(f->c), ==, RUN);

    g_assert(ts_log_get(f->s, (TsMatch){ VFIO_USER_DEVICE_FEATURE, 9, -1 },
                        0, &r));
    g_assert_cmphex(r.set_flags, ==, 9 | get);
    g_assert_cmpint(r.count, ==, 16);
    fixture_free(f);
}

/* From RUNNING to a state, on the way that leads there from anywhere. */
static void go_from_running(Fixture *f, unsigned state)
{
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, RUN);
    if (state == ERR) {
        ts_mig_break(f->s);
    } else {
        g_assert_cmpint(rc_set_state(f->c, state), ==, 0);
    }
    g_assert_cmpint(rc_get_state(f->c), ==, state);
}

/* Each transition succeeds, or is refused and changes nothing. */
static void check_arcs(Fixture *f, bool p2p, bool precopy)
{
    const bool there[NR_STATES] = { true, true, true, true, true, p2p,
                                    precopy, p2p && precopy };

    for (unsigned from = 0; from < NR_STATES; from++) {
        for (unsigned to = 0; to < NR_STATES + 2; to++) {
            bool good;

            if (!there[from]) {
                continue;
            }
            good = from != ERR && to != ERR && to < NR_STATES && there[to] &&
                   !(from == SAVE && (to == PRE || to == PREP)) &&
                   from != LOAD;
            go_from_running(f, from);
            /* A load cannot end without a state having come. */
            good |= from == LOAD && to == LOAD;
            g_assert_cmpint(rc_set_state(f->c, to), ==, good ? 0 : EINVAL);
            g_assert_cmpint(rc_get_state(f->c), ==, good ? to : from);
        }
    }
}

void test_mig_arcs(void)
{
    Fixture *f = fixture_negotiated(setup_full, false);

    check_arcs(f, true, true);
    fixture_free(f);
    f = fixture_negotiated(setup_no_p2p, false);
    check_arcs(f, false, true);
    fixture_free(f);
    f = fixture_negotiated(setup_plain, false);
    check_arcs(f, false, false);
    fixture_free(f);
}

typedef struct Path {
    uint8_t states[6];      /* first to last; 0 ends */
} Path;

/*
 * A composed transition takes these arcs and no others: with the nth one
 * refused the device is found where that one begins.
 */
static void check_path(Fixture *f, const Path *path)
{
    unsigned nr = 0;

    while (nr < G_N_ELEMENTS(path->states) && path->states[nr]) {
        nr++;
    }
    for (unsigned i = 0; i + 1 < nr; i++) {
        go_from_running(f, path->states[0]);
        ts_mig_fail(f->s, &(TsMigFail) {
            .kind = TS_FAIL_REFUSE, .point = TS_AT_ARC,
            .from = path->states[i], .to = path->states[i + 1],
            .error = EBUSY,
        });
        g_assert_cmpint(rc_set_state(f->c, path->states[nr - 1]), ==, EBUSY);
        g_assert_cmpint(rc_get_state(f->c), ==, path->states[i]);
        ts_mig_clear_fails(f->s);
        g_assert_cmpint(rc_set_state(f->c, path->states[nr - 1]), ==, 0);
    }
}

void test_mig_paths(void)
{
    static const Path with_p2p[] = {
        { { RUN, RUNP, STOP } }, { { RUN, RUNP, STOP, SAVE } },
        { { RUN, RUNP, STOP, LOAD } }, { { RUN, PRE, PREP } },
        { { STOP, RUNP, RUN } }, { { STOP, RUNP, RUN, PRE } },
        { { STOP, RUNP, PREP } }, { { SAVE, STOP, RUNP, RUN } },
        { { SAVE, STOP, LOAD } }, { { PRE, PREP, SAVE } },
        { { PRE, RUN, RUNP, STOP } }, { { PREP, RUNP, RUN } },
        { { PREP, RUNP, STOP, LOAD } }, { { RUNP, RUN, PRE } },
    };
    static const Path without[] = {
        { { RUN, STOP } }, { { RUN, STOP, SAVE } }, { { STOP, RUN, PRE } },
        { { SAVE, STOP, RUN } }, { { PRE, SAVE } }, { { PRE, RUN, STOP } },
        { { PRE, RUN, STOP, LOAD } },
    };
    Fixture *f = fixture_negotiated(setup_full, false);

    for (unsigned i = 0; i < G_N_ELEMENTS(with_p2p); i++) {
        check_path(f, &with_p2p[i]);
    }
    fixture_free(f);
    f = fixture_negotiated(setup_no_p2p, false);
    for (unsigned i = 0; i < G_N_ELEMENTS(without); i++) {
        check_path(f, &without[i]);
    }
    fixture_free(f);
}

/* --- The stream --- */

static uint64_t setup_size;
static uint32_t setup_max_read;

static void setup_sized(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, STOP_COPY);

    o->size = setup_size;
    o->max_read = setup_max_read;
}

static Fixture *sized(uint64_t size, uint32_t max_read)
{
    setup_size = size;
    setup_max_read = max_read;
    return fixture_negotiated(setup_sized, false);
}

void test_mig_stream(void)
{
    static const struct { uint32_t size, save, load, max; } cases[] = {
        { 0, 4096, 4096, 0 }, { 1, 1, 1, 0 }, { 39, 7, 5, 0 },
        { 40, 40, 40, 0 }, { 41, 3, 2, 0 }, { 5000, 4999, 1, 0 },
        { 5000, 1, 5000, 0 }, { 100000, 65536, 4096, 333 },
        { 3 << 20, 1 << 20, 1 << 20, 0 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Fixture *a = sized(cases[i].size, cases[i].max);
        Fixture *b = sized(cases[i].size, 0);
        g_autoptr(GByteArray) stream = g_byte_array_new();
        TsMigStats st;

        g_assert_cmpint(rc_set_state(a->c, SAVE), ==, 0);
        g_assert_cmpint(rc_mig_save(a->c, stream, cases[i].save), ==,
                        cases[i].size);
        g_assert_cmpint(rc_mig_read(a->c, 10), ==, 0);
        g_assert_cmpint(rc_set_state(a->c, STOP), ==, 0);
        g_assert_cmpint(rc_mig_read(a->c, 10), ==, -EINVAL);

        g_assert_cmpint(rc_mig_write(b->c, "x", 1), ==, EINVAL);
        g_assert_cmpint(rc_set_state(b->c, LOAD), ==, 0);
        g_assert_cmpint(rc_mig_load(b->c, stream->data, stream->len,
                                    cases[i].load), ==, 0);
        g_assert_cmpint(rc_set_state(b->c, RUN), ==, 0);
        ts_mig_stats(a->s, &st);
        g_assert_cmpint(st.bytes_read, ==, cases[i].size);
        g_assert_cmpint(st.nr_saved, ==, 1);
        ts_mig_stats(b->s, &st);
        g_assert_cmpint(st.bytes_written, ==, cases[i].size);
        g_assert_cmpint(st.nr_loaded, ==, 1);
        fixture_free(a);
        fixture_free(b);
    }
}

/* Not one byte of 1 GiB is kept. Only its end is read here. */
void test_mig_large(void)
{
    Fixture *f = sized(1ull << 30, 0);
    int64_t total = 0;
    int got;

    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    while ((got = rc_mig_read(f->c, 1 << 20)) > 0) {
        total += got;
    }
    g_assert_cmpint(got, ==, 0);
    g_assert_cmpint(total, ==, 1ll << 30);
    fixture_free(f);
}

static GByteArray *save_stream(uint64_t size)
{
    Fixture *f = sized(size, 0);
    GByteArray *stream = g_byte_array_new();

    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_save(f->c, stream, 4096), ==, size);
    fixture_free(f);
    return stream;
}

static void assert_load_error(Fixture *f, const char *text)
{
    g_autofree char *error = ts_mig_load_error(f->s);

    g_assert_cmpstr(error, ==, text);
}

/* Refused when it ends, or at the byte that is wrong; then reset helps. */
static void check_bad_load(const GByteArray *stream, uint64_t size,
                           bool at_write, const char *text)
{
    Fixture *f = sized(size, 0);
    int err;

    g_assert_cmpint(rc_set_state(f->c, LOAD), ==, 0);
    err = rc_mig_load(f->c, stream->data, stream->len, 1000);
    g_assert_cmpint(err, ==, at_write ? EINVAL : 0);
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, EINVAL);
    g_assert_cmpint(rc_get_state(f->c), ==, LOAD);
    assert_load_error(f, text);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, RUN);
    fixture_free(f);
}

void test_mig_bad_stream(void)
{
    g_autoptr(GByteArray) stream = save_stream(5000);
    uint8_t page[1000];

    g_byte_array_set_size(stream, 4999);
    check_bad_load(stream, 5000, false, "the end at byte 4999");
    g_byte_array_set_size(stream, 30);
    check_bad_load(stream, 5000, false, "the end at byte 30");
    g_byte_array_set_size(stream, 0);
    check_bad_load(stream, 5000, false, "the end at byte 0");
    g_byte_array_unref(stream);

    stream = save_stream(5000);
    g_byte_array_append(stream, (const guint8 *)"x", 1);
    check_bad_load(stream, 5000, false, "more than the state at byte 5000");
    stream->data[3210] ^= 4;
    check_bad_load(stream, 5000, true, "a wrong byte at byte 3208");
    stream->data[3210] ^= 4;
    stream->data[24] ^= 1;      /* the seed: what the checksum is for */
    check_bad_load(stream, 5000, true, "a wrong checksum at byte 40");
    stream->data[24] ^= 1;
    stream->data[0] ^= 1;
    check_bad_load(stream, 5000, true, "no record at byte 0");
    stream->data[0] ^= 1;

    memcpy(page, stream->data + 1000, sizeof(page));
    memcpy(stream->data + 1000, stream->data + 2000, sizeof(page));
    memcpy(stream->data + 2000, page, sizeof(page));
    check_bad_load(stream, 5000, true, "a wrong byte at byte 1000");
    g_byte_array_unref(stream);

    stream = save_stream(20);
    check_bad_load(stream, 21, false, "the end at byte 20");
    check_bad_load(stream, 0, false, "the end at byte 20");
}

void test_mig_bad_requests(void)
{
    Fixture *f = sized(1 << 20, 0);
    uint32_t head[3] = { 8, 0, 0 };
    uint8_t *big = g_malloc0((1 << 20) + 1);

    g_assert_cmpint(rc_mig_read(f->c, 16), ==, -EINVAL);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, (1 << 20) + 1), ==, -E2BIG);
    g_assert_cmpint(rc_mig_read(f->c, 0), ==, -EINVAL);
    g_assert_cmpint(rc_call(f->c, 17, head, 4), ==, EINVAL);
    g_assert_cmpint(rc_call(f->c, 17, head, 12), ==, EINVAL);
    g_assert_cmpint(rc_mig_write(f->c, "x", 1), ==, EINVAL);
    g_assert_cmpint(rc_set_state(f->c, LOAD), ==, 0);
    head[0] = 12;
    head[1] = 3;
    g_assert_cmpint(rc_call(f->c, 18, head, 12), ==, EINVAL);
    head[0] = 8;
    head[1] = 4;
    g_assert_cmpint(rc_call(f->c, 18, head, 12), ==, EINVAL);
    g_assert_cmpint(rc_mig_write(f->c, big, (1 << 20) + 1), ==, E2BIG);
    g_assert_cmpint(rc_mig_read(f->c, 16), ==, -EINVAL);
    g_free(big);
    fixture_free(f);
}

static void setup_precopy(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, STOP_COPY | P2P | PRE_COPY);

    o->size = 2000;
    o->precopy = 10000;
    o->per_read = 500;
    o->data_size = true;
}

static uint64_t data_size(RawClient *c)
{
    uint64_t size;

    g_assert_cmpint(rc_feature(c, 9 | 1 << 16, NULL, 0, 16), ==, 0);
    memcpy(&size, c->payload + 8, 8);
    return size;
}

/* Initial bytes, then 500 after each read that found nothing. */
void test_mig_precopy(void)
{
    Fixture *a = fixture_negotiated(setup_precopy, false);
    Fixture *b = fixture_negotiated(setup_precopy, false);
    g_autoptr(GByteArray) stream = g_byte_array_new();

    g_assert_cmpint(data_size(a->c), ==, 2000);
    g_assert_cmpint(rc_set_state(a->c, PRE), ==, 0);
    g_assert_cmpint(data_size(a->c), ==, 12000);
    g_assert_cmpint(rc_mig_save(a->c, stream, 4096), ==, 10000);
    g_assert_cmpint(data_size(a->c), ==, 2500);
    g_assert_cmpint(rc_mig_save(a->c, stream, 4096), ==, 500);
    g_assert_cmpint(rc_set_state(a->c, PREP), ==, 0);
    g_assert_cmpint(rc_mig_save(a->c, stream, 100), ==, 500);
    /* In the middle of a record; the rest of it comes after the stop. */
    g_assert_cmpint(rc_mig_read(a->c, 100), ==, 100);
    g_byte_array_append(stream, a->c->payload + 8, 100);
    g_assert_cmpint(rc_set_state(a->c, SAVE), ==, 0);
    g_assert_cmpint(data_size(a->c), ==, 2400);
    g_assert_cmpint(rc_mig_save(a->c, stream, 333), ==, 2400);
    g_assert_cmpint(rc_mig_read(a->c, 333), ==, 0);
    g_assert_cmpint(data_size(a->c), ==, 0);

    g_assert_cmpint(rc_set_state(b->c, LOAD), ==, 0);
    g_assert_cmpint(rc_mig_load(b->c, stream->data, stream->len, 777), ==, 0);
    g_assert_cmpint(rc_set_state(b->c, RUNP), ==, 0);

    /* A second attempt starts from the beginning. */
    g_assert_cmpint(rc_set_state(a->c, RUN), ==, 0);
    g_assert_cmpint(rc_set_state(a->c, PRE), ==, 0);
    g_assert_cmpint(rc_mig_save(a->c, NULL, 4096), ==, 10000);
    fixture_free(a);
    fixture_free(b);
}

static void setup_per_second(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, STOP_COPY | PRE_COPY);

    o->per_second = 1 << 20;
}

void test_mig_per_second(void)
{
    Fixture *f = fixture_negotiated(setup_per_second, false);
    int64_t begin = g_get_monotonic_time(), total = 0;

    g_assert_cmpint(rc_set_state(f->c, PRE), ==, 0);
    while (total < 10000 && g_get_monotonic_time() < begin + 5000000) {
        int got = rc_mig_read(f->c, 1 << 20);

        g_assert_cmpint(got, >=, 0);
        total += got;
    }
    g_assert_cmpint(total, >=, 10000);
    /* It is not faster than it says. */
    g_assert_cmpint(total, <=, (g_get_monotonic_time() - begin) * 2);
    fixture_free(f);
}

static void setup_every_read(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, STOP_COPY | PRE_COPY);

    o->precopy = 1000;
    o->every_read = 100;
}

void test_mig_every_read(void)
{
    Fixture *f = fixture_negotiated(setup_every_read, false);

    g_assert_cmpint(rc_set_state(f->c, PRE), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 1100);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 100);
    }
    fixture_free(f);
}

/* The client goes in the middle; the next one finds it so, and resets. */
void test_mig_come_back(void)
{
    Fixture *f = sized(100000, 0);

    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, 5000), ==, 5000);
    rc_free(f->c);
    g_assert(ts_wait_connected(f->s, false));
    f->c = rc_connect(f->path);
    g_assert_cmpint(rc_negotiate(f->c, NULL, false), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, SAVE);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert(ts_mig_wait_state(f->s, RUN));
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_save(f->c, NULL, 4096), ==, 100000);
    fixture_free(f);
}

static void setup_like_libvfio_user(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, STOP_COPY | PRE_COPY);

    ts_like_libvfio_user(s);
    o->size = 5000;
    o->logging = true;
}

/* What it refuses while the device is stopped, and what it does not */
static void check_stopped(Fixture *f, int error)
{
    uint32_t irqs[4] = { 16, 0, VFIO_USER_IRQ_MSIX, 0 }, word;

    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, error);
    g_assert_cmpint(rc_map(f->c, 0x100000, 0x1000, -1, 0), ==, error);
    g_assert_cmpint(rc_unmap(f->c, 0x100000, 0x1000), ==, error);
    g_assert_cmpint(rc_set_irqs(f->c, 0x21, VFIO_USER_IRQ_MSIX, 0, 0, NULL, 0),
                    ==, error);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_GET_IRQ_INFO, irqs,
                            sizeof(irqs)), ==, error);
    g_assert_cmpint(rc_read(f->c, 7, 0, &word, 4), ==, 0);
    g_assert_cmpint(rc_write(f->c, 7, 0x3c, &word, 1), ==, 0);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
}

void test_mig_like_libvfio_user(void)
{
    Fixture *f = fixture_negotiated(setup_like_libvfio_user, false);
    uint32_t head[2] = { 8 + 4096, 4096 };

    check_stopped(f, 0);
    g_assert_cmpint(rc_map(f->c, 0x100000, 0x1000, -1, 0), ==, 0);
    g_assert_cmpint(rc_unmap(f->c, 0x100000, 0x1000), ==, 0);
    g_assert_cmpint(f->c->len, ==, 0);
    /* Logging goes on, whatever the ranges are, but in the same pages. */
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    g_assert_cmpint(rc_log_start(f->c, 8192), ==, EINVAL);

    g_assert_cmpint(rc_set_state(f->c, STOP), ==, 0);
    check_stopped(f, EINVAL);
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, 0);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    check_stopped(f, EINVAL);

    /* Replies have the length that was asked for. */
    g_assert_cmpint(rc_call(f->c, 17, head, sizeof(head)), ==, 0);
    g_assert_cmpint(f->c->len, ==, 8 + 4096);
    g_assert_cmpint(rc_call(f->c, 17, head, sizeof(head)), ==, 0);
    g_assert_cmpint(f->c->len, ==, 8 + 4096);
    memcpy(head, f->c->payload, sizeof(head));
    g_assert_cmpint(head[1], ==, 5000 - 4096);
    g_assert_cmpint(f->c->payload[8 + 5000 - 4096], ==, 0);

    /* A reset succeeds where it is allowed, and keeps the state. */
    g_assert_cmpint(rc_set_state(f->c, LOAD), ==, 0);
    check_stopped(f, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, LOAD);
    rc_free(f->c);
    g_assert(ts_wait_connected(f->s, false));
    f->c = rc_connect(f->path);
    g_assert_cmpint(rc_negotiate(f->c, NULL, false), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, LOAD);
    fixture_free(f);
}
