# SPDX-License-Identifier: MIT
"""Faults between the daemon and its libraries: see inject.c."""

import mmap
import struct

from .env import INJECT_LIB, TEST_DIR
from .testing import TestFailure, skip

__all__ = ['Injection']

RULES = ('register', 'commit', 'submit', 'offer', 'dev_read', 'dev_write',
         'clone', 'short', 'again', 'thread')
RULE = struct.Struct('=IIIII')
ALWAYS = 0xffffffff


class Injection:
    """Rules for one daemon, started with this object's env.

    with Injection() as faults, fault_daemon(image, env=faults.env): ...
    """

    def __init__(self, name='inject'):
        if not INJECT_LIB:
            skip('libinject.so is not built beside the daemon')
        self.path = TEST_DIR / name
        self.path.write_bytes(bytes(RULE.size * len(RULES)))
        self.env = {'LD_PRELOAD': INJECT_LIB, 'QSD_INJECT': str(self.path),
                    'ASAN_OPTIONS': 'verify_asan_link_order=0'}
        self.map = None

    def __enter__(self):
        with open(self.path, 'r+b') as file:
            self.map = mmap.mmap(file.fileno(), 0)
        return self

    def __exit__(self, *exc):
        self.map.close()

    def set(self, rule, arg=0, after=0, count=ALWAYS):
        """From now on let @after calls pass, then spoil @count."""
        offset = RULES.index(rule) * RULE.size
        struct.pack_into('=I', self.map, offset + 4, 0)
        RULE.pack_into(self.map, offset, after, 0, arg, 0, 0)
        struct.pack_into('=I', self.map, offset + 4, count)

    def clear(self):
        for rule in RULES:
            struct.pack_into('=I', self.map,
                             RULES.index(rule) * RULE.size + 4, 0)

    def seen(self, rule):
        return RULE.unpack_from(self.map, RULES.index(rule) * RULE.size)[3]

    def hits(self, rule):
        """How many calls have been spoiled since set()."""
        return RULE.unpack_from(self.map, RULES.index(rule) * RULE.size)[4]

    def require_hits(self, rule):
        """A fault that did not happen has tested nothing."""
        if not self.hits(rule):
            raise TestFailure(f'{rule}: nothing was spoiled')
