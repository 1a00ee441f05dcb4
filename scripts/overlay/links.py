# SPDX-License-Identifier: GPL-2.0-or-later
"""Lays the overlay's files into the staged tree as symbolic links.

An edit here is then seen by the next ninja there.  Links are relative, so
the checkout may be moved.  Only names that QEMU does not have are laid in;
what connects them to QEMU is the patches' job.
"""

import fnmatch
import os
import shutil

from . import Refused

# Files of QEMU's own that ours take the place of are kept here.
REPLACED = '.overlay/replaced'

# Where the overlay's files live, and which of them belong into QEMU.  A
# directory that ends in ** is laid in with all below it.
RULES = (
    ('hw/vfio-user/**', ('*',)),
    ('include/hw/vfio-user/**', ('*.h',)),
    ('include/hw/vfio', ('*.h',)),
    ('qapi', ('*.json',)),
    ('docs/system/devices', ('*.rst', '*.rst.inc')),
    ('docs/interop', ('*.rst',)),
    ('docs/devel', ('*.rst',)),
    ('docs/devel/vfio-user', ('*.svg',)),
    ('tests/fuzz', ('*.c', '*.h')),
    ('tests/unit', ('*.c', '*.h')),
    ('tests/qtest', ('*.c', '*.h')),
    ('tests/server/**', ('*.c', '*.h')),
    ('tests/bench', ('*.c', '*.h')),
    ('tests/functional', ('*.py',)),
)


def editor_file(name):
    return name.endswith('~') or name.startswith(('.', '#'))


def overlay_files(root):
    """Relative paths of all files to be laid in."""
    found = []
    for where, patterns in RULES:
        deep = where.endswith('/**')
        top = os.path.join(root, where[:-3] if deep else where)
        for d, dirs, files in os.walk(top):
            dirs[:] = sorted(n for n in dirs if deep and
                             n != '__pycache__' and not editor_file(n))
            found += [os.path.relpath(os.path.join(d, f), root)
                      for f in sorted(files) if not editor_file(f) and
                      any(fnmatch.fnmatch(f, p) for p in patterns)]
    return found


def target_of(root, tree, name):
    """What the link tree/name has to say to reach root/name."""
    return os.path.relpath(os.path.join(root, name),
                           os.path.dirname(os.path.join(tree, name)))


def check_clashes(root, tree, names):
    for name in names:
        path = os.path.join(tree, name)
        if os.path.islink(path):
            if os.readlink(path) == target_of(root, tree, name):
                continue
        if os.path.lexists(path):
            raise Refused('%s has the name of a file of QEMU: the overlay '
                          'only adds files, so choose another name, or '
                          'change QEMU\'s file with a hook patch' % name)


def make_room(tree, names):
    """Move files and directories of QEMU away that ours take the place of.

    What is kept already was moved by an earlier run; what has the name now
    is ours.  Returns the names that were moved."""
    moved = []
    for name in names:
        path, kept = os.path.join(tree, name), os.path.join(tree, REPLACED, name)
        if os.path.lexists(kept):
            continue
        if not os.path.lexists(path):
            raise Refused('the list of what is replaced names %s, which this '
                          'QEMU does not have: take it out' % name)
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        shutil.move(path, kept)
        moved.append(name)
    return moved


def sync(root, tree, old):
    """Make the links match the overlay's files.

    old: the names that the last run laid in.  Returns the names laid in
    now, those added, and those removed."""
    names = overlay_files(root)
    check_clashes(root, tree, names)
    added, removed = [], []
    for name in sorted(set(old) - set(names)):
        path = os.path.join(tree, name)
        if os.path.islink(path):
            os.unlink(path)
            removed.append(name)
            prune(tree, os.path.dirname(path))
    for name in names:
        path = os.path.join(tree, name)
        if not os.path.islink(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target_of(root, tree, name), path)
            added.append(name)
    return names, added, removed


def prune(tree, directory):
    """Remove directories that only held links of ours."""
    while directory != tree and not os.listdir(directory):
        os.rmdir(directory)
        directory = os.path.dirname(directory)
