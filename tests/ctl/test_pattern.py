"""Tests of the test pattern."""

import itertools
import struct
import subprocess
import zlib

from harness import PATIENCE, require_tool

from relayd.ctl import pattern

LEFT, TOP, PITCH, CELL_HEIGHT = 110, 108, 72, 84  # Where the digits are, in pixels.


def chunks(png: bytes) -> dict[bytes, bytes]:
    """Return the chunks of a PNG file whose checksums are right."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, place = {}, 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        data = png[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, place + 8 + length)
        assert checksum == zlib.crc32(kind + data)
        found[kind] = data
        place += 12 + length
    return found


def rows(png: bytes) -> list[bytes]:
    """Return the picture's rows of palette indexes."""
    pixels = zlib.decompress(chunks(png)[b"IDAT"])
    stride = pattern.WIDTH + 1
    assert len(pixels) == stride * pattern.HEIGHT
    lines = [pixels[start : start + stride] for start in range(0, len(pixels), stride)]
    assert {line[0] for line in lines} == {0}
    return [line[1:] for line in lines]


def digits(number: int) -> list[tuple[bytes, ...]]:
    """Return the pixels of each digit of the counter."""
    picture = rows(pattern.image(number))[TOP : TOP + CELL_HEIGHT]
    lefts = range(LEFT, LEFT + pattern.DIGITS * PITCH, PITCH)
    return [tuple(row[left : left + PITCH] for row in picture) for left in lefts]


def test_images_are_png() -> None:
    """An image is a PNG of the size that is promised, and all its colours are in the palette."""
    parts = chunks(pattern.image(7))
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", parts[b"IHDR"]) == (640, 360, 8, 3, 0, 0, 0)
    assert max(map(max, rows(pattern.image(7)))) < len(parts[b"PLTE"]) / 3


def test_images_are_counted() -> None:
    """The images are numbered from 0, and no two in a row are the same."""
    images = list(itertools.islice(pattern.images(), 3))
    assert images == [pattern.image(number) for number in range(3)]
    assert len(set(images)) == 3


def test_the_counter_shows_the_number() -> None:
    """Every digit has its own shape, and the digits stand in the order of the number's."""
    shapes = [digits(digit)[-1] for digit in range(10)]
    assert len(set(shapes)) == 10
    for number in (123456, 789012, 1_000_042):
        expected = [shapes[int(digit)] for digit in f"{number:06}"[-6:]]
        assert digits(number) == expected


def test_the_picture_moves() -> None:
    """From frame to frame the bars move to the left and the ramp to the right."""
    first, second = rows(pattern.image(0)), rows(pattern.image(1))
    assert second[0] == first[0][4:] + first[0][:4]
    assert second[-1] == first[-1][-8:] + first[-1][:-8]


def test_a_decoder_reads_it() -> None:
    """Ffprobe reads images that follow each other as a video."""
    command = [require_tool("ffprobe"), "-v", "error", "-f", "png_pipe", "-count_frames"]
    entries = ["-show_entries", "stream=width,height,nb_read_frames", "-of", "csv=p=0", "-"]
    video = b"".join(itertools.islice(pattern.images(), 5))
    done = subprocess.run(
        [*command, *entries], input=video, capture_output=True, check=True, timeout=PATIENCE
    )
    assert (done.stdout.strip(), done.stderr) == (b"640,360,5", b"")
    assert pattern.FORMAT == {"codec": "png", "width": 640, "height": 360}
