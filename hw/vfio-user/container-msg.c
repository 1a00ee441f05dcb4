/*
 * vfio-user: what the server is told of windows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest's memory is many windows, and one round trip for each would show at
 * start. So within a transaction of the memory listener messages are sent
 * and not waited for. During realize commit collects all replies, and errors
 * go where hw/vfio expects them. Later nobody waits: transactions come from
 * vCPUs that hold the BQL (firmware that shadows itself), and whatever the
 * guest does to the device next reaches the server after the windows. Memory
 * that goes away stays mapped at the server a little longer by its own
 * reference to the file; DMA by message finds what is there now. Outside of a
 * transaction (vIOMMU, virtio-mem) each call waits, since its caller relies on
 * the result. So does commit behind an IOMMU of the guest; see iommu.c.
 *
 * A refusal may say no more than that the window cannot be told now
 * (VFIOUserRefusal). Its answer comes in any thread, and the container is looked at
 * with the BQL; so such messages go into a list for the main loop. Each has a
 * reference to its entry, which may be gone by then, and the number of the socket
 * that it was for: what an earlier server said does not count.
 *
 * A server that was away has missed everything. When it is back it is told of
 * all entries anew, in the order of their addresses and some at a time
 * (replay.c); of what changes meanwhile only where that has come by already.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "container-int.h"
#include "owed.h"
#include "trace.h"

/* DMA_MAP or DMA_UNMAP on its way */
struct VFIOUserWindowMsg {
    VFIOUserRequest req;
    VFIOUserDevice *udev;
    VFIOUserEntry *entry;
    VFIOUserOwed *owed;
    union {
        struct vfio_user_dma_map map;
        struct vfio_user_dma_unmap unmap;
    } out;
    struct vfio_user_dma_unmap reply;
    struct iovec out_iov;
    struct iovec in_iov;
    int fd;
    bool stopped;       /* sent to a device that does no DMA */
    bool may_lack;      /* the device can go on without the window */
    QSIMPLEQ_ENTRY(VFIOUserWindowMsg) next;
    QSLIST_ENTRY(VFIOUserWindowMsg) outcome;
};

/* Outcomes ----------------------------------------------------------------- */

static void vfio_user_container_free_msg(VFIOUserWindowMsg *msg)
{
    vfio_user_container_unref_entry(msg->entry);
    g_free(msg);
}

static bool vfio_user_container_is_map(const VFIOUserWindowMsg *msg)
{
    return msg->req.command == VFIO_USER_DMA_MAP;
}

/* Any thread */
static VFIOUserRefusal vfio_user_container_refusal(VFIOUserWindowMsg *msg,
                                                   int ret)
{
    VFIOUserEntry *e = msg->entry;
    VFIOUserRefusal refusal = VFIO_USER_REFUSAL_NONE;

    if (!ret || ret == -ETIMEDOUT || ret == -EPIPE || ret == -ECANCELED) {
        return VFIO_USER_REFUSAL_NONE;
    }
    if (!vfio_user_container_is_map(msg) &&
        qatomic_read(&e->refused) == msg->req.life) {
        refusal = VFIO_USER_REFUSAL_GONE;
    } else if (msg->stopped) {
        refusal = VFIO_USER_REFUSAL_STOPPED;
    } else if (msg->may_lack && (ret == -ENOSPC || ret == -ENOMEM)) {
        refusal = VFIO_USER_REFUSAL_FULL;
    }
    if (refusal) {
        trace_vfio_user_container_refused(msg->udev->name,
                                          vfio_user_container_is_map(msg),
                                          e->node.start, e->node.last, ret,
                                          refusal);
        if (vfio_user_container_is_map(msg)) {
            qatomic_set(&e->refused, msg->req.life);
        }
    }
    return refusal;
}

/* Returns 0 or -errno with @errp set. Any thread. */
static int vfio_user_container_result(VFIOUserWindowMsg *msg, int ret,
                                      Error **errp)
{
    bool map = vfio_user_container_is_map(msg);
    uint64_t iova = map ? msg->out.map.addr : msg->out.unmap.addr;
    uint64_t size = map ? msg->out.map.size : msg->out.unmap.size;

    if (ret) {
        Error *err = vfio_user_conn_error(msg->udev->conn);

        if (!err) {
            error_setg(&err, "%s", ret == -ETIMEDOUT ?
                       "the server did not answer in time" : strerror(-ret));
        }
        trace_vfio_user_container_failed(msg->udev->name, map, iova, size, ret);
        error_prepend(&err, "%s of 0x%" PRIx64 " bytes at 0x%" PRIx64
                      " failed: ", map ? "DMA_MAP" : "DMA_UNMAP", size, iova);
        error_propagate(errp, err);
        return ret;
    }
    if (!map && !vfio_user_wire_check_dma_unmap(&msg->reply, msg->req.in_len,
                                                &msg->out.unmap, errp)) {
        error_prepend(errp, "DMA_UNMAP: ");
        return -EIO;
    }
    return 0;
}

