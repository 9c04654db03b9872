"""Hosts that are network namespaces, with real TCP over slow links and over links that are cut.

The namespaces have no names, and end with the last process that is in one or holds it open: tests
that run side by side, or are killed, leave nothing behind.
"""

import ctypes
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness import PATIENCE, LineReader, RelayProcess, require_tool, skip_or_fail
from websockets.sync.client import ClientConnection, connect

NAIVE = Path(__file__).parent / "bench/peers/naive.py"

CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)  # os.setns() came with Python 3.12


@dataclass(frozen=True)
class Link:
    """What is between the server and a host.

    Attributes:
        rate: The bottleneck on the way to the host, as `tc` writes it; empty: none.
        latency: How much time the bottleneck's queue holds, as `tc` writes it.
        bottleneck: Where it is: on the server's own interface, which the kernel fills with care,
            or on the router's, as in a real network.
        congestion: The server's congestion control; empty: the kernel's default.
    """

    rate: str = ""
    latency: str = "400ms"
    bottleneck: str = "router"
    congestion: str = ""

    def __str__(self) -> str:
        parts = self.rate or "unlimited", self.latency, f"at the {self.bottleneck}", self.congestion
        return " ".join(part for part in parts if part)


class Server(Protocol):
    """What a host can connect to."""

    @property
    def port(self) -> int:
        """Where it listens, on every address of the server's host."""
        ...


class Host:
    """A network namespace: as a thread or a process in it sees it, a machine of its own.

    Attributes:
        server_address: Where this host finds the server's.
    """

    def __init__(self, server_address: str = "127.0.0.1") -> None:
        self.server_address = server_address
        outside = _open_namespace()
        try:
            try:
                _call(libc.unshare, CLONE_NEWNET)
            except PermissionError:
                skip_or_fail("only root can make network namespaces")
            self._namespace = _open_namespace()
            _call(libc.setns, outside, CLONE_NEWNET)
        finally:
            os.close(outside)
        self.run("ip link set lo up")

    @property
    def path(self) -> str:
        """What `ip` calls the namespace."""
        return f"/proc/{os.getpid()}/fd/{self._namespace}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, the processes it starts and the sockets it opens be on the host."""
        outside = _open_namespace()
        _call(libc.setns, self._namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            _call(libc.setns, outside, CLONE_NEWNET)
            os.close(outside)

    def run(self, *commands: str) -> None:
        """Run `ip` or `tc` on the host."""
        for command in commands:
            program, *arguments = shlex.split(command)
            with self.entered():
                result = subprocess.run(
                    [require_tool(program), *arguments], capture_output=True, text=True
                )
            assert result.returncode == 0, f"{command}: {result.stderr}"

    def dial(self, server: Server, **options: int) -> socket.socket:
        """Open a TCP connection to a server; options such as SO_RCVBUF go before it."""
        with self.entered():
            client = socket.socket()
        for name, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        client.settimeout(PATIENCE)
        client.connect((self.server_address, server.port))
        return client

    @contextmanager
    def connect(self, server: Server, path: str, **options: Any) -> Iterator[ClientConnection]:
        """Open a WebSocket that sends no pings, and on closing doesn't wait for all that comes."""
        options = {"compression": None, "max_size": None, "ping_interval": None} | options
        url = f"ws://{self.server_address}:{server.port}{path}"
        with ExitStack() as stack:
            with hurried():  # for the thread that reads
                client = stack.enter_context(
                    connect(url, sock=self.dial(server), close_timeout=0.1, **options)
                )
            yield client

    def close(self) -> None:
        """Let go of the namespace."""
        os.close(self._namespace)


class HostRelay(RelayProcess):
    """A relayd with these settings on every address of a host."""

    def __init__(self, host: Host, env: dict[str, str]) -> None:
        with host.entered(), hurried():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relayd", "--host", "0.0.0.0", "--port", "0"],
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | env,
            )
        assert self.process.stderr is not None
        self.log = LineReader(self.process.stderr)
        (listening,) = self.log.wait_for(r"listening on 0\.0\.0\.0:(\d+)")
        self.port = int(listening[1])


