/*
 * vfio-user: waits for the server with the BQL held
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Without a main loop the BQL is a flag, which once set is set for all threads and
 * for good. So the test without the BQL is the first.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-rig.h"

/* Short, for waits that are meant to be in vain. */
#define SHORT_MS    30
#define MS_NS       (int64_t)1000000

static VFIOUserBqlWaits waits(Rig *rig, VFIOUserBqlWhy why)
{
    g_autofree VFIOUserStats *stats = g_new0(VFIOUserStats, 1);
    VFIOUserConnPending pending = { };

    vfio_user_conn_add_stats(rig->conn, stats, &pending);
    return stats->bql[why];
}

static void check_none_but(Rig *rig, VFIOUserBqlWhy why)
{
    for (unsigned i = 0; i < VFIO_USER_BQL_MAX; i++) {
        g_assert_true(i == why || !waits(rig, i).nr);
    }
}

/* Nothing answers for so long. Returns how long that was really, in ns. */
static int64_t wait_in_vain(Call *call, int64_t ms)
{
    int64_t begin = g_get_monotonic_time();

    g_assert_false(vfio_user_conn_wait_until(call->rig->conn, &call->req,
                                             begin + ms * 1000));
    return (g_get_monotonic_time() - begin) * 1000;
}

static void answer(Call *call, PeerMessage *msg)
{
    call_peer_answer(call, msg);
    call_wait_good(call);
    call_end(call, msg);
}

static void test_without(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    wait_in_vain(&call, SHORT_MS);
    answer(&call, &msg);
    check_none_but(rig, VFIO_USER_BQL_MAX);
    rig_free(rig);
}

static void test_unlisted(void)
{
    Rig *rig = rig_new(peer_pair);
    VFIOUserBqlWaits w;
    PeerMessage msg;
    int64_t ns;
    Call call;

    rust_bql_mock_lock();
    call_begin(&call, rig, 1, 64, &msg);
    ns = wait_in_vain(&call, SHORT_MS);
    w = waits(rig, VFIO_USER_BQL_UNLISTED);
    g_assert_cmpuint(w.nr, ==, 1);
    g_assert_cmpint(w.max_ns, >=, SHORT_MS * MS_NS);
    g_assert_cmpint(w.max_ns, <=, ns);
    g_assert_cmpint(w.total_ns, ==, w.max_ns);
    g_assert_cmpint(w.limit_ns, <=, SHORT_MS * MS_NS);
    answer(&call, &msg);
    check_none_but(rig, VFIO_USER_BQL_UNLISTED);
    rig_free(rig);
}

/* The deadline shows, though the answer is there before it. */
static void test_limit(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    answer(&call, &msg);
    g_assert_cmpuint(waits(rig, VFIO_USER_BQL_UNLISTED).nr, ==, 1);
    g_assert_cmpint(waits(rig, VFIO_USER_BQL_UNLISTED).limit_ns, >,
                    PEER_DEADLINE_MS * MS_NS);
    g_assert_cmpint(waits(rig, VFIO_USER_BQL_UNLISTED).limit_ns, <=,
                    RIG_TIMEOUT_MS * MS_NS);
    rig_free(rig);
}

static void wait_in_scope(Call *call, VFIOUserBqlWhy why)
{
    VFIO_USER_BQL_SCOPE(why);

    wait_in_vain(call, SHORT_MS);
}

/* The waits of a scope are one, and the outermost scope has the word. */
static void test_scope(void)
{
    Rig *rig = rig_new(peer_pair);
    VFIOUserBqlWaits w;
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    {
        VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_RESET);

        wait_in_vain(&call, SHORT_MS);
        wait_in_scope(&call, VFIO_USER_BQL_NESTED);
    }
    w = waits(rig, VFIO_USER_BQL_RESET);
    g_assert_cmpuint(w.nr, ==, 1);
    g_assert_cmpint(w.max_ns, >=, 2 * SHORT_MS * MS_NS);
    g_assert_cmpint(w.total_ns, ==, w.max_ns);
    g_assert_cmpint(w.limit_ns, >, SHORT_MS * MS_NS);
    g_assert_cmpint(w.limit_ns, <=, w.max_ns);
    check_none_but(rig, VFIO_USER_BQL_RESET);

    wait_in_scope(&call, VFIO_USER_BQL_RESET);
    g_assert_cmpuint(waits(rig, VFIO_USER_BQL_RESET).nr, ==, 2);
    check_none_but(rig, VFIO_USER_BQL_RESET);

    answer(&call, &msg);
    g_assert_cmpuint(waits(rig, VFIO_USER_BQL_UNLISTED).nr, ==, 1);
    rig_free(rig);
}

/* What was waited for before there was a connection comes on top. */
static void test_before(void)
{
    Rig *rig = rig_new(peer_pair);
    VFIOUserBqlWaits w;
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    {
        VFIO_USER_BQL_SCOPE(VFIO_USER_BQL_REALIZE);

        vfio_user_bql_waited(NULL, 1000 * MS_NS, 0);
        wait_in_vain(&call, SHORT_MS);
    }
    w = waits(rig, VFIO_USER_BQL_REALIZE);
    g_assert_cmpint(w.max_ns, >=, (1000 + SHORT_MS) * MS_NS);
    g_assert_cmpint(w.total_ns, ==, w.max_ns);
    g_assert_cmpint(w.limit_ns, <=, (1000 + SHORT_MS) * MS_NS);
    answer(&call, &msg);
    rig_free(rig);
}

/* Looking is no wait, nor is what has its outcome already. */
static void test_no_wait(void)
{
    Rig *rig = rig_new(peer_pair);
    PeerMessage msg[2];
    Call call[2];

    call_begin(&call[0], rig, 1, 64, &msg[0]);
    g_assert_false(vfio_user_conn_wait_until(rig->conn, &call[0].req, 0));
    check_none_but(rig, VFIO_USER_BQL_MAX);
    call_begin(&call[1], rig, 2, 64, &msg[1]);
    call_peer_answer(&call[0], &msg[0]);
    answer(&call[1], &msg[1]);
    g_assert_cmpuint(waits(rig, VFIO_USER_BQL_UNLISTED).nr, ==, 1);
    call_wait_good(&call[0]);
    call_end(&call[0], &msg[0]);
    g_assert_cmpuint(waits(rig, VFIO_USER_BQL_UNLISTED).nr, ==, 1);
    rig_free(rig);
}

static void test_lost(void)
{
    Rig *rig = rig_new(peer_pair);
    Error *err = NULL;
    PeerMessage msg;
    Call call;

    call_begin(&call, rig, 1, 64, &msg);
    rig->fails = 1;
    error_setg(&err, "the test");
    vfio_user_conn_fail(rig->conn, err);
    call_wait_ret(&call, -EPIPE);
    check_none_but(rig, VFIO_USER_BQL_MAX);
    call_end(&call, &msg);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/bql-wait/" name, func)
    T("without", test_without);
    T("unlisted", test_unlisted);
    T("limit", test_limit);
    T("scope", test_scope);
    T("before", test_before);
    T("no-wait", test_no_wait);
    T("lost", test_lost);

    return g_test_run();
}
