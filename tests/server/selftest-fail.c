/*
 * vfio-user test server: self test of failures on demand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "selftest.h"
#include "server-migration.h"

enum { ERR, STOP, RUN, SAVE, LOAD, RUNP, PRE, PREP };

static void setup_failing(TestServer *s)
{
    TsMigOptions *o = ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY |
                                          VFIO_USER_MIGRATION_P2P);

    o->size = 10000;
    o->logging = true;
}

static Fixture *failing(const TsMigFail *fail)
{
    Fixture *f = fixture_negotiated(setup_failing, false);

    ts_mig_fail(f->s, fail);
    return f;
}

#define FAIL(kind_, point_, ...) &(TsMigFail) { \
        .kind = TS_FAIL_##kind_, .point = TS_AT_##point_, __VA_ARGS__ }
#define ARC(from_, to_)     .from = from_, .to = to_

static void send_state(Fixture *f, uint32_t state)
{
    uint32_t msg[4] = { 16, 2 | 1 << 17, state, 0 };

    rc_send(f->c, 16, 0, msg, sizeof(msg), NULL, 0);
}

static bool has_reply(Fixture *f)
{
    struct pollfd pfd = { f->c->fd, POLLIN, 0 };

    return poll(&pfd, 1, 0) == 1;
}

void test_fail_refuse(void)
{
    Fixture *f = failing(FAIL(REFUSE, ARC, ARC(STOP, SAVE), .error = EBUSY,
                              .skip = 1, .times = 2));

    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_set_state(f->c, RUN), ==, 0);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, EBUSY);
    g_assert_cmpint(rc_get_state(f->c), ==, STOP);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, EBUSY);
    g_assert_cmpint(ts_mig_nr_failed(f->s), ==, 2);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    fixture_free(f);

    f = failing(FAIL(REFUSE, ARC));
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, EIO);
    g_assert_cmpint(rc_set_state(f->c, RUN), ==, 0);    /* no arc at all */
    ts_mig_clear_fails(f->s);
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, 0);
    fixture_free(f);
}

void test_fail_error(void)
{
    Fixture *f = failing(FAIL(ERROR, ARC, ARC(RUNP, STOP), .error = EPERM));

    g_assert_cmpint(rc_set_state(f->c, STOP), ==, EPERM);
    g_assert_cmpint(rc_get_state(f->c), ==, ERR);
    g_assert_cmpint(rc_set_state(f->c, RUN), ==, EINVAL);
    g_assert_cmpint(rc_call(f->c, VFIO_USER_DEVICE_RESET, NULL, 0), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, RUN);
    fixture_free(f);

    /* The transition goes well, and then the device breaks down. */
    f = failing(FAIL(ERROR, STATE, .to = SAVE));
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, 0);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, ERR);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, -EINVAL);
    fixture_free(f);

    f = fixture_negotiated(setup_failing, false);
    ts_mig_break(f->s);
    g_assert_cmpint(rc_set_state(f->c, STOP), ==, EINVAL);
    fixture_free(f);
}

/* Reads end before the byte; the read that is due to have it fails. */
void test_fail_read(void)
{
    Fixture *f = failing(FAIL(REFUSE, READ, .byte = 5000, .times = 1));

    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 4096);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 904);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, -EIO);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 4096);
    fixture_free(f);

    f = failing(FAIL(ERROR, READ, .byte = 0));
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, -EIO);
    g_assert_cmpint(rc_get_state(f->c), ==, ERR);
    fixture_free(f);

    /* At the end of the stream in place of its end */
    f = failing(FAIL(REFUSE, READ, .byte = 10000));
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_save(f->c, NULL, 4096), ==, -EIO);
    fixture_free(f);
}

void test_fail_write(void)
{
    Fixture *f = failing(FAIL(ERROR, WRITE, .byte = 6000, .error = ENOSPC));
    Fixture *from = fixture_negotiated(setup_failing, false);
    g_autoptr(GByteArray) stream = g_byte_array_new();

    g_assert_cmpint(rc_set_state(from->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_save(from->c, stream, 4096), ==, 10000);
    g_assert_cmpint(rc_set_state(f->c, LOAD), ==, 0);
    g_assert_cmpint(rc_mig_write(f->c, stream->data, 6000), ==, 0);
    g_assert_cmpint(rc_mig_write(f->c, stream->data + 6000, 1), ==, ENOSPC);
    g_assert_cmpint(rc_get_state(f->c), ==, ERR);
    fixture_free(from);
    fixture_free(f);
}

void test_fail_logging(void)
{
    Fixture *f = failing(FAIL(REFUSE, LOG_START, .times = 1));

    ts_mig_fail(f->s, FAIL(REFUSE, LOG_STOP, .times = 1));
    ts_mig_fail(f->s, FAIL(REFUSE, LOG_REPORT, .error = ENOMEM));
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, EIO);
    g_assert_cmpint(rc_log_start(f->c, 4096), ==, 0);
    /* A report that would be refused anyway is no failure of this kind. */
    g_assert_cmpint(rc_log_report(f->c, 0, 4096, 4096), ==, EINVAL);
    g_assert_cmpint(rc_log_stop(f->c), ==, EIO);
    g_assert_cmpint(rc_log_stop(f->c), ==, 0);
    g_assert_cmpint(ts_mig_nr_failed(f->s), ==, 2);
    fixture_free(f);
}

