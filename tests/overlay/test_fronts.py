# SPDX-License-Identifier: GPL-2.0-or-later
"""configure, setup.sh and the closing line, as far as they say no."""

import json
import os
import shutil
import sys
import unittest

import tap
from tap import SCRIPTS, Scratch, TOP, run, write


class Configure(Scratch):
    def test_unknown_option(self):
        status, text = run(os.path.join(TOP, 'configure'), '--frobnicate')
        self.assertEqual(status, 1)
        self.assertRegex(text, r"^error: unknown option '--frobnicate'")
        self.assertEqual(len(text.splitlines()), 1)

    def test_help(self):
        status, text = run(os.path.join(TOP, 'configure'), '--help')
        self.assertEqual(status, 0)
        self.assertIn('--qemu-source=', text)

    def test_directory_that_qemu_cannot_be_built_in(self):
        place = os.path.join(self.dir, 'a checkout')
        os.makedirs(place)
        shutil.copy(os.path.join(TOP, 'configure'), place)
        status, text = run(os.path.join(place, 'configure'))
        self.assertEqual(status, 1)
        self.assertRegex(text, '^error: .*space')


class Setup(Scratch):
    def setUp(self):
        super().setUp()
        shutil.copytree(SCRIPTS, self.dir + '/scripts',
                        ignore=shutil.ignore_patterns('guest'))
        self.script = self.dir + '/scripts/setup.sh'

    @unittest.skipUnless(shutil.which('dpkg-query'), 'needs dpkg-query')
    def test_missing_package_is_named_with_the_command(self):
        write(self.dir + '/scripts/deps.conf',
              'build dpkg no-such-package-a\nrun no-such-package-b\n')
        status, text = run(self.script, 'check', 'build')
        self.assertEqual(status, 1)
        self.assertRegex(text, '^error: .*as root run: apt-get update && '
                         'apt-get install .* no-such-package-a$')
        self.assertNotIn('no-such-package-b', text)

    def test_nothing_missing_is_silent(self):
        write(self.dir + '/scripts/deps.conf', 'build dpkg\n')
        self.assertEqual(run(self.script, 'check', 'build'), (0, ''))

    def test_unknown_mode(self):
        status, text = run(self.script, 'frobnicate', 'build')
        self.assertEqual(status, 1)
        self.assertIn("unknown mode 'frobnicate'", text)


class Deb(Scratch):
    def test_other_suites_are_refused(self):
        status, text = run(os.path.join(SCRIPTS, 'deb.sh'), 'build', 'noble')
        self.assertEqual(status, 1)
        self.assertRegex(text, "^error: .*'noble'.*bookworm or trixie")


class Summary(Scratch):
    def summary(self, *entries):
        path = self.dir + '/testlog.json'
        write(path, ''.join(json.dumps(e) + '\n' for e in entries))
        return run(sys.executable, '-B', SCRIPTS + '/test-summary.py', path)

    def entry(self, name, result, stdout=''):
        return {'name': name, 'result': result, 'stdout': stdout}

    def test_counts_cases_of_tap_and_names_skips(self):
        status, text = self.summary(
            self.entry('a', 'OK', '1..3\nok 1 /x\nok 2 - y\n'
                       'ok 3 /z # SKIP no KVM\n'),
            self.entry('b', 'OK'))
        self.assertEqual(status, 0)
        self.assertIn('skipped: a /z: no KVM\n', text)
        self.assertTrue(text.endswith('3 passed, 0 failed, 1 skipped\n'))

    def test_failed_case_fails_the_run(self):
        status, text = self.summary(
            self.entry('a', 'FAIL', '1..2\nok 1 /x\nnot ok 2 /y\n'))
        self.assertEqual(status, 1)
        self.assertIn('failed: a /y\n', text)
        self.assertTrue(text.endswith('1 passed, 1 failed, 0 skipped\n'))

    def test_program_that_dies_after_good_cases_fails(self):
        status, text = self.summary(
            self.entry('a', 'ERROR', '1..2\nok 1 /x\n'))
        self.assertEqual(status, 1)
        self.assertTrue(text.endswith('1 passed, 1 failed, 0 skipped\n'))

    def test_timeout_fails(self):
        status, text = self.summary(self.entry('a', 'TIMEOUT'))
        self.assertEqual(status, 1)
        self.assertIn('failed: a: timeout\n', text)

    def test_end_of_a_failed_program_is_shown(self):
        lines = ''.join('# line %d\n' % i for i in range(1000))
        text = self.summary(self.entry('a', 'FAIL', lines + 'not ok 1 /x\n'),
                            self.entry('b', 'OK', 'nothing\nok 1 /y\n'))[1]
        self.assertIn('a stdout: # line 999\na stdout: not ok 1 /x\n', text)
        self.assertNotIn('line 0\n', text)
        self.assertNotIn('nothing', text)

    def test_skipped_program(self):
        status, text = self.summary(
            self.entry('a', 'SKIP', '1..0 # SKIP no guest\n'),
            self.entry('b', 'OK'))
        self.assertEqual(status, 0)
        self.assertIn('skipped: a: no guest\n', text)
        self.assertTrue(text.endswith('1 passed, 0 failed, 1 skipped\n'))

    def test_no_test_is_no_success(self):
        status, text = self.summary()
        self.assertEqual(status, 1)
        self.assertTrue(text.endswith('0 passed, 0 failed, 0 skipped\n'))


tap.main()
