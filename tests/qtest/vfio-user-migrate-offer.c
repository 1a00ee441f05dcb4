/*
 * vfio-user qtest: what a server offers for migration, and what is made of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "vfio-user-migrate.h"

#define FEATURES    ((TsMatch) { VFIO_USER_DEVICE_FEATURE, -1, -1 })
#define NOWHERE     "exec:cat >/dev/null"
#define NOT_OFFERED "vfio-user-pci " VUT_ID ": the server does not offer " \
                    "migration"

/* The error of `migrate`; NULL when it began. */
static char *try_migrate(VUTest *t)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'migrate', 'arguments': "
                                "{'uri': %s}}", NOWHERE);
    QDict *error = qdict_get_qdict(response, "error");
    char *text = error ? g_strdup(qdict_get_str(error, "desc")) : NULL;

    qobject_unref(response);
    return text;
}

static void assert_has(const char *text, const char *part)
{
    if (!text || !strstr(text, part)) {
        g_error("'%s' is not in: %s", part, text ?: "nothing");
    }
}

static void assert_blocked(VUTest *t, const char *part)
{
    g_autofree char *error = try_migrate(t);

    assert_has(error, part);
    g_assert(vmt_is_running(t));
}

static void assert_not_blocked(VUTest *t)
{
    g_autofree char *error = try_migrate(t);

    g_assert_cmpstr(error, ==, NULL);
    vmt_wait_status(t, "completed");
}

/* device_add with enable-migration=@wish; NULL, or the error's text */
static char *add_wishing(VUTest *t, const char *wish)
{
    QDict *response = qtest_qmp(t->qts, "{'execute': 'device_add', "
        "'arguments': {'driver': 'vfio-user-pci', 'id': %s, 'addr': '4', "
        "'socket': %s, 'enable-migration': %s}}", VUT_ID, t->path, wish);
    QDict *error = qdict_get_qdict(response, "error");
    char *text = error ? g_strdup(qdict_get_str(error, "desc")) : NULL;

    qobject_unref(response);
    return text;
}

static void setup_einval(TestServer *s)
{
    ts_no_features(s, EINVAL);
}

static void setup_eopnotsupp(TestServer *s)
{
    ts_no_features(s, EOPNOTSUPP);
}

static void setup_close(TestServer *s)
{
    ts_no_features(s, TS_CLOSE);
}

static void setup_no_flags(TestServer *s)
{
    ts_add_migration(s, 0);
}

/* Flags that nobody knows, and nothing else */
static void setup_strange_flags(TestServer *s)
{
    ts_add_migration(s, 0xfffffffffffffff8);
}

static void setup_stop_copy(TestServer *s)
{
    ts_add_migration(s, VMT_STOP_COPY);
}

static void setup_more_flags(TestServer *s)
{
    ts_add_migration(s, 0xfffffffffffffff8 | VMT_STOP_COPY);
}

static void setup_no_stop_copy(TestServer *s)
{
    ts_add_migration(s, VMT_PRE_COPY | VMT_P2P);
}

typedef struct Refusal {
    const char *name;
    void (*setup)(TestServer *s);
} Refusal;

static const Refusal refusals[] = {
    { "enotty", NULL },
    { "einval", setup_einval },
    { "eopnotsupp", setup_eopnotsupp },
    { "no-flags", setup_no_flags },
    { "strange-flags", setup_strange_flags },
};

/* The device works, and a migration is refused by its name. */
static void test_not_offered(const void *data)
{
    const Refusal *refusal = data;
    VUTest *t = vut_new(&(VUTOptions) { .setup = refusal->setup });
    QPCIBar bar = qpci_iomap(t->dev, 0, NULL);

    qpci_device_enable(t->dev);
    qpci_io_writel(t->dev, bar, 8, 0x1234);
    g_assert_cmphex(qpci_io_readl(t->dev, bar, 8), ==, 0x1234);
    assert_blocked(t, NOT_OFFERED);
    /* There is nothing else to ask such a server. */
    g_assert_cmpuint(ts_log_count(t->s, FEATURES), ==, 1);

    vut_del(t, VUT_ID, VUT_SLOT);
    assert_not_blocked(t);
    vut_free(t);
}

