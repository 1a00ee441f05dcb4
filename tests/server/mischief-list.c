/*
 * vfio-user test server: the list of misbehaviours during realize
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets count from the start of the payload and are the protocol's; indices
 * are those of the standard device. What a client has to say is what QEMU's
 * says: the command or the place, and what is wrong there.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include "mischief.h"

/* Places in the reply to DEVICE_GET_INFO, _REGION_INFO, _IRQ_INFO. */
#define DI_ARGSZ        0
#define DI_FLAGS        4
#define DI_REGIONS      8
#define DI_IRQS         12
#define RI_ARGSZ        0
#define RI_FLAGS        4
#define RI_INDEX        8
#define RI_CAP_OFFSET   12
#define RI_SIZE         16
#define RI_OFFSET       24
#define RI_CAP_ID       32
#define RI_CAP_NEXT     36
#define RI_NR_AREAS     40
#define RI_AREA0_OFFSET 48
#define RI_AREA0_SIZE   56
#define RI_AREA1_OFFSET 64
#define RI_AREA1_SIZE   72
#define QI_ARGSZ        0
#define QI_FLAGS        4
#define QI_INDEX        8
#define QI_COUNT        12

/* The standard device's config space. */
#define CAP_PM          0x40
#define CAP_MSI         0x48
#define CAP_MSIX        0x58
#define CAP_VENDOR      0x64

#define CONFIG          VFIO_USER_REGION_CONFIG
#define LATE            "did not answer in time"
#define CLOSED          "server closed the connection"
#define BROKE           "broke the protocol: "

#define V(what, ...)    REPLY(VERSION, -1, what, __VA_ARGS__)
#define I(what, ...)    REPLY(DEVICE_GET_INFO, -1, what, __VA_ARGS__)
#define R(idx, what, ...) \
    REPLY(DEVICE_GET_REGION_INFO, idx, what, __VA_ARGS__)
#define Q(idx, what, ...) \
    REPLY(DEVICE_GET_IRQ_INFO, idx, what, __VA_ARGS__)
/* The reply that brings config space as a whole: 16 bytes, then its content. */
#define C(what, ...) \
    REPLY(REGION_READ, CONFIG, what, .times = 1, __VA_ARGS__)
#define BYTES(off, value, bytes) \
    C(PATCH, PUT(16 + (off), value, bytes))

#define BAD(name, says, ...) \
    ROW(name, REFUSED, says, WITH(__VA_ARGS__))
#define BAD2(name, says, ...) \
    ROW(name, REFUSED, says, WITH2(__VA_ARGS__))
#define BAD_SETUP(name, says, fn)   ROW(name, REFUSED, says, .setup = fn)
#define FINE(name, ...) \
    ROW(name, HARMLESS, NULL, WITH(__VA_ARGS__))
#define FINE_SETUP(name, fn)        ROW(name, HARMLESS, NULL, .setup = fn)
/* It comes up, and QEMU's log says what is wrong. */
#define WARNS(name, says, ...) \
    ROW(name, HARMLESS, says, WITH(__VA_ARGS__))

#define TEXT(text)      V(CALL, .call = ts_call_json, .opaque = (char *)text)
#define CAPS(text)      TEXT("{\"capabilities\": {" text "}}")
#define TWIN(text)      CAPS("\"twin_socket\": {" text "}")
#define TWIN_FD(kind_) \
    V(CALL, .call = ts_call_fd, .opaque = (char *)kind_)
#define REGION_FD(idx, kind_) \
    R(idx, CALL, .call = ts_call_fd, .opaque = (char *)kind_)
#define CALL_N(fn, n)   CALL, .call = fn, .opaque = (void *)(intptr_t)(n)
#define MIG(name, expect, says, feature, what, ...) \
    ROW(name, expect, says, .setup = ts_setup_migration, \
        WITH(REPLY(DEVICE_FEATURE, feature, what, __VA_ARGS__)))

