"""The serve loop: start, signals, drain."""

import json
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from harness import PATIENCE, RelayProcess, close_code

from relayd.server import CLOSES_PER_SECOND

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@LOOPS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(start_relay: Callable[..., RelayProcess], number: int, loop: str) -> None:
    """On a signal, streamers and viewers get close 1012 and nothing else; the exit code is 0."""
    relay = start_relay("--drain-timeout", "0", loop=loop)
    with (
        relay.stream("x") as (streamer, _),
        relay.view("x") as viewer,
        relay.connect("/ws/stream") as silent,
    ):
        relay.signal(number)
        for client in (viewer, streamer, silent):
            assert close_code(client) == 1012
        assert relay.wait() == 0
    relay.log.wait_for("streamer x .*: shutdown after ")
    relay.log.wait_for("viewer x .*: shutdown after ")
    assert "Traceback" not in "\n".join(relay.log.lines)
    assert relay.log.lines[-1].endswith("info stopped")


@LOOPS
def test_idle_stop(start_relay: Callable[..., RelayProcess], loop: str) -> None:
    """Without clients the end comes at once, also with half a request open."""
    relay = start_relay("--drain-timeout", "1h", loop=loop)
    with socket.create_connection(("127.0.0.1", relay.port)) as half:
        half.sendall(b"GET /health HT")
        assert relay.health()["status"] == "ok"  # so the relay has accepted the other before
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0


UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def raw_viewer(relay: RelayProcess, stream_id: str) -> socket.socket:
    """Subscribe and then never answer anything again, not even a close frame."""
    client = socket.create_connection(("127.0.0.1", relay.port), PATIENCE)
    client.sendall(UPGRADE % f"/ws/view/{stream_id}".encode())
    assert client.recv(1000).startswith(b"HTTP/1.1 101")
    text = b'{"type": "subscribe"}'
    client.sendall(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
    assert b"subscribed" in client.recv(1000)
    return client


@LOOPS
def test_drain(start_relay: Callable[..., RelayProcess], loop: str) -> None:
    """Streams go on for DRAIN_TIMEOUT while /health and new WebSockets get 503; then all ends."""
    relay = start_relay("--drain-timeout", "700ms", loop=loop)
    with relay.stream("x") as (streamer, _), raw_viewer(relay, "x") as stubborn:
        began = time.monotonic()
        relay.signal(signal.SIGTERM)
        relay.log.wait_for("stopping: 1 streams, 1 viewers")
        response, body = relay.request("GET", "/health")
        assert response.status == 503
        assert json.loads(body)["status"] == "draining"
        assert response.headers["Retry-After"] == "5"
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
        response, _ = relay.request("GET", "/ws/stream", upgrade)
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
        streamer.send(b"still here")
        assert stubborn.recv(12, socket.MSG_WAITALL) == b"\x82\x0astill here"
        assert stubborn.recv(1000) == bytes((0x88, 2)) + (1012).to_bytes(2)
        assert 0.7 <= time.monotonic() - began < 5
        assert relay.wait() == 0
    relay.log.wait_for("warning some clients did not answer the close frame")


@LOOPS
def test_drain_ends_early(start_relay: Callable[..., RelayProcess], loop: str) -> None:
    """When all clients have left, the relay does not wait any longer."""
    relay = start_relay("--drain-timeout", "1h", loop=loop)
    with relay.stream("x"), relay.view("x"):
        relay.signal(signal.SIGTERM)
        relay.log.wait_for("stopping")
    assert relay.wait() == 0


def test_closes_are_spread(start_relay: Callable[..., RelayProcess]) -> None:
    """A crowd is let go over a while, so that it does not come back at one moment."""
    crowd = 200
    relay = start_relay("--drain-timeout", "0", "--max-viewers-per-stream", str(crowd))
    with ExitStack() as stack:
        stack.enter_context(relay.stream("x"))
        viewers = [stack.enter_context(raw_viewer(relay, "x")) for _ in range(crowd)]
        relay.signal(signal.SIGTERM)
        closed = set()
        with selectors.DefaultSelector() as selector:
            for viewer in viewers:
                selector.register(viewer, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(PATIENCE):
                    closed.add(time.monotonic())
                    selector.unregister(key.fileobj)
        assert max(closed) - min(closed) > 0.8 * crowd / CLOSES_PER_SECOND
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0


@LOOPS
def test_who_comes_at_the_end(start_relay: Callable[..., RelayProcess], loop: str) -> None:
    """Who was accepted before the closes is told as all are; nobody else is accepted."""
    relay = start_relay("--drain-timeout", "0", loop=loop)
    with (
        relay.stream("x"),
        raw_viewer(relay, "x") as silent,  # keeps the relay waiting
        socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as late,
    ):
        assert relay.health()["viewers"] == 1  # so the others have been accepted
        relay.signal(signal.SIGTERM)
        relay.log.wait_for("closing 2 connections")
        late.sendall(UPGRADE % b"/ws/stream")
        with late.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
            assert answer.read().endswith(b"\r\n\r\n\x88\x02\x03\xf4")  # 1012
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port), PATIENCE)
        silent.close()
        assert relay.wait() == 0


@LOOPS
def test_second_signal(start_relay: Callable[..., RelayProcess], loop: str) -> None:
    """A second signal ends the relay at once, whatever the clients do."""
    relay = start_relay("--drain-timeout", "1h", loop=loop)
    with relay.stream("x"), raw_viewer(relay, "x"):
        relay.signal(signal.SIGTERM)
        relay.log.wait_for("stopping")
        relay.signal(signal.SIGINT)
        assert relay.wait() == 0


def run_relayd(*options: str) -> subprocess.CompletedProcess[str]:
    """Run relayd to its end, which must come by itself."""
    command = [sys.executable, "-m", "relayd", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_port_taken(relay: RelayProcess) -> None:
    """A port that is taken is one line and exit code 1."""
    result = run_relayd("--host", "127.0.0.1", "--port", str(relay.port))
    assert result.returncode == 1
    assert result.stderr == (
        f"relayd: cannot listen on 127.0.0.1:{relay.port}: Address already in use\n"
    )


def test_bad_host() -> None:
    """A host that is no address of this machine is one line and exit code 1."""
    for host in ("no.such.host.invalid", "192.0.2.1"):
        result = run_relayd("--host", host, "--port", "0")
        assert result.returncode == 1
        assert result.stderr.startswith(f"relayd: cannot listen on {host}:0: ")
        assert result.stderr.count("\n") == 1


def test_ipv6(start_relay: Callable[..., RelayProcess]) -> None:
    """The relay listens on IPv6 too, where the machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as exc:
        pytest.skip(f"no IPv6 here: {exc}")
    with subprocess.Popen(
        [sys.executable, "-m", "relayd", "--host", "::1", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "listening on [::1]:" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
