/*
 * vfio-user qtest: reaching the server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/un.h>
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

#define IMPATIENT_MS    500
#define MAX_CLIENTS     8

static const VUTOptions no_device = { .no_device = true };

/**
 * Crowd: a listener whose queue is full of clients that nobody accepts
 * @pid, @nr_sockets: QEMU, and how many sockets it had before
 * @server: who accepts in the end
 */
typedef struct Crowd {
    struct sockaddr_un un;
    int listener;
    int clients[MAX_CLIENTS];
    unsigned nr_clients;
    pid_t pid;
    unsigned nr_sockets;
    TestServer *server;
} Crowd;

static void crowd_open(Crowd *c, const char *dir)
{
    *c = (Crowd) { .un.sun_family = AF_UNIX };
    snprintf(c->un.sun_path, sizeof(c->un.sun_path), "%s/crowd", dir);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert(!bind(c->listener, (struct sockaddr *)&c->un, sizeof(c->un)));
    g_assert(!listen(c->listener, 0));

    for (;;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                        0);

        if (connect(fd, (struct sockaddr *)&c->un, sizeof(c->un))) {
            g_assert_cmpint(errno, ==, EAGAIN);
            close(fd);
            break;
        }
        g_assert_cmpuint(c->nr_clients, <, MAX_CLIENTS);
        c->clients[c->nr_clients++] = fd;
    }
    g_assert_cmpuint(c->nr_clients, >, 0);
}

static void crowd_close(Crowd *c)
{
    for (unsigned i = 0; i < c->nr_clients; i++) {
        close(c->clients[i]);
    }
    unlink(c->un.sun_path);
}

static unsigned nr_sockets(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned nr = 0;

    g_assert(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        g_autofree char *what = g_file_read_link(link, NULL);

        nr += what && g_str_has_prefix(what, "socket:");
    }
    g_dir_close(dir);
    return nr;
}

static void test_full_queue(void)
{
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    g_autofree char *error = NULL;
    Crowd c;

    crowd_open(&c, t->dir);
    error = vut_add(t, VUT_ID, c.un.sun_path, IMPATIENT_MS);
    g_assert_nonnull(error);
    g_test_message("%s", error);
    g_assert(strstr(error, c.un.sun_path));
    g_assert(strstr(error, "is full"));
    g_assert(strstr(error, "within 500 ms"));
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    vut_wait_nr_fds(t, fds);
    close(c.listener);
    crowd_close(&c);
    vut_free(t);
}

/* Once QEMU has the socket that it connects, the server begins to accept. */
static void *drain_thread(void *opaque)
{
    Crowd *c = opaque;

    VUT_WAIT(nr_sockets(c->pid) > c->nr_sockets);
    for (unsigned i = 0; i < c->nr_clients; i++) {
        int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);

        g_assert_cmpint(fd, >=, 0);
        close(fd);
    }
    g_assert_cmpint(ts_start_listen_fd(c->server, c->listener), ==, 0);
    return NULL;
}

static void test_drained_queue(void)
{
    VUTest *t = vut_new(&no_device);
    g_autofree char *error = NULL;
    GThread *thread;
    Crowd c;

    crowd_open(&c, t->dir);
    c.pid = qtest_pid(t->qts);
    c.nr_sockets = nr_sockets(c.pid);
    c.server = ts_new();
    ts_standard_device(c.server);
    thread = g_thread_new("drain", drain_thread, &c);
    error = vut_add(t, VUT_ID, c.un.sun_path, VUT_TIMEOUT_MS);
    g_thread_join(thread);
    g_assert_cmpstr(error, ==, NULL);
    g_assert(ts_wait_connected(c.server, true));
    vut_del_by_reset(t, VUT_ID);
    crowd_close(&c);
    ts_free(c.server);
    vut_free(t);
}

/* device_add of a socket address other than a path; NULL or the error */
static char *G_GNUC_PRINTF(2, 3)
add_address(VUTest *t, const char *fmt, ...)
{
    va_list ap;
    g_autofree char *address = NULL;
    QDict *response, *error;
    char *text = NULL;

    va_start(ap, fmt);
    address = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    qtest_qmp_send_raw(t->qts, "{\"execute\": \"device_add\", \"arguments\": "
                       "{\"driver\": \"vfio-user-pci\", \"id\": \"" VUT_ID
                       "\", \"addr\": \"4\", \"socket\": {%s}}}\n", address);
    response = qtest_qmp_receive(t->qts);
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    return text;
}

static void assert_works(VUTest *t)
{
    vut_find(t, VUT_SLOT);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_VENDOR_ID), ==,
                    TS_STANDARD_VENDOR);
}

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

    error = add_address(t, "\"type\": \"unix\", \"path\": \"%s\", "
                        "\"abstract\": true, \"tight\": %s", name,
                        tight ? "true" : "false");
    g_assert_cmpstr(error, ==, NULL);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    ts_free(s);
    vut_free(t);
}

/* The monitor gets @fd under the name "server"; @fd is closed here. */
static void give_fd(VUTest *t, int fd)
{
    qtest_qmp_fds_assert_success(t->qts, &fd, 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'server'}}");
    close(fd);
}

static void test_fd(void)
{
    VUTest *t = vut_new(&no_device);
    TestServer *s = ts_new();
    g_autofree char *error = NULL;
    int pair[2];

    g_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    ts_standard_device(s);
    g_assert_cmpint(ts_start_fd(s, pair[0]), ==, 0);
    give_fd(t, pair[1]);
    error = add_address(t, "\"type\": \"fd\", \"str\": \"server\"");
    g_assert_cmpstr(error, ==, NULL);
    assert_works(t);
    vut_del_by_reset(t, VUT_ID);
    ts_free(s);
    vut_free(t);
}

static int unconnected_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* Connected, but a message is not a piece of a stream there. */
static int datagram_socket(void)
{
    int pair[2];

    g_assert(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
    close(pair[0]);
    return pair[1];
}

static int internet_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void test_unfit_fd(const void *data)
{
    int (*make)(void) = *(int (*const *)(void))data;
    VUTest *t = vut_new(&no_device);
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    g_autofree char *error = NULL;

    give_fd(t, make());
    error = add_address(t, "\"type\": \"fd\", \"str\": \"server\"");
    g_assert_nonnull(error);
    g_assert(strstr(error, "not a connected UNIX stream socket"));
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

void vut_register_connect(void)
{
    static const bool tight[] = { true, false };
    static int (*const unfit[])(void) = {
        unconnected_socket, datagram_socket, internet_socket,
    };

    vut_add_test("vfio-user/connect/full-queue", test_full_queue);
    vut_add_test("vfio-user/connect/drained-queue", test_drained_queue);
    vut_add_data_test("vfio-user/connect/abstract/tight", &tight[0],
                      test_abstract);
    vut_add_data_test("vfio-user/connect/abstract/padded", &tight[1],
                      test_abstract);
    vut_add_test("vfio-user/connect/fd/connected", test_fd);
    vut_add_data_test("vfio-user/connect/fd/unconnected", &unfit[0],
                      test_unfit_fd);
    vut_add_data_test("vfio-user/connect/fd/datagram", &unfit[1],
                      test_unfit_fd);
    vut_add_data_test("vfio-user/connect/fd/internet", &unfit[2],
                      test_unfit_fd);
}
