/*
 * vfio-user qtest: channels that sync while device state is on its way
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Device state and guest memory have the multifd channels in common. Once the
 * last of the memory is sent, the migration thread asks each channel to sync.
 * QEMU 10.0 then waited, with the big lock held, until as many channels were
 * idle; but these go to the device's thread as well, and the destination takes
 * nothing more from them before the migration thread tells it to.
 *
 * Who comes first is made sure of here, with one channel:
 * - The destination is stopped, so that a last piece of memory, more than the
 *   socket takes, fills the channel. The migration thread asks for the sync.
 * - It is stopped, too, by ptrace, and the destination goes on. The channel
 *   sends the piece, the sync, and as much device state as anybody takes.
 * - The migration thread goes on. Waiting for an idle channel, it waits for
 *   ever.
 */

#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include "vfio-user-migrate.h"

/*
 * Two of hw/vfio's buffers and a half: each is more than a socket takes, and
 * vfio-user reads all of it ahead.
 */
#define STATE           (5 * VMT_MIB / 2)
/* One packet, and more than a socket takes */
#define PIECE_ADDR      (8 * VMT_MIB)
#define PIECE           (480 * VMT_KIB)
#define PIECE_BYTE      0x5a
/* Far more than it takes to send the state */
#define MANY_TICKS      10

/* What is in QEMU's log */
#define PIECE_TAKEN     "normal pages 120 "
#define ASKED           "multifd_send_sync_main_signal "
#define SYNCED          "multifd_send_sync_main packet"
#define ARRIVED         "flags 0x1 "

/* With private memory nothing is asked of the server but its state. */
static const VMTOptions multifd = {
    .mig = { .flags = VMT_STOP_COPY, .size = STATE, .data_size = true },
    .private_ram = true,
    .args = "-name vm,debug-threads=on -trace multifd_recv_unfill "
            "-trace multifd_send_ram_fill "
            "-trace multifd_send_sync_main_signal "
            "-trace multifd_send_sync_main",
    .device = ",x-migration-multifd-transfer=on",
};

static unsigned nr_lines(VUTest *side, const char *text)
{
    g_autofree char *log = vut_stderr(side);

    return vut_occurrences(log, text);
}

static void set_capability(VUTest *side, const char *name)
{
    qtest_qmp_assert_success(
        side->qts, "{'execute': 'migrate-set-capabilities', 'arguments': "
        "{'capabilities': [{'capability': %s, 'state': true}]}}", name);
}

static void set_multifd(VUTest *side)
{
    set_capability(side, "multifd");
    set_capability(side, "return-path");
    vmt_set_parameter(side, "multifd-channels", 1);
}

/* Threads of the source --------------------------------------------------- */

static pid_t find_thread(pid_t pid, const char *name)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d/task", pid);
    g_autoptr(GDir) tasks = g_dir_open(dir, 0, NULL);
    const char *tid;

    g_assert(tasks);
    while ((tid = g_dir_read_name(tasks))) {
        g_autofree char *path = g_build_filename(dir, tid, "comm", NULL);
        g_autofree char *comm = NULL;

        if (g_file_get_contents(path, &comm, NULL, NULL) &&
            !strcmp(g_strchomp(comm), name)) {
            return atoi(tid);
        }
    }
    g_error("process %d has no thread %s", pid, name);
}

/* What follows the name in /proc/PID/stat or that of a task */
static char *get_stat(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "stat", NULL);
    g_autofree char *stat = NULL;

    /* Threads end at any time. */
    return g_file_get_contents(path, &stat, NULL, NULL) ?
           g_strdup(strrchr(stat, ')') + 2) : NULL;
}

static bool sleeps(pid_t tid)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d", tid);
    g_autofree char *stat = get_stat(dir);

    return stat && stat[0] == 'S';
}

static bool nobody_runs(pid_t pid)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d/task", pid);
    g_autoptr(GDir) tasks = g_dir_open(dir, 0, NULL);
    const char *tid;
    bool runs = false;

    g_assert(tasks);
    while (!runs && (tid = g_dir_read_name(tasks))) {
        g_autofree char *task = g_build_filename(dir, tid, NULL);
        g_autofree char *stat = get_stat(task);

        runs = stat && (stat[0] == 'R' || stat[0] == 'D');
    }
    return !runs;
}

/* Of all threads, in clock ticks */
static unsigned long cpu_time(pid_t pid)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d", pid);
    g_autofree char *stat = get_stat(dir);
    unsigned long user, system;

    g_assert(stat);
    g_assert_cmpint(sscanf(stat, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                           "%lu %lu", &user, &system), ==, 2);
    return user + system;
}

