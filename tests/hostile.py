"""What the tests of robustness share: raw clients, and a stream that must not notice them."""

import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import PATIENCE, RelayProcess
from websockets.sync.client import ClientConnection

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

ON_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="memory and open files are read from /proc"
)

ROUND_TRIP = 1.0
"""Seconds that the relay has other work to do, at most, before a frame reaches its viewer."""

PACE = 0.004
"""Seconds between a frame's arrival and the next frame."""

LOG_LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning) [ -~]*"

MB = 10**6

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

REGISTER = '{"type": "register", "stream_id": "%s"}'
SUBSCRIBE = '{"type": "subscribe"}'


class SteadyStream:
    """A streamer and a viewer in lock step: frame n + 1 follows when frame n has arrived.

    Attributes:
        frames: How many frames have arrived, each byte for byte and in order.
        worst: The longest time that the relay was busy until one arrived, in seconds.
    """

    SIZES = (4, 20_000, 100, 100_000, 1_000)

    def __init__(
        self, relay: RelayProcess, streamer: ClientConnection, viewer: ClientConnection
    ) -> None:
        self.frames = 0
        self.worst = 0.0
        self._relay = relay
        self._streamer = streamer
        self._viewer = viewer
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(PACE):
                self._send_one()
        except Exception as exc:
            self._error = exc
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()

    def _send_one(self) -> None:
        frame = self.frames.to_bytes(4) * (self.SIZES[self.frames % len(self.SIZES)] // 4)
        began = self._relay.busy_time()
        self._streamer.send(frame)
        assert self._viewer.recv(PATIENCE) == frame
        with self._changed:
            self.worst = max(self.worst, self._relay.busy_time() - began)
            self.frames += 1
            self._changed.notify_all()

    def flow(self, frames: int = 1) -> None:
        """Wait until this many more frames have arrived."""
        goal = self.frames + frames
        with self._changed:
            self._changed.wait_for(lambda: self.frames >= goal or self._stopping.is_set(), PATIENCE)
        assert self._error is None, repr(self._error)
        assert self.frames >= goal

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()
        self._thread.join(PATIENCE)


@contextmanager
def steady_stream(relay: RelayProcess) -> Iterator[SteadyStream]:
    """Relay a stream meanwhile; afterwards check that it lost nothing and was never delayed.

    Also check the log: every record on one line, no error among them.
    """
    logged = len(relay.log.lines)
    with relay.stream("steady") as (streamer, _), relay.view("steady") as viewer:
        steady = SteadyStream(relay, streamer, viewer)
        try:
            steady.flow(5)
            yield steady
            steady.flow(5)
        finally:
            steady.stop()
    assert steady.worst < ROUND_TRIP
    untidy = [line for line in relay.log.lines[logged:] if not re.fullmatch(LOG_LINE, line)]
    assert untidy == []


def eventually(relay: RelayProcess, condition: Callable[[], bool]) -> None:
    """Ask for /health again and again until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {relay.health()}, {relay.log.lines}"
        relay.health()


def open_files(relay: RelayProcess) -> int:
    """Return how many files and sockets the relay has open (Linux)."""
    return len(os.listdir(Path("/proc", str(relay.process.pid), "fd")))  # noqa: PTH208


# Raw clients.


def upgrade_request(path: str) -> bytes:
    """Return a valid opening handshake."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes | str = b"", *, fin: bool = True) -> bytes:
    """Return a client's frame, whether it is legal or not; the mask is zero."""
    payload = payload.encode() if isinstance(payload, str) else payload
    head, length = bytes([0x80 * fin | opcode]), len(payload)
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 2**16:
        head += b"\xfe" + struct.pack("!H", length)
    else:
        head += b"\xff" + struct.pack("!Q", length)
    return head + bytes(4) + payload


def dial(relay: RelayProcess) -> socket.socket:
    """Open a TCP connection and say nothing."""
    client = socket.create_connection(("127.0.0.1", relay.port), PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def dial_websocket(relay: RelayProcess, path: str, first: str | None = None) -> socket.socket:
    """Open a WebSocket; with a first message, also wait for the answer to it."""
    client = dial(relay)
    client.sendall(upgrade_request(path))
    read_handshake(client)
    if first is not None:
        client.sendall(frame(TEXT, first))
        assert b'ed", "stream_id"' in client.recv(1000)
    return client


def read_handshake(client: socket.socket) -> None:
    """Read the answer to an opening handshake, which takes it."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        received = client.recv(1)
        assert received, answer
        answer += received
    assert answer.startswith(b"HTTP/1.1 101 ")


def rest(client: socket.socket) -> bytes:
    """Return what still comes, until the relay closes the connection, cleanly or not."""
    received = bytearray()
    try:
        while data := client.recv(2**16):
            received += data
    except ConnectionError:
        pass
    return bytes(received)


def try_send(client: socket.socket, data: bytes) -> bool:
    """Send, and return whether the connection was still there."""
    try:
        client.sendall(data)
    except ConnectionError:
        return False
    return True


def close_code(received: bytes) -> int | None:
    """Return the code of the close frame that ends what a client received, if there is one."""
    while received:
        opcode, length = received[0] & 0x0F, received[1]
        message, received = received[2 : 2 + length], received[2 + length :]
        if opcode == CLOSE:
            assert received == b"", "something came after the close frame"
            return int.from_bytes(message[:2])
    return None


def read_close(client: socket.socket) -> int | None:
    """Read until the relay starts the closing handshake; return the close code."""
    received = b""
    while (code := close_code(received)) is None and (data := client.recv(1000)):
        received += data
    return code


def reset(client: socket.socket) -> None:
    """Close the connection with RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
