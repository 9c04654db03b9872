"""The life of a viewer's connection, against the real process."""

import socket
from collections.abc import Callable, Iterator

import pytest
from harness import RelayProcess, address, close_code, receive, send


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    """A relay on each event loop, with a stream that is there all the time."""
    with RelayProcess(loop=request.param) as relay, relay.stream("there"):
        yield relay


@pytest.mark.parametrize("path", ["/ws/view/there", "/ws/view/there/", "/ws/view/there?muted=1"])
@pytest.mark.parametrize("named", [True, False])
def test_subscribe(relay: RelayProcess, path: str, named: bool) -> None:
    """A viewer subscribes to the stream in its path, whether its message repeats the id or not."""
    with relay.connect(path) as viewer:
        viewer.send('{"x": {}, "type": "subscribe"' + (', "stream_id": "there"}' if named else "}"))
        assert receive(viewer) == {"type": "subscribed", "stream_id": "there"}


@pytest.mark.parametrize("message", ["", "{", "7", '{"type": "register"}', "{}", b"{}"], ids=repr)
def test_invalid_message(relay: RelayProcess, message: str | bytes) -> None:
    """A first message that is no `subscribe` is refused."""
    with relay.connect("/ws/view/there") as viewer:
        viewer.send(message)
        assert receive(viewer) == {"type": "error", "message": "invalid message"}
        assert close_code(viewer) == 4400


@pytest.mark.parametrize(
    ("path_id", "stream_id"),
    [("there", "no such id!"), ("there", 7), ("a%20b", None), ("x" * 65, None), ("a.b", "a.b")],
)
def test_invalid_stream_id(relay: RelayProcess, path_id: str, stream_id: object) -> None:
    """An id that can't be one is refused, in the path and in the message."""
    with relay.connect(f"/ws/view/{path_id}") as viewer:
        send(viewer, type="subscribe", stream_id=stream_id)
        assert receive(viewer) == {"type": "error", "message": "invalid stream id"}
        assert close_code(viewer) == 4400


def test_stream_id_mismatch(relay: RelayProcess) -> None:
    """An id that is not the one in the path is refused."""
    with relay.connect("/ws/view/there") as viewer:
        send(viewer, type="subscribe", stream_id="elsewhere")
        assert receive(viewer) == {"type": "error", "message": "stream id mismatch"}
        assert close_code(viewer) == 4400


def test_stream_not_found(relay: RelayProcess) -> None:
    """A viewer of an unknown stream is refused."""
    with relay.connect("/ws/view/nowhere") as viewer:
        who = address(viewer)
        send(viewer, type="subscribe", stream_id="nowhere")
        assert receive(viewer) == {"type": "error", "message": "stream not found"}
        assert close_code(viewer) == 4404
    relay.log.wait_for(f"viewer nowhere {who}: refused: stream not found$")


def test_too_many_viewers(start_relay: Callable[..., RelayProcess]) -> None:
    """MAX_VIEWERS_PER_STREAM is a limit of each stream; a viewer that leaves makes room."""
    relay = start_relay("--max-viewers-per-stream", "1")
    with relay.stream("a"), relay.stream("b"):
        with relay.view("a"), relay.view("b"), relay.connect("/ws/view/a") as extra:
            send(extra, type="subscribe")
            assert receive(extra) == {"type": "error", "message": "too many viewers"}
            assert close_code(extra) == 4429
        with relay.view("a"):
            assert relay.health() == {"status": "ok", "streams": 2, "viewers": 1}


def test_timed_out(start_relay: Callable[..., RelayProcess]) -> None:
    """A viewer that says nothing in time is refused; one that subscribed may be silent."""
    relay = start_relay("--register-timeout", "300ms")
    with relay.stream("x"), relay.connect("/ws/view/x") as silent, relay.view("x"):
        assert receive(silent) == {"type": "error", "message": "timed out"}
        assert close_code(silent) == 4408
        assert relay.health()["viewers"] == 1


def test_message_too_big(relay: RelayProcess) -> None:
    """A message over 16 KiB closes a viewer's connection with 1009, text or not."""
    for message in ("x" * 16_385, bytes(16_385)):
        with relay.view("there") as viewer:
            viewer.send(message)
            assert close_code(viewer) == 1009


def test_messages_ignored(relay: RelayProcess) -> None:
    """What a viewer sends after `subscribe` means nothing."""
    with relay.stream("plain") as (streamer, _), relay.view("plain") as viewer:
        viewer.send("hello")
        viewer.send(b"hello")
        send(viewer, type="subscribe", stream_id="plain")
        streamer.send(b"frame")
        assert viewer.recv() == b"frame"
        who = address(viewer)
    relay.log.wait_for(f"viewer plain {who}: .* 1 frames, 0 dropped, 3 messages ignored$")


def test_stream_ended(relay: RelayProcess) -> None:
    """When the streamer leaves, each viewer gets all frames, `stream_ended`, and close 1000."""
    frames = [bytes([n]) * 50_000 for n in range(40)]
    with (
        relay.stream("short") as (streamer, _),
        relay.view("short") as one,
        relay.view("short") as two,
    ):
        viewers = {address(viewer): viewer for viewer in (one, two)}
        for frame in frames:
            streamer.send(frame)
        streamer.close()
        for who, viewer in viewers.items():
            assert [viewer.recv() for _ in frames] == frames
            assert receive(viewer) == {"type": "stream_ended", "stream_id": "short"}
            assert close_code(viewer) == 1000
            relay.log.wait_for(f"viewer short {who}: ended after ")


def test_viewer_leaves(relay: RelayProcess) -> None:
    """A viewer that leaves, cleanly or not, disturbs nobody; the log says how it left."""
    with relay.stream("busy") as (streamer, _), relay.view("busy") as stays:
        with relay.view("busy") as leaves, relay.view("busy") as lost:
            names = address(leaves), address(lost)
            leaves.close()
            lost.socket.shutdown(socket.SHUT_RDWR)
            streamer.send(b"frame")
            assert stays.recv() == b"frame"
        relay.log.wait_for(f" info viewer busy {names[0]}: subscribed$")
        relay.log.wait_for(f" info viewer busy {names[0]}: left after ")
        relay.log.wait_for(f" info viewer busy {names[1]}: lost after ")
        streamer.send(b"more")
        assert stays.recv() == b"more"


def test_slow_viewer(start_relay: Callable[..., RelayProcess]) -> None:
    """A viewer that stops reading loses the oldest frames, whole, and delays nobody."""
    relay = start_relay("--viewer-buffer", "1MiB", "--max-lag", "1min")
    frames = [n.to_bytes(4) * 25_000 for n in range(400)]
    with (
        relay.stream("big") as (streamer, _),
        relay.view("big") as fast,
        relay.view("big", max_queue=1) as slow,
    ):
        who = address(slow)
        for frame in frames:
            streamer.send(frame)
            assert fast.recv() == frame
        relay.log.wait_for(rf"warning stream big: dropped \d+ frames of .* {who}$")
        streamer.close()
        received = []
        while isinstance(message := slow.recv(), bytes):
            received.append(message)
        assert close_code(slow) == 1000
    # Whole frames in order: first those that the kernel took, last the newest.
    numbers = [int.from_bytes(frame[:4]) for frame in received]
    assert received == [frames[n] for n in numbers]
    assert numbers == sorted(numbers)
    assert numbers[-10:] == list(range(390, 400))
    dropped = len(frames) - len(numbers)
    assert dropped > 0
    relay.log.wait_for(f"viewer big {who}: ended .*: {len(numbers)} frames, {dropped} dropped")
