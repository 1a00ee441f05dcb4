# SPDX-License-Identifier: GPL-2.0-or-later
"""Base of the tests that migrate a guest with an engine.

The engine is the device of tests/server that fills pages of guest memory by
DMA; tests/server/engine.h says how.  In the guest runs scripts/guest/engine.c,
which checks all that the device does and says what was wrong first.

A hop is a migration to a new QEMU with a server of its own.  What a guest has
to say goes over its serial port, so each QEMU has its own end of that, too.
"""

import os
from pathlib import Path
from typing import NamedTuple

from qemu.machine.machine import AbnormalShutdown

from vfio_user_case import MIB, REPOSITORY
from vfio_user_channel import Guest
import vfio_user_guest
from vfio_user_lock_waits import MIGRATION_WAITS
from vfio_user_server import Server, wait_until

MEMORY = '256M'
# What the engines fill: the kernel leaves it alone.
BUFFERS = 224 * MIB
BUFFER_SIZE = 4 * MIB
APPEND = f'memmap={2 * BUFFER_SIZE}${BUFFERS}'

ENGINE = 'engine'
MIGRATION = 'migration size=1M precopy p2p logging'
ADDRESSES = ['0000:00:05.0', '0000:00:06.0']
BATCHES = 20            # that show that it goes on

DEADLINE = 120
ENDED = ('completed', 'failed', 'cancelled')
# Bytes per second: soon through all memory; less than what engines write.
FAST, SLOW = 256 * MIB, MIB
# Milliseconds: pre-copy cannot end; it ends at once. Nothing here depends on
# how fast the machine is.
SHORT, LONG = 1, 600000
TRACE = ['vfio_user_migration_*', 'vfio_user_dirty_start',
         'vfio_user_dirty_stop', 'vfio_user_load_*', 'vfio_user_conn_failed']


def find_server():
    """The program of tests/server."""
    return os.getenv('VFIO_USER_TEST_SERVER', str(
        REPOSITORY / 'build' / 'tests' / 'server' / 'vfio-user-test-server'))


class Setup(NamedTuple):
    """What a test may want otherwise than usual."""

    devices: tuple = ((ENGINE, MIGRATION),)     # lines of each server
    device_options: dict = {}                   # of vfio-user-pci
    args: tuple = ()                            # of QEMU
    machine: str = 'q35'
    share: str = 'on'                           # of guest RAM
    capabilities: tuple = ()
    state: int = MIB                            # bytes, of all devices


class Side(NamedTuple):
    """A QEMU, its servers and the channel to the guest in it."""

    name: str
    guest: Guest
    servers: list

    @property
    def vm(self):
        """The QEMU."""
        return self.guest.vm

    def status(self):
        """Of the migration."""
        return self.vm.cmd('query-migrate').get('status', 'none')


