# SPDX-License-Identifier: GPL-2.0-or-later
"""One run: a guest of three vCPUs, its server, and what is done to both.

Everything is decided by the seed before it is done, whatever state the machine
is in: the same seed does the same things.  What is impossible at that moment
(to continue a server that is not stopped) is left out.  What the threads make
of it is up to them.

After each action QEMU must be there, and its second monitor answer.  At the end
the server is well again, the guest comes to rest and gives up its device; then
QEMU must have as many fds as before the device came, and quit.
"""

import os
from pathlib import Path
import random
import signal
import time

from torture_qemu import Broken, Qemu
from vfio_user_server import Server, ServerError
import vfio_user_torture as programs

DEADLINE = 10               # of an answer
REST_DEADLINE = 40          # of the guest
POLL = 0.02
ACTIONS = 60
MOST_DIMMS = 4
FD_MARGIN = 2               # event notifiers of QEMU's own, made when needed
LOST = ('shutdown', 'internal-error', 'guest-panicked', 'postmigrate')
ENDED = ('completed', 'failed', 'cancelled', 'none')

POLICIES = {
    'never': {},
    'offline': {'reconnect-ms': 50},
    'hold': {'reconnect-ms': 50, 'on-disconnect': 'hold'},
    'stop': {'reconnect-ms': 50, 'on-disconnect': 'stop'},
}
BOARDS = ('pc', 'q35')
ACCELS = ('tcg', 'kvm')
# DMA_MAP, DMA_UNMAP, SET_IRQS, REGION_READ, REGION_WRITE, RESET
COMMANDS = (2, 3, 8, 9, 10, 13)
ERRNOS = (4, 11, 16, 22, 95)

WEIGHTS = {
    'wait': 10, 'stop': 5, 'cont': 8, 'registers': 6, 'unplug': 4, 'plug': 8,
    'reset': 1, 'migrate': 2, 'savevm': 1, 'dimm': 2, 'stall': 5, 'go_on': 6,
    'kill': 3, 'serve': 6, 'refuse': 3, 'behave': 4, 'query': 3,
}
# What a healthy server does not do
UNHEALTHY = ('stall', 'kill', 'refuse')


class Plan:
    """What a seed says; some of it can be said otherwise."""

    def __init__(self, seed, board=None, accel=None, policy=None):
        rng = random.Random(seed)
        self.seed = seed
        # Four seeds in a row have all four of these.
        self.board = board or BOARDS[seed % 2]
        self.accel = accel or ACCELS[seed // 2 % 2]
        chosen = rng.choice(list(POLICIES))
        self.policy = policy or chosen
        self.timeout_ms = rng.choice((300, 1000, 2000))
        self.no_mmap = rng.random() < 0.2
        self.noisy = rng.random() < 0.7
        names = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=ACTIONS)
        self.actions = [(name, rng.random(), rng.random()) for name in names]

    def __str__(self):
        return (f'seed {self.seed}: {self.board}, {self.accel}, '
                f'{self.policy}, timeout {self.timeout_ms} ms'
                f'{", no mmap" if self.no_mmap else ""}'
                f'{", noisy" if self.noisy else ""}')