static void stop_thread(pid_t tid)
{
    int status;

    g_assert_no_errno(ptrace(PTRACE_SEIZE, tid, NULL, NULL));
    g_assert_no_errno(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
    g_assert_cmpint(waitpid(tid, &status, __WALL), ==, tid);
    g_assert(WIFSTOPPED(status));
}

static void continue_thread(pid_t tid)
{
    g_assert_no_errno(ptrace(PTRACE_DETACH, tid, NULL, NULL));
}

static bool may_stop_threads(pid_t pid)
{
    int status;

    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL)) {
        g_autofree char *why = g_strdup_printf("ptrace of a child: %s",
                                               g_strerror(errno));

        g_test_skip(why);
        return false;
    }
    /* Only a stopped one can be left alone again. */
    g_assert_no_errno(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
    g_assert_cmpint(waitpid(pid, &status, __WALL), ==, pid);
    continue_thread(pid);
    return true;
}

/* What the channel takes without a reader must be less than the piece. */
static bool fills_socket(size_t len)
{
    g_autofree char *text = NULL;

    if (g_file_get_contents("/proc/sys/net/core/wmem_default", &text, NULL,
                            NULL) && strtoul(text, NULL, 10) >= len) {
        g_test_skip("net.core.wmem_default takes the piece of memory whole");
        return false;
    }
    return true;
}

/* The test ---------------------------------------------------------------- */

/* Up to a VM that has stopped, with all of its memory sent. */
static VMTest *start(void)
{
    VMTest *t = vmt_new_src(&multifd);

    vmt_add_dst(t, "defer");
    set_multifd(t->src);
    set_multifd(t->dst);
    set_capability(t->src, "pause-before-switchover");
    g_free(t->uri);
    t->uri = g_strdup_printf("unix:%s/mig", t->dst->dir);
    qtest_qmp_assert_success(t->dst->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", t->uri);
    vmt_hold(t);
    vmt_start(t);
    vmt_wait_first_pass(t);
    VUT_WAIT(!vmt_number(t->src, "ram", "remaining"));
    vmt_release(t);
    vmt_wait_status(t->src, "pre-switchover");
    return t;
}

/* The sync that follows the piece of memory was asked for, and not done. */
static bool waits_for_sync(VUTest *src)
{
    return nr_lines(src, PIECE_TAKEN) &&
           nr_lines(src, ASKED) > nr_lines(src, SYNCED);
}

/* Nobody waits for the server any more. */
static bool is_state_read(VMTest *t)
{
    TsMigStats stats;

    ts_mig_stats(t->src->s, &stats);
    return stats.nr_saved;
}

/* The rest of the migration, up to a channel full of the piece of memory. */
static void fill_channel(VMTest *t, pid_t thread)
{
    static const TsMigFail stall = {
        .kind = TS_FAIL_STALL, .point = TS_AT_READ, .times = 1,
    };

    g_assert_no_errno(kill(qtest_pid(t->dst->qts), SIGSTOP));
    ts_mig_fail(t->src->s, &stall);
    qtest_memset(t->src->qts, PIECE_ADDR, PIECE_BYTE, PIECE);
    /* Answered when the big lock is free again */
    qtest_qmp_send(t->src->qts, "{'execute': 'migrate-continue', "
                   "'arguments': {'state': 'pre-switchover'}}");
    VUT_WAIT(waits_for_sync(t->src) && sleeps(thread));
    g_assert(ts_mig_wait_failed(t->src->s, 1));
}

/*
 * The migration thread stands still. The others go on until there is nothing
 * more to be done; QEMU 10.0's then looked for an idle channel without end.
 */
static void send_state(VMTest *t)
{
    unsigned nr_syncs = nr_lines(t->src, ASKED);
    pid_t src = qtest_pid(t->src->qts);
    unsigned long time;

    ts_unstall(t->src->s);
    VUT_WAIT(is_state_read(t));
    g_assert_no_errno(kill(qtest_pid(t->dst->qts), SIGCONT));
    VUT_WAIT(nr_lines(t->dst, ARRIVED) == nr_syncs);
    time = cpu_time(src);
    VUT_WAIT(nobody_runs(src) || cpu_time(src) > time + MANY_TICKS);
}

static void test_multifd(void)
{
    VMTest *t = start();
    pid_t src = qtest_pid(t->src->qts);
    pid_t thread = find_thread(src, "mig/src/main");

    if (!fills_socket(PIECE) || !may_stop_threads(src)) {
        goto out;
    }
    fill_channel(t, thread);
    stop_thread(thread);
    send_state(t);
    continue_thread(thread);

    VUT_WAIT(!waits_for_sync(t->src));
    qobject_unref(qtest_qmp_receive(t->src->qts));
    vmt_wait_status(t->src, "completed");
    vmt_wait_running(t->dst);
    g_assert_cmphex(qtest_readb(t->dst->qts, PIECE_ADDR + PIECE - 1), ==,
                    PIECE_BYTE);
    g_assert_cmpint(vmt_number(t->src, "vfio", "transferred"), >=, STATE);
out:
    vmt_free(t);
}

void vut_register_migrate_sync(void)
{
    vut_add_test("vfio-user/migrate/sync/multifd", test_multifd);
}
