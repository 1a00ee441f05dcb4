/*
 * vfio-user qtest: the forms of the property "socket"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A path is what all other tests use. Here are the rest: abstract names, and
 * connections that somebody else made, handed over by number, by name or in a
 * set of descriptors. Whatever is wrong with one, QEMU says so and has no
 * descriptor more than before.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/un.h>
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

#define FDSET   "\"/dev/fdset/1\""

static const VUTOptions no_device = { .no_device = true };

/* The monitor's answer to a command: NULL, or the error's text */
static char *take_error(QDict *response)
{
    QDict *error = qdict_get_qdict(response, "error");
    char *text = error ? g_strdup(qdict_get_str(error, "desc")) : NULL;

    qobject_unref(response);
    return text;
}

/* device_add with a socket, and maybe more, in JSON; NULL or the error */
static char *G_GNUC_PRINTF(2, 3)
add_device(VUTest *t, const char *fmt, ...)
{
    g_autofree char *socket = NULL;
    va_list ap;

    va_start(ap, fmt);
    socket = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    qtest_qmp_send_raw(t->qts, "{\"execute\": \"device_add\", \"arguments\": "
                       "{\"driver\": \"vfio-user-pci\", \"id\": \"" VUT_ID
                       "\", \"addr\": \"4\", \"socket\": %s}}\n", socket);
    return take_error(qtest_qmp_receive(t->qts));
}

static void assert_error(char *error, const char *what)
{
    if (!error || !strstr(error, what)) {
        g_error("'%s' does not say '%s'", error ?: "(success)", what);
    }
    g_free(error);
}

static void assert_works(VUTest *t)
{
    vut_find(t, VUT_SLOT);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_VENDOR_ID), ==,
                    TS_STANDARD_VENDOR);
}

/* A standard device at one end of a connection; the other is returned. */
static TestServer *serve_pair(int *client)
{
    TestServer *s = ts_new();
    int pair[2];

    g_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    ts_standard_device(s);
    g_assert_cmpint(ts_start_fd(s, pair[0]), ==, 0);
    *client = pair[1];
    return s;
}

/* The monitor gets @fd under the name "server"; @fd is closed here. */
static void give_name(VUTest *t, int fd)
{
    qtest_qmp_fds_assert_success(t->qts, &fd, 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'server'}}");
    close(fd);
}

/* The same, into set 1. */
static void give_set(VUTest *t, int fd)
{
    qtest_qmp_fds_assert_success(t->qts, &fd, 1, "{'execute': 'add-fd', "
                                 "'arguments': {'fdset-id': 1}}");
    close(fd);
}

static void remove_set(VUTest *t)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'remove-fd', "
                             "'arguments': {'fdset-id': 1}}");
}

static char *add_name(VUTest *t)
{
    return add_device(t, "{\"type\": \"fd\", \"str\": \"server\"}");
}

/* Addresses ---------------------------------------------------------------- */

static void test_abstract(const void *data)
{
    bool tight = *(const bool *)data;
    VUTest *t = vut_new(&no_device);
    TestServer *s = ts_new();
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    g_autofree char *name = g_path_get_basename(t->dir);
    g_autofree char *error = NULL;
    socklen_t len = tight ? offsetof(struct sockaddr_un, sun_path) + 1 +
                            strlen(name) : sizeof(un);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(un.sun_path + 1, name, strlen(name));
    g_assert(!bind(fd, (struct sockaddr *)&un, len));
    g_assert(!listen(fd, 1));
    ts_standard_device(s);
    g_assert_cmpint(ts_start_listen_fd(s, fd), ==, 0);

    error = add_device(t, "{\"type\": \"unix\", \"path\": \"%s\", "
                       "\"abstract\": true, \"tight\": %s}", name,
                       tight ? "true" : "false");
    g_assert_cmpstr(error, ==, NULL);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    ts_free(s);
    vut_free(t);
}

