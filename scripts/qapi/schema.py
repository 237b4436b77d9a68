# SPDX-License-Identifier: MIT
"""Expressions to a checked model of types, commands and events."""

import re

from .parser import Doc, Expr, SchemaError, parse

# name -> (C type, QapiKind, JSON type, QType)
BUILTINS = {
    'str': ('char *', 'STR', 'string', 'QSTRING'),
    'int': ('int64_t', 'INT', 'int', 'QNUM'),
    'int8': ('int8_t', 'INT', 'int', 'QNUM'),
    'int16': ('int16_t', 'INT', 'int', 'QNUM'),
    'int32': ('int32_t', 'INT', 'int', 'QNUM'),
    'int64': ('int64_t', 'INT', 'int', 'QNUM'),
    'uint8': ('uint8_t', 'UINT', 'int', 'QNUM'),
    'uint16': ('uint16_t', 'UINT', 'int', 'QNUM'),
    'uint32': ('uint32_t', 'UINT', 'int', 'QNUM'),
    'uint64': ('uint64_t', 'UINT', 'int', 'QNUM'),
    'size': ('uint64_t', 'SIZE', 'int', 'QNUM'),
    'number': ('double', 'NUMBER', 'number', 'QNUM'),
    'bool': ('bool', 'BOOL', 'boolean', 'QBOOL'),
    'null': ('QNull *', 'NULL', 'null', 'QNULL'),
    'any': ('QObject *', 'ANY', 'value', None),
}

KEYS = {
    'enum': {'data', 'prefix'},
    'struct': {'data', 'base'},
    'union': {'data', 'base', 'discriminator'},
    'alternate': {'data'},
    'command': {'data', 'returns', 'boxed', 'allow-oob', 'allow-preconfig',
                'coroutine', 'success-response', 'gen'},
    'event': {'data', 'boxed'},
}

RESERVED = set('''
    auto break case char const continue default do double else enum extern
    float for goto if inline int long register restrict return short signed
    sizeof static struct switch typedef union unsigned void volatile while
    asm typeof unix linux errno bool true false stdin stdout stderr
'''.split())


def c_name(name):
    name = re.sub(r'[^A-Za-z0-9_]', '_', name)
    if name in RESERVED or name[0].isdigit():
        return 'q_' + name
    return name


def c_upper(name):
    """CamelCase (or with-hyphens) to UPPER_SNAKE."""
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    name = re.sub(r'([A-Z])([A-Z][a-z])', r'\1_\2', name)
    return re.sub(r'[^A-Za-z0-9_]', '_', name).upper()


def c_camel(name):
    """with-hyphens_or_underscores to CamelCase."""
    return ''.join(w[:1].upper() + w[1:] for w in re.split(r'[-_]', name))


class Cond:
    """An 'if': C preprocessor text, or None."""

    def __init__(self, info, spec):
        self.info = info
        self.text = self.build(spec) if spec is not None else None

    def build(self, spec):
        if isinstance(spec, str):
            return f'defined({spec})'
        if isinstance(spec, dict) and len(spec) == 1:
            op, arg = next(iter(spec.items()))
            if op == 'not':
                return '!' + self.build(arg)
            if op in ('all', 'any') and isinstance(arg, list) and arg:
                sep = ' && ' if op == 'all' else ' || '
                return '(' + sep.join(self.build(a) for a in arg) + ')'
        raise SchemaError(self.info, f"bad condition {spec!r}")


class Feature:
    def __init__(self, info, spec):
        spec = {'name': spec} if isinstance(spec, str) else spec
        self.name = spec['name']
        self.cond = Cond(info, spec.get('if'))


class Named:
    """What all definitions, members and values have."""

    def __init__(self, info, name, spec):
        self.info = info
        self.name = name
        self.cond = Cond(info, spec.get('if'))
        self.features = [Feature(info, f) for f in spec.get('features', [])]
        self.doc = ''


class Member(Named):
    def __init__(self, info, name, spec):
        spec = spec if isinstance(spec, dict) else {'type': spec}
        unknown = set(spec) - {'type', 'if', 'features'}
        if unknown or 'type' not in spec:
            raise SchemaError(info, f"bad definition of member '{name}'")
        self.optional = name.startswith('*')
        super().__init__(info, name.lstrip('*'), spec)
        self.type_spec = spec['type']
        self.type = None

    @property
    def has_flag(self):
        return self.optional and not self.type.is_pointer


class Type(Named):
    kind = None
    is_pointer = True
    is_array = False

    def __init__(self, info, name, spec):
        super().__init__(info, name, spec)
        self.doc_block = None


class Builtin(Type):
    def __init__(self, name):
        super().__init__('built-in', name, {})
        self.c_type, self.kind, self.json, self.qtype = BUILTINS[name]
        self.is_pointer = self.kind in ('STR', 'NULL', 'ANY')


