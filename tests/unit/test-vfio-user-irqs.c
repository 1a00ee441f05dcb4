/*
 * vfio-user: which messages about interrupts a server gets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The peer is the server: it answers when the test says so, and until then it
 * is one that was stopped. A call that waited for it would hang the test.
 */

#include "qemu/osdep.h"
#include "qemu/event_notifier.h"
#include "qemu/lockable.h"
#include "qapi/error.h"
#include "hw/vfio/pci.h"
#include "hw/vfio-user/irqs-int.h"
#include "hw/vfio-user/owed.h"
#include "vfio-user-rig.h"

/* From the protocol's tables */
#define CMD_SET_IRQS    8
#define F_NONE          0x01
#define F_EVENTFD       0x04
#define F_MASK          0x08
#define F_UNMASK        0x10
#define F_TRIGGER       0x20
#define INTX            0
#define MSI             1
#define MSIX            2
#define ERR             3
#define REQ             4
#define REGION_CONFIG   7

#define NR_MSIX         16
#define MILLION         1000000

typedef struct Test {
    VFIOUserDevice udev;
    VFIOPCIDevice vdev;
    Rig *rig;
    unsigned nr_hooks;
} Test;

/* What irqs.c needs of the rest of the client ------------------------------ */

void vfio_user_device_broke_protocol(VFIOUserDevice *udev, Error *err)
{
    vfio_user_conn_fail(udev->conn, err);
}

/* Its header does not go together with the unit tests' iothread.h. */
void vfio_user_owed_irqs(VFIOUserDevice *udev)
{
}

static void hook(VFIOUserDevice *udev)
{
    Test *t = container_of(udev, Test, udev);

    /* Any lock that is held here would show. */
    vfio_user_irqs_wanted(udev);
    vfio_user_conn_error(udev->conn);
    QEMU_LOCK_GUARD(&t->rig->lock);
    t->nr_hooks++;
    qemu_cond_broadcast(&t->rig->cond);
}

/* The parent comes first, under whatever name. */
static PCIDevice *test_pci(Test *t)
{
    return (PCIDevice *)&t->vdev;
}

static Test *test_new_with(unsigned max_fds, unsigned nr_msix)
{
    Test *t = g_new0(Test, 1);

    t->rig = rig_new_started(peer_pair);
    t->udev.name = (char *)"test";
    t->udev.conn = t->rig->conn;
    t->udev.timeout_ms = RIG_TIMEOUT_MS;
    t->udev.caps.max_msg_fds = max_fds;
    t->udev.ready = true;
    t->udev.irqs[INTX].info.count = 1;
    t->udev.irqs[MSI].info.count = 4;
    t->udev.irqs[MSIX].info.count = nr_msix;
    t->udev.irqs[ERR].info.count = 1;
    t->udev.irqs[REQ].info.count = 1;
    t->udev.irqs_told = hook;
    test_pci(t)->config = g_malloc0(256);
    t->udev.vbasedev = &t->vdev.vbasedev;
    vfio_user_irqs_init(&t->udev);
    return t;
}

static Test *test_new(void)
{
    return test_new_with(8, NR_MSIX);
}

static void test_free(Test *t)
{
    Rig *rig = t->rig;

    vfio_user_irqs_cleanup(&t->udev);
    vfio_user_conn_stop(rig->conn);
    vfio_user_irqs_free(&t->udev);
    rig_free(rig);
    g_free(test_pci(t)->config);
    g_free(t);
}

/* hw/vfio ------------------------------------------------------------------ */

static void set_fds(Test *t, uint32_t index, uint32_t start, const int *fds,
                    uint32_t count)
{
    size_t size = sizeof(struct vfio_irq_set) + count * sizeof(int);
    g_autofree struct vfio_irq_set *set = g_malloc0(size);

    set->argsz = size;
    set->flags = F_EVENTFD | F_TRIGGER;
    set->index = index;
    set->start = start;
    set->count = count;
    memcpy(set->data, fds, count * sizeof(int));
    g_assert_cmpint(vfio_user_irqs_set(&t->udev, set), ==, 0);
}

