# SPDX-License-Identifier: GPL-2.0-or-later
"""Hook patches: no fuzz, all or nothing, and only what differs is written."""

import json
import os

import tap
from tap import read, snapshot, write


class Series(tap.RepositoryTest):
    def setUp(self):
        super().setUp()
        self.add_patch('1.patch', 'hw/vfio/one.c', 10, 'first hook')
        self.add_patch('2.patch', 'hw/vfio/two.c', 10, 'second hook')
        self.set_series('1.patch', '2.patch')

    def changed(self, before):
        """Files of QEMU that were written since a snapshot."""
        after = snapshot(self.tree)
        return sorted(n for n in set(before) | set(after)
                      if before.get(n) != after.get(n) and
                      not n.startswith('.overlay'))

    def test_series_is_applied(self):
        self.stage_ok()
        self.assertIn('first hook\n', self.staged('hw/vfio/one.c'))
        self.assertIn('second hook\n', self.staged('hw/vfio/two.c'))
        self.assertNotIn('hook', read(self.qemu + '/hw/vfio/one.c'))

    def test_patches_apply_in_order_on_each_other(self):
        self.set_series('1.patch', '3.patch')
        write(self.patches + '/3.patch',
              '--- a/hw/vfio/one.c\n+++ b/hw/vfio/one.c\n@@ -9,3 +9,3 @@\n'
              ' line 9\n-first hook\n+third hook\n line 11\n')
        self.stage_ok()
        self.assertIn('third hook\n', self.staged('hw/vfio/one.c'))

    def test_changed_patch_writes_just_its_file(self):
        self.stage_ok()
        before = snapshot(self.tree)
        self.add_patch('2.patch', 'hw/vfio/two.c', 10, 'another hook')
        self.stage_ok('--refresh')
        self.assertEqual(self.changed(before), ['hw/vfio/two.c'])
        self.assertIn('another hook\n', self.staged('hw/vfio/two.c'))
        self.assertNotIn('second hook', self.staged('hw/vfio/two.c'))

    def test_new_words_in_a_patch_write_nothing(self):
        self.stage_ok()
        before = snapshot(self.tree)
        path = self.patches + '/1.patch'
        write(path, 'A better explanation.\n' + read(path))
        self.stage_ok('--refresh')
        self.assertEqual(self.changed(before), [])

    def test_patch_taken_out_restores_the_file(self):
        self.stage_ok()
        before = snapshot(self.tree)
        self.set_series('1.patch')
        self.stage_ok('--refresh')
        self.assertEqual(self.changed(before), ['hw/vfio/two.c'])
        self.assertEqual(self.staged('hw/vfio/two.c'),
                         read(self.qemu + '/hw/vfio/two.c'))

    def test_patch_that_does_not_apply_leaves_the_tree_as_it_was(self):
        self.stage_ok()
        before = snapshot(self.tree)
        self.add_patch('1.patch', 'hw/vfio/one.c', 12, 'moved hook')
        self.add_patch('2.patch', 'hw/vfio/two.c', 10, 'x', context='row')
        self.assert_refused(r'2\.patch does not apply.*hw/vfio/two\.c.*'
                            r'Hunk #1 FAILED', '--refresh')
        self.assertEqual(self.changed(before), [])

    def test_repaired_patch_is_taken_by_the_next_run(self):
        self.stage_ok()
        self.add_patch('2.patch', 'hw/vfio/two.c', 10, 'x', context='row')
        self.assert_refused('does not apply', '--refresh')
        self.add_patch('2.patch', 'hw/vfio/two.c', 10, 'repaired hook')
        self.stage_ok('--refresh')
        self.assertIn('repaired hook\n', self.staged('hw/vfio/two.c'))

    def test_patch_that_does_not_apply_leaves_nothing_of_a_first_run(self):
        self.add_patch('2.patch', 'hw/vfio/two.c', 10, 'x', context='row')
        self.assert_refused('does not apply')
        self.assertEqual(self.subprojects(), ['packagefiles'])

    def test_no_fuzz(self):
        path = self.patches + '/1.patch'
        write(path, read(path).replace(' line 7\n', ' line seven\n'))
        self.assert_refused(r'1\.patch does not apply')

    def test_patch_for_a_file_that_is_not_there(self):
        self.add_patch('1.patch', 'hw/vfio/four.c', 10, 'x')
        self.assert_refused(r'1\.patch patches hw/vfio/four\.c')

    def test_patch_that_adds_a_file_is_refused(self):
        write(self.patches + '/1.patch',
              '--- /dev/null\n+++ b/hw/new.c\n@@ -0,0 +1 @@\n+new\n')
        self.assert_refused(r'1\.patch adds.*hw/new\.c')

    def test_patch_that_changes_nothing_is_refused(self):
        write(self.patches + '/1.patch', 'only words\n')
        self.assert_refused(r'1\.patch changes no file')

    def test_series_that_names_no_file_is_refused(self):
        self.set_series('1.patch', 'gone.patch')
        self.assert_refused(r'names gone\.patch')

    def test_no_series_means_no_patches(self):
        os.remove(self.patches + '/series')
        self.stage_ok()
        self.assertNotIn('hook', self.staged('hw/vfio/one.c'))

    def test_edit_in_the_staged_tree_is_not_thrown_away(self):
        self.stage_ok()
        write(self.tree + '/hw/vfio/one.c', 'my precious\n')
        self.set_series('2.patch')
        self.assert_refused(r'hw/vfio/one\.c was edited there', '--refresh')
        self.assertEqual(self.staged('hw/vfio/one.c'), 'my precious\n')

    def test_interrupted_restage_is_completed(self):
        """Files are written, the state that says so is not."""
        self.stage_ok()
        state = read(self.tree + '/.overlay/state.json')
        self.add_patch('2.patch', 'hw/vfio/two.c', 20, 'later hook')
        self.add_patch('1.patch', 'hw/vfio/three.c', 10, 'third hook')
        self.stage_ok('--refresh')
        write(self.tree + '/.overlay/state.json', state)
        self.stage_ok('--refresh')
        self.assertIn('later hook\n', self.staged('hw/vfio/two.c'))
        self.assertNotIn('first hook', self.staged('hw/vfio/one.c'))
        self.assertIn('third hook\n', self.staged('hw/vfio/three.c'))
        placed = json.loads(read(self.tree + '/.overlay/state.json'))
        self.assertEqual(sorted(placed['placed']),
                         ['hw/vfio/three.c', 'hw/vfio/two.c'])


tap.main()