class VFIOUserMigrationTest(vfio_user_guest.VFIOUserGuestTest):
    """Sides, hops, and what the guest says."""

    lock_waits = MIGRATION_WAITS

    setup = Setup()

    def setUp(self):
        super().setUp()
        self.nr_sides = 0
        if not os.access(find_server(), os.X_OK):
            self.skipTest(f'no {find_server()}: build it with "make", or name '
                          'it in VFIO_USER_TEST_SERVER')

    def serve_lines(self, *lines):
        """Start a test server with the device that the lines describe."""
        path, log = self._paths()
        argv = [find_server(), f'--socket-path={path}']
        for line in lines:
            argv += ['--set', line]
        server = Server(argv, path, log)
        self.servers.append(server)
        return server.start()

    def start_side(self, *args, devices=None):
        """A QEMU with its servers; devices are lines of each server."""
        servers = [self.serve_lines(*lines)
                   for lines in (self.setup.devices if devices is None
                                 else devices)]
        name = f'side{self.nr_sides}'
        self.nr_sides += 1
        trace = self.log_file(f'{name}-trace.log')
        self.logs.append(trace)
        args = [*self.setup.args, '-D', trace, *args]
        for event in TRACE:
            args += ['-trace', event]
        for i, server in enumerate(servers):
            args += self.client(server, id=f'dev{i}', addr=str(5 + i),
                                **self.setup.device_options)
        guest = self.launch_guest(*args, name=name, memory=MEMORY,
                                  machine=self.setup.machine, append=APPEND,
                                  share=self.setup.share)
        side = Side(name, guest, servers)
        for capability in self.setup.capabilities:
            side.vm.cmd('migrate-set-capabilities', capabilities=[
                {'capability': capability, 'state': True}])
        return side

    def boot_side(self, *args):
        """A side with a guest that is up, and its engines at work."""
        side = self.start_side(*args)
        side.guest.wait_boot()
        self.start_engines(side)
        return side

    def incoming_side(self, **options):
        """A side that waits for a guest, and the address to send it to."""
        side = self.start_side('-incoming', 'defer', **options)
        uri = f'unix:{self.socket_dir().name}/{side.name}'
        side.vm.cmd('migrate-incoming', uri=uri)
        return side, uri

    def end_side(self, side):
        """A QEMU that is not needed any more, and its servers."""
        side.vm.shutdown()
        for server in side.servers:
            server.stop()

    def said(self, side):
        """All that a QEMU has told its user so far."""
        return Path(self.log_file(f'{side.name}.log')).read_text(
            encoding='utf-8', errors='replace')

    # What the guest says

    def engines(self):
        """Their numbers; they come before other devices."""
        return range(sum(lines[0] == ENGINE for lines in self.setup.devices))

    def start_engines(self, side):
        """Also after the guest or a device was reset."""
        for nr in self.engines():
            side.guest.run(f'engine start {ADDRESSES[nr]} '
                           f'{BUFFERS + nr * BUFFER_SIZE} {BUFFER_SIZE} {nr}')
        self.check_progress(side)

    def check_progress(self, side, batches=BATCHES):
        """The engines go on, and nothing was wrong so far."""
        for nr in self.engines():
            self.log.info('%s: %s', side.name, side.guest.run(
                f'engine wait {ADDRESSES[nr]} {batches}'))

    def check_end(self, side):
        """Stop the engines; all pages are right and nothing is missing."""
        for nr in self.engines():
            self.log.info('%s: %s', side.name, side.guest.run(
                f'engine stop {ADDRESSES[nr]}'))

    # Migration

    def wait_migration(self, side, deadline=DEADLINE):
        """How the migration of a side ended."""
        wait_until(lambda: side.status() in ENDED, deadline,
                   f'the migration of {side.name} ends')
        return side.vm.cmd('query-migrate')

    def set_limits(self, side, speed, downtime):
        """Bytes per second and milliseconds."""
        side.vm.cmd('migrate-set-parameters', {
            'max-bandwidth': speed, 'downtime-limit': downtime})

    def generation(self, side):
        """How often the first engine has begun to fill its buffer."""
        text = side.vm.cmd('human-monitor-command', {
            'command-line': f'xp/2gx {BUFFERS:#x}'})
        return int(text.split()[-1], 16)

    def precopy(self, source, uri):
        """Migrate, until all memory was sent and is out of date again."""
        self.set_limits(source, FAST, SHORT)
        source.vm.cmd('migrate', uri=uri)

        def ended():
            return source.status() not in ('setup', 'active')

        def once():
            info = source.vm.cmd('query-migrate')
            return (info.get('ram', {}).get('dirty-sync-count', 0) > 1
                    # It comes after memory, and may never leave off.
                    or info.get('vfio', {}).get('transferred', 0) > 0)

        wait_until(lambda: ended() or once(), DEADLINE,
                   f'{source.name} has sent all memory')
        self.set_limits(source, SLOW, SHORT)
        first = self.generation(source)
        # Pages of generation 1 follow pages that nobody has written.
        wait_until(lambda: ended() or self.generation(source) > first + 1,
                   DEADLINE, 'the engine goes round')

    def send(self, source, uri):
        """Migrate, which must succeed."""
        self.precopy(source, uri)
        self.set_limits(source, 0, LONG)
        self.check_completed(source)

    def check_completed(self, source):
        """The migration succeeds, and device state was counted."""
        info = self.wait_migration(source)
        self.assertEqual(info['status'], 'completed', info)
        self.assertGreaterEqual(info['vfio']['transferred'],
                                self.setup.state, info)
        self.log.info('%s: %d ms, down %d ms, %d bytes of state',
                      source.name, info['total-time'], info['downtime'],
                      info['vfio']['transferred'])

    def take_over(self, source, target):
        """The guest runs at the target; the source is let go."""
        wait_until(lambda: target.vm.cmd('query-status')['status']
                   == 'running', DEADLINE, f'{target.name} runs')
        self.end_side(source)
        target.guest.number = source.guest.number
        self.check_progress(target)

    def hop(self, source, **options):
        """Migrate to a new side, which is returned."""
        target, uri = self.incoming_side(**options)
        self.send(source, uri)
        self.take_over(source, target)
        return target

    def there_and_back(self, hops, **setup):
        """A guest, so many hops, and every page at the end."""
        self.setup = Setup(**setup)
        side = self.boot_side()
        for _ in range(hops):
            side = self.hop(side)
        self.check_end(side)

    def expect_death(self, side, *texts):
        """A QEMU that waited for a guest has ended and says why."""
        try:
            side.vm.wait(DEADLINE)
        except AbnormalShutdown:
            pass
        self.assertEqual(side.vm.exitcode(), 1, side.name)
        for text in texts:
            self.assertRegex(self.said(side), text)
        del self._vms[side.name]        # nobody is to complain about it
