/*
 * vfio-user test server: state that outlives the process
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One file has a header, config space and each region's memory, mapped shared:
 * whatever a server stored before it was killed is there for the next one,
 * in the order in which it was stored. The header's magic is written when the
 * rest has been, so a file that was not finished begins anew.
 *
 * A region that clients may map lies in the same file, at an offset. So what a
 * client still holds of it is also the next server's.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"
#include "server-disk.h"

#define STATE_MAGIC     0x3145544154535354ull   /* "TSSTATE1" */
#define STATE_PAGE      4096u
#define CONFIG_SIZE     4096u

typedef struct StateHeader {
    uint64_t magic;
    uint64_t description;       /* what state_description() said */
    uint64_t starts;
} StateHeader;

struct TsState {
    char *path;
    int fd;
    uint8_t *base;              /* the whole file; NULL before start */
    uint64_t size;
};

void ts_keep_state(TestServer *s, const char *file)
{
    g_assert(!s->state && !s->started);
    s->state = g_new0(struct TsState, 1);
    s->state->path = g_strdup(file);
    s->state->fd = -1;
}

unsigned ts_nr_starts(TestServer *s)
{
    return s->state ? ((StateHeader *)(void *)s->state->base)->starts : 1;
}

/* Offset of region @index's memory, or of the file's end. */
static uint64_t state_offset(TestServer *s, unsigned index)
{
    uint64_t off = 2 * STATE_PAGE;

    for (unsigned i = 0; i < index; i++) {
        if (i != VFIO_USER_REGION_CONFIG) {
            off += (s->regions[i].size + STATE_PAGE - 1) &
                   ~(uint64_t)(STATE_PAGE - 1);
        }
    }
    return off;
}

static uint64_t state_mix(uint64_t hash, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3ull;
    }
    return hash;
}

static uint64_t state_description(TestServer *s)
{
    uint64_t hash = 0xcbf29ce484222325ull;

    hash = state_mix(hash, s->config, CONFIG_SIZE);
    hash = state_mix(hash, s->config_wmask, CONFIG_SIZE);
    for (unsigned i = 0; i < TS_NR_REGIONS; i++) {
        hash = state_mix(hash, &s->regions[i].size,
                         sizeof(s->regions[i].size));
        hash = state_mix(hash, &s->regions[i].flags,
                         sizeof(s->regions[i].flags));
    }
    return hash;
}

static int state_open(struct TsState *st)
{
    st->fd = open(st->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (st->fd < 0 || ftruncate(st->fd, st->size)) {
        return errno;
    }
    st->base = mmap(NULL, st->size, PROT_READ | PROT_WRITE, MAP_SHARED,
                    st->fd, 0);
    if (st->base == MAP_FAILED) {
        st->base = NULL;
        return errno;
    }
    return 0;
}

/* A file that is new, or was not finished, becomes what is described. */
static int state_begin(TestServer *s)
{
    StateHeader *h = (void *)s->state->base;
    uint64_t description = state_description(s);

    if (h->magic == STATE_MAGIC && h->description != description) {
        return ESTALE;
    }
    if (h->magic != STATE_MAGIC) {
        memcpy(s->state->base + STATE_PAGE, s->config, CONFIG_SIZE);
        for (unsigned i = 0; i < TS_NR_REGIONS; i++) {
            if (s->content[i]) {
                memcpy(s->state->base + state_offset(s, i),
                       s->content[i]->data,
                       MIN(s->content[i]->len, s->regions[i].size));
            }
        }
        h->description = description;
        h->starts = 0;
        __atomic_store_n(&h->magic, STATE_MAGIC, __ATOMIC_RELEASE);
    }
    h->starts++;
    return 0;
}

static int state_place_region(TestServer *s, unsigned index)
{
    TsRegion *r = &s->regions[index];
    uint64_t off = state_offset(s, index);

    r->mem = s->state->base + off;
    if (r->flags & VFIO_USER_REGION_MMAP) {
        r->fd_offset = off;
        r->fd = fcntl(s->state->fd, F_DUPFD_CLOEXEC, 0);
        return r->fd < 0 ? errno : 0;
    }
    return 0;
}

int ts_state_start(TestServer *s)
{
    int err;

    s->state->size = state_offset(s, TS_NR_REGIONS);
    err = state_open(s->state);
    if (!err) {
        err = state_begin(s);
    }
    if (err) {
        return err;
    }
    g_free(s->config);
    s->config = s->state->base + STATE_PAGE;
    s->regions[VFIO_USER_REGION_CONFIG].mem = s->config;
    for (unsigned i = 0; i < TS_NR_REGIONS && !err; i++) {
        if (s->regions[i].size && i != VFIO_USER_REGION_CONFIG) {
            err = state_place_region(s, i);
        }
    }
    return err;
}

bool ts_state_has(TestServer *s, const void *p)
{
    return s->state && s->state->base && (const uint8_t *)p >=
           s->state->base && (const uint8_t *)p < s->state->base +
                                                   s->state->size;
}

void ts_state_free(TestServer *s)
{
    if (!s->state) {
        return;
    }
    if (s->state->base) {
        munmap(s->state->base, s->state->size);
    }
    if (s->state->fd >= 0) {
        close(s->state->fd);
    }
    g_free(s->state->path);
    g_free(s->state);
}
