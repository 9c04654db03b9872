"""JPEG (ITU-T T.81): cut MJPEG into images, and read an image's size."""

import re
from collections.abc import Iterator

from .cutting import KEYFRAME, BufferedCutter, Frame, VideoFormat

# Markers, T.81 table B.1. A marker is FF and a code; FF before FF is filling.
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RST0 to RST7 have no length.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn; not DHT, JPG, DAC.

_START_OF_IMAGE = re.compile(rb"\xff\xd8")
_ANY_MARKER = re.compile(rb"\xff[^\x00\xff]")
# In entropy-coded data FF 00 stands for a byte FF, and RST markers are part of the data.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_FRAME_HEADER_SIZE = 7
"""Bytes of a frame header up to the width: length, precision, height, width (T.81 B.2.2)."""


class JpegCutter(BufferedCutter):
    """Cuts MJPEG, JPEG images back to back, into images, each of them a keyframe.

    Marker segments are skipped by their length, so that a thumbnail inside one, a whole JPEG image
    of its own, does not end the picture. An image ends with its EOI marker, or where it was cut
    short and the next SOI follows. Bytes between two images go with the second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._expected = _START_OF_IMAGE  # What can come next that matters.

    def _cut(self) -> Iterator[Frame]:
        while marker := self._expected.search(self._buffer, self._position):
            start, end = marker.span()
            code = self._buffer[end - 1]
            if code == _SOI:
                if self._expected is not _START_OF_IMAGE:
                    yield from self._take(start, KEYFRAME)
                    end -= start
                self._expected = _ANY_MARKER
            elif code == _EOI:
                yield from self._take(end, KEYFRAME)
                end = 0
                self._expected = _START_OF_IMAGE
            elif code not in _STANDALONE:
                if len(self._buffer) < end + 2:
                    self._position = start
                    return
                end += _segment_size(self._buffer, end)
                self._expected = _END_OF_SCAN if code == _SOS else _ANY_MARKER
            self._position = end
        # A marker's FF may be the last byte that is here; a segment may end where none is yet.
        self._position = max(self._position, len(self._buffer) - 1)

    def flush(self) -> list[Frame]:
        is_image = self._expected is not _START_OF_IMAGE
        return self._take(len(self._buffer), KEYFRAME if is_image else None)


def describe(data: bytes) -> VideoFormat:
    """Return the codec of data that begins with an image, and its size if the header is there."""
    place = len(b"\xff\xd8")
    while marker := _ANY_MARKER.search(data, place):
        code, place = data[marker.end() - 1], marker.end()
        if code in _FRAME_HEADERS:
            return {"codec": "jpeg", **_size(data[place : place + _FRAME_HEADER_SIZE])}
        if code in (_SOS, _EOI):
            break
        if code not in _STANDALONE:
            place += _segment_size(data, place)
    return {"codec": "jpeg"}


def _size(header: bytes) -> VideoFormat:
    width, height = int.from_bytes(header[5:7], "big"), int.from_bytes(header[3:5], "big")
    # A height of 0 says that it comes after the first scan (T.81 B.2.2).
    is_known = len(header) == _FRAME_HEADER_SIZE and width and height
    return {"width": width, "height": height} if is_known else {}


def _segment_size(data: bytes | bytearray, place: int) -> int:
    """Return the bytes from a segment's length on, which counts its own two (T.81 B.1.1.4)."""
    return max(2, int.from_bytes(data[place : place + 2], "big"))
