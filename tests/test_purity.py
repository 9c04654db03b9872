"""A client of the base protocol never sees a byte that the base protocol does not show.

Every byte that it receives is compared, with every extension in use by the others.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from harness import RelayProcess
from rawclient import SMALL, Message, RawClient
from websockets.frames import Frame, Opcode

from relayd.protocol import STREAMER_FEATURES, VIEWER_FEATURES

StartRelay = Callable[..., RelayProcess]

CONFIG, KEYFRAME = {"type": "config"}, {"type": "keyframe"}

FORMAT = {"codec": "avc1.42E01F"}

SIZE = 20_000


@pytest.fixture(params=["uvloop", "asyncio"])
def relay(start_relay: StartRelay, request: pytest.FixtureRequest) -> RelayProcess:
    """A relay on each event loop that sends no pings and keeps little for a slow viewer."""
    settings = {"PING_INTERVAL": "0", "VIEWER_BUFFER": "200KiB", "RESUME_WINDOW": "1h"}
    return start_relay(env=settings, loop=request.param)


def as_sent(message: Message | str) -> bytes:
    """Return the bytes of a text, of a video frame, or of a close frame with this code."""
    if isinstance(message, int):
        frame = Frame(Opcode.CLOSE, message.to_bytes(2))
    elif isinstance(message, bytes):
        frame = Frame(Opcode.BINARY, message)
    else:
        assert isinstance(message, str)
        frame = Frame(Opcode.TEXT, message.encode())
    return frame.serialize(mask=False)


def kinds(messages: list[Message]) -> set[str]:
    """Return the types of the signalling among messages."""
    return {message["type"] for message in messages if isinstance(message, dict)}


def wait_for(streamer: RawClient, kind: str) -> set[str]:
    """Read until a message of this type comes; return the types up to it."""
    seen: set[str] = set()
    while kind not in seen:
        seen |= kinds([streamer.receive()])
    return seen


def test_plain_viewer(relay: RelayProcess) -> None:
    """A plain viewer gets the frames and what the base protocol shows, to the byte."""
    everything: dict[str, object] = {"features": STREAMER_FEATURES, "format": FORMAT}
    curious = list(VIEWER_FEATURES)
    expected: list[Message | str] = ['{"type": "subscribed", "stream_id": "pure"}']
    with (
        RawClient.streamer(relay, "pure", **everything) as first,
        RawClient.viewer(relay, "pure") as plain,
        RawClient.viewer(relay, "pure", features=curious) as full,
        RawClient.viewer(relay, "pure", SMALL, features=curious) as slow,
    ):

        def push(streamer: RawClient, *messages: Message) -> None:
            for message in messages:
                streamer.send(message)
                if isinstance(message, bytes):
                    expected.append(message)
                    assert plain.receive() == message

        push(first, CONFIG, b"config", KEYFRAME, *(n.to_bytes(4) * (SIZE // 4) for n in range(300)))
        told = wait_for(first, "keyframe_request") | wait_for(first, "stats")
        assert told == {"viewers", "keyframe_request", "stats"}
        group = [b"keyframe", b"one", b"two" * 100, b"three" * SIZE]
        push(first, KEYFRAME, *group)
        assert kinds(slow.receive_until(group[-1])) == {"gap"}
        first.reset()
        full.receive_until({"type": "stream_paused"})
        with (
            RawClient.viewer(relay, "pure") as joiner,
            RawClient.streamer(relay, "pure", resume_token=first.token, **everything) as second,
        ):
            joined_at = len(expected)
            second.send(b"of no use to anyone before a keyframe")
            push(second, CONFIG, b"new config", KEYFRAME, b"new keyframe")
            resume = {"resume_token": second.token}
            with RawClient.streamer(relay, "pure", **resume, **everything) as third:
                assert third.reply["resumed"] is True
                second.receive_until(4409)
                push(third, CONFIG, b"newer config", KEYFRAME, b"newer keyframe", b"end")
                third.leave()
            ending: list[Message | str] = ['{"type": "stream_ended", "stream_id": "pure"}', 1000]
            for viewer in (plain, joiner):
                viewer.receive_until(1000)
                viewer.send(1000)
                viewer.finish()
            assert plain.received == b"".join(map(as_sent, expected + ending))
            shown_first = [expected[0], b"config", *group]
            after = expected[joined_at:]
            assert joiner.received == b"".join(map(as_sent, shown_first + after + ending))
        assert kinds(full.receive_until(1000)) == {
            "stream_resumed",
            "stream_paused",
            "stream_ended",
        }


@pytest.mark.parametrize("relay", ["uvloop"], indirect=True)
def test_plain_streamer(relay: RelayProcess) -> None:
    """A plain streamer gets the answer to `register` and to its close frame, and nothing else.

    Nor does one that marks its frames, although it could be asked for keyframes.
    """
    frames = [n.to_bytes(4) * (SIZE // 4) for n in range(300)]
    curious = list(VIEWER_FEATURES)
    with ExitStack() as stack:
        enter = stack.enter_context
        streamers = {name: enter(RawClient.streamer(relay, name)) for name in ("plain", "marked")}
        full = {name: enter(RawClient.viewer(relay, name, features=curious)) for name in streamers}
        slow = [enter(RawClient.viewer(relay, name, SMALL, features=curious)) for name in streamers]
        # Its stats come when the others' would have come before.
        clock = enter(RawClient.streamer(relay, "clock", features=["stats"]))
        enter(RawClient.viewer(relay, "clock"))
        streamers["marked"].send(KEYFRAME)
        for name, streamer in streamers.items():
            for frame in frames:
                streamer.send(frame)
                assert full[name].receive() == frame
        wait_for(clock, "stats")
        for name, streamer in streamers.items():
            enter(RawClient.viewer(relay, name, features=curious))
            streamer.send(KEYFRAME if name == "marked" else "not understood")
            streamer.send(b"end")
            assert full[name].receive() == b"end"
        for viewer in slow:
            assert "gap" in kinds(viewer.receive_until(b"end"))
        for name, streamer in streamers.items():
            streamer.leave()
            answer = json.dumps({"type": "registered", "stream_id": name})
            assert streamer.received == as_sent(answer) + as_sent(1000)


def test_plain_viewer_refused(relay: RelayProcess) -> None:
    """A plain client that is refused gets the error and the close frame, to the byte."""
    with (
        RawClient.streamer(relay, "pure", features=STREAMER_FEATURES, format=FORMAT) as streamer,
        RawClient.streamer(relay, "pure") as rival,
        RawClient.viewer(relay, "gone") as viewer,
    ):
        for client, message, code in (
            (rival, "stream id already in use", 4409),
            (viewer, "stream not found", 4404),
        ):
            client.receive_until(code)
            client.send(code)
            client.finish()
            error = json.dumps({"type": "error", "message": message})
            assert client.received == as_sent(error) + as_sent(code)
        assert streamer.leave() == [{"type": "viewers", "count": 0}]
