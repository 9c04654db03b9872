"""Tests of the cutters."""

import itertools
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from harness import PATIENCE, require_tool
from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl import media
from relayd.ctl.media import AccessUnitCutter, Cutter, JpegCutter, MediaError, SniffingCutter, sniff


def cut(cutter: Cutter, chunks: Iterable[bytes]) -> list[bytes]:
    """Feed chunks and flush; return the pieces, none of which may be empty."""
    pieces = [piece for chunk in chunks for piece in cutter.feed(chunk)] + cutter.flush()
    assert all(pieces)
    return pieces


def single_bytes(data: bytes) -> list[bytes]:
    """Cut data into bytes."""
    return [data[i : i + 1] for i in range(len(data))]


def segment(code: int, payload: bytes) -> bytes:
    """Build a JPEG marker segment."""
    return bytes([0xFF, code]) + (len(payload) + 2).to_bytes(2, "big") + payload


SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SCAN = segment(0xDA, b"\x03\x01") + b"pixels \xff\x00 \xff\xd0 \xff\xd7 \xff\xff\x00 \x00"
THUMBNAIL = SOI + segment(0xDB, b"table") + SCAN + EOI

JPEGS = [
    SOI + segment(0xE0, b"JFIF\0") + segment(0xDB, bytes(64)) + SCAN + EOI,
    SOI + segment(0xE1, b"Exif\0\0" + THUMBNAIL) + SCAN + EOI,  # A thumbnail in a segment.
    SOI + SCAN + segment(0xC4, b"\xff\xd9") + SCAN + segment(0xDA, b"") + EOI,  # Three scans.
    SOI + b"\xff\xff\xff" + SCAN[1:] + b"\xff\xff" + EOI,  # Filling before markers.
    SOI + b"\xff\x01" + SCAN + segment(0xDC, b"\0\1") + EOI,  # TEM; DNL after the scan.
    SOI + EOI,
]


def nal(nal_type: int, payload: bytes = b"\x80\x11", *, long: bool = False) -> bytes:
    """Build a NAL unit with its start code."""
    return b"\0" * long + b"\0\0\1" + bytes([0x60 | nal_type]) + payload


FIRST, NEXT = b"\x88\x84", b"\x42\x21"  # Slice headers: first_mb_in_slice is 0, and is not.
SPS, PPS, SEI, AUD = nal(7, long=True), nal(8, long=True), nal(6), nal(9, b"\xf0", long=True)

ACCESS_UNITS = [
    SPS + PPS + SEI + nal(5, FIRST) + nal(5, NEXT),  # Parameter sets, two slices.
    nal(1, FIRST, long=True) + nal(1, NEXT) + nal(1, NEXT, long=True),  # Long start codes.
    AUD + nal(1, FIRST) + nal(12) + nal(10, b""),  # Filler, end of sequence.
    SPS + PPS + nal(1, FIRST),
    nal(2, FIRST) + nal(3, NEXT) + nal(4, NEXT) + nal(2, NEXT),  # Data partitions.
    SEI + nal(5, FIRST) + nal(19, FIRST),  # An auxiliary picture.
    nal(14) + nal(1, FIRST) + nal(20, FIRST),  # A prefix, a layer.
]


def chunks_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at these places."""
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


cuts = st.lists(st.integers(0, 400), max_size=12)


@given(st.lists(st.sampled_from(JPEGS)), cuts)
def test_mjpeg_is_cut_into_images(images: list[bytes], cuts: list[int]) -> None:
    """MJPEG is cut after every image, however it comes."""
    assert cut(JpegCutter(), chunks_of(b"".join(images), cuts)) == images


@given(st.lists(st.sampled_from(ACCESS_UNITS)), cuts)
def test_h264_is_cut_into_access_units(units: list[bytes], cuts: list[int]) -> None:
    """H.264 is cut before every access unit, however it comes."""
    assert cut(AccessUnitCutter(), chunks_of(b"".join(units), cuts)) == units


@pytest.mark.parametrize(
    ("cutter", "frames"), [(JpegCutter, JPEGS), (AccessUnitCutter, ACCESS_UNITS)]
)
def test_any_two_chunks(cutter: Callable[[], Cutter], frames: list[bytes]) -> None:
    """A stream may be split at any byte, and come byte by byte."""
    data = b"".join(frames)
    for place in range(len(data)):
        assert cut(cutter(), [data[:place], data[place:]]) == frames
    assert cut(cutter(), single_bytes(data)) == frames


def test_zeros_after_a_nal_unit() -> None:
    """Of the zeros before a start code the last goes with it, the others with what they follow."""
    units = [nal(5, FIRST) + b"\0\0\0", SPS + nal(5, FIRST)]
    assert cut(AccessUnitCutter(), single_bytes(b"".join(units))) == units


@pytest.mark.parametrize("cutter", [JpegCutter, AccessUnitCutter])
@given(st.data())
def test_no_byte_is_lost(cutter: Callable[[], Cutter], data: st.DataObject) -> None:
    """Of any input at all, the pieces together are the input and don't depend on the chunks."""
    words = [b"\xff", b"\xd8", b"\xd9", b"\xda", b"\xd3", b"\0", b"\1", b"\x65", b"\x67", b"\x80"]
    stream = b"".join(data.draw(st.lists(st.sampled_from([*words, SOI, SCAN, EOI, SPS]))))
    pieces = cut(cutter(), chunks_of(stream, data.draw(cuts)))
    assert b"".join(pieces) == stream
    assert pieces == cut(cutter(), [stream])


