/*
 * vfio-user: what is said on the sockets, in a file for Wireshark
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets and numbers of pcapng are typed in from its description, and those of
 * the head in front of each message from what the dissector takes apart.
 */

#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qapi/error.h"
#include "qemu/iov.h"
#include "hw/vfio-user/record.h"
#include "vfio-user-rig.h"

/* Block types */
#define SECTION     0x0a0d0d0a
#define INTERFACE   1
#define STATISTICS  5
#define PACKET      6

/* In front of each message: 16 bytes name the dissector, 4 end that, 4 more */
#define PREFIX      24

typedef struct File {
    VFIOUserRecord *rec;
    char *dir;
    char *path;
    uint8_t *data;
    gsize len;
    gsize at;
} File;

static File *file_new(const char *name)
{
    File *f = g_new0(File, 1);

    f->dir = g_dir_make_tmp("vfio-user-record-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "file", NULL);
    f->rec = vfio_user_record_new(f->path, name, &error_abort);
    return f;
}

static void file_free(File *f)
{
    vfio_user_record_finish(f->rec, PEER_DEADLINE_MS);
    vfio_user_record_unref(f->rec);
    unlink(f->path);
    g_assert_cmpint(rmdir(f->dir), ==, 0);
    g_free(f->data);
    g_free(f->dir);
    g_free(f->path);
    g_free(f);
}

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* The next block; it must be of @type. */
static const uint8_t *file_next(File *f, uint32_t type)
{
    const uint8_t *block = f->data + f->at;
    uint32_t len;

    g_assert_cmpuint(f->at + 12, <=, f->len);
    len = get32(block + 4);
    g_assert_cmphex(get32(block), ==, type);
    g_assert_cmpuint(len % 4, ==, 0);
    g_assert_cmpuint(f->at + len, <=, f->len);
    g_assert_cmpuint(get32(block + len - 4), ==, len);
    f->at += len;
    return block;
}

/* The option @code among those at @off of @block: its value, or NULL. */
static const uint8_t *option(const uint8_t *block, size_t off, uint16_t code,
                             uint16_t *len)
{
    *len = 0;
    while (get16(block + off) != code) {
        if (!get16(block + off)) {
            return NULL;
        }
        off += 4 + ROUND_UP(get16(block + off + 2), 4);
    }
    *len = get16(block + off + 2);
    return block + off + 4;
}

static void check_text(const uint8_t *block, size_t off, uint16_t code,
                       const char *text)
{
    uint16_t len;
    const uint8_t *value = option(block, off, code, &len);

    g_assert_nonnull(value);
    g_assert_cmpmem(value, len, text, strlen(text));
}

static void check_number(const uint8_t *block, size_t off, uint16_t code,
                         uint64_t number)
{
    uint16_t len;
    const uint8_t *value = option(block, off, code, &len);

    g_assert_nonnull(value);
    g_assert_cmpuint(len, ==, 8);
    g_assert_cmpuint(get64(value), ==, number);
}

static void file_load(File *f)
{
    g_free(f->data);
    g_assert_true(g_file_get_contents(f->path, (char **)&f->data, &f->len,
                                      NULL));
    f->at = 0;
}

/* Everything is written: read it, up to behind the section's block. */
static void file_begin(File *f)
{
    vfio_user_record_finish(f->rec, PEER_DEADLINE_MS);
    file_load(f);
    file_next(f, SECTION);
}

static void file_end(File *f)
{
    g_assert_cmpuint(f->at, ==, f->len);
    file_free(f);
}

static void file_interface(File *f, const char *name)
{
    const uint8_t *block = file_next(f, INTERFACE);

    /* WIRESHARK_UPPER_PDU */
    g_assert_cmpuint(get16(block + 8), ==, 252);
    check_text(block, 16, 2, name);
}

typedef struct Packet {
    uint32_t interface;
    uint64_t time;
    uint32_t captured;
    uint32_t original;
    const uint8_t *head;
    const uint8_t *message;
    const uint8_t *block;
    size_t options;
} Packet;

static Packet file_packet(File *f)
{
    static const uint8_t tags[20] = "\0\x0c\0\x0cvfio_user\0\0\0\0\0\0";
    const uint8_t *block = file_next(f, PACKET);
    Packet p = {
        .block = block,
        .interface = get32(block + 8),
        .time = (uint64_t)get32(block + 12) << 32 | get32(block + 16),
        .captured = get32(block + 20),
        .original = get32(block + 24),
        .head = block + 48,
        .message = block + 52,
    };

    g_assert_cmpmem(block + 28, 20, tags, 20);
    g_assert_cmpuint(p.head[0], ==, 1);
    p.options = 28 + ROUND_UP(p.captured, 4);
    return p;
}

/* The next packet is all of @msg, with @flags of the head. */
static Packet file_expect(File *f, unsigned flags, unsigned nr_fds,
                          const void *msg, size_t len)
{
    Packet p = file_packet(f);
    uint16_t option_len;
    const uint8_t *direction = option(p.block, p.options, 2, &option_len);

    g_assert_cmpuint(p.head[1], ==, flags);
    g_assert_cmpuint(p.head[2], ==, nr_fds);
    g_assert_cmpmem(p.message, p.captured - PREFIX, msg, len);
    g_assert_cmpuint(p.original, ==, PREFIX + len);
    /* 1: inbound, 2: outbound */
    g_assert_cmpuint(get32(direction), ==, flags & 1 ? 1 : 2);
    return p;
}

static void file_statistics(File *f, unsigned interface, uint64_t received,
                            uint64_t dropped)
{
    const uint8_t *block = file_next(f, STATISTICS);

    g_assert_cmpuint(get32(block + 8), ==, interface);
    check_number(block, 20, 4, received);
    check_number(block, 20, 5, dropped);
}

static void say(VFIOUserRecordSocket *sock, const void *msg, size_t len,
                unsigned nr_fds)
{
    struct iovec iov = { (void *)msg, len };

    vfio_user_record_send_begin(sock);
    vfio_user_record_send_end(sock, &iov, 1, len, nr_fds);
}

static void hear(VFIOUserRecordSocket *sock, const void *msg, size_t len,
                 unsigned nr_fds)
{
    struct iovec iov = { (void *)msg, len };

    vfio_user_record_received(sock, &iov, 1, len, nr_fds);
}

/* A message of @len bytes, header included, that looks like no other. */
static uint8_t *make(uint16_t id, size_t len)
{
    g_autofree uint8_t *payload = g_malloc(len);

    peer_pattern(payload, len - 16, id);
    return peer_make(id, CMD_REGION_READ, PEER_COMMAND, 0, payload, len - 16);
}

/* Blocks ---------------------------------------------------------------- */

static void test_blocks(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    g_autofree uint8_t *out = make(1, 33), *in = make(1, 18);
    const uint8_t *block;
    Packet p[2];
    uint16_t len;

    say(sock, out, 33, 2);
    hear(sock, in, 18, 3);
    vfio_user_record_socket_free(sock);
    vfio_user_record_finish(f->rec, PEER_DEADLINE_MS);
    file_load(f);

    block = file_next(f, SECTION);
    g_assert_cmphex(get32(block + 8), ==, 0x1a2b3c4d);
    g_assert_cmpuint(get16(block + 12), ==, 1);
    g_assert_cmpuint(get16(block + 14), ==, 0);
    g_assert_cmphex(get64(block + 16), ==, UINT64_MAX);
    g_assert_nonnull(option(block, 24, 4, &len));

    file_interface(f, "dev 1");
    block = f->data + f->at - get32(f->data + f->at - 4);
    g_assert_cmpuint(get32(block + 12), ==, PREFIX + 65536);
    /* In nanoseconds */
    g_assert_cmpuint(*option(block, 16, 9, &len), ==, 9);
    g_assert_cmpuint(len, ==, 1);

    p[0] = file_expect(f, 0, 2, out, 33);
    p[1] = file_expect(f, 1, 3, in, 18);
    g_assert_cmpuint(p[0].interface + p[1].interface, ==, 0);
    g_assert_cmpuint(p[0].time, <=, p[1].time);
    g_assert_cmpuint(p[1].time / 1000000000 - time(NULL) + 60, <, 120);
    file_statistics(f, 0, 2, 0);
    file_end(f);
}

static void test_interfaces(void)
{
    File *f = file_new("x");
    VFIOUserRecordSocket *sock[3];
    g_autofree uint8_t *msg = make(1, 16);

    sock[0] = vfio_user_record_socket_new(f->rec, false);
    sock[1] = vfio_user_record_socket_new(f->rec, true);
    hear(sock[1], msg, 16, 0);
    say(sock[0], msg, 16, 0);
    vfio_user_record_socket_free(sock[0]);
    vfio_user_record_socket_free(sock[1]);
    /* The server has come back; without a second socket. */
    sock[2] = vfio_user_record_socket_new(f->rec, false);
    say(sock[2], msg, 16, 0);
    file_begin(f);

    file_interface(f, "x 1 twin");
    g_assert_cmpuint(file_expect(f, 3, 0, msg, 16).interface, ==, 0);
    file_interface(f, "x 1");
    g_assert_cmpuint(file_expect(f, 0, 0, msg, 16).interface, ==, 1);
    file_statistics(f, 1, 1, 0);
    file_statistics(f, 0, 1, 0);
    file_interface(f, "x 2");
    g_assert_cmpuint(file_expect(f, 0, 0, msg, 16).interface, ==, 2);
    file_statistics(f, 2, 1, 0);
    vfio_user_record_socket_free(sock[2]);
    file_end(f);
}

/* Messages -------------------------------------------------------------- */

/* Cut at every byte, and put together again */
static void test_split(void)
{
    g_autofree uint8_t *msg = make(7, 40);

    for (size_t at = 1; at < 40; at++) {
        File *f = file_new("dev");
        VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, 0);

        hear(sock, msg, at, 1);
        hear(sock, msg + at, 40 - at, 2);
        say(sock, msg, at, 4);
        say(sock, msg + at, 40 - at, 0);
        vfio_user_record_socket_free(sock);
        file_begin(f);
        file_interface(f, "dev 1");
        file_expect(f, 1, 3, msg, 40);
        file_expect(f, 0, 4, msg, 40);
        file_statistics(f, 0, 2, 0);
        file_end(f);
    }
}

