#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Four vCPUs, two devices, and one server that is stopped.

The guest (smp-guest/guest.c) has two vCPUs read device A and one device B
without end, while the fourth answers questions on the serial port.  Stopping
A's server must hold up the two and nobody else, and what they read is right
at any time.  "Goes on" means: before the server is continued.  No test looks
at how long anything took.
"""

import errno
import functools
import os
from pathlib import Path
import platform
import re
import shutil
import signal
import socket
import tempfile
from typing import NamedTuple
import unittest

from qemu_test import QemuSystemTest

import test_x86_64_vfio_user_kvm as flat
from vfio_user_case import REPOSITORY, VFIOUserTest
from vfio_user_server import Server, wait_until

FUNCTIONAL = REPOSITORY / 'tests' / 'functional'
SOURCES = FUNCTIONAL / 'smp-guest'
PARTS = FUNCTIONAL / 'kvm-guest'

DEADLINE = 30
NEVER_MS = 600000
SHORT_MS = 500
REGION_READ = '9'
# What is "goes on": reads, and turns of a loop
MANY = 300
A, B = 0x7361, 0x7362
READERS_OF_A = (1, 3)
READER_OF_B = 2
SHARED = ['-machine', 'memory-backend=mem',
          '-object', 'memory-backend-memfd,id=mem,size=64M,share=on']


class Count(NamedTuple):
    """What a vCPU has read so far."""

    good: int
    ones: int
    wrong: int


class Sample(NamedTuple):
    """The guest's answer: turns of CPU 0, and a Count for each other one."""

    turns: int
    cpus: dict


@functools.lru_cache(maxsize=None)
def programs():
    """Guest and device server, compiled once for all tests."""
    if platform.machine() != 'x86_64':
        raise unittest.SkipTest('the guest is compiled for x86 by the host\'s '
                                f'compiler, and this is {platform.machine()}')
    for tool in ('cc', 'pkg-config'):
        if not shutil.which(tool):
            raise unittest.SkipTest(f'no "{tool}" to compile the guest; '
                                    'install build-essential and pkg-config')
    directory = Path(tempfile.mkdtemp(prefix='vfio-user-smp-'))
    unittest.addModuleCleanup(shutil.rmtree, directory)
    guest, device = directory / 'guest', directory / 'device'
    flat.compile_program(*flat.GUEST_FLAGS, f'-I{PARTS}', '-o', guest,
                         PARTS / 'start.S',
                         *[PARTS / f'{name}.c'
                           for name in ('report', 'platform', 'pci')],
                         SOURCES / 'guest.c')
    flat.compile_program('-g', '-O1', '-pthread', '-o', device,
                         f'-I{REPOSITORY}/include', f'-I{flat.SERVER}',
                         SOURCES / 'device.c',
                         *flat.server_sources(), *flat.glib_flags())
    return guest, device


class VFIOUserDeviceTest(VFIOUserTest):
    """Base of the tests with the device of smp-guest/device.c."""

    def start_device(self, identity, *args):
        """A server for it."""
        path, log = self._paths()
        server = Server([str(programs()[1]), f'--socket-path={path}',
                         f'--device={identity}', *args], path, log)
        self.servers.append(server)
        return server.start()


