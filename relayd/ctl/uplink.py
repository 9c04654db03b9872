"""A streamer's place on a server, which outlives the connections to it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .. import protocol
from ..protocol import Register
from . import client, media
from .backoff import Backoff
from .client import ClientError, ConnectionLost, Refused
from .cutting import Frame, VideoFormat
from .splice import Splice

FEATURES = ("resume", "viewers")
"""What a server is asked for; all works without, but for what they are named after."""

_PATH = "/ws/stream"


class Uplink:
    """A stream on a server, while its context lasts: registered, and resumed when it was cut off.

    The first connection is made on entry, and only once. Later ones are, where the server has
    granted that the stream may be resumed, while `keep` runs. The last is closed with 1000.

    Attributes:
        stream_id: The id under which it is registered.
        viewers: How many watch, None while that is not known.
    """

    def __init__(
        self,
        server: str,
        stream_id: str | None,
        video_format: VideoFormat,
        backoff: Backoff | None = None,
    ) -> None:
        """Take the stream's id, None for one that the server draws, and what is known of it."""
        self.stream_id = ""
        self.viewers: int | None = None
        self._server = server
        self._request = Register(stream_id, video_format or None, FEATURES)
        self._backoff = backoff or Backoff()
        self._splice = Splice()
        self._opened = asyncio.Event()
        self._connection: ClientConnection
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Uplink":
        """Register the stream.

        Raises:
            ClientError: If the server can't be reached or refuses.
        """
        await self._connect()
        self._opened.set()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(exc_type, exc, traceback)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._opened.is_set()

    async def wait_open(self) -> None:
        """Wait until there is a connection."""
        await self._opened.wait()

    def admits(self, frame: Frame) -> bool:
        """Return whether a decoder could go on with this frame: else `send` would drop it."""
        return self._splice.admits(frame)

    async def send(self, frame: Frame) -> bool:
        """Send a frame; return whether it was.

        It is dropped where there is no connection, and after there was none until the next
        keyframe, before which the last config is sent again.
        """
        admitted = self._splice.admit(frame)
        if not self.is_open:
            return False
        try:
            for each in admitted:
                await self._send(each)
        except ConnectionClosed:
            self._lose()
            return False
        return bool(admitted)

    async def keep(self, say: Callable[[str], None]) -> NoReturn:
        """Heed the server; when the connection is lost, get another, and say so in a line each.

        Raises:
            ClientError: If the server ends the stream or refuses to go on with it, if it does not
                let it be resumed, or if it can't be reached for the backoff's patience.
        """
        clock = asyncio.get_running_loop().time
        delays = self._backoff.delays()
        while True:
            began = clock()
            closed = await self._listen()
            if clock() - began >= self._backoff.steady:
                delays = self._backoff.delays()
            loss = client.closed(self._server, closed)
            if self._request.resume_token is None or not isinstance(loss, ConnectionLost):
                raise loss
            say(f"connection lost ({client.close_reason(closed)}), reconnecting")
            was_resumed = await self._come_back(loss, delays)
            # What was on its way when the connection broke may be lost.
            self._splice.interrupt()
            self._opened.set()
            say("resumed" if was_resumed else "reconnected, as a new stream: the old one had ended")

    async def _connect(self) -> bool:
        """Open a connection and register; return whether that resumed the stream."""
        known = media.describe(self._splice.sample) or self._request.format
        request = replace(self._request, format=known)
        async with contextlib.AsyncExitStack() as attempt:
            connection = await attempt.enter_async_context(client.opened(self._server, _PATH))
            reply = await client.ask(connection, protocol.register(request), "registered")
            self._stack.push_async_exit(attempt.pop_all())
        self._connection = connection
        self.stream_id, token = reply["stream_id"], reply.get("resume_token")
        self._request = replace(
            request,
            stream_id=self.stream_id,
            resume_token=token if isinstance(token, str) else None,
        )
        return reply.get("resumed") is True

    async def _come_back(self, error: ConnectionLost, delays: Iterator[float]) -> bool:
        """Connect again, after each of these delays; return whether that resumed the stream.

        Raises:
            ClientError: If the server refuses, or the last reason when patience is at its end.
        """
        await self._stack.aclose()
        try:
            async with asyncio.timeout(self._backoff.patience):
                for delay in delays:
                    await asyncio.sleep(delay)
                    try:
                        return await self._connect()
                    except ConnectionLost as exc:
                        error = exc
                    except Refused as exc:
                        raise _explain(exc) from None
        except TimeoutError:
            pass
        raise error

    async def _listen(self) -> ConnectionClosed:
        """Heed what the server says until the connection ends; return how it did."""
        try:
            while True:
                self._heed(await self._connection.recv())
        except ConnectionClosed as exc:
            self._lose()
            return exc

    def _heed(self, message: str | bytes) -> None:
        with contextlib.suppress(protocol.InvalidMessage):
            fields = protocol.parse(message)
            if fields["type"] == "viewers" and type(fields.get("count")) is int:
                self.viewers = fields["count"]

    def _lose(self) -> None:
        self._opened.clear()
        self.viewers = None

    async def _send(self, frame: Frame) -> None:
        if frame.mark is not None:
            await self._connection.send(protocol.mark(frame.mark))
        await self._connection.send(frame.data)


def _explain(refusal: Refused) -> ClientError:
    if refusal.answer == protocol.StreamIdInUse.message:
        return ClientError("the stream can't be resumed: another streamer has its id now")
    return refusal
