"""What every cutter does: it takes a video elementary stream in chunks and gives frames."""

import abc
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

FRAME_LIMIT = 64 * 1024 * 1024
"""Bytes without the end of a frame after which the input is taken for garbage.

Four times the default of the largest frame that relayd accepts.
"""

CONFIG, KEYFRAME = "config", "keyframe"
"""What a frame can be marked as: those of `protocol.MARKS`."""

VideoFormat = dict[str, Any]
"""What is known of a video: `codec`, and `width` and `height` in pixels. Empty where nothing is."""


class MediaError(Exception):
    """The input can't be cut into frames. The message is one line that says what to do."""


class Frame(NamedTuple):
    """One binary message of a stream.

    Attributes:
        data: What is sent, byte for byte.
        mark: CONFIG where it is what a decoder must know before the pictures that follow, KEYFRAME
            where it is a picture that can be decoded without those before it, else None.
    """

    data: bytes
    mark: str | None = None


class Cutter(Protocol):
    """An elementary stream that is cut while it arrives."""

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream; return the frames that they complete.

        Raises:
            MediaError: If the input can't be cut.
        """

    def release(self) -> list[Frame]:
        """Return what waits and seems to be whole: the stream has paused."""

    def flush(self) -> list[Frame]:
        """Return what waits, whole or not: the stream has ended.

        Raises:
            MediaError: If the input can't be cut.
        """


class BufferedCutter(abc.ABC):
    """What cutters share: the bytes that wait, and how far they have been looked at.

    Pure: bytes in, bytes out. The frames of a cutter, put together, are its input byte for byte,
    and don't depend on the chunks in which the input came. Each byte is looked at once, in C.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = list(self._cut())
        if len(self._buffer) > FRAME_LIMIT:
            raise MediaError(
                f"no end of a frame within {FRAME_LIMIT >> 20} MiB: the input is damaged"
            )
        return frames

    def release(self) -> list[Frame]:
        return []

    @abc.abstractmethod
    def flush(self) -> list[Frame]:
        """See `Cutter`."""

    @abc.abstractmethod
    def _cut(self) -> Iterator[Frame]:
        """Take the frames that the buffer holds off it."""

    def _take(self, size: int, mark: str | None = None) -> list[Frame]:
        """Take the first bytes off the buffer, as a frame unless there are none."""
        if not size:
            return []
        frame = Frame(bytes(self._buffer[:size]), mark)
        del self._buffer[:size]
        self._position = max(0, self._position - size)
        return [frame]
