/*
 * vfio-user: mapped regions whose file is cut short
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A server maps a part of its device into QEMU by a descriptor. It still owns
 * the file, and can truncate it at any time, seals being rare. The next access
 * then is a SIGBUS, which ends QEMU: the very thing that a server must not be
 * able to do. Checking the size before (device-ops.c) does not help against later.
 *
 * So the signal is handled: when the address lies in a mapping of a server's, a
 * page of ones takes the place of the one that is missing, the instruction is
 * repeated, and the device goes offline. Any other SIGBUS goes to whoever handled
 * it before.
 *
 * QEMU blocks SIGBUS in all its threads, and a SIGBUS that is blocked kills at
 * once, handler or not. It is unblocked in the threads that touch mapped regions
 * by themselves: the main thread and the vCPUs. (Memory errors of the host, which
 * QEMU waits for with a signalfd, reach the same handler directly then.) A KVM
 * guest's own access is no signal: KVM_RUN fails, and QEMU stops that VM with an
 * internal error. x-no-mmap=on is the remedy where a server is not trusted that
 * far.
 *
 * The table is read by a signal handler in any thread while the main thread
 * changes it. An entry is valid while @len is not 0, and is written before that
 * is set. mmap() and write() are what the handler calls; neither takes a lock of
 * the C library.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "hw/core/cpu.h"
#include "sigbus.h"

/* Mappings of all devices together. */
#define VFIO_USER_SIGBUS_MAX    4096

typedef struct VFIOUserMapping {
    uintptr_t start;
    size_t len;
    VFIOUserDevice *udev;
    bool hit;
} VFIOUserMapping;

static VFIOUserMapping vfio_user_sigbus_table[VFIO_USER_SIGBUS_MAX];
static unsigned vfio_user_sigbus_used;      /* entries from here on never were */
static EventNotifier vfio_user_sigbus_event;
static struct sigaction vfio_user_sigbus_before;
static bool vfio_user_sigbus_ready;

/* The signal ------------------------------------------------------------------- */

static bool vfio_user_sigbus_patch(const VFIOUserMapping *mapping,
                                   uintptr_t addr)
{
    size_t size = qemu_real_host_page_size();
    void *page = (void *)(addr & -size);
    int prot = PROT_READ | PROT_WRITE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

    if (mmap(page, size, prot, flags, -1, 0) == page) {
        memset(page, 0xff, size);
        return true;
    }
    /* Huge pages cannot be replaced one small page at a time. */
    return mmap((void *)mapping->start, mapping->len, prot, flags, -1, 0) !=
           MAP_FAILED;
}

static bool vfio_user_sigbus_handled(uintptr_t addr)
{
    unsigned used = qatomic_load_acquire(&vfio_user_sigbus_used);

    for (unsigned i = 0; i < used; i++) {
        VFIOUserMapping *mapping = &vfio_user_sigbus_table[i];
        size_t len = qatomic_load_acquire(&mapping->len);

        if (len && addr - mapping->start < len) {
            if (!vfio_user_sigbus_patch(mapping, addr)) {
                return false;
            }
            qatomic_set(&mapping->hit, true);
            event_notifier_set(&vfio_user_sigbus_event);
            return true;
        }
    }
    return false;
}

static void vfio_user_sigbus_handler(int sig, siginfo_t *info, void *context)
{
    int saved = errno;

    if (info->si_code == BUS_ADRERR &&
        vfio_user_sigbus_handled((uintptr_t)info->si_addr)) {
        errno = saved;
    } else if (vfio_user_sigbus_before.sa_flags & SA_SIGINFO) {
        vfio_user_sigbus_before.sa_sigaction(sig, info, context);
    } else {
        /* Ends us when the instruction is repeated. */
        sigaction(SIGBUS, &vfio_user_sigbus_before, NULL);
    }
}

