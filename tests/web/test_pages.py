"""The pages as people see them: every state of each, light and dark, wide and on a phone."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browser import open_page, serve_html, wait_for_state, wait_until
from harness import RelayProcess, install_with_npm, open_chromium, send
from scenes import FLAGS, SCENES, SIZES, Scene, Stage, wait_for_share

from relayd.ctl import pattern

SCHEMES = ("light", "dark")

LAYOUT_SHIFT_LIMIT = 0.01
"""Of a page's life, as https://web.dev/articles/cls counts; 0.1 is what it calls good."""


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


@pytest.mark.parametrize("typed", ["no good!", "{}/", "{}/watch/", "{}/share", "a" * 65, "ä"])
def test_no_way_to_nonsense(stage: Stage, typed: str) -> None:
    """What is neither an id nor a link is refused in words, and nothing moves for them."""
    width, height = SIZES["phone"]
    with stage.open("/", viewport={"width": width, "height": height}) as page:
        below = page.locator("#copy").bounding_box()
        page.fill("#stream-id", typed.format(page.url.rstrip("/")))
        page.press("#stream-id", "Enter")
        wait_until(page, "document.getElementById('stream-id').ariaInvalid === 'true'")
        assert page.inner_text("#hint") == "An id has 1 to 64 letters, digits, - and _."
        assert page.evaluate("document.activeElement.id") == "stream-id"
        assert page.locator("#copy").bounding_box() == below
        page.fill("#stream-id", "")
        page.press("#stream-id", "Enter")
        wait_until(page, "document.getElementById('hint').textContent.startsWith('Type an id')")
        assert page.url.endswith(f":{stage.relay.port}/")


@pytest.mark.parametrize("path", ["/", "/share", "/watch/demo"])
def test_without_javascript(stage: Stage, path: str) -> None:
    """A page says what it needs, and shows nothing that does not work."""
    with stage.open(path, java_script_enabled=False) as page:
        assert "JavaScript" in page.inner_text("noscript")
        for part in page.locator("section, form, button").all():
            assert not part.is_visible()


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
