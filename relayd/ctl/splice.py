"""Where a stream goes on after an interruption, so that a decoder can go on as well."""

from .cutting import CONFIG, KEYFRAME, Frame


class Splice:
    """Decides which frames of a stream may be sent.

    After an interruption these are none until the next keyframe, which the last config precedes.
    A stream that has had no keyframe so far goes on at once.
    """

    def __init__(self) -> None:
        self._config: Frame | None = None
        self._keyframe: Frame | None = None
        self._is_interrupted = False

    def interrupt(self) -> None:
        """Take note that frames may be missing from here on."""
        self._is_interrupted = True

    def admits(self, frame: Frame) -> bool:
        """Return whether `admit` would have this frame sent."""
        if not self._is_interrupted or frame.mark == KEYFRAME:
            return True
        return self._keyframe is None and frame.mark != CONFIG

    def admit(self, frame: Frame) -> tuple[Frame, ...]:
        """Take the next frame of the stream; return what is to be sent now, in this order."""
        is_admitted = self.admits(frame)
        if frame.mark == CONFIG:
            self._config = frame
        elif frame.mark == KEYFRAME:
            self._keyframe = frame
        if not is_admitted:
            return ()
        needs_config = self._is_interrupted and self._config is not None
        self._is_interrupted = False
        return (self._config, frame) if needs_config and self._config else (frame,)

    @property
    def sample(self) -> bytes:
        """What there is by which to describe the stream as it is now; empty in the beginning."""
        newest = self._config or self._keyframe
        return newest.data if newest else b""
