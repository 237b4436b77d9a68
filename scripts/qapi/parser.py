# SPDX-License-Identifier: MIT
"""Schema text to a list of expressions with their documentation.

The syntax is JSON with single-quoted strings, '#' comments, and documentation
blocks between lines of '##'.
"""

import os
import re


class SchemaError(Exception):
    def __init__(self, info, message):
        super().__init__(f'{info}: {message}')


class Doc:
    """One documentation block, split into its sections.

    A block either starts with "@name:" and documents that definition, or is
    free-form text.
    """

    ARG = re.compile(r'@([\w-]+):(?:\s+(.*))?$')
    TAGS = ('Since', 'Returns', 'Errors', 'Note', 'Example')

    def __init__(self, info, lines):
        self.info = info
        self.symbol = None
        self.body = []
        self.args = {}          # member name -> lines
        self.features = {}      # feature name -> lines
        self.sections = []      # (tag, lines)
        target = self.body
        in_features = False
        for line in lines:
            text = line.strip()
            arg = self.ARG.match(text)
            tag = re.match(r'(%s): *(.*)' % '|'.join(self.TAGS), text)
            if arg and line[:1] == '@':
                if self.symbol is None and not any(self.body):
                    self.symbol = arg.group(1)
                    target = self.body
                    continue
                table = self.features if in_features else self.args
                if arg.group(1) in table:
                    raise SchemaError(info, f"'{arg.group(1)}' is documented "
                                      'twice')
                target = table[arg.group(1)] = []
                text = arg.group(2) or ''
            elif text == 'Features:':
                in_features = True
                target = []
                continue
            elif tag and line[:1] != ' ':
                target = []
                self.sections.append((tag.group(1), target))
                text = tag.group(2)
            target.append(text)

    @staticmethod
    def text(lines):
        return '\n'.join(lines).strip()


class Expr:
    """One top-level expression: its key says what it defines."""

    def __init__(self, info, value, doc):
        self.info = info
        self.value = value
        self.doc = doc


class Parser:
    TOKEN = re.compile(r"(?P<space>[ \t]+)|(?P<newline>\n)"
                       r"|(?P<comment>#[^\n]*)|(?P<string>'[^'\\\n]*')"
                       r"|(?P<word>true|false)|(?P<punct>[{}\[\],:])")

    def __init__(self, path, root, seen):
        self.path = path
        self.root = root
        self.seen = seen
        self.items = []         # Expr and free-form Doc, in order
        self.tokens = []
        self.line = 1
        seen.append(path)
        with open(path, encoding='ascii') as f:
            self.tokenize(f.read())
        self.pos = 0
        self.parse_file()

    def info(self, line=None):
        return f'{os.path.relpath(self.path, self.root)}:{line or self.line}'

    def tokenize(self, text):
        pos, line, block, start = 0, 1, None, 0
        while pos < len(text):
            m = self.TOKEN.match(text, pos)
            if not m:
                raise SchemaError(self.info(line), 'stray '
                                  + repr(text[pos]))
            pos = m.end()
            kind, value = m.lastgroup, m.group()
            if kind == 'newline':
                line += 1
            elif kind == 'comment' and value == '##':
                if block is None:
                    block, start = [], line
                else:
                    self.tokens.append(('doc', Doc(self.info(start), block),
                                        start))
                    block = None
            elif kind == 'comment' and block is not None:
                if value != '#' and value[:2] != '# ':
                    raise SchemaError(self.info(line), "'# ' expected")
                block.append(value[2:])
            elif kind in ('string', 'word', 'punct'):
                if block is not None:
                    raise SchemaError(self.info(line),
                                      "documentation lacks its end '##'")
                self.tokens.append((kind, value, line))
        self.tokens.append(('end', '', line))

    def next(self):
        kind, value, self.line = self.tokens[self.pos]
        self.pos += 1
        return kind, value

    def expect(self, value):
        kind, got = self.next()
        if got != value:
            raise SchemaError(self.info(), f"'{value}' expected, not "
                              f"'{got or kind}'")

    def parse_file(self):
        doc = None
        while True:
            kind, value = self.next()
            if kind == 'end':
                break
            if kind == 'doc':
                if doc:
                    self.items.append(doc)
                doc = value
                if not value.symbol:
                    self.items.append(value)
                    doc = None
                continue
            info = self.info()
            if value != '{':
                raise SchemaError(info, "'{' expected")
            expr = self.parse_object()
            if 'include' in expr:
                self.include(info, expr['include'])
            elif 'pragma' not in expr:
                self.items.append(Expr(info, expr, doc))
                doc = None
        if doc:
            raise SchemaError(doc.info, 'documentation without definition')

    def include(self, info, name):
        path = os.path.join(os.path.dirname(self.path), name)
        if not os.path.exists(path):
            raise SchemaError(info, f"no such file '{name}'")
        if path not in self.seen:
            self.items += Parser(path, self.root, self.seen).items

    def parse_value(self):
        kind, value = self.next()
        if value == '{':
            return self.parse_object()
        if value == '[':
            return self.parse_list()
        if kind == 'string':
            return value[1:-1]
        if kind == 'word':
            return value == 'true'
        raise SchemaError(self.info(), 'value expected')

    def parse_object(self):
        result = {}
        kind, key = self.next()
        while key != '}' or kind != 'punct':
            if kind != 'string':
                raise SchemaError(self.info(), 'key expected')
            key = key[1:-1]
            if key in result:
                raise SchemaError(self.info(), f"duplicate key '{key}'")
            self.expect(':')
            result[key] = self.parse_value()
            kind, key = self.next()
            if key == ',':
                kind, key = self.next()
                if key == '}':
                    raise SchemaError(self.info(), 'key expected')
            elif key != '}':
                raise SchemaError(self.info(), "',' or '}' expected")
        return result

    def parse_list(self):
        result = []
        if self.tokens[self.pos][1] == ']':
            self.pos += 1
            return result
        while True:
            result.append(self.parse_value())
            _, value = self.next()
            if value == ']':
                return result
            if value != ',':
                raise SchemaError(self.info(), "',' or ']' expected")


def parse(path):
    """All items of a schema file and what it includes; and the files."""
    files = []
    path = os.path.normpath(path)
    items = Parser(path, os.path.dirname(os.path.dirname(
        os.path.abspath(path))), files).items
    return items, files
