/*
 * vfio-user: a device behind a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The operations table that hw/vfio calls in place of system calls: it answers
 * from what negotiate.c learnt, or turns the call into a command.
 *
 * Before realize is over an access that fails returns its error, which fails
 * realize. Afterwards a guest could make errors at will, so the access reads
 * all-ones or is dropped, as hardware that does not answer, and the log gets
 * one line: for a device that is gone the connection's report, for a request
 * that the server refused or left unanswered a warning a second at most.
 *
 * Posted writes. A write to a memory BAR needs no reply: PCI posts it too. The
 * server handles commands in their order, so no later access by message
 * overtakes it. A mapped area is accessed without a message, though: the guest
 * could ring a doorbell by message and find the mapped register behind it
 * unchanged, which PCI ordering forbids. So a device that has a mapped area
 * anywhere, or writes that are signals (ioeventfd.c), gets its writes
 * acknowledged. I/O ports and config space are never posted.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "hw/pci/pci.h"
#include "qapi/error.h"
#include "device.h"
#include "ioeventfd.h"
#include "reconnect.h"
#include "sigbus.h"
#include "trace.h"

/* Callbacks of the connection ---------------------------------------------- */

static int vfio_user_device_dma_begin(void *opaque, uint64_t addr,
                                      uint64_t count, bool is_write,
                                      VFIOUserDMA *dma)
{
    VFIOUserDevice *udev = opaque;

    if (!udev->twin) {
        /* It uses messages although guest RAM may be shared. */
        vfio_user_conn_set_lockstep(udev->conn);
    }
    if (!qatomic_read(&udev->as)) {
        return -ENXIO;
    }
    return vfio_user_dma_begin(udev, addr, count, is_write, dma);
}

static void vfio_user_device_dma_end(void *opaque, VFIOUserDMA *dma,
                                     bool is_write, uint64_t done)
{
    VFIOUserDevice *udev = opaque;

    vfio_user_dma_end(udev, dma, is_write, done);
}

bool vfio_user_device_settle(VFIOUserDevice *udev, Error **errp)
{
    uint32_t ids;
    int ret = vfio_user_device_read(udev, VFIO_USER_REGION_CONFIG, 0, &ids,
                                    sizeof(ids));

    if (ret) {
        Error *err = vfio_user_conn_error(udev->conn);

        if (!err) {
            error_setg(&err, "%s", ret == -ETIMEDOUT ?
                       "the server did not answer in time" : strerror(-ret));
        }
        error_prepend(&err, "setting up interrupts failed: ");
        error_propagate(errp, err);
    }
    return !ret;
}

void vfio_user_device_set_ready(VFIOUserDevice *udev)
{
    qatomic_set(&udev->ready, true);
    /* Who loses it after this look sees @ready: both are under its lock. */
    if (vfio_user_conn_broken(udev->conn)) {
        vfio_user_reconnect_lost(udev);
    }
}

static void vfio_user_device_failed(void *opaque)
{
    VFIOUserDevice *udev = opaque;

    if (qatomic_read(&udev->ready)) {
        vfio_user_reconnect_lost(udev);
    }
}

static void vfio_user_device_twin_failed(void *opaque)
{
    VFIOUserDevice *udev = opaque;
    Error *err = vfio_user_conn_error(udev->twin);

    error_prepend(&err, "second socket: ");
    if (vfio_user_conn_left(udev->twin)) {
        vfio_user_conn_set_left(udev->conn);
    }
    vfio_user_conn_fail(udev->conn, err);
}

const VFIOUserConnOps vfio_user_device_conn_ops = {
    .dma_begin = vfio_user_device_dma_begin,
    .dma_end = vfio_user_device_dma_end,
    .failed = vfio_user_device_failed,
    .tick = vfio_user_bql_tick,
};

const VFIOUserConnOps vfio_user_device_twin_ops = {
    .dma_begin = vfio_user_device_dma_begin,
    .dma_end = vfio_user_device_dma_end,
    .failed = vfio_user_device_twin_failed,
};

