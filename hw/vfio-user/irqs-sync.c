/*
 * vfio-user: telling the server which interrupts are wanted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * irqs.c writes down what hw/vfio wants. This file knows what the server was
 * told, and sends the difference: a bounded number of messages at a time, and is
 * asked again by each answer. So a guest that changes a vector a million times
 * while the server is stopped costs a few messages, and nobody waits. As long as
 * the server keeps up, each change leaves at once, so that what the guest says to
 * the device next does not overtake it.
 *
 * Three things are not states that could be compared. *Disabling* an index is a
 * barrier: what the server was told before is void, and what is wanted after it
 * is not said before it is sent. *Unmasking INTx* is an end of interrupt, and
 * is sent even though INTx is not masked. And *an eventfd* is a new one whenever
 * hw/vfio hands it over, whatever its number is.
 *
 * A refusal counts as an answer: the same is not said again until the device's
 * state changes (libvfio-user in STOP refuses everything), the device is reset,
 * or the server comes back. A server that comes back is one that was told
 * nothing. A refusal of mask or unmask by a device that runs means that the
 * server keeps no masks, and needs none.
 *
 * A server that does not answer. Whoever wants something after the deadline of a
 * message takes it for lost, and it is said again: a few times, since each keeps
 * a slot of the connection.
 *
 * Order in one go: what disables; ERR and REQ; the other eventfds; masks. Two
 * quirks depend on it, see vfio_user_irqs_void_others_locked() and
 * vfio_user_irqs_restore_first_locked().
 *
 * Threads. @lock is held while messages are made, never while they are sent. One
 * thread sends at a time, so that they leave in the order in which they were
 * made; others leave it a note to look once more.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "irqs-int.h"
#include "ratelimit.h"
#include "trace.h"

/* On their way at once */
#define VFIO_USER_IRQS_MAX_ON_WAY   16
/* From so many on, one about each vector */
#define VFIO_USER_IRQS_KEEPS_UP     8
#define VFIO_USER_IRQS_MAX_LOST     4

/**
 * VFIOUserIrqsMsg: a DEVICE_SET_IRQS on its way
 * @since: when it was made, as g_get_monotonic_time()
 * @covers: all that was wanted by this generation has been sent with it or
 *     before; 0: not known
 * @runs: the device was known to run when it was made
 * @fds: @nr_fds eventfds, which are closed with it
 */
struct VFIOUserIrqsMsg {
    VFIOUserRequest req;
    VFIOUserDevice *udev;
    uint64_t seq;
    uint64_t covers;
    int64_t since;
    bool runs;
    bool answered;
    bool lost;
    struct vfio_user_irq_set set;
    struct iovec out;
    unsigned nr_fds;
    int fds[VFIO_USER_MAX_MSG_FDS];
    QTAILQ_ENTRY(VFIOUserIrqsMsg) next;
};

/* What one go makes; @full: there is no room for more */
typedef struct VFIOUserIrqsGo {
    VFIOUserDevice *udev;
    VFIOUserIrqState *st;
    VFIOUserIrqsMsg *msgs[VFIO_USER_IRQS_MAX_ON_WAY];
    unsigned nr;
    bool full;
    bool look;
} VFIOUserIrqsGo;

static bool vfio_user_irqs_is_mask(const struct vfio_user_irq_set *set)
{
    return set->flags & (VFIO_USER_IRQ_MASK | VFIO_USER_IRQ_UNMASK);
}

static bool vfio_user_irqs_is_disable(const struct vfio_user_irq_set *set)
{
    return !set->count;
}

static bool vfio_user_irqs_can_tell(VFIOUserDevice *udev)
{
    VFIOUserLink link = vfio_user_device_link(udev);

    return (link == VFIO_USER_LINK_UP || link == VFIO_USER_LINK_REPLAY) &&
           !vfio_user_conn_broken(udev->conn);
}

/* Messages ----------------------------------------------------------------- */

static void vfio_user_irqs_done(VFIOUserRequest *req);

static void vfio_user_irqs_msg_free(VFIOUserIrqsMsg *m)
{
    for (unsigned i = 0; i < m->nr_fds; i++) {
        close(m->fds[i]);
    }
    g_free(m);
}

