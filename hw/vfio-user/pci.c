/*
 * vfio-user: the PCI device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vfio-user-pci is a vfio-pci whose device file is a connection. Realize
 * connects, negotiates, hands hw/vfio the operations table and lets vfio-pci
 * realize itself; all PCI emulation is there. What can be set is in
 * pci-options.c.
 *
 * Tear-down runs in two steps, as vfio-pci's does. Unplugging (exit) takes the
 * interrupts back and closes the connection, which is when the server lets go
 * of guest memory. Memory regions and the container live on until the last
 * reference to the device is gone; accesses in between read all-ones. The
 * container holds the VFIOUserDevice for that long.
 */

#include "qemu/osdep.h"
#include "qemu/sockets.h"
#include "qapi/error.h"
#include "migration/blocker.h"
#include "system/runstate.h"
#include "system/system.h"
#include "connect.h"
#include "device-int.h"
#include "ioeventfd.h"
#include "limits.h"
#include "pci-int.h"
#include "reconnect.h"
#include "sigbus.h"
#include "trace.h"

/* For the end of a recording; unplugging can be a vCPU's business. */
#define VFIO_USER_RECORD_UNPLUG_MS  200
#define VFIO_USER_RECORD_EXIT_MS    1000

VFIOUserDevice *vfio_user_device_of(VFIODevice *vbasedev)
{
    VFIOPCIDevice *vdev = container_of(vbasedev, VFIOPCIDevice, vbasedev);

    /* No checked casts: this is on the way of every access. */
    return container_of(vdev, VFIOUserPCIDevice, parent_obj)->udev;
}

/* The shared IOThread ------------------------------------------------------ */

static IOThread *vfio_user_pci_shared_iothread;
static unsigned vfio_user_pci_nr_shared;

static bool vfio_user_pci_get_iothread(VFIOUserPCIDevice *dev, Error **errp)
{
    if (dev->iothread) {
        dev->used_iothread = dev->iothread;
        object_ref(OBJECT(dev->used_iothread));
        return true;
    }
    if (!vfio_user_pci_shared_iothread) {
        vfio_user_pci_shared_iothread = iothread_create("vfio-user", errp);
        if (!vfio_user_pci_shared_iothread) {
            return false;
        }
    }
    vfio_user_pci_nr_shared++;
    dev->used_iothread = vfio_user_pci_shared_iothread;
    return true;
}

static void vfio_user_pci_put_iothread(VFIOUserPCIDevice *dev)
{
    if (!dev->used_iothread) {
        return;
    }
    if (dev->used_iothread != vfio_user_pci_shared_iothread) {
        object_unref(OBJECT(dev->used_iothread));
    } else if (!--vfio_user_pci_nr_shared) {
        iothread_destroy(vfio_user_pci_shared_iothread);
        vfio_user_pci_shared_iothread = NULL;
    }
    dev->used_iothread = NULL;
}

/* Realize ------------------------------------------------------------------ */

static char *vfio_user_pci_name(VFIOUserPCIDevice *dev)
{
    if (DEVICE(dev)->id) {
        return g_strdup(DEVICE(dev)->id);
    }
    return socket_uri(dev->socket);
}

/*
 * What the server can do for a migration. hw/vfio blocks it where there is
 * nothing, and would say that the kernel does not support it; so the blocker
 * that tells the reason is ours, and takes that one's place later.
 */
static bool vfio_user_pci_probe_migration(VFIOUserPCIDevice *dev, Error **errp)
{
    OnOffAuto wish = VFIO_PCI(dev)->vbasedev.enable_migration;

    if (wish == ON_OFF_AUTO_OFF) {
        return true;
    }
    if (!vfio_user_migration_probe(dev->udev, errp)) {
        return false;
    }
    if (dev->udev->mig.flags) {
        return true;
    }
    error_setg(&dev->migration_blocker, "vfio-user-pci %s: the server does not "
               "offer migration", dev->udev->name);
    if (wish == ON_OFF_AUTO_ON) {
        error_propagate(errp, g_steal_pointer(&dev->migration_blocker));
        error_append_hint(errp, "enable-migration=on needs a server with "
                          "feature MIGRATION.\n");
        return false;
    }
    return !migrate_add_blocker_normal(&dev->migration_blocker, errp);
}

/* QEMU does not unplug its devices when it ends. */
static void vfio_user_pci_record_exit(Notifier *notifier, void *data)
{
    VFIOUserPCIDevice *dev = container_of(notifier, VFIOUserPCIDevice,
                                          record_exit);

    vfio_user_record_finish(dev->record, VFIO_USER_RECORD_EXIT_MS);
}

