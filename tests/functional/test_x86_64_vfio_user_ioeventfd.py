#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Doorbells of vfio-user-pci: writes that are signals on the server's eventfds.

The flat guest of kvm-guest/ rings each of six a thousand times, three times
over: first as the BARs are, then with one of them moved, then after they were
switched off and on.  It reads from the device how many signals came.  Checked
here is which way they took: a signal that KVM gave leaves nothing behind, one
that QEMU gave leaves an event in its trace, and neither leaves a message.
"""

from qemu_test import QemuSystemTest

from test_x86_64_vfio_user_kvm import (MANY, PORTS, REGS,
                                       VFIOUserFlatGuestTest)

ROUNDS = 3
# As in regs.h
BELL_4, BELL_MATCH, BELL_ANY, BELL_SHADOW = 0x400, 0x404, 0x408, 0x40c
PORT_BELL, PORT_BELL_MATCH = 0x10, 0x14


class VFIOUserBellsTest(VFIOUserFlatGuestTest):
    """Base of the classes below."""

    def check_bells(self, by_us, **properties):
        """Ring them; by_us is how many of the six are QEMU's to signal."""
        left = self.run_guest('bells', server_args=['--bells'], **properties)
        self.assertEqual(left.events('vfio_user_ioeventfd_signal'),
                         by_us * ROUNDS * MANY)
        self.assertEqual(self.writes(left), [
            (REGS, BELL_4, 2), (REGS, BELL_MATCH, 2), (REGS, BELL_MATCH, 4),
            (PORTS, PORT_BELL_MATCH, 4), (PORTS, PORT_BELL_MATCH, 4)])
        return left

    def monitored(self):
        """What the monitor says of each region: how many, and KVM's."""
        return {r['index']: (r['ioeventfds'], r['kvm-ioeventfds'])
                for r in self.info['regions'] if r['ioeventfds']}

    def writes(self, left):
        """The messages for a bell: those that are not rung that way."""
        return [(m.index, m.offset, m.count) for m in left.messages
                if m.command == 'REGION_WRITE' and
                (m.index, m.offset) in
                [(REGS, BELL_4), (REGS, BELL_MATCH), (REGS, BELL_ANY),
                 (REGS, BELL_SHADOW), (PORTS, PORT_BELL),
                 (PORTS, PORT_BELL_MATCH)]]


class VFIOUserBellsKVM(VFIOUserBellsTest):
    """KVM signals what it can tell: not a shadow, nor a port's wide value."""

    def test_bells(self):
        """Four kinds pass our process by."""
        left = self.check_bells(by_us=2)
        self.assertIn('kvm 1 mapped 0', left.trace)
        self.assertEqual(self.monitored(), {REGS: (4, 3), PORTS: (2, 1)})

    def test_bells_unmapped(self):
        """The same where no BAR is mapped: writes are not posted."""
        left = self.run_guest('bells', server_args=['--bells', '--no-mmap'])
        self.assertEqual(left.events('vfio_user_conn_post'), 0)


class VFIOUserBellsKVMPc(VFIOUserBellsTest):
    """The other board."""

    board = 'pc'

    def test_bells(self):
        """Four kinds pass our process by."""
        self.check_bells(by_us=2)


class VFIOUserBellsTCG(VFIOUserBellsTest):
    """Without KVM it is QEMU that signals."""

    accel = 'tcg'

    def test_bells(self):
        """All six kinds are signalled here."""
        left = self.check_bells(by_us=6)
        self.assertNotIn('kvm 1 mapped 0', left.trace)
        self.assertEqual(self.monitored(), {REGS: (4, 0), PORTS: (2, 0)})


if __name__ == '__main__':
    QemuSystemTest.main()
