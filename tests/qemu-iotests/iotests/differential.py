# SPDX-License-Identifier: MIT
"""What a daemon says to a command line or a QMP transcript, as comparable
lines; and the list of differences that are meant to be.

A case is a command line, or a transcript (a name, options, lines of input).
The tables are plain text in tests/data/reference/; tests/README.md says what
they look like.
"""

import ctypes
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from .daemon import mounter_of
from .env import TEST_DIR, TIMEOUT_FACTOR
from .process import CLEAN_ENV, qemu_img

__all__ = ['Case', 'Observer', 'Differences', 'read_command_lines',
           'read_transcripts', 'recorded_session', 'line_diff']

RECORDED_RUNS_ON = 124  # a status: nothing was wrong until it was stopped
DEAD_MOUNT = 'Transport endpoint is not connected'
PATIENCE = 30           # seconds for anything that a daemon does
NEGOTIATION = b'{"execute": "qmp_capabilities"}\n'
QUIT = b'{"execute": "quit"}\n'

# Files with one wrong field of a qcow2 header: (name, offset, bytes).
DAMAGE = [
    ('version', 4, b'\0\0\0\x09'),
    ('backing', 8, bytes(6) + b'\x10\0' + b'\0\0\x40\0'),
    ('clusters', 20, b'\0\0\0\x40'),
    ('crypt', 32, b'\0\0\0\x05'),
    ('l1size', 36, b'\x7f\xff\xff\xff'),
    ('l1', 40, b'\0\0\0\0\0\0\0\x01'),
    ('reftable', 48, b'\0\0\0\0\0\0\0\x01'),
    ('refsize', 56, b'\xff\xff\xff\xff'),
    ('snapshots', 60, b'\xff\xff\xff\xff'),
    ('feature', 72, b'\x80\0\0\0\0\0\0\0'),
    ('refbits', 96, b'\0\0\0\x40'),
    ('header', 100, b'\xff\xff\xff\xff'),
]

# Lists whose order means nothing: the reference keeps them in hash tables.
UNORDERED_KEYS = ('name', 'label', 'node-name')


@dataclass
class Case:
    """One command line, or one transcript if there is @input."""
    name: str
    options: str
    input: list = None          # (what, bytes or text) in order
    end: str = 'quit'           # of a transcript: quit, SIGTERM or EOF
    dead_mount: bool = False    # mnt is the mount of a daemon that was killed
    words: list = field(init=False)

    def __post_init__(self):
        self.words = shlex.split(self.options)


# ---- the tables ----

def read_command_lines(path):
    """Every line is a case; but for comments and blank lines."""
    return [Case(line, line.removeprefix('(none)'))
            for line in path.read_text('utf-8').splitlines()
            if line and not line.startswith('# ')]


def transcript_line(line):
    """(what, data) of one line of a transcript."""
    if line.startswith('@bytes '):
        text = line.removeprefix('@bytes ')
        return 'send', text.encode('utf-8').decode('unicode_escape') \
            .encode('latin-1') + b'\n'
    if line.startswith('@repeat '):
        _, count, text = line.split(' ', 2)
        return 'send', text.encode('utf-8') * int(count)
    if line.startswith('@await '):
        return 'await', line.removeprefix('@await ')
    short = re.fullmatch(r'([a-z_-]+)(?: (\{.*\}))?', line)
    if short:
        arguments = f', "arguments": {short[2]}' if short[2] else ''
        line = f'{{"execute": "{short[1]}"{arguments}}}'
    return 'send', line.encode('utf-8') + b'\n'


def read_transcripts(path):
    """A case begins with `== NAME`."""
    cases = []
    for block in re.split(r'^== ', path.read_text('utf-8'), flags=re.M)[1:]:
        name, *lines = block.splitlines()
        options, steps, end = '', [('send', NEGOTIATION)], 'quit'
        for line in lines:
            if not line or line.startswith('# '):
                continue
            if line.startswith('@options '):
                options += line.removeprefix('@options') + ' '
            elif line == '@raw':
                steps = []
            elif line == '@no-quit':
                end = 'SIGTERM'
            else:
                steps.append(transcript_line(line))
        monitor = '' if '--monitor' in options else \
            '--chardev stdio,id=m --monitor m'
        cases.append(Case(name, (options + monitor).strip(), steps, end))
    return cases


