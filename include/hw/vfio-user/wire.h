/*
 * vfio-user: the layouts of the wire
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every integer travels in host byte order; sizes and offsets are bytes. The
 * structures below are payloads: what follows the 16-byte header. Section
 * names refer to docs/interop/vfio-user.rst. Only the C library is needed, so
 * that the client, the test server and the benchmarks can all include it.
 */

#ifndef HW_VFIO_USER_WIRE_H
#define HW_VFIO_USER_WIRE_H

#include <stdint.h>

#define VFIO_USER_WIRE_SIZE(type, bytes)                                    \
    _Static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")

/* The version that this project speaks (section VERSION). */
#define VFIO_USER_MAJOR 0
#define VFIO_USER_MINOR 2

enum vfio_user_command {
    VFIO_USER_VERSION                   = 1,
    VFIO_USER_DMA_MAP                   = 2,
    VFIO_USER_DMA_UNMAP                 = 3,
    VFIO_USER_DEVICE_GET_INFO           = 4,
    VFIO_USER_DEVICE_GET_REGION_INFO    = 5,
    VFIO_USER_DEVICE_GET_REGION_IO_FDS  = 6,
    VFIO_USER_DEVICE_GET_IRQ_INFO       = 7,
    VFIO_USER_DEVICE_SET_IRQS           = 8,
    VFIO_USER_REGION_READ               = 9,
    VFIO_USER_REGION_WRITE              = 10,
    VFIO_USER_DMA_READ                  = 11,
    VFIO_USER_DMA_WRITE                 = 12,
    VFIO_USER_DEVICE_RESET              = 13,
    VFIO_USER_DIRTY_PAGES               = 14, /* withdrawn, never sent */
    VFIO_USER_REGION_WRITE_MULTI        = 15,
    VFIO_USER_DEVICE_FEATURE            = 16,
    VFIO_USER_MIG_DATA_READ             = 17,
    VFIO_USER_MIG_DATA_WRITE            = 18,
    VFIO_USER_COMMAND_MAX
};

/* Header: 16 bytes in front of every message. */
#define VFIO_USER_TYPE_MASK         0xfu
#define VFIO_USER_TYPE_COMMAND      0x0u
#define VFIO_USER_TYPE_REPLY        0x1u
#define VFIO_USER_NO_REPLY          0x10u
#define VFIO_USER_ERROR             0x20u

struct vfio_user_header {
    uint16_t id;
    uint16_t command;
    uint32_t size;          /* of the whole message, header included */
    uint32_t flags;
    uint32_t error;         /* errno, only with VFIO_USER_ERROR */
};
VFIO_USER_WIRE_SIZE(struct vfio_user_header, 16);

/* VERSION: followed by NUL-terminated JSON, or by nothing. */
struct vfio_user_version {
    uint16_t major;
    uint16_t minor;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_version, 4);

/* DMA_MAP */
#define VFIO_USER_DMA_READABLE      (1u << 0)
#define VFIO_USER_DMA_WRITEABLE     (1u << 1)

struct vfio_user_dma_map {
    uint32_t argsz;
    uint32_t flags;
    uint64_t offset;        /* in the fd that comes with the message */
    uint64_t addr;          /* IOVA */
    uint64_t size;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_dma_map, 32);

/* DMA_UNMAP, the same both ways */
struct vfio_user_dma_unmap {
    uint32_t argsz;
    uint32_t flags;
    uint64_t addr;
    uint64_t size;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_dma_unmap, 24);

/* DEVICE_GET_INFO, the same both ways */
#define VFIO_USER_DEVICE_RESETTABLE (1u << 0)
#define VFIO_USER_DEVICE_PCI        (1u << 1)

struct vfio_user_device_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t num_regions;
    uint32_t num_irqs;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_device_info, 16);

/* DEVICE_GET_REGION_INFO: capabilities follow in the reply. */
#define VFIO_USER_REGION_READABLE   (1u << 0)
#define VFIO_USER_REGION_WRITEABLE  (1u << 1)
#define VFIO_USER_REGION_MMAP       (1u << 2)
#define VFIO_USER_REGION_CAPS       (1u << 3)

struct vfio_user_region_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t cap_offset;
    uint64_t size;
    uint64_t offset;        /* for mmap() of the fd that comes along */
};
VFIO_USER_WIRE_SIZE(struct vfio_user_region_info, 32);

