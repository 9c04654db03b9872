"""The serve loop: start, routing, signals, stop."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from . import __version__
from .config import Config
from .connection import Connection, format_address
from .handlers import http
from .handlers.opening import client_log
from .handlers.stream import stream
from .handlers.view import view
from .protocol import SIGNALLING_LIMIT, CloseCode, Refusal, error
from .session import Registry
from .systemd import Notifier

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0
"""Seconds that a client has to answer a close frame (the default of websockets)."""

BACKLOG = 1024
"""Connections that may wait to be accepted: asyncio's 100 are too few when all viewers of a
restarted relay come back at once."""

CLOSES_PER_SECOND = 1000
"""How fast a relay that stops lets its clients go: each comes back at once, most to one that has
just started, and a handshake takes it a third of a millisecond."""

CLOSE_STEP = 0.02
"""Seconds between some of these closes and the next."""

CLOSE_PATIENCE = 2.0
"""Seconds that clients have to answer the last of these closes."""

STATUS_INTERVAL = 2.0
"""Seconds between two looks at what the service manager is told."""

SPARE_FILES = 64
"""File descriptors that the process needs beside its connections."""


KEPT_MEMORY = 8 * 2**20
"""Size in bytes of blocks that the allocator may keep; it keeps at most two of them."""


FULL_COLLECTION_THRESHOLD = 1000
"""Collections of the middle generation before a full one (10 by default): some seven million
objects more than were freed, or 70,000 connections."""


class StartError(Exception):
    """The relay can't run; the text is one line that says why."""


