"""Tests of cutting H.264 and of what a stream says of itself."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ctl.elementary import (
    ACCESS_UNITS,
    AUD,
    BASELINE,
    CUTS,
    FIRST,
    IDR,
    NEXT,
    PPS,
    SEI,
    SLICE,
    SPS,
    chunks_of,
    cut,
    joined,
    nal,
    packets,
    picture_size,
    single_bytes,
)
from harness import PATIENCE, require_tool
from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl.cutting import CONFIG, KEYFRAME, Frame
from relayd.ctl.h264 import AccessUnitCutter, describe

Units = list[list[Frame]]


def frames_of(units: Units) -> list[Frame]:
    """Return the frames of access units."""
    return list(itertools.chain.from_iterable(units))


@given(st.lists(st.sampled_from(ACCESS_UNITS)), CUTS)
def test_h264_is_cut_into_access_units(units: Units, cuts: list[int]) -> None:
    """H.264 is cut before every access unit and after its config, however it comes."""
    frames = frames_of(units)
    assert cut(AccessUnitCutter(), chunks_of(joined(frames), cuts)) == frames


def test_any_two_chunks() -> None:
    """A stream may be split at any byte, and come byte by byte."""
    frames = frames_of(ACCESS_UNITS)
    data = joined(frames)
    for place in range(len(data)):
        assert cut(AccessUnitCutter(), [data[:place], data[place:]]) == frames
    assert cut(AccessUnitCutter(), single_bytes(data)) == frames


def units_of(nal_types: list[tuple[int, bool]]) -> Iterator[list[tuple[int, bool]]]:
    """Group NAL units, each a type and whether it is first in its picture, by 7.4.1.2.3."""
    unit: list[tuple[int, bool]] = []
    for nal_type, is_first in nal_types:
        opens = nal_type in {6, 7, 8, 9, 14, 15, 16, 17, 18} or (is_first and nal_type in {1, 2, 5})
        if opens and any(each in {1, 2, 5} for each, _ in unit):
            yield unit
            unit = []
        unit.append((nal_type, is_first))
    if unit:
        yield unit


def expected_frames(unit: list[tuple[int, bool]]) -> Iterator[Frame]:
    """Yield the frames that an access unit must become."""
    pieces = [nal(each, FIRST if is_first else NEXT) for each, is_first in unit]
    types = [each for each, _ in unit]
    split = len(list(itertools.takewhile({7, 8, 9, 13}.__contains__, types)))
    if 7 not in types[:split]:
        split = 0
    if split:
        yield Frame(b"".join(pieces[:split]), CONFIG)
    if types[split:]:
        yield Frame(b"".join(pieces[split:]), KEYFRAME if 5 in types else None)


@given(st.lists(st.tuples(st.sampled_from([*range(1, 16), 19, 20]), st.booleans())), CUTS)
def test_any_nal_units(nal_types: list[tuple[int, bool]], cuts: list[int]) -> None:
    """In whatever order NAL units come, the marks are as promised."""
    stream = b"".join(nal(each, FIRST if is_first else NEXT) for each, is_first in nal_types)
    expected = [frame for unit in units_of(nal_types) for frame in expected_frames(unit)]
    assert cut(AccessUnitCutter(), chunks_of(stream, cuts)) == expected


def test_zeros_after_a_nal_unit() -> None:
    """Of the zeros before a start code the last goes with it, the others with what they follow."""
    frames = [
        Frame(IDR + b"\0\0\0", KEYFRAME),
        Frame(SPS + b"\0\0", CONFIG),
        Frame(b"\0" + IDR, KEYFRAME),
    ]
    assert cut(AccessUnitCutter(), single_bytes(joined(frames))) == frames


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(SPS + PPS, CONFIG)],
        [Frame(SPS, CONFIG), Frame(b"\0\0\0\1")],
        [Frame(SPS, CONFIG), Frame(b"\0\0\1\x68")],
        [Frame(SPS[:-2])],
        [Frame(AUD + PPS)],
        [Frame(SLICE), Frame(SPS + PPS, CONFIG)],
        [Frame(SPS, CONFIG), Frame(SEI)],
    ],
)
def test_the_end_of_a_stream(frames: list[Frame]) -> None:
    """What is left at the end is marked for what it is known to be."""
    assert cut(AccessUnitCutter(), single_bytes(joined(frames))) == frames


@given(
    st.lists(st.sampled_from([b"\0", b"\1", b"\x65\x80", b"\x65\x40", b"\x67", SPS, IDR])),
    st.data(),
)
def test_releases_lose_nothing(words: list[bytes], data: st.DataObject) -> None:
    """Wherever a stream pauses, the frames together are the input."""
    cutter = AccessUnitCutter()
    frames: list[Frame] = []
    for chunk in single_bytes(b"".join(words)):
        frames += cutter.feed(chunk)
        if data.draw(st.booleans()):
            frames += cutter.release()
    frames += cutter.flush()
    assert all(frame.data for frame in frames)
    assert joined(frames) == b"".join(words)


def test_release_gives_the_picture_that_waits() -> None:
    """When a stream pauses, the access unit that waits is given, and only once."""
    cutter = AccessUnitCutter()
    first, second = ACCESS_UNITS[0], ACCESS_UNITS[3]
    assert cutter.feed(joined(first)) == []
    assert cutter.release() == first
    assert cutter.release() == []
    assert cutter.feed(joined(second)) == []
    assert cutter.flush() == second


def test_what_follows_a_release_is_no_picture() -> None:
    """Slices of a picture that was released too early can't be decoded from: they have no mark."""
    cutter = AccessUnitCutter()
    cutter.feed(SPS + PPS + IDR)
    assert cutter.release() == [Frame(SPS + PPS, CONFIG), Frame(IDR, KEYFRAME)]
    assert cutter.feed(nal(5, NEXT)) == []
    assert cutter.release() == [Frame(nal(5, NEXT))]
    rest = [Frame(nal(5, NEXT)), Frame(SPS, CONFIG), Frame(IDR, KEYFRAME)]
    assert cut(cutter, [joined(rest)]) == rest


