#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Other disk controllers of QEMU's own server, one test each."""

from qemu_test import QemuSystemTest

from vfio_user_guest import VFIOUserGuestTest
import vfio_user_rows as rows


class VFIOUserStorage(VFIOUserGuestTest):
    """A controller in the server, its disk used by the guest."""

    def test_ahci(self):
        """SATA, with MSI."""
        self.check_disk_row(rows.AHCI)

    def test_megasas(self):
        """A RAID controller, with MSI-X."""
        self.check_disk_row(rows.MEGASAS)

    def test_sdhci(self):
        """An SD card, with INTx."""
        self.check_disk_row(rows.SDHCI)

    def test_virtio_blk(self):
        """virtio behind the platform's DMA rules, with MSI-X."""
        self.check_disk_row(rows.VIRTIO_BLK)

    def test_xhci_storage(self):
        """A disk on USB."""
        self.check_disk_row(rows.XHCI)


if __name__ == '__main__':
    QemuSystemTest.main()
