#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted guest is migrated under DMA load, there and back.

Each time the guest gets another QEMU and another server.  That nothing was
lost is said by the guest itself; see scripts/guest/engine.c.
"""

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_migration import ENGINE, MIGRATION, VFIOUserMigrationTest

MANY = 20
FEW = 4


class VFIOUserMigration(VFIOUserMigrationTest):
    """Shared RAM, pre-copy, P2P, and a server that logs dirty pages."""

    def test_there_and_back(self):
        """Often enough to meet the engine in all its moods."""
        self.there_and_back(MANY)

    def test_pc(self):
        """The same on the other board."""
        self.there_and_back(FEW, machine='pc')

    def test_two_devices(self):
        """Two at once, of which one has no P2P states."""
        self.there_and_back(FEW, state=2 * MIB, devices=(
            (ENGINE, MIGRATION),
            (ENGINE, 'migration size=1M precopy logging')))


if __name__ == '__main__':
    QemuSystemTest.main()
