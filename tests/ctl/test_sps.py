"""Tests of reading sequence parameter sets, made by hand and by an encoder."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ctl.elementary import probe
from hypothesis import given
from hypothesis import strategies as st

from relayd.ctl.sps import describe

SPS_HEADER = b"\x67"
HIGH_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)


@dataclass
class Writer:
    """Writes a sequence parameter set bit by bit (H.264 section 7.3.2.1.1)."""

    bits: str = ""

    def u(self, size: int, value: int) -> None:
        """Write a number of this many bits."""
        self.bits += f"{value:0{size}b}"

    def ue(self, value: int) -> None:
        """Write an Exp-Golomb code."""
        binary = f"{value + 1:b}"
        self.bits += "0" * (len(binary) - 1) + binary

    def se(self, value: int) -> None:
        """Write a signed Exp-Golomb code."""
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def nal_unit(self) -> bytes:
        """Return the NAL unit: trailing bits, and a 3 wherever zeros could be a start code."""
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
        return SPS_HEADER + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


small = st.integers(0, 20)
offsets = st.integers(-(2**31) + 1, 2**31 - 1)


@dataclass
class Size:
    """A picture: its size in macroblocks, and what of it is not shown, in crop units."""

    columns: int
    rows: int
    is_interlaced: bool
    crop: tuple[int, int, int, int] | None
    units: tuple[int, int] = (2, 2)

    def shown(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        left, right, top, bottom = self.crop or (0, 0, 0, 0)
        width = self.columns * 16 - (left + right) * self.units[0]
        height = self.rows * 16 - (top + bottom) * self.units[1]
        return width, height * 2 if self.is_interlaced else height


@dataclass
class ParameterSet:
    """A parameter set and what it says."""

    writer: Writer = field(default_factory=Writer)
    codec: str = ""
    size: tuple[int, int] = (0, 0)


def write_scaling_lists(writer: Writer, count: int, draw: st.DrawFn) -> None:
    """Write scaling lists, in full or to where they end early (section 7.3.2.1.1.1)."""
    for index in range(count):
        is_present = draw(st.booleans())
        writer.u(1, is_present)
        if not is_present:
            continue
        scale, length = 8, 16 if index < 6 else 64
        end = draw(st.integers(0, length))
        for _ in range(end):
            next_scale = draw(st.sampled_from([1, 2, 3, 8, 16, 100, 127]))
            writer.se(next_scale - scale)
            scale = next_scale
        if end < length:
            writer.se(-scale)  # The next scale is 0: the rest repeats this one.


def write_chroma(writer: Writer, draw: st.DrawFn) -> tuple[int, int]:
    """Write what high profiles have more of; return the crop units of a progressive picture."""
    chroma = draw(st.integers(0, 3))
    writer.ue(chroma)
    units = [(1, 1), (2, 2), (2, 1), (1, 1)][chroma]
    if chroma == 3:
        writer.u(1, draw(st.booleans()))
    writer.ue(draw(st.integers(0, 6)))
    writer.ue(draw(st.integers(0, 6)))
    writer.u(1, draw(st.booleans()))
    has_matrix = draw(st.booleans())
    writer.u(1, has_matrix)
    if has_matrix:
        write_scaling_lists(writer, 12 if chroma == 3 else 8, draw)
    return units


def write_order(writer: Writer, draw: st.DrawFn) -> None:
    """Write the order of pictures and their references."""
    writer.ue(draw(st.integers(0, 12)))
    order_type = draw(st.integers(0, 2))
    writer.ue(order_type)
    if order_type == 0:
        writer.ue(draw(st.integers(0, 12)))
    elif order_type == 1:
        writer.u(1, draw(st.booleans()))
        cycle = draw(st.lists(offsets, max_size=5))
        for offset in (draw(offsets), draw(offsets)):
            writer.se(offset)
        writer.ue(len(cycle))
        for offset in cycle:
            writer.se(offset)
    writer.ue(draw(st.integers(0, 16)))
    writer.u(1, draw(st.booleans()))


@st.composite
def parameter_sets(draw: st.DrawFn) -> ParameterSet:
    """Draw a parameter set of any kind."""
    made = ParameterSet()
    writer = made.writer
    profile = draw(st.sampled_from([66, 77, 88, *HIGH_PROFILES]))
    constraints, level = draw(st.sampled_from([0, 0xC0, 0xE0])), draw(st.integers(0, 62))
    made.codec = f"avc1.{profile:02X}{constraints:02X}{level:02X}"
    for byte in (profile, constraints, level):
        writer.u(8, byte)
    writer.ue(draw(st.integers(0, 31)))
    units = write_chroma(writer, draw) if profile in HIGH_PROFILES else (2, 2)
    write_order(writer, draw)
    size = Size(
        columns=draw(st.integers(2, 600)),
        rows=draw(st.integers(2, 600)),
        is_interlaced=draw(st.booleans()),
        crop=draw(st.none() | st.tuples(*[st.integers(0, 7)] * 4)),
        units=units,
    )
    writer.ue(size.columns - 1)
    writer.ue(size.rows - 1)
    writer.u(1, not size.is_interlaced)
    if size.is_interlaced:
        writer.u(1, draw(st.booleans()))
    writer.u(1, draw(st.booleans()))
    writer.u(1, size.crop is not None)
    for units_off in size.crop or ():
        writer.ue(units_off)
    made.size = size.shown()
    return made


@given(parameter_sets(), st.integers(0, 2**20))
def test_any_parameter_set(made: ParameterSet, more: int) -> None:
    """Whatever a parameter set says, its codec and the size of the picture are read."""
    made.writer.u(21, more)  # vui_parameters_present_flag and what may follow.
    width, height = made.size
    expected = {"codec": made.codec, "width": width, "height": height}
    assert describe(made.writer.nal_unit()) == expected


@given(parameter_sets())
def test_a_parameter_set_cut_short(made: ParameterSet) -> None:
    """A size that has not come is left out; so is the codec."""
    made.writer.u(64, 2**64 - 1)
    whole = made.writer.nal_unit()
    known = [describe(whole[:end]) for end in range(1, len(whole) + 1)]
    assert known[0] == {}
    assert known[-1]["codec"] == made.codec
    for earlier, later in itertools.pairwise(known):
        assert earlier.items() <= later.items()
    assert {"codec": made.codec} in known


def tiny(parameter_set_id: int = 0, chroma: int = 1, left: int = 0) -> bytes:
    """Build the parameter set of a picture of one macroblock, cropped on the left."""
    writer = Writer()
    for byte in (100, 0, 30):
        writer.u(8, byte)
    for code in (parameter_set_id, chroma, 0, 0):  # Then the depths.
        writer.ue(code)
    writer.u(2, 0)
    for code in (0, 2, 1):  # The frame numbers, their order, the references.
        writer.ue(code)
    writer.u(1, 0)
    writer.ue(0)
    writer.ue(0)
    writer.u(3, 0b111)  # Frames only, direct inference, cropping.
    for crop in (left, 0, 0, 0):
        writer.ue(crop)
    return writer.nal_unit()


def test_what_cannot_be() -> None:
    """Of a parameter set that can't be, the codec alone is told."""
    codec = {"codec": "avc1.64001E"}
    assert describe(tiny()) == codec | {"width": 16, "height": 16}
    assert describe(tiny(chroma=4)) == codec
    assert describe(tiny(left=7)) == codec | {"width": 2, "height": 16}
    assert describe(tiny(left=8)) == codec
    assert describe(tiny(2**32 - 2)) == codec | {"width": 16, "height": 16}
    assert describe(tiny(2**33 - 1)) == codec


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    """No input is an error."""
    assert set(describe(data)) <= {"codec", "width", "height"}


