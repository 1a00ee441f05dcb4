/*
 * vfio-user test server: shapes of a bad device, and replies made by hand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the lists of misbehaviours need beyond a patched field.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "mischief.h"
#include "server-migration.h"

#define HUGE_JSON   (64u << 20)

/* --- Devices --- */

void ts_setup_no_twin(TestServer *s)
{
    s->limits.twin_socket = false;
}

void ts_setup_bridge(TestServer *s)
{
    s->config[0x0e] = 1;
}

void ts_setup_cap_at_end(TestServer *s)
{
    s->config[s->last_cap + 1] = 0xfc;
    s->config[0xfc] = 0x10;
}

void ts_setup_config_zero(TestServer *s)
{
    memset(s->config, 0, 4096);
}

void ts_setup_no_caps(TestServer *s)
{
    s->config[0x06] &= ~0x10;
}

void ts_setup_not_resettable(TestServer *s)
{
    s->info.flags &= ~VFIO_USER_DEVICE_RESETTABLE;
}

/* Entries of 48 bytes at 16, 64 and 112; descriptors 0, 1, 2 and 3. */
void ts_setup_io_fds(TestServer *s)
{
    ts_add_io_fd(s, 0, 0x100, 4);
    ts_io_fd_match(ts_add_io_fd(s, 0, 0x104, 4), 1);
    ts_io_fd_shadow(s, ts_add_io_fd(s, 0, 0x108, 4), 0x108);
}

/* A second one behind the first, alike. */
void ts_setup_two_msix(TestServer *s)
{
    ts_add_msix(s, TS_STANDARD_MSIX, 5, 0, 5, 0x1000);
}

/* An extended capability whose link is @next. */
static void setup_ext_cap(TestServer *s, unsigned next)
{
    uint8_t body[8] = { 0 };
    uint32_t header = 0x0b | 1 << 16 | next << 20;
    unsigned off;

    ts_add_pcie(s, 0);
    off = ts_add_ext_cap(s, 0x0b, 1, body, sizeof(body));
    memcpy(s->config + off, &header, sizeof(header));
}

void ts_setup_ext_cap_loop(TestServer *s)
{
    setup_ext_cap(s, 0x100);
}

void ts_setup_ext_cap_low(TestServer *s)
{
    setup_ext_cap(s, 0x40);
}

void ts_setup_ext_cap_at_end(TestServer *s)
{
    setup_ext_cap(s, 0xffc);
    s->config[0xffc] = 0x0b;
}

void ts_setup_migration(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY)->logging = true;
}

void ts_setup_mig_flags_none(TestServer *s)
{
    ts_add_migration(s, 0);
}

void ts_setup_mig_flags_unknown(TestServer *s)
{
    ts_add_migration(s, ~(uint64_t)7 | VFIO_USER_MIGRATION_STOP_COPY);
}

void ts_setup_mig_without_stop_copy(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_PRE_COPY);
}

void ts_setup_mig_absent_einval(TestServer *s)
{
    ts_no_features(s, EINVAL);
}

void ts_setup_mig_absent_eopnotsupp(TestServer *s)
{
    ts_no_features(s, EOPNOTSUPP);
}

void ts_setup_mig_absent_closed(TestServer *s)
{
    ts_no_features(s, TS_CLOSE);
}

/* --- Replies --- */

/* The text of a VERSION reply becomes @len bytes, to be filled in. */
static char *call_json_room(TsMessage *reply, size_t len)
{
    g_byte_array_set_size(reply->payload,
                          sizeof(struct vfio_user_version) + len);
    return (char *)reply->payload->data + sizeof(struct vfio_user_version);
}

void ts_call_json(TestServer *s, TsMessage *reply, void *opaque)
{
    const char *text = opaque;
    size_t len = strlen(text) + 1;

    (void)s;
    memcpy(call_json_room(reply, len), text, len);
}

