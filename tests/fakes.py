"""What the pure rooms are tested with: a clock set by hand, connections without a socket."""

import heapq
from collections.abc import Callable
from itertools import count

from relayd.relay.fanout import Viewer


class FakeTimer:
    """A call that is due at some time."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()
        self._due: list[tuple[float, int, FakeTimer]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._due, (self.now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that come due."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, timer = heapq.heappop(self._due)
            if not timer.is_cancelled:
                timer.callback()
        self.now = until


class FakeStreamer:
    """A streamer's connection that takes everything."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ended: int | None = None

    def send_text(self, text: str) -> None:
        assert self.ended is None, "told something after the close frame"
        self.texts.append(text)

    def end(self, code: int) -> None:
        self.ended = code


class FakeSink:
    """A viewer's connection whose kernel takes a number of messages and then refuses."""

    def __init__(self) -> None:
        self.viewer: Viewer | None = None
        self.broken = False
        self.room = 10**9
        self.network_delay = 0.0
        self.taken: list[bytes] = []
        self.ends: list[int] = []
        self.is_closing = False

    def attach(self, viewer: Viewer) -> None:
        self.viewer = viewer

    def network(self) -> tuple[int, float] | None:
        return None

    def delay(self, size: int) -> float:
        return self.network_delay

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("the handler is closed")
        assert self.room > 0, "written to although the kernel had refused"
        assert not self.ends, "written to after the close frame"
        self.taken.append(data)
        self.room -= 1
        if not self.room:
            assert self.viewer is not None
            self.viewer.pause()

    def closing(self) -> None:
        self.is_closing = True

    def end(self, code: int) -> None:
        self.ends.append(code)

    def take(self, room: int) -> None:
        """Let the kernel take so many messages again."""
        assert self.viewer is not None
        self.room = room
        self.viewer.resume()
