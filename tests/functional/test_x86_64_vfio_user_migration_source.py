#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that fail while a guest is migrated away from them.

The migration fails, QEMU says why, and the guest goes on.  A failure happens
once: the next migration has another one, or succeeds.
"""

from typing import NamedTuple

from qemu_test import QemuSystemTest

from vfio_user_migration import (ADDRESSES, ENGINE, MIGRATION,
                                 VFIOUserMigrationTest)

SHORT = {'x-msg-timeout-ms': 500}


class Failure(NamedTuple):
    """What the server does, and what the user is told."""

    what: str               # after "migration-fail"
    text: str               # a part of what QEMU says, as a pattern
    reset: bool = False     # hw/vfio had to reset the device


class VFIOUserMigrationSource(VFIOUserMigrationTest):
    """Failures at the source."""

    def boot_failing(self, *failures):
        """A guest whose server fails so, each time once."""
        self.setup = self.setup._replace(
            devices=((ENGINE, MIGRATION, *(
                f'migration-fail {failure} times=1'
                for failure in failures)),),
            device_options=SHORT)
        return self.boot_side()

    def attempt(self, source):
        """Migrate to a good server; how it ended, and the target."""
        target, uri = self.incoming_side(devices=((ENGINE, MIGRATION),))
        source.vm.cmd('migrate', uri=uri)
        return self.wait_migration(source)['status'], target

    def check_failure(self, source, failure):
        """The migration fails, and the guest goes on."""
        before = len(self.said(source))
        status, target = self.attempt(source)
        self.assertEqual(status, 'failed', failure)
        self.expect_death(target)
        self.assertTrue(source.vm.cmd('query-status')['running'], failure)
        self.assertRegex(self.said(source)[before:], failure.text)
        if failure.reset:
            self.start_engines(source)
        else:
            self.check_progress(source)

    def check_failures(self, *failures):
        """One after the other, and then a good migration."""
        source = self.boot_failing(*(failure.what for failure in failures))
        for failure in failures:
            self.log.info('now: %s', failure.what)
            self.check_failure(source, failure)
        self.check_end(self.hop(source, devices=((ENGINE, MIGRATION),)))

    # Each once. A server makes the first failure that applies, so where
    # there are several, those that come early in a migration are first.

    def test_log_start(self):
        """Dirty pages are not logged."""
        self.check_failures(
            Failure('refuse at=start errno=ENOSPC',
                    r'refused to log dirty pages \(DMA_LOGGING_START\): '
                    'No space'),
            Failure('hang at=start',
                    r'\(DMA_LOGGING_START\): it did not answer in time'))

    def test_arcs_refused(self):
        """Running the device goes on; on the way to a stop it is reset."""
        self.check_failures(
            Failure('refuse at=arc from=running to=pre-copy errno=EBUSY',
                    'from state RUNNING to PRE_COPY failed: Device or res'),
            Failure('refuse at=arc from=pre-copy to=pre-copy-p2p',
                    'from state PRE_COPY to PRE_COPY_P2P failed', reset=True),
            Failure('refuse at=arc to=stop-copy',
                    'from state PRE_COPY_P2P to STOP_COPY failed',
                    reset=True))

    def test_arcs_error(self):
        """The device breaks, and is reset."""
        self.check_failures(
            Failure('error at=arc from=running to=pre-copy',
                    'from state RUNNING to PRE_COPY failed', reset=True),
            Failure('error at=arc from=pre-copy to=pre-copy-p2p',
                    'from state PRE_COPY to PRE_COPY_P2P failed', reset=True),
            Failure('error at=arc to=stop-copy',
                    'from state PRE_COPY_P2P to STOP_COPY failed',
                    reset=True))

    def test_arcs_hang(self):
        """The server does not answer, later it does."""
        self.check_failures(
            Failure('hang at=arc from=running to=pre-copy',
                    'to PRE_COPY failed: the server did not answer in time'),
            Failure('hang at=arc to=stop-copy',
                    'from state PRE_COPY_P2P to STOP_COPY failed: the server '
                    'did not answer in time', reset=True))

    def test_broken_after_arc(self):
        """It breaks when it has stopped already."""
        self.check_failures(
            Failure('error at=state to=stop-copy',
                    'reading device state failed after', reset=True))

    def test_read_refused_at_once(self):
        """Nothing can be read."""
        self.check_failures(
            Failure('refuse at=read byte=0 errno=ENOMEM',
                    'reading device state failed after 0 bytes: Cannot all'))

    def test_read_refused_in_precopy(self):
        """Nor the rest of pre-copy."""
        self.check_failures(
            Failure('refuse at=read byte=100000',
                    'reading device state failed after 100000 bytes: Input'))

    def test_read_refused_at_the_end(self):
        """Nor the rest, when all has stopped."""
        self.check_failures(
            Failure('refuse at=read byte=700000',
                    'reading device state failed after 700000 bytes'))

    def test_read_error(self):
        """Reading breaks the device."""
        self.check_failures(
            Failure('error at=read byte=700000',
                    'reading device state failed after 700000 bytes',
                    reset=True))

    def test_read_hangs(self):
        """The server does not answer."""
        self.check_failures(
            Failure('hang at=read byte=100000',
                    'failed after 100000 bytes: the server did not answer in '
                    'time'))

    def test_log_stop(self):
        """A migration fails, and the server goes on logging."""
        source = self.boot_failing('refuse at=read byte=0', 'refuse at=stop')
        self.check_failure(source, Failure(
            'refuse at=stop', r'refused to stop logging dirty pages \('
            'DMA_LOGGING_STOP\): Input'))

    # What is no reason to fail

    def test_reports(self):
        """What is not reported counts as dirty, and the user is told."""
        source = self.boot_failing('refuse at=report', 'hang at=report')
        source.vm.cmd('migrate-set-parameters', {'downtime-limit': 60000})
        target = self.hop(source, devices=((ENGINE, MIGRATION),))
        self.assertRegex(self.said(source),
                         'no report of dirty pages for the window at 0x')
        self.check_end(target)

    # What the device does not survive

    def check_lost(self, failure, text):
        """The server is gone; the guest lives, without the device."""
        source = self.boot_failing(failure)
        status, target = self.attempt(source)
        self.assertEqual(status, 'failed')
        self.expect_death(target)
        self.assertTrue(source.vm.cmd('query-status')['running'])
        self.assertRegex(self.said(source), text)
        self.assertEqual(source.guest.run(
            f'xxd -p -l 4 /sys/bus/pci/devices/{ADDRESSES[0]}/resource0 '
            '2>&1 || true; echo alive')[-5:], 'alive')

    def test_closes_at_arc(self):
        """The connection ends when the device should enter pre-copy."""
        self.check_lost('close at=arc to=pre-copy', 'RUNNING to PRE_COPY')

    def test_exits_at_arc(self):
        """The server dies when the device should stop."""
        self.check_lost('exit at=arc to=stop-copy', 'to STOP_COPY')

    def test_closes_at_read(self):
        """The connection ends in the middle of pre-copy."""
        self.check_lost('close at=read byte=100000', 'reading device state')

    def test_exits_at_read(self):
        """The server dies at the end."""
        self.check_lost('exit at=read byte=700000', 'reading device state')

    def test_exits_at_report(self):
        """The server dies instead of telling which pages it wrote."""
        self.check_lost('exit at=report', 'device lost')

    def test_stalls(self):
        """The server stands still, for good."""
        self.check_lost('stall at=arc to=stop-copy', 'to STOP_COPY')


if __name__ == '__main__':
    QemuSystemTest.main()
