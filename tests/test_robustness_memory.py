"""Viewers that never read and streamers that vanish: what they cost, and that it comes back."""

import time
from collections.abc import Callable

from harness import RelayProcess
from hostile import (
    BINARY,
    LOOPS,
    MB,
    ON_LINUX,
    REGISTER,
    SUBSCRIBE,
    dial_websocket,
    eventually,
    frame,
    steady_stream,
)

from relayd.config import Config

StartRelay = Callable[..., RelayProcess]

VIEWER_BUFFER = Config().viewer_buffer

FRAME = 100_000

DROPPED = "warning stream busy: dropped .* frames of slow viewers"


@LOOPS
@ON_LINUX
def test_never_reads(start_relay: StartRelay, loop: str) -> None:
    """A viewer that never reads costs VIEWER_BUFFER; it comes back, and the others get all."""
    relay = start_relay(loop=loop)
    with (
        steady_stream(relay),
        relay.stream("busy") as (streamer, _),
        relay.view("busy") as viewer,
    ):

        def push(count: int) -> int:
            """Push frames in lock step; return how much memory the relay has then."""
            for number in range(count):
                video = number.to_bytes(4) * (FRAME // 4)
                streamer.send(video)
                assert viewer.recv() == video
            return relay.memory()

        before = most = push(100)
        began = time.monotonic()
        with dial_websocket(relay, "/ws/view/busy", SUBSCRIBE):
            pushed = 0
            while pushed < 300 * MB or len(relay.log.matching(DROPPED)) < 2:
                most = max(most, push(100))
                pushed += 100 * FRAME
        relay.log.wait_for("viewer busy .*: lost after .*: [0-9]+ frames, [0-9]+ dropped")
        warnings, elapsed = len(relay.log.matching(DROPPED)), time.monotonic() - began
        after = push(100)
    assert warnings <= elapsed + 1
    assert most - before < VIEWER_BUFFER + 20 * MB
    assert after - before < 10 * MB


@LOOPS
@ON_LINUX
def test_lost_streamers(start_relay: StartRelay, loop: str) -> None:
    """What a streamer sent last does not outlive it, when it is lost without a close frame."""
    relay = start_relay(loop=loop)
    large = frame(BINARY, bytes(2 * MB))
    with steady_stream(relay):
        before = relay.memory()
        for _ in range(50):
            with dial_websocket(relay, "/ws/stream", REGISTER % "lost") as streamer:
                streamer.sendall(large)
            eventually(relay, lambda: relay.health()["streams"] == 1)
        assert relay.memory() - before < 24 * MB


@LOOPS
def test_never_reads_the_end(start_relay: StartRelay, loop: str) -> None:
    """A viewer that never reads to the end of a stream keeps neither its id nor its place."""
    relay = start_relay("--ping-interval", "200ms", "--ping-timeout", "300ms", loop=loop)
    with steady_stream(relay):
        with relay.stream("busy") as (streamer, _):
            viewer = dial_websocket(relay, "/ws/view/busy", SUBSCRIBE)
            for _ in range(150):
                streamer.send(bytes(FRAME))
            relay.log.wait_for(DROPPED)
        with viewer, relay.stream("busy"):
            assert relay.health() == {"status": "ok", "streams": 2, "viewers": 1}
            began = time.monotonic()
            relay.log.wait_for("viewer busy .*: closed: 1011 .* keepalive ping timeout after ")
            assert time.monotonic() - began < 5
