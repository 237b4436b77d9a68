# SPDX-License-Identifier: MIT
"""The host's side: mounts, loop devices, file systems, fio."""

import contextlib
import ctypes
import errno
import glob
import json
import os
import subprocess

from .env import IMGFMT, QEMU_IMG_PROG, TEST_DIR, TIMEOUT_FACTOR
from .process import qemu_img, run
from .testing import TestFailure, wait_for

__all__ = [
    'mounted', 'is_mountpoint', 'loop_device', 'fio', 'fallocate',
    'FALLOC_FL_KEEP_SIZE', 'FALLOC_FL_PUNCH_HOLE', 'FALLOC_FL_ZERO_RANGE',
    'FALLOC_FL_COLLAPSE_RANGE', 'FALLOC_FL_INSERT_RANGE', 'extents',
    'make_image', 'small_filesystem', 'background', 'umount', 'fuse_abort',
    'direct_buffer', 'allocated', 'openers', 'ring_queues',
    'to_format', 'from_format', 'wait_unlocked',
]

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_COLLAPSE_RANGE = 0x08
FALLOC_FL_ZERO_RANGE = 0x10
FALLOC_FL_INSERT_RANGE = 0x20

MNT_FORCE = 1
MNT_DETACH = 2

libc = ctypes.CDLL(None, use_errno=True)


def check_errno(result, path=None):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def fallocate(fd, mode, offset, length):
    """fallocate(2) with every mode, which os.posix_fallocate() lacks."""
    check_errno(libc.fallocate(fd, mode, ctypes.c_int64(offset),
                               ctypes.c_int64(length)))


def umount(path, lazy=False, force=False):
    flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
    check_errno(libc.umount2(os.fsencode(path), flags), str(path))


def is_mountpoint(path):
    """True if something is mounted on @path, dead or alive."""
    path = os.path.realpath(path)
    with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
        return any(line.split()[4] == path for line in mounts)


def openers(path):
    """Processes that have the file now at @path open."""
    wanted = os.stat(path)
    found = set()
    for link in glob.glob('/proc/[0-9]*/fd/*'):
        try:
            if os.readlink(link) == str(path) and \
                    os.path.samestat(os.stat(link), wanted):
                found.add(link.split('/')[2])
        except OSError:
            pass
    return found


def fuse_abort(path):
    """Abort the FUSE connection behind the mount on @path."""
    path = os.path.realpath(path)
    with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
        minors = [line.split()[2].split(':')[1] for line in mounts
                  if line.split()[4] == path]
    if not minors:
        raise FileNotFoundError(errno.ENOENT, 'not mounted', path)
    minor = minors[-1]
    with contextlib.ExitStack() as stack:
        control = '/sys/fs/fuse/connections'
        if not os.path.isdir(f'{control}/{minor}'):
            run('mount', '-t', 'fusectl', 'none', control)
            stack.callback(run, 'umount', '-l', control)
        with open(f'{control}/{minor}/abort', 'w', encoding='utf-8') as file:
            file.write('1')


def ring_queues():
    """How many queues the kernel's ring has: one a possible CPU."""
    path = '/sys/devices/system/cpu/possible'
    with open(path, encoding='ascii') as file:
        ranges = [part.split('-') for part in file.read().strip().split(',')]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)


def make_image(name, size, fill=None):
    """A raw image in the scratch directory; @fill is a byte or None."""
    path = TEST_DIR / name
    with open(path, 'wb') as file:
        if fill is not None:
            chunk = bytes([fill]) * (1 << 20)
            for offset in range(0, size, len(chunk)):
                file.write(chunk[:size - offset])
        file.truncate(size)
    return path


def to_format(image):
    """@image in the format under test: itself, or a copy beside it."""
    if IMGFMT == 'raw':
        return image
    copy = image.with_name(f'{image.name}.{IMGFMT}')
    qemu_img('convert', '-f', 'raw', '-O', IMGFMT, image, copy)
    copy.chmod(image.stat().st_mode & 0o777)
    return copy


def wait_unlocked(image):
    """A dead process's ring, and with it the image, is let go a bit later."""
    wait_for(lambda: run(QEMU_IMG_PROG, 'info', image, check=False)
             .returncode == 0, f'{image} to be free')