struct vfio_user_cap_header {
    uint16_t id;
    uint16_t version;
    uint32_t next;          /* from the start of the region info; 0: last */
};
VFIO_USER_WIRE_SIZE(struct vfio_user_cap_header, 8);

#define VFIO_USER_CAP_SPARSE_MMAP   1
#define VFIO_USER_CAP_TYPE          2

struct vfio_user_sparse_area {
    uint64_t offset;
    uint64_t size;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_sparse_area, 16);

struct vfio_user_cap_sparse {
    struct vfio_user_cap_header header;
    uint32_t nr_areas;
    uint32_t reserved;
    struct vfio_user_sparse_area areas[];
};
VFIO_USER_WIRE_SIZE(struct vfio_user_cap_sparse, 16);

struct vfio_user_cap_type {
    struct vfio_user_cap_header header;
    uint32_t type;
    uint32_t subtype;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_cap_type, 16);

enum vfio_user_region {
    VFIO_USER_REGION_BAR0   = 0,
    VFIO_USER_REGION_BAR5   = 5,
    VFIO_USER_REGION_ROM    = 6,
    VFIO_USER_REGION_CONFIG = 7,
    VFIO_USER_REGION_VGA    = 8,
};

/* DEVICE_GET_REGION_IO_FDS */
struct vfio_user_io_fds {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t count;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_io_fds, 16);

#define VFIO_USER_IO_FD_IOEVENTFD   0
#define VFIO_USER_IO_FD_IOREGIONFD  1
#define VFIO_USER_IO_FD_SHADOW      2

#define VFIO_USER_IO_FD_DATAMATCH   (1u << 0)
#define VFIO_USER_IO_FD_PIO         (1u << 1)

struct vfio_user_io_fd {
    uint64_t offset;
    uint64_t size;
    uint32_t fd_index;
    uint32_t type;
    uint32_t flags;         /* KVM's ioeventfd flags */
    uint32_t shadow_fd_index;
    uint64_t data;          /* datamatch, user data, or shadow offset */
};
VFIO_USER_WIRE_SIZE(struct vfio_user_io_fd, 40);

/* DEVICE_GET_IRQ_INFO, the same both ways */
#define VFIO_USER_IRQ_EVENTFD       (1u << 0)
#define VFIO_USER_IRQ_MASKABLE      (1u << 1)
#define VFIO_USER_IRQ_AUTOMASKED    (1u << 2)
#define VFIO_USER_IRQ_NORESIZE      (1u << 3)

struct vfio_user_irq_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t count;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_irq_info, 16);

enum vfio_user_irq {
    VFIO_USER_IRQ_INTX  = 0,
    VFIO_USER_IRQ_MSI   = 1,
    VFIO_USER_IRQ_MSIX  = 2,
    VFIO_USER_IRQ_ERR   = 3,
    VFIO_USER_IRQ_REQ   = 4,
    VFIO_USER_IRQ_MAX
};

/* DEVICE_SET_IRQS: `count` bytes follow with DATA_BOOL. */
#define VFIO_USER_IRQ_DATA_NONE     (1u << 0)
#define VFIO_USER_IRQ_DATA_BOOL     (1u << 1)
#define VFIO_USER_IRQ_DATA_EVENTFD  (1u << 2)
#define VFIO_USER_IRQ_MASK          (1u << 3)
#define VFIO_USER_IRQ_UNMASK        (1u << 4)
#define VFIO_USER_IRQ_TRIGGER       (1u << 5)

struct vfio_user_irq_set {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t start;
    uint32_t count;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_irq_set, 20);

/* REGION_READ, REGION_WRITE: data follows in a WRITE and in a READ's reply. */
struct vfio_user_region_rw {
    uint64_t offset;
    uint32_t region;
    uint32_t count;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_region_rw, 16);

/* REGION_WRITE_MULTI: wr_cnt entries follow; the reply is wr_cnt alone. */
struct vfio_user_write_multi {
    uint64_t wr_cnt;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_write_multi, 8);

struct vfio_user_write_multi_entry {
    uint64_t offset;
    uint32_t region;
    uint32_t count;         /* 1 to 8 */
    uint8_t data[8];
};
VFIO_USER_WIRE_SIZE(struct vfio_user_write_multi_entry, 24);

