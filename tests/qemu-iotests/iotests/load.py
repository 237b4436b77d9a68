# SPDX-License-Identifier: MIT
"""Load that knows what it was promised: what an fsync() covered must be there
afterwards, whatever happened to the daemon.
"""

import contextlib
import mmap
import os
import signal
import struct
import time

from .env import TEST_DIR, TIMEOUT_FACTOR
from .testing import TestFailure, errno_name, wait_for

__all__ = ['Load', 'loaded', 'limit_gap', 'descriptors', 'mount_count',
           'in_request']

BLOCK = 4096
BLOCKS = 32             # of each writer's own
FSYNC_EVERY = 8


def block_of(job, sequence):
    """A block's content: who wrote it, and when."""
    return struct.pack('<QQ', job, sequence) * (BLOCK // 16)


class Load:
    """Writers of 4 KiB blocks, each with 128 KiB of the file to itself.

    They end by themselves when I/O fails.  What they have done stands in
    memory shared with them: for each writer how many blocks are written,
    and how many of these an fsync() has covered.
    """

    def __init__(self, path, jobs=4):
        self.path = path
        self.jobs = jobs
        self.size = jobs * BLOCKS * BLOCK
        # Not by struct, which writes zeroes first: a kill may come between.
        self.shared = memoryview(mmap.mmap(-1, 16 * jobs)).cast('Q')
        self.pids = {}          # of writers not waited for: number
        self.errors = set()     # names of what writers ended with

    def written(self, job):
        return self.shared[2 * job]

    def flushed(self, job):
        return self.shared[2 * job + 1]

    def total(self):
        return sum(self.written(job) for job in range(self.jobs))

    def start(self, wait=True):
        for job in range(self.jobs):
            pid = os.fork()
            if pid == 0:
                self.child(job)
            self.pids[pid] = job
        if wait:
            self.wait_progress('load to start')
        return self

    def child(self, job):
        """One writer; never returns.  Its status is an errno."""
        status = 255
        try:
            # However the test ends, the writer does as well.
            signal.alarm(int(120 * TIMEOUT_FACTOR))
            self.write(job)
        except OSError as err:
            status = err.errno
        finally:
            os._exit(status)

    def write(self, job):
        fd = os.open(self.path, os.O_RDWR)
        sequence = 0
        while True:
            sequence += 1
            offset = (job * BLOCKS + sequence % BLOCKS) * BLOCK
            data = block_of(job, sequence)
            if os.pwrite(fd, data, offset) != BLOCK or \
                    os.pread(fd, BLOCK, offset) != data:
                os._exit(254)
            self.shared[2 * job] = sequence
            if sequence % FSYNC_EVERY == 0:
                os.fsync(fd)
                self.shared[2 * job + 1] = sequence

    def wait_progress(self, what='load to go on', timeout=30):
        """Wait until each writer has had something flushed since now."""
        goals = [self.written(job) + 2 * FSYNC_EVERY
                 for job in range(self.jobs)]

        def progress():
            self.reap()
            if len(self.pids) < self.jobs:
                raise TestFailure(f'waiting for {what}: writers ended with '
                                  f'{sorted(self.errors)}')
            return all(self.flushed(job) >= goal
                       for job, goal in enumerate(goals))
        wait_for(progress, what, timeout=timeout)

    def reap(self):
        """Collect the writers that have ended."""
        for pid in list(self.pids):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.pids[pid]
                code = os.waitstatus_to_exitcode(status)
                self.errors.add({254: 'wrong data', 255: 'exception'}
                                .get(code, errno_name(code)))
        return not self.pids

    def wait(self, timeout=30):
        """Wait until all writers have failed; returns their errors' names."""
        wait_for(self.reap, 'writers to end', timeout=timeout)
        return sorted(self.errors)

    def stop(self, timeout=30):
        """Kill what still runs."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(self.reap, 'killed writers to end', timeout=timeout)

    def check(self, path):
        """@path must hold all that was flushed, and nothing foreign."""
        data = path.read_bytes()
        for job in range(self.jobs):
            flushed, written = self.flushed(job), self.written(job)
            for index in range(BLOCKS):
                offset = (job * BLOCKS + index) * BLOCK
                found = struct.unpack_from('<QQ', data, offset)
                # The last sequence number flushed to this block.
                least = flushed - (flushed - index) % BLOCKS
                if least < 1 and found == (0, 0):
                    continue
                if found[0] != job or not least <= found[1] <= written + 1 \
                        or found[1] % BLOCKS != index:
                    raise TestFailure(
                        f'writer {job}, block {index}: {found} found; '
                        f'{flushed} flushed, {written} written')


@contextlib.contextmanager
def loaded(path, jobs=4):
    """Load while the `with` block runs."""
    load = Load(path, jobs)
    try:
        yield load.start()
    finally:
        load.stop()


# ---- what must not grow ----

def descriptors(qsd):
    """What the daemon's descriptors are, sorted, without numbers."""
    folder = f'/proc/{qsd.process.pid}/fd'
    names = []
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f'{folder}/{name}').split(':')[0])
    return sorted(names)


def mount_count():
    """How many mounts this test has; others come and go."""
    with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
        return sum(line.split()[4].startswith(f'{TEST_DIR}/')
                   for line in mounts)


def limit_gap(start, seconds, what):
    """Fail if more time has passed since @start than it may take."""
    passed = time.monotonic() - start
    if passed > seconds * TIMEOUT_FACTOR:
        raise TestFailure(f'{what} took {passed:.1f} s')


def in_request(pid):
    """Is this process inside of a FUSE request (other than to open the file)?

    Only root may ask.
    """
    try:
        with open(f'/proc/{pid}/stack', encoding='ascii') as stack:
            calls = stack.read()
            return 'fuse_' in calls and 'openat' not in calls
    except OSError:
        return False
