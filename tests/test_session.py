"""Streams and viewers: ids, limits, resume, life cycle."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FakeClock, FakeSink, FakeStreamer

from relayd import session
from relayd.config import Config
from relayd.protocol import (
    Register,
    StreamIdInUse,
    StreamNotFound,
    Subscribe,
    TooManyStreams,
    TooManyViewers,
)
from relayd.relay.fanout import Viewer
from relayd.relay.frames import text_frame
from relayd.session import Registry, Stream


class House:
    """A registry and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.registry = Registry(Config(**settings), self.clock)

    def register(
        self, stream_id: str | None = None, streamer: FakeStreamer | None = None, **request: Any
    ) -> Stream:
        """Register a stream; a streamer of its own is made where none is given."""
        asked = Register(stream_id, **request)
        return self.registry.register(asked, streamer or FakeStreamer())[0]

    def lose(self, stream: Stream) -> None:
        """Let a stream's streamer be lost."""
        self.registry.lose(stream)


def add_viewer(stream: Stream, *features: str) -> tuple[FakeSink, Viewer]:
    """Let a viewer in that asks for features, or for none."""
    sink = FakeSink()
    return sink, stream.add_viewer(sink, "peer", Subscribe(stream.id, features or None))


def replies(streamer: FakeStreamer) -> list[dict[str, Any]]:
    """Return what a streamer was told."""
    return [json.loads(text) for text in streamer.texts]


def token(streamer: FakeStreamer) -> str:
    """Return the resume token that a streamer was given."""
    given: str = replies(streamer)[0]["resume_token"]
    return given


def told(sink: FakeSink) -> list[str]:
    """Return the types of the messages that a viewer was sent, frames as they are."""
    return [
        json.loads(message[message.index(b"{") :])["type"]
        if message.endswith(b"}")
        else message.decode()
        for message in sink.taken
    ]


def test_generated_ids() -> None:
    """Generated ids are eight letters and digits, each another."""
    house = House()
    ids = {house.register().id for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch("[A-Za-z0-9]{8}", stream_id) for stream_id in ids)