class Enum(Type):
    kind = 'ENUM'
    qtype = 'QSTRING'
    is_pointer = False

    def __init__(self, info, name, spec):
        super().__init__(info, name, spec)
        self.prefix = spec.get('prefix') or c_upper(name)
        self.values = []
        for value in spec['data']:
            value = {'name': value} if isinstance(value, str) else value
            self.values.append(Named(info, value['name'], value))

    @property
    def c_type(self):
        return self.name

    def constant(self, value):
        return self.prefix + '_' + c_upper(value)


class Array(Type):
    kind = 'LIST'
    qtype = 'QLIST'
    is_array = True

    def __init__(self, element):
        super().__init__(element.info, element.name + 'List', {})
        self.element = element
        self.cond = element.cond

    @property
    def c_type(self):
        return self.name + ' *'


class Struct(Type):
    """A struct, or with a tag a union."""

    kind = 'STRUCT'
    qtype = 'QDICT'

    def __init__(self, info, name, spec, implicit=False):
        super().__init__(info, name, spec)
        self.implicit = implicit
        self.base_spec = spec.get('base')
        self.base = None
        self.base_members = []          # of an anonymous base
        self.tag_name = spec.get('discriminator')
        self.tag = None
        data = spec.get('data', {})
        if isinstance(self.base_spec, dict):
            self.base_members = [Member(info, k, v)
                                 for k, v in self.base_spec.items()]
        parts = [Member(info, k, v) for k, v in data.items()]
        self.local = [] if self.tag_name else parts
        self.variants = parts if self.tag_name else []

    @property
    def c_type(self):
        return self.name + ' *'

    @property
    def documented(self):
        """Members that the type's own documentation must explain."""
        return self.base_members + self.local

    @property
    def members(self):
        inherited = self.base.members if self.base else []
        return inherited + self.base_members + self.local


class Alternate(Type):
    kind = 'ALTERNATE'

    def __init__(self, info, name, spec):
        super().__init__(info, name, spec)
        self.branches = [Member(info, k, v) for k, v in spec['data'].items()]

    @property
    def c_type(self):
        return self.name + ' *'


class Callable(Named):
    def __init__(self, info, name, spec):
        super().__init__(info, name, spec)
        self.spec = spec
        self.arg = None
        self.ret = None
        self.doc_block = None


class Command(Callable):
    pass


class Event(Callable):
    pass


