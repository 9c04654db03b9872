"""What streamers and viewers can ask for beyond the base protocol, against the real process."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from harness import RelayProcess, close_code, receive, send
from rawclient import SMALL, Message, RawClient

from relayd.protocol import FORMAT_LIMIT, STREAMER_FEATURES, VIEWER_FEATURES

StartRelay = Callable[..., RelayProcess]

FORMAT = {"codec": "avc1.42E01F", "width": 720, "height": 1600, "more": [None, 0.5, "é\ud800"]}

KEYFRAME_REQUEST = {"type": "keyframe_request"}

SIZE = 20_000


@pytest.fixture(scope="module")
def groupless() -> Iterator[RelayProcess]:
    """A relay that keeps no group, and little for a slow viewer."""
    with RelayProcess(env={"GROUP_BUFFER": "0", "VIEWER_BUFFER": "200KiB"}) as relay:
        yield relay


def numbered(number: int, size: int = SIZE) -> bytes:
    """Return a frame that holds its number."""
    return number.to_bytes(4) * (size // 4)


def number(frame: Message) -> int:
    """Return the number of a frame."""
    assert isinstance(frame, bytes)
    return int.from_bytes(frame[:4])


def send_keyframe(streamer: RawClient, frame: bytes) -> None:
    """Send a marked keyframe."""
    streamer.send({"type": "keyframe"})
    streamer.send(frame)


def push(streamer: RawClient, viewer: RawClient, numbers: range, group: int = 0) -> None:
    """Send numbered frames, each when its predecessor has arrived, with keyframes every so many."""
    for n in numbers:
        if group and n % group == 0:
            streamer.send({"type": "keyframe"})
        streamer.send(numbered(n))
        assert number(viewer.receive()) == n


# What is granted.


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ([], []),
        (["resume"], ["resume"]),
        (["stats", "nonsense", "resume", 7, None, ["viewers"], "resume"], ["resume", "stats"]),
        (["gaps", "status", "format", "Resume"], []),
        (STREAMER_FEATURES, list(STREAMER_FEATURES)),
    ],
)
def test_streamer_features(relay: RelayProcess, asked: list[object], granted: list[str]) -> None:
    """A streamer is granted what it asked for; what the relay does not know it drops silently."""
    with relay.register(None, features=asked) as (_, reply):
        assert reply["features"] == granted
        with_token = ["resume_token"] if "resume" in granted else []
        assert list(reply) == ["type", "stream_id", "features", *with_token]


def test_tokens_differ(relay: RelayProcess) -> None:
    """Every resume token is new, and too long to be guessed."""
    tokens = set()
    for _ in range(10):
        with relay.register("same", features=["resume"]) as (_, reply):
            tokens.add(reply["resume_token"])
    assert len(tokens) == 10
    assert min(map(len, tokens)) >= 20


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ([], []),
        (["status", "x", {}, "gaps", "gaps"], ["gaps", "status"]),
        (["resume", "viewers"], []),
        (VIEWER_FEATURES, list(VIEWER_FEATURES)),
    ],
)
def test_viewer_features(relay: RelayProcess, asked: list[object], granted: list[str]) -> None:
    """A viewer is granted what it asked for; what the relay does not know it drops silently."""
    with relay.stream() as (_, stream_id), relay.subscribe(stream_id, features=asked) as (_, reply):
        assert reply == {"type": "subscribed", "stream_id": stream_id, "features": granted}


@pytest.mark.parametrize("features", ["resume", {"resume": True}, 7, False], ids=repr)
def test_no_list_of_features(relay: RelayProcess, features: object) -> None:
    """Features that are no list are refused."""
    with relay.stream("there"):
        for path, kind in (("/ws/stream", "register"), ("/ws/view/there", "subscribe")):
            with relay.connect(path) as client:
                send(client, type=kind, features=features)
                assert receive(client) == {"type": "error", "message": "invalid message"}
                assert close_code(client) == 4400


def test_nothing_unasked(groupless: RelayProcess) -> None:
    """A streamer is told what it asked for and nothing else, whatever happens."""
    feedback = ("viewers", "keyframe_requests", "stats")
    relay = groupless
    with ExitStack() as stack:

        def start(features: list[str]) -> RawClient:
            streamer = stack.enter_context(RawClient.streamer(relay, None, features=features))
            send_keyframe(streamer, b"frame")
            streamer.send("not understood")
            return streamer

        streamers = {feature: start([feature]) for feature in feedback}
        nothing, resume = start([]), start(["resume"])
        for streamer in (*streamers.values(), nothing, resume):
            viewer = RawClient.viewer(relay, streamer.reply["stream_id"], features=VIEWER_FEATURES)
            stack.enter_context(viewer)
        first_stats = streamers["stats"].receive()
        kinds = {"viewers": {"viewers"}, "keyframe_requests": {"keyframe_request"}, "stats": set()}
        for feature, streamer in streamers.items():
            assert {message["type"] for message in streamer.leave()} == kinds[feature]
        assert first_stats["type"] == "stats"
        assert nothing.leave() == []
        assert resume.leave() == []


# Format.


@pytest.mark.parametrize("features", [[], ["format", "gaps"], ["nonsense"]])
@pytest.mark.parametrize("video_format", [FORMAT, {}, {"a": "x" * (FORMAT_LIMIT - 8)}])
def test_format(relay: RelayProcess, video_format: dict[str, Any], features: list[str]) -> None:
    """A streamer's format is passed on to viewers that know of features, and to no others."""
    with relay.register("formatted", format=video_format) as (_, reply):
        assert reply == {"type": "registered", "stream_id": "formatted"}
        with relay.subscribe("formatted", features=features) as (_, answer):
            assert answer.pop("features") == [name for name in features if name != "nonsense"][::-1]
            assert answer.pop("format") == video_format
            assert answer == {"type": "subscribed", "stream_id": "formatted"}
        with relay.subscribe("formatted") as (_, answer):
            assert answer == {"type": "subscribed", "stream_id": "formatted"}


