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
 */

#include "qemu/osdep.h"
#include "exec/memory.h"
#include "exec/address-spaces.h"
#include "qemu/rcu.h"
#include "device.h"

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

int vfio_user_dma_begin(AddressSpace *as, uint64_t addr, uint64_t count,
                        bool is_write, VFIOUserDMA *dma)
{
    RCU_READ_LOCK_GUARD();

    dma->nr_iov = 0;
    if (count > UINT64_MAX - addr) {
        return -EINVAL;
    }
    while (count) {
        hwaddr xlat, len = count;
        MemoryRegion *mr = address_space_translate(as, addr, &xlat, &len,
                                                   is_write,
                                                   MEMTXATTRS_UNSPECIFIED);

        if (!memory_access_is_direct(mr, is_write, MEMTXATTRS_UNSPECIFIED)) {
            vfio_user_dma_release(as, dma, is_write, 0);
            return -EFAULT;
        }
        if (dma->nr_iov == ARRAY_SIZE(dma->iov)) {
            vfio_user_dma_release(as, dma, is_write, 0);
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

void vfio_user_dma_end(AddressSpace *as, VFIOUserDMA *dma, bool is_write,
                       uint64_t done)
{
    vfio_user_dma_release(as, dma, is_write, done);
}
