# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree as it was before it was staged, to compare builds with.

    pristine.py DIRECTORY

It is the staged tree without the overlay's links, with what links.py has put
away and with the copies that series.py has kept of the files it patched.  So
it needs neither the archive nor the directory that the tree came from, and
differs from the staged tree in the overlay alone.  It is made anew when the
source changes.
"""

import os
import shutil

from . import Refused, chosen, root, run_tool, say, tree_of
from .links import REPLACED
from .series import PRISTINE, Series
from .stage import load_state, lock, save_state


def undress(tree, into, state):
    """Copy the tree without what stage put there."""
    links = {os.path.join(tree, name) for name in state['links']}
    drop = links | {os.path.join(tree, '.overlay')}
    shutil.copytree(tree, into, symlinks=True,
                    ignore=lambda where, names:
                    [n for n in names if os.path.join(where, n) in drop])
    replaced = os.path.join(tree, REPLACED)
    if os.path.isdir(replaced):
        shutil.copytree(replaced, into, symlinks=True, dirs_exist_ok=True)
    for name in Series(root(), tree, chosen(root())).kept():
        shutil.copy2(os.path.join(tree, PRISTINE, name),
                     os.path.join(into, name))
    for name in sorted({os.path.dirname(name) for name in state['links']},
                       reverse=True):
        try:
            os.rmdir(os.path.join(into, name))
        except OSError:
            pass    # QEMU's own directory


def main(argv):
    into = os.path.abspath(argv[0])
    name = tree_of(chosen(root()))
    tree = os.path.join(root(), name)
    lock(root())
    state = load_state(tree)
    if not state:
        raise Refused('%s is not staged: run ./configure' % name)
    now = {key: state[key] for key in ('source', 'version')}
    if load_state(into) == now:
        return 0
    say('copying QEMU %s as it is without the overlay' % state['version'])
    shutil.rmtree(into, ignore_errors=True)
    undress(tree, into, state)
    os.mkdir(os.path.join(into, '.overlay'))
    save_state(into, now)
    return 0


if __name__ == '__main__':
    run_tool(main)
