# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that is tortured: its process, its monitors, and what is left of it.

Nothing here waits without a deadline, and nothing that QEMU does may hang the
one who looks at it: the monitors are plain sockets, read with select.
"""

import json
import os
from pathlib import Path
import re
import resource
import select
import signal
import socket
import subprocess
import time

GDB_DEADLINE = 120
# Private memory only: what the guest has is not needed to see who did what.
CORE_FILTER = b'0x31\n'
ASSERTION = re.compile(r'^(?:[^\n]*?: )?([\w./-]+\.[ch]):\d+: (\w+): '
                       r'Assertion `(.*)\' failed', re.MULTILINE)
FRAME = re.compile(r'^#\d+ +(?:0x[0-9a-f]+ in )?(?:[\w.]*::)?(\w+)',
                   re.MULTILINE)
# They say that something is wrong, not what.
NOISE = re.compile(r'^(_?_?pthread_|__?libc|__futex|futex_|abort|raise|__GI_|'
                   r'__assert|__pthread|start_thread|clone3?|syscall|poll|'
                   r'ppoll|__poll|__ppoll|___|g_|qemu_mutex_lock_impl|'
                   r'qemu_cond_|lll_|memcpy|memmove|__mem|__lll)')
FRAMES = 4


class Broken(Exception):
    """What a run has found: a kind, a signature and the details."""

    def __init__(self, kind, signature, details=''):
        super().__init__(f'{kind}: {signature}')
        self.kind = kind
        self.signature = signature
        self.details = details


class Socket:
    """Lines from and to a socket that QEMU listens on."""

    def __init__(self, path, deadline):
        end = time.monotonic() + deadline
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.socket.setblocking(False)
        self.data = b''

    def send(self, data):
        """What does not fit is lost; nobody sends that much."""
        try:
            self.socket.send(data)
        except OSError:
            pass

    def line(self, deadline):
        """The next line, or None if it does not come, or QEMU has gone."""
        end = time.monotonic() + deadline
        while b'\n' not in self.data:
            left = end - time.monotonic()
            if not select.select([self.socket], [], [], max(0, left))[0]:
                return None
            try:
                more = self.socket.recv(65536)
            except OSError:
                return None
            if not more:
                return None
            self.data += more
        line, self.data = self.data.split(b'\n', 1)
        return line.decode('utf-8', 'replace').strip()

    def close(self):
        """The end."""
        self.socket.close()


class Monitor(Socket):
    """A QMP connection."""

    def __init__(self, path, deadline):
        super().__init__(path, deadline)
        self.events = []
        self.number = 0
        if not self.line(deadline) or self.ask('qmp_capabilities', {},
                                               deadline) is None:
            raise OSError('no QMP greeting')

    def ask(self, name, arguments, deadline):
        """The answer, an error or not; None if there is none in time."""
        self.number += 1
        self.send(json.dumps({'execute': name, 'id': self.number,
                              'arguments': arguments}).encode() + b'\n')
        end = time.monotonic() + deadline
        while True:
            line = self.line(end - time.monotonic())
            if line is None:
                return None
            answer = json.loads(line)
            if answer.get('id') == self.number:
                return answer
            if 'event' in answer:
                self.events.append(answer)


class Qemu:
    """The process, two monitors and the guest's serial port."""

    def __init__(self, binary, arguments, directory, deadline):
        self.binary = binary
        self.directory = Path(directory)
        self.deadline = deadline
        self.log = self.directory / 'qemu.log'
        names = ('qmp', 'probe', 'serial')
        paths = {name: self.directory / name for name in names}
        command = [str(binary), *arguments,
                   '-qmp', f'unix:{paths["qmp"]},server=on,wait=off',
                   '-qmp', f'unix:{paths["probe"]},server=on,wait=off',
                   '-serial', f'unix:{paths["serial"]},server=on,wait=off']
        (self.directory / 'command').write_text(' '.join(command) + '\n',
                                                encoding='utf-8')
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.directory, preexec_fn=self.prepare)
        self.monitor = self.probe = self.serial = None
        try:
            self.monitor = Monitor(paths['qmp'], deadline)
            self.probe = Monitor(paths['probe'], deadline)
            self.serial = Socket(paths['serial'], deadline)
        except OSError as error:
            raise self.gone_or(f'no monitor: {error}') from error

    @staticmethod
    def prepare():
        """In the child: it may leave a core, of a useful size."""
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        try:
            with open('/proc/self/coredump_filter', 'wb') as file:
                file.write(CORE_FILTER)
        except OSError:
            pass

    # Being looked at

    def check(self):
        """It lives, and the second monitor answers."""
        if self.process.poll() is not None:
            raise self.died()
        if self.probe and self.probe.ask('query-status', {},
                                         self.deadline) is None:
            raise self.gone_or('the second monitor does not answer')

    def gone_or(self, what):
        """Without an answer: it has ended, or that."""
        try:
            self.process.wait(self.deadline)    # it may be writing its core
        except subprocess.TimeoutExpired:
            return self.silent(what)
        return self.died()

    def command(self, name, **arguments):
        """An answer by QMP; an error is one, too."""
        answer = self.monitor.ask(name, arguments, self.deadline)
        if answer is None:
            other = self.probe.ask('query-status', {}, self.deadline)
            raise self.gone_or(f'no answer to {name}, '
                               f'{"one" if other else "none"} to the second '
                               'monitor')
        return answer

    def status(self):
        """The run state."""
        return self.command('query-status')['return']['status']

    def fds(self):
        """What it has open."""
        found = {}
        base = f'/proc/{self.process.pid}/fd'
        for fd in os.listdir(base):
            try:
                found[int(fd)] = os.readlink(f'{base}/{fd}')
            except OSError:
                pass        # closed meanwhile
        return found

    # The end

    def quit(self):
        """It ends when told to, with status 0."""
        self.monitor.send(b'{"execute": "quit"}\n')
        try:
            self.process.wait(self.deadline)
        except subprocess.TimeoutExpired:
            raise self.silent('it does not quit') from None
        if self.process.returncode:
            raise self.died()

    def kill(self):
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for end in (self.monitor, self.probe, self.serial):
            if end:
                end.close()

    # What was found

    def died(self):
        """How: the assertion, or where."""
        status = self.process.wait()
        said = self.log.read_text(encoding='utf-8', errors='replace')
        how = (signal.Signals(-status).name if status < 0
               else f'status {status}')
        trace = ''
        for core in self.directory.glob('core*'):
            trace = gdb(self.binary, [str(core)], 'thread apply all bt 40')
            core.unlink()
        (self.directory / 'backtrace').write_text(trace, encoding='utf-8')
        found = ASSERTION.search(said)
        sanitized = re.search(r'^(?:==\d+==)?ERROR: (.*?) on|'
                              r'runtime error: (.*)$', said, re.MULTILINE)
        if found:
            signature = f'{found[2]}: {found[3]}'
        elif sanitized:
            signature = sanitized[0]
        else:
            signature = f'{how} in {where(first_thread(trace))}'
        return Broken('died', signature,
                      f'{how}; the last lines: {said[-600:]}')

    def silent(self, what):
        """Who waits for whom; the process is still there."""
        trace = gdb(self.binary, ['-p', str(self.process.pid)],
                    'thread apply all bt 40')
        (self.directory / 'backtrace').write_text(trace, encoding='utf-8')
        return Broken('silent', f'{what}: main thread in '
                      f'{where(main_thread(trace))}')


def gdb(binary, arguments, command):
    """What gdb says of a process or a core."""
    try:
        return subprocess.run(
            ['gdb', '-batch', '-nx', '-ex', command, str(binary), *arguments],
            check=False, stdin=subprocess.DEVNULL, capture_output=True,
            encoding='utf-8', errors='replace', timeout=GDB_DEADLINE).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f'no gdb: {error}\n'


def threads(trace):
    """Number and backtrace of each thread."""
    parts = re.split(r'^Thread (\d+) ', trace, flags=re.MULTILINE)[1:]
    return {int(number): text
            for number, text in zip(parts[::2], parts[1::2])}


def first_thread(trace):
    """The one that ended a process: 1 in a core."""
    return threads(trace).get(1, trace)


def main_thread(trace):
    """The one with main()."""
    for text in threads(trace).values():
        if re.search(r'^#\d+ .*\bmain \(', text, re.MULTILINE):
            return text
    return trace


def where(trace):
    """Its innermost functions, but for those of libc."""
    names = [name for name in FRAME.findall(trace) if not NOISE.match(name)]
    return ' < '.join(names[:FRAMES]) or 'an unknown place'
