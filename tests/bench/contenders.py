# SPDX-License-Identifier: MIT
"""What is compared: servers, each of which puts one disk on a mount point.

A contender is SERVER:DISK, such as own-ring:raw; the servers that do nothing
have no disk, and go by their name alone.  Both tables are data: a further image
format is one more entry of DISKS, and is used with every daemon that knows its
driver.
"""

import contextlib
import dataclasses
import glob
import itertools
import os
import shutil
import signal
import subprocess
import time

IOTHREADS = ['--object', 'iothread,id=io0', '--object', 'iothread,id=io1']


@dataclasses.dataclass(frozen=True)
class Server:
    about: str
    program: str                    # 'own', 'reference' or 'null'
    options: tuple = ()             # of the program
    export: str = ''                # options of the export


SERVERS = {
    'null-ring': Server('does nothing: io_uring, 2 threads that follow their '
                        'clients', 'null', ('--mode=uring', '--adapt')),
    'null-dev': Server('does nothing: /dev/fuse, 2 threads', 'null',
                       ('--mode=dev',)),
    'own-ring': Server('this daemon, io-uring=on, 2 IOThreads', 'own',
                       tuple(IOTHREADS),
                       ',iothread.0=io0,iothread.1=io1,io-uring=on'),
    'own-dev': Server('this daemon, io-uring=off, 2 IOThreads', 'own',
                      tuple(IOTHREADS),
                      ',iothread.0=io0,iothread.1=io1,io-uring=off'),
    'ref': Server("the reference daemon, in its main thread", 'reference'),
    'ref-1io': Server('the reference daemon, 1 IOThread', 'reference',
                      tuple(IOTHREADS[:2]), ',iothread=io0'),
    'ref-2io': Server('the reference daemon, 2 IOThreads (where it '
                      'takes several)', 'reference', tuple(IOTHREADS),
                      ',iothread.0=io0,iothread.1=io1'),
}


@dataclasses.dataclass(frozen=True)
class Disk:
    """{image}, {size} and {options} (of the file node) are replaced; the node
    that is exported is called disk."""
    about: str
    blockdevs: tuple
    image: str = ''                 # 'raw' or an image format of qemu-img
    # How it comes about.  full: filled once.  new: made anew, and empty, for
    # each measurement, and so much larger that most writes allocate.
    # sparse: made once, 20 times as large, with all tables but no data.
    kind: str = 'full'


FILE = 'driver=file,node-name=file0,filename={image}{options}'

DISKS = {
    'null-co': Disk('no image: reads return nothing, writes are dropped',
                    ('driver=null-co,node-name=disk,size={size},'
                     'read-zeroes=off',)),
    'raw': Disk('raw image, fully allocated',
                (FILE, 'driver=raw,node-name=disk,file=file0'), 'raw'),
    'qcow2': Disk('qcow2 image, fully allocated',
                  (FILE, 'driver=qcow2,node-name=disk,file=file0'), 'qcow2'),
    'qcow2-new': Disk('empty qcow2 image, so that writes allocate',
                      (FILE, 'driver=qcow2,node-name=disk,file=file0'),
                      'qcow2', 'new'),
    'raw-20x': Disk('raw image of 20 times the size, a hole',
                    (FILE, 'driver=raw,node-name=disk,file=file0'),
                    'raw', 'sparse'),
    'qcow2-20x': Disk('qcow2 image of 20 times the size, with all tables '
                      'but no data',
                      (FILE, 'driver=qcow2,node-name=disk,file=file0'),
                      'qcow2', 'sparse'),
}


class Unavailable(Exception):
    """The contender cannot run here; the text says why."""


class Hangs(Unavailable):
    """It does not answer any more, and has been ended."""


@dataclasses.dataclass(frozen=True)
class Contender:
    server: str
    disk: str                       # '' for those that do nothing

    @property
    def name(self):
        return f'{self.server}:{self.disk}' if self.disk else self.server

    @property
    def about(self):
        text = SERVERS[self.server].about
        return f'{text}; {DISKS[self.disk].about}' if self.disk else text


def everybody():
    """All contenders, those side by side that have the same disk."""
    nothing = [Contender(name, '') for name, server in SERVERS.items()
               if server.program == 'null']
    return nothing + [Contender(name, disk) for disk in DISKS
                      for name, server in SERVERS.items()
                      if server.program != 'null']


def program(kind, reference):
    """The path of a program, looked up as its kind wants it."""
    path = {'own': os.environ.get('QSD_PROG', ''),
            'null': os.environ.get('NULLFUSE_PROG', ''),
            'reference': reference or shutil.which('qemu-storage-daemon')
            or ''}[kind]
    if not path or not os.access(path, os.X_OK):
        raise Unavailable(f'no program {path or "found"}')
    return path


