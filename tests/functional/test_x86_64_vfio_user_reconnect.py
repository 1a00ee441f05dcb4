#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted guest whose servers are killed and come back.

The guest works on its disk all the time and verifies every block
(tests/soak/blocks.c).  QEMU's own server forgets all about its guest when it
is killed, so the guest's driver has to notice and to reset the controller;
commands that were on their way are done again.
"""

from concurrent.futures import ThreadPoolExecutor
import json
import os

from qemu_test import QemuSystemTest

from qemu.qmp.legacy import QEMUMonitorProtocol
from vfio_user_reconnect import RUNS, VFIOUserReconnectTest
from vfio_user_server import Server
import vfio_user_rows as rows

ADDRESS = '0000:00:05.0'
SYSFS = f'/sys/bus/pci/devices/{ADDRESS}'
KILLS = 5
# How long Linux lets a command take. Whoever waits for the server need not
# care; one that reads ones meanwhile must not look before it is back.
SHORT_MS, LONG_MS = 1500, 15000
# Linux: the controller was reset as commands were late; it was given up.
WAS_RESET = 'timeout, reset controller'
GIVEN_UP = 'Disabling device after reset failure'
# The sample's log, as line 3 is set to a value.
WROTE = ['region2: wrote 0 to (0:1)', 'region2: wrote 0x8 to (0:1)']


class VFIOUserReconnectNVMe(VFIOUserReconnectTest):
    """A controller of QEMU's, which starts fresh each time."""

    def count(self, guest, text):
        """Lines of the guest's kernel with a text."""
        return int(guest.run(f'dmesg | grep -cF "{text}" || true'))

    def check_kills(self, kills, policy, io_timeout_ms, **properties):
        """Kill, restart, see the guest recover; all data at the end."""
        server, guest, load = self.boot_disk(rows.NVME, policy,
                                             io_timeout_ms, **properties)
        for _ in range(kills):
            resets = self.count(guest, WAS_RESET)
            self.kill_server(guest.vm, server)
            self.check_away(guest.vm, policy)
            server = self.bring_back(guest.vm, server)
            self.check_back(guest.vm, policy)
            guest.run(f'until_true 90 eval "[ \\$(dmesg | grep -cF '
                      f"'{WAS_RESET}') -gt {resets} ]\"")
            load.wait(guest, RUNS)
        load.stop(guest)
        self.assertEqual(self.count(guest, GIVEN_UP), 0)

    def check_away(self, vm, policy):
        """The VM is stopped where that is the policy."""
        if policy == 'stop':
            self.wait_event(vm, 'STOP')
            self.assertEqual(vm.cmd('query-status')['status'], 'io-error')
        else:
            self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def check_back(self, vm, policy):
        """It runs again."""
        if policy == 'stop':
            self.wait_event(vm, 'RESUME')
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def test_hold(self):
        """Whoever touches the device waits; then Linux resets it."""
        self.check_kills(KILLS, 'hold', SHORT_MS)

    def test_hold_reset(self):
        """The same where the user says that it must be reset."""
        self.check_kills(2, 'hold', SHORT_MS, **{'reconnect-reset': 'on'})

    def test_stop(self):
        """The VM stands still meanwhile."""
        self.check_kills(KILLS, 'stop', SHORT_MS)

    def test_offline(self):
        """Back before Linux has looked: as if it had waited."""
        self.check_kills(1, 'offline', LONG_MS)

    def test_offline_too_long(self):
        """Linux gives up a controller that reads ones; found anew by hand."""
        server, guest, load = self.boot_disk(rows.NVME, 'offline', SHORT_MS)
        self.kill_server(guest.vm, server)
        guest.run(f'until_true 90 eval "dmesg | grep -qF \'{GIVEN_UP}\'"')
        load.abandon(guest)
        self.bring_back(guest.vm, server)
        guest.run(f'echo 1 >{SYSFS}/remove; echo 1 >/sys/bus/pci/rescan; '
                  'wait_disk /dev/nvme0n1')
        load.start(guest, '/dev/nvme0n1', 'adopt')
        load.wait(guest, RUNS)
        load.stop(guest)

    def test_reboot_while_away(self):
        """The machine is reset, while a vCPU waits; the guest boots again."""
        server, guest, load = self.boot_disk(rows.NVME, 'hold', SHORT_MS)
        for _ in range(3):
            self.kill_server(guest.vm, server)
            guest.vm.cmd('system_reset')
            self.wait_event(guest.vm, 'RESET')
            server = self.bring_back(guest.vm, server)
            guest.wait_boot()
            guest.run('wait_disk /dev/nvme0n1')
            load.start(guest, '/dev/nvme0n1', 'adopt')
            load.wait(guest, RUNS)
        load.stop(guest)

    def test_give_up(self):
        """The guest lets go of a device whose server does not come back."""
        server, guest, load = self.boot_disk(
            rows.NVME, 'hold', SHORT_MS, **{'reconnect-timeout-ms': 1000})
        self.kill_server(guest.vm, server)
        self.wait_event(guest.vm, 'VFIO_USER_GAVE_UP', device='dev')
        load.abandon(guest)
        guest.run(f'echo 1 >{SYSFS}/remove')
        self.assertEqual(guest.vm.cmd('query-status')['status'], 'running')