/* DMA_READ, DMA_WRITE: data follows in a WRITE and in a READ's reply. */
struct vfio_user_dma_rw {
    uint64_t addr;
    uint64_t count;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_dma_rw, 16);

/* DEVICE_FEATURE: data follows. */
#define VFIO_USER_FEATURE_MASK      0xffffu
#define VFIO_USER_FEATURE_GET       (1u << 16)
#define VFIO_USER_FEATURE_SET       (1u << 17)
#define VFIO_USER_FEATURE_PROBE     (1u << 18)

struct vfio_user_feature {
    uint32_t argsz;
    uint32_t flags;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_feature, 8);

enum vfio_user_feature_index {
    VFIO_USER_FEATURE_MIGRATION         = 1,
    VFIO_USER_FEATURE_MIG_DEVICE_STATE  = 2,
    VFIO_USER_FEATURE_DMA_LOGGING_START = 6,
    VFIO_USER_FEATURE_DMA_LOGGING_STOP  = 7,
    VFIO_USER_FEATURE_DMA_LOGGING_REPORT = 8,
    /*
     * Not in the protocol, which takes its numbers from the kernel, where
     * this is one u64: bytes that STOP_COPY will give. It does no harm to ask.
     */
    VFIO_USER_FEATURE_MIG_DATA_SIZE     = 9,
};

/* Feature MIGRATION */
#define VFIO_USER_MIGRATION_STOP_COPY   (1u << 0)
#define VFIO_USER_MIGRATION_P2P         (1u << 1)
#define VFIO_USER_MIGRATION_PRE_COPY    (1u << 2)

struct vfio_user_feature_migration {
    uint64_t flags;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_feature_migration, 8);

/* Feature MIG_DEVICE_STATE */
enum vfio_user_mig_state {
    VFIO_USER_MIG_ERROR         = 0,
    VFIO_USER_MIG_STOP          = 1,
    VFIO_USER_MIG_RUNNING       = 2,
    VFIO_USER_MIG_STOP_COPY     = 3,
    VFIO_USER_MIG_RESUMING      = 4,
    VFIO_USER_MIG_RUNNING_P2P   = 5,
    VFIO_USER_MIG_PRE_COPY      = 6,
    VFIO_USER_MIG_PRE_COPY_P2P  = 7,
};

struct vfio_user_feature_mig_state {
    uint32_t state;
    uint32_t data_fd;       /* unused: MIG_DATA_READ and MIG_DATA_WRITE */
};
VFIO_USER_WIRE_SIZE(struct vfio_user_feature_mig_state, 8);

/* Feature DMA_LOGGING_START: ranges follow. */
struct vfio_user_dma_range {
    uint64_t iova;
    uint64_t length;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_dma_range, 16);

struct vfio_user_feature_dma_logging {
    uint64_t page_size;
    uint32_t num_ranges;
    uint32_t reserved;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_feature_dma_logging, 16);

/*
 * Feature DMA_LOGGING_REPORT: the reply appends a bitmap of u64 words, bit i
 * for the page at iova + i * page_size.
 */
struct vfio_user_feature_dma_report {
    uint64_t iova;
    uint64_t length;
    uint64_t page_size;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_feature_dma_report, 24);

/* Feature MIG_DATA_SIZE */
struct vfio_user_feature_mig_data_size {
    uint64_t stop_copy_length;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_feature_mig_data_size, 8);

/* MIG_DATA_READ, MIG_DATA_WRITE: data follows in a WRITE and a READ's reply. */
struct vfio_user_mig_data {
    uint32_t argsz;
    uint32_t size;
};
VFIO_USER_WIRE_SIZE(struct vfio_user_mig_data, 8);

/* Defaults of the capabilities in VERSION. */
#define VFIO_USER_DEFAULT_MAX_MSG_FDS       1
#define VFIO_USER_DEFAULT_MAX_DATA_XFER     (1024 * 1024)
#define VFIO_USER_DEFAULT_MAX_DMA_MAPS      65535
#define VFIO_USER_DEFAULT_PGSIZES           4096

/* The largest number of fds that one message of ours carries or accepts. */
#define VFIO_USER_MAX_MSG_FDS               16

#endif /* HW_VFIO_USER_WIRE_H */
