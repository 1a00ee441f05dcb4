/*
 * Torture device: what the guest and the server agree on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One device with everything that a guest can switch: INTx, MSI with masks,
 * MSI-X whose BAR can be mapped beside the table, FLR, power management, BARs
 * of less than a page, mapped in part, mapped as a whole, of ports, and a ROM.
 */

#ifndef TESTS_TORTURE_REGS_H
#define TESTS_TORTURE_REGS_H

#define TT_VENDOR           0x1234
#define TT_DEVICE           0x7474
#define TT_NR_MSI           8
#define TT_NR_MSIX          16

/* BAR0, 4 KiB: registers of 32 bits, every access is a message. */
#define TT_REGS_BAR         0
#define TT_REGS_SIZE        0x1000
#define TT_MAGIC            0x00    /* reads TT_MAGIC_VALUE */
#define TT_MAGIC_VALUE      0x74747421
#define TT_RAISE            0x04    /* write index << 16 | vector: raise it */
#define TT_CAUSES           0x08    /* reads the bits that are set */
#define TT_SET_CAUSES       0x0c    /* write: set bits; INTx is up while any is */
#define TT_ACK_CAUSES       0x10    /* write: clear bits */
#define TT_DMA_STORE        0x14    /* write a guest address: store there */
/* The rest is memory. */

/* BAR1: less than a page, and may be mapped. */
#define TT_SMALL_BAR        1
#define TT_SMALL_SIZE       0x100
/* BAR2: may be mapped as a whole. */
#define TT_MEMORY_BAR       2
#define TT_MEMORY_SIZE      0x10000
/* BAR3: MSI-X table and pending bits, and a page that may be mapped. */
#define TT_MSIX_BAR         3
#define TT_MSIX_SIZE        0x4000
#define TT_MSIX_TABLE       0x0000
#define TT_MSIX_PBA         0x1000
#define TT_MSIX_MAPPED      0x2000
/* BAR4: I/O ports, unless the server was told to have none. */
#define TT_PORTS_BAR        4
#define TT_PORTS_SIZE       0x20
#define TT_NR_BARS          5

/* Where the device may write in guest memory; nothing else is there. */
#define TT_SCRATCH          0x03000000u
#define TT_SCRATCH_SIZE     0x00010000u

#endif /* TESTS_TORTURE_REGS_H */
