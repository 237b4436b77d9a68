# SPDX-License-Identifier: MIT
"""From measurements to medians, ratios, and one table: text, JSON, SVG.

A measurement ("run") is a dictionary: load, contender, round, and a number for
each of MEASURES.  Ratios are taken within each round, between neighbours in
time; what is shown is the median of these.
"""

import fnmatch
import statistics

# (key, title, factor for display, digits after the point)
MEASURES = [('iops', 'kIOPS', 1e-3, 1), ('bytes', 'MB/s', 1e-6, 0),
            ('p50', 'p50 us', 1e-3, 0), ('p99', 'p99 us', 1e-3, 0),
            ('cpu_per_op', 'CPU us', 1e6, 1),
            ('rss_kib', 'RSS MiB', 1 / 1024, 0)]

# (contender, against, loads, at least): ratios of IOPS
BARS = [
    ('own-ring:raw', 'ref:raw', '4k-*-mix', 3.0),
    ('own-ring:raw', 'own-dev:raw', '4k-1x1-mix', 2.0),
    ('own-ring:raw', 'own-dev:raw', '4k-?x64-mix', 1.3),
    ('own-dev:raw', 'ref:raw', '*-mix', 1.0),
    ('own-dev:raw', 'ref:raw', '1m-*', 1.0),
    ('own-ring:qcow2', 'own-ring:raw', '4k-?x64-read', 0.95),
    ('own-ring:qcow2', 'own-ring:raw', '4k-?x64-write', 0.95),
    ('own-ring:qcow2-20x', 'own-ring:raw-20x', '4k-?x64-read', 0.95),
    ('own-ring:qcow2-20x', 'own-ring:raw-20x', '4k-?x64-write', 0.95),
    ('own-ring:qcow2-new', 'ref:qcow2-new', '4k-1x64-write', 1.5),
    ('own-ring:qcow2-new', 'ref:qcow2-new', '64k-1x16-seqwrite', 1.5),
]


def unique(runs, key):
    return list(dict.fromkeys(run[key] for run in runs))


def bases(contender):
    """[(title of the column, contender to compare with)]"""
    server, _, disk = contender.partition(':')
    suffix = f':{disk}' if disk else ''
    kind, _, transport = server.partition('-')
    raw = 'raw-20x' if disk.endswith('-20x') else 'raw'
    pairs = [('/ref', 'ref' + suffix), ('/raw', f'{server}:{raw}'),
             ('/null', 'null-ring' if transport == 'ring' else 'null-dev')]
    if transport == 'ring':
        pairs.insert(0, ('/dev', f'{kind}-dev{suffix}'))
    return [(title, base) for title, base in pairs
            if base != contender and (title != '/raw' or
                                      disk.startswith('qcow2'))]


def medians(runs):
    """[{load, contender, n, and each measure}]"""
    rows = []
    for load in unique(runs, 'load'):
        for contender in unique(runs, 'contender'):
            group = [run for run in runs if
                     (run['load'], run['contender']) == (load, contender)]
            if group:
                row = {'load': load, 'contender': contender, 'n': len(group)}
                for key in [measure[0] for measure in MEASURES] + ['foreign']:
                    row[key] = statistics.median(run[key] for run in group)
                rows.append(row)
    return rows


def ratio(runs, load, contender, base, key='iops'):
    """Median over the rounds of contender / base; None without any."""
    def by_round(name):
        return {run['round']: run[key] for run in runs
                if (run['load'], run['contender']) == (load, name)}
    ours, theirs = by_round(contender), by_round(base)
    both = [ours[number] / theirs[number] for number in ours
            if theirs.get(number)]
    return statistics.median(both) if both else None


def ratios(runs):
    """[{load, contender, base, and each measure's ratio}]"""
    rows = []
    for row in medians(runs):
        for title, base in bases(row['contender']):
            values = {key: ratio(runs, row['load'], row['contender'], base,
                                 key) for key, *_ in MEASURES}
            if values['iops'] is not None:
                rows.append({'load': row['load'],
                             'contender': row['contender'], 'base': base,
                             'column': title, **values})
    return rows


def cells(runs):
    """The table: (titles, [(load, contender, IOPS, [text])]), for text and
    SVG alike."""
    by_row = {}
    for row in ratios(runs):
        by_row.setdefault((row['load'], row['contender']), {})[
            row['column']] = f'{row["iops"]:.2f}'
    columns = [title for title in ('/dev', '/ref', '/raw', '/null')
               if any(title in row for row in by_row.values())]
    table = []
    for row in medians(runs):
        texts = [f'{row[key] * factor:.{digits}f}'
                 for key, _, factor, digits in MEASURES]
        found = by_row.get((row['load'], row['contender']), {})
        texts += [found.get(title, '-') for title in columns]
        texts.append(f'{row["foreign"]:.2f}')
        table.append((row['load'], row['contender'], row['iops'], texts))
    titles = [title for _, title, _, _ in MEASURES] + columns + ['foreign']
    return titles, table


def text(runs):
    """The table as text, then this daemon's ratios of all measures."""
    titles, table = cells(runs)
    widths = [max(len(title), 7) for title in titles]
    name_width = max(len(name) for name in unique(runs, 'contender'))
    load_width = max(len(load) for load in unique(runs, 'load'))

    def line(load, name, texts):
        return f'{load:{load_width}} {name:{name_width}} ' + ' '.join(
            f'{value:>{width}}' for value, width in zip(texts, widths))
    lines = [line('load', 'contender', titles)]
    last = None
    for load, name, _, texts in table:
        if load != last:
            lines.append('')
        last = load
        lines.append(line(load, name, texts))

    lines += ['', 'Ratios, medians of those within each round:', '']
    wide = 2 * name_width + 3
    lines.append(f'{"load":{load_width}} {"":{wide}} ' + ' '.join(
        f'{title.split()[0]:>7}' for _, title, _, _ in MEASURES))
    for row in ratios(runs):
        if not row['contender'].startswith('own-'):
            continue
        pair = f'{row["contender"]} / {row["base"]}'
        lines.append(f'{row["load"]:{load_width}} {pair:{wide}} ' + ' '.join(
            f'{row[key]:7.2f}' if row[key] is not None else f'{"-":>7}'
            for key, *_ in MEASURES))
    return '\n'.join(lines)


def bars(runs):
    """[(text, reached)] for the bars whose contenders ran."""
    results = []
    for contender, base, pattern, least in BARS:
        for load in fnmatch.filter(unique(runs, 'load'), pattern):
            value = ratio(runs, load, contender, base)
            if value is not None:
                results.append((f'{load}: {contender} / {base} = {value:.2f} '
                                f'(bar: {least})', value >= least))
    return results