def recorded_session(folder):
    """(cases, {name: lines}) of release 11.1.3, in files of another form."""
    cases, theirs = [], {}
    for line in (folder / 'cli.jsonl').read_text('utf-8').splitlines():
        record = json.loads(line)
        case = Case(record['args'] or '(none)', record['args'],
                    dead_mount=DEAD_MOUNT in record['stderr'])
        status = record['exit']
        cases.append(case)
        theirs[case.name] = without_greeting(comparable(
            record['stdout'], record['stderr'],
            '0 by SIGTERM' if status == RECORDED_RUNS_ON else str(status)))
    output = (folder / 'qmp-output.jsonl').read_text('utf-8')
    case = Case('QMP session', '--chardev stdio,id=m --monitor m',
                [('send', (folder / 'qmp-input.jsonl').read_bytes())], 'EOF',
                dead_mount=DEAD_MOUNT in output)
    cases.append(case)
    theirs[case.name] = comparable(output, '', '0')
    return cases, theirs


# ---- comparable lines ----

def normalise_json(value):
    """Without the order of keys, times, versions and sizes on disk."""
    if isinstance(value, str) and value.startswith('json:{'):
        return 'json:' + json.dumps(normalise_json(json.loads(value[5:])))
    if isinstance(value, dict):
        return {key: 'ANY' if key in ('timestamp', 'actual-size')
                else normalise_json(item)
                for key, item in sorted(value.items())}
    if isinstance(value, list):
        items = [normalise_json(item) for item in value]
        for key in UNORDERED_KEYS:
            if all(isinstance(item, dict) and key in item for item in items):
                items.sort(key=lambda item, key=key: str(item[key]))
        return items
    return value


def normalise_line(line):
    """As lines: a list of names becomes one line for each."""
    if not line.startswith('{'):
        return [line]
    try:
        value = normalise_json(json.loads(line))
    except (ValueError, RecursionError):
        return [line]
    items = value.get('return')
    if isinstance(items, list) and items and \
            all(isinstance(item, dict) and list(item) == ['name']
                for item in items):
        return [json.dumps(item) for item in items]
    return [json.dumps(value, ensure_ascii=False)]


def number_nodes(text):
    """Generated node names become #block1, #block2...: theirs are random."""
    names = list(dict.fromkeys(re.findall(r'#block\d+', text)))
    return re.sub(r'#block\d+',
                  lambda match: f'#block{names.index(match[0]) + 1}', text)


def normalise(text):
    """Not compared: versions and the copyright."""
    text = number_nodes(text)
    text = re.sub(r'(qemu-storage-daemon version).*', r'\1 ANY', text)
    text = re.sub(r'Copyright .*', 'Copyright ANY', text)
    text = re.sub(r'("(?:micro|minor|major|package)"): [^,}\n]+', r'\1: "ANY"',
                  text)
    return [normal for line in text.split('\n')[:-1]
            for normal in normalise_line(line)]


def comparable(out, err, end):
    """All that is compared of one run."""
    return [*(f'stdout: {line}' for line in normalise(out)),
            *(f'stderr: {line}' for line in normalise(err)),
            f'exit: {end}']


def without_greeting(lines):
    """Whether a monitor greets before a later option fails is chance."""
    return [line for line in lines if not line.startswith('stdout: {"QMP"')]


# ---- running one ----

def make_template(folder):
    """The files which every case finds in its folder."""
    folder.mkdir(parents=True)
    for name, size in (('disk.img', 1 << 20), ('odd.img', 1000),
                       ('mnt', 0), ('mnt2', 0)):
        with open(folder / name, 'wb') as file:
            file.truncate(size)
    (folder / 'notqcow2').write_bytes(bytes(1 << 16))
    (folder / 'dir').mkdir()
    (folder / 'rules').write_text(
        '[inject-error]\nevent = "write_aio"\nerrno = "28"\n')
    (folder / 'badrules').write_text('[inject-error]\nevent = "nonsense"\n')
    (folder / 'password').write_text('secret')
    qemu_img('create', '-q', '-f', 'qcow2', folder / 'disk.qcow2', '1M')
    qemu_img('create', '-q', '-f', 'qcow2', '-b', 'disk.img', '-F', 'raw',
             folder / 'top.qcow2')
    for name in ('disk.qcow2', 'top.qcow2'):
        os.truncate(folder / name, 1 << 18)     # sectors, whole clusters
    image = (folder / 'disk.qcow2').read_bytes()
    for name, offset, value in DAMAGE:
        (folder / f'{name}.qcow2').write_bytes(
            image[:offset] + value + image[offset + len(value):])
    (folder / 'truncated.qcow2').write_bytes(image[:100])


IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100    # inotify(7)
LIBC = ctypes.CDLL(None)


