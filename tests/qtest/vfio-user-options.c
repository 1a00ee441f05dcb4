/*
 * vfio-user qtest: the device's options
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Except for "socket" (vfio-user-connect.c, vfio-user-socket.c), for those of
 * DMA (vfio-user-dma.c) and of vfio-pci (vfio-user-realize.c).
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "vfio-user-util.h"

#define OWN_THREAD      "IO own"
#define SHARED_THREAD   "IO vfio-user"

static bool has_thread(VUTest *t, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task",
                                            (int)qtest_pid(t->qts));
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *task;
    bool found = false;

    g_assert(dir);
    while (!found && (task = g_dir_read_name(dir))) {
        g_autofree char *comm = g_build_filename(path, task, "comm", NULL);
        g_autofree char *text = NULL;

        found = g_file_get_contents(comm, &text, NULL, NULL) &&
                g_str_equal(g_strchomp(text), name);
    }
    g_dir_close(dir);
    return found;
}

/* Its registers answer, and so does QEMU when it is the server that asks. */
static void check_works(VUTest *t)
{
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);
    uint32_t value = 0x5eed1234;

    qpci_device_enable(t->dev);
    qpci_io_writel(t->dev, bar, 8, 0x1234);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 8), ==, 0x1234);
    g_assert_cmpint(ts_dma_write(t->s, 0x20000, &value, sizeof(value),
                                 TS_DMA_MESSAGE), ==, 0);
    g_assert_cmphex(qtest_readl(t->qts, 0x20000), ==, value);
}

/* The connection is served there, and the object goes when the device did. */
static void test_iothread(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-name vm,debug-threads=on -object iothread,id=own",
        .device = ",iothread=own", .shared_ram = true,
    });

    check_works(t);
    g_assert(has_thread(t, OWN_THREAD));
    g_assert(!has_thread(t, SHARED_THREAD));
    vut_del(t, VUT_ID, VUT_SLOT);
    qtest_qmp_assert_success(t->qts, "{'execute': 'object-del', "
                             "'arguments': {'id': 'own'}}");
    VUT_WAIT(!has_thread(t, OWN_THREAD));
    vut_free(t);
}

/* Devices without one share a thread, which is there while they are. */
static void test_shared_iothread(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .args = "-name vm,debug-threads=on", .shared_ram = true,
    });
    g_autofree char *path = g_build_filename(t->dir, "other", NULL);
    TestServer *other = vut_server(t->dir, "other", NULL);
    g_autofree char *error = vut_add(t, "vu1", path, VUT_TIMEOUT_MS);

    g_assert_cmpstr(error, ==, NULL);
    g_assert(has_thread(t, SHARED_THREAD));
    vut_del_by_reset(t, "vu1");
    ts_free(other);
    g_assert(has_thread(t, SHARED_THREAD));
    check_works(t);
    vut_del_by_reset(t, VUT_ID);
    VUT_WAIT(!has_thread(t, SHARED_THREAD));
    vut_free(t);
}

static void assert_refused(VUTest *t, QDict *response, const char *text)
{
    QDict *error = qdict_get_qdict(response, "error");

    g_assert(error);
    if (!strstr(qdict_get_str(error, "desc"), text)) {
        g_error("'%s' is not in: %s", text, qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    g_assert_cmpuint(ts_nr_clients(t->s), ==, 0);
}

/* Numbers that would make no sense are refused before anyone is asked. */
static void test_numbers(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .no_device = true });

    assert_refused(t, qtest_qmp(t->qts, "{'execute': 'device_add', "
        "'arguments': {'driver': 'vfio-user-pci', 'socket': %s, "
        "'x-msg-timeout-ms': 0}}", t->path), "x-msg-timeout-ms");
    assert_refused(t, qtest_qmp(t->qts, "{'execute': 'device_add', "
        "'arguments': {'driver': 'vfio-user-pci', 'socket': %s, "
        "'x-poll-max-us': 10001}}", t->path), "x-poll-max-us");
    qtest_qmp_assert_success(t->qts, "{'execute': 'device_add', "
        "'arguments': {'driver': 'vfio-user-pci', 'socket': %s, "
        "'x-poll-max-us': 10000, 'addr': '4'}}", t->path);
    vut_find(t, VUT_SLOT);
    check_works(t);
    vut_free(t);
}

static char *get_option(VUTest *t, const char *name)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'qom-get', 'arguments': "
        "{'path': '/machine/peripheral/" VUT_ID "', 'property': %s}}", name);
    char *value = g_strdup(qdict_get_try_str(response, "return"));

    qobject_unref(response);
    return value;
}

static QDict *set_option(VUTest *t, const char *name, const char *value)
{
    return qtest_qmp(t->qts, "{'execute': 'qom-set', 'arguments': {'path': "
                     "'/machine/peripheral/" VUT_ID "', 'property': %s, "
                     "'value': %s}}", name, value);
}

/* What a device in use does about errors may change, its other ways may not. */
static void test_in_use(void)
{
    VUTest *t = vut_new(&(VUTOptions) { .device = ",on-error=stop" });
    g_autofree char *disconnect = get_option(t, "on-disconnect");
    g_autofree char *before = get_option(t, "on-error");
    g_autofree char *after = NULL;
    QDict *response;

    g_assert_cmpstr(disconnect, ==, "offline");
    response = set_option(t, "on-disconnect", "hold");
    g_assert(strstr(qdict_get_str(qdict_get_qdict(response, "error"), "desc"),
                    "in use"));
    qobject_unref(response);

    g_assert_cmpstr(before, ==, "stop");
    response = set_option(t, "on-error", "report");
    g_assert(qdict_haskey(response, "return"));
    qobject_unref(response);
    after = get_option(t, "on-error");
    g_assert_cmpstr(after, ==, "report");
    vut_free(t);
}

void vut_register_options(void)
{
    vut_add_test("vfio-user/options/iothread", test_iothread);
    vut_add_test("vfio-user/options/shared-iothread", test_shared_iothread);
    vut_add_test("vfio-user/options/numbers", test_numbers);
    vut_add_test("vfio-user/options/in-use", test_in_use);
}