/* Descriptors belong to the message that holds the last byte of a receive. */
static void test_several(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    g_autofree uint8_t *first = make(1, 24), *second = make(2, 50);
    struct iovec iov[3] = {
        { first, 24 }, { second, 17 }, { second + 17, 33 },
    };

    vfio_user_record_received(sock, iov, 3, 24 + 17, 2);
    hear(sock, second + 17, 33, 1);
    vfio_user_record_socket_free(sock);
    file_begin(f);
    file_interface(f, "dev 1");
    file_expect(f, 1, 0, first, 24);
    file_expect(f, 1, 3, second, 50);
    file_statistics(f, 0, 2, 0);
    file_end(f);
}

/* What the socket did not take is not there, until it is. */
static void test_nothing_sent(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    g_autofree uint8_t *msg = make(1, 24);
    struct iovec iov = { msg, 24 };

    vfio_user_record_send_begin(sock);
    vfio_user_record_send_end(sock, &iov, 1, -EAGAIN, 1);
    vfio_user_record_send_begin(sock);
    vfio_user_record_send_end(sock, &iov, 1, 24, 1);
    vfio_user_record_socket_free(sock);
    file_begin(f);
    file_interface(f, "dev 1");
    file_expect(f, 0, 1, msg, 24);
    file_statistics(f, 0, 1, 0);
    file_end(f);
}

