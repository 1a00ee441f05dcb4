/*
 * vfio-user qtest: what the user can ask for, and what is told of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * That a vCPU is held takes a vCPU: see the functional tests. qtest's accesses
 * come from the main loop, which never waits.
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include "hw/pci/pci_regs.h"
#include "vfio-user-reconnect.h"

#define CLOSED          "the server closed the connection"
#define PATH_OF_ID      "/machine/peripheral/" VUT_ID

static const VUTOptions no_device = { .no_device = true };

/* Events ------------------------------------------------------------------ */

static void check_names(const QDict *data, bool has_id)
{
    if (has_id) {
        g_assert_cmpstr(qdict_get_str(data, "device"), ==, VUT_ID);
        g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==, PATH_OF_ID);
    } else {
        g_assert(!qdict_haskey(data, "device"));
        g_assert(g_str_has_prefix(qdict_get_str(data, "qom-path"),
                                  "/machine/peripheral-anon/"));
    }
}

static void other_revision(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE, 0xff0000, 9);
}

/* One of each, with all that belongs to it, and the same on stderr. */
static void check_events(bool has_id)
{
    RTest *r = rt_new(&(VUTOptions) {
        .no_device = !has_id,
        .shared_ram = true,
        .device = ",reconnect-timeout-ms=600000",
        .args = has_id ? NULL : "-device vfio-user-pci,socket=%s/sock,"
                                "reconnect-ms=5,reconnect-timeout-ms=600000",
    });
    g_autofree char *log = NULL;
    const QDict *data;

    ts_stop_listening(r->t->s);
    ts_disconnect(r->t->s);
    data = rt_expect(r, "DISCONNECTED");
    check_names(data, has_id);
    /* Or of the second socket, whichever is noticed first. */
    g_assert(g_str_has_suffix(qdict_get_str(data, "reason"), CLOSED));
    g_assert(qdict_get_bool(data, "reconnecting"));
    rt_return_fresh(r, other_revision);
    data = rt_expect(r, "REFUSED");
    check_names(data, has_id);
    rt_return_fresh(r, NULL);
    data = rt_expect(r, "RECONNECTED");
    check_names(data, has_id);
    rt_expect_no_more(r);
    log = vut_stderr(r->t);
    g_assert_cmpuint(vut_occurrences(log, "connection lost"), ==, 1);
    g_assert_cmpuint(vut_occurrences(log, "refused"), ==, 1);
    g_assert_cmpuint(vut_occurrences(log, ": the server is back"), ==,
                     1);
    g_assert_cmpuint(vut_occurrences(log, "\n"), ==, 3);
    rt_free(r);
}

static void test_events(void)
{
    check_events(true);
}

static void test_events_anonymous(void)
{
    check_events(false);
}

/* Without reconnect-ms the loss is told, and is for good. */
static void test_no_reconnect(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",reconnect-ms=0" });
    const QDict *data;

    ts_stop_listening(r->t->s);
    ts_disconnect(r->t->s);
    data = rt_expect(r, "DISCONNECTED");
    check_names(data, true);
    g_assert(!qdict_get_bool(data, "reconnecting"));
    rt_return_fresh(r, NULL);
    rt_check_offline(r);
    g_assert_cmpuint(ts_nr_clients(r->t->s), ==, 0);
    rt_expect_no_more(r);
    rt_free(r);
}

/* A protocol error is a reason like others, and it can get better. */
static void test_protocol_error(void)
{
    static const TsMove bad = {
        .kind = TS_MOVE_HEADER, .command = VFIO_USER_REGION_READ, .index = 0,
        .times = 1, .a = 4, .b = 3,
    };
    RTest *r = rt_new(&(VUTOptions) { 0 });
    const QDict *data;

    ts_add_move(r->t->s, &bad);
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], RT_REG), ==,
                    UINT32_MAX);
    data = rt_expect(r, "DISCONNECTED");
    g_test_message("%s", qdict_get_str(data, "reason"));
    g_assert(!g_str_has_suffix(qdict_get_str(data, "reason"), CLOSED));
    rt_expect_return(r, true);
    rt_check_works(r, 3);
    rt_free(r);
}

/* Giving up --------------------------------------------------------------- */

static void check_gone(RTest *r)
{
    rt_check_offline(r);
    rt_return_fresh(r, NULL);
    rt_check_offline(r);
    rt_system_reset(r);
    rt_check_monitor(r);
    g_assert(rt_is_offline(r));
    g_assert_cmpuint(ts_nr_clients(r->t->s), ==, 0);
    rt_expect_no_more(r);
}

