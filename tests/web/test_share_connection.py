"""The share page: connections lost and made, how a stream ends, and what the page says of it."""

import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from browser import UNREACHABLE, wait_until
from harness import RelayProcess, receive
from sharing import OpenShare, next_text, take, watch

FOCUSED = "document.activeElement.id"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "restarted"])
def test_the_link_outlives_the_relay(
    start_relay: Callable[..., RelayProcess], open_share: OpenShare, number: signal.Signals
) -> None:
    """When the relay is killed, or restarts, the stream begins anew under the same id."""
    relay = start_relay("--drain-timeout", "0")
    share = open_share(relay, expected=UNREACHABLE)
    share.start()
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        relay.signal(number)
        relay.wait()
    share.wait_for_words("Trying to reach the server")
    relay = start_relay("--port", str(relay.port))
    relay.log.wait_for(f"streamer {share.id} .*registered")
    with watch(relay, share.id) as (viewer, _):
        frames = take(viewer, 10)
        share.wait_for_words("Live")
    assert frames[0].is_key


def test_a_stuck_connection_is_resumed(relay: RelayProcess, open_share: OpenShare) -> None:
    """A connection that takes nothing any more is given up for another one; viewers stay."""
    stuck = """
        Object.defineProperty(WebSocket.prototype, "bufferedAmount", {
          get: () => window.backlog ?? 0,
        });
    """
    share = open_share(relay, stuck)
    share.start()
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        share.page.evaluate("window.backlog = 2e6")
        relay.log.wait_for(f"streamer {share.id} .*resumed")
        share.page.evaluate("window.backlog = 0")
        assert "stream_paused" in next_text(viewer)
        assert receive(viewer)["type"] == "stream_resumed"
        (frame,) = take(viewer, 1)
        assert frame.is_key


def test_stop(relay: RelayProcess, open_share: OpenShare) -> None:
    """After a press on Stop viewers are told that the stream has ended, and nothing is captured."""
    share = open_share(relay)
    share.start()
    wait_until(share.page, f"{FOCUSED} === 'stop'")
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        share.page.keyboard.press("Enter")
        assert "stream_ended" in next_text(viewer)
    share.wait_for_words("Stopped")
    assert share.page.evaluate(FOCUSED) == "screen"
    assert share.page.evaluate("document.querySelector('video').srcObject") is None
    share.start()
    share.wait_for_words("Live")


def test_the_browser_ends_the_capture(relay: RelayProcess, open_share: OpenShare) -> None:
    """When the browser ends the capture, the stream ends, and the page says why."""
    share = open_share(relay)
    share.start()
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        share.source.close()
        assert "stream_ended" in next_text(viewer)
    share.wait_for_words("The browser ended the capture.")


def test_the_page_is_closed(relay: RelayProcess, open_share: OpenShare) -> None:
    """Who closes the page while it shares is warned; if it is closed, the stream ends at once."""
    share = open_share(relay)
    share.start()
    kinds = []

    def leave(dialog: Any) -> None:
        kinds.append(dialog.type)
        dialog.accept()

    share.page.on("dialog", leave)
    with watch(relay, share.id) as (viewer, _):
        take(viewer, 5)
        with share.page.expect_event("close"):
            share.page.close(run_before_unload=True)
        assert "stream_ended" in next_text(viewer)
    assert kinds == ["beforeunload"]


def test_the_link_is_copied(relay: RelayProcess, open_share: OpenShare) -> None:
    """The link of an id of one's own goes to the clipboard, and the page says so."""
    share = open_share(relay, permissions=("clipboard-read", "clipboard-write"))
    share.page.fill("#stream-id", "my_own-id")
    share.start()
    share.press("Copy")
    wait_until(share.page, "document.getElementById('copied').textContent.startsWith('Copied')")
    link = f"http://127.0.0.1:{relay.port}/watch/my_own-id"
    assert share.page.evaluate("navigator.clipboard.readText()") == link
    opened = share.page.get_by_role("link", name="Open")
    assert opened.get_attribute("href") == link
    assert (opened.get_attribute("target"), opened.get_attribute("rel")) == ("_blank", "noopener")


