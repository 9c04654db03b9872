"""What the tests of clients share: a clock and a relay that do what the test says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from harness import PATIENCE
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from relayd import protocol

SILENCE = "…"
"""No answer at all."""


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Streamer:
    """A streamer at a fake relay: its registration and its connection.

    Attributes:
        request: Its first message.
    """

    def __init__(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        self.request = request
        self._connection = connection

    async def receive(self, count: int) -> list[str | bytes]:
        """Return the next messages; of those that are text, the type."""
        async with asyncio.timeout(PATIENCE):
            messages = [await self._connection.recv() for _ in range(count)]
        return [
            json.loads(message)["type"] if isinstance(message, str) else message
            for message in messages
        ]

    async def tell(self, message: str | bytes) -> None:
        """Send a message."""
        await self._connection.send(message)

    async def close(self, code: int, reason: str = "") -> None:
        """Close the connection."""
        await self._connection.close(code, reason)

    def cut_off(self) -> None:
        """Let the connection break, without a word."""
        self._connection.transport.abort()

    async def end(self) -> int | None:
        """Wait for the end of the connection; return the code that the streamer closed it with."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self._connection.recv()
        received = self._connection.protocol.close_rcvd
        return received and received.code


class FakeRelay:
    """A relay that answers each streamer in turn with what the test has prepared.

    Attributes:
        url: Where it is.
        requests: How many WebSockets have been asked for.
        answers: The messages to answer with, each once, or SILENCE; None breaks the connection, and
            a number below 1000 is an HTTP status, any other a close code.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.answers: list[str | int | None] = []
        self._streamers: asyncio.Queue[Streamer] = asyncio.Queue()

    async def streamer(self) -> Streamer:
        """Wait for the next streamer that gets an answer."""
        async with asyncio.timeout(PATIENCE):
            return await self._streamers.get()

    def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Count the request; refuse it if that is the answer."""
        self.requests += 1
        answer = self.answers[0]
        if not isinstance(answer, int) or answer >= 1000:
            return None
        del self.answers[0]
        return connection.respond(HTTPStatus(answer), "no\n")

    async def handle(self, connection: ServerConnection) -> None:
        """Answer a streamer's first message; hand the streamer to the test."""
        request = json.loads(await connection.recv())
        answer = self.answers.pop(0)
        if answer is None:
            connection.transport.abort()
        elif isinstance(answer, int):
            await connection.close(answer)
        else:
            if answer != SILENCE:
                await connection.send(answer)
            self._streamers.put_nowait(Streamer(connection, request))
        await connection.wait_closed()


@contextlib.asynccontextmanager
async def fake_relay(*answers: str | int | None) -> AsyncIterator[FakeRelay]:
    """Run a fake relay with these answers."""
    relay = FakeRelay()
    relay.answers += answers
    async with serve(
        relay.handle, "127.0.0.1", 0, process_request=relay.process_request, close_timeout=0.1
    ) as server:
        relay.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield relay


def resumable(token: str, *, resumed: bool = False) -> str:
    """Build the answer of a relay that grants what relayctl asks for."""
    return protocol.registered("abc", ("resume", "viewers"), token, resumed=resumed)
