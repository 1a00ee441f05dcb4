/*
 * vfio-user: log lines whose number somebody else decides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that repeats what the server refuses, and a server that crashes again
 * and again, must not fill the host's disk. The first lines of each kind are
 * printed as they are, then it is a few every ten seconds, and the next one tells
 * how many there were in between. Rejected: error_report_once() and its like: the
 * second failure, a week later, has to be seen as well.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "ratelimit.h"

/* Lines are rare, so one lock for all devices will do. */
static QemuMutex vfio_user_limit_lock;

static void __attribute__((__constructor__)) vfio_user_limit_init(void)
{
    qemu_mutex_init(&vfio_user_limit_lock);
}

bool vfio_user_limit_allows(VFIOUserLimit *limit, int64_t now_ms,
                            unsigned *left_out, unsigned *s)
{
    if (!limit->nr || now_ms - limit->begin_ms >= VFIO_USER_LIMIT_MS) {
        limit->begin_ms = now_ms;
        limit->nr = 0;
    }
    if (limit->nr == VFIO_USER_LIMIT_LINES) {
        if (!limit->left_out++) {
            limit->left_ms = now_ms;
        }
        return false;
    }
    limit->nr++;
    *left_out = limit->left_out;
    *s = DIV_ROUND_UP(now_ms - limit->left_ms, 1000);
    limit->left_out = 0;
    return true;
}

static void vfio_user_limit_print(VFIOUserLimit *limit,
                                  void (*print)(const char *fmt, ...)
                                  G_GNUC_PRINTF(1, 2),
                                  const char *text)
{
    unsigned left_out, s;
    bool ok;

    WITH_QEMU_LOCK_GUARD(&vfio_user_limit_lock) {
        ok = vfio_user_limit_allows(limit, g_get_monotonic_time() / 1000,
                                    &left_out, &s);
    }
    if (!ok) {
        return;
    }
    if (left_out) {
        print("%s (%u more in the last %u s)", text, left_out, s);
    } else {
        print("%s", text);
    }
}

#define VFIO_USER_LIMITED(name, print)                                  \
void name(VFIOUserLimit *limit, const char *fmt, ...)                   \
{                                                                       \
    g_autofree char *text = NULL;                                       \
    va_list ap;                                                         \
                                                                        \
    va_start(ap, fmt);                                                  \
    text = g_strdup_vprintf(fmt, ap);                                   \
    va_end(ap);                                                         \
    vfio_user_limit_print(limit, print, text);                          \
}

VFIO_USER_LIMITED(vfio_user_warn_limited, warn_report)
VFIO_USER_LIMITED(vfio_user_error_limited, error_report)
VFIO_USER_LIMITED(vfio_user_info_limited, info_report)
