"""A client's connection: the library's, and what a relay needs of it beyond that."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from websockets.asyncio.messages import MAX_FRAGMENTS
from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.frames import CONT, DATA_OPCODES, TEXT, Frame
from websockets.protocol import OPEN, Event
from websockets.server import ServerProtocol

from .framing import FrameReader, RequestGate
from .protocol import SIGNALLING_LIMIT, CloseCode
from .relay.fanout import BROKEN, Viewer
from .relay.frames import binary_frame, text_frame
from .sendqueue import MAX_DELAY, SendQueue
from .throttle import Throttle

FULL_HEADROOM = 100
"""TCP connections accepted past MAX_CONNECTIONS, so that a full relay still answers plain HTTP."""

UNSENT_LIMIT = 2**20
"""Bytes that may wait in the transport beside frames: pongs to a client that never reads them."""

FULL_READ = 250_000
"""Bytes of a read that has filled the buffer: uvloop's is of 256,000, asyncio's of 262,144."""

PARSE_LIMIT = 5000
"""Frames other than video that a client may send in one read, at some 15 µs each: more than the
fragments that a message may have, fewer than would be felt by others."""

READ_AHEAD = 0.5
"""Seconds of MAX_STREAM_BITRATE that the kernel may read before relayd does."""

LEAST_READ_AHEAD = 64 * 1024
"""Bytes that it always may: a window of this size keeps most networks busy."""

STALL_CHECKS = 4
"""Looks at a viewer that takes nothing, in STALL_TIMEOUT."""

_ENDINGS: dict[int, str] = {
    CloseCode.NORMAL: "ended",
    CloseCode.SERVICE_RESTART: "shutdown",
    CloseCode.CONFLICT: "replaced",
}


class Connection(ServerConnection):
    """One client's connection.

    It never waits for the kernel to take bytes: a viewer's frames wait in its `Viewer`, and
    nothing else that relayd sends is large.

    Args:
        peers: The open connections of this relay; this one adds and removes itself.
        max_connections: MAX_CONNECTIONS.
        max_frame_size: The largest binary message that the relay takes, in bytes.
        max_lag: MAX_LAG, in seconds.
        stall_timeout: STALL_TIMEOUT, in seconds.
    """

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        peers: set["Connection"],
        max_connections: int,
        max_frame_size: int,
        max_lag: float,
        stall_timeout: float,
        **settings: Any,
    ) -> None:
        super().__init__(protocol, server, **settings)
        self.peer = ""
        self.write: Callable[[bytes], None]  # set by connection_made()
        self._peers = peers
        self._max_peers = max_connections + FULL_HEADROOM
        self._max_frame_size = max_frame_size
        self._gate: RequestGate | None = RequestGate()
        self._reader = FrameReader(protocol, self._parse, SIGNALLING_LIMIT)
        self._fragments: list[bytes] = []
        self._is_text = False
        self._early: list[str | bytes] = []  # messages that nobody has been there to take
        self._relay: Callable[[bytes], None] | None = None
        self._on_text: Callable[[str], None] | None = None
        self._news: asyncio.Future[None] | None = None  # somebody waits: a message, or the end
        self._parsed = 0
        self._throttle: Throttle | None = None
        self._reading_timer: asyncio.Handle | None = None
        self._viewer: Viewer | None = None
        self._send_queue: SendQueue | None = None
        self._max_delay = min(max_lag / 2, MAX_DELAY)
        self._stall_timeout = stall_timeout
        self._stall_timer: asyncio.TimerHandle | None = None
        self._is_stalled = False
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> str:
        """How the connection ended, in a word or a few, for the log."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        if self._is_stalled:
            return "stalled"
        if sent is None:
            return "lost"
        if self.protocol.close_rcvd_then_sent and received is not None:
            return "left" if received.code in (1000, 1001, 1005) else f"left: {received}"
        return _ENDINGS.get(sent.code) or f"closed: {sent}"

    @property
    def is_viewer(self) -> bool:
        """Whether frames are sent to it."""
        return self._viewer is not None

    @property
    def is_finished(self) -> bool:
        """Whether the client has closed as one does that has nothing more to send."""
        received = self.protocol.close_rcvd
        return received is not None and received.code == CloseCode.NORMAL

    def forget_handshake(self) -> None:
        """Let go of the headers, which nobody asks for again: 3 KiB a connection."""
        self.response = None
        if self.request is not None:
            self.request.headers = Headers()

    async def first_message(self) -> str | bytes:
        """Wait for the client's first message.

        Raises:
            ConnectionClosed: If the client leaves instead.
        """
        while not self._early and self.protocol.state is OPEN:
            await self._wait_for_news()
        if self._early:
            return self._early.pop(0)
        await self.wait_closed()
        raise self.close_exc

    def limit_messages(self, size: int) -> None:
        """Take binary messages of at most this many bytes from the next message on."""
        self._reader.binary_limit = size

    def hand_over(self, relay: Callable[[bytes], None], on_text: Callable[[str], None]) -> None:
        """Hand over every message from now on, in the call in which its last byte came.

        Args:
            relay: Takes each binary message, as the bytes of the frame that viewers get.
            on_text: Takes each text message.
        """
        self._relay = relay
        self._on_text = on_text
        early, self._early = self._early, []
        for message in early:
            self._deliver(message)
        self._reader.hand_over(relay)

    def limit_bitrate(self, rate: float) -> None:
        """Read no more than this many bits a second, so that TCP slows the client."""
        self._throttle = Throttle(rate / 8, self.loop.time)
        # What the kernel has read ahead delays the answers to pings.
        ahead = max(LEAST_READ_AHEAD, int(rate / 8 * READ_AHEAD))
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, ahead // 2
        )

    def attach(self, viewer: Viewer) -> None:
        """Tell this viewer from now on when the kernel is full, and when it is not."""
        self._viewer = viewer
        self._send_queue = SendQueue(self.transport.get_extra_info("socket"), self._max_delay)
        if self.protocol.state is not OPEN:
            viewer.close()
        elif self.paused:
            viewer.pause()

    def delay(self, size: int) -> float:
        """Return how many seconds the network will take for these bytes more, 0 if unknown."""
        return self._send_queue.delay(size) if self._send_queue is not None else 0.0

    def network(self) -> tuple[int, float] | None:
        """Return the bytes that have not been acknowledged and the round trip in seconds."""
        return self._send_queue.network() if self._send_queue is not None else None

    async def ended(self) -> None:
        """Wait until either side has closed, or the connection is lost."""
        while self.protocol.state is OPEN:
            await self._wait_for_news()

    def send_text(self, text: str) -> None:
        """Send a text message, without waiting; a client that is gone does not get it."""
        with contextlib.suppress(*BROKEN):
            self.write(text_frame(text))

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
        if self.paused and self._viewer is not None and self.protocol.state is OPEN:
            # A pong comes after the frames that wait, and so tells how late they are.
            if data := b"".join(self.protocol.data_to_send()):
                self._viewer.send(data)
            return
        super().send_data()
        if self.protocol.close_expected():
            self.closing()
            self._reader.settle()
            self._end()
            # After a ping that was not answered, a close frame will not be either.
            sent = self.protocol.close_sent
            if sent is not None and sent.code == CloseCode.INTERNAL_ERROR:
                if self.paused:
                    self.transport.abort()
                else:
                    self.transport.close()

    def process_event(self, event: Event) -> None:
        """Assemble messages without the library's queue, which needs a task to empty it."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        if self.protocol.state is not OPEN:
            return  # refused, yet still sending
        if event.opcode is not CONT:
            self._is_text = event.opcode is TEXT
        self._fragments.append(bytes(event.data))
        if len(self._fragments) > MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        elif event.fin:
            data = b"".join(self._fragments)
            self._fragments.clear()
            try:
                self._deliver(data.decode() if self._is_text else data)
            except UnicodeDecodeError as exc:
                self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")

    def _deliver(self, message: str | bytes) -> None:
        if self._on_text is None or self._relay is None:
            self._early.append(message)
            self._tell()
        elif isinstance(message, str):
            self._on_text(message)
        else:
            self._relay(binary_frame(message))

    async def _wait_for_news(self) -> None:
        # Not an asyncio.Event: its queue of waiters alone is 700 bytes a connection.
        self._news = self.loop.create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _parse(self, data: bytes) -> None:
        """Let the library parse bytes of one frame."""
        self._parsed += 1
        if self._parsed > PARSE_LIMIT and self.protocol.state is OPEN:
            self._fail(CloseCode.POLICY_VIOLATION, "too many small frames at once")
            self.transport.abort()
        else:
            super().data_received(data)

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.protocol.fail(code, reason)
        self._flush()

    def _flush(self) -> None:
        try:
            self.send_data()
        except BROKEN as exc:
            self.set_connection_exc(exc)

    def _end(self) -> None:
        self._tell()
        self._fragments.clear()
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part, unless there are too many already."""
        super().connection_made(transport)
        self.write = self.transport.write
        self.peer = format_address(self.remote_address)
        self._peers.add(self)
        if len(self._peers) > self._max_peers:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._peers.discard(self)
        for timer in (self._abort_timer, self._stall_timer, self._reading_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._end()
        self._break_cycles()

    def eof_received(self) -> None:
        """Don't wait until a client that is gone has read what it was sent."""
        was_open = self.protocol.state is OPEN
        super().eof_received()
        if was_open:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came in, and keep one client from holding up all others."""
        self._parsed = 0
        if self._gate is None:
            self._reader.feed(data)
        else:
            self._open_gate(data)
        if self.pending_pings:
            # Who sends is alive, and its pong may wait behind seconds of frames.
            self.acknowledge_pings(next(reversed(self.pending_pings)))
        rest = self._throttle.take(len(data)) if self._throttle is not None else 0.0
        # uvloop would go on reading; whatever that makes, the others have their turn first.
        if (rest or len(data) >= FULL_READ) and self._reading_timer is None:
            self.transport.pause_reading()
            self._reading_timer = self.loop.call_later(rest, self._read_on)
        if self.paused:
            limit, unsent = UNSENT_LIMIT, self.transport.get_write_buffer_size()
            if self._viewer is not None:
                limit += self._max_frame_size
                unsent += self._viewer.waiting_text
            if unsent > limit:
                self.transport.abort()

    def _read_on(self) -> None:
        self._reading_timer = None
        self.transport.resume_reading()

    def _break_cycles(self) -> None:
        """Free the memory of thousands of connections when they end, not some collections later."""
        self._relay = self._on_text = None
        self._reader.close()
        self.protocol.parser.close()
        for exc in (self.protocol.parser_exc, self.protocol.handshake_exc):
            # Tracebacks hold the parser, and with it the frame that was parsed last.
            error: BaseException | None = exc
            while error is not None:
                error.__traceback__ = None
                error = error.__cause__ or error.__context__

    def _open_gate(self, data: bytes) -> None:
        assert self._gate is not None  # noqa: S101  # for mypy
        head, rest = self._gate.feed(data)
        if head:
            super().data_received(head)
        if rest is not None:
            self._gate = None
            self._reader.feed(rest)

    def pause_writing(self) -> None:
        """Let a viewer's frames wait: the kernel is full."""
        super().pause_writing()
        if self._viewer is not None and self._send_queue is not None:
            self._send_queue.fit()
            self._viewer.pause()
            if self._stall_timer is None:
                self._watch_for_stall(self._taken(), self.loop.time())

    def resume_writing(self) -> None:
        """Let a viewer's frames flow: the kernel has taken all."""
        super().resume_writing()
        if self._viewer is not None:
            self._viewer.resume()

    def _taken(self) -> int:
        """Return a figure that changes whenever the client's network takes something."""
        assert self._send_queue is not None  # noqa: S101  # for mypy
        return self._send_queue.acknowledged() - self.transport.get_write_buffer_size()

    def _watch_for_stall(self, taken: int, since: float) -> None:
        """Look in a while whether a viewer has taken anything since this time."""
        self._stall_timer = self.loop.call_later(
            self._stall_timeout / STALL_CHECKS, self._look_for_stall, taken, since
        )

    def _look_for_stall(self, taken: int, since: float) -> None:
        """Give up on a viewer that has taken nothing for too long; watch any other that waits."""
        self._stall_timer = None
        if not self.paused or self._viewer is None:
            return
        now, taken_now = self.loop.time(), self._taken()
        if taken_now != taken:
            self._watch_for_stall(taken_now, now)
        elif now - since < self._stall_timeout:
            self._watch_for_stall(taken, since)
        else:
            self._is_stalled = True
            self.transport.abort()


def format_address(address: Any) -> str:
    """Write a socket's address as in a URL: ``192.0.2.7:5312``, ``[2001:db8::7]:5312``."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "local socket"
