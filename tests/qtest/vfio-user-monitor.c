/*
 * vfio-user qtest: what the monitor says of a connection, and counts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is compared with what the server has seen.
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qstring.h"
#include "vfio-user-monitor.h"

/* Numbers of the protocol, names of QAPI */
static const char *const command_names[] = {
    [1] = "version",
    [2] = "dma-map",
    [3] = "dma-unmap",
    [4] = "device-get-info",
    [5] = "device-get-region-info",
    [6] = "device-get-region-io-fds",
    [7] = "device-get-irq-info",
    [8] = "device-set-irqs",
    [9] = "region-read",
    [10] = "region-write",
    [11] = "dma-read",
    [12] = "dma-write",
    [13] = "device-reset",
    [14] = "dirty-pages",
    [15] = "region-write-multi",
    [16] = "device-feature",
    [17] = "mig-data-read",
    [18] = "mig-data-write",
};

/* Asking ------------------------------------------------------------------ */

QList *vum_query_all(VUTest *t)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'query-vfio-user'}");
    QList *list = qdict_get_qlist(response, "return");

    g_assert(list);
    qobject_ref(list);
    qobject_unref(response);
    return list;
}

QDict *vum_query_id(VUTest *t, const char *id)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'query-vfio-user', "
                                "'arguments': {'id': %s}}", id);
    QList *list = qdict_get_qlist(response, "return");
    QDict *info;

    g_assert(list);
    g_assert_cmpuint(qlist_size(list), ==, 1);
    info = qobject_to(QDict, qlist_peek(list));
    qobject_ref(info);
    qobject_unref(response);
    return info;
}

QDict *vum_query(VUTest *t)
{
    return vum_query_id(t, VUT_ID);
}

void vum_stats_reset(VUTest *t)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'x-vfio-user-stats-reset'}");
}

QDict *vum_stats_of(QDict *info)
{
    return qdict_get_qdict(info, "stats");
}

QDict *vum_entry(QDict *dict, const char *list, const char *key,
                 const char *value)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(dict, list), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));

        if (!strcmp(qdict_get_str(d, key), value)) {
            return d;
        }
    }
    return NULL;
}

QDict *vum_region(QDict *info, unsigned index)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "regions"), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));

        if (qdict_get_int(d, "index") == index) {
            return d;
        }
    }
    return NULL;
}

/* Its words with blanks between them */
static char *words(QDict *dict, const char *list)
{
    GString *s = g_string_new(NULL);
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(dict, list), e) {
        g_string_append_printf(s, "%s%s", s->len ? " " : "",
                               qstring_get_str(qobject_to(QString,
                                   qlist_entry_obj(e))));
    }
    return g_string_free(s, FALSE);
}

void vum_check_words(QDict *dict, const char *list, const char *want)
{
    g_autofree char *is = words(dict, list);

    g_assert_cmpstr(is, ==, want);
}

int64_t vum_counted(QDict *info, const char *command, const char *what)
{
    QDict *c = vum_entry(vum_stats_of(info), "commands", "command", command);

    return c ? qdict_get_int(c, what) : 0;
}

int64_t vum_count_now(VUTest *t, const char *command, const char *what)
{
    QDict *info = vum_query(t);
    int64_t nr = vum_counted(info, command, what);

    qobject_unref(info);
    return nr;
}

/* The connection ---------------------------------------------------------- */

