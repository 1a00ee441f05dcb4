/*
 * vfio-user qtest: migrations that go well
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The servers check the stream themselves, byte by byte: a destination that
 * takes the state over got exactly what the source gave.
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qobject/qdict.h"
#include "vfio-user-migrate.h"

#define READS   ((TsMatch) { VFIO_USER_MIG_DATA_READ, -1, -1 })
#define WRITES  ((TsMatch) { VFIO_USER_MIG_DATA_WRITE, -1, -1 })

/* What the client puts into one message at most, and into all at once */
#define MAX_MESSAGE     (512 * VMT_KIB)
#define MAX_AHEAD       (2 * VMT_MIB)

/* Every message of @match carries at most @limit bytes. */
static void assert_limit(TestServer *s, TsMatch match, uint64_t limit)
{
    TsRecord r;

    for (unsigned i = 0; ts_log_get(s, match, i, &r); i++) {
        g_assert_cmpuint(r.count, <=, limit);
        g_assert_cmpuint(r.count, >, 0);
    }
}

/* What the source's server gave is what the destination's took. */
static void assert_moved(VMTest *t, uint64_t at_least)
{
    TsMigStats from, to;

    ts_mig_stats(t->src->s, &from);
    ts_mig_stats(t->dst->s, &to);
    g_assert_cmpuint(from.nr_saved, ==, 1);
    g_assert_cmpuint(to.nr_loaded, ==, 1);
    g_assert_cmpuint(from.bytes_read, >=, at_least);
    g_assert_cmpuint(to.bytes_written, ==, from.bytes_read);
    g_assert_cmpuint(vmt_number(t->src, "vfio", "transferred"), ==,
                     from.bytes_read);
    assert_limit(t->src->s, READS, MIN(t->o.max_xfer ?: VMT_MIB, MAX_MESSAGE));
    assert_limit(t->dst->s, WRITES, MIN(t->o.max_xfer ?: VMT_MIB, MAX_MESSAGE));
}

static void assert_states(TestServer *s, const char *expected)
{
    g_autofree char *states = vmt_states(s);

    g_assert_cmpstr(states, ==, expected);
}

/* The device of @side does what a device does. */
static void assert_device_works(VUTest *side, uint32_t value)
{
    QPCIBar bar = qpci_iomap(side->dev, 0, NULL);

    qpci_device_enable(side->dev);
    qpci_io_writel(side->dev, bar, 0x10, value);
    g_assert_cmphex(qpci_io_readl(side->dev, bar, 0x10), ==, value);
}

/* States ------------------------------------------------------------------- */

typedef struct Sequence {
    const char *name;
    uint64_t flags, dst_flags;
    const char *src, *dst;
} Sequence;

static const Sequence sequences[] = {
    { "stop-copy", VMT_STOP_COPY, VMT_STOP_COPY,
      "stop stop-copy stop", "resuming stop running" },
    { "p2p", VMT_STOP_COPY | VMT_P2P, VMT_STOP_COPY | VMT_P2P,
      "running-p2p stop stop-copy stop",
      "resuming stop running-p2p running" },
    { "pre-copy", VMT_STOP_COPY | VMT_PRE_COPY, VMT_STOP_COPY | VMT_PRE_COPY,
      "pre-copy stop-copy stop", "resuming stop running" },
    { "pre-copy-p2p", VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
      VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
      "pre-copy pre-copy-p2p stop-copy stop",
      "resuming stop running-p2p running" },
    /* Servers of different ages */
    { "newer-to-older", VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P, VMT_STOP_COPY,
      "pre-copy pre-copy-p2p stop-copy stop", "resuming stop running" },
    { "older-to-newer", VMT_STOP_COPY, VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
      "stop stop-copy stop", "resuming stop running-p2p running" },
};

