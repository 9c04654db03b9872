"""`relayctl publish`: push frames to relayd as a streamer."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection

from .. import protocol
from . import client
from .meter import LiveLine, Meter
from .pace import Schedule
from .tasks import until_first


async def publish(
    server: str, stream_id: str | None, frames: AsyncIterator[bytes], schedule: Schedule | None
) -> None:
    """Register a stream, with an id or a generated one, and send frames until there are no more.

    The stream exists before the first frame is asked for, so that viewers may join a source that
    has nothing to show yet. Without a schedule frames go out as they come.

    Raises:
        ClientError: If the server can't be reached, refuses or goes away.
    """
    async with client.opened(server, "/ws/stream") as connection:
        stream_id = await client.ask(connection, protocol.register(stream_id), "registered")
        _announce(server, stream_id)
        meter = Meter()
        async with LiveLine(meter):
            await until_first(
                _send(connection, frames, schedule, meter),
                _ignore_replies(connection),
            )


def watch_command(server: str, stream_id: str) -> str:
    """Return the command line that shows the stream."""
    words = ["relayctl", "watch"]
    if server != client.DEFAULT_SERVER:
        words += ["--server", server]
    if stream_id.startswith("-"):
        words.append("--")
    return shlex.join([*words, stream_id])


def _announce(server: str, stream_id: str) -> None:
    """Print the id, alone for a script to read, on a terminal with what to do with it."""
    if sys.stdout.isatty():
        print(f"Publishing {stream_id}. To watch it:  {watch_command(server, stream_id)}")
    else:
        print(stream_id, flush=True)


async def _send(
    connection: ClientConnection,
    frames: AsyncIterator[bytes],
    schedule: Schedule | None,
    meter: Meter,
) -> None:
    async for frame in frames:
        if schedule is not None:
            await asyncio.sleep(schedule.next_delay())
        await connection.send(frame)
        meter.count(len(frame))


async def _ignore_replies(connection: ClientConnection) -> None:
    """Read what the server says, so that its close is noticed while no frame is sent.

    Raises:
        ConnectionClosed: In the end, whoever closed.
    """
    while True:
        await connection.recv()
