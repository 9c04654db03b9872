"""Tests of how the load generator opens connections."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from harness import PATIENCE, RelayProcess
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from relayd.ctl import wire
from relayd.ctl.wire import Closed, HttpRefusal, LinkError, Refused, Target, open_link

StartServer = Callable[..., int]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers that accept one client, send it bytes, and close unless told otherwise."""
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                client.recv(65536)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                client.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append(thread)
        port: int = listener.getsockname()[1]
        return port

    yield start
    for thread in threads:
        thread.join(PATIENCE)
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames(size: int) -> None:
    """The library reads the frames as they were meant."""
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    reader = StreamReader()
    reader.feed_data(wire.header(wire.BINARY, size) + wire.masked(payload))
    parser = Frame.parse(reader.read_exact, mask=True, max_size=None)
    with pytest.raises(StopIteration) as finished:
        next(parser)
    frame = finished.value.value
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.BINARY, payload, True)


def test_open(relay: RelayProcess) -> None:
    """Streamer and viewer are let in, and what comes next is a frame."""
    target = Target("127.0.0.1", relay.port)
    with target.open_streamer("a") as streamer, target.open_viewer("a") as viewer:
        assert relay.health()["viewers"] == 1
        streamer.sendall(wire.header(wire.BINARY, 5) + wire.masked(b"frame"))
        viewer.settimeout(PATIENCE)
        assert viewer.recv(100) == b"\x82\x05frame"


def test_open_without_signalling(relay: RelayProcess) -> None:
    """A relay of another kind gets no first message."""
    target = Target("127.0.0.1", relay.port, "/ws/stream", "/ws/view/{stream}", signalling=False)
    with target.open_viewer("a") as viewer:
        assert not viewer.getblocking()
        with pytest.raises(BlockingIOError):
            viewer.recv(100)


def test_refused(relay: RelayProcess) -> None:
    """An error message is the reason."""
    with pytest.raises(Refused, match="stream not found"):
        Target("127.0.0.1", relay.port).open_viewer("nobody")


def test_http_refusal(relay: RelayProcess) -> None:
    """A status other than 101 is the reason."""
    with pytest.raises(HttpRefusal) as caught:
        open_link("127.0.0.1", relay.port, "/nothing", None)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"x" * 20000,
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
    ],
)
def test_no_websocket(start_server: StartServer, answer: bytes) -> None:
    """A server that does not speak WebSocket is told apart."""
    with pytest.raises(LinkError, match="no WebSocket server answers there"):
        open_link("127.0.0.1", start_server(answer), "/", None)


def test_closed_without_answer(start_server: StartServer) -> None:
    """A server that hangs up is told apart."""
    with pytest.raises(Closed, match="the server closed without a close code"):
        open_link("127.0.0.1", start_server(b""), "/", None)


def test_unreachable() -> None:
    """A server that is not there is the system's error."""
    with pytest.raises(ConnectionRefusedError):
        open_link("127.0.0.1", 1, "/", None)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (b"\x81\x02hi", "did not answer as relayd does"),
        (b"\x89\x01x\x81\x02hi", "did not answer as relayd does"),
        (b"\x81\x7e\x01\x00" + b"x" * 256, "did not answer as relayd does"),
        (b"\x81\x7f" + (1 << 17).to_bytes(8) + b"x" * (1 << 17), "did not answer as relayd does"),
        (b"\x88\x02\x03\xf4", "the server closed with code 1012"),
    ],
)
def test_answer(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, frames: bytes, reason: str
) -> None:
    """The answer to the first message is what relayd would say, or the reason."""
    monkeypatch.setattr(wire.os, "urandom", bytes)
    # For a key of zeros, as the library computes it.
    from websockets.utils import accept_key

    accept = accept_key("AAAAAAAAAAAAAAAAAAAAAA==")
    head = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    with pytest.raises(LinkError, match=reason):
        open_link("127.0.0.1", start_server(head.encode() + frames), "/", "{}")


def test_ipv6_address(monkeypatch: pytest.MonkeyPatch, start_server: StartServer) -> None:
    """The name of the host is as in a URL."""
    sent: list[bytes] = []

    class Connection:
        def sendall(self, data: bytes) -> None:
            sent.append(data)

        def recv(self, size: int) -> bytes:
            return b""

    with pytest.raises(Closed):
        wire._shake_hands(Connection(), "::1", 80, "/")  # type: ignore[arg-type]
    assert b"\r\nHost: [::1]:80\r\n" in sent[0]
