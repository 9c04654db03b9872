"""Live means now: how far behind a viewer's picture is on a slow network, measured on real TCP.

The figures that are measured are printed: `pytest -rP` shows them.
"""

import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import product

import pytest
from harness import receive, send
from hostile import SUBSCRIBE, TEXT, frame, read_handshake, upgrade_request
from live import Stamp, Watcher, keep_time, stamped
from network import Host, HostRelay, Link, Network, Server, congestion_controls, hurry, network
from websockets.sync.client import ClientConnection

FPS = 30
FRAME = 8_000_000 // 8 // FPS
"""Bytes of a frame of an 8 Mbit/s stream."""

SLOW = Link("4mbit", congestion="cubic")
"""Half of what the stream needs; the hardest to keep up with: the kernel of the server does not
see the queue."""

DEEP = "3000ms"
"""The queue of a router that hoards packets."""

FAST_LAG = 0.050
"""Seconds that a viewer on a fast link is behind at most."""


@pytest.fixture
def net() -> Iterator[Network]:
    """A network of the test's own."""
    with network() as net:
        yield net


class Broadcast:
    """Streams of stamped frames, one on each server, and their viewers.

    Args:
        stack: Closes the connections.
        phone: Where the streamers are.
        servers: The servers, by name.

    Attributes:
        streamers: Their connections, in the order of the servers.
    """

    def __init__(self, stack: ExitStack, phone: Host, servers: Mapping[str, Server]) -> None:
        self._stack = stack
        self.streamers: list[ClientConnection] = []
        self._servers = servers
        for server in servers.values():
            streamer = stack.enter_context(phone.connect(server, "/ws/stream"))
            send(streamer, type="register", stream_id="live")
            assert receive(streamer)["type"] == "registered"
            self.streamers.append(streamer)

    def watch(self, name: str, host: Host) -> Watcher:
        """Let a viewer join the stream on a server."""
        client = host.connect(self._servers[name], "/ws/view/live")
        return Watcher(self._stack.enter_context(client), keep=16)

    def run(self, seconds: int) -> float:
        """Send frames on all streams for so long; return when that ended."""

        def tick(number: int) -> None:
            for streamer in self.streamers:
                streamer.send(stamped(number, FRAME))

        with ThreadPoolExecutor(1, initializer=hurry) as streamer:
            ticks = (partial(tick, number) for number in range(seconds * FPS))
            streamer.submit(keep_time, FPS, ticks).result()
        return time.monotonic()