static void test_gave_up(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",reconnect-timeout-ms=30" });
    g_autofree char *log = NULL;

    rt_lose(r);
    check_names(rt_expect(r, "GAVE_UP"), true);
    check_gone(r);
    log = vut_stderr(r->t);
    g_assert_cmpuint(vut_occurrences(log, "did not come back within 30 ms"),
                     ==, 1);
    rt_del(r, VUT_ID, VUT_SLOT);
    rt_free(r);
}

/* Servers that are refused are as good as none. */
static void test_gave_up_refused(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",reconnect-timeout-ms=300" });

    rt_lose(r);
    rt_return_fresh(r, other_revision);
    /* The machine may be so slow that there was no time for it. */
    VUT_WAIT(rt_had_event(r, "VFIO_USER_GAVE_UP"));
    r->nr_seen = r->events->len;
    check_gone(r);
    rt_free(r);
}

/* A server that comes and goes: what is told last is what is so. */
static void test_gave_up_last(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",reconnect-timeout-ms=300" });

    rt_lose(r);
    rt_return_kept(r);
    rt_wait_returned(r, 1);
    /* In the same second of the clock, which stands still */
    ts_stop_listening(r->t->s);
    ts_disconnect(r->t->s);
    vut_wait_stderr(r->t, "did not come back within 300 ms");
    rt_expect_return(r, true);
    rt_expect(r, "GAVE_UP");
    rt_expect_no_more(r);
    rt_free(r);
}

/* The time counts from each loss. */
static void test_timeout_anew(void)
{
    RTest *r = rt_new(&(VUTOptions) {
        .device = ",reconnect-timeout-ms=600000",
    });

    for (unsigned i = 0; i < 5; i++) {
        rt_lose(r);
        rt_return_kept(r);
        rt_expect_return(r, true);
    }
    rt_free(r);
}

/* Options ----------------------------------------------------------------- */

static void test_options(void)
{
    static const struct {
        const char *props, *says;
    } bad[] = {
        { ",on-disconnect=hold", "on-disconnect=hold*reconnect-ms" },
        { ",on-disconnect=stop", "on-disconnect=stop*reconnect-ms" },
        { ",on-disconnect=stop,reconnect-ms=0", "reconnect-ms" },
        { ",on-disconnect=wait", "on-disconnect*wait" },
        { ",reconnect-ms=-1", "reconnect-ms" },
        { ",reconnect-reset=maybe,reconnect-ms=5", "reconnect-reset*maybe" },
    };
    RTest *r = rt_new(&no_device);

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *error = rt_add(r, VUT_ID, r->t->path, VUT_SLOT,
                                        bad[i].props);

        if (!error || !rt_matches(error, bad[i].says)) {
            g_error("%s: '%s' does not say '%s'", bad[i].props,
                    error ?: "(success)", bad[i].says);
        }
    }
    g_assert_cmpuint(ts_nr_clients(r->t->s), ==, 0);
    rt_free(r);
}

/* A socket that was handed over cannot be had a second time. */
static void test_fd_socket(void)
{
    RTest *r = rt_new(&no_device);
    QDict *response, *error;
    int fds[2];

    g_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    qtest_qmp_fds_assert_success(r->t->qts, &fds[0], 1,
                                 "{'execute': 'getfd', 'arguments': "
                                 "{'fdname': 'server'}}");
    response = qtest_qmp(r->t->qts, "{'execute': 'device_add', 'arguments': "
                         "{'driver': 'vfio-user-pci', 'id': 'x', 'socket': "
                         "{'type': 'fd', 'str': 'server'}, 'reconnect-ms': "
                         "5}}");
    error = qdict_get_qdict(response, "error");
    g_assert(error);
    g_test_message("%s", qdict_get_str(error, "desc"));
    g_assert(rt_matches(qdict_get_str(error, "desc"), "reconnect-ms"));
    qobject_unref(response);
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'closefd', 'arguments': "
                             "{'fdname': 'server'}}");
    close(fds[0]);
    close(fds[1]);
    rt_free(r);
}

