/*
 * vfio-user test server: interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A vector has an eventfd or not, is masked or not, and pends when it was
 * raised while masked. Three ways to treat masks are in the field, see
 * TsMaskMode; TS_MASK_KEEP is QEMU's own server with its reading of `count`.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "internal.h"

#define IRQ_DATA    (VFIO_USER_IRQ_DATA_NONE | VFIO_USER_IRQ_DATA_BOOL | \
                     VFIO_USER_IRQ_DATA_EVENTFD)
#define IRQ_ACTION  (VFIO_USER_IRQ_MASK | VFIO_USER_IRQ_UNMASK | \
                     VFIO_USER_IRQ_TRIGGER)

void ts_add_irqs(TestServer *s, unsigned index, unsigned count,
                 uint32_t flags, TsMaskMode mode)
{
    TsIrqIndex *irq = &s->irqs[index];

    g_assert(index < TS_NR_IRQS && !s->started);
    irq->count = count;
    irq->flags = flags;
    irq->mode = mode;
    irq->fds = g_renew(int, irq->fds, count);
    irq->masked = g_renew(bool, irq->masked, count);
    irq->pending = g_renew(bool, irq->pending, count);
    for (unsigned i = 0; i < count; i++) {
        irq->fds[i] = -1;
        irq->masked[i] = mode == TS_MASK_KEEP;
        irq->pending[i] = false;
    }
}

void ts_irq_free(TestServer *s)
{
    for (unsigned i = 0; i < TS_NR_IRQS; i++) {
        g_free(s->irqs[i].fds);
        g_free(s->irqs[i].masked);
        g_free(s->irqs[i].pending);
    }
}

int ts_irq_get_info(TestServer *s, TsMessage *request, TsMessage *reply)
{
    struct vfio_user_irq_info info;

    if (request->payload->len != sizeof(info)) {
        return EINVAL;
    }
    memcpy(&info, request->payload->data, sizeof(info));
    if (info.argsz < sizeof(info) || info.index >= s->info.num_irqs ||
        info.index >= TS_NR_IRQS) {
        return EINVAL;
    }
    info.argsz = sizeof(info);
    info.flags = s->irqs[info.index].flags;
    info.count = s->irqs[info.index].count;
    g_byte_array_append(reply->payload, (guint8 *)&info, sizeof(info));
    return 0;
}

static void irq_set_fd_locked(TsIrqIndex *irq, unsigned vector, int fd)
{
    if (irq->fds[vector] >= 0) {
        close(irq->fds[vector]);
    }
    irq->fds[vector] = fd;
}

static int irq_signal_locked(TsIrqIndex *irq, unsigned vector)
{
    uint64_t one = 1;

    if (irq->fds[vector] < 0) {
        return ENOENT;
    }
    if (irq->masked[vector]) {
        irq->pending[vector] = true;
        return EAGAIN;
    }
    irq->pending[vector] = false;
    return write(irq->fds[vector], &one, sizeof(one)) == sizeof(one) ? 0
                                                                      : errno;
}

static void irq_mask_locked(TsIrqIndex *irq, unsigned vector, bool mask)
{
    irq->masked[vector] = mask;
    if (!mask && irq->pending[vector]) {
        irq_signal_locked(irq, vector);
    }
}

static void irq_disable_locked(TsIrqIndex *irq)
{
    for (unsigned i = 0; i < irq->count; i++) {
        irq_set_fd_locked(irq, i, -1);
        irq->pending[i] = false;
    }
}

/* Which bit of a DATA_BOOL request is set; all are with DATA_NONE. */
static bool irq_wanted(const struct vfio_user_irq_set *set,
                       const TsMessage *request, unsigned i)
{
    return !(set->flags & VFIO_USER_IRQ_DATA_BOOL) ||
           request->payload->data[sizeof(*set) + i];
}

static int irq_set_masks_locked(TsIrqIndex *irq,
                                const struct vfio_user_irq_set *set,
                                TsMessage *request, bool mask)
{
    unsigned end = set->start + set->count;

    if (irq->mode == TS_MASK_REFUSE) {
        return EINVAL;
    }
    if (irq->mode == TS_MASK_KEEP) {
        end = set->count;
    }
    if (set->flags & VFIO_USER_IRQ_DATA_EVENTFD) {
        return 0;   /* INTx resample: accepted and not kept */
    }
    for (unsigned i = set->start; i < end; i++) {
        if (irq_wanted(set, request, i - set->start)) {
            irq_mask_locked(irq, i, mask);
        }
    }
    return 0;
}

static int irq_trigger_locked(TsIrqIndex *irq,
                              const struct vfio_user_irq_set *set,
                              TsMessage *request)
{
    if (set->count == 0) {
        irq_disable_locked(irq);
        return 0;
    }
    for (unsigned i = 0; i < set->count; i++) {
        if (set->flags & VFIO_USER_IRQ_DATA_EVENTFD) {
            irq_set_fd_locked(irq, set->start + i,
                              ts_message_take_fd(request, i));
        } else if (irq_wanted(set, request, i)) {
            irq_signal_locked(irq, set->start + i);
        }
    }
    return 0;
}

