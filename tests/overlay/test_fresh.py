# SPDX-License-Identifier: GPL-2.0-or-later
"""What make check-fresh says, with a made-up Debian that takes no time."""

import os
import shutil

import tap
from tap import SCRIPTS, Scratch, read, run, write

CHROOT = os.path.join(SCRIPTS, 'chroot.sh')
IDENTITY = ('-c', 'user.name=a', '-c', 'user.email=a@example.org')


class Fresh(Scratch):
    """check-fresh.sh in a repository of its own, with a made-up Debian that
    runs make on this machine."""

    def setUp(self):
        super().setUp()
        self.repo = self.dir + '/repo'
        self.root = self.repo + '/build/fresh/trixie/root'
        os.makedirs(self.repo + '/scripts')
        shutil.copy(SCRIPTS + '/check-fresh.sh', self.repo + '/scripts/')
        self.program(self.repo + '/scripts/setup.sh', 'exit 0\n')
        self.program(self.repo + '/scripts/chroot.sh', '''
            case $1 in
            suite) exec %s "$@" ;;
            create) mkdir -p "$3/srv" "$3/var/cache/apt/archives" ;;
            run)
                for target; do :; done
                make -s -C "$2/srv/vfio-user-pci" $target ;;
            esac\n''' % CHROOT)
        write(self.repo + '/.gitignore', '/build/\n')
        self.commit('1 passed, 0 failed, 0 skipped')

    def git(self, *args):
        status, text = run('git', '-C', self.repo, *IDENTITY, *args)
        self.assertEqual(status, 0, text)

    def commit(self, *summary, demo='true', check='true'):
        """A repository whose tests end in these lines."""
        write(self.repo + '/summary', '\n'.join(summary) + '\n')
        write(self.repo + '/Makefile', '\n\t'.join((
            'demo:', 'touch left-behind', 'touch ../../var/cache/apt/'
            'archives/demo.deb', demo)) + '\n' + '\n\t'.join((
                'check:', 'mkdir -p build', 'cp summary build/test-summary.txt',
                check)) + '\n')
        self.git('init', '-q')
        self.git('add', '.')
        self.git('commit', '-q', '--allow-empty', '-m', 'a change')

    def check_fresh(self, *args, uid=0):
        return run(self.repo + '/scripts/check-fresh.sh', *args,
                   PATH=self.path_with(id='echo %d\n' % uid))

    def test_closing_line_comes_last(self):
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 0, text)
        self.assertTrue(text.endswith('\n1 passed, 0 failed, 0 skipped\n'))
        self.assertIn('a change', text)

    def test_only_what_is_committed(self):
        write(self.repo + '/new-file', '')
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 0, text)
        self.assertIn('without the changes to 1 file', text)
        self.assertFalse(os.path.exists(
            self.root + '/srv/vfio-user-pci/new-file'))

    def assert_fails(self, name):
        """With this command failing; the other one runs all the same."""
        self.commit('1 passed, 1 failed, 0 skipped',
                    **{name: 'echo it broke; false'})
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 1, text)
        self.assertRegex(text, r'error: failed on a fresh Debian trixie: '
                         r'make %s \(\S+%s\.log\)\n' % (name, name))
        self.assertTrue(text.endswith('\n1 passed, 1 failed, 0 skipped\n'))
        self.assertIn('it broke\n', read('%s/../%s.log' % (self.root, name)))

    def test_demo_that_fails(self):
        self.assert_fails('demo')

    def test_check_that_fails(self):
        self.assert_fails('check')

    def test_set_up_that_fails_says_that_no_test_ran(self):
        self.commit('', demo='false', check='rm -r build; false')
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 1)
        self.assertRegex(text, 'no test ran.*\n$')

    def test_skip_for_want_of_a_package_fails(self):
        self.commit('skipped: a b: no tshark to read with; install tshark',
                    'skipped: c: this machine has no KVM',
                    '1 passed, 0 failed, 2 skipped')
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 1)
        self.assertRegex(text, r'error: scripts/deps.conf .*\n'
                         r'  a b: .*install tshark\n1 passed')

    def test_other_skip_does_not(self):
        self.commit('skipped: c: this machine has no KVM',
                    '1 passed, 0 failed, 1 skipped')
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 0, text)

    def test_second_run_begins_anew_but_for_packages(self):
        self.assertEqual(self.check_fresh('trixie')[0], 0)
        self.assertTrue(os.path.exists(
            self.root + '/srv/vfio-user-pci/left-behind'))
        self.commit('1 passed, 0 failed, 0 skipped',
                    check='test ! -e left-behind-twice && '
                    'test -e ../../var/cache/apt/archives/demo.deb')
        write(self.root + '/srv/vfio-user-pci/left-behind-twice', '')
        status, text = self.check_fresh('trixie')
        self.assertEqual(status, 0, text)

    def test_unknown_suite(self):
        status, text = self.check_fresh('noble')
        self.assertEqual(status, 1)
        self.assertRegex(text, "^error: .*'noble'.*bookworm or trixie$")
        self.assertFalse(os.path.exists(self.repo + '/build'))

    def test_needs_root(self):
        status, text = self.check_fresh('trixie', uid=1000)
        self.assertEqual(status, 1)
        self.assertRegex(text, '^error: .*needs root')
        self.assertEqual(len(text.splitlines()), 1)
        self.assertFalse(os.path.exists(self.repo + '/build'))


tap.main()