class NaiveRelay:
    """The obvious relay, which lets viewers fall behind for ever, on every address of a host."""

    def __init__(self, host: Host) -> None:
        with host.entered(), hurried():
            self.process = subprocess.Popen(
                [sys.executable, str(NAIVE), "0", "0.0.0.0"], stdout=subprocess.PIPE, text=True
            )
        assert self.process.stdout is not None
        self._output = LineReader(self.process.stdout)
        (listening,) = self._output.wait_for(r"^(\d+)$")
        self.port = int(listening[1])

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self._output.wait_for_end()


class Network:
    """A server's host and clients' hosts, each with a link of its own through one router.

    Attributes:
        server: The server's host.
    """

    def __init__(self, stack: ExitStack) -> None:
        for tool in ("ip", "tc"):
            require_tool(tool)
        self._stack = stack
        self._count = 0
        self.server = self._add(Host())
        self._router = self._add(Host())
        with self._router.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def add(self, link: Link | None = None) -> Host:
        """Add a client's host, without a link over one that costs nothing."""
        link = link or Link()
        self._count += 1
        n = self._count
        near = f"10.0.{n}"  # from the server to the router; on to the host it is 10.1.N
        far = f"10.1.{n}"
        host = self._add(Host(f"{near}.1"))
        self.server.run(
            f"ip link add name near{n} type veth peer name near{n} netns {self._router.path}",
            f"ip address add {near}.1/24 dev near{n}",
            f"ip link set near{n} up",
        )
        self._router.run(
            f"ip link add name far{n} type veth peer name far netns {host.path}",
            f"ip address add {near}.2/24 dev near{n}",
            f"ip address add {far}.2/24 dev far{n}",
            f"ip link set near{n} up",
            f"ip link set far{n} up",
        )
        host.run(
            f"ip address add {far}.1/24 dev far",
            "ip link set far up",
            f"ip route add default via {far}.2",
        )
        congestion = f"congctl {link.congestion}" if link.congestion else ""
        self.server.run(f"ip route add {far}.0/24 via {near}.2 {congestion}")
        if link.rate:
            shape = f"tbf rate {link.rate} burst 32kbit latency {link.latency}"
            if link.bottleneck == "server":
                self.server.run(f"tc qdisc add dev near{n} root {shape}")
            else:
                self._router.run(f"tc qdisc add dev far{n} root {shape}")
        return host

    def cut(self, host: Host) -> None:
        """Let the router drop all that goes to or comes from a host, telling neither side."""
        self._router.run(*(f"ip route add blackhole {address}" for address in self._ends(host)))

    def mend(self, host: Host) -> None:
        """Undo `cut`."""
        self._router.run(*(f"ip route del blackhole {address}" for address in self._ends(host)))

    def relay(self, **env: str) -> HostRelay:
        """Start a relayd with these settings on the server; it ends with the network."""
        relay = HostRelay(self.server, env)
        self._stack.enter_context(relay)
        return relay

    def naive(self) -> NaiveRelay:
        """Start the obvious relay on the server; it ends with the network."""
        relay = NaiveRelay(self.server)
        self._stack.callback(relay.stop)
        return relay

    def _add(self, host: Host) -> Host:
        self._stack.callback(host.close)
        return host

    def _ends(self, host: Host) -> tuple[str, str]:
        near = host.server_address
        return near, near.replace("10.0.", "10.1.", 1)


@contextmanager
def network() -> Iterator[Network]:
    """Build a network for as long as the context lasts."""
    with ExitStack() as stack:
        yield Network(stack)


def congestion_controls() -> list[str]:
    """Return which of cubic, Debian's default, and bbr the kernel has."""
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return [name for name in ("cubic", "bbr") if name in available]


def hurry() -> None:
    """Let this thread, and what it starts, go first where that is permitted.

    What is measured is the network, not what else the machine does.
    """
    with suppress(PermissionError):
        # Niceness counts only within a session, where the kernel has CONFIG_SCHED_AUTOGROUP.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextmanager
def hurried() -> Iterator[None]:
    """Let this thread, and the threads and processes that it starts meanwhile, go first."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    hurry()
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def _open_namespace() -> int:
    """Open the network namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _call(function: Any, *arguments: int) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
