"""A client's connection: the library's, and what a relay needs of it beyond that."""

import asyncio
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import CONT, TEXT, Frame
from websockets.http11 import MAX_LINE_LENGTH
from websockets.protocol import OPEN, Event
from websockets.server import ServerProtocol

from .protocol import SIGNALLING_LIMIT, CloseCode
from .relay import Viewer

FULL_HEADROOM = 100
"""TCP connections accepted past MAX_CONNECTIONS, so that a full relay still answers plain HTTP."""

UNSENT_LIMIT = 2**20
"""Bytes that may wait in the transport beside frames: pongs to a client that never reads them."""

_ENDINGS: dict[int, str] = {CloseCode.NORMAL: "ended", CloseCode.SERVICE_RESTART: "shutdown"}


class RequestGate:
    """Lets a GET request through, and of any other one only its first line.

    Nothing else of it is needed to answer it, and the library hangs up on a request that has a
    body, without an answer.
    """

    def __init__(self) -> None:
        self.open = False
        self._held: bytearray | None = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return what to parse of the request so far, possibly nothing."""
        if self._held is None:
            return b""
        self._held += data
        head, line_end, _ = self._held.partition(b"\r\n")
        if self._held.startswith(b"GET ") or len(head) > MAX_LINE_LENGTH:
            self.open = True
            return bytes(self._held)
        if not line_end:
            return b""
        self._held = None
        return bytes(head) + b"\r\n\r\n"


class Connection(ServerConnection):
    """One client's connection.

    It never waits for the kernel to take bytes: a viewer's frames wait in its `Viewer`, and
    nothing else that relayd sends is large.

    Args:
        peers: The open connections of this relay; this one adds and removes itself.
        max_connections: MAX_CONNECTIONS.
        max_frame_size: The largest binary message that the relay takes, in bytes.
    """

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        peers: set["Connection"],
        max_connections: int,
        max_frame_size: int,
        **settings: Any,
    ) -> None:
        super().__init__(protocol, server, **settings)
        self.peer = ""
        self._peers = peers
        self._max_peers = max_connections + FULL_HEADROOM
        self._unsent_limit = max_frame_size + UNSENT_LIMIT
        self._gate: RequestGate | None = RequestGate()
        self._text_size: int | None = None
        self._viewer: Viewer | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> str:
        """How the connection ended, in a word or a few, for the log."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        if sent is None:
            return "lost"
        if self.protocol.close_rcvd_then_sent and received is not None:
            return "left" if received.code in (1000, 1001, 1005) else f"left: {received}"
        return _ENDINGS.get(sent.code) or f"closed: {sent}"

    def limit_messages(self, size: int) -> None:
        """Take binary messages of at most this many bytes from the next message on."""
        self.protocol.max_message_size = size

    def attach(self, viewer: Viewer) -> None:
        """Tell this viewer from now on when the kernel is full, and when it is not."""
        self._viewer = viewer
        if self.protocol.state is not OPEN:
            viewer.close()
        elif self.paused:
            viewer.pause()

    def write(self, data: bytes) -> None:
        """Send whole messages, without waiting. Never raises."""
        try:
            self.transport.write(data)
        # The transport has broken or half-closed; connection_lost() is on its way.
        except (OSError, RuntimeError):
            if self._viewer is not None:
                self._viewer.close()

    def end(self, code: int) -> None:
        """Start the closing handshake, at once; no error if it has begun."""
        if self.protocol.state is OPEN:
            self.protocol.send_close(code)
            self._flush()

    def closing(self) -> None:
        """Close the TCP connection after the close timeout, whatever the client does."""
        if self._abort_timer is None and self.close_timeout is not None:
            self._abort_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    # Hooks of the library.

    async def drain(self) -> None:
        """Don't wait: a ping to a viewer that does not read must still time out."""

    def send_data(self) -> None:
        """Send what the library has to send; after a close frame, nothing of ours may follow."""
        super().send_data()
        if self.protocol.close_expected():
            self.closing()
            if self._viewer is not None:
                self._viewer.close()
            # After a ping that was not answered, a close frame will not be either.
            sent = self.protocol.close_sent
            if sent is not None and sent.code == CloseCode.INTERNAL_ERROR:
                self.transport.close()

    def process_event(self, event: Event) -> None:
        """Hold text messages to the limit of signalling, also when they come in fragments."""
        if isinstance(event, Frame) and self._is_oversized_text(event):
            self.protocol.fail(CloseCode.MESSAGE_TOO_BIG, f"text over {SIGNALLING_LIMIT} bytes")
            self._flush()
        else:
            super().process_event(event)

    def _is_oversized_text(self, frame: Frame) -> bool:
        if frame.opcode is TEXT:
            self._text_size = 0
        elif frame.opcode is not CONT:
            return False
        if self._text_size is None:
            return False
        self._text_size += len(frame.data)
        oversized = self._text_size > SIGNALLING_LIMIT
        if frame.fin:
            self._text_size = None
        return oversized

    def _flush(self) -> None:
        try:
            self.send_data()
        except (OSError, RuntimeError) as exc:
            self.set_connection_exc(exc)

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part, unless there are too many already."""
        super().connection_made(transport)
        self.peer = format_address(self.remote_address)
        self._peers.add(self)
        if len(self._peers) > self._max_peers:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._peers.discard(self)
        if self._viewer is not None:
            self._viewer.close()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came in; hang up on a client that asks for pongs and never reads them."""
        if self._gate is not None:
            data = self._gate.feed(data)
            if self._gate.open:
                self._gate = None
            if not data:
                return
        super().data_received(data)
        if self.paused and self.transport.get_write_buffer_size() > self._unsent_limit:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Let a viewer's frames wait: the kernel is full."""
        super().pause_writing()
        if self._viewer is not None:
            self._viewer.pause()

    def resume_writing(self) -> None:
        """Let a viewer's frames flow: the kernel has taken all."""
        super().resume_writing()
        if self._viewer is not None:
            self._viewer.resume()


def format_address(address: Any) -> str:
    """Write a socket's address as in a URL: ``192.0.2.7:5312``, ``[2001:db8::7]:5312``."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "local socket"
