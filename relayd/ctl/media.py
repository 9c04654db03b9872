"""Cut a video elementary stream into frames: MJPEG into images, H.264 Annex B into access units.

Pure: bytes in, bytes out. The pieces of a cutter, put together, are its input byte for byte, and
don't depend on the chunks in which the input came. Each byte is looked at once, in C.
"""

import abc
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Protocol

FRAME_LIMIT = 64 * 1024 * 1024
"""Bytes without the end of a frame after which the input is taken for garbage.

Four times the default of the largest frame that relayd accepts.
"""

SNIFF_SIZE = 16
"""Bytes that `sniff` wants to see, less only where the input is shorter."""


class MediaError(Exception):
    """The input can't be cut into frames. The message is one line that says what to do."""


class Cutter(Protocol):
    """An elementary stream that is cut while it arrives."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream; return the frames that they complete.

        Raises:
            MediaError: If the input can't be cut.
        """

    def release(self) -> list[bytes]:
        """Return what waits and seems to be whole: the stream has paused."""

    def flush(self) -> list[bytes]:
        """Return what waits, whole or not: the stream has ended.

        Raises:
            MediaError: If the input can't be cut.
        """


class _BufferedCutter(abc.ABC):
    """What cutters share: the bytes that wait, and how far they have been looked at."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        frames = list(self._cut())
        if len(self._buffer) > FRAME_LIMIT:
            raise MediaError(
                f"no end of a frame within {FRAME_LIMIT >> 20} MiB: the input is damaged"
            )
        return frames

    def release(self) -> list[bytes]:
        return []

    def flush(self) -> list[bytes]:
        return self._take_unless_empty(len(self._buffer))

    @abc.abstractmethod
    def _cut(self) -> Iterator[bytes]:
        """Take the frames that the buffer holds off it."""

    def _take(self, size: int) -> bytes:
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._position = max(0, self._position - size)
        return piece

    def _take_unless_empty(self, size: int) -> list[bytes]:
        return [self._take(size)] if size else []


# JPEG markers, ITU-T T.81 table B.1. A marker is FF and a code; FF before FF is filling.
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RST0 to RST7 have no length.

_START_OF_IMAGE = re.compile(rb"\xff\xd8")
_ANY_MARKER = re.compile(rb"\xff[^\x00\xff]")
# In entropy-coded data FF 00 stands for a byte FF, and RST markers are part of the data.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class JpegCutter(_BufferedCutter):
    """Cuts MJPEG, JPEG images back to back, into images.

    Marker segments are skipped by their length, so that a thumbnail inside one, a whole JPEG image
    of its own, does not end the picture. An image ends with its EOI marker, or where it was cut
    short and the next SOI follows. Bytes between two images go with the second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._expected = _START_OF_IMAGE  # What can come next that matters.

    def _cut(self) -> Iterator[bytes]:
        while marker := self._expected.search(self._buffer, self._position):
            start, end = marker.span()
            code = self._buffer[end - 1]
            if code == _SOI:
                if self._expected is not _START_OF_IMAGE:
                    yield self._take(start)
                    end -= start
                self._expected = _ANY_MARKER
            elif code == _EOI:
                yield self._take(end)
                end = 0
                self._expected = _START_OF_IMAGE
            elif code not in _STANDALONE:
                if len(self._buffer) < end + 2:
                    self._position = start
                    return
                # The length counts its own two bytes (T.81 B.1.1.4).
                end += max(2, int.from_bytes(self._buffer[end : end + 2], "big"))
                self._expected = _END_OF_SCAN if code == _SOS else _ANY_MARKER
            self._position = end
        # A marker's FF may be the last byte that is here; a segment may end where none is yet.
        self._position = max(self._position, len(self._buffer) - 1)


# NAL unit types, ITU-T H.264 table 7-1.
_FIRST_SLICES = frozenset({1, 2, 5})  # Slice, data partition A, IDR slice: what has first_mb.
_OPENERS = frozenset({6, 7, 8, 9, *range(14, 19)})  # SEI, SPS, PPS, AUD, reserved.

_START_CODE = b"\0\0\1"


