# SPDX-License-Identifier: MIT
"""What `check` chose, handed to the test in the environment."""

import os
from pathlib import Path

__all__ = [
    'TEST_DIR', 'TRANSPORT', 'IMGFMT', 'QSD_PROG', 'QEMU_IMG_PROG',
    'QEMU_IO_PROG', 'QSD_IMG_PROG', 'TIMEOUT_FACTOR', 'HAS_IO_URING',
    'HAS_IOTHREAD_LIST', 'SANITIZED', 'SOURCE_DIR', 'DATA_DIR',
    'BLOCKDEV_AIO', 'INJECT_LIB',
]

# Scratch directory of this test alone, and its working directory.
TEST_DIR = Path(os.environ['TEST_DIR'])
SOURCE_DIR = Path(__file__).resolve().parents[3]
DATA_DIR = SOURCE_DIR / 'tests' / 'data'

# fuse, fuse-uring, file (the image itself: what a plain file does) or none.
TRANSPORT = os.environ.get('TRANSPORT', 'fuse')
IMGFMT = os.environ.get('IMGFMT', 'raw')

QSD_PROG = os.environ.get('QSD_PROG', 'qemu-storage-daemon')
QEMU_IMG_PROG = os.environ.get('QEMU_IMG_PROG', 'qemu-img')
QEMU_IO_PROG = os.environ.get('QEMU_IO_PROG', 'qemu-io')

# Our own program for images; in a build tree it is near the daemon.
QSD_IMG_PROG = os.environ.get('QSD_IMG_PROG') or next(
    (str(path) for path in [Path(QSD_PROG).parent.parent / 'qsd-img/qsd-img']
     if path.exists()), 'qsd-img')

# Every time limit is multiplied by this: sanitizers and valgrind are slow.
TIMEOUT_FACTOR = float(os.environ.get('TIMEOUT_FACTOR', '1'))
SANITIZED = os.environ.get('QSD_SANITIZED', '0') == '1'

# What the daemon under test knows; QSD_PROG may be another implementation.
HAS_IO_URING = os.environ.get('QSD_HAS_IO_URING', '1') == '1'
HAS_IOTHREAD_LIST = os.environ.get('QSD_HAS_IOTHREAD_LIST', '1') == '1'

# Extra options of every image's file node, such as ",aio=threads".
BLOCKDEV_AIO = os.environ.get('BLOCKDEV_AIO', '')

# The library that injects faults into the daemon; empty: there is none.
INJECT_LIB = os.environ.get('QSD_INJECT_LIB', '')
