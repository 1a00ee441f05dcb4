#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Many devices in one machine, several of them in one server process."""

import asyncio
import hashlib
import json

from qemu_test import QemuSystemTest

from vfio_user_case import MIB
from vfio_user_guest import VFIOUserGuestTest
from vfio_user_server import Server, listens, wait_until

NR_SERVERS = 4
DISKS_EACH = 8
DISK_SIZE = MIB
EVENT_DEADLINE = 60.0
# Functions of a slot, root ports here.
FUNCTIONS = 8

# The guest's disks, each with the text that it begins with.
READ_ALL = ('for d in /sys/block/vd* /sys/block/nvme*; do '
            'echo "$(head -c 16 /dev/${d##*/}) ${d##*/}"; done')
# A megabyte of its own on each disk, all at once, past what marks the disk.
WRITE_ALL = ('for d in %s; do (head -c %d /dev/urandom >/tmp/$d; '
             'dd if=/tmp/$d of=/dev/$d bs=4k seek=1 conv=fsync 2>/dev/null) & '
             'done; wait; for d in %s; do sha256sum </tmp/$d; done')


class VFIOUserDevices(VFIOUserGuestTest):
    """A guest with as many devices as fit."""

    def serve_disks(self, number):
        """A process with several controllers, and a socket for each."""
        self.require_object('x-vfio-user-server')
        argv = [self.qemu_bin, '-machine', 'x-remote,vfio-user=on',
                '-nodefaults', '-no-user-config', '-display', 'none',
                '-monitor', 'none']
        first, log = self._paths()
        sockets, images = [], []
        for i in range(DISKS_EACH):
            name = f'disk-{number}-{i}'
            image = self.scratch_file(f'{name}.img')
            with open(image, 'wb') as file:
                file.write(name.encode().ljust(16, b'.'))
                file.truncate(2 * DISK_SIZE)
            model = (f'nvme,serial={name}' if i % 2 else
                     'virtio-blk-pci,disable-legacy=on,iommu_platform=on')
            argv += ['-drive', f'if=none,id=drive{i},format=raw,file={image}',
                     '-device', f'{model},id=dev{i},drive=drive{i}',
                     '-object', json.dumps({
                         'qom-type': 'x-vfio-user-server', 'id': f'server{i}',
                         'device': f'dev{i}', 'socket': {
                             'type': 'unix', 'path': f'{first}-{i}'}})]
            sockets.append(f'{first}-{i}')
            images.append(image)
        server = Server(argv, sockets[-1], log)
        self.servers.append(server)
        server.start()
        for path in sockets:
            wait_until(lambda path=path: listens(path), EVENT_DEADLINE,
                       f'{path} is listened on')
        return list(zip(sockets, images))

    def check_stored(self, images, names, sums):
        """What the guest wrote is in the right image."""
        for name, digest in zip(names, sums):
            with open(images[name], 'rb') as file:
                file.seek(4096)
                self.assertEqual(
                    hashlib.sha256(file.read(DISK_SIZE // 4)).hexdigest(),
                    digest, name)

    def test_32(self):
        """32 disks of 4 servers behind 32 root ports, written at once."""
        disks = [disk for number in range(NR_SERVERS)
                 for disk in self.serve_disks(number)]
        args = []
        for i, (path, _) in enumerate(disks):
            slot, function = divmod(i, FUNCTIONS)
            args += ['-device', f'pcie-root-port,id=port{i},chassis={i},'
                     f'addr={4 + slot}.{function},multifunction=on',
                     '-device', f'vfio-user-pci,id=vu{i},bus=port{i},'
                     f'socket={path}']
        guest = self.boot(*args, memory='1G')
        guest.run('until_true 120 eval "[ \\$(ls -d /sys/block/vd* '
                  f'/sys/block/nvme* | wc -l) = {len(disks)} ]"')
        found = dict(line.split() for line in
                     guest.run(READ_ALL).splitlines())
        images = {}
        for _, image in disks:
            with open(image, 'rb') as file:
                mark = file.read(16).decode()
            self.assertIn(mark, found, 'the guest did not find this disk')
            images[found[mark]] = image
        names = ' '.join(images)
        sums = guest.run(WRITE_ALL % (names, DISK_SIZE // 4, names))
        self.check_stored(images, images,
                          [line.split()[0] for line in sums.splitlines()])
        self.unplug_half(guest)
        guest.run(READ_ALL)

    def unplug_half(self, guest):
        """Every other device leaves; the guest consents."""
        for i in range(0, NR_SERVERS * DISKS_EACH, 2):
            guest.vm.cmd('device_del', {'id': f'vu{i}'})
            try:
                guest.vm.event_wait('DEVICE_DELETED', EVENT_DEADLINE,
                                    match={'data': {'device': f'vu{i}'}})
            except asyncio.TimeoutError:
                self.fail_with_logs(f'the guest did not release vu{i}')
        guest.run('until_true 60 eval "[ \\$(ls -d /sys/block/vd* '
                  '/sys/block/nvme* | wc -l) = 16 ]"')


if __name__ == '__main__':
    QemuSystemTest.main()
