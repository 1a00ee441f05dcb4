/*
 * vfio-user: blocks of a recording
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_PCAPNG_H
#define HW_VFIO_USER_PCAPNG_H

/* More than any block has besides the message and a name. */
#define VFIO_USER_PCAPNG_ROOM   512

/**
 * VFIOUserPcapngPacket: a message
 * @interface: counts from 0, in the order of vfio_user_pcapng_interface()
 * @time_ns: since 1970
 * @inbound: from the server
 * @twin: on the second socket
 * @nr_fds: descriptors that went with it
 * @data, @len: what is kept of it
 * @size: bytes that there were, or should have been
 * @dropped: messages on this interface that are missing in front of it
 * @comment: or NULL
 */
typedef struct VFIOUserPcapngPacket {
    unsigned interface;
    int64_t time_ns;
    bool inbound;
    bool twin;
    unsigned nr_fds;
    const void *data;
    size_t len;
    size_t size;
    uint64_t dropped;
    const char *comment;
} VFIOUserPcapngPacket;

/* Each appends a block to @to. The first is the section, of device @name. */
void vfio_user_pcapng_section(GByteArray *to, const char *name);

/* @snap: @len of its packets is never above */
void vfio_user_pcapng_interface(GByteArray *to, const char *name,
                                uint32_t snap);
void vfio_user_pcapng_packet(GByteArray *to, const VFIOUserPcapngPacket *p);

/* @received: messages, those @dropped included */
void vfio_user_pcapng_statistics(GByteArray *to, unsigned interface,
                                 int64_t time_ns, uint64_t received,
                                 uint64_t dropped);

#endif /* HW_VFIO_USER_PCAPNG_H */
