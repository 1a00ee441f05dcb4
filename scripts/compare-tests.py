#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare two runs of QEMU's tests, before and after the overlay.

    compare-tests.py BEFORE.json AFTER.json [BEFORE-AGAIN.json AFTER-AGAIN.json]
    compare-tests.py --differing BEFORE.json AFTER.json

The files are meson's test logs.  A program's result is meson's verdict and
that of each of its TAP cases.  The overlay's own programs and cases (those of
qmp-cmd-test are commands) are named and left out.  Programs of the second pair take the place of those in the first.
Prints differences and a closing line; exits 1 if there is one, or if there
was nothing to compare.  With --differing it prints their names only.
"""

import collections
import json
import re
import sys

OURS = re.compile(r'vfio-user')
CASE = re.compile(r'^(ok|not ok)\b\s*\d*\s*(?:-\s*)?(.*?)\s*'
                  r'(?:#\s*(SKIP|TODO)\b.*)?$')


def cases(text):
    """{case: verdict} of a program's TAP."""
    found = {}
    for line in text.splitlines():
        match = CASE.match(line)
        if match:
            found[match[2]] = match[3] or match[1]
    return found


def read_log(path):
    """{program: {case: verdict}}; '' is the program as a whole."""
    programs = {}
    with open(path, encoding='utf-8') as file:
        for line in file:
            entry = json.loads(line)
            programs[entry['name'].split(' / ')[-1]] = {
                **cases(entry.get('stdout', '')), '': entry['result']}
    return programs


def differences(name, before, after):
    """A line for each case whose verdict changed."""
    for case in sorted(set(before) | set(after)):
        verdicts = before.get(case, 'absent'), after.get(case, 'absent')
        if verdicts[0] != verdicts[1]:
            yield f'{name} {case or "(whole program)"}: without the ' \
                f'overlay {verdicts[0]}, with it {verdicts[1]}'


def compare(before, after):
    """{program: [difference]} for those that differ."""
    found = {name: list(differences(name, before.get(name, {}),
                                    after.get(name, {})))
             for name in sorted(set(before) | set(after))}
    return {name: lines for name, lines in found.items() if lines}


def leave_out(programs):
    """Split off the overlay's own: the rest, and the names left out."""
    rest = {name: {case: verdict for case, verdict in cases.items()
                   if not OURS.search(case)}
            for name, cases in programs.items() if not OURS.search(name)}
    left = {name for name in programs if name not in rest}
    left |= {f'{name} {case}' for name in rest for case in programs[name]
             if case not in rest[name]}
    return rest, sorted(left)


def count(programs):
    """How many programs and cases there are, by verdict."""
    verdicts = collections.Counter(
        verdict.lower() for cases in programs.values()
        for case, verdict in cases.items() if case)
    return f'{len(programs)} programs, cases: ' + ', '.join(
        f'{number} {verdict}' for verdict, number in sorted(verdicts.items()))


def main():
    """Command line."""
    args = sys.argv[1:]
    names_only = args[0] == '--differing'
    (before, _), (after, ours), *again = (
        leave_out(read_log(path)) for path in args[names_only:])
    found = compare(before, after)
    if names_only:
        print('\n'.join(found))
        return 0
    if again:
        for name in found:
            print(f'{name} differed beside other tests and ran again alone')
        before.update(again[0][0])
        after.update(again[1][0])
        found = compare(before, after)
    for lines in found.values():
        print('\n'.join(lines))
    print(f'left out, the overlay\'s own: {", ".join(ours) or "none"}')
    print(f'without the overlay: {count(before)}')
    print(f'with the overlay: {count(after)}')
    bad = sorted(f'{name} {case}'.strip() for name in after
                 for case, verdict in after[name].items()
                 if verdict in ('not ok', 'FAIL', 'ERROR', 'TIMEOUT',
                                'INTERRUPT'))
    print(f'failing in both or differing: {", ".join(bad) or "none"}')
    print(f'differences: {sum(map(len, found.values())) or "none"}')
    return 1 if found or not before else 0


if __name__ == '__main__':
    sys.exit(main())
