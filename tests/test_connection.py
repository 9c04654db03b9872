"""What a client's connection adds to the library's."""

import asyncio
import gc
from collections.abc import Callable

import pytest
from fakes import FakeStreamer
from harness import RelayProcess, address, close_code
from hostile import BINARY, CLOSE, PING, SUBSCRIBE, TEXT, frame, upgrade_request
from rawclient import SMALL, RawClient

from relayd.config import Config
from relayd.connection import format_address
from relayd.protocol import Register
from relayd.server import Relay


@pytest.mark.parametrize(
    ("peername", "expected"),
    [
        (("192.0.2.7", 5312), "192.0.2.7:5312"),
        (("2001:db8::7", 5312, 0, 0), "[2001:db8::7]:5312"),
        ("", "local socket"),
    ],
)
def test_format_address(peername: object, expected: str) -> None:
    """Addresses look as in a URL."""
    assert format_address(peername) == expected


def test_unusual_endings(start_relay: Callable[..., RelayProcess]) -> None:
    """The log tells an unusual close code, and what a client did wrong."""
    relay = start_relay()
    with relay.stream("x") as (streamer, _):
        with relay.view("x") as viewer:
            who = address(viewer)
            viewer.close(4000, "bored")
        relay.log.wait_for(f"viewer x {who}: left: 4000 .*bored after ")
        with relay.view("x") as viewer:
            who = address(viewer)
            viewer.socket.sendall(b"\x83\x80\x00\x00\x00\x00")
            assert close_code(viewer) == 1002
        relay.log.wait_for(f"viewer x {who}: closed: 1002 .*invalid opcode after ")
        streamer.send(b"frame")


def test_keepalive(start_relay: Callable[..., RelayProcess]) -> None:
    """A client that answers pings stays; one that does not is let go."""
    relay = start_relay("--ping-interval", "50ms", "--ping-timeout", "1s")
    with relay.stream("x") as (streamer, _), relay.view("x") as viewer:
        with relay.view("x") as mute:
            who = address(mute)
            # The library's receiving thread waits for the lock, and so answers nothing.
            with mute.protocol_mutex:
                relay.log.wait_for(f"viewer x {who}: closed: 1011 .*keepalive ping timeout after ")
        streamer.send(b"frame")
        assert viewer.recv() == b"frame"


def test_pong_in_order(start_relay: Callable[..., RelayProcess]) -> None:
    """A pong comes after the frames that wait, so that a ping tells how late they are."""
    relay = start_relay("--max-lag", "1min", "--viewer-buffer", "64MiB")
    frames = [n.to_bytes(4) * 12_500 for n in range(100)]
    with (
        relay.stream("x") as (streamer, _),
        relay.view("x") as fast,
        RawClient.viewer(relay, "x", SMALL) as slow,
    ):
        for video in frames:
            streamer.send(video)
            assert fast.recv() == video
        slow.socket.sendall(frame(PING, b"late?"))
        relay.health()  # the relay has read the ping when it answers this
        assert [slow.receive() for _ in frames] == frames
        assert slow.read(7) == b"\x8a\x05late?"


REGISTER = '{"type": "register"}'
STREAM, VIEW = upgrade_request("/ws/stream"), upgrade_request("/ws/view/x")

CONVERSATIONS: dict[str, list[bytes]] = {
    "half a request": [b"GET /health HT"],
    "plain HTTP": [b"POST /health HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz"],
    "a streamer that is lost": [STREAM, frame(TEXT, REGISTER), frame(BINARY, b"video")],
    "a streamer that leaves": [STREAM, frame(TEXT, REGISTER), frame(CLOSE, b"\x03\xe8")],
    "a viewer": [VIEW, frame(TEXT, SUBSCRIBE)],
    "a refusal": [STREAM, frame(TEXT, "hello")],
    "a violation": [STREAM, frame(3)],
}


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_no_cycles(conversation: list[bytes]) -> None:
    """A connection that ends frees itself: it leaves nothing to the garbage collector."""
    uvloop = pytest.importorskip("uvloop")  # asyncio's own streams leave cycles
    clients = 20

    async def converse(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in conversation:
            writer.write(piece)
            await reader.read(1000) if piece is not conversation[-1] else await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def count_garbage() -> int:
        relay = Relay(Config(host="127.0.0.1", port=0, max_viewers_per_stream=clients))
        relay.registry.register(Register("x"), FakeStreamer())
        (server,) = await relay.listen()
        async with server:
            port = server.sockets[0].getsockname()[1]
            await converse(port)  # what the first one leaves behind, such as caches, does not count
            await until_idle(relay)
            gc.collect()
            for _ in range(clients):
                await converse(port)
            await until_idle(relay)
            return gc.collect()

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(count_garbage()) < clients
    finally:
        gc.enable()


async def until_idle(relay: Relay) -> None:
    """Wait until the relay has no connection, nor a task that deals with one."""
    # There is no event for the end of all tasks.
    while len(asyncio.all_tasks()) > 1 or relay.connection_count:  # noqa: ASYNC110
        await asyncio.sleep(0)
