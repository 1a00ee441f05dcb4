# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch what deps.conf wants fetched, once, into build/deps.

Every piece is unpacked beside its place and renamed into it when it is
complete, so a piece that is there is whole and a second run does nothing.

    build/deps/apt        private apt state, see apt.py
    build/deps/source     the source package as downloaded; .dsc inside
    build/deps/next       the same of the last series, from the development
                          suite, whose private apt state is in next-apt
    build/deps/python     meson and pycotap, a directory for sys.path
    build/deps/linux      vmlinuz, modules/ (lib/modules/VERSION), version
    build/deps/linux-source  the tree of a kernel that we configure ourselves
"""

import glob
import os
import re
import shutil
import subprocess
import time

from . import Refused, SERIES, root, run_tool, say, write_atomically
from .apt import DEVELOPMENT, PrivateApt

DIST = 'usr/lib/python3/dist-packages'


def read_list():
    """deps.conf as {kind: [words]}; kinds repeat, words add up."""
    kinds = {}
    path = os.path.join(root(), 'scripts', 'deps.conf')
    with open(path, encoding='utf-8') as f:
        for line in f:
            words = line.split('#', 1)[0].split()
            if words:
                kinds.setdefault(words[0], []).append(words[1:])
    return kinds


def version_tuple(text):
    return tuple(int(n) for n in re.findall(r'\d+', text)[:3])


def installed_version(package):
    """Version of the Python package that /usr/bin/python3 sees, or ()."""
    name = package.replace('python3-', '')
    code = ('import importlib.metadata as m\n'
            'try: print(m.version(%r))\n'
            'except m.PackageNotFoundError: pass' % name)
    r = subprocess.run(['/usr/bin/python3', '-c', code], text=True,
                       check=False, stdout=subprocess.PIPE,
                       env={k: v for k, v in os.environ.items()
                            if k != 'PYTHONPATH'})
    return version_tuple(r.stdout)


class Fetcher:
    def __init__(self, deps):
        self.deps = deps
        self.apt = PrivateApt(os.path.join(deps, 'apt'))

    def path(self, *names):
        return os.path.join(self.deps, *names)

    def need_lists(self):
        """Fetch the lists, if something is missing and they are not new.

        One set-up calls us several times; an hour covers it."""
        stamp = self.path('apt', 'updated')
        try:
            if time.time() - os.stat(stamp).st_mtime < 3600:
                return
        except OSError:
            os.makedirs(self.path('apt'), exist_ok=True)
        self.apt.update()
        write_atomically(stamp, '')

    def new_directory(self, name):
        tmp = self.path(name + '.new')
        shutil.rmtree(tmp, ignore_errors=True)
        os.makedirs(tmp)
        return tmp

    def settle(self, name):
        shutil.rmtree(self.path(name), ignore_errors=True)
        os.rename(self.path(name + '.new'), self.path(name))

    def deb(self, package, into):
        """Download a binary package and unpack it into a directory."""
        self.need_lists()
        say('fetching %s of Debian 13 (unpacked, not installed)' % package)
        scratch = self.new_directory('download')
        self.apt.get('download', package, cwd=scratch)
        files = glob.glob(os.path.join(scratch, '*.deb'))
        if len(files) != 1:
            raise Refused('apt downloaded no package %s; run the same '
                          'command again' % package)
        r = subprocess.run(['dpkg-deb', '-x', files[0], into], check=False)
        if r.returncode != 0:
            raise Refused('%s could not be unpacked to %s; is the disk full?'
                          % (os.path.basename(files[0]), into))
        shutil.rmtree(scratch)

    def python(self, wanted):
        """Unpack those Python packages that the machine has too old."""
        need = [name for name, least in wanted
                if installed_version(name) < version_tuple(least)]
        stamp = ' '.join(need)
        try:
            with open(self.path('python', 'packages'), encoding='utf-8') as f:
                if f.read() == stamp:
                    return
        except OSError:
            if not need:
                return
        tmp = self.new_directory('python')
        for name in need:
            scratch = self.new_directory('unpacked')
            self.deb(name, scratch)
            for item in os.listdir(os.path.join(scratch, DIST)):
                os.rename(os.path.join(scratch, DIST, item),
                          os.path.join(tmp, item))
            shutil.rmtree(scratch)
        write_atomically(os.path.join(tmp, 'packages'), stamp)
        self.settle('python')

    def source(self, package):
        """Download the newest source package of Debian 13's series."""
        if not os.path.isdir(self.path('source')):
            self.need_lists()
            self.download(self.apt, package, SERIES[0], 'source')

    def next(self, package):
        """The same of the last series; the suite's lists are always new."""
        if not os.path.isdir(self.path('next')):
            apt = PrivateApt(self.path('next-apt'), DEVELOPMENT)
            apt.update()
            self.download(apt, package, SERIES[-1], 'next')
        say('next: ./configure --qemu-source='
            + os.path.relpath(glob.glob(self.path('next', '*.dsc'))[0],
                              root()))

    def download(self, apt, package, series, name):
        version = apt.source_version(package, series)
        say('fetching the source of %s %s (about 40 MB)' % (package, version))
        tmp = self.new_directory(name)
        apt.get('source', '--download-only', '--only-source',
                '%s=%s' % (package, version), cwd=tmp)
        if len(glob.glob(os.path.join(tmp, '*.dsc'))) != 1:
            raise Refused('apt downloaded no source of %s; run the same '
                          'command again' % package)
        self.settle(name)

    def kernel(self, metapackage):
        """Unpack the guest's kernel and give it names without a version."""
        if os.path.isdir(self.path('linux')):
            return
        self.need_lists()
        tmp = self.new_directory('linux')
        self.deb(self.apt.depends(metapackage), tmp)
        images = glob.glob(os.path.join(tmp, 'boot', 'vmlinuz-*'))
        modules = (glob.glob(os.path.join(tmp, 'lib', 'modules', '*')) +
                   glob.glob(os.path.join(tmp, 'usr/lib', 'modules', '*')))
        if len(images) != 1 or len(modules) != 1:
            raise Refused('the kernel package has no kernel or no modules '
                          'where Debian keeps them; report this')
        os.symlink(os.path.relpath(images[0], tmp),
                   os.path.join(tmp, 'vmlinuz'))
        os.symlink(os.path.relpath(modules[0], tmp),
                   os.path.join(tmp, 'modules'))
        write_atomically(os.path.join(tmp, 'version'),
                         os.path.basename(modules[0]) + '\n')
        self.settle('linux')

    def kernelsource(self, metapackage):
        """Unpack the kernel's source."""
        if os.path.isdir(self.path('linux-source')):
            return
        self.need_lists()
        package = self.new_directory('unpacked')
        self.deb(self.apt.depends(metapackage), package)
        tarballs = glob.glob(os.path.join(package, 'usr', 'src', '*.tar.xz'))
        if len(tarballs) != 1:
            raise Refused('the kernel\'s source package has no source where '
                          'Debian keeps it; report this')
        tmp = self.new_directory('linux-source')
        r = subprocess.run(['tar', '-xf', tarballs[0], '-C', tmp,
                            '--strip-components=1'], check=False)
        if r.returncode != 0:
            raise Refused('%s could not be unpacked to %s; is the disk full?'
                          % (os.path.basename(tarballs[0]), tmp))
        shutil.rmtree(package)
        self.settle('linux-source')


def main(argv):
    """fetch.py DEPS-DIRECTORY KIND...; a KIND is a method of Fetcher."""
    fetcher = Fetcher(argv[0])
    wanted = read_list()
    os.makedirs(argv[0], exist_ok=True)
    for kind in argv[1:]:
        if kind == 'python':
            fetcher.python([tuple(w) for w in wanted['python']])
        else:
            getattr(fetcher, kind)(wanted[kind][0][0])
    return 0


if __name__ == '__main__':
    run_tool(main)
