/*
 * vfio-user qtest: what the monitor says of devices, and of servers that go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "hw/pci/pci_regs.h"
#include "vfio-user-monitor.h"

/* The device ------------------------------------------------------------- */

static void check_windows(VUTest *t, bool any_with_fd)
{
    QDict *info = vum_query(t);
    QDict *with_fd = qdict_get_qdict(info, "windows-with-fd");
    QDict *by_message = qdict_get_qdict(info, "windows-by-message");
    uint64_t nr[2] = { 0 }, bytes[2] = { 0 };
    TsWindow w;

    for (unsigned i = 0; ts_dma_window(t->s, i, &w); i++) {
        nr[w.has_fd]++;
        bytes[w.has_fd] += w.size;
    }
    g_assert_cmpint(nr[1] > 0, ==, any_with_fd);
    g_assert_cmpint(qdict_get_int(with_fd, "count"), ==, nr[1]);
    g_assert_cmpint(qdict_get_int(with_fd, "bytes"), ==, bytes[1]);
    g_assert_cmpint(qdict_get_int(by_message, "count"), ==, nr[0]);
    g_assert_cmpint(qdict_get_int(by_message, "bytes"), ==, bytes[0]);
    qobject_unref(info);
}

static void test_windows_shared(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });

    check_windows(t, true);
    vut_free(t);
}

static void test_windows_private(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    check_windows(t, false);
    vut_free(t);
}

static void test_windows_not_shared(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .shared_ram = true, .device = ",dma-share=off",
    });

    check_windows(t, false);
    vut_free(t);
}

static void test_regions(void)
{
    static const struct {
        unsigned index;
        uint64_t size, mapped;
        const char *modes;
    } want[] = {
        { 0, 0x1000, 0, "message" },
        { 1, 0x8000, 0x3000, "message mapped" },
        { 2, 0x10000, 0x10000, "mapped" },
        { 4, 0x100, 0, "message" },
        { 5, 0x2000, 0, "message" },
        { 6, 0x1000, 0, "message" },
        { 7, 0x1000, 0, "message" },
    };
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QDict *info = vum_query(t);

    g_assert_cmpuint(qlist_size(qdict_get_qlist(info, "regions")), ==,
                     ARRAY_SIZE(want));
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        QDict *r = vum_region(info, want[i].index);

        g_assert(r);
        g_assert_cmpint(qdict_get_int(r, "size"), ==, want[i].size);
        g_assert_cmpint(qdict_get_int(r, "mapped"), ==, want[i].mapped);
        g_assert_cmpint(qdict_get_int(r, "ioeventfds"), ==, 0);
        g_assert(!qdict_get_bool(r, "posted"));
        vum_check_words(r, "modes", want[i].modes);
    }
    qobject_unref(info);
    vut_free(t);
}

static void setup_bells(TestServer *s)
{
    ts_add_io_fd(s, 0, 0x40, 4);
    ts_add_io_fd(s, 0, 0x48, 4);
    ts_add_io_fd(s, 1, 0x10, 2);
    /* In a mapped area: not used */
    ts_add_io_fd(s, 1, 0x1000, 4);
}

static void test_bells(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_bells });
    QPCIBar bar = vut_map_bar(t, 0);
    QDict *info = vum_query(t);

    vum_check_words(info, "capabilities", "reset twin-socket ioeventfd");
    vum_check_words(vum_region(info, 0), "modes", "message ioeventfd");
    g_assert_cmpint(qdict_get_int(vum_region(info, 0), "ioeventfds"), ==, 2);
    g_assert_cmpint(qdict_get_int(vum_region(info, 0), "kvm-ioeventfds"), ==,
                    0);
    vum_check_words(vum_region(info, 1), "modes", "message mapped ioeventfd");
    g_assert_cmpint(qdict_get_int(vum_region(info, 1), "ioeventfds"), ==, 1);
    qobject_unref(info);

    /* A signal is no message. */
    vut_flush(t);
    vum_stats_reset(t);
    qpci_io_writel(t->dev, bar, 0x40, 1);
    qpci_io_writel(t->dev, bar, 0x44, 1);
    g_assert_cmpint(vum_count_now(t, "region-write", "messages"), ==, 1);
    vut_free(t);
}

