/*
 * vfio-user: accesses of a region
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What has no mapping is accessed by message: hw/vfio's pread and pwrite become
 * REGION_READ and REGION_WRITE.
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
#include "device-int.h"
#include "ioeventfd.h"
#include "reconnect.h"
#include "trace.h"

/* Messages ----------------------------------------------------------------- */

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

/* What hw/vfio asks -------------------------------------------------------- */

VFIOUserRegion *vfio_user_device_range(VFIOUserDevice *udev, off_t off,
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

ssize_t vfio_user_device_pread(VFIODevice *vbasedev, void *buf,
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

ssize_t vfio_user_device_pwrite(VFIODevice *vbasedev, const void *buf,
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