const TsMischief ts_mischiefs[] = {
    BAD("version-major", "VERSION: server speaks version 1.2",
        V(PATCH, PUT(0, 1, 2))),
    BAD("version-major-max", "VERSION: server speaks version 65535.2",
        V(PATCH, PUT(0, 0xffff, 2))),
    BAD("version-minor-higher", "VERSION: server answers version 0.3",
        V(PATCH, PUT(2, 3, 2))),
    BAD("version-minor-max", "VERSION: server answers version 0.65535",
        V(PATCH, PUT(2, 0xffff, 2))),
    FINE("version-minor-zero", V(PATCH, PUT(2, 0, 2))),
    FINE("version-minor-lower", V(PATCH, PUT(2, 1, 2))),
    BAD("version-refused", "VERSION failed: Operation not permitted",
        V(ERROR, .a = EPERM)),
    BAD("version-unanswered", "VERSION failed: *" LATE, V(DROP)),
    BAD("version-closed", "VERSION failed: *" CLOSED, V(CLOSE)),
    BAD("version-truncated", "VERSION failed: *" CLOSED,
        V(TRUNCATE, .a = 10)),
    BAD("version-empty", "VERSION: payload of 0 bytes is too short",
        V(CUT, .a = 0)),
    BAD("version-short", "VERSION: payload of 3 bytes is too short",
        V(CUT, .a = 3)),
    ROW("version-without-json", HARMLESS, NULL, WITH(V(CUT, .a = 4)),
        .setup = ts_setup_no_twin),
    BAD("version-one-byte-of-json", "VERSION: *not terminated by a NUL",
        V(CUT, .a = 5)),
    FINE("version-max-fds", V(EXTRA_FDS, .a = VFIO_USER_MAX_MSG_FDS - 1)),
    BAD("version-too-many-fds", "VERSION failed: *more descriptors than",
        V(EXTRA_FDS, .a = VFIO_USER_MAX_MSG_FDS)),

    BAD("json-unterminated", "VERSION: *not terminated by a NUL",
        V(CALL, .call = ts_call_unterminate)),
    BAD("json-nul-inside", "VERSION: the JSON text has a NUL at offset 2",
        V(PATCH, PUT(6, 0, 1))),
    BAD("json-not-utf-8", "VERSION: *not valid UTF-8",
        CAPS("\"\xc3\x28\": 1")),
    BAD("json-overlong-utf-8", "VERSION: *not valid UTF-8",
        CAPS("\"\xc0\x80\": 1")),
    BAD("json-empty", "VERSION: *JSON text", TEXT("")),
    BAD("json-malformed", "VERSION: *cannot be parsed",
        TEXT("{\"capabilities\": }")),
    BAD("json-unfinished", "VERSION: *cannot be parsed",
        TEXT("{\"capabilities\": {\"max_msg_fds\": 8}")),
    BAD("json-two-values", "VERSION: *cannot be parsed",
        TEXT("{\"capabilities\": {}} {}")),
    BAD("json-array", "VERSION: *is not an object", TEXT("[8]")),
    BAD("json-number", "VERSION: *is not an object", TEXT("8")),
    BAD("json-64-mib", "VERSION failed: *larger than the request allows",
        V(CALL, .call = ts_call_json_huge)),
    BAD("json-nested-100000", "VERSION failed: *larger than the request",
        V(CALL_N(ts_call_json_nested, 100000))),
    BAD("json-nested-5000", "VERSION: *cannot be parsed: JSON*depth",
        V(CALL_N(ts_call_json_nested, 5000))),
    FINE("json-unknown-keys", TEXT("{\"capabilities\": {\"colour\": [1, "
        "{\"a\": null}], \"max_msg_fds\": 8}, \"more\": \"text\"}")),
    BAD("caps-number", "VERSION: *'capabilities' is not an object",
        TEXT("{\"capabilities\": 5}")),
    FINE("caps-absent", TEXT("{}")),
    BAD("caps-fds-string", "VERSION: *'max_msg_fds' is not a whole number",
        CAPS("\"max_msg_fds\": \"eight\"")),
    BAD("caps-fds-negative", "VERSION: *'max_msg_fds' is not a whole number",
        CAPS("\"max_msg_fds\": -1")),
    BAD("caps-fds-fraction", "VERSION: *'max_msg_fds' is not a whole number",
        CAPS("\"max_msg_fds\": 1.5")),
    BAD("caps-xfer-null", "VERSION: *'max_data_xfer_size' is not a whole",
        CAPS("\"max_data_xfer_size\": null")),
    BAD("caps-xfer-zero", "VERSION: *'max_data_xfer_size' is 0, at least 8",
        CAPS("\"max_data_xfer_size\": 0")),
    BAD("caps-xfer-small", "VERSION: *'max_data_xfer_size' is 7, at least 8",
        CAPS("\"max_data_xfer_size\": 7")),
    FINE("caps-xfer-smallest", CAPS("\"max_data_xfer_size\": 8")),
    BAD("caps-maps-zero", "VERSION: *'max_dma_maps' is 0, at least 1",
        CAPS("\"max_dma_maps\": 0")),
    BAD("caps-maps-one", "DMA*max_dma_maps", CAPS("\"max_dma_maps\": 1")),
    BAD("caps-pgsizes-zero", "VERSION: *'pgsizes' is 0, at least 1",
        CAPS("\"pgsizes\": 0")),
    BAD("caps-multi-number", "VERSION: *'write_multiple' is neither true",
        CAPS("\"write_multiple\": 1")),
    BAD("caps-migration-bool", "VERSION: *'migration' is not an object",
        CAPS("\"migration\": true")),
    BAD("caps-migration-pgsize", "VERSION: migration: *'pgsize' is not",
        CAPS("\"migration\": {\"pgsize\": \"4k\"}")),
    FINE("caps-max", CAPS("\"max_msg_fds\": 4294967295, "
        "\"max_data_xfer_size\": 18446744073709551615, "
        "\"max_dma_maps\": 9223372036854775807, "
        "\"pgsizes\": 18446744073709551615")),

    BAD("twin-number", "VERSION: *'twin_socket' is not an object",
        CAPS("\"twin_socket\": 1")),
    BAD("twin-supported-number", "VERSION: twin_socket: *'supported' is",
        TWIN("\"supported\": 1, \"fd_index\": 0")),
    BAD("twin-without-index", "VERSION: twin_socket*'fd_index' names none",
        TWIN("\"supported\": true")),
    BAD("twin-index-one-off", "VERSION: twin_socket*'fd_index' names none",
        TWIN("\"supported\": true, \"fd_index\": 1")),
    BAD("twin-index-max", "VERSION: twin_socket*'fd_index' names none",
        TWIN("\"supported\": true, \"fd_index\": 18446744073709551615")),
    BAD("twin-index-negative", "VERSION: twin_socket: *'fd_index' is not",
        TWIN("\"supported\": true, \"fd_index\": -1")),
    BAD("twin-index-string", "VERSION: twin_socket: *'fd_index' is not",
        TWIN("\"supported\": true, \"fd_index\": \"0\"")),
    BAD("twin-fd-missing", "VERSION: twin_socket*none of the 0 descriptors",
        V(NO_FDS)),
    BAD("twin-fd-pipe", "VERSION: *twin_socket is not a connected",
        TWIN_FD("pipe")),
    BAD("twin-fd-file", "VERSION: *twin_socket is not a connected",
        TWIN_FD("page")),
    BAD("twin-fd-datagram", "VERSION: *twin_socket is not a connected",
        TWIN_FD("datagram")),
    BAD("twin-fd-unconnected", "VERSION: *twin_socket is not a connected",
        TWIN_FD("unconnected")),
    BAD("twin-fd-listening", "VERSION: *twin_socket is not a connected",
        TWIN_FD("listening")),

    BAD("reply-id", "DEVICE_GET_INFO failed: *" BROKE "a reply to nothing",
        I(HEADER, PUT(0, 0xdead, 2))),
    BAD("reply-id-max", "DEVICE_GET_INFO failed: *" BROKE "a reply to noth",
        I(HEADER, PUT(0, 0xffff, 2))),
    BAD("reply-id-next", "DEVICE_GET_INFO failed: *" BROKE "a reply to noth",
        I(CALL_N(ts_call_add_id, 1))),
    BAD("reply-id-last", "DEVICE_GET_INFO failed: *" BROKE "a reply to noth",
        I(CALL_N(ts_call_add_id, -1))),
    BAD("reply-command-zero", "DEVICE_GET_INFO failed: *another command",
        I(HEADER, PUT(2, 0, 2))),
    BAD("reply-command-next", "DEVICE_GET_INFO failed: *another command",
        I(HEADER, PUT(2, 5, 2))),
    BAD("reply-command-max", "DEVICE_GET_INFO failed: *another command",
        I(HEADER, PUT(2, 0xffff, 2))),
    /* We answer it, which is what this server does not bear. */
    BAD("reply-typed-command", "DEVICE_GET_INFO failed: *" CLOSED,
        I(HEADER, PUT(8, 0, 4))),
    BAD("reply-type-unknown", "DEVICE_GET_INFO failed: *neither command nor",
        I(HEADER, PUT(8, 2, 4))),
    BAD("reply-type-max", "DEVICE_GET_INFO failed: *neither command nor",
        I(HEADER, PUT(8, UINT32_MAX, 4))),
    FINE("reply-flags-unknown", I(HEADER, PUT(8, 0xffffffc1, 4))),
    FINE("reply-no-reply", I(HEADER, PUT(8, 0x11, 4))),
    BAD("reply-size-zero", "DEVICE_GET_INFO failed: *a message of 0 bytes",
        I(HEADER, PUT(4, 0, 4))),
    BAD("reply-size-below-header", "DEVICE_GET_INFO failed: *of 15 bytes",
        I(HEADER, PUT(4, 15, 4))),
    BAD("reply-size-header-only", "DEVICE_GET_INFO*payload of 0 bytes",
        I(HEADER, PUT(4, 16, 4))),
    BAD("reply-size-one-less", "DEVICE_GET_INFO: payload of 15 bytes is too",
        I(HEADER, PUT(4, 31, 4))),
    BAD("reply-size-one-more", "DEVICE_GET_INFO failed: *larger than the re",
        I(HEADER, PUT(4, 33, 4))),
    BAD("reply-size-max", "DEVICE_GET_INFO failed: *larger than the request",
        I(HEADER, PUT(4, UINT32_MAX, 4))),
    BAD("reply-twice", BROKE "a reply to nothing that was asked", I(TWICE)),
    BAD("reply-closed", "DEVICE_GET_INFO failed: *" CLOSED, I(CLOSE)),
    BAD("reply-truncated", "DEVICE_GET_INFO failed: *" CLOSED,
        I(TRUNCATE, .a = 20)),
    BAD("reply-unanswered", "DEVICE_GET_INFO failed: *" LATE, I(DROP)),
    FINE("reply-late", I(DELAY, .a = 100)),
    FINE("reply-max-fds", I(EXTRA_FDS, .a = VFIO_USER_MAX_MSG_FDS)),
    BAD("reply-too-many-fds", "DEVICE_GET_INFO failed: *more descriptors",
        I(EXTRA_FDS, .a = VFIO_USER_MAX_MSG_FDS + 1)),
    BAD("reply-error-zero", "DEVICE_GET_INFO failed: Input/output error",
        I(ERROR, .a = 0)),
    BAD("reply-error-one", "DEVICE_GET_INFO failed: Operation not permitted",
        I(ERROR, .a = 1)),
    BAD("reply-error-max", "DEVICE_GET_INFO failed: Unknown error 4095",
        I(ERROR, .a = UINT32_MAX)),
    BAD("reply-error-payload", "DEVICE_GET_INFO failed: *Input/output error",
        I(HEADER, PUT(8, 0x21, 4))),
    FINE("reply-errno-without-flag", I(HEADER, PUT(12, 5, 4))),
    ROW("every-reply-split", HARMLESS, NULL,
        WITH({ .command = -1, .index = -1, .kind = TS_MOVE_SPLIT, .a = 7 })),
    FINE("dma-before-map", I(CALL, .call = ts_call_early_dma)),

    BAD("info-empty", "DEVICE_GET_INFO: payload of 0 bytes is too short",
        I(CUT, .a = 0)),
    BAD("info-short", "DEVICE_GET_INFO: payload of 15 bytes is too short",
        I(CUT, .a = 15)),
    BAD("info-long", "DEVICE_GET_INFO failed: *larger than the request",
        I(PAD, .a = 1)),
    FINE("info-argsz-zero", I(PATCH, PUT(DI_ARGSZ, 0, 4))),
    FINE("info-argsz-max", I(PATCH, PUT(DI_ARGSZ, UINT32_MAX, 4))),
    BAD("info-flags-zero", "DEVICE_GET_INFO: not a PCI device (flags 0x0)",
        I(PATCH, PUT(DI_FLAGS, 0, 4))),
    FINE("info-flags-max", I(PATCH, PUT(DI_FLAGS, UINT32_MAX, 4))),
    BAD("info-regions-zero", "DEVICE_GET_INFO: number of regions 0 is not",
        I(PATCH, PUT(DI_REGIONS, 0, 4))),
    BAD("info-regions-without-config", "DEVICE_GET_INFO: *regions 7 is not",
        I(PATCH, PUT(DI_REGIONS, 7, 4))),
    FINE("info-regions-least", I(PATCH, PUT(DI_REGIONS, 8, 4))),
    FINE("info-regions-most", I(PATCH, PUT(DI_REGIONS, 64, 4))),
    BAD("info-regions-one-more", "DEVICE_GET_INFO: number of regions 65 is",
        I(PATCH, PUT(DI_REGIONS, 65, 4))),
    BAD("info-regions-max", "DEVICE_GET_INFO: *regions 4294967295 is not",
        I(PATCH, PUT(DI_REGIONS, UINT32_MAX, 4))),
    BAD("info-irqs-zero", "DEVICE_GET_INFO: *interrupt indices 0 is not",
        I(PATCH, PUT(DI_IRQS, 0, 4))),
    BAD("info-irqs-without-msix", "DEVICE_GET_INFO: *indices 2 is not",
        I(PATCH, PUT(DI_IRQS, 2, 4))),
    FINE("info-irqs-least", I(PATCH, PUT(DI_IRQS, 3, 4))),
    FINE("info-irqs-most", I(PATCH, PUT(DI_IRQS, 64, 4))),
    BAD("info-irqs-one-more", "DEVICE_GET_INFO: *interrupt indices 65 is",
        I(PATCH, PUT(DI_IRQS, 65, 4))),
    BAD("info-irqs-max", "DEVICE_GET_INFO: *indices 4294967295 is not",
        I(PATCH, PUT(DI_IRQS, UINT32_MAX, 4))),
    FINE_SETUP("info-not-resettable", ts_setup_not_resettable),

    BAD("region-refused", "region 0: DEVICE_GET_REGION_INFO failed: Invalid",
        R(0, ERROR, .a = EINVAL)),
    BAD("region-unanswered", "region 5: DEVICE_GET_REGION_INFO failed: *"
        LATE, R(5, DROP)),
    /* Whichever of the two sockets is looked at first */
    BAD("region-closed", "region *: DEVICE_GET_REGION_INFO failed: *" CLOSED,
        R(3, CLOSE)),
    BAD("region-index", "REGION_INFO: region 0: answer is about region 5",
        R(0, PATCH, PUT(RI_INDEX, 5, 4))),
    BAD("region-index-max", "REGION_INFO: region 0: *about region 4294967295",
        R(0, PATCH, PUT(RI_INDEX, UINT32_MAX, 4))),
    BAD("region-short", "REGION_INFO: region 0: payload of 31 bytes is too",
        R(0, CUT, .a = 31)),
    BAD("region-too-long", "region 0: *_REGION_INFO failed: *larger than the",
        R(0, PAD, .a = 4096)),
    FINE("region-longer", R(0, PAD, .a = 64)),
    BAD("region-argsz-zero", "REGION_INFO: region 0: argsz 0 is not within",
        R(0, PATCH, PUT(RI_ARGSZ, 0, 4))),
    BAD("region-argsz-one-less", "REGION_INFO: region 0: argsz 31 is not",
        R(0, PATCH, PUT(RI_ARGSZ, 31, 4))),
    BAD("region-argsz-one-more", "REGION_INFO: region 0: payload of 32 bytes",
        R(0, PATCH, PUT(RI_ARGSZ, 33, 4))),
    BAD("region-argsz-cuts-caps", "REGION_INFO: region 1: *claims 2 areas",
        R(1, PATCH, PUT(RI_ARGSZ, 79, 4))),
    BAD("region-argsz-grows", "REGION_INFO: region 1: *answer keeps growing",
        R(1, CALL, .call = ts_call_grow_argsz)),
    BAD("region-argsz-above-limit", "REGION_INFO: region 1: argsz 65537 is",
        R(1, PATCH, PUT(RI_ARGSZ, 65537, 4))),
    BAD("region-argsz-max", "REGION_INFO: region 1: argsz 4294967295 is not",
        R(1, PATCH, PUT(RI_ARGSZ, UINT32_MAX, 4))),
    FINE("region-flags-zero", R(0, PATCH, PUT(RI_FLAGS, 0, 4))),
    FINE("region-flags-max", R(0, PATCH, PUT(RI_FLAGS, UINT32_MAX, 4))),
    FINE("region-write-only", R(0, PATCH, PUT(RI_FLAGS, 2, 4))),
    FINE("region-map-read-only", R(2, PATCH, PUT(RI_FLAGS, 5, 4))),
    FINE("region-size-zero", R(0, PATCH, PUT(RI_SIZE, 0, 8))),
    FINE("region-size-one", R(0, PATCH, PUT(RI_SIZE, 1, 8))),
    FINE("region-size-odd", R(0, PATCH, PUT(RI_SIZE, 0x1001, 8))),
    FINE("region-size-off-by-one", R(2, PATCH, PUT(RI_SIZE, 0xffff, 8))),
    BAD("region-size-above-limit", "region 0: size 0x10000000001 is above",
        R(0, PATCH, PUT(RI_SIZE, (1ull << 40) + 1, 8))),
    BAD("region-size-max", "region 0: size 0xffffffffffffffff is above",
        R(0, PATCH, PUT(RI_SIZE, UINT64_MAX, 8))),
    BAD("rom-size-above-limit", "region 6: size 0x1000001 is above",
        R(6, PATCH, PUT(RI_SIZE, (16 << 20) + 1, 8))),
    BAD("vga-size-above-limit", "region 8: size 0x4000001 is above",
        R(8, PATCH, PUT(RI_SIZE, (64 << 20) + 1, 8))),
    WARNS("region-offset-past-end", "region 2 *ends before",
        R(2, PATCH, PUT(RI_OFFSET, 0x1000000, 8))),
    FINE("region-offset-unaligned", R(2, PATCH, PUT(RI_OFFSET, 1, 8))),
    BAD("region-offset-overflows", "region 2: file offset *more than a file",
        R(2, PATCH, PUT(RI_OFFSET, 0x7ffffffffffff000, 8))),
    BAD("region-offset-max", "region 2: file offset *more than a file can",
        R(2, PATCH, PUT(RI_OFFSET, UINT64_MAX, 8))),

    FINE("region-fd-missing", R(2, NO_FDS)),
    FINE("region-fd-per-area", R(1, EXTRA_FDS, .a = 1)),
    FINE("region-fd-not-mapped", R(0, EXTRA_FDS, .a = 1)),
    FINE("region-fds-most", R(2, EXTRA_FDS,
                              .a = VFIO_USER_MAX_MSG_FDS - 1)),
    BAD("region-fds-too-many", "REGION_INFO failed: *more descriptors than",
        R(2, EXTRA_FDS, .a = VFIO_USER_MAX_MSG_FDS)),
    WARNS("region-fd-empty-file", "region 2 *ends before",
          REGION_FD(2, "empty")),
    WARNS("region-fd-short-file", "region 1 *ends before",
          REGION_FD(1, "page")),
    WARNS("region-fd-read-only", "Failed to mmap * BAR 2",
          REGION_FD(2, "read-only")),
    WARNS("region-fd-pipe", "Failed to mmap * BAR 2", REGION_FD(2, "pipe")),
    WARNS("region-fd-socket", "Failed to mmap * BAR 2",
          REGION_FD(2, "datagram")),
    WARNS("region-fd-directory", "Failed to mmap * BAR 2",
          REGION_FD(2, "directory")),

    BAD("cap-loop", "region 1: capability at offset 32 is not within",
        R(1, PATCH, PUT(RI_CAP_NEXT, 32, 4))),
    BAD("cap-overlap", "region 1: capability at offset 36 is not within",
        R(1, PATCH, PUT(RI_CAP_NEXT, 36, 4))),
    BAD("cap-next-last-byte", "region 1: capability at offset 79 is not",
        R(1, PATCH, PUT(RI_CAP_NEXT, 79, 4))),
    BAD("cap-next-outside", "region 1: capability at offset 4294967288 is",
        R(1, PATCH, PUT(RI_CAP_NEXT, 0xfffffff8, 4))),
    BAD("cap-outside", "region 1: capability at offset 4096 is not within",
        R(1, PATCH, PUT(RI_CAP_OFFSET, 0x1000, 4))),
    BAD("cap-at-end", "region 1: capability at offset 80 is not within",
        R(1, PATCH, PUT(RI_CAP_OFFSET, 80, 4))),
    BAD("cap-in-info", "region 1: capability at offset 31 is not within",
        R(1, PATCH, PUT(RI_CAP_OFFSET, 31, 4))),
    BAD("cap-one", "region 1: capability at offset 1 is not within",
        R(1, PATCH, PUT(RI_CAP_OFFSET, 1, 4))),
    FINE("cap-none", R(1, PATCH, PUT(RI_CAP_OFFSET, 0, 4))),
    FINE("cap-id-unknown", R(1, PATCH, PUT(RI_CAP_ID, 0xffff, 2))),
    BAD2("sparse-twice", "region 1: two sparse mmap capabilities",
         R(1, PATCH, PUT(RI_CAP_NEXT, 48, 4)),
         R(1, PATCH, PUT(RI_AREA0_OFFSET, 1, 8))),
    BAD2("cap-cut", "region 1: sparse mmap capability is cut off",
         R(1, CUT, .a = 44), R(1, PATCH, PUT(RI_ARGSZ, 44, 4))),
    BAD("sparse-count-one-more", "region 1: *claims 3 areas in 32 bytes",
        R(1, PATCH, PUT(RI_NR_AREAS, 3, 4))),
    BAD("sparse-count-above-limit", "region 1: *claims 129 areas*most 128",
        R(1, PATCH, PUT(RI_NR_AREAS, 129, 4))),
    BAD("sparse-count-wraps", "region 1: *claims 268435456 areas",
        R(1, PATCH, PUT(RI_NR_AREAS, 0x10000000, 4))),
    BAD("sparse-count-max", "region 1: *claims 4294967295 areas",
        R(1, PATCH, PUT(RI_NR_AREAS, UINT32_MAX, 4))),
    FINE("sparse-count-zero", R(1, PATCH, PUT(RI_NR_AREAS, 0, 4))),
    FINE("sparse-count-one", R(1, PATCH, PUT(RI_NR_AREAS, 1, 4))),
    BAD("sparse-outside", "region 1: sparse area 0x100000+0x1000 is outside",
        R(1, PATCH, PUT(RI_AREA0_OFFSET, 0x100000, 8))),
    BAD("sparse-past-end", "region 1: sparse area 0x4000+0x5000 is outside",
        R(1, PATCH, PUT(RI_AREA1_SIZE, 0x5000, 8))),
    BAD("sparse-size-max", "region 1: sparse area 0x1000+0xfffff* is outside",
        R(1, PATCH, PUT(RI_AREA0_SIZE, UINT64_MAX, 8))),
    BAD2("sparse-wraps", "region 1: sparse area 0xfffffffffffff000+0x2000 is",
         R(1, PATCH, PUT(RI_AREA0_OFFSET, 0xfffffffffffff000, 8)),
         R(1, PATCH, PUT(RI_AREA0_SIZE, 0x2000, 8))),
    FINE("sparse-size-zero", R(1, PATCH, PUT(RI_AREA0_SIZE, 0, 8))),
    BAD("sparse-overlap", "region 1: sparse areas *overlap",
        R(1, PATCH, PUT(RI_AREA1_OFFSET, 0x1000, 8))),
    FINE("sparse-unaligned", R(1, PATCH, PUT(RI_AREA0_OFFSET, 0x1234, 8))),
    FINE("sparse-size-unaligned", R(1, PATCH, PUT(RI_AREA0_SIZE, 0xfff, 8))),

    BAD("config-size-zero", "region 7: config space of 0x0 bytes",
        R(CONFIG, PATCH, PUT(RI_SIZE, 0, 8))),
    BAD("config-size-one-less", "region 7: config space of 0xff bytes",
        R(CONFIG, PATCH, PUT(RI_SIZE, 255, 8))),
    FINE("config-size-small", R(CONFIG, PATCH, PUT(RI_SIZE, 256, 8))),
    BAD("config-size-one-more", "region 7: config space of 0x1001 bytes",
        R(CONFIG, PATCH, PUT(RI_SIZE, 4097, 8))),
    BAD("config-size-huge", "region 7: config space of 0x100000 bytes",
        R(CONFIG, PATCH, PUT(RI_SIZE, 1 << 20, 8))),
    BAD("config-unreadable", "reading config space failed: Input/output",
        C(ERROR, .a = EIO)),
    BAD("config-unanswered", "reading config space failed: *" LATE, C(DROP)),
    BAD("config-closed", "reading config space failed: *" CLOSED, C(CLOSE)),
    BAD("config-read-short", "config space failed: *payload has 4111 bytes",
        C(CUT, .a = 16 + 4095)),
    BAD("config-read-empty", "config space failed: *payload has 0 bytes",
        C(CUT, .a = 0)),
    BAD("config-read-long", "config space failed: *larger than the request",
        C(PAD, .a = 1)),
    BAD("config-read-offset", "config space failed: *answer is about region",
        C(PATCH, PUT(0, 1, 8))),
    BAD("config-read-region", "config space failed: *answer is about regi",
        C(PATCH, PUT(8, 0, 4))),
    BAD("config-read-count-zero", "config space failed: *answer is about re",
        C(PATCH, PUT(12, 0, 4))),
    BAD("config-read-count", "config space failed: *answer is about region",
        C(PATCH, PUT(12, 4095, 4))),
    BAD("config-read-count-max", "config space failed: *answer is about reg",
        C(PATCH, PUT(12, UINT32_MAX, 4))),

    BAD("config-all-ones", "header type 127", C(CALL_N(ts_call_all_ones, 16))),
    FINE_SETUP("config-all-zero", ts_setup_config_zero),
    FINE("config-no-vendor", BYTES(0, UINT32_MAX, 4)),
    BAD_SETUP("config-bridge", "header type 1 is not that of an endpoint",
              ts_setup_bridge),
    BAD("config-bar5-64-bits", "BAR 5 is 64 bits wide", BYTES(0x24, 4, 4)),
    BAD("config-bar0-64-bits", "BAR 0 is 64 bits wide", BYTES(0x10, 4, 4)),
    BAD("config-intx-pin-5", "invalid PCI interrupt pin 5", BYTES(0x3d, 5, 1)),
    BAD("config-intx-pin-255", "invalid PCI interrupt pin 255",
        BYTES(0x3d, 255, 1)),
    FINE_SETUP("config-no-caps", ts_setup_no_caps),
    BAD("config-cap-in-header", "capability list leads to 0x10",
        BYTES(0x34, 0x10, 1)),
    BAD("config-cap-unaligned", "capability list leads to 0x42",
        BYTES(0x34, 0x42, 1)),
    BAD("config-cap-itself", "capability list leads back to 0x64",
        BYTES(CAP_VENDOR + 1, CAP_VENDOR, 1)),
    BAD("config-cap-loop", "capability list leads back to 0x40",
        BYTES(CAP_VENDOR + 1, CAP_PM, 1)),
    BAD_SETUP("config-cap-at-end", "capability 0x10 at 0xfc is cut off",
              ts_setup_cap_at_end),
    BAD_SETUP("config-cap-twice", "capability 0x11 is there twice",
              ts_setup_two_msix),
    BAD("config-msi-64-vectors", "MSI capability claims 64 vectors",
        BYTES(CAP_MSI + 2, 6 << 1, 2)),
    BAD("config-msix-bir-3", "MSI-X table is in BAR 3, which is no memory",
        BYTES(CAP_MSIX + 4, 3, 4)),
    BAD("config-msix-bir-6", "MSI-X table is in BAR 6, which is no memory",
        BYTES(CAP_MSIX + 4, 6, 4)),
    BAD("config-msix-bir-7", "MSI-X table is in BAR 7, which is no memory",
        BYTES(CAP_MSIX + 4, 7, 4)),
    BAD("config-msix-in-io-bar", "MSI-X table is in BAR 4, which is no mem",
        BYTES(CAP_MSIX + 4, 4, 4)),
    BAD("config-pba-bir-7", "MSI-X PBA is in BAR 7, which is no memory BAR",
        BYTES(CAP_MSIX + 8, 7, 4)),
    BAD("config-msix-outside", "MSI-X table at 0x40000000+0x100 is outside",
        BYTES(CAP_MSIX + 4, 0x40000005, 4)),
    BAD("config-msix-last-entry", "MSI-X table at 0x1f08+0x100 is outside",
        BYTES(CAP_MSIX + 4, 0x1f0d, 4)),
    BAD("config-msix-2048", "MSI-X table at 0x0+0x8000 is outside BAR 5",
        BYTES(CAP_MSIX + 2, 0x7ff, 2)),
    BAD("config-pba-outside", "MSI-X PBA at 0xfffffff8+0x8 is outside BAR 5",
        BYTES(CAP_MSIX + 8, 0xfffffffd, 4)),
    BAD_SETUP("config-ext-cap-loop", "capability list leads back to 0x100",
              ts_setup_ext_cap_loop),
    BAD_SETUP("config-ext-cap-low", "capability list leads to 0x040",
              ts_setup_ext_cap_low),
    BAD_SETUP("config-ext-cap-at-end", "0x000b at 0xffc has 4 bytes, 8 are",
              ts_setup_ext_cap_at_end),

    BAD("irq-index", "interrupt index 0: answer is about interrupt index 1",
        Q(0, PATCH, PUT(QI_INDEX, 1, 4))),
    BAD("irq-index-max", "interrupt index 2: *interrupt index 4294967295",
        Q(2, PATCH, PUT(QI_INDEX, UINT32_MAX, 4))),
    BAD("irq-count-huge", "interrupt index 2: 4294967295 interrupts at",
        Q(2, PATCH, PUT(QI_COUNT, UINT32_MAX, 4))),
    BAD("irq-intx-two", "interrupt index 0: 2 interrupts at index 0, at most",
        Q(0, PATCH, PUT(QI_COUNT, 2, 4))),
    BAD("irq-msi-33", "interrupt index 1: 33 interrupts at index 1, at most",
        Q(1, PATCH, PUT(QI_COUNT, 33, 4))),
    BAD("irq-msix-2049", "interrupt index 2: 2049 interrupts at index 2, at",
        Q(2, PATCH, PUT(QI_COUNT, 2049, 4))),
    FINE("irq-msix-2048", Q(2, PATCH, PUT(QI_COUNT, 2048, 4))),
    FINE("irq-count-zero", Q(2, PATCH, PUT(QI_COUNT, 0, 4))),
    FINE("irq-count-one-less", Q(2, PATCH, PUT(QI_COUNT, 15, 4))),
    /* But config space has a pin. */
    BAD("irq-intx-none", "interrupt INTX-0: *Invalid argument",
        Q(0, PATCH, PUT(QI_COUNT, 0, 4))),
    FINE("irq-argsz-zero", Q(-1, PATCH, PUT(QI_ARGSZ, 0, 4))),
    FINE("irq-flags-zero", Q(-1, PATCH, PUT(QI_FLAGS, 0, 4))),
    FINE("irq-flags-max", Q(-1, PATCH, PUT(QI_FLAGS, UINT32_MAX, 4))),
    BAD("irq-short", "interrupt index 0: payload of 15 bytes is too short",
        Q(0, CUT, .a = 15)),
    BAD("irq-long", "interrupt index 0: DEVICE_GET_IRQ_INFO failed: *larger",
        Q(0, PAD, .a = 1)),
    BAD("irq-refused", "interrupt index 4: *_IRQ_INFO failed: Invalid",
        Q(4, ERROR, .a = EINVAL)),
    BAD("irq-closed", "interrupt index *: DEVICE_GET_IRQ_INFO failed: *" CLOSED,
        Q(1, CLOSE)),

    FINE_SETUP("mig-absent-einval", ts_setup_mig_absent_einval),
    FINE_SETUP("mig-absent-eopnotsupp", ts_setup_mig_absent_eopnotsupp),
    BAD_SETUP("mig-absent-closed", CLOSED, ts_setup_mig_absent_closed),
    FINE_SETUP("mig-flags-none", ts_setup_mig_flags_none),
    FINE_SETUP("mig-flags-unknown", ts_setup_mig_flags_unknown),
    BAD_SETUP("mig-without-stop-copy", "migration flags 0x4 lack stop-copy",
              ts_setup_mig_without_stop_copy),
    MIG("mig-short", REFUSED, "payload of 15 bytes", 1, CUT, .a = 15),
    MIG("mig-empty", REFUSED, "payload of 0 bytes", 1, CUT, .a = 0),
    MIG("mig-long", REFUSED, "larger than the request", 1, PAD, .a = 8),
    MIG("mig-index", REFUSED, "feature flags 0x10002", 1, PATCH,
        PUT(4, 2 | 1 << 16, 4)),
    /* Such servers exist: theirs are devices that cannot be migrated. */
    MIG("mig-unanswered", HARMLESS, NULL, 1, DROP),
    MIG("mig-fds", HARMLESS, NULL, 1, EXTRA_FDS, .a = 2),
    MIG("mig-logging-refused", HARMLESS, NULL, 6, ERROR, .a = EINVAL),
    MIG("mig-logging-index", REFUSED, "feature flags", 6, PATCH,
        PUT(4, 1, 4)),

    BAD("map-refused", "DMA_MAP*No space left", REPLY(DMA_MAP, -1, ERROR,
                                                      .a = ENOSPC)),
    BAD("map-unanswered", "DMA_MAP*" LATE, REPLY(DMA_MAP, -1, DROP)),
    BAD("map-closed", CLOSED, REPLY(DMA_MAP, -1, CLOSE)),
    BAD("map-long", "larger than the request", REPLY(DMA_MAP, -1, PAD,
                                                     .a = 32)),
    BAD("map-twice", "a reply to nothing", REPLY(DMA_MAP, -1, TWICE)),
    WARNS("reset-refused", "reset failed: Input/output error",
          REPLY(DEVICE_RESET, -1, ERROR, .a = EIO)),
};

const unsigned ts_nr_mischiefs = G_N_ELEMENTS(ts_mischiefs);
