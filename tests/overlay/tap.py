# SPDX-License-Identifier: GPL-2.0-or-later
"""unittest that speaks TAP, and a made-up repository with a made-up QEMU."""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
SCRIPTS = os.path.join(TOP, 'scripts')
DEADLINE = 100
sys.path.insert(0, SCRIPTS)


class Result(unittest.TestResult):
    def report(self, test, word, note=''):
        name = test.id().replace('__main__.', '')
        print('%s %d %s%s' % (word, self.testsRun, name, note), flush=True)

    def addSuccess(self, test):
        self.report(test, 'ok')

    def addSkip(self, test, reason):
        self.report(test, 'ok', ' # SKIP ' + reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        text = ''.join(traceback.format_exception(*err))
        print('# ' + text.rstrip().replace('\n', '\n# '))
        self.report(test, 'not ok')

    addError = addFailure


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(
        sys.modules['__main__'])
    print('1..%d' % suite.countTestCases())
    result = suite.run(Result())
    sys.exit(0 if result.wasSuccessful() else 1)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)


def read(path):
    with open(path, encoding='utf-8') as f:
        return f.read()


def numbered(first, last):
    return ''.join('line %d\n' % n for n in range(first, last + 1))


def snapshot(tree):
    """{path: (link target or content, time)} of all below a tree."""
    found = {}
    for where, _, files in os.walk(tree):
        for name in files:
            path = os.path.join(where, name)
            text = os.readlink(path) if os.path.islink(path) else read(path)
            found[os.path.relpath(path, tree)] = (
                text, os.lstat(path).st_mtime_ns)
    return found


def run(*cmd, **env):
    """(exit status, all output).

    A command that leaves a process behind, which has the same output, does
    not return in time."""
    r = subprocess.run(cmd, text=True, check=False, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                       env=dict(os.environ, **env), timeout=DEADLINE)
    return r.returncode, r.stdout


class Scratch(unittest.TestCase):
    """Has self.dir, a directory."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='overlay-test-')
        self.addCleanup(shutil.rmtree, self.dir)

    def program(self, path, text):
        """A made-up program, a shell script."""
        write(path, '#!/bin/sh\n' + text)
        os.chmod(path, 0o755)

    def path_with(self, **programs):
        """PATH with made-up programs before the real ones."""
        for name, text in programs.items():
            self.program('%s/bin/%s' % (self.dir, name), text)
        return self.dir + '/bin:' + os.environ['PATH']


class RepositoryTest(Scratch):
    """Has self.repo, a repository, and self.qemu, a QEMU tree of 10.0.7."""

    def setUp(self):
        super().setUp()
        self.repo = os.path.join(self.dir, 'repo')
        self.tree = os.path.join(self.repo, 'subprojects', 'qemu-10.0')
        self.patches = os.path.join(self.repo, 'subprojects', 'packagefiles',
                                    'qemu-10.0')
        write(self.repo + '/hw/vfio-user/pci.c', 'ours\n')
        self.qemu = self.make_qemu('qemu', '10.0.7')

    def make_qemu(self, name, version):
        tree = os.path.join(self.dir, name)
        write(tree + '/VERSION', version + '\n')
        for sub in ('keycodemapdb', 'libvfio-user', 'berkeley-softfloat-3'):
            write('%s/subprojects/%s/meson.build' % (tree, sub), '\n')
        for one in ('one.c', 'two.c', 'three.c'):
            write('%s/hw/vfio/%s' % (tree, one), numbered(1, 30))
        return tree

    def add_patch(self, name, file, line, text, context='line'):
        """A patch that replaces one numbered line."""
        def around(first, last):
            return ''.join(' %s %d\n' % (context, n)
                           for n in range(first, last + 1))
        write('%s/%s' % (self.patches, name),
              'Subject: hook\n\n--- a/%s\n+++ b/%s\n@@ -%d,7 +%d,7 @@\n%s'
              '-line %d\n+%s\n%s'
              % (file, file, line - 3, line - 3, around(line - 3, line - 1),
                 line, text, around(line + 1, line + 3)))

    def set_series(self, *names):
        write(self.patches + '/series', '# order\n' + '\n'.join(names) + '\n')

    def stage(self, *args):
        """Run the stage step; (exit status, stdout and stderr)."""
        r = subprocess.run([sys.executable, '-B', '-m', 'overlay.stage',
                            '--root', self.repo] + list(args), cwd=SCRIPTS,
                           text=True, check=False, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        return r.returncode, r.stdout

    def stage_ok(self, *args):
        status, text = self.stage(*(args or ('--source', self.qemu)))
        self.assertEqual(status, 0, text)
        return text

    def assert_refused(self, pattern, *args):
        """The step fails with one sentence, and it says this."""
        status, text = self.stage(*(args or ('--source', self.qemu)))
        self.assertEqual(status, 1, text)
        errors = [l for l in text.splitlines() if l.startswith('error: ')]
        self.assertEqual(len(errors), 1, text)
        self.assertRegex(errors[0], pattern)
        self.assertNotIn('Traceback', text)

    def staged(self, name):
        return read(os.path.join(self.tree, name))

    def subprojects(self):
        top = os.path.join(self.repo, 'subprojects')
        return sorted(os.listdir(top)) if os.path.isdir(top) else []
