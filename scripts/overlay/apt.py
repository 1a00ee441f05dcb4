# SPDX-License-Identifier: GPL-2.0-or-later
"""A private view of Debian 13's archive, or of another suite's.

The problem: QEMU, meson and the guest's kernel come from Debian 13, the
machine may be Debian 12, and its own apt lists must stay as they are.
So apt runs here with its own source list, list directory and cache under
build/deps/apt.  Mirror and signing key are the machine's: they are read
from its sources and only the suite's name is changed.  apt checks the
signatures, as it does for the machine itself.

`apt-get indextargets` would tell the mirror too, but it is silent while
the machine has no package lists (fresh containers) and never tells the
key, so the source files themselves are read.
"""

import glob
import os
import re
import shlex
import subprocess

from . import Refused, SERIES, say, write_atomically

SUITE = 'trixie'
# Where the QEMU of the last series is.
DEVELOPMENT = 'sid'
KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
OTHER_WAY = 'or give a QEMU tree with --qemu-source='


def run(cmd, **kw):
    try:
        return subprocess.run(cmd, check=False, text=True, **kw)
    except FileNotFoundError:
        raise Refused('%s is not on this machine, and fetching from Debian '
                      'needs it: use Debian 12 or 13, %s'
                      % (cmd[0], OTHER_WAY)) from None


def apt_directory(name):
    r = run(['apt-config', 'shell', 'V', name], stdout=subprocess.PIPE)
    words = shlex.split(r.stdout)
    return words[0][2:] if words else ''


def entry(uri, suite, signed_by):
    return {'uri': uri.rstrip('/'), 'suite': suite.rstrip('/'),
            'signed-by': signed_by}


def parse_one_line(text):
    """One-line style: deb [options] uri suite component..."""
    for line in text.splitlines():
        line = line.split('#', 1)[0].strip()
        m = re.match(r'deb(?:-src)?\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)',
                     line)
        if not m or 'main' not in m.group(4).split():
            continue
        options = dict(o.split('=', 1) for o in (m.group(1) or '').split()
                       if '=' in o)
        yield entry(m.group(2), m.group(3), options.get('signed-by', ''))


def parse_deb822(text):
    """deb822 style; Signed-By may be a whole key over many lines."""
    lines = [l for l in text.splitlines() if not l.startswith('#')]
    for stanza in re.split(r'\n\s*\n', '\n'.join(lines)):
        fields, last = {}, None
        for line in stanza.splitlines():
            if line[:1] in (' ', '\t'):
                if last:
                    fields[last] += '\n' + line
            elif ':' in line:
                last, value = line.split(':', 1)
                last = last.lower()
                fields[last] = value.strip()
        if fields.get('enabled', 'yes').lower() in ('no', 'false'):
            continue
        if 'main' not in fields.get('components', '').split():
            continue
        for uri in fields.get('uris', '').split():
            for suite in fields.get('suites', '').split():
                yield entry(uri, suite, fields.get('signed-by', ''))


def machine_sources():
    """All entries of the machine's own source lists that have main."""
    found = []
    files = [apt_directory('Dir::Etc::sourcelist/f')]
    parts = apt_directory('Dir::Etc::sourceparts/d')
    files += sorted(glob.glob(os.path.join(parts, '*.list')) +
                    glob.glob(os.path.join(parts, '*.sources')))
    for name in files:
        try:
            with open(name, encoding='utf-8') as f:
                text = f.read()
        except OSError:
            continue
        parse = parse_deb822 if name.endswith('.sources') else parse_one_line
        found += parse(text)
    return [e for e in found if not e['uri'].startswith('cdrom:')]


def own_suites():
    """Names under which the machine may subscribe to its own release."""
    codename = ''
    try:
        with open('/etc/os-release', encoding='utf-8') as f:
            for line in f:
                if line.startswith('VERSION_CODENAME='):
                    codename = line.split('=', 1)[1].strip().strip('"')
    except OSError:
        pass
    return {codename, 'stable', 'oldstable', SUITE} - {''}


def pick_mirrors(sources):
    """The first main archive of the machine, and its security archive."""
    names = own_suites()
    archive = next((e for e in sources if e['suite'] in names), None)
    security = next((e for e in sources
                     if e['suite'] in {n + '-security' for n in names}), None)
    if not archive:
        raise Refused('cannot tell which Debian mirror this machine uses, as '
                      'no source under /etc/apt has the main component of '
                      '%s: add one, %s' % (' or '.join(sorted(names)),
                                           OTHER_WAY))
    return archive, security


def knows_suite(key):
    """Whether a Signed-By can be expected to hold the suite's key.

    A Debian 12 machine may name the keyring of its own release only."""
    return not key.startswith('/') or SUITE in key or \
        key.split()[0] == KEYRING


