"""From screen to screen: a tab that is shared on one page and watched on another."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import open_page, picture, wait_for_state, wait_until
from harness import RelayProcess, open_chromium

SIZE = (1280, 720)

SECONDS = 30

FRAME_RATE = 25
"""Pictures a second that a viewer must see, at least."""

LAG = 150
"""Milliseconds from screen to screen that half of the pictures may take, at most."""

PROMPT = 500
"""Milliseconds within which a new viewer of a screen that stands still must see it."""

BITS, CELL = 32, 40
"""The barcode: so many squares in a row, each so many pixels wide."""

SOURCE = f"""
<!doctype html><title>Source</title>
<style>html, body {{ margin: 0; overflow: hidden }} canvas {{ display: block }}</style>
<canvas width="{SIZE[0]}" height="{SIZE[1]}"></canvas>
<script>
  const context = document.querySelector("canvas").getContext("2d");
  let count = 0;
  window.isMoving = true;
  (function draw() {{
    requestAnimationFrame(draw);
    if (!window.isMoving) return;
    context.fillStyle = "white";
    context.fillRect(0, 0, {SIZE[0]}, {SIZE[1]});
    count += 1;
    for (let i = 0; i < 40; i++) {{
      context.fillStyle = `hsl(${{i * 31}} 70% 55%)`;
      context.fillRect((i * 97 + count * 7) % {SIZE[0]}, 100 + (i * 53) % 560, 70, 44);
    }}
    const now = Date.now() % 2 ** {BITS};
    for (let bit = 0; bit < {BITS}; bit++) {{
      context.fillStyle = Math.floor(now / 2 ** bit) % 2 ? "white" : "black";
      context.fillRect(bit * {CELL}, 0, {CELL}, {CELL});
    }}
  }})();
</script>
"""

READ_CLOCK = f"""
  const copy = new OffscreenCanvas({SIZE[0]}, 1).getContext("2d", {{willReadFrequently: true}});
  window.readClock = () => {{
    const {{canvas}} = document.querySelector("relayd-player");
    if (!canvas.width) return null;
    const scale = canvas.width / {SIZE[0]};
    copy.drawImage(canvas, 0, {CELL} / 2 * scale, canvas.width, 1, 0, 0, {SIZE[0]}, 1);
    const row = copy.getImageData(0, 0, {SIZE[0]}, 1).data;
    let time = 0;
    for (let bit = 0; bit < {BITS}; bit++) {{
      const x = Math.floor((bit + 0.5) * {CELL});
      time += row[4 * x + 1] > 128 ? 2 ** bit : 0;
    }}
    return time;
  }};
"""
"""The time in the picture that the player shows."""

WATCH = f"""
  async (seconds) => {{
    const lags = [];
    const end = performance.now() + seconds * 1000;
    let last = readClock();
    while (performance.now() < end) {{
      await new Promise(requestAnimationFrame);
      const time = readClock();
      if (time !== last) {{
        lags.push(Date.now() % 2 ** {BITS} - time);
        last = time;
      }}
    }}
    return lags;
  }}
"""
"""For each picture that is new, its age in milliseconds when it could be seen."""


@contextmanager
def shared_tab(relay: RelayProcess) -> Iterator[tuple[Any, Any, str]]:
    """Share a tab; give the browser, the tab and the path of the stream's page."""
    width, height = SIZE
    with (
        open_chromium("--auto-select-desktop-capture-source=Source") as browser,
        browser.new_context(viewport={"width": width, "height": height}) as context,
    ):
        source = context.new_page()
        source.set_content(SOURCE)
        with open_page(context, f"http://127.0.0.1:{relay.port}/share") as share:
            share.click("#screen")
            wait_until(share, "document.getElementById('link').value")
            yield context, source, share.input_value("#link")


@pytest.mark.alone
def test_screen_to_screen(relay: RelayProcess, record_property: Any) -> None:
    """A shared tab is seen moving, at full rate, a moment later."""
    with shared_tab(relay) as (context, _, url), open_page(context, url) as watch:
        wait_for_state(watch, "playing")
        watch.evaluate(READ_CLOCK)
        watch.evaluate(WATCH, 3)  # the encoder's first seconds are slower
        lags = watch.evaluate(WATCH, SECONDS)
    rate, lag = len(lags) / SECONDS, statistics.median(lags)
    p95 = sorted(lags)[int(0.95 * len(lags))]
    record_property("figures", f"{rate:.1f} frames/s, lag p50 {lag} ms, p95 {p95} ms")
    print(f"{rate:.1f} frames/s, lag p50 {lag} ms, p95 {p95} ms")
    assert min(lags) >= 0
    assert rate >= FRAME_RATE
    assert lag < LAG


@pytest.mark.alone
def test_joining_a_screen_that_stands_still(relay: RelayProcess) -> None:
    """Who joins a screen on which nothing moves sees it at once: the first viewer and the next."""
    with shared_tab(relay) as (context, source, url):
        with open_page(context, url) as first:
            wait_for_state(first, "playing")
        source.evaluate("isMoving = false")
        shown = source.evaluate("document.querySelector('canvas').toDataURL()")
        relay.log.wait_for("viewer .* left after")
        pages = []
        for _ in range(2):
            page = context.new_page()
            page.add_init_script(
                "document.addEventListener('DOMContentLoaded', () => {"
                "  const player = document.querySelector('relayd-player');"
                "  player.addEventListener('playing', () => (window.seenAt = performance.now()),"
                "    {once: true}); });"
            )
            page.goto(url)
            wait_until(page, "window.seenAt")
            joined = page.evaluate("seenAt")
            print(f"picture {joined:.0f} ms after the page was asked for")
            assert joined < PROMPT
            pages.append(page)
        assert source.evaluate("document.querySelector('canvas').toDataURL()") == shown
        assert picture(pages[0], [(0.5, 0.99)]) == picture(pages[1], [(0.5, 0.99)])
