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
 * repeated, and the device goes offline. So it does when the host's memory behind
 * that page has failed. Any other SIGBUS goes to whoever handled it before.
 *
 * A SIGBUS that is blocked kills at once, handler or not, and QEMU blocks it in
 * all its threads but KVM's vCPUs. So as long as there is a mapping it is opened in
 * the threads that touch mapped regions by themselves: the main thread, the vCPUs
 * and the IOThreads, also those that come later (when a device is plugged that
 * could use them), and closed again where it was opened when the last mapping is
 * gone. Not covered: threads of other kinds, which do not touch registers of a
 * device by loads and stores (a thread pool's do by system call, which fails). A
 * KVM guest's own access is no signal: KVM_RUN fails, and QEMU stops that VM with
 * an internal error. x-no-mmap=on is the remedy where a server is not trusted that
 * far.
 *
 * Memory errors of the host (BUS_MCEERR_AO) come to the main thread. QEMU blocks
 * SIGBUS there and reads a signalfd, since it takes locks to handle them. With the
 * signal open one can come in the middle of anything, also with these locks held.
 * So the handler only writes it down, and the main loop hands it to QEMU's as it
 * would have done. One that has to be acted on (BUS_MCEERR_AR) outside of a vCPU
 * and of our mappings ends QEMU, as it does where SIGBUS is blocked.
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
#include "hw/qdev-core.h"
#include "block/aio.h"
#include "system/iothread.h"
#include "sigbus.h"

/* Mappings of all devices together. */
#define VFIO_USER_SIGBUS_MAX    4096
/* Memory errors between two turns of the main loop; more say nothing new. */
#define VFIO_USER_SIGBUS_ERRORS 16

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
static bool vfio_user_sigbus_will_mind;

/* Written by the main thread's handler, read by its main loop */
static siginfo_t vfio_user_sigbus_errors[VFIO_USER_SIGBUS_ERRORS];
static unsigned vfio_user_sigbus_nr_errors;
static unsigned vfio_user_sigbus_nr_told;

static __thread bool vfio_user_sigbus_opened;

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

static bool vfio_user_sigbus_is_main(void)
{
    return qemu_get_thread_id() == getpid();
}

/* In the main thread. The main loop goes on with it. */
static void vfio_user_sigbus_put_off(const siginfo_t *info)
{
    unsigned nr = vfio_user_sigbus_nr_errors;

    if (nr - qatomic_read(&vfio_user_sigbus_nr_told) <
        VFIO_USER_SIGBUS_ERRORS) {
        vfio_user_sigbus_errors[nr % VFIO_USER_SIGBUS_ERRORS] = *info;
        qatomic_store_release(&vfio_user_sigbus_nr_errors, nr + 1);
    }
    event_notifier_set(&vfio_user_sigbus_event);
}

static void vfio_user_sigbus_pass_on(int sig, siginfo_t *info, void *context)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };

    if (info->si_code == BUS_MCEERR_AO && vfio_user_sigbus_is_main()) {
        vfio_user_sigbus_put_off(info);
    } else if (info->si_code == BUS_MCEERR_AR && !current_cpu) {
        /* Ends us when the instruction is repeated. */
        sigaction(SIGBUS, &dfl, NULL);
    } else if (vfio_user_sigbus_before.sa_flags & SA_SIGINFO) {
        vfio_user_sigbus_before.sa_sigaction(sig, info, context);
    } else {
        sigaction(SIGBUS, &vfio_user_sigbus_before, NULL);
    }
}

static void vfio_user_sigbus_handler(int sig, siginfo_t *info, void *context)
{
    int saved = errno;
    bool ours = info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR;

    if (!ours || !vfio_user_sigbus_handled((uintptr_t)info->si_addr)) {
        vfio_user_sigbus_pass_on(sig, info, context);
    }
    errno = saved;
}

/* Threads ---------------------------------------------------------------------- */

