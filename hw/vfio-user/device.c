/*
 * vfio-user: a device behind a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What its connections call back, a command on its own, and its life after
 * negotiate.c has made it. How hw/vfio reaches it is in device-ops.c and
 * device-access.c.
 *
 * A server may be given a second socket for its commands, the twin. When that
 * is lost @conn fails with it, so that nobody else has two connections to look
 * at. A loss while the device realizes is found by whoever waits next, and is
 * realize's Error; from set_ready() on it is reconnect.c's.
 *
 * The object outlives its server, since hw/vfio and the container point to it.
 * From another server that comes in place of the first one it takes over the
 * connection and the descriptors (adopt). What was negotiated stays as it was
 * found the first time; identity.c has seen to it that the two are the same.
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "device.h"
#include "ioeventfd.h"
#include "reconnect.h"

/* Callbacks of the connections --------------------------------------------- */

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

void vfio_user_device_set_ready(VFIOUserDevice *udev)
{
    vfio_user_conn_set_patient(udev->conn, false);
    vfio_user_conn_set_until(udev->conn, INT64_MAX);
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

void vfio_user_device_serve(VFIOUserDevice *udev)
{
    vfio_user_conn_serve(udev->twin ?: udev->conn);
}

/*
 * The server may be waiting for the reply to a command on its second socket before it
 * answers. The IOThread looks after that, unless it waits for the BQL in a handler of
 * another device. Without the BQL nobody keeps it from that, and the twin may go.
 */
static void vfio_user_device_tick(void *opaque)
{
    VFIOUserDevice *udev = opaque;

    if (bql_locked() && udev->twin) {
        vfio_user_device_serve(udev);
    }
}

const VFIOUserConnOps vfio_user_device_conn_ops = {
    .dma_begin = vfio_user_device_dma_begin,
    .dma_end = vfio_user_device_dma_end,
    .failed = vfio_user_device_failed,
    .tick = vfio_user_device_tick,
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

void vfio_user_device_broke_protocol(VFIOUserDevice *udev, Error *err)
{
    error_prepend(&err, "the server broke the protocol: ");
    vfio_user_device_offline(udev, err);
}

/* Commands ----------------------------------------------------------------- */

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

bool vfio_user_device_settle(VFIOUserDevice *udev, Error **errp)
{
    uint64_t gen = vfio_user_irqs_wanted(udev);
    uint64_t answered;
    uint32_t ids;
    int ret;

    /* With this answer those come that were asked for before. */
    do {
        answered = vfio_user_irqs_nr_answered(udev);
        ret = vfio_user_device_read(udev, VFIO_USER_REGION_CONFIG, 0, &ids,
                                    sizeof(ids));
    } while (!ret && !vfio_user_irqs_is_told(udev, gen) &&
             vfio_user_irqs_nr_answered(udev) != answered);

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

/* Life --------------------------------------------------------------------- */

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
    vfio_user_gate_exit(udev);
    vfio_user_held_exit(udev);
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
    if (!vfio_user_dma_behind_iommu(udev)) {
        udev->caps.max_dma_maps = fresh->caps.max_dma_maps;
    }
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
    vfio_user_migration_returned(udev);
    return true;
}

VFIOUserDevice *vfio_user_device_ref(VFIOUserDevice *udev)
{
    qatomic_inc(&udev->refcnt);
    return udev;
}

static void vfio_user_device_free(void *opaque)
{
    VFIOUserDevice *udev = opaque;

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
    vfio_user_irqs_free(udev);
    vfio_user_ioeventfd_free(udev->io_events);
    vfio_user_ioeventfd_free(udev->io_events_before);
    vfio_user_reconnect_free(udev);
    qemu_cond_destroy(&udev->dma_idle);
    qemu_mutex_destroy(&udev->dma_lock);
    vfio_user_record_unref(udev->record);
    vfio_user_held_free(udev);
    g_free(udev->regions);
    g_free(udev->config);
    g_free(udev->name);
    g_free(udev);
}

void vfio_user_device_unref(VFIOUserDevice *udev)
{
    if (qatomic_fetch_dec(&udev->refcnt) != 1) {
        return;
    }
    if (udev->ready && !bql_locked()) {
        /* A vCPU that had left an access is the last to look. */
        aio_bh_schedule_oneshot(qemu_get_aio_context(), vfio_user_device_free,
                                udev);
    } else {
        vfio_user_device_free(udev);
    }
}