static void check_irqs(VUTest *t, const char *type, unsigned vectors,
                       unsigned assigned)
{
    QDict *info = vum_query(t);
    QDict *i = vum_entry(info, "interrupts", "type", type);

    g_assert(i);
    g_assert_cmpint(qdict_get_int(i, "vectors"), ==, vectors);
    g_assert_cmpint(qdict_get_int(i, "assigned"), ==, assigned);
    g_assert_cmpint(qdict_get_int(i, "irqfds"), ==, 0);
    qobject_unref(info);
}

static void test_interrupts(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    check_irqs(t, "intx", 1, 1);
    check_irqs(t, "msi", TS_STANDARD_MSI, 0);
    check_irqs(t, "msix", TS_STANDARD_MSIX, 0);
    check_irqs(t, "err", 1, 1);
    check_irqs(t, "req", 1, 1);

    qpci_device_enable(t->dev);
    qpci_msix_enable(t->dev);
    for (unsigned v = 2; v < 7; v++) {
        uint64_t at = t->dev->msix_table_off + v * 16;

        qpci_io_writel(t->dev, t->dev->msix_table_bar, at, 0x10000);
        qpci_io_writel(t->dev, t->dev->msix_table_bar, at + 4, 0);
        qpci_io_writel(t->dev, t->dev->msix_table_bar, at + 8, v);
        qpci_io_writel(t->dev, t->dev->msix_table_bar, at + 12, 0);
    }
    vut_flush(t);
    check_irqs(t, "intx", 1, 0);
    check_irqs(t, "msix", TS_STANDARD_MSIX,
               ts_irq_nr_fds(t->s, VFIO_USER_IRQ_MSIX));
    g_assert_cmpuint(ts_irq_nr_fds(t->s, VFIO_USER_IRQ_MSIX), >=, 5);
    qpci_msix_disable(t->dev);
    check_irqs(t, "intx", 1, 1);
    check_irqs(t, "msix", TS_STANDARD_MSIX, 0);
    vut_free(t);
}

/* A server that goes and comes back ---------------------------------------- */

static bool is_state(VUTest *t, const char *state)
{
    QDict *info = vum_query(t);
    bool is = !strcmp(qdict_get_str(info, "state"), state);

    qobject_unref(info);
    return is;
}

static void lose(VUTest *t)
{
    ts_stop_listening(t->s);
    ts_disconnect(t->s);
    vut_wait_event(t, "VFIO_USER_DISCONNECTED");
}

static void test_gone(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    QDict *info;
    int64_t reads;

    vut_map_bar(t, 0);
    reads = vum_count_now(t, "region-read", "messages");
    g_assert_cmpint(reads, >, 0);
    lose(t);
    info = vum_query(t);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "gone");
    g_assert(strstr(qdict_get_str(info, "reason"),
                    "the server closed the connection"));
    g_assert_cmpint(qdict_get_int(info, "attempts"), ==, 0);
    /* Nothing is mapped any more, and the counters stay. */
    vum_check_words(vum_region(info, 2), "modes", "message");
    g_assert_cmpint(qdict_get_int(vum_region(info, 2), "mapped"), ==, 0);
    g_assert_cmpint(vum_counted(info, "region-read", "messages"), ==, reads);
    qobject_unref(info);
    vum_stats_reset(t);
    g_assert_cmpint(vum_count_now(t, "region-read", "messages"), ==, 0);
    vut_free(t);
}

