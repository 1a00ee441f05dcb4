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
 * @addr: of type unix or fd; /dev/fdset/N as the path stands for a connected
 *     socket in that set, of which this takes a copy
 * @timeout_ms: how long the server may take to accept; not 0
 *
 * Returns a connected UNIX stream socket that the caller owns, or -1 with
 * @errp set. What type fd names is used up in either case. Waits with whatever
 * locks the caller holds. Any thread; type fd only where the monitor's command
 * runs, as names belong to the monitor.
 */
int vfio_user_connect(SocketAddress *addr, unsigned timeout_ms, Error **errp);

/* Is @fd a connected UNIX stream socket? Others carry no descriptors. */
bool vfio_user_connect_is_connected(int fd);

#endif /* HW_VFIO_USER_CONNECT_H */
