"""Streams and viewers: ids, limits, life cycle."""

import re
from collections.abc import Iterator

import pytest

from relayd import session
from relayd.config import Config
from relayd.protocol import StreamIdInUse, StreamNotFound, TooManyStreams, TooManyViewers
from relayd.relay.frames import text_frame
from relayd.session import Registry


class Recorder:
    """A connection that takes everything."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.ended: int | None = None

    def write(self, data: bytes) -> None:
        self.taken.append(data)

    def closing(self) -> None:
        pass

    def end(self, code: int) -> None:
        self.ended = code


def test_generated_ids() -> None:
    """Generated ids are eight letters and digits, each another."""
    registry = Registry(Config())
    ids = {registry.register(None).id for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch("[A-Za-z0-9]{8}", stream_id) for stream_id in ids)


def test_collision(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is taken is drawn again."""
    letters: Iterator[str] = iter("a" * 8 + "a" * 8 + "b" * 8)
    monkeypatch.setattr(session.secrets, "choice", lambda alphabet: next(letters))
    registry = Registry(Config())
    assert registry.register(None).id == "aaaaaaaa"
    assert registry.register(None).id == "bbbbbbbb"


def test_id_in_use() -> None:
    """Two streams can't have one id, one after the other they can."""
    registry = Registry(Config(max_streams=1))
    stream = registry.register("x")
    with pytest.raises(StreamIdInUse):
        registry.register("x")
    registry.end(stream)
    assert registry.register("x") is not stream


def test_limits() -> None:
    """MAX_STREAMS and MAX_VIEWERS_PER_STREAM are limits, and who leaves makes room."""
    registry = Registry(Config(max_streams=2, max_viewers_per_stream=1))
    one, two = registry.register("one"), registry.register("two")
    with pytest.raises(TooManyStreams):
        registry.register("three")
    viewer = one.add_viewer(Recorder(), "peer")
    two.add_viewer(Recorder(), "peer")
    with pytest.raises(TooManyViewers):
        one.add_viewer(Recorder(), "peer")
    assert (registry.stream_count, registry.viewer_count) == (2, 2)
    one.remove_viewer(viewer)
    one.add_viewer(Recorder(), "peer")
    registry.end(two)
    assert (registry.stream_count, registry.viewer_count) == (1, 1)


def test_find() -> None:
    """A stream is found from its registration to its end."""
    registry = Registry(Config())
    with pytest.raises(StreamNotFound):
        registry.find("x")
    stream = registry.register("x")
    assert registry.find("x") is stream
    registry.end(stream)
    with pytest.raises(StreamNotFound):
        registry.find("x")


def test_frames_and_end() -> None:
    """A viewer gets the frames from when it came to when it left, then the end."""
    registry = Registry(Config())
    stream = registry.register("x")
    stream.fan_out.push(b"before")
    stays, leaves = Recorder(), Recorder()
    stream.add_viewer(stays, "peer")
    viewer = stream.add_viewer(leaves, "peer")
    stream.fan_out.push(b"both")
    stream.remove_viewer(viewer)
    stream.fan_out.push(b"one")
    registry.end(stream)
    stream.remove_viewer(viewer)
    last = text_frame('{"type": "stream_ended", "stream_id": "x"}')
    assert stays.taken == [b"both", b"one", last]
    assert stays.ended == 1000
    assert leaves.taken == [b"both"]
    assert leaves.ended is None
    assert stream.viewer_count == 0
