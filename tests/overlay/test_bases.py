# SPDX-License-Identifier: GPL-2.0-or-later
"""Several series of QEMU: each has its hooks, and the tree decides."""

import os
import subprocess

import tap
from tap import SCRIPTS, TOP, read, snapshot, write
from overlay import SERIES, patches_of, series


class TwoSeries(tap.RepositoryTest):
    def setUp(self):
        super().setUp()
        self.later = self.make_qemu('later', '10.2.1')
        self.later_tree = self.repo + '/subprojects/qemu-10.2'
        self.later_patches = self.repo + '/subprojects/packagefiles/qemu-10.2'
        self.add_patch('1.patch', 'hw/vfio/one.c', 10, 'hook for 10.0')
        self.set_series('1.patch')
        self.patches = self.later_patches
        self.add_patch('1.patch', 'hw/vfio/two.c', 10, 'hook for 10.2')
        self.set_series('1.patch')

    def stage_later(self):
        return self.stage_ok('--source', self.later)


class Bases(TwoSeries):
    def test_version_chooses_the_hooks(self):
        self.stage_later()
        self.assertIn('hook for 10.2\n',
                      read(self.later_tree + '/hw/vfio/two.c'))
        self.assertNotIn('hook', read(self.later_tree + '/hw/vfio/one.c'))

    def test_refresh_is_of_the_tree_that_was_chosen(self):
        self.stage_later()
        self.add_patch('1.patch', 'hw/vfio/two.c', 10, 'another hook')
        self.stage_ok('--refresh')
        self.assertIn('another hook\n',
                      read(self.later_tree + '/hw/vfio/two.c'))

    def test_both_stay_and_neither_is_unpacked_again(self):
        self.stage_ok()
        self.stage_later()
        before = snapshot(self.tree), snapshot(self.later_tree)
        self.assertEqual(self.stage_ok(), '')
        self.assertEqual(self.stage_later(), '')
        self.assertEqual((snapshot(self.tree), snapshot(self.later_tree)),
                         before)

    def test_state_is_that_of_the_chosen_tree(self):
        self.stage_later()
        self.assertEqual(self.stage_ok('--state', 'version'), '10.2.1\n')
        self.stage_ok()
        self.assertEqual(self.stage_ok('--state', 'version'), '10.0.7\n')

    def test_shell_scripts_find_the_chosen_tree(self):
        os.makedirs(self.repo + '/scripts')
        os.symlink(SCRIPTS + '/staged-tree.sh',
                   self.repo + '/scripts/staged-tree.sh')

        def found():
            return subprocess.check_output(
                [self.repo + '/scripts/staged-tree.sh'], text=True).strip()
        self.stage_later()
        self.assertEqual(found(), self.later_tree)
        self.stage_ok()
        self.assertEqual(found(), self.tree)

    def test_refused_tree_does_not_change_the_choice(self):
        self.stage_later()
        self.make_qemu('other', '10.1.3')
        self.assert_refused('is QEMU 10.1.3', '--source', self.dir + '/other')
        self.assertEqual(self.stage_ok('--state', 'version'), '10.2.1\n')


class Replaced(TwoSeries):
    """Files that QEMU has under names of the overlay's."""

    def setUp(self):
        super().setUp()
        write(self.later + '/hw/vfio-user/pci.c', 'theirs\n')
        write(self.later + '/hw/vfio-user/proxy.c', 'theirs\n')
        self.replace('# their client', 'hw/vfio-user')

    def replace(self, *lines):
        write(self.later_patches + '/replaced', '\n'.join(lines) + '\n')

    def test_clash_without_the_list(self):
        self.replace('# nothing')
        self.assert_refused('hw/vfio-user/pci.c has the name of a file of '
                            'QEMU', '--source', self.later)

    def test_ours_take_the_place_of_theirs(self):
        self.stage_later()
        self.assertEqual(os.listdir(self.later_tree + '/hw/vfio-user'),
                         ['pci.c'])
        self.assertEqual(read(self.later_tree + '/hw/vfio-user/pci.c'),
                         'ours\n')

    def test_theirs_are_kept(self):
        self.stage_later()
        self.assertEqual(read(self.later_tree + '/.overlay/replaced/'
                              'hw/vfio-user/proxy.c'), 'theirs\n')

    def test_refresh_replaces_nothing_again(self):
        self.stage_later()
        before = snapshot(self.later_tree)
        self.assertEqual(self.stage_ok('--refresh'), '')
        self.assertEqual(snapshot(self.later_tree), before)

    def test_new_name_on_the_list_is_taken_up(self):
        self.stage_later()
        write(self.repo + '/docs/devel/new.rst', 'ours\n')
        write(self.later_tree + '/docs/devel/new.rst', 'theirs\n')
        self.replace('hw/vfio-user', 'docs/devel/new.rst')
        self.stage_ok('--refresh')
        self.assertEqual(read(self.later_tree + '/docs/devel/new.rst'),
                         'ours\n')

    def test_name_that_is_not_there_is_refused(self):
        self.replace('hw/vfio-user', 'hw/none')
        self.assert_refused('names hw/none, which this QEMU does not have',
                            '--source', self.later)


class Lists(tap.RepositoryTest):
    """The lists that come with this repository."""

    def test_every_series_has_hooks_and_no_patch_is_forgotten(self):
        for name in SERIES:
            directory = os.path.join(TOP, patches_of(name))
            listed = [os.path.basename(p)
                      for p in series.read_series(TOP, name)]
            there = [f for f in os.listdir(directory)
                     if f.endswith('.patch')]
            self.assertEqual(sorted(listed), sorted(there), name)
            self.assertTrue(listed, name)


tap.main()
