"""Clients that are hostile or broken once they have a WebSocket, against the real process."""

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from harness import RelayProcess
from hostile import (
    BINARY,
    CLOSE,
    LOOPS,
    MB,
    ON_LINUX,
    PING,
    PONG,
    REGISTER,
    SUBSCRIBE,
    TEXT,
    close_code,
    dial_websocket,
    eventually,
    frame,
    read_close,
    rest,
    steady_stream,
    try_send,
)

from relayd.config import Config
from relayd.connection import UNSENT_LIMIT

StartRelay = Callable[..., RelayProcess]

CONT = 0

MAX_FRAME_SIZE = Config().max_frame_size

PROMPT = 5
"""Seconds within which something happens at once, rather than at the 10 s of CLOSE_TIMEOUT."""


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    """A relay on each event loop."""
    with RelayProcess(loop=request.param) as relay:
        yield relay


VIOLATIONS = {
    "unmasked frame": (b"\x82\x01x", 1002),
    "unknown opcode": (frame(3), 1002),
    "unknown control opcode": (frame(11), 1002),
    "RSV bits": (b"\xc2\x80" + bytes(4), 1002),
    "2^63 bytes": (b"\x82\xff\x80" + bytes(11), 1009),
    "2^63 - 1 bytes": (b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4), 1009),
    "ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "fragmented ping": (frame(PING, fin=False), 1002),
    "nothing to continue": (frame(CONT), 1002),
    "message within a message": (frame(BINARY, fin=False) + frame(BINARY), 1002),
    "close within a message": (frame(BINARY, fin=False) + frame(CLOSE), 1002),
    "close code 99": (frame(CLOSE, struct.pack("!H", 99)), 1002),
    "close code 1005": (frame(CLOSE, struct.pack("!H", 1005)), 1002),
    "close code of a byte": (frame(CLOSE, b"\x03"), 1002),
    "close reason not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text not UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "fragments not UTF-8": (frame(TEXT, b"\xe2", fin=False) + frame(CONT, b"\x28"), 1007),
    "two close frames": (frame(CLOSE, struct.pack("!H", 1000)) * 2, 1000),
    "text too big, then more": (
        frame(TEXT, bytes(10_000), fin=False) + frame(CONT, bytes(7_000)) + frame(TEXT, "hello"),
        1009,
    ),
    "5,000 fragments": (frame(BINARY, fin=False) + frame(CONT, fin=False) * 5_000, 1009),
}


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/ws/stream", None),
        ("/ws/stream", REGISTER % "hostile"),
        ("/ws/view/quiet", None),
        ("/ws/view/quiet", SUBSCRIBE),
    ],
    ids=["stranger", "streamer", "stranger-viewer", "viewer"],
)
def test_violations(relay: RelayProcess, path: str, first: str | None) -> None:
    """Who breaks the WebSocket protocol gets the close code that fits; what it held is free."""
    with steady_stream(relay), relay.stream("quiet"):
        for name, (data, code) in VIOLATIONS.items():
            with dial_websocket(relay, path, first) as client:
                client.sendall(data)
                assert close_code(rest(client)) == code, name
            began = time.monotonic()
            eventually(relay, lambda: relay.health()["streams"] == 2)
            eventually(relay, lambda: relay.health()["viewers"] == 1)
            assert time.monotonic() - began < PROMPT, name


def test_random_frames(relay: RelayProcess) -> None:
    """Random bytes instead of frames end the connection, or are waited out."""
    source = random.Random(6455)
    with steady_stream(relay), relay.stream("quiet"):
        for path, first in [
            ("/ws/stream", None),
            ("/ws/stream", REGISTER % "hostile"),
            ("/ws/view/quiet", SUBSCRIBE),
        ]:
            for _ in range(40):
                with dial_websocket(relay, path, first) as client:
                    # Half of them begin like a frame that is legal.
                    start = source.choice([b"", b"\x82\xfe"])
                    try_send(client, start + source.randbytes(source.randrange(2000)))
                    client.shutdown(socket.SHUT_WR)
                    assert close_code(rest(client)) in (None, 1002, 1007, 1009)
                eventually(relay, lambda: relay.health()["streams"] == 2)


@LOOPS
def test_slow_first_message(start_relay: StartRelay, loop: str) -> None:
    """A first message byte by byte is cut off at REGISTER_TIMEOUT."""
    relay = start_relay("--register-timeout", "300ms", loop=loop)
    with steady_stream(relay) as steady, dial_websocket(relay, "/ws/stream") as client:
        began = time.monotonic()
        for byte in frame(TEXT, REGISTER % "slow" + " " * 1000):
            client.sendall(bytes([byte]))
            steady.flow()
            if time.monotonic() - began > 0.5:
                break
        assert read_close(client) == 4408