void vfio_user_device_offline(VFIOUserDevice *udev, Error *err)
{
    vfio_user_conn_fail(udev->conn, err);
}

/* Commands ------------------------------------------------------------------ */

int vfio_user_device_call(VFIOUserDevice *udev, uint16_t command,
                          void *out, size_t out_len, void *in, size_t in_room,
                          size_t *in_len)
{
    struct iovec out_iov = { .iov_base = out, .iov_len = out_len };
    struct iovec in_iov = { .iov_base = in, .iov_len = in_room };
    VFIOUserRequest req = {
        .command = command,
        .out = &out_iov, .nr_out = out_len ? 1 : 0,
        .in = &in_iov, .nr_in = in_room ? 1 : 0,
        .timeout_ms = command == VFIO_USER_DEVICE_RESET ?
                      vfio_user_migration_timeout(udev) : 0,
    };
    int ret = vfio_user_conn_call(udev->conn, &req);

    if (in_len) {
        *in_len = req.in_len;
    }
    return ret;
}

VFIOUserRegion *vfio_user_device_region(VFIOUserDevice *udev, unsigned index)
{
    return index < udev->info.num_regions ? &udev->regions[index] : NULL;
}

void vfio_user_device_broke_protocol(VFIOUserDevice *udev, Error *err)
{
    error_prepend(&err, "the server broke the protocol: ");
    vfio_user_device_offline(udev, err);
}

static int vfio_user_device_bad_reply(VFIOUserDevice *udev, Error *err)
{
    vfio_user_device_broke_protocol(udev, err);
    return -EPIPE;
}

static int vfio_user_device_read_part(VFIOUserDevice *udev,
                                      struct vfio_user_region_rw *rw,
                                      void *buf)
{
    struct vfio_user_region_rw rep;
    struct iovec out = { .iov_base = rw, .iov_len = sizeof(*rw) };
    struct iovec in[] = {
        { .iov_base = &rep, .iov_len = sizeof(rep) },
        { .iov_base = buf, .iov_len = rw->count },
    };
    VFIOUserRequest req = {
        .command = VFIO_USER_REGION_READ,
        .out = &out, .nr_out = 1,
        .in = in, .nr_in = ARRAY_SIZE(in),
    };
    Error *err = NULL;
    int ret = vfio_user_conn_call(udev->conn, &req);

    if (!ret && !vfio_user_wire_check_region_rw(&rep, req.in_len, rw, false,
                                                &err)) {
        return vfio_user_device_bad_reply(udev, err);
    }
    return ret;
}

static int vfio_user_device_write_part(VFIOUserDevice *udev,
                                       struct vfio_user_region_rw *rw,
                                       const void *buf, bool posted)
{
    struct vfio_user_region_rw rep;
    struct iovec out[] = {
        { .iov_base = rw, .iov_len = sizeof(*rw) },
        { .iov_base = (void *)buf, .iov_len = rw->count },
    };
    struct iovec in = { .iov_base = &rep, .iov_len = sizeof(rep) };
    VFIOUserRequest req = {
        .command = VFIO_USER_REGION_WRITE,
        .out = out, .nr_out = ARRAY_SIZE(out),
        .in = &in, .nr_in = 1,
    };
    Error *err = NULL;
    int ret;

    posted = posted && !vfio_user_conn_lockstep(udev->conn);
    if (posted && udev->caps.write_multiple &&
        rw->count <= VFIO_USER_CONN_SMALL_WRITE) {
        return vfio_user_conn_post_write(udev->conn, rw->region, rw->offset,
                                         buf, rw->count);
    }
    if (posted) {
        return vfio_user_conn_post(udev->conn, &req);
    }
    ret = vfio_user_conn_call(udev->conn, &req);
    if (!ret && !vfio_user_wire_check_region_rw(&rep, req.in_len, rw, true,
                                                &err)) {
        return vfio_user_device_bad_reply(udev, err);
    }
    return ret;
}

