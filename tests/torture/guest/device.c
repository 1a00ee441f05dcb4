/*
 * Torture device: its server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The scripted server of tests/server with the device of regs.h.
 *
 *   device --socket-path=PATH [--state=FILE] [--no-ports] [--noisy=SEED]
 *
 * With --noisy it raises interrupts of all kinds and writes to guest memory
 * without being asked, whether anybody listens or not.
 *
 * Lines on stdin change how it answers from then on:
 *
 *   refuse COMMAND ERRNO   that command is answered with that error
 *   drop COMMAND           it is not answered
 *   close COMMAND          the connection ends instead of an answer
 *   behave                 everything is answered again
 *
 * The registers belong to the server's thread, on which the callbacks run.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server-disk.h"
#include "regs.h"

#define NOISE_MS            3
#define CONFIG_STATUS       6
#define STATUS_INTERRUPT    0x08

typedef struct Device {
    uint32_t mem[TT_REGS_SIZE / 4];
    uint32_t causes;
} Device;

static void device_set_causes(Device *d, TestServer *s, uint32_t causes)
{
    uint8_t *config = ts_region_mem(s, VFIO_USER_REGION_CONFIG);

    if (causes) {
        config[CONFIG_STATUS] |= STATUS_INTERRUPT;
    } else {
        config[CONFIG_STATUS] &= ~STATUS_INTERRUPT;
    }
    if (causes && !d->causes) {
        ts_irq_trigger(s, VFIO_USER_IRQ_INTX, 0);
    }
    d->causes = causes;
}

static void device_store(TestServer *s, uint64_t addr, uint32_t value)
{
    addr = TT_SCRATCH + addr % (TT_SCRATCH_SIZE - sizeof(value));
    ts_dma_write(s, addr, &value, sizeof(value), TS_DMA_MAPPED);
}

static void device_write(Device *d, TestServer *s, uint64_t off,
                         uint32_t value)
{
    switch (off) {
    case TT_RAISE:
        ts_irq_trigger(s, (value >> 16) % TS_NR_IRQS, value & 0xffff);
        break;
    case TT_SET_CAUSES:
        device_set_causes(d, s, d->causes | value);
        break;
    case TT_ACK_CAUSES:
        device_set_causes(d, s, d->causes & ~value);
        break;
    case TT_DMA_STORE:
        device_store(s, value, value);
        break;
    default:
        d->mem[off / 4] = value;
        break;
    }
}

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
        device_write(d, s, off, value);
        return 0;
    }
    value = off == TT_MAGIC ? TT_MAGIC_VALUE :
            off == TT_CAUSES ? d->causes : d->mem[off / 4];
    memcpy(data, &value, sizeof(value));
    return 0;
}

static void device_reset(TestServer *s, void *opaque)
{
    Device *d = opaque;

    memset(d->mem, 0, sizeof(d->mem));
    device_set_causes(d, s, 0);
}

static void device_describe(Device *d, TestServer *s, bool ports)
{
    static const uint8_t rom[2] = { 0x55, 0xaa };
    TsRegion *r;

    ts_config_id(s, TT_VENDOR, TT_DEVICE, 0xff0000, 1);
    r = ts_add_bar(s, TT_REGS_BAR, TT_REGS_SIZE, 0);
    r->access = device_access;
    r->opaque = d;
    r = ts_add_bar(s, TT_SMALL_BAR, TT_SMALL_SIZE, 0);
    r->flags |= VFIO_USER_REGION_MMAP;
    r = ts_add_bar(s, TT_MEMORY_BAR, TT_MEMORY_SIZE, 0);
    r->flags |= VFIO_USER_REGION_MMAP;
    r = ts_add_bar(s, TT_MSIX_BAR, TT_MSIX_SIZE, 0);
    r->flags |= VFIO_USER_REGION_MMAP;
    r->nr_areas = 1;
    r->areas[0] = (TsArea) { TT_MSIX_MAPPED, TT_MSIX_SIZE - TT_MSIX_MAPPED };
    if (ports) {
        ts_add_bar(s, TT_PORTS_BAR, TT_PORTS_SIZE, TS_BAR_IO);
    }
    ts_add_rom(s, rom, sizeof(rom), 0x1000);
    ts_config_intx(s, 1);
    ts_add_pm(s);
    ts_add_pcie(s, 0);
    ts_add_msi(s, TT_NR_MSI, true);
    ts_add_msix(s, TT_NR_MSIX, TT_MSIX_BAR, TT_MSIX_TABLE, TT_MSIX_BAR,
                TT_MSIX_PBA);
    ts_add_irqs(s, VFIO_USER_IRQ_ERR, 1, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_REFUSE);
    ts_add_irqs(s, VFIO_USER_IRQ_REQ, 1, VFIO_USER_IRQ_EVENTFD,
                TS_MASK_REFUSE);
    ts_on_reset(s, device_reset, d);
    /* A guest that does what it likes makes more messages than fit. */
    ts_log_enable(s, false);
}

