# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the benchmark's results as SVG.

Figures of different units share an axis as cost relative to the floor: for a
time ours/floor, for a rate floor/ours, so that further right is always dearer.
"""

import math
import statistics
from xml.sax.saxutils import escape

ROW = 19
NAME_WIDTH = 190
PANEL_WIDTH = 300
TEXT_WIDTH = 205
GAP = 25
TOP = 78
LOW, HIGH = 0.5, 8.0
RATES = ('MB/s', '1/s')
SECTIONS = (('engine-', 'Engine alone'),
            ('guest-kvm-', 'QEMU, guest under KVM'),
            ('guest-', 'QEMU, guest under TCG'),
            ('mig-', 'QEMU, migration'))
# What the project aims at: cost relative to the floor.
AIMS = (('engine-read', 'p50', 1.15), ('engine-read', 'p99', 1.5),
        ('guest-read', 'p50', 1.25), ('guest-write', 'p50', 1.3),
        ('engine-write', 'p50', 1.3), ('engine-dma', '1m', 1 / 0.7),
        ('guest-dma', '1m', 1 / 0.7), ('engine-windows', '', 1.5),
        ('mig-stream-save', '', 1 / 0.8), ('mig-stream-load', '', 1 / 0.8),
        ('mig-dirty', '64g', 0.2))
# Microseconds of downtime beyond the server's own
AIM_DOWNTIME = ('mig-downtime-1m', 10000)


def place(cost):
    """Where a cost is on the axis, in pixels from its left end."""
    cost = min(max(cost, LOW), HIGH)
    return PANEL_WIDTH * math.log(cost / LOW) / math.log(HIGH / LOW)


def cost_of(figure, value, floor):
    if not value:
        return HIGH
    return floor / value if figure['unit'] in RATES else value / floor


def amount(value, unit):
    if unit == 'ns':
        return '%.1f µs' % (value / 1000)
    if unit == 'us':
        return '%.1f ms' % (value / 1000)
    if unit == '1/s':
        return '%.1f k/s' % (value / 1000)
    if unit == 'messages':
        return '%.0f' % value
    return '%.0f %s' % (value, unit)


def aim_of(figure):
    name = figure['name']
    if name == AIM_DOWNTIME[0]:
        return 1 + AIM_DOWNTIME[1] / figure['floor']
    for prefix, suffix, aim in AIMS:
        if name.startswith(prefix) and name.endswith(suffix):
            return aim
    return None


def text(x, y, words, style=''):
    return '<text x="%.1f" y="%.1f" %s>%s</text>' % (x, y, style,
                                                     escape(words))


def line(x1, y1, x2, y2, style):
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>' % (
        x1, y1, x2, y2, style)


def spread(figure, keys):
    """Costs of the rounds' smallest and largest value."""
    values = [row[k] for row in figure['rounds'] for k in keys if k in row]
    costs = [cost_of(figure, v, figure['floor']) for v in values]
    return place(min(costs)), place(max(costs))


def floor_keys(figure):
    """Which of the raw clients the floor is: blocking or spinning."""
    def middle(key):
        values = [r[key] for r in figure['rounds'] if key in r]
        return statistics.median(values) if values else math.inf
    if 'floor' in figure['rounds'][0]:
        return ('floor',)
    return (min(('block', 'spin'),
                key=lambda k: abs(middle(k) - figure['floor'])),)


def draw_figure(figure, x, y):
    """One row of one panel."""
    unit = figure['unit']
    if not figure['floor']:
        return [text(x + PANEL_WIDTH + 8, y + 4,
                     amount(figure['ours'], unit), 'class="value"')]
    cost = cost_of(figure, figure['ours'], figure['floor'])
    low, high = spread(figure, floor_keys(figure))
    out = ['<rect x="%.1f" y="%.1f" width="%.1f" height="10" class="floor"/>'
           % (x + low, y - 5, max(high - low, 1.5))]
    low, high = spread(figure, ('ours',))
    aim = aim_of(figure)
    colour = '#1f6fb4' if aim is None else (
        '#1b8a4b' if cost <= aim else '#c8501e')
    out.append(line(x + low, y, x + high, y,
                    'stroke="%s" stroke-width="3" opacity="0.45"' % colour))
    if aim:
        out.append(line(x + place(aim), y - 7, x + place(aim), y + 7,
                        'class="aim"'))
    if cost <= HIGH:
        out.append('<circle cx="%.1f" cy="%.1f" r="4.5" fill="%s"/>' % (
            x + place(cost), y, colour))
    else:
        out.append(text(x + PANEL_WIDTH - 14, y + 5, '→',
                        'style="font-weight: bold; fill: %s"' % colour))
    out.append(text(x + PANEL_WIDTH + 8, y + 4, '%s / %s' % (
        amount(figure['ours'], unit), amount(figure['floor'], unit)),
        'class="value"'))
    out.append(text(x + PANEL_WIDTH + TEXT_WIDTH - 12, y + 4, '%.2f' % cost,
                    'class="value end" style="font-weight: bold; fill: %s"'
                    % colour))
    return out


