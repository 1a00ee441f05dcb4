#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings: what is in them, what Wireshark makes of them, playing them.

No guest runs: the test plays the CPU through qtest, as in
test_vfio_user_interop.py.  tshark, with the dissector of this repository, must
tell of each message what the recording's bytes say.
"""

from collections import Counter
import errno
import json
import os
from pathlib import Path
import re
import shutil
import struct
import subprocess
import sys

from qemu_test import QemuSystemTest

import test_vfio_user_interop as interop
from vfio_user_case import REPOSITORY
from vfio_user_migration import find_server
import vfio_user_pcapng as pcapng
import vfio_user_rows as rows
from vfio_user_samples import VFIOUserSampleTest
from vfio_user_server import Server, wait_until

DISSECTOR = REPOSITORY / 'scripts' / 'wireshark' / 'vfio-user.lua'
REPLAY = REPOSITORY / 'tests' / 'server' / 'replay.py'
CORPUS = REPOSITORY / 'tests' / 'fuzz' / 'corpus'
DEADLINE = 30
NOBODY = 65534

# The scripted engine, tests/server/engine.h
ENGINE_BAR, ENGINE_MEMORY, PAGE = 0xe0000000, 0x100000, 4096
ENGINE_CONTROL, ENGINE_BUFFER, ENGINE_SIZE = 0x04, 0x18, 0x20
ENGINE_SEED, ENGINE_GENERATION = 0x28, 0x30
ENGINE_RUN_NO_ACK = 5
BUS_MASTER = 4

COMMANDS = {
    1: 'VERSION', 2: 'DMA_MAP', 3: 'DMA_UNMAP', 4: 'DEVICE_GET_INFO',
    5: 'DEVICE_GET_REGION_INFO', 6: 'DEVICE_GET_REGION_IO_FDS',
    7: 'DEVICE_GET_IRQ_INFO', 8: 'DEVICE_SET_IRQS', 9: 'REGION_READ',
    10: 'REGION_WRITE', 11: 'DMA_READ', 12: 'DMA_WRITE', 13: 'DEVICE_RESET',
    15: 'REGION_WRITE_MULTI', 16: 'DEVICE_FEATURE', 17: 'MIG_DATA_READ',
    18: 'MIG_DATA_WRITE'}
FIELDS = ('frame.number', '_ws.col.Info', 'vfio_user.command',
          'vfio_user.from_server', 'vfio_user.type', 'vfio_user.error',
          'vfio_user.fds', 'vfio_user.size', 'vfio_user.reply_in',
          'vfio_user.request_in', 'vfio_user.offset', 'vfio_user.region',
          'vfio_user.count', 'vfio_user.data', '_ws.expert.message')


class VFIOUserRecord(VFIOUserSampleTest):
    """A machine that records, and what to do with the file."""

    def launch(self, server, name='client', **options):
        """A q35 with the server's device."""
        machine = interop.Machine(self)
        self.logs.append(self.log_file(name + '.log'))
        machine.set_machine('q35,memory-backend=mem')
        machine.add_args('-nodefaults', '-qtest-log', '/dev/null',
                         '-m', '128M', '-object',
                         'memory-backend-memfd,id=mem,size=128M,share=on',
                         *self.client(server, id='dev', addr=interop.SLOT,
                                      **options))
        self._vms[name] = machine
        machine.launch()
        machine.map_config()
        return machine

    def use(self, machine):
        """Config space and the first register of each BAR, as a guest does.
        """
        seen = [machine.config(256)]
        machine.config_write(interop.COMMAND, interop.DECODE)
        index = 0
        while index < 6:
            register = interop.BAR0 + 4 * index
            kind = machine.config_read(register)
            machine.config_write(register, interop.ALL_ONES)
            size = machine.config_read(register)
            is_io = kind & interop.BAR_IO
            if size:
                base = interop.bar_address(index, is_io)
                machine.config_write(register, base)
                seen += [machine.number(f'{"in" if is_io else "read"}l '
                                        f'{base + offset:#x}')
                         for offset in (0, 4, 0)]
            index += 2 if kind & interop.BAR_64BIT and not is_io else 1
        machine.cmd('system_reset')
        machine.event_wait('RESET')
        machine.map_config()
        return seen + [machine.config(256)]

    def record(self, server):
        """A session with a server: the file, and what was seen."""
        path = self.scratch_file('record.pcapng')
        machine = self.launch(server, **{'x-record': path})
        seen = self.use(machine)
        machine.shutdown()
        return path, seen

    def require_tshark(self):
        """Skip where there is none."""
        if not shutil.which('tshark'):
            self.skipTest('no tshark to read recordings with; install tshark')

    def tshark(self, path, *args):
        """What it prints; an error in the dissector fails the test."""
        self.require_tshark()
        # Newer ones run no script for root. Nobody may not open what is in
        # the directories here, so it gets both files by their descriptors.
        drop = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []} \
            if os.geteuid() == 0 else {}
        copy = self.scratch_file('tshark.pcapng')
        shutil.copyfile(path, copy)
        os.chmod(copy, 0o644)
        with open(copy, 'rb') as file, open(DISSECTOR, 'rb') as script:
            fds = file.fileno(), script.fileno()
            done = subprocess.run(
                ['tshark', '-X', f'lua_script:/dev/fd/{fds[1]}', '-r',
                 f'/dev/fd/{fds[0]}', *args], capture_output=True, cwd='/',
                check=False, encoding='utf8', pass_fds=fds,
                env={**os.environ, 'HOME': '/nonexistent',
                     'LC_ALL': 'C.UTF-8'}, **drop)
        self.assertNotIn('Lua', done.stderr)
        self.assertNotRegex(done.stdout, 'Lua [Ee]rror|_lua.error')
        return done

    def dissect(self, path):
        """One dictionary for each message."""
        args = [a for field in FIELDS for a in ('-e', field)]
        done = self.tshark(path, '-2', '-T', 'fields', '-E', 'separator=\t',
                           *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [dict(zip(FIELDS, line.split('\t')))
                for line in done.stdout.splitlines()]

    # What tshark says ---------------------------------------------------

    def check_dissected(self, path):
        """Each message by name, with its fields and its partner."""
        recorded = pcapng.read(path)
        shown = self.dissect(path)
        self.assertEqual(len(shown), len(recorded))
        for message, row in zip(recorded, shown):
            self.check_row(message, row, recorded)
        return recorded, shown

    def check_row(self, message, row, recorded):
        """A line of tshark against the bytes."""
        kind = 'reply' if message.is_reply else 'command'
        self.assertTrue(row['_ws.col.Info'].startswith(
            f'{COMMANDS[message.command]} {kind}'), row)
        self.assertEqual(int(row['vfio_user.size']), len(message.raw))
        self.assertEqual(int(row['vfio_user.fds']), message.fds)
        self.assertIn(row['vfio_user.from_server'],
                      ('1', 'True') if message.server else ('0', 'False'))
        expert = row['_ws.expert.message']
        if message.error:
            name = errno.errorcode[message.error]
            self.assertIn(f' error {name}', row['_ws.col.Info'])
            self.assertEqual(expert, f'Refused: {name}')
        else:
            self.assertEqual(expert, '', row)
        if message.is_reply:
            request = recorded[int(row['vfio_user.request_in']) - 1]
            self.assertEqual((request.id, request.command, request.is_reply),
                             (message.id, message.command, False))
        if COMMANDS[message.command] in ('REGION_READ', 'REGION_WRITE') \
                and not message.error:
            self.check_access(message, row)

    def check_access(self, message, row):
        """Offset, region, count and data of a region access."""
        offset, region, count = struct.unpack_from('<QII', message.payload)
        self.assertEqual((int(row['vfio_user.offset'], 0),
                          int(row['vfio_user.region']),
                          int(row['vfio_user.count'])),
                         (offset, region, count))
        self.assertEqual(row['vfio_user.data'], message.payload[16:].hex())

    def test_gpio(self):
        """A session with a server that others wrote."""
        self.require_tshark()
        path, _ = self.record(self.serve_sample('gpio-pci-idio-16'))
        recorded, shown = self.check_dissected(path)
        lines = [row['_ws.col.Info'] for row in shown]
        self.assertEqual(lines[0], 'VERSION command 0.2')
        self.assertIn('DEVICE_GET_REGION_INFO reply BAR 2 size 0x100', lines)
        self.assertIn('DEVICE_FEATURE reply error EINVAL', lines)
        self.assertIn('DEVICE_GET_IRQ_INFO reply INTx: 1', lines)
        self.assertIn('DMA_MAP command 0x0+0x8000000 rw [fds 1]', lines)
        self.assertIn('DEVICE_SET_IRQS command INTx eventfd trigger from 0 '
                      'count 1 [fds 1]', lines)
        # Its first register counts how often it was read.
        self.assertEqual(
            [m.payload[16:].hex() for m in recorded
             if m.server and m.command == 9 and
             m.payload[8:16] == struct.pack('<II', 2, 4) and
             not struct.unpack_from('<Q', m.payload)[0]][0][:2], '00')
        # All that has a reply got it, and later.
        requests = [(nr, m) for nr, m in enumerate(recorded)
                    if not m.is_reply and not m.flags & pcapng.NO_REPLY]
        for nr, message in requests:
            reply = recorded[int(shown[nr]['vfio_user.reply_in']) - 1]
            self.assertEqual((reply.id, reply.is_reply), (message.id, True))
            self.assertGreaterEqual(reply.time, message.time)
        self.assertEqual(len(requests), sum(m.is_reply for m in recorded))

    def test_nvme(self):
        """QEMU's own server: mapped BAR, MSI-X, DMA windows."""
        self.require_tshark()
        path, _ = self.record(self.serve_disk(rows.NVME))
        self.check_dissected(path)

    def test_json(self):
        """Names of values, as people read them."""
        path, _ = self.record(self.serve_sample('server'))
        text = self.tshark(path, '-V').stdout
        self.assertRegex(text, r'Command: DEVICE_GET_REGION_INFO \(5\)')
        self.assertRegex(text, r'Region: config \(7\)')
        self.assertRegex(text, r'Capability: sparse mmap')
        self.assertRegex(text, r'Capabilities: {"capabilities": ?{.*'
                               r'max_data_xfer_size')
        self.assertRegex(text, r'Error number: E[A-Z]+ \(\d+\)')
        found = json.loads(self.tshark(path, '-T', 'json').stdout)
        first = found[0]['_source']['layers']['vfio_user']
        self.assertEqual(first['vfio_user.command'], '1')

    def test_filter(self):
        """A display filter by the command's name."""
        path, _ = self.record(self.serve_sample('gpio-pci-idio-16'))
        number = sum(m.command == 9 for m in pcapng.read(path))
        lines = self.tshark(path, '-Y', 'vfio_user.command == "REGION_READ"'
                            ).stdout.splitlines()
        self.assertGreater(number, 0)
        self.assertEqual(len(lines), number)

    # What the server says -------------------------------------------------

    def serve_scripted(self, *lines):
        """The test server, which logs what it was asked."""
        if not os.access(find_server(), os.X_OK):
            self.skipTest(f'no {find_server()}: build it with "make", or name '
                          'it in VFIO_USER_TEST_SERVER')
        path, log = self._paths()
        argv = [find_server(), '--log', f'--socket-path={path}']
        for line in lines:
            argv += ['--set', line]
        server = Server(argv, path, log)
        self.servers.append(server)
        return server.start()

    def test_counts(self):
        """As many of each command as the server counted."""
        server = self.serve_scripted()
        path, _ = self.record(server)
        server.stop()
        counted = Counter(re.findall(r'^\d+ ([A-Z_]+) ', server.log_text(),
                                     re.MULTILINE))
        recorded = pcapng.read(path)
        self.assertEqual(
            Counter(COMMANDS[m.command] for m in recorded
                    if not m.server and not m.is_reply), counted)
        self.assertGreater(counted['REGION_READ'], 2)

    # Files that are not as they should be ------------------------------------

    def test_truncated(self):
        """A file that ends anywhere is read up to there."""
        self.require_tshark()
        path, _ = self.record(self.serve_sample('gpio-pci-idio-16'))
        data = Path(path).read_bytes()
        part = self.scratch_file('part.pcapng')
        before = 0
        for length in (1000, 1501, 2002, len(data) - 1):
            Path(part).write_bytes(data[:length])
            number = len(self.tshark(part).stdout.splitlines())
            self.assertEqual(number, len(pcapng.messages(data[:length],
                                                         strict=False)))
            self.assertGreater(number, before)
            before = number

    def malformed(self):
        """Messages of every command with whatever the fuzzers have found, and
        each cut at each byte."""
        seeds = sorted(path.read_bytes()[:2000] for name in ('wire', 'conn')
                       for path in (CORPUS / name).iterdir())
        self.assertGreater(len(seeds), 50)
        for nr, seed in enumerate(seeds):
            yield pcapng.Message(seed, len(seed), bool(nr % 2))
            command = 1 + nr % 19
            for flags in (0, pcapng.REPLY):
                raw = pcapng.HEADER.pack(nr, command, 16 + len(seed), flags,
                                         0) + seed
                yield pcapng.Message(raw, len(raw), bool(flags))
        for command in range(21):
            for flags in (0, 1, 2, pcapng.REPLY | pcapng.ERROR):
                body = bytes(range(1, 65))
                for end in (*range(0, 80, 3), 80):
                    raw = pcapng.HEADER.pack(end, command, 80, flags, 5)
                    yield pcapng.Message((raw + body)[:end], 80, flags == 1)
                    yield pcapng.Message((raw + body)[:end], end, flags == 1)

    def test_malformed(self):
        """What nobody should send is told of, and is no error of the script.
        """
        self.require_tshark()
        path = self.scratch_file('malformed.pcapng')
        sent = list(self.malformed())
        pcapng.write(path, sent)
        done = self.tshark(path, '-V', '-2')
        self.assertEqual(done.returncode, 0, done.stderr)
        for text in ('Too short: ', 'Neither command nor reply',
                     'No such command', 'Not all of the message was recorded',
                     'A reply to nothing that was recorded',
                     'A message of '):
            self.assertIn(text, done.stdout)
        shown = re.findall(r'^vfio-user', done.stdout, re.MULTILINE)
        self.assertEqual(len(shown), len(sent))

    # Sockets -----------------------------------------------------------------

    def test_returned(self):
        """A server that comes back begins a new interface."""
        path = self.scratch_file('returned.pcapng')
        server = self.serve_sample('gpio-pci-idio-16')
        machine = self.launch(server, **{'x-record': path,
                                         'reconnect-ms': 10})
        server.kill()
        again = server.again(self.log_file('again.log'))
        self.servers.append(again)
        again.start()
        machine.event_wait('VFIO_USER_DISCONNECTED')
        wait_until(lambda: machine.cmd('query-vfio-user')[0]['state'] ==
                   'connected', DEADLINE, 'the server is back')
        machine.config_read(0)
        machine.shutdown()
        recorded = pcapng.read(path)
        names = list(dict.fromkeys(m.interface for m in recorded))
        self.assertEqual(names[0], 'dev 1')
        self.assertGreater(len(names), 1)
        last = [m for m in recorded if m.interface == names[-1]]
        self.assertEqual([last[0].command, last[-1].command], [1, 9])

    def run_engine(self, machine):
        """Let the scripted engine write two pages; what is in memory then."""
        machine.config_write(interop.BAR0, ENGINE_BAR)
        machine.config_write(interop.COMMAND, interop.DECODE | BUS_MASTER)
        for register, value in ((ENGINE_BUFFER, ENGINE_MEMORY),
                                (ENGINE_SIZE, 2 * PAGE), (ENGINE_SEED, 7)):
            machine.number(f'writeq {ENGINE_BAR + register:#x} {value:#x}')
        machine.number(f'writel {ENGINE_BAR + ENGINE_CONTROL:#x} '
                       f'{ENGINE_RUN_NO_ACK:#x}')
        wait_until(lambda: machine.number(
            f'readq {ENGINE_BAR + ENGINE_GENERATION:#x}') > 1, DEADLINE,
            'the engine has written all pages')
        machine.number(f'writel {ENGINE_BAR + ENGINE_CONTROL:#x} 0')
        generation = machine.number(
            f'readq {ENGINE_BAR + ENGINE_GENERATION:#x}')
        # Of each page its number and the seed: the same in each generation
        return generation, [
            machine.number(f'readq {ENGINE_MEMORY + at:#x}')
            for page in (0, PAGE) for at in (page, page + 16)]

    def test_dma(self):
        """The server's own commands, on the second socket; also played."""
        self.require_tshark()
        path = self.scratch_file('dma.pcapng')
        server = self.serve_scripted('engine pages=2 rate=100')
        machine = self.launch(server, **{'x-record': path,
                                         'dma-share': 'off'})
        seen = self.run_engine(machine)
        machine.shutdown()
        self.assertEqual(seen[1], [0, 7, 1, 7])
        recorded, shown = self.check_dissected(path)
        commands = [(m, row) for m, row in zip(recorded, shown)
                    if m.server and m.command == 12]
        self.assertGreaterEqual(len(commands), 2)
        message, row = commands[0]
        self.assertTrue(message.twin)
        self.assertEqual(message.interface, 'dev 1 twin')
        self.assertEqual(row['_ws.col.Info'],
                         f'DMA_WRITE command {ENGINE_MEMORY:#x} count {PAGE}')
        self.assertEqual(row['vfio_user.data'], message.payload[16:].hex())
        self.assertEqual(len(commands), sum(
            m.twin and m.is_reply and not m.server for m in recorded))

        player = self.play(path)
        machine = self.launch(player, 'second', **{'dma-share': 'off'})
        self.assertEqual(self.run_engine(machine), seen)
        machine.shutdown()
        self.assertEqual(player.wait(), 0, player.log_text())

    # QEMU's end ------------------------------------------------------------

    def test_killed(self):
        """What was said is in the file when QEMU has no time to end."""
        path = self.scratch_file('killed.pcapng')
        machine = self.launch(self.serve_sample('gpio-pci-idio-16'),
                              **{'x-record': path})
        machine.config_write(0x3c, 0x5a)

        def is_there():
            return any(m.command == 10 and m.payload[16:17] == b'\x5a'
                       for m in pcapng.read(path, strict=False))
        wait_until(is_there, DEADLINE, f'{path} has the last write')
        del self._vms['client']
        machine.kill()
        self.assertTrue(is_there())
        self.assertTrue(pcapng.read(path)[-1].whole)

    def test_unplugged(self):
        """The file is complete when the device has gone; one more follows."""
        path = self.scratch_file('unplugged.pcapng')
        servers = [self.serve_sample('gpio-pci-idio-16') for _ in range(2)]
        machine = interop.Machine(self)
        machine.set_machine('pc')
        machine.add_args('-nodefaults', '-qtest-log', '/dev/null')
        self._vms['client'] = machine
        machine.launch()
        for server in servers:
            machine.cmd('device_add', driver='vfio-user-pci', id='dev',
                        socket={'type': 'unix', 'path': server.socket},
                        **{'x-record': path})
            self.assertEqual(oct(os.stat(path).st_mode & 0o777), '0o600')
            machine.cmd('device_del', id='dev')
            # Nobody drives the guest's ACPI: the next reset unplugs.
            machine.cmd('system_reset')
            machine.event_wait('DEVICE_DELETED')
            recorded = pcapng.read(path)
            self.assertEqual(recorded[0].command, 1)
            self.assertTrue(all(m.whole for m in recorded))
            self.assertEqual(pcapng.last_block(path), pcapng.STATISTICS)
        machine.shutdown()

    def test_refused(self):
        """A file that cannot be made is said at once, with its name."""
        server = self.serve_sample('gpio-pci-idio-16')
        done = subprocess.run(
            [self.qemu_bin, '-nodefaults', '-display', 'none', '-accel',
             'qtest', *self.client(server, **{'x-record': '/nowhere/file'})],
            capture_output=True, check=False, encoding='utf8',
            timeout=DEADLINE)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"vfio-user-pci unix:.*: x-record: Could "
                         r"not create '/nowhere/file': No such file")

    def test_failed(self):
        """Of a device that cannot be had, the file tells how far it got."""
        path = self.scratch_file('failed.pcapng')
        server = self.serve_sample('gpio-pci-idio-16')
        done = subprocess.run(
            [self.qemu_bin, '-nodefaults', '-display', 'none', '-accel',
             'qtest', *self.client(server, **{'x-record': path,
                                              'enable-migration': 'on'})],
            capture_output=True, check=False, encoding='utf8',
            timeout=DEADLINE)
        self.assertEqual(done.returncode, 1)
        self.assertIn('does not offer migration', done.stderr)
        recorded = pcapng.read(path)
        self.assertEqual((recorded[0].command, recorded[-1].command), (1, 16))
        self.assertEqual(recorded[-1].error, errno.EINVAL)
        self.assertEqual(pcapng.last_block(path), pcapng.STATISTICS)

    # Playing ---------------------------------------------------------------

    def play(self, path):
        """A server that answers as the recording says."""
        socket, log = self._paths()
        server = Server([sys.executable, str(REPLAY),
                         f'--socket-path={socket}', path], socket, log)
        self.servers.append(server)
        return server.start()

    def check_replay(self, server):
        """A new client sees what the first one saw, without the server."""
        path, seen = self.record(server)
        server.stop()
        player = self.play(path)
        machine = self.launch(player, 'second')
        self.assertEqual(self.use(machine), seen)
        machine.shutdown()
        self.assertEqual(player.wait(), 0, player.log_text())
        self.assertEqual(player.log_text(), '')

    def test_replay_gpio(self):
        """Registers that change with each read."""
        self.check_replay(self.serve_sample('gpio-pci-idio-16'))

    def test_replay_server(self):
        """Mapped areas, a BAR that refuses."""
        self.check_replay(self.serve_sample('server'))

    def test_replay_nvme(self):
        """QEMU's own server."""
        self.check_replay(self.serve_disk(rows.NVME))

    def test_replay_scripted(self):
        """Two sockets."""
        self.check_replay(self.serve_scripted())

    def test_replay_unknown(self):
        """What was never asked is refused and reported."""
        path, _ = self.record(self.serve_sample('gpio-pci-idio-16'))
        player = self.play(path)
        machine = self.launch(player, 'second')
        machine.config_write(interop.COMMAND, interop.DECODE)
        machine.config_write(interop.BAR0 + 8, interop.IO_STEP)
        self.assertEqual(machine.number(f'inb {interop.IO_STEP + 7:#x}'), 0xff)
        machine.shutdown()
        self.assertEqual(player.wait(), 1)
        self.assertRegex(player.log_text(),
                         r'connection 1: REGION_READ 0700000000000000 '
                         r'0200000001000000: is not in the recording')


if __name__ == '__main__':
    QemuSystemTest.main()
