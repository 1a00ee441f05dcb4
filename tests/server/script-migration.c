/*
 * vfio-user test server: migration and the engine in lines of text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include "script-line.h"
#include "server-migration.h"

#define PRECOPY_SIZE    (256 * 1024)

static const struct {
    const char *name;
    int error;
} errors[] = {
    { "EBUSY", EBUSY }, { "EINVAL", EINVAL }, { "EIO", EIO },
    { "ENOMEM", ENOMEM }, { "ENOSPC", ENOSPC }, { "ENOTSUP", ENOTSUP },
    { "ENOTTY", ENOTTY }, { "EOPNOTSUPP", EOPNOTSUPP }, { "EPERM", EPERM },
};

static const char *const kinds[] = {
    [TS_FAIL_REFUSE] = "refuse", [TS_FAIL_ERROR] = "error",
    [TS_FAIL_HANG] = "hang", [TS_FAIL_STALL] = "stall",
    [TS_FAIL_CLOSE] = "close", [TS_FAIL_EXIT] = "exit",
};

static const char *const points[] = {
    [TS_AT_ARC] = "arc", [TS_AT_READ] = "read", [TS_AT_WRITE] = "write",
    [TS_AT_LOG_START] = "start", [TS_AT_LOG_STOP] = "stop",
    [TS_AT_LOG_REPORT] = "report", [TS_AT_STATE] = "state",
};

static int line_errno(Line *line, int none)
{
    const char *text = line_text(line, "errno");

    for (unsigned i = 0; text && i < G_N_ELEMENTS(errors); i++) {
        if (!strcmp(text, errors[i].name)) {
            return errors[i].error;
        }
    }
    return text ? (int)line_number(line, text) : none;
}

/* The position of @word in @names. */
static unsigned line_choice(Line *line, const char *word,
                            const char *const *names, unsigned nr)
{
    for (unsigned i = 0; word && i < nr; i++) {
        if (!strcmp(names[i], word)) {
            return i;
        }
    }
    line_fail(line, "no such choice:", word ?: "");
    return 0;
}

static unsigned line_state(Line *line, const char *key)
{
    const char *text = line_text(line, key);

    for (unsigned i = 0; text && i <= VFIO_USER_MIG_PRE_COPY_P2P; i++) {
        if (!strcmp(text, ts_mig_state_name(i))) {
            return i;
        }
    }
    if (text) {
        line_fail(line, "no such state:", text);
    }
    return TS_ANY_STATE;
}

void script_migration(TestServer *s, Line *line)
{
    bool precopy = line_flag(line, "precopy") || line_text(line, "precopy");
    TsMigOptions *o = ts_add_migration(s,
        (line_flag(line, "no-stop-copy") ? 0
                                         : VFIO_USER_MIGRATION_STOP_COPY) |
        (line_flag(line, "p2p") ? VFIO_USER_MIGRATION_P2P : 0) |
        (precopy ? VFIO_USER_MIGRATION_PRE_COPY : 0));

    o->size = line_value(line, "size", o->size);
    o->precopy = precopy ? line_value(line, "precopy", PRECOPY_SIZE) : 0;
    o->per_read = line_value(line, "per-read", 0);
    o->every_read = line_value(line, "every-read", 0);
    o->per_second = line_value(line, "per-second", 0);
    o->max_read = line_value(line, "max-read", 0);
    o->data_size = line_flag(line, "data-size");
    o->logging = line_flag(line, "logging");
    o->log_page_size = line_value(line, "pgsize", 0);
    o->honour_ranges = line_flag(line, "honour-ranges");
    o->not_later = line_flag(line, "not-later");
    o->clean_elsewhere = line_flag(line, "clean-elsewhere");
    o->any_range = line_flag(line, "any-range");
    o->max_bitmap = line_value(line, "max-bitmap", 0);
    if (o->log_page_size && (o->log_page_size < 512 ||
                             o->log_page_size & (o->log_page_size - 1))) {
        line_fail(line, "no page size:", line_text(line, "pgsize"));
    }
}

void script_migration_fail(TestServer *s, Line *line)
{
    TsMigFail fail = {
        .kind = line_choice(line, line->words[1], kinds,
                            G_N_ELEMENTS(kinds)),
        .point = line_choice(line, line_text(line, "at"), points,
                             G_N_ELEMENTS(points)),
        .from = line_state(line, "from"),
        .to = line_state(line, "to"),
        .byte = line_value(line, "byte", 0),
        .error = line_errno(line, 0),
        .skip = line_value(line, "skip", 0),
        .times = line_value(line, "times", 0),
    };

    if (!ts_has_migration(s)) {
        line_fail(line, "no migration line before", line->words[0]);
    } else if (!line->error) {
        ts_mig_fail(s, &fail);
    }
}

void script_migration_lie(TestServer *s, Line *line)
{
    const TsMischief *lie = line->words[1] ? ts_mig_lie_find(line->words[1])
                                           : NULL;

    if (lie) {
        ts_mig_lie(s, lie, line_value(line, "skip", 0),
                   line_value(line, "times", 0));
    } else {
        line_fail(line, "no such lie", line->words[1] ?: "");
    }
}

void script_no_features(TestServer *s, Line *line)
{
    ts_no_features(s, line_flag(line, "close") ? TS_CLOSE
                                               : line_errno(line, ENOTTY));
}

void script_engine(TestServer *s, Line *line)
{
    uint64_t pages = line_value(line, "pages", 64);

    if (!pages || pages > UINT32_MAX) {
        line_fail(line, "no number of pages:", line_text(line, "pages"));
    } else {
        ts_add_engine(s, pages, line_value(line, "rate", 2000));
    }
}
