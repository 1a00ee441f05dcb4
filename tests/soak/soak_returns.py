# SPDX-License-Identifier: GPL-2.0-or-later
"""What a soak does to servers that come back.

Each action ends with the server back and everything as before: the guest's
work goes on, no block that was confirmed is lost, no server is missed that
was not killed here.
"""

import time

from soak_devices import SIGSTOP
from soak_machine import SoakError

AWAY = (0.0, 2.0)       # seconds without a server


def hold(seconds):
    """What lies between two halves of an action."""
    time.sleep(seconds)


class Returns:
    """The actions, and how they choose."""

    def __init__(self, random, machine):
        self.random = random
        self.machine = machine

    @property
    def guest(self):
        """Of the present machine."""
        return self.machine.guest

    def pick(self, condition, devices=None):
        """One of the devices for which the condition holds."""
        chosen = [device for device in devices or self.machine.devices
                  if condition(device)]
        return self.random.choice(chosen) if chosen else None

    def pick_returning(self):
        """A device whose server is about to go and to come back."""
        device = self.pick(lambda d: d.returns)
        if device:
            self.machine.expect_loss(device)
        return device

    def some_time(self):
        """The server is away."""
        hold(self.random.uniform(*AWAY))

    def come_back(self, device):
        """The server is started again, and the VM runs."""
        device.serve_again()
        self.machine.wait_returned(device)
        self.machine.wait_running()

    def bounce(self):
        """SIGKILL; the same server anew."""
        device = self.pick_returning()
        if not device:
            return None
        device.kill_server()
        self.some_time()
        self.come_back(device)
        device.returned(self.guest)
        return device.name

    def bounce_stalled(self):
        """A server stops for longer than it may, and then dies."""
        device = self.pick_returning()
        if not device:
            return None
        device.signal_server(SIGSTOP)
        hold(self.random.uniform(1.2, 1.6) * device.timeout_ms / 1000)
        device.kill_server()
        self.some_time()
        self.come_back(device)
        device.returned(self.guest)
        return device.name

    def bounce_impostor(self):
        """The place is taken by a server of another device meanwhile."""
        device = self.pick_returning()
        if not device:
            return None
        device.kill_server()
        device.impostor()
        refused = self.machine.wait_event('VFIO_USER_REFUSED', device)
        self.some_time()
        device.kill_server()
        self.come_back(device)
        device.returned(self.guest)
        return f'{device.name}: {refused["reason"]}'

    def bounce_stopped(self):
        """The VM is stopped, and then the server goes and comes back.

        The device must not continue a VM that it did not stop.
        """
        device = self.pick_returning()
        if not device:
            return None
        self.machine.vm.cmd('stop')
        device.kill_server()
        self.some_time()
        device.serve_again()
        self.machine.wait_returned(device)
        if self.machine.running():
            raise SoakError(f'the user has stopped the VM, and it goes on as '
                            f'{device.name} is back')
        self.machine.vm.cmd('cont')
        device.returned(self.guest)
        return device.name

    def bounce_paused(self):
        """The VM is stopped for a while without the server."""
        device = self.pick_returning()
        if not device:
            return None
        device.kill_server()
        self.some_time()
        self.machine.vm.cmd('stop')
        self.some_time()
        self.machine.vm.cmd('cont')
        self.some_time()
        self.come_back(device)
        device.returned(self.guest)
        return device.name

    def bounce_reset(self):
        """The machine is reset while the server is away."""
        device = self.pick_returning()
        if not device:
            return None
        device.kill_server()
        self.some_time()
        self.machine.vm.cmd('system_reset')
        self.some_time()
        self.come_back(device)
        self.guest.wait_boot()
        for other in self.machine.devices:
            other.rebooted(self.guest)
        return device.name


RETURNS = {'bounce': 8, 'bounce_stalled': 3, 'bounce_impostor': 3,
           'bounce_stopped': 3, 'bounce_paused': 3, 'bounce_reset': 1}