static void test_states(const void *data)
{
    const Sequence *seq = data;
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = { .flags = seq->flags, .size = VMT_MIB, .logging = true },
        .dst_mig = { .flags = seq->dst_flags, .size = VMT_MIB },
        .device = ",enable-migration=on",
    });

    /* A VM that begins to run takes its devices through P2P, too. */
    ts_log_clear(t->src->s);
    vmt_migrate(t);
    /* Leaving STOP_COPY is not part of the downtime: it may come later. */
    g_assert(ts_mig_wait_state(t->src->s, VFIO_USER_MIG_STOP));
    assert_states(t->src->s, seq->src);
    assert_states(t->dst->s, seq->dst);
    g_assert_cmpuint(ts_mig_state(t->dst->s), ==, VFIO_USER_MIG_RUNNING);
    assert_moved(t, VMT_MIB);
    vut_find(t->dst, VUT_SLOT);
    assert_device_works(t->dst, 0x600d);
    vmt_free(t);
}

/* Sizes -------------------------------------------------------------------- */

#define SMALL_XFER  4096
#define MIDDLE_XFER (64 * VMT_KIB)

typedef struct Size {
    const char *name;
    uint64_t size;
    uint32_t max_xfer, max_read;
    uint64_t precopy, per_read;
} Size;

static const Size sizes[] = {
    { "0", 0 },
    { "1", 1 },
    { "4095", 4095 },
    { "message-1", MAX_MESSAGE - 1 },
    { "message", MAX_MESSAGE },
    { "message+1", MAX_MESSAGE + 1 },
    /* hw/vfio's buffer, of whole messages */
    { "1M-1", VMT_MIB - 1 },
    { "1M", VMT_MIB },
    { "1M+1", VMT_MIB + 1 },
    { "ahead-1", MAX_AHEAD - 1 },
    { "ahead", MAX_AHEAD },
    { "ahead+1", MAX_AHEAD + 1 },
    { "5M", 5 * VMT_MIB },
    { "64M", 64 * VMT_MIB },
    { "1G", 1024 * VMT_MIB },
    { "max-xfer-1", MIDDLE_XFER - 1, MIDDLE_XFER },
    { "max-xfer", MIDDLE_XFER, MIDDLE_XFER },
    { "max-xfer+1", MIDDLE_XFER + 1, MIDDLE_XFER },
    { "small-messages", VMT_MIB + 7, SMALL_XFER },
    { "odd-messages", VMT_MIB + 7, 12345 },
    /* Larger than the client's are */
    { "large-messages", 9 * VMT_MIB + 5, 8 * VMT_MIB },
    { "short-reads", VMT_MIB + 7, 0, 1000 },
    { "one-at-a-time", 100, 0, 1 },
    { "pre-copy/small", VMT_MIB, 0, 0, 100 },
    { "pre-copy/large", VMT_MIB, 0, 0, 10 * VMT_MIB + 3 },
    { "pre-copy/short-reads", VMT_MIB, 0, 1000, VMT_MIB },
    { "pre-copy/more", VMT_MIB, 0, 0, 3 * VMT_MIB, 50000 },
    { "pre-copy/much-more", VMT_MIB, 0, 0, 3 * VMT_MIB, 2 * VMT_MIB },
    { "pre-copy/nothing", VMT_MIB, 0, 0, 0 },
    { "pre-copy/nothing-at-all", 0, 0, 0, 0 },
    { "pre-copy/small-messages", VMT_MIB, SMALL_XFER, 0, VMT_MIB + 1, 100 },
};

static void test_size(const void *data)
{
    const Size *size = data;
    bool precopy = g_str_has_prefix(size->name, "pre-copy");
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = {
            .flags = VMT_STOP_COPY | (precopy ? VMT_PRE_COPY : 0),
            .size = size->size, .precopy = size->precopy,
            .per_read = size->per_read, .max_read = size->max_read,
            .logging = true,
        },
        .max_xfer = size->max_xfer,
    });

    if (size->per_read) {
        /* More than the device makes between two looks at it */
        vmt_release(t);
    }
    vmt_migrate(t);
    assert_moved(t, size->size + size->precopy);
    if (!precopy) {
        assert_moved(t, size->size);
    }
    vmt_free(t);
}

/* Messages in flight ------------------------------------------------------- */

typedef struct Flight {
    unsigned nr, alone;
} Flight;

/* Whether the next message comes while this one is not answered. */
static int count_flight(TestServer *s, TsMessage *request, TsMessage *reply,
                        void *opaque)
{
    Flight *flight = opaque;

    if (!flight->nr++ && !ts_message_pending(s, TS_DEADLINE_MS)) {
        flight->alone++;
    }
    return -1;
}

