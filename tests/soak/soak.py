#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hours of a guest with several servers, to which random things happen.

Two kinds of machine take turns. In one the guest's disks are in servers of
QEMU's, which cannot be migrated; the other one is migrated again and again.
Each has devices that stay, at work all the time, and others that come and go.
Servers stall, die, and many of them come back to their device.
After each action QMP answers, the guest answers, every device goes on, no
data are wrong, the guest's kernel has not complained, and QEMU and all
servers are alive. When the machine has a set of devices that it had before,
QEMU has as many fds as then; its memory is compared with what it was soon
after start.

What happens is decided by a seed, which is printed; --seed begins the same
story again. Logs, images and soak.json stay in the output directory.
"""

import argparse
import collections
import json
import os
from pathlib import Path
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

from soak_actions import MIGRATION, STORAGE, Actions
from soak_devices import KINDS
from soak_machine import Machine
from vfio_user_blocks import make_initrd

TOP = Path(__file__).resolve().parent.parent.parent
# Below the build directory
PROGRAMS = {
    'qemu': 'qemu/qemu-system-x86_64',
    'server': 'tests/server/vfio-user-test-server',
    'gpio': 'qemu/subprojects/libvfio-user/samples/gpio-pci-idio-16',
}
PHASE_MINUTES = 10
FD_MARGIN = 4               # event notifiers come and go with the guest's use
MEMORY_MARGIN = 64 * 1024   # KiB; the code cache of TCG alone has 32 MiB
WARM_SAMPLES = 15

PHASES = [
    ('storage', STORAGE, ('nvme', 'engine', 'gpio', 'hold'),
     ('nvme', 'virtio', 'engine', 'standard', 'registers', 'halt')),
    ('migration', MIGRATION, ('engine', ),
     ('engine', 'standard', 'registers')),
]


class Setup:
    """Programs, directories, and all processes that must end."""

    def __init__(self, args):
        self.qemu = args.qemu
        self.test_server = args.server
        self.gpio = args.gpio
        self.kernel = TOP / 'build' / 'guest' / 'vmlinux'
        self.logs = args.out / 'logs'
        self.initrd = None
        self.accel = os.getenv('VFIO_USER_TEST_ACCEL', 'tcg,tb-size=32')
        for path in (self.qemu, self.test_server, self.gpio, self.kernel):
            if not path.exists():
                sys.exit(f'soak: {path} is missing: run "make soak"')
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.sockets = Path(tempfile.mkdtemp(prefix='vfio-user-soak-'))
        self.servers = []
        self.machines = []
        self.nr_servers = 0
        self.nr_machines = 0

    def server_paths(self, name):
        """Socket and log of the next server."""
        self.nr_servers += 1
        name = f'{name}-{self.nr_servers}'
        return str(self.sockets / name), str(self.logs / f'{name}.log')

    def machine_name(self):
        """Of the next one."""
        self.nr_machines += 1
        return f'qemu{self.nr_machines}'

    @staticmethod
    def signal(pid, number):
        """To a process of ours."""
        os.kill(pid, number)

    def forget_ended(self):
        """So that nothing grows here, either."""
        self.servers = [s for s in self.servers if s.running()]
        self.machines = [m for m in self.machines if m.vm.is_running()]

    def kill_all(self):
        """Whatever is still there; our own children only."""
        for machine in self.machines:
            machine.kill()
        for server in self.servers:
            if server.process and server.running():
                server.process.kill()
                server.process.wait()
        self.machines, self.servers = [], []


class Usage:
    """What QEMU uses: as many fds as before, about as much memory."""

    def __init__(self):
        self.fds = {}
        self.memory = collections.defaultdict(list)
        self.samples = []

    def take(self, step, machine):
        """A sample, compared with those before."""
        nr_fds, memory = machine.usage()
        key = ' '.join([machine.origin, *sorted(device.kind for device
                                                in machine.devices)])
        first = self.fds.setdefault(key, nr_fds)
        if nr_fds > first + FD_MARGIN:
            machine.fail(f'QEMU has {nr_fds} fds, {first} the first time it '
                         f'had these devices: {key}')
        samples = self.memory[machine.name]
        samples.append(memory)
        if memory > max(samples[:WARM_SAMPLES]) + MEMORY_MARGIN:
            machine.fail(f'QEMU uses {memory} KiB, and '
                         f'{max(samples[:WARM_SAMPLES])} KiB at first')
        self.samples.append((step, machine.name, nr_fds, memory,
                             len(machine.devices)))


    def growth(self):
        """KiB that a QEMU had at most beyond what it had at first."""
        return max((max(samples) - max(samples[:WARM_SAMPLES])
                    for samples in self.memory.values()), default=0)


class Soak:
    """The run."""

    def __init__(self, args):
        self.args = args
        self.setup = Setup(args)
        self.usage = Usage()
        self.done = collections.Counter()
        self.step = 0
        self.start = time.monotonic()
        self.actions = None
        self.last = 'booting'
        self.cut = False

    def seconds(self):
        """Since the start."""
        return time.monotonic() - self.start

    def say(self, text):
        """A line of the story."""
        line = f'{self.seconds():7.1f} {text}'
        print(line, flush=True)
        with open(self.setup.logs / 'story', 'a', encoding='utf-8') as file:
            print(line, file=file)

    def boot(self, fixed, hot, rng):
        """A machine with its first devices at work."""
        devices = []
        for port, kind in enumerate(fixed, 1):
            devices.append(KINDS[kind](self.setup, f'{kind}-boot', port))
            devices[-1].serve()
        machine = Machine(self.setup, self.setup.machine_name(), devices)
        self.setup.machines.append(machine)
        machine.guest.wait_boot()
        for device in devices:
            device.attach(machine.guest)
        return Actions(self.setup, rng, machine, hot, devices)

    def choose(self, weights, rng):
        """Do one that can be done now."""
        while True:
            name = rng.choices(list(weights), list(weights.values()))[0]
            self.last = name
            told = getattr(self.actions, name)()
            if told:
                return name, told

    def phase(self, number, end):
        """One machine, until the time is over."""
        name, weights, fixed, hot = PHASES[number % len(PHASES)]
        rng = random.Random(f'{self.args.seed}/{number}')
        self.last = 'booting'
        self.actions = self.boot(fixed, hot, rng)
        self.say(f'phase {number}: {name}')
        self.look()
        while self.seconds() < end:
            self.step += 1
            action, told = self.choose(weights, rng)
            self.done[action] += 1
            self.say(f'{self.step:5} {action}: {told}')
            self.look()
        self.finish()

    def look(self):
        """All must be well, and as little used as before."""
        machine = self.actions.machine
        machine.check()
        self.usage.take(self.step, machine)
        self.setup.forget_ended()
        names = {device.name for device in machine.devices}
        for image in self.setup.sockets.glob('*.img'):
            if image.stem not in names:
                image.unlink()

    def finish(self):
        """All data once more, then the end of QEMU and of the servers."""
        self.last = 'ending'
        machine = self.actions.machine
        for device in machine.devices:
            device.detach(machine.guest)
        machine.check_logs()
        machine.end()
        for device in machine.devices:
            device.stop_server()

    def run(self):
        """Phases in turn; what was found, or None."""
        total = self.args.minutes * 60
        nr = max(len(PHASES), round(self.args.minutes / PHASE_MINUTES))
        try:
            self.setup.initrd = make_initrd(TOP / 'build/guest/initrd',
                                            self.setup.logs)
            for number in range(nr):
                self.phase(number, total * (number + 1) / nr)
        except KeyboardInterrupt:
            self.cut = True
        except Exception:   # pylint: disable=broad-except
            found = traceback.format_exc()
            if self.actions:
                self.actions.machine.tell_blocked()
            return found
        finally:
            self.setup.kill_all()
            shutil.rmtree(self.setup.sockets, ignore_errors=True)
        return None

    def report(self, found):
        """JSON, and a closing line."""
        result = {
            'seed': self.args.seed, 'minutes': round(self.seconds() / 60, 1),
            'steps': self.step, 'actions': dict(self.done), 'found': found,
            'at': self.last if found else None, 'fds': self.usage.fds,
            'growth-kib': self.usage.growth(), 'samples': self.usage.samples,
        }
        (self.args.out / 'soak.json').write_text(json.dumps(result, indent=1))
        counts = ', '.join(f'{n} {name}' for name, n
                           in sorted(self.done.items()))
        if found:
            self.say(found)
            self.say(f'seed {self.args.seed}, step {self.step}, in '
                     f'"{self.last}"; logs: {self.setup.logs}')
        end = 'FAILED' if found else 'interrupted' if self.cut else 'passed'
        self.say(f'soak: {end}, '
                 f'{self.seconds() / 60:.1f} minutes, {self.step} actions '
                 f'({counts}), QEMU grew by {self.usage.growth()} KiB, '
                 f'seed {self.args.seed}')


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--hours', type=float, default=1)
    length.add_argument('--minutes', type=float)
    parser.add_argument('--seed', type=int,
                        default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument('--build', type=Path, default=TOP / 'build')
    parser.add_argument('--out', type=Path)
    for name in PROGRAMS:
        parser.add_argument(f'--{name}', type=Path)
    args = parser.parse_args()
    if args.minutes is None:
        args.minutes = args.hours * 60
    args.out = (args.out or args.build / 'soak').resolve()
    for name, place in PROGRAMS.items():
        if getattr(args, name) is None:
            setattr(args, name, args.build / place)
    return args


def interrupt(*_):
    """SIGTERM is like Ctrl-C: everything ends, and the report is written."""
    raise KeyboardInterrupt


def main():
    """Status 1 if anything was found."""
    signal.signal(signal.SIGTERM, interrupt)
    soak = Soak(parse())
    soak.say(f'soak: {soak.args.minutes:g} minutes, seed {soak.args.seed}')
    found = soak.run()
    soak.report(found)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
