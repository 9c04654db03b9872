"""Why is this viewer slow? What relayctl says of viewers on real networks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from ctl.reports import operator_port
from harness import PATIENCE, receive, send
from hostile import reset
from live import Watcher, keep_time, stamped
from network import Host, HostRelay, Link, Network, network
from websockets.sync.client import ClientConnection

from relayd.ctl.operator import Address, Operator
from relayd.ctl.report import State

FPS = 30

SIZE = 8_000
"""Size of a frame in bytes: a stream has 2 Mbit/s."""


@pytest.fixture
def net() -> Iterator[Network]:
    """A network of the test's own."""
    with network() as net:
        yield net


class _Enough(Exception):
    """What was waited for has happened."""


def stream_until(condition: Callable[[], bool], *streamers: ClientConnection) -> None:
    """Push frames on streams until a condition holds, which is looked at five times a second."""

    def tick(number: int) -> None:
        for streamer in streamers:
            streamer.send(stamped(number, SIZE))
        if number % (FPS // 5) == 0 and condition():
            raise _Enough

    ticks = (lambda number=number: tick(number) for number in range(PATIENCE * FPS))
    with pytest.raises(_Enough):
        keep_time(FPS, ticks)


def register(stack: ExitStack, host: Host, relay: HostRelay, stream_id: str) -> ClientConnection:
    """Register a stream that is kept when its streamer is lost."""
    streamer = stack.enter_context(host.connect(relay, "/ws/stream"))
    send(streamer, type="register", stream_id=stream_id, features=["resume"])
    assert receive(streamer)["type"] == "registered"
    return streamer


def test_why_is_this_viewer_slow(net: Network) -> None:
    """Each trouble has its word: of networks that are slow or cut, of streams without keyframes,
    without frames, without a streamer."""
    relay = net.relay(ADMIN_PORT="0", GROUP_BUFFER="0", STALL_TIMEOUT="1h", DRAIN_TIMEOUT="0")
    operator = Operator(Address.parse(operator_port(relay)))
    phone, near, slow, cut = net.add(), net.add(), net.add(Link("1mbit")), net.add()
    with ExitStack() as stack:

        def watch(host: Host, name: str) -> str:
            client = stack.enter_context(host.connect(relay, f"/ws/view/{name}"))
            Watcher(client, keep=16)
            return "{}:{}".format(*client.local_address)

        plain, marked, _, gone = (
            register(stack, phone, relay, name) for name in ("plain", "marked", "quiet", "gone")
        )
        marked.send('{"type": "keyframe"}')
        marked.send(stamped(0, SIZE))
        expected = {
            "plain": State.OK,
            "marked": State.OK,
            "quiet": State.IDLE,
            "gone": State.LOST,
            watch(near, "plain"): State.OK,
            watch(near, "quiet"): State.IDLE,
            watch(near, "marked"): State.KEYFRAME,
            watch(slow, "plain"): State.SLOW,
            watch(cut, "plain"): State.STALLED,
        }
        reset(gone.socket)
        net.cut(cut)
        seen: dict[str, State] = {}

        def is_as_expected() -> bool:
            with net.server.entered():
                streams = operator.streams()
            seen.clear()
            for stream in streams:
                seen[stream.stream_id] = stream.state
                seen.update({viewer.address: state for state, viewer in stream.viewers})
            return seen == expected

        try:
            stream_until(is_as_expected, plain, marked)
        finally:
            print(expected, seen)
