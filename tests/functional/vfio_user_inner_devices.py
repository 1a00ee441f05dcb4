# SPDX-License-Identifier: GPL-2.0-or-later
"""Drivers for the devices that an inner QEMU was lent.

As much of a driver as shows that registers, DMA in both directions, each kind
of interrupt and a reset arrive.  Nothing boots in the inner QEMU, so there is
no firmware either: BARs are placed here.

A message-signalled interrupt is a write to memory.  Its address is one of
plain RAM here, where the write can be seen.
"""

from vfio_user_inner import ECAM

# Guest-physical addresses, all below the end of the inner QEMU's RAM
MSI_ADDRESS = 0x1000000
BUFFERS = 0x2000000

COMMAND = 0x04
BARS = 0x10
CAPABILITIES = 0x34
CAP_MSI = 0x05
CAP_MSIX = 0x11
INTX_DISABLE = 1 << 10


class Function:
    """A PCI function 0 on bus 0 of the inner QEMU."""

    def __init__(self, inner, slot):
        self.inner = inner
        self.base = ECAM + (slot << 15)
        self.window = 0xe0000000 + slot * 0x1000000
        self.bar = {}

    def config(self, offset, bits=32):
        """A register of its config space."""
        return self.inner.load(self.base + offset, bits)

    def set_config(self, offset, value, bits=32):
        """The same, to be written."""
        self.inner.store(self.base + offset, value, bits)

    def config_dump(self):
        """All of its config space."""
        return b''.join(self.inner.read(self.base + at, 256)
                        for at in range(0, 4096, 256))

    def size_bars(self):
        """What the BARs say of their sizes, as read back after ones."""
        masks = []
        for register in range(BARS, BARS + 24, 4):
            self.set_config(register, 0xffffffff)
            masks.append(self.config(register))
            self.set_config(register, 0)
        return masks

    def enable(self):
        """Place all memory BARs, let it decode and do DMA."""
        at, index = self.window, 0
        masks = self.size_bars()
        while index < 6:
            mask, wide = masks[index], (masks[index] & 7) == 4
            if mask and not mask & 1:
                size = -(mask & ~0xf) & 0xffffffff
                at = (at + size - 1) & -size
                self.bar[index] = at
                self.set_config(BARS + 4 * index, at)
                at += size
            index += 2 if wide else 1
        self.set_config(COMMAND, 0x0006, 16)
        return masks

    def capability(self, wanted):
        """Where the capability is, or None."""
        at = self.config(CAPABILITIES, 8)
        while at:
            if self.config(at, 8) == wanted:
                return at
            at = self.config(at + 1, 8)
        return None

    def enable_msi(self, data):
        """One message to MSI_ADDRESS."""
        at = self.capability(CAP_MSI)
        wide = self.config(at + 2, 16) & 0x80
        self.set_config(at + 4, MSI_ADDRESS)
        if wide:
            self.set_config(at + 8, 0)
        self.set_config(at + (12 if wide else 8), data, 16)
        self.set_config(at + 2, 1, 16)

    def enable_msix(self, data, vectors=1):
        """Vector N writes data + N to MSI_ADDRESS + 4 * N."""
        at = self.capability(CAP_MSIX)
        where = self.config(at + 4)
        table = self.bar[where & 7] + (where & ~7)
        for n in range(vectors):
            for word, value in enumerate((MSI_ADDRESS + 4 * n, 0,
                                          data + n, 0)):
                self.inner.store(table + 16 * n + 4 * word, value)
        self.set_config(at + 2, 0x8000, 16)

    def load(self, offset, bits=32):
        """A load from BAR 0."""
        return self.inner.load(self.bar[0] + offset, bits)

    def store(self, offset, value, bits=32):
        """A store to it."""
        self.inner.store(self.bar[0] + offset, value, bits)

    def message(self, expected, vector=0):
        """Wait for a message-signalled interrupt and forget it."""
        address = MSI_ADDRESS + 4 * vector
        self.inner.until(lambda: self.inner.load(address) == expected,
                         f'message {expected:#x}')
        self.inner.store(address, 0)
        return f'{expected:#x}'


