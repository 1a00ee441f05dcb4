/*
 * vfio-user: a connection that goes on with another socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What belongs to the old socket ends with it, once, wherever its thread is at
 * that moment; what has come on the new one already is not lost.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/vfio-user/conn-int.h"
#include "vfio-user-lives.h"

#define NR_THREADS  4
#define BIG_LEN     (1024 * 1024)

/* Threads that wait ------------------------------------------------------- */

/* One drives, the others wait for it; a new life comes before they are out. */
static void test_waiting(void)
{
    Rig *rig = rig_new_started(peer_pair);

    for (int round = 0; round < 100; round++) {
        Call call[NR_THREADS];
        PeerMessage msg;

        for (int i = 0; i < NR_THREADS; i++) {
            call_init(&call[i], rig, round, 64);
            call_thread_start(&call[i]);
            call_peer_get(&call[i], &msg);
            peer_drop(&msg);
        }
        lives_lose(rig);
        lives_begin(rig);
        for (int i = 0; i < NR_THREADS; i++) {
            call_thread_join(&call[i]);
            g_assert_cmpint(call[i].ret, ==, -EPIPE);
            call_free(&call[i]);
        }
        lives_check_slots(rig);
    }
    rig_free(rig);
}

/**
 * Task: something that a thread does and that takes its time
 * @func: returns what the function under test did
 */
typedef struct Task {
    int (*func)(Rig *rig);
    Rig *rig;
    int ret;
    PeerThread thread;
} Task;

static void task_run(void *opaque)
{
    Task *task = opaque;

    task->ret = task->func(task->rig);
}

static void task_start(Task *task, Rig *rig, int (*func)(Rig *rig))
{
    task->func = func;
    task->rig = rig;
    peer_thread_start(&task->thread, task_run, task);
}

static int task_join(Task *task)
{
    peer_thread_join(&task->thread);
    return task->ret;
}

static int do_call(Rig *rig)
{
    Call call;

    call_init(&call, rig, 77, 64);
    vfio_user_conn_call(rig->conn, &call.req);
    if (!call.req.ret) {
        call_check_good(&call);
    }
    call_free(&call);
    return call.req.ret;
}

/* The call above, as the peer has to see it */
static void serve_call(Rig *rig)
{
    Call call;

    call_init(&call, rig, 77, 64);
    call_peer_serve(&call);
    call_free(&call);
}

static int do_post(Rig *rig)
{
    return rig_post(rig, 78, 64, 0);
}

static int do_post_big(Rig *rig)
{
    return rig_post(rig, 79, BIG_LEN, 0);
}

static int do_post_write(Rig *rig)
{
    return vfio_user_conn_post_write(rig->conn, 0, 80, "\x5a", 1, 0, 0);
}

/* The socket that the writes below are for */
static unsigned own_life;

static int do_post_write_own(Rig *rig)
{
    return vfio_user_conn_post_write(rig->conn, 0, 80, "\x5b", 1, own_life, 0);
}

static int post_own(Rig *rig, int (*post)(VFIOUserConn *conn,
                                          VFIOUserRequest *req))
{
    uint8_t payload[17] = { [12] = 1, [16] = 0x5b };
    struct iovec out = { payload, sizeof(payload) };
    VFIOUserRequest req = {
        .command = CMD_REGION_WRITE,
        .out = &out, .nr_out = 1,
        .life = own_life,
    };

    return post(rig->conn, &req);
}

/* A write that is answered, with two descriptors if @in_fds */
static int call_big(Rig *rig, int *in_fds)
{
    g_autofree uint8_t *data = g_malloc0(BIG_LEN);
    uint8_t head[16];
    struct iovec out = { data, BIG_LEN }, in = { head, sizeof(head) };
    VFIOUserRequest req = {
        .command = CMD_REGION_WRITE,
        .out = &out, .nr_out = 1,
        .in = &in, .nr_in = 1,
        .in_fds = in_fds, .max_in_fds = in_fds ? 2 : 0,
    };
    int ret = vfio_user_conn_call(rig->conn, &req);

    g_assert_cmpint(req.nr_in_fds, ==, !ret && in_fds ? 2 : 0);
    return ret;
}

static int do_call_big(Rig *rig)
{
    return call_big(rig, NULL);
}

static int do_call_big_fds(Rig *rig)
{
    int fds[2];
    int ret = call_big(rig, fds);

    if (!ret) {
        peer_close_fds(fds, 2);
    }
    return ret;
}

