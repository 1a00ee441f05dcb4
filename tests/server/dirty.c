/*
 * vfio-user test server: what the device wrote to the client's memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * While logging is on each mapped window has a bitmap of its own, so a report
 * of exactly one window with the log's page size copies words. Windows without
 * a mapping have none: what is written there goes through the client, which
 * knows. Everything here runs on the server's thread; the bitmaps change under
 * the lock because tests look at them.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "mig-internal.h"

static TsWindow *dirty_window(TestServer *s, unsigned i)
{
    return &g_array_index(s->windows, TsWindow, i);
}

static uint64_t dirty_nr_bits(const TsWindow *w)
{
    return ((w->size - 1) >> w->dirty_shift) + 1;
}

static uint64_t dirty_nr_words(uint64_t bits)
{
    return (bits + 63) / 64;
}

static bool dirty_is_page_size(uint64_t size)
{
    return size >= 512 && !(size & (size - 1));
}

/* Whether one of START's ranges has a part of this. */
static bool dirty_in_ranges(TestServer *s, uint64_t addr, uint64_t len)
{
    const TsMigStats *st = &s->mig->stats;

    if (!s->mig->opt.honour_ranges || s->like_libvfio_user) {
        return true;
    }
    for (unsigned i = 0; i < MIN(st->nr_ranges, TS_MAX_RANGES); i++) {
        const struct vfio_user_dma_range *r = &st->ranges[i];

        if (addr <= r->iova + (r->length - 1) &&
            r->iova <= addr + (len - 1)) {
            return true;
        }
    }
    return false;
}

static void dirty_watch_locked(TestServer *s, TsWindow *w)
{
    if (w->ptr && dirty_in_ranges(s, w->addr, w->size)) {
        w->dirty_shift = __builtin_ctzll(s->mig->log_page);
        w->dirty = g_new0(uint64_t, dirty_nr_words(dirty_nr_bits(w)));
    }
}

void ts_dirty_window_added_locked(TestServer *s, TsWindow *w)
{
    if (s->mig && s->mig->stats.logging && !s->mig->opt.not_later) {
        dirty_watch_locked(s, w);
    }
}

void ts_dirty_mark(TestServer *s, TsWindow *w, uint64_t addr, size_t len)
{
    if (!w->dirty || !len || !dirty_in_ranges(s, addr, len)) {
        return;
    }
    ts_lock(s);
    for (uint64_t bit = (addr - w->addr) >> w->dirty_shift;
         bit <= (addr - w->addr + len - 1) >> w->dirty_shift; bit++) {
        w->dirty[bit / 64] |= 1ull << bit % 64;
    }
    ts_unlock(s);
}

uint64_t ts_mig_nr_dirty(TestServer *s)
{
    uint64_t nr = 0;

    ts_lock(s);
    for (unsigned i = 0; i < s->windows->len; i++) {
        TsWindow *w = dirty_window(s, i);

        for (uint64_t j = 0; w->dirty &&
             j < dirty_nr_words(dirty_nr_bits(w)); j++) {
            nr += __builtin_popcountll(w->dirty[j]);
        }
    }
    ts_unlock(s);
    return nr;
}

static void dirty_stop_locked(TestServer *s)
{
    for (unsigned i = 0; i < s->windows->len; i++) {
        g_free(dirty_window(s, i)->dirty);
        dirty_window(s, i)->dirty = NULL;
    }
    s->mig->stats.logging = false;
    ts_changed_locked(s);
}

void ts_dirty_client_gone(TestServer *s)
{
    if (s->mig && !s->like_libvfio_user) {
        ts_lock(s);
        dirty_stop_locked(s);
        ts_unlock(s);
    }
}

static void dirty_start_locked(TestServer *s,
                               const struct vfio_user_feature_dma_logging *l,
                               const uint8_t *ranges)
{
    TsMigStats *st = &s->mig->stats;

    st->nr_starts++;
    st->logging = true;
    st->log_page_size = l->page_size;
    st->nr_ranges = l->num_ranges;
    memcpy(st->ranges, ranges, MIN(l->num_ranges, TS_MAX_RANGES) *
                               sizeof(st->ranges[0]));
    s->mig->log_page = s->mig->opt.log_page_size ?: l->page_size;
    for (unsigned i = 0; i < s->windows->len; i++) {
        dirty_watch_locked(s, dirty_window(s, i));
    }
    ts_changed_locked(s);
}

/* The ranges are aligned, not empty, do not wrap and do not overlap. */
static bool dirty_ranges_ok(uint64_t page, const uint8_t *data, uint32_t nr)
{
    const struct vfio_user_dma_range *r = (const void *)data;

    for (uint32_t i = 0; i < nr; i++) {
        if (!r[i].length || (r[i].iova | r[i].length) & (page - 1) ||
            r[i].iova + (r[i].length - 1) < r[i].iova) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (r[i].iova <= r[j].iova + (r[j].length - 1) &&
                r[j].iova <= r[i].iova + (r[i].length - 1)) {
                return false;
            }
        }
    }
    return true;
}