/* What it does by itself, once in a while. */
static void make_noise(TestServer *s, GRand *rand)
{
    uint32_t what = g_rand_int(rand);

    switch (what % 4) {
    case 0:
        ts_irq_trigger(s, VFIO_USER_IRQ_INTX, 0);
        break;
    case 1:
        ts_irq_trigger(s, VFIO_USER_IRQ_MSI, what / 4 % TT_NR_MSI);
        break;
    case 2:
        ts_irq_trigger(s, VFIO_USER_IRQ_MSIX, what / 4 % TT_NR_MSIX);
        break;
    case 3:
        device_store(s, what / 4, what);
        break;
    }
}

static void obey(TestServer *s, const char *line)
{
    TsMove move = { .command = -1, .index = -1 };
    int error;

    if (sscanf(line, "refuse %d %d", &move.command, &error) == 2) {
        move.kind = TS_MOVE_ERROR;
        move.a = error;
    } else if (sscanf(line, "drop %d", &move.command) == 1) {
        move.kind = TS_MOVE_DROP;
    } else if (sscanf(line, "close %d", &move.command) == 1) {
        move.kind = TS_MOVE_CLOSE;
    } else {
        ts_clear_moves(s);
        return;
    }
    ts_add_move(s, &move);
}

/* Until a signal ends the process, or stdin does. */
static void serve(TestServer *s, GRand *rand)
{
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    char line[80];

    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        int ready = poll(&in, 1, rand ? NOISE_MS : -1);

        if (ready > 0) {
            if (!fgets(line, sizeof(line), stdin)) {
                return;
            }
            obey(s, line);
        } else if (rand) {
            make_noise(s, rand);
        }
    }
}

int main(int argc, char **argv)
{
    static Device device;
    const char *path = NULL, *state = NULL;
    GRand *rand = NULL;
    bool ports = true;
    TestServer *s;
    int err;

    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');

        if (g_str_has_prefix(argv[i], "--socket-path=")) {
            path = value + 1;
        } else if (g_str_has_prefix(argv[i], "--state=")) {
            state = value + 1;
        } else if (g_str_has_prefix(argv[i], "--noisy=")) {
            rand = g_rand_new_with_seed(strtoul(value + 1, NULL, 0));
        } else if (!strcmp(argv[i], "--no-ports")) {
            ports = false;
        } else {
            fprintf(stderr, "%s: unknown argument %s\n", argv[0], argv[i]);
            return 2;
        }
    }
    if (!path) {
        fprintf(stderr, "%s: --socket-path is missing\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    s = ts_new();
    device_describe(&device, s, ports);
    if (state) {
        ts_keep_state(s, state);
    }
    err = ts_start(s, path);
    if (err) {
        fprintf(stderr, "%s: cannot serve %s: %s\n", argv[0], path,
                g_strerror(err));
        return 1;
    }
    serve(s, rand);
    ts_free(s);
    return 0;
}
