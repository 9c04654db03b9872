"""How `<relayd-player>` comes back: its state, its words and its picture, without a reload."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from browser import UNREACHABLE, open_page, serve_html, wait_for_state, wait_until
from clips import clip, formats
from film import Message
from harness import RelayProcess, open_chromium
from watching import lose, numbers, push, recording, told, wait_for_picture, watch

StartRelay = Callable[..., RelayProcess]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for the tests of this module, as a context that takes notes."""
    with (
        open_chromium("--host-resolver-rules=MAP relay.test 127.0.0.1") as browser,
        recording(browser) as context,
    ):
        yield context


def steps(page: Any) -> list[str]:
    """Return the states that a player has told of; between two lives the stream may be missing."""
    return [state for state in told(page) if state != "not-found"]


@pytest.mark.parametrize("kind", ["high", "jpeg"])
def test_killed_relay(browser: Any, start_relay: StartRelay, stream_id: str, kind: str) -> None:
    """When the relay dies and comes back, so does the picture; the last one stays meanwhile."""
    relay = start_relay()
    with (
        relay.stream(stream_id) as (streamer, _),
        watch(browser, relay, stream_id, expected=UNREACHABLE) as page,
    ):
        assert wait_for_state(page, "waiting").startswith("Waiting for the stream. ")
        push(streamer, clip(kind, 10))
        wait_for_picture(page, 9)
        assert wait_for_state(page, "playing") == "Live."
        relay.signal(signal.SIGKILL)
        words = wait_for_state(page, "reconnecting")
        assert words == "Connection lost. Trying to reach the server again."
        wait_for_picture(page, 9)
        relay.wait()
        restarted = start_relay("--port", str(relay.port))
        with restarted.stream(stream_id) as (again, _):
            wait_for_state(page, "waiting")
            wait_for_picture(page, 9)
            push(again, clip(kind, 10, first=20))
            wait_for_picture(page, 29)
            wait_for_state(page, "playing")
            life = ["waiting", "playing"]
            assert steps(page) == ["connecting", *life, "reconnecting", *life]


def test_unreachable_relay(
    browser: Any, relay: RelayProcess, start_relay: StartRelay, stream_id: str
) -> None:
    """A relay that is not there yet is tried again and again until it is."""
    late = start_relay()
    late.signal(signal.SIGKILL)
    late.wait()
    html = f"""<!doctype html><script type="module" src="http://127.0.0.1:{relay.port}/player.js">
        </script><relayd-player autoplay src="{late.url}/ws/view/{stream_id}"></relayd-player>"""
    hosts = [f"127.0.0.1:{port}" for port in (relay.port, late.port)]
    with (
        serve_html(html) as url,
        open_page(browser, url, hosts=hosts, expected=UNREACHABLE) as page,
    ):
        words = wait_for_state(page, "reconnecting")
        assert words == "Connection lost. Trying to reach the server again."
        wait_until(page, "recorder.sockets.length === 3")
        assert told(page) == ["connecting", "reconnecting"]
        there = start_relay("--port", str(late.port))
        with there.stream(stream_id) as (streamer, _):
            wait_for_state(page, "waiting")
            push(streamer, clip("high", 10))
            wait_for_picture(page, 9)
            assert wait_for_state(page, "playing") == "Live."
            assert steps(page) == ["connecting", "reconnecting", "waiting", "playing"]


@pytest.mark.alone
def test_stopped_relay(browser: Any, start_relay: StartRelay, stream_id: str) -> None:
    """When the relay is restarted, the player tries again at once."""
    relay = start_relay()
    with (
        relay.stream(stream_id) as (streamer, _),
        watch(browser, relay, stream_id, expected=UNREACHABLE) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip("baseline", 10))
        wait_for_picture(page, 9)
        relay.signal(signal.SIGTERM)
        relay.wait()
        wait_for_state(page, "reconnecting")
        restarted = start_relay("--port", str(relay.port))
        with restarted.stream(stream_id) as (again, _):
            wait_for_state(page, "waiting")
            push(again, clip("baseline", 10, first=20))
            wait_for_picture(page, 29)
            wait_for_state(page, "playing")
        first, second, *_ = page.evaluate("recorder.sockets")
        assert first["code"] == 1012
        assert second["asked"] - first["closed"] < 100


