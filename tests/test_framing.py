"""The way in, against the untouched library: same messages, same replies, same close code."""

import asyncio
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import apply_mask
from websockets.server import ServerProtocol

from relayd.connection import Connection
from relayd.framing import RequestGate
from relayd.protocol import SIGNALLING_LIMIT
from relayd.relay.frames import binary_frame

LIMIT = SIGNALLING_LIMIT
"""The largest message of these tests, in bytes, text or binary."""

HANDSHAKE = (
    b"GET /ws/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

MASK = b"\x12\x34\x56\x78"


def frame(
    first: int, payload: bytes, *, mask: bytes | None = MASK, length: bytes | None = None
) -> bytes:
    """Build a frame as a client may, or may not, send it.

    Args:
        first: The first byte: FIN, RSV bits, opcode.
        payload: The payload, not masked yet.
        mask: The mask, None for a frame without one.
        length: The length as it stands in the frame, where it shall not be the shortest form.
    """
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + struct.pack(">H", size)
        else:
            length = b"\x7f" + struct.pack(">Q", size)
    if mask is None:
        return bytes([first]) + length + payload
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + apply_mask(payload, mask)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut bytes into pieces at these places, wrapped round."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def through_gate(request: bytes, cuts: Sequence[int]) -> tuple[bytes, bytes | None]:
    """Return what a gate passes of a request, and what it says follows."""
    gate = RequestGate()
    passed, rest = b"", None
    for piece in cut(request, cuts):
        if rest is None:
            head, rest = gate.feed(piece)
            passed += head
        else:
            rest += piece
    return passed, rest


@given(
    st.sampled_from([b"GET /ws/stream HTTP/1.1", b"GET ", b"HEAD / HTTP/1.1", b"P" * 8193]),
    st.sampled_from([b"\r\n\r\n", b"\r\nHost: x\r\n\r\n"]),
    st.binary(),
    st.lists(st.integers(0, 1000)),
)
def test_gate_passes_a_whole_request(line: bytes, end: bytes, rest: bytes, cuts: list[int]) -> None:
    """A GET or HEAD request passes as it is, and what follows it is kept apart, however all is cut.

    So does a first line without an end: the library refuses it.
    """
    assert through_gate(line + end + rest, cuts) == (line + end, rest)


@given(
    st.sampled_from([b"POST", b"HEADER", b"G", b"GETS", b"\x16\x03\x01"]), st.lists(st.integers())
)
def test_gate_passes_a_line(method: bytes, cuts: list[int]) -> None:
    """Of any other request the first line passes and nothing else, however it is cut."""
    request = method + b" / HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET \r\n\r\n"
    assert through_gate(request, cuts) == (method + b" / HTTP/1.1\r\n\r\n", None)


@dataclass
class Outcome:
    """What a connection made of a client's bytes."""

    messages: list[str | bytes] = field(default_factory=list)
    written: bytes = b""
    ended: bool = False
    close_code: int | None = None


class RecordingTransport(asyncio.Transport):
    """A transport to nowhere."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__({"peername": ("192.0.2.7", 5312)})
        self._outcome = outcome

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._outcome.ended
        self._outcome.written += bytes(data)

    def write_eof(self) -> None:
        self._outcome.ended = True

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class FakeServer:
    """A server without handlers."""

    def __init__(self) -> None:
        self.handler_tasks: set[asyncio.Task[None]] = set()

    async def handler(self, connection: ServerConnection) -> None:
        pass


def shake_hands(connection: ServerConnection, outcome: Outcome) -> None:
    """Open a connection; forget what that took."""
    connection.connection_made(RecordingTransport(outcome))
    connection.data_received(HANDSHAKE)
    assert connection.request is not None
    connection.protocol.send_response(connection.protocol.accept(connection.request))
    connection.send_data()
    outcome.written = b""


async def library(pieces: Sequence[bytes]) -> Outcome:
    """Let the library's own connection take the pieces."""
    outcome = Outcome()
    server: Any = FakeServer()
    connection = ServerConnection(ServerProtocol(max_size=LIMIT), server)
    shake_hands(connection, outcome)

    async def read() -> None:
        while True:
            outcome.messages.append(await connection.recv())

    reader = asyncio.create_task(read())
    for piece in pieces:
        connection.data_received(piece)
        for _ in range(3):  # let it read what there is before more comes
            await asyncio.sleep(0)
    connection.eof_received()
    connection.connection_lost(None)
    with pytest.raises(ConnectionClosed):
        await reader
    outcome.close_code = connection.close_code
    return outcome


async def relayd(pieces: Sequence[bytes]) -> Outcome:
    """Let a relay's connection take the pieces."""
    outcome = Outcome()
    server: Any = FakeServer()
    connection = Connection(
        ServerProtocol(max_size=LIMIT),
        server,
        peers=set(),
        max_connections=1,
        max_frame_size=LIMIT,
        max_lag=1.0,
        stall_timeout=1.0,
    )
    shake_hands(connection, outcome)

    def relay(frame: bytes) -> None:
        start = {126: 4, 127: 10}.get(frame[1], 2)
        assert frame == binary_frame(frame[start:])
        outcome.messages.append(frame[start:])

    connection.limit_messages(LIMIT)
    connection.hand_over(relay, outcome.messages.append)
    for piece in pieces:
        connection.data_received(piece)
    connection.eof_received()
    connection.connection_lost(None)
    outcome.close_code = connection.close_code
    return outcome


def check(frames: Sequence[bytes], cuts: Sequence[int]) -> None:
    """Compare the library, frame by frame, with a relay that gets the bytes cut somehow."""
    data = b"".join(frames)

    async def compare() -> tuple[Outcome, Outcome]:
        return await library(frames), await relayd(cut(data, cuts))

    expected, actual = asyncio.run(compare())
    assert actual == expected


PAYLOADS = st.binary(max_size=20) | st.sampled_from([125, 126, 127, 300, LIMIT]).map(bytes)
MASKS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(max_size=20).map(str.encode)

video = st.builds(frame, st.just(0x82), PAYLOADS, mask=MASKS)
text = st.builds(frame, st.just(0x81), TEXTS, mask=MASKS)
control = st.builds(frame, st.sampled_from([0x89, 0x8A]), st.binary(max_size=125), mask=MASKS)
close = st.one_of(
    st.just(frame(0x88, b"")),
    st.builds(
        lambda code, reason: frame(0x88, struct.pack(">H", code) + reason),
        st.integers(0, 5000),
        st.binary(max_size=20),
    ),
    st.builds(frame, st.just(0x88), st.binary(max_size=3)),
)


@st.composite
def fragmented(draw: st.DrawFn) -> list[bytes]:
    """One message in fragments, with control frames between them."""
    opcode = draw(st.sampled_from([0x01, 0x02]))
    frames = [frame(opcode, draw(TEXTS if opcode == 1 else PAYLOADS))]
    for _ in range(draw(st.integers(0, 3))):
        frames += draw(st.lists(control, max_size=1))
        frames.append(frame(0x00, draw(st.binary(max_size=5) if opcode == 2 else TEXTS)))
    return [*frames, frame(0x80, b"")]


broken = st.one_of(
    st.builds(frame, st.integers(0, 255), PAYLOADS, mask=st.none() | MASKS),
    st.builds(frame, st.just(0x81), st.binary(max_size=20)),
    st.builds(frame, st.just(0x82), st.just(bytes(LIMIT + 1))),
    st.builds(
        frame,
        st.just(0x82),
        st.just(b""),
        length=st.sampled_from(
            [
                b"\x7f" + bytes([0x80, 0, 0, 0, 0, 0, 0, 0]),
                b"\x7f" + b"\xff" * 8,
                b"\x7e\xff\xff",
            ]
        ),
    ),
    st.builds(
        lambda payload: frame(0x82, payload, length=b"\x7e" + struct.pack(">H", len(payload))),
        PAYLOADS,
    ),
    st.builds(
        lambda payload: frame(0x82, payload, length=b"\x7f" + struct.pack(">Q", len(payload))),
        PAYLOADS,
    ),
    st.binary(max_size=30),
)
SEQUENCES = st.lists(
    st.one_of(
        st.lists(video, max_size=4),
        text.map(lambda f: [f]),
        control.map(lambda f: [f]),
        fragmented(),
        close.map(lambda f: [f]),
        broken.map(lambda f: [f]),
    ),
    max_size=6,
).map(lambda parts: list(itertools.chain.from_iterable(parts)))


@settings(max_examples=500)
@given(SEQUENCES, st.lists(st.integers(0, 2000), max_size=12))
def test_equivalence(frames: list[bytes], cuts: list[int]) -> None:
    """Whatever a client sends, and however it is cut, the outcome is the library's."""
    check(frames, cuts)


@settings(max_examples=100)
@given(SEQUENCES)
def test_equivalence_byte_by_byte(frames: list[bytes]) -> None:
    """The same, when every byte comes alone."""
    check(frames, range(2000))
