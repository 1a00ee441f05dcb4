/*
 * vfio-user: getting to know a server and its device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * VERSION first; then DEVICE_GET_INFO and everything about regions and
 * interrupts in flight at once, since each answer is independent of the
 * others: how many there are is not known before, but a PCI device has those
 * that are asked for, and a server says so where it has not. Then config space
 * and ioeventfds, which take the regions to be known.
 * Whatever the server says passes wire.c, and
 * config space passes config-check.c, before anyone acts on it.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "hw/pci/pci.h"
#include "device.h"
#include "config-check.h"
#include "connect.h"
#include "ioeventfd.h"
#include "trace.h"

/* Room for a region's capabilities before it is known how much they need. */
#define VFIO_USER_REGION_INFO_ROOM  4096
/* Regions of a PCI device: asked for before the server says how many it has. */
#define VFIO_USER_NR_PCI_REGIONS    (VFIO_USER_REGION_VGA + 1)

static const char *vfio_user_negotiate_strerror(int ret)
{
    return ret == -ETIMEDOUT ? "the server did not answer in time"
                             : strerror(-ret);
}

/* What went wrong with a command: the connection's reason, if it has one. */
static void vfio_user_negotiate_failed(VFIOUserDevice *udev, const char *what,
                                       int ret, Error **errp)
{
    Error *err = vfio_user_conn_error(udev->conn);

    if (!err) {
        error_setg(&err, "%s", vfio_user_negotiate_strerror(ret));
    }
    error_prepend(&err, "%s failed: ", what);
    error_propagate(errp, err);
}

/* VERSION -------------------------------------------------------------------- */

/* The server granted a second socket: its commands come there. */
static bool vfio_user_negotiate_twin(VFIOUserDevice *udev, AioContext *ctx,
                                     int *fds, unsigned nr_fds, Error **errp)
{
    unsigned index = udev->caps.twin_fd_index;

    if (!udev->caps.twin_socket) {
        return true;
    }
    assert(index < nr_fds);
    if (!vfio_user_connect_is_connected(fds[index])) {
        error_setg(errp, "VERSION: the descriptor for twin_socket is not a "
                   "connected UNIX stream socket");
        return false;
    }
    udev->twin = vfio_user_conn_new(fds[index], udev->name,
                                    &vfio_user_device_twin_ops, udev,
                                    udev->timeout_ms);
    fds[index] = -1;
    if (udev->record) {
        vfio_user_conn_set_record(udev->twin,
                                  vfio_user_record_socket_new(udev->record,
                                                              true));
    }
    vfio_user_conn_start(udev->twin, ctx);
    vfio_user_conn_set_no_commands(udev->conn);
    return true;
}

