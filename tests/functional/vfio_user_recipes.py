# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipes of the user's page, as they stand there.

In docs/system/devices/vfio-user-recipes.rst.inc a line ".. recipe: NAME" stands
before each block that is run.  Directory and programs of the text are replaced
by a test's own, nothing else.
"""

import re
import shlex
import textwrap

from vfio_user_case import REPOSITORY

PAGE = (REPOSITORY / 'docs' / 'system' / 'devices'
        / 'vfio-user-recipes.rst.inc')
BLOCK = re.compile(r'^\.\. recipe: (\S+)\n\n\.\. code-block:: \S+\n\n'
                   r'((?:   .*\n|\n)+)', re.MULTILINE)
DIRECTORY = '/run/vm1'


def read():
    """The blocks by name."""
    found = BLOCK.findall(PAGE.read_text(encoding='utf-8'))
    return {name: textwrap.dedent(text) for name, text in found}


def commands(text):
    """Argument lists of a block of shell commands without anything clever.

    The last one may end in "&" or "...": the server that goes on, the rest of
    the machine.
    """
    lines = text.replace('\\\n', ' ').splitlines()
    found = [shlex.split(line) for line in lines if line.strip()]
    if found[-1][-1] in ('&', '...'):
        found[-1].pop()
    return found
