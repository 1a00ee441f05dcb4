/*
 * vfio-user test server: a driver of the disk that checks every block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A block's content follows from its number and from how often it has been
 * written; version 0 is zeros. No two requests for the same block are open at
 * a time, so its version is always known.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "disk-driver.h"
#include "engine.h"

#define SEED            0x6b736964u
#define ENTRIES         64
#define AT_REQUESTS     0x0000
#define AT_COMPLETIONS  0x4000
#define AT_BUFFERS      0x10000
#define POISON          0xa5
#define WORDS           (DISK_BLOCK / 8)

typedef struct Tag {
    bool busy;
    uint32_t op;
    uint32_t request;           /* index in the ring */
    uint32_t block;
    uint64_t version;           /* read: expected; write: written */
} Tag;

struct DiskDriver {
    const DiskDriverOps *ops;
    void *opaque;
    uint64_t mem;
    GRand *rand;
    uint64_t versions[DISK_DRIVER_BLOCKS];
    bool locked[DISK_DRIVER_BLOCKS];
    Tag tags[DISK_DRIVER_TAGS];
    uint32_t submitted, seen;   /* indices of the rings */
    unsigned nr_open;
    uint32_t next_read;
    uint64_t nr_done;
};

static void fill_block(uint64_t *words, uint32_t block, uint64_t version)
{
    for (unsigned i = 0; i < WORDS; i++) {
        words[i] = version ? engine_word(SEED, block, version, i) : 0;
    }
}

static void check_block(const uint64_t *words, uint32_t block,
                        uint64_t version, const char *where)
{
    uint64_t expected[WORDS];

    fill_block(expected, block, version);
    if (memcmp(words, expected, sizeof(expected))) {
        g_error("block %u %s: version %" G_GUINT64_FORMAT " expected; words "
                "that tell block, version: %" G_GUINT64_FORMAT ", %"
                G_GUINT64_FORMAT, block, where, version, words[0], words[1]);
    }
}

DiskDriver *disk_driver_new(const DiskDriverOps *ops, void *opaque,
                            uint64_t mem)
{
    DiskDriver *d = g_new0(DiskDriver, 1);
    uint8_t poison[DISK_BLOCK];

    d->ops = ops;
    d->opaque = opaque;
    d->mem = mem;
    d->rand = g_rand_new_with_seed(g_test_rand_int());
    memset(poison, POISON, sizeof(poison));
    for (unsigned i = 0; i < DISK_DRIVER_TAGS; i++) {
        ops->mem_write(opaque, mem + AT_BUFFERS + i * DISK_BLOCK, poison,
                       sizeof(poison));
    }
    return d;
}

void disk_driver_free(DiskDriver *d)
{
    g_rand_free(d->rand);
    g_free(d);
}

static uint64_t buffer_of(DiskDriver *d, unsigned tag)
{
    return d->mem + AT_BUFFERS + tag * DISK_BLOCK;
}

static void put64(DiskDriver *d, unsigned offset, uint64_t value)
{
    d->ops->reg_write(d->opaque, offset, value);
    d->ops->reg_write(d->opaque, offset + 4, value >> 32);
}

/* The tag's request takes the next place in the ring. */
static void submit_tag(DiskDriver *d, unsigned i)
{
    Tag *tag = &d->tags[i];
    DiskRequest q = {
        .op = tag->op,
        .tag = i,
        .block = tag->block,
        .addr = buffer_of(d, i),
    };

    tag->request = d->submitted++;
    d->ops->mem_write(d->opaque, d->mem + AT_REQUESTS +
                      tag->request % ENTRIES * sizeof(q), &q, sizeof(q));
}

/* Nothing may have touched a buffer since its last request's completion. */
static void check_poison(DiskDriver *d, unsigned tag)
{
    uint8_t bytes[DISK_BLOCK];

    d->ops->mem_read(d->opaque, buffer_of(d, tag), bytes, sizeof(bytes));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        if (bytes[i] != POISON) {
            g_error("buffer %u was written to after its completion", tag);
        }
    }
}

static void open_request(DiskDriver *d, uint32_t op, uint32_t block)
{
    uint64_t words[WORDS];
    unsigned i = 0;
    Tag *tag;

    while (d->tags[i].busy) {
        i++;
    }
    g_assert(i < DISK_DRIVER_TAGS && !d->locked[block]);
    check_poison(d, i);
    tag = &d->tags[i];
    *tag = (Tag) { true, op, 0, block, d->versions[block] };
    d->locked[block] = true;
    d->nr_open++;
    if (op == DISK_WRITE) {
        tag->version++;
        fill_block(words, block, tag->version);
        d->ops->mem_write(d->opaque, buffer_of(d, i), words, sizeof(words));
    }
    submit_tag(d, i);
}

