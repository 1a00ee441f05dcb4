#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory that comes and goes while a server has it mapped.

A server maps files; nothing is pinned. So memory can be given back to the
host under it, and guest and server see the same when it is used again. What
is read from the disk goes to memory by the server's DMA, the guest's page
cache or a program's, and what the guest makes of it is compared with the
image.
"""

import asyncio
import hashlib
import os

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_guest import VFIOUserGuestTest
from vfio_user_server import wait_until
import vfio_user_rows as rows

ADDRESS = '0000:00:05.0'
DISK = '/dev/nvme0n1'
DEADLINE = 120.0
BASE = '256M'
# More than the base memory has room for: what is cached is elsewhere, too.
LARGE = 288
ADDED = 512
# Each block is a DMA window, and this server has 16 of them.
BLOCK = 64
# Memory that is added can be taken away again.
ONLINE = 'memhp_default_state=online_movable'


class VFIOUserMemory(VFIOUserGuestTest):
    """An NVMe controller in QEMU's own server."""

    def serve_random_disk(self, size=LARGE):
        """A disk with so many MiB, and their checksum."""
        server = self.serve_disk(rows.NVME._replace(size=size * MIB))
        checksum = hashlib.md5()
        with open(server.image, 'r+b') as file:
            for _ in range(size):
                data = os.urandom(MIB)
                checksum.update(data)
                file.write(data)
        return server, checksum.hexdigest()

    def shared_blocks(self, guest):
        """Bytes of guest memory, in files, that the host has given out."""
        fds = f'/proc/{guest.vm.get_pid()}/fd'
        files = {}
        for name in os.listdir(fds):
            path = f'{fds}/{name}'
            if 'memory-backend' in os.readlink(path):
                status = os.stat(path)
                files[status.st_ino] = status.st_blocks * 512
        self.assertTrue(files, 'QEMU has no file of guest memory')
        return sum(files.values())

    def check_read(self, guest, checksum):
        """Read the disk, then the page cache; the same as in the image."""
        # The cache of a disk is gone when nobody has it open.
        text = guest.run(f'echo 3 >/proc/sys/vm/drop_caches; exec 3<{DISK}; '
                         f'md5sum <{DISK}; md5sum <{DISK}').split()
        self.assertEqual(text, [checksum, '-'] * 2)

    def check_large_read(self, guest, checksum):
        """Into a buffer of a program, larger than the base memory."""
        text = guest.run(f'dd if={DISK} bs={LARGE}M count=1 iflag=direct '
                         '2>/dev/null | md5sum')
        self.assertEqual(text.split(), [checksum, '-'])

    def total(self, guest):
        """What the guest counts as its memory, in bytes."""
        return int(guest.run("sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' "
                             '/proc/meminfo')) * 1024

    def wait_total(self, guest, condition, what):
        """Until the guest's memory is as the condition wants it."""
        wait_until(lambda: condition(self.total(guest)), DEADLINE,
                   self.with_logs(f'the guest {what}'))

    def windows(self, server):
        """How many files of guest memory the server has mapped."""
        with open(f'/proc/{server.process.pid}/maps', encoding='ascii',
                  errors='replace') as maps:
            return sum('memory-backend' in line for line in maps)

    def boot_with_room(self, server, *args):
        """A guest to which memory can be added."""
        return self.boot(*args, *self.client(server, addr='5'), memory=BASE,
                         append=ONLINE)

    def test_dimm(self):
        """A DIMM is plugged, used, and unplugged, three times."""
        server, checksum = self.serve_random_disk()
        guest = self.boot_with_room(server, '-m', 'slots=3,maxmem=2G')
        guest.run(f'wait_disk {DISK}')
        before, windows = self.total(guest), self.windows(server)
        # Not in the same slot again: Linux may still look at the last one.
        for slot in range(3):
            guest.vm.cmd('object-add', {
                'qom-type': 'memory-backend-memfd', 'id': 'added',
                'size': ADDED * MIB, 'share': True})
            guest.vm.cmd('device_add', {
                'driver': 'pc-dimm', 'id': 'dimm', 'memdev': 'added',
                'slot': slot})
            self.wait_total(
                guest, lambda n: n > before + ADDED * MIB * 9 // 10,
                'has the DIMM')
            wait_until(lambda: self.windows(server) > windows, DEADLINE,
                       'the server maps the DIMM')
            self.check_large_read(guest, checksum)
            guest.vm.cmd('device_del', {'id': 'dimm'})
            try:
                guest.vm.event_wait('DEVICE_DELETED', DEADLINE,
                                    match={'data': {'device': 'dimm'}})
            except asyncio.TimeoutError:
                self.fail_with_logs('the guest did not release the DIMM')
            guest.vm.cmd('object-del', {'id': 'added'})
            wait_until(lambda: self.windows(server) == windows, DEADLINE,
                       'the server lets go of the DIMM')
        self.check_disk(guest, server, rows.NVME, ADDRESS)

    def test_virtio_mem(self):
        """Memory grows and shrinks in pieces of the guest's choice."""
        self.lock_waits = ('map', 'unmap')
        server, checksum = self.serve_random_disk()
        guest = self.boot_with_room(
            server, '-m', 'maxmem=2G', '-object',
            f'memory-backend-memfd,id=added,size={ADDED}M,share=on,'
            'reserve=off', '-device',
            'virtio-mem-pci,id=vmem,memdev=added,requested-size=0,'
            f'block-size={BLOCK}M')
        guest.run(f'wait_disk {DISK}')
        before = self.total(guest)

        def plugged():
            return guest.vm.cmd('qom-get', path='vmem', property='size')

        for size in (ADDED * MIB, ADDED * MIB // 2, ADDED * MIB, 0):
            guest.vm.cmd('qom-set', path='vmem', property='requested-size',
                         value=size)
            wait_until(lambda size=size: plugged() == size, DEADLINE,
                       self.with_logs(f'the guest has {size} bytes more'))
            if size == ADDED * MIB:
                self.wait_total(
                    guest, lambda n: n > before + ADDED * MIB * 9 // 10,
                    'uses what was added')
                self.check_large_read(guest, checksum)
        self.check_disk(guest, server, rows.NVME, ADDRESS)

    def use_and_leave(self, guest, size):
        """Have the guest use memory; returns what the host gave for all."""
        guest.run(f'dd if=/dev/zero of=/tmp/ballast bs=1M count={size} '
                  '2>/dev/null')
        used = self.shared_blocks(guest)
        guest.run('rm /tmp/ballast; echo 3 >/proc/sys/vm/drop_caches')
        return used

    def test_balloon(self):
        """The balloon takes memory from under the server, and returns it."""
        server, checksum = self.serve_random_disk(64)
        guest = self.boot('-device', 'virtio-balloon-pci,id=balloon',
                          *self.client(server, addr='5'), memory='512M')
        guest.run(f'wait_disk {DISK}')
        for _ in range(3):
            self.check_read(guest, checksum)
            used = self.use_and_leave(guest, 200)
            guest.vm.cmd('balloon', value=256 * MIB)
            wait_until(lambda: guest.vm.cmd('query-balloon')['actual']
                       == 256 * MIB, DEADLINE, 'the balloon is inflated')
            self.assertLess(self.shared_blocks(guest), used - 100 * MIB)
            self.check_read(guest, checksum)
            guest.vm.cmd('balloon', value=512 * MIB)
            wait_until(lambda: guest.vm.cmd('query-balloon')['actual']
                       == 512 * MIB, DEADLINE, 'the balloon is deflated')
        self.check_disk(guest, server, rows.NVME, ADDRESS)

    def test_free_page_reporting(self):
        """The guest tells what it does not use, and uses it again."""
        server, checksum = self.serve_random_disk(64)
        guest = self.boot('-device',
                          'virtio-balloon-pci,free-page-reporting=on',
                          *self.client(server, addr='5'), memory='512M')
        guest.run(f'wait_disk {DISK}')
        for _ in range(3):
            self.check_read(guest, checksum)
            used = self.use_and_leave(guest, 200)
            wait_until(lambda used=used: self.shared_blocks(guest)
                       < used - 150 * MIB, DEADLINE,
                       self.with_logs('free pages go back to the host'))
            self.check_read(guest, checksum)
        self.check_disk(guest, server, rows.NVME, ADDRESS)


if __name__ == '__main__':
    QemuSystemTest.main()
