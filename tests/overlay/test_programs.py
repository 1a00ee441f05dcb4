# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts and tests in Python call comes from a package of deps.conf.

A program that is only on the machine of whoever wrote a test is found here at
once; make check-fresh finds the rest, such as what these programs call.
"""

import ast
import os
import re
import unittest

import tap
from tap import TOP
from overlay import fetch

# Packages of each program; none: it is in every Debian, however small.
PACKAGES = {
    '/usr/bin/python3': ['python3'],
    'apt-cache': [],
    'apt-config': [],
    'apt-get': [],
    'cc': ['build-essential'],
    'diff': [],
    'dpkg': [],
    'dpkg-deb': [],
    'dpkg-query': [],
    'dpkg-source': ['dpkg-dev'],
    # The watchdog's, which does with /proc where there is none
    'gdb': [],
    'ldd': [],
    'lspci': ['pciutils'],
    'patch': ['patch'],
    'pkg-config': ['pkg-config'],
    'setpriv': [],
    'sh': [],
    'strip': ['build-essential'],
    'systemd-analyze': ['systemd'],
    'tar': [],
    'tshark': ['tshark'],
    'unshare': [],
    'virsh': ['libvirt-clients', 'libvirt-daemon-driver-qemu'],
    # A script around xmllint
    'virt-xml-validate': ['libvirt-clients', 'libxml2-utils'],
    'zstd': ['zstd'],
}
KINDS = ('build', 'run')
# Functions whose argument is a command
CALLS = ('run', 'Popen', 'call', 'check_call', 'check_output', 'join',
         'Server')
NAMES = ('cmd', 'command', 'argv')
PROGRAM = re.compile(r'/?[a-z][a-z0-9+./-]*$')


def sources():
    """Python files of scripts and tests, whatever they are called."""
    for top in ('scripts', 'tests'):
        for where, _, names in os.walk(os.path.join(TOP, top)):
            for path in (os.path.join(where, name) for name in names):
                with open(path, 'rb') as file:
                    script = re.match(rb'#!.*python', file.readline())
                if script or path.endswith('.py'):
                    yield os.path.relpath(path, TOP), tap.read(path)


def first_words(node):
    """The program of a list that is a command, also in "[...] + rest"."""
    if isinstance(node, ast.BinOp):
        node = node.left
        yield from first_words(node)
    elif isinstance(node, ast.List) and node.elts:
        word = node.elts[0]
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            yield word.value


def called_name(call):
    """run for both run() and subprocess.run()."""
    return getattr(call.func, 'attr', getattr(call.func, 'id', ''))


def programs(text):
    """Names of the programs that a source calls by name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.args:
            if called_name(node) in CALLS:
                yield from first_words(node.args[0])
            elif called_name(node) == 'which' and \
                    isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
        elif isinstance(node, ast.Return):
            yield from filter(PROGRAM.match, first_words(node.value))
        elif isinstance(node, ast.Assign) and \
                getattr(node.targets[0], 'id', '') in NAMES:
            yield from first_words(node.value)


class Programs(unittest.TestCase):
    def test_finder_finds_each_form(self):
        text = ("import shutil, subprocess\n"
                "subprocess.run(['one', '-x'], check=True)\n"
                "subprocess.Popen(['two'] + rest)\n"
                "shutil.which('three')\n"
                "def argv():\n    return ['four', *rest]\n"
                "cmd = ['five'] + rest\n"
                "subprocess.run([program, 'six'])\n"
                "seven = ['eight']\n")
        self.assertEqual(sorted(programs(text)),
                         ['five', 'four', 'one', 'three', 'two'])

    def test_each_comes_from_a_listed_package(self):
        kinds = fetch.read_list()
        listed = {word for kind in KINDS for words in kinds[kind]
                  for word in words}
        used = set()
        for name, text in sources():
            if os.path.basename(name) == os.path.basename(__file__):
                continue
            for program in programs(text):
                used.add(program)
                self.assertIn(program, PACKAGES, f'{name} calls {program}: '
                              'say here and in scripts/deps.conf which '
                              'package has it')
                missing = set(PACKAGES[program]) - listed
                self.assertFalse(missing, f'{name} calls {program}, and '
                                 f'scripts/deps.conf does not list {missing}')
        self.assertEqual(set(PACKAGES) - used, set(),
                         'nothing calls these any more')


tap.main()
