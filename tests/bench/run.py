#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures what vfio-user-pci costs, next to the least that it could cost.

Rounds of: the raw client (once blocking, once spinning; the better of the two
is the floor), the engine alone, QEMU with a guest program, all against the
same server processes; first on an otherwise quiet machine, then with one core
kept busy. Medians go to results.json, and results.svg shows them.

Times are ours/floor, smaller is better; rates (MB/s, 1/s) likewise ours/floor,
larger is better. Nothing here passes or fails.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import chart
import iommu
import migration

NR_SERVERS = 4
POLL_MAX_US = '50'      # the device's default
MACHINE = ['-m', '64', '-smp', '4', '-nodefaults', '-no-user-config',
           '-no-reboot', '-display', 'none', '-vga', 'none',
           '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
           '-device', 'pci-testdev']
RATES = ('MB/s', '1/s')
UNITS = {'dma': 'MB/s', 'windows': '1/s', 'iommu': '1/s', 'startup-time': 'us',
         'startup-far': 'us', 'startup-messages': 'messages'}


def unit_of(name):
    for prefix, unit in UNITS.items():
        if name.startswith(prefix):
            return unit
    return 'ns'


class Servers:
    """The processes that everything is measured against."""

    def __init__(self, args, directory):
        self.procs = []
        self.paths = []
        for i in range(NR_SERVERS):
            self.paths.append(os.path.join(directory, 'bench%d' % i))
            self.start([args.server, self.paths[-1]])
        self.bells = os.path.join(directory, 'bells')
        self.start([args.server, self.bells, 'bells'])
        self.far = os.path.join(directory, 'far')
        self.start([args.server, self.far, 'far'])
        self.gpio = None
        if os.path.exists(args.gpio):
            self.gpio = os.path.join(directory, 'gpio')
            self.procs.append(subprocess.Popen(
                [args.gpio, self.gpio], stdout=subprocess.DEVNULL))
        else:
            print('no figures of libvfio-user: %s is not there' % args.gpio)

    def start(self, command):
        proc = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        self.procs.append(proc)
        if proc.stdout.readline() != 'serving\n':
            raise SystemExit('%s does not serve' % command[0])

    def messages(self):
        """Of the present client: how many, and the time to set up in us."""
        self.procs[0].send_signal(signal.SIGUSR1)
        _, nr, ns = self.procs[0].stdout.readline().split()
        return int(nr), int(ns) / 1000

    def stop(self):
        for proc in self.procs:
            proc.kill()
            proc.wait()


def parse(text):
    """Lines "NAME [UNIT] VALUE" as a dictionary."""
    words = [line.split() for line in text.splitlines()]
    return {w[0]: float(w[-1]) for w in words if len(w) > 1}


