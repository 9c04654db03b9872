"""Tests of the schedule of frames."""

import pytest
from ctl.fakes import Clock

from relayd.ctl.pace import MAX_LATENESS, Schedule


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


def test_frames_are_due_one_interval_apart(clock: Clock) -> None:
    """The first frame is due at once, each of the others 1/fps after the one before."""
    schedule = Schedule(4, clock)
    assert [schedule.next_delay() for _ in range(4)] == [0, 0.25, 0.5, 0.75]


def test_delays_do_not_add_up(clock: Clock) -> None:
    """A frame that goes out late does not move those after it."""
    schedule = Schedule(4, clock)
    schedule.next_delay()
    clock.now += 0.375
    assert schedule.next_delay() == 0
    assert schedule.next_delay() == pytest.approx(0.125)


def test_a_stream_that_is_a_little_late_catches_up(clock: Clock) -> None:
    """Frames that are up to MAX_LATENESS late go out at once."""
    schedule = Schedule(4, clock)
    schedule.next_delay()
    clock.now += 0.25 + MAX_LATENESS
    assert [schedule.next_delay() for _ in range(6)] == [0, 0, 0, 0, 0, 0.25]


def test_a_stream_that_is_very_late_starts_anew(clock: Clock) -> None:
    """After more than MAX_LATENESS the schedule starts again, rather than send a burst."""
    schedule = Schedule(4, clock)
    schedule.next_delay()
    clock.now += 60
    assert [schedule.next_delay() for _ in range(3)] == [0, 0.25, 0.5]


def test_a_stream_that_has_waited_starts_anew(clock: Clock) -> None:
    """After a restart the next frame is due at once, and nothing is caught up."""
    schedule = Schedule(4, clock)
    schedule.next_delay()
    clock.now += 0.9
    schedule.restart()
    assert [schedule.next_delay() for _ in range(3)] == [0, 0.25, 0.5]
