/*
 * Let libvfio-user's sample "lspci" serve the device that it prints.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The sample fills a config space with capabilities, prints it and ends; it
 * never listens.  Linked with this file and with
 *
 *     -Wl,--wrap=vfu_create_ctx,--wrap=vfu_destroy_ctx
 *
 * its context gets the socket named in SERVE_LSPCI_SOCKET, and at the place
 * where the sample would destroy the context it serves one client after the
 * other.  The sample's source and libvfio-user are as they are, so a client
 * sees exactly what was printed.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "libvfio-user.h"

vfu_ctx_t *__real_vfu_create_ctx(vfu_trans_t trans, const char *path,
                                 int flags, void *pvt, vfu_dev_type_t type);
vfu_ctx_t *__wrap_vfu_create_ctx(vfu_trans_t trans, const char *path,
                                 int flags, void *pvt, vfu_dev_type_t type);
void __real_vfu_destroy_ctx(vfu_ctx_t *ctx);
void __wrap_vfu_destroy_ctx(vfu_ctx_t *ctx);

/* The flags lose "do not block": this process has nothing else to do. */
vfu_ctx_t *__wrap_vfu_create_ctx(vfu_trans_t trans, const char *path,
                                 int flags, void *pvt, vfu_dev_type_t type)
{
    const char *socket = getenv("SERVE_LSPCI_SOCKET");

    (void)path;
    (void)flags;
    if (!socket) {
        fprintf(stderr, "serve-lspci: SERVE_LSPCI_SOCKET is not set\n");
        exit(EXIT_FAILURE);
    }
    return __real_vfu_create_ctx(trans, socket, 0, pvt, type);
}

void __wrap_vfu_destroy_ctx(vfu_ctx_t *ctx)
{
    fflush(NULL);
    while (vfu_attach_ctx(ctx) == 0) {
        while (vfu_run_ctx(ctx) >= 0) {
            continue;
        }
        if (errno != ENOTCONN) {
            perror("serve-lspci: vfu_run_ctx");
            break;
        }
    }
    __real_vfu_destroy_ctx(ctx);
}
