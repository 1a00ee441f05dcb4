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

from . import CHOSEN, Refused, SERIES, chosen, links, patches_of, root, \
    run_tool, say, tree_of, write_atomically
from . import source as sources
from .series import Series, read_list

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

    Room is made first, the names are checked before anything else."""
    told = []
    name = sources.series_of(state['version'])
    moved = links.make_room(tree, read_list(
        os.path.join(top, patches_of(name)), 'replaced'))
    if moved:
        told.append("QEMU's own %s replaced" % ', '.join(moved))
    links.check_clashes(top, tree, links.overlay_files(top))
    series = Series(top, tree, name)
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


def stage_new(top, source, identity):
    """A fresh tree, dressed before it takes the old one's place."""
    try:
        tmp = sources.unpack(source, top)
        os.makedirs(os.path.join(tmp, '.overlay'))
        state = {'source': identity,
                 'version': sources.check_version(tmp, tmp)}
        # As deep below the repository as the final place is, so the links
        # are right already.
        told = dress(top, tmp, state)
        name = tree_of(sources.series_of(state['version']))
        replace_tree(tmp, os.path.join(top, name))
    finally:
        sources.clear_leftovers(top)
    choose(top, sources.series_of(state['version']))
    return ['QEMU %s staged in %s' % (state['version'], name)] + told


def choose(top, series):
    """From now on the tree of that series is built."""
    if chosen(top) != series:
        write_atomically(os.path.join(top, CHOSEN), series + '\n')


def stage_source(top, source):
    """The tree of a source: one that is there, or a fresh one."""
    identity = source.identity()
    for series in SERIES:
        tree = os.path.join(top, tree_of(series))
        state = load_state(tree)
        if state.get('source') == identity:
            choose(top, series)
            return dress(top, tree, state)
    return stage_new(top, source, identity)


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
    name = tree_of(chosen(top))
    tree = os.path.join(top, name)
    if args.state:
        print(load_state(tree).get(args.state, ''))
        return 0
    lock(top)
    if args.refresh:
        state = load_state(tree)
        if not state:
            raise Refused('%s is not staged: run ./configure' % name)
        told = dress(top, tree, state)
    else:
        deps = args.deps or os.path.join(top, 'build', 'deps')
        told = stage_source(top, sources.choose(args.source, deps))
    for line in told:
        say(line)
    return 0


if __name__ == '__main__':
    run_tool(main)
