# SPDX-License-Identifier: GPL-2.0-or-later
"""Closing line of a test run: N passed, N failed, N skipped.

Counts test cases where a program speaks TAP, else programs.  Reads meson's
testlog.json: one JSON object a line.  Exits 1 if something failed, and also
if nothing ran, as a run of no tests proves nothing.  What a program that
failed said last comes before: who looks at a cut-off log has the end of it.
"""

import json
import re
import sys

LINE = re.compile(r'^(not )?ok\b\s*(\d*)\s*-?\s*(.*?)\s*'
                  r'(?:#\s*(SKIP|TODO)\S*\s*(.*))?$', re.I)
PASSED = ('OK', 'EXPECTEDFAIL')
LAST = 200              # lines of each kind of output


def cases(text):
    """(name, verdict, reason) of every TAP line of a program."""
    for line in text.splitlines():
        m = LINE.match(line)
        if not m:
            continue
        bad, _, name, mark, reason = m.groups()
        if mark and mark.upper() == 'SKIP':
            yield name, 'skipped', reason
        else:
            yield name, 'failed' if bad else 'passed', ''


def judge(entry):
    """All cases of one program; its own verdict must not get lost."""
    # meson puts "project:suite / " before the name.
    program, result = entry['name'].split(' / ')[-1], entry['result']
    whole = re.search(r'^1\.\.0\s*#\s*SKIP\S*\s*(.*)$',
                      entry.get('stdout', ''), re.M | re.I)
    if whole:
        return [(program, 'skipped', whole.group(1))]
    found = [(program + ' ' + n, v, r)
             for n, v, r in cases(entry.get('stdout', ''))]
    if result in PASSED or result == 'SKIP':
        verdict = 'passed' if result in PASSED else 'skipped'
        return found or [(program, verdict, '')]
    if not any(v == 'failed' for _, v, _ in found):
        found.append((program, 'failed', result.lower()))
    return found


def show(entry):
    """The end of what a program wrote."""
    for kind in 'stdout', 'stderr':
        for line in entry.get(kind, '').splitlines()[-LAST:]:
            print('%s %s: %s' % (entry['name'].split(' / ')[-1], kind, line))


def main():
    found = []
    try:
        with open(sys.argv[1], encoding='utf-8') as f:
            for line in f:
                entry = json.loads(line)
                verdicts = judge(entry)
                if any(verdict == 'failed' for _, verdict, _ in verdicts):
                    show(entry)
                found += verdicts
    except OSError:
        print('no test ran')
    count = {'passed': 0, 'failed': 0, 'skipped': 0}
    for name, verdict, reason in found:
        count[verdict] += 1
        if verdict == 'skipped':
            print('skipped: %s: %s' % (name, reason or 'no reason given'))
    for name, verdict, reason in found:
        if verdict == 'failed':
            print('failed: %s%s' % (name, reason and ': ' + reason))
    print('%(passed)d passed, %(failed)d failed, %(skipped)d skipped' % count)
    return 1 if count['failed'] or not found else 0


sys.exit(main())
