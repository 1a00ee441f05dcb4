/*
 * vfio-user test server: the list of misbehaviours during realize
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets count from the start of the payload and are the protocol's; indices
 * are those of the standard device. Where both refusing and making do are
 * right, the list says "either", and the test still looks for a client that
 * dies, hangs or leaks.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"
#include "server-migration.h"

/* Places in the reply to DEVICE_GET_REGION_INFO. */
#define RI_ARGSZ        0
#define RI_INDEX        8
#define RI_CAP_OFFSET   12
#define RI_SIZE         16
#define RI_OFFSET       24
#define RI_CAP_NEXT     36
#define RI_NR_AREAS     40
#define RI_AREA0_OFFSET 48
#define RI_AREA0_SIZE   56
#define RI_AREA1_OFFSET 64

#define CONFIG          VFIO_USER_REGION_CONFIG

static void setup_no_twin(TestServer *s)
{
    s->limits.twin_socket = false;
}

static void setup_not_json(TestServer *s)
{
    s->limits.json = "{\"capabilities\": }";
}

static void setup_wrong_type(TestServer *s)
{
    s->limits.json = "{\"capabilities\": {\"max_msg_fds\": \"eight\"}}";
}

static void setup_caps_not_object(TestServer *s)
{
    s->limits.json = "{\"capabilities\": 5}";
}

static void setup_huge_values(TestServer *s)
{
    s->limits.json = "{\"capabilities\": {\"max_msg_fds\": 4294967295, "
        "\"max_data_xfer_size\": 9223372036854775807, "
        "\"max_dma_maps\": 9223372036854775807}}";
}

static void setup_unknown_keys(TestServer *s)
{
    s->limits.json = "{\"capabilities\": {\"colour\": [1, {\"a\": null}], "
        "\"max_msg_fds\": 8}, \"more\": \"text\"}";
}

static void setup_twin_without_index(TestServer *s)
{
    s->limits.json =
        "{\"capabilities\": {\"twin_socket\": {\"supported\": true}}}";
}

static void setup_twin_index_outside(TestServer *s)
{
    s->limits.json = "{\"capabilities\": {\"twin_socket\": "
        "{\"supported\": true, \"fd_index\": 3}}}";
}

static void setup_not_pci(TestServer *s)
{
    s->info.flags &= ~VFIO_USER_DEVICE_PCI;
}

static void setup_few_regions(TestServer *s)
{
    s->info.num_regions = 6;
}

static void setup_many_regions(TestServer *s)
{
    s->info.num_regions = UINT32_MAX;
}

static void setup_few_irqs(TestServer *s)
{
    s->info.num_irqs = 2;
}

static void setup_many_irqs(TestServer *s)
{
    s->info.num_irqs = UINT32_MAX;
}

static void setup_no_vendor(TestServer *s)
{
    memset(s->config, 0xff, 4);
}

static void setup_cap_loop(TestServer *s)
{
    s->config[s->last_cap + 1] = 0x40;
}

static void setup_cap_at_end(TestServer *s)
{
    s->config[s->last_cap + 1] = 0xfc;
    s->config[0xfc] = 0x11;
}

static void setup_ext_cap_loop(TestServer *s)
{
    uint8_t body[8] = { 0 };
    unsigned off;
    uint32_t header;

    ts_add_pcie(s, 0);
    off = ts_add_ext_cap(s, 0x0b, 1, body, sizeof(body));
    header = 0x0b | 1 << 16 | off << 20;
    memcpy(s->config + off, &header, sizeof(header));
}

static uint8_t *find_cap(TestServer *s, uint8_t id)
{
    uint8_t off = s->config[0x34];

    while (off && s->config[off] != id) {
        off = s->config[off + 1];
    }
    g_assert(off);
    return s->config + off;
}

static void setup_msix_bir(TestServer *s)
{
    find_cap(s, 0x11)[4] = 7;
}

