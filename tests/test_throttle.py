"""The token bucket that caps what comes in."""

from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from relayd.throttle import Throttle

RATE = 1000.0


def test_burst() -> None:
    """A second's worth may come at once; what is more must be waited for."""
    clock = FakeClock()
    throttle = Throttle(RATE, clock.time)
    assert throttle.take(600) == 0
    assert throttle.take(400) == 0
    assert throttle.take(500) == 0.5
    clock.now = 0.5
    assert throttle.take(0) == 0
    assert throttle.take(100) == 0.1


def test_idle() -> None:
    """However long nothing came, no more than a second's worth may come at once."""
    clock = FakeClock()
    throttle = Throttle(RATE, clock.time)
    clock.now = 100
    assert throttle.take(1500) == 0.5


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 2)), min_size=1))
def test_rate(reads: list[tuple[int, float]]) -> None:
    """Who rests as told never takes more than the rate and one burst, and rests no longer."""
    clock = FakeClock()
    throttle = Throttle(RATE, clock.time)
    total = 0
    for size, pause in reads:
        clock.now += pause
        total += size
        clock.now += (rest := throttle.take(size))
        assert total <= RATE * (clock.now + 1) + 1e-6
        if rest:
            assert throttle.take(0) < 1e-6