static Flight reads, writes;

static void setup_flight(TestServer *s)
{
    ts_set_handler(s, VFIO_USER_MIG_DATA_READ, count_flight, &reads);
    ts_set_handler(s, VFIO_USER_MIG_DATA_WRITE, count_flight, &writes);
}

/* A server that works on one message finds the next one already there. */
static void test_in_flight(void)
{
    VMTest *t;

    reads = writes = (Flight) { };
    t = vmt_new(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY, .size = 8 * VMT_MIB,
                 .logging = true },
        .max_xfer = MIDDLE_XFER,
        .setup = setup_flight,
    });
    vmt_migrate(t);
    assert_moved(t, 8 * VMT_MIB);
    g_assert_cmpuint(reads.nr, >=, 128);
    g_assert_cmpuint(reads.alone, ==, 0);
    g_assert_cmpuint(writes.nr, >=, 128);
    g_assert_cmpuint(writes.alone, ==, 0);
    vmt_free(t);
}

/* query-migrate ------------------------------------------------------------ */

static void test_transferred(void)
{
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY, .size = 3 * VMT_MIB,
                 .precopy = VMT_MIB, .data_size = true, .logging = true },
    });

    g_assert_cmpint(vmt_number(t->src, "vfio", "transferred"), ==, 0);
    vmt_hold(t);
    vmt_start(t);
    VUT_WAIT(vmt_number(t->src, "vfio", "transferred") == VMT_MIB);
    vmt_release(t);
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
    assert_moved(t, 4 * VMT_MIB);
    vmt_free(t);
}

/* Other ways --------------------------------------------------------------- */

static void test_file(void)
{
    VMTest *t = vmt_new_src(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY, .size = 2 * VMT_MIB,
                 .precopy = VMT_MIB, .logging = true },
    });
    g_autofree char *path = g_build_filename(t->src->dir, "state", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    t->uri = g_strdup(uri);
    vmt_start(t);
    vmt_wait_status(t->src, "completed");
    for (unsigned i = 0; i < 2; i++) {
        vmt_add_dst(t, uri);
        vmt_wait_running(t->dst);
        assert_moved(t, 3 * VMT_MIB);
        vut_free(g_steal_pointer(&t->dst));
    }
    g_assert_cmpint(g_unlink(path), ==, 0);
    vmt_free(t);
}

/* There and back, each time to a new destination. */
static void test_ping_pong(void)
{
    VMTest *t = vmt_new(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
                 .size = 100000, .precopy = 5000, .logging = true },
    });

    for (unsigned i = 0; i < 4; i++) {
        vmt_migrate(t);
        assert_device_works(t->dst, i);
        vut_free(t->src);
        t->src = g_steal_pointer(&t->dst);
        vmt_add_dst(t, "unix:%s/mig");
    }
    vmt_migrate(t);
    vmt_free(t);
}

#define SECOND_SIZE 70000

static void setup_second(TestServer *s)
{
    *ts_add_migration(s, VMT_STOP_COPY) = (TsMigOptions) {
        .flags = VMT_STOP_COPY, .size = SECOND_SIZE, .logging = true,
    };
}

/* One more device, which can do less than the first one. */
static TestServer *plug_second(VUTest *side)
{
    TestServer *s = vut_server(side->dir, "second", setup_second);
    g_autofree char *path = g_build_filename(side->dir, "second", NULL);
    g_autofree char *error = vut_add(side, "vu1", path, VUT_TIMEOUT_MS);

    g_assert_cmpstr(error, ==, NULL);
    return s;
}

