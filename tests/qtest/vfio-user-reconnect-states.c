/*
 * vfio-user qtest: whatever happens while a server is away, or coming back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server dies or hangs at each message of its return; the device is
 * unplugged, QEMU ends, the guest is reset, the VM stopped and migrated in each
 * state that it may be in.
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "hw/pci/pci_regs.h"
#include "../server/server-migration.h"
#include "vfio-user-reconnect.h"

#define MAX_STEPS       200
/* A reply that does not come is not waited for longer than that. */
#define IMPATIENT_MS    400

static void return_either(RTest *r, bool kept)
{
    if (kept) {
        rt_return_kept(r);
    } else {
        rt_return_fresh(r, NULL);
    }
}

/* Servers that die on their way back -------------------------------------- */

static const TsMove *present;

static void setup_move(TestServer *s)
{
    ts_add_move(s, present);
}

/* The connection ends in place of its @nth reply; false: there are less. */
static bool die_in_return(RTest *r, unsigned nth, bool kept)
{
    TsMove move = {
        .kind = TS_MOVE_CLOSE, .command = -1, .index = -1, .skip = nth,
        .times = 1,
    };
    unsigned moves = 0, clients = 0;
    bool made;

    present = &move;
    rt_lose(r);
    if (kept) {
        moves = ts_nr_moves_made(r->t->s);
        clients = ts_nr_clients(r->t->s);
        setup_move(r->t->s);
        rt_return_kept(r);
    } else {
        rt_return_fresh(r, setup_move);
    }
    rt_expect(r, "RECONNECTED");
    rt_check_monitor(r);
    made = ts_nr_moves_made(r->t->s) > moves;
    ts_clear_moves(r->t->s);
    rt_settle(r, clients + 1 + made);
    return made;
}

static void check_dying(bool kept)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });
    unsigned fds = 0, n = 0;

    qpci_msix_enable(r->t->dev);
    qpci_io_writel(r->t->dev, r->t->dev->msix_table_bar, 12, 0);
    while (die_in_return(r, n, kept)) {
        g_assert_cmpuint(++n, <, MAX_STEPS);
        if (n == 1) {
            fds = vut_nr_fds(qtest_pid(r->t->qts));
        }
    }
    vut_wait_nr_fds(r->t, fds);
    g_test_message("%u places to die", n);
    /* VERSION, GET_INFO, 9 regions, 5 irqs, config space, DMA windows */
    g_assert_cmpuint(n, >, 20);
    rt_free(r);
}

static void test_dies_kept(void)
{
    check_dying(true);
}

static void test_dies_fresh(void)
{
    check_dying(false);
}

/* Each command of a return */
static const struct {
    const char *name;
    int command, index;
} steps[] = {
    { "version", VFIO_USER_VERSION, -1 },
    { "info", VFIO_USER_DEVICE_GET_INFO, -1 },
    { "region-0", VFIO_USER_DEVICE_GET_REGION_INFO, 0 },
    { "region-config", VFIO_USER_DEVICE_GET_REGION_INFO, 7 },
    { "irq", VFIO_USER_DEVICE_GET_IRQ_INFO, 2 },
    { "config-read", VFIO_USER_REGION_READ, VFIO_USER_REGION_CONFIG },
    { "reset", VFIO_USER_DEVICE_RESET, -1 },
    { "set-irqs", VFIO_USER_DEVICE_SET_IRQS, -1 },
    { "dma-map", VFIO_USER_DMA_MAP, -1 },
    { "config-write", VFIO_USER_REGION_WRITE, VFIO_USER_REGION_CONFIG },
};

/* What @kind of move does once at each step is made good by the next try. */
static void check_steps(TsMoveKind kind)
{
    g_autofree char *device =
        g_strdup_printf(",x-msg-timeout-ms=%u", IMPATIENT_MS);
    RTest *r = rt_new(&(VUTOptions) {
        .shared_ram = true, .device = device,
    });

    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        TsMove move = {
            .kind = kind, .command = steps[i].command,
            .index = steps[i].index, .times = 1,
        };

        g_test_message("%s", steps[i].name);
        present = &move;
        rt_lose(r);
        rt_return_fresh(r, setup_move);
        VUT_WAIT(ts_nr_moves_made(r->t->s) == 1);
        rt_settle(r, 1);
    }
    rt_free(r);
}

static void test_hangs(void)
{
    check_steps(TS_MOVE_DROP);
}

static void test_errors(void)
{
    check_steps(TS_MOVE_ERROR);
}

/* Unplugged, ended -------------------------------------------------------- */

typedef enum Where {
    AWAY,               /* no socket */
    NOT_ACCEPTED,       /* a socket whose queue is full */
    NO_VERSION,         /* connected, and no answer */
    NO_INFO,
    NO_CONFIG,
    NO_RESET,
    NO_SET_IRQS,
    NO_WINDOW,
    REFUSED,
    GAVE_UP,
    BACK,
} Where;

