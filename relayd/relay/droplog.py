"""What the slow viewers of a stream lose, for the log."""

import logging
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger(__name__)


class DropLog:
    """Reports the frames that a stream's slow viewers lost, at most once a second.

    Args:
        stream_id: The stream, for the log record.
        clock: Returns seconds that never go back.
    """

    INTERVAL = 1.0
    NAMED = 3

    def __init__(self, stream_id: str, clock: Callable[[], float]) -> None:
        self._stream_id = stream_id
        self._clock = clock
        self._due = clock()
        self._dropped: Counter[str] = Counter()

    def add(self, peer: str, frames: int) -> None:
        """Count frames that a viewer lost; the worst off are named once a second."""
        self._dropped[peer] += frames
        now = self._clock()
        if now < self._due:
            return
        named = ", ".join(f"{n} for {peer}" for peer, n in self._dropped.most_common(self.NAMED))
        unnamed = len(self._dropped) - self.NAMED
        logger.warning(
            "dropped %d frames of slow viewers: %s%s",
            self._dropped.total(),
            named,
            f" and {unnamed} more" if unnamed > 0 else "",
            extra={"role": "stream", "stream": self._stream_id},
        )
        self._dropped.clear()
        self._due = now + self.INTERVAL
