"""The life of a streamer's connection, against the real process."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from harness import RelayProcess, address, close_code, receive, send
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

MIB = 2**20


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    """A relay on each event loop."""
    with RelayProcess(loop=request.param) as relay:
        yield relay


def test_generated_id(relay: RelayProcess) -> None:
    """A streamer that names no id gets eight random letters and digits."""
    for fields in ({"stream_id": None}, {}):
        with relay.connect("/ws/stream") as streamer:
            send(streamer, type="register", **fields)
            reply = receive(streamer)
            assert list(reply) == ["type", "stream_id"]
            assert re.fullmatch(r"[A-Za-z0-9]{8}", reply["stream_id"])


@pytest.mark.parametrize("path", ["/ws/stream", "/ws/stream/", "/ws/stream?token=x"])
def test_custom_id(relay: RelayProcess, path: str) -> None:
    """A streamer gets the id that it asks for; a slash or a query in its path does not matter."""
    with relay.connect(path) as streamer:
        streamer.send(' {"stream_id":"my_Phone-1", "extra": [1], "type" :"register"}\n')
        assert receive(streamer) == {"type": "registered", "stream_id": "my_Phone-1"}


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "[]",
        "null",
        '{"stream_id": null}',
        '{"type": 7}',
        '{"type": "subscribe", "stream_id": "x"}',
        "[" * 16_000,
        b"a video frame",
        bytes(200_000),
    ],
    ids=repr,
)
def test_invalid_message(relay: RelayProcess, message: str | bytes) -> None:
    """A first message that is no `register`, or is binary, is refused."""
    with relay.connect("/ws/stream") as streamer:
        streamer.send(message)
        assert receive(streamer) == {"type": "error", "message": "invalid message"}
        assert close_code(streamer) == 4400


@pytest.mark.parametrize("stream_id", ["", "a b", "é", "x" * 65, 5, ["x"], "a/b"])
def test_invalid_stream_id(relay: RelayProcess, stream_id: object) -> None:
    """An id that can't be one is refused."""
    with relay.connect("/ws/stream") as streamer:
        send(streamer, type="register", stream_id=stream_id)
        assert receive(streamer) == {"type": "error", "message": "invalid stream id"}
        assert close_code(streamer) == 4400


def test_stream_id_in_use(relay: RelayProcess) -> None:
    """An id that another streamer has is refused; the other goes on."""
    with relay.stream("taken") as (first, _), relay.view("taken") as viewer:
        with relay.connect("/ws/stream") as second:
            send(second, type="register", stream_id="taken")
            assert receive(second) == {"type": "error", "message": "stream id already in use"}
            assert close_code(second) == 4409
        first.send(b"frame")
        assert viewer.recv() == b"frame"


def test_id_is_free_again(relay: RelayProcess) -> None:
    """The id of a streamer that left can be taken at once."""
    for _ in range(5):
        with relay.stream("again"):
            pass


def test_timed_out(start_relay: Callable[..., RelayProcess]) -> None:
    """A streamer that says nothing in time is refused; one that registered may be silent."""
    relay = start_relay("--register-timeout", "300ms")
    with relay.connect("/ws/stream") as silent, relay.stream("quiet"):
        assert receive(silent) == {"type": "error", "message": "timed out"}
        assert close_code(silent) == 4408
        assert relay.health()["streams"] == 1


def test_too_many_streams(start_relay: Callable[..., RelayProcess]) -> None:
    """MAX_STREAMS is a limit; a streamer that leaves makes room."""
    relay = start_relay(env={"MAX_STREAMS": "1"})
    with relay.stream(), relay.connect("/ws/stream") as second:
        send(second, type="register")
        assert receive(second) == {"type": "error", "message": "too many streams"}
        assert close_code(second) == 4429
    with relay.stream():
        pass


def test_frame_too_big(start_relay: Callable[..., RelayProcess]) -> None:
    """A frame over MAX_FRAME_SIZE closes the connection with 1009 and no message."""
    relay = start_relay("--max-frame-size", "100000")
    with relay.stream() as (streamer, stream_id), relay.view(stream_id) as viewer:
        streamer.send(bytes(100_000))
        assert viewer.recv() == bytes(100_000)
        streamer.send(bytes(100_001))
        assert close_code(streamer) == 1009
        assert receive(viewer) == {"type": "stream_ended", "stream_id": stream_id}
        assert close_code(viewer) == 1000


def test_largest_frame(relay: RelayProcess) -> None:
    """A frame of MAX_FRAME_SIZE arrives whole, also in fragments."""
    frame = bytes(range(256)) * (16 * MIB // 256)
    with relay.stream() as (streamer, stream_id), relay.view(stream_id) as viewer:
        streamer.send(frame)
        assert viewer.recv() == frame
        streamer.send([frame[:5], b"", frame[5:]])
        assert viewer.recv() == frame


@pytest.mark.parametrize("text", ["x" * 16_385, ["x" * 10_000, "x" * 6_385]], ids=len)
def test_signalling_too_big(relay: RelayProcess, text: str | list[str]) -> None:
    """Text over 16 KiB closes the connection with 1009 and no message, at any time."""
    with relay.connect("/ws/stream") as stranger:
        send_in_vain(stranger, text)
        assert close_code(stranger) == 1009
    with relay.stream() as (streamer, _):
        send_in_vain(streamer, text)
        assert close_code(streamer) == 1009


def send_in_vain(client: ClientConnection, text: str | list[str]) -> None:
    """Send a text that the relay refuses, maybe before its last fragment is on the way."""
    with suppress(ConnectionClosed):
        client.send(text)


def test_text_not_understood(relay: RelayProcess) -> None:
    """Text after `register` is ignored, counted, and logged once."""
    with relay.stream() as (streamer, stream_id), relay.view(stream_id) as viewer:
        for text in ("hello", '{"type": "register"}', "x" * 16_384):
            streamer.send(text)
        streamer.send(b"frame")
        assert viewer.recv() == b"frame"
    relay.log.wait_for(f"streamer {stream_id} .*: left after .*: 1 frames, 0.0 MB, 3 messages")
    assert len(relay.log.matching(f"streamer {stream_id} .*: ignoring text")) == 1


def test_frames_in_order(relay: RelayProcess) -> None:
    """Frames of every size arrive byte for byte, in order, at every viewer."""
    sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000, 3]
    frames = [bytes([n]) * size for n, size in enumerate(sizes)]
    with (
        relay.stream() as (streamer, stream_id),
        relay.view(stream_id) as one,
        relay.view(stream_id) as two,
    ):
        for frame in frames:
            streamer.send(frame)
        for viewer in (one, two):
            assert [viewer.recv() for _ in frames] == frames


def test_how_it_ended(relay: RelayProcess) -> None:
    """The log says of every streamer when it came, when it left and how."""
    with relay.stream("logged-end") as (streamer, _):
        peer = address(streamer)
    relay.log.wait_for(f" info streamer logged-end {peer}: registered$")
    relay.log.wait_for(f" info streamer logged-end {peer}: left after ")
    with relay.stream("logged-loss") as (streamer, _):
        streamer.socket.shutdown(socket.SHUT_RDWR)
    relay.log.wait_for("streamer logged-loss .*: lost after ")
    with relay.connect("/ws/stream") as stranger:
        peer = address(stranger)
        stranger.send("hello")
        relay.log.wait_for(f"streamer {peer}: refused: invalid message$")
    with relay.connect("/ws/stream") as stranger:
        peer = address(stranger)
    relay.log.wait_for(f"streamer {peer}: left before its first message$")
