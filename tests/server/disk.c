/*
 * vfio-user test server: the disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * disk.h says what the device does. All of its state is memory of regions,
 * which ts_keep_state() may keep: the registers are BAR0's, what the guest
 * does not see (DiskPrivate) is a region beyond those that a client is told
 * of. A server may be killed between any two stores, so their order matters:
 *
 * - A request is taken when its slot is busy. TAKEN follows; a server that
 *   finds it behind moves it on.
 * - A request is completed when its entry's sequence number is in guest
 *   memory. Before that is written, PUBLISHING names the slot. A server that
 *   finds it set looks into guest memory: an entry that is there is committed
 *   and its request not touched again, since the driver may have gone on. One
 *   that is not there means that the request is still open.
 * - To commit: the slot is free, then USED goes up, then PUBLISHING is clear.
 *   Doing this again after any part of it comes to the same.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"
#include "server-disk.h"

#define DISK_PRIVATE    (TS_NR_REGIONS - 1)     /* region */
#define DISK_SLOTS      8
#define DISK_RETRY_US   2000    /* until memory may be there */
#define DISK_POLL_US    500     /* of the mapped doorbell */
#define CONFIG_COMMAND  0x04
#define COMMAND_MASTER  0x04

/* As BAR0 shows it. */
typedef struct DiskRegs {
    uint32_t id, control, status, blocks;
    uint64_t requests, completions;
    uint32_t entries, doorbell, taken, used;
    uint32_t starts, raised, lost, resumed;
    uint32_t scratch;
} DiskRegs;

