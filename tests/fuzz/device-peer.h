/*
 * vfio-user: the server behind a device that is fuzzed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_VFIO_USER_FUZZ_DEVICE_PEER_H
#define TEST_VFIO_USER_FUZZ_DEVICE_PEER_H

#include "fuzz.h"

typedef struct FuzzPeer FuzzPeer;

/**
 * fuzz_peer_start: serve @fd in a thread of its own
 * @fd: owned from now on
 * @in: what is to be done differently, see device-peer.c; copied
 */
FuzzPeer *fuzz_peer_start(int fd, FuzzInput *in);

/* The other end of @fd is closed: wait for the thread to notice. */
void fuzz_peer_join(FuzzPeer *peer);

#endif /* TEST_VFIO_USER_FUZZ_DEVICE_PEER_H */
