# SPDX-License-Identifier: GPL-2.0-or-later
"""Base of the tests that put a device server beside a QEMU.

A test starts its servers by table row or by name, and gets them stopped when
it ends.  A server that died of a signal, and a QEMU that did not end with 0,
fail the test that used them, whatever the test itself thought of the matter.
So does a QEMU that has waited for a server with the BQL for what it may not.
What a failing assertion says ends with the names of all logs that can tell
more; they stay after the test.
"""

import os
from pathlib import Path
import signal
import subprocess
from typing import List, NamedTuple

from qemu.qmp.protocol import StateError
from qemu.qmp.qmp_client import ExecInterruptedError
from qemu_test import QemuSystemTest

import vfio_user_lock_waits
from vfio_user_server import Server, qemu_server, wait_until
from vfio_user_watchdog import Watchdog

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20
STOP_DEADLINE = 30
# QEMU does not end with its guest: it can be asked before.
GUEST_ENDS = ('-action', 'shutdown=pause')


class Disk(NamedTuple):
    """A row of the table: a disk controller in a server process."""

    server: List[str]   # the server's arguments, {image} is the disk's file
    driver: str         # the guest's driver
    disk: str           # the guest's block device
    irq: str            # intx, msi or msix
    size: int = 64 * MIB
    firmware: str = ''  # the board's own, where nothing is named


class VFIOUserTest(QemuSystemTest):
    """Servers, and what to say on failure."""

    # What QEMU waits for a server for with the BQL, in these tests
    lock_waits = ()

    def setUp(self):
        super().setUp()
        self.complaints = []
        self.servers = []
        self.logs = []
        Watchdog(self, self.running, self.log_file('stacks.log')).start()

    def running(self):
        """Name and process of each QEMU that runs."""
        return [(name, vm.get_pid()) for name, vm in self._vms.items()
                if vm.is_running()]

    def has_failed(self):
        """What is wrong has been reported already."""
        result = self._outcome.result
        return any(test is self for test, _ in result.failures + result.errors)

    def check_lock_waits(self, devices):
        """The answer to query-vfio-user, before a QEMU ends."""
        self.complaints += vfio_user_lock_waits.complaints(devices,
                                                           self.lock_waits)

    def _new_vm(self, name, *args):
        """One that is asked for its waits before it is shut down."""
        vm = super()._new_vm(name, *args)
        shutdown = vm.shutdown

        def checked(*args, **kwargs):
            try:
                if vm.is_running() and not self.has_failed():
                    self.check_lock_waits(vm.cmd('query-vfio-user'))
            except (ExecInterruptedError, StateError):
                pass    # It has not begun, or is about to end with an error.
            finally:
                shutdown(*args, **kwargs)
        vm.shutdown = checked
        return vm

    @staticmethod
    def wait_end(vm, deadline, what):
        """The guest of a QEMU with GUEST_ENDS powers off, and QEMU ends."""
        wait_until(lambda: vm.cmd('query-status')['status'] == 'shutdown',
                   deadline, what)
        vm.shutdown()

    def tearDown(self):
        super().tearDown()
        for server in self.servers:
            server.stop()
        crashes = [f'{server.argv[0]} died of {server.crashed()}, see '
                   f'{server.log}'
                   for server in self.servers if server.crashed()]
        crashes += [f'QEMU "{name}" ended with status {vm.exitcode()}, see '
                    f'{self.log_file(name + ".log")}'
                    for name, vm in self._vms.items() if vm.exitcode()]
        crashes += self.complaints
        for crash in crashes:
            self.log.error(crash)
        # A test that failed has been reported, and TAP has one line a test.
        if not self.has_failed():
            self.assertFalse(crashes, '\n'.join(crashes))

    def require_object(self, name):
        """Skip where this QEMU was built without the object."""
        known = subprocess.run([self.qemu_bin, '-M', 'none', '-object',
                                'help'], capture_output=True, check=True,
                               encoding='utf8').stdout
        if name not in known.split():
            self.skipTest(f'{self.qemu_bin} has no object {name}: configure '
                          'it with --enable-multiprocess '
                          '--enable-vfio-user-server')

    def with_logs(self, message):
        """A message, and where to look."""
        logs = [*self.logs, *(server.log for server in self.servers)]
        return '\n      '.join([f'{message}\nLogs:', *map(str, logs)])

    def fail_with_logs(self, message):
        """Fail, and say where to look."""
        self.fail(self.with_logs(message))

    def _formatMessage(self, msg, standardMsg):
        """What unittest calls when an assertion fails."""
        return self.with_logs(super()._formatMessage(msg, standardMsg))

    def _paths(self):
        """Socket and log of the next server."""
        name = f'server{len(self.servers)}'
        return (os.path.join(self.socket_dir().name, name),
                self.log_file(f'{name}.log'))

    def serve(self, device):
        """Start QEMU's server for a device with id=dev."""
        self.require_object('x-vfio-user-server')
        server = qemu_server(self.qemu_bin, device, *self._paths())
        self.servers.append(server)
        return server.start()

    def stop_server(self, server):
        """Stop it now, and let it go on when the test ends."""
        os.kill(server.process.pid, signal.SIGSTOP)
        self.addCleanup(self.continue_server, server)
        stat = f'/proc/{server.process.pid}/stat'

        def stopped():
            with open(stat, encoding='ascii') as file:
                return file.read().rsplit(')', 1)[1].split()[0] == 'T'
        wait_until(stopped, STOP_DEADLINE, 'the server stops')

    @staticmethod
    def continue_server(server):
        """SIGCONT, if it is still there."""
        if server.running():
            os.kill(server.process.pid, signal.SIGCONT)

    def serve_disk(self, row):
        """Start the server of a table row on a new image file."""
        image = self.scratch_file(f'disk{len(self.servers)}.img')
        with open(image, 'wb') as file:
            file.truncate(row.size)
        server = self.serve([arg.format(image=image) for arg in row.server])
        server.image = image
        return server

    def sample_path(self, name):
        """Where libvfio-user's sample program of that name is."""
        samples = os.getenv('VFIO_USER_SAMPLES', self.build_file(
            'subprojects', 'libvfio-user', 'samples'))
        path = os.path.join(samples, name)
        if not os.access(path, os.X_OK):
            self.skipTest(f'libvfio-user\'s sample "{name}" is not built in '
                          f'{samples}; VFIO_USER_SAMPLES can name another '
                          'directory')
        return path

    def serve_program(self, program, *args, socket_env=None):
        """Start a server; its socket is an argument, or in a variable."""
        socket, log = self._paths()
        argv, env = [program, *args], {}
        if socket_env:
            env[socket_env] = socket
        else:
            argv.append(socket)
        server = Server(argv, socket, log, env)
        self.servers.append(server)
        return server.start()

    def serve_sample(self, name, *args):
        """Start one of libvfio-user's samples."""
        return self.serve_program(self.sample_path(name), *args)

    @staticmethod
    def client(server, **properties):
        """The arguments that attach a server's device to the guest."""
        options = [f'vfio-user-pci,socket={server.socket}']
        options += [f'{key}={value}' for key, value in properties.items()]
        return ['-device', ','.join(options)]
