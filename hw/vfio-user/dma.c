/*
 * vfio-user: guest memory for the server's DMA commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Runs in whatever thread reads the connection, so never under a lock of its
 * own and never taking the BQL: memory is looked up under RCU and then held by
 * a reference to its region. Only memory that can be touched directly will
 * do. A device's registers would need the BQL, and a server that writes to
 * them could reach the very device that waits for it; a hole has nothing; ROM
 * can be read. All else is the server's error.
 *
 * address_space_unmap() ends a write, so dirty tracking and translated code
 * learn of it as of any device's DMA.
 *
 * Behind the guest's IOMMU an address is looked up among the device's windows,
 * which are what the guest has mapped. Rejected: to let the IOMMU translate. It
 * reports what it cannot translate to the guest, by an interrupt or a
 * virtqueue, for which it takes the BQL, or should. A vCPU that has the BQL and
 * waits for the server to answer a DMA_UNMAP would never get the answer. The
 * guest learns of a stray access as it does with a device of the host: not at
 * all, but from the device. And once hw/vfio was told that a window is gone no
 * command works on it: vfio_user_dma_drain().
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "container.h"

/* So often somebody who waits for commands to end looks whether they have. */
#define VFIO_USER_DMA_TICK_MS   20

static void vfio_user_dma_release(AddressSpace *as, VFIOUserDMA *dma,
                                  bool is_write, uint64_t done)
{
    for (unsigned i = 0; i < dma->nr_iov; i++) {
        size_t len = dma->iov[i].iov_len;
        size_t part = MIN(done, len);

        address_space_unmap(as, dma->iov[i].iov_base, len, is_write && part,
                            part);
        done -= part;
    }
    dma->nr_iov = 0;
}

static int vfio_user_dma_begin_direct(AddressSpace *as, uint64_t addr,
                                      uint64_t count, bool is_write,
                                      VFIOUserDMA *dma)
{
    while (count) {
        hwaddr xlat, len = count;
        MemoryRegion *mr = address_space_translate(as, addr, &xlat, &len,
                                                   is_write,
                                                   MEMTXATTRS_UNSPECIFIED);

        if (!memory_access_is_direct(mr, is_write, MEMTXATTRS_UNSPECIFIED)) {
            return -EFAULT;
        }
        if (dma->nr_iov == ARRAY_SIZE(dma->iov)) {
            return -E2BIG;
        }
        memory_region_ref(mr);
        dma->iov[dma->nr_iov].iov_base = memory_region_get_ram_ptr(mr) + xlat;
        dma->iov[dma->nr_iov].iov_len = len;
        dma->nr_iov++;
        addr += len;
        count -= len;
    }
    return 0;
}

/* Behind an IOMMU ---------------------------------------------------------- */

bool vfio_user_dma_behind_iommu(const VFIOUserDevice *udev)
{
    return udev->as != &address_space_memory;
}

static VFIOUserWindow *vfio_user_dma_window(VFIOUserDevice *udev, uint64_t addr,
                                            bool is_write)
{
    uint32_t need = is_write ? VFIO_USER_DMA_WRITEABLE :
                               VFIO_USER_DMA_READABLE;
    IntervalTreeNode *node;
    VFIOUserWindow *w;

    node = udev->windows ? interval_tree_iter_first(udev->windows, addr, addr)
                         : NULL;
    w = node ? container_of(node, VFIOUserWindow, node) : NULL;
    return w && w->flags & need ? w : NULL;
}

/* Pages that are neighbours in memory, too, are one piece. */
static int vfio_user_dma_add(VFIOUserDMA *dma, uint8_t *ptr, uint64_t len,
                             bool is_write)
{
    struct iovec *last = dma->nr_iov ? &dma->iov[dma->nr_iov - 1] : NULL;
    ram_addr_t off, last_off;
    MemoryRegion *mr = memory_region_from_host(ptr, &off);

    if (!mr || !memory_access_is_direct(mr, is_write,
                                        MEMTXATTRS_UNSPECIFIED)) {
        return -EFAULT;
    }
    if (last && (uint8_t *)last->iov_base + last->iov_len == ptr &&
        memory_region_from_host(last->iov_base, &last_off) == mr) {
        last->iov_len += len;
        return 0;
    }
    if (dma->nr_iov == ARRAY_SIZE(dma->iov)) {
        return -E2BIG;
    }
    memory_region_ref(mr);
    dma->iov[dma->nr_iov++] = (struct iovec) { ptr, len };
    return 0;
}

