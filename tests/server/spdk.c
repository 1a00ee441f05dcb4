/*
 * vfio-user test server: a device that is served as SPDK serves its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * SPDK's NVMe controller has its doorbells in shared memory and polls them all
 * the time; its socket it looks at once a millisecond, and takes one message
 * then. So a doorbell overtakes every message that was sent shortly before.
 * A command of the guest that comes by a doorbell needs what those messages
 * bring: the eventfd of its vector and the windows of its memory. Without
 * them SPDK fails the controller, and so does this device: it counts what was
 * missing when a doorbell rang, and its status says so ever after.
 *
 * Two threads: the server's handles messages, each of them a millisecond after
 * it came (ts_spdk_pace), the other one polls the page of doorbells, which the
 * client may have mapped. Where the client does not map it, doorbells come by
 * message, too, and can overtake nothing. What they share are the counters,
 * under the server's lock, and the flag that ends the second thread.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "internal.h"
#include "spdk.h"

#define PACE_US     1000
#define POLL_US     20

typedef struct TsSpdk {
    pthread_t thread;
    bool started;
    bool stop;                          /* atomic */
    /* Under the lock */
    uint32_t rings, no_eventfd, no_window;
    /* Poller only */
    uint32_t seen[SPDK_NR_VECTORS];
} TsSpdk;

void ts_spdk_pace(TestServer *s)
{
    if (s->spdk) {
        g_usleep(PACE_US);
    }
}

/* --- Doorbells, on the poller's thread --- */

static bool spdk_touch(TestServer *s, uint64_t addr)
{
    uint32_t word;

    if (ts_dma_read(s, addr, &word, sizeof(word), TS_DMA_MAPPED)) {
        return false;
    }
    word++;
    return !ts_dma_write(s, addr, &word, sizeof(word), TS_DMA_MAPPED);
}

static void spdk_rung(TestServer *s, unsigned vector, uint64_t addr)
{
    bool no_window = addr && !spdk_touch(s, addr);
    bool no_eventfd = ts_irq_trigger(s, VFIO_USER_IRQ_MSIX, vector) == ENOENT;

    ts_lock(s);
    s->spdk->rings++;
    s->spdk->no_window += no_window;
    s->spdk->no_eventfd += no_eventfd;
    ts_changed_locked(s);
    ts_unlock(s);
}

static void spdk_poll(TestServer *s)
{
    uint8_t *mem = ts_region_mem(s, 0);

    for (unsigned i = 0; i < SPDK_NR_VECTORS; i++) {
        uint8_t *bell = mem + SPDK_BELL(i);
        uint32_t value = __atomic_load_n((uint32_t *)bell, __ATOMIC_ACQUIRE);
        uint64_t addr;

        if (value != s->spdk->seen[i]) {
            s->spdk->seen[i] = value;
            memcpy(&addr, bell + SPDK_BELL_ADDR, sizeof(addr));
            spdk_rung(s, i, addr);
        }
    }
}

static void *spdk_thread(void *opaque)
{
    TestServer *s = opaque;

    while (!__atomic_load_n(&s->spdk->stop, __ATOMIC_RELAXED)) {
        spdk_poll(s);
        g_usleep(POLL_US);
    }
    return NULL;
}

/* --- Registers, on the server's thread --- */

static uint32_t spdk_read_locked(const TsSpdk *d, uint64_t off)
{
    switch (off) {
    case SPDK_STATUS:
        return SPDK_READY |
               (d->no_eventfd || d->no_window ? SPDK_FAILED : 0);
    case SPDK_NO_EVENTFD:
        return d->no_eventfd;
    case SPDK_NO_WINDOW:
        return d->no_window;
    case SPDK_RINGS:
        return d->rings;
    default:
        return 0;
    }
}

static int spdk_access(TestServer *s, unsigned region, uint64_t off,
                       void *data, uint32_t len, bool write, void *opaque)
{
    uint8_t *mem = (uint8_t *)ts_region_mem(s, region) + off;
    TsSpdk *d = opaque;
    uint32_t value;

    if (off >= SPDK_BELL(0)) {
        memcpy(write ? mem : data, write ? data : mem, len);
        return 0;
    }
    if (len != sizeof(value) || off % sizeof(value)) {
        return EINVAL;
    }
    ts_lock(s);
    if (!write) {
        value = spdk_read_locked(d, off);
        memcpy(data, &value, sizeof(value));
    } else if (off == SPDK_STATUS) {
        d->rings = d->no_eventfd = d->no_window = 0;
    }
    ts_unlock(s);
    return 0;
}

/* --- Life --- */

void ts_add_spdk(TestServer *s)
{
    TsRegion *r;

    s->spdk = g_new0(TsSpdk, 1);
    ts_config_id(s, SPDK_VENDOR, SPDK_DEVICE, 0xff0000, 1);
    r = ts_add_bar(s, 0, SPDK_SIZE, 0);
    r->flags |= VFIO_USER_REGION_MMAP;
    r->nr_areas = 1;
    r->areas[0] = (TsArea) { SPDK_BELL(0), SPDK_SIZE - SPDK_BELL(0) };
    r->access = spdk_access;
    r->opaque = s->spdk;
    ts_add_bar(s, 4, 0x2000, 0);
    ts_add_msix(s, SPDK_NR_VECTORS, 4, 0, 4, 0x1000);
}

int ts_spdk_start(TestServer *s)
{
    int err;

    if (!s->spdk) {
        return 0;
    }
    err = pthread_create(&s->spdk->thread, NULL, spdk_thread, s);
    s->spdk->started = !err;
    return err;
}

void ts_spdk_free(TestServer *s)
{
    if (s->spdk && s->spdk->started) {
        __atomic_store_n(&s->spdk->stop, true, __ATOMIC_RELAXED);
        pthread_join(s->spdk->thread, NULL);
    }
    g_clear_pointer(&s->spdk, g_free);
}
