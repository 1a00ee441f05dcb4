/*
 * vfio-user: fuzzing a device, from its negotiation on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The client without QEMU's machine: what realize does, then what a guest, a
 * migration and an unplug do through the table that hw/vfio calls, with a
 * server (device-peer.c) that goes astray where the input says so.
 *
 * Input: number of operations, that many operations of 4 bytes, the server's
 * bytes.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "hw/vfio-user/device.h"
#include "device-peer.h"

/*
 * A command that is not answered costs as much. In a test the good server has
 * to be in time on a busy machine, too, or the input does not get to its point.
 */
#ifdef CONFIG_FUZZ
#define TIMEOUT_MS      4
#else
#define TIMEOUT_MS      20
#endif
#define MAX_OPS         16
#define RAM_SIZE        128

typedef struct FuzzOp {
    uint8_t what;
    uint8_t a;
    uint8_t b;
    uint8_t c;
} FuzzOp;

static VFIOUserDevice *the_device;
static VFIODevice the_vbasedev;
static uint8_t the_ram[RAM_SIZE];
static unsigned nr_mapped;

VFIOUserDevice *vfio_user_device_of(VFIODevice *vbasedev)
{
    return the_device;
}

/* In place of dma.c: memory from 0 to RAM_SIZE */
int vfio_user_dma_begin(VFIOUserDevice *udev, uint64_t addr, uint64_t count,
                        bool is_write, VFIOUserDMA *dma)
{
    if (addr > RAM_SIZE || count > RAM_SIZE - addr) {
        return -EFAULT;
    }
    dma->iov[0] = (struct iovec) { the_ram + addr, count };
    dma->nr_iov = 1;
    qatomic_inc(&nr_mapped);
    return 0;
}

void vfio_user_dma_end(VFIOUserDevice *udev, VFIOUserDMA *dma, bool is_write,
                       uint64_t done)
{
    qatomic_dec(&nr_mapped);
}

/* Operations --------------------------------------------------------------- */

static int device_ioctl(unsigned long request, void *arg)
{
    return vfio_user_device_file_ops.ioctl(&the_vbasedev, request, arg);
}

static void op_access(const FuzzOp *op)
{
    bool write = op->what & 0x80;
    off_t off = VFIO_FILE_OFFSET(op->a % 10) + op->b * 16;
    size_t len = op->c + 1;
    g_autofree uint8_t *buf = g_malloc0(len);
    ssize_t ret = write ?
        vfio_user_device_file_ops.pwrite(&the_vbasedev, buf, len, off) :
        vfio_user_device_file_ops.pread(&the_vbasedev, buf, len, off);

    /* A guest gets all-ones, never an error. */
    g_assert_true(ret == len || (ret == -1 && !the_device->ready));
}

static void op_irqs(const FuzzOp *op)
{
    static const uint32_t flags[] = {
        VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK,
        VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
        VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
        VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK,
    };
    unsigned which = op->a % ARRAY_SIZE(flags);
    /* With descriptors hw/vfio always names at least one vector. */
    unsigned count = which < 2 ? 1 + op->c % 8 : op->c % 8;
    size_t size = sizeof(struct vfio_irq_set) + count * sizeof(int);
    g_autofree struct vfio_irq_set *set = g_malloc0(size);
    EventNotifier event;

    g_assert_cmpint(event_notifier_init(&event, false), ==, 0);
    set->argsz = size;
    set->flags = flags[which];
    set->index = op->b % 6;
    set->start = op->b >> 6;
    set->count = count;
    for (unsigned i = 0; i < count; i++) {
        int fd = op->a & (8 << i % 4) ? -1 : event_notifier_get_fd(&event);

        memcpy(set->data + i * sizeof(int), &fd, sizeof(fd));
    }
    device_ioctl(VFIO_DEVICE_SET_IRQS, set);
    event_notifier_cleanup(&event);
}

static void op_feature(const FuzzOp *op)
{
    uint64_t buf[4] = { };
    struct vfio_device_feature *feature = (void *)buf;
    struct vfio_device_feature_mig_state state = {
        .device_state = op->b % 8,
    };

    feature->argsz = op->c & 1 ? 8 : sizeof(buf);
    switch (op->a % 4) {
    case 0:
        feature->flags = VFIO_DEVICE_FEATURE_GET |
                         VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;
        break;
    case 1:
        feature->flags = VFIO_DEVICE_FEATURE_GET |
                         VFIO_DEVICE_FEATURE_MIGRATION;
        break;
    default:
        feature->flags = VFIO_DEVICE_FEATURE_SET |
                         VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        memcpy(feature->data, &state, sizeof(state));
        break;
    }
    device_ioctl(VFIO_DEVICE_FEATURE, feature);
}

