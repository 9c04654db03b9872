"""A cap on what comes in: a token bucket."""

from collections.abc import Callable

BURST = 1.0
"""Seconds of the rate that may come at once: a keyframe is many times the average frame."""


class Throttle:
    """Says how long to rest after each read, so that a rate is kept.

    Args:
        rate: Bytes a second.
        clock: Returns seconds that never go back.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = rate * BURST
        self._filled = clock()

    def take(self, size: int) -> float:
        """Count bytes that have come; return the seconds until more may be read."""
        now = self._clock()
        self._tokens = min(self._rate * BURST, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        self._tokens -= size
        return max(0.0, -self._tokens / self._rate)
