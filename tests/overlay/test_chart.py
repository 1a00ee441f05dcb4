# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's chart: what a person sees is what was measured."""

import os
import re
import sys
import unittest
import xml.etree.ElementTree as ET

import tap

sys.path.insert(0, os.path.join(tap.TOP, 'tests', 'bench'))
import chart  # noqa: E402  pylint: disable=wrong-import-position

SVG = '{http://www.w3.org/2000/svg}'


def figure(name, ours, floor=None, unit='ns', condition='quiet'):
    """A figure with three rounds, the median being given."""
    rounds = [{'ours': ours * f} for f in (0.9, 1, 1.2)]
    for row, factor in zip(rounds, (0.95, 1, 1.1)):
        if floor:
            row.update(block=floor * factor, spin=2 * floor * factor)
    return {'name': name, 'condition': condition, 'unit': unit, 'ours': ours,
            'floor': floor, 'ratio': floor and ours / floor, 'rounds': rounds}


RESULTS = [figure('engine-read-4-p50', 110, 100),
           figure('engine-write-p50', 200, 100),
           figure('engine-dma-read-4k', 500, 1000, 'MB/s'),
           figure('guest-read-4-p99', 5000, 100),
           figure('guest-bell-p50', 50),
           figure('guest-iommu-map', 20000, unit='1/s'),
           figure('guest-startup-messages', 33, 17, 'messages'),
           figure('guest-kvm-read-4-p50', 300, 100),
           figure('mig-stream-save', 900, 1000, 'MB/s'),
           figure('something-new', 5, 10),
           figure('engine-read-4-p50', 130, 100, condition='busy')]


class Chart(unittest.TestCase):
    def setUp(self):
        self.root = ET.fromstring(chart.draw(RESULTS))
        self.rows = {}
        for group in self.root.iter(SVG + 'g'):
            name = group.find(SVG + 'title').text
            self.rows.setdefault(name, []).append(group)

    def words(self, group=None):
        return [t.text for t in (self.root if group is None else group)
                .iter(SVG + 'text')]

    def at(self, cost, panel=0):
        """Where a cost is from the left end of the picture."""
        step = chart.PANEL_WIDTH + chart.TEXT_WIDTH + chart.GAP
        return chart.NAME_WIDTH + panel * step + chart.place(cost)

    def dot(self, name, panel=0):
        return self.rows[name][panel].find(SVG + 'circle')

    def bars(self, name):
        """Left and right end of the rectangles of a row."""
        return [(float(r.get('x')), float(r.get('x')) + float(r.get('width')))
                for r in self.rows[name][0].iter(SVG + 'rect')]

    def assert_bar(self, name, low, high):
        found = self.bars(name)
        wanted = self.at(low), self.at(high)
        self.assertTrue(any(abs(b[0] - wanted[0]) < 0.2 and
                            abs(b[1] - wanted[1]) < 0.2 for b in found),
                        (wanted, found))

    def test_every_figure_has_its_row(self):
        self.assertEqual(set(self.rows), {f['name'] for f in RESULTS})
        self.assertEqual(len(self.rows['engine-read-4-p50']), 2)

    def test_sections(self):
        words = self.words()
        places = [words.index(w) for w in (
            'Engine alone', 'QEMU, guest under TCG', 'QEMU, guest under KVM',
            'Doorbells', 'Behind an IOMMU of the guest', 'Start of a device',
            'QEMU, migration', 'Others')]
        self.assertEqual(places, sorted(places))

    def test_the_dot_is_the_median(self):
        self.assertAlmostEqual(float(self.dot('engine-read-4-p50').get('cx')),
                               self.at(1.1), 0)
        self.assertAlmostEqual(
            float(self.dot('engine-read-4-p50', 1).get('cx')),
            self.at(1.3, 1), 0)

    def test_a_rate_that_is_half_costs_double(self):
        self.assertAlmostEqual(
            float(self.dot('engine-dma-read-4k').get('cx')), self.at(2), 0)

    def test_the_bars_are_the_rounds(self):
        self.assert_bar('engine-read-4-p50', 1.1 * 0.9, 1.1 * 1.2)
        # Blocking is the better of the raw clients.
        self.assert_bar('engine-read-4-p50', 0.95, 1.1)

    def test_colour_tells_of_the_aim(self):
        for name, colour in (('engine-read-4-p50', chart.GOOD),
                             ('engine-write-p50', chart.BAD),
                             ('guest-kvm-read-4-p50', chart.NEUTRAL)):
            self.assertEqual(self.dot(name).get('fill'), colour, name)
        self.assertIn('2 of 4 aims reached; 3 rounds', self.words())

    def test_off_the_scale(self):
        row = self.rows['guest-read-4-p99'][0]
        self.assertIsNone(row.find(SVG + 'circle'))
        self.assertIsNotNone(row.find(SVG + 'path'))
        self.assertIn('50.00', self.words(row))

    def test_without_a_floor(self):
        row = self.rows['guest-bell-p50'][0]
        self.assertIsNone(row.find(SVG + 'circle'))
        self.assertEqual(self.words(row), ['50 ns', '45 ns to 60 ns'])

    def test_numbers(self):
        self.assertEqual(self.words(self.rows['engine-read-4-p50'][0]),
                         ['110 ns', '100 ns', '1.10'])
        self.assertEqual(self.words(self.rows['guest-startup-messages'][0]),
                         ['33', '17', '1.94'])

    def test_labels(self):
        for name, label in (('engine-read-4-p50', 'read, 4 B'),
                            ('guest-read-4-p99', 'read, 4 B, slowest 1 %'),
                            ('guest-bell-p50', 'by eventfd'),
                            ('guest-kvm-bell-p50', 'by eventfd (KVM)'),
                            ('mig-stream-save', 'stream: save'),
                            ('something-new', 'something-new')):
            self.assertEqual(chart.label_of(name), label)

    def test_nothing_is_cut_off(self):
        width, height = (float(self.root.get(k)) for k in ('width', 'height'))
        for element in self.root.iter():
            x, y = element.get('x'), element.get('y')
            if x and re.fullmatch(r'[\d.]+', x):
                self.assertLess(float(x), width)
                self.assertLess(float(y), height)

    def test_nothing_measured(self):
        ET.fromstring(chart.draw([]))


if __name__ == '__main__':
    tap.main()
