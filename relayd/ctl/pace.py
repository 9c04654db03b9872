"""When the frames of a file are due."""

import time
from collections.abc import Callable

MAX_LATENESS = 1.0
"""Seconds behind its schedule after which a stream goes on from now, rather than catch up in a
burst: viewers of a live stream want what is new."""


class Schedule:
    """A frame every 1/fps seconds, counted from the first, so that delays don't add up."""

    def __init__(self, fps: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / fps
        self._clock = clock
        self._start: float | None = None
        self._frames = 0

    def next_delay(self) -> float:
        """Return the seconds until the next frame is due, 0 when it is late; count it."""
        now = self._clock()
        if self._start is None:
            self._start = now
        due = self._start + self._frames * self._interval
        if now - due > MAX_LATENESS:
            self._start = due = now
            self._frames = 0
        self._frames += 1
        return max(0.0, due - now)

    def restart(self) -> None:
        """Begin anew: the next frame is due at once, and none is late."""
        self._start = None
        self._frames = 0
