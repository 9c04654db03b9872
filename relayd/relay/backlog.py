"""What waits for one viewer whose network is slow, and what is dropped so that it is never late.

Pure: frames by reference, times in seconds from the caller.
"""

from collections import deque
from collections.abc import Iterable

from ..protocol import gap
from .frames import text_frame
from .group import CONFIG, ENTRY_COST, KEYFRAME, Marked

_TEXT = 4
"""What a text message is, where a frame has its marks."""

LATE = "late"
"""Why a frame was dropped: it would have been later than the bound in time."""

BUFFER = "buffer"
"""Why a frame was dropped: more waited than the bound in bytes allows."""

NO_KEYFRAME = "keyframe"
"""Why a frame was dropped: it can't be decoded before the next keyframe, or is superseded."""

LEFT = "left"
"""Why a frame was dropped: it still waited when its viewer left."""

DROP_REASONS = (LATE, BUFFER, NO_KEYFRAME, LEFT)


class Backlog:
    """A queue of frames and text messages, bounded in time and in bytes.

    Text is never dropped, frames are, always whole: of an unmarked stream the oldest, of a marked
    one all up to the newest keyframe that waits, or, where that is not enough, all until the next
    keyframe comes. The last configuration among those dropped is kept, and sent before the next
    frame. One frame larger than the bound may wait alone.

    Args:
        max_lag: Seconds that a frame may be late.
        max_size: The most bytes of memory that waiting frames may take.
        tells_gaps: Whether the viewer is told how many frames it did not get.

    Attributes:
        dropped: Frames dropped so far; a sum of its own, as a scrape asks every viewer.
        drops: The same by reason.
        lost_size: Bytes of all frames dropped or passed.
        passed: Frames that were never meant for a viewer that had just come.
        skipping: Whether frames are dropped until the next keyframe.
        size: Bytes of memory that waiting frames take.
        text_size: Bytes of waiting text messages.
    """

    __slots__ = (
        "_config",
        "_count",
        "_has_keyframes",
        "_is_new",
        "_lost",
        "_max_lag",
        "_max_size",
        "_tells_gaps",
        "_waiting",
        "dropped",
        "drops",
        "lost_size",
        "passed",
        "size",
        "skipping",
        "text_size",
    )

    def __init__(self, max_lag: float, max_size: int, *, tells_gaps: bool) -> None:
        self.dropped = 0
        self.drops = dict.fromkeys(DROP_REASONS, 0)
        self.lost_size = 0
        self.passed = 0
        self.skipping = False
        self.size = 0
        self.text_size = 0
        self._max_lag = max_lag
        self._max_size = max_size
        self._tells_gaps = tells_gaps
        self._waiting: deque[tuple[bytes, int, float]] = deque()
        self._count = 0  # the frames in it
        self._lost = 0  # frames dropped since the last one sent
        self._config: bytes | None = None  # to be sent before the next frame
        self._is_new = False  # the viewer has only just come, and waits for its first keyframe
        self._has_keyframes = False

    @property
    def frames_size(self) -> int:
        """The bytes of the frames that wait."""
        config_size = len(self._config) if self._config is not None else 0
        return self.size - self._count * ENTRY_COST + config_size

    @property
    def count(self) -> int:
        """The number of frames that wait."""
        return self._count + (self._config is not None)

    def lag(self, now: float) -> float:
        """Return how long the oldest frame has waited, in seconds; 0 where none waits."""
        return now - self._first()[2] if self._count else 0.0

    def first_size(self) -> int:
        """Return the bytes of the oldest frame that waits, 0 where none does."""
        return len(self._first()[0]) if self._count else 0

    def replay(self, frames: Iterable[Marked], now: float, *, has_keyframes: bool) -> None:
        """Let what shows a picture at once wait, as if it had just come."""
        self._has_keyframes = has_keyframes
        for frame, marks in frames:
            self._append(frame, marks, now)

    def await_keyframe(self, config: bytes | None) -> None:
        """Let a new viewer wait for the next keyframe, to be sent after this configuration."""
        self._is_new = self.skipping = True
        self._config = config

    def add(
        self, frame: bytes, marks: int, now: float, *, has_keyframes: bool, delay: float
    ) -> None:
        """Let a frame wait that has just come; drop what is too much then.

        Args:
            frame: The bytes of a whole frame.
            marks: What it is: 0, CONFIG, KEYFRAME or both.
            now: The time.
            has_keyframes: Whether keyframes of this stream are marked.
            delay: Seconds that it will take the network to deliver what is sent next.
        """
        self._has_keyframes = has_keyframes
        if self.skipping and not marks & KEYFRAME:
            self._drop(frame, marks, NO_KEYFRAME)
            return
        if marks & CONFIG and self._is_new:
            self._supersede_config()
        self.skipping = self._is_new = False
        self._append(frame, marks, now)
        if has_keyframes:
            # However slow the network is, a keyframe has some time to get away.
            delay = min(delay, self._max_lag / 2)
            while reason := self._is_over(now, delay):
                self._skip(reason)
        else:
            self._drop_oldest(now, delay)

    def add_text(self, message: bytes) -> None:
        """Let a text message wait, in its place among the frames."""
        self._waiting.append((message, _TEXT, 0.0))
        self.text_size += len(message)

    def drop_late(self, now: float, delay: float) -> None:
        """Drop what would be late if it were sent now.

        But for the newest frame: on a screen that stands still it is the present, however long ago
        it came. Of a marked stream that holds for all that waits, which leads to the newest: had
        something newer come, `add` would have dropped what is late.
        """
        if not self._has_keyframes:
            self._drop_oldest(now, delay)

    def take(self) -> bytes | None:
        """Return the next message to send, None where there is none."""
        if not self._waiting:
            return None
        message, marks, _ = self._waiting[0]
        if marks == _TEXT:
            self._waiting.popleft()
            self.text_size -= len(message)
            return message
        if marks & CONFIG:
            self._supersede_config()
        if self._lost and self._tells_gaps:
            lost, self._lost = self._lost, 0
            return text_frame(gap(lost))
        self._lost = 0
        if self._config is not None:
            config, self._config = self._config, None
            return config
        self._waiting.popleft()
        self._forget(message)
        return message

    def clear(self) -> None:
        """Drop everything."""
        self.dropped += self.count
        self.drops[LEFT] += self.count
        self.lost_size += self.frames_size
        self._waiting.clear()
        self._config = None
        self._count = self.size = self.text_size = 0

    def _first(self) -> tuple[bytes, int, float]:
        return next(entry for entry in self._waiting if entry[1] != _TEXT)

    def _is_over(self, now: float, delay: float) -> str | None:
        """Return why the oldest frame can't go on waiting; None if it can, as one alone always."""
        if self._count <= 1:
            return None
        if self.size > self._max_size:
            return BUFFER
        return LATE if now - self._first()[2] + delay > self._max_lag else None

    def _drop_oldest(self, now: float, delay: float) -> None:
        while reason := self._is_over(now, delay):
            entry = self._first()
            self._waiting.remove(entry)
            self._forget(entry[0])
            self._drop(entry[0], entry[1], reason)

    def _skip(self, reason: str) -> None:
        """Drop all up to the newest keyframe; where that is the first frame, or there is none, all.

        In the latter case what comes until the next keyframe is dropped too.
        """
        frames = [entry for entry in self._waiting if entry[1] != _TEXT]
        newest = next((entry for entry in reversed(frames) if entry[1] & KEYFRAME), None)
        self.skipping = newest is None or newest is frames[0]
        kept: deque[tuple[bytes, int, float]] = deque()
        is_kept = False
        for entry in self._waiting:
            is_kept = is_kept or (entry is newest and not self.skipping)
            if is_kept or entry[1] == _TEXT:
                kept.append(entry)
            else:
                self._forget(entry[0])
                self._drop(entry[0], entry[1], reason)
        self._waiting = kept

    def _append(self, frame: bytes, marks: int, now: float) -> None:
        self._waiting.append((frame, marks, now))
        self._count += 1
        self.size += len(frame) + ENTRY_COST

    def _forget(self, frame: bytes) -> None:
        self._count -= 1
        self.size -= len(frame) + ENTRY_COST

    def _drop(self, frame: bytes, marks: int, reason: str) -> None:
        if marks & CONFIG:
            self._supersede_config()
            self._config = frame
        else:
            self._lose(frame, reason)

    def _supersede_config(self) -> None:
        if self._config is not None:
            config, self._config = self._config, None
            self._lose(config, NO_KEYFRAME)

    def _lose(self, frame: bytes, reason: str) -> None:
        self.lost_size += len(frame)
        if self._is_new:
            self.passed += 1
        else:
            self.dropped += 1
            self.drops[reason] += 1
            self._lost += 1
