# SPDX-License-Identifier: GPL-2.0-or-later
"""Device servers as child processes of a test.

A server owns its process, its listening socket and its log file.  `start`
returns when the socket listens: that is read from /proc/net/unix and not
found out by connecting, because a server takes the first connection for its
client.  `stop` ends the process by its id and never raises, so that it can be
used for cleaning up; `crashed` then tells what a test wants to know.
"""

import json
import os
from pathlib import Path
import signal
import subprocess
import time

LISTENING = 0x10000
START_DEADLINE = 30
STOP_DEADLINE = 10
POLL_INTERVAL = 0.02


class ServerError(AssertionError):
    """The server did not do what every test takes for granted."""


def wait_until(condition, deadline, what):
    """Evaluate condition until it is true; fail after deadline seconds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise ServerError(f'{what}: not within {deadline} s')
        time.sleep(POLL_INTERVAL)


def listens(path, pid='self'):
    """Whether a process in the same network as pid listens on the path."""
    with open(f'/proc/{pid}/net/unix', encoding='utf-8') as table:
        for line in list(table)[1:]:
            field = line.split(maxsplit=7)
            if (len(field) == 8 and field[7].strip() == path
                    and int(field[3], 16) & LISTENING):
                return True
    return False


class Server:
    """A server process: argv is what to run, socket where it listens."""

    def __init__(self, argv, socket, log, env=None):
        self.argv = argv
        self.socket = socket
        self.log = log
        self.env = env or {}
        self.process = None
        self.stopped = False

    def launch(self):
        """Run the server, whatever becomes of it."""
        with open(self.log, 'wb') as log:
            # The write end of stdin stays open: a sample ends with its input.
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=log, stderr=log,
                env={**os.environ, **self.env})
        return self

    def start(self):
        """Run the server and return it once it listens."""
        return self.launch().wait_listening()

    def wait_listening(self):
        """Until a client can come."""
        wait_until(lambda: listens(self.socket) or not self.running(),
                   START_DEADLINE,
                   f'{self.argv[0]} listens on {self.socket}')
        if not self.running():
            raise ServerError(f'{self.argv[0]} ended with status '
                              f'{self.process.returncode} before it listened'
                              f'; its log is {self.log}')
        return self

    def running(self):
        """Whether the process is there."""
        return self.process.poll() is None

    def wait(self, deadline=STOP_DEADLINE):
        """The exit status, once the process has ended by itself."""
        wait_until(lambda: not self.running(), deadline,
                   f'{self.argv[0]} ends')
        return self.process.returncode

    def stop(self):
        """End the process, politely first."""
        if self.process is None:
            return
        if self.running():
            self.stopped = True
            self.process.terminate()
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdin.close()

    def kill(self):
        """SIGKILL: the end of a server that crashed, on purpose."""
        self.stopped = True
        self.process.kill()
        self.process.wait()

    def again(self, log, argv=None):
        """A new server for the same socket; other arguments are another."""
        Path(self.socket).unlink(missing_ok=True)
        return Server(argv or self.argv, self.socket, log, self.env)

    def crashed(self):
        """The signal that ended the process, if we did not send it."""
        status = self.process.returncode if self.process else None
        if status is None or status >= 0 or self.stopped:
            return None
        return signal.Signals(-status).name

    def log_text(self):
        """What the server has said so far."""
        return Path(self.log).read_text(encoding='utf-8', errors='replace')


def qemu_server(qemu, device, socket, log):
    """QEMU's own server for the device with id "dev" in the arguments."""
    export = {'qom-type': 'x-vfio-user-server', 'id': 'server',
              'device': 'dev', 'socket': {'type': 'unix', 'path': socket}}
    argv = [qemu, '-machine', 'x-remote,vfio-user=on', '-nodefaults',
            '-no-user-config', '-display', 'none', '-monitor', 'none',
            *device, '-object', json.dumps(export)]
    return Server(argv, socket, log)
