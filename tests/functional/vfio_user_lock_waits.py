# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU may wait for a server for, with the BQL held.

QEMU counts such waits by the entries of the devel page's list.  Here is what
each may come to, and what is wrong with what a QEMU has counted.
"""

# Scheduling, and what a server that answers at once takes.
SLACK_NS = 1_000_000_000

# Everywhere, as firmware reads a ROM; a test that provokes another one names it.
ANYWHERE = frozenset({'realize', 'hotplug', 'reset', 'early-reset', 'gate',
                      'rom'})
MIGRATION_WAITS = ('state-change', 'log-start', 'log-round', 'save', 'load')


def limit_ms(entry, timeout):
    """The bound of one wait, None where it depends on what there is."""
    return {'hotplug': timeout, 'reset': timeout, 'early-reset': 6 * timeout,
            'map': timeout, 'unmap': 2 * timeout, 'commit': 2 * timeout,
            'nested': timeout, 'state-change': 200, 'log-start': 200,
            'log-round': 20, 'gate': 20, 'save': 12 * timeout,
            'load': 12 * timeout}.get(entry)


def complaints(devices, expected):
    """What is wrong with the answer to query-vfio-user, as sentences.

    A limit shows with a server that answers at once.  It is exact where the
    time is one for all that is waited for; elsewhere the waits before come on
    top.  How long a wait was is up to the host, too.
    """
    for device in devices:
        timeout = device['limits']['timeout']
        for waits in device['stats']['lock-waits']:
            entry = waits['entry']
            what = (f'{device["qom-path"]}: {waits["count"]} waits for the '
                    f'server with the BQL for {entry}, the longest of '
                    f'{waits["longest"]} ns')
            if entry not in ANYWHERE | frozenset(expected):
                yield f'{what}, which nobody expects'
            most = limit_ms(entry, timeout)
            if most is None:
                continue
            most *= 1_000_000
            slack = 0 if most < SLACK_NS else SLACK_NS
            if waits['limit'] > most + slack:
                yield f'{what}, for up to {waits["limit"]} ns, not {most}'
            if waits['longest'] > most + SLACK_NS:
                yield f'{what}, not {most}'
