/*
 * vfio-user: what is said on the sockets, in a file for Wireshark
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Without a connection: what is said is said by the tests.
 */

#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qapi/error.h"
#include "vfio-user-recording.h"

/* Blocks ---------------------------------------------------------------- */

static void test_blocks(void)
{
    RecFile *f = rec_new_socket();
    g_autofree uint8_t *out = rec_make(1, 33), *in = rec_make(1, 18);
    const uint8_t *block;
    RecPacket p[2];
    uint16_t len;

    rec_say(f->sock, out, 33, 2);
    rec_hear(f->sock, in, 18, 3);
    vfio_user_record_socket_free(f->sock);
    vfio_user_record_finish(f->rec, PEER_DEADLINE_MS);
    rec_load(f);

    block = rec_next(f, REC_SECTION);
    g_assert_cmphex(rec_u32(block + 8), ==, 0x1a2b3c4d);
    g_assert_cmpuint(lduw_he_p(block + 12), ==, 1);
    g_assert_cmpuint(lduw_he_p(block + 14), ==, 0);
    g_assert_cmphex(ldq_he_p(block + 16), ==, UINT64_MAX);
    g_assert_nonnull(rec_option(block, 24, 4, &len));

    rec_interface(f, "dev 1");
    block = f->data + f->at - rec_u32(f->data + f->at - 4);
    g_assert_cmpuint(rec_u32(block + 12), ==, REC_PREFIX + 65536);
    /* In nanoseconds */
    g_assert_cmpuint(*rec_option(block, 16, 9, &len), ==, 9);
    g_assert_cmpuint(len, ==, 1);

    p[0] = rec_expect(f, 0, 2, out, 33);
    p[1] = rec_expect(f, 1, 3, in, 18);
    g_assert_cmpuint(p[0].interface + p[1].interface, ==, 0);
    g_assert_cmpuint(p[0].time, <=, p[1].time);
    g_assert_cmpuint(p[1].time / 1000000000 - time(NULL) + 60, <, 120);
    rec_end_socket(f, 2);
}

static void test_interfaces(void)
{
    RecFile *f = rec_new("x");
    VFIOUserRecordSocket *sock[3];
    g_autofree uint8_t *msg = rec_make(1, 16);

    sock[0] = vfio_user_record_socket_new(f->rec, false);
    sock[1] = vfio_user_record_socket_new(f->rec, true);
    rec_hear(sock[1], msg, 16, 0);
    rec_say(sock[0], msg, 16, 0);
    vfio_user_record_socket_free(sock[0]);
    vfio_user_record_socket_free(sock[1]);
    /* The server has come back; without a second socket. */
    sock[2] = vfio_user_record_socket_new(f->rec, false);
    rec_say(sock[2], msg, 16, 0);
    rec_begin(f);

    rec_interface(f, "x 1 twin");
    g_assert_cmpuint(rec_expect(f, 3, 0, msg, 16).interface, ==, 0);
    rec_interface(f, "x 1");
    g_assert_cmpuint(rec_expect(f, 0, 0, msg, 16).interface, ==, 1);
    rec_statistics(f, 1, 1, 0);
    rec_statistics(f, 0, 1, 0);
    rec_interface(f, "x 2");
    g_assert_cmpuint(rec_expect(f, 0, 0, msg, 16).interface, ==, 2);
    rec_statistics(f, 2, 1, 0);
    vfio_user_record_socket_free(sock[2]);
    rec_end(f);
}

/* Messages -------------------------------------------------------------- */

/* Cut at every byte, and put together again */
static void test_split(void)
{
    g_autofree uint8_t *msg = rec_make(7, 40);

    for (size_t at = 1; at < 40; at++) {
        RecFile *f = rec_new_socket();

        rec_hear(f->sock, msg, at, 1);
        rec_hear(f->sock, msg + at, 40 - at, 2);
        rec_say(f->sock, msg, at, 4);
        rec_say(f->sock, msg + at, 40 - at, 0);
        rec_begin_socket(f);
        rec_expect(f, 1, 3, msg, 40);
        rec_expect(f, 0, 4, msg, 40);
        rec_end_socket(f, 2);
    }
}

/* Descriptors belong to the message that holds the last byte of a receive. */
static void test_several(void)
{
    RecFile *f = rec_new_socket();
    g_autofree uint8_t *first = rec_make(1, 24), *second = rec_make(2, 50);
    struct iovec iov[3] = {
        { first, 24 }, { second, 17 }, { second + 17, 33 },
    };

    vfio_user_record_received(f->sock, iov, 3, 24 + 17, 2);
    rec_hear(f->sock, second + 17, 33, 1);
    rec_begin_socket(f);
    rec_expect(f, 1, 0, first, 24);
    rec_expect(f, 1, 3, second, 50);
    rec_end_socket(f, 2);
}

/* What the socket did not take is not there, until it is. */
static void test_nothing_sent(void)
{
    RecFile *f = rec_new_socket();
    g_autofree uint8_t *msg = rec_make(1, 24);
    struct iovec iov = { msg, 24 };

    vfio_user_record_send_begin(f->sock);
    vfio_user_record_send_end(f->sock, &iov, 1, -EAGAIN, 1);
    vfio_user_record_send_begin(f->sock);
    vfio_user_record_send_end(f->sock, &iov, 1, 24, 1);
    rec_begin_socket(f);
    rec_expect(f, 0, 1, msg, 24);
    rec_end_socket(f, 1);
}

