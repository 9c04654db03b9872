"""`<relayd-player>` as an element of any page: attributes, events, keys, figures, its place."""

import base64
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from browser import (
    UNREACHABLE,
    is_like,
    open_page,
    picture,
    serve_html,
    wait_for_state,
    wait_until,
)
from clips import COLOURS, CORNERS, WIDE, clip, clocked
from film import Picture
from harness import RelayProcess, open_chromium
from live import keep_time
from watching import PLAYER, lose, numbers, push, recording, wait_for_picture
from websockets.sync.client import ClientConnection

StartRelay = Callable[..., RelayProcess]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for the tests of this module, as a context that takes notes."""
    with (
        open_chromium("--js-flags=--expose-gc") as browser,
        recording(browser, viewport={"width": 1000, "height": 800}) as context,
    ):
        yield context


@contextmanager
def embed(
    browser: Any,
    relay: RelayProcess,
    *players: str,
    headers: dict[str, str] | None = None,
    expected: str | None = None,
) -> Iterator[Any]:
    """Open a page of another origin that has players with these attributes."""
    elements = "\n".join(f"<relayd-player {attributes}></relayd-player>" for attributes in players)
    module = f"http://127.0.0.1:{relay.port}/player.js"
    html = f"""<!doctype html><html lang="en"><title>A front end</title>
        <script type="module" src="{module}"></script>{elements}"""
    hosts = [f"127.0.0.1:{relay.port}"]
    with (
        serve_html(html, headers) as url,
        open_page(browser, url, hosts=hosts, expected=expected) as page,
    ):
        yield page


def source(relay: RelayProcess, stream_id: str) -> str:
    """Return the attribute that names a stream."""
    return f'src="{relay.url}/ws/view/{stream_id}"'


@contextmanager
def playing(
    browser: Any, relay: RelayProcess, stream_id: str
) -> Iterator[tuple[ClientConnection, Any]]:
    """Let a player show the first ten pictures of a clip; give the streamer and the page."""
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, f"autoplay {source(relay, stream_id)}") as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip("baseline", 10))
        wait_for_picture(page, 9)
        yield streamer, page


def events(page: Any, *types: str) -> list[Any]:
    """Return the events of these types that came since the last look, each with its detail."""
    heard = page.evaluate("recorder.events.splice(0)")
    return [event for event in heard if event[0] in types]


def test_events(browser: Any, start_relay: StartRelay, stream_id: str) -> None:
    """A page hears what happens, in order, with reasons and codes."""
    relay = start_relay()
    own = ["playing", "paused", "ended", "error"]
    fields = {"features": ["resume"]}
    with embed(
        browser, relay, f"autoplay {source(relay, stream_id)}", expected=UNREACHABLE
    ) as page:
        wait_for_state(page, "not-found")
        assert events(page, *own) == [["error", {"message": "stream not found", "code": 4404}]]
        with relay.register(stream_id, **fields) as (streamer, reply):
            wait_for_state(page, "waiting")
            push(streamer, clip("jpeg", 5))
            wait_for_state(page, "playing")
            lose(streamer)
            wait_for_state(page, "paused")
            fields["resume_token"] = reply["resume_token"]
            with relay.register(stream_id, **fields) as (again, _):
                wait_for_state(page, "waiting")
                push(again, clip("jpeg", 5))
                wait_for_state(page, "playing")
                again.close()
            wait_for_state(page, "ended")
            assert events(page, *own) == [
                ["playing", None],
                ["paused", {"reason": "streamer"}],
                ["playing", None],
                ["ended", None],
            ]
        with relay.stream(stream_id) as (streamer, _):
            push(streamer, clip("jpeg", 5))
            wait_for_state(page, "playing")
            events(page)
            page.evaluate(f"{PLAYER}.pause()")
            stopped = {"state": "stopped", "message": "Stopped. Press play to watch again."}
            assert events(page, *own, "statechange") == [
                ["statechange", stopped],
                ["paused", {"reason": "viewer"}],
            ]
            page.evaluate(f"{PLAYER}.play()")
            wait_for_state(page, "playing")
            events(page)
            relay.signal(signal.SIGKILL)
            wait_for_state(page, "reconnecting")
            assert events(page, *own) == [["paused", {"reason": "connection"}]]


def test_events_do_not_bubble(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """Like those of a video element, the events are heard on the player alone."""
    with embed(browser, relay, source(relay, stream_id)) as page:
        page.evaluate(
            f"""() => {{
              globalThis.heard = [];
              document.addEventListener("statechange", () => heard.push("document"));
              {PLAYER}.addEventListener("statechange", () => heard.push("player"));
              {PLAYER}.play();
            }}"""
        )
        wait_for_state(page, "not-found")
        assert set(page.evaluate("heard")) == {"player"}


def test_attributes(browser: Any, relay: RelayProcess) -> None:
    """Attributes and properties are the same thing; what the player tells can't be set."""
    with embed(browser, relay, "") as page:
        assert wait_for_state(page, "idle") == "Ready. Press play to watch."
        page.evaluate(f"globalThis.player = {PLAYER}")
        assert page.evaluate("[player.src, player.autoplay, player.stats]") == ["", False, False]
        page.evaluate("Object.assign(player, {src: '/ws/view/x', autoplay: false, stats: true})")
        assert page.evaluate("player.getAttributeNames().sort()") == ["src", "stats"]
        page.evaluate("player.removeAttribute('stats')")
        page.evaluate("player.setAttribute('src', '/ws/view/y')")
        assert page.evaluate("[player.src, player.stats]") == ["/ws/view/y", False]
        page.evaluate("player.statistics.fps = 99")
        assert page.evaluate("player.statistics.fps") == 0
        for name in ["state", "message", "statistics"]:
            get = "Object.getOwnPropertyDescriptor(player.constructor.prototype, name)"
            assert page.evaluate(f"(name) => {get}.set === undefined", name)


