# SPDX-License-Identifier: MIT
"""The servers that are compared: each puts one file on a mount point."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

# name: (what it is, which program, its kind)
CONTENDERS = {
    'own-ring': 'this daemon, io-uring=on, 2 IOThreads',
    'own-dev': 'this daemon, io-uring=off, 2 IOThreads',
    'debian': 'the qemu-storage-daemon of the system',
    'null-ring': 'do-nothing server, io_uring, 2 threads',
    'null-dev': 'do-nothing server, /dev/fuse, 2 threads',
}


class Unavailable(Exception):
    """The contender cannot run here; the text says why."""


def program(name, debian):
    """The program of a contender."""
    if name.startswith('own'):
        path = os.environ.get('QSD_PROG', '')
    elif name == 'debian':
        path = debian or shutil.which('qemu-storage-daemon') or ''
    else:
        path = os.environ.get('NULLFUSE_PROG', '')
    if not path or not os.access(path, os.X_OK):
        raise Unavailable(f'no program {path or "found"}')
    return path


def command(name, path, image, mountpoint, image_options, export_options):
    """The contender's command line."""
    if name.startswith('null'):
        mode = 'uring' if name == 'null-ring' else 'dev'
        return [path, f'--mode={mode}', '--threads=2',
                f'--size={os.stat(image).st_size}', mountpoint]
    argv = [path]
    export = f'type=fuse,id=e,node-name=disk,mountpoint={mountpoint}' \
        ',writable=on'
    if name.startswith('own'):
        argv += ['--object', 'iothread,id=io0', '--object', 'iothread,id=io1']
        export += ',iothread.0=io0,iothread.1=io1,io-uring=' + \
            ('on' if name == 'own-ring' else 'off') + export_options
    return argv + [
        '--blockdev', f'driver=file,node-name=file0,filename={image}'
        f'{image_options}',
        '--blockdev', 'driver=raw,node-name=disk,file=file0',
        '--export', export]


class Server:
    """A running contender."""

    def __init__(self, process):
        self.process = process

    def cpu_seconds(self):
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


def wait_mounted(mountpoint, before, process, errors):
    """Until another file system answers at @mountpoint."""
    deadline = time.monotonic() + 20
    while os.stat(mountpoint).st_dev == before:
        if process.poll() is not None:
            errors.seek(0)
            raise Unavailable(errors.read().strip().splitlines()[-1:])
        if time.monotonic() > deadline:
            raise Unavailable('does not mount')
        time.sleep(0.01)


@contextlib.contextmanager
def serve(name, path, image, scratch, image_options='', export_options=''):
    """Run a contender; yields (Server, mount point)."""
    mountpoint = os.path.join(scratch, 'export')
    with open(mountpoint, 'ab'):
        pass
    before = os.stat(mountpoint).st_dev
    with open(os.path.join(scratch, 'errors'), 'w+', encoding='utf-8') \
            as errors:
        process = subprocess.Popen(
            command(name, path, image, mountpoint, image_options,
                    export_options),
            stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            wait_mounted(mountpoint, before, process, errors)
            yield Server(process), mountpoint
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
            if os.path.ismount(mountpoint) or process.returncode:
                subprocess.run(['umount', '-l', mountpoint], check=False,
                               capture_output=True)
