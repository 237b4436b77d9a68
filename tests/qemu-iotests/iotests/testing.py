# SPDX-License-Identifier: MIT
"""Running a test: its output, its skips, what must hold when it ends."""

import errno
import json
import os
import re
import sys
import time
import traceback

from .env import HAS_IO_URING, TEST_DIR, TIMEOUT_FACTOR, TRANSPORT

__all__ = [
    'run_test', 'log', 'skip', 'attempt', 'filter_text', 'wait_for',
    'require_root', 'require_own', 'check_equal', 'errno_name', 'pattern',
    'TestFailure',
]

SKIP_STATUS = 77


class TestFailure(Exception):
    """The test found something wrong; its text says what."""


def filter_text(text):
    """Replace what differs from run to run by fixed words."""
    text = text.replace(str(TEST_DIR), 'TEST_DIR')
    text = re.sub(r'\b(pid|PID)([ :=]+)\d+', r'\1\2PID', text)
    text = re.sub(r'"timestamp": \{[^}]*\}', '"timestamp": TIMESTAMP', text)
    text = re.sub(r'/dev/loop\d+', '/dev/loopN', text)
    text = re.sub(r'qemu-storage-daemon version \S+( \(.*?\))?',
                  'qemu-storage-daemon version VERSION', text)
    return text


def log(*words):
    """Print one filtered line; what is no string is printed as JSON."""
    texts = [word if isinstance(word, str) else json.dumps(word)
             for word in words]
    print(filter_text(' '.join(texts)), flush=True)


def skip(reason):
    """End the test as skipped."""
    print(f'SKIP: {reason}', flush=True)
    sys.exit(SKIP_STATUS)


def require_root(what='mount and loop devices'):
    if os.geteuid() != 0:
        skip(f'needs root ({what})')


def require_own(what):
    """Skip where QSD_PROG is another implementation that lacks @what."""
    if not HAS_IO_URING and TRANSPORT != 'file':
        skip(f'the daemon under test lacks {what}')


def errno_name(number):
    return errno.errorcode.get(number, str(number))


def attempt(label, function, *args, **kwargs):
    """Call @function and log its result, or the errno that it failed with."""
    try:
        result = function(*args, **kwargs)
    except OSError as err:
        log(f'{label}: {errno_name(err.errno)}')
        return None
    log(f'{label}: ok' if result is None else f'{label}: {result}')
    return result


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + '...'


def check_equal(label, actual, expected):
    if actual != expected:
        raise TestFailure(f'{label}: {shorten(actual)} instead of '
                          f'{shorten(expected)}')


def wait_for(condition, what, timeout=20):
    """Wait until condition() is true, and return what it returned."""
    deadline = time.monotonic() + timeout * TIMEOUT_FACTOR
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TestFailure(f'timed out waiting for {what}')
        time.sleep(0.01)


def pattern(seed, length):
    """@length reproducible bytes that differ from one 512-block to the next."""
    block = bytes((seed * 31 + i * 7) & 0xff for i in range(512 - 8))
    out = bytearray()
    for number in range((length + 511) // 512):
        out += (seed << 40 | number).to_bytes(8, 'little') + block
    return bytes(out[:length])


def left_mounts():
    with open('/proc/self/mounts', encoding='utf-8') as mounts:
        return [line.split()[1] for line in mounts
                if line.split()[1].startswith(f'{TEST_DIR}/')]


def run_test(main, transports=None):
    """Run main(), then see that it left nothing mounted.

    @transports: those that the test is about; others skip.
    """
    if transports and TRANSPORT not in transports:
        skip(f'not a test for {TRANSPORT}')
    try:
        main()
        mounts = left_mounts()
        if mounts:
            raise TestFailure(f'left mounted: {" ".join(mounts)}')
    except TestFailure as failure:
        program = os.path.abspath(sys.argv[0])
        lines = [str(frame.lineno)
                 for frame in traceback.extract_tb(failure.__traceback__)
                 if os.path.abspath(frame.filename) == program]
        log(f'FAILED at line {", ".join(lines)}: {failure}')
        sys.exit(1)
