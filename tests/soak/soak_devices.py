# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a soak: a server each, and work for it in the guest.

What every device can do:

  serve()     start the server (a new one for each machine)
  attach()    the guest has it: begin the work
  check()     the work goes on and nothing was wrong
  detach()    end the work, and compare everything with what it must be
  abandon()   end the work, as the server is gone
  rebooted()  the guest has forgotten all; begin anew
  reset()     reset the device in the guest, by a method that the guest has
  rebind()    take the guest's driver away and give it back

`newest` and the like are what a check saw last, so that a loss shows later.
"""

import os
from pathlib import Path
import re
import signal
import struct
import subprocess
import zlib

from vfio_user_server import Server, qemu_server

from soak_machine import (BUFFERS, BUFFER_SIZE, SoakError, port_address,
                          port_bridge)

BLOCK = 4096
NR_BLOCKS = 2048
RUNS = 4                # that show that a disk goes on
BATCHES = 3             # the same of an engine
WAIT = 'until_true 100'
MASK = (1 << 64) - 1


def engine_mix(x):
    """As in tests/server/engine.h."""
    x ^= x >> 30
    x = x * 0xbf58476d1ce4e5b9 & MASK
    x ^= x >> 27
    x = x * 0x94d049bb133111eb & MASK
    return x ^ x >> 31


class Device:
    """A device behind a root port."""

    kind = ''
    driver = None           # that can be unbound
    most = 1                # of the kind at once
    timeout_ms = 5000
    long_stall = False      # the guest can bear more than timeout_ms
    may_die = True          # the guest can bear a server that is gone
    resets = True           # the guest can reset it
    reset_under_load = False

    def __init__(self, setup, name, port, nr=0):
        self.setup = setup
        self.name = name
        self.port = port
        self.nr = nr
        self.server = None
        self.address = port_address(port)
        self.sysfs = f'/sys/bus/pci/devices/{self.address}'

    def properties(self):
        """Of device_add."""
        return {'driver': 'vfio-user-pci', 'id': self.name,
                'bus': f'port{self.port}', 'socket': self.server.socket,
                'x-msg-timeout-ms': self.timeout_ms}

    def serve(self):
        """Start a server; the one before, if any, is the caller's."""
        socket, log = self.setup.server_paths(self.name)
        self.server = self.make_server(socket, log)
        self.setup.servers.append(self.server)
        self.server.start()

    def make_server(self, socket, log):
        """The server as it is to be started."""
        raise NotImplementedError

    def kill_server(self):
        """SIGKILL."""
        self.server.process.kill()
        self.server.process.wait()

    def signal_server(self, number):
        """To its process."""
        os.kill(self.server.process.pid, number)

    def stop_server(self):
        """After the device is gone; a server that crashed is a finding."""
        self.server.stop()
        if self.server.crashed():
            raise SoakError(f'the server of {self.name} died of '
                            f'{self.server.crashed()}, see {self.server.log}')

    def check(self, guest):
        """The server lives; more by each kind."""
        if not self.server.running():
            raise SoakError(f'the server of {self.name} ended with '
                            f'{self.server.process.returncode}, see '
                            f'{self.server.log}')

    def attach(self, guest):
        """The guest has found the device."""
        guest.run(f'{WAIT} test -e {self.sysfs}')
        if self.driver:
            guest.run(f'{WAIT} test -e {self.sysfs}/driver')

    def detach(self, guest):
        """End of the work."""

    def abandon(self, guest):
        """The same when the server is gone."""

    def rebooted(self, guest):
        """The guest was reset."""
        self.attach(guest)

    def resume(self, guest):
        """After detach."""
        self.attach(guest)

    def reset(self, guest, pick):
        """By one of the guest's methods, which pick chooses."""
        method = pick(guest.run(f'cat {self.sysfs}/reset_method').split())
        if method == 'bus':
            self.bus_reset(guest)
            return method
        if not self.reset_under_load:
            self.detach(guest)
        guest.run(f'echo {method} >{self.sysfs}/reset_method && '
                  f'echo 1 >{self.sysfs}/reset && '
                  f'echo default >{self.sysfs}/reset_method')
        if not self.reset_under_load:
            self.resume(guest)
        return method

    def bus_reset(self, guest):
        """Through the root port, while the guest does not know the device.

        Left to itself Linux would wait for the link of the port to be active
        again, which QEMU's does not say after that, whatever the device.
        """
        config = f'/sys/bus/pci/devices/{port_bridge(self.port)}/config'
        write = f'dd of={config} bs=1 seek=62 conv=notrunc 2>/dev/null'
        self.detach(guest)
        guest.run(f'echo 1 >{self.sysfs}/remove && '
                  f"printf '\x42' | {write} && printf '\x02' | {write} && "
                  'echo 1 >/sys/bus/pci/rescan')
        self.resume(guest)

    def rebind(self, guest):
        """The driver goes and comes."""
        self.detach(guest)
        drivers = f'/sys/bus/pci/drivers/{self.driver}'
        guest.run(f'echo {self.address} >{drivers}/unbind')
        guest.run(f'echo {self.address} >{drivers}/bind')
        self.resume(guest)


