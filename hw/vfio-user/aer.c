/*
 * vfio-user: errors of the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ERR says that the device has an uncorrectable error. hw/vfio stops the VM
 * then, for good: a kernel's device has recovered behind the guest's back, and
 * nobody could tell the guest. Here the device's own registers for Advanced
 * Error Reporting are in the config space that the guest sees. So where the
 * guest listens, it gets the message that hardware would send: from the device
 * to the root port, whose interrupt tells the guest. It finds in the registers
 * what happened, and recovers as its driver knows how, by a reset perhaps.
 *
 * The guest listens when the device has the capability, is behind a root port
 * that has it, and both were enabled. Otherwise on-error decides.
 *
 * The registers are the server's, and it may not answer. A worker thread asks
 * it, since ERR arrives in the main loop. QEMU's error injection works on its
 * copy of config space, which for a vfio device is no copy: what it looks at is
 * put there for the time of the call, and taken back.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "qapi/qapi-types-vfio-user.h"
#include "block/thread-pool.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pcie_aer.h"
#include "system/runstate.h"
#include "aer.h"
#include "device.h"
#include "trace.h"

#define AER_ENABLE  (PCI_ERR_ROOT_CMD_NONFATAL_EN | PCI_ERR_ROOT_CMD_FATAL_EN)

/* As far as QEMU's error injection writes */
#define AER_SIZE    (PCI_ERR_TLP_PREFIX_LOG + PCI_ERR_TLP_PREFIX_LOG_SIZE)

/**
 * VFIOUserAERQuery: what the server is asked
 * @owner: the device that has @state; a reference
 * @cap, @devctl_at: where the registers are in config space
 * @regs: UNCOR_STATUS, UNCOR_MASK and UNCOR_SEVER at their places
 */
typedef struct VFIOUserAERQuery {
    Object *owner;
    VFIOUserAER *state;
    VFIOUserDevice *udev;
    uint16_t cap;
    uint16_t devctl_at;
    uint8_t regs[PCI_ERR_UNCOR_SEVER + 4];
    uint8_t devctl[2];
} VFIOUserAERQuery;

static void vfio_user_aer_start(VFIOUserAER *aer);

/* The root port above the device, if the guest has it report errors. */
static PCIDevice *vfio_user_aer_port(PCIDevice *pdev)
{
    PCIDevice *port = pdev;

    while (!pci_bus_is_root(pci_get_bus(port))) {
        port = pci_bridge_get_device(pci_get_bus(port));
        if (!pci_is_express(port)) {
            return NULL;
        }
    }
    if (port == pdev || !port->exp.aer_cap ||
        pcie_cap_get_type(port) != PCI_EXP_TYPE_ROOT_PORT ||
        !(pci_get_long(port->config + port->exp.aer_cap +
                       PCI_ERR_ROOT_COMMAND) & AER_ENABLE)) {
        return NULL;
    }
    return port;
}

/* The capability as the guest sees it, or 0. */
static uint16_t vfio_user_aer_cap(PCIDevice *pdev)
{
    uint16_t cap = pci_is_express(pdev) ?
                   pcie_find_capability(pdev, PCI_EXT_CAP_ID_ERR) : 0;

    return cap + AER_SIZE <= pci_config_size(pdev) ? cap : 0;
}

/* Policy ------------------------------------------------------------------ */

static void vfio_user_aer_stop(VFIOUserAER *aer)
{
    vfio_user_error_limited(&aer->said, "vfio-user-pci %s: the device has an "
                            "uncorrectable error, and the guest cannot be "
                            "told: the VM is stopped. system_reset resets the "
                            "device, too; see on-error",
                            aer->vdev->vbasedev.name);
    vm_stop(RUN_STATE_INTERNAL_ERROR);
}

static void vfio_user_aer_untold(VFIOUserAER *aer)
{
    VFIOPCIDevice *vdev = aer->vdev;
    Error *err = NULL;

    trace_vfio_user_aer_untold(vdev->vbasedev.name, aer->policy);
    switch (aer->policy) {
    case VFIO_USER_ON_ERROR_REPORT:
        vfio_user_warn_limited(&aer->said, "vfio-user-pci %s: the device has "
                               "an uncorrectable error, and the guest cannot "
                               "be told", vdev->vbasedev.name);
        break;
    case VFIO_USER_ON_ERROR_OFFLINE:
        error_setg(&err, "the device has an uncorrectable error, and the guest "
                   "cannot be told");
        vfio_user_device_offline(vfio_user_device_of(&vdev->vbasedev), err);
        break;
    default:
        vfio_user_aer_stop(aer);
        break;
    }
}

/* Message to the guest ---------------------------------------------------- */

/* What the guest will find in the registers: a fatal error first. */
static uint32_t vfio_user_aer_status_bit(const VFIOUserAERQuery *q)
{
    uint32_t status = pci_get_long(q->regs + PCI_ERR_UNCOR_STATUS) &
                      ~pci_get_long(q->regs + PCI_ERR_UNCOR_MASK) &
                      PCI_ERR_UNC_SUPPORTED;
    uint32_t fatal = status & pci_get_long(q->regs + PCI_ERR_UNCOR_SEVER);

    status = fatal ? fatal : status;
    return status & -status;
}

