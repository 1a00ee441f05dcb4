# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU of a soak: its guest, its logs, and what it uses of the host.

A machine has empty root ports for the devices; each device says itself what
QEMU needs to know of it (soak_devices.py).
"""

import asyncio
import json
import os
from pathlib import Path
import re
import socket

from qemu.machine import QEMUMachine
from qemu.machine.machine import AbnormalShutdown

from vfio_user_channel import MACHINES, Guest, guest_arguments
from vfio_user_server import wait_until

NR_PORTS = 7
MIB = 1 << 20
MEMORY = '384M'
# What engines fill; the kernel leaves it alone (scripts/guest/engine.c).
BUFFERS = 224 * MIB
BUFFER_SIZE = 8 * MIB
APPEND = f'memmap={2 * BUFFER_SIZE}${BUFFERS}'

EVENT_DEADLINE = 120.0
END_DEADLINE = 60
BLOCKED_DEADLINE = 20
ENDED = ('completed', 'failed', 'cancelled')

# What a kernel says when something has gone wrong that must not.
OOPS = re.compile(r'^.*(?:BUG:|Oops|WARNING:|Call Trace|soft lockup|hung_task|'
                  r'blocked for more than|rcu: INFO|irq \d+: nobody cared).*$',
                  re.MULTILINE)


# What QEMU says, as events and to its log, when a server has gone.
LOST = ('VFIO_USER_DISCONNECTED', 'VFIO_USER_REFUSED', 'VFIO_USER_GAVE_UP')
LOSS = re.compile(r'vfio-user-pci (\S+): (?:device|connection) lost')


class SoakError(AssertionError):
    """What was found."""


def port_address(port):
    """What is behind a root port, as the guest calls it."""
    return f'0000:{port:02x}:00.0'


def port_bridge(port):
    """The root port itself."""
    return f'0000:00:{0xf + port:02x}.0'


class LogTail:
    """What has come to a log since it was last looked at."""

    def __init__(self, path):
        self.path = Path(path)
        self.seen = 0

    def fresh(self):
        """Text, whole lines only."""
        if not self.path.exists():
            return ''
        with open(self.path, 'rb') as file:
            file.seek(self.seen)
            data = file.read()
        data = data[:data.rfind(b'\n') + 1]
        self.seen += len(data)
        return data.decode(errors='replace')


class Machine:
    """One QEMU process with a guest, and the devices that are in it."""

    def __init__(self, setup, name, devices, incoming=False):
        self.setup = setup
        self.name = name
        self.devices = list(devices)
        self.origin = 'migrated' if incoming else 'booted'
        self.console = LogTail(setup.logs / f'{name}-console.log')
        self.log = LogTail(setup.logs / f'{name}.log')
        self.lost = set()       # devices whose servers were killed
        self.vm = QEMUMachine(str(setup.qemu), name=name,
                              base_temp_dir=str(setup.sockets),
                              log_dir=str(setup.logs), qmp_timer=120)
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        self.vm.set_machine(f'{MACHINES["q35"]},memory-backend=mem')
        self.vm.add_args(*self._arguments(theirs.fileno()))
        if incoming:
            self.vm.add_args('-incoming', 'defer')
        self.vm.launch()
        theirs.close()
        self.guest = Guest(self.vm, ours, self.fail)

    def _arguments(self, agent):
        """Guest, serial ports, root ports and devices."""
        setup = self.setup
        args = ['-accel', setup.accel, '-smp', '2',
                *guest_arguments(MEMORY, setup.kernel, setup.initrd, APPEND),
                '-chardev', f'file,id=console,path={self.console.path}',
                '-serial', 'chardev:console',
                '-chardev', f'socket,id=agent,fd={agent}',
                '-serial', 'chardev:agent']
        for port in range(1, NR_PORTS + 1):
            args += ['-device', f'pcie-root-port,id=port{port},slot={port},'
                     f'chassis={port},addr={0xf + port:#x}']
        for device in self.devices:
            args += ['-device', json.dumps(device.properties())]
        return args

    def fail(self, message):
        """The guest, or QEMU, did not do as told."""
        raise SoakError(f'{self.name}: {message}')

    @property
    def pid(self):
        """QEMU's."""
        return self.vm.get_pid()

    def free_ports(self):
        """Root ports with nothing behind them."""
        used = {device.port for device in self.devices}
        return [port for port in range(1, NR_PORTS + 1) if port not in used]

    # Hotplug

    def plug(self, device):
        """device_add; an error message, or None."""
        answer = self.vm.qmp('device_add', device.properties())
        if 'error' in answer:
            return answer['error']['desc']
        self.devices.append(device)
        return None

    def unplug(self, device):
        """device_del, in which the guest takes part."""
        self.vm.cmd('device_del', {'id': device.name})
        try:
            self.vm.event_wait('DEVICE_DELETED', EVENT_DEADLINE,
                               match={'data': {'device': device.name}})
        except asyncio.TimeoutError:
            self.fail(f'the guest did not release {device.name} within '
                      f'{EVENT_DEADLINE} s')
        self.devices.remove(device)
        self.guest.run('until_true 60 test ! -e /sys/bus/pci/devices/'
                       f'{device.address}')

    # Migration

    def migration_status(self):
        """As QEMU says."""
        return self.vm.cmd('query-migrate').get('status', 'none')

    def wait_migration(self):
        """How it ended."""
        wait_until(lambda: self.migration_status() in ENDED, EVENT_DEADLINE,
                   f'the migration of {self.name} ends')
        return self.migration_status()

    # Servers that come back

    def wait_event(self, name, device):
        """An event of a device; its data."""
        try:
            return self.vm.event_wait(
                name, EVENT_DEADLINE,
                match={'data': {'device': device.name}})['data']
        except asyncio.TimeoutError:
            return self.fail(f'no {name} of {device.name} within '
                             f'{EVENT_DEADLINE} s')

    def expect_loss(self, device):
        """Its server is about to die, and will come back."""
        self.lost.add(device.name)
        device.leave(self.guest)

    def wait_returned(self, device):
        """The server is back; from now on it is not to be missed again."""
        self.wait_event('VFIO_USER_RECONNECTED', device)
        self.check_events()
        self.check_logs()
        self.lost.discard(device.name)

    # Being looked at

    def running(self):
        """Whether the VM runs, by QMP."""
        return self.vm.cmd('query-status')['status'] == 'running'

    def wait_running(self):
        """After a migration, to here or no further."""
        wait_until(self.running, EVENT_DEADLINE, f'{self.name} runs')

    def check(self):
        """QMP, guest, devices and both logs."""
        if not self.vm.is_running():
            self.fail(f'QEMU ended with status {self.vm.exitcode()}')
        if not self.running():
            self.fail(f'the VM is {self.vm.cmd("query-status")["status"]}')
        self.check_events()
        self.guest.run('true')
        for device in self.devices:
            device.check(self.guest)
        self.check_logs()

    def check_events(self):
        """No device has gone whose server did not."""
        for event in self.vm.get_qmp_events():
            name = event.get('data', {}).get('device')
            if event['event'] in LOST and name not in self.lost:
                self.fail(f'QEMU says of {name}: {event}')

    def check_logs(self):
        """No oops, and nothing lost whose server is alive."""
        oops = OOPS.search(self.console.fresh())
        if oops:
            self.fail(f'the guest\'s kernel says: {oops[0].strip()}')
        for line in self.log.fresh().splitlines():
            lost = LOSS.search(line)
            if lost and lost[1] not in self.lost:
                self.fail(f'QEMU says: {line}')

    def usage(self):
        """Number of fds, and KiB of memory that is not the guest's."""
        with open(f'/proc/{self.pid}/status', encoding='ascii') as file:
            anonymous = next(int(line.split()[1]) for line in file
                             if line.startswith('RssAnon'))
        return len(os.listdir(f'/proc/{self.pid}/fd')), anonymous

    # The end

    def end(self):
        """quit; the exit status must be 0."""
        try:
            self.vm.shutdown(timeout=END_DEADLINE)
        except AbnormalShutdown as exc:
            self.fail(f'QEMU did not quit: {exc}')
        self.guest.channel.close()
        if self.vm.exitcode():
            self.fail(f'QEMU ended with status {self.vm.exitcode()}')

    def expect_death(self):
        """A target that has lost its source ends by itself, with 1."""
        try:
            self.vm.wait(END_DEADLINE)
        except AbnormalShutdown as exc:
            if self.vm.exitcode() != 1:
                self.fail(f'QEMU did not end: {exc}')
        self.guest.channel.close()
        if self.vm.exitcode() != 1:
            self.fail(f'QEMU ended with status {self.vm.exitcode()}')

    def tell_blocked(self):
        """Let the guest's kernel write what it waits for to its console."""
        try:
            self.guest.run('echo t >/proc/sysrq-trigger', BLOCKED_DEADLINE)
        except (OSError, SoakError):
            pass        # it does not answer, which will have been found

    def kill(self):
        """Whatever state it is in."""
        if self.vm.is_running():
            self.vm.kill()
        self.guest.channel.close()
