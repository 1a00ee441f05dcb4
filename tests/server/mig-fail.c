/*
 * vfio-user test server: failures of migration, made on demand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The places where something can go wrong ask ts_mig_meet(). The list is
 * searched in the order in which it was filled and the first failure that
 * applies is made; one that has been skipped or is used up does not apply.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <unistd.h>
#include "mig-internal.h"

void ts_mig_fail(TestServer *s, const TsMigFail *fail)
{
    MigFailState state = { .fail = *fail };

    ts_lock(s);
    g_array_append_val(s->mig->fails, state);
    ts_unlock(s);
}

void ts_mig_clear_fails(TestServer *s)
{
    ts_lock(s);
    g_array_set_size(s->mig->fails, 0);
    ts_unlock(s);
}

unsigned ts_mig_nr_failed(TestServer *s)
{
    unsigned nr;

    ts_lock(s);
    nr = s->mig->nr_failed;
    ts_unlock(s);
    return nr;
}

bool ts_mig_wait_failed(TestServer *s, unsigned nr)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && s->mig->nr_failed < nr) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

void ts_unstall(TestServer *s)
{
    ts_lock(s);
    s->mig->stalled = false;
    ts_unlock(s);
    ts_wake(s);
}

static bool fail_is_stalled(TestServer *s)
{
    return s->mig->stalled;
}

static bool fail_state_matches(unsigned wanted, unsigned state)
{
    return wanted == TS_ANY_STATE || wanted == state;
}

static bool fail_matches(const TsMigFail *fail, const MigFailWhere *where)
{
    if (fail->point != where->point) {
        return false;
    }
    switch (fail->point) {
    case TS_AT_ARC:
        return fail_state_matches(fail->from, where->from) &&
               fail_state_matches(fail->to, where->to);
    case TS_AT_STATE:
        return fail_state_matches(fail->to, where->to);
    case TS_AT_READ:
    case TS_AT_WRITE:
        return fail->byte >= where->at && fail->byte < where->end;
    default:
        return true;
    }
}

static bool fail_is_used_up(const MigFailState *f)
{
    return f->fail.times && f->made >= f->fail.times;
}

/* Takes the failure that is due, if any, into *@fail. */
static bool fail_take(TestServer *s, const MigFailWhere *where,
                      TsMigFail *fail)
{
    bool found = false;

    ts_lock(s);
    for (unsigned i = 0; i < s->mig->fails->len && !found; i++) {
        MigFailState *f = &g_array_index(s->mig->fails, MigFailState, i);

        if (fail_is_used_up(f) || !fail_matches(&f->fail, where) ||
            f->seen++ < f->fail.skip) {
            continue;
        }
        f->made++;
        *fail = f->fail;
        found = true;
        /* Before the failure is counted: who waits for it may let it go. */
        s->mig->stalled = fail->kind == TS_FAIL_STALL;
        s->mig->nr_failed++;
        ts_changed_locked(s);
    }
    ts_unlock(s);
    return found;
}

int ts_mig_meet(TestServer *s, const MigFailWhere *where)
{
    TsMigFail fail;

    if (!fail_take(s, where, &fail)) {
        return 0;
    }
    if (fail.point == TS_AT_STATE) {
        fail.kind = TS_FAIL_ERROR;
    }
    switch (fail.kind) {
    case TS_FAIL_ERROR:
        ts_mig_set_state(s, VFIO_USER_MIG_ERROR);
        break;
    case TS_FAIL_HANG:
        return TS_NO_REPLY;
    case TS_FAIL_STALL:
        ts_stand_still(s, fail_is_stalled);
        return 0;
    case TS_FAIL_CLOSE:
        ts_fail_connection(s);
        return TS_NO_REPLY;
    case TS_FAIL_EXIT:
        _exit(1);
    default:
        break;
    }
    return fail.error ? fail.error : EIO;
}

uint64_t ts_mig_read_limit(TestServer *s, uint64_t position)
{
    uint64_t limit = UINT64_MAX;

    ts_lock(s);
    for (unsigned i = 0; i < s->mig->fails->len; i++) {
        const MigFailState *f = &g_array_index(s->mig->fails, MigFailState,
                                               i);

        if (f->fail.point == TS_AT_READ && !fail_is_used_up(f) &&
            f->fail.byte > position) {
            limit = MIN(limit, f->fail.byte);
        }
    }
    ts_unlock(s);
    return limit;
}
