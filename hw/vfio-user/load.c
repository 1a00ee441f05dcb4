/*
 * vfio-user: what migration needs around config space and interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hw/vfio saves and loads the PCI state that it emulates. Three things are
 * added here, around its own functions in VFIODeviceOps.
 *
 * A destination that got a bad state must not run. hw/vfio leaves RESUMING only
 * when the VM starts, which is too late to fail: the source may be gone. The
 * config space comes after all device state, so RESUMING ends here, where an
 * error still fails the load, and the source goes on. Not before hw/vfio has set
 * up the interrupts of that config space: libvfio-user refuses them in STOP.
 *
 * The server of the destination has never seen the guest write its BARs and
 * the like. What the client owns of config space is written anew; the rest is
 * the server's own state.
 *
 * No interrupt is lost. The source's server signals an eventfd of the source;
 * whether QEMU got to see it before the state was saved is a matter of luck.
 * Hence on the destination each vector in use is fired once when the VM starts
 * to run: a driver that finds nothing to do shrugs. A masked vector cannot be
 * told from one that was never used there, so for these the source looks
 * whether there is an event, and sets the pending bit that it would have
 * become.
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/vfio/pci.h"
#include "system/runstate.h"
#include "device.h"
#include "trace.h"

static VFIOPCIDevice *vfio_user_load_pci(VFIODevice *vbasedev)
{
    return container_of(vbasedev, VFIOPCIDevice, vbasedev);
}

/* Saving ----------------------------------------------------------------------- */

static bool vfio_user_load_fired(EventNotifier *e)
{
    struct pollfd pfd = {
        .fd = event_notifier_get_fd(e), .events = POLLIN,
    };

    return poll(&pfd, 1, 0) > 0;
}

/*
 * The event stays, for a source that goes on after all. The VM has stopped and
 * the main loop is held up, so nobody else changes pending bits.
 */
static int vfio_user_load_save_config(VFIODevice *vbasedev, QEMUFile *f,
                                      Error **errp)
{
    VFIOPCIDevice *vdev = vfio_user_load_pci(vbasedev);

    for (int i = 0; vdev->interrupt == VFIO_INT_MSIX && i < vdev->nr_vectors;
         i++) {
        if (vdev->msi_vectors[i].use && msix_is_masked(PCI_DEVICE(vdev), i) &&
            vfio_user_load_fired(&vdev->msi_vectors[i].interrupt)) {
            msix_set_pending(PCI_DEVICE(vdev), i);
        }
    }
    return vfio_user_device_of(vbasedev)->load.parent->vfio_save_config(
        vbasedev, f, errp);
}

/* Loading ---------------------------------------------------------------------- */

static void vfio_user_load_add(VFIODevice *vbasedev,
                               VFIOUserConfigWrite *list, unsigned *nr,
                               unsigned reg, unsigned len)
{
    PCIDevice *pdev = PCI_DEVICE(vfio_user_load_pci(vbasedev));

    assert(*nr < VFIO_USER_MAX_CONFIG_WRITES);
    list[*nr] = (VFIOUserConfigWrite) { .reg = reg, .len = len };
    memcpy(list[*nr].data, pdev->config + reg, len);
    ++*nr;
}

static void vfio_user_load_add_msi(VFIODevice *vbasedev,
                                   VFIOUserConfigWrite *list, unsigned *nr)
{
    PCIDevice *pdev = PCI_DEVICE(vfio_user_load_pci(vbasedev));
    unsigned cap = pdev->msi_cap;
    uint16_t flags = pci_get_word(pdev->config + cap + PCI_MSI_FLAGS);
    bool wide = flags & PCI_MSI_FLAGS_64BIT;

    vfio_user_load_add(vbasedev, list, nr, cap + PCI_MSI_ADDRESS_LO, 4);
    if (wide) {
        vfio_user_load_add(vbasedev, list, nr, cap + PCI_MSI_ADDRESS_HI, 4);
    }
    vfio_user_load_add(vbasedev, list, nr,
                       cap + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2);
    if (flags & PCI_MSI_FLAGS_MASKBIT) {
        vfio_user_load_add(vbasedev, list, nr,
                           cap + (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32), 4);
    }
    vfio_user_load_add(vbasedev, list, nr, cap + PCI_MSI_FLAGS, 2);
}

unsigned vfio_user_load_list_config(VFIODevice *vbasedev,
                                    VFIOUserConfigWrite *list)
{
    PCIDevice *pdev = PCI_DEVICE(vfio_user_load_pci(vbasedev));
    unsigned nr = 0;

    for (unsigned i = 0; i < PCI_ROM_SLOT; i++) {
        vfio_user_load_add(vbasedev, list, &nr, PCI_BASE_ADDRESS_0 + 4 * i, 4);
    }
    vfio_user_load_add(vbasedev, list, &nr, PCI_ROM_ADDRESS, 4);
    vfio_user_load_add(vbasedev, list, &nr, PCI_CACHE_LINE_SIZE, 1);
    vfio_user_load_add(vbasedev, list, &nr, PCI_LATENCY_TIMER, 1);
    vfio_user_load_add(vbasedev, list, &nr, PCI_INTERRUPT_LINE, 1);
    if (pdev->cap_present & QEMU_PCI_CAP_MSI) {
        vfio_user_load_add_msi(vbasedev, list, &nr);
    }
    if (pdev->cap_present & QEMU_PCI_CAP_MSIX) {
        vfio_user_load_add(vbasedev, list, &nr,
                           pdev->msix_cap + PCI_MSIX_FLAGS, 2);
    }
    vfio_user_load_add(vbasedev, list, &nr, PCI_COMMAND, 2);
    return nr;
}

