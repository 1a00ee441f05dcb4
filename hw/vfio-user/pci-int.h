/*
 * vfio-user: what the files of the PCI device share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_PCI_INT_H
#define HW_VFIO_USER_PCI_INT_H

#include "qemu/notify.h"
#include "qapi/qapi-types-sockets.h"
#include "hw/vfio/pci.h"
#include "system/iothread.h"
#include "aer.h"
#include "device.h"

#define TYPE_VFIO_USER_PCI "vfio-user-pci"
OBJECT_DECLARE_TYPE(VFIOUserPCIDevice, VFIOUserPCIDeviceClass, VFIO_USER_PCI)

struct VFIOUserPCIDeviceClass {
    PCIDeviceClass parent_class;
    void (*parent_realize)(PCIDevice *pdev, Error **errp);
    PCIUnregisterFunc *parent_exit;
    ResettablePhases parent_phases;
};

/**
 * VFIOUserPCIDevice: under the BQL
 * @socket: where the server is
 * @dma_share: the server may have descriptors of guest memory
 * @peer_dma: and of the memory of other vfio-user devices
 * @ioeventfd: writes may be signals to the server
 * @reconnect_ms, @reconnect_timeout_ms, @reconnect_reset, @on_disconnect: see
 *     VFIOUserReconnectOptions
 * @aer: ERR, and option on-error
 * @record_path, @record: where all messages are noted down; NULL: they are not
 * @record_exit: QEMU ends, with the device in it
 * @plug_until: by when all that plugging it in asks must be answered, as
 *     g_get_monotonic_time(); 0 in a VM that has never run
 * @udev: from realize to finalize
 * @iothread: looks after the socket while nobody waits; NULL: the shared one
 */
struct VFIOUserPCIDevice {
    VFIOPCIDevice parent_obj;
    SocketAddress *socket;
    uint32_t timeout_ms;
    uint32_t poll_max_us;
    bool dma_share;
    bool peer_dma;
    bool ioeventfd;
    VFIOUserAER aer;
    uint32_t reconnect_ms;
    uint32_t reconnect_timeout_ms;
    OnOffAuto reconnect_reset;
    int on_disconnect;
    char *record_path;
    VFIOUserRecord *record;
    Notifier record_exit;
    int64_t plug_until;
    VFIOUserDevice *udev;
    IOThread *iothread;
    IOThread *used_iothread;
    Error *migration_blocker;
};

/* pci-options.c */

/**
 * vfio_user_pci_check_options: whether the properties go together
 *
 * Before anything is opened or connected. Returns false with @errp set, a hint
 * included where there is something to do. BQL.
 */
bool vfio_user_pci_check_options(VFIOUserPCIDevice *dev, Error **errp);

/* The class's properties, with their defaults and descriptions. */
void vfio_user_pci_add_options(ObjectClass *klass);

#endif /* HW_VFIO_USER_PCI_INT_H */