@pytest.mark.parametrize(
    "video_format",
    ["avc1", [], [FORMAT], 5, True, {"a": "x" * (FORMAT_LIMIT - 7)}, {"a": float("nan")}],
    ids=lambda value: repr(value)[:20],
)
def test_invalid_format(relay: RelayProcess, video_format: object) -> None:
    """A format that is no object, is over 4 KiB or is no JSON is refused."""
    with relay.connect("/ws/stream") as streamer:
        send(streamer, type="register", stream_id="bad", format=video_format)
        assert receive(streamer) == {"type": "error", "message": "invalid format"}
        assert close_code(streamer) == 4400
    with relay.stream("bad"):
        pass


# What a streamer is told.


def test_viewers(relay: RelayProcess) -> None:
    """A streamer is told how many viewers it has: once at first, and on every change."""

    def viewers(count: int) -> dict[str, Any]:
        return {"type": "viewers", "count": count}

    with RawClient.streamer(relay, "counted", features=["viewers"]) as streamer:
        assert streamer.receive() == viewers(0)
        with RawClient.viewer(relay, "counted") as lost:
            assert streamer.receive() == viewers(1)
            with relay.view("counted"):
                assert streamer.receive() == viewers(2)
            assert streamer.receive() == viewers(1)
            lost.reset()
            assert streamer.receive() == viewers(0)
        assert streamer.leave() == []