void ts_call_json_huge(TestServer *s, TsMessage *reply, void *opaque)
{
    char *text = call_json_room(reply, HUGE_JSON);

    (void)s;
    (void)opaque;
    memset(text, ' ', HUGE_JSON - 1);
    text[0] = '{';
    text[HUGE_JSON - 2] = '}';
    text[HUGE_JSON - 1] = '\0';
}

void ts_call_json_nested(TestServer *s, TsMessage *reply, void *opaque)
{
    size_t depth = (uintptr_t)opaque;
    char *text = call_json_room(reply, 2 * depth + 1);

    (void)s;
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[2 * depth] = '\0';
}

void ts_call_unterminate(TestServer *s, TsMessage *reply, void *opaque)
{
    (void)s;
    (void)opaque;
    if (reply->payload->len) {
        reply->payload->data[reply->payload->len - 1] = ' ';
    }
}

void ts_call_add_id(TestServer *s, TsMessage *reply, void *opaque)
{
    (void)s;
    reply->hdr.id += (intptr_t)opaque;
}

void ts_call_grow_argsz(TestServer *s, TsMessage *reply, void *opaque)
{
    static uint32_t argsz;

    (void)s;
    (void)opaque;
    argsz = argsz < 8192 || argsz > 32768 ? 8192 : argsz * 2;
    if (reply->payload->len >= 4) {
        memcpy(reply->payload->data, &argsz, sizeof(argsz));
    }
}

void ts_call_all_ones(TestServer *s, TsMessage *reply, void *opaque)
{
    size_t first = (uintptr_t)opaque;

    (void)s;
    if (reply->payload->len > first) {
        memset(reply->payload->data + first, 0xff,
               reply->payload->len - first);
    }
}

static int open_pipe(void)
{
    int fds[2];

    g_assert(pipe(fds) == 0);
    close(fds[1]);
    return fds[0];
}

/* Touching a mapping of an empty file kills. */
static int open_empty(void)
{
    return memfd_create("ts-empty", MFD_CLOEXEC);
}

/* One page, so that an area behind it is past the file's end. */
static int open_page(void)
{
    int fd = memfd_create("ts-page", MFD_CLOEXEC);

    g_assert(fd >= 0 && ftruncate(fd, 4096) == 0);
    return fd;
}

static int open_read_only(void)
{
    int fd = memfd_create("ts-read-only", MFD_CLOEXEC), again;
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

    g_assert(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    again = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    return again;
}

static int open_directory(void)
{
    return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_datagram(void)
{
    int fds[2];

    g_assert(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) == 0);
    close(fds[1]);
    return fds[0];
}

static int open_unconnected(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int open_listening(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = open_unconnected();

    /* No name but the family: the kernel chooses one. */
    g_assert(bind(fd, (struct sockaddr *)&un, sizeof(un.sun_family)) == 0 &&
             listen(fd, 1) == 0);
    return fd;
}

static const struct {
    const char *kind;
    int (*open)(void);
} file_kinds[] = {
    { "pipe", open_pipe },
    { "empty", open_empty },
    { "page", open_page },
    { "read-only", open_read_only },
    { "directory", open_directory },
    { "datagram", open_datagram },
    { "unconnected", open_unconnected },
    { "listening", open_listening },
};

void ts_call_fd(TestServer *s, TsMessage *reply, void *opaque)
{
    int fd = -1;

    (void)s;
    for (unsigned i = 0; i < G_N_ELEMENTS(file_kinds); i++) {
        if (!strcmp(file_kinds[i].kind, opaque)) {
            fd = file_kinds[i].open();
        }
    }
    g_assert(fd >= 0);
    while (reply->nr_fds) {
        close(reply->fds[--reply->nr_fds]);
    }
    ts_message_add_fd(reply, fd);
    close(fd);
}

/* Must be refused, and leave things in order. */
void ts_call_early_dma(TestServer *s, TsMessage *reply, void *opaque)
{
    uint8_t buf[16];

    (void)reply;
    (void)opaque;
    if (ts_dma_command(s, VFIO_USER_DMA_READ, 0x1000, sizeof(buf), buf,
                       sizeof(buf)) != ENXIO) {
        ts_fail_connection(s);
    }
}
