"""What a video is: told by its first bytes, which also tell which cutter it needs."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from . import h264, jpeg
from .cutting import Cutter, Frame, MediaError, VideoFormat
from .h264 import AccessUnitCutter
from .jpeg import JpegCutter

SNIFF_SIZE = 16
"""Bytes that `sniff` wants to see, less only where the input is shorter."""


class SniffingCutter:
    """Finds out from the first bytes what the stream is, then leaves it to the right cutter."""

    def __init__(self, name: str) -> None:
        """Keep the input's name, as a user would type it, for the advice in an error."""
        self._name = name
        self._head = b""
        self._cutter: Cutter | None = None

    def feed(self, data: bytes) -> list[Frame]:
        if self._cutter is not None:
            return self._cutter.feed(data)
        self._head += data
        if len(self._head) < SNIFF_SIZE:
            return []
        self._cutter = sniff(self._head, self._name)
        return self._cutter.feed(self._head)

    def release(self) -> list[Frame]:
        return self._cutter.release() if self._cutter is not None else []

    def flush(self) -> list[Frame]:
        if self._cutter is not None:
            return self._cutter.flush()
        cutter = sniff(self._head, self._name)
        return cutter.feed(self._head) + cutter.flush()


# -re: at the speed of the clip, as a live source would deliver it.
_UNPACK = "ffmpeg -re -i {name} -c:v copy -bsf:v h264_mp4toannexb -f h264 - | relayctl publish -"
_CONVERT = "ffmpeg -re -i {name} -f mjpeg -q:v 4 - | relayctl publish -"


def _magic(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


@dataclass(frozen=True)
class _Codec:
    magic: re.Pattern[bytes]
    cutter: Callable[[], Cutter]
    describe: Callable[[bytes], VideoFormat]


_CODECS = (
    _Codec(_magic(rb"\xff\xd8\xff"), JpegCutter, jpeg.describe),
    # A NAL unit's first bit is 0. @, B, D and F begin the parameter sets and delimiters of H.265.
    _Codec(_magic(rb"\x00{2,}\x01(?![\x80-\xff]|[@BDF]\x01)"), AccessUnitCutter, h264.describe),
)

_UNFIT: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (_magic(rb"\x00{2,}\x01[@BDF]\x01"), "H.265", _CONVERT),
    (_magic(rb".{4}(ftyp|moov|mdat|wide|free|skip)"), "MP4 or QuickTime", _UNPACK),
    (_magic(rb"FLV\x01"), "FLV", _UNPACK),
    (_magic(rb"G[\x00@][\x00\x11]"), "an MPEG transport stream", _UNPACK),
    (_magic(rb"\x1aE\xdf\xa3"), "Matroska or WebM", _CONVERT),
    (_magic(rb"RIFF....AVI "), "AVI", _CONVERT),
    (_magic(rb"GIF8"), "GIF", _CONVERT),
    (_magic(rb"\x89PNG"), "PNG", _CONVERT),
    (_magic(rb""), "neither MJPEG nor H.264 Annex B", _CONVERT),
)


def sniff(head: bytes, name: str = "INPUT") -> Cutter:
    """Pick the cutter for a stream by its first SNIFF_SIZE bytes.

    The name, as a user would type it, is for the advice in the error.

    Raises:
        MediaError: If the stream is neither MJPEG nor H.264 Annex B, or empty.
    """
    if not head:
        raise MediaError("the input is empty")
    for codec in _CODECS:
        if codec.magic.match(head):
            return codec.cutter()
    what, recipe = next((what, recipe) for magic, what, recipe in _UNFIT if magic.match(head))
    raise MediaError(f"the input is {what}; try: {recipe.format(name=shlex.quote(name))}")


def describe(data: bytes) -> VideoFormat:
    """Return what the beginning of a stream, or one of its frames, says of the video."""
    for codec in _CODECS:
        if codec.magic.match(data):
            return codec.describe(data)
    return {}
