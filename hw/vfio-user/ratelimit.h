/*
 * vfio-user: log lines whose number somebody else decides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_USER_RATELIMIT_H
#define HW_VFIO_USER_RATELIMIT_H

/* So many in so long; what is beyond is counted. */
#define VFIO_USER_LIMIT_MS      10000
#define VFIO_USER_LIMIT_LINES   4

/**
 * VFIOUserLimit: of one kind of line; zero at first. Any thread.
 * @begin_ms: of the period
 * @nr: lines in it
 * @left_out: lines since the last one that was not left out
 * @left_ms: when the first of these was
 */
typedef struct VFIOUserLimit {
    int64_t begin_ms;
    unsigned nr;
    unsigned left_out;
    int64_t left_ms;
} VFIOUserLimit;

/**
 * vfio_user_limit_allows: whether there may be another line
 * @now_ms: a clock that does not go back
 * @left_out: set to how many were left out before it
 * @s: and in how many seconds
 *
 * The caller sees to it that one thread at a time is here.
 */
bool vfio_user_limit_allows(VFIOUserLimit *limit, int64_t now_ms,
                            unsigned *left_out, unsigned *s);

/*
 * warn_report(), error_report() and info_report(), unless there were many of
 * them. The next line tells how many were left out. Any thread.
 */
void G_GNUC_PRINTF(2, 3)
vfio_user_warn_limited(VFIOUserLimit *limit, const char *fmt, ...);
void G_GNUC_PRINTF(2, 3)
vfio_user_error_limited(VFIOUserLimit *limit, const char *fmt, ...);
void G_GNUC_PRINTF(2, 3)
vfio_user_info_limited(VFIOUserLimit *limit, const char *fmt, ...);

#endif /* HW_VFIO_USER_RATELIMIT_H */
