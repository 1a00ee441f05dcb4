#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian guest that protects itself from the device with an IOMMU.

Every buffer of the driver is mapped for its request and unmapped after it, and
the server learns of each before the guest goes on (strict); or the guest lets
unmapped pages wait for each other and takes them away together (lazy).  With
intel-iommu QEMU finds out about the guest's changes by itself, with
virtio-iommu it is told.

QEMU's own server has room for 16 windows (libvfio-user's MAX_DMA_REGIONS) and
does not say so.  NVMe gets by with that if there are few requests at a time
and a page is the largest.
"""

from pathlib import Path
import re

from qemu_test import QemuSystemTest

from vfio_user_channel import COMMAND_DEADLINE
from vfio_user_guest import MIB, VFIOUserGuestTest
from vfio_user_rows import NVME

ADDRESS = '0000:00:05.0'
PAGE = 4096
SIZE = 4 * MIB
FEW_REQUESTS = 'nvme.io_queue_depth=4 nvme_core.io_timeout=5'


INTEL = 'intel-iommu,caching-mode=on'
VIRTIO = 'virtio-iommu-pci,addr=3'


class VFIOUserIOMMU(VFIOUserGuestTest):
    """NVMe by QEMU's server, behind an IOMMU."""

    lock_waits = ('map', 'unmap', 'commit')

    def boot_nvme(self, append, iommu=INTEL):
        """A guest with the disk, and what its container does in a file."""
        self.server = self.serve_disk(NVME)
        self.trace = self.log_file('trace.log')
        self.logs.append(self.trace)
        return self.boot('-device', iommu,
                         *self.client(self.server, addr='5'),
                         '-D', self.trace,
                         '-trace', 'vfio_user_container_map',
                         '-trace', 'vfio_user_container_unmap',
                         append=f'intel_iommu=on {append} {FEW_REQUESTS}')

    def windows(self):
        """What was mapped and unmapped: name and size, in order."""
        text = Path(self.trace).read_text(encoding='ascii')
        return [(name, int(size, 0)) for name, size in re.findall(
            r'vfio_user_container_(map|unmap) \S+: 0x[0-9a-f]+ size '
            r'(0x[0-9a-f]+)', text)]

    def log_text(self):
        """What QEMU has said."""
        return Path(self.log_file('guest.log')).read_text(encoding='utf-8')

    def group_type(self, guest):
        """What the guest's IOMMU does for the device."""
        guest.run(f'wait_disk {NVME.disk}')
        return guest.run(
            f'cat /sys/bus/pci/devices/{ADDRESS}/iommu_group/type')

    def check_windows(self, guest, kind='DMA'):
        """Data is right, and each page of it was a window for a moment."""
        self.assertEqual(self.group_type(guest), kind)
        guest.run(f'echo {PAGE // 1024} '
                  f'>/sys/class/block/nvme0n1/queue/max_sectors_kb')
        before = len(self.windows())
        self.check_disk(guest, self.server, NVME, ADDRESS, SIZE)
        windows = self.windows()[before:]
        maps = [size for name, size in windows if name == 'map']
        unmaps = [size for name, size in windows if name == 'unmap']
        # There and back
        self.assertGreaterEqual(len(maps), 2 * SIZE // PAGE)
        self.assertEqual(set(maps), {PAGE})
        # Never more than the server has room for
        self.assertLessEqual(abs(len(maps) - len(unmaps)), 16)
        self.assertEqual(self.log_text(), '')

    def test_strict(self):
        """intel-iommu; in caching mode Linux is strict in any case."""
        self.check_windows(self.boot_nvme('iommu.strict=0'))

    def test_virtio_strict(self):
        """virtio-iommu"""
        self.check_windows(self.boot_nvme('iommu.strict=1', VIRTIO))

    def test_virtio_lazy(self):
        """virtio-iommu, and what the guest takes away it may flush later."""
        self.check_windows(self.boot_nvme('iommu.strict=0', VIRTIO), 'DMA-FQ')

    def test_passthrough(self):
        """The kernel maps all memory once, and requests map nothing."""
        guest = self.boot_nvme('iommu.passthrough=1')
        guest.run(f'wait_disk {NVME.disk}')
        self.assertEqual(
            guest.run(f'cat /sys/bus/pci/devices/{ADDRESS}/iommu_group/type'),
            'identity')
        before = len(self.windows())
        self.check_disk(guest, self.server, NVME, ADDRESS)
        self.assertEqual(self.windows()[before:], [])
        self.assertEqual(self.log_text(), '')

    def test_too_many(self):
        """When QEMU's server is full no DMA gets lost unnoticed.

        It takes DMA outside of its windows for done.  So the device goes
        offline with a reason, and the guest sees errors instead of data.
        """
        guest = self.boot_nvme('iommu.strict=1')
        guest.run(f'wait_disk {NVME.disk}')
        status, _ = guest.status(f'dd if={NVME.disk} of=/dev/null bs=1M '
                                 'count=4 iflag=direct',
                                 deadline=2 * COMMAND_DEADLINE)
        self.assertNotEqual(status, 0)
        self.assertIn('iommu.passthrough=1', self.log_text())
        self.assertEqual(guest.run('echo alive'), 'alive')
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'running')


if __name__ == '__main__':
    QemuSystemTest.main()
