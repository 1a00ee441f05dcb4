# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the benchmark's results as SVG.

Figures of different units share an axis as cost relative to the floor: for a
time ours/floor, for a rate floor/ours, so that further right is always dearer.
A row has two lanes, ours above the floor's; each shows the smallest and the
largest round as a bar and the median as a mark.  Each row and each section has
the name it has in results.json as its tooltip.
"""

import math
import re
import statistics
from xml.sax.saxutils import escape

ROW, HEAD_ROW = 21, 30
NAME_WIDTH = 232
PANEL_WIDTH = 290
# Right ends of the columns beside a panel, counted from its own right end
OURS, FLOOR, COST = 84, 166, 214
TEXT_WIDTH = COST + 6
GAP = 26
TOP = 128
LOW, HIGH = 0.5, 8.0
TICKS = (0.5, 1, 1.5, 2, 3, 4, 6, 8)
RATES = ('MB/s', '1/s')
NEUTRAL, GOOD, BAD, RAW = '#1f6fb4', '#1b8a4b', '#c8501e', '#8d8d8d'
# In the order in which they are drawn. A figure is of the first that fits.
SECTIONS = (('Engine alone', r'engine-'),
            ('Doorbells', r'guest-(kvm-)?bell'),
            ('Behind an IOMMU of the guest', r'guest-(kvm-)?iommu-'),
            ('Start of a device', r'guest-(kvm-)?startup-'),
            ('A register inside QEMU, for comparison',
             r'guest-(kvm-)?local-'),
            ('QEMU, guest under KVM', r'guest-kvm-'),
            ('QEMU, guest under TCG', r'guest-'),
            ('QEMU, migration', r'mig-'))
ORDER = (0, 6, 5, 1, 2, 3, 7, 4)
# What the project aims at: cost relative to the floor.
AIMS = (('engine-read', 'p50', 1.15), ('engine-read', 'p99', 1.5),
        ('guest-read', 'p50', 1.25), ('guest-write', 'p50', 1.3),
        ('engine-write', 'p50', 1.3), ('engine-dma', '1m', 1 / 0.7),
        ('guest-dma', '1m', 1 / 0.7), ('engine-windows', '', 1.5),
        ('mig-stream-save', '', 1 / 0.8), ('mig-stream-load', '', 1 / 0.8),
        ('mig-dirty', '64g', 0.2))
# Microseconds of downtime beyond the server's own
AIM_DOWNTIME = ('mig-downtime-1m', 10000)
# Names of results.json in words. What is not here is shown as it is.
WORDS = ((r'^(engine|guest-kvm|guest|mig)-', ''),
         (r'-p50$', ''), (r'-p99$', ', slowest 1 %'),
         (r'gpio-read-1', 'read, libvfio-user\'s gpio'),
         (r'asleep-read-1', 'read after a pause'),
         (r'local-(read|write|port)', r'\1'),
         (r'^read-(\d)', r'read, \1 B'),
         (r'^write', 'posted write'), (r'^irq', 'interrupt'),
         (r'^4-pipelined', '4 reads on their way'),
         (r'^4-vcpus', '4 vCPUs, 1 device'),
         (r'^4-devices', '4 vCPUs, 4 devices'),
         (r'^dma-(read|write)-(\d+)k', r'DMA \1, \2 KiB'),
         (r'^dma-(read|write)-(\d+)m', r'DMA \1, \2 MiB'),
         (r'^windows', 'DMA windows mapped'),
         (r'^bell$|^bell(?=,)', 'bell-eventfd'),
         (r'^bell-(\w+)', r'by \1'), (r'^by message', 'by message, answered'),
         (r'^by posted', 'by posted write'), (r'^by shadow',
                                              'by eventfd and memory'),
         (r'^iommu-', ''), (r'^startup-', ''),
         (r'^far', 'plugged in, server 1 ms away'),
         (r'^stream-', 'stream: '), (r'^downtime-(\d+)m',
                                     r'downtime, \1 MiB of state'),
         (r'^dirty-64g-large', 'dirty pages, 64 GiB in one piece'),
         (r'^dirty-64g', 'dirty pages, 256 windows'))


def place(cost):
    """Where a cost is on the axis, in pixels from its left end."""
    cost = min(max(cost, LOW), HIGH)
    return PANEL_WIDTH * math.log(cost / LOW) / math.log(HIGH / LOW)


def cost_of(figure, value, floor):
    """Cost of a value, 1 being that of the floor."""
    if not value:
        return HIGH
    return floor / value if figure['unit'] in RATES else value / floor


def amount(value, unit):
    """A figure for people."""
    if unit in ('ns', 'us'):
        value *= 1000 if unit == 'us' else 1
        for scale, name in ((1e9, 's'), (1e6, 'ms'), (1e3, 'µs')):
            if value >= scale:
                return '%.*f %s' % (0 if value >= 100 * scale else 1,
                                    value / scale, name)
        return '%.0f ns' % value
    if unit == '1/s':
        return '%.1f k/s' % (value / 1000)
    if unit == 'MB/s' and value >= 1000:
        return '%.1f GB/s' % (value / 1000)
    if unit == 'messages':
        return '%.0f' % value
    return '%.0f %s' % (value, unit)


def aim_of(figure):
    """The cost that the project wants to stay within, or None."""
    name = figure['name']
    if not figure['floor']:
        return None
    if name == AIM_DOWNTIME[0]:
        return 1 + AIM_DOWNTIME[1] / figure['floor']
    for prefix, suffix, aim in AIMS:
        if name.startswith(prefix) and name.endswith(suffix):
            return aim
    return None


def label_of(name):
    """A figure's name in words; under KVM, where the section has both."""
    words = name
    for pattern, replacement in WORDS:
        words = re.sub(pattern, replacement, words)
    if name.startswith('guest-kvm-') and \
            section_of(name) != 'QEMU, guest under KVM':
        words += ' (KVM)'
    return words


