/*
 * vfio-user: what is said on the sockets, in a file for Wireshark
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The recorder stands beside the channel (chan.c) and sees the bytes that the
 * socket took or gave, whoever sent or received them and wherever they lie.
 * From these it puts the messages together again by itself. So what is in the
 * file is what was on the wire, also where the client refused it, dropped it or
 * did not get to the end of it; and the engine knows nothing of it.
 *
 * The file is pcapng (pcapng.c). Each socket of each connection is an
 * interface, so a server that comes back begins new ones.
 *
 * Nobody waits for the disk. Complete blocks are put into a buffer under a
 * lock; a thread takes the whole buffer, leaves an empty one and writes. It
 * looks by itself ten times a second, and is woken only when a buffer is half
 * full, since a wake-up for each message would cost more than all the rest.
 * What a full buffer has no room for is left out, counted, and told with the
 * next packet. After an error of the file everything is left out.
 *
 * Rejected: writing from where messages are sent (a disk would stop the guest);
 * a lock for each socket (a command must be in the file before its reply, and
 * one clock must count for both).
 */

#include "qemu/osdep.h"
#include <sys/file.h>
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/vfio-user/wire.h"
#include "pcapng.h"
#include "record.h"

#define WRITE_PERIOD_MS     100

/**
 * RecordStream: one direction of a socket, under the recording's lock
 * @buf: what is kept of the message that is under way; @len bytes
 * @got: bytes of it that were seen
 * @size: all of it; 0: its header is not complete
 * @nr_fds: descriptors that came with it so far
 * @time_ns: when it began
 * @lost: where the next message begins is not known
 */
typedef struct RecordStream {
    uint8_t *buf;
    size_t len;
    size_t got;
    size_t size;
    unsigned nr_fds;
    int64_t time_ns;
    bool lost;
} RecordStream;

/**
 * VFIOUserRecordSocket: under the recording's lock
 * @nr: of the connection, from 1
 * @interface: number in the file; -1: not there yet
 * @nr_recorded, @nr_dropped: messages
 * @untold: those of @nr_dropped that no packet has told of
 */
struct VFIOUserRecordSocket {
    VFIOUserRecord *rec;
    bool twin;
    unsigned nr;
    int interface;
    RecordStream out;
    RecordStream in;
    uint64_t nr_recorded;
    uint64_t nr_dropped;
    uint64_t untold;
};

/**
 * VFIOUserRecord
 * @refcnt: atomic; those of the owners. Nobody waits for the thread for ever,
 *     so whoever is the last to be done, owners or thread, frees.
 * @path, @name, @offset_ns: set once
 * @fd: the thread's
 * The rest under @lock:
 * @fill: blocks that wait
 * @spare: the thread's, when it is not @fill's turn
 * @nr_interfaces, @nr_connections: so far
 * @sockets: those that there are
 * @closing: the thread is to write what is there and end
 * @closed: it has, and so has the file
 * @orphan: there are no owners any more
 * @broken: the file takes no more
 */
struct VFIOUserRecord {
    unsigned refcnt;
    char *path;
    char *name;
    int fd;
    int64_t offset_ns;

    QemuMutex lock;
    QemuCond wake;
    QemuCond done;
    GByteArray *fill;
    GByteArray *spare;
    unsigned nr_interfaces;
    unsigned nr_connections;
    GPtrArray *sockets;
    bool closing;
    bool closed;
    bool orphan;
    bool broken;
};

/* The queue ------------------------------------------------------------- */

/* Time of day at the beginning, and from then on a clock that nobody sets. */
static int64_t record_now(const VFIOUserRecord *rec)
{
    return rec->offset_ns + get_clock();
}

static bool record_has_room(const VFIOUserRecord *rec, size_t len)
{
    return rec->fill->len + len + VFIO_USER_PCAPNG_ROOM <=
           VFIO_USER_RECORD_QUEUE;
}