/* NULL: there are too many already. */
static VFIOUserIrqsMsg *vfio_user_irqs_msg_locked(VFIOUserIrqsGo *go,
                                                  uint32_t flags,
                                                  uint32_t index,
                                                  uint32_t start,
                                                  uint32_t count)
{
    VFIOUserIrqState *st = go->st;
    VFIOUserIrqsMsg *m;

    if (st->nr_on_way == VFIO_USER_IRQS_MAX_ON_WAY) {
        go->full = true;
        return NULL;
    }
    m = g_new0(VFIOUserIrqsMsg, 1);
    m->udev = go->udev;
    m->seq = ++st->last_seq;
    m->since = g_get_monotonic_time();
    m->runs = st->runs;
    m->set = (struct vfio_user_irq_set) {
        .argsz = sizeof(m->set),
        .flags = flags,
        .index = index,
        .start = start,
        .count = count,
    };
    m->out = (struct iovec) { &m->set, sizeof(m->set) };
    m->req.command = VFIO_USER_DEVICE_SET_IRQS;
    m->req.out = &m->out;
    m->req.nr_out = 1;
    m->req.done = vfio_user_irqs_done;
    QTAILQ_INSERT_TAIL(&st->on_way, m, next);
    st->nr_on_way++;
    go->msgs[go->nr++] = m;
    return m;
}

/* Whether what has a message on its way already may have another one */
static bool vfio_user_irqs_keeps_up(const VFIOUserIrqState *st)
{
    return st->nr_on_way < VFIO_USER_IRQS_KEEPS_UP;
}

/* Disabling ---------------------------------------------------------------- */

/*
 * libvfio-user has one table of eventfds, by vector, for INTx, MSI and MSI-X.
 * Disabling one of them empties it.
 */
static void vfio_user_irqs_void_others_locked(VFIOUserIrqState *st,
                                              uint32_t index)
{
    for (uint32_t i = 0; index < VFIO_USER_IRQ_ERR && i < VFIO_USER_IRQ_ERR;
         i++) {
        for (uint32_t j = 0; i != index && j < st->index[i].count; j++) {
            VFIOUserVector *v = &st->index[i].v[j];

            if (v->want) {
                v->told = VFIO_USER_IRQ_UNKNOWN;
                v->seq = 0;
                st->index[i].dirty = true;
            }
        }
    }
}

/* Returns false when nothing else may be said yet. */
static bool vfio_user_irqs_go_disable_locked(VFIOUserIrqsGo *go)
{
    bool all = true;

    for (uint32_t i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        VFIOUserIrqIndex *idx = &go->st->index[i];

        if (!idx->disable) {
            continue;
        }
        if ((idx->disable_busy && !vfio_user_irqs_keeps_up(go->st)) ||
            !vfio_user_irqs_msg_locked(go, VFIO_USER_IRQ_DATA_NONE |
                                       VFIO_USER_IRQ_TRIGGER, i, 0, 0)) {
            all = false;
            continue;
        }
        idx->disable = false;
        idx->disable_busy = true;
        idx->dirty = true;
        for (uint32_t j = 0; j < idx->count; j++) {
            idx->v[j].told = VFIO_USER_IRQ_NOTHING;
            idx->v[j].seq = 0;
        }
        vfio_user_irqs_void_others_locked(go->st, i);
    }
    return all;
}

/* Eventfds ----------------------------------------------------------------- */

static bool vfio_user_irqs_differs(const VFIOUserVector *v)
{
    return v->want != (v->seq ? v->sent : v->told) && v->want != v->refused;
}

/*
 * A duplicate for the message. What was sent before has none left, and gets one
 * from hw/vfio's number: that is wanted still, so hw/vfio has not closed it. It
 * says what it wants instead, or disables the index, before it does.
 */
static bool vfio_user_irqs_dup_locked(VFIOUserVector *v)
{
    if (v->want && v->dup < 0) {
        v->dup = fcntl(v->fd, F_DUPFD_CLOEXEC, 0);
        if (v->dup < 0) {
            error_report_once("vfio-user-pci: an eventfd cannot be handed to "
                              "the server: %s", strerror(errno));
            v->refused = v->want;
            return false;
        }
    }
    return true;
}

/*
 * How many vectors from @start on can share a message: all with, or all without
 * an eventfd. 0: not even that one can be told.
 */