/* Inject @err with the server's registers in place of the copies. */
static void vfio_user_aer_with_registers(PCIDevice *pdev,
                                         const VFIOUserAERQuery *q,
                                         const PCIEAERErr *err)
{
    uint8_t *devctl = pdev->config + q->devctl_at;
    uint8_t *regs = pdev->config + q->cap;
    uint8_t saved_regs[AER_SIZE];
    uint8_t saved_exp[PCI_EXP_LNKCAP + 4 - PCI_EXP_DEVCTL];

    memcpy(saved_exp, devctl, sizeof(saved_exp));
    memcpy(saved_regs, regs, sizeof(saved_regs));
    memcpy(devctl, q->devctl, sizeof(q->devctl));
    memcpy(regs + PCI_ERR_UNCOR_MASK, q->regs + PCI_ERR_UNCOR_MASK,
           sizeof(q->regs) - PCI_ERR_UNCOR_MASK);
    pci_set_long(regs + PCI_ERR_UNCOR_STATUS, 0);

    pdev->exp.aer_cap = q->cap;
    pcie_aer_inject_error(pdev, err);
    pdev->exp.aer_cap = 0;

    memcpy(regs, saved_regs, sizeof(saved_regs));
    memcpy(devctl, saved_exp, sizeof(saved_exp));
}

/* Whether the root port took note of a message. */
static bool vfio_user_aer_inject(PCIDevice *pdev, const VFIOUserAERQuery *q)
{
    PCIDevice *port = vfio_user_aer_port(pdev);
    PCIEAERErr err = {
        .status = vfio_user_aer_status_bit(q),
        .source_id = pci_requester_id(pdev),
    };
    uint32_t several, before, after;
    uint8_t *status;

    if (!port || !err.status) {
        return false;
    }
    /* Something changes with each message, if "several" is not set yet. */
    status = port->config + port->exp.aer_cap + PCI_ERR_ROOT_STATUS;
    before = pci_get_long(status);
    several = before & PCI_ERR_ROOT_MULTI_UNCOR_RCV;
    pci_set_long(status, before & ~several);
    vfio_user_aer_with_registers(pdev, q, &err);
    after = pci_get_long(status);
    pci_set_long(status, after | several);
    trace_vfio_user_aer_inject(pdev->name, err.status, before, after);
    return after != (before & ~several);
}

/* Asking the server ------------------------------------------------------- */

/* Worker thread */
static int vfio_user_aer_ask(void *opaque)
{
    VFIOUserAERQuery *q = opaque;
    int ret = vfio_user_device_read(q->udev, VFIO_USER_REGION_CONFIG, q->cap,
                                    q->regs, sizeof(q->regs));

    return ret ? ret : vfio_user_device_read(q->udev, VFIO_USER_REGION_CONFIG,
                                             q->devctl_at, q->devctl,
                                             sizeof(q->devctl));
}

static void vfio_user_aer_answer(void *opaque, int ret)
{
    VFIOUserAERQuery *q = opaque;
    VFIOUserAER *aer = q->state;

    aer->busy = false;
    /* A server that has gone was reported, and on-disconnect is for it. */
    if (aer->vdev && ret != -EPIPE &&
        (ret || !vfio_user_aer_inject(PCI_DEVICE(aer->vdev), q))) {
        vfio_user_aer_untold(aer);
    }
    if (aer->vdev && aer->again) {
        vfio_user_aer_start(aer);
    }
    vfio_user_device_unref(q->udev);
    object_unref(q->owner);
    g_free(q);
}

/* An error came. */
static void vfio_user_aer_start(VFIOUserAER *aer)
{
    PCIDevice *pdev = PCI_DEVICE(aer->vdev);
    uint16_t cap = vfio_user_aer_cap(pdev);
    VFIOUserAERQuery *q;

    aer->again = aer->busy;
    if (aer->busy) {
        return;
    }
    if (!cap || !vfio_user_aer_port(pdev)) {
        vfio_user_aer_untold(aer);
        return;
    }
    q = g_new0(VFIOUserAERQuery, 1);
    q->owner = object_ref(OBJECT(pdev));
    q->state = aer;
    q->udev = vfio_user_device_ref(vfio_user_device_of(&aer->vdev->vbasedev));
    q->cap = cap;
    q->devctl_at = pdev->exp.exp_cap + PCI_EXP_DEVCTL;
    aer->busy = true;
    thread_pool_submit_aio(vfio_user_aer_ask, q, vfio_user_aer_answer, q);
}

/* Main loop */
static void vfio_user_aer_handler(void *opaque)
{
    VFIOUserAER *aer = opaque;

    if (event_notifier_test_and_clear(&aer->vdev->err_notifier)) {
        vfio_user_aer_start(aer);
    }
}

void vfio_user_aer_init(VFIOUserAER *aer, VFIOPCIDevice *vdev)
{
    if (!vdev->pci_aer) {
        return;
    }
    aer->vdev = vdev;
    qemu_set_fd_handler(event_notifier_get_fd(&vdev->err_notifier),
                        vfio_user_aer_handler, NULL, aer);
}

void vfio_user_aer_exit(VFIOUserAER *aer)
{
    aer->vdev = NULL;
}