/* Open or close the signal in this thread, as there are mappings or not. */
static void vfio_user_sigbus_mind_thread(void)
{
    bool open = qatomic_read(&vfio_user_sigbus_ready);
    sigset_t set, was;

    if (open == vfio_user_sigbus_opened) {
        return;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(open ? SIG_UNBLOCK : SIG_BLOCK, &set, &was);
    /* Where it was open before it stays so. */
    vfio_user_sigbus_opened = open && sigismember(&was, SIGBUS);
}

static void vfio_user_sigbus_mind_vcpu(CPUState *cpu, run_on_cpu_data data)
{
    vfio_user_sigbus_mind_thread();
}

static void vfio_user_sigbus_mind_ctx(void *opaque)
{
    vfio_user_sigbus_mind_thread();
}

static int vfio_user_sigbus_mind_iothread(Object *obj, void *opaque)
{
    IOThread *iothread = (IOThread *)object_dynamic_cast(obj, TYPE_IOTHREAD);

    if (iothread) {
        aio_bh_schedule_oneshot(iothread_get_aio_context(iothread),
                                vfio_user_sigbus_mind_ctx, NULL);
    }
    return 0;
}

/* Main thread */
static void vfio_user_sigbus_mind_all(void)
{
    CPUState *cpu;

    vfio_user_sigbus_mind_thread();
    CPU_FOREACH(cpu) {
        async_run_on_cpu(cpu, vfio_user_sigbus_mind_vcpu, RUN_ON_CPU_NULL);
    }
    object_child_foreach_recursive(object_get_objects_root(),
                                   vfio_user_sigbus_mind_iothread, NULL);
    object_child_foreach_recursive(object_get_internal_root(),
                                   vfio_user_sigbus_mind_iothread, NULL);
}

static void vfio_user_sigbus_cleanup(void);

static void vfio_user_sigbus_mind_bh(void *opaque)
{
    vfio_user_sigbus_will_mind = false;
    for (unsigned i = 0; i < vfio_user_sigbus_used; i++) {
        if (vfio_user_sigbus_table[i].len) {
            vfio_user_sigbus_mind_all();
            return;
        }
    }
    vfio_user_sigbus_cleanup();
}

/* Have the main thread look after all threads, or clean up. BQL. */
static void vfio_user_sigbus_mind_soon(void)
{
    if (!vfio_user_sigbus_will_mind) {
        vfio_user_sigbus_will_mind = true;
        aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                vfio_user_sigbus_mind_bh, NULL);
    }
}

/* It may be a vCPU, or make use of an IOThread. */
static void vfio_user_sigbus_plugged(DeviceListener *listener, DeviceState *dev)
{
    vfio_user_sigbus_mind_soon();
}

static DeviceListener vfio_user_sigbus_listener = {
    .realize = vfio_user_sigbus_plugged,
};

/* The rest, in the main loop --------------------------------------------------- */

static void vfio_user_sigbus_tell_errors(void)
{
    while (vfio_user_sigbus_nr_told !=
           qatomic_load_acquire(&vfio_user_sigbus_nr_errors)) {
        siginfo_t info = vfio_user_sigbus_errors[vfio_user_sigbus_nr_told %
                                                 VFIO_USER_SIGBUS_ERRORS];

        qatomic_store_release(&vfio_user_sigbus_nr_told,
                              vfio_user_sigbus_nr_told + 1);
        /* As util/main-loop.c does with what the signalfd says. */
        if (vfio_user_sigbus_before.sa_flags & SA_SIGINFO) {
            vfio_user_sigbus_before.sa_sigaction(SIGBUS, &info, NULL);
        } else if (vfio_user_sigbus_before.sa_handler != SIG_DFL &&
                   vfio_user_sigbus_before.sa_handler != SIG_IGN) {
            vfio_user_sigbus_before.sa_handler(SIGBUS);
        }
    }
}

static void vfio_user_sigbus_report(EventNotifier *e)
{
    event_notifier_test_and_clear(e);
    vfio_user_sigbus_tell_errors();
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
    qatomic_set(&vfio_user_sigbus_ready, true);
    device_listener_register(&vfio_user_sigbus_listener);
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
    if (vfio_user_sigbus_is_main()) {
        vfio_user_sigbus_mind_all();
    } else {
        vfio_user_sigbus_mind_soon();
    }
}

/* The last mapping is gone: leave everything as it was found. Main thread. */
static void vfio_user_sigbus_cleanup(void)
{
    struct sigaction now;

    if (!vfio_user_sigbus_ready) {
        return;
    }
    device_listener_unregister(&vfio_user_sigbus_listener);
    qatomic_set(&vfio_user_sigbus_ready, false);
    vfio_user_sigbus_mind_all();
    sigaction(SIGBUS, NULL, &now);
    if (now.sa_flags & SA_SIGINFO &&
        now.sa_sigaction == vfio_user_sigbus_handler) {
        sigaction(SIGBUS, &vfio_user_sigbus_before, NULL);
    }
    vfio_user_sigbus_tell_errors();
    event_notifier_set_handler(&vfio_user_sigbus_event, NULL);
    event_notifier_cleanup(&vfio_user_sigbus_event);
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
    if (!any && vfio_user_sigbus_is_main()) {
        vfio_user_sigbus_cleanup();
    } else if (!any) {
        vfio_user_sigbus_mind_soon();
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