static void test_large(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    size_t len = 3 * 65536 + 1;
    g_autofree uint8_t *large = make(1, len), *next = make(2, 65536);
    Packet p;

    say(sock, large, 65537, 0);
    say(sock, large + 65537, len - 65537, 0);
    say(sock, next, 65536, 0);
    vfio_user_record_socket_free(sock);
    file_begin(f);
    file_interface(f, "dev 1");
    p = file_packet(f);
    g_assert_cmpuint(p.original, ==, PREFIX + len);
    g_assert_cmpmem(p.message, p.captured - PREFIX, large, 65536);
    file_expect(f, 0, 0, next, 65536);
    file_statistics(f, 0, 2, 0);
    file_end(f);
}

/* The connection ends in the middle of a message, and of a header. */
static void test_cut(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    g_autofree uint8_t *msg = make(1, 100);
    Packet p;

    say(sock, msg, 60, 1);
    hear(sock, msg, 9, 0);
    vfio_user_record_socket_free(sock);
    file_begin(f);
    file_interface(f, "dev 1");
    p = file_packet(f);
    g_assert_cmpuint(p.original, ==, PREFIX + 100);
    g_assert_cmpmem(p.message, p.captured - PREFIX, msg, 60);
    check_text(p.block, p.options, 1, "the connection ended here");
    p = file_packet(f);
    g_assert_cmpuint(p.original, ==, PREFIX + 9);
    g_assert_cmpmem(p.message, p.captured - PREFIX, msg, 9);
    file_statistics(f, 0, 2, 0);
    file_end(f);
}