static bool vfio_user_negotiate_version(VFIOUserDevice *udev, AioContext *ctx,
                                        Error **errp)
{
    g_autofree char *reply = g_malloc(VFIO_USER_CAPS_MAX_REPLY);
    int fds[VFIO_USER_MAX_MSG_FDS];
    struct iovec out, in = {
        .iov_base = reply, .iov_len = VFIO_USER_CAPS_MAX_REPLY,
    };
    g_autofree char *ours = vfio_user_caps_request(&out.iov_len);
    VFIOUserRequest req = {
        .command = VFIO_USER_VERSION,
        .out = &out, .nr_out = 1,
        .in = &in, .nr_in = 1,
        .in_fds = fds, .max_in_fds = ARRAY_SIZE(fds),
    };
    unsigned nr_fds;
    bool ok;
    int ret;

    out.iov_base = ours;
    ret = vfio_user_conn_call(udev->conn, &req);
    if (ret) {
        vfio_user_negotiate_failed(udev, "VERSION", ret, errp);
        if (ret == -ETIMEDOUT) {
            error_append_hint(errp, "A server that has another client accepts "
                              "the connection and answers only when that one "
                              "has left.\n");
        }
        return false;
    }
    nr_fds = MIN(req.nr_in_fds, ARRAY_SIZE(fds));
    ok = vfio_user_caps_parse(reply, req.in_len, nr_fds, &udev->caps, errp);
    if (!ok) {
        error_prepend(errp, "VERSION: ");
    } else {
        trace_vfio_user_device_version(udev->name, udev->caps.major,
                                       udev->caps.minor,
                                       udev->caps.max_msg_fds,
                                       udev->caps.max_data_xfer_size,
                                       udev->caps.max_dma_maps,
                                       udev->caps.pgsizes,
                                       udev->caps.twin_socket,
                                       udev->caps.write_multiple);
        ok = vfio_user_negotiate_twin(udev, ctx, fds, nr_fds, errp);
    }
    for (unsigned i = 0; i < nr_fds; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    return ok;
}

/* DEVICE_GET_INFO ------------------------------------------------------------- */

typedef struct VFIOUserInfoQuery {
    VFIOUserRequest req;
    struct vfio_user_device_info out, in;
    struct iovec out_iov, in_iov;
} VFIOUserInfoQuery;

static void vfio_user_negotiate_ask_info(VFIOUserDevice *udev,
                                         VFIOUserInfoQuery *q)
{
    q->out = (struct vfio_user_device_info) { .argsz = sizeof(q->out) };
    q->out_iov = (struct iovec) { &q->out, sizeof(q->out) };
    q->in_iov = (struct iovec) { &q->in, sizeof(q->in) };
    q->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_GET_INFO,
        .out = &q->out_iov, .nr_out = 1,
        .in = &q->in_iov, .nr_in = 1,
    };
    vfio_user_conn_submit(udev->conn, &q->req);
}

static bool vfio_user_negotiate_got_info(VFIOUserDevice *udev,
                                         VFIOUserInfoQuery *q, Error **errp)
{
    int ret = vfio_user_conn_wait(udev->conn, &q->req);

    if (ret) {
        vfio_user_negotiate_failed(udev, "DEVICE_GET_INFO", ret, errp);
        return false;
    }
    if (!vfio_user_wire_check_device_info(&q->in, q->req.in_len, &udev->info,
                                          errp)) {
        error_prepend(errp, "DEVICE_GET_INFO: ");
        return false;
    }
    trace_vfio_user_device_info(udev->name, udev->info.flags,
                                udev->info.num_regions, udev->info.num_irqs);
    udev->regions = g_new0(VFIOUserRegion, udev->info.num_regions);
    for (unsigned i = 0; i < udev->info.num_regions; i++) {
        udev->regions[i].fd = -1;
    }
    return true;
}

/* DEVICE_GET_REGION_INFO ------------------------------------------------------ */

/* A question about a region on its way */
typedef struct VFIOUserRegionQuery {
    VFIOUserRequest req;
    struct vfio_user_region_info ask;
    struct iovec out;
    struct iovec in;
    int fds[VFIO_USER_MAX_MSG_FDS];
} VFIOUserRegionQuery;

static void vfio_user_negotiate_ask_region(VFIOUserDevice *udev,
                                           VFIOUserRegionQuery *q,
                                           unsigned index, size_t room)
{
    g_free(q->in.iov_base);
    q->ask = (struct vfio_user_region_info) { .argsz = room, .index = index };
    q->out = (struct iovec) { .iov_base = &q->ask, .iov_len = sizeof(q->ask) };
    q->in = (struct iovec) { .iov_base = g_malloc0(room), .iov_len = room };
    q->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_GET_REGION_INFO,
        .out = &q->out, .nr_out = 1,
        .in = &q->in, .nr_in = 1,
        .in_fds = q->fds, .max_in_fds = ARRAY_SIZE(q->fds),
    };
    vfio_user_conn_submit(udev->conn, &q->req);
}

