"""The test pattern: a moving picture with a frame counter, as PNG images made with zlib alone."""

import itertools
import struct
import zlib
from collections.abc import Iterator

WIDTH, HEIGHT = 640, 360

FORMAT = {"codec": "png", "width": WIDTH, "height": HEIGHT}
"""What a stream of the pattern is registered as."""

_BARS = (0xC0C0C0, 0xC0C000, 0x00C0C0, 0x00C000, 0xC000C0, 0xC00000, 0x0000C0)
"""The 75 % colour bars of SMPTE ECR 1-1978, as RGB."""

_GREYS = 64
_BLACK = len(_BARS)
_WHITE = _BLACK + _GREYS - 1
_PALETTE = b"".join(
    (
        *(colour.to_bytes(3, "big") for colour in _BARS),
        *(bytes([round(grey * 255 / (_GREYS - 1))] * 3) for grey in range(_GREYS)),
    )
)

# Pixels that a strip moves from one frame to the next. Both strips repeat after WIDTH.
_BARS_STEP, _RAMP_STEP = 4, -8
_RAMP_HEIGHT = 60

DIGITS = 6
"""Digits of the counter, which starts again at 0 after the last number they can show."""

# Seven rows of five pixels for each digit, the leftmost pixel the highest bit.
_FONT = (
    (0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E),
    (0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E),
    (0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F),
    (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    (0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02),
    (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    (0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E),
    (0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08),
    (0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E),
    (0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C),
)
_FONT_WIDTH, _FONT_HEIGHT = 5, 7
_SCALE = 12  # Pixels of the picture per pixel of the font.

# A digit's cell is one font pixel wider than the digit; the panel is one wider and two higher.
_PANEL_WIDTH = (DIGITS * (_FONT_WIDTH + 1) + 1) * _SCALE
_PANEL_HEIGHT = (_FONT_HEIGHT + 2) * _SCALE
_PANEL_LEFT = (WIDTH - _PANEL_WIDTH) // 2
_PANEL_TOP = (HEIGHT - _RAMP_HEIGHT - _PANEL_HEIGHT) // 2

_MARGIN = bytes([_BLACK]) * _SCALE


def _cell_row(bits: int) -> bytes:
    """Return one row of a digit's cell: the font's pixels, scaled, and the gap after them."""
    pixels = (_WHITE if bits >> column & 1 else _BLACK for column in reversed(range(_FONT_WIDTH)))
    return b"".join(bytes([pixel]) * _SCALE for pixel in pixels) + _MARGIN


_CELLS = tuple(tuple(_cell_row(bits) for bits in digit) for digit in _FONT)

_BARS_ROW = bytes(column * len(_BARS) // WIDTH for column in range(WIDTH)) * 2
_RAMP_ROW = bytes(_BLACK + column * _GREYS // WIDTH for column in range(WIDTH)) * 2


def images() -> Iterator[bytes]:
    """Yield the pattern without end: PNG images of WIDTH x HEIGHT pixels, counted from 0."""
    return map(image, itertools.count())


def image(number: int) -> bytes:
    """Return one image of the pattern as a PNG file."""
    return _png(_rows(number))


def _rows(number: int) -> list[bytes]:
    """Return the picture's rows from top to bottom, one palette index a pixel."""
    offset = number * _BARS_STEP % WIDTH
    bars = _BARS_ROW[offset : offset + WIDTH]
    offset = number * _RAMP_STEP % WIDTH
    ramp = _RAMP_ROW[offset : offset + WIDTH]
    left, right = bars[:_PANEL_LEFT], bars[_PANEL_LEFT + _PANEL_WIDTH :]

    rows = [bars] * _PANEL_TOP
    for panel_row in _panel(number):
        rows += [left + panel_row + right] * _SCALE
    rows += [bars] * (HEIGHT - _RAMP_HEIGHT - len(rows))
    rows += [ramp] * _RAMP_HEIGHT
    return rows


def _panel(number: int) -> Iterator[bytes]:
    """Yield the counter's rows, each of which fills _SCALE rows of the picture."""
    digits = f"{number % 10**DIGITS:0{DIGITS}}"
    blank = bytes([_BLACK]) * _PANEL_WIDTH
    yield blank
    for row in range(_FONT_HEIGHT):
        yield _MARGIN + b"".join(_CELLS[int(digit)][row] for digit in digits)
    yield blank


def _png(rows: list[bytes]) -> bytes:
    """Put rows of palette indexes into a PNG file (RFC 2083)."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)  # 8 bits, palette.
    pixels = b"".join(b"\0" + row for row in rows)  # Filter 0: the row as it is.
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", _PALETTE),
            # Level 1 is the fastest; the rows repeat, so that a higher one gains little.
            _chunk(b"IDAT", zlib.compress(pixels, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", checksum)
