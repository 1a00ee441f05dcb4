/*
 * vfio-user qtest: a server, a QEMU, and the device between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include <glib/gstdio.h>
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "libqos/pci-pc.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

typedef struct VUTGuarded {
    void (*fn)(const void *data);
    void (*plain)(void);
    const void *data;
} VUTGuarded;

unsigned vut_nr_fds(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned nr = 0;

    g_assert(dir);
    while (g_dir_read_name(dir)) {
        nr++;
    }
    g_dir_close(dir);
    return nr;
}

void vut_wait_nr_fds(VUTest *t, unsigned nr)
{
    pid_t pid = qtest_pid(t->qts);
    int64_t end = g_get_monotonic_time() + VUT_TIMEOUT_MS * 1000;

    while (vut_nr_fds(pid) != nr && g_get_monotonic_time() < end) {
        g_usleep(500);
    }
    g_assert_cmpuint(vut_nr_fds(pid), ==, nr);
}

void vut_wait_max_fds(VUTest *t, unsigned nr)
{
    pid_t pid = qtest_pid(t->qts);

    VUT_WAIT(vut_nr_fds(pid) <= nr);
}

unsigned long vut_private_kib(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps_rollup",
                                            (int)pid);
    g_autofree char *text = NULL;
    const char *line;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "Private_Dirty:");
    g_assert(line);
    return strtoul(line + strlen("Private_Dirty:"), NULL, 10);
}

void vut_check_growth(unsigned long before, unsigned long after,
                      unsigned long most)
{
    g_test_message("private memory: %lu KiB, then %lu KiB", before, after);
#ifndef __SANITIZE_ADDRESS__
    g_assert_cmpuint(after, <=, before + most);
#endif
}

TestServer *vut_server(const char *dir, const char *name,
                       void (*setup)(TestServer *s))
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    TestServer *s = ts_new();

    ts_standard_device(s);
    if (setup) {
        setup(s);
    }
    g_assert_cmpint(ts_start(s, path), ==, 0);
    return s;
}

void vut_setup_unmapped(TestServer *s)
{
    for (unsigned i = 0; i < 6; i++) {
        TsRegion *r = ts_region(s, i, 0, 0);

        memset(r->areas, 0, sizeof(r->areas));
        r->nr_areas = 0;
    }
    ts_add_bar(s, 0, 0x1000, 0);
    ts_add_bar(s, 1, 0x1000, TS_BAR_PREFETCH);
    ts_add_bar(s, 2, 0x10000, TS_BAR_64 | TS_BAR_PREFETCH);
    ts_add_bar(s, 4, 256, TS_BAR_IO);
    ts_add_bar(s, 5, 0x2000, 0);
}

static char *vut_arguments(VUTest *t, const VUTOptions *o)
{
    GString *args = g_string_new(NULL);
    g_auto(GStrv) parts = g_strsplit(o->args ?: "", "%s", -1);
    g_autofree char *more = g_strjoinv(t->dir, parts);

    g_string_append_printf(args, "-nodefaults -machine %s%s ",
                           o->machine ?: "pc",
                           o->shared_ram ? ",memory-backend=mem" : "");
    if (o->shared_ram) {
        g_string_append(args, "-m 128M -object memory-backend-memfd,id=mem,"
                        "size=128M,share=on ");
    }
    g_string_append(args, more);
    if (!o->no_device) {
        g_string_append_printf(args, " -device vfio-user-pci,id=" VUT_ID
                               ",addr=%x,socket=%s%s", VUT_SLOT, t->path,
                               o->device ?: "");
    }
    if (o->stderr_file) {
        g_string_append_printf(args, " 2>%s/stderr", t->dir);
    }
    return g_string_free(args, FALSE);
}

VUTest *vut_new(const VUTOptions *o)
{
    VUTest *t = g_new0(VUTest, 1);
    g_autofree char *args = NULL;

    t->dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL);
    t->path = g_build_filename(t->dir, "sock", NULL);
    if (o->bare) {
        t->s = ts_new();
        if (o->setup) {
            o->setup(t->s);
        }
        g_assert_cmpint(ts_start(t->s, t->path), ==, 0);
    } else {
        t->s = vut_server(t->dir, "sock", o->setup);
    }
    args = vut_arguments(t, o);
    t->qts = qtest_init(args);
    t->bus = qpci_new_pc(t->qts, NULL);
    if (!o->no_device) {
        vut_find(t, VUT_SLOT);
    }
    return t;
}

void vut_find(VUTest *t, unsigned slot)
{
    g_free(t->dev);
    t->dev = qpci_device_find(t->bus, QPCI_DEVFN(slot, 0));
    g_assert(t->dev);
}

QPCIBar vut_map_bar(VUTest *t, unsigned bar)
{
    QPCIBar where = qpci_iomap(t->dev, bar, NULL);

    qpci_device_enable(t->dev);
    return where;
}

void vut_bar_write(VUTest *t, QPCIBar bar, uint64_t off, unsigned size,
                   uint64_t value)
{
    switch (size) {
    case 1:
        qpci_io_writeb(t->dev, bar, off, value);
        break;
    case 2:
        qpci_io_writew(t->dev, bar, off, value);
        break;
    case 4:
        qpci_io_writel(t->dev, bar, off, value);
        break;
    default:
        qtest_writeq(t->qts, bar.addr + off, value);
        break;
    }
}

static bool take_event(VUTest *t, const char *name)
{
    QDict *event;

    /* In a qtest the clock that counts stands still. */
    qtest_clock_step(t->qts, NANOSECONDS_PER_SECOND + 1);
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
    event = qtest_qmp_event_ref(t->qts, name);
    qobject_unref(event);
    return event;
}