/* Take the first descriptor, close the rest: they are the same file. */
static int vfio_user_negotiate_first_fd(VFIOUserRegionQuery *q)
{
    unsigned nr = MIN(q->req.nr_in_fds, ARRAY_SIZE(q->fds));

    for (unsigned i = 1; i < nr; i++) {
        close(q->fds[i]);
    }
    q->req.nr_in_fds = 0;
    return nr ? q->fds[0] : -1;
}

static bool vfio_user_negotiate_got_region(VFIOUserDevice *udev,
                                           VFIOUserRegionQuery *q,
                                           unsigned index, Error **errp)
{
    VFIOUserRegion *region = &udev->regions[index];
    unsigned nr_fds = q->req.nr_in_fds;

    region->fd = vfio_user_negotiate_first_fd(q);
    if (!vfio_user_wire_check_region_info(q->in.iov_base, q->req.in_len, index,
                                          q->in.iov_len, nr_fds,
                                          qemu_real_host_page_size(),
                                          &region->info, errp)) {
        return false;
    }
    if (region->info.needed <= q->in.iov_len) {
        return true;
    }

    /* Once more, with as much room as it takes; the size is bounded. */
    if (region->fd >= 0) {
        close(region->fd);
        region->fd = -1;
    }
    vfio_user_negotiate_ask_region(udev, q, index, region->info.needed);
    if (vfio_user_conn_wait(udev->conn, &q->req)) {
        vfio_user_negotiate_failed(udev, "second question", q->req.ret, errp);
        return false;
    }
    nr_fds = q->req.nr_in_fds;
    region->fd = vfio_user_negotiate_first_fd(q);
    if (!vfio_user_wire_check_region_info(q->in.iov_base, q->req.in_len, index,
                                          q->in.iov_len, nr_fds,
                                          qemu_real_host_page_size(),
                                          &region->info, errp)) {
        return false;
    }
    if (region->info.needed > q->in.iov_len) {
        error_setg(errp, "the size of the answer keeps growing (now %u bytes)",
                   region->info.needed);
        return false;
    }
    return true;
}

static bool vfio_user_negotiate_one_region(VFIOUserDevice *udev,
                                           VFIOUserRegionQuery *q,
                                           unsigned index, Error **errp)
{
    VFIOUserRegionInfo *info = &udev->regions[index].info;
    int ret = vfio_user_conn_wait(udev->conn, &q->req);

    if (ret) {
        /* A region that PCI does not need may be missing. */
        if (index > VFIO_USER_REGION_CONFIG &&
            !vfio_user_conn_broken(udev->conn)) {
            info->index = index;
            return true;
        }
        vfio_user_negotiate_failed(udev, "DEVICE_GET_REGION_INFO", ret, errp);
        error_prepend(errp, "region %u: ", index);
        return false;
    }
    if (!vfio_user_negotiate_got_region(udev, q, index, errp)) {
        error_prepend(errp, "DEVICE_GET_REGION_INFO: region %u: ", index);
        return false;
    }
    trace_vfio_user_device_region(udev->name, index, info->flags, info->size,
                                  info->offset, info->nr_areas);
    return true;
}

