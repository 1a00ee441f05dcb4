#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who must learn that a server has written to memory by message.

Not the memory alone counts.  What TCG has translated from it has to be
forgotten, and the display redraws only what it knows to be dirty.  The device
is that of smp-guest/device.c.  RAM is private, so all it stores comes as
DMA_WRITE, which the trace confirms.
"""

import functools
from pathlib import Path
import shutil
import tempfile
import unittest

from qemu_test import QemuSystemTest

import test_x86_64_vfio_user_kvm as flat
import test_x86_64_vfio_user_private as private
from vfio_user_case import GUEST_ENDS
import vfio_user_smp as smp

# dma-guest/guest.c
SOURCES = smp.FUNCTIONAL / 'dma-guest'
CALLS, ROUNDS = 1000, 16

VGA_SLOT = 6
FRAMEBUFFER = 0xd0000000
VBE_INDEX, VBE_DATA = 0x1ce, 0x1cf
VBE_XRES, VBE_YRES, VBE_BPP, VBE_ENABLE = 1, 2, 3, 4
VBE_ENABLED_8BIT_DAC_LFB = 0x61
ATTRIBUTE, ATTRIBUTE_SCREEN_ON = 0x3c0, 0x20
PALETTE_INDEX, PALETTE_DATA = 0x3c8, 0x3c9
# A page is 16 lines.
WIDTH, HEIGHT = 256, 128
PAGE = 4096
LAST_LINE = WIDTH * (HEIGHT - 1)


def pattern(seed, length):
    """What the device stores."""
    return bytes((seed + i * 13 + i // 251) & 0xff for i in range(length))


@functools.lru_cache(maxsize=None)
def guest_program():
    """The guest, compiled once."""
    smp.programs()      # skips where there is no compiler for it
    directory = Path(tempfile.mkdtemp(prefix='vfio-user-dma-'))
    unittest.addModuleCleanup(shutil.rmtree, directory)
    guest = directory / 'guest'
    flat.compile_program(*flat.GUEST_FLAGS, f'-I{smp.PARTS}', '-o', guest,
                         smp.PARTS / 'start.S',
                         *[smp.PARTS / f'{name}.c'
                           for name in ('report', 'platform', 'pci')],
                         SOURCES / 'guest.c')
    return guest


class VFIOUserDMACode(smp.VFIOUserDeviceTest):
    """The server overwrites code that has been translated."""

    commands = private.VFIOUserPrivate.commands

    def run_guest(self, *server_args):
        """Run the guest to its end and return its lines."""
        server = self.start_device(smp.A, *server_args)
        console = self.log_file('guest-console.log')
        self.trace = self.log_file('trace.log')
        self.logs += [console, self.trace, self.log_file('guest.log')]
        guest = self.get_vm(name='guest')
        guest.set_machine('q35')
        # Stopped at first: it could end before the framework has looked.
        guest.add_args('-S', *self.accel_args(), '-m', '64M', *flat.BOARD,
                       '-serial', f'file:{console}',
                       '-kernel', str(guest_program()), '-D', self.trace,
                       '-trace', 'vfio_user_conn_command',
                       '-trace', 'vfio_user_conn_failed', *GUEST_ENDS,
                       *self.client(server, addr='5'))
        guest.launch()
        guest.cmd('cont')
        self.wait_end(guest, flat.BOOT_DEADLINE, 'the guest ends')
        return Path(console).read_text(encoding='ascii').splitlines()

    def check_code(self, *server_args):
        """Each call returns what was stored last, and nothing else."""
        lines = self.run_guest(*server_args)
        self.assertEqual(lines[-1:], ['end'])
        got = [(name, *(int(number, 16) for number in numbers))
               for name, *numbers in map(str.split, lines[:-1])]
        wanted = []
        last = {'inside': 0, 'crossing': 0}
        for seed in range(1, ROUNDS + 1):
            for name, length in (('inside', 4), ('crossing', 2)):
                value = int.from_bytes(
                    bytes(4 - length) + pattern(seed, length), 'little')
                wanted.append((name, CALLS, last[name], value))
                last[name] = value
        self.assertEqual(got, wanted)
        self.assertEqual(
            [(command, count, ret)
             for command, _, count, ret in self.commands()],
            [(private.DMA_WRITE, length, 0)
             for length in (4, 4, 2, 2)] * ROUNDS)

    def test_code_twin_socket(self):
        """The write comes while the vCPU waits, on another thread."""
        self.check_code()

    def test_code_one_socket(self):
        """The write comes where the vCPU's answer is awaited."""
        self.check_code('--one-socket')


class VFIOUserDMACodeKVM(VFIOUserDMACode):
    """Under KVM: the host's CPU, or KVM's emulator, must see it."""

    accel = 'kvm'


