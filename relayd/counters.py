"""What a relay has counted since it began: plain numbers, added up when somebody asks.

Nothing here is touched for a frame that goes straight to its viewers.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

FRAME_LAG_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds that a frame waited for its viewer's network."""

LOOP_LAG_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds that the event loop was late."""


class Histogram:
    """How often a value was within which bounds.

    Args:
        bounds: The upper bounds, ascending; a value at a bound is within it.

    Attributes:
        counts: The number of values for each bound, and of those past the last one.
        sum: The sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Counters:
    """What has happened so far, beside what the streams and viewers of now count themselves.

    Attributes:
        streams: Streams that have begun.
        viewers: Viewers that have joined.
        connections: TCP connections that have been accepted.
        resumes: Streams taken up again by their streamer.
        kicks: Streams and viewers ended by the operator.
        refusals: WebSockets refused, by reason.
        frames_received: Frames of streams that have ended.
        bytes_received: Their bytes, payload and header.
        frames_sent: Frames handed over to viewers that have left.
        bytes_sent: Their bytes, payload and header.
        drops: Frames not sent to viewers that have left, by reason.
        frame_lag: Seconds that frames had waited when they were sent; those that did not wait are
            not in it.
    """

    def __init__(self) -> None:
        self.streams = 0
        self.viewers = 0
        self.connections = 0
        self.resumes = 0
        self.kicks = 0
        self.refusals: Counter[str] = Counter()
        self.frames_received = 0
        self.bytes_received = 0
        self.frames_sent = 0
        self.bytes_sent = 0
        self.drops: Counter[str] = Counter()
        self.frame_lag = Histogram(FRAME_LAG_BOUNDS)
