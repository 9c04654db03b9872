"""An open WebSocket, with next to no cost per message.

A library's client parses and copies every message. Here the kernel throws a message's bytes away,
and only its header, and of some the first bytes, are looked at.
"""

import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from .wire import BINARY, CLOSE, CONTINUATION, FIN, MASK, PING, PONG, header, masked

STAMP_SIZE = 8
"""Bytes at the start of every payload: `time.monotonic_ns()` when it was sent, big-endian."""

HEADER_SIZE = 10
"""The largest header of a frame from a server, in bytes (RFC 6455 section 5.2)."""

SMALL = 16 * 1024
"""Messages of up to this many bytes are read: a second call to the kernel costs more than that."""

# A control frame is read whole: its payload has at most 125 bytes.
_LEAST_READ = 2 + 125

_DISCARDED = bytearray(1024 * 1024)
_TRUNCATE = socket.MSG_TRUNC if sys.platform == "linux" else 0
_STAMP_MASK = int.from_bytes(MASK * 2)


class Link:
    """One open connection: messages come in and are counted, pings are answered.

    Args:
        sock: A socket from `open_link`.
        read_size: Bytes read at the start of a message, the rest of which is thrown away unread.
        latencies: Where to put the age of every message received, in nanoseconds; None for none.

    Attributes:
        messages: Binary messages received, whole ones alone.
        size: Bytes of their payloads.
        is_open: Whether the server has not closed yet.
        close_code: What it closed with; None if it has not, or without a close frame.
    """

    def __init__(
        self, sock: socket.socket, read_size: int = 0, latencies: list[int] | None = None
    ) -> None:
        self.sock = sock
        self.messages = 0
        self.size = 0
        self.is_open = True
        self.close_code: int | None = None
        self._head = memoryview(bytearray(max(read_size + HEADER_SIZE, _LEAST_READ)))
        self._held = 0
        self._latencies = latencies
        self._stamp = 0
        # Of the frame whose payload is coming in:
        self._rest = 0
        self._is_last = False
        # Of the message whose frames are coming in:
        self._is_video = False
        self._message_size = 0

    def readable(self) -> None:
        """Take what has come in, at most about one message."""
        try:
            if not self._rest:
                self._read_head()
            if self._rest:
                self._discard()
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False

    def writable(self) -> None:
        """Do nothing: only a streamer waits to send."""

    def leave(self) -> None:
        """Say goodbye, if the kernel takes it, and close."""
        if self.is_open:
            self._send_control(CLOSE, (1000).to_bytes(2))
        self.is_open = False
        self.sock.close()

    def _read_head(self) -> None:
        held = self._held
        size = self.sock.recv_into(self._head[held:])
        if not size:
            self.is_open = False
            return
        head, end, position = self._head, held + size, 0
        while end - position >= 2 and self.is_open:
            first, length, start = head[position], head[position + 1], position + 2
            if length == 126:
                start += 2
                if end < start:
                    break
                length = int.from_bytes(head[start - 2 : start])
            elif length == 127:
                start += 8
                if end < start:
                    break
                length = int.from_bytes(head[start - 8 : start])
            opcode = first & 0x0F
            if opcode & 8:
                if end < start + length:
                    break
                self._control(opcode, bytes(head[start : start + length]))
                position = start + length
                continue
            if opcode != CONTINUATION:
                self._is_video = opcode == BINARY
                self._message_size = 0
                if self._latencies is not None and self._is_video and length >= STAMP_SIZE:
                    if end < start + STAMP_SIZE:
                        break
                    self._stamp = int.from_bytes(head[start : start + STAMP_SIZE])
            self._message_size += length
            self._is_last = first & FIN != 0
            position = start + length
            if position > end:
                self._rest = position - end
                position = end
                break
            if self._is_last:
                self._complete()
        self._held = end - position
        if self._held:
            head[: self._held] = bytes(head[position:end])

    def _discard(self) -> None:
        size = self.sock.recv_into(_DISCARDED, min(self._rest, len(_DISCARDED)), _TRUNCATE)
        self._rest -= size
        if not size:
            self.is_open = False
        elif not self._rest and self._is_last:
            self._complete()

    def _complete(self) -> None:
        if self._is_video:
            self.messages += 1
            self.size += self._message_size
            if self._latencies is not None:
                self._latencies.append(time.monotonic_ns() - self._stamp)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._send_control(PONG, payload)
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2]) if payload else None
            self.is_open = False

    def _send_control(self, opcode: int, payload: bytes) -> None:
        try:
            self.sock.send(header(opcode, len(payload)) + masked(payload))
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False


class Streamer(Link):
    """A connection that sends frames.

    Args:
        sock: A socket from `open_link`.
        want_write: Called with True when `writable` is to be called once the kernel takes bytes
            again, with False when that is no longer needed.
    """

    def __init__(self, sock: socket.socket, want_write: Callable[[Link, bool], None]) -> None:
        super().__init__(sock)
        self._want_write = want_write
        self._waiting: deque[bytes | memoryview] = deque()

    @property
    def is_blocked(self) -> bool:
        """Whether bytes of earlier frames wait, because the kernel does not take them."""
        return bool(self._waiting)

    def send(self, frame: "Frame", stamp: int) -> None:
        """Send a frame that is stamped with this time; let wait what the kernel refuses."""
        head, body = frame.stamped(stamp), frame.body
        sent = 0
        if not self._waiting:
            try:
                sent = self._send_both(head, body)
            except BlockingIOError:
                pass
            except OSError:
                self.is_open = False
                return
            if sent == len(head) + len(body):
                return
            self._want_write(self, True)
        if sent < len(head):
            self._waiting.append(head[sent:])
            sent = len(head)
        self._waiting.append(body[sent - len(head) :])

    def writable(self) -> None:
        """Send what waits."""
        try:
            while self._waiting:
                data = self._waiting[0]
                sent = self.sock.send(data)
                if sent < len(data):
                    self._waiting[0] = data[sent:]
                    return
                self._waiting.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.is_open = False
            return
        self._want_write(self, False)

    def _send_both(self, head: bytes, body: memoryview) -> int:
        if sys.platform == "win32":  # It has no sendmsg().
            return self.sock.send(b"".join((head, body)))
        return self.sock.sendmsg((head, body))

    def _send_control(self, opcode: int, payload: bytes) -> None:
        if not self._waiting:  # Nothing may go between the parts of a frame.
            super()._send_control(opcode, payload)


class Frame:
    """A masked frame of one size, all but its stamp built in advance.

    Args:
        size: Bytes of payload, at least STAMP_SIZE.
        noise: At least as many bytes, the end of the payload as it goes over the wire.

    Attributes:
        body: What follows the stamp.
    """

    def __init__(self, size: int, noise: memoryview) -> None:
        self._header = header(BINARY, size)
        self.body = noise[: size - STAMP_SIZE]

    def stamped(self, stamp: int) -> bytes:
        """Return what comes before the body, with this time in it."""
        return self._header + (stamp ^ _STAMP_MASK).to_bytes(STAMP_SIZE)
