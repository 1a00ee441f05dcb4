/*
 * vfio-user: writes that are signals
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A server may name parts of its BARs where it does not need to be told what
 * is written: a write there is a signal on an eventfd of the server's (a
 * doorbell). It may want the value as well: then that is stored in memory of
 * the server's, its shadow, before the signal. ioregionfd, the third kind,
 * would need a kernel that nobody has; those sub-regions are accessed by
 * messages.
 *
 * Who signals. KVM does, where it runs the guest and can tell the write:
 * ioeventfd-apply.c gives such sub-regions to the memory core, which follows
 * the BAR wherever the guest puts it. Any other write arrives here by the
 * operations table, just before it would become a message: under TCG, for a
 * shadow, for a value too wide for QEMU's interface to KVM, or from another
 * device. So what a write means does not depend on who made it. Under TCG the
 * memory core could signal, too; but it would do so with the BQL held, and a
 * write to an eventfd whose counter is full blocks: a server could stop the VM
 * by filling the counter. Here a full counter is left as it is, since its
 * reader will find it readable anyway; and BARs come without the BQL, so that a
 * server which fills it between look and write stops one vCPU only.
 *
 * Order. A signal does not go through the socket. A message that was sent
 * before it but not answered could be handled after it, and the device would
 * see the doorbell before the register that it is about. So a device with
 * sub-regions gets no posted writes (negotiate.c): each write by message has
 * been handled when the vCPU goes on, and a signal after it comes after it.
 * The other way round, an access by message may be handled before a signal
 * that preceded it. Nobody but the server can do anything about that, and it
 * knows: it looks at its eventfds, which the kernel has set by then, before it
 * handles a message where that matters. It must do so when it is told to stop
 * for migration or to reset. A shadow's value is stored before the system call
 * that signals.
 *
 * A mapped area comes first. A sub-region that lies in one is not served,
 * since the guest's writes do not trap there; should they trap for a while,
 * they go by messages as the rest of the area does.
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qapi/error.h"
#include "ioeventfd.h"
#include "sigbus.h"
#include "trace.h"

#define NR_BARS     (VFIO_USER_REGION_BAR5 + 1)

/*
 * Room in the first question: for as many entries as a reply may have
 * descriptors. libvfio-user sends one for each, whatever we can take.
 */
#define FIRST_ROOM  (sizeof(struct vfio_user_io_fds) +                      \
                     VFIO_USER_MAX_MSG_FDS * sizeof(struct vfio_user_io_fd))

/* A question about a region on its way */
typedef struct VFIOUserIoQuestion {
    VFIOUserRequest req;
    struct vfio_user_io_fds ask;
    struct iovec out;
    struct iovec in;
    int fds[VFIO_USER_MAX_MSG_FDS];
    bool asked;
} VFIOUserIoQuestion;

struct VFIOUserIoQuery {
    VFIOUserIoQuestion q[NR_BARS];
};

/* The table ---------------------------------------------------------------- */

static void vfio_user_ioeventfd_unmap(VFIOUserIoEvent *e)
{
    if (e->guarded) {
        vfio_user_sigbus_forget(e->map);
    }
    if (e->map) {
        munmap(e->map, e->map_len);
    }
}

static void vfio_user_ioeventfd_reclaim(struct rcu_head *head)
{
    VFIOUserIoEvents *t = container_of(head, VFIOUserIoEvents, rcu);

    for (unsigned i = 0; i < t->nr; i++) {
        vfio_user_ioeventfd_unmap(&t->event[i]);
    }
    for (unsigned i = 0; i < t->nr_fds; i++) {
        close(t->fds[i]);
    }
    g_free(t->event);
    g_free(t->fds);
    g_free(t);
}

void vfio_user_ioeventfd_free(VFIOUserIoEvents *t)
{
    if (t && t->used) {
        /* A vCPU may be signalling. */
        call_rcu1(&t->rcu, vfio_user_ioeventfd_reclaim);
    } else if (t) {
        vfio_user_ioeventfd_reclaim(&t->rcu);
    }
}

