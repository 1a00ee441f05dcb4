/*
 * vfio-user: waits for the server with the BQL held
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Who waits with the BQL keeps the whole VM and its monitors waiting, so only a few
 * may, for a bounded time. They are the entries of VFIOUserBqlWhy. That it is so is
 * counted, not believed: the one place where a thread sleeps until the server
 * answers (conn-wait.c) asks whether it holds the BQL, and for which entry that is.
 *
 * The entry is the thread's, named by whoever begins what has the bound: realize, a
 * reset, a change of state. Nothing is handed down through the layers, and a new
 * caller at the bottom cannot forget it: what has no name is counted as unlisted, and
 * the tests look for that. Bounds hold for the whole of such a scope, so what is
 * waited in it is added up.
 *
 * A wait is counted with what it might have lasted, too: a deadline that is too late
 * shows with a server that answers at once.
 *
 * Rejected: the entry as a member of each request (waits for a slot or for room in the
 * socket have none, and it is handed through eight functions to get there).
 */

#include "qemu/osdep.h"
#include "bql-wait.h"

static __thread VFIOUserBqlScope *vfio_user_bql_now;

VFIOUserBqlScope *vfio_user_bql_enter(VFIOUserBqlScope *scope)
{
    if (vfio_user_bql_now) {
        return NULL;
    }
    vfio_user_bql_now = scope;
    return scope;
}

void vfio_user_bql_leave(VFIOUserBqlScope *scope)
{
    assert(vfio_user_bql_now == scope);
    vfio_user_bql_now = NULL;
}

void vfio_user_bql_waited(VFIOUserBqlWaits *table, int64_t ns,
                          int64_t limit_ns)
{
    VFIOUserBqlScope unlisted = { .why = VFIO_USER_BQL_UNLISTED };
    VFIOUserBqlScope *scope = vfio_user_bql_now ?: &unlisted;
    VFIOUserBqlWaits *w;

    limit_ns += scope->ns;
    scope->ns += ns;
    if (!table) {
        return;
    }
    w = &table[scope->why];
    w->nr += !scope->is_counted;
    scope->is_counted = true;
    w->total_ns += scope->ns - scope->counted_ns;
    scope->counted_ns = scope->ns;
    w->max_ns = MAX(w->max_ns, scope->ns);
    w->limit_ns = MAX(w->limit_ns, limit_ns);
}

void vfio_user_bql_add(VFIOUserBqlWaits *to, const VFIOUserBqlWaits *from)
{
    for (unsigned i = 0; i < VFIO_USER_BQL_MAX; i++) {
        to[i].nr += from[i].nr;
        to[i].total_ns += from[i].total_ns;
        to[i].max_ns = MAX(to[i].max_ns, from[i].max_ns);
        to[i].limit_ns = MAX(to[i].limit_ns, from[i].limit_ns);
    }
}
