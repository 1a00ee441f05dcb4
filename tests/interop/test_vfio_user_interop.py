#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One scenario, run against every server that others wrote.

No guest runs: the test plays the CPU through qtest, so nothing but the test
touches the device, and what it sees can be compared with what a raw client
was told by another process of the same server:

    config space   byte for byte, but for the registers that QEMU owns
    BARs           their sizes, and the first register of each
    reset          the same config space again
    migration      blocked, with a reason that names the device: none of these
                   servers speaks today's protocol of it
    leaving        the server ends well
"""

from qemu.machine.qtest import QEMUQtestMachine
from qemu_test import QemuSystemTest

import vfio_user_config as config
from vfio_user_raw import CONFIG_REGION, RawClient
import vfio_user_rows as rows
from vfio_user_samples import VFIOUserSampleTest

SLOT = 5
ECAM = 0xb0000000
DEVICE = ECAM + (SLOT << 15)
PCIEXBAR = 0x80000060

BAR0 = 0x10
COMMAND = 0x04
DECODE = 0x3
BAR_IO = 0x1
BAR_64BIT = 0x4
IO_STEP = 0x4000
MEMORY_BASE = 0xe0000000
MEMORY_STEP = 0x01000000
ALL_ONES = 0xffffffff


def bar_address(index, is_io):
    """Where the scenario puts a BAR; three I/O BARs at most."""
    if is_io:
        return IO_STEP * (1 + index % 3)
    return MEMORY_BASE + index * MEMORY_STEP


class Machine(QEMUQtestMachine):
    """A q35 without a CPU of its own, its config space memory-mapped."""

    def __init__(self, test):
        super().__init__(test.qemu_bin, name='client', qmp_timer=60,
                         base_temp_dir=test.workdir)
        self._log_dir = test.log_file()
        self.test = test

    def number(self, command):
        """The answer to a qtest command, if it is a number."""
        answer = self.qtest(command).split()
        if not answer or answer[0] != 'OK':
            self.test.fail_with_logs(
                f'qtest "{command}": QEMU said '
                + (f'"{" ".join(answer)}"' if answer else 'nothing, it ended'))
        return int(answer[1], 0) if len(answer) > 1 else None

    def map_config(self):
        """Let the chipset decode config space."""
        self.number(f'outl 0xcf8 {PCIEXBAR:#x}')
        self.number(f'outl 0xcfc {ECAM | 1:#x}')

    def config(self, size):
        """The device's config space."""
        return b''.join(self.config_read(at).to_bytes(4, 'little')
                        for at in range(0, size, 4))

    def config_read(self, offset):
        """A dword of the device's config space."""
        return self.number(f'readl {DEVICE + offset:#x}')

    def config_write(self, offset, value):
        """Write a dword of the device's config space."""
        self.number(f'writel {DEVICE + offset:#x} {value:#x}')


class Declared:
    """What a server tells a raw client."""

    def __init__(self, path):
        with RawClient(path) as raw:
            self.config = raw.config()
            self.sizes = [raw.region(index).size for index in range(6)]
            # QEMU's server refuses a BAR that has no address.
            for index, size in enumerate(self.sizes):
                if size:
                    self.write(raw, BAR0 + 4 * index, bar_address(
                        index, self.config[BAR0 + 4 * index] & BAR_IO))
            self.write(raw, COMMAND, DECODE)
            self.first = [self.first_register(raw, index)
                          for index in range(6)]

    @staticmethod
    def write(raw, offset, value):
        """Write a dword of config space."""
        raw.write(CONFIG_REGION, offset, value.to_bytes(4, 'little'))

    def first_register(self, raw, index):
        """The first dword of a BAR, all ones when the server refuses."""
        if self.sizes[index] < 4:
            return None
        try:
            return int.from_bytes(raw.read(index, 0, 4), 'little')
        except OSError:
            return ALL_ONES


