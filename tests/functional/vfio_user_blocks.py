# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk I/O in a guest, every block of which is checked.

The guest's part is the program tests/soak/blocks.c, which says what it does.
The host's part is here: the image of the server must hold what the guest has
written, and what the device has confirmed once must never be lost again.
"""

import importlib.machinery
import importlib.util
from pathlib import Path
import re
import struct
import subprocess
import zlib

TOP = Path(__file__).resolve().parent.parent.parent
BLOCK = 4096
NR_BLOCKS = 2048
MASK = (1 << 64) - 1


def make_initrd(base, directory):
    """The test guest's initrd with the program added, in the directory."""
    loader = importlib.machinery.SourceFileLoader(
        'build_initramfs', str(TOP / 'scripts/guest/build-initramfs'))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    program = Path(directory) / 'blocks'
    subprocess.run(['cc', '-O2', '-static', '-s', '-Wall', '-Wextra',
                    '-Werror', f'-I{TOP}/tests/server', '-o', program,
                    TOP / 'tests/soak/blocks.c'], check=True)
    cpio = module.Cpio()
    cpio.file('bin/blocks', program.read_bytes(), 0o755)
    data = Path(base).read_bytes()
    initrd = Path(directory) / 'initrd'
    initrd.write_bytes(data + bytes(-len(data) % 4) + cpio.finish())
    return initrd


def engine_mix(x):
    """As in tests/server/engine.h."""
    x ^= x >> 30
    x = x * 0xbf58476d1ce4e5b9 & MASK
    x ^= x >> 27
    x = x * 0x94d049bb133111eb & MASK
    return x ^ x >> 31


class BlockLoad:
    """The work on one disk.

    image is the server's file, made here; fail is called with a sentence
    when something is wrong, and must not return.
    """

    def __init__(self, name, image, fail):
        self.name = name
        self.image = image
        self.fail = fail
        self.seed = zlib.crc32(name.encode()) | 1
        self.newest = [0, 0]
        with open(image, 'wb') as file:
            file.truncate(BLOCK * NR_BLOCKS)

    def _note(self, text):
        """What the device has confirmed."""
        newest = [int(n) for n in re.findall(r'newest (\d+)', text)]
        lost = [(old, new) for old, new in zip(self.newest, newest)
                if new < old]
        if lost:
            self.fail(f'{self.name}: writes that were confirmed are lost '
                      f'(newest before, now): {lost}')
        self.newest = newest
        return text

    def start(self, guest, disk, command='start'):
        """Begin; the command is "adopt" when the guest has forgotten all."""
        self._note(guest.run(f'blocks {command} {self.name} {disk} '
                             f'{NR_BLOCKS} {self.seed}'))

    def resume(self, guest, disk):
        """Go on after a stop."""
        guest.run(f'blocks resume {self.name} {disk}')

    def wait(self, guest, runs):
        """The work goes on, and nothing was wrong."""
        self._note(guest.run(f'blocks wait {self.name} {runs}'))

    def stop(self, guest):
        """End; all blocks are right, for the guest and in the image."""
        text = self._note(guest.run(f'blocks stop {self.name}'))
        want = int(re.search(r'sum (\w+)', text)[1], 0)
        if self._image_sum() != want:
            self.fail(f'{self.image} holds other blocks than the guest has '
                      f'written; the guest: {text}')

    def abandon(self, guest):
        """End without a look: the disk is gone."""
        guest.run(f'blocks abandon {self.name}')

    def _image_sum(self):
        """Of the generations in the image, as the guest program does it."""
        total = 0
        with open(self.image, 'rb') as file:
            for _ in range(NR_BLOCKS):
                _, generation, seed = struct.unpack_from('<3Q',
                                                         file.read(BLOCK))
                if seed != self.seed:
                    generation = 0
                total = engine_mix(total + generation + 1 & MASK)
        return total
