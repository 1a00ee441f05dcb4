# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMU trees are taken, which refused, and that nothing is left."""

import os
import subprocess

import tap
from tap import read, snapshot, write


class Source(tap.RepositoryTest):
    def test_directory_is_copied_and_left_alone(self):
        before = snapshot(self.qemu)
        self.stage_ok()
        self.assertEqual(self.staged('VERSION'), '10.0.7\n')
        self.assertEqual(snapshot(self.qemu), before)

    def test_builds_and_git_data_are_not_copied(self):
        write(self.qemu + '/build/build.ninja', 'x')
        write(self.qemu + '/.git/config', 'x')
        self.stage_ok()
        self.assertFalse(os.path.exists(self.tree + '/build'))
        self.assertFalse(os.path.exists(self.tree + '/.git'))

    def test_tarball_is_unpacked(self):
        tarball = self.dir + '/qemu-10.0.7.tar.gz'
        subprocess.run(['tar', '-czf', tarball, '-C', self.dir, 'qemu'],
                       check=True)
        self.stage_ok('--source', tarball)
        self.assertEqual(self.staged('VERSION'), '10.0.7\n')
        self.assertEqual(self.subprojects(), ['qemu-10.0'])

    def test_other_versions_are_refused(self):
        for version in ('9.2.4', '10.1.0', '10.0.50', '10.0', '10.2.50',
                        '110.2.1', 'rubbish'):
            tree = self.make_qemu('v' + version, version)
            self.assert_refused('is QEMU %s and this overlay is written for '
                                '10.0.x' % version, '--source', tree)
            self.assertEqual(self.subprojects(), [])

    def test_wrong_version_in_a_tarball_leaves_nothing(self):
        self.make_qemu('late', '10.1.0')
        tarball = self.dir + '/late.tar'
        subprocess.run(['tar', '-cf', tarball, '-C', self.dir, 'late'],
                       check=True)
        self.assert_refused('is QEMU 10.1.0', '--source', tarball)
        self.assertEqual(self.subprojects(), [])

    def test_refusal_keeps_the_staged_tree(self):
        self.stage_ok()
        before = snapshot(self.tree)
        tree = self.make_qemu('late', '10.1.0')
        self.assert_refused('is QEMU 10.1.0', '--source', tree)
        self.assertEqual(snapshot(self.tree), before)
        self.assertEqual(self.subprojects(), ['qemu-10.0'])

    def test_missing_source_is_refused(self):
        self.assert_refused('does not exist', '--source', self.dir + '/none')

    def test_other_directory_is_refused(self):
        self.assert_refused('is not a QEMU source tree', '--source',
                            self.dir)

    def test_file_that_is_no_tarball_is_refused(self):
        write(self.dir + '/note', 'rubbish')
        self.assert_refused('neither a directory nor a tarball', '--source',
                            self.dir + '/note')

    def test_tarball_of_something_else_is_refused(self):
        write(self.dir + '/other/README', 'x')
        tarball = self.dir + '/other.tar'
        subprocess.run(['tar', '-cf', tarball, '-C', self.dir, 'other'],
                       check=True)
        self.assert_refused('holds no QEMU source tree', '--source', tarball)
        self.assertEqual(self.subprojects(), [])

    def test_checkout_without_subprojects_is_refused(self):
        os.remove(self.qemu + '/subprojects/keycodemapdb/meson.build')
        self.assert_refused('lacks subprojects/keycodemapdb.*download')

    def test_same_source_is_not_unpacked_again(self):
        self.stage_ok()
        before = snapshot(self.tree)
        self.assertEqual(self.stage_ok(), '')
        self.assertEqual(snapshot(self.tree), before)

    def test_changed_source_is_taken_again(self):
        self.stage_ok()
        write(self.qemu + '/VERSION', '10.0.11\n')
        self.stage_ok()
        self.assertEqual(self.staged('VERSION'), '10.0.11\n')

    def test_leftover_of_an_interrupted_run_is_no_obstacle(self):
        write(self.repo + '/subprojects/.staging-qemu-10.0/VERSION', '10')
        self.stage_ok()
        self.assertEqual(self.subprojects(), ['qemu-10.0'])

    def test_refresh_without_a_tree_says_what_to_do(self):
        self.assert_refused('run ./configure', '--refresh')

    def test_debian_source_that_was_not_fetched(self):
        self.assert_refused('run ./configure', '--source', '')
        self.assertEqual(read(self.repo + '/hw/vfio-user/pci.c'), 'ours\n')


tap.main()
