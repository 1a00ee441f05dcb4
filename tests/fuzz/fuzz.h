/*
 * vfio-user: what the fuzzing targets share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A target is a function that is given bytes. What must never happen, whatever
 * they are, it asserts. libFuzzer looks for bytes that make it fail (make
 * fuzz); "make check" gives it those of tests/fuzz/corpus. The program is
 * tests/unit/fuzz-vfio-user.c.
 *
 * Bytes that say something come from the front of the input; when they run out
 * there are zeros, so that every input is a valid one.
 */

#ifndef TEST_VFIO_USER_FUZZ_H
#define TEST_VFIO_USER_FUZZ_H

#include "hw/vfio-user/wire.h"

typedef struct FuzzInput {
    const uint8_t *data;
    size_t len;
} FuzzInput;

/**
 * FuzzTarget
 * @name: of the target and of its directory in the corpus
 * @run: one input; leaves nothing behind
 */
typedef struct FuzzTarget {
    const char *name;
    void (*run)(FuzzInput *in);
} FuzzTarget;

void fuzz_wire(FuzzInput *in);
void fuzz_caps(FuzzInput *in);
void fuzz_config(FuzzInput *in);
void fuzz_conn(FuzzInput *in);
void fuzz_device(FuzzInput *in);

/* Take @len bytes; zeros for those that are not there. */
void fuzz_take(FuzzInput *in, void *to, size_t len);
uint8_t fuzz_u8(FuzzInput *in);
uint16_t fuzz_u16(FuzzInput *in);
uint32_t fuzz_u32(FuzzInput *in);
uint64_t fuzz_u64(FuzzInput *in);

/*
 * Take up to @len bytes into memory of just that size, so that a sanitizer
 * sees a look beyond. @len is set to how many there were. For g_free().
 */
uint8_t *fuzz_bytes(FuzzInput *in, size_t *len);

/* The rest, in the same way. */
uint8_t *fuzz_rest(FuzzInput *in, size_t *len);

/* The outcome of a check: an error if and only if it said no. Drops it. */
void fuzz_check_error(bool ok, Error *err);

#endif /* TEST_VFIO_USER_FUZZ_H */
