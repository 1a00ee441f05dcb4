#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A network card in a process of its own."""

from qemu_test import QemuSystemTest

from vfio_user_guest import VFIOUserGuestTest

ADDRESS = '0000:00:05.0'


class VFIOUserNet(VFIOUserGuestTest):
    """QEMU's x-vfio-user-server with an e1000e and its user network."""

    def test_e1000e(self):
        """Link up, an address by DHCP, answers from the gateway."""
        self.require_netdev('user')
        server = self.serve(['-netdev', 'user,id=net',
                             '-device', 'e1000e,id=dev,netdev=net'])
        guest = self.boot(*self.client(server, addr='5'))
        guest.run('until_true 60 test -e /sys/class/net/eth0')
        self.assertEqual(guest.run(f'pci_driver {ADDRESS}'), 'e1000e')
        guest.run('ip link set eth0 up')
        guest.run('until_true 60 grep -q 1 /sys/class/net/eth0/carrier')
        self.assertEqual(guest.run(f'irq_kind {ADDRESS}'), 'msix')
        before = int(guest.run(f'irq_count {ADDRESS}'))

        guest.run('udhcpc -i eth0 -s /bin/udhcpc-script -q -n -t 20')
        self.assertIn('inet 10.0.2.15/24', guest.run('ip addr show eth0'))
        self.assertRegex(guest.run('ping -c 5 -W 10 10.0.2.2'),
                         '5 packets transmitted, 5 packets received')
        self.assertGreater(int(guest.run(f'irq_count {ADDRESS}')), before,
                           'no interrupt was counted')


if __name__ == '__main__':
    QemuSystemTest.main()