/* What cannot carry descriptors, and what is no address. */
static void test_unfit_address(void)
{
    static const char *const refused[][2] = {
        { "{\"type\": \"inet\", \"host\": \"::1\", \"port\": \"9\"}",
          "cannot use a socket of type 'inet': interrupts" },
        { "{\"type\": \"vsock\", \"cid\": \"2\", \"port\": \"9\"}",
          "cannot use a socket of type 'vsock': interrupts" },
        { "\"\"", "the path of the socket is empty" },
        { "{\"type\": \"unix\", \"path\": \"\"}",
          "the path of the socket is empty" },
        { "{\"type\": \"unix\"}", "'socket.path' is missing" },
        { "{\"type\": \"pipe\"}", "'pipe'" },
        { "7", "socket" },
    };
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));

    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        assert_error(add_device(t, "%s", refused[i][0]), refused[i][1]);
    }
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

/* The property says where the server is, and not only at the beginning. */
static void test_property(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QDict *response = qtest_qmp(t->qts, "{'execute': 'qom-get', 'arguments': "
                                "{'path': '/machine/peripheral/" VUT_ID "', "
                                "'property': 'socket'}}");
    QDict *socket = qdict_get_qdict(response, "return");

    g_assert_cmpstr(qdict_get_str(socket, "type"), ==, "unix");
    g_assert_cmpstr(qdict_get_str(socket, "path"), ==, t->path);
    qobject_unref(response);

    response = qtest_qmp(t->qts, "{'execute': 'qom-set', 'arguments': "
                         "{'path': '/machine/peripheral/" VUT_ID "', "
                         "'property': 'socket', 'value': '/elsewhere'}}");
    assert_error(take_error(response), "'socket' cannot be set on a device "
                 "that is in use");
    vut_free(t);
}

/* A connection by its name or number --------------------------------------- */

static void test_name(void)
{
    VUTest *t = vut_new(&no_device);
    g_autofree char *error = NULL;
    TestServer *s;
    int fd;

    s = serve_pair(&fd);
    give_name(t, fd);
    error = add_name(t);
    g_assert_cmpstr(error, ==, NULL);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    g_assert(ts_wait_connected(s, false));
    assert_error(add_name(t), "'server' has not been found");
    ts_free(s);
    vut_free(t);
}

/* A device that is refused for another reason leaves the name for the next. */
static void test_name_kept(void)
{
    VUTest *t = vut_new(&no_device);
    g_autofree char *error = NULL;
    TestServer *s;
    int fd;

    s = serve_pair(&fd);
    give_name(t, fd);
    assert_error(add_device(t, "{\"type\": \"fd\", \"str\": \"server\"}, "
                            "\"x-msg-timeout-ms\": 0"), "x-msg-timeout-ms");
    error = add_name(t);
    g_assert_cmpstr(error, ==, NULL);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    ts_free(s);
    vut_free(t);
}

/* Numbers would reach QEMU's own descriptors: a monitor knows only names. */
static void test_number_in_monitor(void)
{
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));

    for (unsigned i = 0; i < 16; i++) {
        assert_error(add_device(t, "{\"type\": \"fd\", \"str\": \"%u\"}", i),
                     "has not been found");
    }
    g_assert_cmpuint(vut_nr_fds(qtest_pid(t->qts)), ==, fds);
    vut_free(t);
}

/* Whether a program that QEMU starts would inherit its descriptor @fd. */
static bool is_inheritable(VUTest *t, int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fdinfo/%d",
                                            (int)qtest_pid(t->qts), fd);
    g_autofree char *text = NULL;
    const char *flags;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    flags = strstr(text, "flags:");
    g_assert(flags);
    return !(strtoul(flags + strlen("flags:"), NULL, 8) & O_CLOEXEC);
}

static void test_inherited(void)
{
    g_autofree char *args = NULL;
    TestServer *s;
    VUTest *t;
    int fd;

    s = serve_pair(&fd);
    fcntl(fd, F_SETFD, 0);
    args = g_strdup_printf("-device '{\"driver\": \"vfio-user-pci\", "
                           "\"id\": \"" VUT_ID "\", \"addr\": \"4\", "
                           "\"socket\": {\"type\": \"fd\", \"str\": \"%d\"}}'",
                           fd);
    t = vut_new(&(VUTOptions) { .no_device = true, .args = args });
    close(fd);
    assert_works(t);
    g_assert(!is_inheritable(t, fd));
    vut_del_by_reset(t, VUT_ID);
    g_assert(ts_wait_connected(s, false));
    ts_free(s);
    vut_free(t);
}

