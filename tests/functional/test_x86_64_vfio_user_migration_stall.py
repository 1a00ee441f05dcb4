#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that can be migrated, and is stopped.

stop, cont and quit change the state of such a device, and must not wait for it;
and what a stopped server leaves half done must not be saved.  "Answers" means:
before the server is continued.  No test looks at how long anything took.
"""

from qemu_test import QemuSystemTest

from vfio_user_migration import Setup, VFIOUserMigrationTest
from vfio_user_server import wait_until

DEADLINE = 30
PATIENT = {'x-msg-timeout-ms': 600000}
# The guest reads a register of the server, again and again.
READ_LOOP = ('(while :; do od -An -tx2 -j6 -N2 '
             '/sys/bus/pci/devices/0000:00:05.0/config >/dev/null; done) &')
SETTLED_NS = 500 * 1000 * 1000
WAITING = 'vfio-user-pci dev0: a vCPU is waiting for the server'


class VFIOUserMigrationStall(VFIOUserMigrationTest):
    """The server gets SIGSTOP."""

    def boot_patient(self, reading=False):
        """A side whose device waits for its server as long as it takes."""
        self.setup = Setup(device_options=PATIENT, args=('-smp', '2'))
        side = self.boot_side()
        if reading:
            side.guest.run(READ_LOOP)
        self.stop_server(side.servers[0])
        if reading:
            # An answer that came before is taken at once.
            wait_until(lambda: self.oldest_pending(side) > SETTLED_NS,
                       DEADLINE, 'a vCPU waits for the server')
        return side

    def test_stop_and_cont(self):
        """stop and cont answer, several times; then the device goes on."""
        side = self.boot_patient()
        for _ in range(3):
            side.vm.cmd('stop')
            self.assertEqual(side.vm.cmd('query-status')['status'], 'paused')
            side.vm.cmd('cont')
            self.assertEqual(side.vm.cmd('query-status')['status'], 'running')
        self.continue_server(side.servers[0])
        self.check_progress(side)
        self.check_end(self.hop(side))

    def test_quit(self):
        """QEMU ends."""
        side = self.boot_patient()
        side.vm.shutdown()
        self.assertEqual(side.vm.exitcode(), 0)

    def test_cancel(self):
        """A migration that finds the server stopped can be cancelled."""
        side = self.boot_patient()
        target, uri = self.incoming_side()
        side.vm.cmd('migrate-set-parameters', **{'max-bandwidth': 65536})
        side.vm.cmd('migrate', uri=uri)
        side.vm.cmd('migrate_cancel')
        self.continue_server(side.servers[0])
        self.assertIn(self.wait_migration(side)['status'],
                      ('cancelled', 'failed'))
        self.expect_death(target)
        self.check_progress(side)
        self.check_end(side)

    def test_vcpu_in_access(self):
        """A vCPU in the middle of an access is not saved."""
        side = self.boot_patient(reading=True)
        side.vm.cmd('stop')
        wait_until(lambda: WAITING in self.refusal(side), DEADLINE,
                   'migration is blocked')
        self.continue_server(side.servers[0])
        self.assertIn(WAITING, self.refusal(side),
                      'the vCPU cannot have gone on while the VM is stopped')
        side.vm.cmd('cont')
        wait_until(lambda: not side.vm.cmd('query-migrate').get(
            'blocked-reasons'), DEADLINE, 'migration is possible again')
        self.check_end(self.hop(side))

    def test_stopped_in_access(self):
        """Nor is one that is in it when the user stops a VM that migrates."""
        self.setup = Setup(device_options=PATIENT, args=('-smp', '2'))
        side = self.boot_side()
        target, uri = self.incoming_side()
        side.vm.cmd('migrate-set-parameters', **{'max-bandwidth': 65536})
        side.vm.cmd('migrate', uri=uri)
        wait_until(lambda: side.vm.cmd('query-migrate').get('ram', {}).get(
            'transferred', 0) > 0, DEADLINE, 'memory is sent')
        side.guest.run(READ_LOOP)
        self.stop_server(side.servers[0])
        wait_until(lambda: self.oldest_pending(side) > SETTLED_NS,
                   DEADLINE, 'a vCPU waits for the server')
        side.vm.cmd('stop')
        self.continue_server(side.servers[0])
        info = self.wait_migration(side)
        self.assertEqual(info['status'], 'failed')
        self.assertIn(WAITING, info['error-desc'])
        self.expect_death(target)
        side.vm.cmd('cont')
        self.check_progress(side)
        self.check_end(side)

    @staticmethod
    def oldest_pending(side):
        """How long the oldest request has been waiting, in nanoseconds."""
        devices = side.vm.cmd('query-vfio-user')
        return max(device['stats']['oldest-pending'] for device in devices)

    @staticmethod
    def refusal(side):
        """What blocks migration."""
        return ' '.join(side.vm.cmd('query-migrate').get('blocked-reasons',
                                                         []))


if __name__ == '__main__':
    QemuSystemTest.main()