static void test_connection(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .device = ",x-msg-timeout-ms=7000" });
    QDict *info = vum_query(t);
    QDict *socket = qdict_get_qdict(info, "socket");
    QDict *limits = qdict_get_qdict(info, "limits");

    g_assert_cmpstr(qdict_get_str(info, "id"), ==, VUT_ID);
    g_assert_cmpstr(qdict_get_str(info, "qom-path"), ==, VUM_QOM_PATH);
    g_assert_cmpstr(qdict_get_str(socket, "type"), ==, "unix");
    g_assert_cmpstr(qdict_get_str(socket, "path"), ==, t->path);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "connected");
    g_assert(!qdict_haskey(info, "reason"));
    g_assert(!qdict_haskey(info, "refusal"));
    g_assert_cmpint(qdict_get_int(info, "reconnects"), ==, 0);
    g_assert_cmpint(qdict_get_int(limits, "major"), ==, 0);
    g_assert_cmpint(qdict_get_int(limits, "minor"), ==, 2);
    g_assert_cmpint(qdict_get_int(limits, "max-msg-fds"), ==, 8);
    g_assert_cmpint(qdict_get_int(limits, "max-data-xfer-size"), ==,
                    VUM_MIB);
    g_assert_cmpint(qdict_get_int(limits, "max-dma-maps"), ==, 65535);
    g_assert_cmpint(qdict_get_int(limits, "pgsizes"), ==, 4096);
    g_assert_cmpint(qdict_get_int(limits, "timeout"), ==, 7000);
    vum_check_words(info, "capabilities", "reset twin-socket");
    g_assert(!qdict_get_bool(info, "lockstep"));
    qobject_unref(info);
    vut_free(t);
}

static void setup_limits(TestServer *s)
{
    TsLimits *l = ts_limits(s);

    l->minor = 1;
    l->max_msg_fds = 3;
    l->max_data_xfer_size = 65536;
    l->max_dma_maps = 77;
    l->pgsizes = 0x201000;
    l->twin_socket = false;
    l->write_multiple = true;
    ts_info(s)->flags = VFIO_USER_DEVICE_PCI;
}

/* Private memory and one socket: one message at a time */
static void test_limits(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_limits });
    QDict *info = vum_query(t);
    QDict *limits = qdict_get_qdict(info, "limits");

    g_assert_cmpint(qdict_get_int(limits, "minor"), ==, 1);
    g_assert_cmpint(qdict_get_int(limits, "max-msg-fds"), ==, 3);
    g_assert_cmpint(qdict_get_int(limits, "max-data-xfer-size"), ==, 65536);
    g_assert_cmpint(qdict_get_int(limits, "max-dma-maps"), ==, 77);
    g_assert_cmpint(qdict_get_int(limits, "pgsizes"), ==, 0x201000);
    vum_check_words(info, "capabilities", "write-multiple");
    g_assert(qdict_get_bool(info, "lockstep"));
    qobject_unref(info);
    vut_free(t);
}

/* Counters ---------------------------------------------------------------- */

/* From the first message on, nothing is missed and nothing counted twice. */
static void test_all_messages(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .shared_ram = true });
    QDict *info;

    qpci_io_writel(t->dev, vut_map_bar(t, 0), VUM_REG, 1);
    vut_flush(t);
    info = vum_query(t);
    for (unsigned c = 1; c < ARRAY_SIZE(command_names); c++) {
        const char *name = command_names[c];
        unsigned nr = ts_log_count(t->s, (TsMatch) { c, -1, -1 });

        g_assert_cmpint(vum_counted(info, name, "messages"), ==, nr);
        g_assert_cmpint(vum_counted(info, name, "replies"), ==,
                        nr - vum_counted(info, name, "no-reply"));
        g_assert_cmpint(vum_counted(info, name, "timeouts"), ==, 0);
        g_assert_cmpint(vum_counted(info, name, "given-up"), ==, 0);
        g_assert_cmpint(vum_counted(info, name, "bytes-sent"), >=, 16 * nr);
    }
    g_assert_cmpint(vum_counted(info, "version", "messages"), ==, 1);
    g_assert_cmpint(vum_counted(info, "dma-map", "messages"), >, 0);
    qobject_unref(info);
    vut_free(t);
}

static void check_latency(QDict *stats, const char *kind, const char *when,
                          unsigned nr)
{
    QDict *l = qdict_get_qdict(qdict_get_qdict(stats, kind), when);

    g_assert_cmpint(qdict_get_int(l, "count"), ==, nr);
    g_assert_cmpint(qdict_get_int(l, "p50"), <=, qdict_get_int(l, "p99"));
    g_assert_cmpint(qdict_get_int(l, "p99"), <=, qdict_get_int(l, "max"));
    g_assert_cmpint(qdict_get_int(l, "p50") > 0, ==, nr > 0);
}

#define NR_READS    100