/* Descriptors that will not do --------------------------------------------- */

static int unconnected_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int listening_socket(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = unconnected_socket();

    /* The kernel chooses an abstract name. */
    g_assert(!bind(fd, (struct sockaddr *)&un, sizeof(sa_family_t)));
    g_assert(!listen(fd, 1));
    return fd;
}

/* Connected, but a message is not a piece of a stream there. */
static int message_socket(int type)
{
    int pair[2];

    g_assert(!socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair));
    close(pair[0]);
    return pair[1];
}

static int datagram_socket(void)
{
    return message_socket(SOCK_DGRAM);
}

static int seqpacket_socket(void)
{
    return message_socket(SOCK_SEQPACKET);
}

static int internet_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int no_socket(void)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int abandoned_socket(void)
{
    return message_socket(SOCK_STREAM);
}

/**
 * UnfitFd: a descriptor, and what QEMU says of it
 * @in_set: the same for one in a set, where that differs
 */
typedef struct UnfitFd {
    const char *name;
    int (*make)(void);
    const char *error;
    const char *in_set;
} UnfitFd;

#define NOT_CONNECTED   "not a connected UNIX stream socket"

static const UnfitFd unfit_fds[] = {
    { "unconnected", unconnected_socket, NOT_CONNECTED },
    { "listening", listening_socket, NOT_CONNECTED },
    { "datagram", datagram_socket, NOT_CONNECTED },
    { "seqpacket", seqpacket_socket, NOT_CONNECTED },
    { "internet", internet_socket, NOT_CONNECTED },
    { "no-socket", no_socket, "'server' is not a socket", NOT_CONNECTED },
    { "abandoned", abandoned_socket, "VERSION failed" },
};

/* Used up like one that would do: QEMU's rule for names. */
static void test_unfit_name(const void *data)
{
    const UnfitFd *unfit = data;
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));

    give_name(t, unfit->make());
    assert_error(add_name(t), unfit->error);
    assert_error(add_name(t), "'server' has not been found");
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

/* Stays in its set, until it is removed. */
static void test_unfit_in_set(const void *data)
{
    const UnfitFd *unfit = data;
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));

    give_set(t, unfit->make());
    for (unsigned i = 0; i < 2; i++) {
        assert_error(add_device(t, FDSET), unfit->in_set ?: unfit->error);
        vut_wait_nr_fds(t, fds + 1);
    }
    remove_set(t);
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

/* A connection in a set ---------------------------------------------------- */

/* The set is no longer needed once the device is there. */
static void test_set(void)
{
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    g_autofree char *error = NULL;
    TestServer *s;
    int fd;

    s = serve_pair(&fd);
    give_set(t, fd);
    error = add_device(t, FDSET);
    g_assert_cmpstr(error, ==, NULL);
    remove_set(t);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    g_assert(ts_wait_connected(s, false));
    vut_wait_nr_fds(t, fds);
    ts_free(s);
    vut_free(t);
}

/* Nor does it keep a connection open that QEMU has ended. */
static void test_set_ends(void)
{
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    g_autofree char *error = NULL;
    TestServer *s;
    int fd;

    s = serve_pair(&fd);
    give_set(t, fd);
    error = add_device(t, FDSET);
    g_assert_cmpstr(error, ==, NULL);
    vut_del_by_reset(t, VUT_ID);
    g_assert(ts_wait_connected(s, false));

    /* What is left of it in the set is good for nothing. */
    assert_error(add_device(t, FDSET), "VERSION failed");
    remove_set(t);
    vut_wait_nr_fds(t, fds);
    ts_free(s);
    vut_free(t);
}

/* The same where QEMU does not want the server. */
static void test_set_ends_early(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_VERSION, .index = -1,
        .times = 1, .a = EBUSY,
    };
    VUTest *t = vut_new(&no_device);
    TestServer *s;
    int fd;

    s = serve_pair(&fd);
    ts_add_move(s, &refuse);
    give_set(t, fd);
    assert_error(add_device(t, FDSET), "VERSION failed");
    g_assert(ts_wait_connected(s, false));
    remove_set(t);
    ts_free(s);
    vut_free(t);
}