/* It is told of its windows, but stops before it has heard of all. */
static int stop_at_return(TestServer *s, TsMessage *request, TsMessage *reply,
                          void *opaque)
{
    if (ts_nr_clients(s) == 2) {
        ts_hold(s);
    }
    return -1;
}

static void setup_stop_at_return(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_DMA_MAP, stop_at_return, NULL);
}

static void test_return(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .shared_ram = true, .device = ",reconnect-ms=5",
        .setup = setup_stop_at_return,
    });
    int64_t versions;
    QDict *info;

    vut_map_bar(t, 0);
    /* For the time of an INTx hw/vfio forbids mapped areas. */
    qpci_msix_enable(t->dev);
    versions = vum_count_now(t, "version", "messages");
    g_assert_cmpint(versions, ==, 1);
    lose(t);
    VUT_WAIT(({
        info = vum_query(t);
        bool tried = qdict_get_int(info, "attempts") > 0;

        g_assert_cmpstr(qdict_get_str(info, "state"), ==, "disconnected");
        g_assert_cmpint(qdict_get_int(info, "reconnects"), ==, 0);
        qobject_unref(info);
        tried;
    }));

    g_assert_cmpint(ts_listen_again(t->s, t->path), ==, 0);
    VUT_WAIT(is_state(t, "returning"));
    info = vum_query(t);
    g_assert(!qdict_haskey(info, "reason"));
    g_assert_cmpint(qdict_get_int(info, "reconnects"), ==, 0);
    /* Those of both connections */
    g_assert_cmpint(vum_counted(info, "version", "messages"), ==, 2);
    qobject_unref(info);

    ts_release(t->s);
    VUT_WAIT(({
        ts_release(t->s);
        is_state(t, "connected");
    }));
    info = vum_query(t);
    g_assert_cmpint(qdict_get_int(info, "reconnects"), ==, 1);
    vum_check_words(vum_region(info, 2), "modes", "mapped");
    qobject_unref(info);
    check_windows(t, true);
    vut_free(t);
}

static void setup_other_device(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE + 1, 0xff0000, 1);
}

static void test_refused(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .device = ",reconnect-ms=5" });
    QDict *info;

    lose(t);
    ts_free(t->s);
    t->s = vut_server(t->dir, "sock", setup_other_device);
    vut_wait_event(t, "VFIO_USER_REFUSED");
    info = vum_query(t);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "disconnected");
    g_assert(strstr(qdict_get_str(info, "refusal"), "device ID is 0x5679"));
    g_assert_cmpint(qdict_get_int(info, "attempts"), >, 0);
    qobject_unref(info);

    ts_free(t->s);
    t->s = vut_server(t->dir, "sock", NULL);
    vut_wait_event(t, "VFIO_USER_RECONNECTED");
    info = vum_query(t);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "connected");
    g_assert(!qdict_haskey(info, "refusal"));
    qobject_unref(info);
    vut_free(t);
}

/* Which device? ------------------------------------------------------------ */

static void check_not_found(VUTest *t, const char *command, const char *id)
{
    QDict *error = qtest_qmp_assert_failure_ref(
        t->qts, "{'execute': %s, 'arguments': {'id': %s}}", command, id);

    g_assert_cmpstr(qdict_get_str(error, "class"), ==, "DeviceNotFound");
    g_assert(strstr(qdict_get_str(error, "desc"), id));
    qobject_unref(error);
}

static void check_nr_devices(VUTest *t, unsigned nr)
{
    QList *list = vum_query_all(t);

    g_assert_cmpuint(qlist_size(list), ==, nr);
    qobject_unref(list);
}

