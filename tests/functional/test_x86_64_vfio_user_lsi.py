#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's own server cannot carry: LSI SCSI controllers.

The chip's SCRIPTS processor is a bus master towards its own BARs: the Linux
driver lets it fetch scripts from the RAM in BAR 2 (895A), and copy between
memory and the registers in BAR 1 (810).  x-vfio-user-server gives a device a
DMA address space that holds the client's DMA windows and nothing else, not
even the device's own BARs (dma_register() in hw/remote/vfio-user-obj.c, the
address space in hw/remote/iommu.c), so these accesses end nowhere.  In a
guest with the device attached directly the same driver works.

The tests hold on to how far it goes: device and driver find each other,
registers work, the driver says what it could not reach, and neither QEMU nor
the server minds.  The driver's own way out of that failure is an oops now and
then, so the console is read and not the guest asked.  A server that learns
this fails the tests, which is the time to move the rows to the other disk
controllers.
"""

from pathlib import Path

from qemu_test import QemuSystemTest

from vfio_user_case import Disk
from vfio_user_guest import VFIOUserGuestTest
from vfio_user_rows import DRIVE
from vfio_user_server import ServerError, wait_until

COMPLAINT_DEADLINE = 120
ADDRESS = '0000:00:05.0'


class VFIOUserLSI(VFIOUserGuestTest):
    """LSI controllers of QEMU's own server."""

    def check_unreachable(self, model, identity, complaint):
        """The driver probes the chip, then misses what is in its BARs."""
        row = Disk(['-drive', DRIVE, '-device', f'{model},id=dev',
                    '-device', 'scsi-hd,bus=dev.0,drive=drive'],
                   driver='sym53c8xx', disk='/dev/sda', irq='intx')
        server = self.serve_disk(row)
        guest = self.boot(*self.client(server, addr='5'),
                          append='guest.nodrivers')
        self.assertIn(identity, guest.run('lspci'))
        # The shell that waits for it keeps what it says, and how it ends.
        guest.run('(modprobe sym53c8xx; echo "status $?") >/tmp/probe 2>&1 &')
        try:
            wait_until(lambda: complaint in self.console_text(),
                       COMPLAINT_DEADLINE,
                       f'"{complaint}" in {self.console_log_name}')
        except ServerError as error:
            raise ServerError(f'{error}; modprobe: '
                              + guest.run('cat /tmp/probe')) from error
        self.assertIn('sym0: No NVRAM, ID 7', self.console_text())
        self.assertNotIn('[sda]', self.console_text())
        self.assertTrue(server.running())
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'running')

    def console_text(self):
        """What the guest's kernel has said."""
        return Path(self.console_log_name).read_text(encoding='utf-8',
                                                     errors='replace')

    def test_lsi53c895a(self):
        """Scripts in the chip's RAM are not found."""
        self.check_unreachable('lsi53c895a', '1000:0012',
                               'interrupted SCRIPT address not found')

    def test_lsi53c810(self):
        """The chip cannot copy to its own registers."""
        self.check_unreachable('lsi53c810', '1000:0001',
                               'CACHE TEST FAILED: host wrote 1, chip read 0')


if __name__ == '__main__':
    QemuSystemTest.main()