def test_keyframe_requests(groupless: RelayProcess) -> None:
    """Joiners without a group make one request at once, and one a second later if still needed."""
    relay = groupless
    features = ["viewers", "keyframe_requests"]
    with ExitStack() as stack:

        def start(stream_id: str) -> RawClient:
            streamer = stack.enter_context(RawClient.streamer(relay, stream_id, features=features))
            send_keyframe(streamer, b"first")
            return streamer

        def burst(stream_id: str) -> list[RawClient]:
            viewers = [RawClient.viewer(relay, stream_id) for _ in range(3)]
            return [stack.enter_context(viewer) for viewer in viewers]

        def viewers(*counts: int) -> list[Message]:
            return [{"type": "viewers", "count": count} for count in counts]

        served, waiting = start("served"), start("waiting")
        served_viewers = burst("served")
        began = time.monotonic()
        waiting_viewers = burst("waiting")
        for streamer in (served, waiting):
            messages = streamer.receive_until(*viewers(3))
            messages.remove(KEYFRAME_REQUEST)
            assert messages == viewers(0, 1, 2, 3)
        send_keyframe(served, b"second")
        for viewer in served_viewers:
            assert viewer.receive() == b"second"
        assert waiting.receive() == KEYFRAME_REQUEST
        assert time.monotonic() - began > 0.9
        # Those of the other stream would have had their second one before.
        served_viewers[0].leave()
        assert served.receive_until(*viewers(2)) == viewers(2)
        # Now one is due at once again.
        stack.enter_context(RawClient.viewer(relay, "served"))
        assert KEYFRAME_REQUEST in [served.receive(), served.receive()]
        send_keyframe(waiting, b"second")
        for viewer in waiting_viewers:
            assert viewer.receive() == b"second"


def test_stats(groupless: RelayProcess) -> None:
    """Once a second, a streamer learns how its viewers fare; without viewers it learns nothing."""
    relay = groupless
    with (
        RawClient.streamer(relay, "watched", features=["stats"]) as streamer,
        RawClient.streamer(relay, "idle", features=["stats"]) as idle,
        RawClient.viewer(relay, "watched", SMALL, features=["gaps"]) as slow,
        RawClient.viewer(relay, "watched") as fast,
    ):
        push(streamer, fast, range(300))
        stalled = receive_stats(streamer)
        assert stalled.items() >= {"viewers": 2, "slow_viewers": 1}.items()
        assert 0 < stalled["max_lag"] < 5
        began = time.monotonic()
        gaps = [m["frames"] for m in slow.receive_until(numbered(299)) if isinstance(m, dict)]
        push(streamer, fast, range(5))
        slow.receive_until(numbered(4))
        caught_up = receive_stats(streamer)
        assert 0 < stalled["frames_dropped"] <= sum(gaps)
        assert stalled["frames_dropped"] + caught_up["frames_dropped"] == sum(gaps)
        keeps_up = receive_stats(streamer)
        assert 1.8 < time.monotonic() - began < 4
        assert keeps_up.pop("max_lag") < 0.2
        assert keeps_up == {"type": "stats", "viewers": 2, "slow_viewers": 0, "frames_dropped": 0}
        assert idle.leave() == []


def receive_stats(streamer: RawClient) -> dict[str, Any]:
    """Wait for the next stats."""
    stats = streamer.receive()
    assert isinstance(stats, dict)
    assert list(stats) == ["type", "viewers", "slow_viewers", "frames_dropped", "max_lag"]
    return stats


# What a viewer is told.


def check_gaps(messages: list[Message], first: int) -> int:
    """Check that every frame from the first one on was received, or counted by a gap before it.

    Return the number of gaps.
    """
    due, gaps = first, 0
    for before, message in itertools.pairwise([b"", *messages]):
        if isinstance(message, bytes):
            assert number(message) == due
            assert message == numbered(due)
            due += 1
        else:
            assert isinstance(before, bytes), "two gaps without a frame between them"
            assert isinstance(message, dict)
            assert message == {"type": "gap", "frames": message["frames"]}
            assert message["frames"] > 0
            due += message["frames"]
            gaps += 1
    return gaps


