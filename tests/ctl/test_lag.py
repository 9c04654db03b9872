"""Tests of measuring how late a stream is."""

import asyncio
from typing import Any

import pytest
from ctl.fakes import Clock
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from relayd.ctl import lag as module
from relayd.ctl.lag import Lag, measured


def test_the_newest_round_trip() -> None:
    """The lag is the newest round trip, the largest is kept."""
    clock = Clock()
    lag = Lag(clock)
    assert (lag.newest, lag.largest) == (None, None)
    for seconds in (0.25, 2.0, 0.5):
        lag.sent()
        clock.now += seconds
        lag.answered()
        clock.now += 60
        assert lag.newest == seconds
    assert lag.largest == 2.0


def test_an_answer_that_is_overdue() -> None:
    """While a ping waits for longer than the newest round trip, that is the lag."""
    clock = Clock()
    lag = Lag(clock)
    lag.sent()
    clock.now += 0.5
    assert (lag.newest, lag.largest) == (0.5, 0.5)
    lag.answered()
    lag.sent()
    clock.now += 0.25
    assert (lag.newest, lag.largest) == (0.5, 0.5)
    clock.now += 2.75
    assert (lag.newest, lag.largest) == (3.0, 3.0)
    lag.answered()
    assert (lag.newest, lag.largest) == (3.0, 3.0)


def test_an_answer_to_nothing() -> None:
    """An answer without a ping is no round trip."""
    lag = Lag()
    lag.answered()
    assert lag.newest is None


class Witness(Lag):
    """A lag that wakes a test when an answer has come."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: asyncio.Queue[str] = asyncio.Queue()

    def sent(self) -> None:
        super().sent()
        self.seen.put_nowait("sent")

    def answered(self) -> None:
        super().answered()
        self.seen.put_nowait("answered")


def test_pings_are_sent_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings go out one after the other, until the connection or the context ends."""
    monkeypatch.setattr(module, "PING_INTERVAL", 0.001)

    async def silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def main() -> list[str]:
        lag = Witness()
        async with serve(silent, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}") as connection:
                async with measured(connection, lag):
                    seen = [await lag.seen.get() for _ in range(6)]
                assert lag.newest is not None
                while not lag.seen.empty():
                    lag.seen.get_nowait()
                async with measured(connection, lag):
                    await connection.close()
        return seen

    assert asyncio.run(main()) == ["sent", "answered"] * 3


class Unanswered:
    """A connection on which the test answers the pings."""

    def __init__(self) -> None:
        self.pings: asyncio.Queue[asyncio.Future[float]] = asyncio.Queue()
        self.sent = 0

    async def ping(self) -> "asyncio.Future[float]":
        pong = asyncio.get_running_loop().create_future()
        self.sent += 1
        self.pings.put_nowait(pong)
        return pong


def test_a_ping_waits_for_the_answer_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ping follows one that is not answered, which is the lag for as long as it waits."""
    monkeypatch.setattr(module, "PING_INTERVAL", 0.0)
    connection: Any = Unanswered()

    async def main() -> None:
        clock = Clock()
        lag = Lag(clock)
        async with measured(connection, lag):
            for number in (1, 2, 3):
                pong = await connection.pings.get()
                for _ in range(10):
                    await asyncio.sleep(0)
                assert connection.sent == number
                clock.now += number
                assert lag.newest == number
                pong.set_result(0.0)

    asyncio.run(main())
