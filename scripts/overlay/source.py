# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a QEMU tree comes from, and how a pristine one gets into place.

A source is Debian's package (build/deps/source), another one's .dsc, a
directory or a tarball.  Each has an identity, kept with the staged tree: as
long as it is the same, the tree is not unpacked again.  Unpacking goes to a
directory beside the final one, which is renamed when it is complete, so an
interrupted run leaves either the old tree or none.
"""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import tarfile

from . import Refused, SERIES, say, versions

# Parts of a full tree without which nothing can be built offline.
SUBPROJECTS = ('keycodemapdb', 'libvfio-user', 'berkeley-softfloat-3')


def series_of(version):
    """The series that a release belongs to, None if it is none of ours."""
    m = re.match(r'(\d+\.\d+)\.(\d+)$', version)
    # From .50 on it is a development version of the next series.
    if m and m.group(1) in SERIES and int(m.group(2)) < 50:
        return m.group(1)
    return None


def check_version(tree, name):
    """The tree's version, refused unless it is a release of a series."""
    try:
        with open(os.path.join(tree, 'VERSION'), encoding='utf-8') as f:
            version = f.read().strip()
    except OSError:
        raise Refused('%s is not a QEMU source tree (it has no VERSION): '
                      'name a QEMU %s tree or tarball with '
                      '--qemu-source=' % (name, versions())) from None
    if not series_of(version):
        raise Refused('%s is QEMU %s and this overlay is written for %s: '
                      'name such a tree with --qemu-source=, or leave the '
                      'option out to use Debian\'s'
                      % (name, version, versions()))
    return version


def check_complete(tree, name):
    for sub in SUBPROJECTS:
        if not os.path.exists(os.path.join(tree, 'subprojects', sub,
                                           'meson.build')):
            raise Refused('%s lacks subprojects/%s, as git checkouts do: '
                          'run "meson subprojects download" there, or use a '
                          'release tarball' % (name, sub))


def skipped(directory, names):
    """What of a user's directory is not source: git's data, builds."""
    return [n for n in names if n == '.git' or
            (os.path.isdir(os.path.join(directory, n)) and
             os.path.exists(os.path.join(directory, n, 'build.ninja')))]


class Directory:
    def __init__(self, path):
        self.path = os.path.realpath(path)

    def identity(self):
        """Names, sizes and times of all files: an edit there is seen."""
        h = hashlib.sha256()
        for where, dirs, files in os.walk(self.path):
            drop = skipped(where, dirs)
            dirs[:] = sorted(d for d in dirs if d not in drop)
            for f in sorted(files):
                st = os.lstat(os.path.join(where, f))
                h.update(('%s %d %d\n' % (os.path.join(where, f), st.st_size,
                                          st.st_mtime_ns)).encode())
        return 'directory %s %s' % (self.path, h.hexdigest())

    def check(self):
        check_version(self.path, self.path)
        check_complete(self.path, self.path)

    def unpack(self, into):
        say('copying %s' % self.path)
        shutil.copytree(self.path, into, symlinks=True,
                        ignore=lambda d, names: skipped(d, names))


class Tarball:
    def __init__(self, path):
        self.path = os.path.realpath(path)

    def identity(self):
        st = os.stat(self.path)
        return 'tarball %s %d %d' % (self.path, st.st_size, st.st_mtime_ns)

    def check(self):
        if not tarfile.is_tarfile(self.path):
            raise Refused('%s is neither a directory nor a tarball: name a '
                          'QEMU %s tree or tarball with --qemu-source='
                          % (self.path, versions()))

    def unpack(self, into):
        say('unpacking %s' % self.path)
        scratch = into + '.tar'
        os.mkdir(scratch)
        r = subprocess.run(['tar', '-xf', self.path, '-C', scratch],
                           check=False)
        if r.returncode != 0:
            raise Refused('%s cannot be unpacked; is it whole, and is the '
                          'disk full?' % self.path)
        found = [scratch] + sorted(glob.glob(os.path.join(scratch, '*')))
        tops = [d for d in found
                if os.path.exists(os.path.join(d, 'VERSION'))]
        if not tops:
            raise Refused('%s holds no QEMU source tree: name a QEMU %s '
                          'tarball' % (self.path, versions()))
        os.rename(tops[0], into)
        if tops[0] != scratch:
            shutil.rmtree(scratch)


class Package:
    """A Debian source package: its .dsc, with the rest beside it."""

    def __init__(self, path):
        self.path = os.path.realpath(path)

    def identity(self):
        st = os.stat(self.path)
        return 'package %s %d %d' % (self.path, st.st_size, st.st_mtime_ns)

    def check(self):
        pass

    def unpack(self, into):
        name = os.path.basename(self.path)
        say('unpacking %s' % name)
        # apt has checked the signature; dpkg has no keyring of its own.
        r = subprocess.run(['dpkg-source', '--no-check', '--no-copy', '-x',
                            self.path, into], check=False,
                           stdout=subprocess.DEVNULL)
        if r.returncode != 0:
            raise Refused('dpkg-source cannot unpack %s (see above): remove '
                          '%s and run ./configure'
                          % (name, os.path.dirname(self.path)))


class Debian(Package):
    """The source package that fetch.py has put below build/deps."""

    def __init__(self, directory):
        dsc = glob.glob(os.path.join(directory, '*.dsc'))
        super().__init__(dsc[0] if len(dsc) == 1 else directory)

    def identity(self):
        return 'debian'

    def unpack(self, into):
        if not self.path.endswith('.dsc'):
            raise Refused('%s has no source package: remove the directory '
                          'and run ./configure' % self.path)
        super().unpack(into)


def choose(name, deps):
    """The source that --qemu-source=NAME means; '' is Debian's."""
    if not name:
        return Debian(os.path.join(deps, 'source'))
    if not os.path.exists(name):
        raise Refused('--qemu-source=%s does not exist: name a QEMU %s '
                      'tree or tarball' % (name, versions()))
    if os.path.isdir(name):
        return Directory(name)
    return Package(name) if name.endswith('.dsc') else Tarball(name)


def clear_leftovers(root):
    """Remove what an interrupted run left beside the staged tree."""
    for old in glob.glob(os.path.join(root, 'subprojects', '.staging-*')):
        shutil.rmtree(old, ignore_errors=True)


def unpack(source, root):
    """Unpack and check; returns the temporary directory with the tree."""
    os.makedirs(os.path.join(root, 'subprojects'), exist_ok=True)
    clear_leftovers(root)
    source.check()
    tmp = os.path.join(root, 'subprojects', '.staging-qemu')
    source.unpack(tmp)
    check_version(tmp, getattr(source, 'path', 'Debian\'s source'))
    check_complete(tmp, getattr(source, 'path', 'Debian\'s source'))
    return tmp
