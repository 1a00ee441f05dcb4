/*
 * KVM test device: a server process for the guest of this directory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The scripted server of tests/server with registers that make it act, see
 * regs.h. It ends on SIGTERM and then prints every message it got.
 *
 *   device --socket-path=PATH [--no-mmap] [--bells]
 *
 * All state belongs to the server's thread, on which both callbacks run.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "server.h"
#include "regs.h"

#define CONFIG_STATUS           6
#define CONFIG_STATUS_INTERRUPT 0x08

typedef struct Device {
    uint32_t mem[KT_REGS_SIZE / 4];     /* what is memory in the registers */
    uint32_t causes;
    uint32_t signals;
    uint32_t raised;
    TsIoFd *bells[KT_NR_BELLS];
    uint32_t *shadow;                   /* NULL without bells */
} Device;

/* The level, as it stands in config space and on the wire. */
static void device_set_causes(Device *d, TestServer *s, uint32_t causes)
{
    uint8_t *config = ts_region_mem(s, VFIO_USER_REGION_CONFIG);

    if (causes) {
        config[CONFIG_STATUS] |= CONFIG_STATUS_INTERRUPT;
    } else {
        config[CONFIG_STATUS] &= ~CONFIG_STATUS_INTERRUPT;
    }
    if (causes && !d->causes) {
        d->signals++;
        ts_irq_trigger(s, VFIO_USER_IRQ_INTX, 0);
    }
    d->causes = causes;
}

static uint32_t device_read(Device *d, TestServer *s, uint64_t off)
{
    uint32_t bell = (off - KT_RINGS) / 4;

    if (d->shadow && off >= KT_RINGS && bell < KT_NR_BELLS) {
        return ts_io_fd_count(s, d->bells[bell]);
    }
    switch (off) {
    case KT_SHADOW:
        return d->shadow ? *d->shadow : 0;
    case KT_MAGIC:
        return KT_MAGIC_VALUE;
    case KT_RAISED:
        return d->raised;
    case KT_CAUSES:
        return d->causes;
    case KT_SIGNALS:
        return d->signals;
    case KT_RESETS:
        return ts_nr_resets(s);
    default:
        return d->mem[off / 4];
    }
}

static int device_write(Device *d, TestServer *s, uint64_t off, uint32_t value)
{
    switch (off) {
    case KT_RAISE:
        d->raised = ts_irq_trigger(s, value >> 16, value & 0xffff);
        return 0;
    case KT_SLOW:
        d->raised = ts_irq_trigger(s, value >> 16, value & 0xffff);
        d->mem[KT_SLOW_WRITES / 4]++;
        g_usleep(KT_SLOW_MS * 1000);
        return 0;
    case KT_SET_CAUSES:
        device_set_causes(d, s, d->causes | value);
        return 0;
    case KT_ACK_CAUSES:
        device_set_causes(d, s, d->causes & ~value);
        return 0;
    case KT_DMA_STORE:
        return ts_dma_write(s, d->mem[KT_DMA_ADDR / 4], &value, sizeof(value),
                            TS_DMA_MAPPED);
    default:
        d->mem[off / 4] = value;
        return 0;
    }
}

/* Registers answer to whole words; the rest is memory of any width. */
static int device_access(TestServer *s, unsigned region, uint64_t off,
                         void *data, uint32_t len, bool write, void *opaque)
{
    Device *d = opaque;
    uint32_t value;

    (void)region;
    if (len != sizeof(value) || off % sizeof(value)) {
        uint8_t *at = (uint8_t *)d->mem + off;

        memcpy(write ? at : data, write ? data : at, len);
        return 0;
    }
    if (write) {
        memcpy(&value, data, sizeof(value));
        return device_write(d, s, off, value);
    }
    value = device_read(d, s, off);
    memcpy(data, &value, sizeof(value));
    return 0;
}

static void device_reset(TestServer *s, void *opaque)
{
    Device *d = opaque;

    memset(d->mem, 0, sizeof(d->mem));
    device_set_causes(d, s, 0);
}

static void device_add_bells(Device *d, TestServer *s)
{
    TsIoFd **bell = d->bells;

    *bell++ = ts_add_io_fd(s, KT_REGS_BAR, KT_BELL_4, 4);
    *bell = ts_add_io_fd(s, KT_REGS_BAR, KT_BELL_MATCH, 2);
    ts_io_fd_match(*bell++, KT_BELL_VALUE);
    *bell++ = ts_add_io_fd(s, KT_REGS_BAR, KT_BELL_ANY, 0);
    *bell = ts_add_io_fd(s, KT_REGS_BAR, KT_BELL_SHADOW, 4);
    d->shadow = ts_io_fd_shadow(s, *bell++, 0x1004);
    *bell++ = ts_add_io_fd(s, KT_PORTS_BAR, KT_PORT_BELL, 2);
    *bell = ts_add_io_fd(s, KT_PORTS_BAR, KT_PORT_BELL_MATCH, 4);
    ts_io_fd_match(*bell++, KT_PORT_BELL_VALUE);
    g_assert(bell == d->bells + KT_NR_BELLS);
}

static void device_describe(Device *d, TestServer *s, bool mmap)
{
    TsRegion *r;

    ts_config_id(s, KT_VENDOR, KT_DEVICE, 0xff0000, 1);
    r = ts_add_bar(s, KT_REGS_BAR, KT_REGS_SIZE, 0);
    r->access = device_access;
    r->opaque = d;
    r = ts_add_bar(s, KT_MEMORY_BAR, KT_MEMORY_SIZE, 0);
    if (mmap) {
        r->flags |= VFIO_USER_REGION_MMAP;
    }
    ts_add_bar(s, KT_PORTS_BAR, KT_PORTS_SIZE, TS_BAR_IO);
    ts_add_bar(s, KT_MSIX_BAR, KT_MSIX_SIZE, 0);
    ts_config_intx(s, 1);
    ts_add_msi(s, KT_NR_MSI, false);
    ts_add_msix(s, KT_NR_MSIX, KT_MSIX_BAR, KT_MSIX_TABLE, KT_MSIX_BAR,
                KT_MSIX_PBA);
    ts_on_reset(s, device_reset, d);
}

static void print_log(TestServer *s)
{
    g_autofree char *text = ts_log_text(s);

    fputs(text, stdout);
}

int main(int argc, char **argv)
{
    static Device device;
    const char *path = NULL;
    bool mmap = true, bells = false;
    TestServer *s;
    sigset_t set;
    int sig, err;

    for (int i = 1; i < argc; i++) {
        if (g_str_has_prefix(argv[i], "--socket-path=")) {
            path = strchr(argv[i], '=') + 1;
        } else if (!strcmp(argv[i], "--no-mmap")) {
            mmap = false;
        } else if (!strcmp(argv[i], "--bells")) {
            bells = true;
        } else {
            fprintf(stderr, "%s: unknown argument %s\n", argv[0], argv[i]);
            return 2;
        }
    }
    if (!path) {
        fprintf(stderr, "%s: --socket-path is missing\n", argv[0]);
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    s = ts_new();
    device_describe(&device, s, mmap);
    if (bells) {
        device_add_bells(&device, s);
    }
    err = ts_start(s, path);
    if (err) {
        fprintf(stderr, "%s: cannot serve %s: %s\n", argv[0], path,
                g_strerror(err));
        return 1;
    }
    sigwait(&set, &sig);
    print_log(s);
    ts_free(s);
    return 0;
}
