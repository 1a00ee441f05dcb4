#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that fail while a guest is migrated to them.

The target ends and says why, the source goes on.  All attempts of a test
are made by the same source, and the last one succeeds.  The source waits for
what the target says at the end (capability return-path); without that QEMU
takes a migration for completed as soon as all was sent.
"""

from typing import NamedTuple

from qemu_test import QemuSystemTest

from vfio_user_migration import (DEADLINE, ENGINE, MIGRATION,
                                 Setup, VFIOUserMigrationTest)
from vfio_user_server import wait_until

SHORT = {'x-msg-timeout-ms': 500}
NOT_TAKEN = 'the device state was not taken after '
INCOMPLETE = ('the device state that was loaded is not complete or does not '
              'fit this server')
SILENCE = 'the server did not answer in time'


class Failure(NamedTuple):
    """What the target's server does, and what the user is told."""

    what: str               # after "migration-fail"
    text: str               # a part of what QEMU says, as a pattern


class VFIOUserMigrationTarget(VFIOUserMigrationTest):
    """Failures at the target."""

    setup = Setup(capabilities=('return-path',), device_options=SHORT)

    def check_failure(self, source, lines, text):
        """The migration to this server fails."""
        self.log.info('now: %s', lines)
        target, uri = self.incoming_side(devices=(lines,))
        source.vm.cmd('migrate', uri=uri)
        self.assertEqual(self.wait_migration(source)['status'], 'failed',
                         lines)
        self.expect_death(target, text)
        wait_until(lambda: source.vm.cmd('query-status')['running'],
                   DEADLINE, f'{source.name} runs again')
        self.check_progress(source)

    def check_failures(self, *failures):
        """One after the other, and then a good migration."""
        source = self.boot_side()
        for what, text in failures:
            self.check_failure(source, (
                ENGINE, MIGRATION, f'migration-fail {what}'), text)
        self.check_end(self.hop(source))

    def test_arcs(self):
        """The server does not begin to load."""
        self.check_failures(
            Failure('refuse at=arc to=resuming errno=EBUSY',
                    'from state RUNNING to RESUMING failed: Device or res'),
            Failure('error at=arc to=resuming',
                    'from state RUNNING to RESUMING failed: Input/output'),
            Failure('hang at=arc to=resuming',
                    f'from state RUNNING to RESUMING failed: {SILENCE}'),
            Failure('close at=arc to=resuming',
                    'from state RUNNING to RESUMING failed: the device is '
                    'lost'))

    def test_write_refused(self):
        """It does not take all of the state."""
        self.check_failures(
            Failure('refuse at=write byte=0 errno=ENOMEM',
                    f'{NOT_TAKEN}0 bytes: Cannot allocate memory'),
            Failure('refuse at=write byte=1200000 errno=ENOSPC',
                    f'{NOT_TAKEN}[0-9]+ bytes: No space left'))

    def test_write_error(self):
        """The device breaks under it."""
        self.check_failures(
            Failure('error at=write byte=700000', NOT_TAKEN),
            Failure('error at=state to=resuming', NOT_TAKEN))

    def test_write_hangs(self):
        """The server does not answer."""
        self.check_failures(
            Failure('hang at=write byte=300000', f'{NOT_TAKEN}.*{SILENCE}'),
            Failure('stall at=write byte=300000', f'{NOT_TAKEN}.*{SILENCE}'))

    def test_write_dies(self):
        """The server is gone."""
        self.check_failures(
            Failure('close at=write byte=300000', 'device lost: '),
            Failure('exit at=write byte=1200000', 'device lost: '))

    def test_end(self):
        """All was taken, and then the state is not right."""
        self.check_failures(
            Failure('refuse at=arc from=resuming to=stop errno=EINVAL',
                    INCOMPLETE),
            Failure('error at=arc from=resuming to=stop', INCOMPLETE),
            Failure('hang at=arc from=resuming to=stop', INCOMPLETE),
            Failure('exit at=arc from=resuming to=stop', INCOMPLETE))

    def test_too_late(self):
        """The guest is at the target already when its server fails.

        There is no way back.  hw/vfio resets the device, so the guest has it
        as after power-on.
        """
        source = self.boot_side()
        target, uri = self.incoming_side(devices=((
            ENGINE, MIGRATION, 'migration-fail error at=arc from=stop '
            'to=running-p2p times=1'),))
        self.send(source, uri)
        wait_until(lambda: target.vm.cmd('query-status')['status']
                   == 'running', DEADLINE, f'{target.name} runs')
        self.assertRegex(self.said(target),
                         'from state STOP to RUNNING_P2P failed: Input')
        self.end_side(source)
        target.guest.number = source.guest.number
        self.start_engines(target)
        self.check_end(target)

    def test_other_device(self):
        """State of one device is no state of another."""
        source = self.boot_side()
        self.check_failure(source, ('standard', MIGRATION),
                           NOT_TAKEN)
        self.check_failure(source, (ENGINE,),
                           r"Unknown (savevm )?section .*'0000:00:05\.0/vfio'")
        self.check_end(self.hop(source))


if __name__ == '__main__':
    QemuSystemTest.main()