static void set_fd(Test *t, uint32_t index, uint32_t v, EventNotifier *e)
{
    int fd = e ? event_notifier_get_fd(e) : -1;

    set_fds(t, index, v, &fd, 1);
}

static void set_none(Test *t, uint32_t action, uint32_t index, uint32_t start,
                     uint32_t count)
{
    struct vfio_irq_set set = {
        .argsz = sizeof(set), .flags = F_NONE | action,
        .index = index, .start = start, .count = count,
    };

    g_assert_cmpint(vfio_user_irqs_set(&t->udev, &set), ==, 0);
}

static void disable(Test *t, uint32_t index)
{
    set_none(t, F_TRIGGER, index, 0, 0);
}

static void eoi(Test *t)
{
    set_none(t, F_UNMASK, INTX, 0, 1);
}

/* The server --------------------------------------------------------------- */

typedef struct Set {
    PeerMessage msg;
    uint32_t flags;
    uint32_t index;
    uint32_t start;
    uint32_t count;
} Set;

static uint32_t word(const PeerMessage *msg, size_t off)
{
    uint32_t value;

    g_assert_cmpint(off + sizeof(value), <=, msg->len);
    memcpy(&value, msg->payload + off, sizeof(value));
    return value;
}

static void get_set(Test *t, Set *s)
{
    peer_get(t->rig->peer, &s->msg);
    g_assert_cmpint(s->msg.command, ==, CMD_SET_IRQS);
    g_assert_cmpint(s->msg.len, ==, 20);
    g_assert_cmpint(word(&s->msg, 0), ==, 20);
    s->flags = word(&s->msg, 4);
    s->index = word(&s->msg, 8);
    s->start = word(&s->msg, 12);
    s->count = word(&s->msg, 16);
}

static void expect(Test *t, Set *s, uint32_t flags, uint32_t index,
                   uint32_t start, uint32_t count, unsigned nr_fds)
{
    get_set(t, s);
    g_assert_cmphex(s->flags, ==, flags);
    g_assert_cmpint(s->index, ==, index);
    g_assert_cmpint(s->start, ==, start);
    g_assert_cmpint(s->count, ==, count);
    g_assert_cmpint(s->msg.nr_fds, ==, nr_fds);
}

static void answer(Test *t, Set *s)
{
    peer_reply(t->rig->peer, &s->msg, NULL, 0);
    peer_drop(&s->msg);
}

static void refuse(Test *t, Set *s, uint32_t error)
{
    peer_send(t->rig->peer, s->msg.id, s->msg.command, PEER_REPLY | PEER_ERROR,
              error, NULL, 0);
    peer_drop(&s->msg);
}

static void serve(Test *t, uint32_t flags, uint32_t index, uint32_t start,
                  uint32_t count, unsigned nr_fds)
{
    Set s;

    expect(t, &s, flags, index, start, count, nr_fds);
    answer(t, &s);
}

static void serve_assign(Test *t, uint32_t index, uint32_t start, uint32_t n)
{
    serve(t, F_EVENTFD | F_TRIGGER, index, start, n, n);
}

static void serve_unmask(Test *t, uint32_t index, uint32_t count)
{
    serve(t, F_NONE | F_UNMASK, index, 0, count, 0);
}

static void serve_disable(Test *t, uint32_t index)
{
    serve(t, F_NONE | F_TRIGGER, index, 0, 0, 0);
}

/* The interrupt status bit is read. */
static void serve_look(Test *t, bool up)
{
    PeerMessage msg;
    uint8_t reply[18];

    peer_get(t->rig->peer, &msg);
    g_assert_cmpint(msg.command, ==, CMD_REGION_READ);
    g_assert_cmpint(msg.len, ==, 16);
    g_assert_cmpint(word(&msg, 0), ==, 6);
    g_assert_cmpint(word(&msg, 8), ==, REGION_CONFIG);
    g_assert_cmpint(word(&msg, 12), ==, 2);
    memcpy(reply, msg.payload, 16);
    reply[16] = up ? 0x08 : 0;
    reply[17] = 0;
    peer_reply(t->rig->peer, &msg, reply, sizeof(reply));
    peer_drop(&msg);
}