static const char *const where_names[] = {
    [AWAY] = "away", [NOT_ACCEPTED] = "not-accepted",
    [NO_VERSION] = "version", [NO_INFO] = "info", [NO_CONFIG] = "config",
    [NO_RESET] = "reset", [NO_SET_IRQS] = "set-irqs",
    [NO_WINDOW] = "dma-map", [REFUSED] = "refused", [GAVE_UP] = "gave-up",
    [BACK] = "back",
};

static int silent_command[] = {
    [NO_VERSION] = VFIO_USER_VERSION,
    [NO_INFO] = VFIO_USER_DEVICE_GET_INFO,
    [NO_CONFIG] = VFIO_USER_REGION_READ,
    [NO_RESET] = VFIO_USER_DEVICE_RESET,
    [NO_SET_IRQS] = VFIO_USER_DEVICE_SET_IRQS,
    [NO_WINDOW] = VFIO_USER_DMA_MAP,
};

static void other_device(TestServer *s)
{
    ts_config_id(s, TS_STANDARD_VENDOR, TS_STANDARD_DEVICE + 1, 0xff0000, 1);
}

/* A socket that nobody accepts from, and whose queue is full. */
static int full_socket(const char *path, int *waiting)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    g_assert(fd >= 0 && !bind(fd, (struct sockaddr *)&un, sizeof(un)) &&
             !listen(fd, 0));
    *waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert(!connect(*waiting, (struct sockaddr *)&un, sizeof(un)));
    return fd;
}

/**
 * Scene: a device in a state
 * @fd, @waiting: -1, or a socket and one in its queue
 */
typedef struct Scene {
    RTest *r;
    Where where;
    int fd, waiting;
} Scene;

static bool is_silent(TestServer *s)
{
    return ts_nr_moves_made(s) > 0;
}

static void go_to(Scene *sc)
{
    static TsMove drop;
    RTest *r = sc->r;

    sc->fd = sc->waiting = -1;
    if (sc->where == BACK) {
        rt_lose(r);
        rt_return_fresh(r, NULL);
        rt_expect_return(r, false);
        return;
    }
    rt_lose(r);
    switch (sc->where) {
    case AWAY:
        break;
    case NOT_ACCEPTED:
        sc->fd = full_socket(r->t->path, &sc->waiting);
        break;
    case REFUSED:
        rt_return_fresh(r, other_device);
        rt_expect(r, "REFUSED");
        break;
    case GAVE_UP:
        rt_expect(r, "GAVE_UP");
        break;
    default:
        drop = (TsMove) {
            .kind = TS_MOVE_DROP, .command = silent_command[sc->where],
            .index = -1,
        };
        present = &drop;
        rt_return_fresh(r, setup_move);
        VUT_WAIT(is_silent(r->t->s));
    }
}

static Scene begin_scene(Where where, const char *args)
{
    /* Long enough to find the device waiting, mostly. */
    const char *device = where == GAVE_UP ? ",reconnect-timeout-ms=50"
                                          : ",x-msg-timeout-ms=2000";
    Scene sc = {
        .r = rt_new(&(VUTOptions) {
            .shared_ram = true, .device = device, .args = args,
        }),
        .where = where,
    };

    go_to(&sc);
    return sc;
}

static void close_full_socket(Scene *sc)
{
    if (sc->fd >= 0) {
        close(sc->fd);
        close(sc->waiting);
        g_assert_cmpint(unlink(sc->r->t->path), ==, 0);
        sc->fd = -1;
    }
}

static void end_scene(Scene *sc)
{
    close_full_socket(sc);
    rt_free(sc->r);
}

/* Nothing of the device is left, and its place can be taken. */
static void test_unplug(const void *data)
{
    Scene sc = begin_scene(*(const Where *)data, NULL);
    RTest *r = sc.r;
    g_autofree char *path = g_build_filename(r->t->dir, "new", NULL);
    g_autofree char *error = NULL;
    TestServer *s;

    rt_del(r, VUT_ID, VUT_SLOT);
    rt_check_monitor(r);
    r->nr_seen = r->events->len;
    /* The next device may need this server: it must be free for it. */
    g_assert(ts_wait_connected(r->t->s, false));
    s = vut_server(r->t->dir, "new", NULL);
    error = rt_add(r, VUT_ID, path, VUT_SLOT, ",reconnect-ms=5");
    g_assert_cmpstr(error, ==, NULL);
    vut_find(r->t, VUT_SLOT);
    rt_map(r);
    qpci_io_writel(r->t->dev, r->bars[0], RT_REG, 77);
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], RT_REG), ==, 77);
    /* The old one's thread does not come back to it. */
    rt_expect_no_more(r);
    rt_del(r, VUT_ID, VUT_SLOT);
    ts_free(s);
    end_scene(&sc);
}