/* No reply, no transition; what comes later is served. */
void test_fail_hang(void)
{
    Fixture *f = failing(FAIL(HANG, ARC, ARC(STOP, SAVE), .times = 1));

    send_state(f, SAVE);
    g_assert_cmpint(rc_get_state(f->c), ==, STOP);
    g_assert(!has_reply(f));
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    fixture_free(f);
}

/* Nothing is served; once let go, the server does what was asked. */
void test_fail_stall(void)
{
    Fixture *f = failing(FAIL(STALL, ARC, ARC(STOP, SAVE), .times = 1));

    send_state(f, SAVE);
    g_assert(ts_mig_wait_failed(f->s, 1));
    g_assert_cmpint(ts_mig_state(f->s), ==, STOP);
    g_assert(!has_reply(f));
    ts_unstall(f->s);
    g_assert(rc_receive(f->c));
    g_assert_cmpint(rc_get_state(f->c), ==, SAVE);
    fixture_free(f);

    /* The client goes while the server stands still. */
    f = failing(FAIL(STALL, ARC, .to = STOP));
    send_state(f, STOP);
    g_assert(ts_mig_wait_failed(f->s, 1));
    rc_free(f->c);
    g_assert(ts_wait_connected(f->s, false));
    f->c = rc_connect(f->path);
    g_assert_cmpint(rc_negotiate(f->c, NULL, false), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, STOP);
    /* And so does the test. */
    ts_mig_fail(f->s, FAIL(STALL, ARC, .to = SAVE));
    send_state(f, SAVE);
    g_assert(ts_mig_wait_failed(f->s, 2));
    fixture_free(f);
}

void test_fail_close(void)
{
    Fixture *f = failing(FAIL(CLOSE, READ, .byte = 100, .times = 1));

    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, 0);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, 100);
    g_assert_cmpint(rc_mig_read(f->c, 4096), ==, -EPROTO);
    g_assert(ts_wait_connected(f->s, false));
    rc_free(f->c);
    f->c = rc_connect(f->path);
    g_assert_cmpint(rc_negotiate(f->c, NULL, false), ==, 0);
    g_assert_cmpint(rc_get_state(f->c), ==, SAVE);
    fixture_free(f);
}

/* Requests that every lie is about, and all that comes back. */
static GByteArray *transcript(const TsMischief *lie)
{
    Fixture *f = fixture_negotiated(setup_failing, false);
    GByteArray *all = g_byte_array_new();
    int fd = memfd_create("guest", MFD_CLOEXEC);
    uint8_t byte = 0;

    g_assert(fd >= 0 && ftruncate(fd, 0x10000) == 0);
    g_assert_cmpint(rc_map(f->c, 0x10000, 0x10000, fd, 0), ==, 0);
    close(fd);
    if (lie) {
        ts_mig_lie(f->s, lie, 0, 0);
    }
    for (unsigned step = 0; step < 6; step++) {
        switch (step) {
        case 0:
            rc_log_start(f->c, 4096);
            break;
        case 1:
            rc_log_report(f->c, 0x10000, 0x10000, 4096);
            break;
        case 2:
            rc_set_state(f->c, SAVE);
            break;
        case 3:
            rc_mig_read(f->c, 100);
            break;
        case 4:
            rc_set_state(f->c, LOAD);
            break;
        default:
            rc_mig_write(f->c, &byte, 1);
            break;
        }
        f->c->hdr.flags |= f->c->nr_fds << 16;
        g_byte_array_append(all, (guint8 *)&f->c->hdr, sizeof(f->c->hdr));
        g_byte_array_append(all, f->c->payload, f->c->len);
    }
    fixture_free(f);
    return all;
}

/* Each lie changes a reply. */
void test_fail_lies(void)
{
    g_autoptr(GByteArray) honest = transcript(NULL);
    g_autoptr(GByteArray) again = transcript(NULL);

    g_assert(honest->len == again->len &&
             !memcmp(honest->data, again->data, honest->len));
    for (unsigned i = 0; i < ts_nr_mig_lies; i++) {
        const TsMischief *lie = &ts_mig_lies[i];
        g_autoptr(GByteArray) told = transcript(lie);

        g_assert(ts_mig_lie_find(lie->name) == lie);
        if (told->len == honest->len &&
            !memcmp(told->data, honest->data, told->len)) {
            g_error("%s changes nothing", lie->name);
        }
    }
}

/* Moves are about one feature, and reach the stream's messages. */
void test_fail_moves(void)
{
    Fixture *f = fixture_negotiated(setup_failing, false);

    ts_add_move(f->s, &(TsMove) {
        .kind = TS_MOVE_PATCH, .command = VFIO_USER_DEVICE_FEATURE,
        .index = 2, .times = 1, .a = 8, .b = 77,
    });
    ts_add_move(f->s, &(TsMove) {
        .kind = TS_MOVE_PAD, .command = VFIO_USER_MIG_DATA_READ, .index = -1,
        .times = 1, .a = 1,
    });
    g_assert_cmpint(rc_feature(f->c, 1 | 1 << 16, NULL, 0, 16), ==, 0);
    g_assert_cmpint(rc_set_state(f->c, SAVE), ==, -1);
    g_assert_cmpint(rc_get_state(f->c), ==, SAVE);
    g_assert_cmpint(rc_mig_read(f->c, 64), ==, -EPROTO);
    g_assert_cmpint(rc_mig_read(f->c, 64), ==, 64);
    fixture_free(f);
}