static uint32_t vfio_user_irqs_run_locked(const VFIOUserIrqState *st,
                                          VFIOUserIrqIndex *idx,
                                          uint32_t start, uint32_t max)
{
    bool has_fd = idx->v[start].want;
    uint32_t n = 0;

    while (start + n < idx->count && n < max &&
           (!idx->v[start + n].seq || vfio_user_irqs_keeps_up(st)) &&
           !!idx->v[start + n].want == has_fd &&
           vfio_user_irqs_differs(&idx->v[start + n]) &&
           vfio_user_irqs_dup_locked(&idx->v[start + n])) {
        n++;
    }
    return n;
}

/* Returns false when there is no room for the message. */
static bool vfio_user_irqs_go_run_locked(VFIOUserIrqsGo *go, uint32_t index,
                                         uint32_t start, uint32_t n)
{
    VFIOUserIrqIndex *idx = &go->st->index[index];
    VFIOUserIrqsMsg *m =
        vfio_user_irqs_msg_locked(go, VFIO_USER_IRQ_DATA_EVENTFD |
                                  VFIO_USER_IRQ_TRIGGER, index, start, n);

    for (uint32_t i = 0; m && i < n; i++) {
        VFIOUserVector *v = &idx->v[start + i];

        v->seq = m->seq;
        v->sent = v->want;
        if (v->want) {
            v->told_mask = VFIO_USER_IRQ_MASK_ANY;
            m->fds[m->nr_fds++] = v->dup;
            v->dup = -1;
        }
    }
    if (m) {
        m->req.fds = m->fds;
        m->req.nr_fds = m->nr_fds;
    }
    return m;
}

/*
 * libvfio-user puts what is assigned to ERR or REQ into that table, too, in
 * place of INTx's or vector 0's, and its interrupt would then unplug the device.
 * Have put back what belongs there. Servers that keep them apart are told what
 * they know.
 */
static void vfio_user_irqs_restore_first_locked(VFIOUserIrqState *st)
{
    uint32_t index = VFIO_USER_IRQ_INTX;

    if (!st->index[VFIO_USER_IRQ_INTX].count ||
        !st->index[VFIO_USER_IRQ_INTX].v[0].want) {
        index = st->index[VFIO_USER_IRQ_MSIX].count ? VFIO_USER_IRQ_MSIX :
                                                      VFIO_USER_IRQ_MSI;
    }
    if (st->index[index].count) {
        st->index[index].v[0].told = VFIO_USER_IRQ_UNKNOWN;
        st->index[index].v[0].seq = 0;
        st->index[index].dirty = true;
    }
}

/* Returns false when something is left. */
static bool vfio_user_irqs_go_index_locked(VFIOUserIrqsGo *go, uint32_t index)
{
    VFIOUserIrqIndex *idx = &go->st->index[index];
    uint32_t max = MIN(go->udev->caps.max_msg_fds, VFIO_USER_MAX_MSG_FDS);
    bool all = true;

    for (uint32_t i = 0, n; i < idx->count; i += n) {
        VFIOUserVector *v = &idx->v[i];

        n = 1;
        if (!vfio_user_irqs_differs(v)) {
            continue;
        }
        if (v->seq && !vfio_user_irqs_keeps_up(go->st)) {
            /* Its answer comes first. */
            all = false;
            continue;
        }
        n = vfio_user_irqs_run_locked(go->st, idx, i,
                                      v->want ? max : idx->count);
        if (!n) {
            n = 1;
            continue;
        }
        if (!vfio_user_irqs_go_run_locked(go, index, i, n)) {
            return false;
        }
        if (v->want && index >= VFIO_USER_IRQ_ERR) {
            vfio_user_irqs_restore_first_locked(go->st);
        }
    }
    return all;
}

/* Masks -------------------------------------------------------------------- */

static bool vfio_user_irqs_mask_differs(const VFIOUserVector *v,
                                        VFIOUserIrqMask mask)
{
    return v->want_mask == mask && v->told_mask != mask;
}

/* Returns false when there is no room for the message. */
static bool vfio_user_irqs_go_mask_locked(VFIOUserIrqsGo *go, uint32_t action,
                                          uint32_t index, uint32_t start,
                                          uint32_t n)
{
    VFIOUserIrqIndex *idx = &go->st->index[index];

    if (!vfio_user_irqs_msg_locked(go, VFIO_USER_IRQ_DATA_NONE | action, index,
                                   start, n)) {
        return false;
    }
    idx->mask_busy = true;
    for (uint32_t i = start; i < start + n; i++) {
        idx->v[i].told_mask = action == VFIO_USER_IRQ_MASK ?
                              VFIO_USER_IRQ_MASK_ON : VFIO_USER_IRQ_MASK_OFF;
    }
    return true;
}