/*
 * The usual case of a posted write: the socket has room, so nobody waits and
 * the BQL can stay. Returns -EAGAIN when it is not so simple.
 */
static int vfio_user_device_write_at_once(VFIOUserDevice *udev,
                                          const VFIOUserRegion *region,
                                          uint64_t off, const void *buf,
                                          size_t len)
{
    struct vfio_user_region_rw rw = {
        .offset = off,
        .region = region->info.index,
        .count = len,
    };
    struct iovec out[] = {
        { .iov_base = &rw, .iov_len = sizeof(rw) },
        { .iov_base = (void *)buf, .iov_len = len },
    };
    VFIOUserRequest req = {
        .command = VFIO_USER_REGION_WRITE,
        .out = out, .nr_out = ARRAY_SIZE(out),
    };

    if (!region->posted || len > VFIO_USER_CONN_SMALL_WRITE ||
        vfio_user_conn_lockstep(udev->conn)) {
        return -EAGAIN;
    }
    return vfio_user_conn_try_post(udev->conn, &req);
}

int vfio_user_device_read(VFIOUserDevice *udev, unsigned index, uint64_t off,
                          void *buf, size_t len)
{
    int ret = 0;

    while (len && !ret) {
        struct vfio_user_region_rw rw = {
            .offset = off,
            .region = index,
            .count = MIN(len, udev->caps.max_data_xfer_size),
        };

        ret = vfio_user_device_read_part(udev, &rw, buf);
        off += rw.count;
        buf += rw.count;
        len -= rw.count;
    }
    return ret;
}

int vfio_user_device_write(VFIOUserDevice *udev, unsigned index, uint64_t off,
                           const void *buf, size_t len)
{
    const VFIOUserRegion *region = &udev->regions[index];
    int ret = 0;

    while (len && !ret) {
        struct vfio_user_region_rw rw = {
            .offset = off,
            .region = index,
            .count = MIN(len, udev->caps.max_data_xfer_size),
        };

        ret = vfio_user_device_write_part(udev, &rw, buf, region->posted);
        off += rw.count;
        buf += rw.count;
        len -= rw.count;
    }
    return ret;
}

/* The operations table ------------------------------------------------------ */

static int vfio_user_device_errno(int ret)
{
    if (ret >= 0) {
        return ret;
    }
    errno = -ret;
    return -1;
}

/* The range of an access, or NULL with errno set. */
static VFIOUserRegion *vfio_user_device_range(VFIOUserDevice *udev, off_t off,
                                              size_t len, uint32_t flag)
{
    VFIOUserRegion *region =
        vfio_user_device_region(udev, VFIO_FILE_OFFSET_INDEX(off));
    uint64_t addr = off & VFIO_FILE_OFFSET_MASK;

    if (!region || addr > region->info.size ||
        len > region->info.size - addr) {
        errno = EINVAL;
        return NULL;
    }
    /* libvfio-user gives config space no flags at all. */
    if (!(region->info.flags & flag) &&
        region->info.index != VFIO_USER_REGION_CONFIG) {
        errno = EPERM;
        return NULL;
    }
    return region;
}

/*
 * An access failed after realize. The guest decides how often that happens, so
 * the log gets one line a second.
 */
static void vfio_user_device_access_failed(VFIOUserDevice *udev,
                                           const char *what, off_t off,
                                           size_t len, int ret)
{
    int64_t now = g_get_monotonic_time() / 1000;
    int64_t before = qatomic_read(&udev->complained_ms);

    trace_vfio_user_device_access_failed(udev->name, what,
                                         VFIO_FILE_OFFSET_INDEX(off),
                                         off & VFIO_FILE_OFFSET_MASK, len,
                                         -ret);
    if (ret == -EPIPE || now - before < 1000 ||
        qatomic_cmpxchg(&udev->complained_ms, before, now) != before) {
        return;
    }
    warn_report("vfio-user-pci %s: %s of %zu bytes at 0x%llx of region %" PRIu64
                " failed: %s", udev->name, what, len,
                off & VFIO_FILE_OFFSET_MASK, VFIO_FILE_OFFSET_INDEX(off),
                ret == -ETIMEDOUT ? "the server did not answer in time"
                                  : strerror(-ret));
}

