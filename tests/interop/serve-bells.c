/*
 * A device of libvfio-user's with ioeventfds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The BAR and its sub-regions are those of libvfio-user's own test of
 * GET_REGION_IO_FDS: BAR2 of 32 KiB with two mapped areas, six ioeventfds of 8
 * bytes from its beginning, and two more that share one. BAR1 tells what came:
 * 8 bytes at 8 * I read the signals on eventfd I; those at SEEN read the number
 * of writes to BAR2 that came by message. It serves one client.
 */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libvfio-user.h"

#define NR_FDS      7
#define NR_BELLS    8
#define SEEN        0x100
#define BAR_SIZE    0x8000

static int fds[NR_FDS];
static uint64_t counts[NR_FDS];
static uint64_t seen;

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static uint64_t count(unsigned i)
{
    uint64_t more;

    if (read(fds[i], &more, sizeof(more)) == sizeof(more)) {
        counts[i] += more;
    }
    return counts[i];
}

static ssize_t access_counts(vfu_ctx_t *ctx, char *buf, size_t len,
                             loff_t off, bool is_write)
{
    uint64_t value = off == SEEN ? seen :
                     off / 8 < NR_FDS ? count(off / 8) : 0;

    (void)ctx;
    if (len > sizeof(value) || is_write) {
        errno = EINVAL;
        return -1;
    }
    memcpy(buf, &value, len);
    return len;
}

static ssize_t access_bells(vfu_ctx_t *ctx, char *buf, size_t len,
                            loff_t off, bool is_write)
{
    (void)ctx;
    (void)off;
    if (is_write) {
        seen++;
    } else {
        memset(buf, 0, len);
    }
    return len;
}

static void add_bells(vfu_ctx_t *ctx)
{
    struct iovec areas[] = {
        { (void *)0x2000, 0x1000 }, { (void *)0x4000, 0x2000 },
    };
    int file = memfd_create("bells", MFD_CLOEXEC);

    if (file < 0 || ftruncate(file, 2 * BAR_SIZE) ||
        vfu_setup_region(ctx, VFU_PCI_DEV_BAR2_REGION_IDX, BAR_SIZE,
                         access_bells, VFU_REGION_FLAG_RW |
                         VFU_REGION_FLAG_MEM, areas, 2, file, BAR_SIZE)) {
        die("BAR2");
    }
    for (unsigned i = 0; i < NR_BELLS; i++) {
        unsigned fd = i < NR_FDS ? i : NR_FDS - 1;

        if (fd == i) {
            fds[i] = eventfd(0, EFD_NONBLOCK);
        }
        if (fds[fd] < 0 ||
            vfu_create_ioeventfd(ctx, VFU_PCI_DEV_BAR2_REGION_IDX, fds[fd],
                                 8 * i, 8, 0, 0)) {
            die("ioeventfd");
        }
    }
}

int main(void)
{
    const char *socket = getenv("SERVE_BELLS_SOCKET");
    vfu_ctx_t *ctx;

    if (!socket) {
        fprintf(stderr, "serve-bells: SERVE_BELLS_SOCKET is not set\n");
        return EXIT_FAILURE;
    }
    ctx = vfu_create_ctx(VFU_TRANS_SOCK, socket, 0, NULL, VFU_DEV_TYPE_PCI);
    if (!ctx || vfu_pci_init(ctx, VFU_PCI_TYPE_CONVENTIONAL,
                             PCI_HEADER_TYPE_NORMAL, 0) < 0) {
        die("context");
    }
    vfu_pci_set_id(ctx, 0x1234, 0xbe11, 0, 0);
    if (vfu_setup_region(ctx, VFU_PCI_DEV_BAR1_REGION_IDX, 0x1000,
                         access_counts, VFU_REGION_FLAG_RW |
                         VFU_REGION_FLAG_MEM, NULL, 0, -1, 0)) {
        die("BAR1");
    }
    add_bells(ctx);
    if (vfu_realize_ctx(ctx) || vfu_attach_ctx(ctx)) {
        die("attach");
    }
    while (vfu_run_ctx(ctx) >= 0) {
        continue;
    }
    if (errno != ENOTCONN) {
        die("run");
    }
    vfu_destroy_ctx(ctx);
    return EXIT_SUCCESS;
}
