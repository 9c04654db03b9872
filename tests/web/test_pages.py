"""The pages as people see them: every state of each, light and dark, wide and on a phone."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import UNREACHABLE, open_page, serve_html, wait_for_state, wait_until
from harness import RelayProcess, install_with_npm, open_chromium, send

from relayd.ctl import pattern

FLAGS = (
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream=fps=30",
    "--host-resolver-rules=MAP relay.test 127.0.0.1",
)

SCHEMES = ("light", "dark")

SIZES = {"wide": (1280, 800), "phone": (360, 740)}

LAYOUT_SHIFT_LIMIT = 0.01
"""Of a page's life, as https://web.dev/articles/cls counts; 0.1 is what it calls good."""

H265 = bytes.fromhex("00000001 4001 0c01 ffff")
"""The beginning of an access unit that no player of these pages decodes."""

H264 = bytes.fromhex("00000001 6742c01e 00000001 68ce3c80 00000001 6588")

NARROW = {"codec": "rgba", "width": 90, "height": 200}
"""A stream of a phone that is held upright, each picture of raw pixels."""

Scene = Callable[["Stage"], AbstractContextManager[Any]]


class Stage:
    """What a scene needs: a browser, a relay with one place for a viewer of each stream, clean-up.

    Args:
        browser: Playwright's.
        start_relay: Starts a relay that ends with the test.
    """

    def __init__(self, browser: Any, start_relay: Callable[..., RelayProcess]) -> None:
        self.browser = browser
        self.relay = start_relay("--max-viewers-per-stream", "1", "--resume-window", "60s")

    def open(
        self, path: str, host: str = "127.0.0.1", **options: Any
    ) -> AbstractContextManager[Any]:
        """Open a page of the relay."""
        width, height = SIZES["wide"]
        options.setdefault("viewport", {"width": width, "height": height})
        return open_page(self.browser, f"http://{host}:{self.relay.port}{path}", **options)

    @contextmanager
    def watched(self, *frames: bytes, **request: Any) -> Iterator[Any]:
        """Publish a stream with these frames, and open its page."""
        with self.relay.register("k3J9xQ2b", **request) as (streamer, _):
            send(streamer, type="keyframe")
            for frame in frames:
                streamer.send(frame)
            with self.open("/watch/k3J9xQ2b") as page:
                yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium with a camera of its own."""
    with open_chromium(*FLAGS) as browser:
        yield browser


@pytest.fixture
def stage(browser: Any, start_relay: Callable[..., RelayProcess]) -> Stage:
    """An empty stage."""
    return Stage(browser, start_relay)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, which looks for what keeps people from using a page."""
    folder = tmp_path_factory.mktemp("axe")
    install_with_npm("axe-core@4", folder)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


@contextmanager
def index(stage: Stage) -> Iterator[Any]:
    """The front page."""
    with stage.open("/") as page:
        yield page


@contextmanager
def index_wrong(stage: Stage) -> Iterator[Any]:
    """The front page with an id that can't be one."""
    with stage.open("/") as page:
        page.fill("#stream-id", "no good!")
        page.press("#stream-id", "Enter")
        yield page


@contextmanager
def watch_connecting(stage: Stage) -> Iterator[Any]:
    """A server that takes its time."""
    with stage.open("/watch/k3J9xQ2b") as page:
        wait_for_state(page, "not-found")
        page.click("relayd-player button >> nth=0")
        stage.relay.signal(signal.SIGSTOP)
        try:
            page.click("relayd-player button >> nth=0")
            assert wait_for_state(page, "connecting").startswith("Connecting.")
            yield page
        finally:
            stage.relay.signal(signal.SIGCONT)


@contextmanager
def watch_waiting(stage: Stage) -> Iterator[Any]:
    """A stream that has shown nothing yet."""
    with stage.watched() as page:
        assert wait_for_state(page, "waiting").startswith("Waiting for the stream.")
        yield page


@contextmanager
def watch_live(stage: Stage) -> Iterator[Any]:
    """A live picture."""
    with stage.watched(pattern.image(1234)) as page:
        wait_for_state(page, "playing")
        yield page


@contextmanager
def watch_figures(stage: Stage) -> Iterator[Any]:
    """A live picture with figures over it."""
    with watch_live(stage) as page:
        page.click("relayd-player button >> nth=1")
        wait_until(page, "document.querySelector('relayd-player').stats")
        yield page


@contextmanager
def watch_upright(stage: Stage) -> Iterator[Any]:
    """The live picture of a phone."""
    picture = bytes([70, 120, 200, 255]) * (90 * 200)
    with stage.watched(picture, format=NARROW) as page:
        wait_for_state(page, "playing")
        yield page


