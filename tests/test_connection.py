"""What a client's connection adds to the library's."""

from collections.abc import Callable

import pytest
from harness import RelayProcess, address, close_code

from relayd.connection import format_address


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
    relay = start_relay("--ping-interval", "50ms", "--ping-timeout", "200ms")
    with relay.stream("x") as (streamer, _), relay.view("x") as viewer:
        with relay.view("x") as mute:
            who = address(mute)
            # The library's receiving thread waits for the lock, and so answers nothing.
            with mute.protocol_mutex:
                relay.log.wait_for(f"viewer x {who}: closed: 1011 .*keepalive ping timeout after ")
        streamer.send(b"frame")
        assert viewer.recv() == b"frame"