static void test_two_devices(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    TestServer *other = vut_server(t->dir, "other", NULL);
    g_autofree char *path = g_build_filename(t->dir, "other", NULL);
    QPCIBar bar = vut_map_bar(t, 0);
    QList *list;
    QDict *info;

    g_assert_null(vut_add(t, "vu1", path, VUT_TIMEOUT_MS));
    list = vum_query_all(t);
    g_assert_cmpuint(qlist_size(list), ==, 2);
    info = qobject_to(QDict, qlist_peek(list));
    g_assert_cmpstr(qdict_get_str(info, "id"), ==, VUT_ID);
    qobject_unref(list);

    vut_flush(t);
    vum_stats_reset(t);
    for (unsigned i = 0; i < 7; i++) {
        qpci_io_readl(t->dev, bar, VUM_REG);
    }
    g_assert_cmpint(vum_count_now(t, "region-read", "messages"), ==, 7);
    info = vum_query_id(t, "/machine/peripheral/vu1");
    g_assert_cmpstr(qdict_get_str(info, "id"), ==, "vu1");
    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(info, "socket"), "path"), ==,
                    path);
    g_assert_cmpint(vum_counted(info, "region-read", "messages"), ==, 0);
    qobject_unref(info);

    /* Of one only */
    qtest_qmp_assert_success(t->qts, "{'execute': 'x-vfio-user-stats-reset', "
                             "'arguments': {'id': 'vu1'}}");
    g_assert_cmpint(vum_count_now(t, "region-read", "messages"), ==, 7);
    qtest_qmp_assert_success(t->qts, "{'execute': 'x-vfio-user-stats-reset', "
                             "'arguments': {'id': %s}}", VUM_QOM_PATH);
    g_assert_cmpint(vum_count_now(t, "region-read", "messages"), ==, 0);

    check_not_found(t, "query-vfio-user", "nobody");
    check_not_found(t, "x-vfio-user-stats-reset", "nobody");
    vut_del_by_reset(t, "vu1");
    check_nr_devices(t, 1);
    check_not_found(t, "query-vfio-user", "vu1");
    ts_free(other);
    vut_free(t);
}

/* Without ID it is known by its path. */
static void test_no_id(void)
{
    g_autofree char *dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL);
    TestServer *s = vut_server(dir, "anon", NULL);
    g_autofree char *args = g_strdup_printf("-device vfio-user-pci,"
                                            "socket=%s/anon", dir);
    VUTest *t = vut_new(&(VUTOptions) { .no_device = true, .args = args });
    QList *list = vum_query_all(t);
    QDict *info = qobject_to(QDict, qlist_peek(list)), *same;
    const char *path = qdict_get_str(info, "qom-path");

    g_assert(!qdict_haskey(info, "id"));
    g_assert(g_str_has_prefix(path, "/machine/peripheral-anon/"));
    same = vum_query_id(t, path);
    g_assert_cmpstr(qdict_get_str(same, "qom-path"), ==, path);
    qobject_unref(same);
    qobject_unref(list);
    vut_free(t);
    ts_free(s);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* One that does not get as far as to be a device is none. */
static void test_no_device(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DMA_MAP, .index = -1,
        .a = ENOMEM,
    };
    VUTest *t = vut_new(&(VUTOptions) { .no_device = true });
    g_autofree char *error = NULL;

    check_nr_devices(t, 0);
    vum_stats_reset(t);
    ts_add_move(t->s, &refuse);
    error = vut_add(t, VUT_ID, t->path, VUT_TIMEOUT_MS);
    g_assert_nonnull(error);
    check_nr_devices(t, 0);
    check_not_found(t, "query-vfio-user", VUT_ID);
    vut_free(t);
}

/* For people --------------------------------------------------------------- */

static void check_text(const char *text, const char *const *lines)
{
    for (; *lines; lines++) {
        if (!g_pattern_match_simple(*lines, text)) {
            g_error("'%s' is not in: %s", *lines, text);
        }
    }
}

