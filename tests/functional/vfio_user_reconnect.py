# SPDX-License-Identifier: GPL-2.0-or-later
"""Base of the tests in which a server dies and comes back.

A server that comes back is the same program with the same arguments at the
same socket; whether it still knows what the guest had told the one before is
its own affair.
"""

import asyncio

from vfio_user_blocks import BlockLoad, make_initrd
from vfio_user_case import VFIOUserTest
from vfio_user_guest import VFIOUserGuestTest

EVENT_DEADLINE = 60.0
# Milliseconds until the first attempt; the pauses grow with the absence.
RECONNECT_MS = 50
RUNS = 10               # that show that a disk goes on


class VFIOUserReturnTest(VFIOUserTest):
    """Servers that die and come back, and what QEMU says of it."""

    def wait_event(self, vm, name, **data):
        """The next event of that name, with these in its data."""
        try:
            event = vm.event_wait(name, EVENT_DEADLINE,
                                  match={'data': data} if data else None)
            return event.get('data')
        except asyncio.TimeoutError:
            return self.fail_with_logs(f'no {name} {data} within '
                                       f'{EVENT_DEADLINE} s')

    def again(self, server, argv=None):
        """A server in the place of a dead one; other arguments, another."""
        _, log = self._paths()
        new = server.again(log, argv)
        new.image = getattr(server, 'image', None)
        self.servers.append(new)
        return new

    def kill_server(self, vm, server):
        """SIGKILL; QEMU says that it connects again."""
        server.kill()
        lost = self.wait_event(vm, 'VFIO_USER_DISCONNECTED', device='dev')
        self.assertTrue(lost['reconnecting'], lost)

    def bring_back(self, vm, server, kept=False):
        """Start it again; QEMU says that it is back, and what it knows."""
        new = self.again(server).start()
        back = self.wait_event(vm, 'VFIO_USER_RECONNECTED', device='dev')
        self.assertEqual(back['kept'], kept, back)
        return new

    @staticmethod
    def returning(policy, **properties):
        """Properties of a device whose server may come back."""
        return {'id': 'dev', 'addr': '5', 'reconnect-ms': RECONNECT_MS,
                'on-disconnect': policy, **properties}


class VFIOUserReconnectTest(VFIOUserReturnTest, VFIOUserGuestTest):
    """The same with a booted guest that verifies what its disks hold."""

    def boot_disk(self, row, policy, io_timeout_ms, *args, **properties):
        """A guest at work on a disk; its server, itself, its work."""
        self.initrd = make_initrd(self.initrd, self.workdir)
        server = self.serve_disk(row)
        guest = self.boot('-smp', '2', *args,
                          *self.client(server,
                                       **self.returning(policy,
                                                        **properties)))
        guest.run(f'wait_disk {row.disk}')
        name = row.disk.removeprefix('/dev/')
        guest.run(f'echo {io_timeout_ms} >/sys/class/block/{name}/queue/'
                  'io_timeout')
        load = BlockLoad('dev', server.image, self.fail_with_logs)
        load.start(guest, row.disk)
        load.wait(guest, RUNS)
        return server, guest, load
