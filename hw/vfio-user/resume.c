/*
 * vfio-user: a VM that was stopped until a server is back goes on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * on-disconnect=stop leaves the VM in RUN_STATE_IO_ERROR. Whoever has continued
 * or stopped it since then has the last word; a reset leaves a VM that does not
 * run in PRELAUNCH.
 *
 * It may be on its way to another host by then. A destination does what it is
 * told the source did, so it would stay in RUN_STATE_IO_ERROR, though its own
 * server is there. As long as that has not been said it is said that the VM runs.
 * If the migration fails after all, QEMU puts the VM back to what it was, and it
 * goes on here. Once the state is over there, only its user can continue it, and
 * is told so.
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "reconnect.h"

/* A migration takes the VM away that is to go on; under the BQL. */
static bool vfio_user_resume_is_leaving;

static void vfio_user_resume_here(void *opaque)
{
    if (runstate_check(RUN_STATE_IO_ERROR)) {
        vm_start();
    }
}

static int vfio_user_resume_migration(NotifierWithReturn *n, MigrationEvent *e,
                                      Error **errp)
{
    if (e->type != MIG_EVENT_PRECOPY_SETUP && vfio_user_resume_is_leaving) {
        vfio_user_resume_is_leaving = false;
        if (e->type == MIG_EVENT_PRECOPY_FAILED) {
            aio_bh_schedule_oneshot(qemu_get_aio_context(),
                                    vfio_user_resume_here, NULL);
        }
    }
    return 0;
}

/* RUN_STATE_FINISH_MIGRATE: what will the destination be told? */
static void vfio_user_resume_there(void)
{
    static NotifierWithReturn notifier;

    if (migrate_get_current()->vm_old_state != RUN_STATE_IO_ERROR) {
        return;
    }
    if (!notifier.notify) {
        migration_add_notifier(&notifier, vfio_user_resume_migration);
    }
    vfio_user_resume_is_leaving = true;
    global_state_store_running();
}

void vfio_user_resume_vm(void)
{
    if (runstate_check(RUN_STATE_IO_ERROR) ||
        runstate_check(RUN_STATE_PRELAUNCH)) {
        vm_start();
    } else if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        vfio_user_resume_there();
    } else if (runstate_check(RUN_STATE_POSTMIGRATE)) {
        warn_report("vfio-user-pci: the VM was migrated while it was stopped "
                    "since a server was away: continue it (cont) at its "
                    "destination");
    }
}