static bool vfio_user_pci_start_record(VFIOUserPCIDevice *dev,
                                       const char *name, Error **errp)
{
    if (!dev->record_path) {
        return true;
    }
    dev->record = vfio_user_record_new(dev->record_path, name, errp);
    if (!dev->record) {
        error_prepend(errp, "x-record: ");
        return false;
    }
    dev->record_exit.notify = vfio_user_pci_record_exit;
    qemu_add_exit_notifier(&dev->record_exit);
    return true;
}

static void vfio_user_pci_drop_record(VFIOUserPCIDevice *dev)
{
    if (dev->record) {
        /* What a failed realize left; unplugging has done it before. */
        vfio_user_record_finish(dev->record, VFIO_USER_RECORD_UNPLUG_MS);
        qemu_remove_exit_notifier(&dev->record_exit);
        vfio_user_record_unref(dev->record);
        dev->record = NULL;
    }
}

static bool vfio_user_pci_open(VFIOUserPCIDevice *dev, Error **errp)
{
    VFIODevice *vbasedev = &VFIO_PCI(dev)->vbasedev;
    g_autofree char *name = vfio_user_pci_name(dev);
    AioContext *ctx;
    int fd;

    if (!vfio_user_pci_get_iothread(dev, errp) ||
        !vfio_user_pci_start_record(dev, name, errp)) {
        return false;
    }
    fd = vfio_user_connect(dev->socket, dev->timeout_ms, errp);
    if (fd < 0) {
        return false;
    }
    ctx = iothread_get_aio_context(dev->used_iothread);
    dev->udev = vfio_user_device_new(fd, name, ctx, dev->timeout_ms,
                                     dev->record);
    if (dev->plug_until) {
        vfio_user_conn_set_until(dev->udev->conn, dev->plug_until);
    }
    if (!vfio_user_device_negotiate(dev->udev, ctx, dev->poll_max_us,
                                    dev->ioeventfd, errp)) {
        vfio_user_device_close(dev->udev);
        vfio_user_device_unref(dev->udev);
        dev->udev = NULL;
        return false;
    }
    dev->udev->share_memory = dev->dma_share;
    dev->udev->peer_dma = dev->peer_dma;
    vbasedev->name = g_steal_pointer(&name);
    vbasedev->file_ops = &vfio_user_device_file_ops;
    vfio_user_device_set_memory(dev->udev,
                                pci_device_iommu_address_space(
                                    PCI_DEVICE(dev)));
    if (!vfio_user_limits_check_fds(dev->udev, errp) ||
        !vfio_user_pci_probe_migration(dev, errp)) {
        vfio_user_device_close(dev->udev);
        return false;
    }
    return true;
}

static void vfio_user_pci_name_blocker(VFIOUserPCIDevice *dev)
{
    VFIODevice *vbasedev = &VFIO_PCI(dev)->vbasedev;

    if (dev->migration_blocker) {
        migrate_del_blocker(&vbasedev->migration_blocker);
        vbasedev->migration_blocker = g_steal_pointer(&dev->migration_blocker);
    }
}

static void vfio_user_pci_exit(PCIDevice *pdev)
{
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(pdev);

    trace_vfio_user_pci_exit(dev->udev->name);
    /*
     * First of all: vfio-pci takes the interrupts back one by one, and a
     * server that does not answer must not hold up unplugging. It loses no
     * more than the connection, with which all of that ends.
     */
    vfio_user_device_close(dev->udev);
    vfio_user_ioeventfd_exit(&VFIO_PCI(dev)->vbasedev);
    vfio_user_load_exit(&VFIO_PCI(dev)->vbasedev);
    vfio_user_aer_exit(&dev->aer);
    VFIO_USER_PCI_GET_CLASS(dev)->parent_exit(pdev);
    vfio_user_record_finish(dev->record, VFIO_USER_RECORD_UNPLUG_MS);
}

/* Accesses by message need the BQL for nothing, and may take long. */
static void vfio_user_pci_enable_lockless(VFIOUserPCIDevice *dev)
{
    VFIOPCIDevice *vdev = VFIO_PCI(dev);

    for (unsigned i = 0; i < ARRAY_SIZE(vdev->bars); i++) {
        if (vdev->bars[i].region.mem) {
            memory_region_enable_lockless_io(vdev->bars[i].region.mem);
        }
    }
}

static void vfio_user_pci_init_reconnect(VFIOUserPCIDevice *dev)
{
    VFIOUserReconnectOptions opts = {
        .socket = dev->socket,
        .delay_ms = dev->reconnect_ms,
        .timeout_ms = dev->reconnect_timeout_ms,
        .policy = dev->on_disconnect,
        .reset = dev->reconnect_reset,
        .poll_max_us = dev->poll_max_us,
        .ioeventfd = dev->ioeventfd,
        .iothread = dev->used_iothread,
    };

    vfio_user_reconnect_init(dev->udev, &VFIO_PCI(dev)->vbasedev, &opts);
}

