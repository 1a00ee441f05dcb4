# SPDX-License-Identifier: GPL-2.0-or-later
"""Stage: QEMU's tree, the hook patches on it, the overlay's links in it.

configure runs this with --source; make runs it before each ninja, where it
costs a few dozen stat calls.  State is .overlay/state.json in the staged
tree, written last, so that it never promises more than is there.
"""

import argparse
import fcntl
import json
import os
import shutil

from . import Refused, TREE, links, root, run_tool, say, \
    write_atomically
from . import source as sources
from .series import Series

STATE = '.overlay/state.json'


def load_state(tree):
    try:
        with open(os.path.join(tree, STATE), encoding='utf-8') as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def save_state(tree, state):
    write_atomically(os.path.join(tree, STATE),
                     json.dumps(state, indent=1, sort_keys=True) + '\n')


def dress(top, tree, state):
    """Patches and links into a tree; returns lines that tell what was done.

    The names are checked before anything is changed."""
    links.check_clashes(top, tree, links.overlay_files(top))
    told = []
    series = Series(top, tree)
    if state.get('series') != series.digest() or 'placed' not in state:
        placed, written = series.restage(state.get('placed', {}))
        state['placed'], state['series'] = placed, series.digest()
        told.append('%d hook patches applied, %d files of QEMU changed'
                    % (len(series.patches), len(written)))
    names, added, removed = links.sync(top, tree, state.get('links', []))
    if names != state.get('links'):
        told.append('%d overlay files linked, %d links removed'
                    % (len(added), len(removed)))
        state['links'] = names
    if told:
        save_state(tree, state)
    return told


def lock(top):
    """One stage step at a time; the kernel drops the lock at exit."""
    directory = os.path.join(top, 'subprojects')
    os.makedirs(directory, exist_ok=True)
    fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_EX)


def replace_tree(tmp, tree):
    """Put a finished tree into its place; the old one goes last."""
    old = tmp + '.old'
    if os.path.isdir(tree):
        os.rename(tree, old)
    os.rename(tmp, tree)
    shutil.rmtree(old, ignore_errors=True)


def stage_new(top, tree, source, identity):
    """A fresh tree, dressed before it takes the old one's place."""
    try:
        tmp = sources.unpack(source, top)
        os.makedirs(os.path.join(tmp, '.overlay'))
        state = {'source': identity,
                 'version': sources.check_version(tmp, tmp)}
        # As deep below the repository as the final place is, so the links
        # are right already.
        told = dress(top, tmp, state)
        replace_tree(tmp, tree)
    finally:
        sources.clear_leftovers(top)
    return ['QEMU %s staged in %s' % (state['version'], TREE)] + told


def main(argv):
    p = argparse.ArgumentParser(prog='stage')
    p.add_argument('--root', default=root(), help='the repository')
    p.add_argument('--deps', help='where fetch.py put things')
    p.add_argument('--source', help='directory or tarball; empty: Debian')
    p.add_argument('--refresh', action='store_true',
                   help='only patches and links of the tree that is there')
    p.add_argument('--state', metavar='KEY',
                   help='print one entry of the state, as: source, links')
    args = p.parse_args(argv)
    top = os.path.abspath(args.root)
    tree = os.path.join(top, TREE)
    if args.state:
        print(load_state(tree).get(args.state, ''))
        return 0
    lock(top)
    state = load_state(tree)
    if args.refresh:
        if not state:
            raise Refused('%s is not staged: run ./configure' % TREE)
        told = dress(top, tree, state)
    else:
        deps = args.deps or os.path.join(top, 'build', 'deps')
        source = sources.choose(args.source, deps)
        identity = source.identity()
        if state.get('source') == identity:
            told = dress(top, tree, state)
        else:
            told = stage_new(top, tree, source, identity)
    for line in told:
        say(line)
    return 0


if __name__ == '__main__':
    run_tool(main)