static void test_reads(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QPCIBar bar = vut_map_bar(t, 0);
    QDict *info, *stats;

    vut_flush(t);
    vum_stats_reset(t);
    for (unsigned i = 0; i < NR_READS; i++) {
        qpci_io_readl(t->dev, bar, VUM_REG);
    }
    info = vum_query(t);
    stats = vum_stats_of(info);
    g_assert_cmpuint(qlist_size(qdict_get_qlist(stats, "commands")), ==, 1);
    g_assert_cmpint(vum_counted(info, "region-read", "messages"), ==, NR_READS);
    g_assert_cmpint(vum_counted(info, "region-read", "replies"), ==, NR_READS);
    g_assert_cmpint(vum_counted(info, "region-read", "no-reply"), ==, 0);
    g_assert_cmpint(vum_counted(info, "region-read", "errors"), ==, 0);
    /* A header of 16 bytes, 16 of arguments, 4 of data in the reply */
    g_assert_cmpint(vum_counted(info, "region-read", "bytes-sent"), ==,
                    NR_READS * 32);
    g_assert_cmpint(vum_counted(info, "region-read", "bytes-received"), ==,
                    NR_READS * 36);
    check_latency(stats, "access", "total", NR_READS);
    check_latency(stats, "access", "recent", NR_READS);
    check_latency(stats, "other", "total", 0);
    check_latency(stats, "other", "recent", 0);
    g_assert_cmpint(qdict_get_int(stats, "pending"), ==, 0);
    g_assert_cmpint(qdict_get_int(stats, "oldest-pending"), ==, 0);
    qobject_unref(info);
    vut_free(t);
}

static void test_posted_writes(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = vut_setup_unmapped });
    QPCIBar bar = vut_map_bar(t, 0);
    QDict *info;

    vut_flush(t);
    vum_stats_reset(t);
    for (unsigned i = 0; i < 50; i++) {
        qpci_io_writel(t->dev, bar, VUM_REG, i);
    }
    info = vum_query(t);
    g_assert(qdict_get_bool(vum_region(info, 0), "posted"));
    g_assert_cmpint(vum_counted(info, "region-write", "messages"), ==, 50);
    g_assert_cmpint(vum_counted(info, "region-write", "no-reply"), ==, 50);
    g_assert_cmpint(vum_counted(info, "region-write", "replies"), ==, 0);
    check_latency(vum_stats_of(info), "access", "total", 0);
    qobject_unref(info);
    vut_free(t);
}

static void test_errors(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_REGION_READ, .index = 0,
        .times = 3, .a = EIO,
    };
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QPCIBar bar = vut_map_bar(t, 0);

    vut_flush(t);
    vum_stats_reset(t);
    ts_add_move(t->s, &refuse);
    for (unsigned i = 0; i < 5; i++) {
        qpci_io_readl(t->dev, bar, VUM_REG);
    }
    g_assert_cmpint(vum_count_now(t, "region-read", "replies"), ==, 5);
    g_assert_cmpint(vum_count_now(t, "region-read", "errors"), ==, 3);
    g_assert_cmpint(vum_count_now(t, "region-read", "timeouts"), ==, 0);
    vut_free(t);
}

/* Not answered at all; the connection lives. */
static void test_timeouts(void)
{
    static const TsMove drop = {
        .kind = TS_MOVE_DROP, .command = VFIO_USER_REGION_READ, .index = 0,
        .times = 2,
    };
    VUTest *t = vut_new(&(VUTOptions) { .device = ",x-msg-timeout-ms=2000" });
    QPCIBar bar = vut_map_bar(t, 0);
    QDict *info;

    vut_flush(t);
    vum_stats_reset(t);
    ts_add_move(t->s, &drop);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmphex(qpci_io_readl(t->dev, bar, VUM_REG), ==, UINT32_MAX);
    }
    g_assert_cmpint(vum_count_now(t, "region-read", "timeouts"), ==, 2);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, VUM_REG), ==, 0);
    info = vum_query(t);
    g_assert_cmpint(vum_counted(info, "region-read", "messages"), ==, 3);
    g_assert_cmpint(vum_counted(info, "region-read", "replies"), ==, 1);
    g_assert_cmpint(vum_counted(info, "region-read", "given-up"), ==, 0);
    g_assert_cmpint(qdict_get_int(vum_stats_of(info), "pending"), ==, 0);
    qobject_unref(info);
    vut_free(t);
}

