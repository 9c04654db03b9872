"""The cap on what one streamer may push: TCP slows it down, and nobody else."""

import select
import socket
import threading
import time
from collections.abc import Callable

from harness import PATIENCE, RelayProcess
from hostile import BINARY, LOOPS, PING, PONG, SteadyStream, frame
from rawclient import RawClient

StartRelay = Callable[..., RelayProcess]

RATE = 10**6
"""Bytes a second that MAX_STREAM_BITRATE=8Mbit allows."""

BURST = RATE + 256 * 1024
"""Bytes that may come at once: a second of the rate, and what one read brings beyond it."""

SIZE = 20_000

SECONDS = 2.3
"""How long a streamer is watched; it is held when the burst of one second is over."""

FPS = 30
"""Frames a second of a phone."""


def numbered(number: int) -> bytes:
    """Return a frame that holds its number."""
    return number.to_bytes(4) * (SIZE // 4)


class Flood:
    """Pushes numbered frames as fast as the relay takes them, and answers its pings.

    Attributes:
        sent: How many frames it has begun to send.
        pongs: How many pings it has answered.
    """

    def __init__(self, client: RawClient) -> None:
        self.sent = 0
        self.pongs = 0
        self._client = client
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._push(self._client.socket)
        except Exception as exc:
            self._error = exc

    def _push(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        answers, out = bytearray(), memoryview(b"")
        while out or not self._stopping.is_set():
            readable, writable, _ = select.select([sock], [sock], [], PATIENCE)
            if readable:
                answers += self._answer(sock.recv(1000))
            if writable:
                if answers and not out:
                    out, answers = memoryview(bytes(answers)), bytearray()
                elif not out:
                    out = memoryview(frame(BINARY, numbered(self.sent)))
                    self.sent += 1
                out = out[sock.send(out) :]
        sock.settimeout(PATIENCE)

    def _answer(self, pings: bytes) -> bytes:
        """Return the pongs for pings, which are small and so come whole."""
        assert pings, "the relay has closed the connection"
        pongs = b""
        while pings:
            assert pings[0] == 0x80 | PING, pings
            end = 2 + pings[1]
            pongs += frame(PONG, pings[2:end])
            pings = pings[end:]
            self.pongs += 1
        return pongs

    def go_on(self, seconds: float) -> None:
        """Push for so long, then no more; raise what went wrong."""
        self._thread.join(seconds)
        self.stop()

    def stop(self) -> None:
        """Send the current frame to its end and nothing more; raise what went wrong."""
        self._stopping.set()
        self._thread.join(PATIENCE)
        assert self._error is None, repr(self._error)
        assert not self._thread.is_alive()


class Neighbour(SteadyStream):
    """A stream in lock step that stays far below the cap."""

    SIZES = (4, 2_000, 500)


@LOOPS
def test_held(start_relay: StartRelay, loop: str) -> None:
    """A streamer that pushes too much is held to the rate and loses nothing; no other is slowed."""
    relay = start_relay("--max-stream-bitrate", "8Mbit", loop=loop)
    with (
        relay.stream("neighbour") as (streamer, _),
        relay.view("neighbour") as neighbour_viewer,
        RawClient.streamer(relay, "held") as held,
        RawClient.viewer(relay, "held") as viewer,
    ):
        # What it holds must come through at the end.
        held.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**17)
        neighbour = Neighbour(relay, streamer, neighbour_viewer)
        flood = Flood(held)
        began = now = time.monotonic()
        arrivals: list[float] = []
        while now - began < SECONDS:
            assert viewer.receive() == numbered(len(arrivals))
            now = time.monotonic()
            arrivals.append(now - began)
        flood.stop()
        neighbour.stop()
        neighbour.flow(0)
        held.send(1000)
        rest = viewer.receive_until(1000)[:-2]
        assert rest == [numbered(n) for n in range(len(arrivals), flood.sent)]
        for n, seconds in enumerate(arrivals):
            assert n * SIZE < BURST + 1.1 * RATE * seconds
        assert len(arrivals) * SIZE > 0.85 * RATE * SECONDS
        assert neighbour.frames > FPS * SECONDS
        assert neighbour.worst < 0.5


def test_not_taken_for_dead(start_relay: StartRelay) -> None:
    """A streamer that is held is not taken for dead, though its pongs wait behind its frames."""
    settings = {"MAX_STREAM_BITRATE": "8Mbit", "PING_INTERVAL": "500ms", "PING_TIMEOUT": "1s"}
    relay = start_relay(env=settings)
    with RawClient.streamer(relay, "held") as held:
        flood = Flood(held)
        flood.go_on(2.2)
        assert flood.pongs > 0
        held.reset()
    relay.log.wait_for("streamer held .*: lost after")


def test_burst(start_relay: StartRelay) -> None:
    """A large keyframe of a streamer below the cap is not held up."""
    relay = start_relay("--max-stream-bitrate", "8Mbit")
    keyframe = bytes(RATE * 9 // 10)
    with relay.stream("bursts") as (streamer, _), relay.view("bursts") as viewer:
        began = time.monotonic()
        streamer.send(keyframe)
        assert viewer.recv() == keyframe
        assert time.monotonic() - began < 0.5


def test_no_cap(relay: RelayProcess) -> None:
    """Without the setting, a streamer pushes what the network takes."""
    frames, payload = 200, bytes(10 * SIZE)
    with relay.stream("free") as (streamer, _), RawClient.viewer(relay, "free") as viewer:
        began = time.monotonic()
        for _ in range(frames):
            streamer.send(payload)
            assert viewer.receive() == payload
        assert frames * len(payload) / (time.monotonic() - began) > 10 * RATE
