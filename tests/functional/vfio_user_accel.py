# SPDX-License-Identifier: GPL-2.0-or-later
"""The accelerator of the tests with flat guests.

Who waits for whom is another matter under TCG than under KVM, so a test class
is written once, with `accel = 'tcg'`, and a class derived from it says 'kvm'.
Where KVM does not run even a flat guest, the latter is skipped with the reason.
"""

import test_x86_64_vfio_user_kvm as flat
from vfio_user_case import VFIOUserTest

ACCELERATORS = {'tcg': 'tcg,thread=multi', 'kvm': 'kvm'}


class VFIOUserAccelTest(VFIOUserTest):
    """Base of the tests that run under TCG and under KVM."""

    accel = 'tcg'

    def setUp(self):
        super().setUp()
        if self.accel == 'kvm':
            problem = flat.kvm_problem(self.qemu_bin, flat.programs()[0])
            if problem:
                self.skipTest(problem)

    def accel_args(self):
        """QEMU's arguments for it."""
        return ['-accel', ACCELERATORS[self.accel]]
