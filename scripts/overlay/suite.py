# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints a sources.list for a Debian suite, on the machine's own mirror.

    python3 -m overlay.suite SUITE
"""

import os

from . import Refused, apt, run_tool


def lines(archive, security, suite):
    """What a system of that suite needs; the archive itself comes first."""
    if not os.path.exists(apt.KEYRING):
        raise Refused('%s is not there: install debian-archive-keyring'
                      % apt.KEYRING)
    form = 'deb [signed-by=%s] %%s %%s main' % apt.KEYRING
    wanted = [(archive, suite), (archive, suite + '-updates')]
    if security:
        wanted.append((security, suite + '-security'))
    return [form % (source['uri'], name) for source, name in wanted]


def main(argv):
    archive, security = apt.pick_mirrors(apt.machine_sources())
    print('\n'.join(lines(archive, security, argv[0])))
    return 0


if __name__ == '__main__':
    run_tool(main)
