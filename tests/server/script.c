/*
 * vfio-user test server: a device described in lines of text
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One directive a line: a name, then words that are either flags or
 * key=value. Everything after a '#' is a comment. script.h lists the
 * directives.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "script-line.h"
#include "script.h"
#include "server-disk.h"
#include "spdk.h"

static void do_standard(TestServer *s, Line *line)
{
    (void)line;
    ts_standard_device(s);
}

static void do_id(TestServer *s, Line *line)
{
    ts_config_id(s, line_value(line, "vendor", TS_STANDARD_VENDOR),
                 line_value(line, "device", TS_STANDARD_DEVICE),
                 line_value(line, "class", 0xff0000),
                 line_value(line, "revision", 1));
    ts_config_subsystem(s, line_value(line, "subvendor", 0),
                        line_value(line, "subdevice", 0));
}

static void do_areas(TsRegion *r, Line *line)
{
    for (char **w = line->words + 1; *w; w++) {
        if (!g_str_has_prefix(*w, "area=")) {
            continue;
        }
        if (r->nr_areas == TS_MAX_AREAS) {
            line_fail(line, "too many areas at", *w);
            return;
        }
        line_pair(line, *w + strlen("area="), '+',
                  &r->areas[r->nr_areas].offset,
                  &r->areas[r->nr_areas].size);
        r->nr_areas++;
        r->flags |= VFIO_USER_REGION_MMAP;
    }
}

static void do_bar(TestServer *s, Line *line)
{
    unsigned bar = line_first(line, 6);
    bool io = line_flag(line, "io");
    TsRegion *r;

    r = ts_add_bar(s, bar, line_size(line, io ? 4 : 16),
                   (io ? TS_BAR_IO : 0) |
                   (line_flag(line, "64") ? TS_BAR_64 : 0) |
                   (line_flag(line, "prefetch") ? TS_BAR_PREFETCH : 0));
    if (line_flag(line, "mmap")) {
        r->flags |= VFIO_USER_REGION_MMAP;
    }
    do_areas(r, line);
}

static void do_rom(TestServer *s, Line *line)
{
    const char *file = line_text(line, "file");
    g_autofree char *data = NULL;
    uint64_t size = line_size(line, 2048);
    gsize len = 0;

    if (file && !g_file_get_contents(file, &data, &len, NULL)) {
        line_fail(line, "cannot read", file);
    } else if (len > size) {
        line_fail(line, "larger than the ROM:", file);
    } else {
        ts_add_rom(s, data ?: "", len, size);
    }
}

static void do_region(TestServer *s, Line *line)
{
    unsigned index = line_first(line, TS_NR_REGIONS);
    const char *type = line_text(line, "type");
    uint64_t a, b;
    TsRegion *r;

    r = ts_region(s, index, line_value(line, "size", 4096),
                  VFIO_USER_REGION_READABLE | VFIO_USER_REGION_WRITEABLE);
    if (line_flag(line, "mmap")) {
        r->flags |= VFIO_USER_REGION_MMAP;
    }
    do_areas(r, line);
    if (type) {
        line_pair(line, type, ':', &a, &b);
        r->has_type = true;
        r->type = a;
        r->subtype = b;
    }
    ts_info(s)->num_regions = MAX(ts_info(s)->num_regions, index + 1);
}

static void do_intx(TestServer *s, Line *line)
{
    ts_config_intx(s, line_value(line, "pin", 1));
}

static void do_pm(TestServer *s, Line *line)
{
    (void)line;
    ts_add_pm(s);
}

static void do_pcie(TestServer *s, Line *line)
{
    ts_add_pcie(s, line_value(line, "type", 0));
}

static void do_msi(TestServer *s, Line *line)
{
    unsigned nr = line_first(line, 33);

    if (!nr || nr & (nr - 1)) {
        line_fail(line, "not 1, 2, 4, 8, 16 or 32:", line->words[1] ?: "");
        return;
    }
    ts_add_msi(s, nr, line_flag(line, "maskable"));
}

static void do_msix(TestServer *s, Line *line)
{
    unsigned nr = line_first(line, 2049);
    uint64_t table_bar, table, pba_bar, pba;

    line_pair(line, line_text(line, "table") ?: "", ':', &table_bar, &table);
    line_pair(line, line_text(line, "pba") ?: "", ':', &pba_bar, &pba);
    if (!nr) {
        line_fail(line, "no vectors:", line->words[1] ?: "");
    }
    if (!line->error) {
        ts_add_msix(s, nr, table_bar, table, pba_bar, pba);
    }
}

static void do_irqs(TestServer *s, Line *line)
{
    const char *mode = line_text(line, "mask") ?: "accept";
    unsigned index = line_first(line, TS_NR_IRQS);

    ts_add_irqs(s, index, line_value(line, "count", 1),
                line_value(line, "flags", VFIO_USER_IRQ_EVENTFD),
                !strcmp(mode, "refuse") ? TS_MASK_REFUSE :
                !strcmp(mode, "keep") ? TS_MASK_KEEP : TS_MASK_ACCEPT);
    if (!g_strv_contains((const char *[]) { "accept", "refuse", "keep",
                                            NULL }, mode)) {
        line_fail(line, "mask is accept, refuse or keep, not", mode);
    }
}

static void do_limits(TestServer *s, Line *line)
{
    TsLimits *l = ts_limits(s);

    l->max_msg_fds = line_value(line, "max_msg_fds", l->max_msg_fds);
    l->max_data_xfer_size = line_value(line, "max_data_xfer_size",
                                       l->max_data_xfer_size);
    l->max_dma_maps = line_value(line, "max_dma_maps", l->max_dma_maps);
    l->pgsizes = line_value(line, "pgsizes", l->pgsizes);
    l->write_multiple |= line_flag(line, "write_multiple");
    l->twin_socket &= !line_flag(line, "no_twin_socket");
}

static void do_ioeventfd(TestServer *s, Line *line)
{
    unsigned region = line_first(line, 6);
    TsIoFd *io = ts_add_io_fd(s, region, line_value(line, "offset", 0),
                              line_value(line, "size", 0));

    if (line_text(line, "match")) {
        ts_io_fd_match(io, line_value(line, "match", 0));
    }
    if (line_text(line, "shadow")) {
        ts_io_fd_shadow(s, io, line_value(line, "shadow", 0) %
                               TS_IO_SHADOW_SIZE);
    }
    if (line_flag(line, "io")) {
        io->entry.flags |= VFIO_USER_IO_FD_PIO;
    }
}

static void do_message_only(TestServer *s, Line *line)
{
    (void)line;
    ts_dma_by_message_only(s);
}

static void do_like_libvfio_user(TestServer *s, Line *line)
{
    (void)line;
    ts_like_libvfio_user(s);
}

static void do_mischief(TestServer *s, Line *line)
{
    const TsMischief *m = line->words[1] ? ts_mischief_find(line->words[1])
                                         : NULL;

    if (m) {
        ts_mischief_apply(s, m);
    } else {
        line_fail(line, "no such misbehaviour", line->words[1] ?: "");
    }
}

static void do_disk(TestServer *s, Line *line)
{
    TsDiskOptions o = {
        .file = line_text(line, "file"),
        .blocks = line_value(line, "blocks", 0),
        .latency_us = line_value(line, "latency-us", 0),
        .mapped_doorbell = line_flag(line, "mapped-doorbell"),
    };
    uint64_t die[2] = { 0, 0 };

    if (line_text(line, "die")) {
        line_pair(line, line_text(line, "die"), ':', &die[0], &die[1]);
        o.die_at = die[0];
        o.die_after = die[1];
    }
    if (o.blocks > DISK_MAX_BLOCKS) {
        line_fail(line, "too many blocks:", line_text(line, "blocks"));
    } else {
        ts_add_disk(s, &o);
    }
}

static void do_spdk(TestServer *s, Line *line)
{
    (void)line;
    ts_add_spdk(s);
}

static const struct {
    const char *name;
    void (*fn)(TestServer *s, Line *line);
} directives[] = {
    { "standard", do_standard },
    { "id", do_id },
    { "bar", do_bar },
    { "rom", do_rom },
    { "region", do_region },
    { "intx", do_intx },
    { "pm", do_pm },
    { "pcie", do_pcie },
    { "msi", do_msi },
    { "msix", do_msix },
    { "irqs", do_irqs },
    { "limits", do_limits },
    { "ioeventfd", do_ioeventfd },
    { "message-only", do_message_only },
    { "like-libvfio-user", do_like_libvfio_user },
    { "mischief", do_mischief },
    { "migration", script_migration },
    { "migration-fail", script_migration_fail },
    { "migration-lie", script_migration_lie },
    { "no-features", script_no_features },
    { "engine", script_engine },
    { "disk", do_disk },
    { "spdk-like", do_spdk },
};

/* Words without the comment and without empty ones. */
static char **script_split(const char *text)
{
    g_autofree char *line = g_strndup(text, strcspn(text, "#"));
    g_auto(GStrv) raw = g_strsplit_set(line, " \t", -1);
    GPtrArray *words = g_ptr_array_new();

    for (char **w = raw; *w; w++) {
        if (**w) {
            g_ptr_array_add(words, g_strdup(*w));
        }
    }
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

char *script_line(TestServer *s, const char *text)
{
    g_auto(GStrv) words = script_split(text);
    Line line = { .words = words };

    if (!words[0]) {
        return NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(directives); i++) {
        if (!strcmp(directives[i].name, words[0])) {
            directives[i].fn(s, &line);
            return line.error;
        }
    }
    return g_strdup_printf("no such directive '%s'", words[0]);
}

char *script_file(TestServer *s, const char *path)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return g_strdup_printf("cannot read '%s'", path);
    }
    lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_autofree char *error = script_line(s, lines[i]);

        if (error) {
            return g_strdup_printf("%s:%u: %s", path, i + 1, error);
        }
    }
    return NULL;
}
