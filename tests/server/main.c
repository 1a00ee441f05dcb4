/*
 * vfio-user test server: the stand-alone program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Follows the conventions of vhost-user's backends: it stays in the
 * foreground, ends on SIGTERM, and takes --socket-path=PATH or --fd=N. Once
 * the socket listens it says so in a line on stdout, for a script to wait on.
 * With --state it may be killed at any moment: the next one with the same file
 * goes on where it was, and takes the place of the socket that it left.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "script.h"
#include "server-disk.h"

typedef struct Options {
    char *socket_path;
    int fd;
    char *config, *state;
    char **set;
    gboolean log, list, once;
} Options;

static gpointer wait_for_end(gpointer opaque)
{
    ts_wait_finished(opaque, -1);
    kill(getpid(), SIGTERM);
    return NULL;
}

/* Blocked in every thread; the main thread takes them one by one. */
static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

static char *describe(TestServer *s, const Options *o)
{
    char *error = NULL;

    if (o->config) {
        error = script_file(s, o->config);
    }
    for (char **line = o->set; !error && line && *line; line++) {
        error = script_line(s, *line);
    }
    if (!error && !o->config && !o->set) {
        ts_standard_device(s);
    }
    if (!error && o->state) {
        ts_keep_state(s, o->state);
    }
    return error;
}

static int start(TestServer *s, const Options *o)
{
    int listening = 0;
    socklen_t len = sizeof(listening);

    if (o->socket_path) {
        return ts_start(s, o->socket_path);
    }
    if (getsockopt(o->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len)) {
        return errno;
    }
    return listening ? ts_start_listen_fd(s, o->fd) : ts_start_fd(s, o->fd);
}

static void list_mischief(void)
{
    static const char *const expect[] = { "refused", "harmless", "either",
                                         "denied" };

    for (unsigned i = 0; i < ts_nr_mischiefs; i++) {
        printf("%-28s %s\n", ts_mischiefs[i].name,
               expect[ts_mischiefs[i].expect]);
    }
}

static int serve(TestServer *s, const Options *o)
{
    g_autofree char *log = NULL;
    GThread *waiter;
    sigset_t set;
    int sig, err;

    block_signals(&set);
    ts_log_enable(s, o->log);
    err = start(s, o);
    if (err) {
        fprintf(stderr, "vfio-user-test-server: cannot serve %s: %s\n",
                o->socket_path ?: "the fd", g_strerror(err));
        return 1;
    }
    printf("serving\n");
    fflush(stdout);
    waiter = g_thread_new("waiter", wait_for_end, s);
    sigwait(&set, &sig);
    if (o->log) {
        log = ts_log_text(s);
        fputs(log, stderr);
    }
    ts_stop(s);
    g_thread_join(waiter);
    ts_free(s);
    return 0;
}

static bool parse(int argc, char **argv, Options *o)
{
    GOptionEntry entries[] = {
        { "socket-path", 's', 0, G_OPTION_ARG_FILENAME, &o->socket_path,
          "Listen on this UNIX socket", "PATH" },
        { "fd", 'f', 0, G_OPTION_ARG_INT, &o->fd,
          "Use this socket, listening or connected", "N" },
        { "config", 'c', 0, G_OPTION_ARG_FILENAME, &o->config,
          "Describe the device with the lines of this file", "FILE" },
        { "set", 0, 0, G_OPTION_ARG_STRING_ARRAY, &o->set,
          "One such line; may be repeated", "LINE" },
        { "state", 0, 0, G_OPTION_ARG_FILENAME, &o->state,
          "Keep the device's state in this file: a server that was killed "
          "is followed by one that goes on", "FILE" },
        { "log", 'l', 0, G_OPTION_ARG_NONE, &o->log,
          "Print what came to stderr at the end", NULL },
        { "list-mischief", 0, 0, G_OPTION_ARG_NONE, &o->list,
          "Print the names of the misbehaviours and end", NULL },
        { NULL }
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_set_summary(context, "Serves a vfio-user device for "
                                 "tests; without a description, the standard "
                                 "device (see script.h and server.h).");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "vfio-user-test-server: %s\n", error->message);
        return false;
    }
    if (!o->list && !o->socket_path == (o->fd < 0)) {
        fprintf(stderr, "vfio-user-test-server: give one of --socket-path "
                "and --fd\n");
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    Options o = { .fd = -1 };
    g_autofree char *error = NULL;
    TestServer *s;
    int ret;

    if (!parse(argc, argv, &o)) {
        return 2;
    }
    if (o.list) {
        list_mischief();
        return 0;
    }
    s = ts_new();
    error = describe(s, &o);
    if (error) {
        fprintf(stderr, "vfio-user-test-server: %s\n", error);
        ts_free(s);
        return 2;
    }
    ret = serve(s, &o);
    g_free(o.socket_path);
    g_free(o.config);
    g_free(o.state);
    g_strfreev(o.set);
    return ret;
}
