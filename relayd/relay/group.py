"""What a streamer's marks make possible: the frames that show a new viewer a picture at once."""

from collections.abc import Sequence

CONFIG = 1
"""Decoder configuration: to be sent before the keyframes that come after it."""

KEYFRAME = 2
"""A picture can be decoded from here."""

CONFIG_LIMIT = 64 * 1024
"""Bytes of a frame that is kept as the configuration; parameter sets take hundreds."""

ENTRY_COST = 128
"""Bytes of memory that a kept frame takes beside its own: tuple, float, the head of the bytes."""

Marked = tuple[bytes, int]
"""A frame's bytes and what it is: 0, CONFIG, KEYFRAME or both."""


class Group:
    """The last configuration, and the frames since the last keyframe, as long as they are few.

    Args:
        limit: The most bytes of frames to keep; past it they are let go until the next keyframe.

    Attributes:
        config: The last configuration.
        has_keyframes: Whether the streamer marks keyframes, so that frames can be skipped cleanly.
    """

    def __init__(self, limit: int) -> None:
        self.config: bytes | None = None
        self.has_keyframes = False
        self._limit = limit
        self._frames: list[Marked] | None = None
        self._size = 0

    def add(self, frame: bytes, marks: int) -> None:
        """Take the stream's next frame."""
        if marks & KEYFRAME:
            self.has_keyframes = True
            self._frames = []
            self._size = 0
            # The one that was in force here, even if another comes within the group.
            if self.config is not None and not marks & CONFIG:
                self._keep(self.config, CONFIG)
        if marks & CONFIG:
            self.config = frame
        self._keep(frame, marks)

    def replay(self) -> Sequence[Marked] | None:
        """Return what a new viewer gets before live frames; None: it must wait for a keyframe."""
        if self.has_keyframes:
            return self._frames
        return [] if self.config is None else [(self.config, CONFIG)]

    def _keep(self, frame: bytes, marks: int) -> None:
        if self._frames is None:
            return
        self._frames.append((frame, marks))
        self._size += len(frame) + ENTRY_COST
        if self._size > self._limit:
            self._frames = None