void vfio_user_ioeventfd_adopt(VFIOUserDevice *udev, VFIOUserDevice *fresh)
{
    if (udev->io_events_before) {
        /* Those of a server that came and went before it was used. */
        vfio_user_ioeventfd_free(udev->io_events);
    } else {
        udev->io_events_before = udev->io_events;
    }
    qatomic_rcu_set(&udev->io_events, g_steal_pointer(&fresh->io_events));
    for (unsigned i = 0; udev->io_events && i < udev->info.num_regions; i++) {
        /* The one before may have had none. */
        udev->regions[i].posted = false;
    }
}

/* Is @a before a sub-region at @region, @off? */
static bool vfio_user_ioeventfd_before(const VFIOUserIoEvent *a,
                                       unsigned region, uint64_t off)
{
    return a->region != region ? a->region < region : a->sub.offset < off;
}

static bool vfio_user_ioeventfd_takes(const VFIOUserIoEvent *e,
                                      const void *buf, size_t len)
{
    if (e->mapped || (e->sub.size && e->sub.size != len)) {
        return false;
    }
    return !e->sub.match || ldn_le_p(buf, len) == e->sub.data;
}

VFIOUserIoEvent *vfio_user_ioeventfd_find(VFIOUserIoEvents *t, unsigned region,
                                          uint64_t off, const void *buf,
                                          size_t len)
{
    unsigned low = 0, high = t->nr;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (vfio_user_ioeventfd_before(&t->event[middle], region, off)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < t->nr; low++) {
        VFIOUserIoEvent *e = &t->event[low];

        if (e->region != region || e->sub.offset != off) {
            break;
        }
        if (vfio_user_ioeventfd_takes(e, buf, len)) {
            return e;
        }
    }
    return NULL;
}

/* Signalling --------------------------------------------------------------- */

/* In one go: the server may look at it any time. */
static void vfio_user_ioeventfd_store(void *to, const void *buf, size_t len)
{
    switch (len) {
    case 1:
        qatomic_set((uint8_t *)to, ldub_p(buf));
        break;
    case 2:
        qatomic_set((uint16_t *)to, lduw_he_p(buf));
        break;
    case 4:
        qatomic_set((uint32_t *)to, ldl_he_p(buf));
        break;
    case 8:
        qatomic_set__nocheck((uint64_t *)to, ldq_he_p(buf));
        break;
    default:
        g_assert_not_reached();
    }
}

void vfio_user_ioeventfd_signal(VFIOUserIoEvent *e)
{
    struct pollfd pfd = {
        .fd = event_notifier_get_fd(&e->e), .events = POLLOUT,
    };

    if (poll(&pfd, 1, 0) > 0 && pfd.revents & POLLOUT) {
        event_notifier_set(&e->e);
    }
}

bool vfio_user_ioeventfd_write(VFIODevice *vbasedev, unsigned region,
                               uint64_t off, const void *buf, size_t len)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    VFIOUserIoEvents *t;
    VFIOUserIoEvent *e;

    RCU_READ_LOCK_GUARD();
    t = qatomic_rcu_read(&udev->io_events);
    if (!t || !qatomic_read(&t->active) || !is_power_of_2(len) || len > 8 ||
        vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        return false;
    }
    e = vfio_user_ioeventfd_find(t, region, off, buf, len);
    if (!e) {
        return false;
    }
    trace_vfio_user_ioeventfd_signal(udev->name, region, off, len, e->shadow);
    if (e->shadow) {
        vfio_user_ioeventfd_store(e->shadow, buf, len);
    }
    vfio_user_ioeventfd_signal(e);
    return true;
}

/* Asking ------------------------------------------------------------------- */

static void vfio_user_ioeventfd_ask_one(VFIOUserDevice *udev,
                                        VFIOUserIoQuestion *q, unsigned index,
                                        size_t room)
{
    g_free(q->in.iov_base);
    q->ask = (struct vfio_user_io_fds) { .argsz = room, .index = index };
    q->out = (struct iovec) { .iov_base = &q->ask, .iov_len = sizeof(q->ask) };
    q->in = (struct iovec) { .iov_base = g_malloc0(room), .iov_len = room };
    q->req = (VFIOUserRequest) {
        .command = VFIO_USER_DEVICE_GET_REGION_IO_FDS,
        .out = &q->out, .nr_out = 1,
        .in = &q->in, .nr_in = 1,
        .in_fds = q->fds, .max_in_fds = ARRAY_SIZE(q->fds),
        .timeout_ms = vfio_user_conn_half_ms(udev->conn),
    };
    q->asked = true;
    vfio_user_conn_submit(udev->conn, &q->req);
}

