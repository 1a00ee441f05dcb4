# SPDX-License-Identifier: GPL-2.0-or-later
"""Base of the tests in which vCPUs do what no driver would.

The guest (nasty-guest/guest.c) is an interpreter: a test gives each vCPU a
program of a few accesses, and CPU 0 answers questions on the serial port. The
functions here make the words of such programs.

Nothing that a test does with QEMU waits for ever. Where QEMU has ended, or its
monitor or the guest does not answer, the test fails with a sentence that says
so and with what QEMU said last; where it hangs, the stacks of all its threads
are in a file.
"""

import asyncio
import functools
import os
from pathlib import Path
import shutil
import signal
import socket
import tempfile
from typing import NamedTuple
import unittest

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol
import test_x86_64_vfio_user_kvm as flat
from vfio_user_accel import VFIOUserAccelTest
from vfio_user_case import REPOSITORY
from vfio_user_reconnect import VFIOUserReturnTest
from vfio_user_server import Server, ServerError, wait_until
from vfio_user_watchdog import stacks

FUNCTIONAL = REPOSITORY / 'tests' / 'functional'
PARTS = FUNCTIONAL / 'kvm-guest'
TEST_SERVER = os.getenv('VFIO_USER_TEST_SERVER', str(
    REPOSITORY / 'build' / 'tests' / 'server' / 'vfio-user-test-server'))

DEADLINE = 30.0
# Longer than any test: who waits for a message's deadline waits for ever.
NEVER_MS = 600000
# Turns that show that a vCPU goes on, or that it would if it could
MANY = 300
# Looks at who uses the processor that show that nobody does
STILL = 50
SHARED = ['-m', '64M', '-machine', 'memory-backend=mem',
          '-object', 'memory-backend-memfd,id=mem,size=64M,share=on']

# Guest memory that the guest itself does not use
FREE = 0x200000
ONES = 0xffffffff

# --- PCI ---

CONFIG_ADDRESS, CONFIG_DATA = 0xcf8, 0xcfc
# Where the tests have q35 put config space, and the BARs
ECAM = 0xb0000000
BARS = 0xe1000000
BAR_STEP = 0x100000
SLOT = 5
ID, COMMAND, CACHE_LINE, BAR = 0x00, 0x04, 0x0c, 0x10
COMMAND_OFF, COMMAND_ON = 0x0, 0x7
CAPABILITIES, MSI, MSIX = 0x34, 0x05, 0x11
# ACPI hotplug of the pc machine: a bit for each slot of the bus
EJECT_PORT = 0xae08
# The standard device of tests/server
STANDARD_ID = 0x56781234


def read(addr, width=4):
    """A read of memory."""
    return f'r{width}:{addr:x}'


def write(addr, value, width=4):
    """A write of memory."""
    return f'w{width}:{addr:x}:{value:x}'


def port_read(port, width=4):
    """A read of a port."""
    return f'i{width}:{port:x}'


def port_write(port, value, width=4):
    """A write of a port."""
    return f'o{width}:{port:x}:{value:x}'


def expect(value):
    """Count what was read."""
    return f'e:{value:x}'


def await_word(addr, value, most=0):
    """Wait for a word in memory; without an end also for a later one."""
    return f'u:{addr:x}:{value:x}:{most:x}'


def delay(most):
    """Some random loops."""
    return f'd:{most:x}'


def select(slot, off):
    """Config mechanism 1: one address register for all vCPUs."""
    return port_write(CONFIG_ADDRESS,
                      0x80000000 | slot << 11 | off & ~3)


def config_read(slot, off, width=4):
    """The same, and read."""
    return f'{select(slot, off)} {port_read(CONFIG_DATA + off % 4, width)}'


def config_write(slot, off, value, width=4):
    """The same, and write."""
    return (f'{select(slot, off)} '
            f'{port_write(CONFIG_DATA + off % 4, value, width)}')


def ecam(slot, off=0, bus=0):
    """Where q35 has that register in memory; see open_ecam()."""
    return ECAM + (bus << 20 | slot << 15) + off


def bar_address(number):
    """Where a test puts a BAR."""
    return BARS + number * BAR_STEP


