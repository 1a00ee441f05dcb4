# SPDX-License-Identifier: GPL-2.0-or-later
"""make install: beside a distribution's QEMU, wherever it is put."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import tap
from tap import SCRIPTS, read, write

# Stands in for meson in a build of QEMU that was configured with a prefix.
MESON = '''\
#!/bin/sh
case $1 in
introspect)
    cat "$(dirname "$0")/options.json" ;;
install)
    for f in bin/qemu-system-x86_64 bin/qemu-img libexec/qemu-bridge-helper \\
        share/qemu/keymaps/de share/applications/qemu.desktop; do
        mkdir -p "$(dirname "$DESTDIR/@PREFIX@/$f")"
        echo "$f" > "$DESTDIR/@PREFIX@/$f"
    done ;;
esac
'''

# Stands in for Sphinx: the last argument is where the page goes.
SPHINX = '''\
#!/bin/sh
for last; do :; done
mkdir -p "$last"
echo .TH > "$last/qemu-vfio-user.7"
'''


class Install(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='overlay-test-')
        self.addCleanup(shutil.rmtree, self.dir)
        self.dest = self.dir + '/dest'
        self.sphinx = self.dir + '/sphinx-build'
        self.program(self.sphinx, SPHINX)
        self.configured('/opt/q')

    def program(self, path, text):
        write(path, text)
        os.chmod(path, 0o755)

    def configured(self, prefix):
        where = self.dir + '/build/pyvenv/bin'
        self.program(where + '/meson', MESON.replace('@PREFIX@', prefix))
        write(where + '/options.json', json.dumps([
            {'name': 'prefix', 'value': prefix},
            {'name': 'qemu_firmwarepath',
             'value': '/usr/share/qemu:/usr/share/seabios'}]))

    def install(self, prefix=''):
        r = subprocess.run(
            [SCRIPTS + '/install.sh', self.dir + '/build', self.dest, prefix],
            text=True, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, SPHINX_BUILD=self.sphinx))
        return r.returncode, r.stdout

    def install_ok(self, prefix=''):
        status, text = self.install(prefix)
        self.assertEqual(status, 0, text)
        return text

    def names(self, prefix):
        found = set()
        for where, _, files in os.walk(self.dest):
            found |= {os.path.relpath(os.path.join(where, f),
                                      self.dest + prefix) for f in files}
        return found

    def test_no_name_is_qemus(self):
        self.install_ok('/usr')
        own = {n for n in self.names('/usr') if 'vfio-user' not in n}
        self.assertEqual(own, set())

    def test_program_is_found_and_finds_its_data(self):
        self.install_ok('/usr')
        link = self.dest + '/usr/bin/qemu-system-x86_64-vfio-user'
        program = os.path.realpath(link)
        self.assertEqual(read(program), 'bin/qemu-system-x86_64\n')
        # QEMU looks relative to its program, as it was configured.
        data = os.path.dirname(program) + '/../share/qemu/keymaps/de'
        self.assertEqual(read(data), 'share/qemu/keymaps/de\n')

    def test_what_is_not_run_with_it_stays_out(self):
        self.install_ok('/usr')
        self.assertFalse([n for n in self.names('/usr') if 'desktop' in n])

    def test_without_prefix_it_is_the_configured_one(self):
        self.install_ok()
        self.assertIn('bin/qemu-system-x86_64-vfio-user',
                      self.names('/opt/q'))

    def test_pages_and_dissector(self):
        self.install_ok('/usr')
        names = self.names('/usr')
        for name in ('share/man/man7/qemu-vfio-user.7',
                     'share/man/man1/qemu-system-x86_64-vfio-user.1',
                     'share/doc/qemu-vfio-user/README.md',
                     'share/doc/qemu-vfio-user/system.rst'):
            self.assertIn(name, names)
        self.assertTrue([n for n in names if n.endswith(
            'wireshark/plugins/vfio-user.lua')], names)

    def test_without_sphinx_all_but_the_manual_page(self):
        self.sphinx = self.dir + '/none'
        self.assertIn('no manual page', self.install_ok('/usr'))
        names = self.names('/usr')
        self.assertIn('bin/qemu-system-x86_64-vfio-user', names)
        self.assertFalse([n for n in names if '/man/' in n])

    def test_again_leaves_nothing_old(self):
        self.install_ok('/usr')
        write(self.dest + '/usr/lib/qemu-vfio-user/bin/old', 'x')
        self.install_ok('/usr')
        self.assertNotIn('lib/qemu-vfio-user/bin/old', self.names('/usr'))

    def test_configured_for_its_own_directory(self):
        self.configured('/usr/lib/qemu-vfio-user')
        self.install_ok()
        self.assertEqual(
            os.path.realpath(self.dest +
                             '/usr/bin/qemu-system-x86_64-vfio-user'),
            self.dest + '/usr/lib/qemu-vfio-user/bin/qemu-system-x86_64')

    def test_relative_prefix_is_refused(self):
        status, text = self.install('here')
        self.assertEqual(status, 1)
        self.assertIn('PREFIX=here is no absolute path', text)

    def test_prefix_with_the_firmware_in_it_is_refused(self):
        self.configured('/usr')
        status, text = self.install()
        self.assertEqual(status, 1)
        self.assertRegex(text, 'configured with --prefix=/usr, .*PREFIX=/usr')
        self.assertFalse(os.path.exists(self.dest))


tap.main()
