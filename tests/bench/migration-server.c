/*
 * vfio-user benchmark: the device whose migration is measured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   vfio-user-bench-migration-server SOCKET BYTES
 *
 * The test server with BYTES of device state and dirty page logging. The test
 * server makes every byte of its state and checks it, which costs more than
 * moving it; here the state is memory that is there, and what comes is counted
 * and dropped. What is measured is the client.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "../server/mig-internal.h"
#include "device.h"
#include "migration.h"

static uint8_t state[BENCH_STATE_MESSAGE];

/* Past the server's own sending, which puts the message together first. */
static int give_state(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque)
{
    struct vfio_user_mig_data ask;
    struct {
        struct vfio_user_header header;
        struct vfio_user_mig_data data;
    } out = { .header = request->hdr };
    struct iovec iov[] = { { &out, sizeof(out) }, { state, 0 } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    MigOut *stream = &s->mig->out;

    (void)reply;
    (void)opaque;
    if (s->mig->state != VFIO_USER_MIG_STOP_COPY ||
        request->payload->len != sizeof(ask)) {
        return EINVAL;
    }
    memcpy(&ask, request->payload->data, sizeof(ask));
    iov[1].iov_len = MIN(MIN(ask.size, sizeof(state)),
                         s->mig->opt.size - stream->position);
    stream->position += iov[1].iov_len;
    out.data.size = iov[1].iov_len;
    out.data.argsz = sizeof(out.data) + iov[1].iov_len;
    out.header.flags = VFIO_USER_TYPE_REPLY;
    out.header.size = sizeof(out) + iov[1].iov_len;
    if (sendmsg(s->conn_fd, &msg, MSG_NOSIGNAL) !=
        (ssize_t)out.header.size) {
        ts_fail_connection(s);
    }
    return TS_NO_REPLY;
}

/* STATE is complete when as much came as this device has. */
static int take_state(TestServer *s, TsMessage *request, TsMessage *reply,
                      void *opaque)
{
    MigIn *stream = &s->mig->in;

    (void)reply;
    (void)opaque;
    if (s->mig->state != VFIO_USER_MIG_RESUMING ||
        request->payload->len < sizeof(struct vfio_user_mig_data)) {
        return EINVAL;
    }
    stream->position += request->payload->len -
                        sizeof(struct vfio_user_mig_data);
    stream->done = stream->position == s->mig->opt.size;
    return 0;
}

static TestServer *make_device(uint64_t size)
{
    TestServer *s = ts_new();
    TsMigOptions *opt = ts_add_migration(s, 0);

    opt->flags = VFIO_USER_MIGRATION_STOP_COPY;
    opt->size = size;
    opt->logging = true;
    ts_config_id(s, BENCH_VENDOR, BENCH_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, BENCH_BAR_SIZE, 0);
    ts_add_msi(s, 1, false);
    ts_set_handler(s, VFIO_USER_MIG_DATA_READ, give_state, NULL);
    ts_set_handler(s, VFIO_USER_MIG_DATA_WRITE, take_state, NULL);
    return s;
}

int main(int argc, char **argv)
{
    TestServer *s;
    sigset_t set;
    int sig, err;

    if (argc != 3) {
        fprintf(stderr, "usage: vfio-user-bench-migration-server SOCKET "
                "BYTES\n");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);

    /* Untouched pages would all be the same one. */
    memset(state, 1, sizeof(state));
    s = make_device(strtoull(argv[2], NULL, 0));
    ts_log_enable(s, false);
    err = ts_start(s, argv[1]);
    if (err) {
        fprintf(stderr, "vfio-user-bench-migration-server: cannot serve %s: "
                "%s\n", argv[1], strerror(err));
        return 1;
    }
    printf("serving\n");
    fflush(stdout);
    sigwait(&set, &sig);
    ts_free(s);
    return 0;
}
