#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration, and how the source learns what the server wrote to memory.

A page that is not known to be dirty is missing at the target, and the guest
finds it there.
"""

from qemu_test import QemuSystemTest

from vfio_user_migration import ENGINE, MIGRATION, VFIOUserMigrationTest

HOPS = 3


class VFIOUserMigrationMemory(VFIOUserMigrationTest):
    """Several ways to know."""

    def check_page_size(self, size):
        """The server logs pages of its own size."""
        self.there_and_back(HOPS, devices=((
            ENGINE, f'{MIGRATION} pgsize={size}'),))

    def test_private(self):
        """Nothing is mapped: what is written passes through the client."""
        self.there_and_back(HOPS, share='off')

    def test_private_no_logging(self):
        """So a server that cannot log is as good as any."""
        self.there_and_back(HOPS, share='off', devices=((
            ENGINE, 'migration size=1M precopy p2p'),))

    def test_no_logging(self):
        """All that is mapped counts as dirty; the user has to want that."""
        self.there_and_back(
            HOPS, device_options={'enable-migration': 'on'},
            devices=((ENGINE, 'migration size=1M precopy p2p'),))

    def test_page_512(self):
        """Smaller than a page of the host."""
        self.check_page_size('512')

    def test_page_1k(self):
        """The same."""
        self.check_page_size('1K')

    def test_page_16k(self):
        """Larger."""
        self.check_page_size('16K')

    def test_page_64k(self):
        """As large as some machines' pages."""
        self.check_page_size('64K')

    def test_ranges(self):
        """A server that logs the ranges it was given and nothing else."""
        self.there_and_back(HOPS, devices=((
            ENGINE, f'{MIGRATION} honour-ranges'),))

    def test_late_logging(self):
        """Tracking begins when the device has stopped."""
        self.there_and_back(HOPS, device_options={
            'x-pre-copy-dirty-page-tracking': 'off'})


if __name__ == '__main__':
    QemuSystemTest.main()