class Edu(Function):
    """QEMU's educational device: INTx, MSI, DMA through a buffer of its own."""

    BUFFER = 0x40000
    SIZE = 4096

    def registers(self):
        """Identity, the complement of a number, a factorial."""
        self.store(0x04, 0x12345678)
        self.store(0x08, 12)
        self.inner.until(lambda: not self.load(0x20) & 1, 'a factorial')
        return [f'{self.load(at):#x}' for at in (0x00, 0x04, 0x08)]

    def transfer(self, source, target, command):
        """One run of its DMA engine."""
        for register, value in ((0x80, source), (0x88, target),
                                (0x90, self.SIZE), (0x98, command | 1)):
            self.store(register, value, 64)
        self.inner.until(lambda: not self.load(0x98, 64) & 1, 'edu\'s DMA')

    def dma(self, data):
        """Into the device and out of it to another place; what came."""
        target = BUFFERS + 4 * self.SIZE
        self.inner.write(BUFFERS, data)
        self.transfer(BUFFERS, self.BUFFER, 0)
        self.transfer(self.BUFFER, target, 2)
        return self.inner.read(target, self.SIZE)

    def msi(self):
        """An interrupt by message."""
        self.enable_msi(0x4321)
        self.store(0x60, 0x10)
        seen = self.message(0x4321)
        status = self.load(0x24)
        self.store(0x64, status)
        self.set_config(self.capability(CAP_MSI) + 2, 0, 16)
        return f'{seen} for status {status:#x}'

    def intx(self):
        """Two interrupts by its pin: the second comes after the first's end.

        vfio-pci masks the pin until the device is accessed again.
        """
        for value in (0x20, 0x40):
            self.inner.irqs.clear()
            self.store(0x60, value)
            self.inner.until(lambda: self._pin('raise'), 'INTx')
            status = self.load(0x24)
            self.store(0x64, status)
            self.inner.until(lambda: self._pin('lower'), 'INTx\'s end')
        return f'{self.inner.irqs} for status {status:#x}'

    def _pin(self, way):
        """Whether the IOAPIC was told; asking lets the news come."""
        self.config(0)
        return any(irq[0] == way for irq in self.inner.irqs)


class Nvme(Function):
    """An NVMe controller: queues in memory, MSI-X."""

    ADMIN, IO = 0, 1
    DATA = BUFFERS + 0x100000

    def enabled(self):
        """Whether somebody has started it since its last reset."""
        return bool(self.load(0x14) & 1)

    def start(self):
        """Enable it with admin queues of 16 entries."""
        self.heads, self.tails = [0, 0], [0, 0]
        for queue in (self.ADMIN, self.IO):
            self.inner.qtest(f'memset {self._cq(queue):#x} 0x1000 0')
        self.store(0x24, 0x000f000f)
        self.store(0x28, self._sq(self.ADMIN), 64)
        self.store(0x30, self._cq(self.ADMIN), 64)
        self.enable_msix(0x5500, vectors=2)
        self.store(0x14, 0x00460001)
        self.inner.until(lambda: self.load(0x1c) & 1, 'CSTS.RDY=1')

    @staticmethod
    def _sq(queue):
        return BUFFERS + 0x10000 + queue * 0x2000

    @staticmethod
    def _cq(queue):
        return BUFFERS + 0x11000 + queue * 0x2000

    def command(self, queue, opcode, nsid=0, dwords=(), data=DATA):
        """Submit a command, wait for its interrupt, return its status."""
        tail = self.tails[queue]
        words = [opcode | (tail + 1) << 16, nsid, 0, 0, 0, 0,
                 data, 0, 0, 0, *dwords]
        words += [0] * (16 - len(words))
        entry = b''.join(word.to_bytes(4, 'little') for word in words)
        self.inner.write(self._sq(queue) + 64 * tail, entry)
        self.tails[queue] = (tail + 1) % 16
        self.store(0x1000 + 8 * queue, self.tails[queue])
        self.message(0x5500 + queue, queue)
        status = self.inner.load(
            self._cq(queue) + 16 * self.heads[queue] + 14, 16) >> 1
        self.heads[queue] = (self.heads[queue] + 1) % 16
        self.store(0x1004 + 8 * queue, self.heads[queue])
        return status

    def identify(self):
        """Serial number and model, by DMA."""
        status = self.command(self.ADMIN, 0x06, 0, (1,))
        text = self.inner.read(self.DATA, 64)
        return f'status {status:#x}, {text[4:24].strip().decode()}, ' \
            f'{text[24:64].strip().decode()}'

    def create_queues(self):
        """An I/O queue pair with vector 1; statuses of both commands."""
        return [self.command(self.ADMIN, opcode, 0, (15 << 16 | 1, flags),
                             where)
                for opcode, where, flags in (
                    (0x05, self._cq(1), 1 << 16 | 3),
                    (0x01, self._sq(1), 1 << 16 | 1))]

    def blocks(self, opcode, first, count):
        """Read (2) or write (1) blocks of 512 bytes from or to DATA."""
        return self.command(self.IO, opcode, 1, (first, 0, count - 1))


class E1000e(Function):
    """A network interface: a word about itself and MSI-X."""

    def registers(self):
        """Its status, its hardware address and its interrupt mask."""
        return [f'{self.load(at):#x}'
                for at in (0x0008, 0x5400, 0x5404, 0x00d0)]

    def msix(self):
        """The "other" cause, raised by software, goes to vector 2."""
        self.enable_msix(0x6600, vectors=3)
        self.store(0x00e4, 0x000a0000)     # IVAR: other causes
        self.store(0x00d0, 1 << 24)        # IMS: "other"
        self.store(0x00c8, 1 << 24)        # ICS
        return self.message(0x6602, 2)