def stanza(source, suites):
    key = source['signed-by']
    if key and not knows_suite(key) and os.path.exists(KEYRING):
        key = KEYRING
    text = ('Types: deb deb-src\nURIs: %s\nSuites: %s\nComponents: main\n'
            % (source['uri'], suites))
    return text + ('Signed-By: %s\n' % key if key else '')


def explain(log):
    """Turn what apt wrote into our sentence."""
    if re.search(r'NO_PUBKEY|not signed|no public key|Missing key', log, re.I):
        return ('this machine does not have the signing key of Debian 13 '
                '(%s): bring the package debian-archive-keyring up to date, '
                '%s' % (SUITE, OTHER_WAY))
    if re.search(r'resolving|resolve|Could not connect|Connection|timed out|'
                 r'unreachable|Failed to fetch|Unable to fetch', log, re.I):
        return ('the Debian mirror of this machine cannot be reached or does '
                'not have %s: look at the network and at /etc/apt, then run '
                'the same command again, %s' % (SUITE, OTHER_WAY))
    return 'apt failed, its words are above; run the same command again'


class PrivateApt:
    """apt on a directory of our own; nothing of the machine is written."""

    def __init__(self, directory, suite=SUITE):
        self.suite = suite
        self.dir = os.path.abspath(directory)
        self.sources = os.path.join(self.dir, 'debian.sources')
        self.options = [
            '-o', 'Dir::Etc::sourcelist=' + self.sources,
            '-o', 'Dir::Etc::sourceparts=/dev/null',
            # The machine's pins speak of the machine's release.
            '-o', 'Dir::Etc::preferences=/dev/null',
            '-o', 'Dir::Etc::preferencesparts=/dev/null',
            '-o', 'Dir::State::lists=' + os.path.join(self.dir, 'lists'),
            '-o', 'Dir::Cache=' + os.path.join(self.dir, 'cache'),
            '-o', 'APT::Update::Error-Mode=any',
            '-o', 'Acquire::Retries=3',
            '-o', 'Acquire::Languages=none',
            # Contents and icons are not wanted, however the machine is set.
            '-o', 'Acquire::IndexTargets::deb::Contents-deb::'
                  'DefaultEnabled=false',
        ]
        if os.geteuid() == 0:
            # User _apt often cannot enter a checkout below /root.
            self.options += ['-o', 'APT::Sandbox::User=root']

    def get(self, *args, cwd=None):
        """apt-get with its progress visible; refuses with our sentence."""
        log = os.path.join(self.dir, 'log')
        cmd = ['apt-get', '-q'] + self.options + list(args)
        with open(log, 'w+', encoding='utf-8', errors='replace') as f:
            r = run(cmd, cwd=cwd, stdin=subprocess.DEVNULL, stderr=f,
                    env=dict(os.environ, LC_ALL='C'))
            f.seek(0)
            text = f.read()
        if r.returncode != 0:
            print(text, end='', flush=True)
            raise Refused(explain(text))

    def cache(self, *args):
        r = run(['apt-cache'] + self.options + list(args),
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=dict(os.environ, LC_ALL='C'))
        return r.stdout

    def update(self):
        archive, security = pick_mirrors(machine_sources())
        if self.suite == DEVELOPMENT:
            text = stanza(archive, self.suite)
        else:
            text = stanza(archive, '%s %s-updates' % (self.suite, self.suite))
            if security:
                text += '\n' + stanza(security, self.suite + '-security')
        for d in ('lists/partial', 'cache/archives/partial'):
            os.makedirs(os.path.join(self.dir, d), exist_ok=True)
        write_atomically(self.sources, text)
        say('fetching the package lists of Debian %s from %s'
            % (self.suite, archive['uri']))
        self.get('update')

    def newest(self, versions):
        best = None
        for v in versions:
            if best is None or run(['dpkg', '--compare-versions', v, 'gt',
                                    best]).returncode == 0:
                best = v
        return best

    def source_version(self, package, series=SERIES[0]):
        """Newest version of a series, such as 1:10.0.13+ds-0+deb13u1."""
        text = self.cache('showsrc', '--only-source', package)
        offered = re.findall(r'^Version: (\S+)$', text, re.M)
        wanted = [v for v in offered
                  if re.match(r'(\d+:)?%s\.\d+\D' % re.escape(series), v)]
        if not wanted:
            raise Refused('Debian %s offers %s %s and this overlay needs '
                          '%s.x: give such a tree with --qemu-source='
                          % (self.suite, package,
                             ', '.join(offered) or 'nowhere', series))
        return self.newest(wanted)

    def depends(self, package):
        """The one package that a metapackage stands for."""
        text = self.cache('depends', '--no-recommends', '--no-suggests',
                          package)
        names = re.findall(r'^\s+Depends: (\S+)$', text, re.M)
        if not names:
            raise Refused('Debian 13 does not offer %s on this machine: '
                          'the guest needs an amd64 machine' % package)
        return names[0]