static void test_unplug_fds(void)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });
    unsigned fds = vut_nr_fds(qtest_pid(r->t->qts)), after = 0;

    for (unsigned i = 0; i < 20; i++) {
        g_autofree char *error = NULL;

        rt_lose(r);
        if (i % 2) {
            rt_return_fresh(r, other_device);
            rt_expect(r, "REFUSED");
        }
        rt_del(r, VUT_ID, VUT_SLOT);
        rt_return_fresh(r, NULL);
        error = rt_add(r, VUT_ID, r->t->path, VUT_SLOT, ",reconnect-ms=5");
        g_assert_cmpstr(error, ==, NULL);
        vut_find(r->t, VUT_SLOT);
        rt_map(r);
        rt_check_works(r, i);
        if (i == 1) {
            after = vut_nr_fds(qtest_pid(r->t->qts));
        }
    }
    g_test_message("%u fds at first, %u then", fds, after);
    vut_wait_nr_fds(r->t, after);
    rt_free(r);
}

static void test_quit(const void *data)
{
    Scene sc = begin_scene(*(const Where *)data, NULL);

    rt_check_monitor(sc.r);
    /* vut_free() expects status 0. */
    end_scene(&sc);
}

/* The guest is reset: the monitor answers, and the device comes back. */
static void test_system_reset(const void *data)
{
    Scene sc = begin_scene(*(const Where *)data, NULL);
    RTest *r = sc.r;

    rt_system_reset(r);
    rt_system_reset(r);
    rt_check_monitor(r);
    if (sc.where != GAVE_UP) {
        close_full_socket(&sc);
        rt_return_fresh(r, NULL);
        VUT_WAIT(ts_nr_clients(r->t->s) && !rt_is_offline(r));
        if (sc.where < NO_SET_IRQS || sc.where == REFUSED) {
            /* Others may have told the server before. */
            g_assert_cmpuint(ts_log_count(r->t->s, RT_RESETS), >=, 1);
        }
        rt_map(r);
        rt_settle(r, 1);
    }
    end_scene(&sc);
}

static void set_running(RTest *r, bool run)
{
    qtest_qmp_assert_success(r->t->qts, "{'execute': %s}",
                             run ? "cont" : "stop");
}

static void test_stop_cont(const void *data)
{
    Scene sc = begin_scene(*(const Where *)data, NULL);
    RTest *r = sc.r;
    g_autofree char *status = NULL;

    for (unsigned i = 0; i < 3; i++) {
        set_running(r, false);
        set_running(r, true);
    }
    set_running(r, false);
    status = rt_status(r);
    g_assert_cmpstr(status, ==, "paused");
    end_scene(&sc);
}

/* It comes back to a VM that is stopped. */
static void test_return_stopped(void)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });
    g_autofree char *status = NULL;

    for (unsigned kept = 0; kept <= 1; kept++) {
        rt_lose(r);
        set_running(r, false);
        return_either(r, kept);
        rt_wait_returned(r, 2 * kept + 1);
        set_running(r, true);
        rt_expect_return(r, kept);
        rt_check_works(r, kept);
        set_running(r, false);
        rt_lose(r);
        return_either(r, kept);
        rt_wait_returned(r, 2 * kept + 2);
        g_free(status);
        status = rt_status(r);
        g_assert_cmpstr(status, ==, "paused");
        set_running(r, true);
        rt_expect_return(r, kept);
        rt_check_works(r, kept + 5);
    }
    rt_free(r);
}

/* Several devices of which one goes --------------------------------------- */

static void test_others(void)
{
    RTest *r = rt_new(&(VUTOptions) { .shared_ram = true });
    TestServer *witness = rt_add_witness(r);

    for (unsigned i = 0; i < 3; i++) {
        rt_lose(r);
        g_assert(ts_connected(witness));
        rt_return_fresh(r, NULL);
        rt_expect_return(r, false);
        rt_check_same_windows(r->t->s, witness);
    }
    rt_del_witness(r, witness);
    rt_check_works(r, 5);
    rt_free(r);
}

/* Migration --------------------------------------------------------------- */

static void setup_migratable(TestServer *s)
{
    *ts_add_migration(s, VFIO_USER_MIGRATION_STOP_COPY |
                         VFIO_USER_MIGRATION_PRE_COPY) = (TsMigOptions) {
        .flags = VFIO_USER_MIGRATION_STOP_COPY | VFIO_USER_MIGRATION_PRE_COPY,
        .size = 100000, .precopy = 50000, .logging = true,
    };
}