/*
 * Config space during realize: hw/vfio gets what was checked, and sizes the ROM
 * BAR by the region that is behind it.
 */
static bool vfio_user_device_snapshot(VFIOUserDevice *udev, off_t off)
{
    return !udev->ready &&
           VFIO_FILE_OFFSET_INDEX(off) == VFIO_USER_REGION_CONFIG;
}

/* What never changes, and what hw/vfio asks whenever it goes back to INTx */
static bool vfio_user_device_is_pin(off_t off, size_t len)
{
    return !current_cpu && len == 1 &&
           VFIO_FILE_OFFSET_INDEX(off) == VFIO_USER_REGION_CONFIG &&
           (off & VFIO_FILE_OFFSET_MASK) == PCI_INTERRUPT_PIN;
}

static void vfio_user_device_write_rom_bar(VFIOUserDevice *udev,
                                           uint32_t value)
{
    uint64_t size = udev->regions[VFIO_USER_REGION_ROM].info.size;

    value = size ? value & -pow2ceil(MAX(size, 2 * KiB)) : 0;
    pci_set_long(udev->config + PCI_ROM_ADDRESS, value);
}

/*
 * Who is no vCPU is QEMU itself, in a reset or the like, with the BQL and with
 * several registers to write. The server takes them in their order, so what
 * comes afterwards finds them written, and nobody need wait.
 */
typedef struct VFIOUserConfigMsg {
    VFIOUserRequest req;
    VFIOUserDevice *udev;
    struct vfio_user_region_rw out, in;
    uint8_t data[sizeof(uint32_t)];
    struct iovec out_iov[2], in_iov;
} VFIOUserConfigMsg;

static void vfio_user_device_config_written(VFIOUserRequest *req)
{
    VFIOUserConfigMsg *msg = container_of(req, VFIOUserConfigMsg, req);
    Error *err = NULL;

    if (req->ret) {
        vfio_user_device_access_failed(msg->udev, "write",
                                       VFIO_FILE_OFFSET(msg->out.region) +
                                       msg->out.offset, msg->out.count,
                                       req->ret);
    } else if (!vfio_user_wire_check_region_rw(&msg->in, req->in_len, &msg->out,
                                               true, &err)) {
        vfio_user_device_broke_protocol(msg->udev, err);
    }
    g_free(msg);
}

static bool vfio_user_device_write_config_later(VFIOUserDevice *udev,
                                                const VFIOUserRegion *region,
                                                uint64_t off, const void *buf,
                                                size_t len)
{
    VFIOUserConfigMsg *msg;

    if (current_cpu || !udev->ready || len > sizeof(msg->data) ||
        region->info.index != VFIO_USER_REGION_CONFIG ||
        vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        return false;
    }
    msg = g_new0(VFIOUserConfigMsg, 1);
    msg->udev = udev;
    msg->out = (struct vfio_user_region_rw) {
        .offset = off, .region = VFIO_USER_REGION_CONFIG, .count = len,
    };
    memcpy(msg->data, buf, len);
    msg->out_iov[0] = (struct iovec) { &msg->out, sizeof(msg->out) };
    msg->out_iov[1] = (struct iovec) { msg->data, len };
    msg->in_iov = (struct iovec) { &msg->in, sizeof(msg->in) };
    msg->req = (VFIOUserRequest) {
        .command = VFIO_USER_REGION_WRITE,
        .out = msg->out_iov, .nr_out = 2,
        .in = &msg->in_iov, .nr_in = 1,
        .done = vfio_user_device_config_written,
    };
    vfio_user_conn_submit(udev->conn, &msg->req);
    return true;
}