/* A header that cannot be is kept; where the next one begins nobody knows. */
static void test_lost(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    g_autofree uint8_t *msg = make(1, 32), *next = make(2, 16);

    memset(msg + 4, 0, 4);
    msg[4] = 15;
    hear(sock, msg, 32, 0);
    hear(sock, next, 16, 0);
    say(sock, next, 16, 0);
    vfio_user_record_socket_free(sock);
    file_begin(f);
    file_interface(f, "dev 1");
    file_expect(f, 1, 0, msg, 16);
    file_expect(f, 0, 0, next, 16);
    file_statistics(f, 0, 2, 0);
    file_end(f);
}

static void test_after_finish(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    g_autofree uint8_t *msg = make(1, 16);

    say(sock, msg, 16, 0);
    file_begin(f);
    say(sock, msg, 16, 0);
    vfio_user_record_socket_free(sock);
    file_begin(f);
    file_interface(f, "dev 1");
    file_expect(f, 0, 0, msg, 16);
    file_statistics(f, 0, 1, 0);
    file_end(f);
}

/* The file -------------------------------------------------------------- */

/* What is said is in the file soon, and not only when all is over. */
static void test_soon(void)
{
    File *f = file_new("dev");
    VFIOUserRecordSocket *sock = vfio_user_record_socket_new(f->rec, false);
    gint64 end = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;
    g_autofree uint8_t *msg = make(1, 64);
    struct stat st;

    say(sock, msg, 64, 0);
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_assert_cmpint(stat(f->path, &st), ==, 0);
        g_usleep(1000);
    } while (st.st_size < 64);
    file_load(f);
    file_next(f, SECTION);
    file_interface(f, "dev 1");
    file_expect(f, 0, 0, msg, 64);
    vfio_user_record_socket_free(sock);
    file_free(f);
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
    File *f = file_new("dev");
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
    file_free(f);
}

/* What was in the file goes, and nobody else may read what comes. */
static void test_private(void)
{
    File *f = file_new("dev");
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
    file_begin(f);
    file_end(f);
}

/* The disk stands still ------------------------------------------------- */

/* A reader that reads nothing until it is told */
typedef struct Slow {
    char *path;
    int fd;
    VFIOUserRecord *rec;
    VFIOUserRecordSocket *sock;
    GByteArray *got;
    PeerThread thread;
} Slow;

