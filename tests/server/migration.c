/*
 * vfio-user test server: the states of migration, and DEVICE_FEATURE
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A transition that a client asks for is made arc by arc along one path, so
 * that a failure can sit on an inner arc and the device then stays where it
 * got to, as kernel drivers do. next_state says where to go first from each
 * state on the way to another; with P2P the paths lead through its states,
 * without it those are passed by. ERROR as next state means that there is no
 * way. Everything happens on the server's thread, where the engine works as
 * well: once the state is set the engine has stopped.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "mig-internal.h"

#define ERR     VFIO_USER_MIG_ERROR
#define STOP    VFIO_USER_MIG_STOP
#define RUN     VFIO_USER_MIG_RUNNING
#define SAVE    VFIO_USER_MIG_STOP_COPY
#define LOAD    VFIO_USER_MIG_RESUMING
#define RUNP    VFIO_USER_MIG_RUNNING_P2P
#define PRE     VFIO_USER_MIG_PRE_COPY
#define PREP    VFIO_USER_MIG_PRE_COPY_P2P

#define NR_STATES   (VFIO_USER_MIG_PRE_COPY_P2P + 1)

/* Every feature that is known */
#define FEATURES_MIGRATION  (1u << VFIO_USER_FEATURE_MIGRATION | \
                             1u << VFIO_USER_FEATURE_MIG_DEVICE_STATE)
#define FEATURES_LOGGING    (1u << VFIO_USER_FEATURE_DMA_LOGGING_START | \
                             1u << VFIO_USER_FEATURE_DMA_LOGGING_STOP | \
                             1u << VFIO_USER_FEATURE_DMA_LOGGING_REPORT)

static const char *const state_names[NR_STATES] = {
    [ERR] = "error", [STOP] = "stop", [RUN] = "running",
    [SAVE] = "stop-copy", [LOAD] = "resuming", [RUNP] = "running-p2p",
    [PRE] = "pre-copy", [PREP] = "pre-copy-p2p",
};

static const uint8_t next_state[NR_STATES][NR_STATES] = {
    /* to:    ERR  STOP  RUN   SAVE  LOAD  RUNP  PRE   PREP */
    [STOP] = { ERR, STOP, RUNP, SAVE, LOAD, RUNP, RUNP, RUNP },
    [RUN] =  { ERR, RUNP, RUN,  RUNP, RUNP, RUNP, PRE,  PRE  },
    [SAVE] = { ERR, STOP, STOP, SAVE, STOP, STOP, ERR,  ERR  },
    [LOAD] = { ERR, STOP, STOP, STOP, LOAD, STOP, STOP, STOP },
    [RUNP] = { ERR, STOP, RUN,  STOP, STOP, RUNP, RUN,  PREP },
    [PRE] =  { ERR, RUN,  RUN,  PREP, RUN,  RUN,  PRE,  PREP },
    [PREP] = { ERR, RUNP, RUNP, SAVE, RUNP, RUNP, PRE,  PREP },
};

TsMigOptions *ts_add_migration(TestServer *s, uint64_t flags)
{
    g_assert(!s->mig && !s->started);
    s->mig = g_new0(struct TsMigration, 1);
    s->mig->opt.flags = flags;
    s->mig->opt.size = 1 << 20;
    s->mig->state = RUN;
    s->mig->fails = g_array_new(FALSE, TRUE, sizeof(MigFailState));
    return &s->mig->opt;
}

bool ts_has_migration(TestServer *s)
{
    return s->mig != NULL;
}

void ts_no_features(TestServer *s, int error)
{
    s->no_features = error;
}

void ts_mig_free(TestServer *s)
{
    if (s->mig) {
        ts_mig_out_end(s);
        ts_mig_in_end(s);
        g_array_free(s->mig->fails, TRUE);
        g_free(s->mig->load_error);
        g_free(s->mig);
    }
}

const char *ts_mig_state_name(unsigned state)
{
    return state < NR_STATES ? state_names[state] : "?";
}

void ts_mig_set_state(TestServer *s, unsigned state)
{
    ts_lock(s);
    s->mig->state = state;
    ts_changed_locked(s);
    ts_unlock(s);
}

unsigned ts_mig_state(TestServer *s)
{
    unsigned state;

    ts_lock(s);
    state = s->mig ? s->mig->state : RUN;
    ts_unlock(s);
    return state;
}

