"""What `<relayd-player>` makes of what nobody should send: it never shows a torn picture."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Queue
from threading import Thread
from typing import Any

import pytest
from browser import open_page, serve_html, wait_for_state, wait_until
from clips import clip, formats, merged
from film import Message, Picture
from harness import PATIENCE, RelayProcess, open_chromium, receive, send
from live import keep_time
from watching import (
    PLAYER,
    check_drawn,
    numbers,
    push,
    recording,
    told,
    wait_for_picture,
    watch,
)
from websockets.sync.server import ServerConnection, serve

FPS = 100

STARTS = {
    "baseline": [b"\x00\x00\x00\x01", b"\x00\x00\x01\x65", b"\x00\x00\x01\x41", b"\x89PNG"],
    "vp8": [b"\x30\x03\x00\x9d\x01\x2a\x40\x01\xc0\x00", b"\x31\x03\x00"],
    "jpeg": [b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"\x00\x00\x00\x01"],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for the tests of this module, as a context that takes notes."""
    with open_chromium() as browser, recording(browser) as context:
        yield context


def garbage(kind: str) -> list[bytes]:
    """Return messages that are no pictures of this kind, or only the first half of one."""
    noise = random.Random(kind).randbytes(400)
    key, delta = (picture[-1].data for picture in clip(kind, 2))
    halves = [key[: len(key) // 2], delta[: len(delta) // 2]]
    return [b"", b"\x00", noise, *halves, *(start + noise for start in STARTS[kind])]


@contextmanager
def page_of(
    browser: Any, relay: RelayProcess, admit: Callable[[ServerConnection], None]
) -> Iterator[Any]:
    """Open a page whose player gets what the test wants; the relay only serves the module."""
    with serve(admit, "127.0.0.1", 0, compression=None) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.socket.getsockname()[1]}"
        module = f"127.0.0.1:{relay.port}"
        html = f"""<!doctype html><script type="module" src="http://{module}/player.js"></script>
            <relayd-player autoplay src="ws://{host}/ws/view/x"></relayd-player>"""
        with serve_html(html) as url, open_page(browser, url, hosts=[host, module]) as page:
            yield page


@contextmanager
def pretended_relay(browser: Any, relay: RelayProcess) -> Iterator[tuple[Any, ServerConnection]]:
    """Give a page with a player, and its connection to a relay that says what the test wants."""
    viewers: Queue[ServerConnection] = Queue()

    def admit(viewer: ServerConnection) -> None:
        assert receive(viewer)["type"] == "subscribe"
        send(viewer, type="subscribed", stream_id="x", features=["gaps", "status"])
        viewers.put(viewer)
        for _ in viewer:
            pass

    with page_of(browser, relay, admit) as page:
        yield page, viewers.get(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["baseline", "vp8", "jpeg"])
def test_garbage(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """After garbage of any sort the picture is back with the next keyframe, and never torn."""
    sorts = garbage(kind)
    pictures = clip(kind, 20 * len(sorts))  # in groups of 10
    lost: set[int] = set()
    with (
        relay.register(stream_id, format=formats(kind)) as (streamer, _),
        watch(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        streamer.send("noise")
        for first, data in zip(range(0, len(pictures), 20), sorts, strict=True):
            part = pictures[first : first + 20]
            part[5] = [Message("", data)]
            lost |= set(range(first + 5, first + (10 if data and kind != "jpeg" else 6)))
            keep_time(FPS, [partial(push, streamer, [picture]) for picture in part])
            wait_for_picture(page, first + 19)
        assert not lost & set(numbers(page))
        check_drawn(page)
        assert told(page) == ["connecting", "waiting", "playing"]


@pytest.mark.parametrize("kind", ["baseline", "vp8", "jpeg"])
def test_nothing_but_garbage(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """When garbage goes on and on, the words say that the player waits for a picture."""
    noise = [Message("", b"\x00" + random.Random(kind).randbytes(400))]
    with (
        relay.register(stream_id, format=formats(kind)) as (streamer, _),
        watch(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip(kind))
        wait_for_picture(page, 29)
        keep_time(10, [partial(push, streamer, [noise])] * 28)
        assert wait_for_state(page, "waiting").startswith("Waiting for the stream. ")
        wait_for_picture(page, 29)
        push(streamer, clip(kind, first=40))
        wait_for_picture(page, 69)
        assert wait_for_state(page, "playing") == "Live."
        check_drawn(page)


@pytest.mark.parametrize("kind", ["baseline", "slices", "vp8", "vp9", "av1"])
def test_gap(browser: Any, relay: RelayProcess, kind: str) -> None:
    """Where the relay left out frames, nothing is drawn before the next keyframe."""
    pictures = merged(clip(kind))
    with pretended_relay(browser, relay) as (page, viewer):
        push_frames(viewer, pictures[:12])
        wait_for_picture(page, 11)
        send(viewer, type="gap", frames=3)
        push_frames(viewer, pictures[15:20])
        wait_until(page, f"{PLAYER}.statistics.gaps === 3")
        push_frames(viewer, pictures[20:22])
        wait_for_picture(page, 21)
        push_frames(viewer, pictures[22:])
        wait_for_picture(page, 29)
        assert not set(numbers(page)) & set(range(12, 20))
        check_drawn(page)
        assert told(page) == ["connecting", "waiting", "playing"]


@pytest.mark.parametrize("kind", ["baseline", "vp8"])
def test_resumed_amid_a_group(browser: Any, relay: RelayProcess, kind: str) -> None:
    """Of a streamer that comes back nothing is drawn before its next keyframe."""
    pictures = merged(clip(kind))
    with pretended_relay(browser, relay) as (page, viewer):
        push_frames(viewer, pictures[:12])
        wait_for_picture(page, 11)
        send(viewer, type="stream_paused")
        wait_for_state(page, "paused")
        send(viewer, type="stream_resumed")
        push_frames(viewer, pictures[15:20])
        assert wait_for_state(page, "waiting").startswith("Waiting for the stream. ")
        push_frames(viewer, pictures[20:])
        wait_for_picture(page, 29)
        assert not set(numbers(page)) & set(range(12, 20))
        check_drawn(page)
        life = ["waiting", "playing"]
        assert told(page) == ["connecting", *life, "paused", *life]


def test_strange_texts(browser: Any, relay: RelayProcess) -> None:
    """Text that a player does not understand changes nothing."""
    with pretended_relay(browser, relay) as (page, viewer):
        push_frames(viewer, clip("jpeg", 5))
        wait_for_picture(page, 4)
        for text in ["", "noise", "null", "[]", "7", "{}", '{"type": "later"}', '{"type": null}']:
            viewer.send(text)
        push_frames(viewer, clip("jpeg", 5, first=5))
        wait_for_picture(page, 9)
        assert told(page) == ["connecting", "waiting", "playing"]


def push_frames(viewer: ServerConnection, pictures: list[Picture]) -> None:
    """Send pictures as a relay does."""
    for picture in pictures:
        for message in picture:
            viewer.send(message.data)


def test_restarts_without_end(browser: Any, relay: RelayProcess) -> None:
    """A server that says for ever that it restarts is not asked more often than others."""
    with page_of(browser, relay, lambda viewer: viewer.close(1012)) as page:
        wait_until(page, "recorder.sockets.length === 4")
        first, *_, last = page.evaluate("recorder.sockets")
        assert last["asked"] - first["closed"] > (250 + 500 + 1000) / 2
        assert wait_for_state(page, "reconnecting")
