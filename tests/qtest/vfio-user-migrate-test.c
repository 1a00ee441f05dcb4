/*
 * vfio-user qtest: migration between two QEMUs with a scripted server each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A program of its own beside vfio-user-test, so that the two run at the same
 * time. Both servers are threads of it: a test sees what each was told, in
 * which order, and makes them fail where it likes.
 */

#include "qemu/osdep.h"
#include "vfio-user-migrate.h"

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_device("vfio-user-pci")) {
        g_test_message("this QEMU has no vfio-user-pci: nothing to test");
        return 77;
    }
    vut_register_migrate_offer();
    vut_register_migrate();
    vut_register_migrate_load();
    vut_register_migrate_end();
    vut_register_migrate_ioeventfd();
    vut_register_migrate_dirty();
    vut_register_migrate_log();
    vut_register_migrate_windows();
    vut_register_migrate_fail();
    vut_register_migrate_irq();
    vut_register_migrate_late();
    vut_register_migrate_sync();
    vut_register_migrate_return();
    vut_register_migrate_stall();
    vut_register_migrate_lvu();
    vut_register_migrate_told();
    return g_test_run();
}
