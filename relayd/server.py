"""The serve loop: start, routing, signals, stop."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN, State
from websockets.server import ServerProtocol

from . import __version__, process
from .admin import Admin
from .config import Config
from .connection import Connection, format_address
from .forwarded import client_address
from .handlers import http
from .handlers.opening import client_log
from .handlers.stream import stream
from .handlers.view import view
from .protocol import SIGNALLING_LIMIT, CloseCode, Refusal, error
from .session import Registry
from .systemd import Notifier
from .tls import Certificate, CertificateError

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

HANDSHAKE_PATIENCE = 0.2
"""Seconds that clients have whose connection was accepted just before the relay stopped listening:
their request is on its way."""

ADMIN = "admin"
"""Name of the socket for the operator's port, where a service manager hands one over."""

STATUS_INTERVAL = 2.0
"""Seconds between two looks at what the service manager is told."""

SPARE_FILES = 64
"""File descriptors that the process needs beside its connections."""


class StartError(Exception):
    """The relay can't run; the text is one line that says why."""


class Relay:
    """One relay: its streams, its connections and its listening sockets.

    It belongs to the event loop that it is made in.

    Args:
        config: The settings.
        notifier: Who is told of the relay's life.
        sockets: Listening sockets from a service manager, each with its name.
    """

    def __init__(
        self,
        config: Config,
        notifier: Notifier | None = None,
        sockets: Sequence[tuple[str, socket.socket]] = (),
    ) -> None:
        self.config = config
        self._notifier = notifier or Notifier({})
        self.registry = Registry(config, asyncio.get_running_loop())
        self._http = http.Responder(config, self.registry)
        self._sockets = [sock for name, sock in sockets if name != ADMIN]
        self._admin_sockets = [sock for name, sock in sockets if name == ADMIN]
        self._certificate: Certificate | None = None
        self._connections: set[Connection] = set()
        self._stop = asyncio.Event()
        self._is_closing = False

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
            StartError: If the relay can't listen, or has no certificate that it can use.
        """
        process.raise_file_limit(self.config.max_connections + SPARE_FILES)
        process.keep_freed_memory()
        self._load_certificate()
        with (
            process.signals_call(self.stop, "SIGINT", "SIGTERM"),
            process.signals_call(self.reload, "SIGHUP"),
        ):
            servers = await self.listen()
            admin_servers = await self._listen_for_operator()
            process.collect_rarely()
            self._notifier.ready()
            self._report()
            await self._stop.wait()
            self._notifier.stopping(self.config.drain_timeout)
            await self._drain()
            # Whoever comes from now on is left to the next relay, or gets to another one.
            for server in servers:
                server.close(close_connections=False)
                # The library would answer 503 to those that are in their handshake.
                server.is_serving = _always  # type: ignore[method-assign]
            await asyncio.sleep(0)  # close() stops listening in a task of its own
            await self._close_connections()
            for server in admin_servers:
                server.close()
            for server in (*servers, *admin_servers):
                await server.wait_closed()
        logger.info("stopped")

    def stop(self) -> None:
        """Stop cleanly; when called again, at once."""
        if self.draining:
            self._abort()
        self._stop.set()

    def reload(self) -> None:
        """Read the certificate again; a broken one is not used."""
        if self._certificate is None:
            logger.info("nothing to reload: there is no TLS_CERT")
            return
        self._notifier.reloading()
        try:
            self._certificate.reload()
        except CertificateError as exc:
            logger.error("kept the old certificate: %s", exc)
        else:
            logger.info("reloaded the certificate")
        self._notifier.ready()

    def _load_certificate(self) -> None:
        if self.config.tls_cert is not None:
            try:
                self._certificate = Certificate(self.config.tls_cert, self.config.tls_key)
            except CertificateError as exc:
                raise StartError(str(exc)) from None

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
            raise _cannot_listen(config.host, config.port, exc) from None
        for address in _addresses(servers):
            logger.info("relayd %s listening on %s", __version__, address)
        return servers

    async def _listen_for_operator(self) -> list[Server]:
        """Listen on the operator's port, on every socket handed over for it and on one's own.

        Raises:
            StartError: If that can't be done.
        """
        config = self.config
        if not self._admin_sockets and config.admin_port is None:
            return []
        admin = Admin(
            config, self.registry, self._connections, lambda: self.draining, self._certificate
        )
        servers = [await admin.serve(sock=sock) for sock in self._admin_sockets]
        if config.admin_port is not None:
            try:
                where = {"host": config.admin_host, "port": config.admin_port}
                servers.append(await admin.serve(**where))
            except OSError as exc:
                raise _cannot_listen(config.admin_host, config.admin_port, exc) from None
        for address in _addresses(servers):
            logger.info("operator's port on %s", address)
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
            # A viewer is paused as soon as the kernel refuses one byte. With TLS a limit of 0 would
            # pause it after every write: sslproto.py of asyncio compares by >=, and so does uvloop.
            write_limit=(1, 0) if self._certificate else 0,
            logger=logging.getLogger("relayd.websockets"),
            create_connection=cast(type[ServerConnection], self._create_connection),
            backlog=BACKLOG,
            ssl=self._certificate.context if self._certificate else None,
            **where,
        )

    def _create_connection(
        self, protocol: ServerProtocol, server: Server, **settings: Any
    ) -> Connection:
        self.registry.counters.connections += 1
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
        assert isinstance(connection, Connection)  # noqa: S101  # for mypy
        address, forwarded = connection.remote_address, request.headers.get_all("X-Forwarded-For")
        if forwarded and self.config.trusted_proxies and isinstance(address, tuple):
            connection.peer = client_address(
                connection.peer, address[0], forwarded, self.config.trusted_proxies
            )
        full = self.connection_count > self.config.max_connections
        # Without a drain, who comes between the signal and the end is closed like the others.
        closing = self._is_closing or not self.config.drain_timeout
        response = self._http.answer(request, draining=self.draining, closing=closing, full=full)
        if response is not None and response.status_code == HTTPStatus.FORBIDDEN:
            origin = ", ".join(request.headers.get_all("Origin"))
            who = {"peer": connection.peer}
            logger.info("refused: origin %.200r is not allowed", origin, extra=who)
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
        if self._is_closing:
            connection.end(CloseCode.SERVICE_RESTART)
        try:
            if is_streamer:
                await stream(connection, self.registry, self.config)
            else:
                await view(connection, target.stream_id, self.registry, self.config)
        except Refusal as refusal:
            self.registry.counters.refusals[refusal.reason()] += 1
            connection.send_text(error(refusal))
            connection.end(refusal.code)
            log.info("refused: %s", refusal)
        except ConnectionClosed:
            log.info("%s before its first message", connection.ending)

    async def _drain(self) -> None:
        """Let clients go on for DRAIN_TIMEOUT, or until all have left; new ones are refused."""
        logger.info(
            "stopping: %d streams, %d viewers; a second signal stops at once",
            self.registry.stream_count,
            self.registry.viewer_count,
        )
        await _ended(self._in_state(OPEN), self.config.drain_timeout)

    async def _close_connections(self) -> None:
        """Close the connections that are left, a few at a time."""
        self._is_closing = True
        clients = self._in_state(OPEN)
        clients.sort(key=lambda c: not c.is_viewer)  # the end of a stream would be that of them all
        if clients:
            logger.info("closing %d connections", len(clients))
        step = round(CLOSES_PER_SECOND * CLOSE_STEP)
        for first in range(0, len(clients), step):
            for client in clients[first : first + step]:
                client.end(CloseCode.SERVICE_RESTART)
            await asyncio.sleep(CLOSE_STEP)
        if not await _ended(clients, CLOSE_PATIENCE):
            logger.warning("some clients did not answer the close frame")
        await _ended(self._in_state(CONNECTING), HANDSHAKE_PATIENCE)
        self._abort()

    def _in_state(self, state: State) -> list[Connection]:
        return [connection for connection in self._connections if connection.state is state]

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


def _always() -> bool:
    return True


async def _ended(clients: Iterable[Connection], seconds: float) -> bool:
    """Wait for the end of these connections; tell whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            for client in clients:
                await client.wait_closed()
    except TimeoutError:
        return False
    return True


def _addresses(servers: Iterable[Server]) -> list[str]:
    """Return where these servers listen."""
    return [format_address(sock.getsockname()) for server in servers for sock in server.sockets]


def _cannot_listen(host: str, port: int, exc: OSError) -> StartError:
    reason = exc.strerror or str(exc)
    if exc.errno and exc.errno > 0:  # not a resolver's; asyncio's text repeats the address
        reason = os.strerror(exc.errno)
    return StartError(f"cannot listen on {host}:{port}: {reason}")