static int vfio_user_dma_begin_windows(VFIOUserDevice *udev, uint64_t addr,
                                       uint64_t count, bool is_write,
                                       VFIOUserDMA *dma)
{
    QEMU_LOCK_GUARD(&udev->dma_lock);

    while (count) {
        VFIOUserWindow *w = vfio_user_dma_window(udev, addr, is_write);
        uint64_t len;
        int ret;

        if (!w) {
            return -EFAULT;
        }
        len = MIN(count - 1, w->node.last - addr) + 1;
        ret = vfio_user_dma_add(dma, w->vaddr + (addr - w->node.start), len,
                                is_write);
        if (ret) {
            return ret;
        }
        addr += len;
        count -= len;
    }
    dma->opaque = &udev->nr_dma[udev->dma_epoch];
    udev->nr_dma[udev->dma_epoch]++;
    return 0;
}

static void vfio_user_dma_end_windows(VFIOUserDevice *udev, VFIOUserDMA *dma)
{
    unsigned *nr = dma->opaque;

    QEMU_LOCK_GUARD(&udev->dma_lock);
    if (!--*nr) {
        qemu_cond_broadcast(&udev->dma_idle);
    }
}

static bool vfio_user_dma_wait_idle(VFIOUserDevice *udev, const unsigned *nr)
{
    int64_t begin = g_get_monotonic_time(), now = begin;
    int64_t end = begin + udev->timeout_ms * 1000ll;

    /* A command of a connection that failed does nothing any more. */
    while (*nr && !vfio_user_conn_broken(udev->conn) && now <= end) {
        /* Who should go on with the command may be waiting for our BQL. */
        qemu_mutex_unlock(&udev->dma_lock);
        vfio_user_device_serve(udev);
        qemu_mutex_lock(&udev->dma_lock);
        if (*nr) {
            qemu_cond_timedwait(&udev->dma_idle, &udev->dma_lock,
                                VFIO_USER_DMA_TICK_MS);
        }
        now = g_get_monotonic_time();
    }
    if (now > begin) {
        vfio_user_conn_count_bql(udev->conn, begin, end);
    }
    return now <= end;
}

/*
 * Commands that begin now count in the other epoch, so that a server that never
 * pauses is not waited for. One that does not send the rest of what it wants
 * to write loses its device.
 */
void vfio_user_dma_drain(VFIOUserDevice *udev)
{
    Error *err = NULL;

    WITH_QEMU_LOCK_GUARD(&udev->dma_lock) {
        unsigned *nr = &udev->nr_dma[udev->dma_epoch];

        udev->dma_epoch ^= 1;
        if (vfio_user_dma_wait_idle(udev, nr)) {
            return;
        }
    }
    error_setg(&err, "the server has begun DMA by message and not gone on with "
               "it for %u ms, while the guest takes the memory away",
               udev->timeout_ms);
    vfio_user_device_offline(udev, err);
}

/* Both --------------------------------------------------------------------- */

int vfio_user_dma_begin(VFIOUserDevice *udev, uint64_t addr, uint64_t count,
                        bool is_write, VFIOUserDMA *dma)
{
    int ret;

    RCU_READ_LOCK_GUARD();

    dma->nr_iov = 0;
    if (count > UINT64_MAX - addr) {
        return -EINVAL;
    }
    ret = vfio_user_dma_behind_iommu(udev) ?
          vfio_user_dma_begin_windows(udev, addr, count, is_write, dma) :
          vfio_user_dma_begin_direct(udev->as, addr, count, is_write, dma);
    if (ret) {
        vfio_user_dma_release(udev->as, dma, is_write, 0);
    }
    return ret;
}

void vfio_user_dma_end(VFIOUserDevice *udev, VFIOUserDMA *dma, bool is_write,
                       uint64_t done)
{
    vfio_user_dma_release(udev->as, dma, is_write, done);
    if (vfio_user_dma_behind_iommu(udev)) {
        vfio_user_dma_end_windows(udev, dma);
    }
}
