# SPDX-License-Identifier: GPL-2.0-or-later
"""What migration costs: device state, downtime, reports of dirty pages.

QEMU's own traces carry time stamps of the same clock for all processes, so
that source and destination can be compared. The machine has no guest program:
nothing but the device is to be seen.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import tempfile

MIB = 1 << 20
BIG = 256 * MIB         # device state of the stream
SMALL = MIB
WINDOW = 256 * MIB
NR_WINDOWS = 256        # 64 GiB together
TIMEOUT = 30
# A single downtime tells little.
REPEATS = 3

EVENT = re.compile(r'\d+@(\d+)\.(\d+):(\w+) ?(.*)')
DATA_FLAG = 'data 0xffffffffef100004'
TRACES = ('vfio_save_complete_precopy*', 'vfio_load_state',
          'vfio_load_state_device_buffer_incoming',
          'vfio_user_migration_set_state', 'vmstate_downtime_checkpoint',
          'vfio_user_dirty_sync', 'vfio_user_dirty_synced')
PARAMETERS = {'max-bandwidth': 0, 'downtime-limit': 10000,
              'multifd-channels': 2}

PLAIN = ['-m', '64', '-object',
         'memory-backend-memfd,id=ram,size=64M,share=on',
         '-machine', 'pc,memory-backend=ram']


def file_backend(name, path, size, offset=0):
    """
    Memory of a sparse file. Migration leaves out what is shared and has a
    name (x-ignore-shared), so that nobody reads 64 GiB.
    """
    return ['-object', 'memory-backend-file,id=%s,mem-path=%s,size=%d,'
            'offset=%d,share=on,reserve=off' % (name, path, size, offset)]


def big_machine(path):
    """Few windows, the longest of them as its bitmap allows."""
    size = WINDOW * NR_WINDOWS
    return (['-m', '%dM' % (size // MIB), '-machine',
             'pc,memory-backend=ram'] + file_backend('ram', path, size))


def dimm_machine(path):
    """As many windows of the same size as there are slots for memory."""
    args = ['-m', '%dM,slots=%d,maxmem=128G' % (WINDOW // MIB, NR_WINDOWS),
            '-machine', 'pc,memory-backend=ram']
    args += file_backend('ram', path, WINDOW)
    for i in range(1, NR_WINDOWS):
        args += file_backend('m%d' % i, path, WINDOW, i * WINDOW)
        args += ['-device', 'pc-dimm,id=d%d,memdev=m%d' % (i, i)]
    return args


class Failed(Exception):
    """A figure could not be had."""


class Machine:
    """A QEMU process, its monitor and its traces."""

    def __init__(self, bench, name, server=None, machine=None, options=None,
                 incoming=False):
        self.name = name
        self.log = os.path.join(bench.directory, name + '.log')
        self.errors = tempfile.TemporaryFile('w+', dir=bench.directory)
        path = os.path.join(bench.directory, name + '.qmp')
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            listener.settimeout(TIMEOUT)
            args = [bench.args.qemu, '-nodefaults', '-no-user-config',
                    '-display', 'none', '-vga', 'none', '-accel', 'qtest',
                    '-msg', 'timestamp=on', '-D', self.log,
                    '-chardev', 'socket,id=mon,path=' + path,
                    '-mon', 'chardev=mon,mode=control']
            for trace in TRACES:
                args += ['-trace', trace]
            args += machine or PLAIN
            if server:
                args += ['-device', json.dumps(
                    {'driver': 'vfio-user-pci', 'socket': server} |
                    (options or {}))]
            if incoming:
                args += ['-incoming', 'defer']
            self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL,
                                         stderr=self.errors)
            try:
                self.socket = listener.accept()[0]
            except OSError as e:
                self.proc.kill()
                self.proc.wait()
                raise Failed('QEMU does not start: %s; %s' % (
                    e, self.said())) from e
            finally:
                os.unlink(path)
        self.socket.settimeout(TIMEOUT)
        self.stream = self.socket.makefile('rw')
        self.stream.readline()
        self.waiting = []
        self.command('qmp_capabilities')
        self.capabilities('events')

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()
        self.stream.close()
        self.proc.kill()
        self.proc.wait()
        self.errors.close()
        os.unlink(self.log)

    def said(self):
        """What QEMU has complained about so far."""
        self.errors.seek(0)
        return self.errors.read().strip()

    def message(self):
        try:
            line = self.stream.readline()
        except TimeoutError as e:
            raise Failed('%s: no sign of life for %d s; %s' % (
                self.name, TIMEOUT, self.said())) from e
        if not line:
            raise Failed('%s: QEMU has gone: %s' % (self.name, self.said()))
        return json.loads(line)

    def command(self, name, **arguments):
        self.stream.write(json.dumps({'execute': name,
                                      'arguments': arguments}) + '\n')
        self.stream.flush()
        while True:
            answer = self.message()
            if 'error' in answer:
                raise Failed('%s: %s' % (name, answer['error']['desc']))
            if 'return' in answer:
                return answer['return']
            self.waiting.append(answer)

    def give_null(self):
        """A channel that costs next to nothing; returns its address."""
        with open(os.devnull, 'wb') as null:
            socket.send_fds(self.socket, [b' '], [null.fileno()])
            self.command('getfd', fdname='null')
        return 'fd:null'

    def wait_event(self, wanted):
        """Until @wanted(event) is true."""
        while True:
            event = self.waiting.pop(0) if self.waiting else self.message()
            if wanted(event):
                return

    def capabilities(self, *names):
        self.command('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': True} for name in names])

    def start_migration(self, uri):
        self.command('migrate-set-parameters', **PARAMETERS)
        self.command('migrate', uri=uri)

    def wait_migration(self):
        def ended(event):
            status = event.get('data', {}).get('status')
            if event.get('event') == 'MIGRATION' and status == 'failed':
                raise Failed('migration failed: ' + self.said())
            return event.get('event') == 'MIGRATION' and status == 'completed'
        self.wait_event(ended)

    def events(self):
        """Traces so far: microseconds, name, text."""
        with open(self.log, encoding='utf-8', errors='replace') as log:
            found = [EVENT.match(line) for line in log]
        return [(int(m[1]) * 1000000 + int(m[2]), m[3], m[4])
                for m in found if m]

    def when(self, name, text='', last=False):
        """The time of the first, or last, event of this name with @text."""
        times = [t for t, n, words in self.events()
                 if n == name and text in words]
        if not times:
            raise Failed('no trace of %s %s' % (name, text))
        return times[-1] if last else times[0]


class Bench:
    """Servers that all rounds use, and a directory in memory."""

    def __init__(self, args, directory):
        self.args = args
        self.directory = directory
        self.procs = []
        self.big = [self.serve('big%d' % i, BIG) for i in range(2)]
        self.small = [self.serve('small%d' % i, SMALL) for i in range(2)]
        self.file = None

    def serve(self, name, size):
        path = os.path.join(self.directory, name)
        proc = subprocess.Popen([self.args.migration_server, path,
                                 str(size)], text=True,
                                stdout=subprocess.PIPE)
        self.procs.append(proc)
        if proc.stdout.readline() != 'serving\n':
            raise SystemExit('%s does not serve' % self.args.migration_server)
        return path

    def stop(self):
        for proc in self.procs:
            proc.kill()
            proc.wait()
            proc.stdout.close()

    def raw(self, *words):
        proc = subprocess.run([self.args.migration_raw] +
                              [str(w) for w in words], text=True,
                              stdout=subprocess.PIPE, timeout=TIMEOUT,
                              check=True)
        lines = [line.split() for line in proc.stdout.splitlines()]
        return {name: float(value) for name, _, value in lines}

    # Device state

    def save(self, uri=None):
        """MB/s from the state of the device to the stream of migration."""
        with Machine(self, 'save', self.big[0]) as source:
            source.start_migration(uri or source.give_null())
            source.wait_migration()
            us = (source.when('vfio_save_complete_precopy') -
                  source.when('vfio_save_complete_precopy_start'))
        return BIG / us

    def load(self):
        """MB/s back; to the point where the server has taken all of it."""
        if not self.file:
            self.file = os.path.join(self.directory, 'state')
            self.save('file:' + self.file)
        with Machine(self, 'load', self.big[1], incoming=True) as to:
            to.command('migrate-incoming', uri='file:' + self.file)
            self.wait_running(to)
            us = (to.when('vfio_user_migration_set_state', 'to STOP') -
                  to.when('vfio_load_state', DATA_FLAG))
        return BIG / us

    @staticmethod
    def wait_running(machine):
        machine.wait_event(lambda event: event.get('event') == 'RESUME')
        # The event comes first; then the rest, and then the monitor's turn.
        machine.command('query-status')

    def pair(self, servers, options=None, capabilities=()):
        """Two machines, the first of which has migrated to the second."""
        uri = 'unix:' + os.path.join(self.directory, 'channel')
        source = Machine(self, 'source', servers and servers[0],
                         options=options)
        with source:
            with Machine(self, 'to', servers and servers[1], options=options,
                         incoming=True) as to:
                for machine in (source, to):
                    if capabilities:
                        machine.capabilities(*capabilities)
                to.command('migrate-set-parameters', **PARAMETERS)
                to.command('migrate-incoming', uri=uri)
                source.start_migration(uri)
                source.wait_migration()
                self.wait_running(to)
                yield source, to

    def transfer(self):
        """MB/s from server to server, by multifd."""
        for source, to in self.pair(self.big, capabilities=['multifd',
                                                           'return-path'],
                                    options={'x-migration-multifd-transfer':
                                             'on'}):
            us = (to.when('vfio_user_migration_set_state', 'to STOP') -
                  source.when('vfio_save_complete_precopy_thread_start'))
            to.when('vfio_load_state_device_buffer_incoming')
        return BIG / us

    # Downtime

    def downtime(self, servers):
        """From the stop at the source to the start at the destination."""
        for source, to in self.pair(servers):
            us = (to.when('vmstate_downtime_checkpoint',
                          'dst-precopy-bh-vm-started') -
                  source.when('vmstate_downtime_checkpoint',
                              'src-downtime-start'))
        return us

    def downtimes(self):
        """What the devices add to it."""
        us = {'none': [], '1m': [], '256m': []}
        for _ in range(REPEATS):
            us['none'].append(self.downtime(None))
            us['1m'].append(self.downtime(self.small))
            us['256m'].append(self.downtime(self.big))
        return {k: statistics.median(v) for k, v in us.items()}

    # Dirty pages

    def dirty(self, machine):
        """A collection, in ns: the middle of those of some migrations."""
        ns = []
        for _ in range(REPEATS):
            ns += self.collections(machine)
        return statistics.median(ns)

    def collections(self, machine):
        """Of one migration: while the machine runs, and after it stopped."""
        path = os.path.join(self.directory, 'ram')
        with open(path, 'wb') as ram:
            ram.truncate(WINDOW * NR_WINDOWS)
        with Machine(self, 'dirty', self.small[0], machine(path)) as source:
            source.capabilities('x-ignore-shared')
            source.start_migration(source.give_null())
            source.wait_migration()
            events = source.events()
        starts = [t for t, name, text in events
                  if name == 'vfio_user_dirty_sync' and 'logging 1' in text]
        ends = [t for t, name, _ in events if name == 'vfio_user_dirty_synced']
        if not starts or len(starts) != len(ends):
            raise Failed('no trace of dirty pages')
        return [(end - start) * 1000 for start, end in zip(starts, ends)]


# Name of the figure, its unit, and which of a round's values is its floor;
# the other values stand beside it in the table of rounds.
FIGURES = {
    'mig-stream-save': ('MB/s', 'pair', ('raw-save',)),
    'mig-stream-load': ('MB/s', 'pair', ('raw-load',)),
    'mig-stream-multifd': ('MB/s', 'pair', ()),
    'mig-downtime-1m': ('us', 'downtime-1m', ('without',)),
    'mig-downtime-256m': ('us', 'downtime-256m', ('without',)),
    'mig-dirty-64g': ('ns', 'naive', ('pipelined',)),
    'mig-dirty-64g-large': ('ns', 'naive-large', ('pipelined-large',)),
}


def one_round(bench):
    """Ours and the raw client's, in turn."""
    row = {'pair': bench.raw('pair', BIG)['pair']}
    row['mig-stream-save'] = bench.save()
    row['mig-stream-load'] = bench.load()
    try:
        row['mig-stream-multifd'] = bench.transfer()
    except Failed as e:
        # QEMU 10.0's multifd can lose the last packets of device state.
        print('migration: multifd: no figure in this round: %s' % e)
    big = bench.raw('state', bench.big[0], BIG)
    row |= {'raw-save': big['save'], 'raw-load': big['load'],
            'downtime-256m': big['downtime']}
    small = bench.raw('state', bench.small[0], SMALL)
    row['downtime-1m'] = small['downtime']
    us = bench.downtimes()
    row['without'] = us['none']
    for size in ('1m', '256m'):
        row['mig-downtime-' + size] = us[size] - us['none']
    for suffix, machine, nr in (('', dimm_machine, NR_WINDOWS),
                                ('-large', big_machine, 2)):
        row['mig-dirty-64g' + suffix] = bench.dirty(machine)
        raw = bench.raw('dirty', bench.small[1], nr,
                        WINDOW * NR_WINDOWS // nr)
        row['naive' + suffix] = raw['naive-p50']
        row['pipelined' + suffix] = raw['pipelined-p50']
    return row


def figure(name, condition, rows):
    """One entry of results.json."""
    unit, floor_name, others = FIGURES[name]
    table = [{'ours': round(row[name], 1), 'floor': round(row[floor_name], 1)}
             | {key: round(row[key], 1) for key in others}
             for row in rows if name in row]
    ours = statistics.median(row['ours'] for row in table)
    floor = statistics.median(row['floor'] for row in table)
    return {'name': name, 'condition': condition, 'unit': unit,
            'ours': round(ours, 1), 'floor': round(floor, 1),
            'ratio': round(ours / floor, 3), 'rounds': table}


def measure(args, condition):
    """All figures of one condition."""
    memory = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
    rows = []
    with tempfile.TemporaryDirectory(prefix='vfio-user-bench-',
                                     dir=memory) as directory:
        bench = Bench(args, directory)
        try:
            for i in range(args.rounds):
                print('%s, migration: round %d of %d' % (
                    condition, i + 1, args.rounds), flush=True)
                rows.append(one_round(bench))
        except (Failed, OSError, subprocess.SubprocessError) as e:
            print('migration: no figures: %s' % e)
            return []
        finally:
            bench.stop()
    return [figure(name, condition, rows) for name in FIGURES
            if any(name in row for row in rows)]
