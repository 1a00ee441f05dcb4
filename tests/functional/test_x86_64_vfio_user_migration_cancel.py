#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are not to be, and the next one that is.

What goes wrong here comes from the user or from the guest; see
test_x86_64_vfio_user_migration_failures.py for servers that fail.
"""

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_migration import (DEADLINE, ENGINE, Setup,
                                 VFIOUserMigrationTest)
from vfio_user_server import wait_until

# Bytes per second. The first lets all of RAM pass in a moment, and the second
# nothing; between them there are seconds in which device state comes.
FAST = 64 * MIB
SLOW = MIB
LONG = 'migration size=1M precopy=512M p2p logging'

# QEMU 10.0 shuts the return path down, which is the same socket, before it
# notes that the migration is cancelled; its thread may find the error first.
CANCELLED = ('cancelled', 'failed')


class VFIOUserMigrationCancel(VFIOUserMigrationTest):
    """A migration stops half-way, and the guest goes on at the source."""

    setup = Setup(devices=((ENGINE, LONG),))

    def set_speed(self, side, speed):
        """Bytes per second, 0 for all that goes."""
        side.vm.cmd('migrate-set-parameters', {'max-bandwidth': speed})

    def begin(self, source):
        """Into the middle of pre-copy; the target."""
        target, uri = self.incoming_side()
        self.set_speed(source, FAST)
        source.vm.cmd('migrate', uri=uri)
        wait_until(lambda: source.vm.cmd('query-migrate').get(
            'vfio', {}).get('transferred'), DEADLINE,
            f'device state comes from {source.name}')
        self.set_speed(source, SLOW)
        self.assertEqual(source.status(), 'active')
        return target

    def check_ended(self, source, target, *statuses):
        """So it ended, and both sides know."""
        self.assertIn(self.wait_migration(source)['status'], statuses)
        self.expect_death(target)
        self.set_speed(source, 0)

    def check_retry(self, source):
        """The guest has not noticed, and the next migration succeeds."""
        self.check_progress(source)
        self.check_end(self.hop(source))

    def test_cancel(self):
        """In pre-copy, twice."""
        source = self.boot_side()
        for _ in range(2):
            target = self.begin(source)
            source.vm.cmd('migrate_cancel')
            self.check_ended(source, target, *CANCELLED)
            self.check_progress(source)
        self.check_retry(source)

    def test_cancel_switchover(self):
        """When the VM and the device have stopped already."""
        self.setup = self.setup._replace(
            capabilities=('pause-before-switchover',))
        source = self.boot_side()
        target, uri = self.incoming_side()
        source.vm.cmd('migrate', uri=uri)
        wait_until(lambda: source.status() == 'pre-switchover', DEADLINE,
                   f'{source.name} is about to switch over')
        source.vm.cmd('migrate_cancel')
        self.check_ended(source, target, *CANCELLED)
        wait_until(lambda: source.vm.cmd('query-status')['running'],
                   DEADLINE, f'{source.name} runs again')
        self.check_progress(source)

        target, uri = self.incoming_side()
        source.vm.cmd('migrate', uri=uri)
        wait_until(lambda: source.status() == 'pre-switchover', DEADLINE,
                   f'{source.name} is about to switch over')
        source.vm.cmd('migrate-continue', state='pre-switchover')
        self.check_completed(source)
        self.take_over(source, target)
        self.check_end(target)

    def test_guest_reset(self):
        """A reset takes the meaning out of the stream."""
        source = self.boot_side()
        target = self.begin(source)
        source.vm.cmd('system_reset')
        self.set_speed(source, 0)
        self.check_ended(source, target, 'failed')
        source.guest.wait_boot()
        self.start_engines(source)
        self.check_retry(source)

    def test_unplug(self):
        """Not while it is being migrated."""
        self.setup = self.setup._replace(machine='pc')
        source = self.boot_side()
        target = self.begin(source)
        answer = source.vm.qmp('device_del', {'id': 'dev0'})
        self.assertIn('migrat', answer['error']['desc'])
        source.vm.cmd('migrate_cancel')
        self.check_ended(source, target, *CANCELLED)
        self.check_retry(source)

    def test_target_quits(self):
        """The user ends the target."""
        source = self.boot_side()
        target = self.begin(source)
        self.end_side(target)
        self.set_speed(source, 0)
        self.assertEqual(self.wait_migration(source)['status'], 'failed')
        self.check_retry(source)

    def test_source_quits(self):
        """The user ends the source."""
        source = self.boot_side()
        target = self.begin(source)
        self.end_side(source)
        self.expect_death(target)


if __name__ == '__main__':
    QemuSystemTest.main()
