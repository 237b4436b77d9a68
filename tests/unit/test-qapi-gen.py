#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The QAPI generator: what it accepts, refuses and makes."""

import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
sys.path.insert(0, os.path.join(ROOT, 'scripts'))

from qapi.gen_c import CGenerator                       # noqa: E402
from qapi.gen_rst import generate_rst                   # noqa: E402
from qapi.schema import (Schema, SchemaError, c_camel, c_name,
                         c_upper)                       # noqa: E402


def doc(name, **members):
    lines = ['##', f'# @{name}:', '#', '# What it is.', '#']
    for member, text in members.items():
        lines += [f'# @{member.replace("_", "-")}: {text}', '#']
    return '\n'.join(lines[:-1] + ['##', ''])


def load(text):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'schema.json')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)
        return Schema(path)


class Refused(unittest.TestCase):
    def refused(self, text, message):
        with self.assertRaises(SchemaError) as caught:
            load(text)
        self.assertIn(message, str(caught.exception))

    def test_documentation(self):
        struct = "{ 'struct': 'S', 'data': { 'a': 'int' } }"
        self.refused(struct, "'S' is not documented")
        self.refused(doc('S') + struct, "member 'a' of 'S' is not documented")
        self.refused(doc('S', a='x', b='y') + struct, "no member 'b'")
        self.refused(doc('T', a='x') + struct, "'S' is not documented")
        self.refused(doc('S', a='x'), 'documentation without definition')
        self.refused("##\n# @S:\n#\n# @a: x\n##\n" + struct,
                     "'S' has no description")
        self.refused(doc('E', a='x') + "{ 'enum': 'E', 'data': "
                     "['a', 'b'] }", "member 'b' of 'E' is not documented")
        self.refused(doc('c') + "{ 'command': 'c', 'data': {'a': 'int'} }",
                     "member 'a' of 'c' is not documented")
        self.refused(doc('S', a='x') + "{ 'struct': 'S', 'data': {'a': "
                     "{'type': 'int', 'features': ['unstable'] } } }",
                     "feature 'unstable' of 'S' is not documented")

    def test_types(self):
        self.refused(doc('S', a='x') + "{ 'struct': 'S', 'data': "
                     "{ 'a': 'Nope' } }", "unknown type 'Nope'")
        self.refused(doc('S') + "{ 'struct': 'S', 'data': {}, 'x': 1 }",
                     'stray')
        self.refused(doc('S') + "{ 'struct': 'S', 'data': {}, 'x': 'y' }",
                     "unknown key 'x'")
        self.refused(doc('s') + "{ 'struct': 's', 'data': {} }", 'CamelCase')
        self.refused(doc('A', a='x', b='y') + "{ 'alternate': 'A', 'data': "
                     "{ 'a': 'int', 'b': 'size' } }", "can't be told")
        self.refused(doc('U', t='x') + "{ 'union': 'U', 'base': {'t': 'str'},"
                     " 'discriminator': 't', 'data': {} }",
                     "discriminator 't'")
        self.refused(doc('c') + "{ 'command': 'c', 'returns': 'int' }",
                     'a command returns')
        self.refused(doc('S') + "{ 'struct': 'S', 'data': {}, }", 'key')


class Generated(unittest.TestCase):
    def test_names(self):
        self.assertEqual(c_upper('BlockdevAioOptions'),
                         'BLOCKDEV_AIO_OPTIONS')
        self.assertEqual(c_upper('QMPCapability'), 'QMP_CAPABILITY')
        self.assertEqual(c_upper('null-co'), 'NULL_CO')
        self.assertEqual(c_name('node-name'), 'node_name')
        self.assertEqual(c_name('unix'), 'q_unix')
        self.assertEqual(c_name('3des'), 'q_3des')
        self.assertEqual(c_camel('block_resize'), 'BlockResize')
        self.assertEqual(c_camel('query-version'), 'QueryVersion')

    def test_conditions(self):
        schema = load(
            doc('E', a='x', b='y')
            + "{ 'enum': 'E', 'data': [ 'a', { 'name': 'b', 'if': "
            "{ 'all': [ 'CONFIG_B', { 'not': 'CONFIG_C' } ] } } ] }\n"
            + doc('c') + "{ 'command': 'c', 'if': 'CONFIG_C' }\n")
        files = CGenerator(schema).files()
        self.assertIn('#if (defined(CONFIG_B) && !defined(CONFIG_C))\n'
                      '    E_B,\n#endif', files['qapi-types.h'])
        self.assertIn('#if defined(CONFIG_C)\nvoid coroutine_fn qmp_c(Error '
                      '**errp);\n#endif', files['qapi-commands.h'])

    def test_reference(self):
        text = generate_rst(load(
            doc('S', a='see @b', b='more') + "{ 'struct': 'S', 'data': "
            "{ '*a': 'int', 'b': ['S'] } }"))
        self.assertIn('``a``: ``int``, optional\n    see ``b``\n', text)
        self.assertIn('``b``: list of `S`_\n', text)

    def test_deterministic(self):
        path = os.path.join(ROOT, 'qapi', 'schema.json')
        self.assertEqual(CGenerator(Schema(path)).files(),
                         CGenerator(Schema(path)).files())


if __name__ == '__main__':
    unittest.main()
