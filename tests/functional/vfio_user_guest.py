# SPDX-License-Identifier: GPL-2.0-or-later
"""Base of the tests with a booted Debian guest.

Every failure that concerns the guest names the console log, the log of QEMU
and the logs of the servers; they stay after the test.
"""

import hashlib
import os
from pathlib import Path
import socket

from vfio_user_case import MIB, REPOSITORY, VFIOUserTest
from vfio_user_channel import MACHINES, Guest, guest_arguments


class VFIOUserGuestTest(VFIOUserTest):
    """Base of the tests with a booted guest."""

    def setUp(self):
        super().setUp()
        guest = Path(os.getenv('VFIO_USER_GUEST_DIR',
                               REPOSITORY / 'build' / 'guest'))
        self.kernel = guest / 'vmlinux'
        self.initrd = guest / 'initrd'
        for path in (self.kernel, self.initrd):
            if not path.exists():
                self.skipTest(f'no {path}: build the guest with "make", or '
                              'name its directory in VFIO_USER_GUEST_DIR')

    def launch_guest(self, *args, name='guest', machine='q35', memory='512M',
                     append='', share='on'):
        """Start a guest, whose RAM is shared, with more QEMU arguments."""
        vm = self.get_vm(name=name)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        os.set_inheritable(theirs.fileno(), True)
        console = self.log_file(f'{name}-console.log')
        self.console_log_name = console
        self.logs += [console, self.log_file(f'{name}.log')]
        vm.set_machine(f'{MACHINES[machine]},memory-backend=mem')
        vm.add_args('-accel', os.getenv('VFIO_USER_TEST_ACCEL', 'tcg'),
                    *guest_arguments(memory, self.kernel, self.initrd,
                                     append, share),
                    '-chardev', f'file,id=console,path={console}',
                    '-serial', 'chardev:console',
                    '-chardev', f'socket,id=agent,fd={theirs.fileno()}',
                    '-serial', 'chardev:agent', *args)
        vm.launch()
        theirs.close()
        return Guest(vm, ours, self.fail_with_logs)

    def boot(self, *args, **options):
        """The same, and wait until it is up."""
        guest = self.launch_guest(*args, **options)
        guest.wait_boot()
        return guest

    # What most rows check

    def check_disk(self, guest, server, row, address, size=16 * MIB):
        """Data survives the way there and back, and interrupts came."""
        guest.run(f'wait_disk {row.disk}')
        self.assertEqual(guest.run(f'pci_driver {address}'), row.driver)
        self.assertEqual(guest.run(f'irq_kind {address}'), row.irq)
        before = int(guest.run(f'irq_count {address}'))
        written = guest.run(f'disk_write {row.disk} {size // MIB}')
        read = guest.run(f'disk_read {row.disk} {size // MIB}')
        after = int(guest.run(f'irq_count {address}'))
        with open(server.image, 'rb') as file:
            stored = hashlib.sha256(file.read(size)).hexdigest()
        self.assertEqual(read, written, 'the guest read other data back')
        self.assertEqual(stored, written, 'the image holds other data')
        self.assertGreater(after, before, 'no interrupt was counted')
        self.log.info('%s: %d MiB, %d interrupts', row.disk, size // MIB,
                      after - before)

    def check_disk_row(self, row, machine='q35'):
        """A whole row: server, guest, data, interrupts."""
        server = self.serve_disk(row)
        firmware = ['-bios', row.firmware] if row.firmware else []
        guest = self.boot(*firmware, *self.client(server, addr='5'),
                          machine=machine)
        self.check_disk(guest, server, row, '0000:00:05.0')