/* The outcome of a message that nobody waits for. Any thread. */
static void vfio_user_container_done(VFIOUserRequest *req)
{
    VFIOUserWindowMsg *msg = container_of(req, VFIOUserWindowMsg, req);
    VFIOUserRefusal refusal = vfio_user_container_refusal(msg, req->ret);
    VFIOUserDevice *udev = msg->udev;
    Error *err = NULL;

    if (!refusal && vfio_user_container_result(msg, req->ret, &err)) {
        vfio_user_device_offline(udev, err);
    }
    vfio_user_owed_put(msg->owed);
    if (!refusal && !msg->stopped && !msg->entry->tried) {
        vfio_user_container_free_msg(msg);
        return;
    }
    QSLIST_INSERT_HEAD_ATOMIC(&udev->window_outcomes, msg, outcome);
    vfio_user_container_look_soon(udev);
}

/* What it means for the container, unless it is about another server. BQL. */
static VFIOUserRefusal vfio_user_container_take(VFIOUserContainer *c,
                                                VFIOUserWindowMsg *msg, int ret)
{
    bool map = vfio_user_container_is_map(msg);
    VFIOUserRefusal refusal;

    if (msg->req.life != vfio_user_conn_life(c->udev->conn)) {
        return VFIO_USER_REFUSAL_NONE;
    }
    refusal = vfio_user_container_refusal(msg, ret);
    if (msg->stopped) {
        c->in_doubt--;
    }
    if (map && msg->entry->tried && !ret) {
        c->full = false;
    }
    vfio_user_container_refused(c, msg->entry, map, refusal);
    return refusal;
}

void vfio_user_container_take_outcomes(VFIOUserDevice *udev,
                                       VFIOUserContainer *c)
{
    QSLIST_HEAD(, VFIOUserWindowMsg) last, first = { NULL };
    VFIOUserWindowMsg *msg;

    QSLIST_MOVE_ATOMIC(&last, &udev->window_outcomes);
    while ((msg = QSLIST_FIRST(&last))) {
        QSLIST_REMOVE_HEAD(&last, outcome);
        QSLIST_INSERT_HEAD(&first, msg, outcome);
    }
    while ((msg = QSLIST_FIRST(&first))) {
        QSLIST_REMOVE_HEAD(&first, outcome);
        if (c) {
            vfio_user_container_take(c, msg, msg->req.ret);
        }
        vfio_user_container_free_msg(msg);
    }
}

/* Sending ------------------------------------------------------------------ */

static void vfio_user_container_send(VFIOUserContainer *c,
                                     VFIOUserEntry *e, VFIOUserWindowMsg *msg)
{
    qatomic_inc(&e->refs);
    msg->entry = e;
    msg->udev = c->udev;
    msg->req.life = vfio_user_conn_life(c->udev->conn);
    msg->stopped = vfio_user_migration_is_stopped(c->udev);
    msg->may_lack = c->bcontainer.initialized &&
                    vfio_user_container_is_map(msg) &&
                    !vfio_user_dma_behind_iommu(c->udev);
    c->in_doubt += msg->stopped;
    msg->out_iov.iov_base = &msg->out;
    msg->req.out = &msg->out_iov;
    msg->req.nr_out = 1;
    if (c->nobody_waits ||
        (c->in_transaction && c->bcontainer.initialized &&
         !vfio_user_dma_behind_iommu(c->udev))) {
        msg->req.done = vfio_user_container_done;
        msg->owed = vfio_user_owed_get(c->udev);
    } else {
        QSIMPLEQ_INSERT_TAIL(&c->pending, msg, next);
    }
    vfio_user_conn_submit(c->udev->conn, &msg->req);
}

void vfio_user_container_send_map(VFIOUserContainer *c, VFIOUserEntry *e,
                                  uint32_t flags, int fd, uint64_t offset)
{
    VFIOUserWindowMsg *msg = g_new0(VFIOUserWindowMsg, 1);

    msg->out.map = (struct vfio_user_dma_map) {
        .argsz = sizeof(msg->out.map),
        .flags = flags,
        .offset = fd < 0 ? 0 : offset,
        .addr = e->node.start,
        .size = e->node.last - e->node.start + 1,
    };
    msg->out_iov.iov_len = sizeof(msg->out.map);
    msg->fd = fd;
    msg->req.command = VFIO_USER_DMA_MAP;
    msg->req.fds = &msg->fd;
    msg->req.nr_fds = fd < 0 ? 0 : 1;
    vfio_user_container_send(c, e, msg);
}

