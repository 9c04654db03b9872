"""Tests of cutting MJPEG and of what a JPEG image says of itself."""

import itertools
from pathlib import Path

import pytest
from ctl.elementary import (
    CUTS,
    EOI,
    JPEGS,
    SCAN,
    SOI,
    THUMBNAIL,
    chunks_of,
    cut,
    packets,
    picture_size,
    segment,
    single_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl.cutting import KEYFRAME, Frame
from relayd.ctl.jpeg import JpegCutter, describe

UNKNOWN = {"codec": "jpeg"}


def keyframes(images: list[bytes]) -> list[Frame]:
    """Return images as the frames that they must become."""
    return [Frame(image, KEYFRAME) for image in images]


@given(st.lists(st.sampled_from(JPEGS)), CUTS)
def test_mjpeg_is_cut_into_images(images: list[bytes], cuts: list[int]) -> None:
    """MJPEG is cut after every image, however it comes; every image is a keyframe."""
    assert cut(JpegCutter(), chunks_of(b"".join(images), cuts)) == keyframes(images)


def test_any_two_chunks() -> None:
    """A stream may be split at any byte, and come byte by byte."""
    data = b"".join(JPEGS)
    for place in range(len(data)):
        assert cut(JpegCutter(), [data[:place], data[place:]]) == keyframes(JPEGS)
    assert cut(JpegCutter(), single_bytes(data)) == keyframes(JPEGS)


def test_a_jpeg_never_waits() -> None:
    """An image is given with its last byte, so that a pause releases nothing."""
    cutter = JpegCutter()
    assert cutter.feed(JPEGS[0] + JPEGS[1][:50]) == keyframes(JPEGS[:1])
    assert cutter.release() == []


def test_an_image_cut_short() -> None:
    """An image without an end ends where the next begins, or the stream does."""
    broken = [SOI + SCAN, SOI + segment(0xDB, b"table"), JPEGS[0], SOI + SCAN]
    assert cut(JpegCutter(), [b"".join(broken)]) == keyframes(broken)


def test_bytes_between_images() -> None:
    """Bytes between images go with the image after them; at the end they are no picture."""
    data = JPEGS[0] + b"\0\0\xff" + JPEGS[0] + b"\n"
    images = keyframes([JPEGS[0], b"\0\0\xff" + JPEGS[0]])
    assert cut(JpegCutter(), [data]) == [*images, Frame(b"\n")]


def test_mjpeg_of_an_encoder(mjpeg_clip: Path) -> None:
    """The images of real MJPEG are those that ffprobe finds, and of the size that it finds."""
    images = cut(JpegCutter(), chunks_of(mjpeg_clip.read_bytes(), range(0, 1 << 20, 4099)))
    assert [(len(image.data), True) for image in images] == packets(mjpeg_clip)
    assert len(images) == 60
    width, height = picture_size(mjpeg_clip)
    for image in images:
        assert describe(image.data) == {"codec": "jpeg", "width": width, "height": height}


def frame_header(code: int, width: int, height: int) -> bytes:
    """Build an SOF segment."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return segment(code, b"\x08" + size + b"\x01\x01\x11\x00")


@given(
    before=st.lists(
        st.sampled_from(
            [
                segment(0xE1, b"Exif\0\0" + THUMBNAIL),
                segment(0xC4, b"\xff\xc0\0\x0b\x08\0\1\0\1"),  # DHT, with what looks like an SOF.
                segment(0xC8, b"\x08\0\1\0\1"),  # JPG: reserved.
                segment(0xCC, b"\x08\0\1\0\1"),  # DAC.
                b"\xff\x01",
                b"\xff\xff",
            ]
        )
    ),
    code=st.sampled_from([0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCF]),
    width=st.integers(1, 65535),
    height=st.integers(1, 65535),
)
def test_the_size_is_that_of_the_frame_header(
    before: list[bytes], code: int, width: int, height: int
) -> None:
    """The size is that of the image itself, whatever segments precede it."""
    image = SOI + b"".join(before) + frame_header(code, width, height) + SCAN + EOI
    assert describe(image) == {"codec": "jpeg", "width": width, "height": height}


def test_a_header_that_is_not_all_there() -> None:
    """Of an image that is cut off before its width, the codec alone is known."""
    head = SOI + segment(0xE1, b"Exif\0\0" + THUMBNAIL) + frame_header(0xC2, 640, 480)
    sizes = [describe(head[:end]) for end in range(2, len(head) + 1)]
    (unknown, first), (known, second) = [
        (key, len(list(group))) for key, group in itertools.groupby(sizes)
    ]
    assert (unknown, known) == (UNKNOWN, UNKNOWN | {"width": 640, "height": 480})
    assert (first, second) == (len(head) - 6, 5)


@pytest.mark.parametrize(
    "image",
    [
        SOI + SCAN + frame_header(0xC0, 1, 1),
        SOI + EOI + frame_header(0xC0, 1, 1),
        SOI + frame_header(0xC0, 640, 0) + SCAN + segment(0xDC, b"\1\xe0") + EOI,
        SOI,
    ],
)
def test_an_image_without_a_size(image: bytes) -> None:
    """Where the size is not before the first scan, it is left out."""
    assert describe(image) == UNKNOWN


@given(st.binary())
def test_any_bytes_can_be_described(data: bytes) -> None:
    """No input is an error."""
    assert describe(SOI + data).keys() >= UNKNOWN.keys()
