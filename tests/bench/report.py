# SPDX-License-Identifier: MIT
"""Medians, ratios and the table."""

import statistics

# (contender, against, loads, at least)
BARS = [
    ('own-ring', 'debian', ['4k-1x1', '4k-1x64', '4k-4x1', '4k-4x64'], 3.0),
    ('own-ring', 'own-dev', ['4k-1x1'], 2.0),
    ('own-ring', 'own-dev', ['4k-1x64', '4k-4x64'], 1.3),
    ('own-dev', 'debian', ['4k-1x1', '4k-1x64', '4k-4x1', '4k-4x64',
                           '64k-1x16', '1m-read-1x8', '1m-write-1x8'], 1.0),
]

COLUMNS = [('kIOPS', 'iops', 1e-3, '8.1f'), ('MB/s', 'bytes', 1e-6, '7.0f'),
           ('p50us', 'p50', 1e-3, '7.0f'), ('p99us', 'p99', 1e-3, '7.0f'),
           ('cpu/op', 'cpu_per_op', 1e6, '6.1f'),
           ('RSSMiB', 'rss_kib', 1 / 1024, '6.0f'),
           ('foreign', 'foreign', 1, '7.2f')]


def medians(runs):
    """[{load, contender, n, iops, ...}] in the order of the runs."""
    groups = {}
    for run in runs:
        groups.setdefault((run['load'], run['contender']), []).append(run)
    rows = []
    for (load, contender), group in groups.items():
        row = {'load': load, 'contender': contender, 'n': len(group)}
        for _, key, _, _ in COLUMNS:
            row[key] = statistics.median(run[key] for run in group)
        rows.append(row)
    return rows


def ratio(runs, load, contender, base):
    """Median over the rounds of contender / base in the same round."""
    def by_round(name):
        return {run['round']: run['iops'] for run in runs
                if (run['load'], run['contender']) == (load, name)}
    ours, theirs = by_round(contender), by_round(base)
    both = [ours[key] / theirs[key] for key in ours
            if theirs.get(key)]
    return statistics.median(both) if both else None


def table(runs):
    """The text table."""
    contenders = list(dict.fromkeys(run['contender'] for run in runs))
    bases = [name for name in ('own-dev', 'debian') if name in contenders]
    lines = [f'{"load":13} {"contender":10} {"n":>2} ' +
             ' '.join(f'{title:>{int(form.split(".")[0])}}'
                      for title, _, _, form in COLUMNS) +
             ''.join(f' {"/" + base:>8}' for base in bases)]
    last = None
    for row in sorted(medians(runs), key=lambda row:
                      [run['load'] for run in runs].index(row['load'])):
        if last not in (None, row['load']):
            lines.append('')
        last = row['load']
        text = f'{row["load"]:13} {row["contender"]:10} {row["n"]:2} '
        text += ' '.join(format(row[key] * scale, form)
                         for _, key, scale, form in COLUMNS)
        for base in bases:
            value = ratio(runs, row['load'], row['contender'], base)
            text += f' {value:8.2f}' if value else f' {"-":>8}'
        lines.append(text)
    return '\n'.join(lines)


def bars(runs):
    """[(text, reached)] for the bars whose contenders ran."""
    results = []
    for contender, base, loads, least in BARS:
        for load in loads:
            value = ratio(runs, load, contender, base)
            if value is not None:
                results.append((f'{load}: {contender} / {base} = {value:.2f} '
                                f'(bar: {least})', value >= least))
    return results
