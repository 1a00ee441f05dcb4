#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that ejects, resets and reconfigures devices in each other's way.

Each of these guests can end QEMU, or freeze its monitors, where somebody lets
go of the big lock in the middle of something, or keeps it while a server is
silent. What is asserted is that QEMU lives and answers, and that each access
has the result that it would have without the others.
"""

import os

from qemu_test import QemuSystemTest

from vfio_user_nasty import (
    BAR, COMMAND, COMMAND_OFF, COMMAND_ON, FREE, MANY, MSIX, NEVER_MS, SLOT,
    VFIOUserNastyTest, await_word, bar_address, config_write, delay, ecam,
    eject, expect, read, write)

# Ejects in a test; where QEMU dies of it, it does so within a dozen.
ROUNDS = int(os.getenv('VFIO_USER_NASTY_ROUNDS', '30'))
TOGGLES = 3000
MASKS = 1000
SHORT_MS = 500
OTHER_SLOT = 6
OTHER_BARS = 6          # place_of() of the other device begins there
MSIX_CONTROL, MSIX_ON = 2, 0x8000
MSIX_TABLE_BAR, NR_VECTORS = 5, 16

# The transmit ring of an e1000 and what switches it on
E1000 = ['-device', f'e1000,id=net,addr={OTHER_SLOT:x},romfile=']
E1000_STATUS, TCTL, TDBAL, TDBAH = 0x0008, 0x0400, 0x3800, 0x3804
TDLEN, TDH, TDT = 0x3808, 0x3810, 0x3818
TCTL_ON, RING = 0x2, 0x80

# edu copies from or to memory; its own buffer is at 0x40000.
EDU = ['-device', f'edu,addr={OTHER_SLOT:x},dma_mask=0xffffffff']
EDU_SOURCE, EDU_TARGET, EDU_COUNT, EDU_START = 0x80, 0x88, 0x90, 0x98
EDU_BUFFER, EDU_LENGTH = 0x40000, 4096

# A root port with hotplug of its own, and the device behind it
PORT_SLOT = 4
PORT = ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off',
        '-device', f'pcie-root-port,id=rp,slot=1,addr={PORT_SLOT}']
BUS_NUMBERS, BRIDGE_WINDOW, BRIDGE_CONTROL = 0x18, 0x20, 0x3e
BUS_RESET = 0x40
EXPRESS, SLOT_CONTROL = 0x10, 0x18
SLOT_POWER_OFF = 0x700


class VFIOUserNasty(VFIOUserNastyTest):
    """Under TCG."""

    # The guest ejects a device

    def add(self, server, **properties):
        """Plug the server's device in."""
        self.monitor('device_add', driver='vfio-user-pci', id='dev',
                     addr=f'{SLOT:x}', bus='pci.0',
                     socket=server.socket, **properties)

    def wait_deleted(self, device='dev'):
        """It has gone, from memory too."""
        self.wait_event(self.guest, 'DEVICE_DELETED', device=device)

    def test_eject_while_config_is_written(self):
        """Another vCPU writes config space of the device that is ejected."""
        server = self.serve()
        self.boot(machine='pc')
        self.run_cpu(1, config_write(SLOT, COMMAND, COMMAND_ON, 2),
                     config_write(SLOT, BAR, bar_address(0)),
                     config_write(SLOT, COMMAND, COMMAND_OFF, 2),
                     config_write(SLOT, BAR, bar_address(1)))
        for number in range(ROUNDS):
            self.doing = (f'the guest ejects the device, round {number}, and '
                          'CPU 1 writes its config space')
            self.add(server)
            self.wait_turns(1, more=2)
            self.do(delay(0xfff), eject(SLOT))
            self.wait_deleted()
        self.end()

    def place_port(self):
        """The root port, and the device that is behind it."""
        self.open_ecam()
        self.do(write(ecam(PORT_SLOT, BUS_NUMBERS), 0x010100),
                write(ecam(PORT_SLOT, BRIDGE_WINDOW),
                      bar_address(0xf) & 0xfff00000 | bar_address(0) >> 16),
                write(ecam(PORT_SLOT, COMMAND), COMMAND_ON, 2),
                write(ecam(0, BAR, bus=1), bar_address(0)),
                write(ecam(0, COMMAND, bus=1), COMMAND_ON, 2))

    def port_off(self):
        """What the guest's driver of root ports does to let go of a device."""
        return write(ecam(PORT_SLOT, self.capability(PORT_SLOT, EXPRESS)
                          + SLOT_CONTROL), SLOT_POWER_OFF, 2)

    def test_port_off_while_config_is_written(self):
        """The same on q35, where no vCPU waits for another's address."""
        server = self.serve()
        self.boot(*PORT, machine='q35')
        self.place_port()
        port_off = self.port_off()
        port_on = port_off.replace(f'{SLOT_POWER_OFF:x}', '100')
        self.run_cpu(1, write(ecam(0, COMMAND, bus=1), COMMAND_ON, 2),
                     write(ecam(0, BAR, bus=1), bar_address(0)),
                     write(ecam(0, COMMAND, bus=1), COMMAND_OFF, 2),
                     write(ecam(0, BAR, bus=1), bar_address(1)))
        for number in range(ROUNDS):
            self.doing = (f'the guest switches the port off, round {number}, '
                          'and CPU 1 writes config space behind it')
            self.monitor('device_add', driver='vfio-user-pci', id='dev',
                         bus='rp', socket=server.socket)
            self.do(port_on)
            self.wait_turns(1, more=2)
            self.do(delay(0xfff), port_off)
            self.wait_deleted()
        self.end()

    def check_eject_held(self):
        """device_del, and the guest lets go of what CPU 1 waits for."""
        self.run_cpu(1, config_write(SLOT, COMMAND, COMMAND_ON, 2),
                     config_write(SLOT, COMMAND, COMMAND_OFF, 2))
        self.wait_held(1)
        self.monitor('device_del', id='dev')
        self.do(eject(SLOT))
        self.wait_turns(1)
        self.wait_deleted()
        self.end()

    def test_eject_while_config_write_is_held(self):
        """The server is gone, and is waited for."""
        server = self.serve()
        self.boot(*self.client(server, **self.returning('hold')),
                  machine='pc')
        self.doing = 'the guest ejects a device whose server is gone'
        self.kill_server(self.guest, server)
        self.check_eject_held()

    def test_eject_while_config_write_is_unanswered(self):
        """The server is there, and does not answer."""
        server = self.serve()
        self.boot(*self.client(server, id='dev', addr=SLOT,
                               **{'x-msg-timeout-ms': NEVER_MS}),
                  machine='pc')
        self.doing = 'the guest ejects a device whose server is stopped'
        self.stop_server(server)
        self.check_eject_held()

    # DMA of other devices into ours

    def boot_e1000(self):
        """Its ring is in our BAR, and the server is stopped."""
        server = self.serve()
        self.boot(*self.client(server, id='dev', addr=SLOT,
                               **{'x-msg-timeout-ms': SHORT_MS}), *E1000,
                  machine='pc', cpus=3)
        self.place(SLOT)
        self.place(OTHER_SLOT, first=OTHER_BARS)
        self.regs = bar_address(OTHER_BARS)
        self.do(write(self.regs + TDBAL, bar_address(0)),
                write(self.regs + TDBAH, 0), write(self.regs + TDLEN, RING),
                write(self.regs + TCTL, TCTL_ON))
        self.stop_server(server)

    def transmit(self):
        """e1000 reads a descriptor; CPU 1 has told that it comes to that."""
        return (f'T:{FREE:x}', write(self.regs + TDH, 0),
                write(self.regs + TDT, 1))

    def test_e1000_ring_in_bar(self):
        """Who reads e1000's STATUS meanwhile reads e1000's STATUS."""
        self.lock_waits = ('nested',)
        self.boot_e1000()
        self.doing = ('e1000 reads its ring from the BAR of a stopped server '
                      'and CPU 2 reads its STATUS')
        status = self.do(read(self.regs + E1000_STATUS))
        self.run_cpu(2, read(self.regs + E1000_STATUS), expect(status))
        self.wait_turns(2)
        self.run_cpu(1, *self.transmit(), times=4)
        self.wait_idle(1)
        self.wait_turns(2)
        seen = self.sample().cpus[2]
        self.assertEqual((seen.ones, seen.wrong), (0, 0),
                         'reads of STATUS that gave all-ones, or something '
                         f'else that is not {status:#x}, while {self.doing}')
        self.end()

    def test_e1000_ejected_with_ring_in_bar(self):
        """The guest ejects e1000 while it is there."""
        self.lock_waits = ('nested',)
        self.boot_e1000()
        self.doing = ('e1000 reads its ring from the BAR of a stopped server '
                      'and is ejected')
        self.run_cpu(1, *self.transmit(), times=1)
        self.do(await_word(FREE, 1), delay(0xfff), eject(OTHER_SLOT))
        self.wait_idle(1)
        self.wait_deleted('net')
        self.end()

    def test_edu_copies_from_bar(self):
        """4 KiB out of the BAR of a stopped server: one deadline in all."""
        self.lock_waits = ('nested',)
        server = self.serve()
        self.boot(*self.client(server, id='dev', addr=SLOT,
                               **{'x-msg-timeout-ms': SHORT_MS}), *EDU,
                  machine='pc')
        self.doing = 'edu copies 4 KiB out of the BAR of a stopped server'
        self.place(SLOT)
        self.place(OTHER_SLOT, first=OTHER_BARS)
        regs = bar_address(OTHER_BARS)
        self.stop_server(server)
        self.do(write(regs + EDU_SOURCE, bar_address(0)),
                write(regs + EDU_TARGET, EDU_BUFFER),
                write(regs + EDU_COUNT, EDU_LENGTH),
                write(regs + EDU_START, 1))
        self.wait(lambda: not self.do(read(regs + EDU_START)) & 1,
                  'edu has copied')
        self.assertEqual(self.status(), 'running')
        info, = self.monitor('query-vfio-user')
        self.assertLessEqual(
            sum(command['timeouts'] for command in info['stats']['commands']),
            1, f'deadlines that were waited for while {self.doing}')
        self.end()

    # Switches

    def test_msix_toggled_by_two_cpus(self):
        """Both write the same enable bit, over and over."""
        server = self.serve()
        self.boot(*self.client(server, id='dev', addr=SLOT), cpus=3)
        self.doing = 'two vCPUs switch MSI-X on and off'
        self.place()
        self.open_ecam()
        control = ecam(SLOT, self.capability(SLOT, MSIX) + MSIX_CONTROL)
        for cpu in (1, 2):
            self.run_cpu(cpu, write(control, MSIX_ON, 2),
                         write(control, 0, 2), times=TOGGLES)
        self.wait_idle(1, 2)
        self.assertEqual(self.status(), 'running')
        self.end()

    def test_masks_of_stopped_server(self):
        """MSI-X vectors are masked and unmasked; the monitor answers.

        The vCPU may wait, and nobody else.
        """
        server = self.serve()
        self.boot(*self.client(server, id='dev', addr=SLOT,
                               **{'x-msg-timeout-ms': NEVER_MS}))
        self.doing = 'a vCPU masks and unmasks vectors of a stopped server'
        self.place()
        self.open_ecam()
        control = ecam(SLOT, self.capability(SLOT, MSIX) + MSIX_CONTROL)
        entries = [bar_address(MSIX_TABLE_BAR) + 16 * nr
                   for nr in range(NR_VECTORS)]
        for nr, entry in enumerate(entries):
            self.do(write(entry, 0xfee00000), write(entry + 4, 0),
                    write(entry + 8, 0x30 + nr), write(entry + 12, 0))
        self.do(write(control, MSIX_ON, 2))
        self.stop_server(server)
        self.run_cpu(1, *(write(entry + 12, masked)
                          for masked in (1, 0) for entry in entries),
                     times=MASKS)
        before = self.sample()

        def held_or_done():
            nonlocal before
            self.assertEqual(self.status(), 'running')
            now = self.sample()
            if now.cpus[1].turns != before.cpus[1].turns:
                before = now
            return not now.cpus[1].busy or now.turns - before.turns > MANY
        self.wait(held_or_done, 'CPU 1 waits, or has masked to its end')
        self.continue_server(server)
        self.wait_idle(1)
        self.end()

    # The guest resets a bus

    def test_bus_reset_of_stopped_server(self):
        """The bus is reset, and the device that is reset is ejected."""
        server = self.serve()
        self.boot(*PORT, *self.client(server, id='dev', bus='rp',
                                      **{'x-msg-timeout-ms': SHORT_MS}),
                  cpus=3)
        self.doing = ('a vCPU resets the bus of a stopped server, and another '
                      'one ejects the device')
        self.place_port()
        port_off = self.port_off()
        control = ecam(PORT_SLOT, BRIDGE_CONTROL)
        self.stop_server(server)
        self.run_cpu(1, f'T:{FREE:x}', write(control, BUS_RESET, 2),
                     write(control, 0, 2), delay(0xfff))
        self.do(await_word(FREE, 2), delay(0xfff), port_off)
        self.wait_deleted()
        self.wait_turns(1)
        self.end()


class VFIOUserNastyKVM(VFIOUserNasty):
    """Under KVM."""

    accel = 'kvm'


if __name__ == '__main__':
    QemuSystemTest.main()
