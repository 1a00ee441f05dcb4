# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU in the guest, driven from outside of it.

The outer machine has an IOMMU and two virtio-serial ports.  In its guest runs
another QEMU, the inner one, to which the kernel's vfio-pci lends devices of
the outer machine.  The inner QEMU runs no guest: its qtest and QMP channels
are the ports, so what a guest's driver would do is done here, in Python, one
access at a time, and the inner QEMU's code is reached as by a guest.

Ports outlive the inner QEMU.  What one of them left behind is dropped when
the next one greets, and nothing is sent before that.
"""

import json
import os
import re
import socket
import subprocess
import time

from vfio_user_case import REPOSITORY
from vfio_user_guest import VFIOUserGuestTest

DEADLINE = 120
PORTS = ('qtest', 'qmp')
PORT_FILES = ['/dev/vport0p1', '/dev/vport0p2']
ECAM = 0xb0000000
MEMORY = 64 << 20

# sed: addresses of the inner QEMU's own memory are different each time
NO_POINTERS = 's/0x[0-9a-f]{9,}/POINTER/g'
INNER_COMMAND = (
    'cd /tmp; LD_LIBRARY_PATH=/inner/lib exec /inner/qemu -L /inner/share '
    '-nodefaults -no-user-config -display none')


class Port:
    """Lines from and to a virtio-serial port."""

    def __init__(self, channel, name, fail):
        self.channel = channel
        self.name = name
        self.fail = fail
        self.pending = b''

    def send(self, line):
        """Send a line."""
        self.channel.sendall(line.encode() + b'\n')

    def line(self, wanted='an answer'):
        """The next line."""
        end = time.monotonic() + DEADLINE
        while b'\n' not in self.pending:
            self.channel.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self.channel.recv(1 << 16)
            except socket.timeout:
                data = b''
            if not data:
                self.fail(f'{wanted} did not come on the {self.name} port of '
                          f'the inner QEMU; last was {self.pending[-200:]!r}')
            self.pending += data
        line, self.pending = self.pending.split(b'\n', 1)
        return line.decode().strip()


class Inner:
    """A running inner QEMU."""

    def __init__(self, test, guest, ports):
        self.test = test
        self.guest = guest
        self.qtest_port, self.qmp_port = ports
        self.irqs = []
        self.events = []

    def start(self, *args):
        """Run it in the guest; returns when it has said hello."""
        channels = ['-accel qtest -monitor none',
                    f'-chardev pipe,id=qt,path={PORT_FILES[0]}',
                    '-qtest chardev:qt -qtest-log /dev/null',
                    f'-chardev pipe,id=qm,path={PORT_FILES[1]}',
                    '-mon chardev=qm,mode=control',
                    '-D /tmp/inner.trace -trace "vfio_*" -trace "iommufd_*"']
        words = ' '.join([*channels, *args])
        self.guest.run('rm -f /tmp/inner.status; '
                       f'(({INNER_COMMAND} {words}) >/tmp/inner.log 2>&1; '
                       'echo $? >/tmp/inner.status) &')
        while 'QMP' not in self._message('a greeting'):
            pass
        self.qmp('qmp_capabilities')
        return self

    def stop(self):
        """End it, which must go well; what it wrote to stderr."""
        self.qmp('quit')
        self.guest.run('until_true 60 test -s /tmp/inner.status')
        self.test.assertEqual(self.guest.run('cat /tmp/inner.status'), '0')
        return self.guest.run(f"sed -E '{NO_POINTERS}' /tmp/inner.log")

    def traced(self):
        """The kinds of trace events of vfio that it saw, with their values.

        How often a loop reads a register is not of interest, nor where
        things happen to be in memory.
        """
        return self.guest.run(
            "grep -E '^(vfio|iommufd)_' /tmp/inner.trace | "
            "grep -vE '^vfio_(region_read|pci_read_config)' | "
            f"sed -E '{NO_POINTERS}' | sort -u").split('\n')

    # QMP

    def _message(self, wanted):
        text = self.qmp_port.line(wanted)
        try:
            return json.loads(text)
        except ValueError:
            return {}   # the rest of a line of the QEMU before

    def qmp(self, command, **arguments):
        """The answer to a QMP command, its error as a dict."""
        self.qmp_port.send(json.dumps({'execute': command,
                                       'arguments': arguments}))
        while True:
            message = self._message(f'an answer to {command}')
            if 'event' in message:
                self.events.append(message)
            elif 'return' in message:
                return message['return']
            elif 'error' in message:
                return message

    def wait_event(self, name, **data):
        """Until an event has come whose data has these members."""
        def matches(event):
            return event['event'] == name and \
                data.items() <= event.get('data', {}).items()
        while not any(map(matches, self.events)):
            message = self._message(f'event {name}')
            if 'event' in message:
                self.events.append(message)
        self.events.clear()

    # qtest

    def qtest(self, command):
        """The words of qtest's answer, without its OK."""
        self.qtest_port.send(command)
        while True:
            words = self.qtest_port.line(f'an answer to {command}').split()
            if words and words[0] == 'IRQ':
                self.irqs.append((words[1], int(words[2])))
            elif words and words[0] == 'OK':
                return words[1:]
            elif words:
                self.test.fail_with_logs(f'qtest: {command}: {words}')

    def load(self, address, bits=32):
        """A load from guest-physical memory."""
        size = {8: 'b', 16: 'w', 32: 'l', 64: 'q'}[bits]
        return int(self.qtest(f'read{size} {address:#x}')[0], 16)

    def store(self, address, value, bits=32):
        """A store to it."""
        size = {8: 'b', 16: 'w', 32: 'l', 64: 'q'}[bits]
        self.qtest(f'write{size} {address:#x} {value:#x}')

    def read(self, address, size):
        """Bytes of guest-physical memory."""
        return bytes.fromhex(
            self.qtest(f'read {address:#x} {size:#x}')[0][2:])

    def write(self, address, data):
        """The same, to be written."""
        self.qtest(f'write {address:#x} {len(data):#x} 0x{data.hex()}')

    def until(self, condition, what):
        """Ask again, each question being a round trip, until it is true."""
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                self.test.fail_with_logs(f'the inner QEMU: {what}: not '
                                         f'within {DEADLINE} s')

    def prepare(self):
        """Config space in memory, as q35's firmware would have it, and news
        of the IOAPIC's pins."""
        self.qtest('irq_intercept_in ioapic')
        for register, value in ((0x64, 0), (0x60, ECAM | 1)):
            self.qtest(f'outl 0xcf8 {0x80000000 | register:#x}')
            self.qtest(f'outl 0xcfc {value:#x}')


