"""How fast counts grow."""

from relayd.rates import Rates


class Counting:
    """Something that counts, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.counts = {"a": (0, 0)}
        self.rates = Rates(lambda: self.counts.items(), lambda: self.now)

    def go_on(self, seconds: float, frames: int, size: int) -> None:
        """Let time pass in which frames come."""
        self.now += seconds
        count, total = self.counts["a"]
        self.counts["a"] = (count + frames, total + size)

    def rate(self, began: float = 100.0) -> tuple[float, float]:
        """Return the rate of what counts."""
        return self.rates.of("a", began, self.counts["a"])


def test_steady() -> None:
    """The rate is that of the last one to two intervals, whatever was before."""
    counting = Counting()
    for frames in (30, 60, 60):
        counting.go_on(1, frames, frames * 1000)
        counting.rates.look()
    counting.go_on(0.5, 30, 30_000)
    assert counting.rate() == (60, 480_000)


def test_new() -> None:
    """What has just begun has the rate since then."""
    counting = Counting()
    for _ in range(3):
        counting.go_on(1, 0, 0)
        counting.rates.look()
    counting.go_on(0.5, 20, 100)
    assert counting.rate(began=103.0) == (40, 1600)


def test_anew() -> None:
    """What ended and began anew under its old key has no rate below zero."""
    counting = Counting()
    counting.go_on(1, 100, 1000)
    counting.rates.look()
    counting.rates.look()
    counting.counts["a"] = (3, 30)
    counting.now += 1
    assert counting.rate() == (0, 0)