@pytest.mark.parametrize("kind", ["slices", "vp8", "rgba", "webp"])
def test_lost_streamer(browser: Any, relay: RelayProcess, stream_id: str, kind: str) -> None:
    """When the streamer is lost and comes back, so does the picture."""
    fields: dict[str, Any] = {"features": ["resume"], "format": formats(kind)}
    with (
        relay.register(stream_id, **fields) as (streamer, reply),
        watch(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, clip(kind, 10))
        wait_for_picture(page, 9)
        wait_for_state(page, "playing")
        lose(streamer)
        words = wait_for_state(page, "paused")
        assert words == (
            "Streamer lost. Its connection is gone. The picture goes on when it is back."
        )
        wait_for_picture(page, 9)
        with relay.register(stream_id, resume_token=reply["resume_token"], **fields) as (again, _):
            wait_for_state(page, "waiting")
            push(again, clip(kind, 10, first=20))
            wait_for_picture(page, 29)
            wait_for_state(page, "playing")
        wait_for_state(page, "ended")
        life = ["waiting", "playing"]
        assert told(page) == ["connecting", *life, "paused", *life, "ended"]


def test_streamer_that_stays_away(browser: Any, start_relay: StartRelay, stream_id: str) -> None:
    """A streamer that stays away ends its stream; when it begins anew, it is shown."""
    relay = start_relay("--resume-window", "300ms")
    with watch(browser, relay, stream_id) as page:
        words = wait_for_state(page, "not-found")
        assert words == (
            "Not found. No stream has this id now. It is shown as soon as there is one."
        )
        with relay.register(stream_id, features=["resume"]) as (streamer, _):
            wait_for_state(page, "waiting")
            push(streamer, clip("baseline", 10))
            wait_for_picture(page, 9)
            lose(streamer)
            wait_for_state(page, "paused")
        words = wait_for_state(page, "ended")
        assert words == "Ended. The stream is over. It is shown again if it starts anew."
        wait_for_picture(page, 9)
        relay.log.wait_for("refused: stream not found", 3)  # it has looked for it
        assert wait_for_state(page, "ended") == words
        with relay.stream(stream_id) as (streamer, _):
            push(streamer, clip("jpeg", 10, first=20))
            wait_for_picture(page, 29)
            wait_for_state(page, "playing")
        wait_for_state(page, "ended")
        life = ["waiting", "playing"]
        assert told(page) == ["connecting", "not-found", *life, "paused", "ended", *life, "ended"]


def test_too_many_viewers(browser: Any, start_relay: StartRelay, stream_id: str) -> None:
    """A viewer for whom there is no place gets the next one."""
    relay = start_relay("--max-viewers-per-stream", "1")
    with (
        relay.stream(stream_id) as (streamer, _),
        relay.view(stream_id) as viewer,
        watch(browser, relay, stream_id) as page,
    ):
        words = wait_for_state(page, "full")
        assert words == "Too many viewers. This stream has no place free. You get the next one."
        push(streamer, clip("high", 10))
        relay.log.wait_for("refused: too many viewers", 2)
        assert wait_for_state(page, "full") == words
        viewer.close()
        wait_for_picture(page, 9)
        wait_for_state(page, "playing")


def test_invalid_id(browser: Any, relay: RelayProcess) -> None:
    """An id that no stream can have is refused in the relay's words, once and for all."""
    with watch(browser, relay, "not%20an%20id") as page:
        assert wait_for_state(page, "refused") == "Refused. The server says: invalid stream id."
        assert told(page) == ["connecting", "refused"]
        assert page.get_by_role("button", name="Play", exact=True).is_visible()


def test_kicked(browser: Any, start_relay: StartRelay, stream_id: str) -> None:
    """A viewer that the operator lets go stays away, and says why, until somebody presses play."""
    relay = start_relay("--admin-port", "0")
    with (
        relay.stream(stream_id) as (streamer, _),
        watch(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        (stream,) = json.loads(relay.operate("GET", "/streams")[1])["streams"]
        (viewer,) = stream["viewers"]
        relay.operate("DELETE", f"/viewers/{viewer['id']}")
        assert wait_for_state(page, "refused") == "Refused. The server let this viewer go."
        page.get_by_role("button", name="Play", exact=True).click()
        wait_for_state(page, "waiting")
        push(streamer, clip("jpeg", 1))
        wait_for_picture(page, 0)


def test_insecure_context(browser: Any, relay: RelayProcess, stream_id: str) -> None:
    """Over http, images are shown; for what browsers decode only on https, the words say so."""
    with (
        relay.stream(stream_id) as (streamer, _),
        open_page(browser, f"http://relay.test:{relay.port}/watch/{stream_id}") as page,
    ):
        assert not page.evaluate("isSecureContext")
        wait_for_state(page, "waiting")
        push(streamer, clip("jpeg", 10))
        wait_for_picture(page, 9)
        wait_for_state(page, "playing")
        push(streamer, clip("high", 10))
        words = wait_for_state(page, "unsupported")
        assert words == (
            "Can't be shown here. Browsers decode H.264 only on https. "
            "Open this page by https or on localhost."
        )


def test_nothing_to_show(browser: Any, start_relay: StartRelay, stream_id: str) -> None:
    """A player that gets frames and can show none joins anew, so that a keyframe is asked for."""
    relay = start_relay("--group-buffer", "0")
    first, *others = clip("baseline", 200, group=200)
    second = clip("baseline", 1, first=300)
    with (
        relay.register(stream_id, features=["keyframe_requests"]) as (streamer, _),
        watch(browser, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        push(streamer, [first])
        wait_for_picture(page, 0)
        push(streamer, [[Message("", b"garbage")]])
        for picture in others:
            push(streamer, [picture])
            with suppress(TimeoutError):
                assert json.loads(streamer.recv(0.1)) == {"type": "keyframe_request"}
                break
        relay.log.wait_for(f"viewer {stream_id} .*: left")
        assert wait_for_state(page, "waiting").startswith("Waiting for the stream. ")
        push(streamer, second)
        wait_for_picture(page, 300)
        assert wait_for_state(page, "playing") == "Live."
        assert numbers(page) == [0, 300]
        assert told(page) == ["connecting", *2 * ["waiting", "playing"]]
