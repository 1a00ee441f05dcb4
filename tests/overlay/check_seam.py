#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Do kernel devices still get the system calls they got before?

The hook patches replace each system call on a device's file descriptor by a
function that makes the same call unless the device brings its own table.
This test takes the replacement back, in the patched files as staged, and
compares what results with the pristine files, statement by statement. Fixes of
hw/vfio's own mistakes, which are for every device, are taken back before. What
then still differs must be exactly what seam_lists.py has, where each entry
can be seen to make no system call for a device without a table. A hook that is
added, changed or lost makes the test fail until the list is looked at again.

test_seam.py runs this; by hand: check_seam.py [STAGED-TREE [PRISTINE-TREE]]
"""

import difflib
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

from seam_lists import FIXES, LISTS

HEADER = 'include/hw/vfio/vfio-device-file.h'

# What each wrapper does for a device without a table.
WRAPPERS = {
    'vfio_file_ioctl': 'ioctl(vbasedev->fd,request,arg)',
    'vfio_file_pread': 'pread(vbasedev->fd,buf,len,off)',
    'vfio_file_pwrite': 'pwrite(vbasedev->fd,buf,len,off)',
    'vfio_file_mmap': 'mmap(addr,len,prot,flags,vbasedev->fd,off)',
    'vfio_file_mig_ioctl':
        'ioctl(vbasedev->migration->data_fd,request,arg)',
    'vfio_file_mig_read': 'read(vbasedev->migration->data_fd,buf,len)',
    'vfio_file_mig_write': 'write(vbasedev->migration->data_fd,buf,len)',
}

TOKEN = re.compile(r'''
    /\*.*?\*/ | //[^\n]*                       # dropped
  | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'
  | [A-Za-z_]\w* | \.?\d[\w.]*
  | -> | \+\+ | -- | << | >> | <= | >= | == | != | && | \|\| | \.\.\.
  | \S''', re.X | re.S)

CALL = re.compile(r'vfio_file_(\w+)\(')


def squeeze(text):
    """Text without comments, with blanks only where they matter."""
    out = ''
    for t in TOKEN.findall(text):
        if t.startswith(('/*', '//')):
            continue
        if out and re.match(r'\w', t) and re.match(r'\w', out[-1]):
            out += ' '
        out += t
    return out


def statements(text):
    """One string per statement, brace or preprocessor line."""
    text = text.replace('\\\n', ' ')
    result, code = [], ''
    for line in text.split('\n') + ['#']:
        if line.lstrip().startswith('#'):
            result += re.findall(r'[^;{}]*[;{}]|[^;{}]+$', squeeze(code))
            result.append(' '.join(line.split()))
            code = ''
        else:
            code += line + '\n'
    return [s for s in result[:-1] if s]


def arguments(text, start):
    """Arguments of the call whose '(' is before start; where it ends."""
    depth, args, arg = 0, [], ''
    for i in range(start, len(text)):
        c = text[i]
        if c == ')' and depth == 0:
            return args + [arg.strip()], i + 1
        if c == ',' and depth == 0:
            args.append(arg.strip())
            arg = ''
            continue
        depth += (c == '(') - (c == ')')
        arg += c
    raise ValueError('unbalanced call: ' + text[start:start + 60])


def descriptor(device):
    """The expression for a device's descriptor as it was written."""
    if device.startswith('&'):
        return device[1:] + '.fd'
    return 'vga->fd' if device == 'vga->vbasedev' else device + '->fd'


def system_call(name, args):
    """What stood there before the call of a wrapper did."""
    if name == 'mmap':
        device, *rest = args
        return 'mmap(%s)' % ', '.join(rest[:4] + [descriptor(device), rest[4]])
    if name == 'mig_load':
        return 'qemu_file_get_to_fd(%s, vbasedev->migration->data_fd, %s)' % (
            args[0], args[2])
    if name == 'get_info':
        return 'vfio_get_device_info(%s)' % descriptor(args[0])
    if name.startswith('mig_'):
        return '%s(migration->data_fd, %s)' % (name[4:], ', '.join(args[1:]))
    if args[1:] == ['VFIO_DEVICE_RESET', 'NULL']:
        args = args[:2]
    return '%s(%s)' % (name, ', '.join([descriptor(args[0])] + args[1:]))


def undo(text):
    """The patched text with every wrapper taken back."""
    text = text.replace('\\\n', ' ')
    m = CALL.search(text)
    while m:
        args, end = arguments(text, m.end())
        text = text[:m.start()] + system_call(m[1], args) + text[end:]
        m = CALL.search(text)
    return text


OLD_LOCAL = re.compile(r'(?<=;)\n *int fd = vdev->vbasedev\.fd;'
                       r'|, fd = vdev->vbasedev\.fd')
NEW_LOCAL = re.compile(r'\n *VFIODevice \*vbasedev = &vdev->vbasedev;')


