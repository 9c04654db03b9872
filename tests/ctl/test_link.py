"""Tests of an open connection: what is counted, answered and sent."""

import itertools
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from relayd.ctl.link import STAMP_SIZE, Frame, Link, Streamer

NOISE = memoryview(bytes(range(1, 251)) * 4000)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a connection: the client's, which does not block, and the server's."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = socket.create_connection(listener.getsockname())
    client, _ = listener.accept()
    listener.close()
    client.setblocking(False)
    with client, server:
        server.settimeout(5)
        yield client, server


def frame(opcode: Opcode, payload: bytes, fin: bool = True) -> bytes:
    """Return a server's frame, as the library writes it."""
    return LibraryFrame(opcode, payload, fin).serialize(mask=False)


def binary(size: int) -> bytes:
    """Return a message that is this long, with a stamp of 1."""
    return frame(Opcode.BINARY, (1).to_bytes(STAMP_SIZE) + bytes(max(0, size - STAMP_SIZE)))


def parse(data: bytes, *, mask: bool = True) -> list[LibraryFrame]:
    """Read frames with the library, as a rule a client's."""
    reader = StreamReader()
    reader.feed_data(data)
    frames = []
    while reader.buffer:
        with pytest.raises(StopIteration) as finished:
            next(LibraryFrame.parse(reader.read_exact, mask=mask, max_size=None))
        frames.append(finished.value.value)
    return frames


class Feed:
    """A socket that gives what it was told to, in these pieces, and keeps what is sent."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        bounds = [0, *sorted(cuts), len(data)]
        self.pieces = [data[a:b] for a, b in itertools.pairwise(bounds) if b > a]
        self.sent = b""

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces[0][: size or len(buffer)]
        if not flags:
            buffer[: len(piece)] = piece
        self.pieces[0] = self.pieces[0][len(piece) :]
        if not self.pieces[0]:
            del self.pieces[0]
        return len(piece)

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)


MESSAGES = st.lists(
    st.one_of(
        st.sampled_from([8, 9, 100, 125, 126, 127, 300, 65535, 65536, 70000]).map(binary),
        st.binary(max_size=125).map(lambda data: frame(Opcode.PING, data)),
        st.text(max_size=200).map(lambda text: frame(Opcode.TEXT, text.encode())),
        st.tuples(st.integers(8, 300), st.integers(0, 300)).map(
            lambda sizes: (
                frame(Opcode.BINARY, (1).to_bytes(8) + bytes(sizes[0] - 8), fin=False)
                + frame(Opcode.PING, b"between")
                + frame(Opcode.CONT, bytes(sizes[1]))
            )
        ),
    ),
    max_size=8,
)


@given(messages=MESSAGES, data=st.data(), read_size=st.sampled_from([8, 100, 16384]))
def test_counts(messages: list[bytes], data: st.DataObject, read_size: int) -> None:
    """However the bytes are cut: binary messages are counted whole, pings answered in order."""
    stream = b"".join(messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    feed = Feed(stream, cuts)
    latencies: list[int] = []
    link = Link(feed, read_size, latencies)  # type: ignore[arg-type]
    while feed.pieces:
        link.readable()

    count = size = 0
    is_video = False
    pings = []
    for parsed in parse(stream, mask=False):
        if parsed.opcode is Opcode.PING:
            pings.append(parsed.data)
            continue
        if parsed.opcode is not Opcode.CONT:
            is_video = parsed.opcode is Opcode.BINARY
        if is_video:
            count += parsed.fin
            size += len(parsed.data)
    assert (link.messages, link.size) == (count, size)
    assert len(latencies) == count
    assert all(0 < age <= time.monotonic_ns() for age in latencies)
    assert [(pong.opcode, pong.data) for pong in parse(feed.sent)] == [
        (Opcode.PONG, data) for data in pings
    ]
    assert link.is_open


@pytest.mark.parametrize("size", [100, 300_000])
def test_real_socket(pair: Pair, size: int) -> None:
    """The kernel throws away what is not read, and the count is right all the same."""
    client, server = pair
    link = Link(client, STAMP_SIZE)
    server.sendall(binary(size) * 3)
    while link.messages < 3:
        link.readable()
    assert link.size == 3 * size


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", None), ((1012).to_bytes(2) + b"restart", 1012)]
)
def test_close(pair: Pair, payload: bytes, code: int | None) -> None:
    """A close frame ends it; its code is kept."""
    client, server = pair
    link = Link(client)
    server.sendall(binary(8) + frame(Opcode.CLOSE, payload))
    while link.is_open:
        link.readable()
    assert (link.messages, link.close_code) == (1, code)


@pytest.mark.parametrize("start", [b"", binary(1000)[:500]])
def test_end(pair: Pair, start: bytes) -> None:
    """The end of the connection ends it, also within a message."""
    client, server = pair
    link = Link(client)
    server.sendall(start)
    server.close()
    while link.is_open:
        link.readable()
    assert (link.messages, link.close_code) == (0, None)


def test_reset(pair: Pair) -> None:
    """A connection that breaks ends it."""
    client, _ = pair
    link = Link(client)
    client.close()
    link.readable()
    assert not link.is_open


def test_leave(pair: Pair) -> None:
    """Who leaves says so, with 1000."""
    client, server = pair
    link = Link(client)
    link.leave()
    (goodbye,) = parse(server.recv(100))
    assert (goodbye.opcode, goodbye.data) == (Opcode.CLOSE, (1000).to_bytes(2))
    link.leave()


def test_pong_that_the_kernel_refuses() -> None:
    """A pong may get lost; a connection that breaks meanwhile has ended."""

    class Full(Feed):
        error: type[OSError] = BlockingIOError

        def send(self, data: bytes) -> int:
            raise self.error

    feed = Full(frame(Opcode.PING, b"") * 2, [2])
    link = Link(feed)  # type: ignore[arg-type]
    link.readable()
    assert link.is_open
    feed.error = BrokenPipeError
    link.readable()
    assert not link.is_open
    link.writable()


@pytest.mark.parametrize("size", [8, 9, 200, 70_000])
def test_frame(pair: Pair, size: int) -> None:
    """A streamer's frame has its size and its stamp, and the library can read it."""
    client, server = pair
    streamer = Streamer(client, lambda link, wanted: None)
    streamer.send(Frame(size, NOISE), 123456789)
    client.shutdown(socket.SHUT_WR)
    data = b"".join(iter(lambda: server.recv(65536), b""))
    (sent,) = parse(data)
    assert (sent.opcode, len(sent.data)) == (Opcode.BINARY, size)
    assert int.from_bytes(sent.data[:STAMP_SIZE]) == 123456789
    assert not streamer.is_blocked