class AccessUnitCutter(_BufferedCutter):
    """Cuts an H.264 byte stream (ITU-T H.264 annex B) into access units, one per picture.

    By 7.4.1.2.3, after a slice, the next access unit starts at an AUD, SPS, PPS, SEI or NAL unit
    of type 14 to 18, or at the first slice of the next picture: the one with first_mb_in_slice 0,
    which as ue(v) is a set first bit. So the slices of a picture stay together. Redundant pictures
    and arbitrary slice order, which no encoder of a phone makes, would be cut apart.

    The zero byte in front of a start code belongs to the unit that the start code begins.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_slice = False  # The access unit at hand holds one.

    def _cut(self) -> Iterator[bytes]:
        while (found := self._buffer.find(_START_CODE, self._position)) >= 0:
            self._position = found
            payload = found + len(_START_CODE)
            # The type is in the first byte, first_mb_in_slice in the second.
            if len(self._buffer) < payload + 2:
                return
            nal_type = self._buffer[payload] & 0x1F
            is_first_slice = nal_type in _FIRST_SLICES and self._buffer[payload + 1] >= 0x80
            self._position = payload
            if self._has_slice and (is_first_slice or nal_type in _OPENERS):
                self._has_slice = False
                # Nothing is left of it where it was released before.
                yield from self._take_unless_empty(self._start_of(found))
            if nal_type in _FIRST_SLICES:
                self._has_slice = True
        # The last two bytes may begin a start code.
        self._position = max(self._position, len(self._buffer) - len(_START_CODE) + 1)

    def release(self) -> list[bytes]:
        """Return the access unit that waits if it holds a slice.

        Only the start of the next one shows that an access unit is whole, and on a screen that
        stands still an encoder sends no next one. A start code of which only a part has come stays
        for what follows.
        """
        if not self._has_slice:
            return []
        found = self._buffer.find(_START_CODE, self._position)
        if found < 0:
            return self._take_unless_empty(len(self._buffer.rstrip(b"\0")))
        return self._take_unless_empty(self._start_of(found))

    def _start_of(self, start_code: int) -> int:
        """Return where the NAL unit of a start code begins, its zero byte included."""
        has_zero_byte = start_code > 0 and self._buffer[start_code - 1] == 0
        return start_code - has_zero_byte


class SniffingCutter:
    """Finds out from the first bytes what the stream is, then leaves it to the right cutter."""

    def __init__(self, name: str) -> None:
        """Keep the input's name, as a user would type it, for the advice in an error."""
        self._name = name
        self._head = b""
        self._cutter: Cutter | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._cutter is not None:
            return self._cutter.feed(data)
        self._head += data
        if len(self._head) < SNIFF_SIZE:
            return []
        self._cutter = sniff(self._head, self._name)
        return self._cutter.feed(self._head)

    def release(self) -> list[bytes]:
        return self._cutter.release() if self._cutter is not None else []

    def flush(self) -> list[bytes]:
        if self._cutter is not None:
            return self._cutter.flush()
        cutter = sniff(self._head, self._name)
        return cutter.feed(self._head) + cutter.flush()


# -re: at the speed of the clip, as a live source would deliver it.
_UNPACK = "ffmpeg -re -i {name} -c:v copy -bsf:v h264_mp4toannexb -f h264 - | relayctl publish -"
_CONVERT = "ffmpeg -re -i {name} -f mjpeg -q:v 4 - | relayctl publish -"


def _magic(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_CUTTERS: tuple[tuple[re.Pattern[bytes], Callable[[], Cutter]], ...] = (
    (_magic(rb"\xff\xd8\xff"), JpegCutter),
    # A NAL unit's first bit is 0. @, B, D and F begin the parameter sets and delimiters of H.265.
    (_magic(rb"\x00{2,}\x01(?![\x80-\xff]|[@BDF]\x01)"), AccessUnitCutter),
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
    for magic, cutter in _CUTTERS:
        if magic.match(head):
            return cutter()
    what, recipe = next((what, recipe) for magic, what, recipe in _UNFIT if magic.match(head))
    raise MediaError(f"the input is {what}; try: {recipe.format(name=shlex.quote(name))}")
