#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that the kernel's vfio-pci lends to a QEMU with the overlay.

The patches of the overlay go through hw/vfio, so vfio-pci must be as it was.
A guest's kernel gives three emulated devices to a QEMU in the guest, through
the legacy container and through iommufd; what that QEMU's user and guest see
of them is checked, and written down.

With VFIO_USER_TRANSCRIPT=DIRECTORY each test writes what it saw to a file
there.  VFIO_USER_INNER_QEMU names another QEMU to be run in the guest: one
without the overlay must write the same (scripts/check-vfio.sh).
"""

import hashlib
import json
import os
from pathlib import Path
import re

from qemu_test import QemuSystemTest

from vfio_user_case import MIB, REPOSITORY
from vfio_user_inner import MEMORY, InnerTest
from vfio_user_inner_devices import E1000e, Edu, Nvme

IMAGE_SIZE = 16 * MIB
# Where the devices are in the guest, and what driver they are taken from
NVME, E1000E, EDU = '0000:01:00.0', '0000:02:00.0', '0000:03:00.0'
# A device that nobody has given to vfio-pci
LEFT_ALONE = '0000:00:00.0'
# What QEMU says as iommufd does not map BARs for other devices' DMA
PEER_TO_PEER = re.compile(r'PCI BAR\?|vfio_container_dma_map|peer-to-peer')


class VFIOKernel(InnerTest):
    """vfio-pci, not vfio-user-pci, unless a test says so."""

    def setUp(self):
        super().setUp()
        self.lines = []

    def note(self, what, seen):
        """A line of the transcript."""
        self.lines.append(f'{what}: {seen}')
        self.log.info('%s: %s', what, str(seen)[:200])

    def note_config(self, name, function):
        """Config space, the lines that hold something or are new."""
        dump, last = function.config_dump(), bytes(16)
        for at in range(0, len(dump), 16):
            line = dump[at:at + 16]
            if any(line) and line != last:
                self.note(f'{name} config {at:03x}', line.hex())
            last = line

    def finish(self, name):
        """Write the transcript."""
        directory = os.getenv('VFIO_USER_TRANSCRIPT')
        path = Path(directory or self.log_file()) / f'{name}.txt'
        path.write_text('\n'.join([*self.lines, '']), encoding='utf-8')

    # The two machines

    def boot_with_devices(self):
        """A guest that has given its devices to vfio-pci."""
        self.image = self.scratch_file('nvme.img')
        self.data = hashlib.shake_256(b'nvme').digest(IMAGE_SIZE)
        Path(self.image).write_bytes(self.data)
        ports = [word for n in (1, 2, 3) for word in (
            '-device', f'pcie-root-port,id=port{n},chassis={n},addr={n + 4}')]
        guest = self.boot_outer(
            *ports,
            '-blockdev', f'file,filename={self.image},node-name=disk',
            '-device', 'nvme,drive=disk,serial=lent,bus=port1',
            '-netdev', 'hubport,hubid=0,id=net0',
            '-device', 'e1000e,netdev=net0,romfile=,bus=port2,'
                       'mac=52:54:00:12:34:56',
            '-device', 'edu,bus=port3')
        for address in (NVME, E1000E, EDU):
            guest.run(f'vfio_bind {address}')
        return guest

    def use_iommufd_kernel(self):
        """The other guest kernel: Debian's has no iommufd."""
        directory = Path(os.getenv('VFIO_USER_IOMMUFD_GUEST_DIR', REPOSITORY /
                                   'build' / 'guest-iommufd'))
        self.kernel = directory / 'vmlinux'
        if not self.kernel.exists():
            self.skipTest('Debian\'s kernel is built without CONFIG_IOMMUFD '
                          f'and there is no {self.kernel}: make check-vfio '
                          'builds one')

    @staticmethod
    def lend(address, name, backend, **properties):
        """Arguments for a device, its backend being '' or iommufd."""
        options = {'host': address, 'id': name, **properties}
        if backend:
            options['iommufd'] = backend
        return '-device vfio-pci,' + ','.join(
            f'{key}={value}' for key, value in options.items())

    def board(self, guest, backend, *args, machine='q35'):
        """An inner QEMU with the three devices."""
        words = [f'-M {machine},memory-backend=mem', '-m 64M',
                 f'-object memory-backend-memfd,id=mem,size={MEMORY},share=on']
        if backend:
            words.append(f'-object iommufd,id={backend}')
        words += [self.lend(address, name, backend, addr=slot)
                  for address, name, slot in ((NVME, 'nvme', 4),
                                              (E1000E, 'e1000e', 5),
                                              (EDU, 'edu', 6))]
        return self.inner(guest, *words, *args)

    # What is looked at

    def look_around(self, inner):
        """What QMP tells."""
        inner.prepare()
        properties = inner.qmp('device-list-properties', typename='vfio-pci')
        self.note('properties', json.dumps(
            sorted(properties, key=lambda item: item['name'])))
        self.note('migration', json.dumps(
            inner.qmp('query-migrate').get('blocked-reasons')))
        for name in ('nvme', 'e1000e', 'edu'):
            for key in ('x-pci-vendor-id', 'x-balloon-allowed', 'x-no-mmap',
                        'display', 'enable-migration'):
                self.note(f'{name}.{key}', inner.qmp(
                    'qom-get', path=f'/machine/peripheral/{name}',
                    property=key))

    def use_edu(self, inner):
        """Registers, DMA, both kinds of interrupt."""
        edu = Edu(inner, 6)
        self.note_config('edu', edu)
        self.note('edu BARs', [f'{mask:#x}' for mask in edu.enable()])
        registers = edu.registers()
        self.assertEqual(registers, ['0x10000ed', '0xedcba987', '0x1c8cfc00'])
        self.note('edu registers', registers)
        data = self.data[:Edu.SIZE]
        self.assertEqual(edu.dma(data), data)
        self.note('edu DMA', 'there and back')
        self.note('edu INTx', edu.intx())
        self.note('edu MSI', edu.msi())
        self.note('edu INTx again', edu.intx())

    def use_nvme(self, inner):
        """Identify, read and write with interrupts."""
        nvme = Nvme(inner, 4)
        self.note_config('nvme', nvme)
        self.note('nvme BARs', [f'{mask:#x}' for mask in nvme.enable()])
        self.assertFalse(nvme.enabled(), 'the controller was not reset')
        nvme.start()
        self.note('nvme identify', nvme.identify())
        self.note('nvme queues', nvme.create_queues())
        self.note('nvme read', nvme.blocks(2, 8, 8))
        self.assertEqual(inner.read(nvme.DATA, 4096), self.data[4096:8192])
        inner.write(nvme.DATA, self.data[:4096])
        self.note('nvme write', nvme.blocks(1, 8, 8))
        with open(self.image, 'rb') as file:
            file.seek(4096)
            self.assertEqual(file.read(4096), self.data[:4096])
        inner.write(nvme.DATA, self.data[4096:8192])
        self.note('nvme write back', nvme.blocks(1, 8, 8))

    def use_e1000e(self, inner):
        """Registers and an interrupt."""
        nic = E1000e(inner, 5)
        self.note_config('e1000e', nic)
        self.note('e1000e BARs', [f'{mask:#x}' for mask in nic.enable()])
        registers = nic.registers()
        self.assertEqual(registers[1:], ['0x12005452', '0x80005634', '0x0'])
        self.note('e1000e registers', registers)
        self.note('e1000e MSI-X', nic.msix())

    def use_all(self, inner):
        """One round."""
        self.use_edu(inner)
        self.use_nvme(inner)
        self.use_e1000e(inner)

    def refusals(self, guest, backend):
        """Devices that cannot be lent, and what is said of them."""
        words = [f'-object iommufd,id={backend}'] if backend else []
        for what, device in (
                ('no host', '-device vfio-pci'),
                ('no device', self.lend('0000:1f:1f.0', 'x', backend)),
                ('not given', self.lend(LEFT_ALONE, 'x', backend)),
                ('twice', self.lend(EDU, 'x', backend) + ' ' +
                 self.lend(EDU, 'y', backend)),
                ('migratable', self.lend(EDU, 'x', backend,
                                         **{'enable-migration': 'on'}))):
            said = self.refusal(guest, *words, device)
            self.assertIn('vfio', said)
            self.note(f'refused, {what}', said)

    def unplug_and_plug(self, guest, backend):
        """A device leaves a running QEMU and comes back."""
        inner = self.board(guest, backend, machine='pc')
        for _ in range(2):
            inner.qmp('device_del', id='edu')
            inner.qtest(f'outl 0xae08 {1 << 6:#x}')
            inner.wait_event('DEVICE_DELETED', device='edu')
            options = {'iommufd': backend} if backend else {}
            self.note('plugged', inner.qmp(
                'device_add', driver='vfio-pci', id='edu', host=EDU,
                addr='6', **options))
        self.note('said', inner.stop())

    def devices_return(self, guest):
        """The guest's own drivers find their devices in working order."""
        for address in (NVME, E1000E):
            guest.run(f'pci_rebind {address}')
        guest.run('wait_disk /dev/nvme0n1')
        digest = guest.run(f'disk_read /dev/nvme0n1 {IMAGE_SIZE // MIB}')
        self.assertEqual(digest, hashlib.sha256(self.data).hexdigest())
        self.assertEqual(guest.run(f'pci_driver {E1000E}'), 'e1000e')

    def check_backend(self, name, backend):
        """All of it."""
        guest = self.boot_with_devices()
        inner = self.board(guest, backend)
        self.look_around(inner)
        self.use_all(inner)
        inner.qmp('system_reset')
        inner.wait_event('RESET')
        self.note('after reset', '')
        inner.prepare()
        self.use_all(inner)
        self.note('said', inner.stop())
        for event in inner.traced():
            self.note('trace', event)
        self.refusals(guest, backend)
        self.unplug_and_plug(guest, backend)
        self.devices_return(guest)
        self.finish(name)

    def test_legacy(self):
        """Through groups and a container."""
        self.check_backend('legacy', '')

    def test_iommufd(self):
        """Through iommufd and the devices' own files."""
        self.use_iommufd_kernel()
        self.check_backend('iommufd', 'iommufd0')

    # Together with vfio-user-pci

    def check_together(self, backend):
        """A vfio-user device beside those, each doing its own DMA."""
        self.require_inner('vfio-user-pci')
        guest = self.boot_with_devices()
        export = ('-object x-vfio-user-server,id=s,type=unix,'
                  'path=/tmp/edu.sock,device=dev')
        guest.run('(LD_LIBRARY_PATH=/inner/lib exec /inner/qemu '
                  '-M x-remote,vfio-user=on -nodefaults -display none '
                  f'-device edu,id=dev {export}) >/tmp/server.log 2>&1 &')
        guest.run('until_true 60 grep -q /tmp/edu.sock /proc/net/unix')
        inner = self.board(guest, backend, '-device vfio-user-pci,'
                           'socket=/tmp/edu.sock,id=far,addr=7')
        inner.prepare()
        self.use_all(inner)
        self.use_far(inner)
        inner.qmp('system_reset')
        inner.wait_event('RESET')
        inner.prepare()
        self.use_far(inner)
        self.use_all(inner)
        said = [line for line in inner.stop().split('\n')
                if not PEER_TO_PEER.search(line)]
        self.assertFalse(''.join(said), said)
        self.devices_return(guest)

    def use_far(self, inner):
        """The device of the other process: registers, DMA, interrupt."""
        far = Edu(inner, 7)
        far.enable()
        self.assertEqual(far.registers(),
                         ['0x10000ed', '0xedcba987', '0x1c8cfc00'])
        data = self.data[8192:8192 + Edu.SIZE]
        self.assertEqual(far.dma(data), data)
        far.msi()

    def test_together_legacy(self):
        """vfio-user beside the legacy container."""
        self.check_together('')

    def test_together_iommufd(self):
        """vfio-user beside iommufd."""
        self.use_iommufd_kernel()
        self.check_together('iommufd0')


if __name__ == '__main__':
    QemuSystemTest.main()
