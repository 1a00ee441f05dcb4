/*
 * vfio-user qtest: an IOThread that does not get on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The IOThread of iothread= may serve other devices, too. A handler of one of these
 * that wants the BQL stands still while somebody else has it, and with it all that the
 * IOThread would do for us. Here it is stopped by ptrace instead, so that it certainly
 * does. Whoever has the BQL must get on without it, or both stand still for ever.
 */

#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "qobject/qlist.h"
#include "vfio-user-reconnect.h"

#define DMA_AT      0x20000ull
#define HANG_S      120

static const VUTOptions shared_thread = {
    .args = "-object iothread,id=io", .device = ",iothread=io",
};

static pid_t iothread_tid(RTest *r)
{
    QDict *response = qtest_qmp(r->t->qts, "{'execute': 'query-iothreads'}");
    QDict *io = qobject_to(QDict, qlist_peek(qdict_get_qlist(response,
                                                             "return")));
    pid_t tid = qdict_get_int(io, "thread-id");

    qobject_unref(response);
    return tid;
}

/* Returns 0 where that is not allowed. */
static pid_t stop_iothread(RTest *r)
{
    pid_t tid = iothread_tid(r);
    int status;

    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL)) {
        g_autofree char *why = g_strdup_printf("ptrace of a child: %s",
                                               g_strerror(errno));

        g_test_skip(why);
        return 0;
    }
    /* Who waits for it waits for ever. */
    alarm(HANG_S);
    g_assert_no_errno(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
    g_assert_cmpint(waitpid(tid, &status, __WALL), ==, tid);
    g_assert(WIFSTOPPED(status));
    return tid;
}

static void release_iothread(pid_t tid)
{
    if (!tid) {
        return;
    }
    g_assert_no_errno(ptrace(PTRACE_DETACH, tid, NULL, NULL));
    alarm(0);
}

/* The guest lets go of the device, and plugs in another one at once. */
static void test_unplug(void)
{
    RTest *r = rt_new(&shared_thread);
    pid_t tid = stop_iothread(r);
    g_autofree char *error = NULL;

    rt_del(r, VUT_ID, VUT_SLOT);
    g_assert(ts_wait_connected(r->t->s, false));
    error = rt_add(r, "again", r->t->path, VUT_SLOT, ",iothread=io");
    g_assert_cmpstr(error, ==, NULL);
    release_iothread(tid);
    rt_free(r);
}

/* The server comes back. */
static void test_return(void)
{
    RTest *r = rt_new(&shared_thread);
    pid_t tid;

    rt_check_works(r, 1);
    rt_lose(r);
    tid = stop_iothread(r);
    rt_return_kept(r);
    rt_wait_returned(r, 1);
    rt_check_works(r, 2);
    release_iothread(tid);
    rt_check_works(r, 3);
    rt_free(r);
}

/* A register whose value lies in guest memory. */
static int access_dma(TestServer *s, unsigned region, uint64_t offset,
                      void *data, uint32_t len, bool write, void *opaque)
{
    return write ? ts_dma_write(s, DMA_AT + offset, data, len,
                                TS_DMA_MESSAGE)
                 : ts_dma_read(s, DMA_AT + offset, data, len, TS_DMA_MESSAGE);
}

static void setup_dma_register(TestServer *s)
{
    vut_setup_unmapped(s);
    ts_region(s, 0, 0x1000, 3)->access = access_dma;
}

/*
 * The server's commands come on its second socket, which only the IOThread looks
 * after, and it does not answer before it has its reply.
 */
static void test_second_socket(void)
{
    VUTOptions o = shared_thread;
    RTest *r;
    pid_t tid;

    o.setup = setup_dma_register;
    r = rt_new(&o);
    tid = stop_iothread(r);
    qtest_writel(r->t->qts, DMA_AT + 0x10, 0xaa);
    g_assert_cmphex(qpci_io_readl(r->t->dev, r->bars[0], 0x10), ==, 0xaa);
    release_iothread(tid);
    rt_free(r);
}

void rt_register_iothread(void)
{
    vut_add_test("vfio-user/reconnect/iothread/unplug", test_unplug);
    vut_add_test("vfio-user/reconnect/iothread/return", test_return);
    vut_add_test("vfio-user/reconnect/iothread/second-socket",
                 test_second_socket);
}