@contextmanager
def watch_lost(stage: Stage) -> Iterator[Any]:
    """A stream whose streamer is lost."""
    with stage.relay.register("k3J9xQ2b", features=["resume"]) as (streamer, _):
        streamer.send(pattern.image(1234))
        with stage.open("/watch/k3J9xQ2b") as page:
            wait_for_state(page, "waiting")
            streamer.send(pattern.image(1235))
            wait_for_state(page, "playing")
            streamer.close(1001)
            assert wait_for_state(page, "paused").startswith("Streamer lost.")
            yield page


@contextmanager
def watch_ended(stage: Stage) -> Iterator[Any]:
    """A stream that is over."""
    with stage.relay.stream("k3J9xQ2b") as (streamer, _), stage.open("/watch/k3J9xQ2b") as page:
        wait_for_state(page, "waiting")
        streamer.close()
        assert wait_for_state(page, "ended").startswith("Ended.")
        yield page


@contextmanager
def watch_reconnecting(stage: Stage) -> Iterator[Any]:
    """A server that is gone."""
    with stage.open("/watch/k3J9xQ2b", expected=UNREACHABLE) as page:
        wait_for_state(page, "not-found")
        stage.relay.signal(signal.SIGKILL)
        assert wait_for_state(page, "reconnecting").startswith("Connection lost.")
        yield page


@contextmanager
def watch_full(stage: Stage) -> Iterator[Any]:
    """A stream without a free place."""
    with (
        stage.relay.stream("k3J9xQ2b"),
        stage.relay.view("k3J9xQ2b"),
        stage.open("/watch/k3J9xQ2b") as page,
    ):
        assert wait_for_state(page, "full").startswith("Too many viewers.")
        yield page


@contextmanager
def watch_not_found(stage: Stage) -> Iterator[Any]:
    """An id that no stream has."""
    with stage.open("/watch/k3J9xQ2b") as page:
        assert wait_for_state(page, "not-found").startswith("Not found.")
        yield page


@contextmanager
def watch_refused(stage: Stage) -> Iterator[Any]:
    """An id that no stream can have."""
    with stage.open("/watch/" + "no%20id%" * 12) as page:
        assert "invalid stream id" in wait_for_state(page, "refused")
        yield page


@contextmanager
def watch_unsupported(stage: Stage) -> Iterator[Any]:
    """A stream that this browser can't decode."""
    with stage.watched(H265) as page:
        assert "H.265" in wait_for_state(page, "unsupported")
        yield page


@contextmanager
def watch_insecure(stage: Stage) -> Iterator[Any]:
    """A video on plain http."""
    with stage.relay.stream("k3J9xQ2b") as (streamer, _):
        send(streamer, type="keyframe")
        streamer.send(H264)
        with stage.open("/watch/k3J9xQ2b", host="relay.test") as page:
            assert "https" in wait_for_state(page, "unsupported")
            yield page


@contextmanager
def watch_stopped(stage: Stage) -> Iterator[Any]:
    """A picture that the viewer has stopped."""
    with watch_live(stage) as page:
        page.hover("relayd-player")
        page.click("relayd-player button >> nth=0")
        assert wait_for_state(page, "stopped").startswith("Stopped.")
        yield page


@contextmanager
def share(stage: Stage) -> Iterator[Any]:
    """The page before anything is shared."""
    with stage.open("/share") as page:
        wait_for_share(page, "idle")
        yield page


@contextmanager
def share_unwatched(stage: Stage) -> Iterator[Any]:
    """A camera that nobody watches."""
    with stage.open("/share") as page:
        page.click("#camera")
        wait_for_share(page, "unwatched")
        yield page


@contextmanager
def share_live(stage: Stage) -> Iterator[Any]:
    """A camera with a viewer."""
    with share_unwatched(stage) as page:
        stream_id = page.input_value("#link").rpartition("/")[2]
        with stage.relay.view(stream_id):
            wait_for_share(page, "live")
            yield page


@contextmanager
def share_reconnecting(stage: Stage) -> Iterator[Any]:
    """A camera whose server is gone."""
    with stage.open("/share", expected=UNREACHABLE) as page:
        page.click("#camera")
        wait_for_share(page, "unwatched")
        stage.relay.signal(signal.SIGKILL)
        wait_for_share(page, "reconnecting")
        yield page


@contextmanager
def share_refused(stage: Stage) -> Iterator[Any]:
    """An id that is taken."""
    with stage.relay.stream("mine"), stage.open("/share") as page:
        page.fill("#stream-id", "mine")
        page.click("#camera")
        wait_for_share(page, "stopped")
        yield page


@contextmanager
def share_insecure(stage: Stage) -> Iterator[Any]:
    """Plain http, on which browsers capture nothing."""
    with stage.open("/share", host="relay.test") as page:
        assert "https" in page.inner_text("#state")
        yield page


def wait_for_share(page: Any, state: str) -> None:
    """Wait until the share page is in a state."""
    wait_until(page, f"document.getElementById('state').dataset.state === '{state}'")