class Changes:
    """A folder's new files and what is written to files in it, and a process's
    end, to wait for: from here on."""

    def __init__(self, folder, pid):
        self.inotify = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        assert self.inotify >= 0
        LIBC.inotify_add_watch(self.inotify, os.fsencode(folder),
                               IN_MODIFY | IN_MOVED_TO | IN_CREATE)
        self.poll = select.poll()
        self.poll.register(self.inotify, select.POLLIN)
        try:
            self.pidfd = os.pidfd_open(pid)
            self.poll.register(self.pidfd, select.POLLIN)
        except ProcessLookupError:
            self.pidfd = None

    def wait(self, seconds):
        """For at least one; False if there was none in time."""
        ready = self.poll.poll(max(seconds, 0) * 1000)
        if any(fd == self.inotify for fd, _ in ready):
            os.read(self.inotify, 1 << 16)
        return bool(ready)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in (self.inotify, self.pidfd):
            if fd is not None:
                os.close(fd)


def wait_disconnected(path):
    """Until the file's server, which has ended, is known to be gone: as long
    as it isn't, opening the file waits."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        pass


class Running:
    """One daemon in a folder of its own."""

    def __init__(self, program, folder, words):
        self.program = program
        self.folder = folder
        env = dict(os.environ if os.environ.get('QSD_PROG') == program
                   else CLEAN_ENV)
        with open(folder / '.out', 'wb') as out, \
                open(folder / '.err', 'wb') as err:
            # Not a "with" statement: the end is the caller's to await.
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(
                [program, *words], cwd=folder, env=env, stdout=out,
                stderr=err, stdin=subprocess.PIPE, start_new_session=True)

    def output(self, name='.out'):
        text = (self.folder / name).read_text('utf-8', errors='replace')
        return text.replace(f'{self.folder}/', '') \
            .replace(self.program, 'qemu-storage-daemon')

    def until(self, condition):
        """Wait for what the program writes, or its end, to make that true;
        False if it took too long."""
        deadline = time.monotonic() + PATIENCE * TIMEOUT_FACTOR
        with Changes(self.folder, self.process.pid) as changes:
            while not condition():
                if not changes.wait(deadline - time.monotonic()):
                    return condition()
        return True

    def ended(self):
        return self.process.poll() is not None

    def is_up(self):
        path = self.folder / 'pid'
        return path.exists() and path.stat().st_size > 0

    def terminate(self):
        """By SIGTERM; what becomes of it as a word."""
        self.process.terminate()
        if not self.until(self.ended):
            self.process.kill()
            self.process.wait()
            return 'hangs'
        return str(self.process.returncode)

    def end_background(self):
        """End what --daemonize has left."""
        pid = int((self.folder / 'pid').read_text('utf-8'))
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        ended, _, _ = select.select([pidfd], [], [], PATIENCE * TIMEOUT_FACTOR)
        if not ended:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        return 'in background' if ended else 'in background, hangs'

    def lines(self, end):
        return comparable(self.output(), self.output('.err'), end)


class Observer:
    """Runs cases with one program, each in a fresh folder."""

    def __init__(self, program, name):
        self.program = program
        self.base = TEST_DIR / name
        self.template = TEST_DIR / 'template'
        if not self.template.exists():
            make_template(self.template)
        self.base.mkdir()

    def lines(self, number, case):
        """What the program does with @case."""
        folder = self.base / str(number)
        shutil.copytree(self.template, folder)
        try:
            if case.dead_mount:
                self.make_dead_mount(folder)
            lines = self.command_line(folder, case) if case.input is None \
                else self.transcript(folder, case)
        finally:
            left = self.left_mounts(folder)
            shutil.rmtree(folder, ignore_errors=True)
        return lines + ([] if case.dead_mount else left)

    @staticmethod
    def left_mounts(folder):
        """What is still mounted below @folder, as lines; not any more then."""
        with open('/proc/self/mounts', encoding='utf-8') as mounts:
            points = [line.split()[1] for line in mounts]
        points = [point for point in points if point.startswith(f'{folder}/')]
        for point in points:
            subprocess.run(['umount', '-l', point], check=False)
        return [f'left mounted: {os.path.basename(point)}'
                for point in points]

    def make_dead_mount(self, folder):
        """On mnt: its server has been killed."""
        running = Running(self.program, folder, [
            '--pidfile', 'pid', '--blockdev',
            'null-co,node-name=n,read-zeroes=on', '--export',
            'fuse,id=e,node-name=n,mountpoint=mnt'])
        running.until(lambda: running.ended() or running.is_up())
        mounter = mounter_of(running.process.pid)
        if mounter:                     # or else it would remove the mount
            os.kill(mounter, signal.SIGKILL)
        running.process.kill()
        running.process.wait()
        running.process.stdin.close()
        wait_disconnected(folder / 'mnt')
        (folder / 'pid').unlink()

    def command_line(self, folder, case):
        words = case.words
        if '--pidfile' not in words:
            words = ['--pidfile', 'pid', *words]
        running = Running(self.program, folder, words)
        running.process.stdin.close()
        running.until(lambda: running.ended() or running.is_up())
        if running.ended():
            end = str(running.process.returncode)
            if running.is_up():
                end = f'{end}, {running.end_background()}'
        elif running.is_up() and '--daemonize' in words:
            running.until(running.ended)
            end = f'{running.process.returncode}, {running.end_background()}'
        else:
            end = f'{running.terminate()} by SIGTERM'
        return without_greeting(running.lines(end))

    def transcript(self, folder, case):
        running = Running(self.program, folder, case.words)
        seen = 0
        try:
            for what, data in case.input:
                if what == 'send':
                    running.process.stdin.write(data)
                    running.process.stdin.flush()
                    continue
                running.until(lambda text=data, start=seen: running.ended() or
                              text in running.output()[start:])
                seen = running.output().find(data, seen) + len(data)
            if case.end == 'SIGTERM':
                return running.lines(f'{running.terminate()} by SIGTERM')
            running.process.stdin.write(QUIT if case.end == 'quit' else b'')
            running.process.stdin.close()
        except BrokenPipeError:
            pass
        if running.until(running.ended):
            return running.lines(str(running.process.returncode))
        return running.lines(f'hangs, {running.terminate()} by SIGTERM')


# ---- comparing ----

def line_diff(theirs, ours):
    """Lines of @theirs with '-', of @ours with '+', where they differ."""
    diff = []
    matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
    for tag, i, j, k, l in matcher.get_opcodes():
        if tag != 'equal':
            diff += [f'-{line}' for line in theirs[i:j]]
            diff += [f'+{line}' for line in ours[k:l]]
    return diff


class Differences:
    """Those that are meant to be, each with its reason.

    A "rule" turns a line of ours into theirs by a regular expression,
    wherever they differ; "theirs" and "ours" are regular expressions of
    lines that only one of them has; a "case" gives all that is then still
    different in it.  One that does not occur is reported.
    """

    def __init__(self, entries):
        self.rules = []
        self.only = {'theirs': [], 'ours': []}
        self.cases = {}
        self.used = set()
        self.problems = []
        for entry in entries:
            if not entry['reason']:
                self.problems.append(f'no reason: {entry}')
            for pattern, replacement in entry.get('rules', []):
                self.rules.append((re.compile(pattern), replacement))
            for side, patterns in self.only.items():
                patterns += map(re.compile, entry.get(side, []))
            for name, diff in entry.get('cases', {}).items():
                if name in self.cases:
                    self.problems.append(f'listed twice: {name}')
                self.cases[name] = diff

    def apply_rules(self, theirs, ours):
        """@ours, with what the rules explain as in @theirs."""
        known = set(theirs)
        result = []
        for line in ours:
            if line not in known:
                line = self.apply_rules_to_line(line, known)
            result.append(line)
        return result

    def apply_rules_to_line(self, line, known):
        changed, used = line, set()
        for pattern, replacement in self.rules:
            changed, count = pattern.subn(replacement, changed)
            if count:
                used.add(pattern)
                if changed in known:
                    self.used |= used
                    return changed
        return line

    def drop(self, side, lines, others):
        """@lines of @side, without those that only this side has."""
        others = set(others)
        result = []
        for line in lines:
            found = [] if line in others else \
                [pattern for pattern in self.only[side]
                 if pattern.fullmatch(line)]
            self.used.update(found)
            if not found:
                result.append(line)
        return result

    def compare(self, name, theirs, ours):
        ours = self.apply_rules(theirs, ours)
        diff = line_diff(self.drop('theirs', theirs, ours),
                         self.drop('ours', ours, theirs))
        listed = self.cases.pop(name, [])
        if diff == listed:
            return
        self.problems.append(f'{name}: not as listed' if listed
                             else f'{name}: differs')
        self.problems += [f'    {line}' for line in diff] or \
            ['    no difference any more']

    def finish(self):
        """All that is wrong, as lines."""
        patterns = [pattern for pattern, _ in self.rules] + \
            self.only['theirs'] + self.only['ours']
        unused = [pattern.pattern for pattern in patterns
                  if pattern not in self.used]
        return self.problems + [f'no such case: {name}'
                                for name in self.cases] + \
            [f'rule without a use: {text}' for text in unused]
