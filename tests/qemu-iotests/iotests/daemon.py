# SPDX-License-Identifier: MIT
"""The daemon under test, and a disk image exported as a file."""

import contextlib
import glob
import os
import signal
import subprocess

from .env import (BLOCKDEV_AIO, HAS_IO_URING, HAS_IOTHREAD_LIST, IMGFMT,
                  QSD_PROG, TEST_DIR, TIMEOUT_FACTOR, TRANSPORT)
from .host import from_format, is_mountpoint, make_image, to_format
from .qmp import QMPClient
from .testing import TestFailure, filter_text, wait_for

__all__ = ['StorageDaemon', 'Export', 'exported', 'export_option',
           'iothread_options', 'run_daemon', 'check_transport', 'mounter_of',
           'is_gone']


def run_daemon(*args, timeout=30, program=QSD_PROG, **kwargs):
    """Run the daemon until it ends by itself: (status, stdout, stderr)."""
    result = subprocess.run([program, *map(str, args)], cwd=TEST_DIR,
                            stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, check=False,
                            timeout=timeout * TIMEOUT_FACTOR, **kwargs)
    return result.returncode, result.stdout, result.stderr


def environment(changes):
    """This process's, with @changes; sanitizers' options are added to."""
    env = dict(os.environ, **changes)
    for name in changes:
        if name.endswith('SAN_OPTIONS') and name in os.environ:
            env[name] = f'{os.environ[name]}:{changes[name]}'
    return env


def mounter_of(daemon):
    """The mounter among a daemon's children; None if there is none."""
    for path in glob.glob('/proc/[0-9]*/stat'):
        try:
            with open(path, encoding='utf-8') as stat:
                name, fields = stat.read().rsplit(')', 1)
        except OSError:
            continue
        state, parent = fields.split()[:2]
        if int(parent) == daemon and state != 'Z' and \
                name.endswith('(qsd-mounter'):
            return int(name.split()[0])
    return None


def is_gone(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] in 'ZX'
    except OSError:
        return True


class StorageDaemon:
    """A daemon that runs while the `with` block does, with a QMP monitor.

    Entering returns once the daemon is up (its pidfile exists); leaving
    sends SIGTERM and fails the test unless the daemon ends in time with
    status 0.
    """

    def __init__(self, *args, name='qsd', qmp=True, wrapper=(), env=None,
                 pass_fds=(), stdin=subprocess.DEVNULL):
        self.name = name
        self.pidfile = TEST_DIR / f'{name}.pid'
        self.socket_path = TEST_DIR / f'{name}.sock'
        self.stderr_path = TEST_DIR / f'{name}.stderr'
        self.argv = [*map(str, wrapper), QSD_PROG]
        if qmp:
            self.argv += ['--chardev', f'socket,id=qmp,path={self.socket_path}'
                          ',server=on,wait=off', '--monitor', 'chardev=qmp']
        self.argv += map(str, args)
        self.argv += ['--pidfile', str(self.pidfile)]
        self.has_qmp = qmp
        self.popen_args = {'pass_fds': pass_fds, 'stdin': stdin,
                           'env': environment(env or {})}
        self.process = None
        self.qmp = None

    def start(self):
        """Start and wait until every option has been carried out."""
        with open(self.stderr_path, 'wb') as stderr:
            self.process = subprocess.Popen(
                self.argv, cwd=TEST_DIR, stderr=stderr, stdout=stderr,
                **self.popen_args)
        wait_for(self.is_up, 'the daemon to start', timeout=30)
        if self.has_qmp:
            self.qmp = QMPClient.connect(self.socket_path)
        return self

    def is_up(self):
        if self.process.poll() is not None:
            raise TestFailure(f'daemon: status {self.process.returncode}: '
                              f'{self.stderr()}')
        return self.pidfile.exists()

    @property
    def pid(self):
        return int(self.pidfile.read_text())

    def stderr(self):
        return filter_text(self.stderr_path.read_text(errors='replace'))

    def wait(self, timeout=30):
        """Wait for the daemon to end by itself; returns its status."""
        try:
            return self.process.wait(timeout * TIMEOUT_FACTOR)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TestFailure(f'the daemon did not end in {timeout} s') \
                from None

    def stop(self, number=signal.SIGTERM, timeout=30, status=0):
        """End the daemon by a signal; it must take the clean way out."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        actual = self.wait(timeout)
        if actual != status:
            raise TestFailure(f'daemon: status {actual}: {self.stderr()}')
        if status == 0 and self.pidfile.exists():
            raise TestFailure('the daemon left its pidfile')

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            mounter = self.mounter
            self.process.kill()
            self.process.wait(30 * TIMEOUT_FACTOR)
            if mounter:
                wait_for(lambda: is_gone(mounter), 'the mounter to end')

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind, value, traceback):
        if self.qmp is not None:
            self.qmp.close()
        if kind is None:
            self.stop()
        else:
            self.kill()
            print(self.stderr(), end='')

    def cmd(self, name, /, **arguments):
        return self.qmp.cmd(name, **arguments)

    def log_cmd(self, name, /, **arguments):
        return self.qmp.log_cmd(name, **arguments)

    def wait_event(self, name, **kwargs):
        return self.qmp.wait_event(name, **kwargs)

    def status_field(self, name):
        """A field of /proc/PID/status, such as VmRSS (in KiB)."""
        path = f'/proc/{self.process.pid}/status'
        with open(path, encoding='utf-8') as status:
            for line in status:
                if line.startswith(name + ':'):
                    return int(line.split()[1])
        raise TestFailure(f'no {name} in {path}')

    def cpu_seconds(self):
        path = f'/proc/{self.process.pid}/stat'
        with open(path, encoding='utf-8') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    @property
    def mounter(self):
        """The process id of the daemon's mounter; None if it has ended."""
        return mounter_of(self.process.pid)

    def fd_count(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))


