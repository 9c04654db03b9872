"""The kernel's send queue: what is known of it, and how much it may hold.

That the bound keeps real networks from being late is tested in test_freshness.py.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from relayd import sendqueue
from relayd.sendqueue import SendQueue, _State

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection on the loopback interface: the server's end, and the client's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield server, client


def room(sock: socket.socket) -> int:
    """Return how much the kernel may hold."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_low_water_mark(sockets: tuple[socket.socket, socket.socket]) -> None:
    """The kernel refuses bytes long before its buffer is full."""
    server, _ = sockets
    SendQueue(server, 0.2)
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 64 * 1024


def test_progress(sockets: tuple[socket.socket, socket.socket]) -> None:
    """What the client's kernel has acknowledged is counted; the rest delays what comes next."""
    server, client = sockets
    queue = SendQueue(server, 0.2)
    assert queue.acknowledged() == 0
    server.sendall(bytes(10_000))
    client.recv(10_000, socket.MSG_WAITALL)
    before = queue.acknowledged()
    assert before > 0
    server.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            server.send(bytes(100_000))
    assert queue.acknowledged() > before
    assert queue.delay(0) > 0
    assert queue.delay(10**9) > queue.delay(0)


def test_closed(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Of a connection that is gone nothing is known, and nothing is raised."""
    server, _ = sockets
    queue = SendQueue(server, 0.2)
    server.close()
    queue.fit()
    assert queue.delay(1000) == 0
    assert queue.acknowledged() == 0


def test_not_tcp() -> None:
    """A socket that is not TCP is left alone."""
    one, two = socket.socketpair()
    with one, two:
        queue = SendQueue(one, 0.2)
        before = room(one)
        queue.fit()
        assert room(one) == before
        assert queue.delay(1000) == 0


def test_fit(sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the network is slow, the kernel may hold what it delivers in time, and no more."""
    server, _ = sockets
    queue = SendQueue(server, 0.2)
    state = _State(outstanding=0, acknowledged=0, rate=0, round_trip=0.1, smoothed=0.1)
    monkeypatch.setattr(SendQueue, "_look", lambda self: state)
    before = room(server)
    queue.fit()  # nothing is known yet
    state = state._replace(rate=500_000, outstanding=149_000)
    queue.fit()  # 0.198 s
    assert room(server) == before
    state = state._replace(outstanding=151_000)
    queue.fit()  # 0.202 s
    assert room(server) == 150_000
    state = state._replace(rate=1_000_000, outstanding=0)
    queue.fit()  # it has become faster
    assert room(server) == 300_000
    state = state._replace(rate=1000)
    queue.fit()
    assert room(server) == sendqueue._LEAST
    state = state._replace(outstanding=1500)
    assert queue.delay(500) == pytest.approx(1.9)
