# SPDX-License-Identifier: MIT
"""Run programs: never without a time limit."""

import os
import shutil
import subprocess

from .env import (QEMU_IMG_PROG, QEMU_IO_PROG, QSD_IMG_PROG, TEST_DIR,
                  TIMEOUT_FACTOR)
from .testing import TestFailure, filter_text, log, skip

__all__ = ['run', 'require_programs', 'qemu_img', 'qemu_io', 'qsd_img',
           'run_log']

# Sanitizers' options are meant for the daemon alone.
CLEAN_ENV = {key: value for key, value in os.environ.items()
             if not key.endswith('SAN_OPTIONS')}


def require_programs(*names):
    """Skip the test if one of the programs is not installed."""
    for name in names:
        if shutil.which(name, path=os.environ.get('PATH', '') +
                        ':/usr/sbin:/sbin') is None:
            skip(f'{name} is not installed')


def run(*argv, timeout=60, check=True, stdin=None, env=None):
    """Run a program; returns the CompletedProcess, output as one text.

    A status other than 0 fails the test unless @check is False.
    """
    argv = [str(arg) for arg in argv]
    environ = dict(CLEAN_ENV, **(env or {}))
    environ['PATH'] = environ.get('PATH', '') + ':/usr/sbin:/sbin'
    try:
        result = subprocess.run(argv, input=stdin, env=environ, text=True,
                                stdin=None if stdin else subprocess.DEVNULL,
                                stdout=subprocess.PIPE, cwd=TEST_DIR,
                                stderr=subprocess.STDOUT, check=False,
                                timeout=timeout * TIMEOUT_FACTOR)
    except subprocess.TimeoutExpired as err:
        output = (err.stdout or b'').decode(errors='replace')
        raise TestFailure(f'{" ".join(argv)}: hung; its output:\n{output}') \
            from None
    if check and result.returncode != 0:
        raise TestFailure(f'{" ".join(argv)}: status {result.returncode}\n'
                          f'{result.stdout}')
    return result


def run_log(*argv, **kwargs):
    """Run a program and log its output and status."""
    result = run(*argv, check=False, **kwargs)
    text = filter_text(result.stdout).rstrip('\n')
    if text:
        print(text, flush=True)
    if result.returncode != 0:
        log(f'{os.path.basename(str(argv[0]))}: status {result.returncode}')
    return result.returncode == 0


def qemu_img(*args, **kwargs):
    return run(QEMU_IMG_PROG, *args, **kwargs).stdout


def qsd_img(*args, **kwargs):
    return run(QSD_IMG_PROG, *args, **kwargs).stdout


def qemu_io(image, *commands, read_only=False, check=True, imgfmt='raw'):
    """Run qemu-io commands on an @image; returns its output.

    qemu-io of old answers status 0 to a failed command, so that the output
    is what tells.
    """
    argv = [QEMU_IO_PROG, '-f', imgfmt]
    if read_only:
        argv.append('-r')
    for command in commands:
        argv += ['-c', command]
    return run(*argv, image, check=check).stdout