class VFIOUserDMADisplay(smp.VFIOUserDeviceTest):
    """The server writes into the frame buffer of another device.

    256 colours, because then the display keeps a picture of its own: with
    more bits it would show the memory itself, dirty or not.
    """

    # The accesses are those of qtest
    lock_waits = ('nested',)

    launch = private.VFIOUserPrivate.launch
    qtest = private.VFIOUserPrivate.qtest
    config = private.VFIOUserPrivate.config
    register = private.VFIOUserPrivate.register
    read_memory = private.VFIOUserPrivate.read_memory
    commands = private.VFIOUserPrivate.commands

    def vga_config(self, register, value):
        """Write a word of the display's config space."""
        self.qtest(f'outl {private.CONFIG_ADDRESS} '
                   f'{1 << 31 | VGA_SLOT << 11 | register}')
        self.qtest(f'outl {private.CONFIG_DATA} {value}')

    def vga_start(self):
        """Show the frame buffer, where value N is the grey N."""
        self.vga_config(private.BAR0, FRAMEBUFFER)
        self.vga_config(private.COMMAND, private.IO_AND_MEMORY_AND_MASTER)
        for index, value in ((VBE_XRES, WIDTH), (VBE_YRES, HEIGHT),
                             (VBE_BPP, 8),
                             (VBE_ENABLE, VBE_ENABLED_8BIT_DAC_LFB)):
            self.qtest(f'outw {VBE_INDEX} {index}')
            self.qtest(f'outw {VBE_DATA} {value}')
        self.qtest(f'outb {ATTRIBUTE} {ATTRIBUTE_SCREEN_ON}')
        self.qtest(f'outb {PALETTE_INDEX} 0')
        for grey in range(256):
            for _ in 'RGB':
                self.qtest(f'outb {PALETTE_DATA} {grey}')

    def picture(self):
        """What the display shows, a byte for each pixel."""
        path = self.scratch_file('screen.ppm')
        self.machine.cmd('screendump', filename=path)
        head = f'P6\n{WIDTH} {HEIGHT}\n255\n'.encode()
        data = Path(path).read_bytes()
        self.assertEqual(data[:len(head)], head)
        red, green, blue = (data[len(head) + i::3] for i in range(3))
        self.assertTrue(red == green == blue, 'the picture has colours')
        self.assertEqual(len(red), WIDTH * HEIGHT)
        return red

    def store(self, address, length, seed):
        """Let the server write, by one message."""
        before = len(self.commands())
        self.register(private.DMA_ADDR, address)
        self.register(private.DMA_LEN, length)
        self.register(private.DMA_FILL, seed)
        self.assertEqual(self.register(private.DMA_ERROR), 0)
        self.assertEqual(self.commands()[before:],
                         [(private.DMA_WRITE, address, length, 0)])
        self.assertEqual(self.read_memory(address, length),
                         pattern(seed, length))

    def check_display(self, *server_args):
        """The picture has what was written, at once and nowhere else."""
        server = self.start_device(smp.A, *server_args)
        self.launch(*self.client(server, addr=str(private.SLOT)),
                    '-device', f'VGA,addr={VGA_SLOT}')
        self.config(private.BAR0, private.MEMORY_BASE)
        self.config(private.COMMAND, private.IO_AND_MEMORY_AND_MASTER)
        self.vga_start()
        wanted = bytearray(WIDTH * HEIGHT)
        # The first draws all, the second what was dirty from the start.
        for _ in range(3):
            self.assertEqual(self.picture(), wanted)
        for seed, (offset, length) in enumerate(
                ((0, WIDTH), (PAGE, 1), (3 * PAGE - WIDTH, 2 * WIDTH),
                 (5 * PAGE + 100, PAGE + 7), (LAST_LINE, WIDTH)), 1):
            # Not a part of the picture: other memory, and behind its end
            self.store(16 * private.MIB, length, seed)
            self.store(FRAMEBUFFER + WIDTH * HEIGHT + offset, length, seed)
            self.assertTrue(self.picture() == wanted,
                            'a write to another place is in the picture')
            self.store(FRAMEBUFFER + offset, length, seed)
            wanted[offset:offset + length] = pattern(seed, length)
            self.assertTrue(self.picture() == wanted,
                            f'{length} bytes at {offset:#x} of the frame '
                            'buffer are not in the picture as written')

    def test_display_twin_socket(self):
        """The server asks on a socket of its own."""
        self.check_display()

    def test_display_one_socket(self):
        """It asks where we wait for the answer."""
        self.check_display('--one-socket')


if __name__ == '__main__':
    QemuSystemTest.main()