def text(x, y, words, style=''):
    return '<text x="%.1f" y="%.1f" %s>%s</text>' % (x, y, style,
                                                     escape(words))


def line(x1, y1, x2, y2, style):
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>' % (
        x1, y1, x2, y2, style)


def bar(x, y, width, height, style):
    return '<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" %s/>' % (
        x, y, width, height, style)


def spread(figure, keys):
    """Costs of the rounds' cheapest and dearest value."""
    values = [row[k] for row in figure['rounds'] for k in keys if k in row]
    costs = [cost_of(figure, v, figure['floor']) for v in values]
    return min(costs), max(costs)


def floor_keys(figure):
    """Which of the raw clients the floor is: blocking or spinning."""
    def middle(key):
        values = [r[key] for r in figure['rounds'] if key in r]
        return statistics.median(values) if values else math.inf
    if 'floor' in figure['rounds'][0]:
        return ('floor',)
    return (min(('block', 'spin'),
                key=lambda k: abs(middle(k) - figure['floor'])),)


def draw_spread(x, y, costs, style):
    """A bar from the cheapest to the dearest round."""
    low, high = (place(c) for c in costs)
    return bar(x + low, y - 2, max(high - low, 1.5), 4, style)


def draw_median(x, y, cost, colour):
    """Ours: a dot, or an arrow where the scale ends."""
    if LOW <= cost <= HIGH:
        return '<circle cx="%.1f" cy="%.1f" r="4.5" fill="%s"/>' % (
            x + place(cost), y, colour)
    at, to = (x + PANEL_WIDTH, 8) if cost > HIGH else (x, -8)
    return '<path d="M%.1f %.1fl%d 5l%d 5z" fill="%s"/>' % (
        at - to, y - 5, to, -to, colour)


def colour_of(figure):
    """Whether the aim is reached, where there is one."""
    aim = aim_of(figure)
    if aim is None:
        return NEUTRAL
    cost = cost_of(figure, figure['ours'], figure['floor'])
    return GOOD if cost <= aim else BAD


def draw_lanes(figure, x, y):
    """The panel's part of a row."""
    colour, aim = colour_of(figure), aim_of(figure)
    out = [draw_spread(x, y + 5, spread(figure, floor_keys(figure)),
                       'fill="#c9c9c9"'),
           bar(x + place(1) - 1.5, y + 1, 3, 8, 'fill="%s"' % RAW),
           draw_spread(x, y - 4, spread(figure, ('ours',)),
                       'fill="%s" opacity="0.4"' % colour)]
    if aim:
        out.append(line(x + place(aim), y - 9, x + place(aim), y + 9,
                        'class="aim"'))
    cost = cost_of(figure, figure['ours'], figure['floor'])
    out.append(draw_median(x, y - 4, cost, colour))
    return out


def draw_figure(figure, x, y):
    """One row of one panel, and the numbers beside it."""
    unit, right = figure['unit'], x + PANEL_WIDTH
    out = ['<g><title>%s</title>' % escape(figure['name']),
           text(right + OURS, y + 4, amount(figure['ours'], unit),
                'class="end"')]
    if figure['floor']:
        cost = cost_of(figure, figure['ours'], figure['floor'])
        out += draw_lanes(figure, x, y)
        out += [text(right + FLOOR, y + 4, amount(figure['floor'], unit),
                     'class="end soft"'),
                text(right + COST, y + 4, '%.2f' % cost,
                     'class="end bold" style="fill: %s"' % colour_of(figure))]
    else:
        values = [row['ours'] for row in figure['rounds'] if 'ours' in row]
        out.append(text(right + COST, y + 4, '%s to %s' % (
            amount(min(values), unit), amount(max(values), unit)),
            'class="end small"'))
    return out + ['</g>']


def draw_axis(x, bottom, title):
    """A panel without its rows."""
    out = [text(x, TOP - 34, title, 'class="head"'),
           text(x + place(1), TOP - 18, '← quicker than the floor | dearer →',
                'class="small mid"')]
    out += [text(x + PANEL_WIDTH + at, TOP - 4, words, 'class="small end"')
            for at, words in ((OURS, 'ours'), (FLOOR, 'floor'),
                              (COST, 'cost'))]
    for tick in TICKS:
        px = x + place(tick)
        out.append(line(px, TOP + 2, px, bottom,
                        'class="one"' if tick == 1 else 'class="grid"'))
        out.append(text(px, TOP - 4, '%g×' % tick, 'class="small mid"'))
    return out


