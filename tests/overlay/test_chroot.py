# SPDX-License-Identifier: GPL-2.0-or-later
"""Small Debian systems in directories; here they are a busybox."""

import os
import shutil
import subprocess
import tempfile
import unittest

import tap
from tap import DEADLINE, SCRIPTS, Scratch, read, run, write
from overlay import apt

BUSYBOX = next((path for path in ('/bin/busybox', '/usr/bin/busybox')
                if os.path.exists(path)), None)
CHROOT = os.path.join(SCRIPTS, 'chroot.sh')


def make_system(test, name):
    """A directory with a busybox."""
    if os.geteuid():
        test.skipTest('only root can mount')
    if not BUSYBOX:
        test.skipTest('no busybox: install busybox-static')
    root = os.path.join(test.dir, name)
    for sub in ('bin', 'usr/bin', 'usr/sbin', 'etc/apt/apt.conf.d', 'proc',
                'sys', 'dev', 'mnt', 'tmp', 'root'):
        os.makedirs(os.path.join(root, sub))
    shutil.copy(BUSYBOX, root + '/bin/busybox')
    for applet in ('sh', 'cat', 'chroot', 'ls', 'sleep', 'umount', 'unshare',
                   'true'):
        os.symlink('busybox', '%s/bin/%s' % (root, applet))
    os.symlink('/bin/busybox', root + '/usr/bin/env')
    return root


class Refusals(Scratch):
    def test_suite(self):
        self.assertEqual(run(CHROOT, 'suite', 'trixie'), (0, 'trixie\n'))
        status, text = run(CHROOT, 'suite', 'noble')
        self.assertEqual(status, 1)
        self.assertRegex(text, "^error: .*'noble'.*bookworm or trixie$")

    def test_needs_root(self):
        status, text = run(CHROOT, 'create', 'trixie', self.dir + '/root',
                           PATH=self.path_with(id='echo 1000\n'))
        self.assertEqual(status, 1)
        self.assertRegex(text, '^error: a Debian in a directory needs root')
        self.assertFalse(os.path.exists(self.dir + '/root'))


