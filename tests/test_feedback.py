"""What a streamer is told about its viewers."""

import json

from fakes import FakeClock

from relayd.feedback import Feedback

ALL = ("viewers", "keyframe_requests", "stats")


class FakeAudience:
    """Viewers as a test says they are."""

    def __init__(self) -> None:
        self.viewer_count = 0
        self.needs_keyframe = False
        self.toll = (0, 0, 0.0)

    def take_toll(self) -> tuple[int, int, float]:
        toll, self.toll = self.toll, (0, 0, 0.0)
        return toll


class Told:
    """A streamer with feedback, and what it was told."""

    def __init__(self, *features: str) -> None:
        self.clock = FakeClock()
        self.audience = FakeAudience()
        self._texts: list[str] = []
        self.audience.toll = (1, 2, 3.0)  # of an earlier streamer
        self.feedback = Feedback(self._texts.append, features, self.audience, self.clock)

    def take(self) -> list[dict[str, object]]:
        """Return what it was told since the last call."""
        texts, self._texts[:] = list(self._texts), []
        return [json.loads(text) for text in texts]


def test_nothing_asked() -> None:
    """A streamer that asked for nothing is told nothing."""
    told = Told()
    told.audience.viewer_count = 1
    told.audience.needs_keyframe = True
    told.feedback.count_viewers()
    told.feedback.request_keyframe()
    told.clock.advance(10)
    assert told.take() == []


def test_viewers() -> None:
    """The number of viewers is told at first and on change."""
    told = Told("viewers")
    assert told.take() == [{"type": "viewers", "count": 0}]
    told.audience.viewer_count = 2
    told.feedback.count_viewers()
    assert told.take() == [{"type": "viewers", "count": 2}]
    told.clock.advance(10)
    assert told.take() == []


def test_keyframe_requests() -> None:
    """Keyframes are asked for at most once a second, and no longer than one is needed."""
    told = Told("keyframe_requests")
    request = {"type": "keyframe_request"}
    told.audience.needs_keyframe = True
    told.feedback.request_keyframe()
    assert told.take() == [request]
    told.feedback.request_keyframe()
    told.feedback.request_keyframe()
    told.clock.advance(0.9)
    assert told.take() == []
    told.clock.advance(0.1)
    assert told.take() == [request]
    told.feedback.request_keyframe()
    told.audience.needs_keyframe = False
    told.clock.advance(10)
    assert told.take() == []
    told.feedback.request_keyframe()
    assert told.take() == [request]


def test_stats() -> None:
    """How viewers fared in the last second is told once a second, while there are any."""
    told = Told("stats")
    told.clock.advance(1)
    assert told.take() == []
    told.audience.viewer_count = 3
    told.audience.toll = (2, 14, 0.42049)
    told.clock.advance(1)
    assert told.take() == [
        {
            "type": "stats",
            "viewers": 3,
            "slow_viewers": 2,
            "frames_dropped": 14,
            "max_lag": 0.42,
        }
    ]
    told.clock.advance(2)
    assert [stats["frames_dropped"] for stats in told.take()] == [0, 0]


def test_toll_of_an_earlier_streamer() -> None:
    """A streamer is not told what its predecessor's viewers lost."""
    told = Told("stats")
    told.audience.viewer_count = 1
    told.clock.advance(1)
    (stats,) = told.take()
    assert stats["frames_dropped"] == 0


def test_stop() -> None:
    """A streamer that is gone is told nothing more."""
    told = Told(*ALL)
    told.audience.viewer_count = 1
    told.audience.needs_keyframe = True
    told.feedback.request_keyframe()
    told.feedback.request_keyframe()
    told.take()
    told.feedback.stop()
    told.feedback.count_viewers()
    told.feedback.request_keyframe()
    told.clock.advance(10)
    assert told.take() == []
