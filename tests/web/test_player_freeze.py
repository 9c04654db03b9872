"""A page that was frozen shows what is now, not what was meanwhile, and without a reload."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from browser import wait_for_state
from clips import clip
from film import FPS, Picture
from harness import CHROMIUM_FLAGS, PATIENCE, RelayProcess, open_chromium, require_tool
from live import keep_time
from watching import check_drawn, drawn, push, recording, wait_for_picture, watch

BEGIN, FREEZE, AFTER, REST = 2 * FPS, 20 * FPS, 4 * FPS, 4 * FPS
"""The pictures that are sent before the freeze, meanwhile, afterwards, and when all is over."""

FRESH, SOON = 0.5, 1.5
"""The age of a picture, and the time until there is one; in seconds."""

LENGTH = BEGIN + FREEZE + AFTER + REST

ANSWER = BEGIN + FREEZE + FPS
"""The picture that is a keyframe if one has been asked for after the freeze."""

CLIPS = {
    "often": ("2 Mbit/s", FPS),
    "seldom": ("2 Mbit/s", LENGTH),
    "thin": ("baseline", LENGTH),  # so that the network keeps all that is sent meanwhile
}
"""The kinds of clips, and how many pictures go from keyframe to keyframe."""


class Streamer:
    """Streams a clip at its speed on a thread of its own; as a context manager.

    Args:
        relay: Where it is streamed to.
        stream_id: The stream's id.
        kind: The clip's kind.
        group: How many pictures go from keyframe to keyframe.
        start: When it is to begin.

    Attributes:
        sent: When each picture was sent, in seconds since the Unix epoch.
        requests: How many pictures had been sent at each request for a keyframe.
    """

    def __init__(
        self,
        relay: RelayProcess,
        stream_id: str,
        kind: str,
        group: int,
        start: threading.Event,
    ) -> None:
        self.sent: list[float] = []
        self.requests: list[int] = []
        self._relay = relay
        self._stream_id = stream_id
        self._pictures = clip(kind, LENGTH, group=group)
        self._answer = clip(kind, LENGTH - ANSWER, first=ANSWER, group=group)
        self._start = start
        self._changed = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Streamer":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over = True
        self._start.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many pictures have been sent."""
        with self._changed:
            patience = PATIENCE + count / FPS
            assert self._changed.wait_for(lambda: len(self.sent) >= count, patience)

    def _run(self) -> None:
        with self._relay.register(self._stream_id, features=["keyframe_requests"]) as (client, _):
            self._start.wait()
            keep_time(FPS, self._ticks(client))

    def _ticks(self, client: Any) -> Iterator[Callable[[], None]]:
        pictures = self._pictures
        for number in range(LENGTH):
            if self._is_over:
                break
            if number == ANSWER and max(self.requests, default=0) >= BEGIN + FREEZE:
                pictures = [*pictures[:ANSWER], *self._answer]
            yield partial(self._send, client, pictures[number])

    def _send(self, client: Any, picture: Picture) -> None:
        with suppress(TimeoutError):
            assert json.loads(client.recv(0)) == {"type": "keyframe_request"}
            self.requests.append(len(self.sent))
        with self._changed:
            self.sent.append(time.time())
            push(client, [picture])
            self._changed.notify_all()


@contextmanager
def stopped(browser: Any) -> Iterator[None]:
    """Stop the processes that run a browser's pages."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [process["id"] for process in processes if process["type"] == "renderer"]
    for pid in renderers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in renderers:
            os.kill(pid, signal.SIGCONT)


def keep_busy(page: Any, seconds: float) -> None:
    """Let the page's thread do something else, beginning soon."""
    page.evaluate(
        """(ms) => {
          setTimeout(() => {
            const end = performance.now() + ms;
            while (performance.now() < end) {
              // nothing
            }
          });
        }""",
        seconds * 1000,
    )


def check_fresh(page: Any, sent: list[float], since: float) -> None:
    """Check that a player showed what was now soon after a moment, and went on so."""
    shown = [(draw.at - since, draw.at - sent[draw.number]) for draw in drawn(page)]
    assert max((at for at, age in shown if age > FRESH), default=0) < SOON, shown
    assert len([at for at, age in shown if at > SOON]) > FPS, shown
    check_drawn(page)


@pytest.mark.alone
def test_freeze() -> None:
    """After a freeze of 20 s a page soon shows a picture that is less than half a second old."""
    start = threading.Event()
    with ExitStack() as stack:
        # So that it always lets a frozen page go: by default that may take 18.75 s.
        relay = stack.enter_context(RelayProcess("--stall-timeout", "10s"))
        browser = stack.enter_context(open_chromium())
        second = browser.browser_type.launch(
            executable_path=require_tool("chromium"), args=CHROMIUM_FLAGS
        )
        stack.enter_context(second)
        streamers = {
            name: stack.enter_context(Streamer(relay, name, kind, group, start))
            for name, (kind, group) in CLIPS.items()
        }
        still, _ = stack.enter_context(relay.stream("still"))

        def open_player(browser: Any, name: str) -> Any:
            context = stack.enter_context(recording(browser))
            page = stack.enter_context(watch(context, relay, name))
            wait_for_state(page, "waiting")
            return page

        pages = {name: open_player(browser, name) for name in [*CLIPS, "still"]}
        busy = open_player(second, "often")
        often = streamers["often"]

        push(still, clip("high", 1))
        start.set()
        often.wait_for(BEGIN)
        for page in (*pages.values(), busy):
            wait_for_state(page, "playing")
        keep_busy(busy, FREEZE / FPS)
        with stopped(browser):
            often.wait_for(BEGIN + FREEZE // 2)
            push(still, clip("high", 1, first=1))
            often.wait_for(BEGIN + FREEZE)
        thawed = time.time()
        often.wait_for(BEGIN + FREEZE + AFTER)

        for page in (*pages.values(), busy):
            assert wait_for_state(page, "playing") == "Live."
            assert drawn(page)[0].number == 0  # it was not loaded anew
        check_fresh(pages["often"], often.sent, thawed)
        check_fresh(busy, often.sent, thawed)
        check_fresh(pages["thin"], streamers["thin"].sent, thawed)
        seldom = streamers["seldom"].sent
        check_fresh(pages["seldom"], seldom, max(thawed, seldom[ANSWER]))
        wait_for_picture(pages["still"], 1)
        assert drawn(pages["still"])[-1].at < thawed + SOON


@pytest.mark.alone
@pytest.mark.parametrize("group", [10, 300])
def test_catching_up(relay: RelayProcess, stream_id: str, group: int) -> None:
    """Of many frames at once those before the last keyframes are not decoded, and few are drawn."""
    with (
        open_chromium() as browser,
        recording(browser) as context,
        relay.stream(stream_id) as (streamer, _),
        watch(context, relay, stream_id) as page,
    ):
        wait_for_state(page, "waiting")
        keep_busy(page, 1)
        push(streamer, clip("baseline", 300, group=group))
        wait_for_picture(page, 299)
        check_drawn(page)
        decoded = page.evaluate("recorder.count.frames")
        assert decoded == 300 if group == 300 else decoded < 100
        assert len(drawn(page)) < 30