void vfio_user_load_write_list(VFIOUserDevice *udev,
                               const VFIOUserConfigWrite *list, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        vfio_user_device_write(udev, VFIO_USER_REGION_CONFIG, list[i].reg,
                               list[i].data, list[i].len);
    }
}

static void vfio_user_load_write_config(VFIODevice *vbasedev)
{
    VFIOUserConfigWrite list[VFIO_USER_MAX_CONFIG_WRITES];
    unsigned nr = vfio_user_load_list_config(vbasedev, list);

    vfio_user_load_write_list(vfio_user_device_of(vbasedev), list, nr);
}

/*
 * hw/vfio shows the guest QEMU's pending bits while there are any, else the
 * device's own, and learns of one only when the vector fires here.
 */
static void vfio_user_load_pending(VFIOPCIDevice *vdev)
{
    bool any = false;

    for (unsigned i = 0; vdev->interrupt == VFIO_INT_MSIX &&
         i < vdev->msix->entries; i++) {
        if (PCI_DEVICE(vdev)->msix_pba[i / 8] & 1 << i % 8) {
            set_bit(i, vdev->msix->pending);
            any = true;
        }
    }
    if (any) {
        memory_region_set_enabled(&PCI_DEVICE(vdev)->msix_pba_mmio, true);
    }
}

/* All device state is there: will the device run on it? 0 or -errno. */
static int vfio_user_load_finish(VFIODevice *vbasedev)
{
    Error *err = NULL;
    int ret = vfio_migration_set_state(vbasedev, VFIO_DEVICE_STATE_STOP,
                                       VFIO_DEVICE_STATE_ERROR, &err);

    if (ret) {
        error_reportf_err(err, "vfio-user-pci %s: the device state that was "
                          "loaded is not complete or does not fit this server: "
                          , vfio_user_device_of(vbasedev)->name);
    }
    return ret;
}

static int vfio_user_load_config(VFIODevice *vbasedev, QEMUFile *f)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_LOAD);
    int ret = udev->load.parent->vfio_load_config(vbasedev, f);

    if (!ret) {
        ret = vfio_user_load_finish(vbasedev);
    }
    if (!ret) {
        vfio_user_load_pending(vfio_user_load_pci(vbasedev));
        vfio_user_load_write_config(vbasedev);
        udev->load.kick = true;
    }
    if (!ret && vfio_user_conn_broken(udev->conn)) {
        ret = -EPIPE;
    }
    trace_vfio_user_load_config(udev->name, ret);
    return ret;
}

/* Running ---------------------------------------------------------------------- */

unsigned vfio_user_load_kick(VFIOPCIDevice *vdev)
{
    unsigned nr = 0;

    if (vdev->interrupt == VFIO_INT_INTx) {
        event_notifier_set(&vdev->intx.interrupt);
        return 1;
    }
    /* Not KVM's eventfd: QEMU's own way looks at the mask bits. */
    for (int i = 0; i < vdev->nr_vectors; i++) {
        if (vdev->msi_vectors[i].use) {
            event_notifier_set(&vdev->msi_vectors[i].interrupt);
            nr++;
        }
    }
    return nr;
}

static void vfio_user_load_vm_state(void *opaque, bool running, RunState state)
{
    VFIODevice *vbasedev = opaque;
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);

    if (running && udev->load.kick) {
        unsigned nr = vfio_user_load_kick(vfio_user_load_pci(vbasedev));

        udev->load.kick = false;
        trace_vfio_user_load_kick(udev->name, nr);
    }
}

/* Life --------------------------------------------------------------------------- */

void vfio_user_load_init(VFIODevice *vbasedev)
{
    VFIOUserLoad *load = &vfio_user_device_of(vbasedev)->load;

    load->parent = vbasedev->ops;
    load->ops = *vbasedev->ops;
    load->ops.vfio_save_config = vfio_user_load_save_config;
    load->ops.vfio_load_config = vfio_user_load_config;
    vbasedev->ops = &load->ops;
    /* After hw/vfio's own handler, which has set the device running. */
    load->vm_state = vfio_user_compat_add_vm_state(vbasedev->dev,
                                                   vfio_user_load_vm_state,
                                                   vbasedev);
}

void vfio_user_load_exit(VFIODevice *vbasedev)
{
    VFIOUserLoad *load = &vfio_user_device_of(vbasedev)->load;

    if (load->vm_state) {
        qemu_del_vm_change_state_handler(load->vm_state);
        load->vm_state = NULL;
        vbasedev->ops = load->parent;
    }
}