def from_format(copy, image, live=False):
    """Convert what to_format() made back into the raw file @image.

    Unless it is @live, in use by a daemon, its structure is checked first:
    clusters may be lost (status 3: the daemon was killed), but no data.
    """
    if copy == image:
        return
    if not live:
        result = run(QEMU_IMG_PROG, 'check', '-q', '-f', IMGFMT, copy,
                     check=False)
        if result.returncode not in (0, 3):
            raise TestFailure(f'{copy}: status {result.returncode}\n'
                              f'{result.stdout}')
    mode = image.stat().st_mode & 0o777 if image.exists() else None
    qemu_img('convert', *(['-U'] if live else []), '-f', IMGFMT, '-O', 'raw',
             copy, image)
    if mode is not None:
        image.chmod(mode)


def allocated(path):
    """Allocated size in bytes, written out first."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_blocks * 512
    finally:
        os.close(fd)


def extents(path):
    """The file's map by SEEK_DATA and SEEK_HOLE: (start, end, is_data)."""
    result = []
    fd = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(fd).st_size
        offset = 0
        while offset < end:
            try:
                data = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError:
                data = end
            if data > offset:
                result.append((offset, data, False))
            if data < end:
                hole = os.lseek(fd, data, os.SEEK_HOLE)
                result.append((data, hole, True))
                offset = hole
            else:
                offset = data
    finally:
        os.close(fd)
    return result


def direct_buffer(length, alignment=4096):
    """Memory that O_DIRECT accepts, as a writable memoryview."""
    raw = bytearray(length + alignment)
    address = ctypes.addressof((ctypes.c_char * len(raw)).from_buffer(raw))
    start = -address % alignment
    return memoryview(raw)[start:start + length]


@contextlib.contextmanager
def loop_device(path, direct_io=True, part=None):
    """A loop device over @path, or its @part (offset, size); yields its name.
    """
    argv = ['losetup', '--find', '--show']
    if direct_io:
        argv.append('--direct-io=on')
    if part:
        argv += [f'--offset={part[0]}', f'--sizelimit={part[1]}']
    device = run(*argv, path).stdout.strip().splitlines()[-1]
    try:
        yield device
    finally:
        run('losetup', '--detach', device)
        # The device lets go of the file once its last user has closed it.
        wait_for(lambda: str(path) not in
                 run('losetup', '--list', '--noheadings', '--output',
                     'BACK-FILE', device, check=False).stdout,
                 f'{device} to let go')


@contextlib.contextmanager
def mounted(device, name='fs', options='rw', fstype='auto'):
    """Mount @device on a new directory; yields its path."""
    directory = TEST_DIR / name
    directory.mkdir(exist_ok=True)
    run('mount', '-t', fstype, '-o', options, device, directory)
    try:
        yield directory
    finally:
        # A scanner may hold the file system for a moment.
        wait_for(lambda: run('umount', directory, check=False)
                 .returncode == 0, f'umount of {directory}')


@contextlib.contextmanager
def small_filesystem(size, name='small'):
    """An ext4 file system of @size bytes, to be filled up."""
    backing = make_image(f'{name}.backing', size)
    run('mkfs.ext4', '-q', '-m', '0', '-O', '^has_journal', backing)
    with loop_device(backing, direct_io=False) as device:
        with mounted(device, name) as directory:
            yield directory


def fio(path, *options, timeout=120, jobs=1):
    """Run fio on @path; returns its JSON report.  Failed verification and
    every I/O error fail the test.
    """
    argv = ['fio', '--name=job', f'--filename={path}', f'--numjobs={jobs}',
            '--output-format=json', '--group_reporting', '--invalidate=0',
            '--fallocate=none', '--randrepeat=1', *options]
    result = run(*argv, timeout=timeout, check=False)
    text = result.stdout
    complaint, brace, rest = text.partition('{\n')
    try:
        report = json.loads(brace + rest[:rest.rindex('}') + 1])
    except ValueError:
        raise TestFailure(f'fio printed no report:\n{text}') from None
    if result.returncode or any(job['error'] for job in report['jobs']):
        raise TestFailure(f'{" ".join(argv)}: status {result.returncode}\n'
                          f'{complaint}')
    return report


@contextlib.contextmanager
def background(*argv, **kwargs):
    """A program that runs beside the test and is killed at its end."""
    with subprocess.Popen([str(arg) for arg in argv], cwd=TEST_DIR,
                          stdin=subprocess.DEVNULL, **kwargs) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(timeout=30 * TIMEOUT_FACTOR)