def eject(slot):
    """What the guest's ACPI does on pc to let go of a device."""
    return port_write(EJECT_PORT, 1 << slot)


class CPU(NamedTuple):
    """What a vCPU has done so far."""

    busy: int
    turns: int
    good: int
    ones: int
    wrong: int
    last: int


class Sample(NamedTuple):
    """The guest's answer: turns of CPU 0, and a CPU for each other one."""

    turns: int
    cpus: dict


@functools.lru_cache(maxsize=None)
def guest_program():
    """The guest, compiled once for all tests."""
    flat.programs()     # skips where there is no compiler for it
    directory = Path(tempfile.mkdtemp(prefix='vfio-user-nasty-'))
    unittest.addModuleCleanup(shutil.rmtree, directory)
    guest = directory / 'guest'
    flat.compile_program(*flat.GUEST_FLAGS, f'-I{PARTS}', '-o', guest,
                         PARTS / 'start.S',
                         *[PARTS / f'{name}.c'
                           for name in ('report', 'platform', 'pci')],
                         FUNCTIONAL / 'nasty-guest' / 'guest.c')
    return guest


class VFIOUserNastyTest(VFIOUserAccelTest, VFIOUserReturnTest):
    """The guest, its servers, and a monitor with a deadline."""

    doing = 'the guest boots'       # for what is said on failure
    serial = None
    guest = None

    def tearDown(self):
        # A test that passes has ended it: see end(). Its monitor may be dead.
        if self.guest:
            self.guest.kill()
        super().tearDown()

    # Servers

    def serve(self, *lines, state=False):
        """A test server; without lines it has the standard device.

        With state, what is in its registers outlives it.
        """
        if not os.access(TEST_SERVER, os.X_OK):
            self.skipTest(f'no {TEST_SERVER}: build it with "make", or name '
                          'it in VFIO_USER_TEST_SERVER')
        path, to = self._paths()
        argv = [TEST_SERVER, f'--socket-path={path}']
        for line in lines:
            argv += ['--set', line]
        if state:
            argv.append(f'--state={self.scratch_file(f"{path[-1]}.state")}')
        server = Server(argv, path, to)
        self.servers.append(server)
        return server.start()

    # QEMU

    def boot(self, *args, cpus=2, machine='q35', accel=None):
        """Start the guest, and wait until all its vCPUs listen."""
        self.logs.append(self.log_file('guest.log'))
        serial, monitor = self.pair(), self.pair()
        self.guest = self.get_vm(name='guest')
        self.guest.set_machine(machine)
        self.guest.add_args(*(accel or self.accel_args()), '-smp', str(cpus),
                         *flat.BOARD, *SHARED,
                         '-chardev',
                         f'socket,id=serial,fd={serial[1].fileno()}',
                         '-serial', 'chardev:serial',
                         '-chardev',
                         f'socket,id=watch,fd={monitor[1].fileno()}',
                         '-mon', 'chardev=watch,mode=control',
                         '-kernel', str(guest_program()),
                         '-append', f'{cpus:x}', *args)
        self.guest.launch()
        for _, theirs in (serial, monitor):
            theirs.close()
        self.serial = serial[0].makefile('rw', encoding='ascii')
        self.addCleanup(self.close_serial)
        self.qmp = QEMUMonitorProtocol(monitor[0])
        self.qmp.connect()
        self.qmp.settimeout(DEADLINE)
        self.addCleanup(self.close_monitor)
        if cpus > 1:
            self.assertEqual(self.line(), 'ok cpus')
        self.assertEqual(self.line(), 'ready')

    def pair(self):
        """Two sockets, the second one for QEMU."""
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE)
        self.addCleanup(ours.close)
        os.set_inheritable(theirs.fileno(), True)
        return ours, theirs

    def close_serial(self):
        """Whatever has become of QEMU; what was not sent is lost."""
        try:
            self.serial.close()
        except OSError:
            pass

    def close_monitor(self):
        """Likewise."""
        try:
            self.qmp.close()
        except (QMPError, OSError, EOFError, asyncio.TimeoutError):
            pass

    def end(self):
        """QEMU is asked to end, and does."""
        pid = self.guest.get_pid()
        self.check_lock_waits(self.monitor('query-vfio-user'))
        self.doing += ', and QEMU is to quit'
        self.monitor('quit')
        try:
            wait_until(lambda: not self.guest.is_running(), DEADLINE, 'end')
        except ServerError:
            self.hangs('QEMU does not end', pid)
        if self.guest.exitcode():
            self.died()

    def died(self):
        """Fail: QEMU is not there any more."""
        pid = self.guest.get_pid()
        try:
            wait_until(lambda: not self.guest.is_running(), DEADLINE, 'its end')
        except ServerError:
            return self.hangs('QEMU has closed its sockets and does not end',
                              pid)
        status = self.guest.exitcode()
        self.guest.kill()
        name = (signal.Signals(-status).name if status < 0
                else f'status {status}')
        said = [line for line in (self.guest.get_log() or '').splitlines()
                if 'warning: host doesn\'t support' not in line][-4:]
        return self.fail_with_logs(f'QEMU ended with {name} while '
                                   f'{self.doing}; it said: '
                                   + ('; '.join(said) or 'nothing'))

    def hangs(self, what, pid=None):
        """Fail: somebody does not answer; say where all threads are."""
        path = self.log_file('stacks.log')
        Path(path).write_text(stacks(pid or self.guest.get_pid()),
                              encoding='utf-8')
        self.logs.append(path)
        self.guest.kill()
        return self.fail_with_logs(f'{what} within {DEADLINE} s while '
                                   f'{self.doing}')

    def monitor(self, command, **arguments):
        """What QEMU answers, within a deadline."""
        try:
            return self.qmp.cmd(command, **arguments)
        except asyncio.TimeoutError:
            said = arguments.get('command-line', command)
            return self.hangs(f'the monitor does not answer "{said}"')
        except (EOFError, ConnectionError):
            return self.died()
        except QMPError as error:
            if self.guest.is_running() and type(error).__name__ not in (
                    'ExecInterruptedError', 'StateError'):
                raise
            return self.died()

    def hmp(self, command):
        """The same of a command for people."""
        return self.monitor('human-monitor-command',
                            **{'command-line': command})

    def status(self):
        """The VM's run state."""
        return self.monitor('query-status')['status']

    def wait_event(self, vm, name, **data):
        """The next event of that name, with these in its data."""
        match = {'data': data} if data else None
        try:
            event = vm.event_wait(name, DEADLINE, match=match)
        except asyncio.TimeoutError:
            return self.hangs(f'no event {name} {data}')
        except (EOFError, ConnectionError, QMPError):
            return self.died()
        if event is None:
            return self.died()
        return event.get('data')

    def wait(self, condition, what):
        """Until the condition holds; the deadline's sentence says what."""
        try:
            wait_until(condition, DEADLINE, what)
        except ServerError:
            self.hangs(f'not seen: "{what}"')

    # The guest

    def line(self):
        """The next line of the guest."""
        try:
            text = self.serial.readline()
        except socket.timeout:
            return self.hangs('the guest\'s CPU 0 does not answer')
        except ConnectionError:
            return self.died()
        if not text.endswith('\n'):
            return self.died()
        return text.rstrip('\n')

    def say(self, text):
        """A line for the guest."""
        try:
            self.serial.write(text + '\n')
            self.serial.flush()
        except (ConnectionError, BrokenPipeError):
            self.died()

    def do_nowait(self, *ops):
        """CPU 0 does this; done_here() is for its answer."""
        self.say('x ' + ' '.join(ops))

    def done_here(self):
        """What CPU 0 read last, and what it counted."""
        word, *numbers = self.line().split()
        self.assertEqual(word, 'done', f'the guest\'s answer while '
                         f'{self.doing}')
        last, good, ones, wrong = (int(number, 16) for number in numbers)
        return CPU(0, 1, good, ones, wrong, last)

    def do(self, *ops):
        """CPU 0 does this now; returns what it read last."""
        self.do_nowait(*ops)
        return self.done_here().last

    def command(self, text):
        """What CPU 0 has nothing to say about but ok."""
        self.say(text)
        self.assertEqual(self.line(), 'ok', f'the guest\'s answer to "{text}" '
                         f'while {self.doing}')

    def run_cpu(self, cpu, *ops, times=0):
        """Another vCPU does this from now on, so many times or for ever."""
        self.command(f'p {cpu:x} {times:x} ' + ' '.join(ops))

    def halt(self, *cpus):
        """They end after the turn that they are in."""
        for cpu in cpus:
            self.command(f'h {cpu:x}')
        self.wait_idle(*cpus)

    def wait_idle(self, *cpus):
        """They have ended what they had to do."""
        self.wait(lambda: not any(self.sample().cpus[cpu].busy
                                  for cpu in cpus),
                  f'CPUs {cpus} end their programs')

    def sample(self):
        """What all have done."""
        self.say('s')
        word, *numbers = self.line().split()
        self.assertEqual(word, 'sample')
        turns, *rest = (int(number, 16) for number in numbers)
        return Sample(turns, {i // 6 + 1: CPU(*rest[i:i + 6])
                              for i in range(0, len(rest), 6)})

    def wait_turns(self, *cpus, more=MANY):
        """They make progress, or have come to their programs' end."""
        before = self.sample()

        def on():
            now = self.sample()
            return all(now.cpus[cpu].turns - before.cpus[cpu].turns >= more
                       or not now.cpus[cpu].busy for cpu in cpus)
        self.wait(on, f'CPUs {cpus} go on')

    def wait_held(self, cpu):
        """A vCPU is in an access that does not end.

        It makes no turn while CPU 0 makes many and the monitor is asked.
        """
        def held():
            before = self.sample()
            while True:
                now = self.sample()
                if now.cpus[cpu].turns != before.cpus[cpu].turns:
                    return False
                if now.turns - before.turns > MANY:
                    return True
        self.wait(held, f'CPU {cpu} is held in its access')

    def wait_stands_still(self):
        """All vCPUs are held, CPU 0 too, or its single thread is.

        Nobody can ask it. vCPUs that are not held use the processor.
        """
        still, before = 0, None

        def stands_still():
            nonlocal still, before
            self.status()
            now = self.processor_time()
            still = still + 1 if now == before else 0
            before = now
            return still == STILL
        self.wait(stands_still, 'all vCPUs are held')

    def processor_time(self):
        """What each thread of QEMU's but the one of the monitor has used."""
        pid = self.guest.get_pid()
        times = {}
        for thread in os.listdir(f'/proc/{pid}/task'):
            if int(thread) != pid:
                fields = Path(f'/proc/{pid}/task/{thread}/stat').read_text(
                    encoding='ascii').rsplit(')', 1)[1].split()
                times[thread] = sum(map(int, fields[11:13]))
        return times

    # PCI

    def open_ecam(self):
        """q35: config space in memory, where no vCPU waits for another."""
        self.do(config_write(0, 0x64, 0), config_write(0, 0x60, ECAM | 1))

    def place(self, slot=SLOT, first=0):
        """Mechanism 1: put a device's BARs where bar_address() says."""
        for number in range(6):
            self.do(config_write(slot, BAR + 4 * number,
                                 0xc000 + 0x100 * number
                                 if self.do(config_read(
                                     slot, BAR + 4 * number)) & 1
                                 else self.place_of(slot, number, first)))
        self.do(config_write(slot, COMMAND, COMMAND_ON, 2))

    def place_of(self, slot, number, first):
        """A 64-bit BAR's upper half is 0."""
        if number and self.do(config_read(
                slot, BAR + 4 * number - 4)) & 0x7 == 0x4:
            return 0
        return bar_address(first + number)

    def capability(self, slot, wanted):
        """Where a capability is."""
        at = self.do(config_read(slot, CAPABILITIES, 1))
        while at:
            if self.do(config_read(slot, at, 1)) == wanted:
                return at
            at = self.do(config_read(slot, at + 1, 1))
        return self.fail_with_logs(f'no capability {wanted:#x} in slot {slot}')