/* An interface counts from its first message that there is room for. */
static void record_introduce(VFIOUserRecordSocket *sock)
{
    VFIOUserRecord *rec = sock->rec;
    g_autofree char *name = NULL;

    if (sock->interface < 0) {
        name = g_strdup_printf("%s %u%s", rec->name, sock->nr,
                               sock->twin ? " twin" : "");
        sock->interface = rec->nr_interfaces++;
        vfio_user_pcapng_interface(rec->fill, name, VFIO_USER_RECORD_SNAP);
    }
}

static void record_append(VFIOUserRecordSocket *sock, const RecordStream *s)
{
    VFIOUserPcapngPacket packet = {
        .interface = sock->interface,
        .time_ns = s->time_ns,
        .inbound = s == &sock->in,
        .twin = sock->twin,
        .nr_fds = s->nr_fds,
        .data = s->buf,
        .len = s->len,
        .size = MAX(s->size, s->got),
        .dropped = sock->untold,
        .comment = s->got < s->size ? "the connection ended here" : NULL,
    };

    vfio_user_pcapng_packet(sock->rec->fill, &packet);
    sock->nr_recorded++;
    sock->untold = 0;
}

/* The message in @s is complete, or will never be. */
static void record_message(VFIOUserRecordSocket *sock, RecordStream *s)
{
    VFIOUserRecord *rec = sock->rec;

    if (rec->closing || rec->broken) {
        /* nothing to be told of it either */
    } else if (!record_has_room(rec, s->len)) {
        sock->nr_dropped++;
        sock->untold++;
    } else {
        record_introduce(sock);
        record_append(sock, s);
        if (rec->fill->len > VFIO_USER_RECORD_QUEUE / 2) {
            qemu_cond_signal(&rec->wake);
        }
    }
    s->len = s->got = s->size = s->nr_fds = 0;
}

/* Messages -------------------------------------------------------------- */

/* How many bytes to look at next: to the end of the header, of the message */
static size_t record_want(const RecordStream *s)
{
    return (s->size ? s->size : sizeof(struct vfio_user_header)) - s->got;
}

/* @len bytes at @off of @iov, within what record_want() said */
static void record_take(RecordStream *s, const struct iovec *iov,
                        unsigned nr_iov, size_t off, size_t len)
{
    size_t keep = MIN(len, VFIO_USER_RECORD_SNAP - s->len);
    struct vfio_user_header hdr;

    iov_to_buf(iov, nr_iov, off, s->buf + s->len, keep);
    s->len += keep;
    s->got += len;
    if (!s->size && s->got == sizeof(hdr)) {
        memcpy(&hdr, s->buf, sizeof(hdr));
        s->lost = hdr.size < sizeof(hdr);
        s->size = s->lost ? sizeof(hdr) : hdr.size;
    }
}

static void record_feed(VFIOUserRecordSocket *sock, RecordStream *s,
                        const struct iovec *iov, unsigned nr_iov, size_t len,
                        unsigned nr_fds, int64_t now)
{
    size_t off = 0;

    while (off < len && !s->lost) {
        size_t part = MIN(record_want(s), len - off);

        if (!s->got) {
            s->time_ns = now;
        }
        if (off + part == len) {
            s->nr_fds += nr_fds;
        }
        record_take(s, iov, nr_iov, off, part);
        off += part;
        if (s->got == s->size) {
            /* A command counts from its beginning, what came from its end. */
            s->time_ns = s == &sock->in ? now : s->time_ns;
            record_message(sock, s);
        }
    }
}

void vfio_user_record_send_begin(VFIOUserRecordSocket *sock)
{
    qemu_mutex_lock(&sock->rec->lock);
    if (!sock->out.got) {
        sock->out.time_ns = record_now(sock->rec);
    }
}

void vfio_user_record_send_end(VFIOUserRecordSocket *sock,
                               const struct iovec *iov, unsigned nr_iov,
                               ssize_t len, unsigned nr_fds)
{
    if (len > 0) {
        record_feed(sock, &sock->out, iov, nr_iov, len, nr_fds,
                    sock->out.time_ns);
    }
    qemu_mutex_unlock(&sock->rec->lock);
}