class Disk(Device):
    """QEMU's server with a disk, and the guest program "blocks"."""

    timeout_ms = 1000
    server_args = []

    def __init__(self, setup, name, port, nr=0):
        super().__init__(setup, name, port, nr)
        self.seed = zlib.crc32(name.encode()) | 1
        self.image = Path(setup.sockets) / f'{name}.img'
        with open(self.image, 'wb') as file:
            file.truncate(BLOCK * NR_BLOCKS)
        self.newest = [0, 0]

    def make_server(self, socket, log):
        args = [arg.format(image=self.image, name=self.name)
                for arg in self.server_args]
        return qemu_server(str(self.setup.qemu), args, socket, log)

    def disk(self, guest):
        """The guest's name of it, once it is there."""
        find = f'ls -l /sys/class/block | grep /{self.address}/ | head -n 1'
        guest.run(f'disk_at() {{ d=$({find}) && [ -n "$d" ] && '
                  'disk_ready /dev/${d##*/}; }; '
                  f'{WAIT} disk_at')
        return '/dev/' + guest.run(find).rsplit('/', 1)[-1]

    def note(self, text):
        """What the device has confirmed."""
        newest = [int(n) for n in re.findall(r'newest (\d+)', text)]
        lost = [(old, new) for old, new in zip(self.newest, newest)
                if new < old]
        if lost:
            raise SoakError(f'{self.name}: writes that were confirmed are '
                            f'lost (newest before, now): {lost}')
        self.newest = newest
        return text

    def work(self, guest, command):
        """Begin."""
        super().attach(guest)
        self.note(guest.run(f'blocks {command} {self.name} '
                            f'{self.disk(guest)} {NR_BLOCKS} {self.seed}'))

    def attach(self, guest):
        self.work(guest, 'start')

    def rebooted(self, guest):
        self.work(guest, 'adopt')

    def resume(self, guest):
        super().attach(guest)
        guest.run(f'blocks resume {self.name} {self.disk(guest)}')

    def check(self, guest):
        super().check(guest)
        self.note(guest.run(f'blocks wait {self.name} {RUNS}'))

    def detach(self, guest):
        text = self.note(guest.run(f'blocks stop {self.name}'))
        want = int(re.search(r'sum (\w+)', text)[1], 0)
        if self.image_sum() != want:
            raise SoakError(f'{self.image} holds other blocks than the guest '
                            f'has written; the guest: {text}')

    def abandon(self, guest):
        guest.run(f'blocks abandon {self.name}')

    def image_sum(self):
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


DRIVE = ['-drive', 'if=none,id=drive,format=raw,file={image}']


class Nvme(Disk):
    """Bears everything."""

    kind = 'nvme'
    driver = 'nvme'
    most = 3
    long_stall = True
    reset_under_load = True
    # The guest refuses two of one serial number.
    server_args = [*DRIVE, '-device',
                   'nvme,id=dev,serial={name},drive=drive']


