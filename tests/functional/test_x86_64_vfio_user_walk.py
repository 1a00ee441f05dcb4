#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with one vCPU and a healthy server does what it likes.

It walks at random through config space, MSI-X table and BARs of a device with
INTx, MSI and MSI-X (tests/torture/guest): enable bits, masks, numbers of
vectors, BARs on top of each other, FLR, power states, resets of the bus.  Then
it puts everything in order, and each kind of interrupt must arrive.  QEMU must
neither end nor hang on the way.

What it does is decided by a seed.  VFIO_USER_WALK_SEED=N takes another one
than those here, and VFIO_USER_WALK_STEPS=N goes as far.
"""

import os
from pathlib import Path
import platform
import shutil
import tempfile
import unittest

from qemu_test import QemuSystemTest

from vfio_user_case import GUEST_ENDS, VFIOUserTest
from vfio_user_server import Server
import vfio_user_torture as torture

SEEDS = (1, 2, 3)
STEPS = {'tcg': 20000, 'kvm': 6000}
DEADLINE = 120
CHECKED = ['ok steps', 'ok magic', 'ok INTx', 'ok MSI', 'ok MSI-X', 'ok INTx',
           'end']


class Programs:
    """The guest and the server, compiled once for all tests."""

    made = None

    @classmethod
    def get(cls):
        """Their paths."""
        if platform.machine() != 'x86_64':
            raise unittest.SkipTest('the guest is compiled for x86 by the '
                                    'host\'s compiler, and this is '
                                    f'{platform.machine()}')
        missing = torture.tool_missing()
        if missing:
            raise unittest.SkipTest(f'no {missing} to compile the guest; '
                                    'install build-essential and pkg-config')
        if not cls.made:
            directory = tempfile.mkdtemp(prefix='vfio-user-walk-')
            unittest.addModuleCleanup(shutil.rmtree, directory)
            cls.made = torture.compile_programs(directory)
        return cls.made


class VFIOUserWalk(VFIOUserTest):
    """Boards and accelerators."""

    # edu's DMA in our BARs
    lock_waits = ('nested',)

    def setUp(self):
        super().setUp()
        self.guest, self.device = Programs.get()

    def walk(self, board, accel, seed):
        """One walk to its end."""
        steps = int(os.getenv('VFIO_USER_WALK_STEPS', STEPS[accel]))
        path, log = self._paths()
        server = Server([str(self.device), f'--socket-path={path}',
                         f'--noisy={seed}'], path, log)
        self.servers.append(server)
        server.start()
        console = self.log_file(f'console-{seed}.log')
        self.logs += [console, self.log_file(f'walk-{seed}.log')]
        vm = self.get_vm(name=f'walk-{seed}')
        # Stopped at first: it could end before the framework has looked.
        vm.add_args('-S', *torture.machine_arguments(
                        board, accel, self.guest, f'walk {seed} {steps}'),
                    '-m', f'{torture.MEMORY}M', '-no-reboot',
                    '-serial', f'file:{console}', *GUEST_ENDS,
                    *self.client(server, **torture.PLACES[board]))
        vm.launch()
        vm.cmd('cont')
        self.wait_end(vm, DEADLINE, f'{board}, {accel}, seed {seed}: the end '
                      f'of {steps} steps')
        server.stop()
        self.assertEqual(Path(console).read_text(encoding='ascii')
                         .splitlines(), CHECKED,
                         f'{board}, {accel}, seed {seed}, {steps} steps')
        self.assertEqual(vm.exitcode(), 0, f'seed {seed}')

    def walk_all(self, board, accel):
        """All seeds, or the one that was asked for."""
        if accel == 'kvm':
            problem = torture.kvm_problem(self.qemu_bin, self.guest)
            if problem:
                self.skipTest(problem)
        asked = os.getenv('VFIO_USER_WALK_SEED')
        for seed in [int(asked)] if asked else SEEDS:
            self.walk(board, accel, seed)

    def test_pc_tcg(self):
        """The device in a slot of the host's bus."""
        self.walk_all('pc', 'tcg')

    def test_pc_kvm(self):
        """Vectors are irqfds there, and routes in KVM."""
        self.walk_all('pc', 'kvm')

    def test_q35_tcg(self):
        """Behind a root port, whose bus is reset."""
        self.walk_all('q35', 'tcg')

    def test_q35_kvm(self):
        """The same, with irqfds."""
        self.walk_all('q35', 'kvm')


if __name__ == '__main__':
    QemuSystemTest.main()