def test_blocked_streamer(pair: Pair) -> None:
    """What the kernel refuses is sent later, every byte in order; nothing goes between."""
    client, server = pair
    wanted: list[bool] = []
    streamer = Streamer(client, lambda link, want: wanted.append(want))
    big = Frame(900_000, NOISE)
    count = 0
    while not streamer.is_blocked:
        streamer.send(big, count)
        count += 1
    streamer.send(Frame(100, NOISE), count)
    assert wanted == [True]

    server.sendall(frame(Opcode.PING, b"not now"))
    streamer.readable()

    data = b""
    server.settimeout(0.01)
    while streamer.is_blocked:
        streamer.writable()
        try:
            data += server.recv(1 << 20)
        except TimeoutError:
            continue
    client.shutdown(socket.SHUT_WR)
    server.settimeout(5)
    data += b"".join(iter(lambda: server.recv(1 << 20), b""))
    assert wanted == [True, False]
    frames = parse(data)
    assert [len(sent.data) for sent in frames] == [900_000] * count + [100]
    stamps = [int.from_bytes(sent.data[:STAMP_SIZE]) for sent in frames]
    assert stamps == list(range(count + 1))


def test_streamer_that_has_lost_its_connection(pair: Pair) -> None:
    """A connection that breaks ends it, while it sends and while it waits."""
    client, _ = pair
    streamer = Streamer(client, lambda link, wanted: None)
    waiting = Streamer(client, lambda link, wanted: None)
    while not waiting.is_blocked:
        waiting.send(Frame(900_000, NOISE), 0)
    waiting.writable()
    assert waiting.is_blocked
    client.close()
    streamer.send(Frame(8, NOISE), 0)
    waiting.writable()
    assert not streamer.is_open
    assert not waiting.is_open
