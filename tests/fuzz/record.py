#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make seeds for the fuzzing targets from real sessions.

    tests/fuzz/record.py [BUILD-DIRECTORY] [CORPUS-DIRECTORY]

QEMU (no guest, only firmware) uses the device of each server through a proxy
that notes every message.  What the server said becomes inputs, in the formats
that the heads of tests/fuzz/*.c describe.  Run it after a change of the
protocol or of such a format, then "scripts/fuzz.sh minimise", which keeps of
it what covers something.
"""

import json
import os
from pathlib import Path
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOP = Path(__file__).resolve().parents[2]
DEADLINE = 60
HEADER = struct.Struct('<HHIII')
VERSION, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO = 1, 3, 4, 5, 7
REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE = 9, 10, 11, 12
FEATURE, MIG_READ = 16, 17
CONFIG = 7
# The place of each function in the list at the end of wire.c
W_REGION, W_HEADER, W_VERSION, W_INFO, W_IRQ, W_RW, W_UNMAP, W_DMA, \
    W_FEATURE, W_MIGRATION, W_REPORT, W_MIG_DATA = range(12)
# How a server of the target "device" answers (device-peer.c)
GOOD, REPLACE, ERROR, FDS = 0, 5, 6, 8


class Message:
    """One message: header, payload, number of descriptors, from where."""

    def __init__(self, raw, nr_fds, server, twin):
        self.raw = raw
        self.id, self.command, self.size, self.flags, self.errno = \
            HEADER.unpack_from(raw)
        self.payload = raw[HEADER.size:]
        self.nr_fds = nr_fds
        self.server = server
        self.twin = twin
        self.request = None

    @property
    def is_reply(self):
        """Whether it answers something."""
        return self.flags & 15 == 1


class Pump:
    """One direction of one socket, message by message.

    A receive ends with the bytes that descriptors came with, so they belong
    to the last message in it."""

    def __init__(self, source, sink, server, twin):
        self.source, self.sink = source, sink
        self.server, self.twin = server, twin
        self.pending = b''
        self.fds = []

    def receive(self):
        """The messages that are complete, with their descriptors, or None."""
        data, fds, _, _ = socket.recv_fds(self.source, 65536, 32)
        if not data:
            return None
        self.pending += data
        self.fds += fds
        done = []
        while len(self.pending) >= HEADER.size:
            size = HEADER.unpack_from(self.pending)[2]
            if len(self.pending) < size:
                break
            raw, self.pending = self.pending[:size], self.pending[size:]
            fds = [] if self.pending else self.fds
            self.fds = self.fds if self.pending else []
            done.append((Message(raw, len(fds), self.server, self.twin), fds))
        return done


class Proxy:
    """Between QEMU and a server; stops when either side closes."""

    def __init__(self, server_path, path):
        self.server_path = server_path
        self.messages = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.pumps = []

    def start(self):
        """Wait for QEMU and connect it."""
        self.listener.settimeout(DEADLINE)
        client = self.listener.accept()[0]
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.server_path)
        self.join(client, server, False)

    def join(self, client, server, twin):
        """Both directions of a socket."""
        self.pumps += [Pump(client, server, False, twin),
                       Pump(server, client, True, twin)]

    def run(self, seconds, until=None):
        """Move messages for a while; False when a side has closed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until()):
            sources = {p.source: p for p in self.pumps}
            for s in select.select(list(sources), [], [], 0.1)[0]:
                if not self.step(sources[s]):
                    return False
        return True

    def step(self, pump):
        """One receive; False at the end."""
        done = pump.receive()
        if done is None:
            return False
        for message, fds in done:
            self.link(message)
            self.messages.append(message)
            send = fds
            if message.command == VERSION and message.is_reply and fds and \
                    b'twin_socket' in message.raw:
                # Its commands are to come through here, too.
                ours, theirs = socket.socketpair(socket.AF_UNIX)
                self.join(ours, socket.socket(fileno=os.dup(fds[0])), True)
                send = [theirs.detach()]
            socket.send_fds(pump.sink, [message.raw], send)
            for fd in {*fds, *send}:
                os.close(fd)
        return True

    def link(self, message):
        """Find the request of a reply of the server."""
        if message.server and message.is_reply:
            message.request = next(
                (m for m in reversed(self.messages)
                 if not m.server and not m.is_reply and m.id == message.id and
                 m.command == message.command), None)


# Servers -------------------------------------------------------------------

def servers(build, scratch):
    """Name, arguments and whether it can be migrated."""
    samples = build / 'qemu/subprojects/libvfio-user/samples'
    image = scratch / 'disk'
    with open(image, 'wb') as file:
        file.truncate(1 << 20)
    export = {'qom-type': 'x-vfio-user-server', 'id': 'server',
              'device': 'dev', 'socket': {'type': 'unix', 'path': '@@'}}
    test = [build / 'tests/server/vfio-user-test-server', '--socket-path=@@']
    yield 'gpio', [samples / 'gpio-pci-idio-16', '@@'], False
    yield 'server', [samples / 'server', '@@'], False
    yield 'nvme', [build / 'qemu/qemu-system-x86_64', '-machine',
                   'x-remote,vfio-user=on', '-nodefaults', '-no-user-config',
                   '-display', 'none', '-drive',
                   f'if=none,id=d,format=raw,file={image}', '-device',
                   'nvme,id=dev,serial=1,drive=d', '-object',
                   json.dumps(export)], False
    yield 'test', test, False
    yield 'migration', test + ['--set', 'migration size=10000 precopy=3000 '
                               'p2p logging data-size'], True


def wait_for(condition, what):
    """Evaluate until it is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f'error: {what}: not within {DEADLINE} s')
        time.sleep(0.02)


def listens(path):
    """Whether the server's socket is there."""
    table = Path('/proc/net/unix').read_text(encoding='utf-8')
    return any(line.endswith(str(path)) and line.split()[3] == '00010000'
               for line in table.splitlines())


class QMP:
    """As much of it as is needed, with the proxy going on meanwhile."""

    def __init__(self, sock, proxy):
        self.sock, self.proxy, self.pending = sock, proxy, b''
        self.sock.settimeout(0.01)
        self.read()
        self.call('qmp_capabilities')

    def read(self):
        """The next line."""
        while b'\n' not in self.pending:
            self.proxy.run(0.05)
            try:
                self.pending += self.sock.recv(65536)
            except socket.timeout:
                pass
        line, self.pending = self.pending.split(b'\n', 1)
        return json.loads(line)

    def call(self, command, **arguments):
        """What it returns."""
        self.sock.sendall(json.dumps({'execute': command,
                                      'arguments': arguments}).encode())
        while True:
            answer = self.read()
            if 'return' in answer or 'error' in answer:
                return answer.get('return')


def record(build, scratch, name, argv, migrates):
    """The messages of one session."""
    path, front = str(scratch / f'{name}.s'), str(scratch / f'{name}.p')
    server = subprocess.Popen([str(a).replace('@@', path) for a in argv],
                              stdout=subprocess.DEVNULL)
    wait_for(lambda: listens(path), f'{name} listens')
    proxy = Proxy(path, front)
    ours, theirs = socket.socketpair()
    qemu = subprocess.Popen(
        [build / 'qemu/qemu-system-x86_64', '-nodefaults', '-display', 'none',
         '-accel', 'tcg', '-m', '64', '-object',
         'memory-backend-memfd,id=m,size=64M', '-machine',
         'q35,memory-backend=m', '-device', f'vfio-user-pci,socket={front}',
         '-chardev', f'socket,id=q,fd={theirs.fileno()}', '-mon',
         'chardev=q,mode=control'],
        pass_fds=[theirs.fileno()])
    theirs.close()
    proxy.start()
    qmp = QMP(ours, proxy)
    proxy.run(3)
    if migrates:
        qmp.call('migrate', uri='exec:cat > /dev/null')
        wait_for(lambda: qmp.call('query-migrate').get('status') in
                 ('completed', 'failed'), 'the migration ends')
        qmp.call('cont')
    qmp.call('system_reset')
    proxy.run(2)
    qmp.call('quit')
    proxy.run(DEADLINE, lambda: qemu.poll() is not None)
    server.terminate()
    server.wait()
    print(f'  {name}: {len(proxy.messages)} messages')
    return proxy.messages


# Inputs --------------------------------------------------------------------

def size_code(size):
    """As size_of() in conn.c reads it."""
    return size if size < 0xf0 else min(0xff, 0xef + (size + 1023) // 1024)


def wire_of(message):
    """Inputs of the target "wire" for a reply or a command of the server."""
    payload, request = message.payload, message.request
    yield bytes([W_HEADER]) + struct.pack('<HHI', message.command, 0,
                                          1 << 20) + message.raw[:16]
    if not message.is_reply:
        yield bytes([W_DMA]) + struct.pack('<I', 1 << 20) + message.raw[:32]
    if not request or message.flags & 0x20:
        return
    asked = request.payload
    if message.command == VERSION:
        yield bytes([W_VERSION]) + payload[:4]
    elif message.command == GET_INFO:
        yield bytes([W_INFO]) + payload
    elif message.command == REGION_INFO:
        room, _, index = struct.unpack_from('<III', asked)
        yield struct.pack('<BBBH', W_REGION, index, message.nr_fds,
                          room - 32) + payload
    elif message.command == IRQ_INFO:
        yield bytes([W_IRQ, asked[8]]) + payload
    elif message.command in (REGION_READ, REGION_WRITE):
        if len(payload) <= 272:
            yield bytes([W_RW, message.command == REGION_WRITE]) + \
                asked[:16] + payload
    elif message.command == DMA_UNMAP:
        yield bytes([W_UNMAP]) + asked + payload
    elif message.command == FEATURE:
        yield from wire_of_feature(asked, payload)
    elif message.command == MIG_READ:
        yield bytes([W_MIG_DATA]) + asked[4:8] + payload


def wire_of_feature(asked, payload):
    """The same for DEVICE_FEATURE."""
    flags = struct.unpack_from('<I', asked, 4)[0]
    yield bytes([W_FEATURE]) + struct.pack('<IBH', flags, 0, 4096) + \
        payload[:512]
    if flags == 1 << 16 | 1:
        yield bytes([W_MIGRATION]) + payload[8:16] + \
            struct.pack('<QQ', 4096, 1 << 30)
    if flags & 0xffff == 8:
        yield bytes([W_REPORT]) + asked[8:32] + payload[8:32]


def config_of(messages):
    """Config space with the sizes of the BARs, as it was first read."""
    bars = [0] * 6
    for m in messages:
        if not m.request or m.flags & 0x20:
            continue
        if m.command == REGION_INFO:
            index, size = struct.unpack_from('<I4xQ', m.payload, 8)
            if index < 6 and size:
                bars[index] = max((size - 1).bit_length(), 2)
        if m.command == REGION_READ:
            offset, region, count = struct.unpack_from('<QII', m.payload)
            if region == CONFIG and not offset and count in (256, 4096):
                yield bytes([count == 4096, *bars]) + \
                    m.payload[16:].rstrip(b'\0')
                return


def conn_of(messages):
    """The session as operations of conn.c, a call after the other."""
    twin = any(m.twin for m in messages)
    for flags in (0, 2, 8, 16, 32, 64):
        program = bytearray([twin | flags])
        for m in messages:
            if len(program) > 1200:
                break
            if m.server and m.is_reply and m.request:
                call = (m.id % 8) << 4
                size = size_code(len(m.payload))
                program += bytes([
                    0 | call, size_code(len(m.request.payload)), size,
                    m.command - 1, min(m.nr_fds, 4), 8, 0])
                program += struct.pack('<BH', 1, m.errno) \
                    if m.flags & 0x20 else b'\0'
                program += bytes([size, 2 if m.nr_fds else 0])
                program += bytes([m.nr_fds]) if m.nr_fds else b''
                program += bytes([2 | call])
            elif m.server:
                program += bytes([10 | (0x80 if m.twin else 0),
                                  m.command == DMA_WRITE])
                program += struct.pack('<HHBB', m.id, 32 + m.id % 4096,
                                       size_code(m.size - 32), 0)
                program += bytes([13 | (0x80 if m.twin else 0), 14])
        yield bytes(program)


def device_of(messages):
    """What the server said during realize, and each way on from there."""
    twin = any(m.twin for m in messages)
    said = bytearray([3 if twin else 2])
    for m in messages:
        if len(said) > 5000:
            break
        if not m.request:
            continue
        if m.flags & 0x20:
            said += bytes([ERROR]) + struct.pack('<H', m.errno)
        elif m.command in (VERSION, GET_INFO, REGION_INFO, IRQ_INFO,
                           REGION_READ, FEATURE, MIG_READ):
            said += bytes([REPLACE | FDS, m.nr_fds])
            said += struct.pack('<H', len(m.payload)) + m.payload
        if m.command == REGION_READ and m.payload[8] != CONFIG:
            break
    state = bytes([3, 2])
    ways = (
        b'',
        bytes([7, 0, 0, 0, 0, 7, 0, 3, 0x80, 7, 1, 1, 0, 2, 0, 3, 1, 2, 0, 7]),
        bytes([7, 0, 0, 0, 2, 0, 2, 4, 2, 0, 0, 1, 2, 3, 0, 1, 2, 2, 2, 0,
               8, 0, 0, 0, 9, 0, 0, 0]),
        bytes([5, 0, 0, 0, 5, 0, 64, 0x10, 5, 2, 64, 0, 6, 1, 0, 0]),
        state + bytes([6, 0, 4, 0, 0, 2, 4, 9, 9, 0]) + state +
        bytes([3, 0, 4, 0, 0, 0, 4, 0, 0, 0]) + state + bytes([1, 0]),
        state + bytes([1, 0]) + state + bytes([4, 0, 4, 9, 0, 1, 4, 9, 9, 1]) +
        state + bytes([1, 0]) + state + bytes([2, 0]),
    )
    for way in ways:
        yield bytes([len(way) // 4]) + way + bytes(said)
        yield bytes([len(way) // 4]) + way + bytes(said[:1])


def write(corpus, target, server, inputs):
    """Each input once, in files named for where they come from."""
    directory = corpus / target
    directory.mkdir(parents=True, exist_ok=True)
    known = {f.read_bytes() for f in directory.iterdir()}
    for data in inputs:
        if data not in known:
            known.add(data)
            (directory / f'{server}-{len(known)}').write_bytes(data)


def main():
    """Every server, every target."""
    build = Path(sys.argv[1] if len(sys.argv) > 1 else TOP / 'build')
    corpus = Path(sys.argv[2] if len(sys.argv) > 2 else
                  TOP / 'tests/fuzz/corpus')
    with tempfile.TemporaryDirectory() as scratch:
        for name, argv, migrates in servers(build.resolve(), Path(scratch)):
            messages = record(build.resolve(), Path(scratch), name, argv,
                              migrates)
            said = [m for m in messages if m.server]
            write(corpus, 'wire', name,
                  (i for m in said for i in wire_of(m)))
            write(corpus, 'caps', name,
                  (bytes([m.nr_fds]) + m.payload for m in said
                   if m.command == VERSION))
            write(corpus, 'config', name, config_of(messages))
            write(corpus, 'conn', name, conn_of(messages))
            write(corpus, 'device', name, device_of(messages))


main()