/* The device must be known before the guest can see it. */
static void test_no_server(void)
{
    RTest *r = rt_new(&no_device);
    g_autofree char *path = g_build_filename(r->t->dir, "nothing", NULL);
    g_autofree char *error = rt_add(r, VUT_ID, path, VUT_SLOT,
                                    ",reconnect-ms=5");

    g_assert_nonnull(error);
    g_test_message("%s", error);
    g_assert(strstr(error, path));
    rt_expect_no_more(r);
    rt_free(r);
}

/* on-disconnect=stop ------------------------------------------------------ */

static void assert_status(RTest *r, const char *expected)
{
    g_autofree char *status = rt_status(r);

    g_assert_cmpstr(status, ==, expected);
}

static bool has_status(RTest *r, const char *expected)
{
    g_autofree char *status = rt_status(r);

    return !strcmp(status, expected);
}

static void test_stop(void)
{
    RTest *r = rt_new(&(VUTOptions) {
        .device = ",on-disconnect=stop", .shared_ram = true,
    });

    for (unsigned i = 0; i < 4; i++) {
        assert_status(r, "running");
        rt_lose(r);
        VUT_WAIT(has_status(r, "io-error"));
        g_assert(rt_had_event(r, "STOP"));
        if (i % 2) {
            rt_return_kept(r);
        } else {
            rt_return_fresh(r, NULL);
        }
        rt_expect_return(r, i % 2);
        VUT_WAIT(has_status(r, "running"));
        g_assert(rt_had_event(r, "RESUME"));
        rt_check_works(r, i);
        g_ptr_array_set_size(r->events, 0);
        r->nr_seen = 0;
    }
    rt_free(r);
}

/* A VM that somebody else has stopped stays so. */
static void test_stop_paused(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",on-disconnect=stop" });

    qtest_qmp_assert_success(r->t->qts, "{'execute': 'stop'}");
    rt_lose(r);
    assert_status(r, "paused");
    rt_return_kept(r);
    rt_wait_returned(r, 1);
    assert_status(r, "paused");
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'cont'}");
    rt_expect_return(r, true);
    assert_status(r, "running");
    rt_check_works(r, 1);
    rt_free(r);
}

/* It goes on without the device when there is no hope for it. */
static void test_stop_unplugged(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",on-disconnect=stop" });

    rt_lose(r);
    VUT_WAIT(has_status(r, "io-error"));
    rt_del(r, VUT_ID, VUT_SLOT);
    VUT_WAIT(has_status(r, "running"));
    rt_expect_no_more(r);
    rt_free(r);
}

static void test_stop_gave_up(void)
{
    RTest *r = rt_new(&(VUTOptions) {
        .device = ",on-disconnect=stop,reconnect-timeout-ms=30",
    });

    rt_lose(r);
    vut_wait_stderr(r->t, "did not come back within 30 ms");
    VUT_WAIT(has_status(r, "io-error"));
    /* The user decides; the device is gone whatever he does. */
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'cont'}");
    assert_status(r, "running");
    /* In a qtest the clock by which events are held back stands with the VM. */
    rt_expect(r, "GAVE_UP");
    rt_check_offline(r);
    rt_free(r);
}

/* Who continues the VM meanwhile has the last word. */
static void test_stop_continued(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",on-disconnect=stop" });

    rt_lose(r);
    VUT_WAIT(has_status(r, "io-error"));
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'cont'}");
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'stop'}");
    assert_status(r, "paused");
    rt_return_kept(r);
    rt_expect_return(r, true);
    assert_status(r, "paused");
    rt_free(r);
}

/* So has who stops it, and is told that it is done. */
static void test_stop_stopped(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",on-disconnect=stop" });

    rt_lose(r);
    VUT_WAIT(has_status(r, "io-error"));
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'stop'}");
    assert_status(r, "paused");
    rt_return_kept(r);
    rt_wait_returned(r, 1);
    assert_status(r, "paused");
    qtest_qmp_assert_success(r->t->qts, "{'execute': 'cont'}");
    rt_expect_return(r, true);
    assert_status(r, "running");
    rt_check_works(r, 1);
    rt_free(r);
}

