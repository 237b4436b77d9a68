# SPDX-License-Identifier: MIT
"""The daemon's death at random moments, and what must not be left of it."""

import contextlib
import os
import random
import signal
import subprocess
import time

from .daemon import (StorageDaemon, export_option, iothread_options,
                     is_gone)
from .env import SANITIZED, TEST_DIR, TIMEOUT_FACTOR
from .faults import export_arguments
from .host import is_mountpoint, make_image
from .load import in_request
from .testing import TestFailure, errno_name, log, wait_for

__all__ = ['end_at_random', 'Clients', 'check_gone']

NEVER_NS = 10 ** 15
# A sanitizer would take the crashes for its own business.
KILLS = (signal.SIGKILL,) if SANITIZED else (
    signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
END_SECONDS = 2
CUT_OFF = {'ENOTCONN', 'ECONNABORTED', 'EIO', 'ENODEV', 'ECANCELED'}


class Clients:
    """Processes that read and write a file until it fails."""

    def __init__(self, path, count=2):
        # Opened here: a client that is late would find the mount point.  And
        # closed at the end: until then nobody answers that, either.
        self.fd = os.open(path, os.O_RDWR)
        self.pids = [self.start(self.fd, number) for number in range(count)]

    def start(self, fd, number):
        pid = os.fork()
        if pid:
            return pid
        status = 0
        try:
            signal.alarm(int(120 * TIMEOUT_FACTOR))
            while True:
                if number % 2:
                    os.pread(fd, 4096, number * 4096)
                else:
                    os.pwrite(fd, bytes(4096), number * 4096)
                    os.fsync(fd)
        except OSError as err:
            status = err.errno
        finally:
            os._exit(status)

    def wait_stuck(self):
        for pid in self.pids:
            wait_for(lambda: in_request(pid), 'a request')

    def wait(self, timeout):
        """Wait until all have failed as clients do whose server has gone."""
        def ended(pid):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                name = errno_name(os.waitstatus_to_exitcode(status))
                if name not in CUT_OFF:
                    raise TestFailure(f'a client ended with {name}')
            return done
        for pid in self.pids:
            wait_for(lambda: ended(pid), 'a client to end', timeout=timeout)
        with contextlib.suppress(OSError):
            os.close(self.fd)


def check_gone(qsd, mounter, points):
    """The killed daemon, and all that is its, in time."""
    try:
        qsd.process.wait(END_SECONDS * TIMEOUT_FACTOR)
    except subprocess.TimeoutExpired:
        raise TestFailure('the process does not die') from None
    wait_for(lambda: not any(is_mountpoint(point) for point in points),
             'the mounts to go', timeout=END_SECONDS)
    if mounter:
        wait_for(lambda: is_gone(mounter), 'the mounter to go',
                 timeout=END_SECONDS)


def start(qsd, points):
    """Exports of storage that answers, and of storage that never does."""
    qsd.start()
    for node, point in points.items():
        qsd.cmd('block-export-add',
                **export_arguments(point, node=node, ident=node))
    clients = {node: Clients(point) for node, point in points.items()}
    clients['stuck'].wait_stuck()
    return list(clients.values())


def one_round(rng, qsd, points, start_time):
    """Let the daemon come as far as chance wants; returns its clients."""
    moment = rng.choice(('start', 'run', 'deletion', 'exit'))
    if moment == 'start':
        # As far as it gets in up to twice the time that a start takes.
        qsd.process = subprocess.Popen(
            [*qsd.argv, *start_exports(points)], cwd=TEST_DIR,
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            **qsd.popen_args)
        time.sleep(rng.uniform(0, 2 * start_time))
        return []
    clients = start(qsd, points)
    if moment == 'deletion':
        for node in points:
            qsd.qmp.send('{"execute": "block-export-del", "arguments": '
                         f'{{"id": "{node}", "mode": "hard"}}}}\n')
    elif moment == 'exit':
        qsd.process.send_signal(signal.SIGTERM)
    time.sleep(rng.uniform(0, 0.02))
    return clients


def start_exports(points):
    """The same exports as options."""
    return [arg for node, point in points.items()
            for arg in ('--export',
                        export_option(point, node=node, ident=node))]


def end_at_random(rounds):
    """Kill the daemon @rounds times."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    points = {node: TEST_DIR / f'{node}.export' for node in ('disk', 'stuck')}
    for point in points.values():
        point.touch()
    image = make_image('disk.img', 4 << 20)
    objects, _ = iothread_options(2)
    start_time = 0.1
    for number in range(rounds):
        qsd = StorageDaemon(
            *objects, '--blockdev', f'file,node-name=disk,filename={image}',
            '--blockdev', 'null-co,node-name=stuck,size=1048576,'
            f'latency-ns={NEVER_NS}')
        try:
            clients = one_round(rng, qsd, points, start_time)
            mounter = qsd.mounter
            qsd.process.send_signal(rng.choice(KILLS))
            check_gone(qsd, mounter, points.values())
            for group in clients:
                group.wait(END_SECONDS)
        except Exception:
            print(f'seed {seed}, round {number}')
            raise
        finally:
            qsd.kill()
            qsd.pidfile.unlink(missing_ok=True)
    log('killed at random moments: no process, no mount, no client is left')
