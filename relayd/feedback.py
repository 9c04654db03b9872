"""What a streamer is told about its viewers, as far as it asked."""

from collections.abc import Callable, Collection
from typing import Protocol

from . import protocol

STATS_INTERVAL = 1.0
"""Seconds between two `stats` messages."""

KEYFRAME_INTERVAL = 1.0
"""Seconds that are at least between two `keyframe_request` messages."""


class Timer(Protocol):
    """A call that is due."""

    def cancel(self) -> None:
        """Don't make it."""
        ...


class Clock(Protocol):
    """What tells the time and keeps appointments: an event loop."""

    def time(self) -> float:
        """Return seconds that never go back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back in so many seconds."""
        ...


class Audience(Protocol):
    """The viewers of a stream, as far as its streamer is told of them."""

    @property
    def viewer_count(self) -> int:
        """The number of viewers."""
        ...

    @property
    def needs_keyframe(self) -> bool:
        """Whether some viewer can show no picture until the next keyframe."""
        ...

    def take_toll(self) -> tuple[int, int, float]:
        """Return the slow viewers, the frames dropped and the largest lag since the last call."""
        ...


class Feedback:
    """Tells one streamer about its viewers, from its registration until it is gone.

    Args:
        send: Sends the streamer a text message.
        features: What it asked for.
        audience: The viewers.
        clock: Keeps the intervals.
    """

    def __init__(
        self,
        send: Callable[[str], None],
        features: Collection[str],
        audience: Audience,
        clock: Clock,
    ) -> None:
        self._send = send
        self._features = features
        self._audience = audience
        self._clock = clock
        self._keyframe_timer: Timer | None = None
        self._stats_timer: Timer | None = None
        self._next_request = clock.time()
        self.count_viewers()
        if "stats" in features:
            audience.take_toll()  # what came before is nobody's business
            self._stats_timer = clock.call_later(STATS_INTERVAL, self._report)

    def count_viewers(self) -> None:
        """Tell how many viewers there are: at first, and whenever that has changed."""
        if "viewers" in self._features:
            self._send(protocol.viewers(self._audience.viewer_count))

    def request_keyframe(self) -> None:
        """Ask for a keyframe, at once, or as soon as one may be asked for again."""
        if "keyframe_requests" not in self._features or self._keyframe_timer is not None:
            return
        wait = self._next_request - self._clock.time()
        if wait > 0:
            self._keyframe_timer = self._clock.call_later(wait, self._request_if_needed)
        else:
            self._request()

    def stop(self) -> None:
        """Tell nothing more."""
        self._features = ()
        for timer in (self._keyframe_timer, self._stats_timer):
            if timer is not None:
                timer.cancel()

    def _request_if_needed(self) -> None:
        self._keyframe_timer = None
        if self._audience.needs_keyframe:
            self._request()

    def _request(self) -> None:
        self._next_request = self._clock.time() + KEYFRAME_INTERVAL
        self._send(protocol.keyframe_request())

    def _report(self) -> None:
        self._stats_timer = self._clock.call_later(STATS_INTERVAL, self._report)
        slow_viewers, frames_dropped, max_lag = self._audience.take_toll()
        if viewers := self._audience.viewer_count:
            self._send(protocol.stats(viewers, slow_viewers, frames_dropped, max_lag))