/* All answers have been read, and nothing else is sent. */
static void expect_silence(Test *t)
{
    uint64_t gen = vfio_user_irqs_wanted(&t->udev);

    rig_check_alive(t->rig);
    g_assert_true(vfio_user_irqs_is_told(&t->udev, gen));
}

static bool is_told(Test *t)
{
    return vfio_user_irqs_is_told(&t->udev, vfio_user_irqs_wanted(&t->udev));
}

static void new_event(EventNotifier *e)
{
    g_assert_cmpint(event_notifier_init(e, false), ==, 0);
}

/* The last descriptor that came is @e's. */
static void check_event(const Set *s, EventNotifier *e)
{
    const uint64_t one = 1;

    g_assert_cmpint(s->msg.nr_fds, ==, 1);
    g_assert_false(event_notifier_test_and_clear(e));
    g_assert_cmpint(write(s->msg.fds[0], &one, sizeof(one)), ==, sizeof(one));
    g_assert_true(event_notifier_test_and_clear(e));
}

/* A stopped server --------------------------------------------------------- */

/* Answer all there is to come; returns how many, and the last that has a fd. */
static unsigned serve_all(Test *t, EventNotifier *e)
{
    int64_t end = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;
    unsigned nr = 0;
    Set s;

    while (!is_told(t)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        if (!peer_readable(t->rig->peer)) {
            continue;
        }
        get_set(t, &s);
        if (s.msg.nr_fds) {
            check_event(&s, e);
        }
        answer(t, &s);
        nr++;
    }
    return nr;
}

