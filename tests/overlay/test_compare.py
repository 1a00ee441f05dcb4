# SPDX-License-Identifier: GPL-2.0-or-later
"""What compares QEMU with the overlay to QEMU without."""

import json
import os
import subprocess
import sys

import tap
from tap import SCRIPTS, write
from overlay import pristine
from overlay.stage import load_state


class Compare(tap.RepositoryTest):
    def log(self, name, *programs):
        """A test log of meson's: (name, result, TAP) each."""
        path = os.path.join(self.dir, name)
        write(path, ''.join(json.dumps(
            {'name': 'qemu:unit / ' + n, 'result': r, 'stdout': t}) + '\n'
            for n, r, t in programs))
        return path

    def compare(self, *args):
        r = subprocess.run([sys.executable, '-B',
                            os.path.join(SCRIPTS, 'compare-tests.py'), *args],
                           check=False, text=True, stdout=subprocess.PIPE)
        return r.returncode, r.stdout

    def test_same_failure_is_no_difference(self):
        a = self.log('a', ('x', 'FAIL', 'not ok 1 /x/y\n'))
        status, said = self.compare(a, a)
        self.assertEqual(status, 0)
        self.assertIn('differing: x, x /x/y\ndifferences: none', said)

    def test_case_that_fails_now(self):
        a = self.log('a', ('x', 'OK', 'ok 1 /x/y\nok 2 /x/z\n'))
        b = self.log('b', ('x', 'OK', 'ok 1 /x/y\nnot ok 2 /x/z\n'))
        status, said = self.compare(a, b)
        self.assertEqual(status, 1)
        self.assertIn('x /x/z: without the overlay ok, with it not ok', said)
        self.assertEqual(self.compare('--differing', a, b), (0, 'x\n'))
        self.assertEqual(self.compare(a, b, a, a)[0], 0)

    def test_case_and_program_that_are_gone(self):
        a = self.log('a', ('x', 'OK', 'ok 1 /x/y\n'), ('w', 'OK', ''))
        b = self.log('b', ('x', 'OK', ''))
        self.assertIn('differences: 2', self.compare(a, b)[1])

    def test_own_are_left_out(self):
        a = self.log('a', ('x', 'OK', 'ok 1 /x/y\n'))
        b = self.log('b', ('x', 'OK', 'ok 1 /x/y\nok 2 /x/query-vfio-user\n'),
                     ('test-vfio-user-conn', 'FAIL', ''))
        status, said = self.compare(a, b)
        self.assertEqual(status, 0)
        self.assertIn('own: test-vfio-user-conn, x /x/query-vfio-user', said)

    def test_nothing_compared_is_a_failure(self):
        a = self.log('a')
        self.assertEqual(self.compare(a, a)[0], 1)

    def test_tree_without_the_overlay(self):
        self.add_patch('1.patch', 'hw/vfio/one.c', 10, 'hooked')
        self.set_series('1.patch')
        self.stage_ok()
        self.assertIn('hooked', self.staged('hw/vfio/one.c'))
        into = os.path.join(self.dir, 'pristine')
        pristine.undress(self.tree, into, load_state(self.tree))
        r = subprocess.run(['diff', '-r', '--no-dereference', self.qemu,
                            into], check=False, text=True,
                           stdout=subprocess.PIPE)
        self.assertEqual(r.stdout, '')


tap.main()