PROFILES = {
    "Constrained Baseline": "42C0",
    "Main": "4D40",
    "High": "6400",
    "High 10": "6E00",
    "High 4:2:2": "7A00",
    "High 4:4:4 Predictive": "F400",
}


@pytest.mark.parametrize(
    ("size", "pixels", "parameters", "profile"),
    [
        ("320x240", "yuv420p", "cabac=0:8x8dct=0:bframes=0:weightp=0", "Constrained Baseline"),
        ("178x102", "yuv420p", "8x8dct=0", "Main"),
        ("720x1600", "yuv420p", "ref=1", "High"),
        ("1918x1078", "yuv420p", "cqm=jvt", "High"),
        ("66x34", "gray", "ref=1", "High"),
        ("322x182", "yuv420p10le", "ref=1", "High 10"),
        ("322x181", "yuv422p", "ref=1", "High 4:2:2"),
        ("321x181", "yuv444p", "cqm=jvt", "High 4:4:4 Predictive"),
        ("322x180", "yuv420p", "interlaced=1", "High"),
        ("720x572", "yuv422p10le", "interlaced=1:cqm=jvt", "High 4:2:2"),
        ("64x64", "yuv420p", "nal-hrd=cbr:vbv-maxrate=500:vbv-bufsize=500:bitrate=500", "High"),
    ],
)
def test_an_encoder(
    make_clip: Callable[..., Path], size: str, pixels: str, parameters: str, profile: str
) -> None:
    """Real parameter sets of every profile say what ffprobe finds in them."""
    name = f"{size}-{pixels}-{parameters.replace(':', '-')}.h264"
    picture = ["-vf", f"scale={size.replace('x', ':')},format={pixels}", "-pix_fmt", pixels]
    encoder = ["-frames:v", "2", "-c:v", "libx264", "-x264-params", parameters, "-f", "h264"]
    clip = make_clip(name, *picture, *encoder)
    entries = "stream=width,height,profile,level"
    (stream,) = probe(clip, "-show_entries", entries)["streams"]
    data = clip.read_bytes()
    unit = data.partition(b"\0\0\1" + SPS_HEADER)[2].partition(b"\0\0\0\1")[0]
    assert stream["profile"] == profile
    assert describe(SPS_HEADER + unit) == {
        "codec": f"avc1.{PROFILES[profile]}{stream['level']:02X}",
        "width": stream["width"],
        "height": stream["height"],
    }
    assert f"{stream['width']}x{stream['height']}" == size
