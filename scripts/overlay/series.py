# SPDX-License-Identifier: GPL-2.0-or-later
"""The hook patches: applied without fuzz, re-applied without disturbance.

The problem: a changed patch must not cost a rebuild of everything, must not
leave a half-patched tree, and must not swallow what somebody edited in the
staged tree.  So before a file is patched for the first time its pristine
copy goes to .overlay/pristine in the staged tree.  The series is always
applied to pristine copies, in a scratch directory; only when all of it has
applied are those files written whose content differs.  Files that ninja has
seen and that did not change keep their time stamps.

Invariant: a file has a pristine copy if and only if the series touches it;
the copy is written before the file is changed.  So a run
that is interrupted anywhere is completed by the next.
"""

import hashlib
import os
import re
import shutil
import subprocess

from . import Refused, patches_of

PRISTINE = '.overlay/pristine'


def read_list(directory, name):
    """The lines of a list without comments; no file means an empty list."""
    try:
        with open(os.path.join(directory, name), encoding='utf-8') as f:
            lines = [l.split('#', 1)[0].strip() for l in f]
    except FileNotFoundError:
        return []
    return [l for l in lines if l]


def read_series(root, series):
    """Paths of the patches in order."""
    directory = os.path.join(root, patches_of(series))
    paths = [os.path.join(directory, n)
             for n in read_list(directory, 'series')]
    for p in paths:
        if not os.path.isfile(p):
            raise Refused('%s/series names %s, which is not there: add the '
                          'file or remove the line'
                          % (patches_of(series), os.path.basename(p)))
    return paths


def digest(paths):
    h = hashlib.sha256()
    for p in paths:
        with open(p, 'rb') as f:
            data = f.read()
        h.update(b'%s %d\n' % (os.path.basename(p).encode(), len(data)))
        h.update(data)
    return h.hexdigest()


def touched(patch):
    """Files that a patch changes; a patch may only change files."""
    with open(patch, encoding='utf-8', errors='replace') as f:
        text = f.read()
    name = os.path.basename(patch)
    files = []
    for old, new in re.findall(r'^--- (\S+).*\n\+\+\+ (\S+)', text, re.M):
        if '/dev/null' in (old, new) or old[2:] != new[2:]:
            raise Refused('%s adds, removes or renames %s: hook patches only '
                          'change files; put a new file into the overlay '
                          'under its own path'
                          % (name, new if old == '/dev/null' else old))
        files.append(new[2:])
    if not files:
        raise Refused('%s changes no file: repair it or take it out of the '
                      'series' % name)
    return files


def same(a, b):
    try:
        with open(a, 'rb') as fa, open(b, 'rb') as fb:
            return fa.read() == fb.read()
    except OSError:
        return False


def file_digest(path):
    try:
        with open(path, 'rb') as f:
            return hashlib.sha256(f.read()).hexdigest()
    except OSError:
        return ''


def place(src, dst):
    """Copy a file with its mode, complete or not at all."""
    os.makedirs(os.path.dirname(dst), exist_ok=True)
    tmp = dst + '.overlay-new'
    shutil.copyfile(src, tmp)
    shutil.copymode(src, tmp)
    os.replace(tmp, dst)


class Series:
    def __init__(self, root, tree, series):
        self.tree = tree
        self.where = patches_of(series)
        self.pristine = os.path.join(tree, PRISTINE)
        self.scratch = os.path.join(tree, '.overlay', 'scratch')
        self.patches = read_series(root, series)

    def digest(self):
        return digest(self.patches)

    def in_tree(self, name):
        return os.path.join(self.tree, name)

    def kept(self):
        """All files that have a pristine copy."""
        found = []
        for where, _, files in os.walk(self.pristine):
            found += [os.path.relpath(os.path.join(where, f), self.pristine)
                      for f in files]
        return sorted(found)

    def prepare(self, names):
        """Fill the scratch directory with pristine copies."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        for name, patch in names.items():
            src = os.path.join(self.pristine, name)
            if not os.path.exists(src):
                src = self.in_tree(name)
            if os.path.islink(src) or not os.path.isfile(src):
                raise Refused('%s patches %s, which this QEMU does not have: '
                              'refresh the patch for this version'
                              % (patch, name))
            place(src, os.path.join(self.scratch, name))

    def apply(self, patch):
        r = subprocess.run(['patch', '-p1', '--fuzz=0', '--forward', '--batch',
                            '--no-backup-if-mismatch', '--reject-file=-',
                            '-d', self.scratch, '-i', patch],
                           check=False, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        if r.returncode != 0:
            failed = re.findall(r'^(?:checking|patching) file (\S+)|'
                                r'(Hunk #\d+ FAILED at \d+)', r.stdout, re.M)
            where, last = [], '?'
            for name, hunk in failed:
                last = name or last
                if hunk:
                    where.append('%s: %s' % (last, hunk))
            raise Refused('%s does not apply to this QEMU (%s): refresh it '
                          'in %s and run the same command again'
                          % (os.path.basename(patch),
                             '; '.join(where) or r.stdout.strip(),
                             self.where))

    def refuse_edits(self, files, placed):
        """An edit made in the staged tree is not ours to throw away."""
        for name in files:
            path = self.in_tree(name)
            now = file_digest(path)
            expected = {placed.get(name, now),
                        file_digest(os.path.join(self.pristine, name)),
                        file_digest(os.path.join(self.scratch, name))}
            if now not in expected:
                raise Refused('%s/%s was edited there and restaging would '
                              'undo it: carry the change into a patch of %s '
                              'and remove the edited file'
                              % (os.path.relpath(self.tree), name, self.where))

    def restage(self, placed):
        """Bring the patched files to the series' state.

        placed: {file: digest} as the last run left them.  Returns the new
        one and the names of the files that were written."""
        names = {}
        for p in self.patches:
            for name in touched(p):
                names.setdefault(name, os.path.basename(p))
        self.prepare(names)
        for p in self.patches:
            self.apply(p)

        known = self.kept()
        self.refuse_edits(known, placed)
        for name in names:
            if name not in known:
                place(self.in_tree(name), os.path.join(self.pristine, name))
        written, after = [], {}
        for name in sorted(set(names) | set(known)):
            home = self.scratch if name in names else self.pristine
            src, dst = os.path.join(home, name), self.in_tree(name)
            if not same(src, dst):
                place(src, dst)
                written.append(name)
            if name in names:
                after[name] = file_digest(dst)
            else:
                os.remove(src)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return after, written