VFIOUserIoQuery *vfio_user_ioeventfd_ask(VFIOUserDevice *udev)
{
    VFIOUserIoQuery *query = g_new0(VFIOUserIoQuery, 1);
    bool any = false;

    for (unsigned i = 0; i < NR_BARS; i++) {
        const VFIOUserRegionInfo *info = &udev->regions[i].info;
        bool whole = info->flags & VFIO_USER_REGION_MMAP && !info->has_sparse;

        /* Where all of it is mapped there is nothing to gain. */
        if (info->size && info->flags & VFIO_USER_REGION_WRITEABLE && !whole) {
            vfio_user_ioeventfd_ask_one(udev, &query->q[i], i, FIRST_ROOM);
            any = true;
        }
    }
    if (!any) {
        g_free(query);
        return NULL;
    }
    return query;
}

static void vfio_user_ioeventfd_close_fds(VFIOUserIoQuestion *q)
{
    unsigned nr = MIN(q->req.nr_in_fds, ARRAY_SIZE(q->fds));

    for (unsigned i = 0; i < nr; i++) {
        if (q->fds[i] >= 0) {
            close(q->fds[i]);
        }
    }
    q->req.nr_in_fds = 0;
}

/*
 * KVM would refuse anything else, and the memory core does not survive that.
 * There is no system call that tells; without /proc nothing is one.
 */
static bool vfio_user_ioeventfd_is_eventfd(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *target = g_file_read_link(path, NULL);

    return target && !strcmp(target, "anon_inode:[eventfd]");
}

/* The server's memory behind a sub-region; the mapping is @e's. */
static bool vfio_user_ioeventfd_map(VFIOUserIoEvent *e, int fd)
{
    uint64_t page = qemu_real_host_page_size();
    uint64_t start = QEMU_ALIGN_DOWN(e->sub.shadow_offset, page);
    size_t width = e->sub.size ?: 8;

    /* Aligned as it is, it does not reach into another page. */
    if (!vfio_user_device_fd_covers(fd, e->sub.shadow_offset, width)) {
        return false;
    }
    e->map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, start);
    if (e->map == MAP_FAILED) {
        e->map = NULL;
        return false;
    }
    e->map_len = page;
    e->shadow = e->map + (e->sub.shadow_offset - start);
    return true;
}

/* Keeps @q's descriptor @index, if it did not already. */
static void vfio_user_ioeventfd_keep_fd(VFIOUserIoEvents *t,
                                        VFIOUserIoQuestion *q, int fd)
{
    for (unsigned i = 0; i < ARRAY_SIZE(q->fds); i++) {
        if (q->fds[i] == fd) {
            q->fds[i] = -1;
            t->fds = g_renew(int, t->fds, t->nr_fds + 1);
            t->fds[t->nr_fds++] = fd;
        }
    }
}

/* Returns the number of sub-regions that turned out to be of no use. */
static unsigned vfio_user_ioeventfd_take(VFIOUserIoEvents *t,
                                         VFIOUserIoQuestion *q,
                                         unsigned index,
                                         const VFIOUserIoFds *io)
{
    int fds[VFIO_USER_MAX_MSG_FDS];
    unsigned dropped = 0;

    /* q->fds loses those that are kept. */
    memcpy(fds, q->fds, sizeof(fds));
    t->event = g_renew(VFIOUserIoEvent, t->event, t->nr + io->nr);
    for (unsigned i = 0; i < io->nr; i++) {
        const VFIOUserSubRegion *sub = &io->subs[i];
        VFIOUserIoEvent *e = &t->event[t->nr];

        *e = (VFIOUserIoEvent) { .region = index, .sub = *sub };
        if (!vfio_user_ioeventfd_is_eventfd(fds[sub->fd_index]) ||
            (sub->shadow &&
             !vfio_user_ioeventfd_map(e, fds[sub->shadow_index]))) {
            dropped++;
            continue;
        }
        event_notifier_init_fd(&e->e, fds[sub->fd_index]);
        vfio_user_ioeventfd_keep_fd(t, q, fds[sub->fd_index]);
        t->nr++;
    }
    return dropped;
}