/* Wait for an answer that is of no use. */
static void vfio_user_negotiate_drop_region(VFIOUserDevice *udev,
                                            VFIOUserRegionQuery *q)
{
    int fd = -1;

    if (!vfio_user_conn_wait(udev->conn, &q->req)) {
        fd = vfio_user_negotiate_first_fd(q);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void vfio_user_negotiate_ask_regions(VFIOUserDevice *udev,
                                            VFIOUserRegionQuery *q,
                                            unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        vfio_user_negotiate_ask_region(udev, &q[i], i,
                                       VFIO_USER_REGION_INFO_ROOM);
    }
}

/* @ok: the answers are of use. VFIO_USER_NR_PCI_REGIONS were asked for. */
static bool vfio_user_negotiate_got_regions(VFIOUserDevice *udev,
                                            VFIOUserRegionQuery *q, bool ok,
                                            Error **errp)
{
    unsigned nr = ok ? udev->info.num_regions : 0;
    unsigned asked = MAX(nr, VFIO_USER_NR_PCI_REGIONS);

    vfio_user_negotiate_ask_regions(udev, q, VFIO_USER_NR_PCI_REGIONS, asked);
    for (unsigned i = 0; i < asked; i++) {
        if (ok && i < nr) {
            ok = vfio_user_negotiate_one_region(udev, &q[i], i, errp);
        } else {
            vfio_user_negotiate_drop_region(udev, &q[i]);
        }
        g_free(q[i].in.iov_base);
    }
    return ok;
}

/* DEVICE_GET_IRQ_INFO --------------------------------------------------------- */

typedef struct VFIOUserIrqQuery {
    VFIOUserRequest req;
    struct vfio_user_irq_info out, in;
    struct iovec out_iov, in_iov;
} VFIOUserIrqQuery;

static void vfio_user_negotiate_ask_irq(VFIOUserDevice *udev,
                                        VFIOUserIrqQuery *q, unsigned index)
{
    q->out = (struct vfio_user_irq_info) {
        .argsz = sizeof(q->out), .index = index,
    };
    q->out_iov = (struct iovec) { &q->out, sizeof(q->out) };
    q->in_iov = (struct iovec) { &q->in, sizeof(q->in) };
    q->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_GET_IRQ_INFO,
        .out = &q->out_iov, .nr_out = 1,
        .in = &q->in_iov, .nr_in = 1,
    };
    vfio_user_conn_submit(udev->conn, &q->req);
}

static bool vfio_user_negotiate_one_irq(VFIOUserDevice *udev,
                                        VFIOUserIrqQuery *q, unsigned index,
                                        Error **errp)
{
    VFIOUserIrqs *irqs = &udev->irqs[index];
    int ret = q->req.ret;

    if (ret) {
        vfio_user_negotiate_failed(udev, "DEVICE_GET_IRQ_INFO", ret, errp);
    }
    if (ret || !vfio_user_wire_check_irq_info(&q->in, q->req.in_len, index,
                                              &irqs->info, errp)) {
        error_prepend(errp, "interrupt index %u: ", index);
        return false;
    }
    trace_vfio_user_device_irq(udev->name, index, irqs->info.flags,
                               irqs->info.count);
    return true;
}

/* All of them were asked for; @ok: the answers are of use. */
static bool vfio_user_negotiate_got_irqs(VFIOUserDevice *udev,
                                         VFIOUserIrqQuery *q, bool ok,
                                         Error **errp)
{
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        vfio_user_conn_wait(udev->conn, &q[i].req);
        if (ok && i < udev->info.num_irqs) {
            ok = vfio_user_negotiate_one_irq(udev, &q[i], i, errp);
        }
    }
    return ok;
}

static bool vfio_user_negotiate_parts(VFIOUserDevice *udev, Error **errp)
{
    g_autofree VFIOUserRegionQuery *regions =
        g_new0(VFIOUserRegionQuery, VFIO_USER_MAX_REGIONS);
    VFIOUserIrqQuery irqs[VFIO_USER_IRQ_MAX];
    VFIOUserInfoQuery info;
    bool ok;

    QEMU_BUILD_BUG_ON(VFIO_USER_NR_PCI_REGIONS > VFIO_USER_MAX_REGIONS);
    vfio_user_negotiate_ask_info(udev, &info);
    vfio_user_negotiate_ask_regions(udev, regions, 0, VFIO_USER_NR_PCI_REGIONS);
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        vfio_user_negotiate_ask_irq(udev, &irqs[i], i);
    }
    ok = vfio_user_negotiate_got_info(udev, &info, errp);
    ok = vfio_user_negotiate_got_regions(udev, regions, ok, errp);
    return vfio_user_negotiate_got_irqs(udev, irqs, ok, errp);
}

/* Config space ------------------------------------------------------------------ */

