"""Pages in Chromium: what they ask for and complain of, what their player says and shows."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from harness import PATIENCE

UNREACHABLE = r"WebSocket connection to '[^']*' failed"
"""What Chromium says of a WebSocket that it could not open; no page can keep it from that."""

TOLERANCE = 45
"""How far a decoded colour may be from the source's, per channel: untagged video shifts colours."""

Pixel = Sequence[int]
"""Red, green and blue, 0 to 255."""


@contextmanager
def open_page(
    browser: Any,
    url: str,
    *,
    expected: str | None = None,
    hosts: Sequence[str] = (),
    **options: Any,
) -> Iterator[Any]:
    """Open a page; at the end it must have complained of nothing and asked no other host.

    Args:
        browser: Playwright's browser, or a context of it.
        url: The page's.
        expected: A pattern of warnings and errors that are no surprise.
        hosts: More `host:port` that it may ask.
        options: Of the browser's `new_page`, such as `viewport`.
    """
    complaints: list[str] = []
    asked: set[str] = set()
    with browser.new_page(**options) as page:
        page.on("console", lambda said: _note(complaints, said))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        page.on("websocket", lambda socket: asked.add(urlsplit(socket.url).netloc))
        page.goto(url)
        yield page
    surprises = [text for text in complaints if not (expected and re.search(expected, text))]
    assert not surprises, surprises
    foreign = asked - {"", urlsplit(url).netloc, *hosts}  # blob: and data: have no host
    assert not foreign, foreign


@contextmanager
def serve_html(html: str, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve a page of the test's own, as another front end would; give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = html.encode()
            self.send_response(200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Leave standard error to the test."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _note(complaints: list[str], said: Any) -> None:
    if said.type in ("error", "warning", "assert"):
        complaints.append(said.text)


def wait_until(page: Any, condition: str, patience: float = PATIENCE) -> None:
    """Wait until a JavaScript expression holds; unlike Playwright's own, it works under any CSP."""
    held = page.evaluate(
        f"""async () => {{
          const end = performance.now() + {patience * 1000};
          while (!({condition})) {{
            if (performance.now() > end) {{
              return false;
            }}
            await new Promise((resolve) => setTimeout(resolve, 10));
          }}
          return true;
        }}"""
    )
    assert held, f"{condition} never held; {states(page)}"


def states(page: Any) -> list[list[str]]:
    """Return the state and the words of each player on a page."""
    found: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('relayd-player')].map((p) => [p.state, p.message])"
    )
    return found


def wait_for_state(page: Any, state: str, player: str = "relayd-player") -> str:
    """Wait until a player is in a state; return its words for it."""
    wait_until(page, f'document.querySelector("{player}").state === "{state}"')
    words: str = page.locator(player).evaluate("(player) => player.message")
    return words


def picture(
    page: Any, points: Sequence[tuple[float, float]], player: str = "relayd-player"
) -> list[Pixel]:
    """Return the pixels of a player's picture at points, as fractions of its width and height."""
    pixels: list[Pixel] = page.locator(player).evaluate(
        """({canvas}, points) => {
          const {width, height} = canvas;
          const copy = new OffscreenCanvas(width, height);
          const context = copy.getContext("2d", {willReadFrequently: true});
          context.drawImage(canvas, 0, 0);
          return points.map(([x, y]) =>
            [...context.getImageData(x * width, y * height, 1, 1).data.slice(0, 3)]);
        }""",
        [list(point) for point in points],
    )
    return pixels


def is_like(found: Pixel, wanted: Pixel, tolerance: int = TOLERANCE) -> bool:
    """Whether two colours are the same within a tolerance per channel."""
    return all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))