static void setup_msix_outside(TestServer *s)
{
    uint32_t table = 0x40000000 | 5;

    memcpy(find_cap(s, 0x11) + 4, &table, sizeof(table));
}

static void setup_msix_in_io_bar(TestServer *s)
{
    find_cap(s, 0x11)[4] = 4;
}

static void setup_not_resettable(TestServer *s)
{
    s->info.flags &= ~VFIO_USER_DEVICE_RESETTABLE;
}

static void setup_migration(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY)->logging = true;
}

static void setup_mig_flags_none(TestServer *s)
{
    ts_add_migration(s, 0);
}

static void setup_mig_flags_unknown(TestServer *s)
{
    ts_add_migration(s, ~(uint64_t)7 | VFIO_USER_MIGRATION_STOP_COPY);
}

static void setup_mig_without_stop_copy(TestServer *s)
{
    ts_add_migration(s, VFIO_USER_MIGRATION_PRE_COPY);
}

static void setup_mig_absent_einval(TestServer *s)
{
    ts_no_features(s, EINVAL);
}

static void setup_mig_absent_eopnotsupp(TestServer *s)
{
    ts_no_features(s, EOPNOTSUPP);
}

static void setup_mig_absent_closed(TestServer *s)
{
    ts_no_features(s, TS_CLOSE);
}

static void call_unterminate(TestServer *s, TsMessage *reply, void *opaque)
{
    (void)s;
    (void)opaque;
    if (reply->payload->len) {
        reply->payload->data[reply->payload->len - 1] = ' ';
    }
}

/* Whatever room was given, twice as much is wanted. */
static void call_grow_argsz(TestServer *s, TsMessage *reply, void *opaque)
{
    static uint32_t argsz;

    (void)s;
    (void)opaque;
    argsz = argsz < 8192 || argsz > 1u << 30 ? 8192 : argsz * 2;
    if (reply->payload->len >= 4) {
        memcpy(reply->payload->data, &argsz, sizeof(argsz));
    }
}

/* The fd is one of an empty file: touching a mapping of it kills. */
static void call_empty_file(TestServer *s, TsMessage *reply, void *opaque)
{
    int fd = memfd_create("ts-empty", MFD_CLOEXEC);

    (void)s;
    (void)opaque;
    g_assert(fd >= 0);
    for (unsigned i = 0; i < reply->nr_fds; i++) {
        close(reply->fds[i]);
    }
    reply->nr_fds = 0;
    ts_message_add_fd(reply, fd);
    close(fd);
}

/* A pipe cannot be mapped at all. */
static void call_pipe(TestServer *s, TsMessage *reply, void *opaque)
{
    int fds[2];

    (void)s;
    (void)opaque;
    g_assert(pipe(fds) == 0);
    for (unsigned i = 0; i < reply->nr_fds; i++) {
        close(reply->fds[i]);
    }
    reply->nr_fds = 0;
    ts_message_add_fd(reply, fds[0]);
    close(fds[0]);
    close(fds[1]);
}

/* DMA before any window exists must be refused, and leave things in order. */
static void call_early_dma(TestServer *s, TsMessage *reply, void *opaque)
{
    uint8_t buf[16];

    (void)reply;
    (void)opaque;
    if (ts_dma_command(s, VFIO_USER_DMA_READ, 0x1000, sizeof(buf), buf,
                       sizeof(buf)) == 0) {
        ts_fail_connection(s);
    }
}

