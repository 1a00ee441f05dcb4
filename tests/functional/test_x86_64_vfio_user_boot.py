#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The firmware uses devices in other processes: it boots from them.

SeaBIOS has drivers for NVMe and virtio, and runs a network card's option ROM,
which it reads from the device's ROM region.
"""

import os
from pathlib import Path

from qemu_test import QemuSystemTest

from vfio_user_boot import disk_start, network_program
from vfio_user_case import VFIOUserTest
from vfio_user_server import wait_until
import vfio_user_rows as rows

DEADLINE = 120


class VFIOUserBoot(VFIOUserTest):
    """No kernel, no other disk: what runs came from the server."""

    def start(self, *args, machine='q35'):
        """A machine whose debug port and firmware's log go to files."""
        said, firmware = map(self.log_file, ('said.log', 'firmware.log'))
        self.logs += [said, firmware]
        vm = self.get_vm(name='machine')
        vm.set_machine(f'{machine},memory-backend=mem')
        vm.add_args('-accel', os.getenv('VFIO_USER_TEST_ACCEL', 'tcg'),
                    '-m', '256M', '-object',
                    'memory-backend-memfd,id=mem,size=256M,share=on',
                    '-nodefaults', '-no-user-config', '-boot', 'strict=on',
                    '-chardev', f'file,id=said,path={said}',
                    '-device', 'isa-debugcon,iobase=0xe9,chardev=said',
                    '-chardev', f'file,id=firmware,path={firmware}',
                    '-device', 'isa-debugcon,iobase=0x402,chardev=firmware',
                    *args)
        vm.launch()
        return Path(said), Path(firmware)

    def expect(self, said, text):
        """Wait for what the program on the disk says, all of it."""
        wait_until(lambda: len(said.read_text()) >= len(text), DEADLINE,
                   self.with_logs(f'the machine says "{text}"'))
        self.assertEqual(said.read_text(), text)

    def serve_boot_disk(self, row, text):
        """A server whose disk can be booted."""
        server = self.serve_disk(row)
        with open(server.image, 'r+b') as file:
            file.write(disk_start(text))
        return server

    def check_disk_boots(self, row, **options):
        """One disk, which the firmware is told to boot."""
        text = f'booted from {row.driver}'
        server = self.serve_boot_disk(row, text)
        said, _ = self.start(*self.client(server, bootindex='1'), **options)
        self.expect(said, text)

    def test_nvme_q35(self):
        """NVMe on q35."""
        self.check_disk_boots(rows.NVME)

    def test_nvme_pc(self):
        """NVMe on pc."""
        self.check_disk_boots(rows.NVME, machine='pc')

    def test_virtio(self):
        """virtio 1.0."""
        self.check_disk_boots(rows.VIRTIO_BLK)

    def test_order(self):
        """bootindex chooses among three, and not the first one on the bus."""
        disks = [self.serve_boot_disk(row, text) for row, text in (
            (rows.NVME, 'first'), (rows.VIRTIO_BLK, 'second'),
            (rows.NVME, 'third'))]
        args = []
        for slot, (disk, index) in enumerate(zip(disks, '312'), 5):
            args += self.client(disk, addr=str(slot), bootindex=index)
        said, _ = self.start(*args)
        self.expect(said, 'second')

    def test_behind_port(self):
        """The firmware's path to it leads through a root port."""
        server = self.serve_boot_disk(rows.NVME, 'behind a port')
        other = self.serve_boot_disk(rows.NVME, 'not behind a port')
        said, _ = self.start('-device', 'pcie-root-port,id=port1,slot=1',
                             *self.client(other, addr='5', bootindex='2'),
                             *self.client(server, bus='port1', bootindex='1'))
        self.expect(said, 'behind a port')

    @staticmethod
    def nr_roms(firmware):
        """How many ROMs of devices were run; one more is the machine's."""
        return firmware.read_text().count('Running option rom at ') - 1

    def check_network_boot(self, card, **options):
        """The card's ROM, run by the firmware, loads a program by TFTP."""
        self.require_netdev('user')
        files = Path(self.scratch_file('tftp'))
        files.mkdir()
        (files / 'program').write_bytes(network_program(f'loaded by {card}'))
        server = self.serve([
            '-netdev', f'user,id=net,tftp={files},bootfile=program',
            '-device', f'{card},id=dev,netdev=net'])
        said, firmware = self.start(
            *self.client(server, bootindex='1', **options))
        self.expect(said, f'loaded by {card}')
        self.assertEqual(self.nr_roms(firmware), 1)
        # Before its client leaves: QEMU's server asserts that nothing raises
        # an interrupt then, and this network card still receives.
        server.stop()

    def test_rom_e1000e(self):
        """iPXE from the ROM of an e1000e."""
        self.check_network_boot('e1000e')

    def test_rom_virtio(self):
        """iPXE from the ROM of a virtio network card."""
        self.check_network_boot('virtio-net-pci,disable-legacy=on,'
                                'iommu_platform=on')

    def test_rombar_off(self):
        """rombar=0 hides the ROM: the firmware finds none to run."""
        server = self.serve(['-device', 'e1000e,id=dev'])
        _, firmware = self.start(*self.client(server, rombar='0'))
        wait_until(lambda: 'No bootable device' in firmware.read_text(),
                   DEADLINE, self.with_logs('the firmware gives up'))
        self.assertEqual(self.nr_roms(firmware), 0)


if __name__ == '__main__':
    QemuSystemTest.main()