class VFIOUserReconnectKept(VFIOUserReconnectTest):
    """A server that loses its client and not the device.

    QEMU's server ends its connection when the object is deleted; the device
    is there all the same, and another object serves it as it is.
    """

    def serve_disk(self, row):
        """The server, with a monitor."""
        image = self.scratch_file('disk.img')
        with open(image, 'wb') as file:
            file.truncate(row.size)
        server = self.qemu_server_with_monitor(
            [arg.format(image=image) for arg in row.server])
        server.image = image
        return server

    def qemu_server_with_monitor(self, device):
        """Its connection is made and cut in the monitor."""
        self.require_object('x-vfio-user-server')
        path, log = self._paths()
        monitor = self.socket_dir().name + '/monitor'
        self.monitor = QEMUMonitorProtocol(monitor, server=True)
        self.addCleanup(self.monitor.close)
        self.export = {'qom-type': 'x-vfio-user-server', 'id': 'server',
                       'device': 'dev',
                       'socket': {'type': 'unix', 'path': path}}
        server = Server(
            [self.qemu_bin,
             '-machine', 'x-remote,vfio-user=on,auto-shutdown=off',
             '-nodefaults', '-no-user-config', '-display', 'none',
             '-qmp', f'unix:{monitor}', *device,
             '-object', json.dumps(self.export)], path, log)
        self.servers.append(server)
        server.launch()
        self.monitor.accept()
        return server.wait_listening()

    def cut(self, vm):
        """The client loses the server."""
        self.monitor.cmd('object-del', id='server')
        self.wait_event(vm, 'VFIO_USER_DISCONNECTED', device='dev')

    def join(self, vm, server):
        """It is back; the device is as it was."""
        os.unlink(server.socket)
        self.monitor.cmd('object-add', **self.export)
        back = self.wait_event(vm, 'VFIO_USER_RECONNECTED', device='dev')
        self.assertTrue(back['kept'], back)

    def test_nvme(self):
        """The guest goes on, and its kernel has not noticed anything."""
        server, guest, load = self.boot_disk(rows.NVME, 'hold', 30000)
        for _ in range(5):
            load.stop(guest)
            self.cut(guest.vm)
            self.join(guest.vm, server)
            load.resume(guest, rows.NVME.disk)
            load.wait(guest, RUNS)
        load.stop(guest)
        self.assertEqual(guest.run('dmesg | grep -c "nvme.*timeout" || true'),
                         '0')


class VFIOUserReconnectGpio(VFIOUserReconnectTest):
    """libvfio-user's sample: no state worth the name, so the guest goes on."""

    def check_line(self, guest, server, value):
        """The guest's driver sets a line, and the server sees that."""
        guest.run(f'echo {value} >/sys/class/gpio/OUT3/value')
        self.assertIn(WROTE[value], server.log_text())
        self.assertEqual(guest.run('cat /sys/class/gpio/IIN0/value'), '0')

    def check_kills(self, policy):
        """The driver works before, between and after."""
        server = self.serve_sample('gpio-pci-idio-16', '-v')
        guest = self.boot('-smp', '2',
                          *self.client(server, **self.returning(policy)))
        guest.run(f'until_true 60 test -e {SYSFS}/gpio')
        for line in (3, 16):
            guest.run(f'gpio_export {ADDRESS} {line}')
        for _ in range(KILLS):
            self.check_line(guest, server, 1)
            self.kill_server(guest.vm, server)
            server = self.bring_back(guest.vm, server)
            self.check_line(guest, server, 0)

    def test_hold(self):
        """A driver that waits."""
        self.check_kills('hold')

    def test_offline(self):
        """One that does not look meanwhile."""
        self.check_kills('offline')

    def test_write_while_away(self):
        """Where nothing needs a reset, what the guest writes is not lost."""
        server = self.serve_sample('gpio-pci-idio-16', '-v')
        guest = self.boot('-smp', '2', *self.client(
            server, **self.returning('hold', **{'reconnect-reset': 'off'})))
        guest.run(f'until_true 60 test -e {SYSFS}/gpio')
        guest.run(f'gpio_export {ADDRESS} 3')
        for value in (1, 0) * 3:
            self.kill_server(guest.vm, server)
            with ThreadPoolExecutor() as pool:
                written = pool.submit(
                    guest.run, f'echo {value} >/sys/class/gpio/OUT3/value')
                server = self.bring_back(guest.vm, server, kept=True)
                written.result()
            self.assertIn(WROTE[value], server.log_text())


class VFIOUserReconnectNet(VFIOUserReconnectTest):
    """QEMU's e1000e, which starts fresh."""

    def test_e1000e(self):
        """Linux notices that nothing is sent any more, and resets it."""
        self.require_netdev('user')
        server = self.serve(['-netdev', 'user,id=net',
                             '-device', 'e1000e,id=dev,netdev=net'])
        guest = self.boot(*self.client(server, **self.returning('hold')))
        guest.run('until_true 60 test -e /sys/class/net/eth0')
        guest.run('ip link set eth0 up')
        guest.run('until_true 60 grep -q 1 /sys/class/net/eth0/carrier')
        guest.run('udhcpc -i eth0 -s /bin/udhcpc-script -q -n -t 20')
        for _ in range(2):
            guest.run('until_true 90 ping -c 1 -W 1 10.0.2.2')
            self.kill_server(guest.vm, server)
            server = self.bring_back(guest.vm, server)
            guest.run('until_true 90 ping -c 1 -W 1 10.0.2.2')
        self.assertGreaterEqual(
            int(guest.run('dmesg | grep -c "Reset adapter"')), 2)


if __name__ == '__main__':
    QemuSystemTest.main()
