#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration, and the stream of device state: its sizes, pieces and ways.

Every byte is checked by the server that loads it.
"""

import os
import subprocess

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_migration import ENGINE, MIGRATION, VFIOUserMigrationTest

HOPS = 2
SNAPSHOT = 'snapshot'
# Without a return path QEMU 10.0's source closes the channels when it has
# queued the last of a device's state, and may lose that.
MULTIFD = ('multifd', 'return-path')


class VFIOUserMigrationStream(VFIOUserMigrationTest):
    """Servers that give their state in their own way."""

    def check_server(self, *lines, state=MIB, **setup):
        """The usual hops with this server."""
        self.there_and_back(HOPS, devices=((ENGINE, *lines),), state=state,
                            **setup)

    def test_stop_copy(self):
        """No pre-copy: all state is read when the VM has stopped."""
        self.check_server('migration size=1M logging')

    def test_small_messages(self):
        """The server takes and gives 64 KiB at once."""
        self.check_server(MIGRATION, 'limits max_data_xfer_size=64K')

    def test_short_reads(self):
        """It always gives less than was asked for."""
        self.check_server(f'{MIGRATION} max-read=10007')

    def test_no_state(self):
        """Nothing but the engine's registers."""
        self.check_server('migration size=0 p2p logging', state=1)

    def test_big_state(self):
        """Longer than all buffers."""
        self.check_server('migration size=64M precopy p2p logging',
                          state=64 * MIB)

    def test_known_size(self):
        """The server says how much is to come."""
        self.check_server(f'{MIGRATION} data-size')

    def test_precopy_goes_on(self):
        """While the device runs, state becomes stale and is sent again."""
        self.check_server('migration size=1M precopy=4M per-second=1M p2p '
                          'logging', state=5 * MIB)

    def test_precopy_trickles(self):
        """There is never nothing."""
        self.check_server('migration size=1M precopy per-read=64K p2p '
                          'logging')

    def test_other_version(self):
        """The next server can do less, or more, than the one before."""
        side = self.boot_side()
        for lines in (('migration size=4K',),
                      ('migration size=64K p2p logging pgsize=64K data-size',
                       'limits max_data_xfer_size=32K no_twin_socket'),
                      ('migration size=1M precopy p2p logging max-read=999',
                       'limits write_multiple')):
            self.setup = self.setup._replace(
                device_options={'enable-migration': 'on'}, state=1)
            side = self.hop(side, devices=((ENGINE, *lines),))
        self.check_end(side)

    def test_nothing(self):
        """A device without any state: nothing of it is in the stream."""
        self.setup = self.setup._replace(state=0, devices=((
            'standard', 'migration size=0 p2p logging'),))
        source = self.start_side()
        source.guest.wait_boot()
        target, uri = self.incoming_side()
        self.send(source, uri)
        self.end_side(source)
        target.guest.number = source.guest.number
        self.assertEqual(target.guest.run('lspci | grep -c 1234:'), '1')

    # Ways

    def test_multifd(self):
        """Device state by multifd's channels."""
        self.check_server(MIGRATION, capabilities=MULTIFD,
                          device_options={'x-migration-multifd-transfer':
                                          'on'})

    def test_multifd_big_state(self):
        """More state than that many channels take at once."""
        self.check_server('migration size=64M precopy p2p logging',
                          state=64 * MIB, capabilities=MULTIFD,
                          device_options={'x-migration-multifd-transfer':
                                          'on'})

    def test_switchover_ack(self):
        """The target says when it has all initial data."""
        self.check_server(MIGRATION, capabilities=('return-path',
                                                   'switchover-ack'))

    def test_file(self):
        """The target starts when the source has gone."""
        source = self.boot_side()
        for _ in range(HOPS):
            uri = f'file:{self.scratch_file(source.name)}'
            self.send(source, uri)
            target = self.start_side('-incoming', 'defer')
            target.vm.cmd('migrate-incoming', uri=uri)
            self.take_over(source, target)
            source = target
        self.check_end(source)

    def snapshot_disk(self):
        """Arguments for a disk that can hold snapshots."""
        disk = self.scratch_file('snapshots.qcow2')
        if not os.path.exists(disk):
            tool = os.getenv('QEMU_TEST_QEMU_IMG', 'qemu-img')
            if not os.access(tool, os.X_OK):
                self.skipTest(f'no {tool}, which makes the disk for the '
                              'snapshots; build it with "make"')
            subprocess.run([tool, 'create', '-q', '-f', 'qcow2', disk, '1G'],
                           check=True)
        return ('-drive', f'if=none,id=disk,format=qcow2,file={disk}')

    def monitor(self, side, command):
        """A command of the human monitor that has nothing to say."""
        self.assertEqual(side.vm.cmd('human-monitor-command', {
            'command-line': command}), '', command)

    def test_snapshot(self):
        """Back to a moment of the same QEMU, twice, and in another one."""
        self.setup = self.setup._replace(args=self.snapshot_disk())
        side = self.boot_side()
        self.monitor(side, f'savevm {SNAPSHOT}')
        self.check_progress(side)
        for _ in range(2):
            self.monitor(side, f'loadvm {SNAPSHOT}')
            self.check_progress(side)
        self.end_side(side)
        other = self.start_side('-loadvm', SNAPSHOT)
        other.guest.number = side.guest.number
        self.check_progress(other)
        self.check_end(other)


if __name__ == '__main__':
    QemuSystemTest.main()