static void fill_socket(Rig *rig)
{
    while (!rig_post(rig, 0, 100, 1)) {
        /* The peer does not read. */
    }
}

/* @full: nothing of them is out; else the first one is, in part. */
static void senders(Rig *rig, unsigned first, bool full)
{
    static int (*const func[])(Rig *rig) = {
        do_post_big, do_call_big, do_post, do_call,
    };
    Task task[ARRAY_SIZE(func)];

    if (full) {
        fill_socket(rig);
    }
    for (int i = 0; i < ARRAY_SIZE(func); i++) {
        task_start(&task[i], rig, func[(first + i) % ARRAY_SIZE(func)]);
        rig_wait_queued(rig, i + 1);
    }
    lives_lose(rig);
    lives_begin_with(rig, peer_small_pair);
    for (int i = 0; i < ARRAY_SIZE(func); i++) {
        g_assert_cmpint(task_join(&task[i]), ==, -EPIPE);
    }
    lives_check_slots(rig);
}

static void test_senders(void)
{
    Rig *rig = rig_new_started(peer_small_pair);

    for (int round = 0; round < 10; round++) {
        for (int first = 0; first < 4; first++) {
            senders(rig, first, true);
        }
        senders(rig, 0, false);
        senders(rig, 1, false);
    }
    rig_free(rig);
}

/* Threads that are away --------------------------------------------------- */

/* A lock like the BQL: who makes the new life holds it. */
static QemuMutex gate;

static void tick_at_gate(void *opaque)
{
    Rig *rig = opaque;

    WITH_QEMU_LOCK_GUARD(&rig->lock) {
        rig->nr_ticks++;
        qemu_cond_broadcast(&rig->cond);
    }
    QEMU_LOCK_GUARD(&gate);
}

/* The thread is in its tick when the socket is lost, and comes out after. */
static Rig *gate_new(void (*make)(int fd[2]))
{
    Rig *rig = rig_new(make);

    rig->ops.tick = tick_at_gate;
    rig->conn->tick_ms = 1;
    rig_start(rig);
    return rig;
}

static void gate_start(Task *task, Rig *rig, int (*func)(Rig *rig))
{
    unsigned before = rig_count(rig, &rig->nr_ticks);

    qemu_mutex_lock(&gate);
    task_start(task, rig, func);
    rig_wait_count(rig, &rig->nr_ticks, before + 1);
}

static void gate_new_life(Rig *rig)
{
    lives_lose(rig);
    lives_begin(rig);
    qemu_mutex_unlock(&gate);
}

static void in_tick_lost(bool full, int (*func)(Rig *rig))
{
    Rig *rig = gate_new(full ? peer_small_pair : peer_pair);
    Task task;

    if (full) {
        fill_socket(rig);
    }
    gate_start(&task, rig, func);
    gate_new_life(rig);
    g_assert_cmpint(task_join(&task), ==, -EPIPE);
    lives_check_slots(rig);
    rig_free(rig);
}

static void test_in_tick(void)
{
    in_tick_lost(false, do_call);
    in_tick_lost(true, do_call);
    in_tick_lost(true, do_post);
    in_tick_lost(true, do_post_big);
    in_tick_lost(true, do_call_big);
    in_tick_lost(false, do_call_big);
}

/* What waited for its turn has it in the new life. */
static void slot_wait(bool in_tick, bool was_lockstep, bool is_lockstep)
{
    Rig *rig = gate_new(peer_pair);
    PeerMessage msg;
    Task task;
    Next next;
    Call call[VFIO_USER_CONN_MAX_REQUESTS];
    unsigned nr = was_lockstep ? 1 : VFIO_USER_CONN_MAX_REQUESTS;

    if (was_lockstep) {
        vfio_user_conn_set_lockstep(rig->conn);
    }
    for (unsigned i = 0; i < nr; i++) {
        call_begin(&call[i], rig, i, 4, &msg);
        peer_drop(&msg);
    }
    gate_start(&task, rig, do_call);
    if (!in_tick) {
        qemu_mutex_unlock(&gate);
    }
    lives_lose(rig);
    next_init(&next, rig, peer_pair);
    if (is_lockstep) {
        vfio_user_conn_set_lockstep(next.conn);
    }
    next_take(&next, rig);
    if (in_tick) {
        qemu_mutex_unlock(&gate);
        serve_call(rig);
        g_assert_cmpint(task_join(&task), ==, 0);
    } else {
        /* It was woken, and fails or goes on, just as it comes. */
        lives_lose(rig);
        g_assert_cmpint(task_join(&task), ==, -EPIPE);
        lives_begin(rig);
    }
    lives_check_slots(rig);
    for (unsigned i = 0; i < nr; i++) {
        call_wait_ret(&call[i], -EPIPE);
        call_free(&call[i]);
    }
    rig_free(rig);
}

