/*
 * vfio-user: reaching the server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_CONNECT_H
#define HW_VFIO_USER_CONNECT_H

#include "qapi/qapi-types-sockets.h"

/**
 * vfio_user_connect: a connection to the server
 * @addr: of type unix or fd
 * @timeout_ms: how long the server may take to accept; not 0
 *
 * Returns a connected UNIX stream socket that the caller owns, or -1 with
 * @errp set. Waits with whatever locks the caller holds.
 */
int vfio_user_connect(SocketAddress *addr, unsigned timeout_ms, Error **errp);

/* Is @fd a connected UNIX stream socket? Others carry no descriptors. */
bool vfio_user_connect_is_connected(int fd);

#endif /* HW_VFIO_USER_CONNECT_H */
