"""The hot path: a frame's bytes, the fan-out, and the queue of a viewer that can't keep up.

No asyncio and no sockets: a viewer talks to anything that has the methods of `Sink`.
"""

import contextlib
import enum
import logging
from collections import Counter, deque
from collections.abc import Callable
from struct import Struct
from typing import Protocol

logger = logging.getLogger(__name__)

_FIN_TEXT = 0x81
FIN_BINARY = 0x82

pack_16 = Struct(">BBH").pack
_pack_64 = Struct(">BBQ").pack


def binary_frame(payload: bytes) -> bytes:
    """Return the bytes of an unfragmented binary message from a server (RFC 6455 section 5.2)."""
    return frame_header(FIN_BINARY, len(payload)) + payload


def text_frame(text: str) -> bytes:
    """Return the bytes of an unfragmented text message from a server (RFC 6455 section 5.2)."""
    payload = text.encode()
    return frame_header(_FIN_TEXT, len(payload)) + payload


def frame_header(first: int, length: int) -> bytes:
    """Return the header of a frame from a server: its first byte and its length in bytes."""
    if length < 126:
        return bytes((first, length))
    if length < 2**16:
        return pack_16(first, 126, length)
    return _pack_64(first, 127, length)


BROKEN = (OSError, RuntimeError)
"""What a write raises when the connection has broken and nobody has been told yet."""


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

    def closing(self) -> None:
        """Expect `end`, and give up on the client if it does not come in time."""
        ...

    def end(self, code: int, /) -> None:
        """Start the closing handshake."""
        ...


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


class _State(enum.Enum):
    FLOWING = enum.auto()  # the kernel takes all that we write
    BLOCKED = enum.auto()  # it doesn't: messages wait
    CLOSED = enum.auto()


class FanOut:
    """A stream's way out: every frame goes to every viewer.

    Attributes:
        buffer: The most that may wait for one viewer, in bytes.
        drop_log: Told of every frame dropped.
        frames: Frames received so far.
        size: Bytes received so far, of payload and header.
    """

    def __init__(self, buffer: int, drop_log: DropLog) -> None:
        self.buffer = buffer
        self.drop_log = drop_log
        self.frames = 0
        self.size = 0
        self._flowing: dict[Viewer, Callable[[bytes], None]] = {}
        self._blocked: set[Viewer] = set()
        # The writes of the viewers that flow, all that a frame needs to know; None: look again.
        self._writes: tuple[Callable[[bytes], None], ...] | None = None

    def push(self, frame: bytes) -> None:
        """Send the bytes of a whole frame to every viewer: one object, nothing built for each."""
        self.frames += 1
        self.size += len(frame)
        # First those that wait: a write below may find the kernel full, and so add one.
        for viewer in self._blocked:
            viewer.wait(frame)
        writes = self._writes
        if writes is None:
            writes = self._writes = tuple(self._flowing.values())
        for write in writes:
            try:  # noqa: SIM105  # unlike suppress(), free where nothing is raised
                write(frame)
            except BROKEN:
                pass

    def flow(self, viewer: "Viewer", write: Callable[[bytes], None]) -> None:
        """Write frames to a viewer as they come, from now on."""
        self.leave(viewer)
        self._flowing[viewer] = write

    def block(self, viewer: "Viewer") -> None:
        """Let frames wait for a viewer, if it is still here."""
        if viewer in self._flowing:
            self.leave(viewer)
            self._blocked.add(viewer)

    def leave(self, viewer: "Viewer") -> None:
        """Send a viewer nothing more."""
        self._flowing.pop(viewer, None)
        self._blocked.discard(viewer)
        self._writes = None


class Viewer:
    """One viewer's way out.

    Frames go straight to the sink while the kernel takes them. While it does not, they wait
    here, by reference; past the stream's buffer the oldest are dropped, always whole. One frame
    larger than that may wait alone.

    Args:
        sink: The viewer's connection.
        peer: The viewer's address, for the log.
        fan_out: Where its frames come from.
    """

    def __init__(self, sink: Sink, peer: str, fan_out: FanOut) -> None:
        self.peer = peer
        self.dropped = 0
        self._sink = sink
        self._fan_out = fan_out
        self._state = _State.FLOWING
        self._waiting: deque[bytes] = deque()
        self._waiting_size = 0
        self._end_code: int | None = None
        fan_out.flow(self, sink.write)

    @property
    def waiting_size(self) -> int:
        """The bytes that wait here because the kernel did not take them."""
        return self._waiting_size

    def write(self, message: bytes) -> None:
        """Send a message at once; it must be one that may overtake what waits, or nothing waits."""
        with contextlib.suppress(*BROKEN):
            self._sink.write(message)

    def end(self, message: bytes, code: int) -> None:
        """Send a last message after all that waits, then close with this code."""
        self._end_code = code
        self._fan_out.leave(self)
        self._sink.closing()
        if self._state is _State.FLOWING:
            self.write(message)
        elif self._state is _State.BLOCKED:
            self._waiting.append(message)
            self._waiting_size += len(message)
        self._finish()

    def pause(self) -> None:
        """Let messages wait from now on: the kernel is full."""
        if self._state is _State.FLOWING:
            self._state = _State.BLOCKED
            self._fan_out.block(self)

    def resume(self) -> None:
        """Send what waits, until the kernel is full again."""
        if self._state is not _State.BLOCKED:
            return
        self._state = _State.FLOWING
        if self._end_code is None:
            self._fan_out.flow(self, self._sink.write)
        while self._waiting:
            message = self._waiting.popleft()
            self._waiting_size -= len(message)
            self.write(message)
            if self._state is not _State.FLOWING:
                return
        self._finish()

    def wait(self, frame: bytes) -> None:
        """Let a frame wait; drop the oldest past the buffer."""
        self._waiting.append(frame)
        self._waiting_size += len(frame)
        dropped = 0
        while self._waiting_size > self._fan_out.buffer and len(self._waiting) > 1:
            self._waiting_size -= len(self._waiting.popleft())
            dropped += 1
        if dropped:
            self.dropped += dropped
            self._fan_out.drop_log.add(self.peer, dropped)

    def close(self) -> None:
        """Forget what waits; nothing is sent from now on."""
        self._state = _State.CLOSED
        self._fan_out.leave(self)
        self._waiting.clear()
        self._waiting_size = 0

    def _finish(self) -> None:
        if self._end_code is not None and self._state is _State.FLOWING:
            self._sink.end(self._end_code)
