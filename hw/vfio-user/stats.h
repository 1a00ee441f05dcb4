/*
 * vfio-user: what a connection counts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_STATS_H
#define HW_VFIO_USER_STATS_H

#include "hw/vfio-user/wire.h"
#include "bql-wait.h"

/* Buckets of a histogram; see stats.c */
#define VFIO_USER_STATS_BUCKETS     224
/* How long the recent past is at least; at most twice that. */
#define VFIO_USER_STATS_RECENT_NS   (60 * (int64_t)1000000000)

/**
 * VFIOUserCount: messages of one command that went one way
 * @commands: requests, those without reply among them
 * @no_reply: of these the ones that want none
 * @replies: answers, errors among them
 * @errors: of these the ones that report an error
 * @bytes: of all of them, headers included
 */
typedef struct VFIOUserCount {
    uint64_t commands;
    uint64_t no_reply;
    uint64_t replies;
    uint64_t errors;
    uint64_t bytes;
} VFIOUserCount;

/**
 * VFIOUserUnanswered: requests of ours that ended without their reply
 * @timeouts: the deadline passed
 * @given_up: the connection was lost, or nobody wanted the reply any more
 */
typedef struct VFIOUserUnanswered {
    uint64_t timeouts;
    uint64_t given_up;
} VFIOUserUnanswered;

/**
 * VFIOUserHistogram: how long something took
 * @nr: how often
 * @max_ns: the longest
 */
typedef struct VFIOUserHistogram {
    uint64_t nr;
    int64_t max_ns;
    uint64_t bucket[VFIO_USER_STATS_BUCKETS];
} VFIOUserHistogram;

/**
 * VFIOUserLatency: from the request to its reply
 * @total: since the beginning
 * @recent: since @turned_ns, and in the period before
 */
typedef struct VFIOUserLatency {
    VFIOUserHistogram total;
    VFIOUserHistogram recent[2];
    int64_t turned_ns;
} VFIOUserLatency;

typedef enum VFIOUserLatencyKind {
    VFIO_USER_LATENCY_ACCESS,   /* of a region, and somebody waits */
    VFIO_USER_LATENCY_OTHER,
    VFIO_USER_LATENCY_MAX,
} VFIOUserLatencyKind;

/**
 * VFIOUserStats: all that a connection counts
 * @since_ns: get_clock() when it began
 * @sent, @received: by command; [0]: those that the protocol does not know
 * @bql: waits with the BQL
 *
 * It has no lock of its own: whoever counts holds one anyway.
 */
typedef struct VFIOUserStats {
    int64_t since_ns;
    VFIOUserCount sent[VFIO_USER_COMMAND_MAX];
    VFIOUserCount received[VFIO_USER_COMMAND_MAX];
    VFIOUserUnanswered unanswered[VFIO_USER_COMMAND_MAX];
    VFIOUserLatency latency[VFIO_USER_LATENCY_MAX];
    VFIOUserBqlWaits bql[VFIO_USER_BQL_MAX];
} VFIOUserStats;

static inline unsigned vfio_user_stats_index(uint16_t command)
{
    return command < VFIO_USER_COMMAND_MAX ? command : 0;
}

/* A whole message went one way; @table is @sent or @received. */
static inline void vfio_user_stats_count(VFIOUserCount *table,
                                         const struct vfio_user_header *hdr)
{
    VFIOUserCount *c = &table[vfio_user_stats_index(hdr->command)];

    c->bytes += hdr->size;
    if ((hdr->flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY) {
        c->replies++;
        c->errors += !!(hdr->flags & VFIO_USER_ERROR);
    } else {
        c->commands++;
        c->no_reply += !!(hdr->flags & VFIO_USER_NO_REPLY);
    }
}

/**
 * vfio_user_stats_replied: a request got its reply
 * @now_ns: get_clock()
 * @ns: how long that took
 */
void vfio_user_stats_replied(VFIOUserLatency *l, int64_t now_ns, int64_t ns);

/* Begin anew. */
void vfio_user_stats_reset(VFIOUserStats *stats, int64_t now_ns);

/* Add @from to @to, whose beginning stays. */
void vfio_user_stats_add(VFIOUserStats *to, VFIOUserStats *from,
                         int64_t now_ns);

/* The recent past, up to @now_ns. */
void vfio_user_stats_recent(VFIOUserLatency *l, int64_t now_ns,
                            VFIOUserHistogram *recent);

/**
 * vfio_user_stats_percentile: what so many of a hundred did not exceed
 *
 * In nanoseconds, good to a sixteenth; 0 when nothing was counted.
 */
int64_t vfio_user_stats_percentile(const VFIOUserHistogram *h,
                                   unsigned percent);

/* The bucket that counts @ns, and what stands for all that it counts. */
unsigned vfio_user_stats_bucket(int64_t ns);
int64_t vfio_user_stats_bucket_ns(unsigned bucket);

#endif /* HW_VFIO_USER_STATS_H */