/*
 * QEMU's own server takes the count for the end of the range, so unmask from 0.
 * What is to stay masked is masked again afterwards. A vector whose eventfd has
 * to wait comes later, too.
 */
static uint32_t vfio_user_irqs_unmask_end_locked(const VFIOUserIrqIndex *idx)
{
    uint32_t end = idx->count;

    while (end && (!vfio_user_irqs_mask_differs(&idx->v[end - 1],
                                                VFIO_USER_IRQ_MASK_OFF) ||
                   vfio_user_irqs_differs(&idx->v[end - 1]))) {
        end--;
    }
    return end;
}

static uint32_t vfio_user_irqs_next_masked_locked(const VFIOUserIrqIndex *idx,
                                                  uint32_t *len)
{
    uint32_t start = 0;

    *len = 0;
    while (start < idx->count &&
           !vfio_user_irqs_mask_differs(&idx->v[start],
                                        VFIO_USER_IRQ_MASK_ON)) {
        start++;
    }
    while (start + *len < idx->count &&
           vfio_user_irqs_mask_differs(&idx->v[start + *len],
                                       VFIO_USER_IRQ_MASK_ON)) {
        ++*len;
    }
    return start;
}

/* Returns false when something is left. */
static bool vfio_user_irqs_go_masks_locked(VFIOUserIrqsGo *go, uint32_t index)
{
    VFIOUserIrqIndex *idx = &go->st->index[index];
    bool is_intx = index == VFIO_USER_IRQ_INTX;
    uint32_t start, len, end;

    if (idx->no_mask || idx->mask_refused) {
        return true;
    }
    end = is_intx ? go->st->eoi : vfio_user_irqs_unmask_end_locked(idx);
    start = vfio_user_irqs_next_masked_locked(idx, &len);
    if (!end && !len) {
        return true;
    }
    if (idx->mask_busy ||
        !(end ? vfio_user_irqs_go_mask_locked(go, VFIO_USER_IRQ_UNMASK, index,
                                              0, end) :
                vfio_user_irqs_go_mask_locked(go, VFIO_USER_IRQ_MASK, index,
                                              start, len))) {
        return false;
    }
    if (is_intx && end) {
        go->st->eoi = false;
    }
    vfio_user_irqs_next_masked_locked(idx, &len);
    return !len;
}

/* Is the line still up? After the unmask, or else there is no point. */
static bool vfio_user_irqs_go_look_locked(VFIOUserIrqsGo *go)
{
    VFIOUserIrqState *st = go->st;
    const VFIOUserIrqIndex *intx = &st->index[VFIO_USER_IRQ_INTX];

    if (intx->no_mask) {
        st->eoi = false;
    }
    if (!st->look || (st->eoi && !intx->mask_refused)) {
        return !st->look;
    }
    if (st->intx_fd < 0 || st->intx_off) {
        st->look = false;
        return true;
    }
    if (st->look_busy) {
        return false;
    }
    st->look = false;
    st->look_busy = go->look = true;
    return true;
}

/* One go ------------------------------------------------------------------- */

/* Returns false when something is left. */
static bool vfio_user_irqs_go_locked(VFIOUserIrqsGo *go)
{
    static const uint8_t order[] = {
        VFIO_USER_IRQ_ERR, VFIO_USER_IRQ_REQ, VFIO_USER_IRQ_INTX,
        VFIO_USER_IRQ_MSI, VFIO_USER_IRQ_MSIX,
    };
    bool all = true;

    QEMU_BUILD_BUG_ON(ARRAY_SIZE(order) != VFIO_USER_IRQ_MAX);
    if (!vfio_user_irqs_go_disable_locked(go)) {
        return false;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        VFIOUserIrqIndex *idx = &go->st->index[order[i]];
        bool clean = true;

        if (idx->dirty) {
            clean = vfio_user_irqs_go_index_locked(go, order[i]);
        }
        /* Not before all eventfds are out. */
        if (go->full) {
            return false;
        }
        if (idx->dirty) {
            clean &= vfio_user_irqs_go_masks_locked(go, order[i]);
        }
        idx->dirty = !clean;
        all &= clean;
    }
    return vfio_user_irqs_go_look_locked(go) && all && !go->full;
}

