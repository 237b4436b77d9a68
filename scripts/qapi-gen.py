#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Generate C code, or the QMP reference, from the QAPI schema.

    qapi-gen.py -o DIR [--depfile FILE] SCHEMA     C code into DIR
    qapi-gen.py --rst FILE SCHEMA                  reStructuredText
"""

import argparse
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from qapi.gen_c import CGenerator                       # noqa: E402
from qapi.gen_rst import generate_rst                   # noqa: E402
from qapi.schema import Schema, SchemaError             # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('-o', '--output', metavar='DIR')
    parser.add_argument('--rst', metavar='FILE')
    parser.add_argument('--depfile', metavar='FILE')
    parser.add_argument('schema')
    args = parser.parse_args()
    try:
        schema = Schema(args.schema)
    except SchemaError as e:
        sys.exit(str(e))
    files = {}
    if args.output:
        for name, text in CGenerator(schema).files().items():
            files[os.path.join(args.output, name)] = text
    if args.rst:
        files[args.rst] = generate_rst(schema)
    for name, text in files.items():
        with open(name, 'w', encoding='utf-8') as f:
            f.write(text)
    if args.depfile:
        with open(args.depfile, 'w', encoding='utf-8') as f:
            f.write(' '.join(files) + ': ' + ' '.join(schema.files) + '\n')


if __name__ == '__main__':
    main()