#define MOVE(cmd, idx, ...) \
    { .command = VFIO_USER_##cmd, .index = (idx), __VA_ARGS__ }
#define REPLY(cmd, idx, what, ...) \
    MOVE(cmd, idx, .kind = TS_MOVE_##what, __VA_ARGS__)
#define ONE(name_, expect_, move_) \
    { .name = name_, .expect = TS_EXPECT_##expect_, .moves = { move_ }, \
      .nr_moves = 1 }
#define SETUP(name_, expect_, setup_) \
    { .name = name_, .expect = TS_EXPECT_##expect_, .setup = setup_ }

#define V(what, ...)        REPLY(VERSION, -1, what, __VA_ARGS__)
#define I(what, ...)        REPLY(DEVICE_GET_INFO, -1, what, __VA_ARGS__)
#define R(idx, what, ...)   REPLY(DEVICE_GET_REGION_INFO, idx, what, \
                                  __VA_ARGS__)
#define MIG(name_, expect_, feature_, what, ...) \
    { .name = name_, .expect = TS_EXPECT_##expect_, .nr_moves = 1, \
      .setup = setup_migration, .moves = { \
          REPLY(DEVICE_FEATURE, feature_, what, __VA_ARGS__) } }
#define Q(what, ...)        REPLY(DEVICE_GET_IRQ_INFO, -1, what, __VA_ARGS__)

/* A comma inside a macro's argument needs a name. */
#define PUT(at, value, bytes)   .a = (at), .b = (value), .width = (bytes)

const TsMischief ts_mischiefs[] = {
    ONE("version-major", REFUSED, V(PATCH, PUT(0, 1, 2))),
    ONE("version-minor-higher", REFUSED, V(PATCH, PUT(2, 9, 2))),
    ONE("version-refused", REFUSED, V(ERROR, .a = EPERM)),
    ONE("version-unanswered", REFUSED, V(DROP)),
    ONE("version-closed", REFUSED, V(CLOSE)),
    ONE("version-truncated", REFUSED, V(TRUNCATE, .a = 10)),
    ONE("version-short", REFUSED, V(CUT, .a = 2)),
    { .name = "version-without-json", .expect = TS_EXPECT_HARMLESS,
      .moves = { V(CUT, .a = 4) }, .nr_moves = 1, .setup = setup_no_twin },
    ONE("version-unterminated", REFUSED, V(CALL, .call = call_unterminate)),
    ONE("version-extra-fds", EITHER, V(EXTRA_FDS, .a = 5)),
    SETUP("version-not-json", REFUSED, setup_not_json),
    SETUP("version-wrong-type", REFUSED, setup_wrong_type),
    SETUP("version-capabilities-number", REFUSED, setup_caps_not_object),
    SETUP("version-huge-values", HARMLESS, setup_huge_values),
    SETUP("version-unknown-keys", HARMLESS, setup_unknown_keys),
    SETUP("twin-without-index", REFUSED, setup_twin_without_index),
    SETUP("twin-index-outside", REFUSED, setup_twin_index_outside),
    ONE("twin-fd-missing", REFUSED, V(NO_FDS)),

    ONE("reply-id", REFUSED, I(HEADER, PUT(0, 0xdead, 2))),
    ONE("reply-command", REFUSED, I(HEADER, PUT(2, 9, 2))),
    ONE("reply-typed-command", REFUSED, I(HEADER, PUT(8, 0, 4))),
    ONE("reply-type-unknown", REFUSED, I(HEADER, PUT(8, 7, 4))),
    ONE("reply-size-tiny", REFUSED, I(HEADER, PUT(4, 8, 4))),
    ONE("reply-size-huge", REFUSED, I(HEADER, PUT(4, UINT32_MAX, 4))),
    ONE("reply-twice", EITHER, I(TWICE)),
    ONE("reply-closed", REFUSED, I(CLOSE)),
    ONE("reply-truncated", REFUSED, I(TRUNCATE, .a = 20)),
    ONE("reply-unanswered", REFUSED, I(DROP)),
    ONE("reply-late", HARMLESS, I(DELAY, .a = 100)),
    ONE("reply-extra-fds", EITHER, I(EXTRA_FDS, .a = 20)),
    ONE("reply-error-zero", REFUSED, I(ERROR, .a = 0)),
    ONE("reply-error-huge", REFUSED, I(ERROR, .a = 0xfffffff0)),
    { .name = "every-reply-split", .expect = TS_EXPECT_HARMLESS,
      .moves = { { .command = -1, .index = -1, .kind = TS_MOVE_SPLIT,
                   .a = 7 } }, .nr_moves = 1 },
    ONE("dma-before-map", HARMLESS, I(CALL, .call = call_early_dma)),

    ONE("info-short", REFUSED, I(CUT, .a = 8)),
    ONE("info-long", EITHER, I(PAD, .a = 16)),
    SETUP("info-not-pci", REFUSED, setup_not_pci),
    SETUP("info-few-regions", REFUSED, setup_few_regions),
    SETUP("info-many-regions", EITHER, setup_many_regions),
    SETUP("info-few-irqs", REFUSED, setup_few_irqs),
    SETUP("info-many-irqs", EITHER, setup_many_irqs),
    SETUP("info-not-resettable", HARMLESS, setup_not_resettable),

    ONE("region-refused", REFUSED, R(0, ERROR, .a = EINVAL)),
    ONE("region-index", REFUSED, R(0, PATCH, PUT(RI_INDEX, 5, 4))),
    ONE("region-short", REFUSED, R(0, CUT, .a = 16)),
    ONE("region-argsz-grows", REFUSED, R(1, CALL, .call = call_grow_argsz)),
    ONE("region-argsz-huge", REFUSED,
        R(1, PATCH, PUT(RI_ARGSZ, UINT32_MAX, 4))),
    ONE("region-argsz-tiny", EITHER, R(0, PATCH, PUT(RI_ARGSZ, 8, 4))),
    ONE("region-size-all-ones", REFUSED,
        R(0, PATCH, PUT(RI_SIZE, UINT64_MAX, 8))),
    ONE("region-size-odd", EITHER, R(0, PATCH, PUT(RI_SIZE, 0x1001, 8))),
    ONE("region-offset-huge", EITHER,
        R(2, PATCH, PUT(RI_OFFSET, 0x7ffffffffffff000, 8))),
    ONE("region-fd-missing", EITHER, R(2, NO_FDS)),
    ONE("region-fd-per-area", HARMLESS, R(1, EXTRA_FDS, .a = 1)),
    ONE("region-fd-empty-file", EITHER, R(2, CALL, .call = call_empty_file)),
    ONE("region-fd-pipe", EITHER, R(2, CALL, .call = call_pipe)),
    ONE("cap-loop", REFUSED, R(1, PATCH, PUT(RI_CAP_NEXT, 32, 4))),
    ONE("cap-outside", REFUSED, R(1, PATCH, PUT(RI_CAP_OFFSET, 0x1000, 4))),
    ONE("cap-in-info", REFUSED, R(1, PATCH, PUT(RI_CAP_OFFSET, 4, 4))),
    ONE("cap-unaligned", EITHER, R(1, PATCH, PUT(RI_CAP_OFFSET, 33, 4))),
    ONE("cap-next-outside", REFUSED,
        R(1, PATCH, PUT(RI_CAP_NEXT, 0xfffffff8, 4))),
    ONE("cap-cut", EITHER, R(1, CUT, .a = 52)),
    ONE("sparse-count", REFUSED,
        R(1, PATCH, PUT(RI_NR_AREAS, 0x10000000, 4))),
    ONE("sparse-count-zero", EITHER, R(1, PATCH, PUT(RI_NR_AREAS, 0, 4))),
    ONE("sparse-outside", REFUSED,
        R(1, PATCH, PUT(RI_AREA0_OFFSET, 0x100000, 8))),
    { .name = "sparse-wraps", .expect = TS_EXPECT_REFUSED,
      .moves = { R(1, PATCH, PUT(RI_AREA0_OFFSET, 0xfffffffffffff000, 8)),
                 R(1, PATCH, PUT(RI_AREA0_SIZE, 0x2000, 8)) },
      .nr_moves = 2 },
    ONE("sparse-overlap", EITHER,
        R(1, PATCH, PUT(RI_AREA1_OFFSET, 0x1000, 8))),
    ONE("sparse-unaligned", EITHER,
        R(1, PATCH, PUT(RI_AREA0_OFFSET, 0x1234, 8))),

    ONE("config-small", REFUSED, R(CONFIG, PATCH, PUT(RI_SIZE, 64, 8))),
    ONE("config-huge", EITHER, R(CONFIG, PATCH, PUT(RI_SIZE, 1 << 20, 8))),
    ONE("config-unreadable", REFUSED,
        REPLY(REGION_READ, CONFIG, ERROR, .a = EIO)),
    ONE("config-read-short", REFUSED,
        REPLY(REGION_READ, CONFIG, CUT, .a = 20)),
    ONE("config-read-long", REFUSED,
        REPLY(REGION_READ, CONFIG, PAD, .a = 64)),
    ONE("config-read-count", REFUSED,
        REPLY(REGION_READ, CONFIG, PATCH, PUT(12, 0x7fffffff, 4))),
    SETUP("config-no-vendor", EITHER, setup_no_vendor),
    SETUP("config-cap-loop", EITHER, setup_cap_loop),
    SETUP("config-cap-at-end", EITHER, setup_cap_at_end),
    SETUP("config-ext-cap-loop", EITHER, setup_ext_cap_loop),
    SETUP("config-msix-bir", EITHER, setup_msix_bir),
    SETUP("config-msix-outside", EITHER, setup_msix_outside),
    SETUP("config-msix-in-io-bar", EITHER, setup_msix_in_io_bar),

    ONE("irq-index", EITHER, Q(PATCH, PUT(8, 77, 4))),
    ONE("irq-count-huge", EITHER, Q(PATCH, PUT(12, UINT32_MAX, 4))),
    ONE("irq-short", EITHER, Q(CUT, .a = 8)),
    ONE("irq-refused", EITHER, Q(ERROR, .a = EINVAL)),
    ONE("set-irqs-refused", EITHER,
        REPLY(DEVICE_SET_IRQS, -1, ERROR, .a = EINVAL)),

    SETUP("mig-absent-einval", HARMLESS, setup_mig_absent_einval),
    SETUP("mig-absent-eopnotsupp", HARMLESS, setup_mig_absent_eopnotsupp),
    SETUP("mig-absent-closed", REFUSED, setup_mig_absent_closed),
    SETUP("mig-flags-none", HARMLESS, setup_mig_flags_none),
    SETUP("mig-flags-unknown", HARMLESS, setup_mig_flags_unknown),
    SETUP("mig-without-stop-copy", REFUSED, setup_mig_without_stop_copy),
    MIG("mig-short", REFUSED, 1, CUT, .a = 8),
    MIG("mig-empty", REFUSED, 1, CUT, .a = 0),
    MIG("mig-long", EITHER, 1, PAD, .a = 8),
    MIG("mig-index", REFUSED, 1, PATCH, PUT(4, 2 | 1 << 16, 4)),
    MIG("mig-unanswered", EITHER, 1, DROP),
    MIG("mig-extra-fds", EITHER, 1, EXTRA_FDS, .a = 2),
    MIG("mig-logging-refused", HARMLESS, 6, ERROR, .a = EINVAL),
    MIG("mig-logging-index", EITHER, 6, PATCH, PUT(4, 1, 4)),

    ONE("map-refused", REFUSED, REPLY(DMA_MAP, -1, ERROR, .a = ENOSPC)),
    ONE("map-unanswered", REFUSED, REPLY(DMA_MAP, -1, DROP)),
    ONE("map-closed", REFUSED, REPLY(DMA_MAP, -1, CLOSE)),
    ONE("map-long", EITHER, REPLY(DMA_MAP, -1, PAD, .a = 32)),
    ONE("reset-refused", EITHER,
        REPLY(DEVICE_RESET, -1, ERROR, .a = EIO)),
};

const unsigned ts_nr_mischiefs = G_N_ELEMENTS(ts_mischiefs);