/* The server has answered all that was sent, from the oldest on: how far? */
static void vfio_user_irqs_count_told_locked(VFIOUserIrqState *st)
{
    VFIOUserIrqsMsg *m;

    while ((m = QTAILQ_FIRST(&st->on_way)) && m->answered) {
        st->told = MAX(st->told, m->covers);
        QTAILQ_REMOVE(&st->on_way, m, next);
        st->nr_on_way--;
        vfio_user_irqs_msg_free(m);
    }
}

/* Nothing of what is wanted by now is left to be sent. */
static void vfio_user_irqs_cover_locked(VFIOUserIrqState *st)
{
    VFIOUserIrqsMsg *m = QTAILQ_LAST(&st->on_way);

    if (m) {
        m->covers = st->wanted;
    } else {
        st->told = st->wanted;
    }
}

/*
 * It is not known whether @m, which is no longer on its way, has had an effect.
 * @again: what has an effect of its own has to be said once more
 */
static void vfio_user_irqs_unknown_locked(VFIOUserIrqState *st,
                                          const VFIOUserIrqsMsg *m, bool again)
{
    const struct vfio_user_irq_set *set = &m->set;
    VFIOUserIrqIndex *idx = &st->index[set->index];

    idx->dirty = true;
    if (vfio_user_irqs_is_disable(set)) {
        idx->disable_busy = false;
        idx->disable |= again;
        return;
    }
    if (vfio_user_irqs_is_mask(set)) {
        idx->mask_busy = false;
    }
    for (uint32_t i = set->start; i < set->start + set->count; i++) {
        VFIOUserVector *v = &idx->v[i];

        if (vfio_user_irqs_is_mask(set)) {
            v->told_mask = VFIO_USER_IRQ_MASK_ANY;
        } else if (v->seq == m->seq) {
            v->seq = 0;
            v->told = VFIO_USER_IRQ_UNKNOWN;
        }
    }
    if (set->index == VFIO_USER_IRQ_INTX && set->flags & VFIO_USER_IRQ_UNMASK) {
        st->eoi = true;
    }
}

/* Take messages that were not answered in time for lost. */
static void vfio_user_irqs_lose_locked(VFIOUserDevice *udev)
{
    VFIOUserIrqState *st = udev->irq_state;
    int64_t before = g_get_monotonic_time() - udev->timeout_ms * (int64_t)1000;
    VFIOUserIrqsMsg *m;

    while ((m = QTAILQ_FIRST(&st->on_way)) && m->since < before &&
           st->nr_lost < VFIO_USER_IRQS_MAX_LOST) {
        trace_vfio_user_irqs_lost(udev->name, m->set.index, m->set.start,
                                  m->set.count, m->set.flags);
        vfio_user_irqs_unknown_locked(st, m, true);
        QTAILQ_REMOVE(&st->on_way, m, next);
        st->nr_on_way--;
        st->nr_lost++;
        m->lost = true;
        vfio_user_irqs_count_told_locked(st);
    }
}

/* @wait: see vfio_user_irqs_reconcile(). */
static int vfio_user_irqs_send(VFIOUserIrqsGo *go, bool wait);

int vfio_user_irqs_reconcile(VFIOUserDevice *udev, bool wait)
{
    VFIOUserIrqState *st = udev->irq_state;
    VFIOUserIrqsGo go = { .udev = udev, .st = st };
    int ret = 0;

    qemu_mutex_lock(&st->lock);
    st->again = true;
    while (!st->sending && st->again && vfio_user_irqs_can_tell(udev)) {
        st->again = false;
        st->sending = true;
        go.nr = 0;
        go.full = go.look = false;
        vfio_user_irqs_lose_locked(udev);
        if (vfio_user_irqs_go_locked(&go)) {
            vfio_user_irqs_cover_locked(st);
        }
        qemu_mutex_unlock(&st->lock);
        ret = vfio_user_irqs_send(&go, wait) ?: ret;
        qemu_mutex_lock(&st->lock);
        st->sending = false;
    }
    qemu_mutex_unlock(&st->lock);
    return ret;
}

/* Answers ------------------------------------------------------------------ */

/* The server cannot do it at all, and not only now. */
static bool vfio_user_irqs_is_never(int ret)
{
    return ret == -EINVAL || ret == -ENOTSUP || ret == -EOPNOTSUPP ||
           ret == -EIO;
}

