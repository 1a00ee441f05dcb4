/*
 * vfio-user qtest: the client device against a scripted server
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server (tests/server) is a thread of this program, so that a test sees
 * both sides of every access: what QEMU did at the register level, and what
 * the server was told. Variants are a few lines in the files beside this one.
 */

#include "qemu/osdep.h"
#include "vfio-user-util.h"

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_device("vfio-user-pci")) {
        g_test_message("this QEMU has no vfio-user-pci: nothing to test");
        return 77;
    }
    vut_register_connect();
    vut_register_socket();
    vut_register_realize();
    vut_register_region();
    vut_register_dma();
    vut_register_irq();
    vut_register_ioeventfd();
    vut_register_odd();
    vut_register_options();
    vut_register_plug();
    vut_register_slow();
    vut_register_errors();
    vut_register_many();
    vut_register_monitor();
    vut_register_room();
    vut_register_peer();
    vut_register_iommu();
    vut_register_bad();
    ret = g_test_run();
    vut_finish_bad();
    return ret;
}