void vfio_user_record_received(VFIOUserRecordSocket *sock,
                               const struct iovec *iov, unsigned nr_iov,
                               size_t len, unsigned nr_fds)
{
    QEMU_LOCK_GUARD(&sock->rec->lock);
    record_feed(sock, &sock->in, iov, nr_iov, len, nr_fds,
                record_now(sock->rec));
}

VFIOUserRecordSocket *vfio_user_record_socket_new(VFIOUserRecord *rec,
                                                  bool twin)
{
    VFIOUserRecordSocket *sock = g_new0(VFIOUserRecordSocket, 1);

    sock->rec = vfio_user_record_ref(rec);
    sock->twin = twin;
    sock->interface = -1;
    sock->out.buf = g_malloc(VFIO_USER_RECORD_SNAP);
    sock->in.buf = g_malloc(VFIO_USER_RECORD_SNAP);
    QEMU_LOCK_GUARD(&rec->lock);
    sock->nr = twin ? rec->nr_connections : ++rec->nr_connections;
    g_ptr_array_add(rec->sockets, sock);
    return sock;
}

/* What has begun, and how many messages there were. */
static void record_conclude(VFIOUserRecordSocket *sock)
{
    VFIOUserRecord *rec = sock->rec;

    if (sock->out.got) {
        record_message(sock, &sock->out);
    }
    if (sock->in.got) {
        record_message(sock, &sock->in);
    }
    if (sock->interface >= 0 && !rec->broken && record_has_room(rec, 0)) {
        vfio_user_pcapng_statistics(rec->fill, sock->interface,
                                    record_now(rec),
                                    sock->nr_recorded + sock->nr_dropped,
                                    sock->nr_dropped);
    }
}

void vfio_user_record_socket_free(VFIOUserRecordSocket *sock)
{
    VFIOUserRecord *rec;

    if (!sock) {
        return;
    }
    rec = sock->rec;
    WITH_QEMU_LOCK_GUARD(&rec->lock) {
        if (!rec->closing) {
            record_conclude(sock);
        }
        g_ptr_array_remove(rec->sockets, sock);
    }
    g_free(sock->out.buf);
    g_free(sock->in.buf);
    g_free(sock);
    vfio_user_record_unref(rec);
}

/* The file -------------------------------------------------------------- */

/* Write what is there. Called and returns with the lock, not held meanwhile. */
static void record_write_locked(VFIOUserRecord *rec)
{
    GByteArray *full = rec->fill;
    bool bad = rec->broken;

    rec->fill = rec->spare;
    qemu_mutex_unlock(&rec->lock);
    if (!bad && qemu_write_full(rec->fd, full->data, full->len) != full->len) {
        warn_report("vfio-user-pci %s: the recording '%s' ends early: %s",
                    rec->name, rec->path, strerror(errno));
        bad = true;
    }
    g_byte_array_set_size(full, 0);
    qemu_mutex_lock(&rec->lock);
    rec->spare = full;
    rec->broken = bad;
}

static void record_free(VFIOUserRecord *rec)
{
    g_byte_array_unref(rec->fill);
    g_byte_array_unref(rec->spare);
    g_ptr_array_unref(rec->sockets);
    qemu_cond_destroy(&rec->wake);
    qemu_cond_destroy(&rec->done);
    qemu_mutex_destroy(&rec->lock);
    g_free(rec->path);
    g_free(rec->name);
    g_free(rec);
}

static void *record_thread(void *opaque)
{
    VFIOUserRecord *rec = opaque;
    bool orphan;

    qemu_mutex_lock(&rec->lock);
    while (!rec->closing || rec->fill->len) {
        if (rec->fill->len <= VFIO_USER_RECORD_QUEUE / 2 && !rec->closing) {
            qemu_cond_timedwait(&rec->wake, &rec->lock, WRITE_PERIOD_MS);
        }
        if (rec->fill->len) {
            record_write_locked(rec);
        }
    }
    close(rec->fd);
    rec->closed = true;
    orphan = rec->orphan;
    qemu_cond_broadcast(&rec->done);
    qemu_mutex_unlock(&rec->lock);
    if (orphan) {
        record_free(rec);
    }
    return NULL;
}

