# SPDX-License-Identifier: GPL-2.0-or-later
"""Base of the tests with four vCPUs, two devices and their servers.

The guest (smp-guest/guest.c) has two vCPUs read device A and one device B
without end, while the fourth answers questions on the serial port.  What is
done to A's server must hold up the two and nobody else, and what they read is
right at any time.  "Goes on" means: before the server does.  No test looks at
how long anything took.
"""

import functools
import os
from pathlib import Path
import platform
import shutil
import socket
import tempfile
from typing import NamedTuple
import unittest

import test_x86_64_vfio_user_kvm as flat
from vfio_user_accel import VFIOUserAccelTest
from vfio_user_case import REPOSITORY
from vfio_user_server import Server, wait_until

FUNCTIONAL = REPOSITORY / 'tests' / 'functional'
SOURCES = FUNCTIONAL / 'smp-guest'
PARTS = FUNCTIONAL / 'kvm-guest'

DEADLINE = 30
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


class VFIOUserDeviceTest(VFIOUserAccelTest):
    """Base of the tests with the device of smp-guest/device.c."""

    def start_device(self, identity, *args):
        """A server for it."""
        path, log = self._paths()
        server = Server([str(programs()[1]), f'--socket-path={path}',
                         f'--device={identity}', *args], path, log)
        self.servers.append(server)
        return server.start()


class VFIOUserSMPTest(VFIOUserDeviceTest):
    """The guest, its servers, and what it has read."""

    def boot(self, *args, server_args=(), machine='q35', **properties):
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
        self.guest.set_machine(machine)
        self.guest.add_args(*self.accel_args(), '-smp', '4',
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

    def read_config_only(self):
        """From now on the vCPUs read config space, and do."""
        self.serial.write('c')
        self.serial.flush()
        self.assertEqual(self.line(), 'ok config')
        before = self.sample()
        self.wait_readers(self.wait_others(before))

    def ask(self):
        """What CPU 0 says that all have read."""
        self.serial.write('s')
        self.serial.flush()
        word, *numbers = self.line().split()
        self.assertEqual(word, 'sample')
        turns, *counts = (int(number, 16) for number in numbers)
        return Sample(turns, {cpu: Count(*counts[3 * cpu - 3:3 * cpu])
                              for cpu in (1, 2, 3)})

    def sample(self):
        """The same, and it must be right; QEMU's monitor answers, too."""
        self.assertEqual(self.guest.cmd('query-status')['status'], 'running')
        sample = self.ask()
        for cpu, count in sample.cpus.items():
            self.assertEqual(count.wrong, 0, f'CPU {cpu} read wrong data')
        self.assertEqual(sample.cpus[READER_OF_B].ones, 0,
                         'the other device failed accesses')
        return sample

    def wait_sample(self, condition, what):
        """Ask until the answer is as wanted, and return it."""
        last = None

        def wanted():
            nonlocal last
            last = self.sample()
            return condition(last)
        wait_until(wanted, DEADLINE, what)
        return last

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
