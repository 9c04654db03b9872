"""The way out: a stream's frames go to its viewers, each with a network of its own speed.

No asyncio and no sockets: a viewer talks to anything that has the methods of `Sink`.
"""

import contextlib
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..counters import FRAME_LAG_BOUNDS, Histogram
from .backlog import Backlog
from .droplog import DropLog
from .group import CONFIG, CONFIG_LIMIT, KEYFRAME, Group

BROKEN = (OSError, RuntimeError)
"""What a write raises when the connection has broken and nobody has been told yet."""

_MARKS = {"config": CONFIG, "keyframe": KEYFRAME}


def _nobody() -> None:
    """Ask nobody for a keyframe."""


class Sink(Protocol):
    """Where a viewer's bytes go: its connection.

    While the kernel refuses bytes, the connection calls the viewer's `pause`, possibly from within
    `write`, and `resume` when all that was written has been taken.
    """

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends whole messages, without waiting.

        Raises OSError or RuntimeError where the connection is broken; `close` then follows.
        """
        ...

    def attach(self, viewer: "Viewer", /) -> None:
        """Tell this viewer from now on when the kernel is full, and when it is not."""
        ...

    def delay(self, size: int, /) -> float:
        """Return how many seconds from now this many bytes, written now, will have arrived."""
        ...

    def network(self) -> tuple[int, float] | None:
        """Return the bytes that have not been acknowledged and the round trip in seconds."""
        ...

    def closing(self) -> None:
        """Expect `end`, and give up on the client if it does not come in time."""
        ...

    def end(self, code: int, /) -> None:
        """Start the closing handshake."""
        ...


@dataclass(frozen=True)
class Limits:
    """How much is kept for viewers.

    Attributes:
        max_lag: Seconds that a viewer may be behind.
        viewer_buffer: The most bytes of frames that may wait for one viewer.
        group_buffer: The most bytes of frames kept for new viewers.
    """

    max_lag: float
    viewer_buffer: int
    group_buffer: int


class _State(enum.Enum):
    FLOWING = enum.auto()  # frames are written as they come
    HELD = enum.auto()  # the kernel would take them, but the viewer needs a keyframe first
    BLOCKED = enum.auto()  # the kernel is full: messages wait
    CLOSED = enum.auto()


class FanOut:
    """A stream's way out: every frame goes to every viewer.

    Args:
        limits: How much is kept for viewers.
        drop_log: Told of every frame dropped.
        clock: Returns seconds that never go back.
        request_keyframe: Called when some viewer can show no picture until the next keyframe.
        frame_lag: Told how many seconds each frame had waited that had to wait.

    Attributes:
        group: What shows a new viewer a picture at once.
        frames: Frames received so far.
        size: Bytes received so far, of payload and header.
    """

    def __init__(
        self,
        limits: Limits,
        drop_log: DropLog,
        clock: Callable[[], float],
        request_keyframe: Callable[[], None],
        frame_lag: Histogram | None = None,
    ) -> None:
        self.limits = limits
        self.drop_log = drop_log
        self.clock = clock
        self.request_keyframe = request_keyframe
        self.frame_lag = frame_lag or Histogram(FRAME_LAG_BOUNDS)
        # What a viewer's buffer can't hold would be dropped again.
        self.group = Group(min(limits.group_buffer, limits.viewer_buffer))
        self.frames = 0
        self.size = 0
        self._withheld = 0
        self._withheld_size = 0
        self._marks = 0  # of the next frame
        self._has_marks = False
        self._awaits_keyframe = False  # no viewer can use what comes before it
        self._flowing: dict[Viewer, Callable[[bytes], None]] = {}
        self._held: set[Viewer] = set()
        # The writes of the viewers that flow, all that a frame needs to know; None: look again.
        self._writes: tuple[Callable[[bytes], None], ...] | None = None

    @property
    def sent(self) -> int:
        """The number of frames that were meant for all viewers."""
        return self.frames - self._withheld

    @property
    def sent_size(self) -> int:
        """The bytes of these frames."""
        return self.size - self._withheld_size

    @property
    def needs_keyframe(self) -> bool:
        """Whether some viewer can show no picture until the next keyframe.

        Where keyframes are not marked, nobody knows whether one has come.
        """
        if self._awaits_keyframe or not self.group.has_keyframes:
            return self.frames > 0 and bool(self._flowing or self._held)
        return any(viewer.needs_keyframe for viewer in self._held)

    def mark(self, kind: str) -> None:
        """Say what the next frame is, and only that one: ``config`` or ``keyframe``."""
        self._has_marks = True
        self._marks |= _MARKS[kind]

    def push(self, frame: bytes) -> None:
        """Send the bytes of a whole frame to every viewer: one object, nothing built for each."""
        self.frames += 1
        self.size += len(frame)
        marks = 0
        if self._has_marks:
            marks = self._take_marks(frame)
            if self._awaits_keyframe and not marks:
                self._withheld += 1
                self._withheld_size += len(frame)
                return
            self.group.add(frame, marks)
        # Before a viewer that is held joins those that flow, and so would get the frame twice.
        writes = self._writes
        if writes is None:
            writes = self._writes = tuple(self._flowing.values())
        if self._held:
            now = self.clock()
            for viewer in tuple(self._held):
                viewer.wait(frame, marks, now)
        for write in writes:
            try:  # noqa: SIM105  # unlike suppress(), free where nothing is raised
                write(frame)
            except BROKEN:
                pass

    def await_keyframe(self) -> None:
        """Send nothing but configurations until the next keyframe: the streamer begins anew."""
        self._marks = 0
        self._awaits_keyframe = self.group.has_keyframes
        if self.needs_keyframe:
            self.request_keyframe()

    def flow(self, viewer: "Viewer", write: Callable[[bytes], None]) -> None:
        """Write frames to a viewer as they come, from now on."""
        self.leave(viewer)
        self._flowing[viewer] = write

    def hold(self, viewer: "Viewer") -> None:
        """Let a viewer take frames itself, from now on."""
        self.leave(viewer)
        self._held.add(viewer)

    def leave(self, viewer: "Viewer") -> None:
        """Send a viewer nothing more."""
        self._flowing.pop(viewer, None)
        self._held.discard(viewer)
        self._writes = None

    def close(self) -> None:
        """Let go of what is kept for viewers yet to come: there will be none."""
        self.group = Group(0)
        self.request_keyframe = _nobody

    def _take_marks(self, frame: bytes) -> int:
        """Return what a frame is that has just come."""
        marks, self._marks = self._marks, 0
        if len(frame) > CONFIG_LIMIT:
            marks &= ~CONFIG
        if marks & KEYFRAME:
            self._awaits_keyframe = False
        return marks


class Viewer:
    """One viewer's way out.

    Frames go straight to the sink while the kernel takes them. While it does not, or while the
    viewer needs a keyframe first, they go through its `Backlog`.

    Args:
        sink: The viewer's connection.
        peer: The viewer's address, for the log.
        fan_out: Where its frames come from.
        number: Its number among all viewers, for the operator.
        tells_gaps: Whether it is told how many frames it did not get.
        tells_status: Whether it is told when the streamer is lost and when it is back.

    Attributes:
        began: When it joined, by the clock of the fan-out.
    """

    def __init__(
        self,
        sink: Sink,
        peer: str,
        fan_out: FanOut,
        *,
        number: int = 0,
        tells_gaps: bool = False,
        tells_status: bool = False,
    ) -> None:
        self.peer = peer
        self.number = number
        self.began = fan_out.clock()
        self.tells_status = tells_status
        self._sink = sink
        self._fan_out = fan_out
        self._state = _State.HELD
        limits = fan_out.limits
        self._backlog = Backlog(limits.max_lag, limits.viewer_buffer, tells_gaps=tells_gaps)
        self._delay = 0.0  # of the network, when it last took something
        self._logged = 0  # of the frames dropped
        self._told = 0  # of the frames dropped
        self._max_lag = 0.0
        # Of the fan-out's frames and their bytes, before and after this viewer.
        self._joined = fan_out.sent
        self._joined_size = fan_out.sent_size
        self._left: int | None = None
        self._left_size = 0
        self._end_code: int | None = None
        fan_out.hold(self)

    @property
    def received(self) -> int:
        """The number of frames that were meant for this viewer."""
        until = self._fan_out.sent if self._left is None else self._left
        return until - self._joined - self._backlog.passed

    @property
    def delivered(self) -> int:
        """The number of frames that were handed to the sink."""
        return self.received - self.dropped - self.waiting

    @property
    def delivered_size(self) -> int:
        """The bytes of these frames, payload and header."""
        until = self._fan_out.sent_size if self._left is None else self._left_size
        return until - self._joined_size - self._backlog.lost_size - self.waiting_size

    @property
    def dropped(self) -> int:
        """The number of frames that were dropped."""
        return self._backlog.dropped

    @property
    def waiting(self) -> int:
        """The number of frames that wait."""
        return self._backlog.count

    @property
    def waiting_size(self) -> int:
        """The bytes of the frames that wait."""
        return self._backlog.frames_size

    @property
    def drops(self) -> Mapping[str, int]:
        """The number of frames that were dropped, by reason."""
        return self._backlog.drops

    @property
    def lag(self) -> float:
        """The seconds that a frame sent now would be late, by what waits before it."""
        return self._backlog.lag(self._fan_out.clock()) + self._sink.delay(self.waiting_size)

    @property
    def waits_for(self) -> str | None:
        """What keeps frames from it: its ``network``, the next ``keyframe``, or nothing."""
        if self._state is _State.BLOCKED:
            return "network"
        return "keyframe" if self.needs_keyframe else None

    @property
    def network(self) -> tuple[int, float] | None:
        """The bytes not acknowledged yet and the round trip in seconds, None if unknown."""
        return self._sink.network()

    @property
    def waiting_text(self) -> int:
        """The bytes of text messages that wait."""
        return self._backlog.text_size

    @property
    def needs_keyframe(self) -> bool:
        """Whether it can show no picture until the next keyframe."""
        return self._backlog.skipping

    def take_toll(self) -> tuple[int, float]:
        """Return the frames dropped and the most seconds that one was late, since the last call."""
        dropped, self._told = self.dropped - self._told, self.dropped
        if self.waiting:
            self._note_lag(self._fan_out.clock())
        max_lag, self._max_lag = self._max_lag, 0.0
        return dropped, max_lag

    def start(self) -> None:
        """Show the viewer a picture at once, or as soon as there is one; then live frames."""
        group = self._fan_out.group
        frames = group.replay()
        if frames is None:
            if group.config is not None:
                self._count_back(group.config)
            self._backlog.await_keyframe(group.config)
        else:
            for frame, _ in frames:
                self._count_back(frame)
            now = self._fan_out.clock()
            self._backlog.replay(frames, now, has_keyframes=group.has_keyframes)
        if self._fan_out.needs_keyframe:
            self._fan_out.request_keyframe()
        if self._state is _State.HELD:
            self._send_waiting()

    def send(self, message: bytes) -> None:
        """Send the bytes of a text message after the frames that wait; it is never dropped."""
        if self._state is _State.BLOCKED:
            self._backlog.add_text(message)
        elif self._state is not _State.CLOSED:
            self._write(message)

    def end(self, message: bytes, code: int) -> None:
        """Send a last message after all that waits, then close with this code."""
        self._end_code = code
        self._fan_out.leave(self)
        self._sink.closing()
        self.send(message)
        self._finish()

    def kick(self, code: int) -> None:
        """Close with this code at once, whatever waits."""
        self._sink.end(code)

    def pause(self) -> None:
        """Let messages wait from now on: the kernel is full."""
        if self._state is _State.FLOWING and self._end_code is None:
            self._fan_out.hold(self)
        if self._state is not _State.CLOSED:
            self._state = _State.BLOCKED

    def resume(self) -> None:
        """Send what waits, until the kernel is full again."""
        if self._state is _State.BLOCKED:
            self._state = _State.HELD
            self._delay = self._sink.delay(self._backlog.first_size())
            if self.needs_keyframe:
                # The one asked for when it began to skip may not have come; its picture is old.
                self._fan_out.request_keyframe()
            self._send_waiting()

    def wait(self, frame: bytes, marks: int, now: float) -> None:
        """Take a frame that can't be sent yet, or not at all."""
        backlog = self._backlog
        was_skipping = backlog.skipping
        has_keyframes = self._fan_out.group.has_keyframes
        backlog.add(frame, marks, now, has_keyframes=has_keyframes, delay=self._delay)
        if backlog.skipping and not was_skipping:
            self._fan_out.request_keyframe()
        self._note_dropped()
        if self._state is _State.HELD:
            self._send_waiting()

    def close(self) -> None:
        """Forget what waits; nothing is sent from now on."""
        if self._left is None:
            self._left, self._left_size = self._fan_out.sent, self._fan_out.sent_size
        self._state = _State.CLOSED
        self._fan_out.leave(self)
        self._backlog.clear()

    def _send_waiting(self) -> None:
        now = self._fan_out.clock()
        self._backlog.drop_late(now, self._delay)
        if self._backlog.count:
            self._note_lag(now)
        while True:
            waiting, lag = self._backlog.count, self._backlog.lag(now)
            message = self._backlog.take()
            if message is None:
                break
            if self._backlog.count < waiting:
                self._fan_out.frame_lag.observe(lag)
            self._write(message)
            if self._state is not _State.HELD:
                break
        self._note_dropped()
        if self._state is _State.HELD and not self._backlog.skipping and self._end_code is None:
            self._state = _State.FLOWING
            self._fan_out.flow(self, self._sink.write)
        self._finish()

    def _count_back(self, frame: bytes) -> None:
        """Count a frame that came before this viewer, and that it gets all the same."""
        self._joined -= 1
        self._joined_size -= len(frame)

    def _write(self, message: bytes) -> None:
        with contextlib.suppress(*BROKEN):
            self._sink.write(message)

    def _note_lag(self, now: float) -> None:
        self._max_lag = max(self._max_lag, self._backlog.lag(now) + self._delay)

    def _note_dropped(self) -> None:
        if dropped := self.dropped - self._logged:
            self._logged += dropped
            self._fan_out.drop_log.add(self.peer, dropped)
            if not self._fan_out.group.has_keyframes:
                self._fan_out.request_keyframe()

    def _finish(self) -> None:
        if self._end_code is not None and self._state in (_State.FLOWING, _State.HELD):
            self._sink.end(self._end_code)
