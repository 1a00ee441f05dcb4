/*
 * vfio-user qtest: realize, and the ways in which it fails
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whatever a server does while the device realizes, QEMU must be there
 * afterwards, with an answer in time and without a descriptor more.
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "vfio-user-util.h"

/* Long enough for a loaded machine, short enough to wait for. */
#define IMPATIENT_MS    500
#define PATIENT_MS      5000

static const VUTOptions no_device = { .no_device = true };

static void assert_names(const char *text, const char *what)
{
    if (!text || !strstr(text, what)) {
        g_error("'%s' does not name '%s'", text ?: "(success)", what);
    }
}

/* QMP's other form of the property, and anything else. */
static char *add_raw(VUTest *t, const char *properties)
{
    g_autofree char *json = g_strdup_printf(
        "{\"execute\": \"device_add\", \"arguments\": "
        "{\"driver\": \"vfio-user-pci\", \"id\": \"" VUT_ID "\", %s}}\n",
        properties);
    QDict *response, *error;
    char *text = NULL;

    qtest_qmp_send_raw(t->qts, "%s", json);
    response = qtest_qmp_receive(t->qts);
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
    }
    qobject_unref(response);
    return text;
}

static void assert_monitor_answers(VUTest *t)
{
    qtest_qmp_assert_success(t->qts, "{'execute': 'query-status'}");
}

static void test_path(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });

    g_assert_cmphex(qpci_config_readw(t->dev, PCI_VENDOR_ID), ==,
                    TS_STANDARD_VENDOR);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_DEVICE_ID), ==,
                    TS_STANDARD_DEVICE);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_CLASS_DEVICE), ==, 0xff00);
    g_assert_cmphex(qpci_config_readb(t->dev, PCI_REVISION_ID), ==, 1);
    vut_free(t);
}

static void test_structured_qmp(void)
{
    VUTest *t = vut_new(&no_device);
    g_autofree char *props = g_strdup_printf(
        "\"addr\": \"4\", "
        "\"socket\": {\"type\": \"unix\", \"path\": \"%s\"}", t->path);
    g_autofree char *error = add_raw(t, props);

    g_assert_cmpstr(error, ==, NULL);
    vut_find(t, 4);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_VENDOR_ID), ==,
                    TS_STANDARD_VENDOR);
    vut_free(t);
}

static void test_structured_command_line(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true,
        .args = "-device '{\"driver\":\"vfio-user-pci\",\"addr\":\"4\","
                "\"socket\":{\"type\":\"unix\",\"path\":\"%s/sock\"}}'",
    });

    vut_find(t, 4);
    g_assert_cmphex(qpci_config_readw(t->dev, PCI_VENDOR_ID), ==,
                    TS_STANDARD_VENDOR);
    vut_free(t);
}

/* The first message and what we offer in it. */
static void test_proposal(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    g_autofree char *json = ts_client_json(t->s);
    TsRecord r;

    g_assert(ts_log_get(t->s, TS_ANY, 0, &r));
    g_assert_cmpint(r.command, ==, VFIO_USER_VERSION);
    g_assert(strstr(json, "\"capabilities\""));
    g_assert(strstr(json, "\"twin_socket\""));
    g_assert_cmpuint(ts_client_limit(t->s, "max_msg_fds", 0), >=, 8);
    g_assert_cmpuint(ts_client_limit(t->s, "max_data_xfer_size", 0), >=,
                     4096);
    vut_free(t);
}

static void assert_refused(VUTest *t, char *error, const char *what)
{
    assert_names(error, what);
    g_free(error);
    assert_monitor_answers(t);
}

static void test_missing_socket(void)
{
    VUTest *t = vut_new(&no_device);

    assert_refused(t, add_raw(t, "\"addr\": \"4\""), "socket");
    vut_free(t);
}

static void test_no_such_path(void)
{
    VUTest *t = vut_new(&no_device);

    assert_refused(t, vut_add(t, VUT_ID, "/nonexistent/vfio-user.sock",
                              PATIENT_MS), "/nonexistent/vfio-user.sock");
    vut_free(t);
}

static void test_not_a_socket(void)
{
    VUTest *t = vut_new(&no_device);

    assert_refused(t, vut_add(t, VUT_ID, "/dev/null", PATIENT_MS),
                   "/dev/null");
    vut_free(t);
}

static void test_path_too_long(void)
{
    VUTest *t = vut_new(&no_device);
    g_autofree char *path = g_strdup_printf("/tmp/%0200d", 7);

    assert_refused(t, vut_add(t, VUT_ID, path, PATIENT_MS), "too long");
    vut_free(t);
}