static void vfio_user_pci_plug(PCIDevice *pdev, Error **errp)
{
    ERRP_GUARD();
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(pdev);
    VFIO_USER_BQL_SCOPE(dev->plug_until ? VFIO_USER_BQL_HOTPLUG :
                                          VFIO_USER_BQL_REALIZE);

    if (!vfio_user_pci_open(dev, errp)) {
        g_autofree char *uri = socket_uri(dev->socket);

        error_prepend(errp, "vfio-user-pci %s: ", uri);
        if (dev->reconnect_ms) {
            error_append_hint(errp, "reconnect-ms waits for a server to come "
                              "back. The first time it must be there: what "
                              "the device is, is known only from it.\n");
        }
        return;
    }
    VFIO_USER_PCI_GET_CLASS(dev)->parent_realize(pdev, errp);
    if (*errp) {
        Error *lost = vfio_user_conn_error(dev->udev->conn);

        /* hw/vfio knows an errno, if anything. */
        if (lost) {
            error_prepend(errp, "vfio-user-pci %s: %s: ", dev->udev->name,
                          error_get_pretty(lost));
            error_free(lost);
        }
        vfio_user_device_close(dev->udev);
        migrate_del_blocker(&dev->migration_blocker);
        return;
    }
    if (!vfio_user_device_settle(dev->udev, errp)) {
        vfio_user_device_close(dev->udev);
        VFIO_USER_PCI_GET_CLASS(dev)->parent_exit(pdev);
        migrate_del_blocker(&dev->migration_blocker);
        return;
    }
    vfio_user_pci_name_blocker(dev);
    vfio_user_pci_enable_lockless(dev);
    vfio_user_ioeventfd_init(&VFIO_PCI(dev)->vbasedev);
    vfio_user_aer_init(&dev->aer, VFIO_PCI(dev));
    if (VFIO_PCI(dev)->vbasedev.migration) {
        vfio_user_load_init(&VFIO_PCI(dev)->vbasedev);
    }
    vfio_user_pci_init_reconnect(dev);
    trace_vfio_user_pci_realized(dev->udev->name);
    vfio_user_device_set_ready(dev->udev);
}

/*
 * Guest and monitors of a VM that runs stand still meanwhile, so all that is asked has
 * the time of one message. Whoever starts a VM with a slow server waits.
 */
static void vfio_user_pci_realize(PCIDevice *pdev, Error **errp)
{
    ERRP_GUARD();
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(pdev);

    trace_vfio_user_pci_realize(DEVICE(dev)->id ?: "");
    if (!vfio_user_pci_check_options(dev, errp)) {
        return;
    }
    if (vfio_user_device_vm_has_run()) {
        dev->plug_until = g_get_monotonic_time() +
                          dev->timeout_ms * (int64_t)1000;
    }
    vfio_user_pci_plug(pdev, errp);
    if (*errp && dev->plug_until &&
        g_get_monotonic_time() >= dev->plug_until) {
        error_prepend(errp, "the server took longer than x-msg-timeout-ms=%u, "
                      "which all its answers together may take where a device "
                      "is plugged into a VM that has run; raise it for a server "
                      "that needs more: ", dev->timeout_ms);
    }
}

/* Reset -------------------------------------------------------------------- */

/* One that plugging in ends with is part of it. */
static void vfio_user_pci_reset_hold(Object *obj, ResetType type)
{
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(obj);
    VFIO_USER_BQL_SCOPE(vfio_user_device_vm_has_run() ?
                        VFIO_USER_BQL_RESET : VFIO_USER_BQL_EARLY_RESET);

    vfio_user_device_begin_reset(dev->udev, dev->plug_until);
    dev->plug_until = 0;
    VFIO_USER_PCI_GET_CLASS(dev)->parent_phases.hold(obj, type);
    vfio_user_device_end_reset(dev->udev);
}

/* Config space ------------------------------------------------------------- */

/* What hw/vfio asks the server for is for the guest, whose vCPU may ask again. */
static uint32_t vfio_user_pci_read_config(PCIDevice *pdev, uint32_t addr,
                                          int len)
{
    VFIOUserDevice *udev = vfio_user_device_of(&VFIO_PCI(pdev)->vbasedev);
    uint32_t val;

    udev->reads_config = true;
    val = vfio_pci_read_config(pdev, addr, len);
    udev->reads_config = false;
    return val;
}

/* Does a write set bit @mask of the byte at @reg? */
static bool vfio_user_pci_sets(uint32_t addr, uint32_t val, int len,
                               unsigned reg, uint8_t mask)
{
    return range_covers_byte(addr, len, reg) && val >> 8 * (reg - addr) & mask;
}

