"""What a load generator sends, and what it measures."""

import math
import random
from dataclasses import dataclass

KEYFRAME_SIZE = 100 * 1024
KEYFRAME_INTERVAL = 2.0
SMALLEST_BETWEEN = 4 * 1024
LARGEST_BETWEEN = 12 * 1024
"""The mixed load: a keyframe of so many bytes every so many seconds, smaller frames between."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent to whom.

    Attributes:
        streams: Streamers at a time.
        viewers: Viewers of each stream.
        size: Bytes of each frame, at least 8; None for the mixed load.
        fps: Frames per second of each stream.
        duration: Seconds that are measured.
        warmup: Seconds of the same before that.
        seed: Decides the sizes of the mixed load.
    """

    streams: int
    viewers: int
    size: int | None
    fps: float = 30.0
    duration: float = 10.0
    warmup: float = 1.0
    seed: int = 1

    def sizes(self, stream: int) -> list[int]:
        """Return the sizes of a stream's frames, in bytes, over and over."""
        if self.size is not None:
            return [self.size]
        count = max(1, round(KEYFRAME_INTERVAL * self.fps))
        draw = random.Random(self.seed * 1_000_003 + stream)  # noqa: S311 - not for secrets
        sizes = [
            KEYFRAME_SIZE,
            *(draw.randint(SMALLEST_BETWEEN, LARGEST_BETWEEN) for _ in range(count - 1)),
        ]
        # The keyframes of the streams don't come all at once.
        phase = stream * count // self.streams
        return sizes[phase:] + sizes[:phase]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured.

    Attributes:
        duration: Seconds from the first frame to the last delivery.
        frames: Frames that streamers sent.
        expected: Deliveries that there should have been: the frames, each to every viewer.
        deliveries: Messages that arrived whole.
        size: Bytes of their payloads.
        worst_share: The delivered share of the viewer that got least.
        late: Frames that went out late, because the server did not take the one before or the
            generator was a whole frame behind.
        lost_connections: Connections that the server closed.
        p50, p99, max: Latency, milliseconds; None if nothing arrived.
        cpu: Seconds of CPU that the server used, user and system; None if it can't be seen.
        peak_memory: Most resident memory that it ever had, in bytes; None if it can't be seen.
    """

    duration: float
    frames: int
    expected: int
    deliveries: int
    size: int
    worst_share: float
    late: int
    lost_connections: int
    p50: float | None
    p99: float | None
    max: float | None
    cpu: float | None
    peak_memory: int | None

    @property
    def share(self) -> float:
        """The delivered share, 1 at best."""
        return self.deliveries / self.expected if self.expected else 1.0

    @property
    def rate(self) -> float:
        """Deliveries per second."""
        return self.deliveries / self.duration if self.duration else 0.0

    @property
    def megabytes(self) -> float:
        """Megabytes (10^6) delivered per second."""
        return self.size / 1e6 / self.duration if self.duration else 0.0

    @property
    def cpu_per_delivery(self) -> float | None:
        """The server's CPU time per delivered frame, in microseconds."""
        return (
            self.cpu * 1e6 / self.deliveries if self.cpu is not None and self.deliveries else None
        )


def percentile(ordered: list[int], percent: float) -> float | None:
    """Return the value that so many percent of sorted nanoseconds don't exceed, in milliseconds."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] / 1e6
