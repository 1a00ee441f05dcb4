# SPDX-License-Identifier: GPL-2.0-or-later
"""The command channel to a booted guest, and how to boot one.

The guest is what scripts/guest/build-initramfs made.  Its kernel writes to
the first serial port, which goes to a file and is read by nobody.  Commands
go over the second one, on which only the guest's init answers: a request has
a number, the answer ends in a line with that number and the exit status, so
kernel messages cannot be mistaken for an answer.

Used by the tests and by scripts/demo.py; needs nothing but Python.
"""

import logging
import re
import socket
import time

BOOT_DEADLINE = 180
COMMAND_DEADLINE = 120

KERNEL_COMMAND_LINE = (
    'console=ttyS0 loglevel=7 nokaslr mitigations=off tsc=reliable '
    'no_timer_check cryptomgr.notests random.trust_cpu=on '
    'panic=-1 oops=panic')

# Boards without the devices that no test uses: the guest boots faster.
MACHINES = {
    'pc': 'pc,usb=off',
    'q35': 'q35,sata=off,smbus=off,usb=off',
}


def guest_arguments(memory, kernel, initrd, append='', share='on'):
    """QEMU's arguments for a guest with shared or private RAM."""
    return ['-cpu', 'qemu64', '-m', memory,
            '-object',
            f'memory-backend-memfd,id=mem,size={memory},share={share}',
            '-nodefaults', '-no-user-config',
            '-kernel', str(kernel), '-initrd', str(initrd),
            '-append', f'{KERNEL_COMMAND_LINE} {append}'.rstrip()]


class Guest:
    """The channel to one guest.

    vm is whatever the owner wants to find there; fail is called with a
    sentence when the guest does not do as told, and must not return.
    """

    log = logging.getLogger('qemu-test')

    def __init__(self, vm, channel, fail):
        self.vm = vm
        self.channel = channel
        self.fail = fail
        self.pending = b''
        self.number = 0

    def _read_until(self, pattern, deadline, what):
        """Text before the first match of pattern, and the match."""
        end = time.monotonic() + deadline
        while True:
            match = re.search(pattern, self.pending)
            if match:
                text = self.pending[:match.start()]
                self.pending = self.pending[match.end():]
                return text.decode(errors='replace'), match
            left = end - time.monotonic()
            self.channel.settimeout(max(left, 0.001))
            try:
                data = self.channel.recv(65536)
            except (socket.timeout, ConnectionResetError):
                data = b''
            if not data:
                cause = f'not within {deadline} s'
                if time.monotonic() < end:
                    cause = 'QEMU closed the serial port'
                self.fail(f'{what}: {cause}; the last that came was '
                          f'{self.pending[-200:]!r}')
            self.pending += data

    def wait_boot(self):
        """Until init reports; also used after a reboot."""
        self._read_until(rb'@@ready@@\r?\n', BOOT_DEADLINE, 'the guest boots')

    def status(self, command, deadline=COMMAND_DEADLINE):
        """Exit status and output of a shell command in the guest."""
        self.number += 1
        self.log.debug('guest: %s', command)
        self.channel.sendall(f'{self.number} {command}\n'.encode())
        text, match = self._read_until(
            rb'@@(?:%d (\d+)|ready)@@\r?\n' % self.number, deadline,
            f'the guest answers "{command}"')
        if match[1] is None:
            self.fail(f'the guest crashed and rebooted during "{command}"')
        self.log.debug('guest: -> %s %s', match[1].decode(), text)
        return int(match[1]), text.replace('\r', '').rstrip('\n')

    def run(self, command, deadline=COMMAND_DEADLINE):
        """Output of a shell command in the guest, which must succeed."""
        status, text = self.status(command, deadline)
        if status:
            self.fail(f'"{command}" failed in the guest with status {status}: '
                      f'{text}')
        return text

    def reboot(self):
        """Reset through the guest's own reboot; returns when it is up."""
        self.number += 1
        self.channel.sendall(f'{self.number} reboot -f\n'.encode())
        self.wait_boot()

    def config(self, address):
        """The config space of a PCI device as the guest's kernel sees it."""
        dump = self.run(f'xxd -p /sys/bus/pci/devices/{address}/config')
        return bytes.fromhex(dump.replace('\n', ''))

    def config_window(self, bus, slot, size):
        """The memory-mapped config space of a function 0 on q35.

        It also reaches what is no device for Linux.  The kernel must have
        been booted with iomem=relaxed.
        """
        ecam = self.run("sed -n 's/-.*PCI ECAM.*//p' /proc/iomem | head -n 1")
        base = int(ecam, 16) + (bus << 20) + (slot << 15)
        words = self.run(f'for i in $(seq 0 4 {size - 1}); do '
                         f'devmem $(({base} + i)) 32; done').split()
        return b''.join(int(word, 16).to_bytes(4, 'little')
                        for word in words)
