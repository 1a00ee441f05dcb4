/*
 * vfio-user test server: the engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * engine.h says what the device does. Its registers are one struct, which is
 * also its migrated state and what the guest sees of them, byte by byte, so
 * none can be forgotten. The engine works on the server's thread in slices
 * short enough that a message does not notice. What is due follows from the
 * clock and is not state: after a pause it goes on with the next page, and
 * does not make up for the time.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "mig-internal.h"

#define ENGINE_SLICE_PAGES  64
#define ENGINE_SLICE_US     1000
#define ENGINE_RETRY_US     5000    /* until memory may be there */
#define ENGINE_LATE_US      10000   /* more than this is not made up for */
#define ENGINE_MIN_TIMER_US 1000

#define CONFIG_COMMAND      0x04
#define COMMAND_MASTER      0x04

/* As BAR0 shows it. */
typedef struct EngineRegs {
    uint32_t id, control, status, error;
    uint64_t counter;
    uint64_t buffer, size, seed;
    uint64_t generation, position;
    uint32_t rate, batch, batch_nr, ack;
    uint32_t timer_us, timer_seq;
    uint32_t reserved0[2];
    uint32_t raised[ENGINE_VECTORS], lost[ENGINE_VECTORS];
    uint64_t waited;
    uint64_t in_batch;      /* pages of the present batch; not in engine.h */
    uint64_t reserved1[6];
    uint32_t scratch[ENGINE_NR_SCRATCH];
} EngineRegs;

