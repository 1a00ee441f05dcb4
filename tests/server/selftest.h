/*
 * vfio-user test server: self test, what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SERVER_SELFTEST_H
#define TESTS_SERVER_SELFTEST_H

#include "rawclient.h"
#include "server.h"

typedef struct Fixture {
    char *dir, *path;
    TestServer *s;
    RawClient *c;
} Fixture;

/* A standard device with @setup applied, and a client that is connected. */
Fixture *fixture_new(void (*setup)(TestServer *s));
/* The same after VERSION. */
Fixture *fixture_negotiated(void (*setup)(TestServer *s), bool twin);
/* Likewise, but the device is only what @setup makes of it. */
Fixture *fixture_bare(void (*setup)(TestServer *s), bool twin);
void fixture_free(Fixture *f);

void test_moves(void);
void test_mischief_names(void);

void test_io_fds(void);
void test_io_fds_shadow(void);
void test_io_fds_requests(void);
void test_io_fds_script(void);

void test_script(void);
void test_script_errors(void);
void test_script_migration(void);
void test_script_like_libvfio_user(void);
void test_program(void);
void test_program_exits(void);

void test_mig_absent(void);
void test_mig_feature(void);
void test_mig_arcs(void);
void test_mig_paths(void);
void test_mig_stream(void);
void test_mig_large(void);
void test_mig_bad_stream(void);
void test_mig_bad_requests(void);
void test_mig_precopy(void);
void test_mig_per_second(void);
void test_mig_every_read(void);
void test_mig_come_back(void);
void test_mig_like_libvfio_user(void);

void test_dirty_bits(void);
void test_dirty_requests(void);
void test_dirty_page_size(void);
void test_dirty_later(void);
void test_dirty_ranges(void);
void test_dirty_any_range(void);
void test_dirty_client_gone(void);

void test_fail_refuse(void);
void test_fail_error(void);
void test_fail_read(void);
void test_fail_write(void);
void test_fail_logging(void);
void test_fail_hang(void);
void test_fail_stall(void);
void test_fail_close(void);
void test_fail_lies(void);
void test_fail_moves(void);

void test_engine_registers(void);
void test_engine_ack(void);
void test_engine_pages(void);
void test_engine_messages(void);
void test_engine_memory(void);
void test_engine_timer(void);
void test_engine_states(void);
void test_engine_dirty(void);
void test_engine_migrates(void);
void test_engine_lost(void);

void test_disk_registers(void);
void test_disk_io(void);
void test_disk_doorbell(void);
void test_disk_bad_request(void);
void test_state(void);
void test_spdk(void);
void test_spdk_overtakes(void);
void test_disk_dies(void);
void test_disk_killed(void);
void test_disk_killed_doorbell(void);

#endif /* TESTS_SERVER_SELFTEST_H */
