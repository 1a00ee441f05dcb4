#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that is stopped holds up whoever touches its device, nobody else.

"Answers" means: before the server is continued. No test looks at how long
anything took.
"""

import asyncio
import time

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_guest import VFIOUserGuestTest
import vfio_user_rows as rows

# As long as the issue asks: longer than a message's deadline.
STALL = 8
EVENT_DEADLINE = 30.0
# The guest reads a register of the server, again and again.
READ_LOOP = ('while :; do od -An -tx2 -j6 -N2 '
             '/sys/bus/pci/devices/0000:00:05.0/config >/dev/null; done &')


class VFIOUserStall(VFIOUserGuestTest):
    """The server gets SIGSTOP."""

    def test_disk_under_load(self):
        """Data written across the stall arrive; the other disk goes on."""
        stalled = self.serve_disk(rows.NVME)
        other = self.serve_disk(rows.VIRTIO_BLK)
        guest = self.boot('-smp', '2', *self.client(stalled, addr='5'),
                          *self.client(other, addr='6'))
        guest.run('wait_disk /dev/nvme0n1 && wait_disk /dev/vda')
        guest.run('dd if=/dev/urandom of=/tmp/load bs=1M count=24 2>/dev/null')
        guest.run('(dd if=/tmp/load of=/dev/nvme0n1 bs=64k conv=fsync '
                  '2>/dev/null; echo over >/tmp/over) &')
        self.stop_server(stalled)
        end = time.monotonic() + STALL
        while time.monotonic() < end:
            status = guest.vm.cmd('query-status')
            self.assertEqual(status['status'], 'running')
            # Not check_disk: it syncs all disks, and so waits for this one.
            before = int(guest.run('irq_count 0000:00:06.0'))
            guest.run('dd if=/dev/urandom of=/dev/vda bs=64k count=16 '
                      'conv=fsync 2>/dev/null')
            self.assertGreater(int(guest.run('irq_count 0000:00:06.0')),
                               before)
        self.assertNotEqual(guest.status('test -e /tmp/over')[0], 0,
                            'the load ended before the server went on')
        self.continue_server(stalled)
        guest.run('until_true 60 test -e /tmp/over')
        sent = guest.run('sha256sum </tmp/load | cut -d" " -f1')
        guest.run('echo 3 >/proc/sys/vm/drop_caches')
        self.assertEqual(guest.run('head -c 25165824 /dev/nvme0n1 | sha256sum '
                                   '| cut -d" " -f1'), sent)
        self.check_disk(guest, stalled, rows.NVME, '0000:00:05.0', MIB)
        self.check_disk(guest, other, rows.VIRTIO_BLK, '0000:00:06.0', MIB)

    def boot_reading(self):
        """A guest one of whose vCPUs waits for the stopped server."""
        server = self.serve_disk(rows.NVME)
        guest = self.boot('-smp', '2', '-device',
                          'pcie-root-port,id=port1,slot=1',
                          *self.client(server, addr='5',
                                       **{'x-msg-timeout-ms': 600000}))
        guest.run('wait_disk /dev/nvme0n1')
        guest.run(READ_LOOP)
        self.stop_server(server)
        return server, guest

    def oldest_pending(self, vm):
        """For how long the only device's vCPU has been waiting, once it is."""
        end = time.monotonic() + EVENT_DEADLINE
        while time.monotonic() < end:
            info, = vm.cmd('query-vfio-user')
            if info['stats']['pending']:
                return info['stats']['oldest-pending']
        return self.fail('no vCPU waits for the server')

    def test_monitor_goes_on(self):
        """status, info, stop, cont and a hotplug while a vCPU waits."""
        server, guest = self.boot_reading()
        vm = guest.vm
        waiting = self.oldest_pending(vm)
        self.assertGreater(self.oldest_pending(vm), waiting)
        self.assertIn('not answered yet, the first for ',
                      vm.cmd('human-monitor-command',
                             command_line='info vfio-user'))
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        vm.cmd('stop')
        self.assertEqual(vm.cmd('query-status')['status'], 'paused')
        vm.cmd('cont')
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        self.assertIn('vfio-user-pci', vm.cmd('human-monitor-command',
                                              command_line='info qtree'))
        second = self.serve_disk(rows.VIRTIO_BLK)
        vm.cmd('device_add', {'driver': 'vfio-user-pci', 'id': 'second',
                              'bus': 'port1', 'socket': second.socket})
        self.assertTrue(server.running())
        self.continue_server(server)
        self.check_disk(guest, server, rows.NVME, '0000:00:05.0', MIB)

    def test_stop_across_the_reply(self):
        """The answer comes while the VM is stopped; nothing is lost."""
        server, guest = self.boot_reading()
        guest.vm.cmd('stop')
        self.continue_server(server)
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'paused')
        guest.vm.cmd('cont')
        self.check_disk(guest, server, rows.NVME, '0000:00:05.0', MIB)

    def test_quit(self):
        """QEMU ends while the server is stopped."""
        _, guest = self.boot_reading()
        guest.vm.shutdown()
        self.assertEqual(guest.vm.exitcode(), 0)

    def test_unplug(self):
        """device_del of the very device that a vCPU waits for."""
        server = self.serve_disk(rows.NVME)
        guest = self.boot('-smp', '2', machine='pc')
        guest.vm.cmd('device_add', {
            'driver': 'vfio-user-pci', 'id': 'hot', 'bus': 'pci.0',
            'addr': '5', 'socket': server.socket,
            'x-msg-timeout-ms': 600000})
        guest.run('wait_disk /dev/nvme0n1')
        # Without a driver nothing in the guest has to wait for the device.
        guest.run('echo 0000:00:05.0 >/sys/bus/pci/drivers/nvme/unbind')
        self.stop_server(server)
        guest.vm.cmd('device_del', {'id': 'hot'})
        try:
            guest.vm.event_wait('DEVICE_DELETED', EVENT_DEADLINE,
                                match={'data': {'device': 'hot'}})
        except asyncio.TimeoutError:
            self.fail_with_logs('unplugging waits for the stopped server')
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'running')


if __name__ == '__main__':
    QemuSystemTest.main()
