"""`relayctl watch`: receive the frames of a stream as a viewer."""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .. import protocol
from ..protocol import Subscribe
from . import client
from .client import ClientError
from .lag import Lag, measured
from .meter import LiveLine, Meter, counted
from .tasks import in_thread

STDOUT = "-"
_STDOUT_DESCRIPTOR = 1

FEATURES = ("gaps", "status")
"""What a server is asked for; all works without, but for what they are named after."""


async def watch(server: str, stream_id: str, output: str | None) -> None:
    """Subscribe to a stream and count its frames; write them to a file, if there is one.

    The file is opened only for a stream that exists, and never closed: the program ends with it,
    and until then a thread may write to it. While it takes nothing, nothing is read from the
    server. A pipe whose reader leaves ends the watching.

    Raises:
        ClientError: If the server can't be reached, refuses or goes away, or the file can't be
            written.
    """
    async with client.opened(server, f"/ws/view/{stream_id}") as connection:
        request = protocol.subscribe(Subscribe(stream_id, FEATURES))
        await client.ask(connection, request, "subscribed")
        reception = Reception()
        try:
            descriptor = await in_thread(_open, output) if output is not None else None
            async with LiveLine(reception), measured(connection, reception.lag):
                async for frame in _frames(connection, reception):
                    reception.meter.count(len(frame))
                    if descriptor is not None:
                        await in_thread(_write, descriptor, frame)
        except BrokenPipeError:
            return
        except OSError as exc:
            name = "standard output" if output == STDOUT else output
            reason = (exc.strerror or str(exc)).lower()
            raise ClientError(f"cannot write {name}: {reason}") from None


class Reception:
    """How well a stream arrives. Pure, but for the clock.

    Attributes:
        meter: Counts the frames.
        lag: How late they are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.meter = Meter(clock)
        self.lag = Lag(clock)
        self._lost = 0
        self._gaps = 0
        self._pauses = 0
        self._is_paused = False

    def heed(self, fields: Mapping[str, Any]) -> None:
        """Take note of what the server says."""
        match fields:
            case {"type": "gap", "frames": int(frames)}:
                self._lost += frames
                self._gaps += 1
            case {"type": "stream_paused"}:
                self._pauses += 1
                self._is_paused = True
            case {"type": "stream_resumed"}:
                self._is_paused = False

    def line(self) -> str:
        """Return how the stream arrives now."""
        parts = [
            self.meter.line(),
            f"{self._lost} lost" if self._gaps else "",
            f"lag {_duration(self.lag.newest)}" if self.lag.newest is not None else "",
            "paused" if self._is_paused else "",
        ]
        return "   ".join(filter(None, parts))

    def summary(self) -> str:
        """Return how it has arrived."""
        parts = [
            self.meter.summary(),
            f"{self._lost} lost in {counted(self._gaps, 'gap')}" if self._gaps else "",
            counted(self._pauses, "pause") if self._pauses else "",
            f"largest lag {_duration(self.lag.largest)}" if self.lag.largest is not None else "",
        ]
        return "; ".join(filter(None, parts))


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


async def _frames(connection: ClientConnection, reception: Reception) -> AsyncIterator[bytes]:
    """Yield the frames of the stream until it ends; let the reception heed what else comes."""
    while True:
        try:
            message = await connection.recv()
        except ConnectionClosed as exc:
            if exc.rcvd is not None and exc.rcvd.code == protocol.CloseCode.NORMAL:
                return
            raise
        if isinstance(message, bytes):
            yield message
            continue
        with contextlib.suppress(protocol.InvalidMessage):
            fields = protocol.parse(message)
            if fields["type"] == "stream_ended":
                return
            reception.heed(fields)


def _open(output: str) -> int:
    if output == STDOUT:
        return _STDOUT_DESCRIPTOR
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    return os.open(output, flags, 0o666)


def _write(descriptor: int, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
