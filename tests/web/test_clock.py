"""The time of capture in the share page's frames: clock.js."""

from collections.abc import Callable, Iterator

import pytest
from browser import open_page
from harness import RelayProcess, open_chromium

RUN = """
    async ([name, bytes, time]) => {
      const clock = await import("/clock.js");
      return [...clock[name](new Uint8Array(bytes), time)];
    }
"""

CLOCK_ID = b"relaydLag clock1"

TIMES = [0, 1, 3, 2**24, 1_700_000_000_000, 0x01_00_00_03_00_00]
"""Milliseconds of which some look like start codes."""

Stamp = Callable[[str, bytes, int], bytes]


@pytest.fixture(scope="module")
def stamp(relay: RelayProcess) -> Iterator[Stamp]:
    """Call a function of clock.js with a frame and a time."""
    with (
        open_chromium() as browser,
        open_page(browser, f"http://127.0.0.1:{relay.port}/") as page,
    ):
        yield lambda name, data, time: bytes(page.evaluate(RUN, [name, list(data), time]))


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("delimiter", ["", "0000000109f0", "00000109f0"])
@pytest.mark.parametrize("rest", ["0000000167", "0000016588"])
def test_h264(stamp: Stamp, delimiter: str, rest: str, time: int) -> None:
    """A SEI message goes behind the delimiter, in front of all else, and holds no start code."""
    before, after = bytes.fromhex(delimiter), bytes.fromhex(rest)
    stamped = stamp("stampH264", before + after, time)
    assert stamped.startswith(before + b"\0\0\0\1\6")
    assert stamped.endswith(after)
    sei = stamped[len(before) + 4 : len(stamped) - len(after)]
    assert not any(code in sei for code in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))
    payload = sei.replace(b"\0\0\3", b"\0\0")
    assert payload == b"\6\5\x18" + CLOCK_ID + time.to_bytes(8, "big") + b"\x80"


def test_jpeg(stamp: Stamp) -> None:
    """A comment goes behind the first marker of an image."""
    comment = b"\xff\xfe\0\x1a" + CLOCK_ID + (1_700_000_000_000).to_bytes(8, "big")
    image = b"\xff\xd8\xff\xdb..."
    assert stamp("stampJpeg", image, 1_700_000_000_000) == image[:2] + comment + image[2:]