SCENES: list[Scene] = [
    index,
    index_wrong,
    watch_connecting,
    watch_waiting,
    watch_live,
    watch_figures,
    watch_upright,
    watch_lost,
    watch_ended,
    watch_reconnecting,
    watch_full,
    watch_not_found,
    watch_refused,
    watch_unsupported,
    watch_insecure,
    watch_stopped,
    share,
    share_unwatched,
    share_live,
    share_reconnecting,
    share_refused,
    share_insecure,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_scene(scene: Scene, stage: Stage, axe: str, tmp_path: Path) -> None:
    """A page has no fault that axe finds, fits on a phone, and is there to be looked at.

    The pictures go to the folder that the variable SCREENSHOTS names.
    """
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(exist_ok=True)
    with scene(stage) as page:
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert faults(page, axe) == []
            for name, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                page.screenshot(path=folder / f"{scene.__name__}-{scheme}-{name}.png")


def faults(page: Any, axe: str) -> list[str]:
    """Return the rules of axe that a page breaks, and where."""
    page.evaluate(axe)
    broken: list[str] = page.evaluate(
        """async () => (await axe.run()).violations.flatMap(({id, impact, nodes}) =>
          nodes.map(({target}) => `${impact}: ${id}: ${target.flat().join(" ")}`))"""
    )
    return broken


SHIFTS = """
  window.shift = 0;
  new PerformanceObserver((list) => {
    for (const {value} of list.getEntries()) window.shift += value;
  }).observe({type: "layout-shift", buffered: true});
"""


@pytest.mark.parametrize("size", SIZES)
def test_nothing_jumps(stage: Stage, size: str) -> None:
    """No layout jumps, from the empty page to a live stream and its end, on either side."""
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    with ExitStack() as stack:
        sharer = stack.enter_context(stage.open("/share", viewport=viewport))
        viewer = stack.enter_context(stage.open("/watch/mine", viewport=viewport))
        for page in (sharer, viewer):
            page.evaluate(SHIFTS)
        wait_for_state(viewer, "not-found")
        sharer.fill("#stream-id", "mine")
        sharer.click("#camera")
        wait_for_state(viewer, "playing")
        wait_for_share(sharer, "live")
        sharer.click("#stop")
        wait_for_state(viewer, "ended")
        wait_for_share(sharer, "stopped")
        for page in (sharer, viewer):
            assert page.evaluate("shift") < LAYOUT_SHIFT_LIMIT


@pytest.mark.parametrize("typed", ["demo", " demo ", "{}/watch/demo", "{}/watch/demo/?x#y"])
def test_way_to_a_stream(stage: Stage, typed: str) -> None:
    """The front page leads to a stream by its id or its link, by keyboard alone."""
    origin = f"http://127.0.0.1:{stage.relay.port}"
    with stage.open("/") as page:
        while page.evaluate("document.activeElement.id") != "stream-id":
            page.keyboard.press("Tab")
        page.keyboard.type(typed.format(origin))
        page.keyboard.press("Enter")
        page.wait_for_url(f"{origin}/watch/demo")
        wait_for_state(page, "not-found")


def test_title_and_label_follow(stage: Stage) -> None:
    """The tab's title and the bar say what the player does."""
    with stage.relay.stream("demo") as (streamer, _), stage.open("/watch/demo") as page:
        wait_for_state(page, "waiting")
        streamer.send(pattern.image(0))
        wait_for_state(page, "playing")
        assert page.title() == "Live · demo · relayd"
        assert page.inner_text("#label") == "Live"
        assert page.inner_text("h1") == "demo"
        streamer.close()
        wait_for_state(page, "ended")
        assert page.title() == "Ended · demo · relayd"
        assert page.inner_text("#label") == "Ended"


@pytest.mark.parametrize("host", ["127.0.0.1", "relay.test"])
def test_copy(stage: Stage, host: str) -> None:
    """The link to a stream is copied at a click, on plain http too, and that is said."""
    front = f"127.0.0.1:{stage.relay.port}"
    may = ["clipboard-read", "clipboard-write"]
    with stage.open("/watch/demo", host=host, permissions=may, hosts=[front]) as page:
        url = page.url
        page.click("#copy")
        wait_until(page, "document.getElementById('copied').textContent === 'Copied'")
        page.goto(f"http://{front}/")  # only a secure context can read what was copied
        assert page.evaluate("navigator.clipboard.readText()") == url


def test_snippet_works(stage: Stage) -> None:
    """The lines that the front page gives show a stream on a page of another origin."""
    with stage.open("/") as page:
        snippet = page.inner_text("#snippet").replace("ID", "demo")
    assert f"ws://127.0.0.1:{stage.relay.port}/ws/view/demo" in snippet
    served = serve_html(f"<!doctype html><title>Elsewhere</title>{snippet}")
    relay_host = f"127.0.0.1:{stage.relay.port}"
    with stage.relay.stream("demo") as (streamer, _), served as url:
        send(streamer, type="keyframe")
        streamer.send(pattern.image(0))
        with open_page(stage.browser, url, hosts=[relay_host], expected="status of 404") as page:
            wait_for_state(page, "playing")
