/*
 * vfio-user: a recording under test, what is said and what is in the file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets and numbers of pcapng are typed in from its description, and those of
 * the head in front of each message from what the dissector takes apart.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "vfio-user-recording.h"

RecFile *rec_new(const char *name)
{
    RecFile *f = g_new0(RecFile, 1);

    f->dir = g_dir_make_tmp("vfio-user-record-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "file", NULL);
    f->rec = vfio_user_record_new(f->path, name, &error_abort);
    return f;
}

void rec_free(RecFile *f)
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

const uint8_t *rec_next(RecFile *f, uint32_t type)
{
    const uint8_t *block = f->data + f->at;
    uint32_t len;

    g_assert_cmpuint(f->at + 12, <=, f->len);
    len = rec_u32(block + 4);
    g_assert_cmphex(rec_u32(block), ==, type);
    g_assert_cmpuint(len % 4, ==, 0);
    g_assert_cmpuint(f->at + len, <=, f->len);
    g_assert_cmpuint(rec_u32(block + len - 4), ==, len);
    f->at += len;
    return block;
}

const uint8_t *rec_option(const uint8_t *block, size_t off, uint16_t code,
                          uint16_t *len)
{
    *len = 0;
    while (lduw_he_p(block + off) != code) {
        if (!lduw_he_p(block + off)) {
            return NULL;
        }
        off += 4 + ROUND_UP(lduw_he_p(block + off + 2), 4);
    }
    *len = lduw_he_p(block + off + 2);
    return block + off + 4;
}

void rec_check_text(const uint8_t *block, size_t off, uint16_t code,
                    const char *text)
{
    uint16_t len;
    const uint8_t *value = rec_option(block, off, code, &len);

    g_assert_nonnull(value);
    g_assert_cmpmem(value, len, text, strlen(text));
}

static void check_number(const uint8_t *block, size_t off, uint16_t code,
                         uint64_t number)
{
    uint16_t len;
    const uint8_t *value = rec_option(block, off, code, &len);

    g_assert_nonnull(value);
    g_assert_cmpuint(len, ==, 8);
    g_assert_cmpuint(ldq_he_p(value), ==, number);
}

void rec_load(RecFile *f)
{
    g_free(f->data);
    g_assert_true(g_file_get_contents(f->path, (char **)&f->data, &f->len,
                                      NULL));
    f->at = 0;
}

void rec_begin(RecFile *f)
{
    vfio_user_record_finish(f->rec, PEER_DEADLINE_MS);
    rec_load(f);
    rec_next(f, REC_SECTION);
}

void rec_end(RecFile *f)
{
    g_assert_cmpuint(f->at, ==, f->len);
    rec_free(f);
}

void rec_interface(RecFile *f, const char *name)
{
    const uint8_t *block = rec_next(f, REC_INTERFACE);

    /* WIRESHARK_UPPER_PDU */
    g_assert_cmpuint(lduw_he_p(block + 8), ==, 252);
    rec_check_text(block, 16, 2, name);
}

RecPacket rec_packet(RecFile *f)
{
    static const uint8_t tags[20] = "\0\x0c\0\x0cvfio_user\0\0\0\0\0\0";
    const uint8_t *block = rec_next(f, REC_PACKET);
    RecPacket p = {
        .block = block,
        .interface = rec_u32(block + 8),
        .time = (uint64_t)rec_u32(block + 12) << 32 | rec_u32(block + 16),
        .captured = rec_u32(block + 20),
        .original = rec_u32(block + 24),
        .head = block + 48,
        .message = block + 52,
    };

    g_assert_cmpmem(block + 28, 20, tags, 20);
    g_assert_cmpuint(p.head[0], ==, 1);
    p.options = 28 + ROUND_UP(p.captured, 4);
    return p;
}

RecPacket rec_expect(RecFile *f, unsigned flags, unsigned nr_fds,
                     const void *msg, size_t len)
{
    RecPacket p = rec_packet(f);
    uint16_t option_len;
    const uint8_t *direction = rec_option(p.block, p.options, 2, &option_len);

    g_assert_cmpuint(p.head[1], ==, flags);
    g_assert_cmpuint(p.head[2], ==, nr_fds);
    g_assert_cmpmem(p.message, p.captured - REC_PREFIX, msg, len);
    g_assert_cmpuint(p.original, ==, REC_PREFIX + len);
    /* 1: inbound, 2: outbound */
    g_assert_cmpuint(rec_u32(direction), ==, flags & 1 ? 1 : 2);
    return p;
}

void rec_statistics(RecFile *f, unsigned interface, uint64_t received,
                    uint64_t dropped)
{
    const uint8_t *block = rec_next(f, REC_STATISTICS);

    g_assert_cmpuint(rec_u32(block + 8), ==, interface);
    check_number(block, 20, 4, received);
    check_number(block, 20, 5, dropped);
}

void rec_say(VFIOUserRecordSocket *sock, const void *msg, size_t len,
             unsigned nr_fds)
{
    struct iovec iov = { (void *)msg, len };

    vfio_user_record_send_begin(sock);
    vfio_user_record_send_end(sock, &iov, 1, len, nr_fds);
}

void rec_hear(VFIOUserRecordSocket *sock, const void *msg, size_t len,
              unsigned nr_fds)
{
    struct iovec iov = { (void *)msg, len };

    vfio_user_record_received(sock, &iov, 1, len, nr_fds);
}

uint8_t *rec_make(uint16_t id, size_t len)
{
    g_autofree uint8_t *payload = g_malloc(len);

    peer_pattern(payload, len - 16, id);
    return peer_make(id, CMD_REGION_READ, PEER_COMMAND, 0, payload, len - 16);
}

RecFile *rec_new_socket(void)
{
    RecFile *f = rec_new("dev");

    f->sock = vfio_user_record_socket_new(f->rec, false);
    return f;
}

void rec_begin_socket(RecFile *f)
{
    vfio_user_record_socket_free(f->sock);
    f->sock = NULL;
    rec_begin(f);
    rec_interface(f, "dev 1");
}

void rec_end_socket(RecFile *f, uint64_t nr)
{
    rec_statistics(f, 0, nr, 0);
    rec_end(f);
}
