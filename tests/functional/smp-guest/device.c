/*
 * SMP test device: a server process whose registers do DMA
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The scripted server of tests/server. What its registers do is done before
 * the access is answered, so the client has to serve the DMA while it waits.
 * Where guest RAM is private the DMA goes by message.
 *
 *   device --socket-path=PATH --device=ID [--one-socket] [--state=FILE]
 *
 * With --state what is in its registers outlives the process: the next one goes
 * on with it.
 *
 * With --one-socket it behaves like libvfio-user without twin socket: it ends
 * the connection when anything but the reply follows its own command.
 *
 * All state belongs to the server's thread, on which the callback runs.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server-disk.h"
#include "regs.h"

#define MAX_DMA     (4u << 20)
#define ADLER       65521

typedef struct Device {
    int error;
    uint8_t buf[MAX_DMA];
} Device;

static uint32_t adler32(const uint8_t *data, uint32_t len)
{
    uint32_t a = 1, b = 0;

    for (uint32_t i = 0; i < len; i++) {
        a = (a + data[i]) % ADLER;
        b = (b + a) % ADLER;
    }
    return b << 16 | a;
}

static uint32_t *device_register(TestServer *s, uint64_t off)
{
    return (uint32_t *)ts_region_mem(s, 0) + off / 4;
}

static uint32_t device_len(TestServer *s)
{
    uint32_t len = *device_register(s, SG_DMA_LEN);

    return len < MAX_DMA ? len : MAX_DMA;
}

static uint32_t device_sum(Device *d, TestServer *s)
{
    uint32_t len = device_len(s);

    d->error = ts_dma_read(s, *device_register(s, SG_DMA_ADDR), d->buf, len,
                           TS_DMA_ANY);
    return adler32(d->buf, len);
}

static void device_fill(Device *d, TestServer *s, uint32_t seed)
{
    uint32_t len = device_len(s);

    for (uint32_t i = 0; i < len; i++) {
        d->buf[i] = seed + i * 13 + i / 251;
    }
    d->error = ts_dma_write(s, *device_register(s, SG_DMA_ADDR), d->buf, len,
                            TS_DMA_ANY);
}

static int device_fetch(TestServer *s, uint64_t off, uint32_t *value)
{
    return ts_dma_read(s, *device_register(s, SG_DMA_ADDR) + off, value,
                       sizeof(*value), TS_DMA_ANY);
}

static int device_read(Device *d, TestServer *s, uint64_t off,
                       uint32_t *value)
{
    if (off >= SG_FETCHED) {
        return device_fetch(s, off - SG_FETCHED, value);
    }
    switch (off) {
    case SG_DMA_SUM:
        *value = device_sum(d, s);
        return 0;
    case SG_DMA_ERROR:
        *value = d->error;
        return 0;
    default:
        *value = *device_register(s, off);
        return 0;
    }
}

static int device_access(TestServer *s, unsigned region, uint64_t off,
                         void *data, uint32_t len, bool write, void *opaque)
{
    Device *d = opaque;
    uint32_t value;
    int err;

    (void)region;
    if (len != sizeof(value) || off % sizeof(value)) {
        return EINVAL;
    }
    if (!write) {
        err = device_read(d, s, off, &value);
        memcpy(data, &value, sizeof(value));
        return err;
    }
    memcpy(&value, data, sizeof(value));
    if (off == SG_DMA_FILL) {
        device_fill(d, s, value);
    } else {
        *device_register(s, off) = value;
    }
    return 0;
}

static void device_describe(Device *d, TestServer *s, unsigned id,
                            bool one_socket)
{
    TsRegion *r;

    ts_config_id(s, SG_VENDOR, id, 0xff0000, 1);
    r = ts_add_bar(s, 0, SG_SIZE, 0);
    r->access = device_access;
    r->opaque = d;
    ts_limits(s)->twin_socket = !one_socket;
    ts_limits(s)->no_crossing = one_socket;
    /* Readers make more messages than there is room for. */
    ts_log_enable(s, false);
}

static int device_serve(TestServer *s, const char *path)
{
    sigset_t set;
    int sig, err;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    err = ts_start(s, path);
    if (err) {
        fprintf(stderr, "cannot serve %s: %s\n", path, g_strerror(err));
        return 1;
    }
    sigwait(&set, &sig);
    return 0;
}

int main(int argc, char **argv)
{
    static Device device;
    const char *path = NULL, *state = NULL;
    bool one_socket = false;
    unsigned id = 0;
    TestServer *s;
    int ret;

    for (int i = 1; i < argc; i++) {
        if (g_str_has_prefix(argv[i], "--socket-path=")) {
            path = strchr(argv[i], '=') + 1;
        } else if (g_str_has_prefix(argv[i], "--device=")) {
            id = strtoul(strchr(argv[i], '=') + 1, NULL, 0);
        } else if (g_str_has_prefix(argv[i], "--state=")) {
            state = strchr(argv[i], '=') + 1;
        } else if (!strcmp(argv[i], "--one-socket")) {
            one_socket = true;
        } else {
            fprintf(stderr, "%s: unknown argument %s\n", argv[0], argv[i]);
            return 2;
        }
    }
    if (!path || !id) {
        fprintf(stderr, "%s: --socket-path or --device is missing\n",
                argv[0]);
        return 2;
    }
    s = ts_new();
    device_describe(&device, s, id, one_socket);
    if (state) {
        ts_keep_state(s, state);
    }
    ret = device_serve(s, path);
    ts_free(s);
    return ret;
}
