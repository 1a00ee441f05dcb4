#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user's page says can be copied works."""

import os
from pathlib import Path
import re
import shlex
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree

from qemu_test import QemuSystemTest

from vfio_user_case import REPOSITORY
from vfio_user_channel import KERNEL_COMMAND_LINE, Guest
from vfio_user_guest import MIB, VFIOUserGuestTest
from vfio_user_lock_waits import MIGRATION_WAITS
from vfio_user_migration import find_server
import vfio_user_recipes as recipes
from vfio_user_rows import NVME
from vfio_user_server import Server, wait_until

DEADLINE = 120
GIB = 1 << 30
HUGE_PAGE = 2 * MIB
BEHIND_PORT = '0000:01:00.0'
LIBVIRT_CONFIG = '''user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
'''
# libvirt wants to know of a user whom only its packages for a whole host make.
LIBVIRT_USERS = {
    'passwd': 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n',
    'group': 'libvirt-qemu:x:64055:\nkvm:x:64056:\n'}


class VFIOUserRecipes(VFIOUserGuestTest):
    """Blocks of the page, with a directory of the test's own."""

    def setUp(self):
        super().setUp()
        self.blocks = recipes.read()
        # Short, as sockets are in it
        self.directory = self.socket_dir().name

    def block(self, name):
        """Its text."""
        text = self.blocks[name].replace(recipes.DIRECTORY, self.directory)
        return text.replace('/usr/bin/qemu-system-x86_64', self.qemu_bin)

    def program(self, argv):
        """The same arguments for the programs of this build."""
        samples = 'build/subprojects/libvfio-user/samples/'
        if argv[0] == 'qemu-system-x86_64':
            return [self.qemu_bin, *argv[1:]]
        if argv[0].startswith(samples):
            return [self.sample_path(argv[0][len(samples):]), *argv[1:]]
        return argv

    def serve_block(self, name, path):
        """Run a block of commands, the last of which is a server."""
        *before, argv = map(self.program,
                            recipes.commands(self.block(name)))
        for command in before:
            subprocess.run(command, check=True)
        server = Server(argv, f'{self.directory}/{path}',
                        self.log_file(f'{name}.log'))
        self.servers.append(server)
        return server.start()

    def serve_disk_block(self):
        """The NVMe disk of the first recipe."""
        self.require_object('x-vfio-user-server')
        server = self.serve_block('own-server', 'nvme.sock')
        server.image = f'{self.directory}/nvme.img'
        return server

    def boot_arguments(self, argv, name, *more):
        """A machine's arguments with a guest in it: the page's "..."."""
        vm = self.get_vm(name=name)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        os.set_inheritable(theirs.fileno(), True)
        console = self.log_file(f'{name}-console.log')
        self.logs += [console, self.log_file(f'{name}.log')]
        vm.add_args(*argv, '-accel', 'tcg', '-nodefaults', '-cpu', 'qemu64',
                    '-kernel', str(self.kernel), '-initrd', str(self.initrd),
                    '-append', KERNEL_COMMAND_LINE,
                    '-chardev', f'file,id=console,path={console}',
                    '-serial', 'chardev:console',
                    '-chardev', f'socket,id=agent,fd={theirs.fileno()}',
                    '-serial', 'chardev:agent', *more)
        vm.launch()
        theirs.close()
        return Guest(vm, ours, self.fail_with_logs)

    def launch_block(self, name):
        """The machine of a block."""
        (argv,) = recipes.commands(self.block(name))
        self.assertEqual(argv[0], 'qemu-system-x86_64')
        return self.boot_arguments(argv[1:], name)

    def boot_block(self, name):
        """The same, and its guest is up."""
        guest = self.launch_block(name)
        guest.wait_boot()
        return guest

    def run_python(self, name):
        """A script of the page; what it prints."""
        script = self.scratch_file(f'{name}.py')
        Path(script).write_text(self.block(name), encoding='utf-8')
        done = subprocess.run(
            [sys.executable, '-B', script], timeout=DEADLINE, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def address(self, guest, ids):
        """Of the only device with these IDs."""
        lines = guest.run('lspci').splitlines()
        found = [line.split()[0] for line in lines if ids in line]
        self.assertEqual(len(found), 1, lines)
        return f'0000:{found[0]}'

    def check_nvme(self, guest, server):
        """The disk works."""
        address = guest.run('basename $(readlink -f '
                            '/sys/class/nvme/nvme0/device)')
        self.check_disk(guest, server, NVME, address, MIB)

    # Recipes

    def test_own_server(self):
        """Another QEMU's disk"""
        server = self.serve_disk_block()
        self.check_nvme(self.boot_block('own-vm'), server)

    def check_gpio(self, guest):
        """The card has its driver."""
        address = self.address(guest, '494f:0dc8')
        guest.run(f'until_true 60 test -e /sys/bus/pci/devices/{address}/gpio')
        self.assertEqual(guest.run(f'pci_driver {address}'),
                         'pci-idio-16')

    def test_libvfio_user(self):
        """A sample"""
        self.serve_block('gpio-server', 'gpio.sock')
        self.check_gpio(self.boot_block('gpio-vm'))

    def test_untrusted(self):
        """The same with less trust"""
        self.serve_block('gpio-server', 'gpio.sock')
        self.check_gpio(self.boot_block('untrusted-vm'))

    def test_python(self):
        """Plugged and unplugged by the scripts"""
        server = self.serve_disk_block()
        guest = self.boot_block('python-vm')
        self.run_python('python-plug')
        guest.run(f'wait_disk {NVME.disk}')
        self.check_disk(guest, server, NVME, BEHIND_PORT, MIB)
        self.run_python('python-unplug')
        self.assertEqual(server.wait(), 0)
        guest.run(f'test ! -e {NVME.disk}')

    def test_huge_pages(self):
        """The guest's memory is made of them."""
        text = Path('/proc/meminfo').read_text(encoding='ascii')
        free = int(re.search(r'HugePages_Free:\s+(\d+)', text)[1])
        size = int(re.search(r'Hugepagesize:\s+(\d+)', text)[1]) * 1024
        if size != HUGE_PAGE or free * size < GIB:
            self.skipTest('fewer than 512 free huge pages of 2 MiB: sysctl '
                          'vm.nr_hugepages=512')
        server = self.serve_disk_block()
        self.check_nvme(self.boot_block('huge-vm'), server)

    def test_reconnect(self):
        """The server is another one from some time on."""
        server = self.serve_disk_block()
        guest = self.boot_block('reconnect-vm')
        guest.run(f'wait_disk {NVME.disk}')
        written = guest.run(f'disk_write {NVME.disk} 1')
        server.kill()
        self.servers.append(server.again(self.log_file('again.log')).start())
        self.assertEqual(guest.run(f'disk_read {NVME.disk} 1'), written)

    def serve_engine(self, name):
        """A server that can be migrated."""
        if not os.access(find_server(), os.X_OK):
            self.skipTest(f'no {find_server()}: build it with "make"')
        path = f'{self.directory}/{name}.sock'
        server = Server([find_server(), f'--socket-path={path}', '--set',
                         'engine', '--set',
                         'migration size=1M precopy p2p logging'], path,
                        self.log_file(f'{name}-server.log'))
        self.servers.append(server)
        server.start()

    def test_migration(self):
        """The guest is at the target afterwards."""
        self.lock_waits = MIGRATION_WAITS
        for side in ('source', 'target'):
            self.serve_engine(side)
        source = self.boot_block('migration-source')
        source.run('touch /tmp/been-there')
        target = self.launch_block('migration-target')
        self.assertIn('completed', self.run_python('migration-python'))
        wait_until(lambda: target.vm.cmd('query-status')['status']
                   == 'running', DEADLINE, 'the guest runs at the target')
        source.vm.shutdown()
        target.number = source.number
        target.run('test -e /tmp/been-there')

    def test_systemd(self):
        """systemd takes the units, and what they start is a machine."""
        if not shutil.which('systemd-analyze'):
            self.skipTest('no systemd-analyze: install systemd')
        units = []
        for name in ('systemd-server', 'systemd-vm'):
            text = self.block(name)
            units.append(self.scratch_file(
                re.match(r'# (\S+)\n', text)[1]))
            Path(units[-1]).write_text(text, encoding='utf-8')
        done = subprocess.run(
            ['systemd-analyze', 'verify', '--man=no', *units], check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # It also names what is wrong with units of this machine.
        named = [line for line in done.stdout.splitlines() if 'vm1' in line]
        self.assertEqual((done.returncode, named), (0, []), done.stdout)
        self.serve_disk_block()
        (argv,) = recipes.commands(re.search(
            r'^ExecStart=((?:.*\\\n)*.*)', self.block('systemd-vm'),
            re.MULTILINE)[1])
        guest = self.boot_arguments(argv[1:], 'systemd')
        guest.wait_boot()
        guest.run(f'wait_disk {NVME.disk}')

    # libvirt

    def libvirt_arguments(self, domain):
        """How libvirt starts a machine; it runs inside virsh here."""
        root = Path(self.directory) / 'libvirt'
        (root / 'etc').mkdir(parents=True)
        (root / 'etc' / 'qemu.conf').write_text(LIBVIRT_CONFIG)
        mounts = ''
        for name, lines in LIBVIRT_USERS.items():
            (root / name).write_text(Path(f'/etc/{name}').read_text() + lines)
            mounts += f'mount --bind {root / name} /etc/{name}; '
        done = subprocess.run(
            ['unshare', '--mount', 'sh', '-ec', mounts + shlex.join(
                ['virsh', '-c', f'qemu:///embed?root={root}',
                 'domxml-to-native', 'qemu-argv', '--xml', domain])],
            check=False, timeout=DEADLINE, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 0, done.stderr)
        argv = shlex.split(done.stdout)
        return argv[argv.index(self.qemu_bin) + 1:]

    @staticmethod
    def without(argv, *options):
        """What only libvirt itself can use, and what the test has its own of:
        options with a value, by how they begin."""
        left, skip = [], False
        for option, value in zip(argv, argv[1:] + ['']):
            if skip:
                skip = False
            elif any(f'{option} {value}'.startswith(o) for o in options):
                skip = True
            else:
                left.append(option)
        return left

    def test_libvirt(self):
        """libvirt takes the domain, and what it makes of it is a machine."""
        if os.geteuid() or not shutil.which('virsh'):
            self.skipTest('no virsh, or not root: install libvirt-clients and '
                          'libvirt-daemon-driver-qemu')
        domain = self.scratch_file('vm1.xml')
        Path(domain).write_text(self.block('libvirt'), encoding='utf-8')
        subprocess.run(['virt-xml-validate', domain, 'domain'], check=True,
                       stdout=subprocess.DEVNULL)
        xml.etree.ElementTree.parse(domain)
        argv = self.without(
            self.libvirt_arguments(domain), '-object {"qom-type":"secret"',
            '-chardev socket,id=charmonitor', '-mon ', '-accel ', '-cpu ',
            '-sandbox ', '-uuid ')
        argv = [arg for arg in argv
                if arg not in ('-S', '-nodefaults', '-no-acpi')]
        server = self.serve_disk_block()
        guest = self.boot_arguments(argv, 'libvirt')
        guest.wait_boot()
        self.check_nvme(guest, server)

    def test_all(self):
        """No recipe that nobody runs."""
        text = Path(__file__).read_text(encoding='utf-8')
        self.assertTrue(self.blocks)
        for name in self.blocks:
            self.assertIn(f"'{name}'", text)
        self.assertTrue((REPOSITORY / 'README.md').exists())


if __name__ == '__main__':
    QemuSystemTest.main()