#define DISK_REG_AT(field, offset) \
    _Static_assert(offsetof(DiskRegs, field) == (offset), #field)
DISK_REG_AT(requests, DISK_REQUESTS);
DISK_REG_AT(entries, DISK_ENTRIES);
DISK_REG_AT(used, DISK_USED);
DISK_REG_AT(scratch, DISK_SCRATCH);

typedef struct DiskSlot {
    uint32_t busy;
    uint32_t index;             /* in the ring of requests */
    DiskRequest request;
} DiskSlot;

typedef struct DiskPrivate {
    DiskSlot slots[DISK_SLOTS];
    uint32_t publishing;        /* slot + 1, or 0 */
} DiskPrivate;

struct TsDisk {
    char *file;                 /* description */
    uint32_t blocks, latency_us;
    bool mapped_doorbell;
    TsDiskPoint die_at;
    /* Thread only */
    unsigned die_after;
    uint8_t *content;
    bool recovered;             /* no slot is in between */
    bool wait_mem;
    int64_t next;
};

/* Stores of ours stay in their order, and so do those before a kill. */
#define STORE(where, value) \
    __atomic_store_n(&(where), (value), __ATOMIC_RELEASE)

static DiskRegs *disk_regs(TestServer *s)
{
    return ts_region_mem(s, 0);
}

static DiskPrivate *disk_private(TestServer *s)
{
    return ts_region_mem(s, DISK_PRIVATE);
}

static int disk_access(TestServer *s, unsigned region, uint64_t offset,
                       void *data, uint32_t len, bool write, void *opaque);

void ts_add_disk(TestServer *s, const TsDiskOptions *o)
{
    g_assert(!s->disk && !s->started && o->blocks <= DISK_MAX_BLOCKS);
    s->disk = g_new0(struct TsDisk, 1);
    s->disk->file = g_strdup(o->file);
    s->disk->blocks = o->blocks ?: 256;
    s->disk->latency_us = o->latency_us ?: 100;
    s->disk->mapped_doorbell = o->mapped_doorbell;
    s->disk->die_at = o->die_at;
    s->disk->die_after = o->die_after;
    ts_config_id(s, DISK_VENDOR, DISK_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0)->access = disk_access;
    if (o->mapped_doorbell) {
        ts_add_bar(s, 2, 0x1000, 0)->flags |= VFIO_USER_REGION_MMAP;
    }
    ts_add_bar(s, 4, 0x1000, 0);
    ts_add_msix(s, 1, 4, 0, 4, 0x800);
    ts_region(s, DISK_PRIVATE, sizeof(DiskPrivate), 0);
}

static int disk_open(struct TsDisk *d)
{
    size_t len = (size_t)d->blocks * DISK_BLOCK;
    int fd, err = 0;

    fd = d->file ? open(d->file, O_RDWR | O_CREAT | O_CLOEXEC, 0600)
                 : memfd_create("ts-disk", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, len)) {
        err = errno;
    } else {
        d->content = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                          0);
        if (d->content == MAP_FAILED) {
            d->content = NULL;
            err = errno;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

int ts_disk_start(TestServer *s)
{
    DiskRegs *r;
    int err;

    if (!s->disk) {
        return 0;
    }
    err = disk_open(s->disk);
    if (err) {
        return err;
    }
    r = disk_regs(s);
    r->blocks = s->disk->blocks;
    r->starts = ts_nr_starts(s);
    for (unsigned i = 0; i < DISK_SLOTS; i++) {
        r->resumed += disk_private(s)->slots[i].busy != 0;
    }
    STORE(r->id, DISK_MAGIC);
    return 0;
}

void ts_disk_free(TestServer *s)
{
    if (s->disk) {
        if (s->disk->content) {
            munmap(s->disk->content, (size_t)s->disk->blocks * DISK_BLOCK);
        }
        g_free(s->disk->file);
        g_free(s->disk);
    }
}

/* --- Registers --- */

/* ENABLE is clear: whatever was open is forgotten. */
static void disk_forget_locked(TestServer *s)
{
    DiskRegs *r = disk_regs(s);

    STORE(r->control, 0);
    memset(disk_private(s), 0, sizeof(DiskPrivate));
    r->doorbell = r->taken = r->used = 0;
    if (s->disk->mapped_doorbell) {
        memset(ts_region_mem(s, 2), 0, sizeof(uint32_t));
    }
    s->disk->wait_mem = false;
}

void ts_disk_reset(TestServer *s)
{
    if (s->disk) {
        DiskRegs *r = disk_regs(s);

        ts_lock(s);
        disk_forget_locked(s);
        r->requests = r->completions = 0;
        r->entries = r->raised = r->lost = r->scratch = 0;
        ts_changed_locked(s);
        ts_unlock(s);
    }
}

static void disk_write_locked(TestServer *s, unsigned offset, uint32_t value)
{
    DiskRegs *r = disk_regs(s);
    bool enabled = r->control & DISK_CONTROL_ENABLE;

    switch (offset) {
    case DISK_CONTROL:
        if (!(value & DISK_CONTROL_ENABLE)) {
            disk_forget_locked(s);
        } else if (r->entries) {
            STORE(r->control, DISK_CONTROL_ENABLE);
        }
        break;
    case DISK_REQUESTS ... DISK_COMPLETIONS + 4:
        if (!enabled) {
            memcpy((uint8_t *)r + offset, &value, sizeof(value));
        }
        break;
    case DISK_ENTRIES:
        if (!enabled && value <= DISK_MAX_ENTRIES && !(value & (value - 1))) {
            r->entries = value;
        }
        break;
    case DISK_DOORBELL:
        r->doorbell = value;
        break;
    case DISK_SCRATCH:
        r->scratch = value;
        break;
    default:
        break;
    }
}

static uint32_t disk_reg(TestServer *s, unsigned offset)
{
    uint32_t value = 0;

    if (offset == DISK_STATUS) {
        return (s->disk->wait_mem ? DISK_STATUS_WAIT_MEM : 0) |
               (s->config[CONFIG_COMMAND] & COMMAND_MASTER
                ? 0 : DISK_STATUS_NO_MASTER);
    }
    if (offset + 4 <= sizeof(DiskRegs)) {
        memcpy(&value, (uint8_t *)disk_regs(s) + offset, sizeof(value));
    }
    return value;
}

static int disk_access(TestServer *s, unsigned region, uint64_t offset,
                       void *data, uint32_t len, bool write, void *opaque)
{
    (void)region;
    (void)opaque;
    if ((len != 4 && len != 8) || offset % 4) {
        return EINVAL;
    }
    ts_lock(s);
    for (uint32_t i = 0; i < len; i += 4) {
        uint32_t value;

        if (write) {
            memcpy(&value, (uint8_t *)data + i, sizeof(value));
            disk_write_locked(s, offset + i, value);
        } else {
            value = disk_reg(s, offset + i);
            memcpy((uint8_t *)data + i, &value, sizeof(value));
        }
    }
    ts_changed_locked(s);
    ts_unlock(s);
    return 0;
}

uint32_t ts_disk_reg(TestServer *s, unsigned offset)
{
    uint32_t value;

    ts_lock(s);
    value = disk_reg(s, offset);
    ts_unlock(s);
    return value;
}

bool ts_disk_wait(TestServer *s, unsigned offset, uint32_t value)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && disk_reg(s, offset) < value) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

/* --- Work --- */

static bool disk_may_work(TestServer *s)
{
    return s->disk && s->negotiated &&
           disk_regs(s)->control & DISK_CONTROL_ENABLE &&
           s->config[CONFIG_COMMAND] & COMMAND_MASTER;
}

static uint32_t disk_doorbell(TestServer *s)
{
    uint32_t *where = s->disk->mapped_doorbell ? ts_region_mem(s, 2)
                                               : &disk_regs(s)->doorbell;

    return __atomic_load_n(where, __ATOMIC_ACQUIRE);
}

/* A busy slot, any one of them; NULL: all are free. */
static DiskSlot *disk_pick(TestServer *s)
{
    DiskSlot *busy[DISK_SLOTS];
    unsigned nr = 0;

    for (unsigned i = 0; i < DISK_SLOTS; i++) {
        DiskSlot *slot = &disk_private(s)->slots[i];

        if (slot->busy) {
            busy[nr++] = slot;
        }
    }
    return nr ? busy[g_random_int_range(0, nr)] : NULL;
}

int64_t ts_disk_due(TestServer *s, int64_t now)
{
    if (!disk_may_work(s)) {
        return INT64_MAX;
    }
    if (disk_regs(s)->taken != disk_doorbell(s) || disk_pick(s)) {
        return MAX(s->disk->next, now);
    }
    return s->disk->mapped_doorbell ? now + DISK_POLL_US : INT64_MAX;
}

static void disk_point(TestServer *s, TsDiskPoint point)
{
    if (s->disk->die_at == point && s->disk->die_after-- == 0) {
        kill(getpid(), SIGKILL);
    }
}

static uint64_t disk_entry(TestServer *s, uint32_t index)
{
    DiskRegs *r = disk_regs(s);

    return r->completions + index % r->entries * sizeof(DiskCompletion);
}

static void disk_commit(TestServer *s, DiskSlot *slot, uint32_t used)
{
    DiskRegs *r = disk_regs(s);

    ts_lock(s);
    STORE(slot->busy, 0);
    disk_point(s, TS_DISK_FREED);
    STORE(r->used, used);
    disk_point(s, TS_DISK_USED);
    STORE(disk_private(s)->publishing, 0);
    ts_changed_locked(s);
    ts_unlock(s);
}

/* What a server that was killed left half done. 0, or an errno of DMA. */
static int disk_recover(TestServer *s)
{
    DiskPrivate *p = disk_private(s);
    DiskRegs *r = disk_regs(s);
    DiskCompletion c;
    int err = 0;

    for (unsigned i = 0; i < DISK_SLOTS; i++) {
        if (p->slots[i].busy && p->slots[i].index == r->taken) {
            STORE(r->taken, r->taken + 1);
        }
    }
    if (p->publishing) {
        DiskSlot *slot = &p->slots[p->publishing - 1];

        err = ts_dma_read(s, disk_entry(s, r->used), &c, sizeof(c),
                          TS_DMA_ANY);
        if (!err && c.seq == r->used + 1) {
            disk_commit(s, slot, c.seq);
        } else if (!err) {
            STORE(p->publishing, 0);
        }
    }
    s->disk->recovered = !err;
    return err;
}

/* Takes requests while there are any, and slots that are free. */
static int disk_take(TestServer *s)
{
    DiskRegs *r = disk_regs(s);
    int err = 0;

    for (unsigned i = 0; i < DISK_SLOTS && !err; i++) {
        DiskSlot *slot = &disk_private(s)->slots[i];

        if (slot->busy || r->taken == disk_doorbell(s)) {
            continue;
        }
        err = ts_dma_read(s, r->requests + r->taken % r->entries *
                          sizeof(DiskRequest), &slot->request,
                          sizeof(slot->request), TS_DMA_ANY);
        if (!err) {
            slot->index = r->taken;
            STORE(slot->busy, 1);
            disk_point(s, TS_DISK_BUSY);
            STORE(r->taken, r->taken + 1);
            disk_point(s, TS_DISK_TAKEN);
        }
    }
    return err;
}

/* 0 and the request's @status, or an errno of DMA: try again. */
static int disk_execute(TestServer *s, const DiskRequest *q, uint32_t *status)
{
    uint8_t *block;

    if (q->block >= s->disk->blocks ||
        (q->op != DISK_READ && q->op != DISK_WRITE)) {
        *status = EINVAL;
        return 0;
    }
    *status = 0;
    block = s->disk->content + q->block * DISK_BLOCK;
    return q->op == DISK_READ ?
           ts_dma_write(s, q->addr, block, DISK_BLOCK, TS_DMA_ANY) :
           ts_dma_read(s, q->addr, block, DISK_BLOCK, TS_DMA_ANY);
}

static int disk_publish(TestServer *s, DiskSlot *slot, uint32_t status)
{
    DiskPrivate *p = disk_private(s);
    DiskRegs *r = disk_regs(s);
    DiskCompletion c = {
        slot->request.tag, status, slot->index, r->used + 1,
    };
    uint64_t at = disk_entry(s, r->used);
    int err;

    disk_point(s, TS_DISK_EXECUTED);
    STORE(p->publishing, slot - p->slots + 1);
    disk_point(s, TS_DISK_PUBLISHING);
    err = ts_dma_write(s, at, &c, offsetof(DiskCompletion, seq), TS_DMA_ANY);
    if (!err) {
        disk_point(s, TS_DISK_ENTRY);
        err = ts_dma_write(s, at + offsetof(DiskCompletion, seq), &c.seq,
                           sizeof(c.seq), TS_DMA_ANY);
    }
    if (err) {
        /* By message it may have arrived all the same. */
        s->disk->recovered = false;
        return err;
    }
    disk_point(s, TS_DISK_PUBLISHED);
    disk_commit(s, slot, c.seq);
    disk_point(s, TS_DISK_COMMITTED);
    err = ts_irq_trigger(s, VFIO_USER_IRQ_MSIX, 0);
    r->raised++;
    r->lost += err == ENOENT;
    return 0;
}

static int disk_turn(TestServer *s)
{
    int err = s->disk->recovered ? 0 : disk_recover(s);
    DiskSlot *slot;
    uint32_t status;

    if (!err) {
        err = disk_take(s);
    }
    slot = disk_pick(s);
    if (!err && slot) {
        err = disk_execute(s, &slot->request, &status);
        if (!err) {
            err = disk_publish(s, slot, status);
        }
    }
    return err;
}

void ts_disk_work(TestServer *s)
{
    int64_t now = g_get_monotonic_time();
    int err;

    if (ts_disk_due(s, now) > now) {
        return;
    }
    err = disk_turn(s);
    ts_lock(s);
    s->disk->wait_mem = err != 0;
    s->disk->next = now + (err ? DISK_RETRY_US : s->disk->latency_us);
    ts_changed_locked(s);
    ts_unlock(s);
}
