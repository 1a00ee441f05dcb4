/*
 * Nasty test device: what it is written, in a file that outlives it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The standard device of tests/server. Each write of a register of BAR0 or of
 * config space is a line of the file before it is answered, so also a server
 * that is killed has told what it has got:
 *
 *   REGION OFFSET VALUE
 *
 * and each server that starts is a line "start".
 *
 *   device --socket-path=PATH --writes=FILE [--state=FILE]
 *
 * The file's descriptor is set once; the handler runs on the server's thread.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "server-disk.h"

static int writes;

static void note(const char *line)
{
    g_assert(write(writes, line, strlen(line)) == (ssize_t)strlen(line));
}

static int device_note(TestServer *s, TsMessage *request, TsMessage *reply,
                       void *opaque)
{
    struct vfio_user_region_rw access;
    g_autofree char *line = NULL;
    uint64_t value = 0;

    (void)s;
    (void)reply;
    (void)opaque;
    if (request->payload->len < sizeof(access)) {
        return -1;
    }
    memcpy(&access, request->payload->data, sizeof(access));
    memcpy(&value, request->payload->data + sizeof(access),
           MIN(sizeof(value), request->payload->len - sizeof(access)));
    line = g_strdup_printf("%u %#" PRIx64 " %#" PRIx64 "\n", access.region,
                           access.offset, value);
    note(line);
    return -1;
}

int main(int argc, char **argv)
{
    const char *path = NULL, *file = NULL, *state = NULL;
    TestServer *s = ts_new();
    sigset_t set;
    int sig, err;

    for (int i = 1; i < argc; i++) {
        if (g_str_has_prefix(argv[i], "--socket-path=")) {
            path = strchr(argv[i], '=') + 1;
        } else if (g_str_has_prefix(argv[i], "--writes=")) {
            file = strchr(argv[i], '=') + 1;
        } else if (g_str_has_prefix(argv[i], "--state=")) {
            state = strchr(argv[i], '=') + 1;
        }
    }
    writes = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                         0600) : -1;
    if (!path || writes < 0) {
        fprintf(stderr, "%s: --socket-path or --writes is missing\n",
                argv[0]);
        return 2;
    }
    note("start\n");
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    ts_standard_device(s);
    ts_set_handler(s, VFIO_USER_REGION_WRITE, device_note, NULL);
    ts_log_enable(s, false);
    if (state) {
        ts_keep_state(s, state);
    }
    err = ts_start(s, path);
    if (err) {
        fprintf(stderr, "%s: cannot serve %s: %s\n", argv[0], path,
                g_strerror(err));
        return 1;
    }
    sigwait(&set, &sig);
    ts_free(s);
    close(writes);
    return 0;
}
