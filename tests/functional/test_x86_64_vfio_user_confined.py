#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU and its servers with no more rights than they need.

The documentation advises all of this; here it is done, and the device works.
"""

import asyncio
import json
import os
from pathlib import Path
import socket
import subprocess

from qemu_test import QemuSystemTest

from vfio_user_guest import VFIOUserGuestTest
from vfio_user_server import Server, listens, qemu_server, wait_until
import vfio_user_rows as rows

SLOT = '0000:00:05.0'
BEHIND_PORT = '0000:01:00.0'
EVENT_DEADLINE = 60.0
SERVER_DEADLINE = 30
SANDBOX = ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,'
           'resourcecontrol=deny']
SECCOMP_FILTER = '2'

# They need not have names.
SERVER_USER, QEMU_USER, OTHER_USER = 64101, 64102, 64103
SERVER_GROUP, OTHER_GROUP = 64101, 64103


def as_user(argv, user, group):
    """The command of a user who is in one group and gets no rights back."""
    return ['setpriv', f'--reuid={user}', f'--regid={group}',
            '--clear-groups', '--no-new-privs', *argv]


def process_status(pid, key):
    """A line of /proc/PID/status, for each thread."""
    lines = []
    for file in Path(f'/proc/{pid}/task').glob('*/status'):
        lines += [line.split()[1:] for line in file.read_text().splitlines()
                  if line.startswith(f'{key}:')]
    return lines


class VFIOUserConfined(VFIOUserGuestTest):
    """A disk works, whatever has been taken from the two processes."""

    def connect(self, server):
        """What a management layer does: connect, and remove the path."""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.connect(server.socket)
        os.unlink(server.socket)
        os.set_inheritable(connection.fileno(), True)
        return connection

    def wait_event(self, guest, name, match=None):
        """Until QEMU tells of it."""
        try:
            guest.vm.event_wait(name, EVENT_DEADLINE, match)
        except asyncio.TimeoutError:
            self.fail_with_logs(f'no {name} within {EVENT_DEADLINE} s')

    def unplug(self, guest, name):
        """device_del, and the guest lets go."""
        guest.vm.cmd('device_del', {'id': name})
        self.wait_event(guest, 'DEVICE_DELETED', {'data': {'device': name}})

    # Handed over

    @staticmethod
    def handed_over(connection):
        """A device on a connection that QEMU inherits."""
        return ['-device', json.dumps({
            'driver': 'vfio-user-pci', 'id': 'inherited', 'addr': '5',
            'socket': {'type': 'fd', 'str': str(connection.fileno())}})]

    def test_handed_over(self):
        """QEMU's own server, reached through descriptors alone."""
        first = self.serve_disk(rows.NVME)
        connection = self.connect(first)
        guest = self.boot('-device', 'pcie-root-port,id=port1,slot=1',
                          *self.handed_over(connection))
        connection.close()
        self.check_disk(guest, first, rows.NVME, SLOT)

        second = self.serve_disk(rows.VIRTIO_BLK)
        connection = self.connect(second)
        guest.vm.send_fd_scm(connection.fileno())
        guest.vm.cmd('getfd', {'fdname': 'second'})
        connection.close()
        guest.vm.cmd('device_add', {
            'driver': 'vfio-user-pci', 'id': 'hot', 'bus': 'port1',
            'socket': {'type': 'fd', 'str': 'second'}})
        self.check_disk(guest, second, rows.VIRTIO_BLK, BEHIND_PORT)
        self.unplug(guest, 'hot')
        self.assertEqual(second.wait(), 0, 'the server ended badly')

    # System calls

    def check_sandboxed(self, pid):
        """All threads are under a filter of system calls."""
        modes = process_status(pid, 'Seccomp')
        self.assertTrue(modes)
        self.assertEqual([mode for mode in modes if mode != [SECCOMP_FILTER]],
                         [])

    def test_sandbox(self):
        """-sandbox on both sides: use, reboot, hotplug, a server's return."""
        self.require_sandbox()
        first = self.serve_sandboxed(rows.NVME)
        guest = self.boot(*SANDBOX, '-device',
                          'pcie-root-port,id=port1,slot=1',
                          *self.client(first, addr='5',
                                       **{'reconnect-ms': 100}))
        self.check_sandboxed(guest.vm.get_pid())
        self.check_sandboxed(first.process.pid)
        self.check_disk(guest, first, rows.NVME, SLOT)
        guest.reboot()
        self.check_disk(guest, first, rows.NVME, SLOT)

        second = self.serve_sandboxed(rows.VIRTIO_BLK)
        guest.vm.cmd('device_add', {
            'driver': 'vfio-user-pci', 'id': 'hot', 'bus': 'port1',
            'socket': second.socket})
        self.check_disk(guest, second, rows.VIRTIO_BLK, BEHIND_PORT)
        self.unplug(guest, 'hot')
        self.assertEqual(second.wait(), 0, 'the server ended badly')

        first.kill()
        again = first.again(self._paths()[1])
        self.servers.append(again)
        again.start()
        self.wait_event(guest, 'VFIO_USER_RECONNECTED')
        self.check_sandboxed(guest.vm.get_pid())
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'running')
        guest.run('echo still there')

    def require_sandbox(self):
        """Skip where this QEMU was built without seccomp."""
        result = subprocess.run([self.qemu_bin, '-M', 'none', '-sandbox', 'on',
                                 '-version'], capture_output=True, check=False)
        if result.returncode:
            self.skipTest(f'{self.qemu_bin} has no -sandbox: configure it '
                          'with --enable-seccomp')

    def serve_sandboxed(self, row):
        """serve_disk(), with system calls taken from the server."""
        return self.serve_disk(row._replace(server=[*SANDBOX, *row.server]))

    # Users

    def require_users(self):
        """Skip where we cannot be others, or others cannot get here."""
        if os.geteuid():
            self.skipTest('only root can run programs as other users')
        for path in (self.kernel, self.initrd, self.qemu_bin, self.workdir):
            test = as_user(['test', '-r', str(path)], QEMU_USER, SERVER_GROUP)
            if subprocess.run(test, check=False).returncode:
                self.skipTest(f'other users cannot read {path}: a directory '
                              'above it is private')

    def serve_as_user(self, row):
        """A server with a user, a network and a System V IPC of its own.

        Whoever is in its group can reach its socket."""
        self.require_object('x-vfio-user-server')
        image = self.scratch_file(f'disk{len(self.servers)}.img')
        with open(image, 'wb') as file:
            file.truncate(row.size)
        os.chown(image, SERVER_USER, SERVER_GROUP)
        directory = self.socket_dir().name
        os.chown(directory, SERVER_USER, SERVER_GROUP)
        os.chmod(directory, 0o750)

        path, log = self._paths()
        device = [arg.format(image=image) for arg in row.server]
        argv = as_user(qemu_server(self.qemu_bin, device, path, log).argv,
                       SERVER_USER, SERVER_GROUP)
        server = Server(['sh', '-c', 'umask 007 && exec unshare --net --ipc '
                         '"$@"', 'sh', *argv], path, log)
        self.servers.append(server)
        server.image = image
        server.launch()
        wait_until(lambda: not server.running() or
                   listens(path, server.process.pid), SERVER_DEADLINE,
                   f'the server listens on {path}')
        return server

    def boot_as_user(self, user, group, *args):
        """boot(), with a QEMU that is that user's."""
        qemu = as_user([self.qemu_bin], user, group)
        wrapper = self.scratch_file('qemu-as-user')
        Path(wrapper).write_text('#!/bin/sh\nexec %s "$@"\n' % ' '.join(qemu),
                                 encoding='ascii')
        os.chmod(wrapper, 0o755)
        self.qemu_bin = wrapper
        console = self.log_file('guest-console.log')
        Path(console).touch()
        os.chown(console, user, group)
        guest = self.boot(*args)
        self.assertEqual(process_status(guest.vm.get_pid(), 'Uid')[0],
                         [str(user)] * 4)
        return guest

    def test_group(self):
        """Two users, and a group that may use the socket."""
        self.require_users()
        server = self.serve_as_user(rows.NVME)
        self.assertEqual(os.stat(server.socket).st_mode & 0o777, 0o770)
        guest = self.boot_as_user(QEMU_USER, SERVER_GROUP,
                                  *self.client(server, addr='5'))
        self.assertEqual(process_status(server.process.pid, 'Uid')[0],
                         [str(SERVER_USER)] * 4)
        self.check_disk(guest, server, rows.NVME, SLOT)

    def test_no_access(self):
        """Who is not in the group has to be given a connection."""
        self.require_users()
        server = self.serve_as_user(rows.NVME)
        argv = as_user([self.qemu_bin, '-display', 'none', '-nodefaults',
                        *self.client(server)], OTHER_USER, OTHER_GROUP)
        result = subprocess.run(argv, capture_output=True, check=False,
                                encoding='utf8', stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"cannot connect to '{server.socket}': Permission "
                      'denied', result.stderr)

        connection = self.connect(server)
        guest = self.boot_as_user(OTHER_USER, OTHER_GROUP,
                                  *self.handed_over(connection))
        connection.close()
        self.check_disk(guest, server, rows.NVME, SLOT)


if __name__ == '__main__':
    QemuSystemTest.main()