/* Returns whether that is worth a line in the log. */
static bool vfio_user_irqs_refused_locked(VFIOUserIrqState *st,
                                          const VFIOUserIrqsMsg *m, int ret)
{
    const struct vfio_user_irq_set *set = &m->set;
    VFIOUserIrqIndex *idx = &st->index[set->index];
    bool runs = m->runs && st->runs;

    if (vfio_user_irqs_is_disable(set)) {
        idx->disable_refused = true;
    } else if (!vfio_user_irqs_is_mask(set)) {
        for (uint32_t i = 0; i < set->count; i++) {
            VFIOUserVector *v = &idx->v[set->start + i];

            if (v->seq == m->seq) {
                v->refused = v->sent;
            }
        }
    } else if (runs && vfio_user_irqs_is_never(ret)) {
        idx->no_mask = true;
        return false;
    } else {
        idx->mask_refused = true;
    }
    return runs;
}

static void vfio_user_irqs_accepted_locked(VFIOUserIrqState *st,
                                           const VFIOUserIrqsMsg *m)
{
    const struct vfio_user_irq_set *set = &m->set;
    VFIOUserIrqIndex *idx = &st->index[set->index];

    if (vfio_user_irqs_is_disable(set)) {
        idx->disable_busy = false;
    } else if (vfio_user_irqs_is_mask(set)) {
        idx->mask_busy = false;
    }
    for (uint32_t i = set->start; i < set->start + set->count; i++) {
        if (idx->v[i].seq == m->seq) {
            idx->v[i].told = idx->v[i].sent;
            idx->v[i].refused = VFIO_USER_IRQ_NEVER;
            idx->v[i].seq = 0;
        }
    }
    idx->dirty = true;
}

/* Returns whether that is to be reported. */
static bool vfio_user_irqs_answered_locked(VFIOUserIrqState *st,
                                           VFIOUserIrqsMsg *m, int ret)
{
    bool is_lost = ret == -EPIPE || ret == -ETIMEDOUT;
    bool report = false;

    st->answered++;
    if (!ret) {
        vfio_user_irqs_accepted_locked(st, m);
        return false;
    }
    if (!is_lost) {
        report = vfio_user_irqs_refused_locked(st, m, ret);
    }
    vfio_user_irqs_unknown_locked(st, m, is_lost);
    return report;
}

static void vfio_user_irqs_report(VFIOUserDevice *udev,
                                  const struct vfio_user_irq_set *set, int ret)
{
    vfio_user_warn_limited(&udev->irqs_said, "vfio-user-pci %s: the server "
                           "refused interrupts %u to %u of index %u (flags "
                           "0x%x): %s", udev->name, set->start,
                           set->start + MAX(set->count, 1) - 1, set->index,
                           set->flags, strerror(-ret));
}

/* Any thread. Frees @m, now or when those before it were answered. */
static void vfio_user_irqs_take_answer(VFIOUserIrqsMsg *m, int ret)
{
    VFIOUserDevice *udev = m->udev;
    VFIOUserIrqState *st = udev->irq_state;
    struct vfio_user_irq_set set = m->set;
    bool report = false;

    trace_vfio_user_irqs_set(udev->name, set.index, set.start, set.count,
                             set.flags, ret);
    WITH_QEMU_LOCK_GUARD(&st->lock) {
        if (m->lost) {
            st->nr_lost--;
            vfio_user_irqs_msg_free(m);
        } else {
            report = vfio_user_irqs_answered_locked(st, m, ret);
            m->answered = true;
            vfio_user_irqs_count_told_locked(st);
        }
    }
    if (report) {
        vfio_user_irqs_report(udev, &set, ret);
    }
}

static void vfio_user_irqs_done(VFIOUserRequest *req)
{
    VFIOUserIrqsMsg *m = container_of(req, VFIOUserIrqsMsg, req);
    VFIOUserDevice *udev = m->udev;

    vfio_user_irqs_take_answer(m, req->ret);
    vfio_user_irqs_reconcile(udev, false);
    if (udev->irqs_told) {
        udev->irqs_told(udev);
    }
}