void disk_driver_start(DiskDriver *d)
{
    uint8_t zeros[ENTRIES * sizeof(DiskCompletion)] = { 0 };

    d->ops->reg_write(d->opaque, DISK_CONTROL, 0);
    d->ops->mem_write(d->opaque, d->mem + AT_COMPLETIONS, zeros,
                      sizeof(zeros));
    d->submitted = d->seen = 0;
    put64(d, DISK_REQUESTS, d->mem + AT_REQUESTS);
    put64(d, DISK_COMPLETIONS, d->mem + AT_COMPLETIONS);
    d->ops->reg_write(d->opaque, DISK_ENTRIES, ENTRIES);
    d->ops->reg_write(d->opaque, DISK_CONTROL, DISK_CONTROL_ENABLE);
    for (unsigned i = 0; i < DISK_DRIVER_TAGS; i++) {
        if (d->tags[i].busy) {
            submit_tag(d, i);
        }
    }
    disk_driver_ring(d);
}

void disk_driver_ring(DiskDriver *d)
{
    d->ops->ring(d->opaque, d->submitted);
}

void disk_driver_fill(DiskDriver *d)
{
    bool any = false;

    while (d->nr_open < DISK_DRIVER_TAGS) {
        uint32_t block = g_rand_int_range(d->rand, 0, DISK_DRIVER_BLOCKS);

        if (!d->locked[block]) {
            open_request(d, g_rand_boolean(d->rand) ? DISK_READ : DISK_WRITE,
                         block);
            any = true;
        }
    }
    if (any) {
        disk_driver_ring(d);
    }
}

bool disk_driver_read_on(DiskDriver *d)
{
    bool any = false;

    while (d->nr_open < DISK_DRIVER_TAGS &&
           d->next_read < DISK_DRIVER_BLOCKS &&
           !d->locked[d->next_read]) {
        open_request(d, DISK_READ, d->next_read++);
        any = true;
    }
    if (any) {
        disk_driver_ring(d);
    }
    return d->next_read < DISK_DRIVER_BLOCKS || d->nr_open;
}

static void complete(DiskDriver *d, const DiskCompletion *c)
{
    Tag *tag = &d->tags[c->tag % DISK_DRIVER_TAGS];
    uint64_t words[WORDS];
    uint8_t poison[DISK_BLOCK];

    g_assert_cmpuint(c->tag, <, DISK_DRIVER_TAGS);
    if (!tag->busy || c->request != tag->request || c->status) {
        g_error("completion %u: tag %u of request %u (%s, %u expected), "
                "status %u", c->seq, c->tag, c->request,
                tag->busy ? "open" : "not open", tag->request, c->status);
    }
    d->ops->mem_read(d->opaque, buffer_of(d, c->tag), words, sizeof(words));
    check_block(words, tag->block, tag->version,
                tag->op == DISK_READ ? "as read" : "in its buffer");
    d->versions[tag->block] = tag->version;
    d->locked[tag->block] = false;
    tag->busy = false;
    d->nr_open--;
    d->nr_done++;
    memset(poison, POISON, sizeof(poison));
    d->ops->mem_write(d->opaque, buffer_of(d, c->tag), poison,
                      sizeof(poison));
}

unsigned disk_driver_poll(DiskDriver *d)
{
    unsigned nr = 0;

    while (d->nr_open) {
        uint64_t at = d->mem + AT_COMPLETIONS +
                      d->seen % ENTRIES * sizeof(DiskCompletion);
        DiskCompletion c;

        /* What stands before the sequence number was written before it. */
        d->ops->mem_read(d->opaque, at + offsetof(DiskCompletion, seq),
                         &c.seq, sizeof(c.seq));
        if (c.seq != d->seen + 1) {
            break;
        }
        d->ops->mem_read(d->opaque, at, &c, offsetof(DiskCompletion, seq));
        complete(d, &c);
        d->seen++;
        nr++;
    }
    return nr;
}

unsigned disk_driver_nr_open(DiskDriver *d)
{
    return d->nr_open;
}

uint64_t disk_driver_nr_done(DiskDriver *d)
{
    return d->nr_done;
}

void disk_driver_check(DiskDriver *d, const void *content)
{
    uint64_t words[WORDS];

    g_assert_cmpuint(d->nr_open, ==, 0);
    for (uint32_t i = 0; i < DISK_DRIVER_BLOCKS; i++) {
        memcpy(words, (const uint8_t *)content + i * DISK_BLOCK,
               sizeof(words));
        check_block(words, i, d->versions[i], "on the disk");
    }
}
