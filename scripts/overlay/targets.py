# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the targets of a nested QEMU build that the overlay wants.

    targets.py BUILD-DIRECTORY all|install|tests|unit|fuzz

What QEMU installs comes from meson's own list; the rest by name.
"""

import fnmatch
import json
import os
import sys

FUZZ = ('tests/unit/fuzz-vfio-user',)
UNIT = FUZZ + ('tests/unit/test-vfio-user-*',)
TESTS = UNIT + ('tests/qtest/vfio-user-*test', 'qemu-system-x86_64',
                'qemu-img')
ALL = TESTS + ('tests/unit/bench-vfio-user-*',
               'subprojects/libvfio-user/samples/*')
SCOPES = {'all': ALL, 'install': (), 'tests': TESTS, 'unit': UNIT, 'fuzz': FUZZ}


def outputs(build):
    """Names of the files that meson's targets make, with the installed."""
    with open(os.path.join(build, 'meson-info', 'intro-targets.json'),
              encoding='utf-8') as f:
        targets = json.load(f)
    for t in targets:
        if t['type'] in ('run', 'alias', 'jar'):
            continue
        for path in t['filename']:
            yield os.path.relpath(path, build), t


def wanted(name, target, scope):
    if target['type'] == 'executable' and \
            any(fnmatch.fnmatch(name, p) for p in SCOPES[scope]):
        return True
    if scope not in ('all', 'install'):
        return False
    # Headers and icons lie in the source tree and need no target.
    return target['installed'] and not name.startswith('..')


def main():
    build, scope = os.path.abspath(sys.argv[1]), sys.argv[2]
    names = {n for n, t in outputs(build) if wanted(n, t, scope)}
    print('\n'.join(sorted(names)))


main()
