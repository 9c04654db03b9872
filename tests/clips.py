"""Short clips in every kind of video that a player knows: flat colours, a counter in the pixels."""

import functools
import re
import struct
import subprocess
from collections.abc import Iterator

import film
from film import FPS, Message, Picture
from harness import require_tool

WIDE, TALL, LARGE = (320, 192), (192, 320), (960, 544)
"""Sizes in pixels."""

COLOURS = [(210, 50, 40), (50, 170, 60), (40, 60, 200), (220, 200, 60)]
"""Red, green, blue and yellow: in the corners of the picture, row by row."""

CORNERS = [(0.25, 0.2), (0.75, 0.2), (0.25, 0.8), (0.75, 0.8)]
"""Points in the flat colours, as fractions of the width and the height."""

BITS = 10
"""The fields from left to right, between the upper and the lower colours, that show the number of
the picture: white for a one, the most significant bit first."""

_X264 = "libx264 -pix_fmt yuv420p -preset ultrafast"
_X264_PARAMETERS = "keyint={group}:min-keyint={group}:scenecut=0:sliced-threads=0"
_VPX = "-pix_fmt yuv420p -deadline realtime -cpu-used 8 -b:v 1M -lag-in-frames 0 -g {group}"

_ENCODERS = {
    "baseline": f"{_X264} -profile:v baseline -x264-params {_X264_PARAMETERS} -f h264",
    "high": f"{_X264} -profile:v high -x264-params {_X264_PARAMETERS}:cabac=1:8x8dct=1 -f h264",
    "b-frames": f"{_X264} -profile:v high -x264-params {_X264_PARAMETERS}:bframes=2 -f h264",
    "slices": f"{_X264} -profile:v main -x264-params {_X264_PARAMETERS}:slices=2 -f h264",
    # Grain keeps the encoder at its bitrate.
    "2 Mbit/s": f"-vf format=yuv420p,noise=c0s=12:c0f=t -c:v {_X264} -x264-params "
    f"{_X264_PARAMETERS}:bitrate=2000:vbv-maxrate=2000:vbv-bufsize=1000 -f h264",
    "jpeg": "mjpeg -pix_fmt yuvj420p -q:v 3 -f mjpeg",
    "png": "png -f image2pipe",
    "webp": "libwebp -quality 90 -f image2pipe",
    "vp8": f"libvpx {_VPX} -auto-alt-ref 0 -f ivf",
    "vp9": f"libvpx-vp9 {_VPX} -f ivf",
    "av1": "libaom-av1 -pix_fmt yuv420p -usage realtime -cpu-used 8 -b:v 1M -lag-in-frames 0 "
    "-g {group} -f ivf",
}

_IMAGE_STARTS = {
    "jpeg": rb"(?<=\xff\xd9)(?=\xff\xd8\xff)",  # end of image, start of image
    "png": rb"(?=\x89PNG)",
    "webp": rb"(?=RIFF....WEBP)",
}

KINDS = ["baseline", "high", "slices", "jpeg", "png", "webp", "vp8", "vp9", "av1", "rgba"]
"""The kinds of clips that show each picture when it comes."""


def formats(kind: str, size: tuple[int, int] = WIDE) -> dict[str, object]:
    """Return what a streamer says of a clip in `register`."""
    codecs = {"vp9": "vp09.00.10.08", "av1": "av01.0.04M.08"}
    h264 = {"baseline": "avc1.42C00D", "high": "avc1.64000D", "slices": "avc1.4D400D"}
    width, height = size
    return {"codec": (codecs | h264).get(kind, kind), "width": width, "height": height}


def paint(number: int, size: tuple[int, int] = WIDE, alpha: bytes = b"") -> bytes:
    """Return a picture's pixels: red, green and blue, one byte each, and alpha if it is given."""
    width, height = size
    red, green, blue, yellow = (bytes(colour) + alpha for colour in COLOURS)
    black, white = bytes(3) + alpha, b"\xff\xff\xff" + alpha
    left = width // 2
    upper = red * left + green * (width - left)
    lower = blue * left + yellow * (width - left)
    fields = [white if number >> bit & 1 else black for bit in reversed(range(BITS))]
    counter = b"".join(fields[x * BITS // width] for x in range(width))
    rows = height * 2 // 5
    return upper * rows + counter * (height - 2 * rows) + lower * rows


@functools.cache
def clip(
    kind: str, count: int = 30, *, first: int = 0, group: int = 10, size: tuple[int, int] = WIDE
) -> list[Picture]:
    """Make a clip of so many pictures, numbered from `first`, in groups.

    H.264 has a configuration before each keyframe, in a message of its own.
    """
    numbers = range(first, first + count)
    if kind == "rgba":
        return [[Message("keyframe", paint(number, size, b"\xff"))] for number in numbers]
    width, height = size
    raw = f"-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {FPS} -i -"
    coding = _ENCODERS[kind].format(group=group)
    if not coding.startswith("-"):
        coding = f"-c:v {coding}"
    made = subprocess.run(
        [require_tool("ffmpeg"), *f"-v error {raw} {coding} -".split()],
        input=b"".join(paint(number, size) for number in numbers),
        capture_output=True,
        check=True,
    ).stdout
    pictures = list(_cut(kind, made, group))
    assert len(pictures) == count
    return pictures


def _cut(kind: str, made: bytes, group: int) -> Iterator[Picture]:
    if kind in _IMAGE_STARTS:
        starts = re.compile(_IMAGE_STARTS[kind], re.DOTALL)
        yield from ([Message("keyframe", image)] for image in starts.split(made) if image)
    elif kind in ("vp8", "vp9", "av1"):
        for number, frame in enumerate(_ivf_frames(made)):
            yield [Message("" if number % group else "keyframe", frame)]
    else:
        yield from film.cut(made)


def _ivf_frames(made: bytes) -> Iterator[bytes]:
    """Yield what is in an IVF file: a header of 32 bytes, 12 more before each frame."""
    at = 32
    while at < len(made):
        (size,) = struct.unpack_from("<I", made, at)
        yield made[at + 12 : at + 12 + size]
        at += 12 + size


def merged(pictures: list[Picture]) -> list[Picture]:
    """Put each configuration into the message of its keyframe, as an encoder gives them."""
    return [
        [Message(picture[-1].mark, b"".join(message.data for message in picture))]
        for picture in pictures
    ]


def unmarked(pictures: list[Picture]) -> list[Picture]:
    """Take the marks off."""
    return [[Message("", message.data) for message in picture] for picture in pictures]


CLOCK_ID = b"relaydLag clock1"
"""Says that the eight bytes that follow are a time."""


def clocked(picture: Picture, at: float) -> Picture:
    """Put the time of its capture, in seconds since the epoch, into a H.264 or JPEG picture."""
    *parameters, whole = picture
    clock = CLOCK_ID + struct.pack(">Q", round(at * 1000))
    if whole.data.startswith(b"\xff\xd8"):
        comment = b"\xff\xfe" + struct.pack(">H", 2 + len(clock)) + clock
        return [Message(whole.mark, whole.data[:2] + comment + whole.data[2:])]
    # SEI, user_data_unregistered (ITU-T H.264 section D.1.7), with emulation prevention (7.4.1).
    payload = b"\x06\x05" + bytes([len(clock)]) + clock + b"\x80"
    escaped = re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)
    return [*parameters, Message(whole.mark, b"\x00\x00\x00\x01" + escaped + whole.data)]
