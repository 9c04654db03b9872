"""A phone moves from one network to another: its stream goes on, and its viewers stay."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import film
import pytest
from film import Message
from harness import close_code, receive, send
from hostile import BINARY, frame
from live import Watcher, stamped
from network import Host, HostRelay, Network, network
from websockets.sync.client import ClientConnection

SOON = 1.0
"""Seconds between a streamer's return and the first new frame at its viewers."""

SIZE = 20_000
"""Bytes of a frame."""


@pytest.fixture
def net() -> Iterator[Network]:
    """A network of the test's own."""
    with network() as net:
        yield net


class Phone:
    """A streamer on one network.

    Attributes:
        client: Its connection.
        reply: The answer to `register`.
        sent: The frames that it has sent.
    """

    def __init__(self, stack: ExitStack, relay: HostRelay, host: Host, **request: Any) -> None:
        self.client: ClientConnection = stack.enter_context(host.connect(relay, "/ws/stream"))
        features = ["resume", "keyframe_requests"]
        send(self.client, type="register", stream_id="live", features=features, **request)
        self.reply = receive(self.client)
        assert self.reply["type"] == "registered", self.reply
        self.sent: list[bytes] = []

    def push(self, mark: str = "") -> None:
        """Send a frame that says when."""
        data = stamped(len(self.sent), SIZE)
        film.send(self.client, [Message(mark, data)])
        self.sent.append(data)


def watch(stack: ExitStack, relay: HostRelay, host: Host, **request: Any) -> Watcher:
    """Let a viewer join."""
    return Watcher(stack.enter_context(host.connect(relay, "/ws/view/live")), **request)


def frames(watcher: Watcher) -> list[bytes]:
    """Return the frames that a viewer has."""
    return [data for _, data in list(watcher.frames)]


@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
def test_takeover(net: Network, marked: bool) -> None:
    """Who comes back from another address takes over, though the old connection seems alive."""
    relay = net.relay()
    wifi, mobile, desk = net.add(), net.add(), net.add()
    config, keyframe = ("config", "keyframe") if marked else ("", "")
    with ExitStack() as stack:
        old = Phone(stack, relay, wifi, format={"width": 720})
        token = old.reply["resume_token"]
        asking = watch(stack, relay, desk, features=["status", "format"])
        plain = watch(stack, relay, desk)
        for mark in (config, keyframe, ""):
            old.push(mark)
        for watcher in (asking, plain):
            watcher.wait_for_frames(3)
        old.client.socket.sendall(frame(BINARY, bytes(SIZE))[: SIZE // 2])
        net.cut(wifi)
        old.push()  # neither this nor the rest of the frame before it gets there

        began = time.monotonic()
        new = Phone(stack, relay, mobile, resume_token=token, format={"width": 480})
        assert new.reply["resumed"] is True
        assert new.reply["resume_token"] != token
        for mark in ("", keyframe, ""):
            new.push(mark)
        shown = new.sent[1:] if marked else new.sent  # a picture begins with a keyframe
        for watcher in (asking, plain):
            watcher.wait_for_frames(3 + len(shown))
            assert frames(watcher) == old.sent[:3] + shown
            took = watcher.frames[3][0] - began
            print(f"the first new frame came {took * 1000:.1f} ms after the phone did")
            assert took < SOON
        assert asking.texts == [
            (3, {"type": "stream_paused"}),
            (3, {"type": "stream_resumed", "format": {"width": 480}}),
        ]
        assert plain.texts == []
        if marked:
            assert receive(new.client) == {"type": "keyframe_request"}
            late = watch(stack, relay, desk)
            late.wait_for_frames(3)
            assert frames(late) == [old.sent[0], *shown]
        relay.log.wait_for("streamer live 10.1.1.1:.*: replaced after")
        net.mend(wifi)
        assert close_code(old.client) == 4409


def test_lost_and_found(net: Network) -> None:
    """A streamer that answers no ping is lost: its stream pauses, until it comes back."""
    relay = net.relay(PING_INTERVAL="200ms", PING_TIMEOUT="300ms")
    wifi, mobile, desk = net.add(), net.add(), net.add()
    with ExitStack() as stack:
        old = Phone(stack, relay, wifi)
        watcher = watch(stack, relay, desk, features=["status"])
        old.push()
        watcher.wait_for_frames(1)
        net.cut(wifi)
        watcher.wait_until(lambda watcher: watcher.texts == [(1, {"type": "stream_paused"})])
        began = time.monotonic()
        new = Phone(stack, relay, mobile, resume_token=old.reply["resume_token"])
        new.push()
        watcher.wait_for_frames(2)
        assert watcher.frames[1][0] - began < SOON
        assert watcher.texts[1:] == [(1, {"type": "stream_resumed"})]
        new.client.close()
        watcher.wait_for_end()
        assert watcher.texts[2:] == [(2, {"type": "stream_ended", "stream_id": "live"})]
        assert watcher.close_code == 1000
