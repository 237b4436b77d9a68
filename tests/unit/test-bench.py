#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The benchmark's arithmetic and its tables."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import xml.dom.minidom

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, 'tests/bench'))
sys.dont_write_bytecode = True

import bench                                    # noqa: E402
import contenders                               # noqa: E402
import report                                   # noqa: E402


def measured(contender, number, iops, load='4k-1x1-mix'):
    return {'load': load, 'contender': contender, 'round': number,
            'iops': iops, 'bytes': iops * 4096, 'p50': 1e9 / iops,
            'p99': 2e9 / iops, 'cpu_per_op': 1 / iops, 'rss_kib': 2048,
            'foreign': 0.5}


# The machine is ten times slower in round 1; a round is missing for one.
RUNS = [measured('own-ring:raw', number, iops) for number, iops
        in enumerate((3000, 330, 3600))] + \
       [measured('own-dev:raw', number, iops) for number, iops
        in enumerate((1500, 110, 1200))] + \
       [measured('ref:raw', 1, 55)]


class Report(unittest.TestCase):
    def test_median(self):
        row = report.medians(RUNS)[0]
        self.assertEqual((row['contender'], row['n'], row['iops']),
                         ('own-ring:raw', 3, 3000))

    def test_ratio_within_rounds(self):
        self.assertEqual(report.ratio(RUNS, '4k-1x1-mix', 'own-ring:raw',
                                      'own-dev:raw'), 3)
        self.assertEqual(report.ratio(RUNS, '4k-1x1-mix', 'own-ring:raw',
                                      'ref:raw'), 6)
        self.assertIsNone(report.ratio(RUNS, '4k-1x1-mix', 'own-ring:raw',
                                       'null-ring'))

    def test_bases(self):
        self.assertEqual(report.bases('own-ring:qcow2'), [
            ('/dev', 'own-dev:qcow2'), ('/ref', 'ref:qcow2'),
            ('/raw', 'own-ring:raw'), ('/null', 'null-ring')])
        self.assertEqual(report.bases('ref:raw'), [('/null', 'null-dev')])

    def test_bars(self):
        self.assertIn(('4k-1x1-mix: own-dev:raw / ref:raw = 2.00 (bar: 1.0)',
                       True), report.bars(RUNS))

    def test_every_pattern_names_something(self):
        names = [one.name for one in contenders.everybody()]
        for contender, base, pattern, _ in report.BARS:
            self.assertIn(contender, names)
            self.assertIn(base, names)
            self.assertTrue(bench.select(pattern, list(bench.LOADS), 'load'))


class Hanging(unittest.TestCase):
    """Servers that never answer: the load waits as long as they live."""

    @contextlib.contextmanager
    def serve(self, _one, _images, _args):
        with subprocess.Popen(['sleep', 'infinity']) as process:
            os.environ['SERVER_PID'] = str(process.pid)
            yield contenders.Process(process), '/nonexistent'
            process.kill()

    def test_is_left_out(self):
        args = argparse.Namespace(rounds=2, seconds=0)
        chosen = contenders.everybody()[:2]
        with tempfile.TemporaryDirectory() as folder:
            fio = os.path.join(folder, 'fio')
            with open(fio, 'w', encoding='ascii') as file:
                file.write('#!/bin/sh\n'
                           'exec tail --pid $SERVER_PID -f /dev/null\n')
            os.chmod(fio, 0o755)
            with unittest.mock.patch.multiple(bench, GRACE=0.1), \
                 unittest.mock.patch.multiple(contenders, serve=self.serve), \
                 unittest.mock.patch.dict(os.environ, PATH=folder +
                                          os.pathsep + os.environ['PATH']):
                runs, notes = bench.run_rounds(args, ['4k-1x1-read'], chosen,
                                               None)
        self.assertEqual(runs, [])
        self.assertEqual(len(notes), 2)
        self.assertRegex(notes[1], 'null-dev left out from round 0, '
                                   '4k-1x1-read on: fio has been waiting')


class Program(unittest.TestCase):
    def test_report(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'old.json')
            with open(path, 'w', encoding='utf-8') as file:
                json.dump({'description': ['a <machine>'], 'runs': RUNS}, file)
            prefix = os.path.join(folder, 'new')
            subprocess.run(
                [sys.executable, os.path.join(ROOT, 'tests/bench/bench.py'),
                 '--report', path, path, '--output', prefix], check=True,
                capture_output=True)
            with open(f'{prefix}.json', encoding='utf-8') as file:
                new = json.load(file)
            with open(f'{prefix}.txt', encoding='utf-8') as file:
                text = file.read()
            svg = xml.dom.minidom.parse(f'{prefix}.svg')
        self.assertEqual(len(new['runs']), 2 * len(RUNS))
        self.assertEqual(new['medians'][0]['n'], 6)
        self.assertRegex(text, r'own-ring:raw +3\.0 .* 3\.00 +6\.00')
        words = [node.firstChild.data for node
                 in svg.getElementsByTagName('text')]
        for one in ('a <machine>', 'own-ring:raw', '4k-1x1-mix', '6.00'):
            self.assertIn(one, words)


if __name__ == '__main__':
    unittest.main()
