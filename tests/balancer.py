"""Load balancers as the README sets them up, as real processes in front of real relays."""

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from harness import PATIENCE, LineReader, RelayProcess, receive, require_tool, send
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

README = Path(__file__).parents[1] / "README.md"

CLIENT_ADDRESS = "127.0.0.7"
"""Where clients of a balancer connect from, so that they can be told from the balancer."""

BACKOFF = 0.1
"""Seconds until a client that has lost its connection comes back."""

TRUSTING = {"TRUSTED_PROXIES": "127.0.0.1"}
"""The environment of a relay that believes a balancer on this machine."""

# Debian's, as far as they matter here.
HAPROXY_DEFAULTS = """\
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000

"""
NGINX_MAIN = """\
daemon off;
worker_processes 2;
pid FOLDER/nginx.pid;
error_log stderr notice;
events {}
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    scgi_temp_path FOLDER/scgi;
    uwsgi_temp_path FOLDER/uwsgi;
    include FOLDER/relayd.conf;
}
"""


def recipes(language: str) -> list[str]:
    """Return the code blocks of the README in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """Return the text with these strings replaced; each must be there."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Balancer:
    """A running load balancer, and clients for it.

    Args:
        command: What starts it in the foreground.
        tls_port: Where it listens as the README has it, with TLS.
        port: Where it listens without.
        certificate: The file of its certificate.
    """

    def __init__(
        self, command: Sequence[str | Path], tls_port: int, port: int, certificate: Path
    ) -> None:
        self._tls_address = f"127.0.0.1:{tls_port}"
        self._address = f"127.0.0.1:{port}"
        self._certificate = certificate
        self.command = command
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.log = LineReader(self.process.stderr)

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.wait_for_end()

    def connect(self, path: str, **options: Any) -> AbstractContextManager[ClientConnection]:
        """Open a WebSocket, as a context manager; without TLS, which takes one thread at a time."""
        return connect(
            f"ws://{self._address}{path}",
            source_address=(CLIENT_ADDRESS, 0),
            compression=None,
            open_timeout=PATIENCE,
            **options,
        )

    @contextmanager
    def stream(self, stream_id: str, query: str = "", **options: Any) -> Iterator[ClientConnection]:
        """Register a stream; give the streamer's connection."""
        with self.connect(f"/ws/stream{query}", **options) as streamer:
            send(streamer, type="register", stream_id=stream_id)
            assert receive(streamer) == {"type": "registered", "stream_id": stream_id}
            yield streamer

    @contextmanager
    def view(self, stream_id: str, query: str = "", **options: Any) -> Iterator[ClientConnection]:
        """Subscribe to a stream; give the viewer's connection."""
        with self.connect(f"/ws/view/{stream_id}{query}", **options) as viewer:
            send(viewer, type="subscribe")
            assert receive(viewer) == {"type": "subscribed", "stream_id": stream_id}
            yield viewer

    def status(self, path: str) -> int:
        """Send a plain GET request; return the status of the answer."""
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    @contextmanager
    def relayctl(self, *arguments: str, password: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run relayctl, over TLS, with a password if need be."""
        user = f"name:{password}@" if password else ""
        command = [sys.executable, "-m", "relayd.ctl", *arguments]
        with subprocess.Popen(
            [*command, "--server", f"wss://{user}{self._tls_address}"],
            env=os.environ | {"SSL_CERT_FILE": str(self._certificate)},
            stdout=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


class Fan:
    """A viewer that comes back whatever ended its connection, until it is told to leave.

    Attributes:
        endings: Why its connections ended: a close code, an HTTP status, or what the relay said.
        watching: Set once it has been let in.
    """

    def __init__(self, balancer: Balancer, path: str) -> None:
        self.endings: set[int | str] = set()
        self.watching = threading.Event()
        self._balancer = balancer
        self._path = path
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> "Fan":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._left.is_set():
            try:
                with self._balancer.connect(self._path) as viewer:
                    self._watch(viewer)
            except InvalidStatus as exc:
                self.endings.add(exc.response.status_code)
            except InvalidHandshake:
                self.endings.add("cut")
            except ConnectionClosed as exc:
                self.endings.add(exc.rcvd.code if exc.rcvd else "cut")
            self._left.wait(BACKOFF)

    def _watch(self, viewer: ClientConnection) -> None:
        send(viewer, type="subscribe")
        reply = receive(viewer)
        if reply["type"] == "error":
            self.endings.add(reply["message"])
            return
        self.watching.set()
        while not self._left.is_set():
            with suppress(TimeoutError):
                viewer.recv(BACKOFF)


@contextmanager
def run_haproxy(
    folder: Path, relays: Sequence[RelayProcess], *changes: tuple[str, str], spread: bool = False
) -> Iterator[Balancer]:
    """Run HAProxy in front of two relays, with more changes to the recipe.

    Args:
        folder: Where its files go.
        relays: The first and the second.
        changes: What to replace in the recipe beside ports and paths.
        spread: Whether both work; else one stands by.
    """
    program = require_tool("haproxy")
    with reserved_ports(3) as (tls_port, port, peers_port):
        bind = f"bind 127.0.0.1:{port}\n    bind 127.0.0.1:{tls_port}"
        places = [("/etc/haproxy", str(folder)), ("bind :443", bind)]
        if spread:
            places.append(("127.0.0.1:10000", f"127.0.0.1:{peers_port}"))
        config = replaced(haproxy_recipe(spread), *places, *_relays(relays), *changes)
        (folder / "haproxy.cfg").write_text(HAPROXY_DEFAULTS + config)
        make_certificate(folder)
        command = [program, "-W", "-f", folder / "haproxy.cfg"]
        balancer = Balancer(command, tls_port, port, folder / "relayd.crt")
        with ExitStack() as stack:
            stack.callback(balancer.stop)
            balancer.log.wait_for("Loading success")
            yield balancer


def haproxy_recipe(spread: bool) -> str:
    """Return what the README adds to HAProxy's configuration."""
    standby, both = recipes("haproxy")
    frontend = standby.partition("\nbackend ")[0] + "\n"
    return frontend + both if spread else standby


@contextmanager
def run_nginx(
    folder: Path, relays: Sequence[RelayProcess], auth_port: int, *changes: tuple[str, str]
) -> Iterator[Balancer]:
    """Run nginx in front of two relays and of what knows who may do what."""
    program = require_tool("nginx")
    with reserved_ports(2) as (tls_port, port):
        listen = f"listen 127.0.0.1:{port};\n    listen 127.0.0.1:{tls_port}"
        auth = ("127.0.0.1:9000", f"127.0.0.1:{auth_port}")
        places = [("/etc/nginx", str(folder)), ("listen 443", listen), auth]
        (recipe,) = recipes("nginx")
        (folder / "relayd.conf").write_text(replaced(recipe, *places, *_relays(relays), *changes))
        (folder / "nginx.conf").write_text(NGINX_MAIN.replace("FOLDER", str(folder)))
        make_certificate(folder)
        command = [program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"]
        balancer = Balancer(command, tls_port, port, folder / "relayd.crt")
        with ExitStack() as stack:
            stack.callback(balancer.stop)
            balancer.log.wait_for("start worker process ", 2)
            yield balancer


def _relays(relays: Sequence[RelayProcess]) -> list[tuple[str, str]]:
    return [(f"10.0.0.{n}:8080", f"127.0.0.1:{r.port}") for n, r in enumerate(relays, start=11)]


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Keep ports of the loopback interface that a program with SO_REUSEADDR can listen on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
        yield [sock.getsockname()[1] for sock in sockets]


def make_certificate(folder: Path) -> None:
    """Make a certificate, its key, and a file that has both."""
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    subject = "-subj /CN=relayd -addext subjectAltName=IP:127.0.0.1"
    certificate, key = folder / "relayd.crt", folder / "relayd.key"
    openssl = [require_tool("openssl"), *command.split(), *subject.split()]
    subprocess.run([*openssl, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (folder / "relayd.pem").write_text(certificate.read_text() + key.read_text())