static void test_info(void)
{
    static const char *const lines[] = {
        VUT_ID ": unix:/*/sock\r\n  state: connected\r\n*",
        "*\n  protocol 0.2: 1 MiB and 8 descriptors a message, 65535 windows, "
        "page sizes 0x1000, 5000 ms to answer\r\n*",
        "*\n  capabilities: reset twin-socket ioeventfd\r\n*",
        "*\n  memory: ? windows with descriptor (*), * by message (*)\r\n*",
        "*\n  bar0: 4 KiB, message + ioeventfd (2, 0 by KVM)\r\n*",
        "*\n  bar1: 32 KiB, message + mapped (12 KiB) + ioeventfd (1, 0 by "
        "KVM)\r\n*",
        "*\n  bar2: 64 KiB, mapped\r\n*",
        "*\n  rom: 4 KiB, message\r\n  config: 4 KiB, message\r\n*",
        "*\n  interrupts: intx 1 of 1, msi 0 of 4, msix 0 of 16, err 1 of 1, "
        "req 1 of 1\r\n*",
        "*\n  version                           1          0          1"
        "        0        0        0 *",
        "*\n  accesses   total *",
        NULL
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .shared_ram = true, .setup = setup_bells,
    });
    g_autofree char *all = qtest_hmp(t->qts, "info vfio-user");
    g_autofree char *one = qtest_hmp(t->qts, "info vfio-user " VUT_ID);
    g_autofree char *none = qtest_hmp(t->qts, "info vfio-user nobody");

    check_text(all, lines);
    check_text(one, lines);
    g_assert(strstr(none, "There is no vfio-user device 'nobody'"));
    vut_free(t);
}

static void test_info_posted(void)
{
    static const char *const lines[] = {
        "*\n  bar0: 4 KiB, message (writes posted)\r\n*",
        "*\n  bar4: 256 B, message\r\n*",
        NULL
    };
    VUTest *t = vut_new(&(VUTOptions) { .setup = vut_setup_unmapped });
    g_autofree char *text = qtest_hmp(t->qts, "info vfio-user");

    check_text(text, lines);
    vut_free(t);
}

/* Stopped, then gone */
static void test_info_trouble(void)
{
    static const char *const stopped[] = {
        "*\n  state: connected, one message at a time\r\n*",
        "*\n  messages in * s: 1 not answered yet, the first for * ?s\r\n*",
        NULL
    };
    static const char *const gone[] = {
        "*\n  state: gone (the server closed the connection), reconnects 0, "
        "attempts 0*",
        "*\n  bar2: 64 KiB, message\r\n*",
        NULL
    };
    VUTest *t = vut_new(&(VUTOptions) { .setup = vum_setup_one_socket });
    g_autofree char *before = NULL, *after = NULL;

    vut_flush(t);
    ts_hold(t->s);
    qpci_config_writew(t->dev, PCI_COMMAND, PCI_COMMAND_MEMORY);
    before = qtest_hmp(t->qts, "info vfio-user");
    check_text(before, stopped);
    ts_release(t->s);
    lose(t);
    after = qtest_hmp(t->qts, "info vfio-user");
    check_text(after, gone);
    vut_free(t);
}

static void test_info_none(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .no_device = true });
    g_autofree char *text = qtest_hmp(t->qts, "info vfio-user");

    g_assert_cmpstr(text, ==, "No vfio-user device\r\n");
    vut_free(t);
}

void vum_register_device(void)
{
#define T(name, func) vut_add_test("vfio-user/monitor/" name, func)
    T("windows/shared", test_windows_shared);
    T("windows/private", test_windows_private);
    T("windows/not-shared", test_windows_not_shared);
    T("regions", test_regions);
    T("ioeventfds", test_bells);
    T("interrupts", test_interrupts);
    T("gone", test_gone);
    T("return", test_return);
    T("refused", test_refused);
    T("two-devices", test_two_devices);
    T("no-id", test_no_id);
    T("no-device", test_no_device);
    T("info/all", test_info);
    T("info/posted", test_info_posted);
    T("info/trouble", test_info_trouble);
    T("info/none", test_info_none);
#undef T
}
