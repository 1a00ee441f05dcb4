#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Four vCPUs, two devices, and one server that dies and comes back.

The servers keep the registers of their devices (smp-guest/device.c, --state),
so nothing that a vCPU reads may be wrong or, where it waits for the server,
all-ones: each read has its answer, from the old server or from the new one.
"""

from pathlib import Path
import re

from qemu.qmp import ExecuteError
from qemu_test import QemuSystemTest

from vfio_user_reconnect import VFIOUserReturnTest
from vfio_user_server import wait_until
from vfio_user_smp import (A, B, DEADLINE, MANY, READERS_OF_A, SHARED,
                           VFIOUserSMPTest)

KILLS = 5
GIVE_UP_MS = 1000
SLOT = 5
OTHER_SLOT = 7
# ACPI hotplug of the pc machine: a bit for each slot of the bus
EJECT_PORT = 0xae08


class VFIOUserReconnectSMP(VFIOUserSMPTest, VFIOUserReturnTest):
    """A's server gets SIGKILL."""

    def start_device(self, identity, *args):
        """Its registers outlive it."""
        state = self.scratch_file(f'state{identity:x}')
        return super().start_device(identity, f'--state={state}', *args)

    def boot_returning(self, policy, *args, machine='q35', server_args=(),
                       **properties):
        """All vCPUs read."""
        properties = self.returning(policy, **properties)
        del properties['addr']      # A's place is in boot()
        self.boot(*args, machine=machine, server_args=server_args,
                  **properties)

    def kill(self):
        """A's server dies; the guest goes on, which is looked at."""
        self.kill_server(self.guest, self.server)
        return self.sample()

    def come_back(self, kept=True):
        """A's server is there again."""
        self.server = self.bring_back(self.guest, self.server, kept)

    def check_held(self, before):
        """Whoever reads A waits, nobody else does.

        A read that had its answer may still have been about to be counted.
        """
        later = self.wait_others(before)
        for cpu in READERS_OF_A:
            then, now = before.cpus[cpu], later.cpus[cpu]
            self.assertIn(now.good - then.good, (0, 1))
            self.assertEqual(now[1:], then[1:])
        return later

    def check_good(self, sample):
        """No read of A has failed."""
        for cpu in READERS_OF_A:
            self.assertEqual(sample.cpus[cpu].ones, 0,
                             f'a read of CPU {cpu} failed')

    def wait_ones(self, before):
        """A reads all-ones, again and again."""
        return self.wait_sample(
            lambda now: all(now.cpus[cpu].ones - before.cpus[cpu].ones > MANY
                            for cpu in READERS_OF_A),
            'A is offline')

    def check_hold(self, *args, **kwargs):
        """Kill, see the others go on, restart: no read was lost."""
        self.boot_returning('hold', *args, **kwargs)
        for _ in range(KILLS):
            later = self.check_held(self.kill())
            self.come_back()
            end = self.wait_readers(later)
        self.check_good(end)

    def test_hold(self):
        """Shared RAM."""
        self.check_hold(*SHARED)

    def test_hold_private(self):
        """Private RAM: the reads make the server do DMA by message."""
        self.check_hold()

    def test_hold_private_one_socket(self):
        """One vCPU at a time is at the server; the other waits for it."""
        self.check_hold(server_args=['--one-socket'])

    def test_hold_iothread(self):
        """With a thread of the user's for A."""
        self.check_hold('-object', 'iothread,id=io', iothread='io')

    def test_reset_keeps_reading(self):
        """A reset costs these registers nothing, so reading goes on."""
        self.boot_returning('hold', *SHARED, **{'reconnect-reset': 'on'})
        later = self.check_held(self.kill())
        self.come_back(kept=False)
        self.check_good(self.wait_readers(later))

    def test_offline(self):
        """All-ones while it is away, and then what is right again."""
        self.boot_returning('offline', *SHARED)
        for _ in range(KILLS):
            away = self.wait_ones(self.kill())
            self.come_back()
            self.wait_readers(away)

    def test_stop(self):
        """The VM stops, and goes on as the server is back."""
        self.boot_returning('stop', *SHARED)
        for _ in range(KILLS):
            before = self.sample()
            self.kill_server(self.guest, self.server)
            self.wait_event(self.guest, 'STOP')
            self.assertEqual(self.status(), 'io-error')
            self.come_back()
            self.wait_event(self.guest, 'RESUME')
            self.check_good(self.wait_readers(before))

    def status(self):
        """The VM's run state."""
        return self.guest.cmd('query-status')['status']

    def check_stopped_by_user(self, policy):
        """A VM that the user has stopped is the user's to continue."""
        self.boot_returning(policy, *SHARED)
        before = self.sample()
        self.guest.cmd('stop')
        self.kill_server(self.guest, self.server)
        self.assertEqual(self.status(), 'paused')
        self.come_back()
        self.assertEqual(self.status(), 'paused')
        self.guest.cmd('cont')
        self.check_good(self.wait_readers(before))

    def test_stopped_by_user_hold(self):
        """Nobody waits for the server."""
        self.check_stopped_by_user('hold')

    def test_stopped_by_user_stop(self):
        """The device did not stop the VM."""
        self.check_stopped_by_user('stop')

    def test_stop_while_held(self):
        """The monitor stops and continues a VM two of whose vCPUs wait."""
        self.boot_returning('hold', *SHARED)
        held = self.check_held(self.kill())
        self.guest.cmd('stop')
        self.assertEqual(self.status(), 'paused')
        self.guest.cmd('cont')
        held = self.check_held(held)
        self.guest.cmd('stop')
        self.come_back()
        self.assertEqual(self.status(), 'paused')
        self.guest.cmd('cont')
        self.check_good(self.wait_readers(held))

    def test_mistake_while_held(self):
        """A device_add that fails says so, although vCPUs wait for another.

        Nobody who waits for RCU gets it before they are through.
        """
        self.boot_returning('hold', *SHARED, machine='pc')
        held = self.check_held(self.kill())
        for _ in range(3):
            with self.assertRaisesRegex(ExecuteError, "'no-such' not found"):
                self.guest.cmd('device_add', {
                    'driver': 'edu', 'id': 'other', 'bus': 'no-such'})
            held = self.check_held(held)
        self.come_back()
        self.check_good(self.wait_readers(held))

    def test_stop_after_work(self):
        """Work is queued for the vCPUs that wait: memory moves, beside them.

        They cannot do it before their access is over, and count as stopped.
        """
        self.boot_returning('hold', *SHARED, machine='pc')
        held = self.check_held(self.kill())
        self.guest.cmd('device_add', {'driver': 'edu', 'id': 'other',
                                      'addr': f'{OTHER_SLOT:x}'})
        for _ in range(2):
            self.guest.cmd('stop')
            self.assertEqual(self.status(), 'paused')
            self.guest.cmd('cont')
            held = self.check_held(held)
        self.come_back()
        self.check_good(self.wait_readers(held))

    def reset(self):
        """The machine, while the server is away."""
        self.guest.cmd('system_reset')
        self.wait_event(self.guest, 'RESET')

    def wait_booted(self):
        """The guest has begun anew, and all its vCPUs read."""
        self.assertEqual(self.line(), 'ok cpus')
        self.check_good(self.wait_sample(
            lambda now: all(count.good > MANY for count in now.cpus.values()),
            'all vCPUs read again'))

    def test_reset_while_held(self):
        """The machine is reset while two vCPUs wait; the guest boots."""
        self.boot_returning('hold', *SHARED)
        for _ in range(3):
            self.check_held(self.kill())
            self.reset()
            self.come_back(kept=False)
            self.wait_booted()

    def test_reset_while_stopped(self):
        """The same of a VM that was stopped before, and is continued."""
        self.boot_returning('hold', *SHARED)
        for server_first in (True, False):
            self.check_held(self.kill())
            self.guest.cmd('stop')
            self.reset()
            if server_first:
                self.come_back(kept=False)
                self.guest.cmd('cont')
            else:
                self.guest.cmd('cont')
                self.come_back(kept=False)
            self.wait_booted()

    def test_reset_of_stopped_by_device(self):
        """The same of a VM that the device has stopped."""
        self.boot_returning('stop', *SHARED)
        for _ in range(2):
            self.kill_server(self.guest, self.server)
            self.wait_event(self.guest, 'STOP')
            self.reset()
            self.come_back(kept=False)
            wait_until(lambda: self.status() == 'running', DEADLINE,
                       'the VM goes on')
            self.wait_booted()

    def test_quit_while_held(self):
        """QEMU ends, and no vCPU asks migration, which is gone by then.

        That would be a use of freed memory, which only a sanitizer sees.
        """
        self.boot_returning('hold', *SHARED, '-trace', 'vfio_user_held_*')
        self.check_held(self.kill())
        before = Path(self.trace).read_text(encoding='utf8')
        self.guest.shutdown()
        self.assertEqual(self.guest.exitcode(), 0)
        trace = Path(self.trace).read_text(encoding='utf8')
        self.assertGreaterEqual(trace.count('vfio_user_held_hold dev'),
                                len(READERS_OF_A))
        self.assertEqual(trace.count('vfio_user_held_block'),
                         before.count('vfio_user_held_block'))

    def test_unplug_while_held(self):
        """device_del, and the guest lets go; its vCPUs read what is left."""
        self.boot_returning('hold', *SHARED, machine='pc')
        held = self.check_held(self.kill())
        self.guest.cmd('device_del', {'id': 'dev'})
        # What the guest's ACPI would do
        said = self.guest.cmd(
            'human-monitor-command',
            command_line=f'o /w {EJECT_PORT:#x} {1 << SLOT:#x}')
        self.assertEqual(said, '')
        wait_until(lambda: all(
            sum(count) - sum(held.cpus[cpu]) > MANY
            for cpu, count in self.ask().cpus.items()), DEADLINE,
            'all vCPUs go on without the device')
        # A vCPU of TCG that gets no interrupts is a reader of RCU until it
        # stops, which keeps what is left of the device.
        self.guest.cmd('stop')
        self.wait_event(self.guest, 'DEVICE_DELETED', device='dev')

    def test_unplug_asked(self):
        """The guest is to let go of the device, so its driver is answered."""
        self.boot_returning('hold', *SHARED, machine='pc')
        held = self.check_held(self.kill())
        self.guest.cmd('device_del', {'id': 'dev'})
        away = self.wait_ones(held)
        # It does not want to, and goes on when the server is back.
        self.come_back()
        self.wait_readers(away)

    def test_give_up(self):
        """After a time the vCPUs read ones, and the device stays away."""
        self.boot_returning('hold', *SHARED,
                            **{'reconnect-timeout-ms': GIVE_UP_MS})
        dead = self.server
        self.kill()
        self.wait_event(self.guest, 'VFIO_USER_GAVE_UP', device='dev')
        away = self.wait_ones(self.sample())
        self.server = self.again(dead).start()
        self.wait_ones(self.wait_others(away))
        self.assertEqual([event for event in self.guest.get_qmp_events()
                          if event['event'] == 'VFIO_USER_RECONNECTED'], [])

    def test_impostor(self):
        """Another device in its place is refused, and all wait on."""
        self.boot_returning('hold', *SHARED)
        held = self.check_held(self.kill())
        impostor = self.again(self.server, [
            arg.replace(f'={A}', f'={B}').replace(f'state{A:x}', 'state-x')
            for arg in self.server.argv]).start()
        refused = self.wait_event(self.guest, 'VFIO_USER_REFUSED',
                                  device='dev')
        self.assertRegex(refused['reason'], f'{B:x}')
        held = self.check_held(held)
        impostor.kill()
        self.server = impostor.again(self._paths()[1], self.server.argv)
        self.servers.append(self.server.start())
        self.wait_event(self.guest, 'VFIO_USER_RECONNECTED', device='dev')
        self.check_good(self.wait_readers(held))

    def test_log(self):
        """One line for the loss, one for the return."""
        self.boot_returning('hold', *SHARED)
        held = self.kill()
        self.come_back()
        self.wait_readers(held)
        self.guest.shutdown()
        text = self.guest.get_log()
        self.assertEqual(text.count('vfio-user-pci dev: connection lost'), 1,
                         text)
        self.assertEqual(text.count('vfio-user-pci dev: the server is back'),
                         1, text)


class VFIOUserReconnectSMPKVM(VFIOUserReconnectSMP):
    """Under KVM."""

    accel = 'kvm'


if __name__ == '__main__':
    QemuSystemTest.main()
