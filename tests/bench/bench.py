#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measure FUSE exports side by side: fio on the exported file, contenders
taking turns, medians over rounds, ratios within each round.

Writes PREFIX.txt, PREFIX.svg and PREFIX.json; docs/performance.md explains the
table.  Needs root, fio, and a quiet machine: `foreign` is what others took of
it, in CPUs.  Contenders that cannot run here are left out, with the reason, and
so is one that hangs, from there on.
"""

import argparse
import fnmatch
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import contenders
import report
import svg

RAMP = 0.5                      # seconds before each measurement
GRACE = 60                      # seconds that fio may take besides measuring
PARAMETER = '/sys/module/fuse/parameters/enable_uring'


def make_loads():
    """{name: fio's --rw, --bs, --numjobs, --iodepth}"""
    loads = {}
    shapes = [('4k', 1, 1), ('4k', 1, 64), ('4k', 4, 1), ('4k', 4, 64),
              ('64k', 1, 16)]
    for size, jobs, depth in shapes:
        for kind, rw in (('read', 'randread'), ('write', 'randwrite'),
                         ('mix', 'randrw')):
            loads[f'{size}-{jobs}x{depth}-{kind}'] = (rw, size, jobs, depth)
    loads['64k-1x16-seqwrite'] = ('write', '64k', 1, 16)
    for rw in ('read', 'write'):
        loads[f'1m-1x8-{rw}'] = (rw, '1m', 1, 8)
    loads['4k-16x1-fsync'] = ('randwrite', '4k', 16, 1)
    return loads


LOADS = make_loads()


def parse_args():
    everybody = contenders.everybody()
    width = max(len(one.name) for one in everybody)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
        epilog='loads, named by block size, jobs x queue depth, kind (mix: '
        '70 % reads;\nfsync: one after each write); 1m and seq are sequential, '
        'the others random:\n    ' +
        '\n    '.join(LOADS) + '\ncontenders:\n    ' + '\n    '.join(
            f'{one.name:{width}} {one.about}' for one in everybody))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=2,
                        help='of each measurement')
    parser.add_argument('--loads', default='*', metavar='PATTERN,...')
    parser.add_argument('--contenders', default='*', metavar='PATTERN,...')
    parser.add_argument('--format', default='null-co,raw,qcow2,qcow2-new',
                        metavar='DISK,...',
                        help='only contenders with these disks (default: '
                        '%(default)s) of ' + ', '.join(contenders.DISKS))
    parser.add_argument('--reference', metavar='PROGRAM',
                        help='the daemon to compare with (default: '
                        'qemu-storage-daemon in PATH)')
    parser.add_argument('--image-options', default='', metavar=',NAME=VALUE',
                        help='appended to the file node, such as '
                        ',cache.direct=on')
    parser.add_argument('--export-options', default='',
                        metavar=',NAME=VALUE',
                        help="appended to our own exports' options, such as "
                        ',placement=none')
    parser.add_argument('--size', type=int, default=1024, metavar='MIB')
    parser.add_argument('--dir', default='/var/tmp', help='for the images')
    parser.add_argument('--output', default='bench', metavar='PREFIX')
    parser.add_argument('--bars', action='store_true',
                        help='status 1 if a bar is not reached')
    parser.add_argument('--report', nargs='+', metavar='JSON',
                        help='measure nothing: the table of earlier runs')
    return parser.parse_args()


def select(patterns, names, what):
    """Those of @names that one of the comma-separated patterns names."""
    chosen = []
    for pattern in patterns.split(','):
        found = fnmatch.filter(names, pattern)
        if not found:
            sys.exit(f'bench: no {what} {pattern}')
        chosen += found
    return [name for name in names if name in chosen]