class Virtio(Disk):
    """Linux waits for ever when a dead one is to be reset, on unbind."""

    kind = 'virtio'
    driver = 'virtio-pci'
    long_stall = True
    may_die = False
    server_args = [*DRIVE, '-device', 'virtio-blk-pci,id=dev,drive=drive,'
                   'disable-legacy=on,iommu_platform=on']


class TestServer(Device):
    """A server of tests/server; every other one gets no guest memory."""

    lines = ()
    migration = 'migration size=256K precopy p2p logging'

    def properties(self):
        share = zlib.crc32(self.name.encode()) % 2 == 0
        return {**super().properties(), 'dma-share': share}

    def make_server(self, socket, log):
        argv = [str(self.setup.test_server), f'--socket-path={socket}']
        for line in (*self.lines, self.migration):
            argv += ['--set', line]
        return Server(argv, socket, log)


class Engine(TestServer):
    """DMA and interrupts without end, and the guest program "engine".

    It looks at the device all the time, and takes all-ones for an error.
    """

    kind = 'engine'
    lines = ('engine',)
    most = 2

    def attach(self, guest):
        super().attach(guest)
        guest.run(f'engine start {self.address} '
                  f'{BUFFERS + self.nr * BUFFER_SIZE} {BUFFER_SIZE} '
                  f'{self.nr}')

    def check(self, guest):
        super().check(guest)
        guest.run(f'engine wait {self.address} {BATCHES}')

    def detach(self, guest):
        guest.run(f'engine stop {self.address}')

    def abandon(self, guest):
        guest.run('ps -o pid,args | '
                  f"awk '/[e]ngine start {self.address}/ {{ print $1 }}' | "
                  'xargs kill -9')


class Standard(TestServer):
    """Registers by message and mapped ones, used by hand."""

    kind = 'standard'
    lines = ('standard',)
    most = 2
    long_stall = True
    timeout_ms = 1000

    def attach(self, guest):
        super().attach(guest)
        guest.run(f'[ $(cat {self.sysfs}/enable) != 0 ] || '
                  f'echo 1 >{self.sysfs}/enable')

    def check(self, guest):
        super().check(guest)
        for bar, offset in ((0, 0x80), (1, 0x1000), (2, 0x2000)):
            value = f'{zlib.crc32(os.urandom(8)):#010X}'.replace('X', 'x')
            seen = guest.run(
                f'a=$(sed -n "{bar + 1}s/ .*//p" {self.sysfs}/resource); '
                f'devmem $((a + {offset})) 32 {value}; '
                f'devmem $((a + {offset})) 32')
            if int(seen, 16) != int(value, 16):
                raise SoakError(f'{self.name}: BAR {bar} holds {seen}, not '
                                f'{value}')


class Gpio(Device):
    """libvfio-user's sample.

    Its class is 0: Linux gives no addresses to such a device, so it can only
    be used as firmware has left it, neither plugged nor reset.
    """

    kind = 'gpio'
    driver = 'pci-idio-16'
    resets = False
    long_stall = True
    timeout_ms = 1000

    def make_server(self, socket, log):
        return Server([str(self.setup.gpio), socket], socket, log)

    def attach(self, guest):
        super().attach(guest)
        guest.run(f'{WAIT} test -e {self.sysfs}/gpio')
        for line in (3, 16):
            guest.run(f'gpio_export {self.address} {line}')

    def check(self, guest):
        super().check(guest)
        for value in '10':
            guest.run(f'echo {value} >/sys/class/gpio/OUT3/value')
            seen = guest.run('cat /sys/class/gpio/IIN0/value')
            if seen != '0':
                raise SoakError(f'{self.name}: input 0 is {seen}')

    def detach(self, guest):
        """The lines are the kernel's as long as they are exported."""
        guest.run(f'base=$(cat {self.sysfs}/gpio/gpiochip*/base); '
                  'for i in 3 16; do '
                  'echo $((base + i)) >/sys/class/gpio/unexport; done')


KINDS = {kind.kind: kind for kind in (Nvme, Virtio, Engine, Standard, Gpio)}
SIGSTOP, SIGCONT = signal.SIGSTOP, signal.SIGCONT
