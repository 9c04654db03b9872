"""How a connection begins, and how the log names it."""

import asyncio
from typing import Any

import pytest

from relayd.handlers.opening import client_log, first_message
from relayd.protocol import TimedOut


class FakeConnection:
    """A connection whose client says one thing, or nothing."""

    peer = "192.0.2.7:5312"

    def __init__(self, message: str | None) -> None:
        self._message = message

    async def first_message(self) -> str:
        if self._message is None:
            await asyncio.get_running_loop().create_future()
        assert self._message is not None
        return self._message


def test_first_message() -> None:
    """The first message is what the client said."""
    connection: Any = FakeConnection("hello")
    assert asyncio.run(first_message(connection, 10)) == "hello"


def test_timed_out() -> None:
    """A client that says nothing in time is refused."""
    connection: Any = FakeConnection(None)
    with pytest.raises(TimedOut):
        asyncio.run(first_message(connection, 0.001))


def test_client_log() -> None:
    """A record says the role, the stream and the address; what is unknown is left out."""
    connection: Any = FakeConnection(None)
    log = client_log("viewer", connection, "k3J9xQ2b")
    assert log.extra == {"role": "viewer", "stream": "k3J9xQ2b", "peer": "192.0.2.7:5312"}
    log = client_log("streamer", connection)
    assert log.extra == {"role": "streamer", "peer": "192.0.2.7:5312"}
