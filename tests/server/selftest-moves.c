/*
 * vfio-user test server: self test of moves and of the named misbehaviours
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "selftest.h"

static void call_flip(TestServer *s, TsMessage *reply, void *opaque)
{
    (void)s;
    *(unsigned *)opaque = reply->payload->len;
    reply->payload->data[16] = 0xee;
}

void test_moves(void)
{
    Fixture *f = fixture_negotiated(NULL, false);
    struct vfio_user_region_rw rw = { 0x8, 0, 4 };
    unsigned len = 0;
    uint32_t got;

#define MOVE(...) ts_add_move(f->s, &(TsMove){ \
        .command = VFIO_USER_REGION_READ, .index = 0, .times = 1, \
        __VA_ARGS__ })
    MOVE(.kind = TS_MOVE_ERROR, .a = 5);
    g_assert_cmpint(rc_read(f->c, 4, 0, &got, 4), ==, 0);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 5);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    MOVE(.kind = TS_MOVE_ERROR, .a = 7, .skip = 1);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 7);
    MOVE(.kind = TS_MOVE_SPLIT, .a = 3, .b = 5);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    MOVE(.kind = TS_MOVE_CALL, .call = call_flip, .opaque = &len);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    g_assert_cmpint(got & 0xff, ==, 0xee);
    g_assert_cmpint(len, ==, 20);
    MOVE(.kind = TS_MOVE_PATCH, .a = 0, .b = 99, .width = 8);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, -1);
    MOVE(.kind = TS_MOVE_HEADER, .a = 0, .b = 0xbeef, .width = 2);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, -1);
    g_assert_cmphex(f->c->hdr.id, ==, 0xbeef);
    MOVE(.kind = TS_MOVE_CUT, .a = 17);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, -1);
    g_assert_cmpint(f->c->hdr.size, ==, 33);
    MOVE(.kind = TS_MOVE_EXTRA_FDS, .a = 4);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    g_assert_cmpint(f->c->nr_fds, ==, 4);
    MOVE(.kind = TS_MOVE_TWICE);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, 0);
    g_assert(rc_receive(f->c));
    MOVE(.kind = TS_MOVE_DROP);
    rc_send(f->c, VFIO_USER_REGION_READ, 0, &rw, sizeof(rw), NULL, 0);
    g_assert_cmpint(rc_read(f->c, 0, 8, &got, 4), ==, 0);
    g_assert_cmpint(ts_nr_moves_made(f->s), ==, 10);
    MOVE(.kind = TS_MOVE_TRUNCATE, .a = 18);
    g_assert_cmpint(rc_read(f->c, 0, 0, &got, 4), ==, -1);
    fixture_free(f);
}

/* No row can be passed by a client that says nothing, or does nothing. */
static void check_row(const TsMischief *m)
{
    g_assert(m->nr_moves || m->setup || m->act);
    if (m->expect == TS_EXPECT_REFUSED || m->expect == TS_EXPECT_DENIED) {
        g_assert_nonnull(m->says);
    }
}

/* Every name is unique and can be applied to the standard device. */
void test_mischief_names(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    g_assert_cmpint(ts_nr_mischiefs, >=, 120);
    for (unsigned i = 0; i < ts_nr_run_mischiefs; i++) {
        check_row(&ts_run_mischiefs[i]);
        g_assert(g_hash_table_add(names, (char *)ts_run_mischiefs[i].name));
    }
    for (unsigned i = 0; i < ts_nr_mischiefs; i++) {
        TestServer *s = ts_new();

        g_assert(ts_mischief_find(ts_mischiefs[i].name) == &ts_mischiefs[i]);
        check_row(&ts_mischiefs[i]);
        ts_standard_device(s);
        ts_mischief_apply(s, &ts_mischiefs[i]);
        ts_free(s);
    }
}