int ts_dirty_start(TestServer *s, uint8_t *data, size_t len)
{
    struct vfio_user_feature_dma_logging l;
    int err;

    if (len < sizeof(l)) {
        return EINVAL;
    }
    memcpy(&l, data, sizeof(l));
    if (!dirty_is_page_size(l.page_size) || l.reserved ||
        (len - sizeof(l)) % sizeof(struct vfio_user_dma_range) ||
        (len - sizeof(l)) / sizeof(struct vfio_user_dma_range) !=
        l.num_ranges ||
        !dirty_ranges_ok(l.page_size, data + sizeof(l), l.num_ranges)) {
        return EINVAL;
    }
    if (s->mig->stats.logging && s->like_libvfio_user &&
        l.page_size == s->mig->log_page) {
        return 0;
    }
    if (s->mig->stats.logging) {
        return s->like_libvfio_user ? EINVAL : EBUSY;
    }
    err = ts_mig_meet(s, &(MigFailWhere) { .point = TS_AT_LOG_START });
    if (!err) {
        ts_lock(s);
        dirty_start_locked(s, &l, data + sizeof(l));
        ts_unlock(s);
        l.page_size = s->mig->log_page;
        memcpy(data, &l, sizeof(l));
    }
    return err;
}

int ts_dirty_stop(TestServer *s)
{
    int err = ts_mig_meet(s, &(MigFailWhere) { .point = TS_AT_LOG_STOP });

    if (!err) {
        ts_lock(s);
        dirty_stop_locked(s);
        ts_unlock(s);
    }
    return err;
}

/* --- Reports --- */

static void dirty_set_bits(uint64_t *bits, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) {
        bits[i / 64] |= 1ull << i % 64;
    }
}

/* Moves what @w knows about the report's range into @bits. */
static void dirty_take_locked(TsWindow *w,
                              const struct vfio_user_feature_dma_report *r,
                              uint64_t *bits)
{
    uint64_t start = MAX(w->addr, r->iova);
    uint64_t last = MIN(w->addr + (w->size - 1), r->iova + (r->length - 1));
    uint64_t page = 1ull << w->dirty_shift;

    if (start == w->addr && start == r->iova && page == r->page_size &&
        w->size == r->length) {
        size_t len = dirty_nr_words(dirty_nr_bits(w)) * sizeof(uint64_t);

        memcpy(bits, w->dirty, len);
        memset(w->dirty, 0, len);
        return;
    }
    for (uint64_t bit = (start - w->addr) >> w->dirty_shift;
         bit <= (last - w->addr) >> w->dirty_shift; bit++) {
        uint64_t from = MAX(w->addr + bit * page, start);
        uint64_t to = MIN(w->addr + bit * page + (page - 1), last);

        if (w->dirty[bit / 64] >> bit % 64 & 1) {
            w->dirty[bit / 64] &= ~(1ull << bit % 64);
            dirty_set_bits(bits, (from - r->iova) / r->page_size,
                           (to - r->iova) / r->page_size);
        }
    }
}

/* Whether the report is one that this server answers. */
static bool dirty_may_report(TestServer *s,
                             const struct vfio_user_feature_dma_report *r)
{
    bool any = false;

    for (unsigned i = 0; i < s->windows->len; i++) {
        TsWindow *w = dirty_window(s, i);

        if (w->addr == r->iova && w->size == r->length && w->dirty) {
            return true;
        }
        any |= w->dirty && w->addr <= r->iova + (r->length - 1) &&
               r->iova <= w->addr + (w->size - 1);
    }
    return (any && s->mig->opt.any_range) || s->mig->opt.clean_elsewhere;
}

static int dirty_check_report(TestServer *s,
                              const struct vfio_user_feature_dma_report *r,
                              uint64_t bitmap, uint32_t room)
{
    size_t head = sizeof(struct vfio_user_feature) + sizeof(*r);

    if (room < head || bitmap > room - head ||
        (s->mig->opt.max_bitmap && bitmap > s->mig->opt.max_bitmap)) {
        return EINVAL;
    }
    return dirty_may_report(s, r) ? 0 : EINVAL;
}

int ts_dirty_report(TestServer *s, const uint8_t *data, size_t len,
                    uint32_t room, GByteArray *reply)
{
    struct vfio_user_feature_dma_report r;
    g_autofree uint64_t *bits = NULL;
    uint64_t bitmap;
    int err;

    if (len != sizeof(r) || !s->mig->stats.logging) {
        return EINVAL;
    }
    memcpy(&r, data, sizeof(r));
    if (!dirty_is_page_size(r.page_size) || !r.length ||
        r.iova + (r.length - 1) < r.iova) {
        return EINVAL;
    }
    /* The last page may be a part of one. */
    bitmap = dirty_nr_words((r.length - 1) / r.page_size + 1) *
             sizeof(uint64_t);
    err = dirty_check_report(s, &r, bitmap, room) ?:
          ts_mig_meet(s, &(MigFailWhere) { .point = TS_AT_LOG_REPORT });
    if (err) {
        return err;
    }
    bits = g_malloc0(bitmap);
    ts_lock(s);
    for (unsigned i = 0; i < s->windows->len; i++) {
        TsWindow *w = dirty_window(s, i);

        if (w->dirty && w->addr <= r.iova + (r.length - 1) &&
            r.iova <= w->addr + (w->size - 1)) {
            dirty_take_locked(w, &r, bits);
        }
    }
    s->mig->stats.nr_reports++;
    ts_changed_locked(s);
    ts_unlock(s);
    g_byte_array_append(reply, (guint8 *)&r, sizeof(r));
    g_byte_array_append(reply, (guint8 *)bits, bitmap);
    return 0;
}
