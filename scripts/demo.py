#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest uses an NVMe controller that another process implements.

    scripts/demo.py [--shell]

Two processes are started: QEMU's vfio-user server with an NVMe controller on
an image file, and QEMU with a guest and `-device vfio-user-pci`.  Everything
that is then told has been looked up where it happened: in the trace of the
client, in the guest, and in the image file.  With --shell the guest's console
is left to the person at the terminal instead.

Both processes end with this one, whichever way it ends.  Image and logs stay
in build/demo.
"""

import argparse
import hashlib
import os
from pathlib import Path
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / 'tests' / 'functional'))

# pylint: disable=wrong-import-position
from vfio_user_channel import Guest, MACHINES, guest_arguments  # noqa: E402
from vfio_user_server import qemu_server  # noqa: E402

QEMU = TOP / 'build' / 'qemu' / 'qemu-system-x86_64'
GUEST = TOP / 'build' / 'guest'
OUTPUT = TOP / 'build' / 'demo'
ADDRESS = '0000:00:05.0'
DISK = '/dev/nvme0n1'
MEMORY = '512M'
MIB = 1 << 20
IMAGE_SIZE = 64 * MIB
DATA_MIB = 16
NOTE_OFFSET = 32 * MIB
END_DEADLINE = 10
BAR_NAMES = [f'BAR {index}' for index in range(6)] + ['ROM', 'config space']
IRQ_NAMES = ['INTx', 'MSI', 'MSI-X']
IRQ_KINDS = dict(zip(('intx', 'msi', 'msix'), IRQ_NAMES))


class DemoError(Exception):
    """A sentence for the person at the terminal."""


def fail(message):
    """Give up; also what the guest's channel calls."""
    raise DemoError(message)


def tell(who, text):
    """A paragraph of the story."""
    first, *rest = text.split('\n')
    print(f'\n{who:8} {first}')
    for line in rest:
        print(f'{"":8} {line}')
    sys.stdout.flush()


def plural(number, what):
    """A number with its noun."""
    return f'{number} {what}{"" if number == 1 else "s"}'


def size_text(size):
    """Bytes the way people say them."""
    for unit, name in ((MIB, 'MiB'), (1024, 'KiB')):
        if size >= unit and size % unit == 0:
            return f'{size // unit} {name}'
    return f'{size} bytes'