def test_collision(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is taken is drawn again."""
    letters: Iterator[str] = iter("a" * 8 + "a" * 8 + "b" * 8)
    monkeypatch.setattr(session.secrets, "choice", lambda alphabet: next(letters))
    house = House()
    assert house.register().id == "aaaaaaaa"
    assert house.register().id == "bbbbbbbb"


def test_id_in_use() -> None:
    """Two streams can't have one id, one after the other they can."""
    house = House(max_streams=1)
    stream = house.register("x")
    with pytest.raises(StreamIdInUse):
        house.register("x")
    house.registry.end(stream)
    assert house.register("x") is not stream


def test_limits() -> None:
    """MAX_STREAMS and MAX_VIEWERS_PER_STREAM are limits, and who leaves makes room."""
    house = House(max_streams=2, max_viewers_per_stream=1)
    one, two = house.register("one"), house.register("two")
    with pytest.raises(TooManyStreams):
        house.register("three")
    _, viewer = add_viewer(one)
    add_viewer(two)
    with pytest.raises(TooManyViewers):
        add_viewer(one)
    assert (house.registry.stream_count, house.registry.viewer_count) == (2, 2)
    one.remove_viewer(viewer)
    add_viewer(one)
    house.registry.end(two)
    assert (house.registry.stream_count, house.registry.viewer_count) == (1, 1)


def test_find() -> None:
    """A stream is found from its registration to its end."""
    house = House()
    with pytest.raises(StreamNotFound):
        house.registry.find("x")
    stream = house.register("x")
    assert house.registry.find("x") is stream
    house.registry.end(stream)
    with pytest.raises(StreamNotFound):
        house.registry.find("x")


def test_frames_and_end() -> None:
    """A viewer gets the frames from when it came to when it left, then the end."""
    house = House()
    stream = house.register("x")
    stream.fan_out.push(b"before")
    stays, _ = add_viewer(stream)
    leaves, viewer = add_viewer(stream)
    stream.fan_out.push(b"both")
    stream.remove_viewer(viewer)
    stream.fan_out.push(b"one")
    house.registry.end(stream)
    stream.remove_viewer(viewer)
    first = text_frame('{"type": "subscribed", "stream_id": "x"}')
    last = text_frame('{"type": "stream_ended", "stream_id": "x"}')
    assert stays.taken == [first, b"both", b"one", last]
    assert stays.ends == [1000]
    assert leaves.taken == [first, b"both"]
    assert leaves.ends == []
    assert stream.viewer_count == 0


def test_plain_streamer() -> None:
    """A streamer that asked for nothing is told its id; when it is lost its stream ends."""
    house = House()
    streamer = FakeStreamer()
    stream = house.register("x", streamer)
    add_viewer(stream)
    assert streamer.texts == ['{"type": "registered", "stream_id": "x"}']
    house.lose(stream)
    assert house.registry.stream_count == 0
    assert streamer.ended is None


def test_resume() -> None:
    """A lost streamer may come back with its token; viewers that asked are told."""
    house = House()
    streamer, again = FakeStreamer(), FakeStreamer()
    stream = house.register("x", streamer, features=("resume",), format={"codec": "a"})
    asked, _ = add_viewer(stream, "status")
    plain, _ = add_viewer(stream)
    house.lose(stream)
    house.clock.advance(14)
    request = Register("x", features=("resume",), resume_token=token(streamer))
    assert house.registry.register(request, again) == (stream, True)
    assert replies(again)[0]["resumed"] is True
    assert token(again) != token(streamer)
    house.clock.advance(100)
    assert house.registry.find("x") is stream
    stream.fan_out.push(b"frame")
    assert told(asked) == ["subscribed", "stream_paused", "stream_resumed", "frame"]
    assert told(plain) == ["subscribed", "frame"]
    assert asked.taken[2] == text_frame('{"type": "stream_resumed", "format": {"codec": "a"}}')
    with pytest.raises(StreamIdInUse):
        house.registry.register(request, FakeStreamer())


def test_takeover() -> None:
    """A streamer that still looks alive is closed with 4409 when its token comes again."""
    house = House()
    streamer, again = FakeStreamer(), FakeStreamer()
    stream = house.register("x", streamer, features=("resume", "viewers"))
    asked, _ = add_viewer(stream, "status")
    house.register("x", again, resume_token=token(streamer), format={"codec": "b"})
    assert streamer.ended == 4409
    assert not stream.is_of(streamer)
    assert stream.is_of(again)
    assert told(asked) == ["subscribed", "stream_paused", "stream_resumed"]
    assert asked.taken[2] == text_frame('{"type": "stream_resumed", "format": {"codec": "b"}}')
    add_viewer(stream)
    house.lose(stream)
    assert house.registry.stream_count == 0, "the second streamer did not ask to be waited for"


@pytest.mark.parametrize("wrong", [None, "", "wrong", "\ud800"])
def test_wrong_token(wrong: str | None) -> None:
    """Without the right token the id is in use, also while the stream is paused."""
    house = House()
    streamer = FakeStreamer()
    stream = house.register("x", streamer, features=("resume",))
    with pytest.raises(StreamIdInUse):
        house.register("x", resume_token=wrong)
    house.lose(stream)
    with pytest.raises(StreamIdInUse):
        house.register("x", resume_token=wrong)
    assert streamer.ended is None


def test_token_of_a_plain_stream() -> None:
    """A stream whose streamer did not ask for it can't be resumed."""
    house = House()
    house.register("x")
    with pytest.raises(StreamIdInUse):
        house.register("x", resume_token="None")


def test_window_ends(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that is not resumed in time ends; its id is free."""
    house = House()
    streamer = FakeStreamer()
    stream = house.register("x", streamer, features=("resume",))
    sink, _ = add_viewer(stream)
    house.lose(stream)
    house.clock.advance(14.9)
    assert house.registry.stream_count == 1
    with caplog.at_level("INFO"):
        house.clock.advance(0.1)
    assert house.registry.stream_count == 0
    assert told(sink) == ["subscribed", "stream_ended"]
    assert sink.ends == [1000]
    assert "not resumed in time" in caplog.text
    again = FakeStreamer()
    house.register("x", again, resume_token=token(streamer))
    assert "resumed" not in replies(again)[0]


def test_end_of_a_paused_stream() -> None:
    """A paused stream that is ended otherwise ends once."""
    house = House()
    stream = house.register("x", features=("resume",))
    house.lose(stream)
    house.registry.end(stream)
    house.register("x")
    house.clock.advance(100)
    assert house.registry.stream_count == 1


def test_no_window() -> None:
    """With RESUME_WINDOW=0 the feature is not granted."""
    house = House(resume_window=0)
    streamer = FakeStreamer()
    house.register("x", streamer, features=("resume", "stats"))
    assert replies(streamer) == [{"type": "registered", "stream_id": "x", "features": ["stats"]}]


def test_paused_stream_counts_once() -> None:
    """A paused stream takes one place, also when it is resumed."""
    house = House(max_streams=1)
    streamer = FakeStreamer()
    stream = house.register("x", streamer, features=("resume",))
    house.lose(stream)
    with pytest.raises(TooManyStreams):
        house.register("y")
    house.register("x", resume_token=token(streamer))
    assert house.registry.stream_count == 1


def test_join_paused_stream() -> None:
    """Who joins a paused stream is told so, if it asked, and sees the last picture."""
    house = House()
    stream = house.register("x", features=("resume",))
    stream.fan_out.mark("keyframe")
    stream.fan_out.push(b"picture")
    house.lose(stream)
    asked, _ = add_viewer(stream, "status")
    plain, _ = add_viewer(stream)
    assert told(asked) == ["subscribed", "stream_paused", "picture"]
    assert told(plain) == ["subscribed", "picture"]


def test_format() -> None:
    """A viewer that knows of features is told the format."""
    house = House()
    stream = house.register("x", format={"codec": "a"})
    asked, _ = add_viewer(stream, "gaps")
    plain, _ = add_viewer(stream)
    assert asked.taken == [
        text_frame(
            '{"type": "subscribed", "stream_id": "x", "features": ["gaps"],'
            ' "format": {"codec": "a"}}'
        )
    ]
    assert plain.taken == [text_frame('{"type": "subscribed", "stream_id": "x"}')]


def test_feedback() -> None:
    """A streamer that asked is told of its viewers, of what they lost, and to send a keyframe."""
    house = House(group_buffer=0)
    streamer = FakeStreamer()
    stream = house.register("x", streamer, features=("viewers", "keyframe_requests", "stats"))
    stream.fan_out.mark("keyframe")
    stream.fan_out.push(b"picture")
    sink, viewer = add_viewer(stream)
    stream.fan_out.mark("keyframe")
    stream.fan_out.push(b"picture")
    viewer.pause()
    stream.fan_out.push(b"frame")
    house.clock.advance(0.25)
    sink.network_delay = 0.5
    sink.take(9)
    add_viewer(stream)
    stream.remove_viewer(viewer)
    house.clock.advance(0.75)
    assert replies(streamer)[1:] == [
        {"type": "viewers", "count": 0},
        {"type": "keyframe_request"},
        {"type": "viewers", "count": 1},
        {"type": "viewers", "count": 2},
        {"type": "viewers", "count": 1},
        {"type": "stats", "viewers": 1, "slow_viewers": 0, "frames_dropped": 0, "max_lag": 0.0},
        {"type": "keyframe_request"},
    ]


def test_slow_viewers() -> None:
    """Viewers that lost frames, or that frames wait for, are slow."""
    house = House()
    stream = house.register("x")
    waits, loses, _ = (add_viewer(stream)[1] for _ in range(3))
    loses.pause()
    stream.fan_out.push(b"frame")
    house.clock.now = 1.5
    stream.fan_out.push(b"frame")
    loses.resume()
    waits.pause()
    stream.fan_out.push(b"frame")
    house.clock.now = 2.0
    assert stream.take_toll() == (2, 1, 0.5)
    waits.resume()
    stream.take_toll()
    assert stream.take_toll() == (0, 0, 0.0)