class Images:
    """The image files, in a scratch folder; made when they are needed."""

    def __init__(self, scratch, mib):
        self.scratch = scratch
        self.bytes = mib << 20

    def path(self, disk):
        """Of the image for @disk, ready for a measurement."""
        image, kind = DISKS[disk].image, DISKS[disk].kind
        if not image:
            return ''
        path = os.path.join(self.scratch, f'{kind}.{image}')
        if kind == 'new':
            self.need(path, 8)
            qemu_img('create', '-q', '-f', image, path, str(8 * self.bytes))
        elif not os.path.exists(path):
            if kind == 'sparse':
                self.need(path, 20)
                tables = 'off' if image == 'raw' else 'metadata'
                qemu_img('create', '-q', '-f', image, '-o',
                         f'preallocation={tables}', path,
                         str(20 * self.bytes))
            else:
                self.fill(path, image)
        return path

    def need(self, path, factor):
        """Make room for an image that may grow to so many times the size."""
        if os.path.exists(path):
            os.unlink(path)
        stat = os.statvfs(self.scratch)
        size = (factor + 1) * self.bytes
        if stat.f_bavail * stat.f_frsize < size:
            raise Unavailable(f'less than {size >> 20} MiB free in '
                              f'{self.scratch}')

    def fill(self, path, image):
        """Whatever its format, an image is written front to back, 1 MiB at a
        time, and stays in the page cache as it is then: in larger pieces of
        memory single writes of 4 KiB take several times as long."""
        if image == 'raw':
            data = iter(lambda: os.urandom(1 << 20), None)
            pieces = itertools.islice(data, self.bytes >> 20)
            self.write(path, pieces)
            return
        made = f'{path}.made'
        qemu_img('convert', '-f', 'raw', '-O', image, self.path('raw'), made)
        with open(made, 'rb') as file:
            self.write(path, iter(lambda: file.read(1 << 20), b''))
        os.unlink(made)

    @staticmethod
    def write(path, pieces):
        with open(path, 'wb', buffering=0) as file:
            for piece in pieces:
                file.write(piece)
            os.fsync(file.fileno())


def qemu_img(*args):
    program_path = os.environ.get('QEMU_IMG_PROG') or shutil.which('qemu-img')
    if not program_path:
        raise Unavailable('no qemu-img to make the image')
    result = subprocess.run([program_path, *args], capture_output=True,
                            text=True, check=False)
    if result.returncode:
        raise Unavailable(result.stderr.strip())


def command(contender, path, image, mountpoint, args):
    """The contender's command line.  @args has image_options,
    export_options (for this daemon), and the size in MiB."""
    server = SERVERS[contender.server]
    argv = [path, *server.options]
    size = args.size << 20
    if server.program == 'null':
        return argv + ['--threads=2', f'--size={size}', mountpoint]
    for text in DISKS[contender.disk].blockdevs:
        argv += ['--blockdev', text.format(image=image, size=size,
                                           options=args.image_options)]
    export = f'type=fuse,id=e,node-name=disk,mountpoint={mountpoint}' \
        f',writable=on{server.export}'
    if server.program == 'own':
        export += args.export_options
    return argv + ['--export', export]


class Process:
    """A running contender."""

    def __init__(self, process):
        self.process = process

    def kill(self):
        self.process.kill()

    def cpu_seconds(self):
        """Of all its threads; to the nanosecond where the kernel tells."""
        total = 0
        for path in glob.glob(f'/proc/{self.process.pid}/task/*/schedstat'):
            try:
                with open(path, encoding='utf-8') as file:
                    total += int(file.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue                # has just ended
        if total:
            return total / 1e9
        path = f'/proc/{self.process.pid}/stat'
        with open(path, encoding='utf-8') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def rss_kib(self):
        path = f'/proc/{self.process.pid}/status'
        with open(path, encoding='utf-8') as status:
            for line in status:
                if line.startswith('VmRSS:'):
                    return int(line.split()[1])
        return 0


def mounts_at(mountpoint):
    """How many there are: a look at the file itself could wait forever."""
    with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
        return sum(line.split()[4] == mountpoint for line in mounts)


def wait_mounted(mountpoint, before, process, errors):
    """Until there is one more mount at @mountpoint."""
    deadline = time.monotonic() + 20
    while mounts_at(mountpoint) == before:
        if process.poll() is not None:
            errors.seek(0)
            text = errors.read().strip().splitlines()
            raise Unavailable(text[-1] if text
                              else f'exit status {process.returncode}')
        if time.monotonic() > deadline:
            raise Unavailable('does not mount')
        time.sleep(0.01)


@contextlib.contextmanager
def serve(contender, images, args):
    """Run a contender; yields (Process, mount point)."""
    path = program(SERVERS[contender.server].program, args.reference)
    image = images.path(contender.disk) if contender.disk else ''
    os.sync()                       # the last one's writes are not ours
    mountpoint = os.path.join(images.scratch, 'export')
    with open(mountpoint, 'ab'):
        pass
    before = mounts_at(mountpoint)
    with open(os.path.join(images.scratch, 'errors'), 'w+',
              encoding='utf-8') as errors:
        process = subprocess.Popen(
            command(contender, path, image, mountpoint, args),
            stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            wait_mounted(mountpoint, before, process, errors)
            yield Process(process), mountpoint
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if mounts_at(mountpoint) > before:
                subprocess.run(['umount', '-l', mountpoint], check=False,
                               capture_output=True)