def test_without_autoplay(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """Without `autoplay` it connects when it is told to, and does not come back by itself."""
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, source(relay, stream_id)) as page,
    ):
        assert wait_for_state(page, "idle") == "Ready. Press play to watch."
        push(streamer, clip("baseline", 10))
        assert page.evaluate("recorder.sockets.length") == 0
        page.get_by_role("button", name="Play", exact=True).click()
        wait_for_picture(page, 9)
        assert wait_for_state(page, "playing") == "Live."
        streamer.close()
        words = wait_for_state(page, "ended")
        assert words == "Ended. The stream is over. Press play to look for it again."
        page.evaluate(f"{PLAYER}.play()")
        words = wait_for_state(page, "not-found")
        assert words == "Not found. No stream has this id now. Press play to look again."
        with relay.stream(stream_id) as (streamer, _):
            assert page.evaluate("recorder.sockets.length") == 2
            page.get_by_role("button", name="Play", exact=True).click()
            wait_for_state(page, "waiting")


def test_pause(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """A viewer who pauses gets no frames; the last picture stays, and play shows the newest."""
    with playing(browser, relay, stream_id) as (streamer, page):
        page.evaluate(f"{PLAYER}.pause()")
        assert wait_for_state(page, "stopped") == "Stopped. Press play to watch again."
        relay.log.wait_for(f"viewer {stream_id} .*: left")
        push(streamer, clip("baseline", 10, first=10))
        wait_for_picture(page, 9)
        page.evaluate(f"{PLAYER}.play()")
        wait_for_picture(page, 19)
        assert wait_for_state(page, "playing") == "Live."


def test_removal(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """A player that is taken off the page leaves the stream; put back, it is there again."""
    with playing(browser, relay, stream_id) as (streamer, page):
        page.evaluate(f"globalThis.player = {PLAYER}; player.remove()")
        relay.log.wait_for(f"viewer {stream_id} .*: left")
        assert page.evaluate("player.state") == "idle"
        page.evaluate("document.body.append(player)")
        wait_for_state(page, "playing")
        push(streamer, clip("baseline", 10, first=10))
        wait_for_picture(page, 19)


def test_another_source(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """With another `src` it shows another stream, and nothing of the one before."""
    other = f"{stream_id}-2"
    with (
        relay.stream(other) as (another, _),
        playing(browser, relay, stream_id) as (_, page),
    ):
        page.evaluate(f"{PLAYER}.src = '{relay.url}/ws/view/{other}'")
        relay.log.wait_for(f"viewer {stream_id} .*: left")
        wait_for_state(page, "waiting")
        assert picture(page, CORNERS) == [[0, 0, 0]] * 4
        push(another, clip("vp8", 10, first=30))
        wait_for_picture(page, 39)
        assert set(numbers(page)) <= {*range(10), *range(30, 40)}
        assert page.get_by_role("img").get_attribute("aria-label") == f"Live picture of {other}"


def test_several_players(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """Players on one page have nothing to do with each other."""
    ids = [f"{stream_id}-{number}" for number in range(3)]
    players = [f'id="p{n}" autoplay {source(relay, name)}' for n, name in enumerate(ids)]
    with (
        relay.stream(ids[0]) as (first, _),
        relay.stream(ids[1]) as (second, _),
        embed(browser, relay, *players) as page,
    ):
        for player in ["#p0", "#p1"]:
            wait_for_state(page, "waiting", player)
        push(first, clip("high"))
        push(second, clip("webp"))
        for player in ["#p0", "#p1"]:
            wait_for_state(page, "playing", player)
        wait_for_state(page, "not-found", "#p2")
        page.evaluate("document.querySelector('#p0').pause()")
        wait_for_state(page, "stopped", "#p0")
        assert wait_for_state(page, "playing", "#p1") == "Live."


def test_keys_and_buttons(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """Everything can be done by keys, and by buttons that have a name."""
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, f"autoplay {source(relay, stream_id)}") as page,
    ):
        push(streamer, clip("jpeg", 10))
        wait_for_state(page, "playing")
        page.keyboard.press("Tab")  # to the first button
        for key, state in [("k", "stopped"), ("k", "playing"), ("Space", "stopped")]:
            page.keyboard.press(key)
            wait_for_state(page, state)
        assert page.get_by_role("status").inner_text().startswith("Stopped")
        page.get_by_role("button", name="Play", exact=True).click()
        wait_for_state(page, "playing")
        page.keyboard.press("Control+s")
        assert not page.evaluate(f"{PLAYER}.stats")
        page.keyboard.press("s")
        assert page.evaluate(f"{PLAYER}.stats")
        figures = page.get_by_role("button", name="Figures")
        assert figures.get_attribute("aria-pressed") == "true"
        figures.click()
        assert not page.evaluate(f"{PLAYER}.stats")
        page.keyboard.press("Space")  # presses the button that has the focus, and nothing else
        assert page.evaluate(f"[{PLAYER}.stats, {PLAYER}.state]") == [True, "playing"]
        for _ in range(2):
            page.keyboard.press("f")
            wait_until(page, f"document.fullscreenElement === {PLAYER}")
            page.get_by_role("button", name="Full screen").click()
            wait_until(page, "document.fullscreenElement === null")
        page.get_by_role("button", name="Pause").click()
        wait_for_state(page, "stopped")


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["baseline", "jpeg"])
def test_figures(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """The figures are those of the stream; the lag is there when its frames have a clock."""
    fps, pictures = 25, clip(kind, 75)
    sizes = [sum(len(message.data) for message in picture) for picture in pictures]
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, f"autoplay stats {source(relay, stream_id)}") as page,
    ):
        wait_for_state(page, "waiting")
        keep_time(fps, [partial(push_clocked, streamer, picture) for picture in pictures])
        wait_until(page, f"{PLAYER}.statistics.frames === 75")
        shown = page.evaluate(f"{PLAYER}.statistics")
        assert abs(shown["fps"] - fps) < 3
        assert abs(shown["bitrate"] / (8 * sum(sizes) / len(sizes) * fps) - 1) < 0.3
        assert 2.0 <= shown["lag"] < 2.15
        assert (shown["gaps"], shown["frames"]) == (0, 75)
        assert shown["codec"] == {"baseline": "avc1.42c00d", "jpeg": "JPEG"}[kind]
        assert (shown["width"], shown["height"]) == WIDE
        terms = page.locator("relayd-player dt").all_inner_texts()
        values = page.locator("relayd-player dd").all_inner_texts()
        figures = dict(zip(terms, values, strict=True))
        assert figures["size"] == "320 × 192"
        assert figures["codec"] == shown["codec"]
        assert figures["left out"] == "0"
        assert 2000 <= int(figures["lag"].removesuffix(" ms")) < 2150
        assert abs(float(figures["frames/s"]) - fps) < 3
        push(streamer, pictures[:1])
        wait_until(page, f"{PLAYER}.statistics.lag === null")
        for wrong in (-3600, 2 * 3600):  # a clock that is ahead, or far behind
            push(streamer, [clocked(pictures[0], time.time() - wrong)])
            wait_until(page, f"{PLAYER}.statistics.frames === {77 + (wrong > 0)}")
            assert page.evaluate(f"{PLAYER}.statistics.lag") is None


def push_clocked(streamer: ClientConnection, picture: Picture) -> None:
    """Send a picture that says it was captured two seconds ago."""
    push(streamer, [clocked(picture, time.time() - 2)])


@pytest.mark.parametrize(
    ("fit", "above", "left"),
    [("contain", None, 0), ("cover", 0, 0), ("fill", 0, 0), ("none", None, None)],
)
def test_object_fit(
    browser: Any, relay: RelayProcess, stream_id: str, fit: str, above: int | None, left: int | None
) -> None:
    """The picture fits into the element as its `object-fit` says."""
    style = f"width: 400px; height: 400px; object-fit: {fit}"
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, f'style="{style}" autoplay {source(relay, stream_id)}') as page,
    ):
        push(streamer, clip("png", 10))
        wait_for_picture(page, 9)
        wait_for_state(page, "playing")
        fades = f"{PLAYER}.getAnimations({{subtree: true}})"
        page.evaluate(f"Promise.all({fades}.map((fade) => fade.finished))")
        shot = page.locator("relayd-player").screenshot()
        top, side = pixels_of(page, shot, [(100, 4), (4, 120)])
        background = (0, 0, 0)
        assert is_like(top, background if above is None else COLOURS[above])
        assert is_like(side, background if left is None else COLOURS[left])


