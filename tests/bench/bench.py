#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measure FUSE exports side by side: fio on the exported file, contenders
interleaved, medians over rounds, ratios within a round.

fio: io_uring engine, direct=1 on the export, random 70/30 (1 MiB loads:
sequential), over a raw image that is fully allocated and in the page cache.
Needs root, fio, and a quiet machine: `foreign` is what others took of it, in
CPUs.
"""

import argparse
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

# name: fio options
LOADS = {
    '4k-1x1': ('randrw', '4k', 1, 1),
    '4k-1x64': ('randrw', '4k', 1, 64),
    '4k-4x1': ('randrw', '4k', 4, 1),
    '4k-4x64': ('randrw', '4k', 4, 64),
    '64k-1x16': ('randrw', '64k', 1, 16),
    '1m-read-1x8': ('read', '1m', 1, 8),
    '1m-write-1x8': ('write', '1m', 1, 8),
}
PARAMETER = '/sys/module/fuse/parameters/enable_uring'


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=2,
                        help='of each measurement')
    parser.add_argument('--loads', default=','.join(LOADS),
                        help='of ' + ', '.join(LOADS))
    parser.add_argument(
        '--contenders', default=','.join(contenders.CONTENDERS), help='\n'
        .join(f'{k}: {v}' for k, v in contenders.CONTENDERS.items()))
    parser.add_argument('--debian', metavar='PROGRAM',
                        help='the daemon to compare with (default: in PATH)')
    parser.add_argument('--image-options', default='',
                        help='appended to the file node, such as '
                        ',cache.direct=on')
    parser.add_argument('--export-options', default='',
                        help="appended to our own exports' options, such as "
                        ',placement=none')
    parser.add_argument('--size', type=int, default=1024, metavar='MIB')
    parser.add_argument('--dir', default='/var/tmp', help='for the image')
    parser.add_argument('--output', default='bench',
                        help='PREFIX of the files PREFIX.txt and PREFIX.json')
    parser.add_argument('--bars', action='store_true',
                        help='status 1 if a bar is not reached')
    return parser.parse_args()


def busy_seconds():
    """What all CPUs have worked so far."""
    with open('/proc/stat', encoding='ascii') as stat:
        fields = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf('SC_CLK_TCK')


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_fio(path, load, seconds):
    """(fio's job report, its CPU seconds)."""
    rw, size, jobs, depth = LOADS[load]
    before = children_seconds()
    result = subprocess.run(
        ['fio', '--name=x', f'--filename={path}', f'--rw={rw}',
         '--rwmixread=70', f'--bs={size}', f'--numjobs={jobs}',
         f'--iodepth={depth}', '--ioengine=io_uring', '--direct=1',
         '--time_based', f'--runtime={seconds:g}', '--ramp_time=0.5',
         '--norandommap', '--randrepeat=0', '--invalidate=0',
         '--fallocate=none', '--thread', '--group_reporting',
         '--output-format=json'],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=seconds * 4 + 60)
    if result.returncode:
        raise contenders.Unavailable(f'fio: {result.stderr.strip()[-300:]}')
    text = result.stdout
    job = json.loads(text[text.index('{'):])['jobs'][0]
    return job, children_seconds() - before


def measure(server, path, load, seconds):
    """One measurement as a dictionary."""
    start, busy, cpu = time.monotonic(), busy_seconds(), server.cpu_seconds()
    job, fio_cpu = run_fio(path, load, seconds)
    cpu = server.cpu_seconds() - cpu
    elapsed = time.monotonic() - start
    foreign = (busy_seconds() - busy - cpu - fio_cpu) / elapsed
    sides = [job[side] for side in ('read', 'write')
             if job[side]['total_ios']]
    iops = sum(side['iops'] for side in sides)
    total = sum(side['total_ios'] for side in sides)

    def percentile(text):
        return sum(side['clat_ns']['percentile'][text] * side['total_ios']
                   for side in sides) / total
    return {'load': load, 'iops': iops,
            'bytes': sum(side['bw_bytes'] for side in sides),
            'p50': percentile('50.000000'), 'p99': percentile('99.000000'),
            'cpu_per_op': cpu / elapsed / iops, 'fio_cpu': fio_cpu / elapsed,
            'server_cpu': cpu / elapsed, 'rss_kib': server.rss_kib(),
            'foreign': max(foreign, 0)}


def make_image(directory, mib):
    """A raw image, every block of it allocated, in the page cache."""
    path = os.path.join(directory, 'disk.img')
    block = os.urandom(1 << 20)
    with open(path, 'wb') as file:
        for _ in range(mib):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    warm(path)
    return path


def warm(path):
    with open(path, 'rb', buffering=0) as file:
        while file.read(1 << 20):
            pass


def choose(args):
    """{contender: program} of those that can run; says what cannot."""
    chosen = {}
    for name in args.contenders.split(','):
        if name not in contenders.CONTENDERS:
            sys.exit(f'bench: no contender {name}')
        try:
            chosen[name] = contenders.program(name, args.debian)
        except contenders.Unavailable as err:
            print(f'left out: {name}: {err}')
    return chosen


def run_rounds(args, chosen, image, scratch):
    runs = []
    loads = args.loads.split(',')
    names = list(chosen)
    for number in range(args.rounds):
        for load in loads:
            # Another one begins in every round.
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                os.sync()
                try:
                    with contenders.serve(
                            name, chosen[name], image, scratch,
                            args.image_options, args.export_options) \
                            as (server, to):
                        run = measure(server, to, load, args.seconds)
                except contenders.Unavailable as err:
                    print(f'failed: {name} {load}: {err}', file=sys.stderr)
                    continue
                run.update(round=number, contender=name)
                runs.append(run)
                print(f'{number} {load:13} {name:10} {run["iops"]:9.0f} IOPS '
                      f'foreign {run["foreign"]:.2f}', file=sys.stderr)
    runs.sort(key=lambda run: (loads.index(run['load']),
                               names.index(run['contender']), run['round']))
    return runs


def machine():
    """One line about where this was measured."""
    uname = os.uname()
    with open('/proc/cpuinfo', encoding='utf-8') as info:
        models = [line.split(':', 1)[1].strip() for line in info
                  if line.startswith('model name')]
    return f'{uname.sysname} {uname.release}, {os.cpu_count()} CPUs' + \
        (f' ({models[0]})' if models else '')


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


def main():
    args = parse_args()
    unknown = set(args.loads.split(',')) - set(LOADS)
    if unknown:
        sys.exit(f'bench: no load {", ".join(unknown)}')
    if os.geteuid() != 0 or not shutil.which('fio'):
        sys.exit('bench: needs root and fio')
    chosen = choose(args)
    before = switch_ring_on()
    scratch = tempfile.mkdtemp(prefix='bench-', dir=args.dir)
    try:
        image = make_image(scratch, args.size)
        runs = run_rounds(args, chosen, image, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if before:
            with open(PARAMETER, 'w', encoding='ascii') as file:
                file.write(before)
    results = report.bars(runs)
    text = f'{machine()}; {args.rounds} rounds of {args.seconds:g} s\n\n' + \
        report.table(runs) + '\n'
    for line, reached in results:
        text += f'\n{"reached" if reached else "MISSED "} {line}'
    print(text)
    with open(f'{args.output}.txt', 'w', encoding='utf-8') as file:
        file.write(text + '\n')
    with open(f'{args.output}.json', 'w', encoding='utf-8') as file:
        json.dump({'machine': machine(), 'runs': runs,
                   'medians': report.medians(runs)}, file, indent=1)
    return 1 if args.bars and not all(ok for _, ok in results) else 0


if __name__ == '__main__':
    sys.exit(main())
