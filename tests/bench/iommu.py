# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that the guest maps and unmaps behind an IOMMU, each a window.

No guest runs: qtest writes intel-iommu's tables, and one write to its queue
has it look at all of them, entry by entry.  The write is over when the server
has answered for the last one, so its time is theirs.  The floor is the raw
client that maps a page with its descriptor and waits, and unmaps it likewise.
"""

import json
import subprocess
import time

REGISTERS = 0xfed90000
GCMD, RTADDR, IQT, IQA = 0x18, 0x20, 0x88, 0x90
ENABLE_QUEUE, SET_ROOT, TRANSLATE = 1 << 26, 1 << 30, 1 << 31
PAGE = 4096
ROOT, CONTEXT, LEVEL3, LEVEL2, QUEUE = (0x100000 + i * PAGE for i in range(5))
LEVEL1 = 0x200000
MEMORY = 0x1000000
IOVA = 0x200000
DOMAIN, WIDTH_39, READ_WRITE = 1, 1, 3
DEVFN = 4 << 3
NR_PAGES = 1024
ROUNDS = 20
INVALIDATE_PAGES = 2 | 3 << 4 | DOMAIN << 16


class Machine:
    """QEMU with the device behind an IOMMU."""

    def __init__(self, qemu, socket):
        device = {'driver': 'vfio-user-pci', 'socket': socket, 'addr': '4'}
        self.proc = subprocess.Popen(
            [qemu, '-accel', 'qtest', '-qtest', 'stdio', '-display', 'none',
             '-nodefaults', '-no-user-config', '-m', '128M',
             '-machine', 'q35,memory-backend=mem',
             '-object', 'memory-backend-memfd,id=mem,size=128M,share=on',
             '-device', 'intel-iommu,caching-mode=on',
             '-device', json.dumps(device)],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        self.tail = 0

    def command(self, line):
        """One line of the qtest protocol."""
        self.proc.stdin.write(line + '\n')
        self.proc.stdin.flush()
        answer = self.proc.stdout.readline()
        if not answer.startswith('OK'):
            raise RuntimeError(f'QEMU answers "{line}" with "{answer}"')

    def put(self, address, value):
        """Eight bytes."""
        self.command(f'writeq {address:#x} {value:#x}')

    def start(self):
        """Turn the IOMMU on with nothing mapped."""
        self.put(ROOT, CONTEXT | 1)
        self.put(CONTEXT + 16 * DEVFN + 8, WIDTH_39 | DOMAIN << 8)
        self.put(CONTEXT + 16 * DEVFN, LEVEL3 | 1)
        self.put(LEVEL3, LEVEL2 | READ_WRITE)
        for i in range(4):
            self.put(LEVEL2 + 8 * i, LEVEL1 + i * PAGE | READ_WRITE)
        self.put(REGISTERS + IQA, QUEUE)
        self.put(REGISTERS + RTADDR, ROOT)
        for bits in (SET_ROOT, ENABLE_QUEUE, ENABLE_QUEUE | TRANSLATE):
            self.command(f'writel {REGISTERS + GCMD:#x} {bits:#x}')

    def invalidate(self):
        """The IOMMU looks at all pages; returns the seconds that takes."""
        self.put(QUEUE + 16 * self.tail, INVALIDATE_PAGES)
        self.put(QUEUE + 16 * self.tail + 8,
                 IOVA | NR_PAGES.bit_length() - 1)
        self.tail += 1
        start = time.monotonic()
        self.put(REGISTERS + IQT, self.tail << 4)
        return time.monotonic() - start

    def round(self):
        """Seconds to map all pages, and to unmap them."""
        # Every other page of memory: no two are neighbours.
        table = b''.join((MEMORY + 2 * i * PAGE | READ_WRITE).to_bytes(
            8, 'little') for i in range(NR_PAGES))
        at = LEVEL1 + IOVA // PAGE * 8
        self.command(f'write {at:#x} {len(table):#x} 0x{table.hex()}')
        seconds = self.invalidate()
        self.command(f'memset {at:#x} {len(table):#x} 0')
        return seconds, self.invalidate()

    def stop(self):
        """End it."""
        self.proc.stdin.close()
        self.proc.kill()
        self.proc.wait()


def measure(qemu, socket):
    """Pages per second."""
    machine = Machine(qemu, socket)
    try:
        machine.start()
        times = [machine.round() for _ in range(ROUNDS)]
    except (RuntimeError, OSError) as e:
        print('no result: %s' % e)
        return {}
    finally:
        machine.stop()
    return {name: NR_PAGES * ROUNDS / sum(seconds)
            for name, seconds in zip(('iommu-map', 'iommu-unmap'),
                                     zip(*times))}
