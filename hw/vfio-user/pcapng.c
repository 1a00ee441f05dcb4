/*
 * vfio-user: blocks of a recording
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The file is pcapng, in the host's byte order. A packet is a message, of the
 * link type for what is above the network (WIRESHARK_UPPER_PDU): it names the
 * dissector, and so says what is missing where that is not there. The private
 * numbers (USER0..) say nothing, and others use them, too. Each message has a
 * head of four bytes (PacketHead), as pcapng has no place for descriptors.
 */

#include "qemu/osdep.h"
#include "pcapng.h"

enum {
    BLOCK_INTERFACE = 1,
    BLOCK_STATISTICS = 5,
    BLOCK_PACKET = 6,
    BLOCK_SECTION = 0x0a0d0d0a,
    BYTE_ORDER_MAGIC = 0x1a2b3c4d,

    OPT_END = 0,
    OPT_COMMENT = 1,
    OPT_SECTION_APPLICATION = 4,
    OPT_IF_NAME = 2,
    OPT_IF_TSRESOL = 9,
    OPT_PACKET_FLAGS = 2,
    OPT_PACKET_DROPPED = 4,
    OPT_STAT_RECEIVED = 4,
    OPT_STAT_DROPPED = 5,

    PACKET_INBOUND = 1,
    PACKET_OUTBOUND = 2,

    LINKTYPE_UPPER_PDU = 252,
    PDU_TAG_DISSECTOR = 12,
};

/* In front of each message; the dissector knows it. */
typedef struct PacketHead {
    uint8_t version;        /* 1 */
    uint8_t flags;
    uint8_t nr_fds;         /* descriptors that went with the message */
    uint8_t reserved;
} PacketHead;

#define HEAD_FROM_SERVER    1
#define HEAD_TWIN           2
#define HEAD_BIG_ENDIAN     4

/* Names the dissector, then ends the tags. Network byte order. */
static const uint8_t packet_tags[] = {
    0, PDU_TAG_DISSECTOR, 0, 12,
    'v', 'f', 'i', 'o', '_', 'u', 's', 'e', 'r', 0, 0, 0,
    0, 0, 0, 0,
};

#define PACKET_PREFIX   (sizeof(packet_tags) + sizeof(PacketHead))

static void put(GByteArray *to, const void *data, size_t len)
{
    g_byte_array_append(to, data, len);
}

static void put32(GByteArray *to, uint32_t v)
{
    put(to, &v, sizeof(v));
}

static void put_time(GByteArray *to, int64_t ns)
{
    put32(to, (uint64_t)ns >> 32);
    put32(to, ns);
}

static void pad(GByteArray *to)
{
    static const uint8_t zero[3];

    put(to, zero, -to->len & 3);
}

/* Returns where the block begins, for block_end(). */
static size_t block_begin(GByteArray *to, uint32_t type)
{
    size_t at = to->len;

    put32(to, type);
    put32(to, 0);
    return at;
}

static void put_option(GByteArray *to, uint16_t code, const void *data,
                       uint16_t len)
{
    put(to, &code, sizeof(code));
    put(to, &len, sizeof(len));
    put(to, data, len);
    pad(to);
}

static void put_text(GByteArray *to, uint16_t code, const char *text)
{
    put_option(to, code, text, MIN(strlen(text), UINT16_MAX));
}

static void block_end(GByteArray *to, size_t at)
{
    uint32_t len;

    put_option(to, OPT_END, NULL, 0);
    len = to->len + sizeof(len) - at;
    put32(to, len);
    memcpy(to->data + at + sizeof(len), &len, sizeof(len));
}

void vfio_user_pcapng_section(GByteArray *to, const char *name)
{
    g_autofree char *who = g_strdup_printf("QEMU " QEMU_VERSION
                                           " vfio-user-pci %s", name);
    static const uint16_t version[2] = { 1, 0 };
    static const int64_t unknown = -1;
    size_t at = block_begin(to, BLOCK_SECTION);

    put32(to, BYTE_ORDER_MAGIC);
    put(to, version, sizeof(version));
    put(to, &unknown, sizeof(unknown));
    put_text(to, OPT_SECTION_APPLICATION, who);
    block_end(to, at);
}

void vfio_user_pcapng_interface(GByteArray *to, const char *name,
                                uint32_t snap)
{
    static const uint16_t link[2] = { LINKTYPE_UPPER_PDU, 0 };
    static const uint8_t nanoseconds = 9;
    size_t at = block_begin(to, BLOCK_INTERFACE);

    put(to, link, sizeof(link));
    put32(to, PACKET_PREFIX + snap);
    put_text(to, OPT_IF_NAME, name);
    put_option(to, OPT_IF_TSRESOL, &nanoseconds, 1);
    block_end(to, at);
}

void vfio_user_pcapng_packet(GByteArray *to, const VFIOUserPcapngPacket *p)
{
    PacketHead head = {
        .version = 1,
        .flags = (p->inbound ? HEAD_FROM_SERVER : 0) |
                 (p->twin ? HEAD_TWIN : 0) |
                 (HOST_BIG_ENDIAN ? HEAD_BIG_ENDIAN : 0),
        .nr_fds = MIN(p->nr_fds, UINT8_MAX),
    };
    uint32_t flags = p->inbound ? PACKET_INBOUND : PACKET_OUTBOUND;
    size_t at = block_begin(to, BLOCK_PACKET);

    put32(to, p->interface);
    put_time(to, p->time_ns);
    put32(to, PACKET_PREFIX + p->len);
    put32(to, MIN(PACKET_PREFIX + (uint64_t)p->size, UINT32_MAX));
    put(to, packet_tags, sizeof(packet_tags));
    put(to, &head, sizeof(head));
    put(to, p->data, p->len);
    pad(to);
    put_option(to, OPT_PACKET_FLAGS, &flags, sizeof(flags));
    if (p->dropped) {
        put_option(to, OPT_PACKET_DROPPED, &p->dropped, sizeof(p->dropped));
    }
    if (p->comment) {
        put_text(to, OPT_COMMENT, p->comment);
    }
    block_end(to, at);
}

void vfio_user_pcapng_statistics(GByteArray *to, unsigned interface,
                                 int64_t time_ns, uint64_t received,
                                 uint64_t dropped)
{
    size_t at = block_begin(to, BLOCK_STATISTICS);

    put32(to, interface);
    put_time(to, time_ns);
    put_option(to, OPT_STAT_RECEIVED, &received, sizeof(received));
    put_option(to, OPT_STAT_DROPPED, &dropped, sizeof(dropped));
    block_end(to, at);
}
