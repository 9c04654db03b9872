"""The operator's port: what goes on, for people and for Prometheus, and a way to end it."""

import asyncio
import importlib.util
import ipaddress
import json
import logging
import re
import urllib.parse
from collections.abc import Callable, Collection, Hashable, Iterable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from .config import Config
from .counters import LOOP_LAG_BOUNDS, Histogram
from .handlers.http import health, path_of, respond
from .protocol import StreamNotFound
from .rates import INTERVAL, Count, Rates
from .relay.fanout import Viewer
from .session import Registry, Stream
from .tls import Certificate

logger = logging.getLogger(__name__)

LOOP_LAG_INTERVAL = 0.1
"""Seconds between two looks at how late the event loop is."""

_STREAM = re.compile(r"/streams/([^/]+)")
_VIEWER = re.compile(r"/viewers/(\d{1,18})")


class Admin:
    """Answers the operator.

    It looks at counts once a second; frames on their way know nothing of it.

    Args:
        config: The limits, and whether the port is on the loopback interface.
        registry: The streams.
        connections: The open connections of streamers and viewers.
        is_draining: Whether the relay is about to stop.
        certificate: The certificate in use.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        connections: Collection[Any],
        is_draining: Callable[[], bool],
        certificate: Certificate | None = None,
    ) -> None:
        self._config = config
        self._registry = registry
        self._is_draining = is_draining
        self._loop = asyncio.get_running_loop()
        self._rates = Rates(self._counts, self._loop.time)
        self._loop_lag = Histogram(LOOP_LAG_BOUNDS)
        self._exposition = None
        if importlib.util.find_spec("prometheus_client") is None:
            logger.warning("no /metrics: install relayd with its extra, relayd[metrics]")
        else:
            from .metrics import Exposition

            self._exposition = Exposition(
                config, registry, connections, is_draining, self._loop_lag, certificate
            )
        self._look_at_counts()
        self._watch_loop(self._loop.time())

    async def serve(self, **where: Any) -> Server:
        """Listen; the arguments are those of `websockets.asyncio.server.serve`.

        Raises:
            OSError: If that can't be done.
        """
        return await serve(
            _no_websocket,
            process_request=self._process_request,
            server_header="relayd",
            logger=logging.getLogger("relayd.websockets"),
            **where,
        )

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response:
        response = await self._answer(connection, request)
        if request.method == "HEAD":
            response.body = b""
        return response

    async def _answer(self, connection: ServerConnection, request: Request) -> Response:
        if self._is_of_a_page(connection, request.headers):
            return respond(403, "Pages of other servers may not use the operator's port.")
        path = path_of(request.path)
        stream, viewer = _STREAM.fullmatch(path), _VIEWER.fullmatch(path)
        if path not in ("/", "/health", "/metrics", "/streams") and not stream and not viewer:
            return respond(404, "There is nothing here; see /streams and /metrics.")
        allowed = "DELETE" if stream or viewer else "GET, HEAD"
        if request.method not in allowed.split(", "):
            return respond(405, f"Use one of: {allowed}.", Allow=allowed)
        if stream:
            return self._kick_stream(urllib.parse.unquote(stream[1]))
        if viewer:
            return self._kick_viewer(int(viewer[1]))
        if path == "/metrics":
            return self._metrics(request.headers)
        if path == "/streams":
            return _json(await self._report())
        if path == "/health":
            return health(self._registry, self._is_draining())
        return respond(200, "The operator's port of relayd: see /streams and /metrics.")

    def _is_of_a_page(self, connection: ServerConnection, headers: Headers) -> bool:
        """Whether a page of another server has made a browser ask, also by DNS rebinding."""
        if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") not in ("none",):
            return True
        address = connection.local_address
        if not isinstance(address, tuple) or not ipaddress.ip_address(address[0]).is_loopback:
            return False
        host = urllib.parse.urlsplit(f"//{headers.get('Host', '')}").hostname or ""
        return host not in ("", "localhost") and not _is_address(host)

    def _metrics(self, headers: Headers) -> Response:
        if self._exposition is None:
            return respond(501, "Install relayd with its extra: relayd[metrics].")
        text, content_type = self._exposition.render(", ".join(headers.get_all("Accept")))
        return respond(200, text, **{"Content-Type": content_type})

    def _kick_stream(self, stream_id: str) -> Response:
        try:
            self._registry.kick_stream(stream_id)
        except StreamNotFound:
            return respond(404, "There is no stream with this id.")
        logger.info("ended by the operator", extra={"role": "stream", "stream": stream_id})
        return Response(204, HTTPStatus(204).phrase, Headers(Connection="close"))

    def _kick_viewer(self, number: int) -> Response:
        if not self._registry.kick_viewer(number):
            return respond(404, "There is no viewer with this number.")
        logger.info("viewer %d closed by the operator", number)
        return Response(204, HTTPStatus(204).phrase, Headers(Connection="close"))

    async def _report(self) -> dict[str, Any]:
        streams = []
        for stream in self._registry.streams:
            streams.append(self._stream(stream))
            # A thousand viewers take some milliseconds: frames have their turn in between.
            await asyncio.sleep(0)
        return {"streams": streams}

    def _stream(self, stream: Stream) -> dict[str, Any]:
        fan_out, streamer = stream.fan_out, stream.streamer
        fps, bitrate = self._rates.of(stream.id, stream.began, (fan_out.frames, fan_out.size))
        return {
            "id": stream.id,
            "address": None if streamer is None else streamer.peer,
            "age": round(self._loop.time() - stream.began, 1),
            "fps": round(fps, 1),
            "bitrate": round(bitrate),
            "frames": fan_out.frames,
            "bytes": fan_out.size,
            "resumes": stream.resumes,
            "viewers": [self._viewer(viewer) for viewer in stream.viewers],
        }

    def _viewer(self, viewer: Viewer) -> dict[str, Any]:
        count = viewer.delivered, viewer.delivered_size
        fps, bitrate = self._rates.of(viewer.number, viewer.began, count)
        unacknowledged, rtt = viewer.network or (None, None)
        return {
            "id": viewer.number,
            "address": viewer.peer,
            "age": round(self._loop.time() - viewer.began, 1),
            "fps": round(fps, 1),
            "bitrate": round(bitrate),
            "lag": round(viewer.lag, 4),
            "queue_frames": viewer.waiting,
            "queue_bytes": viewer.waiting_size,
            "unacknowledged_bytes": unacknowledged,
            "rtt": rtt,
            "waits_for": viewer.waits_for,
            "frames": viewer.delivered,
            "dropped": viewer.dropped,
            "drops": dict(viewer.drops),
        }

    def _counts(self) -> Iterable[tuple[Hashable, Count]]:
        for stream in self._registry.streams:
            yield stream.id, (stream.fan_out.frames, stream.fan_out.size)
        for viewer in self._registry.attendance.viewers.values():
            yield viewer.number, (viewer.delivered, viewer.delivered_size)

    def _look_at_counts(self) -> None:
        self._rates.look()
        self._loop.call_later(INTERVAL, self._look_at_counts)

    def _watch_loop(self, due: float) -> None:
        now = self._loop.time()
        self._loop_lag.observe(max(0.0, now - due))
        due = now + LOOP_LAG_INTERVAL
        self._loop.call_at(due, self._watch_loop, due)


async def _no_websocket(connection: ServerConnection) -> None:
    """Never called: every request gets a plain answer."""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _json(report: Any) -> Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return respond(200, json.dumps(report), **headers)
