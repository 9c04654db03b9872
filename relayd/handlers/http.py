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

from ..config import Config
from ..session import Registry
from . import pages
from .pages import Pages

RETRY_AFTER = 5
"""Seconds after which a client that got 503 should try again."""

_UNAVAILABLE = {
    "draining": "The relay is about to restart.",
    "full": "The relay is full.",
}

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


def path_of(request_target: str) -> str:
    """Return the path of a request target, without the query string; empty if it has none."""
    if not request_target.startswith("/"):  # absolute form, as proxies send it
        try:
            request_target = urllib.parse.urlsplit(request_target).path
        except ValueError:  # http://[
            return ""
    return request_target.partition("?")[0]


def resolve(request_target: str) -> Target | None:
    """Find the endpoint of a request target (RFC 9112 section 3.2), None if there is none.

    A trailing slash and a query string do not matter.
    """
    path = path_of(request_target)
    if _STREAM.fullmatch(path):
        return Target(Endpoint.STREAM)
    if match := _VIEW.fullmatch(path):
        return Target(Endpoint.VIEW, urllib.parse.unquote(match[1]))
    if _HEALTH.fullmatch(path):
        return Target(Endpoint.HEALTH)
    return None


class Responder:
    """Answers plain HTTP requests.

    Args:
        config: Whether there are pages, and the origins that may have WebSockets.
        registry: The streams, counted by ``/health``.
    """

    def __init__(self, config: Config, registry: Registry) -> None:
        self._registry = registry
        self._origins = config.allowed_origins
        self._pages = Pages(self._origins) if config.pages else None

    def answer(
        self, request: Request, *, draining: bool, full: bool, closing: bool = False
    ) -> Response | None:
        """Answer a request; None lets a WebSocket handshake go on.

        Args:
            request: What the client asked for.
            draining: Whether the relay is about to stop.
            full: Whether MAX_CONNECTIONS is exceeded.
            closing: Whether all are being closed: a WebSocket may go on then, to be told like the
                others that the relay restarts, and not to wait as 503 asks.
        """
        refusing = "full" if full else "draining" if draining and not closing else None
        response = self._answer(request, draining, refusing)
        if response is not None and request.method == "HEAD":
            response.body = b""
        return response

    def _answer(self, request: Request, draining: bool, refusing: str | None) -> Response | None:
        target = resolve(request.path)
        # Load balancers check with OPTIONS, HAProxy by default with `OPTIONS /`.
        if request.method == "OPTIONS" and request.path in ("/", "*"):
            target = Target(Endpoint.HEALTH)
        page = None if target or not self._pages else self._pages.find(path_of(request.path))
        if target is None and page is None:
            return respond(404, "There is nothing here.")
        is_health = target is not None and target.endpoint is Endpoint.HEALTH
        allowed = "GET, HEAD, OPTIONS" if is_health else "GET, HEAD"
        if request.method not in allowed.split(", "):
            return respond(405, f"Use one of: {allowed}.", Allow=allowed)
        if page is not None:
            return pages.answer(page, request)
        if is_health:
            return health(self._registry, draining)
        return self._refuse_websocket(request, refusing)

    def _refuse_websocket(self, request: Request, refusing: str | None) -> Response | None:
        if not _wants_websocket(request):
            return respond(
                426,
                "This is a WebSocket endpoint: connect with ws:// or wss://.",
                Upgrade="websocket",
                Connection="Upgrade, close",
            )
        refusals, allowed = self._registry.counters.refusals, self._origins
        # Not compared with Host, which a page can choose by DNS rebinding. Apps send no Origin.
        origins = request.headers.get_all("Origin")
        refused = [origin for origin in origins if allowed and origin.lower() not in allowed]
        if refused:
            refusals["origin"] += 1
            reason = f"Pages of {refused[0]} may not use this relay: see ALLOWED_ORIGINS."
            return respond(403, reason)
        if refusing:
            refusals[refusing] += 1
            return respond(503, _UNAVAILABLE[refusing], **{"Retry-After": str(RETRY_AFTER)})
        return None


def health(registry: Registry, draining: bool) -> Response:
    """Tell a load balancer whether to send clients here."""
    report = {
        "status": "draining" if draining else "ok",
        "streams": registry.stream_count,
        "viewers": registry.viewer_count,
    }
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if draining:
        headers["Retry-After"] = str(RETRY_AFTER)
    return respond(503 if draining else 200, json.dumps(report), **headers)


def _wants_websocket(request: Request) -> bool:
    def tokens(name: str) -> set[str]:
        values = ",".join(request.headers.get_all(name)).split(",")
        return {value.strip().lower() for value in values}

    return (
        request.method == "GET"
        and "websocket" in tokens("Upgrade")
        and "upgrade" in tokens("Connection")
    )


def respond(status: int, text: str, **headers: str) -> Response:
    """Build an answer of one line of text; headers win over what it has by default."""
    body = text.encode() + b"\n"
    fields = {
        "Date": email.utils.formatdate(usegmt=True),
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": "text/plain; charset=utf-8",
    }
    return Response(status, http.HTTPStatus(status).phrase, Headers(fields | headers), body)