#define ENGINE_REG_AT(field, offset) \
    _Static_assert(offsetof(EngineRegs, field) == (offset), #field)
ENGINE_REG_AT(status, ENGINE_STATUS);
ENGINE_REG_AT(counter, ENGINE_COUNTER);
ENGINE_REG_AT(seed, ENGINE_SEED);
ENGINE_REG_AT(position, ENGINE_POSITION);
ENGINE_REG_AT(ack, ENGINE_ACK);
ENGINE_REG_AT(timer_seq, ENGINE_TIMER_SEQ);
ENGINE_REG_AT(raised, ENGINE_RAISED(0));
ENGINE_REG_AT(lost, ENGINE_LOST(0));
ENGINE_REG_AT(waited, ENGINE_WAITED);
ENGINE_REG_AT(scratch, ENGINE_SCRATCH(0));

struct TsEngine {
    uint32_t batch, rate;   /* description: reset values */
    /* Under the lock; regs.status is made when it is read */
    EngineRegs regs;
    bool wait_mem;          /* no window for the next page */
    /* Thread only, monotonic us */
    double next_page;
    int64_t next_tick;
};

static int engine_access(TestServer *s, unsigned region, uint64_t offset,
                         void *data, uint32_t len, bool write, void *opaque);

void ts_engine_reset(TestServer *s)
{
    struct TsEngine *e = s->engine;

    if (e) {
        ts_lock(s);
        e->regs = (EngineRegs) {
            .id = ENGINE_MAGIC,
            .batch = e->batch,
            .rate = e->rate,
            .timer_us = 10000,
            .generation = 1,
        };
        e->wait_mem = false;
        ts_changed_locked(s);
        ts_unlock(s);
    }
}

void ts_add_engine(TestServer *s, uint32_t batch, uint32_t rate)
{
    g_assert(!s->engine && !s->started && batch);
    s->engine = g_new0(struct TsEngine, 1);
    s->engine->batch = batch;
    s->engine->rate = rate;
    ts_engine_reset(s);
    ts_config_id(s, ENGINE_VENDOR, ENGINE_DEVICE, 0xff0000, 1);
    ts_add_bar(s, 0, 0x1000, 0)->access = engine_access;
    ts_add_bar(s, 4, 0x1000, 0);
    ts_add_msix(s, ENGINE_VECTORS, 4, 0, 4, 0x800);
}

void ts_engine_free(TestServer *s)
{
    g_free(s->engine);
}

/* --- Registers --- */

static uint32_t engine_status(TestServer *s)
{
    const EngineRegs *r = &s->engine->regs;
    uint32_t status = r->control & ENGINE_CONTROL_RUN ? ENGINE_STATUS_RUN : 0;

    if (status && !r->in_batch && !(r->control & ENGINE_CONTROL_NO_ACK) &&
        r->ack != r->batch_nr) {
        status |= ENGINE_STATUS_WAIT_ACK;
    }
    if (status && s->engine->wait_mem) {
        status |= ENGINE_STATUS_WAIT_MEM;
    }
    if (!(s->config[CONFIG_COMMAND] & COMMAND_MASTER)) {
        status |= ENGINE_STATUS_NO_MASTER;
    }
    return status | (r->error ? ENGINE_STATUS_ERROR : 0);
}

static void engine_rewind(EngineRegs *r)
{
    r->generation = 1;
    r->position = 0;
    r->in_batch = 0;
    r->ack = r->batch_nr;
}

static void engine_set_half(uint64_t *reg, unsigned offset, uint32_t value)
{
    memcpy((uint8_t *)reg + (offset & 4), &value, sizeof(value));
}

/* Registers that describe the buffer. */
static void engine_write_buffer(EngineRegs *r, unsigned offset,
                                uint32_t value)
{
    if (r->control & ENGINE_CONTROL_RUN) {
        return;
    }
    engine_set_half((uint64_t *)(void *)((uint8_t *)r + (offset & ~7u)),
                    offset, value);
    r->buffer &= ~(uint64_t)(ENGINE_PAGE - 1);
    r->size &= ~(uint64_t)(ENGINE_PAGE - 1);
    r->size = MIN(r->size, ENGINE_MAX_BUFFER);
    engine_rewind(r);
}

static void engine_write_control(struct TsEngine *e, uint32_t value)
{
    int64_t now = g_get_monotonic_time();
    uint32_t set = value & ~e->regs.control;

    if (set & ENGINE_CONTROL_RUN) {
        e->regs.error = 0;
        e->next_page = now;
    }
    if (set & ENGINE_CONTROL_TIMER) {
        e->next_tick = now + e->regs.timer_us;
    }
    e->regs.control = value & (ENGINE_CONTROL_RUN | ENGINE_CONTROL_TIMER |
                               ENGINE_CONTROL_NO_ACK);
}

static void engine_write_locked(TestServer *s, unsigned offset,
                                uint32_t value)
{
    EngineRegs *r = &s->engine->regs;

    switch (offset) {
    case ENGINE_CONTROL:
        engine_write_control(s->engine, value);
        break;
    case ENGINE_BUFFER ... ENGINE_SEED + 4:
        engine_write_buffer(r, offset, value);
        break;
    case ENGINE_RATE:
        r->rate = value;
        break;
    case ENGINE_BATCH:
        r->batch = MAX(value, 1);
        break;
    case ENGINE_ACK:
        r->ack = value;
        break;
    case ENGINE_TIMER_US:
        r->timer_us = MAX(value, ENGINE_MIN_TIMER_US);
        break;
    case ENGINE_SCRATCH(0) ... ENGINE_SCRATCH(ENGINE_NR_SCRATCH - 1):
        r->scratch[(offset - ENGINE_SCRATCH(0)) / 4] = value;
        break;
    default:
        break;
    }
}

static uint64_t engine_reg_locked(TestServer *s, unsigned offset,
                                  unsigned width)
{
    EngineRegs regs = s->engine->regs;
    uint64_t value = 0;

    regs.status = engine_status(s);
    if (offset < sizeof(regs)) {
        memcpy(&value, (uint8_t *)&regs + offset, width);
    }
    return value;
}

static int engine_access(TestServer *s, unsigned region, uint64_t offset,
                         void *data, uint32_t len, bool write, void *opaque)
{
    (void)region;
    (void)opaque;
    if ((len != 4 && len != 8) || offset % len) {
        return EINVAL;
    }
    ts_lock(s);
    if (!write) {
        uint64_t value = engine_reg_locked(s, offset, len);

        memcpy(data, &value, len);
    } else {
        for (uint32_t i = 0; i < len; i += 4) {
            uint32_t value;

            memcpy(&value, (uint8_t *)data + i, sizeof(value));
            engine_write_locked(s, offset + i, value);
        }
        ts_changed_locked(s);
    }
    ts_unlock(s);
    return 0;
}

uint64_t ts_engine_reg(TestServer *s, unsigned offset, unsigned width)
{
    uint64_t value;

    ts_lock(s);
    value = engine_reg_locked(s, offset, width);
    ts_unlock(s);
    return value;
}

bool ts_engine_wait(TestServer *s, unsigned offset, unsigned width,
                    uint64_t value)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && engine_reg_locked(s, offset, width) < value) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