class Run:
    """The run of a plan."""

    def __init__(self, plan, setup, directory):
        self.plan = plan
        self.setup = setup
        self.directory = Path(directory)
        self.server = None
        self.stalled = False
        self.plugged = False
        self.dimms = 0
        self.qemu = None
        self.story = open(self.directory / 'story', 'w', encoding='utf-8')
        self.start = time.monotonic()

    def say(self, text):
        """A line of the story."""
        print(f'{time.monotonic() - self.start:7.2f} {text}', file=self.story,
              flush=True)

    # The server

    def serve(self):
        """Start it."""
        plan = self.plan
        socket = self.directory / 'device'
        Path(socket).unlink(missing_ok=True)
        args = [str(self.setup.device), f'--socket-path={socket}',
                f'--state={self.directory}/state']
        if plan.noisy:
            args.append(f'--noisy={plan.seed}')
        if plan.board == 'pc':
            # A BAR of ports in the wrong place hides the config registers.
            args.append('--no-ports')
        self.server = Server(args, str(socket),
                             str(self.directory / 'server.log'))
        self.server.start()
        self.stalled = False

    def serving(self):
        """There, stalled or not."""
        return self.server is not None and self.server.running()

    def tell_server(self, line):
        """A line on its stdin."""
        if self.serving():
            try:
                self.server.process.stdin.write(line.encode() + b'\n')
                self.server.process.stdin.flush()
            except OSError:
                pass

    # The device

    def plug(self):
        """device_add; what became of it."""
        plan = self.plan
        answer = self.qemu.command(
            'device_add', driver='vfio-user-pci', id='dev',
            **{'socket': str(self.directory / 'device'),
               'x-msg-timeout-ms': plan.timeout_ms,
               'x-no-mmap': plan.no_mmap,
               **programs.PLACES[plan.board], **POLICIES[plan.policy]})
        if 'error' in answer:
            return answer['error']['desc']
        self.plugged = True
        return 'done'

    def take_events(self):
        """The device may have gone."""
        for monitor in (self.qemu.monitor, self.qemu.probe):
            for event in monitor.events:
                if (monitor is self.qemu.monitor
                        and event['event'] == 'DEVICE_DELETED'
                        and event['data'].get('device') == 'dev'):
                    self.plugged = False
                    self.say('  the device has gone')
            monitor.events.clear()

    # What is done

    def do_wait(self, a, _b):
        """Nothing for a while."""
        time.sleep(a * 0.5)

    def do_stop(self, _a, _b):
        """The VM."""
        self.qemu.command('stop')

    def do_cont(self, _a, _b):
        """The VM goes on, as far as it can."""
        return self.recover()

    def recover(self):
        """A guest that has ended itself begins again."""
        status = self.qemu.status()
        if status in LOST:
            self.qemu.command('system_reset')
        answer = self.qemu.command('cont')
        return f'{status} {answer.get("error", {}).get("desc", "")}'

    def do_registers(self, _a, _b):
        """For which each vCPU is interrupted."""
        self.qemu.command('human-monitor-command',
                          **{'command-line': 'info registers -a'})

    def do_query(self, _a, _b):
        """What the device says of itself."""
        self.qemu.command('query-vfio-user')

    def do_unplug(self, _a, _b):
        """The guest may comply one day."""
        if self.plugged:
            self.qemu.command('device_del', id='dev')

    def do_plug(self, _a, _b):
        """Again, if it has gone and there is a server."""
        if self.plugged or not self.serving() or self.stalled:
            return None
        return self.plug()

    def do_reset(self, _a, _b):
        """The machine."""
        self.qemu.command('system_reset')

    def do_migrate(self, a, _b):
        """To nowhere, and cancelled."""
        answer = self.qemu.command('migrate', uri='exec:cat >/dev/null')
        if 'error' in answer:
            return answer['error']['desc']
        time.sleep(a * 0.3)
        self.qemu.command('migrate_cancel')
        return self.wait(lambda: self.qemu.command('query-migrate')['return']
                         .get('status', 'none') in ENDED, DEADLINE,
                         'the migration ends')

    def do_savevm(self, _a, _b):
        """There is no disk for it, or there is."""
        self.qemu.command('human-monitor-command',
                          **{'command-line': 'savevm torture'})

    def do_dimm(self, _a, _b):
        """Memory that the server has to be told of."""
        if self.dimms == MOST_DIMMS:
            return None
        name = f'dimm{self.dimms}'
        self.qemu.command('object-add', **{
            'qom-type': 'memory-backend-memfd', 'id': f'mem{name}',
            'size': 128 << 20, 'share': True})
        answer = self.qemu.command('device_add', driver='pc-dimm', id=name,
                                   memdev=f'mem{name}')
        self.dimms += 1
        return answer.get('error', {}).get('desc', 'done')

    def do_stall(self, a, _b):
        """SIGSTOP; sometimes for just a moment."""
        if not self.serving():
            return None
        os.kill(self.server.process.pid, signal.SIGSTOP)
        self.stalled = True
        if a < 0.5:
            time.sleep(a)
            return self.do_go_on(0, 0)
        return 'for longer'

    def do_go_on(self, _a, _b):
        """SIGCONT."""
        if self.serving():
            os.kill(self.server.process.pid, signal.SIGCONT)
        self.stalled = False
        return 'goes on'

    def do_kill(self, a, _b):
        """SIGKILL; it often comes back at once."""
        if not self.serving():
            return None
        self.server.kill()
        if a < 0.6:
            time.sleep(a * 0.4)
            self.serve()
            return 'and back'
        return 'away'

    def do_serve(self, _a, _b):
        """It is back."""
        if not self.serving():
            self.serve()

    def do_refuse(self, a, b):
        """Some command, in some way."""
        command = COMMANDS[int(a * len(COMMANDS))]
        way = int(b * 8)
        line = (f'drop {command}' if way == 0 else
                f'close {command}' if way == 1 else
                f'refuse {command} {ERRNOS[int(b * 97) % len(ERRNOS)]}')
        self.tell_server(line)
        return line

    def do_behave(self, _a, _b):
        """As it should."""
        self.tell_server('behave')

    # The whole

    def wait(self, condition, deadline, what):
        """Until it is so; QEMU is looked at meanwhile."""
        end = time.monotonic() + deadline
        while not condition():
            self.qemu.check()
            if time.monotonic() > end:
                raise self.qemu.silent(f'{what}: not within {deadline} s')
            time.sleep(POLL)
        return 'ended'

    def begin(self):
        """QEMU first, to know what it has open without the device."""
        plan = self.plan
        accel = 'kvm' if plan.accel == 'kvm' else 'tcg,thread=multi'
        args = programs.machine_arguments(plan.board, accel, self.setup.guest,
                                          f'torture {plan.seed}')
        self.qemu = Qemu(self.setup.qemu, [
            '-S', *args, '-smp', '3',
            '-m', f'{programs.MEMORY}M,slots={MOST_DIMMS},maxmem=2G',
            '-action', 'shutdown=pause'], self.directory, DEADLINE)
        self.fds = self.qemu.fds()
        self.serve()
        self.say(f'plug: {self.plug()}')
        self.qemu.command('cont')

    def torture(self):
        """All actions in turn."""
        for number, (name, a, b) in enumerate(self.plan.actions):
            self.say(f'{number:3} {name} {a:.3f} {b:.3f}')
            if name in UNHEALTHY and self.setup.healthy:
                continue
            told = getattr(self, f'do_{name}')(a, b)
            if told:
                self.say(f'  {told}')
            self.qemu.check()
            self.take_events()

    def rest(self):
        """The guest's CPUs do nothing any more; how far each had come."""
        for _ in range(4):
            self.say(f'rest: {self.recover()}')
            self.qemu.serial.send(b'q')
            end = time.monotonic() + REST_DEADLINE / 4
            while time.monotonic() < end:
                line = self.qemu.serial.line(POLL)
                if line:
                    self.say(f'  guest: {line}')
                if line and line.startswith('calm '):
                    return [int(steps, 16) for steps in line.split()[1:]]
                self.qemu.check()
                if self.qemu.status() in LOST:
                    break
            else:
                self.say(f'  reset: {self.qemu.command("system_reset")}')
        raise self.qemu.silent('the guest does not come to rest')

    def gone(self):
        """Has the device?"""
        self.qemu.status()      # with it come the events
        self.take_events()
        return not self.plugged

    def leaked(self):
        """What is open that was not, but for the memory that was added."""
        now = self.qemu.fds()
        return (len(now) - len(self.fds) - self.dimms > FD_MARGIN, now)

    def finish(self):
        """The server is well; guest, device and QEMU end."""
        if not self.serving():
            self.serve()
        self.do_go_on(0, 0)
        self.tell_server('behave')
        steps = self.rest()
        if self.plugged:
            self.qemu.command('device_del', id='dev')
            self.qemu.serial.send(b'e')
            self.wait(self.gone, REST_DEADLINE, 'the device goes')
        try:
            self.wait(lambda: not self.leaked()[0], DEADLINE, 'fds')
        except Broken as broken:
            if 'fds: not within' not in broken.signature:
                raise
            before, (_, now) = self.fds, self.leaked()
            more = sorted(set(now.items()) - set(before.items()))
            raise Broken('leak', f'{len(now) - len(before)} fds more',
                         '\n'.join(map(str, more))) from broken
        self.qemu.quit()
        return steps

    def run(self):
        """How many steps the guest took in its last life."""
        self.say(str(self.plan))
        try:
            self.begin()
            self.torture()
            return self.finish()
        except ServerError as error:
            raise Broken('server', str(error)) from error
        finally:
            if self.qemu:
                self.qemu.kill()
            if self.server:
                self.server.kill()
                self.server.stop()
            self.story.close()
