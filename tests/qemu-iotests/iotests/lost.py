# SPDX-License-Identifier: MIT
"""Storage that loses what the page cache has taken: a sparse file on a full
tmpfs, behind a loop device.  Writes to it succeed, writing back does not.
"""

import contextlib
import json
import os
import threading

from .daemon import StorageDaemon, export_option, iothread_options
from .env import BLOCKDEV_AIO, HAS_IO_URING, TEST_DIR, TRANSPORT
from .faults import export_arguments
from .host import loop_device, make_image, mounted
from .process import qemu_img, require_programs, run
from .testing import TestFailure, check_equal, errno_name, log, pattern

__all__ = ['LosingStorage', 'lost_everywhere', 'flush_all']

MIB = 1 << 20
BLOCK = 4096
WRITE = 64 << 10
CLIENTS = 8


class LosingStorage:
    """A loop device, `device`, which keeps what it has until lose()."""

    def __init__(self, directory, device):
        self.device = device
        self.filler = directory / 'filler'

    @classmethod
    @contextlib.contextmanager
    def create(cls, size=32 * MIB):
        with mounted('none', 'full', f'size={size // 2}', 'tmpfs') as full:
            with open(full / 'backing', 'wb') as file:
                file.truncate(size)
            with loop_device(full / 'backing', direct_io=False) as device:
                yield cls(full, device)

    def lose(self):
        """From now on nothing new finds a place."""
        run('sync')
        fd = os.open(self.filler, os.O_WRONLY | os.O_CREAT)
        try:
            for length in (MIB, BLOCK):
                with contextlib.suppress(OSError):
                    while os.write(fd, bytes(length)):
                        pass
        finally:
            os.close(fd)

    def recover(self):
        self.filler.unlink()


def flush_all(paths, seed, how='fsync'):
    """Clients who write and flush all at once; what each of them was told.

    @how: by fsync, by O_DSYNC, or not (writethrough).
    """
    told = [None] * len(paths)
    barrier = threading.Barrier(len(paths))
    data = pattern(seed, WRITE)

    def client(number):
        fd = os.open(paths[number],
                     os.O_RDWR | (os.O_DSYNC if how == 'dsync' else 0))
        try:
            barrier.wait()
            os.pwrite(fd, data, (1 + number) * len(data))
            if how == 'fsync':
                os.fsync(fd)
            told[number] = 'ok'
        except OSError as err:
            told[number] = errno_name(err.errno)
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)            # which flushes as well

    threads = [threading.Thread(target=client, args=[number])
               for number in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def rounds_of(qsd, nodes, rounds, how):
    """Each on nodes of its own: a node remembers that it lost something.

    A client has an export for himself: the kernel lets one fsync at a time
    through to a file.
    """
    points = [TEST_DIR / f'export{number}' for number in range(CLIENTS)]
    for point in points:
        point.touch()
    for number in range(rounds):
        for node in nodes:
            qsd.cmd('blockdev-add', **node)
        for point in points:
            qsd.cmd('block-export-add', **export_arguments(
                point, node=nodes[-1]['node-name'], ident=point.name,
                writethrough=how == 'writethrough'))
        told = flush_all(points, number, how)
        if 'ok' in told:
            raise TestFailure(f'round {number}: {told}')
        for point in points:
            qsd.cmd('block-export-del', id=point.name)
            qsd.wait_event('BLOCK_EXPORT_DELETED')
        for node in reversed(nodes):
            delete_node(qsd, node['node-name'])


def lost_in_rounds(nodes, rounds, how='fsync', env=None):
    objects, _ = iothread_options(2)
    qsd = StorageDaemon(*objects, env=env)
    qsd.start()
    try:
        rounds_of(qsd, nodes, rounds, how)
        qsd.qmp.close()
        qsd.stop(status=1 if HAS_IO_URING else 0)
    finally:
        qsd.kill()


def delete_node(qsd, name):
    """The first time it may say that data is lost."""
    reply = qsd.qmp.execute('blockdev-del', {'node-name': name})
    if 'error' in reply:
        qsd.cmd('blockdev-del', node_name=name)


def file_node(driver, filename, **more):
    aio = dict(part.split('=') for part in BLOCKDEV_AIO.split(',') if part)
    return {'driver': driver, 'node-name': 'file', 'filename': str(filename),
            **aio, **more}


def qcow2_node(file='file'):
    return {'driver': 'qcow2', 'node-name': 'disk', 'file': file}


def on_device(device, stack):
    """Nodes by name: the device, a file on it, qcow2 on it."""
    run('mkfs.ext4', '-q', '-m', '0', '-O', '^has_journal', device)
    directory = stack.enter_context(mounted(device, 'ext4'))
    with open(directory / 'disk.img', 'wb') as file:
        file.truncate(16 * MIB)
    return [file_node('file', directory / 'disk.img')]


def lost_on(what, rounds, how='fsync', env=None, **more):
    """@what: host_device, file or qcow2."""
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(LosingStorage.create())
        if what == 'file':
            nodes = on_device(storage.device, stack)
        else:
            nodes = [file_node('host_device', storage.device)]
        nodes[0].update(more)
        if what == 'qcow2':
            # Writes go where clusters are already: only their data is lost.
            qemu_img('create', '-f', 'qcow2', '-o', 'preallocation=metadata',
                     storage.device, 16 * MIB)
            nodes.append(qcow2_node())
        storage.lose()
        lost_in_rounds(nodes, rounds, how, env)


@contextlib.contextmanager
def failing_flush():
    """A loop device of which one flush fails, the first after a write."""
    image = make_image('direct.img', 16 * MIB)
    below = TEST_DIR / 'below'
    below.touch()
    debug = {'driver': 'blkdebug', 'image': file_node('file', image),
             'set-state': [{'event': 'write_aio', 'state': 1, 'new_state': 2}],
             'inject-error': [{'event': 'flush_to_disk', 'iotype': 'flush',
                               'state': 2, 'errno': 5, 'once': True}]}
    node = {'driver': 'raw', 'node-name': 'disk', 'file': debug}
    with StorageDaemon('--blockdev', json.dumps(node), '--export',
                       export_option(below), name='below'):
        with loop_device(below, direct_io=False) as device:
            yield device


def lost_with_direct(aio):
    with failing_flush() as device:
        lost_in_rounds([file_node('host_device', device, aio=aio,
                                  cache={'direct': True})], 1)


def lost_everywhere(rounds):
    require_programs('losetup', 'mkfs.ext4')
    epoll = {'QSD_AIO': 'epoll'} if TRANSPORT == 'fuse' else None
    for what in ('host_device', 'file', 'qcow2'):
        lost_on(what, rounds)
        lost_on(what, rounds, env=epoll)
        lost_on(what, rounds, how='writethrough')
        lost_on(what, rounds, how='dsync')
        log(f'{what}: nobody was told that it is safe')
    lost_on('host_device', rounds, aio='threads')
    log('host_device, aio=threads: nobody was told that it is safe')
    for aio in ('io_uring', 'threads', 'native'):
        lost_with_direct(aio)
        log(f'cache.direct=on, aio={aio}: nobody was told that it is safe')
