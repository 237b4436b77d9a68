# SPDX-License-Identifier: MIT
"""Storms of random QMP commands from several monitors at once, while clients
use the files and vanish.

All share a handful of names, so that they are in each other's way all the
time.  Commands may well fail; each must be answered, in order, and the daemon
must live, and end as it should.

Images of the names SPOILT are opened without locks, written to by clients,
cut and formatted anew, whatever they are to others at the time: a qcow2 node
on one may find it corrupt.  Those of QCOW2 are qcow2 nodes' only, and whole at
the end.
"""

import json
import os
import random
import signal
import threading

from .daemon import StorageDaemon
from .env import HAS_IO_URING, TEST_DIR, TRANSPORT
from .host import make_image
from .process import qsd_img
from .qmp import QMPClient
from .testing import TestFailure, check_equal, left_mounts, wait_for

__all__ = ['storm', 'end_in_storm']

MIB = 1 << 20
MONITORS = 3
CLIENTS = 3
SIZE = 4 * MIB
SPOILT = ['image0', 'image3']
QCOW2 = ['image1', 'image2']


def names(prefix, count):
    return [f'{prefix}{i}' for i in range(count)]


class Commands:
    """Random commands; the same ones for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.makers = [
            (8, self.blockdev_add), (4, self.blockdev_del),
            (8, self.export_add), (6, self.export_del),
            (4, self.object_add), (2, self.object_del),
            (3, self.resize), (6, self.snapshot), (9, self.bitmap),
            (3, self.transaction), (3, self.create), (3, self.job),
            (1, self.chardev), (4, self.qom), (4, self.query),
        ]
        self.weights = [weight for weight, _ in self.makers]

    def pick(self, *values):
        return self.random.choice(values)

    def name(self, prefix, count):
        return self.random.choice(names(prefix, count))

    def batch(self):
        """Names and arguments of commands to be sent at once."""
        if self.random.random() < 0.15:
            return self.export_again()
        return [self.random.choices(self.makers, self.weights)[0][1]()
                for _ in range(self.pick(1, 1, 1, 2, 5, 20))]

    # ---- nodes ----

    def node(self):
        return self.name('node', 4)

    def file(self, images, *locking):
        return {'driver': 'file',
                'filename': str(TEST_DIR / self.pick(*images)),
                'read-only': self.pick(False, False, False, True),
                'locking': self.pick(*locking)}

    def child(self, depth):
        if depth == 0 or self.random.random() < 0.3:
            return self.node()
        options = self.node_options(depth - 1)
        if self.random.random() < 0.3:
            options['node-name'] = self.node()
        return options

    def node_options(self, depth):
        driver = self.pick('file', 'file', 'qcow2', 'qcow2', 'raw', 'throttle',
                           'null-co', 'blkdebug')
        if driver == 'file':
            return self.file(SPOILT, 'off', 'auto')
        if driver == 'null-co':
            return {'driver': driver, 'size': self.pick(0, MIB, SIZE),
                    'latency-ns': self.pick(0, MIB)}
        options = {'driver': driver, 'discard': self.pick('unmap', 'ignore')}
        if driver == 'blkdebug':
            return {**options, 'image': self.child(depth)}
        options['file'] = self.child(depth)
        if driver == 'qcow2' and self.random.random() < 0.7:
            options['file'] = self.file(QCOW2, 'auto')    # of no name
        if driver == 'throttle':
            options['throttle-group'] = self.name('group', 2)
        elif driver == 'qcow2' and self.random.random() < 0.3:
            options['backing'] = self.pick(None, self.child(depth))
        return options

    def blockdev_add(self):
        return 'blockdev-add', {**self.node_options(2),
                                'node-name': self.node()}

    def blockdev_del(self):
        return 'blockdev-del', {'node-name': self.node()}

    def resize(self):
        return 'block_resize', {'node-name': self.node(), 'size': self.pick(
            0, 1000, MIB, SIZE, 3 * MIB + 512, -1)}

    # ---- exports ----

    def export_add(self, ident=None):
        options = {'type': 'fuse', 'id': ident or self.name('exp', 3),
                   'node-name': self.node(),
                   'mountpoint': str(TEST_DIR / self.name('mnt', 4)),
                   'writable': self.pick(True, True, False),
                   'growable': self.pick(True, False)}
        if HAS_IO_URING:
            options['io-uring'] = TRANSPORT == 'fuse-uring'
            options['queue-depth'] = 4
        threads = self.pick([], ['thread0'], ['thread1', 'thread2'])
        if threads:
            options['iothread'] = threads
        return 'block-export-add', options

    def export_del(self):
        return 'block-export-del', {'id': self.name('exp', 3),
                                    'mode': self.pick('safe', 'hard')}

    def export_again(self):
        """Others may just be waiting for the same id."""
        ident = self.name('exp', 2)
        delete = [('block-export-del', {'id': ident, 'mode': mode})
                  for mode in ('safe', 'hard')]
        return self.pick(delete[:1], delete[:1], [
            delete[1], self.export_add(ident), delete[0]])

    # ---- objects ----

    def object_add(self):
        kind = self.pick('iothread', 'throttle-group', 'secret', 'monitor-qmp')
        if kind == 'iothread':
            return 'object-add', {'qom-type': kind,
                                  'id': self.name('thread', 3)}
        if kind == 'throttle-group':
            return 'object-add', {'qom-type': kind, 'id': self.name('group', 2),
                                  'limits': {'iops-total': 2000}}
        if kind == 'secret':
            where = self.pick({'data': 'x' * 20},
                              {'file': str(TEST_DIR / 'image0')})
            return 'object-add', {'qom-type': kind, **where,
                                  'id': self.name('secret', 2)}
        return 'object-add', {'qom-type': kind, 'id': self.name('mon', 2),
                              'chardev': self.name('chr', 2)}

    def object_del(self):
        return 'object-del', {'id': self.pick(
            *names('thread', 3), *names('group', 2), *names('secret', 2),
            *names('mon', 2))}

    def chardev(self):
        label = self.name('chr', 2)
        if self.random.random() < 0.5:
            return 'chardev-remove', {'id': label}
        backend = self.pick(
            {'type': 'null', 'data': {}},
            {'type': 'socket', 'data': {'server': True, 'wait': False, 'addr': {
                'type': 'unix', 'data': {
                    'path': str(TEST_DIR / f'{label}.sock')}}}})
        return 'chardev-add', {'id': label, 'backend': backend}

    def qom(self):
        path = self.pick('/objects', '/chardevs', '/objects/thread0',
                         '/objects/group0', '/objects/secret0', 'thread1',
                         '/objects/mon0')
        if self.random.random() < 0.5:
            return 'qom-list', {'path': path}
        if self.random.random() < 0.5:
            return 'qom-list-get', {'paths': [path, '/objects']}
        return 'qom-set', {'path': '/objects/group0', 'property': 'limits',
                           'value': {'iops-total': self.pick(0, 500, 5000)}}

    # ---- what is in images ----

    def snapshot(self):
        if self.random.random() < 0.5:
            return 'blockdev-snapshot-internal-sync', {
                'device': self.node(), 'name': self.name('snap', 3)}
        return 'blockdev-snapshot-delete-internal-sync', {
            'device': self.node(), 'name': self.name('snap', 3)}

    def bitmap(self):
        target = {'node': self.node(), 'name': self.name('bitmap', 3)}
        verb = self.pick('add', 'add', 'remove', 'clear', 'enable', 'disable',
                         'merge', 'sha256')
        if verb == 'add':
            target['persistent'] = self.pick(True, False)
        elif verb == 'merge':
            target = {'node': target['node'], 'target': target['name'],
                      'bitmaps': [self.name('bitmap', 3), {
                          'node': self.node(), 'name': self.name('bitmap', 3)}]}
        elif verb == 'sha256':
            return 'x-debug-block-dirty-bitmap-sha256', target
        return f'block-dirty-bitmap-{verb}', target

    def transaction(self):
        actions = []
        for _ in range(self.random.randrange(1, 4)):
            make = self.pick(self.bitmap, self.bitmap, self.snapshot)
            name, arguments = make()
            if name.startswith('block-dirty') or name.endswith('nal-sync') \
                    and 'delete' not in name:
                actions.append({'type': name, 'data': arguments})
        if self.random.random() < 0.2:
            actions.append({'type': 'abort', 'data': {}})
        return 'transaction', {'actions': actions}

    def create(self):
        if self.random.random() < 0.5:
            options = {'driver': 'file', 'size': SIZE,
                       'filename': str(TEST_DIR / self.name('new', 2))}
        else:
            options = {'driver': 'qcow2', 'file': self.node(),
                       'size': self.pick(MIB, SIZE)}
        return 'blockdev-create', {'job-id': self.name('job', 2),
                                   'options': options}

    def job(self):
        return self.pick('job-dismiss', 'job-dismiss', 'job-cancel',
                         'job-pause', 'job-resume'), {
                             'id': self.name('job', 2)}

    def query(self):
        return self.pick('query-block-exports', 'query-named-block-nodes',
                         'query-jobs', 'query-chardev'), {}


class Peer(threading.Thread):
    """One monitor's client: sends a batch, reads its replies; sometimes it
    goes away and comes back instead."""

    def __init__(self, path, seed, count):
        super().__init__(daemon=True)
        self.path = path
        self.commands = Commands(seed)
        self.random = random.Random(f'{seed} too')
        self.count = count
        self.replies = {'return': 0, 'error': 0}
        self.failure = None

    def run(self):
        try:
            self.work()
        except Exception as err:        # pylint: disable=broad-except
            self.failure = f'{type(err).__name__}: {err}'

    def work(self):
        client = None
        while self.count > 0:
            if client is None:
                client = QMPClient.connect(self.path, timeout=60)
            batch = self.commands.batch()
            self.count -= len(batch)
            client.send(''.join(json.dumps(
                {'execute': name, 'arguments': arguments, 'id': number})
                                for number, (name, arguments)
                                in enumerate(batch)))
            if self.random.random() < 0.03:
                client.close()
                client = None
                continue
            for number, command in enumerate(batch):
                reply = client.reply()
                if reply.get('id') != number:
                    raise TestFailure(f'{command}: {reply}')
                kind = 'error' if 'error' in reply else 'return'
                self.replies[kind] += 1
            client.events.clear()
        if client:
            client.close()


def use_file(seed):
    """What a client does, for as long as it may."""
    os.closerange(3, 4096)      # a monitor's client who leaves must be gone
    rand = random.Random(seed)
    fd = None
    while True:
        try:
            if fd is None:
                path = TEST_DIR / rand.choice(names('mnt', 4))
                fd = os.open(path, os.O_RDWR)
            offset = rand.randrange(SIZE)
            what = rand.randrange(40)
            if what < 18:
                os.pread(fd, rand.randrange(1, 65536), offset)
            elif what < 36:
                os.pwrite(fd, b'x' * rand.randrange(1, 65536), offset)
            elif what < 39:
                os.fsync(fd)
            else:
                os.close(fd)
                fd = None
        except OSError:
            if fd is not None:
                try:
                    os.close(fd)
                except OSError:
                    pass
                fd = None


class Clients:
    """Processes that use the files, one of which vanishes now and then."""

    def __init__(self, seed):
        self.random = random.Random(f'{seed} clients')
        self.pids = []

    def fill(self):
        while len(self.pids) < CLIENTS:
            seed = self.random.random()
            pid = os.fork()
            if pid == 0:
                use_file(seed)
            self.pids.append(pid)

    def kill(self, count):
        for _ in range(count):
            pid = self.pids.pop(0)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def make_files():
    for name in SPOILT:
        make_image(name, SIZE)
    for name in QCOW2:
        qsd_img('create', '-q', '-f', 'qcow2', TEST_DIR / name, str(SIZE))
    for name in names('mnt', 4):
        (TEST_DIR / name).touch()


def check_files():
    for name in QCOW2:
        qsd_img('check', '-q', '-f', 'qcow2', TEST_DIR / name)


def make_seed():
    return os.environ.get('QMP_STORM_SEED') \
        or str(int.from_bytes(os.urandom(4), 'little'))


class StormDaemon(StorageDaemon):
    """It has to say, by status 1, what it could not write to a spoilt image."""

    def stop(self, number=signal.SIGTERM, timeout=30, status=0):
        if self.process.poll() is None:
            self.process.send_signal(number)
        if self.wait(timeout) == 1 and \
                'Marking image as corrupt' in self.stderr():
            status = 1
        super().stop(number, timeout, status)


def daemon_and_peers(seed, count):
    """A daemon that is not started yet, and the clients of its monitors."""
    paths = [TEST_DIR / f'storm{i}.sock' for i in range(MONITORS)]
    args = []
    for name in names('thread', 3):
        args += ['--object', f'iothread,id={name}']
    args += ['--object', 'throttle-group,id=group0']
    for i, path in enumerate(paths):
        args += ['--chardev', f'socket,id=storm{i},path={path},server=on,'
                 'wait=off', '--monitor', f'storm{i}']
    return StormDaemon(*args), [Peer(path, f'{seed} {i}', count)
                                for i, path in enumerate(paths)]


def storm(count):
    """@count commands from each monitor; fails with the seed in its text.

    QMP_STORM_SEED repeats the commands (not what happens between them).
    """
    seed = make_seed()
    make_files()
    clients = Clients(seed)
    try:
        daemon, peers = daemon_and_peers(seed, count)
        with daemon as qsd:
            for peer in peers:
                peer.start()
            while any(peer.is_alive() for peer in peers):
                clients.fill()
                for peer in peers:
                    peer.join(0.1)
                clients.kill(1)
            for peer in peers:
                if peer.failure:
                    raise TestFailure(peer.failure)
                if not all(peer.replies.values()):
                    raise TestFailure(f'only {peer.replies}')
            check_equal('it still answers', qsd.cmd('query-version').keys(),
                        {'qemu', 'package'})
            clients.fill()              # it ends while they are at it
        check_equal('left mounted', left_mounts(), [])
        check_files()
    except (TestFailure, OSError, EOFError) as err:
        raise TestFailure(f'{err} (QMP_STORM_SEED={seed})') from err
    finally:
        clients.kill(len(clients.pids))


def end_in_storm(rounds):
    """SIGTERM in the middle of it: status 0, and nothing is left mounted."""
    seed = make_seed()
    clients = Clients(seed)
    try:
        for number in range(rounds):
            make_files()
            daemon, peers = daemon_and_peers(f'{seed} {number}', 1 << 30)
            with daemon as qsd:
                wanted = clients.random.randrange(10, 150)
                for peer in peers:
                    peer.start()
                clients.fill()
                wait_for(lambda peers=peers, wanted=wanted: sum(
                    sum(peer.replies.values()) for peer in peers) > wanted or
                    any(peer.failure for peer in peers), 'replies')
                failures = [peer.failure for peer in peers if peer.failure]
                check_equal('failures', failures, [])
                qsd.stop()
            for peer in peers:
                peer.join()
            check_equal('left mounted', left_mounts(), [])
            check_files()
            clients.kill(1)
    except (TestFailure, OSError) as err:
        raise TestFailure(f'{err} (QMP_STORM_SEED={seed})') from err
    finally:
        clients.kill(len(clients.pids))
