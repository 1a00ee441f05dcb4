#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest RAM that is not shared: the server asks for every byte of it.

The servers are libvfio-user's samples, as they are, and the device of
smp-guest/device.c, whose registers transfer more than a page inside an
access.  Except for the booted guest no CPU runs: the tests speak QEMU's qtest
protocol, and so know when nothing else is going on.
"""

import base64
import os
from pathlib import Path
import re
import signal
import socket
import zlib

from qemu_test import QemuSystemTest

from qemu.machine.qtest import QEMUQtestProtocol
from vfio_user_case import MIB
import vfio_user_guest
from vfio_user_samples import VFIOUserSampleTest
from vfio_user_server import wait_until
import vfio_user_smp as smp

KIB = 1 << 10
MEMORY = ['-m', '64M', '-nodefaults', '-no-user-config']
PRIVATE = ['-object', 'memory-backend-ram,id=private,size=512M',
           '-machine', 'memory-backend=private']
ADVICE = 'share=on'

# The bus, without firmware
CONFIG_ADDRESS, CONFIG_DATA = 0xcf8, 0xcfc
SLOT = 5
COMMAND, BAR0, BAR1 = 4, 0x10, 0x14
IO_AND_MEMORY_AND_MASTER = 7
MEMORY_BASE, PORT_BASE = 0xe0000000, 0xc000

# smp-guest/regs.h
DMA_ADDR, DMA_LEN, DMA_SUM, DMA_FILL, DMA_ERROR = 0, 4, 8, 0xc, 0x10

DMA_READ, DMA_WRITE = 11, 12
# libvfio-user's sample "server"
SAMPLE_DMA = 4096
SAMPLE_UNMAPPED = 0x1000
GPIO = '0000:00:05.0'


class VFIOUserPrivate(smp.VFIOUserDeviceTest, VFIOUserSampleTest):
    """No CPU runs, and all RAM is private."""

    # The accesses are those of qtest
    lock_waits = ('nested',)

    def launch(self, *args):
        """Start QEMU under qtest, with its trace of the server's commands."""
        self.trace = self.log_file('trace.log')
        self.logs += [self.trace, self.log_file('machine.log')]
        ours, theirs = socket.socketpair()
        ours.settimeout(smp.DEADLINE)
        os.set_inheritable(theirs.fileno(), True)
        self.machine = self.get_vm(name='machine')
        self.machine.set_machine('pc')
        self.machine.add_args(
            *MEMORY, '-accel', 'qtest',
            '-chardev', f'socket,id=qtest,fd={theirs.fileno()}',
            '-qtest', 'chardev:qtest', '-D', self.trace,
            '-trace', 'vfio_user_conn_command',
            '-trace', 'vfio_user_conn_failed',
            '-trace', 'vfio_user_device_version', *args)
        self.machine.launch()
        theirs.close()
        self.protocol = QEMUQtestProtocol(sock=ours)
        self.protocol.connect()
        self.addCleanup(self.protocol.close)

    def qtest(self, command):
        """The answer to a command."""
        status, *words = self.protocol.cmd(command).split()
        self.assertEqual(status, 'OK', command)
        return words[0] if words else ''

    def config(self, register, value=None):
        """Read or write a word of the device's config space."""
        self.qtest(f'outl {CONFIG_ADDRESS} '
                   f'{1 << 31 | SLOT << 11 | register}')
        if value is None:
            return int(self.qtest(f'inl {CONFIG_DATA}'), 16)
        return self.qtest(f'outl {CONFIG_DATA} {value}')

    def read_memory(self, address, length):
        """Guest memory."""
        text = self.qtest(f'b64read {address} {length}')
        return base64.b64decode(text)

    def write_memory(self, address, data):
        """The same, the other way."""
        text = base64.b64encode(data).decode()
        self.qtest(f'b64write {address} {len(data)} {text}')

    def commands(self):
        """The server's DMA commands: (command, address, count, result)."""
        text = Path(self.trace).read_text(encoding='utf8')
        self.assertNotIn('vfio_user_conn_failed', text)
        return [(int(command), int(address, 16), int(count), int(ret))
                for command, address, count, ret in re.findall(
                    r'command id \d+ command (\d+) address (0x\w+) '
                    r'count (\d+): (-?\d+)$', text, re.MULTILINE)]

    def assert_twin_socket(self, granted):
        """Which kind of connection it is."""
        text = Path(self.trace).read_text(encoding='utf8')
        self.assertIn(f' twin_socket {granted:d} ', text)

    # libvfio-user's sample "server"

    def sample_place(self, server):
        """Where in its program the sample waits, or nothing if it runs.

        What /proc tells names the system call, its arguments, what is left in
        three more registers, stack and instruction pointer.  Waiting for a
        request it has another stack than waiting for our reply.
        """
        path = Path(f'/proc/{server.process.pid}/syscall')
        if not os.access(path, os.R_OK):
            self.skipTest(f'no {path}, which tells what the sample waits for')
        words = path.read_text(encoding='ascii').split()
        return words[:4] + words[7:] if len(words) == 9 else None

    def sample_idle(self, server):
        """The place where it waits for a request."""
        self.config(COMMAND)    # answered after everything before it
        places = [None]

        def settled():
            places.append(self.sample_place(server))
            return places[-1] and places[-1] == places[-2]
        wait_until(settled, smp.DEADLINE, 'the sample is idle')
        return places[-1]

    def sample_dma(self, server):
        """Let the sample's alarm go off, and look at what it transfers.

        It raises INTx, writes 4 KiB of 'A' to its first window, reads them
        back and ends if it got anything else.  The register that sets the
        alarm needs an I/O port access of eight bytes, which x86 has not; the
        alarm is a signal, so it can be sent.
        """
        idle = self.sample_idle(server)
        before = len(self.commands())
        os.kill(server.process.pid, signal.SIGALRM)
        # Not earlier: our next message must not cross the sample's.
        wait_until(lambda: not server.running()
                   or (len(self.commands()) >= before + 2
                       and self.sample_place(server) == idle),
                   smp.DEADLINE, 'the sample writes and reads guest memory')
        self.assertTrue(server.running(), 'the sample ended')
        write, read = self.commands()[before:]
        self.assertEqual(write[0], DMA_WRITE)
        self.assertEqual(write[2:], (SAMPLE_DMA, 0))
        self.assertEqual(read, (DMA_READ, *write[1:]))
        self.assertEqual(self.read_memory(write[1], SAMPLE_DMA),
                         b'A' * SAMPLE_DMA)
        return write[1]

    def test_sample_server(self):
        """It verifies what it wrote, and then serves as before."""
        server = self.serve_sample('server', '-v')
        self.launch(*self.client(server, addr=str(SLOT)))
        self.assert_twin_socket(False)
        self.config(BAR1, PORT_BASE)
        self.config(COMMAND, IO_AND_MEMORY_AND_MASTER)
        for value in range(0x41, 0x51):
            address = self.sample_dma(server)
            # Its reads of BAR1 all start at offset 0.
            self.qtest(f'outl {PORT_BASE} {value}')
            self.assertEqual(
                int(self.qtest(f'inl {PORT_BASE + SAMPLE_UNMAPPED}'), 16),
                value)
            self.write_memory(address, bytes(SAMPLE_DMA))
        self.assertTrue(server.running())

    def test_sample_refused_port(self):
        """An access that the sample refuses leaves DMA as it was."""
        server = self.serve_sample('server', '-v')
        self.launch(*self.client(server, addr=str(SLOT)))
        self.config(BAR0, PORT_BASE)
        self.config(COMMAND, IO_AND_MEMORY_AND_MASTER)
        self.sample_dma(server)
        self.assertEqual(int(self.qtest(f'inl {PORT_BASE}'), 16), 0xffffffff)
        self.assertIn('bad BAR0 access', server.log_text())
        self.sample_dma(server)

    # The device that transfers inside an access

    def register(self, offset, value=None):
        """Read or write a register."""
        if value is None:
            return int(self.qtest(f'readl {MEMORY_BASE + offset}'), 16)
        return self.qtest(f'writel {MEMORY_BASE + offset} {value}')

    def check_transfer(self, address, length):
        """Both ways, with nothing written beside it."""
        self.register(DMA_ADDR, address)
        self.register(DMA_LEN, length)
        sent = os.urandom(length)
        self.write_memory(address, sent)
        self.assertEqual(self.register(DMA_SUM), zlib.adler32(sent))
        self.assertEqual(self.register(DMA_ERROR), 0)

        edge = b'edge'
        self.write_memory(address - len(edge), edge)
        self.write_memory(address + length, edge)
        seed = length >> 10 & 0xff
        self.register(DMA_FILL, seed)
        self.assertEqual(self.register(DMA_ERROR), 0)
        wanted = bytes((seed + i * 13 + i // 251) & 0xff
                       for i in range(length))
        got = self.read_memory(address - len(edge), length + 2 * len(edge))
        self.assertTrue(got == edge + wanted + edge,
                        f'{length} bytes at {address:#x} are not as written')

    def check_transfers(self, *server_args):
        """4 KiB to 1 MiB and more than a message, aligned and not."""
        server = self.start_device(smp.A, *server_args)
        self.launch(*self.client(server, addr=str(SLOT)))
        self.config(BAR0, MEMORY_BASE)
        self.config(COMMAND, IO_AND_MEMORY_AND_MASTER)
        for length in (4 * KIB, 64 * KIB, MIB, 3 * MIB + 5):
            for address in (16 * MIB, 32 * MIB + 3):
                before = len(self.commands())
                self.check_transfer(address, length)
                moved = [(command, count, ret) for command, _, count, ret
                         in self.commands()[before:]]
                for way in (DMA_READ, DMA_WRITE):
                    self.assertEqual(sum(count for command, count, _ in moved
                                         if command == way), length)
                self.assertEqual({ret for _, _, ret in moved}, {0})

    def test_transfer_twin_socket(self):
        """The server asks on a socket of its own."""
        self.check_transfers()
        self.assert_twin_socket(True)

    def test_transfer_one_socket(self):
        """It asks where we wait for the answer, and takes nothing else."""
        self.check_transfers('--one-socket')
        self.assert_twin_socket(False)

    # What the user is told

    def test_warning_once(self):
        """Two devices, one warning."""
        servers = [self.start_device(smp.A) for _ in range(2)]
        self.launch(*self.client(servers[0], addr='5'),
                    *self.client(servers[1], addr='6'))
        self.machine.shutdown()
        self.assertEqual(self.machine.get_log().count(ADVICE), 1)

    def test_warning_once_hotplug(self):
        """Nor does a device that comes later repeat it."""
        servers = [self.start_device(smp.A) for _ in range(2)]
        self.launch(*self.client(servers[0], addr='5'))
        self.machine.cmd('device_add', {
            'driver': 'vfio-user-pci', 'id': 'late', 'addr': '6',
            'bus': 'pci.0', 'socket': servers[1].socket})
        self.machine.shutdown()
        self.assertEqual(self.machine.get_log().count(ADVICE), 1)


class VFIOUserPrivateGuest(vfio_user_guest.VFIOUserGuestTest,
                           VFIOUserSampleTest):
    """A booted guest whose RAM is private."""

    def test_gpio(self):
        """The gpio sample works as it does with shared RAM."""
        server = self.serve_sample('gpio-pci-idio-16', '-v')
        guest = self.boot(*PRIVATE, *self.client(server, addr='5'))
        guest.run(f'until_true 60 test -e /sys/bus/pci/devices/{GPIO}/gpio')
        guest.run(f'gpio_export {GPIO} 3')
        guest.run(f'gpio_export {GPIO} 16')
        for pattern, command in (
                (r'region2: wrote 0x8 to \(0:1\)',
                 'echo 1 >/sys/class/gpio/OUT3/value'),
                (r'region2: wrote 0 to \(0:1\)',
                 'echo 0 >/sys/class/gpio/OUT3/value'),
                (r'region2: read 0 from \(0x1:1\)',
                 'test "$(cat /sys/class/gpio/IIN0/value)" = 0')):
            before = len(re.findall(pattern, server.log_text()))
            guest.run(command)
            self.assertGreater(len(re.findall(pattern, server.log_text())),
                               before, command)
        guest.vm.shutdown()
        self.assertEqual(guest.vm.get_log().count(ADVICE), 1,
                         'the RAM was not private')


if __name__ == '__main__':
    QemuSystemTest.main()
