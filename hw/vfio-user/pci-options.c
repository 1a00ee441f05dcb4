/*
 * vfio-user: properties of the PCI device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a user can set, and what realize refuses of it before it connects.
 * vfio-pci's properties come from the parent. Those that name a device of the
 * host's kernel are refused, since they would have no effect.
 *
 * What QAPI has a type for (a socket that is a path or an object, enumerations)
 * is a property of the class; the rest is in qdev's list.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qapi/qapi-types-vfio-user.h"
#include "qapi/qapi-visit-vfio-user.h"
#include "qapi/qapi-visit-sockets.h"
#include "qapi/clone-visitor.h"
#include "hw/qdev-properties.h"
#include "pci-int.h"

/* Checks ------------------------------------------------------------------- */

static bool vfio_user_pci_check_reconnect(VFIOUserPCIDevice *dev, Error **errp)
{
    if (!dev->reconnect_ms &&
        dev->on_disconnect != VFIO_USER_ON_DISCONNECT_OFFLINE) {
        error_setg(errp, "on-disconnect=%s needs 'reconnect-ms': without it "
                   "nothing waits for the server to come back",
                   VFIOUserOnDisconnect_str(dev->on_disconnect));
        error_append_hint(errp, "Use reconnect-ms=N, N being the milliseconds "
                          "between attempts.\n");
        return false;
    }
    if (dev->reconnect_ms && dev->socket->type == SOCKET_ADDRESS_TYPE_FD) {
        error_setg(errp, "reconnect-ms needs a socket of type 'unix': a "
                   "descriptor cannot be connected again");
        return false;
    }
    return true;
}

bool vfio_user_pci_check_options(VFIOUserPCIDevice *dev, Error **errp)
{
    VFIOPCIDevice *vdev = VFIO_PCI(dev);
    const char *bad = NULL;

    if (~vdev->host.domain || ~vdev->host.bus || ~vdev->host.slot ||
        ~vdev->host.function) {
        bad = "host";
    } else if (vdev->vbasedev.sysfsdev) {
        bad = "sysfsdev";
    } else if (vdev->vbasedev.fd >= 0) {
        bad = "fd";
    } else if (vdev->vbasedev.iommufd) {
        bad = "iommufd";
    }
    if (bad) {
        error_setg(errp, "vfio-user-pci does not take '%s': it names a device "
                   "of the host's kernel", bad);
        error_append_hint(errp, "Name the server's socket with socket=PATH, or "
                          "use vfio-pci for a device of the host.\n");
        return false;
    }
    if (!dev->socket) {
        error_setg(errp, "vfio-user-pci needs 'socket': where the server of "
                   "the device listens");
        error_append_hint(errp, "Use -device vfio-user-pci,socket=PATH\n");
        return false;
    }
    if (dev->socket->type == SOCKET_ADDRESS_TYPE_INET ||
        dev->socket->type == SOCKET_ADDRESS_TYPE_VSOCK) {
        error_setg(errp, "vfio-user-pci cannot use a socket of type '%s': "
                   "interrupts and guest memory need descriptors, which only "
                   "UNIX sockets carry",
                   SocketAddressType_str(dev->socket->type));
        error_append_hint(errp, "Use a socket of type 'unix' or 'fd'.\n");
        return false;
    }
    if (!dev->timeout_ms) {
        error_setg(errp, "x-msg-timeout-ms must not be 0");
        return false;
    }
    if (dev->poll_max_us > 10000) {
        error_setg(errp, "x-poll-max-us must not be above 10000");
        return false;
    }
    return vfio_user_pci_check_reconnect(dev, errp);
}

/* Properties --------------------------------------------------------------- */

static void vfio_user_pci_get_socket(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(obj);

    visit_type_SocketAddress(v, name, &dev->socket, errp);
}

static void vfio_user_pci_set_socket(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    VFIOUserPCIDevice *dev = VFIO_USER_PCI(obj);
    VFIOUserSocket *value = NULL;
    SocketAddress *addr;

    if (DEVICE(obj)->realized) {
        error_setg(errp, "'%s' cannot be set on a device that is in use", name);
        return;
    }
    if (!visit_type_VFIOUserSocket(v, name, &value, errp)) {
        return;
    }
    if (value->type == QTYPE_QSTRING) {
        addr = g_new0(SocketAddress, 1);
        addr->type = SOCKET_ADDRESS_TYPE_UNIX;
        addr->u.q_unix.path = g_strdup(value->u.path);
    } else {
        addr = QAPI_CLONE(SocketAddress, &value->u.address);
    }
    qapi_free_VFIOUserSocket(value);
    qapi_free_SocketAddress(dev->socket);
    dev->socket = addr;
}

static int vfio_user_pci_get_on_disconnect(Object *obj, Error **errp)
{
    return VFIO_USER_PCI(obj)->on_disconnect;
}

