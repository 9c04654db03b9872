"""Tests of what all cutters do."""

from collections.abc import Callable

import pytest
from ctl.elementary import CUTS, EOI, PPS, SCAN, SOI, SPS, chunks_of, cut, joined
from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl import cutting
from relayd.ctl.cutting import Cutter, MediaError
from relayd.ctl.h264 import AccessUnitCutter
from relayd.ctl.jpeg import JpegCutter
from relayd.protocol import MARKS

WORDS = [
    *(b"\xff", b"\xd8", b"\xd9", b"\xda", b"\xd3", b"\0", b"\1", b"\x65", b"\x67", b"\x80"),
    *(SOI, SCAN, EOI, SPS, PPS, b"\0\0\1\x65\x80", b"\0\0\1\x41\x80"),
]


def test_marks_are_those_of_the_protocol() -> None:
    """A frame can be marked as what the protocol has messages for."""
    assert (cutting.CONFIG, cutting.KEYFRAME) == MARKS


@pytest.mark.parametrize("cutter", [JpegCutter, AccessUnitCutter])
@given(words=st.lists(st.sampled_from(WORDS)), cuts=CUTS)
def test_no_byte_is_lost(cutter: Callable[[], Cutter], words: list[bytes], cuts: list[int]) -> None:
    """Of any input at all, the frames together are the input and don't depend on the chunks."""
    stream = b"".join(words)
    frames = cut(cutter(), chunks_of(stream, cuts))
    assert joined(frames) == stream
    assert frames == cut(cutter(), [stream])


@pytest.mark.parametrize("cutter", [JpegCutter, AccessUnitCutter])
def test_garbage_is_not_gathered(cutter: Callable[[], Cutter]) -> None:
    """More than FRAME_LIMIT bytes without the end of a frame are an error."""
    garbage = b"\xfe" * (1 << 20)
    stream = cutter()
    for _ in range(cutting.FRAME_LIMIT // len(garbage)):
        assert stream.feed(garbage) == []
    with pytest.raises(MediaError, match="within 64 MiB: the input is damaged"):
        stream.feed(b"!")