class Run(Scratch):
    def setUp(self):
        super().setUp()
        self.root = make_system(self, 'root')

    def inside(self, script, **env):
        return run(CHROOT, 'run', self.root, 'sh', '-c', script, **env)

    def test_status_is_the_commands(self):
        self.assertEqual(self.inside('echo said; exit 7'), (7, 'said\n'))

    def test_environment_has_proxies_and_nothing_else_of_the_machine(self):
        status, text = self.inside('env', http_proxy='http://p.example:1',
                                   MACHINES_OWN='secret')
        self.assertEqual(status, 0, text)
        self.assertIn('http_proxy=http://p.example:1\n', text)
        self.assertIn('HOME=/root\n', text)
        self.assertNotIn('MACHINES_OWN', text)

    def test_file_systems(self):
        with tempfile.NamedTemporaryFile(dir='/dev/shm') as machines:
            status, text = self.inside('cat /proc/mounts; ls /mnt /dev/shm')
            self.assertNotIn(os.path.basename(machines.name), text)
        self.assertEqual(status, 0, text)
        for line in ('proc /proc ', 'sysfs /sys ', 'devpts /dev/pts ',
                     'tmpfs /dev/shm '):
            self.assertIn('\n' + line, '\n' + text)
        self.assertNotIn(self.dir, text)
        self.assertRegex(text, r'/dev/shm:\n\n/mnt:\n$')

    def test_user_namespace(self):
        """Confined programs make one; chroot alone would not allow it."""
        if run('unshare', '--map-root-user', 'true')[0]:
            self.skipTest('this machine allows no user namespaces')
        self.assertEqual(self.inside('unshare -r true'), (0, ''))

    def test_nothing_stays(self):
        status, text = self.inside('sleep 100000 & exit 3')
        self.assertEqual((status, text), (3, ''))
        self.assertNotIn(self.root, read('/proc/self/mounts'))

    def test_killed_from_outside(self):
        with subprocess.Popen(
                [CHROOT, 'run', self.root, 'sh', '-c',
                 'sleep 100000 & echo up; sleep 100000'],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            self.assertEqual(process.stdout.readline(), b'up\n')
            process.kill()
            self.assertEqual(process.communicate(timeout=DEADLINE)[0], b'')
        self.assertNotIn(self.root, read('/proc/self/mounts'))


@unittest.skipUnless(os.path.exists(apt.KEYRING) and
                     shutil.which('apt-config'), 'this is no Debian')
class Create(Scratch):
    """With a debootstrap that copies the busybox, and an apt-get in it."""

    def setUp(self):
        super().setUp()
        system = make_system(self, 'system')
        self.program(system + '/usr/bin/apt-get', 'echo "apt-get $*"\n')
        self.root = self.dir + '/root'
        self.etc = self.dir + '/apt'
        self.path = self.path_with(debootstrap='''
            echo "args $*, proxy ${http_proxy:-none}"
            while [ $# -gt 2 ]; do shift; done
            cp -a %s/. "$1"\n''' % system)
        write(self.etc + '/sources.list',
              'deb http://mirror.example/debian stable main\n')
        write(self.etc + '/apt.conf.d/10machine', '''
            Acquire::http::Proxy "http://proxy.example:3128";
            Acquire::https::CaInfo "%s/ca.pem";
            Acquire::Check-Date "false";
            DPkg::Post-Invoke { "/usr/bin/of-the-machine"; };\n''' % self.dir)
        write(self.dir + '/ca.pem', 'a key\n')
        write(self.etc + '/auth.conf.d/login', 'machine mirror.example\n')
        write(self.dir + '/apt.conf', 'Dir::Etc "%s";\n' % self.etc)

    def create(self, *args):
        return run(CHROOT, 'create', 'trixie', self.root, *args,
                   PATH=self.path, APT_CONFIG=self.dir + '/apt.conf',
                   http_proxy='')

    def test_fetches_as_the_machine_does(self):
        status, text = self.create('--include=git')
        self.assertEqual(status, 0, text)
        settings = read(self.root + '/etc/apt/apt.conf.d/50machine')
        self.assertIn('Acquire::http::Proxy "http://proxy.example:3128";',
                      settings)
        self.assertIn('Acquire::Check-Date "false";', settings)
        self.assertEqual(read(self.root + self.dir + '/ca.pem'), 'a key\n')
        self.assertTrue(os.path.exists(
            self.root + self.etc + '/auth.conf.d/login'))
        self.assertRegex(read(self.root + '/etc/apt/sources.list'),
                         r'^deb \[signed-by=\S+\] '
                         r'http://mirror.example/debian trixie main\n')
        log = read(self.root + '.log')
        self.assertRegex(log, r'args --variant=minbase --keyring=\S+ '
                         r'--include=git trixie \S+ '
                         r'http://mirror.example/debian, '
                         r'proxy http://proxy.example:3128\n')
        self.assertRegex(log, r'apt-get .*Error-Mode=any update\n')

    def test_hooks_of_the_machines_programs_are_not_taken(self):
        self.assertEqual(self.create()[0], 0)
        self.assertNotIn('of-the-machine', read(
            self.root + '/etc/apt/apt.conf.d/50machine'))

    def test_failure_names_the_log_and_leaves_no_system(self):
        self.path = self.path_with(debootstrap='echo E: no such suite; exit 1')
        status, text = self.create()
        self.assertEqual(status, 1)
        self.assertRegex(text, r'(?s)E: no such suite\nerror: debootstrap '
                         r'failed.*root\.log')
        self.assertFalse(os.path.exists(self.root))

    def test_package_lists_that_cannot_be_fetched(self):
        self.program(self.dir + '/system/usr/bin/apt-get', 'echo E: 404; exit 100')
        status, text = self.create()
        self.assertEqual(status, 1)
        self.assertRegex(text, '(?s)E: 404\nerror: the package lists of trixie')
        self.assertFalse(os.path.exists(self.root))


tap.main()
