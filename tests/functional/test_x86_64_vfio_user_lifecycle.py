#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reboot, hotplug, unplug, and several devices in one guest."""

import asyncio

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_guest import VFIOUserGuestTest
import vfio_user_rows as rows

SLOT = '0000:00:05.0'
BEHIND_PORT = '0000:01:00.0'
EVENT_DEADLINE = 60.0
SMALL = 2 * MIB


class VFIOUserLifecycle(VFIOUserGuestTest):
    """What happens to a device besides being used."""

    def plug(self, guest, server, bus, **place):
        """device_add on the running machine."""
        guest.vm.cmd('device_add', {
            'driver': 'vfio-user-pci', 'id': 'hot', 'bus': bus,
            'socket': {'type': 'unix', 'path': server.socket}, **place})

    def unplug(self, guest, server):
        """device_del; the guest lets go, the server sees us leave."""
        guest.vm.cmd('device_del', {'id': 'hot'})
        try:
            guest.vm.event_wait('DEVICE_DELETED', EVENT_DEADLINE,
                                match={'data': {'device': 'hot'}})
        except asyncio.TimeoutError:
            self.fail_with_logs('the guest did not release the device within '
                                f'{EVENT_DEADLINE} s')
        guest.run('until_true 60 test ! -e /dev/nvme0n1')
        self.assertEqual(server.wait(), 0, 'the server ended badly')

    def check_hotplug(self, guest, address, bus, **place):
        """Twice: a server starts, its device is plugged, used, unplugged."""
        for _ in range(2):
            server = self.serve_disk(rows.NVME)
            self.plug(guest, server, bus, **place)
            self.check_disk(guest, server, rows.NVME, address, SMALL)
            self.unplug(guest, server)

    def test_reboot(self):
        """The guest reboots three times and uses the device each time."""
        server = self.serve_disk(rows.NVME)
        guest = self.boot(*self.client(server, addr='5'))
        for _ in range(3):
            self.check_disk(guest, server, rows.NVME, SLOT, SMALL)
            guest.reboot()
        self.check_disk(guest, server, rows.NVME, SLOT, SMALL)

    def test_reset_from_outside(self):
        """A machine reset by the monitor while the disk is written."""
        server = self.serve_disk(rows.NVME)
        guest = self.boot(*self.client(server, addr='5'))
        guest.run('wait_disk /dev/nvme0n1')
        guest.run('dd if=/dev/zero of=/dev/nvme0n1 bs=64k >/dev/null 2>&1 &')
        guest.vm.cmd('system_reset')
        guest.wait_boot()
        self.check_disk(guest, server, rows.NVME, SLOT, SMALL)

    def test_hotplug_q35(self):
        """Behind a root port of a booted guest."""
        guest = self.boot('-device', 'pcie-root-port,id=port1,slot=1')
        self.check_hotplug(guest, BEHIND_PORT, 'port1')

    def test_hotplug_pc(self):
        """On the conventional bus of a booted guest."""
        guest = self.boot(machine='pc')
        self.check_hotplug(guest, SLOT, 'pci.0', addr='5')

    def test_two_servers(self):
        """Two controllers from two processes, used at the same time."""
        nvme = self.serve_disk(rows.NVME)
        virtio = self.serve_disk(rows.VIRTIO_BLK)
        guest = self.boot(*self.client(nvme, addr='5'),
                          *self.client(virtio, addr='6'))
        guest.run('wait_disk /dev/nvme0n1 && wait_disk /dev/vda')
        guest.run('dd if=/dev/urandom of=/dev/nvme0n1 seek=32 bs=1M count=8 '
                  'conv=fsync 2>/dev/null & '
                  'dd if=/dev/urandom of=/dev/vda seek=32 bs=1M count=8 '
                  'conv=fsync 2>/dev/null; wait')
        self.check_disk(guest, nvme, rows.NVME, SLOT, SMALL)
        self.check_disk(guest, virtio, rows.VIRTIO_BLK, '0000:00:06.0', SMALL)


if __name__ == '__main__':
    QemuSystemTest.main()