class VFIOUserInterop(VFIOUserSampleTest):
    """The scenario, and a test for each server."""

    def launch(self, server):
        """A machine with the server's device."""
        machine = Machine(self)
        self.logs.append(self.log_file('client.log'))
        machine.set_machine('q35,memory-backend=mem')
        machine.add_args('-nodefaults', '-qtest-log', '/dev/null',
                         '-m', '128M', '-object',
                         'memory-backend-memfd,id=mem,size=128M,share=on',
                         *self.client(server, id='dev', addr=SLOT))
        self._vms['client'] = machine
        machine.launch()
        machine.map_config()
        return machine

    def check_config(self, machine, declared):
        """Byte for byte, but for what belongs to QEMU."""
        owned = {*config.BARS, *config.ROM,
                 *config.root_bus_owned(declared.config)}
        seen = machine.config(len(declared.config))
        self.assertEqual(
            config.differences(declared.config, seen, owned), [],
            'the machine sees another config space')

    def check_bars(self, machine, declared):
        """Sizes by the mask, contents by the first register."""
        machine.config_write(COMMAND, DECODE)
        index = 0
        while index < 6:
            kind = machine.config_read(BAR0 + 4 * index)
            if declared.sizes[index]:
                self.check_bar(machine, declared, index, kind & BAR_IO)
            index += 2 if kind & BAR_64BIT and not kind & BAR_IO else 1

    def check_bar(self, machine, declared, index, is_io):
        """Size and first register of a BAR."""
        register = BAR0 + 4 * index
        machine.config_write(register, ALL_ONES)
        mask = machine.config_read(register) & (~3 if is_io else ~15)
        size = (-mask) & ALL_ONES
        self.assertEqual(size, max(1 << (declared.sizes[index] - 1)
                                   .bit_length(), 4 if is_io else 16),
                         f'size of BAR {index}')
        base = bar_address(index, is_io)
        machine.config_write(register, base)
        if declared.first[index] is not None:
            value = machine.number(
                f'{"inl" if is_io else "readl"} {base:#x}')
            self.assertEqual(value, declared.first[index],
                             f'first register of BAR {index}')

    def check_migration(self, machine):
        """Refused, and the device stays as it is."""
        answer = machine.qmp('migrate', uri='file:/dev/null')
        self.assertIn('vfio-user-pci dev: the server does not offer migration',
                      answer.get('error', {}).get('desc', ''))
        reasons = machine.cmd('query-migrate').get('blocked-reasons', [])
        self.assertEqual(len(reasons), 1, reasons)

    def check_server(self, declared, server):
        """The whole scenario."""
        machine = self.launch(server)
        self.check_config(machine, declared)
        self.check_bars(machine, declared)
        self.check_migration(machine)
        machine.cmd('system_reset')
        machine.event_wait('RESET')
        machine.map_config()
        self.check_config(machine, declared)
        machine.shutdown()
        return server

    def check_qemu(self, *device):
        """The scenario with QEMU's own server, which ends with its client."""
        declared = Declared(self.serve(device).socket)
        server = self.check_server(declared, self.serve(device))
        self.assertEqual(server.wait(), 0)

    def check_disk(self, row):
        """The same for a row of the disk controllers."""
        declared = Declared(self.serve_disk(row).socket)
        server = self.check_server(declared, self.serve_disk(row))
        self.assertEqual(server.wait(), 0)

    def check_sample(self, name, *args):
        """The scenario with one of libvfio-user's samples."""
        declared = Declared(self.serve_sample(name, *args).socket)
        self.check_server(declared, self.serve_sample(name, *args))

    def test_qemu_nvme(self):
        """A 64-bit memory BAR with MSI-X, extended config space."""
        self.check_disk(rows.NVME)

    def test_qemu_ahci(self):
        """An I/O BAR beside a memory BAR, MSI."""
        self.check_disk(rows.AHCI)

    def test_qemu_megasas(self):
        """Three BARs of both kinds."""
        self.check_disk(rows.MEGASAS)

    def test_qemu_sdhci(self):
        """A small BAR, INTx."""
        self.check_disk(rows.SDHCI)

    def test_qemu_virtio_blk(self):
        """Vendor capabilities."""
        self.check_disk(rows.VIRTIO_BLK)

    def test_qemu_xhci(self):
        """A 64-bit BAR, extended config space."""
        self.check_disk(rows.XHCI)

    def test_qemu_lsi53c895a(self):
        """I/O, registers and RAM in three BARs, no capability list."""
        self.check_qemu('-device', 'lsi53c895a,id=dev')

    def test_qemu_e1000e(self):
        """Four BARs and a ROM."""
        self.check_qemu('-device', 'e1000e,id=dev')

    def test_libvfio_user_gpio(self):
        """An I/O BAR whose first register counts reads."""
        self.check_sample('gpio-pci-idio-16')

    def test_libvfio_user_server(self):
        """Odd sizes, sparse areas in an I/O BAR, a BAR that refuses."""
        self.check_sample('server')

    def test_libvfio_user_null(self):
        """Nothing but a config space, and no DMA."""
        self.check_sample('null')

    def test_libvfio_user_lspci(self):
        """Capabilities of both lists, and nothing else."""
        server, printed = self.serve_lspci()
        declared = Declared(server.socket)
        self.assertEqual(declared.config, printed)
        self.check_server(declared, server)


if __name__ == '__main__':
    QemuSystemTest.main()
