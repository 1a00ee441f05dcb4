#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A server cuts short the file behind a mapped region under a running guest.

The guest's own access finds it, so the vCPU gets the SIGBUS.
"""

import os

from qemu_test import QemuSystemTest

from vfio_user_migration import VFIOUserMigrationTest

DEVICE = '/sys/bus/pci/devices/0000:00:05.0'
# BAR2 of the standard device is mapped as a whole.
SIZE = 0x10000
REGISTER = 0x2000


def region_file(pid):
    """The server's file of BAR2."""
    for name in os.listdir(f'/proc/{pid}/fd'):
        path = f'/proc/{pid}/fd/{name}'
        if 'memfd' in os.readlink(path) and os.stat(path).st_size == SIZE:
            return path
    raise AssertionError('the server has no such file')


class VFIOUserCut(VFIOUserMigrationTest):
    """The mapped region of a scripted server."""

    def test_guest_access(self):
        """It reads ones, the device is lost, the guest goes on."""
        server = self.serve_lines('standard')
        guest = self.boot('-smp', '2', *self.client(server, addr='5'))
        guest.run(f'echo 1 >{DEVICE}/enable')
        bar = int(guest.run(f'sed -n 3p {DEVICE}/resource').split()[0], 0)
        address = f'{bar + REGISTER:#x}'
        guest.run(f'devmem {address} 32 0x12345678')
        self.assertEqual(guest.run(f'devmem {address} 32'), '0x12345678')
        os.truncate(region_file(server.process.pid), 0x1000)
        self.assertEqual(guest.run(f'devmem {address} 32'), '0xFFFFFFFF')
        guest.run(f'devmem {address} 32 1')
        self.assertEqual(guest.run('echo alive'), 'alive')
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'running')
        guest.vm.shutdown()
        self.assertIn('cut short the file behind a mapped region',
                      guest.vm.get_log())


if __name__ == '__main__':
    QemuSystemTest.main()
