"""H.264 byte streams (ITU-T H.264 annex B): cut them into access units, and say what they hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from . import sps
from .cutting import CONFIG, KEYFRAME, BufferedCutter, Frame, VideoFormat

# NAL unit types, ITU-T H.264 table 7-1.
_IDR_SLICE, _SPS = 5, 7
_FIRST_SLICES = frozenset({1, 2, _IDR_SLICE})  # Slice, data partition A: what has first_mb.
_OPENERS = frozenset({6, _SPS, 8, 9, *range(14, 19)})  # SEI, SPS, PPS, AUD, reserved.
_LEADERS = frozenset({_SPS, 8, 9, 13})  # SPS, PPS, AUD, SPS extension.

_START_CODE = b"\0\0\1"

_SPS_UNIT = re.compile(rb"\x00\x00\x01([\x07\x27\x47\x67].*?)(?:\x00\x00[\x00\x01]|\Z)", re.DOTALL)
"""A sequence parameter set, whatever its nal_ref_idc, up to the next NAL unit."""


@dataclass
class _Unit:
    """What is known so far of the access unit at hand."""

    is_rest: bool = False  # Its beginning is taken already.
    has_slice: bool = False
    is_idr: bool = False
    has_sps: bool = False  # Among its leaders.
    leaders_end: int | None = None  # In the buffer; None while nothing else has come.


class AccessUnitCutter(BufferedCutter):
    """Cuts an H.264 byte stream into access units, one per picture, and splits the config off.

    By 7.4.1.2.3, after a slice, the next access unit starts at an AUD, SPS, PPS, SEI or NAL unit
    of type 14 to 18, or at the first slice of the next picture: the one with first_mb_in_slice 0,
    which as ue(v) is a set first bit. So the slices of a picture stay together. Redundant pictures
    and arbitrary slice order, which no encoder of a phone makes, would be cut apart.

    The parameter sets that an access unit begins with are a frame of their own, a config. Without
    an SPS among them they are not: a relay keeps the last config alone, and a decoder that begins
    with a PPS alone can't. The rest is a keyframe if it has an IDR slice.

    The zero byte in front of a start code belongs to the unit that the start code begins.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unit = _Unit()

    def _cut(self) -> Iterator[Frame]:
        while (found := self._buffer.find(_START_CODE, self._position)) >= 0:
            self._position = found
            payload = found + len(_START_CODE)
            # The type is in the first byte, first_mb_in_slice in the second.
            if len(self._buffer) < payload + 2:
                return
            nal_type = self._buffer[payload] & 0x1F
            is_first_slice = nal_type in _FIRST_SLICES and self._buffer[payload + 1] >= 0x80
            if self._unit.has_slice and (is_first_slice or nal_type in _OPENERS):
                # Nothing is left of it where it was released before.
                yield from self._take_unit(self._start_of(found))
                self._unit = _Unit()
            self._note(nal_type, self._position)
            self._position += len(_START_CODE)
        # The last two bytes may begin a start code.
        self._position = max(self._position, len(self._buffer) - len(_START_CODE) + 1)

    def release(self) -> list[Frame]:
        """Return the access unit that waits if it holds a slice.

        Only the start of the next one shows that an access unit is whole, and on a screen that
        stands still an encoder sends no next one. A start code of which only a part has come stays
        for what follows.
        """
        if not self._unit.has_slice:
            return []
        found = self._buffer.find(_START_CODE, self._position)
        end = len(self._buffer.rstrip(b"\0")) if found < 0 else self._start_of(found)
        frames = self._take_unit(end)
        self._unit = _Unit(is_rest=True, has_slice=True)
        return frames

    def flush(self) -> list[Frame]:
        if self._unit.leaders_end is None and self._buffer.startswith(_START_CODE, self._position):
            # Too little has come of this NAL unit to know its type.
            self._unit.leaders_end = self._start_of(self._position)
        return self._take_unit(len(self._buffer))

    def _note(self, nal_type: int, start_code: int) -> None:
        unit = self._unit
        unit.has_slice |= nal_type in _FIRST_SLICES
        unit.is_idr |= nal_type == _IDR_SLICE
        if unit.leaders_end is None:
            unit.has_sps |= nal_type == _SPS
            if nal_type not in _LEADERS:
                unit.leaders_end = self._start_of(start_code)

    def _take_unit(self, end: int) -> list[Frame]:
        """Take the access unit at hand, which ends here."""
        unit = self._unit
        if unit.is_rest:
            return self._take(end)
        leaders_end = end if unit.leaders_end is None else unit.leaders_end
        config = self._take(leaders_end, CONFIG) if unit.has_sps else []
        rest = end - leaders_end if config else end
        return config + self._take(rest, KEYFRAME if unit.is_idr else None)

    def _start_of(self, start_code: int) -> int:
        """Return where the NAL unit of a start code begins, its zero byte included."""
        has_zero_byte = start_code > 0 and self._buffer[start_code - 1] == 0
        return start_code - has_zero_byte


def describe(data: bytes) -> VideoFormat:
    """Return what the first SPS in the data says, as far as it can be read.

    The codec is named as in RFC 6381 section 3.3: avc1, and profile, constraints and level in hex.
    """
    unit = _SPS_UNIT.search(data)
    return sps.describe(unit[1]) if unit else {}