def transport_option(transport=TRANSPORT):
    """What an export's options say about the transport."""
    if not HAS_IO_URING:
        return ''
    return ',io-uring=on' if transport == 'fuse-uring' else ',io-uring=off'


def iothread_options(count):
    """(--object options, export options) for @count IOThreads."""
    if count == 0 or not HAS_IOTHREAD_LIST:
        return [], ''
    objects, export = [], ''
    for number in range(count):
        objects += ['--object', f'iothread,id=io{number}']
        export += f',iothread.{number}=io{number}'
    return objects, export


def export_option(mountpoint, *, node='disk', ident='exp', writable=True,
                  growable=False, extra=''):
    """An --export option's argument, on the transport under test."""
    text = f'type=fuse,id={ident},node-name={node},mountpoint={mountpoint}'
    text += ',writable=on' if writable else ''
    text += ',growable=on' if growable else ''
    return text + transport_option() + extra


class Export:
    """A disk image as a file: what exported() yields."""

    def __init__(self, path, image, qsd, disk_file=None):
        self.path = path        # the file to work on
        self.image = image      # the raw image; of another format: afterwards
        self.qsd = qsd          # the daemon, or None for a plain file
        self.disk_file = disk_file or image     # what the daemon opened

    def image_bytes(self):
        """What the image holds now, once everything is flushed."""
        with self.open(os.O_RDONLY) as fd:
            os.fsync(fd)
        if self.disk_file == self.image:
            return self.image.read_bytes()
        copy = TEST_DIR / 'image-bytes'
        from_format(self.disk_file, copy, live=True)
        return copy.read_bytes()

    @contextlib.contextmanager
    def open(self, flags=os.O_RDWR):
        fd = os.open(self.path, flags)
        try:
            yield fd
        finally:
            os.close(fd)


@contextlib.contextmanager
def exported(image=None, *, size=64 << 20, writable=True, growable=False,
             iothreads=2, node_options='', raw_options='', export_extra='',
             mountpoint=None, name='qsd', args=(), env=None):
    """Export @image (default: a new one of @size bytes) as a file.

    With the transport `file` the image itself is the file, which shows what
    a plain file would have done.  With a format other than raw the daemon gets
    a converted copy of @image, which is checked and converted back at the end.
    """
    if image is None:
        image = make_image(f'{name}.img', size)
    if TRANSPORT == 'file':
        yield Export(image, image, None)
        return
    if mountpoint is None:
        mountpoint = TEST_DIR / f'{name}.export'
        mountpoint.touch()
    disk_file = to_format(image)
    objects, export_iothreads = iothread_options(iothreads)
    read_only = '' if writable else ',read-only=on'
    daemon = StorageDaemon(
        *objects,
        '--blockdev', f'driver=file,node-name=file0,filename={disk_file}'
        f'{read_only}{BLOCKDEV_AIO}{node_options}',
        '--blockdev', f'driver={IMGFMT},node-name=disk,file=file0'
        f'{read_only}{raw_options}',
        '--export', export_option(mountpoint, writable=writable,
                                  growable=growable,
                                  extra=export_iothreads + export_extra),
        *args, name=name, env=env)
    with daemon:
        check_transport(daemon)
        yield Export(mountpoint, image, daemon, disk_file)
    if disk_file != image:
        from_format(disk_file, image)
    if is_mountpoint(mountpoint):
        raise TestFailure(f'{mountpoint} is still mounted')


def check_transport(daemon):
    """The export must really use the transport that the test is about."""
    if not HAS_IO_URING:
        return
    for export in daemon.cmd('query-block-exports'):
        if export.get('io-uring', False) != (TRANSPORT == 'fuse-uring'):
            raise TestFailure(f'wrong transport: {export}')
