"""A share page and the tab that it shares, in a browser, and what of that a viewer gets."""

import io
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from browser import Pixel, is_like, open_page, wait_until
from harness import PATIENCE, RelayProcess, open_chromium, require_tool
from websockets.sync.client import ClientConnection

CLOCK_ID = b"relaydLag clock1"

RED, GREEN = (200, 30, 60), (20, 160, 90)

STILL = """
<!doctype html><title>Source</title>
<style>body {{ background: rgb{} }}</style><p>A page that stands still
"""

MOVING = """
<!doctype html><title>Source</title><canvas></canvas>
<script>
  const canvas = document.querySelector("canvas");
  Object.assign(canvas, { width: innerWidth, height: innerHeight });
  const context = canvas.getContext("2d");
  let count = 0;
  (function draw() {
    count += 1;
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < 60; i++) {
      context.fillStyle = `hsl(${count * 3 + i * 71} 80% 50%)`;
      context.fillRect((i * 97 + count * 5) % canvas.width, (i * 53) % canvas.height, 60, 40);
    }
    requestAnimationFrame(draw);
  })();
</script>
"""

OpenShare = Callable[..., "Sharing"]


@dataclass
class Sharing:
    """A share page, and the tab that it shares.

    Attributes:
        page: The share page.
        source: What is shared.
        id: The stream's id, once it has one.
    """

    page: Any
    source: Any
    id: str = ""

    def press(self, name: str) -> None:
        """Press a button of the share page."""
        self.page.get_by_role("button", name=name).click()

    def start(self, choice: str = "This screen") -> None:
        """Share, until there is a link."""
        self.press(choice)
        wait_until(self.page, "document.getElementById('link').value")
        self.id = self.page.input_value("#link").rpartition("/")[2]

    def wait_for_words(self, words: str) -> None:
        """Wait until the page says this of its state."""
        text = "document.getElementById('state').textContent"
        wait_until(self.page, f'{text}.includes("{words}")')

    def show(self, html: str) -> None:
        """Let the shared tab show something."""
        self.source.set_content(html)


def open_browser() -> AbstractContextManager[Any]:
    """Start a browser with two cameras, that shares the tab named Source if asked for a screen.

    The relay is also at relay.test, where pages are not secure.
    """
    return open_chromium(
        "--auto-select-desktop-capture-source=Source",
        "--use-fake-device-for-media-stream=device-count=2,fps=30",
        "--host-resolver-rules=MAP relay.test 127.0.0.1",
    )


@contextmanager
def share_pages(browser: Any) -> Iterator[OpenShare]:
    """Give a function that opens share pages, which must not complain; all are closed at the end.

    Its arguments: the relay, a script to run before the page's own, what the shared tab shows, the
    size of both, what the page may do, and options of `open_page`.
    """
    with ExitStack() as stack:

        def open_sharing(
            relay: RelayProcess,
            script: str = "",
            shows: str = MOVING,
            size: tuple[int, int] = (640, 360),
            permissions: Sequence[str] = ("camera",),
            host: str = "127.0.0.1",
            **options: Any,
        ) -> Sharing:
            viewport = {"width": size[0], "height": size[1]}
            context = stack.enter_context(browser.new_context(viewport=viewport))
            context.grant_permissions(permissions)
            context.add_init_script(script)
            source = context.new_page()
            url = f"http://{host}:{relay.port}/share"
            sharing = Sharing(stack.enter_context(open_page(context, url, **options)), source)
            sharing.show(shows)
            return sharing

        yield open_sharing


@dataclass(frozen=True)
class Frame:
    """What a viewer received.

    Attributes:
        data: The message.
        at: When, in seconds since the epoch.
    """

    data: bytes
    at: float

    @property
    def is_key(self) -> bool:
        """Whether H.264 can be decoded from here."""
        return b"\0\0\1\x67" in self.data

    @property
    def captured(self) -> float:
        """When the page says that it was captured."""
        clock = self.data.partition(CLOCK_ID)[2][:12]
        if not self.data.startswith(b"\xff\xd8"):
            clock = clock.replace(b"\0\0\3", b"\0\0")
        return float(struct.unpack(">Q", clock[:8])[0] / 1000)


@contextmanager
def watch(relay: RelayProcess, stream_id: str) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """Subscribe; give the viewer's connection and the video's format."""
    with relay.subscribe(stream_id, features=["gaps", "status"]) as (viewer, reply):
        yield viewer, reply["format"]


def frames_of(viewer: ClientConnection) -> Iterator[Frame]:
    """Give the frames that have something in them, for no longer than a test is patient."""
    end = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < end:
        data = viewer.recv(PATIENCE)
        if isinstance(data, bytes) and data:
            yield Frame(data, time.time())
    pytest.fail("what was waited for did not come")


def take(viewer: ClientConnection, count: int) -> list[Frame]:
    """Receive frames."""
    frames = frames_of(viewer)
    return [next(frames) for _ in range(count)]


def take_key(viewer: ClientConnection) -> Frame:
    """Receive frames until a keyframe."""
    return next(frame for frame in frames_of(viewer) if frame.is_key)


def next_text(viewer: ClientConnection) -> str:
    """Receive frames until a text message."""
    while isinstance(message := viewer.recv(PATIENCE), bytes):
        pass
    return message


@dataclass(frozen=True)
class Pictures:
    """What ffmpeg makes of video.

    Attributes:
        size: Width and height.
        pixels: Of each picture, three bytes each.
    """

    size: tuple[int, int]
    pixels: list[bytes]

    def colour(self, number: int) -> Pixel:
        """Return the colour of a picture near its middle."""
        width, height = self.size
        place = 3 * (height // 2 * width + width // 2)
        return tuple(self.pixels[number][place : place + 3])

    def check(self, number: int, colour: Pixel) -> None:
        """Check the colour of a picture."""
        found = self.colour(number)
        assert is_like(found, colour), found


def decode(frames: list[Frame], kind: str = "h264", size: tuple[int, int] = (0, 0)) -> Pictures:
    """Decode frames by ffmpeg, which must not complain; for ``"ivf"``, VP8, it needs their size."""
    video = b"".join(frame.data for frame in frames)
    if kind == "ivf":
        video = _ivf([frame.data for frame in frames], size)
    command = [require_tool("ffmpeg"), "-v", "error", "-xerror", "-f", kind, "-i", "-"]
    command += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-"]
    result = subprocess.run(command, input=video, capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")
    stream = io.BytesIO(result.stdout)
    pixels: list[bytes] = []
    while found := re.match(rb"P6\n(\d+) (\d+)\n255\n", stream.read(32)):
        size = (int(found[1]), int(found[2]))
        stream.seek(found.end() - 32, io.SEEK_CUR)
        pixels.append(stream.read(size[0] * size[1] * 3))
    return Pictures(size, pixels)


def _ivf(frames: list[bytes], size: tuple[int, int]) -> bytes:
    header = struct.pack("<4sHH4sHHIII4x", b"DKIF", 0, 32, b"VP80", *size, 30, 1, len(frames))
    return header + b"".join(
        struct.pack("<IQ", len(frame), number) + frame for number, frame in enumerate(frames)
    )
