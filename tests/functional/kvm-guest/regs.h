/*
 * KVM test device: its registers, for the guest and for the server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device does at once what the guest tells it to, so that a test is a
 * program of the guest alone.
 */

#ifndef TESTS_KVM_GUEST_REGS_H
#define TESTS_KVM_GUEST_REGS_H

#define KT_VENDOR           0x1234
#define KT_DEVICE           0x6b76
#define KT_NR_MSI           4
#define KT_NR_MSIX          16

/* BAR0, 4 KiB: the registers, 32 bits wide. Every access is a message. */
#define KT_REGS_BAR         0
#define KT_REGS_SIZE        0x1000
#define KT_MAGIC            0x00    /* reads KT_MAGIC_VALUE */
#define KT_MAGIC_VALUE      0x6b766d21
#define KT_SCRATCH          0x04    /* memory; a reset clears it */
#define KT_RAISE            0x08    /* write index << 16 | vector: raise it */
#define KT_RAISED           0x0c    /* reads the errno of the last one */
/*
 * INTx is up while there are causes. Its eventfd is signalled when it rises,
 * and not when a cause joins others.
 */
#define KT_CAUSES           0x10    /* reads the bits that are set */
#define KT_SET_CAUSES       0x14    /* write: set bits */
#define KT_ACK_CAUSES       0x18    /* write: clear bits */
#define KT_SIGNALS          0x1c    /* reads how often INTx was signalled */
#define KT_RESETS           0x20    /* reads the number of DEVICE_RESETs */
#define KT_DMA_ADDR         0x24    /* memory */
#define KT_DMA_STORE        0x28    /* write: store it at KT_DMA_ADDR */
/* write: raise as by KT_RAISE, and answer KT_SLOW_MS later */
#define KT_SLOW             0x2c
#define KT_SLOW_MS          100
#define KT_SLOW_WRITES      0x30    /* reads how often it was written */
/*
 * Doorbells, with --bells: writes there are signals on eventfds. Their numbers
 * can be read, and what the last one of KT_BELL_SHADOW wrote.
 */
#define KT_BELL_4           0x400   /* 4 bytes */
#define KT_BELL_MATCH       0x404   /* 2 bytes of KT_BELL_VALUE */
#define KT_BELL_ANY         0x408   /* 1, 2 or 4 bytes */
#define KT_BELL_SHADOW      0x40c   /* 4 bytes, and the value is stored */
#define KT_BELL_VALUE       0x0707
#define KT_PORT_BELL        0x10    /* 2 bytes */
#define KT_PORT_BELL_MATCH  0x14    /* 4 bytes of KT_PORT_BELL_VALUE */
#define KT_PORT_BELL_VALUE  0x12345678
#define KT_NR_BELLS         6
#define KT_RINGS            0x480   /* read: signals of each, in this order */
#define KT_SHADOW           0x4c0   /* read */
#define KT_PER_CPU          0x800   /* memory, 4 bytes for each CPU */

/* BAR2, 64 KiB: memory that the client may map. */
#define KT_MEMORY_BAR       2
#define KT_MEMORY_SIZE      0x10000
/* BAR4: I/O ports, plain memory. */
#define KT_PORTS_BAR        4
#define KT_PORTS_SIZE       0x20
/* BAR5: MSI-X table, and its pending bits. */
#define KT_MSIX_BAR         5
#define KT_MSIX_SIZE        0x2000
#define KT_MSIX_TABLE       0x0000
#define KT_MSIX_PBA         0x1000

#endif /* TESTS_KVM_GUEST_REGS_H */
