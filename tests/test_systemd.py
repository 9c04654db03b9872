"""What systemd is told, and what it hands over; here the test plays its part."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness import PATIENCE, LineReader, RelayProcess, close_code

from relayd.systemd import Notifier, listening_sockets

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that services talk to, and the address that they are given."""
    path = str(tmp_path / "notify")
    if request.param == "abstract":
        if sys.platform != "linux":
            pytest.skip("only Linux has abstract addresses")
        path = f"\0relayd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(PATIENCE)
        yield sock, path.replace("\0", "@")


def told(manager: socket.socket, wanted: str) -> list[str]:
    """Receive what is told until this is; return all of it."""
    lines: list[str] = []
    while wanted not in lines:
        lines += manager.recv(4096).decode().splitlines()
    return lines


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_life(manager: tuple[socket.socket, str], loop: str) -> None:
    """The manager hears of the start, what goes on, signs of life, and the end."""
    sock, address = manager
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}
    with RelayProcess(env=env, loop=loop) as relay:
        assert told(sock, "STATUS=0 streams, 0 viewers")[0] == "READY=1"
        with relay.stream("x"), relay.view("x"):
            lines = told(sock, "STATUS=1 streams, 1 viewers")
            assert "WATCHDOG=1" in lines
            assert lines.count("STATUS=1 streams, 1 viewers") == 1
        relay.signal(signal.SIGTERM)
        told(sock, "STOPPING=1")
        assert relay.wait() == 0


def test_stuck_loop(manager: tuple[socket.socket, str]) -> None:
    """A process that does not run gives no sign of life."""
    sock, address = manager
    with RelayProcess(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}) as relay:
        told(sock, "WATCHDOG=1")
        relay.signal(signal.SIGSTOP)
        os.waitpid(relay.process.pid, os.WUNTRACED)
        sock.setblocking(False)
        with suppress(BlockingIOError):  # what it told before
            while True:
                sock.recv(4096)
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(4096)
        relay.signal(signal.SIGCONT)
        sock.settimeout(PATIENCE)
        told(sock, "WATCHDOG=1")


def test_no_manager() -> None:
    """Without a manager, and with one that is gone, nothing is told and nothing fails."""
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "vsock:2:3"}).ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready()
    assert Notifier({}).watchdog_interval is None
    assert listening_sockets({}) == []


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "never"}, None),
    ],
)
def test_watchdog(environ: dict[str, str], interval: float | None) -> None:
    """A sign of life comes twice as often as the manager waits, from the process that it means."""
    assert Notifier(environ).watchdog_interval == interval


HANDED_OVER = """
import os, sys
for place, number in enumerate(sys.argv[1].split(",")):
    os.dup2(int(number), 3 + place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(place + 1)}
os.execv(sys.executable, [sys.executable, "-m", "relayd"])
"""
"""Does what systemd does before it runs a service with sockets."""


def test_sockets() -> None:
    """A relay serves the sockets that it is handed, and lets the kernel's queue be when it ends."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        sockets = [os.dup(one.fileno()), os.dup(other.fileno())]
        command = [sys.executable, "-c", HANDED_OVER, ",".join(map(str, sockets))]
        for _ in range(2):
            with subprocess.Popen(
                command, pass_fds=sockets, stderr=subprocess.PIPE, text=True
            ) as process:
                assert process.stderr is not None
                log = LineReader(process.stderr)
                log.wait_for("listening on", 2)
                for sock in (one, other):
                    with socket.create_connection(sock.getsockname()) as client:
                        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            with socket.create_connection(one.getsockname()):
                """The socket is still there for the next one."""
        for number in sockets:
            os.close(number)


def test_drain(start_relay: Callable[..., RelayProcess]) -> None:
    """The manager is told of the end while clients still go on."""
    relay = start_relay("--drain-timeout", "300ms")
    with relay.stream("x") as (streamer, _), relay.view("x") as viewer:
        relay.signal(signal.SIGTERM)
        relay.log.wait_for("stopping")
        streamer.send(b"still here")
        assert viewer.recv(PATIENCE) == b"still here"
        assert close_code(viewer) == 1012
    assert relay.wait() == 0