uint64_t vut_nr_refused(VUTest *t, uint64_t *bytes)
{
    QDict *answer = qtest_qmp(t->qts, "{'execute': 'query-vfio-user', "
                              "'arguments': {'id': %s}}", VUT_ID);
    const QListEntry *first = qlist_first(qdict_get_qlist(answer, "return"));
    QDict *info = qobject_to(QDict, qlist_entry_obj(first));
    QDict *windows = qdict_get_qdict(info, "windows-refused");
    uint64_t nr = qdict_get_int(windows, "count");

    *bytes = qdict_get_int(windows, "bytes");
    qobject_unref(answer);
    return nr;
}

void vut_wait_event(VUTest *t, const char *name)
{
    VUT_WAIT(take_event(t, name));
}

void vut_flush(VUTest *t)
{
    uint8_t cap = qpci_find_capability(t->dev, PCI_CAP_ID_VNDR, 0);
    TsMatch read = { VFIO_USER_REGION_READ, VFIO_USER_REGION_CONFIG, cap + 4 };
    unsigned before = ts_log_count(t->s, read);

    qpci_config_readb(t->dev, cap + 4);
    g_assert_cmpuint(ts_log_count(t->s, read), ==, before + 1);
}

/* What has a limit of its own, whatever x-msg-timeout-ms is: in ms. */
static int64_t lock_wait_limit_ms(const char *entry)
{
    return !strcmp(entry, "state-change") || !strcmp(entry, "log-start") ? 200 :
           !strcmp(entry, "log-round") || !strcmp(entry, "gate") ? 20 : INT_MAX;
}

/* The server was waited for with the BQL only where docs/devel has an entry. */
static void check_lock_waits(const QDict *device)
{
    QDict *stats = qdict_get_qdict(device, "stats");
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(stats, "lock-waits"), e) {
        QDict *waits = qobject_to(QDict, qlist_entry_obj(e));
        const char *entry = qdict_get_str(waits, "entry");

        g_assert_cmpstr(entry, !=, "unlisted");
        g_assert_cmpint(qdict_get_int(waits, "limit") / SCALE_MS, <=,
                        lock_wait_limit_ms(entry));
    }
}

void vut_check_lock_waits(VUTest *t)
{
    const QListEntry *e;
    QDict *response;

    if (!qtest_probe_child(t->qts)) {
        return;
    }
    response = qtest_qmp(t->qts, "{'execute': 'query-vfio-user'}");
    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), e) {
        check_lock_waits(qobject_to(QDict, qlist_entry_obj(e)));
    }
    qobject_unref(response);
}