def busy_seconds():
    """What all CPUs have worked so far."""
    with open('/proc/stat', encoding='ascii') as stat:
        fields = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf('SC_CLK_TCK')


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_fio(server, path, load, seconds):
    """(fio's job report, its CPU seconds)."""
    rw, size, jobs, depth = LOADS[load]
    before = children_seconds()
    with subprocess.Popen(
            ['fio', '--name=x', f'--filename={path}', f'--rw={rw}',
             '--rwmixread=70', f'--bs={size}', f'--numjobs={jobs}',
             f'--iodepth={depth}', '--ioengine=io_uring', '--direct=1',
             '--time_based', f'--runtime={seconds:g}', f'--ramp_time={RAMP}',
             '--norandommap', '--randrepeat=0', '--invalidate=0',
             '--fallocate=none', '--thread', '--group_reporting',
             f'--fsync={int(load.endswith("fsync"))}',
             '--output-format=json'],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True) as fio:
        try:
            text, errors = fio.communicate(timeout=seconds * 4 + GRACE)
        except subprocess.TimeoutExpired as err:
            # The server first: while it has a request of fio's, not even
            # SIGKILL ends that.
            server.kill()
            fio.kill()
            raise contenders.Hangs('fio has been waiting for an answer for '
                                   f'{err.timeout:g} s') from None
    if fio.returncode:
        raise contenders.Unavailable(f'fio: {errors.strip()[-300:]}')
    job = json.loads(text[text.index('{'):])['jobs'][0]
    return job, children_seconds() - before


def measure(server, path, load, seconds):
    """One measurement as a dictionary."""
    start, busy, cpu = time.monotonic(), busy_seconds(), server.cpu_seconds()
    job, fio_cpu = run_fio(server, path, load, seconds)
    cpu = server.cpu_seconds() - cpu
    elapsed = time.monotonic() - start
    foreign = (busy_seconds() - busy - cpu - fio_cpu) / elapsed
    sides = [job[side] for side in ('read', 'write')
             if job[side]['total_ios']]
    total = sum(side['total_ios'] for side in sides)
    if not total:
        raise contenders.Unavailable('no request has ended')
    iops = sum(side['iops'] for side in sides)

    def percentile(text):
        return sum(side['clat_ns']['percentile'][text] * side['total_ios']
                   for side in sides) / total
    return {'load': load, 'iops': iops,
            'bytes': sum(side['bw_bytes'] for side in sides),
            'p50': percentile('50.000000'), 'p99': percentile('99.000000'),
            # fio does not count the requests of the ramp; their rate is taken
            # to be the same.
            'cpu_per_op': cpu / (iops * (seconds + RAMP)),
            'fio_cpu': fio_cpu / elapsed, 'server_cpu': cpu / elapsed,
            'rss_kib': server.rss_kib(), 'foreign': max(foreign, 0)}


def choose(args, images):
    """The contenders that can run, found out by running them for a moment."""
    disks = select(args.format, list(contenders.DISKS), 'disk')
    everybody = {one.name: one for one in contenders.everybody()}
    chosen = []
    for name in select(args.contenders, list(everybody), 'contender'):
        if everybody[name].disk and everybody[name].disk not in disks:
            continue
        try:
            with contenders.serve(everybody[name], images, args):
                chosen.append(everybody[name])
        except contenders.Unavailable as err:
            print(f'left out: {name}: {err}', file=sys.stderr)
    if not chosen:
        sys.exit('bench: nobody is left')
    return chosen


def run_rounds(args, loads, chosen, images):
    """(runs, lines about who was left out meanwhile)"""
    names = [one.name for one in chosen]
    runs, notes, left = [], [], list(chosen)
    for number, load in itertools.product(range(args.rounds), loads):
        # Another one begins in every round.
        shift = number % len(chosen)
        for one in left[shift:] + left[:shift]:
            try:
                with contenders.serve(one, images, args) as (server, to):
                    run = measure(server, to, load, args.seconds)
            except contenders.Unavailable as err:
                print(f'failed: {one.name} {load}: {err}', file=sys.stderr)
                if isinstance(err, contenders.Hangs):
                    left.remove(one)
                    notes.append(f'{one.name} left out from round {number}, '
                                 f'{load} on: {err}')
                continue
            run.update(round=number, contender=one.name)
            runs.append(run)
            print(f'{number} {load:14} {one.name:18} {run["iops"]:9.0f} IOPS '
                  f'foreign {run["foreign"]:.2f}', file=sys.stderr)
    runs.sort(key=lambda run: (loads.index(run['load']),
                               names.index(run['contender']), run['round']))
    return runs, notes