static int vfio_user_irqs_send(VFIOUserIrqsGo *go, bool wait)
{
    VFIOUserConn *conn = go->udev->conn;
    int first = 0;

    for (unsigned i = 0; i < go->nr; i++) {
        if (wait) {
            go->msgs[i]->req.done = NULL;
        }
        vfio_user_conn_submit(conn, &go->msgs[i]->req);
    }
    if (go->look) {
        vfio_user_irqs_ask_status(go->udev);
    }
    for (unsigned i = 0; wait && i < go->nr; i++) {
        bool is_mask = vfio_user_irqs_is_mask(&go->msgs[i]->set);
        int ret = vfio_user_conn_wait(conn, &go->msgs[i]->req);

        vfio_user_irqs_take_answer(go->msgs[i], ret);
        first = first ?: is_mask ? 0 : ret;
    }
    return first;
}

/* Changes of state --------------------------------------------------------- */

static void vfio_user_irqs_repeat_locked(VFIOUserIrqState *st)
{
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        VFIOUserIrqIndex *idx = &st->index[i];

        idx->dirty = true;
        idx->disable |= idx->disable_refused;
        idx->disable_refused = idx->mask_refused = false;
        for (uint32_t j = 0; j < idx->count; j++) {
            idx->v[j].refused = VFIO_USER_IRQ_NEVER;
        }
    }
}

void vfio_user_irqs_sync(VFIOUserDevice *udev)
{
    WITH_QEMU_LOCK_GUARD(&udev->irq_state->lock) {
        vfio_user_irqs_repeat_locked(udev->irq_state);
    }
    vfio_user_irqs_reconcile(udev, false);
}

void vfio_user_irqs_set_runs(VFIOUserDevice *udev, bool runs)
{
    WITH_QEMU_LOCK_GUARD(&udev->irq_state->lock) {
        udev->irq_state->runs = runs;
    }
    if (runs) {
        vfio_user_irqs_sync(udev);
    }
}

static void vfio_user_irqs_forget_masks_locked(VFIOUserIrqState *st)
{
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        VFIOUserIrqIndex *idx = &st->index[i];

        idx->no_mask = false;
        for (uint32_t j = 0; j < idx->count; j++) {
            idx->v[j].told_mask = VFIO_USER_IRQ_MASK_ANY;
        }
    }
}

void vfio_user_irqs_was_reset(VFIOUserDevice *udev)
{
    WITH_QEMU_LOCK_GUARD(&udev->irq_state->lock) {
        vfio_user_irqs_forget_masks_locked(udev->irq_state);
    }
    vfio_user_irqs_sync(udev);
}

static void vfio_user_irqs_forget_index_locked(VFIOUserIrqIndex *idx)
{
    idx->disable = idx->disable_busy = idx->disable_refused = false;
    idx->mask_busy = false;
    for (uint32_t j = 0; j < idx->count; j++) {
        idx->v[j].told = VFIO_USER_IRQ_NOTHING;
        idx->v[j].seq = 0;
    }
}

void vfio_user_irqs_forget(VFIOUserDevice *udev)
{
    VFIOUserIrqState *st = udev->irq_state;
    VFIOUserIrqsMsg *m;

    QEMU_LOCK_GUARD(&st->lock);
    /* Answers that are still to come are those of the old server. */
    while ((m = QTAILQ_FIRST(&st->on_way))) {
        QTAILQ_REMOVE(&st->on_way, m, next);
        st->nr_on_way--;
        if (m->answered) {
            vfio_user_irqs_msg_free(m);
        } else {
            m->lost = true;
            st->nr_lost++;
        }
    }
    for (unsigned i = 0; i < VFIO_USER_IRQ_MAX; i++) {
        vfio_user_irqs_forget_index_locked(&st->index[i]);
    }
    vfio_user_irqs_forget_masks_locked(st);
    vfio_user_irqs_repeat_locked(st);
    st->eoi = st->look = false;
    st->runs = true;
    st->wanted++;
}

/* How far it is ------------------------------------------------------------ */

uint64_t vfio_user_irqs_wanted(VFIOUserDevice *udev)
{
    QEMU_LOCK_GUARD(&udev->irq_state->lock);
    return udev->irq_state->wanted;
}

bool vfio_user_irqs_is_told(VFIOUserDevice *udev, uint64_t gen)
{
    if (vfio_user_conn_broken(udev->conn)) {
        return true;
    }
    QEMU_LOCK_GUARD(&udev->irq_state->lock);
    return udev->irq_state->told >= gen;
}

uint64_t vfio_user_irqs_nr_answered(VFIOUserDevice *udev)
{
    QEMU_LOCK_GUARD(&udev->irq_state->lock);
    return udev->irq_state->answered;
}
