"""Plain HTTP: the answers that load balancers and lost clients get."""

import json
import socket
from collections.abc import Callable, Iterator

import pytest
from fakes import FakeClock
from harness import PATIENCE, RelayProcess
from websockets.datastructures import Headers
from websockets.http11 import Request

from relayd.config import Config
from relayd.handlers.http import Endpoint, Responder, Target, resolve
from relayd.session import Registry

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    """A relay on each event loop."""
    with RelayProcess(loop=request.param) as relay:
        yield relay


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/ws/stream", Target(Endpoint.STREAM)),
        ("/ws/stream/?a=/b", Target(Endpoint.STREAM)),
        ("http://example.org/ws/stream", Target(Endpoint.STREAM)),
        ("/ws/view/k3J9xQ2b", Target(Endpoint.VIEW, "k3J9xQ2b")),
        ("/ws/view/a%2Db/", Target(Endpoint.VIEW, "a-b")),
        ("/health?x", Target(Endpoint.HEALTH)),
        ("/", None),
        ("*", None),
        ("http://[", None),
        ("/ws/view", None),
        ("/ws/view/", None),
        ("/ws/view/a/b", None),
        ("//ws/stream", None),
        ("/HEALTH", None),
        ("/ws/stream\n", None),
    ],
)
def test_resolve(target: str, expected: Target | None) -> None:
    """A path leads to its endpoint, whatever slash or query follows; any other path nowhere."""
    assert resolve(target) == expected


def test_websocket_goes_on() -> None:
    """A WebSocket handshake is left to the library, unless the relay is draining or full."""
    request = Request("/ws/stream", Headers(UPGRADE))
    config = Config()
    responder = Responder(config, Registry(config, FakeClock()))
    assert responder.answer(request, draining=False, full=False) is None
    for draining, full in ((True, False), (False, True)):
        response = responder.answer(request, draining=draining, full=full)
        assert response is not None
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"


def test_health(relay: RelayProcess) -> None:
    """/health counts streams and viewers, and is never cached."""
    with relay.stream("a"), relay.stream("b"), relay.view("a"), relay.view("a"):
        response, body = relay.request("GET", "/health")
    assert response.status == 200
    assert json.loads(body) == {"status": "ok", "streams": 2, "viewers": 2}
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Server"] == "relayd"


def test_head(relay: RelayProcess) -> None:
    """HEAD gets the headers of GET and no body."""
    for path in ("/health", "/ws/stream", "/nowhere"):
        get, body = relay.request("GET", path)
        head = exchange(relay, f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        lines = head.decode().split("\r\n")
        assert lines[0] == f"HTTP/1.1 {get.status} {get.reason}"
        assert f"Content-Length: {len(body)}" in lines
        assert lines[-2:] == ["", ""]


@pytest.mark.parametrize("target", ["/health", "/", "*"])
def test_options(relay: RelayProcess, target: str) -> None:
    """OPTIONS is a health check, as HAProxy sends it."""
    response, body = relay.request("OPTIONS", target)
    assert response.status == 200
    assert json.loads(body)["status"] == "ok"


@pytest.mark.parametrize("request_line", [b"OPTIONS / HTTP/1.0", b"GET /health HTTP/1.0"])
def test_http_1_0(relay: RelayProcess, request_line: bytes) -> None:
    """A check over HTTP/1.0, which has no Host header, is answered and the connection closed."""
    response = exchange(relay, request_line + b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b'{"status": "ok", "streams": 0, "viewers": 0}\n')


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_not_found(relay: RelayProcess, method: str) -> None:
    """An unknown path is 404, whatever the method."""
    for path in ("/nowhere", "/ws", "/ws/view/", "/health/x"):
        response, _ = relay.request(method, path)
        assert response.status == 404
    response, _ = relay.request("GET", "/nowhere", UPGRADE)
    assert response.status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/ws/stream", "/ws/view/x"])
def test_upgrade_required(relay: RelayProcess, path: str, method: str) -> None:
    """A WebSocket path without an upgrade is 426, which names what to upgrade to."""
    response, _ = relay.request(method, path)
    assert response.status == 426
    assert response.headers["Upgrade"] == "websocket"
    assert "Upgrade" in response.headers["Connection"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "NONSENSE"])
@pytest.mark.parametrize("body", [None, "some body"])
def test_method_not_allowed(relay: RelayProcess, method: str, body: str | None) -> None:
    """Another method is 405 with the methods that are allowed, with or without a body."""
    for path, allowed in (
        ("/health", "GET, HEAD, OPTIONS"),
        ("/ws/stream", "GET, HEAD"),
        ("/ws/view/x", "GET, HEAD"),
    ):
        response, _ = relay.request(method, path, UPGRADE, body)
        assert response.status == 405
        assert response.headers["Allow"] == allowed


def test_options_on_websocket_path(relay: RelayProcess) -> None:
    """OPTIONS is for health checks alone."""
    response, _ = relay.request("OPTIONS", "/ws/stream")
    assert response.status == 405


def test_full(start_relay: Callable[..., RelayProcess]) -> None:
    """Past MAX_CONNECTIONS a WebSocket gets 503 and when to try again; /health still says ok."""
    relay = start_relay("--max-connections", "2")
    with relay.stream("x"), relay.view("x"):
        response, _ = relay.request("GET", "/ws/view/x", UPGRADE)
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
        assert relay.health() == {"status": "ok", "streams": 1, "viewers": 1}
    with relay.stream("x"):
        pass


def test_bad_handshake(relay: RelayProcess) -> None:
    """A handshake without a key is refused with a reason."""
    headers = {name: value for name, value in UPGRADE.items() if name != "Sec-WebSocket-Key"}
    response, body = relay.request("GET", "/ws/stream", headers)
    assert response.status == 400
    assert b"Sec-WebSocket-Key" in body


def exchange(relay: RelayProcess, request: bytes) -> bytes:
    """Send bytes, return all that comes back until the relay closes."""
    with socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client:
        client.sendall(request)
        with client.makefile("rb") as file:
            return file.read()
