# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare vfio-user client, to learn from a server what it declares.

It is typed from the protocol and shares nothing with QEMU's client, so that
both can be compared.  One message at a time, no DMA, no interrupts: it asks
what is there, reads config space and leaves.
"""

import json
import socket
import struct
from typing import NamedTuple

HEADER = struct.Struct('<HHIII')
REPLY = 1
ERROR = 0x20

VERSION = 1
GET_INFO = 4
GET_REGION_INFO = 5
GET_IRQ_INFO = 7
REGION_READ = 9
REGION_WRITE = 10

CONFIG_REGION = 7
CHUNK = 256


class Region(NamedTuple):
    """What the server says about a region."""

    flags: int
    size: int


class RawClient:
    """A connection to a server; use it in a with statement."""

    def __init__(self, path, deadline=30):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(deadline)
        self.socket.connect(path)
        self.number = 0
        capabilities = {'capabilities': {'max_msg_fds': 16}}
        text = json.dumps(capabilities).encode() + b'\0'
        reply = self.command(VERSION, struct.pack('<HH', 0, 1) + text)
        self.major, self.minor = struct.unpack_from('<HH', reply)
        self.capabilities = json.loads(
            reply[4:].rstrip(b'\0') or b'{}').get('capabilities', {})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _receive(self, length):
        data = b''
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError('the server closed the connection')
            data += part
        return data

    def command(self, command, payload):
        """Send a command, return the payload of its reply."""
        self.number += 1
        size = HEADER.size + len(payload)
        self.socket.sendall(
            HEADER.pack(self.number, command, size, 0, 0) + payload)
        number, echo, size, flags, error = HEADER.unpack(
            self._receive(HEADER.size))
        body = self._receive(size - HEADER.size)
        if (number, echo, flags & 0xf) != (self.number, command, REPLY):
            raise ConnectionError(
                f'command {command} number {self.number} got a reply to '
                f'command {echo} number {number}, flags {flags:#x}')
        if flags & ERROR:
            raise OSError(error, f'the server refused command {command}')
        return body

    def info(self):
        """Flags, number of regions and of interrupt indices."""
        reply = self.command(GET_INFO, struct.pack('<IIII', 16, 0, 0, 0))
        return struct.unpack_from('<III', reply, 4)

    def region(self, index):
        """A region's flags and size."""
        reply = self.command(GET_REGION_INFO,
                             struct.pack('<IIIIQQ', 32, 0, index, 0, 0, 0))
        _, flags, _, _, size, _ = struct.unpack_from('<IIIIQQ', reply)
        return Region(flags, size)

    def irqs(self, index):
        """How many interrupts an index has."""
        reply = self.command(GET_IRQ_INFO,
                             struct.pack('<IIII', 16, 0, index, 0))
        return struct.unpack_from('<I', reply, 12)[0]

    def read(self, region, offset, count):
        """Bytes of a region."""
        reply = self.command(REGION_READ,
                             struct.pack('<QII', offset, region, count))
        return reply[16:16 + count]

    def write(self, region, offset, data):
        """Write bytes of a region."""
        self.command(REGION_WRITE, struct.pack('<QII', offset, region,
                                               len(data)) + data)

    def config(self):
        """The whole config space as the server has it."""
        size = self.region(CONFIG_REGION).size
        return b''.join(self.read(CONFIG_REGION, offset, CHUNK)
                        for offset in range(0, size, CHUNK))
