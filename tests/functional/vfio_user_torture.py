# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest that does what it likes, its device, and the machine for both.

tests/torture/guest has both programs; they are compiled here.  The guest runs
without firmware of its own, Linux or paging, so also under a KVM that can do
no more than that.
"""

import functools
import os
from pathlib import Path
import shutil
import subprocess

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SOURCES = REPOSITORY / 'tests' / 'torture' / 'guest'
PARTS = REPOSITORY / 'tests' / 'functional' / 'kvm-guest'
SERVER = REPOSITORY / 'tests' / 'server'
# What these begin with belongs to its program and self test.
NOT_SERVER = ('main', 'rawclient', 'script', 'selftest')
GUEST_FLAGS = [
    '-m32', '-march=i686', '-mgeneral-regs-only', '-ffreestanding', '-Os',
    '-fno-pic', '-no-pie', '-fno-stack-protector', '-fcf-protection=none',
    '-fno-asynchronous-unwind-tables', '-nostdlib', '-static',
    f'-Wl,-T,{PARTS}/guest.ld', '-Wl,--build-id=none',
    '-Wl,--no-warn-rwx-segments']
WARNINGS = ['-Wall', '-Wextra', '-Werror']
MEMORY = 64
PROBE_DEADLINE = 20

# Hotplug by the root port itself, which the guest drives
Q35 = ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off',
       '-device', 'pcie-root-port,id=rp0,addr=0x10,chassis=1,slot=1']
PLACES = {'pc': {'addr': '5'}, 'q35': {'bus': 'rp0'}}
# They access our device by DMA: see config.c.
OTHERS = ['-device', 'edu,addr=6,dma_mask=0xffffffff',
          '-nic', 'none', '-device', 'e1000,addr=7']


def compile_program(*args):
    """Run the compiler; an error is one of the test."""
    done = subprocess.run(['cc', *WARNINGS, *map(str, args)], check=False,
                          capture_output=True, encoding='utf8')
    if done.returncode or done.stderr:
        raise AssertionError(f'cc {" ".join(map(str, args))}:\n{done.stderr}')


def tool_missing():
    """What is not there to compile with, or an empty string."""
    missing = [tool for tool in ('cc', 'pkg-config') if not shutil.which(tool)]
    return ' and '.join(missing)


def compile_programs(directory):
    """The guest and the device's server."""
    guest, device = Path(directory) / 'guest', Path(directory) / 'device'
    glib = subprocess.run(['pkg-config', '--cflags', '--libs', 'glib-2.0'],
                          check=True, capture_output=True,
                          encoding='utf8').stdout.split()
    compile_program(*GUEST_FLAGS, f'-I{PARTS}', '-o', guest,
                    PARTS / 'start.S',
                    *[PARTS / f'{name}.c' for name in
                      ('report', 'platform', 'pci')],
                    *[SOURCES / f'{name}.c' for name in
                      ('main', 'config', 'steps')])
    compile_program('-g', '-O1', '-pthread', '-o', device,
                    f'-I{REPOSITORY}/include', f'-I{SERVER}',
                    SOURCES / 'device.c',
                    *[file for file in SERVER.glob('*.c')
                      if not file.stem.startswith(NOT_SERVER)], *glib)
    return guest, device


def machine_arguments(board, accel, guest, append):
    """QEMU's, without our device: firmware that does nothing, the guest."""
    return ['-machine', f'{board},memory-backend=mem', '-accel', accel,
            '-object',
            f'memory-backend-memfd,id=mem,size={MEMORY}M,share=on',
            '-bios', 'qboot.rom', '-nodefaults', '-no-user-config',
            '-display', 'none', *(Q35 if board == 'q35' else []), *OTHERS,
            '-kernel', str(guest), '-append', append]


@functools.lru_cache(maxsize=None)
def kvm_problem(qemu, guest):
    """Why the guest does not run under KVM, or an empty string."""
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return '/dev/kvm is missing or may not be opened'
    command = [qemu, *machine_arguments('q35', 'kvm', guest, 'hello'),
               '-m', f'{MEMORY}M', '-serial', 'stdio', '-no-reboot']
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False,
                              capture_output=True, timeout=PROBE_DEADLINE)
    except subprocess.TimeoutExpired:
        return ('KVM does not run a flat 32-bit guest without a device: no '
                f'end within {PROBE_DEADLINE} s')
    if done.returncode or not done.stdout.startswith(b'ok hello'):
        said = done.stderr.decode('utf8', 'replace').split('\n')
        return ('KVM does not run a flat 32-bit guest without a device: '
                + '; '.join(filter(None, said)))
    return ''
