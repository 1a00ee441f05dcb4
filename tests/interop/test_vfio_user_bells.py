#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Doorbells of a device that libvfio-user serves (serve-bells.c).

What is signalled is compared with what libvfio-user was told by message: a
write does either, and never both.
"""

import shutil
import subprocess
from pathlib import Path

from qemu_test import QemuSystemTest

from test_vfio_user_interop import (ALL_ONES, BAR0, COMMAND, DECODE, Machine,
                                    SLOT, bar_address)
from vfio_user_case import REPOSITORY
from vfio_user_samples import VFIOUserSampleTest

NR_FDS, NR_BELLS, SEEN = 7, 8, 0x100
COUNTS, BELLS = bar_address(1, False), bar_address(2, False)


class VFIOUserBells(VFIOUserSampleTest):
    """libvfio-user's ioeventfds, rung through qtest."""

    def build_server(self):
        """serve-bells.c, linked with the library that QEMU was built with."""
        compiler = shutil.which('cc')
        if not compiler:
            self.skipTest('no C compiler "cc" to compile serve-bells.c; '
                          'install build-essential')
        source = Path(self.data_file()).parent.parent / 'subprojects'
        built = Path(self.sample_path('lspci')).parent.parent / 'lib'
        library = next((built / name for name in ('libvfio-user.so',
                                                  'libvfio-user.a')
                        if (built / name).exists()), None)
        if not library:
            self.skipTest(f'no libvfio-user library in {built}')
        program = self.scratch_file('serve-bells')
        subprocess.run(
            [compiler, '-Wall', '-Werror', '-D_GNU_SOURCE', '-o', program,
             '-I', source / 'libvfio-user' / 'include',
             REPOSITORY / 'tests' / 'interop' / 'serve-bells.c', library,
             f'-Wl,-rpath,{built}', '-ljson-c'], check=True)
        return program

    def launch(self, **properties):
        """A machine with the device, its BARs placed."""
        server = self.serve_program(self.build_server(),
                                    socket_env='SERVE_BELLS_SOCKET')
        machine = Machine(self)
        self.logs.append(self.log_file('client.log'))
        machine.set_machine('q35')
        machine.add_args('-nodefaults', '-qtest-log', '/dev/null',
                         *self.client(server, id='dev', addr=SLOT,
                                      **properties))
        self._vms['client'] = machine
        machine.launch()
        machine.map_config()
        for index in (1, 2):
            machine.config_write(BAR0 + 4 * index, ALL_ONES)
            machine.config_write(BAR0 + 4 * index, bar_address(index, False))
        machine.config_write(COMMAND, DECODE)
        return machine

    def counts(self, machine):
        """The signals on each eventfd, and the messages."""
        return ([machine.number(f'readl {COUNTS + 8 * i:#x}')
                 for i in range(NR_FDS)],
                machine.number(f'readl {COUNTS + SEEN:#x}'))

    def test_ring(self):
        """Each bell a different number of times; two share an eventfd."""
        machine = self.launch()
        for bell in range(NR_BELLS):
            for _ in range(bell + 1):
                machine.number(f'writeq {BELLS + 8 * bell:#x} {bell}')
        signals, messages = self.counts(machine)
        self.assertEqual(signals, [1, 2, 3, 4, 5, 6, 7 + 8])
        self.assertEqual(messages, 0)

    def test_other_writes(self):
        """Another width, and beyond the last bell: messages."""
        machine = self.launch()
        machine.number(f'writel {BELLS:#x} 1')
        machine.number(f'writeq {BELLS + 8 * NR_BELLS:#x} 1')
        self.assertEqual(self.counts(machine), ([0] * NR_FDS, 2))
        # In a mapped area: neither.
        machine.number(f'writeq {BELLS + 0x2000:#x} 1')
        self.assertEqual(self.counts(machine), ([0] * NR_FDS, 2))

    def test_off(self):
        """Not asked for, every write is a message."""
        machine = self.launch(ioeventfd='off')
        for bell in range(NR_BELLS):
            machine.number(f'writeq {BELLS + 8 * bell:#x} 1')
        self.assertEqual(self.counts(machine), ([0] * NR_FDS, NR_BELLS))


if __name__ == '__main__':
    QemuSystemTest.main()
