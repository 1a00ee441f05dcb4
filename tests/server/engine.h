/*
 * vfio-user test server: the engine, a device whose work can be checked
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For the server and for guest programs alike, so it needs no header but
 * stdint.h. The device is 0x1234:0x5679: BAR0 has the registers below (never
 * mapped), BAR4 an MSI-X table with four vectors.
 *
 * While RUN is set, the engine fills a buffer in guest memory page by page
 * from its first to its last, then again from the first, for ever. Each full
 * pass is a generation, the first one is 1. What a page holds follows from the
 * seed, the page's index and the generation, so at any moment when the engine
 * stands still every page can be checked:
 *
 *   pages 0 .. POSITION - 1     hold GENERATION
 *   pages POSITION .. last      hold GENERATION - 1 (0: what was there before)
 *
 * It stands still after RUN was cleared (the write is obeyed at once, a read
 * that follows it sees final values) and while it waits for an ACK.
 *
 * After BATCH pages a batch is complete: BATCH_NR and COUNTER go up by one and
 * vector 0 is raised. Unless NO_ACK is set the next batch begins only when
 * BATCH_NR's value has been written to ACK: an interrupt that gets lost stops
 * the engine for good, and STATUS says WAIT_ACK. Nothing is raised again, and
 * nothing pends in the device: a vector without an eventfd loses its
 * interrupt, which LOST counts.
 *
 * With TIMER set vector 1 is raised every TIMER_US microseconds, TIMER_SEQ and
 * COUNTER go up by one each time. COUNTER only ever grows, until a reset.
 *
 * The device works in the migration states RUNNING and PRE_COPY only, and it
 * writes to memory only while it is bus master. Everything here is part of
 * the migrated state.
 */

#ifndef TESTS_SERVER_ENGINE_H
#define TESTS_SERVER_ENGINE_H

#include <stdint.h>

#define ENGINE_VENDOR           0x1234
#define ENGINE_DEVICE           0x5679
#define ENGINE_VECTORS          4
#define ENGINE_VECTOR_BATCH     0
#define ENGINE_VECTOR_TIMER     1
#define ENGINE_PAGE             4096u
#define ENGINE_MAX_BUFFER       (64u << 20)

/*
 * Registers, little-endian, accessed as 4 aligned bytes or, where they are 64
 * bits wide, as 8 or two times 4. Halves of one that moves do not belong
 * together: read the upper, the lower and the upper half again.
 */
#define ENGINE_ID               0x00    /* ro, ENGINE_MAGIC */
#define ENGINE_CONTROL          0x04    /* rw, bits below */
#define ENGINE_STATUS           0x08    /* ro, bits below */
#define ENGINE_ERROR            0x0c    /* ro, errno that stopped the engine */
#define ENGINE_COUNTER          0x10    /* ro, 64 bits */
/*
 * The next three can be written while RUN is clear, and rewind the engine to
 * GENERATION 1, POSITION 0. Address and size are multiples of ENGINE_PAGE
 * (lower bits are ignored), the size is ENGINE_MAX_BUFFER at most.
 */
#define ENGINE_BUFFER           0x18    /* rw, 64 bits, guest address */
#define ENGINE_SIZE             0x20    /* rw, 64 bits, bytes */
#define ENGINE_SEED             0x28    /* rw, 64 bits */
#define ENGINE_GENERATION       0x30    /* ro, 64 bits, of the present pass */
#define ENGINE_POSITION         0x38    /* ro, 64 bits, next page's index */
#define ENGINE_RATE             0x40    /* rw, pages per second */
#define ENGINE_BATCH            0x44    /* rw, pages per batch, not 0 */
#define ENGINE_BATCH_NR         0x48    /* ro, batches completed */
#define ENGINE_ACK              0x4c    /* rw, last batch acknowledged */
#define ENGINE_TIMER_US         0x50    /* rw, period, at least 1000 */
#define ENGINE_TIMER_SEQ        0x54    /* ro */
#define ENGINE_RAISED(vector)   (0x60 + 4 * (vector))   /* ro, interrupts */
#define ENGINE_LOST(vector)     (0x70 + 4 * (vector))   /* ro, no eventfd */
/* Pages that had to wait because no DMA window covered them at first. */
#define ENGINE_WAITED           0x80    /* ro, 64 bits */
#define ENGINE_SCRATCH(i)       (0xc0 + 4 * (i))        /* rw, 16 words */
#define ENGINE_NR_SCRATCH       16

#define ENGINE_MAGIC            0x31474e45u     /* "ENG1" */

#define ENGINE_CONTROL_RUN      (1u << 0)
#define ENGINE_CONTROL_TIMER    (1u << 1)
#define ENGINE_CONTROL_NO_ACK   (1u << 2)

#define ENGINE_STATUS_RUN       (1u << 0)   /* as in CONTROL */
#define ENGINE_STATUS_WAIT_ACK  (1u << 1)
#define ENGINE_STATUS_WAIT_MEM  (1u << 2)   /* no window for the next page */
#define ENGINE_STATUS_NO_MASTER (1u << 3)   /* bus mastering is off */
#define ENGINE_STATUS_ERROR     (1u << 4)   /* RUN was cleared by an error */

/* splitmix64's output function */
static inline uint64_t engine_mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/*
 * Word @i, of 512, of page @page in generation @generation. The first three
 * say what the page is, for whoever looks at one that is wrong.
 */
static inline uint64_t engine_word(uint64_t seed, uint64_t page,
                                   uint64_t generation, uint32_t i)
{
    switch (i) {
    case 0:
        return page;
    case 1:
        return generation;
    case 2:
        return seed;
    default:
        return engine_mix(seed + page * 0x9e3779b97f4a7c15ull +
                          generation * 0xd1342543de82ef95ull + i);
    }
}

#endif /* TESTS_SERVER_ENGINE_H */
