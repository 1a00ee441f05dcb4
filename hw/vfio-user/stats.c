/*
 * vfio-user: what a connection counts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It counts always, so counting must cost next to nothing: increments under a
 * lock that is held at that point anyway, in memory that only this connection
 * uses, and one look at the clock for each reply.
 *
 * Times range from the microseconds of a register to the seconds of a reset,
 * and both ends are of interest, so the buckets of a histogram grow with what
 * they count: eight for each doubling, from 1 us to two minutes. What is below
 * is in the first eight, what is above in the last one. The middle of a bucket
 * is at most a sixteenth away from anything in it. Rejected: a mean, which one
 * stall ruins; the samples themselves, which need memory without bound.
 *
 * The recent past is two histograms that take turns: one is filled for a
 * minute, while the other keeps the minute before.
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "stats.h"

/* Below 1 << LOW_BITS ns buckets have equal width. */
#define LOW_BITS    10
/* Buckets for each doubling: 1 << SUB_BITS */
#define SUB_BITS    3
#define SUB         (1u << SUB_BITS)

unsigned vfio_user_stats_bucket(int64_t ns)
{
    unsigned doubling, bucket;

    if (ns < 1 << LOW_BITS) {
        return MAX(ns, 0) >> (LOW_BITS - SUB_BITS);
    }
    doubling = 63 - clz64(ns) - LOW_BITS;
    bucket = SUB + doubling * SUB +
             ((ns >> (doubling + LOW_BITS - SUB_BITS)) & (SUB - 1));
    return MIN(bucket, VFIO_USER_STATS_BUCKETS - 1);
}

int64_t vfio_user_stats_bucket_ns(unsigned bucket)
{
    unsigned doubling = bucket < SUB ? 0 : bucket / SUB - 1;
    int64_t width = (int64_t)1 << (doubling + LOW_BITS - SUB_BITS);
    unsigned nth = bucket < SUB ? bucket : SUB + bucket % SUB;

    return nth * width + width / 2;
}

static void vfio_user_stats_sample(VFIOUserHistogram *h, unsigned bucket,
                                   int64_t ns)
{
    h->nr++;
    h->max_ns = MAX(h->max_ns, ns);
    h->bucket[bucket]++;
}

static void vfio_user_stats_turn(VFIOUserLatency *l, int64_t now_ns)
{
    int64_t age = now_ns - l->turned_ns;

    if (age < VFIO_USER_STATS_RECENT_NS) {
        return;
    }
    if (age < 2 * VFIO_USER_STATS_RECENT_NS) {
        l->recent[1] = l->recent[0];
        l->turned_ns += VFIO_USER_STATS_RECENT_NS;
    } else {
        memset(&l->recent[1], 0, sizeof(l->recent[1]));
        l->turned_ns = now_ns;
    }
    memset(&l->recent[0], 0, sizeof(l->recent[0]));
}

void vfio_user_stats_replied(VFIOUserLatency *l, int64_t now_ns, int64_t ns)
{
    unsigned bucket = vfio_user_stats_bucket(ns);

    vfio_user_stats_turn(l, now_ns);
    vfio_user_stats_sample(&l->total, bucket, ns);
    vfio_user_stats_sample(&l->recent[0], bucket, ns);
}

void vfio_user_stats_reset(VFIOUserStats *stats, int64_t now_ns)
{
    memset(stats, 0, sizeof(*stats));
    stats->since_ns = now_ns;
    for (unsigned i = 0; i < VFIO_USER_LATENCY_MAX; i++) {
        stats->latency[i].turned_ns = now_ns;
    }
}

/* Sums --------------------------------------------------------------------- */

static void vfio_user_stats_add_counts(VFIOUserCount *to,
                                       const VFIOUserCount *from)
{
    for (unsigned i = 0; i < VFIO_USER_COMMAND_MAX; i++) {
        to[i].commands += from[i].commands;
        to[i].no_reply += from[i].no_reply;
        to[i].replies += from[i].replies;
        to[i].errors += from[i].errors;
        to[i].bytes += from[i].bytes;
    }
}

static void vfio_user_stats_merge(VFIOUserHistogram *to,
                                  const VFIOUserHistogram *from)
{
    to->nr += from->nr;
    to->max_ns = MAX(to->max_ns, from->max_ns);
    for (unsigned i = 0; i < VFIO_USER_STATS_BUCKETS; i++) {
        to->bucket[i] += from->bucket[i];
    }
}

/* Their minutes begin at different times; that much "recent" may be off. */
static void vfio_user_stats_add_latency(VFIOUserLatency *to,
                                        VFIOUserLatency *from, int64_t now_ns)
{
    vfio_user_stats_turn(to, now_ns);
    vfio_user_stats_turn(from, now_ns);
    vfio_user_stats_merge(&to->total, &from->total);
    for (unsigned i = 0; i < ARRAY_SIZE(from->recent); i++) {
        vfio_user_stats_merge(&to->recent[i], &from->recent[i]);
    }
}

void vfio_user_stats_add(VFIOUserStats *to, VFIOUserStats *from,
                         int64_t now_ns)
{
    vfio_user_stats_add_counts(to->sent, from->sent);
    vfio_user_stats_add_counts(to->received, from->received);
    for (unsigned i = 0; i < VFIO_USER_COMMAND_MAX; i++) {
        to->unanswered[i].timeouts += from->unanswered[i].timeouts;
        to->unanswered[i].given_up += from->unanswered[i].given_up;
    }
    for (unsigned i = 0; i < VFIO_USER_LATENCY_MAX; i++) {
        vfio_user_stats_add_latency(&to->latency[i], &from->latency[i], now_ns);
    }
    vfio_user_bql_add(to->bql, from->bql);
}

/* Reading ------------------------------------------------------------------ */

void vfio_user_stats_recent(VFIOUserLatency *l, int64_t now_ns,
                            VFIOUserHistogram *recent)
{
    vfio_user_stats_turn(l, now_ns);
    *recent = l->recent[0];
    vfio_user_stats_merge(recent, &l->recent[1]);
}

int64_t vfio_user_stats_percentile(const VFIOUserHistogram *h,
                                   unsigned percent)
{
    uint64_t rank = DIV_ROUND_UP(h->nr * percent, 100);
    unsigned i;

    for (i = 0; i < VFIO_USER_STATS_BUCKETS; i++) {
        if (h->bucket[i] >= rank) {
            break;
        }
        rank -= h->bucket[i];
    }
    /* The last one has no end. */
    return i >= VFIO_USER_STATS_BUCKETS - 1 ? h->max_ns :
           MIN(vfio_user_stats_bucket_ns(i), h->max_ns);
}