static void test_not_offered_on(const void *data)
{
    const Refusal *refusal = data;
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = refusal->setup,
    });
    g_autofree char *error = add_wishing(t, "on");

    assert_has(error, "the server does not offer migration");
    /* Nothing is left of it that would block. */
    assert_not_blocked(t);
    vut_free(t);
}

static void test_off(const void *data)
{
    const Refusal *refusal = data;
    VUTest *t = vut_new(&(VUTOptions) {
        .setup = refusal->setup, .device = ",enable-migration=off",
    });

    g_assert_cmpuint(ts_log_count(t->s, FEATURES), ==, 0);
    assert_blocked(t, VUT_ID);
    assert_blocked(t, "disabled");
    g_assert_cmpuint(ts_log_count(t->s, FEATURES), ==, 0);
    vut_free(t);
}

static const Refusal offered = { "offered", setup_stop_copy };
static const Refusal closing = { "close", setup_close };

/* A server that dies of the question; the hint is how to live with it. */
static void test_close(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_close,
    });
    g_autofree char *error = add_wishing(t, "auto");
    g_autofree char *hint = NULL;

    assert_has(error, "DEVICE_FEATURE");
    g_assert(ts_wait_connected(t->s, false));
    hint = qtest_hmp(t->qts, "device_add vfio-user-pci,socket=%s", t->path);
    assert_has(hint, "enable-migration=off");
    g_assert(ts_wait_connected(t->s, false));
    assert_not_blocked(t);
    vut_free(t);
}

static void test_offered(const void *data)
{
    static const uint32_t asked[] = {
        VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_MIGRATION,
        VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_SET |
            VFIO_USER_FEATURE_DMA_LOGGING_START,
        VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_GET |
            VFIO_USER_FEATURE_MIG_DATA_SIZE,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true,
        .setup = data ? setup_more_flags : setup_stop_copy,
    });
    g_autofree char *error = add_wishing(t, "on");
    TsRecord r;

    g_assert_cmpstr(error, ==, NULL);
    g_assert_cmpuint(ts_log_count(t->s, FEATURES), ==, ARRAY_SIZE(asked));
    for (unsigned i = 0; i < ARRAY_SIZE(asked); i++) {
        g_assert(ts_log_get(t->s, FEATURES, i, &r));
        g_assert_cmphex(r.set_flags, ==, asked[i]);
    }
    assert_not_blocked(t);
    vut_free(t);
}

/* P2P or PRE_COPY without STOP_COPY makes no sense: it broke the protocol. */
static void test_no_stop_copy(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_no_stop_copy,
    });
    g_autofree char *error = add_wishing(t, "auto");

    assert_has(error, "lack stop-copy");
    g_assert(ts_wait_connected(t->s, false));
    assert_not_blocked(t);
    vut_free(t);
}

/* Answers to GET MIGRATION that do not fit the question */
static const TsMove bad_answers[] = {
    { .kind = TS_MOVE_CUT, .a = 8 },
    { .kind = TS_MOVE_CUT, .a = 15 },
    { .kind = TS_MOVE_CUT, .a = 0 },
    { .kind = TS_MOVE_PAD, .a = 1 },
    { .kind = TS_MOVE_PATCH, .a = 4, .b = 0x10002 },    /* another feature */
    { .kind = TS_MOVE_PATCH, .a = 4, .b = 0x20001 },    /* set, not get */
    { .kind = TS_MOVE_CLOSE },
    { .kind = TS_MOVE_TRUNCATE, .a = 20 },
};

