"""Every state of the pages, each as a scene: a context manager that gives the page in it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from browser import UNREACHABLE, open_page, wait_for_state, wait_until
from harness import RelayProcess, send

from relayd.ctl import pattern

FLAGS = (
    "--use-fake-device-for-media-stream=fps=30",
    "--host-resolver-rules=MAP relay.test 127.0.0.1",
)

SIZES = {"wide": (1280, 800), "phone": (360, 740)}

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
        """Open a page of the relay, which may have the camera unless `permissions` says else."""
        width, height = SIZES["wide"]
        options.setdefault("viewport", {"width": width, "height": height})
        options.setdefault("permissions", ["camera"])
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
        wait_until(page, "document.getElementById('stream-id').ariaInvalid")
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
        with stage.relay.view(stream_id, max_queue=None):
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
def share_denied(stage: Stage) -> Iterator[Any]:
    """A camera that the page may not have."""
    with stage.open("/share", permissions=[]) as page:
        page.click("#camera")
        wait_for_share(page, "stopped")
        yield page


@contextmanager
def share_taken(stage: Stage) -> Iterator[Any]:
    """An id that another stream has."""
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
    share_denied,
    share_taken,
    share_insecure,
]
