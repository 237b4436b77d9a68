#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""scripts/lint: names of files are for one module only."""

import contextlib
import io
import os
import sys
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

sys.dont_write_bytecode = True
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
LOADER = SourceFileLoader('lint', os.path.join(ROOT, 'scripts', 'lint'))
lint = module_from_spec(spec_from_loader('lint', LOADER))
LOADER.exec_module(lint)


def complaints(name, text):
    output = io.StringIO()
    checker = lint.Lint()
    with contextlib.redirect_stdout(output):
        checker.check_names(name, text)
    lines = output.getvalue().splitlines()
    assert len(lines) == checker.complaints
    return lines


class Names(unittest.TestCase):
    def test_refused(self):
        for code in ('fd = open(path, O_RDONLY);', 'if (stat(p, &st) < 0) {',
                     'g_file_get_contents(path, &text, NULL, NULL)',
                     'unlink (path);', 'return !access(path, F_OK);',
                     'connect(fd, sa, len)'):
            for name in ('block/x.c', 'qapi/x.h', 'block/export/x.c',
                         'storage-daemon/x.c', 'qsd-img/x.c', 'util/x.c'):
                found = complaints(name, f'\n{code}\n')
                self.assertEqual(len(found), 1, (name, code))
                self.assertTrue(found[0].startswith(f'{name}:2: '), found)

    def test_fine(self):
        for code in ('/* open(2) and\n * stat(2) */', 'drv->open(bs)',
                     's.connect(x)', 'puts("open(x)")', 'file_co_open(bs)',
                     'fstat(fd, &st)', 'named_file_open(path, 0, NULL)'):
            self.assertEqual(complaints('block/x.c', code), [], code)

    def test_where(self):
        code = 'fd = open(path, O_RDONLY);'
        for name in ('tests/unit/x.c', 'util/named-file.c'):
            self.assertEqual(complaints(name, code), [], name)
        self.assertEqual(complaints('util/sockets.c', 'bind(fd, sa, len)'), [])
        self.assertEqual(len(complaints('util/sockets.c', code)), 1)


if __name__ == '__main__':
    unittest.main()
