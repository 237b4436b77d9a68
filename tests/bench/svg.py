# SPDX-License-Identifier: MIT
"""The table as SVG: for each load its contenders, a bar for the IOPS, and the
numbers.  No background of its own; colours follow the reader's light or dark
scheme.
"""

from xml.sax.saxutils import escape

import report

ROW, PAD = 16, 16
NAME_X, BAR_X, BAR_WIDTH = PAD + 8, PAD + 150, 170
COLUMN = 58                             # width of a column of numbers

STYLE = '''
    text { font: 11px ui-monospace, monospace; fill: #1f2328; }
    .head { font-weight: bold; }
    .faint { fill: #59636e; }
    .number { text-anchor: end; }
    line { stroke: #d1d9e0; }
    .own { fill: #0969da; }
    .ref { fill: #bc4c00; }
    .null { fill: #afb8c1; }
    @media (prefers-color-scheme: dark) {
        text { fill: #f0f6fc; }
        .faint { fill: #9198a1; }
        line { stroke: #3d444d; }
        .own { fill: #4493f8; }
        .ref { fill: #db6d28; }
        .null { fill: #656c76; }
    }
'''


def text(x, y, words, style=''):
    style = f' class="{style}"' if style else ''
    return f'<text x="{x:g}" y="{y:g}"{style}>{escape(words)}</text>'


def load_rows(rows, y):
    """Lines of SVG for one load's rows, the first of which is at @y."""
    most = max(iops for _, _, iops, _ in rows)
    lines = []
    for _, name, iops, numbers in rows:
        width = max(BAR_WIDTH * iops / most, 1) if most else 1
        lines += [
            text(NAME_X, y, name),
            f'<rect x="{BAR_X}" y="{y - 9:g}" width="{width:.1f}" '
            f'height="10" class="{name.partition("-")[0].partition(":")[0]}"'
            '/>']
        lines += [text(BAR_X + BAR_WIDTH + COLUMN * (i + 1), y, number,
                       'number') for i, number in enumerate(numbers)]
        y += ROW
    return lines


def render(runs, caption):
    """@caption: lines of text above the table."""
    titles, table = report.cells(runs)
    width = BAR_X + BAR_WIDTH + COLUMN * len(titles) + PAD
    lines, y = [], PAD + 4
    for words in caption:
        lines.append(text(PAD, y, words, 'faint'))
        y += ROW
    y += ROW / 2
    lines.append(text(PAD, y, 'load, contender', 'head'))
    lines += [text(BAR_X + BAR_WIDTH + COLUMN * (i + 1), y, title,
                   'head number') for i, title in enumerate(titles)]
    for load in report.unique(runs, 'load'):
        rows = [row for row in table if row[0] == load]
        lines.append(f'<line x1="{PAD}" y1="{y + 6:g}" x2="{width - PAD}" '
                     f'y2="{y + 6:g}"/>')
        y += ROW + 4
        lines.append(text(PAD, y, load, 'head'))
        y += ROW
        lines += load_rows(rows, y)
        y += ROW * (len(rows) - 1)
    height = y + PAD
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height:g}" viewBox="0 0 {width} {height:g}">',
        f'<title>{escape(caption[0])}</title>',
        f'<style>{STYLE}</style>', *lines, '</svg>']) + '\n'