static void vfio_user_sigbus_unblock(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void vfio_user_sigbus_unblock_vcpu(CPUState *cpu, run_on_cpu_data data)
{
    vfio_user_sigbus_unblock();
}

/* The rest, in the main loop --------------------------------------------------- */

static void vfio_user_sigbus_report(EventNotifier *e)
{
    event_notifier_test_and_clear(e);
    for (unsigned i = 0; i < vfio_user_sigbus_used; i++) {
        VFIOUserMapping *mapping = &vfio_user_sigbus_table[i];
        Error *err = NULL;

        if (mapping->len && qatomic_xchg(&mapping->hit, false)) {
            error_setg(&err, "the server has cut short the file behind a "
                       "mapped region");
            vfio_user_device_offline(mapping->udev, err);
        }
    }
}

static bool vfio_user_sigbus_init(void)
{
    struct sigaction action = {
        .sa_sigaction = vfio_user_sigbus_handler,
        .sa_flags = SA_SIGINFO,
    };

    if (vfio_user_sigbus_ready) {
        return true;
    }
    if (event_notifier_init(&vfio_user_sigbus_event, false)) {
        return false;
    }
    event_notifier_set_handler(&vfio_user_sigbus_event,
                               vfio_user_sigbus_report);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &vfio_user_sigbus_before);
    vfio_user_sigbus_unblock();
    vfio_user_sigbus_ready = true;
    return true;
}

static VFIOUserMapping *vfio_user_sigbus_slot(void)
{
    for (unsigned i = 0; i < VFIO_USER_SIGBUS_MAX; i++) {
        if (!vfio_user_sigbus_table[i].len) {
            return &vfio_user_sigbus_table[i];
        }
    }
    return NULL;
}

void vfio_user_sigbus_add(VFIOUserDevice *udev, void *addr, size_t len)
{
    VFIOUserMapping *mapping = vfio_user_sigbus_slot();
    unsigned used;
    CPUState *cpu;

    if (!mapping || !vfio_user_sigbus_init()) {
        warn_report_once("vfio-user-pci %s: too many mapped regions: a server "
                         "that cuts the file behind one short can end QEMU",
                         udev->name);
        return;
    }
    mapping->start = (uintptr_t)addr;
    mapping->udev = udev;
    qatomic_set(&mapping->hit, false);
    qatomic_store_release(&mapping->len, len);
    used = mapping - vfio_user_sigbus_table + 1;
    if (used > vfio_user_sigbus_used) {
        qatomic_store_release(&vfio_user_sigbus_used, used);
    }
    CPU_FOREACH(cpu) {
        async_run_on_cpu(cpu, vfio_user_sigbus_unblock_vcpu,
                         RUN_ON_CPU_NULL);
    }
}

/* The last mapping is gone: leave everything as it was found. */
static void vfio_user_sigbus_cleanup(void)
{
    struct sigaction now;

    if (!vfio_user_sigbus_ready) {
        return;
    }
    sigaction(SIGBUS, NULL, &now);
    if (now.sa_flags & SA_SIGINFO &&
        now.sa_sigaction == vfio_user_sigbus_handler) {
        sigaction(SIGBUS, &vfio_user_sigbus_before, NULL);
    }
    event_notifier_set_handler(&vfio_user_sigbus_event, NULL);
    event_notifier_cleanup(&vfio_user_sigbus_event);
    vfio_user_sigbus_ready = false;
}

/* Those of @udev, or the one at @addr. */
static void vfio_user_sigbus_drop(VFIOUserDevice *udev, void *addr)
{
    bool any = false;

    for (unsigned i = 0; i < vfio_user_sigbus_used; i++) {
        VFIOUserMapping *mapping = &vfio_user_sigbus_table[i];

        if (mapping->len && (mapping->udev == udev ||
                             mapping->start == (uintptr_t)addr)) {
            qatomic_set(&mapping->len, 0);
            mapping->udev = NULL;
        }
        any |= mapping->len;
    }
    if (!any) {
        vfio_user_sigbus_cleanup();
    }
}

void vfio_user_sigbus_remove(VFIOUserDevice *udev)
{
    vfio_user_sigbus_drop(udev, NULL);
}

void vfio_user_sigbus_forget(void *addr)
{
    vfio_user_sigbus_drop(NULL, addr);
}