static void op_stream(const FuzzOp *op)
{
    size_t len = op->a + op->b * 64 + 1;
    g_autofree uint8_t *buf = g_malloc0(len);
    struct vfio_precopy_info info = { .argsz = sizeof(info) };
    ssize_t ret;

    switch (op->c % 3) {
    case 0:
        ret = vfio_user_device_file_ops.mig_read(&the_vbasedev, buf, len);
        g_assert_cmpint(ret, >=, -1);
        g_assert_cmpint(ret, <=, (ssize_t)len);
        break;
    case 1:
        ret = vfio_user_device_file_ops.mig_write(&the_vbasedev, buf, len);
        g_assert_true(ret == -1 || (ret > 0 && ret <= len));
        break;
    default:
        device_ioctl(VFIO_MIG_GET_PRECOPY_INFO, &info);
    }
}

static void op_region(const FuzzOp *op)
{
    size_t size = sizeof(struct vfio_region_info) + op->b;
    g_autofree struct vfio_region_info *info = g_malloc0(size);
    size_t len = (op->c % 4 + 1) * 4096;
    void *mem;

    info->argsz = size;
    info->index = op->a % 10;
    device_ioctl(VFIO_DEVICE_GET_REGION_INFO, info);
    mem = vfio_user_device_file_ops.mmap(&the_vbasedev, NULL, len, PROT_READ,
                                         MAP_SHARED,
                                         VFIO_FILE_OFFSET(op->a % 10) +
                                         (op->c >> 4) * 4096);
    if (mem != MAP_FAILED) {
        munmap(mem, len);
    }
}

static void op_info(const FuzzOp *op)
{
    struct vfio_device_info info = { .argsz = sizeof(info) };
    struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = op->a % 6 };

    g_assert_cmpint(device_ioctl(VFIO_DEVICE_GET_INFO, &info), ==, 0);
    g_assert_cmpint(info.num_regions, <=, VFIO_USER_MAX_REGIONS);
    device_ioctl(VFIO_DEVICE_GET_IRQ_INFO, &irq);
}

static void device_op(const FuzzOp *op)
{
    Error *err = NULL;

    switch (op->what % 10) {
    case 0:
    case 1:
        op_access(op);
        break;
    case 2:
        op_irqs(op);
        break;
    case 3:
        op_feature(op);
        break;
    case 4:
        op_stream(op);
        break;
    case 5:
        op_region(op);
        break;
    case 6:
        op_info(op);
        break;
    case 7:
        the_device->ready = true;
        break;
    case 8:
        device_ioctl(VFIO_DEVICE_RESET, NULL);
        break;
    default:
        if (op->a == 0xff) {
            error_setg(&err, "given up");
            vfio_user_device_offline(the_device, err);
        }
        aio_poll(qemu_get_aio_context(), false);
    }
}

static void device_use(const FuzzOp *ops, unsigned nr)
{
    Error *err = NULL;
    bool ok;

    vfio_user_device_set_memory(the_device, (AddressSpace *)the_ram);
    ok = vfio_user_migration_probe(the_device, &err);
    fuzz_check_error(ok, err);
    for (unsigned i = 0; i < nr; i++) {
        device_op(&ops[i]);
    }
    vfio_user_device_close(the_device);
    g_assert_true(vfio_user_conn_broken(the_device->conn));
    vfio_user_device_unref(the_device);
    the_device = NULL;
}

void fuzz_device(FuzzInput *in)
{
    unsigned nr = fuzz_u8(in) % (MAX_OPS + 1);
    FuzzOp ops[MAX_OPS];
    FuzzPeer *peer;
    Error *err = NULL;
    int fd[2];
    bool ok;

    fuzz_take(in, ops, nr * sizeof(ops[0]));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), ==,
                    0);
    peer = fuzz_peer_start(fd[1], in);
    the_device = vfio_user_device_new(fd[0], "fuzz", qemu_get_aio_context(),
                                      TIMEOUT_MS, NULL);
    ok = vfio_user_device_negotiate(the_device, qemu_get_aio_context(), 0, true,
                                    &err);
    fuzz_check_error(ok, err);
    if (ok) {
        device_use(ops, nr);
    } else {
        vfio_user_device_close(the_device);
        vfio_user_device_unref(the_device);
    }
    fuzz_peer_join(peer);
    /* Bottom halves that the connections left behind */
    while (aio_poll(qemu_get_aio_context(), false)) {
        continue;
    }
    g_assert_cmpint(nr_mapped, ==, 0);
}
