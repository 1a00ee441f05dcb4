/*
 * vfio-user qtest: two of everything, and a migration between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qobject/qdict.h"
#include "vfio-user-migrate.h"

/* What a device with a size to tell never gets below: 1000 bytes */
#define HOLD_BANDWIDTH      1000000
#define HOLD_DOWNTIME_MS    1
/*
 * QEMU compares with no threshold at all for the first 100 ms, and then
 * nothing left in RAM is enough to end.
 */
#define HOLD_SPEED          2000000
/* And below this one they are from the beginning. */
#define FREE_BANDWIDTH      (1ll << 40)
#define FREE_DOWNTIME_MS    2000000

/* Setup functions have no argument of their own. */
static const VMTOptions *options;
static bool is_dst;

static void setup(TestServer *s)
{
    const TsMigOptions *mig = is_dst && options->dst_mig.flags ?
                              &options->dst_mig : &options->mig;

    *ts_add_migration(s, mig->flags) = *mig;
    ts_limits(s)->enforce = true;
    if (options->max_xfer) {
        ts_limits(s)->max_data_xfer_size = options->max_xfer;
    }
    if (options->setup) {
        options->setup(s);
    }
    if (options->src_setup && !is_dst) {
        options->src_setup(s);
    }
}

static VUTest *new_side(VMTest *t, const char *args)
{
    options = &t->o;
    return vut_new(&(VUTOptions) {
        .machine = t->o.machine,
        .args = args,
        .device = t->o.device,
        .setup = setup,
        .bare = t->o.bare,
        .shared_ram = !t->o.private_ram,
        .stderr_file = true,
    });
}

VMTest *vmt_new_src(const VMTOptions *o)
{
    VMTest *t = g_new0(VMTest, 1);

    t->o = *o;
    is_dst = false;
    t->src = new_side(t, t->o.args);
    return t;
}

void vmt_add_dst(VMTest *t, const char *uri)
{
    g_autofree char *args = g_strdup_printf("%s -incoming %s",
                                            t->o.args ?: "", uri);
    g_auto(GStrv) parts = g_strsplit(uri, "%s", -1);

    is_dst = true;
    t->dst = new_side(t, args);
    g_free(t->uri);
    t->uri = g_strjoinv(t->dst->dir, parts);
}

VMTest *vmt_new(const VMTOptions *o)
{
    VMTest *t = vmt_new_src(o);

    vmt_add_dst(t, "unix:%s/mig");
    return t;
}

static void free_dst(VMTest *t)
{
    if (t->dst) {
        g_autofree char *path = g_build_filename(t->dst->dir, "mig", NULL);

        g_unlink(path);
        vut_free(t->dst);
        t->dst = NULL;
    }
}

void vmt_replace_dst(VMTest *t)
{
    free_dst(t);
    vmt_add_dst(t, "unix:%s/mig");
}

void vmt_free(VMTest *t)
{
    vut_free(t->src);
    free_dst(t);
    g_free(t->uri);
    g_free(t);
}

void vmt_lose(VMTest *t)
{
    ts_stop_listening(t->src->s);
    ts_disconnect(t->src->s);
    vut_wait_stderr(t->src, "connection lost");
}

void vmt_return_kept(VMTest *t)
{
    g_assert_cmpint(ts_listen_again(t->src->s, t->src->path), ==, 0);
}

void vmt_return_fresh(VMTest *t)
{
    options = &t->o;
    is_dst = false;
    ts_free(t->src->s);
    t->src->s = vut_server(t->src->dir, "sock", setup);
}

void vmt_wait_returned(VMTest *t)
{
    vut_wait_stderr(t->src, VUT_ID ": the server is back");
}