class Schema:
    def __init__(self, path):
        items, self.files = parse(path)
        self.types = {name: Builtin(name) for name in BUILTINS}
        self.commands = []
        self.events = []
        self.order = []                 # definitions and free-form Docs
        self.empty = Struct('built-in', 'QapiEmpty', {}, implicit=True)
        for item in items:
            if isinstance(item, Doc):
                self.order.append(item)
            else:
                self.define(item)
        self.resolve()
        self.check_docs()

    # ---- definitions ----

    def define(self, item):
        kinds = [k for k in KEYS if k in item.value]
        if len(kinds) != 1 or not isinstance(item.value[kinds[0]], str):
            raise SchemaError(item.info, 'not a definition')
        kind = kinds[0]
        name = item.value[kind]
        unknown = set(item.value) - KEYS[kind] - {kind, 'if', 'features'}
        if unknown:
            raise SchemaError(item.info, f"{kind} '{name}' has unknown key "
                              f"'{sorted(unknown)[0]}'")
        cls = {'enum': Enum, 'struct': Struct, 'union': Struct,
               'alternate': Alternate, 'command': Command,
               'event': Event}[kind]
        if cls is not Command and cls is not Event \
                and not re.fullmatch(r'[A-Z][A-Za-z0-9]*', name):
            raise SchemaError(item.info, f"type name '{name}' is not "
                              'CamelCase')
        if kind == 'union' and 'discriminator' not in item.value:
            raise SchemaError(item.info, f"union '{name}' lacks its "
                              'discriminator')
        entry = cls(item.info, name, item.value)
        entry.doc_block = item.doc
        self.order.append(entry)
        if kind == 'command':
            self.commands.append(entry)
        elif kind == 'event':
            self.events.append(entry)
        elif name in self.types:
            raise SchemaError(item.info, f"'{name}' is already defined")
        else:
            self.types[name] = entry

    def lookup(self, info, spec):
        if isinstance(spec, list) and len(spec) == 1:
            element = self.lookup(info, spec[0])
            name = element.name + 'List'
            if name not in self.types:
                self.types[name] = Array(element)
            return self.types[name]
        if not isinstance(spec, str) or spec not in self.types:
            raise SchemaError(info, f'unknown type {spec!r}')
        return self.types[spec]

    def resolve(self):
        for entry in list(self.types.values()):
            if isinstance(entry, Struct):
                self.resolve_struct(entry)
            elif isinstance(entry, Alternate):
                self.resolve_alternate(entry)
        for name in ('str', 'int', 'bool', 'number', 'any'):
            self.lookup('built-in', [name])
        for entry in list(self.types.values()):
            if not entry.is_array and not isinstance(entry, Builtin):
                self.lookup(entry.info, [entry.name])
        for entry in list(self.types.values()):
            if isinstance(entry, Struct):
                self.resolve_union(entry)
        for entry in self.commands + self.events:
            self.resolve_callable(entry)

    def resolve_struct(self, entry):
        if isinstance(entry.base_spec, str):
            entry.base = self.lookup(entry.info, entry.base_spec)
            if not isinstance(entry.base, Struct):
                raise SchemaError(entry.info, f"base '{entry.base_spec}' is "
                                  'not a struct')
        for member in entry.base_members + entry.local + entry.variants:
            member.type = self.lookup(entry.info, member.type_spec)

    def resolve_union(self, entry):
        names = set()
        for member in entry.members:
            if c_name(member.name) in names:
                raise SchemaError(entry.info, f"'{member.name}' collides")
            names.add(c_name(member.name))
        if not entry.tag_name:
            return
        tags = [m for m in entry.members if m.name == entry.tag_name]
        if not tags or tags[0].optional or not isinstance(tags[0].type, Enum):
            raise SchemaError(entry.info, f"discriminator '{entry.tag_name}' "
                              'is not a mandatory enum member')
        entry.tag = tags[0]
        values = {v.name for v in entry.tag.type.values}
        for variant in entry.variants:
            if variant.name not in values:
                raise SchemaError(entry.info, f"branch '{variant.name}' is "
                                  f"no value of '{entry.tag.type.name}'")
            if not isinstance(variant.type, Struct):
                raise SchemaError(entry.info, f"branch '{variant.name}' is "
                                  'not a struct')
            for member in variant.type.members:
                if c_name(member.name) in names:
                    raise SchemaError(entry.info, f"'{member.name}' of "
                                      f"branch '{variant.name}' collides")

    def resolve_alternate(self, entry):
        seen = set()
        for branch in entry.branches:
            branch.type = self.lookup(entry.info, branch.type_spec)
            qtype = getattr(branch.type, 'qtype', None)
            if not qtype or qtype in seen:
                raise SchemaError(entry.info, f"branch '{branch.name}' can't "
                                  'be told from the others')
            seen.add(qtype)

    def resolve_callable(self, entry):
        data = entry.spec.get('data')
        kind = 'Qmp%sArg' if isinstance(entry, Command) else 'QapiEvent%s'
        if data is None:
            entry.arg = self.empty
        elif isinstance(data, str):
            entry.arg = self.lookup(entry.info, data)
            if not isinstance(entry.arg, Struct):
                raise SchemaError(entry.info, f"'{data}' is not a struct")
        else:
            name = entry.name
            if isinstance(entry, Event):
                name = name.lower()
            entry.arg = Struct(entry.info, kind % c_camel(name),
                               {'data': data}, implicit=True)
            entry.arg.cond = entry.cond
            self.resolve_struct(entry.arg)
            self.resolve_union(entry.arg)
            self.types[entry.arg.name] = entry.arg
        returns = entry.spec.get('returns')
        entry.ret = self.lookup(entry.info, returns) if returns else None
        if entry.ret and not entry.ret.is_pointer:
            raise SchemaError(entry.info, 'a command returns an object, a '
                              "list, a string, or 'any'")

    # ---- documentation ----

    def check_docs(self):
        for entry in self.order:
            if isinstance(entry, Doc):
                continue
            doc = entry.doc_block
            if not doc or doc.symbol != entry.name:
                raise SchemaError(entry.info, f"'{entry.name}' is not "
                                  'documented')
            if not Doc.text(doc.body):
                raise SchemaError(doc.info, f"'{entry.name}' has no "
                                  'description')
            if isinstance(entry, Enum):
                parts = entry.values
            elif isinstance(entry, Struct):
                parts = entry.documented
            elif isinstance(entry, Alternate):
                parts = entry.branches
            else:
                parts = entry.arg.members if entry.arg.implicit else []
            self.check_parts(doc, entry, parts)

    @staticmethod
    def check_parts(doc, entry, parts):
        features = {f.name for f in entry.features}
        for part in parts:
            features |= {f.name for f in part.features}
            part.doc = Doc.text(doc.args.get(part.name, []))
            if not part.doc:
                raise SchemaError(doc.info, f"member '{part.name}' of "
                                  f"'{entry.name}' is not documented")
        for what, known, named in (
                ('member', {p.name for p in parts}, doc.args),
                ('feature', features, doc.features)):
            for name in named:
                if name not in known:
                    raise SchemaError(doc.info, f"'{entry.name}' has no "
                                      f"{what} '{name}'")
        for name in features:
            if not Doc.text(doc.features.get(name, [])):
                raise SchemaError(doc.info, f"feature '{name}' of "
                                  f"'{entry.name}' is not documented")


__all__ = ['Alternate', 'Array', 'Builtin', 'Command', 'Cond', 'Doc', 'Enum',
           'Event', 'Expr', 'Schema', 'SchemaError', 'Struct', 'c_camel',
           'c_name', 'c_upper']
