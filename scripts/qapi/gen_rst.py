# SPDX-License-Identifier: MIT
"""The model to the QMP reference manual, in reStructuredText."""

import re

from .schema import (Alternate, Array, Command, Doc, Enum, Event, Struct)

KIND = {Enum: 'Enum', Struct: 'Object', Alternate: 'Alternate',
        Command: 'Command', Event: 'Event'}


def markup(text):
    """Documentation text: @name is a name."""
    return re.sub(r'(?<![\w`])@([\w-]+)', r'``\1``', text)


def type_text(type_):
    if isinstance(type_, Array):
        return 'list of ' + type_text(type_.element)
    if type(type_) in KIND:
        return f'`{type_.name}`_'
    return f'``{type_.name}``'


def condition(entry):
    return f' (only if {entry.cond.text})' if entry.cond.text else ''


def item(term, text, indent=''):
    lines = markup(text).split('\n')
    return f'{indent}{term}\n' + ''.join(
        f'{indent}    {line}\n' if line else '\n' for line in lines)


def member_items(members):
    out = ''
    for m in members:
        note = ', optional' if m.optional else ''
        names = ', '.join(f.name for f in m.features)
        note += f', {names}' if names else ''
        out += item(f'``{m.name}``: {type_text(m.type)}{note}'
                    f'{condition(m)}', m.doc) + '\n'
    return out


def inherited_text(entry):
    if entry.base:
        return f'The members of {type_text(entry.base)}.\n\n'
    return ''


def struct_body(entry):
    out = ''
    if entry.base or entry.documented:
        out += '**Members**\n\n' + inherited_text(entry)
        out += member_items(entry.documented)
    if entry.variants:
        out += '**Further members**\n\n'
        for v in entry.variants:
            out += item(f'if ``{entry.tag.name}`` is ``{v.name}``'
                        f'{condition(v)}',
                        f'the members of {type_text(v.type)}')
        out += '\n'
    return out


def enum_body(entry):
    out = '**Values**\n\n'
    for v in entry.values:
        names = ', '.join(f.name for f in v.features)
        out += item(f'``{v.name}``' + (f' ({names})' if names else '')
                    + condition(v), v.doc) + '\n'
    return out


def alternate_body(entry):
    return '**Alternatives**\n\n' + ''.join(
        item(f'{type_text(b.type)}{condition(b)}', b.doc) + '\n'
        for b in entry.branches)


def callable_body(entry):
    out = ''
    if entry.arg.implicit:
        if entry.arg.members:
            out += '**Arguments**\n\n'
            out += member_items(entry.arg.members)
    else:
        out += ('**Arguments**\n\nThe members of '
                f'{type_text(entry.arg)}.\n\n')
    if isinstance(entry, Command) and entry.ret:
        out += f'**Returns**\n\n{type_text(entry.ret)}\n\n'
    return out


BODY = {Enum: enum_body, Struct: struct_body, Alternate: alternate_body,
        Command: callable_body, Event: callable_body}


def definition(entry):
    doc = entry.doc_block
    title = f'{entry.name}'
    out = f'{title}\n' + '~' * len(title) + '\n\n'
    out += f'*{KIND[type(entry)]}*{condition(entry)}\n\n'
    out += markup(Doc.text(doc.body)) + '\n\n'
    out += BODY[type(entry)](entry)
    if doc.features:
        out += '**Features**\n\n'
        for name, lines in doc.features.items():
            out += item(f'``{name}``', Doc.text(lines)) + '\n'
    for tag, lines in doc.sections:
        text = Doc.text(lines)
        if tag == 'Example':
            body = '\n'.join('    ' + line if line else ''
                             for line in text.split('\n'))
            out += f'**Example**\n\n::\n\n{body}\n\n'
        else:
            out += f'*{tag}:* {markup(text)}\n\n'
    return out


def generate_rst(schema):
    title = 'QMP reference'
    out = f'{title}\n' + '=' * len(title) + '\n\n'
    for entry in schema.order:
        if not isinstance(entry, Doc):
            out += definition(entry)
            continue
        text = Doc.text(entry.body)
        heading = re.match(r'= +(.*)(?:\n|$)', text)
        if heading:
            name = heading.group(1)
            out += f'{name}\n' + '-' * len(name) + '\n\n'
            text = text[heading.end():].strip()
        if text:
            out += markup(text) + '\n\n'
    return out
