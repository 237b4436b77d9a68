# SPDX-License-Identifier: MIT
"""qcow2 images with options, exported whatever format `check` chose."""

import contextlib
import os
import random
import signal

from .daemon import (Export, StorageDaemon, check_transport, export_option,
                     iothread_options)
from .env import QEMU_IMG_PROG, TEST_DIR
from .faults import check_cut_off, check_flushed
from .host import (FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate,
                   is_mountpoint, wait_unlocked)
from .load import loaded
from .process import qemu_img, qemu_io, run
from .testing import TestFailure, log, wait_for

__all__ = ['make_qcow2', 'check_qcow2', 'to_raw', 'qcow2_exported',
           'qcow2_end_under_load', 'qcow2_kinds']

MIB = 1 << 20
LOAD_BYTES = 512 << 10      # what the writers of loaded() use
LEAKS = 3

# Names and `-o` of images that are each different to write.
qcow2_kinds = {
    'default': '',
    'small clusters': 'cluster_size=4k',
    'subclusters': 'extended_l2=on,cluster_size=16k',
    'lazy refcounts': 'lazy_refcounts=on,cluster_size=8k',
    'tiny clusters': 'cluster_size=512,refcount_bits=64',
    'version 2': 'compat=0.10,cluster_size=4k',
}


def make_qcow2(name, size, options='', *more):
    """A new image in the scratch directory, by qemu-img."""
    path = TEST_DIR / name
    argv = ['-o', options] if options else []
    qemu_img('create', '-q', '-f', 'qcow2', *argv, *more, path, size)
    return path


def check_qcow2(path, clean=False):
    """qemu-img finds nothing but leaks; if @clean, not even these."""
    result = run(QEMU_IMG_PROG, 'check', '-f', 'qcow2', path, check=False)
    if result.returncode not in ((0,) if clean else (0, LEAKS)):
        raise TestFailure(f'{path}: status {result.returncode}\n'
                          f'{result.stdout}')


def to_raw(path, name='raw', *options):
    """What the image @path holds, as a raw file."""
    raw = TEST_DIR / name
    qemu_img('convert', '-f', 'qcow2', '-O', 'raw', *options, path, raw)
    return raw


@contextlib.contextmanager
def qcow2_exported(image, options='', *, name='qsd', iothreads=2, args=(),
                   writable=True, clean=True, growable=False):
    """Export qcow2 file @image; afterwards it is checked."""
    mountpoint = TEST_DIR / f'{name}.export'
    mountpoint.touch()
    objects, export_iothreads = iothread_options(iothreads)
    read_only = '' if writable else ',read-only=on'
    daemon = StorageDaemon(
        *objects, *args, '--blockdev',
        f'qcow2,node-name=disk,discard=unmap,file.driver=file,'
        f'file.discard=unmap,file.filename={image}{read_only}{options}',
        '--export', export_option(mountpoint, extra=export_iothreads,
                                  writable=writable, growable=growable),
        name=name)
    with daemon:
        check_transport(daemon)
        yield Export(mountpoint, image, daemon)
    check_qcow2(image, clean)


def churn(path, size):
    """Write, punch and discard behind what the load uses, until I/O fails."""
    rand = random.Random(os.getpid())
    fd = os.open(path, os.O_RDWR)
    while True:
        offset = rand.randrange(LOAD_BYTES, size - 100000)
        length = rand.randrange(1, 100000)
        if rand.randrange(3):
            os.pwrite(fd, bytes([rand.randrange(1, 255)]) * length, offset)
        else:
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                      length)


@contextlib.contextmanager
def churning(path, size, jobs=2):
    pids = []
    try:
        for _ in range(jobs):
            pid = os.fork()
            if pid == 0:
                signal.alarm(120)
                with contextlib.suppress(OSError):
                    churn(path, size)
                os._exit(0)
            pids.append(pid)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def new_round(image, number, kind):
    """Between rounds: everything is shared, and the load's part zeroes."""
    if number >= 2:
        qemu_img('snapshot', '-d', f's{number - 2}', image)
    qemu_img('snapshot', '-c', f's{number}', image)
    unmap = '-u ' if number % 2 and kind != 'version 2' else ''
    qemu_io(image, f'write -q -z {unmap}0 {LOAD_BYTES}', imgfmt='qcow2')


def repair(image):
    """The daemon's way: the dirty bit is seen to when an image is opened."""
    with StorageDaemon('--blockdev', 'qcow2,node-name=disk,file.driver=file,'
                       f'file.filename={image}', name='repair'):
        pass


def one_round(image, number, size, mountpoint):
    objects, iothreads = iothread_options(2)
    qsd = StorageDaemon(
        *objects, '--blockdev', 'qcow2,node-name=disk,discard=unmap,'
        f'file.driver=file,file.discard=unmap,file.filename={image}',
        '--export', export_option(mountpoint, extra=iothreads))
    qsd.start()
    try:
        with churning(mountpoint, size), loaded(mountpoint) as load:
            qsd.qmp.close()
            if number == signal.SIGKILL:
                qsd.kill()
                qsd.pidfile.unlink()
            else:
                qsd.stop(number)
            load.wait()
        check_cut_off(load)
    finally:
        qsd.kill()
    wait_for(lambda: not is_mountpoint(mountpoint), 'the mount to go')
    wait_unlocked(image)
    return load


def qcow2_end_under_load(number, rounds):
    """End the daemon by signal @number while clients write, @rounds times over
    all kinds of images.  Each image goes from round to round, with snapshots,
    so that everything is copied on write.
    """
    mountpoint = TEST_DIR / 'export'
    mountpoint.touch()
    size = 4 * MIB
    for which, (kind, options) in enumerate(qcow2_kinds.items()):
        image = make_qcow2(f'image{which}', size, options)
        for done in range(rounds // len(qcow2_kinds) + 1):
            new_round(image, done, kind)
            load = one_round(image, number, size, mountpoint)
            if number == signal.SIGKILL and 'lazy' in kind:
                repair(image)
            check_qcow2(image, clean=number == signal.SIGTERM)
            check_flushed(load, to_raw(image))
            if number == signal.SIGKILL:
                # Leaks are as bad as that is; they must not hide others.
                qemu_img('check', '-q', '-r', 'leaks', '-f', 'qcow2', image)
    log(f'{signal.Signals(number).name} under load: nothing lost on '
        f'{len(qcow2_kinds)} kinds of images')