/*
 * All-ones, as from an empty slot. But not for hw/vfio itself, which looks at
 * the interrupt pin whenever it goes back to INTx and complains about 255.
 */
static void vfio_user_device_read_nothing(VFIOUserDevice *udev, uint8_t *buf,
                                          size_t len, off_t off)
{
    memset(buf, 0xff, len);
    if (VFIO_FILE_OFFSET_INDEX(off) == VFIO_USER_REGION_CONFIG && len == 1 &&
        (off & VFIO_FILE_OFFSET_MASK) == PCI_INTERRUPT_PIN) {
        *buf = udev->config[PCI_INTERRUPT_PIN];
    }
}

/*
 * An access of the guest, which has to wait while the server is away, or is
 * none where that is not wanted. @may_wait: the caller is a vCPU without the
 * BQL.
 */
static int vfio_user_device_read_up(VFIOUserDevice *udev, off_t off, void *buf,
                                    size_t len, bool may_wait)
{
    unsigned life;
    int ret;

    do {
        life = vfio_user_reconnect_life(udev);
        ret = vfio_user_device_link(udev) == VFIO_USER_LINK_UP ?
              vfio_user_device_read(udev, VFIO_FILE_OFFSET_INDEX(off),
                                    off & VFIO_FILE_OFFSET_MASK, buf, len) :
              -EPIPE;
    } while (ret == -EPIPE && may_wait &&
             vfio_user_reconnect_wait(udev, life) != VFIO_USER_RETURN_NONE);
    return ret;
}

/* A server that begins anew has no use for what was meant for the one before. */
static int vfio_user_device_write_up(VFIOUserDevice *udev,
                                     const VFIOUserRegion *region, uint64_t off,
                                     const void *buf, size_t len, bool may_wait)
{
    unsigned life;
    int ret;

    do {
        life = vfio_user_reconnect_life(udev);
        ret = vfio_user_device_link(udev) == VFIO_USER_LINK_UP ?
              vfio_user_device_write(udev, region->info.index, off, buf, len) :
              -EPIPE;
    } while (ret == -EPIPE && may_wait &&
             vfio_user_reconnect_wait(udev, life) == VFIO_USER_RETURN_KEPT);
    return ret;
}

static ssize_t vfio_user_device_pread(VFIODevice *vbasedev, void *buf,
                                      size_t len, off_t off)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserLeft left;
    int ret;

    if (!vfio_user_device_range(udev, off, len, VFIO_USER_REGION_READABLE)) {
        ret = -errno;
    } else if (vfio_user_device_snapshot(udev, off) ||
               vfio_user_device_is_pin(off, len)) {
        memcpy(buf, udev->config + (off & VFIO_FILE_OFFSET_MASK), len);
        ret = 0;
    } else {
        left = vfio_user_bql_leave(udev, vbasedev);
        ret = vfio_user_device_read_up(udev, off, buf, len, left.left);
        vfio_user_bql_enter(vbasedev, left);
    }
    if (ret && udev->ready) {
        vfio_user_device_access_failed(udev, "read", off, len, ret);
        vfio_user_device_read_nothing(udev, buf, len, off);
        ret = 0;
    }
    return ret ? vfio_user_device_errno(ret) : len;
}

/* Write, without the BQL where a vCPU would have to wait. */
static int vfio_user_device_pwrite_region(VFIODevice *vbasedev,
                                          const VFIOUserRegion *region,
                                          uint64_t off, const void *buf,
                                          size_t len)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserLeft left;
    int ret;

    if (vfio_user_device_write_config_later(udev, region, off, buf, len)) {
        return 0;
    }
    if (vfio_user_device_link(udev) == VFIO_USER_LINK_UP) {
        ret = vfio_user_device_write_at_once(udev, region, off, buf, len);
        if (ret != -EAGAIN && ret != -EPIPE) {
            return ret;
        }
    }
    left = vfio_user_bql_leave(udev, vbasedev);
    ret = vfio_user_device_write_up(udev, region, off, buf, len, left.left);
    vfio_user_bql_enter(vbasedev, left);
    if (ret == -EPIPE && region->info.index == VFIO_USER_REGION_CONFIG) {
        udev->missed_config++;
    }
    return ret;
}

