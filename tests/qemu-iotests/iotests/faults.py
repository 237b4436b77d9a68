# SPDX-License-Identifier: MIT
"""Rounds of faults: tests say how many.  A quick test runs a few, a long one
many of the same.
"""

import os
import signal
import time

from .daemon import StorageDaemon, export_option, iothread_options
from .env import HAS_IO_URING, HAS_IOTHREAD_LIST, IMGFMT, SANITIZED, \
    TEST_DIR, TRANSPORT
from .host import (from_format, is_mountpoint, make_image, to_format,
                   wait_unlocked)
from .load import descriptors, limit_gap, loaded, mount_count
from .testing import TestFailure, check_equal, log, pattern, wait_for

__all__ = ['export_arguments', 'end_under_load', 'add_and_delete',
           'fault_daemon', 'check_cut_off']

IMAGE_SIZE = 4 << 20
RSS_MARGIN_KIB = 1024
END_LIMIT_SECONDS = 20


def export_arguments(mountpoint, node='disk', ident='exp', iothreads=2,
                     **more):
    """Arguments of block-export-add, on the transport under test."""
    arguments = {'type': 'fuse', 'id': ident, 'node-name': node,
                 'mountpoint': str(mountpoint), 'writable': True}
    if HAS_IO_URING:
        arguments['io-uring'] = TRANSPORT == 'fuse-uring'
    if HAS_IOTHREAD_LIST and iothreads:
        arguments['iothread'] = [f'io{i}' for i in range(iothreads)]
    return {**arguments, **more}


def fault_daemon(image, *args, **kwargs):
    """A daemon with two IOThreads and @image as the node `disk`."""
    objects, _ = iothread_options(2)
    node = f'file,node-name=disk,filename={image}'
    if IMGFMT != 'raw':
        node = f'{IMGFMT},node-name=disk,file.driver=file,file.filename={image}'
    return StorageDaemon(*objects, '--blockdev', node, *args, **kwargs)


def check_flushed(load, image):
    load.check(image)
    check_equal('something was flushed', load.flushed(0) > 0, True)


def end_under_load(number, rounds):
    """End the daemon by signal @number while clients write, @rounds times.

    No mount may be left, nor may what was flushed be missing in the image, and
    no client may hang.
    """
    mountpoint = TEST_DIR / 'export'
    mountpoint.touch()
    _, iothreads = iothread_options(2)
    before = mount_count()
    for _ in range(rounds):
        image = make_image('disk.img', IMAGE_SIZE)
        disk_file = to_format(image)
        qsd = fault_daemon(disk_file, '--export',
                           export_option(mountpoint, extra=iothreads))
        qsd.start()
        try:
            with loaded(mountpoint) as load:
                start = time.monotonic()
                qsd.qmp.close()
                if number == signal.SIGKILL:
                    qsd.kill()
                    qsd.pidfile.unlink()
                    wait_for(lambda: not is_mountpoint(mountpoint),
                             'the mount to go', timeout=2)
                else:
                    qsd.stop(number)
                load.wait()
                limit_gap(start, END_LIMIT_SECONDS, 'the end')
            check_cut_off(load)
        finally:
            qsd.kill()
        wait_unlocked(disk_file)
        check_equal('mounts', mount_count(), before)
        from_format(disk_file, image)
        check_flushed(load, image)
    log(f'{signal.Signals(number).name} under load: nothing lost, nothing '
        'left')


def check_cut_off(load):
    """What clients may see when their connection ends.  ECANCELED is what
    Linux makes of a ring request whose server was killed.
    """
    allowed = {'ENOTCONN', 'ECONNABORTED', 'EIO', 'ENODEV', 'ECANCELED'}
    if not load.errors <= allowed:
        raise TestFailure(f'clients ended with {sorted(load.errors)}')


def add_and_delete(rounds, warm_up=40):
    """Add an export, use it and delete it, @rounds times: nothing may grow."""
    image = make_image('disk.img', 1 << 20)
    mountpoint = TEST_DIR / 'export'
    mountpoint.touch()
    with fault_daemon(image) as qsd:
        mounts = mount_count()
        for number in range(rounds):
            if number == warm_up:
                before = state(qsd)
            qsd.cmd('block-export-add', **export_arguments(mountpoint))
            fd = os.open(mountpoint, os.O_RDWR)
            os.pwrite(fd, pattern(number, 4096), 0)
            os.close(fd)
            qsd.cmd('block-export-del', id='exp')
            qsd.wait_event('BLOCK_EXPORT_DELETED')
        after = state(qsd)
        check_equal('descriptors', after['fds'], before['fds'])
        check_equal('mounts', mount_count(), mounts)
        # Pool threads come and go, a few at a time.
        if after['threads'] > before['threads'] + 4:
            raise TestFailure(f'{before["threads"]} threads became '
                              f'{after["threads"]}')
        grown = after['rss'] - before['rss']
        if grown > RSS_MARGIN_KIB and not SANITIZED:
            raise TestFailure(f'{grown} KiB more in {rounds} rounds')
        check_equal('image', image.read_bytes()[:4096],
                    pattern(rounds - 1, 4096))
        log('exports added and deleted: nothing has grown')


def state(qsd):
    return {'fds': descriptors(qsd), 'rss': qsd.status_field('VmRSS'),
            'threads': qsd.status_field('Threads')}
