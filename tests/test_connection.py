"""What a client's connection adds to the library's."""

import itertools
from collections.abc import Callable

import pytest
from harness import RelayProcess, address, close_code
from hypothesis import given
from hypothesis import strategies as st

from relayd.connection import RequestGate, format_address


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes into pieces at these places, wrapped round."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.binary(), st.lists(st.integers(0, 1000)))
def test_gate_opens_for_get(rest: bytes, cuts: list[int]) -> None:
    """A GET request passes as it is, however it is cut."""
    gate = RequestGate()
    passed = b""
    for piece in cut(b"GET /ws/stream HTTP/1.1\r\n" + rest, cuts):
        passed += piece if gate.open else gate.feed(piece)
    assert passed == b"GET /ws/stream HTTP/1.1\r\n" + rest


@given(st.sampled_from([b"POST", b"HEAD", b"G", b"GETS", b"\x16\x03\x01"]), st.lists(st.integers()))
def test_gate_passes_a_line(method: bytes, cuts: list[int]) -> None:
    """Of any other request the first line passes and nothing else, however it is cut."""
    gate = RequestGate()
    request = method + b" / HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET \r\n"
    assert b"".join(map(gate.feed, cut(request, cuts))) == method + b" / HTTP/1.1\r\n\r\n"
    assert not gate.open


def test_gate_gives_up_on_a_long_line() -> None:
    """A first line without an end is left to the library, which refuses it."""
    gate = RequestGate()
    assert gate.feed(b"P" * 8192) == b""
    assert gate.feed(b"P") == b"P" * 8193
    assert gate.open


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