static void vfio_user_pci_set_on_disconnect(Object *obj, int value,
                                            Error **errp)
{
    if (DEVICE(obj)->realized) {
        error_setg(errp, "'on-disconnect' cannot be set on a device that is in "
                   "use");
        return;
    }
    VFIO_USER_PCI(obj)->on_disconnect = value;
}

static int vfio_user_pci_get_on_error(Object *obj, Error **errp)
{
    return VFIO_USER_PCI(obj)->aer.policy;
}

/* Also while the device is in use. */
static void vfio_user_pci_set_on_error(Object *obj, int value, Error **errp)
{
    VFIO_USER_PCI(obj)->aer.policy = value;
}

static const Property vfio_user_pci_properties[] = {
    DEFINE_PROP_UINT32("x-msg-timeout-ms", VFIOUserPCIDevice, timeout_ms,
                       5000),
    DEFINE_PROP_UINT32("x-poll-max-us", VFIOUserPCIDevice, poll_max_us, 50),
    DEFINE_PROP_BOOL("dma-share", VFIOUserPCIDevice, dma_share, true),
    DEFINE_PROP_BOOL("peer-dma", VFIOUserPCIDevice, peer_dma, false),
    DEFINE_PROP_BOOL("ioeventfd", VFIOUserPCIDevice, ioeventfd, true),
    DEFINE_PROP_UINT32("reconnect-ms", VFIOUserPCIDevice, reconnect_ms, 0),
    DEFINE_PROP_UINT32("reconnect-timeout-ms", VFIOUserPCIDevice,
                       reconnect_timeout_ms, 0),
    DEFINE_PROP_ON_OFF_AUTO("reconnect-reset", VFIOUserPCIDevice,
                            reconnect_reset, ON_OFF_AUTO_AUTO),
    DEFINE_PROP_STRING("x-record", VFIOUserPCIDevice, record_path),
    DEFINE_PROP_LINK("iothread", VFIOUserPCIDevice, iothread, TYPE_IOTHREAD,
                     IOThread *),
};

void vfio_user_pci_add_options(ObjectClass *klass)
{
    device_class_set_props(DEVICE_CLASS(klass), vfio_user_pci_properties);
    object_class_property_add(klass, "socket", "VFIOUserSocket",
                              vfio_user_pci_get_socket,
                              vfio_user_pci_set_socket, NULL, NULL);
    object_class_property_add_enum(klass, "on-disconnect",
                                   "VFIOUserOnDisconnect",
                                   &VFIOUserOnDisconnect_lookup,
                                   vfio_user_pci_get_on_disconnect,
                                   vfio_user_pci_set_on_disconnect);
    object_class_property_set_description(klass, "reconnect-ms",
        "Milliseconds before the first attempt to connect again when the "
        "server has gone; 0: never");
    object_class_property_set_description(klass, "reconnect-timeout-ms",
        "Milliseconds after which the server is no longer waited for; 0: for "
        "ever");
    object_class_property_set_description(klass, "reconnect-reset",
        "Reset the device when the server is back; auto: unless it has kept "
        "the device's state");
    object_class_property_set_description(klass, "on-disconnect",
        "While the server is away: offline (reads all-ones), hold (vCPUs that "
        "access it wait), stop (the VM, too)");
    object_class_property_add_enum(klass, "on-error", "VFIOUserOnError",
                                   &VFIOUserOnError_lookup,
                                   vfio_user_pci_get_on_error,
                                   vfio_user_pci_set_on_error);
    object_class_property_set_description(klass, "on-error",
        "The device has an uncorrectable error of which the guest cannot be "
        "told by PCI Express: stop (the VM), offline (the device), report");
    object_class_property_set_description(klass, "socket",
        "UNIX socket of the server: a path, or a SocketAddress of type unix "
        "or fd");
    object_class_property_set_description(klass, "x-msg-timeout-ms",
        "Milliseconds that the server has to answer a message");
    object_class_property_set_description(klass, "x-poll-max-us",
        "Microseconds that a vCPU may spin for an answer where that is found "
        "to be quicker than sleeping, 0: never");
    object_class_property_set_description(klass, "x-record",
        "File that all messages are written to, as pcapng for Wireshark; it "
        "holds what the guest and the device tell each other");
    object_class_property_set_description(klass, "dma-share",
        "Give the server descriptors of guest memory that is shared; off: its "
        "DMA goes by messages, and it reaches what they name and no more");
    object_class_property_set_description(klass, "ioeventfd",
        "Ask the server for eventfds that the guest's writes signal without a "
        "message");
    object_class_property_set_description(klass, "peer-dma",
        "Give the server descriptors of what other vfio-user devices let QEMU "
        "map of their BARs, for DMA from device to device");
    object_class_property_set_description(klass, "iothread",
        "IOThread that serves the connection while no vCPU waits on it");
}
