"""WebSocket over bare sockets, as far as a load generator needs it: how a connection opens."""

import base64
import hashlib
import os
import re
import socket
import struct
from dataclasses import dataclass

from .. import protocol
from ..protocol import Register, Subscribe

OPEN_TIMEOUT = 10.0
"""Seconds that the server has for each step of opening a connection."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80

MASK = b"\x9c\x27\x5e\xb3"
"""One for all frames: it must not be predictable to protect proxies, but nobody attacks here."""

_MASKED = 0x80
_MAX_HEAD = 16 * 1024
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class LinkError(Exception):
    """A connection can't be opened. The text says why."""


class HttpRefusal(LinkError):
    """The server answered the handshake with a status other than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered HTTP {status}")
        self.status = status


class Closed(LinkError):
    """The server closed what was open, with a close code or, None, without."""

    def __init__(self, code: int | None) -> None:
        how = "without a close code" if code is None else f"with code {code}"
        super().__init__(f"the server closed {how}")
        self.code = code


class Refused(LinkError):
    """The server answered the first message with an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Target:
    """How to reach a relay.

    Attributes:
        publish: The path that a streamer opens; ``{stream}`` stands for the stream's id.
        view: The path that a viewer opens.
        signalling: Whether the relay wants a first message, as relayd does.
    """

    host: str
    port: int
    publish: str = "/ws/stream"
    view: str = "/ws/view/{stream}"
    signalling: bool = True

    def open_streamer(self, stream_id: str) -> socket.socket:
        """Open a streamer's connection; see `open_link`."""
        first = protocol.register(Register(stream_id)) if self.signalling else None
        return open_link(self.host, self.port, self.publish.format(stream=stream_id), first)

    def open_viewer(self, stream_id: str) -> socket.socket:
        """Open a viewer's connection; see `open_link`."""
        first = protocol.subscribe(Subscribe(stream_id)) if self.signalling else None
        return open_link(self.host, self.port, self.view.format(stream=stream_id), first)


def open_link(host: str, port: int, path: str, first_message: str | None) -> socket.socket:
    """Open a WebSocket, send the first message, await its answer; return a non-blocking socket.

    Raises:
        LinkError: If the server refuses or is no WebSocket server.
        OSError: If it can't be reached or takes more than OPEN_TIMEOUT for a step.
    """
    sock = socket.create_connection((host, port), OPEN_TIMEOUT)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _shake_hands(sock, host, port, path)
        if first_message is not None:
            payload = first_message.encode()
            sock.sendall(header(TEXT, len(payload)) + masked(payload))
            _check_answer(_receive_text(sock))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _shake_hands(sock: socket.socket, host: str, port: int, path: str) -> None:
    key = base64.b64encode(os.urandom(16))
    name = f"[{host}]" if ":" in host else host
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key.decode()}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    )
    sock.sendall(request.encode())
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        # One by one: what follows the head belongs to the frames.
        head += _receive_exactly(sock, 1)
        if len(head) > _MAX_HEAD:
            raise LinkError("no WebSocket server answers there")
    status = re.match(rb"HTTP/1\.\d (\d{3})", head)
    if status is None:
        raise LinkError("no WebSocket server answers there")
    if status[1] != b"101":
        raise HttpRefusal(int(status[1]))
    # Not for security, but what RFC 6455 asks for.
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest())
    if not re.search(rb"(?im)^Sec-WebSocket-Accept: *" + re.escape(accept) + rb" *\r$", head):
        raise LinkError("no WebSocket server answers there")


def _check_answer(text: str) -> None:
    try:
        answer = protocol.parse(text)
    except protocol.InvalidMessage:
        raise LinkError("the server did not answer as relayd does; is it one?") from None
    if answer["type"] == "error":
        raise Refused(str(answer.get("message")))


def _receive_text(sock: socket.socket) -> str:
    while True:
        first, length = _receive_exactly(sock, 2)
        if length == 126:
            length = int.from_bytes(_receive_exactly(sock, 2))
        elif length == 127:
            length = int.from_bytes(_receive_exactly(sock, 8))
        payload = _receive_exactly(sock, min(length, protocol.SIGNALLING_LIMIT))
        if first == FIN | TEXT:
            return payload.decode(errors="replace")
        if first == FIN | CLOSE:
            raise Closed(int.from_bytes(payload[:2]))


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise Closed(None)
        data += chunk
    return data


def header(opcode: int, size: int) -> bytes:
    """Return the header of a client's unfragmented frame, with the mask."""
    first = FIN | opcode
    if size < 126:
        return bytes((first, _MASKED | size)) + MASK
    if size < 2**16:
        return struct.pack(">BBH", first, _MASKED | 126, size) + MASK
    return struct.pack(">BBQ", first, _MASKED | 127, size) + MASK


def masked(payload: bytes) -> bytes:
    """Return a payload as a client sends it."""
    return bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))
