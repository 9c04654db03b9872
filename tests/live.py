"""The two ends of a live stream: a streamer that keeps time, a viewer that takes notes."""

import json
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from harness import PATIENCE, receive, send
from network import hurry
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

_STAMP = struct.Struct(">dI")
"""When a frame was sent (`time.monotonic()`, the same on every host), and its number."""


def stamped(number: int, size: int) -> bytes:
    """Return a frame that says when it was sent."""
    return _STAMP.pack(time.monotonic(), number).ljust(size, b"x")


@dataclass(frozen=True)
class Stamp:
    """What came of a stamped frame.

    Attributes:
        number: The frame's number.
        lag: Seconds between its sending and its arrival, as a whole.
    """

    number: int
    lag: float


class Watcher:
    """A viewer on a thread of its own that takes down what comes, and when.

    Args:
        client: An open connection to the viewers' endpoint.
        request: What `subscribe` holds beside its type.
        keep: Bytes of each frame to keep; None: all.

    Attributes:
        answer: The answer to `subscribe`.
        frames: The binary messages, each with the time of its arrival.
        texts: The text messages after the answer, each with the number of frames before it.
        asked: When it sent `subscribe`.
    """

    answer: dict[str, Any]
    asked: float

    def __init__(
        self, client: ClientConnection, *, keep: int | None = None, **request: Any
    ) -> None:
        self.frames: list[tuple[float, bytes]] = []
        self.texts: list[tuple[int, dict[str, Any]]] = []
        self._client = client
        self._keep = keep
        self._changed = threading.Condition()
        self._ended = False
        self._subscribed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(request,), daemon=True)
        self._thread.start()
        assert self._subscribed.wait(PATIENCE)

    @property
    def close_code(self) -> int | None:
        """How the server closed."""
        return self._client.close_code

    def stamps(self, before: float = float("inf")) -> list[Stamp]:
        """Read the stamps of the frames that arrived before this time."""
        unpacked = ((at, *_STAMP.unpack_from(frame)) for at, frame in list(self.frames))
        return [Stamp(number, at - sent) for at, sent, number in unpacked if at < before]

    def wait_until(self, condition: Callable[["Watcher"], bool]) -> None:
        """Wait until a condition on what has come holds; fail when the connection ends first."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or condition(self), PATIENCE)
        assert condition(self), f"{len(self.frames)} frames, {self.texts[-10:]}"

    def wait_for_frames(self, count: int) -> None:
        """Wait until this many frames have come."""
        self.wait_until(lambda watcher: len(watcher.frames) >= count)

    def wait_for_end(self) -> None:
        """Wait until the connection has ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self, request: dict[str, object]) -> None:
        hurry()
        self.asked = time.monotonic()
        send(self._client, type="subscribe", **request)
        self.answer = receive(self._client)
        self._subscribed.set()
        try:
            for message in self._client:
                self._take(time.monotonic(), message)
        except ConnectionClosed:
            pass
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, at: float, message: str | bytes) -> None:
        with self._changed:
            if isinstance(message, bytes):
                self.frames.append((at, message[: self._keep]))
            else:
                self.texts.append((len(self.frames), json.loads(message)))
            self._changed.notify_all()


def keep_time(fps: float, ticks: Iterable[Callable[[], None]]) -> None:
    """Do things at a steady rate."""
    began = time.monotonic()
    for number, tick in enumerate(ticks):
        time.sleep(max(0.0, began + number / fps - time.monotonic()))
        tick()