static void test_slot_wait(void)
{
    for (int i = 0; i < 8; i++) {
        slot_wait(i & 1, i & 2, i & 4);
    }
}

static void expect_post_write(Rig *rig)
{
    PeerMessage msg;

    peer_get(rig->peer, &msg);
    g_assert_cmpint(msg.command, ==, CMD_REGION_WRITE);
    g_assert_cmphex(msg.flags, ==, PEER_NO_REPLY);
    g_assert_cmpint(msg.len, ==, 17);
    g_assert_cmphex(msg.payload[16], ==, 0x5a);
    peer_drop(&msg);
}

static void backlog_wait(bool in_tick)
{
    Rig *rig = gate_new(peer_small_pair);
    Task task;
    int ret;

    while (qatomic_read(&rig->conn->nr_backlog) < VFIO_USER_CONN_MAX_BACKLOG) {
        g_assert_cmpint(do_post_write(rig), ==, 0);
    }
    gate_start(&task, rig, do_post_write);
    if (!in_tick) {
        qemu_mutex_unlock(&gate);
    }
    lives_lose(rig);
    lives_begin(rig);
    if (in_tick) {
        qemu_mutex_unlock(&gate);
    }
    ret = task_join(&task);
    if (!ret) {
        expect_post_write(rig);
    } else {
        /* Out of its tick it may see the failure before the new life. */
        g_assert_false(in_tick);
        g_assert_cmpint(ret, ==, -EPIPE);
    }
    g_assert_cmpint(qatomic_read(&rig->conn->nr_backlog), ==, 0);
    lives_check_slots(rig);
    rig_free(rig);
}

/* The next message is this write, and nothing has come before it. */
static void check_nothing_came(Rig *rig)
{
    g_assert_cmpint(do_post_write(rig), ==, 0);
    expect_post_write(rig);
}

/* A write that is for one server waits for room, and there is another one. */
static void test_backlog_own(void)
{
    Rig *rig = gate_new(peer_small_pair);
    Task task;

    own_life = vfio_user_conn_life(rig->conn);
    while (qatomic_read(&rig->conn->nr_backlog) < VFIO_USER_CONN_MAX_BACKLOG) {
        g_assert_cmpint(do_post_write_own(rig), ==, 0);
    }
    gate_start(&task, rig, do_post_write_own);
    gate_new_life(rig);
    g_assert_cmpint(task_join(&task), ==, -EPIPE);
    check_nothing_came(rig);
    lives_check_slots(rig);
    rig_free(rig);
}

/* Its thread comes to send it when there already is another one. */
static void test_late_own(void)
{
    Rig *rig = rig_new_started(peer_pair);

    own_life = vfio_user_conn_life(rig->conn);
    g_assert_cmpint(post_own(rig, vfio_user_conn_post), ==, 0);
    lives_lose(rig);
    lives_begin(rig);
    g_assert_cmpint(post_own(rig, vfio_user_conn_post), ==, -EPIPE);
    g_assert_cmpint(post_own(rig, vfio_user_conn_try_post), ==, -EPIPE);
    g_assert_cmpint(do_post_write_own(rig), ==, -EPIPE);
    check_nothing_came(rig);
    rig_free(rig);
}

static void test_backlog_wait(void)
{
    backlog_wait(true);
    backlog_wait(false);
}

/* The id of a request of which the peer has not read more than the header */
static uint16_t peek_id(Rig *rig)
{
    uint8_t header[16];
    uint16_t id;

    peer_recv_bytes(rig->peer, header, sizeof(header));
    memcpy(&id, header, sizeof(id));
    return id;
}

