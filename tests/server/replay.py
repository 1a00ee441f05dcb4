#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A server that answers what another server answered: it plays a recording.

    tests/server/replay.py --socket-path=PATH RECORDING

RECORDING was made with -device vfio-user-pci,x-record=FILE.  Each request of
the client is looked for in it, by its command and the fields that say what is
meant (not by message id or time), and gets the reply that it got then: the
first request of a kind the first reply, the second the second, and when there
are no more the last one again.  What the server did by itself (DMA commands) it
does again at the same place, and waits for the client's reply.  Requests that
are not in the recording are refused with ENOENT and reported, and so are those
whose reply was too long to be recorded.

What was not said in messages cannot be played: interrupts, and what was in
memory that the client mapped, which is all zero here.

It stays in the foreground, serves one client for each connection in the
recording, in that order, then ends: with 0 if everything that was asked was
found, with 1 and a report on stderr if not.
"""

import argparse
from collections import defaultdict, deque
import errno
import os
from pathlib import Path
import re
import socket
import struct
import sys

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'functional'))

# pylint: disable=wrong-import-position
from vfio_user_pcapng import (  # noqa: E402
    ERROR, HEADER, NO_REPLY, REPLY, RecordingError, read)

COMMAND = 0
VERSION, MAP, REGION_INFO, IO_FDS = 1, 2, 5, 6
REGION_WRITE, WRITE_MULTI, MIG_WRITE = 10, 15, 18
MAX_FDS = 32
NAMES = dict(enumerate((
    'VERSION DMA_MAP DMA_UNMAP DEVICE_GET_INFO DEVICE_GET_REGION_INFO '
    'DEVICE_GET_REGION_IO_FDS DEVICE_GET_IRQ_INFO DEVICE_SET_IRQS REGION_READ '
    'REGION_WRITE DMA_READ DMA_WRITE DEVICE_RESET DIRTY_PAGES '
    'REGION_WRITE_MULTI DEVICE_FEATURE MIG_DATA_READ MIG_DATA_WRITE').split(),
    1))


def key_of(command, payload):
    """What makes two requests the same."""
    if command == VERSION:
        return command, b''
    if command == MAP:
        # argsz, flags, offset in a file that is another one now
        return command, payload[4:8] + payload[16:]
    if command == MIG_WRITE:
        # The stream is the client's, too, and not always cut the same way.
        return command, b''
    if command in (REGION_INFO, IO_FDS):
        # argsz is how much room there is
        return command, payload[4:]
    return command, payload


def writes_of(payload):
    """The single writes of a REGION_WRITE_MULTI, as payloads."""
    nr = struct.unpack_from('<Q', payload)[0]
    for at in range(8, 8 + 24 * nr, 24):
        count = struct.unpack_from('<I', payload, at + 12)[0]
        yield payload[at:at + 16 + count]


def requests_of(command, payload):
    """Commands and payloads; several small writes may have been put in one."""
    if command == WRITE_MULTI and len(payload) >= 8:
        return [(REGION_WRITE, p) for p in writes_of(payload)]
    return [(command, payload)]


class Exchange:
    """A request of the recording, its reply, and the server's commands that
    came between this request and the next, before the reply and after it."""

    def __init__(self):
        self.reply = None
        self.before = []
        self.after = []


class Connection:
    """What is in the recording of one connection."""

    def __init__(self, messages):
        self.exchanges = defaultdict(deque)
        self.has_twin = any(m.twin for m in messages)
        self.opening = Exchange()   # what came before any request
        waiting, exchange = {}, self.opening
        for m in messages:
            if len(m.raw) < HEADER.size:
                continue
            if m.server and m.is_reply:
                if m.id in waiting:
                    waiting.pop(m.id).reply = m
            elif m.server:
                waits = exchange in waiting.values()
                (exchange.before if waits else exchange.after).append(m)
            elif not m.is_reply:
                for command, payload in requests_of(m.command, m.payload):
                    exchange = Exchange()
                    self.exchanges[key_of(command, payload)].append(exchange)
                if not m.flags & NO_REPLY:
                    waiting[m.id] = exchange

    def find(self, key):
        """The next exchange of this kind, or None."""
        found = self.exchanges.get(key)
        if not found:
            return None
        if len(found) > 1:
            return found.popleft()
        # Asked once more than in the recording, it gets the same answer, but
        # the server does nothing twice.
        last = found[0]
        again = Exchange()
        again.reply = last.reply
        found[0] = again
        return last


def connections(messages):
    """The recording, connection by connection: "NAME N" and "NAME N twin"."""
    numbers = {}
    for m in messages:
        match = re.fullmatch(r'.* (\d+)( twin)?', m.interface, re.DOTALL)
        if not match:
            raise RecordingError(f'an interface "{m.interface}"')
        numbers.setdefault(int(match.group(1)), []).append(m)
    return [Connection(numbers[n]) for n in sorted(numbers)]


class Gone(Exception):
    """The client has left."""


class Stream:
    """Messages of one socket."""

    def __init__(self, sock):
        self.sock = sock
        self.pending = b''
        self.messages = []

    def next(self, kind):
        """The next request or reply, waiting for it; others stay there."""
        while True:
            for raw in self.messages:
                if HEADER.unpack_from(raw)[3] & 0xf == kind:
                    self.messages.remove(raw)
                    return raw
            self.receive()

    def receive(self):
        """Take what has come, drop its descriptors."""
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, 1 << 20, MAX_FDS)
        except ConnectionResetError:
            raise Gone from None
        for fd in fds:
            os.close(fd)
        if not data:
            raise Gone
        self.pending += data
        while len(self.pending) >= HEADER.size:
            size = HEADER.unpack_from(self.pending)[2]
            if size < HEADER.size:
                raise RecordingError(f'the client sent a message of {size} '
                                     'bytes')
            if len(self.pending) < size:
                break
            self.messages.append(self.pending[:size])
            self.pending = self.pending[size:]

    def send(self, raw, fds=()):
        """All of it, descriptors with the first byte."""
        try:
            sent = socket.send_fds(self.sock, [raw], list(fds))
            self.sock.sendall(raw[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None


class Player:
    """Serves one client."""

    def __init__(self, connection, sock, report):
        self.connection = connection
        self.main = Stream(sock)
        self.twin = None
        self.report = report

    def run(self):
        """Until the client leaves."""
        try:
            self.send_commands(self.connection.opening.after)
            while True:
                self.request(self.main.next(COMMAND))
        except Gone:
            pass
        if self.twin:
            self.twin.sock.close()

    def request(self, raw):
        """One message of the client."""
        number, command, _, flags, _ = HEADER.unpack_from(raw)
        exchange = None
        for part, payload in requests_of(command, raw[HEADER.size:]):
            exchange = self.connection.find(key_of(part, payload))
            if not exchange:
                self.refuse(part, payload, 'is not in the recording')
        if exchange:
            self.send_commands(exchange.before)
        if not flags & NO_REPLY:
            self.answer(number, command, exchange)
        if exchange:
            self.send_commands(exchange.after)

    def refuse(self, command, payload, why):
        """Something for the report."""
        self.report.append(f'{NAMES.get(command, command)} '
                           f'{payload[:32].hex(" ", 8)}: {why}')

    def answer(self, number, command, exchange):
        """The reply of the recording under another id."""
        reply = exchange.reply if exchange else None
        if exchange and not reply:
            self.refuse(command, b'', 'had no reply')
            return
        if reply and not reply.whole:
            self.refuse(command, b'', 'had a reply too long to be recorded')
            reply = None
        if not reply:
            self.main.send(HEADER.pack(number, command, HEADER.size,
                                       REPLY | ERROR, errno.ENOENT))
            return
        fds = self.make_fds(reply)
        try:
            self.main.send(struct.pack('<H', number) + reply.raw[2:], fds)
        finally:
            for fd in fds:
                os.close(fd)

    def make_fds(self, reply):
        """As many descriptors as came with it, of the same kind."""
        if reply.command == IO_FDS:
            return [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(reply.fds)]
        fds = [self.make_memory(reply) for _ in range(reply.fds)]
        twin = re.search(rb'"fd_index"\s*:\s*(\d+)', reply.payload)
        if reply.command == VERSION and twin and \
                int(twin.group(1)) < len(fds):
            ours, theirs = socket.socketpair(socket.AF_UNIX)
            index = int(twin.group(1))
            os.close(fds[index])
            fds[index] = theirs.detach()
            self.twin = Stream(ours)
        return fds

    @staticmethod
    def make_memory(reply):
        """A file as long as the region that it is for."""
        fd = os.memfd_create('replay')
        if reply.command == REGION_INFO:
            size, offset = struct.unpack_from('<QQ', reply.payload, 16)
            os.ftruncate(fd, size + offset)
        return fd

    def send_commands(self, commands):
        """The server's own, one after the other."""
        for m in commands:
            stream = self.twin if m.twin and self.twin else self.main
            if not m.whole:
                self.refuse(m.command, b'', 'of the server was too long to '
                            'be recorded')
                continue
            stream.send(m.raw)
            if not m.flags & NO_REPLY:
                stream.next(REPLY)


def serve(path, played):
    """One client after the other; returns what there is to report."""
    report = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        try:
            for nr, connection in enumerate(played, 1):
                with listener.accept()[0] as sock:
                    mine = []
                    Player(connection, sock, mine).run()
                    report += [f'connection {nr}: {line}' for line in mine]
        finally:
            os.unlink(path)
    return report


def main():
    """What the top says."""
    parser = argparse.ArgumentParser(
        description='Answer as the server of a recording did.')
    parser.add_argument('--socket-path', required=True,
                        help='listen on this UNIX socket')
    parser.add_argument('recording', help='made with x-record=')
    args = parser.parse_args()
    try:
        played = connections(read(args.recording, strict=False))
        if not played:
            raise RecordingError('nothing is in it')
        report = serve(args.socket_path, played)
    except (OSError, RecordingError) as error:
        sys.exit(f'error: {args.recording}: {error}')
    for line in report:
        print(line, file=sys.stderr)
    sys.exit(1 if report else 0)


if __name__ == '__main__':
    main()
