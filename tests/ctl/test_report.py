"""Tests of what figures mean."""

from typing import Any

import pytest
from ctl.reports import LOST, SLOW, WAITING, stream, stream_fields, viewer_fields

from relayd.ctl.report import State, Stream, Viewer, by_urgency


@pytest.mark.parametrize(
    ("state", "fields", "stream_fps"),
    [
        (State.OK, {}, 30.0),
        (State.OK, {"fps": 27.0, "dropped": 8}, 30.0),
        (State.OK, {"fps": 20.0}, 30.0),
        (State.OK, {"queue_frames": 2, "lag": 0.06}, 30.0),
        (State.OK, {"fps": 0.0, "age": 1.9}, 30.0),
        (State.STALLED, {"fps": 0.0, "waits_for": "network"}, 30.0),
        (State.STALLED, {"fps": 0.0, "waits_for": "network"}, 0.0),
        (State.SLOW, SLOW, 30.0),
        (State.SLOW, {"lag": 0.25}, 30.0),
        (State.SLOW, {"lag": 0.6}, 0.0),
        (State.SLOW, {"fps": 23.0, "dropped": 8}, 30.0),
        (State.KEYFRAME, WAITING, 30.0),
        (State.KEYFRAME, {"fps": 0.0, "waits_for": "keyframe"}, 0.0),
        (State.IDLE, {"fps": 0.0}, 0.0),
        (State.IDLE, {"fps": 0.0, "dropped": 8}, 0.0),
    ],
)
def test_what_is_up_with_a_viewer(state: State, fields: dict[str, Any], stream_fps: float) -> None:
    """The word for a viewer is the one that its figures and its stream's rate prove."""
    assert Viewer.parse(viewer_fields(1, **fields)).state_at(stream_fps) is state


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        (State.OK, {}),
        (State.OK, {"fps": 0.0, "age": 1.9}),
        (State.IDLE, {"fps": 0.0}),
        (State.LOST, LOST),
    ],
)
def test_what_is_up_with_a_stream(state: State, fields: dict[str, Any]) -> None:
    """A stream without frames is idle, one without a streamer lost."""
    assert stream("lobby", **fields).state is state


def test_viewers_in_trouble_are_first() -> None:
    """A stream's viewers are sorted by what is up with them, those alike by lag, then by number."""
    fine = [viewer_fields(n) for n in (1, 2)]
    slow = [viewer_fields(3, lag=0.3), viewer_fields(4, lag=0.5)]
    waiting = viewer_fields(5, **WAITING)
    found = stream("lobby", *fine, *slow, waiting)
    assert [viewer.number for _, viewer in found.viewers] == [4, 3, 5, 1, 2]
    assert found.states == [State.OK, State.SLOW, State.SLOW, State.KEYFRAME, State.OK, State.OK]


def test_streams_in_trouble_are_first() -> None:
    """Streams are sorted by their worst trouble, then by how many share it, then by name."""
    streams = [
        stream("fine"),
        stream("a-fine-one", viewer_fields(1)),
        stream("at-rest", fps=0.0),
        stream("waiting", *(viewer_fields(n, **WAITING) for n in range(3))),
        stream("slow", viewer_fields(1), viewer_fields(2, **SLOW)),
        stream("slower", viewer_fields(1, **SLOW), viewer_fields(2, **SLOW)),
        stream("lost", **LOST),
    ]
    order = ["lost", "slower", "slow", "waiting", "a-fine-one", "at-rest", "fine"]
    assert [found.stream_id for found in by_urgency(streams)] == order


def test_nothing_unprintable() -> None:
    """What comes from the network can't do anything to a terminal."""
    evil = "\x1b[2J\x9b\n\u202e"
    viewer = viewer_fields(1, address=evil + "1.2.3.4", drops={evil + "late": 1})
    found = stream(evil + "lobby", viewer, address=evil + "5.6.7.8")
    (_, shown), *_ = found.viewers
    for text in (found.stream_id, found.address, shown.address, *shown.drops):
        assert text is not None
        assert text.isprintable()
    assert found.stream_id.endswith("lobby")


@pytest.mark.parametrize(
    "fields",
    [
        {"viewers": None},
        {"viewers": [{}]},
        {"viewers": [viewer_fields(1, drops=[])]},
        {"fps": "fast"},
        {"id": None},
        {"address": 7},
    ],
)
def test_what_is_not_understood(fields: dict[str, Any]) -> None:
    """What does not look as expected is refused."""
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        Stream.parse(stream_fields("lobby") | fields)