static void test_large(void)
{
    RecFile *f = rec_new_socket();
    size_t len = 3 * 65536 + 1;
    g_autofree uint8_t *large = rec_make(1, len), *next = rec_make(2, 65536);
    RecPacket p;

    rec_say(f->sock, large, 65537, 0);
    rec_say(f->sock, large + 65537, len - 65537, 0);
    rec_say(f->sock, next, 65536, 0);
    rec_begin_socket(f);
    p = rec_packet(f);
    g_assert_cmpuint(p.original, ==, REC_PREFIX + len);
    g_assert_cmpmem(p.message, p.captured - REC_PREFIX, large, 65536);
    rec_expect(f, 0, 0, next, 65536);
    rec_end_socket(f, 2);
}

/* The connection ends in the middle of a message, and of a header. */
static void test_cut(void)
{
    RecFile *f = rec_new_socket();
    g_autofree uint8_t *msg = rec_make(1, 100);
    RecPacket p;

    rec_say(f->sock, msg, 60, 1);
    rec_hear(f->sock, msg, 9, 0);
    rec_begin_socket(f);
    p = rec_packet(f);
    g_assert_cmpuint(p.original, ==, REC_PREFIX + 100);
    g_assert_cmpmem(p.message, p.captured - REC_PREFIX, msg, 60);
    rec_check_text(p.block, p.options, 1, "the connection ended here");
    p = rec_packet(f);
    g_assert_cmpuint(p.original, ==, REC_PREFIX + 9);
    g_assert_cmpmem(p.message, p.captured - REC_PREFIX, msg, 9);
    rec_end_socket(f, 2);
}

/* A header that cannot be is kept; where the next one begins nobody knows. */
static void test_lost(void)
{
    RecFile *f = rec_new_socket();
    g_autofree uint8_t *msg = rec_make(1, 32), *next = rec_make(2, 16);

    memset(msg + 4, 0, 4);
    msg[4] = 15;
    rec_hear(f->sock, msg, 32, 0);
    rec_hear(f->sock, next, 16, 0);
    rec_say(f->sock, next, 16, 0);
    rec_begin_socket(f);
    rec_expect(f, 1, 0, msg, 16);
    rec_expect(f, 0, 0, next, 16);
    rec_end_socket(f, 2);
}

static void test_after_finish(void)
{
    RecFile *f = rec_new_socket();
    g_autofree uint8_t *msg = rec_make(1, 16);

    rec_say(f->sock, msg, 16, 0);
    rec_begin(f);
    rec_say(f->sock, msg, 16, 0);
    rec_begin_socket(f);
    rec_expect(f, 0, 0, msg, 16);
    rec_end_socket(f, 1);
}

/* The file -------------------------------------------------------------- */

/* What is said is in the file soon, and not only when all is over. */
static void test_soon(void)
{
    RecFile *f = rec_new_socket();
    gint64 end = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;
    g_autofree uint8_t *msg = rec_make(1, 64);
    struct stat st;

    rec_say(f->sock, msg, 64, 0);
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_assert_cmpint(stat(f->path, &st), ==, 0);
        g_usleep(1000);
    } while (st.st_size < 64);
    rec_load(f);
    rec_next(f, REC_SECTION);
    rec_interface(f, "dev 1");
    rec_expect(f, 0, 0, msg, 64);
    vfio_user_record_socket_free(f->sock);
    rec_free(f);
}

static void check_refused(const char *path, const char *text)
{
    Error *err = NULL;

    g_assert_null(vfio_user_record_new(path, "dev", &err));
    if (!strstr(error_get_pretty(err), text)) {
        g_test_message("'%s' not in '%s'", text, error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

static void test_refused(void)
{
    RecFile *f = rec_new("dev");
    g_autofree char *other = g_strdup_printf("%s/other", f->dir);

    check_refused("/nowhere/at/all", "No such file");
    check_refused(f->dir, "directory");
    check_refused("/dev/null", "is not a file");
    /* As long as the first recording goes on */
    check_refused(f->path, "another recording");
    g_assert_cmpint(symlink(f->path, other), ==, 0);
    check_refused(other, "symbolic link");
    unlink(other);
    /* Nobody looks on. */
    g_assert_cmpint(mkfifo(other, 0600), ==, 0);
    check_refused(other, "No such device");
    unlink(other);
    rec_free(f);
}

/* What was in the file goes, and nobody else may read what comes. */
static void test_private(void)
{
    RecFile *f = rec_new("dev");
    struct stat st;

    g_assert_cmpint(stat(f->path, &st), ==, 0);
    g_assert_cmphex(st.st_mode, ==, S_IFREG | 0600);
    vfio_user_record_finish(f->rec, PEER_DEADLINE_MS);
    vfio_user_record_unref(f->rec);
    g_assert_true(g_file_set_contents(f->path, "what was there before", -1,
                                      NULL));
    g_assert_cmpint(chmod(f->path, 0666), ==, 0);
    f->rec = vfio_user_record_new(f->path, "dev", &error_abort);
    g_assert_cmpint(stat(f->path, &st), ==, 0);
    g_assert_cmphex(st.st_mode, ==, S_IFREG | 0600);
    rec_begin(f);
    rec_end(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/record/" name, func)
    T("blocks", test_blocks);
    T("interfaces", test_interfaces);
    T("split", test_split);
    T("several", test_several);
    T("nothing-sent", test_nothing_sent);
    T("large", test_large);
    T("cut", test_cut);
    T("lost", test_lost);
    T("after-finish", test_after_finish);
    T("soon", test_soon);
    T("refused", test_refused);
    T("private", test_private);
#undef T

    return g_test_run();
}