/*
 * Whoever wrote the file before, and whoever could read it, cannot any more. A
 * FIFO is for those who want to look on, and is not waited for.
 */
static bool record_prepare(int fd, const char *path, Error **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0 ||
        (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))) {
        error_setg(errp, "Could not record to '%s': it is not a file", path);
        return false;
    }
    if (S_ISFIFO(st.st_mode)) {
        return g_unix_set_fd_nonblocking(fd, false, NULL);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        error_setg(errp, "Could not record to '%s': another recording is "
                   "being written there", path);
        return false;
    }
    /* One that was handed over is the business of whoever did. */
    if ((!strstart(path, "/dev/fdset/", NULL) &&
         fchmod(fd, S_IRUSR | S_IWUSR) < 0) || ftruncate(fd, 0) < 0) {
        error_setg_errno(errp, errno, "Could not record to '%s'", path);
        return false;
    }
    return true;
}

static int record_open(const char *path, Error **errp)
{
    ERRP_GUARD();
    int fd = qemu_create(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                         S_IRUSR | S_IWUSR, errp);

    if (fd < 0) {
        if (errno == ELOOP) {
            error_append_hint(errp, "A symbolic link is not followed.\n");
        }
        return -1;
    }
    if (!record_prepare(fd, path, errp)) {
        close(fd);
        return -1;
    }
    return fd;
}

VFIOUserRecord *vfio_user_record_new(const char *path, const char *name,
                                     Error **errp)
{
    VFIOUserRecord *rec;
    QemuThread thread;
    int fd = record_open(path, errp);

    if (fd < 0) {
        return NULL;
    }
    rec = g_new0(VFIOUserRecord, 1);
    rec->refcnt = 1;
    rec->path = g_strdup(path);
    rec->name = g_strdup(name);
    rec->fd = fd;
    rec->offset_ns = g_get_real_time() * 1000 - get_clock();
    rec->fill = g_byte_array_new();
    rec->spare = g_byte_array_new();
    rec->sockets = g_ptr_array_new();
    qemu_mutex_init(&rec->lock);
    qemu_cond_init(&rec->wake);
    qemu_cond_init(&rec->done);
    vfio_user_pcapng_section(rec->fill, name);
    qemu_thread_create(&thread, "vfio-user-rec", record_thread, rec,
                       QEMU_THREAD_DETACHED);
    return rec;
}

VFIOUserRecord *vfio_user_record_ref(VFIOUserRecord *rec)
{
    qatomic_inc(&rec->refcnt);
    return rec;
}

/* The thread is to write what is there and end. Returns false if it knew. */
static bool record_close(VFIOUserRecord *rec)
{
    QEMU_LOCK_GUARD(&rec->lock);
    if (rec->closing) {
        return false;
    }
    for (guint i = 0; i < rec->sockets->len; i++) {
        record_conclude(g_ptr_array_index(rec->sockets, i));
    }
    rec->closing = true;
    qemu_cond_signal(&rec->wake);
    return true;
}

void vfio_user_record_unref(VFIOUserRecord *rec)
{
    bool closed;

    if (!rec || qatomic_fetch_dec(&rec->refcnt) != 1) {
        return;
    }
    record_close(rec);
    WITH_QEMU_LOCK_GUARD(&rec->lock) {
        closed = rec->closed;
        rec->orphan = true;
    }
    if (closed) {
        record_free(rec);
    }
}

void vfio_user_record_finish(VFIOUserRecord *rec, unsigned timeout_ms)
{
    int64_t until = g_get_monotonic_time() / 1000 + timeout_ms;
    int64_t left;

    if (!rec || !record_close(rec)) {
        return;
    }
    QEMU_LOCK_GUARD(&rec->lock);
    while (!rec->closed &&
           (left = until - g_get_monotonic_time() / 1000) > 0) {
        qemu_cond_timedwait(&rec->done, &rec->lock, left);
    }
}
