/*
 * vfio-user benchmark: what the programs for migration agree on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_BENCH_MIGRATION_H
#define TESTS_BENCH_MIGRATION_H

/* Bytes of device state in one message, as many as QEMU asks for */
#define BENCH_STATE_MESSAGE     (1024 * 1024)

#endif /* TESTS_BENCH_MIGRATION_H */