def inline_locals(old, new):
    """Functions that keep the descriptor, now the device, in a local.

    Where the old one has such a local, its uses are replaced by what it
    stands for and its declaration goes, in both. The macros of display.c
    take a descriptor, now a device, under a name of their own."""
    new = re.sub(r'_dev(?:->fd)?\b(?=,)', '_fd', new.replace('\\\n', ' '))
    a = re.split(r'(?<=\n}\n)', old.replace('\\\n', ' '))
    b = re.split(r'(?<=\n}\n)', new)
    if len(a) != len(b):
        return old, new
    for i, function in enumerate(a):
        if OLD_LOCAL.search(function):
            a[i] = re.sub(r'(?<=\()fd\b(?=,)', 'vdev->vbasedev.fd',
                          OLD_LOCAL.sub('', function))
            b[i] = re.sub(r'(?<=_field\()vbasedev\b(?=,)|\bvbasedev->fd\b',
                          'vdev->vbasedev.fd', NEW_LOCAL.sub('', b[i]))
    return ''.join(a), ''.join(b)


def load(tree, name):
    with open(os.path.join(tree, name), encoding='utf-8') as f:
        return f.read()


def residue(name, before, after):
    """What differs once the wrappers are taken back."""
    old, new = load(before, name), undo(load(after, name))
    if name in ('hw/vfio/pci.c', 'hw/vfio/display.c'):
        old, new = inline_locals(old, new)
    if name == 'hw/vfio/migration.c':
        old = old.replace('qemu_file_get_to_fd(f, migration->data_fd',
                          'qemu_file_get_to_fd(f, '
                          'vbasedev->migration->data_fd')
    a, b = statements(old), statements(new)
    m = difflib.SequenceMatcher(None, a, b, autojunk=False)
    return [(name, a[i:j], b[k:l]) for tag, i, j, k, l in m.get_opcodes()
            if tag != 'equal']


def wrong_wrappers(tree):
    text = load(tree, HEADER)
    found = {}
    for m in re.finditer(r'^static inline [^;{]*?\b(vfio_file_\w+)\([^{]*\n{'
                         r'(.*?)^}', text, re.M | re.S):
        found[m[1]] = squeeze(m[2])
    wrong = []
    for name, call in WRAPPERS.items():
        member = name.replace('vfio_file_', '').replace('mig_ioctl', 'ioctl')
        body = found.get(name, '')
        if not re.fullmatch(r'if\(vbasedev->file_ops\){return vbasedev->'
                            r'file_ops->%s\([\w,]+\);}return %s;'
                            % (member, re.escape(call)), body):
            wrong.append('%s: %s does not end in %s'
                         % (HEADER, name, call))
    return wrong


def left_over(tree, files):
    """System calls on a device's descriptor that no wrapper covers."""
    found = []
    for name in files:
        for n, line in enumerate(load(tree, name).split('\n'), 1):
            if re.search(r'\b(ioctl|pread|pwrite|mmap|read|write)\([^;]*'
                         r'\bvbasedev(->|\.)fd\b', line) or \
               re.search(r'\b(ioctl|read|write|qemu_file_get_to_fd)\([^;]*'
                         r'->data_fd\b', line):
                found.append('%s:%d: %s' % (name, n, line.strip()))
    return found


def show(entry):
    name, old, new = entry
    return '\n'.join([name] + ['  - ' + s for s in old] +
                     ['  + ' + s for s in new])


def lists(staged):
    """The files with hooks, and what is expected, of a tree's series."""
    return LISTS['.'.join(load(staged, 'VERSION').split('.')[:2])]


def unlisted(staged, pristine, files):
    """Files of hw/vfio that are patched but not in the list."""
    found = []
    for where in ('hw/vfio', 'include/hw/vfio'):
        for f in sorted(os.listdir(os.path.join(pristine, where))):
            name = os.path.join(where, f)
            if name not in files and \
               os.path.isfile(os.path.join(staged, name)) and \
               load(staged, name) != load(pristine, name):
                found.append(name)
    return found


def without_fixes(staged, files, where):
    """Copies of the files in which hw/vfio has its own mistakes again."""
    series = '.'.join(load(staged, 'VERSION').split('.')[:2])
    patches = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                           '../../subprojects/packagefiles/qemu-' + series)
    for f in files:
        path = os.path.join(where, f)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(staged, f), path)
    for fix in reversed(FIXES):
        # Without its number in the series
        path, = glob.glob(os.path.join(patches, '????-' + fix))
        subprocess.run(['patch', '-R', '-p1', '-s', '-i', path], cwd=where,
                       check=True)
    return where


def findings(staged, pristine):
    """Everything that is not as it should be, in words."""
    files, expected = lists(staged)
    with tempfile.TemporaryDirectory(prefix='seam-') as where:
        plain = without_fixes(staged, files, where)
        found = [e for f in files for e in residue(f, pristine, plain)]
    bad = ['not listed: ' + show(e) for e in found if e not in expected]
    bad += ['gone: ' + show(e) for e in expected if e not in found]
    bad += wrong_wrappers(staged)
    bad += ['not hooked: ' + l for l in left_over(staged, files)]
    bad += ['patched, but not compared: ' + f
            for f in unlisted(staged, pristine, files)]
    return bad


def trees(argv):
    here = os.path.dirname(os.path.abspath(__file__))
    staged = argv[1] if len(argv) > 1 else subprocess.check_output(
        [here + '/../../scripts/staged-tree.sh'], text=True).strip()
    pristine = argv[2] if len(argv) > 2 else os.path.join(
        staged, '.overlay/pristine')
    return staged, pristine


if __name__ == '__main__':
    bad_ones = findings(*trees(sys.argv))
    print('\n'.join(bad_ones + [
        '%d findings' % len(bad_ones)]))
    sys.exit(1 if bad_ones else 0)
