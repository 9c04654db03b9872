"""How late what a viewer gets is: by pings, which the server answers in order with its frames."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

PING_INTERVAL = 1.0
"""Seconds from one ping to the next, if it is answered by then."""


class Lag:
    """Round trips, in seconds. Pure, but for the clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: float | None = None
        self._newest: float | None = None
        self._largest: float | None = None

    def sent(self) -> None:
        """Take note of a ping that has just been sent."""
        self._sent = self._clock()

    def answered(self) -> None:
        """Take note of the answer to it."""
        if self._sent is not None:
            self._newest = self._clock() - self._sent
            self._largest = max(self._largest or 0.0, self._newest)
            self._sent = None

    @property
    def newest(self) -> float | None:
        """The newest round trip, or for how long an answer is overdue; None before any ping."""
        return self._with_overdue(self._newest)

    @property
    def largest(self) -> float | None:
        """The largest that `newest` has been; None before any ping."""
        return self._with_overdue(self._largest)

    def _with_overdue(self, lag: float | None) -> float | None:
        return lag if self._sent is None else max(lag or 0.0, self._clock() - self._sent)


@contextlib.asynccontextmanager
async def measured(connection: ClientConnection, lag: Lag) -> AsyncIterator[None]:
    """Measure the lag of a connection while the context lasts."""
    task = asyncio.create_task(_ping(connection, lag))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _ping(connection: ClientConnection, lag: Lag) -> None:
    loop = asyncio.get_running_loop()
    # Who reads from the connection is told of its end.
    with contextlib.suppress(ConnectionClosed):
        while True:
            pong = await connection.ping()
            lag.sent()
            due = loop.time() + PING_INTERVAL
            await pong
            lag.answered()
            await asyncio.sleep(due - loop.time())
