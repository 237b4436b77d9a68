# SPDX-License-Identifier: MIT
"""A small synchronous QMP client."""

import json
import socket
import time

from .env import TIMEOUT_FACTOR
from .testing import TestFailure, log

__all__ = ['QMPClient', 'QMPError']


class QMPError(Exception):
    """The command failed; @desc is the daemon's text."""

    def __init__(self, name, error):
        super().__init__(f'{name}: {error["desc"]}')
        self.error_class = error['class']
        self.desc = error['desc']


def with_dashes(arguments):
    """Python's node_name is QMP's node-name."""
    return {key.replace('_', '-'): value for key, value in arguments.items()}


class QMPClient:
    """One connection to a monitor.  Events that arrive are kept in order."""

    def __init__(self, sock, negotiate=True, timeout=30):
        self.sock = sock
        self.timeout = timeout * TIMEOUT_FACTOR
        self.sock.settimeout(self.timeout)
        self.buffer = b''
        self.events = []
        self.greeting = None
        if negotiate:
            self.greeting = self.read_message()
            self.cmd('qmp_capabilities')

    @classmethod
    def connect(cls, path, **kwargs):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(path))
        return cls(sock, **kwargs)

    def close(self):
        self.sock.close()

    def read_message(self, deadline=None):
        """The next JSON line, also one spread over several (pretty=on)."""
        text = b''
        while True:
            if b'\n' not in self.buffer:
                self.receive(deadline)
                continue
            line, self.buffer = self.buffer.split(b'\n', 1)
            text += line
            if not text.strip():
                continue
            try:
                return json.loads(text)
            except ValueError:
                text += b'\n'

    def receive(self, deadline):
        limit = self.timeout
        if deadline is not None:
            limit = max(deadline - time.monotonic(), 0.001)
        self.sock.settimeout(limit)
        try:
            data = self.sock.recv(1 << 16)
        except socket.timeout:
            raise TestFailure('timed out waiting for QMP output') from None
        if not data:
            raise EOFError('the monitor closed the connection')
        self.buffer += data

    def send(self, text):
        """Send raw text; for what no dict can say."""
        self.sock.sendall(text.encode() if isinstance(text, str) else text)

    def reply(self):
        """The next message that is no event."""
        while True:
            message = self.read_message()
            if 'event' not in message:
                return message
            self.events.append(message)

    def execute(self, name, arguments=None):
        """Send a command; returns its whole reply."""
        message = {'execute': name}
        if arguments:
            message['arguments'] = with_dashes(arguments)
        self.send(json.dumps(message) + '\n')
        return self.reply()

    def cmd(self, name, /, **arguments):
        """Returns the command's value; raises QMPError."""
        reply = self.execute(name, arguments)
        if 'error' in reply:
            raise QMPError(name, reply['error'])
        return reply['return']

    def log_cmd(self, name, /, **arguments):
        """As cmd(), but logs both sides; returns the whole reply."""
        message = {'execute': name}
        if arguments:
            message['arguments'] = with_dashes(arguments)
        log(message)
        reply = self.execute(name, arguments)
        log(reply)
        return reply

    def wait_event(self, name, timeout=20, **data):
        """Wait for an event whose data contains @data, and return it."""
        data = with_dashes(data)
        deadline = time.monotonic() + timeout * TIMEOUT_FACTOR
        while True:
            for event in self.events:
                if event['event'] == name and \
                        data.items() <= event.get('data', {}).items():
                    self.events.remove(event)
                    return event
            message = self.read_message(deadline)
            if 'event' in message:
                self.events.append(message)