static ssize_t vfio_user_device_pwrite(VFIODevice *vbasedev, const void *buf,
                                       size_t len, off_t off)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserRegion *region =
        vfio_user_device_range(udev, off, len, VFIO_USER_REGION_WRITEABLE);
    int ret;

    if (!region) {
        ret = -errno;
    } else if (vfio_user_device_snapshot(udev, off) &&
               (off & VFIO_FILE_OFFSET_MASK) == PCI_ROM_ADDRESS &&
               len == sizeof(uint32_t)) {
        vfio_user_device_write_rom_bar(udev, ldl_le_p(buf));
        ret = 0;
    } else if (vfio_user_ioeventfd_write(vbasedev, region->info.index,
                                         off & VFIO_FILE_OFFSET_MASK, buf,
                                         len)) {
        ret = 0;
    } else {
        ret = vfio_user_device_pwrite_region(vbasedev, region,
                                             off & VFIO_FILE_OFFSET_MASK,
                                             buf, len);
    }
    if (ret && udev->ready) {
        vfio_user_device_access_failed(udev, "write", off, len, ret);
        ret = 0;
    }
    return ret ? vfio_user_device_errno(ret) : len;
}

/* Of a file that ends too early; one that is cut short later: sigbus.c. */
bool vfio_user_device_fd_covers(int fd, uint64_t off, uint64_t len)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return false;
    }
    return !S_ISREG(st.st_mode) ||
           (len <= st.st_size && off <= st.st_size - len);
}

static void *vfio_user_device_map(VFIOUserDevice *udev, void *addr, size_t len,
                                  int prot, int flags, off_t off)
{
    VFIOUserRegion *region =
        vfio_user_device_range(udev, off, len, VFIO_USER_REGION_MMAP);
    uint64_t fd_off;

    if (!region) {
        return MAP_FAILED;
    }
    fd_off = region->info.offset + (off & VFIO_FILE_OFFSET_MASK);
    if (!vfio_user_device_fd_covers(region->fd, fd_off, len)) {
        warn_report("vfio-user-pci %s: region %" PRIu64 " cannot be mapped: "
                    "the file behind it ends before 0x%" PRIx64 "; it is "
                    "accessed by messages", udev->name,
                    VFIO_FILE_OFFSET_INDEX(off), fd_off + len);
        errno = EINVAL;
        return MAP_FAILED;
    }
    return mmap(addr, len, prot, flags, region->fd, fd_off);
}

static void *vfio_user_device_mmap(VFIODevice *vbasedev, void *addr,
                                   size_t len, int prot, int flags, off_t off)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    void *ret = vfio_user_device_map(udev, addr, len, prot, flags, off);

    if (ret != MAP_FAILED) {
        vfio_user_sigbus_add(udev, ret, len);
    }
    return ret;
}

int vfio_user_device_remap(VFIOUserDevice *udev, void *addr, size_t len,
                           int prot, off_t off)
{
    void *ret = vfio_user_device_map(udev, addr, len, prot,
                                     MAP_SHARED | MAP_FIXED, off);

    return ret == MAP_FAILED ? -errno : 0;
}

static int vfio_user_device_get_info(VFIOUserDevice *udev,
                                     struct vfio_device_info *info)
{
    if (info->argsz < offsetof(struct vfio_device_info, cap_offset)) {
        return -EINVAL;
    }
    info->flags = udev->info.flags;
    info->num_regions = udev->info.num_regions;
    info->num_irqs = udev->info.num_irqs;
    return 0;
}

static int vfio_user_device_get_region_info(VFIOUserDevice *udev,
                                            struct vfio_region_info *info)
{
    VFIOUserRegion *region = vfio_user_device_region(udev, info->index);

