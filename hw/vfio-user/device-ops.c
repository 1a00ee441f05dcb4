/*
 * vfio-user: the operations table of a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What hw/vfio calls in place of system calls on a device's file. Each function
 * answers from what negotiate.c learnt, or turns the call into a command, and
 * returns as the system call does: within hw/vfio-user an error is -errno, and
 * here it becomes -1 with errno set. Accesses are in device-access.c,
 * interrupts in irqs.c, migration in migration.c and stream.c.
 */

#include "qemu/osdep.h"
#include "device-int.h"
#include "sigbus.h"
#include "system/runstate.h"
#include "trace.h"

/* Mapped areas ------------------------------------------------------------- */

/* Of a file that ends too early; one that is cut short later: sigbus.c. */
bool vfio_user_device_fd_covers(int fd, uint64_t off, uint64_t len)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return false;
    }
    return !S_ISREG(st.st_mode) ||
           (len <= st.st_size && off <= st.st_size - len);
}

static void *vfio_user_device_map(VFIOUserDevice *udev, void *addr, size_t len,
                                  int prot, int flags, off_t off)
{
    VFIOUserRegion *region =
        vfio_user_device_range(udev, off, len, VFIO_USER_REGION_MMAP);
    uint64_t fd_off;

    if (!region) {
        return MAP_FAILED;
    }
    fd_off = region->info.offset + (off & VFIO_FILE_OFFSET_MASK);
    if (!vfio_user_device_fd_covers(region->fd, fd_off, len)) {
        vfio_user_warn_limited(&udev->map_said, "vfio-user-pci %s: region %"
                               PRIu64 " cannot be mapped: the file behind it "
                               "ends before 0x%" PRIx64 "; it is accessed by "
                               "messages", udev->name,
                               VFIO_FILE_OFFSET_INDEX(off), fd_off + len);
        errno = EINVAL;
        return MAP_FAILED;
    }
    return mmap(addr, len, prot, flags, region->fd, fd_off);
}

static void *vfio_user_device_mmap(VFIODevice *vbasedev, void *addr,
                                   size_t len, int prot, int flags, off_t off)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);
    void *ret = vfio_user_device_map(udev, addr, len, prot, flags, off);

    if (ret != MAP_FAILED) {
        vfio_user_sigbus_add(udev, ret, len);
    }
    return ret;
}

int vfio_user_device_remap(VFIOUserDevice *udev, void *addr, size_t len,
                           int prot, off_t off)
{
    void *ret = vfio_user_device_map(udev, addr, len, prot,
                                     MAP_SHARED | MAP_FIXED, off);

    return ret == MAP_FAILED ? -errno : 0;
}

/* Information -------------------------------------------------------------- */

static int vfio_user_device_get_info(VFIOUserDevice *udev,
                                     struct vfio_device_info *info)
{
    if (info->argsz < offsetof(struct vfio_device_info, cap_offset)) {
        return -EINVAL;
    }
    info->flags = udev->info.flags;
    info->num_regions = udev->info.num_regions;
    info->num_irqs = udev->info.num_irqs;
    return 0;
}

static int vfio_user_device_get_region_info(VFIOUserDevice *udev,
                                            struct vfio_region_info *info)
{
    VFIOUserRegion *region = vfio_user_device_region(udev, info->index);

    if (!region || info->argsz < sizeof(*info)) {
        return -EINVAL;
    }
    vfio_user_wire_region_info_to_vfio(&region->info,
                                       VFIO_FILE_OFFSET(info->index), info);
    return 0;
}

static int vfio_user_device_get_irq_info(VFIOUserDevice *udev,
                                         struct vfio_irq_info *info)
{
    const struct vfio_user_irq_info *known;

    if (info->argsz < sizeof(*info) || info->index >= VFIO_USER_IRQ_MAX) {
        return -EINVAL;
    }
    known = &udev->irqs[info->index].info;
    /* As the kernel: a device without error reporting does not have it. */
    if (info->index == VFIO_USER_IRQ_ERR && !known->count) {
        return -EINVAL;
    }
    info->flags = known->flags;
    info->count = known->count;
    return 0;
}

/* Reset -------------------------------------------------------------------- */

static void vfio_user_device_reset_done(VFIOUserRequest *req)
{
    g_free(req);
}

/*
 * For a server that has just failed to answer a change of state: it gets to
 * know, but nobody waits as long once more.
 */
static void vfio_user_device_reset_later(VFIOUserDevice *udev)
{
    VFIOUserRequest *req = g_new0(VFIOUserRequest, 1);

    req->command = VFIO_USER_DEVICE_RESET;
    req->done = vfio_user_device_reset_done;
    vfio_user_conn_submit(udev->conn, req);
    vfio_user_migration_reset(udev, 0);
    vfio_user_irqs_was_reset(udev);
}