def pixels_of(page: Any, png: bytes, points: list[tuple[int, int]]) -> list[list[int]]:
    """Return the red, green and blue of an image at points in pixels."""
    pixels: list[list[int]] = page.evaluate(
        """async ([encoded, points]) => {
          const image = new Image();
          image.src = `data:image/png;base64,${encoded}`;
          await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height);
          const context = canvas.getContext("2d", {willReadFrequently: true});
          context.drawImage(image, 0, 0);
          return points.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data.slice(0, 3)]);
        }""",
        [base64.b64encode(png).decode(), [list(point) for point in points]],
    )
    return pixels


def test_strict_policy(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """A page with the strictest policy may have a player."""
    policy = {
        "default-src": "'none'",
        "script-src": f"http://127.0.0.1:{relay.port}",
        "connect-src": relay.url,
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    headers = {"Content-Security-Policy": "; ".join(f"{k} {v}" for k, v in policy.items())}
    attributes = f"autoplay stats {source(relay, stream_id)}"
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, attributes, headers=headers) as page,
    ):
        for kind in ["jpeg", "baseline", "vp8"]:
            push(streamer, clip(kind))
            wait_for_picture(page, 29)
        box = page.locator("relayd-player").bounding_box()
        assert box["width"] > 900  # its style is in force
        assert abs(box["width"] / box["height"] - 16 / 9) < 0.01