STYLE = '''<style>
text { font: 12px sans-serif; fill: #222; }
.title { font-size: 19px; font-weight: bold; }
.head { font-size: 14px; font-weight: bold; }
.small { font-size: 11px; fill: #666; }
.soft { fill: #666; }
.bold { font-weight: bold; }
.mid { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: #e2e2e2; }
.one { stroke: #8d8d8d; }
.aim { stroke: #b07d00; stroke-width: 2; }
</style>'''
NOTES = ('Floor: the better of a blocking and a spinning raw client at the '
         'same server process; of migration, a socketpair for streams, the '
         'server alone for downtime,',
         'one window at a time for dirty pages. Guest reads and writes: '
         'without the cost of a register inside QEMU. Rows without a floor '
         'show their smallest and largest round.')


def draw_legend(y):
    """What the marks mean, as they are drawn."""
    x = 12
    out = []
    for colour, words in ((GOOD, 'ours, aim reached'),
                          (BAD, 'ours, aim missed'),
                          (NEUTRAL, 'ours, no aim')):
        out += [bar(x, y - 6, 34, 4, 'fill="%s" opacity="0.4"' % colour),
                '<circle cx="%d" cy="%d" r="4.5" fill="%s"/>' % (
                    x + 14, y - 4, colour),
                text(x + 40, y, words)]
        x += 160
    out += [bar(x, y - 6, 34, 4, 'fill="#c9c9c9"'),
            bar(x + 13, y - 8, 3, 8, 'fill="%s"' % RAW),
            text(x + 40, y, 'floor')]
    out += [line(x + 100, y - 11, x + 100, y + 3, 'class="aim"'),
            text(x + 108, y, 'aim'),
            text(x + 160, y, 'mark: median of the rounds, bar: from the '
                 'smallest to the largest; a triangle: off the scale',
                 'class="soft"')]
    return out


def section_of(name):
    """The title under which a figure stands."""
    return next((title for title, pattern in SECTIONS
                 if re.match(pattern, name)), 'Others')


def rows_of(results):
    """Section titles and names of figures, from top to bottom."""
    names = list(dict.fromkeys(f['name'] for f in results))
    rows = []
    for title in [SECTIONS[i][0] for i in ORDER] + ['Others']:
        mine = [n for n in names if section_of(n) == title]
        if mine:
            rows.append((title, None))
            rows += [(label_of(n), n) for n in mine]
    return rows


def verdict(results):
    """The whole in a sentence."""
    aims = [f for f in results if aim_of(f) is not None]
    reached = sum(colour_of(f) == GOOD for f in aims)
    rounds = max((len(f['rounds']) for f in results), default=0)
    return '%d of %d aims reached; %d rounds' % (reached, len(aims), rounds)


def draw_rows(rows, found, conditions):
    """Everything below the axes, and where it ends."""
    step = PANEL_WIDTH + TEXT_WIDTH + GAP
    width = NAME_WIDTH + step * len(conditions)
    y, out = TOP, []
    for nr, (label, name) in enumerate(rows):
        if name is None:
            y += HEAD_ROW
            out.append(text(12, y - 7, label, 'class="head"'))
            continue
        if nr % 2:
            out.insert(0, bar(8, y, width - 16, ROW, 'fill="#f5f6f8"'))
        out.append(text(22, y + ROW / 2 + 4, label))
        for i, condition in enumerate(conditions):
            if (name, condition) in found:
                out += draw_figure(found[name, condition],
                                   NAME_WIDTH + step * i, y + ROW / 2)
        y += ROW
    return out, y


def draw(results):
    """The whole picture, a panel for each condition."""
    conditions = list(dict.fromkeys(f['condition'] for f in results))
    found = {(f['name'], f['condition']): f for f in results}
    rows, bottom = draw_rows(rows_of(results), found, conditions)
    step = PANEL_WIDTH + TEXT_WIDTH + GAP
    width = max(NAME_WIDTH + step * len(conditions), 1100)
    titles = {'quiet': 'Otherwise quiet machine', 'busy': 'One core kept busy'}
    body = [text(12, 28, 'vfio-user-pci: what an access costs, compared with '
                 'the least that it could', 'class="title"'),
            text(12, 48, verdict(results), 'class="soft"')]
    body += draw_legend(70)
    stripes = [r for r in rows if r.startswith('<rect') and '#f5f6f8' in r]
    for i, condition in enumerate(conditions):
        stripes += draw_axis(NAME_WIDTH + step * i, bottom,
                             titles.get(condition, condition))
    body += stripes + [r for r in rows if '#f5f6f8' not in r]
    for i, words in enumerate(NOTES):
        body.append(text(12, bottom + 22 + 15 * i, words, 'class="small"'))
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">'
            '\n%s\n<rect width="100%%" height="100%%" fill="white"/>\n%s\n'
            '</svg>\n' % (width, bottom + 50, STYLE, '\n'.join(body)))