class Demo:
    """Both processes, their files, and what the client's trace says."""

    def __init__(self):
        shutil.rmtree(OUTPUT, ignore_errors=True)
        OUTPUT.mkdir(parents=True)
        self.image = OUTPUT / 'nvme.img'
        self.trace = OUTPUT / 'client-trace.log'
        self.logs = [OUTPUT / name for name in
                     ('server.log', 'client.log', 'console.log')] + [
                         self.trace]
        self.sockets = Path(tempfile.mkdtemp(prefix='vfio-user-demo-'))
        self.server = None
        self.client = None
        self.channel = None

    def start_server(self):
        """QEMU's server: an NVMe controller and its image."""
        with open(self.image, 'wb') as file:
            file.truncate(IMAGE_SIZE)
        device = ['-drive',
                  f'if=none,id=drive,format=raw,file={self.image}',
                  '-device', 'nvme,id=dev,serial=demo,drive=drive']
        self.server = qemu_server(str(QEMU), device,
                                  str(self.sockets / 'nvme.sock'),
                                  str(self.logs[0]))
        self.server.start()

    def client_arguments(self, append=''):
        """QEMU with the guest."""
        return [str(QEMU), '-machine', f'{MACHINES["q35"]},memory-backend=mem',
                '-accel', os.getenv('VFIO_USER_TEST_ACCEL', 'tcg'),
                '-display', 'none', '-no-reboot',
                *guest_arguments(MEMORY, GUEST / 'vmlinux', GUEST / 'initrd',
                                 append),
                '-device',
                f'vfio-user-pci,socket={self.server.socket},addr=5',
                '-trace', 'vfio_user_*', '-D', str(self.trace)]

    def start_client(self):
        """Boot the guest; returns the channel to it."""
        self.channel, theirs = socket.socketpair()
        with open(self.logs[1], 'wb') as log:
            self.client = subprocess.Popen(
                [*self.client_arguments(), '-monitor', 'none',
                 '-chardev', f'file,id=console,path={self.logs[2]}',
                 '-serial', 'chardev:console',
                 '-chardev', f'socket,id=agent,fd={theirs.fileno()}',
                 '-serial', 'chardev:agent'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[theirs.fileno()])
        theirs.close()
        guest = Guest(self.client, self.channel, fail)
        guest.wait_boot()
        return guest

    def run_shell(self):
        """The guest on this terminal, until the person leaves."""
        self.client = subprocess.Popen(
            [*self.client_arguments('quiet guest.shell'),
             '-serial', 'mon:stdio', '-serial', 'null'])
        return self.client.wait()

    def close(self):
        """End both processes and remove the sockets."""
        if self.client and self.client.poll() is None:
            self.client.terminate()
            try:
                self.client.wait(END_DEADLINE)
            except subprocess.TimeoutExpired:
                self.client.kill()
                self.client.wait()
        if self.channel:
            self.channel.close()
        if self.server:
            self.server.stop()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def trace_matches(self, event, pattern):
        """Groups of a pattern in the client's trace lines of an event."""
        text = self.trace.read_text(encoding='utf-8', errors='replace')
        return re.findall(rf'^{event} .*?{pattern}', text, re.MULTILINE)

    def shared_memory(self):
        """Bytes in the DMA windows with a file descriptor that are left."""
        windows = {}
        for change, iova, size, fd in self.trace_matches(
                'vfio_user_container_(map|unmap)',
                r': (0x\w+) size (0x\w+)(?: fd (-?\d+))?'):
            windows.pop(iova, None)
            if change == 'map' and int(fd) >= 0:
                windows[iova] = int(size, 16)
        return sum(windows.values())

    def traced(self, event):
        """How often an event was traced."""
        return len(self.trace_matches(event, ''))


def connection_story(demo):
    """What client and server agreed on and what the device consists of."""
    version = demo.trace_matches(
        'vfio_user_device_version',
        r'version ([\d.]+) max_msg_fds (\d+) max_data_xfer_size (\d+)')
    if not version:
        fail('the client\'s trace has no negotiated version')
    number, fds, data = version[0]
    lines = [f'runs the guest, with vfio-user-pci on that socket '
             f'(pid {demo.client.pid})',
             f'agreed: version {number}, up to {plural(int(fds), "fd")} and '
             f'{size_text(int(data))} of data in a message']
    parts = [f'{BAR_NAMES[int(index)]} {size_text(int(size, 16))}'
             for index, size in demo.trace_matches(
                 'vfio_user_device_region', r'region (\d+) .*?size (0x\w+)')
             if int(index) < len(BAR_NAMES) and int(size, 16)]
    parts += [f'{IRQ_NAMES[int(index)]} ({plural(int(count), "vector")})'
              for index, count in demo.trace_matches(
                  'vfio_user_device_irq', r'index (\d+) .*?count (\d+)')
              if int(index) < len(IRQ_NAMES) and int(count)]
    lines.append('device: ' + ', '.join(dict.fromkeys(parts)))
    lines.append(f'guest RAM: {size_text(demo.shared_memory())} handed to the '
                 'server as a file descriptor')
    tell('client', '\n'.join(lines))


def device_line(guest):
    """The device as lspci names it, from what the guest sees."""
    line = next((line for line in guest.run('lspci').splitlines()
                 if line.startswith(ADDRESS[5:])), None)
    if line is None:
        fail(f'the guest sees no device at {ADDRESS}')
    config = guest.config(ADDRESS)[:64]
    dump = f'{ADDRESS[5:]} device\n' + ''.join(
        f'{at:02x}: {config[at:at + 16].hex(" ")}\n'
        for at in range(0, len(config), 16))
    lspci = shutil.which('lspci', path='/usr/bin:/sbin:/usr/sbin')
    if lspci:
        with tempfile.NamedTemporaryFile('w') as file:
            file.write(dump)
            file.flush()
            named = subprocess.run([lspci, '-F', file.name], check=False,
                                   text=True, capture_output=True)
        if named.returncode == 0 and named.stdout:
            driver = line.split()[-1]
            return f'{named.stdout.splitlines()[0]} (driver: {driver})'
    return line


def guest_story(guest, seconds):
    """What the guest makes of the device."""
    guest.run(f'wait_disk {DISK}')
    name = DISK.rsplit('/', 1)[-1]
    model = guest.run('cat /sys/class/nvme/nvme0/model').strip()
    serial = guest.run('cat /sys/class/nvme/nvme0/serial').strip()
    size = 512 * int(guest.run(f'cat /sys/class/block/{name}/size'))
    tell('guest', f'Linux {guest.run("uname -r")} is up after {seconds:.1f} s '
         f'and sees\n{device_line(guest)}\n'
         f'{name}: {size_text(size)}, "{model}", serial "{serial}"')


def data_story(demo, guest):
    """Data goes in at one end and is found at the other."""
    note = f'written by the guest on {time.strftime("%A at %H:%M:%S")}'
    before = int(guest.run(f'irq_count {ADDRESS}'))
    posts = demo.traced('vfio_user_conn_post')
    begin = time.monotonic()
    written = guest.run(f'disk_write {DISK} {DATA_MIB}')
    guest.run(f'printf "%s\\n" "{note}" | dd of={DISK} bs=1M '
              f'seek={NOTE_OFFSET // MIB} conv=fsync 2>/dev/null')
    read = guest.run(f'disk_read {DISK} {DATA_MIB}')
    seconds = time.monotonic() - begin
    interrupts = int(guest.run(f'irq_count {ADDRESS}')) - before
    posts = demo.traced('vfio_user_conn_post') - posts
    with open(demo.image, 'rb') as file:
        stored = hashlib.sha256(file.read(DATA_MIB * MIB)).hexdigest()
        file.seek(NOTE_OFFSET)
        found = file.readline(200).decode(errors='replace').rstrip('\n')

    tell('guest', f'wrote {DATA_MIB} MiB of random data, sha256 '
         f'{written[:16]}..., and the line\n"{note}"')
    if stored != written or found != note:
        fail(f'the image {demo.image} does not hold what the guest wrote')
    tell('server', f'its image file {demo.image.relative_to(TOP)} holds them: '
         f'sha256 {stored[:16]}...,\n"{found}"')
    if read != written:
        fail('the guest read back other data than it wrote')
    if interrupts <= 0:
        fail('the guest counted no interrupt of the device')
    messages = demo.traced('vfio_user_conn_command')
    kind = IRQ_KINDS[guest.run(f'irq_kind {ADDRESS}')]
    tell('guest', f'dropped its caches and read the same data back; '
         f'{seconds:.1f} s for all of it\n'
         f'it took {plural(posts, "register write")} over the socket, '
         f'{plural(interrupts, kind + " interrupt")} through eventfds,\n'
         f'and {plural(messages, "DMA message")}: the server works in the '
         'guest\'s RAM itself')
    lines = guest.run('grep -i nvme /proc/interrupts').splitlines()
    tell('guest', '/proc/interrupts:\n' + '\n'.join(
        ' '.join(line.split()) for line in lines))


def check_built():
    """The demo builds nothing itself."""
    for path, command in ((QEMU, 'make'), (GUEST / 'vmlinux', 'make guest'),
                          (GUEST / 'initrd', 'make guest')):
        if not path.exists():
            fail(f'{path} is missing; run "make demo", or "{command}" first')


def run(demo, shell):
    """The whole story."""
    begin = time.monotonic()
    print('vfio-user: a Linux guest uses an NVMe controller that another '
          'process implements')
    demo.start_server()
    tell('server', f'QEMU with an NVMe controller and no guest '
         f'(pid {demo.server.process.pid}),\n'
         f'listens on {demo.server.socket}')
    if shell:
        tell('client', 'boots the guest on this terminal; leave with '
             'Ctrl-A X')
        status = demo.run_shell()
        if status:
            fail(f'the client ended with status {status}')
        return
    guest = demo.start_client()
    seconds = time.monotonic() - begin
    connection_story(demo)
    guest_story(guest, seconds)
    data_story(demo, guest)
    print(f'\nDone in {time.monotonic() - begin:.1f} s. Logs and image: '
          f'{OUTPUT.relative_to(TOP)}/. '
          'Try also: make demo ARGS=--shell')


SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def on_signal(number, _):
    """Leave by the way that cleans up, which nothing may interrupt."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise DemoError(f'stopped by {signal.Signals(number).name}')


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--shell', action='store_true',
                        help='leave the guest\'s console to you')
    args = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, on_signal)
    terminal = (termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None)
    demo = None
    try:
        check_built()
        demo = Demo()
        run(demo, args.shell)
    except (DemoError, AssertionError, OSError) as exc:
        logs = [path for path in (demo.logs if demo else [])
                if path.exists()]
        sys.exit(f'\ndemo: {exc}' + (
            '\nLogs: ' + '\n      '.join(map(str, logs)) if logs else ''))
    finally:
        if demo:
            demo.close()
        if terminal:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, terminal)


if __name__ == '__main__':
    main()