@given(st.lists(st.sampled_from([b"\0", b"\1", b"\x65\x80", b"\x65\x40", b"\x67", SPS])), st.data())
def test_releases_lose_nothing(words: list[bytes], data: st.DataObject) -> None:
    """Wherever a stream pauses, the pieces together are the input."""
    cutter = AccessUnitCutter()
    pieces: list[bytes] = []
    for chunk in single_bytes(b"".join(words)):
        pieces += cutter.feed(chunk)
        if data.draw(st.booleans()):
            pieces += cutter.release()
    pieces += cutter.flush()
    assert all(pieces)
    assert b"".join(pieces) == b"".join(words)


def test_release_gives_the_picture_that_waits() -> None:
    """When a stream pauses, the access unit that waits is given, and only once."""
    cutter = AccessUnitCutter()
    first, second = ACCESS_UNITS[0], ACCESS_UNITS[3]
    assert cutter.feed(first) == []
    assert cutter.release() == [first]
    assert cutter.release() == []
    assert cutter.feed(second) == []
    assert cutter.flush() == [second]


def test_release_keeps_what_is_no_picture() -> None:
    """When a stream pauses before a slice, what came waits for the slice."""
    cutter = AccessUnitCutter()
    assert cutter.feed(SPS + PPS) == []
    assert cutter.release() == []
    assert cutter.feed(nal(5, FIRST)) == []
    assert cutter.release() == [SPS + PPS + nal(5, FIRST)]


@pytest.mark.parametrize("size", range(1, 6))
def test_release_keeps_a_start_code_together(size: int) -> None:
    """When a stream pauses within a start code, that goes with what it begins."""
    cutter = AccessUnitCutter()
    first, second = ACCESS_UNITS[1], ACCESS_UNITS[3]
    cutter.feed(first + second[:size])
    assert cutter.release() == [first]
    cutter.feed(second[size:])
    assert cutter.release() == [second]


def test_a_jpeg_never_waits() -> None:
    """An image is given with its last byte, so that a pause releases nothing."""
    cutter = JpegCutter()
    assert cutter.feed(JPEGS[0] + JPEGS[1][:50]) == [JPEGS[0]]
    assert cutter.release() == []


def test_an_image_cut_short() -> None:
    """An image without an end ends where the next begins."""
    broken = [SOI + SCAN, SOI + segment(0xDB, b"table"), JPEGS[0]]
    assert cut(JpegCutter(), [b"".join(broken)]) == broken


def test_bytes_between_images() -> None:
    """Bytes between images go with the image after them; at the end they are a piece."""
    data = JPEGS[0] + b"\0\0\xff" + JPEGS[0] + b"\n"
    assert cut(JpegCutter(), [data]) == [JPEGS[0], b"\0\0\xff" + JPEGS[0], b"\n"]


@pytest.mark.parametrize("cutter", [JpegCutter, AccessUnitCutter])
def test_garbage_is_not_gathered(cutter: Callable[[], Cutter]) -> None:
    """More than FRAME_LIMIT bytes without the end of a frame are an error."""
    garbage = b"\xfe" * (1 << 20)
    stream = cutter()
    for _ in range(media.FRAME_LIMIT // len(garbage)):
        assert stream.feed(garbage) == []
    with pytest.raises(MediaError, match="within 64 MiB: the input is damaged"):
        stream.feed(b"!")


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


@given(cuts)
def test_a_stream_of_unknown_kind(cuts: list[int]) -> None:
    """A stream is cut by what its first bytes are, however they come."""
    for frames in (JPEGS, ACCESS_UNITS, [SOI + EOI[:1]], [SPS[:5]]):
        cutter = SniffingCutter("-")
        assert cutter.release() == []
        assert cut(cutter, chunks_of(b"".join(frames), cuts)) == frames


def test_a_stream_of_unknown_kind_pauses() -> None:
    """What waits is released by the cutter that was picked."""
    cutter = SniffingCutter("-")
    cutter.feed(ACCESS_UNITS[0])
    assert cutter.release() == [ACCESS_UNITS[0]]


@pytest.mark.parametrize("stream", [b"", b"short", b"long enough to be sniffed"])
def test_a_stream_of_unfit_kind(stream: bytes) -> None:
    """A stream that is neither MJPEG nor H.264 is an error, be it short or long."""
    with pytest.raises(MediaError):
        cut(SniffingCutter("-"), single_bytes(stream))


def packet_sizes(path: Path) -> list[int]:
    """Return the sizes of the packets that ffprobe finds."""
    command = [require_tool("ffprobe"), "-v", "error", "-show_entries", "packet=size"]
    output = subprocess.run(
        [*command, "-of", "csv=p=0", str(path)], check=True, capture_output=True, timeout=PATIENCE
    ).stdout
    return [int(line.strip(b",")) for line in output.split()]


@pytest.mark.parametrize(
    "parameters", ["slices=1", "slices=4", "slices=2:aud=1", "bframes=3:keyint=10:repeat-headers=1"]
)
def test_h264_of_an_encoder(make_clip: Callable[..., Path], parameters: str) -> None:
    """The access units of real H.264 are those that ffprobe finds."""
    name = parameters.replace(":", "-") + ".h264"
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-x264-params", parameters]
    clip = make_clip(name, *encoder, "-f", "h264")
    units = cut(SniffingCutter("-"), chunks_of(clip.read_bytes(), range(0, 1 << 20, 4099)))
    assert [len(unit) for unit in units] == packet_sizes(clip)
    assert len(units) == 60


def test_mjpeg_of_an_encoder(mjpeg_clip: Path) -> None:
    """The images of real MJPEG are those that ffprobe finds."""
    images = cut(SniffingCutter("-"), chunks_of(mjpeg_clip.read_bytes(), range(0, 1 << 20, 4099)))
    assert [len(image) for image in images] == packet_sizes(mjpeg_clip)
    assert len(images) == 60
