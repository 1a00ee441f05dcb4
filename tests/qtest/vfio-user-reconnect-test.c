/*
 * vfio-user qtest: servers that go and come back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A program of its own beside vfio-user-test, so that the two run at the same
 * time. Called in another way it is the server that its tests kill.
 */

#include "qemu/osdep.h"
#include "vfio-user-reconnect.h"

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], RT_SERVE)) {
        return rt_serve_disk(argc, argv);
    }
    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_device("vfio-user-pci")) {
        g_test_message("this QEMU has no vfio-user-pci: nothing to test");
        return 77;
    }
    rt_register_fresh();
    rt_register_refuse();
    rt_register_replay();
    rt_register_ioeventfd();
    rt_register_iothread();
    rt_register_irq();
    rt_register_room();
    rt_register_states();
    rt_register_policy();
    rt_register_disk();
    return g_test_run();
}
