/*
 * vfio-user test server: what the lists of misbehaviours are made of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SERVER_MISCHIEF_H
#define TESTS_SERVER_MISCHIEF_H

#include "internal.h"

typedef void TsSetup(TestServer *s);
typedef void TsCall(TestServer *s, TsMessage *reply, void *opaque);

TsSetup ts_setup_no_twin;
TsSetup ts_setup_bridge;
TsSetup ts_setup_cap_at_end;
TsSetup ts_setup_config_zero;
TsSetup ts_setup_ext_cap_at_end;
TsSetup ts_setup_ext_cap_loop;
TsSetup ts_setup_ext_cap_low;
TsSetup ts_setup_no_caps;
TsSetup ts_setup_not_resettable;
TsSetup ts_setup_two_msix;
TsSetup ts_setup_io_fds;
TsSetup ts_setup_migration;
TsSetup ts_setup_mig_flags_none;
TsSetup ts_setup_mig_flags_unknown;
TsSetup ts_setup_mig_without_stop_copy;
TsSetup ts_setup_mig_absent_einval;
TsSetup ts_setup_mig_absent_eopnotsupp;
TsSetup ts_setup_mig_absent_closed;

/* @opaque: the JSON text that takes the place of the reply's own */
TsCall ts_call_json;
/* 64 MiB of it, or @opaque (a number) brackets */
TsCall ts_call_json_huge;
TsCall ts_call_json_nested;
TsCall ts_call_unterminate;
/* The header's field, of the reply as it should be, plus @opaque (a number) */
TsCall ts_call_add_id;
/* Whatever room was given, more is wanted. */
TsCall ts_call_grow_argsz;
/* @opaque: a kind of file ("pipe", ...) whose fd takes the reply's place */
TsCall ts_call_fd;
/* DMA before any window exists */
TsCall ts_call_early_dma;
/* All of the payload after the first @opaque bytes is ones. */
TsCall ts_call_all_ones;

/*
 * The commands' payload offsets and a few words for the tables. A comma inside
 * a macro's argument needs a name: PUT().
 */
#define PUT(at, value, bytes)   .a = (at), .b = (value), .width = (bytes)

#define REPLY(cmd, idx, what, ...) \
    { .kind = TS_MOVE_##what, .command = VFIO_USER_##cmd, .index = (idx), \
      __VA_ARGS__ }
#define ROW(name_, expect_, says_, ...) \
    { .name = name_, .expect = TS_EXPECT_##expect_, .says = says_, \
      __VA_ARGS__ }
/* One move, or two: their own commas make them any number of arguments. */
#define WITH(...)       .moves = { __VA_ARGS__ }, .nr_moves = 1
#define WITH2(...)      .moves = { __VA_ARGS__ }, .nr_moves = 2

#endif /* TESTS_SERVER_MISCHIEF_H */
