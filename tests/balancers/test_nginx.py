"""nginx in front of two relays and of what knows who may do what, as the README sets it up."""

import base64
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from balancer import CLIENT_ADDRESS, TRUSTING, Fan, recipes, run_nginx
from harness import PATIENCE, RelayProcess, close_code
from websockets.exceptions import InvalidStatus

from relayd.config import Config

PASSWORDS = {"/ws/stream": "push", "/ws/view": "watch"}
"""What a client must know, by the endpoint."""

PUSH, WATCH = "?token=push", "?token=watch"

FANS = 5
"""Viewers that come back."""


class AuthHandler(BaseHTTPRequestHandler):
    """Stands in for the service of a team: knows a password, from the URL or a header."""

    def do_GET(self) -> None:
        """Answer 204, 401 or 403."""
        url = urlsplit(self.headers["X-Original-URI"])
        (expected,) = (p for path, p in PASSWORDS.items() if url.path.startswith(path))
        (given,) = parse_qs(url.query).get("token", [""])
        if authorization := self.headers["Authorization"]:
            given = base64.b64decode(authorization.split()[1]).decode().partition(":")[2]
        self.send_response(204 if given == expected else 403 if given else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def auth_port() -> Iterator[int]:
    """Run the service that nginx asks; give its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), AuthHandler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def relays(start_relay: Callable[..., RelayProcess]) -> list[RelayProcess]:
    """Two relays that trust the balancer."""
    return [start_relay("--drain-timeout", "1s", env=TRUSTING) for _ in range(2)]


def test_configuration(tmp_path: Path, relays: list[RelayProcess], auth_port: int) -> None:
    """nginx has nothing to say against the recipe."""
    with run_nginx(tmp_path, relays, auth_port) as balancer:
        check = [*balancer.command, "-t", "-q"]
        result = subprocess.run(check, capture_output=True, text=True, timeout=PATIENCE)
        assert (result.returncode, result.stdout + result.stderr) == (0, "")
        assert not balancer.log.matching(r"\[(warn|error|crit|alert|emerg)\]")


def test_authentication(tmp_path: Path, relays: list[RelayProcess], auth_port: int) -> None:
    """Who has no credentials gets 401, who has those for something else 403; pages are open."""
    with run_nginx(tmp_path, relays, auth_port) as balancer:
        for path, other in [("/ws/stream", WATCH), ("/ws/view/x", PUSH)]:
            for query, status in [("", 401), ("?token=guess", 403), (other, 403)]:
                with (
                    pytest.raises(InvalidStatus, match=f"HTTP {status}"),
                    balancer.connect(path + query),
                ):
                    pytest.fail("let in")
        with balancer.stream("x", PUSH) as streamer, balancer.view("x", WATCH) as viewer:
            streamer.send(b"frame")
            assert viewer.recv(PATIENCE) == b"frame"
            with balancer.relayctl("watch", "x", "-o", "-", password="watch") as relayctl:
                relays[0].log.wait_for("viewer x .*: subscribed", 2)
                streamer.send(b"picture")
                assert relayctl.stdout is not None
                assert relayctl.stdout.read(7) == b"picture"
        assert balancer.status("/share") == 200
        assert balancer.status("/auth") == 404


def test_address(tmp_path: Path, relays: list[RelayProcess], auth_port: int) -> None:
    """Relays log the client's address, whatever it says itself."""
    lie = {"X-Forwarded-For": "192.0.2.1"}
    with (
        run_nginx(tmp_path, relays, auth_port) as balancer,
        balancer.stream("x", PUSH, additional_headers=lie),
        balancer.view("x", WATCH),
    ):
        relays[0].log.wait_for(rf"streamer x {CLIENT_ADDRESS}\b.*: registered")
        relays[0].log.wait_for(rf"viewer x {CLIENT_ADDRESS}\b.*: subscribed")


def test_silence(tmp_path: Path, start_relay: Callable[..., RelayProcess], auth_port: int) -> None:
    """A relay's pings keep a connection without frames open, as those of the default would."""
    relays = [start_relay("--ping-interval", "300ms") for _ in range(2)]
    assert "proxy_read_timeout" not in recipes("nginx")[0]  # nginx's default: 60 s
    assert Config().ping_interval < 60 / 2
    shorter = ("http_version 1.1;", "http_version 1.1; proxy_read_timeout 1s;")
    with (
        run_nginx(tmp_path, relays, auth_port, shorter) as balancer,
        balancer.stream("x", PUSH) as streamer,
        balancer.view("x", WATCH) as viewer,
    ):
        with pytest.raises(TimeoutError):
            viewer.recv(timeout=2)
        streamer.send(b"frame")
        assert viewer.recv(PATIENCE) == b"frame"


def test_drain_and_return(
    tmp_path: Path,
    relays: list[RelayProcess],
    auth_port: int,
    start_relay: Callable[..., RelayProcess],
) -> None:
    """When a relay stops, all get to the second; when that is restarted, all get to the first."""
    first, second = relays
    soon = (f"127.0.0.1:{first.port};", f"127.0.0.1:{first.port} fail_timeout=1s;")
    with run_nginx(tmp_path, relays, auth_port, soon) as balancer, ExitStack() as stack:
        publish = balancer.relayctl("publish", "--test-pattern", "--id", "a", password="push")
        stack.enter_context(publish)
        first.log.wait_for("streamer a .*: registered")
        fans = [stack.enter_context(Fan(balancer, f"/ws/view/a{WATCH}")) for _ in range(FANS)]
        first.log.wait_for("viewer a .*: subscribed", FANS)
        with balancer.stream("b", PUSH) as streamer, balancer.view("b", WATCH) as viewer:
            first.signal(signal.SIGTERM)
            first.log.wait_for("stopping")
            for n in range(10):  # none is refused: nginx asks the second
                with balancer.stream(f"new-{n}", PUSH):
                    pass
            second.log.wait_for("streamer new-. .*: registered", 10)
            streamer.send(b"goes on")
            assert viewer.recv(PATIENCE) == b"goes on"
            assert close_code(viewer) == 1012
        assert first.wait() == 0
        second.log.wait_for("streamer a .*: registered")
        second.log.wait_for("viewer a .*: subscribed", FANS)

        back = start_relay("--port", str(first.port))
        deadline = time.monotonic() + PATIENCE
        while not back.log.matching("streamer back .*: registered"):
            assert time.monotonic() < deadline
            with balancer.stream("back", PUSH):
                pass
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        back.log.wait_for("streamer a .*: registered")
        back.log.wait_for("viewer a .*: subscribed", FANS)
    endings = set().union(*(fan.endings for fan in fans))
    assert endings <= {"stream not found", 1012}
