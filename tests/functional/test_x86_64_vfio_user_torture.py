#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A minute of "make torture": pc and q35, TCG and KVM in turn.

The first seed is new each time, and is in what the test says on failure.
VFIO_USER_TORTURE_SEED=N begins with another one, VFIO_USER_TORTURE_MINUTES=N
goes on for longer.
"""

import os
from pathlib import Path
import platform
import random
import subprocess
import sys

from qemu_test import QemuSystemTest

from vfio_user_case import REPOSITORY, VFIOUserTest
import vfio_user_torture as torture

# A run is begun before the minutes are over, and gdb may be slow.
AFTER = 600


class VFIOUserTorture(VFIOUserTest):
    """All that the tool does."""

    def test_minute(self):
        """QEMU lives, its monitors answer, nothing is left open."""
        if platform.machine() != 'x86_64':
            self.skipTest('the guest is compiled for x86 by the host\'s '
                          f'compiler, and this is {platform.machine()}')
        missing = torture.tool_missing()
        if missing:
            self.skipTest(f'no {missing} to compile the guest; install '
                          'build-essential and pkg-config')
        minutes = float(os.getenv('VFIO_USER_TORTURE_MINUTES', '1'))
        seed = os.getenv('VFIO_USER_TORTURE_SEED',
                         str(random.SystemRandom().randrange(1 << 31)))
        log = Path(self.log_file('torture.log'))
        self.logs.append(log)
        with open(log, 'w', encoding='utf-8') as out:
            done = subprocess.run(
                [sys.executable, REPOSITORY / 'tests/torture/torture.py',
                 '--qemu', self.qemu_bin, '--minutes', str(minutes),
                 '--seed', seed, '--out', self.log_file('runs')],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                check=False, timeout=minutes * 60 + AFTER)
        text = log.read_text(encoding='utf-8')
        self.log.info(text)
        self.assertEqual(done.returncode, 0, f'seed {seed}:\n{text}')


if __name__ == '__main__':
    QemuSystemTest.main()
