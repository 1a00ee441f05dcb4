/*
 * vfio-user: a recording that has much to do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Of a whole connection, and to a file that is not written as fast as things
 * are said.
 */

#include "qemu/osdep.h"
#include <sys/stat.h>
#include "qapi/error.h"
#include "vfio-user-recording.h"

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

static void slow_begin(Slow *s, const RecFile *f)
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
    RecFile *f = rec_new("dev");
    unsigned nr = 2 * VFIO_USER_RECORD_QUEUE / 65536 + 2;
    g_autofree uint8_t *msg = rec_make(1, 65536), *last = rec_make(2, 16);
    uint64_t kept = 0, dropped = 0;
    RecPacket p;
    Slow s;

    slow_begin(&s, f);
    for (unsigned i = 0; i < nr; i++) {
        rec_say(s.sock, msg, 65536, 0);
    }
    peer_thread_start(&s.thread, slow_read, &s);
    /* Until there is room again */
    do {
        rec_say(s.sock, last, 16, 0);
        nr++;
        g_usleep(1000);
    } while (qatomic_read(&s.got->len) < VFIO_USER_RECORD_QUEUE);
    rec_say(s.sock, last, 16, 0);
    nr++;
    vfio_user_record_finish(s.rec, PEER_DEADLINE_MS);
    peer_thread_join(&s.thread);

    f->data = g_memdup2(s.got->data, s.got->len);
    f->len = s.got->len;
    rec_next(f, REC_SECTION);
    rec_interface(f, "dev 1");
    while (rec_u32(f->data + f->at) == REC_PACKET) {
        uint16_t len;
        const uint8_t *option_value;

        p = rec_packet(f);
        kept++;
        option_value = rec_option(p.block, p.options, 4, &len);
        if (option_value) {
            dropped += ldq_he_p(option_value);
        }
    }
    g_assert_cmpuint(dropped, >, 0);
    g_assert_cmpuint(kept + dropped, ==, nr);
    rec_statistics(f, 0, nr, dropped);
    slow_end(&s);
    rec_end(f);
}

/* A reader that never reads holds up the end, but not for ever. */
static void test_stuck(void)
{
    RecFile *f = rec_new("dev");
    g_autofree uint8_t *msg = rec_make(1, 65536);
    Slow s;

    slow_begin(&s, f);
    for (unsigned i = 0; i < 4; i++) {
        rec_say(s.sock, msg, 65536, 0);
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
    rec_free(f);
}

/* The reader leaves: one warning, and life goes on. */
static void test_broken(void)
{
    g_autofree uint8_t *msg = rec_make(1, 65536);
    RecFile *f = rec_new("dev");
    g_autofree char *log = g_build_filename(f->dir, "log", NULL);
    g_autofree char *text = NULL;
    int fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int was = dup(STDERR_FILENO);
    Slow s;

    slow_begin(&s, f);
    close(s.fd);
    g_assert_cmpint(dup2(fd, STDERR_FILENO), ==, STDERR_FILENO);
    for (unsigned i = 0; i < 300; i++) {
        rec_say(s.sock, msg, 65536, 0);
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
    rec_free(f);
}

/* A connection ---------------------------------------------------------- */

/*
 * What is received straight into the caller's memory and into guest memory, and
 * what is sent from there.
 */
static void test_connection(void)
{
    RecFile *f = rec_new("dev");
    Rig *rig = rig_new(peer_pair);
    size_t len = 20000;
    g_autofree uint8_t *read = NULL, *reply = NULL, *dma = NULL;
    g_autofree uint8_t *args = NULL, *data = g_malloc(len);
    PeerMessage msg;
    size_t reply_len;
    Call call;
    RecPacket p;

    vfio_user_conn_set_record(rig->conn,
                              vfio_user_record_socket_new(f->rec, false));
    rig_start(rig);
    call_begin(&call, rig, 123, len, &msg);
    read = peer_make(msg.id, msg.command, msg.flags, 0, msg.payload, msg.len);
    reply = call_peer_make(&call, &msg, &reply_len);
    peer_send_bytes(rig->peer, reply, reply_len);
    call_wait_good(&call);
    rig_send_dma(rig, 9, CMD_DMA_WRITE, 4096, len, 5);
    rig_expect_dma(rig, 9, CMD_DMA_WRITE, 4096, len, 5);
    call_end(&call, &msg);
    rig_free(rig);

    peer_pattern(data, len, 5);
    args = peer_make_dma(RIG_RAM + 4096, len, data, len);
    dma = peer_make(9, CMD_DMA_WRITE, PEER_COMMAND, 0, args, 16 + len);
    rec_begin(f);
    rec_interface(f, "dev 1");
    p = rec_expect(f, 0, 0, read, 32);
    g_assert_cmpuint(rec_expect(f, 1, 0, reply, reply_len).time, >=, p.time);
    rec_expect(f, 1, 0, dma, 32 + len);
    p = rec_packet(f);
    g_assert_cmpuint(p.head[1], ==, 0);
    g_assert_cmpuint(p.original, ==, REC_PREFIX + 32);
    g_assert_cmpuint(lduw_he_p(p.message), ==, 9);
    rec_end_socket(f, 4);
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
        call.off = ldq_he_p(msg.payload);
        call.count = rec_u32(msg.payload + 12);
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
    RecFile *f = rec_new("dev");
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

    rec_begin(f);
    rec_interface(f, "dev 1");
    while (rec_u32(f->data + f->at) == REC_PACKET) {
        RecPacket p = rec_packet(f);
        bool reply = p.message[8] & PEER_REPLY;
        uint16_t id = lduw_he_p(p.message);

        if (lduw_he_p(p.message + 2) == CMD_DMA_WRITE) {
            nr_dma[reply]++;
        } else if (reply) {
            g_assert_cmpuint(p.time, >=, asked[id]);
            g_assert_cmpuint(asked[id], !=, 0);
            g_assert_cmpuint(rec_u32(p.message + 28) + 32 + REC_PREFIX, ==,
                             p.captured);
            peer_check_pattern(p.message + 32, p.captured - REC_PREFIX - 32,
                               ldq_he_p(p.message + 16));
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
    rec_end_socket(f, nr[0] + nr[1] + nr_dma[0] + nr_dma[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* One of the tests looks at what is said there. */
    g_unsetenv("QTEST_SILENT_ERRORS");
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/record/" name, func)
    T("full", test_full);
    T("stuck", test_stuck);
    T("broken", test_broken);
    T("connection", test_connection);
    T("load", test_load);
#undef T

    return g_test_run();
}