bool vfio_user_device_vm_has_run(void)
{
    return !runstate_check(RUN_STATE_PRELAUNCH) &&
           !runstate_check(RUN_STATE_INMIGRATE) &&
           !runstate_check(RUN_STATE_RESTORE_VM);
}

/*
 * VM and monitors stand still meanwhile. Its server has the time of one message; one
 * that lets it pass is not waited for again before it has said something.
 */
static int vfio_user_device_call_reset(VFIOUserDevice *udev)
{
    VFIOUserRequest req = { .command = VFIO_USER_DEVICE_RESET };

    if (vfio_user_device_vm_has_run()) {
        return vfio_user_device_call_once(udev, &req);
    }
    req.timeout_ms = vfio_user_migration_timeout(udev);
    return vfio_user_conn_call(udev->conn, &req);
}

static int vfio_user_device_reset(VFIOUserDevice *udev)
{
    VFIO_USER_BQL_SCOPE(vfio_user_device_vm_has_run() ?
                        VFIO_USER_BQL_RESET : VFIO_USER_BQL_EARLY_RESET);
    bool owed;
    int ret;

    if (vfio_user_device_link(udev) != VFIO_USER_LINK_UP) {
        udev->missed_reset = true;
        vfio_user_migration_reset(udev, -EPIPE);
        return 0;
    }
    if (vfio_user_migration_hung(udev) || vfio_user_conn_stuck(udev->conn)) {
        vfio_user_device_reset_later(udev);
        return 0;
    }
    vfio_user_migration_resetting(udev);
    ret = vfio_user_device_call_reset(udev);
    udev->missed_reset |= ret == -EPIPE;
    trace_vfio_user_device_reset(udev->name, ret);
    owed = vfio_user_migration_reset(udev, ret);
    vfio_user_irqs_was_reset(udev);
    if (ret && ret != -EPIPE && !owed) {
        vfio_user_warn_limited(&udev->reset_said, "vfio-user-pci %s: reset "
                               "failed: %s", udev->name, strerror(-ret));
    }
    /* There is nothing else that hw/vfio could try. */
    return 0;
}

/* The table ---------------------------------------------------------------- */

static int vfio_user_device_ioctl(VFIODevice *vbasedev, unsigned long request,
                                  void *arg)
{
    VFIOUserDevice *udev = vfio_user_device_of(vbasedev);

    switch (request) {
    case VFIO_DEVICE_GET_INFO:
        return vfio_user_device_errno(vfio_user_device_get_info(udev, arg));
    case VFIO_DEVICE_GET_REGION_INFO:
        return vfio_user_device_errno(
            vfio_user_device_get_region_info(udev, arg));
    case VFIO_DEVICE_GET_IRQ_INFO:
        return vfio_user_device_errno(
            vfio_user_device_get_irq_info(udev, arg));
    case VFIO_DEVICE_SET_IRQS:
        return vfio_user_device_errno(vfio_user_irqs_set(udev, arg));
    case VFIO_DEVICE_RESET:
        return vfio_user_device_errno(vfio_user_device_reset(udev));
    case VFIO_DEVICE_FEATURE:
        return vfio_user_device_errno(vfio_user_migration_feature(udev, arg));
    case VFIO_MIG_GET_PRECOPY_INFO:
        return vfio_user_device_errno(
            vfio_user_stream_precopy_info(udev, arg));
    default:
        return vfio_user_device_errno(-ENOTTY);
    }
}

/* As vfio_user_device_errno(), for counts of bytes. */
static ssize_t vfio_user_device_count(ssize_t ret)
{
    return ret >= 0 ? ret : vfio_user_device_errno(ret);
}

static ssize_t vfio_user_device_mig_read(VFIODevice *vbasedev, void *buf,
                                         size_t len)
{
    return vfio_user_device_count(
        vfio_user_stream_read(vfio_user_device_of(vbasedev), buf, len));
}

static ssize_t vfio_user_device_mig_write(VFIODevice *vbasedev,
                                          const void *buf, size_t len)
{
    return vfio_user_device_count(
        vfio_user_stream_write(vfio_user_device_of(vbasedev), buf, len));
}

const VFIODeviceFileOps vfio_user_device_file_ops = {
    .iommu_type = "vfio-iommu-user",
    .ioctl = vfio_user_device_ioctl,
    .pread = vfio_user_device_pread,
    .pwrite = vfio_user_device_pwrite,
    .mmap = vfio_user_device_mmap,
    .mig_read = vfio_user_device_mig_read,
    .mig_write = vfio_user_device_mig_write,
};