def test_nothing_is_left_open(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """Of more than a thousand pictures the player leaves none to the garbage collector."""
    with (
        relay.stream(stream_id) as (streamer, _),
        embed(browser, relay, f"autoplay {source(relay, stream_id)}") as page,
    ):
        wait_for_state(page, "waiting")
        for kind, times in [("vp8", 12), ("jpeg", 2), ("baseline", 12)]:
            for _ in range(times):
                for first in (0, 50):
                    push(streamer, clip(kind, 50, first=first, group=50))
                    wait_until(page, f"recorder.number === {first + 49}")
        assert page.evaluate("recorder.count.frames") > 1000
        assert page.evaluate("recorder.count.bitmaps") > 5
        wait_until(page, "recorder.open === 0")
        page.evaluate("gc()")


def test_module(browser: Any, relay: RelayProcess) -> None:
    """The module may be loaded twice, and gives a front end its backoff."""
    with embed(browser, relay, "") as page:
        first, *others = page.evaluate(
            """async (url) => {
              const {Backoff} = await import(`${url}?again`);
              const backoff = new Backoff({first: 100, largest: 1000});
              const delays = Array.from({length: 20}, () => backoff.next());
              backoff.reset();
              return [backoff.next(), ...delays];
            }""",
            f"http://127.0.0.1:{relay.port}/player.js",
        )
        assert 50 <= first <= 100
        for delay, largest in zip(others, [100, 200, 400, 800, *16 * [1000]], strict=True):
            assert largest / 2 <= delay <= largest
        assert len(set(others[4:])) > 1