def test_release_keeps_what_is_no_picture() -> None:
    """When a stream pauses before a slice, what came waits for the slice."""
    cutter = AccessUnitCutter()
    assert cutter.feed(SPS + PPS) == []
    assert cutter.release() == []
    assert cutter.feed(IDR) == []
    assert cutter.release() == [Frame(SPS + PPS, CONFIG), Frame(IDR, KEYFRAME)]


@pytest.mark.parametrize("size", range(1, 6))
def test_release_keeps_a_start_code_together(size: int) -> None:
    """When a stream pauses within a start code, that goes with what it begins."""
    cutter = AccessUnitCutter()
    first, second = ACCESS_UNITS[1], ACCESS_UNITS[3]
    cutter.feed(joined(first) + joined(second)[:size])
    assert cutter.release() == first
    cutter.feed(joined(second)[size:])
    assert cutter.release() == second


@pytest.mark.parametrize(
    "parameters",
    ["slices=1", "slices=4", "slices=2:aud=1", "bframes=3:keyint=10:repeat-headers=1:open-gop=0"],
)
def test_h264_of_an_encoder(make_clip: Callable[..., Path], parameters: str) -> None:
    """The access units of real H.264, and which are keyframes, are as ffprobe finds them."""
    name = parameters.replace(":", "-") + ".h264"
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-x264-params", parameters]
    clip = make_clip(name, *encoder, "-f", "h264")
    frames = cut(AccessUnitCutter(), chunks_of(clip.read_bytes(), range(0, 1 << 20, 4099)))
    configs = [frame for frame in frames if frame.mark == CONFIG]
    units: list[tuple[int, bool]] = []
    size = 0
    for frame in frames:
        size += len(frame.data)
        if frame.mark != CONFIG:
            units.append((size, frame.mark == KEYFRAME))
            size = 0
    assert units == packets(clip)
    assert len(units) == 60
    assert len(configs) == sum(is_keyframe for _, is_keyframe in units) > 0
    width, height = picture_size(clip)
    for config in configs:
        found = describe(config.data)
        assert (found["width"], found["height"]) == (width, height)


def test_a_decoder_can_begin_at_any_mark(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    """From a config and any keyframe on, ffmpeg decodes what follows without an error."""
    parameters = "keyint=15:min-keyint=15:bframes=2:slices=2"
    clip = make_clip("groups.h264", "-c:v", "libx264", "-x264-params", parameters, "-f", "h264")
    frames = cut(AccessUnitCutter(), [clip.read_bytes()])
    config = next(frame for frame in frames if frame.mark == CONFIG)
    starts = [place for place, frame in enumerate(frames) if frame.mark == KEYFRAME]
    assert len(starts) == 4
    for start in starts:
        rest = tmp_path / "rest.h264"
        pictures = [frame for frame in frames[start:] if frame.mark != CONFIG]
        rest.write_bytes(joined([config, *pictures]))
        command = [require_tool("ffmpeg"), "-v", "error", "-i", str(rest), "-f", "null", "-"]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        assert done.stderr == b""


@pytest.mark.parametrize("header", [0x07, 0x27, 0x47, 0x67])
@pytest.mark.parametrize("after", [b"", b"\0\0", PPS + IDR, SPS])
def test_the_first_sps_is_described(header: int, after: bytes) -> None:
    """The codec and the size are those of the first SPS, wherever it is."""
    unit = b"\0\0\1" + bytes([header]) + BASELINE[1:]
    expected = {"codec": "avc1.42C01F", "width": 1280, "height": 720}
    assert describe(AUD + SEI + unit + after) == expected


def test_a_stream_without_an_sps() -> None:
    """Without an SPS nothing is known."""
    assert describe(PPS + IDR) == {}
