/*
 * vfio-user: capabilities that the two sides tell each other in VERSION
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CAPS_H
#define HW_VFIO_USER_CAPS_H

#include "hw/vfio-user/wire.h"

/* Most payload that a VERSION reply may have, in bytes. */
#define VFIO_USER_CAPS_MAX_REPLY        (16u * 1024)

/* The most that we can use, and what we tell the server about ourselves. */
#define VFIO_USER_CAPS_MAX_DATA_XFER    (1024u * 1024)
#define VFIO_USER_CAPS_MAX_DMA_MAPS     65535u

/**
 * VFIOUserCaps: what holds on a connection; immutable after negotiation
 *
 * @major, @minor: as answered
 * @max_msg_fds: descriptors that the server takes in one message, 0..16
 * @max_data_xfer_size: limit of count in REGION_* towards the server and of
 *     the data in MIG_DATA_*: 8..VFIO_USER_CAPS_MAX_DATA_XFER
 * @max_dma_maps: windows valid at once: 1..VFIO_USER_CAPS_MAX_DMA_MAPS
 * @pgsizes: or-ed page sizes for DMA_MAP, never 0
 * @twin_socket: the server's commands come on a socket of their own:
 * @twin_fd_index: its position among the descriptors of the reply
 * @write_multiple: REGION_WRITE_MULTI is understood
 * @has_migration: the server sent "migration"; then
 * @migration_pgsize, @migration_max_bitmap_size: as sent, 0 if absent
 */
typedef struct VFIOUserCaps {
    uint16_t major;
    uint16_t minor;
    uint64_t max_msg_fds;
    uint64_t max_data_xfer_size;
    uint64_t max_dma_maps;
    uint64_t pgsizes;
    bool twin_socket;
    uint32_t twin_fd_index;
    bool write_multiple;
    bool has_migration;
    uint64_t migration_pgsize;
    uint64_t migration_max_bitmap_size;
} VFIOUserCaps;

/**
 * vfio_user_caps_request: payload of our VERSION request
 * @len: set to its length in bytes: version, JSON and the final NUL
 *
 * Returns memory for g_free().
 */
char *vfio_user_caps_request(size_t *len);

/**
 * vfio_user_caps_parse: understand the payload of the VERSION reply
 * @payload, @len: the reply; at most VFIO_USER_CAPS_MAX_REPLY bytes
 * @nr_fds: descriptors that came with it
 * @caps: filled on success
 *
 * What is absent gets the protocol's default, what is more than we can use is
 * clamped, unknown keys are ignored. Refused, with a text that names the key:
 * a value of the wrong type, and a limit that nothing could work with. Any
 * thread, no side effects.
 */
bool vfio_user_caps_parse(const void *payload, size_t len, size_t nr_fds,
                          VFIOUserCaps *caps, Error **errp);

#endif /* HW_VFIO_USER_CAPS_H */
