/*
 * vfio-user: accesses of a region
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What has no mapping is accessed by message: hw/vfio's pread and pwrite become
 * REGION_READ and REGION_WRITE. How the guest's own accesses wait is in
 * guest-access.c.
 *
 * Before realize is over an access that fails returns its error, which fails
 * realize. Afterwards a guest could make errors at will, so the access reads
 * all-ones or is dropped, as hardware that does not answer, and the log gets
 * one line: for a device that is gone the connection's report, for a request
 * that the server refused or left unanswered a warning (ratelimit.c).
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
#include "qemu/main-loop.h"
#include "hw/pci/pci.h"
#include "qapi/error.h"
#include "device-int.h"
#include "ioeventfd.h"
#include "owed.h"
#include "reconnect.h"
#include "trace.h"

/* Messages ----------------------------------------------------------------- */

int vfio_user_device_post(VFIOUserDevice *udev, unsigned region, uint64_t off,
                          const void *buf, size_t len, unsigned life,
                          unsigned timeout_ms)
{
    VFIO_USER_UNINITIALIZED VFIOUserRegionMsg msg;
    int ret;

    vfio_user_region_msg_init(&msg, true, region, off, (void *)buf, len);
    msg.req.life = life;
    msg.req.timeout_ms = timeout_ms;
    /* The usual case: the socket has room. */
    ret = vfio_user_conn_try_post(udev->conn, &msg.req);
    if (ret != -EAGAIN) {
        return ret;
    }
    if (udev->caps.write_multiple && len <= VFIO_USER_CONN_SMALL_WRITE) {
        return vfio_user_conn_post_write(udev->conn, region, off, buf, len,
                                         life, timeout_ms);
    }
    return vfio_user_conn_post(udev->conn, &msg.req);
}

bool vfio_user_device_is_posted(VFIOUserDevice *udev, unsigned region)
{
    return udev->regions[region].posted && !vfio_user_conn_lockstep(udev->conn);
}

/* @life, here and below: as in VFIOUserRequest */
static int vfio_user_device_one(VFIOUserDevice *udev, bool is_write,
                                unsigned region, uint64_t off, void *buf,
                                size_t len, unsigned life)
{
    VFIO_USER_UNINITIALIZED VFIOUserRegionMsg msg;

    vfio_user_region_msg_init(&msg, is_write, region, off, buf, len);
    msg.req.life = life;
    vfio_user_conn_call(udev->conn, &msg.req);
    return vfio_user_region_msg_result(udev, &msg);
}

/* What one message does not carry ---------------------------------------------- */

/* Pieces on their way at once: few enough for any socket's buffer. */
#define VFIO_USER_DEVICE_AHEAD  64

/**
 * VFIOUserPieces: an access in pieces, each of which is a message
 * @off, @buf, @len: what was not asked for yet
 * @until: for all of them, as g_get_monotonic_time(); 0: each has its own time
 * @msgs: pieces @answered to @asked are on their way, each in its place of the ring
 */
typedef struct VFIOUserPieces {
    VFIOUserDevice *udev;
    bool is_write;
    unsigned region;
    uint64_t off;
    void *buf;
    size_t len;
    unsigned life;
    int64_t until;
    unsigned asked;
    unsigned answered;
    VFIOUserRegionMsg msgs[VFIO_USER_DEVICE_AHEAD];
} VFIOUserPieces;

static void vfio_user_device_ask_piece(VFIOUserPieces *p)
{
    VFIOUserRegionMsg *msg = &p->msgs[p->asked++ % VFIO_USER_DEVICE_AHEAD];
    size_t part = MIN(p->len, p->udev->caps.max_data_xfer_size);

    vfio_user_region_msg_init(msg, p->is_write, p->region, p->off, p->buf,
                              part);
    msg->req.life = p->life;
    if (p->until) {
        int64_t us = p->until - g_get_monotonic_time();

        msg->req.timeout_ms = MAX(us, 1000) / 1000;
    }
    vfio_user_conn_submit(p->udev->conn, &msg->req);
    p->off += part;
    p->buf += part;
    p->len -= part;
}