def run(command, timeout=60, good=0):
    """Its output, or None after telling what went wrong."""
    try:
        proc = subprocess.run(command, text=True, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        print('no result: %s' % e)
        return None
    if proc.returncode != good:
        print('no result: %s ended with %d: %s' % (
            command[0], proc.returncode, proc.stderr.strip()))
        return None
    return proc.stdout


def run_client(command, servers):
    """The raw client or the engine: our servers, then libvfio-user's."""
    result = parse(run(command + servers.paths) or '')
    if servers.gpio:
        result.update(run_reads(command, 2, servers.gpio, 'gpio-'))
    return result


def run_reads(command, region, path, prefix):
    text = run(command + ['--reads', str(region), path]) or ''
    return {prefix + k: v for k, v in parse(text).items()}


def run_raw(args, way, servers):
    """The least that it could cost."""
    result = run_client([args.raw, way], servers)
    for option, path in (('--bells', servers.bells), ('--far', servers.far)):
        result.update(parse(run([args.raw, way, option, path]) or ''))
    return result


def run_engine(args, servers):
    """As the device uses it, and once more never spinning for a reply."""
    result = run_client([args.engine, POLL_MAX_US], servers)
    result.update(run_reads([args.engine, '0'], 0, servers.paths[0],
                            'asleep-'))
    return {'engine-' + k: v for k, v in result.items()}


def device(path):
    return ['-device', json.dumps({'driver': 'vfio-user-pci',
                                   'socket': path})]


def run_guest(args, accel, servers):
    """The guest program's figures, in ticks."""
    command = [args.qemu, '-accel', accel] + MACHINE
    for path in servers.paths + [servers.bells, servers.gpio]:
        command += device(path) if path else []
    command += ['-kernel', args.guest, '-append', 'smp', '-debugcon', 'stdio']
    # isa-debug-exit ends QEMU with 1.
    text = run(command, good=1) or ''
    if not text.endswith('end\n'):
        print('no figures of the guest with %s: it did not come to its end'
              % accel)
        return {}
    return parse(text)


class Paused:
    """A machine that has been built and not started yet, by QMP."""

    def __init__(self, args, devices):
        command = [args.qemu, '-accel', 'tcg', '-S', '-qmp', 'stdio']
        self.proc = subprocess.Popen(
            command + MACHINE + devices, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.proc.stdout.readline()
        self.execute('qmp_capabilities')

    def execute(self, command, **arguments):
        """Whether it was done; nothing else is said meanwhile."""
        self.proc.stdin.write(json.dumps({
            'execute': command, 'arguments': arguments}) + '\n')
        self.proc.stdin.flush()
        return 'return' in json.loads(self.proc.stdout.readline() or '{}')

    def stop(self):
        """End it."""
        self.proc.communicate('{"execute": "quit"}\n')


def run_startup(args, servers):
    """Of a machine, and of a device that is plugged into one."""
    machine = Paused(args, device(servers.paths[0]))
    nr, us = servers.messages()
    machine.stop()
    result = {'startup-messages': nr, 'startup-time': us}
    machine = Paused(args, [])
    start = time.monotonic()
    if machine.execute('device_add', driver='vfio-user-pci', id='far',
                       socket=servers.far):
        result['startup-far'] = (time.monotonic() - start) * 1e6
    else:
        print('no result: a far device cannot be plugged in')
    machine.stop()
    return result


def local_cost(name):
    """Which register inside QEMU an access compares with.

    None for a doorbell: the point of an eventfd is that KVM need not get there.
    """
    for prefix, local in (('read', 'local-read'), ('gpio', 'local-port'),
                          ('write', 'local-write')):
        if name.startswith(prefix):
            return local + '-p50'
    return None


def guest_figures(result, ticks, prefix):
    """In nanoseconds, without what the access costs the guest anyway."""
    figures = {}
    for name, value in result.items():
        if name.startswith('local') and name.endswith('p99'):
            continue
        if not name.startswith('dma'):
            value = (value - result.get(local_cost(name), 0)) * 1000 / ticks
        figures[prefix + name] = value
    return figures


def one_round(args, servers, accels):
    """Returns our figures and the raw client's, blocking and spinning."""
    block = run_raw(args, 'block', servers)
    if 'ticks' not in block:
        raise SystemExit('the raw client failed: nothing to compare with')
    ours = run_engine(args, servers)
    spin = run_raw(args, 'spin', servers)
    ticks = block['ticks']
    for accel, prefix in list(accels.items()):
        result = run_guest(args, accel, servers)
        if not result:
            # Once is enough to know.
            del accels[accel]
        ours.update(guest_figures(result, ticks, prefix))
    ours.update({'guest-' + k: v
                 for k, v in run_startup(args, servers).items()})
    ours.update({'guest-' + k: v for k, v in
                 iommu.measure(args.qemu, servers.paths[0]).items()})
    return {'ours': ours, 'block': block, 'spin': spin}


def base_name(name):
    for prefix in ('engine-asleep-', 'engine-', 'guest-kvm-', 'guest-'):
        if name.startswith(prefix):
            return name[len(prefix):]
    return name


def figure(name, condition, rounds):
    """One entry of results.json."""
    base = base_name(name)
    unit = unit_of(base)
    best = max if unit in RATES else min
    table = []
    for r in rounds:
        if name in r['ours']:
            table.append({'ours': round(r['ours'][name], 1)} |
                         {k: r[k][base] for k in ('block', 'spin')
                          if base in r[k]})
    ours = statistics.median(row['ours'] for row in table)
    floors = [statistics.median(row[k] for row in table if k in row)
              for k in ('block', 'spin') if any(k in row for row in table)]
    floor = best(floors) if floors else None
    return {'name': name, 'condition': condition, 'unit': unit,
            'ours': round(ours, 1),
            'floor': floor and round(floor, 1),
            'ratio': floor and round(ours / floor, 3), 'rounds': table}


def show(f):
    if f['floor']:
        print('%-28s %-6s %12.1f  floor %12.1f  %6.2f  %s' % (
            f['name'], f['condition'], f['ours'], f['floor'], f['ratio'],
            f['unit']))
    else:
        print('%-28s %-6s %12.1f  %28s%s' % (
            f['name'], f['condition'], f['ours'], '', f['unit']))


def keep_busy():
    """One core has something else to do, until the process is killed."""
    return subprocess.Popen([sys.executable, '-c',
                             'import os\nos.sched_setaffinity(0, {0})\n'
                             'while True:\n    pass\n'])


def measure(args, servers, condition):
    # A guest under KVM is one more figure where the machine can do it.
    accels = {'tcg,thread=multi': 'guest-'}
    if os.access('/dev/kvm', os.R_OK | os.W_OK):
        accels['kvm'] = 'guest-kvm-'
    else:
        print('no figures under KVM: /dev/kvm cannot be used')
    rounds = []
    for i in range(args.rounds):
        print('%s: round %d of %d' % (condition, i + 1, args.rounds),
              flush=True)
        rounds.append(one_round(args, servers, accels))
    names = dict.fromkeys(n for r in rounds for n in r['ours'])
    return [figure(n, condition, rounds) for n in names]


def measure_parts(args, servers, condition):
    busy = keep_busy() if condition == 'busy' else None
    results = []
    try:
        if 'access' in args.parts:
            results += measure(args, servers, condition)
        if 'migration' in args.parts:
            results += migration.measure(args, condition)
    finally:
        if busy:
            busy.kill()
            busy.wait()
    return results


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('qemu', 'raw', 'server', 'engine', 'guest', 'gpio', 'out',
                 'migration-raw', 'migration-server'):
        parser.add_argument('--' + name, required=True)
    parser.add_argument('--parts', nargs='+', default=['access', 'migration'],
                        choices=['access', 'migration'])
    parser.add_argument('--rounds', type=int,
                        default=int(os.environ.get('BENCH_ROUNDS', 5)))
    parser.add_argument('--conditions', nargs='+', default=['quiet', 'busy'],
                        choices=['quiet', 'busy'])
    return parser.parse_args()


def main():
    args = arguments()
    os.makedirs(args.out, exist_ok=True)
    results = []
    with tempfile.TemporaryDirectory(prefix='vfio-user-bench-') as directory:
        servers = Servers(args, directory)
        try:
            for condition in args.conditions:
                results += measure_parts(args, servers, condition)
        finally:
            servers.stop()
    for f in results:
        show(f)
    with open(os.path.join(args.out, 'results.json'), 'w',
              encoding='utf-8') as out:
        json.dump(results, out, indent=1)
    with open(os.path.join(args.out, 'results.svg'), 'w',
              encoding='utf-8') as out:
        out.write(chart.draw(results))
    print('results are in %s/results.json and results.svg' % args.out)


if __name__ == '__main__':
    main()