/* Whether a write starts a function level reset, in one of the two ways. */
static bool vfio_user_pci_starts_flr(PCIDevice *pdev, uint32_t addr,
                                     uint32_t val, int len)
{
    unsigned exp = pci_is_express(pdev) ? pdev->exp.exp_cap : 0;
    unsigned af = pci_find_capability(pdev, PCI_CAP_ID_AF);

    return (exp && vfio_user_pci_sets(addr, val, len, exp + PCI_EXP_DEVCTL + 1,
                                      PCI_EXP_DEVCTL_BCR_FLR >> 8) &&
            pci_get_long(pdev->config + exp + PCI_EXP_DEVCAP) &
            PCI_EXP_DEVCAP_FLR) ||
           (af && vfio_user_pci_sets(addr, val, len, af + PCI_AF_CTRL,
                                     PCI_AF_CTRL_FLR) &&
            pci_get_byte(pdev->config + af + PCI_AF_CAP) & PCI_AF_CAP_FLR);
}

/*
 * A function level reset is the server's work, and may cost it its BARs. The
 * guest does not notice: hw/vfio goes on to show it those that it has written,
 * as after one that the kernel does for vfio-pci. So the server gets them back
 * here; what else the guest has to restore it sees and does itself.
 */
static void vfio_user_pci_after_flr(VFIOPCIDevice *vdev, const uint8_t *bars)
{
    VFIOUserDevice *udev = vfio_user_device_of(&vdev->vbasedev);

    if (vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        udev->missed_reset = true;
        return;
    }
    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        vfio_file_pwrite(&vdev->vbasedev, bars + 4 * i, 4,
                         vdev->config_offset + PCI_BASE_ADDRESS_0 + 4 * i);
    }
    vfio_user_irqs_was_reset(udev);
}

/* The device may be unplugged before the server has answered the write. */
static void vfio_user_pci_write_config(PCIDevice *pdev, uint32_t addr,
                                       uint32_t val, int len)
{
    VFIOPCIDevice *vdev = VFIO_PCI(pdev);
    VFIOUserDevice *udev = vfio_user_device_of(&vdev->vbasedev);
    uint64_t data = cpu_to_le64(val);
    VFIOUserAccess a = {
        .region = VFIO_USER_REGION_CONFIG, .off = addr,
        .buf = &data, .len = len, .is_write = true,
    };
    bool flr = vfio_user_pci_starts_flr(pdev, addr, val, len);

    if (vfio_user_held_is_direct() &&
        vfio_user_guest_waits_for_link(udev, &a)) {
        return;
    }
    vfio_pci_write_config(pdev, addr, val, len);
    if (ranges_overlap(addr, len, PCI_COMMAND, 2)) {
        vfio_user_irqs_command_written(udev);
    }
    if (flr) {
        vfio_user_pci_after_flr(vdev, pdev->config + PCI_BASE_ADDRESS_0);
    }
}

/* Object ------------------------------------------------------------------- */

static void vfio_user_pci_finalize(Object *obj)
{
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(obj);

    /*
     * The parent's finalize comes after this one. It needs the VFIOUserDevice
     * no more than the container's own reference provides: without an
     * operations table nothing is asked of it.
     */
    if (dev->udev) {
        /* The parent unmaps the regions. */
        vfio_user_sigbus_remove(dev->udev);
        vfio_user_device_unref(dev->udev);
        dev->udev = NULL;
    }
    vfio_user_pci_drop_record(dev);
    vfio_user_pci_put_iothread(dev);
    qapi_free_SocketAddress(dev->socket);
}

static void vfio_user_pci_class_init(ObjectClass *klass, VFIOUserClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pdc = PCI_DEVICE_CLASS(klass);
    VFIOUserPCIDeviceClass *vupc = VFIO_USER_PCI_CLASS(klass);

    vupc->parent_realize = pdc->realize;
    vupc->parent_exit = pdc->exit;
    pdc->realize = vfio_user_pci_realize;
    pdc->exit = vfio_user_pci_exit;
    resettable_class_set_parent_phases(RESETTABLE_CLASS(klass), NULL,
                                       vfio_user_pci_reset_hold, NULL,
                                       &vupc->parent_phases);
    pdc->config_read = vfio_user_pci_read_config;
    pdc->config_write = vfio_user_pci_write_config;
    dc->desc = "PCI device implemented by another process (vfio-user)";
    vfio_user_pci_add_options(klass);
}

static const TypeInfo vfio_user_pci_types[] = {
    {
        .name = TYPE_VFIO_USER_PCI,
        .parent = TYPE_VFIO_PCI,
        .instance_size = sizeof(VFIOUserPCIDevice),
        .instance_finalize = vfio_user_pci_finalize,
        .class_size = sizeof(VFIOUserPCIDeviceClass),
        .class_init = vfio_user_pci_class_init,
    },
};

DEFINE_TYPES(vfio_user_pci_types)
