#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that are held in an access, and a user who goes on.

The server is gone and waited for, or stopped. What the user asks of QEMU
meanwhile is done, whatever it asks of the vCPUs, and the access that is held
ends with what the server that returns says.
"""

import os
import re
from pathlib import Path

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_nasty import (
    BAR, COMMAND, COMMAND_ON, FREE, MSI, NEVER_MS, SLOT, VFIOUserNastyTest,
    bar_address, config_read, config_write, delay, ecam, eject, expect, read,
    write)

TIMES = 3
PAUSE = 0xffff
REGISTER, VALUE = 0x10, 0x600df00d
MSI_CONTROL, MSI_ON = 2, 1
COMMAND_MEMORY = 0x3
# A word across two pages, for which TCG needs all other CPUs to stand still
ACROSS = FREE + 0xffe
# Another device, and the two places of its BAR
OTHER_SLOT, OTHER_BAR = 7, 6
EDU = ['-device', f'edu,id=other,addr={OTHER_SLOT}']
# The longer ones by hand: as many as this says
MOVES = (1000, int(os.environ.get('VFIO_USER_NASTY_MOVES', 4000)))
MOST_GROWTH = 64 * MIB
SINGLE = ['-accel', 'tcg,thread=single']


class VFIOUserHeldTest(VFIOUserNastyTest):
    """A vCPU that reads, and the end of its server."""

    def boot_reading(self, args=(), cpus=2, machine='q35', **properties):
        """CPU 1 reads a register of the device, over and over."""
        self.server = self.serve(state=True)
        self.boot(*self.client(self.server, **properties), *args, cpus=cpus,
                  machine=machine)
        self.place()
        register = bar_address(0) + REGISTER
        self.do(write(register, VALUE))
        self.run_cpu(1, read(register), expect(VALUE))
        self.wait_turns(1)

    def hold(self, **options):
        """The same, and the server is killed."""
        self.boot_reading(**self.returning('hold'), **options)
        self.kill_server(self.guest, self.server)
        self.wait_held(1)

    def come_back(self, kept=True):
        """The server is there again."""
        self.server = self.bring_back(self.guest, self.server, kept)

    def check_answered(self):
        """CPU 1 goes on, and has never read anything else."""
        self.wait_turns(1)
        seen = self.sample().cpus[1]
        self.assertEqual((seen.ones, seen.wrong), (0, 0),
                         'reads that gave all-ones, or something else that '
                         f'is not {VALUE:#x}, while {self.doing}')
        self.end()


class VFIOUserHeld(VFIOUserHeldTest):
    """Under TCG."""

    def ask_all(self):
        """What needs an answer, or work, of each vCPU."""
        for _ in range(TIMES):
            self.assertIn('CPU#1', self.hmp('info registers -a'))
            self.monitor('stop')
            self.assertEqual(self.status(), 'paused')
            self.assertIn('CPU#1', self.hmp('info registers -a'))
            self.monitor('cont')
            self.assertEqual(self.status(), 'running')

    def test_stop_and_cont(self):
        """The held read is answered by the server that returns."""
        self.hold()
        self.doing = 'the VM is stopped and continued and CPU 1 is held'
        for _ in range(TIMES):
            self.monitor('stop')
            self.monitor('cont')
            self.wait_held(1)
        self.come_back()
        self.check_answered()

    def test_stopped_by_device(self):
        """The same where the device stops the VM."""
        self.boot_reading(**self.returning('stop'))
        self.doing = 'the device stops the VM, and its server returns'
        for _ in range(TIMES):
            self.kill_server(self.guest, self.server)
            self.wait_event(self.guest, 'STOP')
            self.assertEqual(self.status(), 'io-error')
            self.come_back()
            self.wait_event(self.guest, 'RESUME')
            self.wait_turns(1)
        self.check_answered()

    def test_asked_while_server_is_gone(self):
        """Registers, stop and cont; then the read is answered."""
        self.hold()
        self.doing = 'CPU 1 is held, its server gone'
        self.ask_all()
        self.come_back()
        self.check_answered()

    def test_asked_while_server_is_stopped(self):
        """The same while the server has not answered."""
        self.boot_reading(id='dev', addr=SLOT,
                          **{'x-msg-timeout-ms': NEVER_MS})
        self.stop_server(self.server)
        self.wait_held(1)
        self.doing = 'CPU 1 waits for a stopped server'
        self.ask_all()
        self.continue_server(self.server)
        self.check_answered()

    # Who else waits

    def test_unplug_of_another_device(self):
        """It goes, from memory too, while CPU 1 is held."""
        self.hold(args=EDU, machine='pc')
        self.doing = 'CPU 1 is held and another device is unplugged'
        self.monitor('device_del', id='other')
        self.do(eject(OTHER_SLOT))
        self.wait_event(self.guest, 'DEVICE_DELETED', device='other')
        self.wait_held(1)
        self.come_back()
        self.check_answered()

    def resident(self):
        """Bytes of QEMU's in memory."""
        text = Path(f'/proc/{self.guest.get_pid()}/status').read_text(
            encoding='ascii')
        return int(re.search(r'^VmRSS:\s+(\d+) kB$', text,
                             re.MULTILINE)[1]) * 1024

    def test_memory_while_held(self):
        """Another vCPU moves a BAR: QEMU does not grow without bound."""
        self.hold(args=EDU, cpus=3)
        self.open_ecam()
        self.do(write(ecam(OTHER_SLOT, COMMAND), COMMAND_ON, 2))
        before = self.resident()
        # A move takes KVM tens of milliseconds where a nested one runs.
        share = 20 if self.accel == 'kvm' else 1
        for moves in (n // share for n in MOVES):
            # With a pause, in which QEMU's RCU thread has its turn: a guest
            # that has none outruns it with any device.
            self.run_cpu(2, *(step for place in (OTHER_BAR, OTHER_BAR + 1)
                              for step in (write(ecam(OTHER_SLOT, BAR),
                                                 bar_address(place)),
                                           delay(PAUSE))),
                         times=moves // 2)
            while self.sample().cpus[2].busy:
                now = self.sample()
                growth = self.resident() - before
                self.doing = (f'CPU 1 is held and CPU 2 has moved a BAR '
                              f'{2 * now.cpus[2].turns} times')
                self.assertLess(growth, MOST_GROWTH // min(share, 4), 'what QEMU has grown by '
                                f'while {self.doing}')
                self.wait_turns(2, more=1)
        self.end()

    # The end

    def test_quit_of_two(self):
        """QEMU ends while two vCPUs are held."""
        self.hold(cpus=3)
        self.run_cpu(2, read(bar_address(0) + REGISTER))
        self.wait_held(2)
        self.doing = 'two vCPUs are held'
        self.end()

    # Config space

    def check_command(self, policy):
        """A write that the old server did not get is known to the new one."""
        self.server = self.serve()
        self.boot(*self.client(self.server, **self.returning(policy)))
        self.place()
        self.do(config_write(SLOT, COMMAND, COMMAND_MEMORY, 2))
        self.doing = 'a write of the command register is held'
        self.open_ecam()
        self.kill_server(self.guest, self.server)
        if policy == 'hold':
            self.run_cpu(1, write(ecam(SLOT, COMMAND), COMMAND_ON, 2),
                         times=1)
            self.wait_held(1)
        else:
            self.wait_event(self.guest, 'STOP')
        self.come_back(kept=False)
        if policy == 'hold':
            self.wait_idle(1)
        self.assertEqual(self.do(config_read(SLOT, COMMAND, 2)), COMMAND_ON,
                         'the command register after a write that was held')
        self.end()

    def test_config_write(self):
        """The server that returns begins anew, and is told."""
        self.check_command('hold')

    # Switches

    def test_msi_toggled_as_server_dies(self):
        """on-disconnect=stop: the VM stops, and the monitor answers."""
        self.server = self.serve(state=True)
        self.boot(*self.client(self.server, **self.returning('stop')))
        self.place()
        self.open_ecam()
        control = ecam(SLOT, self.capability(SLOT, MSI) + MSI_CONTROL)
        self.run_cpu(1, write(control, MSI_ON, 2), write(control, 0, 2))
        for number in range(10):
            self.doing = (f'the server dies, time {number}, and a vCPU '
                          'switches MSI on and off')
            self.wait_turns(1, more=10)
            self.kill_server(self.guest, self.server)
            self.wait_event(self.guest, 'STOP')
            self.assertEqual(self.status(), 'io-error')
            self.hmp('info registers -a')
            self.come_back()
            self.wait_event(self.guest, 'RESUME')
        self.wait_turns(1)
        self.end()


class VFIOUserHeldTCG(VFIOUserHeldTest):
    """Under TCG, what KVM does not have."""

    def test_quit_single(self):
        """A vCPU is held, the others of the thread go on, and QEMU ends."""
        self.server = self.serve()
        self.boot(*self.client(self.server, **self.returning('hold')),
                  accel=SINGLE)
        self.place()
        self.run_cpu(1, read(bar_address(0) + REGISTER))
        self.wait_turns(1)
        self.doing = 'one vCPU of the one thread of all vCPUs is held'
        self.kill_server(self.guest, self.server)
        self.wait_held(1)
        self.do(delay(0xfff))
        self.end()

    def test_quit_exclusive(self):
        """A vCPU executes alone while one is held, and QEMU ends."""
        self.hold()
        self.doing = 'CPU 0 wants CPU 1, which is held, to stand still'
        self.do(f'x:{ACROSS:x}')
        self.end()

    def test_stop_exclusive(self):
        """The same before stop and cont: the read is answered, and all go on."""
        self.hold()
        self.doing = 'CPU 0 wants CPU 1, which is held, to stand still'
        self.do(f'x:{ACROSS:x}')
        self.monitor('stop')
        self.assertEqual(self.status(), 'paused')
        self.monitor('cont')
        self.do(f'x:{ACROSS:x}')
        self.come_back()
        self.wait_turns(1)
        seen = self.sample().cpus[1]
        self.assertEqual((seen.ones, seen.wrong), (0, 0))
        self.end()


class VFIOUserHeldKVM(VFIOUserHeld):
    """Under KVM."""

    accel = 'kvm'


if __name__ == '__main__':
    QemuSystemTest.main()
