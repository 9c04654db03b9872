"""Tests of the poller, on epoll and on `selectors`."""

import socket
import sys
from collections.abc import Iterator

import pytest
from harness import PATIENCE

from relayd.ctl import poller as module
from relayd.ctl.link import Link

KINDS = ["SelectorPoller"] + (["EpollPoller"] if sys.platform == "linux" else [])

Pair = tuple[socket.socket, socket.socket]


class Recorder(Link):
    """Says what it was called for."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.calls: list[str] = []

    def readable(self) -> None:
        self.calls.append("readable")
        super().readable()

    def writable(self) -> None:
        self.calls.append("writable")


@pytest.fixture(params=KINDS)
def poller(request: pytest.FixtureRequest) -> Iterator["module.Poller"]:
    """A poller of either kind."""
    poller = getattr(module, request.param)()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The two ends of a connection."""
    client, server = socket.socketpair()
    with client, server:
        client.setblocking(False)
        yield client, server


def test_readable(poller: "module.Poller", pair: Pair) -> None:
    """A link is called while there is something to read, no longer than that."""
    client, server = pair
    link = Recorder(client)
    poller.add(link)
    assert not poller.serve(0)
    server.sendall(b"\x82\x01x")
    assert poller.serve(PATIENCE)
    assert not poller.serve(-1)
    assert (link.calls, link.messages) == (["readable"], 1)


def test_writable(poller: "module.Poller", pair: Pair) -> None:
    """A link is called that it can write, while it wants that."""
    client, server = pair
    link = Recorder(client)
    poller.add(link)
    poller.want_write(link, True)
    assert poller.serve(PATIENCE)
    assert link.calls == ["writable"]
    server.sendall(b"\x82\x01x")
    assert poller.serve(PATIENCE)
    assert link.calls == ["writable", "writable", "readable"]
    poller.want_write(link, False)
    assert not poller.serve(0)


def test_link_that_has_ended(poller: "module.Poller", pair: Pair) -> None:
    """A link that is no longer open is not called again."""
    client, server = pair
    link = Recorder(client)
    poller.add(link)
    server.close()
    assert poller.serve(PATIENCE)
    assert not poller.serve(0)
    assert (link.calls, link.is_open) == (["readable"], False)


def test_timeout(poller: "module.Poller", pair: Pair) -> None:
    """Where nothing happens, the wait ends."""
    poller.add(Recorder(pair[0]))
    assert not poller.serve(0.001)
