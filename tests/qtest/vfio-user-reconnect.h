/*
 * vfio-user qtest: a server that goes and comes back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server is a thread of the test as elsewhere. One that keeps its state is
 * the same TestServer, which lets its client and its socket go and listens
 * again; one that has lost it is a new TestServer. Only a test that wants to
 * kill a server at any moment needs a process (vfio-user-reconnect-disk.c).
 */

#ifndef TESTS_QTEST_VFIO_USER_RECONNECT_H
#define TESTS_QTEST_VFIO_USER_RECONNECT_H

#include "qobject/qdict.h"
#include "vfio-user-util.h"

#define RT_RESETS   ((TsMatch) { VFIO_USER_DEVICE_RESET, -1, -1 })
#define RT_REG      0x30

/**
 * RTest: a VM whose device reconnects
 * @t: with the server of the moment in @t->s
 * @bars: after rt_map()
 * @events: every event so far; @nr_seen: of them, those waited for
 */
typedef struct RTest {
    VUTest *t;
    QPCIBar bars[6];
    GPtrArray *events;
    unsigned nr_seen;
} RTest;

/*
 * As vut_new(), with stderr in a file. The device reconnects after 5 ms unless
 * @o->device has an opinion. Its BARs are mapped, unless there is none.
 */
RTest *rt_new(const VUTOptions *o);
void rt_free(RTest *r);
/* BARs get addresses; the device is enabled. */
void rt_map(RTest *r);

/* The server dies, with its socket; the client has noticed. */
void rt_lose(RTest *r);
/* It is back with all that it had. */
void rt_return_kept(RTest *r);
/* Another one is there, a standard device with @setup. */
void rt_return_fresh(RTest *r, void (*setup)(TestServer *s));

/*
 * The next event of this device must be VFIO_USER_@name. Its data is lent
 * until the next call.
 */
const QDict *rt_expect(RTest *r, const char *name);
/* Waits until the server has come back @nr times, whether or not the VM runs. */
void rt_wait_returned(RTest *r, unsigned nr);
/*
 * Those that are held back because they would be too many come out, unless the VM
 * is stopped: in a qtest it is its clock that counts.
 */
void rt_let_events_out(RTest *r);
/* Waits for VFIO_USER_RECONNECTED, which must say @kept. */
void rt_expect_return(RTest *r, bool kept);
/* There is none that was not waited for. */
void rt_expect_no_more(RTest *r);
/* Waits for any event, whatever comes before it. */
void rt_wait_event(RTest *r, const char *name);
bool rt_had_event(RTest *r, const char *name);

/*
 * The device works, whatever happened before; the server has had @clients.
 * Events up to now count as seen.
 */
void rt_settle(RTest *r, unsigned clients);
/* The guest is reset, and its BARs are gone. */
void rt_system_reset(RTest *r);

/* Each BAR reads all-ones; so does config space. */
void rt_check_offline(RTest *r);
bool rt_is_offline(RTest *r);
/* It holds what is written to it. */
void rt_check_works(RTest *r, uint32_t value);
void rt_check_monitor(RTest *r);

/* device_add with @props (", name=value"); NULL, or the error's text. */
char *rt_add(RTest *r, const char *id, const char *socket, unsigned slot,
             const char *props);
/* device_del, and the guest's consent; waits until it is gone. */
void rt_del(RTest *r, const char *id, unsigned slot);
/* query-status; to be freed. */
char *rt_status(RTest *r);

/* "*" stands for anything, also at both ends. */
bool rt_matches(const char *text, const char *pattern);

/* One more vfio-user device of a server of its own, for a look at it. */
TestServer *rt_add_witness(RTest *r);
void rt_del_witness(RTest *r, TestServer *s);
/* Both servers were told of the same memory. */
void rt_check_same_windows(TestServer *a, TestServer *b);

void rt_register_fresh(void);
void rt_register_refuse(void);
void rt_register_replay(void);
void rt_register_ioeventfd(void);
void rt_register_iothread(void);
void rt_register_irq(void);
void rt_register_room(void);
void rt_register_states(void);
void rt_register_policy(void);
void rt_register_disk(void);

/* The server's process of rt_register_disk(): this program, called so. */
#define RT_SERVE    "--serve-disk"
int rt_serve_disk(int argc, char **argv);

#endif /* TESTS_QTEST_VFIO_USER_RECONNECT_H */