bool ts_mig_wait_state(TestServer *s, unsigned state)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = s->mig != NULL;

    ts_lock(s);
    while (ok && s->mig->state != state) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

void ts_mig_stats(TestServer *s, TsMigStats *stats)
{
    ts_lock(s);
    *stats = s->mig->stats;
    ts_unlock(s);
}

unsigned ts_mig_state_now(TestServer *s)
{
    return s->mig ? s->mig->state : RUN;
}

bool ts_mig_running(TestServer *s)
{
    return !s->mig || s->mig->state == RUN || s->mig->state == PRE;
}

void ts_mig_reset(TestServer *s)
{
    if (s->mig && !s->like_libvfio_user) {
        ts_mig_out_end(s);
        ts_mig_in_end(s);
        ts_mig_set_state(s, RUN);
    }
}

static void mig_break(TestServer *s, void *opaque)
{
    (void)opaque;
    ts_mig_set_state(s, ERR);
}

void ts_mig_break(TestServer *s)
{
    g_assert(ts_run(s, mig_break, NULL));
}

/* --- Transitions --- */

static bool mig_is_supported(TestServer *s, unsigned state)
{
    uint64_t flags = s->mig->opt.flags;

    switch (state) {
    case STOP:
    case RUN:
    case SAVE:
    case LOAD:
        return true;
    case RUNP:
        return flags & VFIO_USER_MIGRATION_P2P;
    case PRE:
        return flags & VFIO_USER_MIGRATION_PRE_COPY;
    case PREP:
        return (flags & VFIO_USER_MIGRATION_P2P) &&
               (flags & VFIO_USER_MIGRATION_PRE_COPY);
    default:
        return false;
    }
}

static unsigned mig_next(TestServer *s, unsigned from, unsigned to)
{
    unsigned next = from;

    do {
        next = next_state[next][to];
    } while (next != ERR && !mig_is_supported(s, next));
    return next;
}

static bool mig_saves(unsigned state)
{
    return state == SAVE || state == PRE || state == PREP;
}

/* What an arc does to the streams; 0 or an errno, and then nothing. */
static int mig_act(TestServer *s, unsigned from, unsigned to)
{
    if (from == LOAD) {
        int err = ts_mig_in_finish(s);

        if (err) {
            return err;
        }
    }
    if (to == LOAD) {
        ts_mig_in_begin(s);
    } else if (mig_saves(to) && !mig_saves(from)) {
        ts_mig_out_begin(s, to != SAVE);
    } else if (mig_saves(from) && !mig_saves(to)) {
        ts_mig_out_end(s);
    }
    if (to == SAVE) {
        ts_mig_out_stop(s);
    }
    return 0;
}

static int mig_arc(TestServer *s, unsigned from, unsigned to)
{
    int err = ts_mig_meet(s, &(MigFailWhere) {
        .point = TS_AT_ARC, .from = from, .to = to,
    });

    if (!err) {
        err = mig_act(s, from, to);
    }
    if (!err) {
        ts_mig_set_state(s, to);
    }
    return err;
}

static int mig_go(TestServer *s, unsigned to)
{
    unsigned next = s->mig->state;
    int err = 0;

    if (next == ERR || !mig_is_supported(s, to)) {
        return EINVAL;
    }
    while (!err && s->mig->state != to) {
        next = mig_next(s, s->mig->state, to);
        err = next == ERR ? EINVAL : mig_arc(s, s->mig->state, next);
    }
    if (!err) {
        /* The transition was made: the reply says so, whatever comes now. */
        ts_mig_meet(s, &(MigFailWhere) {
            .point = TS_AT_STATE, .from = to, .to = to,
        });
    }
    return err;
}

/* --- DEVICE_FEATURE --- */

static uint32_t features_known(TestServer *s)
{
    return FEATURES_MIGRATION |
           (s->mig->opt.logging ? FEATURES_LOGGING : 0) |
           (s->mig->opt.data_size ? 1u << VFIO_USER_FEATURE_MIG_DATA_SIZE
                                  : 0);
}

/* What can be done with a feature: GET, SET or both. */
static uint32_t feature_ways(unsigned feature)
{
    switch (feature) {
    case VFIO_USER_FEATURE_MIG_DEVICE_STATE:
        return VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_SET;
    case VFIO_USER_FEATURE_DMA_LOGGING_START:
    case VFIO_USER_FEATURE_DMA_LOGGING_STOP:
        return VFIO_USER_FEATURE_SET;
    default:
        return VFIO_USER_FEATURE_GET;
    }
}