/* However often the guest changes its mind, it costs little and no wait. */
static void test_million(void)
{
    Test *t = test_new();
    EventNotifier e;
    unsigned nr;

    new_event(&e);
    for (unsigned i = 0; i < MILLION; i++) {
        set_fd(t, MSIX, 3, &e);
    }
    g_assert_false(is_told(t));
    nr = serve_all(t, &e);
    g_assert_cmpint(nr, >=, 2);
    g_assert_cmpint(nr, <=, 16);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* As long as the server keeps up, nothing that follows overtakes a change. */
static void test_keeps_up(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s[4];

    new_event(&e);
    set_fd(t, MSIX, 3, &e);
    set_fd(t, MSIX, 3, &e);
    set_fd(t, MSIX, 3, &e);
    expect(t, &s[0], F_EVENTFD | F_TRIGGER, MSIX, 3, 1, 1);
    expect(t, &s[1], F_NONE | F_UNMASK, MSIX, 0, 4, 0);
    expect(t, &s[2], F_EVENTFD | F_TRIGGER, MSIX, 3, 1, 1);
    expect(t, &s[3], F_EVENTFD | F_TRIGGER, MSIX, 3, 1, 1);
    /* Of the answers the last one counts. */
    answer(t, &s[0]);
    answer(t, &s[1]);
    serve_unmask(t, MSIX, 4);
    answer(t, &s[2]);
    rig_check_alive(t->rig);
    g_assert_false(is_told(t));
    answer(t, &s[3]);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* Other vectors are not held up by one that has no answer. */
static void test_pipelined(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s[3];

    new_event(&e);
    set_fd(t, MSIX, 0, &e);
    set_fd(t, MSIX, 1, &e);
    expect(t, &s[0], F_EVENTFD | F_TRIGGER, MSIX, 0, 1, 1);
    expect(t, &s[1], F_NONE | F_UNMASK, MSIX, 0, 1, 0);
    expect(t, &s[2], F_EVENTFD | F_TRIGGER, MSIX, 1, 1, 1);
    for (unsigned i = 0; i < 3; i++) {
        answer(t, &s[i]);
    }
    serve_unmask(t, MSIX, 2);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* 2048 vectors with a descriptor a message: a few at a time. */
static void test_bounded(void)
{
    const unsigned nr = 2048;
    Test *t = test_new_with(1, nr);
    g_autofree int *fds = g_new(int, nr);
    EventNotifier e;
    Set s[16];
    unsigned v = 0;

    new_event(&e);
    for (unsigned i = 0; i < nr; i++) {
        fds[i] = event_notifier_get_fd(&e);
    }
    set_fds(t, MSIX, 0, fds, nr);
    for (unsigned i = 0; i < 16; i++) {
        expect(t, &s[i], F_EVENTFD | F_TRIGGER, MSIX, v++, 1, 1);
    }
    g_assert_false(peer_readable(t->rig->peer));
    for (unsigned i = 0; i < 16; i++) {
        answer(t, &s[i]);
    }
    while (v < nr) {
        serve_assign(t, MSIX, v++, 1);
    }
    serve_unmask(t, MSIX, nr);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* Barriers ----------------------------------------------------------------- */

/* Disabled and enabled again is not as if nothing had been. */
static void test_disable_enable(void)
{
    Test *t = test_new();
    EventNotifier e;

    new_event(&e);
    set_fd(t, MSIX, 0, &e);
    serve_assign(t, MSIX, 0, 1);
    serve_unmask(t, MSIX, 1);
    expect_silence(t);
    disable(t, MSIX);
    set_fd(t, MSIX, 0, &e);
    serve_disable(t, MSIX);
    serve_assign(t, MSIX, 0, 1);
    serve_unmask(t, MSIX, 1);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* The same, ever so often, with a server that does not answer. */
static void test_disable_storm(void)
{
    Test *t = test_new();
    EventNotifier e;
    unsigned nr = 0;
    bool disabled = false;
    Set s[16];

    new_event(&e);
    for (unsigned i = 0; i < 10000; i++) {
        set_fd(t, MSIX, 0, &e);
        disable(t, MSIX);
        set_fd(t, INTX, 0, &e);
        disable(t, INTX);
    }
    set_fd(t, MSIX, 0, &e);
    while (peer_readable(t->rig->peer)) {
        g_assert_cmpint(nr, <, ARRAY_SIZE(s));
        get_set(t, &s[nr++]);
    }
    for (unsigned i = 0; i < nr; i++) {
        answer(t, &s[i]);
    }
    /* At last: both disabled, then the vector. */
    for (;;) {
        get_set(t, &s[0]);
        if (s[0].flags == (F_EVENTFD | F_TRIGGER) && s[0].index == MSIX &&
            disabled) {
            break;
        }
        disabled |= s[0].flags == (F_NONE | F_TRIGGER) && s[0].index == MSIX;
        g_assert_false(s[0].index == INTX && s[0].flags & F_EVENTFD);
        answer(t, &s[0]);
        nr++;
    }
    check_event(&s[0], &e);
    answer(t, &s[0]);
    serve_unmask(t, MSIX, 1);
    expect_silence(t);
    g_assert_cmpint(nr, <, 40);
    event_notifier_cleanup(&e);
    test_free(t);
}

/*
 * Disabling INTx once more empties libvfio-user's only table, so MSI-X has to be
 * told again after it.
 */
static void test_one_table(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    vfio_user_irqs_set_runs(&t->udev, false);
    disable(t, INTX);
    set_fd(t, MSIX, 2, &e);
    expect(t, &s, F_NONE | F_TRIGGER, INTX, 0, 0, 0);
    refuse(t, &s, EINVAL);
    serve_assign(t, MSIX, 2, 1);
    serve_unmask(t, MSIX, 3);
    expect_silence(t);
    vfio_user_irqs_set_runs(&t->udev, true);
    serve_disable(t, INTX);
    serve_assign(t, MSIX, 2, 1);
    serve_unmask(t, MSIX, 3);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* What ERR's and REQ's eventfds replace there is put back. */
static void test_restore_first(void)
{
    Test *t = test_new();
    EventNotifier e;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    set_fd(t, ERR, 0, &e);
    serve_assign(t, ERR, 0, 1);
    serve_assign(t, INTX, 0, 1);
    expect_silence(t);
    disable(t, INTX);
    serve_disable(t, INTX);
    set_fd(t, REQ, 0, &e);
    serve_assign(t, REQ, 0, 1);
    serve(t, F_EVENTFD | F_TRIGGER, MSIX, 0, 1, 0);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* Eventfds ----------------------------------------------------------------- */

/* Closed and opened again, it is another one, though its number is the same. */
static void test_generation(void)
{
    Test *t = test_new();
    EventNotifier e, other;
    int fd;
    Set s;

    new_event(&e);
    fd = event_notifier_get_fd(&e);
    set_fd(t, MSI, 0, &e);
    serve_assign(t, MSI, 0, 1);
    serve_unmask(t, MSI, 1);
    expect_silence(t);
    event_notifier_cleanup(&e);
    new_event(&other);
    if (event_notifier_get_fd(&other) != fd) {
        g_assert_cmpint(dup2(event_notifier_get_fd(&other), fd), ==, fd);
        event_notifier_cleanup(&other);
        event_notifier_init_fd(&other, fd);
    }
    set_fd(t, MSI, 0, &other);
    expect(t, &s, F_EVENTFD | F_TRIGGER, MSI, 0, 1, 1);
    check_event(&s, &other);
    answer(t, &s);
    serve_unmask(t, MSI, 1);
    expect_silence(t);
    event_notifier_cleanup(&other);
    test_free(t);
}

/* hw/vfio closes it with its last message still to be sent. */
static void test_closed(void)
{
    Test *t = test_new();
    EventNotifier e, keep;
    Set s;

    new_event(&e);
    set_fd(t, MSI, 0, &e);
    expect(t, &s, F_EVENTFD | F_TRIGGER, MSI, 0, 1, 1);
    set_fd(t, MSI, 0, &e);
    keep = e;
    keep.rfd = keep.wfd = dup(event_notifier_get_fd(&e));
    event_notifier_cleanup(&e);
    answer(t, &s);
    serve_unmask(t, MSI, 1);
    expect(t, &s, F_EVENTFD | F_TRIGGER, MSI, 0, 1, 1);
    check_event(&s, &keep);
    answer(t, &s);
    serve_unmask(t, MSI, 1);
    expect_silence(t);
    close(keep.rfd);
    test_free(t);
}

/* There is nothing to take away where there is nothing. */
static void test_take_away(void)
{
    Test *t = test_new();
    EventNotifier e;

    new_event(&e);
    set_fd(t, MSIX, 0, NULL);
    expect_silence(t);
    set_fd(t, MSIX, 0, &e);
    serve_assign(t, MSIX, 0, 1);
    serve_unmask(t, MSIX, 1);
    set_fd(t, MSIX, 0, NULL);
    serve(t, F_EVENTFD | F_TRIGGER, MSIX, 0, 1, 0);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* Refusals ----------------------------------------------------------------- */

/* In STOP libvfio-user refuses all: told again when it runs, and not before. */
static void test_refused_stopped(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    vfio_user_irqs_set_runs(&t->udev, false);
    disable(t, INTX);
    set_fd(t, MSIX, 1, &e);
    for (unsigned i = 0; i < 3; i++) {
        get_set(t, &s);
        refuse(t, &s, EINVAL);
    }
    expect_silence(t);
    /* As if the same guest did something else */
    set_none(t, F_MASK, MSI, 0, 1);
    serve(t, F_NONE | F_MASK, MSI, 0, 1, 0);
    expect_silence(t);
    vfio_user_irqs_set_runs(&t->udev, true);
    serve_disable(t, INTX);
    serve_assign(t, MSIX, 1, 1);
    serve_unmask(t, MSIX, 2);
    expect_silence(t);
    vfio_user_irqs_set_runs(&t->udev, true);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* While it runs: not the same again, but what is new. */
static void test_refused_running(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s;

    new_event(&e);
    set_fd(t, MSIX, 1, &e);
    expect(t, &s, F_EVENTFD | F_TRIGGER, MSIX, 1, 1, 1);
    refuse(t, &s, ENOSPC);
    serve_unmask(t, MSIX, 2);
    expect_silence(t);
    g_assert_cmpint(vfio_user_irqs_nr_assigned(&t->udev, MSIX), ==, 0);
    set_fd(t, MSIX, 1, &e);
    serve_assign(t, MSIX, 1, 1);
    serve_unmask(t, MSIX, 2);
    expect_silence(t);
    g_assert_cmpint(vfio_user_irqs_nr_assigned(&t->udev, MSIX), ==, 1);
    event_notifier_cleanup(&e);
    test_free(t);
}

typedef struct MaskCase {
    uint32_t error;
    bool stopped;
    bool never;
} MaskCase;

/* Which refusals of masks mean that the server has none. */
static void test_no_mask(void)
{
    static const MaskCase cases[] = {
        { EINVAL, false, true }, { ENOTSUP, false, true },
        { 0, false, true }, { ETOOMANYREFS, false, false },
        { ENOMEM, false, false }, { EBUSY, false, false },
        { EINVAL, true, false }, { 0, true, false },
    };
    EventNotifier e;
    Set s;

    new_event(&e);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Test *t = test_new();

        vfio_user_irqs_set_runs(&t->udev, !cases[i].stopped);
        set_fd(t, MSIX, 0, &e);
        serve_assign(t, MSIX, 0, 1);
        expect(t, &s, F_NONE | F_UNMASK, MSIX, 0, 1, 0);
        refuse(t, &s, cases[i].error);
        expect_silence(t);
        vfio_user_irqs_set_runs(&t->udev, true);
        if (!cases[i].never) {
            serve_unmask(t, MSIX, 1);
        }
        expect_silence(t);
        set_fd(t, MSIX, 1, &e);
        serve_assign(t, MSIX, 1, 1);
        if (!cases[i].never) {
            serve_unmask(t, MSIX, 2);
        }
        expect_silence(t);
        /* After a reset its mask bits are not known, nor whether it has any. */
        vfio_user_irqs_was_reset(&t->udev);
        serve_unmask(t, MSIX, 2);
        expect_silence(t);
        test_free(t);
    }
    event_notifier_cleanup(&e);
}

/* Unmasked as a range from 0, which must not unmask what is to be masked. */
static void test_masks(void)
{
    Test *t = test_new();
    EventNotifier e;

    new_event(&e);
    set_fd(t, MSIX, 1, &e);
    serve_assign(t, MSIX, 1, 1);
    serve_unmask(t, MSIX, 2);
    set_none(t, F_MASK, MSIX, 1, 1);
    serve(t, F_NONE | F_MASK, MSIX, 1, 1, 0);
    expect_silence(t);
    set_fd(t, MSIX, 4, &e);
    serve_assign(t, MSIX, 4, 1);
    serve_unmask(t, MSIX, 5);
    serve(t, F_NONE | F_MASK, MSIX, 1, 1, 0);
    set_none(t, F_UNMASK, MSIX, 1, 1);
    serve_unmask(t, MSIX, 2);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* INTx --------------------------------------------------------------------- */

/* Each end of interrupt is told, though nothing is masked. */
static void test_eoi(void)
{
    Test *t = test_new();
    EventNotifier e;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    for (unsigned i = 0; i < 3; i++) {
        eoi(t);
        serve_unmask(t, INTX, 1);
        serve_look(t, i == 1);
        expect_silence(t);
        g_assert_cmpint(event_notifier_test_and_clear(&e), ==, i == 1);
    }
    /* With a server that is stopped */
    for (unsigned i = 0; i < 10000; i++) {
        eoi(t);
    }
    serve_unmask(t, INTX, 1);
    serve_look(t, false);
    serve_unmask(t, INTX, 1);
    serve_look(t, true);
    expect_silence(t);
    g_assert_true(event_notifier_test_and_clear(&e));
    event_notifier_cleanup(&e);
    test_free(t);
}

/* The order of mask and unmask is kept. */
static void test_intx_mask(void)
{
    Test *t = test_new();
    EventNotifier e;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    set_none(t, F_MASK, INTX, 0, 1);
    eoi(t);
    serve(t, F_NONE | F_MASK, INTX, 0, 1, 0);
    serve_unmask(t, INTX, 1);
    serve_look(t, false);
    expect_silence(t);
    eoi(t);
    set_none(t, F_MASK, INTX, 0, 1);
    serve_unmask(t, INTX, 1);
    serve_look(t, false);
    serve(t, F_NONE | F_MASK, INTX, 0, 1, 0);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* A server that knows no masks is asked for the level all the same. */
static void test_eoi_no_mask(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    eoi(t);
    expect(t, &s, F_NONE | F_UNMASK, INTX, 0, 1, 0);
    refuse(t, &s, EINVAL);
    serve_look(t, false);
    expect_silence(t);
    eoi(t);
    serve_look(t, true);
    expect_silence(t);
    g_assert_true(event_notifier_test_and_clear(&e));
    event_notifier_cleanup(&e);
    test_free(t);
}

static void write_command(Test *t, uint16_t command)
{
    pci_set_word(test_pci(t)->config + PCI_COMMAND, command);
    vfio_user_irqs_command_written(&t->udev);
}

/*
 * The status bit is set whether or not the guest has disabled INTx. While it
 * has, nobody looks, and nothing is fired; then once.
 */
static void test_intx_disabled(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s;

    new_event(&e);
    set_fd(t, INTX, 0, &e);
    serve_assign(t, INTX, 0, 1);
    /* It does so between question and answer. */
    eoi(t);
    expect(t, &s, F_NONE | F_UNMASK, INTX, 0, 1, 0);
    write_command(t, PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MASTER);
    answer(t, &s);
    serve_look(t, true);
    expect_silence(t);
    g_assert_false(event_notifier_test_and_clear(&e));
    eoi(t);
    serve_unmask(t, INTX, 1);
    expect_silence(t);
    write_command(t, PCI_COMMAND_INTX_DISABLE);
    expect_silence(t);
    write_command(t, PCI_COMMAND_MASTER);
    serve_look(t, true);
    expect_silence(t);
    g_assert_true(event_notifier_test_and_clear(&e));
    write_command(t, 0);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* A server that comes and goes --------------------------------------------- */

/* One that is back was told nothing: ERR and REQ first. */
static void test_returned(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set s;

    new_event(&e);
    set_fd(t, ERR, 0, &e);
    serve_assign(t, ERR, 0, 1);
    serve(t, F_EVENTFD | F_TRIGGER, MSIX, 0, 1, 0);
    set_fd(t, MSIX, 0, &e);
    serve_assign(t, MSIX, 0, 1);
    expect(t, &s, F_NONE | F_UNMASK, MSIX, 0, 1, 0);
    refuse(t, &s, EINVAL);
    expect_silence(t);
    t->udev.link = VFIO_USER_LINK_DOWN;
    set_fd(t, MSIX, 5, &e);
    vfio_user_irqs_forget(&t->udev);
    g_assert_false(is_told(t));
    t->udev.link = VFIO_USER_LINK_REPLAY;
    vfio_user_irqs_sync(&t->udev);
    serve_assign(t, ERR, 0, 1);
    serve_assign(t, MSIX, 0, 1);
    serve_assign(t, MSIX, 5, 1);
    /* This one may know masks. */
    serve_unmask(t, MSIX, 6);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

/* What was on its way to the old one says nothing of the new one. */
static void test_returned_meanwhile(void)
{
    Test *t = test_new();
    EventNotifier e;
    Set old;

    new_event(&e);
    set_fd(t, MSI, 2, &e);
    expect(t, &old, F_EVENTFD | F_TRIGGER, MSI, 2, 1, 1);
    t->udev.link = VFIO_USER_LINK_DOWN;
    vfio_user_irqs_forget(&t->udev);
    answer(t, &old);
    serve_unmask(t, MSI, 3);
    rig_check_alive(t->rig);
    g_assert_false(is_told(t));
    t->udev.link = VFIO_USER_LINK_UP;
    vfio_user_irqs_sync(&t->udev);
    serve_assign(t, MSI, 2, 1);
    serve_unmask(t, MSI, 3);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

static void test_lost(void)
{
    Test *t = test_new();
    EventNotifier e;
    unsigned hooks;

    new_event(&e);
    set_fd(t, MSI, 2, &e);
    g_assert_false(is_told(t));
    hooks = rig_count(t->rig, &t->nr_hooks);
    rig_close_peer(t->rig);
    rig_wait_count(t->rig, &t->nr_hooks, hooks + 1);
    g_assert_true(is_told(t));
    set_fd(t, MSI, 1, &e);
    g_assert_true(is_told(t));
    rig_wait_failed(t->rig, "");
    event_notifier_cleanup(&e);
    test_free(t);
}

/* It forgot to answer: what is wanted later is told, a few times. */
static void test_unanswered(void)
{
    Test *t = test_new();
    EventNotifier e;
    int64_t end = g_get_monotonic_time() + PEER_DEADLINE_MS * 1000;
    unsigned nr = 0;
    Set s;

    new_event(&e);
    t->udev.timeout_ms = 1;
    set_fd(t, MSI, 2, &e);
    while (nr < 4) {
        set_fd(t, MSI, 2, &e);
        if (peer_readable(t->rig->peer)) {
            get_set(t, &s);
            peer_drop(&s.msg);
            nr++;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    test_free(t);
    event_notifier_cleanup(&e);
}

/* How far it is ------------------------------------------------------------ */

/* Whoever waits is not held up by another one who changes things all the time. */
static void test_told(void)
{
    Test *t = test_new();
    EventNotifier e;
    uint64_t gen;
    unsigned nr = 0;

    new_event(&e);
    vfio_user_irqs_set_runs(&t->udev, true);
    set_fd(t, MSIX, 9, &e);
    set_fd(t, MSIX, 2, &e);
    gen = vfio_user_irqs_wanted(&t->udev);
    g_assert_false(vfio_user_irqs_is_told(&t->udev, gen));
    while (!vfio_user_irqs_is_told(&t->udev, gen)) {
        unsigned hooks = rig_count(t->rig, &t->nr_hooks);
        Set s;

        set_fd(t, MSIX, 9, &e);
        get_set(t, &s);
        set_fd(t, MSIX, 9, &e);
        answer(t, &s);
        rig_wait_count(t->rig, &t->nr_hooks, hooks + 1);
        g_assert_cmpint(++nr, <, 40);
    }
    g_assert_false(is_told(t));
    event_notifier_cleanup(&e);
    test_free(t);
}

/* A refusal is an answer, too. */
static void test_told_refused(void)
{
    Test *t = test_new();
    EventNotifier e;
    unsigned hooks;
    Set s;

    new_event(&e);
    set_fd(t, ERR, 0, &e);
    get_set(t, &s);
    refuse(t, &s, EINVAL);
    get_set(t, &s);
    hooks = rig_count(t->rig, &t->nr_hooks);
    g_assert_false(is_told(t));
    refuse(t, &s, EINVAL);
    rig_wait_count(t->rig, &t->nr_hooks, hooks + 1);
    expect_silence(t);
    event_notifier_cleanup(&e);
    test_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    rig_warm_up();

#define T(name, func) peer_add_test("/vfio-user/irqs/" name, func)
    T("stopped/million", test_million);
    T("stopped/keeps-up", test_keeps_up);
    T("stopped/pipelined", test_pipelined);
    T("stopped/bounded", test_bounded);
    T("barrier/disable-enable", test_disable_enable);
    T("barrier/storm", test_disable_storm);
    T("barrier/one-table", test_one_table);
    T("barrier/restore-first", test_restore_first);
    T("eventfd/generation", test_generation);
    T("eventfd/closed", test_closed);
    T("eventfd/take-away", test_take_away);
    T("refused/stopped", test_refused_stopped);
    T("refused/running", test_refused_running);
    T("refused/no-mask", test_no_mask);
    T("masks", test_masks);
    T("intx/eoi", test_eoi);
    T("intx/mask", test_intx_mask);
    T("intx/no-mask", test_eoi_no_mask);
    T("intx/disabled", test_intx_disabled);
    T("server/returned", test_returned);
    T("server/returned-meanwhile", test_returned_meanwhile);
    T("server/lost", test_lost);
    T("server/unanswered", test_unanswered);
    T("told/others", test_told);
    T("told/refused", test_told_refused);

    return g_test_run();
}