class InnerTest(VFIOUserGuestTest):
    """Base of the tests with a QEMU in the guest."""

    def setUp(self):
        super().setUp()
        self.inner_qemu = os.getenv('VFIO_USER_INNER_QEMU', self.qemu_bin)
        self.ports = []

    def require_inner(self, device):
        """Skip where the inner QEMU was built without the device."""
        known = subprocess.run([self.inner_qemu, '-device', 'help'],
                               capture_output=True, check=True,
                               encoding='utf8').stdout
        if f'"{device}"' not in known:
            self.skipTest(f'{self.inner_qemu} has no {device}')

    def initrd_with_inner(self):
        """The guest's initrd, followed by one with the inner QEMU."""
        both = self.scratch_file('initrd')
        subprocess.run([REPOSITORY / 'scripts' / 'guest' / 'build-inner',
                        self.inner_qemu, both + '.inner'], check=True)
        with open(both, 'wb') as out:
            for name in (self.initrd, both + '.inner'):
                with open(name, 'rb') as file:
                    out.write(file.read())
        return both

    def boot_outer(self, *args):
        """A guest behind an IOMMU, with ports for what runs in it."""
        self.initrd = self.initrd_with_inner()
        words = ['-device', 'intel-iommu,intremap=on',
                 '-device', 'virtio-serial-pci,max_ports=4']
        for name in PORTS:
            ours, theirs = socket.socketpair()
            self.addCleanup(ours.close)
            self.addCleanup(theirs.close)
            os.set_inheritable(theirs.fileno(), True)
            words += ['-chardev', f'socket,id={name},fd={theirs.fileno()}',
                      '-device', f'virtserialport,chardev={name},name={name}']
            self.ports.append(Port(ours, name, self.fail_with_logs))
        return self.boot(*words, *args, memory='768M',
                         append='intel_iommu=on')

    def inner(self, guest, *args):
        """Start an inner QEMU there."""
        return Inner(self, guest, self.ports).start(*args)

    def refusal(self, guest, *args):
        """What an inner QEMU says that does not start, its name left out."""
        status, text = guest.status(
            f'({INNER_COMMAND} -accel qtest -M q35 -m 64M '
            f'{" ".join(args)}) </dev/null 2>&1')
        self.assertEqual(status, 1, text)
        return re.sub(r'^\S*qemu\S*: ', '', text, flags=re.MULTILINE)
