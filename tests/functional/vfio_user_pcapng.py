# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings of vfio-user messages (x-record), read and written.

Typed from the description of pcapng, not from hw/vfio-user/record.c, and only
as much of it as a recording has: one section, link type WIRESHARK_UPPER_PDU,
nanoseconds.  Used by the tests and by tests/server/replay.py.
"""

import struct
from typing import NamedTuple

SECTION, INTERFACE, STATISTICS, PACKET = 0x0a0d0d0a, 1, 5, 6
MAGIC = 0x1a2b3c4d
UPPER_PDU = 252
TAGS = struct.pack('>HH12sHH', 12, 12, b'vfio_user', 0, 0)
HEAD = struct.Struct('<BBBx')
FROM_SERVER, TWIN = 1, 2
HEADER = struct.Struct('<HHIII')
REPLY, NO_REPLY, ERROR = 1, 0x10, 0x20


class RecordingError(Exception):
    """It is not a recording, or one that was cut short."""


class Message(NamedTuple):
    """A message with its place in time; raw may be less than size."""

    raw: bytes
    size: int
    server: bool
    interface: str = 'dev 1'
    twin: bool = False
    fds: int = 0
    time: int = 0
    dropped: int = 0
    comment: str = ''

    @property
    def id(self):
        """The id that belongs to whoever sent the command."""
        return HEADER.unpack_from(self.raw)[0]

    @property
    def command(self):
        """The command's number, in a reply, too."""
        return HEADER.unpack_from(self.raw)[1]

    @property
    def flags(self):
        """Type, no_reply, error."""
        return HEADER.unpack_from(self.raw)[3]

    @property
    def error(self):
        """The errno of an error reply, 0 of any other message."""
        return HEADER.unpack_from(self.raw)[4] if self.flags & ERROR else 0

    @property
    def is_reply(self):
        """Whether it answers something."""
        return self.flags & 0xf == REPLY

    @property
    def payload(self):
        """What follows the header."""
        return self.raw[HEADER.size:]

    @property
    def whole(self):
        """Whether all of it was recorded."""
        return HEADER.size <= len(self.raw) == self.size


def _blocks(data):
    """Type and body of each block."""
    at = 0
    while at < len(data):
        if len(data) - at < 12:
            raise RecordingError(f'cut short at byte {at}')
        kind, length = struct.unpack_from('<II', data, at)
        if length < 12 or length % 4:
            raise RecordingError(f'a block of {length} bytes at byte {at}')
        if length > len(data) - at:
            raise RecordingError(f'cut short at byte {at}')
        yield kind, data[at + 8:at + length - 4]
        at += length


def _options(data):
    """{code: value} of the options at the end of a block."""
    found, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from('<HH', data, at)
        if not code:
            break
        found[code] = data[at + 4:at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return found


def _packet(body, interfaces):
    number, high, low, captured, original = struct.unpack_from('<IIIII', body)
    if body[20:20 + len(TAGS)] != TAGS:
        raise RecordingError('a packet that is not of vfio_user')
    begin = 20 + len(TAGS)
    _, flags, fds = HEAD.unpack_from(body, begin)
    options = _options(body[20 + (captured + 3) // 4 * 4:])
    extra = len(TAGS) + HEAD.size
    return Message(body[begin + HEAD.size:20 + captured], original - extra,
                   bool(flags & FROM_SERVER), interfaces[number],
                   bool(flags & TWIN), fds, high << 32 | low,
                   int.from_bytes(options.get(4, b''), 'little'),
                   options.get(1, b'').decode())


def messages(data, strict=True):
    """The messages of a file; where it was cut short, not strict, is its end.
    """
    interfaces, blocks = [], _blocks(data)
    found = []
    try:
        for kind, body in blocks:
            if kind == SECTION:
                if struct.unpack_from('<I', body)[0] != MAGIC:
                    raise RecordingError('of another byte order')
            elif kind == INTERFACE:
                if struct.unpack_from('<H', body)[0] != UPPER_PDU:
                    raise RecordingError('of another link type')
                interfaces.append(_options(body[8:])[2].decode())
            elif kind == PACKET:
                found.append(_packet(body, interfaces))
    except RecordingError:
        if strict:
            raise
    return found


def read(path, strict=True):
    """The messages of a file."""
    with open(path, 'rb') as file:
        return messages(file.read(), strict)


def last_block(path):
    """The kind of the block at the end."""
    with open(path, 'rb') as file:
        return list(_blocks(file.read()))[-1][0]


def _block(kind, body):
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack('<II', kind, length) + body + struct.pack('<I', length)


def write(path, found):
    """A file with these messages, all of one interface."""
    name = b'test 1'
    with open(path, 'wb') as file:
        file.write(_block(SECTION, struct.pack('<IHHq', MAGIC, 1, 0, -1)))
        file.write(_block(INTERFACE, struct.pack('<HHIHH', UPPER_PDU, 0, 0, 2,
                                                 len(name)) + name))
        for nr, m in enumerate(found):
            flags = FROM_SERVER * m.server | TWIN * m.twin
            data = TAGS + HEAD.pack(1, flags, m.fds) + m.raw
            original = len(data) - len(m.raw) + m.size
            file.write(_block(PACKET, struct.pack(
                '<IIIII', 0, 0, nr, len(data), original) + data))