/* --- Work --- */

static bool engine_may_work(TestServer *s)
{
    return s->engine && s->negotiated && ts_mig_running(s);
}

static bool engine_may_write(TestServer *s)
{
    const EngineRegs *r = &s->engine->regs;

    return r->rate && r->size && (engine_status(s) &
                                  ~ENGINE_STATUS_WAIT_MEM) ==
           ENGINE_STATUS_RUN;
}

int64_t ts_engine_due(TestServer *s, int64_t now)
{
    int64_t due = INT64_MAX;

    if (!engine_may_work(s)) {
        return due;
    }
    if (s->engine->regs.control & ENGINE_CONTROL_TIMER) {
        due = s->engine->next_tick;
    }
    if (engine_may_write(s)) {
        due = MIN(due, (int64_t)s->engine->next_page);
    }
    return MAX(due, now);
}

static void engine_raise(TestServer *s, unsigned vector)
{
    int err = ts_irq_trigger(s, VFIO_USER_IRQ_MSIX, vector);

    ts_lock(s);
    s->engine->regs.raised[vector]++;
    s->engine->regs.lost[vector] += err == ENOENT;
    ts_changed_locked(s);
    ts_unlock(s);
}

static void engine_tick(TestServer *s, int64_t now)
{
    struct TsEngine *e = s->engine;

    ts_lock(s);
    e->regs.timer_seq++;
    e->regs.counter++;
    e->next_tick += e->regs.timer_us;
    if (now - e->next_tick > ENGINE_LATE_US) {
        e->next_tick = now + e->regs.timer_us;
    }
    ts_changed_locked(s);
    ts_unlock(s);
    engine_raise(s, ENGINE_VECTOR_TIMER);
}

static int engine_write_page(TestServer *s)
{
    const EngineRegs *r = &s->engine->regs;
    uint64_t page[ENGINE_PAGE / 8];

    for (unsigned i = 0; i < G_N_ELEMENTS(page); i++) {
        page[i] = GUINT64_TO_LE(engine_word(r->seed, r->position,
                                            r->generation, i));
    }
    return ts_dma_write(s, r->buffer + r->position * ENGINE_PAGE, page,
                        sizeof(page), TS_DMA_ANY);
}

/* The page was written; true if it was the last one of its batch. */
static bool engine_advance(TestServer *s)
{
    EngineRegs *r = &s->engine->regs;
    bool complete;

    ts_lock(s);
    s->engine->wait_mem = false;
    if (++r->position == r->size / ENGINE_PAGE) {
        r->position = 0;
        r->generation++;
    }
    complete = ++r->in_batch >= r->batch;
    if (complete) {
        r->in_batch = 0;
        r->batch_nr++;
        r->counter++;
    }
    ts_changed_locked(s);
    ts_unlock(s);
    return complete;
}