static int vfio_user_device_await_piece(VFIOUserPieces *p)
{
    VFIOUserRegionMsg *msg = &p->msgs[p->answered++ % VFIO_USER_DEVICE_AHEAD];

    vfio_user_conn_wait(p->udev->conn, &msg->req);
    return vfio_user_region_msg_result(p->udev, msg);
}

/*
 * Once the device is in use all of them have the time of one message. Before, each
 * has its own, if nothing else bounds them (vfio_user_conn_set_until()).
 */
static int vfio_user_device_pieces(VFIOUserDevice *udev, bool is_write,
                                   unsigned region, uint64_t off, void *buf,
                                   size_t len, unsigned life)
{
    g_autofree VFIOUserPieces *p = g_new(VFIOUserPieces, 1);
    unsigned ahead = vfio_user_conn_lockstep(udev->conn) ?
                     1 : VFIO_USER_DEVICE_AHEAD;
    int ret = 0;

    p->udev = udev;
    p->is_write = is_write;
    p->region = region;
    p->off = off;
    p->buf = buf;
    p->len = len;
    p->life = life;
    p->until = udev->ready ? g_get_monotonic_time() +
                             udev->timeout_ms * (int64_t)1000 : 0;
    p->asked = p->answered = 0;
    while (!ret && (p->len || p->answered < p->asked)) {
        if (p->len && p->asked - p->answered < ahead) {
            vfio_user_device_ask_piece(p);
        } else {
            ret = vfio_user_device_await_piece(p);
        }
    }
    while (p->answered < p->asked) {
        VFIOUserRegionMsg *msg =
            &p->msgs[p->answered++ % VFIO_USER_DEVICE_AHEAD];

        vfio_user_conn_abandon(udev->conn, &msg->req);
    }
    return ret;
}

static int vfio_user_device_post_pieces(VFIOUserDevice *udev, unsigned region,
                                        uint64_t off, const void *buf,
                                        size_t len, unsigned life)
{
    int ret = 0;

    while (len && !ret) {
        size_t part = MIN(len, udev->caps.max_data_xfer_size);

        ret = vfio_user_device_post(udev, region, off, buf, part, life, 0);
        off += part;
        buf += part;
        len -= part;
    }
    return ret;
}

int vfio_user_device_read(VFIOUserDevice *udev, unsigned index, uint64_t off,
                          void *buf, size_t len)
{
    if (len && len <= udev->caps.max_data_xfer_size) {
        return vfio_user_device_one(udev, false, index, off, buf, len, 0);
    }
    return vfio_user_device_pieces(udev, false, index, off, buf, len, 0);
}

static int vfio_user_device_write_to(VFIOUserDevice *udev, unsigned index,
                                     uint64_t off, const void *buf, size_t len,
                                     unsigned life)
{
    if (vfio_user_device_is_posted(udev, index)) {
        return vfio_user_device_post_pieces(udev, index, off, buf, len, life);
    }
    if (len && len <= udev->caps.max_data_xfer_size) {
        return vfio_user_device_one(udev, true, index, off, (void *)buf, len,
                                    life);
    }
    return vfio_user_device_pieces(udev, true, index, off, (void *)buf, len,
                                   life);
}

