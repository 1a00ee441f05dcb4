#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""NVMe in a process of its own, on each board and place it can have."""

import json

from qemu_test import QemuSystemTest

from vfio_user_guest import VFIOUserGuestTest
from vfio_user_rows import NVME


class VFIOUserNVMe(VFIOUserGuestTest):
    """QEMU's x-vfio-user-server with an NVMe controller."""

    def test_q35(self):
        """On the root complex of q35."""
        self.check_disk_row(NVME)

    def test_pc(self):
        """On the conventional bus of pc."""
        self.check_disk_row(NVME, machine='pc')

    def test_root_port(self):
        """Behind a PCI Express root port."""
        server = self.serve_disk(NVME)
        guest = self.boot('-device', 'pcie-root-port,id=port1,slot=1',
                          *self.client(server, bus='port1'))
        self.check_disk(guest, server, NVME, '0000:01:00.0')

    def test_json(self):
        """Described by JSON with a structured socket address."""
        server = self.serve_disk(NVME)
        device = {'driver': 'vfio-user-pci', 'addr': '5',
                  'socket': {'type': 'unix', 'path': server.socket}}
        guest = self.boot('-device', json.dumps(device))
        self.check_disk(guest, server, NVME, '0000:00:05.0')


if __name__ == '__main__':
    QemuSystemTest.main()
