"""How fast counts grow: frames and bits a second, from looks at the counts once a second."""

from collections.abc import Callable, Hashable, Iterable

INTERVAL = 1.0
"""Seconds between two looks; a rate is that of the last one to two intervals."""

Count = tuple[int, int]
"""Frames and bytes so far."""


class Rates:
    """The rates of anything that counts frames and bytes.

    Args:
        counts: Returns everything that counts: a key, and its count.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self, counts: Callable[[], Iterable[tuple[Hashable, Count]]], clock: Callable[[], float]
    ) -> None:
        self._counts = counts
        self._clock = clock
        self._newer: tuple[float, dict[Hashable, Count]] = (clock(), {})
        self._older = self._newer

    def look(self) -> None:
        """Look at the counts; to be called once in an interval."""
        self._older, self._newer = self._newer, (self._clock(), dict(self._counts()))

    def of(self, key: Hashable, began: float, count: Count) -> tuple[float, float]:
        """Return frames and bits a second of what counts since it began, by the clock."""
        since, counts = self._older
        frames, size = counts.get(key, (0, 0))
        seconds = max(self._clock() - max(since, began), 0.001)
        # What has ended and begun anew under the same key counts from 0 again.
        return (
            max(0, count[0] - frames) / seconds,
            max(0, count[1] - size) * 8 / seconds,
        )
