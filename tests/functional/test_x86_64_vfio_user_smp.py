#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Four vCPUs, two devices, and one server that is stopped."""

import errno
import os
from pathlib import Path
import re
import signal

from qemu_test import QemuSystemTest

from vfio_user_server import wait_until
from vfio_user_smp import DEADLINE, READERS_OF_A, SHARED, VFIOUserSMPTest

NEVER_MS = 600000
SHORT_MS = 500
REGION_READ = '9'


class VFIOUserSMP(VFIOUserSMPTest):
    """A's server gets SIGSTOP and SIGCONT."""

    def stop_server(self):
        """Stop A's server now, and let it go on when the test ends."""
        os.kill(self.server.process.pid, signal.SIGSTOP)
        self.addCleanup(self.continue_server)
        stat = Path(f'/proc/{self.server.process.pid}/stat')
        wait_until(lambda: stat.read_text(encoding='ascii')
                   .rsplit(')', 1)[1].split()[0] == 'T',
                   DEADLINE, 'the server stops')
        return self.sample()

    def continue_server(self):
        """SIGCONT, if it is still there."""
        if self.server.running():
            os.kill(self.server.process.pid, signal.SIGCONT)

    def check_failed(self, sample, given_up):
        """Each read that failed for the guest did so for want of time.

        given_up says, for that many reads, how many of them may have been
        sent before they were given up.
        """
        text = Path(self.trace).read_text(encoding='utf8')
        self.assertNotIn('vfio_user_conn_failed', text)
        reasons = re.findall(r'^vfio_user_device_access_failed .*: (\w+) '
                             r'of region (\d+) .* failed: (\d+)$', text,
                             re.MULTILINE)
        ones = sum(count.ones for count in sample.cpus.values())
        self.assertEqual(reasons, [('read', '0', str(errno.ETIMEDOUT))] * ones)
        commands = re.findall(r'^vfio_user_conn_give_up .* command (\d+) ',
                              text, re.MULTILINE)
        self.assertLessEqual(set(commands), {REGION_READ})
        self.assertIn(len(commands), given_up(ones))

    def check_stall(self, *args, config=False, **kwargs):
        """Stop, see the others go on, continue: no read was lost."""
        self.boot(*args, **kwargs, **{'x-msg-timeout-ms': NEVER_MS})
        if config:
            self.read_config_only()
        for _ in range(3):
            stopped = self.stop_server()
            later = self.wait_others(stopped)
            for cpu in READERS_OF_A:
                # One answer may have been on its way.
                self.assertLessEqual(later.cpus[cpu].good,
                                     stopped.cpus[cpu].good + 1)
            self.continue_server()
            end = self.wait_readers(later)
        for cpu in READERS_OF_A:
            self.assertEqual(end.cpus[cpu].ones, 0,
                             f'a read of CPU {cpu} failed')
        self.check_failed(end, given_up=lambda ones: [0])

    def check_timeout(self, *args, given_up, **kwargs):
        """Reads fail while the server is stopped, and then no more."""
        self.boot(*args, **kwargs, **{'x-msg-timeout-ms': SHORT_MS})
        stopped = self.stop_server()
        later = self.wait_sample(
            lambda now: all(now.cpus[cpu].ones - stopped.cpus[cpu].ones > 1
                            for cpu in READERS_OF_A),
            'reads of the stopped device fail, one after the other')
        for cpu in READERS_OF_A:
            self.assertLessEqual(later.cpus[cpu].good,
                                 stopped.cpus[cpu].good + 1)
        self.continue_server()
        self.check_failed(self.wait_readers(later), given_up)

    def test_stall(self):
        """Shared RAM: the reads of the stopped server wait, nobody else."""
        self.check_stall(*SHARED)

    def test_stall_config(self):
        """Config space, which all devices of a machine have one guard for."""
        self.check_stall(*SHARED, config=True)

    def test_stall_private(self):
        """Private RAM: a server in the middle of its DMA, twin socket."""
        self.check_stall()

    def test_stall_private_one_socket(self):
        """Nothing may cross the server's command; one vCPU at a time."""
        self.check_stall(server_args=['--one-socket'])

    def test_stall_iothread(self):
        """With a thread of the user's for A, and a long spin before waits."""
        self.check_stall('-object', 'iothread,id=io', iothread='io',
                         **{'x-poll-max-us': 1000})

    def test_timeout(self):
        """Each request that was given up is one failed read, no other."""
        self.check_timeout(*SHARED, given_up=lambda ones: [ones])

    def test_timeout_private(self):
        """The same while the server fetches by message."""
        self.check_timeout(given_up=lambda ones: [ones])

    def test_timeout_private_one_socket(self):
        """A late answer comes first, then the next request may be sent.

        So a read that waited for its turn failed without having been sent.
        """
        self.check_timeout(server_args=['--one-socket'],
                           given_up=lambda ones: range(1, ones))


class VFIOUserSMPKVM(VFIOUserSMP):
    """Under KVM."""

    accel = 'kvm'


if __name__ == '__main__':
    QemuSystemTest.main()