    if (!region || info->argsz < sizeof(*info)) {
        return -EINVAL;
    }
    vfio_user_wire_region_info_to_vfio(&region->info,
                                       VFIO_FILE_OFFSET(info->index), info);
    return 0;
}

static int vfio_user_device_get_irq_info(VFIOUserDevice *udev,
                                         struct vfio_irq_info *info)
{
    const struct vfio_user_irq_info *known;

    if (info->argsz < sizeof(*info) || info->index >= VFIO_USER_IRQ_MAX) {
        return -EINVAL;
    }
    known = &udev->irqs[info->index].info;
    /* As the kernel: a device without error reporting does not have it. */
    if (info->index == VFIO_USER_IRQ_ERR && !known->count) {
        return -EINVAL;
    }
    info->flags = known->flags;
    info->count = known->count;
    return 0;
}

static void vfio_user_device_reset_done(VFIOUserRequest *req)
{
    g_free(req);
}

/*
 * For a server that has just failed to answer a change of state: it gets to
 * know, but nobody waits as long once more.
 */
static void vfio_user_device_reset_later(VFIOUserDevice *udev)
{
    VFIOUserRequest *req = g_new0(VFIOUserRequest, 1);

    req->command = VFIO_USER_DEVICE_RESET;
    req->done = vfio_user_device_reset_done;
    vfio_user_conn_submit(udev->conn, req);
    vfio_user_migration_was_reset(udev);
}

static int vfio_user_device_reset(VFIOUserDevice *udev)
{
    int ret;

    if (vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        udev->missed_reset = true;
        vfio_user_migration_was_reset(udev);
        return 0;
    }
    if (vfio_user_migration_hung(udev)) {
        vfio_user_device_reset_later(udev);
        return 0;
    }
    vfio_user_migration_resetting(udev);
    ret = vfio_user_device_call(udev, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0,
                                NULL);
    vfio_user_migration_was_reset(udev);
    udev->missed_reset |= ret == -EPIPE;
    trace_vfio_user_device_reset(udev->name, ret);
    if (ret && ret != -EPIPE) {
        warn_report("vfio-user-pci %s: reset failed: %s", udev->name,
                    strerror(-ret));
    }
    /* There is nothing else that hw/vfio could try. */
    return 0;
}

static int vfio_user_device_ioctl(VFIODevice *vbasedev, unsigned long request,
                                  void *arg)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);

    switch (request) {
    case VFIO_DEVICE_GET_INFO:
        return vfio_user_device_errno(vfio_user_device_get_info(udev, arg));
    case VFIO_DEVICE_GET_REGION_INFO:
        return vfio_user_device_errno(
            vfio_user_device_get_region_info(udev, arg));
    case VFIO_DEVICE_GET_IRQ_INFO:
        return vfio_user_device_errno(
            vfio_user_device_get_irq_info(udev, arg));
    case VFIO_DEVICE_SET_IRQS:
        return vfio_user_device_errno(vfio_user_irqs_set(udev, arg));
    case VFIO_DEVICE_RESET:
        return vfio_user_device_errno(vfio_user_device_reset(udev));
    case VFIO_DEVICE_FEATURE:
        return vfio_user_device_errno(vfio_user_migration_feature(udev, arg));
    case VFIO_MIG_GET_PRECOPY_INFO:
        return vfio_user_device_errno(
            vfio_user_stream_precopy_info(udev, arg));
    default:
        return vfio_user_device_errno(-ENOTTY);
    }
}

/* As vfio_user_device_errno(), for counts of bytes. */
static ssize_t vfio_user_device_count(ssize_t ret)
{
    return ret >= 0 ? ret : vfio_user_device_errno(ret);
}

static ssize_t vfio_user_device_mig_read(VFIODevice *vbasedev, void *buf,
                                         size_t len)
{
    return vfio_user_device_count(
        vfio_user_stream_read(vfio_user_device_of(vbasedev), buf, len));
}