def test_refused_with_more_waiting(relay: RelayProcess) -> None:
    """A client that was refused with frames still unread is not kept: its close frame is read."""
    with steady_stream(relay), dial_websocket(relay, "/ws/stream") as client:
        client.sendall(frame(TEXT, REGISTER % "steady") + frame(BINARY, "x") * 200)
        assert read_close(client) == 4409
        began = time.monotonic()
        client.sendall(frame(CLOSE, struct.pack("!H", 4409)))
        assert rest(client) == b""
        assert time.monotonic() - began < PROMPT


@LOOPS
def test_vanished(start_relay: StartRelay, loop: str) -> None:
    """A client that vanishes without a word is let go when it answers no ping; its id is free."""
    relay = start_relay("--ping-interval", "200ms", "--ping-timeout", "300ms", loop=loop)
    with (
        steady_stream(relay),
        relay.stream("busy") as (streamer, _),
        dial_websocket(relay, "/ws/stream", REGISTER % "gone"),
        dial_websocket(relay, "/ws/view/steady", SUBSCRIBE),
        dial_websocket(relay, "/ws/view/busy", SUBSCRIBE),
    ):
        began = time.monotonic()
        for _ in range(150):  # until the last one's kernel and buffer are full
            streamer.send(bytes(100_000))
        for who in ("streamer gone", "viewer steady", "viewer busy"):
            relay.log.wait_for(f"{who} .*: closed: 1011 .* keepalive ping timeout after ")
        assert time.monotonic() - began < PROMPT
        with relay.stream("gone"):
            assert relay.health() == {"status": "ok", "streams": 3, "viewers": 1}


@LOOPS
def test_half_closed(start_relay: StartRelay, loop: str) -> None:
    """A viewer that neither reads nor will ever write again is let go, also without pings."""
    relay = start_relay("--ping-interval", "0", loop=loop)
    with (
        steady_stream(relay),
        relay.stream("busy") as (streamer, _),
        dial_websocket(relay, "/ws/view/busy", SUBSCRIBE) as viewer,
    ):
        for _ in range(150):
            streamer.send(bytes(100_000))
        relay.log.wait_for("dropped .* frames of slow viewers")
        began = time.monotonic()
        viewer.shutdown(socket.SHUT_WR)
        relay.log.wait_for("viewer busy .*: lost after ")
        assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("size", [0, 125])
@ON_LINUX
def test_control_flood(relay: RelayProcess, opcode: int, size: int) -> None:
    """Pings without end, whose pongs are never read, cost the others nothing; nor do pongs."""
    stream_id = f"flood-{opcode}-{size}"
    burst = frame(opcode, bytes(size)) * (MB // (size + 6))
    with steady_stream(relay):
        before = most = relay.memory()
        with dial_websocket(relay, "/ws/stream", REGISTER % stream_id) as client:
            for _ in range(40):
                dropped = not try_send(client, burst)
                most = max(most, relay.memory())
                if dropped:
                    break
        relay.log.wait_for(f"streamer {stream_id} .* after ")
    assert most - before < MAX_FRAME_SIZE + UNSENT_LIMIT + 8 * MB
    assert dropped or opcode == PONG


def test_tiny_pieces(relay: RelayProcess) -> None:
    """Thousands of fragments, a huge frame in small pieces and empty frames delay nobody else."""
    huge = bytes(range(256)) * 2**16
    fragments = frame(BINARY, "x", fin=False) + frame(CONT, "y", fin=False) * 4_000 + frame(CONT)
    pieces = frame(BINARY, huge)
    with (
        steady_stream(relay),
        dial_websocket(relay, "/ws/stream", REGISTER % "pieces") as streamer,
        relay.view("pieces") as viewer,
    ):
        for start in range(0, len(pieces), 1_000):
            streamer.sendall(pieces[start : start + 1_000])
        assert viewer.recv() == huge
        for _ in range(10):
            streamer.sendall(fragments)
            assert viewer.recv() == b"x" + b"y" * 4_000
    with (
        steady_stream(relay),
        dial_websocket(relay, "/ws/stream", REGISTER % "empty") as streamer,
    ):
        streamer.sendall(frame(BINARY) * 100_000)
        streamer.sendall(frame(CLOSE, struct.pack("!H", 1000)))
        assert close_code(rest(streamer)) == 1000
    relay.log.wait_for("streamer empty .*: left after .*: 100000 frames, ")


def test_forged_log(relay: RelayProcess) -> None:
    """What a client says appears in the log without line breaks and terminal escapes."""
    forged = "\n2026-11-22T18:19:13.250Z info \x1b[31mforged\x9b\u2028"
    with steady_stream(relay):
        path = "/ws/view/x%0A2026%1B%C2%9B"
        with dial_websocket(relay, path) as viewer:
            viewer.sendall(frame(TEXT, SUBSCRIBE))
            assert read_close(viewer) == 4400
        with dial_websocket(relay, "/ws/stream", REGISTER % "x") as streamer:
            streamer.sendall(frame(CLOSE, struct.pack("!H", 4000) + forged.encode()))
            rest(streamer)
        relay.log.wait_for("viewer .*: refused: invalid stream id")
        relay.log.wait_for("streamer x .*: left: 4000 ")