static void slow_begin(Slow *s, const File *f)
{
    *s = (Slow) { .path = g_strdup_printf("%s/fifo", f->dir) };
    g_assert_cmpint(mkfifo(s->path, 0600), ==, 0);
    s->fd = open(s->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    g_assert_cmpint(s->fd, >=, 0);
    g_assert_true(g_unix_set_fd_nonblocking(s->fd, false, NULL));
    s->rec = vfio_user_record_new(s->path, "dev", &error_abort);
    s->sock = vfio_user_record_socket_new(s->rec, false);
    s->got = g_byte_array_new();
}

static void slow_read(void *opaque)
{
    Slow *s = opaque;
    g_autofree uint8_t *buf = g_malloc(65536);
    ssize_t len;

    while ((len = read(s->fd, buf, 65536)) > 0) {
        g_byte_array_append(s->got, buf, len);
    }
}

static void slow_end(Slow *s)
{
    vfio_user_record_socket_free(s->sock);
    vfio_user_record_finish(s->rec, PEER_DEADLINE_MS);
    vfio_user_record_unref(s->rec);
    close(s->fd);
    unlink(s->path);
    g_free(s->path);
    g_byte_array_unref(s->got);
}

/*
 * More is said than waits for the disk: nobody waits, the rest is left out, and
 * the next packet and the end tell how much. Of the two buffers one is being
 * written, so both together are too small for this.
 */
static void test_full(void)
{
    File *f = file_new("dev");
    unsigned nr = 2 * VFIO_USER_RECORD_QUEUE / 65536 + 2;
    g_autofree uint8_t *msg = make(1, 65536), *last = make(2, 16);
    uint64_t kept = 0, dropped = 0;
    Packet p;
    Slow s;

    slow_begin(&s, f);
    for (unsigned i = 0; i < nr; i++) {
        say(s.sock, msg, 65536, 0);
    }
    peer_thread_start(&s.thread, slow_read, &s);
    /* Until there is room again */
    do {
        say(s.sock, last, 16, 0);
        nr++;
        g_usleep(1000);
    } while (qatomic_read(&s.got->len) < VFIO_USER_RECORD_QUEUE);
    say(s.sock, last, 16, 0);
    nr++;
    vfio_user_record_finish(s.rec, PEER_DEADLINE_MS);
    peer_thread_join(&s.thread);

    f->data = g_memdup2(s.got->data, s.got->len);
    f->len = s.got->len;
    file_next(f, SECTION);
    file_interface(f, "dev 1");
    while (get32(f->data + f->at) == PACKET) {
        uint16_t len;
        const uint8_t *option_value;

        p = file_packet(f);
        kept++;
        option_value = option(p.block, p.options, 4, &len);
        if (option_value) {
            dropped += get64(option_value);
        }
    }
    g_assert_cmpuint(dropped, >, 0);
    g_assert_cmpuint(kept + dropped, ==, nr);
    file_statistics(f, 0, nr, dropped);
    slow_end(&s);
    file_end(f);
}

/* A reader that never reads holds up the end, but not for ever. */
static void test_stuck(void)
{
    File *f = file_new("dev");
    g_autofree uint8_t *msg = make(1, 65536);
    Slow s;

    slow_begin(&s, f);
    for (unsigned i = 0; i < 4; i++) {
        say(s.sock, msg, 65536, 0);
    }
    vfio_user_record_finish(s.rec, 10);
    vfio_user_record_socket_free(s.sock);
    vfio_user_record_unref(s.rec);
    /* Nobody is left but the thread that writes: it ends by itself. */
    peer_thread_start(&s.thread, slow_read, &s);
    peer_thread_join(&s.thread);
    g_assert_cmpuint(s.got->len, >, 4 * 65536);
    s.sock = NULL;
    s.rec = NULL;
    slow_end(&s);
    file_free(f);
}

/* The reader leaves: one warning, and life goes on. */
static void test_broken(void)
{
    g_autofree uint8_t *msg = make(1, 65536);
    File *f = file_new("dev");
    g_autofree char *log = g_build_filename(f->dir, "log", NULL);
    g_autofree char *text = NULL;
    int fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int was = dup(STDERR_FILENO);
    Slow s;

    slow_begin(&s, f);
    close(s.fd);
    g_assert_cmpint(dup2(fd, STDERR_FILENO), ==, STDERR_FILENO);
    for (unsigned i = 0; i < 300; i++) {
        say(s.sock, msg, 65536, 0);
    }
    vfio_user_record_finish(s.rec, PEER_DEADLINE_MS);
    s.fd = fd;
    slow_end(&s);
    g_assert_cmpint(dup2(was, STDERR_FILENO), ==, STDERR_FILENO);
    close(was);

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_true(g_pattern_match_simple("*vfio-user-pci dev: the recording "
                                         "'*fifo' ends early: Broken pipe\n",
                                         text));
    g_assert_false(g_pattern_match_simple("*early*early*", text));
    unlink(log);
    file_free(f);
}

/* A connection ---------------------------------------------------------- */

/*
 * What is received straight into the caller's memory and into guest memory, and
 * what is sent from there.
 */
static void test_connection(void)
{
    File *f = file_new("dev");
    Rig *rig = rig_new(peer_pair);
    size_t len = 20000;
    g_autofree uint8_t *read = NULL, *reply = NULL, *dma = NULL;
    g_autofree uint8_t *args = NULL, *data = g_malloc(len);
    PeerMessage msg;
    size_t reply_len;
    Call call;
    Packet p;

    vfio_user_conn_set_record(rig->conn,
                              vfio_user_record_socket_new(f->rec, false));
    rig_start(rig);
    call_init(&call, rig, 123, len);
    call_submit(&call);
    call_peer_get(&call, &msg);
    read = peer_make(msg.id, msg.command, msg.flags, 0, msg.payload, msg.len);
    reply = call_peer_make(&call, &msg, &reply_len);
    peer_send_bytes(rig->peer, reply, reply_len);
    call_wait_good(&call);
    rig_send_dma(rig, 9, CMD_DMA_WRITE, 4096, len, 5);
    rig_expect_dma(rig, 9, CMD_DMA_WRITE, 4096, len, 5);
    peer_drop(&msg);
    call_free(&call);
    rig_free(rig);

    peer_pattern(data, len, 5);
    args = peer_make_dma(RIG_RAM + 4096, len, data, len);
    dma = peer_make(9, CMD_DMA_WRITE, PEER_COMMAND, 0, args, 16 + len);
    file_begin(f);
    file_interface(f, "dev 1");
    p = file_expect(f, 0, 0, read, 32);
    g_assert_cmpuint(file_expect(f, 1, 0, reply, reply_len).time, >=, p.time);
    file_expect(f, 1, 0, dma, 32 + len);
    p = file_packet(f);
    g_assert_cmpuint(p.head[1], ==, 0);
    g_assert_cmpuint(p.original, ==, PREFIX + 32);
    g_assert_cmpuint(get16(p.message), ==, 9);
    file_statistics(f, 0, 4, 0);
    file_end(f);
}

/* Threads of a load; each reads as often as this */
#define LOAD_THREADS    3
#define LOAD_READS      60

typedef struct Load {
    Rig *rig;
    unsigned nr;
    PeerThread thread;
} Load;

static void load_read(void *opaque)
{
    Load *load = opaque;

    for (unsigned i = 0; i < LOAD_READS; i++) {
        Call call;

        call_init(&call, load->rig, load->nr * 1000 + i, 1 + i * 331);
        call_submit(&call);
        call_wait_good(&call);
        call_free(&call);
    }
}

/* Every seventh read has a command of the peer's own before its reply. */
static void load_answer(void *opaque)
{
    Rig *rig = opaque;

    for (unsigned i = 0; i < LOAD_THREADS * LOAD_READS; i++) {
        Call call = { .rig = rig };
        PeerMessage msg;

        peer_get(rig->peer, &msg);
        while (msg.flags & PEER_REPLY) {
            peer_drop(&msg);
            peer_get(rig->peer, &msg);
        }
        if (i % 7 == 0) {
            rig_send_dma(rig, i, CMD_DMA_WRITE, 4096, 50 * i, i);
        }
        call.off = get64(msg.payload);
        call.count = get32(msg.payload + 12);
        call_peer_answer(&call, &msg);
        peer_drop(&msg);
    }
}

/*
 * Many threads, and a socket that takes and gives messages piece by piece: all
 * of them are there, each command before its reply, none earlier than the one
 * in front of it.
 */
static void test_load(void)
{
    File *f = file_new("dev");
    Rig *rig = rig_new(peer_small_pair);
    g_autofree uint64_t *asked = g_new0(uint64_t, 0x10000);
    unsigned nr[2] = { 0 }, nr_dma[2] = { 0 };
    Load load[LOAD_THREADS];
    uint64_t before = 0;
    PeerThread peer;

    vfio_user_conn_set_record(rig->conn,
                              vfio_user_record_socket_new(f->rec, false));
    rig_start(rig);
    peer_thread_start(&peer, load_answer, rig);
    for (unsigned i = 0; i < LOAD_THREADS; i++) {
        load[i] = (Load) { .rig = rig, .nr = i };
        peer_thread_start(&load[i].thread, load_read, &load[i]);
    }
    for (unsigned i = 0; i < LOAD_THREADS; i++) {
        peer_thread_join(&load[i].thread);
    }
    peer_thread_join(&peer);
    rig_free(rig);

    file_begin(f);
    file_interface(f, "dev 1");
    while (get32(f->data + f->at) == PACKET) {
        Packet p = file_packet(f);
        bool reply = p.message[8] & PEER_REPLY;
        uint16_t id = get16(p.message);

        if (get16(p.message + 2) == CMD_DMA_WRITE) {
            nr_dma[reply]++;
        } else if (reply) {
            g_assert_cmpuint(p.time, >=, asked[id]);
            g_assert_cmpuint(asked[id], !=, 0);
            g_assert_cmpuint(get32(p.message + 28) + 32 + PREFIX, ==,
                             p.captured);
            peer_check_pattern(p.message + 32, p.captured - PREFIX - 32,
                               get64(p.message + 16));
            nr[1]++;
        } else {
            asked[id] = p.time;
            nr[0]++;
        }
        g_assert_cmpuint(p.time, >=, before);
        before = p.time;
    }
    g_assert_cmpuint(nr[0], ==, LOAD_THREADS * LOAD_READS);
    g_assert_cmpuint(nr[1], ==, nr[0]);
    g_assert_cmpuint(nr_dma[0], ==, DIV_ROUND_UP(nr[0], 7));
    g_assert_cmpuint(nr_dma[1], <=, nr_dma[0]);
    file_statistics(f, 0, nr[0] + nr[1] + nr_dma[0] + nr_dma[1], 0);
    file_end(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* One of the tests looks at what is said there. */
    g_unsetenv("QTEST_SILENT_ERRORS");
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
    T("full", test_full);
    T("stuck", test_stuck);
    T("broken", test_broken);
    T("connection", test_connection);
    T("load", test_load);

    return g_test_run();
}