class Relay:
    """One relay: its streams, its connections and its listening sockets.

    It belongs to the event loop that it is made in.
    """

    def __init__(
        self,
        config: Config,
        notifier: Notifier | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.config = config
        self._notifier = notifier or Notifier({})
        self.registry = Registry(config, asyncio.get_running_loop())
        self._http = http.Responder(config, self.registry)
        self._sockets = sockets
        self._connections: set[Connection] = set()
        self._stop = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the relay is about to stop."""
        return self._stop.is_set()

    @property
    def connection_count(self) -> int:
        """The number of open connections of every kind."""
        return len(self._connections)

    async def run(self) -> None:
        """Serve until a signal says stop.

        Raises:
            StartError: If the relay can't listen.
        """
        _raise_file_limit(self.config.max_connections + SPARE_FILES)
        _keep_freed_memory()
        _collect_rarely()
        with _signals_call(self.stop):
            servers = await self.listen()
            self._notifier.ready()
            self._report()
            await self._stop.wait()
            self._notifier.stopping()
            await self._drain()
            for server in servers:
                server.close(close_connections=False)
            await asyncio.sleep(0)  # close() stops listening in a task of its own
            self._abort()
            for server in servers:
                await server.wait_closed()
        logger.info("stopped")

    def stop(self) -> None:
        """Stop cleanly; when called again, at once."""
        if self.draining:
            self._abort()
        self._stop.set()

    async def listen(self) -> list[Server]:
        """Listen on the sockets that the service manager hands over, else on one's own.

        Raises:
            StartError: If that can't be done.
        """
        config = self.config
        try:
            if self._sockets:
                servers = [await self._serve(sock=sock) for sock in self._sockets]
            else:
                servers = [await self._serve(host=config.host, port=config.port)]
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if exc.errno and exc.errno > 0:  # not a resolver's; asyncio's text repeats the address
                reason = os.strerror(exc.errno)
            raise StartError(f"cannot listen on {config.host}:{config.port}: {reason}") from None
        for sock in (sock for server in servers for sock in server.sockets):
            address = format_address(sock.getsockname())
            logger.info("relayd %s listening on %s", __version__, address)
        return servers

    async def _serve(self, **where: Any) -> Server:
        config = self.config
        return await serve(
            self._handle,
            compression=None,
            process_request=self._process_request,
            server_header="relayd",
            open_timeout=config.register_timeout,
            ping_interval=config.ping_interval or None,
            ping_timeout=config.ping_timeout or None,
            close_timeout=CLOSE_TIMEOUT,
            max_size=SIGNALLING_LIMIT,
            # A viewer is paused as soon as the kernel refuses one byte.
            write_limit=0,
            logger=logging.getLogger("relayd.websockets"),
            create_connection=cast(type[ServerConnection], self._create_connection),
            backlog=BACKLOG,
            **where,
        )

    def _create_connection(
        self, protocol: ServerProtocol, server: Server, **settings: Any
    ) -> Connection:
        return Connection(
            protocol,
            server,
            peers=self._connections,
            max_connections=self.config.max_connections,
            max_frame_size=self.config.max_frame_size,
            max_lag=self.config.max_lag,
            stall_timeout=self.config.stall_timeout,
            **settings,
        )

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        full = self.connection_count > self.config.max_connections
        response = self._http.answer(request, draining=self.draining, full=full)
        if response is not None and response.status_code == HTTPStatus.FORBIDDEN:
            peer = format_address(connection.remote_address)
            origin = ", ".join(request.headers.get_all("Origin"))
            logger.info("refused: origin %.200r is not allowed", origin, extra={"peer": peer})
        return response

    async def _handle(self, connection: ServerConnection) -> None:
        """Serve one WebSocket; the one place where a refusal becomes bytes."""
        assert isinstance(connection, Connection)  # noqa: S101  # for mypy
        assert connection.request is not None  # noqa: S101
        target = http.resolve(connection.request.path)
        assert target is not None  # noqa: S101  # process_request() refused it
        connection.forget_handshake()
        is_streamer = target.endpoint is http.Endpoint.STREAM
        log = client_log("streamer" if is_streamer else "viewer", connection, target.stream_id)
        try:
            if is_streamer:
                await stream(connection, self.registry, self.config)
            else:
                await view(connection, target.stream_id, self.registry, self.config)
        except Refusal as refusal:
            connection.send_text(error(refusal))
            connection.end(refusal.code)
            log.info("refused: %s", refusal)
        except ConnectionClosed:
            log.info("%s before its first message", connection.ending)

    async def _drain(self) -> None:
        """Let clients go on for DRAIN_TIMEOUT, then let those go that are left, a few at a time."""
        logger.info(
            "stopping: %d streams, %d viewers; a second signal stops at once",
            self.registry.stream_count,
            self.registry.viewer_count,
        )
        # New ones are refused from now on.
        clients = [c for c in self._connections if c.state is OPEN]
        if await _ended(clients, self.config.drain_timeout):
            return
        clients = [c for c in clients if c.state is OPEN]
        clients.sort(key=lambda c: not c.is_viewer)  # the end of a stream would be that of them all
        logger.info("closing %d connections", len(clients))
        step = round(CLOSES_PER_SECOND * CLOSE_STEP)
        for first in range(0, len(clients), step):
            for client in clients[first : first + step]:
                client.end(CloseCode.SERVICE_RESTART)
            await asyncio.sleep(CLOSE_STEP)
        if not await _ended(clients, CLOSE_PATIENCE):
            logger.warning("some clients did not answer the close frame")

    def _report(self) -> None:
        """Tell the service manager what goes on, again and again as long as the loop turns."""
        if not self._notifier.is_listening:
            return
        self._notifier.alive()
        streams, viewers = self.registry.stream_count, self.registry.viewer_count
        self._notifier.status(f"{streams} streams, {viewers} viewers")
        interval = min(STATUS_INTERVAL, self._notifier.watchdog_interval or STATUS_INTERVAL)
        asyncio.get_running_loop().call_later(interval, self._report)

    def _abort(self) -> None:
        for connection in self._connections:
            connection.transport.abort()


async def _ended(clients: Iterable[Connection], seconds: float) -> bool:
    """Wait for the end of these connections; tell whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            for client in clients:
                await client.wait_closed()
    except TimeoutError:
        return False
    return True


@contextlib.contextmanager
def _signals_call(callback: Callable[[], None]) -> Iterator[None]:
    """Call back on SIGINT and SIGTERM, on every platform and event loop."""
    loop = asyncio.get_running_loop()

    def handle(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_file_limit(needed: int) -> None:
    """Raise the soft limit of open files to the hard one; warn if even that is too low."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        logger.warning("MAX_CONNECTIONS needs %d open files, the limit is %d", needed, hard)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of one frame for the next.

    By default it returns a large block to the kernel as soon as it is free, and faults it in again
    for the next frame: two thirds of the CPU time at 128 KiB a frame. To free one larger block
    raises the bounds (mallopt(3), M_MMAP_THRESHOLD); another allocator does not care.
    """
    bytearray(KEPT_MEMORY)


def _collect_rarely() -> None:
    """Keep the garbage collector from looking at every connection while thousands come in.

    A full collection with 5,000 viewers holds up every stream for 200 ms. There is next to nothing
    for it to find: a connection that ends frees itself, without cycles. The young generations, a
    millisecond each, stay as they are.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTION_THRESHOLD)