void vut_free(VUTest *t)
{
    g_autofree char *log = g_build_filename(t->dir, "stderr", NULL);

    vut_check_lock_waits(t);
    g_free(t->dev);
    qpci_free_pc(t->bus);
    qtest_quit(t->qts);
    g_assert(ts_wait_connected(t->s, false));
    g_assert_cmpuint(ts_dma_nr_windows(t->s), ==, 0);
    ts_free(t->s);
    g_unlink(log);
    g_assert_cmpint(g_rmdir(t->dir), ==, 0);
    g_free(t->dir);
    g_free(t->path);
    g_free(t);
}

char *vut_stderr(VUTest *t)
{
    g_autofree char *path = g_build_filename(t->dir, "stderr", NULL);
    char *text = NULL;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

unsigned vut_occurrences(const char *text, const char *needle)
{
    unsigned nr = 0;

    while ((text = strstr(text, needle))) {
        text += strlen(needle);
        nr++;
    }
    return nr;
}

static bool vut_stderr_has(VUTest *t, const char *text)
{
    g_autofree char *log = vut_stderr(t);

    return strstr(log, text) != NULL;
}

void vut_wait_stderr(VUTest *t, const char *text)
{
    int64_t end = g_get_monotonic_time() + VUT_TIMEOUT_MS * 1000;

    while (!vut_stderr_has(t, text)) {
        if (g_get_monotonic_time() > end) {
            g_autofree char *log = vut_stderr(t);

            g_error("waited in vain for '%s' in: %s", text, log);
        }
        g_usleep(500);
    }
}

char *vut_add(VUTest *t, const char *id, const char *socket,
              unsigned timeout_ms)
{
    QDict *response, *error;
    char *text = NULL;

    response = qtest_qmp(t->qts, "{'execute': 'device_add', 'arguments': "
                         "{'driver': 'vfio-user-pci', 'id': %s, "
                         "'socket': %s, 'x-msg-timeout-ms': %u}}",
                         id, socket, timeout_ms);
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    return text;
}

static void vut_wait_deleted(VUTest *t, const char *id)
{
    bool found = false;

    while (!found) {
        QDict *event = qtest_qmp_eventwait_ref(t->qts, "DEVICE_DELETED");
        QDict *data = qdict_get_qdict(event, "data");

        found = !g_strcmp0(qdict_get_try_str(data, "device"), id);
        qobject_unref(event);
    }
}

/* ACPI's hotplug registers of a pc: bus 0 is selected after reset. */
#define VUT_PCIHP_EJECT 0xae08

void vut_del(VUTest *t, const char *id, unsigned slot)
{
    vut_check_lock_waits(t);
    qtest_qmp_device_del_send(t->qts, id);
    qtest_outl(t->qts, VUT_PCIHP_EJECT, 1u << slot);
    vut_wait_deleted(t, id);
}

void vut_del_by_reset(VUTest *t, const char *id)
{
    qtest_qmp_device_del_send(t->qts, id);
    qtest_system_reset_nowait(t->qts);
    vut_wait_deleted(t, id);
}

static void vut_run_guarded(const void *opaque)
{
    const VUTGuarded *g = opaque;
    unsigned before = vut_nr_fds(getpid());

    if (g->plain) {
        g->plain();
    } else {
        g->fn(g->data);
    }
    g_assert_cmpuint(vut_nr_fds(getpid()), ==, before);
}

static void vut_add_guarded(const char *path, VUTGuarded guarded)
{
    qtest_add_data_func_full(path, g_memdup2(&guarded, sizeof(guarded)),
                             vut_run_guarded, g_free);
}

void vut_add_test(const char *path, void (*fn)(void))
{
    vut_add_guarded(path, (VUTGuarded) { .plain = fn });
}

void vut_add_data_test(const char *path, const void *data,
                       void (*fn)(const void *data))
{
    vut_add_guarded(path, (VUTGuarded) { .fn = fn, .data = data });
}