/* The server stands still: the monitor does not, and says for how long. */
static void test_stalled(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    QDict *info, *stats;
    int64_t oldest;

    vut_flush(t);
    vum_stats_reset(t);
    ts_hold(t->s);
    /* QEMU's own writes to config space are not waited for. */
    qpci_config_writew(t->dev, PCI_COMMAND, PCI_COMMAND_MEMORY);
    info = vum_query(t);
    stats = vum_stats_of(info);
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, "connected");
    g_assert_cmpint(qdict_get_int(stats, "pending"), ==, 1);
    oldest = qdict_get_int(stats, "oldest-pending");
    g_assert_cmpint(oldest, >, 0);
    g_assert_cmpint(vum_counted(info, "region-write", "messages"), ==, 1);
    g_assert_cmpint(vum_counted(info, "region-write", "replies"), ==, 0);
    qobject_unref(info);

    info = vum_query(t);
    g_assert_cmpint(qdict_get_int(vum_stats_of(info), "oldest-pending"), >,
                    oldest);
    qobject_unref(info);
    ts_release(t->s);
    VUT_WAIT(vum_count_now(t, "region-write", "replies") == 1);
    info = vum_query(t);
    g_assert_cmpint(qdict_get_int(vum_stats_of(info), "pending"), ==, 0);
    qobject_unref(info);
    vut_free(t);
}

/* What the server asks for, on its own socket or on the only one */
static void check_dma(void (*setup)(TestServer *s))
{
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup });
    uint8_t data[64] = { 1 };
    QDict *info;

    vut_flush(t);
    vum_stats_reset(t);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(ts_dma_write(t->s, VUM_MIB, data, sizeof(data),
                                     TS_DMA_MESSAGE), ==, 0);
    }
    g_assert_cmpint(ts_dma_read(t->s, VUM_MIB, data, 32, TS_DMA_MESSAGE), ==,
                    0);
    g_assert_cmpint(ts_dma_command(t->s, VFIO_USER_DMA_READ, 1ull << 60, 8,
                                   data, 8), !=, 0);
    info = vum_query(t);
    g_assert_cmpint(vum_counted(info, "dma-write", "messages"), ==, 3);
    g_assert_cmpint(vum_counted(info, "dma-write", "replies"), ==, 3);
    g_assert_cmpint(vum_counted(info, "dma-write", "bytes-received"), ==,
                    3 * (32 + 64));
    g_assert_cmpint(vum_counted(info, "dma-write", "bytes-sent"), ==, 3 * 32);
    g_assert_cmpint(vum_counted(info, "dma-read", "messages"), ==, 2);
    g_assert_cmpint(vum_counted(info, "dma-read", "replies"), ==, 2);
    g_assert_cmpint(vum_counted(info, "dma-read", "errors"), ==, 1);
    g_assert_cmpint(vum_counted(info, "dma-read", "bytes-sent"), ==,
                    32 + 32 + 16);
    qobject_unref(info);
    vut_free(t);
}

static void test_dma_twin(void)
{
    check_dma(NULL);
}

void vum_setup_one_socket(TestServer *s)
{
    ts_limits(s)->twin_socket = false;
}

static void test_dma_one_socket(void)
{
    check_dma(vum_setup_one_socket);
}

void vut_register_monitor(void)
{
#define T(name, func) vut_add_test("vfio-user/monitor/" name, func)
    T("connection", test_connection);
    T("limits", test_limits);
    T("count/all", test_all_messages);
    T("count/reads", test_reads);
    T("count/posted-writes", test_posted_writes);
    T("count/errors", test_errors);
    T("count/timeouts", test_timeouts);
    T("count/stalled", test_stalled);
    T("count/dma/twin", test_dma_twin);
    T("count/dma/one-socket", test_dma_one_socket);
#undef T
    vum_register_device();
}