static void test_bad_answer(const void *data)
{
    TsMove move = *(const TsMove *)data;
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_stop_copy,
    });
    g_autofree char *error = NULL;
    g_autofree char *again = NULL;

    move.command = VFIO_USER_DEVICE_FEATURE;
    move.index = VFIO_USER_FEATURE_MIGRATION;
    move.times = 1;
    ts_add_move(t->s, &move);
    error = add_wishing(t, "auto");
    assert_has(error, "DEVICE_FEATURE");
    g_assert(ts_wait_connected(t->s, false));
    g_assert_cmpuint(ts_nr_moves_made(t->s), ==, 1);

    again = add_wishing(t, "on");
    g_assert_cmpstr(again, ==, NULL);
    vut_free(t);
}

/* What is only probed may be refused in any way. */
static void test_probe_refused(void)
{
    static const TsMove refuse = {
        .kind = TS_MOVE_ERROR, .command = VFIO_USER_DEVICE_FEATURE,
        .index = -1, .skip = 1, .times = 2, .a = EIO,
    };
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .setup = setup_stop_copy,
    });
    g_autofree char *error = NULL;

    ts_add_move(t->s, &refuse);
    error = add_wishing(t, "on");
    g_assert_cmpstr(error, ==, NULL);
    vut_free(t);
}

static void test_only_migratable(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .no_device = true, .args = "-only-migratable",
    });
    g_autofree char *error = add_wishing(t, "auto");

    assert_has(error, "only-migratable");
    assert_has(error, "does not offer migration");
    g_assert(ts_wait_connected(t->s, false));
    assert_not_blocked(t);
    vut_free(t);

    t = vut_new(&(VUTOptions) {
        .args = "-only-migratable", .setup = setup_stop_copy,
        .device = ",enable-migration=on",
    });
    assert_not_blocked(t);
    vut_free(t);
}

/* The end of QEMU stops the device, whatever that says to it. */
static void test_quit_refused(void)
{
    static const TsMigFail refuse = {
        .kind = TS_FAIL_REFUSE, .point = TS_AT_ARC, .from = TS_ANY_STATE,
        .to = TS_ANY_STATE,
    };
    VUTest *t = vut_new(&(VUTOptions) { .setup = setup_stop_copy });

    ts_mig_fail(t->s, &refuse);
    vut_free(t);
}

static void test_quit_lost(void)
{
    VUTest *t = vut_new(&(VUTOptions) {
        .setup = setup_stop_copy, .stderr_file = true,
    });

    ts_stop_listening(t->s);
    ts_disconnect(t->s);
    vut_wait_stderr(t, "device lost");
    vut_free(t);
}

void vut_register_migrate_offer(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
        const Refusal *r = &refusals[i];
        g_autofree char *base = g_strdup_printf(
            "vfio-user/migrate/not-offered/%s", r->name);
        g_autofree char *on = g_strdup_printf("%s/on", base);
        g_autofree char *off = g_strdup_printf("%s/off", base);
        g_autofree char *automatic = g_strdup_printf("%s/auto", base);

        vut_add_data_test(automatic, r, test_not_offered);
        vut_add_data_test(on, r, test_not_offered_on);
        vut_add_data_test(off, r, test_off);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad_answers); i++) {
        g_autofree char *path = g_strdup_printf(
            "vfio-user/migrate/bad-answer/%u", i);

        vut_add_data_test(path, &bad_answers[i], test_bad_answer);
    }
    vut_add_test("vfio-user/migrate/close", test_close);
    vut_add_data_test("vfio-user/migrate/close/off", &closing, test_off);
    vut_add_data_test("vfio-user/migrate/offered/on", NULL, test_offered);
    vut_add_data_test("vfio-user/migrate/offered/more-flags", &offered,
                      test_offered);
    vut_add_data_test("vfio-user/migrate/offered/off", &offered, test_off);
    vut_add_test("vfio-user/migrate/no-stop-copy", test_no_stop_copy);
    vut_add_test("vfio-user/migrate/probe-refused", test_probe_refused);
    vut_add_test("vfio-user/migrate/only-migratable", test_only_migratable);
    vut_add_test("vfio-user/migrate/quit/refused", test_quit_refused);
    vut_add_test("vfio-user/migrate/quit/lost", test_quit_lost);
}
