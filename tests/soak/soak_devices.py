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

and one whose server may come back (`returns` has the properties for that):

  leave()     the server is about to go
  serve_again(), impostor()   at the same socket: the server, another device
  returned()  it is back; what check() sees of it must be well again
"""

import os
from pathlib import Path
import signal
import zlib

from vfio_user_blocks import BlockLoad
from vfio_user_server import Server, qemu_server

from soak_machine import (BUFFERS, BUFFER_SIZE, SoakError, port_address,
                          port_bridge)

RUNS = 4                # that show that a disk goes on
BATCHES = 3             # the same of an engine
WAIT = 'until_true 100'


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
    returns = {}            # vfio-user-pci's properties for a server's return

    def __init__(self, setup, name, port, nr=0):
        self.setup = setup
        self.name = name
        self.port = port
        self.nr = nr
        self.server = None
        self.genuine = None     # the server whose place another one has
        self.address = port_address(port)
        self.sysfs = f'/sys/bus/pci/devices/{self.address}'

    def properties(self):
        """Of device_add."""
        return {'driver': 'vfio-user-pci', 'id': self.name,
                'bus': f'port{self.port}', 'socket': self.server.socket,
                'x-msg-timeout-ms': self.timeout_ms, **self.returns}

    def serve(self):
        """Start a server; the one before, if any, is the caller's."""
        socket, log = self.setup.server_paths(self.name)
        self.server = self.make_server(socket, log)
        self.setup.servers.append(self.server)
        self.server.start()

    def make_server(self, socket, log):
        """The server as it is to be started."""
        raise NotImplementedError

    def _take_place(self, server, argv=None):
        """A server for the socket of one that is gone."""
        _, log = self.setup.server_paths(self.name)
        self.server = server.again(log, argv)
        self.setup.servers.append(self.server)
        return self.server

    def serve_again(self):
        """The same server anew."""
        self._take_place(self.genuine or self.server).start()
        self.genuine = None

    def impostor(self):
        """A server of another device; it may end when it is refused."""
        self.genuine = self.server
        self._take_place(self.server, self.impostor_argv()).launch()

    def impostor_argv(self):
        """Arguments of a server that is not this device's."""
        raise NotImplementedError

    def leave(self, guest):
        """The server is about to go: end what cannot bear that."""

    def returned(self, guest):
        """The server is back; begin again what leave() has ended."""

    def kill_server(self):
        """SIGKILL."""
        self.server.kill()

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
        self.image = Path(setup.sockets) / f'{name}.img'
        self.load = BlockLoad(name, self.image, self.fail)

    @staticmethod
    def fail(message):
        """A finding."""
        raise SoakError(message)

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

    def attach(self, guest):
        super().attach(guest)
        self.load.start(guest, self.disk(guest))

    def rebooted(self, guest):
        super().attach(guest)
        self.load.start(guest, self.disk(guest), 'adopt')

    def resume(self, guest):
        super().attach(guest)
        self.load.resume(guest, self.disk(guest))

    def check(self, guest):
        super().check(guest)
        self.load.wait(guest, RUNS)

    def detach(self, guest):
        self.load.stop(guest)

    def abandon(self, guest):
        self.load.abandon(guest)


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


class Hold(Nvme):
    """Waits for its server, and then Linux resets the controller.

    Linux looks for the controller when a command is late. It must find it
    waiting then, not reading ones after a message's deadline, which is the
    end of the controller for Linux: so the limit of a command is well above
    the deadline.
    """

    kind = 'hold'
    most = 2
    may_die = False         # nobody but its server releases what waits
    long_stall = False
    io_timeout_ms = 6000
    returns = {'reconnect-ms': 20, 'on-disconnect': 'hold'}

    def disk(self, guest):
        disk = super().disk(guest)
        guest.run(f'echo {self.io_timeout_ms} '
                  f'>/sys/class/block/{disk[5:]}/queue/io_timeout')
        return disk

    def impostor_argv(self):
        return [arg.replace('nvme,', 'nvme,use-intel-id=on,', 1)
                for arg in self.genuine.argv]


class Halt(Hold):
    """The same, and the VM stands still meanwhile."""

    kind = 'halt'
    returns = {'reconnect-ms': 20, 'on-disconnect': 'stop'}


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

    def impostor_argv(self):
        return [*self.genuine.argv, '--set', 'id device=0x4321']


class Engine(TestServer):
    """DMA and interrupts without end, and the guest program "engine".

    It looks at the device all the time, and takes all-ones for an error.
    """

    kind = 'engine'
    lines = ('engine',)
    most = 2
    returns = {'reconnect-ms': 50}

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

    def leave(self, guest):
        self.abandon(guest)

    def returned(self, guest):
        self.attach(guest)


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


class Registers(Standard):
    """The same, and its server may come back."""

    kind = 'registers'
    returns = {'reconnect-ms': 100, 'reconnect-reset': 'on'}


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
    returns = {'reconnect-ms': 20, 'on-disconnect': 'hold'}

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

    def impostor_argv(self):
        return [str(self.setup.gpio.parent / 'server'), *self.genuine.argv[1:]]

    def detach(self, guest):
        """The lines are the kernel's as long as they are exported."""
        guest.run(f'base=$(cat {self.sysfs}/gpio/gpiochip*/base); '
                  'for i in 3 16; do '
                  'echo $((base + i)) >/sys/class/gpio/unexport; done')


KINDS = {kind.kind: kind for kind in (Nvme, Hold, Halt, Virtio, Engine,
                                      Standard, Registers, Gpio)}
SIGSTOP, SIGCONT = signal.SIGSTOP, signal.SIGCONT
