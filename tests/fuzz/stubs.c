/*
 * vfio-user: what the client needs of QEMU when there is no machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only what libqemuutil has no stub for. There are no vCPUs and no migration,
 * so most of it is never called.
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "migration/blocker.h"
#include "migration/misc.h"
#include "monitor/monitor.h"
#include "qemu/error-report.h"
#include "system/cpus.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/kvm.h"
#include "hw/vfio-user/container.h"
#include "hw/vfio-user/reconnect.h"
#include "hw/vfio-user/sigbus.h"

__thread CPUState *current_cpu;

CPUTailQ cpus_queue = QTAILQ_HEAD_INITIALIZER(cpus_queue);

void qemu_cpu_kick(CPUState *cpu)
{
    g_assert_not_reached();
}

bool cpu_work_list_empty(CPUState *cpu)
{
    g_assert_not_reached();
}

void cpu_exit(CPUState *cpu)
{
    g_assert_not_reached();
}

void qemu_register_reset(QEMUResetHandler *func, void *opaque)
{
    g_assert_not_reached();
}

bool kvm_allowed;

VMChangeStateEntry *
qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque)
{
    g_assert_not_reached();
}

bool runstate_is_running(void)
{
    return true;
}

void migration_file_set_error(int ret, Error *err)
{
    g_assert_not_reached();
}

int migrate_add_blocker_internal(Error **reasonp, Error **errp)
{
    g_assert_not_reached();
}

/* Nothing that the target maps is touched. */
void vfio_user_sigbus_add(VFIOUserDevice *udev, void *addr, size_t len)
{
}

void vfio_user_sigbus_forget(void *addr)
{
}

/*
 * Instead of stderr: what the client reports belongs to the input, and would
 * drown what the sanitizers say. It is still put together, so that they see
 * what goes into it.
 */
int error_vprintf(const char *fmt, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(fmt, ap);

    return strlen(text);
}

int error_vprintf_unless_qmp(const char *fmt, va_list ap)
{
    return error_vprintf(fmt, ap);
}

/* There is no container. */
void vfio_user_container_look(VFIOUserDevice *udev)
{
}

bool vfio_user_dma_behind_iommu(const VFIOUserDevice *udev)
{
    return false;
}

/* A device that is never ready is never connected again. */
void vfio_user_reconnect_lost(VFIOUserDevice *udev)
{
}

unsigned vfio_user_reconnect_life(VFIOUserDevice *udev)
{
    return 0;
}

VFIOUserReturn vfio_user_reconnect_fate(VFIOUserDevice *udev, unsigned life)
{
    return VFIO_USER_RETURN_NONE;
}

void vfio_user_reconnect_stop(VFIOUserDevice *udev)
{
}

void vfio_user_gate_exit(VFIOUserDevice *udev)
{
}

void vfio_user_gate_look(VFIOUserDevice *udev)
{
}

void vfio_user_gate_unpaid(VFIOUserDevice *udev)
{
    g_assert_not_reached();
}

void vfio_user_reconnect_free(VFIOUserDevice *udev)
{
}