def p99(stamps: list[Stamp]) -> float:
    """Return the lag that 99 % of the frames don't exceed, in seconds."""
    lags = sorted(stamp.lag for stamp in stamps)
    return lags[len(lags) * 99 // 100]


def report(name: str, stamps: list[Stamp]) -> None:
    """Print what a viewer saw."""
    lags = sorted(stamp.lag for stamp in stamps)
    print(
        f"{name:>60}: {len(stamps):4} frames, lag p50 {lags[len(lags) // 2]:.3f} s,"
        f" p99 {p99(stamps):.3f} s, max {lags[-1]:.3f} s, at the end {stamps[-1].lag:.3f} s"
    )


def check_fast(watcher: Watcher, frames: int) -> None:
    """Check that a viewer got every frame, at once."""
    watcher.wait_for_frames(frames)
    stamps = watcher.stamps()
    assert [stamp.number for stamp in stamps] == list(range(frames))
    assert p99(stamps) < FAST_LAG


def test_a_minute_at_half_the_rate(net: Network) -> None:
    """On half the bandwidth a minute long, a viewer's picture stays as fresh as MAX_LAG says.

    It gets as many frames as from a relay that holds all of them back for it, and whose picture is
    further and further behind. A viewer on a fast link gets everything, at once.
    """
    servers: dict[str, Server] = {
        "defaults": net.relay(),
        "MAX_LAG=200ms": net.relay(MAX_LAG="200ms"),
        "naive": net.naive(),
    }
    phone, near = net.add(), net.add()
    far = {name: net.add(SLOW) for name in servers}
    seconds = 60
    with ExitStack() as stack:
        broadcast = Broadcast(stack, phone, servers)
        fast = {name: broadcast.watch(name, near) for name in servers}
        slow = {name: broadcast.watch(name, far[name]) for name in servers}
        ended = broadcast.run(seconds)
        seen = {name: watcher.stamps(before=ended) for name, watcher in slow.items()}
        for name in servers:
            report(f"{name}, {SLOW}", seen[name])
            report(f"{name}, fast link", fast[name].stamps())
        for name in ("defaults", "MAX_LAG=200ms"):
            check_fast(fast[name], seconds * FPS)
            assert len(seen[name]) >= 0.95 * len(seen["naive"])
        assert p99(seen["defaults"]) < 1.2
        assert p99(seen["MAX_LAG=200ms"]) < 0.5
        assert seen["naive"][-1].lag > 8


def test_every_kind_of_link(net: Network) -> None:
    """Whatever the congestion control and wherever the queue, a viewer's picture stays fresh."""
    links = [
        Link("4mbit", latency, bottleneck, congestion)
        for (bottleneck, latency), congestion in product(
            [("server", "400ms"), ("router", "400ms"), ("router", DEEP)], congestion_controls()
        )
    ]
    servers = {"defaults": net.relay(), "MAX_LAG=200ms": net.relay(MAX_LAG="200ms")}
    phone, near = net.add(), net.add()
    far = {(name, link): net.add(link) for name, link in product(servers, links)}
    seconds = 15
    with ExitStack() as stack:
        broadcast = Broadcast(stack, phone, servers)
        fast = [broadcast.watch(name, near) for name in servers]
        slow = {(name, link): broadcast.watch(name, far[name, link]) for name, link in far}
        ended = broadcast.run(seconds)
        seen = {key: watcher.stamps(before=ended) for key, watcher in slow.items()}
        for (name, link), stamps in seen.items():
            report(f"{name}, {link}", stamps)
        for watcher in fast:
            check_fast(watcher, seconds * FPS)
        carried = 4_000_000 / 8 / FRAME * seconds
        for (name, link), stamps in seen.items():
            assert len(stamps) >= 0.9 * carried
            assert p99(stamps) < (1.2 if name == "defaults" else 0.5), f"{name}, {link}"


def subscribe(host: Host, relay: HostRelay, **options: int) -> socket.socket:
    """Open a viewer's connection of which nothing is read that is not asked for."""
    client = host.dial(relay, **options)
    client.sendall(upgrade_request("/ws/view/live"))
    read_handshake(client)
    client.sendall(frame(TEXT, SUBSCRIBE))
    assert b"subscribed" in client.recv(1000)
    return client


def test_stalled_viewers(net: Network) -> None:
    """Whose network takes nothing is disconnected, be it that it reads nothing, or that it is cut.

    One on a fast link loses nothing by it. One that nothing is sent to is not stalled.
    """
    relay = net.relay(STALL_TIMEOUT="1s")
    phone, near, far = net.add(), net.add(), net.add()
    with ExitStack() as stack:
        quiet = stack.enter_context(phone.connect(relay, "/ws/stream"))
        send(quiet, type="register", stream_id="quiet")
        receive(quiet)
        idle = Watcher(stack.enter_context(near.connect(relay, "/ws/view/quiet")))
        broadcast = Broadcast(stack, phone, {"relay": relay})
        healthy = broadcast.watch("relay", near)
        stubborn = stack.enter_context(subscribe(near, relay))
        lost = stack.enter_context(subscribe(far, relay))
        net.cut(far)
        broadcast.run(4)
        for client in (stubborn, lost):
            host, port = client.getsockname()
            (ended,) = relay.log.wait_for(rf"viewer live {host}:{port}: stalled after ([\d.]+) s")
            print(ended[0])
            assert 1 <= float(ended[1]) < 3
        check_fast(healthy, 4 * FPS)
        quiet.send(b"frame")
        idle.wait_for_frames(1)


def test_slow_viewers_are_not_stalled(net: Network) -> None:
    """Who takes many times STALL_TIMEOUT for one frame, but takes some of it, stays connected."""
    relay = net.relay(STALL_TIMEOUT="500ms")
    phone, near, far = net.add(), net.add(), net.add(Link("8mbit"))
    size = 4 * 2**20
    with ExitStack() as stack:
        broadcast = Broadcast(stack, phone, {"relay": relay})
        far_away = broadcast.watch("relay", far)
        dawdler = stack.enter_context(subscribe(near, relay, SO_RCVBUF=2**16))
        began = time.monotonic()
        broadcast.streamers[0].send(stamped(0, size))
        left = size
        while left > 0:
            received = dawdler.recv(min(left, 2**14))
            assert received, relay.log.lines
            left -= len(received)
            time.sleep(0.015)
        took = time.monotonic() - began
        far_away.wait_for_frames(1)
        broadcast.streamers[0].send(stamped(1, FRAME))
        far_away.wait_for_frames(2)
        print(f"the link took {far_away.stamps()[0].lag:.1f} s, the reader {took:.1f} s")
        assert min(far_away.stamps()[0].lag, took) > 4 * 0.5
        assert relay.log.matching("stalled") == []
