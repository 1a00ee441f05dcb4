#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam: a kernel device gets the system calls that it got before.

check_seam.py has the reasoning. The tests that spoil a copy of the patched
files show that it would notice.
"""

import os
import shutil
import sys
import tempfile
import unittest

import check_seam
import tap

STAGED, PRISTINE = check_seam.trees(sys.argv[:3])
# Where hw/vfio asks the device for its features and reads its regions.
CALLERS = {'10.0': ('hw/vfio/common.c', 'hw/vfio/helpers.c'),
           '10.2': ('hw/vfio/device.c', 'hw/vfio/device.c')}


class SeamTest(unittest.TestCase):
    def setUp(self):
        if not os.path.isdir(PRISTINE):
            self.skipTest('no staged tree in subprojects: run ./configure')
        version = tap.read(STAGED + '/VERSION')
        self.feature, self.region = CALLERS['.'.join(
            version.split('.')[:2])]
        self.copy = tempfile.mkdtemp(prefix='seam-test-')
        self.addCleanup(shutil.rmtree, self.copy)
        for name in check_seam.lists(STAGED)[0] + [check_seam.HEADER,
                                                   'VERSION']:
            path = os.path.join(self.copy, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copyfile(os.path.join(STAGED, name), path)

    def spoil(self, name, old, new):
        path = os.path.join(self.copy, name)
        text = tap.read(path)
        self.assertIn(old, text)
        tap.write(path, text.replace(old, new, 1))

    def assert_noticed(self, word):
        bad = check_seam.findings(self.copy, PRISTINE)
        self.assertTrue([b for b in bad if word in b], bad)

    def test_same_system_calls(self):
        self.assertEqual(check_seam.findings(STAGED, PRISTINE), [])

    def test_notices_another_call(self):
        self.spoil(self.region, 'vfio_file_pread(', 'vfio_file_pwrite(')
        self.assert_noticed(self.region)

    def test_notices_another_argument(self):
        self.spoil('hw/vfio/pci-quirks.c', 'membar_phys, 16,',
                   'membar_phys, 8,')
        self.assert_noticed('membar_phys')

    def test_notices_another_device(self):
        self.spoil('hw/vfio/display.c',
                   'VFIODevice *vbasedev = &vdev->vbasedev;',
                   'VFIODevice *vbasedev = other(vdev);')
        self.assert_noticed('other(vdev)')

    def test_notices_a_lost_condition(self):
        self.spoil('hw/vfio/pci.c', '!vbasedev->file_ops && vbasedev->fd < 0',
                   'vbasedev->fd < 0')
        self.assert_noticed('gone')

    def test_notices_a_call_without_wrapper(self):
        self.spoil(self.feature, 'vfio_file_ioctl(vbasedev, ',
                   'ioctl(vbasedev->fd, ')
        self.assert_noticed('not hooked')

    def test_notices_a_wrapper_that_does_something_else(self):
        self.spoil(check_seam.HEADER,
                   'return pread(vbasedev->fd, buf, len, off);',
                   'return pread(vbasedev->fd, buf, len, off + 1);')
        self.assert_noticed('vfio_file_pread')


tap.main()
