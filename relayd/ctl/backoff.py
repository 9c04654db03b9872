"""How long to wait before the next attempt, and when to give up."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


def _jitter() -> float:
    """Keep many clients that have lost the same server from coming back at the same moment."""
    return random.uniform(0.5, 1.0)  # noqa: S311 - no secret


@dataclass(frozen=True)
class Backoff:
    """Attempts further and further apart.

    Attributes:
        first: Seconds before the first attempt; twice as long before each that follows.
        largest: The most seconds between two attempts.
        patience: Seconds after which it is time to give up.
        steady: Seconds after which a connection is taken to last, and the next one that is lost
            to be the first.
        jitter: Gives the part of each wait that is really waited.
    """

    first: float = 0.25
    largest: float = 4.0
    patience: float = 60.0
    steady: float = 10.0
    jitter: Callable[[], float] = _jitter

    def delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each attempt, without end."""
        delay = self.first
        while True:
            yield delay * self.jitter()
            delay = min(2 * delay, self.largest)