@pytest.mark.parametrize("group", [0, 10], ids=["unmarked", "marked"])
def test_gaps(groupless: RelayProcess, group: int) -> None:
    """Before the first frame after a skip, a viewer is told how many frames it did not get."""
    relay = groupless
    with (
        RawClient.streamer(relay, "skipped") as streamer,
        RawClient.viewer(relay, "skipped", SMALL, features=["gaps"]) as slow,
        RawClient.viewer(relay, "skipped", SMALL) as untold,
        RawClient.viewer(relay, "skipped", features=["gaps"]) as fast,
    ):
        for first in (0, 301):
            end = first + 300
            push(streamer, fast, range(first, end), group)
            if group:
                send_keyframe(streamer, numbered(end))
            else:
                streamer.send(numbered(end))
            messages = slow.receive_until(numbered(end))
            assert check_gaps(messages, first) > 0
            after_gaps = [
                after for gap, after in itertools.pairwise(messages) if not isinstance(gap, bytes)
            ]
            if group:
                assert {number(frame) % group for frame in after_gaps} == {0}
            frames = untold.receive_until(numbered(end))
            assert len(frames) < 301
            assert frames == sorted(frames, key=number)
            assert number(fast.receive()) == end


def test_keyframe_request_after_skip(groupless: RelayProcess) -> None:
    """A viewer that lost frames on a marked stream has a keyframe asked for, and begins there."""
    relay = groupless
    with (
        RawClient.streamer(relay, "long", features=["keyframe_requests"]) as streamer,
        RawClient.viewer(relay, "long", SMALL, features=["gaps"]) as slow,
        RawClient.viewer(relay, "long") as fast,
    ):
        streamer.send({"type": "keyframe"})
        push(streamer, fast, range(300))
        assert streamer.receive() == KEYFRAME_REQUEST
        send_keyframe(streamer, numbered(300))
        messages = slow.receive_until(numbered(300))
        assert check_gaps(messages, 0) == 1
        assert isinstance(messages[-2], dict)
        assert streamer.leave() == []


def test_status(relay: RelayProcess) -> None:
    """A viewer that asked is told when the streamer is lost and when it is back, in order."""
    with (
        RawClient.streamer(relay, "moving", features=["resume"], format={"width": 720}) as first,
        RawClient.viewer(relay, "moving", features=["status"]) as viewer,
        RawClient.viewer(relay, "moving", features=["gaps"]) as untold,
    ):
        first.send(b"before")
        assert viewer.receive() == b"before"
        first.reset()
        assert viewer.receive() == {"type": "stream_paused"}
        with RawClient.viewer(relay, "moving", features=["status"]) as joiner:
            assert joiner.receive() == {"type": "stream_paused"}
            with RawClient.streamer(
                relay, "moving", resume_token=first.token, format={"width": 1080}
            ) as second:
                second.send(b"after")
                for who in (viewer, joiner):
                    assert who.receive() == {"type": "stream_resumed", "format": {"width": 1080}}
                    assert who.receive() == b"after"
                second.leave()
            for who in (viewer, joiner):
                assert who.receive() == {"type": "stream_ended", "stream_id": "moving"}
        assert untold.receive_until(1000) == [
            b"before",
            b"after",
            {"type": "stream_ended", "stream_id": "moving"},
            1000,
        ]


def test_format_kept(relay: RelayProcess) -> None:
    """A streamer that resumes without a format keeps the one that it gave before."""
    video_format = {"width": 720}
    with (
        RawClient.streamer(relay, "kept", features=["resume"], format=video_format) as first,
        RawClient.viewer(relay, "kept", features=["status"]) as viewer,
    ):
        first.reset()
        assert viewer.receive() == {"type": "stream_paused"}
        with RawClient.streamer(relay, "kept", resume_token=first.token):
            assert viewer.receive() == {"type": "stream_resumed", "format": video_format}
            with relay.subscribe("kept", features=[]) as (_, reply):
                assert reply["format"] == video_format
