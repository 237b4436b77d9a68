#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""without_io_uring.py ERRNO PROGRAM [ARGUMENT...]

Run a program for which io_uring_setup(2) fails with ERRNO, as under the
seccomp filter of a container.
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7fff0000
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
NR_IO_URING_SETUP = 425         # on every architecture


def instruction(code, value, true=0, false=0):
    return struct.pack('<HBBI', code, true, false, value)


def forbid(number):
    program = b''.join((
        instruction(BPF_LOAD_WORD, 0),          # seccomp_data.nr
        instruction(BPF_JUMP_EQUAL, NR_IO_URING_SETUP, 0, 1),
        instruction(BPF_RETURN, SECCOMP_RET_ERRNO | number),
        instruction(BPF_RETURN, SECCOMP_RET_ALLOW)))
    buffer = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack(
        '@HP', len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or \
            libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header):
        raise OSError(ctypes.get_errno(), 'prctl')


def main():
    forbid(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == '__main__':
    main()