void vfio_user_container_send_unmap(VFIOUserContainer *c, VFIOUserEntry *e)
{
    VFIOUserWindowMsg *msg = g_new0(VFIOUserWindowMsg, 1);

    msg->out.unmap = (struct vfio_user_dma_unmap) {
        .argsz = sizeof(msg->out.unmap),
        .addr = e->node.start,
        .size = e->node.last - e->node.start + 1,
    };
    msg->out_iov.iov_len = sizeof(msg->out.unmap);
    msg->in_iov.iov_base = &msg->reply;
    msg->in_iov.iov_len = sizeof(msg->reply);
    msg->req.command = VFIO_USER_DMA_UNMAP;
    msg->req.in = &msg->in_iov;
    msg->req.nr_in = 1;
    vfio_user_container_send(c, e, msg);
}

/* Collecting --------------------------------------------------------------- */

/* Behind an IOMMU, what the server refuses may go another way. */
static bool vfio_user_container_may_refuse(VFIOUserContainer *c,
                                           VFIOUserWindowMsg *msg, int ret)
{
    return ret && ret != -ETIMEDOUT && c->bcontainer.initialized &&
           vfio_user_container_is_map(msg) &&
           vfio_user_dma_behind_iommu(c->udev) &&
           !vfio_user_conn_broken(c->udev->conn);
}

/* Collect every reply; all of them, also after one has failed. */
static int vfio_user_container_collect(VFIOUserContainer *c, Error **errp)
{
    int first = 0;

    while (!QSIMPLEQ_EMPTY(&c->pending)) {
        VFIOUserWindowMsg *msg = QSIMPLEQ_FIRST(&c->pending);
        bool may_refuse;
        Error *err = NULL;
        int ret;

        QSIMPLEQ_REMOVE_HEAD(&c->pending, next);
        ret = vfio_user_conn_wait(c->udev->conn, &msg->req);
        if (vfio_user_container_take(c, msg, ret)) {
            vfio_user_container_free_msg(msg);
            continue;
        }
        may_refuse = vfio_user_container_may_refuse(c, msg, ret);
        ret = vfio_user_container_result(msg, ret, &err);
        if (may_refuse &&
            vfio_user_iommu_refused(c, msg->out.map.addr,
                                    msg->out.map.addr +
                                    (msg->out.map.size - 1), &err)) {
            ret = 0;
        }
        if (first) {
            error_free(err);
        } else {
            first = ret;
            error_propagate(errp, err);
        }
        vfio_user_container_free_msg(msg);
    }
    return first;
}

int vfio_user_container_finish(VFIOUserContainer *c)
{
    VFIOContainerBase *base = &c->bcontainer;
    Error *err = NULL;
    int ret;

    ret = vfio_user_container_collect(c, &err);
    if (c->unmapped) {
        c->unmapped = false;
        vfio_user_dma_drain(c->udev);
    }
    if (!ret) {
        return 0;
    }
    if (base->initialized) {
        vfio_user_device_offline(c->udev, err);
        return 0;
    }
    if (!base->error) {
        base->error = err;
    } else {
        error_free(err);
    }
    return ret;
}

/* A server that came back -------------------------------------------------- */

/* One that is away learns of what there is when it comes back. */
bool vfio_user_container_is_told(VFIOUserContainer *c, uint64_t iova)
{
    if (vfio_user_conn_broken(c->udev->conn)) {
        return false;
    }
    return vfio_user_device_link(c->udev) == VFIO_USER_LINK_UP ||
           (vfio_user_device_link(c->udev) == VFIO_USER_LINK_REPLAY &&
            iova < c->replayed);
}

static void vfio_user_container_replay_one(VFIOUserContainer *c,
                                           VFIOUserEntry *e)
{
    uint32_t flags = e->window ? e->window->flags :
                     VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE;
    VFIOUserBacking b = { .fd = -1 };

    if (e->window) {
        vfio_user_container_backing(c, e->window->vaddr,
                                    !(flags & VFIO_USER_DMA_WRITEABLE), &b);
    } else {
        vfio_user_container_by_message(c);
    }
    trace_vfio_user_container_map(c->udev->name, e->node.start,
                                  e->node.last - e->node.start + 1, b.fd,
                                  b.offset, flags);
    vfio_user_container_send_map(c, e, flags, b.fd, b.offset);
}

bool vfio_user_container_replay(VFIOUserContainer *c, unsigned max)
{
    IntervalTreeNode *node;

    c->nobody_waits = true;
    while (max && (node = interval_tree_iter_first(&c->entries, c->replayed,
                                                   UINT64_MAX))) {
        /* One that begins below came meanwhile, and was told then. */
        if (node->start >= c->replayed) {
            vfio_user_container_replay_one(c, container_of(node, VFIOUserEntry,
                                                           node));
            max--;
        }
        c->replayed = MAX(node->last, node->last + 1);
        if (c->replayed == UINT64_MAX) {
            break;
        }
    }
    if (max) {
        c->replayed = UINT64_MAX;
    }
    if (c->replayed == UINT64_MAX) {
        vfio_user_container_sync(c);
    }
    c->nobody_waits = false;
    return c->replayed == UINT64_MAX;
}