static char *migration_status(RTest *r, char **error)
{
    QDict *answer = qtest_qmp_assert_success_ref(
        r->t->qts, "{'execute': 'query-migrate'}");
    char *status = g_strdup(qdict_get_try_str(answer, "status") ?: "none");

    g_free(*error);
    *error = g_strdup(qdict_get_try_str(answer, "error-desc"));
    qobject_unref(answer);
    return status;
}

static bool migration_over(RTest *r, char **status, char **error)
{
    g_free(*status);
    *status = migration_status(r, error);
    return !strcmp(*status, "completed") || !strcmp(*status, "failed");
}

/* One that failed is gone a moment after its status has said so. */
static bool migration_gone(RTest *r)
{
    QDict *response = qtest_qmp(r->t->qts, "{'execute': 'query-yank'}");
    const QListEntry *e;
    bool gone = true;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), e) {
        const QDict *instance = qobject_to(QDict, qlist_entry_obj(e));

        gone &= strcmp(qdict_get_str(instance, "type"), "migration") != 0;
    }
    qobject_unref(response);
    return gone;
}

/* How a migration into nowhere ends; NULL: well. To be freed. */
static char *migrate(RTest *r)
{
    g_autofree char *status = NULL;
    QDict *response, *error;
    char *text = NULL;

    VUT_WAIT(migration_gone(r));
    response = qtest_qmp(r->t->qts, "{'execute': 'migrate', 'arguments': "
                         "{'uri': 'exec:cat >/dev/null'}}");
    error = qdict_get_qdict(response, "error");
    if (error) {
        text = g_strdup(qdict_get_str(error, "desc"));
        qobject_unref(response);
        return text;
    }
    qobject_unref(response);
    VUT_WAIT(migration_over(r, &status, &text));
    if (!strcmp(status, "completed")) {
        g_free(text);
        return NULL;
    }
    return text ?: g_strdup("");
}

static void test_migration(void)
{
    RTest *r = rt_new(&(VUTOptions) {
        .shared_ram = true, .setup = setup_migratable,
    });

    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *error = NULL;
        g_autofree char *status = NULL;

        rt_lose(r);
        error = migrate(r);
        g_assert_nonnull(error);
        g_test_message("%s", error);
        g_assert_cmpstr(error, !=, "");
        status = rt_status(r);
        g_assert_cmpstr(status, ==, "running");
        rt_return_fresh(r, setup_migratable);
        rt_expect_return(r, false);
        rt_check_works(r, i);
    }
    g_assert_cmpstr(migrate(r), ==, NULL);
    rt_free(r);
}

/* Lost in the middle of a migration */
static void test_migration_lost(void)
{
    static const TsMove close_it = {
        .kind = TS_MOVE_CLOSE, .command = VFIO_USER_MIG_DATA_READ,
        .index = -1, .times = 1,
    };
    RTest *r = rt_new(&(VUTOptions) {
        .shared_ram = true, .setup = setup_migratable,
    });
    g_autofree char *error = NULL;

    ts_add_move(r->t->s, &close_it);
    error = migrate(r);
    g_assert_nonnull(error);
    rt_wait_event(r, "VFIO_USER_RECONNECTED");
    rt_settle(r, 2);
    g_assert_cmpstr(migrate(r), ==, NULL);
    rt_free(r);
}

/* ------------------------------------------------------------------------- */

static void add_scenes(const char *what, void (*fn)(const void *data))
{
    static Where wheres[ARRAY_SIZE(where_names)];

    for (unsigned i = 0; i < ARRAY_SIZE(where_names); i++) {
        g_autofree char *path =
            g_strdup_printf("vfio-user/reconnect/%s/%s", what,
                            where_names[i]);

        wheres[i] = i;
        vut_add_data_test(path, &wheres[i], fn);
    }
}

void rt_register_states(void)
{
    vut_add_test("vfio-user/reconnect/dies/kept", test_dies_kept);
    vut_add_test("vfio-user/reconnect/dies/fresh", test_dies_fresh);
    vut_add_test("vfio-user/reconnect/hangs", test_hangs);
    vut_add_test("vfio-user/reconnect/errors", test_errors);
    add_scenes("unplug", test_unplug);
    vut_add_test("vfio-user/reconnect/unplug/descriptors", test_unplug_fds);
    add_scenes("quit", test_quit);
    add_scenes("system-reset", test_system_reset);
    add_scenes("stop-cont", test_stop_cont);
    vut_add_test("vfio-user/reconnect/return-stopped", test_return_stopped);
    vut_add_test("vfio-user/reconnect/others", test_others);
    vut_add_test("vfio-user/reconnect/migration/away", test_migration);
    vut_add_test("vfio-user/reconnect/migration/lost", test_migration_lost);
}
