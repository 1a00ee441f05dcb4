#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""libvfio-user's sample devices in a booted guest."""

import re

from qemu_test import QemuSystemTest

from vfio_user_config import differences, guest_owned, with_fixups
from vfio_user_guest import VFIOUserGuestTest
from vfio_user_samples import VFIOUserSampleTest

ADDRESS = '0000:00:05.0'


class VFIOUserSamples(VFIOUserGuestTest, VFIOUserSampleTest):
    """Devices that others wrote, as they are."""

    def check_config(self, guest, address, declared):
        """The guest sees what was declared, but for what it wrote."""
        self.assertEqual(
            differences(declared, guest.config(address),
                        guest_owned(declared)), [],
            'the guest sees another config space')

    def check_log(self, guest, server, pattern, command):
        """Run a command in the guest that the server's log must show."""
        before = len(re.findall(pattern, server.log_text()))
        output = guest.run(command)
        if len(re.findall(pattern, server.log_text())) == before:
            self.fail_with_logs(f'"{command}" left no new "{pattern}" in the '
                                'server\'s log')
        return output

    def boot_gpio(self):
        """A guest with the gpio sample, its driver bound."""
        server = self.serve_sample('gpio-pci-idio-16', '-v')
        guest = self.boot(*self.client(server, addr='5'))
        guest.run('until_true 60 test -e '
                  f'/sys/bus/pci/devices/{ADDRESS}/gpio')
        self.assertEqual(guest.run(f'pci_driver {ADDRESS}'),
                         'pci-idio-16')
        return server, guest

    def test_gpio_write(self):
        """A line that the guest sets is a write at the server."""
        server, guest = self.boot_gpio()
        guest.run(f'gpio_export {ADDRESS} 3')
        self.check_log(guest, server, r'region2: wrote 0x8 to \(0:1\)',
                       'echo 1 >/sys/class/gpio/OUT3/value')
        self.check_log(guest, server, r'region2: wrote 0 to \(0:1\)',
                       'echo 0 >/sys/class/gpio/OUT3/value')

    def test_gpio_read(self):
        """A line that the guest reads is a read at the server."""
        server, guest = self.boot_gpio()
        guest.run(f'gpio_export {ADDRESS} 16')
        for _ in range(2):
            value = self.check_log(
                guest, server, r'region2: read 0 from \(0x1:1\)',
                'cat /sys/class/gpio/IIN0/value')
            self.assertEqual(value, '0')

    def test_server(self):
        """The sample "server": dead:beef, config space as declared."""
        server, declared = self.serve_declared('server', '-v')
        guest = self.boot(*self.client(server, addr='5'))
        self.assertIn('dead:beef', guest.run('lspci'))
        self.check_config(guest, ADDRESS, declared)

    def check_window(self, guest, bus, slot, declared):
        """The same for a vendor 0000, which is no device for Linux."""
        seen = guest.config_window(bus, slot, len(declared))
        self.assertEqual(differences(declared, seen, guest_owned(declared)),
                         [], 'the guest sees another config space')

    def test_lspci(self):
        """The sample "lspci": two lists of capabilities, as printed.

        A slot with hotplug would be switched off by Linux, which sees no
        device in it.
        """
        server, declared = self.serve_lspci()
        guest = self.boot('-device', 'pcie-root-port,id=port1,hotplug=off',
                          *self.client(server, bus='port1'),
                          append='iomem=relaxed')
        self.check_window(guest, 1, 0, with_fixups(declared))

    def test_null(self):
        """The sample "null": present, with hardly anything in it."""
        server, declared = self.serve_declared('null')
        guest = self.boot(*self.client(server, addr='5'),
                          append='iomem=relaxed')
        self.assertNotIn('00:05.0', guest.run('lspci'))
        self.check_window(guest, 0, 5, declared)


if __name__ == '__main__':
    QemuSystemTest.main()