void vmt_start(VMTest *t)
{
    qtest_qmp_assert_success(t->src->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': %s}}", t->uri);
}

void vmt_migrate(VMTest *t)
{
    vmt_start(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
}

static QDict *query(VUTest *side)
{
    return qtest_qmp_assert_success_ref(side->qts,
                                        "{'execute': 'query-migrate'}");
}

char *vmt_status(VUTest *side)
{
    QDict *answer = query(side);
    char *status = g_strdup(qdict_get_try_str(answer, "status") ?: "none");

    qobject_unref(answer);
    return status;
}

char *vmt_error(VUTest *side)
{
    QDict *answer = query(side);
    char *text = g_strdup(qdict_get_try_str(answer, "error-desc") ?: "");

    qobject_unref(answer);
    return text;
}

int64_t vmt_number(VUTest *side, const char *group, const char *name)
{
    QDict *answer = query(side);
    QDict *dict = qdict_get_qdict(answer, group);
    int64_t value = dict ? qdict_get_try_int(dict, name, 0) : 0;

    qobject_unref(answer);
    return value;
}

/*
 * QEMU 10.0 shuts the return path down, which is the same socket, before it notes
 * that the migration is cancelled; its thread may find the error first, and then
 * the migration has failed.
 */
static bool has_status(VUTest *side, const char *wanted)
{
    g_autofree char *status = vmt_status(side);

    if (!strcmp(wanted, "cancelled") && !strcmp(status, "failed")) {
        return true;
    }
    if (strcmp(status, wanted) && (!strcmp(status, "completed") ||
                                   !strcmp(status, "failed") ||
                                   !strcmp(status, "cancelled"))) {
        g_autofree char *error = vmt_error(side);
        g_autofree char *log = vut_stderr(side);

        g_error("migration %s, expected %s: %s\n%s", status, wanted, error,
                log);
    }
    return !strcmp(status, wanted);
}

void vmt_wait_status(VUTest *side, const char *status)
{
    VUT_WAIT(has_status(side, status));
}

bool vmt_is_running(VUTest *side)
{
    QDict *answer = qtest_qmp_assert_success_ref(side->qts,
                                                 "{'execute': 'query-status'}");
    bool running = qdict_get_bool(answer, "running");

    qobject_unref(answer);
    return running;
}

void vmt_wait_running(VUTest *side)
{
    VUT_WAIT(vmt_is_running(side));
}

void vmt_set_parameter(VUTest *side, const char *name, int64_t value)
{
    qtest_qmp_assert_success(side->qts, "{'execute': 'migrate-set-parameters',"
                             "'arguments': {%s: %" PRId64 "}}", name, value);
}

void vmt_hold(VMTest *t)
{
    g_assert(t->o.mig.data_size && t->o.mig.size > HOLD_BANDWIDTH / 1000);
    vmt_set_parameter(t->src, "max-bandwidth", HOLD_SPEED);
    vmt_set_parameter(t->src, "avail-switchover-bandwidth", HOLD_BANDWIDTH);
    vmt_set_parameter(t->src, "downtime-limit", HOLD_DOWNTIME_MS);
}

void vmt_release(VMTest *t)
{
    vmt_set_parameter(t->src, "max-bandwidth", 0);
    vmt_set_parameter(t->src, "avail-switchover-bandwidth", FREE_BANDWIDTH);
    vmt_set_parameter(t->src, "downtime-limit", FREE_DOWNTIME_MS);
}

void vmt_wait_first_pass(VMTest *t)
{
    VUT_WAIT(has_status(t->src, "active") &&
             vmt_number(t->src, "ram", "dirty-sync-count") >= 3);
}

VMTest *vmt_start_held(const VMTOptions *o)
{
    VMTest *t = vmt_new(o);

    vmt_hold(t);
    vmt_start(t);
    vmt_wait_first_pass(t);
    return t;
}

void vmt_finish(VMTest *t)
{
    vmt_release(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
}

int64_t vmt_pages_sent(VMTest *t)
{
    return vmt_number(t->src, "ram", "normal") +
           vmt_number(t->src, "ram", "duplicate");
}

void vmt_assert_all_sent_again(VMTest *t, int64_t sent)
{
    g_assert_cmpint(vmt_pages_sent(t) - sent, >=,
                    (VMT_RAM_SIZE - VMT_MIB) / 4096);
}

void vmt_fill(uint8_t *buf, size_t len, uint64_t addr)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = 1 + (addr + i) * 31 % 251;
    }
}

void vmt_device_writes(VMTest *t, uint64_t addr, size_t len, TsDmaWay way)
{
    g_autofree uint8_t *data = g_malloc(len);

    vmt_fill(data, len, addr);
    g_assert_cmpint(ts_dma_write(t->src->s, addr, data, len, way), ==, 0);
}

void vmt_assert_at_dst(VMTest *t, uint64_t addr, size_t len)
{
    g_autofree uint8_t *data = g_malloc(len);
    g_autofree uint8_t *there = g_malloc(len);

    vmt_fill(data, len, addr);
    qtest_memread(t->dst->qts, addr, there, len);
    g_assert_cmpmem(there, len, data, len);
}

void vmt_expect_source_goes_on(VMTest *t, const char *status)
{
    vmt_wait_status(t->src, status);
    vmt_wait_running(t->src);
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_RUNNING));
}

void vmt_expect_failed_load(VMTest *t, const char *text)
{
    g_autofree char *log = NULL;

    qtest_set_expected_status(t->dst->qts, 1);
    qtest_wait_qemu(t->dst->qts);
    log = vut_stderr(t->dst);
    if (!strstr(log, text)) {
        g_error("'%s' is not in: %s", text, log);
    }
    vmt_expect_source_goes_on(t, "failed");
}

/* The @nth change of state in the log; false when there are no more. */
static bool get_state(TestServer *s, unsigned nth, uint32_t *state,
                      uint64_t *seq)
{
    TsRecord r;

    if (!ts_log_get(s, VMT_SET_STATE, nth, &r)) {
        return false;
    }
    g_assert(r.set_flags & VFIO_USER_FEATURE_SET);
    g_assert_cmpuint(r.len, ==, 8);
    memcpy(state, r.data, sizeof(*state));
    *seq = r.seq;
    return true;
}

char *vmt_states(TestServer *s)
{
    GString *text = g_string_new(NULL);
    uint32_t state;
    uint64_t seq;

    for (unsigned i = 0; get_state(s, i, &state, &seq); i++) {
        g_string_append_printf(text, "%s%s", i ? " " : "",
                               ts_mig_state_name(state));
    }
    return g_string_free(text, FALSE);
}

uint64_t vmt_state_seq(TestServer *s, unsigned state, unsigned nth)
{
    uint32_t which;
    uint64_t seq;

    for (unsigned i = 0; get_state(s, i, &which, &seq); i++) {
        if (which == state && !nth--) {
            return seq;
        }
    }
    g_error("state %s was not set", ts_mig_state_name(state));
}
