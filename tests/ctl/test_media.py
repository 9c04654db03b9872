"""Tests of telling what a video is."""

from pathlib import Path

import pytest
from ctl.elementary import (
    ACCESS_UNITS,
    CUTS,
    EOI,
    JPEGS,
    SOI,
    SPS,
    chunks_of,
    cut,
    joined,
    picture_size,
    single_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl.cutting import KEYFRAME, Cutter, Frame, MediaError
from relayd.ctl.h264 import AccessUnitCutter
from relayd.ctl.jpeg import JpegCutter
from relayd.ctl.media import SniffingCutter, describe, sniff


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0", JpegCutter),
        (b"\0\0\1\x67", AccessUnitCutter),
        (b"\0\0\0\1\x09\xf0", AccessUnitCutter),
        (b"\0\0\0\0\0\1\x67", AccessUnitCutter),
        (b"\0\0\1", AccessUnitCutter),
    ],
)
def test_sniff(head: bytes, kind: type[Cutter]) -> None:
    """The first bytes tell MJPEG and H.264."""
    assert type(sniff(head)) is kind


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "the input is empty"),
        (b"\0\0\0\x20ftypisom", "MP4 or QuickTime; .*-c:v copy .* -i? ?-f h264 -"),
        (b"\x1aE\xdf\xa3\x01", "Matroska or WebM"),
        (b"RIFF\x0a\0\0\0AVI LIST", "AVI"),
        (b"FLV\1\5", "FLV"),
        (b"G@\x11\x10", "an MPEG transport stream"),
        (b"GIF89a", "GIF"),
        (b"\x89PNG\r\n", "PNG"),
        (b"\0\0\0\1\x40\1\x0c", "H.265"),
        (b"\0\0\1\xba", "neither MJPEG nor H.264 Annex B; try: ffmpeg .* -f mjpeg"),
        (b"hello", "neither MJPEG nor H.264 Annex B"),
    ],
)
def test_sniff_says_what_to_do(head: bytes, message: str) -> None:
    """Anything else is an error of one line, with a command to try."""
    with pytest.raises(MediaError, match=message.replace(" -i? ?", " ")) as caught:
        sniff(head, "my clip.mov")
    assert "\n" not in str(caught.value)
    assert not head or "-i 'my clip.mov'" in str(caught.value)


@given(CUTS)
def test_a_stream_of_unknown_kind(cuts: list[int]) -> None:
    """A stream is cut by what its first bytes are, however they come."""
    images = [Frame(image, KEYFRAME) for image in JPEGS]
    units = [frame for unit in ACCESS_UNITS for frame in unit]
    for frames in (images, units, [Frame(SOI + EOI[:1], KEYFRAME)], [Frame(SPS[:5])]):
        cutter = SniffingCutter("-")
        assert cutter.release() == []
        assert cut(cutter, chunks_of(joined(frames), cuts)) == frames


def test_a_stream_of_unknown_kind_pauses() -> None:
    """What waits is released by the cutter that was picked."""
    cutter = SniffingCutter("-")
    cutter.feed(joined(ACCESS_UNITS[0]))
    assert cutter.release() == ACCESS_UNITS[0]


@pytest.mark.parametrize("stream", [b"", b"short", b"long enough to be sniffed"])
def test_a_stream_of_unfit_kind(stream: bytes) -> None:
    """A stream that is neither MJPEG nor H.264 is an error, be it short or long."""
    with pytest.raises(MediaError):
        cut(SniffingCutter("-"), single_bytes(stream))


def test_streams_are_described(h264_clip: Path, mjpeg_clip: Path) -> None:
    """The codec and the size are told by a part of the stream, as ffprobe tells them by all."""
    for clip, codec in ((h264_clip, "avc1."), (mjpeg_clip, "jpeg")):
        found = describe(clip.read_bytes()[:4096])
        assert found["codec"].startswith(codec)
        assert (found["width"], found["height"]) == picture_size(clip)


@given(st.binary())
def test_what_is_unknown_is_not_described(data: bytes) -> None:
    """Of anything else nothing is known."""
    assert describe(b"?" + data) == {}
    assert describe(b"") == {}
