# SPDX-License-Identifier: GPL-2.0-or-later
"""The pictures of the documentation are those of their texts."""

import hashlib
import re
import unittest
from pathlib import Path

import tap

DOCS = Path(__file__).resolve().parent.parent.parent / 'docs' / 'devel'


class Pictures(unittest.TestCase):
    def test_each_picture_is_of_its_text(self):
        texts = sorted((DOCS / 'vfio-user').glob('*.dot'))
        self.assertTrue(texts)
        for text in texts:
            picture = text.with_suffix('.svg').read_text(encoding='utf-8')
            found = re.search(r'<!-- (\S+), sha256 ([0-9a-f]+) -->', picture)
            self.assertEqual(
                found and found.groups(),
                (text.name, hashlib.sha256(text.read_bytes()).hexdigest()),
                'run scripts/pictures.sh')

    def test_each_picture_is_shown(self):
        page = (DOCS / 'vfio-user.rst').read_text(encoding='utf-8')
        self.assertEqual(
            sorted(re.findall(r'image:: vfio-user/(\S+)', page)),
            sorted(p.name for p in (DOCS / 'vfio-user').glob('*.svg')))


tap.main()
