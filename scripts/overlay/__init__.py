# SPDX-License-Identifier: GPL-2.0-or-later
"""What configure and make need to lay this repository over QEMU."""

import os
import sys

# The series of QEMU that have hook patches; Debian 13 has the first one.
SERIES = ('10.0', '10.2')
# Names the series of the tree that was staged last, which is built.
CHOSEN = 'subprojects/.series'


class Refused(Exception):
    """One sentence for the user: what, why, what to do."""


def root():
    """The repository: two levels above this file."""
    return os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__))))


def tree_of(series):
    """Where a tree of that series is staged."""
    return 'subprojects/qemu-' + series


def patches_of(series):
    return 'subprojects/packagefiles/qemu-' + series


def chosen(top):
    """The series of the tree that is built."""
    try:
        with open(os.path.join(top, CHOSEN), encoding='utf-8') as f:
            return f.read().strip()
    except FileNotFoundError:
        return SERIES[0]


def versions():
    """The series for a sentence: 10.0.x or 10.2.x."""
    return ' or '.join(s + '.x' for s in SERIES)


def say(text):
    print('  ' + text, flush=True)


def run_tool(main):
    """Run main(argv); a refusal becomes one line on stderr and status 1."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as e:
        print('error: %s' % e, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print('error: interrupted; run the same command again',
              file=sys.stderr)
        sys.exit(130)
    except OSError as e:
        where = ' (%s)' % e.filename if e.filename else ''
        print('error: %s%s; repair that and run the same command again'
              % (e.strerror or e, where), file=sys.stderr)
        sys.exit(1)


def write_atomically(path, text):
    tmp = path + '.tmp'
    with open(tmp, 'w', encoding='utf-8') as f:
        f.write(text)
    os.replace(tmp, path)
