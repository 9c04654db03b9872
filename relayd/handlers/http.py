"""Plain HTTP: which endpoint a request is for, and the answer unless it becomes a WebSocket."""

import email.utils
import enum
import http
import json
import re
import urllib.parse
from dataclasses import dataclass

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from ..session import Registry

RETRY_AFTER = 5
"""Seconds after which a client that got 503 should try again."""

_STREAM = re.compile(r"/ws/stream/?")
_VIEW = re.compile(r"/ws/view/([^/]+)/?")
_HEALTH = re.compile(r"/health/?")


class Endpoint(enum.Enum):
    """What relayd offers."""

    STREAM = enum.auto()
    VIEW = enum.auto()
    HEALTH = enum.auto()


@dataclass(frozen=True)
class Target:
    """What a request is for; ``stream_id`` is the one in a viewer's path, unchecked."""

    endpoint: Endpoint
    stream_id: str = ""


def resolve(request_target: str) -> Target | None:
    """Find the endpoint of a request target (RFC 9112 section 3.2), None if there is none.

    A trailing slash and a query string do not matter.
    """
    if not request_target.startswith("/"):  # absolute form, as proxies send it
        try:
            request_target = urllib.parse.urlsplit(request_target).path
        except ValueError:  # http://[
            return None
    path = request_target.partition("?")[0]
    if _STREAM.fullmatch(path):
        return Target(Endpoint.STREAM)
    if match := _VIEW.fullmatch(path):
        return Target(Endpoint.VIEW, urllib.parse.unquote(match[1]))
    if _HEALTH.fullmatch(path):
        return Target(Endpoint.HEALTH)
    return None


def answer(request: Request, registry: Registry, *, draining: bool, full: bool) -> Response | None:
    """Answer a plain HTTP request; None lets a WebSocket handshake go on.

    Args:
        request: What the client asked for.
        registry: The streams, counted by ``/health``.
        draining: Whether the relay is about to stop.
        full: Whether MAX_CONNECTIONS is exceeded.
    """
    response = _answer(request, registry, draining, full)
    if response is not None and request.method == "HEAD":
        response.body = b""
    return response


def _answer(request: Request, registry: Registry, draining: bool, full: bool) -> Response | None:
    target = resolve(request.path)
    # Load balancers check with OPTIONS, HAProxy by default with `OPTIONS /`.
    if request.method == "OPTIONS" and request.path in ("/", "*"):
        target = Target(Endpoint.HEALTH)
    if target is None:
        return _build(404, "There is nothing here.")
    allowed = "GET, HEAD, OPTIONS" if target.endpoint is Endpoint.HEALTH else "GET, HEAD"
    if request.method not in allowed.split(", "):
        return _build(405, f"Use one of: {allowed}.", Allow=allowed)
    if target.endpoint is Endpoint.HEALTH:
        return _health(registry, draining)
    if not _wants_websocket(request):
        return _build(
            426,
            "This is a WebSocket endpoint: connect with ws:// or wss://.",
            Upgrade="websocket",
            Connection="Upgrade, close",
        )
    if draining or full:
        reason = "The relay is about to restart." if draining else "The relay is full."
        return _build(503, reason, **{"Retry-After": str(RETRY_AFTER)})
    return None


def _health(registry: Registry, draining: bool) -> Response:
    report = {
        "status": "draining" if draining else "ok",
        "streams": registry.stream_count,
        "viewers": registry.viewer_count,
    }
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if draining:
        headers["Retry-After"] = str(RETRY_AFTER)
    return _build(503 if draining else 200, json.dumps(report), **headers)


def _wants_websocket(request: Request) -> bool:
    def tokens(name: str) -> set[str]:
        values = ",".join(request.headers.get_all(name)).split(",")
        return {value.strip().lower() for value in values}

    return (
        request.method == "GET"
        and "websocket" in tokens("Upgrade")
        and "upgrade" in tokens("Connection")
    )


def _build(status: int, text: str, **headers: str) -> Response:
    body = text.encode() + b"\n"
    fields = {
        "Date": email.utils.formatdate(usegmt=True),
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": "text/plain; charset=utf-8",
    }
    return Response(status, http.HTTPStatus(status).phrase, Headers(fields | headers), body)
