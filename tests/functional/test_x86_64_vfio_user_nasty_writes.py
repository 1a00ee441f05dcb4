#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU that writes numbers while its server dies, returns, or is silent.

In each turn the number of the turn is written to a register and, a byte of it,
to config space. nasty-guest/device.c keeps what reached a server, also one
that was killed. Nothing may come in another order, whatever happens. Where the
server that returns has kept its state nothing may be missing, either, and what
the one before had got and not answered may come once more. To a server that
begins anew the one write that was held is not repeated.
"""

import functools
from pathlib import Path
import shutil
import tempfile
import unittest

from qemu_test import QemuSystemTest

import test_x86_64_vfio_user_kvm as flat
from vfio_user_case import REPOSITORY
from vfio_user_nasty import (
    CACHE_LINE, FUNCTIONAL, SLOT, VFIOUserNastyTest, bar_address, ecam)
from vfio_user_server import Server

KILLS = 5
SHORT_MS = 200
REGISTER = 0x20
BAR0, CONFIG = 0, 7


@functools.lru_cache(maxsize=None)
def device_program():
    """The device, compiled once for all tests."""
    flat.programs()     # skips where there is no compiler for it
    directory = Path(tempfile.mkdtemp(prefix='vfio-user-writes-'))
    unittest.addModuleCleanup(shutil.rmtree, directory)
    device = directory / 'device'
    flat.compile_program('-g', '-O1', '-pthread', '-o', device,
                         f'-I{REPOSITORY}/include', f'-I{flat.SERVER}',
                         FUNCTIONAL / 'nasty-guest' / 'device.c',
                         *flat.server_sources(), *flat.glib_flags())
    return device


class VFIOUserWrites(VFIOUserNastyTest):
    """Under TCG."""

    def boot_writing(self, policy=None, state=True, **properties):
        """CPU 1 writes."""
        path, log = self._paths()
        self.writes = Path(self.scratch_file('writes'))
        argv = [str(device_program()), f'--socket-path={path}',
                f'--writes={self.writes}']
        if state:
            argv.append(f'--state={self.scratch_file("state")}')
        self.server = Server(argv, path, log)
        self.servers.append(self.server)
        self.server.start()
        if policy:
            properties = {**self.returning(policy), **properties}
        else:
            properties = {'id': 'dev', 'addr': SLOT, **properties}
        self.boot(*self.client(self.server, **properties))
        self.place()
        self.open_ecam()
        self.run_cpu(1, f'n:{bar_address(0) + REGISTER:x}:0',
                     f'y:{ecam(SLOT, CACHE_LINE):x}')
        self.wait_turns(1)

    def numbers(self):
        """What the servers got, in order: region and number of the turn.

        Of a number in config space the last byte is known. Each server begins
        with a pair of None.
        """
        self.halt(1)
        self.end()
        for line in self.writes.read_text(encoding='ascii').splitlines():
            if line == 'start':
                yield None, None
                continue
            region, offset, value = (int(word, 0) for word in line.split())
            if (region, offset) in ((BAR0, REGISTER), (CONFIG, CACHE_LINE)):
                yield region, value

    def check_order(self, wanted, repeats=0):
        """Nothing is missing: the register, config space, the register...

        A new server is first told what is in config space, and the access that
        was held may come to it, too.
        """
        turn, last, begins, again = 0, CONFIG, False, 0
        for place, (region, value) in enumerate(self.numbers()):
            what = (f'write {place}, {value} to region {region} after turn '
                    f'{turn} reached region {last}, while {self.doing}')
            if region is None:
                begins = True
                continue
            if begins and region == CONFIG and turn:
                self.assertIn(value, (turn & 0xff, turn - 1 & 0xff), what)
                if value == turn & 0xff:
                    last = CONFIG
                continue
            if begins and region == BAR0 and value == turn:
                again += 1
                last = BAR0
            elif region == BAR0:
                self.assertEqual((value, last), (turn + 1, CONFIG), what)
                turn, last = value, BAR0
            else:
                self.assertEqual((value, last), (turn & 0xff, BAR0), what)
                last = CONFIG
            begins = False
        self.assertLessEqual(again, repeats, 'writes that came twice while '
                             f'{self.doing}')
        self.assertGreaterEqual(turn, wanted, 'the last turn')

    def check_late(self, wanted, most_missing=None):
        """Some may be missing; none comes after one that is younger."""
        turn, missing, begins = 0, 0, False
        for place, (region, value) in enumerate(self.numbers()):
            what = (f'write {place}, {value} to region {region} after turn '
                    f'{turn}, while {self.doing}')
            if region is None:
                begins = True
            elif region == BAR0:
                self.assertGreater(value, turn, what)
                missing += value - turn - 1
                turn, begins = value, False
            elif not begins or value != turn - 1 & 0xff:
                self.assertLess(value - turn & 0xff, 0x80, what)
        if most_missing is not None:
            self.assertLessEqual(missing, most_missing,
                                 f'writes that are missing while {self.doing}')
        self.assertGreaterEqual(turn, wanted, 'the last turn')

    def check_kills(self, policy, kept):
        """Servers die and return."""
        self.boot_writing(policy, state=kept)
        self.doing = f'servers are killed, policy {policy}, kept {kept}'
        for _ in range(KILLS):
            self.kill_server(self.guest, self.server)
            if policy == 'stop':
                self.wait_event(self.guest, 'STOP')
            self.server = self.bring_back(self.guest, self.server, kept)
            if policy == 'stop':
                self.wait_event(self.guest, 'RESUME')
            self.wait_turns(1)
        turns = self.sample().cpus[1].turns
        if kept:
            self.check_order(turns, repeats=KILLS)
        else:
            self.check_late(turns, most_missing=KILLS)

    def test_hold_kept(self):
        """The server that returns knows all."""
        self.check_kills('hold', True)

    def test_hold_fresh(self):
        """It begins anew."""
        self.check_kills('hold', False)

    def test_stop_kept(self):
        """The VM stops meanwhile."""
        self.check_kills('stop', True)

    def test_stop_fresh(self):
        """The same, and the server begins anew."""
        self.check_kills('stop', False)

    def test_timeout(self):
        """A silent server: writes may be given up, and none comes late."""
        self.boot_writing(**{'x-msg-timeout-ms': SHORT_MS})
        self.doing = 'the server is silent from time to time'
        for _ in range(KILLS):
            self.stop_server(self.server)
            self.wait_turns(1, more=2)
            self.continue_server(self.server)
            self.wait_turns(1)
        self.check_late(self.sample().cpus[1].turns)


class VFIOUserWritesKVM(VFIOUserWrites):
    """Under KVM."""

    accel = 'kvm'


if __name__ == '__main__':
    QemuSystemTest.main()
