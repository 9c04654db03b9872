"""What the tests of cutting share: streams made by hand, chunks, and what ffprobe says."""

import itertools
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import PATIENCE, require_tool
from hypothesis import strategies as st

from relayd.ctl.cutting import CONFIG, KEYFRAME, Cutter, Frame


def cut(cutter: Cutter, chunks: Iterable[bytes]) -> list[Frame]:
    """Feed chunks and flush; return the frames, none of which may be empty."""
    frames = [frame for chunk in chunks for frame in cutter.feed(chunk)] + cutter.flush()
    assert all(frame.data for frame in frames)
    return frames


def joined(frames: Iterable[Frame]) -> bytes:
    """Put frames together."""
    return b"".join(frame.data for frame in frames)


def single_bytes(data: bytes) -> list[bytes]:
    """Cut data into bytes."""
    return [data[i : i + 1] for i in range(len(data))]


def chunks_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at these places."""
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 400), max_size=12)
"""Places at which to cut a short stream into chunks."""


def segment(code: int, payload: bytes) -> bytes:
    """Build a JPEG marker segment."""
    return bytes([0xFF, code]) + (len(payload) + 2).to_bytes(2, "big") + payload


SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SCAN = segment(0xDA, b"\x03\x01") + b"pixels \xff\x00 \xff\xd0 \xff\xd7 \xff\xff\x00 \x00"
THUMBNAIL = SOI + segment(0xC0, b"\x08\0\x78\0\xa0\x03") + SCAN + EOI

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
IDR, SLICE = nal(5, FIRST), nal(1, FIRST)

BASELINE = bytes.fromhex("6742c01fd9005005ba1000000300100000030321f1832480")
"""The SPS of x264 --profile baseline --level 3.1, 1280 by 720, without its start code."""

ACCESS_UNITS = [
    # Parameter sets, two slices.
    [Frame(SPS + PPS, CONFIG), Frame(SEI + IDR + nal(5, NEXT), KEYFRAME)],
    [Frame(nal(1, FIRST, long=True) + nal(1, NEXT) + nal(1, NEXT, long=True))],  # Long start codes.
    [Frame(AUD + SLICE + nal(12) + nal(10, b""))],  # Filler, end of sequence.
    [Frame(SPS + PPS, CONFIG), Frame(SLICE)],
    [Frame(AUD + SPS + nal(13) + PPS + PPS, CONFIG), Frame(nal(5, FIRST, long=True), KEYFRAME)],
    [Frame(nal(2, FIRST) + nal(3, NEXT) + nal(4, NEXT) + nal(2, NEXT))],  # Data partitions.
    [Frame(SEI + IDR + nal(19, FIRST), KEYFRAME)],  # An auxiliary picture.
    [Frame(nal(14) + SLICE + nal(20, FIRST))],  # A prefix, a layer.
    [Frame(SEI + SPS + PPS + IDR, KEYFRAME)],  # Parameter sets that do not lead.
    [Frame(AUD + PPS + IDR, KEYFRAME)],  # No SPS.
    [Frame(SPS, CONFIG), Frame(SEI + PPS + IDR, KEYFRAME)],
]
"""Access units of every kind, each as its frames."""


def probe(path: Path, *options: str) -> dict[str, Any]:
    """Return what ffprobe says about a file."""
    command = [require_tool("ffprobe"), "-v", "error", "-of", "json", *options, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def packets(path: Path) -> list[tuple[int, bool]]:
    """Return the size of every packet that ffprobe finds, and whether it is a keyframe."""
    found = probe(path, "-show_entries", "packet=size,flags")["packets"]
    return [(int(packet["size"]), "K" in packet["flags"]) for packet in found]


def picture_size(path: Path) -> tuple[int, int]:
    """Return the width and height that ffprobe finds."""
    (stream,) = probe(path, "-show_entries", "stream=width,height")["streams"]
    return stream["width"], stream["height"]
