#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the first seeds of the fuzz targets to corpus/.

Seeds that were found by fuzzing stand beside them and are not touched.
"""

import itertools
import struct
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
QMP_INPUT = HERE.parent / 'data' / 'reference' / 'qmp-input.jsonl'

# Opcodes and arguments of include/uapi/linux/fuse.h.
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = \
    1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, LSEEK = \
    20, 25, 26, 36, 38, 42, 43, 46
END = 128 * 1024 + 512          # of the file in fuzz-fuse-ops


def write_in(offset, size):
    return WRITE, struct.pack('<QQIIQII', 0, offset, size, 0, 0, 0, 0), size


def read_in(offset, size):
    return READ, struct.pack('<QQIIQII', 0, offset, size, 0, 0, 0, 0), 0


def setattr_in(valid, size=0, mode=0, uid=0):
    return SETATTR, struct.pack('<IIQQQQQQIIIIIIII', valid, 0, 0, size, 0, 0,
                                0, 0, 0, 0, 0, mode, 0, uid, 0, 0), 0


def fallocate_in(mode, offset, length):
    return FALLOCATE, struct.pack('<QQQII', 0, offset, length, mode, 0), 0


def lseek_in(offset, whence):
    return LSEEK, struct.pack('<QQII', 0, offset, whence, 0), 0


def init_in(major=7, minor=42):
    return INIT, struct.pack('<IIIII11I', major, minor, 131072, 0xffffffff,
                             0xffffffff, *[0] * 11), 0


def plain(opcode, length, payload=0):
    return opcode, bytes(length), payload


FUSE = {
    'attributes': [plain(GETATTR, 16), setattr_in(1, mode=0o400),
                   setattr_in(8, size=1000), setattr_in(8, size=1 << 20),
                   setattr_in(6, uid=7), plain(STATFS, 0)],
    'open': [plain(LOOKUP, 0, 16), plain(OPEN, 8), plain(FLUSH, 24),
             plain(FSYNC, 16), plain(RELEASE, 24), plain(RELEASE, 24),
             plain(FORGET, 8), plain(BATCH_FORGET, 8, 16),
             plain(INTERRUPT, 8), plain(DESTROY, 0)],
    'read': [read_in(0, 4096), read_in(1, 511), read_in(END - 10, 4096),
             read_in(END, 1), read_in(0, 0xffffffff),
             read_in((1 << 64) - 1, 1)],
    'write': [write_in(0, 4096), write_in(3, 16), write_in(END - 100, 4096),
              write_in(END, 512), write_in((1 << 64) - 1, 16),
              (WRITE, write_in(0, 4096)[1], 16)],
    'space': [fallocate_in(3, 5, 10), fallocate_in(16, 100, END),
              fallocate_in(17, END - 1, 4096), fallocate_in(0, END, 65536),
              fallocate_in(1, 0, 4096), fallocate_in(3, (1 << 64) - 1, 1),
              fallocate_in(16, 1, (1 << 64) - 1)],
    # Nothing, at places of all kinds.
    'nothing': [write_in(END, 0), write_in(END + 1, 0), write_in(1 << 62, 0),
                write_in((1 << 64) - 1, 0), read_in(END, 0),
                read_in((1 << 64) - 1, 0), fallocate_in(0, END + 512, 0),
                fallocate_in(16, END + 512, 0), fallocate_in(3, 0, 0),
                fallocate_in(0, (1 << 64) - 1, 0), lseek_in(1 << 62, 4)],
    'lseek': [write_in(65536, 4096), lseek_in(0, 3), lseek_in(0, 4),
              lseek_in(65536, 4), lseek_in(END, 3), lseek_in(0, 0)],
    'init': [init_in(), init_in(), init_in(8), init_in(7, 8),
             (INIT, init_in()[1][:16], 0)],
}


def fuse_ops_seed(flags, requests):
    out = bytes([flags])
    for opcode, argument, payload in requests:
        out += struct.pack('<BBH', opcode, len(argument), -(-payload // 16))
        out += argument
    return out


def fuse_message(number, opcode, argument, payload):
    body = argument + b'd' * min(payload, 512)
    return struct.pack('<IIQQIIII', 40 + len(body), opcode, number + 1, 1, 0,
                       0, 0, 0) + body


def fuse_dev_seed(flags, requests):
    out = bytes([flags])
    for number, request in enumerate(requests):
        message = fuse_message(number, *request)
        out += struct.pack('<BH', number % 4, len(message)) + message
    return out


JSON = {
    'values': '[1, -1, 0, 18446744073709551615, -9223372036854775808, 1e3, '
              '0.1, 1E-400, true, false, null, "x", \'y\', {}, [], {"a": {}}]',
    'strings': '["\\u0000", "\\ud834\\udd1e", "\\ud800", "\\"\\\\\\/\\b\\f\\n'
               '\\r\\t", "\u00e4\u20ac\U0001d11e", \'"\', "\'", "\\\'"]',
    'errors': '{"a":1,} [1 2] {"a"} {1:2} nul 01 1. -x "a\nb" } ] , : {',
    'deep': '[' * 200 + ']' * 200,
    'interpolation': '%p %d {"%s": 1}',
}

KEYVAL = {
    'nested': 'a.b=x,a.c=y,d.0=1,d.1=2,e=,,,f=x,,y',
    'implied': 'value,help,b=1,?',
    'errors': '=x,a.=1,.a=1,a..b=1,1=2,a.0=x,a.2=y,a=1,a.b=2',
    'long': '__org.qemu_x=1,' + '.'.join('a' * 100) + '=1,' + 'b' * 130 +
            '=1,x.' + '9' * 30 + '=1',
}

OPTIONS = {
    '2': ['file,node-name=f,filename=/tmp/x,cache.direct=on,aio=io_uring,'
          'auto-read-only=on,discard=unmap,locking=auto',
          '{"driver": "raw", "node-name": "r", "offset": 512, "size": 1024, '
          '"file": {"driver": "null-co", "size": 4096}}',
          'raw,file.driver=throttle,file.throttle-group=g,'
          'file.file.driver=null-aio,file.file.latency-ns=1,size=1k',
          'driver=host_device,filename=/dev/x,pr-manager=p,x-blockdev=1'],
    '3': ['fuse,id=e,node-name=n,mountpoint=/x,growable=on,writable=on,'
          'allow-other=auto,io-uring=on,queue-depth=8,placement=none,'
          'iothread.0=a,iothread.1=b',
          '{"type": "fuse", "id": "e", "node-name": "n", "mountpoint": "x", '
          '"io-uring": true, "iothread": ["a", "b"]}',
          'type=fuse,id=e,node-name=n,mountpoint=x,iothread=a,io-uring=auto'],
    '4': ['iothread,id=i,poll-max-ns=1000,aio-max-batch=4,'
          'thread-pool-min=1,thread-pool-max=8',
          '{"qom-type": "throttle-group", "id": "t", "limits": '
          '{"iops-total": 100, "bps-read": 1}}',
          'throttle-group,id=t,x-iops-total=10,limits.bps-total=1M'],
    '5': ['chr,mode=control,pretty=on,id=m', 'help'],
    '6': ['socket,id=a,path=/tmp/x,server=on,wait=off,abstract=on,tight=off',
          'socket,id=b,host=::1,port=1234,to=1240,ipv6=on,nodelay,'
          'reconnect-ms=10,logfile=x,logappend=off',
          'stdio,id=c,signal=off', 'file,id=d,path=x,input-path=y,append=on',
          'pipe,id=e,path=a,,b', 'null,id=f,mux=off', 'help', 'socket,help',
          'socket,id=g,fd=3,telnet=on,noserver'],
}


# Operations in fuzz-qcow2
Q_READ, Q_WRITE, Q_ZEROES, Q_DISCARD, Q_FLUSH, Q_STATUS, Q_COMPRESSED, \
    Q_CREATE, Q_DELETE, Q_APPLY, Q_CHECK, Q_REPAIR, Q_TRUNCATE, Q_REOPEN = \
    range(14)


def op(what, where=0, size=0, flags=0):
    return struct.pack('<BBHI', what, flags, size, where)


QCOW2_OPS = {
    'use': [op(Q_READ, 0, 40000), op(Q_STATUS, 0, 65535),
            op(Q_WRITE, 700, 5000), op(Q_WRITE, 20000, 512, 0x80),
            op(Q_ZEROES, 1000, 3000), op(Q_ZEROES, 4096, 8192, 0x80),
            op(Q_FLUSH), op(Q_DISCARD, 2048, 30000), op(Q_READ, 0, 65535),
            op(Q_CHECK)],
    'snapshots': [op(Q_CREATE, 1, 3), op(Q_WRITE, 512, 9000),
                  op(Q_CREATE, 2, 3), op(Q_APPLY, 0, 0), op(Q_READ, 0, 9000),
                  op(Q_WRITE, 30000, 100), op(Q_DELETE, 0, 0),
                  op(Q_REOPEN), op(Q_APPLY, 0, 0), op(Q_DELETE, 0, 0)],
    'change': [op(Q_COMPRESSED, 0, 65535), op(Q_COMPRESSED, 1, 65535, 16),
               op(Q_WRITE, 600, 10), op(Q_READ, 0, 65535),
               op(Q_TRUNCATE, 300000, 0, 4), op(Q_WRITE, 262144, 4000),
               op(Q_TRUNCATE, 400000, 1, 4), op(Q_TRUNCATE, 20000, 0, 4),
               op(Q_REOPEN), op(Q_REPAIR, 0, 3)],
}
QCOW2_WRITES = ['write -P 1 0 3k', 'write -z 10k 2k', 'write -P 2 40k 1k']
# Name: options of qemu-img create, size, what is done, options of the target
QCOW2_IMAGES = {
    'v2': ('cluster_size=512,compat=0.10', '80k', QCOW2_WRITES, 0),
    'v3': ('cluster_size=512', '80k', QCOW2_WRITES, 0),
    'read-only': ('cluster_size=1k', '80k', QCOW2_WRITES, 1),
    'together': ('cluster_size=512', '80k', QCOW2_WRITES, 0x10),
    'lazy': ('cluster_size=1k,lazy_refcounts=on', '80k',
             QCOW2_WRITES + ['abort'], 0x100),
    '4k': ('cluster_size=4k', '1M', QCOW2_WRITES, 0x3820),
    '64k': ('cluster_size=64k', '1M', QCOW2_WRITES[1:], 0x0204),
    '2M': ('cluster_size=2M', '8M', [], 0),
    'rc1': ('cluster_size=512,refcount_bits=1', '80k', QCOW2_WRITES, 0),
    'rc4': ('cluster_size=512,refcount_bits=4', '80k', QCOW2_WRITES, 0x10),
    'rc64': ('cluster_size=512,refcount_bits=64', '80k', QCOW2_WRITES, 0x40),
    'backing': ('cluster_size=512,backing_file=base,backing_fmt=raw', '80k',
                QCOW2_WRITES[1:], 4),
    'name': ('cluster_size=512,backing_file=base,backing_fmt=raw', '80k',
             [], 0x80),
    'data': ('cluster_size=512,data_file=data', '80k', QCOW2_WRITES, 2),
    'raw-data': ('cluster_size=1k,data_file=data,data_file_raw=on', '80k',
                 QCOW2_WRITES, 2),
    'extended': ('cluster_size=16k,extended_l2=on', '200k',
                 ['write -P 1 0 1k', 'write -z 4k 2k', 'write -P 3 100k 512'],
                 4),
    'compressed': ('cluster_size=4k', '64k',
                   ['write -c -P 5 0 4k', 'write -c -P 6 4k 4k'], 0),
    'zstd': ('cluster_size=4k,compression_type=zstd', '64k',
             ['write -c -P 5 0 4k', 'write -c -P 6 4k 4k'], 0x10),
    'aes': ('cluster_size=512,compat=0.10', '80k', QCOW2_WRITES, 0x21),
    'snapshots': ('cluster_size=512', '80k', QCOW2_WRITES, 0,
                  'snapshot -c one', 'snapshot -c two'),
    'bitmaps': ('cluster_size=512', '4M', QCOW2_WRITES, 0,
                'bitmap --add -g 512', 'bitmap --add --disable'),
    'metadata': ('cluster_size=1k,preallocation=metadata', '80k', [], 8),
    'large': ('cluster_size=512', '64M', ['write -P 1 60M 512'], 0x1000),
}


def qcow2_pieces(path, most=48):
    """The sectors with something in them."""
    data = path.read_bytes()
    out = b''
    for number, start in enumerate(range(0, len(data), 512)):
        sector = data[start:start + 512]
        if any(sector) and most:
            most -= 1
            out += struct.pack('<H', number) + sector.ljust(512, b'\0')
    return out


def make_qcow2(folder, options, size, writes, *commands):
    """An image made by QEMU's tools."""
    def run(*args):
        # `abort` is meant to end it before it has closed the image.
        subprocess.run(args, cwd=folder, check='abort' not in args,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    (folder / 'base').write_bytes(b'b' * 30000)
    run('qemu-img', 'create', '-f', 'qcow2', '-o', options, 'image', size)
    for what in writes:
        run('qemu-io', '-f', 'qcow2', '-c', what, 'image')
    for number, command in enumerate(commands):
        name = [str(number)] if command.startswith('bitmap') else []
        run('qemu-img', *command.split(), 'image', *name)
    return folder / 'image'


def endless_qcow2():
    """All of the L1 table leads to two tables of zeroes, by turns."""
    sector, l1_entries = 512, 512
    l1 = struct.pack('>QQ', 3 * sector, 4 * sector) * (l1_entries // 2)
    refcounts = struct.pack('>13H', *[1] * 13)
    header = struct.pack('>IIQIIQIIQQIIQQQQII', 0x514649fb, 3, 0, 0, 9,
                         l1_entries * 64 * sector, 0, l1_entries, 5 * sector,
                         sector, 1, 0, 0, 0, 0, 0, 4, 104)
    parts = [header, struct.pack('>Q', 2 * sector), refcounts,
             struct.pack('>Q', 1) * 64, struct.pack('>Q', 1) * 64]
    parts += [l1[at:at + sector] for at in range(0, len(l1), sector)]
    return b''.join(struct.pack('<H', number) + part.ljust(sector, b'\0')
                    for number, part in enumerate(parts))


def write_qcow2():
    for kind, ops in QCOW2_OPS.items():
        head = struct.pack('<HBB', 0, len(ops), 8)
        write('qcow2', f'endless-{kind}', head + b''.join(ops) +
              endless_qcow2())
    for name, (options, size, writes, flags, *more) in QCOW2_IMAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            image = bytearray(qcow2_pieces(make_qcow2(
                Path(folder), options, size, writes, *more)))
        if name == 'aes':
            image[2 + 35] = 1           # which nobody makes any more
        for kind, ops in QCOW2_OPS.items():
            head = struct.pack('<HBB', flags, len(ops), 8)
            write('qcow2', f'{name}-{kind}', head + b''.join(ops) + image)


def write(target, name, data):
    path = HERE / 'corpus' / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def write_qmp():
    """The sessions that were sent to the reference daemon."""
    lines = QMP_INPUT.read_text(encoding='utf-8').splitlines()
    sessions = [list(group) for empty, group in
                itertools.groupby(lines, lambda line: not line) if not empty]
    for number, session in enumerate(sessions):
        if session[0] != '{"execute":"qmp_capabilities"}':
            session.insert(0, '{"execute":"qmp_capabilities"}')
        for part in range(0, len(session), 24):
            text = '\n'.join(session[:1] + session[part + 1:part + 25])
            write('qmp', f'session-{number}-{part // 24}', f'\0{text}\n')
    write('qmp', 'oob', '~{"execute": "qmp_capabilities", "arguments": '
          '{"enable": ["oob"]}}{"exec-oob": "query-version", "id": 1}'
          '{"execute": "query-block", "exec-oob": "x"}')


def main():
    for name, requests in FUSE.items():
        for flags in (0x00, 0x0f, 0x19, 0x2b, 0x4d):
            write('fuse-ops', f'{name}-{flags:02x}',
                  fuse_ops_seed(flags, requests))
        for flags in (0x02, 0x06):
            write('fuse-dev', f'{name}-{flags:02x}',
                  fuse_dev_seed(flags, requests))
    write('fuse-dev', 'handshake', fuse_dev_seed(1, FUSE['init'][:1]))
    write('fuse-dev', 'handshake-major',
          fuse_dev_seed(1, [init_in(8), init_in()]))
    write('fuse-dev', 'handshake-early', fuse_dev_seed(1, FUSE['read']))
    for name, text in JSON.items():
        write('json', name, '\n' + text)
        write('json', name + '-whole', '\0' + text)
    for name, text in KEYVAL.items():
        write('keyval', name, 'c' + text)
        write('keyval', name + '-plain', '`' + text)
    for kind, texts in OPTIONS.items():
        for number, text in enumerate(texts):
            write('options', f'{kind}-{number}', kind + text)
    write_qmp()
    write_qcow2()


if __name__ == '__main__':
    main()