static ssize_t vfio_user_device_mig_write(VFIODevice *vbasedev,
                                          const void *buf, size_t len)
{
    return vfio_user_device_count(
        vfio_user_stream_write(vfio_user_device_of(vbasedev), buf, len));
}

const VFIODeviceFileOps vfio_user_device_file_ops = {
    .iommu_type = "vfio-iommu-user",
    .ioctl = vfio_user_device_ioctl,
    .pread = vfio_user_device_pread,
    .pwrite = vfio_user_device_pwrite,
    .mmap = vfio_user_device_mmap,
    .mig_read = vfio_user_device_mig_read,
    .mig_write = vfio_user_device_mig_write,
};

/* Life ---------------------------------------------------------------------- */

void vfio_user_device_set_memory(VFIOUserDevice *udev, AddressSpace *as)
{
    qatomic_set(&udev->as, as);
}

void vfio_user_device_close(VFIOUserDevice *udev)
{
    vfio_user_reconnect_stop(udev);
    vfio_user_irqs_cleanup(udev);
    if (udev->twin) {
        vfio_user_conn_stop(udev->twin);
    }
    vfio_user_conn_stop(udev->conn);
}

/* The twin has no users but its AioContext. */
static void vfio_user_device_adopt_twin(VFIOUserDevice *udev,
                                        VFIOUserDevice *fresh)
{
    if (!fresh->twin) {
        return;
    }
    qatomic_set(&udev->twin, fresh->twin);
    vfio_user_conn_rebind(udev->twin, udev);
    fresh->twin = NULL;
}

bool vfio_user_device_adopt(VFIOUserDevice *udev, VFIOUserDevice *fresh)
{
    VFIOUserConn *twin = udev->twin;

    if (twin) {
        vfio_user_conn_stop(twin);
        qatomic_set(&udev->twin, NULL);
        vfio_user_conn_take_stats(udev->conn, twin);
        vfio_user_conn_free(twin);
    }
    if (!vfio_user_conn_adopt(udev->conn, fresh->conn)) {
        return false;
    }
    vfio_user_device_adopt_twin(udev, fresh);
    for (unsigned i = 0; i < udev->info.num_regions; i++) {
        VFIOUserRegion *region = &udev->regions[i];

        if (region->fd >= 0) {
            close(region->fd);
        }
        region->fd = fresh->regions[i].fd;
        region->info.offset = fresh->regions[i].info.offset;
        fresh->regions[i].fd = -1;
    }
    vfio_user_ioeventfd_adopt(udev, fresh);
    vfio_user_irqs_forget(udev);
    vfio_user_migration_was_reset(udev);
    return true;
}

VFIOUserDevice *vfio_user_device_ref(VFIOUserDevice *udev)
{
    qatomic_inc(&udev->refcnt);
    return udev;
}

void vfio_user_device_unref(VFIOUserDevice *udev)
{
    if (qatomic_fetch_dec(&udev->refcnt) != 1) {
        return;
    }
    vfio_user_irqs_cleanup(udev);
    vfio_user_migration_cleanup(udev);
    if (udev->twin) {
        vfio_user_conn_free(udev->twin);
    }
    vfio_user_conn_free(udev->conn);
    for (unsigned i = 0; udev->regions && i < udev->info.num_regions; i++) {
        vfio_user_wire_region_info_cleanup(&udev->regions[i].info);
        if (udev->regions[i].fd >= 0) {
            close(udev->regions[i].fd);
        }
    }
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        g_free(udev->irqs[i].assigned);
    }
    vfio_user_ioeventfd_unref(udev->io_events);
    vfio_user_ioeventfd_unref(udev->io_events_before);
    vfio_user_reconnect_free(udev);
    qemu_mutex_destroy(&udev->intx_lock);
    qemu_cond_destroy(&udev->dma_idle);
    qemu_mutex_destroy(&udev->dma_lock);
    vfio_user_record_unref(udev->record);
    g_free(udev->regions);
    g_free(udev->config);
    g_free(udev->name);
    g_free(udev);
}
