# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing a config space with what the server declared.

The registers that a guest's firmware and kernel write are theirs, and so may
differ; everything else has to be what the server said, byte for byte.
"""

STATUS = 0x06
STATUS_CAP_LIST = 0x10
CAP_POINTER = 0x34
CAP_EXPRESS = 0x10

EXPRESS_VERSION = 0x0f

COMMAND = range(0x04, 0x06)
CACHE_LINE_AND_LATENCY = range(0x0c, 0x0e)
BARS = range(0x10, 0x28)
ROM = range(0x30, 0x34)
INTERRUPT_LINE = range(0x3c, 0x3d)
# Device Control and Status, Link Control and Status; from the capability.
EXPRESS_CONTROL = (range(0x08, 0x0c), range(0x10, 0x14))
# On a root bus hw/vfio turns an endpoint into an integrated one, which has no
# link: type, and the link registers of the capability.
EXPRESS_TYPE_AND_LINK = (range(0x02, 0x04), range(0x0c, 0x14),
                         range(0x2c, 0x34))


def capabilities(config):
    """Offset of each standard capability, by its id."""
    found = {}
    if config[STATUS] & STATUS_CAP_LIST:
        at = config[CAP_POINTER] & ~3
        while at >= 0x40 and at not in found.values():
            found[config[at]] = at
            at = config[at + 1] & ~3
    return found


def guest_owned(declared):
    """Offsets that a running guest may have written."""
    owned = set()
    for part in (COMMAND, CACHE_LINE_AND_LATENCY, BARS, ROM, INTERRUPT_LINE):
        owned.update(part)
    express = capabilities(declared).get(CAP_EXPRESS)
    if express:
        for part in EXPRESS_CONTROL:
            owned.update(express + offset for offset in part)
    return owned


def root_bus_owned(declared):
    """Offsets that hw/vfio emulates for an endpoint on a root bus."""
    express = capabilities(declared).get(CAP_EXPRESS)
    if not express:
        return set()
    return {express + offset for part in EXPRESS_TYPE_AND_LINK
            for offset in part}


def with_fixups(declared):
    """What hw/vfio makes of a PCI Express capability of version 0: 1."""
    express = capabilities(declared).get(CAP_EXPRESS)
    fixed = bytearray(declared)
    if express and not fixed[express + 2] & EXPRESS_VERSION:
        fixed[express + 2] |= 1
    return bytes(fixed)


def differences(declared, seen, ignore=()):
    """A line for each byte that differs, none when all is well."""
    lines = []
    if len(declared) != len(seen):
        lines.append(f'{len(declared)} bytes declared, {len(seen)} seen')
    lines += [f'{at:#05x}: declared {want:02x}, seen {have:02x}'
              for at, (want, have) in enumerate(zip(declared, seen))
              if want != have and at not in ignore]
    return lines