/* The server answered before it had read all: an outcome, with descriptors. */
static void test_replied_while_sending(void)
{
    Rig *rig = gate_new(peer_small_pair);
    g_autofree uint8_t *m = NULL;
    uint8_t args[16] = { };
    int fds[2];
    Task task;

    gate_start(&task, rig, do_call_big_fds);
    m = peer_make(peek_id(rig), CMD_REGION_WRITE, PEER_REPLY, 0, args,
                  sizeof(args));
    peer_open_fds(fds, 2);
    peer_send_fds(rig->peer, m, 32, fds, 2);
    peer_close_fds(fds, 2);
    peer_wait_taken(rig->peer);
    gate_new_life(rig);
    g_assert_cmpint(task_join(&task), ==, 0);
    lives_check_slots(rig);
    rig_free(rig);
}

/* The next server answers what it cannot have seen: memory of one who leaves */
static void test_replied_by_next(void)
{
    Rig *rig = gate_new(peer_small_pair);
    uint8_t args[16] = { };
    uint16_t id;
    Error *err;
    Task task;

    gate_start(&task, rig, do_call_big_fds);
    id = peek_id(rig);
    lives_lose(rig);
    lives_begin(rig);
    peer_send(rig->peer, id, CMD_REGION_WRITE, PEER_REPLY, 0, args,
              sizeof(args));
    rig_wait_count(rig, &rig->nr_failed, ++rig->fails);
    err = vfio_user_conn_error(rig->conn);
    g_assert_nonnull(strstr(error_get_pretty(err), "nothing that was asked"));
    error_free(err);
    qemu_mutex_unlock(&gate);
    g_assert_cmpint(task_join(&task), ==, -EPIPE);
    lives_begin(rig);
    lives_check_slots(rig);
    rig_free(rig);
}

#ifdef CONFIG_TSAN
#define SIGNALS_WAIT    true
#else
#define SIGNALS_WAIT    false
#endif

/* Stopped wherever it is, until the pipe has a byte */
static int stopped[2], resume[2];

static void stop_here(int sig)
{
    char byte = 0;

    if (write(stopped[1], &byte, 1) != 1 || read(resume[0], &byte, 1) != 1) {
        abort();
    }
}

/* QEMU's threads do not take signals by themselves. */
static int do_call_stoppable(Rig *rig)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return do_call(rig);
}

static bool has_claimed(Rig *rig)
{
    return lives_free_slots(rig) < VFIO_USER_CONN_MAX_REQUESTS;
}

/*
 * The request has its slot in the one life, and is sent in the other: it must
 * not be, since nobody waits for a reply there.
 */
static void check_claimed_before(void)
{
    struct sigaction sa = { .sa_handler = stop_here, .sa_flags = SA_RESTART };
    Rig *rig = rig_new_started(peer_pair);
    char byte = 0;
    Task task;

    g_assert_cmpint(pipe(stopped), ==, 0);
    g_assert_cmpint(pipe(resume), ==, 0);
    g_assert_cmpint(sigaction(SIGUSR1, &sa, NULL), ==, 0);
    qemu_mutex_lock(&rig->conn->send_lock);
    task_start(&task, rig, do_call_stoppable);
    lives_wait(rig, has_claimed);
    g_assert_cmpint(pthread_kill(task.thread.thread.thread, SIGUSR1), ==, 0);
    g_assert_cmpint(read(stopped[0], &byte, 1), ==, 1);
    qemu_mutex_unlock(&rig->conn->send_lock);

    lives_lose(rig);
    lives_begin(rig);
    g_assert_cmpint(write(resume[1], &byte, 1), ==, 1);
    g_assert_cmpint(task_join(&task), ==, -EPIPE);
    lives_check_slots(rig);
    peer_close_fds(stopped, 2);
    peer_close_fds(resume, 2);
    rig_free(rig);
}

static void test_claimed_before(void)
{
    if (SIGNALS_WAIT) {
        g_test_skip("TSan holds signals back while a thread waits for a lock");
    } else {
        check_claimed_before();
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();
    qemu_mutex_init(&gate);

#define T(name, func) peer_add_test("/vfio-user/conn/life/" name, func)
    T("waiting", test_waiting);
    T("senders", test_senders);
    T("in-tick", test_in_tick);
    T("slot-wait", test_slot_wait);
    T("backlog-wait", test_backlog_wait);
    T("backlog-own", test_backlog_own);
    T("late-own", test_late_own);
    T("replied-while-sending", test_replied_while_sending);
    T("replied-by-next", test_replied_by_next);
    T("claimed-before", test_claimed_before);

    return g_test_run();
}