/* The VM runs again when both are back, not before. */
static void test_stop_two(void)
{
    RTest *r = rt_new(&(VUTOptions) { .device = ",on-disconnect=stop" });
    g_autofree char *path = g_build_filename(r->t->dir, "two", NULL);
    TestServer *two = vut_server(r->t->dir, "two", NULL);
    g_autofree char *error = rt_add(r, "two", path, 7,
                                    ",on-disconnect=stop,reconnect-ms=5");

    g_assert_cmpstr(error, ==, NULL);
    ts_stop_listening(two);
    ts_disconnect(two);
    rt_expect(r, "DISCONNECTED");
    VUT_WAIT(has_status(r, "io-error"));
    rt_lose(r);
    g_assert_cmpint(ts_listen_again(two, path), ==, 0);
    rt_expect(r, "RECONNECTED");
    rt_return_kept(r);
    rt_expect_return(r, true);
    VUT_WAIT(has_status(r, "running"));
    ts_disconnect(two);
    rt_expect(r, "DISCONNECTED");
    rt_expect(r, "RECONNECTED");
    VUT_WAIT(has_status(r, "running"));
    rt_del(r, "two", 7);
    ts_free(two);
    rt_free(r);
}

/* on-disconnect=hold: the main loop, which is all that qtest has, goes on. */
static void test_hold(void)
{
    RTest *r = rt_new(&(VUTOptions) {
        .device = ",on-disconnect=hold", .shared_ram = true,
    });

    for (unsigned i = 0; i < 4; i++) {
        rt_lose(r);
        assert_status(r, "running");
        rt_check_offline(r);
        rt_check_monitor(r);
        if (i % 2) {
            rt_return_kept(r);
        } else {
            rt_return_fresh(r, NULL);
        }
        rt_expect_return(r, i % 2);
        rt_check_works(r, i);
    }
    rt_free(r);
}

static unsigned nr_events(RTest *r)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < r->events->len; i++) {
        nr += g_str_has_prefix(qdict_get_str(r->events->pdata[i], "event"),
                               "VFIO_USER_");
    }
    return nr;
}

/*
 * A server that crashes and comes back at once, again and again: what is told of
 * it is bounded, and the last of it is right.
 */
static void test_flood(void)
{
    RTest *r = rt_new(&(VUTOptions) { .stderr_file = true });
    int64_t begin = g_get_monotonic_time();
    g_autofree char *text = NULL;
    unsigned periods;

    for (unsigned i = 0; i < 30; i++) {
        ts_disconnect(r->t->s);
        rt_wait_returned(r, i + 1);
    }
    g_assert_cmpuint(nr_events(r), ==, 1);
    rt_expect(r, "DISCONNECTED");
    rt_expect(r, "RECONNECTED");
    rt_expect_no_more(r);
    periods = 1 + (g_get_monotonic_time() - begin) / (10 * G_USEC_PER_SEC);
    text = vut_stderr(r->t);
    g_assert_cmpuint(vut_occurrences(text, "connection lost"), <=,
                     4 * (1 + periods));
    g_assert_cmpuint(vut_occurrences(text, "the server is back"), <=,
                     4 * (1 + periods));
    rt_free(r);
}

void rt_register_policy(void)
{
    vut_add_test("vfio-user/reconnect/events/flood", test_flood);
    vut_add_test("vfio-user/reconnect/events/all", test_events);
    vut_add_test("vfio-user/reconnect/events/no-id", test_events_anonymous);
    vut_add_test("vfio-user/reconnect/events/no-reconnect",
                 test_no_reconnect);
    vut_add_test("vfio-user/reconnect/events/protocol-error",
                 test_protocol_error);
    vut_add_test("vfio-user/reconnect/gave-up/away", test_gave_up);
    vut_add_test("vfio-user/reconnect/gave-up/refused", test_gave_up_refused);
    vut_add_test("vfio-user/reconnect/gave-up/last", test_gave_up_last);
    vut_add_test("vfio-user/reconnect/gave-up/anew", test_timeout_anew);
    vut_add_test("vfio-user/reconnect/options/bad", test_options);
    vut_add_test("vfio-user/reconnect/options/fd", test_fd_socket);
    vut_add_test("vfio-user/reconnect/options/no-server", test_no_server);
    vut_add_test("vfio-user/reconnect/stop/again-and-again", test_stop);
    vut_add_test("vfio-user/reconnect/stop/paused", test_stop_paused);
    vut_add_test("vfio-user/reconnect/stop/unplugged", test_stop_unplugged);
    vut_add_test("vfio-user/reconnect/stop/gave-up", test_stop_gave_up);
    vut_add_test("vfio-user/reconnect/stop/continued", test_stop_continued);
    vut_add_test("vfio-user/reconnect/stop/stopped", test_stop_stopped);
    vut_add_test("vfio-user/reconnect/stop/two", test_stop_two);
    vut_add_test("vfio-user/reconnect/hold", test_hold);
}
