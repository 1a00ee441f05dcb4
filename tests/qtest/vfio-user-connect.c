/*
 * vfio-user qtest: a server whose queue of connections is full
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/un.h>
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

void vut_register_connect(void)
{
    vut_add_test("vfio-user/connect/full-queue", test_full_queue);
    vut_add_test("vfio-user/connect/drained-queue", test_drained_queue);
}