static bool irq_one_bit(uint32_t value)
{
    return value && !(value & (value - 1));
}

/* The request as the protocol describes it, or an errno. */
static int irq_check_set(TestServer *s, const struct vfio_user_irq_set *set,
                         const TsMessage *request)
{
    size_t data = request->payload->len - sizeof(*set);
    uint32_t room;

    if (set->argsz != request->payload->len ||
        set->flags & ~(IRQ_DATA | IRQ_ACTION) ||
        !irq_one_bit(set->flags & IRQ_DATA) ||
        !irq_one_bit(set->flags & IRQ_ACTION) ||
        set->index >= s->info.num_irqs || set->index >= TS_NR_IRQS) {
        return EINVAL;
    }
    room = s->irqs[set->index].count;
    if (set->start > room || set->count > room - set->start) {
        return EINVAL;
    }
    if (set->count == 0 && (!(set->flags & VFIO_USER_IRQ_DATA_NONE) ||
                            !(set->flags & VFIO_USER_IRQ_TRIGGER))) {
        return EINVAL;
    }
    if (data != (set->flags & VFIO_USER_IRQ_DATA_BOOL ? set->count : 0)) {
        return EINVAL;
    }
    if (set->flags & VFIO_USER_IRQ_DATA_EVENTFD) {
        return request->nr_fds && request->nr_fds != set->count ? EINVAL : 0;
    }
    return request->nr_fds ? EINVAL : 0;
}

int ts_irq_set(TestServer *s, TsMessage *request)
{
    struct vfio_user_irq_set set;
    TsIrqIndex *irq;
    int err;

    if (request->payload->len < sizeof(set)) {
        return EINVAL;
    }
    memcpy(&set, request->payload->data, sizeof(set));
    err = irq_check_set(s, &set, request);
    if (err) {
        return err;
    }
    irq = &s->irqs[set.index];
    ts_lock(s);
    if (set.flags & VFIO_USER_IRQ_TRIGGER) {
        err = irq_trigger_locked(irq, &set, request);
    } else {
        err = irq_set_masks_locked(irq, &set, request,
                                   set.flags & VFIO_USER_IRQ_MASK);
    }
    ts_changed_locked(s);
    ts_unlock(s);
    return err;
}

void ts_irq_client_gone(TestServer *s)
{
    ts_lock(s);
    for (unsigned i = 0; i < TS_NR_IRQS; i++) {
        irq_disable_locked(&s->irqs[i]);
        for (unsigned j = 0; j < s->irqs[i].count; j++) {
            s->irqs[i].masked[j] = s->irqs[i].mode == TS_MASK_KEEP;
        }
    }
    ts_changed_locked(s);
    ts_unlock(s);
}

int ts_irq_trigger(TestServer *s, unsigned index, unsigned vector)
{
    int err = ENOENT;

    ts_lock(s);
    if (index < TS_NR_IRQS && vector < s->irqs[index].count) {
        err = irq_signal_locked(&s->irqs[index], vector);
    }
    ts_unlock(s);
    return err;
}

static bool irq_has_fd_locked(TestServer *s, unsigned index, unsigned vector)
{
    return index < TS_NR_IRQS && vector < s->irqs[index].count &&
           s->irqs[index].fds[vector] >= 0;
}

bool ts_irq_has_fd(TestServer *s, unsigned index, unsigned vector)
{
    bool has;

    ts_lock(s);
    has = irq_has_fd_locked(s, index, vector);
    ts_unlock(s);
    return has;
}

bool ts_irq_masked(TestServer *s, unsigned index, unsigned vector)
{
    bool masked;

    ts_lock(s);
    masked = index < TS_NR_IRQS && vector < s->irqs[index].count &&
             s->irqs[index].masked[vector];
    ts_unlock(s);
    return masked;
}

static unsigned irq_nr_fds_locked(const TsIrqIndex *irq)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < irq->count; i++) {
        nr += irq->fds[i] >= 0;
    }
    return nr;
}

unsigned ts_irq_nr_fds(TestServer *s, unsigned index)
{
    unsigned nr;

    ts_lock(s);
    nr = irq_nr_fds_locked(&s->irqs[index]);
    ts_unlock(s);
    return nr;
}

bool ts_irq_wait_nr_fds(TestServer *s, unsigned index, unsigned nr)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && irq_nr_fds_locked(&s->irqs[index]) != nr) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}

bool ts_irq_wait_fd(TestServer *s, unsigned index, unsigned vector,
                    bool there)
{
    int64_t deadline = ts_deadline(TS_DEADLINE_MS);
    bool ok = true;

    ts_lock(s);
    while (ok && irq_has_fd_locked(s, index, vector) != there) {
        ok = ts_wait_change_locked(s, deadline);
    }
    ts_unlock(s);
    return ok;
}
