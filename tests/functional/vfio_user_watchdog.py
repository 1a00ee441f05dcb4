# SPDX-License-Identifier: GPL-2.0-or-later
"""An end for a test in which something hangs.

Most waits of the tests have deadlines of their own, which say what was waited
for.  This one is for the others, above all a monitor command that QEMU never
answers: it writes down where everybody is (the stacks of all threads of each
QEMU, as far as gdb or /proc tell), ends those QEMUs, and fails the test.
Without it the whole program would run into meson's time limit, which leaves
nothing behind.
"""

import os
import signal
import subprocess

DEADLINE = 900
AGAIN = 60              # if cleaning up hangs, too
GDB_DEADLINE = 60


def read(path):
    """What /proc says, or why it does not."""
    try:
        with open(path, encoding='ascii', errors='replace') as file:
            return file.read().strip()
    except OSError as error:
        return error.strerror


def kernel_stacks(pid):
    """Name, system call and place in the kernel of each thread."""
    lines = []
    for thread in sorted(os.listdir(f'/proc/{pid}/task'), key=int):
        base = f'/proc/{pid}/task/{thread}'
        lines.append(f'thread {thread} {read(base + "/comm")}: system call '
                     f'{read(base + "/syscall")}, in {read(base + "/wchan")}')
    return '\n'.join(lines)


def stacks(pid):
    """Where the threads of a process are."""
    try:
        done = subprocess.run(
            ['gdb', '-batch', '-nx', '-p', str(pid), '-ex',
             'thread apply all backtrace 40'], check=False,
            stdin=subprocess.DEVNULL, capture_output=True,
            encoding='utf-8', errors='replace', timeout=GDB_DEADLINE)
        if done.returncode == 0:
            return done.stdout
        reason = done.stderr[-200:]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    return f'no gdb: {reason}\n{kernel_stacks(pid)}'


class Watchdog:
    """Ends a test: find() gives name and pid of what it started."""

    def __init__(self, test, find, log):
        self.test = test
        self.find = find
        self.log = log

    def start(self):
        """From now on; the end of the test stops it."""
        before = signal.signal(signal.SIGALRM, self.bite)
        self.test.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, DEADLINE, AGAIN)
        self.test.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)

    def bite(self, _number, _frame):
        """In the main thread, wherever that waits."""
        with open(self.log, 'a', encoding='utf-8') as file:
            for name, pid in self.find():
                file.write(f'{name}, process {pid}:\n{stacks(pid)}\n')
                os.kill(pid, signal.SIGKILL)
        with open(self.log, encoding='utf-8') as file:
            self.test.fail_with_logs(f'the test hangs: not within {DEADLINE} '
                                     f's; stacks: {file.read()}')