static void test_two_devices(void)
{
    VMTest *t = vmt_new_src(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
                 .size = VMT_MIB, .precopy = 100000, .logging = true },
    });
    TestServer *from = plug_second(t->src), *to;
    TsMigStats gave, took, first;

    vmt_add_dst(t, "defer");
    to = plug_second(t->dst);
    g_free(t->uri);
    t->uri = g_strdup_printf("unix:%s/mig", t->dst->dir);
    qtest_qmp_assert_success(t->dst->qts, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s}}", t->uri);
    vmt_migrate(t);
    ts_mig_stats(from, &gave);
    ts_mig_stats(to, &took);
    g_assert_cmpuint(gave.bytes_read, ==, SECOND_SIZE);
    g_assert_cmpuint(took.bytes_written, ==, SECOND_SIZE);
    g_assert_cmpuint(took.nr_loaded, ==, 1);
    assert_states(to, "resuming stop running");
    assert_states(t->dst->s, "resuming stop running-p2p running");
    ts_mig_stats(t->src->s, &first);
    g_assert_cmpuint(vmt_number(t->src, "vfio", "transferred"), ==,
                     first.bytes_read + SECOND_SIZE);
    qtest_kill_qemu(t->src->qts);
    qtest_kill_qemu(t->dst->qts);
    ts_free(from);
    ts_free(to);
    vmt_free(t);
}

/* Snapshots ---------------------------------------------------------------- */

static char *make_disk(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "disk", NULL);
    const char *const argv[] = {
        getenv("QTEST_QEMU_IMG"), "create", "-q", "-f", "qcow2", path, "256M",
        NULL,
    };
    int status;

    g_assert(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL,
                          NULL, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    return g_steal_pointer(&path);
}

static void test_snapshot(void)
{
    g_autofree char *dir = g_dir_make_tmp("vfio-user-XXXXXX", NULL);
    g_autofree char *disk = NULL;
    g_autofree char *args = NULL;
    g_autofree char *saved = NULL;
    g_autofree char *loaded = NULL;
    TsMigStats stats;
    VMTest *t;

    if (!getenv("QTEST_QEMU_IMG")) {
        g_test_skip("QTEST_QEMU_IMG names no qemu-img to make a disk with");
        g_rmdir(dir);
        return;
    }
    disk = make_disk(dir);
    args = g_strdup_printf("-drive if=none,id=disk,format=qcow2,file=%s",
                           disk);
    t = vmt_new_src(&(VMTOptions) {
        .mig = { .flags = VMT_STOP_COPY | VMT_PRE_COPY | VMT_P2P,
                 .size = 2 * VMT_MIB, .precopy = VMT_MIB, .logging = true },
        .args = args,
    });
    qtest_writel(t->src->qts, 0x100000, 0x11111111);
    saved = qtest_hmp(t->src->qts, "savevm one");
    g_assert_cmpstr(saved, ==, "");
    g_assert(vmt_is_running(t->src));
    g_assert_cmpuint(ts_mig_state(t->src->s), ==, VFIO_USER_MIG_RUNNING);
    ts_mig_stats(t->src->s, &stats);
    g_assert_cmpuint(stats.nr_saved, ==, 1);
    g_assert(!stats.logging);

    qtest_writel(t->src->qts, 0x100000, 0x22222222);
    assert_device_works(t->src, 1);
    loaded = qtest_hmp(t->src->qts, "loadvm one");
    g_assert_cmpstr(loaded, ==, "");
    g_assert(vmt_is_running(t->src));
    ts_mig_stats(t->src->s, &stats);
    g_assert_cmpuint(stats.nr_loaded, ==, 1);
    g_assert_cmpuint(stats.bytes_written, ==, stats.bytes_read);
    g_assert_cmpuint(ts_mig_state(t->src->s), ==, VFIO_USER_MIG_RUNNING);
    g_assert_cmphex(qtest_readl(t->src->qts, 0x100000), ==, 0x11111111);
    assert_device_works(t->src, 2);
    vmt_free(t);
    g_assert_cmpint(g_unlink(disk), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

void vut_register_migrate(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(sequences); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/migrate/states/%s",
                                                sequences[i].name);

        vut_add_data_test(path, &sequences[i], test_states);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autofree char *path = g_strdup_printf("vfio-user/migrate/size/%s",
                                                sizes[i].name);

        vut_add_data_test(path, &sizes[i], test_size);
    }
    vut_add_test("vfio-user/migrate/in-flight", test_in_flight);
    vut_add_test("vfio-user/migrate/transferred", test_transferred);
    vut_add_test("vfio-user/migrate/file", test_file);
    vut_add_test("vfio-user/migrate/ping-pong", test_ping_pong);
    vut_add_test("vfio-user/migrate/two-devices", test_two_devices);
    vut_add_test("vfio-user/migrate/snapshot", test_snapshot);
}