/*
 * The answer to one question. An error in the reply means that there are no
 * sub-regions.
 */
static bool vfio_user_ioeventfd_wait(VFIOUserDevice *udev,
                                     VFIOUserIoQuestion *q, unsigned index,
                                     VFIOUserIoFds *io, Error **errp)
{
    int ret = vfio_user_conn_wait(udev->conn, &q->req);

    memset(io, 0, sizeof(*io));
    if (ret == -EPIPE) {
        error_propagate_prepend(errp, vfio_user_conn_error(udev->conn),
                                "failed: ");
        return false;
    }
    if (ret == -ETIMEDOUT) {
        vfio_user_warn_limited(&udev->offer_said, "vfio-user-pci %s: the server "
                               "leaves questions for ioeventfds unanswered; "
                               "ioeventfd=off saves the wait", udev->name);
    }
    return ret ||
           vfio_user_wire_check_io_fds(q->in.iov_base, q->req.in_len, index,
                                       udev->regions[index].info.size,
                                       q->in.iov_len,
                                       MIN(q->req.nr_in_fds,
                                           ARRAY_SIZE(q->fds)), io, errp);
}

/* The same, with a second question where the first had too little room. */
static bool vfio_user_ioeventfd_wait_all(VFIOUserDevice *udev,
                                         VFIOUserIoQuestion *q,
                                         unsigned index, VFIOUserIoFds *io,
                                         Error **errp)
{
    if (!vfio_user_ioeventfd_wait(udev, q, index, io, errp)) {
        return false;
    }
    if (io->needed <= q->in.iov_len) {
        return true;
    }
    vfio_user_ioeventfd_close_fds(q);
    vfio_user_ioeventfd_ask_one(udev, q, index, io->needed);
    if (!vfio_user_ioeventfd_wait(udev, q, index, io, errp)) {
        return false;
    }
    if (io->needed > q->in.iov_len) {
        error_setg(errp, "the size of the answer keeps growing (now %u bytes)",
                   io->needed);
        return false;
    }
    return true;
}

static bool vfio_user_ioeventfd_answer(VFIOUserDevice *udev,
                                       VFIOUserIoEvents *t,
                                       VFIOUserIoQuestion *q, unsigned index,
                                       Error **errp)
{
    VFIOUserIoFds io;
    unsigned dropped;

    if (!vfio_user_ioeventfd_wait_all(udev, q, index, &io, errp)) {
        error_prepend(errp, "DEVICE_GET_REGION_IO_FDS: region %u: ", index);
        return false;
    }
    dropped = io.nr_dropped + vfio_user_ioeventfd_take(t, q, index, &io);
    trace_vfio_user_ioeventfd_offered(udev->name, index, io.nr, dropped);
    if (dropped) {
        vfio_user_warn_limited(&udev->offer_said, "vfio-user-pci %s: %u "
                               "sub-regions of region %u cannot be signalled: "
                               "they are accessed by messages", udev->name,
                               dropped, index);
    }
    vfio_user_wire_io_fds_cleanup(&io);
    return true;
}

bool vfio_user_ioeventfd_answered(VFIOUserDevice *udev, VFIOUserIoQuery *query,
                                  Error **errp)
{
    VFIOUserIoEvents *t = g_new0(VFIOUserIoEvents, 1);
    bool ok = true;

    for (unsigned i = 0; query && i < NR_BARS; i++) {
        VFIOUserIoQuestion *q = &query->q[i];

        if (!q->asked) {
            continue;
        }
        if (ok) {
            ok = vfio_user_ioeventfd_answer(udev, t, q, i, errp);
        } else {
            vfio_user_conn_wait(udev->conn, &q->req);
        }
        vfio_user_ioeventfd_close_fds(q);
        g_free(q->in.iov_base);
    }
    g_free(query);
    if (ok && t->nr) {
        udev->io_events = t;
    } else {
        vfio_user_ioeventfd_free(t);
    }
    return ok;
}