def test_an_id_that_cannot_be_one(relay: RelayProcess, open_share: OpenShare) -> None:
    """An id with other characters is not accepted, and nothing is captured."""
    share = open_share(relay)
    share.page.fill("#stream-id", "no spaces")
    share.press("This screen")
    assert share.page.evaluate(FOCUSED) == "stream-id"
    assert not share.page.locator("#stream-id").evaluate("field => field.validity.valid")
    share.wait_for_words("Not sharing")


def test_refusals(start_relay: Callable[..., RelayProcess], open_share: OpenShare) -> None:
    """What the server refuses is said in words, with what to do."""
    relay = start_relay("--max-streams", "1")
    share = open_share(relay)
    with relay.stream("mine"):
        share.page.fill("#stream-id", "mine")
        share.press("This screen")
        share.wait_for_words("This id is in use.")
        share.page.fill("#stream-id", "")
        share.press("This screen")
        share.wait_for_words("no place for another stream")
    relay.log.wait_for("streamer mine .*left")
    share.start()
    share.wait_for_words("Live")


def test_a_frame_that_is_too_large(
    start_relay: Callable[..., RelayProcess], open_share: OpenShare
) -> None:
    """Where the server takes no frames of this size, the page says so, and stops."""
    relay = start_relay("--max-frame-size", "16KiB")
    only_jpeg = "VideoEncoder.isConfigSupported = async () => ({ supported: false });"
    share = open_share(relay, only_jpeg, size=(1280, 720))
    share.start()
    with watch(relay, share.id):
        share.wait_for_words("A picture was larger than the server takes.")


def test_a_stream_that_is_kicked(
    start_relay: Callable[..., RelayProcess], open_share: OpenShare
) -> None:
    """A stream that the operator ends does not begin again by itself."""
    relay = start_relay("--admin-port", "0")
    share = open_share(relay)
    share.start()
    relay.operate("DELETE", f"/streams/{share.id}")
    share.wait_for_words("The server's operator has ended the stream.")
    assert relay.health()["streams"] == 0


def test_a_stream_that_is_taken_over(relay: RelayProcess, open_share: OpenShare) -> None:
    """When another connection has resumed the stream, the page stops and says so."""
    share = open_share(relay)
    tokens: list[str] = []

    def listen(payload: str | bytes) -> None:
        tokens.extend(re.findall(r'"resume_token": ?"([^"]+)"', str(payload)))

    share.page.on("websocket", lambda socket: socket.on("framereceived", listen))
    share.start()
    with relay.register(share.id, features=["resume"], resume_token=tokens[0]) as (_, reply):
        assert reply["resumed"]
        share.wait_for_words("Another connection has taken the stream over.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("NotFoundError", "No camera was found."),
        ("NotReadableError", "Close the programs that use it"),
        ("AbortError", "It could not be captured"),
    ],
)
def test_a_camera_that_cannot_be_had(
    relay: RelayProcess, open_share: OpenShare, error: str, words: str
) -> None:
    """When there is no camera to be had, the page says why, and what to do."""
    refuse = f"async () => {{ throw new DOMException('no', '{error}'); }}"
    share = open_share(relay, f"MediaDevices.prototype.getUserMedia = {refuse};")
    share.press("A camera")
    share.wait_for_words(words)


def test_a_camera_that_is_not_allowed(relay: RelayProcess, open_share: OpenShare) -> None:
    """When the camera is blocked, the page says where to allow it."""
    share = open_share(relay, permissions=())
    share.press("A camera")
    share.wait_for_words("The camera is blocked. Allow it")


def test_a_browser_that_shares_no_screens(relay: RelayProcess, open_share: OpenShare) -> None:
    """Where screens can't be shared, as on a phone, the camera can."""
    share = open_share(relay, "delete MediaDevices.prototype.getDisplayMedia;")
    assert "can't share a screen" in share.page.inner_text("#hint")
    assert share.page.get_by_role("button", name="This screen").is_disabled()
    share.start("A camera")


def test_an_insecure_page(relay: RelayProcess, open_share: OpenShare) -> None:
    """On plain http under a name that is not localhost the page says what to do."""
    share = open_share(relay, host="relay.test", permissions=())
    share.wait_for_words("Open this page by https")
    for name in ("This screen", "A window", "A camera", "Stop"):
        assert share.page.get_by_role("button", name=name).is_disabled()
