# SPDX-License-Identifier: GPL-2.0-or-later
"""What a soak does to its machine, by the roll of a die.

An action leaves a machine in which everything must be well; the caller looks.
It returns what it did in a few words, or None when it cannot be done now. All
decisions come from `random`, so that a seed tells the story again as far as
the time that things take allows.
"""

import threading
import time

from vfio_user_server import wait_until

from soak_devices import KINDS, SIGCONT, SIGSTOP, Standard
from soak_machine import Machine, SoakError
from soak_returns import RETURNS, Returns, hold

DEADLINE = 60
SLOW = 64 << 20         # bytes per second, of a migration that is to be met
SHORT_STALL = (0.02, 1.5)
RACE = (0.0, 0.08)      # seconds into a device_add; it takes some 30 ms


class Actions(Returns):
    """The actions, and the machine as it is after the last one."""

    def __init__(self, setup, random, machine, kinds, fixed):
        super().__init__(random, machine)
        self.setup = setup
        self.kinds = kinds      # that may be plugged
        self.fixed = fixed      # devices that are never unplugged
        self.count = 0

    # What there is to choose from

    def hot(self, device):
        """Whether it may be unplugged."""
        return device not in self.fixed

    def new_device(self, name=None):
        """A device for a free port, its server started."""
        ports = self.machine.free_ports()
        kinds = [KINDS[kind] for kind in self.kinds
                 if name in (None, kind) and self.number_of(kind)
                 < KINDS[kind].most]
        if not ports or not kinds:
            return None
        kind = self.random.choice(kinds)
        used = {device.nr for device in self.machine.devices
                if device.kind == kind.kind}
        self.count += 1
        device = kind(self.setup, f'{kind.kind}{self.count}',
                      self.random.choice(ports),
                      min(set(range(kind.most)) - used))
        device.serve()
        return device

    def number_of(self, kind):
        """Of devices of a kind."""
        return sum(device.kind == kind for device in self.machine.devices)

    # Coming and going

    def plug(self):
        """One more device, at work."""
        device = self.new_device()
        if not device:
            return None
        error = self.machine.plug(device)
        if error:
            raise SoakError(f'device_add of {device.name}: {error}')
        device.attach(self.guest)
        return f'{device.name} at port {device.port}'

    def unplug(self):
        """One less, in good order; nothing may have been lost."""
        device = self.pick(self.hot)
        if not device:
            return None
        self.take_away(device)
        return device.name

    def take_away(self, device):
        """End the work, unplug, end the server."""
        device.detach(self.guest)
        self.machine.unplug(device)
        device.stop_server()

    def yank(self):
        """device_del of a disk at work; the guest copes with it."""
        device = self.pick(lambda d: self.hot(d) and d.kind == 'nvme')
        if not device:
            return None
        self.machine.unplug(device)
        device.abandon(self.guest)
        device.stop_server()
        return device.name

    def kill(self):
        """SIGKILL of a server; device_del, and one of the same kind anew."""
        device = self.pick(lambda d: self.hot(d) and d.may_die)
        if not device:
            return None
        self.let_die(device)
        self.bury(device)
        device = self.new_device(device.kind)
        error = self.machine.plug(device)
        if error:
            raise SoakError(f'device_add after a kill: {error}')
        device.attach(self.guest)
        return f'{device.name} is new'

    def let_die(self, device):
        """Kill its server; the VM is there all the same."""
        self.machine.lost.add(device.name)
        device.kill_server()
        device.abandon(self.guest)
        if not self.machine.running():
            raise SoakError(f'the VM stopped as {device.name} died')

    def bury(self, device):
        """Unplug a device whose server is gone."""
        self.machine.unplug(device)
        device.server.stop()

    # Plugging what is not there, or not quite

    def plug_dead(self):
        """A socket on which nobody listens any more."""
        device = self.new_device()
        if not device:
            return None
        device.kill_server()
        error = self.machine.plug(device)
        if not error or 'refused' not in error:
            raise SoakError(f'device_add without a server: {error}')
        return device.name

    def plug_stopped(self):
        """A server that is stopped, and then goes on."""
        if 'standard' not in self.kinds:
            return None
        device = self.new_device(Standard.kind)
        if not device:
            return None
        device.timeout_ms = self.random.randrange(50, 500)
        device.signal_server(SIGSTOP)
        error = self.machine.plug(device)
        device.signal_server(SIGCONT)
        if not error or 'in time' not in error:
            raise SoakError(f'device_add with a stopped server: {error}')
        device.timeout_ms = Standard.timeout_ms
        error = self.machine.plug(device)
        if error:
            raise SoakError(f'device_add after a stop: {error}')
        device.attach(self.guest)
        return device.name

    def plug_race(self):
        """A server that dies some time while it is being plugged."""
        device = self.new_device()
        if not device:
            return None
        if not device.may_die:
            device.stop_server()
            return None
        self.machine.lost.add(device.name)
        timer = threading.Timer(self.random.uniform(*RACE),
                                device.kill_server)
        timer.start()
        error = self.machine.plug(device)
        timer.join()
        device.server.stop()
        if error:
            return f'{device.name}: {error}'
        self.guest.run('true')
        self.machine.unplug(device)
        return f'{device.name} died as it was there'

    # Standing still

    def stop_cont(self):
        """The VM."""
        seconds = self.random.uniform(*SHORT_STALL)
        self.machine.vm.cmd('stop')
        hold(seconds)
        self.machine.vm.cmd('cont')
        return f'{seconds:.2f} s'

    def short_time(self, device):
        """So many seconds a device's server may be late."""
        least, most = SHORT_STALL
        return self.random.uniform(least, min(most, device.timeout_ms / 2000))

    def stall(self):
        """A server, for less time than is allowed."""
        device = self.pick(lambda d: True)
        return self.stall_for(device, self.short_time(device))

    def stall_long(self):
        """A server, for more."""
        device = self.pick(lambda d: d.long_stall)
        if not device:
            return None
        return self.stall_for(device, self.random.uniform(1.2, 4) *
                              device.timeout_ms / 1000)

    def stall_for(self, device, seconds):
        """The monitor answers meanwhile."""
        end = time.monotonic() + seconds
        device.signal_server(SIGSTOP)
        try:
            while time.monotonic() < end:
                if not self.machine.running():
                    raise SoakError('the VM stopped with a server')
                hold(min(0.1, seconds))
        finally:
            device.signal_server(SIGCONT)
        return f'{device.name} {seconds:.2f} s'

    def stall_stop(self):
        """A server is stopped, and meanwhile the VM is stopped as well."""
        device = self.pick(lambda d: d.long_stall)
        if not device:
            return None
        device.signal_server(SIGSTOP)
        try:
            hold(self.random.uniform(0, 0.5))
            self.machine.vm.cmd('stop')
            hold(self.random.uniform(0, 0.5))
        finally:
            device.signal_server(SIGCONT)
        hold(self.random.uniform(0, 0.5))
        self.machine.vm.cmd('cont')
        return device.name

    # Beginning anew

    def reset(self):
        """A device, by its guest."""
        device = self.pick(lambda d: d.resets)
        return f'{device.name} {device.reset(self.guest, self.random.choice)}'

    def rebind(self):
        """A device's driver in the guest."""
        device = self.pick(lambda d: d.driver)
        if not device:
            return None
        device.rebind(self.guest)
        return device.name

    def system_reset(self):
        """The whole machine, in the middle of everything."""
        self.machine.vm.cmd('system_reset')
        self.guest.wait_boot()
        for device in self.machine.devices:
            device.rebooted(self.guest)
        return 'booted again'

    # Migration

    def begin_hop(self, speed=0):
        """Another QEMU with servers of its own, and memory on its way."""
        source = self.machine
        self.old_servers = [(d, d.server) for d in source.devices]
        for device in source.devices:
            device.serve()
        target = Machine(self.setup, self.setup.machine_name(),
                         source.devices, incoming=True)
        self.setup.machines.append(target)
        uri = f'unix:{self.setup.sockets}/{target.name}.migrate'
        for side in (source, target):
            # Else the source calls it completed when all is sent, and does
            # not learn that the target has failed with it.
            side.vm.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'return-path', 'state': True}])
        source.vm.cmd('migrate-set-parameters', **{
            'max-bandwidth': speed, 'downtime-limit': 2000})
        target.vm.cmd('migrate-incoming', uri=uri)
        source.vm.cmd('migrate', uri=uri)
        # One that is cancelled before leaves the target listening for ever.
        wait_until(lambda: source.migration_status() != 'setup', DEADLINE,
                   f'{source.name} has reached {target.name}')
        return target

    def end_hop(self, target):
        """The guest is at the target, or has stayed; how it ended."""
        source = self.machine
        status = source.wait_migration()
        if status == 'completed':
            target.wait_running()
            target.guest.number = source.guest.number
            source.end()
            leaving = self.old_servers
            target.lost |= source.lost
            self.machine = target
        else:
            target.expect_death()
            leaving = [(d, d.server) for d, _ in self.old_servers]
            for device, server in self.old_servers:
                device.server = server
            source.wait_running()
        for _, server in leaving:
            server.stop()
        return status

    def require(self, status, wanted):
        """How a migration must have ended."""
        if status not in wanted:
            raise SoakError(f'the migration {status}, '
                            f'{self.machine.vm.cmd("query-migrate")}')
        return status

    def hop(self):
        """To another QEMU."""
        return self.require(self.end_hop(self.begin_hop()), ['completed'])

    def hop_stalled(self):
        """One of the servers is stopped for a while on the way."""
        target = self.begin_hop(SLOW)
        device, old = self.random.choice(self.old_servers)
        server = self.random.choice([old, device.server])
        pid = server.process.pid
        hold(self.random.uniform(0, 1))
        self.setup.signal(pid, SIGSTOP)
        hold(self.short_time(device))
        self.setup.signal(pid, SIGCONT)
        return (f'{device.name}\'s {"old" if server is old else "new"} '
                'server, ' + self.require(self.end_hop(target),
                                          ['completed']))

    def cancel(self):
        """
        Some time on the way, if that is not over before. QEMU 10.0 closes the
        return path first and says afterwards that it was cancelled, so that it
        may be the former that fails the migration.
        """
        target = self.begin_hop(SLOW)
        hold(self.random.uniform(0, 1.5))
        self.machine.vm.cmd('migrate_cancel')
        return self.require(self.end_hop(target),
                            ['cancelled', 'completed', 'failed'])

    def hop_kill_target(self):
        """A server of the target dies on the way: the guest stays."""
        target = self.begin_hop(SLOW)
        device, _ = self.random.choice(self.old_servers)
        hold(self.random.uniform(0, 0.6))
        device.kill_server()
        self.machine.vm.cmd('migrate-set-parameters', **{'max-bandwidth': 0})
        return (f'{device.name}\'s, '
                + self.require(self.end_hop(target), ['failed']))

    def hop_kill_source(self):
        """One of the source dies: the guest stays, without the device."""
        device = self.pick(self.hot)
        if not device:
            return None
        target = self.begin_hop(SLOW)
        old = dict((d.name, s) for d, s in self.old_servers)[device.name]
        hold(self.random.uniform(0, 0.6))
        self.machine.lost.add(device.name)
        old.process.kill()
        old.process.wait()
        self.machine.vm.cmd('migrate-set-parameters', **{'max-bandwidth': 0})
        status = self.require(self.end_hop(target), ['failed'])
        device.abandon(self.guest)
        self.bury(device)
        return f'{device.name}\'s, {status}'


COMMON = {'plug': 10, 'unplug': 6, 'kill': 4, 'plug_dead': 2,
          'plug_stopped': 2, 'plug_race': 4, 'stop_cont': 5, 'stall': 6,
          'stall_stop': 3, 'reset': 7, 'system_reset': 1, **RETURNS}
STORAGE = {**COMMON, 'yank': 3, 'stall_long': 5, 'rebind': 4}
MIGRATION = {**COMMON, 'hop': 14, 'hop_stalled': 4, 'cancel': 5,
             'hop_kill_target': 3, 'hop_kill_source': 3}
