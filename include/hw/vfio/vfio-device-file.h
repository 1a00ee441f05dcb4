/*
 * The device file: what hw/vfio does to a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything that hw/vfio does to a device it does to a file descriptor, with
 * a handful of system calls. The kernel answers them from its own table of
 * operations; a device that is not in the kernel brings that table along.
 * hw/vfio calls the functions below in place of the system calls: they call
 * the device's table where there is one, and otherwise make the very system
 * call that stood there before, with the same arguments. Results and errno
 * are those of the system call in both cases, so that no caller has to know.
 *
 * Only the descriptor of the device itself is covered, and the one that its
 * migration data flow through. Descriptors of containers, groups and iommufd
 * belong to the IOMMU backend, which a device with a table names itself.
 */

#ifndef HW_VFIO_VFIO_DEVICE_FILE_H
#define HW_VFIO_VFIO_DEVICE_FILE_H

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/vfio.h>
#include "qemu/units.h"
#include "hw/vfio-user/compat.h"
#include "migration/qemu-file.h"

/*
 * Offsets in the device file carry the region's index in their upper bits, as
 * the kernel's vfio-pci lays its file out.
 */
#define VFIO_FILE_OFFSET_SHIFT          40
#define VFIO_FILE_OFFSET(index)                                             \
    ((off_t)(index) << VFIO_FILE_OFFSET_SHIFT)
#define VFIO_FILE_OFFSET_INDEX(off)                                         \
    ((uint64_t)(off) >> VFIO_FILE_OFFSET_SHIFT)
#define VFIO_FILE_OFFSET_MASK           ((1ULL << VFIO_FILE_OFFSET_SHIFT) - 1)

/**
 * VFIODeviceFileOps: operations of a device that is not in the kernel
 *
 * The table is set before the device is realized, constant, and outlives the
 * device. Each function is called where hw/vfio would have made a system call:
 * on a vCPU thread, the main thread or a migration thread; the caller holds
 * the BQL unless it is a migration thread (@mig_read and @mig_write, and
 * @ioctl for VFIO_DEVICE_FEATURE and VFIO_MIG_GET_PRECOPY_INFO). Each returns
 * what the system call would, and on failure -1 with errno set (@mmap:
 * MAP_FAILED).
 *
 * @iommu_type: QOM type of the container, a VFIOIOMMUClass
 *
 * @ioctl: a VFIO_DEVICE_* request, or VFIO_MIG_GET_PRECOPY_INFO, with its
 *     argument in the kernel's layout. Fails with ENOTTY on what it does not
 *     know.
 *
 * @pread, @pwrite: @len bytes at @off (region index in the upper bits).
 *     Return the number of bytes done.
 *
 * @mmap: as mmap(2) on the device file, with the region's own offset. The
 *     result is a mapping of this process, undone by munmap(2).
 *
 * @mig_read: up to @len bytes of device state; 0 at its end, ENOMSG when a
 *     device in pre-copy has none at the moment
 *
 * @mig_write: hand over @len bytes of device state; may do less, never 0
 */
typedef struct VFIODeviceFileOps {
    const char *iommu_type;
    int (*ioctl)(VFIODevice *vbasedev, unsigned long request, void *arg);
    ssize_t (*pread)(VFIODevice *vbasedev, void *buf, size_t len, off_t off);
    ssize_t (*pwrite)(VFIODevice *vbasedev, const void *buf, size_t len,
                      off_t off);
    void *(*mmap)(VFIODevice *vbasedev, void *addr, size_t len, int prot,
                  int flags, off_t off);
    ssize_t (*mig_read)(VFIODevice *vbasedev, void *buf, size_t len);
    ssize_t (*mig_write)(VFIODevice *vbasedev, const void *buf, size_t len);
} VFIODeviceFileOps;

static inline int vfio_file_ioctl(VFIODevice *vbasedev, unsigned long request,
                                  void *arg)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->ioctl(vbasedev, request, arg);
    }
    return ioctl(vbasedev->fd, request, arg);
}

static inline ssize_t vfio_file_pread(VFIODevice *vbasedev, void *buf,
                                      size_t len, off_t off)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->pread(vbasedev, buf, len, off);
    }
    return pread(vbasedev->fd, buf, len, off);
}

static inline ssize_t vfio_file_pwrite(VFIODevice *vbasedev, const void *buf,
                                       size_t len, off_t off)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->pwrite(vbasedev, buf, len, off);
    }
    return pwrite(vbasedev->fd, buf, len, off);
}

static inline void *vfio_file_mmap(VFIODevice *vbasedev, void *addr,
                                   size_t len, int prot, int flags, off_t off)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->mmap(vbasedev, addr, len, prot, flags, off);
    }
    return mmap(addr, len, prot, flags, vbasedev->fd, off);
}

static inline int vfio_file_mig_ioctl(VFIODevice *vbasedev,
                                      unsigned long request, void *arg)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->ioctl(vbasedev, request, arg);
    }
    return ioctl(vbasedev->migration->data_fd, request, arg);
}

static inline ssize_t vfio_file_mig_read(VFIODevice *vbasedev, void *buf,
                                         size_t len)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->mig_read(vbasedev, buf, len);
    }
    return read(vbasedev->migration->data_fd, buf, len);
}

static inline ssize_t vfio_file_mig_write(VFIODevice *vbasedev,
                                          const void *buf, size_t len)
{
    if (vbasedev->file_ops) {
        return vbasedev->file_ops->mig_write(vbasedev, buf, len);
    }
    return write(vbasedev->migration->data_fd, buf, len);
}

/**
 * vfio_file_mig_load: move device state from the migration stream to the device
 * @f: the stream
 * @size: bytes to move
 *
 * Returns 0 or -errno, as qemu_file_get_to_fd().
 */
static inline int vfio_file_mig_load(QEMUFile *f, VFIODevice *vbasedev,
                                     size_t size)
{
    g_autofree uint8_t *buf = NULL;

    if (!vbasedev->file_ops) {
        return qemu_file_get_to_fd(f, vbasedev->migration->data_fd, size);
    }

    buf = g_malloc(MIN(size, 1 * MiB));
    while (size) {
        size_t len = MIN(size, 1 * MiB);
        size_t off;
        ssize_t done;

        if (qemu_get_buffer(f, buf, len) != len) {
            return qemu_file_get_error(f) ?: -EIO;
        }
        for (off = 0; off < len; off += done) {
            done = vfio_file_mig_write(vbasedev, buf + off, len - off);
            if (done <= 0) {
                return done ? -errno : -EIO;
            }
        }
        size -= len;
    }
    return 0;
}

/**
 * vfio_file_get_info: VFIO_DEVICE_GET_INFO with its capabilities
 *
 * A device with a table has no capabilities in its information, so the fixed
 * part is all there is to ask for. Returns memory for g_free(), NULL on
 * failure.
 */
static inline struct vfio_device_info *vfio_file_get_info(VFIODevice *vbasedev)
{
    struct vfio_device_info *info;

    if (!vbasedev->file_ops) {
        return vfio_get_device_info(vbasedev->fd);
    }
    info = g_new0(struct vfio_device_info, 1);
    info->argsz = sizeof(*info);
    if (vbasedev->file_ops->ioctl(vbasedev, VFIO_DEVICE_GET_INFO, info)) {
        g_free(info);
        return NULL;
    }
    return info;
}

#endif /* HW_VFIO_VFIO_DEVICE_FILE_H */
