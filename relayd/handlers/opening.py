"""What a streamer's and a viewer's connection share: how they begin, how the log names them."""

import asyncio
import logging
from typing import TYPE_CHECKING

from ..connection import Connection
from ..protocol import TimedOut

if TYPE_CHECKING:
    ClientLog = logging.LoggerAdapter[logging.Logger]
else:
    ClientLog = logging.LoggerAdapter

_logger = logging.getLogger("relayd.clients")


async def first_message(connection: Connection, seconds: float) -> str | bytes:
    """Return a client's first message.

    Args:
        connection: The client's connection.
        seconds: How long the client has.

    Raises:
        TimedOut: If it does not come in time.
        ConnectionClosed: If the client leaves instead.
    """
    try:
        async with asyncio.timeout(seconds):
            return await connection.first_message()
    except TimeoutError:
        raise TimedOut from None


def client_log(role: str, connection: Connection, stream_id: str | None = None) -> ClientLog:
    """Return a logger whose every record says who: the role, the stream, the address."""
    who = {"role": role, "stream": stream_id, "peer": connection.peer}
    return ClientLog(_logger, {name: value for name, value in who.items() if value})