class VFIOUserSMP(VFIOUserDeviceTest):
    """A's server gets SIGSTOP and SIGCONT."""

    def boot(self, *args, server_args=(), **properties):
        """Start both servers and the guest, and wait until all read."""
        self.server = self.start_device(A, *server_args)
        other = self.start_device(B, *server_args)
        self.trace = self.log_file('trace.log')
        self.logs += [self.trace, self.log_file('guest.log')]
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE)
        self.addCleanup(ours.close)
        os.set_inheritable(theirs.fileno(), True)
        self.guest = self.get_vm(name='guest')
        self.guest.set_machine('q35')
        self.guest.add_args('-accel', 'tcg,thread=multi', '-smp', '4',
                         '-m', '64M', *flat.BOARD,
                         '-chardev', f'socket,id=serial,fd={theirs.fileno()}',
                         '-serial', 'chardev:serial',
                         '-kernel', str(programs()[0]),
                         '-trace', 'vfio_user_conn_give_up',
                         '-trace', 'vfio_user_conn_failed',
                         '-trace', 'vfio_user_device_access_failed',
                         '-D', self.trace,
                         *self.client(self.server, addr='5', **properties),
                         *self.client(other, addr='6'), *args)
        self.guest.launch()
        theirs.close()
        self.serial = ours.makefile('rw', encoding='ascii')
        self.addCleanup(self.serial.close)
        self.assertEqual(self.line(), 'ok cpus')
        self.wait_sample(lambda now: all(count.good > MANY
                                         for count in now.cpus.values()),
                         'all vCPUs read')

    def line(self):
        """The next line of the guest."""
        try:
            return self.serial.readline().rstrip('\n')
        except socket.timeout:
            return self.fail_with_logs('the guest does not answer within '
                                       f'{DEADLINE} s')

    def sample(self):
        """Ask CPU 0; QEMU's monitor has to answer, too."""
        self.assertEqual(self.guest.cmd('query-status')['status'], 'running')
        self.serial.write('s')
        self.serial.flush()
        word, *numbers = self.line().split()
        self.assertEqual(word, 'sample')
        turns, *counts = (int(number, 16) for number in numbers)
        cpus = {cpu: Count(*counts[3 * cpu - 3:3 * cpu])
                for cpu in (1, 2, 3)}
        for cpu, count in cpus.items():
            self.assertEqual(count.wrong, 0, f'CPU {cpu} read wrong data')
        self.assertEqual(cpus[READER_OF_B].ones, 0,
                         'the other device failed accesses')
        return Sample(turns, cpus)

    def wait_sample(self, condition, what):
        """Ask until the answer is as wanted, and return it."""
        last = None

        def wanted():
            nonlocal last
            last = self.sample()
            return condition(last)
        wait_until(wanted, DEADLINE, what)
        return last

    def stop_server(self):
        """Stop A's server now, and let it go on when the test ends."""
        os.kill(self.server.process.pid, signal.SIGSTOP)
        self.addCleanup(self.continue_server)
        stat = Path(f'/proc/{self.server.process.pid}/stat')
        wait_until(lambda: stat.read_text(encoding='ascii')
                   .rsplit(')', 1)[1].split()[0] == 'T',
                   DEADLINE, 'the server stops')
        return self.sample()

    def continue_server(self):
        """SIGCONT, if it is still there."""
        if self.server.running():
            os.kill(self.server.process.pid, signal.SIGCONT)

    def wait_others(self, before):
        """Device B and CPU 0 make progress."""
        return self.wait_sample(
            lambda now: now.turns - before.turns > MANY
            and now.cpus[READER_OF_B].good
            - before.cpus[READER_OF_B].good > MANY,
            'the vCPUs that do not read the stopped device go on')

    def wait_readers(self, before):
        """Both readers of A make progress."""
        return self.wait_sample(
            lambda now: all(now.cpus[cpu].good - before.cpus[cpu].good > MANY
                            for cpu in READERS_OF_A),
            'the readers of the continued device go on')

    def check_failed(self, sample, given_up):
        """Each read that failed for the guest did so for want of time.

        given_up says, for that many reads, how many of them may have been
        sent before they were given up.
        """
        text = Path(self.trace).read_text(encoding='utf8')
        self.assertNotIn('vfio_user_conn_failed', text)
        reasons = re.findall(r'^vfio_user_device_access_failed .*: (\w+) '
                             r'of region (\d+) .* failed: (\d+)$', text,
                             re.MULTILINE)
        ones = sum(count.ones for count in sample.cpus.values())
        self.assertEqual(reasons, [('read', '0', str(errno.ETIMEDOUT))] * ones)
        commands = re.findall(r'^vfio_user_conn_give_up .* command (\d+) ',
                              text, re.MULTILINE)
        self.assertLessEqual(set(commands), {REGION_READ})
        self.assertIn(len(commands), given_up(ones))

    def check_stall(self, *args, **kwargs):
        """Stop, see the others go on, continue: no read was lost."""
        self.boot(*args, **kwargs, **{'x-msg-timeout-ms': NEVER_MS})
        for _ in range(3):
            stopped = self.stop_server()
            later = self.wait_others(stopped)
            for cpu in READERS_OF_A:
                # One answer may have been on its way.
                self.assertLessEqual(later.cpus[cpu].good,
                                     stopped.cpus[cpu].good + 1)
            self.continue_server()
            end = self.wait_readers(later)
        for cpu in READERS_OF_A:
            self.assertEqual(end.cpus[cpu].ones, 0,
                             f'a read of CPU {cpu} failed')
        self.check_failed(end, given_up=lambda ones: [0])

    def check_timeout(self, *args, given_up, **kwargs):
        """Reads fail while the server is stopped, and then no more."""
        self.boot(*args, **kwargs, **{'x-msg-timeout-ms': SHORT_MS})
        stopped = self.stop_server()
        later = self.wait_sample(
            lambda now: all(now.cpus[cpu].ones - stopped.cpus[cpu].ones > 1
                            for cpu in READERS_OF_A),
            'reads of the stopped device fail, one after the other')
        for cpu in READERS_OF_A:
            self.assertLessEqual(later.cpus[cpu].good,
                                 stopped.cpus[cpu].good + 1)
        self.continue_server()
        self.check_failed(self.wait_readers(later), given_up)

    def test_stall(self):
        """Shared RAM: the reads of the stopped server wait, nobody else."""
        self.check_stall(*SHARED)

    def test_stall_private(self):
        """Private RAM: a server in the middle of its DMA, twin socket."""
        self.check_stall()

    def test_stall_private_one_socket(self):
        """Nothing may cross the server's command; one vCPU at a time."""
        self.check_stall(server_args=['--one-socket'])

    def test_stall_iothread(self):
        """With a thread of the user's for A, and a long spin before waits."""
        self.check_stall('-object', 'iothread,id=io', iothread='io',
                         **{'x-poll-max-us': 1000})

    def test_timeout(self):
        """Each request that was given up is one failed read, no other."""
        self.check_timeout(*SHARED, given_up=lambda ones: [ones])

    def test_timeout_private(self):
        """The same while the server fetches by message."""
        self.check_timeout(given_up=lambda ones: [ones])

    def test_timeout_private_one_socket(self):
        """A late answer comes first, then the next request may be sent.

        So a read that waited for its turn failed without having been sent.
        """
        self.check_timeout(server_args=['--one-socket'],
                           given_up=lambda ones: range(1, ones))


if __name__ == '__main__':
    QemuSystemTest.main()