/* The page was not written; what that means for the engine. */
static void engine_stumble(TestServer *s, int err, int64_t now)
{
    struct TsEngine *e = s->engine;

    if (err == ENOTCONN) {
        return;     /* the same page again, for the next client */
    }
    ts_lock(s);
    if (err == EFAULT) {
        e->regs.waited += !e->wait_mem;
        e->wait_mem = true;
        e->next_page = now + ENGINE_RETRY_US;
    } else {
        e->regs.error = err;
        e->regs.control &= ~ENGINE_CONTROL_RUN;
    }
    ts_changed_locked(s);
    ts_unlock(s);
}

static void engine_write_slice(TestServer *s, int64_t now)
{
    struct TsEngine *e = s->engine;
    int64_t end = now + ENGINE_SLICE_US;

    if (e->next_page < now - ENGINE_LATE_US) {
        e->next_page = now;
    }
    for (unsigned i = 0; i < ENGINE_SLICE_PAGES && e->next_page <= now &&
         engine_may_write(s) && g_get_monotonic_time() < end; i++) {
        int err = engine_write_page(s);

        if (err) {
            engine_stumble(s, err, now);
            return;
        }
        e->next_page += 1e6 / e->regs.rate;
        if (engine_advance(s)) {
            engine_raise(s, ENGINE_VECTOR_BATCH);
        }
    }
}

void ts_engine_work(TestServer *s)
{
    int64_t now = g_get_monotonic_time();

    if (!engine_may_work(s)) {
        return;
    }
    if ((s->engine->regs.control & ENGINE_CONTROL_TIMER) &&
        s->engine->next_tick <= now) {
        engine_tick(s, now);
    }
    if (engine_may_write(s)) {
        engine_write_slice(s, now);
    }
}

/* --- Migration --- */

size_t ts_engine_state_len(TestServer *s)
{
    return s->engine ? sizeof(EngineRegs) : 0;
}

void ts_engine_save(TestServer *s, GByteArray *blob)
{
    g_byte_array_append(blob, (guint8 *)&s->engine->regs,
                        sizeof(s->engine->regs));
}

bool ts_engine_load(TestServer *s, const GByteArray *blob)
{
    EngineRegs regs;

    if (blob->len != sizeof(regs)) {
        return false;
    }
    memcpy(&regs, blob->data, sizeof(regs));
    if (regs.id != ENGINE_MAGIC || !regs.batch ||
        regs.size > ENGINE_MAX_BUFFER || regs.size % ENGINE_PAGE ||
        regs.buffer % ENGINE_PAGE ||
        (regs.size && regs.position >= regs.size / ENGINE_PAGE)) {
        return false;
    }
    ts_lock(s);
    s->engine->regs = regs;
    s->engine->wait_mem = false;
    s->engine->next_page = g_get_monotonic_time();
    s->engine->next_tick = s->engine->next_page + regs.timer_us;
    ts_changed_locked(s);
    ts_unlock(s);
    return true;
}

/* --- Checking --- */

static bool engine_page_is(const uint64_t *page, uint64_t seed,
                           uint64_t index, uint64_t generation)
{
    for (unsigned i = 0; i < ENGINE_PAGE / 8; i++) {
        if (page[i] != GUINT64_TO_LE(engine_word(seed, index, generation,
                                                 i))) {
            return false;
        }
    }
    return true;
}

static void engine_check(TestServer *s, void *opaque)
{
    const EngineRegs *r = &s->engine->regs;
    uint64_t page[ENGINE_PAGE / 8];
    int *bad = opaque;

    for (uint64_t i = 0; i < r->size / ENGINE_PAGE; i++) {
        uint64_t generation = r->generation - (i >= r->position);

        if (ts_dma_read(s, r->buffer + i * ENGINE_PAGE, page, sizeof(page),
                        TS_DMA_ANY)) {
            *bad = -1;
            return;
        }
        *bad += generation && !engine_page_is(page, r->seed, i, generation);
    }
}

int ts_engine_check(TestServer *s)
{
    int bad = 0;

    return ts_run(s, engine_check, &bad) ? bad : -1;
}
