#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest, its server and its operator do the worst they can.

Runs follow each other until the time is over, each with a seed of its own, one
more than the one before.  What a run found is listed by what it looks like, with
the seeds; --seed begins with that seed again, and --runs 1 ends after it.
Directories of runs that found something stay, with story, logs, backtrace.

    torture.py --seed 17 --runs 1 --accel kvm
"""

import argparse
import collections
import json
from pathlib import Path
import random
import shutil
import signal
import sys
import tempfile
import time

from torture_qemu import Broken
from torture_run import ACCELS, BOARDS, POLICIES, Plan, Run
import vfio_user_torture as programs

TOP = Path(__file__).resolve().parent.parent.parent
STEPS_AT_LEAST = 1


class Torture:
    """All runs."""

    def __init__(self, args):
        self.args = args
        self.out = args.out
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.qemu = args.qemu
        self.healthy = args.healthy
        self.scratch = Path(tempfile.mkdtemp(prefix='vfio-user-torture-'))
        self.guest, self.device = programs.compile_programs(self.scratch)
        self.found = collections.defaultdict(list)
        self.runs = 0
        self.start = time.monotonic()
        self.kvm = programs.kvm_problem(str(self.qemu), self.guest)
        if self.kvm:
            print(f'torture: without KVM: {self.kvm}')

    def plan(self, seed):
        """What a seed says, and the command line."""
        args = self.args
        accel = args.accel or ('tcg' if self.kvm else None)
        return Plan(seed, args.machine, accel, args.policy)

    def run(self, seed):
        """One run; its directory stays if it found something."""
        plan = self.plan(seed)
        # Short, for the sockets in it
        directory = self.scratch / f'{seed}'
        directory.mkdir()
        print(f'{time.monotonic() - self.start:7.1f} {plan}', flush=True)
        try:
            steps = Run(plan, self, directory).run()
            print(f'        fine, steps {" ".join(map(str, steps))}',
                  flush=True)
        except Broken as broken:
            print(f'        {broken}', flush=True)
            if broken.details:
                print('        ' + broken.details.replace('\n',
                                                          '\n        '),
                      flush=True)
            self.found[str(broken)].append(str(plan))
            (directory / 'found').write_text(f'{broken}\n{broken.details}\n',
                                             encoding='utf-8')
            shutil.copytree(directory, self.out / f'{seed}',
                            ignore=self.sockets)
        finally:
            shutil.rmtree(directory)
            self.runs += 1

    @staticmethod
    def sockets(directory, names):
        """Not to be copied."""
        return [name for name in names
                if not (Path(directory) / name).is_file()]

    def run_all(self):
        """Until the time is over; whether nothing was found."""
        args = self.args
        seed = args.seed
        interrupted = False
        try:
            while (self.runs < args.runs if args.runs else
                   time.monotonic() - self.start < args.minutes * 60):
                self.run(seed)
                seed += 1
        except KeyboardInterrupt:
            interrupted = True
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
        self.report(interrupted)
        return not self.found

    def report(self, interrupted):
        """What was found, the most frequent first; also as JSON."""
        failed = sum(map(len, self.found.values()))
        minutes = (time.monotonic() - self.start) / 60
        for what, plans in sorted(self.found.items(),
                                  key=lambda item: -len(item[1])):
            print(f'{len(plans):4} x {what}')
            for plan in plans[:5]:
                print(f'         {plan}')
        (self.out / 'torture.json').write_text(json.dumps({
            'seed': self.args.seed, 'runs': self.runs, 'failed': failed,
            'minutes': round(minutes, 1), 'found': self.found}, indent=1),
            encoding='utf-8')
        end = ('interrupted' if interrupted else
               'FAILED' if failed else 'passed')
        print(f'torture: {end}, {minutes:.1f} minutes, {self.runs} runs, '
              f'{failed} found something, first seed {self.args.seed}'
              + (f'; logs: {self.out}' if failed else ''), flush=True)


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--runs', type=int, help='so many, however long')
    parser.add_argument('--seed', type=int,
                        default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument('--machine', choices=BOARDS)
    parser.add_argument('--accel', choices=ACCELS)
    parser.add_argument('--policy', choices=POLICIES)
    parser.add_argument('--healthy', action='store_true',
                        help='the server does nothing wrong')
    parser.add_argument('--build', type=Path, default=TOP / 'build')
    parser.add_argument('--qemu', type=Path)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    args.qemu = (args.qemu or args.build / 'qemu/qemu-system-x86_64').resolve()
    args.out = (args.out or args.build / 'torture').resolve()
    if not args.qemu.exists():
        sys.exit(f'torture: {args.qemu} is missing: run "make torture"')
    missing = programs.tool_missing()
    if missing:
        sys.exit(f'torture: no {missing} to compile the guest; install '
                 'build-essential and pkg-config')
    return args


def interrupt(*_):
    """SIGTERM is like Ctrl-C: everything ends, and the report is written."""
    raise KeyboardInterrupt


def main():
    """Status 1 if anything was found."""
    signal.signal(signal.SIGTERM, interrupt)
    args = parse()
    print(f'torture: {args.runs or f"{args.minutes:g} minutes of"} runs, '
          f'seed {args.seed}', flush=True)
    return 0 if Torture(args).run_all() else 1


if __name__ == '__main__':
    sys.exit(main())
