# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirror and key from the machine's sources, in either format; sentences."""

import shutil
import tempfile
import unittest
from unittest import mock

import tap
from overlay import Refused, apt, suite

KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
DEB822 = '''\
# See the manual page
Types: deb
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
'''
ONE_LINE = '''\
# deb http://comment.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main # x
deb-src http://b.example/debian bookworm main
deb http://c.example/extra bookworm contrib
deb http://sec.example/debian-security bookworm-security main
'''


class Sources(unittest.TestCase):
    def pick(self, entries):
        with mock.patch.object(apt, 'own_suites', lambda: {'bookworm'}):
            return apt.pick_mirrors(list(entries))

    def test_deb822(self):
        archive, security = self.pick(apt.parse_deb822(DEB822))
        self.assertEqual(archive, {'uri': 'http://mirror.example/debian',
                                   'suite': 'bookworm',
                                   'signed-by': KEYRING})
        self.assertEqual(security['uri'],
                         'http://mirror.example/debian-security')

    def test_disabled_stanza_is_not_used(self):
        uris = [e['uri'] for e in apt.parse_deb822(DEB822)]
        self.assertNotIn('http://off.example/debian', uris)

    def test_key_inside_a_stanza_is_carried_over(self):
        _, security = self.pick(apt.parse_deb822(DEB822))
        text = apt.stanza(security, 'trixie-security')
        self.assertIn('Suites: trixie-security\n', text)
        self.assertIn('Signed-By: \n -----BEGIN PGP', text)
        self.assertIn('\n abc\n', text)

    def test_one_line(self):
        entries = [e for e in apt.parse_one_line(ONE_LINE)
                   if not e['uri'].startswith('cdrom:')]
        archive, security = self.pick(entries)
        self.assertEqual(archive, {'uri': 'http://a.example/debian',
                                   'suite': 'bookworm',
                                   'signed-by': '/k.gpg'})
        self.assertEqual(security['uri'],
                         'http://sec.example/debian-security')

    def test_comments_and_other_components_are_not_used(self):
        uris = [e['uri'] for e in apt.parse_one_line(ONE_LINE)]
        self.assertNotIn('http://comment.example/debian', uris)
        self.assertNotIn('http://c.example/extra', uris)

    def test_no_key_means_the_machines_trusted_keys(self):
        text = apt.stanza({'uri': 'u', 'suite': 's', 'signed-by': ''}, 't')
        self.assertNotIn('Signed-By', text)

    def test_key_of_an_older_release_only_gives_way(self):
        old = {'uri': 'u', 'suite': 's', 'signed-by':
               '/usr/share/keyrings/debian-archive-bookworm-stable.gpg'}
        with mock.patch.object(apt.os.path, 'exists', lambda p: True):
            self.assertIn('Signed-By: ' + KEYRING, apt.stanza(old, 't'))

    def test_no_mirror_is_one_sentence(self):
        with self.assertRaisesRegex(Refused, 'cannot tell which Debian'):
            self.pick([])


class Offers(unittest.TestCase):
    def offered(self, *versions):
        private = apt.PrivateApt('/nonexistent')
        text = ''.join('Package: qemu\nVersion: %s\n\n' % v for v in versions)
        with mock.patch.object(private, 'cache', lambda *a: text):
            return private.source_version('qemu')

    def test_newest_of_the_series_is_taken(self):
        self.assertEqual(
            self.offered('1:10.0.9+ds-0+deb13u1', '1:10.0.13+ds-0+deb13u1',
                         '1:10.2.1+ds-1'), '1:10.0.13+ds-0+deb13u1')

    def test_later_series_is_taken_where_it_is_asked_for(self):
        private = apt.PrivateApt('/nonexistent', 'sid')
        text = ''.join('Package: qemu\nVersion: %s\n\n' % v for v in (
            '1:10.2.2+ds-1', '1:10.0.13+ds-0+deb13u1', '1:11.0.1+ds-1'))
        with mock.patch.object(private, 'cache', lambda *a: text):
            self.assertEqual(private.source_version('qemu', '10.2'),
                             '1:10.2.2+ds-1')
            with self.assertRaisesRegex(Refused, 'Debian sid offers.*9.9.x'):
                private.source_version('qemu', '9.9')

    def test_nothing_of_the_series_is_refused(self):
        with self.assertRaisesRegex(Refused, r'offers qemu 1:10\.1\.2.*needs '
                                    r'10\.0\.x.*--qemu-source='):
            self.offered('1:10.1.2+ds-1')


class Lists(unittest.TestCase):
    ARCHIVE = {'uri': 'http://a.example/debian', 'suite': 'bookworm',
               'signed-by': ''}
    SECURITY = {'uri': 'http://s.example/debian-security',
                'suite': 'bookworm-security', 'signed-by': ''}

    def updated(self, name):
        """What a private apt would read for a suite."""
        private = apt.PrivateApt(self.dir, name)
        with mock.patch.object(apt, 'machine_sources', list), \
                mock.patch.object(apt, 'pick_mirrors', lambda s: (
                    self.ARCHIVE, self.SECURITY)), \
                mock.patch.object(private, 'get'), \
                mock.patch.object(apt, 'say'):
            private.update()
        return tap.read(private.sources)

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='overlay-test-')
        self.addCleanup(shutil.rmtree, self.dir)

    def test_release_has_updates_and_security(self):
        text = self.updated('trixie')
        self.assertIn('Suites: trixie trixie-updates\n', text)
        self.assertIn('Suites: trixie-security\n', text)

    def test_development_suite_has_neither(self):
        text = self.updated('sid')
        self.assertIn('Suites: sid\n', text)
        self.assertNotIn('-', text.replace('Signed-By', '').replace(
            'deb-src', ''))

    def test_chroot_begins_with_the_archive(self):
        with mock.patch.object(apt.os.path, 'exists', lambda p: True):
            lines = suite.lines(self.ARCHIVE, self.SECURITY, 'trixie')
        self.assertEqual(lines[0], 'deb [signed-by=%s] http://a.example/'
                         'debian trixie main' % KEYRING)
        self.assertIn('http://s.example/debian-security trixie-security '
                      'main', lines[-1])

    def test_chroot_without_the_keyring_is_refused(self):
        with mock.patch.object(apt.os.path, 'exists', lambda p: False):
            with self.assertRaisesRegex(Refused, 'archive-keyring'):
                suite.lines(self.ARCHIVE, None, 'trixie')


class Words(unittest.TestCase):
    def test_missing_key(self):
        self.assertIn('signing key', apt.explain(
            'W: GPG error: trixie InRelease: NO_PUBKEY 0123456789'))

    def test_no_network(self):
        text = apt.explain('E: Failed to fetch http://x/InRelease  Temporary '
                           "failure resolving 'x'")
        self.assertIn('cannot be reached', text)
        self.assertIn('--qemu-source=', text)


tap.main()
