"""`relayctl watch`: receive the frames of a stream as a viewer."""

import os
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .. import protocol
from . import client
from .client import ClientError
from .meter import LiveLine, Meter
from .tasks import in_thread

STDOUT = "-"
_STDOUT_DESCRIPTOR = 1


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
        await client.ask(connection, protocol.subscribe(stream_id), "subscribed")
        meter = Meter()
        try:
            descriptor = await in_thread(_open, output) if output is not None else None
            async with LiveLine(meter):
                async for frame in _frames(connection):
                    meter.count(len(frame))
                    if descriptor is not None:
                        await in_thread(_write, descriptor, frame)
        except BrokenPipeError:
            return
        except OSError as exc:
            name = "standard output" if output == STDOUT else output
            reason = (exc.strerror or str(exc)).lower()
            raise ClientError(f"cannot write {name}: {reason}") from None


async def _frames(connection: ClientConnection) -> AsyncIterator[bytes]:
    """Yield the frames of the stream until it ends."""
    while True:
        try:
            message = await connection.recv()
        except ConnectionClosed as exc:
            if exc.rcvd is not None and exc.rcvd.code == protocol.CloseCode.NORMAL:
                return
            raise
        if isinstance(message, bytes):
            yield message
        elif _is_end(message):
            return


def _is_end(message: str) -> bool:
    try:
        return bool(protocol.parse(message)["type"] == "stream_ended")
    except protocol.InvalidMessage:
        return False


def _open(output: str) -> int:
    if output == STDOUT:
        return _STDOUT_DESCRIPTOR
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    return os.open(output, flags, 0o666)


def _write(descriptor: int, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