/* Properties of vfio-pci that name something of the host's kernel. */
static void test_refused_property(const void *data)
{
    const char *const *pair = data;
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true,
        .args = !strcmp(pair[0], "iommufd") ? "-object iommufd,id=iommufd0"
                                            : NULL,
    });
    unsigned fds = vut_nr_fds(qtest_pid(t->qts));
    g_autofree char *props = g_strdup_printf(
        "\"socket\": \"%s\", \"%s\": \"%s\"", t->path, pair[0], pair[1]);
    g_autofree char *hint = NULL;

    assert_refused(t, add_raw(t, props), pair[0]);
    g_assert_cmpuint(ts_nr_clients(t->s), ==, 0);

    /* The monitor for people prints the hint, too. */
    hint = qtest_hmp(t->qts, "device_add vfio-user-pci,id=hmp,socket=%s,%s=%s",
                     t->path, pair[0], pair[1]);
    assert_names(hint, pair[0]);
    assert_names(hint, "socket=");
    vut_wait_nr_fds(t, fds);
    vut_free(t);
}

/* A QEMU that is started like this says why and ends. */
static void test_exit_status(void)
{
    g_autofree char *err = NULL;
    const char *binary = getenv("QTEST_QEMU_BINARY");
    const char *const argv[] = {
        binary, "-display", "none", "-nodefaults", "-accel", "qtest",
        "-S", "-device", "vfio-user-pci,socket=/nonexistent/sock", NULL,
    };
    int status;

    g_assert(g_spawn_sync(NULL, (char **)argv, NULL,
                          G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL,
                          NULL, NULL, NULL, &err, &status, NULL));
    g_assert(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    assert_names(err, "/nonexistent/sock");
    assert_names(err, "vfio-user-pci");
}

/* A server that serves somebody else accepts us and says nothing. */
static void test_busy_server(void)
{
    VUTest *t = vut_new(&(VUTOptions) { 0 });
    g_autofree char *error = vut_add(t, "vu1", t->path, IMPATIENT_MS);
    QPCIBar bar;

    g_assert_nonnull(error);
    bar = qpci_iomap(t->dev, 0, NULL);
    qpci_device_enable(t->dev);
    qpci_io_writel(t->dev, bar, 8, 0x1234);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 8), ==, 0x1234);
    vut_free(t);
}

static void setup_one_window(TestServer *s)
{
    ts_limits(s)->max_dma_maps = 1;
}

static void test_too_few_windows(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_one_window,
    });

    assert_refused(t, vut_add(t, VUT_ID, t->path, PATIENT_MS),
                   "max_dma_maps");
    g_assert_cmpuint(ts_log_count(t->s, (TsMatch) { VFIO_USER_DMA_MAP, -1,
                                                    -1 }), ==, 1);
    vut_free(t);
}

/* After any failure the same server, behaving, is good for a device. */
static void test_second_try(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_VERSION, .index = -1,
        .times = 1, .a = EBUSY,
    };
    VUTest *t = vut_new(&no_device);
    g_autofree char *first = NULL, *second = NULL;

    ts_add_move(t->s, &refuse);
    first = vut_add(t, VUT_ID, t->path, PATIENT_MS);
    g_assert_nonnull(first);
    second = vut_add(t, VUT_ID, t->path, PATIENT_MS);
    g_assert_cmpstr(second, ==, NULL);
    vut_free(t);
}

void vut_register_realize(void)
{
    static const char *const refused[][2] = {
        { "host", "0000:01:00.0" },
        { "sysfsdev", "/sys/bus/pci/devices/0000:01:00.0" },
        { "fd", "0" },
        { "iommufd", "iommufd0" },
    };

    vut_add_test("vfio-user/realize/path", test_path);
    vut_add_test("vfio-user/realize/structured-qmp", test_structured_qmp);
    vut_add_test("vfio-user/realize/structured-command-line",
                 test_structured_command_line);
    vut_add_test("vfio-user/realize/proposal", test_proposal);
    vut_add_test("vfio-user/realize/missing-socket", test_missing_socket);
    vut_add_test("vfio-user/realize/no-such-path", test_no_such_path);
    vut_add_test("vfio-user/realize/not-a-socket", test_not_a_socket);
    vut_add_test("vfio-user/realize/path-too-long", test_path_too_long);
    vut_add_test("vfio-user/realize/exit-status", test_exit_status);
    vut_add_test("vfio-user/realize/busy-server", test_busy_server);
    vut_add_test("vfio-user/realize/too-few-windows", test_too_few_windows);
    vut_add_test("vfio-user/realize/second-try", test_second_try);
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *path = g_strdup_printf(
            "vfio-user/realize/refused-property/%s", refused[i][0]);

        vut_add_data_test(path, refused[i], test_refused_property);
    }
}