def describe(args, chosen):
    """Where, what and how this was measured: lines of text."""
    uname = os.uname()
    with open('/proc/cpuinfo', encoding='utf-8') as info:
        models = [line.split(':', 1)[1].strip() for line in info
                  if line.startswith('model name')]
    lines = [f'{uname.sysname} {uname.release}, {os.cpu_count()} CPUs' +
             (f' ({models[0]})' if models else ''),
             f'{args.rounds} rounds of {args.seconds:g} s, {args.size} MiB' +
             ''.join(f', {words}' for words in
                     (args.image_options, args.export_options) if words)]
    if any(one.server.startswith('ref') for one in chosen):
        result = subprocess.run(
            [contenders.program('reference', args.reference), '--version'],
            capture_output=True, text=True, check=False)
        lines.append(f'ref: {result.stdout.partition(chr(10))[0]}')
    return lines


def switch_ring_on():
    """Returns the parameter's value before, if it had to be changed."""
    try:
        with open(PARAMETER, 'r+', encoding='ascii') as file:
            before = file.read().strip()
            if before == 'Y':
                return None
            file.write('Y')
            return before
    except OSError:
        return None


def measure_all(args):
    """(description, runs)"""
    loads = select(args.loads, list(LOADS), 'load')
    if os.geteuid() != 0 or not shutil.which('fio'):
        sys.exit('bench: needs root and fio')
    before = switch_ring_on()
    scratch = tempfile.mkdtemp(prefix='bench-', dir=args.dir)
    try:
        images = contenders.Images(scratch, args.size)
        chosen = choose(args, images)
        runs, notes = run_rounds(args, loads, chosen, images)
        return describe(args, chosen) + notes, runs
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if before:
            with open(PARAMETER, 'w', encoding='ascii') as file:
                file.write(before)


def read(paths):
    """(description, runs) of earlier runs, as if their rounds had been one
    after the other."""
    lines, runs = [], []
    for path in paths:
        with open(path, encoding='utf-8') as file:
            old = json.load(file)
        lines += [line for line in old['description'] if line not in lines]
        first = 1 + max((one['round'] for one in runs), default=-1)
        runs += [dict(one, round=one['round'] + first) for one in old['runs']]
    return lines, runs


def write(prefix, lines, runs, text):
    with open(f'{prefix}.txt', 'w', encoding='utf-8') as file:
        file.write(text + '\n')
    with open(f'{prefix}.svg', 'w', encoding='utf-8') as file:
        file.write(svg.render(runs, lines))
    with open(f'{prefix}.json', 'w', encoding='utf-8') as file:
        json.dump({'description': lines, 'medians': report.medians(runs),
                   'ratios': report.ratios(runs), 'runs': runs}, file,
                  indent=1)


def main():
    args = parse_args()
    lines, runs = read(args.report) if args.report else measure_all(args)
    if not runs:
        sys.exit('bench: nothing was measured')
    results = report.bars(runs)
    text = '\n'.join(lines) + '\n\n' + report.text(runs)
    if results:
        text += '\n'
    for line, reached in results:
        text += f'\n{"reached" if reached else "MISSED "} {line}'
    print(text)
    write(args.output, lines, runs, text)
    return 1 if args.bars and not all(ok for _, ok in results) else 0


if __name__ == '__main__':
    sys.exit(main())