/* A new connection in the set is what a lost device comes back by. */
static void test_set_returns(void)
{
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    TestServer *first, *second;
    g_autofree char *error = NULL;
    int fd;

    first = serve_pair(&fd);
    give_set(t, fd);
    error = add_device(t, FDSET ", \"reconnect-ms\": 10");
    g_assert_cmpstr(error, ==, NULL);
    assert_works(t);
    ts_disconnect(first);
    vut_wait_event(t, "VFIO_USER_DISCONNECTED");

    second = serve_pair(&fd);
    give_set(t, fd);
    vut_wait_event(t, "VFIO_USER_RECONNECTED");
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    g_assert(ts_wait_connected(second, false));
    remove_set(t);
    vut_wait_nr_fds(t, fds);
    ts_free(first);
    ts_free(second);
    vut_free(t);
}

/* The form for command lines without JSON, and for people's monitor. */
static void test_set_on_command_line(void)
{
    g_autofree char *args = NULL, *text = NULL;
    TestServer *s;
    VUTest *t;
    int fd;

    s = serve_pair(&fd);
    fcntl(fd, F_SETFD, 0);
    args = g_strdup_printf("-add-fd set=1,fd=%d -device vfio-user-pci,id="
                           VUT_ID ",addr=4,socket=/dev/fdset/1", fd);
    t = vut_new(&(VUTOptions) { .no_device = true, .args = args });
    close(fd);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    g_assert(ts_wait_connected(s, false));
    ts_free(s);

    text = qtest_hmp(t->qts, "device_add vfio-user-pci,socket=/dev/fdset/2");
    g_assert(strstr(text, "Failed to find fdset /dev/fdset/2"));
    vut_free(t);
}

static void test_useless_set(void)
{
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));

    assert_error(add_device(t, FDSET), "Failed to find fdset /dev/fdset/1");
    assert_error(add_device(t, "\"/dev/fdset/one\""),
                 "Could not parse fdset /dev/fdset/one");
    assert_error(add_device(t, "{\"type\": \"unix\", \"abstract\": true, "
                            "\"path\": \"/dev/fdset/1\"}"),
                 "cannot connect to '/dev/fdset/1'");
    give_set(t, open("/dev/null", O_RDONLY | O_CLOEXEC));
    assert_error(add_device(t, FDSET), "matching flags");
    remove_set(t);
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

void vut_register_socket(void)
{
    static const bool tight[] = { true, false };

    vut_add_data_test("vfio-user/socket/abstract/tight", &tight[0],
                      test_abstract);
    vut_add_data_test("vfio-user/socket/abstract/padded", &tight[1],
                      test_abstract);
    vut_add_test("vfio-user/socket/unfit-address", test_unfit_address);
    vut_add_test("vfio-user/socket/property", test_property);
    vut_add_test("vfio-user/socket/name/works", test_name);
    vut_add_test("vfio-user/socket/name/kept", test_name_kept);
    vut_add_test("vfio-user/socket/number/in-monitor",
                 test_number_in_monitor);
    vut_add_test("vfio-user/socket/number/inherited", test_inherited);
    vut_add_test("vfio-user/socket/set/works", test_set);
    vut_add_test("vfio-user/socket/set/ends", test_set_ends);
    vut_add_test("vfio-user/socket/set/ends-early", test_set_ends_early);
    vut_add_test("vfio-user/socket/set/returns", test_set_returns);
    vut_add_test("vfio-user/socket/set/on-command-line",
                 test_set_on_command_line);
    vut_add_test("vfio-user/socket/set/useless", test_useless_set);
    for (unsigned i = 0; i < ARRAY_SIZE(unfit_fds); i++) {
        const UnfitFd *unfit = &unfit_fds[i];
        g_autofree char *name = g_strdup_printf(
            "vfio-user/socket/name/unfit/%s", unfit->name);
        g_autofree char *in_set = g_strdup_printf(
            "vfio-user/socket/set/unfit/%s", unfit->name);

        vut_add_data_test(name, unfit, test_unfit_name);
        vut_add_data_test(in_set, unfit, test_unfit_in_set);
    }
}