static bool vfio_user_negotiate_config(VFIOUserDevice *udev, Error **errp)
{
    uint64_t size = udev->regions[VFIO_USER_REGION_CONFIG].info.size;
    uint64_t bar_size[PCI_ROM_SLOT];
    int ret;

    for (unsigned i = 0; i < ARRAY_SIZE(bar_size); i++) {
        bar_size[i] = udev->regions[i].info.guest_size;
    }
    udev->config = g_malloc(size);
    ret = vfio_user_device_read(udev, VFIO_USER_REGION_CONFIG, 0,
                                udev->config, size);
    if (ret) {
        vfio_user_negotiate_failed(udev, "reading config space", ret, errp);
        return false;
    }
    return vfio_user_config_check(udev->config, size, bar_size, errp);
}

/* What can only be asked for when the regions are known, at once. */
static bool vfio_user_negotiate_rest(VFIOUserDevice *udev, bool ioeventfd,
                                     Error **errp)
{
    ERRP_GUARD();
    VFIOUserIoQuery *q = ioeventfd ? vfio_user_ioeventfd_ask(udev) : NULL;
    bool asked = q;
    bool ok = vfio_user_negotiate_config(udev, errp);

    ok = vfio_user_ioeventfd_answered(udev, q, ok ? errp : NULL) && ok;
    if (!ok && asked && vfio_user_conn_broken(udev->conn)) {
        error_append_hint(errp, "Should it be the question for ioeventfds that "
                          "the server cannot bear: ioeventfd=off leaves it "
                          "out.\n");
    }
    return ok;
}

/* See "Posted writes" in device-access.c. */
static void vfio_user_negotiate_posting(VFIOUserDevice *udev)
{
    unsigned i;

    if (udev->io_events) {
        return;
    }
    for (i = 0; i < udev->info.num_regions; i++) {
        if (udev->regions[i].info.flags & VFIO_USER_REGION_MMAP) {
            return;
        }
    }
    for (i = 0; i <= VFIO_USER_REGION_BAR5; i++) {
        uint8_t bar = udev->config[PCI_BASE_ADDRESS_0 + 4 * i];

        udev->regions[i].posted = !(bar & PCI_BASE_ADDRESS_SPACE_IO);
    }
}

VFIOUserDevice *vfio_user_device_new(int fd, const char *name,
                                     AioContext *ctx, unsigned timeout_ms,
                                     VFIOUserRecord *record)
{
    VFIOUserDevice *udev = g_new0(VFIOUserDevice, 1);

    udev->refcnt = 1;
    udev->timeout_ms = timeout_ms;
    udev->name = g_strdup(name);
    qemu_mutex_init(&udev->dma_lock);
    qemu_mutex_init(&udev->held.lock);
    QTAILQ_INIT(&udev->held.list);
    qemu_cond_init(&udev->dma_idle);
    vfio_user_migration_init(udev);
    vfio_user_irqs_init(udev);
    udev->conn = vfio_user_conn_new(fd, name, &vfio_user_device_conn_ops, udev,
                                    timeout_ms);
    if (record) {
        udev->record = vfio_user_record_ref(record);
        vfio_user_conn_set_record(udev->conn,
                                  vfio_user_record_socket_new(record, false));
    }
    vfio_user_conn_set_patient(udev->conn, true);
    vfio_user_conn_start(udev->conn, ctx);
    return udev;
}

bool vfio_user_device_negotiate(VFIOUserDevice *udev, AioContext *ctx,
                                unsigned poll_max_us, bool ioeventfd,
                                Error **errp)
{
    if (!vfio_user_negotiate_version(udev, ctx, errp) ||
        !vfio_user_negotiate_parts(udev, errp) ||
        !vfio_user_negotiate_rest(udev, ioeventfd, errp)) {
        return false;
    }
    vfio_user_negotiate_posting(udev);
    vfio_user_conn_set_no_fds(udev->conn);
    /* Not before: negotiating says nothing about register accesses. */
    vfio_user_conn_set_poll(udev->conn, poll_max_us);
    return true;
}
