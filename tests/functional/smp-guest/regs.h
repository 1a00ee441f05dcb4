/*
 * SMP test device: its registers, for the guest and for the server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * BAR0 is all there is, and every access is a message. Registers are 32 bits
 * wide; test_x86_64_vfio_user_private.py uses them, too.
 */

#ifndef TESTS_SMP_GUEST_REGS_H
#define TESTS_SMP_GUEST_REGS_H

#define SG_VENDOR           0x1234
#define SG_DEVICE_A         0x7361
#define SG_DEVICE_B         0x7362
#define SG_SIZE             0x1000

#define SG_DMA_ADDR         0x00    /* memory */
#define SG_DMA_LEN          0x04    /* memory */
#define SG_DMA_SUM          0x08    /* read: fetch the bytes, Adler-32 */
#define SG_DMA_FILL         0x0c    /* write seed: store that pattern */
#define SG_DMA_ERROR        0x10    /* reads the errno of the last transfer */

/* Words for each of four CPUs */
#define SG_CPU_WORDS        64
#define SG_CPU_SIZE         (4 * SG_CPU_WORDS)
#define SG_PLAIN            0x400   /* memory */
#define SG_FETCHED          0x800   /* reads guest memory at SG_DMA_ADDR + */

#endif /* TESTS_SMP_GUEST_REGS_H */