def draw_axis(x, bottom, title):
    out = [text(x, TOP - 32, title, 'class="head"'),
           text(x + PANEL_WIDTH + 8, TOP - 12, 'ours / floor',
                'class="small"'),
           text(x + PANEL_WIDTH + TEXT_WIDTH - 12, TOP - 12, 'cost',
                'class="small end"')]
    for tick in (0.5, 1, 1.5, 2, 3, 4, 6, 8):
        px = x + place(tick)
        out.append(line(px, TOP - 6, px, bottom,
                        'class="one"' if tick == 1 else 'class="grid"'))
        out.append(text(px, TOP - 12, '%g' % tick, 'class="small mid"'))
    return out


STYLE = '''<style>
text { font: 12px sans-serif; fill: #222; }
.title { font-size: 17px; font-weight: bold; }
.head { font-size: 13px; font-weight: bold; }
.small { font-size: 11px; fill: #666; }
.value { font-size: 11px; }
.mid { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: #e2e2e2; }
.one { stroke: #555; stroke-width: 1.5; }
.floor { fill: #bbb; }
.aim { stroke: #b07d00; stroke-width: 2; }
</style>'''
LEGEND = ('Dot: median of the rounds, bar: their spread; grey: spread of the '
          'floor. Upright mark: the aim; green within, red beyond. '
          '→: off the scale.',
          'Floor: the better of a blocking and a spinning raw client at the '
          'same server process.',
          'Guest reads and writes: without the cost of a register inside '
          'QEMU (local).',
          'Migration: streams against a socketpair; downtime against the '
          'server alone; dirty pages against one window at a time.')


def rows_of(results):
    """Section titles and names of figures, from top to bottom."""
    names = list(dict.fromkeys(f['name'] for f in results))
    rows = []
    for prefix, title in (SECTIONS[0], SECTIONS[2], SECTIONS[1], SECTIONS[3]):
        mine = [n for n in names
                if next(p for p, _ in SECTIONS if n.startswith(p)) == prefix]
        if mine:
            rows.append((title, None))
            mine.sort(key=lambda n: n.startswith(prefix + 'local'))
            rows += [(n[len(prefix):], n) for n in mine]
    return rows


def draw(results):
    """The whole picture, a panel for each condition."""
    conditions = list(dict.fromkeys(f['condition'] for f in results))
    found = {(f['name'], f['condition']): f for f in results}
    rows = rows_of(results)
    bottom = TOP + ROW * len(rows) + 6
    step = PANEL_WIDTH + TEXT_WIDTH + GAP
    width = NAME_WIDTH + step * len(conditions)
    titles = {'quiet': 'Otherwise quiet machine', 'busy': 'One core kept busy'}
    body = [text(12, 24, 'vfio-user-pci: what an access costs',
                 'class="title"')]
    for i, condition in enumerate(conditions):
        body += draw_axis(NAME_WIDTH + step * i, bottom,
                          titles.get(condition, condition))
    for nr, (label, name) in enumerate(rows):
        y = TOP + ROW * nr + ROW / 2 + 3
        body.append(text(12 if name is None else 22, y + 4, label,
                         'class="head"' if name is None else ''))
        for i, condition in enumerate(conditions):
            if (name, condition) in found:
                body += draw_figure(found[name, condition],
                                    NAME_WIDTH + step * i, y)
    for i, words in enumerate(LEGEND):
        body.append(text(12, bottom + 20 + 15 * i, words, 'class="small"'))
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">'
            '\n%s\n<rect width="100%%" height="100%%" fill="white"/>\n%s\n'
            '</svg>\n' % (width, bottom + 79, STYLE, '\n'.join(body)))
