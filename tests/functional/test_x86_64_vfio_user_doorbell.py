#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Doorbells in a mapped BAR, polled by a server that reads its socket later.

tests/server/spdk.c says what such a server is like. A driver switches MSI-X
on, unmasks a vector, and rings for it in its next instruction; or it names
memory that has just come. Whatever QEMU has to tell the server for that must
have arrived, or the interrupt is lost and the controller fails.

The guest does so again and again. It waits for an interrupt with a bound in
iterations, so nothing here depends on how fast anybody is.
"""

import os

from qemu_test import QemuSystemTest

from vfio_user_nasty import (
    BAR, COMMAND, COMMAND_OFF, COMMAND_ON, FREE, MSIX, NEVER_MS, SLOT,
    VFIOUserNastyTest, bar_address, ecam, port_write, read, write)

LOADS = int(os.getenv('VFIO_USER_DOORBELL_LOADS', '1000'))
# Looks for an interrupt before it counts as lost
PATIENCE = 0x10000000
STATUS, NO_EVENTFD, NO_WINDOW, RINGS = 0x0, 0x4, 0x8, 0xc
READY = 1
TABLE_BAR = 4
MSIX_CONTROL, MSIX_ON, MSIX_OFF = 2, 0x8000, 0
MSIX_ON_MASKED = 0xc000
ENTRY_MASKED, ENTRY_UNMASKED = 1, 0
LAPIC = 0xfee00000
FIRST_VECTOR = 0x30
VECTORS = (0, 3)
BELL, BELL_ADDR = 0x1000, 8
SET_UP, DONE, WORD = FREE, FREE + 0x40, FREE + 0x1000

# Memory hotplug of q35: its ports; where the test puts the memory
HOTPLUG_SELECT, HOTPLUG_FLAGS, ENABLED = 0xa00, 0xa14, 1
DIMMS, DIMM_SIZE, FIRST_DIMM = 32, 2 << 20, 1 << 32
HOTPLUG = ['-m', f'64M,slots={DIMMS},maxmem=1G']
FOREVER = 0xffffffff
# More than a driver has accesses that are waited for
STOPS = 20
RETURNS = 8

# Another device of ours, whose mapped BAR is moved
PEER_SLOT, PEER_BAR, PEER_BARS = 6, 2, 6
MOVES = 100


class VFIOUserDoorbell(VFIOUserNastyTest):
    """Under TCG."""

    def boot_spdk(self, *args, cpus, also=(), **properties):
        """The guest, and the device; the server is told that of it, too."""
        server = self.serve('spdk-like', *also)
        self.boot(*self.client(server, id='dev', addr=SLOT, **properties),
                  *args, cpus=cpus)
        self.place()
        self.open_ecam()
        self.control = ecam(SLOT, self.capability(SLOT, MSIX) + MSIX_CONTROL)
        self.doing = 'a driver is loaded again and again'

    def load(self, cpu):
        """Switch MSI-X on as Linux does, with two vectors for that CPU."""
        yield write(self.control, MSIX_ON_MASKED, 2)
        for vector in VECTORS:
            entry = bar_address(TABLE_BAR) + 16 * vector
            yield from (write(entry + 12, ENTRY_MASKED),
                        write(entry, LAPIC | cpu << 12), write(entry + 4, 0),
                        write(entry + 8, FIRST_VECTOR + vector),
                        write(entry + 12, ENTRY_UNMASKED))
        yield write(self.control, MSIX_ON, 2)

    @staticmethod
    def ring(vector, addr=WORD, value=0):
        """Ring with another value each turn, and wait for the interrupt."""
        bell = bar_address(0) + BELL + 16 * vector
        return (write(bell + BELL_ADDR, addr & 0xffffffff),
                write(bell + BELL_ADDR + 4, addr >> 32),
                f'm:{FIRST_VECTOR + vector:x}', f'n:{bell:x}:{value:x}',
                f'q:{FIRST_VECTOR + vector:x}:{PATIENCE:x}')

    def unload(self):
        """Switch MSI-X off."""
        return write(self.control, MSIX_OFF, 2)

    def check_faults(self):
        """What the server has missed, and the guest."""
        seen = self.sample()
        lost = sum(cpu.wrong for cpu in seen.cpus.values())
        status, no_eventfd, no_window, rings = (
            self.do(read(bar_address(0) + register))
            for register in (STATUS, NO_EVENTFD, NO_WINDOW, RINGS))
        if (status, no_eventfd, no_window, lost) != (READY, 0, 0, 0):
            self.fail_with_logs(
                f'of {rings} doorbells {no_eventfd} found no eventfd and '
                f'{no_window} no window, and {lost} interrupts were lost, '
                f'while {self.doing}')
        return rings

    def wait_loads(self, cpu):
        """A vCPU has done all its loads; what fails, fails at once."""
        while self.sample().cpus[cpu].busy:
            before = self.sample().cpus[cpu].turns
            self.wait(lambda: self.check_faults() and (
                self.sample().cpus[cpu].turns > before
                or not self.sample().cpus[cpu].busy),
                f'CPU {cpu} loads its driver again')
        self.assertEqual(self.check_faults(), LOADS * len(VECTORS))
        self.assertEqual(self.do(read(WORD)), LOADS * len(VECTORS),
                         'what the device has counted in memory')
        self.end()

    def check_one(self, **properties):
        """One vCPU does it all."""
        self.boot_spdk(cpus=2, **properties)
        self.run_cpu(1, *self.load(1),
                     *(word for vector in VECTORS
                       for word in self.ring(vector)),
                     self.unload(), times=LOADS)
        self.wait_loads(1)

    def test_load(self):
        """One vCPU: nothing is overtaken."""
        self.check_one()

    def test_load_without_mapping(self):
        """The same where doorbells are messages."""
        self.check_one(**{'x-no-mmap': 'on'})

    def test_load_two_cpus(self):
        """One vCPU sets up, another one rings as soon as it sees that."""
        self.boot_spdk(cpus=3)
        self.run_cpu(2, f't:{SET_UP:x}',
                     *(word for vector in VECTORS
                       for word in self.ring(vector)),
                     f'T:{DONE:x}', times=LOADS)
        self.run_cpu(1, *self.load(1), f'T:{SET_UP:x}', f't:{DONE:x}',
                     self.unload(), times=LOADS)
        self.wait_loads(2)

    def check_memory_hotplug(self, **properties):
        """The guest names new memory as soon as its registers show it."""
        self.boot_spdk(*HOTPLUG, cpus=2, **properties)
        self.do(*self.load(1))
        for number in range(DIMMS):
            self.doing = f'memory is plugged in, module {number}'
            self.await_dimm(number)
            self.plug_dimm(number)
            self.wait_idle(1)
            self.assertEqual(self.check_faults(), number + 1)
        self.end()

    def await_dimm(self, number):
        """CPU 1 rings for a module as soon as it sees it."""
        self.run_cpu(1, port_write(HOTPLUG_SELECT, number),
                     f'v:{HOTPLUG_FLAGS:x}:{ENABLED:x}:{FOREVER:x}',
                     *self.ring(VECTORS[0], FIRST_DIMM + number * DIMM_SIZE,
                                value=number), times=1)

    def plug_dimm(self, number):
        """Plug a module in from the monitor."""
        self.monitor('object-add', **{
            'qom-type': 'memory-backend-memfd', 'id': f'mem{number}',
            'size': DIMM_SIZE, 'share': True})
        self.monitor('device_add', driver='pc-dimm', id=f'dimm{number}',
                     memdev=f'mem{number}',
                     addr=FIRST_DIMM + number * DIMM_SIZE)

    def test_memory_hotplug(self):
        """From the monitor, which no vCPU waits for."""
        self.check_memory_hotplug()

    def test_memory_hotplug_without_mapping(self):
        """The same where doorbells are messages."""
        self.check_memory_hotplug(**{'x-no-mmap': 'on'})

    # A server that takes its time: it is stopped until the guest has rung.

    def rung(self):
        """CPU 1 has rung; the server goes on and finds all that it needs."""
        self.wait_held(1)
        self.continue_server(self.servers[0])
        self.wait_idle(1)
        self.assertEqual(self.check_faults(), 1)

    def test_memory_hotplug_stopped(self):
        """Nobody waits for a server that is stopped, nor overtakes."""
        self.boot_spdk(*HOTPLUG, cpus=2, **{'x-msg-timeout-ms': NEVER_MS})
        self.do(*self.load(1))
        self.doing = 'memory is plugged in, and the server is stopped'
        self.await_dimm(0)
        self.stop_server(self.servers[0])
        for number in range(DIMMS):
            self.plug_dimm(number)
        self.rung()
        self.end()

    def check_memory_hotplug_paused(self, **options):
        """The same while the VM is stopped."""
        self.boot_spdk(*HOTPLUG, cpus=2, **{'x-msg-timeout-ms': NEVER_MS},
                       **options)
        self.do(*self.load(1))
        self.doing = 'memory is plugged into a VM that is stopped'
        self.await_dimm(0)
        self.stop_server(self.servers[0])
        self.monitor('stop')
        self.plug_dimm(0)
        self.monitor('cont')
        self.rung()
        self.end()

    def test_memory_hotplug_paused(self):
        """A device that knows nothing of that."""
        self.check_memory_hotplug_paused()

    def test_memory_hotplug_paused_migratable(self):
        """One that is stopped and told to run with it."""
        self.lock_waits = ('state-change',)
        self.check_memory_hotplug_paused(also=('migration',))

    def test_stop_and_cont(self):
        """A vCPU that waits for its interrupts is stopped and goes on."""
        self.boot_spdk(cpus=2, **{'x-msg-timeout-ms': NEVER_MS})
        self.doing = 'the VM is stopped and continued while a driver loads'
        self.stop_server(self.servers[0])
        self.run_cpu(1, *self.load(1), *self.ring(VECTORS[0]), times=1)
        for _ in range(STOPS):
            self.monitor('stop')
            self.monitor('cont')
        self.rung()
        self.end()

    def test_return(self):
        """A server that comes back knows all that a doorbell needs."""
        self.boot_spdk(*HOTPLUG, cpus=3, **{'reconnect-ms': 1,
                                            'on-disconnect': 'hold'})
        self.do(*self.load(1))
        for number in range(RETURNS):
            self.doing = f'the server returns, {number}'
            self.plug_dimm(number)
            self.kill_server(self.guest, self.servers[-1])
            self.run_cpu(1, *self.ring(VECTORS[0],
                                       FIRST_DIMM + number * DIMM_SIZE,
                                       value=number), times=1)
            self.wait_held(1)
            self.plug_dimm(RETURNS + number)
            self.bring_back(self.guest, self.servers[-1])
            self.wait_idle(1)
            self.assertEqual(self.check_faults(), 1)
        self.end()

    def check_bar_move(self, **properties):
        """The guest moves another device's BAR and names it."""
        peer = self.serve()
        self.boot_spdk(*self.client(peer, id='peer', addr=PEER_SLOT), cpus=2,
                       **{'peer-dma': 'on'}, **properties)
        self.place(PEER_SLOT, first=PEER_BARS)
        self.do(*self.load(1))
        self.doing = 'the BAR of another device is moved'
        moves = []
        for vector, number in zip(VECTORS, (PEER_BARS + PEER_BAR,
                                            PEER_BARS + 6)):
            moves += [write(ecam(PEER_SLOT, COMMAND), COMMAND_OFF, 2),
                      write(ecam(PEER_SLOT, BAR + 4 * PEER_BAR),
                            bar_address(number)),
                      write(ecam(PEER_SLOT, COMMAND), COMMAND_ON, 2),
                      *self.ring(vector, bar_address(number))]
        self.run_cpu(1, *moves, times=MOVES)
        self.wait(lambda: self.check_faults() is not None
                  and not self.sample().cpus[1].busy, 'CPU 1 has moved it')
        self.assertEqual(self.check_faults(), 2 * MOVES)
        self.end()

    def test_bar_move(self):
        """The vCPU that rings has moved it."""
        self.check_bar_move()

    def test_bar_move_without_mapping(self):
        """The same where doorbells are messages."""
        self.check_bar_move(**{'x-no-mmap': 'on'})


class VFIOUserDoorbellKVM(VFIOUserDoorbell):
    """Under KVM."""

    accel = 'kvm'


if __name__ == '__main__':
    QemuSystemTest.main()
