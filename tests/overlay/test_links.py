# SPDX-License-Identifier: GPL-2.0-or-later
"""The overlay's files in the staged tree."""

import os

import tap
from tap import snapshot, write


class Links(tap.RepositoryTest):
    def link(self, name):
        path = os.path.join(self.tree, name)
        return os.readlink(path) if os.path.islink(path) else None

    def test_file_is_a_relative_link(self):
        self.stage_ok()
        self.assertEqual(self.link('hw/vfio-user/pci.c'),
                         '../../../../hw/vfio-user/pci.c')
        self.assertEqual(self.staged('hw/vfio-user/pci.c'), 'ours\n')

    def test_every_kind_of_file_is_laid_in(self):
        names = ['hw/vfio-user/meson.build', 'hw/vfio-user/trace-events',
                 'include/hw/vfio-user/wire.h', 'include/hw/vfio/seam.h',
                 'qapi/vfio-user.json', 'docs/system/devices/vfio-user.rst',
                 'docs/interop/vfio-user.rst', 'docs/devel/vfio-user.rst',
                 'tests/unit/test-vfio-user-conn.c',
                 'tests/qtest/vfio-user-test.c', 'tests/server/server.h',
                 'tests/functional/test_guest.py']
        for name in names:
            write(os.path.join(self.repo, name), 'x\n')
        self.stage_ok()
        for name in names:
            self.assertTrue(self.link(name), name)

    def test_what_is_not_for_qemu_stays_out(self):
        for name in ('tests/unit/meson.build', 'tests/server/meson.build',
                     'hw/vfio-user/pci.c~', 'hw/vfio-user/.pci.c.swp',
                     'hw/vfio-user/#pci.c#', 'README.md', 'scripts/x.py'):
            write(os.path.join(self.repo, name), 'x\n')
        self.stage_ok()
        self.assertEqual(os.listdir(self.tree + '/hw/vfio-user'), ['pci.c'])
        self.assertFalse(os.path.exists(self.tree + '/tests'))
        self.assertFalse(os.path.exists(self.tree + '/README.md'))

    def test_name_of_qemu_is_refused_and_nothing_changed(self):
        self.stage_ok()
        write(self.qemu + '/include/hw/vfio/vfio.h', 'theirs\n')
        self.stage_ok()
        before = snapshot(self.tree)
        write(self.repo + '/include/hw/vfio/vfio.h', 'ours\n')
        write(self.repo + '/hw/vfio-user/new.c', 'ours\n')
        self.assert_refused(r'include/hw/vfio/vfio\.h has the name',
                            '--refresh')
        self.assertEqual(snapshot(self.tree), before)

    def test_vanished_file_loses_its_link(self):
        write(self.repo + '/qapi/vfio-user.json', '{}\n')
        self.stage_ok()
        os.remove(self.repo + '/qapi/vfio-user.json')
        self.stage_ok('--refresh')
        self.assertFalse(os.path.lexists(self.tree + '/qapi/vfio-user.json'))
        self.assertTrue(self.link('hw/vfio-user/pci.c'))

    def test_lost_link_comes_back(self):
        self.stage_ok()
        os.remove(self.tree + '/hw/vfio-user/pci.c')
        self.stage_ok('--refresh')
        self.assertTrue(self.link('hw/vfio-user/pci.c'))

    def test_edit_is_seen_without_a_stage_step(self):
        self.stage_ok()
        write(self.repo + '/hw/vfio-user/pci.c', 'edited\n')
        self.assertEqual(self.staged('hw/vfio-user/pci.c'), 'edited\n')

    def test_refresh_with_nothing_new_writes_nothing(self):
        self.stage_ok()
        before = snapshot(self.tree)
        self.assertEqual(self.stage_ok('--refresh'), '')
        self.assertEqual(snapshot(self.tree), before)


tap.main()