static int feature_give(const void *data, size_t len, uint32_t room,
                        GByteArray *payload)
{
    if (room < sizeof(struct vfio_user_feature) + len) {
        return EINVAL;
    }
    g_byte_array_append(payload, data, len);
    return 0;
}

/* @payload has the feature's header and gets the data. */
static int feature_get(TestServer *s, unsigned feature,
                       const TsMessage *request, GByteArray *payload)
{
    const uint8_t *data = request->payload->data +
                          sizeof(struct vfio_user_feature);
    size_t len = request->payload->len - sizeof(struct vfio_user_feature);
    struct vfio_user_feature_mig_state state = { .state = s->mig->state };
    uint64_t size = ts_mig_out_size(s);
    uint32_t room;

    memcpy(&room, request->payload->data, sizeof(room));
    switch (feature) {
    case VFIO_USER_FEATURE_MIGRATION:
        return feature_give(&s->mig->opt.flags, sizeof(uint64_t), room,
                            payload);
    case VFIO_USER_FEATURE_MIG_DEVICE_STATE:
        return feature_give(&state, sizeof(state), room, payload);
    case VFIO_USER_FEATURE_MIG_DATA_SIZE:
        return feature_give(&size, sizeof(size), room, payload);
    default:
        return ts_dirty_report(s, data, len, room, payload);
    }
}

/* @payload is the request's, and becomes the reply's. */
static int feature_set(TestServer *s, unsigned feature, GByteArray *payload)
{
    uint8_t *data = payload->data + sizeof(struct vfio_user_feature);
    size_t len = payload->len - sizeof(struct vfio_user_feature);
    struct vfio_user_feature_mig_state state;

    switch (feature) {
    case VFIO_USER_FEATURE_MIG_DEVICE_STATE:
        if (len != sizeof(state)) {
            return EINVAL;
        }
        memcpy(&state, data, sizeof(state));
        return mig_go(s, state.state);
    case VFIO_USER_FEATURE_DMA_LOGGING_START:
        return ts_dirty_start(s, data, len);
    default:
        return len ? EINVAL : ts_dirty_stop(s);
    }
}

static int feature_absent(TestServer *s)
{
    if (s->no_features == TS_CLOSE) {
        ts_fail_connection(s);
        return TS_NO_REPLY;
    }
    return s->no_features ? s->no_features : ENOTTY;
}

/* GET or SET, as the request stands. */
static int feature_do(TestServer *s, const struct vfio_user_feature *f,
                      TsMessage *request, TsMessage *reply)
{
    GByteArray *payload = request->payload;
    unsigned index = f->flags & VFIO_USER_FEATURE_MASK;
    int err = EINVAL;

    if (f->flags & VFIO_USER_FEATURE_GET) {
        g_byte_array_append(reply->payload, payload->data, sizeof(*f));
        err = feature_get(s, index, request, reply->payload);
        /* In a reply argsz is the size of the whole. */
        memcpy(reply->payload->data, &reply->payload->len, sizeof(f->argsz));
    } else if (f->argsz == payload->len) {
        err = feature_set(s, index, payload);
        g_byte_array_append(reply->payload, payload->data, payload->len);
    }
    return err;
}

int ts_mig_feature(TestServer *s, TsMessage *request, TsMessage *reply)
{
    GByteArray *payload = request->payload;
    struct vfio_user_feature f;
    uint32_t way, index;

    if (!s->mig) {
        return feature_absent(s);
    }
    if (payload->len < sizeof(f)) {
        return EINVAL;
    }
    memcpy(&f, payload->data, sizeof(f));
    index = f.flags & VFIO_USER_FEATURE_MASK;
    way = f.flags & (VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_SET);
    if (index >= 32 || !(features_known(s) & 1u << index)) {
        return ENOTTY;
    }
    if (f.argsz < sizeof(f) || way & ~feature_ways(index) ||
        f.flags & ~(VFIO_USER_FEATURE_MASK | VFIO_USER_FEATURE_GET |
                    VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_PROBE)) {
        return EINVAL;
    }
    if (f.flags & VFIO_USER_FEATURE_PROBE) {
        g_byte_array_append(reply->payload, payload->data, payload->len);
        return 0;
    }
    if (!way || way & (way - 1)) {
        return EINVAL;      /* one of them, not both */
    }
    return feature_do(s, &f, request, reply);
}