int vfio_user_device_write(VFIOUserDevice *udev, unsigned index, uint64_t off,
                           const void *buf, size_t len)
{
    return vfio_user_device_write_to(udev, index, off, buf, len, 0);
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

/* An access failed after realize. The guest decides how often that happens. */
static void vfio_user_device_access_failed(VFIOUserDevice *udev,
                                           const char *what, off_t off,
                                           size_t len, int ret)
{
    if (ret == VFIO_USER_HELD_AGAIN) {
        return;
    }
    trace_vfio_user_device_access_failed(udev->name, what,
                                         VFIO_FILE_OFFSET_INDEX(off),
                                         off & VFIO_FILE_OFFSET_MASK, len,
                                         -ret);
    if (ret == -EPIPE) {
        return;
    }
    vfio_user_warn_limited(&udev->access_said, "vfio-user-pci %s: %s of %zu "
                           "bytes at 0x%llx of region %" PRIu64 " failed: %s",
                           udev->name, what, len, off & VFIO_FILE_OFFSET_MASK,
                           VFIO_FILE_OFFSET_INDEX(off), ret == -ETIMEDOUT ?
                           "the server did not answer in time" :
                           strerror(-ret));
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

/* It never changes, and hw/vfio asks whenever it goes back to INTx. */
static bool vfio_user_device_is_pin(off_t off, size_t len)
{
    return len == 1 &&
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

/* Writes that nobody waits for ------------------------------------------------ */

/* @owed: or the vCPU does, when its access is over. */
typedef struct VFIOUserLaterMsg {
    VFIOUserRegionMsg msg;
    VFIOUserDevice *udev;
    VFIOUserOwed *owed;
    uint64_t data;
} VFIOUserLaterMsg;

static void vfio_user_device_written(VFIOUserRequest *req)
{
    VFIOUserRegionMsg *msg = container_of(req, VFIOUserRegionMsg, req);
    VFIOUserLaterMsg *later = container_of(msg, VFIOUserLaterMsg, msg);
    int ret = vfio_user_region_msg_result(later->udev, msg);

    if (ret) {
        vfio_user_device_access_failed(later->udev, "write",
                                       VFIO_FILE_OFFSET(msg->out.region) +
                                       msg->out.offset, msg->out.count, ret);
    }
    vfio_user_owed_put(later->owed);
    g_free(later);
}

void vfio_user_device_write_later(VFIOUserDevice *udev, unsigned region,
                                  uint64_t off, const void *buf, size_t len)
{
    VFIOUserLaterMsg *later = g_new(VFIOUserLaterMsg, 1);

    memcpy(&later->data, buf, len);
    later->udev = udev;
    later->owed = vfio_user_owed_get(udev);
    vfio_user_region_msg_init(&later->msg, true, region, off, &later->data,
                              len);
    later->msg.req.done = vfio_user_device_written;
    vfio_user_conn_submit(udev->conn, &later->msg.req);
}

/* hw/vfio's accesses ------------------------------------------------------------ */

/*
 * Not the guest's own: of another device's DMA, or of QEMU itself. With the BQL held
 * by somebody further up it is kept. A server that let such a one run into its
 * deadline is not waited for again with the BQL before it has said something; so it
 * is asked for something.
 */
static bool vfio_user_device_is_nested(VFIOUserDevice *udev, size_t len)
{
    return udev->ready && bql_locked() &&
           len <= MIN(sizeof(uint64_t), udev->caps.max_data_xfer_size);
}

/* A question that every server has an answer to (DEVICE_GET_INFO) */
typedef struct VFIOUserProbe {
    VFIOUserRequest req;
    struct vfio_user_device_info out, in;
    struct iovec out_iov, in_iov;
    VFIOUserDevice *udev;
    VFIOUserProbed *probed;
    unsigned nr;
} VFIOUserProbe;

static void vfio_user_device_probe_done(VFIOUserRequest *req)
{
    VFIOUserProbe *p = container_of(req, VFIOUserProbe, req);

    if (p->probed) {
        p->probed(p->udev, p->nr, req->ret);
    }
    g_free(p);
}

void vfio_user_device_probe(VFIOUserDevice *udev, VFIOUserProbed *probed,
                            unsigned nr)
{
    VFIOUserProbe *p = g_new0(VFIOUserProbe, 1);

    p->udev = udev;
    p->probed = probed;
    p->nr = nr;
    p->out.argsz = sizeof(p->out);
    p->out_iov = (struct iovec) { &p->out, sizeof(p->out) };
    p->in_iov = (struct iovec) { &p->in, sizeof(p->in) };
    p->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_GET_INFO,
        .out = &p->out_iov, .nr_out = 1,
        .in = &p->in_iov, .nr_in = 1,
        .done = vfio_user_device_probe_done,
    };
    vfio_user_conn_submit(udev->conn, &p->req);
}

void vfio_user_device_stuck(VFIOUserDevice *udev)
{
    vfio_user_conn_set_stuck(udev->conn);
    vfio_user_device_probe(udev, NULL, 0);
}

/* For one message of a caller that has the BQL, in ms. */
static unsigned vfio_user_device_time(VFIOUserDevice *udev)
{
    int64_t us = udev->reset_until - g_get_monotonic_time();

    return !udev->reset_until ? udev->timeout_ms :
           MAX(MIN(us / 1000, udev->timeout_ms), 1);
}

int vfio_user_device_call_once(VFIOUserDevice *udev, VFIOUserRequest *req)
{
    VFIOUserConn *conn = udev->conn;
    unsigned ms = vfio_user_device_time(udev);

    if (vfio_user_conn_stuck(conn)) {
        return -ETIMEDOUT;
    }
    req->timeout_ms = ms;
    vfio_user_conn_submit(conn, req);
    if (!vfio_user_conn_wait_until(conn, req, g_get_monotonic_time() +
                                              ms * (int64_t)500)) {
        vfio_user_device_stuck(udev);
        vfio_user_conn_wait(conn, req);
    } else if (req->ret == -ETIMEDOUT) {
        vfio_user_device_stuck(udev);
    }
    return req->ret;
}

void vfio_user_device_begin_reset(VFIOUserDevice *udev, int64_t until)
{
    if (vfio_user_device_vm_has_run()) {
        int64_t now = g_get_monotonic_time();

        udev->reset_until = until > now ? until :
                            now + udev->timeout_ms * (int64_t)1000;
    }
}

void vfio_user_device_end_reset(VFIOUserDevice *udev)
{
    udev->reset_until = 0;
}

static int vfio_user_device_access_nested(VFIOUserDevice *udev,
                                          const VFIOUserAccess *a,
                                          unsigned socket)
{
    VFIO_USER_UNINITIALIZED VFIOUserRegionMsg msg;
    int ret;

    if (a->is_write && vfio_user_conn_stuck(udev->conn)) {
        vfio_user_device_write_later(udev, a->region, a->off, a->buf, a->len);
        return 0;
    }
    if (a->is_write && vfio_user_device_is_posted(udev, a->region)) {
        ret = vfio_user_device_post(udev, a->region, a->off, a->buf, a->len,
                                    socket, 0);
        if (ret == -ETIMEDOUT) {
            vfio_user_device_stuck(udev);
        }
        return ret;
    }
    vfio_user_region_msg_init(&msg, a->is_write, a->region, a->off, a->buf,
                              a->len);
    msg.req.ret = vfio_user_device_call_once(udev, &msg.req);
    return vfio_user_region_msg_result(udev, &msg);
}

static bool vfio_user_device_is_guests(VFIOUserDevice *udev,
                                       const VFIOUserAccess *a)
{
    return vfio_user_held_is_direct() && udev->ready &&
           a->len <= MIN(sizeof(uint64_t), udev->caps.max_data_xfer_size) &&
           (!bql_locked() || (a->region == VFIO_USER_REGION_CONFIG &&
                              udev->reads_config));
}

/* Of another device, or of QEMU itself */
static int vfio_user_device_access_other(VFIOUserDevice *udev,
                                         const VFIOUserAccess *a)
{
    VFIO_USER_BQL_SCOPE(a->region == VFIO_USER_REGION_ROM ?
                        VFIO_USER_BQL_ROM : VFIO_USER_BQL_NESTED);
    /* Before the link: what waits for room must not reach the next server. */
    unsigned socket = vfio_user_conn_life(udev->conn);

    if (vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        return -EPIPE;
    }
    if (vfio_user_device_is_nested(udev, a->len)) {
        return vfio_user_device_access_nested(udev, a, socket);
    }
    return a->is_write ?
           vfio_user_device_write_to(udev, a->region, a->off, a->buf, a->len,
                                     socket) :
           vfio_user_device_read(udev, a->region, a->off, a->buf, a->len);
}

static int vfio_user_device_access(VFIOUserDevice *udev,
                                   const VFIOUserAccess *a)
{
    return vfio_user_device_is_guests(udev, a) ?
           vfio_user_guest_access(udev, a) :
           vfio_user_device_access_other(udev, a);
}

/*
 * hw/vfio goes on at once, and keeps its copy; so the order at the server is the
 * order in the copy. One that is away is told of the copy when it is back. BQL.
 */
static int vfio_user_device_write_config(VFIOUserDevice *udev, uint64_t off,
                                         const void *buf, size_t len)
{
    if (!udev->ready || len > sizeof(uint64_t)) {
        return vfio_user_device_write(udev, VFIO_USER_REGION_CONFIG, off, buf,
                                      len);
    }
    if (vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        udev->missed_config++;
        return -EPIPE;
    }
    vfio_user_device_write_later(udev, VFIO_USER_REGION_CONFIG, off, buf, len);
    return 0;
}

ssize_t vfio_user_device_pread(VFIODevice *vbasedev, void *buf,
                               size_t len, off_t off)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    int ret;

    if (!vfio_user_device_range(udev, off, len, VFIO_USER_REGION_READABLE)) {
        ret = -errno;
    } else if (vfio_user_device_snapshot(udev, off) ||
               vfio_user_device_is_pin(off, len)) {
        memcpy(buf, udev->config + (off & VFIO_FILE_OFFSET_MASK), len);
        ret = 0;
    } else {
        ret = vfio_user_device_access(udev, &(VFIOUserAccess) {
            .region = VFIO_FILE_OFFSET_INDEX(off),
            .off = off & VFIO_FILE_OFFSET_MASK, .buf = buf, .len = len,
        });
    }
    if (ret && udev->ready) {
        memset(buf, 0xff, len);
        vfio_user_device_access_failed(udev, "read", off, len, ret);
        ret = 0;
    }
    return ret ? vfio_user_device_errno(ret) : len;
}

ssize_t vfio_user_device_pwrite(VFIODevice *vbasedev, const void *buf,
                                size_t len, off_t off)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserRegion *region =
        vfio_user_device_range(udev, off, len, VFIO_USER_REGION_WRITEABLE);
    uint64_t at = off & VFIO_FILE_OFFSET_MASK;
    int ret;

    if (!region) {
        ret = -errno;
    } else if (vfio_user_device_snapshot(udev, off) && at == PCI_ROM_ADDRESS &&
               len == sizeof(uint32_t)) {
        vfio_user_device_write_rom_bar(udev, ldl_le_p(buf));
        ret = 0;
    } else if (region->info.index == VFIO_USER_REGION_CONFIG) {
        ret = vfio_user_device_write_config(udev, at, buf, len);
    } else if (vfio_user_ioeventfd_write(vbasedev, region->info.index, at, buf,
                                         len)) {
        ret = 0;
    } else {
        ret = vfio_user_device_access(udev, &(VFIOUserAccess) {
            .region = region->info.index, .off = at, .buf = (void *)buf,
            .len = len, .is_write = true,
        });
    }
    if (ret && udev->ready) {
        vfio_user_device_access_failed(udev, "write", off, len, ret);
        ret = 0;
    }
    return ret ? vfio_user_device_errno(ret) : len;
}
